"""What an engine has to be told of a plan, in no engine's words: parallelism, batch, memories, and what lies where.

Worked out from the plan's own inputs and decision, not from its printed labels, so that layers and devices are counts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

from planner.architecture import Model
from planner.hardware import System
from planner.plans.context import PoolContext, build_context
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import reserved_bytes
from planner.plans.inputs import Inputs, with_weight_dtype
from planner.plans.read import decision_of, inputs_of
from planner.plans.schema import Experts, Plan, PrefixCacheRow
from planner.plans.states import PoolState, pool_state

Kind = Literal["static", "routed", "lookup", "cache", "prefix"]
LEAST_SHARE = 1e-9


@dataclass(frozen=True)
class Held:
    """A part of the model or of its caches in one memory, on the fullest device of a stage.

    ``layers``: model layer numbers, empty outside the layers (embedding, head); ``share``: of its bytes, of all stages;
    ``bytes_per_device``: of all those layers; ``mode``: ``resident``, ``stream`` (copied to device memory every pass), ``fetch``
    (on demand) or ``prefetch`` (rows fetched before the pass that needs them).
    """

    item: str
    kind: Kind
    layers: tuple[int, ...]
    tier: str
    tier_kind: str
    role: str
    mode: str
    share: float
    bytes_per_device: float


@dataclass(frozen=True)
class EnginePool:
    """One pool: ``replicas`` engine instances of ``devices`` devices each.

    ``sequences_per_rank``: decode batch of an attention-DP rank; ``sequences``: of an instance, over its pipeline stages;
    ``chunk_tokens``: prefill tokens of a rank and pass, 0 where the pool does not prefill.
    """

    phase: Literal["prefill", "decode", "mixed"]
    system: System
    replicas: int
    devices: int
    devices_per_node: int
    tp: int
    pp: int
    ep: int
    attention_dp: int
    context_parallel: int
    sequences_per_rank: int
    sequences: int
    chunk_tokens: int
    mtp: int
    redundant_experts: int
    kv_dtype: str
    page_tokens: int
    longest_tokens: int
    """Of a request that a rank's cache holds alone, at most the model's context."""
    device_memory_bytes: int
    """Usable bytes of a device, of which ``reserve_bytes`` hold neither weights nor caches, and ``outside_bytes`` of these belong
    to the driver's context, communication and fragmentation."""
    reserve_bytes: int
    outside_bytes: int
    weight_bytes: int
    """Weights resident on the fullest device."""
    cache_bytes: int
    """KV cache on the fullest device."""
    held: tuple[Held, ...]
    experts: Experts | None
    prefix: PrefixCacheRow | None
    wait_steps: int = 0
    """Decode steps that a request waits at most until every attention-DP rank has one to prefill (0: for none)."""
    cadence_steps: int = 1
    """Decode steps in which as many requests come as the instance has such ranks."""
    converted: tuple[tuple[str, str], ...] = ()
    """Formats of weights that the plan has stored otherwise than the model comes: ``(from, to)``."""

    @property
    def nodes(self) -> int:
        """Nodes of an instance."""
        return -(-self.devices // self.devices_per_node)

    @property
    def devices_on_node(self) -> int:
        """Devices of an instance on each of its nodes."""
        return self.devices if self.nodes == 1 else self.devices_per_node

    def below(self, *kinds: Kind) -> tuple[Held, ...]:
        """What of these kinds lies outside device memory."""
        return tuple(part for part in self.held if part.kind in kinds and part.role != "device")


@dataclass(frozen=True)
class EngineDeployment:
    """A plan for an engine: ``fingerprint`` is the SHA-256 of the plan file's canonical text."""

    plan: Plan
    inputs: Inputs
    pools: tuple[EnginePool, ...]
    fingerprint: str

    @property
    def model(self) -> Model:
        """The model to serve."""
        return self.inputs.model

    @property
    def disaggregated(self) -> bool:
        """Whether prefill and decode are pools of their own."""
        return len(self.pools) == 2

    @cached_property
    def expert_layers(self) -> tuple[int, ...]:
        """Model layers with routed experts, drafts apart, in order."""
        found: set[int] = set()
        for block in self.model.blocks:
            if not block.draft and any(group.access == "routed" for group in block.weights):
                found.update(block.at or range(block.first_layer, block.first_layer + block.layers))
        return tuple(sorted(found))

    @property
    def experts(self) -> int:
        """Routed experts of a layer, 0 for a dense model."""
        counts = (group.count for block in self.model.blocks for group in block.weights if group.access == "routed")
        return max(counts, default=0)


def engine_deployment(plan: Plan, where: str = "plan") -> EngineDeployment:
    """The deployment of a plan; ``InputError`` where the plan cannot be worked out again."""
    inputs, decision = inputs_of(plan, where), decision_of(plan, where)
    context = build_context(inputs, decision.variant)
    pools = tuple(_pool(plan, context.pool(chosen.phase), chosen) for chosen in decision.pools)
    return EngineDeployment(plan, inputs, pools, hashlib.sha256(plan.to_json().encode()).hexdigest())


def _pool(plan: Plan, pool: PoolContext, decision: PoolDecision) -> EnginePool:
    state = pool_state(pool, decision)
    reserve = {name: float(column[0]) for name, column in reserved_bytes(pool, decision.row()).items()}
    stated = next(row for row in plan.pools if row.phase == decision.phase)
    return EnginePool(
        phase=stated.phase,
        system=pool.system,
        replicas=decision.replicas,
        devices=decision.tp * decision.dp * decision.pp,
        devices_per_node=pool.system.devices_per_node,
        tp=decision.tp,
        pp=decision.pp,
        ep=decision.ep,
        attention_dp=decision.dp,
        context_parallel=decision.cp,
        sequences_per_rank=decision.batch,
        sequences=decision.batch * decision.dp * decision.pp,
        chunk_tokens=decision.chunk,
        mtp=stated.configuration.mtp,
        redundant_experts=stated.configuration.redundant_experts,
        kv_dtype=stated.configuration.kv_dtype,
        page_tokens=pool.inputs.runtime.page_tokens,
        longest_tokens=_longest(pool, int(stated.memory["admitted_sequences_per_rank"])),
        device_memory_bytes=int(pool.rates.memory_bytes),
        reserve_bytes=int(sum(reserve.values())),
        outside_bytes=int(sum(reserve[name] for name in ("context", "communication", "fragmentation") if name in reserve)),
        weight_bytes=int(stated.memory["weights_bytes"]),
        cache_bytes=int(stated.memory["kv_cache_bytes"]),
        held=_held(state),
        experts=next((row for row in plan.experts or () if row.pool == decision.phase), None),
        prefix=next((row for row in plan.prefix_cache or () if row.pool == decision.phase), None),
        wait_steps=_wait_steps(plan, state),
        cadence_steps=_cadence_steps(plan, state),
        converted=_converted(pool),
    )


def _cadence_steps(plan: Plan, state: PoolState) -> int:
    decision, rate = state.decision, plan.prediction.requests_per_s / state.decision.replicas
    if not _wait_steps(plan, state):
        return 1
    return max(round(decision.dp / rate / state.seconds["decode"]), 1)


def _wait_steps(plan: Plan, state: PoolState) -> int:
    if state.decision.phase != "mixed" or state.decision.dp == 1:
        return 0
    wait_s = plan.prediction.random_arrivals.prefill_wait_ms / 1e3
    if not wait_s:
        return 0
    return max(math.ceil(wait_s / state.seconds["decode"] - 1e-9), 1)


def _converted(pool: PoolContext) -> tuple[tuple[str, str], ...]:
    """By what was asked for and by what the devices compute in."""
    inputs = pool.inputs
    before, after = _formats(inputs.model), _formats(with_weight_dtype(inputs.model, inputs.options.weight_dtype))
    planned = [pool.conversions.get(name, name) for name in after]
    return tuple(sorted({pair for pair in zip(before, planned, strict=True) if pair[0] != pair[1]}))


def _formats(model: Model) -> list[str]:
    return [tensor.format for block in model.blocks for group in block.weights for tensor in group.tensors]


def _longest(pool: PoolContext, sequences: int) -> int:
    """The cache that is reserved for ``sequences`` of the workload's mean length holds one that is as long as all of them."""
    return min(pool.inputs.model.max_context, max(sequences, 1) * int(pool.inputs.workload.reserved_tokens))


def _held(state: PoolState) -> tuple[Held, ...]:
    """Everything placed, by window, item, memory and mode; bytes are those of the fullest stage."""
    problem, pieces, rates = state.problem, state.pool.pieces, state.pool.rates
    tiers = {tier.id: tier for tier in rates.tiers}
    windows = (*pieces.windows, *pieces.draft)
    alike = pieces.stage_counts(state.decision.pp)
    every = [sum(count * row[window] for count, row in zip(alike, problem.stages, strict=True)) for window in range(len(windows))]
    found: dict[tuple[int, str, str, str], list[tuple[float, float]]] = {}
    for choice, share in zip(problem.choices, state.shares, strict=True):
        item, layers = problem.items[choice.item], problem.stages[choice.stage][problem.items[choice.item].window]
        if share > LEAST_SHARE and layers:
            size = item.held_in(tiers.get(choice.tier)) * layers * float(share)
            part = float(share) * alike[choice.stage] * layers / every[item.window]
            found.setdefault((item.window, item.name, choice.tier, choice.mode), []).append((part, size))
    kinds: dict[tuple[int, str], Kind] = {(item.window, item.name): cast(Kind, item.kind) for item in problem.items}
    parts = []
    for (window, name, tier, mode), rows in found.items():
        below = tiers.get(tier)
        parts.append(
            Held(
                item=name,
                kind=kinds[window, name],
                layers=tuple(_layers(windows[window].first_layer, windows[window].layers, windows[window].at, pieces.layers)),
                tier=tier,
                tier_kind=rates.memory_kind if below is None else below.kind,
                role="device" if below is None else below.role,
                mode=mode,
                share=sum(share for share, _ in rows),
                bytes_per_device=max(size for _, size in rows),
            )
        )
    return tuple(parts)


def _layers(first: int, count: int, at: tuple[int, ...], layers: int) -> Iterable[int]:
    return () if first < 0 or first >= layers else at or range(first, first + count)
