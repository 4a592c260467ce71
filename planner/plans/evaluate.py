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
from planner.footprint.pieces import cache_parts
from planner.footprint.shapes import Column
from planner.performance import PassTimes, decode_load, pass_times, prefill_load
from planner.performance.load import prefill_passes
from planner.performance.rates import TierRate
from planner.plans.context import PoolContext
from planner.plans.prefix import rate_within

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
    stage: NDArray[np.intp]
    """The fullest stage, as a row of ``ModelPieces.stage_table``."""

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
    return Need(weights[stage, pick], caches[stage, pick], reserve, pool.rates.memory_bytes, stage)


def largest_fitting_batch(pool: PoolContext, shapes: Shapes, chunk: Column, limit: int) -> Column:
    """Largest batch (0 if none) with everything in device memory; the need grows with the batch, so bisection finds it."""
    if pool.displaced or (pool.prefix is not None and pool.tiers and np.any(chunk > 0.0)):  # then all are placed
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


def prefix_most(pool: PoolContext, rows: Candidates) -> Column | None:
    """Requests/s of a rank whose prefix cache fits into all its memories together; no placement serves more (``None``: it has no
    prefix cache). Tables, of which devices may share a copy, count as if they took nothing."""
    if pool.prefix is None or not np.any(rows.chunk > 0.0):
        return None
    workload, runtime = pool.inputs.workload, pool.inputs.runtime
    room = pool.rates.memory_bytes - sum(reserved_bytes(pool, rows).values(), np.zeros_like(rows.batch))
    if pool.tiers:
        room = room + table_need(pool, rows) + sum(tier.capacity for tier in allowed_tiers(pool))
    sequences = admitted_sequences(pool, rows)
    return rate_within(pool.prefix, pool.pieces, rows.shapes, sequences, workload.reserved_tokens, runtime.page_tokens, room)


def allowed_tiers(pool: PoolContext) -> list[TierRate]:
    """The memories below a device that may be used, host memory first, then disks."""
    return [tier for tier in pool.rates.tiers if tier.id in pool.tiers]


def joint_bytes_per_s(pool: PoolContext, beyond: int = 0) -> float:
    """No placement draws more than this from the memories below a device, the fastest ``beyond`` left out (bytes/s): the sum of
    their streams, and no more than what any part that all of them pass can carry."""
    tiers = allowed_tiers(pool)[beyond:]
    if not tiers:
        return 0.0
    shared = set.intersection(*({name for name, _ in t.resources} for t in tiers))
    limits = [max(rate for t in tiers for name, rate in t.resources if name == part) for part in sorted(shared)]
    return min([sum(t.bytes_per_s for t in tiers), *limits])


WEIGHTS_OF_EXPOSURE = (0.0, 0.3, 0.6, 0.85)
"""Multipliers tried in ``overflow_seconds``; each gives a bound."""

NO_PLACEMENT = 1e6
"""Factor on the bound of a pass whose items do not fit into all memories together, of which any bound holds."""

CROWDED = 1e-6
"""Share of device memory by which buffers must exceed it to rule out every placement: more than a solver lets pass."""


def overflow_seconds(pool: PoolContext, rows: Candidates, passes: dict[str, PassTimes]) -> dict[str, Column]:
    """Least time per phase that moving what overflows takes, whatever the placement (s on the fullest stage).

    What does not fit must lie below device memory. Of each item a pass then streams all that a layer may need over the paths
    there, all at once, which takes at least G seconds in all, or fetches what it turns out to need, which takes of G and also
    adds to the pass: it takes at least the pass F0 with everything in device memory and the exposed fetches F. So for any weight
    ``w`` in 0..1 the pass takes at least ``w (F0 + F) + (1 - w) G``, which for the items that overflow is a fractional knapsack:
    those that cost least per byte held, by the cheaper of both ways, go first. Buffers, the barrier between layers, other
    windows that read a cache, what is written (a link may carry it the other way at no cost to reads) and what networks of the
    same contention group carry only add to it. Tables count as not read, whatever rows are popular.

    The same holds of what fits neither into device memory nor into the faster of the other memories, at the rates of the rest;
    of tables, of which devices may share a copy, that may be nothing. Where not even the buffers fit, nothing does: an item of n
    layers of a stage takes room for what min(n, 2) of its layers need in a pass, wherever it lies.
    """
    tiers = allowed_tiers(pool)
    need = memory_need(pool, rows)
    over = need.short
    if not tiers:
        return {phase: np.where(over > 0.0, np.inf, 0.0) for phase in passes}
    shared = table_need(pool, rows)
    result: dict[str, Column] = {}
    for phase, times in passes.items():
        held, needed, whole, buffers = _movable(pool, rows, times, need.stage)
        resident = np.stack(times.stage_times())[need.stage, np.arange(len(over))]
        least = np.zeros_like(rows.batch)
        for faster in range(len(tiers)):
            room = sum(tier.capacity for tier in tiers[:faster])
            short = np.maximum(over - (room + shared if faster else 0.0), 0.0)
            if not np.any(short > 0.0):
                break
            together, exposed = joint_bytes_per_s(pool, faster), max(tier.bytes_per_s for tier in tiers[faster:])
            for weight in WEIGHTS_OF_EXPOSURE:
                by_need = needed * (weight / exposed + (1.0 - weight) / together)
                cost = np.minimum(by_need, whole * ((1.0 - weight) / together))
                moved = weight * resident + _cheapest(held, cost, short)
                least = np.where(short > 0.0, np.maximum(least, moved), least)
        least = least * pool.rates.residual * (1.0 - 1e-9)
        beyond = over - shared - sum(tier.capacity for tier in tiers)
        least = np.where(beyond > 1.0, least * NO_PLACEMENT, least)
        crowded = need.reserve + np.sum(buffers, axis=0) > need.usable * (1.0 + CROWDED)
        result[phase] = np.where(crowded & (over > 0.0), np.inf, least)
    return result


