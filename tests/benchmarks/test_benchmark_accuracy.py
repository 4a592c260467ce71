"""Prediction in bulk and a whole calibration: `pytest tests/benchmarks -k accuracy`."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np

from planner.accuracy.points import CONTINUOUS, read_points
from planner.accuracy.predict import predict
from planner.accuracy.report import calibrate


def test_every_development_point(benchmark: Any) -> None:
    points, _ = read_points(CONTINUOUS)
    found = benchmark.pedantic(predict, (points,), rounds=5, warmup_rounds=1)
    assert np.isfinite(found.tpot_s).all()


def test_ten_thousand_points(benchmark: Any) -> None:
    points, _ = read_points(CONTINUOUS)
    many = points.take(np.tile(np.arange(len(points)), 5)[:10_000])
    found = benchmark.pedantic(predict, (many,), rounds=5, warmup_rounds=1)
    assert len(found.tpot_s) == 10_000


def test_a_whole_calibration(benchmark: Any) -> None:
    points, _ = read_points(CONTINUOUS)
    done = benchmark.pedantic(
        calibrate,
        (points,),
        {"name": "again", "source": "built-in points", "file": "again", "as_of": date(2026, 11, 22)},
        rounds=1,
    )
    assert done.calibration.rows == len(points)
