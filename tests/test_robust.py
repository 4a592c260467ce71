"""One deployment for a set of workloads: against brute force, against each workload alone, and against changed plans."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import small
from test_search import MODELS, OBJECTIVES, BruteForce, Feasible

from planner.api import plan as make_plan
from planner.api import resolve
from planner.errors import InfeasibleError, InputError, StoppedError
from planner.hardware import HardwareSelection
from planner.plans import Inputs, Plan, read_plan, verify_plan
from planner.plans.assemble import assemble
from planner.plans.closure import space_violations
from planner.plans.context import Context, build_context
from planner.plans.decision import Decision
from planner.plans.inputs import Objective
from planner.plans.operate import operate
from planner.plans.read import certificate_of, decision_of, inputs_of, robust_of
from planner.plans.robust import SAME, WORST, Served, alone, contexts_of, deployment, joint_merit, joint_objective
from planner.plans.worth import operation_objective
from planner.search import Stop, solve
from planner.workload import Workload

Run = Callable[..., tuple[int, str, str]]


def several(loads: list[Workload], model: str = "llama", memory: float = 60e6, nodes: int = 1, **options: Any) -> Inputs:
    """A small planning problem of several workloads."""
    serving = {name: options.pop(name, True) for name in ("aggregated", "disaggregated")}
    software = small.runtime(3, (64, 256), **serving)
    named = [load.model_copy(update={"id": f"load-{number}"}) for number, load in enumerate(loads)]
    system = small.node(2, 1, memory, options.pop("host", 1e9))
    selection = HardwareSelection(system=system, count=nodes)
    return resolve(MODELS[model](), selection, workload=named, runtime=software, robust="workloads", **options)


def compare(inputs: Inputs) -> list[Plan]:
    """Search and brute force side by side for every objective: what is feasible does not depend on it."""
    every = [BruteForce(one).run() for one in alone(inputs)]
    plans = [_compare(with_objective(inputs, objective), every) for objective in OBJECTIVES]
    return [plan for plan in plans if plan is not None]


def with_objective(inputs: Inputs, objective: Objective) -> Inputs:
    return inputs.model_copy(update={"options": inputs.options.model_copy(update={"objective": objective})})


def by_hand(inputs: Inputs, every: list[list[Feasible]]) -> tuple[float, dict[Decision, list[float]]]:
    """The best worst case over every decision: each workload takes its own best batch and placement on every deployment."""
    sign = -1.0 if inputs.options.objective == "throughput" else 1.0
    best: list[dict[Decision, float]] = []
    for one, feasible in zip(alone(inputs), every, strict=True):
        here: dict[Decision, float] = {}
        context = build_context(one)
        for entry in feasible:
            key = deployment(entry.decision)
            here[key] = min(sign * operation_objective(context, entry.operation), here.get(key, float("inf")))
        best.append(here)
    together = {key: [values[key] for values in best] for key in best[0] if all(key in values for values in best)}
    return min((max(values) for values in together.values()), default=float("inf")), together


def _compare(inputs: Inputs, every: list[list[Feasible]]) -> Plan | None:
    sign = -1.0 if inputs.options.objective == "throughput" else 1.0
    best, together = by_hand(inputs, every)
    try:
        plan = solve(inputs)
    except InfeasibleError as error:
        assert not together, f"the search found nothing ({error}), yet {next(iter(together))} serves all"
        return None
    certificate = plan.certificate
    assert certificate.proved
    if together:  # a placement under a TTFT limit may be missing from the ladder of the brute force
        assert sign * certificate.bound <= best + 1e-9 * abs(best)
        assert sign * certificate.objective <= best + (inputs.options.gap + 1e-9) * abs(best)
    whole = all(name.split()[3] == "mixed" for row in plan.robust or () for name in row.nodes)
    assert verify_plan(plan, full=whole)[0] == []
    return plan


LOADS = {
    "alike": [small.workload(256, 64), small.workload(200, 80)],
    "apart": [small.workload(64, 128), small.workload(1024, 16, hit=0.5), small.workload(256, 64)],
    "limited": [small.workload(256, 64, 0.002, 0.0006), small.workload(512, 32, 0.004, 0.0008)],
}


@pytest.mark.parametrize("loads", LOADS)
@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 12e6), ("experts", 60e6), ("experts", 25e6)])
def test_one_node(model: str, memory: float, loads: str) -> None:
    compare(several(LOADS[loads], model, memory))


@pytest.mark.parametrize(("model", "memory", "loads"), [("llama", 60e6, "apart"), ("llama", 12e6, "limited")])
def test_two_pools(model: str, memory: float, loads: str) -> None:
    plans = compare(several(LOADS[loads], model, memory, 2, aggregated=False))
    assert {plan.mode for plan in plans} <= {"disaggregated"}


@pytest.mark.parametrize("turned", [False, True])
def test_instances_are_those_that_the_heaviest_needs(turned: bool) -> None:
    """In pools of both phases: a light workload alone would do with fewer instances on fewer units."""
    loads = [small.workload(64, 16), small.workload(700, 100)][:: -1 if turned else 1]
    inputs = several(loads, nodes=2, rate=600.0, disaggregated=False)
    needed = [solve(one).units[0].units for one in alone(inputs)]
    assert needed[0] != needed[1]
    for plan in compare(inputs):
        assert plan.units[0].units == max(needed) or plan.objective == "latency"
        assert all(row.prediction.requests_per_s == pytest.approx(600.0) for row in plan.robust or ())


def test_two_kinds_of_hardware() -> None:
    """Pools of their own: one node of little memory to prefill, one of twice the devices to decode."""
    pools = {
        "prefill": HardwareSelection(system=small.node(1, 1, 20e6), count=2),
        "decode": HardwareSelection(system=small.node(2, 1, 60e6), count=1),
    }
    loads = [load.model_copy(update={"id": f"load-{number}"}) for number, load in enumerate(LOADS["apart"])]
    inputs = resolve(MODELS["llama"](), pools, workload=loads, runtime=small.runtime(2, (64, 256)), robust="workloads")
    assert [plan.mode for plan in compare(inputs)] == ["disaggregated"] * 3


def test_a_search_out_of_time_says_so() -> None:
    """The best so far with its honest gap, or nothing."""
    stop = Stop()
    stop.interrupted = True
    inputs = several(LOADS["apart"], nodes=2)
    try:
        plan = solve(inputs, None, stop)
    except StoppedError:
        return
    assert plan.certificate.stopped == "interrupted" and not plan.certificate.proved
    assert verify_plan(plan, full=True)[0] == []


@pytest.mark.parametrize("aggregated", [True, False])
@pytest.mark.parametrize("rate", [20.0, 2500.0])
def test_a_demand(rate: float, aggregated: bool) -> None:
    """Units follow the workload that needs most of them, the dearest token may be another's."""
    compare(several(LOADS["apart"], memory=60e6, nodes=2, rate=rate, aggregated=aggregated))


