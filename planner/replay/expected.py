"""What queueing theory says of a deployment at a load below its capacity: random arrivals of equal requests.

A plan states times per token at full batches, and a first token as if every prefill pass were full. At less load batches are
smaller and passes hold what has come. With the same tables of seconds as the replay, and none of its events:

*Passes* that take what waits, up to K requests, S(k) seconds for k of them: a queue with bulk service whose state after each
pass is a Markov chain, solved for its stationary distribution; the mean wait follows from Little's law. In an aggregated pool
a decode step of D seconds follows every pass, and steps run while nothing waits. A request longer than a chunk takes several
passes: M/D/1, ``rho S / (2 (1 - rho))`` and half a step before its first pass. Several ranks or instances that share arrivals
wait less by what an M/D/c queue does against M/D/1 (Kimura 1994, of Cosmetatos).

*Decode* is processor sharing whose speed depends on how many share: with T(k) seconds of a generation among k, the number that
decode has ``p(n) = p(0) prod_{k<=n} rate T(k) / k`` whatever the distribution of lengths (Cohen 1979), beyond the room for them
as a queue of one server.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.replay.parts import Site
from planner.workload import Workload

MOST_STATES = 600


@dataclass(frozen=True)
class Expected:
    """Means at a load (s), requests/s, and the share of time in prefill passes."""

    requests_per_s: float
    ttft_s: float
    tpot_s: float
    busy: float
    sequences: float


def expected_at(sites: tuple[Site, ...], workload: Workload, rate: float) -> Expected | None:
    """Means at so many random requests/s; ``None`` where pools cannot carry them."""
    first, last = sites[0], sites[-1]
    isl, osl = workload.input_tokens.mean, workload.output_tokens.mean
    context, rounds = isl + osl / 2.0, osl - 1.0
    slots = math.ceil(rounds * last.pp / last.accept - 1e-9)
    step = last.timing.step
    assert step is not None
    ranks = last.dp * last.replicas
    places = last.sequences * ranks
    most = last.sequences + last.per_pass if first.steps else last.sequences
    room = max(int(min(most, last.kv_tokens // (isl + osl))), 1) * ranks

    def slot_s(number: int) -> float:
        """Of a mean sequence, where instances share them evenly."""
        number = min(number, places)
        least, more = divmod(number, last.replicas)
        parts = ((least, last.replicas - more), (least + 1, more))
        return sum(n * times * one_s(n) for n, times in parts if n * times) / number

    def one_s(number: int) -> float:
        sequences = -(-number // last.dp)
        batch = -(-sequences // last.pp)
        return step(batch, sequences * context / (batch * last.pp))

    mixed, gap, share = first.steps, 0.0, 0.0
    passes: Passes | None = None
    sequences = waiting = 0.0
    for _ in range(40 if mixed else 1):
        passes = _passes(first, workload, rate, gap)
        if passes is None:
            return None
        share = passes.busy if mixed else 0.0
        lag = 0.0 if mixed else 0.5
        times = [(slots + lag) * slot_s(n) * max(n / places, 1.0) / (1.0 - share) for n in range(1, room + 1)]
        found = _shared(rate, times, workload.output_tokens.coefficient_of_variation)
        if found is None:
            return None
        sequences, waiting = found
        new = slot_s(max(round(sequences), 1)) * (1.0 - math.exp(-sequences / first.replicas)) if mixed else 0.0
        if abs(new - gap) < 1e-9:
            break
        gap = 0.5 * (gap + new) if gap else new
    assert passes is not None
    if mixed:  # who has no place to decode is not taken in
        return Expected(rate, passes.ttft_s + waiting / rate, sequences / rate / rounds, passes.busy, sequences)
    handoff = last.timing.handoff(isl) if last.timing.handoff is not None else 0.0
    return Expected(rate, passes.ttft_s, ((sequences + waiting) / rate + handoff) / rounds, passes.busy, sequences)


@dataclass(frozen=True)
class Passes:
    """Seconds to a first token and the share of time in passes."""

    ttft_s: float
    busy: float


def _passes(site: Site, workload: Workload, rate: float, gap: float) -> Passes | None:
    fill = site.timing.fill
    assert fill is not None
    miss, hit = workload.miss_tokens, workload.hit_tokens
    of_instance, servers = rate / site.replicas, site.dp * site.replicas
    if miss <= site.chunk:
        per_rank = min(int(site.chunk // miss), site.per_pass)
        counts = [-(-k // site.dp) for k in range(1, per_rank * site.dp + 1)]
        seconds = [fill(r * miss, r, hit + miss / 2.0) for r in counts]
        found = bulk_wait(of_instance, seconds, gap)
        if found is None:
            return None
        wait, each, busy = found
        ttft = max(wait - gap / 2.0, 0.0) * against_one(busy, site.replicas) + min(gap / 2.0, wait) + each * site.pp
        alone = of_instance * (seconds[0] + gap)
        if site.replicas > 1 and site.dp == 1 and alone < 1.0:  # a request goes where it need not share a pass, if it can
            apart = alone * (seconds[0] + gap) / (2.0 * (1.0 - alone)) * against_one(alone, site.replicas) + gap / 2.0
            if apart + seconds[0] * site.pp < ttft:
                ttft, busy = apart + seconds[0] * site.pp, of_instance * seconds[0]
        return Passes(ttft + (site.pp - 1) * gap, busy)
    parts, left, before = [], miss, hit
    while left > 1e-9:
        tokens = min(left, float(site.chunk))
        parts.append(fill(tokens, 1, before + tokens / 2.0))
        left, before = left - tokens, before + tokens
    service, passes = sum(parts), len(parts)
    whole = service + passes * gap
    load = rate * whole / servers
    if load >= 1.0:
        return None
    wait = load * whole / (2.0 * (1.0 - load)) * against_one(load, servers) + gap / 2.0
    if site.dp > 1:  # ranks begin a pass together
        wait += load * (service / passes + gap) / 2.0
    through = service + (passes - 1) * gap + (site.pp - 1) * (parts[-1] + gap)
    return Passes(wait + through, min(rate * service / servers, 1.0))


def bulk_wait(rate: float, seconds: list[float], gap: float = 0.0) -> tuple[float, float, float] | None:
    """``(mean wait, mean pass of a request, share of time in passes)`` of one server that takes up to ``len(seconds)`` waiting
    requests at once, ``seconds[k - 1]`` for k; ``gap`` follows every pass and repeats while nothing waits (0: it idles).
    ``None`` where it cannot keep up.
    """
    most = len(seconds)
    if rate * (seconds[-1] + gap) >= most:
        return None
    states = min(MOST_STATES, max(4 * most + 40, 60))
    takes = [min(q, most) for q in range(states)]
    span = [gap if not q and gap else seconds[max(takes[q], 1) - 1] + gap for q in range(states)]
    matrix = np.zeros((states, states))
    for q in range(states):
        left = q - takes[q]
        arrivals = _poisson(rate * span[q], states - left)
        matrix[q, left:] += arrivals
        matrix[q, -1] += max(1.0 - arrivals.sum(), 0.0)
    system = np.vstack([matrix.T - np.eye(states), np.ones(states)])
    share = np.linalg.lstsq(system, np.append(np.zeros(states), 1.0), rcond=None)[0]
    share = np.maximum(share, 0.0) / np.maximum(share, 0.0).sum()
    waiting = served = weighed = total = working = 0.0
    for q in range(states):
        idle = 1.0 / rate if not q and not gap else 0.0
        waiting += share[q] * ((q - takes[q]) * span[q] + rate * span[q] ** 2 / 2.0)
        total += share[q] * (span[q] + idle)
        count = takes[q] or (0 if gap else 1)
        if count:
            served += share[q] * count
            weighed += share[q] * count * seconds[count - 1]
            working += share[q] * seconds[count - 1]
    return waiting / total / rate, weighed / served, working / total


def _poisson(mean: float, size: int) -> np.ndarray:
    number = np.arange(size)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size)))]) if size > 1 else np.zeros(1)
    return np.asarray(np.exp(number * math.log(max(mean, 1e-300)) - mean - logs[:size]))


def erlang_wait(load: float, servers: int) -> float:
    """Probability that a request waits (Erlang C) at a load per server."""
    offered, block = load * servers, 1.0
    for k in range(1, servers + 1):
        block = offered * block / (k + offered * block)
    return block / (1.0 - load * (1.0 - block))


def against_one(load: float, servers: int) -> float:
    """Mean wait of M/D/c over that of M/D/1 at the same load of a server."""
    if servers <= 1 or load <= 0.0:
        return 1.0
    many = erlang_wait(load, servers) / (servers * (1.0 - load))
    shape = 1.0 + (1.0 - load) * (servers - 1) * (math.sqrt(4.0 + 5.0 * servers) - 2.0) / (16.0 * load * servers)
    return many * min(shape, 2.0) / (load / (1.0 - load))


def _shared(rate: float, times: list[float], variation: float = 1.0) -> tuple[float, float] | None:
    """Mean number of sequences, and of those that wait for a place, where a generation takes ``times[k - 1]`` seconds among k.

    ``variation``: of generations, standard deviation over mean; a wait is ``(1 + variation**2) / 2`` of that of exponential ones
    (Allen and Cunneen).
    """
    logs, total = [0.0], 0.0
    for number, seconds in enumerate(times, start=1):
        total += math.log(rate * seconds / number)
        logs.append(total)
    last = rate * times[-1] / len(times)
    if last >= 1.0:
        return None
    weight = np.exp(np.array(logs) - max(logs))
    beyond = weight[-1] * last / (1.0 - last)
    whole = float(weight.sum() + beyond)
    running = float(np.arange(len(weight)) @ weight) + beyond * len(times)
    return running / whole, beyond / (1.0 - last) / whole * (1.0 + variation**2) / 2.0
