"""What ``planner validate`` answers: scores of points and of published deployments, and a line for every point."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from planner.accuracy.deployment_passes import Engines, catalogue_hardware
from planner.accuracy.deployments import UNITS, load_deployments
from planner.accuracy.labels import Skip
from planner.accuracy.misses import Miss, is_missed, load_misses
from planner.accuracy.points import CONTINUOUS, Points, noise_floor, read_points
from planner.accuracy.predict import Predicted, predict
from planner.accuracy.predict_deployments import Prediction, Unanswered, predict_all
from planner.accuracy.score import errors, score, summary
from planner.documents import parse_json, read_text
from planner.errors import InputError
from planner.quantities import round12
from planner.runtimes import RUNTIMES, load_calibration, load_runtime

FOLDER = CONTINUOUS.parent
SKIPPED = FOLDER / "continuous_skipped.csv"
"""Rows of the public file that are no points, with the reason."""
REPORT = FOLDER / "builtin_report.json"
"""What ``planner calibrate`` reported of the built-in calibration."""
BELOW = ("ddr", "lpddr", "ssd")
"""Memories of rows that count as kept below device memory."""
CLASSES = {"hbm": "accelerator", "gddr": "graphics card", "lpddr": "unified memory", "ddr": "processor"}


@dataclass(frozen=True)
class Validation:
    """Points that were answered, their predictions, and the JSON of the command."""

    points: Points
    found: Predicted
    data: dict[str, Any]


def engines_of(runtime: str | None = None, calibration: Path | None = None) -> Engines:
    """A runtime's id to the runtime: ``runtime`` in place of every one, under another calibration than the built-in one."""
    other = None if calibration is None else load_calibration(calibration)

    def engine(name: str) -> Any:
        chosen = runtime or name
        return load_runtime(chosen) if other is None else other.laid_over(RUNTIMES.load(chosen))

    return cache(engine)


def accepted(points: Points, engines: Engines = load_runtime) -> tuple[Points, Predicted, list[tuple[str, Skip]]]:
    """The points that can be timed with their predictions, and those that a part of them refuses or that cannot run, by id."""
    points, found, refused = _timed(points, engines)
    runs = np.flatnonzero(np.isfinite(found.batch))
    halted = np.flatnonzero(~np.isfinite(found.batch))
    refused += [(points.id[number], "refused") for number in halted.tolist()]
    return points.take(runs), found.take(runs), refused


def _timed(points: Points, engines: Engines) -> tuple[Points, Predicted, list[tuple[str, Skip]]]:
    try:
        return points, predict(points, engines), []
    except InputError:
        pass
    keys = zip(
        points.model, points.hardware, points.runtime, points.weight_dtype, points.kv_dtype, points.pp.tolist(), strict=True
    )
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(key, []).append(number)
    refused: set[int] = set()
    for rows in groups.values():
        try:
            predict(points.take(rows[:1]), engines)
        except InputError:
            refused.update(rows)
    kept = points.take([number for number in range(len(points)) if number not in refused])
    return kept, predict(kept, engines), [(points.id[number], "refused") for number in sorted(refused)]


def validate(path: Path | None, runtime: str | None = None, calibration: Path | None = None) -> Validation:
    """Scores of a file of points; of the built-in ones and the published deployments where ``path`` is ``None``.

    ``InputError`` where the file holds no point at all, or a calibration or runtime cannot be read.
    """
    engines = engines_of(runtime, calibration)
    if runtime is not None:
        engines(runtime)
    points, skipped = read_points(path or CONTINUOUS)
    if path is None:
        skipped = left_away()
    if not len(points) and not skipped:
        raise InputError("holds no row", where=str(path), mend="give a row for every point")
    points, found, refused = accepted(points, engines)
    told = "none" if runtime and engines(runtime).calibrated is None else str(calibration or "builtin")
    data: dict[str, Any] = {"file": (path or CONTINUOUS).name, "runtime": runtime, "calibration": told}
    data |= score(points, found, [*skipped, *refused])
    data["noise_floor"] = [one._asdict() for one in noise_floor(points) if one.pairs]
    if path is None:
        data["deployments"] = score_deployments(*predict_all(load_deployments(), engines))
    return Validation(points, found, data)


def left_away() -> list[tuple[str, Skip]]:
    """Rows of the public file that are none of the built-in points, with reasons."""
    rows = csv.reader(io.StringIO(read_text(SKIPPED)))
    next(rows)
    return [(name, reason) for name, reason in rows]  # type: ignore[misc]


def stored_report() -> dict[str, Any]:
    """The report of the built-in calibration."""
    found = parse_json(read_text(REPORT), REPORT.name)
    assert isinstance(found, dict)
    return found


