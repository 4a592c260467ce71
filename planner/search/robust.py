"""One deployment for a set of workloads: search by rows, each bounded by the workload that fares worst on it.

A row is a shape, of a pool that prefills also the prefill pass. Its bound is the worst of the workloads' own bounds
(``plans.robust`` says why it holds). Rows of pools of both phases are opened best first: each workload is searched on that row
alone, for what beats the best deployment so far, until one fails. Of two pools only the row that the bound rests on is made
exact, for the workload that limits it, until the bound rests on rows that are known.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InfeasibleError, StoppedError
from planner.plans.assemble import Certificate, assemble
from planner.plans.bounds import charge_of, mixed_cell_merit
from planner.plans.context import build_context
from planner.plans.decision import Decision
from planner.plans.inputs import Inputs
from planner.plans.operate import operate
from planner.plans.robust import Served, alone, contexts_of, deciding, joint_objective, scale
from planner.plans.schema import Plan
from planner.plans.worth import operation_objective
from planner.reporter import Reporter
from planner.search.conflicts import explain_infeasible
from planner.search.find import NOTHING, Found, Search
from planner.search.maps import Maps, settled
from planner.search.sizing import counted, tables_of, within_units
from planner.search.tables import Stop, Tables


@dataclass(frozen=True)
class Shared(Found):
    """What a search for a set of workloads found; ``decision`` is that of the first workload, ``closed`` has a workload's number
    and a colon before every name."""

    shared: tuple[Decision, ...] = ()


def solve_robust(inputs: Inputs, hooks: Reporter, until: Stop) -> Plan:
    """The deployment whose worst workload fares best, with its certificate; errors as of ``search.solve``."""

    def seek(trial: Inputs, every: list[list[Tables]]) -> Shared:
        return search_variants(every, trial.options.objective, hooks, until)

    inputs, plain, first = counted(inputs, alone, seek)
    problems = alone(inputs)
    maps: Maps = {}
    hooks.started(sum(p.shape_count for tables in plain[0] for p in tables.space.pools.values()))
    at = {tables.context.variant: tables.context for tables in plain[0]}

    def search(known: Maps) -> Found:
        every = [tables_of(one, known) for one in problems] if known else plain
        found = first if first is not None and not known else seek(inputs, every)
        if found.decision is None or inputs.options.objective == "latency" or every[0][0].context.demand is None:
            return found
        assert isinstance(found, Shared)
        limited = [[within_units(tables, found.decision) for tables in tables_w] for tables_w in every]
        quick = search_variants(limited, "latency", hooks, until)  # of all that cost as much, the fastest
        return found if quick.decision is None else replace(found, decision=quick.decision, shared=quick.shared)

    found = settled(lambda decision: at[decision.variant], search, maps)
    assert isinstance(found, Shared)
    if found.decision is None:
        if found.stopped:
            raise StoppedError("stopped before any plan was found; raise --time-limit")
        raise _infeasible(plain, hooks, until)
    plan = _certified(inputs, found, found.decision)
    hooks.finished(plan.certificate.objective, plan.certificate.bound)
    return plan


def _certified(inputs: Inputs, found: Shared, first: Decision) -> Plan:
    """The plan of the workload that fares worst, with a row for each."""
    contexts = contexts_of(inputs, first.variant)
    rows = []
    for number, (context, decision) in enumerate(zip(contexts, found.shared, strict=True)):
        mapped, sign = replace(decision, experts=first.experts), f"{number}:"
        nodes = {name[len(sign) :]: proof for name, proof in found.closed.items() if name.startswith(sign)}
        rows.append(Served(mapped, nodes, operate(context, mapped)))
    operations = [row.operation for row in rows if row.operation]
    worst = deciding(contexts, operations)
    objective = operation_objective(contexts[worst], operations[worst])
    bound = joint_objective(contexts, found.bound)
    bound = max(bound, objective) if inputs.options.objective == "throughput" else min(bound, objective)
    chosen = inputs.model_copy(update={"workload": inputs.workloads[worst]})
    context = build_context(chosen, first.variant)
    certificate = Certificate(bound, {}, found.stopped)
    return Plan.model_validate(assemble(context, rows[worst].decision, certificate, None, robust=tuple(rows)))


def _infeasible(every: list[list[Tables]], hooks: Reporter, until: Stop) -> InfeasibleError:
    """The first workload that has no plan even alone, with its conflict; or workloads of which none can be left out."""
    names = [tables[0].context.inputs.workload.id for tables in every]

    def empty(kept: list[int]) -> bool:
        found = search_variants([every[i] for i in kept], every[0][0].context.inputs.options.objective, hooks, until)
        if found.decision is None and found.stopped:
            raise StoppedError("proved infeasible; the time limit ended the look for the workloads in conflict")
        return found.decision is None

    for number, name in enumerate(names):
        if empty([number]):
            error = explain_infeasible(every[number], hooks, until)
            return InfeasibleError(f"workload {name}: {error}", error.conflict)
    kept = list(range(len(names)))
    for number in range(len(names)):
        if empty([i for i in kept if i != number]):
            kept.remove(number)
    said = ", ".join(names[i] for i in kept)
    rows: list[dict[str, object]] = [
        {
            "member": f"workload {names[i]}",
            "detail": "has a plan alone",
            "least_relief": "serve it with a deployment of its own",
            "amount": None,
            "unit": "",
        }
        for i in kept
    ]
    return InfeasibleError(f"proved infeasible: no one deployment serves all of {said}, though each alone has a plan", rows)


def search_variants(every: list[list[Tables]], objective: str, reporter: Reporter, stop: Stop) -> Shared:
    """The best of all variants, each searched only for what beats the best before; ``every``: tables by workload and variant."""
    best = Shared(*(getattr(NOTHING, name) for name in Found.__dataclass_fields__))
    for tables in zip(*every, strict=True):
        found = RobustSearch(list(tables), objective, reporter, stop, best.merit).run()
        better = found if found.decision is not None and found.merit > best.merit * (1 + 1e-12) else best
        best = replace(
            better,
            bound=max(best.bound, found.bound),
            closed=best.closed | found.closed,
            stopped=best.stopped or found.stopped,
            solved=best.solved + found.solved,
        )
    return best


class RobustSearch:
    """One search over one variant; ``tables``: those of every workload, whose spaces are the same."""

    def __init__(self, tables: list[Tables], objective: str, reporter: Reporter, stop: Stop, beat: float = 0.0) -> None:
        self.tables, self.objective, self.reporter, self.stop, self.beat = tables, objective, reporter, stop, beat
        self.space = tables[0].space
        self.gap = tables[0].context.inputs.options.gap
        self.limits = [one.context.inputs.workload.tpot_s for one in tables]
        pairs = zip(tables, self.limits, strict=True)
        self.charges = [charge_of(one.context, objective, limit) for one, limit in pairs]
        self.scales = [scale(one.context, objective) for one in tables]
        self.best: tuple[float, tuple[float, ...], tuple[Decision, ...]] | None = None
        self.closed: dict[str, str] = {}
        self.bound = 0.0
        self.stopped: str | None = None

    @property
    def floor(self) -> float:
        """Merit above which a bound must be opened."""
        return max(self.best[0] if self.best else 0.0, self.beat) * (1.0 + self.gap / 4.0)

    def expired(self) -> bool:
        """Whether to stop early."""
        self.stopped = self.stopped or self.stop.reason()
        return self.stopped is not None

    def offer(self, merit: float, key: tuple[float, ...], decisions: tuple[Decision, ...]) -> None:
        """Take a deployment if it is better, or equal with a smaller key."""
        if merit <= self.beat or not np.isfinite(merit):
            return
        best = self.best
        if best is None or merit > best[0] * (1 + 1e-12) or (merit >= best[0] * (1 - 1e-12) and key < best[1]):
            self.best = (merit, key, decisions)
            self.reporter.incumbent(merit)

    def run(self) -> Shared:
        """Search until nothing left can beat the best by more than a quarter of the gap, or time is up."""
        self._mixed()
        if self.space.disaggregated:
            from planner.search.robust_sides import RobustSides

            RobustSides(self).run()
        solved = sum(len(one.placements) for one in self.tables)
        if self.best is None:
            return Shared(None, 0.0, self.bound, self.closed, self.stopped, solved)
        merit, _, decisions = self.best
        return Shared(decisions[0], merit, max(self.bound, merit), self.closed, self.stopped, solved, decisions)

    def note(self, workload: int, closed: dict[str, str]) -> None:
        """Keep the nodes that placements closed for a workload."""
        self.closed |= {f"{workload}:{name}": proof for name, proof in closed.items()}

    # -- pools of both phases ------------------------------------------------------------------------------------------
    def _mixed(self) -> None:
        """Open rows, best bound first; what stays closed counts in the bound."""
        pending: list[tuple[float, int, int]] = []
        for number, group in enumerate(self.tables[0].mixed):
            most = np.min([self._row_merits(w, number) for w in range(len(self.tables))], axis=0, initial=np.inf)
            pending += [(-float(most[row]), number, int(row)) for row in np.flatnonzero(most > 0.0)] if len(group.chunk) else []
        for merit, number, row in sorted(pending):
            if -merit <= self.floor or self.expired():
                self.bound = max(self.bound, -merit)
                break
            self.bound = max(self.bound, self._open(number, row))

    def _row_merits(self, workload: int, number: int) -> np.ndarray:
        """The bound of a workload's merit, scaled, on every row of a group."""
        tables = self.tables[workload]
        group = tables.mixed[number]
        most = np.zeros(len(group.chunk))
        if len(group.cells.row):
            merit, _, _ = mixed_cell_merit(tables.context, tables.space, self.charges[workload], group)
            np.maximum.at(most, group.cells.row, merit)
        return most * self.scales[workload]

    def _open(self, number: int, row: int) -> float:
        """Search every workload on one row and offer what serves all; returns a bound on the row's merit."""
        bound, merit = np.inf, np.inf
        found = []
        for workload, tables in enumerate(self.tables):
            beat = max(self.best[0] if self.best else 0.0, self.beat) / self.scales[workload]
            limit = self.limits[workload]
            one = Search(_on_row(tables, number, row), self.objective, limit, self.gap, Reporter(), self.stop, beat).run()
            self.note(workload, one.closed)
            self.stopped = self.stopped or one.stopped
            bound = min(bound, one.bound * self.scales[workload])
            if one.decision is None:
                return bound
            merit = min(merit, one.merit * self.scales[workload])
            found.append(one.decision)
        units = max(decision.units[0] for decision in found)
        replicas = max(decision.pools[0].replicas for decision in found)
        decisions = tuple(replace(d, pools=(replace(d.pools[0], replicas=replicas),), units=(units,)) for d in found)
        pool = found[0].pools[0]
        key = (0.0, units, pool.pp, pool.tp, pool.ep, pool.dp, pool.cp, pool.chunk)
        self.offer(merit, key, decisions)
        return bound


def _on_row(tables: Tables, number: int, row: int) -> Tables:
    """The tables with one row of aggregated serving and nothing else; placements solved are shared."""
    group = tables.mixed[number]
    index = np.flatnonzero(group.cells.row == row)
    one = copy.copy(group)
    one.cells = group.cells.take(index)
    one.__dict__["bounds"] = tuple(column[index] for column in group.bounds)
    return replace(tables, space=replace(tables.space, disaggregated=False), mixed=[one], prefill=[], decode=[])
