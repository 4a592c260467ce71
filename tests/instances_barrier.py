"""Instances of whole experts over memories, devices and barriers, at rates and sizes of the catalogue."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.architecture import load_model
from planner.footprint import cut
from planner.hardware import load_hardware
from planner.performance import resolve_rates
from planner.plans.barrier_bound import BarrierProblem, expert_barrier
from planner.runtimes import load_runtime

Array = NDArray[np.float64]


def popularity(layers: int, experts: int, active: float, exponent: float, seed: int = 0) -> Array:
    """``(layers, experts)`` chances that a token picks an expert, rows summing to ``active``.

    Zipf with a lognormal factor (sigma 0.1) per expert, so that no two layers are alike, in a shuffled order; at most 1.
    """
    random = np.random.default_rng(seed)
    weight = np.arange(1.0, experts + 1) ** -exponent * np.exp(0.1 * random.standard_normal((layers, experts)))
    weight = random.permuted(weight, axis=1)
    chance = np.zeros_like(weight)
    for _ in range(50):
        free = chance < 1.0
        left = active - np.where(free, 0.0, 1.0).sum(axis=1, keepdims=True)
        chance = np.where(free, weight * left / np.where(free, weight, 0.0).sum(axis=1, keepdims=True), 1.0)
        if chance.max() <= 1.0:
            return chance
        chance = np.minimum(chance, 1.0)
    return chance


def replicated(chance: Array, slots: int) -> Array:
    """``(layers, slots)`` chances of pieces: each further replica goes to the expert with the largest share per replica."""
    copies = np.ones_like(chance)
    rows = np.arange(len(chance))
    for _ in range(slots - chance.shape[1]):
        copies[rows, np.argmax(chance / copies, axis=1)] += 1.0
    return np.stack([np.repeat(row / count, count.astype(int)) for row, count in zip(chance, copies, strict=True)])


def catalogue_instance(
    model: str,
    hardware: str,
    devices: int,
    hbm: float,
    exponent: float,
    tokens_per_device: int,
    mode: Literal["prefetch", "gated"],
    pieces: int | None = None,
    seed: int = 0,
) -> BarrierProblem:
    """The routed experts of a model on ``devices`` devices whose slots hold the share ``hbm`` of all pieces."""
    runtime = load_runtime("generic")
    rates = resolve_rates(load_hardware(hardware).system, runtime)
    found = cut(load_model(model), {}, runtime.kv_layouts["bf16"], 0, ())
    layers = sum(w.layers for w in found.windows for block in w.blocks if block.routed)
    routed = next(block.routed for w in found.windows for block in w.blocks if block.routed)
    chance = popularity(layers, routed.experts, routed.active, exponent, seed)
    if pieces is not None:
        chance = replicated(chance, pieces)
    tokens = tokens_per_device * devices
    rows = chance * tokens
    flop_s = 2.0 * routed.member_parameters * rows / rates.gemm_flop_per_s(routed.dtype, rows, "routed")
    host = next(tier for tier in rates.tiers if tier.role == "host")
    slots = int(hbm * chance.size / devices)
    return expert_barrier(
        chance, tokens, routed.member_bytes, flop_s, rates.memory_bytes_per_s, host.bytes_per_s, mode, devices, slots
    )
