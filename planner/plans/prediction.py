"""What a deployment is predicted to do: at full batches, and under random arrivals below its capacity.

Without a rate the load is a closed loop: as many clients as the plan states, batches full. With one, requests come at random,
and times are those of ``plans.arrivals`` at that rate. Limits bind full batches in the search; whether random arrivals keep them
is told by ``most_requests_per_s``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from planner.plans.arrivals import Arrivals, AtLoad, arrivals_of
from planner.plans.context import Context
from planner.plans.intervals import interval
from planner.plans.operate import Operation

EVIDENCE = {
    None: "first principles and class defaults; no measurement of this device and runtime was fitted",
    "measured": "measured: the runtime was fitted to this model on this device",
    "sibling": "sibling: the runtime was fitted to devices of this generation; this model on one has no figure of its own",
    "kin": "kin: the runtime was fitted to devices of other generations alone",
}
"""What a prediction rests on, by ``Calibrated.folded``."""
SHARES = (0.5, 0.7, 0.85)
"""Loads that every plan states, of its capacity."""
LADDER = (1.0, 0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Shares of capacity that are looked at for the most that keeps the limits, from above; between two of them bisection goes on."""
HALVINGS = 6

Moved = list[tuple[str, str, Operation]]
Ends = dict[str, float | None]
At = Callable[[float, float], AtLoad | None]


def prediction_of(context: Context, operation: Operation, others: Moved) -> dict[str, Any]:
    """The prediction of a plan; ``others``: the operation with each group of figures at its ends (see ``intervals``)."""
    osl = context.inputs.workload.output_tokens.mean
    arrivals = arrivals_of(operation)
    full = {
        "ttft_ms": interval(lambda o: o.ttft_s * 1e3, operation, others),
        "tpot_ms": interval(lambda o: o.tpot_s * 1e3, operation, others),
    }
    speed = interval(lambda o: 1.0 / o.tpot_s, operation, others)
    passes = full["tpot_ms"]
    if operation.mode == "disaggregated":
        passes = interval(lambda o: o.pools[0].seconds["prefill"] * 1e3, operation, others)
    paces = _pace(passes), _pace(full["tpot_ms"])
    rates = {share: share * operation.capacity_per_s for share in SHARES}
    if context.open_loop:
        own = operation.requests_per_s / operation.capacity_per_s
        rates = {share: rate for share, rate in rates.items() if abs(share - own) > 1e-9} | {own: operation.requests_per_s}
    at_load = cache(arrivals.at)
    loads = [_load(at_load, share, rate, arrivals.wait_s(rate), paces) for share, rate in sorted(rates.items())]
    at = at_load(operation.requests_per_s, 1.0) if context.open_loop else None
    times, concurrency, busy = full, operation.concurrency, operation.busy
    if at is not None:
        asked = next(row for row in loads if row["requests_per_s"] == operation.requests_per_s)
        times = {name: asked[name] for name in full}
        ends = times["tpot_ms"]
        speed = {end: 1e3 / value if (value := ends[other]) else None for end, other in _MIRRORED}
        concurrency = operation.requests_per_s * (at.ttft_s + (osl - 1.0) * at.tpot_s)
        busy = at.busy
    return {
        "output_tokens_per_s": interval(lambda o: o.requests_per_s * osl, operation, others),
        "output_tokens_per_s_per_device": interval(lambda o: o.requests_per_s * osl / o.devices_paid, operation, others),
        "tokens_per_s_per_user": speed,
        **times,
        "requests_per_s": operation.requests_per_s,
        "capacity_requests_per_s": operation.capacity_per_s,
        "concurrency": concurrency,
        "prefill_busy": busy,
        "load": "full batches" if at is None else "random arrivals",
        "full_batches": full,
        "random_arrivals": {
            "most_requests_per_s": most_within(context, arrivals, operation.capacity_per_s),
            "prefill_wait_ms": arrivals.wait_s(operation.requests_per_s) * 1e3,
            "loads": loads,
        },
        "evidence": evidence_of(context),
        "expected_low_high": "median, 10th and 90th percentile",
    }


_MIRRORED = (("low", "high"), ("expected", "expected"), ("high", "low"))


def _pace(found: Ends) -> Ends:
    """How many times as long passes take at the ends of an interval."""
    value = found["expected"]
    return {end: time and value and time / value for end, time in found.items()}


def _load(at_load: At, share: float, rate: float, wait_s: float, paces: tuple[Ends, Ends]) -> dict[str, Any]:
    """A load in requests/s that stay the same while all passes take as long as at the ends of the times' intervals; ``null``
    where they are not carried then."""
    first, other = ({end: None if f is None else at_load(rate, f) for end, f in pace.items()} for pace in paces)
    at = other["expected"]
    return {
        "share": share,
        "requests_per_s": rate,
        "prefill_wait_ms": wait_s * 1e3,
        "ttft_ms": _ends({end: None if one is None else one.ttft_s * 1e3 for end, one in first.items()}),
        "tpot_ms": _ends({end: None if one is None else one.tpot_s * 1e3 for end, one in other.items()}),
        "decoding": None if at is None else at.sequences,
        "prefill_busy": None if at is None else at.busy,
    }


def _ends(found: Ends) -> Ends | None:
    """Ends in order: where ranks wait for one another, what is quicker may wait longer."""
    low, value, high = (found[end] for end in ("low", "expected", "high"))
    if value is None:
        return None
    return {"low": low and min(low, value), "expected": value, "high": high and max(high, value)}


def most_within(context: Context, arrivals: Arrivals, capacity_per_s: float) -> float:
    """Most random requests/s, up to the capacity, whose mean times are within the workload's limits (0: none)."""
    workload = context.inputs.workload
    rounds = workload.output_tokens.mean - 1.0

    def keeps(share: float) -> bool:
        at = arrivals.at(share * capacity_per_s)
        if at is None:
            return False
        flight = at.requests_per_s * (at.ttft_s + rounds * at.tpot_s)
        reached = (at.ttft_s, workload.ttft_s), (at.tpot_s, workload.tpot_s), (flight, context.cap)
        return all(limit is None or value <= limit * (1.0 + 1e-9) for value, limit in reached)

    first = next((number for number, share in enumerate(LADDER) if keeps(share)), None)
    if first is None:
        return 0.0
    below, above = LADDER[first], LADDER[max(first - 1, 0)]
    for _ in range(HALVINGS if first else 0):
        middle = (below + above) / 2.0
        below, above = (middle, above) if keeps(middle) else (below, middle)
    return below * capacity_per_s


def evidence_of(context: Context) -> str:
    """What the prediction rests on, pool by pool where they differ."""
    found = {}
    for phase, pool in context.pools.items():
        fitted = pool.inputs.runtime.calibrated
        found[phase] = EVIDENCE[None if fitted is None else fitted.folded]
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return "; ".join(f"{phase}: {text}" for phase, text in found.items())
