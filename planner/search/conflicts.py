"""Why nothing fits: the conflicting limits, each with the least relief that would do.

Limits are taken away one at a time (service levels, then memory); what remains feasible without a limit names it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.errors import InfeasibleError
from planner.hardware import HardwareSelection
from planner.performance import Rates
from planner.plans.evaluate import Candidates, memory_need, reserved_bytes
from planner.plans.inputs import Context, Inputs, PoolContext, build_context
from planner.plans.operate import Decision, Operation, PoolDecision, operate
from planner.plans.space import PoolSpace, declare_space
from planner.reporter import Reporter
from planner.search.find import Search
from planner.search.tables import Stop, Tables, build_tables

MOST_UNITS = 64
"""How many purchasable units are tried for the least relief in devices."""


LEAST_TTFT_S = 1e-4
"""Seconds from which the least TTFT is looked for."""

RESERVE_FIGURES = {
    "context": "context",
    "graphs": "graphs",
    "communication": "communication",
    "expert_buffers": "expert_buffers_hidden_multiple",
    "activations": "activation_hidden_multiple",
    "fragmentation": "fragmentation",
}
"""The runtime's figure behind each cause of reserve."""


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


def least_shortage(pool: PoolContext, space: PoolSpace) -> Shortage | None:
    """Over all shapes: one sequence a rank, the smallest prefill pass, everything in device memory."""
    best: Shortage | None = None
    for shapes in space.shapes:
        count = len(shapes.tp)
        rows = Candidates(shapes, np.ones(count), np.full(count, float(min(space.chunks))))
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


def _member(member: str, detail: str, relief: str, amount: float | None, unit: str) -> dict[str, Any]:
    return {"member": member, "detail": detail, "least_relief": relief, "amount": amount, "unit": unit}


def explain_infeasible(context: Context, tables: Tables, reporter: Reporter, stop: Stop) -> InfeasibleError:
    """The conflict as an error to raise."""
    for phase, space in tables.space.pools.items():
        if space.units == 0 or space.devices == 0:
            return _no_hardware(context, phase)
    if not any(space.shape_count for space in tables.space.pools.values()):
        return _no_shape(context)
    workload = context.inputs.workload
    if workload.tpot_s is not None:
        least = Search(tables, "latency", None, context.inputs.options.gap, reporter, stop).run()
        if least.decision is not None:
            return _service_level(context, tables, operate(context, least.decision), least.decision)
        if least.stopped:
            return _stopped(context)
    if workload.ttft_s is not None:
        relaxed = _without(context, ttft=True, tpot=True)
        free = build_tables(relaxed, tables.space)
        least = Search(free, "latency", None, context.inputs.options.gap, reporter, stop).run()
        if least.decision is not None:
            return _ttft(context, relaxed, free, least.decision, reporter, stop)
        if least.stopped:
            return _stopped(context)
    if context.inputs.options.concurrency is not None:
        options = context.inputs.options.model_copy(update={"concurrency": None})
        inputs = context.inputs.model_copy(update={"options": options})
        free_context = build_context(inputs)
        free = build_tables(free_context, declare_space(free_context))
        found = Search(free, "latency", workload.tpot_s, options.gap, reporter, stop).run()
        if found.stopped and found.decision is None:
            return _stopped(context)
        if found.decision is not None:
            member = _member(
                "concurrency",
                f"at most {context.inputs.options.concurrency} requests in flight",
                "raise --concurrency",
                None,
                "requests",
            )
            return InfeasibleError("proved infeasible: no configuration works with so few requests in flight", [member])
    return _memory(context, tables)


def _stopped(context: Context) -> InfeasibleError:
    """The search had ended, the look for the least relief had not."""
    workload, options = context.inputs.workload, context.inputs.options
    asked = (
        ("service level TPOT", "ms", workload.tpot_s and workload.tpot_s * 1e3),
        ("service level TTFT", "ms", workload.ttft_s and workload.ttft_s * 1e3),
        ("concurrency", "requests", options.concurrency),
    )
    members = [
        _member(name, f"{value:g} {unit} asked", "not found within the time limit", None, unit)
        for name, unit, value in asked
        if value
    ]
    return InfeasibleError(
        "proved infeasible; the time limit ended the look for the least relief: raise --time-limit to see which limit decides",
        members,
    )


def _without(context: Context, *, ttft: bool, tpot: bool) -> Context:
    changes: dict[str, Any] = ({"ttft_s": None} if ttft else {}) | ({"tpot_s": None} if tpot else {})
    workload = context.inputs.workload.model_copy(update=changes)
    return build_context(context.inputs.model_copy(update={"workload": workload}))


