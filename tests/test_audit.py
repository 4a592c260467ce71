"""Launch lines read back: what shells and engines mean by them, exports that come home, changes that do what they say."""

import json
import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import small
from exported import CASES, deployment, made
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.api import audit
from planner.audit import Audit, read_deployment
from planner.audit.configuration import Setup, setup_of
from planner.audit.read import known_model
from planner.audit.shell import UNKNOWN, commands
from planner.cli.audit_view import print_audit
from planner.cli.schema_command import schema_of
from planner.errors import InputError
from planner.export import EngineDeployment, EnginePool, Values, engine_deployment, export_plan, sglang, vllm
from planner.export.common import GIB, Notes
from planner.export.options import load_options, parse_words
from planner.hardware import HardwareSelection, load_hardware
from planner.runtimes import load_runtime
from planner.search import solve

Run = Callable[..., tuple[int, str, str]]
WRITERS = {"vllm": vllm.serve_command, "sglang": sglang.serve_command}


# --- text ------------------------------------------------------------------------------------------------------------


def words_of(text: str) -> list[tuple[str, ...]]:
    return [command.words for command in commands(text, "text")]


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=8), min_size=1, max_size=6))
def test_words_come_back_as_a_shell_would_read_them(words: list[str]) -> None:
    assert words_of(shlex.join(["run", *words])) == [("run", *words)]


@given(st.text(st.sampled_from("ab=$\"'`(){}\\;&|<># \n-@"), max_size=40))
def test_no_text_is_more_than_bad_input(text: str) -> None:
    try:
        read_deployment([("text", f"vllm serve m {text}")])
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a b \\\n  c # d\ne", [("a", "b", "c"), ("e",)]),
        ("N=8\na $N ${N} ${M:-4} '$N' \"x $N\"", [("a", "8", "8", "4", "$N", "x 8")]),
        ("a > log 2>&1 b; c && d | e &", [("a", "b"), ("c",), ("d",), ("e",)]),
        ("exec env X=1 a; Y=2 b; if true; then c; fi", [("a",), ("b",), ("true",), ("c",)]),
        ("a $X \"$(b 'c')\"", [("a", f"{UNKNOWN}X{UNKNOWN}", f"{UNKNOWN}(b 'c'){UNKNOWN}")]),
        ("a 'b\nc' d#e", [("a", "b\nc", "d#e")]),
    ],
)
def test_shell_text(text: str, found: list[tuple[str, ...]]) -> None:
    assert words_of(text) == found


def test_environment_is_of_the_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQS", "5")
    read = read_deployment([("x", "export A=1\nB=2 vllm serve m -tp 2 --max-num-seqs $SEQS --pipeline-parallel-size=${PP}")])
    launch = read.pools[0].launch
    assert launch.env == {"A": "1", "B": "2"} and launch.options == {"tensor-parallel-size": 2}
    assert [(one.kind, one.flag) for one in read.findings] == [
        ("unresolved", "--max-num-seqs"), ("unresolved", "--pipeline-parallel-size"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("docker run --gpus all -p 1:2 vllm/vllm-openai:v0.33 --model a/b -tp 8", {"tensor-parallel-size": 8}),
        ("bash -c 'exec python3 -m vllm.entrypoints.openai.api_server --model a/b -tp 8'", {"tensor-parallel-size": 8}),
        ("vllm serve a/b --tensor_parallel_size=8 --headless --port 80 --api-key x y",
         {"tensor-parallel-size": 8, "headless": True, "port": 80, "api-key": ["x", "y"]}),
        ("model: a/b\ntensor_parallel_size: 8\nenable-expert-parallel: true\nasync-scheduling: false\n"
         "kv-transfer-config: {kv_role: kv_both}\nengram-config: null\n",
         {"tensor-parallel-size": 8, "enable-expert-parallel": True, "kv-transfer-config": {"kv_role": "kv_both"}}),
        ("sglang serve --model-path a/b --tp 8 --host 0.0.0.0", {"tp-size": 8, "host": "0.0.0.0"}),
        ("model-path: a/b\ntp-size: 8\n", {"tp-size": 8}),
    ],
)  # fmt: skip
def test_every_way_to_start_an_engine(text: str, options: dict[str, Any]) -> None:
    read = read_deployment([("x", text)])
    assert read.model == "a/b" and dict(read.pools[0].launch.options) == options and not read.findings


