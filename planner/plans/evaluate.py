"""Candidates in columns: pass times, memory and service of many shapes at once, and bounds that hold whatever the placement.

Search prunes with these functions and ``verify --full`` repeats them; neither needs a solver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.footprint import Shapes, reserve_parts
from planner.footprint.memory import cache_bytes_per_sequence, cache_ways, residency, routed_bytes, static_bytes
from planner.footprint.memory import lookup_bytes as table_bytes
from planner.footprint.shapes import Column
from planner.performance import PassTimes, decode_load, pass_times, prefill_load
from planner.performance.passes import prefill_passes
from planner.plans.inputs import PoolContext

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """Rows: a shape with the batch per rank (0 where it does not decode) and the chunk (0 where it does not prefill)."""

    shapes: Shapes
    batch: Column
    chunk: Column

    def take(self, index: NDArray[np.intp] | slice) -> Candidates:
        """The rows of ``index``."""
        return Candidates(self.shapes.take(index), self.batch[index], self.chunk[index])


def decode_pass(pool: PoolContext, shapes: Shapes, batch: Column) -> PassTimes:
    """A decode step."""
    return pass_times(pool.pieces, shapes, pool.rates, decode_load(batch, pool.inputs.workload, pool.pieces, pool.rates))


def prefill_pass(pool: PoolContext, shapes: Shapes, chunk: Column) -> PassTimes:
    """A prefill pass."""
    return pass_times(pool.pieces, shapes, pool.rates, prefill_load(chunk, pool.inputs.workload, pool.pieces))


def decode_seconds(pool: PoolContext, shapes: Shapes, batch: Column) -> Column:
    """Decode step of the slowest stage, everything in device memory (s)."""
    return decode_pass(pool, shapes, batch).slowest_stage() * pool.rates.residual


def prefill_seconds(pool: PoolContext, shapes: Shapes, chunk: Column) -> Column:
    """Prefill pass of the slowest stage, everything in device memory (s)."""
    return prefill_pass(pool, shapes, chunk).slowest_stage() * pool.rates.residual


def admitted_sequences(pool: PoolContext, rows: Candidates) -> Column:
    """Sequences whose cache a rank reserves: all that decode there, and those being prefilled.

    A prefilling rank works on ``ceil(chunk / request)`` requests a stage; a prefill-only rank keeps one more, being
    handed over; an aggregated rank admits its next request beside the running ones.
    """
    workload = pool.inputs.workload
    decoding = rows.batch * rows.shapes.pp
    miss = workload.miss_tokens
    chunk = np.maximum(rows.chunk, 1.0)
    at_once = np.ceil(chunk / (miss / prefill_passes(chunk, workload)) - 1e-9)
    only_prefill = at_once * rows.shapes.pp + 1.0
    return np.where(rows.chunk == 0.0, decoding, np.where(rows.batch == 0.0, only_prefill, decoding + at_once))


def reserved_bytes(pool: PoolContext, rows: Candidates) -> dict[str, Column]:
    """Reserve per device by cause (bytes)."""
    tokens = np.maximum(rows.chunk, rows.batch * (1 + len(pool.pieces.acceptance)))
    routed = any(block.routed for window in pool.pieces.windows for block in window.blocks)
    return reserve_parts(pool.rates.reserve, pool.pieces.hidden_size, rows.shapes, tokens, pool.rates.memory_bytes, routed)


@dataclass(frozen=True)
class Need:
    """Device memory needed by the fullest stage if everything lay there (bytes), by part."""

    weights: Column
    caches: Column
    reserve: Column
    usable: float

    @property
    def short(self) -> Column:
        """Bytes by which the need exceeds the usable memory (negative: room left)."""
        return self.weights + self.caches + self.reserve - self.usable


def memory_need(pool: PoolContext, rows: Candidates) -> Need:
    """The stage with the largest sum of weights and caches decides."""
    workload, runtime = pool.inputs.workload, pool.inputs.runtime
    held = residency(pool.pieces, rows.shapes, workload.reserved_tokens, runtime.page_tokens)
    sequences = admitted_sequences(pool, rows)
    weights = np.stack(held.weights)
    caches = np.stack(held.caches) * sequences
    stage = np.argmax(weights + caches, axis=0)
    pick = np.arange(len(rows.batch))
    reserve = sum(reserved_bytes(pool, rows).values(), np.zeros_like(rows.batch))
    return Need(weights[stage, pick], caches[stage, pick], reserve, pool.rates.memory_bytes)


def largest_fitting_batch(pool: PoolContext, shapes: Shapes, chunk: Column, limit: int) -> Column:
    """Largest batch (0 if none) with everything in device memory; the need grows with the batch, so bisection finds it."""
    if pool.displaced:
        return np.zeros_like(shapes.tp)
    low, high = np.zeros_like(shapes.tp), np.full_like(shapes.tp, float(limit))

    def fits(batch: Column) -> Mask:
        return np.asarray(memory_need(pool, Candidates(shapes, batch, chunk)).short <= 0.0)

    all_fit = fits(high)
    low = np.where(all_fit, high, low)
    for _ in range(max(limit.bit_length(), 1)):
        middle = np.floor((low + high + 1.0) / 2.0)
        ok = fits(middle)
        low = np.where(ok, np.maximum(low, middle), low)
        high = np.where(ok, high, np.minimum(high, middle - 1.0))
        high = np.maximum(high, low)
    return low


def joint_bytes_per_s(pool: PoolContext) -> float:
    """No placement draws more than this from the memories below a device (bytes/s): the sum of their streams, and no more
    than what any part that all of them pass can carry."""
    tiers = [t for t in pool.rates.tiers if t.id in pool.tiers]
    if not tiers:
        return 0.0
    shared = set.intersection(*({name for name, _ in t.resources} for t in tiers))
    limits = [max(rate for t in tiers for name, rate in t.resources if name == part) for part in sorted(shared)]
    return min([sum(t.bytes_per_s for t in tiers), *limits])


def overflow_seconds(pool: PoolContext, rows: Candidates, passes: dict[str, PassTimes]) -> dict[str, Column]:
    """Least time per phase that moving what overflows takes, whatever the placement (s on the fullest stage).

    What does not fit must lie below device memory, and at every pass be read over the paths there, all at once. The items
    that are read least per byte held go first (fractional knapsack), so no placement moves less; buffers and the barrier
    between layers only add to it.
    """
    fastest = joint_bytes_per_s(pool)
    short = np.maximum(memory_need(pool, rows).short, 0.0)
    result: dict[str, Column] = {}
    zeros = np.zeros_like(rows.batch)
    if fastest == 0.0:
        return {phase: np.where(short > 0.0, np.inf, 0.0) for phase in passes}
    workload, runtime = pool.inputs.workload, pool.inputs.runtime
    sequences = admitted_sequences(pool, rows)
    counts = [list(stage) for stage in pool.pieces.stage_table(rows.shapes.pp)]
    most = [max(stage[i] for stage in counts) for i in range(len(pool.pieces.windows))] + [w.layers for w in pool.pieces.draft]
    for phase, times in passes.items():
        drafts = times.repeats[-1][len(pool.pieces.windows) :]
        runs = most[: len(pool.pieces.windows)] + [min(w.layers, n) for w, n in zip(pool.pieces.draft, drafts, strict=True)]
        held_rows: list[Column] = []
        read_rows: list[Column] = []
        for number, window in enumerate((*pool.pieces.windows, *pool.pieces.draft)):
            for index, block in enumerate(window.blocks):
                part = times.windows[number][index]
                static = static_bytes(block.static, rows.shapes)
                held_rows.append(static * most[number])
                read_rows.append(np.minimum(part.static_read, static) * runs[number])
                if block.routed:
                    routed = routed_bytes(block.routed, rows.shapes)
                    for size, share in zip(block.routed.class_sizes, part.routed_parts, strict=True):
                        held = routed * (size / block.routed.experts)
                        held_rows.append(held * most[number])
                        read_rows.append(np.minimum(part.routed_read * share, held) * runs[number])
                for table in block.lookups:
                    held_rows.append(table_bytes(table, rows.shapes) * most[number])
                    read_rows.append(zeros)
                cache = zeros
                for entry in block.caches:
                    size = cache_bytes_per_sequence(entry, workload.reserved_tokens, runtime.page_tokens)
                    cache = cache + np.ceil(size / cache_ways(rows.shapes, entry.tensor_axis)) * sequences
                held_rows.append(cache * most[number])
                read_rows.append(np.minimum(part.cache_read + part.cache_write, cache) * runs[number])
        held, read = np.stack(held_rows), np.stack(read_rows)
        density = read / np.maximum(held, 1.0)
        order = np.argsort(density, axis=0, kind="stable")
        held = np.take_along_axis(held, order, axis=0)
        density = np.take_along_axis(density, order, axis=0)
        before = np.cumsum(held, axis=0) - held
        moved = np.clip(short - before, 0.0, held)
        result[phase] = np.sum(moved * density, axis=0) / fastest * pool.rates.residual * (1.0 - 1e-9)
    return result
