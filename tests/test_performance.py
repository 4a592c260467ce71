"""Seconds: experts, collectives, one pass, serving, and the bounds that the search rests on."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.api import resolve
from planner.architecture import FORMATS, FlopTerm, Span
from planner.architecture.importer import model_from_config
from planner.errors import InputError
from planner.footprint import CacheItem, Gemm, LookupItem, ModelPieces, RoutedItem, Shapes, StaticItem, Window
from planner.footprint.pieces import BlockPieces
from planner.hardware import Curve, Domain, HardwareSelection, System, load_hardware
from planner.performance import (
    Level,
    Load,
    Rates,
    decode_load,
    handoff_seconds,
    mixed_serving,
    pass_times,
    perturb,
    prefill_load,
    prefill_queue,
    resolve_rates,
    split_serving,
    uncertain_groups,
)
from planner.performance.collectives import all_reduce, all_to_all, point_to_point
from planner.performance.experts import distinct_experts, distinct_targets, fullest, fullest_distinct, fullest_load
from planner.performance.load import pad_batch, prefill_passes
from planner.performance.passes import mean_entries
from planner.performance.serving import largest_period, queue_wait, tokens_per_step, utilisation_for_wait
from planner.plans.candidates import batch_grid, cell_bounds, make_cells
from planner.plans.context import PoolContext, build_context
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import (
    Candidates,
    admitted_sequences,
    decode_pass,
    decode_seconds,
    joint_bytes_per_s,
    largest_fitting_batch,
    memory_need,
    overflow_seconds,
    prefill_pass,
    prefill_seconds,
)
from planner.plans.space import pool_space
from planner.plans.states import pool_problem
from planner.plans.tiers import evaluate_shares
from planner.quantities import Figure
from planner.runtimes import Runtime, load_runtime
from planner.workload import Lengths, Workload, load_workload

MODELS = ("deepseek-v3", "llama-3.1-70b")
HARDWARE = ("h800-node:4", "gb200-nvl72", "cloudmatrix384")
RUNTIMES = ("generic", "ideal")


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def one(values: np.ndarray) -> float:
    assert np.shape(values) == (1,)
    return float(values[0])


def shape(isl: float, osl: float, hit: float = 0.0, **changes: Any) -> Workload:
    lengths = {"input_tokens": Lengths(mean=isl), "output_tokens": Lengths(mean=osl), "prefix_hit": hit}
    return load_workload("interactive").model_copy(update=lengths | changes)


@cache
def pool(model: str, hardware: str, runtime: str = "generic", workload: str = "interactive", mtp: int = 0) -> PoolContext:
    return build_context(resolve(model, hardware, runtime=runtime, workload=workload, mtp=mtp)).pools["mixed"]


# --- experts ----------------------------------------------------------------------------------------------------


def test_distinct_experts_by_hand() -> None:
    # E (1 - (1 - k/E)^B): 8 experts, 2 a token, 3 tokens: 8 * (1 - 0.75^3) = 4.625
    assert one(distinct_experts(8.0, 0.25, column(3.0))) == pytest.approx(4.625)
    assert one(distinct_experts(256.0, 8 / 256, column(1.0))) == pytest.approx(8.0)
    assert list(distinct_experts(4.0, 1.0, column(0.0, 1.0, 9.0))) == [0.0, 4.0, 4.0]
    assert one(distinct_experts(256.0, 8 / 256, column(1e6))) == pytest.approx(256.0)
    assert one(distinct_experts(256.0, 8 / 256, column(0.0))) == 0.0


def routed(random: np.random.Generator, experts: int, active: int, tokens: int, trials: int) -> np.ndarray:
    """Tokens on each expert (trials x experts): uniform choices of ``active`` different experts a token."""
    loads = np.zeros((trials, experts))
    for _ in range(tokens):
        chosen = np.argpartition(random.random((trials, experts)), active, axis=1)[:, :active]
        np.put_along_axis(loads, chosen, np.take_along_axis(loads, chosen, axis=1) + 1, axis=1)
    return loads


def routed_item(experts: int, active: float) -> RoutedItem:
    return RoutedItem("bf16", experts, active, 1, 1, 1)


@pytest.mark.parametrize(
    ("experts", "active", "ranks", "tokens"),
    [(256, 8, 8, 1), (256, 8, 8, 8), (256, 8, 8, 32), (64, 6, 4, 5), (256, 8, 32, 64), (8, 2, 8, 16)],
)
def test_experts_against_simulation(experts: int, active: int, ranks: int, tokens: int) -> None:
    loads = routed(np.random.default_rng(7), experts, active, tokens, 400)
    slots, batch = column(experts / ranks), column(tokens)
    awake = (loads > 0).sum(axis=1)
    assert one(distinct_experts(float(experts), active / experts, batch)) == pytest.approx(awake.mean(), rel=0.02)
    by_rank = loads.reshape(400, ranks, -1)
    most = by_rank.sum(axis=2).max(axis=1).mean()
    # the Gaussian bound on the maximum: above it but for small counts, whose tail is longer, and not by much
    model = one(fullest_load(batch, routed_item(experts, active), slots, column(ranks)))
    assert 0.85 * most <= model <= 1.4 * most
    read = (by_rank > 0).sum(axis=2).max(axis=1).mean()
    model = one(fullest_distinct(batch, routed_item(experts, active), slots, column(ranks)))
    assert 0.85 * read <= model <= 1.4 * read


def test_fullest_by_hand_and_against_simulation() -> None:
    # mean 100, variance 100, 8 ranks: 100 + sqrt(2 ln 8 * 100) = 120.393
    assert one(fullest(column(100), column(100), column(8), column(1e9))) == pytest.approx(120.3934, rel=1e-6)
    assert one(fullest(column(100), column(100), column(8), column(110))) == 110.0  # never more than there is
    assert one(fullest(column(5), column(4), column(1), column(1e9))) == 5.0  # one rank has the mean
    random = np.random.default_rng(3)
    for ranks in (2, 8, 64, 256):
        largest = random.normal(100, 10, (4000, ranks)).max(axis=1).mean()
        bound = one(fullest(column(100), column(100), column(ranks), column(1e9)))
        assert largest <= bound <= largest + 0.8 * 10


@given(st.integers(1, 64), st.integers(1, 512), st.integers(1, 64), st.floats(0.1, 1e5), st.floats(1.0, 3.0))
def test_expert_loads_grow_with_tokens_and_keep_their_limits(
    active: int, experts: int, ranks: int, tokens: float, more: float
) -> None:
    assume(active <= experts and ranks <= experts)
    slots = column(math.ceil(experts / ranks), math.ceil(experts / ranks))
    batch, r = column(tokens, tokens * more), column(ranks, ranks)
    load = fullest_load(batch, routed_item(experts, active), slots, r)
    read = fullest_distinct(batch, routed_item(experts, active), slots, r)
    awake = distinct_experts(float(experts), active / experts, batch)
    for values in (load, read, awake):
        assert values[1] >= values[0] * (1 - 1e-9)
    assert (read <= slots * (1 + 1e-12)).all() and (read <= batch * active * (1 + 1e-12)).all()
    assert (awake <= experts * (1 + 1e-12)).all() and (awake <= np.maximum(batch, 1.0) * active * (1 + 1e-9)).all()
    assert (
        load >= batch * active * slots / experts * (1 - 1e-9) - 1e-12
    ).all() or experts % ranks  # the fullest is at least the mean
    assert (load <= batch * np.minimum(active, slots) * (1 + 1e-12)).all()


def test_distinct_targets_by_hand_and_against_simulation() -> None:
    # n (1 - (1 - 1/n)^k): two nodes, two experts: 2 * (1 - 1/4) = 1.5
    assert one(distinct_targets(column(2), 2, math.inf)) == pytest.approx(1.5)
    assert one(distinct_targets(column(1), 8, math.inf)) == 1.0
    assert one(distinct_targets(column(32), 8, 4)) == 4.0  # the router's groups allow four
    assert one(distinct_targets(column(1e9), 8, math.inf)) == pytest.approx(8.0)
    loads = routed(np.random.default_rng(5), 256, 8, 1, 4000).reshape(4000, 16, 16)
    # choosing different experts spreads a little more than choosing with replacement
    assert one(distinct_targets(column(16), 8, math.inf)) == pytest.approx((loads.sum(axis=2) > 0).sum(axis=1).mean(), rel=0.05)


# --- collectives ------------------------------------------------------------------------------------------------

NODE = Level("node", 4, allreduce=10e9, alltoall=8e9, p2p=5e9, latency=1e-6)
NETWORK = Level("network", math.inf, allreduce=1e9, alltoall=0.5e9, p2p=0.25e9, latency=10e-6)
LEVELS = (NODE, NETWORK)


def test_all_reduce_by_hand() -> None:
    # ring: 2 (n-1)/n of the payload at each device's rate, two latencies a level (Thakur et al. 2005)
    assert one(all_reduce(column(1), column(1e6), LEVELS)) == 0.0
    assert one(all_reduce(column(4), column(1e6), LEVELS)) == pytest.approx(2 * 0.75 * 1e6 / 10e9 + 2e-6)
    # eight devices are two nodes: the nodes exchange the quarter that each device holds after the reduce-scatter
    expected = 2 * 0.75 * 1e6 / 10e9 + 2e-6 + 2 * 0.5 * 0.25e6 / 1e9 + 20e-6
    assert one(all_reduce(column(8), column(1e6), LEVELS)) == pytest.approx(expected)


def test_all_to_all_by_hand() -> None:
    # four targets in one node: 100 tokens, 2 distinct targets each, a quarter stays, 64 bytes a copy
    inside = 100 * 2 * 0.75 * 64 / 8e9
    assert one(all_to_all(column(4), column(100), 64, [column(2), column(1)], LEVELS)) == pytest.approx(inside + 2e-6)
    # eight over two nodes: 7/8 of three copies leave the device, half of 1.5 copies leave the node; the slower level counts
    inner, outer = 100 * 3 * 7 / 8 * 64 / 8e9, 100 * 1.5 * 0.5 * 64 / 0.5e9
    found = one(all_to_all(column(8), column(100), 64, [column(3), column(1.5)], LEVELS))
    assert found == pytest.approx(max(inner, outer) + 22e-6)
    assert one(all_to_all(column(1), column(100), 64, [column(1), column(1)], LEVELS)) == 0.0


def test_targets_of_several_devices_leave_the_node_sooner() -> None:
    # two experts' groups of four devices each fill two nodes: all that leaves a group crosses the network
    found = one(all_to_all(column(2), column(100), 64, [column(1.5), column(1.5)], LEVELS, column(4)))
    assert found == pytest.approx(100 * 1.5 * 0.5 * 64 / 0.5e9 + 20e-6)
    pool_ = pool("deepseek-v3", "h800-node:2", "ideal")
    times = {}
    for name, ep in (("over all", 16), ("over groups", 2)):
        load = decode_load(column(64), pool_.inputs.workload, pool_.pieces, pool_.rates)
        window = pass_times(pool_.pieces, Shapes.single(8, 2, ep, 1), pool_.rates, load).windows
        times[name] = next(one(b.communication) for w in window for b in w if b.kind == "moe")
    network = pool_.rates.levels[-1]
    assert times["over groups"] >= 2 * network.latency  # tp 8 groups are nodes: dispatch cannot stay on NVLink


def test_point_to_point_by_hand() -> None:
    apart = column(1, 3, 4, 1000)
    expected = [1e6 / 5e9 + 1e-6] * 2 + [1e6 / 0.25e9 + 10e-6] * 2  # devices 4 apart lie in different nodes
    assert list(point_to_point(1e6, apart, LEVELS)) == pytest.approx(expected)


def test_a_small_group_on_a_mesh_has_few_of_the_links() -> None:
    """Two of eight devices share one link of seven, four have three (MI300X: 47.7 GB/s for 2 GPUs, 312.9 for 8)."""
    mesh = Level("xgmi", 8, allreduce=312.9e9, alltoall=300e9, p2p=47e9, latency=0.0, mesh=True)
    switch = replace(mesh, mesh=False)
    sizes = np.array([2.0, 4.0, 8.0])
    share = all_reduce(sizes, 1e9 * np.ones(3), (switch,)) / all_reduce(sizes, 1e9 * np.ones(3), (mesh,))
    assert share == pytest.approx([1 / 7, 3 / 7, 1.0])
    assert 312.9e9 * share[0] == pytest.approx(47.7e9, rel=0.07)
    targets = [np.array([2.0, 4.0, 8.0])]
    moved = all_to_all(sizes, np.ones(3), 1e6, targets, (switch,)) / all_to_all(sizes, np.ones(3), 1e6, targets, (mesh,))
    assert moved == pytest.approx([1 / 7, 3 / 7, 1.0])


def test_the_16_bit_float_of_a_device_stands_in_for_the_other() -> None:
    runtime = load_runtime("generic")
    rates = resolve_rates(load_hardware("t4-node").system, runtime)
    assert rates.peak["bf16"] == rates.peak["fp16"]
    system = load_hardware("t4-node").system
    narrow = system.device.model_copy(update={"compute": {"int8": system.device.compute["int8"]}})
    with pytest.raises(InputError, match="no peak for bf16, fp16 or fp32"):
        resolve_rates(system.model_copy(update={"device": narrow}), runtime)


@given(st.integers(0, 8), st.floats(1.0, 1e9), st.floats(1.0, 4.0))
def test_collectives_grow_with_payload_and_group(power: int, payload: float, more: float) -> None:
    group, sizes = column(2**power, 2**power), column(payload, payload * more)
    times = all_reduce(group, sizes, LEVELS)
    assert times[1] >= times[0] >= 0.0
    larger = all_reduce(group * 2, sizes, LEVELS)
    assert (larger >= times * (1 - 1e-12)).all()
    # work done never exceeds the wire: 2 (n-1)/n of the payload passes the port of every device
    assert times[0] >= 2 * (1 - 0.5 ** min(power, 2)) * payload / NODE.allreduce * (1 - 1e-12)


# --- one pass by hand -------------------------------------------------------------------------------------------


def flat(fraction: float) -> Curve:
    return Curve(points=((1.0, fraction),), low_factor=1.0, high_factor=1.0, source="test", as_of=date(2026, 1, 1), grade="A")


def simple_rates(**changes: Any) -> Rates:
    values: dict[str, Any] = {
        "peak": {"bf16": 1e12}, "curve": {"bf16": (flat(0.5), 1.0)}, "knee_rows": {"bf16": 1.0}, "memory_id": "hbm",
        "memory_kind": "hbm",
        "memory_bytes": 1e9, "memory_bytes_per_s": 1e11, "tiers": (), "levels": LEVELS,
        "floors": {"attention": 10e-6, "mlp": 20e-6, "moe": 30e-6, "step": 1e-3, "sequence": 1e-6},
        "efficiency": {"dense": 0.8, "routed": 0.5, "attention": 0.25}, "reserve": {}, "imbalance": 1.0, "residual": 1.0,
        "overlap_communication": False, "buckets": (1, 2, 4),
    }  # fmt: skip
    return Rates(**values | changes)


ATTENTION = BlockPieces(
    "attention", "attention", (Gemm("bf16", 1e6, 8),), (FlopTerm(name="core", per_pair=1000.0, tensor_axis=8),),
    StaticItem(((8, 2_000_000, 2_000_000),)), None, (), (CacheItem("kv", True, Span(), Span(), 64, 0, 1),),
)  # fmt: skip
EXPERTS = BlockPieces("moe", "moe", (), (), StaticItem(()), RoutedItem("bf16", 8, 2.0, 1000, 2000, 1), (), ())
EMBEDDING = BlockPieces("embedding", "embedding", (), (), StaticItem(()), None, (LookupItem(3200, 32.0, 1.0, 2),), ())
HEAD = BlockPieces("head", "head", (Gemm("bf16", 1e6, 1),), (), StaticItem(((1, 100, 100),)), None, (), ())
TINY = ModelPieces(
    "tiny", 16, 3,
    (Window("embedding", -1, 1, (EMBEDDING,)), Window("layers", 0, 3, (ATTENTION, EXPERTS)), Window("head", 3, 1, (HEAD,))),
    (), 1, 1, (), (), "bf16",
)  # fmt: skip


def load_of(tokens: float, sequences: float, **changes: Any) -> Load:
    values: dict[str, Any] = {
        "phase": "decode", "tokens": column(tokens), "sequences": column(sequences), "context": 100.0,
        "read_context": column(120.0),
        "cached": column(0.0), "head_tokens": column(tokens), "variation": 0.0, "draft_passes": 0,
    }  # fmt: skip
    return Load(**values | changes)


def test_attention_block_by_hand() -> None:
    times = pass_times(TINY, Shapes.single(2, 1, 2, 1), simple_rates(), load_of(4, 3))
    block = times.windows[1][0]
    # 2 * 1e6 parameters / 2 devices * 4 tokens at 1e12 * 0.5 (kernel) * 0.8 (system) FLOP/s
    # and 1000 FLOPs * 100 entries * 4 tokens / 2 devices at 1e12 * 0.25
    assert one(block.compute) == pytest.approx(4e6 / 4e11 + 2e5 / 2.5e11)
    # half the weights, 3 sequences * 120 entries * 64 bytes (replicated: axis 1) and 4 new entries, at 1e11 bytes/s
    assert one(block.static_read) == 1_000_000 and one(block.cache_read) == 23_040 and one(block.cache_write) == 256
    assert one(block.memory) == pytest.approx(1_023_296 / 1e11)
    # all-reduce of 4 tokens * 16 wide * 2 bytes over two devices
    assert one(block.communication) == pytest.approx(128 / 10e9 + 2e-6)
    assert one(block.total) == pytest.approx(10e-6 + 1.08e-5 + 2.0128e-6)
    overlapped = pass_times(TINY, Shapes.single(2, 1, 2, 1), simple_rates(overlap_communication=True), load_of(4, 3)).windows[1][
        0
    ]
    assert one(overlapped.total) == pytest.approx(10e-6 + 1.08e-5)


def test_expert_block_by_hand() -> None:
    times = pass_times(TINY, Shapes.single(1, 2, 2, 1), simple_rates(imbalance=1.25), load_of(4, 3))
    block = times.windows[1][1]
    # 8 tokens over two ranks of 4 experts: 8 pairs each on average, the fuller 8 + sqrt(2 ln 2 * 8) = 11.330, imbalance 1.25
    pairs = (8 + math.sqrt(2 * math.log(2) * 8)) * 1.25
    assert one(block.compute) == pytest.approx(2 * 1000 * pairs / (1e12 * 0.5 * 0.5))
    # u = 1 - 0.75^8 = 0.8999: 3.5995 experts, the fuller rank 3.5995 + sqrt(2 ln 2 * 0.3604) > 4, so all four
    assert one(block.routed_fetches) == 4.0 and one(block.routed_read) == 8000.0
    # 4 tokens to 2 (1 - 1/4) = 1.5 ranks, half stays, 16 wide, dispatch and combine of 2 bytes
    assert one(block.communication) == pytest.approx(4 * 1.5 * 0.5 * 16 * 4 / 8e9 + 2e-6)
    # without attention data parallelism the tokens are everywhere and the outputs are summed
    alone = pass_times(TINY, Shapes.single(2, 1, 2, 1), simple_rates(imbalance=1.25), load_of(4, 3)).windows[1][1]
    assert one(alone.communication) == pytest.approx(128 / 10e9 + 2e-6)


def test_a_pass_adds_up_by_hand() -> None:
    times = pass_times(TINY, Shapes.single(1, 1, 1, 1), simple_rates(), load_of(4, 3, head_tokens=column(2.0)))
    (embedding,), (attention, experts), (head,) = times.windows
    assert one(embedding.lookup_read) == 128 and one(embedding.total) == pytest.approx(128 / 1e11)
    assert one(head.compute) == pytest.approx(2e6 * 2 / 4e11)  # only tokens that need logits
    assert one(times.step) == pytest.approx(1e-3 + 3e-6) and one(times.hop) == 0.0
    assert times.repeats == [[1.0, 3.0, 1.0]]
    layer = one(attention.total) + one(experts.total)
    expected = 1.003e-3 + one(embedding.total) + 3 * layer + one(head.total)
    assert one(times.slowest_stage()) == pytest.approx(expected)
    # three stages of one layer: the last also has the head; a hop of 4 tokens * 16 * 2 bytes to the next device
    staged = pass_times(TINY, Shapes.single(1, 1, 1, 3), simple_rates(), load_of(4, 3, head_tokens=column(2.0)))
    assert one(staged.hop) == pytest.approx(128 / 5e9 + 1e-6)
    assert one(staged.slowest_stage()) == pytest.approx(1.003e-3 + 1.0256e-6 + layer + max(one(head.total), one(embedding.total)))


def test_the_fullest_rank_reads_more_cache() -> None:
    # two ranks of 4 sequences whose contexts vary by half: 1 + sqrt(2 ln 2) * 0.5 / 2
    times = pass_times(TINY, Shapes.single(1, 2, 2, 1), simple_rates(), load_of(4, 4, variation=0.5))
    assert one(times.windows[1][0].cache_read) == pytest.approx(4 * 120 * 64 * (1 + math.sqrt(2 * math.log(2)) * 0.25))
    random = np.random.default_rng(11)
    for ranks in (2, 8, 32):
        contexts = random.normal(1000, 500, (3000, ranks, 16)).sum(axis=2).max(axis=1).mean()
        spread = 16_000 * (1 + math.sqrt(2 * math.log(ranks)) * 0.5 / 4)
        assert contexts <= spread <= 1.12 * contexts


def test_the_cheaper_form_of_attention_is_taken_in_prefill_only() -> None:
    # 278,528 FLOPs a pair absorbed, 81,920 expanded plus 2 * 512 * 128 * 256 for each cached token and pass (DeepSeek-V3)
    absorbed = FlopTerm(name="a", mode="absorbed", per_pair=278_528, tensor_axis=128)
    expanded = FlopTerm(
        name="a", mode="expanded", phases=("prefill",), per_pair=81_920, per_cached_token=33_554_432, tensor_axis=128
    )
    block = replace(ATTENTION, gemms=(), flops=(absorbed, expanded))
    pieces = replace(TINY, windows=(Window("layers", 0, 3, (block,)),))

    def core(phase: str, tokens: float, cached: float) -> float:
        load = load_of(tokens, 1, phase=phase, cached=column(cached))
        return one(pass_times(pieces, Shapes.single(2, 1, 1, 1), simple_rates(), load).windows[0][0].compute) * 2 * 2.5e11

    assert core("decode", 10, 0) == pytest.approx(278_528 * 100 * 10)
    assert core("prefill", 10, 0) == pytest.approx(81_920 * 100 * 10)
    assert core("prefill", 10, 1) == pytest.approx(81_920 * 100 * 10 + 33_554_432)
    assert core("prefill", 10, 1000) == pytest.approx(278_528 * 100 * 10)  # expanding so much cache costs more than it saves


def test_batches_pad_to_graph_buckets() -> None:
    batch = column(1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 24, 25)
    assert list(pad_batch(batch, (1, 2, 4, 8, 16))) == [1, 2, 4, 4, 8, 8, 8, 16, 16, 24, 24, 32]
    assert list(pad_batch(batch, (1, 2))) == list(batch)
    assert list(pad_batch(column(1, 9), (8,))) == [8, 16]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=6, unique=True), st.integers(1, 5000))
def test_padding_never_shrinks_or_falls(buckets: list[int], batch: int) -> None:
    padded = pad_batch(column(batch, batch + 1), tuple(sorted(buckets)))
    assert padded[0] >= batch and padded[1] >= padded[0]


def test_loads_by_hand() -> None:
    # 1000 tokens of input of which 600 are cached, 100 of output; passes of 100 and 800 tokens
    load = prefill_load(column(100, 800), shape(1000, 100, 0.6), TINY)
    assert list(prefill_passes(column(100, 800, 399), shape(1000, 100, 0.6))) == [4, 1, 2]
    assert list(load.sequences) == pytest.approx([1, 2])  # a quarter request each pass of four, or two whole ones
    assert load.context == pytest.approx(600 + 200)  # a new token sees the hits and on average half the new ones
    # before the four passes lie 600, 700, 800, 900 tokens; after them 100 more
    assert list(load.cached) == pytest.approx([750, 2 * 600])
    assert list(np.asarray(load.read_context)) == pytest.approx([850, 1000])
    assert list(load.head_tokens) == pytest.approx([0.25, 2])
    decode = decode_load(column(3), shape(1000, 100, 0.6), replace(TINY, acceptance=(0.9,)), simple_rates())
    assert one(decode.tokens) == 8 and one(decode.sequences) == 3 and decode.context == 1050  # four in the graph, a draft each


@given(st.floats(1, 1e5), st.floats(0, 0.99), st.sampled_from([64, 1000, 4096]))
def test_prefill_passes_cover_the_request(isl: float, hit: float, chunk: int) -> None:
    workload = shape(isl, 100, hit)
    load = prefill_load(column(chunk), workload, TINY)
    # tokens per pass = requests per pass * tokens per request and pass, and every request gives one first token
    passes = one(prefill_passes(column(chunk), workload))
    assert one(load.sequences) * workload.miss_tokens / passes == pytest.approx(chunk)
    assert one(load.head_tokens) == pytest.approx(chunk / workload.miss_tokens)
    assert one(np.asarray(load.read_context)) <= isl * (1 + 1e-9)


# --- rates ------------------------------------------------------------------------------------------------------


def test_rates_by_hand() -> None:
    system = load_hardware("h800-node").system
    rates = resolve_rates(system, load_runtime("generic"))
    assert rates.memory_bytes_per_s == pytest.approx(3.35e12 * 0.89)
    assert rates.memory_bytes == 81_559 * 2**20
    # a GEMM of few rows is bound by reading its weights: the curve rises with M from 0.002476 at one row and reaches 0.6893;
    # peak * bytes / (2 * bandwidth) says 295 rows for both dtypes
    assert rates.knee_rows["fp8"] == pytest.approx(0.6893 / 0.002476)
    assert rates.knee_rows["bf16"] == pytest.approx(0.8595 / 0.002932)
    for rows in rates.knee_rows.values():
        assert rows == pytest.approx(1979e12 / (2 * 3.35e12), rel=0.1)
    # below the knee the kernel curve is read at the knee, so rate does not fall; at a point of the curve it is the point's
    speed = rates.gemm_flop_per_s("fp8", column(1, 200, 1024, 1e6), "dense")
    assert speed[0] == speed[1] and list(speed[2:]) == pytest.approx([1979e12 * 0.6515 * 0.8, 1979e12 * 0.6893 * 0.8])
    assert one(rates.gemm_flop_per_s("unknown", column(1024), "routed")) == pytest.approx(989e12 * 0.8595 * 0.5)
    host, disk = rates.tiers
    # 307.2 GB/s * 0.8 of a socket for four devices, through PCIe of 63 GB/s * 0.88
    assert host.resources == (("host", pytest.approx(61.44e9)), ("pcie", pytest.approx(55.44e9)))
    assert host.capacity == 250e9 and host.bytes_per_s == pytest.approx(55.44e9)
    assert host.latency == pytest.approx(0.1e-6 + 1.5e-6)
    # 56 GB/s * 0.8 of eight drives for eight devices; its bytes pass the socket's memory twice
    assert disk.bytes_per_s == pytest.approx(5.6e9) and dict(disk.resources)["host"] == pytest.approx(30.72e9)
    node, network = rates.levels
    assert (node.devices, node.alltoall, network.devices) == (8.0, pytest.approx(200e9 * 0.69), math.inf)
    assert network.p2p == pytest.approx(50e9 * 0.86)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_the_low_end_of_every_group_is_slower_and_the_high_end_faster(model: str, hardware: str) -> None:
    here = pool(model, hardware)
    shapes = next(s for s in pool_space(here).shapes if s.pp == 1)
    size = len(shapes.tp)
    base = decode_seconds(here, shapes, np.full(size, 32.0)), prefill_seconds(here, shapes, np.full(size, 2048.0))
    moved = set()
    for group in uncertain_groups(here.inputs.runtime):
        for end, sign in (("low", 1.0), ("high", -1.0)):
            system, runtime = perturb(here.system, here.inputs.runtime, group, end)
            other = replace(here, rates=resolve_rates(system, runtime))
            found = decode_seconds(other, shapes, np.full(size, 32.0)), prefill_seconds(other, shapes, np.full(size, 2048.0))
            for changed, before in zip(found, base, strict=True):
                assert (sign * (changed / before - 1.0) >= -1e-12).all(), (group, end)
                moved |= {group} if (changed != before).any() else set()
    assert {"compute", "memory", "network", "floors", "residual", "efficiency.dense", "efficiency.attention"} <= moved


def slower(figure: Figure, factor: float) -> Figure:
    ends = {key: None if getattr(figure, key) is None else getattr(figure, key) * factor for key in ("value", "low", "high")}
    return figure.model_copy(update=ends)


def stretched(system: System, runtime: Runtime, c: float) -> tuple[System, Runtime]:
    """Every duration ``c`` times as long: latencies, floors and what the host issues times c, rates divided by c."""

    def move(part: Any, up: tuple[str, ...], down: tuple[str, ...]) -> Any:
        changes = {k: slower(getattr(part, k), c) for k in up if getattr(part, k) is not None}
        changes |= {k: slower(getattr(part, k), 1 / c) for k in down if getattr(part, k) is not None}
        return part.model_copy(update=changes)

    startups = tuple(key for key in Domain.model_fields if key.endswith("_startup"))
    device = system.device.model_copy(update={"compute": {k: move(v, (), ("peak",)) for k, v in system.device.compute.items()}})
    changed = {
        "device": device,
        "tiers": tuple(move(t, ("latency", "startup"), ("read", "write", "iops")) for t in system.tiers),
        "links": tuple(move(x, ("latency",), ("bandwidth", "both_ways")) for x in system.links),
        "domains": tuple(move(d, ("latency", *startups), ("bandwidth",)) for d in system.domains),
    }
    times = {key: move(part, tuple(type(part).model_fields), ()) for key, part in runtime if key in ("floors", "issue") and part}
    return system.model_copy(update=changed), runtime.model_copy(update=times)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("c", [0.25, 3.0])
def test_law_3_scaling_every_duration_scales_every_pass(model: str, hardware: str, c: float) -> None:
    here = pool(model, hardware)
    other = replace(here, rates=resolve_rates(*stretched(here.system, here.inputs.runtime, c)))
    for shapes in pool_space(here).shapes:
        batch, chunk = np.full_like(shapes.tp, 24.0), np.full_like(shapes.tp, 4096.0)
        decode, prefill = decode_seconds(here, shapes, batch), prefill_seconds(here, shapes, chunk)
        assert decode_seconds(other, shapes, batch) == pytest.approx(decode * c, rel=1e-12)
        assert prefill_seconds(other, shapes, chunk) == pytest.approx(prefill * c, rel=1e-12)
        rows = Candidates(shapes, batch, chunk)
        for one_pool, factor in ((here, 1.0), (other, c)):
            passes = {"decode": decode_pass(one_pool, shapes, batch), "prefill": prefill_pass(one_pool, shapes, chunk)}
            least = overflow_seconds(one_pool, rows, passes)
            if factor == 1.0:
                base = least
            else:
                assert all(least[p] == pytest.approx(base[p] * c, rel=1e-9) for p in passes)


# --- serving ----------------------------------------------------------------------------------------------------


def test_tokens_per_step_by_hand() -> None:
    assert tokens_per_step(()) == 1.0
    assert tokens_per_step((0.8,)) == pytest.approx(1.8)
    assert tokens_per_step((0.8, 0.5)) == pytest.approx(1 + 0.8 + 0.4)  # the second counts if the first was accepted
    assert tokens_per_step((1.0, 1.0)) == 3.0 and tokens_per_step((0.0, 1.0)) == 1.0


def test_mixed_serving_by_hand() -> None:
    # tp 2, dp 3, pp 2; 5 sequences a rank and stage: 30 in flight. D = 10 ms, P = 40 ms, passes of 200 of 800 new tokens.
    shapes = Shapes.single(2, 3, 6, 2)
    workload = shape(1000, 101, 0.2)
    served = mixed_serving(column(0.010), column(0.040), column(5), column(200), shapes, workload, 1.6)
    # a request costs 800 / (200 * 3) passes of 40 ms; one generation of 100 steps sees 30 of them
    per_request = 800 / 600 * 0.040
    tpot = 2 * 0.010 / 1.6 + 30 * per_request / 100
    assert one(served.tpot_s) == pytest.approx(tpot)
    assert one(served.requests_per_s) == pytest.approx(30 / (100 * tpot))
    # passes come every 50 ms; M/D/1 with service 4 * 50 ms at the busy share; four passes and one more stage
    rho = 30 / (100 * tpot) * 800 / 600 * 0.050
    ttft = 0.025 + rho * 0.2 / (2 * (1 - rho)) + 5 * 0.050
    assert one(served.ttft_s) == pytest.approx(ttft)
    assert one(served.concurrency) == pytest.approx(30 + 30 / (100 * tpot) * ttft)  # Little's law


seconds = st.floats(1e-5, 1.0)
counts = st.integers(1, 512)


@st.composite
def services(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Shapes, Workload, float]:
    """Decode seconds, prefill seconds, batch, chunk, shape, workload, accepted tokens a step."""
    tp, dp, pp = (draw(st.sampled_from(axis)) for axis in ((1, 8), (1, 2, 32), (1, 2, 8)))
    workload = shape(draw(st.floats(1, 1e5)), draw(st.floats(2, 1e4)), draw(st.sampled_from([0.0, 0.5, 0.95])))
    chunk = column(draw(st.sampled_from([1024, 4096, 16384])))
    accept = draw(st.floats(1, 3))
    return (
        column(draw(seconds)),
        column(draw(seconds)),
        column(draw(counts)),
        chunk,
        Shapes.single(tp, dp, tp * dp, pp),
        workload,
        accept,
    )


@given(services(), st.floats(0.01, 100))
def test_law_3_scaling_every_duration_scales_service(case: Any, c: float) -> None:
    decode, prefill, *rest = case
    base, other = mixed_serving(decode, prefill, *rest), mixed_serving(decode * c, prefill * c, *rest)
    assert one(other.tpot_s) == pytest.approx(one(base.tpot_s) * c)
    assert one(other.requests_per_s) == pytest.approx(one(base.requests_per_s) / c)
    if math.isfinite(one(base.ttft_s)) and one(base.ttft_s) < 1e6:
        assert one(other.ttft_s) == pytest.approx(one(base.ttft_s) * c, rel=1e-6)
        assert one(other.concurrency) == pytest.approx(one(base.concurrency), rel=1e-6)


@given(services())
def test_law_9_an_instance_works_no_more_than_all_the_time(case: Any) -> None:
    decode, prefill, batch, chunk, shapes, workload, accept = case
    served = mixed_serving(decode, prefill, batch, chunk, shapes, workload, accept)
    rate, rounds = one(served.requests_per_s), workload.output_tokens.mean - 1
    filling = rate * workload.miss_tokens / (one(chunk) * one(shapes.dp)) * one(prefill)
    # tokens generated a second over tokens a step of every stage
    stepping = rate * rounds / (accept * one(batch) * one(shapes.dp)) * one(decode)
    assert filling <= 1 + 1e-9
    assert filling + stepping == pytest.approx(1.0, rel=1e-9)  # the stages are never idle: closed loop at full batch


@given(services(), st.floats(1.0, 100.0))
def test_service_is_monotone(case: Any, more: float) -> None:
    decode, prefill, batch, *rest = case
    base = mixed_serving(decode, prefill, batch, *rest)
    for worse in (mixed_serving(decode * more, prefill, batch, *rest), mixed_serving(decode, prefill * more, batch, *rest)):
        assert one(worse.tpot_s) >= one(base.tpot_s) * (1 - 1e-12)
        assert one(worse.requests_per_s) <= one(base.requests_per_s) * (1 + 1e-12)
    fuller = mixed_serving(decode, prefill, batch * more, *rest)
    assert one(fuller.requests_per_s) >= one(base.requests_per_s) * (1 - 1e-12)
    assert one(fuller.tpot_s) >= one(base.tpot_s) * (1 - 1e-12)


@given(services(), st.floats(1.001, 100.0))
def test_largest_period_is_where_ttft_meets_its_limit(case: Any, room: float) -> None:
    decode, prefill, batch, chunk, shapes, workload, accept = case
    passes = one(prefill_passes(chunk, workload))
    period = one(decode) + one(prefill)
    limit = (passes + shapes.pp - 0.5) * period * room
    tpot = one(mixed_serving(decode, prefill, batch, chunk, shapes, workload, accept).tpot_s)

    def ttft(p: float) -> float:
        """The docstring's equation, at the rate that this TPOT means."""
        kappa = one(batch) * shapes.pp * workload.miss_tokens / (one(chunk) * (workload.output_tokens.mean - 1) * tpot)
        service = min(passes, workload.miss_tokens / one(chunk)) * p
        busy = kappa * p
        return (passes + shapes.pp - 0.5) * p + (busy * service / (2 * (1 - busy)) if busy < 1 else math.inf)

    found = largest_period(limit, tpot, one(batch), one(chunk), one(shapes.dp), shapes.pp, workload)
    assert ttft(found * (1 - 1e-6)) <= limit * (1 + 1e-6)
    assert ttft(found * (1 + 1e-6)) >= limit * (1 - 1e-6)
    assert largest_period(limit, tpot * 2, one(batch), one(chunk), one(shapes.dp), shapes.pp, workload) >= found * (1 - 1e-9)
    whole = largest_period(limit, math.inf, one(batch), one(chunk), one(shapes.dp), shapes.pp, workload)
    assert whole == pytest.approx(limit / (passes + shapes.pp - 0.5))  # nobody waits
    # consistent with the service itself
    served = one(mixed_serving(decode, prefill, batch, chunk, shapes, workload, accept).ttft_s)
    assert served == pytest.approx(ttft(period), rel=1e-6) or not math.isfinite(served)