def test_nothing_that_repeats_or_nests_is_too_deep() -> None:
    """Redirections, JSON in JSON: each took a frame of the stack."""
    text = "vllm serve a/b " + "2>log " * 20_000 + "--max-num-seqs 4 --kv-transfer-config " + "[" * 20_000
    read = read_deployment([("x", text + " --speculative-config.model " + "[" * 20_000)])
    assert read.pools[0].launch.options["max-num-seqs"] == 4
    assert [(one.flag, one.what) for one in read.findings] == [("--kv-transfer-config", "is not JSON")]


def test_whole_numbers_as_the_engine_reads_them() -> None:
    text = "vllm serve a/b --max-num-batched-tokens 25.6k --max-model-len 32K --kv-cache-memory-bytes 2G"
    read = read_deployment([("x", text)])
    assert dict(read.pools[0].launch.options) == {
        "max-num-batched-tokens": 25_600, "max-model-len": 32_768, "kv-cache-memory-bytes": 2 << 30
    } and not read.findings  # fmt: skip
    assert read_deployment([("x", "vllm serve a/b --max-model-len auto")]).pools[0].launch.options == {"max-model-len": -1}
    for wrong in ("--max-num-seqs 1k", "--max-model-len 1.5K", "--max-model-len k", "--max-num-batched-tokens auto"):
        (finding,) = read_deployment([("x", f"vllm serve a/b {wrong}")]).findings
        assert finding.kind == "wrong" and "whole number" in finding.what


def test_options_given_twice_are_said() -> None:
    text = "vllm serve a/b -tp 4 --tensor_parallel_size=2 --eplb-config.num_redundant_experts 1 --eplb-config.step_interval 2"
    read = read_deployment([("x", f"{text} --seed -1 --seed -1 --disable-eplb --enable-eplb")])
    assert read.pools[0].launch.options["tensor-parallel-size"] == 2
    assert [(one.kind, one.flag) for one in read.findings] == [
        ("assumed", "--tensor-parallel-size"), ("assumed", "--seed"), ("assumed", "--enable-eplb")
    ]  # fmt: skip


def test_wrong_words_are_findings() -> None:
    text = "vllm serve a/b --tensor-paralel-size 8 --kv-cache-dtype fp7 --max-num-seqs many --config other.yaml"
    found = read_deployment([("x", text)]).findings
    assert [(one.kind, one.flag) for one in found] == [
        ("wrong", "--tensor-paralel-size"), ("wrong", "--kv-cache-dtype"), ("wrong", "--max-num-seqs"),
        ("unresolved", "--config"),
    ]  # fmt: skip
    assert "did you mean tensor-parallel-size" in found[0].what and all("\n" not in one.what for one in found)


PRODUCER = '--kv-transfer-config \'{"kv_connector": "C", "kv_role": "kv_producer"}\''
CONSUMER = PRODUCER.replace("producer", "consumer")


def test_lines_become_pools() -> None:
    text = f"vllm serve m -tp 8 {PRODUCER} --port 1\nvllm serve m -tp 8 {PRODUCER} --port 2\nvllm serve m -tp 4 {CONSUMER}\n"
    text += f"vllm serve m -tp 4 {CONSUMER} --node-rank 1\nvllm serve m -tp 4 {CONSUMER} --headless"
    assert [(pool.phase, pool.instances) for pool in read_deployment([("x", text)]).pools] == [("prefill", 2), ("decode", 1)]
    both = "--kv-transfer-config.kv_role kv_both"
    read = read_deployment([("p", f"vllm serve m -tp 2 {both}"), ("d", f"vllm serve m -tp 4 {both}")])
    assert [pool.phase for pool in read.pools] == ["prefill", "decode"] and read.findings[0].kind == "assumed"
    (one,) = read_deployment([("x", f"vllm serve m {both}\nvllm serve m {both} --port 3")]).pools
    assert (one.phase, one.instances) == ("mixed", 2)


