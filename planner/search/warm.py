"""Warm re-planning: the new optimum, alternatives nearer to what serves now, and the plan that moves least for what it gains."""

from __future__ import annotations

from dataclasses import replace

from planner.errors import InfeasibleError
from planner.plans.assemble import assemble
from planner.plans.bounds import objective_of_merit
from planner.plans.context import Context, at_variant, build_context
from planner.plans.decision import Decision
from planner.plans.experts import ExpertMap
from planner.plans.inputs import Inputs, Previous
from planner.plans.operate import operate
from planner.plans.read import certificate_of, decision_of, front_of, inputs_of, least_of, previous_of
from planner.plans.schema import FrontPool, Plan
from planner.plans.transition import (
    OPTIMUM,
    Row,
    Transition,
    choose,
    old_operation,
    restricted,
    rules_of,
    undominated,
    weigh,
)
from planner.plans.worth import checks, operation_objective
from planner.reporter import Reporter
from planner.search.plan import best_of, solve
from planner.search.sizing import tables_of
from planner.search.tables import Stop


def take_over(inputs: Inputs, plan: Plan, where: str = "plan") -> Inputs:
    """The inputs with the plan that serves now; what both have alike is not kept twice."""
    old = inputs_of(plan, where)
    names = ("model", "hardware", "workload", "runtime")
    changed = {name: getattr(old, name) for name in names if getattr(old, name) != getattr(inputs, name)}
    keys = ("phase", "replicas", "devices", "configuration", "placement_basis")
    pools = tuple(FrontPool(**{key: getattr(pool, key) for key in keys}) for pool in plan.pools)
    units = tuple(unit.units for unit in plan.units)
    previous = Previous(**changed, options=old.options, units=units, pools=pools, experts=tuple(plan.experts or ()))
    return inputs.model_copy(update={"previous": previous})


def replan(inputs: Inputs, reporter: Reporter | None = None, stop: Stop | None = None) -> Plan:
    """The plan that takes over from ``inputs.previous``, with what it moves and the alternatives to it.

    Raises what ``solve`` raises, and ``InfeasibleError`` where no alternative is within ``Options.max_move_bytes``.
    """
    hooks, until = reporter or Reporter(), stop or Stop()
    optimum = solve(inputs, hooks, until)
    inputs = inputs_of(optimum, "plan")
    assert inputs.previous is not None
    old = previous_of(inputs.previous, "plan")
    decision, certificate = decision_of(optimum, "plan"), certificate_of(optimum)
    rows = [Row(OPTIMUM, decision, certificate.bound)]
    context = build_context(inputs, decision.variant)
    stopped = certificate.stopped or until.reason()
    if not inputs.options.within_high:
        for name, rules in rules_of(old).items():
            if stopped is None and rules:
                row, stopped = _alternative(inputs, name, rules, old, hooks, until)
                rows += [row] if row else []
    serving = old_operation(inputs, old)
    weighed = [weigh(context, row, serving, old)[0] for row in rows]
    sign = -1.0 if inputs.options.objective == "throughput" else 1.0
    chosen = choose(weighed, sign * certificate.bound, inputs.options.gap, inputs.options.max_move_bytes)
    if chosen is None:
        raise _too_much(inputs, min(row.bytes for row in weighed))
    by_name = {row.name: row for row in rows}
    transition = Transition(old, tuple(by_name[name] for name in undominated(weighed, chosen)), chosen, stopped)
    decision = by_name[chosen].decision
    context = at_variant(context, decision.variant)
    front = front_of(optimum, "plan")
    if front is not None:
        at_work = (operate(at_variant(context, point.decision.variant), point.decision) for point in front.points)
        front = replace(front, operations=tuple(at_work))
    data = assemble(context, decision, certificate, least_of(optimum, "plan"), front, transition)
    return Plan.model_validate(data)


def _alternative(
    inputs: Inputs, name: str, rules: tuple[str, ...], old: Decision, hooks: Reporter, until: Stop
) -> tuple[Row | None, str | None]:
    """The best deployment under these pins (``None`` if there is none), and why the search stopped early, if it did."""
    inside = restricted(inputs, rules)
    if inside is None:
        return None, None
    every = tables_of(inside)
    found = best_of(inside, every, None, hooks, until)
    if found.decision is None or found.stopped:
        return None, found.stopped
    context = build_context(inside, found.decision.variant)
    decision = _with_old_maps(context, found.decision, old.experts)
    objective = operation_objective(context, operate(context, decision))
    bound = objective_of_merit(context, found.bound)
    bound = max(bound, objective) if inside.options.objective == "throughput" else min(bound, objective)
    return Row(name, decision, bound, found.closed), None


def _with_old_maps(context: Context, decision: Decision, maps: tuple[ExpertMap, ...]) -> Decision:
    """The decision with its experts where they are, if they can stay there within every limit and nothing lies below."""
    if not decision.experts or any(pool.basis is not None for pool in decision.pools):
        return decision
    kept = []
    for new in decision.experts:
        alike = [one for one in maps if (one.ranks, one.slots) == (new.ranks, new.slots)]
        same = next((one for one in alike if one.phase == new.phase), alike[0] if alike else new)
        kept.append(replace(same, phase=new.phase))
    staying = replace(decision, experts=tuple(kept))
    return staying if all(check.holds for check in checks(context, operate(context, staying))) else decision


def _too_much(inputs: Inputs, least: int) -> InfeasibleError:
    most = inputs.options.max_move_bytes or 0.0
    relief = f"allow {least / 1e9:.6g} GB"
    member = {
        "member": "--max-move-bytes",
        "detail": f"at most {most / 1e9:.6g} GB may move",
        "least_relief": relief,
        "amount": float(least),
        "unit": "bytes",
    }
    what = "no alternative that meets the load moves so little; other plans between them were not searched"
    return InfeasibleError(f"{what}: {relief}", [member])
