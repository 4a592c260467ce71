"""What the machine lacks where a limit, or nothing but the model, conflicts with it: bytes by part, bytes moved, devices."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.performance import Rates
from planner.plans.context import Context, PoolContext, build_context
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import Candidates, memory_need, reserved_bytes
from planner.plans.inputs import Inputs
from planner.plans.operate import Operation
from planner.plans.space import PoolSpace, Space
from planner.search.limits import usable
from planner.search.trials import OutOfTimeError, Trials

MOST_UNITS = 64
"""How many purchasable units are tried for the least relief in devices."""
NOT_ALONE = " (not enough alone: other limits conflict too)"

RESERVE_FIGURES = {
    "context": "context",
    "graphs": "graphs",
    "communication": "communication",
    "expert_buffers": "expert_buffers_hidden_multiple",
    "activations": "activation_hidden_multiple",
    "fragmentation": "fragmentation",
}
"""The runtime's figure behind each cause of reserve."""

Row = dict[str, object]


def member(name: str, detail: str, relief: str, amount: float | None, unit: str) -> Row:
    """One row of a conflict."""
    return {"member": name, "detail": detail, "least_relief": relief, "amount": amount, "unit": unit}


@dataclass(frozen=True)
class Shortage:
    """The configuration that lacks least device memory at the least load: bytes per device by part."""

    weights: float
    cache: float
    reserve: dict[str, float]
    usable: float
    devices: int
    label: str

    @property
    def short(self) -> float:
        """Bytes missing per device."""
        return self.weights + self.cache + sum(self.reserve.values()) - self.usable


def least_shortage(pool: PoolContext, space: PoolSpace, phase: str = "mixed") -> Shortage | None:
    """Over all shapes: one sequence a rank, the smallest prefill pass, everything in device memory."""
    best: Shortage | None = None
    for shapes in space.shapes if space.chunks else ():
        count = len(shapes.tp)
        batch = np.full(count, float(phase != "prefill"))
        rows = Candidates(shapes, batch, np.full(count, float(min(space.chunks)) if phase != "decode" else 0.0))
        need = memory_need(pool, rows)
        index = int(np.argmin(need.short))
        if best is None or float(need.short[index]) < best.short:
            reserve = {name: float(column[index]) for name, column in reserved_bytes(pool, rows).items()}
            label = (
                f"tp {int(shapes.tp[index])}, attention dp {int(shapes.dp[index])}, ep {int(shapes.ep[index])}, pp {shapes.pp}"
            )
            best = Shortage(
                float(need.weights[index]),
                float(need.caches[index]),
                reserve,
                need.usable,
                int(shapes.devices[index]),
                label,
            )
    return best


def worst_shortage(context: Context, space: Space) -> tuple[PoolContext, Shortage] | None:
    """The pool that lacks most device memory, if any lacks some."""
    found = []
    for phase, pool in context.pools.items():
        shortage = least_shortage(pool, space.pools[phase], phase)
        if shortage is not None and shortage.short > 0.0:
            found.append((pool, shortage))
    return max(found, key=lambda entry: entry[1].short, default=None)


def moved_bytes(operation: Operation, phase: str) -> list[tuple[str, str, float, float]]:
    """``(tier, slowest resource on the way, bytes held there, bytes moved per pass)`` on the slowest stage of a phase."""
    state = next(s for s in operation.pools if phase in s.decision.phases)
    problem = state.problem
    stage = state.times.slowest[phase]
    found: dict[str, list[float]] = {}
    for choice, share in zip(problem.choices, state.shares, strict=True):
        if choice.mode == "resident" or choice.stage != stage or share <= 1e-12:
            continue
        item = problem.items[choice.item]
        layers = problem.stages[stage][item.window]
        moved = item.moved(choice.mode, 1, phase)
        entry = found.setdefault(choice.tier, [0.0, 0.0])
        entry[0] += item.held * layers * float(share)
        entry[1] += moved * layers * float(share)
    rates: Rates = state.pool.rates
    rows = []
    for tier_id, (held, moved) in sorted(found.items()):
        tier = next(t for t in rates.tiers if t.id == tier_id)
        rows.append((tier_id, min(tier.resources, key=lambda r: r[1])[0], held, moved))
    return rows


def shape_label(decision: PoolDecision) -> str:
    """``tp 8, attention dp 1, ep 1, pp 1``."""
    return f"tp {decision.tp}, attention dp {decision.dp}, ep {decision.ep}, pp {decision.pp}"


def moved_text(operation: Operation) -> str:
    """What lies outside device memory and must move each decode step; empty where everything fits."""
    return "; ".join(
        f"{held / 1e9:.3f} GB a device lie in {tier} and {moved / 1e6:.3f} MB must move over {resource} each step"
        for tier, resource, held, moved in moved_bytes(operation, "decode")
    )


def with_memory(pool: PoolContext, more: float) -> PoolContext:
    """The pool with so many more bytes of memory on every device."""
    return replace(pool, rates=replace(pool.rates, memory_bytes=pool.rates.memory_bytes + more))


