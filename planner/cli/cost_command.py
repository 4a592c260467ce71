"""``planner cost``: bills, the keeping of caches, what memory tiers cost, and a plan at other prices."""

from __future__ import annotations

import click

from planner.cli.cost_bill import bill_command
from planner.cli.cost_curve import curve
from planner.cli.cost_memory import retention, tiers
from planner.cli.cost_whatif import whatif


@click.group("cost", no_args_is_help=False)
def command() -> None:
    """What tokens cost at a provider, what keeping and moving them costs by memory tier, and a plan at other prices.

    \b
    Examples:
      planner cost tiers --basis contract
      planner cost whatif plan.json --price hbm=+50%
    """


command.add_command(bill_command)
command.add_command(retention)
command.add_command(tiers)
command.add_command(curve)
command.add_command(whatif)
