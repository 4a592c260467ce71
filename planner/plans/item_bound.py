"""The tier problem of single items: which share of every expert, cache part or table slice lies in which memory.

Items ``i`` of kind ``g`` in overlap window ``w`` take one of the choices ``c`` (a memory and the way it is read), in shares
``x_ic >= 0`` that sum to the item's copies. With F amounts per item (bytes held, then what a step moves) everything an item
does to the rows of the program is linear in its amounts, so a million items need no matrix:

    min  sum_w weight_w * T_w
    s.t. sum_ic amount_0i occupies_ct x_ic <= capacity_t                                    [price lambda_t >= 0]
         T_w >= fixed_wk + sum_{i in w} sum_f amount_fi seconds_{g(i) c f k} x_ic           [price y_wk >= 0]

For any prices with ``sum_k y_wk <= weight_w`` (``T_w >= 0``, since nothing here is negative) the Lagrangian

    sum_wk y_wk fixed_wk - sum_t lambda_t capacity_t + sum_i copies_i min_c (cost of choice c at those prices)

is at most the optimum: each price multiplies a term that is not positive at a feasible point, and the minimum per item is at
most what the item pays there. No solver is needed to check it. Every cost is a sum of products of non-negative numbers, so the
sums err by at most their terms times the unit roundoff; ``ROUNDING`` of the sums' magnitude is taken off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

Array = NDArray[np.float64]
Integers = NDArray[np.integer]

ROUNDING = 1e-11
"""Taken off bounds, relative to the magnitude of the sums they come from. Terms are not negative and are added in pieces of
``CHUNK``, so whatever the order the error is below ``(CHUNK + pieces + terms of one cost) * 2**-53``: 1e-11 up to 10^9 items."""

CHUNK = 1 << 15
"""Items priced at a time: their amounts and costs stay in the processor's cache, and memory in use does not grow."""


@dataclass(frozen=True, eq=False)
class ItemProblem:
    """Typed arrays of one tier problem. ``I`` items, ``G`` kinds, ``W`` windows, ``C`` choices, ``T`` memories, ``K`` resources.

    amounts: [F, I] of one copy: bytes held first, then what one step moves (bytes, operations, rows: what ``seconds`` is per).
    kind, window: [I] integers below G and W.
    seconds: [G, C, F, K] seconds of resource k per unit of amount f for an item of that kind in that choice. What cannot
        hide (a router's choice known only when it is needed) is time of a resource of its own, on top of the window's base.
    allowed: [G, C] which choices a kind may take.
    divisible: [G] whether an item of the kind may lie in two memories.
    occupies: [C, T] bytes taken of memory t per byte held in choice c.
    capacity: [T] bytes, ``inf`` for as much as wanted.
    fixed: [W, K] seconds each resource is busy whatever the placement; weight: [W] windows in the objective.
    copies: [I], all 1 if not given.

    Choices are in order of preference: among equal optima the earlier choice is taken.
    """

    amounts: Array
    kind: Integers
    window: Integers
    seconds: Array
    allowed: NDArray[np.bool_]
    divisible: NDArray[np.bool_]
    occupies: Array
    capacity: Array
    fixed: Array
    weight: Array
    choices: tuple[str, ...]
    memories: tuple[str, ...]
    resources: tuple[str, ...]
    copies: Array | None = None

    def __post_init__(self) -> None:
        items = self.kind.shape[0]
        kinds, choices, amounts, resources = self.seconds.shape
        windows, memories = self.weight.shape[0], self.capacity.shape[0]
        wanted: dict[str, tuple[int, ...]] = {
            "amounts": (amounts, items),
            "window": (items,),
            "allowed": (kinds, choices),
            "divisible": (kinds,),
            "occupies": (choices, memories),
            "fixed": (windows, resources),
        }
        if self.copies is not None:
            wanted["copies"] = (items,)
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"has shape {getattr(self, name).shape}, not {shape}", where=name)
        named = (len(self.choices), len(self.memories), len(self.resources))
        if named != (choices, memories, resources):
            raise InputError(f"{named} choices, memories and resources are named, not {(choices, memories, resources)}")
        for name in ("amounts", "seconds", "occupies", "fixed", "weight", "capacity", "copies"):
            array = getattr(self, name)
            if array is None:
                continue
            least = float(array.min(initial=0.0))
            if not least >= 0.0 or (name != "capacity" and not np.isfinite(array.max(initial=0.0))):
                raise InputError("holds a number that is negative, infinite or none", where=name)
        for name, count in (("kind", kinds), ("window", windows)):
            array = getattr(self, name)
            if not np.issubdtype(array.dtype, np.integer) or (items and not (array.min() >= 0 and array.max() < count)):
                raise InputError(f"is not of integers from 0 to {count - 1}", where=name)
        if not self.allowed.any(axis=1).all():
            raise InputError("leaves a kind of item without a choice", where="allowed")

    @cached_property
    def points(self) -> Points:
        """The items ordered by cell, copies multiplied in."""
        cell = self.window.astype(np.intp) * len(self.allowed) + self.kind
        order = None
        if np.any(cell[1:] < cell[:-1]):
            order = np.argsort(cell.astype(np.int16) if cell.max(initial=0) < 2**15 else cell, kind="stable")
            cell = cell[order]
        amounts = self.amounts if self.copies is None else self.amounts * self.copies
        if order is not None:
            amounts = amounts[:, order]
        present, first = np.unique(cell, return_index=True)
        window, kind = np.divmod(present, len(self.allowed))
        return Points(amounts, np.append(first, len(cell)), kind, window, order)


