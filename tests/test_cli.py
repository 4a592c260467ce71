"""The command line keeps the contract: exit codes, one line for bad input, JSON that fits its schema, whole files or none."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

import planner
from planner.api import resolve
from planner.cli.main import COMMANDS
from planner.cli.main import main as run_main
from planner.plans.context import build_context
from planner.plans.inputs import Inputs
from planner.plans.space import declare_space
from planner.search.shortage import RESERVE_FIGURES, least_shortage

NODE = ("deepseek-v3", "h800-node")
LLAMA = ("llama-3.1-70b", "h100-node")


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def faults(self) -> list[str]:
        """Lines on stderr beside notes and hints."""
        return [line for line in self.err.splitlines() if not line.startswith(("next: ", "note: "))]


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call ``main`` in this process with an argument vector."""

    def call(*arguments: str, stdin: str | bytes = "") -> Done:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "argv", ["planner", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err and "internal fault" not in err, err
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, out, err)

    return call


def refused(done: Done, *words: str) -> None:
    """Exit 2, nothing on stdout, one line on stderr that holds the words."""
    assert (done.code, done.out) == (2, ""), done
    assert len(done.faults) == 1 and done.faults[0].startswith("planner: ") and len(done.faults[0]) < 720, done.err
    for word in words:
        assert word in done.faults[0], done.err


def process(*arguments: str, code: str = "", **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own that imports the same ``planner``."""
    environment = {**os.environ, "PYTHONPATH": str(Path(planner.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"}
    script = code or "from planner.cli.main import main; main()"
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, "-c", script, *arguments], env=environment, text=True, **pipes)


def finished(child: subprocess.Popen[str]) -> Done:
    out, err = child.communicate(timeout=60)
    assert "Traceback" not in err and "internal fault" not in err, err
    return Done(child.returncode, out, err)


@pytest.fixture(scope="session")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small plan, written by the command."""
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    with pytest.raises(SystemExit) as stop:
        run_main(["plan", *LLAMA, "--quiet", "-o", str(path)])
    assert stop.value.code == 0
    return path


def fits_schema(run: Run, subject: str, data: Any) -> None:
    schema = run("schema", subject).data
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema, jsonschema.Draft202012Validator)


# -- every command, as table and as JSON ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["hardware", "models", "workloads", "runtimes", "prices", "exporters", "plugins"])
def test_list(run: Run, kind: str) -> None:
    table, listed = run("list", kind), run("list", kind, "--format", "json")
    assert table.code == listed.code == 0 and table.out
    assert not table.err or (kind == "prices" and table.err.startswith("next: "))
    fits_schema(run, "list", listed.data)
    if kind != "exporters":
        assert listed.data and all(row["id"] in table.out for row in listed.data)


def test_list_hardware_by_origin(run: Run) -> None:
    domestic = {row["id"] for row in run("list", "hardware", "--origin", "domestic", "--format", "json").data}
    western = {row["id"] for row in run("list", "hardware", "--origin", "western", "--format", "json").data}
    assert "cloudmatrix384" in domestic and {"h100-node", "gb200-nvl72"} <= western and not domestic & western


@pytest.mark.parametrize(
    ("kind", "name"), [("hardware", "h800-node"), ("model", "deepseek-v3"), ("workload", "chat"), ("runtime", "generic")]
)
def test_show(run: Run, kind: str, name: str) -> None:
    table, shown = run("show", kind, name), run("show", kind, name, "--format", "json")
    assert table.code == shown.code == 0 and name in table.out
    assert shown.data["id"] == name


def test_show_model_states_exact_counts(run: Run) -> None:
    data = run("show", "model", "deepseek-v3", "--format", "json").data
    assert {"total", "active", "active_with_embedding"} <= set(data["parameters"]) and data["bytes"]["total"] > 0
    assert all(isinstance(value, int) for value in data["parameters"].values())