def drawn(seed: int) -> Inputs:
    """A random small problem."""
    draw = random.Random(seed)

    def load() -> Workload:
        limits = draw.choice([(None, None), (None, None), (0.002, None), (None, 0.0005), (0.003, 0.0008)])
        isl, osl = draw.choice([32, 100, 256, 700]), draw.choice([8, 40, 64, 200])
        return small.workload(isl, osl, *limits, hit=draw.choice([0.0, 0.0, 0.5]))

    model = draw.choice(["llama", "experts"])
    memory = draw.choice([60e6, 40e6, 25e6, 20e6, 16e6, 12e6])
    options: dict[str, Any] = {"nodes": draw.choice([1, 1, 2])}
    options["aggregated"] = options["nodes"] == 1 or draw.random() < 0.4
    options["host"] = draw.choice([1e9, 1e9, 8e6])
    if draw.random() < 0.3:
        options["rate"] = draw.choice([10.0, 300.0, 1500.0])
    return several([load() for _ in range(draw.choice([2, 2, 3]))], model, memory, **options)


@pytest.mark.parametrize("seed", range(8))
def test_random_problems(seed: int) -> None:
    compare(drawn(seed))


@pytest.mark.parametrize("seed", range(100, 112))
def test_no_workload_fares_better_alone(seed: int) -> None:
    """What serves all is a deployment of each: none of them can be better off than the best of its own."""
    inputs = with_objective(drawn(seed), OBJECTIVES[seed % 3])
    sign = -1.0 if inputs.options.objective == "throughput" else 1.0
    try:
        plan = solve(inputs)
    except InfeasibleError:
        return
    assert plan.robust is not None
    worst = max(sign * row.objective for row in plan.robust)
    assert sign * plan.certificate.objective == worst
    for row, one in zip(plan.robust, alone(inputs), strict=True):
        best = solve(one).certificate
        assert sign * best.bound <= sign * row.objective + 1e-9 * abs(row.objective)
        assert sign * best.bound <= worst + 1e-9 * abs(worst)


