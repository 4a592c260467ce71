"""planner: plan LLM inference over memory tiers and devices.

>>> from planner import plan
>>> best = plan("llama-3.1-70b", "h100-node")
>>> best.certificate.proved
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.version import __version__

if TYPE_CHECKING:
    from planner.api import compare, plan, resolve, verify
    from planner.architecture import load_model
    from planner.hardware import load_hardware
    from planner.plans.schema import Plan
    from planner.reporter import Reporter
    from planner.search import Stop
    from planner.workload import Workload

__all__ = [
    "Plan",
    "Reporter",
    "Stop",
    "Workload",
    "__version__",
    "compare",
    "load_hardware",
    "load_model",
    "plan",
    "resolve",
    "verify",
]

_HOMES = {
    "compare": "planner.api",
    "plan": "planner.api",
    "resolve": "planner.api",
    "verify": "planner.api",
    "load_model": "planner.architecture",
    "load_hardware": "planner.hardware",
    "Plan": "planner.plans.schema",
    "Reporter": "planner.reporter",
    "Stop": "planner.search",
    "Workload": "planner.workload",
}


def __getattr__(name: str) -> Any:
    """Public names load their room on first use, so that ``import planner`` is cheap."""
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'planner' has no attribute {name!r}")
