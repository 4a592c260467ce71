"""``planner diff``: what differs is told, what is alike is not, and costs on different price bases are never held together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from planner import Plan, plan
from planner.plans.diff import difference

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def plans() -> tuple[Plan, Plan]:
    """A model in device memory of eight devices, and within a shorter time per token."""
    first = plan("llama-3.1-8b", "h100-node")
    hurried = first.inputs["workload"] | {"tpot_s": 0.01}
    from planner.workload import Workload

    return first, plan("llama-3.1-8b", "h100-node", workload=Workload.model_validate(hurried), kv_dtype=("fp8",))


@pytest.fixture
def files(plans: tuple[Plan, Plan], tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "first.json", tmp_path / "second.json"
    for path, one in zip(paths, plans, strict=True):
        path.write_text(one.to_json(), encoding="utf-8")
    return paths


def altered(one: Plan, **cost: Any) -> Plan:
    return one.model_copy(update={"cost": one.cost.model_copy(update=cost)})


def test_a_plan_differs_in_nothing_from_itself(files: tuple[Path, Path], run: Run) -> None:
    code, out, err = run("diff", files[0], files[0])
    assert (code, err) == (0, "") and out.startswith("no difference: llama-3.1-8b on h100-node")
    found = json.loads(run("diff", files[0], files[0], "--format", "json", "--exit-code")[1])
    assert found["same"] and found["cost"] is None
    assert not any(found[part] for part in ("notes", "inputs", "configuration", "placement", "prediction", "certificate"))


def test_what_differs_is_told(files: tuple[Path, Path], plans: tuple[Plan, Plan], run: Run) -> None:
    code, out, err = run("diff", *files)
    assert code == 0 and err == f"next: planner explain {files[1]}\n"
    for text in (
        "workload.tpot_s",
        "options.kv_dtype",
        "kv_dtype",
        "prediction",
        "price basis",
        "alike: versions",
    ):
        assert text in out, text
    code, out, _ = run("diff", *files, "--format", "json", "--exit-code")
    found = json.loads(out)
    assert code == 4 and not found["same"]
    jsonschema.validate(found, json.loads(run("schema", "diff")[1]), jsonschema.Draft202012Validator)
    assert {"path": "workload.tpot_s", "first": 0.05, "second": 0.01} in found["inputs"]
    tpot = next(row for row in found["prediction"] if row["figure"] == "tpot_ms")
    first, second = (one.prediction.tpot_ms for one in plans)
    assert tpot["first"]["high"] == first.high and tpot["ratio"] == pytest.approx(second.expected / first.expected, rel=1e-9)


def test_bytes_are_those_of_the_plans(plans: tuple[Plan, Plan]) -> None:
    found = difference(*plans)
    moved = sum(row.second_bytes - row.first_bytes for row in found.placement)
    held = [sum(row.bytes for pool in one.pools for row in pool.placement) for one in plans]
    assert found.placement and moved == held[1] - held[0]


def test_the_other_way_round_ratios_are_inverse(plans: tuple[Plan, Plan]) -> None:
    there, back = difference(*plans), difference(*reversed(plans))
    assert there.cost is not None and back.cost is not None
    pairs = zip([*there.prediction, *there.cost.figures], [*back.prediction, *back.cost.figures], strict=True)
    ratios = [one.ratio * other.ratio for one, other in pairs if one.ratio is not None and other.ratio is not None]
    assert len(ratios) >= 8 and ratios == pytest.approx([1.0] * len(ratios))
    assert {change.path for change in there.inputs} == {change.path for change in back.inputs}


@pytest.mark.parametrize("change", [{"basis": "rent_od"}, {"currency": "CNY"}])
def test_costs_on_different_bases_have_no_ratio(
    change: dict[str, str], plans: tuple[Plan, Plan], tmp_path: Path, run: Run
) -> None:
    other = altered(plans[1], **change)
    cost = difference(plans[0], other).cost
    assert cost is not None and not cost.comparable and next(iter(change.values())) in cost.second_basis
    assert [row.ratio for row in cost.figures if row.unit != "devices"] == [None] * (len(cost.figures) - 1)
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, one in zip(paths, (plans[0], other), strict=True):
        path.write_text(one.to_json(), encoding="utf-8")
    out = " ".join(run("diff", *paths)[1].split())
    assert "no ratio of costs: price bases are never mixed" in out and "--price-basis" in out


def test_what_to_mind_is_said(plans: tuple[Plan, Plan]) -> None:
    first, second = plans
    dated = altered(second, as_of="2025-01-01", utilisation=0.5, allocation="flops")
    cost = difference(first, dated).cost
    assert cost is not None and cost.comparable and len(cost.why) == 3
    other = second.model_copy(update={"model": "llama-x", "workload": "chat", "objective": "latency"})
    assert [note.split(" (")[0] for note in difference(first, other).notes] == [
        "different models",
        "different workloads",
        "different objectives",
    ]
    assert any("differs in what the inputs below say" in note for note in difference(first, second).notes)


def test_inputs_of_another_name_are_one_line(plans: tuple[Plan, Plan]) -> None:
    renamed = json.loads(json.dumps(plans[0].inputs))
    renamed["model"]["id"], renamed["model"]["max_context"] = "other", 7
    found = difference(plans[0], plans[0].model_copy(update={"inputs": renamed}))
    assert [(row.path, row.first, row.second) for row in found.inputs] == [("model", "llama-3.1-8b", "other")]


def test_another_plan_to_take_over_from_is_told(plans: tuple[Plan, Plan]) -> None:
    fresh = plans[0]
    taken = plan("llama-3.1-8b", "h100-node", previous=plans[1])
    inputs = json.loads(json.dumps(taken.inputs))
    inputs["previous"]["units"] = [2]
    found = difference(taken, taken.model_copy(update={"inputs": inputs})).inputs
    assert [(row.path, row.first, row.second) for row in found] == [("previous.units.0", 1, 2)]
    assert ("previous", None, "a plan to take over from") in [
        (row.path, row.first, row.second) for row in difference(fresh, taken).inputs
    ]


def test_a_plan_that_does_not_verify_is_shown_with_a_note(
    files: tuple[Path, Path], plans: tuple[Plan, Plan], tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "changed.json"
    path.write_text(altered(plans[0], usd_per_hour=plans[0].cost.usd_per_hour * 2.0).to_json(), encoding="utf-8")
    code, out, err = run("--quiet", "diff", files[0], path)
    assert (code, err) == (0, f"note: {path} does not verify: planner verify {path}\n") and "usd per hour" in out


def test_bad_input_is_one_line(files: tuple[Path, Path], tmp_path: Path, run: Run) -> None:
    assert "standard input" in run("diff", "-", "-")[2]
    assert "no such file" in run("diff", files[0], tmp_path / "none.json")[2]
    damaged = tmp_path / "damaged.json"
    damaged.write_text(json.dumps(json.loads(files[1].read_text()) | {"inputs": {}}), encoding="utf-8")
    code, out, err = run("diff", files[0], damaged)
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and "damaged.json" in err
