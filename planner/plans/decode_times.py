"""Decode steps that are asked for again and again: by other objectives, other limits and other prefill passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.footprint import Shapes
from planner.footprint.shapes import Column
from planner.plans.context import PoolContext
from planner.plans.evaluate import decode_seconds

MOST_BATCHES = 1 << 20


class DecodeTimes:
    """Decode steps of the slowest stage with everything in device memory (s), by row of shapes and batch, each computed once."""

    def __init__(self, pool: PoolContext, shapes: Shapes) -> None:
        self._pool, self._shapes, self.rows = pool, shapes, len(shapes.tp)
        self._keys: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._seconds: Column = np.zeros(0)

    def at(self, row: NDArray[np.intp], batch: Column) -> Column:
        """The step of each row at each (whole) batch."""
        keys = row.astype(np.int64) * MOST_BATCHES + batch.astype(np.int64)
        place = self._find(keys)
        missing = np.unique(keys[place < 0])
        if len(missing):
            number, size = np.divmod(missing, MOST_BATCHES)
            seconds = decode_seconds(self._pool, self._shapes.take(number), size.astype(float))
            every = np.concatenate([self._keys, missing])
            order = np.argsort(every, kind="stable")
            self._keys, self._seconds = every[order], np.concatenate([self._seconds, seconds])[order]
            place = self._find(keys)
        return np.asarray(self._seconds[place])

    def _find(self, keys: NDArray[np.int64]) -> NDArray[np.intp]:
        """Where keys are, -1 where they are not."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        place = np.searchsorted(self._keys, keys)
        place[place == len(self._keys)] = 0
        return np.asarray(np.where(self._keys[place] == keys, place, -1))


def decode_times(pool: PoolContext, shapes: Sequence[Shapes]) -> list[DecodeTimes]:
    """One table for each group of shapes; pools on the same hardware may share them."""
    return [DecodeTimes(pool, group) for group in shapes]
