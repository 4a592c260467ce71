"""From plans, or a comparison of plans, to a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from planner.comparison.schema import Comparison, Row
from planner.plans.schema import Plan
from planner.report.content import Report, Section
from planner.report.sections import SECTIONS, front_section
from planner.report.sources import estimates_of, sources_of
from planner.report.study import COLOURS, Study, study_of
from planner.report.summary import card_of, matrix_table, missing, name_of, pairwise_table, summary_table

DETAILED = 8
"""Plans of a comparison that have charts of their own; of more, the best by rank."""


def plan_report(plan: Plan, command: str, more: Sequence[Section] = ()) -> Report:
    """A report on one plan. ``command``: what makes it again. ``more``: sections to add behind the usual ones.

    ``InputError`` where the plan's numbers do not follow from its inputs.
    """
    study = study_of(plan, plan.hardware)
    verdict = tuple(str(line) for line in plan.explanation.get("summary") or ())
    notes = [*plan.explanation.get("limits", ()), *plan.explanation.get("defaults", ())]
    return _report(f"{plan.model} on {plan.hardware}", [study], [None], command, verdict, notes, more)


def comparison_report(comparison: Comparison, command: str, more: Sequence[Section] = ()) -> Report:
    """A report on all plans of a comparison; rows without a plan are named with the reason. Otherwise as ``plan_report``."""
    rows = [row for row in comparison.rows if row.plan is not None]
    width = len(comparison.hardware)
    studies: list[Study] = []
    for place, row in enumerate(comparison.rows):
        if row.plan is not None:
            model, shade = divmod(place, width)
            shape = model * -(-width // COLOURS) + shade // COLOURS
            studies.append(study_of(row.plan, name_of(comparison, row), len(studies), shade, shape))
    title = f"{', '.join(comparison.models)} on {', '.join(comparison.hardware)}"
    verdict = [*comparison.summary, *missing(comparison)]
    if len(comparison.models) > 1:  # what is said first of each model, first
        firsts = (next((line for line in verdict if line.startswith(f"{model}: ")), None) for model in comparison.models)
        verdict = list(dict.fromkeys([*filter(None, firsts), *verdict]))
    report = _report(title, studies, rows, command, verdict, comparison.notes, more)
    pairs = pairwise_table(comparison)
    return replace(report, overview=matrix_table(comparison), tables=() if pairs is None else (pairs,))


def _report(
    title: str,
    studies: Sequence[Study],
    rows: Sequence[Row | None],
    command: str,
    verdict: Sequence[str],
    notes: Sequence[str],
    more: Sequence[Section],
) -> Report:
    plans = [study.plan for study in studies]
    shown, told = _detailed(studies, rows), list(notes)
    if len(shown) < len(studies):
        other = "planner plan … --html has them for any other"
        told.append(f"cards and charts are those of {len(shown)} of {len(studies)} plans; {other}")
    sections = [front_section(studies)] if studies else []
    sections += [section for build in SECTIONS if shown and (section := build(shown)) is not None]
    return Report(
        title=title,
        subtitle=_subtitle(plans),
        command=command,
        versions=tuple(dict.fromkeys((name, value) for plan in plans for name, value in plan.versions.items())),
        verdict=tuple(verdict),
        cards=tuple(card_of(study, rows[study.number]) for study in shown),
        summary=summary_table(studies, rows),
        summary_swatches=("", *(study.colour for study in studies)),
        overview=None,
        tables=(),
        sections=(*sections, *more),
        sources=sources_of(studies),
        estimates=estimates_of(studies),
        notes=tuple(str(note) for note in told),
    )


def _detailed(studies: Sequence[Study], rows: Sequence[Row | None]) -> list[Study]:
    """Those with charts of their own, in the order given."""

    def place(number: int) -> tuple[int, int]:
        row = rows[number]
        return (len(studies) if row is None or row.rank is None else row.rank), number

    best = set(sorted(range(len(studies)), key=place)[:DETAILED])
    return [study for number, study in enumerate(studies) if number in best]


def _subtitle(plans: Sequence[Plan]) -> str:
    """Workload and basis of prices, which all plans of a report share, and their runtimes."""
    if not plans:
        return ""
    plan = plans[0]
    cost, load = plan.cost, plan.cost.tokens_per_request
    tokens = f"{load['input_hit'] + load['input_miss']:,.0f} tokens in and {load['output']:,.0f} out a request"
    basis = f"prices: {cost.basis} of {cost.as_of}, in use {cost.utilisation:.1%} of the time"
    runtimes = ", ".join(dict.fromkeys(str(one.inputs["runtime"]["id"]) for one in plans))
    return f"Workload {plan.workload}: {tokens}; runtime {runtimes}; {basis}; objective: {plan.objective}"