@pytest.mark.parametrize(("kind", "name"), [("hardware", "gb200-nvl72"), ("model", "llama-3.1-70b")])
def test_show_writes_the_graph_as_dot_once(run: Run, tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "graph.dot"
    assert run("show", kind, name, "--dot", str(path)).code == 0
    first = path.read_text(encoding="utf-8")
    assert first.startswith("digraph") and "->" in first
    refused(run("show", kind, name, "--dot", str(path)), "graph.dot", "exists already", "--force")
    assert run("show", kind, name, "--dot", str(path), "--force").code == 0 and path.read_text(encoding="utf-8") == first


def test_plan_verify_and_explain(run: Run, plan_file: Path) -> None:
    made = run("plan", *LLAMA, "--format", "json")
    assert made.code == 0 and made.err.startswith("next: ") and len(made.err.splitlines()) == 1
    assert made.out == plan_file.read_text(encoding="utf-8")
    fits_schema(run, "plan", made.data)
    certificate = made.data["certificate"]
    assert certificate["proved"] and certificate["gap"] <= 0.005 and "stopped" not in certificate
    assert run("verify", "-", stdin=made.out).out.startswith("ok: ")
    verdict = run("verify", str(plan_file), "--format", "json")
    assert verdict.code == 0 and verdict.data["ok"] and verdict.data["violations"] == []
    fits_schema(run, "verify", verdict.data)
    assert run("verify", str(plan_file), "--full").code == 0
    assert run("explain", str(plan_file), "--format", "json").data == made.data["explanation"]
    told = run("explain", "-", stdin=made.out)
    assert told.code == 0 and "What binds" in told.out and "What lies where" in told.out


def test_plan_as_a_table_states_what_it_rests_on(run: Run) -> None:
    done = run("plan", *LLAMA, "--certificate")
    assert done.code == 0
    text = " ".join(done.out.split())
    for words in (
        "workload interactive",
        "runtime generic",
        "owned of ",
        "lowest grade of evidence",
        "against the model, not the machine",
    ):
        assert words in text
    assert re.search(
        r"proved: [\d.]+ USD per million tokens, blended, bound [\d.]+, gap 0\.\d+% over [\d,]+ configurations", text
    )


@pytest.mark.parametrize("subject", ["plan", "hardware", "model", "workload", "runtime", "verify", "list", "conflict"])
def test_schema(run: Run, subject: str) -> None:
    jsonschema.Draft202012Validator.check_schema(run("schema", subject).data)


def test_embedded_inputs_fit_the_schema_of_each_kind(run: Run, plan_file: Path) -> None:
    inputs = json.loads(plan_file.read_text(encoding="utf-8"))["inputs"]
    fits_schema(run, "workload", inputs["workload"])
    fits_schema(run, "runtime", inputs["runtime"])
    fits_schema(run, "model", inputs["model"])
    fits_schema(run, "hardware", inputs["hardware"]["mixed"]["system"])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(run: Run, command: str) -> None:
    done = run(*filter(None, [command]), "--help")
    assert done.code == 0 and "Usage: planner" in done.out and "Example" in done.out and not done.err


# -- what one node can do ------------------------------------------------------------------------------------------------
def test_a_node_too_small_uses_host_memory_and_says_so(run: Run) -> None:
    done = run("plan", *NODE, "--tpot", "1000", "--format", "json")
    assert done.code == 0
    below = "\n".join(done.data["explanation"]["below_device_memory"])
    assert "lies in host" in below and "to each decode pass" in below
    worth = [row for row in done.data["shadow_prices"] if row["resource"] == "hbm capacity"]
    assert worth and worth[0]["usd_per_hour_per_unit"] > 0


@pytest.mark.parametrize("generous", [False, True])
def test_the_model_exceeds_the_memory_of_the_node_at_both_ends_of_the_intervals(generous: bool) -> None:
    inputs = resolve(*NODE, tiers=("hbm",))
    reserve = inputs.runtime.reserve
    figures = {name: getattr(reserve, name) for name in RESERVE_FIGURES.values()}
    ends = {name: f.model_copy(update={"value": f.lowest if generous else f.highest}) for name, f in figures.items()}
    system = inputs.hardware["mixed"].system
    usable = system.tiers[0].usable
    memory = usable.model_copy(update={"value": usable.highest if generous else usable.lowest})
    tiers = (system.tiers[0].model_copy(update={"usable": memory}), *system.tiers[1:])
    selection = inputs.hardware["mixed"].model_copy(update={"system": system.model_copy(update={"tiers": tiers})})
    runtime = inputs.runtime.model_copy(update={"reserve": reserve.model_copy(update=ends)})
    changed: Inputs = inputs.model_copy(update={"hardware": {"mixed": selection}, "runtime": runtime})
    context = build_context(changed)
    shortage = least_shortage(context.pools["mixed"], declare_space(context).pools["mixed"])
    assert shortage is not None and shortage.devices == 8
    assert shortage.short > 0


def test_service_levels_around_the_least_tpot_that_the_tool_states(run: Run) -> None:
    stated = " ".join(run("plan", *NODE).out.split())
    match = re.search(r"the least TPOT in the space that meets the other limits is ([\d.]+) ms", stated)
    assert match is not None
    least = float(match[1])
    assert least < 50
    above = run("plan", *NODE, "--tpot", f"{1.01 * least:.6f}ms", "--format", "json")
    assert above.code == 0 and above.data["prediction"]["tpot_ms"]["expected"] <= 1.01 * least
    below = run("plan", *NODE, "--tpot", f"{0.98 * least:.6f}ms")
    assert below.code == 3 and len(below.faults) == 1
    for words in ("proved infeasible", "service level TPOT", "GB a device lie in host", "MB must move over pcie"):
        assert words in below.faults[0]
    table = run("plan", *NODE, "--tpot", f"{0.98 * least:.6f}ms", "--format", "json")
    fits_schema(run, "conflict", table.data)
    level = next(row for row in table.data["conflict"] if row["member"] == "service level TPOT")
    assert level["amount"] == pytest.approx(least, rel=1e-4)


def test_device_memory_alone_is_proved_too_small_with_every_least_relief(run: Run) -> None:
    done = run("plan", *NODE, "--tpot", "1000", "--tiers", "hbm", "--format", "json")
    assert done.code == 3 and len(done.faults) == 1 and "exceed the" in done.faults[0]
    fits_schema(run, "conflict", done.data)
    members = {row["member"]: row for row in done.data["conflict"]}
    short = members["hbm capacity"]["amount"]
    assert short > 0
    for name in ("hbm capacity", "weights", "reserve", "least KV cache"):
        assert members[name]["amount"] == short and members[name]["unit"] == "GB per device"
    assert "(" in members["reserve"]["detail"] and "context" in members["reserve"]["detail"]
    assert members["devices"]["amount"] == 16
    relieved = run("plan", "deepseek-v3", "h800-node:2", "--tpot", "1000", "--tiers", "hbm", "--format", "json")
    assert relieved.code == 0
    assert all(row["tier"] == "hbm" for pool in relieved.data["pools"] for row in pool["placement"])


def test_the_stated_relief_of_a_ttft_limit_relieves(run: Run) -> None:
    stopped = run("plan", *LLAMA, "--ttft", "10", "--format", "json")
    assert stopped.code == 3
    level = next(row for row in stopped.data["conflict"] if row["member"] == "service level TTFT")
    assert run("plan", *LLAMA, *level["least_relief"].split()).code == 0


def test_caps_below_one_unit_are_a_conflict(run: Run) -> None:
    done = run("plan", *LLAMA, "--max-power-kw", "1", "--max-usd-per-hour", "1", "--format", "json")
    assert done.code == 3 and {row["member"] for row in done.data["conflict"]} == {"power", "money"}


# -- bad input -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ["no command", "plan", "--help"]),
        ("plann", ["unknown command 'plann'", "did you mean plan"]),
        ("plan", ["MODEL", "planner plan --help"]),
        ("plan deepseek-v4 h800-node", ["deepseek-v4", "did you mean deepseek-v4-pro"]),
        ("plan deepseek-v3 h80-node", ["h80-node", "did you mean h800-node"]),
        ("plan deepseek-v3 ascend-910c-die", ["is a device", "cloudmatrix384"]),
        ("plan deepseek-v3 h800-node:0", ["'0'", "h800-node:0", "NAME:N"]),
        ("plan deepseek-v3 h800-node:999999", ["too much for one plan", "--devices"]),
        ("plan deepseek-v3 h800-node:auto", ["auto", "--rate"]),
        ("plan deepseek-v3 prefill=h800-node", ["both pools", "decode="]),
        ("plan deepseek-v3 prefill=h800-node,decode=", ["'decode='"]),
        ("plan deepseek-v3 h800-node --workload chatt", ["chatt", "did you mean chat"]),
        ("plan deepseek-v3 h800-node --runtime idle", ["idle", "did you mean ideal"]),
        ("plan deepseek-v3 h800-node --tiers hbm,tape", ["--tiers", "'tape'", "known: "]),
        ("plan deepseek-v3 h800-node --tiers host", ["--tiers", "add hbm"]),
        ("plan deepseek-v3 h800-node --tiers ", ["--tiers", "known: "]),
        ("plan deepseek-v3 h800-node --weight-dtype fp16", ["--weight-dtype", "did you mean"]),
        ("plan deepseek-v3 cloudmatrix384 --weight-dtype fp8", ["--weight-dtype", "does not compute in fp8", "int8"]),
        ("plan deepseek-v3 h800-node --kv-dtype int3", ["--kv-dtype", "int3", "fp8"]),
        ("plan llama-3.1-70b h100-node --mtp 1", ["--mtp", "no draft module"]),
        ("plan deepseek-v3 h800-node --mtp 9", ["--mtp"]),
        ("plan deepseek-v3 h800-node --isl 16M", ["163840", "--isl"]),
        ("plan deepseek-v3 h800-node --isl 0", ["--isl", "from 1 to"]),
        ("plan deepseek-v3 h800-node --osl 1", ["output_tokens", "at least 2"]),
        ("plan deepseek-v3 h800-node --prefix-hit 1", ["--prefix-hit"]),
        ("plan deepseek-v3 h800-node --devices 0", ["--devices"]),
        ("plan deepseek-v3 h800-node --tpot 5GB", ["--tpot", "GB", "ms"]),
        ("plan deepseek-v3 h800-node --tpot 0", ["--tpot"]),
        ("plan deepseek-v3 h800-node --ttft 1e308", ["--ttft"]),
        ("plan deepseek-v3 h800-node --max-power-kw 1e308", ["--max-power-kw"]),
        ("plan deepseek-v3 h800-node --time-limit 0", ["--time-limit"]),
        ("plan deepseek-v3 h800-node --no-such", ["--no-such"]),
        ("plan deepseek-v3 h800-node -o no-such-folder/plan.json", ["no-such-folder", "folder does not exist"]),
        ("list nothing", ["nothing", "hardware"]),
        ("list models --origin western", ["--origin"]),
        ("list hardware --profiles no-such-folder", ["no-such-folder", "folder"]),
        ("show hardware zzzzzzzz", ["zzzzzzzz", "known: "]),
        ("show workload chat --dot x.dot", ["--dot"]),
        ("schema planet", ["planet", "plan"]),
        ("verify no-such.json", ["no-such.json", "no such file"]),
        ("explain no-such.json", ["no-such.json", "no such file"]),
    ],
)
def test_bad_arguments_get_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*(arguments.split(" ") if arguments else [])), *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option", ["--time-limit", "--gap", "--utilisation", "--prefix-hit", "--max-power-kw", "--tpot", "--isl"]
)
@pytest.mark.parametrize("value", ["nan", "inf", "", "-1", "x" * 5000])
def test_numbers_that_are_none(run: Run, option: str, value: str) -> None:
    refused(run("plan", *LLAMA, option, value), option)


