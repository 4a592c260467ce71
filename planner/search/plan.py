"""Inputs to plan: search every variant for the objective, find the least TPOT beside it, certify, assemble."""

from __future__ import annotations

from dataclasses import replace

from planner.errors import InfeasibleError, StoppedError
from planner.plans.assemble import Certificate, assemble
from planner.plans.bounds import objective_of_merit
from planner.plans.context import build_context
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs
from planner.plans.operate import operate
from planner.plans.pareto import Front
from planner.plans.schema import Plan
from planner.plans.worth import operation_objective
from planner.reporter import Reporter
from planner.search.conflicts import explain_infeasible
from planner.search.find import NOTHING, Found, search_all
from planner.search.headroom import keeps, roomier, with_headroom
from planner.search.high import within_limits
from planner.search.maps import Maps, settled, with_maps
from planner.search.pareto import seek_front
from planner.search.robust import solve_robust
from planner.search.sizing import fastest, sized, tables_of
from planner.search.tables import LateError, Stop, Tables


def solve(inputs: Inputs, reporter: Reporter | None = None, stop: Stop | None = None, *, explain: bool = True) -> Plan:
    """The best plan of the declared space, with its certificate.

    Raises ``InfeasibleError`` with the conflict where no configuration meets the limits (without it unless ``explain``, which
    takes longer than the search), ``StoppedError`` where the time limit ended the search before any plan was found,
    ``InputError`` where inputs contradict one another.
    """
    hooks = reporter or Reporter()
    until = stop or Stop()
    if inputs.workloads:
        return solve_robust(inputs, hooks, until)
    if inputs.options.within_high and inputs.open_loop:
        plan = _open_or_closed(inputs, hooks, until, explain)
        if keeps(inputs, plan):
            return plan
    if inputs.options.within_high:
        return within_limits(inputs, lambda tightened: _open_or_closed(tightened, hooks, until, explain))
    return _open_or_closed(inputs, hooks, until, explain)


def _open_or_closed(inputs: Inputs, hooks: Reporter, until: Stop, explain: bool) -> Plan:
    """The best plan for clients that wait for one another's end, or for random arrivals where a rate is asked."""
    if not inputs.open_loop:
        return _solve(inputs, hooks, until, explain)
    return with_headroom(inputs, lambda trial: _solve(trial, hooks, until, explain))


def _solve(inputs: Inputs, hooks: Reporter, until: Stop, explain: bool) -> Plan:
    """The best plan within the workload's limits on expected values."""
    options, workload = inputs.options, inputs.workload
    hooks.stage("candidates")
    inputs, every, first = sized(inputs, hooks, until)
    hooks.stage("search")
    hooks.started(sum(p.shape_count for tables in every for p in tables.space.pools.values()))
    found = best_of(inputs, every, first, hooks, until)
    if found.decision is None:
        if found.stopped:
            raise StoppedError("stopped before any plan was found; raise --time-limit")
        if not explain:
            raise InfeasibleError("proved infeasible", [])
        hooks.stage("conflict")
        raise explain_infeasible(every, hooks, until)
    if options.objective == "latency" and workload.tpot_s is None:
        least: Found = found
    elif until.late():
        least = replace(NOTHING, stopped=until.late())
    else:
        hooks.stage("least TPOT")
        least = search_all(every, "latency", None, hooks, until)
        least = replace(least, decision=None) if least.stopped else least  # the least found so far may not be below the plan's
    if options.pareto:
        hooks.stage("front")
    front = seek_front(every, inputs, found, least, hooks, until) if options.pareto else None
    hooks.stage("plan")
    plan = certified(inputs, found, least.decision, front)
    hooks.finished(plan.certificate.objective, plan.certificate.bound)
    return plan


def best_of(inputs: Inputs, every: list[Tables], first: Found | None, hooks: Reporter, until: Stop) -> Found:
    """The best deployment with maps of its own, where a demand is met the fastest of the cheapest; ``first``: what a search of
    ``every`` has found already."""
    options, workload = inputs.options, inputs.workload
    maps: Maps = {}
    at = {tables.context.variant: tables.context for tables in every}
    mapped_tables, last = every, first

    def search(known: Maps) -> Found:
        nonlocal mapped_tables, last
        if last is not None and not known:
            return last
        try:
            mapped_tables = tables_of(inputs, known, until) if known else every
        except LateError:
            assert last is not None
            return replace(last, stopped=until.late())
        last = search_all(mapped_tables, options.objective, workload.tpot_s, hooks, until)
        return last

    found = settled(lambda decision: at[decision.variant], search, maps)
    demand = every[0].context.demand
    if found.decision is not None and demand is not None and options.objective != "latency" and not until.late():
        found = fastest(mapped_tables, found, hooks, until)
        assert found.decision is not None
        found = replace(found, decision=with_maps(at[found.decision.variant], found.decision, maps)[0])
    if found.decision is not None and every[0].context.open_loop and options.objective != "latency":
        found = replace(found, decision=roomier(at[found.decision.variant], found.decision))
    return found


def certified(inputs: Inputs, found: Found, least: Decision | None, front: Front | None = None) -> Plan:
    """The plan of a finished or stopped search."""
    assert found.decision is not None
    context = build_context(inputs, found.decision.variant)
    objective = operation_objective(context, operate(context, found.decision))
    bound = objective_of_merit(context, found.bound)
    better_is_more = inputs.options.objective == "throughput"
    bound = max(bound, objective) if better_is_more else min(bound, objective)
    data = assemble(context, found.decision, Certificate(bound, found.closed, found.stopped), least, front)
    return Plan.model_validate(data)
