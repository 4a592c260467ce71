"""``planner cost retention`` and ``planner cost tiers``: memory parts at their dated prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import (
    TOKENS,
    Day,
    Quantity,
    Range,
    echo_json,
    format_option,
    hint,
    new_table,
    number,
    print_table,
    profiles_option,
    say,
    terminal_width,
)
from planner.cli.cost_rows import BASES, Assumptions, assume, parts_of, priced, retention_row, tier_row
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.architecture import Model

PRICE = Quantity("usd_per_gb", "USD/GB", "price", 1e-6, 1e6)
DEVICE_MEMORY = "hbm3-16gb"
"""The part that stands for the device memory into which a reload is written."""


def basis_cell(row: dict[str, Any]) -> str:
    return f"{row['basis']} {(row['price_as_of'] or '')[:7]} {row['grade']}".replace("  ", " ")


def footer(rows: list[dict[str, Any]], assumed: Assumptions) -> None:
    from planner.cli.part_view import numbered

    say(
        f"an hour: {assumed.cost_of_capital:.1%} cost of capital over {assumed.life_years:g} years; "
        f"{assumed.usd_per_kwh:g} USD/kWh at PUE {assumed.pue:g}"
    )
    announced = dict.fromkeys(row["part"] for row in rows if row["status"] == "announced")
    if announced:
        say(f"announced, not to be had yet: {', '.join(announced)}")
    sources = {source: index for index, source in enumerate(dict.fromkeys(row["source"] for row in rows), 1)}
    click.echo("\n".join(["sources of the prices", *numbered(sources, terminal_width())]))


def _hours(value: float | None) -> str:
    if value is None:
        return "-"
    return "never" if value == 0.0 else f"{value:,.0f} h" if value >= 100 else f"{value:.3g} h"


def small(value: float | None, scale: float = 1.0) -> str:
    """Three digits, whole from a hundred up."""
    if value is None:
        return "-"
    return f"{value * scale:,.0f}" if value * scale >= 100 else f"{value * scale:.3g}"


@dataclass(frozen=True)
class Memories:
    """Which memories a command is asked about, and at which prices: what ``memory_options`` say."""

    names: tuple[str, ...]
    basis: str | None
    day: date | None
    life: float | None
    capital: float | None
    usd_per_kwh: float | None
    folders: tuple[Path, ...]

    def assumed(self) -> Assumptions:
        """How their prices become an hour."""
        return assume(self.life, self.capital, self.usd_per_kwh)


_OPTIONS = (
    click.option("--memory", "names", multiple=True, help="A memory part; all that have a price by default."),
    click.option("--basis", type=click.Choice(BASES), help="Only prices of this kind."),
    click.option("--date", "day", type=Day(), help="The newest prices at or before this date; the newest of all by default."),
    click.option("--life", type=Range(0.1, 50), help="Years until it is worth nothing; as the basis owned by default."),
    click.option("--cost-of-capital", "capital", type=Range(0, 1), help="Per year; as the basis owned by default."),
    click.option("--usd-per-kwh", type=Range(0, 10), help="Electricity; as the basis owned by default."),
    profiles_option,
    format_option,
)


def memory_options(function: Any) -> Any:
    """Options of a command on memories; it is called with ``asked: Memories`` and the ``form`` of its output."""

    @wraps(function)
    def command(**given: Any) -> Any:
        asked = Memories(**{name: given.pop(name) for name in Memories.__dataclass_fields__})
        return function(asked=asked, **given)

    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_LAYOUT = (
    click.option("--layout", help="How cache entries are stored; see planner kv."),
    click.option("--kv-dtype", help="The first layout of this dtype, such as fp8."),
)


def layout_options(function: Any) -> Any:
    """How the cache of a model is stored."""
    for option in reversed(_LAYOUT):
        function = option(function)
    return function


def stored_as(subject: Model, tokens: int, layout: str | None, kv_dtype: str | None) -> tuple[str, float]:
    """The layout asked for, and the bytes it takes of a token in a sequence of so many."""
    from planner.cli.kv_command import layout_of

    stored = layout_of(subject, layout, kv_dtype)
    each = subject.cache_bytes(tokens, stored) / tokens
    if not each:
        raise InputError(f"{subject.id} keeps no cache", where="MODEL", mend="name a model that does")
    return stored, each


def copy_joules_per_bit() -> float:
    """Energy of the write into device memory that a reload is charged for."""
    from planner.hardware import MemoryPart, load_part

    device = load_part(DEVICE_MEMORY)
    assert isinstance(device, MemoryPart) and device.energy is not None
    return device.energy.value


@click.command("tiers")
@memory_options
def tiers(asked: Memories, form: str) -> None:
    """Memory parts by price and date: room, bandwidth, energy and wear for the money. Bases of price are never mixed.

    \b
    Examples:
      planner cost tiers --basis contract
      planner cost tiers --basis contract --date 2026-06-30
    """
    assumed = asked.assumed()
    rows = [tier_row(row, assumed) for row in priced(parts_of(asked.names, asked.folders), asked.day, asked.basis, None)]
    rows.sort(key=lambda row: (row["tier"], row["part"], row["basis"]))
    if form == "json":
        echo_json({"assumptions": vars(assumed), "rows": rows})
        return
    columns = ("memory", "tier", "price", "USD/GB", "room", "power", "written", "MB/s", "pJ/bit", "DWPD")
    title = "millionths of a USD: a GB of room and of power for an hour, a GB written; MB/s read for a USD"
    table = new_table(title, *columns)
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(
            row["part"],
            row["tier"],
            basis_cell(row),
            number(row["usd_per_gb"]),
            small(row["capital_usd_per_gb_hour"], 1e6),
            small(row["electricity_usd_per_gb_hour"], 1e6),
            small(row["usd_per_gb_written"], 1e6),
            small(row["read_gb_per_s_per_usd"], 1e3),
            number(row["read_pj_per_bit"]),
            number(row["dwpd"]),
        )
    print_table(table)
    footer(rows, assumed)
    hint("planner cost retention MODEL --recompute USD_PER_MTOK")


@click.command("retention")
@click.argument("model")
@click.option("--context", type=TOKENS, help="Tokens of a sequence; as many as the model allows by default.")
@layout_options
@click.option("--recompute", type=Range(1e-9, 1e6), help="USD to compute a million input tokens again: adds the break-even.")
@click.option("--prefill-rate", type=Range(1e-3, 1e12), help="Input tokens/s computed: adds how many units load faster.")
@click.option("--usd-per-gb", "given", type=PRICE, help="A price in place of the dated ones, for the parts of --memory.")
@memory_options
def retention(
    model: str,
    context: float | None,
    layout: str | None,
    kv_dtype: str | None,
    recompute: float | None,
    prefill_rate: float | None,
    given: float | None,
    asked: Memories,
    form: str,
) -> None:
    """How long a cached million tokens is worth keeping in each memory, against computing it again.

    \b
    Examples:
      planner cost retention deepseek-v3 --recompute 0.138
      planner cost retention deepseek-v4-pro --kv-dtype fp8 --recompute 0.138 --memory nvme-tlc-gen5-30tb
    """
    from planner.architecture import load_model

    if layout is not None and kv_dtype is not None:
        raise click.UsageError("--layout and --kv-dtype exclude each other")
    if given is not None and (not asked.names or asked.basis is not None or asked.day is not None):
        raise click.UsageError("--usd-per-gb goes with --memory, and without --basis and --date")
    subject = load_model(model)
    tokens = subject.max_context if context is None else int(context)
    if context is not None and context != tokens:
        raise InputError(f"{context:g} is no number of tokens", where="--context", mend="name a whole number")
    stored, each = stored_as(subject, tokens, layout, kv_dtype)
    assumed, copy = asked.assumed(), copy_joules_per_bit()
    found = priced(parts_of(asked.names, asked.folders), asked.day, asked.basis, given)
    rows = [retention_row(row, assumed, each, recompute, prefill_rate, copy) for row in found]
    rows.sort(key=lambda row: (row["tier"], row["part"], row["basis"]))
    data = {
        "model": subject.id,
        "context": tokens,
        "layout": stored,
        "bytes_per_token": each,
        "gb_per_mtok": each / 1e3,
        "recompute_usd_per_mtok": recompute,
        "prefill_tokens_per_s": prefill_rate,
        "assumptions": vars(assumed),
        "rows": rows,
    }
    if form == "json":
        echo_json(data)
        return
    _print_retention(data, assumed)
    hint("planner cost tiers")


def _print_retention(data: dict[str, Any], assumed: Assumptions) -> None:
    columns = ["memory", "tier", "price", "USD/GB", "kept, an hour", "written once", "reload"]
    optional = {"break even": "recompute_usd_per_mtok", "units to outrun": "prefill_tokens_per_s"}
    columns += [name for name, key in optional.items() if data[key] is not None]
    title = (
        f"{data['model']}: USD per million cached tokens of {data['gb_per_mtok']:.4g} GB "
        f"({data['layout']}, sequences of {data['context']:,})"
    )
    table = new_table(title, *columns)
    table.columns[0].no_wrap = True
    for row in data["rows"]:
        cells = [row["part"], row["tier"], basis_cell(row), number(row["usd_per_gb"])]
        hourly = row["room_usd_per_mtok_hour"] + (row["electricity_usd_per_mtok_hour"] or 0.0)
        cells += [small(hourly), small(row["write_usd_per_mtok"]), small(row["reload_usd_per_mtok"])]
        if "break even" in columns:
            cells.append(_hours(row["break_even_idle_hours"]))
        if "units to outrun" in columns:
            cells.append(small(row["units_to_outrun_prefill"]))
        table.add_row(*cells)
    print_table(table)
    if data["recompute_usd_per_mtok"] is not None:
        say(
            f"break even: the idle time at which keeping costs the {data['recompute_usd_per_mtok']:g} USD of computing again; "
            "a drive pays the larger of room and wear"
        )
    footer(data["rows"], assumed)
