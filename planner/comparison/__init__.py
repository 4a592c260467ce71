"""Plans side by side: ratios, and how sure their order is. Pure: takes plans, plans nothing."""

from planner.comparison.compare import Candidate, Terms, compare_plans
from planner.comparison.schema import Budget, Comparison

__all__ = ["Budget", "Candidate", "Comparison", "Terms", "compare_plans"]
