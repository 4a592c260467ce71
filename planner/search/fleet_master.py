"""How many deployments of each size on each pool: a small integer program, exact, and a bound from the bounds of its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.errors import StoppedError

GRAIN = 2**40
"""Coefficients are whole parts of a limit, rounded so that no fleet within the limits is lost."""
WORTH = 10**9
"""The largest of the numbers that are summed as the objective."""
EFFORT = 60.0
"""Deterministic time of the integer program; beyond it the best bound so far counts."""


@dataclass(frozen=True)
class Option:
    """One deployment: its pool (an index), the units it takes, requests/s, USD an hour, and its part of every limit."""

    pool: int
    units: int
    rate: float
    usd_per_hour: float
    uses: tuple[float, ...]


@dataclass(frozen=True)
class Chosen:
    """How many of each option, and the bound on the objective (USD an hour at least, or requests/s at most)."""

    counts: tuple[int, ...]
    bound: float


def most_of(option: Option, limits: Sequence[float], demand: float | None) -> int:
    """Deployments of an option beyond which no more fit, or none are needed."""
    room = [limit / use * (1 + 1e-12) for use, limit in zip(option.uses, limits, strict=True) if use > 0.0]
    if demand is not None and option.rate > 0.0:
        room.append(math.ceil(demand / option.rate))
    return int(min(room, default=0.0)) if option.rate > 0.0 else 0


def choose_fleet(options: Sequence[Option], limits: Sequence[float], demand: float | None) -> Chosen | None:
    """The cheapest fleet that serves ``demand`` (requests/s) within the limits; without one, the cheapest that serves most.

    ``None``: there is none. Of fleets that cost the same to nine digits the one that costs less in the next nine is taken, so
    that of two identical pools the dearer is used only where it is needed. Every rounding widens what is allowed by a few parts
    in 10^12 and lowers costs (raises rates) likewise, so the bound holds for the numbers as given.
    """
    if demand is not None:
        return _solve(options, limits, demand, [option.usd_per_hour for option in options], least=True)
    most = _solve(options, limits, None, [option.rate for option in options], least=False)
    if most is None:
        return None
    reached = sum(count * option.rate for count, option in zip(most.counts, options, strict=True))
    if reached <= 0.0:
        return None
    try:
        cheapest = _solve(options, limits, reached, [option.usd_per_hour for option in options], least=True)
    except StoppedError:
        return most
    return most if cheapest is None else Chosen(cheapest.counts, most.bound)


def _solve(
    options: Sequence[Option], limits: Sequence[float], demand: float | None, worth: Sequence[float], *, least: bool
) -> Chosen | None:
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    counts = [model.new_int_var(0, most_of(option, limits, demand), f"n{i}") for i, option in enumerate(options)]
    for number, limit in enumerate(limits):
        terms = [
            (min(math.floor(o.uses[number] / limit * GRAIN), GRAIN), count) for o, count in zip(options, counts, strict=True)
        ]
        used = [part * count for part, count in terms]
        if used:
            model.add(sum(used) <= GRAIN)
    if demand is not None:
        served = [min(math.ceil(o.rate / demand * GRAIN), GRAIN) * count for o, count in zip(options, counts, strict=True)]
        model.add(sum(served) >= GRAIN)
    scale = WORTH / max(worth, default=1.0) if max(worth, default=0.0) > 0.0 else 1.0
    rounded = math.floor if least else math.ceil
    total = sum(rounded(one * scale) * count for one, count in zip(worth, counts, strict=True))
    model.minimize(total) if least else model.maximize(total)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = EFFORT
    status = solver.solve(model)
    if status == cp_model.INFEASIBLE:
        return None
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        raise StoppedError("the fleet's integer program ended without an answer")
    chosen = Chosen(tuple(int(solver.value(count)) for count in counts), solver.best_objective_bound / scale)
    digits = [int((one * scale - math.floor(one * scale)) * WORTH) for one in worth]
    if not least or not any(digits):
        return chosen
    model.add(total <= round(solver.objective_value))
    model.minimize(sum(digit * count for digit, count in zip(digits, counts, strict=True)))
    if solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Chosen(tuple(int(solver.value(count)) for count in counts), chosen.bound)
    return chosen
