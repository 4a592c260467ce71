"""An audit: what launch lines say, what they reach, what could be reached, and which flags lead there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from planner.plans.schema import Amount, Number, Plan


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FindingRow(_Part):
    """``wrong``: the engine refuses it; ``deprecated``; ``unresolved``: a shell variable; ``assumed``; ``differs``: predicted
    only roughly."""

    kind: Literal["wrong", "deprecated", "unresolved", "assumed", "differs"]
    where: str
    flag: str
    what: str


class PinRow(_Part):
    """What the flags fix, in the words of ``planner plan --pin``; ``flags``: by what, or which default of the engine."""

    pin: str
    flags: str


class FlagChange(_Part):
    """One flag of a pool's launch; ``before`` and ``after``: its value, ``null`` where it is left out."""

    pool: str
    flag: str
    before: str | None
    after: str | None


class Change(_Part):
    """What freeing one choice gives. ``improvement``: of the objective as a share of the given deployment's (``null`` where that
    has none); ``commands``: the launch line of each pool."""

    frees: str
    flags: list[FlagChange]
    objective: Number
    improvement: float | None
    mode: str
    commands: dict[str, str]
    not_carried: list[str]


class Reached(_Part):
    """A deployment in short: ``objective`` in the audit's unit, and its plan."""

    objective: Number
    plan: Plan


class Audit(_Part):
    """``predicted`` is ``null`` where the given flags do not serve the workload; ``conflict`` says why, ``without_limits`` what
    they do reach. ``gap``: by what share of its objective the given deployment would gain with the best one's. ``steps``: the
    best single change, then the next best on top of it, until within 1 % of the best."""

    engine: str
    model: str
    hardware: str
    workload: str
    runtime: str
    objective: Literal["cost", "throughput", "latency"]
    unit: str
    findings: list[FindingRow]
    ignored: list[str]
    pins: list[PinRow]
    instances: dict[str, Annotated[int, Field(ge=1)]]
    predicted: Reached | None
    without_limits: Reached | None
    conflict: list[dict[str, Any]]
    message: str
    best: Reached
    gap: Amount | None
    changes: list[Change]
    steps: list[Change]
    notes: list[str]
    stopped: str | None

    def to_json(self) -> str:
        """Canonical text."""
        from planner.plans.numbers import canonical, to_json

        data = self.model_dump(mode="json", exclude={"predicted", "without_limits", "best"})
        for name in ("predicted", "without_limits", "best"):
            reached = getattr(self, name)
            data[name] = None if reached is None else {"objective": reached.objective, "plan": reached.plan.to_data()}
        return to_json(canonical(data))
