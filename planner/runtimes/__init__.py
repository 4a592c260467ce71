"""Runtimes: what the serving software costs, reserves and can do."""

from planner.runtimes.schema import RUNTIMES, Runtime, load_runtime

__all__ = ["RUNTIMES", "Runtime", "load_runtime"]
