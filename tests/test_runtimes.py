"""Runtimes: what the catalogue's files must say, how one extends another, what is refused, and what plans see of it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from planner.architecture import load_model
from planner.catalogue import MAX_EXTENDS
from planner.errors import InputError
from planner.footprint import cut
from planner.hardware import load_hardware, with_estimates
from planner.performance import resolve_rates
from planner.quantities import Figure
from planner.runtimes import RUNTIMES, Runtime, load_runtime

CLASSES = ("first-principles", "generic", "ideal")
ENGINES = [name for name in RUNTIMES.ids if name not in CLASSES]
SECTIONS = {"floors", "issue", "efficiency", "reserve", "cpu"}
UNSOURCED = {"schema", "id", "name", "extends", "version", "as_of", "offload", "sources", "memory_fraction_of"}
"""Keys of a file that identify, or hold the sources themselves."""


def written(name: str) -> dict[str, Any]:
    """The table of a file as it stands."""
    return tomllib.loads((RUNTIMES.folder / f"{name}.toml").read_text(encoding="utf-8"))


def figures(value: object) -> list[Figure]:
    """Every figure of a runtime."""
    if isinstance(value, Figure):
        return [value]
    return [found for _, item in value for found in figures(item)] if isinstance(value, BaseModel) else []


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_the_engines_are_there() -> None:
    asked = {"flexgen", "ktransformers", "llama-cpp", "mindie", "sglang", "trtllm", "vllm", "vllm-ascend"}
    assert asked | {"generic", "ideal"} <= set(RUNTIMES.ids)


@pytest.mark.parametrize("name", ENGINES)
def test_every_statement_of_a_file_has_a_source(name: str) -> None:
    runtime, data = load_runtime(name), written(name)
    assert runtime.version and data["extends"]
    stated = {key for key in data if key not in UNSOURCED | SECTIONS and not isinstance(getattr(runtime, key), Figure)}
    assert stated <= set(runtime.sources)
    assert {"aggregated", "disaggregated", "streaming", "parallel", "admission"} <= set(runtime.sources)
    for row in (*runtime.sources.values(), *runtime.offload.values()):
        assert "/" in row.source or row.source.startswith("arXiv:"), row


@pytest.mark.parametrize("name", RUNTIMES.ids)
def test_every_figure_has_a_source_a_date_and_where_uncertain_an_interval(name: str) -> None:
    for figure in figures(load_runtime(name)):
        assert figure.source.strip() and figure.as_of is not None
        assert figure.grade in "AB" or (figure.low is not None and figure.high is not None), figure


@pytest.mark.parametrize("name", RUNTIMES.ids)
def test_a_runtime_embedded_in_a_plan_is_the_same(name: str) -> None:
    runtime = load_runtime(name)
    for by_alias in (False, True):
        data = json.loads(runtime.model_dump_json(by_alias=by_alias))
        assert Runtime.model_validate(data, context={"si": True}) == runtime
    assert "extends" not in data


def test_what_a_runtime_does_not_say_is_not_printed() -> None:
    """Plans made with ``generic`` hold no key that only engines have."""
    known = set(load_runtime("generic").model_dump())
    assert known == {
        "schema_version", "id", "name", "as_of", "floors", "efficiency", "reserve", "imbalance", "residual", "aggregated",
        "disaggregated", "streaming", "context_parallel", "uneven_replicas", "overlap_communication", "page_tokens",
        "batch_buckets", "max_sequences_per_rank", "prefill_tokens", "kv_layouts", "dequantises", "issue",
    }  # fmt: skip
    assert set(load_runtime("vllm").model_dump()) - known >= {"version", "admission", "memory_fraction", "offload", "sources"}


def test_no_time_of_first_principles_rests_on_the_serving_results_it_is_scored_on() -> None:
    """Floors, efficiencies, imbalance and residual, every one written anew: a figure inherited from ``generic`` was fitted."""
    data, runtime = written("first-principles"), load_runtime("first-principles")
    assert runtime.calibrated is None
    for part in ("floors", "issue", "efficiency"):
        assert set(data[part]) == set(written("generic")[part]), part
    times = figures(runtime.floors) + figures(runtime.efficiency) + [runtime.imbalance, runtime.residual]
    assert {"imbalance", "residual"} <= set(data) and len(times) == 10
    for figure in times:
        words = f"{figure.source} {figure.note}".lower()
        assert not any(name in words for name in ("inferencex", "inferencemax", "semianalysis", "continuous-benchmark")), figure
        assert figure.grade == "C" and figure.low is not None and figure.high is not None
        assert figure.low < figure.value < figure.high


@pytest.mark.parametrize("name", ("vllm", "vllm-0-19", "sglang", "sglang-0-5-9", "trtllm", "trtllm-1-2"))
def test_times_of_the_calibrated_engines_are_inherited(name: str) -> None:
    """Their calibration lies elsewhere; a time written here would hide it."""
    generic, runtime = RUNTIMES.load("generic"), RUNTIMES.load(name)
    for part in ("floors", "issue", "efficiency", "imbalance", "residual"):
        assert part not in written(name)
        assert getattr(runtime, part) == getattr(generic, part)


# --- what an engine does unasked --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gib", "attention_dp", "tokens"),
    [
        ("vllm", 24, 1, 2048),
        ("vllm", 69.9, 1, 2048),
        ("vllm", 79.6, 8, 8192),  # every rank has a budget of its own
        ("vllm", 179, 1, 16384),
        ("vllm-0-19", 179, 1, 8192),
        ("vllm-ascend", 64, 1, 2048),
        ("sglang-0-5-9", 24, 1, 2048),
        ("sglang-0-5-9", 179, 8, 2048),
        ("sglang", 16, 1, 2048),
        ("sglang", 48, 1, 4096),
        ("sglang", 140, 1, 8192),
        ("sglang", 140, 8, 1024),  # the ranks share one
        ("sglang", 179, 4, 4096),
        ("trtllm", 80, 8, 8192),
        ("llama-cpp", 24, 1, 512),
        ("flexgen", 16, 1, None),
        ("generic", 80, 1, None),
    ],
)
def test_default_chunks(name: str, gib: float, attention_dp: int, tokens: int | None) -> None:
    assert load_runtime(name).stock_prefill_tokens(gib * 2**30, attention_dp) == tokens


@pytest.mark.parametrize(
    ("name", "admission", "fraction_of", "offload"),
    [
        ("generic", None, None, set()),
        ("ideal", None, None, set()),
        ("vllm", "resident", "all", {"uva", "prefetch"}),
        ("vllm-ascend", "resident", "all", set()),  # written empty, so not vLLM's
        ("mindie", "resident", "all", set()),
        ("sglang", "resident", "static", {"prefetch"}),
        ("ktransformers", "resident", "static", {"cpu_experts", "prefetch"}),
        ("trtllm", "reserved", "free", set()),
        ("llama-cpp", "reserved", None, {"cpu_experts", "mmap"}),
        ("flexgen", "reserved", None, {"prefetch"}),
    ],
)
def test_admission_memory_and_offload(name: str, admission: str | None, fraction_of: str | None, offload: set[str]) -> None:
    runtime = load_runtime(name)
    assert (runtime.admission, runtime.memory_fraction_of, set(runtime.offload)) == (admission, fraction_of, offload)
    assert (runtime.memory_fraction is None) == (fraction_of is None)


def test_offload_is_streaming() -> None:
    assert all(runtime.streaming for runtime in RUNTIMES if runtime.offload)


# --- one extends another ----------------------------------------------------------------------------------------------

HEAD = 'schema = 1\nid = "mine"\nas_of = 2026-11-22\n'


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], Runtime]:
    """Load the text of a file of one's own."""

    def load(text: str) -> Runtime:
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return load_runtime(str(tmp_path / "mine.toml"))

    return load


