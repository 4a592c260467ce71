"""A plan as the pools that a replay runs: instances, what a rank has room for, tables of time, memories of the prefix cache."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InputError
from planner.footprint.memory import window_cache_bytes
from planner.plans.arrivals import at_once, room_tokens
from planner.plans.context import Context, at_value, build_context
from planner.plans.operate import Operation, operate
from planner.plans.prefix_rows import prefix_rows
from planner.plans.read import decision_of, inputs_of
from planner.plans.schema import Plan
from planner.plans.states import PoolState
from planner.replay.parts import Memory, Site
from planner.replay.timing import timing_of


@dataclass(frozen=True)
class Deployment:
    """``sites``: the pool that prefills first. ``spare_tokens``: room for caches of running requests in all ranks of that pool,
    where a prefix cache may use what they leave; ``found_by_share``: of a hit token without a hash, what each memory brings."""

    plan: Plan
    context: Context
    operation: Operation
    sites: tuple[Site, ...]
    memories: tuple[Memory, ...]
    spare_tokens: float | None
    found_by_share: tuple[float, ...]
    disk_bytes: float
    """Of the pool's part of the disks that a prefix cache lies on."""
    notes: tuple[str, ...] = ()


def deploy(plan: Plan, where: str, longest: float) -> Deployment:
    """The pools of a plan, able to take requests of ``longest`` tokens; times are those of the figures' values."""
    inputs, decision = inputs_of(plan, where), decision_of(plan, where)
    if inputs.workloads:
        raise InputError("serves several workloads; replaying is built for one", where=where, mend="plan for one workload")
    context = build_context(inputs, decision.variant)
    operation = operate(context, decision)
    usual = at_value(context)
    if usual is not context:
        operation = operate(usual, decision, operation.placed)
    states = {state.decision.phase: state for state in operation.pools}
    order = ("mixed",) if "mixed" in states else ("prefill", "decode")
    first = states[order[0]]
    sites = tuple(_site(states[phase], longest) for phase in order)
    memories, shares, disk = _planned_cache(first, operation)
    spare = None
    if not memories:
        spare = sites[0].kv_tokens * sites[0].dp * sites[0].replicas
        memories = (Memory(first.pool.rates.memory_id, spare),)
        shares = (1.0,)
    return Deployment(plan, usual, operation, sites, memories, spare, shares, disk)


def _site(state: PoolState, longest: float) -> Site:
    decision, most = state.decision, at_once(state)
    return Site(
        name=decision.phase,
        replicas=decision.replicas,
        dp=decision.dp,
        pp=decision.pp,
        sequences=decision.batch * decision.pp,
        chunk=decision.chunk,
        kv_tokens=room_tokens(state),
        timing=timing_of(state, longest, most),
        accept=state.pool.accept,
        per_pass=most,
    )


def token_bytes(state: PoolState) -> float:
    """Bytes of a token's caches on a device of one stage, in a sequence of the reserved length."""
    pool, row = state.pool, state.decision.row()
    reserved, page = pool.inputs.workload.reserved_tokens, pool.inputs.runtime.page_tokens
    windows = (*pool.pieces.windows, *pool.pieces.draft)
    total = sum(w.layers * float(window_cache_bytes(w, row.shapes, reserved, page)[0]) for w in windows)
    return total / reserved / state.decision.pp


def _planned_cache(state: PoolState, operation: Operation) -> tuple[tuple[Memory, ...], tuple[float, ...], float]:
    """The memories of the plan's prefix cache in tokens, the share of hits in each, and bytes of the disks below the pool."""
    rows = prefix_rows(operation)
    if not rows:
        return (), (), 0.0
    below = {tier.id: tier for tier in state.pool.rates.tiers}
    each, decision = token_bytes(state), state.decision
    memories, disk = [], 0.0
    for tier in rows[0]["tiers"]:
        tokens = float(tier["share"]) * float(rows[0]["tokens"])
        found = below.get(tier["tier"])
        if found is None:
            memories.append(Memory(tier["tier"], tokens))
            continue
        seconds = each / found.bytes_per_s * state.pool.rates.residual
        whole = each * decision.tp * decision.pp
        memories.append(Memory(found.id, tokens, seconds, whole, found.latency))
        if found.role == "disk":
            disk += found.capacity * decision.devices
    return tuple(memories), tuple(float(tier["hits"]) for tier in rows[0]["tiers"]), disk


def in_blocks(memories: tuple[Memory, ...], block_tokens: int) -> tuple[Memory, ...]:
    """Rooms in whole blocks instead of tokens."""
    return tuple(replace(memory, blocks=float(np.floor(memory.blocks / block_tokens))) for memory in memories)
