"""Time of collectives over nested network levels (seconds). Groups are placed densely: inner levels fill first."""

from __future__ import annotations

import numpy as np

from planner.footprint.shapes import Column
from planner.performance.rates import Level

Carried = dict[str, Column]
"""Bytes that each device sends over a level, and receives, by the level's id."""


def all_reduce(group: Column, payload_bytes: Column, levels: tuple[Level, ...], carried: Carried | None = None) -> Column:
    """Hierarchical all-reduce of ``payload_bytes`` per device over ``group`` devices.

    Reduce-scatter then all-gather moves ``2 (n-1)/n * payload`` per device at each level (Thakur et al. 2005, ring
    bound); the payload of an outer level is the inner level's share, ``payload / n_inner``. Each level takes
    ``startup + bytes / rate``, or where that is less and the level has it, one step in which each device reads the whole
    payload of every other: ``oneshot_startup + (n-1) * payload / rate``. ``carried``: the bytes are added to it, those of the
    steps in either case (one step is for payloads too small to matter to others).
    """
    time = np.zeros_like(group)
    payload, inner = payload_bytes, np.ones_like(group)
    for level in levels:
        members = np.minimum(group, level.devices) / inner
        active = members > 1.0
        rate = level.allreduce * links_share(np.minimum(group, level.devices), level)
        startup = 2.0 * level.latency if level.allreduce_startup is None else level.allreduce_startup
        steps = startup + 2.0 * (members - 1.0) / np.maximum(members, 1.0) * payload / rate
        one_step = level.oneshot_startup + (members - 1.0) * payload / rate
        time = time + np.where(active, np.minimum(steps, one_step), 0.0)
        if carried is not None:
            sent = np.where(active, 2.0 * (members - 1.0) / np.maximum(members, 1.0) * payload, 0.0)
            carried[level.id] = carried.get(level.id, 0.0) + sent
        payload = payload / np.maximum(members, 1.0)
        inner = np.minimum(group, level.devices)
    return time


def all_to_all(
    group: Column,
    tokens: Column,
    bytes_per_copy: float,
    targets_at: list[Column],
    levels: tuple[Level, ...],
    spacing: Column | float = 1.0,
    carried: Carried | None = None,
) -> Column:
    """Dispatch and combine of ``tokens`` tokens a device to experts on ``group`` targets of ``spacing`` devices each.

    At each level a token crosses once per distinct target of that level (``targets_at[i]``), less the share that stays.
    Levels run beside one another (inner forwarding is pipelined behind outer traffic), so the slowest counts; to that come
    two startups. A level's measured startup is that of its whole group, inner levels included; without one latencies add up.
    ``carried``: the bytes are added to it.
    """
    time, startup, inner = np.zeros_like(group), np.zeros_like(group), np.ones_like(group)
    for level, targets in zip(levels, targets_at, strict=True):
        reach = targets_within(group, level, spacing)
        members = reach / inner
        active = members > 1.0
        away = 1.0 - 1.0 / np.maximum(group / inner, 1.0)
        moved = tokens * targets * away * bytes_per_copy
        rate = level.alltoall * links_share(reach * spacing, level)
        time = np.where(active, np.maximum(time, moved / rate), time)
        if carried is not None:
            carried[level.id] = carried.get(level.id, 0.0) + np.where(active, moved, 0.0)
        if level.alltoall_startup is None:
            startup = startup + np.where(active, level.latency, 0.0)
        else:
            startup = np.where(active, np.maximum(startup, level.alltoall_startup), startup)
        inner = reach
    return time + 2.0 * startup


def links_share(devices: Column, level: Level) -> Column:
    """Share of a device's links at the level that a group of so many devices there uses: all of them but on a mesh."""
    if not level.mesh:
        return np.ones_like(devices)
    return np.clip((devices - 1.0) / (level.devices - 1.0), 1.0 / (level.devices - 1.0), 1.0)


def targets_within(group: Column, level: Level, spacing: Column | float) -> Column:
    """Targets of a group that one unit of the level holds: its devices over ``spacing``, at least one, at most all."""
    return np.clip(level.devices / spacing, 1.0, group)


def point_to_point(payload_bytes: Column | float, devices_between: Column, levels: tuple[Level, ...]) -> Column:
    """One message between neighbours ``devices_between`` devices apart: the innermost level that spans them.

    Infinite where no level does.
    """
    time = np.zeros_like(devices_between)
    done = np.zeros(devices_between.shape, dtype=bool)
    for level in levels:
        here = ~done & (devices_between < level.devices)
        startup = level.latency if level.p2p_startup is None else level.p2p_startup
        time = np.where(here, payload_bytes / level.p2p + startup, time)
        done |= here
    return np.where(done, time, np.inf)