LAUGHS = "A0=" + "x" * 64 + "\n" + "".join(f"A{n}={f'$A{n - 1}' * 32}\n" for n in range(1, 12))
"""Each variable is 32 of the one before: 64 * 32^11 characters."""


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("echo hello", "no launch line"),
        ("", "no launch line"),
        ("a: b", "none of its keys"),
        ("model: a/b", "--engine"),
        ('vllm serve "m', "not closed"),
        ("vllm serve m\nsglang serve --model m", "one deployment"),
        ("vllm serve m\nvllm serve n", "several models"),
        ("vllm serve m -tp 2\nvllm serve m -tp 4", "--tensor-parallel-size"),
        (f"vllm serve m {PRODUCER}", "no decode pool"),
        (f"vllm serve m {PRODUCER}\nvllm serve m", "role"),
        ("vllm serve m \x1b[2J", "unprintable"),
        ("vllm serve m " + "x " * 20_001, "words"),
        ("vllm serve m # " + "x" * 262_144, "characters"),
        (LAUGHS + "vllm serve m", "variables"),
    ],
)
def test_what_makes_no_deployment_is_one_line(text: str, word: str) -> None:
    with pytest.raises(InputError) as error:
        read_deployment([("x", text)])
    assert word in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "model"),
    [("vllm serve deepseek-ai/DeepSeek-V3", "deepseek-v3"), ("vllm serve /models/DeepSeek-V3/", "deepseek-v3"),
     ("vllm serve /data --served-model-name qwen3-32b", "qwen3-32b"), ("vllm serve $MODEL", None), ("vllm serve a/b", None)],
)  # fmt: skip
def test_models_by_the_names_they_are_given(text: str, model: str | None) -> None:
    read = read_deployment([("x", text)])
    if model is not None:
        assert known_model(read) == model
        return
    with pytest.raises(InputError, match="--model"):
        known_model(read)


# --- meaning ---------------------------------------------------------------------------------------------------------


def setup(text: str, hardware: str = "h100-node", routed: bool = True, longest: float = 5000.0) -> Setup:
    read = read_deployment([("x", text)])
    systems = {"mixed": load_hardware(hardware).system}
    return setup_of(read, systems, load_runtime(read.engine), routed=routed, longest=longest)


def shape(found: Setup) -> tuple[int, int, int, int, int]:
    (pool,) = found.pools
    return pool.tp, pool.pp, pool.attention_dp, pool.ep, pool.replicas


@pytest.mark.parametrize(
    ("flags", "routed", "expected"),
    [
        ("-tp 8", True, (8, 1, 1, 1, 1)),
        ("-tp 4 -dp 2 --enable-expert-parallel", True, (4, 1, 2, 8, 1)),
        ("-tp 4 -dp 2", True, (4, 1, 2, 8, 1)),
        ("-tp 4 -dp 2 -pp 2 --enable-expert-parallel", False, (4, 2, 1, 1, 2)),
    ],
)
def test_ranks_of_vllm(flags: str, routed: bool, expected: tuple[int, ...]) -> None:
    found = setup(f"vllm serve m {flags}", routed=routed)
    assert shape(found) == expected
    assert any(one.flag == "--enable-expert-parallel" for one in found.findings) == (flags == "-tp 4 -dp 2")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--tp 8", (8, 1, 1, 1, 1)),
        ("--tp 16 --attn-dp-size 4 --ep-size 16", (4, 1, 4, 16, 1)),
        ("--tp 16 --dp 16 --enable-dp-attention --moe-a2a-backend deepep", (1, 1, 16, 16, 1)),
        ("--tp 8 --dp 2 --ep 8 --pp-size 2", (8, 2, 1, 8, 2)),
    ],
)
def test_ranks_of_sglang(flags: str, expected: tuple[int, ...]) -> None:
    assert shape(setup(f"sglang serve --model m {flags}")) == expected


