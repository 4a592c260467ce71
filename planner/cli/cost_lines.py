"""The lines of a plan's hour, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.cli.common import new_table, number

if TYPE_CHECKING:
    from rich.table import Table

    from planner.plans.schema import Plan


def cost_tables(plan: Plan) -> list[Table]:
    """What an hour costs by pool and cause, and what caches take of it; none where the plan has no lines."""
    lines = plan.cost.lines
    if not lines:
        return []
    causes = list(lines[0].by_cause)
    table = new_table(f"What an hour costs, {plan.cost.currency}", "pool", "hardware", "devices", *causes, "all")
    for line in lines:
        table.add_row(
            line.pool,
            line.hardware,
            str(line.devices),
            *(number(line.by_cause[cause]) for cause in causes),
            number(line.usd_per_hour),
        )
        for part in line.of_which or ():
            usd = f"of it {number(part.usd_per_hour)}" if part.usd_per_hour is not None else f"not told apart: {part.reason}"
            where = f"{part.item}, {part.bytes / 1e9:.4g} GB, {part.share:.1%} of {part.tier}"
            table.caption = "\n".join([*([str(table.caption)] if table.caption else []), f"{where}: {usd}"])
    total = [number(sum(line.by_cause[cause] for line in lines)) for cause in causes]
    table.add_row("all", "", str(plan.cost.devices_paid), *total, number(plan.cost.usd_per_hour))
    return [table]
