"""Everything a plan depends on, resolved: a plan embeds it, so that it can be recomputed anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from planner.architecture import Block, Model
from planner.errors import InputError, nearest
from planner.hardware import HardwareSelection
from planner.plans.constraints import MOST, Constraint, kept
from planner.plans.prefix import points_of
from planner.plans.schema import Experts, FrontPool
from planner.prices import OwnedPrices
from planner.runtimes import Runtime
from planner.workload import Workload

Objective = Literal["cost", "throughput", "latency"]
Allocation = Literal["miss_only", "all_input", "flops"]
PriceBasis = Literal["owned", "tco", "rent_od", "rent_1y", "rent_3y", "rent_spot"]
WEIGHT_FORMATS = {"bf16": "bf16", "fp8": "fp8_block128", "int8": "int8_channel", "fp4": "nvfp4", "int4": "int4_g32"}
_Dtype = Annotated[str, Field(max_length=64)]
_Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]


class Variant(NamedTuple):
    """What holds for every pool of a deployment and changes the model as cut: dtype of the cache, draft tokens a step."""

    kv_dtype: str
    mtp: int
    redundant: int = 0
    """Expert slots of a rank and layer beyond its part of the experts, for copies."""
    prefix: int | None = None
    """The point of the workload's hit-rate curve (0: no prefix cache); ``None`` where it has no curve."""

    @property
    def label(self) -> str:
        """As it is written in names of nodes."""
        point = "" if self.prefix is None else f" prefix{self.prefix}"
        return f"kv-{self.kv_dtype} mtp{self.mtp} redundant{self.redundant}{point}"


