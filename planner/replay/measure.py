"""From requests as they were served to figures: percentiles, goodput, hit rates, use of pools, price of a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from planner.errors import InputError
from planner.plans.arrivals import AtLoad
from planner.replay.deploy import Deployment
from planner.replay.instance import Instance
from planner.replay.run import Served
from planner.replay.schema import Caches, Figures, Limit, Peaks, PoolUse, Replayed, Spread, Tier, Traffic

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
DAY_S = 86400.0


@dataclass(frozen=True)
class Bound:
    """A limit on a time: ``percentile`` of requests, or ``None`` for the mean."""

    seconds: float
    percentile: float | None = None

    @property
    def at(self) -> str:
        """``mean`` or ``p95``."""
        return "mean" if self.percentile is None else f"p{self.percentile:g}"


@dataclass(frozen=True)
class Asked:
    """What a replay was asked for, to be said with what it found."""

    source: str
    kind: str
    rate_per_s: float | None = None
    variation: float | None = None
    clients: int | None = None
    seed: int | None = None
    scale_rate: float = 1.0
    warm_up: float = 0.0
    block_tokens: int | None = None
    ttft: tuple[Bound, ...] = ()
    tpot: tuple[Bound, ...] = ()


def spread_of(seconds: NDArray[np.float64]) -> Spread:
    """Mean and percentiles in ms; NaN is left out."""
    known = seconds[np.isfinite(seconds)] * 1e3
    if not len(known):
        return Spread(mean=None, p50=None, p90=None, p95=None, p99=None, most=None)
    found = np.percentile(known, PERCENTILES).tolist()
    return Spread(
        mean=float(known.mean()), most=float(known.max()), **dict(zip(("p50", "p90", "p95", "p99"), found, strict=True))
    )


def _reached(seconds: NDArray[np.float64], bound: Bound) -> float | None:
    known = seconds[np.isfinite(seconds)]
    if not len(known):
        return None
    return float(known.mean() if bound.percentile is None else np.percentile(known, bound.percentile))


def measure(deployment: Deployment, served: Served, asked: Asked, theory: AtLoad | None = None) -> Replayed:
    """The figures of a replay. The first ``asked.warm_up`` of the requests count nowhere but in caches, use and peaks."""
    plan = deployment.plan
    if not served.requests:
        raise InputError("no request was served", where=asked.source, mend="give a trace, or --requests above 0")
    requests = sorted(served.requests, key=lambda request: request.number)
    arrival, first, end, admitted = (
        np.array([getattr(r, name) for r in requests]) for name in ("arrival_s", "first_s", "end_s", "admitted_s")
    )
    taken = np.array([r.input_tokens for r in requests])
    given = np.array([r.output_tokens for r in requests])
    skip = min(int(len(requests) * asked.warm_up), len(requests) - 1)
    ttft = first - arrival
    tpot = np.where(given > 1, (end - first) / np.maximum(given - 1, 1), np.nan)
    begin, close = float(arrival[skip]), float(arrival[-1])
    if close <= begin:
        close = served.seconds
    window = max(close - begin, 1e-9)
    inside = (end >= begin) & (end <= close)
    rate, output_rate = float(inside.sum()) / window, float(given[inside].sum()) / window
    tokens_rate = float((taken[inside] + given[inside]).sum()) / window
    limits = _limits(ttft[skip:], tpot[skip:], asked)
    kept = np.ones(len(requests), dtype=bool)
    for bound, times in ((asked.ttft, ttft), (asked.tpot, tpot)):
        for one in bound:
            kept &= ~(times > one.seconds)
    good = kept[skip:]
    usd = deployment.operation.usd_per_hour
    predicted = plan.prediction
    return Replayed(
        model=plan.model,
        hardware=plan.hardware,
        traffic=_traffic(asked, requests_count=len(requests), skip=skip, span=close, taken=taken, given=given),
        requests_per_s=rate,
        output_tokens_per_s=output_rate,
        ttft_ms=spread_of(ttft[skip:]),
        tpot_ms=spread_of(tpot[skip:]),
        wait_ms=spread_of((admitted - arrival)[skip:]),
        limits=limits,
        limits_met=all(limit.met for limit in limits),
        goodput_requests_per_s=float((inside & kept).sum()) / window,
        goodput_share=float(good.mean()),
        caches=_caches(deployment, served, asked, taken),
        pools=[_use(instances, served.seconds) for instances in served.replay.pools],
        peaks=Peaks(
            prefill_queue=served.replay.peaks.prefill_queue,
            decode_queue=served.replay.peaks.decode_queue,
            in_flight=served.replay.peaks.in_flight,
        ),
        usd_per_hour=usd,
        usd_per_million_tokens=usd / 3600.0 / tokens_rate * 1e6 if tokens_rate else None,
        usd_per_million_output=usd / 3600.0 / output_rate * 1e6 if output_rate else None,
        planned=Figures(
            requests_per_s=predicted.requests_per_s, ttft_ms=predicted.ttft_ms.expected, tpot_ms=predicted.tpot_ms.expected
        ),
        theory=None
        if theory is None
        else Figures(requests_per_s=theory.requests_per_s, ttft_ms=theory.ttft_s * 1e3, tpot_ms=theory.tpot_s * 1e3),
        notes=list(deployment.notes),
    )


def _limits(ttft: NDArray[np.float64], tpot: NDArray[np.float64], asked: Asked) -> list[Limit]:
    rows = []
    for name, bounds, times in (("ttft", asked.ttft, ttft), ("tpot", asked.tpot, tpot)):
        for bound in bounds:
            found = _reached(times, bound)
            row = {
                "name": name,
                "at": bound.at,
                "limit_ms": bound.seconds * 1e3,
                "found_ms": None if found is None else found * 1e3,
                "met": found is None or found <= bound.seconds,
            }
            rows.append(Limit.model_validate(row))
    return rows


def _traffic(
    asked: Asked, *, requests_count: int, skip: int, span: float, taken: NDArray[np.int64], given: NDArray[np.int64]
) -> Traffic:
    data = {
        "source": asked.source,
        "kind": asked.kind,
        "requests": requests_count,
        "counted": requests_count - skip,
        "rate_per_s": asked.rate_per_s,
        "variation": asked.variation,
        "clients": asked.clients,
        "seed": asked.seed,
        "scale_rate": asked.scale_rate,
        "duration_s": span,
        "input_tokens_mean": float(taken.mean()),
        "output_tokens_mean": float(given.mean()),
    }
    return Traffic.model_validate(data)


def _caches(deployment: Deployment, served: Served, asked: Asked, taken: NDArray[np.int64]) -> Caches:
    replay, total = served.replay, float(max(taken.sum(), 1))
    by_tier = np.zeros(len(replay.memories))
    hit = 0
    for request in served.requests:
        hit += request.hit_tokens
        for place, tokens in enumerate(request.found[: len(by_tier)]):
            by_tier[place] += tokens
    tiers, on_disk = [], 0.0
    disks = {t.id for pool in deployment.operation.pools for t in pool.pool.rates.tiers if t.role == "disk"}
    for place, memory in enumerate(replay.memories):
        written = replay.cache.written[place] * replay.block_tokens * memory.bytes_per_token
        on_disk += written if memory.id in disks else 0.0
        blocks = None if asked.block_tokens is None or not np.isfinite(memory.blocks) else memory.blocks
        tiers.append(Tier(tier=memory.id, blocks=blocks, hit_rate=float(by_tier[place]) / total, written_bytes=written))
    writes = None
    if deployment.disk_bytes and asked.block_tokens is not None:
        writes = on_disk / served.seconds * DAY_S / deployment.disk_bytes
    return Caches(
        block_tokens=asked.block_tokens,
        hit_rate=hit / total,
        block_hit_rate=replay.blocks_known / replay.blocks_asked if replay.blocks_asked else None,
        planned_hit_rate=deployment.context.inputs.workload.prefix_hit,
        reload_s=replay.reload_s,
        longest_reload_wait_ms=replay.peaks.reload_wait_s * 1e3,
        drive_writes_per_day=writes,
        tiers=tiers,
    )


def _use(instances: Sequence[Instance], seconds: float) -> PoolUse:
    site, whole = instances[0].site, seconds * len(instances)
    prefill = sum(instance.fill_s for instance in instances) / whole
    decode = sum(instance.step_s for instance in instances) / whole
    room = sum(instance.fill_room for instance in instances)
    return PoolUse(
        pool=site.name,
        instances=len(instances),
        prefill_share=min(prefill, 1.0),
        decode_share=min(decode, 1.0),
        idle_share=min(max(1.0 - prefill - decode, 0.0), 1.0),
        pass_fill=sum(instance.filled for instance in instances) / room if room else None,
        sequences_mean=sum(instance.sequence_s for instance in instances) / seconds,
        sequences_room=site.sequences * site.dp * site.replicas,
    )
