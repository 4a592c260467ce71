"""What a prefix cache is worth, point by point of its hit-rate curve, in one memory.

A load of r requests/s with I input and O output tokens each, and a point of the curve that keeps x tokens for every request a
second and finds the share h of the input. In an hour it

- saves ``3600 r I h`` tokens of prefill at R USD a million, less the energy of bringing them back,
- takes ``x r`` tokens of room, and electricity while they lie there,
- writes what was not found and what was generated, ``3600 r (I (1 - h) + O)`` tokens; the drive is charged once, by the larger of
  room and wear (``planner.economics.wear``).

All of it rises with r alike, so whether a point pays does not depend on the load. The memory holds the whole cache alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planner.economics.wear import drive_usd_per_gb

HOUR_S = 3600.0


@dataclass(frozen=True)
class Keeping:
    """USD for a million tokens of cache: room and electricity an hour, a write, a reload."""

    room_per_hour: float
    standing_per_hour: float
    write: float
    reload: float


@dataclass(frozen=True)
class Worth:
    """A point at a load: tokens in the cache, share found, and USD an hour."""

    tokens: float
    hit: float
    keep_usd_per_hour: float
    reload_usd_per_hour: float
    saved_usd_per_hour: float

    @property
    def net_usd_per_hour(self) -> float:
        """What is left of what it saves."""
        return self.saved_usd_per_hour - self.reload_usd_per_hour - self.keep_usd_per_hour


def worth_of_points(
    points: Sequence[tuple[float, float]],
    keeping: Keeping,
    *,
    requests_per_s: float,
    input_tokens: float,
    output_tokens: float,
    recompute_usd_per_mtok: float,
) -> list[Worth]:
    """Each point ``(tokens kept for every request a second, share of input tokens found)`` at that load."""
    found = []
    hourly = HOUR_S * requests_per_s / 1e6
    for kept, hit in points:
        tokens = kept * requests_per_s
        written = hourly * (input_tokens * (1.0 - hit) + output_tokens) if kept else 0.0
        # room and wear of the whole cache are those of one entry kept for an hour, in other amounts
        drive = drive_usd_per_gb(1.0, tokens / 1e6 * keeping.room_per_hour, written * keeping.write)
        keep = drive + tokens / 1e6 * keeping.standing_per_hour
        hits = hourly * input_tokens * hit
        found.append(Worth(tokens, hit, keep, hits * keeping.reload, hits * recompute_usd_per_mtok))
    return found


def best_point(points: Sequence[Worth]) -> int:
    """The point that leaves most, the smaller of two alike."""
    return max(range(len(points)), key=lambda at: (points[at].net_usd_per_hour, -at))
