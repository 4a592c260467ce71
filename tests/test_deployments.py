"""Published deployments: the file says what it must, bad rows are refused in one line, and predictions follow from labels."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from planner.accuracy.deployment_passes import acceptance, engine_name, instance_of, memories_of, pool_of, processor_rates
from planner.accuracy.deployments import POINTS, UNITS, Default, Deployment, Skip, load_deployments, shares
from planner.accuracy.misses import is_missed, load_misses
from planner.accuracy.predict_deployments import Prediction, predict, predict_all, settle
from planner.architecture import load_model
from planner.errors import InputError, PlannerError
from planner.hardware import load_hardware

ROWS = load_deployments()
BY_ID = {row.id: row for row in ROWS}
README = (POINTS.parent / "README.md").read_text(encoding="utf-8")


def changed(tmp_path: Path, row_id: str, **cells: str) -> Path:
    """The built-in file reduced to one row (and its baseline), with some cells replaced."""
    with POINTS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keep = [row for row in rows if row["id"] in (row_id, BY_ID[row_id].baseline)]
    next(row for row in keep if row["id"] == row_id).update(cells)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(keep)
    path = tmp_path / "rows.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def test_every_row_has_a_public_source_and_a_figure() -> None:
    assert len(ROWS) == len(BY_ID) >= 400
    for row in ROWS:
        assert row.source.startswith("https://") and " " not in row.source
        assert row.published and row.source_group and math.isfinite(row.value)
        assert row.metric in UNITS or row.skip is not None


def test_the_scored_set_is_what_was_published() -> None:
    of_deployments = [row for row in ROWS if row.set == "deployments"]
    counts = {score: sum(row.score == score for row in of_deployments) for score in ("absolute", "ratio", "reference")}
    assert counts == {"absolute": 268, "ratio": 23, "reference": 17}
    assert sum(row.set == "curves" for row in ROWS) == 129
    answered = [row for row in of_deployments if row.score == "absolute" and row.skip is None]
    assert len(answered) >= 0.85 * counts["absolute"]


def test_reasons_and_defaults_are_those_of_the_readme() -> None:
    for word in (*get_args(Skip), *get_args(Default), *Deployment.model_fields):
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", README), word
    for group in {re.split(r"[/]", row.source_group)[0].removesuffix("-curves") for row in ROWS}:
        assert group in README, group


def test_scenarios_name_catalogue_models_and_hardware() -> None:
    scenarios = [row for row in ROWS if row.skip is None]
    for name in {row.model for row in scenarios}:
        assert load_model(name).id == name
    for name in {row.hardware for row in scenarios}:
        assert load_hardware(name).system.id == name


def test_rates_are_per_device() -> None:
    """The source's figure per node, package or server over the devices it counts."""
    for row_id, per in (
        ("deepseek-profile-01", 8),
        ("cloudmatrix384-01", 2),
        ("flexgen-01", 1),
        ("mlperf-v5-1-llama3-1-8b-01", 8),
    ):
        row = BY_ID[row_id]
        assert row.value == pytest.approx(float(row.published.split()[0]) / per, rel=1e-9)


