"""The tier problem of single items, solved and bracketed: column generation for the prices, then a vertex for the shares.

1. Items of a cell as one point: a program of a few columns says whether anything fits and gives the first prices.
2. Column generation over all items (``item_master``) brackets the optimum.
3. At its prices all but the least decided items take their cheapest choice; those are solved explicitly, grouped where many
   tie. A vertex splits at most as many points as there are coupling rows, and its duals are the final prices. If the bracket
   (value of the placement, ``lower_bound`` of the prices) is not within tolerance, more items stay free; past ``MOST`` the
   mixture of columns is taken, which is within tolerance by construction but may split many items.

Both ends of the bracket are recomputed from the placement and the prices alone (``plans.item_bound``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.plans.item_bound import (
    Array,
    ItemPlacement,
    ItemProblem,
    ItemTimes,
    Points,
    Prices,
    evaluate_items,
    legal,
    lower_bound,
    priced,
)
from planner.search.item_master import DoesNotFit, Mixed, Setting, assign, solve_explicit, solve_mixed

FREE = 96
"""Least decided items first left free, over all cells and choices, and most groups of those that tie."""

MOST = 4096
"""Most points of an explicit program."""

TIED = 1e-9
"""Relative difference of costs below which two choices tie whatever the prices' accuracy."""


@dataclass(frozen=True, eq=False)
class ItemSolution:
    """A placement with its times, the largest ``bound`` proved, the ``prices`` that prove it, ``rounds`` of column generation."""

    placement: ItemPlacement
    times: ItemTimes
    prices: Prices
    bound: float
    rounds: int

    @property
    def value(self) -> float:
        return self.times.value

    @property
    def gap(self) -> float:
        """``(value - bound) / value``."""
        return (self.value - self.bound) / self.value if self.value else 0.0


def solve_items(problem: ItemProblem, tolerance: float = 1e-8, start: Prices | None = None) -> ItemSolution:
    """The optimal shares with a bracket within about ``tolerance``; ``DoesNotFit`` if the memories are too small.

    ``start`` are prices of a similar problem.
    """
    points = problem.points
    setting, first, starts = _opening(problem)
    if start is not None:
        starts.append(legal(problem, start))
    mixed = solve_mixed(setting, points, starts, first, tolerance / 2)
    bound, prices = lower_bound(problem, mixed.prices), mixed.prices
    best: tuple[ItemPlacement, ItemTimes] | None = None
    free = FREE
    while True:
        found = _recover(setting, mixed.prices, free)
        if found is not None:
            placement, duals = found
            times = evaluate_items(problem, placement)
            if best is None or times.value < best[1].value:
                best = placement, times
            if best[1].value - bound > tolerance / 4 * best[1].value:
                again = lower_bound(problem, duals)
                if again > bound:
                    bound, prices = again, duals
        if best is not None and best[1].value - bound <= tolerance * best[1].value:
            break
        free *= 4
        if free > MOST:
            placement = _mixture(setting, mixed, first)
            times = evaluate_items(problem, placement)
            if best is None or times.value < best[1].value * (1.0 - tolerance / 4):
                best = placement, times
            break
    return ItemSolution(*best, prices, bound, len(mixed.trials))


STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Fractions by which ``price_range`` changes a capacity."""


def changed_capacity(problem: ItemProblem, memory: int, factor: float) -> ItemProblem:
    """The problem with one capacity times ``factor``."""
    capacity = problem.capacity.copy()
    capacity[memory] *= factor
    return replace(problem, capacity=capacity)


def capacity_slopes(problem: ItemProblem, solution: ItemSolution, memory: int, step: float = 0.05) -> tuple[float, float]:
    """Objective per byte of a memory over one ``step`` (a fraction) less and one more, by solving again.

    The optimum is convex in a capacity, so the price lies between: a byte less costs at least the price, one more gains at most
    that. ``-inf`` where nothing fits into less.
    """
    size = float(problem.capacity[memory]) * step
    more = solve_items(changed_capacity(problem, memory, 1.0 + step), start=solution.prices)
    try:
        less = solve_items(changed_capacity(problem, memory, 1.0 - step), start=solution.prices)
    except DoesNotFit:
        return -np.inf, (more.value - solution.value) / size
    return (solution.value - less.value) / size, (more.value - solution.value) / size


def price_range(problem: ItemProblem, solution: ItemSolution, memory: int, tolerance: float = 0.05) -> tuple[float, float]:
    """Bytes of a memory, from and to, between which its price foretells the objective's change within ``tolerance``."""
    price = -float(solution.prices.memory[memory])
    ends = [1.0, 1.0]
    for side in (0, 1):
        for step in STEPS:
            slope = capacity_slopes(problem, solution, memory, step)[side]
            if not abs(slope - price) <= tolerance * abs(price) + 1e-9 * solution.value / float(problem.capacity[memory]):
                break
            ends[side] = 1.0 + step * (2 * side - 1)
    return ends[0] * float(problem.capacity[memory]), ends[1] * float(problem.capacity[memory])


