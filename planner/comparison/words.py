"""What a comparison says to a person: the verdict in sentences, and what to keep in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.comparison.schema import Comparison, Row

_AGAINST = {
    "cost": "a token on {one} costs {ratio} times what it does on {other}",
    "throughput": "a device of {one} makes {ratio} times the tokens/s of one of {other}",
    "latency": "a token takes {ratio} times as long on {one} as on {other}",
}
_BETTER = {"cost": ("cheaper", "dearer"), "throughput": ("faster", "slower"), "latency": ("quicker", "slower")}
_BEST = {"cost": "the cheapest", "throughput": "the fastest by device", "latency": "the quickest"}
_CHANGED = 0.05
"""Difference of probability from which it is said what sharing errors does to it."""


@dataclass(frozen=True)
class Order:
    """How probable the order of a model's rows is (``None``: not known), and the pairs of rows in it, better one first, of which
    the searches left open which is better."""

    probability: float | None
    left_open: Sequence[tuple[int, int]]


def significant(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def percent(probability: float) -> str:
    """Without more digits than the draws give, and never 0 or 100 %."""
    if probability > 0.999:
        return "over 99.9%"
    return "under 0.1%" if probability < 0.001 else f"{probability:.1%}"


def summary_of(comparison: Comparison, orders: Sequence[Order]) -> list[str]:
    """For every model: which is best, how each stands to the first, and what the prices would have to be; ``orders``: of each
    model."""
    lines = []
    width = len(comparison.hardware)
    for index, model in enumerate(comparison.models):
        rows = comparison.rows[index * width : (index + 1) * width]
        ranked = sorted((row for row in rows if row.rank), key=lambda row: row.rank or 0)
        said = f"{model}: " if len(comparison.models) > 1 else ""
        if not ranked:
            lines.append(f"{said}no hardware has a plan to rank")
            continue
        lines.append(said + _best(comparison, ranked, orders[index]))
        lines += [f"{said}{_against(comparison, row)}" for row in rows if row.rank and row.verdict]
        lines += [f"{said}{text}" for row in rows if row.rank and (text := _even(comparison, row))]
    return lines


def _best(comparison: Comparison, ranked: Sequence[Row], order: Order) -> str:
    first = ranked[0]
    assert first.objective is not None
    alike = [row for row in ranked if row.objective == first.objective]
    subject = f"{first.hardware} is" if len(alike) == 1 else f"{' and '.join(row.hardware for row in alike)} are, all alike,"
    text = f"{subject} {_BEST[comparison.objective]}: {significant(first.objective.expected)} {comparison.unit}"
    if len(ranked) == 1:
        return f"{text}; there is nothing to rank it with"
    if len(alike) == len(ranked):
        return text
    if first.probability_best is None:
        return f"{text}; how sure that is cannot be said, since an end of an interval is unknown"
    chance = sum(row.probability_best or 0.0 for row in alike)
    text += f"; the best of the {len(ranked)} with {percent(chance)} probability"
    if len(ranked) > 2 and order.probability is not None:
        text += f", and the order {' > '.join(row.hardware for row in ranked)} holds with {percent(order.probability)}"
    if order.left_open:
        pairs = (" and ".join(comparison.rows[i].hardware for i in pair) for pair in order.left_open)
        text += f", as far as these plans go: the search left more open than lies between {', '.join(pairs)}"
    return text


def _against(comparison: Comparison, row: Row) -> str:
    assert row.reference is not None and row.ratio is not None and row.probability_better is not None
    other = comparison.rows[row.reference].hardware
    told = _AGAINST[comparison.objective].format(one=row.hardware, other=other, ratio=significant(row.ratio))
    if row.verdict == "the same":
        return f"{row.hardware} and {other} are the same"
    ahead = row.probability_better >= 0.5
    surer = max(row.probability_better, 1.0 - row.probability_better)
    word = _BETTER[comparison.objective][0 if ahead else 1]
    text = f"{told}: {row.verdict}, {percent(surer)} probability that it is {word}"
    alone = row.probability_unshared
    if alone is not None and abs(alone - row.probability_better) >= _CHANGED:
        text += f" ({percent(alone if ahead else 1.0 - alone)} if only errors of hardware were shared)"
    if row.within_gap:
        text += "; the search left more open than lies between them"
    return text


def _even(comparison: Comparison, row: Row) -> str | None:
    """At which price a row that loses would not."""
    if row.break_even is None or row.rank == 1 or row.verdict == "the same":
        return None
    against = comparison.rows[row.break_even.against]
    if row.objective == against.objective:
        return None
    best = against.hardware
    if row.break_even.scale is None:
        assert row.plan is not None
        hosted = any("colocation" in line.by_cause for line in row.plan.cost.lines)
        fixed = "colocation" if hosted else "electricity"
        return f"at no price would {row.hardware} cost what {best} does: its {fixed} alone costs as much"
    paid = "rented" if row.break_even.what == "rent" else "bought"
    hour = " an hour" if row.break_even.what == "rent" else ""
    prices = " and ".join(
        f"{significant(unit.break_even_usd)} in place of {significant(unit.usd)} USD{hour} for {unit.devices} devices of "
        f"{unit.hardware}"
        for unit in row.break_even.units
    )
    return f"{row.hardware} would cost what {best} does if it were {paid} at {prices}"


def notes_of(comparison: Comparison) -> list[str]:
    """What the figures do not say for themselves."""
    rows = [row for row in comparison.rows if row.figures is not None]
    notes = []
    kinds: dict[str, list[str]] = {}
    for row in rows:
        for price in row.figures.prices if row.figures and row.excluded is None else ():
            kinds.setdefault(price.basis, [])
            if price.hardware not in kinds[price.basis]:
                kinds[price.basis].append(price.hardware)
    if len(kinds) > 1:
        told = ", ".join(f"{basis} of {' and '.join(names)}" for basis, names in sorted(kinds.items()))
        notes.append(f"capital costs are of different kinds: {told}")
    if len({row.figures.runtime for row in rows if row.figures}) > 1:
        notes.append("rows run under several runtimes, whose errors are their own")
    evidence = {row.figures.evidence: None for row in rows if row.figures}
    if len(evidence) > 1:
        notes.append("predictions rest on different evidence, and so have intervals of different width: see its row")
    if any(row.plan is not None and row.plan.worst_case is not None for row in rows):
        notes.append("plans were chosen for the worst case; figures and probabilities are at the figures' values")
    notes += [f"{row.model} on {row.hardware} is not ranked: it {row.excluded}" for row in rows if row.excluded]
    if comparison.budget is not None:
        notes.append(
            f"every row may spend what the first does, {significant(comparison.budget.amount)} {comparison.budget.unit}; counts "
            "of systems are the planner's"
        )
    if any(chance is not None for line in comparison.pairwise for chance in line):
        notes.append(_drawn(comparison))
    return notes


def _drawn(comparison: Comparison) -> str:
    return (
        f"probabilities: {comparison.sampling.draws:,} draws; rows share the errors of the model, of a runtime and of general "
        "prices, and of hardware those of what they have in common"
    )
