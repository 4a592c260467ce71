"""``planner calibrate``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from planner.cli.common import echo_json, format_option, hint
from planner.cli.progress import working


@click.command("calibrate")
@click.argument("points", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the calibration (TOML) to this file, not to stdout.")
@click.option("--name", metavar="ID", help="Name that plans give to the calibration; the file's own unless said.")
@click.option("--source", metavar="TEXT", help="Where the points come from, with their licence.")
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="DATE",
    help="Day the points were measured; needed but for the built-in points.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Write scores, coverage and residuals as JSON to this file.")
@click.option("--force", is_flag=True, help="Overwrite the files.")
@format_option
def command(
    points: Path,
    output: Path | None,
    name: str | None,
    source: str | None,
    as_of: datetime | None,
    report: Path | None,
    force: bool,
    form: str,
) -> None:
    """Fit the figures of runtimes to measured times in POINTS.csv.

    A runtime needs 30 points or more. What is measured on few points inherits from the rest. The report scores the fit by
    what it was not shown: it is fitted anew without each system, model, runtime, generation of devices and fifth of the
    configurations. The same points give the same file. A calibration stands in for the built-in one: figures that these
    points do not tell are class defaults. To add points to the built-in ones, append them to a copy of
    planner/accuracy/points/continuous.csv.

    \b
    Examples:
      planner calibrate my-points.csv --as-of 2026-11-22 -o mine.toml
      planner plan deepseek-v3 h200-node:2 --runtime sglang --calibration mine.toml
    """
    from planner.accuracy.job import calibrate_file
    from planner.documents import check_target, write_whole
    from planner.plans.numbers import canonical, to_json
    from planner.runtimes.calibration_text import to_toml

    for target in (output, report):
        if target is not None:
            check_target(target, force=force)
    if output is not None and report is not None and output.absolute() == report.absolute():
        raise click.UsageError("-o and --report name the same file.")
    with working("fitting"):
        job = calibrate_file(points, name=name, source=source, as_of=None if as_of is None else as_of.date())
    text = to_toml(job.calibration)
    if output is not None:
        write_whole(output, text, force=force)
    if report is not None:
        write_whole(report, to_json(canonical(job.report)), force=force)
    if output is None and form == "table":
        click.echo(text, nl=False)
        return
    if form == "json":
        found = job.calibration.model_dump(mode="json", by_alias=True)
        echo_json({"calibration": found, "report": job.report})
        return
    from planner.cli.accuracy_view import print_report

    print_report(job.report)
    if job.skipped:
        click.echo(f"{len(job.skipped)} rows were no points: planner validate {points} says why", err=True)
    hint(f"planner validate {points} --calibration {output}")
