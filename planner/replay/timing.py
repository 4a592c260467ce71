"""Seconds of a pass of a pool at any load, from the plan's own model of a pass: worked out on a grid, then between its points.

A decode step is a table over the batch of a rank and the mean context of its sequences; a prefill pass one over new tokens,
requests they belong to, and the mean tokens that a new one attends to.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.footprint import Shapes
from planner.plans.context import PoolContext
from planner.plans.operate import handoff_time
from planner.plans.pass_seconds import fill_seconds, step_seconds
from planner.plans.states import PoolState

LONGEST = 1_048_576
"""Tokens of context up to which tables reach; beyond, the last two points go on in a line."""
LEAST_CONTEXT = 16.0
PLACED_BATCHES, PLACED_CONTEXTS = 12, 8

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
    """Tokens of context, doubling from ``LEAST_CONTEXT`` up to ``most``."""
    top = max(most, 256.0)
    if points is not None:
        return tuple(float(x) for x in np.unique(np.round(np.geomspace(LEAST_CONTEXT, top, points))))
    doubled = LEAST_CONTEXT * 2.0 ** np.arange(0, math.ceil(math.log2(top / LEAST_CONTEXT)))
    return tuple(float(x) for x in np.unique(np.append(doubled, top)))


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


def _stepping(state: PoolState, longest: float) -> Callable[[float, float], float]:
    pool, decision = state.pool, state.decision
    few = None if state.resident else PLACED_BATCHES
    first = batches(decision.batch, pool.rates.buckets, few)
    second = _with(contexts(longest, None if state.resident else PLACED_CONTEXTS), pool.inputs.workload.resident_tokens)
    points = np.array([(b, c) for b in first for c in second])
    values = step_seconds(state, *points.T).reshape(len(first), len(second))
    return Table2(first, second, tuple(tuple(row) for row in values.tolist()))


def _filling(state: PoolState, longest: float, at_once: int) -> Callable[[float, float, float], float]:
    chunk, dense, workload = state.decision.chunk, state.resident, state.pool.inputs.workload
    passes = max(math.ceil(workload.miss_tokens / chunk), 1)
    usual = chunk * passes / workload.miss_tokens, workload.hit_tokens + workload.miss_tokens / 2.0
    first = _fills(chunk, 1.2 if dense else 2.0)
    second = _with(_requests(min(at_once, chunk), 2.0 if dense else 4.0), usual[0])
    third = _with((1.0, *contexts(longest, None if dense else 4)), usual[1])
    points = np.array([(t, r, context) for t in first for r in second for context in third])
    values = fill_seconds(state, *points.T).reshape(len(first), len(second), len(third))
    planes = tuple(Table2(second, third, tuple(tuple(row) for row in plane)) for plane in values.tolist())
    return Table3(first, planes)


def _handing(pool: PoolContext, shapes: Shapes, longest: float) -> Callable[[float], float]:
    grid = contexts(longest)
    table = Table2(grid, (0.0,), tuple((float(handoff_time(pool, shapes, tokens)[0]),) for tokens in grid))
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
