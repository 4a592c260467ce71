"""Seconds that a block of one layer spends in collectives: reductions, dispatch and combine, context parallelism."""

from __future__ import annotations

import math

import numpy as np

from planner.footprint.memory import cache_ways, split_ways
from planner.footprint.pieces import BlockPieces, ModelPieces
from planner.footprint.shapes import Column, Shapes
from planner.performance.collectives import Carried, all_reduce, all_to_all, targets_within
from planner.performance.experts import distinct_targets
from planner.performance.load import Load, tokens_of
from planner.performance.rates import Rates

# FP8 dispatch, BF16 combine: DeepSeek-V3 Technical Report (arXiv:2412.19437) section 3.3.3
_DISPATCH_BYTES = {"fp8": 1.0, "int8": 1.0, "fp4": 1.0, "int4": 1.0}


def communication_seconds(
    block: BlockPieces,
    pieces: ModelPieces,
    shapes: Shapes,
    rates: Rates,
    tokens: Column,
    carried: Carried | None = None,
) -> Column:
    """Attention and dense FFN end in an all-reduce over ``tp``; with ``dp = 1`` so do experts.

    With ``dp > 1`` tokens travel: dispatch and combine between ranks (each of a group's ``tp`` ranks carries its share of the
    tokens), an all-reduce over ``tp`` for what every rank computes a part of (shared experts), and where ``moe_tp`` devices share
    an expert, the gather of the tokens a target group received and the reduction of its results (FP8 in, BF16 out).
    ``carried``: the bytes are added to it.
    """
    zeros = np.zeros_like(shapes.tp)
    if block.kind not in ("attention", "mlp", "moe"):
        return zeros
    if not rates.levels:
        return zeros
    hidden = float(pieces.hidden_size)
    reduce_tp = all_reduce(shapes.tp, tokens * hidden * 2.0, rates.levels, carried) * rates.all_reduce
    if block.routed is None:
        return reduce_tp
    item = block.routed
    group_experts = item.experts / max(pieces.routing_groups, 1)
    targets = []
    inner = np.ones_like(shapes.tp)
    for level in rates.levels:
        count = shapes.ep / inner
        per_target = np.ceil(item.experts / np.maximum(count, 1.0))
        spans = np.maximum(np.ceil(group_experts / per_target), 1.0)
        limit = np.where(pieces.routing_groups > 1, pieces.routing_active_groups * spans, math.inf)
        targets.append(distinct_targets(count, item.active, limit))
        inner = targets_within(shapes.ep, level, shapes.moe_tp)
    copy_bytes = hidden * (_DISPATCH_BYTES.get(item.dtype, 2.0) + 2.0)
    apart: Carried | None = None if carried is None else {}
    travel = all_to_all(shapes.ep, tokens / shapes.tp, copy_bytes, targets, rates.levels, shapes.moe_tp, apart)
    within = all_reduce(shapes.moe_tp, tokens * targets[0] * copy_bytes / 2.0, rates.levels, apart) * rates.all_reduce
    if carried is not None and apart is not None:
        for name, moved in apart.items():
            carried[name] = carried.get(name, zeros) + np.where(shapes.dp > 1, moved, 0.0)
    return np.where(shapes.dp > 1, travel * rates.all_to_all + reduce_tp + within, reduce_tp)


def context_seconds(
    block: BlockPieces, shapes: Shapes, rates: Rates, load: Load, tokens: Column, carried: Carried | None = None
) -> Column:
    """What context parallelism adds: the ``cp`` devices of a group exchange queries and partial results, or their caches.

    A FLOP term of ``2 h (q + v)`` per pair stands for ``h (q + v)`` BF16 elements a token, of which each device needs those of
    the heads of its group; gathering the cache entries that are read instead may move less (prefill of few cached tokens).
    Gather and reduce-scatter move ``(n-1)/n`` of it, as half an all-reduce does.
    """
    elements = np.zeros_like(shapes.tp)
    modes: dict[str, Column] = {}
    for term in block.flops:
        if load.phase in term.phases and block.caches:
            pair = term.per_pair / 2.0 / split_ways(shapes.tp, term.tensor_axis) * shapes.cp
            if term.mode:
                modes[term.mode] = modes.get(term.mode, np.zeros_like(shapes.tp)) + pair
            else:
                elements = elements + pair
    if modes:
        elements = elements + np.min(np.stack(list(modes.values())), axis=0)
    gathered = np.zeros_like(shapes.tp)
    for cache in block.caches:
        entries = cache.read_span.entries(load.read_context)
        ways = cache_ways(shapes, cache.tensor_axis) / shapes.cp
        gathered = gathered + load.sequences * entries * cache.entry_bytes / ways
    payload = np.minimum(elements * 2.0 * tokens, gathered) / 2.0
    return np.where((shapes.cp > 1.0) & (payload > 0.0), all_reduce(shapes.cp, payload, rates.levels, carried), 0.0)


def network_bytes(block: BlockPieces, pieces: ModelPieces, shapes: Shapes, rates: Rates, load: Load) -> Carried:
    """Bytes that a device sends over each network level for one layer's block, while it receives as many."""
    carried: Carried = {}
    tokens = tokens_of(block, shapes, load)
    communication_seconds(block, pieces, shapes, rates, tokens, carried)
    if np.any(shapes.cp > 1.0):
        context_seconds(block, shapes, rates, load, tokens, carried)
    return carried
