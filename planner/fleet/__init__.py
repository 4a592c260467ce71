"""A fleet of whole copies of a plan's deployment for a number of tokens a day: devices, power, capital and cost."""

from planner.fleet.schema import Fleet, FleetHardware
from planner.fleet.size import Mix, size_fleet

__all__ = ["Fleet", "FleetHardware", "Mix", "size_fleet"]
