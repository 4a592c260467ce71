"""What exporters share: layers to stream in groups, memory fractions, placeholders, words for what is lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.header import header_lines
from planner.export.schema import ExportFile, Missing, NotCarried, Values
from planner.export.serve import Serve, node_script

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
        if varied and pool.longest_tokens < deployment.model.max_context:
            what = f"{pool.phase} pool: requests of more than {pool.longest_tokens} tokens"
            lost.append(NotCarried(what, "the cache that the plan gives a rank holds no longer one", "they are refused"))
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


def streamed_experts(pool: EnginePool, layers: int, engine: str, notes: Notes) -> StreamGroups | None:
    """Groups of a stage's layers whose experts are streamed from host memory, as many bytes as the plan streams; ``None`` where
    no experts are. Engines stream the experts of whole layers: what else the plan streams is made up for by more of them."""
    parts = [part for part in pool.below("static", "routed") if part.role == "host" and part.mode == "stream"]
    experts = sum(part.share * len(part.layers) for part in parts if part.kind == "routed") / pool.pp
    if not experts:
        return None
    stage = -(-layers // pool.pp)
    each = sum(part.bytes_per_device for part in pool.held if part.kind == "routed") / stage
    for part in (part for part in parts if part.kind == "static"):
        what = f"{pool.phase} pool: {part.share:.4g} of {part.item}, {listed(part.layers)}, in {part.tier}"
        notes.lost.append(NotCarried(what, f"{engine} streams experts of whole layers", "as many bytes more of experts"))
        experts += part.bytes_per_device / each
    groups = stream_groups(stage, min(experts, float(stage)))
    if groups is not None:
        of = "" if pool.pp == 1 else " of a stage"
        which = f"{groups.streamed} of every {groups.size}, {groups.layers} in all{of}"
        notes.said.append(f"{pool.phase} pool: {engine} streams the experts of whole layers: {which}")
    return groups


def read_in_place_bytes(pool: EnginePool, groups: StreamGroups | None) -> float:
    """Bytes a device of weights in host memory that no group streams: what is fetched on demand, or all but experts."""
    parts = [part for part in pool.below("static", "routed") if part.role == "host"]
    return sum(part.bytes_per_device for part in parts if part.mode == "fetch" or groups is None)


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


VISIBLE = {"NVIDIA": "CUDA_VISIBLE_DEVICES", "AMD": "HIP_VISIBLE_DEVICES", "Huawei": "ASCEND_RT_VISIBLE_DEVICES"}
"""The variable that gives a process a part of a node's devices (CUDA, HIP and CANN manuals)."""


def shell_script(pool: EnginePool, serve: Serve, head: str, beside: str = "", others: str = "") -> bytes:
    """The shell script of a pool's instances; ``head``: its header, ``beside`` and ``others`` as in ``serve``."""
    return f"#!/bin/sh\n{head}# {pool_line(pool)}\nset -eu\n{beside}{node_script(serve, pool.nodes, others)}".encode()


def experts_file(deployment: EngineDeployment, pool: EnginePool, text: str, command: str, notes: Notes) -> ExportFile:
    """A map of experts in JSON, whose header, for want of comments, is a note."""
    name = f"{pool.phase}-experts.json"
    notes.said.append(f"{name}: {'; '.join(header_lines(deployment, command)[1:])}")
    return ExportFile(name, text.encode())


def tell_shared_nodes(deployment: EngineDeployment, notes: Notes, between: str = "") -> None:
    """Notes of pools whose instances leave room on a node for another; ``between``: what sets the port of transfers."""
    ports = f"--port and {between}" if between and deployment.disaggregated else "--port"
    for pool in deployment.pools:
        beside = (own for own in deployment.pools if own.system.id == pool.system.id and (own is not pool or own.replicas > 1))
        if any(pool.devices + own.devices <= pool.devices_per_node for own in beside):
            variable = VISIBLE.get(pool.system.vendor, "the variable that its runtime reads")
            notes.said.append(
                f"{pool.phase} pool: where instances share a node, which no option says, start each with "
                f"{count(pool.devices, 'device')} of its own ({variable}) and with its own {ports}"
            )


def cache_dtype(pool: EnginePool, names: Mapping[str, str], engine: str, notes: Notes) -> str | None:
    """The cache's dtype as an engine names it; on record where it has none."""
    if pool.kv_dtype not in names:
        why = f"{engine} has no cache of this dtype"
        notes.lost.append(NotCarried(f"{pool.phase} pool: KV cache in {pool.kv_dtype}", why, "the model's own dtype"))
    return names.get(pool.kv_dtype)


def prefix_below(pool: EnginePool, engine: str, notes: Notes) -> tuple[float, float]:
    """Bytes a device of the prefix cache ``(in host memory, in lower memories)``. Running sequences' caches there go on record:
    engines keep those on the device."""
    why = f"{engine} keeps the cache of a running sequence in device memory"
    notes.lost += lost_placements(pool, {"cache": "fewer sequences run at once"}, why)
    below = pool.below("prefix")
    host = sum(part.bytes_per_device for part in below if part.role == "host")
    return host, sum(part.bytes_per_device for part in below if part.role != "host")


def tell_uneven_copies(pool: EnginePool, engine: str, notes: Notes) -> None:
    """On record: engines have no shares of an expert's copies."""
    if pool.experts is not None and pool.experts.split is not None:
        why = f"{engine} shares the tokens of an expert alike among its copies"
        notes.lost.append(NotCarried(f"{pool.phase} pool: uneven shares of the copies of an expert", why, "equal shares"))


def tell_embedding(pool: EnginePool, engine: str, notes: Notes) -> None:
    """On record: engines keep the embedding of tokens on the device."""
    embedding = replace(pool, held=tuple(part for part in pool.held if part.kind == "lookup" and not part.layers))
    why = f"{engine} keeps the embedding of tokens on the device"
    notes.lost += lost_placements(embedding, {"lookup": "device memory"}, why)


def tables_in_host(pool: EnginePool, below: float, engine: str, notes: Notes) -> bool:
    """Whether the share ``below`` of a pool's Engram tables off the device puts all of their rows into host memory."""
    host = below > 0.5
    if 0.0 < below < 1.0 - 1e-6:
        why = f"{engine} keeps all rows of the Engram tables in one memory, the device's or the host's"
        instead = "host memory" if host else "device memory"
        notes.lost.append(NotCarried(f"{pool.phase} pool: {below:.4g} of the Engram tables off the device", why, instead))
    return host


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