def test_queue_by_hand() -> None:
    # M/D/1 (Kleinrock I, 5.8): half busy with service of 2 s waits 0.5 * 2 / (2 * 0.5) = 1 s
    assert list(queue_wait(column(0.5, 0.0, 1.0, 1.5), column(2, 2, 2, 2))) == [1.0, 0.0, math.inf, math.inf]
    assert list(utilisation_for_wait(column(1.0, 0.0, -1.0, math.inf), column(2, 2, 2, 2))) == [0.5, 0.0, 0.0, 1.0]


@given(st.floats(0.0, 0.999), st.floats(1e-6, 1e3))
def test_wait_and_utilisation_are_inverse(busy: float, service: float) -> None:
    wait = queue_wait(column(busy), column(service))
    assert one(utilisation_for_wait(wait, column(service))) == pytest.approx(busy, rel=1e-9, abs=1e-12)


def test_the_queue_against_simulation() -> None:
    random = np.random.default_rng(2)
    service, busy = 1.0, 0.7
    arrivals = np.cumsum(random.exponential(service / busy, 200_000))
    free, waited = 0.0, 0.0
    for arrival in arrivals:
        start = max(arrival, free)
        waited += start - arrival
        free = start + service
    assert waited / len(arrivals) == pytest.approx(one(queue_wait(column(busy), column(service))), rel=0.05)


