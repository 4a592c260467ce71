"""Price sheets of API providers: what a million tokens cost, from when until when, and in which hours.

A sheet is one file of ``planner/prices/sheets/`` or the user's own. Its periods follow one another and never overlap; moments
are UTC, and a bare date is its midnight. Prices are per million tokens in the sheet's currency.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from planner.catalogue import Catalogue
from planner.errors import InputError
from planner.quantities import Figure, figure_of

if TYPE_CHECKING:
    TokenPrice: TypeAlias = Figure
else:
    TokenPrice = figure_of("count", exclusive=False)

HOURS_PER_WEEK = 168.0
_Text = Annotated[str, StringConstraints(max_length=400)]
_Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
_Window = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-4]):[0-5][0-9]$")]


def _moment(raw: object) -> object:
    if isinstance(raw, date) and not isinstance(raw, datetime):
        return datetime.combine(raw, time(), UTC)
    if isinstance(raw, datetime) and raw.tzinfo is None:
        raise ValueError("has no time zone; add Z, as 2026-08-16T16:00:00Z")
    if isinstance(raw, datetime):
        try:
            return raw.astimezone(UTC)
        except OverflowError:
            raise ValueError("is no moment of UTC; correct the year") from None
    return raw


Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class Peak(_Part):
    """The dearer hours: days and windows of UTC in which they repeat every week, and the prices there."""

    days: Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], Field(min_length=1)]
    hours_utc: Annotated[tuple[_Window, ...], Field(min_length=1, max_length=24)]
    input_hit: TokenPrice
    input_miss: TokenPrice
    output: TokenPrice
    cache_write: TokenPrice | None = None
    note: _Text = ""

    @model_validator(mode="after")
    def _in_order(self) -> Peak:
        if len(set(self.days)) < len(self.days):
            raise ValueError("days: one is named twice")
        last = 0
        for window in self.hours_utc:
            start, end = _minutes(window)
            if not last <= start < end <= 24 * 60:
                raise ValueError(f"hours_utc: {window} overlaps another or ends before it begins")
            last = end
        return self

    @property
    def share_of_week(self) -> float:
        """Hours of the windows over those of a week: the share of usage that is spread evenly."""
        return len(self.days) * sum(end - start for start, end in map(_minutes, self.hours_utc)) / 60.0 / HOURS_PER_WEEK


def _minutes(window: str) -> tuple[int, int]:
    start, end = (int(text[:2]) * 60 + int(text[3:]) for text in window.split("-"))
    return start, end


class Period(_Part):
    """Prices that hold from a moment until another; those of off-peak hours where there are peak ones."""

    label: _Text
    since: Moment = Field(alias="from")
    until: Moment | None = Field(default=None, alias="to")
    """The first moment at which they hold no more."""
    input_hit: TokenPrice
    input_miss: TokenPrice
    output: TokenPrice
    cache_write: TokenPrice | None = None
    """Of an input token without a hit that is kept for later ones, where that has a price of its own."""
    peak: Peak | None = None

    @model_validator(mode="after")
    def _lasts(self) -> Period:
        if self.until is not None and self.until <= self.since:
            raise ValueError("to: ends before it begins")
        return self

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every price."""
        found = (
            figure
            for prices in (self, self.peak)
            if prices is not None
            for figure in (prices.input_hit, prices.input_miss, prices.output, prices.cache_write)
        )
        return tuple(figure for figure in found if figure is not None)


class PriceSheet(_Part):
    """What one provider asks for one model, in one currency."""

    schema_version: Literal[1] = Field(alias="schema")
    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    provider: _Text
    model: _Text
    currency: _Currency
    as_of: date
    periods: Annotated[tuple[Period, ...], Field(min_length=1, max_length=200, alias="period")]

    @model_validator(mode="after")
    def _one_after_another(self) -> PriceSheet:
        for earlier, later in zip(self.periods, self.periods[1:], strict=False):
            if earlier.until is None or later.since < earlier.until:
                raise ValueError(f"period: that from {moment_text(later.since)} begins before the one above it ends")
        for figure in (figure for period in self.periods for figure in period.figures):
            if figure.as_of is None:
                raise ValueError(f"period: a price of {figure.source} has no as_of; write the date of the source")
            if figure.as_of > self.as_of:
                raise ValueError(f"as_of: {self.as_of} is before that of a price, {figure.as_of}")
        return self


def moment_text(moment: datetime) -> str:
    """A date, with the time of day where that is not midnight UTC."""
    return f"{moment:%Y-%m-%d}" if moment.timetz() == time(tzinfo=UTC) else f"{moment:%Y-%m-%dT%H:%MZ}"


def period_at(sheet: PriceSheet, moment: datetime | None) -> Period:
    """The period that holds at a moment, the last one for ``None``; ``InputError`` outside the sheet's range."""
    if moment is None:
        return sheet.periods[-1]
    for period in sheet.periods:
        if period.since <= moment and (period.until is None or moment < period.until):
            return period
    spans = ", ".join(f"{moment_text(p.since)} to {moment_text(p.until) if p.until else 'now'}" for p in sheet.periods)
    raise InputError(f"has no prices for {moment_text(moment)}", where=f"price sheet {sheet.id}", mend=f"known: {spans}")


SHEETS: Catalogue[PriceSheet] = Catalogue(Path(__file__).parent / "sheets", PriceSheet, "price sheet")


def load_sheet(name: str) -> PriceSheet:
    """A price sheet of the catalogue, or a ``.toml`` file."""
    return SHEETS.load(name)
