"""Merits and bounds shared by search and ``verify --full``.

A merit is to be maximised: requests per second per unit of what the objective charges (USD per hour, or devices), or the
reciprocal of the time per output token. Proof texts close cells that need other memories: ``B:<basis>`` an optimal basis of the
tier problem at the cell's lowest batch; ``V<seconds>:<basis>`` the same with the period that the TTFT limit allows at that TPOT;
``I<seconds>:<basis>`` an optimal basis of the elastic problem, showing that no placement exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InputError
from planner.footprint.shapes import Column
from planner.performance.serving import largest_period
from planner.plans.candidates import Cells, DecodeGroup, MixedGroup, cell_bounds
from planner.plans.evaluate import decode_seconds
from planner.plans.inputs import Context, PoolContext
from planner.plans.lp import decode_basis, vertex
from planner.plans.operate import PoolDecision, blended_usd, pool_problem
from planner.plans.space import Space
from planner.plans.tiers import dual_bound, elastic
from planner.quantities import round12

DUAL_TOLERANCE = 1e-6
"""Largest sign violation accepted of a stored basis, in GB, ms or shares."""


@dataclass(frozen=True)
class Charge:
    """What an objective charges per purchasable unit of each pool, and the limits it is subject to."""

    objective: str
    tpot_s: float | None
    ttft_s: float | None
    cap: int | None
    rounds: float
    unit_weights: dict[str, float]


def charge_of(context: Context, objective: str, tpot_s: float | None) -> Charge:
    """The charge of an objective in a context; ``tpot_s`` may differ from the workload's (the least TPOT is sought without)."""
    weights = {
        phase: (pool.usd_per_unit_hour if objective == "cost" else float(pool.unit_devices))
        for phase, pool in context.pools.items()
    }
    workload = context.inputs.workload
    return Charge(
        objective, tpot_s, workload.ttft_s, context.inputs.options.concurrency, workload.output_tokens.mean - 1.0, weights
    )


def objective_of_merit(context: Context, merit: float) -> float:
    """A merit in the objective's printed unit."""
    objective = context.inputs.options.objective
    if objective == "cost":
        return blended_usd(context, 1.0, merit)
    if objective == "throughput":
        return merit * context.inputs.workload.output_tokens.mean
    return 1e3 / merit


def merit_of_objective(context: Context, value: float) -> float:
    """The inverse of ``objective_of_merit``."""
    objective = context.inputs.options.objective
    if objective == "cost":
        return blended_usd(context, 1.0, 1.0) / value
    if objective == "throughput":
        return value / context.inputs.workload.output_tokens.mean
    return 1e3 / value


def meets(charge: Charge, tpot: Column, ttft: Column) -> np.ndarray:
    """Rows within the service levels."""
    good = np.isfinite(ttft)
    if charge.tpot_s is not None:
        good &= tpot <= charge.tpot_s * (1 + 1e-12)
    if charge.ttft_s is not None:
        good &= ttft <= charge.ttft_s * (1 + 1e-12)
    return np.asarray(good)


def packing(
    context: Context, space: Space, charge: Charge, instance: Column, concurrency: Column
) -> tuple[Column, Column, Column]:
    """Best ``(replicas per charge, units, replicas)`` for aggregated instances of these sizes under the caps."""
    declared, pool = space.pools["mixed"], context.pools["mixed"]
    best, units_best, replicas_best = np.zeros_like(instance), np.ones_like(instance), np.zeros_like(instance)
    for units in range(1, declared.units + 1):
        devices = min(units * pool.unit_devices, declared.devices)
        replicas = np.floor(devices / instance)
        if charge.cap is not None:
            replicas = np.minimum(replicas, np.floor(charge.cap * (1 + 1e-12) / concurrency))
        value = replicas / (units * charge.unit_weights["mixed"])
        better = value > best * (1 + 1e-12)
        best = np.where(better, value, best)
        units_best, replicas_best = np.where(better, units, units_best), np.where(better, replicas, replicas_best)
    return best, units_best, replicas_best


def mixed_merit(
    context: Context, space: Space, charge: Charge, tpot: Column, rate: Column, instance: Column, concurrency: Column
) -> tuple[Column, Column, Column]:
    """``(merit, units, replicas)`` of aggregated instances; merit 0 where no instance may be placed."""
    packed, units, replicas = packing(context, space, charge, instance, concurrency)
    merit = np.where(packed > 0.0, 1.0 / tpot if charge.objective == "latency" else rate * packed, 0.0)
    return merit, units, replicas


