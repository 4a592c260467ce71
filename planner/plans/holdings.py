"""What lies on every rank of a pool's instance, as parts of the model that two plans can be compared by.

A device holds of each layer an interval of every tensor (tensor parallelism), whole experts or an interval of each (expert
parallelism), and of what it holds the first part in its own memory, the next in the memory below, and so on. Experts lie as the
plan maps them; without a map, slot i of an instance holds expert ``i % E``. Caches are no part: requests are served to their end
where they began.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.architecture import Block, WeightGroup
from planner.footprint import ModelPieces, RoutedItem
from planner.plans.experts import ExpertMap, routed_layers, slots_of
from planner.plans.inputs import with_weight_dtype
from planner.plans.states import PoolState

Array = NDArray[np.float64]
WEIGHTS, EXPERTS, TABLES = KINDS = ("weights", "routed experts", "tables")


@dataclass(frozen=True)
class Held:
    """One part of the model on the ranks of an instance: S stages of R ranks each.

    ``key`` is equal where two plans hold the same bytes. ``size``: bytes of one layer (of one expert of it). ``first`` and
    ``count`` [S]: which layers of its window. ``low`` and ``high`` [R]: which interval of every tensor. ``slots``
    [1 or layers, R, E]: how often a rank has an expert. ``tiers`` [S]: memory -> which part of what a rank has.
    """

    key: tuple[object, ...]
    kind: str
    size: int
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    low: Array
    high: Array
    slots: Array | None
    tiers: tuple[dict[str, tuple[float, float]], ...]


@dataclass(frozen=True)
class Holdings:
    """All parts of one pool's instances. Device i of an instance is rank ``i % ranks`` of stage ``i // ranks``."""

    stages: int
    ranks: int
    parts: tuple[Held, ...]
    tiers: tuple[str, ...]

    @property
    def devices(self) -> int:
        """Devices of one instance."""
        return self.stages * self.ranks

    def used(self, kind: str) -> list[str]:
        """Memories in which anything of a kind lies, from the device's own downwards."""
        lies = {tier for part in self.parts if part.kind == kind for row in part.tiers for tier in row}
        return [tier for tier in self.tiers if tier in lies]


def holdings_of(state: PoolState, expert_map: ExpertMap | None = None) -> Holdings:
    """What the instances of a pool at work hold; ``expert_map``: where their experts lie."""
    pieces, decision = state.pool.pieces, state.decision
    options, conversions = state.pool.inputs.options, state.pool.conversions
    model = with_weight_dtype(state.pool.inputs.model, options.weight_dtype)
    blocks = {block.id: block for block in model.blocks}
    ranks = decision.tp * decision.dp
    tiers = (state.pool.rates.memory_id, *(tier.id for tier in state.pool.rates.tiers))
    rows = routed_layers(pieces)
    parts = []
    for number, window in enumerate((*pieces.windows, *pieces.draft)):
        layers = _layers(pieces, decision.pp, number)
        for piece in window.blocks:
            block = blocks[piece.id]
            for axis, held, _ in piece.static.parts:
                groups = [g for g in block.weights if g.access not in ("routed", "lookup") and g.tensor_axis == axis]
                key = (model.id, piece.id, WEIGHTS, axis, _formats(groups, conversions))
                shard = _shards(np.arange(ranks) % decision.tp, decision.tp, axis)
                if held:
                    parts.append(Held(key, WEIGHTS, held, *layers, *shard, None, _shares(state, number, "weights", tiers)))
            for place, table in enumerate(piece.lookups):
                key = (model.id, piece.id, TABLES, place, _formats(_of(block, "lookup"), conversions))
                shard = _shards(np.arange(ranks) % decision.tp, decision.tp, table.tensor_axis)
                shares = _shares(state, number, piece.lookups[0].label, tiers)
                if table.bytes:
                    parts.append(Held(key, TABLES, table.bytes, *layers, *shard, None, shares))
            if piece.routed:
                mine = [row for row, (_, at) in enumerate(rows) if at == number]
                slots = _slots(piece.routed, decision.ep, ranks, expert_map, mine)
                ways = ranks // decision.ep
                key = (model.id, piece.id, EXPERTS, 0, _formats(_of(block, "routed"), conversions))
                shard = _shards(np.arange(ranks) % ways, ways, ways)
                shares = _shares(state, number, None, tiers)
                parts.append(Held(key, EXPERTS, piece.routed.member_bytes, *layers, *shard, slots, shares))
    return Holdings(decision.pp, ranks, tuple(parts), tiers)


def _shards(rank: NDArray[np.int64], of: int, axis: int) -> tuple[Array, Array]:
    """Which interval of a tensor each of ``of`` devices has: an equal part, or one that others have too beyond ``axis`` parts."""
    ways = min(of, axis)
    shard = rank * ways // of
    return shard / ways, (shard + 1) / ways


def _of(block: Block, access: str) -> list[WeightGroup]:
    return [group for group in block.weights if group.access == access]


def _formats(groups: Sequence[WeightGroup], conversions: dict[str, str]) -> tuple[object, ...]:
    """Shapes and formats in which these weights lie in memory."""
    return tuple((tensor.shape, conversions.get(tensor.format, tensor.format)) for group in groups for tensor in group.tensors)


