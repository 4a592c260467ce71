"""How many pieces of each layer are away: a multiple-choice knapsack, its relaxation and its exact minimum, without a solver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

OUTWARD = 1e-9
"""Relative amount by which bounds are lowered, above any rounding of their sums."""


@dataclass(frozen=True)
class CountBound:
    """Counts of pieces away per layer that minimise a table of bounds, the minimum, and the multiplier with its own bound."""

    counts: Index
    value: float
    multiplier: float
    relaxed: float


def lagrangian(table: Array, least: int, multiplier: float) -> float:
    """``min sum_l table[l, m_l]`` subject to ``sum m_l >= least``, bounded from below with any multiplier >= 0 (s per piece)."""
    steps = np.arange(table.shape[1])
    return float((table - multiplier * steps).min(axis=1).sum() + multiplier * least)


def best_counts(table: Array, least: int) -> CountBound:
    """Exact minimum of ``sum_l table[l, m_l]`` subject to ``sum m_l >= least``; ``table`` ``(L, E+1)``.

    The multiplier comes from bisection; choices and partial sums whose reduced costs exceed what the relaxation leaves open are
    dropped, and a dynamic program over the number of pieces away runs on the rest.
    """
    layers, choices = table.shape
    steps = np.arange(choices)
    # a count that is no better than a larger one is never needed
    useful = np.concatenate(
        [table[:, :-1] < np.minimum.accumulate(table[:, :0:-1], axis=1)[:, ::-1], np.ones((layers, 1), dtype=bool)], axis=1
    )
    low, high = 0.0, float(table.max() - table.min()) + 1e-300
    for _ in range(80):
        middle = 0.5 * (low + high)
        reduced = table - middle * steps
        # of equal minima the last: most pieces away
        taken = choices - 1 - np.argmin(reduced[:, ::-1], axis=1)
        if taken.sum() >= least:
            high = middle
        else:
            low = middle
    reduced = table - high * steps
    counts = choices - 1 - np.argmin(reduced[:, ::-1], axis=1)
    counts = _trimmed(table, counts, least)
    rows = np.arange(layers)
    found = float(table[rows, counts].sum())
    multiplier = max((low, high), key=lambda value: lagrangian(table, least, value))
    relaxed = lagrangian(table, least, multiplier)
    open_ = (found - relaxed) * (1 + 1e-9) + 1e-12 * abs(found)
    reduced = table - multiplier * steps
    reduced = np.where(useful, reduced - reduced.min(axis=1, keepdims=True), np.inf)
    order = np.argsort((reduced <= open_).sum(axis=1), kind="stable")
    value = np.zeros(1)
    base = 0
    history: list[tuple[int, Index]] = []
    for layer in order:
        kept = np.flatnonzero(reduced[layer] <= open_)
        first, width = int(kept[0]), int(kept[-1] - kept[0]) + len(value)
        fresh = np.full(width, np.inf)
        chosen = np.zeros(width, dtype=np.intp)
        for choice in kept:
            at = slice(int(choice) - first, int(choice) - first + len(value))
            trial = value + reduced[layer, choice]
            better = trial < fresh[at]
            fresh[at][better] = trial[better]
            chosen[at][better] = choice
        fresh[fresh > open_] = np.inf
        base += first
        live = np.flatnonzero(np.isfinite(fresh))
        value, chosen = fresh[live[0] : live[-1] + 1], chosen[live[0] : live[-1] + 1]
        base += int(live[0])
        history.append((base, chosen))
    sums = base + np.arange(len(value))
    final = np.where(sums >= least, value + multiplier * (sums - least), np.inf)
    total = int(sums[np.argmin(final)])
    counts = np.zeros(layers, dtype=np.intp)
    for layer, (start, chosen) in zip(order[::-1], history[::-1], strict=True):
        counts[layer] = chosen[total - start]
        total -= int(counts[layer])
    return CountBound(counts, float(table[rows, counts].sum()), multiplier, relaxed)


def _trimmed(table: Array, counts: Index, least: int) -> Index:
    """Counts lowered one layer at a time, by most time per layer, while ``least`` pieces stay away."""
    counts = counts.copy()
    while True:
        spare = int(counts.sum()) - least
        best, change = 0.0, None
        for layer, count in enumerate(counts):
            lowest = max(0, int(count) - spare)
            at = lowest + int(np.argmin(table[layer, lowest : count + 1]))
            if table[layer, count] - table[layer, at] > best:
                best, change = float(table[layer, count] - table[layer, at]), (layer, at)
        if change is None:
            return counts
        counts[change[0]] = change[1]
