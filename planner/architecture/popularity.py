"""How often the rows of a table are read: expected hit rates of a hot set, exact sums rather than samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from planner.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIRECT_TERMS = 4096


def harmonic(rows: int, exponent: float) -> float:
    """The sum of ``i ** -exponent`` for i = 1 .. rows, to about 1e-13 of its value.

    The first terms are added one by one; beyond them Euler and Maclaurin's formula, whose next term is below 1e-16 there.
    """
    head = min(rows, DIRECT_TERMS)
    total = math.fsum(i**-exponent for i in range(1, head + 1))
    if rows == head:
        return total
    first, last = float(head), float(rows)

    def term(order: int, at: float) -> float:
        """The derivative of that odd order of x ** -exponent, without its minus sign."""
        value = float(at ** (-exponent - order))
        for step in range(order):
            value *= exponent + step
        return value

    if abs(exponent - 1.0) < 1e-9:
        area = math.log(last / first)
    else:
        area = math.expm1((1.0 - exponent) * math.log(last / first)) / (1.0 - exponent) * first ** (1.0 - exponent)
    edges = (last**-exponent - first**-exponent) / 2.0
    return float(total + area + edges) - (term(1, last) - term(1, first)) / 12.0 + (term(3, last) - term(3, first)) / 720.0


class Popularity(BaseModel):
    """How reads spread over the rows of a table, most popular row first.

    ``uniform``: all alike. ``zipf``: row i is read in proportion to ``i ** -exponent``. ``measured``: ``counts`` reads of as
    many rows, the rest of the table never.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["uniform", "zipf", "measured"]
    exponent: Annotated[float, Field(ge=0, le=16, allow_inf_nan=False)] = 1.0
    counts: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @field_validator("counts")
    @classmethod
    def _falling(cls, counts: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(counts, reverse=True))

    def hit_rate(self, rows: int, hot: int) -> float:
        """The probability that a read finds its row among the ``hot`` most popular of ``rows``."""
        if rows < 1:
            raise InputError("a table has at least one row")
        hot = max(0, min(hot, rows))
        if self.kind == "uniform":
            return hot / rows
        if self.kind == "zipf":
            return harmonic(hot, self.exponent) / harmonic(rows, self.exponent) if hot else 0.0
        if len(self.counts) > rows or not sum(self.counts):
            raise InputError(f"{len(self.counts)} counts, {sum(self.counts)} reads in all, for a table of {rows} rows")
        return sum(self.counts[:hot]) / sum(self.counts)

    def probabilities(self, rows: int) -> NDArray[Any]:
        """The probability of each row, for tables small enough to list."""
        import numpy as np

        if self.kind == "uniform":
            return np.full(rows, 1.0 / rows)
        if self.kind == "zipf":
            weights = np.arange(1, rows + 1, dtype=float) ** -self.exponent
        else:
            weights = np.zeros(rows)
            weights[: len(self.counts)] = self.counts
        return np.asarray(weights / weights.sum())

    def distinct(self, rows: int, reads: int) -> float:
        """How many different rows ``reads`` independent reads touch on average: the sum over rows of 1 - (1 - p) ** reads."""
        import numpy as np

        if self.kind == "uniform":
            return -rows * math.expm1(reads * math.log1p(-1.0 / rows)) if rows > 1 else float(reads > 0)
        inside = np.minimum(self.probabilities(rows), 1.0 - 1e-16)
        return float(-np.expm1(reads * np.log1p(-inside)).sum())


def zipf(exponent: float) -> Popularity:
    """Row i read in proportion to ``i ** -exponent``."""
    return Popularity(kind="zipf", exponent=exponent)


def measured(counts: Sequence[int]) -> Popularity:
    """Rows read that often."""
    return Popularity(kind="measured", counts=tuple(counts))
