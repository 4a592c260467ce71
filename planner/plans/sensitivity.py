"""What binds, and what one more unit of a resource would be worth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from planner.plans.context import Context, PoolContext
from planner.plans.decision import Decision
from planner.plans.evaluate import largest_fitting_batch
from planner.plans.lp import right_hand_range
from planner.plans.marginal import Price, network_prices, unit_prices
from planner.plans.operate import Operation, operate
from planner.plans.placement import window_label
from planner.plans.prefetch import WAIT
from planner.plans.prefix_rows import cache_binds
from planner.plans.states import PoolState, pool_passes
from planner.plans.worth import checks, operation_objective


def phase_parts(state: PoolState, phase: str) -> dict[str, Any]:
    """A pass of the slowest stage: its time and the layers' times by part (ms, residual included).

    ``ideal_ms`` of a block: the same pass on the roofline, all in device memory (``Rates.roofline``).
    """
    ideal = pool_passes(replace(state.pool, rates=state.pool.rates.roofline()), state.decision)[phase].windows
    stage = state.times.slowest[phase]
    residual = state.pool.rates.residual
    pieces = (*state.pool.pieces.windows, *state.pool.pieces.draft)
    passes = state.passes[phase]
    windows = []
    for index, blocks in enumerate(passes.windows):
        repeat = passes.repeats[stage][index]
        if not repeat:
            continue
        windows.append(
            {
                "window": window_label(pieces[index], state.pool.pieces.layers),
                "layers": repeat,
                "layer_ms": state.times.window_s[(stage, index, phase)] * residual * 1e3,
                "binding": state.times.binding[(stage, index, phase)],
                "blocks": [
                    {
                        "block": block.id,
                        "floor_ms": float(block.floor[0]) * residual * 1e3,
                        "compute_ms": float(block.compute[0]) * residual * 1e3,
                        "memory_ms": float(block.memory[0]) * residual * 1e3,
                        "communication_ms": float(block.communication[0]) * residual * 1e3,
                        "ideal_ms": float(max(best.compute[0], best.memory[0])) * 1e3,
                    }
                    for block, best in zip(blocks, ideal[index], strict=True)
                ],
            }
        )
    return {"time_ms": state.seconds[phase] * 1e3, "stage": stage, "stages": state.decision.pp, "windows": windows}


def resource_seconds(state: PoolState, phase: str) -> dict[str, float]:
    """Seconds of the slowest stage's pass by the resource that sets them; they sum to its time."""
    stage = state.times.slowest[phase]
    passes, memory = state.passes[phase], state.pool.rates.memory_id
    found: dict[str, float] = {}
    if phase in state.times.carried:
        return {state.times.carried[phase]: state.seconds[phase]}

    def add(name: str, seconds: float) -> None:
        if seconds:
            found[name] = found.get(name, 0.0) + seconds * state.pool.rates.residual

    for index, blocks in enumerate(passes.windows):
        repeat = passes.repeats[stage][index]
        if not repeat:
            continue
        time, binding = state.times.window_s[(stage, index, phase)], state.times.binding[(stage, index, phase)]
        if binding != "base" and not binding.startswith(WAIT):
            add(binding, repeat * time)
            continue
        base = 0.0
        for block in blocks:
            base += float(block.total[0])
            add("layer floor", repeat * float(block.floor[0]))
            compute, moved, network = float(block.compute[0]), float(block.memory[0]), float(block.communication[0])
            if block.overlapped:
                name, most = max((("compute", compute), (memory, moved), ("network", network)), key=lambda e: e[1])
                add(name, repeat * most)
                continue
            add("compute" if compute > moved else memory, repeat * max(compute, moved))
            add("network", repeat * network)
        if binding.startswith(WAIT):
            add(binding.removeprefix(WAIT), repeat * (time - base))
        elif time > base:
            add(_slowest_fetch(state, stage, index), repeat * (time - base))
    add("runtime step", float(passes.step[0]))
    add("network", float(passes.hop[0]))
    return found


def _slowest_fetch(state: PoolState, stage: int, window: int) -> str:
    """The resource that on-demand fetches of a window wait for: the slowest on the path of the tier fetched from most."""
    best, name = 0.0, "host link"
    for choice, share in zip(state.problem.choices, state.shares, strict=True):
        item = state.problem.items[choice.item]
        if choice.stage == stage and item.window == window and choice.mode == "fetch" and share * item.held > best:
            tier = next(t for t in state.pool.rates.tiers if t.id == choice.tier)
            best, name = float(share) * item.held, min(tier.resources, key=lambda r: r[1])[0]
    return name


