"""The workload schema and its catalogue."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture.popularity import Popularity
from planner.catalogue import Catalogue
from planner.quantities import Grade
from planner.workload.experts import ExpertPopularity
from planner.workload.prefix import PrefixCache

MAX_TOKENS = 16_777_216
MAX_SECONDS = 1e9
MOST_QUANTILES = 64

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Tokens = Annotated[float, Field(ge=0, le=MAX_TOKENS, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Index = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


class Lengths(BaseModel):
    """A distribution of token counts: constant at ``mean``, or lognormal with that mean and ``median``.

    ``quantiles``, where they were counted: ``(probability, tokens)``. Plans are made by mean and median.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float = Field(ge=1, le=MAX_TOKENS, allow_inf_nan=False)
    median: float | None = Field(default=None, ge=1, le=MAX_TOKENS, allow_inf_nan=False)
    quantiles: tuple[tuple[Probability, Tokens], ...] | None = Field(default=None, min_length=1, max_length=MOST_QUANTILES)

    @model_validator(mode="after")
    def _skewed_right(self) -> Lengths:
        if self.median is not None and self.median > self.mean:
            raise ValueError(
                "median is above the mean: a lognormal has mean >= median; leave the median out for constant lengths"
            )
        for (low, few), (high, many) in zip(self.quantiles or (), (self.quantiles or ())[1:], strict=False):
            if high <= low or many < few:
                raise ValueError(f"quantiles: ({low:g}, {few:g}) and ({high:g}, {many:g}) do not rise")
        return self

    @property
    def coefficient_of_variation(self) -> float:
        """Standard deviation over mean: ``sqrt(exp(sigma^2) - 1)``, and ``exp(sigma^2/2) = mean/median`` (lognormal)."""
        if self.median is None:
            return 0.0
        return math.sqrt(max((self.mean / self.median) ** 2 - 1.0, 0.0))


class Arrivals(BaseModel):
    """How requests came in the trace that a workload was fitted to; the load of a plan is asked for apart.

    ``variation``: standard deviation over mean of the time between two arrivals. ``dispersion``: ``(window in s, variance over
    mean of the requests in a window)``. Both are 1 for random (Poisson) arrivals, more for bursts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_per_s: Positive
    variation: Index | None = None
    dispersion: tuple[tuple[Positive, Index], ...] = Field(default=(), max_length=16)


class Workload(BaseModel):
    """What the deployment serves. Times in seconds; ``None`` means no limit.

    ``prefix_hit`` is the share of input tokens whose cache entries exist already (0 to below 1), kept and brought back for
    nothing; with ``prefix_cache`` in its place they are kept in memory, and how many is chosen.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(alias="schema", default=1)
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    name: str = ""
    input_tokens: Lengths
    output_tokens: Lengths
    prefix_hit: float = Field(ge=0, lt=1, default=0.0, allow_inf_nan=False)
    prefix_cache: PrefixCache | None = None
    arrivals: Arrivals | None = None
    ttft_s: float | None = Field(gt=0, le=MAX_SECONDS, default=None, allow_inf_nan=False)
    tpot_s: float | None = Field(gt=0, le=MAX_SECONDS, default=None, allow_inf_nan=False)
    acceptance: tuple[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)], ...] | None = Field(default=None, max_length=64)
    """Probability that draft token i is accepted given those before it, on this traffic; the model's own figure where absent."""
    experts: ExpertPopularity = ExpertPopularity()
    """How tokens spread over routed experts."""
    lookups: Popularity = Popularity(kind="uniform")
    """How reads spread over the rows of every lookup table (of each sub-table, where a table has several)."""
    source: str
    as_of: date
    grade: Grade
    note: str = ""

    @model_validator(mode="after")
    def _generates(self) -> Workload:
        if self.output_tokens.mean < 2:
            raise ValueError("output_tokens.mean must be at least 2: with one token there is no time per output token")
        if self.prefix_cache is not None and self.prefix_hit:
            raise ValueError("prefix_hit and prefix_cache both say how much is found: give one")
        return self

    def at_hit(self, hit: float) -> Workload:
        """The workload at a hit rate, its curve kept."""
        return self if hit == self.prefix_hit else self.model_copy(update={"prefix_hit": hit})

    @property
    def miss_tokens(self) -> float:
        """Input tokens of a mean request that must be computed; at least one."""
        return max(self.input_tokens.mean * (1.0 - self.prefix_hit), 1.0)

    @property
    def hit_tokens(self) -> float:
        """Input tokens of a mean request whose cache entries are reused."""
        return self.input_tokens.mean - self.miss_tokens

    @property
    def resident_tokens(self) -> float:
        """Mean context of a decoding sequence: ISL + OSL/2."""
        return self.input_tokens.mean + self.output_tokens.mean / 2.0

    @property
    def reserved_tokens(self) -> int:
        """Context for which cache is reserved per admitted sequence: ISL + OSL, in whole tokens."""
        return math.ceil(self.input_tokens.mean + self.output_tokens.mean)

    @property
    def context_variation(self) -> float:
        """Coefficient of variation of a running sequence's context.

        A sequence found decoding is at a uniform position of its output (variance OSL^2/12), and its lengths vary by
        their own distributions: ``sqrt((cv_in*ISL)^2 + (cv_out*OSL/2)^2 + OSL^2/12) / (ISL + OSL/2)``.
        """
        isl, osl = self.input_tokens, self.output_tokens
        variance = (isl.coefficient_of_variation * isl.mean) ** 2
        variance += (osl.coefficient_of_variation * osl.mean / 2) ** 2 + osl.mean**2 / 12
        return math.sqrt(variance) / self.resident_tokens


FOLDER = Path(__file__).parent / "catalogue"
WORKLOADS: Catalogue[Workload] = Catalogue("planner.workloads", Workload, "workload")


def load_workload(name: str) -> Workload:
    """A workload of the catalogue, or a ``.toml`` file."""
    return WORKLOADS.load(name)
