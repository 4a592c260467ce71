"""Placement rows and memory summary of a pool: what lies where, in exact bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from planner.footprint.memory import cache_bytes_per_sequence
from planner.footprint.pieces import Window, cache_parts
from planner.plans.evaluate import admitted_sequences, reserved_bytes
from planner.plans.experts import slots_of
from planner.plans.prefix import age_name
from planner.plans.states import PoolState, prefix_parts
from planner.plans.window_items import class_name, table_sizes


def window_label(window: Window, layers: int) -> str:
    """``layers 3-60``, ``layer 5``, or the window's own name outside the layers."""
    if window.first_layer < 0 or window.first_layer >= layers:
        return window.name
    if window.at:
        return f"{window.layers} layers {window.at[0]}-{window.at[-1]} ({window.name})"
    last = window.first_layer + window.layers - 1
    return f"layer {last}" if window.layers == 1 else f"layers {window.first_layer}-{last}"


def _parts(state: PoolState) -> list[tuple[int, str, str, int, float, float]]:
    """``(window, problem item, label, bytes of one logical copy, copies in the pool, bytes per holding device)``.

    Expert slots beyond the number of experts are an item of their own.
    """
    decision, pieces, pool = state.decision, state.pool.pieces, state.pool
    groups = decision.replicas * decision.dp
    workload, runtime = pool.inputs.workload, pool.inputs.runtime
    sequences = int(admitted_sequences(pool, decision.row())[0])
    rows: list[tuple[int, str, str, int, float, float]] = []
    parts = prefix_parts(pool, decision)
    prefix = [(age_name(place, len(parts)), tokens) for place, (tokens, _) in enumerate(parts) if tokens]
    for number, window in enumerate((*pieces.windows, *pieces.draft)):
        label = window_label(window, pieces.layers)
        static: dict[int, int] = {}
        for block in window.blocks:
            for axis, held, _ in block.static.parts:
                ways = min(decision.tp, axis)
                static[ways] = static.get(ways, 0) + held * window.layers
        for ways, size in sorted(static.items()):
            if size:
                name = "weights" if ways == decision.tp else ("replicated weights" if ways == 1 else f"weights split {ways} ways")
                rows.append((number, "weights", f"{label}: {name}", size, groups * decision.tp / ways, size / ways))
        for block in window.blocks:
            if block.routed:
                slots = slots_of(block.routed, decision.ep) * decision.ep
                size = block.routed.member_bytes * window.layers
                spread = decision.tp * decision.dp
                before = 0
                for place, count in enumerate(sizes := block.routed.class_sizes):
                    name = class_name("routed experts", place, len(sizes))
                    total = size * count
                    rows.append((number, name, f"{label}: {name}", total, decision.replicas, total / spread))
                    copies_here = (slots - block.routed.experts) * (before + count) // block.routed.experts
                    copies_here -= (slots - block.routed.experts) * before // block.routed.experts
                    before += count
                    if copies_here:
                        extra, text = size * copies_here, name.replace("routed experts", "redundant expert slots")
                        rows.append((number, name, f"{label}: {text}", extra, decision.replicas, extra / spread))
            for table in block.lookups:
                ways = min(decision.tp, table.tensor_axis)
                copies = groups * decision.tp / ways
                for place, size in enumerate(sizes := table_sizes(table)):
                    name = class_name(block.lookups[0].label, place, len(sizes))
                    text = class_name(table.label, place, len(sizes))
                    if size:
                        total = size * window.layers
                        rows.append((number, name, f"{label}: {text}", total, copies, total / ways))
        for name, members in cache_parts(window).items():
            caches: dict[int, int] = {}
            for at, place in members:
                cache = window.blocks[at].caches[place]
                ways = min(min(decision.tp, cache.tensor_axis) * decision.cp, decision.tp)
                size = cache_bytes_per_sequence(cache, workload.reserved_tokens, runtime.page_tokens) * window.layers
                caches[ways] = caches.get(ways, 0) + size * sequences * groups
            for ways, size in sorted(caches.items()):
                if size:
                    rows.append((number, name, f"{label}: {name}", size, decision.tp / ways, size / groups / ways))
        for name, tokens in prefix:
            shared: dict[int, int] = {}
            for cache in (cache for block in window.blocks for cache in block.caches):
                ways = min(min(decision.tp, cache.tensor_axis) * decision.cp, decision.tp)
                size = cache_bytes_per_sequence(cache, workload.reserved_tokens, runtime.page_tokens) * window.layers
                shared[ways] = shared.get(ways, 0) + round(size * tokens * groups / workload.reserved_tokens)
            for ways, size in sorted(shared.items()):
                if size:
                    rows.append((number, name, f"{label}: {name}", size, decision.tp / ways, size / groups / ways))
    return rows


