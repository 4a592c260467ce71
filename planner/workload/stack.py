"""Exact LRU stack distances of a long stream, a piece at a time, with numpy.

An LRU cache of C blocks holds the C blocks used last, so a use hits iff fewer than C other blocks were used since the last use
of its block: iff its *stack distance*, that number and one, is at most C (Mattson et al. 1970). One pass answers for all C.

Number the uses 0, 1, 2, … and let prev(s) be the last use of the block of s before s, or -1. For a block last used at p, the
blocks used in (p, t) are counted by their first use there: those s in (p, t) with prev(s) <= p. All s <= p have prev(s) <= p, so

    distance = #{s < t: prev(s) <= p} - (p + 1) + 1

which a wavelet matrix answers for all uses at once (Claude, Navarro and Ordóñez 2015). Between two pieces only the order of
the blocks is kept: put before the next piece as one use each, oldest first, they give the same distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = 2**62
"""Distance of a block that was not used before."""


def count_below(values: NDArray[Any], upto: NDArray[Any], bounds: NDArray[Any]) -> NDArray[np.int64]:
    """For each query the number of ``values[:upto]`` that are less than its bound; all are whole and not negative.

    O((len(values) + len(upto)) * bits) with bits of the largest value, in arrays of int32 (at most 2**31 - 2 values).
    """
    found = np.zeros(len(upto), dtype=np.int64)
    if not len(values) or not len(upto):
        return found
    rest, bounds = np.asarray(values, dtype=np.int32), np.asarray(bounds, dtype=np.int32)
    left, right = np.zeros(len(upto), dtype=np.int32), np.asarray(upto, dtype=np.int32)
    bits = int(max(rest.max(), bounds.max())).bit_length()
    before = np.zeros(len(rest) + 1, dtype=np.int32)
    for bit in reversed(range(bits)):
        ones = (rest >> bit & 1).astype(bool)
        np.cumsum(~ones, out=before[1:])
        zeros = before[-1]
        low, high = before[left], before[right]
        up = (bounds >> bit & 1).astype(bool)
        found += np.where(up, high - low, 0)
        left, right = np.where(up, zeros + left - low, low), np.where(up, zeros + right - high, high)
        rest = np.concatenate([rest[~ones], rest[ones]])
    return found


class Stack:
    """The blocks of a stream in order of their last use, with its time."""

    def __init__(self) -> None:
        self.ids: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.used_s: NDArray[np.float64] = np.zeros(0)

    def use(
        self, ids: NDArray[np.int64], times: NDArray[np.float64], groups: NDArray[np.int64], starts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Use blocks one after the other, each [n]: ``(distances, idle_s, gaps_s)``, with ``NEVER`` and infinity for new blocks.

        Each use looks up what the cache held before use number ``starts[i] <= i`` of this piece: distance and idle time are to
        the last use by another group (``groups`` rise, and a look-up is not after another group's use); ``gaps_s`` is the time to
        the block's last use by whomever.
        """
        live, count = len(self.ids), len(ids)
        every = np.concatenate([self.ids, ids])
        used = np.concatenate([self.used_s, times])
        group = np.concatenate([np.full(live, -1), groups])
        order = np.argsort(every, kind="stable")
        alike = every[order[1:]] == every[order[:-1]]
        previous = np.full(live + count, -1)
        previous[order[1:][alike]] = order[:-1][alike]
        other = self._other(order, alike, group)

        mine, their = previous[live:], other[live:]
        gaps = np.where(mine >= 0, times - used[mine], np.inf)
        known = np.flatnonzero(their >= 0)
        distances, idle = np.full(count, NEVER), np.full(count, np.inf)
        last = their[known]
        distances[known] = count_below(previous + 1, live + starts[known], last + 2) - last
        idle[known] = times[known] - used[last]

        ends = np.sort(order[np.append(~alike, True)]) if len(order) else order
        self.ids, self.used_s = every[ends], used[ends]
        return distances, idle, gaps

    @staticmethod
    def _other(order: NDArray[Any], alike: NDArray[Any], group: NDArray[Any]) -> NDArray[np.int64]:
        """The last use of the same block by another group, or -1, for each use."""
        found = np.full(len(order), -1)
        if not len(order):
            return found
        fresh = np.append(True, ~alike | (group[order[1:]] != group[order[:-1]]))
        begins = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
        has = begins > 0
        has[has] = alike[begins[has] - 1]
        found[order[has]] = order[begins[has] - 1]
        return found

    def keep(self, chosen: NDArray[Any]) -> None:
        """Forget the blocks that are not chosen [live]."""
        self.ids, self.used_s = self.ids[chosen], self.used_s[chosen]