@dataclass(frozen=True, eq=False)
class Points:
    """What is placed, ordered by cell (a kind in a window): amounts [F, N].

    Cell j is ``start[j]:start[j + 1]``, of ``kind[j]`` and ``window[j]``. ``order`` gives each point's item, ``None`` where the
    points are the items as given.
    """

    amounts: Array
    start: NDArray[np.intp]
    kind: NDArray[np.intp]
    window: NDArray[np.intp]
    order: NDArray[np.intp] | None = None

    @property
    def count(self) -> int:
        return int(self.amounts.shape[1])

    @cached_property
    def cells(self) -> NDArray[np.intp]:
        """[N] the cell of every point."""
        return np.repeat(np.arange(len(self.kind)), np.diff(self.start))


@dataclass(frozen=True, eq=False)
class Prices:
    """``memory``: [T] objective per byte; ``resource``: [W, K] objective per second, at most ``weight_w`` in sum per window."""

    memory: Array
    resource: Array

    def towards(self, other: Prices, share: float) -> Prices:
        """The mixture with ``share`` of ``other``."""
        return Prices(
            self.memory + share * (other.memory - self.memory), self.resource + share * (other.resource - self.resource)
        )


def legal(problem: ItemProblem, prices: Prices) -> Prices:
    """Prices made legal: none negative, none on what is unlimited, each window's resources worth its weight (or nothing)."""
    memory = np.where(np.isfinite(problem.capacity), np.maximum(prices.memory, 0.0), 0.0)
    resource = np.maximum(prices.resource, 0.0)
    total = resource.sum(axis=1)
    return Prices(memory, resource * (problem.weight / np.where(total > 0.0, total, 1.0))[:, None])


def unit_prices(problem: ItemProblem, prices: Prices, kind: Integers, window: Integers) -> Array:
    """[cells, C, F] cost of one unit of each amount of an item in each choice."""
    units: Array = np.einsum("gcfk,gk->gcf", problem.seconds[kind], prices.resource[window])
    units[:, :, 0] += problem.occupies @ prices.memory
    return units


@dataclass(frozen=True, eq=False)
class Piece:
    """Points ``first:last`` of one cell with the cost [n] of each choice (``None``: not allowed) and the least of them [n]."""

    cell: int
    first: int
    last: int
    cost: list[Array | None]
    least: Array

    def choice(self) -> NDArray[np.int8]:
        """[n] the first choice of least cost."""
        found = np.zeros(self.last - self.first, dtype=np.int8)
        for number in range(len(self.cost) - 1, -1, -1):
            cost = self.cost[number]
            if cost is None:
                continue
            here = (cost <= self.least).view(np.int8)
            found += here * (np.int8(number) - found)
        return found


def priced(problem: ItemProblem, points: Points, units: Array) -> Iterator[Piece]:
    """Every point's costs at ``units`` [cells, C, F], in pieces of at most ``CHUNK``.

    Sums run over amounts in one order, item by item: no matrix product, so no number depends on threads or blocking.
    """
    for cell, kind in enumerate(points.kind):
        for first in range(int(points.start[cell]), int(points.start[cell + 1]), CHUNK):
            last = min(first + CHUNK, int(points.start[cell + 1]))
            cost: list[Array | None] = []
            least: Array | None = None
            for choice, may in enumerate(problem.allowed[kind]):
                if not may:
                    cost.append(None)
                    continue
                unit = units[cell, choice]
                used = np.flatnonzero(unit)
                if not len(used):
                    total = np.zeros(last - first)
                else:
                    total = points.amounts[used[0], first:last] * unit[used[0]]
                    for row in used[1:]:
                        total += points.amounts[row, first:last] * unit[row]
                cost.append(total)
                least = total if least is None else np.minimum(least, total)
            assert least is not None  # every kind has a choice
            yield Piece(cell, first, last, cost, least)


