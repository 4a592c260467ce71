"""How many experts a pass wakes, and how unevenly they fall on ranks.

Routing is taken as uniform over experts (probability k/E each) unless popularity is given; group limits cap the
destinations of one token.
"""

from __future__ import annotations

import numpy as np

from planner.footprint.shapes import Column


def distinct_experts(experts: Column | float, probability: float, tokens: Column) -> Column:
    """Expected distinct experts among ``experts`` that ``tokens`` tokens wake: ``E * (1 - (1 - p)^B)``.

    Each token picks each expert with probability ``p = k/E``; B tokens leave one untouched with ``(1-p)^B``.
    """
    if probability >= 1.0:
        return np.where(tokens > 0, np.asarray(experts, dtype=float), 0.0)
    return np.asarray(experts * -np.expm1(tokens * np.log1p(-probability)))


def fullest(mean: Column, variance: Column, ranks: Column, cap: Column) -> Column:
    """Expected maximum over ``ranks`` of a load with that mean and variance, at most ``cap``.

    ``mean + sqrt(2 ln R * variance)`` is the Gaussian bound on the expected maximum of R equal variables
    (Boucheron, Lugosi, Massart, *Concentration Inequalities*, theorem 2.5). The load of ranks is close to Poisson.
    """
    spread = np.sqrt(2.0 * np.log(np.maximum(ranks, 1.0)) * np.maximum(variance, 0.0))
    return np.minimum(mean + spread, cap)


def fullest_load(tokens: Column, active: float, experts: int, slots: Column, ranks: Column) -> Column:
    """Token-expert pairs on the slowest rank: mean ``B*k*slots/E`` plus its order statistic, at most all pairs it can get."""
    mean = tokens * active * slots / experts
    return fullest(mean, mean, ranks, tokens * np.minimum(active, slots))


def fullest_distinct(tokens: Column, active: float, experts: int, slots: Column, ranks: Column) -> Column:
    """Distinct experts read by the slowest rank: mean ``S*u`` with ``u = 1-(1-k/E)^B``, variance ``S*u*(1-u)``, at most S."""
    touched = distinct_experts(1.0, active / experts, tokens)
    mean = slots * touched
    return fullest(mean, mean * (1.0 - touched), ranks, np.minimum(slots, tokens * active))


def distinct_targets(targets: Column, active: float, group_limit: Column | float) -> Column:
    """Expected distinct targets (ranks or nodes) of one token's k experts: ``n*(1-(1-1/n)^k)``, at most the group limit.

    ``group_limit`` is the number of targets that the router's groups allow (``inf`` without group limits).
    """
    n = np.maximum(targets, 1.0)
    free = n * -np.expm1(active * np.log1p(-1.0 / np.where(n > 1.0, n, 2.0)))
    return np.where(n > 1.0, np.minimum(np.minimum(free, group_limit), n), 1.0)
