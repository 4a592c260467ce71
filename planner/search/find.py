"""Best-first search over the declared space, with a bound on everything it did not open.

Candidates whose items all fit in device memory are evaluated exactly, in columns; a cell of batches is opened only if
its bound beats the incumbent by more than a quarter of the gap asked for. Candidates that need other memories carry a bound (``overflow_seconds``), then
the optimum of their tier problem. What remains closed by bound gives the certificate.

The search works on a merit to be maximised: requests per second per unit of what the objective charges (USD per hour, or
devices), or the reciprocal of the time per output token. Ties are broken by ``PoolKey``: fewer units, then smaller
pipeline, tensor and expert groups, then the smaller batch.
"""

from __future__ import annotations

import heapq
import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from planner.performance.serving import largest_period, prefill_queue, queue_wait
from planner.plans.evaluate import decode_seconds, prefill_seconds
from planner.plans.inputs import Context, PoolContext
from planner.plans.lp import encode_basis
from planner.plans.operate import Decision, PoolDecision, busy_limit, checks, operate, pool_problem
from planner.plans.space import Space
from planner.plans.tiers import evaluate_shares
from planner.quantities import round12
from planner.reporter import Reporter
from planner.plans.candidates import (
    Cells,
    DecodeGroup,
    MixedGroup,
    PrefillRows,
    cell_bounds,
    decode_groups,
    handoff_columns,
    mixed_groups,
    prefill_rows,
)
from planner.search.tier_lp import solve_tiers

BLOCK = 40_000
"""Rows evaluated at once."""


class Stop:
    """When a search should end early: past a deadline (``time.monotonic`` seconds) or when ``interrupted`` is set."""

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.interrupted = False

    def reason(self) -> str | None:
        """Why to stop, or ``None``."""
        if self.interrupted:
            return "interrupted"
        if self.deadline is not None and time.monotonic() > self.deadline:
            return "time limit"
        return None


@dataclass
class Tables:
    """Candidates of every pool, computed once and shared by all objectives."""

    context: Context
    space: Space
    mixed: list[MixedGroup] = field(default_factory=list)
    prefill: list[PrefillRows] = field(default_factory=list)
    decode: list[DecodeGroup] = field(default_factory=list)
    placements: dict[tuple[object, ...], PlacedSeconds | None] = field(default_factory=dict)
    solved: int = 0


@dataclass(frozen=True)
class PlacedSeconds:
    """A solved tier problem: seconds per phase at its optimum, the bound on its objective (ms) and its basis."""

    seconds: dict[str, float]
    bound_ms: float
    value_ms: float
    basis: str
    period_s: float | None


@dataclass(frozen=True)
class Found:
    """The best decision (``None`` if none), its merit, the least upper bound on merit over the space, and the nodes closed
    by a placement rather than by L0: key -> basis."""

    decision: Decision | None
    merit: float
    bound: float
    closed: dict[str, str]
    stopped: str | None
    solved: int


def build_tables(context: Context, space: Space) -> Tables:
    """Evaluate every pool's candidates with everything in device memory."""
    tables = Tables(context, space)
    if space.aggregated:
        tables.mixed = mixed_groups(context.pools["mixed"], space.pools["mixed"])
    if space.disaggregated:
        decode_space = space.pools.get("decode") or space.pools["mixed"]
        prefill_space = space.pools.get("prefill") or space.pools["mixed"]
        tables.decode = decode_groups(context.pool("decode"), decode_space, handoff_columns(context, decode_space))
        tables.prefill = prefill_rows(context.pool("prefill"), prefill_space)
    return tables


def place(tables: Tables, pool: PoolContext, decision: PoolDecision) -> PlacedSeconds | None:
    """The optimal placement of a configuration, solved once."""
    key = (id(pool), replace(decision, replicas=1, basis=None))
    if key not in tables.placements:
        tables.solved += 1
        problem, _ = pool_problem(pool, replace(decision, basis="needed"))
        solution = solve_tiers(problem)
        if solution is None:
            tables.placements[key] = None
        else:
            shares = solution.point.values[: len(problem.choices)]
            times = evaluate_shares(problem, shares)
            seconds = {phase: value * pool.rates.residual for phase, value in times.phase_s.items()}
            value = sum(problem.weights[phase] * times.phase_s[phase] * 1e3 for phase in problem.phases)
            tables.placements[key] = PlacedSeconds(
                seconds,
                solution.bound * pool.rates.residual,
                value * pool.rates.residual,
                encode_basis(solution.basis),
                decision.period_s,
            )
    return tables.placements[key]


