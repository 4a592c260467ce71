"""Merits and bounds shared by search and ``verify --full``.

A merit is to be maximised: requests per second per unit of what the objective charges (USD per hour, or devices), or the
reciprocal of the time per output token. Proof texts close cells that need other memories: ``B:<basis>`` an optimal basis of the
tier problem at the cell's lowest batch; ``V<seconds>:<basis>`` the same with the period that the TTFT limit allows at that TPOT;
``I<seconds>:<basis>`` an optimal basis of the elastic problem, showing that no placement exists. ``W<rate>:<basis>`` and
``J<rate>:<basis>`` are B and I with the period that the TTFT limit allows at so many requests a second, for what serves more.
All of them take a prefix cache as large as the rate asks that the TPOT or the proof states (B and I without a number: none), and
what is faster keeps more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import InputError
from planner.footprint.shapes import Column, Shapes
from planner.performance.serving import largest_period
from planner.plans.candidates import DecodeGroup, MixedGroup, PrefillRows, cell_bounds
from planner.plans.context import Context, PoolContext
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import decode_seconds
from planner.plans.inputs import Variant
from planner.plans.lp import decode_basis, vertex
from planner.plans.space import Space
from planner.plans.states import pool_problem
from planner.plans.tiers import dual_bound, elastic
from planner.plans.worth import blended_usd
from planner.quantities import round12

DUAL_TOLERANCE = 1e-6
"""Largest sign violation accepted of a stored basis, in GB, ms or shares."""


@dataclass(frozen=True)
class Shown:
    """``seconds``: a bound from below on the tier problem's objective (the TPOT, or the pass time of a pool of one phase; ``inf``
    where no placement exists), for all that serves more than ``but_below`` requests a second."""

    seconds: float
    but_below: float = 0.0


@dataclass(frozen=True)
class Charge:
    """What an objective charges per purchasable unit of each pool, and the limits it is subject to."""

    objective: str
    tpot_s: float | None
    ttft_s: float | None
    cap: int | None
    demand: float | None
    rounds: float
    unit_weights: dict[str, float]
    headroom: float = 1.0
    """Of the demand over what is asked, which is all that is in flight."""

    @property
    def longest_tpot_s(self) -> float:
        """The longest TPOT that a decode pool may have (``inf``: no limit).

        Of R requests/s asked at most N in flight are ``R (TTFT + (n-1) TPOT) <= N``, with TTFT at its limit (0 where there is
        none, which only bounds). The demand is ``headroom`` times R.
        """
        limit = math.inf if self.tpot_s is None else self.tpot_s
        if self.cap is not None and self.demand is not None:
            limit = min(limit, (self.cap * self.headroom / self.demand - (self.ttft_s or 0.0)) / self.rounds)
        return limit


def charge_of(context: Context, objective: str, tpot_s: float | None) -> Charge:
    """The charge of an objective in a context; ``tpot_s`` may differ from the workload's (the least TPOT is sought without)."""
    weights = {
        phase: (pool.usd_per_unit_hour if objective == "cost" else float(pool.unit_devices))
        for phase, pool in context.pools.items()
    }
    workload = context.inputs.workload
    return Charge(
        objective,
        tpot_s,
        workload.ttft_s,
        context.cap,
        context.demand,
        workload.output_tokens.mean - 1.0,
        weights,
        context.inputs.options.headroom,
    )


def objective_of_merit(context: Context, merit: float) -> float:
    """A merit in the objective's printed unit, which counts what is asked: of the headroom of a demand nothing is sold."""
    objective = context.inputs.options.objective
    if objective == "latency":
        return 1e3 / merit
    served = merit / context.inputs.options.headroom
    return blended_usd(context, 1.0, served) if objective == "cost" else served * context.inputs.workload.output_tokens.mean


