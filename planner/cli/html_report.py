"""``--html FILE``: a report beside what a command prints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.errors import InputError

if TYPE_CHECKING:
    from planner.comparison.schema import Comparison
    from planner.plans.schema import Plan
    from planner.report import Report

ARGUMENTS = "planner.arguments"
"""Where the context keeps the words of the command line."""

html_option = click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a report to this file: one page that opens offline."
)


def command_line() -> str:
    """The command that is running, as it can be typed again."""
    return shlex.join(["planner", *click.get_current_context().meta.get(ARGUMENTS, ())])


def check_html(html: Path | None, *, force: bool, beside: Path | None = None) -> None:
    """Before any work: ``InputError`` where no report can be made or written; ``beside``: what else the command writes."""
    from planner.documents import check_target

    if html is None:
        return
    from planner.report import check_extra

    check_extra()
    check_target(html, force=force)
    if beside is not None and beside.resolve() == html.resolve():
        raise InputError("is the file of the JSON already", where=f"--html {html}", mend="choose another name")


def write_plan_html(html: Path, plan: Plan, *, force: bool, where: str | None = None) -> None:
    """The report on a plan; ``where``: the file that it was read from, which may hold anything."""
    from planner.plans import verify_plan
    from planner.report import plan_report

    try:
        report = plan_report(plan, command_line())
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError):
        if where is None or not verify_plan(plan, where)[0]:
            raise  # a sound plan: the fault is planner's
        raise InputError("its numbers do not follow from its inputs", where=where, mend="see planner verify") from None
    _write(html, report, force)


def write_comparison_html(html: Path, comparison: Comparison, *, force: bool) -> None:
    """The report on a comparison."""
    from planner.report import comparison_report

    _write(html, comparison_report(comparison, command_line()), force)


def _write(html: Path, report: Report, force: bool) -> None:
    """Whole or not at all."""
    from planner.documents import write_whole
    from planner.report import page

    write_whole(html, page(report), force=force)
