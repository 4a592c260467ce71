"""What a device computes: the dense peak of a dtype, and how much of it matrix products of so many rows reach."""

from __future__ import annotations

import math
import re
from datetime import date
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from planner.hardware.vocabulary import FlopPerSecond, Table
from planner.quantities import Grade

HALVINGS = {"bf16": 0, "fp16": 0, "fp8": 1, "int8": 1, "fp6": 2, "fp4": 2, "int4": 2}
"""How often the width of a dtype of matrix units is half of 16 bits; fp6 runs at the rate of fp4 at most."""
LARGEST_STEP = 2.1
"""Largest rise of the dense peak per halving of the width; twice that is a sparse figure."""


def says_dense(note: str) -> bool:
    """Whether a note asserts that a peak is dense, and not that it is not."""
    return bool(re.search(r"(?<!not )(?<!non-)(?<!no )\bdense\b", note, re.IGNORECASE))


class Curve(Table):
    """Fraction of the dense peak that a GEMM of M rows reaches, log-log interpolated and flat outside its points.

    The fraction never falls with M and never rises faster than M, so more rows never take less time.
    ``low_factor`` and ``high_factor`` scale the whole curve to its 10th and 90th percentile. ``knee``: rows below which the
    measured kernel was bound by reading its weights; unless given, where a rise in proportion to M from the first point reaches
    the last. A curve that holds for any number of rows on this device, reading included, has the knee 1.
    """

    points: tuple[tuple[float, float], ...] = Field(min_length=1, max_length=64)
    knee: float | None = Field(default=None, ge=1.0, allow_inf_nan=False)
    low_factor: float = Field(gt=0.0, le=1.0, allow_inf_nan=False)
    high_factor: float = Field(ge=1.0, le=10.0, allow_inf_nan=False)
    source: str = Field(min_length=1)
    as_of: date
    grade: Grade
    note: str = ""

    @field_validator("points")
    @classmethod
    def _shape(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        for rows, fraction in points:
            if not (math.isfinite(rows) and rows >= 1.0):
                raise ValueError(f"M must be at least 1, got {rows!r}")
            if not 0.0 < fraction <= 1.0:
                raise ValueError(f"the fraction at M = {rows:g} must be above 0 and at most 1, got {fraction!r}")
        for (rows, fraction), (more_rows, more) in pairwise(points):
            if more_rows <= rows:
                raise ValueError(f"M must rise from point to point ({rows:g} then {more_rows:g})")
            if more < fraction:
                raise ValueError(f"the fraction falls from M = {rows:g} to {more_rows:g}; use a non-decreasing fit")
            if more / fraction > more_rows / rows * (1 + 1e-9):
                raise ValueError(f"the fraction rises faster than M from {rows:g} to {more_rows:g}: more work in less time")
        return points

    @model_validator(mode="after")
    def _spread(self) -> Curve:
        if self.grade in ("C", "D") and (self.low_factor == 1.0 or self.high_factor == 1.0):
            raise ValueError(f"a curve of grade {self.grade} needs an interval; set low_factor below 1 and high_factor above 1")
        return self

    def fraction(self, rows: Any, factor: float = 1.0) -> Any:
        """Fraction of peak at ``rows`` (a float or an array), scaled by ``factor`` and never above 1."""
        import numpy as np

        log_rows = np.log([point[0] for point in self.points])
        log_fraction = np.log([point[1] for point in self.points])
        at_least_one = np.maximum(np.asarray(rows, dtype=float), 1.0)
        result = np.minimum(np.exp(np.interp(np.log(at_least_one), log_rows, log_fraction)) * factor, 1.0)
        return float(result) if result.ndim == 0 else result


class Compute(Table):
    """One compute dtype: dense peak in FLOP/s (OP/s for integers) of one device, and how much of it GEMMs reach."""

    dtype: Literal["fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp6", "fp4", "int4"]
    counting: Literal["dense"]
    peak: FlopPerSecond
    gemm: Curve

    @field_validator("counting", mode="before")
    @classmethod
    def _dense(cls, value: object) -> object:
        if value == "sparse":
            raise ValueError("a sparse peak is not reached by dense models; write the dense one (usually half)")
        return value
