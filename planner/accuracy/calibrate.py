"""``planner calibrate``: points to a calibration file, and the scores of what was left out.

The order: split every point's passes into parts, fit the figures of TPOT at the batches that the closed loop runs, fit those of
TTFT, work the batches out anew, three times over; then correct models on devices that many points measure by what remains,
shrunk. ``left_out`` repeats that without a system, a model, a runtime, a generation or a fifth of the configurations, and
predicts them: these scores are what a prediction is worth, and their spread is its interval.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.fit import TPOT_FAMILIES, TTFT_FAMILIES, Model, Space, Table, Vector, solve, ttft_function
from planner.accuracy.groups import Group, groups_of
from planner.accuracy.parts import Frame, Parts, decode_parts, frame_of, prefill_parts
from planner.accuracy.points import Points
from planner.errors import InputError
from planner.footprint.shapes import Column
from planner.performance import Client
from planner.runtimes import RUNTIMES, Calibration
from planner.runtimes.calibrated import Correction, Evidence, Generation, Spread
from planner.runtimes.calibration import FittedRuntime

ROUNDS = 3
GENERATIONS = {
    "hopper": ("h100-sxm", "h100-pcie", "h200-sxm", "h800-sxm", "h20-96", "h20-141"),
    "blackwell": ("b200-sxm", "b300-sxm", "gb200", "gb300"),
}
"""Devices whose kernels are compiled for one architecture; any other device is a generation of its own."""
ROUTED_WIDTH = 256.0
"""Of all runtimes (``Calibrated.routed_width``). Widths of 0, 256 and 1024 fit and extrapolate alike where experts are cut 4 and
8 ways, but only with one above 0 do the engines agree on ``routed``, and only so does it hold where experts are whole."""
MOST_CORRECTIONS = 15
LEAST_ROWS = 30
"""Of a correction: one that serves fewer is no property of a model on a device."""
SHRINK_ROWS = 10.0
"""A correction of n rows is ``n / (n + SHRINK_ROWS)`` of the median residual."""
FOLDS = 5


@dataclass(frozen=True)
class Bench:
    """Points made ready: the table of the fit and what each row is."""

    points: Points
    table: Table
    runtimes: tuple[str, ...]
    engines: tuple[str, ...]
    devices: tuple[str, ...]
    """Device of each row."""
    weights: tuple[str, ...]
    """What most parameters of its model are multiplied in."""
    generations: dict[str, tuple[str, ...]]

    @property
    def spaces(self) -> tuple[Space, Space]:
        """The figures of TPOT and of TTFT."""
        names = tuple(self.generations)
        return Space(TPOT_FAMILIES, self.engines, names), Space(TTFT_FAMILIES, self.engines, names)

    @cached_property
    def cells(self) -> NDArray[np.str_]:
        """Runtime, model, dtype and device of each row."""
        return np.array([" ".join(row) for row in zip(self.runtimes, self.points.model, self.weights, self.devices, strict=True)])

    @cached_property
    def well_measured(self) -> NDArray[np.bool_]:
        """Rows of cells with ``LEAST_ROWS`` points or more."""
        counts = Counter(self.cells.tolist())
        return np.array([counts[name] >= LEAST_ROWS for name in self.cells.tolist()])

    @cached_property
    def configurations(self) -> NDArray[np.str_]:
        """What a point has in common with others that differ in lengths and load."""
        p = self.points
        shape = zip(p.tp.tolist(), p.dp.tolist(), p.ep.tolist(), p.pp.tolist(), p.mode, strict=True)
        return np.array([f"{cell} {place}" for cell, place in zip(self.cells, shape, strict=True)])


def engine_of(runtime: str) -> str:
    """The runtime that all versions of an engine share: ``vllm-0-19`` is ``vllm``, ``vllm-ascend`` is itself."""
    return re.sub(r"(-\d+)+$", "", runtime)


def bench_of(points: Points) -> Bench:
    """Points as a table to fit. ``InputError`` where nothing is left to fit."""
    if not len(points):
        raise InputError("no point can be scored", where="points", mend="see the reasons of `planner validate`")
    groups = [
        replace(group, pool=replace(group.pool, rates=replace(group.pool.rates, routed_width=ROUTED_WIDTH)))
        for group in groups_of(points, {name: RUNTIMES.load(name) for name in sorted(set(points.runtime))})
    ]
    runtimes = tuple(engine_of(name) for name in points.runtime)
    engines = tuple(sorted(set(runtimes)))
    devices, weights = [""] * len(points), [""] * len(points)
    for group in groups:
        for number in group.index.tolist():
            devices[number], weights[number] = group.pool.system.device.id, group.weights
    order = np.argsort(np.concatenate([group.index for group in groups]), kind="stable")
    pieces = [_columns(points, group) for group in groups]
    blocks = max(piece["kind"].shape[1] for piece in pieces)
    joined = {name: np.concatenate([_padded(piece[name], blocks, name) for piece in pieces])[order] for name in pieces[0]}
    strange = sorted(set(devices).difference(*GENERATIONS.values()))
    generations = {**GENERATIONS, **{device: (device,) for device in strange}}
    generation = [next(i for i, names in enumerate(generations.values()) if d in names) for d in devices]
    table = Table(
        runtime=np.array([engines.index(name) for name in runtimes]),
        generation=np.array(generation),
        frame=Frame(joined["kind"].astype(int), joined["repeats"], joined["more"]),
        high=Parts(joined["high"]),
        low=Parts(joined["low"]),
        packed=Parts(joined["packed"]),
        own=Parts(joined["own"]),
        batch_high=joined["batch_high"],
        batch_low=joined["batch_low"],
        stated_batch=joined["stated_batch"],
        held=joined["held"],
        capacity=joined["capacity"],
        isl=joined["isl"],
        osl=joined["osl"],
        chunk=joined["chunk"],
        pp=joined["pp"],
        tpot_s=points.tpot_s,
        ttft_s=points.ttft_s,
    )
    return Bench(points, table, runtimes, engines, tuple(devices), tuple(weights), generations)


def _padded(values: NDArray[np.float64], blocks: int, name: str) -> NDArray[np.float64]:
    if values.ndim == 1 or values.shape[1] == blocks:
        return values
    width = [(0, 0), (0, blocks - values.shape[1]), *[(0, 0)] * (values.ndim - 2)]
    return np.pad(values, width, constant_values=-1.0 if name == "kind" else 0.0)


def _columns(points: Points, group: Group) -> dict[str, NDArray[np.float64]]:
    frame = frame_of(group)
    stated = np.isfinite(group.batch)
    high = np.where(stated, group.batch, np.maximum(np.minimum(group.held, group.capacity), np.minimum(group.held, 1.0)))
    low = np.where(high > 1.0, np.maximum(high / 2.0, 1.0), high / 2.0)
    return {
        "kind": frame.kind.astype(float),
        "repeats": frame.repeats,
        "more": frame.more,
        "high": decode_parts(group, high).seconds,
        "low": decode_parts(group, low).seconds,
        "packed": prefill_parts(group, group.chunk).seconds,
        "own": prefill_parts(group, np.minimum(group.chunk, group.isl)).seconds,
        "batch_high": high,
        "batch_low": low,
        "stated_batch": group.batch,
        "held": group.held,
        "capacity": group.capacity,
        "isl": group.isl,
        "osl": group.osl,
        "chunk": group.chunk,
        "pp": np.full(len(high), float(group.shapes.pp)),
    }


@dataclass(frozen=True)
class Fit:
    """Fitted figures (logarithms), and the corrections by cell: (factor, rows)."""

    tpot: Vector
    ttft: Vector
    corrections: dict[str, tuple[float, int]]


def client_of(bench: Bench, fit_ttft: Vector, table: Table) -> Client:
    """The client's figures of each row."""
    _, space = bench.spaces
    figure = {name: np.exp(fit_ttft[place][table.runtime]) for name, place in space.slices().items()}
    return Client(1.0, figure["request_s"], figure["first_token_steps"], figure["queue"], figure["client_s"])


