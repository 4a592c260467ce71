"""Which figures of the hardware a plan rests on: what nobody has published stops the plan only where it is needed.

Needed are: the device memory's size and rate; the memories below it that options and runtime allow, with every link and
memory on their way; the peaks of the dtypes that the model computes in; the domains that the devices at hand reach across
(and the outermost where caches move between two pools); the power, of which every plan prints the cost.
"""

from __future__ import annotations

from planner.errors import InputError
from planner.hardware import figures_of
from planner.hardware.schema import DIMENSIONS
from planner.performance import attention_dtype
from planner.plans.context import Context, PoolContext, build_context
from planner.plans.inputs import Inputs
from planner.plans.space import affordable_units
from planner.quantities import Figure, readable

FEW = 3
"""So many missing figures are named with their reasons, and each with its setting."""


def needed_figures(pool: PoolContext, *, handoff: bool) -> set[str]:
    """Addresses (``figures_of``) of the figures that a plan with this pool rests on.

    ``handoff``: caches arrive from another pool.
    """
    system, device = pool.system, pool.system.device.id
    links = {link.id for link in system.links}
    routed = any(block.routed for window in (*pool.pieces.windows, *pool.pieces.draft) for block in window.blocks)
    unused: dict[str, set[str]] = {f"{device}.memory.{pool.rates.memory_id}": {"write", "latency"}}
    """What a plan does not use of each part that it uses."""
    for tier in system.tiers:
        if tier.id in pool.tiers:
            for step in (tier.id, *tier.via):
                unused[f"{system.id}.{'link' if step in links else 'tier'}.{step}"] = set()
    devices = affordable_units(pool) * pool.unit_devices
    if pool.inputs.options.devices is not None:
        devices = min(devices, pool.inputs.options.devices)
    inner = 1
    for domain in system.domains:
        if devices > inner or (handoff and domain is system.domains[-1]):
            unused[f"{system.id}.domain.{domain.id}"] = set() if routed else {"alltoall_efficiency", "alltoall_startup"}
        inner = domain.devices or inner
    found = {f"{system.id}.power", *(f"{device}.compute.{dtype}.peak" for dtype in compute_dtypes(pool))}
    for address, _ in figures_of(system):
        part, _, key = address.rpartition(".")
        if part in unused and key not in unused[part]:
            found.add(address)
    return found


def compute_dtypes(pool: PoolContext) -> set[str]:
    """The dtypes of the device that the model's products and attention run in."""
    peaks = pool.rates.peak
    found: set[str] = set()
    for window in (*pool.pieces.windows, *pool.pieces.draft):
        for block in window.blocks:
            stored = [gemm.dtype for gemm in block.gemms] + ([block.routed.dtype] if block.routed else [])
            found |= {dtype if dtype in peaks else "bf16" for dtype in stored}
            found |= {attention_dtype(term.dtype, peaks) for term in block.flops}
    own = pool.system.device.compute
    return {next((name for name in (dtype, "fp16", "fp32") if name in own), dtype) for dtype in found}


def unknown_needs(context: Context) -> dict[str, Figure]:
    """What planning needs and nobody has published, by address."""
    missing: dict[str, Figure] = {}
    for phase, pool in context.pools.items():
        unknown = {address: figure for address, figure in figures_of(pool.system) if not figure.known}
        if unknown:
            needed = needed_figures(pool, handoff=phase == "decode")
            missing |= {address: figure for address, figure in unknown.items() if address in needed}
    return missing


def refuse_unknown(inputs: Inputs) -> None:
    """``InputError`` with the name of each figure that planning needs and nobody has published, and how to give it."""
    if all(figure.known for selection in inputs.hardware.values() for _, figure in figures_of(selection.system)):
        return
    contexts = [build_context(inputs, variant) for variant in inputs.variants]
    context = contexts[0]
    missing = {address: figure for each in contexts for address, figure in unknown_needs(each).items()}
    if not missing:
        return
    few = len(missing) <= FEW
    named = ", ".join(f"{name} ({_why(figure, name)})" if few else name for name, figure in missing.items())
    stated = [name for name, figure in missing.items() if figure.has_default]
    shown = missing if few else {name: missing[name] for name in (*stated, *missing)[:1]}
    gifts = " ".join(f"--set {name}={'default' if name in stated else 'VALUE'}" for name in shown)
    if not few:
        named = f"{len(missing)} figures: {named}"
        gifts = f"each in the profile or as in {gifts}"
    accept = " (default accepts the one that the profile states)" if stated else ""
    kinds = sorted({pool.rates.memory_kind for pool in context.pools.values()})
    leave = {f"{p.system.id}.{part}." for p in context.pools.values() for part in ("tier", "link")}
    avoid = f", or leave those memories out with --tiers {','.join(kinds)}" if all(_below(n, leave) for n in missing) else ""
    raise InputError(f"not known: {named}", where="hardware", mend=f"give {gifts}{accept}{avoid}")


def _why(figure: Figure, address: str) -> str:
    """Why it is not known, and the default that could be accepted."""
    if not figure.has_default:
        return figure.reason
    value = readable(figure.value, DIMENSIONS[address.rpartition(".")[2]], figure.lowest, figure.highest)
    return f"default {value}; {figure.reason}"


def _below(address: str, parts: set[str]) -> bool:
    return any(address.startswith(part) for part in parts)
