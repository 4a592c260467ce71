"""A pool at its configuration: its passes, the tier problem of its placement, and the seconds that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from planner.errors import InputError
from planner.performance import PassTimes
from planner.plans.context import PoolContext
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import admitted_sequences, decode_pass, memory_need, prefill_pass, reserved_bytes
from planner.plans.lp import Vertex, decode_basis, vertex
from planner.plans.tiers import Evaluated, TierProblem, build_tier_problem, evaluate_shares, resident_shares


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


def pass_key(decision: PoolDecision, phase: str) -> tuple[str, int, int, int, int, int, int]:
    carried = decision.batch if phase == "decode" else decision.chunk
    return phase, decision.tp, decision.cp, decision.dp, decision.ep, decision.pp, carried


def pool_passes(pool: PoolContext, decision: PoolDecision, known: Passes | None = None) -> dict[str, PassTimes]:
    """The passes of a pool's configuration; ``known``: those of this pool worked out already, added to."""
    row = decision.row()
    passes: dict[str, PassTimes] = {}
    known = {} if known is None else known
    for phase in decision.phases:
        key = pass_key(decision, phase)
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