@pytest.mark.parametrize("value", ["", "x" * 5000, "ü\u202e💥"])
def test_names_that_are_none(run: Run, value: str) -> None:
    refused(run("plan", value, "h100-node"))
    refused(run("plan", "deepseek-v3", value))
    refused(run("plan", *LLAMA, "--workload", value))
    refused(run("plan", *LLAMA, "--runtime", value))
    refused(run("show", "workload", value))
    refused(run("verify", value))


HOSTILE = {
    "deep.toml": b"x = " + b"[" * 10_000,
    "latin.toml": b"id = '\xe9'",
    "nul.toml": b"id = '\0'",
    "large.toml": b"# x\n" * 2_500_000,
    "infinite.toml": b"schema = 1\nx = inf",
    "integer.toml": b"x = " + b"9" * 10_000,
    "broken.toml": b"x =",
    "unknown.toml": b"schema = 1\nfoo = 1",
    "empty.toml": b"",
}


@pytest.mark.parametrize("name", [*HOSTILE, "folder.toml", "pipe.toml", "zero.toml", "loop.toml"])
def test_hostile_files_are_refused_by_name(run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name in HOSTILE:
        path.write_bytes(HOSTILE[name])
    elif name == "folder.toml":
        path.mkdir()
    elif name == "pipe.toml":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if name == "zero.toml" else path)
    refused(run("plan", "deepseek-v3", str(path)), name)
    refused(run("plan", str(path), "h100-node"), name)
    refused(run("plan", *LLAMA, "--workload", str(path)), name)
    refused(run("plan", *LLAMA, "--runtime", str(path)), name)
    refused(run("verify", str(path)), name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is not JSON"]),
        ("[]", ["is not a plan"]),
        ("{}", ["schema_version"]),
        ('{"schema_version": 2}', ["schema_version 2", "plan again"]),
        ('{"schema_version": 1}', ["model", "missing"]),
        ('{"a": NaN}', ["NaN"]),
        ('{"a": 1, "a": 2}', ["repeated"]),
        ("[" * 100_000, ["nested too deeply"]),
        ("9" * 100_000, ["is not JSON"]),
        (b"\xff\xfe{", ["UTF-8"]),
    ],
)
@pytest.mark.parametrize("command", ["verify", "explain"])
def test_what_is_no_plan_is_refused(run: Run, command: str, text: str | bytes, words: list[str]) -> None:
    refused(run(command, "-", stdin=text), "standard input", *words)