def mixed_cell_merit(
    context: Context, space: Space, charge: Charge, group: MixedGroup, cells: Cells
) -> tuple[Column, Column, Column]:
    """``(merit, rate, tpot)`` bounds of cells before any placement; merit 0 where limits close the cell."""
    tpot, ttft, rate, running = group.bounds(cells)
    merit, _, _ = mixed_merit(context, space, charge, tpot, rate, group.shapes.take(cells.row).devices, running)
    return np.where(meets(charge, tpot, ttft), merit, 0.0), rate, tpot


def mixed_decision(group: MixedGroup, row: int, batch: int) -> PoolDecision:
    """One instance of an aggregated row at a batch."""
    s = group.shapes
    return PoolDecision("mixed", 1, int(s.tp[row]), int(s.dp[row]), int(s.ep[row]), s.pp, batch, int(group.chunk[row]))


def with_period(pool: PoolContext, decision: PoolDecision, tpot_s: float) -> PoolDecision:
    """The decision with the longest period that the TTFT limit allows at TPOT ``tpot_s`` (``inf``: without any queue)."""
    limit = pool.inputs.workload.ttft_s
    if limit is None or decision.phase != "mixed":
        return decision
    period = largest_period(limit, tpot_s, decision.batch, decision.chunk, decision.dp, decision.pp, pool.inputs.workload)
    return replace(decision, period_s=round12(period))


def placed_merit(
    context: Context, space: Space, charge: Charge, group: MixedGroup, row: int, low: int, high: int, tpot: float
) -> tuple[float, float, float]:
    """``(merit, rate, tpot)`` bounds over batches ``low..high`` of a row where no placement at ``low`` has a shorter TPOT.

    The optimum V of the tier problem is the least TPOT at its batch and grows with the batch, so over the cell
    ``tpot >= V(low)`` and ``X = B / ((n-1) tpot) <= B_high / ((n-1) V(low))``; the bounds without placement hold too.
    Merit 0 where the limits close the cell.
    """
    pool = context.pools["mixed"]
    at = np.array([row])
    shapes, chunk = group.shapes.take(at), group.chunk[at]
    first, last = np.array([float(low)]), np.array([float(high)])
    rate = float((last * shapes.dp * shapes.pp)[0]) / (charge.rounds * tpot) * (1 + 1e-9) if tpot > 0.0 else math.inf
    least, ttft, loose, running = cell_bounds(
        pool, shapes, chunk, decode_seconds(pool, shapes, first), group.prefill_s[at], first, last
    )
    rate, tpot = min(rate, float(loose[0])), max(tpot, float(least[0]))
    if not meets(charge, np.array([tpot]), ttft)[0]:
        return 0.0, rate, tpot
    merit, _, _ = mixed_merit(context, space, charge, np.array([tpot]), np.array([rate]), shapes.devices, running)
    return float(merit[0]), rate, tpot


def node_name(decision: PoolDecision, low: int, high: int) -> str:
    """The key of a closed node in the certificate."""
    d = decision
    return f"{d.phase} tp{d.tp} dp{d.dp} ep{d.ep} pp{d.pp} chunk{d.chunk} batch{low}-{high}"


def proven_seconds(pool: PoolContext, decision: PoolDecision, proof: str) -> float:
    """What a proof text shows of a configuration: a bound from below on the tier problem's objective (s; the TPOT, or the
    pass time of a pool of one phase); ``inf`` where no placement exists. ``InputError`` where the text proves nothing.
    """
    kind, _, basis = proof.partition(":")
    guess = math.inf
    if kind[:1] in ("V", "I") and kind[1:]:
        try:
            guess = float(kind[1:])
        except ValueError:
            raise InputError("is not a proof", where="certificate") from None
    elif kind not in ("B", "I"):
        raise InputError("is not a proof", where="certificate")
    problem, _ = pool_problem(pool, replace(with_period(pool, decision, guess), basis="needed"))
    if kind[0] == "I":
        problem = elastic(problem)
    program = problem.program
    point = vertex(program, decode_basis(basis, len(program.columns) + len(program.rows)))
    if point.dual_infeasibility > DUAL_TOLERANCE:
        raise InputError("its basis has a negative reduced cost", where="certificate")
    bound = dual_bound(problem, point) / 1e3 * pool.rates.residual
    if kind[0] == "I":
        if float(point.duals @ program.limit) <= DUAL_TOLERANCE:
            raise InputError("does not show that no placement exists", where="certificate")
        return math.inf if not math.isfinite(guess) else guess
    if math.isfinite(guess):
        if bound <= guess:
            raise InputError("does not show that the TPOT is longer", where="certificate")
        return guess
    return bound


def decode_decision(group: DecodeGroup, row: int, batch: int) -> PoolDecision:
    """One decode instance of a row at a batch."""
    s = group.shapes
    return PoolDecision("decode", 1, int(s.tp[row]), int(s.dp[row]), int(s.ep[row]), s.pp, batch, 0)