def _no_hardware(context: Context, phase: str) -> InfeasibleError:
    pool, options = context.pools[phase], context.inputs.options
    members = []
    if options.max_usd_per_hour is not None:
        cost = pool.usd_per_unit_hour
        members.append(_member("money", f"one unit costs {cost:.4g} USD/h", f"--max-usd-per-hour {cost:.4g}", cost, "USD/h"))
    if options.max_power_kw is not None:
        power = pool.watts_per_unit / 1e3
        members.append(_member("power", f"one unit draws {power:.4g} kW", f"--max-power-kw {power:.4g}", power, "kW"))
    caps = " and ".join(m["member"] for m in members) or "devices"
    return InfeasibleError(
        f"proved infeasible: not even one purchasable unit of {pool.system.id} within the limit on {caps}", members
    )


def _no_shape(context: Context) -> InfeasibleError:
    detail = "no parallel shape passes divisibility and topology on these devices"
    return InfeasibleError(f"proved infeasible: {detail}", [_member("devices", detail, "more devices", None, "devices")])


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
        moved = item.held if choice.mode == "stream" and item.kind == "routed" else item.reads[phase]
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


def _service_level(context: Context, tables: Tables, operation: Operation, decision: Decision) -> InfeasibleError:
    limit = context.inputs.workload.tpot_s
    assert limit is not None
    least_ms = operation.tpot_s * 1e3
    members = [
        _member(
            "service level TPOT",
            f"{limit * 1e3:g} ms asked, {least_ms:.4f} ms is the least in the space",
            f"--tpot {least_ms * 1.0001:.4f}ms",
            least_ms,
            "ms",
        )
    ]
    message = f"proved infeasible: service level TPOT {limit * 1e3:g} ms is below the least reachable {least_ms:.4f} ms"
    rows = moved_bytes(operation, "decode")
    if rows:
        text = "; ".join(
            f"{held / 1e9:.3f} GB a device lie in {tier} and {moved / 1e6:.3f} MB must move over {resource} each step"
            for tier, resource, held, moved in rows
        )
        message += f"; {text}"
        state = next(s for s in operation.pools if "decode" in s.decision.phases)
        held_total = sum(held for _, _, held, _ in rows)
        members.append(
            _member(
                f"{state.pool.rates.memory_id} capacity",
                f"{text}; configuration {shape_label(state.decision)}",
                f"at most {held_total / 1e9:.3f} GB more on every device would keep it all there",
                held_total / 1e9,
                "GB per device",
            )
        )
    more = _devices_for(context, lambda inner: _reaches(inner))
    if more is not None:
        members.append(
            _member(
                "devices",
                f"{tables.space.pools[next(iter(tables.space.pools))].devices} devices",
                f"{more} devices",
                float(more),
                "devices",
            )
        )
    return InfeasibleError(message, members)


def _reaches(context: Context) -> bool:
    tables = build_tables(context, declare_space(context))
    return Search(tables, "latency", context.inputs.workload.tpot_s, 0.01, Reporter(), Stop()).run().decision is not None


def _ttft(
    context: Context, relaxed: Context, free: Tables, decision: Decision, reporter: Reporter, stop: Stop
) -> InfeasibleError:
    """TTFT cannot be met, with the TPOT limit or, if that is out of reach even without TTFT, together with it."""
    workload, gap = context.inputs.workload, 0.01
    limit, tpot = workload.ttft_s, workload.tpot_s
    assert limit is not None
    members = []
    alone = operate(relaxed, decision)
    high = alone.ttft_s
    if tpot is not None:
        under = Search(free, "latency", tpot, gap, reporter, stop).run()
        if under.decision is None:
            least = f"{math.ceil(alone.tpot_s * 1e6) / 1e3:.3f} ms"
            members.append(
                _member(
                    "service level TPOT",
                    f"{tpot * 1e3:g} ms asked, {least} is the least even without a limit on TTFT",
                    f"--tpot {least.replace(' ', '')}",
                    alone.tpot_s * 1e3,
                    "ms",
                )
            )
            tpot = None
        else:
            high = operate(relaxed, under.decision).ttft_s
    low = max(limit, LEAST_TTFT_S)
    for _ in range(12):
        if high <= low * 1.001:
            break
        middle = math.sqrt(low * high)
        trial = build_context(
            context.inputs.model_copy(update={"workload": workload.model_copy(update={"ttft_s": middle, "tpot_s": tpot})})
        )
        found = Search(build_tables(trial, free.space), "latency", tpot, gap, reporter, stop).run()
        if found.decision is None:
            low = middle
        else:
            high = min(middle, operate(trial, found.decision).ttft_s)
    need = f"{math.ceil(high * 1e3)} ms"
    given = "" if tpot is None else f" with TPOT at most {tpot * 1e3:g} ms"
    members.insert(
        0,
        _member(
            "service level TTFT",
            f"{limit * 1e3:g} ms asked, about {need} can be reached{given}",
            f"--ttft {math.ceil(high * 1e3)}ms",
            high * 1e3,
            "ms",
        ),
    )
    return InfeasibleError(
        f"proved infeasible: service level TTFT {limit * 1e3:g} ms cannot be met{given}; the least found is {need}"
        + (f"; nor can TPOT {workload.tpot_s * 1e3:g} ms" if workload.tpot_s is not None and tpot is None else ""),
        members,
    )


