"""Waits of random (Poisson) arrivals: servers that take several at once, several servers, processors that are shared.

Pure functions of numbers: rates per second, times in seconds. ``None`` where a queue grows without end.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_STATES, MOST_STATES = 32, 256
LAST_SHARE = 1e-6
"""The chain of passes grows until its last states are this rare together."""
MOST_TURNS = 4
"""Servers in turn that are told from more: arrivals of each are all but regular."""
ROUNDS, CLOSE = 12, 1e-4
FEW = 1e-6
"""Arrivals in a gap that is too short to be told from none."""


@dataclass(frozen=True)
class Bulk:
    """A server of batches: mean wait until a batch starts, mean seconds of the batch that a request is in, share of time at
    work, and how many are in the batch of a request, itself included."""

    wait_s: float
    service_s: float
    busy: float
    together: float

    def mixed(self, other: Bulk, part: float) -> Bulk:
        """So much of another."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Bulk(*(a + part * (b - a) for a, b in pairs))


@dataclass(frozen=True)
class _Chain:
    """Share of looks that find nobody. Of a batch: mean requests, their square, seconds, seconds times requests, the span until
    the next look. Requests times seconds that they wait: those left behind, who come in a batch, and what these and who comes in
    the gap wait in the gap. ``states``: that it took."""

    none: float
    count: float
    square: float
    seconds: float
    each: float
    span: float
    left: float
    fresh: float
    between: float
    states: int


def bulk_wait(rate: float, seconds: Floats, gap: float = 0.0) -> Bulk | None:
    """One server that takes all who wait, up to ``len(seconds)``, ``seconds[k - 1]`` for k of them.

    ``gap`` seconds follow every batch, and repeat while nobody waits (0: the server idles until one comes). The number that waits
    whenever a batch may start is a Markov chain (Neuts 1967, the general bulk service rule); its stationary distribution gives
    the mean number that waits over time, and Little's law the wait.
    """
    return shared_queue(rate, seconds, 1, gap)


def shared_queue(rate: float, seconds: Floats, servers: int, gap: float = 0.0, unit: int = 1) -> Bulk | None:
    """Several servers of ``bulk_wait``; who comes goes where its batch would begin first. ``rate``: of one server, on average.

    It goes to a server that is in no batch, if there is one. So a server in a batch gets the share ``C / load`` of its rate, C
    being the probability that all are at work (Erlang), in turns with the others, and the rest when it is in none: the chain with
    the ``load`` that makes both agree. Who comes waits the rest of a batch, half of it on average.

    Servers with a ``gap`` are chosen by the sequences that they have, which differ by one at most: of u servers with the
    fewest, u being one to all of them alike, one that is in no batch, so that the share is the mean of ``load**(u - 1)``. But a
    server has the fewest once a sequence of it is done, at the end of a gap: where a batch follows at once, it is chosen during
    that.

    ``unit``: parts of a request that ``seconds`` counts, where a batch may end within one; it is done with its last.
    """
    if rate * (seconds[-1] + gap) * unit >= len(seconds):
        return None
    first = float(seconds[min(unit, len(seconds)) - 1])
    if rate * gap < FEW:
        gap = 0.0
    turns, states, free, before = min(servers, MOST_TURNS), FEWEST_STATES, 1.0, (0.0, 0.0)
    load = min(rate, 1.0 / (first + gap)) * first * (1.0 - 1e-6)
    for turn in range(ROUNDS):
        part = 1.0
        if servers > 1:
            avoided = (1.0 - load**servers) / (servers * (1.0 - load))
            part = 1.0 - free * (1.0 - avoided) if gap else erlang_wait(load, servers) / load
        found = _chain(rate * part, rate * (1.0 - part * load) / (1.0 - load), seconds, gap, turns, states, unit=unit)
        cycle = found.span if gap else found.count / rate if servers > 1 else found.span + found.none / rate
        new, states = min(found.seconds / cycle, 1.0 - 1e-9), found.states
        error, settled = new - load, not gap or abs(found.none - free) <= CLOSE
        if servers == 1 or abs(error) <= CLOSE and settled:
            break
        step = error
        if turn and before[1] != error and settled:
            step = -error * (load - before[0]) / (error - before[1])
        before, free = (load, error), found.none
        load = min(max(load + step, 0.5 * load), 0.5 * (1.0 + load))
    wait = (found.left + found.fresh + found.between) / cycle / rate
    return Bulk(wait, found.each / found.count, new, found.square / found.count)