def merit_of_objective(context: Context, value: float) -> float:
    """The inverse of ``objective_of_merit``."""
    objective = context.inputs.options.objective
    if objective == "latency":
        return 1e3 / value
    served = blended_usd(context, 1.0, 1.0) / value
    if objective == "throughput":
        served = value / context.inputs.workload.output_tokens.mean
    return served * context.inputs.options.headroom


def meets(charge: Charge, tpot: Column, ttft: Column) -> np.ndarray:
    """Rows within the service levels."""
    good = np.isfinite(ttft)
    if charge.tpot_s is not None:
        good &= tpot <= charge.tpot_s * (1 + 1e-12)
    if charge.ttft_s is not None:
        good &= ttft <= charge.ttft_s * (1 + 1e-12)
    return np.asarray(good)


MANY_UNITS, MOST_REPLICAS = 16, 2.0**40


def packing(
    context: Context, space: Space, charge: Charge, rate: Column, instance: Column, concurrency: Column
) -> tuple[Column, Column, Column]:
    """Best ``(replicas per charge, units, replicas)`` for aggregated instances of these sizes and rates under the caps.

    With a demand R, as few replicas as serve it, on as few units as hold them: ``R / (rate x charge)`` replicas count, and of
    the requests in flight at full rate ``R / rate``.
    """
    declared, pool = space.pools["mixed"], context.pools["mixed"]
    if charge.demand is not None:
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            needed = np.ceil(charge.demand / rate * (1 - 1e-12))
            units = np.maximum(np.ceil((needed * instance + pool.spare_devices) / pool.unit_devices), declared.least_units)
            good = (units <= declared.units) & (needed * instance + pool.spare_devices <= declared.devices)
            if charge.cap is not None:
                good &= concurrency * charge.demand / rate <= charge.cap * charge.headroom * (1 + 1e-12)
            packed = np.where(good, charge.demand / (rate * units * charge.unit_weights["mixed"]), 0.0)
        return packed, np.where(good, units, 1.0), np.where(good, needed, 0.0)
    most = np.full_like(instance, MOST_REPLICAS)
    if charge.cap is not None:
        most = np.minimum(np.floor(charge.cap * (1 + 1e-12) / concurrency), MOST_REPLICAS)
    place: np.ndarray | None = None
    if declared.units - declared.least_units > MANY_UNITS:  # rows alike in both are weighed once
        alike, place = np.unique(instance + 1j * most, return_inverse=True)
        instance, most = alike.real, alike.imag
    best, units_best, replicas_best = np.zeros_like(instance), np.ones_like(instance), np.zeros_like(instance)
    for count in range(declared.least_units, declared.units + 1):
        devices = min(count * pool.unit_devices, declared.devices) - pool.spare_devices
        replicas = np.minimum(np.floor(max(devices, 0) / instance), most)
        value = replicas / (count * charge.unit_weights["mixed"])
        better = value > best * (1 + 1e-12)
        best = np.where(better, value, best)
        units_best, replicas_best = np.where(better, float(count), units_best), np.where(better, replicas, replicas_best)
    return (best, units_best, replicas_best) if place is None else (best[place], units_best[place], replicas_best[place])


def mixed_merit(
    context: Context, space: Space, charge: Charge, tpot: Column, rate: Column, instance: Column, concurrency: Column
) -> tuple[Column, Column, Column]:
    """``(merit, units, replicas)`` of aggregated instances; merit 0 where no instance may be placed."""
    packed, units, replicas = packing(context, space, charge, rate, instance, concurrency)
    merit = np.where(packed > 0.0, 1.0 / tpot if charge.objective == "latency" else rate * packed, 0.0)
    return merit, units, replicas


def mixed_cell_merit(context: Context, space: Space, charge: Charge, group: MixedGroup) -> tuple[Column, Column, Column]:
    """``(merit, rate, tpot)`` bounds of a group's cells before any placement; merit 0 where limits close the cell."""
    tpot, ttft, rate, running = group.bounds
    merit, _, _ = mixed_merit(context, space, charge, tpot, rate, group.shapes.take(group.cells.row).devices, running)
    return np.where(meets(charge, tpot, ttft), merit, 0.0), rate, tpot


