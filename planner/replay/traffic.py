"""Streams of requests: of a trace, or drawn from a workload with one seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from planner.errors import InputError
from planner.replay.parts import Request
from planner.workload.schema import Lengths, Workload
from planner.workload.traces import MAX_SECONDS, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWN = 8192
"""Requests drawn at once."""


@dataclass(frozen=True)
class Arrival:
    """How drawn requests come: ``rate_per_s`` open loop with ``variation`` (standard deviation over mean of the time between two;
    1: random), or ``clients`` that each send one when theirs is done."""

    rate_per_s: float | None = None
    variation: float = 1.0
    clients: int | None = None


def trace_requests(trace: Trace, most: int, scale: float = 1.0) -> Iterator[Request]:
    """Requests of a trace in order, at ``scale`` times its rate; ``InputError`` where that is too slow for a clock."""
    number = 0
    for chunk in trace.chunks():
        starts = chunk.starts
        for i in range(len(chunk)):
            if number >= most:
                return
            blocks: tuple[int, ...] = ()
            if chunk.blocks is not None and starts is not None:
                blocks = tuple(chunk.blocks[starts[i] : starts[i + 1]].tolist())
            arrival = float(chunk.arrival_s[i]) / scale
            _check(arrival)
            yield Request(number, arrival, int(chunk.input_tokens[i]), int(chunk.output_tokens[i]), blocks)
            number += 1


def drawn_requests(
    workload: Workload, arrival: Arrival, count: int, seed: int, longest: int, constant: bool = False
) -> Iterator[Request]:
    """Requests with the workload's lengths (``constant``: all of the mean), of which its hit rate is found; the times of a closed
    loop are those at which its clients begin, all at once. ``InputError`` where the rate is too low for a clock."""
    random = np.random.default_rng(seed)
    clock, number = 0.0, 0
    while number < count:
        size = min(DRAWN, count - number)
        taken = lengths(workload.input_tokens, random, size, constant)
        given = lengths(workload.output_tokens, random, size, constant)
        taken, given = np.minimum(taken, longest - 1), np.minimum(given, np.maximum(longest - taken, 1))
        gaps = np.zeros(size)
        if arrival.rate_per_s is not None:
            shape = 1.0 / max(arrival.variation, 1e-3) ** 2
            gaps = random.gamma(shape, 1.0 / (shape * arrival.rate_per_s), size)
        times = clock + np.cumsum(gaps)
        clock = float(times[-1])
        _check(clock)
        hits = np.floor(taken * workload.prefix_hit)
        for time, i, o, hit in zip(times.tolist(), taken.tolist(), given.tolist(), hits.tolist(), strict=True):
            yield Request(number, time, int(i), int(o), hit_tokens=int(hit))
            number += 1


def _check(arrival_s: float) -> None:
    """At ``MAX_SECONDS`` a clock of 64 bits still tells 15 microseconds; far beyond it stands still while requests are served."""
    if not arrival_s <= MAX_SECONDS:
        what = f"a request comes after {arrival_s:.3g} s, and a replay takes at most {MAX_SECONDS:g} s"
        raise InputError(what, where="--rate, --scale-rate", mend="give a higher one")


def lengths(kind: Lengths, random: np.random.Generator, size: int, constant: bool = False) -> NDArray[np.int64]:
    """Whole tokens, at least one: by the quantiles that were counted, else lognormal by mean and median, else constant."""
    if constant or (kind.quantiles is None and kind.median is None):
        whole = math.floor(kind.mean)
        part = kind.mean - whole
        more = random.random(size) < part if part else np.zeros(size, dtype=bool)
        return np.asarray(whole + more, dtype=np.int64)
    uniform = random.random(size)
    if kind.quantiles is not None and len(kind.quantiles) > 1:
        at, values = zip(*kind.quantiles, strict=True)
        found = np.interp(uniform, at, values)
    else:
        assert kind.median is not None
        sigma = math.sqrt(2.0 * math.log(kind.mean / kind.median))
        normal = NormalDist()
        found = kind.median * np.exp(sigma * np.array([normal.inv_cdf(min(max(u, 1e-12), 1 - 1e-12)) for u in uniform.tolist()]))
    return np.asarray(np.maximum(np.round(found), 1.0), dtype=np.int64)
