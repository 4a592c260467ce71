"""Small linear programs as arrays, and what follows from a basis without any solver.

``min c.x`` subject to ``A x (<=|=) b``, ``x >= 0``. A basis names as many columns (structural, or the slack of a
``<=`` row) as there are rows; the vertex and its duals are two linear solves. If the vertex is feasible and no
reduced cost is negative, it is optimal: strong duality is the whole proof, and the basis is the whole certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearProgram:
    """``columns`` and ``rows`` name what each is; ``equal`` marks equality rows."""

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cost: Array
    matrix: Array
    limit: Array
    equal: NDArray[np.bool_]


@dataclass(frozen=True)
class Vertex:
    """A basic solution: values of the structural columns, duals of the rows, reduced costs and slacks."""

    values: Array
    duals: Array
    reduced: Array
    slack: Array
    basic: NDArray[np.intp]
    inverse: Array

    @property
    def infeasibility(self) -> float:
        """Largest violation of a sign, of values, slacks (primal), in units of the program."""
        return float(max(0.0, -self.values.min(initial=0.0), -self.slack.min(initial=0.0)))

    @property
    def dual_infeasibility(self) -> float:
        """Largest negative reduced cost, of structural columns and slacks."""
        return float(max(0.0, -self.reduced.min(initial=0.0)))


def encode_basis(basic: NDArray[np.bool_]) -> str:
    """Membership of every structural column and then every slack, as hexadecimal with its length."""
    number = int("".join("1" if bit else "0" for bit in basic) or "0", 2)
    return f"{len(basic)}:{number:x}"


def decode_basis(text: str, expected: int) -> NDArray[np.bool_]:
    """The inverse of ``encode_basis`` for a program with ``expected`` structural and slack columns."""
    length, _, digits = text.partition(":")
    if length != str(expected) or len(digits) > expected or any(c not in "0123456789abcdef" for c in digits) or not digits:
        raise InputError("is not a basis of this placement problem", where="basis")
    bits = bin(int(digits, 16))[2:].zfill(expected)
    if len(bits) != expected:
        raise InputError("is not a basis of this placement problem", where="basis")
    return np.array([bit == "1" for bit in bits])


def vertex(program: LinearProgram, basis: NDArray[np.bool_]) -> Vertex:
    """Values and duals of a basis; ``InputError`` if it has the wrong size or is singular."""
    rows = len(program.rows)
    full = np.hstack([program.matrix, np.eye(rows)])
    cost = np.concatenate([program.cost, np.zeros(rows)])
    basic = np.flatnonzero(basis)
    if len(basic) != rows:
        raise InputError(f"has {len(basic)} basic columns for {rows} rows", where="basis")
    try:
        inverse = np.linalg.inv(full[:, basic])
    except np.linalg.LinAlgError:
        raise InputError("is singular", where="basis") from None
    solution = np.zeros(full.shape[1])
    solution[basic] = inverse @ program.limit
    solution[basic] += inverse @ (program.limit - full @ solution)  # one step of refinement
    duals = cost[basic] @ inverse
    reduced = cost - duals @ full
    reduced[basic] = 0.0
    slack = solution[len(program.columns) :].copy()
    reduced[len(program.columns) :] = np.where(program.equal, 0.0, reduced[len(program.columns) :])
    slack = np.where(program.equal, -np.abs(slack), slack)
    return Vertex(solution[: len(program.columns)], duals, reduced, slack, basic, inverse)


def right_hand_range(program: LinearProgram, point: Vertex, row: int) -> tuple[float, float]:
    """Interval of ``limit[row]`` over which this basis stays feasible, hence its duals stay the prices."""
    direction = point.inverse[:, row]
    values = np.concatenate([point.values, point.slack])[point.basic]
    low, high = -np.inf, np.inf
    for value, slope in zip(values, direction, strict=True):
        if abs(slope) < 1e-14:
            continue
        step = -max(value, 0.0) / slope
        if slope > 0:
            low = max(low, step)
        else:
            high = min(high, step)
    return float(program.limit[row] + low), float(program.limit[row] + high)
