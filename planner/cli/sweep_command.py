"""``planner sweep``."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from planner.cli.common import echo_json, format_option, hint, profiles_option


@click.command("sweep")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option(
    "--executor",
    default="process",
    show_default=True,
    help="process or thread of this machine, serial: this process alone, dask: workers of a Dask cluster (extra dask), or what "
    "an installed package offers.",
)
@click.option("--scheduler", metavar="ADDRESS", help="With --executor dask: where it listens, as tcp://HOST:8786.")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes or threads; one for each core if left out.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Results: a .jsonl, .csv or .parquet file (the last: extra parquet)."
)
@click.option("--plans", type=click.Path(path_type=Path), help="A folder to keep the plan of every point in, POINT.json.")
@click.option("--resume", is_flag=True, help="Take from the results of another sweep what is right for this one; drop the rest.")
@click.option("--force", is_flag=True, help="Plan every point anew and overwrite what is there.")
@click.option("--retry-errors", "retry", is_flag=True, help="Plan points again whose rows say error or stopped.")
@click.option("--dry-run", is_flag=True, help="Read everything, say how many points there are, and plan none.")
@profiles_option
@format_option
def command(
    spec: Path,
    executor: str,
    scheduler: str | None,
    workers: int | None,
    output: Path | None,
    plans: Path | None,
    resume: bool,
    force: bool,
    retry: bool,
    dry_run: bool,
    folders: tuple[Path, ...],
    form: str,
) -> int:
    """Plan every point of SPEC, a TOML file: a grid of models, hardware, workloads, prices and whatever planner plan takes.

    A point that fails is a row that says why. Interrupted by anything, the same command goes on where it was.

    \b
    Examples:
      planner init sweep sweep.toml
      planner sweep sweep.toml
      planner sweep sweep.toml -o results.csv --plans plans
      planner sweep sweep.toml -o r.csv --executor dask --scheduler tcp://HOST:8786
    """
    from planner.cli.sweep_view import running, show
    from planner.sweep import Asked, Sweep

    if resume and force:
        raise click.UsageError("--resume and --force exclude each other.")
    if output is None and (resume or force or retry):
        raise click.UsageError("--resume, --force and --retry-errors need results to look at: give -o.")
    sweep = Sweep(spec, folders)
    if dry_run:
        if form == "json":
            echo_json({"sweep": sweep.id, "points": len(sweep.ids)})
        else:
            click.echo(f"{len(sweep.ids):,} points; exclude takes out {sweep.spec.combinations - len(sweep.ids):,}")
        return 0
    asked = Asked(executor, scheduler, workers, resume, force, retry, plans, folders)
    with ExitStack() as stack:
        place = output
        if place is None:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="planner-sweep-")), "results.jsonl")
        with running(output, executor) as progress:
            summary = sweep.run(place, asked, progress)
        best = show(sweep, place, summary, form, with_rows=output is None)
    if output is None:
        hint(shlex.join(["planner", "sweep", str(spec), "-o", "results.jsonl"]))
    elif best:
        hint(f"{best} -o plan.json")
    return 0