def lower_bound(problem: ItemProblem, prices: Prices) -> float:
    """A bound on the optimum (objective's unit) from any prices, rounded outward; the module's docstring has the proof."""
    prices = legal(problem, prices)
    points = problem.points
    units = unit_prices(problem, prices, points.kind, points.window)
    paid = sum(float(piece.least.sum()) for piece in priced(problem, points, units))
    return bracket_bound(problem, prices, paid)


def bracket_bound(problem: ItemProblem, prices: Prices, paid: float) -> float:
    """The Lagrangian's value, rounded outward, where items pay ``paid`` in all at legal ``prices``."""
    limited = np.isfinite(problem.capacity)
    granted = float(prices.memory[limited] @ problem.capacity[limited])
    fixed = float((prices.resource * problem.fixed).sum())
    return paid + fixed - granted - ROUNDING * (paid + fixed + granted)


def overflow_bound(problem: ItemProblem, memory: Array) -> float:
    """The least fraction by which limited memories must all grow for the items to fit, from any prices [T] per byte.

    ``inf`` where no growth of an empty memory would do, at most 0 where the prices prove nothing. Items that fit memories grown
    by e pay at most ``(1 + e) sum_t memory_t capacity_t``, and never less than their cheapest choice.
    """
    memory = np.where(np.isfinite(problem.capacity), np.maximum(memory, 0.0), 0.0)
    points = problem.points
    units = unit_prices(problem, Prices(memory, np.zeros_like(problem.fixed)), points.kind, points.window)
    paid = sum(float(piece.least.sum()) for piece in priced(problem, points, units)) * (1.0 - ROUNDING)
    granted = float(memory @ np.where(np.isfinite(problem.capacity), problem.capacity, 0.0))
    if granted:
        return paid / granted - 1.0
    return np.inf if paid > 0.0 else 0.0


@dataclass(frozen=True, eq=False)
class ItemPlacement:
    """Where items lie: ``choice`` [I] of those in one place; ``split`` names the others, of ``shares`` [S, C] that sum to 1."""

    choice: NDArray[np.int8]
    split: NDArray[np.intp]
    shares: Array


@dataclass(frozen=True, eq=False)
class ItemTimes:
    """What a placement does: loads [W, K] and window times [W] in seconds, bytes used [T], objective."""

    load: Array
    time: Array
    used: Array
    value: float


def evaluate_items(problem: ItemProblem, placement: ItemPlacement) -> ItemTimes:
    """Loads, times and objective of a placement; ``InputError`` if its shares are none."""
    _check(problem, placement)
    kinds, choices = problem.allowed.shape
    cells = len(problem.weight) * kinds
    where = (problem.window.astype(np.intp) * kinds + problem.kind) * choices + placement.choice
    copies = np.ones(len(problem.kind)) if problem.copies is None else problem.copies
    scale = copies.copy()
    scale[placement.split] = 0.0
    sums = np.empty((len(problem.amounts), cells * choices))
    base = where[placement.split] - placement.choice[placement.split]
    spots = base[:, None] + np.arange(choices)
    for row, amount in enumerate(problem.amounts):
        sums[row] = np.bincount(where, weights=amount * scale, minlength=cells * choices)
        parts = (amount[placement.split] * copies[placement.split])[:, None] * placement.shares
        np.add.at(sums[row], spots, parts)
    table = sums.reshape(-1, len(problem.weight), kinds, choices)
    used = np.einsum("wgc,ct->t", table[0], problem.occupies)
    load = problem.fixed + np.einsum("fwgc,gcfk->wk", table, problem.seconds)
    time = load.max(axis=1)
    return ItemTimes(load, time, used, float(problem.weight @ time))


def _check(problem: ItemProblem, placement: ItemPlacement) -> None:
    count = len(problem.choices)
    if placement.choice.shape != problem.kind.shape or placement.shares.shape != (len(placement.split), count):
        raise InputError("does not fit the items", where="placement")
    if len(placement.choice) and not (placement.choice.min() >= 0 and placement.choice.max() < count):
        raise InputError(f"names a choice that is none of {count}", where="placement")
    if len(set(placement.split.tolist())) != len(placement.split):
        raise InputError("splits an item twice", where="placement")
    whole = np.ones(len(placement.choice), dtype=bool)
    whole[placement.split] = False
    if not problem.allowed[problem.kind, placement.choice][whole].all():
        raise InputError("puts an item where its kind may not lie", where="placement")
    refused = ~problem.allowed[problem.kind[placement.split]]
    if (
        (placement.shares < 0).any()
        or placement.shares[refused].any()
        or (np.abs(placement.shares.sum(axis=1) - 1) > 1e-12).any()
    ):
        raise InputError("has shares that are negative, not allowed or do not sum to 1", where="placement")
