"""How ``planner cost whatif`` looks."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import click

from planner.cli.common import new_table, number, print_table, say, terminal_width
from planner.cli.part_view import numbered


def print_whatif(data: dict[str, Any]) -> None:
    """What ``planner cost whatif --format json`` says, as tables and lines."""

    money = data["currency"]
    table = new_table(
        f"{data['model']}, workload {data['workload']}: elasticity of {money} per million tokens",
        *("hardware", "price", f"capital, {money}", f"{money}/h", "input", "output", "all", "change"),
    )
    for row in data["lines"]:
        each = row["elasticity"]
        shares = [f"{each[name]:.3f}".replace("-0.000", "0.000") for name in ("input", "output", "blended")]
        change = f"{row['change'] * 100:+.4g}%" if row["change"] else "-"
        table.add_row(row["hardware"], row["price"], number(row["capex_usd"]), number(row["usd_per_hour"]), *shares, change)
    print_table(table)
    labels = {"input_hit": "cached input", "input_miss": "input", "output": "output", "blended": "all"}
    costs = new_table(f"{money} per million tokens", "stream", "planned", "at these prices", "change")
    for name, label in labels.items():
        before, after = data["usd_per_million"][name], data["usd_per_million_changed"][name]
        moved = "-" if not before else f"{(after / before - 1.0) * 100:+.2f}%"
        costs.add_row(label, number(before), number(after), moved)
    print_table(costs)
    if data["against"] is not None:
        _print_against(data)
    if data["scenario"] is not None:
        told = data["scenario"]
        click.echo("\n".join(wrap(f"{told['id']}: {told['note']}", terminal_width())))
        say(f"source of {told['id']}: {told['source']}")
    say("an elasticity of 0.2: a price 1 % higher makes the tokens 0.2 % dearer; the deployment stays as planned")
    for note in data["notes"]:
        say(f"note: {note}")
    rows = {
        f"{row['kind']}: {row['part']} at {number(row['usd_per_gb'])} USD/GB, {row['basis']} of {row['as_of']}, "
        f"grade {row['grade']}: {row['source']}": index
        for index, row in enumerate(data["memory_prices"], 1)
    }
    if rows:
        click.echo("\n".join(["usable memory is counted at", *numbered(rows, terminal_width())]))


def _print_against(data: dict[str, Any]) -> None:
    other, money = data["against"], data["currency"]
    name = " and ".join(dict.fromkeys(other["hardware"]))
    say(f"against {name}: {number(other['usd_per_million'])} {money} per million, this plan {other['ratio']:.3f} times that")
    for row in other["units"]:
        sold = f"{row['hardware']}, {row['devices_per_unit']} device{'s' if row['devices_per_unit'] > 1 else ''} a unit"
        now = f"{number(row['unit_usd'])} {money}{' an hour' if other['what'] == 'rent' else ''} at these prices"
        if row["break_even_unit_usd"] is None:
            say(f"{sold}: {now}; its electricity or colocation alone costs as much, so no price breaks even")
        else:
            even = f"{number(row['break_even_unit_usd'])} ({number(row['break_even_device_usd'])} a device)"
            say(f"{sold}: {now}; breaks even at {even}, {other['break_even_scale']:.3f} times as much")
