"""Rates of one device under one runtime: the numbers that turn work into seconds.

``perturb`` moves one group of figures to the end of its interval; evaluating a plan under each perturbation gives
the plan's own interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from planner.errors import InputError
from planner.hardware import Curve, Domain, System
from planner.hardware.channels import Channel, network_shares, tier_channels
from planner.quantities import Figure
from planner.runtimes import Runtime


@dataclass(frozen=True)
class Level:
    """One network level: devices inside (``inf`` = unbounded), achieved one-way bytes/s per device by traffic, latency in s.

    On a ``mesh`` a group of n of N devices has n-1 of the N-1 links of each. Startups in s (see ``Domain``): a missing one is
    as many latencies as the operation has steps; ``inf`` for ``oneshot`` = no all-reduce in one step.
    """

    id: str
    devices: float
    allreduce: float
    alltoall: float
    p2p: float
    latency: float
    mesh: bool = False
    allreduce_startup: float | None = None
    oneshot_startup: float = math.inf
    alltoall_startup: float | None = None
    p2p_startup: float | None = None


def level_of(domain: Domain) -> Level:
    """The level of a domain at its figures' values."""

    def seconds(figure: Figure | None) -> float | None:
        return None if figure is None else figure.value

    return Level(
        domain.id,
        math.inf if domain.devices is None else float(domain.devices),
        domain.bandwidth.value * domain.allreduce_efficiency.value,
        domain.bandwidth.value * domain.alltoall_efficiency.value,
        domain.bandwidth.value * domain.p2p_efficiency.value,
        domain.latency.value,
        domain.topology == "mesh" and domain.devices is not None,
        seconds(domain.allreduce_startup),
        math.inf if domain.oneshot_startup is None else domain.oneshot_startup.value,
        seconds(domain.alltoall_startup),
        seconds(domain.p2p_startup),
    )


@dataclass(frozen=True)
class TierRate:
    """A tier below device memory, as one device sees it when all its sharers stream.

    ``capacity`` in bytes per device; ``channels``: the limits on what moves there and back (``planner.hardware.channels``);
    ``latency`` in s; ``granule``: bytes that a random read costs at least, whole granules or what streams in the time of one
    operation.
    """

    id: str
    kind: str
    role: str
    capacity: float
    channels: tuple[Channel, ...]
    latency: float
    granule: int
    sharing: int = 1
    """Devices that share one such memory, so that one copy of what they all read will do."""

    def channel(self, name: str) -> Channel:
        """The channel of that id, which nothing of this tier's passes where it has none."""
        return next((channel for channel in self.channels if channel.id == name), Channel(name, 0.0, 0.0))

    @cached_property
    def resources(self) -> tuple[tuple[str, float], ...]:
        """``(id, bytes/s)`` of every part that a read passes, alone on it."""
        return tuple((channel.id, 1.0 / channel.read) for channel in self.channels if channel.read > 0.0 and not channel.shared)

    @cached_property
    def bytes_per_s(self) -> float:
        """Rate of a stream from this tier: that of its busiest channel."""
        return 1.0 / max(channel.read for channel in self.channels)