def one_queue(rate: float, seconds: Floats, servers: int, ranks: int = 1) -> Bulk | None:
    """Servers of ``bulk_wait`` that take turns at one queue. ``rate``: of one server, on average.

    Who comes goes to a rank that nobody waits for, of the server that begins first; only when there is none, to a second place at
    a rank. So a server takes as many as it has ``ranks``, and of all who wait beyond one for every rank of every server as many
    again. While all are at work one begins a batch every ``seconds / servers``: the chain of ``bulk_wait`` of one so much faster.
    When it finds nobody, servers idle until all are at work again, each at one request: what Erlang's loss system of one server
    fewer takes until it loses one, ``1 / (rate B)``. With batches of one this is M/D/c, its wait that of M/D/1 times Erlang C.
    """
    every = rate * servers
    if rate * seconds[-1] >= len(seconds):
        return None
    found = _chain(every, every, seconds / servers, 0.0, 1, FEWEST_STATES, servers, ranks)
    offered, block = every * float(seconds[0]), 1.0
    for k in range(1, servers):
        block = offered * block / (k + offered * block)
    idle = found.none / (every * block)
    at_once = every * idle - found.none  # served without a wait, besides the last of them, which the chain counts
    count = found.count + at_once
    wait = (found.left + found.fresh) / (found.span + idle) / every
    each = (found.each * servers + at_once * float(seconds[0])) / count
    busy = min((found.seconds * servers + at_once * float(seconds[0])) * rate / count, 1.0)
    return Bulk(wait, each, busy, (found.square + at_once) / count)


