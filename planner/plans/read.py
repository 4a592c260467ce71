"""A plan file back to its inputs and its decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.documents import explain_validation, parse_json
from planner.errors import InputError, VerificationError
from planner.plans.assemble import SCHEMA_VERSION, Certificate
from planner.plans.decision import Decision, PoolDecision
from planner.plans.expert_bounds import MAX_EXPERTS
from planner.plans.experts import ExpertMap, even_split
from planner.plans.inputs import Inputs, Previous, Variant
from planner.plans.pareto import Front, Point
from planner.plans.robust import Served
from planner.plans.schema import Experts, Plan, SlotMap
from planner.plans.transition import Row, Transition
from planner.workload.prefix import MOST_POINTS

_Count = Annotated[int, Field(ge=1, le=10_000_000)]


class _Configuration(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    tp: Annotated[int, Field(ge=1, le=4096)]
    pp: Annotated[int, Field(ge=1, le=64)]
    ep: Annotated[int, Field(ge=1, le=65536)]
    attention_dp: Annotated[int, Field(ge=1, le=65536)]
    context_parallel: Annotated[int, Field(ge=1, le=4096)]
    kv_dtype: Annotated[str, Field(max_length=64)]
    mtp: Annotated[int, Field(ge=0, le=8)]
    redundant_experts: Annotated[int, Field(ge=0, le=64)]
    batch_per_rank: Annotated[int, Field(ge=0, le=1_000_000)]
    prefill_tokens_per_rank: Annotated[int, Field(ge=0, le=16_777_216)]
    period_limit_ms: Annotated[float, Field(gt=0)] | None
    prefix_cache_point: Annotated[int, Field(ge=0, le=MOST_POINTS)] | None = None
    prefix_cache_requests_per_s: Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)] | None = None


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


def _pool(row: dict[str, Any], where: str) -> tuple[PoolDecision, Variant]:
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
    decision = PoolDecision(
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
        found.context_parallel,
        found.prefix_cache_requests_per_s,
    )
    return decision, Variant(found.kv_dtype, found.mtp, found.redundant_experts, found.prefix_cache_point)


def _decision(pools: list[tuple[PoolDecision, Variant]], units: tuple[int, ...], where: str) -> Decision:
    variants = {variant for _, variant in pools}
    if len(variants) != 1:
        raise InputError("pools must agree on kv_dtype, mtp, redundant_experts and prefix_cache_point", where=where)
    return Decision(tuple(pool for pool, _ in pools), units, variants.pop())


def decision_of(plan: Plan, where: str) -> Decision:
    """The chosen decision."""
    pools = [pool.model_dump() for pool in plan.pools]
    read = [_pool(pool, f"{where}: pools.{index}") for index, pool in enumerate(pools)]
    decision = _decision(read, tuple(unit.units for unit in plan.units), f"{where}: pools")
    return replace(decision, experts=tuple(_map(row, f"{where}: experts.{i}") for i, row in enumerate(plan.experts or ())))


def _map(row: Experts, where: str) -> ExpertMap:
    return _slots(row, row.pool, where)


def _slots(row: Experts | SlotMap, phase: str, where: str) -> ExpertMap:
    widths = {len(layer) for layer in row.physical_to_logical} | {len(layer) for layer in row.split or ()}
    if widths != {row.ranks * row.slots_per_rank}:
        raise InputError("a layer does not have ranks x slots_per_rank slots", where=where)
    physical = np.array(row.physical_to_logical, dtype=np.int64)
    experts = int(physical.max()) + 1
    if experts > MAX_EXPERTS:
        raise InputError(f"names expert {experts - 1}", where=where)
    split = even_split(physical, experts) if row.split is None else np.array(row.split, dtype=float)
    return ExpertMap(phase, row.ranks, row.slots_per_rank, physical, split)


def least_of(plan: Plan, where: str) -> Decision | None:
    """The decision of least TPOT, if the plan states one."""
    least = plan.explanation.get("least_tpot")
    return None if least is None else _short(least, where, "explanation.least_tpot")


def front_of(plan: Plan, where: str) -> Front | None:
    """The Pareto front, if the plan states one."""
    if plan.pareto is None:
        return None
    points = [
        Point(
            point.tpot_limit_ms,
            _short(point.model_dump(include={"pools", "units"}), where, f"pareto.points.{number}"),
            point.bound,
            dict(point.nodes),
        )
        for number, point in enumerate(plan.pareto.points)
    ]
    return Front(tuple(points), plan.pareto.stopped)


def robust_of(plan: Plan, decision: Decision, where: str) -> list[Served]:
    """Every workload of a set, with the units and the maps of experts that all share."""
    rows = []
    for number, row in enumerate(plan.robust or ()):
        data = {"pools": [pool.model_dump() for pool in row.pools], "units": decision.units}
        rows.append(Served(replace(_short(data, where, f"robust.{number}"), experts=decision.experts), dict(row.nodes)))
    return rows


def previous_of(previous: Previous, where: str) -> Decision:
    """The decision of the plan to take over from."""
    data = {"pools": [pool.model_dump() for pool in previous.pools], "units": previous.units}
    maps = tuple(_map(row, f"{where}: inputs.previous.experts.{i}") for i, row in enumerate(previous.experts))
    return replace(_short(data, where, "inputs.previous"), experts=maps)


def transition_of(plan: Plan, inputs: Inputs, where: str) -> Transition | None:
    """The transition, if the plan states one."""
    stated = plan.transition
    if stated is None or inputs.previous is None:
        return None
    rows = []
    for number, row in enumerate(stated.alternatives):
        path = f"transition.alternatives.{number}"
        if any(one.map >= len(stated.maps) for one in row.maps):
            raise InputError(f"{path}.maps names a map that is not there", where=where)
        maps = tuple(_slots(stated.maps[one.map], one.pool, f"{where}: transition.maps.{one.map}") for one in row.maps)
        decision = _short(row.model_dump(include={"pools", "units"}), where, path)
        rows.append(Row(row.name, replace(decision, experts=maps), row.bound, dict(row.nodes)))
    if stated.chosen not in [row.name for row in rows]:
        raise InputError("transition.chosen names no alternative", where=where)
    return Transition(previous_of(inputs.previous, where), tuple(rows), stated.chosen, stated.stopped)


def _short(data: Any, where: str, path: str) -> Decision:
    try:
        pools = [_pool(pool, f"{where}: {path}.pools.{i}") for i, pool in enumerate(data["pools"])]
        units = tuple(data["units"])
    except (KeyError, TypeError):
        raise InputError(f"{path} is not a configuration", where=where) from None
    if not all(isinstance(u, int) and not isinstance(u, bool) and 0 < u < 10**7 for u in units):
        raise InputError(f"{path}.units must be counts", where=where)
    return _decision(pools, units, f"{where}: {path}")


def certificate_of(plan: Plan) -> Certificate:
    """What the search had contributed."""
    certificate = plan.certificate
    return Certificate(certificate.bound, dict(certificate.nodes), certificate.stopped)
