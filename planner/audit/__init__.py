"""Launch lines of engines read back, predicted, and set beside the best configuration."""

from planner.audit.judge import audit
from planner.audit.read import Engine, Finding, Given, read_deployment
from planner.audit.schema import Audit, Change, FlagChange

__all__ = ["Audit", "Change", "Engine", "Finding", "FlagChange", "Given", "audit", "read_deployment"]
