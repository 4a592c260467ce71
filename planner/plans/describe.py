"""The explanation of a plan in words, each sentence computed from the plan's own numbers."""

from __future__ import annotations

import math
from typing import Any

from planner.plans.context import Context
from planner.plans.operate import Operation
from planner.plans.pareto import UNITS_OF
from planner.plans.prefix import ITEM
from planner.plans.prefix_rows import cache_binds, prefix_lines
from planner.plans.tier_rows import tier_rows
from planner.plans.unused import unused_rows
from planner.workload import Workload

WORTH_PRINTING_USD = 1e-4
"""Smaller hourly values per unit and device are not put into words; ``shadow_prices`` has them all."""


def gb(value: float) -> str:
    """Bytes as GB with two decimals."""
    return f"{value / 1e9:.2f} GB"


def explanation_of(context: Context, operation: Operation, least: Operation | None, plan: dict[str, Any]) -> dict[str, Any]:
    """``summary`` lines, what binds, what lies below device memory and what that costs, conversions, and limits."""
    inputs = context.inputs
    workload = inputs.workload
    lines = [
        f"{operation.mode} serving of {inputs.model.id} on {plan['hardware']}: "
        + "; ".join(
            f"{s.decision.phase} pool {s.decision.replicas} x (tp {s.decision.tp}, attention dp {s.decision.dp}, "
            f"ep {s.decision.ep}, pp {s.decision.pp})"
            for s in operation.pools
        )
    ]
    for phase, resource, share in _leading(plan):
        lines.append(f"{phase} is bound by {resource} for {share:.0%} of its time")
    conversions = []
    for pool in plan["pools"]:
        for change in pool["dtypes"]["conversions"]:
            text = (
                f"{pool['hardware']} does not compute in {change['from']}: those weights are converted to {change['to']} "
                "(never to fewer bits); the effect on quality is not modelled"
            )
            if text not in conversions:
                conversions.append(text)
    offload = []
    for state, pool in zip(operation.pools, plan["pools"], strict=True):
        for row in pool["placement"]:
            if row["tier"] != pool["memory"]["tier"] and ITEM not in row["item"]:
                where = f"{row['share']:.1%} of {row['item']} ({gb(row['bytes'])}) lies in {row['tier']}, {row['access']}"
                offload.append(f"{pool['phase']} pool: {where}")
        for kept in plan.get("prefix_cache", []) if "prefill" in state.decision.phases else []:
            offload += [
                f"{pool['phase']} pool: {tier['share']:.1%} of the prefix cache ({gb(tier['bytes'])}) lies in {tier['tier']}, "
                "fetched ahead of the pass that needs it"
                for tier in kept["tiers"]
                if tier["tier"] != pool["memory"]["tier"]
            ]
        for phase in state.decision.phases:
            extra = _exposed(state, phase)
            if extra > 0.0 and any(row["tier"] != pool["memory"]["tier"] for row in pool["placement"]):
                offload.append(
                    f"{pool['phase']} pool: fetching it adds {extra * 1e3:.3f} ms to each {phase} pass of the slowest stage"
                )
    limits = []
    if workload.tpot_s is not None:
        limits.append(f"TPOT {operation.tpot_s * 1e3:.2f} ms of the {workload.tpot_s * 1e3:g} ms allowed, with full batches")
    if workload.ttft_s is not None:
        limits.append(f"TTFT {operation.ttft_s * 1e3:.0f} ms of the {workload.ttft_s * 1e3:g} ms allowed, with full batches")
    limits += _random(context, plan["prediction"])
    if workload.tpot_s is None and workload.ttft_s is None and inputs.options.objective == "cost":
        limits.append("no limit on TTFT or TPOT: the cheapest plan may be slow; set them with --ttft and --tpot")
    for name, limit in (("tpot", workload.tpot_s), ("ttft", workload.ttft_s)):
        interval = plan["prediction"][f"{name}_ms"]
        high = interval["high"]
        asked = getattr(inputs.options, f"high_{name}_s")
        if asked is not None:
            limits.append(
                f"{name.upper()} {high or math.inf:.4g} ms at the slow end of the model's interval, of the {asked * 1e3:g} ms "
                "allowed"
            )
        elif not {"worst_case", "robust"} & set(plan) and limit is not None and high is not None and high > limit * 1e3:
            limits.append(
                f"limits bind the expected mean; at the slow end of the model's interval {name.upper()} is {high:.0f} ms: "
                "plan with --slo-on high to stay within the limit even then"
            )
    if context.open_loop and plan["prediction"]["ttft_ms"]["high"] is None and not {"worst_case", "robust"} & set(plan):
        limits.append(
            "at the slow end of the model's interval the requests/s asked are not carried: plan with --slo-on high for hardware "
            "that carries them even then"
        )
    if "worst_case" in plan:
        worst = plan["worst_case"]
        limits.append(
            f"with every figure of profile and runtime at its slow end: {worst['output_tokens_per_s']:.6g} output tokens/s at "
            f"{worst['usd_per_million_blended']:.4g} USD per million tokens; serving no more than these "
            f"{worst['requests_per_s']:.6g} requests/s it keeps its limits wherever the figures lie in their intervals"
        )
    if least is not None:
        limits.append(f"the least TPOT in the space that meets the other limits is {least.tpot_s * 1e3:.4f} ms")
    worth = []
    for row in plan["shadow_prices"]:
        if row["unit"].startswith("unit"):
            count = round(row["valid_to"] - row["valid_from"])
            many = f" where {count} are added at once" if count > 1 else ""
            worth.append(
                f"one more {row['unit']} of {row['resource']} is worth {row['usd_per_hour_per_unit']:.4g} USD an hour{many}, and "
                f"costs {context.pools[row['pool']].usd_per_unit_hour:.4g}"
            )
        elif row["usd_per_hour_per_unit"] >= WORTH_PRINTING_USD:
            worth.append(
                f"one more {row['unit']} of {row['resource']} on each device of the {row['pool']} pool is worth "
                f"{row['usd_per_hour_per_unit']:.4g} USD per device and hour, the configuration kept"
            )
    curve = workload.prefix_cache
    if curve is not None:
        lines += prefix_lines(plan.get("prefix_cache", []), len(curve.points) - 1, cache_binds(operation)) or [
            f"no prefix cache: each of the {len(curve.points) - 1} points of the workload's curve serves no better than none"
        ]
    for row in plan.get("experts", ()):
        copies = row["ranks"] * row["slots_per_rank"] - 1 - max(max(layer) for layer in row["physical_to_logical"])
        load = row["fullest_over_mean"]
        lines.append(
            f"{row['pool']} pool: experts lie on {row['ranks']} ranks of {row['slots_per_rank']} slots a layer, {copies} of them "
            f"copies; the fullest rank has {load['mean']:.4g} times the mean load (no map goes below {load['bound']:.4g}); "
            "the map is experts[] of the plan"
        )
    return {
        "summary": lines,
        "below_device_memory": offload or ["everything lies in device memory"],
        "tiers": tier_rows(context, operation),
        "unused_memories": unused_rows(context, operation),
        "conversions": conversions,
        "limits": limits,
        **({"robust": _robust(context, plan["robust"])} if "robust" in plan else {}),
        "resilience": [_loss(row) for row in plan["resilience"]],
        "worth": worth,
        "defaults": [
            f"workload {workload.id}: {workload.input_tokens.mean:g} tokens in, {workload.output_tokens.mean:g} out, "
            f"prefix hits {workload.prefix_hit:.1%}{_hits(workload)} ({workload.source})",
            f"runtime {inputs.runtime.id}: {inputs.runtime.name}{_fitted(context, plan)}",
            f"price basis {plan['cost']['basis']} of {plan['cost']['as_of']}{_at(inputs.prices.site)}, "
            f"utilisation {context.utilisation:g}",
            *_loop(context, plan["prediction"]),
        ],
    }


