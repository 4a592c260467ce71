"""Models as graphs: exact counts and bytes (law 5), round trips (law 6), formats, plugins, the catalogue and the importer.

Published integers: ``safetensors.parameters`` as huggingface.co/api/models/ID?expand[]=safetensors gives it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner.plugins
from planner.architecture import (
    FORMATS,
    Block,
    Cache,
    Family,
    Identity,
    Model,
    Span,
    Tensor,
    WeightGroup,
    convert,
    family_names,
    find_model,
    format_of,
    list_models,
    load_model,
)
from planner.errors import InputError
from planner.plugins import BUILTIN, Registry

V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 129280,
}

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 64,
    "num_hidden_layers": 80,
    "num_key_value_heads": 8,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}

SMALL_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 12,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "vocab_size": 10,
    "torch_dtype": "bfloat16",
}


def read(folder: Path, config: object) -> Model:
    (folder / "config.json").write_text(json.dumps(config))
    return load_model(str(folder))


def elements_by_format(model: Model) -> dict[str, int]:
    """Stored elements of the whole model, draft module included, by format, scales not."""
    found: dict[str, int] = {}
    for block in model.blocks:
        for group in block.weights:
            for tensor in group.tensors if not group.shares else ():
                found[tensor.format] = found.get(tensor.format, 0) + block.layers * group.count * tensor.parameters
    return found


def scales(model: Model) -> int:
    """FP32 scales of the whole model, draft module included."""
    return (model.bytes_by_format(draft=True)["fp8_block128"] - elements_by_format(model)["fp8_block128"]) // 4


# Law 5: parameter and cache counts are the integers that follow from configuration and shapes.


def test_law5_deepseek_v3_parameters_by_hand() -> None:
    d, vocab = 7168, 129280
    attention = d * 1536 + 1536 * 128 * 192 + d * 576 + 512 * 128 * 256 + 128 * 128 * d + 1536 + 512 + d
    expert = 3 * d * 2048
    dense = 3 * d * 18432 + d
    moe = 257 * expert + 256 * d + 256 + d
    active_moe = 9 * expert + 256 * d + 256 + d
    total = 2 * vocab * d + d + 61 * attention + 3 * dense + 58 * moe
    draft = 2 * d * d + 2 * d + attention + moe + d
    active = vocab * d + d + 61 * attention + 3 * dense + 58 * active_moe
    assert load_model("deepseek-v3").parameters() == {
        "total": total,
        "draft": draft,
        "active": active,
        "active_with_embedding": active + vocab * d,
    }
    assert (total, draft, active) == (671_026_419_200, 11_610_068_224, 36_625_618_432)


def test_law5_deepseek_v3_equals_the_published_tensor_counts() -> None:
    """The files repeat embedding and head (BF16) for the draft module, which shares them; F32 holds scales and router bias."""
    model = load_model("deepseek-v3")
    elements = elements_by_format(model)
    assert elements["bf16"] + 2 * 129280 * 7168 == 3_918_786_560
    assert elements["fp8_block128"] == 680_571_043_840
    assert elements["fp32"] + scales(model) == 41_555_600
    assert elements["fp32"] == 59 * 256


def test_law5_deepseek_v3_bytes() -> None:
    model = load_model("deepseek-v3")
    assert model.bytes_by_format() == {"bf16": 3_921_590_272, "fp32": 59_392, "fp8_block128": 669_228_962_144}
    assert model.weight_bytes() == sum(model.bytes_by_format().values()) == 673_150_611_808
    assert model.weight_bytes(draft=True) == 684_868_123_200
    assert model.weight_bytes({"fp8_block128": "bf16"}) == 2 * model.parameters()["total"] + 2 * 58 * 256


@pytest.mark.parametrize(
    ("changes", "total"),
    [
        ({}, 70_553_706_496),
        ({"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32}, 8_030_261_248),
        (
            {"hidden_size": 16384, "intermediate_size": 53248, "num_attention_heads": 128, "num_hidden_layers": 126},
            405_853_388_800,
        ),
    ],
)
def test_law5_llama_equals_the_published_counts(tmp_path: Path, changes: dict[str, int], total: int) -> None:
    model = read(tmp_path, LLAMA | changes)
    assert model.parameters()["total"] == total
    assert model.weight_bytes() == 2 * total
    assert model.parameters()["active_with_embedding"] == total
    assert model.parameters()["active"] == total - 128256 * model.hidden_size


@pytest.mark.parametrize(
    ("name", "count", "published", "exception"),
    [
        ("deepseek-v3", "total", 671.0, 0.0),
        ("deepseek-v3", "active_with_embedding", 37.0, 0.6),  # the report says 37B: rounded down, or counted without head
        ("deepseek-v3", "active", 36.7, 0.1),  # README_WEIGHTS.md says 36.7B "including embedding and head"
        ("deepseek-v3", "draft", 11.5, 0.12),  # README_WEIGHTS.md leaves out eh_proj, 2 x 7168 x 7168 = 0.103B
        ("llama-3.1-70b", "total", 70.6, 0.0),
    ],
)
def test_law5_published_figures(name: str, count: str, published: float, exception: float) -> None:
    digits = 0 if published == int(published) else 1
    billions = load_model(name).parameters()[count] / 1e9
    if exception:
        assert round(billions, digits) != published
        assert abs(billions - published) <= exception
    else:
        assert round(billions, digits) == published


def test_law5_cache_bytes() -> None:
    model = load_model("deepseek-v3")
    assert model.layouts() == ("bf16", "fp8", "fp8_ds_mla")
    cache = model.block("moe.attention").caches[0]
    assert cache.elements == 576
    assert cache.layouts == {"bf16": 1152, "fp8": 576, "fp8_ds_mla": 656}  # 656: vLLM's layout, 512 + 4 x 4 + 64 x 2
    assert model.kv_bytes_per_token("bf16") == 61 * 1152 == 70_272
    assert model.kv_bytes_per_token("bf16", draft=True) == 62 * 1152
    assert model.kv_bytes_per_token("fp8_ds_mla") == 40_016
    assert model.cache_bytes(131_072, "bf16") == 70_272 * 131_072
    assert model.cache_bytes(65, "bf16") == 70_272 * 128  # two pages of 64
    assert model.cache_bytes(65, "bf16", page_tokens=1) == model.read_bytes(65, "bf16") == 70_272 * 65
    assert model.cache_bytes(0, "bf16") == 0
    llama = load_model("llama-3.1-70b")
    assert llama.kv_bytes_per_token("bf16") == 80 * 2 * 8 * 128 * 2 == 327_680
    assert llama.kv_bytes_per_token("fp8") == 163_840
    with pytest.raises(InputError, match="no layout 'fp9'"):
        llama.kv_bytes_per_token("fp9")


def test_small_llama_by_hand(tmp_path: Path) -> None:
    model = read(tmp_path, SMALL_LLAMA)
    layer = 8 * 8 + 8 * 8 + 2 * 8 * 4 + 3 * 8 * 12 + 2 * 8
    assert model.parameters()["total"] == 3 * layer + 2 * 10 * 8 + 8
    groups = {g.name: g for g in model.block("attention").weights}
    assert (groups["queries"].tensor_axis, groups["keys_values"].tensor_axis, groups["norm"].tensor_axis) == (4, 2, 1)
    assert model.block("attention").caches[0].layouts["bf16"] == 2 * 2 * 2 * 2
    biased = read(tmp_path, SMALL_LLAMA | {"attention_bias": True, "mlp_bias": True})
    assert biased.parameters()["total"] - model.parameters()["total"] == 3 * (8 + 8 + 4 + 4 + 12 + 12 + 8)


def test_a_tied_embedding_is_stored_once_and_read_by_the_head(tmp_path: Path) -> None:
    loose, tied = read(tmp_path, SMALL_LLAMA), read(tmp_path, SMALL_LLAMA | {"tie_word_embeddings": True})
    assert loose.parameters()["total"] - tied.parameters()["total"] == 10 * 8
    assert loose.weight_bytes() - tied.weight_bytes() == 10 * 8 * 2
    assert loose.parameters()["active"] == tied.parameters()["active"] == tied.parameters()["active_with_embedding"]
    (table,) = tied.block("embedding").weights
    assert (table.parameters, table.bytes(), table.member_parameters, table.row_bytes()) == (0, 0, 80, 16)


def test_multi_head_and_multi_query_are_ends_of_grouped_query(tmp_path: Path) -> None:
    absent = {key: value for key, value in SMALL_LLAMA.items() if key != "num_key_value_heads"}
    assert read(tmp_path, absent).blocks == read(tmp_path, SMALL_LLAMA | {"num_key_value_heads": 4}).blocks
    assert read(tmp_path, SMALL_LLAMA | {"num_key_value_heads": 1}).kv_bytes_per_token("bf16") == 3 * 2 * 2 * 2
    assert read(tmp_path, SMALL_LLAMA | {"head_dim": 16}).block("attention").caches[0].elements == 2 * 2 * 16


# FLOPs


def decode_flops(model: Model, context: int) -> float:
    """FLOPs of one token at that context, decode modes, draft module not."""
    total = 0.0
    for block in (block for block in model.blocks if not block.draft):
        total += block.layers * sum(group.flops_per_token for group in block.weights)
        total += block.layers * sum(t.per_pair * t.span.entries(context) for t in block.flops if "decode" in t.phases)
    return total


def test_attention_flops_of_mla() -> None:
    """deepseek-ai/DeepSeek-V3 inference/model.py has both forms, ``naive`` and ``absorb``."""
    block = load_model("deepseek-v3").block("dense.attention")
    absorbed, expanded = block.flops
    assert (absorbed.mode, absorbed.per_pair, absorbed.per_cached_token) == ("absorbed", 2 * 128 * (512 + 64 + 512), 0)
    assert (expanded.mode, expanded.per_pair) == ("expanded", 2 * 128 * (128 + 64 + 128))
    assert (absorbed.per_pair, expanded.per_pair) == (278_528, 81_920)
    assert expanded.per_cached_token == 2 * 512 * 128 * 256
    assert block.modes("decode") == ("absorbed",)
    assert block.modes("prefill") == ("absorbed", "expanded")


@pytest.mark.parametrize(
    ("name", "context", "expected"),
    [
        ("deepseek-v3", 4096, 143e9),
        ("deepseek-v3", 131_072, 2300e9),
        ("llama-3.1-70b", 4096, 150e9),
        ("llama-3.1-70b", 131_072, 483e9),
    ],
)
def test_flops_per_token(name: str, context: int, expected: float) -> None:
    """2 x active parameters and the attention core: 278,528 x 61 x T for MLA absorbed, 4 x 64 x 128 x 80 x T for Llama."""
    assert decode_flops(load_model(name), context) == pytest.approx(expected, rel=4e-3)


# Spans, caches, tensors


@given(
    tokens=st.integers(0, 10**9),
    ratio=st.integers(1, 300),
    window=st.none() | st.integers(1, 10**6),
    cap=st.none() | st.integers(0, 10**6),
)
def test_a_span_is_its_formula_and_grows_with_context(tokens: int, ratio: int, window: int | None, cap: int | None) -> None:
    span = Span(ratio=ratio, window=window, cap=cap)
    exact = min(tokens if window is None else min(tokens, window), 10**9) // ratio
    exact = exact if cap is None else min(exact, cap)
    assert span.entries(tokens) == exact
    assert isinstance(span.entries(tokens), int)
    assert span.entries(tokens + 1) >= exact
    assert exact <= span.entries(float(tokens)) < exact + 1
    pair = span.entries(np.array([tokens, tokens + 1]))
    assert pair.tolist() == [exact, span.entries(tokens + 1)]
    assert span.entries(np.array([float(tokens)]))[0] == pytest.approx(span.entries(float(tokens)))


@given(tokens=st.integers(0, 10**6), page=st.integers(1, 512), ratio=st.sampled_from([1, 2, 4, 128]))
def test_a_cache_holds_whole_pages_and_at_most_one_page_too_many(tokens: int, page: int, ratio: int) -> None:
    cache = Cache(name="kv", span=Span(ratio=ratio), elements=4, layouts={"bf16": 8}, page_tokens=page, fixed_bytes=3)
    entries = (cache.bytes(tokens, "bf16") - 3) // 8
    per_page = max(1, page // ratio)
    assert entries % per_page == 0
    assert 0 <= entries - tokens // ratio < per_page


def test_compressed_caches_grow_by_fractions_of_an_entry() -> None:
    """An entry of 584 bytes per 4 tokens and one per 128 tokens: 146 + 4.5625 bytes, and a fixed state."""
    caches = (
        Cache(name="a", span=Span(ratio=4), elements=512, layouts={"x": 584}, page_tokens=256),
        Cache(name="b", span=Span(ratio=128), elements=512, layouts={"x": 584}, page_tokens=256, fixed_bytes=1000),
    )
    model = load_model("llama-3.1-70b")
    blocks = (Block(id="a", kind="attention", first_layer=0, layers=2, caches=caches),)
    tiny = Model(**(dict(model) | {"blocks": blocks, "edges": ()}))
    assert tiny.kv_bytes_per_token("x") == 302  # 301.125 rounded up
    assert tiny.cache_bytes(256, "x") == 2 * (64 * 584 + 2 * 584 + 1000)
    assert tiny.fixed_bytes() == 2000
    assert tiny.parameters()["total"] == 0


@pytest.mark.parametrize(
    ("format", "shape", "size"),
    [
        ("bf16", (3, 5), 30),
        ("fp32", (7,), 28),
        ("fp8_block128", (128, 128), 128 * 128 + 4),
        ("fp8_block128", (129, 128), 129 * 128 + 8),
        ("fp8_block128", (576, 7168), 576 * 7168 + 5 * 56 * 4),
        ("fp8_block128", (2, 128, 128), 2 * (128 * 128 + 4)),
        ("fp8_tensor", (64, 64), 4096 + 4),
        ("int8_channel", (10, 64), 640 + 40),
        ("int4_g32", (10, 64), 320 + 10 * 2 * 2),
        ("int4_g32", (1, 33), 17 + 4),
        ("mxfp4", (10, 64), 320 + 20),
        ("nvfp4", (10, 64), 320 + 40 + 4),
    ],
)
def test_bytes_of_a_tensor_by_hand(format: str, shape: tuple[int, ...], size: int) -> None:
    assert format_of(format).bytes_of(shape) == size
    assert Tensor(name="t", shape=shape, format=format).bytes() == size


@given(rows=st.integers(1, 5000), columns=st.integers(1, 5000), name=st.sampled_from(sorted(FORMATS)))
def test_bytes_of_a_tensor_bound_its_bits(rows: int, columns: int, name: str) -> None:
    size = format_of(name).bytes_of((rows, columns))
    assert rows * columns * FORMATS[name].bits <= 8 * size
    assert format_of(name).bytes_of((rows + 1, columns)) > size


@pytest.mark.parametrize(
    ("stored", "supported", "expected"),
    [
        ("fp8_block128", {"fp8", "bf16"}, "fp8_block128"),
        ("fp8_block128", {"int8", "bf16"}, "int8_channel"),
        ("fp8_block128", {"bf16"}, "bf16"),
        ("fp8_block128", {"fp4", "bf16"}, "bf16"),
        ("int8_channel", {"fp8", "bf16"}, "fp8_block128"),
        ("mxfp4", {"fp8", "bf16"}, "fp8_block128"),
        ("mxfp4", {"int4", "bf16"}, "int4_g32"),
        ("nvfp4", {"fp4"}, "nvfp4"),
        ("fp32", {"bf16"}, "fp32"),
        ("fp16", {"bf16"}, "fp16"),
        ("bf16", {"bf16", "fp8", "int8"}, "bf16"),
    ],
)
def test_conversion_keeps_or_widens(stored: str, supported: set[str], expected: str) -> None:
    assert convert(stored, supported) == expected
    assert convert(stored, supported, kernels={stored}) == stored


@given(stored=st.sampled_from(sorted(FORMATS)), supported=st.sets(st.sampled_from(["fp4", "int4", "fp8", "int8", "bf16"])))
def test_conversion_never_loses_bits(stored: str, supported: set[str]) -> None:
    try:
        result = FORMATS[convert(stored, supported)]
    except InputError:
        assert not any(f.bits >= FORMATS[stored].bits and f.compute_dtype in supported for f in FORMATS.values())
        return
    assert result.bits >= FORMATS[stored].bits
    assert convert(result.name, supported) == result.name


# The graph


def test_the_graph_of_deepseek_v3() -> None:
    model = load_model("deepseek-v3")
    main = ["embedding", "dense.attention", "dense.mlp", "moe.attention", "moe.experts", "head"]
    draft = ["draft.input", "draft.attention", "draft.experts", "draft.head"]
    assert [block.id for block in model.blocks] == main + draft
    assert [block.id for block in model.blocks if block.draft] == draft
    graph = model.graph()
    assert isinstance(graph, networkx.DiGraph)
    assert networkx.is_directed_acyclic_graph(graph)
    assert graph.nodes["moe.experts"]["block"] is model.block("moe.experts")
    assert set(graph["moe.attention"]["moe.experts"]) == {"residual", "dispatch"}
    assert graph["moe.attention"]["moe.experts"]["dispatch"] == {"kind": "dispatch", "elements_per_token": 7168, "dtype": "fp8"}
    assert list(networkx.topological_sort(graph.subgraph(main))) == main
    assert sum(b.layers for b in model.blocks if b.kind == "attention" and not b.draft) == model.layers == 61
    experts = model.block("moe.experts").weights[-1]
    assert (experts.count, experts.active, experts.access, experts.address, experts.tensor_axis) == (
        256,
        8,
        "routed",
        "activation",
        16,
    )
    assert experts.member_bytes() == 3 * (7168 * 2048 + 56 * 16 * 4)
    assert model.router is not None
    assert (model.router.experts, model.router.active, model.router.shared, model.router.groups) == (256, 8, 1, 8)


def test_the_draft_module_shares_embedding_and_head() -> None:
    model = load_model("deepseek-v3")
    assert model.speculation is not None
    (first,) = model.speculation.acceptance
    assert (first.lowest, first.highest) == (0.85, 0.90)  # arXiv:2412.19437 section 5.4.3
    shared = {(b.id, g.name): g for b in model.blocks for g in b.weights if g.shares}
    assert {key: group.shares for key, group in shared.items()} == {
        ("draft.input", "table"): "embedding/table",
        ("draft.head", "lm_head"): "head/lm_head",
    }
    active = sum(g.active_parameters for b in model.blocks for g in b.weights if b.draft)
    assert round((active - 2 * 7168 * 7168) / 1e9, 1) == 2.4  # README_WEIGHTS.md, which leaves out eh_proj
    head = shared["draft.head", "lm_head"]
    assert (head.parameters, head.bytes(), head.flops_per_token) == (0, 0, 2 * 129280 * 7168)


@pytest.mark.parametrize(
    "changes", [{"first_k_dense_replace": 0}, {"first_k_dense_replace": 61}, {"num_nextn_predict_layers": 0}]
)
def test_absent_parts_leave_no_block(tmp_path: Path, changes: dict[str, int]) -> None:
    model = read(tmp_path, V3 | changes)
    ids = {block.id for block in model.blocks}
    assert ("dense.attention" in ids) == (changes.get("first_k_dense_replace") != 0)
    assert ("moe.experts" in ids) == (changes.get("first_k_dense_replace") != 61)
    assert (model.speculation is None) == (changes.get("num_nextn_predict_layers") == 0)
    assert networkx.is_weakly_connected(model.graph())


def test_a_query_without_low_rank(tmp_path: Path) -> None:
    model, full = read(tmp_path, V3 | {"q_lora_rank": None}), load_model("deepseek-v3")
    gained = 7168 * 128 * 192 - (7168 * 1536 + 1536 + 1536 * 128 * 192)
    assert model.parameters()["total"] - full.parameters()["total"] == 61 * gained


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("edges", 0, "source"), "nowhere", "no block 'nowhere'"),
        (("blocks", 1, "id"), "embedding", "two blocks"),
        (("blocks", 1, "reads", 0, "cache"), "other", "does not exist"),
        (("blocks", 0, "weights", 0, "shares"), "head/other", "does not exist"),
        (("blocks", 0, "weights", 0, "rows"), None, "needs rows"),
        (("blocks", 0, "weights", 0, "active"), 2, "more than count"),
        (("blocks", 0, "weights", 0, "count"), 2**60, "parameters"),
        (("blocks", 0, "weights", 0, "tensors", 0, "format"), "bf17", "did you mean bf16"),
        (("blocks", 0, "layers"), 0, "greater than 0"),
        (("surprise",), 1, "Extra inputs"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(path: tuple[Any, ...], value: object, words: str) -> None:
    data = load_model("llama-3.1-70b").model_dump(mode="json")
    place: Any = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError, match=words):
        Model.model_validate(data, context={"si": True})


# Law 6: round trips


@pytest.mark.parametrize("name", [entry.id for entry in list_models()])
def test_law6_a_model_survives_its_json(name: str) -> None:
    model = load_model(name)
    text = json.dumps(model.model_dump(mode="json"))
    assert Model.model_validate(json.loads(text), context={"si": True}) == model
    assert Model.model_validate_json(text, context={"si": True}) == model


@pytest.mark.parametrize(("config", "name"), [(V3, "deepseek-v3"), (LLAMA, "llama-3.1-70b")])
def test_an_imported_config_gives_the_graph_of_the_catalogue(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    folder = tmp_path / "My Model (copy)"
    folder.mkdir()
    imported, known = read(folder, config), load_model(name)
    same = Model.model_fields.keys() - Identity.model_fields.keys()
    assert imported.model_dump(include=set(same)) == known.model_dump(include=set(same))
    assert imported.id == "my-model-copy"
    assert imported.source == "imported config.json"
    other = tmp_path / "Some_Name.json"
    other.write_text(json.dumps(config))
    assert load_model(other).id == "some-name"
    assert load_model(str(folder / "config.json")) == imported


# The catalogue


def test_ids_and_aliases_are_unique_and_lower_case() -> None:
    names = [name for entry in list_models() for name in (entry.id, *entry.aliases)]
    assert len(names) == len(set(names))
    assert all(name == name.casefold() for name in names)
    assert all(find_model(name.upper()) is not None for name in names)
    assert all(entry.source and entry.as_of and entry.load().id == entry.id for entry in list_models())


@pytest.mark.parametrize(
    ("alias", "name"),
    [("deepseek-r1", "deepseek-v3"), ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"), ("llama-3.3-70b", "llama-3.1-70b")],
)
def test_aliases_name_the_same_model(alias: str, name: str) -> None:
    assert load_model(alias) == load_model(name)


def test_an_unknown_name_gets_the_nearest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="did you mean deepseek-v3"):
        load_model("deepseek-w3")
    for name in ("", "~nobody-here/x", "/no/such", "./config.json", "a" * 5000, "nul\0", "\ud800", "a/b/c", "☃"):
        with pytest.raises(InputError):
            load_model(name)


def test_hub_ids_need_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"pip install '\.\[hub\]'"):
        load_model("some-org/some-model")


def test_hub_ids_are_read_with_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    hub, errors = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.errors")
    asked: list[tuple[str, str]] = []

    class Absent(Exception):
        pass

    class Unreached(Absent):
        pass

    def download(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        if repository.endswith("gone"):
            raise OSError("no such repository")
        folder = tmp_path / repository.rpartition("/")[2]
        folder.mkdir(exist_ok=True)
        if filename == "config.json":
            (folder / filename).write_text(json.dumps(LLAMA))
        elif repository.endswith("offline"):
            raise Unreached("no network")
        elif repository.endswith("FP8"):
            (folder / filename).write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
        else:
            raise Absent("404")
        return str(folder / filename)

    monkeypatch.setattr(hub, "hf_hub_download", download, raising=False)
    monkeypatch.setattr(errors, "EntryNotFoundError", Absent, raising=False)
    monkeypatch.setattr(errors, "LocalEntryNotFoundError", Unreached, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    model = load_model("some-org/Some-Model")
    assert model.id == "some-model"
    assert asked == [("some-org/Some-Model", "config.json"), ("some-org/Some-Model", "hf_quant_config.json")]
    assert model.blocks == load_model("llama-3.1-70b").blocks
    quantised = load_model("some-org/Some-FP8")
    assert quantised.blocks == load_model(str(tmp_path / "Some-FP8")).blocks != model.blocks
    with pytest.raises(InputError, match="cannot be known offline"):
        load_model("some-org/offline")
    with pytest.raises(InputError, match="cannot be had from the hub"):
        load_model("some-org/gone")


# Faults of a configuration: one line that names file and field


@pytest.mark.parametrize(
    ("base", "changes", "words"),
    [
        (LLAMA, {"hidden_size": ...}, "hidden_size: is missing"),
        (LLAMA, {"model_type": ...}, "model_type: is missing"),
        (LLAMA, {"model_type": "lama"}, "did you mean llama"),
        (LLAMA, {"model_type": 3}, "model_type"),
        (LLAMA, {"num_key_value_heads": 7}, "num_attention_heads: 64 does not divide by num_key_value_heads 7"),
        (LLAMA, {"num_attention_heads": 24, "num_key_value_heads": 24}, "hidden_size: 8192 does not divide"),
        (LLAMA, {"hidden_size": -8192}, "hidden_size: Input should be greater than 0"),
        (LLAMA, {"num_hidden_layers": 0}, "num_hidden_layers"),
        (LLAMA, {"num_hidden_layers": 1_000_001}, "num_hidden_layers: Input should be less than or equal to 10000"),
        (LLAMA, {"hidden_size": "8192"}, "hidden_size: Input should be a valid integer"),
        (LLAMA, {"hidden_size": True}, "hidden_size"),
        (LLAMA, {"hidden_size": 8192.5}, "hidden_size"),
        (LLAMA, {"torch_dtype": "int3"}, "torch_dtype"),
        (LLAMA, {"dtype": "float16"}, "contradicts torch_dtype"),
        (LLAMA, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config.quant_method: Input should be 'fp8'"),
        (LLAMA, {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}, "weight_block_size"),
        (
            LLAMA,
            {"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.layers.3"]}},
            "cannot be kept apart",
        ),
        (V3, {"num_experts_per_tok": 129}, "num_experts_per_tok: 129 is more than the 128 experts"),
        (V3, {"n_group": 7}, "n_routed_experts: 256 does not divide by n_group 7"),
        (V3, {"topk_group": 9}, "topk_group: 9 is more than n_group 8"),
        (V3, {"first_k_dense_replace": 62}, "first_k_dense_replace: 62 is more than num_hidden_layers 61"),
        (V3, {"moe_layer_freq": 2}, "moe_layer_freq"),
        (V3, {"kv_lora_rank": None}, "kv_lora_rank"),
        (V3, {"n_routed_experts": 2**20, "moe_intermediate_size": 2**20}, "parameters, which no model has"),
    ],
)
def test_a_faulty_config_is_one_line_naming_file_and_field(
    tmp_path: Path, base: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    config = {key: value for key, value in (base | changes).items() if value is not ...}
    with pytest.raises(InputError) as caught:
        read(tmp_path, config)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(tmp_path / "config.json"))
    assert "\n" not in message


def test_fp8_without_blocks_has_one_scale_per_matrix(tmp_path: Path) -> None:
    quantised = {"quant_method": "fp8", "modules_to_not_convert": ["lm_head", "model.norm"]}
    model = read(tmp_path, SMALL_LLAMA | {"quantization_config": quantised})
    linear = 8 * 8 + 8 * 8 + 2 * 8 * 4 + 3 * 8 * 12
    assert model.bytes_by_format() == {"bf16": 2 * (3 * 2 * 8 + 8 + 2 * 10 * 8), "fp8_tensor": 3 * (linear + 7 * 4)}


# Plugins


def install(monkeypatch: pytest.MonkeyPatch, site: Path, package: str, **offers: str) -> Registry:
    """Put the metadata of a package with these entry points on the path; a registry that has not looked yet."""
    group = "planner.model_families"
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in offers.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(site))
    registry = Registry(group, BUILTIN[group])
    monkeypatch.setattr("planner.architecture.families.registry", lambda group: registry)
    return registry


def test_builtins_are_the_entry_points_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert {group: dict(table) for group, table in BUILTIN.items()} == {
        group: table for group, table in project["entry-points"].items() if group in BUILTIN
    }


def test_builtins_load_and_unknown_names_get_the_nearest() -> None:
    assert {"deepseek_v3", "llama"} <= set(family_names())
    loaded = planner.plugins.registry("planner.model_families").load_all()
    assert all(isinstance(loaded[name], Family) for name in BUILTIN["planner.model_families"])
    with pytest.raises(InputError, match="did you mean llama"):
        planner.plugins.registry("planner.model_families").get("lama")
    with pytest.raises(ValueError, match="unknown plugin group"):
        planner.plugins.registry("planner.nothing")


def test_a_third_party_family_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "site", "strange-package", strange="planner.architecture.families.llama:FAMILY")
    assert "strange" in family_names()
    assert read(tmp_path, LLAMA | {"model_type": "strange"}).blocks == load_model("llama-3.1-70b").blocks


def test_a_broken_third_party_plugin_is_reported_and_never_fatal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    site = tmp_path / "site"
    registry = install(
        monkeypatch,
        site,
        "strange-package",
        broken="no_such_module_at_all:FAMILY",
        exits="strange_exit:FAMILY",
        fails="strange_build:FAMILY",
        empty="planner.errors:nothing",
        wrong="planner.errors:nearest",
        llama="somewhere:ELSE",
        deepseek_v3=BUILTIN["planner.model_families"]["deepseek_v3"],
    )
    (site / "strange_exit.py").write_text("raise SystemExit(3)\n")
    (site / "strange_build.py").write_text(
        "from planner.architecture import Family\n"
        "from planner.architecture.families.llama import LlamaConfig\n"
        "FAMILY = Family('fails', LlamaConfig, lambda config, identity: 1 / 0)\n"
    )
    builtin = set(BUILTIN["planner.model_families"])
    assert registry.names() == tuple(sorted({*builtin, "broken", "empty", "exits", "fails", "wrong"}))
    assert set(registry.load_all()) == {*builtin, "fails", "wrong"}
    faults = {fault.name: fault for fault in registry.faults()}
    assert set(faults) == {"broken", "empty", "exits", "llama"}
    assert {fault.package for fault in faults.values()} == {"strange-package"}
    assert "belongs to a built-in" in faults["llama"].reason
    assert read(tmp_path, LLAMA).blocks == load_model("llama-3.1-70b").blocks
    for kind, words in {
        "broken": "strange-package: 'broken' cannot be loaded",
        "exits": "SystemExit: 3",
        "fails": "the plugin for model_type 'fails' failed (ZeroDivisionError",
        "wrong": "'wrong' is no planner.architecture.Family",
    }.items():
        with pytest.raises(InputError) as caught:
            read(tmp_path, LLAMA | {"model_type": kind})
        assert words in str(caught.value)


def test_unreadable_metadata_leaves_the_builtins(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(group: str) -> None:
        raise OSError("metadata is damaged")

    monkeypatch.setattr("importlib.metadata.entry_points", explode)
    registry = Registry("planner.model_families", BUILTIN["planner.model_families"])
    assert registry.names() == tuple(sorted(BUILTIN["planner.model_families"]))
    assert "metadata is damaged" in registry.faults()[0].reason


def test_two_packages_of_one_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "one", "a-package", twice="planner.architecture.families.llama:FAMILY")
    registry = install(monkeypatch, tmp_path / "two", "z-package", twice="z:FAMILY")
    assert isinstance(registry.get("twice"), Family)
    (fault,) = registry.faults()
    assert (fault.package, fault.reason) == ("z-package", "the name is taken by a-package")


# Weight


def test_loading_a_model_imports_neither_networkx_nor_numpy() -> None:
    script = (
        "import sys; from planner.architecture import load_model; load_model('deepseek-v3').parameters();"
        "load_model('llama-3.1-70b').cache_bytes(100, 'bf16');"
        "assert not {'networkx', 'numpy', 'huggingface_hub', 'ortools'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1])


def test_a_group_counts_members() -> None:
    group = WeightGroup(name="e", tensors=(Tensor(name="w", shape=(4, 4), format="bf16"),), count=8, active=2, access="routed")
    assert (group.parameters, group.active_parameters, group.flops_per_token) == (128, 32, 64)
    assert (group.member_bytes(), group.bytes(), group.bytes({"bf16": "fp32"})) == (32, 256, 512)
    assert group.formats == ("bf16",)
