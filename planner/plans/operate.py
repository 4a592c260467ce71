"""One deployment at work: a decision, its placement, and the service and cost that follow. One row, no search, no solver."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InputError
from planner.footprint import Shapes
from planner.performance import handoff_seconds, mixed_serving, prefill_queue, split_serving
from planner.performance.serving import queue_wait, utilisation_for_wait
from planner.plans.context import Context, PoolContext
from planner.plans.decision import Decision
from planner.plans.states import Passes, PoolState, pass_key, pool_state

BUSY_LIMIT = 0.95
"""A prefill pool is planned at most this busy, with or without a limit on TTFT: beyond it the M/D/1 queue explodes."""


@dataclass(frozen=True)
class Operation:
    """A deployment in steady state. Times in seconds, rates per second, USD per hour.

    It serves ``requests_per_s``: ``capacity_per_s``, or what is asked where that is less. Times are those of full batches, at
    capacity (see ``plans.arrivals`` for less).
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
            known |= {pass_key(state.decision, phase): times for phase, times in state.passes.items()}
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
        asked = rate if context.asked is None else min(rate, context.asked)
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
    rate = rate if context.asked is None else min(rate, context.asked)
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


def handoff_time(pool: PoolContext, decode_shapes: Shapes, tokens: float | None = None) -> np.ndarray:
    """Seconds to move a prompt's caches (``tokens``: default a mean one's) to the decode pool ``pool``: over the outermost
    network of its system.

    Whether the pools could share an inner one depends on where they lie; charging the outermost keeps a plan as good as it
    was when more systems are added, and costs a request once what an inner network would save of its second token.
    """
    levels, distance = pool.rates.levels, 0.0
    if levels:
        distance = float(2**53) if np.isinf(levels[-1].devices) else levels[-1].devices - 1.0
    tokens = pool.inputs.workload.input_tokens.mean if tokens is None else tokens
    return handoff_seconds(pool.pieces, tokens, decode_shapes, levels, distance)


def busy_limit(ttft_limit: float | None, through_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """How busy a prefill pool may be: within the TTFT limit (pipeline time plus M/D/1 wait) and ``BUSY_LIMIT``."""
    if ttft_limit is None:
        return np.full_like(through_s, BUSY_LIMIT)
    return np.minimum(utilisation_for_wait(ttft_limit - through_s, service_s), BUSY_LIMIT)


def with_rates(context: Context, group: str, end: str) -> Context:
    """The context with one group of uncertain figures at the end of its interval (see ``performance.perturb``)."""
    from planner.performance import perturb, resolve_rates

    pools = {}
    for phase, pool in context.pools.items():
        system, runtime = perturb(pool.system, pool.inputs.runtime, group, end)  # type: ignore[arg-type]
        pools[phase] = replace(pool, rates=resolve_rates(system, runtime))
    return replace(context, pools=pools)
