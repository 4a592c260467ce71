"""Everything a plan depends on, resolved: a plan embeds it, so that it can be recomputed anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from planner.architecture import FORMATS, Block, Model, convert
from planner.economics import HourlyCost, owned_hour
from planner.errors import InputError, nearest
from planner.footprint import ModelPieces, cut, item_names
from planner.footprint.shapes import widths
from planner.hardware import HardwareSelection, System
from planner.performance import Rates, resolve_rates, slow_corner
from planner.performance.serving import tokens_per_step
from planner.plans.constraints import MOST, Constraint, forbidden_places, homeless, kept
from planner.plans.experts import with_use
from planner.plans.prefix import ITEM, PrefixUse, at_point, points_of, prefix_use
from planner.plans.schema import Experts, FrontPool
from planner.plans.table_use import with_table_use
from planner.prices import OwnedPrices
from planner.runtimes import Runtime
from planner.workload import Workload

Objective = Literal["cost", "throughput", "latency"]
Allocation = Literal["miss_only", "all_input", "flops"]
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
    devices: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    tiers: tuple[str, ...] | None = None
    weight_dtype: str | None = None
    kv_dtype: Annotated[tuple[_Dtype, ...], Field(min_length=1, max_length=8)] = ("bf16",)
    """The search chooses among these."""
    mtp: Annotated[tuple[Annotated[int, Field(ge=0, le=8)], ...], Field(min_length=1, max_length=9)] = (0,)
    """Draft tokens per step; the search chooses among these."""
    redundant_experts: Annotated[tuple[Annotated[int, Field(ge=0, le=64)], ...], Field(min_length=1, max_length=16)] = (0,)
    """Expert slots of a rank and layer beyond its part of the experts, for copies; the search chooses among these."""
    concurrency: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    rate: Annotated[float, Field(ge=1e-9, le=1e12, allow_inf_nan=False)] | None = None
    """Requests per second to be served in the hours of service."""
    tokens_per_day: Annotated[float, Field(ge=1, le=1e24, allow_inf_nan=False)] | None = None
    """Input and output tokens to be served in a day."""
    spare: Annotated[int, Field(ge=0, le=1000)] = 0
    spare_of: Literal["node", "unit", "system"] = "node"
    """What ``spare`` counts: nodes, purchasable units or whole systems of each pool, kept idle for when one fails."""
    price_basis: Literal["owned"] = "owned"
    utilisation: Annotated[float, Field(ge=1e-6, le=1)] | None = None
    max_power_kw: _Positive | None = None
    max_usd_per_hour: _Positive | None = None
    allocation: Allocation = "miss_only"
    constraints: Annotated[tuple[Constraint, ...], Field(max_length=MOST)] = ()
    """Pins and bans."""
    gap: Annotated[float, Field(ge=0, le=1)] = 0.005
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


@dataclass(frozen=True)
class PoolContext:
    """Constants of one pool: the model cut for its device, the device's rates, the memories that may be used."""

    inputs: Inputs
    selection: HardwareSelection
    rates: Rates
    pieces: ModelPieces
    tiers: tuple[str, ...]
    conversions: dict[str, str]
    usd_per_hour: float
    """Of one system (``selection.count`` of them exist)."""
    accept: float
    forbidden: frozenset[tuple[str, str]] = frozenset()
    """``(item, memory)`` that constraints rule out."""
    prefix: PrefixUse | None = None
    """The prefix cache of what prefills here."""

    @property
    def system(self) -> System:
        """The system of this pool."""
        return self.selection.system

    @property
    def displaced(self) -> bool:
        """Constraints keep some item out of device memory, so that no configuration lies there whole."""
        return any(memory == self.rates.memory_id for _, memory in self.forbidden)

    @property
    def spare_devices(self) -> int:
        """Devices kept idle for when one fails."""
        options, system = self.inputs.options, self.system
        sizes = {"node": system.devices_per_node, "unit": system.purchasable_devices, "system": system.devices}
        return options.spare * sizes[options.spare_of]

    @property
    def units(self) -> int:
        """Purchasable units that exist."""
        return self.selection.devices // self.system.purchasable_devices

    @property
    def unit_devices(self) -> int:
        """Devices of the smallest purchasable unit."""
        return self.system.purchasable_devices

    @property
    def usd_per_unit_hour(self) -> float:
        """USD per hour of one purchasable unit."""
        return self.usd_per_hour * self.unit_devices / self.system.devices

    @property
    def watts_per_unit(self) -> float:
        """Stated power of one purchasable unit (W)."""
        return self.system.power.value * self.unit_devices / self.system.devices


