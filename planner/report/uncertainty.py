"""What moves a plan's objective: each group of uncertain figures at both its ends, and each price by one per cent."""

from __future__ import annotations

from dataclasses import dataclass

from planner.report.study import Study

_WORDS = {
    "compute": "rates of arithmetic",
    "memory": "bandwidth of device memory",
    "network": "networks",
    "host": "links to lower memories",
    "floors": "start-up times",
    "imbalance": "imbalance of experts",
    "residual": "what the model leaves out",
    "efficiency.routed": "efficiency of expert matrices",
    "efficiency.dense": "efficiency of dense matrices",
    "capex": "capital cost of hardware",
    "life": "years of use",
    "pue": "PUE",
}
_OF_CAPITAL = ("capital", "maintenance", "staff")
"""What recurs in proportion to the capital cost of hardware."""


@dataclass(frozen=True)
class Swing:
    """The objective with one group of figures at its ends, all else and the deployment kept. ``price``: it is one of prices."""

    group: str
    ends: tuple[float, float]
    expected: float
    price: bool

    @property
    def low(self) -> float:
        """The least that the objective becomes."""
        return min(*self.ends, self.expected)

    @property
    def high(self) -> float:
        """The most that it becomes."""
        return max(*self.ends, self.expected)

    @property
    def width(self) -> float:
        """How far apart they are, over the expected value."""
        return (self.high - self.low) / self.expected


@dataclass(frozen=True)
class Elasticity:
    """Per cent by which the cost of a token rises with one per cent more of a price."""

    price: str
    value: float


def words(group: str) -> str:
    """A group of figures as a person calls it."""
    return _WORDS.get(group, group.replace("efficiency.", "efficiency of ").replace("_", " "))


def swings_of(study: Study) -> list[Swing]:
    """Widest first; groups that move nothing are left out, and those of ``unserved_of``. Prices move the objective only where it
    is cost."""
    judged = study.judged
    lost = unserved_of(study)
    expected = judged.objective(judged.expected)
    ends: dict[tuple[str, bool], list[float]] = {}
    for group, _, moved in judged.others:
        ends.setdefault((group, False), []).append(judged.objective(moved))
    for price, hour in judged.hours if study.plan.objective == "cost" else ():
        ends.setdefault((price, True), []).append(judged.objective(judged.expected, hour))
    rows = [Swing(words(group), (at[0], at[-1]), expected, price) for (group, price), at in ends.items()]
    rows = [row for row in rows if row.group not in lost and row.width > 1e-6]
    return sorted(rows, key=lambda row: (-row.width, row.group))


def unserved_of(study: Study) -> list[str]:
    """Groups at an end of which nothing is served, so that the objective has no value there."""
    return list(dict.fromkeys(words(group) for group, _, moved in study.judged.others if moved.requests_per_s <= 0.0))


def elasticities_of(study: Study) -> list[Elasticity]:
    """Largest first; they sum to one, as an hour is linear in its prices."""
    cost = study.plan.cost
    found: dict[str, float] = {}
    for line in cost.lines:
        for cause, usd in line.by_cause.items():
            price = f"capital cost of {line.hardware}" if cause in _OF_CAPITAL else cause
            price = f"rent of {line.hardware}" if cause == "rent" else price
            found[price] = found.get(price, 0.0) + usd / cost.usd_per_hour
    rows = [Elasticity(price, value) for price, value in found.items() if value > 0.0]
    return sorted(rows, key=lambda row: (-row.value, row.price))
