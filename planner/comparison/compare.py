"""From plans to a comparison."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from planner.comparison.chance import DRAWS, SEED
from planner.comparison.figures import figures_of
from planner.comparison.judged import Judged, judge, of_hardware
from planner.comparison.ranking import UNRANKED, Ranking
from planner.comparison.schema import Budget, Comparison, Equal, Row, Sampling, Status
from planner.comparison.words import Order, notes_of, summary_of
from planner.errors import InputError
from planner.plans.inputs import Objective
from planner.plans.pareto import UNITS_OF
from planner.plans.schema import Plan

MOST_ROWS = 100


@dataclass(frozen=True)
class Terms:
    """What holds for every row."""

    workload: str
    objective: Objective
    basis: str
    currency: str
    as_of: str
    utilisation: float


def terms_of_plan(plan: Plan) -> Terms:
    """Those that a plan was made on."""
    cost = plan.cost
    return Terms(plan.workload, plan.objective, cost.basis, cost.currency, cost.as_of, cost.utilisation)


@dataclass(frozen=True)
class Candidate:
    """A model on a hardware, as asked for: its plan, or why there is none."""

    model: str
    hardware: str
    plan: Plan | None = None
    status: Status = "planned"
    reason: str | None = None
    conflict: list[dict[str, Any]] | None = None


def compare_plans(
    candidates: Sequence[Candidate],
    *,
    models: Sequence[str],
    hardware: Sequence[str],
    terms: Terms | None = None,
    budget: Budget | None = None,
    stopped: str | None = None,
) -> Comparison:
    """Plans side by side: all hardware of the first model, then of the next.

    ``terms``: those of the first plan if left out, which there must then be; plans on others are shown and not ranked.
    ``InputError`` where a plan's objective does not follow from its inputs.
    """
    if not candidates or len(candidates) != len(models) * len(hardware) or len(candidates) > MOST_ROWS:
        what = f"{len(candidates)} plans do not make a matrix of {len(models)} x {len(hardware)}"
        raise InputError(what, where="compare", mend=f"give one for each model on each hardware, {MOST_ROWS} at most")
    names = [f"{one.model} on {one.hardware}" for one in candidates]
    judged = [None if one.plan is None else judge(one.plan, name) for one, name in zip(candidates, names, strict=True)]
    first = next((one for one in judged if one), None)
    if terms is None:
        if first is None:
            raise InputError("has no plan", where="compare", mend="give at least one")
        terms = terms_of_plan(first.plan)
    mates = [_same_model(judged, candidates, one.model) for one in candidates]
    excluded = [None if one is None else _excluded(one, terms, mate) for one, mate in zip(judged, mates, strict=True)]
    ranked = {i: one for i, one in enumerate(judged) if one and excluded[i] is None}
    ranking = Ranking(names, ranked, lower=terms.objective != "throughput")
    rows = []
    for index, (candidate, one) in enumerate(zip(candidates, judged, strict=True)):
        together = [i for i in ranked if i // len(hardware) == index // len(hardware)]
        rows.append(
            Row(
                model=candidate.model,
                hardware=candidate.hardware,
                status=candidate.status,
                reason=candidate.reason,
                conflict=candidate.conflict,
                excluded=excluded[index],
                plan=candidate.plan,
                figures=None if one is None else figures_of(one),
                objective=None if one is None else one.objective_interval,
                equal=None if one is None else _equal(one, budget),
                **(ranking.of(index, together) if index in ranked else UNRANKED),
            )
        )
    result = Comparison(
        schema_version=1,
        models=list(models),
        hardware=list(hardware),
        workload=terms.workload,
        objective=terms.objective,
        unit=UNITS_OF[terms.objective],
        better="lower" if ranking.lower else "higher",
        basis=terms.basis,
        currency=terms.currency,
        as_of=terms.as_of,
        utilisation=terms.utilisation,
        budget=budget,
        rows=rows,
        pairwise=ranking.table(len(rows), 0),
        pairwise_error=ranking.table(len(rows), 1),
        sampling=Sampling(
            draws=DRAWS,
            seed=SEED,
            shared=[key for key in ranking.keys if not of_hardware(key)],
            independent=[key for key in ranking.keys if of_hardware(key)],
        ),
        summary=[],
        notes=[],
        stopped=stopped,
    )
    blocks = [range(i * len(hardware), (i + 1) * len(hardware)) for i in range(len(models))]
    orders = [Order(ranking.order(block), ranking.left_open(block)) for block in blocks]
    return result.model_copy(update={"summary": summary_of(result, orders), "notes": notes_of(result)})


def _same_model(judged: Sequence[Judged | None], candidates: Sequence[Candidate], model: str) -> Judged | None:
    """The first plan of a model."""
    return next((one for one, candidate in zip(judged, candidates, strict=True) if one and candidate.model == model), None)


def _excluded(judged: Judged, terms: Terms, mate: Judged | None) -> str | None:
    """Why a plan is not to be ranked with the others."""
    plan, own = judged.plan, terms_of_plan(judged.plan)
    if own.objective != terms.objective:
        return f"was planned for {own.objective}, not {terms.objective}"
    if mate is not None and plan.cost.tokens_per_request != mate.plan.cost.tokens_per_request:
        return "serves requests of other lengths"
    if own.objective != "cost":
        return None
    if (own.basis, own.currency) != (terms.basis, terms.currency):
        return f"is priced on {own.basis} in {own.currency}, not on {terms.basis} in {terms.currency}"
    if own.utilisation != terms.utilisation:
        return f"serves its load {own.utilisation:.1%} of the time, not {terms.utilisation:.1%}"
    return None


def _equal(judged: Judged, budget: Budget | None) -> Equal | None:
    if budget is None:
        return None
    each = judged.expected.usd_per_hour if budget.what == "cost" else judged.watts / 1e3
    limited = judged.context.demand is not None or judged.context.cap is not None
    copies = 1 if limited else max(math.floor(budget.amount / each * (1.0 + 1e-9)), 1)
    osl = judged.inputs.workload.output_tokens.mean
    return Equal(
        copies=copies,
        used=each * copies,
        unused=max(budget.amount - each * copies, 0.0),
        tokens_per_s=judged.interval(lambda o: o.requests_per_s * osl * copies),
    )
