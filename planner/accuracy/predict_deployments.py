"""What planner predicts for a published deployment at its stated configuration: no search, and nothing fitted to any row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from planner.accuracy.deployment_passes import Engines, Instance, instance_of, memories_of, widened
from planner.accuracy.deployments import Deployment, shares
from planner.errors import PlannerError
from planner.footprint import ModelPieces
from planner.footprint.shapes import Column
from planner.performance import handoff_seconds, mixed_serving, prefill_queue, split_serving
from planner.performance.serving import queue_wait
from planner.plans.evaluate import largest_fitting_batch
from planner.runtimes import load_runtime

GRID = 24


@dataclass(frozen=True)
class Prediction:
    """A predicted figure in the unit of the row's metric; of ratio rows the predicted quotient."""

    row: Deployment
    value: float
    memories: tuple[str, ...]
    """Kinds of memory that hold something (see ``memories_of``)."""

    @property
    def error(self) -> float:
        """``predicted / measured - 1``."""
        return self.value / self.row.value - 1.0


@dataclass(frozen=True)
class Unanswered:
    """A row without a prediction: the reason of its labels, or what the rooms below refuse."""

    row: Deployment
    reason: str


def _held_tokens_bytes(pieces: ModelPieces, tokens: float) -> float:
    """Bytes of the caches of one sequence of so many tokens, over all layers."""
    return sum(
        window.layers * (float(cache.span.entries(tokens)) * cache.entry_bytes + cache.fixed_bytes)
        for window in pieces.windows
        for block in window.blocks
        for cache in block.caches
        if cache.held
    )


def _prefill_alone(row: Deployment, instance: Instance) -> dict[str, float]:
    """A prefill pool at full use, or with a number of requests in flight that wait for one another."""
    chunk = np.array([instance.chunk])
    workload, shapes = instance.pool.inputs.workload, instance.prefilling
    seconds = instance.prefill(chunk)
    capacity, service, through = prefill_queue(seconds, chunk, shapes, workload)
    ttft = float(through[0])
    if row.load == "closed":
        scope, places = shares(row.cache_on)
        fetch = 0.0
        for tier in instance.pool.rates.tiers:
            part = places.get(tier.role, 0.0) if scope == "hits" else 0.0
            fetch += part * _held_tokens_bytes(instance.pool.pieces, workload.hit_tokens) / tier.bytes_per_s
        ttft = float(row.concurrency or 1) * max(float(service[0]), fetch)
    width = float(shapes.tp[0] * shapes.dp[0] * shapes.pp)
    each = float(capacity[0]) / width
    return {
        "input_tok_s_per_device": each * workload.input_tokens.mean,
        "computed_tok_s_per_device": each * workload.miss_tokens,
        "ttft_ms": ttft * 1e3,
    }


def _batch(row: Deployment, instance: Instance, replicas: float, chunk: float) -> float:
    """Sequences per attention rank that a row's load keeps decoding, if none waits."""
    shapes = instance.decoding
    if row.load == "saturated":
        most = instance.pool.inputs.runtime.max_sequences_per_rank
        found = float(largest_fitting_batch(instance.pool, shapes, np.array([chunk]), most)[0])
        if found < 1.0:
            raise PlannerError("not one sequence fits beside the weights")
        offered = row.concurrency / (replicas * float(shapes.dp[0]) * shapes.pp) if row.concurrency else found
        return max(min(found, offered), 1.0)
    if row.batch:
        return row.batch
    assert row.concurrency
    return row.concurrency / (replicas * float(shapes.dp[0]) * shapes.pp)


def _decode_alone(row: Deployment, instance: Instance, replicas: float) -> dict[str, float]:
    batch = np.array([max(_batch(row, instance, replicas, 0.0), 1.0)])
    side = split_serving(instance.decode(batch), batch, instance.decoding, instance.pool.inputs.workload, instance.pool.accept)
    shapes, tpot = instance.decoding, float(side.seconds[0])
    return _rates(tpot, output=float(batch[0] / (tpot * shapes.tp[0])))


def _rates(tpot: float, ttft: float = math.nan, output: float = math.nan, row: Deployment | None = None) -> dict[str, float]:
    """Every metric that follows from a time per token, a time to first token and output tokens/s per device."""
    found = {"output_tok_s_per_device": output, "tok_s_per_user": 1.0 / tpot, "tpot_ms": tpot * 1e3, "ttft_ms": ttft * 1e3}
    if row is not None:
        assert row.isl and row.osl
        found["total_tok_s_per_device"] = output * (row.isl + row.osl) / row.osl
        found["e2e_ms"] = (ttft + (row.osl - 1.0) * tpot) * 1e3
    return found


Service = Callable[[Column], tuple[Column, Column, Column]]
"""``(tpot, ttft, requests/s)`` of an instance by batch."""


