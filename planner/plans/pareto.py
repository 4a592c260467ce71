"""The Pareto front of a plan: cost (or throughput) against tokens per second of one user, each point with a bound of its own.

A point is the best deployment whose TPOT is within the point's limit: its bound speaks of everything in the space within that
limit. Limits between the ends have five significant digits; the last point has the workload's own limit, or none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from planner.plans.context import Context, at_variant
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs, Objective, Options, Variant
from planner.plans.numbers import relative_gap
from planner.plans.operate import Operation
from planner.plans.worth import blended_usd, checks, operation_objective
from planner.quantities import round12

Violated = tuple[str, str, Any, Any]
LIMIT_DIGITS = 5
LIMITS = f"front: limits have {LIMIT_DIGITS} digits, rise, and end at the workload's"
GAP = "front: gap = |objective - bound| / |objective|"
UNITS = {"cost": "USD per million tokens, blended", "throughput": "output tokens/s per device paid for"}
UNITS_OF = {**UNITS, "latency": "ms per output token"}


@dataclass(frozen=True)
class Point:
    """A decision, the TPOT limit it is the best within (ms; ``None`` = no limit), the bound on the front's objective within that
    limit in its printed unit, and the nodes that a placement closed."""

    limit_ms: float | None
    decision: Decision
    bound: float
    nodes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Front:
    """Points from the fastest to the cheapest, why no more were sought if a search was stopped, and the points at work."""

    points: tuple[Point, ...]
    stopped: str | None = None
    operations: tuple[Operation, ...] = field(default=(), repr=False)


def front_objective(options: Options) -> Literal["cost", "throughput"]:
    """What stands against speed."""
    return "throughput" if options.objective == "throughput" else "cost"


def at_objective(context: Context, objective: Objective) -> Context:
    """The same problem with another objective."""
    options = context.inputs.options.model_copy(update={"objective": objective})
    return replace(context, inputs=context.inputs.model_copy(update={"options": options}))


def front_context(context: Context) -> Context:
    """The same problem with the front's objective."""
    return at_objective(context, front_objective(context.inputs.options))


def outer_limit_ms(inputs: Inputs) -> float | None:
    """The limit of the last point: the workload's."""
    limit = inputs.workload.tpot_s
    return None if limit is None else round12(limit * 1e3)


def limit_seconds(inputs: Inputs, limit_ms: float | None) -> float | None:
    """A point's limit in seconds."""
    if limit_ms is None or limit_ms == outer_limit_ms(inputs):
        return inputs.workload.tpot_s
    return limit_ms / 1e3


def short_limit_ms(seconds: float, *, up: bool = False) -> float:
    """A limit (ms) at the digits that the plan states, ``up``: no less than ``seconds``."""
    exact = seconds * 1e3
    value = float(f"{exact:.{LIMIT_DIGITS}g}")
    if up and value < exact:
        value += 10.0 ** (math.floor(math.log10(exact)) + 1 - LIMIT_DIGITS)
    return float(f"{value:.{LIMIT_DIGITS}g}")


def contexts_of(context: Context, front: Front) -> dict[Variant, Context]:
    """The problem with the front's objective in every variant that its points have."""
    return {
        variant: front_context(at_variant(context, variant))
        for variant in dict.fromkeys(point.decision.variant for point in front.points)
    }


def front_data(context: Context, front: Front, pools_of: Callable[[Decision], list[dict[str, Any]]]) -> dict[str, Any]:
    """The front as the plan states it. ``pools_of``: the short form of a decision's pools."""
    contexts, options = contexts_of(context, front), context.inputs.options
    rows = [
        _row(contexts[point.decision.variant], point, operation, pools_of)
        for point, operation in zip(front.points, front.operations, strict=True)
    ]
    result: dict[str, Any] = {
        "objective": front_objective(options),
        "unit": UNITS[front_objective(options)],
        "proved": front.stopped is None and all(row["gap"] <= options.gap for row in rows),
        "points": rows,
    }
    if front.stopped:
        result["stopped"] = front.stopped
    return result


def _row(
    context: Context, point: Point, operation: Operation, pools_of: Callable[[Decision], list[dict[str, Any]]]
) -> dict[str, Any]:
    objective, bound = round12(operation_objective(context, operation)), round12(point.bound)
    return {
        "tpot_limit_ms": point.limit_ms,
        "tokens_per_s_per_user": 1.0 / operation.tpot_s,
        "tpot_ms": operation.tpot_s * 1e3,
        "ttft_ms": operation.ttft_s * 1e3,
        "usd_per_million_blended": blended_usd(context, operation.usd_per_hour, operation.requests_per_s),
        "output_tokens_per_s_per_device": operation.requests_per_s
        * context.inputs.workload.output_tokens.mean
        / operation.devices_paid,
        "objective": objective,
        "bound": bound,
        "gap": relative_gap(objective, bound),
        "units": list(operation.units),
        "pools": pools_of(point.decision),
        "nodes": dict(sorted(point.nodes.items())),
    }


def front_violations(context: Context, front: Front) -> list[Violated]:
    """``(path, equation, expected, found)`` for what the numbers of a front, each right by itself, must satisfy together: limits
    hold, bounds are no worse than the points, no point is dominated, and the last has the workload's limit."""
    contexts, options = contexts_of(context, front), context.inputs.options
    sign = -1.0 if front_objective(options) == "throughput" else 1.0
    found: list[Violated] = []
    if options.pareto is None or not 1 <= len(front.points) <= options.pareto:
        found.append(("pareto.points", "front: as many points as asked for, or fewer", options.pareto, len(front.points)))
    if front.points and front.points[-1].limit_ms != outer_limit_ms(context.inputs):
        last = f"pareto.points.{len(front.points) - 1}.tpot_limit_ms"
        found.append((last, LIMITS, outer_limit_ms(context.inputs), front.points[-1].limit_ms))
    before: tuple[float, float, float] | None = None
    for number, (point, operation) in enumerate(zip(front.points, front.operations, strict=True)):
        path, here = f"pareto.points.{number}", contexts[point.decision.variant]
        limit = float("inf") if point.limit_ms is None else point.limit_ms
        if point.limit_ms not in (None, outer_limit_ms(context.inputs)) and limit != short_limit_ms(limit / 1e3):
            found.append((f"{path}.tpot_limit_ms", LIMITS, short_limit_ms(limit / 1e3), limit))
        if operation.tpot_s * 1e3 > limit * (1.0 + 1e-9):
            found.append((f"{path}.tpot_ms", "front: TPOT within the point's limit", limit, operation.tpot_s * 1e3))
        for check in checks(here, operation):
            if not check.holds:
                found.append((path, f"limit: {check.name} ({check.unit})", f"at most {check.limit:.9g}", check.value))
        objective = operation_objective(here, operation)
        if sign * point.bound > sign * objective + 1e-9 * abs(objective):
            found.append((f"{path}.bound", GAP, objective, point.bound))
        rank = (limit, operation.tpot_s, -sign * objective)
        if before is not None and not all(a < b for a, b in zip(before, rank, strict=True)):
            found.append((path, "front: slower points are better, and no point dominates another", before, rank))
        before = rank
    return found