def _cheapest(held: Column, cost: Column, short: Column) -> Column:
    """Least cost of items [N, n] that together hold ``short`` [n], each in part or whole."""
    density = cost / np.maximum(held, 1.0)
    order = np.argsort(density, axis=0, kind="stable")
    size, density = np.take_along_axis(held, order, axis=0), np.take_along_axis(density, order, axis=0)
    before = np.cumsum(size, axis=0) - size
    return np.asarray(np.sum(np.clip(short - before, 0.0, size) * density, axis=0))


def table_need(pool: PoolContext, rows: Candidates) -> Column:
    """Bytes of all tables of the model on a device, if one stage held them all."""
    total = np.zeros_like(rows.batch)
    for window in (*pool.pieces.windows, *pool.pieces.draft):
        for block in window.blocks:
            for table in block.lookups:
                total = total + window.layers * table_bytes(table, rows.shapes)
    return total


def _movable(
    pool: PoolContext, rows: Candidates, times: PassTimes, stage: NDArray[np.intp]
) -> tuple[Column, Column, Column, Column]:
    """``(bytes held, bytes that a pass needs to read, bytes that it reads if it streams)`` of every item on a stage; where both
    are moved alike, a pass need not wait to know what it needs."""
    workload, runtime = pool.inputs.workload, pool.inputs.runtime
    sequences = admitted_sequences(pool, rows)
    zeros = np.zeros_like(rows.batch)
    layers = [(*row, *(0 for _ in pool.pieces.draft)) for row in pool.pieces.stage_table(rows.shapes.pp)]
    layers[-1] = (*layers[-1][: len(pool.pieces.windows)], *(w.layers for w in pool.pieces.draft))
    count, repeat = np.array(layers, dtype=float)[stage], np.array(times.repeats)[stage]
    found: list[tuple[Column, Column, Column, Column]] = []

    def add(number: int, held: Column, needed: Column, whole: Column) -> None:
        runs = np.minimum(count[:, number], repeat[:, number])
        needed = np.minimum(needed, held)
        found.append((held * count[:, number], needed * runs, np.minimum(whole, held) * runs, needed * np.minimum(runs, 2.0)))

    for number, window in enumerate((*pool.pieces.windows, *pool.pieces.draft)):
        for index, block in enumerate(window.blocks):
            part = times.windows[number][index]
            static = static_bytes(block.static, rows.shapes)
            add(number, static, part.static_read, part.static_read)
            if block.routed:
                routed = routed_bytes(block.routed, rows.shapes)
                for size, share in zip(block.routed.class_sizes, part.routed_parts, strict=True):
                    held = routed * (size / block.routed.experts)
                    add(number, held, part.routed_read * share, held)
            for table in block.lookups:
                add(number, table_bytes(table, rows.shapes), zeros, zeros)
        for members in cache_parts(window).values():
            cache, needed, whole = zeros, zeros, zeros
            for index, place in members:
                entry = window.blocks[index].caches[place]
                size = cache_bytes_per_sequence(entry, workload.reserved_tokens, runtime.page_tokens)
                cache = cache + np.ceil(size / cache_ways(rows.shapes, entry.tensor_axis)) * sequences
                moves = times.windows[number][index].cache_moves(place)
                needed, whole = needed + (moves.needed - moves.written), whole + (moves.whole - moves.written)
            add(number, cache, needed, whole)
    held, needed, whole, buffers = (np.stack(column) for column in zip(*found, strict=True))
    return held, needed, whole, buffers