BURSTY = 1.1
"""Variation of the times between arrivals from which they count as bursts."""


def _random(context: Context, told: dict[str, Any]) -> list[str]:
    """What random arrivals find within the limits, and what passes wait for."""
    workload, found = context.inputs.workload, told["random_arrivals"]
    most, asked, lines = found["most_requests_per_s"], told["requests_per_s"], []
    if found["prefill_wait_ms"]:
        lines.append(
            f"an instance starts a prefill pass once every rank has a request for it, or one has waited "
            f"{found['prefill_wait_ms']:.0f} ms (at this load): ranks that have none would idle through it"
        )
    limited = workload.ttft_s is not None or workload.tpot_s is not None
    within = "within the limits" if limited else "without a queue that grows"
    if context.open_loop and most < asked * (1.0 - 1e-9):
        lines.append(
            f"{asked:.4g} requests/s at random are NOT served {within}: {most:.4g} are; give more hardware, a lower --rate, or "
            "longer limits"
        )
    else:
        lines.append(
            f"up to {most:.4g} requests/s at random are served {within}, of {told['capacity_requests_per_s']:.4g} in full batches"
        )
    lengths = (("input", workload.input_tokens), ("output", workload.output_tokens))
    uneven = [f"{name} lengths by {one.coefficient_of_variation:.0%}" for name, one in lengths if one.coefficient_of_variation]
    if workload.arrivals is not None and (workload.arrivals.variation or 1.0) > BURSTY:
        uneven.append(f"times between arrivals by {workload.arrivals.variation:.0%} (at random 100%)")
    if uneven and context.open_loop:
        lines.append(
            f"NOTE: that is of requests alike at random; here {', '.join(uneven)} of the mean vary: queues are longer, by far "
            "near what is served at most: planner simulate PLAN says by how much"
        )
    return lines