def fit(bench: Bench, rows: NDArray[np.intp] | None = None) -> Fit:
    """Fit the figures to some rows (default all)."""
    rows = np.arange(len(bench.points)) if rows is None else rows
    of_tpot, of_ttft = bench.spaces
    timed = rows[np.isfinite(bench.points.tpot_s[rows])]
    table = bench.table.take(timed)
    model = Model(table, of_tpot)
    x, z = of_tpot.prior()[0], of_ttft.prior()[0]
    for _ in range(ROUNDS):
        batch, _, _ = model.times(x, client_of(bench, z, table))
        x = solve(of_tpot, lambda at, batch=batch: model.tpot(at, batch), table.tpot_s, x)  # type: ignore[misc]
        z = _fit_ttft(bench, table, model, x, z)
    batch, tpot, _ = model.times(x, client_of(bench, z, table))
    return Fit(x, z, _corrections(bench, timed, np.log(table.tpot_s / tpot)))


def _fit_ttft(bench: Bench, table: Table, model: Model, x: Vector, z: Vector) -> Vector:
    """The figures of TTFT from rows that had room for all requests and whose TTFT is below five seconds."""
    _, space = bench.spaces
    batch, _, ttft = model.times(x, client_of(bench, z, table))
    with np.errstate(invalid="ignore"):
        rows = np.flatnonzero(np.isfinite(ttft) & (table.ttft_s < 5.0) & (table.held <= table.capacity))
    if not len(rows):
        return z
    part = table.take(rows)
    step, _ = Model(part, model.space).pass_seconds(x, part.decode(batch[rows]), batch[rows])
    own = Model(part, model.space).own_seconds(x)
    return solve(space, ttft_function(part, space, own, part.pp * step, np.zeros(len(rows))), part.ttft_s, z)


