"""``planner fleet``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from planner.cli.common import Range, echo_json, format_option, hint, read_plan_argument, tell_unverified
from planner.cli.fleet_view import print_fleet
from planner.cli.money import date_option, given_rates, peak_option, rate_option
from planner.errors import InfeasibleError, InputError

if TYPE_CHECKING:
    from planner.economics.tariff import Tariff
    from planner.fleet import Mix


@click.command("fleet")
@click.argument("plan")
@click.option("--tokens-per-day", type=Range(1, 1e24), help="Input and output tokens to serve in a day (5e15).")
@click.option("--mix", help="Tokens by stream, as hit=0.4,miss=0.4,output=0.2 or any multiple; the plan's if left out.")
@click.option("--utilisation", type=Range(1e-6, 1), help="Share of the hours in which the load comes; the plan's if left out.")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    help="What there is at most of a memory as installed (hbm=10PB), of power with PUE (power=50MW), of USD to buy and install "
    "(usd=2e9) or of purchasable units (units=100); may be repeated. Without --tokens-per-day: the most that they hold.",
)
@click.option("--sheet", help="A price sheet, by name or TOML file, at which the tokens are sold: adds the margin.")
@date_option
@peak_option
@rate_option
@format_option
def command(
    plan: str,
    tokens_per_day: float | None,
    mix: str | None,
    utilisation: float | None,
    budgets: tuple[str, ...],
    sheet: str | None,
    at: datetime | None,
    peak_share: float | None,
    rates: tuple[str, ...],
    form: str,
) -> int:
    """Say how many copies of PLAN's deployment (a file, or -) serve so many tokens a day, or fit budgets, and what they cost.

    \b
    Examples:
      planner fleet plan.json --tokens-per-day 5e15 --mix hit=342,miss=266,output=168
      planner fleet plan.json --budget hbm=10PB --budget power=50MW --sheet deepseek-v4-pro
    """
    from planner.cli.plan_view import print_conflict
    from planner.fleet import parse_budgets, size_fleet
    from planner.plans.read import inputs_of

    if tokens_per_day is None and not budgets:
        raise click.UsageError("Missing option '--tokens-per-day' or '--budget'.")
    asked = None if mix is None else _mix(mix)
    tariff = _tariff(sheet, at, peak_share, rates)
    limits = parse_budgets(budgets)
    loaded, where = read_plan_argument(plan)
    try:
        fleet = size_fleet(
            loaded,
            inputs_of(loaded, where),
            tokens_per_day=tokens_per_day,
            mix=asked,
            utilisation=utilisation,
            budgets=limits,
            tariff=tariff,
        )
    except InputError as error:
        known = {"plan": where, **{name: f"--{name}" for name in ("tokens_per_day", "mix", "utilisation", "budget")}}
        raise InputError(error.what, where=known.get(error.where, error.where), mend=error.mend) from None
    except InfeasibleError as error:
        print_conflict(error, form)
        return error.exit_code
    tell_unverified(loaded, where, plan)
    if form == "json":
        echo_json(fleet.model_dump(mode="json"))
        return 0
    print_fleet(fleet)
    hint(f"planner verify {plan}")
    return 0


def _tariff(sheet: str | None, at: datetime | None, peak_share: float | None, rates: tuple[str, ...]) -> Tariff | None:
    """The prices of a sheet; ``InputError`` where options about them have none to go with."""
    if sheet is None:
        for option, given in (("--date", at is not None), ("--peak-share", peak_share is not None), ("--rate", bool(rates))):
            if given:
                raise InputError("goes with --sheet", where=option, mend="add --sheet NAME")
        return None
    from planner.economics.tariff import tariff_at
    from planner.prices.sheets import load_sheet

    found = tariff_at(load_sheet(sheet), at, peak_share, given_rates(rates))
    if peak_share is not None and found.peak is None:
        raise InputError("the sheet has no peak windows then", where="--peak-share", mend="leave it out")
    return found


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
