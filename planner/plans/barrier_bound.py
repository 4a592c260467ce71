"""Whole experts over memories and devices with a barrier in every layer: the problem, its bound and the check of a map.

``L`` layers of ``E`` pieces (experts or replicas) lie whole on ``D`` equal devices, each with ``slots`` pieces of room in its
memory over all layers; what has no slot is *away* (host memory) and is brought at every pass. A piece loads rows of
time (memory, link, compute, or sums of them where nothing overlaps); a layer ends when its slowest device does:

    minimise  sum_l max_r (offset[r, l] + max_d load[r, l, d])

with ``load`` the sum of ``resident`` or ``away`` seconds of the device's pieces. Arrays are numpy, times seconds.

The bound holds for every map. Write ``f_l(m)`` for the least time of layer l with m pieces away, on any devices. Then no map
beats ``min sum_l f_l(m_l)`` over counts with ``sum m_l >= L E - D slots``, whatever ``f`` is replaced by from below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.plans.count_bound import OUTWARD, best_counts

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BarrierProblem:
    """``resident`` and ``away`` ``(R, L, E)`` seconds a piece loads each row with, ``offset`` ``(R, L)`` seconds beside them."""

    resident: Array
    away: Array
    offset: Array
    devices: int
    slots: int

    def __post_init__(self) -> None:
        rows, layers, pieces = self.resident.shape
        if self.away.shape != self.resident.shape or self.offset.shape != (rows, layers):
            raise InputError("resident, away and offset differ in shape", where="experts")
        if not rows or not layers or not pieces or self.devices < 1 or self.slots < 0:
            raise InputError("needs rows, layers, pieces, devices and no negative slots", where="experts")
        for part in (self.resident, self.away, self.offset):
            if not np.isfinite(part).all() or part.min() < 0.0:
                raise InputError("times must be finite and not negative", where="experts")

    @property
    def least_away(self) -> int:
        """Pieces that cannot all lie in device memory."""
        _, layers, pieces = self.resident.shape
        return int(max(0, layers * pieces - self.devices * self.slots))


def expert_barrier(
    chance: Array,
    tokens: float,
    piece_bytes: float,
    compute_s: Array,
    memory_bytes_per_s: float,
    link_bytes_per_s: float,
    mode: Literal["prefetch", "gated"],
    devices: int,
    slots: int,
) -> BarrierProblem:
    """The problem of routed experts: ``chance`` ``(L, E)`` that a token picks a piece, ``compute_s`` ``(L, E)`` of its products.

    A piece is wanted by ``tokens`` tokens with probability ``u = 1-(1-p)^tokens``, which is the share of its bytes read.
    ``prefetch``: pieces away are streamed whole ahead of the layer, through the link and once more into device memory; memory,
    link and compute overlap. ``gated``: what the router asks for is fetched when it is known, before the rest of the layer, so
    the link adds to memory and to compute. As in ``planner.plans.tiers``.
    """
    wanted = -np.expm1(tokens * np.log1p(-np.minimum(chance, 1.0 - 1e-15)))
    read = wanted * piece_bytes / memory_bytes_per_s
    none = np.zeros_like(read)
    if mode == "prefetch":
        whole = none + piece_bytes
        resident = np.stack([read, none, compute_s])
        away = np.stack([read + whole / memory_bytes_per_s, whole / link_bytes_per_s, compute_s])
    else:
        fetched = wanted * piece_bytes / link_bytes_per_s
        resident = np.stack([read, compute_s])
        away = np.stack([read + fetched, compute_s + fetched])
    return BarrierProblem(resident, away, np.zeros(resident.shape[:2]), devices, slots)


def mixtures(rows: int, steps: int = 8) -> Array:
    """``(K, rows)`` convex weights of the rows: each row alone, and each pair of rows at ``steps - 1`` inner points."""
    weights = list(np.eye(rows))
    for first in range(rows):
        for second in range(first + 1, rows):
            for step in range(1, steps):
                weight = np.zeros(rows)
                weight[first], weight[second] = 1.0 - step / steps, step / steps
                weights.append(weight)
    return np.array(weights)


def fullest(ascending: Array, devices: int) -> Array:
    """``(L, E+1)`` least load of the fullest device if the first m of ``ascending`` ``(L, E)`` are shared out, for every m.

    Of the largest ``D (k-1) + 1`` of them some device holds k, at least the k smallest of those. As each of m other pieces is no
    smaller than its like in rank among the m smallest, this holds for any m pieces. Derivation: pigeonhole, every k.
    """
    layers, pieces = ascending.shape
    total = np.concatenate([np.zeros((layers, 1)), np.cumsum(ascending, axis=1)], axis=1)
    most = np.zeros((layers, pieces + 1))
    for held in range(1, -(-pieces // devices) + 1):
        top = devices * (held - 1) + 1
        first = np.arange(pieces - top + 1)
        np.maximum(most[:, top:], total[:, first + held] - total[:, first], out=most[:, top:])
    return most


def overfull(resident: Array, away: Array, devices: int, losses: int = 12) -> Array:
    """``(L, E+1)`` bound from the devices that hold more than t pieces away, for every t and m.

    Let n_d be the pieces away on device d, ``base = min(resident, away)`` and ``extra = max(away - resident, 0)`` of a piece, and
    ``Delta_j`` the sum of the j smallest extras. A device with j pieces away and base pieces C besides has load at least
    ``C + Delta_j``.
    1. Beside a piece of base c, t pieces away are at least t - 1 others, whose t - 1 bases are at least ``B_{t-1}``, the sum of
       the smallest: if all loads are at most T, a device that holds a piece with ``c + Delta_t + B_{t-1} > T`` has fewer than t
       away. A device with t - j away has room ``s_j = T - Delta_{t-j} <= j s_1`` for bases, so the r largest, of sum C_r, cost
       at least ``C_r / s_1`` pieces away together: ``sum_d max(t - n_d, 0) >= l`` for every ``l - 1 < C_r / s_1``, so for
       ``T < T_l = max_r min(c_r + Delta_t + B_{t-1}, Delta_{t-1} + C_r / (l - 1))``. The step ``s_j <= j s_1`` needs
       ``T >= Delta_t``, so the result is used only where it is above that (what is impossible at T is impossible below T).
    2. Then ``sum_d max(n_d - t, 0) >= x = m - t D + l``. On the h devices that exceed t lie at least ``x + t h`` pieces away; the
       mean of these loads is at least ``S(x + t h) / h``, S the sum of the smallest away times; ``G = min_h`` of it.
    So no T below ``min(T_l, G)`` is possible, and below G where l = 0.
    """
    layers, pieces = away.shape
    most = np.zeros((layers, pieces + 1))
    zero = np.zeros((layers, 1))
    total = np.concatenate([zero, np.cumsum(np.sort(away, axis=1), axis=1)], axis=1)
    extra = np.concatenate([zero, np.cumsum(np.sort(np.maximum(away - resident, 0.0), axis=1), axis=1)], axis=1)
    base = np.sort(np.minimum(away, resident), axis=1)
    small = np.concatenate([zero, np.cumsum(base, axis=1)], axis=1)
    large = base[:, : -2 * losses - 1 : -1]
    sums = np.cumsum(large, axis=1)
    excess = np.arange(1, devices + 1)
    for held in range(-(-pieces // devices) + 1):
        share = np.full((layers, devices), np.inf)
        for over in range(1, devices + 1):
            needed = excess[over - 1 :] + held * over
            fits = needed <= pieces
            columns = excess[over - 1 :][fits] - 1
            share[:, columns] = np.minimum(share[:, columns], total[:, needed[fits]] / over)
        share = np.where(np.isfinite(share), share, 0.0)
        for lost in range(losses + 1 if held else 1):
            away_counts = excess + held * devices - lost
            valid = (away_counts >= 0) & (away_counts <= pieces)
            bound = share[:, valid]
            if lost:
                reach = np.full_like(large, np.inf) if lost == 1 else extra[:, held - 1, None] + sums / (lost - 1)
                reach = np.minimum(large + (extra[:, held] + small[:, held - 1])[:, None], reach).max(axis=1, keepdims=True)
                bound = np.minimum(bound, reach)
                bound = np.where((lost == 1) | (bound > extra[:, held, None] * (1.0 + OUTWARD)), bound, 0.0)
            at = away_counts[valid]
            most[:, at] = np.maximum(most[:, at], bound)
    return most


def unfilled(resident: Array, away: Array, offset: Array, devices: int, table: Array, points: int = 192) -> Array:
    """``table`` ``(L, E+1)`` raised where no device can hold two pieces away and what room is left beside one cannot be filled.

    Below the two least away times together each of m pieces away has a device of its own. Beside one of time b there is room
    ``g = T - b``, and j resident pieces of ``[c_q, c_max]`` fill between ``j c_q`` and ``j c_max``: for
    ``j = floor(g / c_q)`` at least ``w = g - j c_max`` is lost, ``w <= c_q``, save on the q devices that hold one of the q pieces
    below ``c_q``. Hence ``D T >= sum base + (sum of the m smallest extra + w) - q c_q``, for every T on a grid.
    """
    layers, pieces = away.shape
    if devices < 2 or pieces < 2:
        return table
    most = table.copy()
    filling = np.sort(resident, axis=1)
    total = np.minimum(away, resident).sum(axis=1)
    two = np.sort(away, axis=1)[:, :2].sum(axis=1)
    near = min(pieces, devices + 32)
    extra = np.maximum(away - resident, 0.0)
    order = np.argsort(extra, axis=1, kind="stable")[:, :near]
    time = np.take_along_axis(away, order, axis=1)
    extra = np.take_along_axis(extra, order, axis=1)
    rest = extra[:, -1]  # no piece beyond these adds less
    last = min(devices, pieces)
    low = table[:, 1] - offset
    high = np.minimum(1.03 * table[:, last] - offset, two)
    worth = (high > low) & (low > 0.0)
    at = np.flatnonzero(worth)
    if not len(at):
        return table
    grid = low[at, None] * (high[at] / low[at])[:, None] ** np.linspace(0.0, 1.0, points)
    room = grid[:, :, None] - time[at, None, :]
    for small in (0, 2, 8):
        if small >= pieces:
            continue
        least, greatest = filling[at, small, None, None], filling[at, -1, None, None]
        if not least.min() > 0.0:
            continue
        lost = np.maximum(room - np.floor(room / least * (1.0 + OUTWARD) + OUTWARD) * greatest, 0.0)
        cost = np.where(room >= 0.0, extra[at, None, :] + lost, np.inf)
        cost = np.cumsum(np.sort(np.minimum(cost, rest[at, None, None]), axis=2), axis=2)
        budget = devices * grid * (1.0 + OUTWARD) - total[at, None] + small * least[:, :, 0]
        possible = (cost <= budget[:, :, None]).sum(axis=2)
        # more pieces away than are possible at a time take longer
        where, point = np.nonzero(possible < near)
        raised = np.zeros((layers, pieces + 1))
        np.maximum.at(raised, (at[where], possible[where, point] + 1), grid[where, point] + offset[at[where]])
        np.maximum(most, np.maximum.accumulate(raised, axis=1), out=most)
    return most


def layer_bounds(problem: BarrierProblem) -> Array:
    """``(L, E+1)`` lower bound on a layer's time with exactly m pieces away.

    For any convex weights of the rows the maximum over rows is at least the weighted sum, which makes one row of them. Then
    - mean: the least sum over devices, with the m pieces away that add least, over D;
    - fullest device by what is away, by what is resident, and by all at the lesser of the two times;
    - ``overfull`` devices; and for each row by itself room that stays ``unfilled``.
    """
    _, layers, pieces = problem.resident.shape
    best = np.zeros((layers, pieces + 1))
    for weight in mixtures(len(problem.resident)):
        resident = np.tensordot(weight, problem.resident, axes=1)
        away = np.tensordot(weight, problem.away, axes=1)
        offset = (weight @ problem.offset)[:, None]
        added = np.cumsum(np.sort(away - resident, axis=1), axis=1)
        mean = resident.sum(axis=1, keepdims=True) + np.concatenate([np.zeros((layers, 1)), added], axis=1)
        np.maximum(best, offset + mean / problem.devices, out=best)
        np.maximum(best, offset + fullest(np.sort(away, axis=1), problem.devices), out=best)
        np.maximum(best, offset + fullest(np.sort(resident, axis=1), problem.devices)[:, ::-1], out=best)
        np.maximum(best, offset + overfull(resident, away, problem.devices), out=best)
        either = np.sort(np.minimum(away, resident), axis=1)
        np.maximum(best, offset + fullest(either, problem.devices)[:, -1:], out=best)
    for row in range(len(problem.resident)):
        best = unfilled(problem.resident[row], problem.away[row], problem.offset[row], problem.devices, best)
    return best


def barrier_bound(problem: BarrierProblem, table: Array | None = None) -> float:
    """Seconds that no map of ``problem`` beats."""
    table = layer_bounds(problem) if table is None else table
    return best_counts(table, problem.least_away).value * (1.0 - OUTWARD)


def evaluate_map(problem: BarrierProblem, device: Index, away: Mask) -> tuple[float, Index]:
    """Objective (s) of a map and pieces in each device's memory: ``device`` ``(L, E)`` in 0..D-1, ``away`` ``(L, E)``.

    From the map alone; ``InputError`` where a device is over its slots or the map has the wrong form.
    """
    _, layers, pieces = problem.resident.shape
    if device.shape != (layers, pieces) or away.shape != (layers, pieces):
        raise InputError("has another shape than the pieces", where="map")
    if device.min() < 0 or device.max() >= problem.devices:
        raise InputError("names a device that is not there", where="map")
    held = np.bincount(device[~away], minlength=problem.devices)
    if held.max() > problem.slots:
        raise InputError(f"puts {held.max()} pieces into {problem.slots} slots", where="map")
    return float(device_loads(problem, device, away).max(axis=(0, 2)).sum()), held


def device_loads(problem: BarrierProblem, device: Index, away: Mask) -> Array:
    """``(R, L, D)`` s of every row on every device, ``offset`` included."""
    rows, layers, _ = problem.resident.shape
    cell = (np.arange(layers)[:, None] * problem.devices + device).ravel()
    load = np.empty((rows, layers, problem.devices))
    for row in range(rows):
        seconds = np.where(away, problem.away[row], problem.resident[row]).ravel()
        sums = np.bincount(cell, weights=seconds, minlength=layers * problem.devices)
        load[row] = problem.offset[row][:, None] + sums.reshape(layers, problem.devices)
    return load
