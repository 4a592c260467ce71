"""One deployment at work: a decision, its placement, and the service and cost that follow. One row, no search, no solver."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from planner.economics import StreamCost, stream_costs
from planner.errors import InputError
from planner.footprint import Shapes
from planner.performance import PassTimes, handoff_seconds, mixed_serving, prefill_queue, split_serving
from planner.performance.serving import queue_wait, utilisation_for_wait
from planner.plans.evaluate import Candidates, admitted_sequences, decode_pass, memory_need, prefill_pass, reserved_bytes
from planner.plans.experts import ExpertMap, with_map
from planner.plans.inputs import Context, PoolContext, Variant
from planner.plans.lp import Vertex, decode_basis, vertex
from planner.plans.tiers import Evaluated, TierProblem, build_tier_problem, evaluate_shares, resident_shares

BUSY_LIMIT = 0.95
"""A prefill pool is planned at most this busy, with or without a limit on TTFT: beyond it the M/D/1 queue explodes."""


@dataclass(frozen=True)
class PoolDecision:
    """The configuration of one pool; ``batch`` is 0 where it does not decode, ``chunk`` where it does not prefill.

    ``basis`` proves the placement; ``None`` where everything fits in device memory, which needs no proof. ``period_s`` is the
    longest prefill pass plus decode step that the placement of an aggregated pool may have, so that TTFT meets its limit.
    """

    phase: str
    replicas: int
    tp: int
    dp: int
    ep: int
    pp: int
    batch: int
    chunk: int
    basis: str | None = None
    period_s: float | None = None
    cp: int = 1
    prefix_rate: float | None = None
    """Requests/s of a rank for which its prefix cache is sized, and beyond which it serves none."""

    @property
    def instance_devices(self) -> int:
        """Devices of one instance."""
        return self.tp * self.dp * self.pp

    @property
    def devices(self) -> int:
        """Devices of the pool."""
        return self.replicas * self.instance_devices

    @property
    def phases(self) -> tuple[str, ...]:
        """What the pool runs."""
        return ("decode", "prefill") if self.phase == "mixed" else (self.phase,)

    def row(self) -> Candidates:
        """The decision as one row."""
        shapes = Shapes.single(self.tp, self.dp, self.ep, self.pp, self.cp)
        return Candidates(shapes, np.array([float(self.batch)]), np.array([float(self.chunk)]))


@dataclass(frozen=True)
class Decision:
    """Pools and the purchasable units they occupy: one count for shared hardware, else one per pool."""

    pools: tuple[PoolDecision, ...]
    units: tuple[int, ...]
    variant: Variant
    experts: tuple[ExpertMap, ...] = field(default=(), compare=False)
    """Maps of popular experts, by phase; without one a pool's fullest rank has the least load that any map gives it."""

    def pool_with_map(self, context: Context, phase: str) -> PoolContext:
        """The pool of a phase, its fullest rank as the decision's map has it."""
        pool = context.pool(phase)
        found = next((one for one in self.experts if one.phase == phase), None)
        if found is None:
            return pool
        return replace(pool, pieces=with_map(pool.pieces, found, pool.inputs.workload.experts))


