"""What a calibration is worth: scores of what was left out, how well figures are known, error against their number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.calibrate import (
    Bench,
    Fit,
    LeftOut,
    bench_of,
    calibration_of,
    client_of,
    fit,
    left_out,
    predicted,
    spread_of,
)
from planner.accuracy.fit import KINK, TPOT_FAMILIES, Model, Vector, squared
from planner.accuracy.points import Points
from planner.accuracy.score import SHORT_TTFT_S, summary
from planner.footprint.shapes import Column
from planner.quantities import round12
from planner.runtimes import Calibration
from planner.runtimes.calibrated import Evidence, Spread

CURVE = ((), ("attention_s", "mlp_s", "moe_s"), ("dense", "routed", "attention"), ("step_s", "sequence_s"), ("stall",))
"""Families freed one set after another for the curve of error against figures; then all, then the corrections."""


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and its report as JSON."""

    calibration: Calibration
    report: dict[str, Any]


def calibrate(points: Points, *, name: str, source: str, file: str, as_of: date) -> Calibrated:
    """Fit points and score the fit by what it has not seen. ``file``: what the calibration calls its points.

    ``InputError`` where no point is left.
    """
    bench = bench_of(points)
    whole = fit(bench)
    out = left_out(bench)
    spread = spread_of(bench, out)
    calibration = calibration_of(bench, whole, spread, name, source, file, as_of)
    rows = np.arange(len(points))
    report = {
        "rows": len(points),
        "parameters": {
            "tpot": bench.spaces[0].size + 1,
            "ttft": bench.spaces[1].size,
            "corrections": len(whole.corrections),
        },
        "fitted": _scores(bench, *predicted(bench, whole, rows)),
        "left_out": {kind: _scores(bench, *times) for kind, times in out.items()},
        "coverage_80": coverage(bench, out),
        "identified": identified(bench, whole),
        "residuals": residuals(bench, predicted(bench, whole, rows)[0]),
        "curve": curve(bench, whole),
    }
    return Calibrated(calibration, report)


def residuals(bench: Bench, tpot: Column) -> dict[str, Any]:
    """What the fit leaves of TPOT by runtime, device, model and dtype: points, errors, and the median of predicted / measured."""
    measured = bench.points.tpot_s
    labels = {"runtime": bench.runtimes, "device": bench.devices, "model": bench.points.model, "weights": bench.weights}
    found: dict[str, Any] = {}
    for kind, column in labels.items():
        names = np.array(column)
        found[kind] = {name: summary(tpot[names == name], measured[names == name]) for name in sorted(set(column))}
    return found


def _scores(bench: Bench, tpot: Column, ttft: Column) -> dict[str, Any]:
    points = bench.points
    agg = np.array([mode == "agg" for mode in points.mode])
    brief = agg & (points.ttft_s < SHORT_TTFT_S)
    return {
        "agg": summary(tpot[agg], points.tpot_s[agg]),
        "disagg": summary(tpot[~agg], points.tpot_s[~agg]),
        "ttft_below_5s": summary(ttft[brief], points.ttft_s[brief]),
    }


def coverage(bench: Bench, out: LeftOut) -> dict[str, Any]:
    """Share of rows whose TPOT lies in the 80 % interval, by evidence and stratum, and the median width ``high / low``.

    A row's interval is made of the ratios of the other rows only: rows of its own fifth of the configurations are left out.
    """
    measured = bench.points.tpot_s
    order = np.random.default_rng(1).permutation(np.unique(bench.configurations))
    fold = {name: number % 5 for number, name in enumerate(order.tolist())}
    folds = np.array([fold[name] for name in bench.configurations.tolist()])
    cells = bench.well_measured
    kinds: dict[Evidence, tuple[str, NDArray[np.bool_]]] = {
        "measured": ("configuration", cells),
        "sibling": ("system", np.ones(len(cells), dtype=bool)),
        "kin": ("generation", np.ones(len(cells), dtype=bool)),
    }
    found: dict[str, Any] = {}
    for evidence, (kind, mask) in kinds.items():
        ratio = measured / out[kind][0]
        inside = np.full(len(ratio), np.nan)
        width = np.full(len(ratio), np.nan)
        for number in range(5):
            others = {name: (tpot[folds != number], ttft[folds != number]) for name, (tpot, ttft) in out.items()}
            part = _part(bench, np.flatnonzero(folds != number))
            spread: Spread = spread_of(part, others)[evidence]
            here = (folds == number) & mask
            inside[here] = (ratio[here] >= spread.low) & (ratio[here] <= spread.high)
            width[here] = spread.high / spread.low
        systems = np.array(bench.points.system)
        found[evidence] = {
            "n": int(mask.sum()),
            "covered": _share(inside[mask]),
            "width": _share(width[mask], middle=True),
            "by_system": {name: _share(inside[mask & (systems == name)]) for name in sorted(set(systems[mask].tolist()))},
        }
    return found


