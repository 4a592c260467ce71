"""``planner list``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import (
    UNBOUNDED,
    echo_json,
    fit_columns,
    format_option,
    hint,
    new_table,
    print_table,
    profiles_option,
    terminal_width,
)
from planner.quantities import plain, readable

if TYPE_CHECKING:
    from planner.hardware.schema import Rent

KINDS = ("hardware", "models", "workloads", "runtimes", "prices", "exporters", "plugins")
HARDWARE_KINDS = ("device", "node", "rack", "memory", "interconnect", "site")
MACHINES = HARDWARE_KINDS[:3]
"""What is listed unless ``--kind`` asks for something else."""


def _rows(kind: str, origin: str | None, folders: tuple[Path, ...], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    if kind == "hardware":
        from planner.hardware import list_hardware

        return [
            {
                key: list(value) if isinstance(value, tuple) else value
                for key, value in item.model_dump().items()
                if value not in ("", (), None)
                and not (key == "devices" and item.kind in HARDWARE_KINDS and item.kind not in MACHINES)
            }
            for item in list_hardware(origin=origin, folders=folders, kinds=kinds or MACHINES)
        ]
    if kind == "models":
        from planner.architecture import list_models

        return [{"id": m.id, "name": m.name, "aliases": list(m.aliases), "as_of": str(m.as_of)} for m in list_models()]
    if kind == "workloads":
        from planner.workload import WORKLOADS

        return [
            {
                "id": w.id,
                "name": w.name,
                "input_tokens": w.input_tokens.mean,
                "output_tokens": w.output_tokens.mean,
                "prefix_hit": w.prefix_hit,
                "ttft_ms": None if w.ttft_s is None else w.ttft_s * 1e3,
                "tpot_ms": None if w.tpot_s is None else w.tpot_s * 1e3,
            }
            for w in WORKLOADS
        ]
    if kind == "runtimes":
        from planner.runtimes import RUNTIMES, load_runtime

        fitted = {r.id: load_runtime(r.id).calibrated for r in RUNTIMES}
        return [
            {
                "id": r.id,
                "name": r.name,
                "version": r.version,
                "admission": r.admission or "",
                "offload": ", ".join(r.offload),
                "calibration": getattr(fitted[r.id], "calibration", "").removeprefix("planner calibrate: "),
                "as_of": str(r.as_of),
            }
            for r in RUNTIMES
        ]
    if kind == "prices":
        from planner.hardware.loader import list_rents
        from planner.prices import PRICES
        from planner.prices.sheets import SHEETS

        listed = [("basis", p.id, p.currency, p.as_of) for p in PRICES] + [("sheet", p.id, p.currency, p.as_of) for p in SHEETS]
        rows = [{"id": i, "kind": sort, "currency": currency, "as_of": str(as_of)} for sort, i, currency, as_of in listed]
        return rows + [_rent(name, rent) for name, rent in list_rents(folders)]
    from planner.plugins import GROUPS, registry

    if kind == "exporters":
        return [{"id": name} for name in registry("planner.exporters").names()]

    _check_packs()
    found = []
    for group in sorted(GROUPS):
        entries = registry(group)
        entries.load_all()  # a package is ready if it loads, not if it says so
        broken = {fault.name: fault.reason for fault in entries.faults()}
        found += [{"id": name, "group": group, "status": "ready"} for name in entries.names() if name not in broken]
        found += [{"id": name, "group": group, "status": f"broken: {reason}"} for name, reason in broken.items()]
    return found


def _rent(name: str, rent: Rent) -> dict[str, Any]:
    """An offer as a row among prices."""
    figure = rent.usd_per_hour
    row: dict[str, Any] = {"id": name, "kind": rent.basis, "currency": "USD", "as_of": str(figure.as_of)}
    row |= {"usd_per_hour": figure.value, "per": rent.per, "provider": rent.provider, "grade": figure.grade}
    return row | {"low": figure.low, "high": figure.high, "source": figure.source}


def _check_packs() -> None:
    """Look at what other packages offer, so that its faults are on record."""
    from contextlib import suppress

    from planner.errors import InputError
    from planner.export.exporters import exporter, exporter_names
    from planner.hardware.loader import check_packs
    from planner.prices import PRICES
    from planner.runtimes import RUNTIMES
    from planner.workload import WORKLOADS

    check_packs()
    for catalogue in (PRICES, RUNTIMES, WORKLOADS):
        list(catalogue)
    for name in exporter_names():
        with suppress(InputError):
            exporter(name)


HARDWARE_COLUMNS = {
    "id": 0,
    "kind": 4,
    "usable": 9,
    "USD/GB": 12,
    "vendor": 8,
    "origin": 8,
    "status": 9,
    "devices": 7,
    "device": 12,
    "name": 16,
    "fault": 24,
}
"""Columns of hardware in the order of use, with the width below which one is left out."""


def _print_hardware(rows: list[dict[str, Any]]) -> None:
    """One line a profile, as wide as the terminal; nothing is cut where the output is no terminal."""
    rows = [row | _memory(row) for row in rows]
    given = {name: least for name, least in HARDWARE_COLUMNS.items() if any(name in row for row in rows)}
    cells = [[str(row.get(name, "")) for name in given] for row in rows]
    width = terminal_width(UNBOUNDED)
    names, cut = fit_columns(cells, given, width)
    table = new_table("hardware", *names)
    for column in table.columns:
        column.no_wrap = True
    for row in cut:
        table.add_row(*row)
    print_table(table, width)
    if len(names) < len(given):
        out = ", ".join(list(given)[len(names) :])
        click.echo(f"left out for want of width: {out}; COLUMNS=200 or --format json has them", err=True)


def _memory(row: dict[str, Any]) -> dict[str, str]:
    """Capacity and newest price of a memory part, as cells."""
    cells = {}
    if "usable_bytes" in row:
        cells["usable"] = readable(row["usable_bytes"], "bytes")
    if "usd_per_gb" in row:
        cells["USD/GB"] = f"{plain(row['usd_per_gb'])} {row['price_basis']} {row['price_as_of'][:7]}"
    return cells


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--origin", type=click.Choice(["domestic", "western"]), help="Only hardware of this origin.")
@profiles_option
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(HARDWARE_KINDS), help="Only hardware of this kind; may be repeated."
)
@format_option
def command(kind: str, origin: str | None, folders: tuple[Path, ...], kinds: tuple[str, ...], form: str) -> None:
    """List what can be named.

    \b
    Examples:
      planner list models
      planner list hardware --origin domestic --kind memory
    """
    if origin and kind != "hardware":
        raise click.UsageError("--origin goes with hardware")
    if kinds and kind != "hardware":
        raise click.UsageError("--kind goes with hardware")
    rows = _rows(kind, origin, folders, kinds)
    if form == "json":
        echo_json(rows)
        return
    if not rows:
        click.echo(f"no {kind} installed")
        return
    if kind == "hardware":
        _print_hardware(rows)
        return
    rents = [row for row in rows if "per" in row]
    _print_rows(kind, [row for row in rows if "per" not in row], ("aliases",))
    if rents:
        _print_rows("rents", rents, ("currency", "low", "high", "source"), whole=4)
    if kind == "prices":
        hint("planner list hardware --kind memory has the newest USD/GB of memories, planner show hardware NAME all of them")


def _print_rows(title: str, rows: list[dict[str, Any]], but: tuple[str, ...], whole: int = 1) -> None:
    """A table of rows; its first ``whole`` columns are not wrapped."""
    columns = [key for key in rows[0] if key not in but]
    table = new_table(title, *columns)
    for column in table.columns[:whole]:
        column.no_wrap = True
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    print_table(table)
