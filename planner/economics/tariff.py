"""What a provider's sheet asks for a million tokens at a moment: the prices of its period, its peak windows, and USD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from planner.economics.bill import TokenPrices, at_peak_share
from planner.prices.currency import Rate, rate_at, usd
from planner.prices.sheets import Peak, Period, PriceSheet, period_at
from planner.quantities import Figure, Grade


@dataclass(frozen=True)
class Tariff:
    """Prices per million tokens in the sheet's currency; ``peak`` and ``peak_share`` are ``None`` without peak windows."""

    sheet: PriceSheet
    period: Period
    peak_share: float | None
    off_peak: TokenPrices
    peak: TokenPrices | None
    rate: Rate | None

    @property
    def prices(self) -> TokenPrices:
        """Mean prices at the share of the tokens that falls into peak windows."""
        return at_peak_share(self.off_peak, self.peak, self.peak_share or 0.0)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure it rests on."""
        return (*self.period.figures, *(() if self.rate is None else (self.rate.per_usd,)))

    @property
    def lowest_grade(self) -> Grade:
        """That of its least certain figure."""
        return max(figure.grade for figure in self.figures)

    @property
    def sources(self) -> list[str]:
        """Of its figures, each once."""
        return sorted({figure.source for figure in self.figures})

    def usd(self, amount: float) -> float:
        """An amount of the sheet's currency in USD."""
        return usd(amount, self.rate)


def tariff_at(
    sheet: PriceSheet, at: datetime | None = None, peak_share: float | None = None, rates: Mapping[str, float] | None = None
) -> Tariff:
    """The prices at a moment, the sheet's last for ``None``.

    ``peak_share`` of the tokens fall into peak windows, or as much as of the week does. ``rates``: units of a currency for one
    USD in place of the dated one. ``InputError`` outside the sheet's periods, or where its currency has no rate of that day.
    """
    period = period_at(sheet, at)
    plain = token_prices(period)
    windows = period.peak
    share = None if windows is None else windows.share_of_week if peak_share is None else peak_share
    peak = None if windows is None else token_prices(windows)
    return Tariff(sheet, period, share, plain, peak, _rate(sheet, at, rates or {}))


def token_prices(found: Period | Peak, end: Literal["value", "lowest", "highest"] = "value") -> TokenPrices:
    """The prices of a period, or of its peak windows, as plain numbers: as they are, or at an end of their intervals."""

    def number(figure: Figure) -> float:
        return float(getattr(figure, end))

    write = None if found.cache_write is None else number(found.cache_write)
    return TokenPrices(number(found.input_hit), number(found.input_miss), number(found.output), write)


def _rate(sheet: PriceSheet, at: datetime | None, given: Mapping[str, float]) -> Rate | None:
    """How the sheet's currency becomes USD."""
    if sheet.currency in given:
        figure = Figure(value=given[sheet.currency], source="given on the command line", grade="D")
        return Rate(currency=sheet.currency, per_usd=figure)
    return rate_at(sheet.currency, None if at is None else at.date())
