"""What an hour of hardware costs its owner (USD)."""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS_PER_YEAR = 8760.0


@dataclass(frozen=True)
class HourlyCost:
    """USD per hour by cause."""

    capital: float
    electricity: float
    maintenance: float
    staff: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.capital + self.electricity + self.maintenance + self.staff


def capital_recovery_factor(rate: float, years: float) -> float:
    """Yearly payment per unit of capital: ``r / (1 - (1+r)^-n)``, ``1/n`` without interest (Park, *Engineering Economics*)."""
    if rate == 0.0:
        return 1.0 / years
    return rate / -math.expm1(-years * math.log1p(rate))


def owned_hour(
    *,
    capex_usd: float,
    power_w: float,
    cost_of_capital: float,
    life_years: float,
    residual_value: float,
    installation: float,
    maintenance: float,
    staff: float,
    usd_per_kwh: float,
    power_utilisation: float,
    pue: float,
) -> HourlyCost:
    """Capital (less the present value of what remains), electricity at the mean power with PUE, upkeep and staff.

    Fractions are per year of the capital cost where they recur; ``power_w`` is the system's stated power.
    """
    installed = capex_usd * (1.0 + installation)
    remaining = residual_value * capex_usd * (1.0 + cost_of_capital) ** -life_years
    capital = (installed - remaining) * capital_recovery_factor(cost_of_capital, life_years) / HOURS_PER_YEAR
    electricity = power_w / 1000.0 * power_utilisation * pue * usd_per_kwh
    return HourlyCost(capital, electricity, capex_usd * maintenance / HOURS_PER_YEAR, capex_usd * staff / HOURS_PER_YEAR)
