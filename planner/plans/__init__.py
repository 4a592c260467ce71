"""Plans: the plan and its parts, the declared space and its bounds, verification. Imports neither search nor ortools."""

from planner.plans.context import Context, build_context
from planner.plans.inputs import Inputs, Options
from planner.plans.read import read_plan
from planner.plans.schema import Plan
from planner.plans.verify import Violation, verify_plan

__all__ = ["Context", "Inputs", "Options", "Plan", "Violation", "build_context", "read_plan", "verify_plan"]
