"""A plan told in a few paragraphs: what it is, what binds, what would help, what was ruled out, how sure it is, what to do next.

Every number is one of the plan's file, rounded, or of ``passed_over``, which follows from the inputs in it. Units change by
powers of ten alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.plans.passed_over import Passed
from planner.plans.schema import Interval, Plan
from planner.quantities import plain

SLIGHT = 0.0005
"""Parts of the objective, and shares of a range, that are not worth a word."""
NEAR = 0.99
"""A limit counts as binding from this part of it on."""

AXES = {
    "tp": "tensor parallelism",
    "attention_dp": "attention data parallelism",
    "ep": "expert parallelism",
    "context_parallel": "context parallelism",
    "pp": "pipeline depth",
    "serving": "serving",
}
FIGURES = {
    "compute": "the arithmetic rates reached",
    "memory": "the memory's bandwidth and start-up",
    "network": "the networks",
    "host": "memories and links beside the device",
    "floors": "what a layer and a step cost however little they do",
    "imbalance": "how unevenly tokens spread over experts",
    "residual": "what the model of time leaves open",
    "prices.capex": "what the systems cost to buy",
    "prices.rent": "what the systems cost to rent",
    "prices.life": "how long they are used",
}
"""Groups of uncertain figures in words; others are named as they are."""


def story(plan: Plan, passed: Sequence[Passed] = ()) -> list[tuple[str, str]]:
    """``(heading, paragraph)`` of each part of the story that has something to say."""
    parts = [
        ("The answer", _answer(plan)),
        ("What binds", _binds(plan)),
        ("What would help", _helps(plan)),
        ("What was ruled out", _ruled_out(plan, passed)),
        ("How sure it is", _sure(plan)),
        ("What to do next", _next(plan)),
    ]
    return [(heading, " ".join(sentences)) for heading, sentences in parts if sentences]


def _answer(plan: Plan) -> list[str]:
    certificate, p = plan.certificate, plan.prediction
    serves = "; ".join(
        f"{pool.replicas:,} x {_count(pool.devices // pool.replicas, 'device')} of {pool.hardware} for "
        f"{'prefill and decode' if pool.phase == 'mixed' else pool.phase} ({_shape(pool.configuration)})"
        for pool in plan.pools
    )
    text = [
        f"{plan.model} on {plan.hardware} for the workload {plan.workload}: {serves}.",
        f"That is {plain(certificate.objective)} {certificate.unit}, at {_or_none(p.output_tokens_per_s)} output tokens/s, "
        f"{_or_none(p.tpot_ms)} ms a token and {_or_none(p.ttft_ms)} ms to the first.",
    ]
    count = certificate.space["configurations"]["total"]
    if certificate.proved:
        text.append(
            f"By the model none of {count:,} configurations is better than {plain(certificate.bound)}: a gap of "
            f"{_percent(certificate.gap)}."
        )
    else:
        why = f"the search was stopped ({certificate.stopped})" if certificate.stopped else "the gap stayed open"
        text.append(f"A better one may exist: {why} at a gap of {_percent(certificate.gap)}.")
    return text


def _or_none(interval: Interval) -> str:
    return "-" if interval.expected is None else plain(interval.expected)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shape(c: Any) -> str:
    named = {"tp": c.tp, "attention dp": c.attention_dp, "ep": c.ep, "cp": c.context_parallel, "pp": c.pp}
    text = ", ".join(f"{name} {value}" for name, value in named.items() if value > 1) or "one device each"
    return text + (f", batch {c.batch_per_rank:,} a rank" if c.batch_per_rank else "")


def _binds(plan: Plan) -> list[str]:
    text = []
    phases: dict[str, list[str]] = {}
    for row in plan.bottlenecks:
        if row.share >= 0.005:
            sets = "" if row.phase in phases else " sets"
            phases.setdefault(row.phase, []).append(f"{row.resource}{sets} {_percent(row.share)}")
    text += [f"Of the time of a {phase} pass {', '.join(parts)}." for phase, parts in phases.items()]
    limits, p = plan.inputs["workload"], plan.prediction
    for name, interval in (("tpot", p.tpot_ms), ("ttft", p.ttft_ms)):
        limit, value = limits.get(f"{name}_s"), interval.expected
        if limit is None or value is None:
            continue
        asked = limit * 1e3
        if value >= NEAR * asked:
            text.append(f"{name.upper()} binds: {plain(value)} of the {plain(asked)} ms allowed.")
        else:
            text.append(f"{name.upper()} leaves room: {plain(value)} of {plain(asked)} ms.")
    for pool in plan.pools:
        m = pool.memory
        full = f"{m['free_bytes'] / 1e9:,.2f} of {m['usable_bytes'] / 1e9:,.2f} GB a device are free in {m['tier']}"
        below = ", ".join(f"{row['bytes'] / 1e9:,.2f} GB a device lie in {row['tier']}" for row in m["below"])
        where = f" of the {pool.phase} pool" if len(plan.pools) > 1 else ""
        text.append(f"{full}{where}{f'; {below}' if below else ''}.")
    if plan.inputs["options"].get("rate") or plan.inputs["options"].get("tokens_per_day"):
        text.append(
            f"The demand is {plain(p.requests_per_s)} requests/s of the {plain(p.capacity_requests_per_s)} that it can serve, "
            f"{plain(p.random_arrivals.most_requests_per_s)} of them if they come at random."
        )
    return text


def _helps(plan: Plan) -> list[str]:
    rows = plan.explanation.get("levers") or []
    resources = sorted((r for r in rows if r["gain"] is not None), key=lambda r: (-r["gain"], r["pool"], r["resource"]))
    worth = [r for r in resources if r["gain"] >= SLIGHT / 10]
    text = []
    if worth:
        told = "; ".join(
            f"{r['resource']}{_of(plan, r)} ({plain(r['now'])} {r['unit']} now): {_percent(r['gain'])} better, worth "
            f"{plain(r['usd_per_hour'])} USD an hour"
            for r in worth[:4]
        )
        text.append(f"In order of what 1% more on every device brings, the configuration kept: {told}.")
    idle = list(dict.fromkeys(r["resource"] for r in resources if r not in worth))
    if idle:
        text.append(
            f"{'More' if not worth else 'No more'} {_or(idle)} would {'not help' if not worth else 'help'} as things are."
        )
    for r in (r for r in rows if r["costs_usd_per_hour"] is not None):
        unit = f"one more {r['unit']} of {r['resource']}"
        if r["usd_per_hour"] <= 0.0:
            text.append(f"{unit[0].upper()}{unit[1:]} would serve no more.")
            continue
        text.append(
            f"A dollar spent on {unit} returns {r['per_usd']:.2f} USD: it serves what {plain(r['usd_per_hour'])} USD an hour "
            f"pay for now, and costs {plain(r['costs_usd_per_hour'])}."
        )
    return text


def _of(plan: Plan, row: dict[str, Any]) -> str:
    return f" of the {row['pool']} pool" if len(plan.pools) > 1 else ""


def _ruled_out(plan: Plan, passed: Sequence[Passed]) -> list[str]:
    text = []
    for phase, pool in plan.certificate.space["pools"].items():
        left = [f"{count:,} by {_RULES.get(rule, rule)}" for rule, count in pool["rejected"].items() if count]
        where = f" for the {phase} pool" if len(plan.certificate.space["pools"]) > 1 else ""
        text.append(
            f"Searched{where}, at every batch: {_count(pool['shapes'], 'way')} of cutting the model over devices"
            + (f"; left out beforehand: {', '.join(left)}." if left else ".")
        )
    rules = plan.inputs["options"].get("constraints") or []
    if rules:
        text.append(f"What you ruled out was not looked at ({', '.join(rule['name'] for rule in rules)}).")
    text += _axes(plan, passed)
    for row in plan.explanation.get("unused_memories") or []:
        text.append(_left_out(plan, row))
    return text


_RULES = {"devices": "their number of devices", "divisibility": "divisibility", "topology": "the network's topology"}


def _axes(plan: Plan, passed: Sequence[Passed]) -> list[str]:
    """Of every axis the value that comes nearest."""
    near: dict[str, list[str]] = {}
    none = []
    for axis in dict.fromkeys(row.axis for row in passed):
        rows = [row for row in passed if row.axis == axis]
        none += [f"{AXES[axis]} {row.value}" for row in rows if row.bound is None]
        rows = [row for row in rows if row.bound is not None]
        if rows:
            best = min(rows, key=lambda row: (row.at_least or 0.0, row.worse is None, row.worse or 0.0, str(row.value)))
            name = f"{AXES[axis]} {best.value}" if axis != "serving" else "aggregated serving"
            near.setdefault(_worse(best, proved=plan.certificate.proved), []).append(name)
    result = []
    if near:
        told = "; ".join(f"{_and(names)} {'is' if len(names) == 1 else 'are'} {verdict}" for verdict, names in near.items())
        how = " (from the bound that is proved to the best that was tried in device memory)" if "% to " in told else ""
        result.append(f"Of what was not chosen the nearest, axis by axis: {told}{how}.")
    if none:
        result.append(f"Within the limits nothing can be served with {_or(none)}.")
    return result


def _worse(row: Passed, *, proved: bool) -> str:
    """Between the bound and what was found."""
    least = row.at_least or 0.0
    if least <= SLIGHT:
        if row.worse is not None:
            return f"up to {_percent(row.worse)} worse"
        return "no better, as the certificate proves" if proved else "not ruled out"
    if row.worse is None:
        return f"at least {_percent(least)} worse"
    return f"{_percent(least)} to {_percent(row.worse)} worse"


def _left_out(plan: Plan, row: dict[str, Any]) -> str:
    """Why a memory holds nothing, or nothing else."""
    used = any(place.tier == row["tier"] for pool in plan.pools if pool.phase == row["pool"] for place in pool.placement)
    why = ", since everything fits above it" if row["everything_fits"] else ""
    whose = f" of the {row['pool']} pool" if len(plan.pools) > 1 else ""
    text = f"Nothing{' else' if used else ''}{whose} lies in {row['tier']}{why}"
    tried = [one for one in row["pushed"] if one["worse"] is not None]
    if tried:
        first, last = tried[0], max(tried, key=lambda one: one["worse"])
        text += f": with the {first['item']} there the plan would be {_loss(first)}"
        text += f", with the {last['item']} {_loss(last)}" if last is not first else ""
    return f"{text}."


def _loss(one: dict[str, Any]) -> str:
    waits = f", waiting for {one['resource']}" if one["resource"] else ""
    return f"{_percent(one['worse'])} worse{waits}{' and outside its limits' if one['breaks'] else ''}"


def _sure(plan: Plan) -> list[str]:
    cost, p = plan.cost.blended_interval, plan.prediction
    interval, unit = {
        "cost": (cost, f"{plan.cost.currency} per million tokens"),
        "throughput": (p.output_tokens_per_s_per_device, "output tokens/s a device"),
        "latency": (p.tpot_ms, "ms a token"),
    }[plan.objective]
    text = []
    if interval.low is not None and interval.high is not None:
        text.append(f"In eight cases of ten it lies from {plain(interval.low)} to {plain(interval.high)} {unit}.")
    rows = plan.explanation.get("uncertainty") or []
    rows = sorted(rows, key=lambda row: (-row["share"], row["figures"]))[:3]
    if rows:
        told = "; ".join(
            f"{_figures(row['figures'])}, {row['share']:.0%} of it"
            + (
                ""
                if row["low"] is None or row["high"] is None
                else f" ({plain(row['low'])} to {plain(row['high'])} if all else held)"
            )
            for row in rows
        )
        text.append(f"Most of that width comes from {told}.")
    text.append(f"It rests on {p.evidence}; the lowest grade of a figure is {plan.provenance['lowest_grade']}.")
    return text


def _figures(name: str) -> str:
    if name in FIGURES:
        return FIGURES[name]
    kind, _, rest = name.partition(".")
    if not rest:
        return name
    said = rest.replace("_", " ")
    return f"the {said} of the price basis" if kind == "prices" else f"the {kind} of {said} kernels"


def _next(plan: Plan) -> list[str]:
    text = []
    if not plan.certificate.proved:
        text.append("Let the search run on (a longer --time-limit, or --gap at what is good enough) before you decide by it.")
    limits = plan.inputs["workload"]
    for name in ("tpot", "ttft"):
        high, limit = getattr(plan.prediction, f"{name}_ms").high, limits.get(f"{name}_s")
        if limit is not None and high is not None and high > limit * 1e3 and not plan.inputs["options"].get("robust"):
            text.append(f"If {name.upper()} must hold even at the slow end ({plain(high)} ms), plan again with --slo-on high.")
            break
    rows = sorted(plan.explanation.get("uncertainty") or [], key=lambda row: (-row["share"], row["figures"]))
    if rows:
        first = rows[0]["figures"]
        text.append(
            "A quote for the systems would narrow the range most (planner cost whatif shows what prices do)."
            if first.startswith("prices.")
            else "A measurement on your own machine would narrow the range most (planner calibrate)."
        )
    if plan.idle_devices > 0:
        text.append(f"{_count(plan.idle_devices, 'device')} paid for and idle: fewer units, or --spare if that is meant.")
    text.append("Plan a variant and hold it against this one with planner diff.")
    return text


def _percent(part: float) -> str:
    """A part as a percentage of two or three digits."""
    if part <= 0.0:
        return "0%"
    return f"{part:.2%}" if part < 0.1 else f"{part:,.0%}"


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
