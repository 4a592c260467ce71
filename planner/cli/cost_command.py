"""``planner cost``: bills, the keeping of caches, what memory tiers cost, and a plan at other prices."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import Quantity, Range, echo_json, format_option, hint, new_table, number, print_table, terminal_width
from planner.cli.cost_memory import retention, tiers
from planner.cli.cost_whatif import whatif
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.economics.bill import TokenPrices, Usage
    from planner.prices.currency import Rate
    from planner.prices.sheets import Peak, Period, PriceSheet

TOKEN_COUNT = Quantity("tokens", None, "tokens", 1, 1e18)
STREAMS = ("input", "output")


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


def _shares(text: str) -> float:
    """``"input=0.8,output=0.2"`` as the share of input; weights of any size will do."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, given = part.strip().partition("=")
        try:
            weight = float(given)
        except ValueError:
            weight = -1.0
        if name not in STREAMS or name in found or not equals or not 0.0 <= weight <= 1e18:
            raise InputError(f"cannot read {text[:64]!r}", where="--mix", mend="write input=0.8,output=0.2")
        found[name] = weight
    whole = sum(found.values())
    if not whole:
        raise InputError("has no tokens", where="--mix", mend="write input=0.8,output=0.2")
    return found.get("input", 0.0) / whole


def _given_rates(texts: tuple[str, ...]) -> dict[str, float]:
    """``CNY=7.0`` as units for one USD, by currency."""
    rates = {}
    for text in texts:
        match = re.fullmatch(r"([A-Z]{3})=([0-9]+(?:\.[0-9]+)?)", text, re.ASCII)
        units = float(match[2]) if match else 0.0
        if match is None or not 1e-6 <= units <= 1e6:
            raise InputError(f"cannot read {text[:64]!r}", where="--rate", mend="write units for one USD, as CNY=7.0")
        rates[match[1]] = units
    return rates


def _rate(sheet: PriceSheet, at: datetime | None, given: dict[str, float]) -> Rate | None:
    """How the sheet's currency becomes USD."""
    from planner.prices.currency import Rate, rate_at
    from planner.quantities import Figure

    if sheet.currency in given:
        figure = Figure(value=given[sheet.currency], source="given on the command line", grade="D")
        return Rate(currency=sheet.currency, per_usd=figure)
    return rate_at(sheet.currency, None if at is None else at.date())


def _prices(found: Period | Peak) -> TokenPrices:
    """The prices of a period, or of its peak windows, as plain numbers."""
    from planner.economics.bill import TokenPrices

    write = None if found.cache_write is None else found.cache_write.value
    return TokenPrices(found.input_hit.value, found.input_miss.value, found.output.value, write)


def _bill(
    sheet: PriceSheet, at: datetime | None, usage: Usage, peak_share: float | None, given: dict[str, float]
) -> dict[str, Any]:
    """One sheet's bill: what is multiplied, the amounts, and USD off-peak, in peak windows and at the share between."""
    from planner.economics.bill import at_peak_share, bill
    from planner.prices.currency import usd
    from planner.prices.sheets import moment_text, period_at

    period = period_at(sheet, at)
    plain, dear = _prices(period), None if period.peak is None else _prices(period.peak)
    share = 0.0 if period.peak is None else period.peak.share_of_week if peak_share is None else peak_share
    prices = at_peak_share(plain, dear, share)
    amount = bill(usage, prices)
    rate = _rate(sheet, at, given)
    figures = [*period.figures, *([] if rate is None else [rate.per_usd])]
    return {
        "sheet": sheet.id,
        "provider": sheet.provider,
        "model": sheet.model,
        "period": {
            "label": period.label,
            "from": moment_text(period.since),
            "to": None if period.until is None else moment_text(period.until),
        },
        "currency": sheet.currency,
        "peak_share": share if dear else None,
        "peak_windows": period.peak and period.peak.model_dump(mode="json", include={"days", "hours_utc", "note"}),
        "per_million_tokens": {
            "input_hit": prices.input_hit,
            "input_miss": prices.input_miss,
            "output": prices.output,
            "cache_write": prices.cache_write,
        },
        "amount": {
            "input_hit": amount.input_hit,
            "input_miss": amount.input_miss,
            "output": amount.output,
            "total": amount.total,
        },
        "usd": usd(amount.total, rate),
        "usd_off_peak": usd(bill(usage, plain).total, rate),
        "usd_peak": usd(bill(usage, dear or plain).total, rate),
        "rate": None
        if rate is None
        else {"per_usd": rate.per_usd.value, "as_of": str(rate.per_usd.as_of or ""), "source": rate.per_usd.source},
        "lowest_grade": max(figure.grade for figure in figures),
        "sources": sorted({figure.source for figure in figures}),
    }


