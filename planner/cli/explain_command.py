"""``planner explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.common import (
    echo_json,
    format_option,
    hint,
    new_table,
    print_table,
    read_plan_argument,
    say,
    tell_unverified,
)
from planner.cli.html_report import check_html, html_option, write_plan_html
from planner.cli.progress import working
from planner.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from planner.plans.schema import Plan


@click.command("explain")
@click.argument("plan")
@html_option
@click.option("--force", is_flag=True, help="Overwrite the report's file.")
@format_option
def command(plan: str, html: Path | None, force: bool, form: str) -> None:
    """Say why PLAN (a file, or -) is as it is: what binds, what lies where, what one more unit would be worth.

    \b
    Examples:
      planner explain plan.json
      planner explain plan.json --html report.html
      planner plan llama-3.1-8b h100-node --format json | planner explain -
    """
    check_html(html, force=force)
    loaded, where = read_plan_argument(plan)
    if html is not None:
        write_plan_html(html, loaded, force=force, where=where)
    try:
        lines, tables = _render(loaded, where) if form == "table" else ([], [])
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError):
        raise InputError("its explanation is damaged", where=where, mend=f"see planner verify {plan}") from None
    tell_unverified(loaded, where, plan)
    if form == "json":
        echo_json(loaded.explanation)
        return
    for line in lines:
        say(line) if line else click.echo("")
    for table in tables:
        print_table(table)
    hint(f"planner verify {plan}")


def _render(plan: Plan, where: str) -> tuple[list[str], list[Table]]:
    """Lines and tables, whole before anything is printed."""
    from planner.cli.cost_lines import cost_tables
    from planner.cli.hardware_notes import end_in_words
    from planner.plans.passed_over import passed_over
    from planner.plans.read import inputs_of
    from planner.plans.story import story

    with working("what was not chosen"):
        passed = passed_over(inputs_of(plan, where), plan, where)
    text = []
    for heading, paragraph in story(plan, passed):
        text += [heading, f"  {paragraph}", ""]
    for heading, key in (
        ("What it is", "summary"),
        ("What lies below device memory", "below_device_memory"),
        ("Conversions", "conversions"),
        ("Limits", "limits"),
        ("The set of workloads", "robust"),
        ("What one more unit is worth", "worth"),
        ("Defaults", "defaults"),
    ):
        lines = plan.explanation.get(key) or []
        if lines:
            text += ["", heading, *("  " + line for line in lines)]
        if key == "below_device_memory":
            text += _memories(plan)
    text.append("")
    binds = new_table("What binds", "pool", "phase", "resource", "share of time")
    for row in plan.bottlenecks:
        binds.add_row(row.pool, row.phase, row.resource, f"{row.share:.1%}")
    operators = new_table(
        "Operators: the roofline, and what eats the difference (ms a pass of the slowest stage)",
        "pool", "phase", "operator", "layers", "ideal", "predicted", "kernels", "floors", "network",
    )  # fmt: skip
    for cells in _operators(plan):
        operators.add_row(*cells)
    operators.caption = "ideal + kernels + floors + network = predicted; kernels: arithmetic and reads below peak rates"
    placement = new_table("What lies where", "pool", "item", "tier", "share", "copies", "GB", "GB a device", "access")
    for pool in plan.pools:
        for item in pool.placement:
            placement.add_row(
                pool.phase,
                item.item,
                item.tier,
                f"{item.share:.2%}",
                f"{item.copies:g}",
                f"{item.bytes / 1e9:.2f}",
                f"{item.max_bytes_per_device / 1e9:.3f}",
                item.access,
            )
    estimates = new_table("Weakest evidence", "figure", "grade", "low", "high")
    for figure in [r for r in plan.provenance["estimates"] if r["grade"] == plan.provenance["lowest_grade"]]:
        ends = (end_in_words(str(figure["figure"]), figure[end]) for end in ("low", "high"))
        estimates.add_row(str(figure["figure"]), str(figure["grade"]), *ends)
    return text, [binds, *cost_tables(plan), operators, placement, estimates]


def _memories(plan: Plan) -> list[str]:
    """What each memory below device memory takes and gives, and why others hold nothing, and those in use nothing else."""
    text = []
    for row in plan.explanation.get("tiers") or []:
        text += ["", f"{row['tier']}, used by the {row['pool']} pool", *("  " + line for line in row["lines"])]
    empty = plan.explanation.get("unused_memories") or []
    if empty:
        text += ["", "Memories that hold nothing, or nothing else", *("  " + row["line"] for row in empty)]
    return text


def _operators(plan: Plan) -> list[tuple[str, ...]]:
    """Each operator's time on the roofline and as predicted, all its layers together, and the parts of the difference."""
    overlapped = bool(plan.inputs["runtime"]["overlap_communication"])
    rows = []
    for pool in plan.pools:
        for phase, step in pool.step.items():
            for window in step["windows"]:
                for block in window["blocks"]:
                    kernels = max(block["compute_ms"], block["memory_ms"])
                    network = block["communication_ms"]
                    exposed = max(network - kernels, 0.0) if overlapped else network
                    parts = (
                        block["ideal_ms"],
                        block["floor_ms"] + kernels + exposed,
                        kernels - block["ideal_ms"],
                        block["floor_ms"],
                        exposed,
                    )
                    times = (f"{part * window['layers']:.3f}" for part in parts)
                    rows.append((pool.phase, phase, block["block"], f"{window['layers']:g}", *times))
            layers = sum(window["layer_ms"] * window["layers"] for window in step["windows"])
            rows.append(
                (pool.phase, phase, "runtime step, stages", "", "", f"{max(step['time_ms'] - layers, 0.0):.3f}", "", "", "")
            )
            rows.append((pool.phase, phase, "the whole pass", "", "", f"{step['time_ms']:.3f}", "", "", ""))
    return rows
