"""``planner sweep``: progress while it runs, then counts and the best rows."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.common import echo_json, fit_columns, new_table, number, print_table, terminal_width
from planner.cli.progress import Work, working
from planner.cli.terminal import redraws, terminal
from planner.sweep import Progress, Summary, Sweep, rows_of
from planner.sweep.axes import AXES

if TYPE_CHECKING:
    from planner.sweep.rows import Row

EVERY_S = 60.0
"""Between two lines where nothing can be drawn again."""
MOST_SHOWN = 20
_RESULTS = {
    "usd_per_mtok": "USD/Mtok",
    "output_tokens_per_s_per_device": "tok/s/device",
    "ttft_ms": "TTFT ms",
    "tpot_ms": "TPOT ms",
    "devices_paid": "devices",
    "gap": "gap",
}


class _Shown(Progress):
    """A bar on a terminal, elsewhere a line a minute: done, rate, time left."""

    def __init__(self, work: Work) -> None:
        self.work, self.points, self.kept, self.status = work, 0, 0, Counter[str]()
        self.since = self.said = time.monotonic()

    def started(self, points: int, kept: int) -> None:
        """Rates count what is planned now."""
        self.points, self.kept = points, kept
        self.since = self.said = time.monotonic()
        if kept and kept < points and not terminal().quiet:
            click.echo(f"{kept:,} of {points:,} points are there already", err=True)

    def advanced(self, status: Counter[str]) -> None:
        """Draw it, or say it if it is time."""
        self.status, now = status, time.monotonic()
        done = status.total()
        self.work.part(done, self.points, self._pace(done, now))
        if now - self.said >= EVERY_S and not redraws(sys.stderr) and not terminal().quiet:
            self.said = now
            click.echo(f"{done:,} of {self.points:,} points, {self._pace(done, now)}", err=True)

    def _pace(self, done: int, now: float) -> str:
        rate = (done - self.kept) / max(now - self.since, 1e-9)
        left = f", {_duration((self.points - done) / rate)} left" if rate else ""
        failed = done - self.status["ok"]
        return f"{number(rate)}/s{left}" + (f", {failed:,} not ok" if failed else "")


def _duration(seconds: float) -> str:
    """``1:02:03``."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _hush(package: str) -> None:
    """What a package logs of lost workers is told in rows and messages; it sets its levels when it is loaded."""
    with suppress(ImportError):
        import_module(package)
    for name in [package, *logging.root.manager.loggerDict]:
        if name.partition(".")[0] == package:
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def running(output: Path | None, executor: str) -> Iterator[Progress]:
    """Show how the sweep inside goes; where it is stopped, say what is kept and leave with 130."""
    if executor == "dask":
        _hush("distributed")
    with working("sweep") as work:
        shown = _Shown(work)
        try:
            yield shown
        except KeyboardInterrupt:
            work.close()
            count = f"{shown.status.total() or shown.kept:,} of {shown.points:,} points"
            there = f"are kept in {output}.journal: the same command goes on"
            told = f"{count} {there if output else 'were done, and none is kept without -o'}"
            click.echo(f"planner: stopped; {told}", err=True)
            raise click.exceptions.Exit(130) from None


def show(sweep: Sweep, results: Path, summary: Summary, form: str, *, with_rows: bool) -> str:
    """Counts, and the best rows for people, or all of them for programs if asked for. The command of the best row, if any."""
    if form == "json":
        found = {"sweep": summary.sweep, "points": summary.points, "kept": summary.kept, "damaged": summary.damaged}
        echo_json({**found, "status": summary.status, "rows": rows_of(results) if with_rows else None})
        return ""
    rows, first = rows_of(results), ""
    for objective, text in (
        ("cost", "cost: least first"),
        ("throughput", "throughput: most first"),
        ("latency", "latency: least first"),
    ):
        best = _best(rows, objective)
        if best:
            _print(sweep, best, text)
            first = first or str(best[0]["command"])
    for row in [row for row in rows if row["status"] != "ok"][:3]:
        click.echo(f"{row['status']}: {row['command']}: {str(row['message'])[:200]}")
    told = [f"{count:,} {name}" for name, count in summary.status.items() if count]
    before = f"; {summary.kept:,} of them were there before" if summary.kept else ""
    click.echo(f"{summary.points:,} points: {', '.join(told)}{before}")
    if summary.damaged:
        click.echo(f"note: {summary.damaged:,} lines of the journal held no row and were planned again", err=True)
    return first


def _best(rows: list[Row], objective: str) -> list[Row]:
    """Rows of an objective, the best first."""
    sign = -1.0 if objective == "throughput" else 1.0
    mine = [row for row in rows if row["status"] == "ok" and (row["objective"] or "cost") == objective]
    return sorted(mine, key=lambda row: sign * float(row["objective_value"] or 0.0))


def _print(sweep: Sweep, rows: list[Row], title: str) -> None:
    """The axes that vary and the main results, as many columns as fit."""
    varied = [name for name, values in sweep.spec.axes.items() if len(values) > 1 and name != "objective"]
    keys = {name: AXES[name].key if name in AXES else name for name in varied}
    cells = [[*(_cell(row[key]) for key in keys.values()), *(_cell(row[key]) for key in _RESULTS)] for row in rows[:MOST_SHOWN]]
    names = [*keys, *_RESULTS.values()]
    columns, cut = fit_columns(cells, {name: max(len(name), 8) for name in names}, terminal_width())
    more = f"; {len(rows) - MOST_SHOWN:,} more" if len(rows) > MOST_SHOWN else ""
    table = new_table(f"{title}{more}", *columns)
    for line in cut:
        table.add_row(*line)
    print_table(table)


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else "-" if value is None else str(value)
