"""Shadow prices of networks and units against evaluating and solving again, and shares of bottlenecks that sum to one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.hardware import HardwareSelection, System
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.context import Context, build_context
from planner.plans.decision import Decision, PoolDecision
from planner.plans.lp import encode_basis
from planner.plans.marginal import unit_prices
from planner.plans.operate import Operation, operate
from planner.plans.read import decision_of
from planner.plans.schema import ShadowPrice
from planner.plans.sensitivity import bottleneck_rows
from planner.plans.states import pool_problem, pool_state
from planner.plans.worth import checks, operation_objective
from planner.search import solve
from planner.search.tier_lp import solve_tiers

MODELS = {"llama": small.llama(layers=8, hidden=256, inner=512, vocabulary=512), "experts": small.experts(layers=4)}


def system(memory: float = 60e6, devices: int = 2, unit: int = 1) -> System:
    return small.node(devices, unit, memory)


def inputs_of(name: str, **options: Any) -> Inputs:
    """Small problems, each with another mode of serving or another bottleneck."""
    model, node, count, limits = {
        "fits": ("llama", system(), 2, (None, None)),
        "streams": ("llama", system(8e6), 1, (None, None)),
        "experts": ("experts", system(), 2, (0.002, 0.0006)),
        "apart": ("llama", system(40e6), 2, (0.0012, 0.0002)),
        "wide": ("experts", system(25e6, 4, 2), 2, (None, None)),
    }[name]
    load = small.workload(ttft_s=limits[0], tpot_s=limits[1])
    return small.instance(MODELS[model], node, count, load, **options)


def split_inputs(first: int = 2, second: int = 3, **options: Any) -> Inputs:
    """Prefill and decode on hardware of their own."""
    base = small.instance(MODELS["llama"], system(40e6, 1), 1, small.workload(ttft_s=0.002), **options)
    other = system(40e6, 1).model_copy(update={"id": "other-node"})
    hardware = {
        "prefill": HardwareSelection(system=system(40e6, 1), count=first),
        "decode": HardwareSelection(system=other, count=second),
    }
    return base.model_copy(update={"hardware": hardware})


@cache
def planned(name: str, objective: str = "cost") -> tuple[Inputs, Plan]:
    inputs = split_inputs(objective=objective) if name == "split" else inputs_of(name, objective=objective)
    return inputs, solve(inputs)


def at_work(inputs: Inputs, plan: Plan) -> tuple[Context, Decision, Operation]:
    decision = decision_of(plan, "plan")
    context = build_context(inputs, decision.variant)
    return context, decision, operate(context, decision)


NAMES = ("fits", "streams", "experts", "apart", "wide", "split")
each = pytest.mark.parametrize("name", NAMES)
each_objective = pytest.mark.parametrize("objective", ["cost", "throughput", "latency"])


def unit_rows(plan: Plan) -> list[ShadowPrice]:
    return [row for row in plan.shadow_prices if row.unit.startswith("unit of ")]


# --- bottlenecks -----------------------------------------------------------------------------------------------------------


@each
@each_objective
def test_bottleneck_shares_of_a_phase_sum_to_one(name: str, objective: str) -> None:
    _, plan = planned(name, objective)
    phases = {(row.pool, row.phase) for row in plan.bottlenecks}
    assert phases == {(pool.phase, phase) for pool in plan.pools for phase in pool.step}
    for key in phases:
        shares = [row.share for row in plan.bottlenecks if (row.pool, row.phase) == key]
        assert sum(shares) == pytest.approx(1.0, abs=1e-10)  # of figures of 12 digits
        assert min(shares) > 0.0 and shares == sorted(shares, reverse=True)


@given(data=st.data())
@settings(max_examples=60)
def test_bottleneck_shares_sum_to_one_wherever_things_lie(data: st.DataObject) -> None:
    model, memory = data.draw(st.sampled_from(sorted(MODELS))), data.draw(st.sampled_from([60e6, 25e6, 14e6, 9e6]))
    pool = build_context(small.instance(MODELS[model], system(memory), 2)).pools["mixed"]
    phase = data.draw(st.sampled_from(["mixed", "decode", "prefill"]))
    shape = data.draw(st.sampled_from([(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (1, 1, 1, 2), (1, 4, 4, 1)]))
    batch, chunk = 0 if phase == "prefill" else data.draw(st.integers(1, 6)), 0 if phase == "decode" else 64
    decision = PoolDecision(phase, 1, *shape, batch, chunk, basis="needed")
    problem, _ = pool_problem(pool, decision)
    solution = solve_tiers(problem)
    if solution is None:
        return
    state = pool_state(pool, replace(decision, basis=encode_basis(solution.basis)))
    rows = bottleneck_rows(state)
    for number in state.decision.phases:
        assert sum(row["share"] for row in rows if row["phase"] == number) == pytest.approx(1.0, abs=1e-12)


# --- networks ----------------------------------------------------------------------------------------------------------------


def faster(inputs: Inputs, key: str, domain_id: str) -> Inputs:
    """The same inputs with 1 GB/s more of a domain."""
    selection = inputs.hardware[key]
    domains = tuple(
        d.model_copy(update={"bandwidth": small.exactly(d.bandwidth, d.bandwidth.value + 1e9)}) if d.id == domain_id else d
        for d in selection.system.domains
    )
    changed = HardwareSelection(system=selection.system.model_copy(update={"domains": domains}), count=selection.count)
    return inputs.model_copy(update={"hardware": {**inputs.hardware, key: changed}})


@pytest.mark.parametrize("name", ["fits", "streams", "experts", "wide", "split"])
@each_objective
def test_a_network_is_worth_what_evaluating_again_says(name: str, objective: str) -> None:
    inputs, plan = planned(name, objective)
    context, decision, operation = at_work(inputs, plan)
    if len(decision.pools) == 2 and not context.separate:
        return  # both pools would change
    for row in plan.shadow_prices:
        domain = row.resource.removesuffix(" bandwidth")
        key = row.pool if context.separate else "mixed"
        known = {d.id: d for d in context.pools[key].system.domains}
        if domain not in known or row.unit != "GB/s":
            continue
        after = operate(build_context(faster(inputs, key, domain), decision.variant), decision, operation.placed)
        change = operation_objective(context, after) - operation_objective(context, operation)
        assert row.objective_per_unit == pytest.approx(change, rel=1e-9, abs=1e-15)
        assert row.objective_per_unit * (-1.0 if objective == "throughput" else 1.0) <= 0.0
        devices = next(p.devices for p in decision.pools if p.phase == row.pool)
        worth = (after.requests_per_s / operation.requests_per_s - 1.0) * operation.usd_per_hour / devices
        assert row.usd_per_hour_per_unit == pytest.approx(worth, rel=1e-9, abs=1e-15)
        assert row.valid_from == pytest.approx(known[domain].bandwidth.value / 1e9) and row.valid_to == row.valid_from + 1.0


def test_every_network_that_is_crossed_has_a_price() -> None:
    """Two instances of a device each cross none; where caches are handed over, the outermost is worth something."""
    seen = {}
    for name in NAMES:
        inputs, plan = planned(name)
        networks = {d.id for s in inputs.hardware.values() for d in s.system.domains}
        found = {(r.pool, r.resource.removesuffix(" bandwidth")) for r in plan.shadow_prices if r.unit == "GB/s"}
        seen[name] = {entry for entry in found if entry[1] in networks}
        for pool in plan.pools:
            shape = pool.configuration
            devices = shape.tp * shape.attention_dp * shape.pp
            crossed = any(pool_name == pool.phase for pool_name, _ in seen[name])
            assert crossed or devices == 1
    assert ("decode", "scale-out") in seen["split"]


# --- units --------------------------------------------------------------------------------------------------------------------


def grown(context: Context, decision: Decision, operation: Operation, index: int, units: int) -> float:
    """The most requests/s with so many units more of a kind of hardware: every count of instances tried one by one."""
    keys = list(context.pools)
    counts = tuple(n + units if i == index else n for i, n in enumerate(decision.units))
    best = 0.0
    pool = context.pools[keys[index]]
    here = [i for i, p in enumerate(decision.pools) if not context.separate or p.phase == keys[index]]
    room = counts[index] * pool.unit_devices - pool.spare_devices
    ranges = [range(1, room // p.instance_devices + 1) if i in here else [p.replicas] for i, p in enumerate(decision.pools)]
    for replicas in np.array(np.meshgrid(*ranges)).reshape(len(ranges), -1).T:
        pools = tuple(replace(p, replicas=int(n)) for p, n in zip(decision.pools, replicas, strict=True))
        if sum(pools[i].devices for i in here) <= room:
            after = operate(context, Decision(pools, counts, decision.variant), operation.placed)
            limits = [check for check in checks(context, after) if not check.name.startswith(("units", "money", "--devices"))]
            if all(check.holds for check in limits):
                best = max(best, after.requests_per_s)
    return best


@each
@each_objective
def test_a_unit_is_worth_what_the_best_use_of_it_says(name: str, objective: str) -> None:
    inputs, plan = planned(name, objective)
    context, decision, operation = at_work(inputs, plan)
    rows = unit_rows(plan)
    assert [row.pool for row in rows] == list(context.pools)
    for index, row in enumerate(rows):
        assert row.valid_to is not None
        step = round(row.valid_to - row.valid_from)
        assert row.valid_from == decision.units[index] and step >= 1
        best = grown(context, decision, operation, index, step)
        worth = (best / operation.requests_per_s - 1.0) * operation.usd_per_hour / step
        assert row.usd_per_hour_per_unit == pytest.approx(max(worth, 0.0), rel=1e-9, abs=1e-12)
        given_free = replace(operation, requests_per_s=max(best, operation.requests_per_s))
        change = (operation_objective(context, given_free) - operation_objective(context, operation)) / step
        assert row.objective_per_unit == pytest.approx(change, rel=1e-9, abs=1e-15)
        for fewer in range(1, step):  # less than the step holds nothing that serves more
            assert grown(context, decision, operation, index, fewer) <= operation.requests_per_s * (1 + 1e-9)


@pytest.mark.parametrize("name", ["fits", "streams", "experts", "wide"])
def test_solving_with_the_units_added_serves_what_the_price_says(name: str) -> None:
    """Choosing anew can only serve more for the money: the price is what is sure."""
    inputs, plan = planned(name)
    (row,) = unit_rows(plan)
    assert row.valid_to is not None
    selection = inputs.hardware["mixed"]
    more = round(row.valid_to - row.valid_from) * selection.system.purchasable_devices
    node, had = selection.system, plan.units[0].units * selection.system.purchasable_devices
    count = -(-(had + more) // node.devices)
    again = solve(inputs.model_copy(update={"hardware": {"mixed": HardwareSelection(system=node, count=count)}}))
    worth = row.usd_per_hour_per_unit * more / node.purchasable_devices
    per_usd = plan.prediction.requests_per_s * (1 + worth / plan.cost.usd_per_hour)
    usd = plan.cost.usd_per_hour * (1 + more / had)
    assert again.prediction.requests_per_s / again.cost.usd_per_hour >= per_usd / usd * (1 - inputs.options.gap - 1e-9)


def test_an_instance_that_fills_the_unit_doubles_the_service() -> None:
    """One node in all: another is worth what this one costs, and the cost per token stays what it is if it is paid for."""
    inputs = small.instance(MODELS["llama"], system(40e6, 1), 1)
    plan = solve(inputs)
    (row,) = unit_rows(plan)
    assert row.unit == "unit of 1 device" and row.resource == "small-node" and (row.valid_from, row.valid_to) == (1.0, 2.0)
    assert row.usd_per_hour_per_unit == pytest.approx(plan.cost.usd_per_hour, rel=1e-9)
    assert row.objective_per_unit == pytest.approx(-plan.certificate.objective / 2, rel=1e-9)
    assert any("one more unit of 1 device of small-node is worth" in line for line in plan.explanation["worth"])


def test_units_of_which_several_are_needed() -> None:
    """An instance of two devices and units of one: two at once, each worth half of what both add."""
    inputs = small.instance(MODELS["llama"], system(40e6, 2, 1), 1)
    context = build_context(inputs)
    decision = Decision((PoolDecision("mixed", 1, 2, 1, 1, 1, 4, 64),), (2,), context.variant)
    operation = operate(context, decision)
    (price,) = unit_prices(context, operation)
    assert (price.valid_from, price.valid_to) == (2.0, 4.0)
    assert price.usd_per_hour == pytest.approx(operation.usd_per_hour / 2, rel=1e-9)
    idle = replace(decision, units=(3,))  # one device idles already
    (price,) = unit_prices(context, operate(context, idle))
    assert (price.valid_from, price.valid_to) == (3.0, 4.0)


def test_what_a_demand_or_a_limit_leaves_over_is_worth_nothing() -> None:
    free = solve(small.instance(MODELS["llama"], system(40e6, 1), 2))
    assert unit_rows(free)[0].usd_per_hour_per_unit > 0.0
    served, power = free.prediction.requests_per_s, 1.001 * free.units[0].units * system(40e6, 1).power.value / 1e3
    running = int(free.prediction.concurrency)
    for options in ({"rate": served / 2}, {"rate": served}, {"max_power_kw": power}, {"concurrency": running}):
        plan = solve(small.instance(MODELS["llama"], system(40e6, 1), 2, **options))
        (row,) = unit_rows(plan)
        assert row.usd_per_hour_per_unit == 0.0 and row.objective_per_unit == 0.0, options
        networks = [r for r in plan.shadow_prices if r.unit == "GB/s" and "rate" in options]
        assert all(r.usd_per_hour_per_unit == 0.0 for r in networks)


def test_a_pool_that_does_not_bind_is_worth_nothing() -> None:
    """Of two kinds of hardware one limits the deployment; a second decode node helps only where prefill has room."""
    inputs, plan = planned("split")
    rows = {row.pool: row.usd_per_hour_per_unit for row in unit_rows(plan)}
    assert set(rows) == {"prefill", "decode"} and min(rows.values()) == 0.0


@each
def test_prices_are_verified(name: str) -> None:
    _, plan = planned(name)
    assert verify_plan(plan)[0] == []
    for index, row in enumerate(plan.shadow_prices):
        changed = plan.model_copy(deep=True)
        object.__setattr__(changed.shadow_prices[index], "usd_per_hour_per_unit", row.usd_per_hour_per_unit + 1.0)
        assert [v.path for v in verify_plan(changed)[0]] == [f"shadow_prices.{index}.usd_per_hour_per_unit"]
