"""The runtime schema and its catalogue."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.catalogue import Catalogue
from planner.quantities import BytesFigure, CountFigure, Figure, FractionFigure, PositiveFraction, SecondsFigure

_CONFIG = ConfigDict(frozen=True, extra="forbid")


class Floors(BaseModel):
    """Time per layer that neither FLOPs nor bytes explain: launches, small kernels, synchronisation (seconds)."""

    model_config = _CONFIG

    attention: SecondsFigure
    mlp: SecondsFigure
    moe: SecondsFigure
    step: SecondsFigure
    """Once a step: scheduling, sampling, input preparation."""
    sequence: SecondsFigure
    """Once a step for each running sequence of a rank."""


class Efficiencies(BaseModel):
    """System factors over kernel rates: achieved rate = device peak x kernel curve x factor."""

    model_config = _CONFIG

    dense: PositiveFraction
    routed: PositiveFraction
    attention: PositiveFraction
    """Of the dense peak, for attention cores; the kernel curve is not applied to them."""

    @model_validator(mode="after")
    def _within_peak(self) -> Efficiencies:
        for name, figure in self:
            if figure.highest > 1.0:
                raise ValueError(f"{name}: a share of what the device can do is at most 1")
        return self


class Reserves(BaseModel):
    """Device memory that holds neither weights nor cache, by cause (bytes per device unless said)."""

    model_config = _CONFIG

    context: BytesFigure
    graphs: BytesFigure
    communication: BytesFigure
    """Collective buffers, for groups of two devices or more."""
    expert_buffers_hidden_multiple: CountFigure
    """Dispatch and combine buffers with expert parallelism: bytes per token of a pass and rank, in units of the hidden size."""
    activation_hidden_multiple: CountFigure
    """Peak activation elements per token of a pass, in units of the hidden size (2 bytes each)."""
    fragmentation: FractionFigure
    """Share of usable device memory lost to allocator granularity."""


class Runtime(BaseModel):
    """A serving runtime. ``residual`` is the ratio measured/predicted step time that remains unexplained."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(alias="schema", default=1)
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    name: str = ""
    as_of: date
    floors: Floors
    efficiency: Efficiencies
    reserve: Reserves
    imbalance: PositiveFraction
    """Slowest expert-parallel rank over the mean, beyond the router's own statistics."""
    residual: PositiveFraction
    aggregated: bool
    disaggregated: bool
    streaming: bool
    """Can keep weights and cache in host memory or on disk and fetch them during the step."""
    context_parallel: bool = False
    """Can split a cache by tokens over devices of an attention group whose heads are too few for it."""
    uneven_replicas: bool = False
    """Can send different shares of an expert's tokens to its copies; otherwise they serve alike."""
    overlap_communication: bool
    """Collectives run beside compute (two-batch overlap); otherwise they are exposed."""
    page_tokens: int = Field(ge=1, le=4096)
    batch_buckets: tuple[int, ...] = Field(min_length=1)
    """Decode batches pad up to one of these, then to multiples of the last step between them."""
    max_sequences_per_rank: int = Field(ge=1, le=65536)
    prefill_tokens: tuple[int, ...] = Field(min_length=1)
    """Tokens of a prefill pass per attention rank that the search may choose."""
    kv_layouts: dict[str, tuple[str, ...]]
    """KV dtype -> cache layouts in order of preference."""
    dequantises: tuple[str, ...] = ()
    """Storage formats whose weights it keeps on devices that do not compute in them, dequantised in the kernel."""

    @model_validator(mode="after")
    def _consistent(self) -> Runtime:
        imbalance: Figure = self.imbalance
        if imbalance.lowest < 1.0:
            raise ValueError("imbalance: the slowest rank is at least the mean; write 1 or more")
        fragmentation: Figure = self.reserve.fragmentation
        if fragmentation.highest >= 1.0:
            raise ValueError("reserve.fragmentation: less than all of the memory is lost")
        for name, values in (("batch_buckets", self.batch_buckets), ("prefill_tokens", self.prefill_tokens)):
            if values[0] < 1 or any(later <= earlier for earlier, later in pairwise(values)):
                raise ValueError(f"{name}: whole numbers from 1 upwards, each above the one before")
        return self


FOLDER = Path(__file__).parent / "catalogue"
RUNTIMES: Catalogue[Runtime] = Catalogue("planner.runtimes", Runtime, "runtime")


def load_runtime(name: str) -> Runtime:
    """A runtime of the catalogue, or a ``.toml`` file."""
    return RUNTIMES.load(name)
