"""What moves when a plan takes over from another, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.common import new_table, number, print_table

if TYPE_CHECKING:
    from planner.plans.schema import Transition


def print_transition(transition: Transition, unit: str) -> None:
    """What moves and from where, then one line an alternative; ``unit``: of the objective."""
    total = transition.bytes + transition.kept_bytes
    parts = [f"{size / 1e9:.2f} GB from {source}" for source, size in transition.by_source.items() if size]
    click.echo(
        f"taking over: {transition.bytes / 1e9:.2f} of {total / 1e9:.2f} GB move"
        + (f" ({', '.join(parts)}), {_time(transition.seconds)}" if parts else "")
        + "; caches do not: running requests are served to the end"
    )
    state = f" (stopped: {transition.stopped})" if transition.stopped else ""
    table = new_table(
        f"alternatives by bytes moved{state}", "", "alternative", "GB moved", "time", unit, "bound", "gap", "devices"
    )
    for row in transition.alternatives:
        mark = "*" if row.name == transition.chosen else ""
        devices = "+".join(str(pool.devices) for pool in row.pools)
        cells = (f"{row.bytes / 1e9:.2f}", _time(row.seconds), f"{row.objective:.5g}", f"{row.bound:.5g}", f"{row.gap:.3%}")
        table.add_row(mark, row.name, *cells, devices)
    print_table(table)


def _time(seconds: float | None) -> str:
    return "time unknown: no network is described" if seconds is None else f"{number(seconds)} s"
