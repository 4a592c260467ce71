"""The command line: one file per command, thin over ``planner.api``. The only room that prints."""

from __future__ import annotations

import click

from planner import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="planner")
def main() -> None:
    """Plan LLM inference over memory tiers and devices."""
