"""Benchmark points in groups that share model, hardware, engine and formats: each group is timed in columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from planner.accuracy.deployment_passes import catalogue_hardware, catalogue_model, owned_prices
from planner.accuracy.points import Points
from planner.documents import explain_validation
from planner.footprint import Shapes
from planner.footprint.memory import residency
from planner.footprint.shapes import Column
from planner.plans.context import PoolContext, build_context, main_dtype
from planner.plans.evaluate import Candidates, reserved_bytes
from planner.plans.inputs import WEIGHT_FORMATS, Inputs, Options, with_weight_dtype
from planner.runtimes import Runtime
from planner.workload import Lengths, Workload

CHUNK = 8192.0
"""Tokens of a prefill pass and rank where an engine's profile says none."""


@dataclass(frozen=True)
class Group:
    """Rows of ``Points`` (``index``) on one pool: n columns. ``capacity``: sequences of mean length that a rank has room for."""

    index: NDArray[np.intp]
    pool: PoolContext
    shapes: Shapes
    isl: Column
    osl: Column
    held: Column
    """Requests held by the client for each attention rank."""
    batch: Column
    """Decode batch of a rank where the row states it, else NaN."""
    chunk: Column
    capacity: Column
    weights: str
    """What most parameters are multiplied in."""

    @property
    def context(self) -> Column:
        """Mean tokens of a decoding sequence."""
        return self.isl + self.osl / 2.0

    @property
    def variation(self) -> Column:
        """Of the context between sequences that are at a uniform position of their output."""
        return self.osl / math.sqrt(12.0) / self.context


def groups_of(points: Points, runtime_of: dict[str, Runtime]) -> list[Group]:
    """The groups of points, in order of first appearance; ``runtime_of``: runtime id of the points -> runtime.

    ``InputError`` where a part is not in the catalogue or one refuses another.
    """
    keys: dict[tuple[str, str, str, str, str, int], list[int]] = {}
    rows = zip(
        points.model, points.hardware, points.runtime, points.weight_dtype, points.kv_dtype, points.pp.tolist(), strict=True
    )
    for number, (model, hardware, runtime, weights, cache, pp) in enumerate(rows):
        keys.setdefault((model, hardware, runtime, weights, cache, int(pp)), []).append(number)
    return [_group(points, np.array(index), key, runtime_of[key[2]]) for key, index in keys.items()]


def _group(points: Points, index: NDArray[np.intp], key: tuple[str, str, str, str, str, int], runtime: Runtime) -> Group:
    model, hardware, _, weights, cache, pp = key
    tp, dp, ep = (column[index].astype(float) for column in (points.tp, points.dp, points.ep))
    shapes = Shapes(tp, dp, ep, pp)
    pool = _pool(model, hardware, int(np.max(shapes.devices)), weights, cache, runtime)
    isl, osl = points.isl[index].astype(float), points.osl[index].astype(float)
    ranks = points.workers[index] * shapes.dp
    held = points.concurrency[index] / ranks
    stock = np.array([runtime.stock_prefill_tokens(pool.rates.memory_bytes, int(dp)) or CHUNK for dp in shapes.dp.tolist()])
    chunk = np.where((np.array(points.mode)[index] == "disagg"), 0.0, stock.astype(float))
    capacity = _capacity(pool, shapes, isl, osl, np.minimum(held, 1024.0), chunk)
    dtype = main_dtype(with_weight_dtype(pool.inputs.model, weights or None))
    return Group(index, pool, shapes, isl, osl, held, points.batch[index], chunk, capacity, dtype)


def _pool(model: str, hardware: str, devices: int, weights: str, cache: str, runtime: Runtime) -> PoolContext:
    """Formats that a row states count as formats that its engine can run."""
    system = catalogue_hardware(hardware).system
    count = math.ceil(devices / system.devices)
    subject = catalogue_model(model)
    formats = {t.format for b in subject.blocks for g in b.weights for t in g.tensors}
    stated = {WEIGHT_FORMATS[weights]} if weights else formats
    kept = tuple(sorted(stated - set(runtime.dequantises) - {"bf16", "fp32"}))
    engine = runtime.model_copy(update={"dequantises": (*runtime.dequantises, *kept), "streaming": True}) if kept else runtime
    try:
        inputs = Inputs(
            model=subject,
            hardware={"mixed": catalogue_hardware(f"{hardware}:{count}")},
            workload=_WORKLOAD,
            runtime=engine,
            prices=owned_prices(),
            options=Options(weight_dtype=weights or None, kv_dtype=(cache,)),
        )
    except ValidationError as error:
        raise explain_validation(error, f"{model} on {hardware}") from None
    return build_context(inputs).pools["mixed"]


_WORKLOAD = Workload(
    id="benchmark",
    input_tokens=Lengths(mean=1024),
    output_tokens=Lengths(mean=1024),
    source="lengths are those of each point",
    as_of=date(2026, 11, 22),
    grade="A",
)


def _capacity(pool: PoolContext, shapes: Shapes, isl: Column, osl: Column, batch: Column, chunk: Column) -> Column:
    """Sequences whose cache at mean length fits beside weights and reserves, at least one (an engine that runs has room); 0 where
    the weights alone are more than the memory, or a request is longer than the model takes."""
    reserve = sum(reserved_bytes(pool, Candidates(shapes, batch, chunk)).values(), np.zeros_like(batch))
    capacity = np.ones_like(batch)
    pages = pool.inputs.runtime.page_tokens
    for tokens in np.unique(isl + osl / 2.0):
        here = np.flatnonzero(isl + osl / 2.0 == tokens)
        held = residency(pool.pieces, shapes.take(here), math.ceil(tokens), pages)
        beside = pool.rates.memory_bytes - np.max(np.stack(held.weights), axis=0)
        each = np.maximum(np.max(np.stack(held.caches), axis=0), 1.0)
        capacity[here] = np.where(beside < 0.0, 0.0, np.maximum(np.floor((beside - reserve[here]) / each), 1.0))
    return np.where(isl + osl > pool.inputs.model.max_context, 0.0, capacity)