@dataclass(frozen=True)
class PoolState:
    """A pool at work: its passes and, worked out when they are asked for, placement and slowest-stage seconds per phase.

    ``placed``: the shares, where neither the decision's basis nor residence in device memory gives them.
    """

    decision: PoolDecision
    pool: PoolContext
    passes: dict[str, PassTimes]
    placed: np.ndarray | None = None
    built: TierProblem | None = None
    """The tier problem, where it is at hand."""

    @property
    def resident(self) -> bool:
        """Everything lies in device memory."""
        return self.placed is None and self.decision.basis is None

    @cached_property
    def problem(self) -> TierProblem:
        """The tier problem of the configuration."""
        return _problem(self.pool, self.decision, self.passes) if self.built is None else self.built

    @cached_property
    def point(self) -> Vertex | None:
        """The vertex of the basis."""
        if self.placed is not None or self.decision.basis is None:
            return None
        program = self.problem.program
        return vertex(program, decode_basis(self.decision.basis, len(program.columns) + len(program.rows)))

    @cached_property
    def shares(self) -> np.ndarray:
        """Of every choice of the problem."""
        if self.placed is not None:
            return self.placed
        return resident_shares(self.problem) if self.point is None else self.point.values[: len(self.problem.choices)]

    @cached_property
    def times(self) -> Evaluated:
        """What the shares give."""
        return evaluate_shares(self.problem, self.shares)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Seconds of a phase on its slowest stage, residual included."""
        if self.resident:
            seconds = {phase: float(times.slowest_stage()[0]) for phase, times in self.passes.items()}
        else:
            seconds = self.times.phase_s
        return {phase: value * self.pool.rates.residual for phase, value in seconds.items()}


def phase_weights(pool: PoolContext, decision: PoolDecision, weigh: int | None = None) -> dict[str, float]:
    """How much a second of each phase costs the objective of the tier problem.

    Aggregated serving: ``tpot = pp D / a + (B m / (C dp (n-1))) P``; a pool of one phase minimises that phase. ``weigh``: the
    batch in place of the decision's own in B.
    """
    if decision.phase != "mixed":
        return {decision.phase: 1.0}
    workload = pool.inputs.workload
    running = (weigh or decision.batch) * decision.dp * decision.pp
    per_request = workload.miss_tokens / (decision.chunk * decision.dp)
    return {
        "decode": decision.pp / pool.accept,
        "prefill": running * per_request / (workload.output_tokens.mean - 1.0),
    }


Passes = dict[tuple[str, int, int, int, int, int, int], PassTimes]
"""Passes of a pool by phase, shape, and what a rank carries: the batch of a decode step, the chunk of a prefill pass."""


def _key(decision: PoolDecision, phase: str) -> tuple[str, int, int, int, int, int, int]:
    carried = decision.batch if phase == "decode" else decision.chunk
    return phase, decision.tp, decision.cp, decision.dp, decision.ep, decision.pp, carried


def pool_passes(pool: PoolContext, decision: PoolDecision, known: Passes | None = None) -> dict[str, PassTimes]:
    """The passes of a pool's configuration; ``known``: those of this pool worked out already, added to."""
    row = decision.row()
    passes: dict[str, PassTimes] = {}
    known = {} if known is None else known
    for phase in decision.phases:
        key = _key(decision, phase)
        if key not in known:
            decodes = phase == "decode"
            known[key] = decode_pass(pool, row.shapes, row.batch) if decodes else prefill_pass(pool, row.shapes, row.chunk)
        passes[phase] = known[key]
    return passes


def pool_problem(
    pool: PoolContext, decision: PoolDecision, weigh: int | None = None, known: Passes | None = None
) -> tuple[TierProblem, dict[str, PassTimes]]:
    """The tier problem of a pool's configuration (``weigh`` as in ``phase_weights``), and the passes behind it (``known`` as in
    ``pool_passes``)."""
    passes = pool_passes(pool, decision, known)
    return _problem(pool, decision, passes, weigh), passes


def problem_with_tiers(state: PoolState) -> TierProblem:
    """The tier problem of a pool at work with every memory it may use, whether it needs one or not."""
    return _problem(state.pool, replace(state.decision, basis=state.decision.basis or ""), state.passes)


def _problem(pool: PoolContext, decision: PoolDecision, passes: dict[str, PassTimes], weigh: int | None = None) -> TierProblem:
    row, workload, runtime = decision.row(), pool.inputs.workload, pool.inputs.runtime
    reserve = float(sum(column[0] for column in reserved_bytes(pool, row).values()))
    return build_tier_problem(
        pool.pieces,
        row.shapes,
        pool.rates,
        passes,
        phase_weights(pool, decision, weigh),
        float(admitted_sequences(pool, row)[0]),
        workload.reserved_tokens,
        runtime.page_tokens,
        reserve,
        pool.tiers if decision.basis is not None or pool.displaced or memory_need(pool, row).short[0] > 0 else (),
        None if decision.period_s is None else decision.period_s / pool.rates.residual,
        pool.forbidden,
        prefix_parts(pool, decision),
    )


def prefix_parts(pool: PoolContext, decision: PoolDecision) -> tuple[tuple[float, float], ...]:
    """Tokens that a rank keeps of each age class, and those that a prefill pass brings back (see ``PrefixUse.of_rank``)."""
    if pool.prefix is None or decision.prefix_rate is None:
        return ()
    return pool.prefix.of_rank(decision.prefix_rate, decision.chunk / pool.inputs.workload.miss_tokens)


