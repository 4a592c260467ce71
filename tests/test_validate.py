"""``planner validate``: scores as the contract has them, a line a point, bad rows skipped and bad files refused."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from planner.accuracy.deployments import load_deployments
from planner.accuracy.labels import SKIP_REASONS
from planner.accuracy.points import CONTINUOUS, points_text, read_points, write_points
from planner.accuracy.predict import predict
from planner.accuracy.predict_deployments import Prediction, Unanswered
from planner.accuracy.score import SHORT_TTFT_S, errors, summary
from planner.accuracy.validation import BELOW, SKIPPED, accepted, engines_of, left_away, score_deployments, validate
from planner.cli.schema_command import schema_of
from planner.runtimes import load_runtime

ALL = read_points(CONTINUOUS)[0]
SOME = ALL.take(slice(None, None, 40))
README = (CONTINUOUS.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_points(SOME, tmp_path / "some.csv")
    return tmp_path / "some.csv"


def answer(run: Any, *arguments: object, code: int = 0) -> dict[str, Any]:
    found, out, _ = run("validate", *arguments, "--format", "json")
    assert found == code
    data = json.loads(out)
    jsonschema.validate(data, schema_of("validate"))
    return dict(data)


def test_scores_by_hand() -> None:
    measured = np.array([10.0, 10.0, 10.0, math.nan, 10.0])
    found = summary(np.array([11.0, 8.0, 40.0, 1.0, math.nan]), measured, np.full(5, 7.0), np.full(5, 12.0))
    assert found["n"] == 3
    assert (found["median_ape"], found["mean_ape"]) == (0.2, pytest.approx((0.1 + 0.2 + 3.0) / 3.0))
    assert found["p90_ape"] == pytest.approx(0.2 + 0.8 * 2.8)
    assert (found["within_2x"], found["ratio"], found["coverage_80"]) == (pytest.approx(2 / 3), 1.1, 1.0)
    nothing = summary(np.array([math.nan]), np.array([1.0]))
    assert nothing == {"n": 0} | dict.fromkeys(("median_ape", "mean_ape", "p90_ape", "within_2x", "ratio", "coverage_80"))


def test_the_built_in_points_meet_what_is_said_of_them(run: Any) -> None:
    data = answer(run)
    assert data["answered"] >= 0.97 * data["points"]
    assert data["tpot"]["median_ape"] < 0.10
    assert data["by"]["mode"]["agg"]["tpot"]["median_ape"] < 0.10
    assert 0.75 <= data["tpot"]["coverage_80"] <= 0.97
    assert data["skipped_by_reason"] == {
        reason: int(n) for reason, n in re.findall(r"^\| ([a-z-]+) \| (\d+) \| ", README, re.M) if reason in SKIP_REASONS
    }
    assert data["median_with_skipped"] > data["tpot"]["median_ape"]
    found = data["deployments"]
    assert found["answered"] + sum(found["skipped_by_reason"].values()) == found["rows"] == len(load_deployments())
    assert {row["id"] for row in found["profile"]} == {"deepseek-profile-01", "deepseek-profile-02"}
    assert all(row["utilisation"] > 0.0 and row["enough"] == (row["predicted"] >= row["measured"]) for row in found["capacity"])


def test_a_file_gives_the_scores_of_its_rows(run: Any, file: Path) -> None:
    data = answer(run, file)
    found = predict(SOME)
    assert (data["file"], data["points"], data["skipped"]) == ("some.csv", len(SOME), [])
    assert data["tpot"] == summary(found.tpot_s, SOME.tpot_s, found.low_s, found.high_s)
    assert "deployments" not in data
    for stratum, column in {"system": SOME.system, "model": SOME.label_model, "backend": SOME.backend, "mode": SOME.mode}.items():
        assert sum(one["tpot"]["n"] for one in data["by"][stratum].values()) == data["tpot"]["n"]
        assert set(data["by"][stratum]) == set(column)
    assert set(data["by"]["evidence"]) <= {"measured", "sibling", "kin", "class defaults"}
    short = SOME.ttft_s < SHORT_TTFT_S
    assert data["ttft_below_5s"]["n"] == int((short & np.isfinite(found.ttft_s)).sum())


def test_rows_hold_a_line_a_point(run: Any, file: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    data = answer(run, file, "--rows", out)
    assert answer(run, file, "--rows", lines) == data
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    objects = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["id"] for row in rows] == [one["id"] for one in objects] == list(SOME.id)
    for row, one in zip(rows, objects, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in one.items()}
        assert one["tpot_ape"] == pytest.approx(abs(one["tpot_ms"] / one["tpot_measured_ms"] - 1.0))
        assert one["tpot_low_ms"] < one["tpot_ms"] < one["tpot_high_ms"]
        assert (one["ttft_ms"] is None) == (one["mode"] == "disagg")
    for name, column in (("tpot", SOME.tpot_s), ("ttft", SOME.ttft_s)):
        assert [one[f"{name}_measured_ms"] for one in objects] == pytest.approx((1e3 * column).tolist(), nan_ok=True)
    ttft = [math.nan if one["ttft_ms"] is None else one["ttft_ms"] for one in objects]
    np.testing.assert_allclose(ttft, 1e3 * predict(SOME).ttft_s)
    assert np.median([one["tpot_ape"] for one in objects]) == pytest.approx(data["tpot"]["median_ape"])
    code, _, error = run("validate", file, "--rows", out)
    assert code == 2
    assert "exists already" in error
    assert run("validate", file, "--rows", out, "--force")[0] == 0


def test_a_limit_that_is_missed(run: Any, file: Path) -> None:
    median = answer(run, file)["tpot"]["median_ape"]
    assert run("validate", file, "--max-median-ape", median * 1.01)[0] == 0
    code, out, error = run("validate", file, "--max-median-ape", median * 0.99)
    assert code == 4
    assert "TPOT by system" in out
    assert error.startswith("missed: the median error of TPOT is ")
    assert error.count("\n") == 1
    assert answer(run, file, "--max-median-ape", "0", code=4)["points"] == len(SOME)


def test_a_limit_is_missed_where_nothing_is_scored(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "no-tpot.csv"
    write_points(dataclasses.replace(SOME, tpot_s=np.full(len(SOME), math.nan), ttft_s=np.ones(len(SOME))), path)
    code, _, error = run("validate", path, "--max-median-ape", "0.5")
    assert code == 4
    assert "no point has a TPOT" in error
    assert answer(run, path)["tpot"]["median_ape"] is None


def test_one_runtime_for_every_row(run: Any, file: Path) -> None:
    plain = answer(run, file, "--runtime", "first-principles")
    assert plain["calibration"] == "none"
    assert set(plain["by"]["evidence"]) == {"class defaults"}
    assert plain["tpot"]["median_ape"] > answer(run, file)["tpot"]["median_ape"]
    assert answer(run, file, "--runtime", "ideal")["tpot"]["ratio"] < 1.0
    code, _, error = run("validate", file, "--runtime", "vlm")
    assert code == 2
    assert "vllm" in error


def test_another_calibration(run: Any, file: Path, tmp_path: Path) -> None:
    from planner.runtimes import load_calibration
    from planner.runtimes.calibration_text import to_toml

    usual = load_calibration()
    slow = {name: one.model_copy(update={"step_s": 0.1}) for name, one in usual.runtimes.items()}
    other = tmp_path / "slow.toml"
    other.write_text(to_toml(usual.model_copy(update={"runtimes": slow})))
    assert answer(run, file, "--calibration", other)["tpot"]["ratio"] > 1.5
    other.write_text("id = 3\n")
    code, _, error = run("validate", file, "--calibration", other)
    assert (code, error.count("\n")) == (2, 1)


def test_bad_rows_are_skipped_with_their_reasons(run: Any, file: Path) -> None:
    lines = file.read_text().splitlines()
    header = lines[0].split(",")

    def changed(number: int, column: str, value: str) -> str:
        cells = lines[number].split(",")
        cells[header.index(column)] = value
        return ",".join(cells)

    broken = [
        lines[0],
        lines[1],
        changed(2, "tpot_s", "-0.01"),
        changed(3, "tp", "3000"),
        changed(4, "system", "an abacus"),
        changed(5, "isl", ""),
        "only,three,cells",
        lines[1],
        *lines[6:],
    ]
    file.write_text("\n".join(broken) + "\n")
    data = answer(run, file)
    reasons = [one["reason"] for one in data["skipped"]]
    assert reasons == [
        "time-missing",
        "parallelism-impossible",
        "hardware-unknown",
        "lengths-missing",
        "row-broken",
        "id-repeated",
    ]
    assert data["points"] == len(SOME) - 4
    assert data["skipped_by_reason"] == dict.fromkeys(sorted(reasons), 1)


def test_rows_that_an_engine_refuses_are_skipped_and_the_rest_answered(run: Any, file: Path) -> None:
    strange = dataclasses.replace(SOME, kv_dtype=("int4", *SOME.kv_dtype[1:]))
    write_points(strange, file, force=True)
    data = answer(run, file)
    assert data["skipped"] == [{"id": SOME.id[0], "reason": "refused"}]
    assert data["points"] == len(SOME) - 1
    kept, found, refused = accepted(strange, load_runtime)
    assert (len(kept), len(found.tpot_s), len(refused)) == (len(SOME) - 1, len(SOME) - 1, 1)
    np.testing.assert_array_equal(found.tpot_s, predict(SOME).tpot_s[1:])


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "is empty"), ("a,b\n1,2\n", "has no column"), ("\x00", "NUL"), ("id,isl\n", "has no column"), (None, "no such file")],
)
def test_foreign_files_are_refused_in_one_line(run: Any, tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "foreign.csv"
    if text is not None:
        path.write_text(text)
    code, out, error = run("validate", path)
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1


def test_a_header_alone_is_refused(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "bare.csv"
    path.write_text(points_text(SOME.take(slice(0, 0))))
    code, _, error = run("validate", path)
    assert code == 2
    assert "holds no row" in error


def test_what_was_left_out_is_printed_from_what_is_stored(run: Any) -> None:
    code, out, _ = run("validate", "--left-out")
    assert code == 0
    assert "a system" in out
    code, out, _ = run("validate", "--left-out", "--format", "json")
    report = json.loads(out)
    assert set(report["left_out"]) == {"configuration", "system", "model", "runtime", "generation"}
    assert report["fitted"]["agg"]["median_ape"] < report["left_out"]["system"]["agg"]["median_ape"]
    assert run("validate", "--left-out", "--runtime", "ideal")[0] == 2


def test_an_interruption_leaves_no_file(run: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.accuracy.validation.score", stop)
    out = tmp_path / "rows.csv"
    code, text, _ = run("validate", file, "--rows", out)
    assert (code, text) == (130, "")
    assert not out.exists()


def test_rows_of_the_public_file_that_are_no_points_are_named() -> None:
    named = left_away()
    assert SKIPPED.parent == CONTINUOUS.parent
    assert {reason for _, reason in named} <= set(SKIP_REASONS)
    assert len({name for name, _ in named}) == len(named)
    assert not {name for name, _ in named} & set(ALL.id)


def test_deployments_are_summed_up_by_hand() -> None:
    rows = {row.id: row for row in load_deployments()}
    one, two = rows["deepseek-profile-01"], rows["ktransformers-02"]
    day = rows["deepseek-day6-01"]
    answered = [
        Prediction(one, one.value * 1.1, ("hbm",)),
        Prediction(two, two.value * 3.0, ("gddr", "ddr")),
        Prediction(day, day.value * 2.0, ("hbm",)),
    ]
    skipped = [Unanswered(rows["deepseek-day6-02"], "reference-only")]
    found = score_deployments(answered, skipped)
    assert (found["rows"], found["answered"], found["absolute"]["n"]) == (4, 3, 2)
    assert found["absolute"]["mean_ape"] == pytest.approx((0.1 + 2.0) / 2.0)
    assert found["below_device_memory"]["by_source"]["ktransformers"]["ratio"] == pytest.approx(3.0)
    assert [row["id"] for row in found["beyond_2x"]] == ["ktransformers-02"]
    assert found["capacity"][0]["utilisation"] == pytest.approx(0.5)
    assert found["capacity"][0]["enough"]
    assert found["skipped_by_reason"] == {"reference-only": 1}
    assert set(found["by"]["class"]) == {"accelerator", "graphics card"}
    assert "ddr" in BELOW


def test_engines_are_read_once() -> None:
    engines = engines_of("generic")
    assert engines("vllm") is engines("vllm")
    assert engines("vllm").id == "generic"


def test_errors_of_the_validation_are_those_of_its_points(file: Path) -> None:
    done = validate(file)
    ape = errors(done.found.tpot_s, done.points.tpot_s)
    assert done.data["tpot"]["mean_ape"] == pytest.approx(float(np.mean(ape)))


def test_what_cannot_run_is_skipped_and_not_timed(run: Any, tmp_path: Path) -> None:
    """405B on one H100, and requests longer than the model takes."""
    path = tmp_path / "mine.csv"
    points, _ = read_points(CONTINUOUS)
    base = points.take(
        np.flatnonzero([m == "llama-3.1-70b" and s == "h100_sxm" for m, s in zip(points.model, points.system, strict=True)])[:3]
    )
    big = dataclasses.replace(
        base,
        model=("llama-3.1-405b", *base.model[1:]),
        label_model=("meta-llama/Llama-3.1-405B", *base.label_model[1:]),
        tp=np.array([1, *base.tp[1:].tolist()]),
        isl=np.array([base.isl[0], 10_000_000, base.isl[2]]),
    )
    write_points(big, path)
    code, out, _ = run("validate", str(path), "--format", "json")
    data = json.loads(out)
    assert code == 0 and data["answered"] == 1 and data["skipped_by_reason"] == {"refused": 2}