def test_split_serving_by_hand() -> None:
    shapes = Shapes.single(4, 2, 8, 2)
    side = split_serving(column(0.010), column(6), shapes, shape(1000, 101), 1.25)
    # two stages of 10 ms for 1.25 tokens: 16 ms; 24 sequences of 100 tokens
    assert one(side.seconds) == pytest.approx(0.016) and one(side.requests_per_s) == pytest.approx(24 / 1.6)
    capacity, service, through = prefill_queue(column(0.040), column(200), shapes, shape(1000, 101, 0.2))
    # 400 tokens each 40 ms for requests of 800; four passes, and one stage more
    assert one(capacity) == pytest.approx(12.5) and one(service) == pytest.approx(0.16) and one(through) == pytest.approx(0.2)
    capacity, service, through = prefill_queue(column(0.040), column(1600), shapes, shape(1000, 101, 0.2))
    assert one(capacity) == pytest.approx(100) and one(service) == pytest.approx(0.02) and one(through) == pytest.approx(0.08)


def test_handoff_by_hand() -> None:
    # 3 layers * 500 tokens * 64 bytes over tp 2 * pp 2 receivers, at the rate of the level that spans the distance
    assert one(handoff_seconds(TINY, 500.0, Shapes.single(2, 4, 8, 2), LEVELS, 3)) == pytest.approx(24_000 / 5e9 + 1e-6)
    assert one(handoff_seconds(TINY, 500.0, Shapes.single(2, 4, 8, 2), LEVELS, 15)) == pytest.approx(24_000 / 0.25e9 + 10e-6)
    assert one(handoff_seconds(TINY, 500.0, Shapes.single(2, 4, 8, 2), (), 15)) == 0.0