def pool_state(
    pool: PoolContext, decision: PoolDecision, placed: np.ndarray | None = None, known: Passes | None = None
) -> PoolState:
    """A pool at work. ``placed`` gives the shares (perturbed evaluations keep them); else the basis or residence does.

    ``known`` as in ``pool_passes``. ``InputError`` where the basis is none of this problem, or there has to be one.
    """
    if (decision.prefix_rate is not None) != (pool.prefix is not None and "prefill" in decision.phases):
        raise InputError("prefix_cache_requests_per_s goes with a pool that prefills, at a point above 0", where="plan: pools")
    state = PoolState(decision, pool, pool_passes(pool, decision, known), placed)
    if state.resident and pool.displaced:
        raise InputError("needs a placement: constraints keep an item out of device memory", where="plan: pools")
    if not state.resident:
        _ = state.seconds
    return state


@dataclass(frozen=True)
class Operation:
    """A deployment in steady state. Times in seconds, rates per second, USD per hour.

    It serves ``requests_per_s``: ``capacity_per_s``, or the demand where that is less. Times per token are those at capacity.
    """

    mode: str
    pools: tuple[PoolState, ...]
    tpot_s: float
    ttft_s: float
    requests_per_s: float
    capacity_per_s: float
    concurrency: float
    units: tuple[int, ...]
    devices_paid: int
    usd_per_hour: float
    input_share: float
    busy: float

    @property
    def placed(self) -> tuple[np.ndarray | None, ...]:
        """Of every pool the shares of its placement, ``None`` where everything lies in device memory."""
        return tuple(None if state.resident else state.shares for state in self.pools)

    @property
    def passes(self) -> Passes:
        """The passes of every pool (see ``pool_passes``)."""
        known: Passes = {}
        for state in self.pools:
            known |= {_key(state.decision, phase): times for phase, times in state.passes.items()}
        return known

    @property
    def idle_devices(self) -> int:
        """Devices paid for that no pool uses."""
        return self.devices_paid - sum(state.decision.devices for state in self.pools)


def operate(
    context: Context,
    decision: Decision,
    placed: tuple[np.ndarray | None, ...] | None = None,
    busy: float | None = None,
    known: Passes | None = None,
) -> Operation:
    """Evaluate a decision. ``InputError`` where it names phases that do not make a deployment.

    Perturbed evaluations keep the placement (``placed``: shares per pool) and how busy a prefill pool is (``busy``). ``known``:
    passes at these rates that need not be worked out again.
    """
    by_phase = {pool.phase: pool for pool in decision.pools}
    states = {
        phase: pool_state(decision.pool_with_map(context, phase), pool, placed[index] if placed is not None else None, known)
        for index, (phase, pool) in enumerate(by_phase.items())
    }
    return serve(context, decision.units, states, busy)


def serve(context: Context, units: tuple[int, ...], states: dict[str, PoolState], busy: float | None = None) -> Operation:
    """What pools at work, by phase, serve together on so many units (``busy`` as in ``operate``)."""
    workload = context.inputs.workload
    hardware = list(context.pools.values())
    if len(units) != len(hardware):
        raise InputError("needs one count of purchasable units per kind of hardware", where="plan: pools")
    devices_paid = sum(count * pool.unit_devices for count, pool in zip(units, hardware, strict=True))
    usd = sum(count * pool.usd_per_unit_hour for count, pool in zip(units, hardware, strict=True))
    if set(states) == {"mixed"}:
        state = states["mixed"]
        row = state.decision.row()
        served = mixed_serving(
            np.array([state.seconds["decode"]]),
            np.array([state.seconds["prefill"]]),
            row.batch,
            row.chunk,
            row.shapes,
            workload,
            state.pool.accept,
            None if state.decision.prefix_rate is None else np.array([state.decision.prefix_rate]),
        )
        replicas = state.decision.replicas
        tpot, rate = float(served.tpot_s[0]), float(served.requests_per_s[0]) * replicas
        prefill_share = float(served.requests_per_s[0]) * workload.miss_tokens / (row.chunk[0] * row.shapes.dp[0])
        input_share = float(prefill_share * state.seconds["prefill"])
        asked = rate if context.demand is None else min(rate, context.demand)
        return Operation(
            "aggregated",
            (state,),
            tpot,
            float(served.ttft_s[0]),
            asked,
            rate,
            float(served.concurrency[0]) * replicas * asked / rate,
            units,
            devices_paid,
            usd,
            input_share,
            input_share * asked / rate,
        )
    if set(states) != {"prefill", "decode"}:
        raise InputError("pools must be one mixed pool, or a prefill and a decode pool", where="plan: pools")
    return _disaggregated(context, states, units, devices_paid, usd, busy)


