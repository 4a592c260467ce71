"""Hit-rate curves without a trace: shared documents of a given popularity, and sessions that come back after a while.

**Documents** (retrieval, system prompts). N prefixes of L tokens; each request begins with one of them, drawn independently with
probability p_i. Che's approximation (Che, Tung and Wang 2002): an LRU cache of C documents keeps each for about the same time,
the time in which C different ones are drawn. Counted in requests, that is t with

    sum_i (1 - exp(-p_i * t)) = C        and document i is found with probability 1 - exp(-p_i * t),

so a request finds L * sum_i p_i (1 - exp(-p_i * t)) tokens. What is found depends on C, not on the rate: the curve, whose sizes
are for every request a second, holds for the rate it was made with.

**Sessions** (chats, agents). A session has n rounds. The first brings ``first`` tokens; a round appends ``append`` tokens of
input to all before and generates ``output`` tokens, so that after round k the cache holds
``c_k = first + k (append + output)``, and round k + 1 reads ``c_k + append`` tokens of which c_k are found if they were kept.
Between two rounds lies a pause, exponential with mean Z. Kept for T after its last use, a session's cache is found with
probability ``F = 1 - exp(-T/Z)``:

    share found = F * sum_{k<n} c_k / (first + append + sum_{k<n} (c_k + append))

and takes room for min(pause, T), T after the last round. By Little's law a request a second keeps

    (1/n) * (sum_{k<n} c_k * Z (1 - exp(-T/Z)) + c_n * T)        tokens,

whatever the rate. The time of a request itself counts as none. An LRU cache of that size keeps for about T (as above).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from planner.errors import InputError
from planner.workload.prefix import rising

if TYPE_CHECKING:
    from numpy.typing import NDArray

SINGLE_RANKS = 4096
GROWTH = 1.002
"""Ranks beyond the first are taken together, in groups that grow by so much."""
LITTLE, REST = 0.1, 1e-4
MAX_DOCUMENTS = 10**12
MAX_ROUNDS = 100_000
MAX_EXPONENT = 16.0


def zipf_groups(documents: int, exponent: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """``(documents in each group, probability of one of them)`` when document i is drawn in proportion to ``i ** -exponent``.

    Beyond the first ranks a sum is the integral between half ranks, to about ``exponent**2 / 24 / rank**2`` of it.
    """
    if not 1 <= documents <= MAX_DOCUMENTS or not 0.0 <= exponent <= MAX_EXPONENT:
        what = f"{documents} documents with exponent {exponent:g}"
        raise InputError(what, mend=f"give 1 to {MAX_DOCUMENTS:.0e} documents and an exponent from 0 to {MAX_EXPONENT:g}")
    head = min(documents, SINGLE_RANKS)
    counts, weights = np.ones(head), np.arange(1, head + 1, dtype=float) ** -exponent
    if documents > head:
        steps = math.ceil(math.log(documents / head) / math.log(GROWTH))
        edges = np.unique(np.round(np.geomspace(head, documents, steps + 1)))
        low, high = edges[:-1] + 0.5, edges[1:] + 0.5
        if abs(exponent - 1.0) < 1e-9:
            mass = np.log(high / low)
        else:
            mass = (high ** (1.0 - exponent) - low ** (1.0 - exponent)) / (1.0 - exponent)
        counts, weights = np.append(counts, np.diff(edges)), np.append(weights, mass / np.diff(edges))
    return counts, weights / (counts * weights).sum()


def che_hit_rate(counts: NDArray[Any], each: NDArray[Any], capacity: float) -> float:
    """Share of draws that an LRU cache of ``capacity`` finds, of ``counts`` items of probability ``each`` (both [groups])."""
    if capacity <= 0.0:
        return 0.0
    if capacity >= counts.sum():
        return 1.0
    low, high = 0.0, capacity
    while float(-(counts * np.expm1(-each * high)).sum()) < capacity:
        low, high = high, 2.0 * high
    for _ in range(200):
        middle = (low + high) / 2.0
        if not low < middle < high:
            break
        low, high = (middle, high) if float(-(counts * np.expm1(-each * middle)).sum()) < capacity else (low, middle)
    return float(-(counts * each * np.expm1(-each * high)).sum())


def document_curve(
    *, documents: int, exponent: float, document_tokens: float, question_tokens: float, rate_per_s: float, points: int
) -> tuple[tuple[float, float], ...]:
    """``(tokens kept for every request a second, share of input tokens found)`` for so many sizes: from a ten-thousandth of the
    documents, or fewer where those bring more than ``LITTLE`` of all hits, up to all, or to what brings all but ``REST``."""
    counts, each = zipf_groups(documents, exponent)
    share = document_tokens / (document_tokens + question_tokens)
    least, most = max(1.0, documents / 1e4), float(documents)
    while least > 1.0 and che_hit_rate(counts, each, least) > LITTLE:
        least = max(1.0, least / 10.0)
    while most / 10.0 > least and che_hit_rate(counts, each, most / 10.0) > 1.0 - REST:
        most /= 10.0
    sizes = np.unique(np.round(np.geomspace(least, most, points)))
    found = [(size * document_tokens / rate_per_s, che_hit_rate(counts, each, size) * share) for size in sizes.tolist()]
    return rising(found)


@dataclass(frozen=True)
class Sessions:
    """Sessions of ``rounds`` rounds with pauses of ``pause_s`` on average, in tokens; see above."""

    rounds: int
    first: float
    append: float
    output: float
    pause_s: float

    def __post_init__(self) -> None:
        sizes = (self.first, self.append, self.output)
        if not 1 <= self.rounds <= MAX_ROUNDS or not all(0.0 <= size <= 1e9 for size in sizes) or not 0.0 < self.pause_s <= 1e9:
            raise InputError(
                f"no sessions: {self}", mend=f"give 1 to {MAX_ROUNDS} rounds, tokens up to 1e9 and a pause above 0 s"
            )
        if not self.append + self.first > 0.0:
            raise InputError("sessions without input", mend="give tokens to append")

    def held(self, rounds: int) -> float:
        """Tokens in the cache after so many rounds."""
        return self.first + rounds * (self.append + self.output)

    @property
    def _known(self) -> float:
        """Tokens found in a session whose cache is always kept."""
        last = self.rounds - 1
        return last * self.first + (self.append + self.output) * last * (last + 1) / 2.0

    @property
    def input_tokens(self) -> float:
        """Mean input tokens of a request."""
        return (self.first + self.rounds * self.append + self._known) / self.rounds

    def kept_for(self, seconds: float) -> tuple[float, float]:
        """``(tokens kept for every request a second, share of input tokens found)`` when a cache is kept so long."""
        back = -math.expm1(-seconds / self.pause_s)
        tokens = (self._known * self.pause_s * back + self.held(self.rounds) * seconds) / self.rounds
        return tokens, back * self._known / self.rounds / self.input_tokens

    def curve(self, points: int) -> tuple[tuple[float, float], ...]:
        """Points kept from a tenth of the pause to ten times as long."""
        return rising([self.kept_for(self.pause_s * ratio) for ratio in np.geomspace(0.1, 10.0, points).tolist()])