@dataclass(order=True)
class _Node:
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

    def __init__(self, tables: Tables, objective: str, tpot_s: float | None, gap: float, reporter: Reporter, stop: Stop) -> None:  # fmt: skip
        self.tables, self.context, self.space = tables, tables.context, tables.space
        self.objective, self.tpot_limit = objective, tpot_s
        self.ttft_limit = self.context.inputs.workload.ttft_s
        self.cap = self.context.inputs.options.concurrency
        self.rounds = self.context.inputs.workload.output_tokens.mean - 1.0
        self.tolerance = gap / 4.0
        self.reporter, self.stop = reporter, stop
        self.best: tuple[float, tuple[float, ...], Decision] | None = None
        self.closed: dict[str, str] = {}
        self.bound = 0.0
        self.stopped: str | None = None
        self.unit_weights = {
            phase: (pool.usd_per_unit_hour if objective == "cost" else float(pool.unit_devices))
            for phase, pool in self.context.pools.items()
        }

    # -- merit ---------------------------------------------------------------------------------------------------------
    @property
    def floor(self) -> float:
        """Merit above which a bound must be opened."""
        return self.best[0] * (1.0 + self.tolerance) if self.best else 0.0

    def _offer(self, merit: float, key: tuple[float, ...], decision: Decision) -> None:
        if not math.isfinite(merit) or merit <= 0.0:
            return
        if self.best is None or merit > self.best[0] * (1 + 1e-12) or (merit >= self.best[0] * (1 - 1e-12) and key < self.best[1]):
            self.best = (merit, key, decision)
            self.reporter.incumbent(merit)

    def _expired(self) -> bool:
        self.stopped = self.stopped or self.stop.reason()
        return self.stopped is not None

    # -- aggregated ----------------------------------------------------------------------------------------------------
    def _packing(self, instance: np.ndarray, concurrency: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Best ``(replicas per weighted unit, units, replicas)`` for instances of these sizes under the caps."""
        space, pool = self.space.pools["mixed"], self.context.pools["mixed"]
        best = np.zeros_like(instance)
        units_best = np.ones_like(instance)
        replicas_best = np.zeros_like(instance)
        for units in range(1, space.units + 1):
            devices = min(units * pool.unit_devices, space.devices)
            replicas = np.floor(devices / instance)
            if self.cap is not None:
                replicas = np.minimum(replicas, np.floor(self.cap * (1 + 1e-12) / concurrency))
            value = replicas / (units * self.unit_weights["mixed"])
            better = value > best * (1 + 1e-12)
            best = np.where(better, value, best)
            units_best = np.where(better, units, units_best)
            replicas_best = np.where(better, replicas, replicas_best)
        return best, units_best, replicas_best

    def _mixed_merit(self, tpot: np.ndarray, rate: np.ndarray, instance: np.ndarray, concurrency: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
        packed, units, replicas = self._packing(instance, concurrency)
        merit = np.where(packed > 0.0, 1.0 / tpot if self.objective == "latency" else rate * packed, 0.0)
        return merit, units, replicas

    def _mixed_candidates(self, number: int, row: np.ndarray, batch: np.ndarray) -> None:
        """Evaluate rows at batches that fit; offer the best."""
        group = self.tables.mixed[number]
        served = group.serve(row, batch)
        shapes = group.shapes.take(row)
        merit, units, replicas = self._mixed_merit(served.tpot_s, served.requests_per_s, shapes.devices, served.concurrency)
        merit = np.where(self._meets(served.tpot_s, served.ttft_s), merit, 0.0)
        self._offer_rows(number, row, batch, merit, units, replicas, served.ttft_s)

    def _meets(self, tpot: np.ndarray, ttft: np.ndarray) -> np.ndarray:
        good = np.isfinite(ttft)
        if self.tpot_limit is not None:
            good &= tpot <= self.tpot_limit * (1 + 1e-12)
        if self.ttft_limit is not None:
            good &= ttft <= self.ttft_limit * (1 + 1e-12)
        return good

    def _offer_rows(self, number: int, row: np.ndarray, batch: np.ndarray, merit: np.ndarray, units: np.ndarray, replicas: np.ndarray, ttft: np.ndarray) -> None:  # fmt: skip
        if not len(merit) or merit.max() <= 0.0:
            return
        group = self.tables.mixed[number]
        for index in np.flatnonzero(merit >= merit.max() * (1 - 1e-12)):
            at = int(row[index])
            decision = PoolDecision(
                "mixed", int(replicas[index]), int(group.shapes.tp[at]), int(group.shapes.dp[at]), int(group.shapes.ep[at]),
                group.shapes.pp, int(batch[index]), int(group.chunk[at]),
            )  # fmt: skip
            key = self._key(int(units[index]), decision, float(ttft[index]))
            self._offer(float(merit[index]), key, Decision((decision,), (int(units[index]),)))

    def _key(self, units: int, pool: PoolDecision, ttft: float) -> tuple[float, ...]:
        first = float(f"{ttft:.9g}") if self.objective == "latency" else 0.0
        return (first, units, pool.pp, pool.tp, pool.ep, pool.dp, pool.chunk, pool.batch)

    def _open_mixed(self) -> list[_Node]:
        nodes: list[_Node] = []
        pending: list[tuple[float, int, Cells]] = []
        for number, group in enumerate(self.tables.mixed):
            cells = group.cells
            if not len(cells.row):
                continue
            tpot, ttft, rate, running = group.bounds(cells)
            instance = group.shapes.take(cells.row).devices
            merit, _, _ = self._mixed_merit(tpot, rate, instance, running)
            merit = np.where(self._meets(tpot, ttft), merit, 0.0)
            fits = cells.fits & (merit > 0.0)
            index = np.flatnonzero(fits)
            if len(index):
                self._mixed_candidates(number, cells.row[index], cells.low[index])
                self._mixed_candidates(number, cells.row[index], cells.high[index])
                order = index[np.argsort(-merit[index], kind="stable")]
                pending += [(float(merit[i]), number, cells.take(np.array([i]))) for i in order]
            for i in np.flatnonzero(~cells.fits & (merit > 0.0)):
                key = (0, number, int(cells.row[i]), int(cells.low[i]))
                nodes.append(
                    _Node(-float(merit[i]), key, "mixed", number, int(cells.row[i]), int(cells.low[i]), int(cells.high[i]), float(rate[i]), float(tpot[i]))
                )  # fmt: skip
        self._open_cells(pending)
        return nodes

    def _open_cells(self, pending: list[tuple[float, int, Cells]]) -> None:
        """Open fitting cells, best bound first, in blocks; what stays closed counts in the bound."""
        pending.sort(key=lambda entry: (-entry[0], entry[1], int(entry[2].row[0]), int(entry[2].low[0])))
        position = 0
        while position < len(pending):
            if pending[position][0] <= self.floor or self._expired():
                break
            block: dict[int, list[tuple[int, int, int]]] = {}
            rows = 0
            while position < len(pending) and rows < BLOCK and pending[position][0] > self.floor:
                _, number, cell = pending[position]
                low, high = int(cell.low[0]), int(cell.high[0])
                block.setdefault(number, []).append((int(cell.row[0]), low, high))
                rows += high - low + 1
                position += 1
                if rows > 500:
                    break
            for number, runs in block.items():
                row = np.concatenate([np.full(high - low + 1, r) for r, low, high in runs])
                batch = np.concatenate([np.arange(low, high + 1, dtype=float) for _, low, high in runs])
                self._mixed_candidates(number, row, batch)
        if position < len(pending):
            self.bound = max(self.bound, pending[position][0])

    # -- disaggregated -------------------------------------------------------------------------------------------------
    def _open_disaggregated(self) -> list[_Node]:
        if not self.space.disaggregated:
            return []
        self.sides = _Sides(self)
        return self.sides.nodes()

    # -- the loop ------------------------------------------------------------------------------------------------------
    def run(self) -> Found:
        """Search until nothing open can beat the incumbent by more than the tolerance, or time is up."""
        nodes = self._open_mixed()
        nodes += self._open_disaggregated()
        heapq.heapify(nodes)
        count = 0
        while nodes:
            node = nodes[0]
            if node.side != "mixed":
                merit = self.sides.potential(node)
                if merit < -node.priority * (1 - 1e-12):
                    heapq.heapreplace(nodes, replace(node, priority=-merit))
                    continue
            if -node.priority <= self.floor or self._expired():
                break
            heapq.heappop(nodes)
            for child in self._process(node):
                heapq.heappush(nodes, child)
            count += 1
            if count % 32 == 0:
                gap = (-nodes[0].priority / self.best[0] - 1.0) if nodes and self.best else None
                self.reporter.progress(self.tables.solved, len(nodes), gap)
        if nodes:
            self.bound = max(self.bound, -nodes[0].priority)
        if self.space.disaggregated:
            self.bound = max(self.bound, self.sides.final_bound())
        if self.best is None:
            return Found(None, 0.0, self.bound, self.closed, self.stopped, self.tables.solved)
        merit, _, decision = self.best
        return Found(decision, merit, max(self.bound, merit), self.closed, self.stopped, self.tables.solved)

    def _process(self, node: _Node) -> list[_Node]:
        """Solve the placement at the cell's lowest batch, try its highest, and split what is still open."""
        if node.side != "mixed":
            return self.sides.process(node)
        low = self._solve(node, node.low, math.inf)
        if low is None:
            return []
        bounds = self._placed_bounds(node, low.bound_ms / 1e3)
        if bounds is None:
            return []
        merit, rate, tpot = bounds
        merit = min(merit, -node.priority)
        if node.low == node.high:
            if merit > self.floor and not self._offer_placed(node, node.low, low):
                merit = min(merit, self._within_ttft(node, low))
            self._close(node, low)
            self.bound = max(self.bound, merit)
            return []
        high = self._solve(node, node.high, math.inf)
        if high is not None:
            self._offer_placed(node, node.high, high)
        self._offer_placed(node, node.low, low)
        if merit <= self.floor:
            self._close(node, low)
            self.bound = max(self.bound, merit)
            return []
        middle = (node.low + node.high) // 2
        children = []
        for first, last in ((node.low, middle), (middle + 1, node.high)):
            key = (0, node.group, node.row, first)
            children.append(_Node(-merit, key, "mixed", node.group, node.row, first, last, rate, tpot))
        return children

    def _within_ttft(self, node: _Node, unlimited: PlacedSeconds) -> float:
        """Best placement of one batch whose TTFT meets its limit; offers it and returns a bound on the node's merit.

        Let V(tau) be the least TPOT with P + D <= tau, and tau(v) the longest period allowed at TPOT v: V falls with tau, tau
        grows with v. If V(tau(v)) > v, no placement reaches TPOT v, and the one behind V(tau(v)) meets the limit, since its own
        TPOT is longer than v. Bisection closes in on the least TPOT from both sides.
        """
        below, above = unlimited.bound_ms / 1e3, math.inf
        useless = self._placed_bounds(node, below)
        merit = useless[0] if useless else 0.0
        for _ in range(40):
            guess = below if not math.isfinite(above) else math.sqrt(below * above)
            placed = self._solve(node, node.low, guess)
            if placed is None:
                below = guess if math.isfinite(above) else guess * 2.0
            elif placed.bound_ms / 1e3 > guess:
                below = guess
                if self._offer_placed(node, node.low, placed):
                    above = min(above, placed.value_ms / 1e3)
                else:
                    below = guess * 1.02
            else:
                above = guess
            bounds = self._placed_bounds(node, below)
            if bounds is None:
                return 0.0
            merit = bounds[0]
            if merit <= self.floor or above <= below * (1.0 + self.tolerance / 2.0):
                break
        return merit

    def _close(self, node: _Node, placed: PlacedSeconds) -> None:
        decision = self._decision(node, node.low)
        name = f"{node.side} tp{decision.tp} dp{decision.dp} ep{decision.ep} pp{decision.pp} chunk{decision.chunk} batch{node.low}-{node.high}"
        self.closed[name] = placed.basis

    def _decision(self, node: _Node, batch: int) -> PoolDecision:
        group = self.tables.mixed[node.group]
        at = node.row
        return PoolDecision(
            "mixed", 1, int(group.shapes.tp[at]), int(group.shapes.dp[at]), int(group.shapes.ep[at]), group.shapes.pp, batch, int(group.chunk[at])
        )  # fmt: skip

    def _solve(self, node: _Node, batch: int, tpot_s: float) -> PlacedSeconds | None:
        """The best placement whose period the TTFT limit allows at TPOT ``tpot_s``."""
        decision = self._decision(node, batch)
        if self.ttft_limit is not None:
            workload = self.context.inputs.workload
            period = largest_period(self.ttft_limit, tpot_s, batch, decision.chunk, decision.dp, decision.pp, workload)
            decision = replace(decision, period_s=round12(period))
        return place(self.tables, self.context.pools["mixed"], decision)

    def _placed_bounds(self, node: _Node, tpot: float) -> tuple[float, float, float] | None:
        """``(merit, rate, tpot)`` bounds over the node's cell if no placement at its lowest batch has a shorter TPOT; ``None`` if closed.

        The optimum V of the tier problem is the least TPOT at its batch and grows with the batch, so over the cell
        ``tpot >= V(low)`` and ``X = B / ((n-1) tpot) <= B_high / ((n-1) V(low))``; the bounds without placement hold too.
        """
        group = self.tables.mixed[node.group]
        pool = self.context.pools["mixed"]
        row = np.array([node.row])
        shapes, chunk = group.shapes.take(row), group.chunk[row]
        low, high = np.array([float(node.low)]), np.array([float(node.high)])
        running_high = float((high * shapes.dp * shapes.pp)[0])
        rate = running_high / (self.rounds * tpot) * (1 + 1e-9)
        floor_d = decode_seconds(pool, shapes, low)
        floor_p = group.prefill_s[row]
        least_tpot, ttft, loose, running = cell_bounds(pool, shapes, chunk, floor_d, floor_p, low, high)
        rate = min(rate, float(loose[0]), node.rate)
        tpot = max(tpot, float(least_tpot[0]))
        if not self._meets(np.array([tpot]), ttft)[0]:
            return None
        merit, _, _ = self._mixed_merit(np.array([tpot]), np.array([rate]), shapes.devices, running)
        return float(merit[0]), rate, tpot

    def _offer_placed(self, node: _Node, batch: int, placed: PlacedSeconds) -> bool:
        """Offer a placed candidate; whether it meets every limit."""
        from planner.performance import mixed_serving

        group = self.tables.mixed[node.group]
        pool = self.context.pools["mixed"]
        row = np.array([node.row])
        shapes, chunk = group.shapes.take(row), group.chunk[row]
        served = mixed_serving(
            np.array([placed.seconds["decode"]]), np.array([placed.seconds["prefill"]]), np.array([float(batch)]), chunk, shapes,
            pool.inputs.workload, pool.accept,
        )  # fmt: skip
        merit, units, replicas = self._mixed_merit(served.tpot_s, served.requests_per_s, shapes.devices, served.concurrency)
        if not self._meets(served.tpot_s, served.ttft_s)[0] or merit[0] <= 0.0:
            return False
        decision = replace(self._decision(node, batch), replicas=int(replicas[0]), basis=placed.basis, period_s=placed.period_s)
        key = self._key(int(units[0]), decision, float(served.ttft_s[0]))
        self._offer(float(merit[0]), key, Decision((decision,), (int(units[0]),)))
        return True


@dataclass
class _Exact:
    """An exactly known side candidate: instance size, requests/s per instance, its latency and its configuration."""

    size: np.ndarray
    rate: np.ndarray
    latency: np.ndarray
    config: list[PoolDecision]


class _Sides:
    """The two sides of disaggregated serving: what each instance size can do at best, known or bounded.

    For a split the deployment serves ``min`` of what its prefill devices and its decode devices can: each side's best is
    independent of the other's, so a split needs only the best rate per instance size.
    """

    def __init__(self, search: Search) -> None:
        self.search, self.context, self.tables = search, search.context, search.tables
        splits = np.array(search.space.splits, dtype=float).reshape(-1, 4)
        self.prefill_devices, self.decode_devices = splits[:, 0], splits[:, 1]
        self.splits = search.space.splits
        if self.context.separate:
            self.weight = splits[:, 2] * search.unit_weights["prefill"] + splits[:, 3] * search.unit_weights["decode"]
        else:
            self.weight = splits[:, 2] * search.unit_weights["mixed"]
        self.prefill: list[tuple[int, float, float, PoolDecision]] = []
        self.decode: list[tuple[int, float, float, PoolDecision]] = []
        self.upper: dict[str, dict[int, float]] = {"prefill": {}, "decode": {}}
        self.open: dict[str, list[_Node]] = {"prefill": [], "decode": []}
        self._prefill_side()
        self._decode_side()
        self._offer_best()

    def _prefill_side(self) -> None:
        search = self.search
        for number, group in enumerate(self.tables.prefill):
            every = np.arange(len(group.chunk))
            rate, through = group.serve(every, group.seconds)
            sizes = group.shapes.devices
            for size in np.unique(sizes):
                members = np.flatnonzero((sizes == size) & group.fits & (rate > 0.0))
                if not len(members):
                    continue
                top = rate[members].max()
                keep = members[rate[members] >= top * (1 - 1e-12)] if search.objective != "latency" else members
                for i in keep:
                    self.prefill.append((int(size), float(rate[i]), float(through[i]), self._prefill_decision(group, int(i))))
            if group.pool.tiers:
                bound, _ = group.serve(every, group.least_seconds)
                for i in np.flatnonzero(~group.fits & (bound > 0.0)):
                    key = (1, number, int(i), 0)
                    self.open["prefill"].append(_Node(0.0, key, "prefill", number, int(i), 0, 0, float(bound[i]), 0.0))

    def _prefill_decision(self, group: PrefillRows, i: int) -> PoolDecision:
        s = group.shapes
        return PoolDecision("prefill", 1, int(s.tp[i]), int(s.dp[i]), int(s.ep[i]), s.pp, 0, int(group.chunk[i]))

    def _decode_decision(self, group: DecodeGroup, i: int, batch: int) -> PoolDecision:
        s = group.shapes
        return PoolDecision("decode", 1, int(s.tp[i]), int(s.dp[i]), int(s.ep[i]), s.pp, batch, 0)

    def _decode_side(self) -> None:
        search = self.search
        best: dict[int, float] = {}
        opened: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        bounds = []
        for number, group in enumerate(self.tables.decode):
            cells = group.cells
            rate, tpot = group.bounds(cells) if len(cells.row) else (np.zeros(0), np.zeros(0))
            meets = tpot <= (search.tpot_limit or np.inf) * (1 + 1e-12)
            bounds.append((rate, tpot, meets))
            inside = np.flatnonzero(cells.fits & meets)
            for batch in (cells.low[inside], cells.high[inside]):
                self._decode_rows(number, cells.row[inside], batch, best, opened)
            if group.pool.tiers:
                for i in np.flatnonzero(~cells.fits & meets):
                    key = (2, number, int(cells.row[i]), int(cells.low[i]))
                    node = _Node(0.0, key, "decode", number, int(cells.row[i]), int(cells.low[i]), int(cells.high[i]), float(rate[i]), float(tpot[i]))  # fmt: skip
                    self.open["decode"].append(node)
        for number, group in enumerate(self.tables.decode):
            rate, _, meets = bounds[number]
            sizes = group.shapes.devices[group.cells.row] if len(group.cells.row) else np.zeros(0)
            inside = np.flatnonzero(group.cells.fits & meets)
            if search.objective == "latency":
                continue
            order = inside[np.argsort(-rate[inside], kind="stable")]
            for i in order:
                size = int(sizes[i])
                if rate[i] <= best.get(size, 0.0) * (1 + search.tolerance / 2):
                    top = self.upper["decode"]
                    top[size] = max(top.get(size, 0.0), float(rate[i]))
                    continue
                batch = np.arange(group.cells.low[i], group.cells.high[i] + 1.0)
                self._decode_rows(number, np.full(len(batch), group.cells.row[i]), batch, best, opened)
        for number, row, batch, rate_tpot in opened:
            group = self.tables.decode[number]
            for at, size_batch, (rate_i, tpot_i) in zip(row, batch, rate_tpot, strict=True):
                size = int(group.shapes.devices[at])
                if search.objective == "latency" or rate_i >= best[size] * (1 - 1e-12) or search.cap is not None:
                    self.decode.append((size, float(rate_i), float(tpot_i), self._decode_decision(group, int(at), int(size_batch))))

    def _decode_rows(self, number: int, row: np.ndarray, batch: np.ndarray, best: dict[int, float], opened: list) -> None:  # type: ignore[type-arg]
        if not len(row):
            return
        group, search = self.tables.decode[number], self.search
        rate, tpot = group.serve(row, batch)
        good = np.flatnonzero(tpot <= (search.tpot_limit or np.inf) * (1 + 1e-12))
        if search.cap is not None:
            slots = batch * group.shapes.dp[row] * group.shapes.pp
            good = good[slots[good] <= search.cap]
        if not len(good):
            return
        sizes = group.shapes.devices[row]
        for size in np.unique(sizes[good]):
            top = float(rate[good][sizes[good] == size].max())
            best[int(size)] = max(best.get(int(size), 0.0), top)
        if search.objective != "latency" and search.cap is None:
            keep = [i for i in good if rate[i] >= best[int(sizes[i])] * (1 - 1e-12)]
            good = np.array(keep, dtype=int)
        opened.append((number, row[good], batch[good], np.stack([rate[good], tpot[good]], axis=1)))

    # -- combining -----------------------------------------------------------------------------------------------------
    def _best_by_devices(self, table: dict[int, float], devices: np.ndarray) -> np.ndarray:
        result = np.zeros_like(devices)
        for size, rate in table.items():
            result = np.maximum(result, np.floor(devices / size) * rate)
        return result

    def _known(self, side: str) -> dict[int, float]:
        table: dict[int, float] = {}
        for size, rate, _, _ in getattr(self, side):
            table[size] = max(table.get(size, 0.0), rate)
        return table

    def _upper(self, side: str) -> dict[int, float]:
        table = self._known(side)
        for size, rate in self.upper[side].items():
            table[size] = max(table.get(size, 0.0), rate)
        for node in self.open[side]:
            group = self.tables.prefill[node.group] if side == "prefill" else self.tables.decode[node.group]
            size = int(group.shapes.devices[node.row])
            table[size] = max(table.get(size, 0.0), node.rate)
        return table

    def _offer_best(self) -> None:
        """Offer the best deployment of exactly known candidates."""
        search = self.search
        if not self.prefill or not self.decode:
            return
        if search.objective == "latency":
            self._offer_latency()
            return
        if search.cap is not None:
            self._offer_capped()
            return
        rate = np.minimum(
            self._best_by_devices(self._known("prefill"), self.prefill_devices),
            self._best_by_devices(self._known("decode"), self.decode_devices),
        )
        merit = rate / self.weight
        if merit.max() <= 0.0:
            return
        index = int(np.flatnonzero(merit >= merit.max() * (1 - 1e-12))[0])
        decision = self._choose(index, float(rate[index]))
        search._offer(float(merit[index]), (0.0, float(self.splits[index][2]), 1e9), decision)

    def _choose(self, index: int, rate: float) -> Decision:
        """At a split, the prefill with the shortest way through and the decode with the least TPOT that carry ``rate``."""
        n_prefill, n_decode, first, second = self.splits[index]
        enough = rate * (1 - 1e-12)
        prefill = min(
            (e for e in self.prefill if (n_prefill // e[0]) * e[1] >= enough),
            key=lambda e: (float(f"{e[2]:.9g}"), e[3].pp, e[3].tp, e[3].ep, e[3].dp, e[3].chunk),
        )
        decode = min(
            (e for e in self.decode if (n_decode // e[0]) * e[1] >= enough),
            key=lambda e: (float(f"{e[2]:.9g}"), e[3].pp, e[3].tp, e[3].ep, e[3].dp, e[3].batch),
        )
        pools = (replace(prefill[3], replicas=n_prefill // prefill[0]), replace(decode[3], replicas=n_decode // decode[0]))
        return Decision(pools, (first, second) if self.context.separate else (first,))

    def _offer_latency(self) -> None:
        search = self.search
        sizes = {e[0] for e in self.prefill}
        possible = np.zeros(len(self.splits), dtype=bool)
        for size in sizes:
            possible |= self.prefill_devices >= size
        for e in sorted(self.decode, key=lambda e: (float(f"{e[2]:.12g}"), e[3].pp, e[3].tp, e[3].ep, e[3].dp, e[3].batch))[:64]:
            where = np.flatnonzero(possible & (self.decode_devices >= e[0]))
            if not len(where):
                continue
            index = int(where[0])
            n_prefill, n_decode, first, second = self.splits[index]
            prefill = min(
                (p for p in self.prefill if p[0] <= n_prefill),
                key=lambda p: (float(f"{p[2]:.9g}"), p[3].pp, p[3].tp, p[3].ep, p[3].dp, p[3].chunk),
            )
            pools = (replace(prefill[3], replicas=n_prefill // prefill[0]), replace(e[3], replicas=n_decode // e[0]))
            decision = Decision(pools, (first, second) if self.context.separate else (first,))
            search._offer(1.0 / e[2], (float(f"{prefill[2]:.9g}"), float(first), 1e9), decision)
            return

    def _offer_capped(self) -> None:
        """Under a concurrency cap a decode candidate's own latency limits the rate, so each is tried at each split."""
        search = self.search
        known = self._known("prefill")
        prefill_rate = self._best_by_devices(known, self.prefill_devices)
        longest = max(self._longest(e[3]) for e in self.prefill)
        assert search.cap is not None
        for e in self.decode:
            rate = np.minimum(prefill_rate, np.floor(self.decode_devices / e[0]) * e[1])
            rate = np.minimum(rate, search.cap / (longest + search.rounds * e[2]))
            merit = rate / self.weight
            index = int(np.argmax(merit))
            if merit[index] <= search.floor and search.best:
                continue
            if rate[index] <= 0.0:
                continue
            n_prefill, n_decode, first, second = self.splits[index]
            options = [p for p in self.prefill if (n_prefill // p[0]) * p[1] >= rate[index] * (1 - 1e-12)]
            if not options:
                continue
            prefill = min(options, key=lambda p: (p[2], p[3].pp, p[3].tp, p[3].ep, p[3].dp, p[3].chunk))
            pools = (replace(prefill[3], replicas=n_prefill // prefill[0]), replace(e[3], replicas=n_decode // e[0]))
            decision = Decision(pools, (first, second) if self.context.separate else (first,))
            real = operate(self.context, decision)
            if all(check.holds for check in checks(self.context, real)):
                total = float(self.weight[index])
                search._offer(real.requests_per_s / total, (0.0, float(first), 1e9), decision)

    def _longest(self, decision: PoolDecision) -> float:
        pool = self.context.pool("prefill")
        row = decision.row()
        seconds = prefill_seconds(pool, row.shapes, row.chunk)
        _, service, through = prefill_queue(seconds, row.chunk, row.shapes, pool.inputs.workload)
        busy = busy_limit(pool.inputs.workload.ttft_s, through, service)
        return float(through[0] + queue_wait(busy, service)[0])

    # -- nodes that need other memories --------------------------------------------------------------------------------
    def nodes(self) -> list[_Node]:
        """Open nodes with their potential as priority."""
        found = []
        for side in ("prefill", "decode"):
            kept = []
            for node in self.open[side]:
                node.priority = -self.potential(node)
                if -node.priority > 0.0:
                    found.append(node)
                    kept.append(node)
            self.open[side] = kept
        return found

    def potential(self, node: _Node) -> float:
        """Merit bound of a node: its own rate against the other side's best, at the best split."""
        search = self.search
        if search.objective == "latency":
            return 1.0 / node.tpot if node.side == "decode" else (1.0 / self._least_tpot() if self._least_tpot() else 0.0)
        other = "decode" if node.side == "prefill" else "prefill"
        mine = self.prefill_devices if node.side == "prefill" else self.decode_devices
        theirs = self.decode_devices if node.side == "prefill" else self.prefill_devices
        group = self.tables.prefill[node.group] if node.side == "prefill" else self.tables.decode[node.group]
        own = np.floor(mine / float(group.shapes.devices[node.row])) * node.rate
        rate = np.minimum(own, self._best_by_devices(self._upper_cached(other), theirs))
        return float(np.max(rate / self.weight, initial=0.0))

    def _least_tpot(self) -> float:
        sizes = [e[0] for e in self.prefill]
        sizes += [int(self.tables.prefill[n.group].shapes.devices[n.row]) for n in self.open["prefill"]]
        room = self.decode_devices[self.prefill_devices >= min(sizes, default=math.inf)]
        largest = float(np.max(room, initial=0.0))
        options = [e[2] for e in self.decode if e[0] <= largest]
        options += [n.tpot for n in self.open["decode"] if self.tables.decode[n.group].shapes.devices[n.row] <= largest]
        return min(options, default=0.0)

    def _upper_cached(self, side: str) -> dict[int, float]:
        if not hasattr(self, "_cache"):
            self._cache: dict[str, dict[int, float]] = {}
        if side not in self._cache:
            self._cache[side] = self._upper(side)
        return self._cache[side]

    def process(self, node: _Node) -> list[_Node]:
        """Solve the placement of a side's node, add what is known, split what is not."""
        search, side = self.search, node.side
        self.open[side] = [n for n in self.open[side] if n is not node and n.key != node.key]
        self._cache = {}
        pool = self.context.pool(side)
        if side == "prefill":
            group = self.tables.prefill[node.group]
            decision = self._prefill_decision(group, node.row)
            placed = place(self.tables, pool, decision)
            if placed is not None:
                rate, through = group.serve(np.array([node.row]), np.array([placed.seconds["prefill"]]))
                if rate[0] > 0.0:
                    known = replace(decision, basis=placed.basis)
                    self.prefill.append((decision.instance_devices, float(rate[0]), float(through[0]), known))
                    self._offer_best()
                self._close(node, decision, placed)
            return []
        decode = self.tables.decode[node.group]
        row = np.array([node.row])
        low = place(self.tables, pool, self._decode_decision(decode, node.row, node.low))
        if low is None:
            return []
        limit = (search.tpot_limit or np.inf) * (1 + 1e-12)
        seconds = np.array([low.bound_ms / 1e3])
        rate, _ = decode.serve(row, np.array([float(node.high)]), seconds)
        _, tpot = decode.serve(row, np.array([float(node.low)]), seconds)
        if tpot[0] > limit:
            self._close(node, self._decode_decision(decode, node.row, node.low), low)
            return []
        for batch in sorted({node.low, node.high}):
            decision = self._decode_decision(decode, node.row, batch)
            placed = place(self.tables, pool, decision)
            if placed is None:
                continue
            r, t = decode.serve(row, np.array([float(batch)]), np.array([placed.seconds["decode"]]))
            if t[0] <= limit:
                self.decode.append((decision.instance_devices, float(r[0]), float(t[0]), replace(decision, basis=placed.basis)))
        self._offer_best()
        self._close(node, self._decode_decision(decode, node.row, node.low), low)
        if node.low == node.high:
            return []
        bound = min(float(rate[0]), node.rate)
        middle = (node.low + node.high) // 2
        children = []
        for first, last in ((node.low, middle), (middle + 1, node.high)):
            child = _Node(0.0, (2, node.group, node.row, first), "decode", node.group, node.row, first, last, bound, max(float(tpot[0]), node.tpot))
            self.open["decode"].append(child)
            children.append(child)
        for child in children:
            child.priority = -self.potential(child)
        return children

    def _close(self, node: _Node, decision: PoolDecision, placed: PlacedSeconds) -> None:
        name = f"{node.side} tp{decision.tp} dp{decision.dp} ep{decision.ep} pp{decision.pp} chunk{decision.chunk} batch{node.low}-{node.high}"
        self.search.closed[name] = placed.basis

    def final_bound(self) -> float:
        """Merit bound over all disaggregated deployments: both sides at their upper bounds."""
        if self.search.objective == "latency":
            least = self._least_tpot()
            known = self.prefill or self.open["prefill"]
            return 1.0 / least if least and known else 0.0
        rate = np.minimum(
            self._best_by_devices(self._upper("prefill"), self.prefill_devices),
            self._best_by_devices(self._upper("decode"), self.decode_devices),
        )
        return float(np.max(rate / self.weight, initial=0.0))
