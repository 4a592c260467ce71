"""How many instances a load needs, and an autoscaler that adds them: a table, and KEDA ScaledObjects (``keda.sh/v1alpha1``).

An instance keeps the plan's limits up to a rate of requests that does not depend on how many instances there are (each has its
own queue and its own batch), so ``n`` of them keep ``n`` times that. Requests in flight follow by Little's law: the rate times
the time that a request stays in the pool. A pool gets another instance when requests in flight, as the engines count them
(running and waiting), exceed ``Values.scale_at`` of what its instances keep. Most instances are those of the plan and what its
idle devices hold beside them, the other pool being as planned; least is one.

KEDA asks Prometheus itself and makes the HorizontalPodAutoscaler; one of one's own would need an adapter to see engine metrics.
It scales whatever has a scale subresource (a LeaderWorkerSet has ``.spec.replicas``).

A cold start is the time to read an instance's weights, all its devices at once: from the profile's drive, over the profile's
outermost network, or from the site's storage. Engines then warm up for a while that no profile states.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.export.common import value_or_missing
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.header import commented
from planner.export.kubernetes import Map, Site
from planner.export.schema import ExportFile, Values
from planner.export.yaml_text import Value
from planner.plans.context import build_context
from planner.plans.operate import operate
from planner.plans.read import decision_of

OTHERS = 1_000_000
"""Instances of the other pool while one pool is looked at: enough never to be what limits."""
MOST_ROWS = 100


@dataclass(frozen=True)
class PoolScale:
    """Of one pool: what an instance keeps within the limits, how many there may be, and seconds to load weights by source."""

    pool: EnginePool
    requests_per_s: float
    in_flight: float
    most: int
    cold_start_s: dict[str, float]

    @property
    def counts(self) -> list[int]:
        """Counts of instances for a table: all, or ``MOST_ROWS`` of them."""
        if self.most <= MOST_ROWS:
            return list(range(1, self.most + 1))
        steps = {1 + (self.most - 1) * step // (MOST_ROWS - 1) for step in range(MOST_ROWS)}
        return sorted(steps | {self.pool.replicas})


def pool_scales(deployment: EngineDeployment, values: Values) -> list[PoolScale]:
    """Every pool of a deployment, at its most and whatever the demand is."""
    decision = decision_of(deployment.plan, "plan")
    unasked = deployment.inputs.options.model_copy(update={"rate": None, "tokens_per_day": None, "concurrency": None})
    context = build_context(deployment.inputs.model_copy(update={"options": unasked}), decision.variant)
    planned = operate(context, decision)
    rounds = deployment.inputs.workload.output_tokens.mean - 1.0
    made = []
    for pool in deployment.pools:
        only = tuple(replace(part, replicas=1 if part.phase == pool.phase else OTHERS) for part in decision.pools)
        alone = operate(context, replace(decision, pools=only), planned.placed, known=planned.passes)
        rate = alone.capacity_per_s
        stays = {"prefill": alone.ttft_s, "decode": rounds * alone.tpot_s, "mixed": alone.ttft_s + rounds * alone.tpot_s}
        made.append(PoolScale(pool, rate, rate * stays[pool.phase], _most(deployment, pool), cold_starts(pool, values)))
    return made


def _most(deployment: EngineDeployment, pool: EnginePool) -> int:
    plan = deployment.plan
    shared = [row for row in plan.units if row.hardware == pool.system.id] or plan.units
    devices = sum(row.units * row.devices_per_unit for row in shared)
    free = devices - sum(other.replicas * other.devices for other in deployment.pools if other.system.id == pool.system.id)
    if pool.devices > pool.devices_per_node:
        free -= free % pool.devices_per_node
    return pool.replicas + max(free, 0) // pool.devices


def cold_starts(pool: EnginePool, values: Values) -> dict[str, float]:
    """Seconds to read the weights of the fullest device, by where they come from; every device of a node reads at once."""
    weights = sum(part.bytes_per_device for part in pool.held if part.kind in ("static", "routed", "lookup"))
    found: dict[str, float] = {}
    for tier in pool.system.tiers:
        if tier.role == "disk" and tier.read.known:
            found["drive"] = weights / min(rate for _, rate in pool.system.tier_rate(tier.id))
    outer = pool.system.domains[-1] if pool.system.domains else None
    if outer is not None and (outer.devices is None or outer.devices > pool.devices_per_node):
        if outer.bandwidth.known and outer.p2p_efficiency.known:
            found["network"] = weights / (outer.bandwidth.value * outer.p2p_efficiency.value)
    if values.storage_bytes_per_s is not None:
        found["storage"] = weights * pool.devices_on_node / values.storage_bytes_per_s
    return found


SOURCES = ("drive", "network", "storage")
COLUMNS = (
    "pool",
    "instances",
    "devices",
    "requests_per_s",
    "requests_in_flight",
    "of_plan",
    *(f"cold_start_{s}_s" for s in SOURCES),
)


def table(deployment: EngineDeployment, scales: list[PoolScale], command: str) -> ExportFile:
    """``autoscaling.csv``: up to which load each count of instances keeps the plan's limits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for scale in scales:
        colds = [f"{scale.cold_start_s[source]:.4g}" if source in scale.cold_start_s else "" for source in SOURCES]
        for count in scale.counts:
            load = [f"{count * scale.requests_per_s:.6g}", f"{count * scale.in_flight:.6g}"]
            mark = "yes" if count == scale.pool.replicas else ""
            writer.writerow([scale.pool.phase, count, count * scale.pool.devices, *load, mark, *colds])
    return ExportFile("autoscaling.csv", (commented(deployment, command) + text.getvalue()).encode())


