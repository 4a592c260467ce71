"""``planner cost bill``: what usage costs at providers' prices, and the margin over what serving it costs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from planner.cli.common import (
    Quantity,
    Range,
    echo_json,
    format_option,
    hint,
    new_table,
    number,
    print_table,
    read_plan_argument,
    say,
    tell_unverified,
    terminal_width,
)
from planner.cli.money import date_option, given_rates, peak_option, rate_option
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.economics.bill import Usage
    from planner.economics.tariff import Tariff
    from planner.plans.schema import Plan

TOKEN_COUNT = Quantity("tokens", None, "tokens", 1, 1e18)
STREAMS = ("input", "output")


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


def _bill(found: Tariff, usage: Usage) -> dict[str, Any]:
    """One sheet's bill: what is multiplied, the amounts, and USD off-peak, in peak windows and at the share between."""
    from planner.economics.bill import bill
    from planner.prices.sheets import moment_text

    sheet, period, rate, windows = found.sheet, found.period, found.rate, found.period.peak
    prices, amount = found.prices, bill(usage, found.prices)
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
        "peak_share": found.peak_share,
        "peak_windows": windows and windows.model_dump(mode="json", include={"days", "hours_utc", "note"}),
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
        "usd": found.usd(amount.total),
        "usd_off_peak": found.usd(bill(usage, found.off_peak).total),
        "usd_peak": found.usd(bill(usage, found.peak or found.off_peak).total),
        "rate": None
        if rate is None
        else {"per_usd": rate.per_usd.value, "as_of": str(rate.per_usd.as_of or ""), "source": rate.per_usd.source},
        "lowest_grade": found.lowest_grade,
        "sources": found.sources,
    }


def _print_streams(data: dict[str, Any]) -> None:
    """Revenue, cost and margin by stream at every sheet."""
    plan = data["plan"]
    basis = f"cost of {plan['model']}, workload {plan['workload']}: basis {plan['basis']} of {plan['as_of']}"
    table = new_table(basis, "sheet", "stream", "revenue USD", "cost USD", "margin")
    for row in data["bills"]:
        for label, name in (("cached input", "input_hit"), ("input", "input_miss"), ("output", "output")):
            of = row["by_stream"][name]
            share = "-" if of["margin"] is None else f"{of['margin']:.1%}"
            table.add_row(row["sheet"], label, number(of["revenue_usd"]), number(of["cost_usd"]), share)
        table.add_row(row["sheet"], "all", number(row["usd"]), number(data["cost_usd"]), f"{row['margin']:.1%}")
    print_table(table)
    for row in data["bills"]:
        ends = ["-" if row["margin_interval"][end] is None else f"{row['margin_interval'][end]:.1%}" for end in ("low", "high")]
        say(f"{row['sheet']}: margin {row['margin']:.1%}, {ends[0]} to {ends[1]} (p10, p90)")


class _Served(NamedTuple):
    """Tokens that a plan serves and what they cost, as planned: USD by stream, and the interval of USD per million of all."""

    plan: Plan
    usage: Usage
    cost_usd: dict[str, float]


def _served(name: str, tokens: float, stored: float) -> _Served:
    """``tokens`` of a plan's mix at its cost per million."""
    from planner.economics.bill import Usage

    plan, where = read_plan_argument(name)
    each, prices = plan.cost.tokens_per_request, plan.cost.usd_per_million
    parts = {stream: each.get(stream, -1.0) for stream in ("input_hit", "input_miss", "output")}
    whole = sum(parts.values())
    counts = {stream: tokens * part / whole if whole > 0.0 else -1.0 for stream, part in parts.items()}
    cost = {stream: count * (getattr(prices, stream) or 0.0) / 1e6 for stream, count in counts.items()}
    usd = tokens / 1e6 * prices.blended
    if min(counts.values()) < 0.0 or not usd > 0.0 or abs(sum(cost.values()) / usd - 1.0) > 1e-9:
        raise InputError("its cost does not follow from its streams", where=where, mend="see planner verify")
    tell_unverified(plan, where, name)
    miss = counts["input_miss"]
    return _Served(plan, Usage(counts["input_hit"], miss, counts["output"], miss * stored), cost)


def _print_bills(data: dict[str, Any]) -> None:
    from planner.cli.part_view import numbered

    bills = data["bills"]
    peaks = any(row["peak_share"] is not None for row in bills)
    margins = data["cost_usd"] is not None and data["plan"] is None
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
    if data["plan"] is not None:
        _print_streams(data)
    for row in bills:
        if row["peak_share"] is not None:
            windows = row["peak_windows"]
            hours = f"{', '.join(windows['hours_utc'])} UTC on {len(windows['days'])} days a week"
            say(f"{row['sheet']}: {row['peak_share']:.1%} of the tokens in peak windows, {hours}")
        if row["rate"] is not None:
            when = f" of {row['rate']['as_of']}" if row["rate"]["as_of"] else ""
            say(f"{row['sheet']}: prices in {row['currency']}, {row['rate']['per_usd']:g} for one USD{when}")
    click.echo("\n".join(["sources", *numbered(sources, terminal_width())]))


