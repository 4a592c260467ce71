"""The decode side of disaggregated serving: which instances that lie in device memory are worth knowing exactly.

A cell is a range of batches of one shape between whose ends rate and TPOT are bounded. The ends are worked out; a cell is opened,
every batch of it worked out, where it may beat what is known of its size (or, for the least TPOT under a demand, serve the demand
sooner); the others are left closed with their bounds. Cells that need other memories are nodes of the search.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.plans.bounds import decode_decision
from planner.plans.decision import PoolDecision
from planner.plans.pairing import carries, sooner, undominated
from planner.search.find import Node

if TYPE_CHECKING:
    from planner.search.find import Search


Columns = tuple[np.ndarray, ...]
CELLS = 64
"""Cells opened before what serves a demand soonest is looked at again."""


def stacked(parts: list[Columns]) -> Columns:
    """Columns of several parts, one below the other."""
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def of_size(best: dict[int, float], size: np.ndarray) -> np.ndarray:
    """``best`` of every size in a column (0 where it has none)."""
    sizes, place = np.unique(size, return_inverse=True)
    return np.array([best.get(int(one), 0.0) for one in sizes])[place]


@dataclass(frozen=True)
class Known:
    """An exactly known instance: devices, requests per second, latency and configuration.

    Latency is the way through the pipeline of a prefill instance, the TPOT of a decode instance (seconds).
    """

    size: int
    rate: float
    latency: float
    decision: PoolDecision

    def order(self) -> tuple[float, ...]:
        """Shorter latency first, then the integer key."""
        d = self.decision
        return (float(f"{self.latency:.9g}"), d.pp, d.tp, d.ep, d.dp, d.cp, d.chunk, d.batch)


class DecodeSide:
    """``known``: instances that no other beats; ``pruned``: ``(size, rate, TPOT)`` bounds of cells left closed; ``open``: cells
    that need other memories.

    ``most_devices``: of the decode side of any split; ``room``: of a split whose known prefill instances carry the demand.
    """

    def __init__(self, search: Search, most_devices: float, room: Callable[[], float]) -> None:
        self.search, self.charge, self.groups = search, search.charge, search.tables.decode
        self.most_devices, self.room = most_devices, room
        self.limit = self.charge.longest_tpot_s * (1 + 1e-12)
        self.best: dict[int, float] = {}
        """The highest known rate of each size."""
        self.known: list[Known] = []
        self.pruned: list[tuple[int, float, float]] = []
        self.open: list[Node] = []
        self._cells()

    @property
    def _keep_all(self) -> bool:
        """Latency and a cap on concurrency weigh a decode instance's own TPOT, so a best rate per size is not enough."""
        return self.search.objective == "latency" or self.charge.cap is not None

    def _cells(self) -> None:
        served: list[Columns] = []
        waiting: list[Columns] = []
        for number, group in enumerate(self.groups):
            cells = group.cells
            if not len(cells.row):
                continue
            rate, tpot = group.bounds
            good = (tpot <= self.limit) & (rate > 0.0)
            inside = np.flatnonzero(cells.fits & good)
            for batch in (cells.low[inside], cells.high[inside]):
                served.append(self._rows(number, cells.row[inside], batch))
            closed = cells.take(inside)
            number_of = np.full(len(inside), number)
            sizes = group.shapes.devices[closed.row]
            waiting.append((sizes, rate[inside], tpot[inside], number_of, closed.row, closed.low, closed.high))
            if group.pool.tiers:
                for i in np.flatnonzero(~cells.fits & good):
                    row, start, end = int(cells.row[i]), int(cells.low[i]), int(cells.high[i])
                    self.open.append(
                        Node(0.0, (2, number, row, start), "decode", number, row, start, end, float(rate[i]), float(tpot[i]))
                    )
        if waiting:
            self._choose(stacked(waiting), served)

    def _choose(self, waiting: Columns, served: list[Columns]) -> None:
        """Open the cells that may beat the best rate of their size, and keep what no other instance beats."""
        best = self.best
        size, rate, tpot, which, rows, low, high = waiting
        left = np.ones(len(size), dtype=bool)
        slack = self.search.tolerance / 2 if self.charge.demand is None else 0.0  # a demand is met or not
        fastest = self.search.objective == "latency"
        if fastest and self.charge.demand is not None:
            served += self._serve_demand(waiting, left, stacked(served))
        promising = rate > of_size(best, size) * (1 + slack)
        if self.charge.cap is not None and not fastest:  # then what is slower does not stand for what is faster
            known = stacked(served)
            promising = rate > sooner(known[0], known[1], known[2], size, tpot) * (1 + slack)
        order = np.lexsort((low, rows, which, -rate))
        for i in order[promising[order]] if not fastest else ():
            if self.charge.cap is None and rate[i] <= best.get(int(size[i]), 0.0) * (1 + slack):
                continue
            if self.search.late():
                break
            batch = np.arange(low[i], high[i] + 1.0)
            served.append(self._rows(int(which[i]), np.full(len(batch), rows[i]), batch))
            left[i] = False
        left[left] = undominated(size[left], rate[left], tpot[left])
        self.pruned = [(int(size[i]), float(rate[i]), float(tpot[i])) for i in np.flatnonzero(left)]
        size, rate, tpot, which, rows, low = stacked(served)
        good = tpot <= self.limit
        if not self._keep_all:
            good &= rate >= of_size(best, size) * (1 - 1e-12)
        good[good] = undominated(size[good], rate[good], tpot[good])
        for i in np.flatnonzero(good):
            decision = decode_decision(self.groups[int(which[i])], int(rows[i]), int(low[i]))
            self.known.append(Known(int(size[i]), float(rate[i]), float(tpot[i]), decision))

    def _serve_demand(self, waiting: Columns, left: np.ndarray, served: Columns) -> list[Columns]:
        """Every batch of the cells that may serve the demand sooner than what does, least TPOT first; clears ``left`` of them."""
        size, rate, tpot, which, rows, low, high = waiting
        room = self.room()
        least = float(np.min(served[2][carries(served[0], served[1], room, self.charge)], initial=np.inf))
        able = carries(size, rate, self.most_devices, self.charge)
        order = np.lexsort((low, rows, which, tpot))
        order = order[able[order]]
        found: list[Columns] = []
        for start in range(0, len(order), CELLS):
            if self.search.late():
                break
            block = order[start : start + CELLS]
            block = block[tpot[block] < least]
            for number in np.unique(which[block]):
                group, cells = self.groups[int(number)], block[which[block] == number]
                row = np.repeat(rows[cells], (high[cells] - low[cells] + 1).astype(int))
                batch = np.concatenate([np.arange(low[i], high[i] + 1.0) for i in cells])
                serves, takes = group.serve(row, batch)
                found.append((group.shapes.devices[row], serves, takes, np.full(len(batch), number), row, batch))
                enough = carries(group.shapes.devices[row], serves, room, self.charge)
                least = min(least, float(np.min(takes[enough], initial=np.inf)))
            left[block] = False
        return found

    def _rows(self, number: int, row: np.ndarray, batch: np.ndarray) -> Columns:
        """``(size, rate, TPOT, group, row, batch)`` of batches that fit; ``best``: the highest rate of each size, raised."""
        group, best = self.groups[number], self.best
        rate, tpot = group.serve(row, batch)
        sizes = group.shapes.devices[row]
        good = np.flatnonzero(tpot <= self.limit)
        for size in np.unique(sizes[good]):
            best[int(size)] = max(best.get(int(size), 0.0), float(rate[good][sizes[good] == size].max()))
        return sizes, rate, tpot, np.full(len(row), number), row, batch
