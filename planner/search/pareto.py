"""The Pareto front: one search for each TPOT limit over tables that are built once.

The ends are the deployment of least TPOT and the best one within the workload's own limit. Limits are spread evenly in the
logarithm of the speed between them; where deployments of neighbouring limits coincide, the points left over go where the
objective jumps most. A deployment feasible at a limit is feasible at a looser one, so each search starts from the best of the
tighter limits and opens only what beats it; where the bound of a looser limit leaves nothing to be found, none is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from planner.plans.bounds import merit_of_objective, objective_of_merit
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs
from planner.plans.operate import operate
from planner.plans.pareto import (
    Front,
    Point,
    front_context,
    front_objective,
    limit_seconds,
    outer_limit_ms,
    short_limit_ms,
)
from planner.plans.worth import operation_objective
from planner.reporter import Reporter
from planner.search.find import NOTHING, Found, search_all
from planner.search.tables import Stop, Tables

NARROW = 1.01
"""No point is sought between limits whose ratio is less."""


@dataclass(frozen=True)
class Reached:
    """The best deployment found within a limit (ms, ``inf`` = none), its TPOT (s) and what the search proved."""

    limit_ms: float
    tpot_s: float
    found: Found

    @property
    def merit(self) -> float:
        """Merit for the front's objective."""
        return self.found.merit

    def within(self, other: Reached) -> Reached:
        """This deployment with the proof of a looser limit, within which no better one was found."""
        if other.limit_ms <= self.limit_ms:
            return self
        return replace(self, limit_ms=other.limit_ms, found=replace(other.found, decision=self.found.decision, merit=self.merit))


def insert(points: list[Reached], new: Reached) -> list[Reached]:
    """The front with one more deployment: what another dominates is left out and leaves its proof behind if it is of a looser
    limit."""
    kept = []
    for point in points:
        if point.tpot_s <= new.tpot_s and point.merit >= new.merit * (1 - 1e-12):
            new = point.within(new)
        elif new.tpot_s <= point.tpot_s and new.merit >= point.merit * (1 - 1e-12):
            new = new.within(point)
        else:
            kept.append(point)
    return sorted([*kept, new], key=lambda point: point.tpot_s)


class FrontSearch:
    """The searches behind one front."""

    def __init__(self, every: list[Tables], inputs: Inputs, reporter: Reporter, stop: Stop) -> None:
        self.every, self.inputs, self.reporter, self.stop = every, inputs, reporter, stop
        self.objective = front_objective(inputs.options)
        self.contexts = {tables.context.variant: front_context(tables.context) for tables in every}
        self.points: list[Reached] = []
        self.stopped: str | None = None

    def run(self, outer: Found, least: Decision | None, count: int) -> list[Reached]:
        """At most ``count`` points between the deployment of least TPOT and ``outer``, the best within the workload's limit."""
        limit = outer_limit_ms(self.inputs)
        assert outer.decision is not None
        self.points = [Reached(math.inf if limit is None else limit, self.tpot(outer.decision), outer)]
        if least is None:
            return self.points
        slowest, fastest = self.points[0].tpot_s, self.tpot(least)
        if slowest <= fastest:
            return self.points
        ratio = slowest / fastest
        limits = [short_limit_ms(fastest * ratio ** (i / (count - 1))) for i in range(count - 1)]
        limits[0] = short_limit_ms(fastest, up=True)
        self.seek(limits[0], self.known(least))
        for one in limits[1:]:
            self.seek(one)
        for _ in range(2 * count):
            between = self.widest()
            if len(self.points) >= count or between is None:
                break
            self.seek(between)
        return self.points

    def known(self, decision: Decision) -> Found:
        """A decision as a search would have found it."""
        context = self.contexts[decision.variant]
        merit = merit_of_objective(context, operation_objective(context, operate(context, decision)))
        return Found(decision, merit, 0.0, {}, None, 0)

    def tpot(self, decision: Decision) -> float:
        """TPOT of a decision (s)."""
        return operate(self.contexts[decision.variant], decision).tpot_s

    def seek(self, limit_ms: float, start: Found = NOTHING) -> None:
        """Search within a limit, unless what is known leaves nothing to be found."""
        self.stopped = self.stopped or self.stop.reason()
        faster = [point for point in self.points if point.tpot_s * 1e3 <= limit_ms]
        if self.stopped or any(limit_ms <= point.limit_ms for point in faster):
            return
        if faster:
            start = replace(faster[-1].found, bound=0.0, closed={}, stopped=None)
        found = search_all(self.every, self.objective, limit_seconds(self.inputs, limit_ms), self.reporter, self.stop, start)
        self.stopped = self.stopped or found.stopped
        if found.decision is not None:
            self.points = insert(self.points, Reached(limit_ms, self.tpot(found.decision), found))

    def widest(self) -> float | None:
        """A limit between the neighbours between which the objective jumps most, of those that may have something between."""
        jumps = []
        for number, (a, b) in enumerate(zip(self.points, self.points[1:], strict=False)):
            limit = short_limit_ms(math.sqrt(a.limit_ms / 1e3 * b.tpot_s))
            if b.tpot_s * 1e3 > a.limit_ms * NARROW and a.limit_ms < limit < b.tpot_s * 1e3:
                jumps.append((-b.merit / a.merit, number, limit))
        return min(jumps)[2] if jumps else None


def seek_front(every: list[Tables], inputs: Inputs, outer: Found, least: Found, reporter: Reporter, stop: Stop) -> Front:
    """The front of a problem that has a plan. ``outer``: what the search for the plan's own objective found, ``least``: that for
    the least TPOT."""
    assert inputs.options.pareto is not None and outer.decision is not None
    search = FrontSearch(every, inputs, reporter, stop)
    if inputs.options.objective != search.objective:
        start = search.known(outer.decision)
        outer = search_all(every, search.objective, inputs.workload.tpot_s, reporter, stop, start)
    search.stopped = outer.stopped or least.stopped
    reached = search.run(outer, least.decision, inputs.options.pareto)
    sign = -1.0 if search.objective == "throughput" else 1.0
    points, operations = [], []
    for point in reached:
        decision = point.found.decision
        assert decision is not None
        decision = replace(decision, experts=())  # points stand at the least load of any map
        context = search.contexts[decision.variant]
        operations.append(operate(context, decision))
        own = operation_objective(context, operations[-1])
        bound = sign * min(sign * objective_of_merit(context, max(point.found.bound, point.merit)), sign * own)
        points.append(Point(None if math.isinf(point.limit_ms) else point.limit_ms, decision, bound, point.found.closed))
    return Front(tuple(points), search.stopped, tuple(operations))
