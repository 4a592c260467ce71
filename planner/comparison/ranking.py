"""Ratios, ranks, probabilities and break-even prices of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.comparison.chance import Spread, best, better, in_order, sample
from planner.comparison.figures import break_even
from planner.comparison.judged import Judged, of_hardware
from planner.comparison.schema import BreakEven, Verdict

CERTAIN, LEANING = 0.95, 2.0 / 3.0
"""Probabilities from which an order is called certain, or at least leaning to one side."""

UNRANKED: dict[str, Any] = {
    **dict.fromkeys(("reference", "ratio", "probability_better", "probability_error", "probability_unshared", "verdict")),
    **dict.fromkeys(("rank", "probability_best", "break_even")),
    "within_gap": False,
}


class Ranking:
    """What is drawn for the ranked rows, and what follows for each."""

    def __init__(self, names: Sequence[str], ranked: dict[int, Judged], *, lower: bool) -> None:
        self.ranked, self.lower = ranked, lower
        self.value = {i: one.objective(one.expected) for i, one in ranked.items()}
        spreads = {i: one.spread for i, one in ranked.items() if one.spread is not None}
        self.keys = sorted({key for spread in spreads.values() for key in spread.weights})
        self.logs = _drawn(spreads)
        apart = {i: _apart(spread, names[i]) for i, spread in spreads.items()}
        self.apart = _drawn(apart)

    def of(self, index: int, mates: list[int]) -> dict[str, Any]:
        """The fields of a ranked row; ``mates``: all ranked rows of its model."""
        reference = mates[0]
        order = self._sorted(mates)
        ratio = self.value[index] / self.value[reference]
        within = self._within_gap(index, reference)
        found: dict[str, Any] = {
            **UNRANKED,
            "reference": reference,
            "ratio": ratio,
            "within_gap": within,
            "rank": order.index(index) + 1,
            "break_even": self._break_even(index, order),
        }
        if index in self.logs and reference in self.logs:
            chance, error = better(self.logs[index], self.logs[reference], lower=self.lower)
            found |= {"probability_better": chance, "probability_error": error}
            found["probability_unshared"] = better(self.apart[index], self.apart[reference], lower=self.lower)[0]
            if index != reference:
                found["verdict"] = verdict(chance, same=error == 0.0 and chance == 0.5, within_gap=within)
        if all(mate in self.logs for mate in mates):
            found["probability_best"] = float(best(self._of(mates), lower=self.lower)[mates.index(index)])
        return found

    def order(self, rows: range) -> float | None:
        """Probability that the ranked ones among rows stand in the order that they are ranked in."""
        mates = [i for i in rows if i in self.ranked]
        if len(mates) < 2 or not all(i in self.logs for i in mates):
            return None
        return in_order(self._of(self._sorted(mates)), lower=self.lower)

    def left_open(self, rows: range) -> list[tuple[int, int]]:
        """Neighbours in the order of the ranked ones among rows, better one first, whose order their searches left open."""
        order = self._sorted([i for i in rows if i in self.ranked])
        return [(ahead, behind) for ahead, behind in pairwise(order) if self._within_gap(behind, ahead)]

    def table(self, rows: int, part: int) -> list[list[float | None]]:
        """Of every pair the probability (part 0) that the one is better, or its standard error (1)."""
        return [
            [
                better(self.logs[i], self.logs[j], lower=self.lower)[part]
                if i != j and i in self.logs and j in self.logs
                else None
                for j in range(rows)
            ]
            for i in range(rows)
        ]

    def _of(self, rows: Sequence[int]) -> NDArray[np.float64]:
        return np.stack([self.logs[i] for i in rows])

    def _sorted(self, rows: Sequence[int]) -> list[int]:
        return sorted(rows, key=lambda i: (self.value[i] if self.lower else -self.value[i], i))

    def _within_gap(self, index: int, reference: int) -> bool:
        """Whether what the search left open of the worse one reaches the better one."""
        worse = self._sorted([index, reference])[1]
        certificate = self.ranked[worse].plan.certificate
        ends = sorted((certificate.bound, certificate.objective))
        reach = math.inf if ends[0] <= 0.0 else math.log(ends[1] / ends[0])
        apart = abs(math.log(self.value[index] / self.value[reference]))
        return index != reference and 0.0 < apart <= reach

    def _break_even(self, index: int, order: list[int]) -> BreakEven | None:
        """Against the best, or of the best against the next."""
        one = self.ranked[index]
        if one.inputs.options.objective != "cost" or len(order) < 2:
            return None
        against = order[1] if index == order[0] else order[0]
        return break_even(one, self.value[against], against)


def _drawn(spreads: dict[int, Spread]) -> dict[int, NDArray[np.float64]]:
    return dict(zip(spreads, sample(list(spreads.values())), strict=True))


def _apart(spread: Spread, name: str) -> Spread:
    """With errors that are not of hardware for itself."""
    return spread.relabelled({key: f"{key}, {name}" for key in spread.weights if not of_hardware(key)})


def verdict(probability: float, *, same: bool = False, within_gap: bool = False) -> Verdict:
    """A probability in a word."""
    surer = max(probability, 1.0 - probability)
    if same:
        return "the same"
    if within_gap or surer < LEANING:
        return "a toss-up"
    return "certain" if surer >= CERTAIN else "leaning"