def instance(phase: str, shapes: Shapes, row: int, batch: int, chunk: int) -> PoolDecision:
    """One instance of a row of shapes."""
    tp, dp, ep, cp = (int(column[row]) for column in (shapes.tp, shapes.dp, shapes.ep, shapes.cp))
    return PoolDecision(phase, 1, tp, dp, ep, shapes.pp, batch, chunk, cp=cp)


def mixed_decision(group: MixedGroup, row: int, batch: int) -> PoolDecision:
    """One instance of an aggregated row at a batch."""
    return instance("mixed", group.shapes, row, batch, int(group.chunk[row]))


def prefill_decision(group: PrefillRows, row: int) -> PoolDecision:
    """One prefill instance of a row."""
    return instance("prefill", group.shapes, row, 0, int(group.chunk[row]))


def with_period(pool: PoolContext, decision: PoolDecision, tpot_s: float) -> PoolDecision:
    """The decision with the longest period that the TTFT limit allows at TPOT ``tpot_s`` (``inf``: without any queue), and a
    prefix cache for the requests that are served then; of a pool that only prefills for one every ``tpot_s`` a rank."""
    limit = pool.inputs.workload.ttft_s
    if pool.prefix is not None and decision.phase != "decode":
        every = tpot_s * (pool.inputs.workload.output_tokens.mean - 1.0) / (decision.batch * decision.pp or 1.0)
        every = tpot_s if decision.phase == "prefill" else every
        decision = replace(decision, prefix_rate=round12(1.0 / every))
    if limit is None or decision.phase != "mixed":
        return decision
    period = largest_period(limit, tpot_s, decision.batch, decision.chunk, decision.dp, decision.pp, pool.inputs.workload)
    return replace(decision, period_s=round12(period))


def weigh_batch(charge: Charge, low: int, high: int) -> int:
    """The batch whose weights the tier problem of a cell carries: the highest, but the lowest where TPOT is the objective."""
    return low if charge.objective == "latency" else high


def placed_merit(
    context: Context,
    space: Space,
    charge: Charge,
    group: MixedGroup,
    row: int,
    low: int,
    high: int,
    weigh: int,
    shown: Shown,
    decode_s: Column | None = None,
) -> tuple[float, float, float]:
    """``(merit, rate, tpot)`` bounds over batches ``low..high`` of a row from what a proof shows.

    The tier problem is that of a batch no larger than ``low``, with the weights of batch w = ``weigh``: its optimum V is at
    most ``pp D/a + w c P`` at every batch B of the cell, since no pass gets faster as the batch grows, where
    ``tpot = pp D/a + B c P``. So ``tpot >= V min(1, B/w)``, and ``X = B / ((n-1) tpot) = 1 / ((n-1) (pp D/(a B) + c P)) <=
    max(B, w) / ((n-1) V)``. The bounds without placement hold too. Merit 0 where the limits close the cell. What the proof
    leaves out, slower than ``shown.but_below``, has the merit of that rate. ``decode_s``: the step at ``low`` with everything in
    device memory, if known already.
    """
    pool = context.pools["mixed"]
    at = np.array([row])
    shapes, chunk = group.shapes.take(at), group.chunk[at]
    first, last = np.array([float(low)]), np.array([float(high)])
    most = float((max(high, weigh) * shapes.dp * shapes.pp)[0])
    rate = most / (charge.rounds * shown.seconds) * (1 + 1e-9) if shown.seconds > 0.0 else math.inf
    tpot = shown.seconds * min(1.0, low / weigh)
    least, ttft, loose, running = cell_bounds(
        pool,
        shapes,
        chunk,
        decode_seconds(pool, shapes, first) if decode_s is None else decode_s,
        group.prefill_s[at],
        first,
        last,
    )
    rate, tpot = min(rate, float(loose[0])), max(tpot, float(least[0]))
    merit = 0.0
    if meets(charge, np.array([tpot]), ttft)[0]:
        merit = float(mixed_merit(context, space, charge, np.array([tpot]), np.array([rate]), shapes.devices, running)[0][0])
    if shown.but_below > 0.0:
        slow = np.array([min(shown.but_below, float(loose[0]))])
        merit = max(merit, float(mixed_merit(context, space, charge, least, slow, shapes.devices, running)[0][0]))
        rate, tpot = max(rate, float(slow[0])), float(least[0])
    return merit, rate, tpot


