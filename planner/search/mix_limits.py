"""What is limited over the pools of an inventory, what more of it would be worth, and how little more of it would do.

A limit is a row over units: systems, stated power, memory as installed, money. All that is said of it here comes from solving
the fleet's integer program again: with one step more of it (its worth), or with its use in place of the cost (the least that
serves the demand, all other limits as they are).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from planner.errors import InputError, StoppedError
from planner.hardware.installed import installed_bytes
from planner.plans.mix import Worth
from planner.prices.inventory import Inventory, InventoryPool
from planner.quantities import plain, plain_up, round12
from planner.search.fleet_master import Option, choose_fleet

if TYPE_CHECKING:
    from planner.search.mix import Budget, Offer

Use = Callable[["Offer"], float]


@dataclass(frozen=True)
class Row:
    """What is limited, to how much, in which unit, and what a unit of each offer uses; ``pool``: the units of one pool."""

    name: str
    limit: float
    unit: str
    uses: tuple[float, ...]
    pool: bool = False


def limits_of(inventory: Inventory, offers: Sequence[Offer], budget: Budget) -> list[Row]:
    """The units of every pool, the limits of the inventory, those of the whole fleet. ``InputError`` where one limits nothing."""

    def row(name: str, limit: float, unit: str, use: Use, of: Callable[[InventoryPool], bool]) -> Row:
        return Row(name, limit, unit, tuple(use(offer) if of(offer.pool) else 0.0 for offer in offers))

    rows = [Row(f"units of {o.pool.id}", o.units, "units", tuple(float(other is o) for other in offers), True) for o in offers]
    for limit in inventory.limit:
        if limit.systems is not None:
            rows.append(row(limit.label, limit.systems, "systems", _systems, limit.covers))
        if limit.power_kw is not None:
            rows.append(row(limit.label, limit.power_kw, "kW", _power_kw, limit.covers))
        for kind, size in limit.memory.items():
            found = row(f"{kind} of {limit.label}", size / 1e9, "GB", _gigabytes(kind), limit.covers)
            if not any(found.uses):
                known = sorted({kind for o in offers if limit.covers(o.pool) for kind in installed_bytes(o.stated.system)})
                raise InputError(f"none of {limit.label} has {kind}", where="limit: memory", mend=f"there is {', '.join(known)}")
            rows.append(found)
    whole: tuple[tuple[str, float | None, str, Use], ...] = (
        ("--budget-usd", budget.capital_usd, "USD", lambda o: o.capital_per_unit),
        ("--max-usd-per-hour", budget.usd_per_hour, "USD/h", lambda o: o.usd_per_unit_hour),
        ("--max-power-kw", budget.power_kw, "kW", _power_kw),
    )
    return rows + [row(name, most, unit, use, lambda pool: True) for name, most, unit, use in whole if most is not None]


def _systems(offer: Offer) -> float:
    return 1.0 / offer.per_system


def _power_kw(offer: Offer) -> float:
    return offer.watts_per_unit / 1e3


def _gigabytes(kind: str) -> Use:
    return lambda offer: installed_bytes(offer.stated.system).get(kind, 0.0) / offer.per_system / 1e9


def worth_of(rows: Sequence[Row], options: Sequence[Option], demand: float | None, value: float) -> list[Worth | None]:
    """What one step more of each limit changes, the units of the pools apart: what the unit that takes most of it takes.

    ``value``: USD an hour of the fleet that was found for ``demand``, or its requests/s without one. The same program is solved
    again over the same deployments; ``None`` where it ended without an answer.
    """
    return [None if row.pool else _worth(index, rows, options, demand, value) for index, row in enumerate(rows)]


def _worth(index: int, rows: Sequence[Row], options: Sequence[Option], demand: float | None, value: float) -> Worth | None:
    step = max(rows[index].uses)
    if not step > 0.0:
        return None
    limits = [row.limit + (step if number == index else 0.0) for number, row in enumerate(rows)]
    try:
        more = choose_fleet(options, limits, demand)
    except StoppedError:
        return None
    if more is None:
        return None
    taken = list(zip(more.counts, options, strict=True))
    reached = sum(n * (o.rate if demand is None else o.usd_per_hour) for n, o in taken)
    gain = reached - value if demand is None else value - reached
    gain = gain if gain > 1e-9 * abs(value) else 0.0
    return Worth(step=round12(step), gain=round12(gain), per_unit=round12(gain / step))


def reliefs(
    rows: Sequence[Row], found: Sequence[Option], proof: Sequence[Option], demand: float | None
) -> list[dict[str, object]]:
    """For each limit that alone stands in the way: the least of it that would do, all others as they are.

    ``found``: deployments that there are, which say what would do; ``proof``: their bounds, which say what would not. Without a
    demand one deployment is asked for.
    """
    members: list[dict[str, object]] = []
    for index, row in enumerate(rows):
        ends = [_least_use(index, rows, options, demand) for options in (found, proof)]
        enough, least = ends
        if enough is None or enough <= row.limit * (1.0 + 1e-9):
            continue
        relief = f"raise to {plain_up(enough)} {row.unit}"
        if least is None or least < enough * (1.0 - 1e-6):
            relief += "" if least is None else f" (no less than {plain_up(least)} would do)"
        members.append(
            {
                "member": row.name,
                "detail": f"at most {plain(float(row.limit))} {row.unit}",
                "least_relief": relief,
                "amount": enough,
                "unit": row.unit,
            }
        )
    return members


def _least_use(index: int, rows: Sequence[Row], options: Sequence[Option], demand: float | None) -> float | None:
    """The least of a limit that serves the demand; ``None`` where no amount of it does."""
    serving = [option for option in options if option.rate > 0.0]
    if not serving:
        return None
    asked = min(option.rate for option in serving) / 2.0 if demand is None else demand
    swapped = [
        replace(option, usd_per_hour=option.uses[index], uses=option.uses[:index] + option.uses[index + 1 :])
        for option in serving
    ]
    limits = [row.limit for number, row in enumerate(rows) if number != index]
    try:
        chosen = choose_fleet(swapped, limits, asked)
    except StoppedError:
        return None
    return None if chosen is None else sum(n * o.usd_per_hour for n, o in zip(chosen.counts, swapped, strict=True))
