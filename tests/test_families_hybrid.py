"""Families with recurrent layers: Qwen3.5 (gated DeltaNet) and Nemotron-H (Mamba-2): exact counts, states, FLOPs, faults.

Published figures: the model cards at huggingface.co/ID; states: vLLM ``mamba_utils.py`` shapes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx
import pytest

from planner.architecture import Identity, Model, load_model
from planner.errors import InputError

LAYER_TYPES = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
TEXT: dict[str, Any] = {
    "attention_bias": False,
    "attn_output_gate": True,
    "dtype": "bfloat16",
    "full_attention_interval": 4,
    "head_dim": 256,
    "hidden_size": 4096,
    "layer_types": LAYER_TYPES * 15,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 64,
    "linear_value_head_dim": 128,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262144,
    "mlp_only_layers": [],
    "model_type": "qwen3_5_moe_text",
    "moe_intermediate_size": 1024,
    "mtp_num_hidden_layers": 1,
    "mtp_use_dedicated_embeddings": False,
    "num_attention_heads": 32,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 60,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 1024,
    "vocab_size": 248320,
}
QWEN35: dict[str, Any] = {
    "model_type": "qwen3_5_moe",
    "text_config": TEXT,
    "tie_word_embeddings": False,
    "vision_config": {"depth": 27, "hidden_size": 1152},
}
NANO: dict[str, Any] = {
    "attention_bias": False,
    "conv_kernel": 4,
    "head_dim": 128,
    "hidden_size": 2688,
    "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
    "intermediate_size": 1856,
    "mamba_head_dim": 64,
    "mamba_num_heads": 64,
    "mamba_ssm_cache_dtype": "float32",
    "max_position_embeddings": 262144,
    "mlp_bias": False,
    "model_type": "nemotron_h",
    "moe_intermediate_size": 1856,
    "moe_shared_expert_intermediate_size": 3712,
    "n_group": 1,
    "n_groups": 8,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_attention_heads": 32,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 52,
    "num_key_value_heads": 2,
    "ssm_state_size": 128,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_conv_bias": True,
    "vocab_size": 131072,
}
SUPER: dict[str, Any] = NANO | {
    "hidden_size": 4096,
    "hybrid_override_pattern": "MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME",
    "intermediate_size": 2688,
    "mamba_num_heads": 128,
    "moe_intermediate_size": 2688,
    "moe_latent_size": 1024,
    "moe_shared_expert_intermediate_size": 5376,
    "mtp_hybrid_override_pattern": "*E",
    "n_routed_experts": 512,
    "num_experts_per_tok": 22,
    "num_hidden_layers": 88,
    "num_nextn_predict_layers": 1,
}


def read(folder: Path, config: dict[str, Any]) -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(str(folder))


def graph_of(model: Model) -> dict[str, Any]:
    return model.model_dump(include=set(Model.model_fields) - set(Identity.model_fields))


@pytest.mark.parametrize(
    ("config", "name"), [(QWEN35, "qwen3.5-397b-a17b"), (NANO, "nemotron-3-nano-30b-a3b"), (SUPER, "nemotron-3-super-120b-a12b")]
)
def test_an_imported_config_gives_the_graph_of_the_catalogue(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    assert graph_of(read(tmp_path, config)) == graph_of(load_model(name))


def test_a_text_config_alone_is_the_same(tmp_path: Path) -> None:
    assert graph_of(read(tmp_path, TEXT)) == graph_of(load_model("qwen3.5-397b-a17b"))
    interval = {key: value for key, value in TEXT.items() if key != "layer_types"}
    assert graph_of(read(tmp_path, interval)) == graph_of(load_model("qwen3.5-397b-a17b"))


# Law 5


def test_law5_qwen3_5_by_hand() -> None:
    d, vocab = 4096, 248320
    full = 2 * d * 32 * 256 + 2 * d * 2 * 256 + 32 * 256 * d + 2 * 256
    channels = 2 * 16 * 128 + 64 * 128
    linear = d * channels + 4 * channels + 2 * d * 64 * 128 + 2 * d * 64 + 2 * 64 + 128
    expert = 3 * d * 1024
    moe = 513 * expert + 512 * d + d
    total = 2 * vocab * d + d + 15 * full + 45 * linear + 60 * (moe + 2 * d)
    draft = 2 * d * d + 2 * d + full + moe + 2 * d + d
    model = load_model("qwen3.5-397b-a17b")
    assert model.parameters()["total"] == total == 396_346_350_336
    assert model.parameters()["draft"] == draft
    assert model.parameters()["active"] == total - vocab * d - 60 * 502 * expert


@pytest.mark.parametrize(
    ("name", "count", "published", "digits"),
    [
        ("qwen3.5-397b-a17b", "active_with_embedding", 17, 0),
        ("qwen3.5-122b-a10b", "total", 122, 0),
        ("qwen3.5-122b-a10b", "active_with_embedding", 10, 0),
        ("qwen3.5-35b-a3b", "total", 35, 0),
        ("qwen3.5-35b-a3b", "active", 3, 0),
        ("qwen3.5-27b", "total", 27, 0),
        ("nemotron-3-nano-30b-a3b", "total", 31.6, 1),
        ("nemotron-3-nano-30b-a3b", "active", 3.2, 1),
        ("nemotron-3-nano-30b-a3b", "active_with_embedding", 3.6, 1),
        ("nemotron-3-super-120b-a12b", "active", 12, 0),
        ("nemotron-3-ultra-550b-a55b", "active", 55, 0),
    ],
)
def test_law5_counts_round_to_the_published_figure(name: str, count: str, published: float, digits: int) -> None:
    assert round(load_model(name).parameters()[count] / 1e9, digits) == published


@pytest.mark.parametrize(
    ("name", "published", "size", "cause"),
    [
        ("qwen3.5-397b-a17b", 397, 0.7, "the name counts the vision tower of 0.456, which the graph leaves out"),
        ("nemotron-3-super-120b-a12b", 120, 0.7, "the name cuts 120.67 off"),
        ("nemotron-3-ultra-550b-a55b", 550, 0.7, "the name rounds 549.3 to tens"),
    ],
)
def test_law5_exceptions_have_a_size_and_a_cause(name: str, published: int, size: float, cause: str) -> None:
    billions = load_model(name).parameters()["total"] / 1e9
    assert round(billions) != published and cause
    assert abs(billions - published) <= size


def vision_tower(out: int) -> int:
    """Parameters of the Qwen3.5 vision tower by its configuration: 27 layers of 1152, patches 2 x 16 x 16 x 3, merged 2 x 2."""
    d, inner = 1152, 4304
    layer = 3 * d * d + 3 * d + d * d + d + 2 * d * inner + inner + d + 4 * d
    merger = 2 * d + (4 * d) * (4 * d) + 4 * d + 4 * d * out + out
    return 2 * 16 * 16 * 3 * d + d + 2304 * d + 27 * layer + merger


def test_qwen3_8_27b_with_vision_tower_is_its_published_size_to_the_byte() -> None:
    """55,562,855,904 B of BF16 tensors: ``model.safetensors.index.json`` of huggingface.co/Qwen/Qwen3.8-27B."""
    model = load_model("qwen3.8-27b")
    assert model.weight_bytes(draft=True) + 2 * vision_tower(5120) == 55_562_855_904
    assert round((load_model("qwen3.5-397b-a17b").parameters()["total"] + vision_tower(4096)) / 1e9) == 397


def test_law5_nemotron_by_hand() -> None:
    d, inner, groups, size, heads = 2688, 4096, 8, 128, 64
    channels = inner + 2 * groups * size
    mixer = d * (inner + channels + heads) + 5 * channels + inner * d + inner + 3 * heads + d
    attention = 2 * d * 32 * 128 + 2 * d * 2 * 128 + d
    moe = 128 * 2 * d * 1856 + 2 * d * 3712 + 128 * d + 128 + d
    model = load_model("nemotron-3-nano-30b-a3b")
    assert model.parameters()["total"] == 2 * 131072 * d + d + 23 * mixer + 6 * attention + 23 * moe == 31_577_940_288
    assert [model.block(kind).layers for kind in ("mamba", "attention", "moe")] == [23, 6, 23]


def test_experts_in_a_latent_space() -> None:
    block = load_model("nemotron-3-super-120b-a12b").block("moe")
    groups = {group.name: group for group in block.weights}
    assert groups["experts"].member_parameters == 2 * 1024 * 2688
    assert groups["latent"].parameters == 2 * 1024 * 4096
    graph = load_model("nemotron-3-super-120b-a12b").graph()
    assert graph["mamba"]["moe"]["dispatch"]["elements_per_token"] == 1024


# States and FLOPs


def test_states_of_qwen3_5() -> None:
    """188.7 and 3.3 MB a sequence (vLLM: the convolution keeps the last three inputs)."""
    model = load_model("qwen3.5-397b-a17b")
    recurrent, convolution = model.block("linear.attention").caches
    assert 45 * recurrent.fixed_bytes == 45 * 64 * 128 * 128 * 4 == 188_743_680
    assert 45 * convolution.fixed_bytes == 45 * 3 * (2 * 16 * 128 + 64 * 128) * 2 == 3_317_760
    assert (recurrent.role, recurrent.persist) == ("state", "checkpoint")
    assert model.fixed_bytes() == 192_061_440
    assert model.kv_bytes_per_token("bf16") == 15 * 2 * 2 * 256 * 2
    assert model.cache_bytes(0, "bf16") == model.fixed_bytes()
    assert model.cache_bytes(1600, "fp8") == model.fixed_bytes() + 1600 * 15 * 1024
    assert model.read_bytes(1600, "fp8") == model.cache_bytes(1600, "fp8")
    assert model.layouts() == ("bf16", "fp8")


@pytest.mark.parametrize(("context", "expected"), [(4096, 35), (131_072, 97), (1_000_000, 524)])
def test_flops_of_qwen3_5(context: int, expected: float) -> None:
    """Linear layers 32.7 GFLOP a token, 15 layers of attention, and 0.28 of the state whatever the context."""
    model = load_model("qwen3.5-397b-a17b")
    state = 45 * 6 * 64 * 128 * 128
    assert model.attention_flops(context) == state + 15 * 4 * 32 * 256 * context
    assert round(model.flops_per_token(context) / 1e9) == expected


def test_states_of_nemotron() -> None:
    model = load_model("nemotron-3-nano-30b-a3b")
    recurrent, convolution = model.block("mamba").caches
    assert recurrent.fixed_bytes == 64 * 64 * 128 * 4
    assert convolution.fixed_bytes == 3 * (4096 + 2 * 8 * 128) * 2
    assert model.kv_bytes_per_token("bf16") == 6 * 2 * 2 * 128 * 2
    assert model.attention_flops(1) == 23 * 4 * 4096 * 128 + 6 * 4 * 32 * 128


@pytest.mark.parametrize("name", ["qwen3.5-397b-a17b", "qwen3.8-27b", "nemotron-3-nano-30b-a3b", "nemotron-3-super-120b-a12b"])
def test_every_layer_stands_in_one_block_of_each_part(name: str) -> None:
    model = load_model(name)
    placed = [layer for block in model.blocks if block.kind == "attention" and not block.draft for layer in block.layer_ids]
    alone = {layer for block in model.blocks if block.kind in ("moe", "mlp") and not block.draft for layer in block.layer_ids}
    assert sorted({*placed, *alone}) == list(range(model.layers))
    assert len(placed) == len(set(placed))
    assert networkx.is_weakly_connected(model.graph())
    assert model.router is None or sum(b.kind == "moe" for b in model.blocks if not b.draft) > 0


def test_draft_modules_share_embedding_and_head() -> None:
    model = load_model("nemotron-3-super-120b-a12b")
    assert [block.id for block in model.blocks if block.draft] == ["draft.input", "draft.attention", "draft.moe", "draft.head"]
    assert model.speculation is not None and model.speculation.acceptance[0].grade == "D"
    assert load_model("nemotron-3-nano-30b-a3b").speculation is None


def test_layers_may_be_listed_by_name(tmp_path: Path) -> None:
    names = {"M": "mamba", "E": "moe", "*": "attention"}
    listed = {key: value for key, value in NANO.items() if key not in ("hybrid_override_pattern", "num_hidden_layers")}
    listed["layers_block_type"] = [names[letter] for letter in NANO["hybrid_override_pattern"]]
    assert graph_of(read(tmp_path, listed)) == graph_of(load_model("nemotron-3-nano-30b-a3b"))


def test_nemotron_without_experts(tmp_path: Path) -> None:
    dense = {key: value for key, value in NANO.items() if "expert" not in key and "moe" not in key}
    model = read(tmp_path, dense | {"hybrid_override_pattern": "M-M*-", "num_hidden_layers": 5})
    assert model.router is None
    assert model.block("mlp").layer_ids == (1, 4)
    assert model.block("mlp").weights[-1].parameters == 2 * 2688 * 1856


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (TEXT, {"layer_types": LAYER_TYPES}, "layer_types: names 4 layers, num_hidden_layers says 60"),
        (TEXT, {"layer_types": ["sliding_attention"] * 60}, "layer_types"),
        (TEXT, {"linear_num_value_heads": 63}, "linear_num_value_heads: 63 does not divide by linear_num_key_heads 16"),
        (TEXT, {"linear_conv_kernel_dim": 1}, "linear_conv_kernel_dim"),
        (TEXT, {"linear_key_head_dim": ...}, "linear_key_head_dim: is missing"),
        (TEXT, {"num_experts_per_tok": 513}, "num_experts_per_tok: 513 is more than num_experts 512"),
        (TEXT, {"mtp_use_dedicated_embeddings": True}, "mtp_use_dedicated_embeddings"),
        (QWEN35, {"text_config": 3}, "is missing"),
        (QWEN35, {"model_type": "qwen3_6_moe"}, "did you mean qwen3_5_moe"),
        (NANO, {"hybrid_override_pattern": "MEM"}, "the pattern has 3, num_hidden_layers says 52"),
        (NANO, {"hybrid_override_pattern": "X" * 52}, "'X' is no kind of layer"),
        (NANO, {"hybrid_override_pattern": ...}, "the pattern has 0"),
        (NANO, {"n_routed_experts": ...}, "n_routed_experts: is missing, there are layers of experts"),
        (NANO, {"moe_shared_expert_intermediate_size": ...}, "moe_shared_expert_intermediate_size: is missing"),
        (NANO, {"n_group": 7}, "n_routed_experts: 128 does not divide by n_group 7"),
        (NANO, {"topk_group": 2}, "topk_group: 2 is more than n_group 1"),
        (NANO, {"num_experts_per_tok": 129}, "num_experts_per_tok: 129 is more than the 128 experts"),
        (NANO, {"n_groups": 5}, "mamba_num_heads: 64 does not divide by n_groups 5"),
        (NANO, {"use_bias": True}, "use_bias"),
        (NANO, {"ssm_state_size": -1}, "ssm_state_size"),
        (SUPER, {"mtp_hybrid_override_pattern": ...}, "mtp_hybrid_override_pattern: is missing"),
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