def rate_of_merit(context: Context, space: Space, charge: Charge, group: MixedGroup, row: int, low: int, merit: float) -> float:
    """Requests/s above which an instance of a row must serve to exceed a merit, at batches from ``low`` (0: no limit known)."""
    if charge.objective == "latency":
        return 0.0
    shapes = group.shapes.take(np.array([row]))
    if charge.demand is not None:  # units < R / (M w), and replicas x instance <= units x devices of one
        unit = context.pools["mixed"].unit_devices
        return float(merit * charge.unit_weights["mixed"] * shapes.devices[0] / unit) * (1 - 1e-9)
    packed, _, _ = packing(context, space, charge, np.ones(1), shapes.devices, low * shapes.dp * shapes.pp)
    return merit / float(packed[0]) if packed[0] > 0.0 else 0.0


def at_rate(pool: PoolContext, decision: PoolDecision, rate: float) -> float:
    """The TPOT at which one instance serves that many requests a second (s); of one that only prefills the time from one request
    of a rank to the next."""
    if decision.phase == "prefill":
        return decision.dp / rate
    rounds = pool.inputs.workload.output_tokens.mean - 1.0
    return decision.batch * decision.dp * decision.pp / (rounds * rate)


def node_name(variant: Variant, decision: PoolDecision, low: int, high: int) -> str:
    """The key of a closed node in the certificate."""
    d = decision
    return f"{variant.label} {d.phase} tp{d.tp} cp{d.cp} dp{d.dp} ep{d.ep} pp{d.pp} chunk{d.chunk} batch{low}-{high}"


def proven(pool: PoolContext, decision: PoolDecision, proof: str, weigh: int | None = None) -> Shown:
    """What a proof text shows of a configuration, with the weights of batch ``weigh``.

    ``InputError`` where the text proves nothing.
    """
    kind, _, basis = proof.partition(":")
    sort, guess, below = kind[:1], math.inf, 0.0
    try:
        number = float(kind[1:]) if kind[1:] else None
    except ValueError:
        number = -1.0
    if (
        sort not in tuple("BVIWJ")
        or (number is None and sort in "VWJ")
        or (number is not None and (sort == "B" or not 1e-12 <= number <= 1e12))
    ):
        raise InputError("is not a proof", where="certificate")
    if number is not None and sort in "WJ":
        below, guess = number, at_rate(pool, decision, number)
    elif number is not None:
        guess = number
    problem, _ = pool_problem(pool, replace(with_period(pool, decision, guess), basis="needed"), weigh)
    if sort in "IJ":
        problem = elastic(problem)
    program = problem.program
    point = vertex(program, decode_basis(basis, len(program.columns) + len(program.rows)))
    if point.dual_infeasibility > DUAL_TOLERANCE:
        raise InputError("its basis has a negative reduced cost", where="certificate")
    bound = dual_bound(problem, point) / 1e3 * pool.rates.residual
    if sort in "IJ":
        if dual_bound(problem, point) <= DUAL_TOLERANCE:
            raise InputError("does not show that no placement exists", where="certificate")
        return Shown(guess if sort == "I" else math.inf, below)
    if sort == "V":
        if bound <= guess:
            raise InputError("does not show that the TPOT is longer", where="certificate")
        return Shown(guess)
    return Shown(bound, below)


def decode_decision(group: DecodeGroup, row: int, batch: int) -> PoolDecision:
    """One decode instance of a row at a batch."""
    return instance("decode", group.shapes, row, batch, 0)
