"""Whole experts on devices with uneven token splits: groups of experts that devices share, then every group filled evenly.

``plans.expert_bounds`` shows that a map is a partition of the experts into ``k = max(1, D - R)`` groups, each with m devices
and ``n = (S-1)*m + 1`` experts. Three steps, each over all layers at once:

1. *Devices of the groups*: the k heaviest experts open them; the R spare devices go to the group with the most opening load
   per device (the greedy rule for copies).
2. *Partition*: heaviest expert first to the group with the most room per free place; then the fullest group exchanges an
   expert with another group while that helps. Layers of few experts are partitioned exactly.
3. *Filling* (`expert_fill`): device by device, one expert carried over the edge. Always even, so with ``R >= D - 1`` the fullest
   device has the mean load and nothing is left to search. With two slots this is the table of Walker's alias method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.plans.expert_bounds import expert_loads, loads_of_map, lower_bound
from planner.search.expert_fill import fill, fill_spare, shares_of
from planner.search.expert_greedy import even_split, greedy_map

Array = NDArray[np.float64]
Index = NDArray[np.int64]

TOLERANCE = 1e-4
ROUNDING = 1e-9
EXCHANGES = 400
MEMBERS = 64
"""Experts of the fullest group that are offered for exchange, evenly spread over its loads."""
BLOCK = 98_304
"""Slots placed at a time: bounds the memory."""
WIDENINGS = 8
FAR = 20.0
"""Layers further than this many tolerances from their bound try other widths of groups."""
EXACT_EXPERTS = 10
"""Up to so many experts the best partition is found by going through all of them."""


@dataclass(frozen=True)
class ExpertMap:
    """Where the experts of every layer lie. Slot i of a layer is place ``i % slots`` of device ``i // slots``.

    ``physical_to_logical`` and ``split`` are [L, D*S] (expert of a slot; share of that expert's tokens it serves), ``worst``
    and ``bound`` are [L]: the fullest device's load and what no map goes below, in the unit of the loads.
    """

    devices: int
    slots: int
    physical_to_logical: Index
    split: Array
    worst: Array
    bound: Array

    @property
    def gaps(self) -> Array:
        """How far each layer's fullest device is above its bound, as a share of the bound."""
        return np.asarray(np.divide(self.worst, self.bound, out=np.ones_like(self.worst), where=self.bound > 0.0) - 1.0)

    @property
    def gap(self) -> float:
        """The largest of the layers' gaps."""
        return float(self.gaps.max())


def place_experts(loads: ArrayLike, devices: int, slots: int, *, tolerance: float = TOLERANCE) -> ExpertMap:
    """Copies, devices and token splits of all experts [L, E] on D devices of S slots, the fullest device near its minimum.

    The search of a layer ends within ``tolerance`` of its bound. Never worse than the greedy map with even splits.
    """
    w = expert_loads(loads, devices, slots)
    return in_blocks(_place, w, devices, slots, tolerance)


def in_blocks(
    place: Callable[[Array, int, int, float], ExpertMap], w: Array, devices: int, slots: int, tolerance: float
) -> ExpertMap:
    """Place a bounded number of slots at a time, whole layers, which are independent of one another."""
    rows = max(1, BLOCK // (devices * slots))
    parts = [place(w[row : row + rows], devices, slots, tolerance) for row in range(0, len(w), rows)]
    physical, split, worst, bound = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("physical_to_logical", "split", "worst", "bound")
    )
    return ExpertMap(devices, slots, physical, split, worst, bound)


def _place(w: Array, devices: int, slots: int, tolerance: float) -> ExpertMap:
    layers, experts = w.shape
    bound = lower_bound(w, devices, slots)
    order = np.argsort(-w, axis=1, kind="stable")
    heavy = np.take_along_axis(w, order, axis=1)
    count = max(1, devices - (devices * slots - experts))
    group, width = _partition(heavy, devices, slots, count, bound, tolerance)
    physical, served = fill(heavy, group, width, slots)
    physical = np.where(physical >= 0, np.take_along_axis(order, np.maximum(physical, 0), axis=1), -1)
    physical = fill_spare(physical.reshape(layers, devices, slots), order)
    split = shares_of(physical, served, experts)
    worst = loads_of_map(physical, w, split, devices).max(axis=1)
    if count > 1:
        _keep_greedy(w, devices, slots, physical, split, worst, bound * (1.0 + tolerance))
    return ExpertMap(devices, slots, physical, split, worst, within_rounding(bound, worst))


def _partition(heavy: Array, devices: int, slots: int, count: int, bound: Array, tolerance: float) -> tuple[Index, Index]:
    """Group [L, E] of each expert (heaviest first) and devices [L, k] of each group."""
    layers, experts = heavy.shape
    if count == 1:
        return np.zeros((layers, experts), dtype=np.int64), np.full((layers, 1), devices)
    width = _widths(heavy[:, :count], devices - count)
    group = _deal(heavy, width, slots, bound)
    top = exchange(heavy, group, width, bound * (1.0 + tolerance))
    _widen(heavy, group, width, top, slots, bound, tolerance)
    if experts <= EXACT_EXPERTS and slots > 1:
        for layer in np.flatnonzero(top > bound):
            group[layer], width[layer] = _best_partition(heavy[layer], slots, count)
    return group, width


def _widths(opening: Array, spare: int) -> Index:
    """Devices of each group: one, and the spare ones where the opening expert's load per device is largest."""
    rows = np.arange(len(opening))
    width = np.ones(opening.shape, dtype=np.int64)
    for _ in range(spare):
        width[rows, (opening / width).argmax(axis=1)] += 1
    return width


def _deal(heavy: Array, width: Index, slots: int, target: Array) -> Index:
    """Group [L, E]: the heaviest expert left goes where ``target`` on each device leaves the most load per free place."""
    layers, experts = heavy.shape
    rows = np.arange(layers)
    places = (slots - 1) * width + 1
    room = width * target[:, None]
    each = room / places
    group = np.empty((layers, experts), dtype=np.int64)
    for item in range(experts):
        chosen = each.argmax(axis=1)
        group[:, item] = chosen
        room[rows, chosen] -= heavy[:, item]
        places[rows, chosen] -= 1
        left = places[rows, chosen]
        each[rows, chosen] = np.where(left > 0, room[rows, chosen] / np.maximum(left, 1), -np.inf)
    return group


def exchange(heavy: Array, group: Index, width: Index, target: Array, names: Index | None = None) -> Array:
    """Steepest exchanges between the fullest group and any other, in place; returns the fullest load per device [L].

    With ``names`` [L, items] no group gets two items of one name.
    """
    layers, experts = heavy.shape
    load = np.zeros(width.shape)
    if names is not None:
        has = np.zeros((layers, int(names.max()) + 1, width.shape[1]), dtype=bool)
        has[np.arange(layers)[:, None], names, group] = True
    np.add.at(load, (np.arange(layers)[:, None], group), heavy)
    active = np.arange(layers)
    for _ in range(EXCHANGES):
        ratio = load[active] / width[active]
        fullest, top = ratio.argmax(axis=1), ratio.max(axis=1)
        open_ = top > target[active]
        active, fullest, top = active[open_], fullest[open_], top[open_]
        if not len(active):
            break
        own = group[active] == fullest[:, None]
        held = own.sum(axis=1)
        members = np.argsort(~own, axis=1, kind="stable")[:, : held.max()]
        if held.max() > MEMBERS:
            spread = np.arange(MEMBERS) * np.maximum(held, MEMBERS)[:, None] // MEMBERS
            members = np.take_along_axis(members, spread, axis=1)
        w, at = heavy[active], group[active]
        given = np.where(np.take_along_axis(own, members, axis=1), np.take_along_axis(w, members, axis=1), -np.inf)
        less = given[:, :, None] - w[:, None, :]
        there, wide = np.take_along_axis(load[active], at, axis=1), np.take_along_axis(width[active], at, axis=1)
        here, mine = load[active, fullest], width[active, fullest]
        after = np.maximum((here[:, None, None] - less) / mine[:, None, None], (there[:, None, :] + less) / wide[:, None, :])
        after[(less <= 0.0) | own[:, None, :]] = np.inf
        if names is not None:
            called = names[active]
            after[has[active[:, None, None], np.take_along_axis(called, members, axis=1)[:, :, None], at[:, None, :]]] = np.inf
            after[np.broadcast_to(has[active[:, None], called, fullest[:, None]][:, None, :], after.shape)] = np.inf
        after = after.reshape(len(active), -1)
        best = after.argmin(axis=1)
        helps = after[np.arange(len(active)), best] < top * (1.0 - 1e-12)
        active, best, fullest, members = active[helps], best[helps], fullest[helps], members[helps]
        out, back = members[np.arange(len(active)), best // experts], best % experts
        to = group[active, back]
        moved = heavy[active, out] - heavy[active, back]
        load[active, fullest] -= moved
        load[active, to] += moved
        group[active, out], group[active, back] = to, fullest
        if names is not None:
            has[active, names[active, out], fullest] = has[active, names[active, back], to] = False
            has[active, names[active, out], to] = has[active, names[active, back], fullest] = True
    return np.asarray((load / width).max(axis=1))


def _widen(heavy: Array, group: Index, width: Index, top: Array, slots: int, bound: Array, tolerance: float) -> None:
    """Other widths for layers far above their bound, in place: one of the two fullest groups gets a device of another."""
    layers = np.arange(len(heavy))[:, None]
    for _ in range(WIDENINGS):
        far = np.flatnonzero(top > bound * (1.0 + FAR * tolerance))
        before = top.copy()
        load = np.zeros(width.shape)
        np.add.at(load, (layers, group), heavy)
        fullest = np.argsort(-load / width, axis=1, kind="stable")
        for receiver, giver in ((0, 0), (0, 1), (1, 0), (1, 1)):
            if len(far) and receiver < width.shape[1]:
                wide, rows = width[far], np.arange(len(far))
                gets = fullest[far, receiver]
                without = np.where(wide > 1, heavy[far, : wide.shape[1]] / np.maximum(wide - 1, 1), np.inf)
                without[rows, gets] = np.inf
                gives = np.argsort(without, axis=1, kind="stable")[:, min(giver, wide.shape[1] - 1)]
                can = np.isfinite(without[rows, gives])
                wide[rows, gets] += can
                wide[rows, gives] -= can
                dealt = _deal(heavy[far], wide, slots, bound[far])
                reached = exchange(heavy[far], dealt, wide, bound[far] * (1.0 + tolerance))
                better = reached < top[far] * (1.0 - 1e-12)
                width[far[better]], group[far[better]], top[far[better]] = wide[better], dealt[better], reached[better]
        if not (top < before).any():
            break


def _best_partition(loads: Array, slots: int, count: int) -> tuple[Index, Index]:
    """The best groups [E] and widths [k] of one layer: dynamic programming over sets of experts and numbers of groups."""
    experts = len(loads)
    sets = np.arange(1 << experts)
    inside = (sets[:, None] >> np.arange(experts)) & 1
    size = inside.sum(axis=1) - 1
    fits = (size > 0) & (size % (slots - 1) == 0)
    ratio = np.where(fits, inside @ loads / np.maximum(size // (slots - 1), 1), np.inf)
    best, choice = np.full((len(sets), count + 1), np.inf), np.zeros((len(sets), count + 1), dtype=np.int64)
    best[0, 0] = 0.0
    for bits in range(1, len(sets)):
        parts = sets[(sets & ~bits == 0) & (sets & bits & -bits > 0)]
        value = np.maximum(ratio[parts][:, None], best[bits ^ parts, :-1])
        chosen = value.argmin(axis=0)
        best[bits, 1:], choice[bits, 1:] = value[chosen, np.arange(count)], parts[chosen]
    group, width, bits = np.zeros(experts, dtype=np.int64), np.zeros(count, dtype=np.int64), len(sets) - 1
    for left in range(count, 0, -1):
        part = int(choice[bits, left])
        group[inside[part] == 1] = left - 1
        width[left - 1] = size[part] // (slots - 1)
        bits ^= part
    return group, width


def _keep_greedy(w: Array, devices: int, slots: int, physical: Index, split: Array, worst: Array, target: Array) -> None:
    """Take the greedy map with even splits, in place, for the layers above ``target`` where it is better."""
    behind = np.flatnonzero(worst > target)
    if not len(behind):
        return
    held, copies = greedy_map(w[behind], devices * slots, 1, 1, devices)
    share = even_split(held, copies)
    top = loads_of_map(held, w[behind], share, devices).max(axis=1)
    better = top < worst[behind] * (1.0 - 1e-12)
    if not better.any():
        return
    behind, held, share = behind[better], held[better].reshape(-1, devices, slots), share[better].reshape(-1, devices, slots)
    for place in range(1, slots):
        for earlier in range(place):
            twice = (held[:, :, place] == held[:, :, earlier]) & (held[:, :, place] >= 0)
            share[:, :, earlier] += np.where(twice, share[:, :, place], 0.0)
            share[:, :, place] = np.where(twice, 0.0, share[:, :, place])
            held[:, :, place] = np.where(twice, -1, held[:, :, place])
    order = np.argsort(-w[behind], axis=1, kind="stable")
    physical[behind] = fill_spare(held, order)
    split[behind] = share.reshape(len(behind), -1)
    worst[behind] = top[better]


def within_rounding(bound: Array, worst: Array) -> Array:
    """The bound, at most the load reached where only rounding tells them apart; a truly broken bound stays visible."""
    return np.asarray(np.minimum(bound, np.maximum(worst, bound * (1.0 - ROUNDING))))


def balance_memory(sizes: ArrayLike) -> Index:
    """Device [L, D] that takes the part of each bin, so that what devices hold over all layers is nearly alike.

    ``sizes`` [L, D] are the bytes (or slots) that bin d of a layer keeps in the scarce tier. Which device takes which bin is
    free in every layer: the largest goes to the device that holds least so far. No two devices ever differ by more than the
    largest difference within one layer.
    """
    amount = np.asarray(sizes, dtype=float)
    held = np.zeros(amount.shape[1])
    device = np.empty(amount.shape, dtype=np.int64)
    for layer, row in enumerate(amount):
        bins, emptiest = np.argsort(-row, kind="stable"), np.argsort(held, kind="stable")
        device[layer, bins] = emptiest
        held[emptiest] += row[bins]
    return device
