"""Best-first search over the declared space, with a bound on everything it did not open.

Candidates whose items all fit in device memory are evaluated exactly, in columns; a cell of batches is opened only if its bound
beats the incumbent by more than a quarter of the gap asked for. Candidates that need other memories carry a bound
(``overflow_seconds``), then the optimum of their tier problem. What remains closed by bound gives the certificate.
Merits are those of ``planner.plans.bounds``. Ties are broken by an integer key: fewer units, then smaller pipeline, tensor,
expert and attention groups, context parallelism, pass and batch.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field, replace

import numpy as np

from planner.performance import mixed_serving
from planner.plans.bounds import (
    Shown,
    at_rate,
    charge_of,
    meets,
    mixed_cell_merit,
    mixed_decision,
    mixed_merit,
    node_name,
    placed_merit,
    rate_of_merit,
    weigh_batch,
)
from planner.plans.decision import Decision, PoolDecision
from planner.plans.evaluate import Candidates, prefix_most
from planner.quantities import round12
from planner.reporter import Reporter
from planner.search.tables import Placed, Stop, Tables

BLOCK = 500
"""Batches opened before the incumbent is looked at again."""


@dataclass(frozen=True)
class Found:
    """The best decision (``None`` if none), its merit, the least upper bound on merit over the space, the nodes closed by a
    placement (key -> proof) and why the search stopped early, if it did."""

    decision: Decision | None
    merit: float
    bound: float
    closed: dict[str, str]
    stopped: str | None
    solved: int


@dataclass(order=True)
class Node:
    """An open cell that needs other memories; ordered by bound (best first), then by a fixed key."""

    priority: float
    key: tuple[int, ...]
    side: str = field(compare=False)
    group: int = field(compare=False)
    row: int = field(compare=False)
    low: int = field(compare=False)
    high: int = field(compare=False)
    rate: float = field(compare=False)
    tpot: float = field(compare=False)


class Search:
    """One search for one objective over prepared tables."""

    def __init__(
        self,
        tables: Tables,
        objective: str,
        tpot_s: float | None,
        gap: float,
        reporter: Reporter,
        stop: Stop,
        beat: float = 0.0,
        first: bool = False,
    ) -> None:
        """``beat``: merit that a deployment must exceed to matter; what stays closed below it counts in the bound.
        ``first``: any deployment will do, and the bound says nothing."""
        self.beat, self.first = beat, first
        self.tables, self.context, self.space = tables, tables.context, tables.space
        self.charge = charge_of(self.context, objective, tpot_s)
        self.objective = objective
        self.tolerance = gap / 4.0
        self.reporter, self.stop = reporter, stop
        self.best: tuple[float, tuple[float, ...], Decision] | None = None
        self.closed: dict[str, str] = {}
        self.bound = 0.0
        self.stopped: str | None = None

    @property
    def floor(self) -> float:
        """Merit above which a bound must be opened."""
        if self.first and self.best:
            return math.inf
        return max(self.best[0] if self.best else 0.0, self.beat) * (1.0 + self.tolerance)

    def offer(self, merit: float, key: tuple[float, ...], decision: Decision) -> None:
        """Take a feasible deployment if it is better, or equal with a smaller key."""
        if not math.isfinite(merit) or merit <= 0.0:
            return
        if (
            self.best is None
            or merit > self.best[0] * (1 + 1e-12)
            or (merit >= self.best[0] * (1 - 1e-12) and key < self.best[1])
        ):
            self.best = (merit, key, decision)
            self.reporter.incumbent(merit)

    def expired(self) -> bool:
        """Whether to stop early."""
        self.stopped = self.stopped or self.stop.reason()
        return self.stopped is not None

    def late(self) -> bool:
        """Whether the time is up, which is no step of an ``Allowance``."""
        self.stopped = self.stopped or self.stop.late()
        return self.stopped is not None

    def run(self) -> Found:
        """Search until nothing open can beat the incumbent by more than the tolerance, or time is up."""
        from planner.search.sides import Sides

        nodes = self._open_mixed()
        self.sides = Sides(self) if self.space.disaggregated and self.floor < math.inf else None
        if self.sides and self.floor < math.inf:
            nodes += self.sides.nodes()
        heapq.heapify(nodes)
        count = 0
        while nodes:
            node = nodes[0]
            if node.side != "mixed" and self.sides:
                merit = self.sides.potential(node)
                if merit < -node.priority * (1 - 1e-12):
                    heapq.heapreplace(nodes, replace(node, priority=-merit))
                    continue
            if -node.priority <= self.floor or self.expired():
                break
            heapq.heappop(nodes)
            children = self._process(node) if node.side == "mixed" or not self.sides else self.sides.process(node)
            for child in children:
                heapq.heappush(nodes, child)
            count += 1
            if count % 32 == 0:
                gap = (-nodes[0].priority / self.best[0] - 1.0) if nodes and self.best else None
                self.reporter.progress(len(self.tables.placements), len(nodes), gap)
        if nodes:
            self.bound = max(self.bound, -nodes[0].priority)
        if self.sides and not self.first:
            self.bound = max(self.bound, self.sides.final_bound())
        solved = len(self.tables.placements)
        if self.best is None:
            return Found(None, 0.0, self.bound, self.closed, self.stopped, solved)
        merit, _, decision = self.best
        return Found(decision, merit, max(self.bound, merit), self.closed, self.stopped, solved)

    @property
    def _depends(self) -> bool:
        """Whether what a placement of an aggregated pool must keep depends on the rate: its period, or its prefix cache."""
        return self.charge.ttft_s is not None or self.context.pools["mixed"].prefix is not None

    # -- aggregated, everything in device memory -----------------------------------------------------------------------
    def _key(self, units: int, pool: PoolDecision, ttft: float) -> tuple[float, ...]:
        first = float(f"{ttft:.9g}") if self.objective == "latency" else 0.0
        return (first, units, pool.pp, pool.tp, pool.ep, pool.dp, pool.cp, pool.chunk, pool.batch)

    def _candidates(self, number: int, row: np.ndarray, batch: np.ndarray) -> None:
        """Evaluate rows at batches that fit; offer the best."""
        group = self.tables.mixed[number]
        served = group.serve(row, batch)
        size = group.shapes.take(row).devices
        merit, units, replicas = mixed_merit(
            self.context, self.space, self.charge, served.tpot_s, served.requests_per_s, size, served.concurrency
        )
        merit = np.where(meets(self.charge, served.tpot_s, served.ttft_s), merit, 0.0)
        if not len(merit) or merit.max() <= 0.0:
            return
        for index in np.flatnonzero(merit >= merit.max() * (1 - 1e-12)):
            decision = replace(mixed_decision(group, int(row[index]), int(batch[index])), replicas=int(replicas[index]))
            if group.pool.prefix is not None:
                each = float(served.requests_per_s[index] / group.shapes.dp[int(row[index])])
                decision = replace(decision, prefix_rate=round12(each))
            key = self._key(int(units[index]), decision, float(served.ttft_s[index]))
            self.offer(float(merit[index]), key, Decision((decision,), (int(units[index]),), self.context.variant))

    def _open_mixed(self) -> list[Node]:
        found = []
        for number, group in enumerate(self.tables.mixed):
            cells = group.cells
            if not len(cells.row):
                continue
            merit, rate, tpot = mixed_cell_merit(self.context, self.space, self.charge, group)
            index = np.flatnonzero(cells.fits & (merit > 0.0))
            if len(index):
                self._candidates(number, cells.row[index], cells.low[index])
                self._candidates(number, cells.row[index], cells.high[index])
            found.append((number, cells, merit, rate, tpot))
        nodes: list[Node] = []
        pending: list[tuple[float, int, int, int, int]] = []
        for number, cells, merit, rate, tpot in found:
            for i in np.flatnonzero(merit > self.floor):
                row, low, high = int(cells.row[i]), int(cells.low[i]), int(cells.high[i])
                if cells.fits[i]:
                    pending.append((-float(merit[i]), number, row, low, high))
                    continue
                key = (0, number, row, low)
                nodes.append(Node(-float(merit[i]), key, "mixed", number, row, low, high, float(rate[i]), float(tpot[i])))
            self.bound = max(self.bound, float(np.max(merit[merit <= self.floor], initial=0.0)))
        self._open_cells(sorted(pending))
        return nodes

    def _open_cells(self, pending: list[tuple[float, int, int, int, int]]) -> None:
        """Open fitting cells, best bound first; what stays closed counts in the bound."""
        position = 0
        while position < len(pending) and -pending[position][0] > self.floor and not self.expired():
            block: dict[int, list[tuple[int, int, int]]] = {}
            batches = 0
            while position < len(pending) and batches < BLOCK and -pending[position][0] > self.floor:
                _, number, row, low, high = pending[position]
                block.setdefault(number, []).append((row, low, high))
                batches += high - low + 1
                position += 1
            for number, runs in block.items():
                rows = np.concatenate([np.full(high - low + 1, row) for row, low, high in runs])
                self._candidates(number, rows, np.concatenate([np.arange(low, high + 1, dtype=float) for _, low, high in runs]))
        if position < len(pending):
            self.bound = max(self.bound, -pending[position][0])

    # -- aggregated, other memories ------------------------------------------------------------------------------------
    def _process(self, node: Node) -> list[Node]:
        """Bound the cell by a placement at its lowest batch, try its highest, and split what is still open.

        Where TTFT is limited, only what beats the incumbent is bounded: its queue, at that rate, leaves less time to a period.
        """
        group, low, high = self.tables.mixed[node.group], node.low, node.high
        decision = mixed_decision(group, node.row, low)
        rate, guess = 0.0, math.inf
        if self._depends:
            merit = max(self.best[0] if self.best else 0.0, self.beat)
            rate = rate_of_merit(self.context, self.space, self.charge, group, node.row, low, merit)
            guess = at_rate(self.context.pools["mixed"], decision, rate) if rate else math.inf
        placed = self._place(node, low, guess, weigh_batch(self.charge, low, high))
        merit, _, tpot = self._merit(node, Shown(placed.bound_s, rate), placed)
        merit = min(merit, -node.priority) if placed.seconds is not None or rate else 0.0
        sort = ("J" if placed.seconds is None else "W") + repr(rate) if rate else "I" if placed.seconds is None else "B"
        proof = f"{sort}:{placed.basis}" if placed.bound_s > 0.0 or not rate else ""
        if merit > self.floor:
            if low == high:
                merit, proof = self._least_tpot(node, merit, proof)
            else:
                self._offer_at(node, high)
        if proof:
            self._close(node, proof)
        if low == high or merit <= self.floor:
            self.bound = max(self.bound, merit)
            return []
        middle = (low + high) // 2
        children = []
        for first, last in ((low, middle), (middle + 1, high)):
            key = (0, node.group, node.row, first)
            children.append(Node(-merit, key, "mixed", node.group, node.row, first, last, node.rate, tpot))
        return children

    def _offer_at(self, node: Node, batch: int) -> None:
        """Offer the placement of least TPOT at a batch or, where its TTFT is too long, one with a period that TPOT allows."""
        placed = self._place(node, batch, math.inf)
        if not self._offer(node, batch, placed) and placed.seconds is not None and self._depends:
            self._offer(node, batch, self._place(node, batch, placed.value_s))

    def _least_tpot(self, node: Node, merit: float, proof: str) -> tuple[float, str]:
        """Open a single batch: offers its best placement; returns the bound on its merit and the proof of it."""
        placed = self._place(node, node.low, math.inf)
        if placed.seconds is None:
            return 0.0, f"I:{placed.basis}"
        bound = self._merit(node, Shown(placed.bound_s), placed)[0]
        if bound < merit:
            merit, proof = bound, f"B:{placed.basis}"
        if not self._offer(node, node.low, placed) and merit > self.floor:
            bound, stronger = self._within_ttft(node, placed)
            if stronger and bound < merit:
                merit, proof = bound, stronger
        return merit, proof

    def _within_ttft(self, node: Node, unlimited: Placed) -> tuple[float, str]:
        """Best placement of one batch whose TTFT meets its limit: offers it; returns a bound on the node's merit and its proof.

        Let V(tau) be the least TPOT with P + D <= tau, and tau(v) the longest period allowed at TPOT v: V falls with tau, tau
        grows with v. If V(tau(v)) > v, no placement within the limits reaches TPOT v, and the one behind V(tau(v)) meets the
        TTFT limit, since its own TPOT is longer than v. Bisection closes in on the least TPOT from both sides. Likewise a prefix
        cache: that for TPOT v is the smaller, the longer v, and one placed for v serves at v, its steps spaced.
        """
        below, above, proof = unlimited.bound_s, math.inf, ""
        group, at = self.tables.mixed[node.group], np.array([node.row])
        most = prefix_most(group.pool, Candidates(group.shapes.take(at), np.array([float(node.low)]), group.chunk[at]))
        if most is not None:  # no more is served, as cell bounds know
            with np.errstate(divide="ignore"):
                below = max(below, float((node.low * group.shapes.pp / (self.charge.rounds * most))[0]))
            if math.isinf(below):
                return 0.0, ""
        probe = below
        merit = self._merit(node, Shown(below), unlimited)[0]
        for _ in range(40):
            placed = self._place(node, node.low, probe)
            if placed.bound_s > probe:
                below = probe
                proof = f"{'I' if placed.seconds is None else 'V'}{probe!r}:{placed.basis}"
                if placed.seconds is not None and self._offer(node, node.low, placed):
                    above = min(above, placed.value_s)
            else:
                above = min(above, probe)
                if most is not None:
                    self._offer(node, node.low, placed)
            merit = self._merit(node, Shown(below), unlimited)[0]
            if merit <= self.floor or above <= below * (1.0 + self.tolerance / 2.0) or self.expired():
                break
            probe = math.sqrt(below * above) if math.isfinite(above) else max(below, probe) * 1.05
        return merit, proof

    def _place(self, node: Node, batch: int, tpot_s: float, weigh: int | None = None) -> Placed:
        decision = mixed_decision(self.tables.mixed[node.group], node.row, batch)
        return self.tables.place(self.context.pools["mixed"], decision, tpot_s, weigh)

    def _merit(self, node: Node, shown: Shown, placed: Placed) -> tuple[float, float, float]:
        group, low, high = self.tables.mixed[node.group], node.low, node.high
        weigh = weigh_batch(self.charge, low, high)
        merit, rate, tpot = placed_merit(
            self.context,
            self.space,
            self.charge,
            group,
            node.row,
            low,
            high,
            weigh,
            shown,
            np.array([placed.resident_s["decode"]]),
        )
        return merit, min(rate, node.rate), tpot

    def _offer(self, node: Node, batch: int, placed: Placed) -> bool:
        """Offer a placed candidate; whether it meets every limit."""
        if placed.seconds is None:
            return False
        group = self.tables.mixed[node.group]
        pool = self.context.pools["mixed"]
        at = np.array([node.row])
        shapes, seconds = group.shapes.take(at), placed.seconds
        served = mixed_serving(
            np.array([seconds["decode"]]),
            np.array([seconds["prefill"]]),
            np.array([float(batch)]),
            group.chunk[at],
            shapes,
            pool.inputs.workload,
            pool.accept,
            None if placed.decision.prefix_rate is None else np.array([placed.decision.prefix_rate]),
        )
        merit, units, replicas = mixed_merit(
            self.context, self.space, self.charge, served.tpot_s, served.requests_per_s, shapes.devices, served.concurrency
        )
        if not meets(self.charge, served.tpot_s, served.ttft_s)[0] or merit[0] <= 0.0:
            return False
        decision = replace(placed.decision, replicas=int(replicas[0]))
        key = self._key(int(units[0]), decision, float(served.ttft_s[0]))
        self.offer(float(merit[0]), key, Decision((decision,), (int(units[0]),), self.context.variant))
        return True

    def _close(self, node: Node, proof: str) -> None:
        decision = mixed_decision(self.tables.mixed[node.group], node.row, node.low)
        self.closed[node_name(self.context.variant, decision, node.low, node.high)] = proof


NOTHING = Found(None, 0.0, 0.0, {}, None, 0)


def search_all(
    every: list[Tables], objective: str, tpot_s: float | None, reporter: Reporter, stop: Stop, start: Found = NOTHING
) -> Found:
    """The best of ``start`` and all variants, each searched only for what beats the best before; ties go to the earlier."""
    best = start
    for tables in every:
        gap = tables.context.inputs.options.gap
        found = Search(tables, objective, tpot_s, gap, reporter, stop, best.merit).run()
        better = found if found.decision is not None and found.merit > best.merit * (1 + 1e-12) else best
        best = Found(
            better.decision,
            better.merit,
            max(best.bound, found.bound),
            best.closed | found.closed,
            best.stopped or found.stopped,
            best.solved + found.solved,
        )
    return best