def test_truncated_and_damaged_plans(run: Run, plan_file: Path) -> None:
    text = plan_file.read_text(encoding="utf-8")
    refused(run("verify", "-", stdin=text[:-100]), "is not JSON")
    for key, value in (("pools", []), ("inputs", {}), ("explanation", 1), ("model", None)):
        refused(run("verify", "-", stdin=json.dumps(json.loads(text) | {key: value})), key)
    for damage in ({"explanation": {"summary": 3}}, {"provenance": {}}, {"provenance": {"estimates": [1], "lowest_grade": "A"}}):
        refused(run("explain", "-", stdin=json.dumps(json.loads(text) | damage)), "explanation is damaged", "verify")


def test_markup_in_a_plan_is_text(run: Run, plan_file: Path) -> None:
    data = json.loads(plan_file.read_text(encoding="utf-8"))
    data["bottlenecks"][0]["resource"] = "[/x]"
    done = run("explain", "-", stdin=json.dumps(data))
    assert done.code == 0 and "[/x]" in done.out


def test_a_changed_number_is_a_failed_verification(run: Run, plan_file: Path) -> None:
    data = json.loads(plan_file.read_text(encoding="utf-8"))
    data["prediction"]["tpot_ms"]["expected"] *= 1 + 1e-6
    table, verdict = (run("verify", "-", *form, stdin=json.dumps(data)) for form in ((), ("--format", "json")))
    assert table.code == verdict.code == 4
    assert "violated: " in table.out and "prediction.tpot_ms.expected" in table.out
    fits_schema(run, "verify", verdict.data)
    assert not verdict.data["ok"] and verdict.data["violations"][0]["path"] == "prediction.tpot_ms.expected"