def test_merit_and_objective_are_inverse() -> None:
    """Also under a demand, where the dearest token is that of the workload with the fewest tokens a request."""
    for options in ({}, {"rate": 100.0}, {"objective": "throughput", "rate": 100.0}, {"objective": "latency"}):
        inputs = several(LOADS["apart"], **options)
        contexts = contexts_of(inputs, inputs.options.variants[0])
        assert joint_merit(contexts, joint_objective(contexts, 0.7)) == pytest.approx(0.7, rel=1e-12)


@cache
def text(name: str) -> str:
    if name == "two pools":
        return solve(several(LOADS["apart"], nodes=2, aggregated=False)).to_json()
    if name == "overflowing":
        return solve(several(LOADS["alike"], memory=12e6)).to_json()
    return make_plan("deepseek-v3", "h200-node:2", workload=["chat", "rag"], robust="workloads").to_json()


@pytest.mark.parametrize("name", ["two pools", "overflowing"])
def test_every_number_of_the_table_is_checked(name: str) -> None:
    plan = read_plan(text(name), name)
    data = plan.to_data()
    leaves = list(small.leaves(data["robust"]))
    for path, value in leaves[:: 3 if name == "two pools" else 2]:
        moved = value + 1 if isinstance(value, int) else value * 1.001 + 1e-6
        try:
            other = Plan.model_validate(small.changed(data, ("robust", *path), moved))
        except ValueError:
            continue
        assert verify_plan(other)[0], path


@pytest.mark.parametrize("name", ["two pools", "overflowing", "catalogue"])
def test_forged_sets_are_refused(name: str) -> None:
    """A row left out or doubled, rows exchanged, another workload put forward, a deployment of its own, a better bound."""
    data = read_plan(text(name), name).to_data()
    rows, inputs = data["robust"], data["inputs"]
    better = next(load for load in inputs["workloads"] if load["id"] != inputs["workload"]["id"])
    other_shape = small.changed(rows, (0, "pools", 0, "replicas"), rows[0]["pools"][0]["replicas"] + 1)
    forged: list[dict[str, Any]] = [
        {**data, "robust": rows[:1] + rows[:1]},
        {**data, "robust": [rows[1], rows[0], *rows[2:]]},
        {**data, "robust": [*rows, rows[0]]},
        {**data, "robust": other_shape},
        {**data, "inputs": {**inputs, "workload": better}, "workload": better["id"]},
        {**data, "certificate": {**data["certificate"], "nodes": {"x": "B:0"}}},
    ]
    forged.append({key: value for key, value in data.items() if key != "robust"})
    for one in forged:
        assert verify_plan(Plan.model_validate(one))[0]
    assert verify_plan(Plan.model_validate(data), full=True)[0] == []


