"""Plans that hold when figures turn out badly or a node fails: the worst case, limits on the slow end, capacity after a loss."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import MODELS, OBJECTIVES, compare

from planner.api import resolve
from planner.errors import InfeasibleError, InputError
from planner.performance import perturb, resolve_rates, slow_corner, uncertain_groups
from planner.performance.load import prefill_passes
from planner.performance.serving import queue_wait
from planner.plans import Context, Inputs, Plan, build_context, verify_plan
from planner.plans.context import at_value
from planner.plans.decision import Decision
from planner.plans.evaluate import memory_need
from planner.plans.inputs import Objective
from planner.plans.operate import Operation, operate
from planner.plans.read import decision_of
from planner.plans.resilience import resilience_rows
from planner.plans.states import PoolState
from planner.search import solve

each_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def with_options(inputs: Inputs, **options: Any) -> Inputs:
    return inputs.model_copy(update={"options": type(inputs.options)(**{**inputs.options.model_dump(), **options})})


def tiny(model: str = "llama", memory: float = 20e6, nodes: int = 1, **options: Any) -> Inputs:
    load = options.pop("load", None) or small.workload(ttft_s=0.02, tpot_s=0.005)
    software = options.pop("software", None) or small.runtime(3, (64, 256))
    return small.instance(MODELS[model](), small.node(2, 1, memory), nodes, load, software, **options)


def again(plan: Plan) -> Inputs:
    return Inputs.model_validate(plan.inputs, context={"si": True})


# --- the worst case over intervals --------------------------------------------------------------------------------------


def at_point(context: Context, ends: dict[str, str], share: float) -> Context:
    """Groups of figures at their ends, memory a share of the way from its least to its most; hardware as in ``at_value``."""
    pools = {}
    for phase, pool in at_value(context).pools.items():
        system, runtime = pool.system, pool.inputs.runtime
        for group, end in ends.items():
            system, runtime = perturb(system, runtime, group, end)  # type: ignore[arg-type]
        sizes = [t.usable.lowest + share * (t.usable.highest - t.usable.lowest) for t in system.tiers]
        tiers = tuple(
            t.model_copy(update={"usable": t.usable.model_copy(update={"value": size})})
            for t, size in zip(system.tiers, sizes, strict=True)
        )
        pools[phase] = replace(pool, rates=resolve_rates(system.model_copy(update={"tiers": tiers}), runtime))
    return replace(context, pools=pools)


def first_token(context: Context, state: PoolState, rate: float) -> float:
    """TTFT of a pool that prefills ``rate`` requests/s in all."""
    decision, workload = state.decision, context.inputs.workload
    passes = float(prefill_passes(np.array([float(decision.chunk)]), workload)[0])
    period = state.seconds["prefill"] + state.seconds.get("decode", 0.0)
    each = workload.miss_tokens / decision.chunk
    busy = rate / decision.replicas * each / decision.dp * period
    wait = float(queue_wait(np.array([busy]), np.array([min(passes, each) * period]))[0])
    return (period / 2.0 if decision.batch else 0.0) + wait + (passes + decision.pp - 1.0) * period


PLANS = {
    "small": lambda: tiny(robust="intervals"),
    "small overflowing": lambda: tiny("llama", 11e6, load=small.workload(), robust="intervals"),
    "experts": lambda: tiny("experts", 36e6, load=small.workload(), robust="intervals"),
    "split": lambda: tiny("llama", 20e6, 2, software=small.runtime(3, (64, 256), aggregated=False), robust="intervals"),
    "two nodes": lambda: resolve("deepseek-v3", "h800-node:4", robust="intervals"),
}
_SOLVED: dict[str, tuple[Context, Decision, Operation]] = {}


def robust(name: str) -> tuple[Context, Decision, Operation]:
    """A plan for the worst case at work there."""
    if name not in _SOLVED:
        plan = solve(PLANS[name]())
        context = build_context(again(plan))
        _SOLVED[name] = context, decision_of(plan, "plan"), operate(context, decision_of(plan, "plan"))
    return _SOLVED[name]


@given(data=st.data())
@settings(max_examples=120, deadline=None)
def test_the_corner_is_the_worst_of_the_box(data: st.DataObject) -> None:
    """At any point of the box: no longer passes, no less served, no longer TPOT, and TTFT no longer at the corner's load."""
    context, decision, corner = robust(data.draw(st.sampled_from(sorted(PLANS))))
    groups = uncertain_groups(context.inputs.runtime)
    ends = {g: end for g in groups if (end := data.draw(st.sampled_from(["low", "high", None]), label=g)) is not None}
    point = at_point(context, ends, data.draw(st.floats(0.0, 1.0)))
    there = operate(point, decision, tuple(state.shares for state in corner.pools))
    room = 1 + 1e-9
    assert there.capacity_per_s * room >= corner.capacity_per_s
    assert there.tpot_s <= corner.tpot_s * room
    for state, worst in zip(there.pools, corner.pools, strict=True):
        assert all(state.seconds[phase] <= worst.seconds[phase] * room for phase in state.seconds)
        if state.decision.chunk:
            here, bad = (first_token(point, s, corner.requests_per_s) for s in (state, worst))
            assert here <= bad * room
            assert bad == pytest.approx(corner.ttft_s, rel=1e-6)
        row = state.decision.row()
        assert memory_need(state.pool, row).short[0] <= memory_need(worst.pool, row).short[0] + 1.0