# --- law 9: the machine's peaks ---------------------------------------------------------------------------------


def work(
    here: PoolContext, shapes: Shapes, phase: str, tokens: float, sequences: float, cached: float, context: float, head: float
) -> tuple[dict[str, float], float]:
    """FLOPs by compute dtype and least bytes that an instance's device memories move in one pass, from the model itself."""
    model, dp = here.inputs.model, float(shapes.dp[0])
    flops: dict[str, float] = {}
    moved = 0.0
    for block in (b for b in model.blocks if not b.draft):
        carried = (head if block.kind == "head" else tokens) * dp
        for group in block.weights:
            formats = [here.conversions.get(t.format, t.format) for t in group.tensors]
            if group.access == "lookup":
                continue
            for tensor, name in zip(group.tensors, formats, strict=True):
                if len(tensor.shape) > 1:
                    dtype = FORMATS[name].compute_dtype
                    flops[dtype] = flops.get(dtype, 0.0) + 2.0 * tensor.parameters * group.active * carried * block.layers
            size = group.member_bytes(here.conversions) * block.layers
            if group.access == "routed":
                awake = group.count * (1 - (1 - group.active / group.count) ** carried)
                moved += size * awake
            else:
                moved += size * group.count
        modes: dict[str, float] = {}
        for term in block.flops:
            if phase in term.phases:
                work_ = block.layers * dp * (term.per_pair * context * tokens + term.per_cached_token * cached)
                modes[term.mode] = modes.get(term.mode, 0.0) + work_
        if modes:
            flops["bf16"] = flops.get("bf16", 0.0) + min(modes.values())
        for read in block.reads:
            entry = next(c for b in model.blocks if b.id == read.block for c in b.caches if c.name == read.cache)
            moved += block.layers * dp * sequences * context * entry.layouts["bf16"]
    return flops, moved


