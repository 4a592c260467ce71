"""Whole experts on devices for runtimes that split an expert's tokens evenly over its copies.

Copies by the greedy rule, which minimises the heaviest copy; then balanced packing without two copies of an expert on a
device, and exchanges between the fullest device and the others. The bound holds for uneven splits too, so part of the gap
is the price of even splits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.plans.expert_bounds import expert_loads, loads_of_map, lower_bound
from planner.search.expert_greedy import add_copies, even_split, greedy_map
from planner.search.experts import TOLERANCE, ExpertMap, exchange, in_blocks, within_rounding

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def place_experts_evenly(loads: ArrayLike, devices: int, slots: int, *, tolerance: float = TOLERANCE) -> ExpertMap:
    """As ``experts.place_experts``, with equal shares of an expert's tokens for all its copies.

    Never worse than a greedy map that keeps the copies of an expert on different devices.
    """
    return in_blocks(_place, expert_loads(loads, devices, slots), devices, slots, tolerance)


def _place(w: Array, devices: int, slots: int, tolerance: float) -> ExpertMap:
    layers, experts = w.shape
    copies, chosen = add_copies(w, devices * slots - experts, devices)
    bound = np.maximum(lower_bound(w, devices, slots), (w / copies).max(axis=1))
    names = np.concatenate([np.tile(np.arange(experts), (layers, 1)), chosen], axis=1)
    weight = np.take_along_axis(w / copies, names, axis=1)
    order = np.lexsort((names, -weight), axis=1)
    names, weight = np.take_along_axis(names, order, axis=1), np.take_along_axis(weight, order, axis=1)
    device = _pack_apart(names, weight, devices, slots)
    exchange(weight, device, np.ones((layers, devices), dtype=np.int64), bound * (1.0 + tolerance), names)
    physical = np.take_along_axis(names, np.argsort(device, axis=1, kind="stable"), axis=1)
    split = even_split(physical, copies)
    worst = loads_of_map(physical, w, split, devices).max(axis=1)
    held, number = greedy_map(w, devices * slots, 1, 1, devices)
    share = even_split(held, number)
    top = loads_of_map(held, w, share, devices).max(axis=1)
    lying = np.sort(held.reshape(layers, devices, slots), axis=2)
    better = (top < worst) & (lying[:, :, 1:] > lying[:, :, :-1]).all(axis=(1, 2))
    physical[better], split[better], worst[better] = held[better], share[better], top[better]
    return ExpertMap(devices, slots, physical, split, worst, within_rounding(bound, worst))


def _pack_apart(names: Index, weight: Array, devices: int, slots: int) -> Index:
    """Device [L, D*S] of every copy: heaviest first into the lightest device with room that lacks its expert.

    Where the last copies of an expert find no such device, the layer's copies, sorted by expert, are dealt in turn instead:
    no expert has more than D of them.
    """
    layers, items = names.shape
    rows = np.arange(layers)
    has = np.zeros((layers, int(names.max()) + 1, devices), dtype=bool)
    total, room = np.zeros((layers, devices)), np.full((layers, devices), slots)
    device = np.empty((layers, items), dtype=np.int64)
    stuck = np.zeros(layers, dtype=bool)
    for item in range(items):
        name = names[:, item]
        offered = np.where((room > 0) & ~has[rows, name], total, np.inf)
        lightest = offered.argmin(axis=1)
        stuck |= np.isinf(offered[rows, lightest])
        device[:, item] = lightest
        total[rows, lightest] += weight[:, item]
        room[rows, lightest] -= 1
        has[rows, name, lightest] = True
    for layer in np.flatnonzero(stuck):
        device[layer, np.argsort(names[layer], kind="stable")] = np.arange(items) % devices
    return device