def test_a_faster_decode_step_may_lengthen_the_wait() -> None:
    """Why the load must be kept: batches kept full, half the decode step sends more requests to prefill."""
    from planner.footprint import Shapes
    from planner.performance import mixed_serving

    load = small.workload(isl=512, osl=64)
    prefill, batch, chunk, shapes = np.array([0.04]), np.array([12.0]), np.array([128.0]), Shapes.single(1, 1, 1, 1)
    slow, fast = (mixed_serving(np.array([step]), prefill, batch, chunk, shapes, load, 1.0) for step in (0.004, 0.002))
    assert fast.ttft_s[0] > slow.ttft_s[0]
    assert fast.requests_per_s[0] > slow.requests_per_s[0]


@pytest.mark.parametrize("limited", [False, True])
@pytest.mark.parametrize(("model", "memory"), [("llama", 20e6), ("llama", 12e6), ("experts", 25e6), ("experts", 36e6)])
def test_the_worst_case_as_brute_force(model: str, memory: float, limited: bool) -> None:
    """The best plan of the corner, among all configurations at the corner."""
    compare(tiny(model, memory, load=None if limited else small.workload(), robust="intervals"))


@each_objective
def test_a_robust_plan_says_what_it_is_for(objective: Objective) -> None:
    inputs = tiny(objective=objective, robust="intervals", rate=100.0)
    plan, usual = solve(inputs), solve(with_options(inputs, robust=None))
    worst, sign = plan.worst_case, -1.0 if objective == "throughput" else 1.0
    assert worst is not None and usual.worst_case is None
    assert plan.certificate.proved and plan.certificate.unit.endswith("worst case") and "slow end" in plan.certificate.meaning
    assert sign * plan.certificate.objective >= sign * usual.certificate.bound
    assert worst.requests_per_s == 100.0
    assert worst.ttft_ms <= 20.0 * (1 + 1e-9) and worst.tpot_ms <= 5.0 * (1 + 1e-9)
    assert plan.prediction.tpot_ms.expected <= worst.tpot_ms
    assert plan.prediction.capacity_requests_per_s >= worst.requests_per_s
    assert plan.cost.usd_per_hour <= worst.usd_per_hour
    assert verify_plan(plan, full=True)[0] == []
    assert solve(again(plan)).to_json() == plan.to_json()


def test_the_corner_moves_every_figure_of_rates() -> None:
    inputs = tiny()
    system, runtime = inputs.hardware["mixed"].system, inputs.runtime
    best, worst = resolve_rates(system, runtime), resolve_rates(*slow_corner(system, runtime))
    own = next(tier for tier in system.tiers if tier.role == "device")
    assert worst.memory_bytes == own.usable.lowest < best.memory_bytes and worst.memory_bytes_per_s < best.memory_bytes_per_s
    assert worst.reserve == {name: figure.highest for name, figure in runtime.reserve}
    assert sum(worst.reserve.values()) > sum(best.reserve.values())
    assert worst.floors == {name: figure.highest for name, figure in runtime.floors}
    assert worst.residual > best.residual and worst.imbalance >= best.imbalance
    cornered = slow_corner(system, runtime)[0]
    assert cornered.capex.value == system.capex.highest and cornered.power.value == system.power.highest


def test_a_changed_worst_case_is_found() -> None:
    data = solve(tiny(robust="intervals")).to_data()
    data["worst_case"]["tpot_ms"] *= 0.99
    assert [v.path for v in verify_plan(Plan.model_validate(data))[0]] == ["worst_case.tpot_ms"]


# --- limits on the slow end ---------------------------------------------------------------------------------------------


@each_objective
@pytest.mark.parametrize("rate", [None, 300.0])
def test_the_slow_end_keeps_the_limits(objective: Objective, rate: float | None) -> None:
    load = small.workload(ttft_s=0.006, tpot_s=0.0009)
    inputs = resolve(
        MODELS["llama"](),
        tiny(nodes=2).hardware,
        workload=load,
        runtime=small.runtime(6, (64, 256)),
        objective=objective,
        rate=rate,
        slo_on="high",
    )
    plan = solve(inputs)
    assert plan.prediction.ttft_ms.high <= 6.0 * (1 + 1e-9)  # type: ignore[operator]
    assert plan.prediction.tpot_ms.high <= 0.9 * (1 + 1e-9)  # type: ignore[operator]
    assert plan.certificate.proved and "90th percentile" in plan.certificate.meaning
    assert verify_plan(plan, full=True)[0] == []
    assert again(plan).workload.tpot_s <= 0.0009  # type: ignore[operator]
    assert solve(again(plan)).to_json() == plan.to_json()


