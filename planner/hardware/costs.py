"""What a system costs: the lines of its price, and the rents of an hour that are offered."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from planner.hardware.vocabulary import Identifier, Name, Table, Usd, UsdPerHour


class CapexLine(Table):
    """What all parts of one sort cost in a system (USD of the whole system)."""

    id: Identifier
    name: Name
    capex: Usd


RentBasis = Literal["rent_od", "rent_1y", "rent_3y", "rent_spot", "tco"]
"""Rented on demand, for a year or three, or while nobody bids more; or what owners say that an hour costs them, all in."""


class Rent(Table):
    """What an hour of one device, or of the whole system, is rented out for: machine, electricity, upkeep and staff together."""

    basis: RentBasis
    per: Literal["device", "system"]
    provider: Name
    usd_per_hour: UsdPerHour

    @property
    def id(self) -> str:
        """The row in messages."""
        return f"{self.basis}.{self.provider}"

    @model_validator(mode="after")
    def _known(self) -> Rent:
        if not self.usd_per_hour.known:
            raise ValueError("usd_per_hour: a price that nobody has published is no row; leave it out")
        return self
