"""Everything a plan depends on, resolved: a plan embeds it, so that it can be recomputed anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture import FORMATS, Block, Model, convert
from planner.economics import owned_hour
from planner.errors import InputError, nearest
from planner.footprint import ModelPieces, cut
from planner.hardware import HardwareSelection, System
from planner.performance import Rates, resolve_rates
from planner.performance.serving import tokens_per_step
from planner.prices import OwnedPrices
from planner.runtimes import Runtime
from planner.workload import Workload

Objective = Literal["cost", "throughput", "latency"]
Allocation = Literal["miss_only", "all_input", "flops"]
WEIGHT_FORMATS = {"bf16": "bf16", "fp8": "fp8_block128", "int8": "int8_channel", "fp4": "nvfp4", "int4": "int4_g32"}
_Positive = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]


class Options(BaseModel):
    """What the user asked for beside model, hardware and workload; ``None`` = not limited, or the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: Objective = "cost"
    devices: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    tiers: tuple[str, ...] | None = None
    weight_dtype: str | None = None
    kv_dtype: str = "bf16"
    mtp: Annotated[int, Field(ge=0, le=8)] = 0
    concurrency: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    price_basis: Literal["owned"] = "owned"
    utilisation: Annotated[float, Field(gt=0, le=1)] | None = None
    max_power_kw: _Positive | None = None
    max_usd_per_hour: _Positive | None = None
    allocation: Allocation = "miss_only"
    gap: Annotated[float, Field(ge=0, le=1)] = 0.005


class Inputs(BaseModel):
    """The resolved inputs. ``hardware`` has either the key ``mixed`` (any phase) or ``prefill`` and ``decode``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Model
    hardware: dict[str, HardwareSelection]
    workload: Workload
    runtime: Runtime
    prices: OwnedPrices
    options: Options

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

    @property
    def system(self) -> System:
        """The system of this pool."""
        return self.selection.system

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
    """All constants of a planning problem."""

    inputs: Inputs
    pools: dict[str, PoolContext] = field(default_factory=dict)

    def pool(self, phase: str) -> PoolContext:
        """The pool context that runs ``phase``."""
        return self.pools.get(phase) or self.pools["mixed"]

    @property
    def separate(self) -> bool:
        """Prefill and decode run on hardware of their own."""
        return "mixed" not in self.pools

    @cached_property
    def utilisation(self) -> float:
        """Share of the hours in which the load is served."""
        asked = self.inputs.options.utilisation
        return self.inputs.prices.utilisation.value if asked is None else asked


def build_context(inputs: Inputs) -> Context:
    """Resolve dtypes, layouts, rates and prices; ``InputError`` where an option contradicts the hardware or the model."""
    return Context(inputs, {phase: _pool(inputs, selection) for phase, selection in inputs.hardware.items()})


def _pool(inputs: Inputs, selection: HardwareSelection) -> PoolContext:
    system, runtime, options = selection.system, inputs.runtime, inputs.options
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
    if options.kv_dtype not in runtime.kv_layouts:
        raise InputError(
            f"runtime {runtime.id} has no cache layout for {options.kv_dtype[:64]!r}",
            where="--kv-dtype",
            mend=nearest(options.kv_dtype[:64], list(runtime.kv_layouts)),
        )
    if options.mtp and model.speculation is None:
        raise InputError(f"model {model.id} has no draft module", where="--mtp", mend="use --mtp 0")
    pieces = cut(model, conversions, runtime.kv_layouts[options.kv_dtype], options.mtp, inputs.workload.acceptance)
    rates = resolve_rates(system, runtime)
    return PoolContext(
        inputs,
        selection,
        rates,
        pieces,
        _allowed_tiers(inputs, rates, system.id),
        conversions,
        system_hour(system, inputs.prices, system.capex.value),
        tokens_per_step(pieces.acceptance),
    )


def system_hour(system: System, prices: OwnedPrices, capex_usd: float) -> float:
    """USD per hour of one system at these prices and this capital cost."""
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
    ).total


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
