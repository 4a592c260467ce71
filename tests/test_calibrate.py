"""Calibration: figures that made the points are found again, rows that were left out are not seen, files read back."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from planner.accuracy.calibrate import UNSEEN, Bench, Fit, LeftOut, bench_of, calibration_of, fit, left_out, predicted, spread_of
from planner.accuracy.fit import TPOT_FAMILIES, TTFT_FAMILIES, Space, Vector
from planner.accuracy.points import CONTINUOUS, Points, read_points, write_points
from planner.accuracy.predict import predict
from planner.accuracy.report import coverage, identified
from planner.accuracy.validation import REPORT, stored_report
from planner.cli.schema_command import schema_of
from planner.errors import InputError
from planner.runtimes import RUNTIMES, load_calibration, load_runtime
from planner.runtimes.calibration import BUILTIN, calibrated_runtime
from planner.runtimes.calibration_text import to_toml

ALL = read_points(CONTINUOUS)[0]
SOME = ALL.take(slice(None, None, 6))
BENCH = bench_of(SOME)
EVERY = np.arange(len(SOME))


@pytest.fixture(scope="module")
def clean() -> LeftOut:
    """Predictions without what they are of."""
    return left_out(BENCH)


def remade(bench: Bench, tpot: Vector, ttft: Vector, noise: float = 0.0) -> Points:
    """The points of a bench with the times that figures make, scattered by ``noise`` in the logarithm."""
    times = predicted(bench, Fit(tpot, ttft, {}), np.arange(len(bench.points)))
    scatter = np.exp(noise * np.random.default_rng(5).standard_normal((2, len(bench.points))))
    return dataclasses.replace(bench.points, tpot_s=times[0] * scatter[0], ttft_s=times[1] * scatter[1])


def moved(space: Space, seed: int, by: float) -> Vector:
    """Figures off their priors, within their bounds."""
    mean, _, low, high = space.prior()
    return np.clip(mean + by * np.random.default_rng(seed).standard_normal(space.size), low + 0.02, high - 0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_figures_that_made_the_points_are_found_again(seed: int) -> None:
    of_tpot, of_ttft = BENCH.spaces
    truth = moved(of_tpot, seed, 0.4), moved(of_ttft, seed + 1, 0.3)
    points = remade(BENCH, *truth, noise=0.02)
    again = bench_of(points)
    found = fit(again)
    tpot, _ = predicted(again, found, EVERY)
    assert np.median(np.abs(tpot / points.tpot_s - 1.0)) < 0.03
    told = identified(again, found)
    known = np.array([one["share"] > 0.7 for one in told])
    off, moved_by = np.abs(found.tpot - truth[0]), np.abs(truth[0] - of_tpot.prior()[0])
    assert known.sum() > 10
    assert np.linalg.norm(off[known]) < 0.6 * np.linalg.norm(moved_by[known])
    assert np.all(off < 4.0 * np.array([one["sd"] for one in told]))


def test_points_that_lie_on_the_priors_leave_them_there() -> None:
    of_tpot, of_ttft = BENCH.spaces
    prior = of_tpot.prior()[0], of_ttft.prior()[0]
    again = bench_of(remade(BENCH, *prior))
    found = fit(again)
    np.testing.assert_allclose(found.tpot, prior[0], atol=0.02)
    assert all(abs(math.log(value)) < 1e-3 for value, _ in found.corrections.values())


def test_every_figure_stays_within_its_bounds() -> None:
    slow = bench_of(dataclasses.replace(SOME, tpot_s=SOME.tpot_s * 40.0, ttft_s=SOME.ttft_s * 40.0))
    found = fit(slow)
    for space, vector in zip(slow.spaces, (found.tpot, found.ttft), strict=True):
        _, _, low, high = space.prior()
        assert np.all(vector >= low - 1e-12)
        assert np.all(vector <= high + 1e-12)
    assert any(one["at_bound"] for one in identified(slow, found))


@pytest.mark.parametrize("kind", ["system", "model", "runtime", "generation"])
def test_what_is_left_out_is_not_seen(clean: LeftOut, kind: str) -> None:
    labels = {
        "system": np.array(SOME.system),
        "model": np.array(SOME.model),
        "runtime": np.array(BENCH.runtimes),
        "generation": BENCH.table.generation,
    }
    here = labels[kind] == labels[kind][0]
    poison = np.where(here, 7.0, 1.0)
    poisoned = bench_of(dataclasses.replace(SOME, tpot_s=SOME.tpot_s * poison, ttft_s=SOME.ttft_s * poison))
    other = left_out(poisoned)[kind]
    for before, after in zip(clean[kind], other, strict=True):
        np.testing.assert_array_equal(before[here], after[here])
    assert not np.allclose(clean[kind][0][~here], other[0][~here])
    assert not np.allclose(predicted(poisoned, fit(poisoned), EVERY)[0][here], predicted(BENCH, fit(BENCH), EVERY)[0][here])


def test_a_fold_of_configurations_is_not_seen(clean: LeftOut) -> None:
    name = BENCH.configurations[0]
    here = BENCH.configurations == name
    poisoned = bench_of(dataclasses.replace(SOME, tpot_s=np.where(here, SOME.tpot_s * 9.0, SOME.tpot_s)))
    other = left_out(poisoned)["configuration"][0]
    np.testing.assert_array_equal(clean["configuration"][0][here], other[here])


def test_the_parts_that_are_fitted_add_up_to_the_passes_that_plans_are_timed_by(clean: LeftOut) -> None:
    whole = fit(BENCH)
    calibration = calibration_of(BENCH, whole, spread_of(BENCH, clean), "some", "test", "some", date(2026, 11, 22))
    fitted = predicted(BENCH, whole, EVERY)
    planned = predict(SOME, lambda name: calibration.laid_over(RUNTIMES.load(name)))
    np.testing.assert_allclose(planned.tpot_s, fitted[0], rtol=0.02)
    both = np.isfinite(fitted[1])
    assert both.sum() > 200 and whole.corrections
    np.testing.assert_allclose(planned.ttft_s[both], fitted[1][both], rtol=0.02)


def test_intervals_cover_what_was_left_out() -> None:
    bench = bench_of(ALL.take(slice(None, None, 2)))
    out = left_out(bench)
    for found in coverage(bench, out).values():
        assert found["covered"] is None or 0.70 <= found["covered"] <= 0.90
    spread = spread_of(bench, out)
    for one in spread.values():
        assert one.low < 1.0 < one.high
    assert spread["kin"].low <= spread["sibling"].low <= spread["measured"].low
    assert spread["kin"].high >= spread["sibling"].high >= spread["measured"].high


def test_what_could_not_be_left_out_has_the_interval_of_class_defaults() -> None:
    """One model on one device says nothing of other models and devices, and no other generation counts as measured."""
    cell = np.array([name == "vllm qwen3-32b bf16 h100-sxm" for name in bench_of(ALL).cells.tolist()])
    bench = bench_of(ALL.take(np.flatnonzero(cell)))
    spread = spread_of(bench, left_out(bench))
    assert spread["measured"].high < 1.5
    for evidence in ("sibling", "kin"):
        assert spread[evidence].low <= UNSEEN.low and spread[evidence].high >= UNSEEN.high
    made = calibration_of(bench, fit(bench), spread, "one", "test", "one", date(2026, 11, 22))
    assert list(made.generations) == ["hopper"]


def test_a_calibration_reads_back_and_its_text_is_its_own(tmp_path: Path) -> None:
    built_in = load_calibration()
    assert to_toml(built_in) == BUILTIN.read_text(encoding="utf-8")
    (tmp_path / "other.toml").write_text(to_toml(built_in), encoding="utf-8")
    assert load_calibration(tmp_path / "other.toml") == built_in
    space = Space(TPOT_FAMILIES, tuple(built_in.runtimes), tuple(built_in.generations))
    assert built_in.parameters <= 60 + len(TTFT_FAMILIES) * len(built_in.runtimes) + 1
    for family in (*TPOT_FAMILIES, *TTFT_FAMILIES):
        holders: Any = built_in.runtimes.values() if family.of == "runtime" else built_in.generations.values()
        for one in holders:
            assert family.lowest <= getattr(one, family.name) <= family.highest, family.name
    assert space.size > 30


def test_the_stored_report_is_of_the_built_in_calibration() -> None:
    report, built_in = stored_report(), load_calibration()
    assert (report["calibration"], report["points"], report["rows"]) == (built_in.id, built_in.points, built_in.rows)
    assert {one["figure"] for one in report["identified"]} >= {f"{name}.dense" for name in built_in.runtimes}
    assert REPORT.stat().st_size < 40_000


def small(tmp_path: Path) -> Path:
    """Points of one runtime on two systems."""
    rows = [i for i in range(len(ALL)) if ALL.backend[i] == "vllm" and ALL.system[i] in ("h100_sxm", "b200_sxm")][::5]
    write_points(ALL.take(rows), tmp_path / "small.csv")
    return tmp_path / "small.csv"


def test_the_command_writes_the_same_file_twice(run: Any, tmp_path: Path) -> None:
    points = small(tmp_path)
    code, text, _ = run("calibrate", points, "--as-of", "2026-01-02")
    assert code == 0
    assert text.startswith("# Written by")
    out, report = tmp_path / "mine.toml", tmp_path / "mine.json"
    code, shown, _ = run("calibrate", points, "--as-of", "2026-01-02", "-o", out, "--report", report)
    assert code == 0
    assert "left out" in shown
    assert out.read_text() == text
    found = load_calibration(out)
    assert (found.id, found.as_of.isoformat(), list(found.runtimes)) == ("small", "2026-01-02", ["vllm"])
    assert json.loads(report.read_text())["rows"] == found.rows
    code, text, _ = run("calibrate", points, "--as-of", "2026-01-02", "--name", "own", "--source", "a lab", "--format", "json")
    data = json.loads(text)
    jsonschema.validate(data, schema_of("calibrate"))
    assert (data["calibration"]["id"], data["calibration"]["source"]) == ("own", "a lab")


def test_a_plan_names_the_calibration_that_it_rests_on(run: Any, tmp_path: Path) -> None:
    points, out = small(tmp_path), tmp_path / "mine.toml"
    assert run("calibrate", points, "--as-of", "2026-01-02", "-o", out)[0] == 0
    plans = {}
    for name, more in {"mine": ("--calibration", out), "built-in": (), "none": ("--runtime", "generic")}.items():
        engine = () if name == "none" else ("--runtime", "vllm")
        code, text, _ = run("plan", "llama-3.1-70b", "h100-node", *engine, *more, "--format", "json")
        assert code == 0
        plans[name] = json.loads(text)
        (tmp_path / f"{name}.json").write_text(text)
        assert run("verify", tmp_path / f"{name}.json")[0] == 0
    named = {name: plan["versions"]["calibration"] for name, plan in plans.items()}
    assert named["mine"] == f"planner calibrate: small, {load_calibration(out).points}"
    assert named["built-in"] == f"planner calibrate: builtin, {load_calibration().points}"
    assert named["none"].startswith("none: ")
    evidence = {name: plan["prediction"]["evidence"].partition(":")[0] for name, plan in plans.items()}
    assert evidence["mine"] in ("measured", "sibling")
    assert plans["none"]["prediction"]["evidence"].startswith("first principles")
    forged = plans["mine"] | {"prediction": plans["mine"]["prediction"] | {"evidence": "measured: by me"}}
    (tmp_path / "forged.json").write_text(json.dumps(forged))
    assert run("verify", tmp_path / "forged.json")[0] == 4


@pytest.mark.parametrize(("hardware", "evidence"), [("b300-node", ("measured", "sibling")), ("a100-node", ("kin",))])
def test_evidence_is_of_the_device(hardware: str, evidence: tuple[str, ...]) -> None:
    from planner import plan

    found = plan("llama-3.1-70b", hardware, runtime="vllm")
    assert found.prediction.evidence.partition(":")[0] in evidence


def test_the_evidence_of_pools_that_differ_is_said_of_each() -> None:
    from planner import plan

    found = plan("llama-3.1-70b", "prefill=a100-node,decode=h100-node", runtime="vllm")
    assert found.prediction.evidence.startswith("prefill: kin: ")
    assert "; decode: " in found.prediction.evidence


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (None, (), "--as-of: has no date"),
        ("few", ("--as-of", "2026-01-02"), "has 12 points of vllm"),
        ("empty", ("--as-of", "2026-01-02"), "holds no point"),
        ("foreign", ("--as-of", "2026-01-02"), "has no column"),
        ("bad name", ("--as-of", "2026-01-02", "--name", "Über uns"), "calibration: id"),
        ("absent", ("--as-of", "2026-01-02"), "no such file"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(
    run: Any, tmp_path: Path, change: str | None, arguments: tuple[str, ...], said: str
) -> None:
    path = small(tmp_path)
    points, _ = read_points(path)
    if change == "few":
        write_points(points.take(slice(0, 12)), path, force=True)
    elif change == "empty":
        write_points(points.take(slice(0, 0)), path, force=True)
    elif change == "foreign":
        path.write_text("a,b\n1,2\n")
    elif change == "absent":
        path = tmp_path / "none.csv"
    out = tmp_path / "out.toml"
    code, text, error = run("calibrate", path, *arguments, "-o", out)
    assert (code, text) == (2, "")
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_a_calibration_without_figures_of_the_runtime_is_refused() -> None:
    with pytest.raises(InputError, match="holds no figures of the runtime generic"):
        calibrated_runtime("generic", BUILTIN)
    assert calibrated_runtime("vllm", BUILTIN) == load_runtime("vllm")


def test_files_are_not_overwritten(run: Any, tmp_path: Path) -> None:
    points, out = small(tmp_path), tmp_path / "out.toml"
    out.write_text("mine")
    code, _, error = run("calibrate", points, "--as-of", "2026-01-02", "-o", out)
    assert code == 2
    assert "exists already" in error
    assert out.read_text() == "mine"
