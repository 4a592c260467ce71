"""Bytes that must move for one plan to take over from another, from where, and how long that takes.

A device of the new plan keeps what it holds already (``matching``). What else it needs comes from a memory of its own in which it
lies, over that memory's links, or else over the outermost network, from a device that holds it or from storage: what an inner
network would save is not counted, nor what senders lose where one copy feeds several devices (they can pass it on). The links
work at once, a device takes as long as its slowest, and the deployment as long as its slowest device. Caches do not move: the
old instances serve their requests to the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.plans.context import PoolContext
from planner.plans.experts import ExpertMap
from planner.plans.holdings import KINDS, Holdings, common_bytes, held_bytes, holdings_of
from planner.plans.matching import Role, Side, takeovers
from planner.plans.operate import Operation

SOURCES = DEVICE, _, _, NETWORK = ("device memory", "host", "disk", "network")
"""Where moved bytes come from: a memory of the device itself, by role, or elsewhere."""


Maps = tuple[ExpertMap, ...]
Parts = tuple[tuple[tuple[str, str], int], ...]


@dataclass(frozen=True)
class Load:
    """What ``count`` devices of new pool ``pool`` (an index) each take in: bytes by kind of item and source, bytes kept, seconds
    (``None``: no network is described)."""

    pool: int
    count: int
    moved: dict[tuple[str, str], int]
    kept: int
    seconds: float | None

    @property
    def bytes(self) -> int:
        """Bytes moved to each."""
        return sum(self.moved.values())


@dataclass(frozen=True)
class Moves:
    """All devices of a new plan, alike ones together."""

    loads: tuple[Load, ...]

    @property
    def bytes(self) -> int:
        """Bytes moved to all devices."""
        return sum(load.count * load.bytes for load in self.loads)

    @property
    def kept(self) -> int:
        """Bytes that lie where they are needed."""
        return sum(load.count * load.kept for load in self.loads)

    @property
    def seconds(self) -> float | None:
        """Until the slowest device has all it needs."""
        times = [load.seconds for load in self.loads]
        return None if any(time is None for time in times) else max((time for time in times if time is not None), default=0.0)

    def by(self, part: int) -> dict[str, int]:
        """Bytes moved by kind of item (``part`` 0) or source (1)."""
        total = dict.fromkeys((KINDS, SOURCES)[part], 0)
        for load in self.loads:
            for key, size in load.moved.items():
                total[key[part]] += load.count * size
        return total


def moves_between(old: Operation, new: Operation, old_maps: Maps = (), new_maps: Maps = ()) -> Moves:
    """What moves when ``new`` takes over from ``old``; maps of experts as in their decisions."""
    before = [_side(old, index, old_maps) for index in range(len(old.pools))]
    after = [_side(new, index, new_maps) for index in range(len(new.pools))]
    table: dict[tuple[int | None, int], _Pair] = {}
    loads: Counter[tuple[int, Parts, int, float | None]] = Counter()
    for move in takeovers(before, after):
        was = None if move.old is None else move.old.pool
        key = (was, move.new.pool)
        if key not in table:
            held = None if was is None else before[was].holdings
            table[key] = _Pair(held, after[move.new.pool].holdings, new.pools[move.new.pool].pool)
        loads[move.new.pool, *table[key].load(move.old, move.new)] += move.count
    rows = [Load(pool, count, dict(moved), kept, seconds) for (pool, moved, kept, seconds), count in loads.items()]
    return Moves(tuple(sorted(rows, key=lambda load: (load.pool, load.bytes, sorted(load.moved.items()), load.kept))))


def _side(operation: Operation, index: int, maps: Maps) -> Side:
    state = operation.pools[index]
    decision, system = state.decision, state.pool.system
    expert_map = next((one for one in maps if one.phase == decision.phase), None)
    return Side(system.id, decision.replicas, holdings_of(state, expert_map), decision.tp, system.devices_per_node)


class _Pair:
    """An old and a new pool: bytes of every kind in one memory of an old device and in one of a new device."""

    def __init__(self, old: Holdings | None, new: Holdings, pool: PoolContext) -> None:
        self.pool, self.tiers = pool, new.tiers
        self.roles = {tier.id: tier.role for tier in pool.rates.tiers} | {pool.rates.memory_id: DEVICE}
        self.needed = {(kind, tier): held_bytes(new, kind, tier) for kind in KINDS for tier in new.used(kind)}
        self.common: dict[tuple[str, str, str], NDArray[np.float64]] = {}
        if old is not None:
            for kind in KINDS:
                for tier in old.used(kind):
                    for target in new.used(kind):
                        block = common_bytes(old, new, kind, tier, target)
                        if block.any():
                            self.common[kind, tier, target] = block

    def load(self, old: Role | None, new: Role) -> tuple[Parts, int, float | None]:
        """``(bytes moved by kind and source, bytes kept, seconds)`` of a device."""
        moved: Counter[tuple[str, str]] = Counter()
        passed: Counter[str] = Counter()
        kept = 0
        for (kind, target), column in self.needed.items():
            left = round(float(column[new.device]))
            for tier in (target, *(t for t in self.tiers if t != target)):
                block = self.common.get((kind, tier, target))
                here = 0 if block is None or old is None else min(round(float(block[old.device, new.device])), left)
                left -= here
                if tier == target:
                    kept += here
                elif here:
                    moved[kind, self.roles[tier]] += here
                    passed.update({tier: here, target: here})
            if left:
                moved[kind, NETWORK] += left
                passed.update({NETWORK: left, target: left})
        return tuple(sorted(moved.items())), kept, self.seconds(passed)

    def seconds(self, passed: Counter[str]) -> float | None:
        """Time for so many bytes over each memory and the network, all at once; ``None`` where no network is described."""
        work: dict[str, float] = {}
        waits, levels = [0.0], self.pool.rates.levels
        if passed[NETWORK]:
            if not levels:
                return None
            work[NETWORK] = passed[NETWORK] / levels[-1].p2p
            waits.append(levels[-1].latency)
        for tier in self.pool.rates.tiers:
            if passed[tier.id]:
                waits.append(tier.latency)
                for resource, bytes_per_s in tier.resources:
                    work[resource] = work.get(resource, 0.0) + passed[tier.id] / bytes_per_s
        return max(work.values(), default=0.0) + max(waits)