def _disaggregated(
    context: Context, states: dict[str, PoolState], units: tuple[int, ...], devices_paid: int, usd: float, fixed: float | None
) -> Operation:
    workload = context.inputs.workload
    prefill, decode = states["prefill"], states["decode"]
    p_row, d_row = prefill.decision.row(), decode.decision.row()
    most, service, through = prefill_queue(np.array([prefill.seconds["prefill"]]), p_row.chunk, p_row.shapes, workload)
    side = split_serving(np.array([decode.seconds["decode"]]), d_row.batch, d_row.shapes, workload, decode.pool.accept)
    handoff = handoff_time(decode.pool, d_row.shapes)
    rounds = workload.output_tokens.mean - 1.0
    tpot = float(side.seconds[0]) + float(handoff[0]) / rounds
    busy = busy_limit(workload.ttft_s, through, service) if fixed is None else np.array([fixed])
    prefill_rate = float(most[0]) * prefill.decision.replicas
    decode_rate = float(side.requests_per_s[0]) * decode.decision.replicas
    rate = min(prefill_rate * float(busy[0]), decode_rate)
    if prefill.decision.prefix_rate is not None:
        rate = min(rate, prefill.decision.prefix_rate * prefill.decision.dp * prefill.decision.replicas)
    cap = context.cap
    if cap is not None:
        longest = workload.ttft_s
        if longest is None:
            longest = float(through[0] + queue_wait(busy, service)[0])
        rate = min(rate, cap / (longest + rounds * tpot))
    if rate <= 0.0:
        raise InputError("serve nothing within the limit on TTFT", where="plan: pools")
    capacity = rate
    rate = rate if context.demand is None else min(rate, context.demand)
    used = np.array([rate / prefill_rate])
    ttft = float(through[0] + queue_wait(used, service)[0])
    total = prefill.decision.devices * prefill.pool.usd_per_unit_hour / prefill.pool.unit_devices
    total_decode = decode.decision.devices * decode.pool.usd_per_unit_hour / decode.pool.unit_devices
    return Operation(
        "disaggregated",
        (prefill, decode),
        tpot,
        ttft,
        rate,
        capacity,
        rate * (ttft + rounds * tpot),
        units,
        devices_paid,
        usd,
        total / (total + total_decode),
        float(used[0]),
    )


def handoff_time(pool: PoolContext, decode_shapes: Shapes) -> np.ndarray:
    """Seconds to move a prompt's caches to the decode pool ``pool``: over the outermost network of its system.

    Whether the pools could share an inner one depends on where they lie; charging the outermost keeps a plan as good as it
    was when more systems are added, and costs a request once what an inner network would save of its second token.
    """
    levels, distance = pool.rates.levels, 0.0
    if levels:
        distance = float(2**53) if np.isinf(levels[-1].devices) else levels[-1].devices - 1.0
    return handoff_seconds(pool.pieces, pool.inputs.workload.input_tokens.mean, decode_shapes, levels, distance)


