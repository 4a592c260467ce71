"""A deployment under random arrivals at any load below what it can carry: mean time to first token, per output token, and busy.

The steady state of ``operate`` is that of full batches. At less load batches are smaller and passes hold what has come. With the
plan's own seconds of a pass (``pass_seconds``) and the queues of ``performance.queues``, for requests of the mean length:

*Passes* take what waits, up to what their ranks' tokens hold: bulk service. A request goes where its pass begins first: each of
several instances gets more while it is in no pass (``shared_queue``), or, while there is a rank that nobody waits for, all serve
one queue (``one_queue``): the better of both. In an aggregated pool a decode step follows every pass, and steps run while
nothing waits; one of several ranks starts a pass once every rank has a request, or one has waited ``wait_s`` (``aligned_wait``),
unless nobody decodes. A pass leaves the last of pp stages ``pp - 1`` times its seconds later. A request longer than a pass takes
several: M/D/c, and half a step before its first; tokens of who came meanwhile fill its last.

*Decode* is processor sharing: a generation among n takes ``T(n)``, its slots at the batch that n make; in a pool that only
decodes it waits for the end of the step under way, and a pass brings those that were in it at once: counted over less than the
time between two passes of an instance they vary more than at random, by up to their number. In an aggregated pool passes take a
share of the time, ``T(n) / (1 - share)``. They also bring what decodes: by a clock that stands still in passes, who came during
one comes at once with who is in it. Where a relative change of the rate changes the share by ``swing`` times as much, the count
of arrivals on that clock varies ``(1 + swing / (1 - share))**2`` times as much as at random (passes of P each: ``1 / (1 - rate
P)**2``, the clumps being busy periods). Such a clump stays together. A pass meets those of its clump that were in earlier ones,
half of the others on average, and misses those who join after it, so that another number waits through it than decodes in steps.
Passes and steps wait for one another: that step is sought which leaves so much time to passes that it is as long.

Times grow with the rate, but for the wait for other ranks, which is longest where few come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from planner.performance.load import prefill_passes
from planner.performance.queues import Bulk, against_one, aligned_wait, one_queue, shared_queue, sharing
from planner.plans.evaluate import admitted_sequences, memory_need
from planner.plans.operate import Operation, handoff_time
from planner.plans.pass_seconds import fill_seconds, step_seconds
from planner.plans.states import PoolState
from planner.workload import Workload

Floats = NDArray[np.float64]

PATIENCE, WITHIN, LEAST_WAIT = 4.0, 0.95, 0.1
"""Of ``Arrivals.wait_s``: times that a request a rank takes to come; share of the limit on TTFT to stay within; share of it that
requests wait whatever a pass takes."""
PACKED = 64
"""Requests of one prefill pass that are told apart, at least."""
FEW, MANY = 10, 400
"""Points of a curve over batches: of a placement over several memories, and where everything lies in device memory."""
ROUNDS, CLOSE, NEAR = 20, 1e-5, 1e-2
UNITS = 7
"""Parts of a request that are told apart, at most."""
LEAST_ROUNDS = 1e-3
"""Output tokens after the first below which nothing decodes."""


@dataclass(frozen=True)
class AtLoad:
    """Means at a load (s, requests/s), the share of time that passes take, and sequences that decode at once."""

    requests_per_s: float
    ttft_s: float
    tpot_s: float
    busy: float
    sequences: float


@dataclass(frozen=True)
class Filling:
    """The pool that prefills. ``whole``: passes of an instance by the requests they hold, where one takes a pass at most;
    ``parts``: the passes of one request, where it takes several; ``filled``: the last, where the next one's tokens fill it;
    ``share``: a request's tokens over those of a full pass; ``units``: passes of one rank by parts of a request, ``unit`` of
    which make one, where a full pass ends within one. ``wait_s``: how long a request waits for those of other ranks at most
    (``inf``: as ``Arrivals.wait_s`` says)."""

    replicas: int
    dp: int
    pp: int
    whole: Floats
    parts: Floats
    wait_s: float
    filled: float = 0.0
    share: float = 1.0
    unit: int = 1
    units: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Decoding:
    """The pool that decodes. ``slot_s``: of an instance by the sequences it has; ``slots`` make a generation; ``room``: of
    sequences in all instances, those that wait for a place included."""

    replicas: int
    places: int
    room: int
    slots: int
    slot_s: Floats
    handoff_s: float


@dataclass(frozen=True)
class Arrivals:
    """A deployment and requests alike, ready for any rate."""

    filling: Filling
    decoding: Decoding
    mixed: bool
    rounds: float
    variation: float
    ttft_limit_s: float | None = None

    def wait_s(self, rate: float) -> float:
        """How long a request waits for those of other ranks at most, at so many requests/s (0: one rank alone waits for none).

        ``PATIENCE`` times as long as a request a rank takes to come, so that all but a few passes start with every rank; but no
        longer than keeps TTFT within ``WITHIN`` of its limit. Of passes that all start when the first has waited w, at rate r of
        an instance, that one waits w and the others half of it: ``w (1 + 1 / (1 + r w)) / 2`` on average. It may be the limit
        less a pass of one request, T, at ``w = (r T - 1 + sqrt((r T - 1)^2 + 2 r T)) / r``.
        """
        filling = self.filling
        if filling.dp == 1 or not self.mixed or rate <= 0.0 or not filling.wait_s:
            return 0.0
        of_instance = rate / filling.replicas
        longest = PATIENCE * filling.dp / of_instance
        if self.ttft_limit_s is None:
            return longest
        first = float(filling.whole[0]) * filling.pp if len(filling.whole) else float(filling.parts.sum())
        left = max(WITHIN * self.ttft_limit_s - first, LEAST_WAIT * self.ttft_limit_s)
        spare = of_instance * left
        return min(longest, (spare - 1.0 + math.sqrt((spare - 1.0) ** 2 + 2.0 * spare)) / of_instance)

    def at(self, rate: float, pace: float = 1.0) -> AtLoad | None:
        """Means at so many random requests/s, every pass taking ``pace`` times as long; ``None`` where they are not carried."""
        here = self
        if math.isinf(self.filling.wait_s):
            here = replace(self, filling=replace(self.filling, wait_s=self.wait_s(rate) / pace))
        found = here._at(rate * pace)
        if found is None:
            return None
        return AtLoad(rate, found.ttft_s * pace, found.tpot_s * pace, found.busy, found.sequences)

    def _at(self, rate: float) -> AtLoad | None:
        decoding = self.decoding
        slot_s = self._slot_s(np.arange(1, min(decoding.places, decoding.room) + 1))
        alone = decoding.slots * slot_s
        if self.mixed and self.rounds >= LEAST_ROUNDS:
            return self._interleaved(rate, slot_s, alone)
        passes = _passes(self.filling, rate)
        if passes is not None and self.rounds < LEAST_ROUNDS:  # nothing to decode
            return AtLoad(rate, passes.ttft_s, float(decoding.slot_s[0]), passes.busy, 0.0)
        found = sharing(rate, alone, variation=self.variation)
        if passes is None or found is None:
            return None
        apart = 1.0 - found.running / rate * passes.busy / passes.each_s
        if apart > 0.0:  # done before the next pass of the instance brings others
            found = sharing(rate, alone, variation=self.variation, clump=1.0 + (passes.together - 1.0) * apart) or found
        # it begins with the next step, if the instance that it comes to is at work
        steps = np.interp(found.number, np.arange(1.0, len(slot_s) + 1.0), slot_s)
        joins = float(found.share @ np.where(found.number >= decoding.replicas, steps, 0.0)) / 2.0
        if self.filling.replicas == 1:  # passes of several come as if at random
            joins *= 1.0 - max(apart, 0.0)
        tpot = ((found.running + found.inside) / rate + joins + decoding.handoff_s) / self.rounds
        return AtLoad(rate, passes.ttft_s, tpot, passes.busy, found.running)

    def _interleaved(self, rate: float, slot_s: Floats, alone: Floats) -> AtLoad | None:
        """The step that follows a pass, where passes it makes so long leave decode so much time that its step is that long."""
        decoding, replicas = self.decoding, self.filling.replicas
        number = np.arange(1.0, len(slot_s) + 1.0)
        low, high, gap = 0.0, float(slot_s.max()), float(slot_s[0])
        before: tuple[float, float] | None = None
        for _ in range(ROUNDS):
            passes = _passes(self.filling, rate, gap, float(slot_s[0]))
            if passes is None:
                high, gap = gap, 0.5 * (low + gap)
                if low == 0.0:
                    return None
                continue
            more, idle = _passes(self.filling, rate * (1.0 + NEAR), gap, float(slot_s[0])), 1.0 - passes.busy
            swing = passes.busy if more is None else max(more.busy - passes.busy, 0.0) / NEAR
            clump = (1.0 + swing / idle) ** 2
            found = sharing(rate, alone / idle, float(decoding.room - len(slot_s)), self.variation, clump)
            if found is None:
                if gap >= high:
                    return None
                low, gap = gap, high if low == 0.0 else 0.5 * (gap + high)
                continue
            step = float(found.share[1:] @ np.interp(found.number[1:], number, slot_s)) / float(found.share[1:].sum())
            error = step * (1.0 - math.exp(-found.running / replicas)) - gap
            if abs(error) <= CLOSE * gap:
                break
            low, high = (gap, high) if error > 0.0 else (low, gap)
            new = gap + error
            if before is not None and before[1] != error:
                new = gap - error * (gap - before[0]) / (error - before[1])
            before = gap, error
            gap = new if low < new < high else 0.5 * (low + high)
        if passes is None or found is None:
            return None
        seen = clump - 1.0 + replicas * (1.0 - passes.together) - found.running / decoding.slots
        running = max(found.running + passes.busy * seen / 2.0, rate * decoding.slots * float(slot_s[0]))
        # who has no place to decode is not taken in
        tpot = (running + found.inside) / rate / self.rounds
        return AtLoad(rate, passes.ttft_s + found.outside / rate, tpot, passes.busy, running)

    def _slot_s(self, number: NDArray[np.intp]) -> Floats:
        """Of a mean sequence, where instances share ``number`` evenly."""
        replicas, slot_s = self.decoding.replicas, np.concatenate([[0.0], self.decoding.slot_s])
        least, more = np.divmod(number, replicas)
        last = len(slot_s) - 1
        total = (replicas - more) * least * slot_s[np.minimum(least, last)]
        total = total + more * (least + 1) * slot_s[np.minimum(least + 1, last)]
        return np.asarray(total / number)


@dataclass(frozen=True)
class _Passes:
    ttft_s: float
    busy: float
    together: float
    each_s: float


def _passes(filling: Filling, rate: float, gap: float = 0.0, step: float = 0.0) -> _Passes | None:
    """Passes at a rate of the pool, after each of which decode takes ``gap`` on average, ``step`` at least where any decodes."""
    of_instance, servers, pp = rate / filling.replicas, filling.dp * filling.replicas, filling.pp
    if not len(filling.parts):
        whole = filling.whole if filling.unit == 1 else filling.units
        if not gap:
            ways = [shared_queue(of_instance, whole, filling.replicas, 0.0, filling.unit)]
            if filling.replicas > 1 and filling.unit == 1:  # or each takes a rank that nobody waits for
                ways.append(one_queue(of_instance, filling.whole, filling.replicas, filling.dp))
            carried = [_through(way, pp) for way in ways if way is not None]
            return min(carried, key=lambda passes: passes.ttft_s, default=None)
        aligned = None
        # where nobody decodes a pass waits for no rank
        part = min(gap / step, 1.0) if filling.dp > 1 and filling.wait_s else 0.0
        if part:
            elsewhere = _elsewhere(filling, of_instance, gap)
            aligned = aligned_wait(of_instance, filling.whole, gap, filling.dp, filling.wait_s, elsewhere)
        found = aligned if part == 1.0 else shared_queue(of_instance, whole, filling.replicas, gap, filling.unit)
        if aligned is not None and found is not None:
            found = found.mixed(aligned, part)
        return None if found is None else _through(found, pp)
    service, passes, last = float(filling.parts.sum()), len(filling.parts), float(filling.parts[-1])
    alone = service + passes * gap
    shared = min(filling.share * ((filling.filled or last) + gap), alone)  # of full passes, where another waits
    each = rate / servers
    if each * shared >= 1.0:
        return None
    load = each * alone / (1.0 + each * (alone - shared))
    period = alone - load * (alone - shared)
    wait = load * period / (2.0 * (1.0 - load)) * against_one(load, servers) + gap / 2.0
    if filling.dp > 1:  # ranks begin a pass together
        wait += load * (service / passes + gap) / 2.0
    # nobody came while it waited and was in passes, by the transform of the wait of M/D/1 at the rate
    behind = 1.0 - (1.0 - load) * math.exp(load - rate / servers * (period - last - gap))
    more = max(filling.filled - last, 0.0)
    # its tokens end anywhere in the last pass if those of others came first
    through = service + (passes - 1) * gap + behind * (more + load * (0.5 * filling.filled - more))
    through += (pp - 1) * (last + behind * more)
    return _Passes(wait + through, min(load * service / alone, 1.0), 1.0, service)


def _through(found: Bulk, pp: int) -> _Passes:
    return _Passes(found.wait_s + found.service_s * pp, found.busy, found.together, found.service_s)


def _elsewhere(filling: Filling, rate: float, gap: float) -> float:
    """Chance that some other instance has a rank that nobody waits for: fewer came there in a pass and a step."""
    if filling.replicas == 1:
        return 0.0
    mean = rate * (float(filling.whole[0]) + gap)
    term, below = math.exp(-mean), 0.0
    for k in range(filling.dp):
        below += term
        term *= mean / (k + 1)
    return 1.0 - max(1.0 - below, 0.0) ** (filling.replicas - 1)


def arrivals_of(operation: Operation, workload: Workload | None = None, wait_s: float | None = None) -> Arrivals:
    """What an operation makes of random arrivals of ``workload`` (default: the one that it was planned for); ``wait_s``: see
    ``Filling`` (default: ``inf``, or 0 where the runtime does not wait for ranks)."""
    first, last = operation.pools[0], operation.pools[-1]
    if wait_s is None:
        wait_s = math.inf if first.pool.inputs.runtime.waits_for_ranks else 0.0
    asked = first.pool.inputs.workload if workload is None else workload
    return Arrivals(
        filling_of(first, wait_s, asked),
        decoding_of(last, operation.mode == "aggregated", asked),
        operation.mode == "aggregated",
        max(asked.output_tokens.mean - 1.0, 0.0),
        asked.output_tokens.coefficient_of_variation,
        asked.ttft_s,
    )


def at_once(state: PoolState) -> int:
    """Requests that a pass of a rank takes at most."""
    chunk, workload = state.decision.chunk, state.pool.inputs.workload
    if not chunk:
        return PACKED
    usual = chunk / (workload.miss_tokens / float(prefill_passes(np.array([float(chunk)]), workload)[0]))
    return max(PACKED, 2 * math.ceil(usual - 1e-9))


def room_tokens(state: PoolState) -> float:
    """Tokens of caches that a rank may reserve: what the plan does, or what fits where everything lies in device memory."""
    pool, row = state.pool, state.decision.row()
    planned = float(admitted_sequences(pool, row)[0]) * pool.inputs.workload.reserved_tokens
    if not state.resident or state.decision.prefix_rate is not None:
        return planned
    need = memory_need(pool, row)
    each = float(need.caches[0]) / planned
    return max(planned + max(-float(need.short[0]), 0.0) / each, planned) if each > 0.0 else math.inf


def filling_of(state: PoolState, wait_s: float, workload: Workload) -> Filling:
    """The passes of a pool that prefills."""
    decision, miss, hit = state.decision, workload.miss_tokens, workload.hit_tokens
    whole, parts, filled = np.zeros(0), np.zeros(0), 0.0
    if miss <= decision.chunk:
        most = min(int(decision.chunk // miss), at_once(state))
        counts = _points(most, state.resident)
        seconds = fill_seconds(state, counts * miss, counts, np.full(len(counts), hit + miss / 2.0))
        ranks = np.ceil(np.arange(1, most * decision.dp + 1) / decision.dp)
        whole = np.interp(ranks, counts, seconds)
    else:
        before = np.arange(0.0, miss * (1.0 - 1e-12), decision.chunk)
        tokens = np.minimum(miss - before, decision.chunk)
        parts = fill_seconds(state, tokens, np.ones(len(tokens)), hit + before + tokens / 2.0)
        more = decision.chunk - tokens[-1:]
        own, others = tokens[-1:] * (hit + miss - tokens[-1:] / 2.0), more * (hit + more / 2.0)
        filled = float(fill_seconds(state, tokens[-1:] + more, np.full(1, 2.0), (own + others) / decision.chunk)[0])
    found = Filling(decision.replicas, decision.dp, decision.pp, whole, parts, wait_s, filled, share=miss / decision.chunk)
    if len(whole) and decision.dp == 1:
        found = _in_units(found, state, miss, hit)
    return found if decision.batch else _with_room(found, state, workload)


def _with_room(filling: Filling, state: PoolState, workload: Workload) -> Filling:
    """Passes of a pool that only prefills, as large as leaves room for the next: the caches of a pass stay through its stages and
    until they are handed over, when the next has to be there."""
    sequences = room_tokens(state) / (workload.input_tokens.mean + workload.output_tokens.mean)
    most = max(sequences / (filling.pp + 1.0), 1.0)
    whole = filling.whole[: math.ceil(min(most, len(filling.whole))) * filling.dp]
    return replace(filling, whole=whole, units=filling.units[: int(min(most * filling.unit, len(filling.units)))])


def _in_units(filling: Filling, state: PoolState, miss: float, hit: float) -> Filling:
    """Passes by parts of a request, where the tokens of a pass are not those of whole ones."""
    full = state.decision.chunk / miss
    if full - len(filling.whole) < CLOSE or full > len(filling.whole) + 1.0:
        return filling
    unit = min(range(1, UNITS + 1), key=lambda u: (abs(math.floor(full * u + CLOSE) - full * u) / u, u))
    counts = np.arange(1.0, math.floor(full * unit + CLOSE) + 1.0) / unit
    seconds = fill_seconds(state, np.minimum(counts, full) * miss, np.ceil(counts), np.full(len(counts), hit + miss / 2.0))
    return replace(filling, unit=unit, units=seconds)


def decoding_of(state: PoolState, mixed: bool, workload: Workload) -> Decoding:
    """The steps of a pool that decodes."""
    decision = state.decision
    isl, osl = workload.input_tokens.mean, workload.output_tokens.mean
    ranks, sequences = decision.dp * decision.replicas, decision.batch * decision.pp
    each = _points(sequences, state.resident)
    batch = np.ceil(each / decision.pp)
    seconds = step_seconds(state, batch, each * (isl + osl / 2.0) / (batch * decision.pp))
    of_rank = np.ceil(np.arange(1, sequences * decision.dp + 1) / decision.dp)
    most = sequences + at_once(state) if mixed else sequences
    room = max(int(min(most, room_tokens(state) // (isl + osl))), 1) * ranks
    return Decoding(
        decision.replicas,
        sequences * ranks,
        room,
        max(math.ceil((osl - 1.0) * decision.pp / state.pool.accept - 1e-9), 1),
        np.interp(of_rank, each, seconds),
        0.0 if mixed else float(handoff_time(state.pool, decision.row().shapes, isl)[0]),
    )


def _points(most: int, dense: bool) -> Floats:
    """Counts from one to ``most``: all, or so many that a curve through them is one."""
    if most <= (MANY if dense else FEW):
        return np.arange(1.0, most + 1.0)
    return np.unique(np.round(np.geomspace(1.0, most, MANY if dense else FEW)))
