"""What a plan says of its prefix cache: how much is kept where, and what bringing it back takes of a prefill pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from planner.footprint.memory import cache_bytes_per_sequence
from planner.performance import prefill_queue, split_serving
from planner.plans.operate import Operation, busy_limit
from planner.plans.states import PoolState


def prefix_rows(operation: Operation) -> list[dict[str, Any]]:
    """The row of the pool that prefills, if it keeps a prefix cache."""
    return [_row(state) for state in operation.pools if state.pool.prefix is not None and "prefill" in state.decision.phases]


def cache_binds(operation: Operation) -> bool:
    """Whether the memories hold no prefix cache for what the pools could serve else, by more than the gap allowed."""
    state = next((s for s in operation.pools if s.decision.prefix_rate is not None), None)
    if state is None or state.decision.prefix_rate is None:
        return False
    most, slack = state.decision.prefix_rate * state.decision.dp * state.decision.replicas, 1e-6 + state.pool.inputs.options.gap
    if operation.capacity_per_s < most * (1.0 - 1e-6):
        return False
    if operation.mode == "aggregated":
        own = sum(weight * state.seconds[phase] for phase, weight in state.problem.weights.items())
        return operation.tpot_s > own * (1.0 + slack)
    decode = next(s for s in operation.pools if s is not state)
    workload, row, other = state.pool.inputs.workload, state.decision.row(), decode.decision.row()
    rate, service, through = prefill_queue(np.array([state.seconds["prefill"]]), row.chunk, row.shapes, workload)
    able = rate * busy_limit(workload.ttft_s, through, service) * state.decision.replicas
    side = split_serving(np.array([decode.seconds["decode"]]), other.batch, other.shapes, workload, decode.pool.accept)
    return float(min(able[0], side.requests_per_s[0] * decode.decision.replicas)) > most * (1.0 + slack)


def _row(state: PoolState) -> dict[str, Any]:
    pool, decision, use = state.pool, state.decision, state.pool.prefix
    assert use is not None and decision.prefix_rate is not None
    workload, ranks = pool.inputs.workload, decision.replicas * decision.dp
    per_rank = use.tokens * decision.prefix_rate
    size = sum(
        window.layers * cache_bytes_per_sequence(cache, workload.reserved_tokens, pool.inputs.runtime.page_tokens)
        for window in (*pool.pieces.windows, *pool.pieces.draft)
        for block in window.blocks
        for cache in block.caches
    )
    tokens = per_rank * ranks
    return {
        "pool": decision.phase,
        "point": use.point,
        "hit_rate": use.hit,
        "tokens_per_request_per_s": use.tokens,
        "requests_per_s": decision.prefix_rate * ranks,
        "tokens_per_rank": per_rank,
        "tokens": tokens,
        "bytes": round(size * tokens / workload.reserved_tokens),
        "retention_s": use.tokens / (workload.miss_tokens + workload.output_tokens.mean),
        "tiers": _tiers(state, round(size * tokens / workload.reserved_tokens)),
    }


def _tiers(state: PoolState, total: int) -> list[dict[str, Any]]:
    """By memory: shares weighted by bytes over all stages, and the reload of the slowest stage."""
    problem, pool = state.problem, state.pool
    below = {tier.id: tier for tier in pool.rates.tiers}
    alike = pool.pieces.stage_counts(state.decision.pp)
    stage_of = state.times.slowest["prefill"]
    repeats = state.passes["prefill"].repeats[stage_of]
    held: dict[str, float] = {}
    found: dict[str, float] = {}
    moved: dict[str, float] = {}
    for choice, share in zip(problem.choices, state.shares, strict=True):
        item = problem.items[choice.item]
        if item.kind != "prefix" or share <= 1e-12:
            continue
        layers = alike[choice.stage] * problem.stages[choice.stage][item.window] * float(share)
        held[choice.tier] = held.get(choice.tier, 0.0) + item.held * layers
        found[choice.tier] = found.get(choice.tier, 0.0) + item.reads["prefill"] * layers
        if choice.stage == stage_of and choice.tier in below:
            passing = item.reads["prefill"] * repeats[item.window] * float(share)
            moved[choice.tier] = moved.get(choice.tier, 0.0) + passing
    whole, hits = math.fsum(held.values()) or 1.0, math.fsum(found.values()) or 1.0
    rows = []
    for tier in (pool.rates.memory_id, *below):
        if tier not in held:
            continue
        seconds = moved.get(tier, 0.0) / below[tier].bytes_per_s * pool.rates.residual if tier in below else 0.0
        rows.append(
            {
                "tier": tier,
                "share": held[tier] / whole,
                "hits": found[tier] / hits,
                "bytes": round(total * held[tier] / whole),
                "reload_bytes_per_pass": moved.get(tier, 0.0),
                "reload_ms_per_pass": seconds * 1e3,
                "share_of_pass": seconds / state.seconds["prefill"],
            }
        )
    return rows


def prefix_lines(rows: list[dict[str, Any]], tried: int, binds: bool) -> list[str]:
    """The rows in words; ``tried``: points of the curve; ``binds``: the rate is what the cache has room for."""
    lines = []
    for row in rows:
        where = "; ".join(
            f"{tier['share']:.1%} of it ({tier['bytes'] / 1e9:.4g} GB) in {tier['tier']}"
            + (
                f", {tier['hits']:.1%} of the hits, brought back in {tier['reload_ms_per_pass']:.4g} ms a pass "
                f"({tier['share_of_pass']:.1%} of it)"
                if tier["reload_bytes_per_pass"]
                else f", {tier['hits']:.1%} of the hits, read where they lie"
            )
            for tier in row["tiers"]
        )
        lines.append(
            f"{row['pool']} pool: a prefix cache of {row['tokens']:.4g} tokens ({row['bytes'] / 1e9:.4g} GB), kept for "
            f"{row['retention_s']:.4g} s at {row['requests_per_s']:.4g} requests/s, finds {row['hit_rate']:.1%} of input tokens "
            f"(point {row['point']} of {tried} of the workload's curve): {where}"
            + ("; room for it is what limits the rate" if binds else "")
        )
    return lines
