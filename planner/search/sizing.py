"""Sizing for a demand: how many systems ``NAME:auto`` stands for, and the fastest deployment among the cheapest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from planner.errors import InputError
from planner.footprint import Shapes
from planner.plans.inputs import Inputs, build_context
from planner.plans.space import MOST_UNITS, declare_space
from planner.reporter import Reporter
from planner.search.find import Found, search_all
from planner.search.maps import Maps, mapped
from planner.search.tables import Stop, Tables, build_tables


def tables_of(inputs: Inputs, maps: Maps | None = None) -> list[Tables]:
    """Prepared tables of every variant; ``maps``: of experts, known already."""
    every = []
    for variant in inputs.options.variants:
        context = mapped(build_context(inputs, variant), maps or {})
        every.append(build_tables(context, declare_space(context)))
    return every


def carried(every: list[Tables]) -> float:
    """Requests/s that no deployment on all of this hardware exceeds: each device serves its share of the best instance's bound.

    With r_p and r_d requests/s a device, N devices split between prefill and decode serve at most ``N r_p r_d / (r_p + r_d)``.
    """

    def each(rates: Iterable[tuple[Shapes, np.ndarray]]) -> float:
        return max((float(np.max(rate / shapes.devices, initial=0.0)) for shapes, rate in rates), default=0.0)

    most = 0.0
    for tables in every:
        devices = {phase: pool.selection.devices for phase, pool in tables.context.pools.items()}
        mixed = each((group.shapes.take(group.cells.row), group.bounds[2]) for group in tables.mixed)
        most = max(most, mixed * devices.get("mixed", 0))
        decode = each((group.shapes.take(group.cells.row), group.bounds[0]) for group in tables.decode)
        prefill = each(
            (group.shapes, group.serve(np.arange(len(group.chunk)), group.least_seconds)[0]) for group in tables.prefill
        )
        if prefill and decode and "mixed" in devices:
            most = max(most, devices["mixed"] * prefill * decode / (prefill + decode))
        elif prefill and decode:
            most = max(most, min(devices["prefill"] * prefill, devices["decode"] * decode))
    return most * (1 + 1e-9)


def sized(inputs: Inputs, reporter: Reporter, stop: Stop) -> tuple[Inputs, list[Tables], Found | None]:
    """The inputs with as many systems in place of ``auto`` as the cheapest deployment may need, their tables, and what was found.

    Counts grow until the demand is met and one more system than that would alone cost more than what was found: then no larger
    count holds anything cheaper. A count whose devices cannot carry the demand is not searched; how far it falls short says
    how many times as many come next (a power of two up to 16, and a quarter of it, since larger instances may do better).
    """
    auto = [phase for phase, selection in inputs.hardware.items() if selection.auto]
    if not auto:
        return inputs, tables_of(inputs), None
    demand = build_context(inputs).demand
    if demand is None:
        raise InputError(
            "auto needs a demand to size for",
            where="hardware",
            mend="give --rate, --tokens-per-day, or --concurrency with --ttft and --tpot",
        )
    count = 1
    while True:
        hardware = {phase: s.model_copy(update={"count": count}) if phase in auto else s for phase, s in inputs.hardware.items()}
        trial = inputs.model_copy(update={"hardware": hardware})
        every = tables_of(trial)
        context = every[0].context
        most, found, factor = carried(every), None, 2
        if most >= demand:
            found = search_all(every, trial.options.objective, trial.workload.tpot_s, reporter, stop)
            spent = sum(
                n * pool.usd_per_unit_hour
                for n, pool in zip(found.decision.units if found.decision else (), context.pools.values(), strict=False)
            )
            enough = found.decision and all(count * context.pools[phase].usd_per_hour >= spent for phase in auto)
            if found.stopped or enough:
                return trial, every, found
        elif most > 0.0:
            factor = 2 ** int(np.clip(np.log2(demand / most / 4.0), 1, 4))
        units = max(context.pools[phase].system.devices // context.pools[phase].unit_devices for phase in auto)
        while factor * count * units > MOST_UNITS:
            factor //= 2
        if factor < 2:
            return trial, every, found
        count *= factor


def fastest(every: list[Tables], found: Found, reporter: Reporter, stop: Stop) -> Found:
    """Where a demand is met at least cost, the deployment of least TPOT on no more units than that."""
    assert found.decision is not None
    limited = []
    for tables in every:
        context, space = tables.context, tables.space
        pools = dict(space.pools)
        for phase, units in zip(context.pools, found.decision.units, strict=True):
            pools[phase] = replace(space.pools[phase], units=units)
        most = (found.decision.units[0], found.decision.units[-1] if context.separate else 0)
        splits = tuple(split for split in space.splits if split[2] <= most[0] and split[3] <= most[1])
        smaller = replace(space, pools=pools, splits=splits, disaggregated=space.disaggregated and bool(splits))
        limited.append(replace(tables, space=smaller))
    inputs = every[0].context.inputs
    quick = search_all(limited, "latency", inputs.workload.tpot_s, reporter, stop)
    return found if quick.decision is None else replace(found, decision=quick.decision)
