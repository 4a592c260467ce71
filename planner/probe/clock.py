"""Repeated timing: a median with the spread of its runs, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A measured figure (SI): the median of ``runs`` repetitions, with their 10th and 90th percentile."""

    value: float
    low: float
    high: float
    runs: int

    def inverse(self, work: float) -> Spread:
        """``work`` over a time: a rate, whose low end is that of the slowest runs."""
        return Spread(work / self.value, work / self.high, work / self.low, self.runs)

    def scaled(self, factor: float) -> Spread:
        """The figure times a positive factor."""
        return Spread(self.value * factor, self.low * factor, self.high * factor, self.runs)


def spread_of(values: list[float]) -> Spread:
    """The spread of one or more positive values."""
    low, middle, high = (float(part) for part in np.percentile(values, (10, 50, 90)))
    return Spread(middle, low, high, len(values))


def timed(work: Callable[[], object], runs: int, limit_s: float) -> Spread:
    """Seconds of ``work``: once unmeasured, then so many runs, fewer (but three) where they would take more than the limit."""
    work()
    found: list[float] = []
    ends = time.perf_counter() + limit_s
    while len(found) < runs and (len(found) < 3 or time.perf_counter() < ends):
        start = time.perf_counter()
        work()
        found.append(max(time.perf_counter() - start, 1e-9))
    return spread_of(found)
