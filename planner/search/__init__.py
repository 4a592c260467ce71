"""Search: walk the declared space, place, certify, and say why where nothing fits."""

from planner.search.plan import solve
from planner.search.tables import Stop
from planner.search.warm import replan, take_over

__all__ = ["Stop", "replan", "solve", "take_over"]
