"""The runtime and the disk of a probed machine fitted to runs: floors, efficiencies, and what is left over.

Each figure of the runtime is moved up and down, in ever smaller steps, as long as that brings predicted operators closer to
measured ones. The disk's rate is scaled by the median of what reads of experts took over what was predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from planner.hardware import System
from planner.probe.decoder import OPERATORS, Measured
from planner.probe.predict import pool_of, predict, reference_runtime, resident_operators
from planner.probe.spec import Spec
from planner.runtimes import Runtime

WAITING = OPERATORS[-1]
FLOORS = ("attention", "moe", "step", "sequence")
EFFICIENCIES = ("dense", "routed", "attention")
STEPS = (2.0, 1.3, 1.1, 1.03)
LEAST_S = 1e-7
"""Of a floor: no call of numpy takes less."""
OPERATOR_WEIGHT = 0.3
"""Of an operator's squared error, times its share of the step, beside that of the step."""


@dataclass(frozen=True)
class Fitted:
    """A machine and its runtime as the runs say, and the errors of tokens/s in the same runs, ``predicted / measured - 1``."""

    system: System
    runtime: Runtime
    errors: tuple[float, ...]

    @property
    def figures(self) -> dict[str, float]:
        """The runtime's fitted figures, and the rate of the disk."""
        runtime = self.runtime
        found = {f"floors.{name}": float(getattr(runtime.floors, name).value) for name in FLOORS}
        found |= {f"efficiency.{name}": float(getattr(runtime.efficiency, name).value) for name in EFFICIENCIES}
        found |= {f"{tier.id}.read": tier.read.value for tier in self.system.tiers if tier.role == "disk"}
        return found | {"residual": runtime.residual.value}


def fit(runs: Sequence[tuple[Spec, Measured]], system: System, day: date) -> Fitted:
    """Fit the reference runtime, then the disk, to runs on ``system``; deterministic."""
    runtime = _runtime(runs, system, day)
    system = _disk(runs, system, runtime)
    ratios = [found.step.value / predict(spec, pool_of(spec, system, runtime)).step for spec, found in runs]
    middle = float(np.median(ratios))
    low, high = (float(np.percentile(ratios, q)) for q in (10, 90))
    said = {"source": f"measured by planner probe: {len(runs)} runs", "as_of": day, "note": "measured over predicted step"}
    residual = runtime.residual.model_copy(
        update={"value": middle, "low": min(low, middle), "high": max(high, middle), "grade": "B", **said}
    )
    errors = tuple(ratio / middle - 1.0 for ratio in ratios)
    return Fitted(system, runtime.model_copy(update={"residual": residual, "as_of": day}), errors)


def _runtime(runs: Sequence[tuple[Spec, Measured]], system: System, day: date) -> Runtime:
    start = reference_runtime()
    pools = [pool_of(spec, system, start) for spec, _ in runs]
    values = {f"floors.{name}": getattr(start.floors, name).value for name in FLOORS}
    values |= {f"efficiency.{name}": getattr(start.efficiency, name).value for name in EFFICIENCIES}

    def loss(trial: dict[str, float]) -> float:
        floors, efficiency = _split(trial)
        total = 0.0
        for (spec, found), pool in zip(runs, pools, strict=True):
            rates = replace(
                pool.rates, floors={**pool.rates.floors, **floors}, efficiency={**pool.rates.efficiency, **efficiency}
            )
            _, guess = resident_operators(replace(pool, rates=rates), spec.batch)
            total += _distance(guess, found.operators)
        return total

    least = loss(values)
    for step in STEPS:
        moved = True
        rounds = 0
        while moved and rounds < 10:
            moved, rounds = False, rounds + 1
            for name in values:
                for factor in (step, 1.0 / step):
                    trial = {**values, name: values[name] * factor}
                    trial[name] = min(trial[name], 1.0) if name.startswith("efficiency.") else max(trial[name], LEAST_S)
                    if (score := loss(trial)) < least * (1.0 - 1e-9):
                        values, least, moved = trial, score, True
    said = {"low": None, "high": None, "source": f"measured by planner probe: fitted to {len(runs)} runs", "as_of": day}
    floors, efficiency = _split({name: float(f"{value:.4g}") for name, value in values.items()})
    return start.model_copy(
        update={
            "floors": start.floors.model_copy(
                update={
                    n: getattr(start.floors, n).model_copy(update={"value": v, "grade": "B", **said}) for n, v in floors.items()
                }
            ),
            "efficiency": start.efficiency.model_copy(
                update={
                    n: getattr(start.efficiency, n).model_copy(update={"value": v, "grade": "B", **said})
                    for n, v in efficiency.items()
                }
            ),
        }
    )


def _split(values: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    parts: dict[str, dict[str, float]] = {"floors": {}, "efficiency": {}}
    for name, value in values.items():
        kind, _, key = name.partition(".")
        parts[kind][key] = value
    return parts["floors"], parts["efficiency"]


def _distance(guess: dict[str, float], found: dict[str, float]) -> float:
    """Squared logarithms of predicted over measured: of the step without waits, and of its operators by their share of it."""
    names = [name for name in OPERATORS if name != WAITING and found[name] > 0.0]
    whole = sum(found[name] for name in names)
    total = math.log(max(sum(guess[name] for name in names), 1e-12) / whole) ** 2
    for name in names:
        share = found[name] / whole
        total += OPERATOR_WEIGHT * share * math.log(max(guess[name], 1e-12) / found[name]) ** 2
    return total


def _disk(runs: Sequence[tuple[Spec, Measured]], system: System, runtime: Runtime) -> System:
    """The disk at the rate that reads of experts in the runs show; as it is where no run has any."""
    ratios = []
    for spec, found in runs:
        if spec.disk_experts and not spec.dense_on_disk:
            guess = predict(spec, pool_of(spec, system, runtime)).operators[WAITING]
            ratios.append(guess / max(found.operators[WAITING], 1e-9))
    disks = {tier.id for tier in system.tiers if tier.role == "disk"}
    if not ratios or not disks:
        return system
    scale = float(np.median(ratios))

    def scaled(part: object, key: str) -> dict[str, object]:
        figure = getattr(part, key)
        moved = {end: None if getattr(figure, end) is None else getattr(figure, end) * scale for end in ("value", "low", "high")}
        note = f"{figure.note}; times {scale:.3g}, fitted to {len(ratios)} runs with experts on disk"
        return {key: figure.model_copy(update={**moved, "note": note})}

    tiers = tuple(t.model_copy(update=scaled(t, "read")) if t.id in disks else t for t in system.tiers)
    ways = {step for tier in system.tiers if tier.id in disks for step in tier.via}
    links = tuple(link.model_copy(update=scaled(link, "bandwidth")) if link.id in ways else link for link in system.links)
    return system.model_copy(update={"tiers": tiers, "links": links})
