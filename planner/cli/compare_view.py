"""A comparison for a terminal: one column for each hardware, stacked where they do not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from planner.cli.common import new_table, number, print_table, terminal_width
from planner.cli.plan_view import say
from planner.comparison.words import percent

if TYPE_CHECKING:
    from planner.comparison.schema import Comparison, Figures, MemoryUse, Row
    from planner.plans.schema import Interval

_LABEL, _CELL, _GAP = 20, 16, 3
"""Columns of a row's name, of a cell at least, and between two."""
_EVIDENCE = re.compile(r"first principles|measured|sibling|kin\b")
_UNITS = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
_Item = TypeVar("_Item")
_RATIO = {"cost": "cost", "throughput": "throughput", "latency": "TPOT"}


def print_comparison(comparison: Comparison) -> None:
    """Verdict first, then the figures, who beats whom, and what to keep in mind; of a matrix its cells in place of figures."""
    if len(comparison.models) > 1:
        _print_matrix(comparison)
    else:
        for text in comparison.summary:
            say(text)
        for part in _parts([row for row in comparison.rows if row.figures], _fitting()):
            _print_figures(comparison, part)
        _print_pairs(comparison)
    if any(row.plan is not None and row.plan.pareto for row in comparison.rows):
        _print_fronts(comparison)
    for row in comparison.rows:
        if row.plan is None:
            say(f"{row.model} on {row.hardware} has no plan ({row.status}): {row.reason}")
            for member in row.conflict or ():
                say(f"  {member['member']}: {member['detail']}; least relief: {member['least_relief']}")
    for text in comparison.notes:
        say(text)


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Runs of at most ``size``, of about the same length."""
    if not items:
        return
    length = -(-len(items) // -(-len(items) // size))
    for first in range(0, len(items), length):
        yield items[first : first + length]


def _fitting(label: int = _LABEL, cell: int = _CELL) -> int:
    """Cells that fit beside a name."""
    return max((terminal_width() - 2 - label) // (cell + _GAP), 1)


def _print_matrix(comparison: Comparison) -> None:
    """Of each model the best, and the objective in every cell beside that of the model's first."""
    width = len(comparison.hardware)
    for model in comparison.models:
        say(next(text for text in comparison.summary if text.startswith(f"{model}: ")))
    first = "over that of the model's first, and how probable it is that it is better"
    for part in _parts(range(width), _fitting()):
        table = new_table(f"{comparison.unit}; {first}", "", *(comparison.hardware[j] for j in part))
        for i, model in enumerate(comparison.models):
            table.add_row(model, *(_cell(comparison, comparison.cell(i, j)) for j in part))
        print_table(table)
    say("planner compare MODEL HARDWARE... shows every figure of one model; so do --format json and --html")


def _cell(comparison: Comparison, row: Row) -> str:
    first = None if row.reference is None else comparison.rows[row.reference]
    if row.objective is None:
        return row.status
    value = number(row.objective.expected)
    if row.ratio is None:
        return f"{value}\nnot ranked"
    if row.verdict is None or row.probability_better is None:
        return f"{value}\nthe first" if row is first else f"{value}\n{row.ratio:.3g}x"
    return f"{value}\n{row.ratio:.3g}x, {percent(row.probability_better)}"


def _print_figures(comparison: Comparison, rows: Sequence[Row]) -> None:
    days = sorted({row.plan.cost.as_of for row in rows if row.plan})
    dated = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    title = f"{rows[0].model}, workload {comparison.workload}, {comparison.basis} prices of {dated}"
    table = new_table(f"{title}; under a figure its 10th and 90th percentile", "", *(row.hardware for row in rows))
    table.columns[0].no_wrap = True
    for name, cell in _lines(comparison, rows):
        cells = [cell(row) for row in rows]
        if any(cells):
            table.add_row(name, *(text or "-" for text in cells))
    print_table(table)


def _lines(comparison: Comparison, rows: Sequence[Row]) -> Iterator[tuple[str, Callable[[Row], str]]]:
    """Names of the table's rows, and what a comparison's row says there; what is empty for all is left out."""

    def of(figure: Callable[[Figures], str]) -> Callable[[Row], str]:
        return lambda row: figure(row.figures) if row.figures else ""

    yield "devices, systems", of(lambda f: f"{f.devices:,}, {number(f.systems)}" + _idle(f))
    yield "USD/Mtok, all", of(lambda f: _span(f.usd_per_million.blended))
    yield "  cached input", of(lambda f: _span(f.usd_per_million.input_hit))
    yield "  input", of(lambda f: _span(f.usd_per_million.input_miss))
    yield "  output", of(lambda f: _span(f.usd_per_million.output))
    yield "USD an hour", of(lambda f: number(f.usd_per_hour))
    yield "price basis", of(lambda f: ", ".join(dict.fromkeys(f"{p.basis} ({p.grade})" for p in f.prices)))
    yield "output tok/s", of(lambda f: _span(f.tokens_per_s))
    yield "  per device", of(lambda f: _span(f.tokens_per_s_per_device))
    yield "  per user", of(lambda f: _span(f.tokens_per_s_per_user))
    yield "TTFT ms", of(lambda f: _span(f.ttft_ms))
    yield "TPOT ms", of(lambda f: _span(f.tpot_ms))
    yield "in flight", of(lambda f: number(f.concurrency))
    yield "random req/s", of(lambda f: number(f.random_requests_per_s))
    yield "stated kW", of(lambda f: number(f.watts / 1e3))
    yield "J/output token", of(lambda f: _span(f.joules_per_output_token))
    kinds = dict.fromkeys(memory.kind for row in rows for memory in (row.figures.memories if row.figures else ()))
    for kind in kinds:
        yield f"{kind} used", of(lambda f, kind=kind: _memory(f, kind))  # type: ignore[misc]
    for phase in ("prefill", "decode"):
        yield f"{phase} bound by", of(lambda f, phase=phase: _bound(f, phase))  # type: ignore[misc]
    yield "runtime", of(lambda f: f.runtime)
    yield "evidence", of(lambda f: "; ".join(dict.fromkeys(_EVIDENCE.findall(f.evidence))))
    yield "lowest grade", of(lambda f: f.lowest_grade)
    yield "proof", of(lambda f: f"gap {f.gap:.2%}" if f.proved else f"not proved, {f.gap:.1%}")
    yield "of the budget", lambda row: _budget(comparison, row)
    yield "output tok/s for it", lambda row: "" if row.equal is None else _span(row.equal.tokens_per_s)
    yield f"{_RATIO[comparison.objective]} over first", lambda row: "" if row.ratio is None else number(row.ratio)
    yield "better than first", _chance
    yield "rank", lambda row: _rank(comparison, row)
    yield "breaks even at", _even


