"""``planner fleet`` for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.common import new_table, number, print_table, say, terminal_width

if TYPE_CHECKING:
    from planner.fleet import Fleet, Margin
    from planner.fleet.schema import BudgetWorth, FleetBudget
    from planner.plans.schema import Interval


def print_fleet(fleet: Fleet) -> None:
    """Sizes, units, streams, memories, budgets, margin, notes."""
    copies = round(fleet.copies.expected)
    each = " and ".join(f"{row.units // copies:,} x {row.hardware}" for row in fleet.units)
    load = f"{fleet.tokens_per_day.total:.4g} tokens a day, {fleet.utilisation:.1%} of the hours in use"
    say(f"{fleet.model}, workload {fleet.workload}: {load}")
    say(f"{copies:,} {'copy' if copies == 1 else 'copies'} of the plan's deployment, each on {each}")
    given = fleet.sized_by == "budgets"
    sizes = new_table("fleet; low and high are the model's uncertainty (p10, p90)", "figure", "low", "expected", "high", "unit")
    money = fleet.currency
    for name, interval, scale, unit in (
        *([("tokens", fleet.tokens_per_day_interval, 1.0, "a day")] if given else []),
        ("copies", fleet.copies, 1.0, ""),
        ("devices", fleet.devices, 1.0, ""),
        ("power, mean, with PUE", fleet.megawatts, 1.0, "MW"),
        *([("capital cost of systems", fleet.capex_usd, 1e6, f"million {money}")] if fleet.installed_capex_usd else []),
        ("cost", fleet.usd_per_day, 1.0, f"{money} a day"),
        ("cost, all tokens", fleet.blended_interval, 1.0, f"{money} per million"),
    ):
        sizes.add_row(name, *_ends(interval, scale), unit)
    print_table(sizes)
    units = new_table(
        "whole units", "hardware", "units", "devices each", "devices", "nodes", "systems", "stated MW", f"million {money}"
    )
    for row in fleet.units:
        counts = (row.units, row.devices_per_unit, row.devices, row.nodes, row.systems)
        units.add_row(
            row.hardware, *(f"{count:,}" for count in counts), number(row.stated_megawatts), number(row.capex_usd / 1e6)
        )
    print_table(units)
    streams = new_table(f"by stream ({fleet.allocation})", "stream", "tokens a day", f"{money} a day", f"{money} per million")
    for label, name in (("cached input", "input_hit"), ("input", "input_miss"), ("output", "output")):
        tokens, usd = getattr(fleet.tokens_per_day, name), getattr(fleet.usd_per_day_by_stream, name)
        streams.add_row(label, f"{tokens:.4g}", number(usd), number(getattr(fleet.usd_per_million, name)))
    total = fleet.tokens_per_day.total, fleet.usd_per_day.expected, fleet.usd_per_million.blended
    streams.add_row("all", f"{total[0]:.4g}", number(total[1]), number(total[2]))
    print_table(streams)
    _print_memories(fleet)
    if fleet.budgets:
        _print_budgets(fleet)
    if fleet.margin is not None:
        print_margin(fleet.margin, "a day")
    causes = ", ".join(f"{cause} {number(value)}" for cause, value in fleet.usd_per_day_by_cause.items() if value)
    say(f"{money} a day by cause: {causes} (basis {fleet.basis} of {fleet.as_of})")
    say(
        f"power: stated {number(fleet.megawatts_provisioned / fleet.pue)} MW x PUE {fleet.pue:g} = "
        f"{number(fleet.megawatts_provisioned)} MW to provide; on average {fleet.power_utilisation:.0%} of that"
    )
    bought = f"capital with installation {number(fleet.installed_capex_usd / 1e6)} million {money}"
    say(
        f"{bought if fleet.installed_capex_usd else 'rented, nothing to buy'}; "
        f"{number(fleet.tokens_per_s_per_device)} tokens/s a device over the day, all streams; "
        f"in use: {', '.join(f'{phase} {share:.1%}' for phase, share in fleet.used.items())}"
    )
    for note in fleet.notes:
        say(f"note: {note}")


def _ends(interval: Interval, scale: float) -> list[str]:
    return [number(None if end is None else end / scale) for end in (interval.low, interval.expected, interval.high)]


def _print_memories(fleet: Fleet) -> None:
    table = new_table("memory as installed, used or not", "memory", "TB", "tokens a day per TB", "bytes per token/s")
    for row in fleet.memories:
        per_tb = f"{row.tokens_per_day_per_tb:.4g}"
        table.add_row(row.memory, number(row.installed_bytes / 1e12), per_tb, number(row.bytes_per_token_per_s))
    print_table(table)


def _print_budgets(fleet: Fleet) -> None:
    table = new_table("budgets", "budget", "used", "left", "of", "unit", "copies", "binds")
    for row in fleet.budgets:
        cells = (number(row.used), number(row.left), number(row.limit), row.unit, f"{row.copies:,}")
        table.add_row(row.budget, *cells, "yes" if row.binds else "-")
    print_table(table)
    for row in fleet.budgets:
        if row.worth is not None:
            say(f"{row.budget}: {_worth(row, row.worth, fleet.currency)}")


def _worth(row: FleetBudget, worth: BudgetWorth, currency: str) -> str:
    if not worth.tokens_per_day:
        return "more of it alone serves nothing, since another budget binds as well"
    one = row.unit.removesuffix("s")
    until = "" if worth.valid_to is None else f", up to {number(worth.valid_to)} {row.unit}"
    earned = "" if worth.usd_per_day is None else f" and {number(worth.usd_per_day)} {currency} a day after cost"
    steps = f"in steps of {number(worth.copy_takes)} {one if worth.copy_takes == 1.0 else row.unit}"
    return f"1 {one} more is worth {worth.tokens_per_day:.4g} tokens a day{earned}, {steps}{until}"


def print_margin(margin: Margin, per: str) -> None:
    """Revenue, cost and margin by stream, with the sheet and its sources; ``per``: of what the amounts are."""
    from planner.cli.part_view import numbered

    sheet = margin.sheet
    columns = ("stream", f"{sheet.currency} per million", f"revenue, USD {per}", f"cost, USD {per}", "margin")
    span = f"since {sheet.since}" if sheet.until is None else f"{sheet.since} to {sheet.until}"
    table = new_table(f"margin at {sheet.id} ({sheet.model}), {span}", *columns)
    for label, name in (("cached input", "input_hit"), ("input", "input_miss"), ("output", "output")):
        row = margin.by_stream[name]
        amounts = number(row.revenue_usd), number(row.cost_usd)
        table.add_row(label, number(sheet.per_million[name]), *amounts, "-" if row.margin is None else f"{row.margin:.1%}")
    low, high = ("-" if end is None else f"{end:.1%}" for end in (margin.margin.low, margin.margin.high))
    table.add_row("all", "", number(margin.revenue_usd), number(margin.cost_usd), f"{margin.margin.expected:.1%}")
    print_table(table)
    say(f"margin: revenue / cost - 1 = {margin.margin.expected:.1%}, {low} to {high} (p10, p90)")
    if sheet.peak_share is not None:
        say(f"{sheet.peak_share:.1%} of the tokens in peak windows")
    if sheet.per_usd is not None:
        when = f" of {sheet.rate_as_of}" if sheet.rate_as_of else ""
        say(f"prices in {sheet.currency}, {sheet.per_usd:g} for one USD{when}")
    click.echo("\n".join(["sources", *numbered({source: n for n, source in enumerate(sheet.sources, 1)}, terminal_width())]))