def _corrections(bench: Bench, rows: NDArray[np.intp], residual: Column) -> dict[str, tuple[float, int]]:
    """Of the cells with ``LEAST_ROWS`` points or more, those whose shift takes most error away; ``residual``: log measured over
    predicted of ``rows``."""
    cells = bench.cells[rows]
    found = []
    for name, count in Counter(bench.cells.tolist()).items():
        here = residual[cells == name]
        if count >= LEAST_ROWS and len(here):
            shift = float(np.median(here)) * len(here) / (len(here) + SHRINK_ROWS)
            gain = float(np.sum(np.abs(here) - np.abs(here - shift)))
            if gain > 0.0:
                found.append((-gain, name, math.exp(shift), len(here)))
    return {name: (factor, count) for _, name, factor, count in sorted(found)[:MOST_CORRECTIONS]}


def predicted(bench: Bench, fit: Fit, rows: NDArray[np.intp]) -> tuple[Column, Column]:
    """``(tpot, ttft)`` of rows under a fit (s)."""
    table = bench.table.take(rows)
    factor = np.array([fit.corrections.get(name, (1.0, 0))[0] for name in bench.cells[rows]])
    model = Model(table, bench.spaces[0])
    _, tpot, ttft = model.times(fit.tpot, client_of(bench, fit.ttft, table), factor)
    return tpot, ttft


LeftOut = dict[str, tuple[Column, Column]]
"""What was left out -> ``(tpot, ttft)`` of every row, predicted without it."""


def left_out(bench: Bench) -> LeftOut:
    """Predictions of every row by fits that did not see it."""
    order = np.random.default_rng(0).permutation(np.unique(bench.configurations))
    fold = {name: number % FOLDS for number, name in enumerate(order.tolist())}
    labels: dict[str, NDArray[np.generic]] = {
        "configuration": np.array([fold[name] for name in bench.configurations.tolist()]),
        "system": np.array(bench.points.system),
        "model": np.array(bench.points.model),
        "runtime": np.array(bench.runtimes),
        "generation": bench.table.generation,
    }
    found: LeftOut = {}
    for kind, label in labels.items():
        tpot, ttft = np.full(len(label), np.nan), np.full(len(label), np.nan)
        for value in np.unique(label):
            test, train = np.flatnonzero(label == value), np.flatnonzero(label != value)
            if len(train):
                tpot[test], ttft[test] = predicted(bench, fit(bench, train), test)
        found[kind] = tpot, ttft
    return found


