"""Prices by one finite step, everything else kept: a network's bandwidth, a purchasable unit.

What is added is taken as given, so the objective charges what the plan pays for already: the price is what the step is worth,
to be held against what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.performance import more_bandwidth
from planner.plans.context import Context
from planner.plans.operate import Operation, serve
from planner.plans.states import PoolState, pool_state
from planner.plans.worth import operation_objective


@dataclass(frozen=True)
class Price:
    """What one more ``unit`` of a resource changes in the objective, and is worth in USD per hour (of each device, but for units
    that are bought); it holds from ``valid_from`` to ``valid_to``."""

    pool: str
    resource: str
    unit: str
    objective_per_unit: float
    valid_from: float
    valid_to: float
    usd_per_hour: float


def _instead(operation: Operation, state: PoolState) -> dict[str, PoolState]:
    return {s.decision.phase: state if s.decision.phase == state.decision.phase else s for s in operation.pools}


def _kept(state: PoolState, replicas: int) -> PoolState:
    """The pool with another number of instances."""
    placed = None if state.resident else state.shares
    return PoolState(replace(state.decision, replicas=replicas), state.pool, state.passes, placed)


def network_prices(context: Context, operation: Operation, state: PoolState) -> list[Price]:
    """One more GB/s of every domain that an instance of the pool reaches across, or its caches arrive over, on each device.

    The decision is evaluated again at its placement with that bandwidth: the price holds for this one step, from the bandwidth
    of now to 1 GB/s more. Bytes and placement stay and every collective gets no slower, so it is never worth less than 0.
    """
    found, inner = [], 1
    for domain in state.pool.system.domains:
        outermost = domain.id == (state.pool.rates.levels[-1].id if state.pool.rates.levels else "")
        handed = operation.mode == "disaggregated" and state.decision.phase == "decode" and outermost
        reached = state.decision.instance_devices > inner
        inner = domain.devices or inner
        if not (reached or handed) or domain.id not in {level.id for level in state.pool.rates.levels}:
            continue
        pool = replace(state.pool, rates=more_bandwidth(state.pool.rates, state.pool.system, domain.id, 1e9))
        faster = pool_state(pool, state.decision, None if state.resident else state.shares)
        after = serve(context, operation.units, _instead(operation, faster))
        relative = after.requests_per_s / operation.requests_per_s - 1.0
        now = domain.bandwidth.value / 1e9
        change = operation_objective(context, after) - operation_objective(context, operation)
        worth = relative * operation.usd_per_hour / state.decision.devices
        found.append(Price(state.decision.phase, f"{domain.id} bandwidth", "GB/s", change, now, now + 1.0, worth))
    return found


def unit_prices(context: Context, operation: Operation) -> list[Price]:
    """One more purchasable unit of each kind of hardware, as instances of the pools' own shapes, batches and placements.

    What idles and the m units added (spare devices stay spare) hold so many more instances of each pool on that hardware, in the
    numbers that serve most. m is the least with which more is served, of those that hold one more instance of a pool or of each;
    the price is an m-th of the change: it holds from the units of now to m more. Instances are added as far as the limits on
    requests in flight and power admit. Where no such m serves more, because other hardware limits the deployment or a demand is
    served already, a unit is worth 0.
    """
    return [_unit_price(context, operation, key) for key in context.pools]


def _unit_price(context: Context, operation: Operation, key: str) -> Price:
    pool = context.pools[key]
    units = operation.units[list(context.pools).index(key)]
    here = [s for s in operation.pools if not context.separate or s.decision.phase == key]
    sizes = [state.decision.instance_devices for state in here]
    idle = max(units * pool.unit_devices - pool.spare_devices - sum(state.decision.devices for state in here), 0)
    steps = sorted({max(-((idle - size) // pool.unit_devices), 1) for size in (*sizes, sum(sizes))})
    step, after = steps[0], operation
    for step in steps:
        after = _with_units(context, operation, here, idle + step * pool.unit_devices, step * pool.watts_per_unit)
        if after.requests_per_s > operation.requests_per_s:
            break
    else:
        step, after = steps[0], operation
    relative = after.requests_per_s / operation.requests_per_s - 1.0
    change = (operation_objective(context, after) - operation_objective(context, operation)) / step
    label = f"unit of {pool.unit_devices} device{'s' if pool.unit_devices > 1 else ''}"
    worth = relative * operation.usd_per_hour / step
    return Price(key, pool.system.id, label, change, float(units), float(units + step), worth)


def _with_units(context: Context, operation: Operation, here: list[PoolState], free: int, watts: float) -> Operation:
    """The deployment with as many more instances in ``free`` devices as serve most, within its limits."""
    limit = context.inputs.options.max_power_kw
    if limit is not None:
        stated = sum(n * p.watts_per_unit for n, p in zip(operation.units, context.pools.values(), strict=True))
        if (stated + watts) / 1e3 > limit:
            return operation
    sizes = [state.decision.instance_devices for state in here]
    first = np.arange(free // sizes[0] + 1)
    if context.cap is not None and operation.mode == "aggregated":
        replicas = here[0].decision.replicas
        first = first[first <= max(int(context.cap * replicas / operation.concurrency) - replicas, 0)]
    added = [first]
    if len(here) == 2:
        added.append((free - first * sizes[0]) // sizes[1])
    limits = [_alone(context, operation, state) for state in here]
    carried = np.min(
        [each * (state.decision.replicas + more) for each, state, more in zip(limits, here, added, strict=True)], axis=0
    )
    best = int(np.argmax(carried))
    states = {state.decision.phase: state for state in operation.pools}
    for state, more in zip(here, added, strict=True):
        states[state.decision.phase] = _kept(state, state.decision.replicas + int(more[best]))
    grown = serve(context, operation.units, states)
    return grown if grown.requests_per_s > operation.requests_per_s else operation


def _alone(context: Context, operation: Operation, state: PoolState) -> float:
    """Requests/s that one instance of a pool lets through, were the other pool without limit."""
    states = {s.decision.phase: s if s is state else _kept(s, ENDLESS) for s in operation.pools}
    return serve(context, operation.units, states).capacity_per_s / state.decision.replicas


ENDLESS = 10**9
"""Instances of a pool that never limits."""
