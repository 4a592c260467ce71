"""``planner validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner.cli.common import Range, echo_json, format_option, hint, verdict
from planner.cli.progress import working


@click.command("validate")
@click.argument("points", required=False, type=click.Path(path_type=Path))
@click.option(
    "--rows", type=click.Path(path_type=Path), help="Write a line for every point: CSV, or JSON lines to a .jsonl file."
)
@click.option(
    "--max-median-ape",
    type=Range(0, 1e6),
    metavar="F",
    help="Exit with 4 if the median error of TPOT over all points that were answered is larger; 0.1 is 10 %.",
)
@click.option(
    "--runtime",
    metavar="NAME",
    help="Predict every row with this runtime in place of its own; with first-principles nothing is fitted.",
)
@click.option("--calibration", type=click.Path(path_type=Path), help="Use this calibration in place of the built-in one.")
@click.option("--left-out", is_flag=True, help="Print the stored scores of what the built-in calibration was not fitted to.")
@click.option("--force", is_flag=True, help="Overwrite the file of --rows.")
@format_option
def command(
    points: Path | None,
    rows: Path | None,
    max_median_ape: float | None,
    runtime: str | None,
    calibration: Path | None,
    left_out: bool,
    force: bool,
    form: str,
) -> int:
    """Score predictions against measured times.

    Without POINTS.csv against the built-in points of the public continuous benchmark, and published deployments; with it
    against those of the file, in planner's own columns or the benchmark's. Rows that are no points are skipped with a reason
    and counted. Errors (APE) are |predicted / measured - 1|; TPOT is the time per output token, TTFT that to the first.

    \b
    Examples:
      planner validate
      planner validate my-points.csv --rows predicted.csv
      planner validate --runtime first-principles --format json
    """
    from planner.accuracy.validation import rows_text, stored_report, validate
    from planner.cli.accuracy_view import print_report, print_validation
    from planner.documents import check_target, write_whole

    if left_out:
        given = (points, rows, max_median_ape, runtime, calibration)
        if any(value is not None for value in given):
            raise click.UsageError("--left-out prints what is stored and goes with --format alone.")
        report = stored_report()
        if form == "json":
            echo_json(report)
        else:
            print_report(report)
            hint("planner validate scores the built-in calibration on its points")
        return 0
    if rows is not None:
        check_target(rows, force=force)
    with working("predicting"):
        done = validate(points, runtime, calibration)
    if rows is not None:
        write_whole(rows, rows_text(done, json_lines=rows.suffix.lower() == ".jsonl"), force=force)
    missed = _missed(done.data["tpot"], max_median_ape)
    with verdict(4 if missed else 0):
        if form == "json":
            echo_json(done.data)
        else:
            print_validation(done.data)
    if missed:
        click.echo(missed, err=True)
    elif form == "table":
        hint("planner validate --left-out" if points is None else f"planner calibrate {points} --as-of DATE -o calibration.toml")
    return 4 if missed else 0


def _missed(tpot: dict[str, Any], limit: float | None) -> str:
    """How ``--max-median-ape`` was missed, if it was; no point answered misses every limit."""
    if limit is None or (tpot["median_ape"] is not None and tpot["median_ape"] <= limit):
        return ""
    found = "no point has a TPOT" if tpot["median_ape"] is None else f"the median error of TPOT is {tpot['median_ape']:.2%}"
    return f"missed: {found}, --max-median-ape allows {limit:.2%}"