def _memory(context: Context, tables: Tables) -> InfeasibleError:
    """Nothing fits in the memories allowed: the terms of the sum, each with its least relief."""
    phase = next(iter(context.pools))
    pool, space = context.pools[phase], tables.space.pools[phase]
    shortage = least_shortage(pool, space)
    if shortage is None:
        return _no_shape(context)
    memory, short = pool.rates.memory_id, shortage.short
    total_reserve = sum(shortage.reserve.values())
    below = sum(t.capacity for t in pool.rates.tiers if t.id in pool.tiers)
    g = 1e9
    reserve_text = ", ".join(f"{name} {value / g:.3f}" for name, value in shortage.reserve.items() if value)
    figures = [
        getattr(context.inputs.runtime.reserve, RESERVE_FIGURES[name]) for name, value in shortage.reserve.items() if value
    ]
    sources = "; ".join(sorted({figure.source for figure in figures}))
    needed = shortage.weights + shortage.cache + total_reserve
    terms = f"weights {shortage.weights / g:.3f} + least KV cache {shortage.cache / g:.3f} + reserve {total_reserve / g:.3f}"
    message = (
        f"proved infeasible: {terms} = {needed / g:.3f} GB a device exceed the {shortage.usable / g:.3f} GB usable of {memory} "
        f"by {short / g:.3f} GB ({shortage.label})"
    )
    if below:
        message += f"; the other memories allowed hold {below / g:.1f} GB a device"
    members = [
        _member(
            f"{memory} capacity",
            f"{shortage.usable / g:.3f} GB usable a device ({pool.system.tier(memory).usable.source})",
            f"{short / g:.3f} GB more on every device",
            short / g,
            "GB per device",
        ),
        _member(
            "weights",
            f"{shortage.weights / g:.3f} GB a device",
            f"{short / g:.3f} GB fewer on every device ({short * shortage.devices / g:.1f} GB in all)",
            short / g,
            "GB per device",
        ),
        _member(
            "reserve",
            f"{total_reserve / g:.3f} GB a device: {reserve_text} ({sources})",
            f"{short / g:.3f} GB less on every device"
            + ("" if short < total_reserve else ": more than the whole reserve, so not enough alone"),
            short / g,
            "GB per device",
        ),
        _member(
            "least KV cache",
            f"{shortage.cache / g:.3f} GB a device for one running sequence a rank and one being prefilled, "
            f"{context.inputs.workload.reserved_tokens} tokens each",
            f"{short / g:.3f} GB less on every device"
            + ("" if short < shortage.cache else ": more than the whole cache, so not enough alone"),
            short / g,
            "GB per device",
        ),
    ]
    more = _devices_for(context, _fits)
    if more is not None:
        members.append(_member("devices", f"{space.devices} devices", f"{more} devices", float(more), "devices"))
    if not pool.tiers and pool.rates.tiers:
        names = ", ".join(t.id for t in pool.rates.tiers)
        members.append(_member("memories", f"only {memory} may be used", f"allow {names}", None, ""))
    return InfeasibleError(message, members)


def _fits(context: Context) -> bool:
    phase = next(iter(context.pools))
    pool = context.pools[phase]
    shortage = least_shortage(pool, declare_space(context).pools[phase])
    return shortage is not None and shortage.short <= 0.0


def _devices_for(context: Context, works: Any) -> int | None:
    """The fewest devices, in purchasable units, with which ``works`` holds; ``None`` if none up to ``MOST_UNITS`` units."""
    if context.separate:
        return None
    pool = context.pools["mixed"]
    if not pool.rates.levels or not math.isinf(pool.rates.levels[-1].devices):
        return None
    options = context.inputs.options.model_copy(update={"devices": None, "max_power_kw": None, "max_usd_per_hour": None})
    counts, units = [], pool.units
    while units < MOST_UNITS:
        units = units + 1 if units < 8 else units * 2
        counts.append(units)
    for count in counts:
        selection = HardwareSelection(
            system=pool.system, count=max(1, math.ceil(count * pool.unit_devices / pool.system.devices))
        )
        inputs: Inputs = context.inputs.model_copy(update={"hardware": {"mixed": selection}, "options": options})
        if works(build_context(inputs)):
            return selection.devices
    return None