def _idle(figures: Figures) -> str:
    idle = figures.devices - figures.devices_used
    return f" ({idle} idle)" if idle else ""


def _span(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{number(interval.expected)}\n{number(interval.low)}..{number(interval.high)}"


def _memory(figures: Figures, kind: str) -> str:
    found: list[MemoryUse] = [memory for memory in figures.memories if memory.kind == kind]
    if not found:
        return ""
    name, size = next((unit for unit in _UNITS if found[0].capacity_bytes >= unit[1]), _UNITS[-1])
    text = f"{sum(memory.bytes for memory in found) / size:.3g} of {found[0].capacity_bytes / size:.3g} {name}"
    shares = [m.fullest_bytes / m.fullest_capacity_bytes for m in found if m.fullest_bytes and m.fullest_capacity_bytes]
    return f"{text}\nfullest {max(shares):.0%}" if shares else text


def _bound(figures: Figures, phase: str) -> str:
    return next((f"{row.resource} {row.share:.0%}" for row in figures.bottlenecks if row.phase == phase), "")


def _budget(comparison: Comparison, row: Row) -> str:
    if row.equal is None or comparison.budget is None:
        return ""
    left = f"\n{number(row.equal.unused)} left" if row.equal.unused > 1e-9 * comparison.budget.amount else ""
    copies = f"{row.equal.copies:,} x " if row.equal.copies > 1 else ""
    return f"{copies}{number(row.equal.used / row.equal.copies)} {comparison.budget.unit}{left}"


def _chance(row: Row) -> str:
    if row.excluded is not None:
        return "not ranked"
    if row.verdict is None:
        return "" if row.probability_better is None else "(the first)"
    assert row.probability_better is not None
    return f"{percent(row.probability_better)}\n{row.verdict}"


def _rank(comparison: Comparison, row: Row) -> str:
    if row.rank is None:
        return ""
    if row.probability_best is None or sum(other.rank is not None for other in comparison.rows) == 1:
        return str(row.rank)
    return f"{row.rank}\nfirst {percent(row.probability_best)}"


def _even(row: Row) -> str:
    if row.break_even is None:
        return ""
    if row.break_even.scale is None:
        return "no price"
    return f"{row.break_even.scale:.3g} x {row.break_even.what}"


def _print_pairs(comparison: Comparison) -> None:
    """Probability that the row is better than the column, where there are more than two."""
    rows = [i for i, row in enumerate(comparison.rows) if any(p is not None for p in comparison.pairwise[i])]
    if len(rows) < 3:
        return
    names = {i: comparison.rows[i].hardware for i in rows}
    longest = max(len(f"{n} {name}") for n, name in enumerate(names.values(), 1))
    numbered = list(enumerate(rows, 1))
    for part in _parts(numbered, _fitting(min(longest, 40), 10)):
        table = new_table("probability that a row is better than a column", "", *(str(n) for n, _ in part))
        for n, i in numbered:
            chances = (comparison.pairwise[i][j] for _, j in part)
            table.add_row(f"{n} {names[i]}", *("" if chance is None else percent(chance) for chance in chances))
        print_table(table)


def _print_fronts(comparison: Comparison) -> None:
    """The points of all rows' fronts, fastest first."""
    heads = ("hardware", "tok/s/user", "TTFT ms", "USD/Mtok", "tok/s/device", "gap")
    several = len(comparison.models) > 1
    found = []
    for row in comparison.rows:
        name = f"{row.model} on " * several + row.hardware
        found += [(point, name) for point in (row.plan.pareto.points if row.plan and row.plan.pareto else ())]
    against = "cost" if comparison.objective == "cost" else "throughput"
    table = new_table(f"fronts: {against} against speed of one user", *heads)
    for point, name in sorted(found, key=lambda pair: (-pair[0].tokens_per_s_per_user, pair[1])):
        figures = (
            point.tokens_per_s_per_user,
            point.ttft_ms,
            point.usd_per_million_blended,
            point.output_tokens_per_s_per_device,
        )
        table.add_row(name, *(number(value) for value in figures), f"{point.gap:.2%}")
    print_table(table)
