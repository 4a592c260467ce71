"""Benchmark points predicted by the model that plans use: TPOT and TTFT with their intervals, in columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.groups import Group, groups_of
from planner.accuracy.points import Points
from planner.footprint.shapes import Column
from planner.performance import Client, held_serving, pass_times
from planner.performance.load import decode_load_of, prefill_load_of
from planner.plans.context import PoolContext
from planner.runtimes import Runtime, load_runtime


@dataclass(frozen=True)
class Predicted:
    """Seconds of every point (NaN where a time is not predicted); ``low`` and ``high``: the 80 % interval of TPOT.

    What cannot run has no time at all: weights that are more than the memory, requests longer than the model takes.

    ``batch``: sequences that a rank decodes at once. ``evidence``: what the prediction rests on.
    """

    tpot_s: Column
    ttft_s: Column
    batch: Column
    low_s: Column
    high_s: Column
    evidence: tuple[str, ...]

    def take(self, index: NDArray[np.intp]) -> Predicted:
        """The points of ``index``."""
        evidence = tuple(self.evidence[number] for number in index.tolist())
        tpot, ttft, batch = self.tpot_s[index], self.ttft_s[index], self.batch[index]
        return Predicted(tpot, ttft, batch, self.low_s[index], self.high_s[index], evidence)


def predict(points: Points, runtime_of: Callable[[str], Runtime] = load_runtime) -> Predicted:
    """Predict points (n rows). ``runtime_of``: a runtime's id to the runtime, the built-in calibration's unless given.

    ``InputError`` where a part is not in the catalogue, which reading the points has refused.
    """
    n = len(points)
    columns = {name: np.full(n, np.nan) for name in ("tpot", "ttft", "batch", "low", "high")}
    evidence = [""] * n
    for group in groups_of(points, {name: runtime_of(name) for name in sorted(set(points.runtime))}):
        batch, tpot, ttft = (np.where(group.capacity > 0.0, column, np.nan) for column in times_of(group))
        residual = group.pool.inputs.runtime.residual
        columns["batch"][group.index], columns["tpot"][group.index], columns["ttft"][group.index] = batch, tpot, ttft
        columns["low"][group.index] = tpot * residual.lowest / residual.value
        columns["high"][group.index] = tpot * residual.highest / residual.value
        found = evidence_of(group.pool)
        for number in group.index.tolist():
            evidence[number] = found
    return Predicted(columns["tpot"], columns["ttft"], columns["batch"], columns["low"], columns["high"], tuple(evidence))


def evidence_of(pool: PoolContext) -> str:
    """What a prediction of the pool rests on: ``measured``, ``sibling``, ``kin``, or ``class defaults``."""
    fitted = pool.inputs.runtime.calibrated
    return "class defaults" if fitted is None or fitted.folded is None else fitted.folded


def client_of(runtime: Runtime) -> Client:
    """How a client's requests share the runtime's time, as calibrated; without a calibration all of a prefill stalls decode."""
    fitted = runtime.calibrated
    if fitted is None:
        return Client()
    first = fitted.first_token
    return Client(fitted.stall.value, first.request.value, first.steps.value, first.queue.value, first.client.value)


def times_of(group: Group) -> tuple[Column, Column, Column]:
    """``(batch, tpot, ttft)`` of a group's rows: in the closed loop, or at the decode batch that a row states (no TTFT then).

    A decode step is timed at the largest batch that may run and at half of it; between them it is a line.
    """
    stated = np.isfinite(group.batch)
    high = np.where(stated, group.batch, np.maximum(np.minimum(group.held, group.capacity), np.minimum(group.held, 1.0)))
    low = np.where(high > 1.0, np.maximum(high / 2.0, 1.0), high / 2.0)
    at_high, at_low = _decode(group, high), _decode(group, low)
    slope = (at_high - at_low) / np.maximum(high - low, 1e-9)
    runs = group.chunk > 0.0
    chunk = np.maximum(group.chunk, 1.0)
    packed = np.where(runs, _prefill(group, chunk) * group.isl / chunk, 0.0)
    alone = np.minimum(chunk, group.isl)
    own = np.where(runs, _prefill(group, alone) * group.isl / alone, 0.0)
    passes = np.where(runs, np.ceil(group.isl / chunk), 0.0)
    pp = float(group.shapes.pp)
    batch, tpot, ttft = held_serving(
        group.held,
        group.capacity,
        pp * at_high,
        pp * slope,
        high,
        packed,
        own,
        passes,
        group.osl,
        client_of(group.pool.inputs.runtime),
    )
    return np.where(stated, group.batch, batch), np.where(stated, pp * at_high, tpot), np.where(stated, np.nan, ttft)


def _decode(group: Group, batch: Column) -> Column:
    pool = group.pool
    load = decode_load_of(batch, group.context, group.variation, pool.pieces, pool.rates)
    return pass_times(pool.pieces, group.shapes, pool.rates, load).slowest_stage() * pool.rates.residual


def _prefill(group: Group, chunk: NDArray[np.float64]) -> Column:
    pool = group.pool
    load = prefill_load_of(chunk, group.isl, 0.0, pool.pieces)
    return pass_times(pool.pieces, group.shapes, pool.rates, load).slowest_stage() * pool.rates.residual