def capacity_row(trials: Trials, inputs: Inputs, operation: Operation) -> Row | None:
    """More device memory in place of what moves each step: a row if that much more would do."""
    held = sum(row[2] for row in moved_bytes(operation, "decode"))
    if not held or trials.hit(inputs, lambda pool: with_memory(pool, held * (1.0 + 1e-9))) is None:
        return None
    state = next(s for s in operation.pools if "decode" in s.decision.phases)
    return member(
        f"{state.pool.rates.memory_id} capacity",
        f"{moved_text(operation)}; configuration {shape_label(state.decision)}",
        f"at most {held / 1e9:.3f} GB more on every device would keep it all there",
        held / 1e9,
        "GB per device",
    )


def memory_rows(pool: PoolContext, shortage: Shortage) -> tuple[str, list[Row]]:
    """Nothing fits in the memories allowed: the terms of the sum as a sentence, and each with its least relief."""
    memory, short = pool.rates.memory_id, shortage.short
    total_reserve = sum(shortage.reserve.values())
    below = sum(t.capacity for t in pool.rates.tiers if t.id in pool.tiers)
    g = 1e9
    reserve_text = ", ".join(f"{name} {value / g:.3f}" for name, value in shortage.reserve.items() if value)
    figures = [getattr(pool.inputs.runtime.reserve, RESERVE_FIGURES[name]) for name, value in shortage.reserve.items() if value]
    sources = "; ".join(sorted({figure.source for figure in figures}))
    needed = shortage.weights + shortage.cache + total_reserve
    terms = f"weights {shortage.weights / g:.3f} + least KV cache {shortage.cache / g:.3f} + reserve {total_reserve / g:.3f}"
    message = (
        f"{terms} = {needed / g:.3f} GB a device exceed the {shortage.usable / g:.3f} GB usable of {memory} "
        f"by {short / g:.3f} GB ({shortage.label})"
    )
    if below:
        message += f"; the other memories allowed hold {below / g:.1f} GB a device"
    parts = [
        (
            f"{memory} capacity",
            f"{shortage.usable / g:.3f} GB usable a device ({pool.system.tier(memory).usable.source})",
            f"{short / g:.3f} GB more on every device",
        ),
        (
            "weights",
            f"{shortage.weights / g:.3f} GB a device",
            f"{short / g:.3f} GB fewer on every device ({short * shortage.devices / g:.1f} GB in all)",
        ),
        (
            "reserve",
            f"{total_reserve / g:.3f} GB a device: {reserve_text} ({sources})",
            f"{short / g:.3f} GB less on every device"
            + ("" if short < total_reserve else ": more than the whole reserve, so not enough alone"),
        ),
        (
            "least KV cache",
            f"{shortage.cache / g:.3f} GB a device for one running sequence a rank and one being prefilled, "
            f"{pool.inputs.workload.reserved_tokens} tokens each",
            f"{short / g:.3f} GB less on every device"
            + ("" if short < shortage.cache else ": more than the whole cache, so not enough alone"),
        ),
    ]
    return message, [member(name, detail, relief, short / g, "GB per device") for name, detail, relief in parts]


def devices_row(trials: Trials, inputs: Inputs, whole: Inputs) -> Row | None:
    """The fewest devices, in purchasable units, of the same kind that would do; none where that many cannot be joined or
    ``MOST_UNITS`` units are not enough. ``whole``: the problem with all its limits, of which ``inputs`` may carry fewer."""
    context = build_context(inputs)
    if context.separate:
        return None
    pool = context.pools["mixed"]
    if not pool.rates.levels or not math.isinf(pool.rates.levels[-1].devices):
        return None
    changes: dict[str, Any] = {"devices": None, "max_power_kw": None, "max_usd_per_hour": None}

    def works(units: int, inputs: Inputs) -> int | None:
        count = max(1, math.ceil(units * pool.unit_devices / pool.system.devices))
        selection = pool.selection.model_copy(update={"count": count})
        options = inputs.options.model_copy(update=changes)
        trial = inputs.model_copy(update={"hardware": {"mixed": selection}, "options": options})
        return selection.devices if usable(trial) and trials.hit(trial) else None

    fails, units, enough, alone = pool.units, pool.units, None, True
    try:
        while enough is None and units < MOST_UNITS:
            units = min(2 * units, MOST_UNITS) if units else 1
            enough = works(units, inputs)
            fails = fails if enough else units
        while enough is not None and units - fails > 1:
            middle = (units + fails) // 2
            found = works(middle, inputs)
            fails, units, enough = (fails, middle, found) if found else (middle, units, enough)
        alone = enough is None or inputs is whole or works(units, whole) is not None
    except OutOfTimeError:  # fewer may do
        pass
    if enough is None:
        return None
    words = f"{enough} devices" if trials.ended is None else f"{enough} devices or fewer"
    words += "" if alone else NOT_ALONE
    return member("devices", f"{pool.selection.devices} devices", words, float(enough), "devices")