def test_only_what_differs_is_written(mine: Callable[[str], Runtime]) -> None:
    figure = '{ value = "20 us", source = "test", as_of = 2026-11-22, grade = "A" }'
    base = RUNTIMES.load("vllm")
    found = mine(
        HEAD + 'extends = "vllm"\npage_tokens = 32\nkv_layouts = { bf16 = ["bf16"] }\nimbalance = '
        '{ value = 1.5, source = "test", as_of = 2026-11-22, grade = "A" }\n[floors]\nattention = ' + figure
    )
    assert found.floors.attention.value == pytest.approx(20e-6) and found.floors.attention.low is None
    assert found.floors.moe == base.floors.moe and found.reserve == base.reserve
    assert found.imbalance.value == 1.5 and found.imbalance.low is None  # a figure is replaced whole
    assert found.kv_layouts == {"bf16": ("bf16",)} and found.batch_buckets == base.batch_buckets
    assert found.page_tokens == 32 and "page_tokens" not in found.sources  # vLLM's source says nothing of 32
    assert found.sources["batch_buckets"] == base.sources["batch_buckets"]
    assert (found.name, found.version) == ("", "")  # never inherited


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + 'extends = "vlm"\n', "extends: unknown runtime 'vlm'; did you mean vllm"),
        (HEAD + "extends = 3\n", "extends: expected the id of a runtime; write it as a string"),
        (HEAD + 'extends = "vllm.toml"\n', "extends: unknown runtime 'vllm.toml'"),
        (HEAD + 'extends = ""\n', "extends: unknown runtime ''"),
        ('schema = 1\nas_of = 2026-11-22\nextends = "vllm"\n', "id: is missing"),
        ('schema = 1\nid = "mine"\nextends = "vllm"\n', "as_of: is missing"),
        (HEAD + 'extends = "vllm"\ncolour = 3\n', "colour: unknown key"),
        (HEAD + 'extends = "vllm"\nparallel = []\n', "parallel: one or more ways"),
        (HEAD + 'extends = "vllm"\nparallel = ["tensor", "tensor"]\n', "parallel: one or more ways"),
        (HEAD + 'extends = "vllm"\nparallel = ["tensors"]\n', "did you mean tensor"),
        (HEAD + 'extends = "vllm"\nadmission = "resident, mostly"\n', "admission"),
        (HEAD + 'extends = "generic"\nmemory_fraction_of = "all"\n', "go together"),
        (
            HEAD + 'extends = "vllm"\nmemory_fraction = { value = 1.1, source = "t", as_of = 2026-11-22, grade = "A" }\n',
            "memory_fraction: a share is at most 1",
        ),
        (
            HEAD + 'extends = "vllm"\n[issue]\nmoe = { value = "50 us", source = "t", as_of = 2026-11-22, grade = "A" }\n',
            "issue.moe: issuing kernels one by one is no faster than replaying them; write 56 us (35 to 80) or more",
        ),
        (
            HEAD + 'extends = "vllm"\n[issue]\nattention = { value = "30 us", low = "25 us", high = "60 us", source = "t", '
            'as_of = 2026-11-22, grade = "C" }\n',
            "issue.attention: issuing kernels one by one is no faster",
        ),
        (
            HEAD + 'extends = "vllm"\n[floors]\nmlp = { value = "90 us", source = "t", as_of = 2026-11-22, grade = "A" }\n',
            "issue.mlp: issuing kernels one by one is no faster than replaying them; write 90 us or more",
        ),
        (HEAD + 'extends = "vllm"\ndefault_prefill_tokens = [{ tokens = 0 }]\n', "greater than or equal to 1"),
        (HEAD + 'extends = "vllm"\ndefault_prefill_tokens = [{ tokens = 9 }, { tokens = 8 }]\n', "above that of the row before"),
        (
            HEAD + 'extends = "vllm"\ndefault_prefill_tokens = [{ tokens = 9, from_memory = "80 apples" }]\n',
            "unknown unit 'apples'",
        ),
        (
            HEAD + 'extends = "vllm"\n[sources]\npage_token = { source = "t", as_of = 2026-11-22, grade = "A" }\n',
            "page_token is no field of a runtime; did you mean page_tokens",
        ),
        (HEAD + 'extends = "vllm"\n[sources]\npage_tokens = { source = "t", grade = "A" }\n', "as_of: is missing"),
        (HEAD + 'extends = "vllm"\n[offload]\nnvme = { source = "t", as_of = 2026-11-22, grade = "A" }\n', "offload"),
    ],
)
def test_faults_are_one_kind_line(mine: Callable[[str], Runtime], text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        mine(text)
    assert message in str(caught.value) and "mine.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_runtimes_that_extend_one_another_in_a_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"a": "b", "b": "c", "c": "b", "self": "self"} | {f"p{n}": f"p{n + 1}" for n in range(MAX_EXTENDS + 1)}
    for name, base in files.items():
        (tmp_path / f"{name}.toml").write_text(f'schema = 1\nid = "{name}"\nas_of = 2026-11-22\nextends = "{base}"\n')
    (tmp_path / f"p{MAX_EXTENDS + 1}.toml").write_text(HEAD)
    monkeypatch.setattr(RUNTIMES, "_own", RUNTIMES._own | {path.stem: path for path in tmp_path.glob("*.toml")})
    for name, circle in (("a", "b -> c -> b"), ("self", "self -> self")):
        with pytest.raises(InputError, match=rf"in a circle \(.*{circle}\); break it"):
            load_runtime(name)
    with pytest.raises(InputError, match=f"more than {MAX_EXTENDS} in a row"):
        load_runtime("p0")


def test_a_calibration_may_find_that_replaying_takes_what_issuing_does() -> None:
    """Its floors are fitted to whole steps; a plan that embeds it can be read, and a block is issued no faster than its floor."""
    runtime = load_runtime("vllm")
    slow = runtime.floors.model_copy(update={"mlp": runtime.floors.mlp.model_copy(update={"value": 90e-6})})
    found = runtime.model_copy(update={"floors": slow})
    assert found.issue is not None and found.issue.mlp.value < 90e-6
    assert Runtime.model_validate(json.loads(found.model_dump_json()), context={"si": True}) == found


def test_a_file_may_have_the_name_of_what_it_extends(tmp_path: Path) -> None:
    path = tmp_path / "vllm.toml"
    path.write_text('schema = 1\nid = "vllm"\nas_of = 2026-11-22\nextends = "vllm"\npage_tokens = 64\n')
    assert load_runtime(str(path)).page_tokens == 64


# --- seen by others -----------------------------------------------------------------------------------------------------


def test_shapes_that_a_runtime_cannot_spread_are_left_out() -> None:
    from planner import plan

    found = plan("llama-3.1-70b", "h100-node", runtime="llama-cpp", workload="batch")
    pools = found.certificate.space["pools"]
    assert {(pool.configuration.tp, pool.configuration.ep) for pool in found.pools} == {(1, 1)}
    assert all(space["rejected"]["runtime"] > 0 for space in pools.values())
    other = plan("llama-3.1-70b", "h100-node", workload="batch").certificate.space["pools"]
    assert all("runtime" not in space["rejected"] for space in other.values())


def test_list_and_show(run: Callable[..., tuple[int, str, str]]) -> None:
    by_id = {row["id"]: row for row in json.loads(run("list", "runtimes", "--format", "json")[1])}
    assert by_id["vllm"]["admission"] == "resident" and by_id["vllm"]["offload"] == "uva, prefetch"
    assert by_id["sglang"]["version"] == load_runtime("sglang").version
    shown = run("show", "runtime", "ktransformers")[1]
    for words in ("offload.cpu_experts", "kt-num-gpu-experts", "cpu.int8", "admission", "memory_fraction_of", "sources.parallel"):
        assert words in shown
    data = json.loads(run("show", "runtime", "trtllm", "--format", "json")[1])
    assert Runtime.model_validate(data, context={"si": True}).sources == load_runtime("trtllm").sources


def test_a_statement_without_its_source_is_refused() -> None:
    data = load_runtime("vllm").model_dump(mode="json")
    data["sources"]["parallel"]["source"] = ""
    with pytest.raises(ValidationError, match="at least 1 character"):
        Runtime.model_validate(data, context={"si": True})


# --- what its kernels multiply in, what its caches hold ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "device", "dtype", "runs_in"),
    [
        ("llama-cpp", "dgx-spark", "fp4", "fp4"),
        ("llama-cpp-2025-10", "dgx-spark", "fp4", "int8"),
        ("llama-cpp", "rtx-4090-pc", "fp4", "int8"),  # no 4-bit floats there
        ("llama-cpp", "rtx-4090-pc", "int4", "int8"),
        ("llama-cpp", "mac-studio-m3-ultra", "int4", "bf16"),  # no int8 there
        ("llama-cpp", "dgx-spark", "fp8", "fp8"),
        ("ktransformers", "rtx-4090-pc", "int8", "bf16"),
        ("generic", "dgx-spark", "fp4", "fp4"),
        ("generic", "rtx-4090-pc", "int8", "int8"),
        ("generic", "rtx-4090-pc", "int4", "bf16"),
    ],
)
def test_weights_are_multiplied_in_what_the_kernels_know(name: str, device: str, dtype: str, runs_in: str) -> None:
    system, rows = with_estimates(load_hardware(device)).system, np.array([512.0])
    plain = resolve_rates(system, load_runtime(name).model_copy(update={"computes": {}}))
    found = resolve_rates(system, load_runtime(name)).gemm_flop_per_s(dtype, rows, "dense")
    assert found == pytest.approx(plain.gemm_flop_per_s(runs_in, rows, "dense"))


def test_a_statement_without_a_dtype_is_refused(mine: Callable[[str], Runtime]) -> None:
    for text in ("computes = { fp4 = [] }\n", 'computes = { fp4 = ["fp5"] }\n', 'computes = { q4 = ["int8"] }\n'):
        with pytest.raises(InputError, match="computes"):
            mine(HEAD + 'extends = "vllm"\n' + text)


def test_caches_of_windows_are_kept_whole_where_the_engine_says_so() -> None:
    model = load_model("gpt-oss-120b")
    layouts = load_runtime("trtllm").kv_layouts["bf16"]

    def held(runtime: str, tokens: int) -> list[tuple[int, int]]:
        pieces = cut(model, {}, layouts, whole_windows=load_runtime(runtime).window_caches == "whole")
        caches = [cache for window in pieces.windows for block in window.blocks for cache in block.caches]
        return [(cache.span.entries(tokens), cache.read_span.entries(tokens)) for cache in caches]

    assert sorted(set(held("trtllm", 9216))) == [(128, 128), (9216, 9216)]
    assert sorted(set(held("trtllm-1-2", 9216))) == [(9216, 128), (9216, 9216)]  # reads stay as they are
