"""The terminal: switches, widths, colours, progress, completion, help with examples, and what Ctrl-C leaves behind."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from terminals import ENVIRONMENT, RUN, TOP, in_terminal, left_clean

import planner
from planner.cli.progress import Work

Run = Callable[..., tuple[int, str, str]]
main = import_module("planner.cli.main")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    path.write_text(planner.plan("llama-3.1-8b", "h100-node").to_json(), encoding="utf-8")
    return path


def commands(group: click.Command = main.group, path: str = "planner") -> Iterator[tuple[str, click.Command]]:
    """Every command with what calls it."""
    yield path, group
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context) if isinstance(group, click.Group) else ():
        command = group.get_command(context, name)
        assert command is not None, f"{path} {name}"
        yield from commands(command, f"{path} {name}")


EVERY = [name for name in main.COMMANDS if (TOP / "planner" / "cli" / f"{name}_command.py").exists()]


def examples(command: click.Command) -> list[str]:
    """Lines of the block of examples."""
    _, _, block = inspect.cleandoc(command.help or "").partition("Examples:\n")
    return [line.strip() for line in itertools.takewhile(lambda line: line.startswith("  "), block.splitlines())]


def steps(line: str) -> list[list[str]]:
    """The calls of planner in a line of shell, as arguments."""
    found: list[list[str]] = []
    for part in re.split(r" (?:\||&&) ", line):
        words = shlex.split(part.partition(" > ")[0])
        if words[:1] == ["planner"]:
            found.append(words[1:])
    return found


# -- help ----------------------------------------------------------------------------------------------------------------
QUICK = (
    *("list", "show", "kv", "schema", "completion", "lint h800-node", "verify plan.json", "diff plan.json other.json"),
    *("cost bill", "cost tiers", "cost retention"),
)
"""Examples of these run; others are parsed."""


@pytest.mark.parametrize("name", EVERY)
def test_every_command_has_examples_that_run(
    name: str, run: Run, plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for copy in ("plan.json", "other.json"):
        shutil.copy(plan_file, copy)
    context = click.Context(main.group, info_name="planner", obj=main.Terminal())
    assert examples(main.group)
    for path, command in commands(main.group.get_command(context, name), f"planner {name}"):
        lines = examples(command)
        assert lines, f"{path} --help has no block of examples"
        for line in lines:
            called = steps(line)
            assert called, f"{path}: {line!r} calls no planner"
            for arguments in called:
                with main.group.make_context("planner", list(arguments), obj=main.Terminal()) as parsed:
                    below, known = main.group, parsed
                    while isinstance(below, click.Group):
                        rest = [*known._protected_args, *known.args]
                        _, child, rest = below.resolve_command(known, rest)
                        assert child is not None, line
                        known, below = child.make_context(str(child.name), rest, parent=known), child
            if line.removeprefix("planner ").startswith(QUICK) and not {"|", ">"} & set(line):
                assert run(*called[0])[0] == 0, line


def test_help_is_for_a_terminal_of_80_columns(run: Run) -> None:
    for name in ("", *EVERY):
        out = run(*filter(None, [name]), "--help")[1]
        long = [line for line in out.splitlines() if len(line) > 80 and not line.lstrip().startswith("planner ")]
        assert not long, long


# -- switches ------------------------------------------------------------------------------------------------------------
def test_quiet_and_verbose_stand_before_or_after_the_command(run: Run, plan_file: Path) -> None:
    assert "next: " in run("verify", plan_file)[2]
    assert run("--quiet", "verify", plan_file)[2] == run("verify", plan_file, "--quiet")[2] == ""
    before, after = (run(*line)[2] for line in (("-v", "verify", plan_file), ("verify", plan_file, "--verbose")))
    for err in (before, after):
        lines = err.splitlines()
        assert lines[0].startswith("verbose: planner ") and "numpy" in lines[0] and "ortools" in lines[0]
        assert re.search(r"verbose: recomputing: \d+\.\d\d s", err) and lines[-1].startswith("verbose: exit code 0 after ")
    assert "exclude each other" in run("--quiet", "verify", plan_file, "-v")[2]


def test_verbose_tells_inputs_counts_and_times(run: Run) -> None:
    code, out, err = run("plan", "llama-3.1-8b", "h100-node", "-v")
    assert code == 0 and "verbose" not in out
    for text in (
        "model llama-3.1-8b, objective cost",
        "mixed pool: 1 x h100-node, 8 devices each, shipping",
        "systems/h100-node.toml",
        "workload interactive: 4096 tokens in, 1024 out",
        "runtime generic, prices owned",
        "verbose: search: ",
        "parallelisms, left out beforehand: ",
    ):
        assert text in err, text
    assert "next: planner plan llama-3.1-8b h100-node -v -o plan.json && planner explain plan.json" in err


def test_verbose_tells_the_causes_of_an_error(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("x =", encoding="utf-8")
    code, _, err = run("-v", "plan", "llama-3.1-8b", broken)
    assert code == 2 and "verbose: because of TOMLDecodeError: " in err and "Traceback" not in err
    assert "because of" not in run("plan", "llama-3.1-8b", broken)[2]


# -- widths and colours --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_wider_than_the_terminal_or_ends_in_blanks(
    width: int, run: Run, plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in (
        ("verify", plan_file),
        ("explain", plan_file),
        ("kv", "deepseek-v3"),
        ("fleet", plan_file, "--tokens-per-day", "1e12"),
        ("cost", "retention", "deepseek-v3", "--recompute", "0.138"),
    ):
        code, out, _ = run(*arguments)
        assert code == 0 and "\x1b" not in out
        for line in out.splitlines():
            assert (len(line) <= width or "http" in line) and line == line.rstrip(), (arguments, line)


def test_colours_only_where_they_are_wanted() -> None:
    assert ANSI.search(in_terminal(["list", "prices"])[1])
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        code, out = in_terminal(["list", "prices"], **env)
        assert code == 0 and "owned" in out and not ANSI.search(out)


def test_characters_that_the_encoding_lacks_are_no_fault() -> None:
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"}
    command = [sys.executable, "-c", RUN, "list", "hardware", "--origin", "domestic"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0 and b"cloudmatrix384" in done.stdout and done.stdout.isascii()


# -- progress and signals ------------------------------------------------------------------------------------------------
class Seen:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.shown: list[tuple[float | None, str]] = []

    def show(self, share: float | None, text: str) -> None:
        self.shown.append((share, text))


def test_the_bar_is_the_gap_on_a_scale_of_logarithms() -> None:
    work, seen = Work("search", gap=0.01), Seen()
    assert work.display is None  # nobody looks
    work.display = seen  # type: ignore[assignment]
    work.progress(10, 5, None)
    for gap in (1.0, 0.1, 0.01, 0.001):
        work.progress(20, 5, gap)
    shares = [share for share, _ in seen.shown]
    assert shares[0] is None and shares[1:] == pytest.approx([0.0, 0.5, 1.0, 1.0])
    assert seen.shown[0][1] == "no plan yet, 10 solved, 5 open" and seen.shown[2][1].startswith("gap 10.00%")
    work.part(3, 4, "points")
    assert seen.shown[-1] == (0.75, "3 of 4 points")


SLOW = (
    """