def _opening(problem: ItemProblem) -> tuple[Setting, Array, list[Prices]]:
    """Every cell as one point: the setting with its scale, amounts [cells, C, F] that fit, and prices."""
    cells = _merged(problem.points, problem.points.cells)
    load = np.einsum("fn,ncfk->nck", cells.amounts, problem.seconds[cells.kind]).max(axis=1).sum(axis=0)
    slowest = float(load.max(initial=0.0) + problem.fixed.max(initial=0.0)) or 1.0
    setting = Setting(problem, np.zeros(len(problem.capacity)), problem.fixed, slowest)
    spread = solve_explicit(setting, cells)
    first = spread.shares[:, :, None] * cells.amounts.T[:, None, :]
    return replace(setting, scale=spread.value or 1.0), first, [spread.prices]


def _merged(points: Points, label: NDArray[np.intp]) -> Points:
    """One point per label; labels rise with the cells."""
    count = int(label.max(initial=-1)) + 1
    amounts: Array = np.stack([np.bincount(label, row, count) for row in points.amounts])
    cell = np.zeros(count, dtype=np.intp)
    cell[label] = points.cells
    start = np.searchsorted(cell, np.arange(len(points.kind) + 1))
    return Points(amounts, start, points.kind, points.window)


def _taken(points: Points, index: NDArray[np.intp]) -> Points:
    """Some of the points, ``index`` rising."""
    return Points(points.amounts[:, index], np.searchsorted(index, points.start), points.kind, points.window)


