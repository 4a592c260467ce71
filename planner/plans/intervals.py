"""The interval of a prediction from the intervals of the figures it rests on.

Each group of figures moves to its slow and its fast end with placement and load kept; the deviations of a metric's
logarithm add in quadrature, upward and downward apart (independent lognormal errors, first order). Ends are the 10th and
90th percentile, as the figures' own are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from planner.performance import uncertain_groups
from planner.plans.context import Context, PoolContext, system_hour
from planner.plans.decision import Decision
from planner.plans.operate import Operation, operate, with_rates
from planner.prices import OwnedPrices

Metric = Callable[[Operation], float]


def perturbed(context: Context, decision: Decision, expected: Operation) -> list[tuple[str, str, Operation]]:
    """``(group, end, operation)`` for every group of uncertain figures at both ends."""
    result = []
    for group in uncertain_groups(context.inputs.runtime):
        for end in ("low", "high"):
            moved = with_rates(context, group, end)
            alike = all(pool.rates.same_passes(context.pools[phase].rates) for phase, pool in moved.pools.items())
            known = expected.passes if alike else None
            result.append((group, end, operate(moved, decision, expected.placed, expected.busy, known)))
    return result


def interval(metric: Metric, expected: Operation, others: list[tuple[str, str, Operation]]) -> dict[str, float | None]:
    """``{low, expected, high}`` of a positive metric; an end is ``None`` where some perturbation has no finite value."""
    return combine(metric(expected), [metric(operation) for _, _, operation in others])


def within_high(high_ms: float | None, limit_s: float) -> bool:
    """Whether the slow end of a time is known and within its limit (to 1e-9 relative)."""
    return high_ms is not None and high_ms <= limit_s * 1e3 * (1.0 + 1e-9)


def combine(value: float, moved: list[float]) -> dict[str, float | None]:
    """Quadrature of log deviations, downward and upward apart."""
    down = up = 0.0
    low_known = high_known = True
    for other in moved:
        if not math.isfinite(other) or other <= 0.0:
            high_known = high_known and math.isfinite(other)
            low_known = low_known and other > 0.0
            continue
        deviation = math.log(other / value)
        if deviation < 0.0:
            down += deviation * deviation
        else:
            up += deviation * deviation
    return {
        "low": value * math.exp(-math.sqrt(down)) if low_known else None,
        "expected": value,
        "high": value * math.exp(math.sqrt(up)) if high_known else None,
    }


_PRICE_FIGURES = (
    "cost_of_capital",
    "life",
    "residual_value",
    "installation",
    "maintenance",
    "staff",
    "electricity",
    "power_utilisation",
    "pue",
)


def hour_moves(context: Context, units: tuple[int, ...]) -> list[float]:
    """USD per hour of the deployment with each price figure, and all capital costs together, at both ends."""
    prices = context.inputs.prices
    pools = list(context.pools.values())

    def hour(at: OwnedPrices, capex: Callable[[PoolContext], float]) -> float:
        return sum(
            count * pool.unit_devices / pool.system.devices * system_hour(pool.system, at, capex(pool))
            for count, pool in zip(units, pools, strict=True)
        )

    moved = []
    for name in _PRICE_FIGURES:
        figure = getattr(prices, name)
        for end in (figure.lowest, figure.highest):
            changed = prices.model_copy(update={name: figure.model_copy(update={"value": end})})
            moved.append(hour(changed, lambda pool: pool.system.capex.value))
    moved.append(hour(prices, lambda pool: pool.system.capex.lowest))
    moved.append(hour(prices, lambda pool: pool.system.capex.highest))
    return moved
