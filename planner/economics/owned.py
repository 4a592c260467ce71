"""What an hour of hardware costs (USD), by cause: the hour of an owner, or a rent."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

HOURS_PER_YEAR = 8760.0
HOURS_PER_MONTH = HOURS_PER_YEAR / 12.0


@dataclass(frozen=True)
class HourlyCost:
    """USD per hour by cause. A rent has the other causes in it, colocation the electricity."""

    capital: float = 0.0
    electricity: float = 0.0
    maintenance: float = 0.0
    staff: float = 0.0
    colocation: float = 0.0
    rent: float = 0.0

    @property
    def total(self) -> float:
        """The sum."""
        return self.capital + self.electricity + self.maintenance + self.staff + self.colocation + self.rent


CAUSES = tuple(field.name for field in fields(HourlyCost))


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
    usd_per_kw_month: float | None = None,
) -> HourlyCost:
    """Capital (less the present value of what remains), electricity at the mean power with PUE, upkeep and staff.

    Fractions are per year of the capital cost where they recur; ``power_w`` is the system's stated power. ``usd_per_kw_month``:
    colocation, paid for the stated power in place of electricity.
    """
    installed = capex_usd * (1.0 + installation)
    remaining = residual_value * capex_usd * (1.0 + cost_of_capital) ** -life_years
    power_kw = power_w / 1000.0
    upkeep = {"maintenance": capex_usd * maintenance / HOURS_PER_YEAR, "staff": capex_usd * staff / HOURS_PER_YEAR}
    if usd_per_kw_month is None:
        upkeep["electricity"] = power_kw * power_utilisation * pue * usd_per_kwh
    else:
        upkeep["colocation"] = power_kw * usd_per_kw_month / HOURS_PER_MONTH
    return HourlyCost(
        capital=(installed - remaining) * capital_recovery_factor(cost_of_capital, life_years) / HOURS_PER_YEAR, **upkeep
    )
