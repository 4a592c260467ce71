"""What an hour of a system costs on the terms of a plan: owned, or rented at the offers of its profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from planner.economics import HourlyCost, owned_hour
from planner.economics.rented import Quote, quote_of
from planner.errors import InputError
from planner.hardware import System
from planner.plans.inputs import Inputs, PriceBasis
from planner.plans.schema import Plan
from planner.prices import OwnedPrices


@dataclass(frozen=True)
class Terms:
    """A price basis at a date; ``rent_end``: which end of a rent's interval counts."""

    prices: OwnedPrices
    basis: PriceBasis = "owned"
    on: date | None = None
    rent_end: Literal["low", "usd_per_hour", "high"] = "usd_per_hour"

    @property
    def rented(self) -> bool:
        """Whether hours are rented."""
        return self.basis != "owned"

    @property
    def name(self) -> str:
        """The basis as plans print it."""
        return self.basis if self.rented else self.prices.id

    def quote(self, system: System) -> Quote:
        """The rent of one system. ``InputError`` where none is known of that basis and date."""
        newest = max(system.as_of, self.prices.as_of)
        if self.on is not None and self.on > newest:
            raise InputError(f"{self.on} lies after {newest}", where="--price-date", mend="prices are known until then")
        return quote_of(system, self.basis, self.on)

    def hour(self, system: System, capex_usd: float | None = None) -> HourlyCost:
        """The hour of one system by cause; ``capex_usd`` in place of what the profile says that an owner pays."""
        if self.rented:
            return HourlyCost(rent=getattr(self.quote(system), self.rent_end))
        return system_cost(system, self.prices, system.capex.value if capex_usd is None else capex_usd)


def terms_of(inputs: Inputs) -> Terms:
    """Those that a plan was made on, rents at their value."""
    return Terms(inputs.prices, inputs.options.price_basis, inputs.options.price_date)


def system_cost(system: System, prices: OwnedPrices, capex_usd: float) -> HourlyCost:
    """The hour of one owned system by cause."""
    return owned_hour(
        capex_usd=capex_usd,
        power_w=system.power.value,
        cost_of_capital=prices.cost_of_capital.value,
        life_years=prices.life.value,
        residual_value=prices.residual_value.value,
        installation=prices.installation.value,
        maintenance=prices.maintenance.value,
        staff=prices.staff.value,
        usd_per_kwh=0.0 if prices.electricity is None else prices.electricity.value,
        power_utilisation=prices.power_utilisation.value,
        pue=prices.pue.value,
        usd_per_kw_month=None if prices.colocation is None else prices.colocation.value,
    )


def refuse_mixed_bases(plans: Sequence[tuple[str, Plan]]) -> None:
    """``InputError`` where plans, each with the name of its file, are priced on several bases or in several currencies."""
    kinds = sorted({f"{plan.cost.basis} in {plan.cost.currency}" for _, plan in plans})
    if len(kinds) > 1:
        where = " and ".join(name for name, _ in plans)
        raise InputError(
            f"prices of {' and '.join(kinds)} are not to be mixed", where=where, mend="plan both with the same --price-basis"
        )
