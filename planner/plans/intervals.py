"""The interval of a prediction from the intervals of the figures it rests on.

Each group of figures moves to its slow and its fast end with placement and load kept; the deviations of a metric's
logarithm add in quadrature, upward and downward apart (independent lognormal errors, first order). Ends are the 10th and
90th percentile, as the figures' own are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from planner.performance import uncertain_groups
from planner.plans.context import Context, PoolContext
from planner.plans.decision import Decision
from planner.plans.hours import Terms, terms_of
from planner.plans.operate import BUSY_LIMIT, Operation, operate, with_rates

Metric = Callable[[Operation], float]


def perturbed(context: Context, decision: Decision, expected: Operation) -> list[tuple[str, str, Operation]]:
    """``(group, end, operation)`` for every group of uncertain figures at both ends."""
    result = []
    busy = expected.busy if context.asked is None else BUSY_LIMIT  # what is asked is served as long as the pool can
    for group in uncertain_groups(context.inputs.runtime):
        for end in ("low", "high"):
            moved = with_rates(context, group, end)
            alike = all(pool.rates.same_passes(context.pools[phase].rates) for phase, pool in moved.pools.items())
            known = expected.passes if alike else None
            result.append((group, end, operate(moved, decision, expected.placed, busy, known)))
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
    "colocation",
    "power_utilisation",
    "pue",
)


def hour_moves(context: Context, units: tuple[int, ...]) -> list[tuple[str, float]]:
    """``(figure, USD per hour)`` of the deployment with each price figure, and all capital costs (``capex``) or all rents
    (``rent``) together, at the lowest and then the highest of its interval."""
    terms = terms_of(context.inputs)
    systems = [count * p.unit_devices / p.system.devices for count, p in zip(units, context.pools.values(), strict=True)]

    def hour(at: Terms, capex: Callable[[PoolContext], float] = lambda pool: pool.system.capex.value) -> float:
        pools = zip(systems, context.pools.values(), strict=True)
        return sum(count * at.hour(pool.system, capex(pool)).total for count, pool in pools)

    if terms.rented:
        return [("rent", hour(replace(terms, rent_end="low"))), ("rent", hour(replace(terms, rent_end="high")))]
    moved = []
    for name in _PRICE_FIGURES:
        figure = getattr(terms.prices, name)
        for end in () if figure is None else (figure.lowest, figure.highest):
            changed = terms.prices.model_copy(update={name: figure.model_copy(update={"value": end})})
            moved.append((name, hour(replace(terms, prices=changed))))
    moved.append(("capex", hour(terms, lambda pool: pool.system.capex.lowest)))
    moved.append(("capex", hour(terms, lambda pool: pool.system.capex.highest)))
    return moved
