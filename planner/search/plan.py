"""Inputs to plan: search for the objective, find the least TPOT beside it, certify, assemble."""

from __future__ import annotations

from planner.errors import StoppedError
from planner.plans.assemble import Certificate, assemble
from planner.plans.bounds import objective_of_merit
from planner.plans.inputs import Context, Inputs, build_context
from planner.plans.operate import Decision, operate, operation_objective
from planner.plans.schema import Plan
from planner.plans.space import declare_space
from planner.reporter import Reporter
from planner.search.conflicts import explain_infeasible
from planner.search.find import Found, Search
from planner.search.tables import Stop, build_tables


def solve(inputs: Inputs, reporter: Reporter | None = None, stop: Stop | None = None) -> Plan:
    """The best plan of the declared space, with its certificate.

    Raises ``InfeasibleError`` with the conflict where no configuration meets the limits, ``StoppedError`` where the time
    limit ended the search before any plan was found, ``InputError`` where inputs contradict one another.
    """
    hooks = reporter or Reporter()
    until = stop or Stop()
    context = build_context(inputs)
    space = declare_space(context)
    tables = build_tables(context, space)
    options, workload = inputs.options, inputs.workload
    hooks.started(sum(p.shape_count for p in space.pools.values()))
    found = Search(tables, options.objective, workload.tpot_s, options.gap, hooks, until).run()
    if found.decision is None:
        if found.stopped:
            raise StoppedError("stopped before any plan was found; raise --time-limit")
        raise explain_infeasible(context, tables, hooks, until)
    if options.objective == "latency" and workload.tpot_s is None:
        least: Found = found
    else:
        least = Search(tables, "latency", None, options.gap, hooks, until).run()
    plan = certified(context, found, least.decision)
    hooks.finished(plan.certificate.objective, plan.certificate.bound)
    return plan


def certified(context: Context, found: Found, least: Decision | None) -> Plan:
    """The plan of a finished or stopped search."""
    assert found.decision is not None
    objective = operation_objective(context, operate(context, found.decision))
    bound = objective_of_merit(context, found.bound)
    better_is_more = context.inputs.options.objective == "throughput"
    bound = max(bound, objective) if better_is_more else min(bound, objective)
    data = assemble(context, found.decision, Certificate(bound, found.closed, found.stopped), least)
    return Plan.model_validate(data)
