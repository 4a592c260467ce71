"""Sizing for a demand: how many systems ``NAME:auto`` stands for, and the fastest deployment among the cheapest."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from planner.errors import InputError
from planner.footprint import Shapes
from planner.plans.context import Context, build_context
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs
from planner.plans.space import MOST_UNITS, declare_space
from planner.reporter import Reporter
from planner.search.find import Found, Search, search_all
from planner.search.maps import Maps, mapped
from planner.search.tables import LateError, Stop, Tables, build_tables


def tables_of(inputs: Inputs, maps: Maps | None = None, stop: Stop | None = None) -> list[Tables]:
    """Prepared tables of every variant; ``maps``: of experts, known already. ``LateError`` where ``stop`` ends it after the
    first variant."""
    every: list[Tables] = []
    for variant in inputs.variants:
        context = mapped(build_context(inputs, variant), maps or {})
        try:
            every.append(build_tables(context, declare_space(context), stop if every else None))
        except LateError as error:
            error.every = every
            raise
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
    """The inputs with as many systems in place of ``auto`` as needed, their tables, and what was found (see ``counted``).

    Where the time is up before the tables of some variant are built, the best of the others, whose bound says nothing.
    """

    def search(trial: Inputs, every: list[list[Tables]]) -> Found:
        return search_all(every[0], trial.options.objective, trial.workload.tpot_s, reporter, stop)

    try:
        trial, every, found = counted(inputs, lambda trial: [trial], search, stop)
    except LateError as error:
        if inputs.options.objective == "throughput" or not error.every or any(s.auto for s in inputs.hardware.values()):
            raise
        found = search(inputs, [error.every])
        return inputs, error.every, replace(found, bound=math.inf, stopped=found.stopped or stop.late())
    return trial, every[0], found


def counted(
    inputs: Inputs,
    problems: Callable[[Inputs], list[Inputs]],
    search: Callable[[Inputs, list[list[Tables]]], Found],
    stop: Stop | None = None,
) -> tuple[Inputs, list[list[Tables]], Found | None]:
    """The inputs with as many systems in place of ``auto`` as the cheapest deployment may need, the tables of every
    problem that they pose, and what was found.

    Counts grow until the demand is met and one more system than that would alone cost more than what was found: then no larger
    count holds anything cheaper. A count whose devices cannot carry the demand is not searched; how far it falls short says
    how many times as many come next (a power of two up to 16, and a quarter of it, since larger instances may do better).

    Where nothing is found, counting ends if more systems change nothing: where money, power, devices or pins keep the units
    below those that exist already, or where not even the most systems serve some problem without a demand. The inputs are
    then those without one, which tell why.
    """
    auto = [phase for phase, selection in inputs.hardware.items() if selection.auto]
    if not auto:
        return inputs, [tables_of(one, stop=stop) for one in problems(inputs)], None
    demands = [demand for one in problems(inputs) if (demand := build_context(one).demand) is not None]
    if not demands:
        raise InputError(
            "auto needs a demand to size for",
            where="hardware",
            mend="give --rate, --tokens-per-day, or --concurrency with --ttft and --tpot",
        )
    count, asked, until = 1, False, stop or Stop()
    dearer: tuple[Inputs, list[list[Tables]], Found] | None = None
    while True:
        late = until.late()
        if late and dearer is not None:
            return *dearer[:2], replace(dearer[2], stopped=late)
        trial = with_count(inputs, count)
        every = [tables_of(one, stop=stop) for one in problems(trial)]
        context = every[0][0].context
        most, found, factor = min(carried(tables) / demand for tables, demand in zip(every, demands, strict=True)), None, 2
        if most >= 1.0:
            found = search(trial, every)
            spent = sum(
                n * pool.usd_per_unit_hour
                for n, pool in zip(found.decision.units if found.decision else (), context.pools.values(), strict=False)
            )
            enough = found.decision and all(count * context.pools[phase].usd_per_hour >= spent for phase in auto)
            if found.stopped or enough:
                return trial, every, found
            dearer = (trial, every, found) if found.decision else None
        elif most > 0.0:
            factor = 2 ** int(np.clip(np.log2(1.0 / most / 4.0), 1, 4))
        capped = all(one.space.pools[p].units < one.context.pools[p].units for tables in every for one in tables for p in auto)
        most_count = _most_count(context, auto)
        if count >= most_count or (capped and dearer):
            return trial, every, found
        if capped:  # what is blamed may lie with the demand: not for want of systems
            trial = with_count(inputs, most_count)
            return trial, [tables_of(one, stop=stop) for one in problems(trial)], found
        if not asked and (found or not most):
            asked, free = True, without_demand(with_count(inputs, most_count))
            idle = [tables_of(one, stop=stop) for one in problems(free)]
            nothing = [_serving_nothing(tables, until) for tables in idle]
            if any(nothing):
                return free, idle, next(one for one in nothing if one)
        count *= min(factor, most_count // count)


def with_count(inputs: Inputs, count: int) -> Inputs:
    """The inputs with so many systems in place of ``auto``."""
    hardware = {p: s.model_copy(update={"count": count}) if s.auto else s for p, s in inputs.hardware.items()}
    return inputs.model_copy(update={"hardware": hardware})


def without_demand(inputs: Inputs) -> Inputs:
    """The inputs without a demand: what no count of systems serves at all, no count serves any demand with."""
    options = inputs.options.model_copy(update={"rate": None, "tokens_per_day": None, "concurrency": None})
    return inputs.model_copy(update={"options": options})


def _serving_nothing(every: list[Tables], stop: Stop) -> Found | None:
    """What searches of a problem's variants for any deployment found, if that is none."""
    inputs = every[0].context.inputs
    found = [
        Search(tables, "latency", inputs.workload.tpot_s, inputs.options.gap, Reporter(), stop, first=True).run()
        for tables in every
    ]
    if any(one.decision for one in found):
        return None
    return replace(found[0], stopped=next((one.stopped for one in found if one.stopped), None))


def _most_count(context: Context, auto: list[str]) -> int:
    """The most systems, a power of two, that one plan covers."""
    units = max(context.pools[phase].system.devices // context.pools[phase].unit_devices for phase in auto)
    return 1 << (max(MOST_UNITS // units, 1).bit_length() - 1)


def within_units(tables: Tables, decision: Decision) -> Tables:
    """The tables with no more units than a decision has."""
    context, space = tables.context, tables.space
    pools = dict(space.pools)
    for phase, units in zip(context.pools, decision.units, strict=True):
        pools[phase] = replace(space.pools[phase], units=units)
    most = (decision.units[0], decision.units[-1] if context.separate else 0)
    splits = tuple(split for split in space.splits if split[2] <= most[0] and split[3] <= most[1])
    smaller = replace(space, pools=pools, splits=splits, disaggregated=space.disaggregated and bool(splits))
    return replace(tables, space=smaller)


def fastest(every: list[Tables], found: Found, reporter: Reporter, stop: Stop) -> Found:
    """Where a demand is met at least cost, the deployment of least TPOT on no more units than that."""
    assert found.decision is not None
    limited = [within_units(tables, found.decision) for tables in every]
    inputs = every[0].context.inputs
    quick = search_all(limited, "latency", inputs.workload.tpot_s, reporter, stop)
    return found if quick.decision is None else replace(found, decision=quick.decision)
