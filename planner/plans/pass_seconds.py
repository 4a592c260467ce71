"""Seconds of passes of a pool at any load, where its items lie as the plan placed them.

A decode step by the batch of a rank and the mean context of its sequences; a prefill pass by its new tokens, the requests they
belong to, and the tokens that a new one attends to in the mean. Where everything lies in device memory all points are one
vectorised call; a placement over several memories keeps its shares and is worked out point by point.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from planner.footprint import Shapes
from planner.performance import PassTimes, pass_times
from planner.performance.load import Load, decode_load_of
from planner.plans.evaluate import admitted_sequences, reserved_bytes
from planner.plans.states import PoolState, phase_weights
from planner.plans.tiers import TierProblem, build_tier_problem, evaluate_shares

Points = NDArray[np.float64]
DENSE_ROWS = 20_000
"""Points of one call, at most."""


def step_seconds(state: PoolState, batch: Points, context: Points) -> Points:
    """Decode steps of the slowest stage at batches and contexts [n]."""
    pool = state.pool

    def load(part: Points) -> Load:
        return decode_load_of(part[:, 0], part[:, 1], 0.0, pool.pieces, pool.rates)

    return _seconds(state, "decode", load, np.stack([batch, context], axis=1))


def fill_seconds(state: PoolState, tokens: Points, requests: Points, context: Points) -> Points:
    """Prefill passes of the slowest stage of so many new tokens, requests and mean tokens attended to [n]."""
    drafts = 1 if state.pool.pieces.draft else 0

    def load(part: Points) -> Load:
        tokens, requests, context = part.T
        requests = np.minimum(requests, tokens)
        own = tokens / requests
        before = np.maximum(context - own / 2.0, 0.0)
        half = np.minimum(own / 2.0, context)
        return Load("prefill", tokens, requests, context, before + own, requests * before, requests, 0.0, drafts, half)

    return _seconds(state, "prefill", load, np.stack([tokens, requests, context], axis=1))


def _shapes(state: PoolState, count: int) -> Shapes:
    d = state.decision
    return Shapes.single(d.tp, d.dp, d.ep, d.pp, d.cp).take(np.zeros(count, dtype=np.intp))


def _seconds(state: PoolState, phase: str, load_of: Callable[[Points], Load], points: Points) -> Points:
    """Seconds of the slowest stage at every point (a row of ``points``), residual included."""
    pool, found = state.pool, []
    if state.resident:
        for part in np.array_split(points, max(-(-len(points) // DENSE_ROWS), 1)):
            found.append(pass_times(pool.pieces, _shapes(state, len(part)), pool.rates, load_of(part)).slowest_stage())
        return np.concatenate(found) * pool.rates.residual
    one = _shapes(state, 1)
    for row in points:
        times = pass_times(pool.pieces, one, pool.rates, load_of(row[None, :]))
        found.append(np.array([_placed(state, phase, times)]))
    return np.concatenate(found) * pool.rates.residual


def _placed(state: PoolState, phase: str, times: PassTimes) -> float:
    """Seconds of a pass where items lie as the plan placed them. A prefix cache is left out: what a request brings back is
    charged when it does."""
    pool, decision = state.pool, state.decision
    row = decision.row()
    passes = {phase: times}
    problem = build_tier_problem(
        pool.pieces,
        row.shapes,
        pool.rates,
        passes,
        {phase: phase_weights(pool, decision)[phase]},
        float(admitted_sequences(pool, row)[0]),
        pool.inputs.workload.reserved_tokens,
        pool.inputs.runtime.page_tokens,
        float(sum(column[0] for column in reserved_bytes(pool, row).values())),
        pool.tiers,
        None,
        pool.forbidden,
    )
    return evaluate_shares(problem, _same_shares(state.problem, state.shares, problem)).phase_s[phase]


def _same_shares(planned: TierProblem, shares: Points, now: TierProblem) -> Points:
    """The planned shares on the choices of a problem at another load, where a way to move may be missing: a pass that needs all
    of a cache does not choose."""
    held: dict[tuple[int, int, str, str, str], float] = {}
    for choice, share in zip(planned.choices, shares, strict=True):
        item = planned.items[choice.item]
        key = choice.stage, item.window, item.name, choice.tier, choice.mode
        held[key] = held.get(key, 0.0) + float(share)
    names = [(c.stage, now.items[c.item].window, now.items[c.item].name, c.tier, c.mode) for c in now.choices]
    known = set(names)
    for key in [key for key in held if key not in known and held[key]]:
        other = next((name for name in names if name[:4] == key[:4]), None)
        if other is not None:
            held[other] = held.get(other, 0.0) + held[key]
    return np.array([held.get(name, 0.0) for name in names])