def _chain(
    rate: float,
    between: float,
    seconds: Floats,
    gap: float,
    turns: int,
    states: int = FEWEST_STATES,
    servers: int = 1,
    ranks: int = 1,
    unit: int = 1,
) -> _Chain:
    """The number that waits whenever a batch may start, until its distribution fits into the states. ``rate``: during a batch;
    ``between``: in the gap; ``servers``: that share the number, ``ranks`` of each."""
    while True:
        waiting = np.arange(states)
        rounds, rest = np.divmod(waiting, ranks * servers)
        takes = np.minimum(ranks * rounds + np.minimum(rest, ranks), len(seconds))
        each = seconds[np.where(waiting > 0, takes, min(unit, len(seconds))) - 1]
        if gap:
            each = np.where(takes > 0, each, 0.0)
        comes = _arrivals(rate * each + between * gap, -(-states // unit), turns)
        moves = np.zeros((states, states))
        moves[:, ::unit] = comes
        share = _solved(_shifted(moves, waiting - takes))
        left = -(-(waiting - takes) // unit)
        done = -(-waiting // unit) - left
        if share[-max(states // 16, 1) :].sum() <= LAST_SHARE or states >= MOST_STATES:
            break
        states = min(2 * states, MOST_STATES)
    count = done if gap else np.where(waiting > 0, done, 1)
    return _Chain(
        float(share[0]),
        float(share @ count),
        float(share @ count**2),
        float(share @ each),
        float(share @ (count * each)),
        float(share @ each) + gap,
        float(share @ (left * (each + gap))),
        rate * float(share @ each**2) / 2.0,
        rate * float(share @ each) * gap + between * gap**2 / 2.0,
        states,
    )


def aligned_wait(rate: float, seconds: Floats, gap: float, ranks: int, wait_s: float, elsewhere: float = 0.0) -> Bulk | None:
    """``bulk_wait`` of a server of several ranks that starts a batch once as many wait, or one has waited ``wait_s``.

    The chain of those who wait when a batch and its ``gap`` are over. Where they are too few for the ranks, K start in the end:
    those, and who comes until the ranks are full or the patience of the first is at its end, who came ``w / (w + 1)`` of the
    batch and its gap ago if w did. While they gather ``(E K (K - 1) - w (w - 1)) / 2`` waits of ``1 / rate`` pass (each arrival's
    rate times the number it finds, summed), and then half a gap. ``elsewhere``: chance that who comes to full ranks is sent
    to another server.
    """
    if rate * (seconds[-1] + gap) >= len(seconds):
        return None
    states: int = FEWEST_STATES
    while states < 2.0 * max(ranks, rate * (float(seconds[0]) + gap)):
        states *= 2
    while True:
        number = np.arange(states)
        start = np.maximum(number, 1)
        few = number < ranks
        age = np.where(number > 0, (seconds[0] + gap) * number / (number + 1.0), 0.0)
        come = _arrivals(rate * np.maximum(wait_s - age, 0.0), states, 1)
        gathered = _shifted(come, start)
        gathered[:, ranks:] = 0.0
        gathered[:, ranks] = np.maximum(1.0 - gathered.sum(axis=1), 0.0)
        gathered[~few] = np.eye(states)[~few]
        late = _shifted(_arrivals(np.full(states, rate * gap / 2.0 * (1.0 - elsewhere)), states, 1), number)
        starts = np.where(few[:, None], gathered @ late, gathered)
        takes = np.minimum(number, len(seconds))
        span = seconds[np.maximum(takes, 1) - 1] + gap
        left = number - takes
        after = _shifted(_arrivals(rate * span, states, 1), left)
        kept = np.minimum(number, ranks) if elsewhere else takes
        kept_span = seconds[np.maximum(kept, 1) - 1] + gap
        if elsewhere:
            after += elsewhere * (_shifted(_arrivals(rate * kept_span, states, 1), number - kept) - after)
        share = _solved(starts @ after)
        if share[-max(states // 16, 1) :].sum() <= LAST_SHARE or states >= MOST_STATES:
            break
        states *= 2
    begin = share @ starts

    def mean(taken: NDArray[np.intp], seconds_: Floats, rest: NDArray[np.intp]) -> Floats:
        """Of a batch: requests, their square, its seconds, seconds times requests, and requests times seconds that they wait."""
        work = seconds_ - gap
        waits = rest * seconds_ + rate * seconds_**2 / 2.0
        return np.array([begin @ column for column in (taken, taken**2, work, taken * work, waits)])

    several = (1.0 - elsewhere) * mean(takes, span, left) + elsewhere * mean(kept, kept_span, number - kept)
    count, square, work, each, waits = (float(value) for value in several)
    gathering = share[few] @ (gathered[few] @ (number * (number - 1.0)) - start[few] * (start[few] - 1.0)) / (2.0 * rate)
    halted = float(share[few] @ (gathered[few] @ number)) * gap / 2.0 + float(share[few].sum()) * rate * gap**2 / 8.0
    return Bulk((float(gathering) + halted + waits) / count, each / count, min(work * rate / count, 1.0 - 1e-9), square / count)


@lru_cache(maxsize=16)
def _log_factorials(size: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size)))])


def _arrivals(mean: Floats, size: int, turns: int) -> Floats:
    """Probability of each number of arrivals, by mean; every ``turns``-th of them, whose turn it is being random."""
    number = np.arange(size * turns)
    many = np.maximum(mean * turns, 1e-300)[:, None]
    each = np.exp(number * np.log(many) - many - _log_factorials(size * turns))
    if turns == 1:
        return np.asarray(each)
    up_to = np.cumsum(each, axis=1).reshape(len(mean), size, turns).mean(axis=2)
    return np.diff(up_to, axis=1, prepend=0.0)


def _shifted(rows: Floats, by: NDArray[np.intp]) -> Floats:
    """Every row moved to the right; what leaves it is counted in its last column."""
    size = rows.shape[1]
    wide = np.concatenate([np.zeros_like(rows), rows], axis=1)
    moved = np.take_along_axis(wide, np.arange(size, 2 * size) - by[:, None], axis=1)
    moved[:, -1] += np.maximum(1.0 - moved.sum(axis=1), 0.0)
    return moved


def _solved(matrix: Floats) -> Floats:
    """Stationary distribution of a chain."""
    system = matrix.T - np.eye(len(matrix))
    system[-1] = 1.0
    share = np.maximum(np.linalg.solve(system, np.append(np.zeros(len(matrix) - 1), 1.0)), 0.0)
    return np.asarray(share / share.sum())


def erlang_wait(load: float, servers: int) -> float:
    """Probability that a request waits (Erlang C) at a load per server."""
    offered, block = load * servers, 1.0
    for k in range(1, servers + 1):
        block = offered * block / (k + offered * block)
    return block / (1.0 - load * (1.0 - block))


def against_one(load: float, servers: int) -> float:
    """Mean wait of M/D/c over that of M/D/1 at the same load of a server (Kimura 1994, of Cosmetatos)."""
    if servers <= 1 or load <= 0.0:
        return 1.0
    many = erlang_wait(load, servers) / (servers * (1.0 - load))
    shape = 1.0 + (1.0 - load) * (servers - 1) * (math.sqrt(4.0 + 5.0 * servers) - 2.0) / (16.0 * load * servers)
    return many * min(shape, 2.0) / (load / (1.0 - load))


@dataclass(frozen=True)
class Shared:
    """Mean number served at once, and mean numbers that wait for a place inside and outside the room; ``share``: of time at
    each of ``number`` served at once, none first."""

    running: float
    inside: float
    outside: float
    number: Floats
    share: Floats


def sharing(rate: float, seconds: Floats, room: float = math.inf, variation: float = 0.0, clump: float = 1.0) -> Shared | None:
    """Requests that share a processor, where one takes ``seconds[k - 1]`` in all among k at once; ``room``: for more that wait.

    Processor sharing whose speed depends on how many share: ``p(n) = p(0) prod_{k<=n} rate T(k) / k`` whatever the distribution
    of the work (Cohen 1979). Beyond the last place there is a queue of one server, its wait ``(clump + variation**2) / 2`` of
    that of random arrivals and exponential work (Allen and Cunneen), ``variation`` being that of the work, standard deviation
    over mean.

    Arrivals that come ``clump`` at a time (mean square over mean of their number) and have the same work stay together: clumps
    share as single requests do, each as long as ``clump`` times as many requests take.
    """
    places = len(seconds)
    last = rate * float(seconds[-1]) / places
    if last >= 1.0:
        return None
    if clump > 1.0:
        number = np.minimum(np.arange(1, math.ceil(places / clump) + 1) * clump, float(places))
        seconds = np.interp(number, np.arange(1.0, places + 1.0), seconds)
    else:
        number = np.arange(1.0, places + 1.0)
    logs = np.concatenate([[0.0], np.cumsum(np.log(rate * seconds / (clump * np.arange(1, len(number) + 1))))])
    share = np.exp(logs - logs.max())
    queue = (clump + variation**2) / 2.0
    # beyond the last place each of them is last times as likely as the one before
    share[-1] /= 1.0 - last
    share /= share.sum()
    waiting = float(share[-1]) * queue * last / (1.0 - last)
    outside = waiting * last ** (room / queue)
    number = np.concatenate([[0.0], number])
    return Shared(float(share @ number), waiting - outside, outside, number, share)
