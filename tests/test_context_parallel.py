"""Context parallelism: devices that would copy a cache share its tokens, and pay for it over the network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import compare

from planner.footprint import Shapes
from planner.footprint.memory import cache_ways, window_cache_bytes
from planner.performance import Rates
from planner.plans import Inputs, verify_plan
from planner.plans.constraints import parse_constraints
from planner.plans.context import PoolContext, build_context
from planner.plans.evaluate import decode_pass, prefill_pass
from planner.plans.space import _context_ways, pool_space
from planner.search import solve

GROUPED = small.llama(layers=2, hidden=512, heads=16, kv_heads=4)
LATENT = small.experts(layers=2)


@cache
def pool_of(name: str, devices: int = 16) -> PoolContext:
    model = GROUPED if name == "grouped" else LATENT
    return build_context(small.instance(model, small.node(devices, 1, 60e6), 1, small.workload(isl=1000, osl=200))).pools["mixed"]


# --- bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "tp", "cp", "ways"),
    [
        (1, 8, 1, 1), (1, 8, 2, 2), (1, 8, 4, 4), (1, 8, 8, 8), (4, 16, 1, 4), (4, 16, 2, 8), (4, 16, 4, 16), (4, 16, 8, 16),
        (8, 4, 1, 4), (8, 8, 1, 8),
    ],
)  # fmt: skip
def test_ways_in_which_a_cache_is_split(axis: int, tp: int, cp: int, ways: int) -> None:
    """By heads first, then by tokens; never more ways than devices."""
    assert float(cache_ways(Shapes.single(tp, 1, 1, 1, cp), axis)[0]) == ways


@pytest.mark.parametrize(("tp", "axes", "found"), [
    (8, {1}, [1, 2, 4, 8]), (16, {4}, [1, 2, 4]), (8, {1, 4}, [1, 2]), (4, {8}, [1]), (1, {1}, [1]), (8, set(), [1]),
])  # fmt: skip
def test_what_context_parallelism_there_is(tp: int, axes: set[int], found: list[int]) -> None:
    assert _context_ways(tp, axes) == found


@pytest.mark.parametrize(("name", "tp"), [("latent", 8), ("grouped", 16)])
def test_cache_bytes_fall_by_the_ways(name: str, tp: int) -> None:
    """A latent cache has one head, so eight devices hold it eight times; two ways of tokens make that four times, and so on."""
    pool = pool_of(name)
    heads = 1 if name == "latent" else 4
    for window in pool.pieces.windows:
        whole = float(window_cache_bytes(window, Shapes.single(1, 1, 1, 1), 1200, 16)[0])
        for cp in (1, 2, 4, 8)[: (tp // heads).bit_length()]:
            each = float(window_cache_bytes(window, Shapes.single(tp, 1, 1, 1, cp), 1200, 16)[0])
            assert each == pytest.approx(whole / heads / cp, abs=2)
            assert each * tp == pytest.approx(whole * tp / heads / cp, abs=2 * tp)


@pytest.mark.parametrize("cp", [1, 2, 4])
def test_a_plan_holds_the_copies_that_are_left(cp: int) -> None:
    inputs = small.instance(
        small.llama(heads=16, kv_heads=1), small.node(4, 1, 60e6), 1, small.workload(), small.runtime(3, (64,)),
        constraints=parse_constraints(("tp=4", f"context_parallel={cp}", "serving=aggregated"), ()),
    )  # fmt: skip
    plan = solve(inputs)
    (pool,) = plan.pools
    assert (pool.configuration.tp, pool.configuration.context_parallel) == (4, cp)
    copies = {row.copies for row in pool.placement if row.item.endswith("KV cache")}
    assert copies == {4 / cp}
    assert verify_plan(plan, full=True)[0] == []


# --- seconds ----------------------------------------------------------------------------------------------------------


def added(pool: PoolContext, shapes: Shapes, phase: str, size: float) -> np.ndarray:
    """Seconds of communication in the layers beyond those without context parallelism."""
    plain = replace(shapes, cp=np.ones_like(shapes.cp))
    passes = [(decode_pass if phase == "decode" else prefill_pass)(pool, s, np.full(len(s.tp), size)) for s in (shapes, plain)]
    first, second = (
        sum((b.communication for blocks in p.windows for b in blocks if b.kind == "attention"), np.zeros(len(shapes.tp)))
        for p in passes
    )
    return np.asarray(first - second)


def by_hand(rates: Rates, members: int, payload: float) -> float:
    """An all-reduce of half as many bytes as are gathered, within the innermost network."""
    level = rates.levels[0]
    assert members <= level.devices and not level.mesh
    startup = 2 * level.latency if level.allreduce_startup is None else level.allreduce_startup
    ring = startup + 2 * (members - 1) / members * payload / level.allreduce
    return float(min(ring, level.oneshot_startup + (members - 1) * payload / level.allreduce))


@pytest.mark.parametrize("cp", [2, 4])
def test_exchange_of_queries_by_hand(cp: int) -> None:
    """16 heads of 32 on 16 devices, 4 groups of keys: a device needs the queries and results of cp heads, 64 BF16 a head and
    token. 4 sequences are padded to 4 tokens; their caches (1100 tokens, 32 keys and values) are far more."""
    pool = pool_of("grouped")
    shapes = Shapes.single(16, 1, 1, 1, cp)
    payload = min(cp * 64 * 2.0 * 4, 4 * 1100 * 64 * 2.0) / 2
    layers = len([b for w in pool.pieces.windows for b in w.blocks if b.kind == "attention"])
    assert added(pool, shapes, "decode", 4.0)[0] == pytest.approx(layers * by_hand(pool.rates, cp, payload), rel=1e-12)


def test_a_long_pass_of_little_context_gathers_the_cache() -> None:
    """4096 new tokens of requests of 1000: their keys and values weigh less than queries and results of four heads."""
    pool = pool_of("grouped")
    payload = min(4 * 64 * 2.0 * 4096, 4.096 * 1000 * 64 * 2.0) / 2
    assert payload == 4.096 * 1000 * 64
    layers = len([b for w in pool.pieces.windows for b in w.blocks if b.kind == "attention"])
    seconds = added(pool, Shapes.single(16, 1, 1, 1, 4), "prefill", 4096.0)[0]
    assert seconds == pytest.approx(layers * by_hand(pool.rates, 4, payload), rel=1e-9)


@pytest.mark.parametrize("name", ["grouped", "latent"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_one_way_costs_nothing_and_more_cost_something(name: str, phase: str) -> None:
    """Also beside rows that do share tokens; reading a split cache takes less."""
    pool = pool_of(name)
    tp = np.array([4.0, 8.0, 8.0]) if name == "latent" else np.array([8.0, 16.0, 16.0])
    shapes = Shapes(tp, np.ones(3), np.ones(3), 1, np.array([1.0, 1.0, 2.0]))
    size = 3.0 if phase == "decode" else 512.0
    seconds = added(pool, shapes, phase, size)
    assert seconds[0] == seconds[1] == 0.0 < seconds[2]
    times = (decode_pass if phase == "decode" else prefill_pass)(pool, shapes, np.full(3, size))
    reads = sum(b.cache_read for blocks in times.windows for b in blocks)
    assert reads[2] == pytest.approx(reads[1] / 2, rel=1e-12)


@given(st.integers(0, 3), st.floats(1.0, 100.0), st.integers(1, 512), st.sampled_from(["decode", "prefill"]))
@settings(max_examples=100)
def test_more_network_is_never_slower(power: int, factor: float, size: int, phase: str) -> None:
    pool = pool_of("latent")
    quick = replace(
        pool, rates=replace(pool.rates, levels=tuple(replace(x, allreduce=x.allreduce * factor) for x in pool.rates.levels))
    )
    shapes = Shapes.single(8, 1, 1, 1, 2**power)
    assert added(quick, shapes, phase, float(size))[0] <= added(pool, shapes, phase, float(size))[0] * (1 + 1e-9) + 1e-15


# --- the space --------------------------------------------------------------------------------------------------------


def inputs_of(ability: bool, memory: float = 60e6, **limits: float) -> Inputs:
    software = small.runtime(2, (64,), context_parallel=ability)
    return small.instance(small.llama(heads=4, kv_heads=1), small.node(4, 1, memory), 1, small.workload(**limits), software)


def test_a_runtime_without_the_ability_has_none() -> None:
    pools = [pool_space(build_context(inputs_of(ability)).pools["mixed"]) for ability in (True, False)]
    ways = [{int(v) for s in pool.shapes for v in s.cp} for pool in pools]
    assert ways == [{1, 2, 4}, {1}]
    shapes = {(int(a), int(b), s.pp) for s in pools[0].shapes for a, b in zip(s.tp, s.dp, strict=True)}
    assert shapes == {(int(a), int(b), s.pp) for s in pools[1].shapes for a, b in zip(s.tp, s.dp, strict=True)}


def test_the_ability_never_makes_a_plan_worse() -> None:
    for memory in (60e6, 12e6):
        with_it, without = (solve(inputs_of(ability, memory)).certificate for ability in (True, False))
        assert with_it.bound <= without.objective * (1 + 1e-9)


@pytest.mark.parametrize("memory", [60e6, 12e6])
@pytest.mark.parametrize("limits", [{}, {"ttft_s": 0.002, "tpot_s": 0.0006}])
def test_against_brute_force(memory: float, limits: dict[str, float]) -> None:
    """One head of keys on up to four devices: every split of its tokens."""
    compare(inputs_of(True, memory, **limits))
