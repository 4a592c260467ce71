"""What exporters share: layers to stream in groups, memory fractions, placeholders, words for what is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from planner.export.deployment import EngineDeployment, EnginePool, Held
from planner.export.schema import Missing, NotCarried, Values

GIB = 1 << 30


@dataclass
class Notes:
    """What an exporter finds on the way."""

    lost: list[NotCarried] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def notes_of(deployment: EngineDeployment) -> Notes:
    """Notes that open with what no engine is told by an option."""
    lengths = deployment.inputs.workload.input_tokens, deployment.inputs.workload.output_tokens
    varied = any(part.coefficient_of_variation > 0.0 for part in lengths)
    lost = []
    for pool in deployment.pools:
        for old, new in pool.converted:
            why = "an engine loads weights in the dtype they are stored in"
            what = f"{pool.phase} pool: weights of {old} in {new}"
            lost.append(NotCarried(what, why, "store them so and name them as model_path"))
        if varied:
            what = f"{pool.phase} pool: requests of more than {pool.longest_tokens} tokens"
            why = "the plan reserves cache for requests of mean length, and the engine is told that length"
            lost.append(NotCarried(what, why, "they are refused until its limit is raised"))
    return Notes(lost=lost)


@dataclass(frozen=True)
class StreamGroups:
    """The last ``streamed`` layers of every ``size`` are kept in host memory and copied ahead; ``layers``: how many in all."""

    size: int
    streamed: int
    layers: int


def stream_groups(layers: int, wanted: float) -> StreamGroups | None:
    """The groups that stream at least ``wanted`` of ``layers`` layers and the fewest more; ``None`` for nothing to stream.

    ``n`` of every ``G`` layers are streamed in each whole group, ``n floor(L / G)`` in all; of equal counts the smallest group,
    since its copies hide behind nearer layers and need fewer buffers.
    """
    if wanted <= 1e-6 or layers < 1:
        return None
    best = StreamGroups(1, 1, layers)
    for size in range(1, layers + 1):
        whole = layers // size
        streamed = min(max(math.ceil(wanted / whole - 1e-9), 1), size)
        count = streamed * whole
        if wanted - 1e-6 <= count < best.layers:
            best = StreamGroups(size, streamed, count)
    return best


def layers_below(parts: Iterable[Held], mode: str) -> float:
    """Layers' worth of items that reach device memory in this way, each by the share that lies below."""
    found: dict[str, float] = {}
    for part in parts:
        if part.mode == mode:
            found[part.item] = found.get(part.item, 0.0) + part.share * len(part.layers)
    return max(found.values(), default=0.0)


def memory_fraction(pool: EnginePool) -> float:
    """Share of device memory that the engine may take: all that is usable less what is others' (driver context, communication,
    fragmentation), rounded down to a thousandth."""
    return math.floor((1.0 - pool.outside_bytes / pool.device_memory_bytes) * 1000.0) / 1000.0


def static_fraction(pool: EnginePool) -> float:
    """Share of device memory for weights and caches alone: less all reserves (activations, graphs, buffers, others')."""
    return math.floor((1.0 - pool.reserve_bytes / pool.device_memory_bytes) * 1000.0) / 1000.0


def value_or_missing(given: str | None, key: str, placeholder: str, why: str, missing: list[Missing]) -> str:
    """What the site gave, or a placeholder on record."""
    if given is not None:
        return given
    row = Missing(key, placeholder, why)
    if row not in missing:
        missing.append(row)
    return placeholder


def model_path(deployment: EngineDeployment, values: Values, missing: list[Missing]) -> str:
    """Hub id or path of the weights: the site's, else a folder of the volume, else a placeholder."""
    if values.model_path is None and values.pvc is not None:
        return f"{values.mount_path.rstrip('/')}/{deployment.plan.model}"
    return value_or_missing(values.model_path, "model_path", "MODEL_PATH", "hub id or folder of the weights", missing)


def count(number: int, noun: str) -> str:
    """``1 device``, ``8 devices``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def pool_line(pool: EnginePool) -> str:
    """What is started how often."""
    nodes = f" on {pool.nodes} nodes each" if pool.nodes > 1 else ""
    return f"{pool.phase} pool: {count(pool.replicas, 'instance')} of {count(pool.devices, 'device')}{nodes}"


def table_share_below(pool: EnginePool) -> float | None:
    """Share of the bytes of a pool's Engram tables that lie outside device memory; ``None`` for a model without them."""
    tables = [part for part in pool.held if part.kind == "lookup" and part.layers]
    size = sum(part.bytes_per_device for part in tables)
    return sum(part.bytes_per_device for part in tables if part.role != "device") / size if size else None


def listed(layers: tuple[int, ...]) -> str:
    """``layers 3-60``, or ``layers 3, 5-7``."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    words = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"layer{'s' if len(layers) > 1 else ''} {words}" if layers else "outside the layers"


def lost_placements(pool: EnginePool, kinds: dict[str, str], why: str) -> list[NotCarried]:
    """Rows for items below device memory that the engine keeps in device memory; ``kinds``: item kind to what happens instead."""
    rows = []
    for part in pool.held:
        if part.role != "device" and part.kind in kinds:
            size = f"{part.bytes_per_device / 1e9:.4g} GB a device"
            what = f"{pool.phase} pool: {part.share:.4g} of {part.item}, {listed(part.layers)}, in {part.tier} ({size})"
            rows.append(NotCarried(what, why, kinds[part.kind]))
    return rows
