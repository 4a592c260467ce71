"""Price bases. ``owned`` computes the hour from capital cost, life, power and upkeep."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.catalogue import Catalogue
from planner.quantities import Figure, FractionFigure, PositiveFraction, UsdPerKwhFigure, YearsFigure


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
    electricity: UsdPerKwhFigure
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
        pue: Figure = self.pue
        if pue.lowest < 1.0:
            raise ValueError("pue: the building draws at least what the machines do; write 1 or more")
        return self


FOLDER = Path(__file__).parent / "catalogue"
PRICES: Catalogue[OwnedPrices] = Catalogue("planner.prices", OwnedPrices, "price basis")


def load_prices(name: str) -> OwnedPrices:
    """A price basis of the catalogue, or a ``.toml`` file."""
    return PRICES.load(name)
