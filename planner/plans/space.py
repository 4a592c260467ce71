"""The declared space: every axis with its values, the named rules, and how many configurations pass them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.errors import InputError
from planner.footprint import Shapes
from planner.footprint.shapes import widths
from planner.plans.constraints import kept, limits, on_axis, shape_filter
from planner.plans.context import Context, PoolContext

TENSOR = (1, 2, 4, 8, 16, 32)
PIPELINE = (1, 2, 4, 8)
MOST_UNITS, MOST_SPLITS = 1000, 600_000
"""Purchasable units of one kind of hardware, and splits into prefill and decode, that one plan covers."""


@dataclass(frozen=True)
class PoolSpace:
    """Instance shapes of one pool by pipeline depth, and what each rule turned away.

    ``least_batch`` to ``batches``: per rank and micro-batch, every integer between is in the space; ``chunks``: prefill tokens a
    pass and rank; ``least_units`` to ``units``: purchasable units that may be used.
    """

    shapes: tuple[Shapes, ...]
    rejected: dict[str, int]
    batches: int
    chunks: tuple[int, ...]
    units: int
    devices: int
    least_batch: int = 1
    least_units: int = 1

    @property
    def shape_count(self) -> int:
        """Shapes that pass every rule."""
        return sum(len(s.tp) for s in self.shapes)


def pool_space(pool: PoolContext, phase: str | None = None) -> PoolSpace:
    """Enumerate instance shapes, of one side of a disaggregated deployment if ``phase`` says so.

    A shape is turned away by the first rule it breaks:

    - ``devices``: the instance has more devices than the pool may use;
    - ``divisibility``: ``tp`` divides every tensor axis or is a multiple of it, stages have a layer each, experts are
      spread over all ranks or over the attention groups, not over more ranks than there are experts, and attention data
      parallelism without routed experts is left to replicas;
    - ``topology``: an instance is whole nodes or an equal part of one, and ``tp`` stays inside one scale-up domain;
    - ``runtime``: the runtime cannot spread a model that way (counted only where there are such shapes).

    Pins and bans then turn away shapes by their own names. Where the runtime can, every shape also comes with each
    context parallelism that divides what ``tp`` would copy of a cache.
    """
    system, options, pieces = pool.system, pool.inputs.options, pool.pieces
    units = affordable_units(pool)
    devices = units * pool.unit_devices
    if options.devices is not None:
        devices = min(devices, options.devices)
    node = system.devices_per_node
    inner = max((level.devices for level in pool.rates.levels if math.isfinite(level.devices)), default=1.0)
    reach = max((level.devices for level in pool.rates.levels), default=1.0)
    blocks = [b for w in (*pieces.windows, *pieces.draft) for b in w.blocks]
    axes = {g.tensor_axis for b in blocks for g in b.gemms} | {c.tensor_axis for b in blocks for c in b.caches}
    axes |= {table.tensor_axis for b in blocks for table in b.lookups}
    routed = [b.routed for b in blocks if b.routed]
    axes |= {item.tensor_axis for item in routed}
    experts = min((item.experts for item in routed), default=0)
    rejected = dict.fromkeys(("devices", "divisibility", "topology"), 0)
    cached = {c.tensor_axis for b in blocks for c in b.caches} if pool.inputs.runtime.context_parallel else set()
    rows: dict[int, list[tuple[int, int, int, int]]] = {pp: [] for pp in PIPELINE}
    sizes = widths(max(devices, 1))
    ways = set(pool.inputs.runtime.parallel)
    for pp in PIPELINE:
        for width in sizes:
            for tp in TENSOR:
                if width % tp:
                    continue
                dp = width // tp
                for ep in sorted({width, dp} if routed else {1}):
                    if width * pp > devices:
                        rejected["devices"] += 1
                    elif not _divides(tp, dp, ep, pp, width, axes, experts, pieces.layers, bool(routed)):
                        rejected["divisibility"] += 1
                    elif not _fits_topology(width * pp, width, tp, node, inner, reach):
                        rejected["topology"] += 1
                    elif not ways.issuperset(_ways(tp, dp, ep, pp)):
                        rejected["runtime"] = rejected.get("runtime", 0) + 1
                    else:
                        rows[pp] += [(tp, dp, ep, cp) for cp in _context_ways(tp, cached)]
    shapes = []
    for pp in PIPELINE:
        if rows[pp]:
            columns = np.array(rows[pp], dtype=float)
            found = Shapes(columns[:, 0], columns[:, 1], columns[:, 2], pp, columns[:, 3])
            good = np.ones(len(found.tp), dtype=bool)
            for name, keeps in shape_filter(options.constraints, found, phase):
                rejected[name] = rejected.get(name, 0) + int(np.sum(good & ~keeps))
                good &= keeps
            if good.any():
                shapes.append(found.take(np.flatnonzero(good)))
    most = pool.inputs.runtime.max_sequences_per_rank
    if options.concurrency is not None and not pool.selection.auto:
        most = min(most, options.concurrency)
    least_batch, batches = limits(options.constraints, "batch_per_rank", 1, most, phase)
    least_units, units = limits(options.constraints, "units", 1, units)
    chunks = tuple(kept(options.constraints, "prefill_tokens_per_rank", sorted(pool.inputs.runtime.prefill_tokens), phase))
    return PoolSpace(tuple(shapes), rejected, batches, chunks, units, devices, least_batch, least_units)


def _ways(tp: int, dp: int, ep: int, pp: int) -> set[str]:
    """The parallelisms that a shape has."""
    return {name for name, size in (("tensor", tp), ("pipeline", pp), ("expert", ep), ("attention_data", dp)) if size > 1}


def _context_ways(tp: int, axes: set[int]) -> list[int]:
    """Powers of two up to the copies that ``tp`` devices would make of every cache split over these axes."""
    copies = min((tp // min(tp, axis) for axis in axes), default=1)
    return [2**n for n in range(copies.bit_length())]


def affordable_units(pool: PoolContext) -> int:
    """Purchasable units within the money, power and device caps (0 where they allow none)."""
    options = pool.inputs.options
    units = pool.units
    if options.devices is not None:
        units = min(units, math.ceil(options.devices / pool.unit_devices))
    if options.max_usd_per_hour is not None:
        units = min(units, int(options.max_usd_per_hour / pool.usd_per_unit_hour + 1e-12))
    if options.max_power_kw is not None:
        units = min(units, int(options.max_power_kw * 1e3 / pool.watts_per_unit + 1e-12))
    return max(units, 0)


def _divides(tp: int, dp: int, ep: int, pp: int, width: int, axes: set[int], experts: int, layers: int, routed: bool) -> bool:
    if any(axis % tp and tp % axis for axis in axes if axis > 1) or pp > layers:
        return False
    if not routed:
        return dp == 1
    if ep > experts:
        return False
    moe_tp = width // ep
    return not any(axis % moe_tp for axis in axes if axis > 1 and moe_tp > axis)


def _fits_topology(instance: int, width: int, tp: int, node: int, inner: float, reach: float) -> bool:
    if tp > inner or instance > reach:
        return False
    return node % instance == 0 if instance <= node else instance % node == 0 and (width % node == 0 or node % width == 0)


@dataclass(frozen=True)
class Space:
    """The whole space: aggregated serving, disaggregated serving, or both."""

    pools: dict[str, PoolSpace]
    aggregated: bool
    disaggregated: bool
    splits: tuple[tuple[int, int, int, int], ...]
    """``(prefill devices, decode devices, prefill units, decode units)``; in a shared system the third counts the units of both
    together and the fourth is 0."""


def declare_space(context: Context) -> Space:
    """The space that certificates speak of.

    Hardware that the planner counts, without a demand to count it for, is only asked whether anything serves at all: then the
    splits of all units stand for those of fewer.
    """
    runtime = context.inputs.runtime
    for pool in context.pools.values():
        if affordable_units(pool) > MOST_UNITS:
            raise _too_large()
    constraints = context.inputs.options.constraints
    sided = any(rule.axis and rule.axis[0] for rule in constraints)
    phases = [*context.pools, *(("prefill", "decode") if sided and not context.separate else ())]
    pools = {phase: pool_space(context.pool(phase), None if phase == "mixed" else phase) for phase in phases}
    serving = kept(constraints, "serving", ("aggregated", "disaggregated"))
    splits: list[tuple[int, int, int, int]] = []
    options = context.inputs.options
    capped = context.separate and (options.max_usd_per_hour, options.max_power_kw) != (None, None)
    uncounted = context.auto and context.demand is None and not capped
    if runtime.disaggregated and "disaggregated" in serving:
        if context.separate:
            first, second = context.pools["prefill"], context.pools["decode"]
            if pools["prefill"].units * pools["decode"].units > MOST_SPLITS:
                raise _too_large()
            splits = [
                (
                    min(p * first.unit_devices, pools["prefill"].devices) - first.spare_devices,
                    min(d * second.unit_devices, pools["decode"].devices) - second.spare_devices,
                    p,
                    d,
                )
                for p in range(pools["prefill"].units if uncounted else pools["prefill"].least_units, pools["prefill"].units + 1)
                for d in range(pools["decode"].units if uncounted else pools["decode"].least_units, pools["decode"].units + 1)
                if min(p * first.unit_devices, pools["prefill"].devices) > first.spare_devices
                if min(d * second.unit_devices, pools["decode"].devices) > second.spare_devices
                if _within_caps(first, second, p, d)
            ]
        else:
            pool, space = context.pools["mixed"], pools["mixed"]
            for units in range(space.units if uncounted else space.least_units, space.units + 1):
                total = min(units * pool.unit_devices, space.devices) - pool.spare_devices
                if total < 2:
                    continue
                grain = split_grain(total, pool.system.devices_per_node)
                splits += [(p, total - p, units, 0) for p in range(grain, total, grain)]
                if len(splits) > MOST_SPLITS:
                    raise _too_large()
    devices = [list(on_axis(constraints, "devices", side)) for side in ("prefill", "decode")]
    splits = [split for split in splits if all(bool(rule.keeps(split[i])) for i in (0, 1) for rule in devices[i])]
    sides = any(rule.sort == "pin" and rule.axis and rule.axis[0] for rule in constraints)
    aggregated = runtime.aggregated and not context.separate and "aggregated" in serving and not sides
    return Space(pools, aggregated, runtime.disaggregated and bool(splits), tuple(splits))


def _within_caps(first: PoolContext, second: PoolContext, p: int, d: int) -> bool:
    """Whether money and power allow so many units of both kinds of hardware together."""
    options = first.inputs.options
    usd, kw = options.max_usd_per_hour, options.max_power_kw
    spent = p * first.usd_per_unit_hour + d * second.usd_per_unit_hour
    drawn = (p * first.watts_per_unit + d * second.watts_per_unit) / 1e3
    return (usd is None or spent <= usd * (1 + 1e-12)) and (kw is None or drawn <= kw * (1 + 1e-12))


def _too_large() -> InputError:
    return InputError(
        f"is too much for one plan: at most {MOST_UNITS} purchasable units and {MOST_SPLITS} splits into prefill and decode",
        where="hardware",
        mend="plan a part of it, or give --devices",
    )


def split_grain(total: int, node: int) -> int:
    """Devices by which the prefill share moves: single devices up to 64, whole nodes beyond 512, half nodes between."""
    if total <= 64:
        return 1
    return node if total > 512 else max(node // 2, 1)


def configuration_count(space: Space) -> dict[str, int]:
    """Configurations in the space, by kind of serving; every integer batch counts."""
    aggregated = disaggregated = 0
    if space.aggregated:
        pool = space.pools["mixed"]
        batches, units = max(pool.batches - pool.least_batch + 1, 0), max(pool.units - pool.least_units + 1, 0)
        aggregated = pool.shape_count * len(pool.chunks) * batches * units
    if space.disaggregated:
        prefill = space.pools.get("prefill") or space.pools["mixed"]
        decode = space.pools.get("decode") or space.pools["mixed"]
        batches = max(decode.batches - decode.least_batch + 1, 0)
        disaggregated = len(space.splits) * prefill.shape_count * len(prefill.chunks) * decode.shape_count * batches
    return {"aggregated": aggregated, "disaggregated": disaggregated}