@pytest.mark.parametrize(
    ("row_id", "cells", "message"),
    [
        ("ant-h20-02", {"ep": "5"}, "ep 5 does not divide"),
        ("ant-h20-02", {"devices": "20"}, "no whole number of instances"),
        ("ant-h20-02", {"batch": ""}, "batch or concurrency"),
        ("ant-h20-02", {"batch": "-3"}, "greater than 0"),
        ("ant-h20-02", {"value": "nan"}, "finite"),
        ("ant-h20-02", {"value": "-1"}, "greater than 0"),
        ("ant-h20-02", {"accept_length": "2.5"}, "at most 2 tokens"),
        ("ant-h20-02", {"skip": "too-slow"}, "skip"),
        ("ant-h20-02", {"defaults": "batch-9"}, "defaults"),
        ("ant-h20-02", {"source": "a private note"}, "source"),
        ("ant-h20-02", {"balanced": "perhaps"}, "neither yes nor no"),
        ("ant-h20-02", {"metric": "joules"}, "metric"),
        ("ant-h20-01", {"isl": ""}, "isl"),
        ("ant-h20-01", {"prefix_hit": "1"}, "nothing to compute"),
        ("flexgen-02", {"weights_on": "device:0.5"}, "add up to 0.5"),
        ("flexgen-02", {"weights_on": "moon:1"}, "cannot read"),
        ("sglang-gb200-06", {"baseline": "nobody"}, "no row of the same metric"),
        ("sglang-gb200-06", {"baseline": ""}, "baseline"),
    ],
)
def test_a_bad_row_is_refused_in_one_line(tmp_path: Path, row_id: str, cells: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as refused:
        load_deployments(changed(tmp_path, row_id, **cells))
    text = str(refused.value)
    assert message in text and "\n" not in text and "rows.csv" in text


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    for text, message in (
        ("id,value\na,1\n", "has no column"),
        (POINTS.read_text(encoding="utf-8").splitlines()[0] + ",extra\n", "too many"),
        ("\n".join([*POINTS.read_text(encoding="utf-8").splitlines()[:2], "a,b"]) + "\n", "cells"),
        ("\n".join(POINTS.read_text(encoding="utf-8").splitlines()[i] for i in (0, 1, 1)) + "\n", "given twice"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            load_deployments(path)
    with pytest.raises(InputError):
        load_deployments(tmp_path / "absent.csv")


def test_shares_are_read_with_their_scope() -> None:
    assert shares("device:0.2 host:0.8") == ("", {"device": 0.2, "host": 0.8})
    assert shares("hits disk:1") == ("hits", {"disk": 1.0})
    assert shares("optimum") == ("optimum", {})


def test_acceptance_gives_the_stated_length() -> None:
    for length, drafts in ((1.0, 1), (1.85, 1), (2.55, 2), (3.1, 3), (4.0, 3)):
        each = acceptance(length, drafts)
        assert len(each) == drafts
        assert 1.0 + sum(math.prod(each[:i]) for i in range(1, drafts + 1)) == pytest.approx(length, abs=1e-9)


def test_every_scenario_is_predicted_and_the_rest_has_a_reason() -> None:
    answered, rest = predict_all(ROWS)
    assert {one.row.id for one in rest} == {row.id for row in ROWS if row.skip is not None}
    assert all(math.isfinite(one.value) and one.value > 0.0 for one in answered)
    assert [one.row.id for one in answered] == [row.id for row in ROWS if row.skip is None]


def test_a_closed_loop_holds_its_requests() -> None:
    """Running plus waiting requests of the settled batch are those in flight (Little's law)."""
    import numpy as np

    def service(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        tpot = 0.01 + 0.001 * batch
        return tpot, 0.5 + 0.0 * batch, batch * 4.0 / (100.0 * tpot)

    for flight in (4.0, 32.0, 100.0):
        batch = settle(service, flight, 4.0, flight / 4.0)
        _, ttft, rate = service(np.array([batch]))
        assert batch * 4.0 + float(rate[0] * ttft[0]) == pytest.approx(flight, rel=2e-3)


def test_more_of_the_weights_on_the_host_is_slower(tmp_path: Path) -> None:
    inside, beside, below = (
        predict(load_deployments(changed(tmp_path, "flexgen-02", weights_on=text, cache_on="device:1"))[0]).value
        for text in ("device:1", "device:0.5 host:0.5", "host:0.5 disk:0.5")
    )
    assert inside > beside > below


def test_experts_on_processors_take_longer_on_one_socket() -> None:
    two, one = (predict(BY_ID[name]).value for name in ("ktransformers-10", "ktransformers-12"))
    assert one < two < 2.0 * one
    row = BY_ID["ktransformers-10"]
    assert memories_of(row, instance_of(row)[0].pool) == ("gddr", "ddr")


def test_processors_run_at_the_rates_of_the_engines_version(tmp_path: Path) -> None:
    """Prompts: kernels with matrix units, from 0.3 on, are several times as fast as those before."""
    before, after = (
        predict(load_deployments(changed(tmp_path, "ktransformers-01", version=v))[0]).value for v in ("0.2.1", "0.3")
    )
    assert after > 3.0 * before


def test_overlap_and_balance_are_read_from_the_labels() -> None:
    plain, overlapped = BY_ID["sglang-h100-ep-07"], BY_ID["sglang-h100-ep-06"]
    assert not plain.overlap and overlapped.overlap
    assert predict(plain).value < predict(overlapped).value
    assert predict(BY_ID["sglang-h100-ep-03"]).value <= predict(BY_ID["sglang-h100-ep-04"]).value
    assert BY_ID["sglang-h100-ep-04"].balanced and not BY_ID["sglang-h100-ep-03"].balanced


def test_the_production_day_is_within_capacity() -> None:
    """The observed day average is at most what the model predicts at its operating point."""
    for name in ("deepseek-day6-01", "deepseek-day6-03"):
        assert BY_ID[name].score == "reference"
        assert predict(BY_ID[name]).value >= BY_ID[name].value


def test_metrics_of_one_scenario_agree(tmp_path: Path) -> None:
    name = "inferencex-llama-3-3-70b-01"
    total, output, tpot, user, ttft, e2e = (
        predict(load_deployments(changed(tmp_path, name, metric=metric))[0]).value
        for metric in ("total_tok_s_per_device", "output_tok_s_per_device", "tpot_ms", "tok_s_per_user", "ttft_ms", "e2e_ms")
    )
    row = BY_ID[name]
    assert row.isl and row.osl and row.devices and row.concurrency
    assert total == pytest.approx(output * (row.isl + row.osl) / row.osl)
    assert user == pytest.approx(1e3 / tpot)
    assert e2e == pytest.approx(ttft + (row.osl - 1.0) * tpot)
    in_flight = output * row.devices / row.osl * e2e / 1e3
    assert in_flight == pytest.approx(row.concurrency, rel=0.02)


def test_a_ratio_is_of_two_predictions() -> None:
    found = predict(BY_ID["sglang-gb200-06"], BY_ID).value
    assert 0.0 < found < 1.0
    with pytest.raises(PlannerError, match="baseline"):
        predict(BY_ID["sglang-gb200-06"], {})


def test_a_row_that_nothing_fits_is_unanswered_with_a_reason(tmp_path: Path) -> None:
    bad = {
        "model": ("no-such-model", "no-such-model"),
        "hardware": ("no-such-node", "no-such-node"),
        "kv_dtype": ("int4", "cache layout"),
    }
    for column, (text, message) in bad.items():
        rows = load_deployments(changed(tmp_path, "ant-h20-02", **{column: text}))
        answered, rest = predict_all(rows)
        assert not answered and message in rest[0].reason and "\n" not in rest[0].reason
    with pytest.raises(PlannerError, match="length-unknown"):
        predict(next(row for row in ROWS if row.skip == "length-unknown"))


def test_another_runtime_in_the_place_of_the_catalogues() -> None:
    from planner.runtimes import RUNTIMES

    row, plain = BY_ID["ant-h20-02"], RUNTIMES.load("generic")
    slow = plain.model_copy(update={"residual": plain.residual.model_copy(update={"value": 2.0 * plain.residual.value})})
    assert predict(row, None, lambda _: slow).value == pytest.approx(predict(row, None, lambda _: plain).value / 2.0)


# --- what is missed -----------------------------------------------------------------------------------------------------


def test_every_row_beyond_twice_is_on_the_list_and_no_other() -> None:
    listed = load_misses()
    answered, _ = predict_all(ROWS)
    missed = {found.row.id for found in answered if is_missed(found)}
    assert missed - set(listed) == set(), "say why in points/misses.csv, or that it is unexplained"
    assert set(listed) - missed == set(), "these are within twice by now: take them off points/misses.csv"
    assert list(listed) == sorted(listed)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,why\n", "another header"),
        ("id,standing,reason\na,explained,\n", "line 2: reason"),
        ("id,standing,reason\na,perhaps,so\n", "line 2: standing"),
        ("id,standing,reason\na,explained\n", "line 2: reason"),
        ("id,standing,reason\na,explained,so,so\n", "line 2"),
        ("id,standing,reason\na,explained,so\na,partly,so\n", "given twice"),
        ('id,standing,reason\na,explained,"so\n', "CSV"),
    ],
)
def test_a_bad_list_of_misses_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "misses.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refused:
        load_misses(path)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_miss_is_beyond_a_factor_of_two() -> None:
    row = BY_ID["ant-h20-02"]
    for quotient, missed in ((0.49, True), (0.5, False), (1.0, False), (2.0, False), (2.01, True)):
        assert is_missed(Prediction(row, quotient * row.value, ())) is missed
    reference = BY_ID["deepseek-day6-01"]
    assert not is_missed(Prediction(reference, 9.0 * reference.value, ()))


def test_a_version_of_an_engine_goes_before_its_name() -> None:
    assert engine_name("trtllm", "1.2.03e27c7") == "trtllm-1-2" and engine_name("trtllm", "1.3.0") == "trtllm"
    assert engine_name("llama-cpp", "2025.10.4c7e989") == "llama-cpp-2025-10" and engine_name("llama-cpp", "") == "llama-cpp"
    assert {engine_name(row.runtime, row.version) for row in ROWS if row.source_group.startswith("trtllm-overview")} == {
        "trtllm-1-2"
    }


def test_processors_multiply_as_their_engine_was_measured() -> None:
    """Weights of 4 bits in llama.cpp are multiplied in int8 there too; what the device's kernels do says nothing of int8."""
    for row_id, dtype, rate in (
        ("ktransformers-13", "int4", 2e12),
        ("ktransformers-13", "fp4", 2e12),
        ("ktransformers-15", "int8", 35e12),
        ("ktransformers-15", "bf16", 21e12),
        ("ktransformers-01", "int4", 2.6e12),
    ):
        row = BY_ID[row_id]
        pool = pool_of(row, hardware=row.experts_on.partition(":")[0])
        assert processor_rates(pool).gemm_flop_per_s(dtype, np.array([64.0]), "routed") == pytest.approx(rate)
    pool, rows = pool_of(BY_ID["ktransformers-13"], hardware="xeon-6454s-node"), np.array([64.0])
    assert pool.inputs.runtime.cpu is not None and pool.inputs.runtime.cpu.bf16 is None  # nobody measured it there
    assert processor_rates(pool).gemm_flop_per_s("bf16", rows, "routed") == pytest.approx(
        pool.rates.gemm_flop_per_s("bf16", rows, "routed")
    )
