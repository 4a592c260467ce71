"""Whole items from fractional ones: experts that lie in one memory each, with a proved gap to the fractional optimum.

A vertex splits few items, but giving those to one side breaks the balance. So the whole items that prices leave least decided
are chosen again by CP-SAT (one worker, fixed seed, deterministic limit) together with all divisible items, coarsely; then the
divisible items are solved exactly around the chosen whole ones. Where the gap is not met, more whole items are chosen again, for
as long as that helps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.plans.item_bound import Array, ItemPlacement, ItemProblem, ItemTimes, evaluate_items, unit_prices
from planner.search.item_lp import ItemSolution, solve_items
from planner.search.item_master import DoesNotFit

ATTEMPTS = (64, 256, 1024)
"""Whole items chosen again, one number after the other until the gap is met."""

STEPS = 10_000
"""Steps in which a group of divisible items is shared out while whole items are chosen."""

UNITS = 1e9
"""Integer units of a capacity and of the objective. At 1e11 CP-SAT (9.15) calls optimal what is not."""

RUNS = 6
"""Groups of divisible items per cell, by ratio of what they move to what they hold."""

EFFORT = 0.5
"""CP-SAT's deterministic time for an attempt."""


@dataclass(frozen=True, eq=False)
class WholeSolution:
    """A placement without split items of an indivisible kind, its gap to ``bound``, and how many were ``chosen`` again."""

    placement: ItemPlacement
    times: ItemTimes
    bound: float
    chosen: int

    @property
    def gap(self) -> float:
        """``(value - bound) / value``."""
        return (self.times.value - self.bound) / self.times.value if self.times.value else 0.0


def whole_items(problem: ItemProblem, solution: ItemSolution, target: float = 1e-4) -> WholeSolution | None:
    """A placement of whole items within ``target`` of the fractional bound, or the best found; ``None`` if none was.

    The copies of an indivisible item lie in one memory together.
    """
    whole = ~problem.divisible[problem.kind]
    split = solution.placement.split
    if not whole[split].any():
        return WholeSolution(solution.placement, solution.times, solution.bound, 0)
    order = _least_decided(problem, solution, np.flatnonzero(whole))
    order = np.concatenate([split[whole[split]], order[~np.isin(order, split)]])
    best: WholeSolution | None = None
    for number in ATTEMPTS:
        chosen = np.sort(order[:number])
        choice = _choose(problem, solution, chosen, target)
        found = None if choice is None else _around(problem, choice, whole, solution)
        before = np.inf if best is None else best.gap
        if found is not None and (best is None or found.value < best.times.value):
            best = WholeSolution(found.placement, found.times, solution.bound, len(chosen))
        if number >= len(order) or (best is not None and (best.gap <= target or best.gap > before - target / 10)):
            break
    return best


def _amounts(problem: ItemProblem, items: NDArray[np.intp]) -> Array:
    """[F, n] amounts of all copies."""
    amounts = problem.amounts[:, items]
    return amounts if problem.copies is None else amounts * problem.copies[items]


def _least_decided(problem: ItemProblem, solution: ItemSolution, items: NDArray[np.intp]) -> NDArray[np.intp]:
    """Items in the order of what another choice costs more, relative to it, the choices in turn; of a tie the smaller first."""
    amounts = _amounts(problem, items)
    kinds = len(problem.allowed)
    cell = problem.window[items].astype(np.intp) * kinds + problem.kind[items]
    window, kind = np.divmod(np.arange(len(problem.weight) * kinds), kinds)
    units = unit_prices(problem, solution.prices, kind, window)
    cost = np.full((len(problem.choices), len(items)), np.inf)
    for choice in range(len(problem.choices)):
        may = problem.allowed[problem.kind[items], choice]
        cost[choice, may] = sum(amounts[f, may] * units[cell[may], choice, f] for f in range(len(amounts)))
    least, own = cost.min(axis=0), cost.argmin(axis=0)
    rank = np.full(len(items), len(items))
    for choice, paid in enumerate(cost):
        with np.errstate(invalid="ignore"):
            more = np.where(np.isfinite(paid) & (paid > 0.0), (paid - least) / paid, np.inf)
        more[own == choice] = np.inf
        place = np.empty(len(items), dtype=np.intp)
        place[np.lexsort((items, amounts[0], np.round(more, 9)))] = np.arange(len(items))
        rank = np.minimum(rank, place)
    return items[np.lexsort((items, rank))]


def _effects(problem: ItemProblem, amounts: Array, kind: NDArray[np.integer]) -> tuple[Array, Array]:
    """Bytes [n, C, T] and seconds [n, C, K] of points in every choice."""
    used = amounts[0][:, None, None] * problem.occupies
    return used, np.einsum("fn,ncfk->nck", amounts, problem.seconds[kind])


