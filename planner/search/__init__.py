"""Search: walk the declared space, place, certify, and say why where nothing fits."""

from planner.search.find import Stop
from planner.search.plan import solve

__all__ = ["Stop", "solve"]
