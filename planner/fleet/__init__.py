"""A fleet of whole copies of a plan's deployment, for tokens a day or within budgets: devices, power, cost, margin."""

from planner.fleet.budgets import parse_budgets
from planner.fleet.demand import Mix
from planner.fleet.margin import margin_of
from planner.fleet.schema import Fleet, FleetHardware, Margin
from planner.fleet.size import size_fleet

__all__ = ["Fleet", "FleetHardware", "Margin", "Mix", "margin_of", "parse_budgets", "size_fleet"]