def _choose(problem: ItemProblem, solution: ItemSolution, chosen: NDArray[np.intp], target: float) -> NDArray[np.int8] | None:
    """Choices [I] where ``chosen`` whole items are placed again, the other whole ones stay, and divisible ones are free."""
    from ortools.sat.python import cp_model

    divisible = problem.divisible[problem.kind]
    loose = np.flatnonzero(divisible)
    moving = np.concatenate([chosen, loose])
    rest = _without(problem, solution.placement, moving)
    ratio = problem.amounts[1:, loose].sum(axis=0) / np.maximum(problem.amounts[0, loose], 1e-300)
    cell = problem.window[loose].astype(np.intp) * len(problem.allowed) + problem.kind[loose]
    rank = np.empty(len(loose), dtype=np.intp)
    rank[np.argsort(ratio, kind="stable")] = np.arange(len(loose))
    _, first, label = np.unique(cell * RUNS + rank * RUNS // max(1, len(loose)), return_index=True, return_inverse=True)
    grouped = np.stack([np.bincount(label, row, len(first)) for row in _amounts(problem, loose)])
    amounts = np.concatenate([_amounts(problem, chosen), grouped], axis=1)
    member = np.concatenate([chosen, loose[first]])
    used, load = _effects(problem, amounts, problem.kind[member])
    byte = np.where(np.isfinite(problem.capacity) & (problem.capacity > 0), problem.capacity, 1.0) / UNITS
    second = max(solution.value, 1e-3 * float(load.max(initial=0.0))) / UNITS or 1.0

    model = cp_model.CpModel()
    columns: list[tuple[int, int, int, cp_model.IntVar]] = []
    for point, item in enumerate(member.tolist()):
        steps = 1 if point < len(chosen) else STEPS
        mine = [
            (point, int(c), steps, model.new_int_var(0, steps, "")) for c in np.flatnonzero(problem.allowed[problem.kind[item]])
        ]
        model.add(sum(column for *_, column in mine) == steps)
        columns += mine
    for memory in np.flatnonzero(np.isfinite(problem.capacity)):
        room = int(np.floor((problem.capacity[memory] - rest.used[memory]) / byte[memory]))
        terms = [(int(np.ceil(used[p, c, memory] / byte[memory] / n)), column) for p, c, n, column in columns]
        model.add(sum(size * column for size, column in terms if size) <= room)
    times = []
    for window in range(len(problem.weight)):
        time = model.new_int_var(0, 1 << 44, "")
        times.append(time)
        for resource in range(len(problem.resources)):
            terms = [
                (int(np.ceil(load[p, c, resource] / second / n)), column)
                for p, c, n, column in columns
                if problem.window[member[p]] == window
            ]
            model.add(time >= int(rest.load[window, resource] / second) + sum(size * x for size, x in terms if size))
    weight = np.round(problem.weight / (problem.weight.max() or 1.0) * 100).astype(int).tolist()
    later = sum(c * column for _, c, n, column in columns if n == 1)
    model.minimize(sum(w * t for w, t in zip(weight, times, strict=True)) + later)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = EFFORT
    solver.parameters.relative_gap_limit = target / 10
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    choice = solution.placement.choice.copy()
    for point, number, steps, column in columns:
        if steps == 1 and solver.value(column):
            choice[member[point]] = number
    return choice


def _without(problem: ItemProblem, placement: ItemPlacement, items: NDArray[np.intp]) -> ItemTimes:
    """Loads and bytes of all but ``items``, whole where the placement splits them."""
    copies = np.ones(len(problem.kind)) if problem.copies is None else problem.copies.copy()
    copies[items] = 0.0
    none = ItemPlacement(placement.choice, np.zeros(0, dtype=np.intp), np.zeros((0, len(problem.choices))))
    return evaluate_items(replace(problem, copies=copies), none)


def _around(
    problem: ItemProblem, choice: NDArray[np.int8], whole: NDArray[np.bool_], solution: ItemSolution
) -> ItemSolution | None:
    """The divisible items solved exactly around whole items that lie as ``choice`` says; ``None`` if they do not fit."""
    placed = ItemPlacement(choice, np.zeros(0, dtype=np.intp), np.zeros((0, len(problem.choices))))
    loose = np.flatnonzero(~whole)
    rest = _without(problem, placed, loose)
    room = problem.capacity - rest.used
    if (room < -1e-10 * problem.capacity).any():
        return None
    smaller = replace(
        problem,
        amounts=problem.amounts[:, loose],
        kind=problem.kind[loose],
        window=problem.window[loose],
        copies=None if problem.copies is None else problem.copies[loose],
        capacity=np.maximum(room, 0.0),
        fixed=rest.load,
    )
    try:
        found = solve_items(smaller, start=solution.prices)
    except DoesNotFit:
        return None
    choice = choice.copy()
    choice[loose] = found.placement.choice
    placement = ItemPlacement(choice, loose[found.placement.split], found.placement.shares)
    return replace(found, placement=placement, times=evaluate_items(problem, placement))