def _undecided(setting: Setting, prices: Prices, free: int) -> tuple[NDArray[np.int32], NDArray[np.int8], NDArray[np.bool_]]:
    """Choices that points may take [N] (bit c for choice c), the cheapest choice [N], which points are of a crowd alone [N].

    Open to a point are its cheapest choice and those for which it is among the few points of its cell, of other choices, that
    would pay least more, relative to what they pay. Where many tie there, all of them are open: a crowd.
    """
    problem, points = setting.problem, setting.problem.points
    each = max(4, free // max(1, len(points.kind) * (len(problem.choices) - 1)))
    more = np.full((len(problem.choices), points.count), np.inf)
    guess = np.empty(points.count, dtype=np.int8)
    for piece in priced(problem, points, setting.units(points, prices)):
        here = slice(piece.first, piece.last)
        guess[here] = piece.choice()
        for choice, cost in enumerate(piece.cost):
            if cost is not None:
                more[choice, here] = 0.0  # where all choices are free
                np.divide(cost - piece.least, cost, out=more[choice, here], where=cost > 0.0)
    may = np.left_shift(1, guess, dtype=np.int32)
    alone = np.zeros(points.count, dtype=bool)
    for cell, kind in enumerate(points.kind):
        here = slice(int(points.start[cell]), int(points.start[cell + 1]))
        for choice in np.flatnonzero(problem.allowed[kind]).tolist():
            cost = more[choice, here]
            cost[(guess[here] == choice) | np.isinf(cost)] = np.inf
            limit = max(TIED, float(np.partition(cost, each)[each]) * (1.0 + 1e-9)) if len(cost) > each else 1.0
            near = cost <= limit
            may[here] |= near.astype(np.int32) << choice
            if np.count_nonzero(near) <= 2 * each:
                alone[here] |= near
    return may, guess, ~alone & (may & (may - 1) > 0)


def _runs(points: Points, may: NDArray[np.int32], most: int) -> NDArray[np.intp]:
    """A group for every point: of a cell, of the same open choices, and of one of ``most`` runs."""
    if points.count <= most:
        return np.arange(points.count)
    run = np.arange(points.count) * most // points.count
    return np.asarray(np.unique((points.cells * (int(may.max()) + 1) + may) * most + run, return_inverse=True)[1])


def _recover(setting: Setting, prices: Prices, free: int) -> tuple[ItemPlacement, Prices] | None:
    """A placement where all but about ``free`` items, and what ties, lie where ``prices`` put them, and the duals of the program
    of those; ``None`` if none fits. A crowd is solved in groups; those that a vertex splits are solved again in smaller ones."""
    problem, points = setting.problem, setting.problem.points
    may, choice, crowd = _undecided(setting, prices, free)
    single = ~crowd & (may & (may - 1) > 0)
    shape = (len(points.kind), len(problem.choices))
    sums = _amounts(points, choice, shape)
    duals: Prices | None = None
    while True:
        index = np.flatnonzero(single | crowd)
        current = _taken(points, index)
        inside = crowd[index]
        label = np.arange(len(index))
        label[inside] = len(index) + _runs(_taken(points, index[inside]), may[index[inside]], free)
        _, label = np.unique(current.cells * (2 * len(index) + 1) + label, return_inverse=True)
        groups = _merged(current, label)
        allowed = np.zeros((groups.count, shape[1]), dtype=bool)
        allowed[label] = (may[index][:, None] >> np.arange(shape[1])) & 1
        before = _amounts(current, choice[index], shape)
        used, load = setting.effects(points, np.maximum(sums - before, 0.0))
        total = setting.load.copy()
        np.add.at(total, points.window, load)
        try:
            vertex = solve_explicit(replace(setting, used=used.sum(axis=0), load=total), groups, allowed)
        except DoesNotFit:
            return None
        duals = duals or vertex.prices
        whole = vertex.shares.max(axis=1) == 1.0
        choice[index] = vertex.shares.argmax(axis=1)[label]
        sums += _amounts(current, choice[index], shape) - before
        open_groups = ~whole & (np.bincount(label) > 1)
        if not open_groups.any():
            split = np.flatnonzero(~whole[label])
            return _placement(problem, choice, index[split], vertex.shares[label[split]]), duals
        single[index[(~whole & ~open_groups)[label]]] = True
        crowd = np.zeros(points.count, dtype=bool)
        crowd[index[open_groups[label]]] = True


def _amounts(points: Points, choice: NDArray[np.int8], shape: tuple[int, int]) -> Array:
    """[cells, C, F] amounts of points in their choices."""
    where = points.cells * shape[1] + choice
    return np.stack([np.bincount(where, row, shape[0] * shape[1]).reshape(shape) for row in points.amounts], axis=2)


def _placement(problem: ItemProblem, choice: NDArray[np.int8], split: NDArray[np.intp], shares: Array) -> ItemPlacement:
    """Points' choices as items' choices."""
    order = problem.points.order
    if order is not None:
        placed = np.empty_like(choice)
        placed[order] = choice
        choice, split = placed, order[split]
    rank = np.argsort(split)
    return ItemPlacement(choice, split[rank], shares[rank])


def _mixture(setting: Setting, mixed: Mixed, first: Array) -> ItemPlacement:
    """The mixture of columns itself, each priced again."""
    problem, points = setting.problem, setting.problem.points
    total = first.sum(axis=2, keepdims=True)
    spread = np.divide(first.sum(axis=2), total.sum(axis=1), out=np.zeros(first.shape[:2]), where=total.sum(axis=1) > 0)
    cell = points.cells
    shares = (mixed.weights[0][:, None] * spread)[cell]
    for prices, weight in zip(mixed.trials, mixed.weights[1:], strict=True):
        if weight.any():
            found = assign(problem, points, setting.units(points, prices))
            shares[np.arange(points.count), found.choice] += weight[cell]
    shares = np.where(shares > 1e-12, shares, 0.0)
    shares /= shares.sum(axis=1, keepdims=True)
    parted = np.flatnonzero(shares.max(axis=1) < 1.0)
    return _placement(problem, shares.argmax(axis=1).astype(np.int8), parted, shares[parted])
