"""``planner compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from planner.cli.common import format_option, hint, say_file
from planner.cli.html_report import check_html, html_option, write_comparison_html
from planner.cli.plan_options import problem_of, problem_options
from planner.cli.progress import working
from planner.cli.stopping import interrupts

if TYPE_CHECKING:
    from planner.comparison import Comparison


@click.command("compare")
@click.argument("model", required=False)
@click.argument("hardware", nargs=-1)
@click.option("--models", help="Models of a matrix, as A,B; goes with --hardware, in place of MODEL HARDWARE....")
@click.option("--hardware", "hardwares", help="Hardware of a matrix, as X,Y:2.")
@click.option(
    "--equal",
    type=click.Choice(["cost", "power"]),
    help="Let every row spend an hour (or draw, by stated power) what the first does; the planner counts systems.",
)
@problem_options
@html_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the comparison as JSON to this file.")
@click.option("--force", is_flag=True, help="Overwrite the files.")
@format_option
def command(
    model: str | None,
    hardware: tuple[str, ...],
    models: str | None,
    hardwares: str | None,
    equal: Literal["cost", "power"] | None,
    html: Path | None,
    output: Path | None,
    force: bool,
    form: str,
    **given: Any,
) -> int:
    """Plan MODEL on each HARDWARE and set the plans side by side: figures, ratios to the first, and how sure their order is.

    MODEL and HARDWARE as in planner plan; HARDWARE@RUNTIME gives a row a runtime of its own. A row without a plan says why
    and stops no other. Probabilities come from errors drawn together: rows share those of model, runtime and general prices,
    each kind of hardware has its own.

    \b
    Examples:
      planner compare deepseek-v4-pro h800-node:4 gb200-nvl72 cloudmatrix384
      planner compare deepseek-v3 h800-node:2@sglang atlas-800-a3:2@vllm-ascend
      planner compare deepseek-v3 h800-node:2 atlas-800-a3:2 --equal cost
      planner compare --models deepseek-v3,llama-3.1-70b --hardware h800-node:2,h100-node:2
    """
    import time

    from planner.api import compare
    from planner.cli.compare_view import print_comparison
    from planner.documents import check_target, write_whole
    from planner.search import Stop

    subjects, named = _asked(model, hardware, models, hardwares)
    folders, quiet, time_limit = given["folders"], given["quiet"], given["time_limit"]
    if output is not None:
        check_target(output, force=force)
    check_html(html, force=force, beside=output)
    for name in named if folders else ():
        for part in name.partition("@")[0].split(","):
            say_file(part.rpartition("=")[2], "node", folders)
    stop = Stop(None if time_limit is None else time.monotonic() + time_limit)
    with interrupts(stop):
        with working("loading", given["gap"]) as work:

            def beginning(done: int, rows: int, name: str) -> None:
                work.stage(f"{done + 1} of {rows}: {name}")

            found = compare(
                subjects,
                named,
                equal=equal,
                folders=folders,
                reporter=work,
                stop=stop,
                beginning=beginning,
                **problem_of(given, given["workloads"]),
            )
        if output is not None:
            write_whole(output, found.to_json(), force=force)
        if html is not None:
            write_comparison_html(html, found, force=force)
        if form == "json":
            click.echo(found.to_json(), nl=False)
        else:
            print_comparison(found)
    if not quiet:
        _hint(found)
    return _exit_code(found)


def _asked(
    model: str | None, hardware: tuple[str, ...], models: str | None, hardwares: str | None
) -> tuple[list[str], list[str]]:
    """Models and hardware, in either of the two forms."""
    if models is None and hardwares is None:
        if model is None or not hardware:
            raise click.UsageError(f"Missing argument '{'MODEL' if model is None else 'HARDWARE'}'.")
        return [model], list(hardware)
    if model is not None:
        raise click.UsageError("MODEL HARDWARE... and --models --hardware are two forms: use one.")
    if models is None or hardwares is None:
        raise click.UsageError("--models and --hardware go together.")
    return _parts("--models", models), _joined(_parts("--hardware", hardwares))


def _parts(option: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise click.UsageError(f"{option} has an empty name; write A,B.")
    return parts


def _joined(parts: list[str]) -> list[str]:
    """``prefill=X`` and the ``decode=Y`` after it (or the other way round) are one hardware."""
    found: list[str] = []
    for part in parts:
        before = found[-1] if found else ""
        mate = {"prefill=": "decode=", "decode=": "prefill="}.get(part[: part.find("=") + 1])
        if mate is not None and before.startswith(mate) and "," not in before:
            found[-1] = f"{before},{part}"
        else:
            found.append(part)
    return found


def _hint(found: Comparison) -> None:
    best = next((row for row in found.rows if row.rank == 1), None)
    if best is not None and best.plan is not None:
        runtime = f" --runtime {name}" if (name := best.hardware.partition("@")[2]) else ""
        hint(f"planner plan {best.model} {best.plan.hardware}{runtime} -o plan.json && planner explain plan.json")


def _exit_code(found: Comparison) -> int:
    if found.stopped == "interrupted":
        return 130
    if any(row.plan is not None for row in found.rows):
        return 0
    return 3 if any(row.status == "infeasible" for row in found.rows) else 5
