"""Options of commands that read a provider's price sheet: the moment, the share of tokens in peak windows, the rates."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import Any

import click

from planner.cli.common import Range
from planner.errors import InputError


class Moment(click.ParamType[datetime]):
    """A date, which is its midnight UTC, or a moment with its time zone."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """A moment in UTC or fail with one line."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
            if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value, re.ASCII):
                return datetime.combine(found, time(), UTC)
            if found.tzinfo is not None:
                return found.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        self.fail(f"{value[:64]!r} is no date; write 2026-05-15, or 2026-08-16T16:00Z with the time zone", param, ctx)


date_option = click.option(
    "--date", "at", type=Moment(), help="When: a date (midnight UTC) or a moment; the newest prices by default."
)
peak_option = click.option(
    "--peak-share", type=Range(0, 1), help="Share of the tokens in peak windows; spread over the week by default."
)
rate_option = click.option(
    "--rate", "rates", multiple=True, help="Units of a currency for one USD, as CNY=7.0; the dated rate by default."
)


def given_rates(texts: tuple[str, ...]) -> dict[str, float]:
    """``CNY=7.0`` as units for one USD, by currency."""
    rates = {}
    for text in texts:
        match = re.fullmatch(r"([A-Z]{3})=([0-9]+(?:\.[0-9]+)?)", text, re.ASCII)
        units = float(match[2]) if match else 0.0
        if match is None or not 1e-6 <= units <= 1e6:
            raise InputError(f"cannot read {text[:64]!r}", where="--rate", mend="write units for one USD, as CNY=7.0")
        rates[match[1]] = units
    return rates