def placement_rows(state: PoolState) -> list[dict[str, Any]]:
    """One row per item and tier: ``share`` of a logical copy, ``copies`` in the pool, ``bytes`` = item bytes x share x copies.

    Shares of an item are those of its window over all pipeline stages, weighted by layers.
    """
    problem, decision = state.problem, state.decision
    held: dict[tuple[int, str], dict[str, float]] = {}
    modes: dict[tuple[int, str, str], set[str]] = {}
    spread: dict[tuple[int, str, str], float] = {}
    below = {tier.id: tier for tier in state.pool.rates.tiers}
    alike = state.pool.pieces.stage_counts(decision.pp)
    layers_total: dict[int, int] = {}
    for number, counts in zip(alike, problem.stages, strict=True):
        for window, count in enumerate(counts):
            layers_total[window] = layers_total.get(window, 0) + number * count
    for choice, share in zip(problem.choices, state.shares, strict=True):
        item = problem.items[choice.item]
        if share <= 1e-12:
            continue
        weight = alike[choice.stage] * problem.stages[choice.stage][item.window] / layers_total[item.window]
        tiers = held.setdefault((item.window, item.name), {})
        tiers[choice.tier] = tiers.get(choice.tier, 0.0) + float(share) * weight
        modes.setdefault((item.window, item.name, choice.tier), set()).add(choice.mode)
        spread[(item.window, item.name, choice.tier)] = item.held_in(below.get(choice.tier)) / item.held
    how = {
        "resident": "resident",
        "stream": "streamed each pass",
        "fetch": "fetched on demand",
        "prefetch": "fetched ahead by token",
    }
    most = _most_per_device(state)
    rows = []
    parts = _parts(state)
    per_item: dict[tuple[int, str], float] = {}
    for window, item_name, _, _, _, device_bytes in parts:
        per_item[(window, item_name)] = per_item.get((window, item_name), 0.0) + device_bytes
    for window, item_name, label, size, copies, device_bytes in parts:
        tiers = held[(window, item_name)]
        portion = device_bytes / per_item[(window, item_name)]
        total = sum(tiers.values())
        for tier, share in tiers.items():
            part = share / total
            access = " and ".join(how[m] for m in sorted(modes[(window, item_name, tier)]))
            here = round(copies * spread[(window, item_name, tier)], 9)
            copies_number: float | int = int(here) if here.is_integer() else here
            rows.append(
                {
                    "item": label,
                    "tier": tier,
                    "share": part,
                    "copies": copies_number,
                    "item_bytes": size,
                    "bytes": round(size * part * here),
                    "max_bytes_per_device": math.ceil(most[(window, item_name, tier)] * portion),
                    "access": access,
                }
            )
    buffers = [math.ceil(value) for value in _staging(state)]
    if any(buffers):
        size = sum(number * value for number, value in zip(alike, buffers, strict=True))
        copies_number = decision.devices // decision.pp
        rows.append(
            {
                "item": "staging buffers",
                "tier": state.pool.rates.memory_id,
                "share": 1.0,
                "copies": copies_number,
                "item_bytes": size,
                "bytes": size * copies_number,
                "max_bytes_per_device": max(buffers),
                "access": "resident",
            }
        )
    return rows


def _most_per_device(state: PoolState) -> dict[tuple[int, str, str], float]:
    """Bytes of a window's item in a tier on the fullest device."""
    problem = state.problem
    tiers = {tier.id: tier for tier in state.pool.rates.tiers}
    most: dict[tuple[int, str, str], float] = {}
    for stage, counts in enumerate(problem.stages):
        here: dict[tuple[int, str, str], float] = {}
        for choice, share in zip(problem.choices, state.shares, strict=True):
            item = problem.items[choice.item]
            if choice.stage == stage and share > 1e-12:
                key = (item.window, item.name, choice.tier)
                held = item.held_in(tiers.get(choice.tier))
                here[key] = here.get(key, 0.0) + held * counts[item.window] * float(share)
        for key, value in here.items():
            most[key] = max(most.get(key, 0.0), value)
    return most


def _staging(state: PoolState) -> list[float]:
    """Bytes of double buffers on a device of each stage."""
    problem = state.problem
    per_stage = [0.0] * len(problem.stages)
    for choice, share in zip(problem.choices, state.shares, strict=True):
        item = problem.items[choice.item]
        per_stage[choice.stage] += item.staged(choice.mode, problem.stages[choice.stage][item.window]) * float(share)
    return per_stage


def memory_summary(state: PoolState) -> dict[str, Any]:
    """Device memory of the fullest device by use, and what lies below it (bytes per device)."""
    problem, pool = state.problem, state.pool
    reserve = {name: math.ceil(float(column[0])) for name, column in reserved_bytes(pool, state.decision.row()).items()}
    usable = int(pool.rates.memory_bytes)
    used_by_stage = []
    for stage, counts in enumerate(problem.stages):
        parts = {"weights": 0.0, "kv_cache": 0.0, "staging": 0.0}
        if pool.prefix is not None:
            parts["prefix_cache"] = 0.0
        for choice, share in zip(problem.choices, state.shares, strict=True):
            item = problem.items[choice.item]
            if choice.stage != stage:
                continue
            if choice.mode == "resident":
                name = {"cache": "kv_cache", "prefix": "prefix_cache"}.get(item.kind, "weights")
                parts[name] += item.held * counts[item.window] * float(share)
            parts["staging"] += item.staged(choice.mode, counts[item.window]) * float(share)
        used_by_stage.append({name: math.ceil(value - 1e-6) for name, value in parts.items()})
    fullest = max(used_by_stage, key=lambda parts: sum(parts.values()))
    below: dict[str, int] = {}
    for (_, _, tier), value in sorted(_most_per_device(state).items()):
        if tier != pool.rates.memory_id:
            below[tier] = below.get(tier, 0) + math.ceil(value)
    sizes = {tier.id: int(tier.capacity) for tier in pool.rates.tiers}
    return {
        "tier": pool.rates.memory_id,
        "usable_bytes": usable,
        **{f"{name}_bytes": value for name, value in fullest.items()},
        "reserve_bytes": reserve,
        "free_bytes": max(usable - sum(fullest.values()) - sum(reserve.values()), 0),
        "below": [{"tier": tier, "bytes": value, "capacity_bytes": sizes[tier]} for tier, value in below.items()],
        "admitted_sequences_per_rank": int(np.ceil(admitted_sequences(pool, state.decision.row())[0])),
    }
