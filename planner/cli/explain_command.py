"""``planner explain``."""

from __future__ import annotations

import click

from planner.cli.common import echo_json, format_option, hint, new_table, print_table, read_plan_argument


@click.command("explain")
@click.argument("plan")
@format_option
def command(plan: str, form: str) -> None:
    """Say why PLAN (a file, or -) is as it is: what binds, what lies where, what one more unit would be worth.

    Example: planner explain plan.json
    """
    loaded, _ = read_plan_argument(plan)
    if form == "json":
        echo_json(loaded.explanation)
        return
    for heading, key in (
        ("What it is", "summary"),
        ("What lies below device memory", "below_device_memory"),
        ("Conversions", "conversions"),
        ("Limits", "limits"),
        ("What one more unit is worth", "worth"),
        ("Defaults", "defaults"),
    ):
        lines = loaded.explanation.get(key) or []
        if lines:
            click.echo(f"\n{heading}")
            for line in lines:
                click.echo(f"  {line}")
    click.echo("")
    table = new_table("What binds", "pool", "phase", "resource", "share of time")
    for row in loaded.bottlenecks:
        table.add_row(row.pool, row.phase, row.resource, f"{row.share:.1%}")
    print_table(table)
    placement = new_table("What lies where", "pool", "item", "tier", "share", "copies", "GB", "GB a device", "access")
    for pool in loaded.pools:
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
    print_table(placement)
    estimates = new_table("Weakest evidence", "figure", "grade", "low", "high")
    for row in [r for r in loaded.provenance["estimates"] if r["grade"] == loaded.provenance["lowest_grade"]]:
        estimates.add_row(row["figure"], row["grade"], *("-" if row[end] is None else f"{row[end]:g}" for end in ("low", "high")))
    print_table(estimates)
    hint(f"planner verify {plan}")