def busy_limit(ttft_limit: float | None, through_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """How busy a prefill pool may be: within the TTFT limit (pipeline time plus M/D/1 wait) and ``BUSY_LIMIT``."""
    if ttft_limit is None:
        return np.full_like(through_s, BUSY_LIMIT)
    return np.minimum(utilisation_for_wait(ttft_limit - through_s, service_s), BUSY_LIMIT)


def hit_flops_share(operation: Operation) -> float:
    """Share of a request's prefill FLOPs spent on attention to cached tokens (0 without hits)."""
    state = next(s for s in operation.pools if "prefill" in s.decision.phases)
    workload, pieces = state.pool.inputs.workload, state.pool.pieces
    if workload.hit_tokens <= 0.0:
        return 0.0
    linear = attention = 0.0
    for window in pieces.windows:
        for block in window.blocks:
            linear += window.layers * 2.0 * sum(g.parameters for g in block.gemms)
            if block.routed:
                linear += window.layers * 2.0 * block.routed.member_parameters * block.routed.active
            pairs = [t.per_pair for t in block.flops if "prefill" in t.phases]
            attention += window.layers * (min(pairs) if pairs else 0.0)
    hit = attention * workload.hit_tokens
    return hit / (linear + attention * (workload.hit_tokens + workload.miss_tokens / 2.0))


def costs(context: Context, operation: Operation) -> StreamCost:
    """USD per million tokens by stream at the context's utilisation; the whole deployment's hour is charged."""
    workload = context.inputs.workload
    tokens_per_hour = operation.requests_per_s * 3600.0 * context.utilisation
    return stream_costs(
        input_usd=operation.usd_per_hour * operation.input_share,
        output_usd=operation.usd_per_hour * (1.0 - operation.input_share),
        hit_tokens=workload.hit_tokens * tokens_per_hour,
        miss_tokens=workload.miss_tokens * tokens_per_hour,
        output_tokens=workload.output_tokens.mean * tokens_per_hour,
        allocation=context.inputs.options.allocation,
        hit_flops_share=hit_flops_share(operation),
    )


def blended_usd(context: Context, usd_per_hour: float, requests_per_s: float) -> float:
    """USD per million tokens over all tokens of a request."""
    workload = context.inputs.workload
    tokens = workload.input_tokens.mean + workload.output_tokens.mean
    return usd_per_hour / (requests_per_s * 3600.0 * context.utilisation * tokens) * 1e6


def objective_value(context: Context, *, usd_per_hour: float, devices_paid: float, requests_per_s: float, tpot_s: float) -> float:
    """The objective in its printed unit: USD per million tokens, output tokens/s per device paid for, or ms per token."""
    objective = context.inputs.options.objective
    if objective == "cost":
        return blended_usd(context, usd_per_hour, requests_per_s)
    if objective == "throughput":
        return requests_per_s * context.inputs.workload.output_tokens.mean / devices_paid
    return tpot_s * 1e3


def operation_objective(context: Context, operation: Operation) -> float:
    """The objective of an operation."""
    return objective_value(
        context,
        usd_per_hour=operation.usd_per_hour,
        devices_paid=operation.devices_paid,
        requests_per_s=operation.requests_per_s,
        tpot_s=operation.tpot_s,
    )


@dataclass(frozen=True)
class Check:
    """One limit: what it is, the value against it and whether it holds (to 1e-9 relative)."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the limit is met."""
        return self.value <= self.limit * (1.0 + 1e-9) + 1e-12


def checks(context: Context, operation: Operation) -> list[Check]:
    """Every limit on the deployment, service levels first."""
    workload, options = context.inputs.workload, context.inputs.options
    found = []
    if workload.ttft_s is not None:
        found.append(Check("service level TTFT", operation.ttft_s * 1e3, workload.ttft_s * 1e3, "ms"))
    if workload.tpot_s is not None:
        found.append(Check("service level TPOT", operation.tpot_s * 1e3, workload.tpot_s * 1e3, "ms"))
    if context.demand is not None:
        found.append(Check("demand", context.demand, operation.capacity_per_s, "requests/s"))
    if context.cap is not None:
        found.append(Check("concurrency", operation.concurrency, float(context.cap), "requests"))
    if options.max_usd_per_hour is not None:
        found.append(Check("money", operation.usd_per_hour, options.max_usd_per_hour, "USD/h"))
    if options.max_power_kw is not None:
        watts = sum(u * p.watts_per_unit for u, p in zip(operation.units, context.pools.values(), strict=True))
        found.append(Check("power", watts / 1e3, options.max_power_kw, "kW"))
    used: dict[int, int] = {}
    hardware = list(context.pools.values())
    for state in operation.pools:
        index = list(context.pools).index(state.decision.phase if context.separate else "mixed")
        used[index] = used.get(index, 0) + state.decision.devices
    for index, devices in used.items():
        bound = operation.units[index] * hardware[index].unit_devices - hardware[index].spare_devices
        found.append(Check(f"devices of {hardware[index].system.id}", devices, bound, "devices"))
        found.append(Check(f"units of {hardware[index].system.id}", operation.units[index], hardware[index].units, "units"))
        if options.devices is not None:
            spared = devices + hardware[index].spare_devices
            found.append(Check("--devices, spare ones included", spared, options.devices, "devices"))
    for state in operation.pools:
        program = state.problem.program
        load = program.matrix[:, : len(state.problem.choices)] @ state.shares
        for (stage, tier), number in state.problem.capacity_rows.items():
            name = f"capacity of {tier} in {state.decision.phase} stage {stage}"
            found.append(Check(name, float(load[number]), float(program.limit[number]), "GB"))
    return found


def with_rates(context: Context, group: str, end: str) -> Context:
    """The context with one group of uncertain figures at the end of its interval (see ``performance.perturb``)."""
    from planner.performance import perturb, resolve_rates

    pools = {}
    for phase, pool in context.pools.items():
        system, runtime = perturb(pool.system, pool.inputs.runtime, group, end)  # type: ignore[arg-type]
        pools[phase] = replace(pool, rates=resolve_rates(system, runtime))
    return replace(context, pools=pools)
