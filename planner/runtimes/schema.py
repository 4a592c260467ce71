"""The runtime schema and its catalogue."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from planner.catalogue import Catalogue, Extending
from planner.errors import nearest
from planner.quantities import (
    BytesFigure,
    CountFigure,
    Figure,
    FractionFigure,
    Grade,
    PositiveFraction,
    SecondsFigure,
    figure_of,
    parse_quantity,
    readable,
)
from planner.runtimes.calibrated import Calibrated

_CONFIG = ConfigDict(frozen=True, extra="forbid")

if TYPE_CHECKING:
    FlopPerSecond: TypeAlias = Figure
else:
    FlopPerSecond = figure_of("flop_per_s")

Parallel = Literal["tensor", "pipeline", "expert", "attention_data"]
Dtype = Literal["fp32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4", "int4"]
Offload = Literal["cpu_experts", "prefetch", "uva", "mmap"]
EVERY_PARALLEL: tuple[Parallel, ...] = ("tensor", "pipeline", "expert", "attention_data")


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


class Issue(BaseModel):
    """What the host needs to issue the kernels of one block one by one, where no captured graph replays the pass (seconds).

    It is the host's: neither a device whose kernels start sooner nor a calibration, which sees replayed steps, shortens it.
    """

    model_config = _CONFIG

    attention: SecondsFigure
    mlp: SecondsFigure
    moe: SecondsFigure
    matrix: SecondsFigure
    """For each weight matrix of a block beyond those of a plain one of its kind."""


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


class Source(BaseModel):
    """Where it was read that a runtime can or does something."""

    model_config = _CONFIG

    source: str = Field(min_length=1)
    """A public repository with tag or commit and file, or a page."""
    as_of: date
    grade: Grade
    note: str = ""
    """Flags that turn it on, and its conditions."""


class StockPrefill(BaseModel):
    """One step of an engine's default chunk: ``tokens`` on a device of ``from_memory`` bytes or more."""

    model_config = _CONFIG

    from_memory: Annotated[float, BeforeValidator(lambda raw: parse_quantity(raw, "bytes", bare_unit="B")), Field(ge=0.0)] = 0.0
    tokens: int = Field(ge=1, le=16_777_216)


class CpuRates(BaseModel):
    """What one socket reaches on experts that it computes, over all its cores, on the processor that the note names."""

    model_config = _CONFIG

    bf16: FlopPerSecond | None = None
    int8: FlopPerSecond | None = None


