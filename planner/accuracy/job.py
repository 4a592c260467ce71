"""``planner calibrate`` from a file of points to its calibration: what is refused, what is said of rows left out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from planner.accuracy.calibrate import LEAST_ROWS, digest, engine_of
from planner.accuracy.labels import Skip
from planner.accuracy.points import CONTINUOUS, counts_by_reason, read_points
from planner.accuracy.report import calibrate
from planner.accuracy.validation import accepted
from planner.documents import explain_validation
from planner.errors import InputError
from planner.runtimes import RUNTIMES, Calibration

BUILTIN_NAME = "builtin"
BUILTIN_SOURCE = "public InferenceX continuous-benchmark results, Apache-2.0; see planner/accuracy/points/README.md"
BUILTIN_AS_OF = date(2026, 11, 22)
DIGITS = 4
"""Of the numbers of a report."""


@dataclass(frozen=True)
class Job:
    """A calibration, its report with rounded numbers, and the rows that were no points."""

    calibration: Calibration
    report: dict[str, Any]
    skipped: list[tuple[str, Skip]]


def calibrate_file(path: Path, *, name: str | None = None, source: str | None = None, as_of: date | None = None) -> Job:
    """Fit a file of points. Built-in points have a name, source and date of their own; others need a date.

    ``InputError`` where the date is absent, or the file holds too few points of a runtime.
    """
    builtin = path.resolve() == CONTINUOUS.resolve()
    if as_of is None and not builtin:
        raise InputError("has no date", where="--as-of", mend="say when these points were measured, as 2026-11-22")
    points, skipped = read_points(path)
    points, _, refused = accepted(points, RUNTIMES.load)
    skipped = [*skipped, *refused]
    where = path.name
    if not len(points):
        raise InputError("holds no point that can be fitted", where=where, mend="planner validate says why rows are skipped")
    timed = np.isfinite(points.tpot_s)
    counts = Counter(engine_of(name) for name, kept in zip(points.runtime, timed.tolist(), strict=True) if kept)
    for engine in sorted({engine_of(name) for name in points.runtime}):
        if counts[engine] < LEAST_ROWS:
            what = f"has {counts[engine]} points of {engine} with a time per output token, too few to fit its figures"
            raise InputError(what, where=where, mend=f"give {LEAST_ROWS} or more, or leave these out")
    told = f"{where} {digest(path.read_bytes())}"
    try:
        done = calibrate(
            points,
            name=name or (BUILTIN_NAME if builtin else _slug(path.stem)),
            source=source or (BUILTIN_SOURCE if builtin else f"points of {where}"),
            file=told,
            as_of=as_of or BUILTIN_AS_OF,
        )
    except ValidationError as error:
        fault = explain_validation(error, "calibration")
        if fault.what.startswith(("id:", "source:")):
            raise fault from None
        what = f"cannot be fitted: the calibration's {fault.what}"
        raise InputError(
            what, where=where, mend="check the times (seconds) and what was deployed with planner validate"
        ) from None
    report: dict[str, Any] = {"calibration": done.calibration.id, "points": told, "as_of": done.calibration.as_of.isoformat()}
    report |= {"skipped": dict(counts_by_reason(skipped)), **done.report}
    return Job(done.calibration, rounded(report), skipped)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:64] or "points"


def rounded(value: Any) -> Any:
    """JSON data with floats of ``DIGITS`` significant digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