@settings(max_examples=60)
@given(
    st.sampled_from(MODELS), st.sampled_from(HARDWARE), st.sampled_from(RUNTIMES), st.sampled_from(["interactive", "rag"]),
    st.integers(0, 10**6), st.integers(1, 512), st.sampled_from([1024, 4096, 16384]),
)  # fmt: skip
def test_law_9_no_pass_exceeds_peak_times_time(
    model: str, hardware: str, runtime: str, name: str, pick: int, batch: int, chunk: int
) -> None:
    here = pool(model, hardware, runtime, name)
    workload = here.inputs.workload
    rows = [(s, i) for s in pool_space(here).shapes for i in range(len(s.tp))]
    group, index = rows[pick % len(rows)]
    shapes = group.take(np.array([index]))
    devices = one(shapes.devices)
    miss, hit = workload.miss_tokens, workload.hit_tokens
    passes = math.ceil(miss / chunk)
    requests = chunk * passes / miss
    before = hit + miss * (passes - 1) / (2 * passes)
    cases = {
        "decode": (one(decode_seconds(here, shapes, column(batch))), batch, batch, 0.0, workload.resident_tokens, batch),
        "prefill": (
            one(prefill_seconds(here, shapes, column(chunk))),
            chunk,
            0.0,
            requests * before,
            hit + miss / 2,
            requests / passes,
        ),
    }
    peak_bytes = next(t for t in here.system.tiers if t.role == "device").read.value
    for phase, (time, *carried) in cases.items():
        flops, moved = work(here, shapes, phase, *carried)  # type: ignore[arg-type]
        compute = here.system.device.compute
        busy = sum(amount / compute[dtype if dtype in compute else "bf16"].peak.value for dtype, amount in flops.items())
        # a pass takes every stage's time; the slowest bounds them all
        assert busy / devices <= time * (1 + 1e-9), phase
        assert moved / devices / peak_bytes <= time * (1 + 1e-9), phase


