"""What tokens earn at a provider's prices above what serving them costs, in all and by stream.

    margin = revenue / cost - 1

Streams are charged as the plan's allocation charges them, so a stream without cost has revenue and no margin of its own. The
revenue follows the tokens served and the cost the same tokens, so the interval of the margin is that of USD per million, turned
over, with the intervals of the sheet's prices and of the rate of exchange: independent errors, in quadrature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from planner.economics.bill import Bill, Usage, bill, margin
from planner.economics.tariff import Tariff, token_prices
from planner.errors import InputError
from planner.fleet.schema import Margin, MarginStream, Sheet, SignedInterval
from planner.plans.intervals import combine
from planner.plans.schema import Interval
from planner.prices.sheets import moment_text

STREAMS = ("input_hit", "input_miss", "output")


def margin_of(tariff: Tariff, usage: Usage, cost_usd: Mapping[str, float], price: Interval) -> Margin:
    """The margin of ``usage`` that costs ``cost_usd`` by stream, where ``price`` is the interval of USD per million of all.

    ``InputError`` where the sheet asks nothing for these tokens.
    """
    revenue = bill(usage, tariff.prices)
    cost = sum(cost_usd[name] for name in STREAMS)
    earned = tariff.usd(revenue.total)
    if not earned > 0.0:
        raise InputError("asks nothing for these tokens", where=f"price sheet {tariff.sheet.id}", mend="choose another sheet")
    ratio = earned / cost
    moved = [ratio * price.expected / end for end in (price.low, price.high) if end]
    moved += [
        tariff.usd(_bill_at(tariff, usage, "lowest").total) / cost,
        tariff.usd(_bill_at(tariff, usage, "highest").total) / cost,
    ]
    if tariff.rate is not None:
        per_usd = tariff.rate.per_usd
        moved += [ratio * per_usd.value / per_usd.lowest, ratio * per_usd.value / per_usd.highest]
    ends = combine(ratio, moved)
    low, high = (ends[end] if known else None for end, known in (("low", price.high), ("high", price.low)))
    return Margin(
        sheet=sheet_of(tariff),
        revenue=revenue.total,
        revenue_usd=earned,
        cost_usd=cost,
        margin=SignedInterval(
            low=None if low is None else low - 1.0, expected=ratio - 1.0, high=None if high is None else high - 1.0
        ),
        by_stream={name: _stream(tariff.usd(getattr(revenue, name)), cost_usd[name]) for name in STREAMS},
    )


def sheet_of(tariff: Tariff) -> Sheet:
    """What was multiplied, of when and from where."""
    period, rate = tariff.period, tariff.rate
    return Sheet(
        id=tariff.sheet.id,
        provider=tariff.sheet.provider,
        model=tariff.sheet.model,
        period=period.label,
        since=moment_text(period.since),
        until=None if period.until is None else moment_text(period.until),
        currency=tariff.sheet.currency,
        peak_share=tariff.peak_share,
        per_million={name: getattr(tariff.prices, name) for name in STREAMS},
        per_usd=None if rate is None else rate.per_usd.value,
        rate_as_of=None if rate is None or rate.per_usd.as_of is None else str(rate.per_usd.as_of),
        lowest_grade=tariff.lowest_grade,
        sources=tariff.sources,
    )


def _stream(revenue_usd: float, cost_usd: float) -> MarginStream:
    return MarginStream(
        revenue_usd=revenue_usd, cost_usd=cost_usd, margin=margin(revenue_usd, cost_usd) if cost_usd > 0.0 else None
    )


def _bill_at(tariff: Tariff, usage: Usage, end: Literal["lowest", "highest"]) -> Bill:
    """The bill with every price of the sheet at one end of its interval."""
    plain, windows = tariff.period, tariff.period.peak
    peak = None if windows is None else token_prices(windows, end)
    return bill(usage, replace(tariff, off_peak=token_prices(plain, end), peak=peak).prices)
