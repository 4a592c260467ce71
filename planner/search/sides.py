"""Disaggregated serving: what each instance size of either side can do at best, known or bounded, and how sides combine.

For a split the deployment serves the least of what its prefill devices and its decode devices can: each side's best is
independent of the other's, so a split needs only the best rate per instance size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from planner.plans.bounds import decode_decision, node_name
from planner.plans.operate import Decision, PoolDecision
from planner.plans.pairing import best_rate, split_table
from planner.search.find import Node
from planner.search.tables import Placed

if TYPE_CHECKING:
    from planner.search.find import Search


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
        return (float(f"{self.latency:.9g}"), d.pp, d.tp, d.ep, d.dp, d.chunk, d.batch)


class Sides:
    """Both sides of one search."""

    def __init__(self, search: Search) -> None:
        self.search, self.context, self.tables = search, search.context, search.tables
        self.charge = search.charge
        self.splits = search.space.splits
        self.prefill_devices, self.decode_devices, self.weight = split_table(self.context, search.space, self.charge)
        self.known: dict[str, list[Known]] = {"prefill": [], "decode": []}
        self.pruned: list[tuple[int, float, float]] = []
        self.open: dict[str, list[Node]] = {"prefill": [], "decode": []}
        self._cache: dict[str, list[tuple[int, float, float]]] = {}
        self._cached_room: float | None = None
        self._smallest: tuple[int, float] | None = None
        self._prefill_side()
        self._decode_side()
        self._offer_best()

    @property
    def _keep_all(self) -> bool:
        """Latency and a cap on concurrency weigh a decode instance's own TPOT, so a best rate per size is not enough."""
        return self.search.objective == "latency" or self.charge.cap is not None

    # -- what is known -------------------------------------------------------------------------------------------------
    def _prefill_side(self) -> None:
        for number, group in enumerate(self.tables.prefill):
            every = np.arange(len(group.chunk))
            rate, through = group.serve(every, group.seconds)
            sizes = group.shapes.devices
            for size in np.unique(sizes):
                members = np.flatnonzero((sizes == size) & group.fits & (rate > 0.0))
                if len(members) and self.search.objective != "latency":
                    members = members[rate[members] >= rate[members].max() * (1 - 1e-12)]
                for i in members:
                    decision = self._prefill_decision(number, int(i))
                    self.known["prefill"].append(Known(int(size), float(rate[i]), float(through[i]), decision))
            if group.pool.tiers:
                bound, _ = group.serve(every, group.least_seconds)
                for i in np.flatnonzero(~group.fits & (bound > 0.0)):
                    self.open["prefill"].append(
                        Node(0.0, (1, number, int(i), 0), "prefill", number, int(i), 0, 0, float(bound[i]), 0.0)
                    )

    def _prefill_decision(self, number: int, row: int) -> PoolDecision:
        group = self.tables.prefill[number]
        s = group.shapes
        return PoolDecision("prefill", 1, int(s.tp[row]), int(s.dp[row]), int(s.ep[row]), s.pp, 0, int(group.chunk[row]))

    def _decode_side(self) -> None:
        limit = (self.charge.tpot_s or np.inf) * (1 + 1e-12)
        best: dict[int, float] = {}
        pending: list[tuple[float, int, int, int, int, float]] = []
        for number, group in enumerate(self.tables.decode):
            cells = group.cells
            if not len(cells.row):
                continue
            rate, tpot = group.bounds(cells)
            good = tpot <= limit
            inside = np.flatnonzero(cells.fits & good)
            for batch in (cells.low[inside], cells.high[inside]):
                self._decode_rows(number, cells.row[inside], batch, limit, best)
            for i in inside:
                pending.append(
                    (-float(rate[i]), number, int(cells.row[i]), int(cells.low[i]), int(cells.high[i]), float(tpot[i]))
                )
            if group.pool.tiers:
                for i in np.flatnonzero(~cells.fits & good):
                    row, low, high = int(cells.row[i]), int(cells.low[i]), int(cells.high[i])
                    self.open["decode"].append(
                        Node(0.0, (2, number, row, low), "decode", number, row, low, high, float(rate[i]), float(tpot[i]))
                    )
        if self.search.objective == "latency":
            self.pruned = [
                (int(self.tables.decode[n].shapes.devices[row]), -less, least) for less, n, row, _, _, least in pending
            ]
            return
        for negative, number, row, low, high, least in sorted(pending):
            size = int(self.tables.decode[number].shapes.devices[row])
            if -negative <= best.get(size, 0.0) * (1 + self.search.tolerance / 2) and self.charge.cap is None:
                self.pruned.append((size, -negative, least))
                continue
            batch = np.arange(low, high + 1.0)
            self._decode_rows(number, np.full(len(batch), row), batch, limit, best)
        if not self._keep_all:
            self.known["decode"] = [k for k in self.known["decode"] if k.rate >= best[k.size] * (1 - 1e-12)]

    def _decode_rows(self, number: int, row: np.ndarray, batch: np.ndarray, limit: float, best: dict[int, float]) -> None:
        if not len(row):
            return
        group = self.tables.decode[number]
        rate, tpot = group.serve(row, batch)
        sizes = group.shapes.devices[row].astype(int)
        good = np.flatnonzero(tpot <= limit)
        for size in np.unique(sizes[good]):
            best[int(size)] = max(best.get(int(size), 0.0), float(rate[good][sizes[good] == size].max()))
        for i in good:
            if self._keep_all or rate[i] >= best[int(sizes[i])] * (1 - 1e-12):
                decision = decode_decision(group, int(row[i]), int(batch[i]))
                self.known["decode"].append(Known(int(sizes[i]), float(rate[i]), float(tpot[i]), decision))

    # -- combining -----------------------------------------------------------------------------------------------------
    def _table(self, side: str, bounded: bool) -> list[tuple[int, float, float]]:
        """``(size, rate, latency)`` of a side: known instances, and with ``bounded`` what is still closed by bounds."""
        if bounded and side in self._cache:
            return self._cache[side]
        rows = [(k.size, k.rate, k.latency) for k in self.known[side]]
        if bounded:
            groups = self.tables.prefill if side == "prefill" else self.tables.decode
            rows += [(int(groups[n.group].shapes.devices[n.row]), n.rate, n.tpot) for n in self.open[side]]
            rows += self.pruned if side == "decode" else []
            self._cache[side] = rows
        return rows

    def _rates(self, prefill: list[tuple[int, float, float]], decode: list[tuple[int, float, float]]) -> np.ndarray:
        carried = best_rate(prefill, self.prefill_devices, None, self.charge)
        return np.asarray(np.minimum(carried, best_rate(decode, self.decode_devices, self.charge.cap, self.charge)))

    def _room(self, bounded: bool) -> float:
        """The most decode devices of a split that leaves room for a prefill instance."""
        if bounded and self._cached_room is not None:
            return self._cached_room
        smallest = min((row[0] for row in self._table("prefill", bounded)), default=np.inf)
        room = float(np.max(self.decode_devices[self.prefill_devices >= smallest], initial=0.0))
        if bounded:
            self._cached_room = room
        return room

    def _offer_best(self) -> None:
        """Offer the best deployment of known instances."""
        search, prefill, decode = self.search, self.known["prefill"], self.known["decode"]
        if not prefill or not decode:
            return
        if search.objective == "latency":
            room = self._room(False)
            fitting = [k for k in decode if k.size <= room]
            if fitting:
                chosen = min(fitting, key=Known.order)
                smallest = min(k.size for k in prefill)
                index = int(np.flatnonzero((self.decode_devices >= chosen.size) & (self.prefill_devices >= smallest))[0])
                first = min((k for k in prefill if k.size <= self.splits[index][0]), key=Known.order)
                key = (float(f"{first.latency:.9g}"), float(self.splits[index][2]), 1e9)
                search.offer(1.0 / chosen.latency, key, self._decision(index, first, chosen))
            return
        rate = self._rates(self._table("prefill", False), self._table("decode", False))
        merit = rate / self.weight
        if merit.max(initial=0.0) <= 0.0:
            return
        index = int(np.flatnonzero(merit >= merit.max() * (1 - 1e-12))[0])
        n_prefill, n_decode, units, _ = self.splits[index]
        enough = float(rate[index]) * (1 - 1e-12)
        first = min((k for k in prefill if (n_prefill // k.size) * k.rate >= enough), key=Known.order)
        carries = [
            k
            for k in decode
            if best_rate([(k.size, k.rate, k.latency)], np.array([float(n_decode)]), self.charge.cap, self.charge)[0] >= enough
        ]
        search.offer(float(merit[index]), (0.0, float(units), 1e9), self._decision(index, first, min(carries, key=Known.order)))

    def _decision(self, index: int, prefill: Known, decode: Known) -> Decision:
        n_prefill, n_decode, first, second = self.splits[index]
        pools = (
            replace(prefill.decision, replicas=n_prefill // prefill.size),
            replace(decode.decision, replicas=n_decode // decode.size),
        )
        return Decision(pools, (first, second) if self.context.separate else (first,))

    # -- nodes that need other memories --------------------------------------------------------------------------------
    def nodes(self) -> list[Node]:
        """Open nodes with a bound on their potential as priority; the search asks for the potential when a node comes up.

        ``floor(n / size) * rate / charge`` is at most ``rate / size`` times the most devices per charge of any split.
        """
        found = []
        for side, devices in (("prefill", self.prefill_devices), ("decode", self.decode_devices)):
            groups = self.tables.prefill if side == "prefill" else self.tables.decode
            most = float(np.max(devices / self.weight, initial=0.0))
            for node in self.open[side]:
                if self.search.objective == "latency":
                    node.priority = -self.potential(node)
                else:
                    size = float(groups[node.group].shapes.devices[node.row])
                    node.priority = -node.rate / size * most * (1 + 1e-9)
            self.open[side] = [node for node in self.open[side] if node.priority < 0.0]
            found += self.open[side]
        self._cache, self._cached_room = {}, None
        return found

    def potential(self, node: Node) -> float:
        """Merit bound of a node: its own rate against the other side's best, at the best split."""
        groups = self.tables.prefill if node.side == "prefill" else self.tables.decode
        size = int(groups[node.group].shapes.devices[node.row])
        if self.search.objective == "latency":
            if node.side == "decode":
                return 1.0 / node.tpot if size <= self._room(True) else 0.0
            return self.final_bound() if size < self._smallest_prefill() else 0.0
        own = [(size, node.rate, node.tpot)]
        rate = (
            self._rates(own, self._table("decode", True))
            if node.side == "prefill"
            else self._rates(self._table("prefill", True), own)
        )
        return float(np.max(rate / self.weight, initial=0.0))

    def _smallest_prefill(self) -> float:
        if self._smallest is None or self._smallest[0] != len(self.known["prefill"]):
            self._smallest = (len(self.known["prefill"]), min((k.size for k in self.known["prefill"]), default=np.inf))
        return self._smallest[1]

    def process(self, node: Node) -> list[Node]:
        """Solve the placement of a side's node, add what is known, split what is not."""
        side = node.side
        self.open[side] = [n for n in self.open[side] if n.key != node.key]
        self._cache, self._cached_room = {}, None
        pool = self.context.pool(side)
        if side == "prefill":
            decision = self._prefill_decision(node.group, node.row)
            placed = self.tables.place(pool, decision)
            self._close(decision, node, placed)
            if placed.seconds is not None:
                group = self.tables.prefill[node.group]
                rate, through = group.serve(np.array([node.row]), np.array([placed.seconds["prefill"]]))
                if rate[0] > 0.0:
                    self.known["prefill"].append(
                        Known(decision.instance_devices, float(rate[0]), float(through[0]), placed.decision)
                    )
                    self._offer_best()
            return []
        decode = self.tables.decode[node.group]
        row = np.array([node.row])
        first = decode_decision(decode, node.row, node.low)
        low = self.tables.place(pool, first)
        self._close(first, node, low)
        if low.seconds is None:
            return []
        limit = (self.charge.tpot_s or np.inf) * (1 + 1e-12)
        seconds = np.array([low.bound_s])
        rate, _ = decode.serve(row, np.array([float(node.high)]), seconds)
        _, tpot = decode.serve(row, np.array([float(node.low)]), seconds)
        if tpot[0] > limit:
            return []
        for batch in sorted({node.low, node.high}):
            placed = self.tables.place(pool, decode_decision(decode, node.row, batch))
            if placed.seconds is None:
                continue
            r, t = decode.serve(row, np.array([float(batch)]), np.array([placed.seconds["decode"]]))
            if t[0] <= limit:
                self.known["decode"].append(Known(first.instance_devices, float(r[0]), float(t[0]), placed.decision))
        self._offer_best()
        if node.low == node.high:
            return []
        bound, least = min(float(rate[0]), node.rate), max(float(tpot[0]), node.tpot)
        middle = (node.low + node.high) // 2
        children = []
        for start, end in ((node.low, middle), (middle + 1, node.high)):
            child = Node(0.0, (2, node.group, node.row, start), "decode", node.group, node.row, start, end, bound, least)
            self.open["decode"].append(child)
            children.append(child)
        self._cache, self._cached_room = {}, None
        for child in children:
            child.priority = -self.potential(child)
        return children

    def _close(self, decision: PoolDecision, node: Node, placed: Placed) -> None:
        kind = "I" if placed.seconds is None else "B"
        self.search.closed[node_name(decision, node.low, node.high)] = f"{kind}:{placed.basis}"

    def final_bound(self) -> float:
        """Merit bound over all disaggregated deployments: both sides at their upper bounds."""
        prefill, decode = self._table("prefill", True), self._table("decode", True)
        if not prefill or not decode:
            return 0.0
        if self.search.objective == "latency":
            room = self._room(True)
            least = min((row[2] for row in decode if row[0] <= room), default=0.0)
            return 1.0 / least if least else 0.0
        return float(np.max(self._rates(prefill, decode) / self.weight, initial=0.0))