UNSEEN = Spread(low=0.64, high=1.57, rows=1)
"""Where too few points could be left out: the residual of class defaults (``generic``)."""


def spread_of(bench: Bench, out: LeftOut, column: int = 0) -> dict[Evidence, Spread]:
    """The 80 % intervals of measured over predicted time by evidence, from rows that the fit had not seen; weaker evidence has
    no narrower one."""
    measured = (bench.points.tpot_s, bench.points.ttft_s)[column]
    systems = np.array(bench.points.system)
    kin = np.array([len(set(systems[bench.table.generation == g].tolist())) > 1 for g in range(len(bench.generations))])
    everywhere = np.ones(len(measured), dtype=bool)
    sources: dict[Evidence, list[tuple[str, NDArray[np.bool_]]]] = {
        "measured": [("configuration", bench.well_measured)],
        "sibling": [("system", kin[bench.table.generation]), ("model", everywhere)],
        "kin": [("generation", everywhere)],
    }
    found: dict[Evidence, Spread] = {}
    inner = Spread(low=1.0, high=1.0, rows=1)
    for evidence, parts in sources.items():
        ratios = np.concatenate([(measured / out[kind][column])[mask] for kind, mask in parts])
        ratios = ratios[np.isfinite(ratios)]
        if len(ratios) >= LEAST_ROWS:
            low, high = np.quantile(ratios, (0.1, 0.9))
            seen = Spread(low=_short(min(low, inner.low)), high=_short(max(high, inner.high)), rows=len(ratios))
        else:
            seen = Spread(low=min(UNSEEN.low, inner.low), high=max(UNSEEN.high, inner.high), rows=UNSEEN.rows)
        found[evidence] = inner = seen
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def calibration_of(
    bench: Bench, whole: Fit, spread: dict[Evidence, Spread], name: str, source: str, points: str, as_of: date
) -> Calibration:
    """The calibration file's content."""
    of_tpot, of_ttft = bench.spaces
    tpot, ttft = of_tpot.slices(), of_ttft.slices()
    runtimes = {}
    for number, engine in enumerate(bench.engines):
        rows = np.flatnonzero(bench.table.runtime == number)
        figures = {n: _short(math.exp(whole.tpot[tpot[n]][number])) for n in tpot if n != "floors"}
        figures |= {n: _short(math.exp(whole.ttft[ttft[n]][number])) for n in ttft}
        corrections = []
        plain = {cell: (1.0, count) for cell, count in Counter(bench.cells.tolist()).items() if count >= LEAST_ROWS}
        for cell, (value, count) in sorted((plain | whole.corrections).items()):
            runtime, model, weights, device = cell.split(" ")
            if runtime == engine:
                corrections.append(Correction(model=model, weights=weights, devices=(device,), value=_short(value), rows=count))
        runtimes[engine] = FittedRuntime(
            applies=tuple(name for name in RUNTIMES.ids if engine_of(name) == engine),
            rows=len(rows),
            models=tuple(sorted({bench.points.model[i] for i in rows.tolist()})),
            corrections=tuple(corrections),
            routed_width=ROUTED_WIDTH,
            **figures,
        )
    generations = {
        one: Generation(devices=devices, floors=_short(math.exp(whole.tpot[tpot["floors"]][number])))
        for number, (one, devices) in enumerate(bench.generations.items())
        if np.any(bench.table.generation == number)
    }
    return Calibration(
        id=name,
        as_of=as_of,
        source=source,
        points=points,
        rows=len(bench.points),
        parameters=of_tpot.size + 1 + of_ttft.size + len(whole.corrections),
        generations=generations,
        spread=spread,
        runtimes=runtimes,
    )


def digest(data: bytes) -> str:
    """The first digits of the SHA-256 that name a file of points."""
    return hashlib.sha256(data).hexdigest()[:12]
