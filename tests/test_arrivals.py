"""Random arrivals: queues against theory and small simulations, laws of the means at a load, agreement with the replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from planner.performance.queues import against_one, aligned_wait, bulk_wait, erlang_wait, one_queue, shared_queue, sharing
from planner.plans.arrivals import Arrivals, AtLoad, Decoding, Filling
from planner.replay.engine import Replay
from planner.replay.parts import Request, Site
from planner.replay.run import new_environment, run
from planner.replay.timing import Timing

LOADS = [0.5, 0.7, 0.85]
SOME = np.array([1.0, 1.25, 1.5, 1.75])
"""Seconds of a batch of one to four."""


def kiefer_wolfowitz(times: np.ndarray, gaps: np.ndarray, servers: int) -> np.ndarray:
    """Waits of requests [n] at servers with one queue, of many samples at once ([samples, n])."""
    left, waits = np.zeros((len(times), servers)), np.zeros_like(times)
    for i in range(times.shape[1]):
        left = np.sort(np.maximum(left - gaps[:, i : i + 1], 0.0), axis=1)
        waits[:, i] = left[:, 0]
        left[:, 0] += times[:, i]
    return waits


# -- one server, several servers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", LOADS)
def test_batches_of_one_wait_as_m_d_1(load: float) -> None:
    gaps = np.random.default_rng(8).exponential(1.0 / load, (1000, 2000))
    waits = kiefer_wolfowitz(np.ones_like(gaps), gaps, 1)[:, 500:]
    assert waits.mean() == pytest.approx(load / (2.0 * (1.0 - load)), rel=0.02)
    found = bulk_wait(load, np.ones(1))
    assert found is not None and found.wait_s == pytest.approx(load / (2.0 * (1.0 - load)), rel=1e-3)
    assert (found.service_s, found.busy, found.together) == (1.0, pytest.approx(load), 1.0)


def test_erlang_and_kimura_at_known_points() -> None:
    assert erlang_wait(0.6, 1) == pytest.approx(0.6)
    assert erlang_wait(0.8, 2) == pytest.approx(0.8**2 * 2 / (1 + 0.8))
    assert against_one(0.7, 1) == 1.0
    gaps = np.random.default_rng(4).exponential(1 / 2.8, (1000, 1000))
    waits = kiefer_wolfowitz(np.ones_like(gaps), gaps, 4)[:, 200:]
    assert waits.mean() == pytest.approx(0.7 / 0.6 * against_one(0.7, 4), rel=0.03)


@pytest.mark.parametrize("servers", [1, 2, 5])
@pytest.mark.parametrize("load", LOADS)
def test_one_queue_of_batches_of_one_is_m_d_c(servers: int, load: float) -> None:
    found = one_queue(load, np.ones(1), servers)
    assert found is not None and found.busy == pytest.approx(load)
    assert found.wait_s == pytest.approx(erlang_wait(load, servers) / (2.0 * servers * (1.0 - load)), rel=1e-3)
    alone = shared_queue(load, np.ones(1), 1)
    assert servers > 1 or alone is not None and found.wait_s == pytest.approx(alone.wait_s)


def batches(rate: float, seconds: np.ndarray, gap: float, ranks: int, wait_s: float, count: int = 60_000) -> np.ndarray:
    """Waits by a loop over batches: each takes all who wait, once there is one for every rank or the first has waited so long;
    looks are ``gap`` apart."""
    times = np.cumsum(np.random.default_rng(3).exponential(1 / rate, count)).tolist()
    now, at, waits = 0.0, 0, list[float]()
    while at < count:
        end = at
        while end < count and times[end] <= now:
            end += 1
        if end == at or (end - at < ranks and now - times[at] < wait_s):
            now = now + gap if gap else times[at]
            continue
        end = min(end, at + len(seconds))
        waits.extend(now - times[i] for i in range(at, end))
        now += float(seconds[end - at - 1]) + gap
        at = end
    return np.array(waits)


@pytest.mark.parametrize("gap", [0.0, 0.3])
@pytest.mark.parametrize("rate", [0.3, 1.0, 1.6])
def test_bulk_service_is_the_chain_of_its_batches(rate: float, gap: float) -> None:
    found = bulk_wait(rate, SOME, gap)
    assert found is not None
    assert found.wait_s == pytest.approx(batches(rate, SOME, gap, 1, 0.0).mean(), rel=0.02)
    assert bulk_wait(4 / (1.75 + gap), SOME, gap) is None


@pytest.mark.parametrize(("rate", "wait_s"), [(0.5, 2.0), (1.0, 2.0), (1.0, 9.0), (2.0, 3.0)])
def test_ranks_are_waited_for(rate: float, wait_s: float) -> None:
    seconds = np.repeat([1.0, 1.5, 2.0, 2.5], 4)
    found = aligned_wait(rate, seconds, 0.1, 4, wait_s)
    assert found is not None
    assert found.wait_s == pytest.approx(batches(rate, seconds, 0.1, 4, wait_s).mean(), rel=0.04)
    assert aligned_wait(7.0, seconds, 0.1, 4, wait_s) is None


@pytest.mark.parametrize("gap", [0.0, 0.07])
@pytest.mark.parametrize("rate", [4.0, 8.0])
def test_a_batch_may_end_within_a_request(rate: float, gap: float) -> None:
    """Room for one and a half: a request is done with its last part."""
    times = np.cumsum(np.random.default_rng(3).exponential(1 / rate, 40_000)).tolist()
    parts, now, at, waits = [2] * len(times), 0.0, 0, list[float]()
    while at < len(times):
        if times[at] > now:
            now = now + gap if gap else times[at]
            continue
        room, start = 3, now
        while room and at < len(times) and times[at] <= start:
            taken = min(parts[at], room)
            parts[at], room = parts[at] - taken, room - taken
            if not parts[at]:
                waits.append(start - times[at])
                at += 1
        now += 0.02 + 0.015 * (3 - room) + gap
    found = shared_queue(rate, np.array([0.035, 0.05, 0.065]), 1, gap, unit=2)
    assert found is not None and found.wait_s == pytest.approx(np.mean(waits), rel=0.03)


# -- shared processors -----------------------------------------------------------------------------------------------------


def test_sharing_is_m_m_c_and_processor_sharing() -> None:
    """Four servers that take a second for a request: M/M/4, and half of its wait if all is even. One: ``rho / (1 - rho)``."""
    many = sharing(2.8, np.ones(4), variation=1.0)
    assert many is not None and many.running == pytest.approx(2.8)
    assert many.inside == pytest.approx(2.8 * erlang_wait(0.7, 4) / (4 * 0.3)) and many.outside == 0.0
    even = sharing(2.8, np.ones(4))
    assert even is not None and even.inside == pytest.approx(many.inside / 2.0)
    little = sharing(2.8, np.ones(4), room=3.0, variation=1.0)
    assert little is not None and little.inside + little.outside == pytest.approx(many.inside)
    assert little.outside == pytest.approx(many.inside * 0.7**3)
    shared = sharing(0.7, np.arange(1.0, 200.0))
    assert shared is not None and shared.running == pytest.approx(0.7 / 0.3)
    assert sharing(1.0, np.arange(1.0, 200.0)) is None


def test_clumps_share_as_one() -> None:
    """Batches of three with the same work: T = 1 + n / 20, by a walk from event to event."""
    rate, size = 4.0, 3.0
    random = np.random.default_rng(1)
    coming = np.cumsum(random.exponential(size / rate, 30_000))
    done, clock, left, area, at, many = 0.0, 0.0, list[float](), 0.0, 0, int(size)
    while at < len(coming):
        pace = 1.0 / (1.0 + many * len(left) / 20.0)
        ends = clock + (left[0] - done) / pace if left else math.inf
        now = min(ends, float(coming[at]))
        area += many * len(left) * (now - clock)
        done, clock = done + (now - clock) * pace, now
        if ends <= coming[at]:
            left.pop(0)
        else:
            left.append(done + 1.0)
            at += 1
    found = sharing(rate, 1.0 + np.arange(1.0, 200.0) / 20.0, clump=size)
    assert found is not None and found.running == pytest.approx(area / clock, rel=0.02)


# -- deployments -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """Pools of passes of ``fixed`` and ``each`` seconds (a request of a rank), and steps of ``step`` and ``more`` (a sequence of
    one); ``per_pass`` requests of a rank in a pass, or ``parts`` passes of a request, the last of them filled to ``tail``."""

    replicas: int = 1
    dp: int = 1
    pp: int = 1
    fixed: float = 0.02
    each: float = 0.08
    per_pass: int = 8
    parts: int = 1
    tail: float = 1.0
    wait_s: float = 0.0
    mixed: bool = True
    sequences: int = 400
    step: float = 0.008
    more: float = 0.0005
    tokens: int = 100

    def arrivals(self) -> Arrivals:
        """The theory of it."""
        ranks = self.dp * (self.replicas if self.mixed else 1)
        chunk = self.each / (self.parts - 1 + self.tail)
        whole = np.repeat(self.fixed + self.each * np.arange(1.0, self.per_pass + 1.0), self.dp)
        parts = self.fixed + chunk * np.append(np.ones(self.parts - 1), self.tail) if self.parts > 1 else np.zeros(0)
        whole = whole if self.parts == 1 else np.zeros(0)
        share = self.parts - 1 + self.tail
        filling = Filling(self.replicas, self.dp, self.pp, whole, parts, self.wait_s, self.fixed + chunk, share)
        batch = np.ceil(np.arange(1.0, self.sequences + 1.0) / self.pp) if self.mixed else np.arange(1.0, self.sequences + 1.0)
        slots, places = self.tokens * (self.pp if self.mixed else 1), self.sequences * ranks
        slot_s = np.repeat(self.step + self.more * batch, self.dp)
        decoding = Decoding(self.replicas if self.mixed else 1, places, places + self.per_pass * ranks, slots, slot_s, 0.0)
        return Arrivals(filling, decoding, self.mixed, float(self.tokens), 0.0)

    def sites(self) -> tuple[Site, ...]:
        """The same for the replay: a request has 1,000 tokens."""
        chunk = round(1000 * self.per_pass if self.parts == 1 else 1000 / (self.parts - 1 + self.tail))
        fill = Timing(fill=lambda tokens, _r, _c: self.fixed + self.each * tokens / 1000.0)
        step: Callable[[float, float], float] = lambda batch, _c: self.step + self.more * batch  # noqa: E731
        first = Site("prefill", self.replicas, self.dp, self.pp, 0, chunk, math.inf, fill, per_pass=self.per_pass)
        if self.mixed:
            timing = replace(fill, step=step)
            return (replace(first, timing=timing, sequences=self.sequences, patience_s=self.wait_s),)
        timing = Timing(step=step, handoff=lambda _tokens: 0.0)
        return first, Site("decode", 1, self.dp, 1, self.sequences, 0, math.inf, timing)

    def carried(self) -> float:
        """Requests/s that it carries at most."""
        arrivals, low, high = self.arrivals(), 0.0, 1e4
        while high > low * 1.001:
            rate = 0.5 * (low + high)
            low, high = (low, rate) if arrivals.at(rate) is None else (rate, high)
        return low


SHAPES = {
    "few in flight": Shape(fixed=0.02, each=0.2, sequences=30, more=0.001, tokens=255),
    "instances that interleave": Shape(replicas=4, fixed=0.003, each=0.052, step=0.005, more=0.0001, tokens=511),
    "ranks wait for one another": Shape(dp=4, wait_s=1.5),
    "a pipeline that interleaves": Shape(pp=4),
    "several passes a request": Shape(parts=4, each=0.3, tokens=200),
    "prefill instances": Shape(replicas=3, mixed=False, sequences=2000, more=0.0001),
    "prefill instances of ranks": Shape(replicas=4, dp=4, pp=2, mixed=False, each=0.2, sequences=2000, more=0.0001),
    "a last pass that others fill": Shape(parts=2, tail=0.25, pp=4, fixed=0.002, each=0.3, mixed=False),
    "short outputs": Shape(mixed=False, each=0.04, tokens=3, step=0.02, more=0.001),
}


def replayed(shape: Shape, rate: float, count: int) -> tuple[float, float]:
    """Mean time to first token and per output token in the replay, of all but the first fifth."""
    arrivals = np.cumsum(np.random.default_rng(5).exponential(1.0, count))
    arrivals *= count / rate / arrivals[-1]
    requests = [Request(i, at, 1000, shape.tokens + 1) for i, at in enumerate(arrivals.tolist())]
    served = run(Replay(new_environment(), shape.sites()), iter(requests))
    counted = [r for r in served.requests if r.number > count // 5]
    tpot = np.mean([(r.end_s - r.first_s) / shape.tokens for r in counted])
    return float(np.mean([r.first_s - r.arrival_s for r in counted])), float(tpot)


@pytest.mark.parametrize("load", [0.4, 0.6, 0.75])
@pytest.mark.parametrize("kind", SHAPES)
def test_theory_and_replay_agree(kind: str, load: float) -> None:
    shape = SHAPES[kind]
    rate = load * shape.carried()
    theory = shape.arrivals().at(rate)
    assert theory is not None
    ttft, tpot = replayed(shape, rate, 12_000)
    assert theory.ttft_s == pytest.approx(ttft, rel=0.05)
    assert theory.tpot_s == pytest.approx(tpot, rel=0.05)


def at(arrivals: Arrivals, rate: float, pace: float = 1.0) -> AtLoad:
    found = arrivals.at(rate, pace)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", SHAPES)
def test_laws_of_the_means_at_a_load(kind: str) -> None:
    """Alone a request takes its passes and steps; times grow with the rate, but for the wait for other ranks; slower passes are
    time that passes more slowly."""
    shape = SHAPES[kind]
    arrivals, most = shape.arrivals(), shape.carried()
    passes = arrivals.filling.whole[:1] if shape.parts == 1 else arrivals.filling.parts
    for least in (1e-9, 1e-6, 1e-4):
        alone = at(arrivals, least * most)
        step = shape.step + shape.more
        first = float(passes.sum() + (shape.pp - 1) * passes[-1])
        assert first * (1 - 1e-6) <= alone.ttft_s <= (first + step) * 1.02
        assert alone.tpot_s == pytest.approx(step * (shape.pp if shape.mixed else 1), rel=0.02)
    found = [at(arrivals, share * most) for share in np.linspace(0.02, 0.98, 40)]
    tpot, ttft = np.array([f.tpot_s for f in found]), np.array([f.ttft_s for f in found])
    assert (np.diff(tpot) >= -1e-4 * tpot[1:]).all()
    if not shape.wait_s:
        assert (np.diff(ttft) >= -1e-4 * ttft[1:]).all()
    assert all(0.0 <= f.busy <= 1.0 for f in found)
    slow, base = at(arrivals, 0.3 * most, 2.0), at(arrivals, 0.6 * most)
    assert (slow.ttft_s, slow.tpot_s) == (pytest.approx(2.0 * base.ttft_s), pytest.approx(2.0 * base.tpot_s))
    assert slow.requests_per_s == pytest.approx(0.3 * most)
    for many in (1.1 * most, 1e3 * most, 1e9 * most):
        assert arrivals.at(many) is None


def test_more_passes_where_nothing_decodes_and_few_places() -> None:
    """Outputs of one token decode nothing; ranks that nobody waits for start alone; one place serves one after the other."""
    arrivals = SHAPES["ranks wait for one another"].arrivals()
    alone = at(replace(arrivals, rounds=0.0), 3.0)
    assert alone.sequences == 0.0 and 0.1 < alone.ttft_s < 0.3
    never = replace(arrivals, filling=replace(arrivals.filling, wait_s=0.0))
    assert at(never, 3.0).ttft_s < at(arrivals, 3.0).ttft_s - 0.1
    one = Shape(mixed=False, sequences=1, tokens=100)
    rate, work = 0.5, 100 * one.step + 100 * one.more
    wait = rate * work**2 / (2.0 * (1.0 - rate * work))
    found = at(one.arrivals(), rate)
    assert found.tpot_s * 100 - work - found.sequences * (one.step + one.more) / 2.0 == pytest.approx(wait, rel=0.01)