def bottleneck_rows(state: PoolState) -> list[dict[str, Any]]:
    """``{pool, phase, resource, share}``, shares of a phase summing to 1, largest first."""
    rows = []
    for phase in state.decision.phases:
        seconds = resource_seconds(state, phase)
        total = sum(seconds.values())
        for name, value in sorted(seconds.items(), key=lambda entry: (-entry[1], entry[0])):
            rows.append({"pool": state.decision.phase, "phase": phase, "resource": name, "share": value / total})
    return rows


def shadow_price_rows(context: Context, decision: Decision, operation: Operation) -> list[dict[str, Any]]:
    """What one more unit of a resource on every device of a pool changes in the objective, and is worth per device and hour; of
    purchasable units one more, per unit and hour.

    Capacities: the dual of the placement where something overflows, else the largest batch that one more GB admits
    (within the limits). Bandwidths and rates: the part of the time that the resource sets, divided by its rate. Networks and
    units: one step (``plans.marginal``). One-sided; ``valid_from``/``valid_to`` bound the resource over which the price holds.
    """
    rows: list[Price] = []
    for index, state in enumerate(operation.pools):
        rows.append(_capacity_price(context, decision, operation, index, state))
        rows += _rate_prices(context, operation, state)
        rows += network_prices(context, operation, state)
    rows += unit_prices(context, operation)
    return [
        {
            "pool": row.pool,
            "resource": row.resource,
            "unit": row.unit,
            "objective_per_unit": row.objective_per_unit,
            "usd_per_hour_per_unit": row.usd_per_hour,
            "valid_from": row.valid_from,
            "valid_to": row.valid_to if math.isfinite(row.valid_to) else None,
        }
        for row in rows
    ]


def _objective_slope(
    context: Context, operation: Operation, phase_seconds: dict[str, float], state: PoolState
) -> tuple[float, float]:
    """``(objective per unit, relative gain in throughput per unit)`` for a change of the phases' seconds per unit."""
    weights = state.problem.weights
    if cache_binds(operation):
        return 0.0, 0.0  # nor does it where memory for the prefix cache is what lacks
    if context.demand is not None and context.inputs.options.objective != "latency":
        return 0.0, 0.0  # a faster machine serves no more than is asked
    if operation.mode == "aggregated":
        tpot = sum(weights[p] * phase_seconds.get(p, 0.0) for p in weights)
        relative = -tpot / operation.tpot_s
    else:
        phase = state.decision.phase
        binds = (
            operation.busy < 0.999999 * _busy_cap(operation)
            if phase == "decode"
            else operation.busy >= 0.999999 * _busy_cap(operation)
        )
        relative = -phase_seconds.get(phase, 0.0) / state.seconds[phase] if binds else 0.0
        if context.inputs.options.objective == "latency":
            relative = -phase_seconds.get(phase, 0.0) / state.seconds[phase] if phase == "decode" else 0.0
    objective = operation_objective(context, operation)
    sign = 1.0 if context.inputs.options.objective == "throughput" else -1.0
    return sign * objective * relative, relative


def _busy_cap(operation: Operation) -> float:
    """How busy the prefill pool could be under its limits."""
    from planner.performance import prefill_queue
    from planner.plans.operate import busy_limit

    state = next(s for s in operation.pools if s.decision.phase == "prefill")
    row = state.decision.row()
    workload = state.pool.inputs.workload
    _, service, through = prefill_queue(np.array([state.seconds["prefill"]]), row.chunk, row.shapes, workload)
    return float(busy_limit(workload.ttft_s, through, service)[0])


