"""Random arrivals of a rate that is asked: batches as large as limits allow, and headroom until the means keep the limits.

The search plans for full batches that serve the rate. Random arrivals make batches that vary about what the rate needs, so a plan
whose batches may be no larger lets requests wait; and passes that hold what has come take more time a request than full ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from planner.errors import InfeasibleError, StoppedError
from planner.plans.context import Context
from planner.plans.decision import Decision
from planner.plans.evaluate import memory_need
from planner.plans.inputs import Inputs
from planner.plans.intervals import within_high
from planner.plans.operate import operate
from planner.plans.schema import Plan
from planner.plans.space import declare_space
from planner.plans.worth import checks

ROUNDS = 8
LEAST_STEP, SURE = 1.02, 1.002
"""Headroom grows by so much at least, and by so much more than what was missing."""
STEP = 1.2
"""By so much at least where little says how much is missing: at the slow end of the figures the rate is not carried at all."""
SLOW_STEP, MOST_STEP = 1.08, 3.0
"""By so much where the slow end misses a limit, and by so much at most."""
FOR_LATENCY = (1.1, 1.3)
"""Headrooms tried where TPOT is the objective."""


def roomier(context: Context, decision: Decision) -> Decision:
    """The decision with the largest batch that lies in device memory and keeps every limit, and with prefill instances on what
    would be idle: it occupies the same units."""
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
        found = operate(context, trial)
        return math.isfinite(found.ttft_s + found.tpot_s) and all(check.holds for check in checks(context, found))

    least, most = pool.batch, limit
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if holds(middle) else (least, middle - 1)
    return _busier(context, at(least))


def _busier(context: Context, decision: Decision) -> Decision:
    """The decision with further prefill instances on devices that are paid for and idle, unless constraints split them."""
    if len(decision.pools) < 2 or any(rule.axis and rule.axis[1] == "devices" for rule in context.inputs.options.constraints):
        return decision
    prefill, decode = decision.pools
    more = replace(decision, pools=(replace(prefill, replicas=prefill.replicas + 1), decode))
    while all(check.holds for check in checks(context, operate(context, more))):
        prefill, decision = more.pools[0], more
        more = replace(decision, pools=(replace(prefill, replicas=prefill.replicas + 1), decode))
    return decision


def with_headroom(inputs: Inputs, once: Callable[[Inputs], Plan]) -> Plan:
    """The first plan whose means keep the limits at the rate asked, for the least headroom tried; where none does, the one that
    carries most. Where TPOT is the objective batches are no larger than it asks, so that several headrooms are tried for the
    least TPOT of random arrivals. Raises what ``once`` raises without headroom.
    """

    def at(headroom: float) -> Plan:
        return once(inputs.model_copy(update={"options": inputs.options.model_copy(update={"headroom": headroom})}))

    plan = best = at(1.0)
    headroom, served, impossible = 1.0, 1.0, math.inf
    for number in range(ROUNDS):
        if plan.certificate.stopped:
            break
        if inputs.options.objective == "latency" and number < len(FOR_LATENCY):
            headroom = FOR_LATENCY[number]
        elif keeps(inputs, best):
            break
        elif math.isinf(impossible):
            headroom = served * _step(inputs, plan, served)
        else:
            headroom = math.sqrt(served * impossible)
        if headroom >= impossible:
            headroom = math.sqrt(served * impossible)
        try:
            plan = at(headroom)
        except StoppedError:
            break
        except InfeasibleError:
            impossible = headroom
            continue
        served = headroom
        best = max(best, plan, key=lambda found: _worth(inputs, found))
    return best


def _step(inputs: Inputs, plan: Plan, headroom: float) -> float:
    """By how much the headroom of a plan is to grow."""
    told = plan.prediction
    most, least = told.random_arrivals.most_requests_per_s, LEAST_STEP
    if inputs.options.within_high:
        late = told.ttft_ms.high is None or told.tpot_ms.high is None
        least = max(_slow_end(plan) / headroom, STEP) if late else SLOW_STEP
    missing = told.requests_per_s / most if most > 0.0 else STEP
    return min(max(missing * SURE, least), MOST_STEP)


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
    """Whether means of random arrivals at the rate asked are within the limits, at the slow end too where that counts."""
    if plan.prediction.load != "random arrivals":
        return False
    options, workload, told = inputs.options, inputs.workload, plan.prediction
    if inputs.cap is not None and told.concurrency > inputs.cap * (1.0 + 1e-9):
        return False
    for limit, high, time in (
        (workload.ttft_s, options.high_ttft_s, told.ttft_ms),
        (workload.tpot_s, options.high_tpot_s, told.tpot_ms),
    ):
        if limit is not None and time.expected > limit * 1e3 * (1.0 + 1e-9):
            return False
        if options.within_high and (time.high is None or (high is not None and not within_high(time.high, high))):
            return False
    return True
