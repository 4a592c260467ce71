"""The tier problem through ortools' GLOP: the solver supplies a basis, and everything else follows from that basis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError, PlannerError
from planner.plans.lp import Vertex, vertex
from planner.plans.tiers import TierProblem, dual_bound, elastic

GLOP_PARAMETERS = "dual_feasibility_tolerance: 1e-11 primal_feasibility_tolerance: 1e-10"
"""Tight enough that tie-break costs decide between equal optima."""

OTHER_PARAMETERS = (
    f"{GLOP_PARAMETERS} use_preprocessing: false",
    f"{GLOP_PARAMETERS} use_dual_simplex: true",
    "use_scaling: false",
)
"""Ways to solve what the first gives up on."""

FEASIBILITY = 1e-7
"""Largest accepted sign violation of a vertex, in GB, ms or shares."""


SPAN = 1e13
"""Ratio of the largest to the smallest coefficient beyond which a double has no digits left for the solver."""


def unsolved(reason: str, coefficients: NDArray[np.float64]) -> PlannerError:
    """Why the solver gave up: figures too far apart, which is the input's fault, or a fault of planner's."""
    sizes = np.abs(coefficients[coefficients != 0.0])
    if sizes.size and not sizes.max() / sizes.min() < SPAN:
        what = (
            f"the figures lie too far apart for the placement solver: its numbers go from {sizes.min():.1g} to {sizes.max():.1g}"
        )
        return InputError(what, mend="look for a figure that is extremely small or large; planner lint PROFILE names them")
    return PlannerError(reason)


@dataclass(frozen=True)
class TierSolution:
    """An optimal vertex, the basis that proves it and a lower bound on the objective without tie-break costs (ms)."""

    basis: NDArray[np.bool_]
    point: Vertex
    bound: float


def solve_tiers(problem: TierProblem) -> TierSolution | None:
    """The optimal placement, or ``None`` where no placement fits."""
    for parameters in (GLOP_PARAMETERS, *OTHER_PARAMETERS[:-1]):
        try:
            return _solve(problem, parameters)
        except InputError:
            raise
        except PlannerError:  # the solver gave up: once more, in another way
            continue
    return _solve(problem, OTHER_PARAMETERS[-1])


def prove_empty(problem: TierProblem) -> TierSolution:
    """The least amount by which limits must give way for any placement to exist: above zero, none does.

    Call it only where ``solve_tiers`` found none.
    """
    relaxed, failure = elastic(problem), PlannerError("the elastic placement problem has no solution")
    for parameters in (GLOP_PARAMETERS, *OTHER_PARAMETERS):  # it always has one, whatever the solver's preprocessing makes of it
        try:
            solution = _solve(relaxed, parameters)
        except PlannerError as error:
            failure = error
            continue
        if solution is not None:
            return solution
    raise failure


def _solve(problem: TierProblem, parameters: str = GLOP_PARAMETERS) -> TierSolution | None:
    from ortools.linear_solver import linear_solver_pb2, pywraplp

    program = problem.program
    model = linear_solver_pb2.MPModelProto()
    for cost in program.cost.tolist():
        model.variable.add(lower_bound=0.0, upper_bound=np.inf, objective_coefficient=cost)
    rows, columns = np.nonzero(program.matrix)
    ends = np.searchsorted(rows, np.arange(len(program.rows)), side="right").tolist()
    index, values, start = columns.tolist(), program.matrix[rows, columns].tolist(), 0
    for bound, equal, end in zip(program.limit.tolist(), program.equal.tolist(), ends, strict=True):
        lower = bound if equal else -np.inf
        model.constraint.add(lower_bound=lower, upper_bound=bound, var_index=index[start:end], coefficient=values[start:end])
        start = end
    solver = pywraplp.Solver.CreateSolver("GLOP")
    solver.SetSolverSpecificParametersAsString(parameters)
    solver.LoadModelFromProto(model)
    status = solver.Solve()
    if status == pywraplp.Solver.INFEASIBLE:
        return None
    if status != pywraplp.Solver.OPTIMAL:
        raise unsolved(f"the placement solver stopped with status {status}", program.matrix)
    basic = pywraplp.Solver.BASIC
    basis = np.array([part.basis_status() == basic for part in (*solver.variables(), *solver.constraints())], dtype=bool)
    point = vertex(program, basis)
    if point.infeasibility > FEASIBILITY:
        raise unsolved(f"the placement solver's vertex violates a bound by {point.infeasibility:.3g}", program.matrix)
    return TierSolution(basis, point, dual_bound(problem, point))