# -- files ---------------------------------------------------------------------------------------------------------------
def test_results_never_replace_what_is_there_without_force(run: Run, tmp_path: Path, plan_file: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("mine", encoding="utf-8")
    refused(run("plan", *LLAMA, "-o", str(path)), "plan.json", "exists already", "--force")
    assert path.read_text(encoding="utf-8") == "mine"
    assert run("plan", *LLAMA, "-o", str(path), "--force").code == 0
    assert path.read_bytes() == plan_file.read_bytes() and [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_only_files_are_replaced_even_with_force(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        refused(run("plan", *LLAMA, "-o", str(tmp_path / name), "--force"), "not a regular file")
    refused(run("plan", *LLAMA, "-o", str(tmp_path / ("x" * 300))), "cannot be written")
    assert [p.name for p in tmp_path.iterdir()] == ["pipe"] and (tmp_path / "pipe").is_fifo()


def test_nothing_is_written_where_there_is_no_plan(run: Run, tmp_path: Path) -> None:
    assert run("plan", *LLAMA, "--tpot", "1us", "-o", str(tmp_path / "plan.json")).code == 3
    assert list(tmp_path.iterdir()) == []


# -- stopping early ------------------------------------------------------------------------------------------------------
def test_a_time_limit_before_any_plan(run: Run) -> None:
    done = run("plan", *NODE, "--tpot", "1000", "--time-limit", "1e-9")
    assert (done.code, done.out) == (5, "") and len(done.faults) == 1 and "--time-limit" in done.faults[0]


def test_a_time_limit_after_the_first_plan(run: Run) -> None:
    done = run("plan", "deepseek-v3", "h800-node:2", "--time-limit", "1e-9", "--format", "json")
    assert done.code == 0
    certificate = done.data["certificate"]
    assert not certificate["proved"] and certificate["stopped"] == "time limit"
    assert certificate["bound"] <= certificate["objective"]
    fits_schema(run, "plan", done.data)
    assert run("verify", "-", stdin=done.out).code == 0


def test_a_time_limit_never_changes_what_conflicts(run: Run) -> None:
    done = run("plan", *NODE, "--tpot", "1ms", "--time-limit", "1e-9", "--format", "json")
    assert done.code in (3, 5)
    if done.code == 3:
        assert "GB usable" not in done.err and {row["member"] for row in done.data["conflict"]} >= {"service level TPOT"}


INTERRUPTED = """
import os, signal
from planner.search import find
offer = find.Search.offer
def interrupted(self, *arguments):
    offer(self, *arguments)
    if self.best is not None and not self.stop.interrupted:
        os.kill(os.getpid(), signal.SIGINT)
find.Search.offer = interrupted
from planner.cli.main import main
main()
"""


def test_ctrl_c_writes_the_best_plan(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    done = finished(process("plan", "deepseek-v3", "h800-node:2", "-o", str(path), "--format", "json", code=INTERRUPTED))
    assert done.code == 130
    assert path.read_text(encoding="utf-8") == done.out and [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    assert done.data["certificate"]["stopped"] == "interrupted" and not done.data["certificate"]["proved"]
    assert run("verify", str(path)).code == 0


def test_ctrl_c_before_any_plan_is_clean() -> None:
    child = process("verify", "-", stdin=subprocess.PIPE)
    time.sleep(1.0)
    child.send_signal(signal.SIGINT)
    done = finished(child)
    assert (done.code, done.out) == (130, "") and done.err.strip() == "planner: stopped"


# -- processes -----------------------------------------------------------------------------------------------------------
def test_a_reader_that_goes_away_is_no_fault(plan_file: Path) -> None:
    for arguments in (("list", "hardware"), ("schema", "plan"), ("explain", str(plan_file)), ("--help",)):
        read, write = os.pipe()
        os.close(read)
        child = process(*arguments, stdout=write)
        os.close(write)
        done = finished(child)
        assert done.code == 0 and not done.faults


def test_a_full_disk_is_one_line() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        child = process("list", "models", stdout=full)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 2 and len(err.splitlines()) == 1 and "standard output" in err


def test_closed_standard_streams() -> None:
    def closing(*streams: int) -> Callable[[], None]:
        return lambda: [os.close(stream) for stream in streams] and None

    refused(finished(process("verify", "-", preexec_fn=closing(0))), "standard input", "closed")
    assert finished(process("list", "models", preexec_fn=closing(1))).code == 0
    assert finished(process("list", "nothing", preexec_fn=closing(1, 2))).code == 2


MODULES = "\nimport sys\ntry: main()\nfinally: print('modules:', *sys.modules, file=sys.stderr)"


def modules_of(*arguments: str, **options: Any) -> set[str]:
    done = finished(process(*arguments, code="from planner.cli.main import main" + MODULES, **options))
    assert done.code == 0, done.err
    return set(done.err.rpartition("modules: ")[2].split())


def test_help_loads_no_solver() -> None:
    for arguments in (("--help",), ("plan", "--help"), ("verify", "--help")):
        assert not modules_of(*arguments) & {"ortools", "pandas", "numpy", "networkx", "rich"}


def test_verify_imports_nothing_of_the_search(plan_file: Path) -> None:
    for full in ((), ("--full",)):
        loaded = modules_of("verify", str(plan_file), *full)
        assert not {name for name in loaded if name.startswith(("planner.search", "ortools"))}


def test_the_same_command_prints_the_same_bytes() -> None:
    seeds = [{**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(planner.__file__).parents[1])} for seed in ("1", "2")]
    script = "from planner.cli.main import main; main()"
    command = [sys.executable, "-c", script, "plan", *NODE, "--format", "json"]
    first, second = (subprocess.run(command, env=env, capture_output=True, timeout=60, check=True).stdout for env in seeds)
    assert first == second and len(first) > 1000


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_the_number_of_cores_changes_nothing(run: Run) -> None:
    core = min(os.sched_getaffinity(0))
    child = process(*("plan", *NODE, "--format", "json"), preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    assert finished(child).out == run("plan", *NODE, "--format", "json").out


# --- demand and caution ------------------------------------------------------------------------------------------------


def test_infeasible_demand_exits_3(run: Run) -> None:
    done = run("plan", "llama-3.1-70b", "h100-node", "--rate", "100000/s", "--quiet", "--format", "json")
    assert done.code == 3
    assert "demand" in [member["member"] for member in done.data["conflict"]]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (["--rate", "0/s"], "rate"),
        (["--rate", "fast"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "1e99/s"], "--rate"),
        (["--tokens-per-day", "0"], "--tokens-per-day"),
        (["--tokens-per-day", "inf"], "--tokens-per-day"),
        (["--rate", "5/s", "--tokens-per-day", "1e9"], "rate and tokens_per_day"),
        (["--spare", "x"], "--spare"),
        (["--spare", "-1"], "--spare"),
        (["--spare", "1:street"], "--spare"),
        (["--spare", "99999"], "--spare"),
        (["--robust", "workloads"], "--robust"),
        (["--slo-on", "p95"], "--slo-on"),
        (["--ttft", "2s@p95"], "percentiles"),
        (["--slo-on", "high", "--robust", "intervals"], "robust"),
        (["--slo-on", "high", "--pareto", "3"], "front"),
    ],
)
def test_bad_input_is_one_line(run: Run, line: list[str], word: str) -> None:
    refused(run("plan", "llama-3.1-8b", "h100-node", *line), word)
