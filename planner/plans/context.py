"""The constants of a planning problem in one variant: dtypes, layouts, rates and prices, resolved from the inputs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from planner.architecture import FORMATS, Model, convert
from planner.errors import InputError, nearest
from planner.footprint import ModelPieces, cut, item_names
from planner.footprint.shapes import widths
from planner.hardware import HardwareSelection, System
from planner.performance import Rates, resolve_rates, slow_corner
from planner.performance.serving import tokens_per_step
from planner.plans.constraints import forbidden_places, homeless
from planner.plans.experts import with_use
from planner.plans.hours import terms_of
from planner.plans.inputs import WEIGHT_FORMATS, Inputs, Variant, with_weight_dtype
from planner.plans.prefix import ITEM, PrefixUse, at_point, prefix_use
from planner.plans.table_use import with_table_use


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

    @property
    def demand(self) -> float | None:
        """Requests per second that full batches must serve: those asked, with the headroom that random arrivals need."""
        return None if self.asked is None else self.asked * self.inputs.options.headroom

    @property
    def open_loop(self) -> bool:
        """Requests come at random at a rate; else clients send one when theirs is done."""
        return self.inputs.open_loop

    @cached_property
    def asked(self) -> float | None:
        """Requests per second to be served in the hours of service; ``None``: as many as pay.

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
        return self.inputs.auto

    @property
    def cap(self) -> int | None:
        """Most requests in flight; where hardware is sized for that many, they are a demand and no cap."""
        return self.inputs.cap

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
        hour = terms_of(context.inputs).hour(selection.system).total
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
    system, runtime, options, terms = selection.system, inputs.runtime, inputs.options, terms_of(inputs)
    if options.at_slow_end:
        terms = replace(terms, rent_end="high")
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
        terms.hour(system).total,
        tokens_per_step(pieces.acceptance),
        forbidden,
        prefix,
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