def test_ranks_that_the_engine_refuses() -> None:
    with pytest.raises(InputError, match="multiple"):
        setup("sglang serve --model m --tp 8 --attn-dp-size 3")


def test_sizes_past_all_machines() -> None:
    with pytest.raises(InputError, match="devices"):
        setup("vllm serve m -tp 1000000 -pp 1000000 -dp 1000000")
    for size in ("inf", "nan", "-5"):
        found = setup(f"vllm serve m --cpu-offload-gb {size}")
        assert not found.weights_below and [one.flag for one in found.findings] == ["--cpu-offload-gb"]
    assert setup("vllm serve m --cpu-offload-gb 0").findings == ()
    found = setup("vllm serve m --max-num-seqs 64 --max-num-batched-tokens 63")
    assert [(one.kind, one.flag) for one in found.findings] == [
        (kind, "--max-num-batched-tokens") for kind in ("differs", "wrong")
    ]
    found = setup(f"vllm serve m --kv-offloading-size 4 {PRODUCER.replace('producer', 'both')}")
    assert [(one.kind, one.flag) for one in found.findings] == [("differs", "--kv-offloading-size")]


def test_what_is_left_out_is_the_engines_default() -> None:
    """1024 sequences from 70 GiB on, else 256; tokens of a pass and share of memory as the runtimes' files cite them."""
    for hardware, batch, tokens in (("h100-node", 1024, 8192), ("b200-node", 1024, 16384), ("l40s-node", 256, 2048)):
        (pool,) = setup("vllm serve m", hardware).pools
        assert (pool.batch, pool.chunk, pool.fraction) == (batch, tokens - batch, load_runtime("vllm").memory_fraction.value)  # type: ignore[union-attr]
        assert set(pool.assumed) == {"batch_per_rank", "prefill_tokens_per_rank", "memory"}
    (pool,) = setup("sglang serve --model m --tp 8 --attn-dp-size 8").pools
    assert pool.batch is None and pool.chunk == 8192 // 8


def test_prompts_get_what_running_sequences_leave_of_a_pass() -> None:
    start = "vllm serve m --max-num-batched-tokens"
    for flags, chunk in (("4096 --max-num-seqs 64", 4032), ("64 --max-num-seqs 64", 64),
                         ("4096 --max-num-seqs 64 --speculative-config.method mtp", 3968)):  # fmt: skip
        found = setup(f"{start} {flags}")
        assert found.pools[0].chunk == chunk and len(found.findings) == (chunk == 64)
    roles = (f"{start} 4096 --max-num-seqs 64 {role}" for role in (PRODUCER, CONSUMER))
    read = read_deployment([("x", "\n".join(roles))])
    systems = dict.fromkeys(("prefill", "decode"), load_hardware("h100-node").system)
    apart = setup_of(read, systems, load_runtime("vllm"), routed=True, longest=5000.0)
    assert [pool.chunk for pool in apart.pools] == [4096, None]


def test_options_that_no_axis_has() -> None:
    found = setup(
        "vllm serve m -tp 8 --kv-cache-dtype fp8_ds_mla --speculative-config.method mtp "
        "--speculative-config.num_speculative_tokens 2 "
        "--enable-expert-parallel --enable-eplb --eplb-config.num_redundant_experts 16 --cpu-offload-gb 3 --quantization fp8 "
        "--max-model-len 4096 --enforce-eager --disable-prefix-caching --seed 3"
    )
    assert (found.kv_dtype, found.mtp, found.redundant, found.weight_dtype) == ("fp8", 2, 2, "fp8")
    assert (found.weights_below, found.host_bytes, found.ignored) == (True, 3 * GIB, ("--seed",))
    rough = {one.flag for one in found.findings if one.kind == "differs"}
    assert rough == {"--max-model-len", "--enforce-eager", "--enable-prefix-caching"}


# --- there and back --------------------------------------------------------------------------------------------------


