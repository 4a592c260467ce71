"""Which device of the old plan becomes which of the new one, so that as much as possible lies where it is needed already.

New instances take the place of a run of devices of one old pool, laid out instance after instance and rank after rank; devices
that neither plan uses hold nothing. Within a run that is no larger than a node, and within an instance whose ranks are single
devices (``tp`` 1), any device may become any rank; larger runs keep whole nodes together. Runs, nodes and devices are paired
exactly (``assignment``); the cut of old pools into runs is fixed, so the bytes moved can be reached, and another cut might save
more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.plans.assignment import pair_classes
from planner.plans.holdings import KINDS, Holdings, common_bytes

MOST_PAIRS = 4_000_000
"""Pairs of an old and a new device that are compared."""


class Role(NamedTuple):
    """Device ``device`` of an instance of pool ``pool`` (an index)."""

    pool: int
    device: int


@dataclass(frozen=True)
class Side:
    """One pool of a plan: its hardware, how many instances of what holdings, and the devices that must stay together."""

    hardware: str
    replicas: int
    holdings: Holdings
    tp: int
    node: int


@dataclass(frozen=True)
class Run:
    """Devices side by side, and how often they occur."""

    roles: tuple[Role, ...]
    count: int


@dataclass(frozen=True)
class Takeover:
    """``count`` devices of role ``new`` that were of role ``old`` (``None``: held nothing)."""

    old: Role | None
    new: Role
    count: int


def takeovers(old: list[Side], new: list[Side]) -> list[Takeover]:
    """Every device of the new plan with the one it takes over from."""
    found: Counter[tuple[Role | None, Role]] = Counter()
    for hardware in dict.fromkeys(side.hardware for side in new):
        before = [(i, side) for i, side in enumerate(old) if side.hardware == hardware]
        after = [(i, side) for i, side in enumerate(new) if side.hardware == hardware]
        size = math.lcm(*(side.holdings.devices for _, side in after))
        for _, side in before:
            both = math.lcm(size, side.holdings.devices)
            size = both if both <= side.node else size
        saved = {(i, j): _saved(a.holdings, b.holdings) for i, a in before for j, b in after}
        for pair, count in _pair_runs(_runs(before, size), _runs(after, size), saved, size, dict(after)):
            found[pair] += count
    order = sorted(found.items(), key=lambda entry: (entry[0][1], entry[0][0] is None, entry[0][0] or Role(0, 0)))
    return [Takeover(was, becomes, count) for (was, becomes), count in order]


def _saved(old: Holdings, new: Holdings) -> NDArray[np.float64]:
    """Bytes that stay where they are, for every pair of devices; those that change memory on their device break ties."""
    if old.devices * new.devices > MOST_PAIRS:
        raise InputError("instances are too large to compare", where="--from", mend="plan without it")
    total = np.zeros((old.devices, new.devices))
    for kind in KINDS:
        for tier in old.used(kind):
            for target in new.used(kind):
                total += common_bytes(old, new, kind, tier, target) * (1.0 if tier == target else 1e-9)
    return total


def _runs(sides: list[tuple[int, Side]], size: int) -> list[Run]:
    """Every pool cut into runs of ``size`` devices; the last may be shorter."""
    runs: Counter[tuple[Role, ...]] = Counter()
    for index, side in sides:
        devices = side.holdings.devices
        if devices > size:
            for start in range(0, devices, size):
                runs[tuple(Role(index, device) for device in range(start, min(start + size, devices)))] += side.replicas
            continue
        whole = tuple(Role(index, device) for device in range(devices))
        full, rest = divmod(side.replicas, size // devices)
        runs[whole * (size // devices)] += full
        runs[whole * rest] += 1
    return [Run(roles, count) for roles, count in runs.items() if roles and count]


Paired = Iterator[tuple[tuple[Role | None, Role], int]]


def _pair_runs(
    old: list[Run], new: list[Run], saved: dict[tuple[int, int], NDArray[np.float64]], size: int, sides: dict[int, Side]
) -> Paired:
    inner = {}
    for i, a in enumerate(old):
        for j, b in enumerate(new):
            side = sides[b.roles[0].pool]
            alone = size == side.holdings.devices and side.tp == 1
            free = size <= side.node or alone
            inner[i, j] = _inside(a.roles, b.roles, saved) if free else _by_node(a.roles, b.roles, saved, side.node)
    gain = np.array([[inner[i, j][0] for j in range(len(new))] for i in range(len(old))]).reshape(len(old), len(new))
    flow = pair_classes(gain, _counts(old), _counts(new))
    for j, b in enumerate(new):
        for i in range(len(old)):
            if flow[i, j]:
                for pair, count in inner[i, j][1].items():
                    yield pair, count * int(flow[i, j])
        fresh = b.count - int(flow[:, j].sum())
        if fresh:
            for role in b.roles:
                yield (None, role), fresh


def _counts(runs: list[Run]) -> NDArray[np.int64]:
    return np.array([run.count for run in runs], dtype=np.int64)


Inner = tuple[float, Counter[tuple[Role | None, Role]]]


def _inside(old: tuple[Role, ...], new: tuple[Role, ...], saved: dict[tuple[int, int], NDArray[np.float64]]) -> Inner:
    """The best pairing of the devices of two runs: bytes saved, and who becomes what."""
    before, after = Counter(old), Counter(new)
    was, becomes = list(before), list(after)
    gain = np.array([[saved[a.pool, b.pool][a.device, b.device] for b in becomes] for a in was])
    flow = pair_classes(gain, np.array(list(before.values())), np.array(list(after.values())))
    pairs: Counter[tuple[Role | None, Role]] = Counter()
    for j, role in enumerate(becomes):
        for i in np.flatnonzero(flow[:, j]):
            pairs[was[i], role] += int(flow[i, j])
        if after[role] > flow[:, j].sum():
            pairs[None, role] += int(after[role] - flow[:, j].sum())
    return float(np.sum(gain * flow)), pairs


def _by_node(old: tuple[Role, ...], new: tuple[Role, ...], saved: dict[tuple[int, int], NDArray[np.float64]], node: int) -> Inner:
    """The same with whole nodes paired, then devices inside."""
    before = Counter(old[start : start + node] for start in range(0, len(old), node))
    after = Counter(new[start : start + node] for start in range(0, len(new), node))
    was, becomes = list(before), list(after)
    inner = {(i, j): _inside(a, b, saved) for i, a in enumerate(was) for j, b in enumerate(becomes)}
    gain = np.array([[inner[i, j][0] for j in range(len(becomes))] for i in range(len(was))])
    flow = pair_classes(gain, np.array(list(before.values())), np.array(list(after.values())))
    pairs: Counter[tuple[Role | None, Role]] = Counter()
    for j, roles in enumerate(becomes):
        for i in np.flatnonzero(flow[:, j]):
            for pair, count in inner[int(i), j][1].items():
                pairs[pair] += count * int(flow[i, j])
        for role in roles:
            fresh = int(after[roles] - flow[:, j].sum())
            if fresh:
                pairs[None, role] += fresh
    return float(np.sum(gain * flow)), pairs
