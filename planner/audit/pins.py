"""What launch flags fix, as pins and settings of a plan that name the flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from planner.audit.axes import FLAGS
from planner.audit.configuration import PoolSetup, Setup
from planner.errors import InputError
from planner.export import EnginePool, engine_deployment
from planner.footprint.pieces import item_names
from planner.plans.constraints import Constraint
from planner.plans.context import build_context
from planner.plans.inputs import Inputs
from planner.plans.prefix import ITEM
from planner.plans.schema import Plan

ROUNDING = 0.001
"""Memory shares are written in thousandths."""


@dataclass(frozen=True)
class Pin:
    """Something that flags fix; ``key``: the axis, with its pool."""

    key: str
    rule: str
    flags: str


def counted_instances(setup: Setup, asked: Mapping[str, int] | None) -> dict[str, int]:
    """Instances by pool where they are known: asked for, or from several lines of a kind."""
    phases = {pool.phase for pool in setup.pools}
    if asked is not None:
        if set(asked) != phases:
            wanted = ",".join(f"{phase}=N" for phase in sorted(phases, reverse=True)) if len(phases) > 1 else "N"
            raise InputError("does not fit the pools that are given", where="--instances", mend=f"write {wanted}")
        return {pool.phase: asked[pool.phase] for pool in setup.pools}
    counts: dict[str, int] = {pool.phase: pool.given.instances * pool.replicas for pool in setup.pools}
    return counts if max(counts.values()) > 1 else {}


def pins_of(setup: Setup, base: Inputs, counted: Mapping[str, int]) -> tuple[tuple[Pin, ...], tuple[Constraint, ...]]:
    """What the flags fix, and what the engine fixes whatever the flags are."""
    apart = len(setup.pools) > 1
    pins = [Pin("serving", f"serving={'disaggregated' if apart else 'aggregated'}", "pools of the launch lines")]
    for pool in setup.pools:
        before = f"{pool.phase}." if apart else ""
        values = {
            "tp": pool.tp,
            "pp": pool.pp,
            "attention_dp": pool.attention_dp,
            "ep": pool.ep,
            "context_parallel": pool.context_parallel,
        }
        for axis, value in values.items():
            pins.append(Pin(f"{pool.phase}.{axis}", f"{before}{axis}={value}", _flags(setup, pool, axis)))
        if pool.batch is not None and pool.batch < base.runtime.max_sequences_per_rank:
            rule = f"{before}batch_per_rank<={pool.batch}"
            pins.append(Pin(f"{pool.phase}.batch_per_rank", rule, _flags(setup, pool, "batch_per_rank")))
        if pool.chunk is not None:
            rule = f"{before}prefill_tokens_per_rank={pool.chunk}"
            pins.append(Pin(f"{pool.phase}.prefill_tokens_per_rank", rule, _flags(setup, pool, "prefill_tokens_per_rank")))
        if counted and apart:
            rule = f"{pool.phase}.devices={counted[pool.phase] * pool.devices}"
            pins.append(Pin("instances", rule, f"{pool.phase}: instances of it"))
    context = build_context(base, base.variants[0])
    if counted and not apart and "mixed" in context.pools:
        units = -(-counted["mixed"] * setup.pools[0].devices // context.pools["mixed"].unit_devices)
        pins.append(Pin("instances", f"units>={units}", "instances of the launch line"))
    roles = present_roles(base)
    names = dict.fromkeys(name for pool in context.pools.values() for name in item_names(pool.pieces))
    tables = {
        block.lookups[0].label
        for pool in context.pools.values()
        for window in (*pool.pieces.windows, *pool.pieces.draft)
        if window.first_layer >= 0 and window.first_layer < pool.pieces.layers
        for block in window.blocks
        if block.lookups
    }
    always = []
    within, reach = memory_roles(setup, base, roles)
    for item in (*names, *((ITEM,) if base.workload.prefix_cache else ())):
        able = {"device", *(setup.prefix_below if item == ITEM else ())} & roles
        if item in ("weights", "routed experts") or item in tables:
            able |= {"host"} & roles
        if set(reach) - able:
            places = ",".join(role for role in reach if role in able)
            always.append(Constraint(name=f"{setup.engine} keeps {item} in {places}", sort="pin", rule=f"{item}@{places}"))
        if item in tables and "host" in within:
            pins.append(Pin("offload", f"{item}@{'host' if setup.tables_below else 'device'}", f"where {item} lies"))
        elif item in ("weights", "routed experts") and "host" in within and not setup.weights_below:
            pins.append(Pin("offload", f"{item}@device", f"no offload of {item}"))
    return tuple(pins), tuple(always)


def present_roles(base: Inputs) -> set[str]:
    """Roles of the memories that the hardware has, and of these those that were asked for."""
    asked = base.options.tiers
    tiers = [tier for selection in base.hardware.values() for tier in selection.system.tiers]
    return {tier.role for tier in tiers if asked is None or {tier.id, tier.kind, tier.role} & set(asked)} | {"device"}


def memory_roles(setup: Setup, base: Inputs, roles: set[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Memories that the flags use, and those that the engine can use."""
    used = {"device", *setup.prefix_below, *(("host",) if setup.weights_below or setup.tables_below else ())}
    able = {"device", "host", *setup.prefix_below}
    every = [role for role in ("device", "host", "disk") if role in roles]
    return tuple(role for role in every if role in used), tuple(role for role in every if role in able)