@cache
def small_deployment() -> EngineDeployment:
    """A mixture of experts on four small devices."""
    return engine_deployment(solve(small.instance(small.experts(), small.node(4))))


@settings(max_examples=40)
@given(
    st.sampled_from(["vllm", "sglang"]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2]), st.booleans(), st.integers(1, 600), st.integers(1, 70_000), st.integers(0, 4), st.integers(0, 3),
    st.sampled_from(["bf16", "fp8"]),
)  # fmt: skip
def test_an_exported_configuration_is_read_back(
    engine: str, tp: int, pp: int, dp: int, cp: int, wide: bool, batch: int, chunk: int, mtp: int, spare: int, kv: str
) -> None:
    here = small_deployment()
    ep = tp * dp if wide or dp > 1 else 1
    pool = replace(
        here.pools[0], tp=tp, pp=pp, attention_dp=dp, ep=ep, context_parallel=cp, devices=tp * dp * pp, sequences_per_rank=batch,
        sequences=batch * dp * pp, chunk_tokens=chunk, mtp=mtp, redundant_experts=spare if ep > 1 else 0, kv_dtype=kv,
        experts=None,
    )  # fmt: skip
    text = WRITERS[engine](here, pool, Values(model_path="m"), Notes()).shell()
    found = setup(text)
    agrees(found, (pool,))
    assert not [one for one in found.findings if one.kind in ("wrong", "deprecated")]


def agrees(found: Setup, pools: tuple[EnginePool, ...]) -> None:
    assert [one.phase for one in found.pools] == [one.phase for one in pools]
    for mine, pool in zip(found.pools, pools, strict=True):
        assert (mine.tp, mine.pp, mine.attention_dp, mine.ep) == (pool.tp, pool.pp, pool.attention_dp, pool.ep)
        assert (mine.context_parallel, mine.devices, mine.replicas) == (pool.context_parallel, pool.devices, 1)
        beside = pool.sequences_per_rank * (pool.pp - 1 - pool.mtp)  # what vLLM's least of a token for each sequence leaves
        chunk = max(pool.chunk_tokens, beside if found.engine == "vllm" else 0) if pool.chunk_tokens else None
        assert (mine.batch, mine.chunk) == (pool.sequences_per_rank or None, chunk)
        assert (found.kv_dtype, found.mtp, found.redundant) == (pool.kv_dtype, pool.mtp, pool.redundant_experts)


def exported_text(name: str, engine: str) -> list[tuple[str, str]]:
    made_files = export_plan(deployment(name), engine, Values(model_path=made(name).model), "planner export").files
    return [(file.name, file.content.decode()) for file in made_files if file.name.endswith(".sh")]


@pytest.mark.parametrize("name", CASES)
def test_exports_of_real_plans_are_read_back(name: str) -> None:
    here = deployment(name)
    for engine in ("vllm", "sglang") if vllm.EXPORTER.applies(here) is None else ("sglang",):
        read = read_deployment(exported_text(name, engine))
        systems = {pool.phase: pool.system for pool in here.pools}
        found = setup_of(read, systems, load_runtime(engine), routed=True, longest=0.0)
        agrees(found, here.pools)
        assert known_model(read) == made(name).model and not [one for one in found.findings if one.kind != "differs"]
        assert found.tables_below == (name == "v4.1-flash-gb300")


@pytest.mark.parametrize("name", ["v4-pro-gb200", "v3-cm384"])
def test_an_exported_plan_is_predicted_as_it_was(name: str) -> None:
    """Nothing of these plans is lost but the format of stored weights, which follows from the devices, so their own
    configuration and objective come back, and nothing is better."""
    plan, here = made(name), deployment(name)
    assert all("weights of" in row.what for row in export_plan(here, "sglang", Values(), "x").not_carried)
    counts = {pool.phase: pool.replicas for pool in here.pools}
    found = audit(exported_text(name, "sglang"), CASES[name][1], runtime="generic", instances=counts)
    assert found.predicted is not None and found.gap is not None and found.gap <= plan.certificate.gap_allowed
    assert math.isclose(found.predicted.objective, plan.certificate.objective, rel_tol=1e-9)
    assert [pool.configuration for pool in found.predicted.plan.pools] == [pool.configuration for pool in plan.pools]
    assert not found.steps and not found.changes


