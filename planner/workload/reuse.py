"""What a cache of prefixes finds of a trace, for every capacity and every time of keeping, in one pass.

Two caches of blocks are followed, both LRU, both empty at the start:

*prefix*  what planner means by a hit, and what engines do. A request looks up its blocks when it arrives; a block hits only if
          all blocks before it in the request do. It then uses its blocks from the last to the first, so that the end of a request
          leaves the cache before its beginning. Counted in input tokens.
*blocks*  what is published of traces: each block for itself, looked up and used from the first to the last.

A block *kept for T* is found again iff its last use is at most T ago; it takes room for min(time to the next use, T).

Blocks are followed by a sample where they are too many (Waldspurger et al., FAST 2015): only those whose hash mixes to less than
a threshold, halved whenever more than ``most_live`` blocks are known. Of one block in k, a stack distance of d is one of k*d.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.workload.stack import NEVER, Stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from planner.workload.traces import Requests

CAPACITIES = np.array([digit * 10**power for power in range(13) for digit in (1, 2, 5)])
"""Blocks."""
KEPT_S = np.array(
    [
        *(1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0),
        *(3600.0, 7200.0, 14_400.0, 28_800.0, 86_400.0, 172_800.0, 604_800.0, 2_592_000.0),
    ]
)
"""Seconds."""
MOST_LIVE = 2**19
PIECE = 2**18
"""Uses that are followed at once."""


@dataclass(frozen=True)
class Reuse:
    """What was found. Shares of all input tokens, but for ``block_hits`` of all blocks; sizes in tokens of whole blocks."""

    block_tokens: int
    capacities: tuple[int, ...]
    """Blocks; up to the first that holds everything."""
    prefix_hits: tuple[float, ...]
    block_hits: tuple[float, ...]
    infinite_hit: float
    infinite_block_hit: float
    blocks: int
    """Uses of blocks."""
    distinct: int
    """Different blocks; an estimate where one in ``sampled`` is followed."""
    sampled: int
    kept_s: tuple[float, ...]
    kept_hits: tuple[float, ...]
    kept_tokens: tuple[float, ...]
    """Mean tokens in the cache that keeps a block for so long after its last use."""


def mixed(ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Hashes whose bits are all alike random (the finaliser of splitmix64)."""
    x = ids.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


