"""Dense and mixture families with grouped-query attention: exact counts (law 5), spans, windows and faulty configurations.

Published integers: ``safetensors.parameters`` of huggingface.co/api/models/ID?expand[]=safetensors, or parameter counts
of the GGUF files (gpt-oss, Nemotron); published round figures: the model cards at huggingface.co/ID, for OPT table 1 of
arXiv:2205.01068.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.architecture import Identity, Model, find_model, load_model
from planner.errors import InputError

QWEN3_MOE: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "max_window_layers": 94,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 1536,
    "norm_topk_prob": True,
    "num_attention_heads": 64,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "num_key_value_heads": 4,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3: dict[str, Any] = {
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN2: dict[str, Any] = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 152064,
}
MIXTRAL: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mixtral",
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
MISTRAL: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
GPT_OSS: dict[str, Any] = {
    "attention_bias": True,
    "experts_per_token": 4,
    "head_dim": 64,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "num_local_experts": 128,
    "quantization_config": {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
        "quant_method": "mxfp4",
    },
    "sliding_window": 128,
    "tie_word_embeddings": False,
    "vocab_size": 201088,
}
OPT: dict[str, Any] = {
    "do_layer_norm_before": True,
    "ffn_dim": 16384,
    "hidden_size": 4096,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "torch_dtype": "float16",
    "vocab_size": 50272,
    "word_embed_proj_dim": 4096,
}
MINIMAX_M2: dict[str, Any] = {
    "head_dim": 128,
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "max_position_embeddings": 196608,
    "model_type": "minimax_m2",
    "num_attention_heads": 48,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "num_key_value_heads": 8,
    "num_local_experts": 256,
    "num_mtp_modules": 3,
    "qk_norm_type": "per_layer",
    "quantization_config": {
        "fmt": "float8_e4m3fn",
        "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "shared_intermediate_size": 0,
    "tie_word_embeddings": False,
    "use_qk_norm": True,
    "use_routing_bias": True,
    "vocab_size": 200064,
}
MINIMAX_M3: dict[str, Any] = {
    "dense_intermediate_size": 12288,
    "head_dim": 128,
    "hidden_size": 6144,
    "intermediate_size": 3072,
    "max_position_embeddings": 1048576,
    "model_type": "minimax_m3",
    "moe_layer_freq": [0] * 3 + [1] * 57,
    "n_shared_experts": 1,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 60,
    "num_key_value_heads": 4,
    "num_local_experts": 128,
    "qk_norm_type": "per_head",
    "shared_intermediate_size": 3072,
    "sparse_attention_config": {
        "sparse_attention_freq": [0] * 3 + [1] * 57,
        "sparse_block_size": 128,
        "sparse_index_dim": 128,
        "sparse_num_index_heads": 4,
        "sparse_topk_blocks": 16,
        "use_sparse_attention": True,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_qk_norm": True,
    "use_routing_bias": True,
    "vocab_size": 200064,
}


def read(folder: Path, config: dict[str, Any]) -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(str(folder))


def graph_of(model: Model) -> dict[str, Any]:
    return model.model_dump(include=set(Model.model_fields) - set(Identity.model_fields))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (QWEN3_MOE, "qwen3-235b-a22b"),
        (QWEN3, "qwen3-8b"),
        (QWEN2, "qwen2.5-coder-7b"),
        (MIXTRAL, "mixtral-8x7b"),
        (MISTRAL, "mistral-7b-v0.1"),
        (GPT_OSS, "gpt-oss-120b"),
        (OPT, "opt-6.7b"),
        (MINIMAX_M2, "minimax-m2"),
        (MINIMAX_M3, "minimax-m3"),
    ],
)
def test_an_imported_config_gives_the_graph_of_the_catalogue(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    assert graph_of(read(tmp_path, config)) == graph_of(load_model(name))


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Llama-3.3-70B", "llama-3.1-70b"),
        ("DeepSeek-R1-Distill-Llama-70B", "llama-3.1-70b"),
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b"),
        ("llama2-70b-99", "llama-2-70b"),
        ("llama3.1-8b", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b-fp8"),
        ("Llama-3.2-3B", "llama-3.2-3b"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax-m2"),
        ("MiniMax-M3", "minimax-m3"),
        ("OPT-6.7B", "opt-6.7b"),
        ("OPT-30B", "opt-30b"),
        ("OPT-175B", "opt-175b"),
        ("Qwen2.5-Coder-7B", "qwen2.5-coder-7b"),
        ("Qwen3-8B", "qwen3-8b"),
        ("Qwen/Qwen3-32B", "qwen3-32b"),
        ("nvidia/Qwen3-32B-NVFP4", "qwen3-32b-nvfp4"),
        ("Qwen3-235B-A22B", "qwen3-235b-a22b"),
        ("Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22b-fp8"),
        ("Qwen3-Coder-30B-A3B", "qwen3-coder-30b-a3b"),
        ("Qwen3-Coder-480B", "qwen3-coder-480b-a35b"),
        ("Qwen/Qwen3.5-397B-A17B", "qwen3.5-397b-a17b"),
        ("Qwen3.8-27B", "qwen3.8-27b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
    ],
)
def test_the_labels_of_public_measurements_name_a_model(label: str, name: str) -> None:
    entry = find_model(label)
    assert entry is not None and entry.id == name


# Law 5: counts


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.1-405b", 405_853_388_800),
        ("llama-3.2-3b", 3_212_749_824),
        ("llama-2-70b", 68_976_648_192),
        ("mistral-7b-v0.1", 7_241_732_096),
        ("mixtral-8x7b", 46_702_792_704),
        ("mixtral-8x22b", 140_620_634_112),
        ("qwen2.5-coder-7b", 7_615_616_512),
        ("qwen2.5-32b", 32_763_876_352),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3-32b", 32_762_123_264),
        ("qwen3-30b-a3b", 30_532_122_624),
        ("qwen3-235b-a22b", 235_093_634_560),
        ("qwen3-coder-480b-a35b", 480_154_875_392),
        ("minimax-m2", 228_689_764_864),
        ("gpt-oss-120b", 116_829_156_672),
        ("gpt-oss-20b", 20_914_757_184),
        ("nemotron-3-nano-30b-a3b", 31_577_940_288),
    ],
)
def test_law5_totals_are_the_published_integers(name: str, total: int) -> None:
    assert load_model(name).parameters()["total"] == total


@pytest.mark.parametrize(
    ("name", "count", "published", "digits"),
    [
        ("mixtral-8x7b", "total", 46.7, 1),
        ("mixtral-8x7b", "active_with_embedding", 12.9, 1),
        ("mixtral-8x22b", "total", 141, 0),
        ("mixtral-8x22b", "active", 39, 0),
        ("qwen3-8b", "total", 8.2, 1),
        ("qwen3-32b", "total", 32.8, 1),
        ("qwen3-235b-a22b", "total", 235, 0),
        ("qwen3-235b-a22b", "active_with_embedding", 22, 0),
        ("qwen3-30b-a3b", "total", 30.5, 1),
        ("qwen3-coder-480b-a35b", "total", 480, 0),
        ("qwen3-coder-480b-a35b", "active", 35, 0),
        ("gpt-oss-120b", "total", 117, 0),
        ("gpt-oss-120b", "active", 5.1, 1),
        ("gpt-oss-20b", "total", 21, 0),
        ("gpt-oss-20b", "active", 3.6, 1),
        ("minimax-m2", "active", 10, 0),
        ("minimax-m2", "total", 229, 0),
        ("llama-3.1-8b", "total", 8.03, 2),
        ("llama-3.1-70b", "total", 70.55, 2),
        ("llama-3.1-405b", "total", 405.85, 2),
        ("opt-6.7b", "total", 6.7, 1),
        ("opt-13b", "total", 13, 0),
        ("opt-30b", "total", 30, 0),
        ("opt-66b", "total", 66, 0),
        ("opt-175b", "total", 175, 0),
    ],
)
def test_law5_counts_round_to_the_published_figure(name: str, count: str, published: float, digits: int) -> None:
    assert round(load_model(name).parameters()[count] / 1e9, digits) == published


@pytest.mark.parametrize(
    ("name", "count", "published", "digits", "size", "cause"),
    [
        ("minimax-m2", "total", 230, 0, 1.4, "the card rounds 228.7 to tens"),
        ("minimax-m3", "total", 428, 0, 1.9, "the card counts the vision tower and projector, which the graph leaves out"),
        ("minimax-m3", "active", 23, 0, 1.8, "the card counts neither embedding nor head: 23.50"),
        ("qwen3-30b-a3b", "active_with_embedding", 3.3, 1, 0.06, "the card cuts 3.35 off"),
    ],
)
def test_law5_exceptions_have_a_size_and_a_cause(
    name: str, count: str, published: float, digits: int, size: float, cause: str
) -> None:
    billions = load_model(name).parameters()[count] / 1e9
    assert round(billions, digits) != published and cause
    assert abs(billions - published) <= size


def test_minimax_m3_active_without_head_is_published() -> None:
    model = load_model("minimax-m3")
    head = model.vocabulary * model.hidden_size
    assert int((model.parameters()["active"] - head) / 1e9) == 23


def test_gpt_oss_weights_are_the_published_size() -> None:
    """openai/gpt-oss model card table 1: 116.83B and 20.91B parameters, checkpoints of 60.8 and 12.8 GiB."""
    big, small = load_model("gpt-oss-120b"), load_model("gpt-oss-20b")
    assert big.parameters()["total"] == 116_829_156_672
    assert small.parameters()["total"] == 20_914_757_184
    assert round(big.weight_bytes() / 2**30, 1) == 60.8
    assert round(small.weight_bytes() / 2**30, 1) == 12.8


def test_minimax_m2_5_with_its_scales_is_published() -> None:
    """228,703,644,928 tensor elements at huggingface.co/MiniMaxAI/MiniMax-M2.5: parameters and one scale per 128 x 128 tile."""
    model = load_model("minimax-m2")
    stored = sum(
        block.layers * group.count * tensor.parameters
        for block in model.blocks
        for group in block.weights
        for tensor in group.tensors
        if tensor.format == "fp8_block128"
    )
    scales = (model.bytes_by_format()["fp8_block128"] - stored) // 4
    assert model.parameters()["total"] + scales == 228_703_644_928


def test_gpt_oss_expert_by_hand() -> None:
    block = load_model("gpt-oss-120b").block("full.experts")
    experts = block.weights[-1]
    assert (experts.count, experts.active) == (128, 4)
    matrices = 3 * 2880 * 2880
    assert experts.member_parameters == matrices + 3 * 2880
    assert experts.member_bytes() == matrices // 2 + matrices // 32 + 2 * 3 * 2880
    assert all(experts.tensor_axis % ways == 0 for ways in (1, 2, 4, 8))


def test_opt_by_hand() -> None:
    """Four attention matrices and two of the MLP with biases, two norms with biases; 2,050 positions; one shared table."""
    d, inner = 4096, 16384
    layer = 4 * (d * d + d) + 2 * d * inner + inner + d + 4 * d
    model = load_model("opt-6.7b")
    assert model.parameters()["total"] == 50272 * d + 2050 * d + 32 * layer + 2 * d
    assert model.weight_bytes() == 2 * model.parameters()["total"]
    assert model.kv_bytes_per_token("bf16") == 32 * 2 * 2 * d
    assert model.parameters()["active"] == model.parameters()["total"] - 2050 * d


def test_qwen2_has_biases_and_qwen3_norms(tmp_path: Path) -> None:
    plain = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    plain |= {"num_hidden_layers": 3, "vocab_size": 50, "max_position_embeddings": 99, "torch_dtype": "bfloat16"}
    llama = read(tmp_path, plain | {"model_type": "llama"}).parameters()["total"]
    assert read(tmp_path, plain | {"model_type": "qwen2"}).parameters()["total"] - llama == 3 * (64 + 32 + 32)
    assert read(tmp_path, plain | {"model_type": "qwen3"}).parameters()["total"] - llama == 3 * (16 + 16)
    biased = read(tmp_path, plain | {"model_type": "qwen3", "attention_bias": True}).parameters()["total"]
    assert biased - llama == 3 * (16 + 16 + 64 + 32 + 32 + 64)


def test_minimax_norms_are_per_layer_or_per_head(tmp_path: Path) -> None:
    layer = read(tmp_path, MINIMAX_M2)
    head = read(tmp_path, MINIMAX_M2 | {"qk_norm_type": "per_head"})
    none = read(tmp_path, MINIMAX_M2 | {"use_qk_norm": False})
    assert layer.parameters()["total"] - none.parameters()["total"] == 62 * (48 + 8) * 128
    assert head.parameters()["total"] - none.parameters()["total"] == 62 * 2 * 128


def test_some_layers_without_experts(tmp_path: Path) -> None:
    small = QWEN3_MOE | {"num_hidden_layers": 6, "num_experts": 4, "num_experts_per_tok": 2}
    model = read(tmp_path, small | {"mlp_only_layers": [0, 3]})
    assert model.block("full.experts").layer_ids == (1, 2, 4, 5)
    assert model.block("dense-full.mlp").layer_ids == (0, 3)
    every_other = read(tmp_path, small | {"decoder_sparse_step": 2})
    assert every_other.block("full.experts").layer_ids == (1, 3, 5)
    none = read(tmp_path, small | {"mlp_only_layers": list(range(6))})
    assert none.router is None and {block.kind for block in none.blocks} == {"embedding", "attention", "mlp", "head"}


# Windows


def test_a_window_bounds_what_is_held_read_and_computed() -> None:
    model = load_model("mistral-7b-v0.1")
    entry = 32 * 2 * 8 * 128 * 2
    assert model.cache_bytes(1000, "bf16", page_tokens=1) == 1000 * entry
    assert model.cache_bytes(100_000, "bf16") == model.cache_bytes(4096, "bf16") == 4096 * entry
    assert model.read_bytes(100_000, "bf16") == 4096 * entry
    assert model.kv_bytes_per_token("bf16") == 0
    assert model.attention_flops(100_000) == 32 * 4 * 32 * 128 * 4096


@pytest.mark.parametrize(("context", "expected"), [(4096, 11.5), (131_072, 49), (1_000_000, 305)])
def test_flops_of_gpt_oss(context: int, expected: float) -> None:
    """2 x active and 4 x 64 x 64 per pair: in 18 layers the whole context, in 18 at most 128."""
    model = load_model("gpt-oss-120b")
    core = 4 * 64 * 64 * 18 * (context + 128)
    assert model.attention_flops(context) == core
    assert model.flops_per_token(context) == pytest.approx(expected * 1e9, rel=5e-3)


def test_layers_of_gpt_oss_alternate(tmp_path: Path) -> None:
    model = load_model("gpt-oss-120b")
    assert model.block("sliding.attention").layer_ids == tuple(range(0, 36, 2))
    assert model.block("full.experts").layer_ids == tuple(range(1, 36, 2))
    assert model.kv_bytes_per_token("fp8") == 18 * 1024
    default = {key: value for key, value in GPT_OSS.items() if key != "layer_types"}
    assert graph_of(read(tmp_path, default)) == graph_of(model)


def test_mixed_windows_of_dense_models(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention"] * 12
    mixed = QWEN3 | {"layer_types": kinds, "sliding_window": 512}
    model = read(tmp_path, mixed)
    assert model.block("sliding.attention").layers == 24
    assert model.block("full.attention").layer_ids == tuple(range(2, 36, 3))
    entry = 2 * 8 * 128 * 2
    assert model.cache_bytes(4096, "bf16") == entry * (24 * 512 + 12 * 4096)
    assert model.parameters() == load_model("qwen3-8b").parameters()
    upper = read(tmp_path, QWEN3 | {"use_sliding_window": True, "sliding_window": 512, "max_window_layers": 30})
    assert upper.block("sliding.attention").layer_ids == tuple(range(30, 36))
    unused = read(tmp_path, QWEN3 | {"sliding_window": 512})
    assert graph_of(unused) == graph_of(load_model("qwen3-8b"))
    llama = read(tmp_path, MISTRAL | {"model_type": "llama"})
    assert llama.cache_bytes(100_000, "bf16") > llama.cache_bytes(4096, "bf16")


# Caches and FLOPs against published figures


def test_qwen3_235b_at_a_million_tokens_as_the_calculator_counts() -> None:
    """kvcache-ai/kvcache-blog calculator: 89.645 GiB at 1,000,000 tokens and a byte per element."""
    held = load_model("qwen3-235b-a22b").cache_bytes(1_000_000, "calculator")
    assert held == 94 * 2 * 4 * 128 * 1_000_000
    assert round(held / 2**30, 3) == 89.645


@pytest.mark.parametrize(
    ("name", "published"),
    [("qwen3-235b-a22b", (39, 60)), ("gpt-oss-120b", (47, 95)), ("qwen2.5-32b", (117, 267))],
)
def test_cache_per_compute_of_dualpath_table_1(name: str, published: tuple[int, int]) -> None:
    """DualPath (arXiv:2602.21548) table 1: GB of cache loaded per PFLOP of prefill with 429 new tokens over 16K to 64K of
    context; FP8 caches at a byte per element, the Qwen2.5-32B row FP16."""
    model = load_model(name)
    found = []
    for context in (16_384, 65_536):
        layout = "bf16" if name == "qwen2.5-32b" else "calculator"
        loaded = model.cache_bytes(context, layout) / 1e9
        found.append(loaded / (429 * model.flops_per_token(float(context), "prefill") / 1e15))
    tolerance = 0.03
    assert min(found) == pytest.approx(published[0], rel=tolerance)
    assert max(found) == pytest.approx(published[1], rel=tolerance)


def test_minimax_m3_reads_blocks_and_all_index_keys() -> None:
    model = load_model("minimax-m3")
    assert model.block("sparse.attention").layers == 57
    entry = 2 * 4 * 128
    tokens = 1_000_000
    assert model.cache_bytes(tokens, "fp8", page_tokens=1) == tokens * (60 * entry + 57 * 128)
    assert model.read_bytes(tokens, "fp8") == 3 * tokens * entry + 57 * (2048 * entry + tokens * 128)
    core, index = 4 * 64 * 128, 2 * 4 * 128
    assert model.attention_flops(tokens) == 3 * core * tokens + 57 * (core * 2048 + index * tokens)
    index_cache = model.block("sparse.attention").caches[1]
    assert (index_cache.role, index_cache.tensor_axis) == ("index", 1)


def test_minimax_m3_with_a_text_config_is_the_same(tmp_path: Path) -> None:
    text = {key: value for key, value in MINIMAX_M3.items() if key != "torch_dtype"} | {"model_type": "minimax_m3_text"}
    whole = {"model_type": "minimax_m3_vl", "dtype": "bfloat16", "text_config": text, "vision_config": {"depth": 3}}
    assert graph_of(read(tmp_path, whole)) == graph_of(load_model("minimax-m3"))


def test_dense_attention_of_minimax_m3(tmp_path: Path) -> None:
    off = MINIMAX_M3["sparse_attention_config"] | {"use_sparse_attention": False}
    model = read(tmp_path, MINIMAX_M3 | {"sparse_attention_config": off})
    assert {cache.name for block in model.blocks for cache in block.caches} == {"kv"}
    absent = {key: value for key, value in MINIMAX_M3.items() if key != "sparse_attention_config"}
    assert graph_of(read(tmp_path, absent)) == graph_of(model)


# Storage


@pytest.mark.parametrize(
    ("name", "format", "kept"),
    [
        ("llama-3.1-8b-fp8", "fp8_tensor", "llama-3.1-8b"),
        ("qwen3-32b-fp8", "fp8_block128", "qwen3-32b"),
        ("qwen3-32b-nvfp4", "nvfp4", "qwen3-32b"),
        ("qwen3-235b-a22b-fp8", "fp8_block128", "qwen3-235b-a22b"),
        ("minimax-m2", "fp8_block128", ""),
    ],
)
def test_quantised_editions_keep_embedding_head_norms_and_router_wide(name: str, format: str, kept: str) -> None:
    model = load_model(name)
    wide = {
        tensor.name
        for block in model.blocks
        for group in block.weights
        for tensor in group.tensors
        if tensor.format != format and len(tensor.shape) > 1
    }
    assert wide <= {"embed_tokens", "lm_head", "gate"}
    assert {format, "bf16"} <= set(model.bytes_by_format())
    if kept:
        assert model.parameters() == load_model(kept).parameters()


def test_bytes_of_nvfp4_by_hand() -> None:
    """Half a byte an element, an FP8 scale per 16, an FP32 scale per matrix (NVIDIA NVFP4)."""
    model = load_model("qwen3-32b-nvfp4")
    linear = 64 * (2 * 5120 * 8192 + 2 * 5120 * 1024 + 3 * 5120 * 25600)
    assert model.bytes_by_format()["nvfp4"] == linear // 2 + linear // 16 + 64 * 7 * 4


def test_the_file_of_model_optimizer_beside_a_config_is_read(tmp_path: Path) -> None:
    beside = tmp_path / "hf_quant_config.json"
    said = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head", "model.layers.0.mlp.gate"]}
    beside.write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": said}))
    shape = QWEN3 | {"hidden_size": 5120, "intermediate_size": 25600, "num_attention_heads": 64, "num_hidden_layers": 64}
    assert graph_of(read(tmp_path, shape)) == graph_of(load_model("qwen3-32b-nvfp4"))
    own = shape | {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert graph_of(read(tmp_path, own)) == graph_of(load_model("qwen3-32b-fp8"))
    beside.write_text(json.dumps({"quantization": said | {"quant_algo": "MIXED_PRECISION"}}))
    with pytest.raises(InputError, match="quant_algo"):
        read(tmp_path, shape)
    beside.write_text("[]")
    with pytest.raises(InputError, match="hf_quant_config.json: quantization: is missing"):
        read(tmp_path, shape)


# Faults


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (QWEN3_MOE, {"num_experts": ...}, "num_experts: is missing"),
        (QWEN3_MOE, {"num_experts_per_tok": 129}, "num_experts_per_tok: 129 is more than num_experts 128"),
        (QWEN3_MOE, {"mlp_only_layers": [94]}, "mlp_only_layers: there is no layer 94"),
        (QWEN3_MOE, {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        (QWEN3_MOE, {"num_key_value_heads": 5}, "num_attention_heads: 64 does not divide by num_key_value_heads 5"),
        (QWEN3, {"use_sliding_window": True}, "sliding_window: is missing, use_sliding_window is true"),
        (QWEN3, {"layer_types": ["full_attention"] * 35}, "layer_types: names 35 layers, num_hidden_layers says 36"),
        (QWEN3, {"layer_types": ["sliding_attention"] * 36}, "sliding_window: is missing"),
        (QWEN3, {"layer_types": ["linear_attention"] * 36}, "layer_types"),
        (QWEN3, {"quantization_config": {"quant_method": "mxfp4"}}, "mxfp4 is not known here"),
        (QWEN3, {"quantization_config": {"quant_method": "modelopt"}}, "quant_algo: is missing"),
        (QWEN3, {"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A8"}}, "quant_algo"),
        (QWEN2, {"model_type": "qwen4"}, "did you mean qwen"),
        (MIXTRAL, {"num_local_experts": 0}, "num_local_experts"),
        (MIXTRAL, {"num_experts_per_tok": 9}, "num_experts_per_tok: 9 is more than num_local_experts 8"),
        (MISTRAL, {"sliding_window": 0}, "sliding_window"),
        (GPT_OSS, {"sliding_window": None}, "sliding_window"),
        (GPT_OSS, {"layer_types": ["full_attention"]}, "layer_types: names 1 layers"),
        (OPT, {"word_embed_proj_dim": 512}, "word_embed_proj_dim: 512"),
        (OPT, {"do_layer_norm_before": False}, "do_layer_norm_before"),
        (OPT, {"ffn_dim": -1}, "ffn_dim"),
        (OPT, {"num_attention_heads": 33}, "hidden_size: 4096 does not divide by num_attention_heads 33"),
        (MINIMAX_M2, {"qk_norm_type": "odd"}, "qk_norm_type"),
        (MINIMAX_M3, {"moe_layer_freq": [1] * 59}, "moe_layer_freq: names 59 layers"),
        (MINIMAX_M3, {"moe_layer_freq": [2] * 60}, "moe_layer_freq"),
        (MINIMAX_M3, {"sparse_attention_config": {"use_sparse_attention": True}}, "sparse_attention_freq"),
    ],
)
def test_a_faulty_config_is_one_line_naming_the_field(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    config = {key: value for key, value in (base | changes).items() if value is not ...}
    with pytest.raises(InputError) as caught:
        read(tmp_path, config)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(tmp_path / "config.json"))
    assert "\n" not in message


def test_a_wrong_length_of_sparse_layers(tmp_path: Path) -> None:
    sparse = MINIMAX_M3["sparse_attention_config"] | {"sparse_attention_freq": [1]}
    with pytest.raises(InputError, match="sparse_attention_freq: names 1 layers"):
        read(tmp_path, MINIMAX_M3 | {"sparse_attention_config": sparse})