def _layers(pieces: ModelPieces, pp: int, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First of the window's layers in each stage, and how many; the draft module lies in the last stage."""
    if number < len(pieces.windows):
        count = np.array([row[number] for row in pieces.stages(pp)], dtype=np.int64)
    else:
        count = np.zeros(pp, dtype=np.int64)
        count[-1] = pieces.draft[number - len(pieces.windows)].layers
    return np.cumsum(count) - count, count


def _shares(
    state: PoolState, window: int, name: str | None, tiers: tuple[str, ...]
) -> tuple[dict[str, tuple[float, float]], ...]:
    """For every stage the part of a window's item in each memory, as an interval; ``name`` = ``None``: of its routed experts."""
    problem, pieces = state.problem, state.pool.pieces
    table = pieces.stage_table(state.decision.pp)
    found: list[dict[str, float]] = [{} for _ in table]
    whole = [0.0] * len(table)
    for choice, share in zip(problem.choices, state.shares, strict=True):
        item = problem.items[choice.item]
        if item.window != window or (item.kind != "routed" if name is None else name not in item.names):
            continue
        weight = float(share) * item.held
        found[choice.stage][choice.tier] = found[choice.stage].get(choice.tier, 0.0) + weight
        whole[choice.stage] += weight
    intervals = []
    for stage, row in enumerate(found):
        start, here = 0.0, {}
        for tier in tiers:
            part = row.get(tier, 0.0) / whole[stage] if whole[stage] else 0.0
            if part > 1e-12:
                end = min(start + part, 1.0)
                here[tier] = (start, 1.0 if end > 1.0 - 1e-12 else end)
                start = end
        intervals.append(here)
    return tuple(intervals[table.index(row)] for row in pieces.stages(state.decision.pp))


def _slots(item: RoutedItem, ep: int, ranks: int, expert_map: ExpertMap | None, rows: list[int]) -> Array:
    """Which experts the ranks of a stage have [1 or layers, R, E]; devices that share an expert alike."""
    if expert_map is not None and rows and expert_map.ranks == ep:
        physical = expert_map.physical_to_logical[rows]
    else:
        physical = np.arange(ep * slots_of(item, ep))[None, :] % item.experts
    group = np.repeat(np.arange(ep), physical.shape[1] // ep)
    found = np.zeros((len(physical), ep, item.experts))
    for layer, experts in enumerate(physical):
        np.add.at(found[layer], (group, experts), 1.0)
    return np.repeat(found, ranks // ep, axis=1)


def common_bytes(old: Holdings, new: Holdings, kind: str, old_tier: str, new_tier: str) -> Array:
    """Bytes of a kind that lie in one memory of an old device and in one of a new device, for all pairs [old, new]."""
    total = np.zeros((old.stages, old.ranks, new.stages, new.ranks))
    known = {part.key: part for part in old.parts if part.kind == kind}
    for part in new.parts:
        if part.kind == kind and part.key in known:
            for a, b, block in _blocks(known[part.key], part, old_tier, new_tier):
                total[a, :, b, :] += block
    return total.reshape(old.devices, new.devices)


def _blocks(old: Held, new: Held, old_tier: str, new_tier: str) -> Iterator[tuple[int, int, Array]]:
    """``(old stage, new stage, common bytes of their ranks [R old, R new])`` where there are any."""
    shard = np.minimum(old.high[:, None], new.high[None, :]) - np.maximum(old.low[:, None], new.low[None, :])
    shard = np.maximum(shard, 0.0) * old.size
    for a in range(len(old.first)):
        for b in range(len(new.first)):
            start = max(old.first[a], new.first[b])
            layers = int(min(old.first[a] + old.count[a], new.first[b] + new.count[b]) - start)
            if layers <= 0 or old_tier not in old.tiers[a] or new_tier not in new.tiers[b]:
                continue
            low, high = old.tiers[a][old_tier], new.tiers[b][new_tier]
            part = min(low[1], high[1]) - max(low[0], high[0])
            if part > 0.0:
                yield a, b, shard * part * _common_experts(old, new, int(start), layers)


def _common_experts(old: Held, new: Held, start: int, layers: int) -> Array | float:
    """Experts that ranks have in common, summed over layers [R old, R new]; for what has none, the layers."""
    if old.slots is None or new.slots is None:
        return float(layers)
    if len(old.slots) == len(new.slots) == 1:
        return np.asarray(np.minimum(old.slots[0], 1.0) @ np.minimum(new.slots[0], 1.0).T) * layers
    both = np.zeros((old.slots.shape[1], new.slots.shape[1]))
    for layer in range(start, start + layers):
        mine, other = (held.slots[layer if len(held.slots) > 1 else 0] for held in (old, new) if held.slots is not None)
        both += np.minimum(mine, 1.0) @ np.minimum(other, 1.0).T
    return both


def held_bytes(new: Holdings, kind: str, tier: str) -> Array:
    """Bytes of a kind in a memory of every device of an instance [devices]; an expert twice on a rank counts once."""
    total = np.zeros((new.stages, new.ranks))
    for part in new.parts:
        for stage, count in enumerate(part.count):
            low, high = part.tiers[stage].get(tier, (0.0, 0.0))
            if part.kind == kind and count and high > low:
                size = np.maximum(part.high - part.low, 0.0) * part.size * (high - low)
                total[stage] += size * _experts(part, int(part.first[stage]), int(count))
    return total.reshape(new.devices)


def _experts(part: Held, start: int, layers: int) -> Array | float:
    """Experts that ranks have, summed over layers [R]; for what has none, the layers."""
    if part.slots is None:
        return float(layers)
    has = np.minimum(part.slots, 1.0).sum(axis=2)
    return np.asarray(has[0] * layers if len(has) == 1 else has[start : start + layers].sum(axis=0))