class Follower:
    """Follows the blocks of a trace: ``add`` its requests in order, then ``result``."""

    def __init__(self, block_tokens: int, *, most_live: int = MOST_LIVE, piece: int = PIECE) -> None:
        self.block_tokens, self.most_live, self.piece = block_tokens, most_live, piece
        self.halvings = 0
        self._prefix, self._single = Stack(), Stack()
        self._waiting: list[tuple[NDArray[Any], ...]] = []
        self._waits = 0
        self._requests = self._input_tokens = self._uses = 0
        self._use_tokens = 0.0
        self._end_s = 0.0
        sizes = len(CAPACITIES) + 1
        self._by_prefix, self._by_block, self._distinct = np.zeros(sizes), np.zeros(sizes), 0.0
        self._kept_hits, self._gaps, self._gap_s = np.zeros(len(KEPT_S) + 1), np.zeros(len(KEPT_S) + 1), np.zeros(len(KEPT_S) + 1)

    def add(self, requests: Requests) -> None:
        """Requests after those added before."""
        assert requests.blocks is not None and requests.starts is not None
        counts = np.diff(requests.starts)
        of = np.repeat(np.arange(len(requests)), counts)
        place = np.arange(len(requests.blocks)) - requests.starts[of]
        tokens = np.minimum(requests.input_tokens[of] - place * self.block_tokens, self.block_tokens)
        self._input_tokens += int(requests.input_tokens.sum())
        self._uses += len(of)
        self._use_tokens += float(tokens.sum())
        self._end_s = float(requests.arrival_s[-1])
        row = (requests.blocks, requests.arrival_s[of], of + self._requests, tokens)
        self._requests += len(requests)
        self._wait(row)

    def _wait(self, row: tuple[NDArray[Any], ...]) -> None:
        chosen = self._chosen(row[0])
        row = tuple(column[chosen] for column in row) if self.halvings else row
        self._waiting.append(row)
        self._waits += len(row[0])
        if self._waits >= self.piece:
            self._follow()

    def _chosen(self, ids: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(mixed(ids) >> np.uint64(64 - self.halvings) == 0) if self.halvings else np.ones(len(ids), dtype=bool)

    def _follow(self) -> None:
        """Work through what waits."""
        if not self._waits:
            return
        ids, times, request, tokens = (np.concatenate(column) for column in zip(*self._waiting, strict=True))
        self._waiting, self._waits = [], 0
        scale = float(2**self.halvings)
        begins = np.flatnonzero(np.append(True, request[1:] != request[:-1]))
        start = np.repeat(begins, np.diff(np.append(begins, len(ids))))
        end = np.repeat(np.append(begins[1:], len(ids)), np.diff(np.append(begins, len(ids))))

        turned = start + end - 1 - np.arange(len(ids))
        distance, idle, gaps = self._prefix.use(ids[turned], times, request, start)
        distance, idle = distance[turned], idle[turned]  # back to the order of the request
        size = _worst_so_far(_places(CAPACITIES, distance, scale), request)
        time = _worst_so_far(np.searchsorted(KEPT_S, idle), request)
        self._by_prefix += np.bincount(size, tokens * scale, minlength=len(self._by_prefix))
        self._kept_hits += np.bincount(time, tokens * scale, minlength=len(self._kept_hits))
        self._hold(gaps[np.isfinite(gaps)], scale)
        self._distinct += scale * float(np.isinf(gaps).sum())

        each, _, _ = self._single.use(ids, times, np.arange(len(ids)), np.arange(len(ids)))
        self._by_block += np.bincount(_places(CAPACITIES, each, scale), minlength=len(self._by_block)) * scale

        while len(self._prefix.ids) > self.most_live:
            self.halvings += 1
            for stack in (self._prefix, self._single):
                stack.keep(self._chosen(stack.ids))

    def _hold(self, seconds: NDArray[np.float64], scale: float) -> None:
        """A block lay for so long until its next use, or the end."""
        place = np.searchsorted(KEPT_S, seconds)
        self._gaps += np.bincount(place, minlength=len(self._gaps)) * scale
        self._gap_s += np.bincount(place, seconds, minlength=len(self._gap_s)) * scale

    def result(self) -> Reuse:
        """What the requests added found; the follower is spent."""
        self._follow()
        self._hold(self._end_s - self._prefix.used_s, float(2**self.halvings))
        covered = self._use_tokens / max(self._input_tokens, 1)
        prefix = np.cumsum(self._by_prefix) / max(self._by_prefix.sum(), 1.0) * covered
        single = np.cumsum(self._by_block) / max(self._by_block.sum(), 1.0)
        kept = np.cumsum(self._kept_hits) / max(self._kept_hits.sum(), 1.0) * covered
        span = self._end_s or 1.0
        longer = self._gaps.sum() - np.cumsum(self._gaps)[:-1]
        held = (np.cumsum(self._gap_s)[:-1] + longer * KEPT_S) / span * self.block_tokens
        last = int(np.searchsorted(CAPACITIES, self._distinct)) + 1
        times = int(np.searchsorted(KEPT_S, self._end_s)) + 1
        return Reuse(
            block_tokens=self.block_tokens,
            capacities=tuple(CAPACITIES[:last].tolist()),
            prefix_hits=tuple(prefix[:last].tolist()),
            block_hits=tuple(single[:last].tolist()),
            infinite_hit=float(prefix[-2]),
            infinite_block_hit=float(single[-2]),
            blocks=self._uses,
            distinct=round(self._distinct),
            sampled=2**self.halvings,
            kept_s=tuple(KEPT_S[:times].tolist()),
            kept_hits=tuple(kept[:-1][:times].tolist()),
            kept_tokens=tuple(held[:times].tolist()) if self._end_s else (0.0,) * len(KEPT_S[:times]),
        )


def _places(grid: NDArray[Any], distances: NDArray[np.int64], scale: float) -> NDArray[Any]:
    """Index of the least capacity that holds each distance; ``len(grid)`` for none."""
    return np.asarray(np.where(distances == NEVER, len(grid), np.searchsorted(grid, distances * scale)))


def _worst_so_far(places: NDArray[Any], request: NDArray[np.int64]) -> NDArray[Any]:
    """The largest of each request's places up to each of them; requests stand one after the other."""
    step = int(places.max(initial=0)) + 1
    base = (request - request[0]) * step
    return np.asarray(np.maximum.accumulate(places + base) - base)