def test_a_deployment_of_its_own_is_refused() -> None:
    """A workload that shines on its own deployment, every number of it right; and the plan of a workload that does not decide."""
    plan = read_plan(text("two pools"), "plan")
    inputs, chosen = inputs_of(plan, "plan"), decision_of(plan, "plan")
    context, rows = build_context(inputs, chosen.variant), robust_of(plan, chosen, "plan")
    for number, one in enumerate(alone(inputs)):
        own = replace(decision_of(solve(one), "plan"), units=chosen.units)
        if one.workload == inputs.workload or deployment(own) == deployment(chosen):
            continue
        forged = [*rows[:number], Served(own), *rows[number + 1 :]]
        data = assemble(context, chosen, certificate_of(plan), None, robust=forged)
        assert SAME in {violation.equation for violation in verify_plan(Plan.model_validate(data))[0]}
        put = inputs.model_copy(update={"workload": one.workload})
        other = assemble(build_context(put, chosen.variant), rows[number].decision, certificate_of(plan), None, robust=rows)
        assert WORST in {violation.equation for violation in verify_plan(Plan.model_validate(other))[0]}
        return
    pytest.fail("no workload has a better deployment of its own")


def test_a_bound_too_good_is_found_by_the_walk() -> None:
    """Half the cost cannot be proved; nor can a bound whose nodes are taken away."""
    data = solve(several(LOADS["alike"], memory=12e6)).to_data()
    certificate = data["certificate"]
    high = certificate["objective"] * (1 + 1e-4)
    plan = Plan.model_validate(data)
    assert any(row.nodes for row in plan.robust or ())
    inputs = inputs_of(plan, "plan")
    assert space_violations(inputs, plan) == []
    raised = Plan.model_validate({**data, "certificate": {**certificate, "bound": high}})
    assert space_violations(inputs, raised)
    bare = Plan.model_validate({**data, "robust": [{**row, "nodes": {}} for row in data["robust"]]})
    assert space_violations(inputs, bare)


def test_the_same_bytes_again() -> None:
    for name in ("two pools", "overflowing"):
        first = text(name)
        text.cache_clear()
        assert text(name) == first


def test_the_order_of_workloads_does_not_change_the_deployment() -> None:
    one = make_plan("llama-3.1-70b", "h100-node", workload=["chat", "rag"], robust="workloads")
    two = make_plan("llama-3.1-70b", "h100-node", workload=["rag", "chat"], robust="workloads")
    assert [pool.replicas for pool in one.pools] == [pool.replicas for pool in two.pools]
    assert one.certificate.objective == pytest.approx(two.certificate.objective, rel=1e-9)


def test_experts_lie_alike_for_all() -> None:
    """One map for a pool, that of the plan; workloads that use experts in another way are refused."""
    from planner.workload.experts import ExpertPopularity

    use = ExpertPopularity(kind="zipf", exponent=0.8)
    loads = [load.model_copy(update={"experts": use}) for load in LOADS["alike"]]
    plan = solve(several(loads, "experts", 25e6, redundant_experts=(0, 1)))
    assert verify_plan(plan, full=False)[0] == []
    with pytest.raises(InputError, match="alike"):
        several([loads[0], LOADS["alike"][1]], "experts")


def test_variants_are_chosen_together() -> None:
    plan = make_plan("deepseek-v3", "h200-node:2", workload=["chat", "rag"], robust="workloads", mtp=(0, 1))
    assert plan.robust is not None
    assert len({pool.configuration.mtp for row in plan.robust for pool in row.pools}) == 1
    assert len(plan.certificate.space["mtp"]) == 2