class Options(BaseModel):
    """What the user asked for beside model, hardware and workload; ``None`` = not limited, or the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = "cost"
    """Least USD per token, most tokens/s per device paid for, or least time per output token."""
    devices: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """At most this many devices of each kind."""
    tiers: tuple[str, ...] | None = None
    """Memories that may be used, by kind, role or id."""
    weight_dtype: str | None = None
    """Of the layers' matrices: a key of ``WEIGHT_FORMATS``."""
    kv_dtype: Annotated[tuple[_Dtype, ...], Field(min_length=1, max_length=8)] = ("bf16",)
    """The search chooses among these."""
    mtp: Annotated[tuple[Annotated[int, Field(ge=0, le=8)], ...], Field(min_length=1, max_length=9)] = (0,)
    """Draft tokens per step; the search chooses among these."""
    redundant_experts: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(min_length=1, max_length=16)] = (0,)
    """Expert slots of a rank and layer beyond its part of the experts, for copies; the search chooses among these."""
    concurrency: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """At most this many requests in flight."""
    rate: Annotated[float, Field(ge=1e-9, le=1e12, allow_inf_nan=False)] | None = None
    """Requests per second to be served in the hours of service."""
    tokens_per_day: Annotated[float, Field(ge=1, le=1e24, allow_inf_nan=False)] | None = None
    """Input and output tokens to be served in a day."""
    headroom: Annotated[float, Field(ge=1, le=1e3, allow_inf_nan=False)] = 1.0
    """Times the requests/s asked that full batches must serve, so that random arrivals keep the limits; the search finds it."""
    spare: Annotated[int, Field(ge=0, le=1000)] = 0
    spare_of: Literal["node", "unit", "system"] = "node"
    """What ``spare`` counts: nodes, purchasable units or whole systems of each pool, kept idle for when one fails."""
    price_basis: PriceBasis = "owned"
    """``owned`` by ``Inputs.prices``, or rented at the offers of the hardware's profile (``hardware.schema.Rent``)."""
    price_date: date | None = None
    """Rents of this day, or the newest before it; ``None``: the newest known."""
    utilisation: Annotated[float, Field(ge=1e-6, le=1)] | None = None
    """Share of the hours in which the load is served; that of the prices where ``None``."""
    max_power_kw: _Positive | None = None
    """Stated power of all units used."""
    max_usd_per_hour: _Positive | None = None
    """Cost of all units used."""
    allocation: Allocation = "miss_only"
    """Who pays for prefill: computed tokens, all input tokens, or by FLOPs."""
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=MOST)] = ()
    """Pins and bans."""
    gap: Annotated[float, Field(ge=0, le=1)] = 0.005
    """At which a plan counts as proved: ``|objective - bound| / |objective|``."""
    max_move_bytes: Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)] | None = None
    """Most bytes to move where the plan takes over from another."""
    pareto: Annotated[int, Field(ge=2, le=50)] | None = None
    """Points of the front of cost (or throughput) against speed of one user."""
    robust: Literal["intervals", "workloads"] | None = None
    """Plan for the worst case over the intervals of profile and runtime (see ``performance.slow_corner``), or over several
    workloads (see ``plans.robust``)."""
    high_ttft_s: _Positive | None = None
    high_tpot_s: _Positive | None = None
    """Limits on the 90th percentile of the prediction; the search sets limits on the expected value (those of the workload) that
    keep these."""

    @field_validator("kv_dtype", "mtp", "redundant_experts", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value

    @field_validator("kv_dtype", "mtp", "redundant_experts")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("names a value twice")
        return values

    @model_validator(mode="after")
    def _one_demand(self) -> Options:
        if self.rate is not None and self.tokens_per_day is not None:
            raise ValueError("rate and tokens_per_day both say how much to serve: give one")
        if self.headroom > 1.0 and self.rate is None and self.tokens_per_day is None:
            raise ValueError("headroom is of a rate, or tokens_per_day: leave it out")
        return self

    @model_validator(mode="after")
    def _dated_rents(self) -> Options:
        if self.price_date is not None and self.price_basis == "owned":
            raise ValueError("price_date picks among rents: give a rented price basis, or leave out --price-date")
        return self

    @model_validator(mode="after")
    def _one_caution(self) -> Options:
        if self.within_high and self.robust is not None:
            if self.robust == "workloads":
                raise ValueError("slo_on high is not built for a set of workloads: leave out --slo-on high or --robust workloads")
            raise ValueError("robust keeps the limits in the worst case already: leave out --slo-on high")
        if self.within_high and self.pareto is not None:
            raise ValueError("the points of a front have limits of their own: leave out --slo-on high or --pareto")
        return self

    @model_validator(mode="after")
    def _one_worst_case(self) -> Options:
        for name in ("pareto", "concurrency") if self.robust == "workloads" else ():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is not built for a set of workloads: leave out --{name} or --robust workloads")
        return self

    @model_validator(mode="after")
    def _some_variant(self) -> Options:
        if not self.variants:
            asked = f"kv_dtype {', '.join(self.kv_dtype)} and mtp {', '.join(str(n) for n in self.mtp)}"
            raise ValueError(f"constraints leave nothing of {asked}: name more with --kv-dtype or --mtp")
        return self

    @property
    def at_slow_end(self) -> bool:
        """Whether every figure of profile and runtime counts at its slow end."""
        return self.robust == "intervals"

    @property
    def within_high(self) -> bool:
        """Whether limits bind the slow end of the prediction."""
        return self.high_ttft_s is not None or self.high_tpot_s is not None

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every combination of cache dtype, draft length and expert slots that no constraint rules out, in the order asked."""
        chosen = kept(self.constraints, "kv_dtype", self.kv_dtype), kept(self.constraints, "mtp", self.mtp)
        return tuple(Variant(*values) for values in product(*chosen, self.redundant_experts))


class Asked(TypedDict, total=False):
    """The options of ``planner.plan`` as keywords: the fields of ``Options`` that do not follow from others."""

    objective: Objective
    devices: int | None
    tiers: Sequence[str] | None
    weight_dtype: str | None
    kv_dtype: str | Sequence[str]
    mtp: int | Sequence[int] | Literal["auto"]
    redundant_experts: int | Sequence[int]
    concurrency: int | None
    rate: float | None
    tokens_per_day: float | None
    spare: int
    spare_of: Literal["node", "unit", "system"]
    price_basis: PriceBasis
    price_date: date | None
    utilisation: float | None
    max_power_kw: float | None
    max_usd_per_hour: float | None
    allocation: Allocation
    constraints: Sequence[Constraint]
    gap: float
    max_move_bytes: float | None
    pareto: int | None
    robust: Literal["intervals", "workloads"] | None


class Previous(BaseModel):
    """The plan that serves now, as far as one that takes over needs it: of its inputs what differs, and its decision."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Model | None = None
    hardware: dict[str, HardwareSelection] | None = None
    workload: Workload | None = None
    runtime: Runtime | None = None
    options: Options
    units: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000_000)], ...], Field(min_length=1, max_length=2)]
    pools: Annotated[tuple[FrontPool, ...], Field(min_length=1, max_length=2)]
    experts: Annotated[tuple[Experts, ...], Field(max_length=2)] = ()

    def restored(self, now: Inputs) -> Inputs:
        """The inputs of that plan, at the prices of this one."""
        parts = {name: getattr(self, name) for name in ("model", "hardware", "workload", "runtime")}
        changed = {name: part for name, part in parts.items() if part is not None}
        return now.model_copy(update={**changed, "options": self.options, "previous": None})


