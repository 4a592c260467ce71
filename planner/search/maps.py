"""Maps of popular experts for the ranks that a search chose, until the choice and its maps agree.

A search takes for every number of ranks the least load that any map gives the fullest one. The maps of the ranks it chose are
then made; where one is above its bound, the search is repeated with what the maps give in place of those bounds. The bound of
the first search holds throughout.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.plans.context import Context, PoolContext
from planner.plans.decision import Decision
from planner.plans.experts import ExpertMap, expert_shares, has_use, maps_wanted, routed_layers, slots_of, with_map
from planner.search.find import Found

Maps = dict[tuple[int, int], ExpertMap]
"""By redundant slots of a rank and ranks."""

ROUNDS = 12


def make_map(pool: PoolContext, phase: str, ranks: int) -> ExpertMap:
    """The experts of every layer on ``ranks`` ranks, tokens split as the runtime can."""
    from planner.search.experts import place_experts
    from planner.search.experts_even import place_experts_evenly

    shares = expert_shares(pool.pieces, pool.inputs.workload.experts)
    window = routed_layers(pool.pieces)[0][1]
    item = next(block.routed for block in pool.pieces.windows[window].blocks if block.routed)
    slots = slots_of(item, ranks)
    place = place_experts if pool.inputs.runtime.uneven_replicas else place_experts_evenly
    found = place(shares, ranks, slots)
    return ExpertMap(phase, ranks, slots, found.physical_to_logical, found.split)


def mapped(context: Context, maps: Maps) -> Context:
    """The context with the load of known maps in place of bounds."""
    known = [expert_map for (redundant, _), expert_map in sorted(maps.items()) if redundant == context.variant.redundant]
    if not known or not has_use(context):
        return context
    pools = {}
    for phase, pool in context.pools.items():
        pieces = pool.pieces
        for expert_map in known:
            pieces = with_map(pieces, expert_map, context.inputs.workload.experts)
        pools[phase] = replace(pool, pieces=pieces)
    return replace(context, pools=pools)


def with_maps(context: Context, decision: Decision, maps: Maps) -> tuple[Decision, bool]:
    """The decision with a map for every pool of several expert-parallel ranks, and whether one had to be made."""
    found, made = [], False
    for phase, ranks in maps_wanted(context, decision):
        key = (decision.variant.redundant, ranks)
        if key not in maps:
            maps[key], made = make_map(context.pool(phase), phase, ranks), True
        found.append(replace(maps[key], phase=phase))
    return replace(decision, experts=tuple(found)), made


def settled(context_of: Callable[[Decision], Context], search: Callable[[Maps], Found], maps: Maps) -> Found:
    """The best decision with maps of its own, and the bound of the search without any."""
    first = found = search(maps)
    for _ in range(ROUNDS):
        if found.decision is None:
            break
        decision, made = with_maps(context_of(found.decision), found.decision, maps)
        found = replace(found, decision=decision)
        if not made or found.stopped:
            break
        found = search(maps)
    if found.decision is not None:
        decision, _ = with_maps(context_of(found.decision), found.decision, maps)
        found = replace(found, decision=decision)
    return replace(found, bound=max(first.bound, found.merit), closed=first.closed, stopped=first.stopped or found.stopped)
