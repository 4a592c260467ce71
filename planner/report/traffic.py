"""Bytes that a device of the slowest stage moves in one pass: from memories, into caches, over networks."""

from __future__ import annotations

from dataclasses import dataclass

from planner.performance.network_time import network_bytes
from planner.plans.states import PoolState
from planner.report.study import Study

COMPUTE, PEERS, WRITTEN = "compute", "other devices", "caches written"


@dataclass(frozen=True)
class Flow:
    """``bytes`` of ``what`` from one place to another, in a pass of a phase."""

    pool: str
    phase: str
    source: str
    target: str
    what: str
    bytes: float


def traffic_of(study: Study) -> list[Flow]:
    """Flows by pool and phase: lower memories to device memory, device memory to the compute units by content, what is written
    to caches, and what is sent to other devices by network level (as much is received)."""
    moved = {
        (row["pool"], one["phase"], row["tier"]): one["bytes_per_device"]
        for row in study.plan.explanation.get("tiers") or []
        for one in row["passes"]
    }
    flows = []
    for state in study.operation.pools:
        for phase in state.decision.phases:
            flows += _flows(state, phase, moved)
    return [flow for flow in flows if flow.bytes > 0.0]


def _flows(state: PoolState, phase: str, moved: dict[tuple[str, str, str], float]) -> list[Flow]:
    pool, own = state.decision.phase, state.pool.rates.memory_id
    passes, stage = state.passes[phase], state.times.slowest[phase]
    pieces = (*state.pool.pieces.windows, *state.pool.pieces.draft)
    shapes = state.decision.row().shapes
    read = {"weights": 0.0, "routed experts": 0.0, "lookup tables": 0.0, "KV cache": 0.0}
    written = 0.0
    sent: dict[str, float] = {}
    for index, blocks in enumerate(passes.windows):
        repeat = passes.repeats[stage][index]
        if not repeat:
            continue
        for block, piece in zip(blocks, pieces[index].blocks, strict=True):
            read["weights"] += repeat * float(block.static_read[0])
            read["routed experts"] += repeat * float(block.routed_read[0])
            read["lookup tables"] += repeat * float(block.lookup_read[0])
            read["KV cache"] += repeat * float(block.cache_read[0])
            written += repeat * float(block.cache_write[0])
            for level, size in network_bytes(piece, state.pool.pieces, shapes, state.pool.rates, passes.loads[index]).items():
                sent[level] = sent.get(level, 0.0) + repeat * float(size[0])
    flows = [
        Flow(pool, phase, tier, own, "brought in", size)
        for (at, when, tier), size in moved.items()
        if (at, when) == (pool, phase)
    ]
    flows += [Flow(pool, phase, own, COMPUTE, what, size) for what, size in read.items()]
    flows.append(Flow(pool, phase, COMPUTE, WRITTEN, "KV cache", written))
    flows += [Flow(pool, phase, COMPUTE, PEERS, level, size) for level, size in sent.items()]
    return flows