@click.command("bill")
@click.option("--sheet", "sheets", multiple=True, required=True, help="A price sheet, by name or TOML file; may be repeated.")
@click.option("--tokens", type=TOKEN_COUNT, help="Tokens in all, as 1e9; with --plan a million if left out.")
@click.option("--mix", help="Shares of input and output, as input=0.8,output=0.2; or any weights.")
@click.option("--hit", type=Range(0, 1), help="Share of the input that the cache has; 0 if left out.")
@click.option("--stored", type=Range(0, 1), default=0.0, show_default=True, help="Share of the rest that is written to it.")
@date_option
@peak_option
@rate_option
@click.option("--cost", "cost_usd", type=Range(0.01, 1e15), help="USD that serving these tokens cost: adds the margin.")
@click.option("--plan", "plan_name", help="A plan (a file, or -) whose mix of tokens is billed, at whose cost: adds the margin.")
@format_option
def bill_command(
    sheets: tuple[str, ...],
    tokens: float | None,
    mix: str | None,
    hit: float | None,
    stored: float,
    at: datetime | None,
    peak_share: float | None,
    rates: tuple[str, ...],
    cost_usd: float | None,
    plan_name: str | None,
    form: str,
) -> None:
    """The bill for a mix of tokens at the prices of a date, sheet by sheet.

    \b
    Examples:
      planner cost bill --sheet deepseek-v4-pro --sheet gpt-5.5 --tokens 1e9 --mix input=0.8,output=0.2 --date 2026-05-15
      planner cost bill --sheet deepseek-v4-pro --tokens 1e9 --mix input=0.8,output=0.2 --peak-share 0.5
      planner cost bill --sheet deepseek-v4-pro --plan plan.json
    """
    from planner.economics.bill import margin, usage_of
    from planner.economics.tariff import tariff_at
    from planner.fleet import margin_of
    from planner.prices.sheets import load_sheet

    given = given_rates(rates)
    tariffs = [tariff_at(load_sheet(name), at, peak_share, given) for name in sheets]
    if peak_share is not None and all(found.peak is None for found in tariffs):
        raise InputError("none of the sheets has peak windows then", where="--peak-share", mend="leave it out")
    served = None
    if plan_name is None:
        for option, value in (("--tokens", tokens), ("--mix", mix)):
            if value is None:
                raise click.UsageError(f"Missing option '{option}' (or '--plan').")
        usage = usage_of(tokens or 0.0, input_share=_shares(mix or ""), hit_share=hit or 0.0, stored_share=stored)
    else:
        for option, said in (("--mix", mix), ("--hit", hit), ("--cost", cost_usd)):
            if said is not None:
                raise InputError("is said by the plan", where=option, mend="leave it out, or --plan")
        served = _served(plan_name, 1e6 if tokens is None else tokens, stored)
        usage, cost_usd = served.usage, sum(served.cost_usd.values())
    bills = [_bill(found, usage) for found in tariffs]
    first = bills[0]["usd"]
    for row, found in zip(bills, tariffs, strict=True):
        row["ratio"] = row["usd"] / first if first else None
        row["margin"] = None if cost_usd is None else margin(row["usd"], cost_usd)
        whole = None if served is None else margin_of(found, usage, served.cost_usd, served.plan.cost.blended_interval)
        row["margin_interval"] = whole and whole.margin.model_dump()
        row["by_stream"] = whole and {name: stream.model_dump() for name, stream in whole.by_stream.items()}
    counts = {
        "input_hit": usage.hit_tokens,
        "input_miss": usage.miss_tokens,
        "stored": usage.stored_tokens,
        "output": usage.output_tokens,
    }
    plan = served and served.plan
    cost = plan and {key: getattr(plan.cost, key) for key in ("basis", "currency", "as_of", "allocation")}
    data = {
        "at": None if at is None else at.isoformat(),
        "usage": counts,
        "cost_usd": cost_usd,
        "plan": plan and cost and {"model": plan.model, "workload": plan.workload, **cost},
        "bills": bills,
    }
    if form == "json":
        echo_json(data)
        return
    _print_bills(data)
    hint("planner cost retention MODEL --recompute USD_PER_MTOK says how long a cache is worth keeping")