# --- what the search's bounds rest on ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_decode_grows_with_batch_and_prefill_with_chunk(model: str, hardware: str, runtime: str) -> None:
    here = pool(model, hardware, runtime)
    space = pool_space(here)
    batches = [*range(1, 34), 48, 49, 64, 65, 100, 255, 256, 257, 511, 700, 1024]
    for shapes in space.shapes:
        ones = np.ones_like(shapes.tp)
        steps = np.stack([decode_seconds(here, shapes, ones * b) for b in batches])
        assert (np.diff(steps, axis=0) >= -1e-12 * steps[:-1]).all()
        passes = np.stack([prefill_seconds(here, shapes, ones * c) for c in space.chunks])
        assert (np.diff(passes, axis=0) > 0).all()


@settings(max_examples=60)
@given(st.data())
def test_decode_grows_with_batch_on_any_curve(data: st.DataObject) -> None:
    """The steepest curve allowed, as steep as M itself, above the knee: the rate grows as fast as the rows of an expert."""
    workload = shape(data.draw(st.sampled_from([1.0, 64.0])), 2.0)
    here = build_context(resolve("deepseek-v3", "h800-node:4", runtime=data.draw(st.sampled_from(RUNTIMES)), workload=workload))
    mixed = here.pools["mixed"]
    # flat from one row to ``start``, then proportional to M up to forty times that; read from the knee of forty rows upwards
    start = data.draw(st.sampled_from([1.0, 8.0, 50.0, 400.0]))
    points = ((1.0, 0.01), (start * 1.01, 0.01), (start * 40.4, 0.4))
    steep = {dtype: (replace_points(curve, points), 1.0) for dtype, (curve, _) in mixed.rates.curve.items()}
    mixed = replace(mixed, rates=replace(mixed.rates, curve=steep))
    tp, dp = data.draw(st.sampled_from([(1, 32), (1, 8), (8, 4), (4, 1)]))
    batch = np.arange(1.0, 4097.0, 3.0)
    shapes = Shapes(np.full_like(batch, tp), np.full_like(batch, dp), np.full_like(batch, tp * dp), 1)
    times = decode_seconds(mixed, shapes, batch)
    assert (np.diff(times) >= -1e-12 * times[:-1]).all()


def replace_points(curve: Curve, points: tuple[tuple[float, float], ...]) -> Curve:
    return Curve.model_validate(curve.model_dump() | {"points": points})


