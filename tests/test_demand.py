"""Demand: brute force on small instances, sizing against explicit counts, formulas by hand, laws, conflicts, bad input."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import small
from test_search import MODELS, OBJECTIVES, compare

from planner.api import resolve
from planner.errors import InfeasibleError, InputError
from planner.hardware import HardwareSelection
from planner.plans import Inputs, Plan, build_context, verify_plan
from planner.plans.inputs import Objective
from planner.plans.operate import operate
from planner.plans.read import decision_of
from planner.reporter import Reporter
from planner.search import solve
from planner.search.plan import _solve
from planner.search.tables import Stop

SPLIT = {"aggregated": False}


def demanding(
    model: str = "llama", memory: float = 60e6, count: int = 1, devices: int = 2, unit: int = 1, **options: Any
) -> Inputs:
    """Small hardware under a demand; ``load`` and ``software`` go to the instance."""
    load = options.pop("load", None) or small.workload()
    software = options.pop("software", None) or small.runtime(3, (64, 256))
    return small.instance(MODELS[model](), small.node(devices, unit, memory), count, load, software, **options)


def auto(model: str = "llama", memory: float = 60e6, count: int | None = None, **options: Any) -> Inputs:
    """Nodes of two devices to be counted, or ``count`` of them."""
    load = options.pop("load", None) or small.workload()
    selection = HardwareSelection(system=small.node(2, 1, memory), count=count or 1, auto=count is None)
    return resolve(MODELS[model](), selection, workload=load, runtime=small.runtime(3, (64, 256)), **options)


@cache
def most(model: str, memory: float, **changes: Any) -> float:
    """Requests/s that two devices of this hardware serve at most."""
    load, software = small.workload(), small.runtime(3, (64, 256), **changes)
    best = solve(small.instance(MODELS[model](), small.node(2, 1, memory), 1, load, software, objective="throughput"))
    return 2 * best.certificate.objective / load.output_tokens.mean


# --- against brute force --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.3, 0.9, 1.3])
@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 12e6), ("experts", 60e6), ("experts", 25e6)])
def test_one_node_as_brute_force(model: str, memory: float, share: float) -> None:
    """Little, nearly all and more than a node can do, aggregated or one device for each phase."""
    plans = compare(demanding(model, memory, rate=share * most(model, memory)))
    assert len(plans) == (3 if share < 1.0 else 0)
    assert all(plan.prediction.requests_per_s == pytest.approx(share * most(model, memory)) for plan in plans.values())


@pytest.mark.parametrize("share", [0.4, 1.1, 1.8])
@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 20e6), ("experts", 60e6)])
@pytest.mark.parametrize("ttft_s", [None, 0.0015])
def test_disaggregated_as_brute_force(model: str, memory: float, share: float, ttft_s: float | None) -> None:
    """Two nodes that may not mix phases."""
    rate = share * most(model, memory, **SPLIT)
    software = small.runtime(3, (64, 256), **SPLIT)
    plans = compare(demanding(model, memory, 2, rate=rate, load=small.workload(ttft_s=ttft_s), software=software))
    assert {plan.mode for plan in plans.values()} <= {"disaggregated"}


@pytest.mark.parametrize("spare", [1, 2])
@pytest.mark.parametrize("aggregated", [True, False])
def test_spare_as_brute_force(spare: int, aggregated: bool) -> None:
    """What is kept idle is paid for and serves nothing."""
    software = small.runtime(2, (64,), aggregated=aggregated)
    plans = compare(demanding("llama", 60e6, 4, 2, 2, rate=0.7 * most("llama", 60e6), spare=spare, software=software))
    assert plans
    assert all(plan.idle_devices >= 2 * spare for plan in plans.values())


@pytest.mark.parametrize(
    "options",
    [
        {"max_usd_per_hour": 12.0},
        {"max_power_kw": 6.0},
        {"devices": 3},
        {"concurrency": 4},
        {"concurrency": 3, "devices": 2},
        {"spare": 1, "max_power_kw": 16.0},
    ],
)
def test_caps_with_a_demand_as_brute_force(options: dict[str, Any]) -> None:
    """Caps on money, power, devices and requests in flight hold beside a demand."""
    for ttft_s in (None, 0.002):
        for aggregated in (True, False):
            software = small.runtime(2, (64,), aggregated=aggregated)
            rate, load = 0.5 * most("llama", 60e6), small.workload(ttft_s=ttft_s)
            inputs = demanding("llama", 60e6, 2, rate=rate, load=load, software=software, **options)
            # where nothing limits TTFT, bounds take requests in flight to wait for no time
            compare(inputs, proved=lambda _, limited=ttft_s: limited is not None or "concurrency" not in options)


# --- counting hardware ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["cost", "throughput"])
@pytest.mark.parametrize(("model", "memory", "nodes"), [("llama", 60e6, 2.6), ("llama", 12e6, 1.4), ("experts", 60e6, 3.3)])
def test_auto_is_the_best_of_every_count(model: str, memory: float, nodes: float, objective: Objective) -> None:
    """What the planner counts is as good as the best of every count, one by one."""
    rate = nodes * most(model, memory)
    counted = solve(auto(model, memory, rate=rate, objective=objective))
    sign = -1.0 if objective == "throughput" else 1.0
    best = []
    for count in range(1, 9):
        try:
            best.append(sign * solve(auto(model, memory, count, rate=rate, objective=objective)).certificate.objective)
        except InfeasibleError:
            continue
    assert best
    assert counted.certificate.proved
    assert sign * counted.certificate.objective <= min(best) + 0.005 * abs(min(best))
    assert sign * counted.certificate.bound <= min(best) + 1e-9 * abs(min(best))


def test_among_the_cheapest_the_fastest() -> None:
    """Money being equal, a plan for a demand takes the deployment of least TPOT on as many units, then with larger batches."""
    inputs = demanding("llama", 60e6, rate=0.2 * most("llama", 60e6))
    plan = solve(inputs)
    units = sum(one.units for one in plan.units)
    narrow = demanding("llama", 60e6, rate=0.2 * most("llama", 60e6), devices=2, objective="latency", max_power_kw=None)
    pinned = narrow.options.model_copy(update={"devices": units})
    quick = _solve(narrow.model_copy(update={"options": pinned}), Reporter(), Stop(), explain=False)  # headroom 1
    assert plan.inputs["options"]["headroom"] == 1.0
    for mine, other in zip(plan.pools, quick.pools, strict=True):
        changed = {"batch_per_rank": other.configuration.batch_per_rank}
        assert mine.configuration.model_copy(update=changed) == other.configuration
        assert mine.configuration.batch_per_rank >= other.configuration.batch_per_rank


# --- formulas -------------------------------------------------------------------------------------------------------------


def test_tokens_of_a_day() -> None:
    """4096 + 1024 tokens a request, in use half of the day: 4.4236e9 tokens are 20 requests/s."""
    load = small.workload(isl=4096, osl=1024)
    inputs = demanding("llama", load=load, tokens_per_day=5120 * 43200 * 20.0, utilisation=0.5)
    assert build_context(inputs).demand == pytest.approx(20.0, rel=1e-12)


def test_requests_in_flight_as_a_demand() -> None:
    """100 requests of 0.5 s + 63 x 2 ms each follow one another at 100 / 0.626 a second."""
    load = small.workload(ttft_s=0.5, tpot_s=0.002)
    context = build_context(auto(load=load, concurrency=100))
    assert context.demand == pytest.approx(100 / 0.626, rel=1e-12)
    assert context.cap is None
    fixed = build_context(auto(load=load, count=2, concurrency=100))
    assert fixed.demand is None and fixed.cap == 100


def test_a_rate_is_a_demand() -> None:
    assert build_context(demanding(rate=7.5)).demand == 7.5


# --- laws -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 12e6), ("experts", 25e6)])
def test_twice_the_demand_on_twice_the_machine(model: str, memory: float, objective: Objective) -> None:
    """Two copies of a plan serve twice its demand, so the best is no worse."""
    rate = 0.8 * most(model, memory)
    one = solve(demanding(model, memory, 1, rate=rate, objective=objective))
    two = solve(demanding(model, memory, 2, rate=2 * rate, objective=objective))
    sign = -1.0 if objective == "throughput" else 1.0
    assert sign * two.certificate.bound <= sign * one.certificate.objective + 1e-9 * abs(one.certificate.objective)


@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 12e6), ("experts", 60e6)])
def test_more_demand_is_never_cheaper_and_a_spare_never_cheaper(model: str, memory: float) -> None:
    hours: list[float] = []
    for share in (0.1, 0.5, 0.9, 1.4, 1.9):
        rate = share * most(model, memory)
        plan = solve(demanding(model, memory, 2, rate=rate, max_usd_per_hour=None))
        assert plan.certificate.proved
        hours.append(plan.cost.usd_per_hour)
        if share < 1.0:
            spared = solve(demanding(model, memory, 2, rate=rate, spare=1))
            assert spared.cost.usd_per_hour >= plan.cost.usd_per_hour * (1 - 1e-9)
    assert all(after >= before * (1 - 0.005) for before, after in zip(hours, hours[1:], strict=False))


# --- plans that hold ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hardware", "options"),
    [
        ("h800-node:auto", {"rate": 20.0, "spare": 1}),
        ("prefill=h800-node:auto,decode=h20-node:auto", {"rate": 10.0}),
        ("h800-node:auto", {"concurrency": 500}),
        ("h800-node:4", {"tokens_per_day": 2e9}),
    ],
)
def test_real_plans_verify(hardware: str, options: dict[str, Any]) -> None:
    plan = solve(resolve("deepseek-v3", hardware, **options))
    assert plan.certificate.proved
    assert plan.prediction.capacity_requests_per_s >= plan.prediction.requests_per_s * (1 - 1e-9)
    assert verify_plan(plan, full=True)[0] == []
    again = solve(Inputs.model_validate(plan.inputs, context={"si": True}))
    assert again.to_json() == plan.to_json()


def test_a_demand_not_met_is_found() -> None:
    """A plan with an instance less than its demand needs does not verify."""
    plan = solve(demanding("llama", 60e6, 2, rate=1.5 * most("llama", 60e6), software=small.runtime(3, (64, 256))))
    context = build_context(Inputs.model_validate(plan.inputs, context={"si": True}))
    operation = operate(context, decision_of(plan, "plan"))
    assert operation.capacity_per_s >= context.demand * (1 - 1e-9)  # type: ignore[operator]
    data = plan.to_data()
    data["inputs"]["options"]["rate"] *= 1.5
    found = verify_plan(Plan.model_validate(data))[0]
    assert any(violation.path == "limits" and "demand" in violation.equation for violation in found)


def test_auto_needs_a_demand() -> None:
    with pytest.raises(InputError, match="auto needs a demand"):
        solve(auto())


def test_more_than_the_hardware_serves_is_infeasible() -> None:
    with pytest.raises(InfeasibleError) as caught:
        solve(demanding("llama", 60e6, rate=5 * most("llama", 60e6)))
    assert "demand" in [member["member"] for member in caught.value.conflict]
