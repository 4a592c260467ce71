"""Columns of candidates for one pool: which batches fit, and what every shape serves at every batch of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from planner.footprint import Shapes
from planner.footprint.shapes import Column
from planner.performance import mixed_serving, prefill_queue, split_serving
from planner.performance.serving import Mixed
from planner.plans.context import Context, PoolContext
from planner.plans.decode_times import DecodeTimes, decode_times
from planner.plans.evaluate import (
    Candidates,
    decode_pass,
    largest_fitting_batch,
    memory_need,
    overflow_seconds,
    prefill_pass,
    prefill_seconds,
    prefix_most,
)
from planner.plans.operate import busy_limit, handoff_time
from planner.plans.space import PoolSpace

GRID_RATIO = 1.15


def batch_grid(limit: int) -> list[int]:
    """Geometric integers from 1 to ``limit``; cells between neighbours are bounded, then opened where they matter."""
    grid, value = [1], 1.0
    while grid[-1] < limit:
        value *= GRID_RATIO
        if int(value) > grid[-1]:
            grid.append(min(int(value), limit))
    return grid


@dataclass(frozen=True)
class Cells:
    """Runs of batches ``low..high`` of row ``row`` of a group; ``fits`` where the whole run lies in device memory."""

    row: np.ndarray
    low: Column
    high: Column
    fits: np.ndarray

    def take(self, index: np.ndarray) -> Cells:
        """The cells of ``index``."""
        return Cells(self.row[index], self.low[index], self.high[index], self.fits[index])


def make_cells(fitting: Column, least: int, limit: int, overflow: bool, most: Column | None = None) -> Cells:
    """Grid cells of every row, cut where the batch stops fitting; beyond it only if other memories may hold the rest.

    ``least`` and ``limit``: the batches of the space; ``most``: the largest batch of each row that can serve at all.
    """
    grid = [least, *(batch for batch in batch_grid(limit) if batch > least)]
    low = np.array(grid, dtype=float)
    high = np.array([*(g - 1 for g in grid[1:]), limit], dtype=float)
    rows, lows, highs, fits = [], [], [], []
    top = high
    for number, fit in enumerate(fitting):
        last = float(limit) if most is None else float(most[number])
        fit, high = min(fit, last), np.minimum(top, last)
        inside = low <= fit
        rows.append(np.full(int(inside.sum()), number))
        lows.append(low[inside])
        highs.append(np.minimum(high[inside], fit))
        fits.append(np.ones(int(inside.sum()), dtype=bool))
        if overflow:
            outside = (high > fit) & (low <= last)
            rows.append(np.full(int(outside.sum()), number))
            lows.append(np.maximum(low[outside], fit + 1.0))
            highs.append(high[outside])
            fits.append(np.zeros(int(outside.sum()), dtype=bool))
    if not rows:
        empty = np.zeros(0)
        return Cells(np.zeros(0, dtype=int), empty, empty, np.zeros(0, dtype=bool))
    return Cells(np.concatenate(rows).astype(int), np.concatenate(lows), np.concatenate(highs), np.concatenate(fits))


@dataclass
class MixedGroup:
    """Aggregated candidates of one pipeline depth: rows = shape x chunk."""

    pool: PoolContext
    shapes: Shapes
    chunk: Column
    prefill_s: Column
    cells: Cells
    times: DecodeTimes

    def step(self, row: np.ndarray, batch: Column) -> Column:
        """Decode steps with everything in device memory (s); the prefill pass does not change them."""
        return self.times.at(row % self.times.rows, batch)

    def serve(self, row: np.ndarray, batch: Column) -> Mixed:
        """Exact service of rows at batches that fit."""
        shapes = self.shapes.take(row)
        decode_s, most = self.step(row, batch), prefix_most(self.pool, Candidates(shapes, batch, self.chunk[row]))
        return mixed_serving(
            decode_s, self.prefill_s[row], batch, self.chunk[row], shapes, self.pool.inputs.workload, self.pool.accept, most
        )

    @cached_property
    def bounds(self) -> tuple[Column, Column, Column, Column]:
        """``(least TPOT, least TTFT, most requests/s of an instance, least concurrency)`` over each cell."""
        cells = self.cells
        shapes, chunk = self.shapes.take(cells.row), self.chunk[cells.row]
        decode_s = self.step(cells.row, cells.low)
        prefill_s = self.prefill_s[cells.row]
        outside = np.flatnonzero(~cells.fits)
        if len(outside):
            rows = Candidates(shapes.take(outside), cells.low[outside], chunk[outside])
            passes = {
                "decode": decode_pass(self.pool, rows.shapes, rows.batch),
                "prefill": prefill_pass(self.pool, rows.shapes, rows.chunk),
            }
            least = overflow_seconds(self.pool, rows, passes)
            decode_s = decode_s.copy()
            prefill_s = prefill_s.copy()
            decode_s[outside] = np.maximum(decode_s[outside], least["decode"])
            prefill_s[outside] = np.maximum(prefill_s[outside], least["prefill"])
        lost = ~np.isfinite(decode_s + prefill_s)
        decode_s, prefill_s = np.where(lost, 1.0, decode_s), np.where(lost, 1.0, prefill_s)
        tpot, ttft, rate, running = cell_bounds(self.pool, shapes, chunk, decode_s, prefill_s, cells.low, cells.high)
        return np.where(lost, np.inf, tpot), np.where(lost, np.inf, ttft), np.where(lost, 0.0, rate), running


def cell_bounds(
    pool: PoolContext, shapes: Shapes, chunk: Column, decode_s: Column, prefill_s: Column, low: Column, high: Column
) -> tuple[Column, Column, Column, Column]:
    """Bounds over a cell from the pass times at its lowest batch, since no pass gets faster as the batch grows.

    TPOT is least at the lowest batch. ``X = 1 / ((n-1) (pp D / (a B)) + s P)`` grows as D falls and B grows: it is at most
    its value at D of the lowest and B of the highest batch. TTFT is at least its part without a queue. A prefix cache has most
    room at the lowest batch.
    """
    workload, most = pool.inputs.workload, prefix_most(pool, Candidates(shapes, low, chunk))
    at_low = mixed_serving(decode_s, prefill_s, low, chunk, shapes, workload, pool.accept, most)
    at_high = mixed_serving(decode_s, prefill_s, high, chunk, shapes, workload, pool.accept, most)
    passes = np.maximum(np.ceil(workload.miss_tokens / chunk), 1.0)
    ttft = (passes + shapes.pp - 0.5) * (prefill_s + decode_s)
    return at_low.tpot_s, ttft, at_high.requests_per_s * (1.0 + 1e-9), low * shapes.dp * shapes.pp


def stable_batch(pool: PoolContext, chunk: Column) -> Column:
    """The largest batch at which an aggregated rank's prefill queue does not grow without end.

    Passes are busy a share ``rho = X m/(C dp) (P + D)`` with ``X = B/((n-1) tpot)`` and ``tpot = pp D/a + B m P/(C dp (n-1))``,
    B = b dp pp; ``rho < 1`` is ``b m a < C (n-1)``, whatever P, D and the placement.
    """
    workload = pool.inputs.workload
    edge = chunk * (workload.output_tokens.mean - 1.0) / (workload.miss_tokens * pool.accept)
    return np.ceil(edge * (1.0 - 1e-12)) - 1.0


def mixed_groups(pool: PoolContext, space: PoolSpace, times: list[DecodeTimes] | None = None) -> list[MixedGroup]:
    """All aggregated candidates; ``times`` as in ``decode_groups``."""
    groups = []
    for shapes, known in zip(space.shapes, times or decode_times(pool, space.shapes), strict=True):
        count = len(shapes.tp)
        index = np.tile(np.arange(count), len(space.chunks))
        chunk = np.repeat(np.array(space.chunks, dtype=float), count)
        rows = shapes.take(index)
        prefill_s = prefill_seconds(pool, rows, chunk)
        fitting = largest_fitting_batch(pool, rows, chunk, space.batches)
        cells = make_cells(fitting, space.least_batch, space.batches, bool(pool.tiers), stable_batch(pool, chunk))
        groups.append(MixedGroup(pool, rows, chunk, prefill_s, cells, known))
    return groups


@dataclass
class DecodeGroup:
    """Decode-only candidates of one pipeline depth: rows = shape."""

    pool: PoolContext
    shapes: Shapes
    handoff_s: Column
    cells: Cells
    times: DecodeTimes

    def serve(self, row: np.ndarray, batch: Column, seconds: Column | None = None) -> tuple[Column, Column]:
        """``(requests/s of an instance, TPOT with hand-off)`` of rows at batches, at pass times ``seconds`` if given."""
        shapes = self.shapes.take(row)
        decode_s = self.times.at(row, batch) if seconds is None else seconds
        side = split_serving(decode_s, batch, shapes, self.pool.inputs.workload, self.pool.accept)
        rounds = self.pool.inputs.workload.output_tokens.mean - 1.0
        return side.requests_per_s, side.seconds + self.handoff_s[row] / rounds

    @cached_property
    def bounds(self) -> tuple[Column, Column]:
        """``(most requests/s, least TPOT)`` over each cell."""
        cells = self.cells
        shapes = self.shapes.take(cells.row)
        decode_s = self.times.at(cells.row, cells.low)
        outside = np.flatnonzero(~cells.fits)
        if len(outside):
            rows = Candidates(shapes.take(outside), cells.low[outside], np.zeros(len(outside)))
            least = overflow_seconds(self.pool, rows, {"decode": decode_pass(self.pool, rows.shapes, rows.batch)})
            decode_s = decode_s.copy()
            decode_s[outside] = np.maximum(decode_s[outside], least["decode"])
        rate, _ = self.serve(cells.row, cells.high, decode_s)
        _, tpot = self.serve(cells.row, cells.low, decode_s)
        return rate * (1.0 + 1e-9), tpot


def decode_groups(
    pool: PoolContext, space: PoolSpace, handoff: list[Column], times: list[DecodeTimes] | None = None
) -> list[DecodeGroup]:
    """All decode-only candidates; ``handoff`` per group of shapes, ``times``: steps known already, or shared with others."""
    groups = []
    for shapes, moved, known in zip(space.shapes, handoff, times or decode_times(pool, space.shapes), strict=True):
        fitting = largest_fitting_batch(pool, shapes, np.zeros_like(shapes.tp), space.batches)
        groups.append(
            DecodeGroup(pool, shapes, moved, make_cells(fitting, space.least_batch, space.batches, bool(pool.tiers)), known)
        )
    return groups


@dataclass
class PrefillRows:
    """Prefill-only candidates of one pipeline depth: rows = shape x chunk; ``rate`` at the busiest allowed use."""

    pool: PoolContext
    shapes: Shapes
    chunk: Column
    fits: np.ndarray
    seconds: Column
    least_seconds: Column

    def serve(self, row: np.ndarray, seconds: Column) -> tuple[Column, Column]:
        """``(requests/s of an instance at the busiest use the TTFT limit allows, seconds through the pipeline)``."""
        workload, shapes, lost = self.pool.inputs.workload, self.shapes.take(row), ~np.isfinite(seconds)
        capacity, service, through = prefill_queue(np.where(lost, 1.0, seconds), self.chunk[row], shapes, workload)
        rate = np.where(lost, 0.0, capacity * busy_limit(workload.ttft_s, through, service))
        through = np.where(lost, np.inf, through)
        most = prefix_most(self.pool, Candidates(shapes, np.zeros(len(row)), self.chunk[row]))
        return rate if most is None else np.minimum(rate, most * shapes.dp), through


def prefill_rows(pool: PoolContext, space: PoolSpace) -> list[PrefillRows]:
    """All prefill-only candidates."""
    found = []
    for shapes in space.shapes:
        count = len(shapes.tp)
        index = np.tile(np.arange(count), len(space.chunks))
        chunk = np.repeat(np.array(space.chunks, dtype=float), count)
        rows = Candidates(shapes.take(index), np.zeros(len(index)), chunk)
        seconds = prefill_seconds(pool, rows.shapes, chunk)
        fits = (memory_need(pool, rows).short <= 0.0) & (not pool.displaced) & (pool.prefix is None or not pool.tiers)
        least = seconds
        if pool.tiers and not fits.all():
            moved = overflow_seconds(pool, rows, {"prefill": prefill_pass(pool, rows.shapes, chunk)})["prefill"]
            least = np.maximum(seconds, moved)
        found.append(PrefillRows(pool, rows.shapes, chunk, fits, seconds, least))
    return found


def handoff_columns(context: Context, space: PoolSpace) -> list[Column]:
    """Hand-off seconds per group of shapes."""
    return [handoff_time(context.pool("decode"), shapes) for shapes in space.shapes]
