"""``planner audit``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import format_option, hint, say_file, verdict
from planner.cli.plan_options import problem_of, problem_options
from planner.cli.progress import working
from planner.cli.stopping import interrupts
from planner.errors import InfeasibleError, InputError, StoppedError

if TYPE_CHECKING:
    from planner.audit import Engine

_INSTANCES = re.compile(r"[1-9][0-9]{0,5}")


@click.command("audit")
@click.argument("files", nargs=-1, required=True, metavar="FILE|-...")
@click.option("--hardware", required=True, help="What it runs on, as in planner plan: h800-node:4, prefill=NAME:N,decode=NAME:M.")
@click.option("--model", help="The model, where the launch lines name none of the catalogue: a name, or a config.json.")
@click.option("--engine", type=click.Choice(["vllm", "sglang"]), help="Whose configuration file it is, if that is not plain.")
@click.option(
    "--instances", metavar="N", help="Instances that run: 4, or prefill=3,decode=1; by default as many as suit HARDWARE."
)
@problem_options
@format_option
def command(
    files: tuple[str, ...],
    hardware: str,
    model: str | None,
    engine: Engine | None,
    instances: str | None,
    form: str,
    **given: Any,
) -> int:
    """Read launch lines of vLLM or SGLang back, predict them, and say how far from the best they are and which flags to change.

    FILE (or - for standard input) is shell text with `vllm serve ...` or `python -m sglang.launch_server ...`, with continuation
    lines, variables and several lines for the pools of a disaggregated deployment, or the engine's YAML configuration; nothing
    in it is run. What the engine would refuse is a finding, not an error. Options that say what is planned hold for the given
    deployment and for the best; --kv-dtype, --mtp and --redundant-experts name what the best may choose beside the given.

    Exit codes: 0 audited, findings or not; 2 unreadable; 3 the given flags do not serve the workload (with what would).

    \b
    Examples:
      planner audit serve.sh --hardware h800-node:4
      planner audit - --hardware h100-node < serve.sh
      planner audit prefill.yaml decode.yaml --engine vllm --hardware gb200-nvl72
    """
    import time

    from planner.api import audit, parse_hardware
    from planner.cli.audit_view import print_audit
    from planner.cli.from_plan import stated
    from planner.cli.plan_view import print_conflict
    from planner.search import Stop

    said = stated(click.get_current_context())
    for name, what in (("pareto", "a front"), ("robust", "worst cases")):
        if given[name] is not None:
            raise InputError(f"{what} of an audit is not built", where=f"--{name}", mend="leave it out")
    folders, quiet, time_limit = given["folders"], given["quiet"], given["time_limit"]
    texts = [(name if name != "-" else "standard input", _text(name)) for name in files]
    for part in hardware.split(",") if folders else ():
        say_file(part.rpartition("=")[2], "node", folders)
    stop = Stop(None if time_limit is None else time.monotonic() + time_limit)
    with interrupts(stop):
        with working("loading", given["gap"]) as work:
            options = problem_of(given, given["workloads"])
            for name in ("kv_dtype", "mtp", "redundant_experts", "runtime"):
                if name not in said:
                    del options[name]
            try:
                found = audit(
                    texts,
                    parse_hardware(hardware, folders),
                    model=model,
                    engine=engine,
                    instances=_instances(instances),
                    reporter=work,
                    stop=stop,
                    beginning=work.stage,
                    **options,
                )
            except InfeasibleError as error:
                print_conflict(error, form)
                return error.exit_code
            except StoppedError:
                if stop.interrupted:
                    raise KeyboardInterrupt from None
                raise
        code = 130 if found.stopped == "interrupted" else 0 if found.predicted is not None else 3
        with verdict(code):
            if form == "json":
                click.echo(found.to_json(), nl=False)
            else:
                print_audit(found)
    if not quiet:
        runtime = f" --runtime {found.runtime}" if found.runtime != "generic" else ""
        hint(
            f"planner plan {found.model} {found.hardware}{runtime} -o plan.json && planner export plan.json --to {_target(found)}"
        )
    return code


def _target(found: Any) -> str:
    return "vllm-ascend" if found.runtime == "vllm-ascend" else str(found.engine.partition(" ")[0])


def _text(name: str) -> str:
    from pathlib import Path

    from planner.audit.shell import MOST_CHARACTERS
    from planner.documents import decode, read_text

    if name != "-":
        return read_text(Path(name), max_bytes=4 * MOST_CHARACTERS)
    if sys.stdin is None:
        raise InputError("is closed", where="standard input", mend="name a file")
    data = sys.stdin.buffer.read(4 * MOST_CHARACTERS + 1)
    if len(data) > 4 * MOST_CHARACTERS:
        raise InputError(
            f"is larger than {4 * MOST_CHARACTERS} bytes", where="standard input", mend="give the launch lines alone"
        )
    return decode(data, "standard input")


def _instances(text: str | None) -> dict[str, int] | None:
    """``4`` or ``prefill=3,decode=1``."""
    if text is None:
        return None
    found: dict[str, int] = {}
    for part in text.split(","):
        phase, equals, number = part.strip().rpartition("=")
        phase = phase if equals else "mixed"
        if phase not in ("prefill", "decode", "mixed") or phase in found or not _INSTANCES.fullmatch(number):
            raise InputError(f"cannot read {text[:64]!r}", where="--instances", mend="write 4, or prefill=3,decode=1")
        found[phase] = int(number)
    return found
