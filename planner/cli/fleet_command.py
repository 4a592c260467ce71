"""``planner fleet``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.common import Range, echo_json, format_option, hint, new_table, number, print_table, read_plan_argument
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.fleet import Fleet, Mix
    from planner.plans.schema import Interval


@click.command("fleet")
@click.argument("plan")
@click.option("--tokens-per-day", type=Range(1, 1e24), required=True, help="Input and output tokens to serve in a day (5e15).")
@click.option("--mix", help="Tokens by stream, as hit=0.4,miss=0.4,output=0.2 or any multiple; the plan's if left out.")
@click.option("--utilisation", type=Range(1e-6, 1), help="Share of the hours in which the load comes; the plan's if left out.")
@format_option
def command(plan: str, tokens_per_day: float, mix: str | None, utilisation: float | None, form: str) -> None:
    """Say how many copies of PLAN's deployment (a file, or -) serve so many tokens a day, and what they take and cost.

    Example: planner fleet plan.json --tokens-per-day 5e15 --mix hit=342,miss=266,output=168
    """
    from planner.fleet import size_fleet
    from planner.plans.read import inputs_of

    asked = None if mix is None else _mix(mix)
    loaded, where = read_plan_argument(plan)
    try:
        fleet = size_fleet(loaded, inputs_of(loaded, where), tokens_per_day=tokens_per_day, mix=asked, utilisation=utilisation)
    except InputError as error:
        raise InputError(error.what, where=where if error.where == "plan" else f"--{error.where}", mend=error.mend) from None
    if form == "json":
        echo_json(fleet.model_dump(mode="json"))
        return
    _print(fleet)
    hint(f"planner verify {plan}")


def _mix(text: str) -> Mix:
    """``hit=0.4,miss=0.4,output=0.2``; a stream left out has no tokens."""
    from planner.fleet import Mix

    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        try:
            share = float(value)
        except ValueError:
            equals = ""
        if not equals or name not in ("hit", "miss", "output") or name in found:
            mend = "write hit=0.4,miss=0.4,output=0.2, each once"
            raise InputError(f"cannot read {part.strip()[:64]!r}", where="--mix", mend=mend)
        found[name] = share
    return Mix(found.get("hit", 0.0), found.get("miss", 0.0), found.get("output", 0.0))


def _print(fleet: Fleet) -> None:
    copies = round(fleet.copies.expected)
    each = " and ".join(f"{row.units // copies:,} x {row.hardware}" for row in fleet.units)
    load = f"{fleet.tokens_per_day.total:.4g} tokens a day, {fleet.utilisation:.1%} of the hours in use"
    click.echo(f"{fleet.model}, workload {fleet.workload}: {load}")
    click.echo(f"{copies:,} {'copy' if copies == 1 else 'copies'} of the plan's deployment, each on {each}")
    sizes = new_table("fleet; low and high are the model's uncertainty (p10, p90)", "figure", "low", "expected", "high", "unit")
    money = fleet.currency
    for name, interval, scale, unit in (
        ("copies", fleet.copies, 1.0, ""),
        ("devices", fleet.devices, 1.0, ""),
        ("power, mean, with PUE", fleet.megawatts, 1.0, "MW"),
        ("capital cost of systems", fleet.capex_usd, 1e6, f"million {money}"),
        ("cost", fleet.usd_per_day, 1.0, f"{money} a day"),
        ("cost, all tokens", fleet.blended_interval, 1.0, f"{money} per million"),
    ):
        sizes.add_row(name, *_ends(interval, scale), unit)
    print_table(sizes)
    bought = new_table(
        "whole units", "hardware", "units", "devices each", "devices", "nodes", "systems", "stated MW", f"million {money}"
    )
    for row in fleet.units:
        counts = (row.units, row.devices_per_unit, row.devices, row.nodes, row.systems)
        bought.add_row(
            row.hardware, *(f"{count:,}" for count in counts), number(row.stated_megawatts), number(row.capex_usd / 1e6)
        )
    print_table(bought)
    streams = new_table(f"by stream ({fleet.allocation})", "stream", "tokens a day", f"{money} a day", f"{money} per million")
    for label, name in (("cached input", "input_hit"), ("input", "input_miss"), ("output", "output")):
        tokens, usd = getattr(fleet.tokens_per_day, name), getattr(fleet.usd_per_day_by_stream, name)
        streams.add_row(label, f"{tokens:.4g}", number(usd), number(getattr(fleet.usd_per_million, name)))
    total = fleet.tokens_per_day.total, fleet.usd_per_day.expected, fleet.usd_per_million.blended
    streams.add_row("all", f"{total[0]:.4g}", number(total[1]), number(total[2]))
    print_table(streams)
    causes = ", ".join(f"{cause} {number(value)}" for cause, value in fleet.usd_per_day_by_cause)
    click.echo(f"{money} a day by cause: {causes} (basis {fleet.basis} of {fleet.as_of})")
    click.echo(
        f"power: stated {number(fleet.megawatts_provisioned / fleet.pue)} MW x PUE {fleet.pue:g} = "
        f"{number(fleet.megawatts_provisioned)} MW to provide; on average {fleet.power_utilisation:.0%} of that"
    )
    click.echo(
        f"capital with installation {number(fleet.installed_capex_usd / 1e6)} million {money}; "
        f"{number(fleet.tokens_per_s_per_device)} tokens/s a device over the day, all streams; "
        f"in use: {', '.join(f'{phase} {share:.1%}' for phase, share in fleet.used.items())}"
    )
    for note in fleet.notes:
        click.echo(f"note: {note}")


def _ends(interval: Interval, scale: float) -> list[str]:
    return [number(None if end is None else end / scale) for end in (interval.low, interval.expected, interval.high)]
