"""How evenly experts load the ranks of a pool: by the plan's map where there is one, else what uniform routing leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.footprint.memory import experts_per_rank
from planner.performance.experts import fullest_load
from planner.performance.load import tokens_of
from planner.plans.expert_bounds import loads_of_map
from planner.plans.experts import expert_count, expert_shares, routed_layers
from planner.plans.states import PoolState
from planner.report.study import Study


@dataclass(frozen=True)
class Heat:
    """Load of every rank over the mean, layer by layer.

    ``mapped``: from the plan's map; else routing is taken as uniform, every rank is expected to get the mean, and
    ``fullest`` is the expected load of the fullest rank of a pass by chance, in ``pairs`` token-expert pairs a layer and rank.
    """

    pool: str
    phase: str
    mapped: bool
    layers: tuple[int, ...]
    ranks: int
    over_mean: tuple[tuple[float, ...], ...]
    fullest: float
    pairs: float
    experts_per_rank: int


def heat_of(study: Study) -> list[Heat]:
    """One for each pool whose experts lie on several ranks."""
    maps = {one.phase: one for one in study.decision.experts}
    found = []
    for state in study.operation.pools:
        if state.decision.ep < 2 or not expert_count(state.pool.pieces):
            continue
        layers = tuple(layer for layer, _ in routed_layers(state.pool.pieces))
        phase = state.decision.phases[-1]
        pairs, fullest, slots = _by_chance(state, phase)
        given = maps.get(state.decision.phase)
        loads = np.ones((len(layers), state.decision.ep))
        if given is not None:
            shares = expert_shares(state.pool.pieces, study.context.inputs.workload.experts)
            loads = loads_of_map(given.physical_to_logical, shares, given.split, given.ranks)
            loads = loads / loads.mean(axis=1, keepdims=True)
            fullest = float(loads.max(axis=1).mean())
        rows = tuple(tuple(float(value) for value in row) for row in loads)
        found.append(
            Heat(
                state.decision.phase,
                phase,
                given is not None,
                layers,
                state.decision.ep,
                rows,
                fullest,
                pairs,
                slots,
            )
        )
    return found


def _by_chance(state: PoolState, phase: str) -> tuple[float, float, int]:
    """``(pairs a layer and rank, fullest over mean, experts of a rank)`` of a pass under uniform routing."""
    shapes = state.decision.row().shapes
    for window, load in zip(state.pool.pieces.windows, state.passes[phase].loads, strict=False):
        for block in window.blocks:
            if block.routed:
                tokens = tokens_of(block, shapes, load) * shapes.dp
                slots = experts_per_rank(block.routed, shapes)
                even = float(tokens[0]) * block.routed.active / state.decision.ep
                fullest = float(fullest_load(tokens, block.routed, slots, shapes.ep)[0])
                return even, fullest / even, int(slots[0])
    return 0.0, 1.0, 0
