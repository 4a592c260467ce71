"""The tier problem of points (items or groups of like items) by column generation over a small master.

The master mixes, for every cell, a few complete assignments of its points ("columns": the amounts that lie in each choice);
its rows are the memories, the resources of each window and one mixture per cell. Its duals price the points; every point takes
its cheapest choice there, which is the next column and, by weak duality, a bound. Prices are stabilised by mixing with those of
the best bound so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import PlannerError
from planner.plans.item_bound import Array, ItemProblem, Points, Prices, legal, priced, unit_prices

GLOP_PARAMETERS = tuple(
    f"dual_feasibility_tolerance: {dual} primal_feasibility_tolerance: {primal} use_preprocessing: {ahead}"
    for dual, primal, ahead in (("1e-12", "1e-11", "false"), ("1e-10", "1e-10", "true"), ("1e-8", "1e-8", "true"))
)
ROUNDS = 400
"""Most columns generated per cell before the bracket is taken as it is."""

OVERFLOW = 1e-10
"""Fraction by which memories may overflow, so that what fits exactly is not refused for a rounding; it costs as much as
``OVERFLOW_COST`` objectives for all of a memory, so nothing else uses it."""

OVERFLOW_COST = 1e4

TIE_SLACK = 1e-11
"""How much worse than the optimum, relatively, what ties with it may be."""

LEAD = 0.3
"""Weight of the best prices so far in the next trial prices; halved where a trial does not raise the bound."""


@dataclass(frozen=True, eq=False)
class Setting:
    """A problem as the master sees it: what lies fixed (``used`` [T] bytes, ``load`` [W, K] seconds), the objective's scale."""

    problem: ItemProblem
    used: Array
    load: Array
    scale: float

    def units(self, points: Points, prices: Prices) -> Array:
        """[cells, C, F] cost of an amount in each choice."""
        return unit_prices(self.problem, prices, points.kind, points.window)

    def constant(self, prices: Prices) -> float:
        """What prices give beside what points pay."""
        limited = np.isfinite(self.problem.capacity)
        room = self.problem.capacity[limited] - self.used[limited]
        return float((prices.resource * self.load).sum() - prices.memory[limited] @ room)

    def effects(self, points: Points, sums: Array) -> tuple[Array, Array]:
        """Bytes used [cells, T] and seconds [cells, K] of amounts ``sums`` [cells, C, F]."""
        used = np.einsum("jc,ct->jt", sums[:, :, 0], self.problem.occupies)
        load = np.einsum("jcf,jcfk->jk", sums, self.problem.seconds[points.kind])
        return used, load


@dataclass(frozen=True, eq=False)
class Assignment:
    """Every point's cheapest choice at some prices [N], amounts by cell and choice [cells, C, F], what cells pay [cells]."""

    choice: NDArray[np.int8]
    sums: Array
    paid: Array


def assign(problem: ItemProblem, points: Points, units: Array) -> Assignment:
    """Price every point."""
    choices = len(problem.choices)
    choice = np.empty(points.count, dtype=np.int8)
    sums = np.zeros((len(points.kind), choices, len(points.amounts)))
    paid = np.zeros(len(points.kind))
    for piece in priced(problem, points, units):
        here = piece.choice()
        choice[piece.first : piece.last] = here
        paid[piece.cell] += piece.least.sum()
        bins = here.astype(np.intp)
        for row in range(len(points.amounts)):
            sums[piece.cell, :, row] += np.bincount(bins, points.amounts[row, piece.first : piece.last], choices)
    return Assignment(choice, sums, paid)


