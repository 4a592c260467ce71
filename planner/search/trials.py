"""Is there any plan? Searches of changed problems that stop at the first one, sharing what their changes leave alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

from planner.plans.candidates import DecodeGroup, MixedGroup
from planner.plans.context import Context, PoolContext, build_context
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs
from planner.plans.operate import Operation, operate
from planner.plans.space import PoolSpace, Space, declare_space
from planner.reporter import Reporter
from planner.search.find import Search, search_all
from planner.search.tables import LateError, Stop, Tables, build_tables

Change = Callable[[PoolContext], PoolContext]
Group = TypeVar("Group", MixedGroup, DecodeGroup)


STEPS, TABLES = 1000, 25
"""Steps that trials may take before they are allowed more, and what new tables count as; a step opens a node or some cells."""
EFFORT = "effort"


class OutOfTimeError(Exception):
    """The time limit, or the steps allowed, ended a trial before it said anything."""


class Allowance(Stop):
    """Stops after so many steps, whatever they take: the same on any machine."""

    def __init__(self, until: Stop) -> None:
        super().__init__()
        self._until, self.steps = until, STEPS

    def reason(self) -> str | None:
        """Why to stop, or ``None``; counts a step."""
        self.steps -= 1
        return self.late() or (EFFORT if self.steps < 0 else None)

    def late(self) -> str | None:
        """As what stops from outside has it."""
        return self._until.late()


@dataclass(frozen=True)
class Hit:
    """A deployment within every limit of the problem tried; ``exact`` where nothing is faster."""

    context: Context
    decision: Decision
    exact: bool = False

    @cached_property
    def operation(self) -> Operation:
        """The deployment at work."""
        return operate(self.context, self.decision)


def _columns(space: PoolSpace) -> tuple[Any, ...]:
    """What the tables of a pool depend on."""
    shapes = tuple((s.pp, *(column.tobytes() for column in (s.tp, s.dp, s.ep, s.cp))) for s in space.shapes)
    return shapes, space.chunks, space.least_batch, space.batches


class Trials:
    """Trials of one problem under changed limits."""

    def __init__(self, every: list[Tables], reporter: Reporter, stop: Stop) -> None:
        self._reporter, self._stop = reporter, Allowance(stop)
        self.ended: str | None = None
        self._tables: dict[tuple[Any, ...], Tables] = {}
        self._shared: dict[tuple[Any, ...], Tables] = {}
        for tables in every:
            self._tables[self._key(tables)] = self._shared[self._problem(tables.context)] = tables

    def allow(self, steps: int) -> None:
        """So many steps from now on."""
        self._stop.steps, self.ended = steps, None

    def _end(self, reason: str) -> OutOfTimeError:
        self.ended = reason
        return OutOfTimeError(reason)

    def hit(self, inputs: Inputs, change: Change | None = None) -> Hit | None:
        """Any deployment within every limit (``change`` alters each pool's constants); ``None`` where that is proved impossible.

        ``OutOfTimeError`` where neither is known when the time is up, or the steps are (``ended`` then says which).
        """
        stopped = None
        for tables in self._every(inputs, change):
            tpot_s, gap = inputs.workload.tpot_s, inputs.options.gap
            found = Search(tables, "latency", tpot_s, gap, self._reporter, self._stop, first=True).run()
            if found.decision is not None:
                return Hit(tables.context, found.decision)
            stopped = stopped or found.stopped
        if stopped:
            raise self._end(stopped)
        return None

    def fastest(self, inputs: Inputs) -> Hit | None:
        """The deployment of least TPOT, whatever the service level TPOT says, within all other limits."""
        every = self._every(inputs, None)
        found = search_all(every, "latency", None, self._reporter, self._stop)
        if found.decision is None:
            if found.stopped:
                raise self._end(found.stopped)
            return None
        context = next(tables.context for tables in every if tables.context.variant == found.decision.variant)
        return Hit(context, found.decision, found.stopped is None)

    def _every(self, inputs: Inputs, change: Change | None) -> list[Tables]:
        reason = self._stop.reason()
        if reason:
            raise self._end(reason)
        contexts = [build_context(inputs, variant) for variant in inputs.variants]
        if change is not None:
            contexts = [replace(c, pools={phase: change(pool) for phase, pool in c.pools.items()}) for c in contexts]
        return [self._build(context) for context in contexts]

    def _build(self, context: Context) -> Tables:
        """Tables of a context: columns of candidates from an earlier trial on the same shapes, placements from any that has the
        same memories."""
        tables = Tables(context, declare_space(context))
        key = self._key(tables)
        if key not in self._tables:
            self._stop.steps -= TABLES
            self._tables[key] = self._new(context, tables.space)
        known = self._tables[key]
        tables.mixed = [_at(group, context.pool("mixed")) for group in known.mixed]
        tables.prefill = [replace(group, pool=context.pool("prefill")) for group in known.prefill]
        tables.decode = [_at(group, context.pool("decode")) for group in known.decode]
        shared = self._shared.setdefault(self._problem(context), tables)
        tables.placements, tables.passes = shared.placements, shared.passes
        return tables

    def _new(self, context: Context, space: Space) -> Tables:
        try:
            return build_tables(context, space, self._stop)
        except LateError:
            raise self._end(self._stop.late() or EFFORT) from None

    @staticmethod
    def _problem(context: Context) -> tuple[Any, ...]:
        """What a configuration's times and placements depend on, of all that trials change."""
        pools = ((p.tiers, p.forbidden, p.rates.memory_bytes) for p in context.pools.values())
        return context.variant, context.inputs.options.weight_dtype, tuple(pools)

    def _key(self, tables: Tables) -> tuple[Any, ...]:
        space = tables.space
        pools = tuple((phase, _columns(pool)) for phase, pool in space.pools.items())
        return (*self._problem(tables.context), space.aggregated, space.disaggregated, pools)


def _at(group: Group, pool: PoolContext) -> Group:
    """A group whose columns and bounds stay while the limits of its pool change."""
    _ = group.bounds  # worked out once for all copies
    moved = copy.copy(group)
    moved.pool = pool
    return moved
