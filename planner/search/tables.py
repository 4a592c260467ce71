"""What a search prepares once and shares between objectives: candidates of every pool and placements solved so far."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from planner.errors import StoppedError
from planner.plans.bounds import DUAL_TOLERANCE, with_period
from planner.plans.candidates import (
    DecodeGroup,
    MixedGroup,
    PrefillRows,
    decode_groups,
    handoff_columns,
    mixed_groups,
    prefill_rows,
)
from planner.plans.context import Context, PoolContext
from planner.plans.decision import PoolDecision
from planner.plans.decode_times import decode_times
from planner.plans.lp import encode_basis
from planner.plans.space import PoolSpace, Space
from planner.plans.states import Passes, pool_problem
from planner.plans.tiers import dual_bound, elastic, evaluate_shares
from planner.search.tier_lp import prove_empty, solve_tiers


class Stop:
    """When a search should end early: past a deadline (``time.monotonic`` seconds) or when ``interrupted`` is set, by any thread.

    One for each call of ``plan`` or ``compare``. The best plan so far is then the result; ``StoppedError`` if there is none.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self.interrupted = False

    def reason(self) -> str | None:
        """Why to stop, or ``None``."""
        return self.late()

    def late(self) -> str | None:
        """Whether the time is up: not a matter of what was done."""
        if self.interrupted:
            return "interrupted"
        if self.deadline is not None and time.monotonic() > self.deadline:
            return "time limit"
        return None


@dataclass(frozen=True)
class Placed:
    """A solved tier problem: its decision with basis, seconds per phase, bound and value of its objective in seconds.

    Where no placement exists ``seconds`` is ``None`` and ``basis`` proves that; if what is short is too little to prove
    anything, the bound is 0.
    """

    decision: PoolDecision
    seconds: dict[str, float] | None
    bound_s: float
    value_s: float
    basis: str
    resident_s: dict[str, float] = field(default_factory=dict)
    """Seconds of each phase if everything lay in device memory."""


@dataclass
class Tables:
    """Candidates of every pool with everything in device memory, and placements by configuration."""

    context: Context
    space: Space
    mixed: list[MixedGroup] = field(default_factory=list)
    prefill: list[PrefillRows] = field(default_factory=list)
    decode: list[DecodeGroup] = field(default_factory=list)
    placements: dict[tuple[PoolDecision, int], Placed] = field(default_factory=dict)
    passes: dict[str, Passes] = field(default_factory=dict)

    def place(self, pool: PoolContext, decision: PoolDecision, tpot_s: float = float("inf"), weigh: int | None = None) -> Placed:
        """The optimal placement of a configuration, solved once; of an aggregated one within the period the TTFT limit allows
        at TPOT ``tpot_s``. With ``weigh`` phases count as at that batch, which bounds larger ones."""
        wanted = with_period(pool, replace(decision, replicas=1, basis=None), tpot_s)
        key = (wanted, weigh or decision.batch)
        if key not in self.placements:
            problem, passes = pool_problem(pool, replace(wanted, basis="needed"), weigh, self.passes.setdefault(wanted.phase, {}))
            resident = {phase: float(times.slowest_stage()[0]) * pool.rates.residual for phase, times in passes.items()}
            solution = solve_tiers(problem)
            if solution is None:
                proof = prove_empty(problem)
                shown = float("inf") if dual_bound(elastic(problem), proof.point) > DUAL_TOLERANCE else 0.0
                self.placements[key] = Placed(wanted, None, shown, float("inf"), encode_basis(proof.basis), resident)
            else:
                times = evaluate_shares(problem, solution.point.values[: len(problem.choices)])
                value = sum(problem.weights[phase] * times.phase_s[phase] for phase in problem.phases)
                scale, basis = pool.rates.residual, encode_basis(solution.basis)
                seconds = {phase: s * scale for phase, s in times.phase_s.items()}
                decided = replace(wanted, basis=basis)
                if wanted.period_s is not None and solution.basis[-1]:  # its row, the last, is slack: the limit decides nothing
                    decided = replace(wanted, basis=encode_basis(solution.basis[:-1]), period_s=None)
                self.placements[key] = Placed(decided, seconds, solution.bound / 1e3 * scale, value * scale, basis, resident)
        return self.placements[key]


class LateError(StoppedError):
    """The time was up before all tables were built; ``every``: those that are."""

    def __init__(self, reason: str) -> None:
        self.every: list[Tables] = []
        super().__init__(f"stopped ({reason}) before any plan was found; raise --time-limit")


def build_tables(context: Context, space: Space, stop: Stop | None = None) -> Tables:
    """Evaluate every pool's candidates with everything in device memory, one pipeline depth at a time: ``LateError`` where
    ``stop`` ends it between two of them."""
    tables, until = Tables(context, space), stop or Stop()
    shared = None if context.separate else decode_times(context.pools["mixed"], space.pools["mixed"].shapes)

    def depths(pool: PoolSpace) -> Iterator[tuple[int, PoolSpace]]:
        for number, shapes in enumerate(pool.shapes):
            reason = until.late()
            if reason:
                raise LateError(reason)
            yield number, replace(pool, shapes=(shapes,))

    if space.aggregated:
        for number, one in depths(space.pools["mixed"]):
            tables.mixed += mixed_groups(context.pools["mixed"], one, shared and [shared[number]])
    if space.disaggregated:
        decode_space = space.pools.get("decode") or space.pools["mixed"]
        prefill_space = space.pools.get("prefill") or space.pools["mixed"]
        times = shared if decode_space is space.pools.get("mixed") else None
        for number, one in depths(decode_space):
            moved = handoff_columns(context, one)
            tables.decode += decode_groups(context.pool("decode"), one, moved, times and [times[number]])
        for _, one in depths(prefill_space):
            tables.prefill += prefill_rows(context.pool("prefill"), one)
    return tables
