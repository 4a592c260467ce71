"""What must feed a device for it to compute: balances that a profile's peaks and rates imply, before any model is planned.

All rates are nominal: dense peaks, one-way bandwidths, no efficiency. They say what a machine could at best keep busy; what is
reached is for a plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.hardware.schema import System

BYTES_OF_WEIGHT = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp6": 0.75, "fp4": 0.5, "int4": 0.5}
"""Bytes of a weight as the matrix units read it, without scales."""


def flop_per_byte_hidden(intermediate: int) -> float:
    """Largest peak over one-way bandwidth (FLOP/B) at which the exchange of tokens among experts hides behind them: ``2 d``.

    A token at an expert of intermediate size ``d`` in a model of width ``h`` computes ``6 h d`` FLOPs (gate, up, down) and moves
    ``3 h`` bytes (FP8 dispatch ``h``, BF16 combine ``2 h``), every copy counted: none is saved where two experts of a token lie
    on one rank. Hence ``C / B <= 6 h d / 3 h``; 6,144 FLOP/B for the 3,072 of DeepSeek-V4-Pro (DeepSeek-V4 report, section 3.1).
    """
    return 2.0 * intermediate


def intermediate_hidden(flop_per_s: float, bytes_per_s: float) -> float:
    """Least intermediate size of an expert whose exchange hides behind it: the same, solved for ``d``."""
    return flop_per_s / bytes_per_s / 2.0


def knee_flop_per_byte(flop_per_s: float, bytes_per_s: float) -> float:
    """Operational intensity at which memory stops being what binds (roofline; Williams et al., CACM 2009)."""
    return flop_per_s / bytes_per_s


def knee_tokens(flop_per_s: float, bytes_per_s: float, bytes_of_weight: float) -> float:
    """Tokens that must share a read of weights for it to cost no time: each makes 2 FLOPs of a weight (295 on an H800 in FP8)."""
    return knee_flop_per_byte(flop_per_s, bytes_per_s) * bytes_of_weight / 2.0


@dataclass(frozen=True)
class PrefillPerDecode:
    """Prefill over decode nodes, from ``low`` to ``high``, between which nothing but the storage ports binds."""

    low: float
    high: float

    @property
    def possible(self) -> bool:
        """Whether there is such a ratio at all."""
        return self.low <= self.high


def dualpath_range(
    *, ports: float, storage_ports: float, memory_bytes_per_s: float, storage_bytes_per_s: float
) -> PrefillPerDecode | None:
    """Where caches read from storage through both pools' nodes stay bound by storage alone (DualPath, arXiv 2602.21548).

    ``s / (g - s) <= P / D <= min((g - 2 s) / s, (g - s) / (2 s), (M / B - 3) / 2)`` for ``g`` compute and ``s`` storage ports a
    node of one width, memory of ``M`` and storage of ``B`` bytes/s a node: 1/7 to 7/2 for 8, 1, 500 GB/s and 50 GB/s. ``None``
    where a node has no more compute than storage ports.
    """
    g, s = ports, storage_ports
    if g <= s:
        return None
    low = s / (g - s)
    return PrefillPerDecode(
        low, min((g - 2.0 * s) / s, (g - s) / (2.0 * s), (memory_bytes_per_s / storage_bytes_per_s - 3.0) / 2.0)
    )


@dataclass(frozen=True)
class Knee:
    """Of one dtype on the device's memory: FLOP/B, and tokens that must share a read of weights."""

    dtype: str
    flop_per_byte: float
    tokens: float


@dataclass(frozen=True)
class Exchange:
    """Of one dtype over one network domain: peak over one-way bandwidth (FLOP/B), and the least expert that hides it."""

    domain: str
    dtype: str
    flop_per_byte: float
    intermediate: float


def knees(system: System) -> list[Knee]:
    """Of every dtype of matrix units whose peak is known, on the first memory of the device."""
    memory = next(tier for tier in system.tiers if tier.role == "device")
    if not memory.read.known:
        return []
    rate = memory.read.value
    return [
        Knee(dtype, knee_flop_per_byte(peak, rate), knee_tokens(peak, rate, BYTES_OF_WEIGHT[dtype]))
        for dtype, peak in _peaks(system)
    ]


def exchanges(system: System) -> list[Exchange]:
    """Of every domain whose bandwidth is known, inner to outer, and every dtype of matrix units."""
    return [
        Exchange(domain.id, dtype, peak / domain.bandwidth.value, intermediate_hidden(peak, domain.bandwidth.value))
        for domain in system.domains
        if domain.bandwidth.known
        for dtype, peak in _peaks(system)
    ]


def prefill_per_decode(system: System) -> PrefillPerDecode | None:
    """DualPath's range for nodes of this system with one storage port as wide as a compute port.

    Compute ports are the devices' of the unbounded domain; memory is what the host memory of a node gives to reads. ``None``
    where the profile has no host memory or no such network, does not know their rates, or a node has one port.
    """
    host = next((tier for tier in system.tiers if tier.role == "host"), None)
    network = system.domains[-1] if system.domains else None
    if host is None or network is None or network.devices is not None:
        return None
    if not (host.read.known and host.efficiency.known and network.bandwidth.known):
        return None
    memory = host.rate_per_device * system.devices_per_node
    port = network.bandwidth.value
    return dualpath_range(ports=system.devices_per_node, storage_ports=1, memory_bytes_per_s=memory, storage_bytes_per_s=port)


def _peaks(system: System) -> list[tuple[str, float]]:
    return [(d, part.peak.value) for d, part in system.device.compute.items() if d in BYTES_OF_WEIGHT and part.peak.known]
