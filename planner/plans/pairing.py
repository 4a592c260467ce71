"""Splits of devices between prefill and decode, and the best rate a side reaches with the devices a split gives it."""

from __future__ import annotations

import numpy as np

from planner.plans.bounds import Charge
from planner.plans.inputs import Context
from planner.plans.space import Space


def split_table(context: Context, space: Space, charge: Charge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(prefill devices, decode devices, charge)`` of every split."""
    splits = np.array(space.splits, dtype=float).reshape(-1, 4)
    if context.separate:
        weight = splits[:, 2] * charge.unit_weights["prefill"] + splits[:, 3] * charge.unit_weights["decode"]
    else:
        weight = splits[:, 2] * charge.unit_weights["mixed"]
    return splits[:, 0], splits[:, 1], weight


def best_rate(rows: list[tuple[int, float, float]], devices: np.ndarray, cap: int | None, charge: Charge) -> np.ndarray:
    """Most requests per second of a side for each count of devices.

    ``rows`` = (instance devices, requests/s, TPOT). Under a concurrency cap a decode side also serves no more than
    ``cap / (TTFT limit + (n-1) TPOT)`` (Little's law, with TTFT at its limit; 0 where there is none, which only bounds).
    """
    result = np.zeros_like(devices)
    if cap is None:
        table: dict[int, float] = {}
        for size, rate, _ in rows:
            table[size] = max(table.get(size, 0.0), rate)
        for size, rate in table.items():
            result = np.maximum(result, np.floor(devices / size) * rate)
        return result
    by_size: dict[int, list[tuple[float, float]]] = {}
    for size, rate, tpot in rows:
        by_size.setdefault(size, []).append((rate, tpot))
    wait = charge.ttft_s or 0.0
    for size, members in by_size.items():
        rates, tpots = np.array([m[0] for m in members]), np.array([m[1] for m in members])
        most = cap / (wait + charge.rounds * tpots)
        replicas = np.floor(devices / size)
        for count in np.unique(replicas[replicas > 0]):
            value = float(np.max(np.minimum(count * rates, most)))
            result = np.where(replicas == count, np.maximum(result, value), result)
    return result