def _share(values: Column, middle: bool = False) -> float | None:
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return round12(float(np.median(values) if middle else np.mean(values)))


def _part(bench: Bench, rows: NDArray[np.intp]) -> Bench:
    def some(column: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(column[i] for i in rows.tolist())

    return Bench(
        bench.points.take(rows),
        bench.table.take(rows),
        some(bench.runtimes),
        bench.engines,
        some(bench.devices),
        some(bench.weights),
        bench.generations,
    )


def identified(bench: Bench, whole: Fit) -> list[dict[str, Any]]:
    """Each figure of TPOT with its standard deviation (of the logarithm) given the points, and given the prior alone.

    By the curvature of the loss at the optimum (Laplace's approximation), rows counted as independent at a scale of ``KINK``.
    ``share``: of the prior's variance that the points took away; near 0 the figure is the prior's or its siblings'.
    """
    space = bench.spaces[0]
    rows = np.flatnonzero(np.isfinite(bench.points.tpot_s))
    table = bench.table.take(rows)
    model = Model(table, space)
    batch, _, _ = model.times(whole.tpot, client_of(bench, whole.ttft, table))
    value, jacobian = model.tpot(whole.tpot, batch)
    slope = jacobian / value[:, None]
    weight = 1.0 / np.sqrt(1.0 + (np.log(value / table.tpot_s) / KINK) ** 2)
    _, precision, low, high = space.prior()
    after = np.sqrt(np.diag(np.linalg.inv(squared(slope, weight) / KINK**2 + precision)))
    before = np.sqrt(np.diag(np.linalg.inv(precision)))
    found = []
    for family in TPOT_FAMILIES:
        here = space.slices()[family.name]
        names = space.runtimes if family.of == "runtime" else space.generations
        for number, name in zip(range(here.start, here.stop), names, strict=True):
            at = whole.tpot[number]
            found.append(
                {
                    "figure": f"{name}.{family.name}",
                    "value": round12(float(f"{np.exp(at):.4g}")),
                    "sd": round12(float(f"{after[number]:.3g}")),
                    "share": round12(float(f"{1.0 - (after[number] / before[number]) ** 2:.3g}")),
                    "at_bound": bool(at <= low[number] + 1e-9 or at >= high[number] - 1e-9),
                }
            )
    return found


def curve(bench: Bench, whole: Fit) -> list[dict[str, Any]]:
    """TPOT errors of aggregated points against the number of fitted figures: families freed one set after another."""
    agg = np.array([mode == "agg" for mode in bench.points.mode])
    measured = bench.points.tpot_s
    rows = np.arange(len(bench.points))
    space = bench.spaces[0]
    mean = space.prior()[0]
    found = []
    freed: tuple[str, ...] = ()
    for names in CURVE:
        freed = (*freed, *names)
        held = mean.copy()
        for name in freed:
            held[space.slices()[name]] = whole.tpot[space.slices()[name]]
        found.append(
            _point(bench, held, whole, rows, agg, measured, sum(space.slices()[n].stop - space.slices()[n].start for n in freed))
        )
    found.append(_point(bench, whole.tpot, whole, rows, agg, measured, space.size + 1))
    tpot, _ = predicted(bench, whole, rows)
    found.append({"parameters": space.size + 1 + len(whole.corrections), **summary(tpot[agg], measured[agg])})
    return found


def _point(
    bench: Bench, tpot: Vector, whole: Fit, rows: NDArray[np.intp], agg: NDArray[np.bool_], measured: Column, count: int
) -> dict[str, Any]:
    times, _ = predicted(bench, replace(whole, tpot=tpot, corrections={}), rows)
    return {"parameters": count, **summary(times[agg], measured[agg])}
