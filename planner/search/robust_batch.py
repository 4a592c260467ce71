"""The best batch of one decode row for one workload of a set."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from planner.plans.bounds import decode_decision, node_name
from planner.plans.decision import PoolDecision

if TYPE_CHECKING:
    from planner.search.tables import Tables

Worth = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What requests/s and TPOT of an instance are worth; grows with the one and falls with the other."""


class BestBatch:
    """Batches in device memory one by one; of the others, cells by halves: a placement at the lowest batch bounds the cell."""

    def __init__(self, tables: Tables, number: int, row: int, limit_s: float, worth: Worth, slack: float) -> None:
        """``limit_s``: the longest TPOT; ``slack``: a bound this much above the best known stays closed."""
        self.tables, self.group, self.row, self.limit, self.slack = tables, tables.decode[number], row, limit_s, slack
        self._worth = worth
        self.worth = self.rate = self.tpot = self.bound = 0.0
        self.decision: PoolDecision | None = None
        self.closed: dict[str, str] = {}

    def run(self, expired: Callable[[], bool]) -> None:
        """Find the batch; ``bound`` then holds for every batch of the row."""
        group = self.group
        rates, tpots = group.bounds
        heap: list[tuple[float, int, int, float, float]] = []
        for i in np.flatnonzero((group.cells.row == self.row) & (tpots <= self.limit)):
            low, high = int(group.cells.low[i]), int(group.cells.high[i])
            if group.cells.fits[i]:
                batch = np.arange(low, high + 1.0)
                decisions = [decode_decision(group, self.row, int(b)) for b in batch]
                self._take(*group.serve(np.full(len(batch), self.row), batch), decisions)
            elif group.pool.tiers:
                rate, tpot = float(rates[i]), float(tpots[i])
                heap.append((-self._one(rate, tpot), low, high, rate, tpot))
        heapq.heapify(heap)
        while heap:
            if -heap[0][0] <= self.worth * self.slack or expired():
                self.bound = max(self.bound, -heap[0][0])
                break
            for child in self._open(*heapq.heappop(heap)):
                heapq.heappush(heap, child)
        self.bound = max(self.bound, self.worth)

    def _one(self, rate: float, tpot: float) -> float:
        return float(self._worth(np.array([rate]), np.array([tpot]))[0])

    def _take(self, rate: np.ndarray, tpot: np.ndarray, decisions: list[PoolDecision]) -> None:
        """Keep the best of these; of equals the one of least TPOT."""
        worth = np.where(tpot <= self.limit, self._worth(rate, tpot), 0.0)
        equal = np.flatnonzero(worth >= worth.max() * (1 - 1e-12))
        i = int(equal[np.argmin(tpot[equal])])
        if worth[i] > self.worth * (1 + 1e-12):
            self.worth, self.rate, self.tpot = float(worth[i]), float(rate[i]), float(tpot[i])
            self.decision = decisions[i]

    def _open(self, merit: float, low: int, high: int, most: float, least: float) -> list[tuple[float, int, int, float, float]]:
        """Bound a cell by the placement at its lowest batch, try both ends, and split it."""
        group, where = self.group, np.array([self.row])
        first = decode_decision(group, self.row, low)
        placed = self.tables.place(group.pool, first)
        kind = "I" if placed.seconds is None else "B"
        self.closed[node_name(self.tables.context.variant, first, low, high)] = f"{kind}:{placed.basis}"
        if placed.seconds is None:
            if not np.isinf(placed.bound_s):
                self.bound = max(self.bound, -merit)
            return []
        seconds = np.array([placed.bound_s])
        most = min(most, float(group.serve(where, np.array([float(high)]), seconds)[0][0]))
        least = max(least, float(group.serve(where, np.array([float(low)]), seconds)[1][0]))
        if least > self.limit:
            return []
        for batch in sorted({low, high}):
            trial = self.tables.place(group.pool, decode_decision(group, self.row, batch))
            if trial.seconds is not None:
                taken = group.serve(where, np.array([float(batch)]), np.array([trial.seconds["decode"]]))
                self._take(*taken, [trial.decision])
        worth = self._one(most, least)
        if low == high:
            self.bound = max(self.bound, worth)
            return []
        middle = (low + high) // 2
        return [(-worth, start, end, most, least) for start, end in ((low, middle), (middle + 1, high))]
