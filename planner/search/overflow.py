"""How much of a memory below the devices' own a plan needs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from planner.plans.bounds import instance
from planner.plans.context import Context, PoolContext
from planner.plans.decision import Decision, PoolDecision
from planner.plans.evaluate import Candidates, memory_need
from planner.plans.lp import LinearProgram, encode_basis
from planner.plans.operate import Operation, operate
from planner.plans.space import declare_space
from planner.plans.states import pool_problem
from planner.plans.tiers import TierProblem
from planner.plans.worth import checks
from planner.search.tier_lp import solve_tiers

MOST_CONFIGURATIONS = 32


def held_in(operation: Operation, tier: str) -> float:
    """Bytes on the fullest device's share of a memory."""
    held = [0.0]
    for state in operation.pools:
        load = state.problem.program.matrix[:, : len(state.problem.choices)] @ state.shares
        held += [float(load[row]) * 1e9 for (_, name), row in state.problem.capacity_rows.items() if name == tier]
    return max(held)


def least_held(context: Context, tier: str) -> float | None:
    """The least bytes a device of a memory with which an aggregated deployment at the least load meets every limit.

    What overflows device memory and the other memories below is needed at least, so configurations are taken by that until none
    could need less than the best. ``None`` where too many could, that best breaks a limit (more may then be needed), serving is
    not aggregated, or there is a prefix cache, which takes what it is given.
    """
    space = declare_space(context)
    if not space.aggregated or not space.pools["mixed"].chunks or context.pools["mixed"].prefix is not None:
        return None
    pool, declared = context.pools["mixed"], space.pools["mixed"]
    chunk = min(declared.chunks)
    entries: list[tuple[float, int, int]] = []
    for number, shapes in enumerate(declared.shapes):
        count = len(shapes.tp)
        rows = Candidates(shapes, np.full(count, float(declared.least_batch)), np.full(count, float(chunk)))
        entries += [(float(short), number, row) for row, short in enumerate(memory_need(pool, rows).short)]
    others = sum(t.capacity for t in pool.rates.tiers if t.id in pool.tiers and t.id != tier)
    entries.sort()
    best: tuple[float, PoolDecision] | None = None
    for short, number, row in entries[:MOST_CONFIGURATIONS]:
        if best is not None and short - others >= best[0]:
            break
        decision = instance("mixed", declared.shapes[number], row, declared.least_batch, chunk)
        problem, _ = pool_problem(pool, replace(decision, basis="needed"))
        solution = solve_tiers(_least(problem, tier))
        size = math.inf if solution is None else float(solution.point.values[-1]) * 1e9
        if math.isfinite(size) and (best is None or size < best[0]):
            best = size, decision
    left = entries[MOST_CONFIGURATIONS:]
    if best is None or (left and left[0][0] - others < best[0]):
        return None
    return best[0] if _works(context, best[1], tier, best[0] * (1.0 + 1e-9)) else None


def _least(problem: TierProblem, tier: str) -> TierProblem:
    """The same placements, at least use of one memory on the fullest stage (GB, the last column)."""
    program = problem.program
    column, limit = np.zeros((len(program.rows), 1)), program.limit.copy()
    for (_, name), row in problem.capacity_rows.items():
        if name == tier:
            column[row, 0], limit[row] = -1.0, 0.0
    cost = np.zeros(len(program.columns) + 1)
    cost[-1] = 1.0
    matrix = np.hstack([program.matrix, column])
    return replace(problem, program=LinearProgram((*program.columns, "size"), program.rows, cost, matrix, limit, program.equal))


def _works(context: Context, decision: PoolDecision, tier: str, size: float) -> bool:
    """Whether one such instance with that much of the memory meets every limit."""
    pool = context.pools["mixed"]
    tiers = tuple(replace(t, capacity=min(t.capacity, size)) if t.id == tier else t for t in pool.rates.tiers)
    limited: PoolContext = replace(pool, rates=replace(pool.rates, tiers=tiers))
    problem, _ = pool_problem(limited, replace(decision, basis="needed"))
    solution = solve_tiers(problem)
    if solution is None:
        return False
    units = math.ceil((decision.instance_devices + pool.spare_devices) / pool.unit_devices)
    here = replace(context, pools={"mixed": limited})
    placed = replace(decision, basis=encode_basis(solution.basis))
    operation = operate(here, Decision((placed,), (units,), context.variant))
    return math.isfinite(operation.ttft_s) and all(check.holds for check in checks(here, operation))
