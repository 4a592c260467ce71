"""How many experts a pass wakes, and how unevenly they fall on ranks.

Routing is taken as uniform over experts (probability k/E each) unless their use is given in classes; group limits cap the
destinations of one token.
"""

from __future__ import annotations

import numpy as np

from planner.footprint.pieces import RoutedItem
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


def touched_by_class(item: RoutedItem, tokens: Column) -> list[Column]:
    """Expected share of a layer's experts that are of a class and woken: ``n_c/E (1 - (1 - k s_c)^B)``."""
    classes = item.classes or ((item.experts, 1.0 / item.experts),)
    return [distinct_experts(count / item.experts, min(item.active * share, 1.0), tokens) for count, share in classes]


def rank_share(item: RoutedItem, slots: Column, ranks: Column) -> Column:
    """Share of the pairs that the fullest rank gets in the mean: its part of the experts, or what maps of popular ones give."""
    if not item.worst:
        return slots / item.experts
    known = dict(item.worst)
    return np.array([known.get(int(n), 1.0) for n in np.ravel(ranks)]).reshape(np.shape(ranks)) / ranks


def fullest_load(tokens: Column, item: RoutedItem, slots: Column, ranks: Column) -> Column:
    """Token-expert pairs on the slowest rank: mean ``B*k*share`` plus its order statistic, at most all pairs it can get."""
    mean = tokens * item.active * rank_share(item, slots, ranks)
    return fullest(mean, mean, ranks, tokens * np.minimum(item.active, slots))


def fullest_distinct(tokens: Column, item: RoutedItem, slots: Column, ranks: Column) -> Column:
    """Distinct experts read by the slowest rank: mean ``S*u``, u the share woken, variance ``S*u*(1-u)``, at most S."""
    touched = np.sum(np.stack(touched_by_class(item, tokens)), axis=0)
    mean = slots * touched
    return fullest(mean, mean * (1.0 - touched), ranks, np.minimum(slots, tokens * item.active))


def distinct_targets(targets: Column, active: float, group_limit: Column | float) -> Column:
    """Expected distinct targets (ranks or nodes) of one token's k experts: ``n*(1-(1-1/n)^k)``, at most the group limit.

    ``group_limit`` is the number of targets that the router's groups allow (``inf`` without group limits).
    """
    n = np.maximum(targets, 1.0)
    free = n * -np.expm1(active * np.log1p(-1.0 / np.where(n > 1.0, n, 2.0)))
    return np.where(n > 1.0, np.minimum(np.minimum(free, group_limit), n), 1.0)