@dataclass(frozen=True)
class Rates:
    """Everything ``passes`` needs, in SI units per device."""

    peak: dict[str, float]
    curve: dict[str, tuple[Curve, float]]
    knee_rows: dict[str, float]
    memory_id: str
    memory_kind: str
    memory_bytes: float
    memory_bytes_per_s: float
    tiers: tuple[TierRate, ...]
    levels: tuple[Level, ...]
    floors: dict[str, float]
    efficiency: dict[str, float]
    reserve: dict[str, float]
    imbalance: float
    residual: float
    overlap_communication: bool
    buckets: tuple[int, ...]
    memory_startup_s: float = 0.0
    """Of one stream of the device memory (s): no block takes less."""
    matrix_s: float = 0.0
    """Added to the floor of a block for each weight matrix beyond those of a plain block of its kind."""
    routed_read: float = 1.0
    """Of the device memory's stream rate, what reads of routed experts reach; ``cache_read`` of caches."""
    cache_read: float = 1.0
    routed_width: float = 0.0
    """Inner width of an expert's part on a device at which its products reach half of what wide ones do."""
    all_reduce: float = 1.0
    """Times over those of the collectives' equations; ``all_to_all`` of dispatch and combine."""
    all_to_all: float = 1.0
    nominal_bytes_per_s: float = 0.0
    """Of the device memory, before its efficiency."""
    issue: Mapping[str, float] = field(default_factory=dict)
    """Seconds that the host needs to issue the kernels of a block of each kind, and of a further ``matrix``; empty: not known."""
    at_peak: bool = False
    """Products run at the dense peak, whatever the kernel curve."""
    contended: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Channel -> network level -> seconds of the channel for each byte that a device sends there, and receives."""

    def same_passes(self, other: Rates) -> bool:
        """Whether every pass takes as long with everything in device memory, before the residual."""
        return (
            replace(self, tiers=other.tiers, contended=other.contended, residual=other.residual, reserve=other.reserve) == other
        )

    def roofline(self) -> Rates:
        """The same device without losses: peak and nominal rates, nothing exposed, experts evenly spread."""
        return replace(
            self,
            at_peak=True,
            efficiency=dict.fromkeys(self.efficiency, 1.0),
            memory_bytes_per_s=self.nominal_bytes_per_s or self.memory_bytes_per_s,
            floors=dict.fromkeys(self.floors, 0.0),
            issue={},
            imbalance=1.0,
            residual=1.0,
            memory_startup_s=0.0,
            matrix_s=0.0,
            routed_read=1.0,
            cache_read=1.0,
            routed_width=0.0,
            all_reduce=0.0,
            all_to_all=0.0,
            levels=(),
        )

    def gemm_flop_per_s(self, dtype: str, rows: np.ndarray, kind: str) -> np.ndarray:
        """Achieved FLOP/s of matrix products of ``rows`` rows.

        Below the curve's knee (``knee_of``) a GEMM is bound by reading its weights, which the memory term counts, so the kernel
        curve is read at ``max(rows, knee)``.
        """
        dtype = dtype if dtype in self.peak else "bf16"
        if self.at_peak:
            return np.full(np.shape(rows), self.peak[dtype])
        curve, factor = self.curve[dtype]
        fraction = curve.fraction(np.maximum(rows, self.knee_rows[dtype]), factor)
        return np.asarray(self.peak[dtype] * fraction * self.efficiency[kind])


def knee_of(curve: Curve) -> float:
    """Rows at which the first point's proportional rise reaches the last point's fraction: where the measured kernel stops
    being bound by streaming its weights. It belongs to the curve, which may state it, so a faster memory never slows a kernel."""
    if curve.knee is not None:
        return curve.knee
    (rows, fraction), (_, most) = curve.points[0], curve.points[-1]
    return rows * most / fraction


def resolve_rates(system: System, runtime: Runtime) -> Rates:
    """The rates of a system's device under a runtime, at the figures' values."""
    own = [tier for tier in system.tiers if tier.role == "device"]
    if len(own) != 1:
        raise InputError("needs exactly one tier of role 'device'", where=f"hardware {system.id}", mend="correct the profile")
    memory = own[0]
    hbm = memory.read.value * memory.efficiency.value
    tiers = []
    for tier in system.tiers:
        if tier.role == "device":
            continue
        latency = tier.latency.value + sum(
            system.link(step).latency.value for step in tier.via if step in {x.id for x in system.links}
        )
        startup = tier.startup.value if tier.startup else 0.0
        tiers.append(
            TierRate(
                tier.id,
                tier.kind,
                tier.role,
                tier.usable.value / tier.devices_sharing,
                tier_channels(system, tier.id),
                latency + startup,
                max(tier.granule_bytes, math.ceil(tier.read.value / tier.iops.value) if tier.iops else 1),
                tier.devices_sharing,
            )
        )
    order = {"host": 0, "disk": 1}
    tiers.sort(key=lambda t: (order.get(t.role, 2), -t.bytes_per_s, t.id))
    levels = tuple(level_of(domain) for domain in _with_network(system.domains))
    compute = system.device.compute
    if "bf16" not in compute:
        wide = next((name for name in ("fp16", "fp32") if name in compute), None)
        if wide is None:
            where = f"device {system.device.id}"
            raise InputError("gives no peak for bf16, fp16 or fp32", where=where, mend="add [compute.bf16]")
        compute = {**compute, "bf16": compute[wide]}  # what needs 16 bits runs in the narrowest float that has them
    run = {stored: next((one for one in used if one in compute), "") for stored, used in runtime.computes.items()}
    compute = {**compute, **{stored: compute[used] for stored, used in run.items() if used}}
    return Rates(
        peak={k: c.peak.value for k, c in compute.items()},
        curve={k: (c.gemm, 1.0) for k, c in compute.items()},
        knee_rows={k: knee_of(c.gemm) for k, c in compute.items()},
        memory_id=memory.id,
        memory_kind=memory.kind,
        memory_bytes=memory.usable.value,
        memory_bytes_per_s=hbm,
        nominal_bytes_per_s=memory.read.value,
        tiers=tuple(tiers),
        levels=levels,
        floors={name: figure.value for name, figure in runtime.floors},
        efficiency={name: figure.value for name, figure in runtime.efficiency},
        reserve={name: figure.value for name, figure in runtime.reserve},
        imbalance=runtime.imbalance.value,
        residual=runtime.residual.value,
        overlap_communication=runtime.overlap_communication,
        buckets=runtime.batch_buckets,
        issue={name: figure.value for name, figure in runtime.issue or ()},
        memory_startup_s=memory.startup.value if memory.startup else 0.0,
        **_fitted(runtime, memory.efficiency.value),
        contended=network_shares(system),
    )


def more_bandwidth(rates: Rates, system: System, domain_id: str, more: float) -> Rates:
    """The rates of a system with so many bytes/s more of one domain on every device."""
    domains = tuple(
        d.model_copy(update={"bandwidth": d.bandwidth.model_copy(update={"value": d.bandwidth.value + more})})
        if d.id == domain_id
        else d
        for d in system.domains
    )
    changed = system.model_copy(update={"domains": domains})
    levels = {domain.id: domain for domain in domains}
    return replace(
        rates,
        levels=tuple(level_of(levels[level.id]) for level in rates.levels),
        tiers=tuple(replace(tier, channels=tier_channels(changed, tier.id)) for tier in rates.tiers),
        contended=network_shares(changed),
    )


def _fitted(runtime: Runtime, efficiency: float) -> dict[str, Any]:
    """What a calibration says beyond the class defaults; no read is faster than the memory's nominal rate."""
    found = runtime.calibrated
    if found is None:
        return {}
    return {
        "matrix_s": found.matrix.value,
        "routed_read": min(found.routed_read.value, 1.0 / efficiency),
        "cache_read": min(found.cache_read.value, 1.0 / efficiency),
        "routed_width": found.routed_width,
        "all_reduce": found.all_reduce.value,
        "all_to_all": found.all_to_all.value,
    }


