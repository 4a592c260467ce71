"""Search: walk the declared space, place, certify, and say why where nothing fits."""

from planner.search.plan import solve
from planner.search.tables import Stop

__all__ = ["Stop", "solve"]
