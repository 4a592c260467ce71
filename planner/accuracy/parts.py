"""Pass times split into parts that fitted figures scale, so that a fit needs no pass to be timed twice.

A block takes ``floor + max(compute, memory) + network``, where compute is a sum of parts each over an efficiency, memory a sum
of parts each over a rate's share, and network a sum of parts each times a factor. With the parts at efficiency, share and factor
1 all times follow for any figures: ``seconds`` repeats ``planner.performance.passes`` on them (a test compares both).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.groups import Group
from planner.footprint.shapes import Column
from planner.performance import Load, PassTimes, pass_times
from planner.performance.load import decode_load_of, prefill_load_of
from planner.performance.passes import more_matrices

PARTS = ("dense", "routed", "attention", "static", "experts", "cache", "reduce", "travel")
KINDS = ("attention", "mlp", "moe")
_ENDLESS = 1e30


@dataclass(frozen=True)
class Parts:
    """Parts of a pass in seconds [n rows, B blocks, 8] (``PARTS``)."""

    seconds: NDArray[np.float64]

    def between(self, other: Parts, share: Column) -> Parts:
        """Part way to another pass of the same rows."""
        return Parts(self.seconds + share[:, None, None] * (other.seconds - self.seconds))


@dataclass(frozen=True)
class Frame:
    """Of the blocks of n rows: kind [n, B] (index in ``KINDS``, else -1), repeats in a pass, matrices beyond a plain block's."""

    kind: NDArray[np.intp]
    repeats: NDArray[np.float64]
    more: NDArray[np.float64]


def decode_parts(group: Group, batch: Column) -> Parts:
    """Parts of a decode step of ``batch`` sequences a rank."""
    pool = group.pool
    return _parts(group, decode_load_of(batch, group.context, group.variation, pool.pieces, pool.rates))


def prefill_parts(group: Group, chunk: Column) -> Parts:
    """Parts of a prefill pass of ``chunk`` tokens a rank (0: none)."""
    pool = group.pool
    found = _parts(group, prefill_load_of(np.maximum(chunk, 1.0), group.isl, 0.0, pool.pieces))
    return Parts(found.seconds * (chunk > 0.0)[:, None, None])


def frame_of(group: Group) -> Frame:
    """The blocks of a group's rows, in the order of ``Parts``, as its slowest stage runs them."""
    times = _timed(
        group, decode_load_of(np.ones_like(group.isl), group.context, group.variation, group.pool.pieces, group.pool.rates)
    )
    stage = int(np.argmax(np.max(np.stack(times.stage_times()), axis=1)))
    kinds, repeats, more = [], [], []
    for window, times_a_pass in zip(group.pool.pieces.windows, times.repeats[stage], strict=False):
        for block in window.blocks:
            kinds.append(KINDS.index(block.kind) if block.kind in KINDS else -1)
            repeats.append(times_a_pass)
            more.append(float(more_matrices(block)))
    n = len(group.isl)
    return Frame(np.tile(kinds, (n, 1)), np.tile(repeats, (n, 1)), np.tile(more, (n, 1)))


def _timed(group: Group, load: Load, **changes: object) -> PassTimes:
    return pass_times(group.pool.pieces, group.shapes, replace(group.pool.rates, **changes), load)  # type: ignore[arg-type]


def _parts(group: Group, load: Load) -> Parts:
    """Three passes: in each one kind of arithmetic takes time, in one also one kind of traffic."""
    passes = [
        _timed(
            group,
            load,
            efficiency={name: 1.0 if name == kind else _ENDLESS for name in PARTS[:3]},
            all_reduce=float(kind == "dense"),
            all_to_all=float(kind == "routed"),
        )
        for kind in PARTS[:3]
    ]
    memory = group.pool.rates.memory_bytes_per_s
    blocks = []
    for number in range(len(group.pool.pieces.windows)):
        for index, block in enumerate(passes[0].windows[number]):
            compute = [times.windows[number][index].compute for times in passes]
            reads = [
                (block.static_read + block.lookup_read) / memory,
                block.routed_read / memory,
                (block.cache_read + block.cache_write) / memory,
            ]
            network = [times.windows[number][index].communication for times in passes[:2]]
            blocks.append(np.stack([*compute, *reads, *network], axis=1))
    return Parts(np.stack(blocks, axis=1))
