"""Parallel shapes of one serving instance, as columns, and how pipeline stages share the layers.

An instance is ``pp`` stages of ``tp * dp`` devices. Attention runs in ``dp`` groups of ``tp`` devices (attention data
parallelism); where heads are too few to split a cache ``tp`` ways, ``cp`` of them share its tokens in place of copying it
(context parallelism, ``cp`` divides ``tp``). The routed experts are spread over ``ep`` groups of ``moe_tp`` devices,
``ep * moe_tp = tp * dp``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Shapes:
    """Columns of equal length n, one row an instance; ``pp`` is common to all rows."""

    tp: Column
    dp: Column
    ep: Column
    pp: int
    cp: Column = field(default_factory=lambda: np.ones(1))

    def __post_init__(self) -> None:
        if len(self.cp) != len(self.tp):
            object.__setattr__(self, "cp", np.ones_like(self.tp))

    @property
    def width(self) -> Column:
        """Devices of one pipeline stage."""
        return self.tp * self.dp

    @property
    def moe_tp(self) -> Column:
        """Devices that share one routed expert."""
        return self.tp * self.dp / self.ep

    @property
    def devices(self) -> Column:
        """Devices of the instance."""
        return self.tp * self.dp * self.pp

    def take(self, index: NDArray[np.intp] | slice) -> Shapes:
        """The rows of ``index``."""
        return Shapes(self.tp[index], self.dp[index], self.ep[index], self.pp, self.cp[index])

    @staticmethod
    def single(tp: int, dp: int, ep: int, pp: int, cp: int = 1) -> Shapes:
        """One row."""
        tensor, data, expert, context = (np.array([float(size)]) for size in (tp, dp, ep, cp))
        return Shapes(tensor, data, expert, pp, context)


def widths(limit: int) -> tuple[int, ...]:
    """Sizes of groups of devices up to ``limit``: products of twos and at most two threes."""
    found = {2**a * 3**b for a in range(0, 24) for b in range(0, 3) if 2**a * 3**b <= limit}
    return tuple(sorted(found))


def every_stage(
    first_layers: list[int], layers: list[int], total_layers: int, pp: int, at: Sequence[tuple[int, ...]] = ()
) -> list[tuple[int, ...]]:
    """Layers of each window in each of ``pp`` pipeline stages.

    Stage s of pp holds layers ``[floor(s*L/pp), floor((s+1)*L/pp))``. A window with ``first_layer`` -1 (before the layers:
    the embedding) lies in the first stage, one at ``L`` or beyond (the head) in the last; ``at`` names the layers of windows
    whose layers do not adjoin (empty for the others).
    """
    stages: list[tuple[int, ...]] = []
    for stage in range(pp):
        low, high = stage * total_layers // pp, (stage + 1) * total_layers // pp
        row = []
        for number, (first, count) in enumerate(zip(first_layers, layers, strict=True)):
            if at and at[number]:
                row.append(bisect_left(at[number], high) - bisect_left(at[number], low))
            elif first < 0:
                row.append(count if stage == 0 else 0)
            elif first >= total_layers:
                row.append(count if stage == pp - 1 else 0)
            else:
                row.append(max(0, min(high, first + count) - max(low, first)))
        stages.append(tuple(row))
    return stages


def stage_layers(
    first_layers: list[int], layers: list[int], total_layers: int, pp: int, at: Sequence[tuple[int, ...]] = ()
) -> list[tuple[int, ...]]:
    """``every_stage`` with equal stages listed once, in order of first appearance."""
    return list(dict.fromkeys(every_stage(first_layers, layers, total_layers, pp, at)))
