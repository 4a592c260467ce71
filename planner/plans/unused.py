"""Why a plan does not use a memory that it may use: the same configuration with an item moved there, evaluated.

For each allowed memory every kind of item of which nothing lies there is moved there in turn, as much of it as fits, by the way
of moving it that costs least; all else stays. The objective, the limits and what the pass then waits for follow from the plan's
own equations. A larger batch that the room would allow is no part of this: configurations with this memory in use are in the
space of the certificate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.performance import TierRate
from planner.plans.context import Context
from planner.plans.lp import Array
from planner.plans.operate import Operation, serve
from planner.plans.sensitivity import resource_seconds
from planner.plans.states import PoolState
from planner.plans.states import problem_with_tiers as with_tiers
from planner.plans.tier_rows import USED, held_bytes, moved_joules, moved_per_token, used_tiers
from planner.plans.tiers import TierProblem, evaluate_shares, resident_shares
from planner.plans.worth import checks, operation_objective

NO_WORSE = 1e-6
"""Relative loss that is printed as none."""

HOW = {"stream": "streamed each pass", "fetch": "fetched on demand", "prefetch": "fetched ahead by token"}


def unused_rows(context: Context, operation: Operation) -> list[dict[str, Any]]:
    """A row for each allowed memory below device memory: why a pool does not use it, or for nothing else, in one line."""
    rows = []
    for state in operation.pools:
        used = {tier.id for tier in used_tiers(state)}
        allowed = [tier for tier in state.pool.rates.tiers if tier.id in state.pool.tiers]
        if not allowed:
            continue
        problem = with_tiers(state) if state.resident else state.problem
        shares = resident_shares(problem) if state.resident else state.shares
        rows += [_row(context, operation, replace(state, built=problem, placed=shares), tier, used) for tier in allowed]
    return [row for row in rows if row["pushed"] or not row["in_use"]]


def _row(context: Context, operation: Operation, state: PoolState, tier: TierRate, used: set[str]) -> dict[str, Any]:
    tried = []
    problem = state.problem
    there = {
        problem.items[choice.item].names[0]
        for choice, share in zip(problem.choices, state.shares, strict=True)
        if choice.tier == tier.id and share > USED
    }
    for name in dict.fromkeys(item.names[0] for item in problem.items if item.names[0] not in there):
        moved = [found for mode in HOW if (found := moved_to(state.problem, state.shares, tier, name, mode)) is not None]
        if moved:
            best = min(moved, key=lambda one: _merit(state.problem, one[1]))
            tried.append(_pushed(context, operation, state, tier, name, best))
    tried.sort(key=lambda one: (one["worse"] is None, bool(one["breaks"]), one["worse"] or 0.0, one["item"]))
    row: dict[str, Any] = {
        "pool": state.decision.phase,
        "tier": tier.id,
        "in_use": tier.id in used,
        "everything_fits": not used,
        "objective": operation_objective(context, operation),
        "pushed": tried,
    }
    return row | {"line": _line(row, state.pool.rates.memory_id)}


def _merit(problem: TierProblem, shares: Array) -> float:
    times = evaluate_shares(problem, shares).phase_s
    return math.fsum(problem.weights[phase] * times[phase] for phase in problem.phases)


def moved_to(problem: TierProblem, shares: Array, tier: TierRate, name: str, mode: str) -> tuple[str, Array, float] | None:
    """``(mode, shares, part of it)`` with all items of that name moved to the tier, or what fits; ``None`` where the tier or the
    buffers have no room, or none of it moves that way. Items that do not move that way go the first way that they do."""
    program, count = problem.program, len(problem.choices)
    whole, mine = shares.copy(), np.zeros(count, dtype=bool)
    there: dict[tuple[int, int], dict[str, int]] = {}
    for index, choice in enumerate(problem.choices):
        if name == problem.items[choice.item].names[0]:
            mine[index] = True
            if choice.tier == tier.id:
                there.setdefault((choice.stage, choice.item), {})[choice.mode] = index
    if not any(mode in columns for columns in there.values()):
        return None
    for key, columns in there.items():
        own = [i for i, choice in enumerate(problem.choices) if mine[i] and (choice.stage, choice.item) == key]
        whole[own] = 0.0
        whole[columns.get(mode, min(columns.values()))] = 1.0
    part = 1.0
    for row in problem.capacity_rows.values():
        before = float(program.matrix[row, :count] @ shares)
        after, limit = float(program.matrix[row, :count] @ whole), float(program.limit[row])
        if after > max(limit, before) * (1.0 + 1e-9):
            part = min(part, (max(limit, before) - before) / (after - before))
    return (mode, shares + part * (whole - shares), part) if part > 1e-6 else None


def _pushed(
    context: Context, operation: Operation, state: PoolState, tier: TierRate, name: str, found: tuple[str, Array, float]
) -> dict[str, Any]:
    mode, shares, part = found
    there = replace(state, placed=shares)
    before = held_bytes(state, state.problem, state.shares, tier)
    moved = {
        phase: moved_per_token(there, there.problem, shares, tier, phase)[0]
        - moved_per_token(state, state.problem, state.shares, tier, phase)[0]
        for phase in state.decision.phases
    }
    joules = {phase: moved_joules(each, tier.kind, state.pool.rates.memory_kind) for phase, each in moved.items()}
    result: dict[str, Any] = {
        "item": name,
        "access": HOW[mode],
        "part": part,
        "bytes_per_device": (held_bytes(there, there.problem, shares, tier) - before) / state.decision.devices,
        "joules_per_token": joules,
        "objective": None,
        "worse": None,
        "resource": _waits_for(state, there),
        "breaks": [],
    }
    states = {one.decision.phase: there if one.decision is state.decision else one for one in operation.pools}
    try:
        served = serve(context, operation.units, states)
    except InputError:
        return result
    own, after = operation_objective(context, operation), operation_objective(context, served)
    worse = 1.0 - after / own if context.inputs.options.objective == "throughput" else after / own - 1.0
    breaks = [check.name for check in checks(context, served) if not check.holds]
    return result | {"objective": after, "worse": max(worse, 0.0), "breaks": breaks}


def _waits_for(before: PoolState, after: PoolState) -> str | None:
    """The resource whose part of a pass grows most."""
    grown: dict[str, float] = {}
    for phase in before.decision.phases:
        if after.seconds[phase] <= before.seconds[phase] * (1.0 + NO_WORSE):
            continue
        old = resource_seconds(before, phase)
        for name, seconds in resource_seconds(after, phase).items():
            more = (seconds - old.get(name, 0.0)) * before.problem.weights[phase]
            grown[name] = max(grown.get(name, 0.0), more)
    return max(sorted(grown), key=grown.__getitem__) if grown else None


def _line(row: dict[str, Any], memory: str) -> str:
    start = f"{row['pool']} pool: {row['tier']} holds nothing"
    if row["in_use"]:
        start += " else"
    elif row["everything_fits"]:
        start += f", since everything fits in {memory}"
    else:
        start += ", since the room of the memories above it is enough"
    if not row["pushed"]:
        return f"{start}; nothing of this plan could lie there"
    return f"{start}; moved there at this configuration " + "; ".join(_words(one) for one in row["pushed"])


def _words(one: dict[str, Any]) -> str:
    amount = "" if one["part"] > 1.0 - 1e-9 else f"{one['part']:.1%} of "
    what = f"{amount}the {one['item']} ({one['bytes_per_device'] / 1e9:.3g} GB a device, {one['access']})"
    waits = "" if one["resource"] is None else f", waiting for {one['resource']}"
    if one["worse"] is None:
        return f"{what} would serve nothing within the limits{waits}"
    broken = f", and break {' and '.join(one['breaks'])}" if one["breaks"] else ""
    if one["worse"] <= NO_WORSE:
        return f"{what} would gain nothing{broken}"
    return f"{what} would be {one['worse']:,.2%} worse{waits}{broken}"
