"""Energy of moving bytes from a memory tier, per byte and per token.

A bit read from a tier costs that tier's energy; on its way to a kernel it is written to device memory and read from there:
``from_tier + write + read`` of device memory, or the read alone where it lies there already (as counted by arXiv 2508.06978).
"""

from __future__ import annotations

JOULES_PER_KWH = 3.6e6


def joules_per_byte(*joules_per_bit: float) -> float:
    """Energy of a byte that passes through every one of the steps."""
    return 8.0 * sum(joules_per_bit)


def joules_per_token(bytes_per_pass: float, energy_joules_per_byte: float, tokens_per_pass: float = 1.0) -> float:
    """Energy of the bytes of one pass, shared by the tokens that it computes."""
    return bytes_per_pass * energy_joules_per_byte / tokens_per_pass


def usd_per_mtok(energy_joules_per_token: float, usd_per_kwh: float, pue: float) -> float:
    """Electricity of a million tokens."""
    return energy_joules_per_token * 1e6 / JOULES_PER_KWH * pue * usd_per_kwh
