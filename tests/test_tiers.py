"""The tier problem: cases solved on paper, the solver against another algorithm, and bases that prove what they claim."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from planner.architecture import Span
from planner.errors import InputError
from planner.footprint import ModelPieces, Shapes
from planner.footprint.pieces import BlockPieces, CacheItem, RoutedItem, StaticItem, Window
from planner.performance import BlockTimes, PassTimes, Rates, TierRate, resolve_rates
from planner.plans.context import build_context
from planner.plans.decision import PoolDecision
from planner.plans.lp import LinearProgram, decode_basis, encode_basis, right_hand_range, vertex
from planner.plans.states import pool_problem
from planner.plans.tiers import TierProblem, build_tier_problem, elastic, evaluate_shares, tie_break_total
from planner.search.tier_lp import prove_empty, solve_tiers

GB = 10**9
LAYERS = 10


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def paper(memory_gb: float, period_s: float | None = None, routed: bool = False) -> TierProblem:
    """Ten equal layers, decode only, one device and one host memory.

    A layer has weights of 1 GB, read whole, and a cache of 0.5 GB of which a pass reads 0.25 GB. Device memory moves 1000 GB/s
    and the host 50 GB/s, so a layer takes 1.25 ms with everything in device memory. With ``routed`` the weights are experts
    of which a pass reads a tenth; a fetch waits 1 ms for each of two experts.
    """
    read = GB // 10 if routed else GB
    cache = CacheItem("kv", True, Span(), Span(), GB // 2, 0, 1)
    experts = RoutedItem("bf16", 10, 1.0, GB // 20, GB // 10, 1)
    block = BlockPieces(
        "b", "mlp", (), (), StaticItem(() if routed else ((1, GB, GB),)), experts if routed else None, (), (cache,)
    )
    pieces = ModelPieces("paper", 1, LAYERS, (Window("layers", 0, LAYERS, (block,)),), (), 1, 1, (), (), "bf16")
    part = BlockTimes(
        "b", "mlp", one(0), one(0), one((read + GB / 4) / 1e12), one(0), one(0 if routed else read), one(read if routed else 0),
        one(2 if routed else 0), one(0), one(GB / 4), one(0), routed_parts=(one(1),),
    )  # fmt: skip
    passes = {"decode": PassTimes([[part]], [[float(LAYERS)]], one(0.001), one(0))}
    base: Rates = resolve_rates(small.node(1), small.runtime())
    host = TierRate("host", "ddr", "host", 100.0 * GB, small.channels(host=80.0 * GB, link=50.0 * GB), 1e-3, 64)
    rates = replace(base, memory_bytes=memory_gb * GB, memory_bytes_per_s=1000.0 * GB, tiers=(host,))
    shapes = Shapes.single(1, 1, 1, 1)
    return build_tier_problem(pieces, shapes, rates, passes, {"decode": 1.0}, 1.0, 1, 1, 0.0, ("host",), period_s)


def milliseconds(problem: TierProblem) -> float:
    solution = solve_tiers(problem)
    assert solution is not None
    shares = solution.point.values[: len(problem.choices)]
    return evaluate_shares(problem, shares).phase_s["decode"] * 1e3


def held(problem: TierProblem) -> dict[tuple[str, str], float]:
    solution = solve_tiers(problem)
    assert solution is not None
    return {
        (problem.items[c.item].name, f"{c.tier}:{c.mode}"): float(solution.point.values[i]) for i, c in enumerate(problem.choices)
    }


# --- on paper -----------------------------------------------------------------------------------------------------
# Streaming a share c of the cache frees 5c GB, takes c GB of buffers (two layers' shares) and the link for 5c ms a layer:
# 4c GB net. A share s of the weights frees 10s, takes 2s of buffers and the link for 20s ms: 8s GB net. The cache costs
# 1.25 ms a layer and GB, the weights 2.5: the cache goes first. A layer hides 1.25 ms of streaming.


def test_everything_fits() -> None:
    assert milliseconds(paper(15.0)) == pytest.approx(10 * 1.25 + 1.0, rel=1e-12)
    assert held(paper(15.0))[("weights", "hbm:resident")] == 1.0


def test_a_short_gigabyte_hides_behind_the_layer() -> None:
    """1 GB short: c = 1/4, the link needs 1.25 ms a layer, just what a layer takes anyway."""
    problem = paper(14.0)
    assert milliseconds(problem) == pytest.approx(13.5, rel=1e-9)
    assert held(problem)[("KV cache", "host:stream")] == pytest.approx(0.25, rel=1e-9)


def test_the_cheaper_item_moves_first() -> None:
    """3 GB short: c = 3/4, no weights; a layer waits 3.75 ms for the link. One more GB saves 1.25 ms in each of ten layers."""
    problem = paper(12.0)
    shares = held(problem)
    assert shares[("KV cache", "host:stream")] == pytest.approx(0.75, rel=1e-9)
    assert shares[("weights", "host:stream")] == pytest.approx(0.0, abs=1e-12)
    assert milliseconds(problem) == pytest.approx(38.5, rel=1e-9)
    solution = solve_tiers(problem)
    assert solution is not None
    row = problem.capacity_rows[(0, "hbm")]
    assert solution.point.duals[row] == pytest.approx(-12.5, rel=1e-6)
    low, high = right_hand_range(problem.program, solution.point, row)
    assert (low, high) == (pytest.approx(11.0, rel=1e-6), pytest.approx(14.0, rel=1e-6))


def test_the_dearer_item_follows() -> None:
    """6 GB short: the whole cache (4 GB) and a quarter of the weights (2 GB): 5 + 5 ms a layer; 25 ms for one more GB."""
    problem = paper(9.0)
    shares = held(problem)
    assert shares[("KV cache", "host:stream")] == pytest.approx(1.0, rel=1e-9)
    assert shares[("weights", "host:stream")] == pytest.approx(0.25, rel=1e-9)
    assert milliseconds(problem) == pytest.approx(101.0, rel=1e-9)
    solution = solve_tiers(problem)
    assert solution is not None
    assert solution.point.duals[problem.capacity_rows[(0, "hbm")]] == pytest.approx(-25.0, rel=1e-6)


def test_no_room_for_the_buffers() -> None:
    """Everything streamed still takes 3 GB of buffers: 2.9 GB hold no placement, and the proof says by how much."""
    assert milliseconds(paper(3.0)) == pytest.approx(10 * 25.0 + 1.0, rel=1e-9)
    problem = paper(2.9)
    assert solve_tiers(problem) is None
    proof = prove_empty(problem)
    assert float(proof.point.duals @ elastic(problem).program.limit) == pytest.approx(0.1, rel=1e-6)


def test_the_period_limit_is_a_limit() -> None:
    """3 GB short takes 38.5 ms: a period of 38.5 ms holds it, one of 38.4 ms holds nothing."""
    assert milliseconds(paper(12.0, period_s=0.0385001)) == pytest.approx(38.5, rel=1e-5)
    assert solve_tiers(paper(12.0, period_s=0.0384)) is None


def test_experts_are_fetched_where_streaming_all_of_them_takes_longer() -> None:
    """A layer holds 1 GB of experts and reads 0.1. Streaming moves all of it, 20 ms; a fetch takes 2 + 2 ms, which nothing
    hides, and 0.2 GB of buffers. 5 GB short: the cache frees 4c GB and takes the link for 5c ms, which 0.35 ms of the layer hide;
    the experts free 9.8f GB and take 4f ms on top of the 0.35, 2f of them on the link. So t = max(0.35 + 4f, 5c + 2f)."""
    problem = paper(10.0, routed=True)
    value = milliseconds(problem)
    c, f = np.meshgrid(np.linspace(0, 1, 2001), np.linspace(0, 1, 2001))
    layer = np.maximum(np.maximum(0.35 + 4 * f, 0.35 + 0.1 * f), 5 * c + 2 * f)
    fits = 4 * c + 9.8 * f >= 5.0
    by_hand = 10 * layer[fits].min() + 1.0
    assert value <= by_hand * (1 + 1e-9)
    assert value == pytest.approx(by_hand, rel=2e-3)
    shares = held(problem)
    assert shares[("routed experts", "host:fetch")] > 0.3 and shares[("routed experts", "host:stream")] == pytest.approx(
        0.0, abs=1e-9
    )


# --- bases --------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_basis_round_trip(bits: list[bool]) -> None:
    basis = np.array(bits)
    assert np.array_equal(decode_basis(encode_basis(basis), len(bits)), basis)


@pytest.mark.parametrize(
    "text", ["", "5", "5:", "4:1f", "5:3f", "5:1F", "5:-1", "5:0x1", "5:1 ", "٥:1f", "5:" + "0" * 6, "5:1f:1f"]
)
def test_what_is_no_basis_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        decode_basis(text, 5)


def test_a_basis_of_the_wrong_size_or_singular_is_refused() -> None:
    program = paper(12.0).program
    size = len(program.columns) + len(program.rows)
    with pytest.raises(InputError, match="basic columns"):
        vertex(program, np.zeros(size, dtype=bool))
    twice = LinearProgram(
        ("x", "y"), ("a", "b"), one(1), np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([1.0, 1.0]), np.array([True, True])
    )
    twice = replace(twice, cost=np.array([1.0, 1.0]))
    with pytest.raises(InputError, match="singular"):
        vertex(twice, np.array([True, True, False, False]))


@pytest.mark.parametrize("memory_gb", [9.0, 12.0, 13.0, 14.5])
def test_only_the_optimal_basis_has_no_negative_reduced_cost(memory_gb: float) -> None:
    """Exchanging one basic column for another leaves a vertex that is infeasible, dearer or equal; never cheaper."""
    problem = paper(memory_gb)
    solution = solve_tiers(problem)
    assert solution is not None
    assert solution.point.dual_infeasibility <= 1e-9 and solution.point.infeasibility <= 1e-9
    best = float(problem.program.cost @ solution.point.values)
    seen = 0
    for leave in np.flatnonzero(solution.basis):
        for enter in np.flatnonzero(~solution.basis):
            other = solution.basis.copy()
            other[leave], other[enter] = False, True
            try:
                point = vertex(problem.program, other)
            except InputError:
                continue
            if point.infeasibility > 1e-9:
                continue
            seen += 1
            value = float(problem.program.cost @ point.values)
            assert value >= best - 1e-6
            if value > best + 1e-6:
                assert point.dual_infeasibility > 1e-9
    assert seen


# --- the solver against another algorithm ---------------------------------------------------------------------------

_MODELS = {
    "llama": small.llama(layers=8, hidden=256, inner=512, vocabulary=512),
    "experts": small.experts(layers=6),
}


@pytest.mark.parametrize("model", sorted(_MODELS))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 1), (1, 1, 1, 2)])
@pytest.mark.parametrize("memory", [40e6, 20e6, 12e6, 7e6])
@pytest.mark.parametrize("period_s", [None, 0.002])
def test_solver_agrees_with_a_tableau(
    model: str, shape: tuple[int, int, int, int], memory: float, period_s: float | None
) -> None:
    """Optima agree, a bound from duals is no larger, and what the solver calls empty the tableau calls empty."""
    pool = build_context(small.instance(_MODELS[model], small.node(2, 1, memory))).pools["mixed"]
    for batch in (1, 4):
        decision = PoolDecision("mixed", 1, *shape, batch, 64, basis="needed", period_s=period_s)
        problem, _ = pool_problem(pool, decision)
        solution, other = solve_tiers(problem), small.simplex(problem.program)
        if other is None:
            assert solution is None
            proof = prove_empty(problem)
            assert float(proof.point.duals @ elastic(problem).program.limit) > 1e-9
            continue
        assert solution is not None
        optimum = float(problem.program.cost @ solution.point.values)
        assert optimum == pytest.approx(other[0], rel=1e-8)
        assert optimum - 2 * tie_break_total(problem) - 1e-12 <= solution.bound <= optimum * (1 + 1e-9)
        again = vertex(problem.program, decode_basis(encode_basis(solution.basis), len(solution.basis)))
        assert np.array_equal(again.values, solution.point.values)
        times = evaluate_shares(problem, solution.point.values[: len(problem.choices)])
        assert sum(problem.weights[p] * times.phase_s[p] * 1e3 for p in problem.phases) <= optimum * (1 + 1e-9)
