"""A plan file back to its inputs and its decision."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.documents import explain_validation, parse_json
from planner.errors import InputError, VerificationError
from planner.plans.assemble import SCHEMA_VERSION, Certificate
from planner.plans.inputs import Inputs
from planner.plans.operate import Decision, PoolDecision
from planner.plans.schema import Plan

_Count = Annotated[int, Field(ge=1, le=10_000_000)]


class _Configuration(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    tp: Annotated[int, Field(ge=1, le=4096)]
    pp: Annotated[int, Field(ge=1, le=64)]
    ep: Annotated[int, Field(ge=1, le=65536)]
    attention_dp: Annotated[int, Field(ge=1, le=65536)]
    batch_per_rank: Annotated[int, Field(ge=0, le=1_000_000)]
    prefill_tokens_per_rank: Annotated[int, Field(ge=0, le=16_777_216)]
    period_limit_ms: Annotated[float, Field(gt=0)] | None


def read_plan(text: str, where: str) -> Plan:
    """Parse and validate a plan.

    ``InputError`` with file and key where it is not one; ``VerificationError`` where only a number leaves its range, since a
    changed number is the business of verification.
    """
    data = parse_json(text, where)
    if not isinstance(data, dict):
        raise InputError("is not a plan: the top level is no object", where=where)
    version = data.get("schema_version")
    another = InputError(
        f"has schema_version {str(version)[:32]}; this planner reads {SCHEMA_VERSION}",
        where=where,
        mend="plan again with this version",
    )
    if isinstance(version, bool) or not isinstance(version, int):
        raise another
    try:
        plan = Plan.model_validate({**data, "schema_version": SCHEMA_VERSION})
    except ValidationError as error:
        if version != SCHEMA_VERSION:
            raise another from None
        faults = error.errors(include_url=False)
        if any(fault["type"] not in _OUT_OF_RANGE or fault["loc"][0] == "inputs" for fault in faults):
            raise explain_validation(error, where) from None
        raise _failed([(".".join(str(p) for p in f["loc"]), f["msg"], f["input"]) for f in faults], where) from None
    if version != SCHEMA_VERSION:
        raise _failed([("schema_version", SCHEMA_VERSION, version)], where)
    return plan


_OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")


def _failed(rows: list[tuple[str, object, object]], where: str) -> VerificationError:
    from planner.plans.verify import equation_of

    violations: list[dict[str, object]] = [
        {"path": path, "equation": equation_of(path), "expected": expected, "found": found} for path, expected, found in rows
    ]
    first = violations[0]
    message = f"violated: {first['equation']}: {first['path']}: expected {first['expected']}, found {first['found']}"
    return VerificationError(f"{where}: {message}", violations)


def inputs_of(plan: Plan, where: str) -> Inputs:
    """The embedded inputs."""
    try:
        return Inputs.model_validate(plan.inputs, context={"si": True})
    except ValidationError as error:
        raise explain_validation(error, f"{where}: inputs") from None


def _pool(row: dict[str, Any], where: str) -> PoolDecision:
    try:
        found = _Configuration.model_validate(row["configuration"])
    except ValidationError as error:
        raise explain_validation(error, where) from None
    period = None if found.period_limit_ms is None else found.period_limit_ms / 1e3
    replicas, basis = row["replicas"], row["placement_basis"]
    if isinstance(replicas, bool) or not isinstance(replicas, int) or not 0 < replicas <= 10_000_000:
        raise InputError("replicas must be a count", where=where)
    if not (basis is None or isinstance(basis, str)):
        raise InputError("placement_basis must be text", where=where)
    return PoolDecision(
        row["phase"],
        replicas,
        found.tp,
        found.attention_dp,
        found.ep,
        found.pp,
        found.batch_per_rank,
        found.prefill_tokens_per_rank,
        basis,
        period,
    )


def decision_of(plan: Plan, where: str) -> Decision:
    """The chosen decision."""
    pools = [pool.model_dump() for pool in plan.pools]
    return Decision(
        tuple(_pool(pool, f"{where}: pools.{index}") for index, pool in enumerate(pools)),
        tuple(unit.units for unit in plan.units),
    )


def least_of(plan: Plan, where: str) -> Decision | None:
    """The decision of least TPOT, if the plan states one."""
    least = plan.explanation.get("least_tpot")
    if least is None:
        return None
    try:
        pools = tuple(_pool(pool, f"{where}: explanation.least_tpot.pools.{i}") for i, pool in enumerate(least["pools"]))
        units = tuple(least["units"])
    except (KeyError, TypeError):
        raise InputError("explanation.least_tpot is not a configuration", where=where) from None
    if not all(isinstance(u, int) and not isinstance(u, bool) and 0 < u < 10**7 for u in units):
        raise InputError("explanation.least_tpot.units must be counts", where=where)
    return Decision(pools, units)


def certificate_of(plan: Plan) -> Certificate:
    """What the search had contributed."""
    certificate = plan.certificate
    return Certificate(certificate.bound, dict(certificate.nodes), certificate.stopped)
