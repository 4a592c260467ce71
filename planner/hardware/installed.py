"""How much memory of each kind a system has: what a plan uses of it and what it leaves empty alike."""

from __future__ import annotations

from typing import Literal, get_args

from planner.hardware.schema import System

Memory = Literal["hbm", "gddr", "lpddr", "ddr", "cxl", "hbf", "ssd", "hdd"]
"""Kinds of memory that a system has of its own; what it reaches over a network is not."""
MEMORIES: tuple[str, ...] = get_args(Memory)


def installed_bytes(system: System) -> dict[str, float]:
    """Usable bytes of a whole system by kind of memory."""
    found: dict[str, float] = {}
    for tier in system.tiers:
        if tier.kind in MEMORIES:
            found[tier.kind] = found.get(tier.kind, 0.0) + tier.usable.value * system.devices / tier.devices_sharing
    return found