def _print_bills(data: dict[str, Any]) -> None:
    from planner.cli.part_view import numbered

    bills = data["bills"]
    peaks = any(row["peak_share"] is not None for row in bills)
    margins = data["cost_usd"] is not None
    usage = data["usage"]
    streams = {key: usage[key] for key in ("input_hit", "input_miss", "output") if usage[key]}
    tokens = ", ".join(f"{number(count)} {key.replace('_', ' ')}" for key, count in streams.items())
    columns = ["sheet", "since", "hit", "miss", "output", "bill USD", "x first"]
    table = new_table(
        f"{tokens}; prices per million", *columns, *(["off-peak, peak"] if peaks else []), *(["margin"] if margins else [])
    )
    for column in table.columns[:2]:
        column.no_wrap = True
    sources: dict[str, int] = {}
    for row in bills:
        for source in row["sources"]:
            sources.setdefault(source, len(sources) + 1)
        each = row["per_million_tokens"]
        cells = [row["sheet"], row["period"]["from"], *(number(each[key]) for key in ("input_hit", "input_miss", "output"))]
        cells += [number(row["usd"]), "-" if row["ratio"] is None else f"{row['ratio']:.4g}"]
        if peaks:
            ends = f"{number(row['usd_off_peak'])}, {number(row['usd_peak'])}"
            cells.append("-" if row["peak_share"] is None else ends)
        if margins:
            cells.append(f"{row['margin']:.1%}")
        table.add_row(*cells)
    print_table(table)
    for row in bills:
        if row["peak_share"] is not None:
            windows = row["peak_windows"]
            hours = f"{', '.join(windows['hours_utc'])} UTC on {len(windows['days'])} days a week"
            click.echo(f"{row['sheet']}: {row['peak_share']:.1%} of the tokens in peak windows, {hours}")
        if row["rate"] is not None:
            when = f" of {row['rate']['as_of']}" if row["rate"]["as_of"] else ""
            click.echo(f"{row['sheet']}: prices in {row['currency']}, {row['rate']['per_usd']:g} for one USD{when}")
    click.echo("\n".join(["sources", *numbered(sources, terminal_width())]))


@click.group("cost", no_args_is_help=False)
def command() -> None:
    """What tokens cost at a provider, what keeping and moving them costs by memory tier, and a plan at other prices.

    Example: planner cost tiers --basis contract
    """


@command.command("bill")
@click.option("--sheet", "sheets", multiple=True, required=True, help="A price sheet, by name or TOML file; may be repeated.")
@click.option("--tokens", type=TOKEN_COUNT, required=True, help="Tokens in all, as 1e9.")
@click.option("--mix", required=True, help="Shares of input and output, as input=0.8,output=0.2; or any weights.")
@click.option("--hit", type=Range(0, 1), default=0.0, show_default=True, help="Share of the input that the cache has.")
@click.option("--stored", type=Range(0, 1), default=0.0, show_default=True, help="Share of the rest that is written to it.")
@click.option("--date", "at", type=Moment(), help="When: a date (midnight UTC) or a moment; the newest prices by default.")
@click.option("--peak-share", type=Range(0, 1), help="Share of the tokens in peak windows; spread over the week by default.")
@click.option("--rate", "rates", multiple=True, help="Units of a currency for one USD, as CNY=7.0; the dated rate by default.")
@click.option("--cost", "cost_usd", type=Range(0.01, 1e15), help="USD that serving these tokens cost: adds the margin.")
@format_option
def bill_command(
    sheets: tuple[str, ...],
    tokens: float,
    mix: str,
    hit: float,
    stored: float,
    at: datetime | None,
    peak_share: float | None,
    rates: tuple[str, ...],
    cost_usd: float | None,
    form: str,
) -> None:
    """The bill for a mix of tokens at the prices of a date, sheet by sheet.

    \b
    Examples:
      planner cost bill --sheet deepseek-v4-pro --sheet gpt-5.5 --tokens 1e9 --mix input=0.8,output=0.2 --date 2026-05-15
      planner cost bill --sheet deepseek-v4-pro --tokens 1e9 --mix input=0.8,output=0.2 --peak-share 0.5
    """
    from planner.economics.bill import margin, usage_of
    from planner.prices.sheets import load_sheet

    usage = usage_of(tokens, input_share=_shares(mix), hit_share=hit, stored_share=stored)
    given = _given_rates(rates)
    bills = [_bill(load_sheet(name), at, usage, peak_share, given) for name in sheets]
    if peak_share is not None and all(row["peak_share"] is None for row in bills):
        raise InputError("none of the sheets has peak windows then", where="--peak-share", mend="leave it out")
    first = bills[0]["usd"]
    for row in bills:
        row["ratio"] = row["usd"] / first if first else None
        row["margin"] = None if cost_usd is None else margin(row["usd"], cost_usd)
    counts = {
        "input_hit": usage.hit_tokens,
        "input_miss": usage.miss_tokens,
        "stored": usage.stored_tokens,
        "output": usage.output_tokens,
    }
    data = {"at": None if at is None else at.isoformat(), "usage": counts, "cost_usd": cost_usd, "bills": bills}
    if form == "json":
        echo_json(data)
        return
    _print_bills(data)
    hint("planner cost retention MODEL --recompute USD_PER_MTOK says how long a cache is worth keeping")


command.add_command(retention)
command.add_command(tiers)
command.add_command(whatif)