def _capacity_price(context: Context, decision: Decision, operation: Operation, index: int, state: PoolState) -> Price:
    pool, memory = state.pool, state.pool.rates.memory_id
    usable = pool.rates.memory_bytes / 1e9
    devices = state.decision.devices
    if state.point is not None:
        slopes: dict[str, float] = {}
        dual, low, high = 0.0, -math.inf, math.inf
        for (_, tier), number in state.problem.capacity_rows.items():
            if tier != memory:
                continue
            dual += float(state.point.duals[number])
            first, last = right_hand_range(state.problem.program, state.point, number)
            offset = usable - float(state.problem.program.limit[number])
            low, high = max(low, first + offset), min(high, last + offset)
        weight = sum(state.problem.weights.values()) or 1.0
        for phase in state.problem.phases:
            slopes[phase] = dual / 1e3 / weight * pool.rates.residual
        slope, relative = _objective_slope(context, operation, slopes, state)
        worth = relative * operation.usd_per_hour / devices
        return Price(state.decision.phase, f"{memory} capacity", "GB", slope, max(low, 0.0), high, worth)
    gain = _one_more_gb(context, decision, operation, index, state)
    objective = operation_objective(context, operation)
    change = gain[0] - objective
    relative = gain[1] / operation.requests_per_s - 1.0
    worth = relative * operation.usd_per_hour / devices
    return Price(state.decision.phase, f"{memory} capacity", "GB", change, usable, usable + 1.0, worth)


def _one_more_gb(context: Context, decision: Decision, operation: Operation, index: int, state: PoolState) -> tuple[float, float]:
    """``(objective, requests/s)`` with the largest admissible batch that one more GB holds; unchanged if none is larger.

    A larger batch never shortens the time per token, so the objective ``latency`` is unchanged.
    """
    if not state.decision.batch or context.inputs.options.objective == "latency":
        return operation_objective(context, operation), operation.requests_per_s
    pool = state.pool
    larger = replace(pool, rates=replace(pool.rates, memory_bytes=pool.rates.memory_bytes + 1e9))
    mine = state.decision.phase if context.separate else "mixed"
    larger = replace(context.pools[mine], rates=larger.rates)  # without the map, which the decision brings itself
    pools = {phase: (larger if phase == mine else p) for phase, p in context.pools.items()}
    changed = replace(context, pools=pools)
    row = state.decision.row()
    most = int(largest_fitting_batch(larger, row.shapes, row.chunk, pool.inputs.runtime.max_sequences_per_rank)[0])
    low, high = state.decision.batch, max(most, state.decision.batch)
    known = operation.passes

    def attempt(batch: int) -> Operation | None:
        moved = list(decision.pools)
        moved[index] = replace(state.decision, batch=batch)
        result = operate(changed, replace(decision, pools=tuple(moved)), known=known)
        return result if all(check.holds for check in checks(changed, result)) else None

    best: Operation = operation
    while low < high:
        middle = (low + high + 1) // 2
        result = attempt(middle)
        if result is None:
            high = middle - 1
        else:
            low, best = middle, result
    if best.requests_per_s < operation.requests_per_s:
        best = operation
    return operation_objective(changed, best), best.requests_per_s


def _rate_prices(context: Context, operation: Operation, state: PoolState) -> list[Price]:
    rows = []
    rates: dict[str, float] = {}
    for tier in state.pool.rates.tiers:
        for channel in tier.channels:  # a way that passes a part twice has half its rate
            alone = 1e-9 / (channel.read or channel.write)
            rates[channel.id] = max(alone, rates.get(channel.id, 0.0))
    rates[state.pool.rates.memory_id] = state.pool.rates.memory_bytes_per_s / 1e9
    by_phase = {phase: resource_seconds(state, phase) for phase in state.decision.phases}
    names = sorted({name for seconds in by_phase.values() for name in seconds if name in rates})
    for name in names:
        slopes = {phase: -seconds.get(name, 0.0) / rates[name] for phase, seconds in by_phase.items()}
        slope, relative = _objective_slope(context, operation, slopes, state)
        low, high = _rate_range(state, name)
        worth = relative * operation.usd_per_hour / state.decision.devices
        row = Price(
            state.decision.phase,
            f"{name} bandwidth",
            "GB/s",
            slope,
            rates[name] * low,
            rates[name] * high,
            worth,
        )
        rows.append(row)
    return rows


def _rate_range(state: PoolState, name: str) -> tuple[float, float]:
    """Factors on a rate within which the same parts bind: device memory until compute overtakes it; others from here on up."""
    if name != state.pool.rates.memory_id:
        return 1.0, math.inf
    low, high = 0.0, math.inf
    for phase in state.decision.phases:
        for blocks in state.passes[phase].windows:
            for block in blocks:
                compute, memory = float(block.compute[0]), float(block.memory[0])
                if memory <= 0.0 or compute <= 0.0:
                    continue
                if memory >= compute:
                    high = min(high, memory / compute)
                else:
                    low = max(low, memory / compute)
    return low, high


__all__ = ["PoolContext", "bottleneck_rows", "phase_parts", "resource_seconds", "shadow_price_rows"]
