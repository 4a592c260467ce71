"""Bytes on a device: how a model is cut, split over devices and stages, and what is reserved beside it."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.architecture import Block, Cache, Edge, Model, Read, Span, Tensor, WeightGroup, load_model
from planner.footprint import (
    CacheItem,
    LookupItem,
    ModelPieces,
    RoutedItem,
    Shapes,
    StaticItem,
    cut,
    reserve_parts,
    residency,
    stage_layers,
)
from planner.footprint.memory import (
    RESERVE_CAUSES,
    cache_bytes_per_sequence,
    experts_per_rank,
    lookup_bytes,
    routed_bytes,
    split_ways,
    static_bytes,
    static_read_bytes,
)

V3 = load_model("deepseek-v3")
LLAMA = load_model("llama-3.1-70b")


def one(column: np.ndarray) -> float:
    assert column.shape == (1,)
    return float(column[0])


# --- pipeline stages --------------------------------------------------------------------------------------------


def test_stages_by_hand() -> None:
    # embedding, 3 dense layers, 7 others, head over 3 stages: boundaries floor(s * 10 / 3) = 0, 3, 6, 10
    assert stage_layers([-1, 0, 3, 10], [1, 3, 7, 1], 10, 3) == [(1, 3, 0, 0), (0, 0, 3, 0), (0, 0, 4, 1)]
    assert stage_layers([-1, 0, 3, 10], [1, 3, 7, 1], 10, 1) == [(1, 3, 7, 1)]
    # the two middle stages are alike and listed once
    assert stage_layers([-1, 0, 8], [1, 8, 1], 8, 4) == [(1, 2, 0), (0, 2, 0), (0, 2, 1)]


@given(st.integers(1, 130), st.integers(0, 40), st.sampled_from([1, 2, 3, 4, 8, 16]))
def test_stages_hold_every_layer_once(layers: int, first: int, pp: int) -> None:
    assume(first <= layers and pp <= layers)
    windows = [(-1, 1), (0, first), (first, layers - first), (layers, 1)]
    found = stage_layers([a for a, _ in windows], [b for _, b in windows], layers, pp)
    sizes = {(s + 1) * layers // pp - s * layers // pp for s in range(pp)}
    assert len(found) == len(set(found)) <= pp
    assert {row[1] + row[2] for row in found} == sizes and min(sizes) >= 1
    assert found[0][0] == 1 and found[-1][3] == 1  # the embedding in the first stage, the head in the last
    assert sum(row[0] for row in found) == sum(row[3] for row in found) == 1
    if len(found) == pp:
        assert tuple(map(sum, zip(*found, strict=True))) == (1, first, layers - first, 1)


# --- items ------------------------------------------------------------------------------------------------------


def test_items_split_by_hand() -> None:
    shapes = Shapes.single(tp=4, dp=2, ep=8, pp=1)
    assert (one(shapes.width), one(shapes.moe_tp), one(shapes.devices)) == (8.0, 1.0, 8.0)
    # axis 1 is replicated, axis 2 splits two ways, axis 128 as many as there are devices; a part is rounded up
    item = StaticItem(parts=((1, 100, 100), (2, 100, 300), (128, 1001, 1001)))
    assert one(static_bytes(item, shapes)) == 100 + 50 + 251
    assert one(static_read_bytes(item, shapes)) == 100 + 150 + 251
    assert one(split_ways(shapes.tp, 3)) == 3.0
    # 20 experts over 8 ranks: three slots each, four of the 24 hold replicas
    routed = RoutedItem("bf16", experts=20, active=2, member_parameters=50, member_bytes=101, tensor_axis=16)
    assert one(experts_per_rank(routed, shapes)) == 3.0
    assert one(routed_bytes(routed, shapes)) == 303.0
    # over the two attention groups each expert is shared by four devices: ten slots of ceil(101 / 4)
    assert one(routed_bytes(routed, Shapes.single(4, 2, 2, 1))) == 10 * 26
    assert one(lookup_bytes(LookupItem(1001, 1, 1, 2), shapes)) == 501.0


def test_cache_pages_by_hand() -> None:
    item = CacheItem("kv", True, Span(), Span(), entry_bytes=10, fixed_bytes=7, tensor_axis=1)
    assert cache_bytes_per_sequence(item, 64, 64) == 647
    assert cache_bytes_per_sequence(item, 65, 64) == 1287  # the second page is reserved whole
    assert cache_bytes_per_sequence(item, 65, 1) == 657
    window = CacheItem("kv", True, Span(window=100), Span(), 10, 0, 1)
    assert cache_bytes_per_sequence(window, 5000, 64) == 1280  # 100 entries in two pages of 64
    ratio = CacheItem("index", True, Span(ratio=4), Span(), 10, 0, 1)
    assert cache_bytes_per_sequence(ratio, 67, 64) == 160  # an entry for four tokens, pages of 16 entries
    assert cache_bytes_per_sequence(ratio, 68, 64) == 320
    reader = CacheItem("kv", False, Span(), Span(), 10, 7, 1)
    assert cache_bytes_per_sequence(reader, 65, 64) == 0  # another block owns it


@given(st.integers(1, 10**6), st.integers(1, 512), st.integers(1, 4), st.none() | st.integers(1, 10**5))
def test_pages_cover_the_tokens_and_little_more(tokens: int, page: int, ratio: int, window: int | None) -> None:
    span = Span(ratio=ratio, window=window)
    item = CacheItem("kv", True, span, span, entry_bytes=3, fixed_bytes=0, tensor_axis=1)
    held = cache_bytes_per_sequence(item, tokens, page)
    assert 3 * span.entries(tokens) <= held <= 3 * (span.entries(tokens) + math.ceil(page / ratio) + 1)
    assert held <= cache_bytes_per_sequence(item, tokens + 1, page)


def test_reserve_by_hand() -> None:
    reserve = {
        "context": 100.0, "graphs": 10.0, "communication": 40.0, "expert_buffers_hidden_multiple": 5.0,
        "activation_hidden_multiple": 8.0, "fragmentation": 0.01,
    }  # fmt: skip

    def parts(tp: int, dp: int, routed: bool = True) -> dict[str, float]:
        shapes = Shapes.single(tp, dp, tp * dp, 1)
        found = reserve_parts(reserve, 16, shapes, np.array([3.0]), 1000.0, routed)
        assert tuple(found) == RESERVE_CAUSES
        return {name: one(column) for name, column in found.items()}

    # activations: 8 * 16 elements of 2 bytes for 3 tokens; buffers: 5 bytes x 16 elements for each of the 3 tokens
    expected = {"context": 100, "graphs": 10, "communication": 40, "expert_buffers": 240, "activations": 768, "fragmentation": 10}
    assert parts(2, 2) == expected
    assert parts(4, 1) == expected | {"expert_buffers": 0}  # tokens do not travel without attention data parallelism
    assert parts(2, 2, routed=False) == expected | {"expert_buffers": 0}
    assert parts(1, 1) == expected | {"expert_buffers": 0, "communication": 0}


# --- models -----------------------------------------------------------------------------------------------------


def pieces_of(model: Model, mtp: int = 0, kv: tuple[str, ...] = ("bf16",)) -> ModelPieces:
    return cut(model, {}, kv, mtp)


def test_llama_layer_by_hand() -> None:
    pieces = pieces_of(LLAMA)
    assert [(w.first_layer, w.layers, len(w.blocks)) for w in pieces.windows] == [(-1, 1, 1), (0, 80, 2), (80, 1, 1)]
    attention, mlp = pieces.windows[1].blocks
    # BF16: norms replicated; q and o of 8192 x 8192 over 64 heads; k and v of 1024 x 8192 over 8 heads
    assert attention.static.parts == (
        (1, 16_384, 16_384), (8, 33_554_432, 33_554_432), (64, 268_435_456, 268_435_456),
    )  # fmt: skip
    assert sum(g.parameters for g in attention.gemms) == 2 * 8192 * 8192 + 2 * 1024 * 8192
    assert sum(g.parameters for g in mlp.gemms) == 3 * 8192 * 28672
    (cache,) = attention.caches
    assert cache.entry_bytes == 2 * 8 * 128 * 2 and cache.tensor_axis == 8  # k and v of 8 heads of 128 in BF16
    # more devices than key-value heads replicate them: 2 copies at tp 16
    shapes = Shapes.single(16, 1, 1, 1)
    expected = 8192 * 2 + 2 * 1024 * 8192 * 2 // 8 + 2 * 8192 * 8192 * 2 // 16
    assert one(static_bytes(attention.static, shapes)) == expected


def test_v3_experts_and_cache_by_hand() -> None:
    pieces = pieces_of(V3)
    routed = [b.routed for w in pieces.windows for b in w.blocks if b.routed]
    assert [(r.experts, r.active, r.member_parameters) for r in routed] == [(256, 8, 3 * 2048 * 7168)]
    # FP8 with an FP32 scale for each 128 x 128 block
    assert routed[0].member_bytes == 3 * (2048 * 7168 + 16 * 56 * 4)
    caches = [(w.layers, c) for w in pieces.windows for b in w.blocks for c in b.caches]
    assert sum(layers * c.entry_bytes for layers, c in caches) == 61 * 576 * 2 == 70_272  # published bytes per token
    # the first layout that the cache has is taken: 512 FP8 + 4 FP32 scales + 64 BF16
    fp8 = pieces_of(V3, kv=("fp8_ds_mla", "fp8"))
    assert fp8.kv_layout == "fp8_ds_mla" and fp8.windows[1].blocks[0].caches[0].entry_bytes == 512 + 16 + 128


@pytest.mark.parametrize("model", [V3, LLAMA], ids=lambda m: m.id)
@pytest.mark.parametrize("mtp", [0, 1])
def test_one_device_holds_exactly_the_stored_bytes(model: Model, mtp: int) -> None:
    if mtp and model.speculation is None:
        return
    pieces = pieces_of(model, mtp)
    held = residency(pieces, Shapes.single(1, 1, 1, 1), 1000, 1)
    assert one(held.weights[0]) == sum(model.bytes_by_format(draft=bool(mtp)).values())
    assert bool(pieces.draft) == bool(mtp)
    layers = model.layers + (1 if mtp else 0)
    entry = {"deepseek-v3": 1152, "llama-3.1-70b": 4096}[model.id]
    assert one(held.caches[0]) == layers * entry * 1000


def test_shared_weights_are_read_but_not_held_twice() -> None:
    (window,) = [w for w in pieces_of(V3, 1).draft if any(b.kind == "head" for b in w.blocks)]
    head = next(b for b in window.blocks if b.kind == "head")
    table = 129_280 * 7168 * 2
    assert sum(held for _, held, _ in head.static.parts) == 7168 * 2  # its own norm
    assert sum(read for _, _, read in head.static.parts) == 7168 * 2 + table


@given(st.sampled_from([1, 2, 4, 8, 16, 32]), st.sampled_from([1, 2, 3, 4, 8, 32]), st.booleans(), st.sampled_from([1, 2, 4, 8]))
def test_law_4_devices_together_hold_at_least_one_copy(tp: int, dp: int, spread: bool, pp: int) -> None:
    ep = tp * dp if spread else dp
    assume(ep <= 256)
    held = residency(pieces_of(V3), Shapes.single(tp, dp, ep, pp), 4096, 64)
    total = sum(V3.bytes_by_format().values())
    most = max(one(w) for w in held.weights)
    assert tp * dp * pp * most >= total
    # nothing beyond replication, spare slots and rounding: static weights once per attention group, experts once
    routed = 58 * 256 * 3 * (2048 * 7168 + 16 * 56 * 4)
    slots = math.ceil(256 / ep) * ep / 256
    once = Shapes.single(tp, dp, ep, 1)
    here = one(residency(pieces_of(V3), once, 4096, 64).weights[0])
    assert here * tp * dp <= (total - routed) * tp * dp + routed * slots * 1.001


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_stages_split_the_bytes_of_the_whole(tp: int, dp: int, pp: int) -> None:
    whole = residency(pieces_of(LLAMA), Shapes.single(tp, dp, 1, 1), 4096, 64)
    parts = residency(pieces_of(LLAMA), Shapes.single(tp, dp, 1, pp), 4096, 64)
    # 80 layers over pp stages: first, last and pp - 2 middle ones, which are listed once
    copies = [1, *([pp - 2] if len(parts.weights) > 2 else []), 1] if pp > 1 else [1]
    for kind in ("weights", "caches"):
        stages = [one(column) for column in getattr(parts, kind)]
        assert sum(n * value for n, value in zip(copies, stages, strict=True)) == one(getattr(whole, kind)[0])


def test_more_devices_never_hold_more_each() -> None:
    tp = np.array([1.0, 2, 4, 8, 16, 32])
    held = residency(pieces_of(V3), Shapes(tp, np.ones(6), tp, 1), 4096, 64)
    assert (np.diff(held.weights[0]) <= 0).all() and (np.diff(held.caches[0]) <= 0).all()


def test_a_cache_that_another_block_reads_is_held_once() -> None:
    tensors = (Tensor(name="w", shape=(8, 8), format="bf16"),)
    cache = Cache(name="kv", elements=4, layouts={"bf16": 8}, page_tokens=16)
    read = Read(cache="kv", block="owner")
    model = Model(
        id="m", name="m", source="test", as_of=date(2026, 1, 1), family="test", hidden_size=8, vocabulary=8, layers=2,
        max_context=64,
        blocks=(
            Block(id="owner", kind="attention", first_layer=0, layers=1, weights=(WeightGroup(name="w", tensors=tensors),),
                  caches=(cache,), reads=(read,)),
            Block(id="reader", kind="attention", first_layer=1, layers=1, weights=(WeightGroup(name="w", tensors=tensors),),
                  reads=(read,)),
        ),
        edges=(Edge(source="owner", target="reader", kind="residual", elements_per_token=8, dtype="bf16"),),
    )  # fmt: skip
    held = residency(pieces_of(model), Shapes.single(1, 1, 1, 1), 20, 16)
    assert one(held.caches[0]) == 32 * 8  # two pages of 16 tokens, once
    assert one(held.weights[0]) == 2 * 128
