"""A prefix cache: which hit rate how many kept tokens give."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.quantities import Grade

MOST_POINTS = 16
MOST_HIT = 0.999999
"""The largest share below one in the six digits of a curve."""

Held = Annotated[float, Field(ge=1e-6, le=1e18, allow_inf_nan=False)]
Hit = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class PrefixCache(BaseModel):
    """Hit rate by size of a cache of prefixes.

    ``curve``: ``(tokens kept for every request a second that is served, share of input tokens found)``. Entries kept for t
    seconds, of requests that leave w new tokens each, are ``rate * t * w`` tokens: per request a second they are ``t * w``,
    whatever the load, as long as it is people and tools that decide when a prefix comes back. A replay of a trace of ``rate``
    requests/s through a cache of C tokens gives the point ``(C / rate, hit rate)``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    curve: tuple[tuple[Held, Hit], ...] = Field(min_length=1, max_length=MOST_POINTS)
    source: str
    as_of: date
    grade: Grade
    note: str = ""

    @model_validator(mode="after")
    def _rising(self) -> PrefixCache:
        for number, ((held, hit), (more, hits)) in enumerate(zip(self.curve, self.curve[1:], strict=False), start=2):
            if more <= held:
                raise ValueError(f"curve: point {number} keeps no more tokens ({more:g}) than the one before ({held:g})")
            if hits < hit:
                raise ValueError(f"curve: point {number} finds less ({hits:g}) with more tokens than the one before ({hit:g})")
        return self

    @property
    def points(self) -> tuple[tuple[float, float], ...]:
        """No cache, and the points of the curve on its concave hull: what each further token finds falls from one to the next,
        as it does from young entries to old ones. A point below the hull does worse than a mix of its neighbours."""
        hull: list[tuple[float, float]] = [(0.0, 0.0)]
        for held, hit in self.curve:
            if hit <= hull[-1][1]:
                continue
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], (held, hit)):
                hull.pop()
            hull.append((held, hit))
        return tuple(hull)


def rising(found: Iterable[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The first of ``(tokens kept, share found)`` and those that keep and find more than the one before, in six digits."""
    kept: list[tuple[float, float]] = []
    for tokens, hit in found:
        point = (float(f"{tokens:.6g}"), min(float(f"{hit:.6g}"), MOST_HIT))
        if not kept or (point[0] > kept[-1][0] and point[1] > kept[-1][1]):
            kept.append(point)
    return tuple(kept)


def _slope(first: tuple[float, float], second: tuple[float, float]) -> float:
    return (second[1] - first[1]) / (second[0] - first[0])
