"""Disaggregated serving: what each instance size of either side can do at best, known or bounded, and how sides combine.

For a split the deployment serves the least of what its prefill devices and its decode devices can: each side's best is
independent of the other's, so a split needs only the best rate per instance size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from planner.performance.load import prefill_passes
from planner.performance.serving import queue_wait
from planner.plans.bounds import decode_decision, node_name, prefill_decision
from planner.plans.decision import Decision, PoolDecision
from planner.plans.operate import BUSY_LIMIT
from planner.plans.pairing import best_rate, carries, enough_prefill, merit_of_rates, split_table, undominated
from planner.quantities import round12
from planner.search.decode_side import DecodeSide, Known
from planner.search.find import Node
from planner.search.prefix_sides import sized_prefill
from planner.search.tables import Placed

if TYPE_CHECKING:
    from planner.search.find import Search


class Sides:
    """Both sides of one search."""

    def __init__(self, search: Search) -> None:
        self.search, self.context, self.tables = search, search.context, search.tables
        self.charge = search.charge
        self.splits = search.space.splits
        self.prefill_devices, self.decode_devices, self.weight = split_table(self.context, search.space, self.charge)
        self.known: dict[str, list[Known]] = {"prefill": [], "decode": []}
        self.shown: list[tuple[int, float, float]] = []
        self.open: dict[str, list[Node]] = {"prefill": [], "decode": []}
        self._forget()
        order = np.argsort(self.prefill_devices, kind="stable")
        self._prefill_sorted = self.prefill_devices[order]
        self._decode_beyond = np.maximum.accumulate(self.decode_devices[order][::-1])[::-1]
        self._prefill_side()
        most = float(np.max(self.decode_devices, initial=0.0))
        decode = DecodeSide(search, most, lambda: self._room(False))
        self.known["decode"], self.open["decode"], self.pruned = decode.known, decode.open, decode.pruned
        self._offer_best()

    def _forget(self) -> None:
        """Drop what was derived from tables that have changed."""
        self._cache: dict[str, list[tuple[int, float, float]]] = {}
        self._carried: dict[str, np.ndarray] = {}
        self._rooms: dict[bool, float] = {}
        self._cached_bound: float | None = None

    @property
    def _waits_count(self) -> bool:
        """A cap on requests in flight counts those that wait, for as long as a prefill instance may let them."""
        return self.charge.cap is not None and self.charge.demand is not None and self.charge.ttft_s is None

    # -- what is known -------------------------------------------------------------------------------------------------
    def _prefill_side(self) -> None:
        for number, group in enumerate(self.tables.prefill):
            every = np.arange(len(group.chunk))
            rate, through = group.serve(every, group.seconds)
            sizes = group.shapes.devices
            for size in np.unique(sizes):
                members = np.flatnonzero((sizes == size) & group.fits & (rate > 0.0))
                if len(members) and self.search.objective != "latency" and not self._waits_count:
                    members = members[rate[members] >= rate[members].max() * (1 - 1e-12)]
                for i in members:
                    decision = prefill_decision(group, int(i))
                    if group.pool.prefix is not None:
                        decision = replace(decision, prefix_rate=round12(float(rate[i]) / decision.dp))
                    self.known["prefill"].append(Known(int(size), float(rate[i]), float(through[i]), decision))
            if group.pool.tiers:
                bound, _ = group.serve(every, group.least_seconds)
                for i in np.flatnonzero(~group.fits & (bound > 0.0)):
                    self.open["prefill"].append(
                        Node(0.0, (1, number, int(i), 0), "prefill", number, int(i), 0, 0, float(bound[i]), 0.0)
                    )

    # -- combining -----------------------------------------------------------------------------------------------------
    def _table(self, side: str, bounded: bool) -> list[tuple[int, float, float]]:
        """``(size, rate, latency)`` of a side: known instances, and with ``bounded`` what is still closed by bounds."""
        if bounded and side in self._cache:
            return self._cache[side]
        rows = [(k.size, k.rate, k.latency) for k in self.known[side]]
        if bounded:
            groups = self.tables.prefill if side == "prefill" else self.tables.decode
            rows += [(int(groups[n.group].shapes.devices[n.row]), n.rate, n.tpot) for n in self.open[side]]
            rows += self.pruned if side == "decode" else self.shown
            if rows:
                size, rate, latency = (np.array(column) for column in zip(*rows, strict=True))
                rows = [rows[i] for i in np.flatnonzero(undominated(size, rate, latency))]
            self._cache[side] = rows
        return rows

    def _most(self, side: str) -> np.ndarray:
        """The most a side may reach at every split, with what is still closed by bounds."""
        if side not in self._carried:
            self._carried[side] = self._reach(side, self._table(side, True))
        return self._carried[side]

    def _reach(self, side: str, rows: list[tuple[int, float, float]]) -> np.ndarray:
        if side == "prefill":
            return np.asarray(best_rate(rows, self.prefill_devices, None, self.charge))
        return np.asarray(best_rate(rows, self.decode_devices, self.charge.cap, self.charge))

    def _room(self, bounded: bool) -> float:
        """Most decode devices of a split whose prefill side is enough."""
        if bounded not in self._rooms:
            rows = self._table("prefill", bounded)
            self._rooms[bounded] = max((self._room_beside(size, rate) for size, rate, _ in rows), default=0.0)
        return self._rooms[bounded]

    def _room_beside(self, size: int, rate: float) -> float:
        """Most decode devices of a split whose prefill devices hold enough instances of that size and rate."""
        needed, asked = 1.0, (self.charge.demand or 0.0) * (1 - 1e-12)
        if asked > 0.0:
            if len(self._prefill_sorted) == 0 or rate * (self._prefill_sorted[-1] + 1.0) < asked:
                return 0.0  # an instance of every device there is would not do
            guess = max(float(np.ceil(asked / rate)), 1.0)
            needed = next(count for count in (guess - 1.0, guess, guess + 1.0) if count * rate >= asked)
        place = int(np.searchsorted(self._prefill_sorted, needed * size))
        return float(self._decode_beyond[place]) if place < len(self._decode_beyond) else 0.0

    def _offer_best(self) -> None:
        """Offer the best deployment of known instances."""
        search, prefill, decode = self.search, self.known["prefill"], self.known["decode"]
        if not prefill or not decode:
            return
        if search.objective == "latency":
            room, longest = self._room(False), self._longest_tpot()
            enough = enough_prefill(self._table("prefill", False), self.prefill_devices, self.charge)
            for chosen in sorted((k for k in decode if carries(k.size, k.rate, room, self.charge)), key=Known.order):
                able = enough & carries(chosen.size, chosen.rate, self.decode_devices, self.charge) & (chosen.latency <= longest)
                if able.any():
                    index = int(np.flatnonzero(able)[0])
                    held, needed = self.splits[index][0], (self.charge.demand or 0.0) * (1 - 1e-12)
                    first = min((k for k in prefill if k.size <= held and held // k.size * k.rate >= needed), key=self._order)
                    key = (float(f"{first.latency:.9g}"), float(self.splits[index][2]), 1e9)
                    search.offer(1.0 / chosen.latency, key, self._decision(index, first, chosen))
                    return
            return
        rates = np.minimum(*(self._reach(side, self._table(side, False)) for side in ("prefill", "decode")))
        merit, longest = merit_of_rates(rates, self.weight, self.charge), self._longest_tpot()
        if self._waits_count:
            each = [carries(k.size, k.rate, self.decode_devices, self.charge) & (k.latency <= longest) for k in decode]
            merit = np.where(np.any(each, axis=0), merit, 0.0)
        if merit.max(initial=0.0) <= 0.0:
            return
        index = int(np.flatnonzero(merit >= merit.max() * (1 - 1e-12))[0])
        n_prefill, n_decode, units, _ = self.splits[index]
        least = float(rates[index] if self.charge.demand is None else self.charge.demand) * (1 - 1e-12)
        first = min((k for k in prefill if (n_prefill // k.size) * k.rate >= least), key=self._order)
        fitting = [
            k
            for k in decode
            if k.latency <= longest[index]
            and best_rate([(k.size, k.rate, k.latency)], np.array([float(n_decode)]), self.charge.cap, self.charge)[0] >= least
        ]
        search.offer(float(merit[index]), (0.0, float(units), 1e9), self._decision(index, first, min(fitting, key=Known.order)))

    def _order(self, prefill: Known) -> tuple[float, ...]:
        """The shortest wait first where waits count, then as instances are ordered."""
        return (self._longest_wait(prefill) if self._waits_count else 0.0, *prefill.order())

    def _longest_wait(self, prefill: Known) -> float:
        """Time to first token of a prefill instance as busy as it may be (s)."""
        decision, workload = prefill.decision, self.context.inputs.workload
        passes = prefill_passes(np.array([float(decision.chunk)]), workload)
        service = np.minimum(passes, workload.miss_tokens / decision.chunk) * prefill.latency / (passes + decision.pp - 1.0)
        return float(prefill.latency + queue_wait(np.array([BUSY_LIMIT]), service)[0])

    def _longest_tpot(self) -> np.ndarray:
        """The longest TPOT at every split that keeps requests in flight within their cap beside the known prefill instance of
        least wait (``inf`` where waits do not count)."""
        if not self._waits_count or self.charge.cap is None or self.charge.demand is None:
            return np.full(len(self.weight), np.inf)
        wait = np.full(len(self.weight), np.inf)
        for one in self.known["prefill"]:
            able = carries(one.size, one.rate, self.prefill_devices, self.charge)
            wait = np.where(able, np.minimum(wait, self._longest_wait(one)), wait)
        return np.asarray((self.charge.cap / self.charge.demand - wait) / self.charge.rounds * (1 + 1e-12))

    def _decision(self, index: int, prefill: Known, decode: Known) -> Decision:
        n_prefill, n_decode, first, second = self.splits[index]
        pools = (
            replace(prefill.decision, replicas=n_prefill // prefill.size),
            replace(decode.decision, replicas=n_decode // decode.size),
        )
        return Decision(pools, (first, second) if self.context.separate else (first,), self.context.variant)

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
        self._forget()
        return found

    def potential(self, node: Node) -> float:
        """Merit bound of a node: its own rate against the other side's best, at the best split."""
        groups = self.tables.prefill if node.side == "prefill" else self.tables.decode
        size = int(groups[node.group].shapes.devices[node.row])
        if self.search.objective == "latency":
            if node.side == "decode":
                return 1.0 / node.tpot if carries(size, node.rate, self._room(True), self.charge) else 0.0
            if not self._waits_count and self._room_beside(size, node.rate) <= self._room(False):
                return 0.0
            if self._cached_bound is None:
                self._cached_bound = self.final_bound()
            return self._cached_bound
        other = self._most("decode" if node.side == "prefill" else "prefill")
        rate = np.minimum(self._reach(node.side, [(size, node.rate, node.tpot)]), other)
        return float(np.max(merit_of_rates(rate, self.weight, self.charge), initial=0.0))

    def process(self, node: Node) -> list[Node]:
        """Solve the placement of a side's node, add what is known, split what is not."""
        side = node.side
        self.open[side] = [n for n in self.open[side] if n.key != node.key]
        self._forget()
        pool = self.context.pool(side)
        if side == "prefill":
            decision = prefill_decision(self.tables.prefill[node.group], node.row)
            if pool.prefix is not None:
                self._process_sized(node, decision)
                return []
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
        limit = self.charge.longest_tpot_s * (1 + 1e-12)
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
        self._forget()
        for child in children:
            child.priority = -self.potential(child)
        return children

    def _process_sized(self, node: Node, decision: PoolDecision) -> None:
        """Solve a prefill node with a prefix cache: one placement is known; between it and the bound stays a bound."""
        group, row = self.tables.prefill[node.group], np.array([node.row])
        found = sized_prefill(
            self.tables,
            group.pool,
            decision,
            lambda seconds: float(group.serve(row, np.array([seconds]))[0][0]),
            self.search.tolerance / 2.0,
        )
        self.search.closed[node_name(self.context.variant, decision, node.low, node.high)] = found.proof
        if found.bound > 0.0:
            least = float(group.serve(row, group.least_seconds[row])[1][0])
            self.shown.append((decision.instance_devices, found.bound, least))
        if found.placed is not None and found.rate > 0.0:
            through = float(group.serve(row, np.array([found.seconds]))[1][0])
            self.known["prefill"].append(Known(decision.instance_devices, found.rate, through, found.placed.decision))
            self._offer_best()

    def _close(self, decision: PoolDecision, node: Node, placed: Placed) -> None:
        kind = "I" if placed.seconds is None else "B"
        self.search.closed[node_name(self.context.variant, decision, node.low, node.high)] = f"{kind}:{placed.basis}"

    def final_bound(self) -> float:
        """Merit bound over all disaggregated deployments: both sides at their upper bounds."""
        prefill, decode = self._table("prefill", True), self._table("decode", True)
        if not prefill or not decode:
            return 0.0
        if self.search.objective == "latency":
            room = self._room(True)
            size, rate, tpot = (np.array(column) for column in zip(*decode, strict=True))
            least = float(np.min(tpot[carries(size, rate, room, self.charge)], initial=np.inf))
            return 1.0 / least
        return float(
            np.max(merit_of_rates(np.minimum(self._most("prefill"), self._most("decode")), self.weight, self.charge), initial=0.0)
        )
