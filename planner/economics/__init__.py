"""Cost as pure functions of numbers: an hour of owned hardware, and its split over token streams."""

from planner.economics.owned import CAUSES, HourlyCost, owned_hour
from planner.economics.streams import StreamCost, stream_costs

__all__ = ["CAUSES", "HourlyCost", "StreamCost", "owned_hour", "stream_costs"]
