"""Cache dtypes, draft lengths and expert slots chosen together: the best of them all, proved over them all."""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from typing import Any

import pytest
import small
from click.testing import CliRunner, Result

from planner.api import resolve
from planner.cli.plan_command import command
from planner.errors import InputError
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.constraints import parse_constraints
from planner.plans.inputs import Objective, Variant
from planner.search import solve

MODEL = small.experts(layers=6)
AXES: dict[str, tuple[Any, ...]] = {"kv_dtype": ("bf16", "fp8"), "mtp": (0, 1), "redundant_experts": (0, 1)}
OBJECTIVES: tuple[Objective, ...] = ("cost", "throughput", "latency")
LIMITS = {"free": (None, None), "limited": (0.003, 0.0008)}


def problem(memory: float, limits: str, objective: str, **options: Any) -> Inputs:
    load = small.workload(ttft_s=LIMITS[limits][0], tpot_s=LIMITS[limits][1])
    return small.instance(
        MODEL, small.node(2, 1, memory), 1, load, small.runtime(3, (64, 256)), objective=objective, gap=0.0, **options
    )


@cache
def joint(memory: float = 40e6, limits: str = "free", objective: str = "cost") -> Plan:
    return solve(problem(memory, limits, objective, **AXES))


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("memory", [60e6, 40e6])
def test_all_together_find_the_best_of_each_apart(memory: float, limits: str, objective: str) -> None:
    """With no gap allowed the objective is that of the best variant planned alone, and so is the bound."""
    sign = -1.0 if objective == "throughput" else 1.0
    apart = []
    for values in product(*AXES.values()):
        plan = solve(problem(memory, limits, objective, **dict(zip(AXES, ((v,) for v in values), strict=True))))
        apart.append((sign * plan.certificate.objective, sign * plan.certificate.bound, plan))
    together = joint(memory, limits, objective)
    assert sign * together.certificate.objective == pytest.approx(min(value for value, _, _ in apart), rel=1e-9)
    assert sign * together.certificate.bound == pytest.approx(min(bound for _, bound, _ in apart), rel=1e-6)
    assert sign * together.certificate.bound <= min(bound for _, bound, _ in apart) * (1 + sign * 1e-6)
    assert verify_plan(together, full=limits == "free")[0] == []


def test_the_space_lists_every_axis() -> None:
    """And counts every variant's configurations."""
    space = joint().certificate.space
    assert {key: space[key] for key in AXES} == {key: list(values) for key, values in AXES.items()}
    one = solve(problem(40e6, "free", "cost")).certificate.space
    assert space["configurations"]["total"] == 8 * one["configurations"]["total"]
    assert {key: one[key] for key in AXES} == {"kv_dtype": ["bf16"], "mtp": [0], "redundant_experts": [0]}


def test_pools_agree_and_the_choice_is_one_of_the_variants() -> None:
    for memory, objective in ((60e6, "cost"), (40e6, "throughput"), (60e6, "latency")):
        chosen = {
            (p.configuration.kv_dtype, p.configuration.mtp, p.configuration.redundant_experts)
            for p in joint(memory, "free", objective).pools
        }
        assert len(chosen) == 1 and chosen <= set(product(*AXES.values()))


def relabelled(plan: Plan, change: dict[str, str]) -> Plan:
    data = plan.to_data()
    data["certificate"] = {**data["certificate"], "nodes": {change.get(k, k): v for k, v in plan.certificate.nodes.items()}}
    return Plan.model_validate(data)