@dataclass(frozen=True)
class Context:
    """All constants of a planning problem in one variant."""

    inputs: Inputs
    variant: Variant
    pools: dict[str, PoolContext] = field(default_factory=dict)

    def pool(self, phase: str) -> PoolContext:
        """The pool context that runs ``phase``."""
        return self.pools.get(phase) or self.pools["mixed"]

    @property
    def separate(self) -> bool:
        """Prefill and decode run on hardware of their own."""
        return "mixed" not in self.pools

    @cached_property
    def demand(self) -> float | None:
        """Requests per second that must be served in the hours of service; ``None``: as many as pay.

        Hardware to be sized for N requests in flight must serve what they make at the speed of the service levels,
        ``N / (TTFT + (n-1) TPOT)`` (Little's law).
        """
        options, workload = self.inputs.options, self.inputs.workload
        if options.tokens_per_day is not None:
            tokens = workload.input_tokens.mean + workload.output_tokens.mean
            return options.tokens_per_day / (86400.0 * self.utilisation * tokens)
        if options.rate is None and options.concurrency is not None and self.auto:
            ttft, tpot = options.high_ttft_s or workload.ttft_s, options.high_tpot_s or workload.tpot_s
            if ttft is None or tpot is None:
                return None
            return options.concurrency / (ttft + (workload.output_tokens.mean - 1.0) * tpot)
        return options.rate

    @property
    def auto(self) -> bool:
        """Some hardware is to be counted by the planner."""
        return any(selection.auto for selection in self.inputs.hardware.values())

    @property
    def cap(self) -> int | None:
        """Most requests in flight; where hardware is sized for that many, they are a demand and no cap."""
        return None if self.auto else self.inputs.options.concurrency

    @cached_property
    def utilisation(self) -> float:
        """Share of the hours in which the load is served."""
        asked = self.inputs.options.utilisation
        return self.inputs.prices.utilisation.value if asked is None else asked


def build_context(inputs: Inputs, variant: Variant | None = None) -> Context:
    """Resolve dtypes, layouts, rates and prices of a variant (default the first asked); with ``--robust intervals`` at the slow
    end of every figure.

    ``InputError`` where an option contradicts the hardware or the model.
    """
    chosen = variant or inputs.variants[0]
    if chosen.prefix is not None:
        inputs = inputs.model_copy(update={"workload": at_point(inputs.workload, chosen.prefix)})
    return Context(inputs, chosen, {phase: _pool(inputs, selection, chosen) for phase, selection in inputs.hardware.items()})


def at_variant(context: Context, variant: Variant) -> Context:
    """The same problem in another variant."""
    return context if variant == context.variant else build_context(context.inputs, variant)


def at_value(context: Context) -> Context:
    """The same problem with every figure at its value."""
    if not context.inputs.options.at_slow_end:
        return context
    pools = {}
    for phase, pool in context.pools.items():
        selection = context.inputs.hardware[phase]
        hour = system_hour(selection.system, context.inputs.prices, selection.system.capex.value)
        rates = resolve_rates(selection.system, pool.inputs.runtime)
        pools[phase] = replace(pool, selection=selection, rates=rates, usd_per_hour=hour)
    return replace(context, pools=pools)


def main_dtype(model: Model) -> str:
    """The dtype that most parameters of a model are multiplied in, experts counted whole."""
    found: dict[str, float] = {}
    for block in model.blocks:
        for group in block.weights:
            for tensor in group.tensors:
                dtype = FORMATS[tensor.format].compute_dtype
                found[dtype] = found.get(dtype, 0.0) + float(tensor.parameters) * group.count * block.layers
    return max(sorted(found), key=found.__getitem__)


