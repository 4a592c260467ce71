"""Splits of devices between prefill and decode, and the best rate a side reaches with the devices a split gives it."""

from __future__ import annotations

import numpy as np

from planner.plans.bounds import Charge
from planner.plans.context import Context
from planner.plans.space import Space


def split_table(context: Context, space: Space, charge: Charge) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(prefill devices, decode devices, charge)`` of every split."""
    splits = np.array(space.splits, dtype=float).reshape(-1, 4)
    if context.separate:
        weight = splits[:, 2] * charge.unit_weights["prefill"] + splits[:, 3] * charge.unit_weights["decode"]
    else:
        weight = splits[:, 2] * charge.unit_weights["mixed"]
    return splits[:, 0], splits[:, 1], weight


def merit_of_rates(rate: np.ndarray, weight: np.ndarray, charge: Charge) -> np.ndarray:
    """Requests per second served per charge of every split: all it can, or the demand if it can serve that."""
    if charge.demand is None:
        return np.asarray(rate / weight)
    return np.where(rate >= charge.demand * (1 - 1e-12), charge.demand / weight, 0.0)


def enough_prefill(prefill: list[tuple[int, float, float]], devices: np.ndarray, charge: Charge) -> np.ndarray:
    """Splits whose prefill devices serve the demand, or anything at all."""
    carried = best_rate(prefill, devices, None, charge)
    return np.asarray(carried >= charge.demand * (1 - 1e-12) if charge.demand is not None else carried > 0.0)


def carries(size: np.ndarray | int, rate: np.ndarray | float, devices: np.ndarray | float, charge: Charge) -> np.ndarray:
    """Instances (devices of one, its requests/s) of which so many devices hold enough for the demand, or one.

    More devices never carry less, so what the largest of several counts does not carry, none does.
    """
    held = np.floor(devices / size)
    return np.asarray(held * rate >= charge.demand * (1 - 1e-12) if charge.demand is not None else held >= 1.0)


def undominated(size: np.ndarray, rate: np.ndarray, latency: np.ndarray) -> np.ndarray:
    """Rows that no row of the same size beats in latency (at nine digits) without losing in rate. The others decide neither a
    best rate nor a least latency, under a cap or not, nor a tie."""
    keep = np.zeros(len(size), dtype=bool)
    scale = 10.0 ** (8.0 - np.floor(np.log10(np.maximum(latency, 1e-300))))
    digits = np.where(latency > 0.0, np.round(latency * scale) / scale, 0.0)
    for one in np.unique(size):
        members = np.flatnonzero(size == one)
        members = members[np.argsort(digits[members], kind="stable")]
        most = np.maximum.accumulate(rate[members])
        first = np.searchsorted(digits[members], digits[members], side="left")
        keep[members] = (first == 0) | (rate[members] > most[np.maximum(first - 1, 0)])
    return keep


def sooner(size: np.ndarray, rate: np.ndarray, latency: np.ndarray, at_size: np.ndarray, within: np.ndarray) -> np.ndarray:
    """The highest rate of rows of each size ``at_size`` whose latency is no longer than ``within`` (0 if there is none)."""
    result = np.zeros(len(at_size))
    for one in np.unique(at_size):
        members, asked = np.flatnonzero(size == one), np.flatnonzero(at_size == one)
        members = members[np.argsort(latency[members], kind="stable")]
        most = np.concatenate([[0.0], np.maximum.accumulate(rate[members])])
        result[asked] = most[np.searchsorted(latency[members], within[asked], side="right")]
    return result


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