class Program:
    """A GLOP program with the rows of a setting; columns are added as they come."""

    def __init__(self, setting: Setting, groups: int) -> None:
        from ortools.linear_solver import pywraplp

        self.setting = setting
        problem = setting.problem
        self.lp: Any = pywraplp
        self.solver = pywraplp.Solver.CreateSolver("GLOP")
        self.infinity = self.solver.infinity()
        self.objective = self.solver.Objective()
        self.objective.SetMinimization()
        self.memories = [int(t) for t in np.flatnonzero(np.isfinite(problem.capacity))]
        self.size = np.maximum(problem.capacity, 1e-6 * float(problem.points.amounts[0].sum()) or 1.0)
        self.capacity = [
            self.solver.Constraint(-self.infinity, float((problem.capacity[t] - setting.used[t]) / self.size[t]))
            for t in self.memories
        ]
        self.overflow = self.solver.NumVar(0.0, OVERFLOW, "")
        self.objective.SetCoefficient(self.overflow, OVERFLOW_COST)
        for row, t in zip(self.capacity, self.memories, strict=True):
            row.SetCoefficient(self.overflow, -float(problem.capacity[t] / self.size[t]))
        self.time: list[list[Any]] = []
        self.windows: list[Any] = []
        for window, weight in enumerate(problem.weight):
            column = self.solver.NumVar(0.0, self.infinity, "")
            self.objective.SetCoefficient(column, float(weight))
            self.windows.append(column)
            rows = []
            for load in setting.load[window]:
                row = self.solver.Constraint(-self.infinity, float(-load / setting.scale))
                row.SetCoefficient(column, -1.0)
                rows.append(row)
            self.time.append(rows)
        self.share = [self.solver.Constraint(1.0, 1.0) for _ in range(groups)]

    def add(self, group: int, window: int, used: Array, load: Array) -> Any:
        """A column of a group: its effects, as ``Setting.effects`` gives them."""
        column = self.solver.NumVar(0.0, self.infinity, "")
        self.share[group].SetCoefficient(column, 1.0)
        for row, memory in zip(self.capacity, self.memories, strict=True):
            if used[memory]:
                row.SetCoefficient(column, float(used[memory] / self.size[memory]))
        for row, value in zip(self.time[window], load.tolist(), strict=True):
            if value:
                row.SetCoefficient(column, value / self.setting.scale)
        return column

    def solve(self) -> bool:
        """Whether an optimum was found; where tight tolerances are out of reach, looser ones do (no bound depends on them)."""
        for parameters in GLOP_PARAMETERS:
            self.solver.SetSolverSpecificParametersAsString(parameters)
            status = self.solver.Solve()
            if status in (self.lp.Solver.OPTIMAL, self.lp.Solver.INFEASIBLE):
                return bool(status == self.lp.Solver.OPTIMAL)
        raise PlannerError(f"the placement solver stopped with status {status}")

    @property
    def value(self) -> float:
        """The objective."""
        return float(self.objective.Value()) * self.setting.scale

    def prices(self) -> Prices:
        """The duals of memories and resources."""
        problem = self.setting.problem
        memory = np.zeros(len(problem.capacity))
        for row, number in zip(self.capacity, self.memories, strict=True):
            memory[number] = -row.dual_value() * self.setting.scale / self.size[number]
        return legal(problem, Prices(memory, -np.array([[row.dual_value() for row in rows] for rows in self.time])))

    def prefer(self, columns: Sequence[tuple[Any, float]]) -> None:
        """From now on the least ``cost`` of ``(column, cost)`` among the optima; duals and ``value`` lose their meaning."""
        row = self.solver.Constraint(-self.infinity, float(self.objective.Value()) * (1.0 + TIE_SLACK))
        for window, weight in zip(self.windows, self.setting.problem.weight.tolist(), strict=True):
            row.SetCoefficient(window, weight)
        row.SetCoefficient(self.overflow, OVERFLOW_COST)
        self.objective.Clear()
        self.objective.SetMinimization()
        for column, cost in columns:
            if cost:
                self.objective.SetCoefficient(column, cost)

    def least_overflow(self) -> Array:
        """Prices [T] that prove by how much memories are too small, after ``solve`` found nothing."""
        problem = self.setting.problem
        self.objective.Clear()
        self.objective.SetMinimization()
        self.overflow.SetUb(self.infinity)
        self.objective.SetCoefficient(self.overflow, 1.0)
        if not self.solve():
            return np.where(problem.capacity > 0.0, 0.0, 1.0)
        return self.prices().memory