import time
from planner.search import find
slow = find.Search._process
def process(self, node):
    time.sleep(0.04)
    return slow(self, node)
find.Search._process = process
"""
    + RUN
)


@pytest.mark.parametrize("how", [b"\x03", b"TERM"], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_leaves_the_best_plan_and_a_clean_terminal(how: bytes, tmp_path: Path, run: Run) -> None:
    path, sent = tmp_path / "plan.json", []

    def act(seen: bytes) -> bytes:
        if b"gap" not in seen or sent:
            return b""
        sent.append(how)
        return how

    code, out = in_terminal(["plan", "deepseek-v3", "h800-node", "--tpot", "1000", "-o", str(path), "--certificate"], act, SLOW)
    assert code == 130 and sent and left_clean(out, "search"), out[-2000:]
    assert re.search(r"gap \d+\.\d\d%, \d+ solved, [\d,]+ open", out)
    certificate = json.loads(path.read_text(encoding="utf-8"))["certificate"]
    assert certificate["stopped"] == "interrupted" and not certificate["proved"]
    assert run("verify", path)[0] == 0 and [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_second_ctrl_c_leaves_at_once(tmp_path: Path) -> None:
    sent: list[float] = []

    def act(seen: bytes) -> bytes:
        if b"?25l" not in seen or len(sent) == 2 or (sent and time.monotonic() < sent[0] + 0.2):
            return b""
        sent.append(time.monotonic())
        return b"\x03"

    slower = SLOW.replace(
        "    time.sleep(0.04)", "    for _ in range(600): time.sleep(0.05)"
    )  # a signal may end another thread's sleep
    code, out = in_terminal(["plan", "deepseek-v3", "h800-node", "--tpot", "1000", "-o", str(tmp_path / "p.json")], act, slower)
    assert code == 130 and len(sent) == 2 and left_clean(out, "search") and "planner: stopped" in out
    assert time.monotonic() < sent[1] + 5.0 and list(tmp_path.iterdir()) == []


# -- completion ----------------------------------------------------------------------------------------------------------
def completed(line: str, shell: str = "bash", code: str = RUN) -> list[str]:
    """What click's protocol answers for a line, the last word of it being written."""
    words = line.split(" ")
    cword = words[-1] if shell == "fish" else str(len(words) - 1)
    environment = {**ENVIRONMENT, "_PLANNER_COMPLETE": f"{shell}_complete", "COMP_WORDS": line, "COMP_CWORD": cword}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "some", "none"),
    [
        ("planner pl", ["plain,plan"], "plain,list"),
        ("planner plan deepseek-v4", ["plain,deepseek-v4-pro", "plain,deepseek-v4-flash"], "plain,deepseek-v3"),
        ("planner plan deepseek-v3 h800", ["plain,h800-node"], "plain,h800-sxm"),
        ("planner plan deepseek-v3 h800-node:", ["plain,h800-node:2", "plain,h800-node:auto"], "plain,h800-node"),
        ("planner plan deepseek-v3 prefill=h800", ["plain,prefill=h800-node"], "plain,h800-node"),
        (
            "planner plan deepseek-v3 prefill=h800-node:2,decode=gb2",
            ["plain,prefill=h800-node:2,decode=gb200-nvl72"],
            "plain,gb200-nvl72",
        ),
        ("planner plan m h --objective ", ["plain,cost", "plain,throughput", "plain,latency"], "plain,hardware"),
        ("planner --quiet plan m h --workload ch", ["plain,chat"], "plain,batch"),
        ("planner plan m h --runtime vllm", ["plain,vllm", "plain,vllm-ascend"], "plain,sglang"),
        ("planner plan m h --price-basis ow", ["plain,owned"], "plain,chat"),
        ("planner show device h800", ["plain,h800-sxm"], "plain,h800-node"),
        ("planner verify some", ["file,some"], "plain,some"),
        ("planner simulate some", ["file,some"], "plain,some"),
        ("planner cost tiers --memory nvme-tlc", ["plain,nvme-tlc-gen5-30tb"], "plain,h800-node"),
        ("planner no-such some", [""], "plain,some"),
    ],
)
def test_completion_by_the_protocol_of_click(
    line: str, some: list[str], none: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process; the test below has processes of their own."""
    words = line.split(" ")
    for name, value in {"_PLANNER_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(main, "_drop_output", lambda: None)
    with pytest.raises(SystemExit):
        main.main([])
    found = capsys.readouterr().out.split("\n")
    assert set(some) <= set(found) and none not in found, found


def test_everything_that_can_be_completed_is_a_parameter() -> None:
    from planner.cli.completion import PARAMETERS

    known = {parameter.name for _, command in commands() for parameter in command.params}
    assert known >= set(PARAMETERS), set(PARAMETERS) - known


def test_completion_loads_nothing_heavy() -> None:
    tell = "\nimport sys\ntry: run()\nfinally: print('modules', *sys.modules)"
    lines = completed("planner plan deepseek-v3 h800", code="from planner.__main__ import run" + tell)
    assert lines[0] == "plain,h800-node"
    assert not {"pydantic", "numpy", "rich", "networkx", "ortools", "planner.hardware"} & set(lines[-1].split())


def test_completion_in_zsh_and_fish() -> None:
    assert completed("planner plan m prefill=h800", "zsh") == ["plain", "prefill=h800-node", "_"]
    assert completed("planner plan m prefill=h800", "fish") == ["plain,prefill=h800-node"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell(shell: str, run: Run) -> None:
    code, script, err = run("completion", shell)
    assert code == 0 and not err and f"_PLANNER_COMPLETE={shell}_complete" in script
    assert run("completion", "tcsh")[0] == 2


def test_the_script_in_bash_itself(run: Run, tmp_path: Path) -> None:
    """Bash cuts words at = and :, which its script has to mend."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    program = tmp_path / "planner"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(RUN)} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    lines = {
        "planner plan deepseek-v3 prefill=h800": "h800-node",
        "planner plan deepseek-v3 prefill=h800-node:2,decode=gb200": "gb200-nvl72",
        "planner plan --pin 'KV cache@hbm' deepseek-v3 h800-node:a": "auto",
        "planner plan --workload=ch": "chat",
    }
    asked = "\n".join(
        f'COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; _planner_completion planner; echo "${{COMPREPLY[*]}}"'
        for line in lines
    )
    script = f"{run('completion', 'bash')[1]}\n{asked}\n"
    environment = {**ENVIRONMENT, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([bash, "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == list(lines.values()), done


def test_completion_of_price_bases_knows_every_basis() -> None:
    from typing import get_args

    from planner.cli.completion import LISTS
    from planner.plans.inputs import PriceBasis

    assert set(get_args(PriceBasis)) <= set(LISTS["bases"](click.Context(click.Command("plan"))))