def _flags(setup: Setup, pool: PoolSetup, axis: str) -> str:
    """The flags that fix an axis, as given, or that they are left out."""
    options = pool.given.launch.options
    names = FLAGS[setup.engine][axis]
    main = ("tp-size", "attn-dp-size", "dp-size") if setup.engine == "sglang" and axis in ("tp", "attention_dp") else names
    said = [f"--{name}" if options[name] is True else f"--{name} {options[name]}" for name in main if name in options]
    text = ", ".join(said) or f"no --{names[0]}"
    if not said and axis in pool.assumed:
        text += f": {pool.assumed[axis]}"
    return f"{pool.phase}: {text}" if len(setup.pools) > 1 else text


def host_settings(setup: Setup, base: Inputs) -> tuple[str, ...]:
    """Settings that leave as much host memory as weights may fill."""
    if setup.host_bytes is None or setup.tables_below or setup.prefix_below:
        return ()
    found = {}
    for selection in base.hardware.values():
        for tier in selection.system.tiers:
            size = setup.host_bytes * tier.devices_sharing
            if tier.role == "host" and size < tier.usable.value:
                found[selection.system.id] = f"{selection.system.id}.tier.{tier.id}.usable={size:.0f} B"
    return tuple(found.values())


def memory_settings(setup: Setup, base: Inputs, plan: Plan) -> tuple[str, ...]:
    """Settings that leave as much device memory as the flags do, where that is less than plans take."""
    least: dict[str, tuple[float, str]] = {}
    lost = base.runtime.reserve.fragmentation.value
    for pool in engine_deployment(plan).pools:
        source = next((own for own in setup.pools if own.phase == pool.phase), None)
        if source is None or source.fraction is None:
            continue
        aside = pool.outside_bytes if setup.engine == "vllm" else pool.reserve_bytes
        usable = _usable(source.fraction, pool, aside, lost)
        if usable is None or usable >= least.get(pool.system.id, (float("inf"), ""))[0]:
            continue
        tier = next(tier for tier in pool.system.tiers if tier.role == "device")
        least[pool.system.id] = (usable, f"{pool.system.device.id}.memory.{tier.id}.usable={usable:.0f} B")
    return tuple(setting for _, setting in least.values())


def _usable(fraction: float, pool: EnginePool, aside: float, lost: float) -> float | None:
    """Bytes that a plan may use so that it leaves ``fraction`` of the device to the engine; ``None`` if it does anyway. Of what
    is set aside the part ``lost`` of all bytes shrinks with them."""
    size = pool.device_memory_bytes
    if (fraction + ROUNDING) * size >= size - aside:
        return None
    return float((fraction * size + aside - lost * size) / (1.0 - lost))


def named_apart(rules: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
    """Constraints whose flags are the same get numbers."""
    found: dict[str, Constraint] = {}
    for rule in rules:
        name, number = rule.name, 2
        while name in found:
            name, number = f"{rule.name[:112]} ({number})", number + 1
        found[name] = rule.model_copy(update={"name": name})
    return tuple(found.values())
