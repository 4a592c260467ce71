"""Greedy placement of experts with even splits: the published load balancer of DeepSeek, the rival of ``search.experts``.

The policies follow the description in the README of github.com/deepseek-ai/EPLB (MIT): copies go one by one to the expert
with the most load per copy; packs of equally many items are filled heaviest first into the lightest pack with room.
All layers are worked on at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from planner.errors import InputError

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def add_copies(loads: Array, extra: int, most: int | None = None) -> tuple[Index, Index]:
    """Copies [L, E] after ``extra`` more, each to the expert with the most load per copy, and whom they went to [L, extra].

    That minimises the heaviest copy under an even split: an expert gets a copy more only while it is the heaviest, or while
    all heavier ones have ``most``.
    """
    rows = np.arange(len(loads))
    copies = np.ones(loads.shape, dtype=np.int64)
    chosen = np.empty((len(loads), extra), dtype=np.int64)
    each = loads.copy() if most != 1 else np.full(loads.shape, -1.0)
    for step in range(extra):
        heaviest = each.argmax(axis=1)
        copies[rows, heaviest] += 1
        number = copies[rows, heaviest]
        each[rows, heaviest] = np.where(number == most, -1.0, loads[rows, heaviest] / number)
        chosen[:, step] = heaviest
    return copies, chosen


def pack(weights: Array, packs: int) -> tuple[Index, Index]:
    """Pack and rank in it of every item [X, n], n/packs items to a pack: heaviest first into the lightest pack with room."""
    count, items = weights.shape
    room = items // packs
    if room == 1:
        return np.tile(np.arange(items), (count, 1)), np.zeros((count, items), dtype=np.int64)
    rows = np.arange(count)
    order = np.argsort(-weights, axis=1, kind="stable")
    total, held = np.zeros((count, packs)), np.zeros((count, packs), dtype=np.int64)
    where, rank = np.empty((count, items), dtype=np.int64), np.empty((count, items), dtype=np.int64)
    for item in order.T:
        lightest = np.where(held < room, total, np.inf).argmin(axis=1)
        where[rows, item], rank[rows, item] = lightest, held[rows, lightest]
        total[rows, lightest] += weights[rows, item]
        held[rows, lightest] += 1
    return where, rank


def greedy_map(loads: ArrayLike, slots: int, groups: int, nodes: int, devices: int) -> tuple[Index, Index]:
    """EPLB's map: experts of all slots [L, slots] and copies of each expert [L, E]; ``slots`` counts those of a whole layer.

    Groups of experts are packed to nodes, copies are added within the node and packed to its devices; where the groups do
    not divide by the nodes, all devices form one node (the global policy). A device may get two copies of one expert.
    """
    w = np.asarray(loads, dtype=float)
    layers, experts = w.shape
    if groups % nodes:
        groups = nodes = 1
    if experts % groups or devices % nodes or slots % devices or slots < experts:
        raise InputError(
            f"{experts} experts in {groups} groups, {slots} slots, {nodes} nodes and {devices} devices do not divide",
            mend="the groups divide the experts, the nodes the devices, and the devices the slots",
        )
    size, local = experts // groups, experts // nodes
    node, rank = pack(w.reshape(layers, groups, size).sum(axis=2), nodes)
    inside = ((node * (groups // nodes) + rank) * size)[:, :, None] + np.arange(size)
    ordered = np.argsort(inside.reshape(layers, experts), axis=1)
    tokens = np.take_along_axis(w, ordered, axis=1).reshape(layers * nodes, local)
    extra = slots // nodes - local
    copies, chosen = add_copies(tokens, extra)
    held = np.concatenate([np.tile(np.arange(local), (layers * nodes, 1)), chosen], axis=1)
    device, place = pack(np.take_along_axis(tokens / copies, held, axis=1), devices // nodes)
    placed = np.argsort(device * (slots // devices) + place, axis=1)
    held = np.take_along_axis(held, placed, axis=1).reshape(layers, nodes, -1) + np.arange(nodes)[:, None] * local
    physical = np.take_along_axis(ordered, held.reshape(layers, slots), axis=1)
    counts = np.zeros((layers, experts), dtype=np.int64)
    np.add.at(counts, (np.arange(layers)[:, None], physical), 1)
    return physical, counts


def even_split(physical: Index, copies: Index) -> Array:
    """The share of its expert's tokens that each slot serves when all copies get alike."""
    return np.asarray(1.0 / np.take_along_axis(copies, physical, axis=1))
