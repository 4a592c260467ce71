"""What every file opens with: the plan it is of and the command that wrote it."""

from __future__ import annotations

from planner.export.deployment import EngineDeployment
from planner.version import __version__


def header_lines(deployment: EngineDeployment, command: str) -> tuple[str, ...]:
    """Lines without a comment sign, each one line whatever the names in it hold."""
    plan = deployment.plan
    lines = (
        f"{plan.model} on {plan.hardware}, workload {plan.workload}",
        f"plan sha256 {deployment.fingerprint}",
        f"{command} (planner {__version__})",
    )
    return tuple("".join(char if char.isprintable() else " " for char in line) for line in lines)


def commented(deployment: EngineDeployment, command: str, sign: str = "#") -> str:
    """The header as comment lines of a text file."""
    return "".join(f"{sign} {line}\n" for line in header_lines(deployment, command))
