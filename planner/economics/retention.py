"""Keeping a prefix in a memory tier against computing it again.

A million tokens of cache are ``g`` GB (1e9 bytes). Kept for T hours after one write and read back once they cost

    max(c*T, w) + s*T + r,   c = g * USD/GB-hour of the part, w = g * USD/GB written, s = g * standing electricity, r = reload

(``planner.economics.wear`` derives the max) and save R, what computing them costs. The break-even idle time is the T at which
both are equal: the five-minute rule of Gray and Putzolu (SIGMOD 1987) for caches of tokens.
"""

from __future__ import annotations

import math

from planner.economics.owned import HOURS_PER_YEAR, capital_recovery_factor
from planner.economics.wear import drive_usd_per_gb


def kv_gb_per_mtok(bytes_per_token: float) -> float:
    """GB of cache for a million tokens."""
    return bytes_per_token * 1e6 / 1e9


def life_usd_per_gb(usd_per_gb: float, life_years: float, cost_of_capital: float) -> float:
    """What a GB of capacity costs until the end of its life, interest included: the price itself where capital is free."""
    return usd_per_gb * capital_recovery_factor(cost_of_capital, life_years) * life_years


def usd_per_gb_hour(usd_per_gb: float, life_years: float, cost_of_capital: float) -> float:
    """Capital cost of a GB of capacity for an hour of its life."""
    return life_usd_per_gb(usd_per_gb, life_years, cost_of_capital) / (life_years * HOURS_PER_YEAR)


def electricity_usd_per_gb_hour(watts_per_gb: float, usd_per_kwh: float, pue: float) -> float:
    """Electricity of a GB that is powered for an hour."""
    return watts_per_gb / 1000.0 * pue * usd_per_kwh


def keep_usd_per_mtok(hours: float, *, room_usd_per_hour: float, write_usd: float, standing_usd_per_hour: float = 0.0) -> float:
    """USD to write a million tokens once and keep them for ``hours``; all inputs per million tokens."""
    return drive_usd_per_gb(hours, room_usd_per_hour, write_usd) + hours * standing_usd_per_hour


def break_even_idle_hours(
    *, recompute_usd: float, reload_usd: float, room_usd_per_hour: float, write_usd: float, standing_usd_per_hour: float = 0.0
) -> float:
    """Longest time between a write and its one read for which keeping is not dearer than computing; 0 where it never pays.

    Solves ``max(c*T, w) + s*T = A`` with A = R - r. The left side rises in T from w, so: 0 if A < w; ``A / (c+s)`` if the room
    outweighs the wear there; else ``(A-w) / s`` (with s = 0 the wear line is left at T = w/c <= A/c, the case before).
    """
    saved = recompute_usd - reload_usd
    if saved < write_usd or saved <= 0.0:
        return 0.0
    hourly = room_usd_per_hour + standing_usd_per_hour
    if hourly == 0.0:
        return math.inf
    hours = saved / hourly
    if hours * room_usd_per_hour >= write_usd or standing_usd_per_hour == 0.0:
        return hours
    return (saved - write_usd) / standing_usd_per_hour


def bandwidth_to_outrun(bytes_per_token: float, prefill_tokens_per_s: float) -> float:
    """Bytes/s at which loading a prefix takes as long as computing it.

    Reload takes ``bytes / bandwidth`` a token, prefill ``1 / rate`` (the rate is FLOP/s reached over FLOPs a token).
    """
    return bytes_per_token * prefill_tokens_per_s
