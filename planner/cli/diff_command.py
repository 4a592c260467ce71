"""``planner diff``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import (
    compact,
    echo_json,
    format_option,
    hint,
    new_table,
    number,
    print_table,
    read_plan_argument,
    tell_unverified,
    verdict,
)
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.plans.diff import Change, Difference, Ends, Figure

LONGEST = 48
"""Characters of a value in a table."""
MOST = 40
"""Rows of a table; JSON has all."""


@click.command("diff")
@click.argument("first")
@click.argument("second")
@click.option("--exit-code", "tell", is_flag=True, help="Exit with 4 if the plans differ.")
@format_option
def command(first: str, second: str, tell: bool, form: str) -> int:
    """Say in what the plan SECOND differs from the plan FIRST (files, or - for standard input).

    Inputs, configuration, bytes by memory, prediction, cost and certificate. Ratios are second / first; costs on different
    price bases are shown and not held against one another. Exit code 0 whether they differ or not, unless --exit-code is given.

    \b
    Examples:
      planner diff plan.json other.json
      planner diff plan.json other.json --format json
      planner plan llama-3.1-8b h100-node --tpot 20ms --format json | planner diff plan.json -
    """
    from planner.plans.diff import difference

    if first == second == "-":
        raise click.UsageError("only one of the plans can come from standard input.")
    (old, here), (new, there) = (read_plan_argument(name) for name in (first, second))
    try:
        found = difference(old, new, (here, there))
    except (AttributeError, KeyError, TypeError, ValueError):
        mend = f"see planner verify {first} and planner verify {second}"
        raise InputError("one of the plans is damaged", where=f"{first}, {second}", mend=mend) from None
    for name, one, where in ((first, old, here), (second, new, there)):
        tell_unverified(one, where, name)
    code = 4 if tell and not found.same else 0
    with verdict(code):
        if form == "json":
            echo_json(found.model_dump(mode="json"))
        else:
            _print(found)
    if form == "table" and not found.same:
        hint(f"planner explain {second}")
    return code


def _print(found: Difference) -> None:
    from planner.cli.plan_view import say

    if found.same:
        say(f"no difference: {found.first.model} on {found.first.hardware}, workload {found.first.workload}")
        return
    for label, plan in (("first ", found.first), ("second", found.second)):
        say(f"{label}  {plan.file}: {plan.model} on {plan.hardware}, workload {plan.workload}, least {plan.objective}")
    for note in found.notes:
        say(f"note: {note}")
    click.echo("")
    alike = []
    for title, rows in (
        ("inputs", found.inputs),
        ("versions", found.versions),
        ("configuration", found.configuration),
        ("what binds", found.bottlenecks),
    ):
        _changes(title, rows) if rows else alike.append(title)
    if found.placement:
        _amounts(found)
    else:
        alike.append("placement")
    if found.prediction:
        _figures("prediction, with p10 and p90; ratio: second / first", found.prediction)
    else:
        alike.append("prediction")
    if found.cost is not None:
        _figures("cost", found.cost.figures)
        say(f"price basis: first {found.cost.first_basis}; second {found.cost.second_basis}")
        for why in found.cost.why:
            say(why if found.cost.comparable else f"no ratio of costs: {why}")
        click.echo("")
    else:
        alike.append("cost")
    _changes("certificate", found.certificate) if found.certificate else alike.append("certificate")
    if alike:
        say(f"alike: {', '.join(alike)}")


def _changes(title: str, rows: list[Change]) -> None:
    table = new_table(title, "what", "first", "second")
    for row in rows[:MOST]:
        table.add_row(row.path, _cell(row.first), _cell(row.second))
    if len(rows) > MOST:
        table.caption = f"and {len(rows) - MOST} more; --format json has them"
    print_table(table)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = "-" if value is None else number(value) if isinstance(value, float) else compact(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _amounts(found: Difference) -> None:
    table = new_table("placement, GB, all copies", "pool", found.placement_by, "memory", "first", "second", "change")
    for row in found.placement[:MOST]:
        gb = (row.first_bytes / 1e9, row.second_bytes / 1e9)
        table.add_row(row.pool, row.item, row.tier, *(f"{value:,.2f}" for value in gb), f"{gb[1] - gb[0]:+,.2f}")
    print_table(table)


def _figures(title: str, rows: list[Figure]) -> None:
    table = new_table(title, "figure", "unit", "first", "second", "ratio")
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.4g}"
        table.add_row(row.figure.replace("_", " "), row.unit, _span(row.first), _span(row.second), ratio)
    print_table(table)


def _span(interval: Ends) -> str:
    if interval.low is None and interval.high is None:
        return number(interval.expected)
    return f"{number(interval.expected)} ({number(interval.low)} to {number(interval.high)})"
