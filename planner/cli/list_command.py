"""``planner list``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner.cli.common import echo_json, format_option, new_table, print_table

KINDS = ("hardware", "models", "workloads", "runtimes", "prices", "exporters", "plugins")


def _rows(kind: str, origin: str | None, folders: tuple[Path, ...]) -> list[dict[str, Any]]:
    if kind == "hardware":
        from planner.hardware import list_hardware

        return [
            {k: list(v) if isinstance(v, tuple) else v for k, v in item.model_dump().items() if v not in ("", ())}
            for item in list_hardware(origin=origin, folders=folders, kinds=("device", "node", "rack"))
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
        from planner.runtimes import RUNTIMES

        return [{"id": r.id, "name": r.name, "as_of": str(r.as_of)} for r in RUNTIMES]
    if kind == "prices":
        from planner.prices import PRICES

        return [{"id": p.id, "currency": p.currency, "as_of": str(p.as_of)} for p in PRICES]
    if kind == "exporters":
        return []
    from planner.plugins import GROUPS, registry

    found = []
    for group in sorted(GROUPS):
        entries = registry(group)
        entries.load_all()  # a package is ready if it loads, not if it says so
        if group == "planner.hardware":
            from planner.hardware import list_hardware

            list_hardware()
        broken = {fault.name: fault.reason for fault in entries.faults()}
        found += [{"id": name, "group": group, "status": "ready"} for name in entries.names() if name not in broken]
        found += [{"id": name, "group": group, "status": f"broken: {reason}"} for name, reason in broken.items()]
    return found


@click.command("list")
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--origin", type=click.Choice(["domestic", "western"]), help="Only hardware of this origin.")
@click.option(
    "--profiles", "folders", multiple=True, type=click.Path(path_type=Path), help="A folder of hardware profiles, searched first."
)
@format_option
def command(kind: str, origin: str | None, folders: tuple[Path, ...], form: str) -> None:
    """List what can be named.

    Example: planner list hardware --origin domestic
    """
    if origin and kind != "hardware":
        raise click.UsageError("--origin goes with hardware")
    rows = _rows(kind, origin, folders)
    if form == "json":
        echo_json(rows)
        return
    if not rows:
        click.echo(f"no {kind} installed")
        return
    columns = [key for key in rows[0] if key != "aliases"]
    table = new_table(kind, *columns)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    print_table(table)