def settle(service: Service, flight: float, width: float, limit: float) -> float:
    """The batch per rank at which running and waiting requests make up ``flight``: ``b w + X ttft = flight``.

    Both grow with b, so the root is closed in on, on a grid refined twice; where the queue would grow without end the batch is
    that just before.
    """
    low, high = min(1e-3, limit), limit
    for _ in range(3):
        grid = np.geomspace(low, high, GRID)
        _, ttft, rate = service(grid)
        with np.errstate(invalid="ignore"):
            total = grid * width + rate * ttft
        inside = np.flatnonzero(np.nan_to_num(total, nan=np.inf, posinf=np.inf) <= flight * (1.0 + 1e-9))
        if not inside.size:
            return float(grid[0])
        if inside[-1] == GRID - 1:
            return float(high)
        low, high = float(grid[inside[-1]]), float(grid[inside[-1] + 1])
    return low


def _serve(row: Deployment, instance: Instance, replicas: float) -> dict[str, float]:
    """Prefill and decode together: aggregated, or one prefill instance beside one decode instance."""
    assert row.isl and row.osl and row.devices
    workload, shapes = instance.pool.inputs.workload, instance.decoding
    pool, width = instance.pool, float(shapes.dp[0] * shapes.pp)
    flight = math.inf
    if row.load == "closed":
        flight = (row.concurrency or (row.batch or 1.0) * width * replicas) / replicas
    at_once = workload.miss_tokens * max(flight / float(instance.prefilling.dp[0]), 1.0)
    chunk = min(instance.chunk, max(at_once, 1.0))
    prefill = instance.prefill(np.array([chunk]))

    def service(batch: Column) -> tuple[Column, Column, Column]:
        ones = np.ones_like(batch)
        wide = widened(shapes, len(batch))
        step = instance.decode(batch)
        if row.mode == "agg":
            served = mixed_serving(step, prefill[0] * ones, batch, chunk * ones, wide, workload, pool.accept)
            return served.tpot_s, served.ttft_s, served.requests_per_s
        side = split_serving(step, batch, wide, workload, pool.accept)
        capacity, one, through = prefill_queue(prefill, np.array([chunk]), instance.prefilling, workload)
        moved = handoff_seconds(pool.pieces, row.isl or 1.0, shapes, pool.rates.levels[:1], 1.0)
        tpot = side.seconds + moved / (workload.output_tokens.mean - 1.0)
        rate = batch * width / ((workload.output_tokens.mean - 1.0) * tpot)
        return tpot, through + queue_wait(rate / capacity, one), rate

    if row.load == "saturated":
        batch = _batch(row, instance, replicas, chunk)
    else:
        batch = settle(service, flight, width, flight / width)
    tpot, ttft, rate = (float(column[0]) for column in service(np.array([batch])))
    return _rates(tpot, ttft, rate * row.osl * replicas / row.devices, row)


def _once(row: Deployment, instance: Instance) -> dict[str, float]:
    """One batch, prefilled in one pass through all layers and then decoded to its end."""
    assert row.batch and row.isl and row.osl
    prefill = float(instance.prefill(np.array([row.batch * row.isl]))[0])
    tpot = float(instance.decode(np.array([row.batch]))[0]) / instance.pool.accept
    output = row.batch * row.osl / (prefill + (row.osl - 1.0) * tpot) / float(instance.decoding.tp[0])
    return _rates(tpot, prefill, output, row)


def predict(row: Deployment, rows: Mapping[str, Deployment] | None = None, engines: Engines = load_runtime) -> Prediction:
    """The prediction for one row; ``rows`` by id holds the baseline of a ratio, ``engines`` the runtimes.

    ``PlannerError`` where the row is skipped, a part refuses it, or its metric does not follow from its load.
    """
    if row.skip is not None:
        raise PlannerError(f"{row.id}: {row.skip}")
    instance, replicas = instance_of(row, engines)
    if row.phase == "prefill":
        found = _prefill_alone(row, instance)
    elif row.phase == "decode":
        found = _decode_alone(row, instance, replicas)
    elif row.load == "once":
        found = _once(row, instance)
    else:
        found = _serve(row, instance, replicas)
    value = found.get(row.metric, math.nan)
    if not (math.isfinite(value) and value > 0.0):
        raise PlannerError(f"{row.id}: no {row.metric} follows from this load")
    if row.score == "ratio":
        if row.baseline not in (rows or {}):
            raise PlannerError(f"{row.id}: its baseline {row.baseline} is not among the rows")
        value /= predict((rows or {})[row.baseline].model_copy(update={"score": "absolute"}), None, engines).value
    return Prediction(row, value, memories_of(row, instance.pool))


def predict_all(rows: Iterable[Deployment], engines: Engines = load_runtime) -> tuple[list[Prediction], list[Unanswered]]:
    """Predictions of every row that can have one, and the rest with reasons, both in the order of the rows."""
    listed: Sequence[Deployment] = tuple(rows)
    by_id = {row.id: row for row in listed}
    known = cache(engines)
    answered: list[Prediction] = []
    unanswered: list[Unanswered] = []
    for row in listed:
        if row.skip is not None:
            unanswered.append(Unanswered(row, row.skip))
            continue
        try:
            answered.append(predict(row, by_id, known))
        except PlannerError as error:
            unanswered.append(Unanswered(row, str(error)))
    return answered, unanswered
