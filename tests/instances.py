"""Tier problems of single items for tests and benchmarks, from the catalogue: experts, dense weights, caches and tables."""

from __future__ import annotations

import numpy as np

from planner.architecture import Model, load_model
from planner.architecture.popularity import zipf
from planner.footprint.memory import cache_bytes_per_sequence
from planner.footprint.pieces import Window, cut
from planner.hardware import System, load_hardware
from planner.performance.rates import Rates, resolve_rates
from planner.plans.item_bound import ItemProblem
from planner.plans.item_memories import EXPOSED, Memory, tiered_problem
from planner.plans.lp import Array
from planner.runtimes import load_runtime

KINDS = ("weights", "experts", "cache", "table")
GATED = (False, True, False, False)
DIVISIBLE = (True, False, True, True)
READ_BYTES = 128 * 1024
"""Bytes of one random read of an expert."""


def popularity(rng: np.random.Generator, experts: int, active: float, exponent: float, jitter: float) -> Array:
    """[experts] probability that one token wakes each expert, in random order; they sum to ``active``, none above 1."""
    shares = zipf(exponent).probabilities(experts) * np.exp(jitter * rng.standard_normal(experts))
    shares = rng.permutation(shares / shares.sum() * active)
    for _ in range(30):
        free = shares < 1.0
        excess = active - np.minimum(shares, 1.0).sum()
        if excess < 1e-12:
            break
        shares = np.where(free, shares * (1.0 + excess / shares[free].sum()), 1.0)
    return np.minimum(shares, 1.0)


def _cache_bytes(window: Window, context: int) -> float:
    return float(sum(cache_bytes_per_sequence(c, context, 64) for block in window.blocks for c in block.caches))


def memories(rates: Rates, devices: int, reserve: float = 0.08) -> list[Memory]:
    """The device's own memory and the tiers below, of ``devices`` devices together."""
    found = [Memory("hbm", rates.memory_bytes * (1 - reserve) * devices, {"hbm": 1.0 / (rates.memory_bytes_per_s * devices)})]
    for tier in rates.tiers:
        per_byte = {name: 1.0 / (rate * devices) for name, rate in tier.resources}
        per_operation = {f"{tier.id} operations": tier.granule / (tier.bytes_per_s * devices)} if tier.granule > 1 else {}
        found.append(Memory(tier.id, tier.capacity * devices, per_byte, per_operation, tier.latency / devices))
    return found


def items(
    model: Model | str = "deepseek-v3",
    system: System | str = "h800-node",
    devices: int = 8,
    batch: int = 256,
    context: int = 6144,
    exponent: float = 0.6,
    jitter: float = 0.3,
    slices: int = 1,
    windows: int = 1,
    layers: int | None = None,
    hbm: float = 1.0,
    seed: int = 0,
) -> ItemProblem:
    """One decode step of ``batch`` sequences on ``devices`` devices together.

    Every layer has an item of dense weights and one of cache, every expert is an item; ``slices`` cuts each into as many, read
    unequally. ``windows`` groups the layers; ``layers`` keeps the first so many of each window of the model; ``hbm`` scales the
    device memory.
    """
    model = load_model(model) if isinstance(model, str) else model
    system = load_hardware(system).system if isinstance(system, str) else system
    rates = resolve_rates(system, load_runtime("generic"))
    rng = np.random.default_rng(seed)
    held: list[Array] = []
    read: list[Array] = []
    kinds: list[Array] = []
    depths: list[Array] = []
    depth = 0
    flops = 0.0
    for window in cut(model, {}, ()).windows:
        for _ in range(min(window.layers, layers or window.layers)):
            for block in window.blocks:
                flops += sum(2.0 * gemm.parameters for gemm in block.gemms)
                parts: list[tuple[int, Array, Array]] = []
                whole = np.array([float(sum(size for _, size, _ in block.static.parts))])
                parts.append((0, whole, whole))
                if block.routed:
                    routed = block.routed
                    flops += 2.0 * routed.active * routed.member_parameters
                    chance = popularity(rng, routed.experts, routed.active, exponent, jitter)
                    size = np.full(routed.experts, float(routed.member_bytes))
                    parts.append((1, size, size * -np.expm1(batch * np.log1p(-np.minimum(chance, 1 - 1e-12)))))
                for table in block.lookups:
                    parts.append((3, np.array([float(table.bytes)]), np.array([batch * table.rows_per_token * table.row_bytes])))
                for kind, size, reads in parts:
                    held.append(size), read.append(reads)
                    kinds.append(np.full(len(size), kind)), depths.append(np.full(len(size), depth))
            cache = batch * _cache_bytes(window, context)
            held.append(np.array([cache])), read.append(np.array([cache]))
            kinds.append(np.array([2])), depths.append(np.array([depth]))
            depth += 1
    bytes_held, bytes_read = np.concatenate(held), np.concatenate(read)
    kind, layer = np.concatenate(kinds), np.concatenate(depths)
    kept = bytes_held > 0
    bytes_held, bytes_read, kind, layer = bytes_held[kept], bytes_read[kept], kind[kept], layer[kept]
    if slices > 1:
        bytes_held, bytes_read = np.repeat(bytes_held, slices) / slices, np.repeat(bytes_read, slices) / slices
        kind, layer = np.repeat(kind, slices), np.repeat(layer, slices)
        bytes_read = np.minimum(bytes_read * np.exp(0.2 * rng.standard_normal(len(bytes_read))), bytes_held)
    window_of = layer * windows // depth
    tiers = memories(rates, devices)
    tiers[0] = Memory("hbm", tiers[0].capacity * hbm, tiers[0].seconds_per_byte)
    compute = flops * batch / float(rates.gemm_flop_per_s("fp8", np.array([float(batch)]), "dense")[0]) / devices
    return tiered_problem(
        bytes_held,
        bytes_read,
        np.ceil(bytes_read / READ_BYTES),
        kind,
        window_of,
        GATED,
        DIVISIBLE,
        tiers,
        {EXPOSED: np.full(windows, compute / windows)},
        np.ones(windows),
    )
