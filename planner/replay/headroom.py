"""Planning for percentiles: how much more than the mean a plan must be made for, so that the traffic itself keeps its limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from planner.errors import InfeasibleError, StoppedError
from planner.plans.schema import Plan
from planner.replay.schema import Replayed

STEP = 1.5
"""Where tighter limits do not help, the next attempt is for so many times the rate."""
TIGHTENED = 2
"""Times that limits are tightened at one rate."""
ATTEMPTS = 12
LEAST = 0.25


@dataclass(frozen=True)
class Margin:
    """What a plan is made for: ``factor`` times the mean rate, and means of so many times each limit."""

    factor: float = 1.0
    ttft: float = 1.0
    tpot: float = 1.0


@dataclass(frozen=True)
class Headroom:
    """``plan`` was made for ``margin``; ``replayed``: the traffic through it, which keeps the limits if ``enough``. ``tried``:
    margins and whether they were enough (``None``: no plan), in order."""

    plan: Plan
    replayed: Replayed
    margin: Margin
    enough: bool
    tried: tuple[tuple[Margin, bool | None], ...]


def plan_with_headroom(plan_at: Callable[[Margin], Plan], replay: Callable[[Plan], Replayed]) -> Headroom:
    """The first plan whose replay keeps every limit; where none does, the one of most goodput.

    A limit that is missed is tightened for the next plan by as much as it was missed, twice at most; then the rate grows. Raises
    what ``plan_at`` raises at the first margin.
    """
    tried: list[tuple[Margin, bool | None]] = []
    seen: list[tuple[Plan, Replayed, Margin]] = []
    margin, tightened = Margin(), 0
    while len(tried) < ATTEMPTS:
        try:
            plan = plan_at(margin)
        except (InfeasibleError, StoppedError):
            if not seen:
                raise
            tried.append((margin, None))
            if not tightened:  # no plan serves this rate
                break
            margin, tightened = Margin(margin.factor * STEP), 0
            continue
        known = next((found for found in seen if found[0].pools == plan.pools), None)
        replayed = replay(plan) if known is None else known[1]
        seen.append((plan, replayed, margin))
        tried.append((margin, replayed.limits_met))
        if replayed.limits_met:
            return Headroom(plan, replayed, margin, True, tuple(tried))
        if tightened < TIGHTENED:
            margin, tightened = _tighter(margin, replayed), tightened + 1
        else:
            margin, tightened = Margin(margin.factor * STEP), 0
    plan, replayed, margin = max(seen, key=lambda found: found[1].goodput_share)
    return Headroom(plan, replayed, margin, False, tuple(tried))


def _tighter(margin: Margin, replayed: Replayed) -> Margin:
    missed = {"ttft": margin.ttft, "tpot": margin.tpot}
    for limit in replayed.limits:
        if not limit.met and limit.found_ms:
            missed[limit.name] *= min(max(limit.limit_ms / limit.found_ms, LEAST), 0.9)
    return Margin(margin.factor, **missed)
