"""Whole experts onto memories and devices with a barrier in every layer: counts per layer, shares per device, labels.

1. ``plans.barrier_bound`` bounds every layer for every count of pieces away; a knapsack over layers chooses the counts.
2. In each layer pieces go to devices by a greedy start and then by swaps between pairs of devices (``planner.search.swaps``).
3. Devices are alike within a layer, so labels are free: they are chosen so that no device's memory overflows.

Nothing here is trusted: the objective of the result is that of ``evaluate_map``, from the map alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from planner.plans.barrier_bound import (
    Array,
    BarrierProblem,
    Index,
    Mask,
    device_loads,
    evaluate_map,
    layer_bounds,
)
from planner.plans.count_bound import OUTWARD, best_counts
from planner.search.swaps import members, swapped

CLOSE = 2e-4
"""Relative excess over its bound at which a layer is not improved further."""

AGAIN, FIT = 2e-3, 6e-3
"""Excess over its bound at which a layer starts again from devices filled up to ``FIT`` over the bound."""


@dataclass(frozen=True)
class BarrierPlan:
    """``device`` and ``away`` ``(L, E)``; ``objective`` and ``bound`` in s.

    ``multiplier``: s that one more slot saves in the relaxation over layers.
    """

    device: Index
    away: Mask
    objective: float
    bound: float
    multiplier: float

    @property
    def gap(self) -> float:
        """Relative excess of the objective over the bound."""
        if self.objective == self.bound:
            return 0.0
        return self.objective / self.bound - 1.0 if self.bound > 0.0 else math.inf


def place_experts(problem: BarrierProblem) -> BarrierPlan:
    """A map of every piece to a device and a memory, its time and the bound on all maps. Pure numpy, deterministic."""
    table = layer_bounds(problem)
    master = best_counts(table, problem.least_away)
    goal = table[np.arange(len(table)), master.counts]
    device, away = greedy(problem, master.counts)
    device, away = swapped(problem, device, away, goal * (1.0 + CLOSE))
    open_ = np.flatnonzero(_worst(problem, device, away) > goal * (1.0 + AGAIN))
    if len(open_):
        part = replace(problem, **{name: getattr(problem, name)[:, open_] for name in ("resident", "away", "offset")})
        other, gone = _fitted(part, master.counts[open_], goal[open_] * (1.0 + FIT))
        other, gone = swapped(part, other, gone, goal[open_] * (1.0 + CLOSE))
        better = _worst(part, other, gone) < _worst(part, device[open_], away[open_])
        device[open_[better]], away[open_[better]] = other[better], gone[better]
    device = relabelled(device, away, problem.devices, problem.slots)
    device = rehomed(problem, device, away)
    objective, _ = evaluate_map(problem, device, away)
    return BarrierPlan(device, away, objective, master.value * (1.0 - OUTWARD), master.multiplier)


def longest_first(cost: Array, start: Array, devices: int, least: Index | None = None, limit: Array | None = None) -> Index:
    """``(L, E)`` device of each piece: the largest piece first, each to where the largest row ends lowest.

    ``cost`` ``(R, L, E)`` s, ``start`` ``(R, L)`` s that every device has from the outset; each gets at least ``least`` ``(L,)``
    pieces, the last ones if need be. With ``limit`` ``(L,)`` s a piece goes where it ends highest without passing it.
    """
    _, layers, pieces = cost.shape
    order = np.argsort(-cost.max(axis=0), axis=1, kind="stable")
    load = np.repeat(start[:, :, None], devices, axis=2)
    held = np.zeros((layers, devices), dtype=np.intp)
    each = np.arange(layers)
    device = np.zeros((layers, pieces), dtype=np.intp)
    for step in range(pieces):
        piece = order[:, step]
        added = cost[:, each, piece]
        trial = load + added[:, :, None]
        score = trial.max(axis=0) + 1e-6 * trial.sum(axis=0)
        if limit is not None:
            worst = trial.max(axis=0)
            score = np.where(worst <= limit[:, None], -worst, score)
        if least is not None:
            short = np.maximum(least[:, None] - held, 0)
            score[(short == 0) & (short.sum(axis=1) >= pieces - step)[:, None]] = np.inf
        chosen = np.argmin(score, axis=1)
        load[:, each, chosen] += added
        held[each, chosen] += 1
        device[each, piece] = chosen
    return device


def greedy(problem: BarrierProblem, counts: Index) -> tuple[Index, Mask]:
    """Device and memory of every piece with ``counts`` ``(L,)`` away: the better of two starts in each layer.

    Either the pieces whose time away is least are away and all go longest first, or all go as if resident, about as many to
    each device, and become away one by one where the device ends lowest.
    """
    away = _least_away(problem, counts)
    device = longest_first(np.where(away, problem.away, problem.resident), problem.offset, problem.devices)
    other, gone = _status_last(problem, counts)
    better = _worst(problem, other, gone) < _worst(problem, device, away)
    device[better], away[better] = other[better], gone[better]
    return device, away


def _least_away(problem: BarrierProblem, counts: Index) -> Mask:
    rank = np.argsort(np.argsort(problem.away.max(axis=0), axis=1, kind="stable"), axis=1)
    return np.asarray(rank < counts[:, None])


def _fitted(problem: BarrierProblem, counts: Index, limit: Array) -> tuple[Index, Mask]:
    """The start that fills devices up to ``limit`` ``(L,)`` s one after another: small pieces close the last gaps."""
    away = _least_away(problem, counts)
    return longest_first(np.where(away, problem.away, problem.resident), problem.offset, problem.devices, limit=limit), away


def _worst(problem: BarrierProblem, device: Index, away: Mask) -> Array:
    return np.asarray(device_loads(problem, device, away).max(axis=(0, 2)))


def _status_last(problem: BarrierProblem, counts: Index) -> tuple[Index, Mask]:
    rows, layers, pieces = problem.resident.shape
    devices = problem.devices
    device = longest_first(problem.resident, problem.offset, devices, np.minimum(-(-counts // devices), pieces // devices))
    away = np.zeros((layers, pieces), dtype=bool)
    load = device_loads(problem, device, away)
    extra = problem.away - problem.resident
    order = np.argsort(extra.max(axis=0), axis=1, kind="stable")
    member, size = members(np.take_along_axis(device, order, axis=1), devices)
    each = np.arange(layers)
    padded_order = np.concatenate([order, np.full((layers, 1), pieces)], axis=1)
    member = padded_order[each[:, None, None], member]
    padded = np.concatenate([extra, np.full((rows, layers, 1), np.inf)], axis=2)
    taken = np.zeros_like(size)
    grid = np.arange(devices)
    for step in range(int(counts.max())):
        piece = member[each[:, None], grid, taken]
        chosen = np.argmin((load + padded[:, each[:, None], piece]).max(axis=0), axis=1)
        layer = each[step < counts]
        at = chosen[layer]
        gone = piece[layer, at]
        away[layer, gone] = True
        load[:, layer, at] += extra[:, layer, gone]
        taken[layer, at] += 1
    return device, away


def relabelled(device: Index, away: Mask, devices: int, slots: int) -> Index:
    """The same shares under other labels, layer by layer, so that every device holds about as many resident pieces.

    First the fullest share of each layer goes to the emptiest device; then, while a device is over its slots, two devices
    exchange their shares of a layer where that lowers the sum of squares most.
    """
    layers = len(device)
    cell = (np.arange(layers)[:, None] * devices + device)[~away]
    held = np.bincount(cell, minlength=layers * devices).reshape(layers, devices)
    used = np.zeros(devices, dtype=np.intp)
    label = np.zeros((layers, devices), dtype=np.intp)
    for layer in np.argsort(held.min(axis=1) - held.max(axis=1), kind="stable"):
        fullest = np.argsort(-held[layer], kind="stable")
        emptiest = np.argsort(used, kind="stable")
        label[layer, fullest] = emptiest
        used[emptiest] += held[layer, fullest]
    of = np.zeros_like(held)
    np.put_along_axis(of, label, held, axis=1)
    while used.max() > slots:
        most = int(np.argmax(used))
        gain = of[:, most, None] - of
        value = gain * (used[most] - used - gain)
        layer, other = (int(index) for index in np.unravel_index(int(np.argmax(value)), value.shape))
        exchanged = [layer]
        if value[layer, other] <= 0:
            pair = gain[:, None] + gain[None, :]
            value = pair * (used[most] - used - pair)
            value[np.arange(layers), np.arange(layers)] = 0
            layer, second, other = (int(index) for index in np.unravel_index(int(np.argmax(value)), value.shape))
            if value[layer, second, other] <= 0:
                break
            exchanged = [layer, second]
        for layer in exchanged:
            used[most] -= gain[layer, other]
            used[other] += gain[layer, other]
            of[layer, most], of[layer, other] = of[layer, other], of[layer, most]
            at_most, at_other = label[layer] == most, label[layer] == other
            label[layer, at_most], label[layer, at_other] = other, most
    return np.take_along_axis(label, device, axis=1)


def rehomed(problem: BarrierProblem, device: Index, away: Mask) -> Index:
    """``device`` with resident pieces moved from devices over their slots to devices under them, the least felt first."""
    device = device.copy()
    held = np.bincount(device[~away], minlength=problem.devices)
    if held.max() <= problem.slots:
        return device
    load = device_loads(problem, device, away)
    for over in np.flatnonzero(held > problem.slots):
        for _ in range(int(held[over]) - problem.slots):
            under = np.flatnonzero(held < problem.slots)
            layer, piece = np.nonzero((device == over) & ~away)
            added = problem.resident[:, layer, piece]
            after = (load[:, layer][:, :, under] + added[:, :, None]).max(axis=0)
            growth = np.maximum(after - load.max(axis=(0, 2))[layer, None], 0.0)
            best = int(np.lexsort((after.ravel(), growth.ravel()))[0])
            which, to = np.divmod(best, len(under))
            to = under[to]
            load[:, layer[which], over] -= added[:, which]
            load[:, layer[which], to] += added[:, which]
            device[layer[which], piece[which]] = to
            held[over] -= 1
            held[to] += 1
    return device