def test_a_slow_end_beyond_its_limit_is_found() -> None:
    inputs = resolve(
        MODELS["llama"](), tiny().hardware, workload=small.workload(tpot_s=0.001), runtime=small.runtime(), slo_on="high"
    )
    data = solve(inputs).to_data()
    data["inputs"]["options"]["high_tpot_s"] = 1e-3 * data["prediction"]["tpot_ms"]["high"] * 0.99
    assert "prediction.tpot_ms.high" in [v.path for v in verify_plan(Plan.model_validate(data))[0]]


def test_a_slow_end_out_of_reach_is_infeasible() -> None:
    """The least TPOT there is meets the limit as an expected value, its slow end does not."""
    free = small.workload()
    least = solve(tiny(load=free, objective="latency")).prediction.tpot_ms
    limit = math.sqrt(least.expected * least.high) / 1e3  # type: ignore[operator]
    load = small.workload(tpot_s=limit)
    assert solve(tiny(load=load)).certificate.proved
    with pytest.raises(InfeasibleError, match="90th percentile"):
        solve(resolve(MODELS["llama"](), tiny().hardware, workload=load, runtime=small.runtime(3, (64, 256)), slo_on="high"))


def test_a_slow_end_needs_a_limit() -> None:
    with pytest.raises(InputError, match="no limits"):
        resolve(MODELS["llama"](), tiny().hardware, workload=small.workload(), runtime=small.runtime(), slo_on="high")


# --- capacity after a loss ----------------------------------------------------------------------------------------------


def rows_of(decision: Decision, devices: int = 4, unit: int = 4, count: int = 4, **options: Any) -> list[dict[str, Any]]:
    inputs = small.instance(
        MODELS["llama"](), small.node(devices, unit, 60e6), count, small.workload(), small.runtime(4), **options
    )
    context = build_context(inputs)
    return resilience_rows(context, decision, operate(context, decision))


@pytest.mark.parametrize(
    ("tp", "pp", "replicas", "units", "of", "lost", "restarted"),
    [
        (1, 1, 16, 4, "node", 4, 0),  # four instances a node, all in use
        (1, 1, 10, 4, "node", 4, 4),  # six devices idle
        (1, 1, 2, 4, "node", 2, 2),
        (2, 1, 7, 4, "node", 2, 1),  # two devices idle hold one of the two
        (4, 2, 2, 4, "node", 1, 0),  # an instance over two nodes; one node is left of it
        (4, 2, 1, 3, "node", 1, 1),  # one left and one idle
        (4, 1, 3, 4, "unit", 1, 1),
        (1, 1, 16, 4, "system", 4, 0),
    ],
)
def test_what_is_lost_and_what_starts_again(
    tp: int, pp: int, replicas: int, units: int, of: str, lost: int, restarted: int
) -> None:
    """Counts by hand: nodes of four devices, four of them."""
    from planner.plans.decision import PoolDecision

    inputs = small.instance(MODELS["llama"](), small.node(4, 4, 60e6), 4, small.workload(), small.runtime(4))
    pool = PoolDecision("mixed", replicas, tp, 1, 1, pp, 2, 64)
    (row,) = rows_of(Decision((pool,), (units,), inputs.options.variants[0]), spare_of=of)
    assert (row["instances_lost"], row["instances_restarted"]) == (lost, restarted)
    assert row["share"] == pytest.approx((replicas - lost) / replicas)
    assert row["share_restarted"] == pytest.approx((replicas - lost + restarted) / replicas)


def test_a_spare_node_restores_what_is_asked() -> None:
    """With a spare of what fails everything asked is served again; without, never more than before."""
    rate = 3000.0
    inputs = small.instance(MODELS["llama"](), small.node(2, 2, 60e6), 6, small.workload(), small.runtime(4), rate=rate)
    spared, bare = solve(with_options(inputs, spare=1)), solve(inputs)
    assert all(row.share_restarted == 1.0 for row in spared.resilience)
    assert all(row.share <= row.share_restarted <= 1.0 for row in bare.resilience)
    assert any(row.share < 1.0 for row in bare.resilience)
    assert any("fails" in line for line in spared.explanation["resilience"])


def test_a_loss_on_either_side() -> None:
    """Half of the prefill pool gone, decode may serve no more than the other half fills."""
    software = small.runtime(3, (64, 256), aggregated=False)
    plan = solve(small.instance(MODELS["llama"](), small.node(2, 1, 60e6), 4, small.workload(), software))
    assert [row.pool for row in plan.resilience] == ["prefill", "decode"]
    for row in plan.resilience:
        assert 0.0 <= row.requests_per_s <= row.requests_per_s_restarted <= plan.prediction.capacity_requests_per_s * (1 + 1e-9)
    data = plan.to_data()
    data["resilience"][0]["instances_lost"] += 1
    assert [v.path for v in verify_plan(Plan.model_validate(data))[0]] == ["resilience.0.instances_lost"]