def _with_network(domains: tuple[Domain, ...]) -> tuple[Domain, ...]:
    """Without the outermost domains whose network nobody has described: a plan that reaches across them is refused before."""
    while domains and not (domains[-1].bandwidth.known and domains[-1].latency.known and domains[-1].p2p_efficiency.known):
        domains = domains[:-1]
    return domains


_End = Literal["low", "high"]


def uncertain_groups(runtime: Runtime) -> tuple[str, ...]:
    """Names of the groups of figures that move together when a prediction's interval is computed."""
    groups = ["compute", "memory", "network", "host", "floors", "imbalance", "residual"]
    return tuple(groups + [f"efficiency.{name}" for name, _ in runtime.efficiency])


def slow_corner(system: System, runtime: Runtime) -> tuple[System, Runtime]:
    """``(system, runtime)`` with every uncertain figure at its bad end at once: rates slow, times long, memory small, reserves,
    power and capital large.

    Over the box of all intervals this is the worst case of a deployment whose configuration, placement and load are kept.
    A pass is a sum of maxima of ``bytes / rate``, ``FLOP / rate`` and ``startup``, times ``imbalance`` and ``residual``: it falls
    in no rate and grows with every time. Requests/s of an instance fall as its passes grow, so what the corner serves, every
    point of the box serves; at that load a queue is no busier and no slower than at the corner, and TTFT, TPOT and requests
    in flight are no more. (Left to fill its batches a faster decode step sends more requests to prefill, which may then wait
    longer: the load must be kept.) What fits the least memory with the largest reserves fits any.
    """
    for group in uncertain_groups(runtime):
        system, runtime = perturb(system, runtime, group, "low")

    def at(figure: Figure, end: float) -> Figure:
        return figure.model_copy(update={"value": end})

    tiers = tuple(t.model_copy(update={"usable": at(t.usable, t.usable.lowest)}) for t in system.tiers)
    most = {key: at(getattr(system, key), getattr(system, key).highest) for key in ("power", "capex")}
    reserve = {name: at(figure, figure.highest) for name, figure in runtime.reserve}
    return (
        system.model_copy(update={"tiers": tiers, **most}),
        runtime.model_copy(update={"reserve": runtime.reserve.model_copy(update=reserve)}),
    )