_COLUMNS = (
    *("id", "mode", "evidence", "tpot_measured_ms", "tpot_ms", "tpot_low_ms", "tpot_high_ms", "tpot_ape"),
    *("ttft_measured_ms", "ttft_ms", "ttft_ape"),
)


def rows_text(validation: Validation, *, json_lines: bool = False) -> str:
    """A line a point, as CSV or as JSON lines; times in ms, errors as fractions, nothing where a time is missing."""
    points, found = validation.points, validation.found
    times = (
        *(1e3 * column for column in (points.tpot_s, found.tpot_s, found.low_s, found.high_s)),
        errors(found.tpot_s, points.tpot_s),
        *(1e3 * column for column in (points.ttft_s, found.ttft_s)),
        errors(found.ttft_s, points.ttft_s),
    )
    cells = [[_cell(value) for value in column.tolist()] for column in times]
    lines = zip(points.id, points.mode, found.evidence, *cells, strict=True)
    if json_lines:
        return "".join(json.dumps(dict(zip(_COLUMNS, line, strict=True)), ensure_ascii=False) + "\n" for line in lines)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(["" if cell is None else cell for cell in line] for line in lines)
    return out.getvalue()


def _cell(value: float) -> float | None:
    return round12(value) if math.isfinite(value) else None


def score_deployments(answered: Sequence[Prediction], unanswered: Sequence[Unanswered]) -> dict[str, Any]:
    """Scores of published deployments that state an absolute figure, by what they have in common; ratios apart; checks.

    ``not_inferencex``: rows of quality A or B that are not of the benchmark that runtimes are fitted to.
    ``below_device_memory``: rows that keep something in DDR, LPDDR or on SSD, by source. ``profile``: a published profile run,
    at balanced experts. ``capacity``: days of production; the prediction at full use must not lie below what was observed,
    and what was observed over it is the utilisation.
    """
    absolute = [one for one in answered if one.row.score == "absolute"]
    quality = [one for one in absolute if one.row.quality in "AB"]
    others = [one for one in quality if not one.row.source_group.startswith("inferencex")]
    low = [one for one in absolute if set(one.memories) & set(BELOW)]
    strata: dict[str, Callable[[Prediction], str]] = {
        "set": lambda one: one.row.set,
        "phase": lambda one: one.row.phase,
        "memories": lambda one: " + ".join(one.memories),
        "hardware": lambda one: one.row.hardware,
        "class": _class_of,
        "quality": lambda one: one.row.quality,
        "source_group": lambda one: one.row.source_group,
    }
    known = load_misses()
    reasons = [one.row.skip or "refused" for one in unanswered]
    return {
        "rows": len(answered) + len(unanswered),
        "answered": len(answered),
        "absolute": _summary(absolute),
        "quality_ab": _summary(quality),
        "not_inferencex": _summary(others),
        "by": {name: _split(absolute, of) for name, of in strata.items()},
        "below_device_memory": _summary(low) | {"by_source": _split(low, strata["source_group"])},
        "ratio": _summary([one for one in answered if one.row.score == "ratio"]),
        "profile": [_row(one) for one in absolute if one.row.source_group == "deepseek-profile"],
        "capacity": [
            _row(one) | {"enough": one.value >= one.row.value, "utilisation": round12(one.row.value / one.value)}
            for one in answered
            if one.row.score == "reference"
        ],
        "beyond_2x": [_row(one) | _why(known.get(one.row.id)) for one in absolute if is_missed(one)],
        "skipped_by_reason": {reason: reasons.count(reason) for reason in sorted(set(reasons))},
        "skipped": [{"id": one.row.id, "reason": one.reason} for one in unanswered],
    }


def _why(miss: Miss | None) -> dict[str, str]:
    """What explains a miss, as far as anything does."""
    return {"standing": miss.standing if miss else "unexplained", "reason": miss.reason if miss else ""}


def _class_of(one: Prediction) -> str:
    """Domestic, or by the memory of the device."""
    system = catalogue_hardware(one.row.hardware).system
    return "domestic" if system.origin == "domestic" else CLASSES.get(one.memories[0], "other")


def _summary(rows: Sequence[Prediction]) -> dict[str, Any]:
    found = summary(np.array([one.value for one in rows]), np.array([one.row.value for one in rows]))
    del found["coverage_80"]
    return found


def _split(rows: Sequence[Prediction], of: Callable[[Prediction], str]) -> dict[str, Any]:
    names = sorted({of(one) for one in rows})
    return {name: _summary([one for one in rows if of(one) == name]) for name in names}


def _row(one: Prediction) -> dict[str, Any]:
    row = one.row
    return {
        "id": row.id,
        "source_group": row.source_group,
        "hardware": row.hardware,
        "metric": row.metric,
        "unit": UNITS[row.metric],
        "measured": row.value,
        "predicted": round12(one.value),
        "ape": round12(abs(one.error)),
        "memories": list(one.memories),
        "note": row.note,
    }
