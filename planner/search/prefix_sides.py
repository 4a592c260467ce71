"""Placing a prefill instance whose prefix cache grows with the rate that it serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.plans.context import PoolContext
from planner.plans.decision import PoolDecision
from planner.search.tables import Placed, Tables

ROUNDS = 40
EDGE = 1e-3
"""How far on either side of what just does not fit a cache is tried next."""


@dataclass(frozen=True)
class Sized:
    """``placed`` serves ``rate`` requests/s (``None``: nothing does); none serves more than ``bound``, which ``proof`` shows."""

    placed: Placed | None
    rate: float
    seconds: float
    bound: float
    proof: str


def sized_prefill(
    tables: Tables, pool: PoolContext, decision: PoolDecision, serves: Callable[[float], float], tolerance: float
) -> Sized:
    """The most requests/s of one instance. ``serves``: requests/s at so many seconds a pass, falling.

    Let P(r) be the least pass time with a cache for r requests/s: it grows with r, since what holds a cache holds a smaller one.
    An instance sized for r serves min(r, serves(P(r))). So whatever is sized for r or less serves no more than r, and whatever is
    sized for more no more than serves(P(r)): none beats the larger of the two, and where they meet is the best. Bisection.
    """
    free = tables.place(pool, decision)
    if free.seconds is None:
        return Sized(None, 0.0, 0.0, 0.0, f"I:{free.basis}")
    bound, proof = serves(free.bound_s), f"B:{free.basis}"
    best: Placed | None = None
    most, seconds, low, probe = 0.0, 0.0, 0.0, bound
    high, edge = bound, False
    for _ in range(ROUNDS):
        if probe <= 0.0 or bound <= most * (1.0 + tolerance):
            break
        placed = tables.place(pool, decision, decision.dp / probe)
        reached = 0.0
        if placed.seconds is None and placed.bound_s == 0.0:  # too little is short to prove anything: the edge lies just below
            low, probe = max(low, probe * (1.0 - EDGE)), probe * (1.0 + EDGE) if edge else probe * (1.0 - EDGE)
            edge = not edge
            continue
        if placed.seconds is not None:
            reached, served = serves(placed.bound_s), min(probe, serves(placed.seconds["prefill"]))
            if served > most:
                best, most, seconds = placed, served, placed.seconds["prefill"]
        if max(probe, reached) < bound:
            bound, proof = max(probe, reached), f"{'J' if placed.seconds is None else 'W'}{probe!r}:{placed.basis}"
        low, high = max(low, min(probe, reached)), high if reached >= probe else min(high, probe)
        probe = (low * high) ** 0.5 if low else high / 8.0
    return Sized(best, most, seconds, bound, proof)