@dataclass(frozen=True, eq=False)
class Explicit:
    """A program solved with a column for every point and choice: shares [N, C] at a vertex, prices, value."""

    shares: Array
    prices: Prices
    value: float


class DoesNotFit(Exception):
    """No shares fit the memories; ``memory`` [T] are the prices that prove it (``overflow_bound``)."""

    def __init__(self, memory: Array) -> None:
        super().__init__("the items do not fit")
        self.memory = memory


def solve_explicit(setting: Setting, points: Points, may: NDArray[np.bool_] | None = None) -> Explicit:
    """Points' choices (all that are allowed, or those of ``may`` [N, C]) as columns, for a few hundred points.

    Among equal optima the one with fewest bytes in later choices; ``DoesNotFit`` where nothing fits.
    """
    problem = setting.problem
    program = Program(setting, points.count)
    cell = np.repeat(np.arange(len(points.kind)), np.diff(points.start))
    may = problem.allowed[points.kind[cell]] if may is None else may
    columns: list[tuple[int, int, Any]] = []
    used = points.amounts[0][:, None, None] * problem.occupies
    load = np.einsum("fn,ncfk->nck", points.amounts, problem.seconds[points.kind[cell]])
    for point, choice in zip(*(axis.tolist() for axis in np.nonzero(may)), strict=True):
        window = int(points.window[cell[point]])
        columns.append((point, choice, program.add(point, window, used[point, choice], load[point, choice])))
    if not program.solve():
        raise DoesNotFit(program.least_overflow())
    value, prices = program.value, program.prices()
    held = points.amounts[0] / (float(points.amounts[0].max(initial=0.0)) or 1.0)
    found = [column.solution_value() for *_, column in columns]
    program.prefer([(column, choice * float(held[point])) for point, choice, column in columns])
    if program.solve():
        found = [column.solution_value() for *_, column in columns]
    shares = np.zeros((points.count, len(problem.choices)))
    for (point, choice, _), share in zip(columns, found, strict=True):
        shares[point, choice] = max(share - 1e-12, 0.0)
    return Explicit(shares / shares.sum(axis=1, keepdims=True), prices, value)


@dataclass(frozen=True, eq=False)
class Mixed:
    """A program solved by column generation: prices of the best bound, value of the best mixture, bound.

    ``trials`` are the prices that generated columns; ``weights`` [1 + trials, cells] mix the first column and theirs.
    """

    prices: Prices
    value: float
    bound: float
    trials: list[Prices]
    weights: Array


def solve_mixed(setting: Setting, points: Points, starts: Sequence[Prices], first: Array, tolerance: float) -> Mixed:
    """Column generation from amounts ``first`` [cells, C, F] that fit, and prices, until the bracket is within ``tolerance``."""
    problem = setting.problem
    cells = len(points.kind)
    program = Program(setting, cells)
    columns: list[list[Any]] = []
    trials: list[Prices] = []

    def add(sums: Array) -> None:
        used, load = setting.effects(points, sums)
        columns.append([program.add(cell, int(points.window[cell]), used[cell], load[cell]) for cell in range(cells)])

    def price(prices: Prices) -> float:
        found = assign(problem, points, setting.units(points, prices))
        add(found.sums)
        trials.append(prices)
        return float(found.paid.sum()) + setting.constant(prices)

    add(first)
    bound, best = max(((price(start), start) for start in starts), key=lambda found: found[0])
    lead = LEAD
    while True:
        if not program.solve():
            raise PlannerError("the placement master lost its solution")
        value = program.value
        if value - bound <= tolerance * abs(value) or len(trials) >= ROUNDS:
            weights = np.array([[column.solution_value() for column in row] for row in columns])
            return Mixed(best, value, bound, trials, weights)
        trial = program.prices().towards(best, lead)
        found = price(trial)
        if found > bound:
            best, bound, lead = trial, found, LEAD
        else:
            lead = lead / 2 if lead > 1e-3 else 0.0
