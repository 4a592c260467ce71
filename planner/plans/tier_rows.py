"""What a plan's use of a memory below device memory amounts to: capacity, time, energy and wear.

Every number follows from the placement's shares. A memory's *time* is that of a pass less that of the same pass with the memory's
shares lying in device memory, whatever its room; what hides behind the layers adds nothing, and the times of two memories need
not add up to that of both. *Energy*: a moved bit is read from its memory, written to device memory and read from there;
every device counts as the fullest, which is too much where experts load ranks unevenly. *Wear*: what
passes write into a memory, and what of a prefix cache comes to lie there, once for every entry.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from planner.economics.classes import DOES_NOT_WEAR, DRIVE_WRITES_PER_DAY, PICOJOULES_PER_BIT
from planner.economics.energy import joules_per_byte, joules_per_token
from planner.economics.wear import drive_writes_per_day
from planner.performance import TierRate
from planner.plans.context import Context
from planner.plans.lp import Array
from planner.plans.operate import Operation
from planner.plans.prefix import age_name
from planner.plans.states import PoolState, prefix_parts
from planner.plans.tiers import TierProblem, evaluate_shares, reading_stages

USED = 1e-12
"""Smallest share that counts as one."""

SECONDS_PER_DAY = 86400.0


def used_tiers(state: PoolState) -> list[TierRate]:
    """The memories below device memory that hold something, host memory first."""
    if state.resident:
        return []
    used = {choice.tier for choice, share in zip(state.problem.choices, state.shares, strict=True) if share > USED}
    return [tier for tier in state.pool.rates.tiers if tier.id in used]


def held_bytes(state: PoolState, problem: TierProblem, shares: Array, tier: TierRate) -> float:
    """Bytes that all devices of the pool hold in a tier."""
    alike = state.pool.pieces.stage_counts(state.decision.pp)
    total = math.fsum(
        problem.items[choice.item].held_in(tier)
        * problem.stages[choice.stage][problem.items[choice.item].window]
        * alike[choice.stage]
        * float(share)
        for choice, share in zip(problem.choices, shares, strict=True)
        if choice.tier == tier.id
    )
    return total * state.decision.tp * state.decision.dp * state.decision.replicas


def _movements(
    state: PoolState, problem: TierProblem, shares: Array, tier: TierRate, phase: str
) -> Iterator[tuple[int, float, float]]:
    """``(stage, bytes moved, those of them written)`` of one device in a pass, by item and reader."""
    passes = state.passes[phase]
    for choice, share in zip(problem.choices, shares, strict=True):
        if choice.tier != tier.id or share <= USED:
            continue
        item = problem.items[choice.item]
        for reader in item.windows:
            moved = item.moved(choice.mode, tier.granule, phase, reader) * float(share)
            written = item.written(choice.mode, tier.granule, phase, reader) * float(share)
            for stage in reading_stages(list(problem.stages), choice.stage, item.window, reader):
                repeats = float(passes.repeats[stage][reader])
                yield stage, moved * repeats, written * repeats


def tokens_per_pass(state: PoolState, phase: str) -> float:
    """Tokens that a pass of one instance computes: those accepted of a decode step, those of a prefill pass."""
    decision = state.decision
    return decision.batch * decision.dp * state.pool.accept if phase == "decode" else float(decision.chunk * decision.dp)


def moved_per_token(
    state: PoolState, problem: TierProblem, shares: Array, tier: TierRate, phase: str
) -> tuple[float, float, float]:
    """``(bytes moved per token, those of them written, bytes that a device of the slowest stage moves in a pass)``."""
    alike = state.pool.pieces.stage_counts(state.decision.pp)
    slowest = state.times.slowest[phase]
    found = list(_movements(state, problem, shares, tier, phase))
    width = state.decision.tp * state.decision.dp / tokens_per_pass(state, phase)
    moved = math.fsum(value * alike[stage] for stage, value, _ in found) * width
    written = math.fsum(value * alike[stage] for stage, _, value in found) * width
    return moved, written, math.fsum(value for stage, value, _ in found if stage == slowest)


def moved_joules(bytes_per_token: float, kind: str, memory_kind: str) -> float | None:
    """Joules for the bytes that a token moves from a memory of a kind to the kernels of a device; ``None`` where unknown."""
    below, own = PICOJOULES_PER_BIT.get(kind), PICOJOULES_PER_BIT.get(memory_kind)
    if below is None or own is None:
        return None
    return joules_per_token(bytes_per_token, joules_per_byte(below.value * 1e-12, own.value * 1e-12, own.value * 1e-12))


def tokens_per_s(context: Context, operation: Operation, phase: str) -> float:
    """Tokens of a phase that the deployment computes (the first output token comes from prefill)."""
    load = context.inputs.workload
    return operation.requests_per_s * (load.output_tokens.mean - 1.0 if phase == "decode" else load.miss_tokens)


def _prefix_written(state: PoolState, tier: TierRate) -> float:
    """Bytes written to a tier for each token that enters the prefix cache: entries of an age lie alike, and each is written once
    where the age at which most lie there begins."""
    parts = prefix_parts(state.pool, state.decision)
    kept = {age_name(place, len(parts)): tokens for place, (tokens, _) in enumerate(parts) if tokens}
    alike = state.pool.pieces.stage_counts(state.decision.pp)
    most: dict[tuple[int, int], float] = {}
    for choice, share in zip(state.problem.choices, state.shares, strict=True):
        item = state.problem.items[choice.item]
        if choice.tier != tier.id or item.kind != "prefix" or share <= USED:
            continue
        layers = alike[choice.stage] * state.problem.stages[choice.stage][item.window]
        key = (choice.stage, item.window)
        most[key] = max(most.get(key, 0.0), float(share) * item.held / kept[item.name] * layers)
    return math.fsum(most.values()) * state.decision.tp


def tier_rows(context: Context, operation: Operation) -> list[dict[str, Any]]:
    """One row for each memory below device memory that a pool uses, with four lines that say it in words."""
    return [_row(context, operation, state, tier) for state in operation.pools for tier in used_tiers(state)]


def _row(context: Context, operation: Operation, state: PoolState, tier: TierRate) -> dict[str, Any]:
    problem, shares, pool = state.problem, state.shares, state.pool
    held, capacity = held_bytes(state, problem, shares, tier), tier.capacity * state.decision.devices
    elsewhere = np.array([choice.tier != tier.id for choice in problem.choices], dtype=float)
    without = evaluate_shares(problem, shares * elsewhere).phase_s
    times, energies, per_day = [], [], 0.0
    for phase in state.decision.phases:
        moved, written, on_slowest = moved_per_token(state, problem, shares, tier, phase)
        added = max(state.times.phase_s[phase] - without[phase], 0.0) * pool.rates.residual
        times.append(
            {
                "phase": phase,
                "added_ms": added * 1e3,
                "share_of_pass": added / state.seconds[phase],
                "bytes_per_device": on_slowest,
            }
        )
        joules = moved_joules(moved, tier.kind, pool.rates.memory_kind)
        energies.append({"phase": phase, "bytes_per_token": moved, "joules_per_token": joules})
        per_day += written * tokens_per_s(context, operation, phase)
    if "prefill" in state.decision.phases and state.decision.prefix_rate is not None:
        load = context.inputs.workload
        per_day += _prefix_written(state, tier) * operation.requests_per_s * (load.miss_tokens + load.output_tokens.mean)
    per_day *= SECONDS_PER_DAY * context.utilisation
    allowed = DRIVE_WRITES_PER_DAY.get(tier.kind)
    row = {
        "pool": state.decision.phase,
        "tier": tier.id,
        "kind": tier.kind,
        "bytes": round(held),
        "capacity_bytes": round(capacity),
        "share": held / capacity,
        "passes": times,
        "energy": energies,
        "bytes_written_per_day": per_day,
        "drive_writes_per_day": drive_writes_per_day(per_day, capacity),
        "drive_writes_per_day_allowed": None if allowed is None else allowed.value,
    }
    return row | {"lines": [_capacity(row), _time(row), _energy(row, pool.rates.memory_kind), _wear(row)]}


def _capacity(row: dict[str, Any]) -> str:
    room = row["capacity_bytes"] / 1e9
    return f"capacity: {row['bytes'] / 1e9:.2f} GB of the {room:.2f} GB that the pool's devices have there ({row['share']:.1%})"


def _time(row: dict[str, Any]) -> str:
    said = "; ".join(
        f"{one['added_ms']:.4g} ms added to each {one['phase']} pass ({one['share_of_pass']:.2%} of it), "
        f"{one['bytes_per_device'] / 1e6:.4g} MB moved by a device of the slowest stage"
        for one in row["passes"]
    )
    return f"time: {said}"


def _energy(row: dict[str, Any], memory_kind: str) -> str:
    moved = "; ".join(
        f"{one['bytes_per_token'] / 1e3:.4g} kB a {one['phase']} token"
        + ("" if one["joules_per_token"] is None else f", {one['joules_per_token']:.4g} J")
        for one in row["energy"]
    )
    missing = [kind for kind in (row["kind"], memory_kind) if kind not in PICOJOULES_PER_BIT]
    if missing:
        return f"energy: unknown, no figure of pJ/bit for {' and '.join(missing)}; {moved}"
    below, own = PICOJOULES_PER_BIT[row["kind"]], PICOJOULES_PER_BIT[memory_kind]
    return (
        f"energy: {moved} (class figures: {row['kind']} {below.value:g} pJ/bit read, grade {below.grade}, {below.source}; "
        f"{memory_kind} {own.value:g} to write and to read it there, grade {own.grade}, {own.source})"
    )


def _wear(row: dict[str, Any]) -> str:
    written = f"{row['bytes_written_per_day'] / 1e9:.4g} GB written a day"
    if row["kind"] in DOES_NOT_WEAR:
        return f"wear: {written}; {row['kind']} does not wear"
    allowed = DRIVE_WRITES_PER_DAY.get(row["kind"])
    if allowed is None:
        return f"wear: {written}; endurance of {row['kind']} unknown"
    return (
        f"wear: {written}, {row['drive_writes_per_day']:.3g} drive writes a day of the {allowed.value:g} that such a drive is "
        f"warranted for (class figure, grade {allowed.grade}: {allowed.source})"
    )
