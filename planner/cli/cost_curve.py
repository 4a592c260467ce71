"""``planner cost curve``: how much of a prefix cache pays, by memory, along a workload's hit-rate curve."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import click

from planner.cli.common import Quantity, Range, echo_json, hint, new_table, number, print_table, say
from planner.cli.cost_memory import (
    Memories,
    basis_cell,
    copy_joules_per_bit,
    footer,
    layout_options,
    memory_options,
    small,
    stored_as,
)
from planner.cli.cost_rows import parts_of, priced, retention_row
from planner.errors import InputError

USUAL = ("hbm3e-36gb", "ddr5-rdimm-64gb", "nvme-tlc-gen5-30tb")
"""Memories of a table where none is named."""
USUAL_BASIS = "contract"
RATE = Quantity("per_s", "/s", "rate", 1e-9, 1e9)


@click.command("curve")
@click.argument("model")
@click.option("--workload", required=True, help="A workload with a prefix cache, by name or file; see planner workload.")
@click.option(
    "--recompute", type=Range(1e-9, 1e6), required=True, help="USD to compute a million input tokens: a plan's input_miss."
)
@click.option("--rate", type=RATE, default=1.0, help="Requests/s, by which every amount is multiplied; 1 by default.")
@layout_options
@memory_options
def curve(
    model: str,
    workload: str,
    recompute: float,
    rate: float,
    layout: str | None,
    kv_dtype: str | None,
    asked: Memories,
    form: str,
) -> None:
    """What each step along the hit-rate curve of a workload saves, what its room costs in each memory, and where it stops paying.

    Each memory is taken to hold the whole cache. Without --memory: HBM3e, DDR5 and a TLC drive at contract prices.

    \b
    Examples:
      planner cost curve deepseek-v3 --workload conversation --recompute 0.138
      planner cost curve deepseek-v3 --workload mine.toml --recompute 0.138 --memory nvme-tlc-gen5-30tb --rate 20/s
    """
    from planner.architecture import load_model
    from planner.economics.hit_curve import Keeping, best_point, worth_of_points
    from planner.workload import load_workload

    if layout is not None and kv_dtype is not None:
        raise click.UsageError("--layout and --kv-dtype exclude each other")
    subject, load = load_model(model), load_workload(workload)
    if load.prefix_cache is None:
        what = f"workload {load.id} has no prefix cache"
        raise InputError(what, where="--workload", mend="name one that has, or make one with planner workload fit TRACE")
    stored, each = stored_as(subject, load.reserved_tokens, layout, kv_dtype)
    assumed, copy = asked.assumed(), copy_joules_per_bit()
    usual = asked.basis or (None if asked.names else USUAL_BASIS)
    rows, unknown = [], []
    for part in priced(parts_of(asked.names or USUAL, asked.folders), asked.day, usual, None):
        row = retention_row(part, assumed, each, recompute, None, copy)
        keeping = Keeping(*(row[name] or 0.0 for name in _AMOUNTS))
        unknown += _unknown(row)
        points = worth_of_points(
            load.prefix_cache.points,
            keeping,
            requests_per_s=rate,
            input_tokens=load.input_tokens.mean,
            output_tokens=load.output_tokens.mean,
            recompute_usd_per_mtok=recompute,
        )
        steps = [
            {
                "tokens": point.tokens,
                "hit_rate": point.hit,
                "gb": point.tokens * each / 1e9,
                "keep_usd_per_hour": point.keep_usd_per_hour,
                "reload_usd_per_hour": point.reload_usd_per_hour,
                "saved_usd_per_hour": point.saved_usd_per_hour,
                "net_usd_per_hour": point.net_usd_per_hour,
                "gain_usd_per_hour": point.net_usd_per_hour - before.net_usd_per_hour,
                **_of_a_gb(point, before, each),
            }
            for before, point in pairwise(points)
        ]
        priced_at = {name: value for name, value in row.items() if name in _HEAD}
        rows.append({**priced_at, "best_point": best_point(points), "steps": steps})
    data = {
        "model": subject.id,
        "workload": load.id,
        "context": load.reserved_tokens,
        "layout": stored,
        "bytes_per_token": each,
        "requests_per_s": rate,
        "input_tokens_per_request": load.input_tokens.mean,
        "output_tokens_per_request": load.output_tokens.mean,
        "recompute_usd_per_mtok": recompute,
        "curve_source": load.prefix_cache.source,
        "assumptions": vars(assumed),
        "rows": rows,
    }
    if form == "json":
        echo_json(data)
        return
    _print(data)
    if unknown:
        say(f"not known, and not charged: {', '.join(dict.fromkeys(unknown))}")
    footer(rows, assumed)
    hint(f"planner plan {model} HARDWARE --workload {workload} chooses a point")


_AMOUNTS = {
    "room_usd_per_mtok_hour": "room",
    "electricity_usd_per_mtok_hour": "electricity",
    "write_usd_per_mtok": "wear",
    "reload_usd_per_mtok": "reload",
}
"""What a memory charges for, in the order of ``Keeping``."""


def _unknown(row: dict[str, Any]) -> list[str]:
    """What nothing is known of, of a memory that has it."""
    from planner.economics.classes import DOES_NOT_WEAR

    missing = [what for name, what in _AMOUNTS.items() if row[name] is None]
    return [f"{what} of {row['part']}" for what in missing if what != "wear" or row["tier"] not in DOES_NOT_WEAR]


_HEAD = (
    *("part", "tier", "origin", "status", "basis", "usd_per_gb", "usd_per_gb_low", "usd_per_gb_high"),
    *("price_as_of", "grade", "source"),
)


def _of_a_gb(point: Any, before: Any, bytes_per_token: float) -> dict[str, float]:
    """USD an hour that a further GB saves and costs on the way from one point to the next."""
    more = (point.tokens - before.tokens) * bytes_per_token / 1e9
    saved = (point.saved_usd_per_hour - point.reload_usd_per_hour) - (before.saved_usd_per_hour - before.reload_usd_per_hour)
    return {
        "gb_saves_usd_per_hour": saved / more,
        "gb_costs_usd_per_hour": (point.keep_usd_per_hour - before.keep_usd_per_hour) / more,
    }


def _print(data: dict[str, Any]) -> None:
    click.echo(
        f"{data['model']}, workload {data['workload']} at {number(data['requests_per_s'])} requests/s; USD an hour\n"
        f"computing again: {data['recompute_usd_per_mtok']:g} USD a million tokens; of a further GB in millionths\n"
    )
    for row in data["rows"]:
        best = row["steps"][row["best_point"] - 1]["gb"] if row["best_point"] else 0.0
        said = f"best at {number(best)} GB" if best else "no cache pays"
        title = f"{row['part']} ({row['tier']}, {basis_cell(row)}, {number(row['usd_per_gb'])} USD/GB): {said}"
        click.echo(title)
        table = new_table("", "GB", "found", "saves", "keeping", "left", "GB saves", "GB costs", "pays")
        for step in row["steps"]:
            cells = [number(step["gb"]), f"{step['hit_rate']:.1%}"]
            cells += [_signed(step[f"{key}_usd_per_hour"]) for key in ("saved", "keep", "net")]
            cells += [_signed(step[f"gb_{key}_usd_per_hour"], 1e6) for key in ("saves", "costs")]
            table.add_row(*cells, "yes" if step["gain_usd_per_hour"] > 0.0 else "no")
        print_table(table)
    click.echo("GB saves, costs: on the way from the point above; below 0 where fewer misses wear a drive")
    click.echo(f"curve: {data['curve_source']}")


def _signed(value: float, scale: float = 1.0) -> str:
    return f"-{small(-value, scale)}" if value < 0 else small(value, scale)