class Inputs(BaseModel):
    """The resolved inputs. ``hardware`` has either the key ``mixed`` (any phase) or ``prefill`` and ``decode``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Model
    hardware: dict[str, HardwareSelection]
    workload: Workload
    runtime: Runtime
    prices: OwnedPrices
    options: Options
    previous: Previous | None = None
    """The plan to take over from, where there is one."""
    workloads: Annotated[tuple[Workload, ...], Field(max_length=16)] = ()
    """With ``Options.robust`` ``workloads`` those that one deployment serves; ``workload`` is then one of them, the one that
    decides in a plan."""

    @model_validator(mode="after")
    def _several(self) -> Inputs:
        if (self.options.robust == "workloads") != bool(self.workloads):
            raise ValueError("workloads: several go with --robust workloads, and it with several")
        if self.workloads and (len({load.id for load in self.workloads}) < max(len(self.workloads), 2)):
            raise ValueError("workloads: give two or more, each once")
        if self.workloads and self.workload not in self.workloads:
            raise ValueError("workload is none of workloads")
        if any(load.experts != self.workload.experts for load in self.workloads):
            raise ValueError("workloads: must use experts alike, since one placement of them serves all")
        if self.workloads and self.previous is not None:
            raise ValueError("workloads: taking over from a plan is not built for several")
        return self

    @model_validator(mode="after")
    def _one_curve(self) -> Inputs:
        if any(load.prefix_cache is not None for load in self.workloads):
            raise ValueError("workloads: choosing a prefix cache is not built for several; give prefix_hit in its place")
        return self

    @property
    def open_loop(self) -> bool:
        """Requests come at random at a rate; else clients send one when theirs is done."""
        return self.options.rate is not None or self.options.tokens_per_day is not None

    @property
    def auto(self) -> bool:
        """Some hardware is to be counted by the planner."""
        return any(selection.auto for selection in self.hardware.values())

    @property
    def cap(self) -> int | None:
        """Most requests in flight; where hardware is sized for that many, they are a demand and no cap."""
        return None if self.auto else self.options.concurrency

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Those of the options, each with every point of the workload's hit-rate curve."""
        points = points_of(self.workload)
        return tuple(variant._replace(prefix=point) for variant in self.options.variants for point in points)

    @model_validator(mode="after")
    def _pools(self) -> Inputs:
        if set(self.hardware) not in ({"mixed"}, {"prefill", "decode"}):
            raise ValueError("hardware: give one system for all phases, or prefill=… and decode=…")
        return self


def with_weight_dtype(model: Model, dtype: str | None) -> Model:
    """The model with the matrices of its layers stored in another format; embeddings, head and vectors stay."""
    if dtype is None:
        return model
    if dtype not in WEIGHT_FORMATS:
        raise InputError(
            f"unknown weight dtype {dtype[:64]!r}", where="--weight-dtype", mend=nearest(dtype[:64], list(WEIGHT_FORMATS))
        )
    target = WEIGHT_FORMATS[dtype]

    def changed(block: Block) -> Block:
        if block.kind in ("embedding", "head"):
            return block
        groups = []
        for group in block.weights:
            if group.access == "lookup" or group.shares:
                groups.append(group)
                continue
            tensors = tuple(t.model_copy(update={"format": target}) if len(t.shape) > 1 else t for t in group.tensors)
            groups.append(group.model_copy(update={"tensors": tensors}))
        return block.model_copy(update={"weights": tuple(groups)})

    return model.model_copy(update={"blocks": tuple(changed(block) for block in model.blocks)})
