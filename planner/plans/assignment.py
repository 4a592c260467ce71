"""Who takes over from whom: the pairing of counted classes that saves most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pair_classes(saved: NDArray[np.float64], supply: NDArray[np.int64], demand: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of each old class (row) become each new class (column) so that the sum of ``saved`` is greatest [O, N].

    ``saved`` >= 0; ``supply`` and ``demand`` count the members of each class; what finds no partner saves nothing. Exact: columns
    are served one after another along the best augmenting path, which keeps a greatest sum for what is served (a min-cost flow by
    successive shortest paths). Ties go to the lower row.
    """
    old, new = saved.shape
    cost = np.vstack([-saved, np.zeros((1, new))])
    free = np.append(supply, int(demand.sum()))
    flow = np.zeros((old + 1, new), dtype=np.int64)
    for column in range(new):
        left = int(demand[column])
        while left > 0:
            open_rows = free > 0
            best = int(np.argmin(cost[:, column]))
            if open_rows[best]:
                path, amount = [(best, column)], int(free[best])
            else:
                path, amount = _shortest(cost, flow, open_rows, column)
                amount = min(amount, int(free[path[-1][0]]))
            amount = min(amount, left)
            for position, (row, at) in enumerate(path):
                flow[row, at] += amount
                if position + 1 < len(path):
                    flow[row, path[position + 1][1]] -= amount
            free[path[-1][0]] -= amount
            left -= amount
    return flow[:old]


def _shortest(
    cost: NDArray[np.float64], flow: NDArray[np.int64], open_rows: NDArray[np.bool_], column: int
) -> tuple[list[tuple[int, int]], int]:
    """The cheapest way to serve one more of ``column``: ``(row, column)`` links, each row giving up what it had for the next
    column, the last row free; and how many it can carry (Bellman-Ford: costs may be negative, cycles are not)."""
    rows, columns = cost.shape
    at_column, at_row = np.full(columns, np.inf), np.full(rows, np.inf)
    at_column[column] = 0.0
    to_row, to_column = np.zeros(rows, dtype=np.int64), np.zeros(columns, dtype=np.int64)
    small = 1e-12 * float(np.abs(cost).max())
    while True:
        reach = at_column[None, :] + cost
        best = np.argmin(reach, axis=1)
        value = reach[np.arange(rows), best]
        nearer = value < at_row - small
        at_row[nearer], to_row[nearer] = value[nearer], best[nearer]
        back = np.where(flow > 0, at_row[:, None] - cost, np.inf)
        row = np.argmin(back, axis=0)
        value = back[row, np.arange(columns)]
        nearer = value < at_column - small
        if not nearer.any():
            break
        at_column[nearer], to_column[nearer] = value[nearer], row[nearer]
    end = int(np.argmin(np.where(open_rows, at_row, np.inf)))
    path, here = [(end, int(to_row[end]))], int(to_row[end])
    most = np.iinfo(np.int64).max
    while here != column:
        row_before = int(to_column[here])
        most = min(most, int(flow[row_before, here]))
        here = int(to_row[row_before])
        path.append((row_before, here))
    return path[::-1], int(most)