def trigger(site: Site, scale: PoolScale, pods: str) -> Map:
    """A KEDA trigger: requests in flight of the pods whose names match, over what one instance takes before another is added."""
    server = value_or_missing(
        site.values.prometheus,
        "prometheus",
        "http://PROMETHEUS:9090",
        "the Prometheus server with engine metrics",
        site.notes.missing,
    )
    space = "" if site.values.namespace is None else f'namespace="{site.values.namespace}",'
    query = " + ".join(f'sum({metric}{{{space}pod=~"{pods}"}})' for metric in site.engine(scale.pool).in_flight)
    return {
        "type": "prometheus",
        "metadata": {"serverAddress": server, "query": query, "threshold": _plain(scale.in_flight * site.values.scale_at)},
    }


def _plain(number: float) -> str:
    """Four digits, no exponent, never zero."""
    places = max(3 - math.floor(math.log10(number)), 0) if number > 0.0 else 0
    return f"{max(number, 1e-9):.{min(places, 12)}f}"


def scaled_object(site: Site, scale: PoolScale, target: Map, pods: str) -> Map:
    """The ScaledObject of a pool."""
    triggers: list[Value] = [trigger(site, scale, pods)]
    return {
        **site.head("keda.sh/v1alpha1", "ScaledObject", site.named(scale.pool.phase), scale.pool.phase),
        "spec": {
            "scaleTargetRef": target,
            "minReplicaCount": 1,
            "maxReplicaCount": scale.most,
            "triggers": triggers,
        },
    }


def autoscaling_files(site: Site, target: Callable[[EnginePool], Map], pods: Callable[[EnginePool], str]) -> list[ExportFile]:
    """``autoscaling.yaml`` and ``autoscaling.csv``; ``target``: what is scaled, ``pods``: a pattern of names of its pods."""
    scales = pool_scales(site.deployment, site.values)
    objects = [scaled_object(site, scale, target(scale.pool), pods(scale.pool)) for scale in scales]
    site.notes.said += scale_lines(scales)
    return [site.write("autoscaling.yaml", objects), table(site.deployment, scales, site.command)]


def scale_lines(scales: list[PoolScale]) -> list[str]:
    """A line a pool for people."""
    lines = []
    for scale in scales:
        colds = ", ".join(f"{seconds:.3g} s from {source}" for source, seconds in scale.cold_start_s.items())
        start = f"; weights load in {colds}" if colds else "; the profile has no drive or network to load weights from"
        lines.append(
            f"{scale.pool.phase} pool: 1 to {scale.most} instances, {scale.requests_per_s:.4g} requests/s and "
            f"{scale.in_flight:.4g} in flight each{start}"
        )
    return lines