def _pool(inputs: Inputs, selection: HardwareSelection, variant: Variant) -> PoolContext:
    if inputs.runtime.calibrated:
        weights = main_dtype(with_weight_dtype(inputs.model, inputs.options.weight_dtype))
        runtime = inputs.runtime.on(selection.system.device.id, inputs.model.id, weights)
        inputs = inputs.model_copy(update={"runtime": runtime})
    system, runtime, options = selection.system, inputs.runtime, inputs.options
    if options.at_slow_end:
        system, runtime = slow_corner(system, runtime)
        selection = selection.model_copy(update={"system": system})
    supported = set(system.device.compute)
    model = with_weight_dtype(inputs.model, options.weight_dtype)
    if options.weight_dtype is not None:
        needed = FORMATS[WEIGHT_FORMATS[options.weight_dtype]].compute_dtype
        usable = {name for name, kept in WEIGHT_FORMATS.items() if name in supported or kept in runtime.dequantises}
        if needed not in supported and WEIGHT_FORMATS[options.weight_dtype] not in runtime.dequantises:
            raise InputError(
                f"{system.device.id} does not compute in {needed}",
                where="--weight-dtype",
                mend=f"choose one of {', '.join(sorted(usable))}",
            )
    formats = sorted({t.format for b in model.blocks for g in b.weights for t in g.tensors})
    conversions = {}
    for name in formats:
        target = convert(name, supported, runtime.dequantises)
        if target != name:
            conversions[name] = target
    if variant.kv_dtype not in runtime.kv_layouts:
        raise InputError(
            f"runtime {runtime.id} has no cache layout for {variant.kv_dtype[:64]!r}",
            where="--kv-dtype",
            mend=nearest(variant.kv_dtype[:64], list(runtime.kv_layouts)),
        )
    if variant.mtp and model.speculation is None:
        raise InputError(f"model {model.id} has no draft module", where="--mtp", mend="use --mtp 0")
    layouts, whole = runtime.kv_layouts[variant.kv_dtype], runtime.window_caches == "whole"
    pieces = cut(model, conversions, layouts, variant.mtp, inputs.workload.acceptance, whole)
    pieces = with_use(pieces, inputs.workload.experts, variant.redundant, widths(selection.devices))
    pieces = with_table_use(pieces, inputs.workload.lookups)
    rates = resolve_rates(system, runtime)
    memories = {tier.id: (tier.id, tier.kind, tier.role) for tier in rates.tiers}
    memories[rates.memory_id] = (rates.memory_id, rates.memory_kind, "device")
    elsewhere = {name for s in inputs.hardware.values() for t in s.system.tiers for name in (t.id, t.kind, t.role)}
    names, tiers = item_names(pieces), _allowed_tiers(inputs, rates, system.id)
    prefix, known = prefix_use(inputs.workload, variant.prefix), [*names, ITEM] if inputs.workload.prefix_cache else names
    forbidden = forbidden_places(options.constraints, known, memories, elsewhere)
    if prefix is None:
        forbidden = frozenset(place for place in forbidden if place[0] != ITEM)
    return PoolContext(
        inputs,
        selection,
        rates,
        pieces,
        () if homeless(names if prefix is None else known, (rates.memory_id, *tiers), forbidden) else tiers,
        conversions,
        system_hour(system, inputs.prices, system.capex.value),
        tokens_per_step(pieces.acceptance),
        forbidden,
        prefix,
    )


def system_hour(system: System, prices: OwnedPrices, capex_usd: float) -> float:
    """USD per hour of one system at these prices and this capital cost."""
    return system_cost(system, prices, capex_usd).total


def system_cost(system: System, prices: OwnedPrices, capex_usd: float) -> HourlyCost:
    """The hour of one system by cause."""
    return owned_hour(
        capex_usd=capex_usd,
        power_w=system.power.value,
        cost_of_capital=prices.cost_of_capital.value,
        life_years=prices.life.value,
        residual_value=prices.residual_value.value,
        installation=prices.installation.value,
        maintenance=prices.maintenance.value,
        staff=prices.staff.value,
        usd_per_kwh=prices.electricity.value,
        power_utilisation=prices.power_utilisation.value,
        pue=prices.pue.value,
    )


def _allowed_tiers(inputs: Inputs, rates: Rates, where: str) -> tuple[str, ...]:
    """Ids of the memories below the device's own that options and runtime allow; ``--tiers`` takes kinds, roles or ids."""
    asked = inputs.options.tiers
    if asked is not None:
        own = {rates.memory_id, rates.memory_kind, "device"}
        known = own | {name for tier in rates.tiers for name in (tier.id, tier.kind, tier.role)}
        for name in asked:
            if name not in known:
                raise InputError(
                    f"{where} has no memory {name[:64]!r}", where="--tiers", mend=f"known: {', '.join(sorted(known))}"
                )
        if not own & set(asked):
            raise InputError("leaves out the device's own memory", where="--tiers", mend=f"add {rates.memory_kind}")
    if not inputs.runtime.streaming:
        return ()
    return tuple(t.id for t in rates.tiers if asked is None or {t.id, t.kind, t.role} & set(asked))
