"""Two pools for a set of workloads: rows of each side, made exact as far as the bound rests on them.

A row's rate is the least of the workloads' scaled rates; the best of a side at a split is the best row's, whatever the other
side does (``plans.robust``). For the least TPOT a prefill row only has to serve; then the decode rows compare by the slowest
workload, with all the decode devices that any split leaves beside enough prefill.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planner.plans.bounds import decode_decision, node_name, prefill_decision
from planner.plans.decision import Decision, PoolDecision
from planner.plans.pairing import carries, merit_of_rates, split_table
from planner.search.robust_batch import BestBatch

if TYPE_CHECKING:
    from planner.search.robust import RobustSearch

Key = tuple[int, int]
"""Row of a side, workload."""


class Side:
    """The rows of one side. ``most`` [W, N]: bounds of what a row is worth to a workload, scaled; ``value``: what is known of it
    (0: nothing yet); ``rate``, ``latency``: unscaled requests/s of an instance and seconds, as known."""

    def __init__(self, size: list[np.ndarray], place: list[tuple[int, int]], most: np.ndarray) -> None:
        self.size = np.concatenate(size) if size else np.zeros(0)
        self.place, self.most = place, most
        self.value, self.rate, self.latency = (np.zeros_like(most) for _ in range(3))
        self.known = np.zeros(most.shape, dtype=bool)
        self.decision: dict[Key, PoolDecision] = {}
        self.sizes, self._of_size = np.unique(self.size, return_inverse=True)

    def reach(self, table: np.ndarray, devices: np.ndarray) -> np.ndarray:
        """The most that all workloads reach with so many devices; ``table``: ``most`` or ``value``."""
        best = np.zeros(len(self.sizes))
        np.maximum.at(best, self._of_size, table.min(axis=0))
        result = np.zeros_like(devices)
        for size, one in zip(self.sizes, best, strict=True):
            result = np.maximum(result, np.floor(devices / size) * one) if one > 0.0 else result
        return result

    def best_row(self, devices: float) -> int:
        """The row that reaches most with so many devices, as far as bounds say."""
        return int(np.argmax(np.floor(devices / self.size) * self.most.min(axis=0)))

    def unknown(self, row: int) -> int | None:
        """The workload that limits a row most, of those for which it is not known."""
        open_ = np.flatnonzero(~self.known[:, row])
        return int(open_[np.argmin(self.most[open_, row])]) if len(open_) else None

    def learn(self, key: Key, most: float, value: float, rate: float, latency: float, decision: PoolDecision | None) -> None:
        """Set what a row is worth to a workload."""
        row, workload = key
        at = (workload, row)
        self.known[at], self.most[at] = True, min(float(self.most[at]), most)
        if decision is not None:
            self.value[at], self.rate[at], self.latency[at], self.decision[key] = value, rate, latency, decision

    def chosen(self, good: np.ndarray) -> int:
        """Of the rows that are good, the one whose slowest workload is fastest; of equals the simplest."""

        def order(row: int) -> tuple[float, ...]:
            d = self.decision[(row, 0)]
            return (float(f"{self.latency[:, row].max():.9g}"), d.pp, d.tp, d.ep, d.dp, d.cp, d.chunk, row)

        return min((int(row) for row in np.flatnonzero(good)), key=order)


class RobustSides:
    """Both sides of one search."""

    def __init__(self, search: RobustSearch) -> None:
        self.search, self.tables, self.charges = search, search.tables, search.charges
        self.fastest = search.objective == "latency"
        first = search.tables[0].context
        demands = [charge.demand for charge in search.charges]
        self.demanded = demands[0] is not None
        self.charge = replace(search.charges[0], demand=1.0 if self.demanded else None)  # of rates in parts of the demand
        self.scales = [1.0 / d if d is not None else s for d, s in zip(demands, search.scales, strict=True)]
        self.splits = search.space.splits
        self.prefill_devices, self.decode_devices, self.weight = split_table(first, search.space, search.charges[0])
        self.prefill = self._prefill_side()
        self.room = 0.0
        self.decode = Side([], [], np.zeros((len(self.tables), 0)))

    def run(self) -> None:
        """Make exact what the bound rests on; offer the best deployment that is known, and add to the search's bound."""
        if not len(self.prefill.place):
            return
        if self.fastest and not self._find_room():
            return
        self.decode = self._decode_side()
        if not len(self.decode.place):
            return
        if self.fastest:
            self._by_speed()
        else:
            self._by_rate()

    # -- rows ----------------------------------------------------------------------------------------------------------
    def _prefill_side(self) -> Side:
        size, place, most = [], [], []
        fitting: list[np.ndarray] = []
        for number, group in enumerate(self.tables[0].prefill):
            every, column = np.arange(len(group.chunk)), []
            for tables, factor in zip(self.tables, self.scales, strict=True):
                one = tables.prefill[number]
                rate, _ = one.serve(every, np.where(one.fits, one.seconds, one.least_seconds))
                column.append(np.where(one.fits | bool(one.pool.tiers), rate, 0.0) * factor)
            size.append(group.shapes.devices)
            place += [(number, int(row)) for row in every]
            most.append(np.stack(column))
            fitting.append(np.stack([tables.prefill[number].fits for tables in self.tables]))
        side = Side(size, place, np.concatenate(most, axis=1) if most else np.zeros((len(self.tables), 0)))
        for workload, row in np.argwhere(np.concatenate(fitting, axis=1)) if fitting else ():
            self._learn_prefill(side, int(row), int(workload))
        return side

    def _learn_prefill(self, side: Side, row: int, workload: int) -> None:
        """What a prefill row is worth to a workload, its placement solved where it needs one."""
        number, at = side.place[row]
        tables, where = self.tables[workload], np.array([at])
        group = tables.prefill[number]
        decision = prefill_decision(group, at)
        bound_s = value_s = group.seconds[where]
        if not group.fits[at]:
            placed = tables.place(group.pool, decision)
            kind = "I" if placed.seconds is None else "B"
            self.search.note(workload, {node_name(tables.context.variant, decision, 0, 0): f"{kind}:{placed.basis}"})
            if placed.seconds is None:
                most = 0.0 if np.isinf(placed.bound_s) else float(side.most[workload, row])
                side.learn((row, workload), most, 0.0, 0.0, 0.0, None)
                return
            decision, value_s = placed.decision, np.array([placed.seconds["prefill"]])
            bound_s = np.array([min(placed.bound_s, float(value_s[0]))])
        rate, through = group.serve(where, value_s)
        most = float(group.serve(where, bound_s)[0][0]) * self.scales[workload]
        value = float(rate[0])
        known = decision if value > 0.0 else None
        side.learn((row, workload), most, value * self.scales[workload], value, float(through[0]), known)

    def _decode_side(self) -> Side:
        size, place, most = [], [], []
        for number, group in enumerate(self.tables[0].decode):
            column = []
            for workload, tables in enumerate(self.tables):
                one = tables.decode[number]
                best = np.zeros(len(one.shapes.tp))
                if len(one.cells.row):
                    rate, tpot = one.bounds
                    good = (tpot <= self._limit(workload)) & (one.cells.fits | bool(one.pool.tiers))
                    worth = self._worth(workload, one.shapes.devices[one.cells.row], rate, tpot)
                    np.maximum.at(best, one.cells.row, np.where(good, worth, 0.0))
                column.append(best)
            size.append(group.shapes.devices)
            place += [(number, row) for row in range(len(group.shapes.tp))]
            most.append(np.stack(column))
        return Side(size, place, np.concatenate(most, axis=1) if most else np.zeros((len(self.tables), 0)))

    def _limit(self, workload: int) -> float:
        return self.charges[workload].longest_tpot_s * (1 + 1e-12)

    def _worth(self, workload: int, size: np.ndarray, rate: np.ndarray, tpot: np.ndarray) -> np.ndarray:
        """What decode instances are worth to a workload: their scaled rate, or for the least TPOT its inverse if they carry."""
        if not self.fastest:
            return rate * self.scales[workload]
        return np.where(carries(size, rate, self.room, self.charges[workload]), 1.0 / tpot, 0.0)

    def _learn_decode(self, row: int, workload: int) -> None:
        """What a decode row is worth to a workload, at its best batch."""
        number, at = self.decode.place[row]
        size = self.decode.size[row : row + 1]
        slack = 1.0 if self.demanded else 1.0 + self.search.gap / 8.0  # a demand is met or not
        worth = functools.partial(self._worth, workload, size)
        best = BestBatch(self.tables[workload], number, at, self._limit(workload), worth, slack)
        best.run(self.search.expired)
        self.search.note(workload, best.closed)
        self.decode.learn((row, workload), best.bound, best.worth, best.rate, best.tpot, best.decision)

    def _soonest(self, workload: int, row: int, rate: float) -> PoolDecision:
        """The batch of least TPOT of a decode row that serves so many requests/s: the known one, or another in device memory."""
        known = self.decode.decision[(row, workload)]
        number, at = self.decode.place[row]
        group = self.tables[workload].decode[number]
        cells = group.cells.take(np.flatnonzero((group.cells.row == at) & group.cells.fits))
        if self.fastest or not len(cells.row):
            return known
        batch = np.arange(cells.low.min(), cells.high.max() + 1.0)
        serves, takes = group.serve(np.full(len(batch), at), batch)
        takes = np.where(serves >= rate * (1 - 1e-12), takes, np.inf)
        sooner = bool(takes.min() < self.decode.latency[workload, row])
        return decode_decision(group, at, int(batch[np.argmin(takes)])) if sooner else known

    # -- combining -----------------------------------------------------------------------------------------------------
    def _by_rate(self) -> None:
        while True:
            prefill = self.prefill.reach(self.prefill.most, self.prefill_devices)
            decode = self.decode.reach(self.decode.most, self.decode_devices)
            merit = merit_of_rates(np.minimum(prefill, decode), self.weight, self.charge)
            index = int(np.argmax(merit))
            if merit[index] <= self.search.floor or self.search.expired():
                break
            row = self.prefill.best_row(self.prefill_devices[index])
            if (workload := self.prefill.unknown(row)) is not None:
                self._learn_prefill(self.prefill, row, workload)
                continue
            row = self.decode.best_row(self.decode_devices[index])
            if (workload := self.decode.unknown(row)) is None:
                break
            self._learn_decode(row, workload)
        self.search.bound = max(self.search.bound, float(merit[index]))
        self._offer_rate()

    def _offer_rate(self) -> None:
        prefill = self.prefill.reach(self.prefill.value, self.prefill_devices)
        decode = self.decode.reach(self.decode.value, self.decode_devices)
        rate = np.minimum(prefill, decode)
        merit = merit_of_rates(rate, self.weight, self.charge)
        if merit.max(initial=0.0) <= 0.0:
            return
        index = int(np.flatnonzero(merit >= merit.max() * (1 - 1e-12))[0])
        least = float(1.0 if self.demanded else rate[index]) * (1 - 1e-12)
        first, second = (
            side.chosen(np.floor(devices[index] / side.size) * side.value.min(axis=0) >= least)
            for side, devices in ((self.prefill, self.prefill_devices), (self.decode, self.decode_devices))
        )
        self._offer(float(merit[index]), index, first, second)

    def _enough(self, table: np.ndarray) -> np.ndarray:
        """Splits whose prefill devices serve every workload."""
        carried = self.prefill.reach(table, self.prefill_devices)
        return carried >= 1 - 1e-12 if self.demanded else carried > 0.0

    def _find_room(self) -> bool:
        """Find the most decode devices beside enough prefill; whether there are any."""
        while True:
            enough = self._enough(self.prefill.most)
            if not enough.any():
                return False
            index = int(np.argmax(np.where(enough, self.decode_devices, -1.0)))
            row = self.prefill.best_row(self.prefill_devices[index])
            workload = self.prefill.unknown(row)
            if workload is None or self.search.expired():
                self.room = float(self.decode_devices[index])
                return True
            self._learn_prefill(self.prefill, row, workload)

    def _by_speed(self) -> None:
        while True:
            merit = np.where(self.decode.size <= self.room, self.decode.most.min(axis=0), 0.0)
            row = int(np.argmax(merit))
            workload = self.decode.unknown(row)
            if merit[row] <= self.search.floor or workload is None or self.search.expired():
                break
            self._learn_decode(row, workload)
        self.search.bound = max(self.search.bound, float(merit[row]))
        enough = self._enough(self.prefill.value)
        value = np.where(self.decode.size <= self.room, self.decode.value.min(axis=0), 0.0)
        for row in np.argsort(-value, kind="stable"):
            if value[row] <= 0.0:
                return
            able = enough.copy()
            for workload, charge in enumerate(self.charges):
                able &= carries(self.decode.size[row], self.decode.rate[workload, row], self.decode_devices, charge)
            if able.any():
                index = int(np.flatnonzero(able)[0])
                least = 1 - 1e-12 if self.demanded else 1e-300
                held = np.floor(self.prefill_devices[index] / self.prefill.size)
                first = self.prefill.chosen(held * self.prefill.value.min(axis=0) >= least)
                self._offer(float(value[row]), index, first, int(row))
                return

    def _offer(self, merit: float, index: int, first: int, second: int) -> None:
        n_prefill, n_decode, units, more = self.splits[index]
        counts = (units, more) if self.tables[0].context.separate else (units,)
        decisions = []
        for workload, (tables, charge) in enumerate(zip(self.tables, self.charges, strict=True)):
            held = int(n_prefill // self.prefill.size[first]), int(n_decode // self.decode.size[second])
            served = min(held[0] * self.prefill.rate[workload, first], held[1] * self.decode.rate[workload, second])
            asked = served if charge.demand is None else min(charge.demand, served)
            decode = self._soonest(workload, second, asked / held[1])
            pools = replace(self.prefill.decision[(first, workload)], replicas=held[0]), replace(decode, replicas=held[1])
            decisions.append(Decision(pools, counts, tables.context.variant))
        self.search.offer(merit, (0.0, float(units), 1e9), tuple(decisions))
