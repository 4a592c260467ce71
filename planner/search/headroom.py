"""Random arrivals of a rate that is asked: batches as large as limits allow, and headroom until the means keep the limits.

The search plans for full batches that serve the rate. Random arrivals make batches that vary about what the rate needs, so a plan
whose batches may be no larger lets requests wait; and passes that hold what has come take more time a request than full ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.errors import InfeasibleError, StoppedError
from planner.plans.context import Context
from planner.plans.decision import Decision
from planner.plans.evaluate import memory_need
from planner.plans.inputs import Inputs
from planner.plans.operate import operate
from planner.plans.schema import Plan
from planner.plans.space import declare_space
from planner.plans.worth import checks

ROUNDS = 8
LEAST_STEP, SURE = 1.02, 1.002
"""Headroom grows by so much at least, and by so much more than what was missing."""
STEP = 1.2
"""By so much where little says how much is missing: at the slow end of the figures nothing is served at all."""
MOST_STEP = 3.0
FOR_LATENCY = (1.1, 1.25, 1.5)


def roomier(context: Context, decision: Decision) -> Decision:
    """The decision with the largest batch that lies in device memory and keeps every limit: units and devices stay the same."""
    number = len(decision.pools) - 1
    pool = decision.pools[number]
    declared = declare_space(context).pools
    limit = (declared.get(pool.phase) or declared["mixed"]).batches
    here = context.pool(pool.phase)
    if pool.basis is not None or here.displaced or here.prefix is not None:
        return decision

    def at(batch: int) -> Decision:
        return replace(decision, pools=(*decision.pools[:number], replace(pool, batch=batch)))

    def holds(batch: int) -> bool:
        trial = at(batch)
        if memory_need(here, trial.pools[number].row()).short[0] > 0.0:
            return False
        return all(check.holds for check in checks(context, operate(context, trial)))

    least, most = pool.batch, limit
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if holds(middle) else (least, middle - 1)
    return at(least)


def with_headroom(inputs: Inputs, once: Callable[[Inputs], Plan]) -> Plan:
    """The first plan whose means keep the limits at the rate asked, for the least headroom tried; where none does, the one that
    carries most. Where TPOT is the objective batches are no larger than it asks, so that several headrooms are tried for the
    least TPOT of random arrivals. Raises what ``once`` raises without headroom.
    """

    def at(headroom: float) -> Plan:
        return once(inputs.model_copy(update={"options": inputs.options.model_copy(update={"headroom": headroom})}))

    plan = best = at(1.0)
    headroom = 1.0
    for number in range(ROUNDS):
        if plan.certificate.stopped:
            break
        if inputs.options.objective == "latency" and number < len(FOR_LATENCY):
            headroom = FOR_LATENCY[number]
        elif keeps(inputs, best):
            break
        else:
            most = plan.prediction.random_arrivals.most_requests_per_s
            missing = plan.prediction.requests_per_s / most if most > 0.0 else STEP
            least = LEAST_STEP
            if inputs.options.within_high and plan.prediction.ttft_ms.high is None:
                least = max(_slow_end(plan) / headroom, STEP)
            headroom *= min(max(missing * SURE, least), MOST_STEP)
        try:
            plan = at(headroom)
        except (InfeasibleError, StoppedError):
            break
        best = max(best, plan, key=lambda found: _worth(inputs, found))
    return best


def _slow_end(plan: Plan) -> float:
    """How many times as long steps take at the slow end of the figures."""
    full = plan.prediction.full_batches.tpot_ms
    return STEP if full.high is None else full.high / full.expected


def _worth(inputs: Inputs, plan: Plan) -> tuple[bool, float]:
    """Plans that keep the limits first, of less TPOT where that is the objective; of others those that carry more."""
    kept = keeps(inputs, plan)
    if not kept:
        return False, plan.prediction.random_arrivals.most_requests_per_s
    return True, -(plan.prediction.tpot_ms.expected or 0.0) if inputs.options.objective == "latency" else 0.0


def keeps(inputs: Inputs, plan: Plan) -> bool:
    """Whether means of random arrivals at the rate asked are within the limits, and known at the slow end where that counts."""
    if plan.prediction.load != "random arrivals":
        return False
    for limit, time in ((inputs.workload.ttft_s, plan.prediction.ttft_ms), (inputs.workload.tpot_s, plan.prediction.tpot_ms)):
        if time.expected is None or (limit is not None and time.expected > limit * 1e3 * (1.0 + 1e-9)):
            return False
        if inputs.options.within_high and time.high is None:
            return False
    return True