@given(st.integers(1, 5000))
def test_the_grid_holds_every_batch_once(limit: int) -> None:
    grid = batch_grid(limit)
    assert grid[0] == 1 and grid[-1] == limit and all(b > a for a, b in zip(grid, grid[1:], strict=False))


@given(st.lists(st.integers(0, 300), min_size=1, max_size=4), st.integers(1, 300), st.booleans())
def test_cells_hold_every_batch_once(fitting: list[int], limit: int, overflow: bool) -> None:
    fit = column(*(min(f, limit) for f in fitting))
    cells = make_cells(fit, 1, limit, overflow)
    for row, most in enumerate(fit):
        here = [
            (b, bool(cells.fits[i]))
            for i in np.flatnonzero(cells.row == row)
            for b in range(int(cells.low[i]), int(cells.high[i]) + 1)
        ]
        expected = [(b, b <= most) for b in range(1, (limit if overflow else int(most)) + 1)]
        assert sorted(here) == expected


@settings(max_examples=80)
@given(
    st.sampled_from(MODELS), st.sampled_from(HARDWARE), st.sampled_from(["interactive", "chat", "rag", "batch"]),
    st.integers(0, 10**6),
    st.integers(1, 900), st.integers(0, 120), st.sampled_from([1024, 2048, 16384]),
)  # fmt: skip
def test_cell_bounds_hold_for_every_integer_of_a_cell(
    model: str, hardware: str, name: str, pick: int, low: int, size: int, chunk: int
) -> None:
    here = pool(model, hardware, "generic", name)
    rows = [(s, i) for s in pool_space(here).shapes for i in range(len(s.tp))]
    group, index = rows[pick % len(rows)]
    shapes, passes = group.take(np.array([index])), column(chunk)
    decode, prefill = decode_seconds(here, shapes, column(low)), prefill_seconds(here, shapes, passes)
    tpot, ttft, rate, running = cell_bounds(here, shapes, passes, decode, prefill, column(low), column(low + size))
    batch = np.arange(low, low + size + 1, dtype=float)
    each = group.take(np.full(len(batch), index))
    chunks = np.full_like(batch, chunk)
    served = mixed_serving(
        decode_seconds(here, each, batch),
        prefill_seconds(here, each, chunks),
        batch,
        chunks,
        each,
        here.inputs.workload,
        here.accept,
    )
    assert (served.tpot_s >= one(tpot) * (1 - 1e-12)).all()
    assert (served.ttft_s >= one(ttft) * (1 - 1e-12)).all()
    assert (served.requests_per_s <= one(rate)).all()
    assert (served.concurrency >= one(running)).all()


@pytest.mark.parametrize(("model", "hardware"), [("deepseek-v3", "h800-node:4"), ("llama-3.1-70b", "h800-node")])
def test_the_largest_fitting_batch_fits_and_the_next_does_not(model: str, hardware: str) -> None:
    here = pool(model, hardware)
    for shapes in pool_space(here).shapes:
        chunk = np.full_like(shapes.tp, 2048.0)
        fit = largest_fitting_batch(here, shapes, chunk, 1024)
        inside, outside = fit > 0, fit < 1024
        assert (memory_need(here, Candidates(shapes, fit, chunk)).short[inside] <= 0).all()
        assert (memory_need(here, Candidates(shapes, fit + 1, chunk)).short[outside] > 0).all()


def test_admitted_sequences_by_hand() -> None:
    here = pool("llama-3.1-70b", "h800-node")  # requests of 4,096 new tokens
    shapes = Shapes(column(4, 4, 4, 4), column(1, 1, 1, 1), column(1, 1, 1, 1), 2)
    # decode only: 5 for each of two stages; prefill only: one or two at once a stage and one leaving; mixed: 10 and one or two
    rows = Candidates(shapes, column(5, 0, 0, 5), column(0, 2048, 8192, 8192))
    assert list(admitted_sequences(here, rows)) == [10.0, 3.0, 5.0, 12.0]


def random_placements(problem: Any, random: np.random.Generator, count: int) -> list[np.ndarray]:
    """Feasible shares: items split at random over their choices, with as much device memory used as fits."""
    program, choices = problem.program, problem.choices
    matrix, limits = program.matrix[:, : len(choices)], program.limit
    capacity = sorted(problem.capacity_rows.values())
    groups: dict[tuple[int, int], list[int]] = {}
    for number, choice in enumerate(choices):
        groups.setdefault((choice.stage, choice.item), []).append(number)
    found = []
    for trial in range(count):
        stay = 0.0 if trial % 2 else random.random()
        below, above = np.zeros(len(choices)), np.zeros(len(choices))
        for members in groups.values():
            lower = [m for m in members if choices[m].mode != "resident"]
            if random.random() < 0.5:
                lower = [m for m in lower if choices[m].mode == "stream"] or lower
            split = random.dirichlet(np.full(len(lower), 0.4))
            kept = random.choice([0.0, 1.0, random.random()])
            if random.random() < stay:
                below[members] = above[members] = [choices[m].mode == "resident" for m in members]
                continue
            below[lower] = split
            above[lower] = split * (1 - kept)
            above[next(m for m in members if choices[m].mode == "resident")] = kept
        low, high = 0.0, 1.0
        if not (matrix[capacity] @ below <= limits[capacity]).all():
            continue
        for _ in range(30):
            middle = (low + high) / 2
            shares = above * middle + below * (1 - middle)
            low, high = (middle, high) if (matrix[capacity] @ shares <= limits[capacity]).all() else (low, middle)
        found.append(above * low + below * (1 - low))
    return found


def check_overflow(here: PoolContext, decision: PoolDecision, seed: int, count: int = 60) -> float:
    """Assert admissibility against random placements; the bound over the best of them, for decode."""
    row = decision.row()
    problem, passes = pool_problem(here, decision)
    assert one(memory_need(here, row).short) > 0
    least = overflow_seconds(here, row, passes)
    fewer = np.unique(np.floor(np.linspace(min(decision.batch, 1), decision.batch, 5)))
    lower = Candidates(row.shapes.take(np.zeros(len(fewer), dtype=int)), fewer, np.full(len(fewer), float(decision.chunk)))
    lower_passes = {
        "decode": lambda: decode_pass(here, lower.shapes, lower.batch),
        "prefill": lambda: prefill_pass(here, lower.shapes, lower.chunk),
    }
    at_fewer = overflow_seconds(here, lower, {phase: lower_passes[phase]() for phase in passes})
    base = {phase: one(times.slowest_stage()) * here.rates.residual for phase, times in passes.items()}
    best = dict.fromkeys(passes, math.inf)
    placements = random_placements(problem, np.random.default_rng(seed), count)
    assert placements
    for shares in placements:
        times = evaluate_shares(problem, shares)
        for phase in passes:
            time = times.phase_s[phase] * here.rates.residual
            assert time >= one(least[phase]) * (1 - 1e-12), (decision, phase)
            assert time >= base[phase] * (1 - 1e-12)
            assert (time >= at_fewer[phase] * (1 - 1e-12)).all()  # so the bound at a cell's lowest batch holds in all the cell
            best[phase] = min(best[phase], time)
    return max(one(least[phase]) / best[phase] for phase in passes)


@pytest.mark.parametrize(
    ("model", "hardware", "decision"),
    [
        ("deepseek-v3", "h800-node", ("mixed", 1, 8, 1, 8, 1, 4, 1024)),
        ("deepseek-v3", "h800-node", ("mixed", 1, 1, 8, 8, 1, 16, 2048)),
        ("deepseek-v3", "h800-node", ("decode", 1, 4, 1, 4, 2, 32, 0)),
        ("deepseek-v3", "h800-node", ("prefill", 1, 8, 1, 8, 1, 0, 4096)),
        ("deepseek-v3", "gb200-nvl72", ("mixed", 1, 2, 1, 2, 1, 8, 4096)),
        ("llama-3.1-70b", "h800-node", ("mixed", 1, 1, 1, 1, 1, 4, 1024)),
        ("llama-3.1-70b", "h800-node", ("decode", 1, 2, 1, 1, 1, 512, 0)),
        ("llama-3.1-70b", "h800-node", ("decode", 1, 1, 1, 1, 4, 256, 0)),
    ],
)
@pytest.mark.parametrize("mtp", [0, 1])
def test_overflow_is_never_above_a_feasible_placement(
    model: str, hardware: str, decision: tuple[str, int, int, int, int, int, int, int], mtp: int
) -> None:
    if mtp and model != "deepseek-v3":
        return
    check_overflow(pool(model, hardware, "generic", "interactive", mtp), PoolDecision(*decision), 1)


