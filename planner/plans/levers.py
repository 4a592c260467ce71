"""What would help a plan, and how sure it is: rows of its explanation, from what it computed already."""

from __future__ import annotations

import math
from typing import Any

from planner.plans.context import Context
from planner.plans.intervals import hour_moves
from planner.plans.operate import Operation
from planner.plans.worth import blended_usd, operation_objective

Moved = list[tuple[str, str, Operation]]
"""The deployment with each group of uncertain figures at either end."""


def lever_rows(context: Context, operation: Operation, prices: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shadow prices on one scale. ``prices``: the plan's ``shadow_prices``.

    Of a capacity or a bandwidth ``more`` is 1 % of what each device of the pool has ``now``, in ``unit``; ``usd_per_hour`` is
    what that is worth on all devices of the pool and ``gain`` by which part it betters the objective, at the slope of one more.
    Of a system ``more`` is one purchasable unit; ``costs_usd_per_hour`` is its price and ``per_usd`` what one USD spent on it
    returns. Nobody sells a GB/s of a device: the others have no price, and their worth is the most that is worth paying.
    """
    rows = []
    states = {state.decision.phase: state for state in operation.pools}
    whole = abs(_objective(context, operation))
    for price in prices:
        unit = price["unit"].startswith("unit")
        row = {key: price[key] for key in ("pool", "resource", "unit")}
        if unit:
            cost = context.pools[price["pool"]].usd_per_unit_hour
            worth, now, more, gain = price["usd_per_hour_per_unit"], price["valid_from"], 1.0, None
        else:
            state = states[price["pool"]]
            rates = state.pool.rates
            own = {f"{rates.memory_id} capacity": rates.memory_bytes, f"{rates.memory_id} bandwidth": rates.memory_bytes_per_s}
            now = own[price["resource"]] / 1e9 if price["resource"] in own else price["valid_from"]
            more, cost = now / 100.0, None
            gain = abs(price["objective_per_unit"]) * more / whole
            worth = price["usd_per_hour_per_unit"] * more * state.decision.devices
        row |= {"now": now, "more": more, "gain": gain, "usd_per_hour": worth, "costs_usd_per_hour": cost}
        rows.append(row | {"per_usd": worth / cost if cost else None})
    return rows


def uncertainty_rows(context: Context, operation: Operation, others: Moved) -> list[dict[str, Any]]:
    """The objective with each group of uncertain figures alone at its ends: ``low`` and ``high`` of the objective, and the
    ``share`` of the sum of the squares of all log deviations, from which the plan's intervals are made. ``null``: nothing is
    served at that end."""
    expected = _objective(context, operation)
    moved = [(group, _objective(context, other)) for group, _, other in others]
    if context.inputs.options.objective == "cost":
        moved += [
            (f"prices.{name}", blended_usd(context, hour, operation.requests_per_s))
            for name, hour in hour_moves(context, operation.units)
        ]
    ends: dict[str, list[float]] = {}
    for group, value in moved:
        ends.setdefault(group, []).append(value)
    squares = {group: sum(_square(value, expected) for value in values) for group, values in ends.items()}
    whole = math.fsum(squares.values())
    return [
        {
            "figures": group,
            "low": _finite(min(*values, expected)),
            "high": _finite(max(*values, expected)),
            "share": squares[group] / whole,
        }
        for group, values in ends.items()
        if squares[group] > 0.0
    ]


def _objective(context: Context, operation: Operation) -> float:
    if operation.requests_per_s <= 0.0:
        return math.inf
    return operation_objective(context, operation)


def _square(value: float, expected: float) -> float:
    return math.log(value / expected) ** 2 if 0.0 < value < math.inf else 0.0


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