def test_nodes_name_their_variant_and_may_not_change_it() -> None:
    """A node given to a variant outside the space, or to another one, leaves that variant or its own unproved."""
    plan = joint()
    nodes = list(plan.certificate.nodes)
    labels = {" ".join(name.split(" ", 3)[:3]) for name in nodes}
    known = {Variant(*values).label for values in product(*AXES.values())}
    assert len(labels) > 1 and labels <= known
    assert verify_plan(plan, full=True)[0] == []
    first = nodes[0]
    first_label = " ".join(first.split(" ", 3)[:3])
    for stranger in ("kv-fp4 mtp0 redundant0", "kv-bf16 mtp7 redundant0", "kv-bf16 mtp0 redundant10", "mtp0"):
        moved = relabelled(plan, {first: stranger + " " + first.split(" ", 3)[3]})
        found = verify_plan(moved, full=True)[0]
        assert found and found[0].path == "certificate.nodes"
    for label in sorted(labels):
        mine = {name for name in nodes if name.startswith(f"{label} ")}
        other = next(one for one in sorted(known) if one != label)
        moved = relabelled(plan, {name: f"{other} {name.split(' ', 3)[3]}" for name in mine})
        assert verify_plan(moved, full=True)[0], (label, other)
        assert verify_plan(relabelled(plan, dict.fromkeys(mine, nodes[0])), full=True)[0] or label == first_label, label


def test_a_variant_that_was_not_asked_for_is_refused() -> None:
    data = joint().to_data()
    for key, value in (("mtp", 2), ("redundant_experts", 2), ("kv_dtype", "fp4")):
        pools = [{**pool, "configuration": {**pool["configuration"], key: value}} for pool in data["pools"]]
        found = verify_plan(Plan.model_validate({**data, "pools": pools}))[0]
        assert found and "variant" in found[0].equation
    if len(data["pools"]) == 1:
        return
    mixed = [data["pools"][0], {**data["pools"][1], "configuration": {**data["pools"][1]["configuration"], "mtp": 1}}]
    assert verify_plan(Plan.model_validate({**data, "pools": mixed}))[0]


def test_the_same_bytes_and_no_worse_in_another_order() -> None:
    again = solve(problem(40e6, "free", "cost", **AXES))
    assert again.to_json() == joint().to_json()
    turned = solve(problem(40e6, "free", "cost", **{key: values[::-1] for key, values in AXES.items()}))
    assert turned.certificate.objective == pytest.approx(joint().certificate.objective, rel=1e-9)


def test_pins_choose_among_the_variants() -> None:
    plan = solve(problem(40e6, "free", "cost", **AXES, constraints=parse_constraints(("mtp=1", "kv_dtype=fp8"), ())))
    assert plan.certificate.space["mtp"] == [1] and plan.certificate.space["kv_dtype"] == ["fp8"]
    assert {(p.configuration.mtp, p.configuration.kv_dtype) for p in plan.pools} == {(1, "fp8")}
    assert verify_plan(plan, full=True)[0] == []
    with pytest.raises((InputError, ValueError), match="leave nothing|constraints"):
        problem(40e6, "free", "cost", mtp=(0, 1), constraints=parse_constraints((), ("mtp=0", "mtp=1")))


# --- the command line -------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, [*arguments, "--format", "json"])


def test_auto_takes_every_draft_there_is() -> None:
    done = run("deepseek-v3", "h800-node:2", "--mtp", "auto", "--kv-dtype", "bf16,fp8")
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    space = plan["certificate"]["space"]
    depth = len(resolve("deepseek-v3", "h800-node").model.speculation.acceptance)  # type: ignore[union-attr]
    assert space["mtp"] == list(range(depth + 1)) and depth >= 1
    assert space["kv_dtype"] == ["bf16", "fp8"]
    assert plan["inputs"]["options"]["mtp"] == space["mtp"]


def test_auto_without_drafts_is_none() -> None:
    assert json.loads(run("llama-3.1-70b", "h100-node", "--mtp", "auto").stdout)["certificate"]["space"]["mtp"] == [0]


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--kv-dtype", "bf16,bf16"), ("--kv-dtype", "fp3"), ("--kv-dtype", "bf16,"), ("--kv-dtype", ""), ("--mtp", "0,0"),
        ("--mtp", "all"), ("--mtp", "0,9"), ("--mtp", "-1"), ("--mtp", ""), ("--mtp", "auto,0"),
    ],
)  # fmt: skip
def test_bad_choices_are_refused(option: str, text: str) -> None:
    done = run("deepseek-v3", "h800-node", option, text)
    assert isinstance(done.exception, InputError) and "\n" not in str(done.exception), done.exception