class Runtime(Extending):
    """A serving runtime. ``residual`` is the ratio measured/predicted step time that remains unexplained.

    A file may say that it ``extends`` another runtime and then holds what differs. A figure, list, cache or offload table
    replaces the inherited one; the figures of ``floors``, ``issue``, ``efficiency``, ``reserve`` and rows of ``sources`` join.
    Identity, date and version are never inherited, nor is the source of a statement that is written anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)

    schema_version: Literal[1] = Field(alias="schema", default=1)
    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    name: str = ""
    version: str = ""
    """The version or versions described."""
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
    waits_for_ranks: bool = True
    """Can hold a prefill pass of an aggregated instance back until every attention-DP rank has a request for it."""
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
    computes: dict[Dtype, Annotated[tuple[Dtype, ...], Field(min_length=1)]] = {}
    """Dtype of weights -> dtypes its kernels multiply them in, of which the first that the device has counts; weights of other
    dtypes, and where the device has none of those, are multiplied in their own or in 16 bits."""
    window_caches: Literal["window", "whole"] = "window"
    """What a cache of sliding-window attention holds: its window, or like other layers' all that came before."""
    parallel: tuple[Parallel, ...] = EVERY_PARALLEL
    """How it can spread a model; ``attention_data`` is attention data parallelism beside shared experts."""
    default_prefill_tokens: tuple[StockPrefill, ...] = ()
    """The chunk of a deployment that asks for none, by device memory, the smallest first; none where prompts run whole."""
    default_prefill_shared: bool = False
    """Attention-DP ranks share the default chunk, each takes its part; otherwise every rank has one of its own."""
    admission: Literal["resident", "reserved"] | None = None
    """``resident`` admits a sequence while its blocks fit and may preempt it later; ``reserved`` sets its full length aside."""
    memory_fraction: PositiveFraction | None = None
    """The share of ``memory_fraction_of`` that a deployment gives to it when it asks for nothing."""
    memory_fraction_of: Literal["all", "static", "free"] | None = None
    """``all``: of device memory, for everything it holds; ``static``: of device memory, for weights and cache; ``free``: of what
    weights and working memory leave, for the cache."""
    offload: dict[Offload, Source] = {}
    """Ways below device memory: ``cpu_experts`` are computed by the CPU where they lie; ``prefetch`` copies weights ahead of
    their layer; ``uva`` lets kernels read host memory; ``mmap`` reads weights from storage as they are touched."""
    cpu: CpuRates | None = None
    issue: Issue | None = None
    """How long the host takes over blocks that no captured graph replays; without it, no longer than their floors."""
    single_stream: PositiveFraction | None = None
    """Of a memory's nominal read bandwidth, what a dense decode pass of one sequence reaches, launches included."""
    sources: dict[str, Source] = {}
    """Field -> where its statement was read. Figures carry their own."""
    calibrated: Calibrated | None = None
    """What was fitted to measurements; a plan's runtime carries it, a runtime's file does not."""

    @classmethod
    def laid_over(cls, base: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The tables of a runtime on those of its base."""
        kept = {key: value for key, value in base.items() if key not in _OWN and not (key == "offload" and key in data)}
        if isinstance(kept.get("sources"), dict):
            kept["sources"] = {key: value for key, value in kept["sources"].items() if key not in data}
        return super().laid_over(kept, data)

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the optional statements that nobody made: what a runtime does not say is not printed."""
        unsaid = {name for name in _OPTIONAL if getattr(self, name) == type(self).model_fields[name].get_default()}
        data: dict[str, Any] = handler(self)
        return {key: value for key, value in data.items() if key not in unsaid}

    def on(self, device: str, model: str, weights: str) -> Runtime:
        """The runtime as calibrated for one model on one device: floors of its generation, the residual with its evidence.

        ``weights``: the dtype that most parameters are multiplied in.

        Without a calibration the runtime itself. Folding a folded runtime again changes nothing.
        """
        found = self.calibrated
        if found is None or not found.spread:
            return self
        generation, correction = found.generation_of(device), found.correction_of(device, model, weights)
        scale = generation.floors if generation else 1.0
        evidence = found.evidence(device, model, weights)
        spread = found.spread[evidence]
        value = correction.value if correction else 1.0
        residual = Figure(
            value=value,
            low=value * spread.low,
            high=value * spread.high,
            source=found.calibration,
            as_of=found.as_of,
            grade="B" if correction else "C",
            note=f"measured over predicted time of {spread.rows} points that were left out; evidence: {evidence}",
        )
        floors = {name: figure.model_copy(update={"value": figure.value * scale}) for name, figure in self.floors}
        matrix = found.matrix.model_copy(update={"value": found.matrix.value * scale})
        done = found.model_copy(update={"matrix": matrix, "spread": {}, "folded": evidence})
        return self.model_copy(update={"floors": Floors(**floors), "residual": residual, "calibrated": done})

    def stock_prefill_tokens(self, device_bytes: float, attention_dp: int = 1) -> int | None:
        """The chunk per attention rank of a deployment that asks for none, on devices of that memory; ``None``: prompts run whole
        or nothing is known."""
        found = [step.tokens for step in self.default_prefill_tokens if step.from_memory <= device_bytes]
        if not found:
            return None
        return max(1, found[-1] // attention_dp) if self.default_prefill_shared else found[-1]

    @field_validator("sources")
    @classmethod
    def _of_fields(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            if name not in cls.model_fields:
                raise ValueError(f"{name[:64]} is no field of a runtime{_hint(name)}")
        return sources

    @model_validator(mode="after")
    def _consistent(self) -> Runtime:
        imbalance: Figure = self.imbalance
        if imbalance.lowest < 1.0:
            raise ValueError("imbalance: the slowest rank is at least the mean; write 1 or more")
        if self.issue is not None and self.calibrated is None:
            _refuse_faster_than_replayed(self.issue, self.floors)
        if (self.memory_fraction is None) != (self.memory_fraction_of is None):
            raise ValueError("memory_fraction and memory_fraction_of go together")
        if not self.parallel or len(set(self.parallel)) < len(self.parallel):
            raise ValueError("parallel: one or more ways, each once")
        steps = [step.from_memory for step in self.default_prefill_tokens]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError("default_prefill_tokens: from_memory of each row is above that of the row before")
        for name, share in (("memory_fraction", self.memory_fraction), ("single_stream", self.single_stream)):
            if share is not None and share.highest > 1.0:
                raise ValueError(f"{name}: a share is at most 1")
        fragmentation: Figure = self.reserve.fragmentation
        if fragmentation.highest >= 1.0:
            raise ValueError("reserve.fragmentation: less than all of the memory is lost")
        for name, values in (("batch_buckets", self.batch_buckets), ("prefill_tokens", self.prefill_tokens)):
            if values[0] < 1 or any(later <= earlier for earlier, later in pairwise(values)):
                raise ValueError(f"{name}: whole numbers from 1 upwards, each above the one before")
        return self


_OWN = ("schema", "id", "name", "version", "as_of")
"""Keys of a file that an heir never takes over."""
_OPTIONAL = (
    "version",
    "computes",
    "window_caches",
    "parallel",
    "default_prefill_tokens",
    "default_prefill_shared",
    "admission",
    "memory_fraction",
    "memory_fraction_of",
    "offload",
    "cpu",
    "issue",
    "single_stream",
    "sources",
    "waits_for_ranks",
    "calibrated",
)


def _refuse_faster_than_replayed(issue: Issue, floors: Floors) -> None:
    """``ValueError`` where issuing a block's kernels takes less than replaying them does: value by value, and end by end."""
    for kind in ("attention", "mlp", "moe"):
        one, floor = getattr(issue, kind), getattr(floors, kind)
        if one.lowest < floor.lowest or one.value < floor.value or one.highest < floor.highest:
            least = readable(floor.value, "s", floor.lowest, floor.highest)
            raise ValueError(f"issue.{kind}: issuing kernels one by one is no faster than replaying them; write {least} or more")


def _hint(name: str) -> str:
    near = nearest(name[:64], list(Runtime.model_fields), 1)
    return f"; {near}" if near.startswith("did") else ""


FOLDER = Path(__file__).parent / "catalogue"
RUNTIMES: Catalogue[Runtime] = Catalogue("planner.runtimes", Runtime, "runtime")
