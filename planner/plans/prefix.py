"""The prefix cache of a pool that prefills: what each point of the workload's curve keeps, and what a pass brings back.

A rank keeps the entries of its own requests (they come back to it). It serves at most ``rate`` requests/s, and a point of the
curve asks ``x`` tokens for each of them: it keeps ``x * rate`` tokens, in as many bytes a token as a sequence of the reserved
length takes per token (so that windows and fixed states count as they do there). Entries still in use by a running sequence are
counted twice, in its own cache and in the prefix cache.

Ages: the curve between two points is one class of entries, found so much less often than the class before, so the young may lie
nearer than the old. A pass starts ``C / m`` requests of a rank (C tokens of which each has m to be computed) and brings back the
hit tokens of each, once; which they are is known before it starts. What lies in device memory is read where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.footprint.memory import residency
from planner.footprint.pieces import ModelPieces
from planner.footprint.shapes import Column, Shapes
from planner.workload import Workload

ITEM = "prefix cache"


@dataclass(frozen=True)
class PrefixUse:
    """A chosen point: ``ages`` = (tokens kept per request/s, hit tokens of a mean request) of each class, young to old."""

    point: int
    hit: float
    ages: tuple[tuple[float, float], ...]

    @property
    def tokens(self) -> float:
        """Tokens kept for every request a second."""
        return sum(held for held, _ in self.ages)

    def of_rank(self, rate: float, requests: float) -> tuple[tuple[float, float], ...]:
        """``(tokens kept, tokens brought back in a pass)`` of each class on a rank sized for ``rate`` requests/s whose passes
        start so many requests."""
        return tuple((held * rate, found * requests) for held, found in self.ages)


def points_of(workload: Workload) -> tuple[int, ...] | tuple[None]:
    """The points of the curve that may be chosen (0: no cache), or ``None`` where there is no curve."""
    return (None,) if workload.prefix_cache is None else tuple(range(len(workload.prefix_cache.points)))


def at_point(workload: Workload, point: int | None) -> Workload:
    """The workload at the hit rate of a point."""
    if workload.prefix_cache is None or point is None:
        return workload
    return workload.at_hit(workload.prefix_cache.points[point][1])


def as_asked(workload: Workload) -> Workload:
    """The workload before a point was chosen."""
    return workload if workload.prefix_cache is None else workload.at_hit(0.0)


def prefix_use(workload: Workload, point: int | None) -> PrefixUse | None:
    """What a point keeps; ``None`` where it keeps nothing."""
    if workload.prefix_cache is None or not point:
        return None
    points = workload.prefix_cache.points[: point + 1]
    total = at_point(workload, point).hit_tokens
    steps = zip(points, points[1:], strict=False)
    hit = points[point][1]
    ages = tuple((more - held, (hits - found) / hit * total) for (held, found), (more, hits) in steps)
    return PrefixUse(point, hit, ages)


def age_name(place: int, classes: int) -> str:
    """``prefix cache``, or of which class by age."""
    return ITEM if classes == 1 else f"{ITEM}, age class {place + 1} of {classes}"


def rate_within(
    use: PrefixUse, pieces: ModelPieces, shapes: Shapes, sequences: Column, reserved_tokens: int, page_tokens: int, room: Column
) -> Column:
    """Most requests/s of a rank whose cache fits beside weights and running caches into ``room`` bytes a device (0: none)."""
    held = residency(pieces, shapes, reserved_tokens, page_tokens)
    most = np.full_like(shapes.tp, np.inf)
    for weights, caches in zip(held.weights, held.caches, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            each = use.tokens * caches / reserved_tokens
            left = np.maximum(room - weights - caches * sequences, 0.0)
            most = np.minimum(most, np.where(each > 0.0, left / each, np.inf))
    return most
