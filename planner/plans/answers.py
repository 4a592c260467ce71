"""What ``verify`` says, and what is said where nothing fits, as JSON: the same on the command line and in the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planner.errors import InfeasibleError
    from planner.plans.verify import Violation

VERIFICATION: dict[str, Any] = {
    "type": "object",
    "required": ["ok", "violations", "notices"],
    "additionalProperties": False,
    "properties": {
        "ok": {"type": "boolean"},
        "violations": {
            "type": "array",
            "items": {"type": "object", "required": ["path", "equation", "expected", "found"]},
        },
        "notices": {"type": "array", "items": {"type": "string"}},
    },
}
"""JSON Schema of ``verification``."""

CONFLICT: dict[str, Any] = {
    "type": "object",
    "required": ["infeasible", "message", "conflict"],
    "additionalProperties": False,
    "properties": {
        "infeasible": {"const": True},
        "message": {"type": "string"},
        "conflict": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["member", "detail", "least_relief", "amount", "unit"],
                "properties": {"amount": {"type": ["number", "null"]}},
            },
        },
    },
}
"""JSON Schema of ``conflict``."""


def verification(violations: list[Violation], notices: list[str]) -> dict[str, Any]:
    """The outcome of ``planner.verify``."""
    return {"ok": not violations, "violations": [violation.as_dict() for violation in violations], "notices": notices}


def conflict(error: InfeasibleError) -> dict[str, Any]:
    """Why no plan exists."""
    return {"infeasible": True, "message": str(error), "conflict": error.conflict}
