"""One plan after another for a comparison; who calls says how to plan."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.architecture import Model
from planner.comparison.compare import MOST_ROWS, Candidate, Terms
from planner.comparison.judged import judge
from planner.comparison.schema import Budget, Status
from planner.errors import InfeasibleError, InputError, StoppedError
from planner.hardware import HardwareSelection
from planner.plans.context import build_context
from planner.plans.hours import terms_of
from planner.plans.inputs import Inputs
from planner.plans.schema import Plan
from planner.search import Stop

Selections = dict[str, HardwareSelection]
_MOST_SYSTEMS = 1_000_000


@dataclass(frozen=True)
class Cell:
    """A model on a hardware; ``options`` hold for it alone."""

    model: Model
    hardware: str
    pools: Selections
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planner:
    """How to resolve and to plan a model on hardware: with what options all rows share, and those given here."""

    resolve: Callable[[Model, Selections, Mapping[str, Any]], Inputs]
    plan: Callable[[Model, Selections, Mapping[str, Any]], Plan]


@dataclass(frozen=True)
class Planned:
    """A candidate for every cell, what each might spend, the terms they share, and why it ended early."""

    candidates: list[Candidate]
    budget: Budget | None
    terms: Terms
    stopped: str | None


def plan_all(
    cells: Sequence[Cell],
    planner: Planner,
    *,
    equal: Literal["cost", "power"] | None = None,
    stop: Stop | None = None,
    beginning: Callable[[int, int, str], None] | None = None,
) -> Planned:
    """Plan every cell in turn; what fails says why. The time left to ``stop`` is shared out evenly among the rows to come.

    ``InputError`` where the inputs of every row are refused.
    """
    if not 1 <= len(cells) <= MOST_ROWS:
        raise InputError(
            f"{len(cells)} rows are not from 1 to {MOST_ROWS}", where="compare", mend="name fewer, or see planner sweep"
        )
    stop = stop or Stop()
    deadline, found, refused = stop.deadline, list[Candidate](), list[InputError]()
    budget: Budget | None = None
    for number, cell in enumerate(cells):
        if beginning is not None:
            beginning(number, len(cells), f"{cell.model.id} on {cell.hardware}")
        if deadline is not None:
            now = time.monotonic()
            stop.deadline = now + (deadline - now) / (len(cells) - number)
        plan: Plan | None = None
        status: Status = "planned"
        reason, conflict = None, None
        try:
            if stop.interrupted:
                raise StoppedError("interrupted before its turn")
            if equal and number and budget is None:
                raise InputError("what the first row spends is not known", where="--equal", mend="mend the first row")
            pools, limit = (cell.pools, {}) if budget is None else _scaled(cell, planner, budget)
            plan = planner.plan(cell.model, pools, {**cell.options, **limit})
            budget = budget or (equal and _budget(plan, equal)) or None
        except InfeasibleError as error:
            status, reason, conflict = "infeasible", str(error), error.conflict
        except StoppedError as error:
            status, reason = "stopped", str(error)
        except InputError as error:
            status, reason = "refused", str(error)
            refused.append(error)
        found.append(Candidate(cell.model.id, cell.hardware, plan, status, reason, conflict))
    stop.deadline = deadline
    if len(refused) == len(cells):
        raise refused[0]
    stopped = [one.plan.certificate.stopped if one.plan else "time limit" if one.status == "stopped" else None for one in found]
    why = "interrupted" if stop.interrupted else next((reason for reason in stopped if reason), None)
    return Planned(found, budget, _terms(cells, found, planner), why)


def _terms(cells: Sequence[Cell], found: Sequence[Candidate], planner: Planner) -> Terms:
    """Those of the first row whose inputs go together."""
    cell = next(cell for cell, one in zip(cells, found, strict=True) if one.status != "refused")
    inputs = planner.resolve(cell.model, cell.pools, cell.options)
    terms, options = terms_of(inputs), inputs.options
    share = inputs.prices.utilisation.value if options.utilisation is None else options.utilisation
    as_of = next((one.plan.cost.as_of for one in found if one.plan), terms.prices.as_of.isoformat())
    return Terms(inputs.workload.id, options.objective, terms.name, terms.prices.currency, as_of, share)


def _budget(plan: Plan, what: Literal["cost", "power"]) -> Budget:
    """What a plan spends: USD an hour, or kW of stated power, of all units it pays for."""
    judged = judge(plan, plan.hardware)
    if what == "cost":
        return Budget(what=what, amount=judged.expected.usd_per_hour, unit="USD/h")
    return Budget(what=what, amount=judged.watts / 1e3, unit="kW")


def _scaled(cell: Cell, planner: Planner, budget: Budget) -> tuple[Selections, dict[str, float]]:
    """As many whole systems of each kind as reach the budget, and the option that keeps what is used of them within it."""
    context = build_context(planner.resolve(cell.model, cell.pools, cell.options))
    option = "max_usd_per_hour" if budget.what == "cost" else "max_power_kw"
    asked = getattr(context.inputs.options, option)
    amount = budget.amount if asked is None else min(budget.amount, asked)
    pools = {}
    for phase, pool in context.pools.items():
        each = pool.usd_per_hour if budget.what == "cost" else pool.system.power.value / 1e3
        count = min(max(math.ceil(amount / each - 1e-9), 1), _MOST_SYSTEMS)
        pools[phase] = cell.pools[phase].model_copy(update={"count": count, "auto": False})
    return pools, {option: amount}
