"""Limits on times: of the mean, as 2s, or of a percentile of traffic, as 2s@p95."""

from __future__ import annotations

import re
from typing import Any

import click

from planner.cli.common import TIME, Time


class AtPercentile(float):
    """Seconds that a percentile of requests must not exceed."""

    percentile: float

    def __new__(cls, seconds: float, percentile: float) -> AtPercentile:
        """A limit at a percentile above 0 and below 100."""
        made = super().__new__(cls, seconds)
        made.percentile = percentile
        return made


class TrafficTime(Time):
    """A limit on a mean; for ``planner plan`` also on a percentile."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse or fail with one line."""
        if isinstance(value, AtPercentile):
            return value
        if isinstance(value, str) and "@" in value and ctx is not None and ctx.info_name == "plan":
            return at_percentile(self, value, param, ctx)
        return super().convert(value, param, ctx)


def at_percentile(kind: click.ParamType[Any], value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
    """``2s@p95`` or ``2s@mean``."""
    time, _, name = value.partition("@")
    seconds = TIME.convert(time, param, ctx)
    if name == "mean":
        return seconds
    if not re.fullmatch(r"p\d{1,2}(\.\d{1,3})?", name, re.ASCII) or float(name[1:]) <= 0.0:
        kind.fail(f"{value[:64]!r} has no percentile that is known; write 2s@p95, or 2s for the mean", param, ctx)
    return AtPercentile(seconds, float(name[1:]))


TRAFFIC_TIME = TrafficTime("s", "ms", "time", 1e-12, 1e9)
