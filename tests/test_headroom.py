"""Random arrivals: what a plan states of them, batches as large as limits allow, headroom until means keep the limits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import small

from planner.plans.arrivals import arrivals_of
from planner.plans.context import build_context
from planner.plans.evaluate import memory_need
from planner.plans.inputs import Inputs, Options
from planner.plans.operate import operate
from planner.plans.prediction import SHARES
from planner.plans.read import decision_of, inputs_of
from planner.plans.schema import Plan
from planner.plans.verify import verify_plan
from planner.plans.worth import checks
from planner.replay.session import Load, deployed, simulate
from planner.reporter import Reporter
from planner.search import solve
from planner.search.plan import _solve
from planner.search.tables import Stop

TTFT_S, TPOT_S = 0.004, 0.0004


def asked(rate: float | None, *, model: str = "llama", devices: int = 2, **options: Any) -> Inputs:
    software = small.runtime(64, (256, 1024), disaggregated=options.pop("disaggregated", True))
    load = small.workload(isl=700, osl=64).model_copy(
        update={"ttft_s": options.pop("ttft_s", TTFT_S), "tpot_s": options.pop("tpot_s", TPOT_S)}
    )
    made = small.llama() if model == "llama" else small.experts()
    return small.instance(made, small.node(devices, 1, 4e9), 1, load, software, rate=rate, **options)


@cache
def capacity(model: str = "llama") -> float:
    return solve(asked(None, model=model, objective="throughput")).prediction.capacity_requests_per_s


@cache
def planned(share: float, model: str = "llama", objective: str = "cost") -> Plan:
    return solve(asked(share * capacity(model), model=model, objective=objective))


@pytest.mark.parametrize(("share", "objective"), [(0.2, "cost"), (0.5, "latency"), (0.8, "throughput")])
def test_a_plan_for_a_rate_serves_it_at_random(share: float, objective: str) -> None:
    """The means stated are those that a replay finds, and within the limits."""
    plan = planned(share, objective=objective)
    told = plan.prediction
    assert told.load == "random arrivals"
    assert told.requests_per_s == pytest.approx(share * capacity(), rel=1e-9)
    assert told.random_arrivals.most_requests_per_s >= told.requests_per_s * (1 - 1e-9)
    assert told.ttft_ms.expected <= TTFT_S * 1e3
    assert told.tpot_ms.expected <= TPOT_S * 1e3
    found = simulate(deployed(plan, "plan"), Load(rate_per_s=told.requests_per_s, requests=15000, constant=True, seed=3))
    assert found.requests_per_s == pytest.approx(told.requests_per_s, rel=0.05)
    assert found.ttft_ms.mean == pytest.approx(told.ttft_ms.expected, rel=0.1)
    assert found.tpot_ms.mean == pytest.approx(told.tpot_ms.expected, rel=0.1)
    assert verify_plan(plan)[0] == []


def test_the_times_of_a_rate_are_those_of_its_row_and_hold_little_law() -> None:
    told = planned(0.5).prediction
    row = next(r for r in told.random_arrivals.loads if r.requests_per_s == told.requests_per_s)
    assert (row.ttft_ms, row.tpot_ms) == (told.ttft_ms, told.tpot_ms)
    stays = told.ttft_ms.expected + 63.0 * told.tpot_ms.expected
    assert told.concurrency == pytest.approx(told.requests_per_s * stays / 1e3, rel=1e-9)
    assert told.tokens_per_s_per_user.expected == pytest.approx(1e3 / told.tpot_ms.expected, rel=1e-9)


def test_a_plan_without_a_rate_states_full_batches_and_what_loads_below_find() -> None:
    plan = solve(asked(None))
    told = plan.prediction
    assert told.load == "full batches"
    assert (told.full_batches.ttft_ms, told.full_batches.tpot_ms) == (told.ttft_ms, told.tpot_ms)
    assert [row.share for row in told.random_arrivals.loads] == list(SHARES)
    assert plan.inputs["options"]["headroom"] == 1.0
    rows = [row for row in told.random_arrivals.loads if row.tpot_ms is not None]
    assert rows
    times = [row.tpot_ms.expected for row in rows if row.tpot_ms is not None]
    assert times == sorted(times)
    assert times[0] < told.tpot_ms.expected


def test_the_most_is_where_a_limit_or_the_capacity_is_reached() -> None:
    for limits in ({"ttft_s": None, "tpot_s": None}, {"ttft_s": None}, {"tpot_s": None}, {}):
        plan = solve(asked(None, **limits))
        inputs = inputs_of(plan, "plan")
        arrivals = arrivals_of(operate(build_context(inputs), decision_of(plan, "plan")))
        most, whole = plan.prediction.random_arrivals.most_requests_per_s, plan.prediction.capacity_requests_per_s
        assert 0.0 < most <= whole
        at, beyond = arrivals.at(most), arrivals.at(1.02 * most)
        assert at is not None
        workload = inputs.workload
        for value, limit in ((at.ttft_s, workload.ttft_s), (at.tpot_s, workload.tpot_s)):
            assert limit is None or value <= limit
        if 1.02 * most < whole and beyond is not None:
            missed = ((beyond.ttft_s, workload.ttft_s), (beyond.tpot_s, workload.tpot_s))
            assert any(limit is not None and value > limit for value, limit in missed)


@pytest.mark.parametrize("disaggregated", [True, False])
def test_the_batch_is_the_largest_that_keeps_the_limits(disaggregated: bool) -> None:
    plan = solve(asked(0.3 * capacity(), disaggregated=disaggregated))
    context, decision = build_context(inputs_of(plan, "plan")), decision_of(plan, "plan")
    last = len(decision.pools) - 1
    pool = decision.pools[last]
    assert all(check.holds for check in checks(context, operate(context, decision)))
    more = replace(pool, batch=pool.batch + 1)
    larger = replace(decision, pools=(*decision.pools[:last], more))
    fits = memory_need(context.pool(pool.phase), more.row()).short[0] <= 0.0
    assert pool.batch == 64 or not fits or not all(check.holds for check in checks(context, operate(context, larger)))


def test_where_full_batches_are_not_enough_the_plan_is_made_for_more() -> None:
    """Near its capacity a deployment keeps no limit at random; more of it does, and the certificate says for what."""
    found = [planned(share) for share in (0.5, 0.9)]
    for plan in found:
        headroom, told = plan.inputs["options"]["headroom"], plan.prediction
        assert headroom >= 1.0
        assert told.capacity_requests_per_s >= headroom * told.requests_per_s * (1 - 1e-9)
        cost = plan.cost.usd_per_hour / (told.requests_per_s * 3600.0 * plan.cost.utilisation * 764.0) * 1e6
        assert plan.certificate.objective == pytest.approx(cost, rel=1e-9)
        assert plan.certificate.bound <= plan.certificate.objective * (1 + 1e-9)
        assert verify_plan(plan, full=True)[0] == []


def test_a_rate_that_random_arrivals_are_not_served_at_says_what_is() -> None:
    plan = solve(asked(0.999 * capacity(), objective="throughput"))
    told = plan.prediction
    if told.random_arrivals.most_requests_per_s < told.requests_per_s:
        assert any("NOT served" in line for line in plan.explanation["limits"])
    else:
        assert plan.inputs["options"]["headroom"] > 1.0


def test_headroom_goes_with_a_rate() -> None:
    with pytest.raises(ValueError, match="headroom is of a rate"):
        Options(headroom=1.5)


def test_more_headroom_is_never_cheaper() -> None:
    """The richer the demand, the dearer the least deployment (law 1), whatever is sold."""
    inputs, costs = asked(0.4 * capacity(), ttft_s=None, tpot_s=None), []
    for headroom in (1.0, 2.2):
        options = inputs.options.model_copy(update={"headroom": headroom})
        plan = _solve(inputs.model_copy(update={"options": options}), Reporter(), Stop(), True)
        costs.append(plan.certificate.objective)
        assert verify_plan(plan, full=True)[0] == []
    assert costs == sorted(costs)


def test_ranks_wait_for_one_another_as_the_limit_allows() -> None:
    """One rank waits for none; several for as many requests as come meanwhile, and the mean wait leaves room for the pass."""
    plan = solve(asked(None, model="experts", devices=4, disaggregated=False))
    arrivals = arrivals_of(operate(build_context(inputs_of(plan, "plan")), decision_of(plan, "plan")))
    first = arrivals.filling
    assert replace(arrivals, filling=replace(first, dp=1)).wait_s(5.0) == 0.0
    four = replace(arrivals, mixed=True, ttft_limit_s=None, filling=replace(first, dp=4, replicas=2, pp=1))
    assert four.wait_s(16.0) == pytest.approx(4 * 4 / 8)
    pass_s = float(first.whole[0])
    for rate in (0.01, 1.0, 30.0, 1e4):
        limited = replace(four, ttft_limit_s=20 * pass_s)
        wait = limited.wait_s(rate)
        mean = wait * (1 + 1 / (1 + wait * rate / 2)) / 2
        assert wait == pytest.approx(32 / rate) or mean + pass_s == pytest.approx(0.95 * 20 * pass_s)
        assert wait <= 32 / rate * (1 + 1e-9)


def test_the_slow_end_counts_where_it_is_asked_for() -> None:
    """With --slo-on high random arrivals are carried at the slow end too."""
    limits = {"ttft_s": 4 * TTFT_S, "tpot_s": 4 * TPOT_S}
    plan = solve(asked(0.2 * capacity(), **limits, **{f"high_{name}": value for name, value in limits.items()}))
    told = plan.prediction
    assert told.ttft_ms.high is not None and told.ttft_ms.high <= 4e3 * TTFT_S * (1 + 1e-9)
    assert told.tpot_ms.high is not None and told.tpot_ms.high <= 4e3 * TPOT_S * (1 + 1e-9)
