"""The basis ``owned``: what an hour costs its owner, from capital cost, life, power and upkeep."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.catalogue import Catalogue
from planner.errors import InputError, nearest
from planner.hardware.schema import RentBasis
from planner.quantities import Figure, FractionFigure, PositiveFraction, UsdPerKwhFigure, UsdPerKwMonthFigure, YearsFigure


class OwnedPrices(BaseModel):
    """The dated defaults of the basis ``owned``; the capital cost and the power are the system's own figures."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(alias="schema", default=1)
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    as_of: date
    currency: Literal["USD"]
    site: str | None = Field(default=None, max_length=64)
    """The site whose electricity, PUE and life these are, where they are one's."""
    cost_of_capital: FractionFigure
    """Per year."""
    life: YearsFigure
    residual_value: FractionFigure
    """Of the capital cost, at the end of life."""
    installation: FractionFigure
    """Added to the capital cost: network, storage, racks, commissioning."""
    maintenance: FractionFigure
    """Of the capital cost per year."""
    staff: FractionFigure
    """Of the capital cost per year."""
    electricity: UsdPerKwhFigure | None = None
    colocation: UsdPerKwMonthFigure | None = None
    """Of stated power, room, cooling and electricity together: in place of ``electricity``."""
    power_utilisation: FractionFigure
    """Mean power over the system's stated power."""
    pue: PositiveFraction
    utilisation: PositiveFraction
    """Share of the hours in which the deployment serves its load."""

    @model_validator(mode="after")
    def _shares(self) -> OwnedPrices:
        for name in ("residual_value", "power_utilisation", "utilisation"):
            figure: Figure = getattr(self, name)
            if figure.highest > 1.0:
                raise ValueError(f"{name}: a share is at most 1")
        if (self.electricity is None) == (self.colocation is None):
            raise ValueError("electricity: give either it or colocation, which has it in it")
        if self.colocation is not None and self.site is not None:
            raise ValueError("site: its electricity is in colocation; leave out one of them")
        pue: Figure = self.pue
        if pue.lowest < 1.0:
            raise ValueError("pue: the building draws at least what the machines do; write 1 or more")
        return self


FOLDER = Path(__file__).parent / "catalogue"
PRICES: Catalogue[OwnedPrices] = Catalogue("planner.prices", OwnedPrices, "price basis")


def load_prices(name: str) -> OwnedPrices:
    """A price basis of the catalogue, or a ``.toml`` file. ``InputError`` where there is none; it names the rented ones too."""
    try:
        return PRICES.load(name)
    except InputError as error:
        if not error.what.startswith("unknown "):
            raise
        known = [*PRICES.ids, *get_args(RentBasis)]
        raise InputError(error.what, where=error.where, mend=nearest(name[:64], known)) from None