def test_who_does_not_fit_is_named() -> None:
    """The first workload without any plan alone; or those that have one each and none together."""
    with pytest.raises(InfeasibleError, match="workload load-1: .*TPOT") as error:
        solve(several([small.workload(), small.workload(tpot_s=1e-7)]))
    assert error.value.conflict
    # short requests need three of four devices to decode, long ones three to prefill; the third could do with either
    loads = [small.workload(16, 100), small.workload(4000, 8), small.workload()]
    inputs = several(loads, memory=400e6, nodes=2, aggregated=False, rate=1500.0)
    for one in alone(inputs):
        solve(one)
    with pytest.raises(InfeasibleError, match="no one deployment serves all of load-0, load-1,") as error:
        solve(inputs)
    assert [row["member"] for row in error.value.conflict] == ["workload load-0", "workload load-1"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--robust", "workloads"], "needs two workloads or more"),
        (["--robust", "workloads", "--workload", "chat"], "needs two workloads or more"),
        (["--workload", "chat", "--workload", "rag"], "add --robust workloads"),
        (["--workload", "chat", "--workload", "rag", "--robust", "intervals"], "add --robust workloads"),
        (["--workload", "chat", "--workload", "chat", "--robust", "workloads"], "chat is given twice"),
        (["--workload", "chat", "--workload", "rag", "--robust", "workloads", "--pareto", "3"], "pareto is not built"),
        (["--workload", "chat", "--workload", "rag", "--robust", "workloads", "--concurrency", "8"], "concurrency is not built"),
        (["--workload", "chat", "--workload", "rag", "--robust", "workloads", "--slo-on", "high"], "leave out --slo-on high"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, arguments: list[str], said: str) -> None:
    code, out, err = run("plan", "llama-3.1-70b", "h100-node", *arguments)
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1


def test_command_line(run: Run, tmp_path: Path) -> None:
    """Plan, table, file, verification, explanation; what fits nobody is exit 3 with its name."""
    asked = ["plan", "llama-3.1-70b", "h100-node", "--workload", "chat", "--workload", "rag", "--robust", "workloads"]
    file = tmp_path / "plan.json"
    code, out, _ = run(*asked, "-o", file)
    assert code == 0
    assert "one deployment for all" in out and "decides" in out and "--slo-on high" not in out
    assert run("verify", "--full", file)[0] == 0
    assert "The set of workloads" in run("explain", file)[1]
    assert run("plan", "--from", file)[0] == 2
    code, _, err = run(*asked, "--tpot", "0.01ms")
    assert code == 3 and "workload chat: proved infeasible" in err


def test_one_workload_is_as_ever(run: Run) -> None:
    """A workload given once makes the plan that its name made before there were sets."""
    plan = make_plan("llama-3.1-70b", "h100-node", workload=["chat"])
    assert plan == make_plan("llama-3.1-70b", "h100-node", workload="chat")
    assert plan.robust is None and plan.inputs["workloads"] == []


def test_hardware_is_counted_for_all() -> None:
    """As many systems as the workload needs that needs most."""
    load = ("chat", "rag")
    both = make_plan("llama-3.1-70b", "h100-node:auto", workload=load, robust="workloads", rate=12.0)
    each = [make_plan("llama-3.1-70b", "h100-node:auto", workload=one, rate=12.0) for one in load]
    assert each[0].units[0].units != each[1].units[0].units
    assert verify_plan(both, full=True)[0] == []
    assert both.units[0].units >= max(plan.units[0].units for plan in each)
    assert both.certificate.proved


def context_of(plan: Plan) -> Context:
    return build_context(inputs_of(plan, "plan"))


def test_the_plan_is_that_of_the_workload_that_decides() -> None:
    plan = read_plan(text("catalogue"), "plan")
    row = next(row for row in plan.robust or () if row.workload == plan.workload)
    assert row.prediction == plan.prediction
    assert row.usd_per_million == plan.cost.usd_per_million
    assert row.objective == plan.certificate.objective
    assert operate(context_of(plan), decision_of(plan, "plan")).tpot_s * 1e3 == pytest.approx(plan.prediction.tpot_ms.expected)