def test_what_an_export_loses_is_the_difference() -> None:
    """The decode cache of this plan lies in part in host memory, where the engine keeps none: fewer sequences, dearer tokens."""
    name = "v3-h800"
    lost = export_plan(deployment(name), "vllm", Values(), "x").not_carried
    assert lost and all("decode pool" in row.what and ("cache" in row.what or "embedding" in row.what) for row in lost)
    counts = {pool.phase: pool.replicas for pool in deployment(name).pools}
    found = audit(exported_text(name, "vllm"), CASES[name][1], runtime="generic", instances=counts, tiers=("device",))
    assert found.predicted is not None and found.predicted.objective > made(name).certificate.objective
    now, then = found.predicted.plan.pools, made(name).pools
    assert now[0].configuration == then[0].configuration
    assert now[1].configuration.batch_per_rank < then[1].configuration.batch_per_rank
    same = {"batch_per_rank": then[1].configuration.batch_per_rank}
    assert now[1].configuration.model_copy(update=same) == then[1].configuration


# --- judged ----------------------------------------------------------------------------------------------------------

DENSE = small.llama(layers=8)
UNREAD = {"vllm": "--seed", "sglang": "--random-seed"}


@cache
def judged(flags: str = "-tp 2 --max-num-seqs 1 --max-num-batched-tokens 64", engine: str = "vllm", **options: Any) -> Audit:
    """A small dense model on four devices, its flags far from good."""
    start = "vllm serve m" if engine == "vllm" else "sglang serve --model m"
    return audit(
        f"{start} {flags} {UNREAD[engine]} 1", HardwareSelection(system=small.node(4), count=1), model=DENSE,
        runtime=small.runtime(), workload=small.workload(), **options,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "flags"),
    [("vllm", "-tp 2 --max-num-seqs 1 --max-num-batched-tokens 64"), ("sglang", "--tp 4 --max-running-requests 1")],
)
def test_steps_lead_to_the_best_and_their_lines_read_back(engine: str, flags: str) -> None:
    found = judged(flags, engine)
    assert found.predicted is not None and found.gap is not None and found.gap > 0.05 and found.ignored == [UNREAD[engine]]
    gains = [change.improvement for change in found.changes]
    assert all(gain is not None for gain in gains) and sorted(gains, reverse=True) == gains  # type: ignore[type-var]
    reached = [found.predicted.objective, *(step.objective for step in found.steps)]
    assert all(later < before for before, later in zip(reached, reached[1:], strict=False))
    assert reached[-1] <= found.best.objective * 1.011
    options = load_options(engine)
    for change in (*found.changes, *found.steps):
        for line in change.commands.values():
            words = shlex.split(line)
            _, _, faults = parse_words(options, words[3:])
            assert not faults and UNREAD[engine] in words
        if change not in found.steps[-1:]:
            continue
        again = audit(
            [(phase, line) for phase, line in change.commands.items()], HardwareSelection(system=small.node(4), count=1),
            model=DENSE, runtime=small.runtime(), workload=small.workload(),
        )  # fmt: skip
        assert again.predicted is not None and again.predicted.objective <= change.objective * (1 + 1e-9)


def test_drafts_of_a_model_that_has_none_are_a_finding() -> None:
    flags = "-tp 2 --max-num-seqs 1 --max-num-batched-tokens 64 --speculative-config.method mtp"
    found = [row for row in judged(flags).findings if row.flag == "--speculative-config"]
    assert [(row.kind, "no draft module" in row.what) for row in found] == [("wrong", True)]


def test_pins_name_the_flags() -> None:
    rows = {row.pin: row.flags for row in judged().pins}
    assert rows["tp=2"] == "--tensor-parallel-size 2" and rows["pp=1"] == "no --pipeline-parallel-size"
    assert rows["batch_per_rank<=1"] == "--max-num-seqs 1" and rows["serving=aggregated"] == "pools of the launch lines"


