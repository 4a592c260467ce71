"""How sure an order is: objectives drawn together, errors that two rows share drawn once for both.

**One row.** The objective's logarithm is ``ln z + s(T)`` with ``T`` standard normal and ``s(T) = up T / q`` above its median,
``down T / q`` below, ``q = 1.2816`` the normal's 90th percentile. Its 10th percentile, median and 90th are then exactly ``z
exp(-down)``, ``z`` and ``z exp(up)``: the interval that the plan prints, whatever made it skew.

**Rows together.** ``T = sum_k w_k x_k`` over groups of figures ``k`` with ``x_k`` independent standard normals and ``sum w_k^2``
``= 1``. A group that alone moves the objective's logarithm by ``d_k`` and ``u_k`` to either side has ``w_k^2 = (d_k^2 + u_k^2) /
sum_j (d_j^2 + u_j^2)``, its share of the whole interval as the plan adds it up (deviations in quadrature), and the sign in which
it moves. Two rows that name the same group share its draw. Hence

- the same figures: the difference is 0 in every draw, which counts a half for each;
- all groups shared, in equal measure: the difference is ``ln z_a - ln z_b`` in every draw, and the answer is 0 or 1;
- none shared, no skew, ``down = up = q sigma``: the difference is normal, ``P(a < b) = Phi(ln(z_b / z_a) / sqrt(sigma_a^2 +
  sigma_b^2))``.

The draws of a group depend on its name and the seed alone, so neither the order of rows nor what else is compared changes them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z90 = 1.2815515655446004
"""90th percentile of the standard normal."""
DRAWS = 10_000
SEED = 20261122
_SAME = 1e-12
"""Difference of logarithms below which two draws are the same but for rounding."""


@dataclass(frozen=True)
class Spread:
    """An objective (positive), how far its logarithm reaches to its 10th percentile and to its 90th, and the weights ``w_k`` of
    the groups of figures behind that (empty where nothing is uncertain)."""

    value: float
    down: float
    up: float
    weights: Mapping[str, float]

    def relabelled(self, names: Mapping[str, str]) -> Spread:
        """With groups under other names, so that they are no longer shared with who calls them by the old."""
        return Spread(self.value, self.down, self.up, {names.get(key, key): w for key, w in self.weights.items()})


def spread_of(value: float, moves: Mapping[str, tuple[float, float, float]]) -> Spread:
    """From what each group alone does to the objective's logarithm: ``(d, u, sign)``."""
    down = math.sqrt(math.fsum(d * d for d, _, _ in moves.values()))
    up = math.sqrt(math.fsum(u * u for _, u, _ in moves.values()))
    whole = down * down + up * up
    weights = {k: sign * math.sqrt((d * d + u * u) / whole) for k, (d, u, sign) in moves.items() if d or u} if whole else {}
    return Spread(value, down, up, weights)


def sample(spreads: Sequence[Spread], draws: int = DRAWS, seed: int = SEED) -> NDArray[np.float64]:
    """Logarithms of the objectives, one row each, ``draws`` columns."""
    known: dict[str, NDArray[np.float64]] = {}
    result = np.empty((len(spreads), draws))
    for row, spread in enumerate(spreads):
        together = np.zeros(draws)
        for key in sorted(spread.weights):
            if key not in known:
                known[key] = _normals(key, draws, seed)
            together += spread.weights[key] * known[key]
        result[row] = math.log(spread.value) + np.where(together > 0.0, spread.up, spread.down) * together / Z90
    return result


def _normals(key: str, draws: int, seed: int) -> NDArray[np.float64]:
    digest = np.frombuffer(hashlib.sha256(key.encode()).digest(), dtype="<u4")
    return np.random.default_rng([seed, *(int(part) for part in digest)]).standard_normal(draws)


def better(one: NDArray[np.float64], other: NDArray[np.float64], *, lower: bool) -> tuple[float, float]:
    """``(probability, standard error)`` that the one is better; a draw in which both are the same counts a half."""
    difference = other - one if lower else one - other
    score = np.where(np.abs(difference) <= _SAME, 0.5, np.where(difference > 0.0, 1.0, 0.0))
    return float(score.mean()), float(score.std() / math.sqrt(len(score)))


def best(logs: NDArray[np.float64], *, lower: bool) -> NDArray[np.float64]:
    """Of each row the probability that it is the best of all; the same share it."""
    ahead = logs.min(axis=0) if lower else logs.max(axis=0)
    first = np.abs(logs - ahead) <= _SAME
    return np.asarray((first / first.sum(axis=0)).mean(axis=1))


def in_order(logs: NDArray[np.float64], *, lower: bool) -> float:
    """Probability that every row is at least as good as the next."""
    steps = np.diff(logs, axis=0) * (1.0 if lower else -1.0)
    return float((steps >= -_SAME).all(axis=0).mean())
