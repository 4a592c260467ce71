"""Benchmark points: labels are read by rule, bad rows skipped with a reason, bad files refused; our own form reads back."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.accuracy.labels import (
    LABEL_COLUMNS,
    RULE_MEANINGS,
    SKIP_MEANINGS,
    SKIP_REASONS,
    WEIGHT_DTYPES,
    Deployed,
    count,
    decode,
    model_of,
    runtime_of,
    system_of,
    weights_of,
)
from planner.accuracy.point_files import COLUMNS, DEFAULTS, MISMATCH
from planner.accuracy.points import (
    CONTINUOUS,
    Points,
    counts_by_reason,
    noise_floor,
    points_text,
    read_points,
    repeats,
    write_points,
)
from planner.architecture import load_model
from planner.architecture.catalogue import list_models
from planner.errors import InputError
from planner.hardware import load_hardware
from planner.plans.inputs import WEIGHT_FORMATS
from planner.runtimes.schema import RUNTIMES

BUILT_IN, SKIPPED = read_points(CONTINUOUS)
README = (CONTINUOUS.parent / "README.md").read_text(encoding="utf-8")

PUBLIC = ("id", *LABEL_COLUMNS, "isl", "osl", "concurrency", "measured_ttft_ms", "measured_tpot_ms", "gemm_quant_mode")
R1 = {
    **{"id": "a", "model": "deepseek-ai/DeepSeek-R1", "system": "b200_sxm", "backend": "trtllm", "backend_version": "1.2.0rc2"},
    **{"precision": "fp8", "mode": "agg", "isl": "1024", "osl": "512", "concurrency": "64"},
    **{"tp_size": "8", "pp_size": "1", "attention_dp_size": "1", "moe_tp_size": "8", "moe_ep_size": "1"},
    **{"measured_ttft_ms": "972.3", "measured_tpot_ms": "1.612e+01"},
}
SPLIT = {
    **{name: R1[name] for name in R1 if not name.endswith("_size")},
    **{"mode": "disagg", "system": "gb200", "concurrency": "4096"},
    **{"decode_num_workers": "2", "decode_batch_size": "64", "decode_tp_size": "1", "decode_pp_size": "1"},
    **{"decode_attention_dp_size": "32", "decode_moe_tp_size": "1", "decode_moe_ep_size": "32"},
    **{"prefill_num_workers": "5", "prefill_tp_size": "4", "prefill_pp_size": "1", "prefill_attention_dp_size": "1"},
    **{"prefill_moe_tp_size": "4", "prefill_moe_ep_size": "1"},
}


def csv_text(*rows: dict[str, str], columns: tuple[str, ...] = PUBLIC) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def read(tmp_path: Path, text: str | bytes) -> tuple[Points, list[tuple[str, str]]]:
    path = tmp_path / "points.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    points, skipped = read_points(path)
    assert all(len(column) == len(points) for column in points.columns.values())
    return points, [(name, str(reason)) for name, reason in skipped]


def sizes(points: Points, *names: str) -> tuple[int, ...]:
    return tuple(int(getattr(points, name)[0]) for name in names or ("tp", "pp", "dp", "ep", "workers"))


AGG = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")


@pytest.mark.parametrize(
    ("system", "backend", "cells", "read_as", "rule"),
    [
        ("b200_sxm", "trtllm", "8 1 8 1", (8, 1, 1), "stated"),
        ("b200_sxm", "trtllm", "8 1 1 8", (8, 1, 8), "stated"),
        ("b200_sxm", "trtllm", "1 8 1 8", (1, 8, 8), "stated"),
        ("b200_sxm", "trtllm", "1 4 4 1", (1, 4, 1), "stated"),
        ("b200_sxm", "trtllm", "2 4 2 4", (2, 4, 4), "stated"),
        ("gb200", "sglang", "8 1 1 8", (8, 1, 8), "stated"),
        ("h100_sxm", "trtllm", "4 - 2 2", (4, 1, 2), "attention-dp-empty"),
        ("h200_sxm", "vllm", "1 - 4 1", (1, 4, 1), "attention-dp-empty"),
        ("h200_sxm", "vllm", "2 0 1 4", (2, 2, 4), "attention-dp-empty"),
        ("b200_sxm", "sglang", "16 1 4 4", (4, 1, 4), "squared-tensor"),
        ("gb200", "sglang", "16 1 4 4", (4, 1, 4), "squared-tensor"),
        ("b200_sxm", "sglang", "64 1 8 8", (8, 1, 8), "squared-tensor"),
        ("h200_sxm", "trtllm", "4 1 2 2", (2, 1, 2), "squared-tensor"),
        ("b200_sxm", "trtllm", "1 64 8 8", (1, 8, 8), "squared-attention-dp"),
        ("b200_sxm", "trtllm", "1 4 2 2", (1, 2, 2), "squared-attention-dp"),
        ("b200_sxm", "vllm", "4 4 1 16", (1, 4, 4), "vllm-attention-dp"),
        ("b200_sxm", "vllm", "2 2 1 4", (1, 2, 2), "vllm-attention-dp"),
        ("b200_sxm", "trtllm", "2 2 1 4", (2, 2, 4), "stated"),
    ],
)
def test_parallelism_of_mixtures_by_rule(
    tmp_path: Path, system: str, backend: str, cells: str, read_as: tuple[int, ...], rule: str
) -> None:
    given_sizes = dict(zip(AGG, ["" if cell == "-" else cell for cell in cells.split()], strict=True))
    points, skipped = read(tmp_path, csv_text(R1 | {"system": system, "backend": backend} | given_sizes))
    assert not skipped
    assert sizes(points, "tp", "dp", "ep") == read_as and points.rule == (rule,)
    assert sizes(points, "pp", "workers", "prefill_tp", "prefill_workers") == (1, 1, 0, 0)
    assert math.isnan(points.batch[0])


@pytest.mark.parametrize(
    ("system", "cells", "reason"),
    [
        ("b200_sxm", "8 1 4 1", "parallelism-impossible"),
        ("b200_sxm", "16 1 16 1", "parallelism-impossible"),
        ("b200_sxm", "3 - 2 2", "parallelism-impossible"),
        ("b200_sxm", "4 4 4 4", "parallelism-impossible"),
        ("b200_sxm", "8 1 0 0", "parallelism-missing"),
        ("b200_sxm", "- 1 8 1", "parallelism-missing"),
        ("gb200", "12 1 12 1", "aggregate-of-disaggregated"),
        ("gb200", "72 1 72 1", "aggregate-of-disaggregated"),
        ("b200_sxm", "8 1 eight 1", "number-unreadable"),
        ("b200_sxm", "8 -1 8 1", "number-unreadable"),
        ("b200_sxm", "8 1.5 8 1", "number-unreadable"),
        ("b200_sxm", "8 1 99999999999999 1", "number-unreadable"),
    ],
)
def test_parallelism_that_cannot_be(tmp_path: Path, system: str, cells: str, reason: str) -> None:
    given_sizes = dict(zip(AGG, ["" if cell == "-" else cell for cell in cells.split()], strict=True))
    points, skipped = read(tmp_path, csv_text(R1 | {"system": system} | given_sizes))
    assert skipped == [("a", reason)] and len(points) == 0


def test_dense_models_have_no_experts_to_spread(tmp_path: Path) -> None:
    dense = R1 | {"model": "meta-llama/Llama-3.1-70B", "moe_tp_size": "0", "moe_ep_size": ""}
    rows = [dense | {"id": f"dp{dp}", "tp_size": "2", "attention_dp_size": dp} for dp in ("", "0", "1", "4")]
    points, skipped = read(tmp_path, csv_text(*rows))
    assert not skipped and set(points.rule) == {"stated"}
    assert points.tp.tolist() == [2] * 4 and points.ep.tolist() == [1] * 4 and points.dp.tolist() == [1, 1, 1, 4]
    assert sizes(read(tmp_path, csv_text(dense | {"moe_tp_size": "1", "moe_ep_size": "8"}))[0], "tp", "ep") == (8, 1)
    assert read(tmp_path, csv_text(dense | {"tp_size": "8", "attention_dp_size": "2"}))[1] == [("a", "parallelism-impossible")]


def test_disaggregated_rows_are_read_by_the_side_that_decodes(tmp_path: Path) -> None:
    points, skipped = read(tmp_path, csv_text(SPLIT))
    assert not skipped and points.mode == ("disagg",) and points.note == ("",)
    assert sizes(points) == (1, 1, 32, 32, 2) and points.batch[0] == 64
    assert sizes(points, "prefill_tp", "prefill_pp", "prefill_dp", "prefill_ep", "prefill_workers") == (4, 1, 1, 1, 5)
    assert points.devices.tolist() == [84]


def test_the_rules_hold_for_both_sides(tmp_path: Path) -> None:
    tensor = {"decode_tp_size": "16", "decode_attention_dp_size": "1", "decode_moe_tp_size": "4", "decode_moe_ep_size": "4"}
    points, _ = read(tmp_path, csv_text(SPLIT | tensor))
    assert sizes(points, "tp", "dp", "ep") == (4, 1, 4) and points.rule == ("squared-tensor",)
    prefill = {"prefill_tp_size": "1", "prefill_attention_dp_size": "4", "prefill_moe_tp_size": "2", "prefill_moe_ep_size": "2"}
    points, _ = read(tmp_path, csv_text(SPLIT | prefill))
    assert sizes(points, "prefill_tp", "prefill_dp", "prefill_ep") == (1, 2, 2) and points.rule == ("squared-attention-dp",)


@pytest.mark.parametrize(("side", "other"), [("decode", "prefill"), ("prefill", "decode")])
def test_no_worker_of_either_side_is_larger_than_the_system(tmp_path: Path, side: str, other: str) -> None:
    names = ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    row = SPLIT | {"system": "h100_sxm"} | {f"{other}_{name}": size for name, size in zip(names, "1818", strict=True)}
    for ranks, skipped in (("8", []), ("16", [("a", "parallelism-impossible")])):
        sizes_of_side = zip(names, (ranks, "1", "1", ranks), strict=True)
        assert read(tmp_path, csv_text(row | {f"{side}_{name}": size for name, size in sizes_of_side}))[1] == skipped


@pytest.mark.parametrize("name", ["decode_num_workers", "decode_batch_size", "prefill_num_workers"])
def test_disaggregated_rows_need_their_workers(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, csv_text(SPLIT | {name: ""}))[1] == [("a", "workers-unknown")]


def test_a_concurrency_that_the_workers_do_not_hold_is_noted(tmp_path: Path) -> None:
    points, skipped = read(tmp_path, csv_text(SPLIT | {"concurrency": "4095"}))
    assert not skipped and points.note == (MISMATCH,) and points.concurrency.tolist() == [4095]


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"isl": ""}, "lengths-missing"),
        ({"isl": "0"}, "lengths-missing"),
        ({"osl": "1"}, "lengths-missing"),
        ({"osl": "-5"}, "lengths-missing"),
        ({"isl": "1k"}, "number-unreadable"),
        ({"isl": "nan"}, "number-unreadable"),
        ({"isl": "1_024"}, "number-unreadable"),
        ({"concurrency": ""}, "concurrency-missing"),
        ({"concurrency": "0"}, "concurrency-missing"),
        ({"concurrency": "2.5"}, "number-unreadable"),
        ({"measured_ttft_ms": "", "measured_tpot_ms": ""}, "time-missing"),
        ({"measured_ttft_ms": "-1"}, "time-missing"),
        ({"measured_tpot_ms": "0"}, "time-missing"),
        ({"measured_tpot_ms": "fast"}, "number-unreadable"),
        ({"measured_tpot_ms": "1e300"}, "number-unreadable"),
        ({"measured_tpot_ms": "inf"}, "number-unreadable"),
        ({"model": "nobody/Nothing-7B"}, "model-unknown"),
        ({"model": ""}, "model-unknown"),
        ({"system": "abacus"}, "hardware-unknown"),
        ({"system": "hardware_profiles/systems/b200-node.toml"}, "hardware-unknown"),
        ({"system": "b200_sxm:2"}, "hardware-unknown"),
        ({"backend": "excel"}, "backend-unknown"),
        ({"backend": "../vllm"}, "backend-unknown"),
        ({"precision": "fp1"}, "precision-unknown"),
        ({"mode": "both"}, "mode-unknown"),
        ({"id": ""}, "row-broken"),
        ({"model": "Deep\x1b[31mSeek"}, "row-broken"),
        ({"backend_version": "1" * 300}, "row-broken"),
        ({"backend_version": "1\n2"}, "row-broken"),
    ],
)
def test_bad_rows_are_skipped_with_their_reason(tmp_path: Path, cells: dict[str, str], reason: str) -> None:
    points, skipped = read(tmp_path, csv_text(R1 | cells, R1 | {"id": "good"}))
    assert [found for _, found in skipped] == [reason] and points.id == ("good",)
    assert skipped[0][0] == "a" or reason == "row-broken"


def test_ids_given_twice_and_rows_of_another_width(tmp_path: Path) -> None:
    text = csv_text(R1, R1 | {"id": "b", "isl": ""}, R1) + "short,row\n" + csv_text(R1 | {"id": "c", "isl": ""}).split("\n", 1)[1]
    points, skipped = read(tmp_path, text)
    assert points.id == ("a",)
    assert skipped == [("b", "lengths-missing"), ("a", "id-repeated"), ("line 5", "row-broken"), ("c", "lengths-missing")]
    assert list(counts_by_reason(skipped)) == ["row-broken", "id-repeated", "lengths-missing"]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kept", "missing"), [("ttft", "tpot"), ("tpot", "ttft")])
def test_one_time_is_enough(tmp_path: Path, kept: str, missing: str) -> None:
    points, skipped = read(tmp_path, csv_text(R1 | {f"measured_{missing}_ms": ""}))
    assert not skipped and math.isnan(getattr(points, f"{missing}_s")[0])
    assert getattr(points, f"{kept}_s")[0] == {"ttft": 0.9723, "tpot": 0.01612}[kept]


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"), lambda t: t.replace("\n", "\n\n")])
def test_byte_order_marks_line_ends_and_blank_lines(tmp_path: Path, change: object) -> None:
    points, skipped = read(tmp_path, change(csv_text(R1)))  # type: ignore[operator]
    assert not skipped and points.id == ("a",) and points.tpot_s[0] == 0.01612


OURS = csv_text({"id": "a"}, columns=("id", "model", "hardware", "runtime", "isl", "osl", "concurrency", "tp", "tpot_s"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "has no column|is empty"),
        ("these,are,other,columns\n1,2,3,4\n", "has no column 'id'"),
        (csv_text(R1).replace("measured_tpot_ms", "tpot"), "has no column 'measured_tpot_ms'"),
        (csv_text(R1).replace("attention_dp_size", "adp", 1), "has no column 'attention_dp_size'"),
        (csv_text(R1).replace("gemm_quant_mode", "isl"), "column 'isl' twice"),
        (OURS.replace("concurrency", "concurency"), "has no column 'concurrency'"),
        (OURS.replace("tpot_s", "tpot_seconds"), "unknown column 'tpot_seconds'; did you mean tpot_s"),
        (OURS.replace(",tpot_s", ",note"), "neither column 'ttft_s' nor 'tpot_s'"),
        (OURS.replace(",runtime", ",note"), "neither column 'runtime' nor 'backend'"),
        (csv_text(R1) + '"never closed', "is not CSV"),
        (csv_text(R1) + "x" * 200_000, "is not CSV"),
        (b"id,model\n\xff\xfe", "is not UTF-8"),
        (b"id\0,model\n", "NUL"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("points.csv") or "UTF-8" in words or "NUL" in words


def test_huge_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.accuracy.point_files.MAX_ROWS", 2)
    assert len(read(tmp_path, csv_text(*(R1 | {"id": str(n)} for n in range(2))))[0]) == 2
    with pytest.raises(InputError, match="more than 2 rows"):
        read(tmp_path, csv_text(*(R1 | {"id": str(n)} for n in range(3))))
    monkeypatch.setattr("planner.accuracy.point_files.MAX_BYTES", 100)
    with pytest.raises(InputError, match="larger than 100 bytes"):
        read(tmp_path, csv_text(R1))


def test_a_header_alone_is_no_points(tmp_path: Path) -> None:
    for text in (csv_text(), OURS.splitlines()[0]):
        points, skipped = read(tmp_path, text)
        assert len(points) == 0 and not skipped and noise_floor(points)[0].pairs == 0
    path = tmp_path / "none.csv"
    write_points(points, path)
    assert len(read_points(path)[0]) == 0


@pytest.mark.parametrize(
    ("label", "id", "precision", "weights"),
    [
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3", "fp8", "fp8"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3", "", ""),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3", "bf16", "bf16"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-v3", "fp4", "fp4"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3", "fp8", "fp8"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3", "fp8", "fp8"),
        ("nvidia/DeepSeek-R1-NVFP4", "deepseek-v3", "fp4", "fp4"),
        ("nvidia/DeepSeek-R1-0528-FP4-v2", "deepseek-v3", "", "fp4"),
        ("nvidia/DeepSeek-V3.1-NVFP4", "deepseek-v3", "", "fp4"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek-v3", "", ""),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek-v3.2", "fp8", "fp8"),
        ("Qwen/Qwen3-32B", "qwen3-32b", "", ""),
        ("Qwen/Qwen3-32B", "qwen3-32b", "bf16", ""),
        ("nvidia/Qwen3-32B-NVFP4", "qwen3-32b", "fp4", "fp4"),
        ("Qwen/Qwen3-32B-FP8", "qwen3-32b", "", "fp8"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b", "", "fp8"),
        ("meta-llama/Llama-3.1-70B", "llama-3.1-70b", "fp8", "fp8"),
        ("nvidia/Llama-3.3-70B-Instruct-FP8", "llama-3.1-70b", "fp8", "fp8"),
        ("nvidia/Llama-3.3-70B-Instruct-FP4", "llama-3.1-70b", "", "fp4"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b", "bf16", ""),
        ("nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3.1-8b", "fp8", "fp8"),
        ("MiniMaxAI/MiniMax-M2.5", "minimax-m2", "fp4", "fp4"),
        ("MiniMaxAI/MiniMax-M2", "minimax-m2", "fp8", "fp8"),
        ("openai/gpt-oss-120b", "gpt-oss-120b", "fp4", ""),
        ("openai/gpt-oss-120b", "gpt-oss-120b", "mxfp4", ""),
        ("openai/gpt-oss-120b", "gpt-oss-120b", "fp8", "fp8"),
        ("Qwen/Qwen3.5-397B-A17B", "qwen3.5-397b-a17b", "bf16", ""),
        ("moonshotai/Kimi-K2-Thinking", "kimi-k2-thinking", "int4", ""),
        ("nvidia/Kimi-K2.5-NVFP4", "kimi-k2.5", "fp4", "fp4"),
    ],
)
def test_model_and_precision_labels(label: str, id: str, precision: str, weights: str) -> None:
    model = model_of(label)
    assert model is not None and model.id == id
    assert weights_of(model, precision) == weights


def test_every_model_of_the_catalogue_is_found_by_its_names() -> None:
    """Storage formats of one model share it; whether it has experts is what the model itself says."""
    for entry in list_models():
        for name in (entry.id, *entry.aliases):
            model = model_of(name)
            assert model is not None and (model.id == entry.id or model.id == re.sub(r"-(fp8|nvfp4)$", "", entry.id)), name
        model = model_of(entry.id)
        assert model is not None and model.experts == (load_model(model.id).router is not None), entry.id


@pytest.mark.parametrize("label", ["", "deepseek", "v3", "deepseek-v9-instruct", "-fp8", "instruct", "x" * 200])
def test_no_model_is_guessed(label: str) -> None:
    assert model_of(label) is None


@pytest.mark.parametrize(
    ("label", "id", "devices"),
    [
        ("b200_sxm", "b200-node", 8),
        ("h100_sxm", "h100-node", 8),
        ("H200-SXM", "h200-node", 8),
        ("gb200", "gb200-nvl72", 72),
        ("gb200_sxm", "gb200-nvl72", 72),
        ("b300_sxm", "b300-node", 8),
        ("gb300", "gb300-nvl72", 72),
        ("a100_sxm", "a100-node", 8),
        ("mi300x", "mi300x-node", 8),
        ("instinct-mi355x", "mi355x-node", 8),
        ("l40s", "l40s-node", 8),
        ("h20-3e", "h20-141-node", 8),
    ],
)
def test_system_labels(label: str, id: str, devices: int) -> None:
    assert system_of(label) == (id, devices)
    assert load_hardware(id).system.devices == devices


@pytest.mark.parametrize(
    ("backend", "version", "profile"),
    [
        ("vllm", "0.19.0", "vllm-0-19"),
        ("vllm", "", "vllm-0-19"),
        ("vLLM", "nightly-5b8c30d62b754b57", "vllm-0-19"),
        ("vllm", "v0.33.0", "vllm"),
        ("vllm", "1.0", "vllm"),
        ("sglang", "0.5.10.post1", "sglang-0-5-9"),
        ("sglang", "0.5.23", "sglang"),
        ("dynamo-sglang", "0.5.8", "sglang-0-5-9"),
        ("trtllm", "1.0.0rc3", "trtllm-1-2"),
        ("dynamo-trt", "", "trtllm-1-2"),
        ("mindie", "2.1", "mindie"),
        ("llama.cpp", "", "llama-cpp"),
        ("excel", "1.0", None),
        ("", "", None),
    ],
)
def test_backends_take_the_nearest_profile(backend: str, version: str, profile: str | None) -> None:
    assert runtime_of(backend, version) == profile
    assert profile is None or RUNTIMES.load(profile).id == profile


def test_caches_follow_the_precision() -> None:
    for precision, cache in (("fp8", "fp8"), ("fp4", "fp8"), ("", "bf16"), ("bf16", "bf16")):
        found = decode(tuple((R1 | {"precision": precision}).get(name, "") for name in LABEL_COLUMNS))
        assert isinstance(found, Deployed) and found.kv_dtype == cache


def test_labels_are_read_without_measurements() -> None:
    """Only label columns reach the rules."""
    assert not any("measured" in name or "ttft" in name or "tpot" in name for name in LABEL_COLUMNS)


def test_counts_are_whole_numbers() -> None:
    assert [count(text) for text in ("", " ", "0", "8", " 16.0 ")] == [0, 0, 0, 8, 16]
    for text in ("-1", "1e3", "٣", "0x8", "8.5", "1000001"):
        with pytest.raises(InputError):
            count(text)


def test_dtypes_are_those_that_plans_know() -> None:
    assert set(WEIGHT_DTYPES) == {"", *WEIGHT_FORMATS}


def test_the_columns_of_points_are_those_of_the_file() -> None:
    assert tuple(field.name for field in dataclasses.fields(Points)) == COLUMNS


WORDS = st.text(st.sampled_from("abcXYZ019-_./, \"';é"), max_size=12).map(str.strip)
TIMES = st.floats(1e-6, 1e5)
SHAPES = st.sampled_from([(1, 1, 1, 1), (2, 2, 2, 4), (8, 1, 1, 8), (1, 1, 8, 8), (2, 2, 2, 2)])


@st.composite
def rows(draw: st.DrawFn) -> dict[str, object]:
    split = draw(st.booleans())
    model = draw(st.sampled_from(["deepseek-v3", "gpt-oss-120b"]))
    system = draw(st.sampled_from(["b200-node", "gb200-nvl72"]))
    tp, pp, dp, ep = draw(SHAPES)
    prefill = draw(SHAPES) if split else (0, 0, 0, 0)
    return {
        **{"model": model, "hardware": system, "runtime": draw(st.sampled_from(["vllm", "vllm-0-19", "trtllm"]))},
        **{"backend": draw(st.sampled_from(["vllm", "trtllm", "other"])), "version": draw(WORDS)},
        **{"weight_dtype": draw(st.sampled_from(["", "fp8", "fp4"])), "kv_dtype": draw(st.sampled_from(["bf16", "fp8"]))},
        **{"mode": "disagg" if split else "agg", "isl": draw(st.floats(1, 1e6)), "osl": float(draw(st.integers(2, 10**6)))},
        **{"concurrency": draw(st.integers(1, 10**6)), "tp": tp, "pp": pp, "dp": dp, "ep": ep},
        **{"workers": draw(st.integers(1, 99)) if split else 1, "batch": draw(st.just(math.nan) | st.floats(0.5, 1e4))},
        **dict(zip(("prefill_tp", "prefill_pp", "prefill_dp", "prefill_ep"), prefill, strict=True)),
        **{"prefill_workers": draw(st.integers(1, 99)) if split else 0},
        **{"ttft_s": draw(st.just(math.nan) | TIMES), "tpot_s": draw(TIMES)},
        **{"label_model": draw(WORDS) or model, "system": draw(st.sampled_from(["b200", "gb200", "odd"]))},
        **{"precision": draw(WORDS), "rule": draw(st.sampled_from(list(RULE_MEANINGS))), "note": draw(WORDS)},
    }


def points_of(table: list[dict[str, object]]) -> Points:
    found: dict[str, object] = {"id": tuple(f"row {number}" for number in range(len(table)))}
    for name in COLUMNS[1:]:
        column = [row[name] for row in table]
        found[name] = tuple(column) if isinstance(column[0], str) else np.array(column)
    return Points(**found)  # type: ignore[arg-type]


def same(one: Points, other: Points) -> bool:
    pairs = ((getattr(one, name), getattr(other, name)) for name in COLUMNS)
    return all(
        a == b if isinstance(a, tuple) else a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype == float)
        for a, b in pairs
    )


@given(st.lists(rows(), min_size=1, max_size=6))
def test_our_form_reads_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, object]]) -> None:
    points = points_of(table)
    path = tmp_path_factory.mktemp("points") / "points.csv"
    write_points(points, path)
    found, skipped = read_points(path)
    assert not skipped and same(found, points)
    assert points_text(found) == path.read_text(encoding="utf-8")


def ours(**cells: str) -> str:
    row = {"id": "a", "model": "deepseek-v3", "hardware": "b200", "runtime": "vllm", "isl": "9", "osl": "9", "concurrency": "9"}
    row |= {"tp": "8", "tpot_s": "0.01"} | cells
    return csv_text(row, columns=tuple(row))


def test_our_form_fills_in_what_is_not_said(tmp_path: Path) -> None:
    points, skipped = read(tmp_path, ours())
    assert not skipped and points.hardware == ("b200-node",) and points.system == ("b200",)
    assert sizes(points) == (8, 1, 1, 1, 1) and points.mode + points.kv_dtype + points.rule == ("agg", "bf16", "stated")
    points, _ = read(
        tmp_path, ours(runtime="", backend="vllm", version="0.18.0", model="", label_model="deepseek-ai/DeepSeek-R1")
    )
    assert points.runtime == ("vllm-0-19",) and points.model == ("deepseek-v3",)
    assert set(DEFAULTS) < set(COLUMNS)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"model": "nothing"}, "model-unknown"),
        ({"hardware": "abacus"}, "hardware-unknown"),
        ({"runtime": "../vllm.toml"}, "backend-unknown"),
        ({"runtime": "", "backend": "excel"}, "backend-unknown"),
        ({"weight_dtype": "fp1"}, "precision-unknown"),
        ({"kv_dtype": "fp1"}, "precision-unknown"),
        ({"mode": "both"}, "mode-unknown"),
        ({"rule": "guessed"}, "row-broken"),
        ({"tp": "0"}, "parallelism-missing"),
        ({"tp": "-8"}, "number-unreadable"),
        ({"tp": "16"}, "parallelism-impossible"),
        ({"pp": "2"}, "parallelism-impossible"),
        ({"ep": "3"}, "parallelism-impossible"),
        ({"ep": "0"}, "parallelism-impossible"),
        ({"model": "llama-3.1-70b", "ep": "8"}, "parallelism-impossible"),
        ({"workers": "2"}, "parallelism-impossible"),
        ({"prefill_tp": "2"}, "parallelism-impossible"),
        ({"mode": "disagg"}, "workers-unknown"),
        (
            {
                "mode": "disagg",
                "prefill_tp": "9",
                "prefill_pp": "1",
                "prefill_dp": "1",
                "prefill_ep": "1",
                "prefill_workers": "1",
            },
            "parallelism-impossible",
        ),
        ({"batch": "0"}, "number-unreadable"),
        ({"osl": "1"}, "lengths-missing"),
        ({"concurrency": ""}, "concurrency-missing"),
        ({"tpot_s": "-0.01"}, "time-missing"),
        ({"tpot_s": ""}, "time-missing"),
        ({"tpot_s": "0,01"}, "number-unreadable"),
    ],
)
def test_bad_rows_of_our_form(tmp_path: Path, cells: dict[str, str], reason: str) -> None:
    points, skipped = read(tmp_path, ours(**cells))
    assert skipped == [("a", reason)] and len(points) == 0


def test_take_keeps_columns_together() -> None:
    some = BUILT_IN.take([5, 2])
    assert len(some) == 2 and some.id == (BUILT_IN.id[5], BUILT_IN.id[2])
    assert some.tpot_s.tolist() == BUILT_IN.tpot_s[[5, 2]].tolist() and some.tp.dtype == BUILT_IN.tp.dtype
    mask = np.array([mode == "disagg" for mode in BUILT_IN.mode])
    assert set(BUILT_IN.take(mask).mode) == {"disagg"} and len(BUILT_IN.take(mask)) == mask.sum()
    assert len(BUILT_IN.take([])) == 0 and same(BUILT_IN.take(slice(None)), BUILT_IN)


def noisy(*table: dict[str, str]) -> list[dict[str, str]]:
    return [R1 | {"id": str(number)} | row for number, row in enumerate(table)]


def test_repeats_are_pairs_of_one_label(tmp_path: Path) -> None:
    table = noisy(
        {"measured_tpot_ms": "10", "measured_ttft_ms": "100"},
        {"measured_tpot_ms": "11", "measured_ttft_ms": "150"},
        {"measured_tpot_ms": "11", "measured_ttft_ms": "150"},
        {"measured_tpot_ms": "20", "measured_ttft_ms": "100", "backend_version": "2"},
        {"measured_tpot_ms": "99", "concurrency": "8"},
        {"measured_tpot_ms": "99", "tp_size": "4", "moe_tp_size": "4"},
    )
    points, _ = read(tmp_path, csv_text(*table))
    assert repeats(points).tolist() == [[0, 1]]
    assert repeats(points, version="any").tolist() == [[0, 1], [0, 3], [1, 3]]
    floor = {(one.mode, one.time, one.version): one for one in noise_floor(points)}
    assert len(floor) == 8 and floor["agg", "tpot", "same"].pairs == 1
    assert floor["agg", "tpot", "same"].median == pytest.approx(1.1) and floor["agg", "ttft", "same"].p90 == pytest.approx(1.5)
    assert floor["agg", "tpot", "any"].pairs == 3 and floor["agg", "tpot", "any"].median == pytest.approx(20 / 11)
    assert floor["disagg", "tpot", "same"].pairs == 0 and math.isnan(floor["disagg", "tpot", "same"].median)


def test_a_time_that_is_missing_makes_no_ratio(tmp_path: Path) -> None:
    points, _ = read(tmp_path, csv_text(*noisy({"measured_ttft_ms": ""}, {"measured_ttft_ms": ""}, {"measured_tpot_ms": "17"})))
    assert repeats(points).tolist() == [[0, 2]]
    assert [one.pairs for one in noise_floor(points)[:4]] == [1, 1, 0, 0]


def test_many_repeats_of_one_label_stay_few_pairs(tmp_path: Path) -> None:
    points, _ = read(tmp_path, csv_text(*noisy(*({"measured_tpot_ms": str(n + 1)} for n in range(300)))))
    assert len(repeats(points)) == 64 * 63 / 2


def test_the_built_in_points_are_whole() -> None:
    assert not SKIPPED and len(BUILT_IN) == 2260
    assert CONTINUOUS.stat().st_size < 400_000
    assert set(BUILT_IN.runtime) <= set(RUNTIMES.ids)
    for name in set(BUILT_IN.model):
        assert load_model(name).id == name
    for name in set(BUILT_IN.hardware):
        assert load_hardware(name).system.id == name
    assert points_text(BUILT_IN) == CONTINUOUS.read_text(encoding="utf-8")


def test_the_readme_counts_what_the_file_holds() -> None:
    for rule in RULE_MEANINGS:
        assert re.search(rf"^\| {rule} \| {BUILT_IN.rule.count(rule)} \| {re.escape(RULE_MEANINGS[rule])} \|$", README, re.M), (
            rule
        )
    for reason in SKIP_REASONS:
        assert re.search(rf"(?<![\w-]){reason}(?![\w-])", README), reason
    for name in COLUMNS:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", README), name
    left_out = sum(int(n) for n in re.findall(rf"^\| (?:{'|'.join(SKIP_REASONS)}) \| (\d+) \|", README, re.M))
    assert left_out + len(BUILT_IN) == 2757
    assert set(SKIP_MEANINGS) == set(SKIP_REASONS)
    assert "Apache License 2.0" in README and "https://github.com/SemiAnalysisAI/InferenceX" in README


def test_the_noise_floor_of_the_built_in_points() -> None:
    floor = {(one.mode, one.time, one.version): one for one in noise_floor(BUILT_IN)}
    assert floor["agg", "tpot", "same"].pairs > 100
    assert 1.0 < floor["agg", "tpot", "same"].median < 1.02 < floor["agg", "tpot", "same"].p90 < 1.15
    assert floor["agg", "tpot", "same"].p90 < floor["agg", "tpot", "any"].p90


def test_squared_rows_repeat_rows_that_state_their_devices() -> None:
    """Of measurements listed under two encodings both read as one deployment: the rules agree with what is stated."""
    listed: dict[tuple[object, ...], set[tuple[int, ...]]] = {}
    rules: dict[tuple[object, ...], set[str]] = {}
    for row in range(len(BUILT_IN)):
        key = (BUILT_IN.model[row], BUILT_IN.hardware[row], BUILT_IN.ttft_s[row], BUILT_IN.tpot_s[row])
        listed.setdefault(key, set()).add(tuple(int(getattr(BUILT_IN, name)[row]) for name in ("tp", "dp", "ep", "concurrency")))
        rules.setdefault(key, set()).add(BUILT_IN.rule[row])
    twice = [key for key, found in rules.items() if len(found) > 1]
    assert len(twice) >= 20 and all(len(listed[key]) == 1 for key in twice)