def _loop(context: Context, told: dict[str, Any]) -> list[str]:
    """The load that the prediction is of."""
    if context.asked is None:
        return [f"closed loop of {told['concurrency']:.0f} requests in flight"]
    headroom = context.inputs.options.headroom
    lines = [
        f"{told['requests_per_s']:.6g} requests/s asked of the {told['capacity_requests_per_s']:.6g} that full batches serve; "
        f"about {told['concurrency']:.0f} in flight; times are those of {told['load']}"
    ]
    if headroom > 1.0:
        lines.append(f"planned for {headroom:.4g} times the requests/s asked, so that random arrivals keep the limits")
    return lines


def _fitted(context: Context, plan: dict[str, Any]) -> str:
    """By what the runtime was calibrated, and what that means here."""
    found = context.inputs.runtime.calibrated
    by = "" if found is None else f"; {found.calibration}"
    return f"{by}; {plan['prediction']['evidence']}"


def _hits(workload: Workload) -> str:
    """What a hit costs."""
    if workload.prefix_cache is not None:
        how = "chosen from the curve; entries are kept and brought back, writing them out is not charged"
        return f" ({how}; curve: {workload.prefix_cache.source})"
    if not workload.prefix_hit:
        return ""
    return " (the entries lie in device memory already: keeping and loading them is not charged)"


def _leading(plan: dict[str, Any]) -> list[tuple[str, str, float]]:
    seen: dict[str, tuple[str, str, float]] = {}
    for row in plan["bottlenecks"]:
        label = row["phase"] if row["pool"] == row["phase"] else f"{row['phase']} ({row['pool']} pool)"
        seen.setdefault(label, (label, row["resource"], row["share"]))
    return list(seen.values())


def _exposed(state: Any, phase: str) -> float:
    """Seconds of the slowest stage beyond a pass with everything in device memory."""
    resident = state.passes[phase].stage_times()[state.times.slowest[phase]]
    return float(state.seconds[phase] - float(resident[0]) * state.pool.rates.residual)


def _loss(row: dict[str, Any]) -> str:
    """One loss in words."""
    text = (
        f"if a {row['fails']} of the {row['pool']} pool fails, {row['instances_lost']} of {row['instances']} instances stop: "
        f"{row['requests_per_s']:.6g} requests/s remain, {row['share']:.1%} of what is served"
    )
    if not row["instances_restarted"]:
        return f"{text}; no idle devices hold another instance"
    again = "it starts" if row["instances_restarted"] == 1 else f"{row['instances_restarted']} start"
    after = f"{row['requests_per_s_restarted']:.6g} requests/s ({row['share_restarted']:.1%})"
    return f"{text}; {again} again on idle devices, for {after}"


def _robust(context: Context, rows: list[dict[str, Any]]) -> list[str]:
    """Who decides, how the others fare, and under a demand whose load fills the deployment most."""
    inputs, unit = context.inputs, UNITS_OF[context.inputs.options.objective]
    chosen = next(row for row in rows if row["workload"] == inputs.workload.id)
    others = "; ".join(f"{row['workload']} {row['objective']:.4g}" for row in rows if row is not chosen)
    lines = [
        f"one deployment serves {', '.join(row['workload'] for row in rows)}, one at a time, each at its own batch and placement",
        f"{chosen['workload']} decides: it fares worst, at {chosen['objective']:.4g} {unit}; {others}",
    ]
    if context.demand is not None:
        filled = [(row["prediction"]["requests_per_s"] / row["prediction"]["capacity_requests_per_s"], row) for row in rows]
        share, fullest = max(filled, key=lambda entry: entry[0])
        lines.append(f"{fullest['workload']} fills it most: its demand is {share:.1%} of what the deployment can serve of it")
    return lines


def _at(site: str | None) -> str:
    return "" if site is None else f" with electricity, PUE and life of site {site}"
