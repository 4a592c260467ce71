"""Scores of predictions: absolute percentage errors (as fractions), coverage, and the same by stratum."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.points import Points
from planner.accuracy.predict import Predicted
from planner.footprint.shapes import Column
from planner.quantities import round12

STRATA = ("system", "model", "backend", "precision", "mode")
SHORT_TTFT_S = 5.0
"""TTFT above is a queue's: it is scored apart."""

Mask = NDArray[np.bool_]


def errors(predicted: Column, measured: Column) -> Column:
    """``|predicted / measured - 1|``; NaN where either is missing."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(predicted / measured - 1.0))


def summary(predicted: Column, measured: Column, low: Column | None = None, high: Column | None = None) -> dict[str, Any]:
    """``{n, median_ape, mean_ape, p90_ape, within_2x, ratio}`` over rows that have both, and ``coverage_80`` with an interval.

    ``ratio``: the median of predicted over measured. ``None`` where no row has both.
    """
    ape = errors(predicted, measured)
    kept = np.isfinite(ape)
    found: dict[str, Any] = {"n": int(kept.sum())}
    names = ("median_ape", "mean_ape", "p90_ape", "within_2x", "ratio")
    if not kept.any():
        return found | dict.fromkeys((*names, "coverage_80"))
    ratio = predicted[kept] / measured[kept]
    values = (
        np.median(ape[kept]),
        np.mean(ape[kept]),
        np.quantile(ape[kept], 0.9),
        np.mean((ratio >= 0.5) & (ratio <= 2.0)),
        np.median(ratio),
    )
    found |= {name: round12(float(value)) for name, value in zip(names, values, strict=True)}
    inside = None
    if low is not None and high is not None:
        inside = round12(float(np.mean((measured[kept] >= low[kept]) & (measured[kept] <= high[kept]))))
    return found | {"coverage_80": inside}


def score(points: Points, found: Predicted, skipped: list[tuple[str, str]]) -> dict[str, Any]:
    """The JSON of ``planner validate``.

    ``tpot`` is over every point that was answered, ``ttft`` over those with a predicted TTFT, ``ttft_below_5s`` over those
    measured below five seconds; ``by`` has the same for each stratum; ``rules``: TPOT of aggregated points with and without
    those that a label rule decoded; ``median_with_skipped``: the median APE of TPOT when what was skipped counts as 100 %.
    """
    measured, ttft = points.tpot_s, points.ttft_s
    brief = np.where(ttft < SHORT_TTFT_S, ttft, np.nan)

    def both(mask: Mask) -> dict[str, Any]:
        return {
            "tpot": summary(found.tpot_s[mask], measured[mask], found.low_s[mask], found.high_s[mask]),
            "ttft": summary(found.ttft_s[mask], ttft[mask]),
            "ttft_below_5s": summary(found.ttft_s[mask], brief[mask]),
        }

    labels: dict[str, tuple[str, ...]] = {
        "system": points.system,
        "model": points.label_model,
        "backend": points.backend,
        "precision": points.precision,
        "mode": points.mode,
    }
    everything = np.ones(len(points), dtype=bool)
    ape = errors(found.tpot_s, measured)
    counted = np.concatenate([ape[np.isfinite(ape)], np.ones(len(skipped))])
    by = {
        name: {value or "unstated": both(np.array([one == value for one in column])) for value in sorted(set(column))}
        for name, column in labels.items()
    }
    by["evidence"] = {value: both(np.array([one == value for one in found.evidence])) for value in sorted(set(found.evidence))}
    return {
        "points": len(points),
        "answered": int(np.isfinite(ape).sum()),
        **both(everything),
        "median_with_skipped": round12(float(np.median(counted))) if len(counted) else None,
        "by": by,
        "rules": _rules(points, found),
        "skipped_by_reason": dict(sorted(Counter(reason for _, reason in skipped).items())),
        "skipped": [{"id": name, "reason": reason} for name, reason in skipped],
    }


def _rules(points: Points, found: Predicted) -> dict[str, Any]:
    agg = np.array([mode == "agg" for mode in points.mode])
    rules = np.array(points.rule)
    result: dict[str, Any] = {}
    for rule in sorted(set(points.rule)):
        here = rules == rule
        result[rule] = {
            "alone": summary(found.tpot_s[agg & here], points.tpot_s[agg & here]),
            "without": summary(found.tpot_s[agg & ~here], points.tpot_s[agg & ~here]),
        }
    return result
