"""Bytes a device holds: weights, caches and reserves, for many shapes at once.

Splits follow the tensor axis of an item: ``tp`` ways where the axis allows, otherwise as many ways as the axis has and
replicated beyond. Caches are sized for ``reserved_tokens`` per admitted sequence, in whole pages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.footprint.pieces import CacheItem, LookupItem, ModelPieces, RoutedItem, StaticItem, Window
from planner.footprint.shapes import Column, Shapes


def split_ways(tp: Column, tensor_axis: int) -> Column:
    """Ways in which an item is split over ``tp`` devices: ``min(tp, axis)``."""
    return np.minimum(tp, float(tensor_axis))


def cache_ways(shapes: Shapes, tensor_axis: int) -> Column:
    """Ways in which a cache is split over the devices of an attention group: by heads, then by tokens over ``cp`` devices."""
    return np.minimum(split_ways(shapes.tp, tensor_axis) * shapes.cp, shapes.tp)


def static_bytes(item: StaticItem, shapes: Shapes) -> Column:
    """Static weights that one layer holds on a device (bytes)."""
    total = np.zeros_like(shapes.tp)
    for axis, held, _ in item.parts:
        total = total + np.ceil(held / split_ways(shapes.tp, axis))
    return total


def static_read_bytes(item: StaticItem, shapes: Shapes) -> Column:
    """Static weights that one layer reads on a device in a pass (bytes)."""
    total = np.zeros_like(shapes.tp)
    for axis, _, read in item.parts:
        total = total + np.ceil(read / split_ways(shapes.tp, axis))
    return total


def experts_per_rank(item: RoutedItem, shapes: Shapes) -> Column:
    """Expert slots of a rank: ``ceil(E / ep)`` and those for copies, no expert twice; slots beyond E hold replicas."""
    least = np.ceil(item.experts / shapes.ep)
    return np.where(shapes.ep > 1.0, np.minimum(least + item.extra, float(item.experts)), least)


def routed_bytes(item: RoutedItem, shapes: Shapes) -> Column:
    """Routed experts of one layer on a device (bytes)."""
    return experts_per_rank(item, shapes) * np.ceil(item.member_bytes / shapes.moe_tp)


def lookup_bytes(item: LookupItem, shapes: Shapes) -> Column:
    """A lookup table on a device (bytes)."""
    return np.ceil(item.bytes / split_ways(shapes.tp, item.tensor_axis))


def cache_bytes_per_sequence(item: CacheItem, reserved_tokens: int, page_tokens: int) -> int:
    """One layer's cache of one sequence, in whole pages, on an unsplit device (bytes)."""
    if not item.held:
        return 0
    page = max(1, max(page_tokens, item.page_tokens) // item.span.ratio)
    pages = math.ceil(item.span.entries(reserved_tokens) / page)
    page_bytes = math.ceil(page * item.entry_bytes / item.page_align) * item.page_align
    return pages * page_bytes + item.fixed_bytes


@dataclass(frozen=True)
class Residency:
    """Columns of bytes per device, by stage type and window, if everything lay in device memory.

    ``weights[s]`` and ``caches[s]`` are the totals of stage type ``s``; ``caches`` is per admitted sequence of a rank.
    """

    weights: list[Column]
    caches: list[Column]


def window_bytes(window: Window, shapes: Shapes) -> Column:
    """All weights of one layer of a window on a device (bytes)."""
    total = np.zeros_like(shapes.tp)
    for block in window.blocks:
        total = total + static_bytes(block.static, shapes)
        if block.routed:
            total = total + routed_bytes(block.routed, shapes)
        for lookup in block.lookups:
            total = total + lookup_bytes(lookup, shapes)
    return total


def window_cache_bytes(window: Window, shapes: Shapes, reserved_tokens: int, page_tokens: int) -> Column:
    """The caches of one layer of a window, one sequence, on a device (bytes)."""
    total = np.zeros_like(shapes.tp)
    for block in window.blocks:
        for cache in block.caches:
            size = cache_bytes_per_sequence(cache, reserved_tokens, page_tokens)
            total = total + np.ceil(size / cache_ways(shapes, cache.tensor_axis))
    return total


def residency(pieces: ModelPieces, shapes: Shapes, reserved_tokens: int, page_tokens: int) -> Residency:
    """Weights and cache bytes of every stage type; the draft module lies in the last stage."""
    weights, caches = [], []
    per_window = [(window_bytes(w, shapes), window_cache_bytes(w, shapes, reserved_tokens, page_tokens)) for w in pieces.windows]
    stages = pieces.stage_table(shapes.pp)
    for number, stage in enumerate(stages):
        weight, cache = np.zeros_like(shapes.tp), np.zeros_like(shapes.tp)
        for layers, (w, c) in zip(stage, per_window, strict=True):
            weight, cache = weight + layers * w, cache + layers * c
        if number == len(stages) - 1:
            for window in pieces.draft:
                weight = weight + window.layers * window_bytes(window, shapes)
                cache = cache + window.layers * window_cache_bytes(window, shapes, reserved_tokens, page_tokens)
        weights.append(weight)
        caches.append(cache)
    return Residency(weights, caches)


RESERVE_CAUSES = ("context", "graphs", "communication", "expert_buffers", "activations", "fragmentation")


def reserve_parts(
    reserve: Mapping[str, float], hidden_size: int, shapes: Shapes, pass_tokens: Column, usable_bytes: float, routed: bool
) -> dict[str, Column]:
    """Reserved bytes per device by cause.

    ``pass_tokens`` is the largest number of tokens that a rank processes in one pass. Communication buffers exist for
    instances of two devices or more, expert buffers where tokens travel to experts (``dp > 1`` and routed experts).
    """
    ones = np.ones_like(shapes.tp)
    travels = (shapes.dp > 1) & routed
    return {
        "context": reserve["context"] * ones,
        "graphs": reserve["graphs"] * ones,
        "communication": np.where(shapes.devices > 1, reserve["communication"], 0.0),
        "expert_buffers": np.where(travels, reserve["expert_buffers_hidden_multiple"] * hidden_size * pass_tokens, 0.0),
        "activations": reserve["activation_hidden_multiple"] * hidden_size * 2.0 * pass_tokens,
        "fragmentation": reserve["fragmentation"] * usable_bytes * ones,
    }
