"""Dated exchange rates: what an amount of another currency was in USD, and where the rate comes from."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError, nearest
from planner.quantities import Figure, figure_of

if TYPE_CHECKING:
    PerUsd: TypeAlias = Figure
else:
    PerUsd = figure_of("count")

USD = "USD"
LONGEST_VALIDITY = timedelta(days=366)
"""How long a rate serves after its day where there is no newer one."""
RATES = Path(__file__).parent / "currency.toml"


class Rate(BaseModel):
    """Units of a currency for one USD on the figure's ``as_of``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    per_usd: PerUsd

    @property
    def day(self) -> date:
        """The day it was quoted."""
        return self.per_usd.as_of or date.min


class Rates(BaseModel):
    """All known rates."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(alias="schema")
    rate: tuple[Rate, ...]


@cache
def load_rates(path: Path = RATES) -> Rates:
    """The rates of a TOML file; ``InputError`` with file and key where it is none."""
    try:
        return Rates.model_validate(parse_toml(read_text(path), str(path)))
    except ValidationError as error:
        raise explain_validation(error, str(path)) from None


def rate_at(currency: str, day: date | None) -> Rate | None:
    """The newest rate at or before a day (of all for ``None``); ``None`` for USD itself.

    ``InputError`` for an unknown currency, a day before the first rate, or one more than ``LONGEST_VALIDITY`` after the last.
    """
    if currency == USD:
        return None
    rates = load_rates().rate
    known = sorted((rate for rate in rates if rate.currency == currency), key=lambda rate: rate.day)
    if not known:
        names = sorted({USD, *(rate.currency for rate in rates)})
        raise InputError(f"unknown currency {currency[:16]!r}", where="currency", mend=nearest(currency[:16], names))
    usable = [rate for rate in known if day is None or rate.day <= day]
    if not usable or (day is not None and day - usable[-1].day > LONGEST_VALIDITY):
        span = f"rates are of {known[0].day} to {known[-1].day}"
        raise InputError(f"no rate of {currency} for {day}", where="currency", mend=f"{span}, and serve a year at most")
    return usable[-1]


def usd(amount: float, rate: Rate | None) -> float:
    """An amount in USD: at the rate, or as it stands for ``None`` (it is USD already)."""
    return amount if rate is None else amount / rate.per_usd.value