def perturb(system: System, runtime: Runtime, group: str, end: _End) -> tuple[System, Runtime]:
    """``(system, runtime)`` with one group of figures at the slow (``low``) or fast (``high``) end.

    ``low`` and ``high`` are ends of the *outcome*: at ``low`` rates fall and times rise.
    """

    def move(part: BaseModel, keys: tuple[str, ...], faster_is_more: bool) -> BaseModel:
        upward = (end == "high") == faster_is_more
        changes: dict[str, Figure] = {}
        for key in keys:
            figure = getattr(part, key)
            if figure is not None:
                changes[key] = figure.model_copy(update={"value": figure.highest if upward else figure.lowest})
        return part.model_copy(update=changes)

    if group == "compute":
        compute = {}
        for key, part in system.device.compute.items():
            factor = part.gemm.high_factor if end == "high" else part.gemm.low_factor
            points = tuple((rows, min(fraction * factor, 1.0)) for rows, fraction in part.gemm.points)
            moved = move(part, ("peak",), True)
            compute[key] = moved.model_copy(update={"gemm": part.gemm.model_copy(update={"points": points})})
        system = system.model_copy(update={"device": system.device.model_copy(update={"compute": compute})})
    elif group in ("memory", "host"):
        tiers = tuple(
            move(move(t, ("read", "write", "efficiency"), True), ("startup",), False)
            if (t.role == "device") == (group == "memory")
            else t
            for t in system.tiers
        )
        way = ("bandwidth", "efficiency", "reverse_efficiency", "both_ways")
        links = system.links if group == "memory" else tuple(move(x, way, True) for x in system.links)
        system = system.model_copy(update={"tiers": tiers, "links": links})
    elif group == "network":
        keys = ("bandwidth", "allreduce_efficiency", "alltoall_efficiency", "p2p_efficiency")
        times = ("latency", "allreduce_startup", "oneshot_startup", "alltoall_startup", "p2p_startup")
        domains = tuple(move(move(d, keys, True), times, False) for d in system.domains)
        system = system.model_copy(update={"domains": domains})
    elif group == "floors":
        names = tuple(name for name, _ in runtime.floors)
        runtime = runtime.model_copy(update={"floors": move(runtime.floors, names, False)})
        if runtime.issue is not None:
            names = tuple(name for name, _ in runtime.issue)
            runtime = runtime.model_copy(update={"issue": move(runtime.issue, names, False)})
    elif group in ("imbalance", "residual"):
        runtime = move(runtime, (group,), False)  # type: ignore[assignment]
    else:
        name = group.removeprefix("efficiency.")
        runtime = runtime.model_copy(update={"efficiency": move(runtime.efficiency, (name,), True)})
    return system, runtime
