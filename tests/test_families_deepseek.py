"""Families of DeepSeek, GLM and Kimi: shapes by hand, configurations as published against the catalogue, and refusals."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from planner.architecture import (
    Model,
    find_model,
    list_models,
    load_model,
    model_from_config,
    prefetch_window,
    token_addressed,
)
from planner.errors import InputError
from planner.footprint.memory import cache_bytes_per_sequence
from planner.footprint.pieces import cut

FAMILIES = {
    "deepseek",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v32",
    "deepseek_v4",
    "deepseek_v41",
    "engram",
    "glm_moe_dsa",
    "kimi_k2",
    "kimi_k25",
    "kimi_k3",
}
NOISE = {"architectures": ["Some"], "rms_norm_eps": 1e-6, "rope_scaling": {"type": "yarn", "factor": 40}, "use_cache": True}
MINE = [entry.id for entry in list_models() if entry.family in FAMILIES]


def published(name: str) -> dict[str, Any]:
    """The configuration of a catalogue entry as its publisher writes it: other fields beside, multimodal ones nested."""
    entry = find_model(name)
    assert entry is not None
    config: dict[str, Any] = json.loads(json.dumps(entry.config))
    if entry.family in ("kimi_k25", "kimi_k3", "deepseek_v41"):
        return {"model_type": entry.family, "vision_config": {"depth": 3}, "text_config": {**NOISE, **config}}
    return {"model_type": entry.family, **NOISE, **config}


def changed(name: str, **changes: Any) -> Model:
    config = published(name)
    inner = config.get("text_config", config)
    for key, value in changes.items():
        if value is None:
            inner.pop(key)
        else:
            inner[key] = value
    return model_from_config(config, "config.json", "changed")


@pytest.mark.parametrize("name", MINE)
def test_a_published_configuration_is_the_catalogues_graph(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(published(name)))
    read, known = load_model(str(tmp_path)), load_model(name)
    assert (read.blocks, read.edges, read.router, read.speculation) == (
        known.blocks,
        known.edges,
        known.router,
        known.speculation,
    )
    assert (read.layers, read.max_context, read.family) == (known.layers, known.max_context, known.family)


@pytest.mark.parametrize("name", MINE)
def test_a_model_round_trips_and_every_layer_has_one_mixer_and_one_mlp(name: str) -> None:
    model = load_model(name)
    assert Model.model_validate(model.model_dump(mode="json"), context={"si": True}) == model
    for kinds in (("attention",), ("mlp", "moe")):
        layers = sorted(n for b in model.blocks if b.kind in kinds and not b.draft for n in b.layer_ids)
        assert layers == list(range(model.layers))
    assert list(model.graph()) == [block.id for block in model.blocks]


def test_law5_v4_pro_by_hand() -> None:
    d, q, heads, width, out, groups, inner, experts = 7168, 1536, 128, 512, 1024, 16, 3072, 384
    attention = d * q + q * heads * width + d * width + heads * width * out + groups * out * d + heads + d + q + width
    csa = 4 * d * width + 4 * 2 * width + width
    hca = 2 * d * width + 128 * width + width
    index = 4 * d * 128 + 4 * 256 + 128 + q * 64 * 128 + d * 64
    streams = 24 * 4 * d + 24 + 3
    moe = d + experts * d + (experts + 1) * 3 * d * inner
    layers = 61 * (attention + 2 * streams + moe) + 58 * experts + 30 * (csa + index) + 31 * hca
    collapse = 4 * 4 * d + 4 + 1
    total = layers + 2 * 129_280 * d + d + collapse
    draft = attention + 2 * streams + moe + experts + 2 * d * d + 2 * d + d + collapse
    parameters = load_model("deepseek-v4-pro").parameters()
    assert (parameters["total"], parameters["draft"]) == (total, draft)
    assert parameters["active"] == total - 129_280 * d - 61 * (experts - 6) * 3 * d * inner


def test_v4_layers() -> None:
    """61 layers of V4-Pro: 30 CSA, 31 HCA, the first three hash-routed; 43 of V4-Flash: 2 with a window only, 21 CSA, 20 HCA."""
    pro, flash = load_model("deepseek-v4-pro"), load_model("deepseek-v4-flash")
    count = {
        model.id: {
            name: sum(
                b.layers for b in model.blocks if b.kind == "attention" and not b.draft and b.id.split(".")[0].endswith(name)
            )
            for name in ("csa", "hca", "window")
        }
        for model in (pro, flash)
    }
    assert count == {
        "deepseek-v4-pro": {"csa": 30, "hca": 31, "window": 0},
        "deepseek-v4-flash": {"csa": 21, "hca": 20, "window": 2},
    }
    hashed = [(block, name) for block, name in token_addressed(pro) if name == "experts"]
    assert sorted(n for block, _ in hashed for n in block.layer_ids) == [0, 1, 2]
    table = [g for g in hashed[0][0].weights if g.name == "expert_table"][0]
    assert (table.rows, table.parameters, table.member_bytes(), table.row_bytes()) == (129_280, 0, 129_280 * 6 * 8, 48)
    assert pro.block("csa.attention").layer_ids == tuple(range(4, 61, 2))
    assert dict(prefetch_window(pro, 2)) == {"embedding": 1, "hash_hca.attention": 2, "hash_hca.experts": 2}


def test_v4_shares_over_tensor_parallelism() -> None:
    """One key-value head, index keys and compressor state lie on every rank; queries split by head, outputs by group."""
    block = load_model("deepseek-v4-pro").block("csa.attention")
    assert {cache.name: cache.tensor_axis for cache in block.caches} == {
        "window": 1,
        "compressed": 1,
        "index": 1,
        "compressor_state": 1,
    }
    axes = {group.name: group.tensor_axis for group in block.weights}
    assert (axes["heads"], axes["output"], axes["low_rank"], axes["indexer"]) == (128, 16, 1, 1)
    assert {cache.name: cache.persist for cache in block.caches} == {
        "window": "checkpoint",
        "compressed": "append",
        "index": "append",
        "compressor_state": "checkpoint",
    }


def test_glm_52_scores_in_21_of_78_layers() -> None:
    model = load_model("glm-5.2")
    own = [b for b in model.blocks if any(c.name == "index" for c in b.caches) and not b.draft]
    assert sum(b.layers for b in own) == 21
    assert {b.id for b in own} == {"dense.attention", "moe.attention"}
    shared = model.block("moe_shared.attention")
    assert (shared.layers, [r.cache for r in shared.reads], shared.reads[0].span.cap) == (57, ["latent"], 2048)
    assert load_model("glm-5").parameters()["total"] - model.parameters()["total"] == 57 * (9_371_648 + 256)


def test_v41_owners_and_readers() -> None:
    model = load_model("deepseek-v4.1-flash")
    owners = {b.id: b.layer_ids for b in model.blocks if any(c.name == "compressed" for c in b.caches)}
    assert owners == {"encoder2_source.cache": (2, 8, 14), "decoder_source.cache": (20,)}
    reads = {(b.id, r.cache, r.block, r.span.cap) for b in model.blocks for r in b.reads if r.cache == "index"}
    assert reads == {
        ("encoder2_source.attention", "index", "encoder2_source.cache", None),
        ("decoder_source.attention", "index", "decoder_source.cache", None),
        ("decoder_reindex.attention", "index", "decoder_source.cache", 16_384),
    }
    decode_only = [n for b in model.blocks if b.phases == ("decode",) and b.kind == "attention" for n in b.layer_ids]
    assert sorted(decode_only) == list(range(20, 40))
    assert model.block("decoder_source.cache").phases == ("prefill", "decode")


def test_dspark_drafts_a_block_in_one_pass() -> None:
    draft = [block for block in load_model("deepseek-v4.1-flash").blocks if block.draft]
    assert [block.id for block in draft] == ["draft.input", "draft.attention", "draft.experts", "draft.head"]
    (experts,) = [g for g in draft[2].weights if g.name == "experts"]
    assert (draft[1].layers, experts.count, experts.active) == (3, 128, 3)
    drafted = changed(
        "deepseek-v4-pro",
        num_nextn_predict_layers=0,
        compress_ratios=[128, 128, *[4, 128] * 29, 4],
        dspark_block_size=5,
        dspark_target_layer_ids=[58, 59, 60],
        dspark_markov_rank=512,
    )
    assert drafted.speculation is not None
    assert (drafted.speculation.depth, drafted.speculation.per_pass) == (5, 5)
    assert drafted.block("draft.attention").layers == 3


def test_kimi_k3_layers() -> None:
    model = load_model("kimi-k3")
    latent = [n for b in model.blocks if any(c.name == "latent" for c in b.caches) for n in b.layer_ids]
    assert sorted(latent) == [*range(3, 92, 4), 92]
    assert sum(b.layers for b in model.blocks if any(c.name == "recurrent" for c in b.caches)) == 69
    assert model.kv_bytes_per_token("fp8_ds_mla") == 24 * 656
    dispatch = {edge.elements_per_token for edge in model.edges if edge.kind == "dispatch"}
    assert dispatch == {3584}
    assert model.residual_elements() == 7168 * 9


def test_engram_lies_before_the_rest_of_its_layer_is_done() -> None:
    window = dict(prefetch_window(load_model("engram-27b"), 14))
    assert (window["dense.attention"], window["moe.attention"], window["engram.1"]) == (1, 13, 1)


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("deepseek-v3.2", {"index_topk": None}, "index_topk"),
        ("deepseek-v4-pro", {"compress_ratios": [4, 128]}, "compress_ratios: has 2 entries for num_hidden_layers 61"),
        ("deepseek-v4-pro", {"compress_ratios": [8] * 61}, "compress_ratios: 8 is none of 0, 4 and 128"),
        ("deepseek-v4-pro", {"compress_ratios": [-4] * 61}, "compress_ratios"),
        ("deepseek-v4-pro", {"o_groups": 5}, "num_attention_heads: 128 does not divide by o_groups 5"),
        ("deepseek-v4-pro", {"num_hash_layers": 62}, "num_hash_layers: 62 is more than num_hidden_layers 61"),
        ("deepseek-v4-pro", {"num_experts_per_tok": 385}, "num_experts_per_tok: 385"),
        ("deepseek-v4-pro", {"qk_rope_head_dim": 513}, "qk_rope_head_dim: 513 is more than head_dim 512"),
        ("deepseek-v4-pro", {"num_key_value_heads": 8}, "num_key_value_heads"),
        (
            "deepseek-v4.1-flash",
            {"kv_source_layer_ids": [3, 8, 14, 20]},
            "kv_source_layer_ids: layer 2 has a ratio but no source",
        ),
        (
            "deepseek-v4.1-flash",
            {"kv_source_layer_ids": [2, 8, 14]},
            "compress_ratios: layer 20 differs from its source, layer 14",
        ),
        ("deepseek-v4.1-flash", {"kv_source_layer_ids": [0, 2, 8, 14, 20]}, "index_source_layer_ids: lacks a layer"),
        ("deepseek-v4.1-flash", {"index_source_layer_ids": [2, 8, 14, 20, 99]}, "index_source_layer_ids: 99 is no layer"),
        ("deepseek-v4.1-flash", {"engram_layer_ids": [14, 1]}, "engram_layer_ids: must rise"),
        ("deepseek-v4.1-flash", {"engram_num_embeddings": [1]}, "engram_num_embeddings: has 1 entries for 2 engram_layer_ids"),
        ("glm-5.2", {"indexer_types": ["full"]}, "indexer_types: has 1 entries for num_hidden_layers 78"),
        ("glm-5.2", {"indexer_types": ["shared"] * 78}, "indexer_types: the first layer has no choice before it"),
        ("glm-5.2", {"mlp_layer_types": ["sparse"] * 78}, "mlp_layer_types: contradicts first_k_dense_replace 3"),
        ("kimi-k3", {"linear_attn_config": {"kda_layers": [1]}}, "linear_attn_config"),
        ("kimi-k3", {"num_hidden_layers": 92}, "kda_layers and full_attn_layers must name every layer once"),
        ("kimi-k2.5", {"quantization_config": {"quant_method": "compressed-tensors"}}, "config_groups: is missing"),
        (
            "kimi-k2.5",
            {
                "quantization_config": {
                    "quant_method": "compressed-tensors",
                    "config_groups": {"g": {"weights": {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}}},
                    "ignore": ["lm_head"],
                }
            },
            "ignore: lacks self_attn",
        ),
        ("deepseek-v3-mha", {"num_key_value_heads": 3}, "num_attention_heads: 128 does not divide by num_key_value_heads 3"),
        ("deepseek-v3-mha", {"first_k_dense_replace": 62}, "first_k_dense_replace: 62"),
        ("deepseek-v3-mha", {"num_experts_per_tok": 300}, "num_experts_per_tok: 300"),
        ("engram-27b", {"engram_dim": 1281}, "engram_dim: 1281 does not divide by"),
        ("engram-27b", {"engram_layers": [15, 2]}, "engram_layers: must rise"),
        ("engram-27b", {"engram_layers": [31]}, "engram_layers: 31 is more than num_hidden_layers 30"),
    ],
)
def test_contradictions_are_refused_in_one_line(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        changed(name, **changes)
    text = str(caught.value)
    assert words in text and "\n" not in text and "config.json" in text


def test_the_footprint_follows_scattered_layers_pages_and_phases() -> None:
    """30 CSA and 31 HCA layers over four stages; V4 pages of 256 tokens padded to 576 bytes; no decoder of V4.1 in prefill."""
    pieces = cut(load_model("deepseek-v4-pro"), {}, ("fp8_ds_mla",))
    stages = pieces.stage_table(4)
    names = [window.name for window in pieces.windows]
    total = {name: sum(stage[names.index(name)] for stage in stages) for name in ("hash_hca", "hash_csa", "csa", "hca")}
    assert total == {"hash_hca": 2, "hash_csa": 1, "csa": 29, "hca": 29}
    window = next(window for window in pieces.windows if window.name == "csa")
    held = {cache.name: cache_bytes_per_sequence(cache, 1000, 64) for block in window.blocks for cache in block.caches}
    assert held == {"window": 2 * 37_440, "compressed": 4 * 37_440, "index": 4 * 8_640, "compressor_state": 81_920}
    decoder = [w for w in cut(load_model("deepseek-v4.1-flash"), {}, ("fp4",)).windows if w.blocks[-1].phases == ("decode",)]
    assert sum(window.layers for window in decoder) == 20
    assert pieces.residual_elements == 4 * 7168


JUNK: list[Any] = [
    None, True, False, 0, 1, 2, 3, 7, 61, 64, 128, 4096, -1, -(2**40), 2**24, 2**31, 2**63 - 1, 10**30, 0.5, 1e308, "", "128",
    "bfloat16", "float32", "fp4", "\x1b[31m", "a\nb", "x" * 500, [], [0], [4, 128], [4] * 61, [-1] * 43, [2**40] * 61, [[[]]],
    ["full"] * 78, ["shared"] * 78, {}, {"text_config": {}}, {"quant_method": "fp8"}, {"quant_method": "compressed-tensors"},
    {"quant_method": "fp8", "weight_block_size": [32, 32]}, {"kda_layers": [], "full_attn_layers": [1]},
]  # fmt: skip


def damaged(rng: random.Random, config: dict[str, Any]) -> dict[str, Any]:
    config = dict(config)
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(sorted(set(config) - {"model_type"}) or ["hidden_size"])
        config.setdefault(key, 1)
        match rng.randrange(8):
            case 0:
                config.pop(key)
            case 1:
                config[key] = config[rng.choice(sorted(config))]
            case 2 if isinstance(config[key], dict):
                config[key] = damaged(rng, {"model_type": "", **config[key]})
            case 3 | 4 | 5 if isinstance(config[key], int):
                config[key] = config[key] * rng.choice([2, 3, 10, 1000]) // rng.choice([1, 2, 5, 7])
            case 6 if isinstance(config[key], list | str) and config[key]:
                config[key] = config[key][: rng.randrange(len(config[key]) + 1)]
            case _:
                config[key] = rng.choice(JUNK)
    return config


@pytest.mark.parametrize("family", sorted(FAMILIES - {"deepseek_v3"}))
def test_ten_thousand_damaged_configs_give_a_model_or_one_line(family: str) -> None:
    rng = random.Random(f"damaged {family}")
    bases = [published(entry.id) for entry in list_models() if entry.family == family]
    answered, cases = 0, 1000
    for _ in range(cases):
        config = dict(rng.choice(bases))
        if "text_config" in config and rng.random() < 0.9:
            config["text_config"] = damaged(rng, config["text_config"])
        else:
            config = {**damaged(rng, config), "model_type": family}
        try:
            model = model_from_config(config, "config.json", "fuzzed")
        except InputError as error:
            text = str(error)
            assert "\n" not in text and "\x1b" not in text and len(text) < 1000
            continue
        answered += 1
        assert model.parameters()["total"] > 0
        assert model.weight_bytes(draft=True) >= model.weight_bytes() > 0
        assert model.cache_bytes(1000, "calculator") >= 0
        assert sum(len(block.layer_ids) for block in model.blocks) == sum(block.layers for block in model.blocks)
        if answered % 50 == 0:
            assert Model.model_validate(model.model_dump(mode="json"), context={"si": True}) == model
    assert cases * 0.03 < answered < cases * 0.97