def test_flags_that_do_not_serve_say_which() -> None:
    found = judged("-tp 3")
    assert found.predicted is None and found.gap is None and "--tensor-parallel-size 3" in found.message
    assert found.conflict and found.changes and all(change.improvement is None for change in found.changes)
    assert {"--tensor-parallel-size"} <= {flag.flag for flag in found.changes[0].flags}


def test_a_smaller_share_of_memory_holds_less() -> None:
    """What lies on a device stays within the share that the flag gives."""
    flags = "-tp 1 --max-num-seqs 64 --max-num-batched-tokens 64 --gpu-memory-utilization"
    whole, half = judged(f"{flags} 1"), judged(f"{flags} 0.7")
    assert whole.predicted is not None and half.predicted is not None
    assert half.predicted.objective >= whole.predicted.objective
    most, least = (
        sum(found.predicted.plan.pools[0].memory[part] for part in ("weights_bytes", "kv_cache_bytes")) for found in (whole, half)
    )
    assert 0.5 * 100e6 < least < 0.7 * 100e6 < most
    assert any("memory" in row.pin for row in half.pins)


def test_instances_are_counted_where_they_are_said() -> None:
    text = "vllm serve m -tp 1 --port 1\nvllm serve m -tp 1 --port 2"
    place = HardwareSelection(system=small.node(4), count=1)
    two = audit(text, place, model=DENSE, runtime=small.runtime(), workload=small.workload())
    assert two.instances == {"mixed": 2} and two.predicted is not None and sum(p.devices for p in two.best.plan.pools) <= 2
    assert two.predicted.plan.pools[0].devices == 2
    with pytest.raises(InputError, match="--instances"):
        audit(text, place, model=DENSE, instances={"decode": 2}, runtime=small.runtime(), workload=small.workload())


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    words = ("audit", script, "--hardware", "rtx-4090-pc", "--format", "json")
    for flags, exit_code in (("--max-num-seqs 4 --bogus 3", 0), ("-tp 3", 3)):
        script.write_text(f"vllm serve \\\n  Qwen/Qwen3-8B {flags}\n")
        code, text, err = run(*words)
        data = json.loads(text)
        jsonschema.validate(data, schema_of("audit"))
        assert code == exit_code and (data["predicted"] is None) == (code == 3) and "next: planner plan" in err
        assert Audit.model_validate(data).model == "qwen3-8b" and data["runtime"] == "vllm"
        assert ("--bogus" in {row["flag"] for row in data["findings"]}) == (code == 0)
    code, text, _ = run(*words, "--tpot", "0.1")
    jsonschema.validate(json.loads(text), schema_of("conflict"))
    assert code == 3


@pytest.mark.parametrize(
    "words",
    [("--instances", "x"), ("--instances", "2,2"), ("--instances", "prefill=1"), ("--pareto", "3"), ("--hardware", "nothing"),
     ("--model", "nothing"), ("--engine", "trtllm")],
)  # fmt: skip
def test_bad_input_is_one_line(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    script = tmp_path / "serve.sh"
    script.write_text("vllm serve Qwen/Qwen3-32B -tp 8\n")
    code, text, err = run("audit", script, "--hardware", "h100-node", *words)
    assert code == 2 and not text and err.count("\n") == 1


def test_the_terminal_says_what_the_json_does(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ("-tp 2 --max-num-seqs 1 --max-num-batched-tokens 64", "-tp 3"):
        print_audit(judged(flags))
        text = capsys.readouterr().out
        assert "one change alone" in text and "not modelled" in text and "--seed" in text
        assert ("the given flags do not serve it" in text) == (flags == "-tp 3")


def test_a_missing_file_is_one_line(run: Run, tmp_path: Path) -> None:
    code, text, err = run("audit", tmp_path / "none.sh", "--hardware", "h100-node")
    assert code == 2 and not text and err.count("\n") == 1
