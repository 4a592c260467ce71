"""How many copies of a deployment fit what there is of a scarce thing: memory of a kind, power, money, purchasable units.

A copy takes ``a_k`` of budget ``B_k``, so that ``min_k floor(B_k / a_k)`` copies fit; the budgets at that minimum bind. Memory
counts as installed, empty bytes too: it is bought with the system. Where one budget binds alone, more of it is worth the tokens
of a copy over ``a_k``, up to the amount at which another binds; where several bind, more of one alone is worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from planner.errors import InfeasibleError, InputError, nearest
from planner.fleet.schema import BudgetWorth, FleetBudget
from planner.hardware.installed import MEMORIES
from planner.quantities import Dimension, parse_quantity, plain, plain_up

SLACK = 1e-9
"""Relative error of a number of copies that is taken for rounding, as long as it is no more than a thousandth of a copy."""


def slack(copies: float) -> float:
    """By how much rounding may have moved a number of copies."""
    return min(SLACK * copies, 1e-3)


class _Kind(NamedTuple):
    dimension: Dimension
    bare: str | None
    """The unit of a bare number; ``None`` refuses it."""
    unit: str
    scale: float
    """SI units in the one it is said in."""
    most: float


_MEMORY = _Kind("bytes", None, "TB", 1e12, 1e24)
_KINDS: dict[str, _Kind] = {
    **dict.fromkeys(MEMORIES, _MEMORY),
    "power": _Kind("w", None, "MW", 1e6, 1e15),
    "usd": _Kind("usd", "USD", "USD", 1.0, 1e18),
    "units": _Kind("count", None, "units", 1.0, 1e12),
}
_EXAMPLE = "write hbm=10PB, power=50MW, usd=2e9 or units=100"


def parse_budgets(texts: Sequence[str]) -> dict[str, float]:
    """``["hbm=10PB", "power=50MW"]`` in SI units by name; ``InputError`` names what cannot be read."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, given = text.strip().partition("=")
        if not equals or not name:
            raise InputError(f"cannot read {text[:64]!r}", where="--budget", mend=_EXAMPLE)
        if name not in _KINDS:
            raise InputError(f"nothing is called {name[:64]!r}", where="--budget", mend=nearest(name[:64], list(_KINDS)))
        if name in found:
            raise InputError(f"{name} is given twice", where="--budget", mend="give each once")
        kind = _KINDS[name]
        try:
            value = parse_quantity(given, kind.dimension, bare_unit=kind.bare)
        except ValueError as error:
            raise InputError(f"{name}: {error}", where="--budget", mend=_EXAMPLE) from None
        found[name] = value
    _check(found)
    return found


def _check(budgets: Mapping[str, float]) -> None:
    for name, value in budgets.items():
        kind = _KINDS.get(name)
        if kind is None:
            raise InputError(f"nothing is called {name[:64]!r}", where="--budget", mend=nearest(name[:64], list(_KINDS)))
        if not 0.0 < value <= kind.most:
            most = f"{kind.most / kind.scale:g} {kind.unit}"
            raise InputError(f"{name}: must be above 0 and at most {most}", where="--budget", mend=_EXAMPLE)


def copies_within(budgets: Mapping[str, float], taken: Mapping[str, float]) -> dict[str, int]:
    """Whole copies that each budget holds; ``taken`` by one, SI units. ``InputError`` for what a copy takes nothing of."""
    _check(budgets)
    for name in budgets:
        if not taken.get(name, 0.0) > 0.0:
            known = ", ".join(other for other in _KINDS if taken.get(other, 0.0) > 0.0)
            raise InputError(f"the plan's hardware takes no {name}", where="--budget", mend=f"it takes {known}")
    held = {name: value / taken[name] for name, value in budgets.items()}
    return {name: math.floor(copies + slack(copies)) for name, copies in held.items()}


def refuse_more(budgets: Mapping[str, float], taken: Mapping[str, float], copies: int, what: str, tokens_per_copy: float) -> None:
    """``InfeasibleError`` where the budgets do not hold so many copies; ``what`` they are needed for, in words."""
    held = copies_within(budgets, taken)
    short = [name for name in budgets if held[name] < copies]
    if not short:
        return
    members: list[dict[str, object]] = []
    for name in short:
        kind = _KINDS[name]
        needed = taken[name] * copies / kind.scale
        each = taken[name] / kind.scale
        detail = f"{plain(budgets[name] / kind.scale)} {kind.unit} holds {held[name]:,} of {copies:,}, at {plain(each)} each"
        relief = f"raise to {plain_up(needed)} {kind.unit}"
        members.append(
            {"member": f"budget {name}", "detail": detail, "least_relief": relief, "amount": needed, "unit": kind.unit}
        )
    reliefs = " and ".join(f"{member['member']}: {member['least_relief']}" for member in members)
    number = f"{copies:,} {'copy' if copies == 1 else 'copies'}"
    raise InfeasibleError(
        f"proved infeasible: {what} takes {number}, the budgets hold {min(held.values()):,}; {reliefs}", members
    )


def budget_rows(
    budgets: Mapping[str, float],
    taken: Mapping[str, float],
    copies: int,
    *,
    tokens_per_copy: float | None,
    usd_per_copy: float | None,
) -> list[FleetBudget]:
    """What ``copies`` use of each budget and leave.

    ``tokens_per_copy`` a day where the budgets say how many copies there are, ``None`` where a demand does: more of a budget is
    worth nothing then. ``usd_per_copy``: revenue less cost of a copy's day.
    """
    held = copies_within(budgets, taken)
    rows = []
    for name, value in budgets.items():
        kind = _KINDS[name]
        each = taken[name] / kind.scale
        others = [count for other, count in held.items() if other != name]
        binds = held[name] == copies
        worth = None
        if tokens_per_copy is not None and binds:
            alone = all(count > copies for count in others)
            worth = BudgetWorth(
                tokens_per_day=tokens_per_copy / each if alone else 0.0,
                usd_per_day=None if usd_per_copy is None else usd_per_copy / each if alone else 0.0,
                valid_to=each * min(others) if others else None,
                copy_takes=each,
            )
        limit, used = value / kind.scale, each * copies
        rows.append(
            FleetBudget(
                budget=name,
                unit=kind.unit,
                limit=limit,
                used=used,
                left=max(limit - used, 0.0),
                copies=held[name],
                binds=binds,
                worth=worth,
            )
        )
    return rows
