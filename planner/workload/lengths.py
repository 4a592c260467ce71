"""Statistics of a stream of requests, gathered piece by piece: token counts and times of arrival."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOWS_S = (1.0, 10.0, 60.0)


class Counts:
    """How often each whole number was seen; 8 bytes for each up to the largest."""

    def __init__(self) -> None:
        self.seen: NDArray[np.int64] = np.zeros(1024, dtype=np.int64)

    def add(self, values: NDArray[np.int64]) -> None:
        """Values, none negative."""
        top = int(values.max(initial=0)) + 1
        if top > len(self.seen):
            self.seen = np.concatenate([self.seen, np.zeros(max(top, 2 * len(self.seen)) - len(self.seen), dtype=np.int64)])
        lowest = int(values.min(initial=0))
        found = np.bincount(values - lowest)
        self.seen[lowest : lowest + len(found)] += found

    @property
    def total(self) -> int:
        """Values seen."""
        return int(self.seen.sum())

    @property
    def mean(self) -> float:
        """Their mean."""
        present = np.flatnonzero(self.seen)
        return float(np.dot(present.astype(float), self.seen[present])) / self.total

    @property
    def deviation(self) -> float:
        """Their standard deviation."""
        present = np.flatnonzero(self.seen)
        return math.sqrt(float(np.dot((present - self.mean) ** 2, self.seen[present])) / self.total)

    def quantiles(self, probabilities: tuple[float, ...]) -> tuple[float, ...]:
        """Quantiles, between two values in proportion (as ``numpy.quantile``)."""
        upto = np.cumsum(self.seen)
        at = np.array(probabilities) * (self.total - 1)
        low = np.floor(at)
        left, right = np.searchsorted(upto, low + 1), np.searchsorted(upto, np.ceil(at) + 1)
        return tuple((left + (right - left) * (at - low)).tolist())


@dataclass
class _Windows:
    """Requests in windows of one length, beginning with the first request."""

    seconds: float
    current: int = 0
    count: int = 0
    total: int = 0
    squares: int = 0
    most: int = 0

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        numbers, counts = np.unique((arrival_s // self.seconds).astype(np.int64), return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            if number != self.current:
                self.close()
                self.current = number
            self.count += count

    def close(self) -> None:
        self.total += self.count
        self.squares += self.count**2
        self.most, self.count = max(self.most, self.count), 0


@dataclass
class Arrivals:
    """Times of arrival: rate, and how uneven it is. All of it is 1 for random (Poisson) arrivals, 0 for a steady beat."""

    requests: int = 0
    last_s: float = 0.0
    _squares: float = 0.0
    _windows: tuple[_Windows, ...] = field(default_factory=lambda: tuple(_Windows(seconds) for seconds in WINDOWS_S))

    def add(self, arrival_s: NDArray[np.float64]) -> None:
        """Times after those added before, in seconds since the first request."""
        self._squares += float((np.diff(arrival_s, prepend=self.last_s) ** 2).sum())
        self.requests += len(arrival_s)
        self.last_s = float(arrival_s[-1])
        for window in self._windows:
            window.add(arrival_s)

    @property
    def rate_per_s(self) -> float | None:
        """Requests over the time from the first to the last; ``None`` where all come at once."""
        return self.requests / self.last_s if self.last_s > 0 else None

    @property
    def variation(self) -> float | None:
        """Standard deviation over mean of the time between two arrivals."""
        if self.requests < 3 or self.last_s <= 0:
            return None
        mean = self.last_s / (self.requests - 1)
        return math.sqrt(max(self._squares / (self.requests - 1) / mean**2 - 1.0, 0.0))

    def dispersion(self) -> tuple[tuple[float, float], ...]:
        """``(window in s, variance over mean of the requests in a window)`` for windows of which ten or more are whole."""
        found = []
        for window in self._windows:
            whole = math.floor(self.last_s / window.seconds)
            if whole >= 10:
                inside = window.count if window.current < whole else 0
                mean = (window.total + inside) / whole
                found.append((window.seconds, (window.squares + inside**2) / whole / mean - mean))
        return tuple(found)

    def peak_per_s(self) -> float | None:
        """Rate of the busiest whole minute; ``None`` within the first."""
        window = self._windows[-1]
        return max(window.most, window.count) / window.seconds if self.last_s >= window.seconds else None
