"""A workload from a trace: lengths, arrivals, and the hit rate of prefix caches of every size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from statistics import NormalDist
from typing import Any

from pydantic import ValidationError

from planner.documents import explain_validation
from planner.errors import InputError
from planner.workload.lengths import Arrivals, Counts
from planner.workload.prefix import MOST_POINTS, rising
from planner.workload.reuse import Follower, Reuse
from planner.workload.schema import Workload
from planner.workload.traces import Opening, Requests

PROBABILITIES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True)
class LengthFit:
    """Tokens of the requests: what was counted, and the lognormal that has its mean and median."""

    mean: float
    deviation: float
    quantiles: tuple[tuple[float, float], ...]

    def at(self, probability: float) -> float:
        """A quantile that was counted."""
        return dict(self.quantiles)[probability]

    @property
    def median(self) -> float | None:
        """The median if a lognormal can have it: above 1 and not above the mean."""
        median = self.at(0.5)
        return median if 1.0 <= median <= self.mean else None

    def lognormal(self, probability: float) -> float | None:
        """Quantile of the lognormal: ``median * exp(z * sigma)``, ``sigma**2 = 2 ln(mean / median)``."""
        if self.median is None:
            return None
        sigma = math.sqrt(2.0 * math.log(self.mean / self.median))
        return self.median * math.exp(NormalDist().inv_cdf(probability) * sigma)


@dataclass(frozen=True)
class Fit:
    """What a trace says. ``reuse`` where it names blocks; rates ``None`` where all requests come at once."""

    format: str
    day: date | None
    requests: int
    duration_s: float
    rate_per_s: float | None
    peak_per_s: float | None
    variation: float | None
    dispersion: tuple[tuple[float, float], ...]
    input_tokens: LengthFit
    output_tokens: LengthFit
    reuse: Reuse | None


def fit_requests(chunks: Iterable[Requests], block_tokens: int | None, form: str = "requests", day: date | None = None) -> Fit:
    """The statistics of requests in order of arrival, one or more, read once."""
    arrivals, taken, given = Arrivals(), Counts(), Counts()
    follower = None if block_tokens is None else Follower(block_tokens)
    for chunk in chunks:
        arrivals.add(chunk.arrival_s)
        taken.add(chunk.input_tokens)
        given.add(chunk.output_tokens)
        if follower is not None:
            follower.add(chunk)
    return Fit(
        format=form,
        day=day,
        requests=arrivals.requests,
        duration_s=arrivals.last_s,
        rate_per_s=arrivals.rate_per_s,
        peak_per_s=arrivals.peak_per_s(),
        variation=arrivals.variation,
        dispersion=arrivals.dispersion(),
        input_tokens=_lengths(taken),
        output_tokens=_lengths(given),
        reuse=None if follower is None else follower.result(),
    )


def fit_trace(opening: Opening) -> Fit:
    """The statistics of a trace that was opened."""
    trace = opening.trace
    return fit_requests(trace.chunks(), trace.block_tokens, trace.format, opening.day)


def _lengths(counts: Counts) -> LengthFit:
    return LengthFit(counts.mean, counts.deviation, tuple(zip(PROBABILITIES, counts.quantiles(PROBABILITIES), strict=True)))


def curve_of(reuse: Reuse, rate_per_s: float, points: int) -> tuple[tuple[float, float], ...]:
    """At most so many points ``(tokens kept for every request a second, share of input tokens found)``.

    Of the sizes followed those that find more than the size before; then, one by one, the point goes whose loss changes the line
    between its neighbours least (planner mixes neighbours in a line). The largest stays.
    """
    sizes = [blocks * reuse.block_tokens / rate_per_s for blocks in reuse.capacities]
    found = list(rising([(0.0, 0.0), *zip(sizes, reuse.prefix_hits, strict=True)]))
    while len(found) > points + 1:
        losses = [_off_line(*found[at - 1 : at + 2]) for at in range(1, len(found) - 1)]
        del found[1 + losses.index(min(losses))]
    return tuple(found[1:])


def _off_line(left: tuple[float, float], point: tuple[float, float], right: tuple[float, float]) -> float:
    share = (point[0] - left[0]) / (right[0] - left[0])
    return abs(point[1] - left[1] - share * (right[1] - left[1]))


def _digits(value: float) -> float:
    """Six digits."""
    return float(f"{value:.6g}")


def workload_of(
    fit: Fit,
    *,
    workload_id: str,
    as_of: date,
    source: str = "",
    name: str = "",
    points: int = 12,
    ttft_s: float | None = None,
    tpot_s: float | None = None,
) -> Workload:
    """The workload that a trace makes; grade A where ``source`` says what was measured, else D.

    ``InputError`` where outputs have less than two tokens on average, which no workload may.
    """
    if not 1 <= points <= MOST_POINTS:
        raise InputError(f"{points} points", where="points", mend=f"give 1 to {MOST_POINTS}")
    grade, said = ("A", source) if source else ("D", "a trace whose source was not given")
    notes = [f"{fit.requests} requests in {fit.duration_s:.6g} s ({fit.format} trace)"]
    data: dict[str, Any] = {"id": workload_id, "name": name, "source": said, "as_of": as_of, "grade": grade}
    for key, lengths in (("input_tokens", fit.input_tokens), ("output_tokens", fit.output_tokens)):
        mean, median = _digits(lengths.mean), None if lengths.median is None else _digits(lengths.median)
        data[key] = {"mean": mean, "median": None if median is None else min(median, mean)}
        data[key]["quantiles"] = tuple((p, _digits(value)) for p, value in lengths.quantiles)
        if median is None:
            what = "input" if key == "input_tokens" else "output"
            notes.append(f"the mean {what} ({mean:g}) lies below its median ({lengths.at(0.5):g}), so it is planned as constant")
    if fit.rate_per_s is not None:
        data["arrivals"] = {
            "rate_per_s": _digits(fit.rate_per_s),
            "variation": None if fit.variation is None else _digits(fit.variation),
            "dispersion": tuple((window, _digits(index)) for window, index in fit.dispersion),
        }
        curve = () if fit.reuse is None else curve_of(fit.reuse, fit.rate_per_s, points)
        if fit.reuse is not None and curve:
            data["prefix_cache"] = {
                "curve": curve,
                "source": f"LRU caches of blocks of {fit.reuse.block_tokens} tokens over the trace: {said}",
                "as_of": as_of,
                "grade": grade,
                "note": _about(fit.reuse, fit.duration_s),
            }
    data |= {"ttft_s": ttft_s, "tpot_s": tpot_s, "note": "; ".join(notes)}
    try:
        return Workload.model_validate(data)
    except ValidationError as error:
        raise explain_validation(error, "the trace makes no workload") from None


def _about(reuse: Reuse, duration_s: float) -> str:
    text = (
        "hits of whole prefixes, in input tokens; the end of a request leaves first; caches begin empty, and what comes back "
        f"after more than {duration_s:.6g} s is not seen"
    )
    return text if reuse.sampled == 1 else f"{text}; one block in {reuse.sampled} was followed"
