"""Prediction against measurement: fit on one list of configurations, score on another, all fixed in ``configurations.toml``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from planner.documents import parse_toml, read_text
from planner.errors import InputError
from planner.hardware import System
from planner.probe import blas
from planner.probe.decoder import OPERATORS, Measured, check_fits, run
from planner.probe.fit import Fitted, fit
from planner.probe.predict import Predicted, pool_of, predict
from planner.probe.spec import Spec

FILE = Path(__file__).with_name("configurations.toml")
LIMIT_S = 3.0
STEPS = 200
LEAST_FITS = 3


@dataclass(frozen=True)
class Row:
    """One configuration measured and predicted."""

    spec: Spec
    measured: Measured
    predicted: Predicted

    @property
    def error(self) -> float:
        """``predicted / measured - 1`` of tokens/s."""
        return self.measured.step.value / self.predicted.step - 1.0

    @property
    def misses(self) -> str:
        """The operator whose seconds are furthest off."""
        return max(OPERATORS, key=lambda name: abs(self.predicted.operators[name] - self.measured.operators[name]))


def configurations(name: str) -> tuple[Spec, ...]:
    """Those of the set ``fit`` or ``score``."""
    data = parse_toml(read_text(FILE), str(FILE))
    return tuple(_spec(row, data["models"]) for row in data["sets"][name])


def _spec(row: dict[str, Any], models: dict[str, Any]) -> Spec:
    rest = {key: value for key, value in row.items() if key != "model"}
    return Spec.model_validate({"id": row["model"], **models[row["model"]], **rest})


def measure(
    specs: Sequence[Spec], folder: Path | None, threads: int, say: Callable[[int, int], None], limit_s: float = LIMIT_S
) -> list[tuple[Spec, Measured]]:
    """Every configuration run, in order."""
    found = []
    with blas.threads(threads):
        for number, spec in enumerate(specs):
            say(number, len(specs))
            found.append((spec, run(spec, folder, steps=STEPS, limit_s=limit_s)))
    return found


def interleaved(fits: Sequence[Spec], scores: Sequence[Spec]) -> list[Spec]:
    """Both lists in one order that spreads the shorter over the longer, so that a machine that drifts drifts for both.

    ``ValueError`` where a configuration, whatever its name, is in both: nothing that is scored may reach the fit.
    """
    known = {_unnamed(spec) for spec in fits}
    for spec in scores:
        if _unnamed(spec) in known:
            raise ValueError(f"{spec.id} {spec.label}: is scored and fitted to")
    places = [
        ((number + 0.5) / len(part), at, spec) for at, part in enumerate((fits, scores)) for number, spec in enumerate(part)
    ]
    return [spec for _, _, spec in sorted(places, key=lambda place: place[:2])]


def _unnamed(spec: Spec) -> Spec:
    return spec.model_copy(update={"id": "any"})


def twice(order: Sequence[Spec], folder: Path, threads: int, say: Callable[[int, int], None]) -> dict[Spec, Measured]:
    """Every configuration run twice, the whole list before any comes again, so that what comes and goes is shared."""
    specs = [*order, *order]
    runs = measure(specs, folder, threads, say, LIMIT_S / 2)
    return {spec: first.joined(second) for (spec, first), (_, second) in zip(runs, runs[len(order) :], strict=False)}


def compare(runs: Sequence[tuple[Spec, Measured]], fitted: Fitted) -> list[Row]:
    """The prediction beside each run."""
    return [Row(spec, found, predict(spec, pool_of(spec, fitted.system, fitted.runtime))) for spec, found in runs]


def fit_here(
    system: System, folder: Path | None, threads: int, day: date, say: Callable[[int, int], None], *, quick: bool = False
) -> tuple[Fitted, str]:
    """The runtime fitted to those of the fit's configurations that this machine has room for, and a note on what it rests on.

    ``quick``: to every third, run more briefly. ``InputError`` where fewer than ``LEAST_FITS`` are left.
    """
    known = configurations("fit")
    specs = [spec for spec in known if _has_room(spec, folder)]
    if len(specs) < LEAST_FITS:
        what = f"{len(specs)} of the {len(known)} runs that the runtime is fitted to have room here, too few"
        raise InputError(what, where="--run", mend="make room in memory")
    chosen = specs[::3] if quick and len(specs) >= 3 * LEAST_FITS else specs
    experts, tables = sum(spec.disk_experts > 0 for spec in chosen), sum(spec.table_on_disk for spec in chosen)
    note = (
        f"the runtime was fitted to {len(chosen)} runs on this machine, {experts} with experts and {tables} with tables on disk"
    )
    note += "; --quick takes every third" if len(chosen) < len(specs) else ""
    note += "; each was run briefly" if quick else ""
    note += f"; {len(known) - len(specs)} had no room, or no disk" if len(specs) < len(known) else ""
    return fit(measure(chosen, folder, threads, say, LIMIT_S / 4 if quick else LIMIT_S), system, day), note


def _has_room(spec: Spec, folder: Path | None) -> bool:
    try:
        check_fits(spec, folder)
    except InputError:
        return False
    return True


def median_error(rows: Sequence[Row]) -> float:
    """Median of ``|predicted / measured - 1|``."""
    return float(np.median([abs(row.error) for row in rows]))
