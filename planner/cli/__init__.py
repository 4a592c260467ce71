"""The command line: one file per command, thin over ``planner.api``. The only room that prints."""

from planner.cli.main import main

__all__ = ["main"]
