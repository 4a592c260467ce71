"""Which of the offers in a profile an hour is rented at, and how far offers lie apart.

The offers of a basis count that are current at the date: the newest at or before it, and those of ``CURRENT_DAYS`` before that
day. The lower median of them is taken: an offer that somebody makes, no mean of two, and not one because it is the newest.
Its interval spans the own intervals of all of them: what the same hour is sold for elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from planner.errors import InputError
from planner.hardware import System
from planner.hardware.schema import Rent

CURRENT_DAYS = 180


@dataclass(frozen=True)
class Quote:
    """USD for an hour of one system with its interval, the offer it is taken from, and how many offers the interval spans."""

    usd_per_hour: float
    low: float
    high: float
    offer: Rent
    offers: int

    @property
    def as_of(self) -> date:
        """The day of the offer."""
        return day_of(self.offer)


def day_of(rent: Rent) -> date:
    """The day of an offer (every figure of a profile has one)."""
    assert rent.usd_per_hour.as_of is not None
    return rent.usd_per_hour.as_of


def quote_of(system: System, basis: str, on: date | None = None) -> Quote:
    """The rent of a system at a date (default that of the newest offer known).

    ``InputError`` in one line where the profile has none: it names what it has.
    """
    rows = [rent for rent in system.rents if rent.basis == basis]
    if not rows:
        raise InputError(f"{system.id} has no price of basis {basis}", where="--price-basis", mend=_known(system))
    known = [rent for rent in rows if on is None or day_of(rent) <= on]
    if not known:
        first = min(day_of(rent) for rent in rows)
        mend = f"known from {first} to {max(day_of(rent) for rent in rows)}"
        raise InputError(f"{system.id} has no {basis} price at or before {on}", where="--price-date", mend=mend)
    newest = max(day_of(rent) for rent in known)
    current = [rent for rent in known if day_of(rent) >= newest - timedelta(days=CURRENT_DAYS)]
    current.sort(key=lambda rent: (_of_system(rent, system), rent.id))
    offer = current[(len(current) - 1) // 2]
    return Quote(
        _of_system(offer, system),
        min(rent.usd_per_hour.lowest * _systems(rent, system) for rent in current),
        max(rent.usd_per_hour.highest * _systems(rent, system) for rent in current),
        offer,
        len(current),
    )


def _systems(rent: Rent, system: System) -> int:
    """How often an offer is taken for one system."""
    return system.devices if rent.per == "device" else 1


def _of_system(rent: Rent, system: System) -> float:
    return rent.usd_per_hour.value * _systems(rent, system)


def _known(system: System) -> str:
    if not system.rents:
        return "it has prices of basis owned alone; add [[rent]] tables to a copy of its profile"
    spans = []
    for basis in sorted({rent.basis for rent in system.rents}):
        days = sorted(day_of(rent) for rent in system.rents if rent.basis == basis)
        spans.append(f"{basis} ({days[0]})" if days[0] == days[-1] else f"{basis} ({days[0]} to {days[-1]})")
    return f"it has owned, {', '.join(spans)}"
