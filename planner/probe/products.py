"""Matrix products as the reference run makes them, and how fast they are by rows, dtype and threads.

``product`` multiplies few rows one by one, in blocks of the weights that stay in a core's cache from row to row: BLAS packs a
matrix before it multiplies, which for few rows takes longer than the product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from planner.probe.clock import Spread, timed

Matrix = np.ndarray[Any, np.dtype[Any]]
FEW = 8
"""Rows below which they are multiplied one by one."""
BLOCK_BYTES = 512 * 1024
SIDE = 1024
"""Rows and columns of the matrices measured."""
ROWS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 128, 256, 512)
QUICK_ROWS = (1, 4, 16, 128)
LIMIT_S, SLOW_S = 1.0, 2.0
"""Seconds of the passes of one number of rows, and of one product, from which slower machines get less to do."""
LEAST_SIDE = 128
FAR = 128 * 2**20
"""Bytes of weights that few rows pass in turn, for a rate that no cache helps; many rows pass fewer."""


def product(rows: Matrix, weights: Matrix, out: Matrix | None = None) -> Matrix:
    """``rows @ weights.T``: (M, K) and (N, K) to (M, N)."""
    count = len(rows)
    if out is None:
        out = np.empty((count, len(weights)), dtype=rows.dtype)
    if count >= FEW:
        np.matmul(rows, weights.T, out=out)
    elif count == 1:
        np.dot(weights, rows[0], out=out[0])
    else:
        step = max(BLOCK_BYTES // (weights.shape[1] * weights.itemsize), 1)
        for start in range(0, len(weights), step):
            block = weights[start : start + step]
            for number in range(count):
                np.dot(block, rows[number], out=out[number, start : start + step])
    return out


@dataclass(frozen=True)
class Products:
    """FLOP/s of products with 1024 x 1024 weights by rows, and the most that any product reached."""

    dtype: str
    peak: Spread
    by_rows: tuple[tuple[int, Spread], ...]
    left_out: int = 0
    """Rows from which products were too slow to be repeated; 0 where none were."""


def measure_products(dtype: str, *, quick: bool, runs: int) -> Products:
    """Products of float32 or float64 by rows, on as many threads as BLAS has now; weights come from memory, one after another."""
    kind = {"fp32": np.float32, "fp64": np.float64}[dtype]
    count = FAR // (SIDE * SIDE * np.dtype(kind).itemsize)
    weights = np.full((count, SIDE, SIDE), 0.5, dtype=kind)
    found: list[tuple[int, Spread]] = []
    left_out = 0
    for rows in QUICK_ROWS if quick or dtype != "fp32" else ROWS:
        given = np.full((rows, SIDE), 0.25, dtype=kind)
        out = np.empty((rows, SIDE), dtype=kind)
        one = timed(partial(product, given, weights[0], out), 1, 0.0).value
        if found and one > SLOW_S:
            left_out = rows
            break
        passed = weights[: min(count if rows < 64 else max(count // 4, 1), max(int(LIMIT_S / one), 1))]

        def work(given: Matrix = given, out: Matrix = out, passed: Matrix = passed) -> None:
            for each in passed:
                product(given, each, out)

        found.append((rows, timed(work, runs, LIMIT_S).inverse(2.0 * rows * passed.size)))
    side = SIDE if quick else 2 * SIDE
    while side > LEAST_SIDE and 2.0 * side**3 / found[-1][1].value > SLOW_S:
        side //= 2
    square, into = np.full((side, side), 0.5, dtype=kind), np.empty((side, side), dtype=kind)
    whole = timed(lambda: np.matmul(square, square, out=into), runs, 2.0).inverse(2.0 * side**3)
    return Products(dtype, max([whole, *(rate for _, rate in found)], key=lambda rate: rate.value), tuple(found), left_out)


def curve_points(found: Products) -> tuple[tuple[float, float], ...]:
    """Fractions of the peak by rows as a profile takes them: they never fall, and never rise faster than the rows."""
    points: list[tuple[float, float]] = []
    for rows, rate in found.by_rows:
        fraction = min(rate.value / found.peak.value, 1.0)
        if points:
            before, most = points[-1]
            fraction = min(max(fraction, most), most * rows / before)
        points.append((float(rows), fraction))
    return tuple(points)
