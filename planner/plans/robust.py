"""One deployment for a set of workloads: what it is worth, its bound, and what the plan says of it.

A *deployment* is the variant, the units, and of every pool the instances, the shape and the prefill pass; a map of experts too.
All workloads are served by the same one, one at a time. What each may set for itself, since a restart or less does it, is the
running batch and the placement over memories: the placement is then a program of that workload alone, proved by a basis of its
own, where one placement for all would couple the programs of all workloads.

The objective is the worst over the workloads: the dearest token, the fewest tokens/s a device, the longest time per token. Let
M_w(x, y) be what workload w makes of deployment x with batch and placement y, to be maximised, infeasible = 0. The best is
``max_x min_w max_y M_w(x, y)``. For any set X of deployments and any bounds ``B_w >= max_y M_w(x, y)`` for all x in X,

    max over x in X of min_w max_y M_w(x, y)  <=  min_w max over x in X of max_y M_w(x, y)  <=  min_w B_w,

since a minimum is no more than each of its parts. So the worst of the workloads' own bounds of a cell bounds what one deployment
of that cell does for all of them, and the smaller the cells, the closer: they are rows, of one shape and prefill pass each.

In a pool of both phases M_w grows with nothing but its rate: instances and units that are best for one workload are best for all
(``packing`` depends on the size of an instance), or, under a demand, the most that any of them needs. Of two pools M_w is the
lesser of two sides, and ``min_w min(p_w, d_w) = min(min_w p_w, min_w d_w)``: each side's worst is independent of the other's.

*Scale.* Merits of different workloads compare once multiplied by the tokens of a request that the objective counts, as merit x
tokens is what a USD or a device yields. Under a demand R_w a deployment either serves all or does not count, and it charges the
same for each: then merit / R_w, one over the charge, is compared, and the objective is that of the workload which makes least
of that charge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from planner.errors import InputError
from planner.plans.bounds import merit_of_objective, objective_of_merit
from planner.plans.context import Context, build_context
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs, Variant
from planner.plans.operate import Operation, operate
from planner.plans.worth import operation_objective

if TYPE_CHECKING:
    from planner.workload import Workload

Violated = tuple[str, str, Any, Any]
SAME = "robust: one deployment serves every workload; batch and placement are each one's own"
EACH = "robust: one row for every workload, in the order of the inputs"
WORST = "robust: the plan is that of the workload that fares worst"


@dataclass(frozen=True)
class Served:
    """One workload: the deployment with that workload's batch and placement, and the nodes that a placement closed for it."""

    decision: Decision
    nodes: dict[str, str] = field(default_factory=dict)
    operation: Operation | None = field(default=None, repr=False)
    """The decision at work, if it is known."""


def refuse_sets(workloads: Sequence[Workload], robust: bool) -> None:
    """``InputError`` where several workloads are given without a word on what they are for, or too few with it."""
    names = [workload.id for workload in workloads]
    if robust and len(names) < 2:
        raise InputError("needs two workloads or more", where="--robust workloads", mend="give --workload several times")
    if len(names) > 1 and not robust:
        said = f"{len(names)} workloads are given"
        raise InputError(said, where="--workload", mend="add --robust workloads for one deployment that serves all")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{twice} is given twice", where="--workload", mend="give each workload once")


def at_workload(inputs: Inputs, workload: Workload) -> Inputs:
    """The problem of one workload of a set alone."""
    options = inputs.options.model_copy(update={"robust": None})
    return inputs.model_copy(update={"workload": workload, "workloads": (), "options": options})


def alone(inputs: Inputs) -> list[Inputs]:
    """The problem of every workload of a set alone, in their order."""
    return [at_workload(inputs, workload) for workload in inputs.workloads]


def contexts_of(inputs: Inputs, variant: Variant) -> list[Context]:
    """The context of every workload of a set in a variant."""
    return [build_context(one, variant) for one in alone(inputs)]


def scale(context: Context, objective: str) -> float:
    """What a workload's merit is multiplied by before it is compared with that of others."""
    workload = context.inputs.workload
    if objective == "latency":
        return 1.0
    if context.demand is not None:
        return 1.0 / context.demand
    tokens = workload.output_tokens.mean
    return tokens if objective == "throughput" else tokens + workload.input_tokens.mean


def joint_objective(contexts: Sequence[Context], merit: float) -> float:
    """A merit of the set in the objective's printed unit: that of the workload which makes least of it."""
    objective = contexts[0].inputs.options.objective
    values = [objective_of_merit(context, merit / scale(context, objective)) for context in contexts]
    return min(values) if objective == "throughput" else max(values)


def joint_merit(contexts: Sequence[Context], value: float) -> float:
    """The inverse of ``joint_objective``, which is proportional to the merit or to its inverse."""
    objective = contexts[0].inputs.options.objective
    return max(merit_of_objective(context, value) * scale(context, objective) for context in contexts)


def deciding(contexts: Sequence[Context], operations: Sequence[Operation]) -> int:
    """The workload that fares worst; of equals (to 1e-12 relative) the first."""
    sign = -1.0 if contexts[0].inputs.options.objective == "throughput" else 1.0
    worth = [sign * operation_objective(*pair) for pair in zip(contexts, operations, strict=True)]
    worst = max(worth)
    return next(i for i, value in enumerate(worth) if value >= worst - 1e-12 * abs(worst))


def deployment(decision: Decision) -> Decision:
    """A decision without what a workload may set for itself."""
    pools = tuple(replace(pool, batch=0, basis=None, period_s=None) for pool in decision.pools)
    return replace(decision, pools=pools, experts=())


def operated(contexts: Sequence[Context], rows: Sequence[Served]) -> list[Operation]:
    """Every workload's decision at work."""
    return [row.operation or operate(context, row.decision) for context, row in zip(contexts, rows, strict=True)]


def robust_violations(contexts: Sequence[Context], rows: Sequence[Served], chosen: Decision, worst: str) -> list[Violated]:
    """``(path, equation, expected, found)`` for rows, each right by itself, that do not go together: all workloads share the
    chosen deployment, and the chosen decision is that of the workload ``worst``, which fares worst."""
    found: list[Violated] = []
    for number, row in enumerate(rows):
        if deployment(row.decision) != deployment(chosen):
            found.append((f"robust.{number}.pools", SAME, str(deployment(chosen)), str(deployment(row.decision))))
    names = [context.inputs.workload.id for context in contexts]
    if found or names[number := deciding(contexts, operated(contexts, rows))] != worst:
        return found or [("workload", WORST, names[number], worst)]
    if rows[number].decision != chosen:
        found.append((f"robust.{number}.pools", WORST, str(chosen), str(rows[number].decision)))
    return found