def test_overflow_holds_where_a_draft_module_is_held_but_not_run() -> None:
    config = {
        "model_type": "deepseek_v3", "hidden_size": 512, "vocab_size": 1024, "num_hidden_layers": 2,
        "max_position_embeddings": 8192,
        "torch_dtype": "bfloat16", "intermediate_size": 1024, "num_attention_heads": 4, "q_lora_rank": 128, "kv_lora_rank": 64,
        "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "moe_intermediate_size": 512, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "topk_method": "noaux_tc", "num_nextn_predict_layers": 6,
    }  # fmt: skip
    model = model_from_config(config, "test", "many-drafts")
    for mtp in (1, 2, 6):
        here = build_context(resolve(model, "h800-node", runtime="ideal", mtp=mtp)).pools["mixed"]
        decision = PoolDecision("decode", 1, 1, 1, 1, 1, 8, 0)
        small = replace(here, rates=replace(here.rates, memory_bytes=1e6))
        problem, _ = pool_problem(small, decision)
        # everything resident but the weights of the six draft modules, of which a step runs ``mtp``
        below = {
            n
            for n, item in enumerate(problem.items)
            if item.window >= len(here.pieces.windows) and item.kind in ("static", "routed")
        }
        shares = np.array(
            [float((c.tier, c.mode) == ("host", "stream") if c.item in below else c.mode == "resident") for c in problem.choices]
        )
        used = problem.program.matrix[problem.capacity_rows[(0, "hbm")], : len(shares)] @ shares * 1e9
        exact = replace(here, rates=replace(here.rates, memory_bytes=float(used)))
        row = decision.row()
        least = one(overflow_seconds(exact, row, {"decode": decode_pass(exact, row.shapes, row.batch)})["decode"])
        problem, _ = pool_problem(exact, decision)
        time = evaluate_shares(problem, shares).phase_s["decode"]
        moved = sum(problem.items[n].held for n in below)
        assert 0.0 < least <= time
        assert time >= mtp * moved / joint_bytes_per_s(exact)
        check_overflow(exact, decision, mtp, 100)


def apart(hardware: str) -> HardwareSelection:
    """The system with a disk as fast as its host memory on a way of its own, which both together may use."""
    system = load_hardware(hardware).system
    tiers = []
    for tier in system.tiers:
        if tier.role == "disk":
            tier = tier.model_copy(update={"via": ("nvme",), "read": slower(tier.read, 10.0)})
        tiers.append(tier)
    links = tuple(
        x.model_copy(update={"bandwidth": slower(x.bandwidth, 10.0), "generation": ""}) if x.id == "nvme" else x
        for x in system.links
    )
    changed = system.model_copy(update={"tiers": tuple(tiers), "links": links})
    again = System.model_validate(changed.model_dump(mode="json", by_alias=True), context={"si": True})
    return HardwareSelection(system=again)


def test_overflow_counts_memories_on_ways_of_their_own() -> None:
    here = build_context(resolve("llama-3.1-70b", apart("h800-node"))).pools["mixed"]
    host, disk = (t.bytes_per_s for t in here.rates.tiers)
    assert joint_bytes_per_s(here) == pytest.approx(host + disk)
    decision = PoolDecision("decode", 1, 1, 1, 1, 1, 4, 0)
    check_overflow(here, decision, 2)
    # all weights streamed over both ways at once, in proportion to their rates, beats the faster way alone
    problem, passes = pool_problem(here, decision)
    share = {here.rates.memory_id: 0.0, "host": host / (host + disk), "ssd": disk / (host + disk)}
    stream = np.array([
        (1.0 if c.mode == "resident" else 0.0) if problem.items[c.item].kind != "static"
        else share[c.tier] * (c.mode == "stream") for c in problem.choices
    ])  # fmt: skip
    time = evaluate_shares(problem, stream).phase_s["decode"]
    held = sum(i.held * problem.stages[0][i.window] for i in problem.items if i.kind == "static")
    assert time < held / max(host, disk)
    assert time >= held / joint_bytes_per_s(here)
    # on the catalogue's nodes every way shares PCIe, which carries no more for two
    for name in ("h800-node", "gb200-nvl72", "cloudmatrix384"):
        catalogue = pool("llama-3.1-70b", name)
        assert joint_bytes_per_s(catalogue) == max(t.bytes_per_s for t in catalogue.rates.tiers)


def test_overflow_is_nothing_where_all_fits_and_endless_without_other_memories() -> None:
    here = pool("llama-3.1-70b", "h800-node")
    rows = Candidates(Shapes(column(8, 1), column(1, 1), column(1, 1), 1), column(4, 4), column(0, 0))
    passes = {"decode": decode_pass(here, rows.shapes, rows.batch)}
    least = overflow_seconds(here, rows, passes)["decode"]
    assert least[0] == 0.0 and least[1] > 0.0
    alone = replace(here, tiers=())
    assert list(overflow_seconds(alone, rows, passes)["decode"]) == [0.0, math.inf]


def test_overflow_by_hand() -> None:
    """All but the device's memory of Llama's BF16 weights must come over PCIe each step, the embedding table first of all."""
    here = pool("llama-3.1-70b", "h800-node")
    row = Candidates(Shapes.single(1, 1, 1, 1), column(1), column(0))
    need = memory_need(here, row)
    weights = 2 * here.inputs.model.parameters()["total"]
    assert one(need.weights) == weights
    cache = math.ceil(5120 / 64) * 64 * 80 * 4096
    assert one(need.caches) == cache
    reserve = 551 * 2**20 + 0.36 * 2**30 + 0.01 * 81_559 * 2**20 + 8 * 8192 * 2  # no communication on one device
    assert one(need.reserve) == pytest.approx(reserve)
    short = weights + cache + reserve - 81_559 * 2**20
    assert one(need.short) == pytest.approx(short)
    # the table of 128,256 rows is hardly read; of the cache 4,608 of 5,120 tokens are (what is written goes the other way)
    table = 128_256 * 8192 * 2
    read = (cache - 80 * 4096 * (5120 - 4608)) / cache
    expected = (cache * read + (short - table - cache)) / 55.44e9
    found = overflow_seconds(here, row, {"decode": decode_pass(here, row.shapes, row.batch)})["decode"]
    assert one(found) == pytest.approx(expected, rel=1e-6)
    assert one(found) > one(decode_seconds(here, row.shapes, row.batch))


@pytest.mark.parametrize(
    ("span", "middle", "half", "expected"),
    [
        (Span(), 100.0, 50.0, 100.0),
        (Span(window=80), 100.0, 20.0, 80.0),
        (Span(window=100), 100.0, 100.0, 75.0),  # over [0, 200]: (100^2/2 + 100*100) / 200
        (Span(ratio=4, cap=25), 100.0, 100.0, 18.75),  # limit 25*4 = 100, entries a quarter of the mean above
        (Span(window=100), 100.0, 0.0, 100.0),
    ],
)
def test_mean_entries_by_hand(span: Span, middle: float, half: float, expected: float) -> None:
    assert mean_entries(span, middle, half) == pytest.approx(expected, rel=1e-12)
    grid = middle - half + 2 * half * (np.arange(200_000) + 0.5) / 200_000
    assert float(np.mean(span.entries(grid))) == pytest.approx(expected, rel=1e-6)
