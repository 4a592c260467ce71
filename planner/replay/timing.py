"""Seconds of a pass of a pool at any load, from the plan's own model of a pass: worked out on a grid, then between its points.

A decode step is a table over the batch of a rank and the mean context of its sequences; a prefill pass one over new tokens,
requests they belong to, and the mean tokens that a new one attends to. Where everything lies in device memory all points
are one vectorised call; a placement over several memories keeps its shares and is worked out point by point.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.footprint import Shapes
from planner.performance import PassTimes, handoff_seconds, pass_times
from planner.performance.load import Load, decode_load_of
from planner.plans.context import PoolContext
from planner.plans.evaluate import admitted_sequences, reserved_bytes
from planner.plans.states import PoolState, phase_weights
from planner.plans.tiers import TierProblem, build_tier_problem, evaluate_shares

LONGEST = 1_048_576
"""Tokens of context up to which tables reach; beyond, the last two points go on in a line."""
DENSE_ROWS = 20_000
"""Points of one call, at most."""
PLACED_BATCHES, PLACED_CONTEXTS = 12, 6

Grid = tuple[float, ...]


def _place(grid: Grid, value: float) -> tuple[int, float]:
    """Index of the point before and the way to the next, which goes on in a line beyond the last and stops at the first."""
    if len(grid) == 1 or value <= grid[0]:
        return 0, 0.0
    at = min(bisect_right(grid, value), len(grid) - 1) - 1
    return at, (value - grid[at]) / (grid[at + 1] - grid[at])


@dataclass(frozen=True)
class Table2:
    """A function of two numbers, bilinear between the points of its grids."""

    first: Grid
    second: Grid
    values: tuple[tuple[float, ...], ...]

    def __call__(self, a: float, b: float) -> float:
        """Value at a point."""
        i, u = _place(self.first, a)
        j, v = _place(self.second, b)
        low, high = self.values[i], self.values[min(i + 1, len(self.first) - 1)]
        k = min(j + 1, len(self.second) - 1)
        start = low[j] + (low[k] - low[j]) * v
        return start + (high[j] + (high[k] - high[j]) * v - start) * u


@dataclass(frozen=True)
class Table3:
    """A function of three numbers, linear in each between the points of its grids."""

    first: Grid
    planes: tuple[Table2, ...]

    def __call__(self, a: float, b: float, c: float) -> float:
        """Value at a point."""
        i, u = _place(self.first, a)
        start = self.planes[i](b, c)
        if not u:
            return start
        return start + (self.planes[i + 1](b, c) - start) * u


@dataclass(frozen=True)
class Timing:
    """How long an instance of a pool works: functions that give seconds.

    ``step(batch, context)``: a decode step of the slowest stage; ``fill(tokens, requests, context)``: a prefill pass of so many
    new tokens of a rank, of so many requests, that attend to ``context`` tokens in the mean; ``handoff(tokens)``: a prompt's
    caches to this pool.
    """

    step: Callable[[float, float], float] | None = None
    fill: Callable[[float, float, float], float] | None = None
    handoff: Callable[[float], float] | None = None


def contexts(most: float, points: int | None = None) -> Grid:
    """Tokens of context, doubling from 128 up to ``most``."""
    top = max(most, 256.0)
    if points is not None:
        return tuple(float(x) for x in np.unique(np.round(np.geomspace(128.0, top, points))))
    return tuple(float(x) for x in np.unique(np.append(2.0 ** np.arange(7, math.ceil(math.log2(top))), top)))


def batches(most: int, buckets: tuple[int, ...], points: int | None = None) -> Grid:
    """Batches of a rank between which a step grows in a line: the ends of every bucket of a captured graph."""
    if points is not None:
        return tuple(float(x) for x in np.unique(np.round(np.geomspace(1, most, points))))
    edges = [int(edge) for edge in buckets if edge < most]
    step = buckets[-1] - buckets[-2] if len(buckets) > 1 else buckets[-1]
    edges += range(buckets[-1] + step, most, max(step, -(-most // 128)))
    inside = {b for edge in edges for b in (edge, edge + 1)} | {1, most}
    return tuple(float(b) for b in sorted(inside) if b <= most)


def _fills(chunk: int, ratio: float) -> Grid:
    count = max(math.ceil(math.log(max(chunk, 2)) / math.log(ratio)), 1)
    return tuple(float(x) for x in np.unique(np.round(np.geomspace(1, chunk, count + 1))))


def _requests(most: int, ratio: float) -> Grid:
    if most <= 1:
        return (1.0,)
    count = max(math.ceil(math.log(most) / math.log(ratio)), 1)
    return tuple(float(x) for x in np.unique(np.round(np.geomspace(1, most, count + 1))))


def _with(grid: Grid, value: float) -> Grid:
    """The grid with the point that the plan was made at, where it lies inside."""
    return tuple(sorted({*grid, value})) if grid[0] < value < grid[-1] else grid


def _shapes(state: PoolState, count: int) -> Shapes:
    d = state.decision
    return Shapes.single(d.tp, d.dp, d.ep, d.pp, d.cp).take(np.zeros(count, dtype=np.intp))


def _seconds(state: PoolState, phase: str, load_of: Callable[[np.ndarray], Load], points: np.ndarray) -> np.ndarray:
    """Seconds of the slowest stage at every point (a row of ``points``), residual included."""
    pool, found = state.pool, []
    if state.resident:
        for part in np.array_split(points, max(-(-len(points) // DENSE_ROWS), 1)):
            found.append(pass_times(pool.pieces, _shapes(state, len(part)), pool.rates, load_of(part)).slowest_stage())
        return np.concatenate(found) * pool.rates.residual
    one = _shapes(state, 1)
    for row in points:
        times = pass_times(pool.pieces, one, pool.rates, load_of(row[None, :]))
        found.append(np.array([_placed(state, phase, times)]))
    return np.concatenate(found) * pool.rates.residual


def _placed(state: PoolState, phase: str, times: PassTimes) -> float:
    """Seconds of a pass where items lie as the plan placed them. A prefix cache is left out: what a request brings back is
    charged when it does."""
    pool, decision = state.pool, state.decision
    row = decision.row()
    passes = {phase: times}
    problem = build_tier_problem(
        pool.pieces,
        row.shapes,
        pool.rates,
        passes,
        {phase: phase_weights(pool, decision)[phase]},
        float(admitted_sequences(pool, row)[0]),
        pool.inputs.workload.reserved_tokens,
        pool.inputs.runtime.page_tokens,
        float(sum(column[0] for column in reserved_bytes(pool, row).values())),
        pool.tiers,
        None,
        pool.forbidden,
    )
    return evaluate_shares(problem, _same_shares(state.problem, state.shares, problem)).phase_s[phase]


def _same_shares(planned: TierProblem, shares: np.ndarray, now: TierProblem) -> np.ndarray:
    """The planned shares on the choices of a problem at another load, where a way to move may be missing: a pass that needs all
    of a cache does not choose."""
    held: dict[tuple[int, int, str, str, str], float] = {}
    for choice, share in zip(planned.choices, shares, strict=True):
        item = planned.items[choice.item]
        key = choice.stage, item.window, item.name, choice.tier, choice.mode
        held[key] = held.get(key, 0.0) + float(share)
    names = [(c.stage, now.items[c.item].window, now.items[c.item].name, c.tier, c.mode) for c in now.choices]
    known = set(names)
    for key in [key for key in held if key not in known and held[key]]:
        other = next((name for name in names if name[:4] == key[:4]), None)
        if other is not None:
            held[other] = held.get(other, 0.0) + held[key]
    return np.array([held.get(name, 0.0) for name in names])


def _stepping(state: PoolState, longest: float) -> Callable[[float, float], float]:
    pool, decision = state.pool, state.decision
    few = None if state.resident else PLACED_BATCHES
    first = batches(decision.batch, pool.rates.buckets, few)
    second = _with(contexts(longest, None if state.resident else PLACED_CONTEXTS), pool.inputs.workload.resident_tokens)
    points = np.array([(b, c) for b in first for c in second])

    def load(part: np.ndarray) -> Load:
        return decode_load_of(part[:, 0], part[:, 1], 0.0, pool.pieces, pool.rates)

    values = _seconds(state, "decode", load, points).reshape(len(first), len(second))
    return Table2(first, second, tuple(tuple(row) for row in values.tolist()))


def _filling(state: PoolState, longest: float, at_once: int) -> Callable[[float, float, float], float]:
    pool, chunk = state.pool, state.decision.chunk
    dense, workload = state.resident, pool.inputs.workload
    passes = max(math.ceil(workload.miss_tokens / chunk), 1)
    usual = chunk * passes / workload.miss_tokens, workload.hit_tokens + workload.miss_tokens / 2.0
    first = _fills(chunk, 1.2 if dense else 2.0)
    second = _with(_requests(min(at_once, chunk), 2.0 if dense else 4.0), usual[0])
    third = _with((1.0, *contexts(longest, None if dense else 4)), usual[1])
    points = np.array([(t, r, context) for t in first for r in second for context in third])

    def load(part: np.ndarray) -> Load:
        tokens, requests, context = part.T
        requests = np.minimum(requests, tokens)
        own = tokens / requests
        before = np.maximum(context - own / 2.0, 0.0)
        drafts = 1 if pool.pieces.draft else 0
        half = np.minimum(own / 2.0, context)
        return Load("prefill", tokens, requests, context, before + own, requests * before, requests, 0.0, drafts, half)

    values = _seconds(state, "prefill", load, points).reshape(len(first), len(second), len(third))
    planes = tuple(Table2(second, third, tuple(tuple(row) for row in plane)) for plane in values.tolist())
    return Table3(first, planes)


def _handing(pool: PoolContext, shapes: Shapes, longest: float) -> Callable[[float], float]:
    levels, distance = pool.rates.levels, 0.0
    if levels:
        distance = float(2**53) if np.isinf(levels[-1].devices) else levels[-1].devices - 1.0
    grid = contexts(longest)
    values = tuple((float(handoff_seconds(pool.pieces, tokens, shapes, levels, distance)[0]),) for tokens in grid)
    table = Table2(grid, (0.0,), values)
    return lambda tokens: table(tokens, 0.0)


def timing_of(state: PoolState, longest: float, at_once: int) -> Timing:
    """The tables of a pool. ``longest``: tokens of context that they must reach; ``at_once``: requests of a prefill pass."""
    longest = min(longest, LONGEST)
    phases, row = state.decision.phases, state.decision.row()
    return Timing(
        _stepping(state, longest) if "decode" in phases else None,
        _filling(state, longest, at_once) if "prefill" in phases else None,
        _handing(state.pool, row.shapes, longest) if state.decision.phase == "decode" else None,
    )
