"""From passes to service: time per output token, time to first token and requests per second, in steady state.

The load is a closed loop: a fixed number of requests in flight, each replaced as it ends, so Little's law ties
throughput, latency and concurrency. Symbols: D seconds of a decode step on the slowest pipeline stage, P of a prefill
pass, pp stages, b sequences a rank and micro-batch, dp ranks, C tokens a pass and rank, m tokens of a request to be
computed, n output tokens, a tokens accepted a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from planner.footprint.pieces import ModelPieces
from planner.footprint.shapes import Column, Shapes
from planner.performance.collectives import point_to_point
from planner.performance.load import prefill_passes
from planner.performance.rates import Level
from planner.workload import Workload


def tokens_per_step(acceptance: tuple[float, ...]) -> float:
    """Expected tokens a decode step yields: ``1 + sum_i prod_{j<=i} a_j`` (a draft counts if all before it were accepted)."""
    total, chain = 1.0, 1.0
    for probability in acceptance:
        chain *= probability
        total += chain
    return total


@dataclass(frozen=True)
class Mixed:
    """Aggregated serving of one instance (columns): seconds, requests per second, requests in flight."""

    tpot_s: Column
    ttft_s: Column
    requests_per_s: Column
    concurrency: Column


def mixed_serving(
    decode_s: Column,
    prefill_s: Column,
    batch: Column,
    chunk: Column,
    shapes: Shapes,
    workload: Workload,
    accept: float,
    most_per_rank: Column | None = None,
) -> Mixed:
    """Prefill and decode share the devices.

    Each request costs the instance ``s = m/(C dp) * P`` seconds of prefill, during which nobody decodes. B = b dp pp
    sequences each need (n-1)/a steps of pp*D seconds, so a generation lasts ``(n-1) * tpot`` with
    ``tpot = pp*D/a + B s/(n-1)``: while one sequence generates, B others are prefilled. X = B / ((n-1) tpot).

    A pass alternates with a decode step, so passes follow each other every P + D seconds. A rank's passes are busy a
    share ``rho = X m/(C dp) (P + D)`` of the time; the wait is that of an M/D/1 queue (Kleinrock, *Queueing Systems* I,
    5.8), ``rho S / (2 (1 - rho))`` with S the request's passes times P + D, plus half a period on arrival.

    ``most_per_rank``: requests/s of a rank that its prefix cache is large enough for; decode steps are then spaced so that no
    more are served, and tpot is at least ``b pp / ((n-1) most)``.
    """
    rounds = workload.output_tokens.mean - 1.0
    running = batch * shapes.dp * shapes.pp
    passes = prefill_passes(chunk, workload)
    per_request = workload.miss_tokens / (chunk * shapes.dp)
    tpot = shapes.pp * decode_s / accept + running * per_request * prefill_s / rounds
    if most_per_rank is not None:
        with np.errstate(divide="ignore"):
            tpot = np.maximum(tpot, batch * shapes.pp / (rounds * most_per_rank))
    rate = running / (rounds * tpot)
    period = prefill_s + decode_s
    busy = rate * per_request * period
    service = np.minimum(passes, workload.miss_tokens / chunk) * period
    with np.errstate(divide="ignore", invalid="ignore"):
        wait = np.where(busy < 1.0, busy * service / (2.0 * (1.0 - busy)), np.inf)
    ttft = period / 2.0 + wait + (passes + shapes.pp - 1.0) * period
    return Mixed(tpot, ttft, rate, running + rate * ttft)


def largest_period(
    ttft_limit_s: float, tpot_s: float, batch: float, chunk: float, dp: float, pp: float, workload: Workload
) -> float:
    """The longest period P + D of an aggregated instance at which TTFT meets its limit, if TPOT is ``tpot_s`` (seconds).

    With A = passes + pp - 1/2, S = sigma p and rho = kappa p, ``A p + kappa sigma p^2 / (2 (1 - kappa p)) = L`` is a quadratic
    in p; its smaller root is returned. A longer TPOT means fewer requests, hence less waiting: the root grows with ``tpot_s``.
    """
    passes = max(math.ceil(workload.miss_tokens / chunk), 1.0)
    sigma = min(passes, workload.miss_tokens / chunk)
    a = passes + pp - 0.5
    kappa = 0.0
    if math.isfinite(tpot_s):
        kappa = batch * pp * workload.miss_tokens / (chunk * (workload.output_tokens.mean - 1.0) * tpot_s)
    b = 2.0 * (a + ttft_limit_s * kappa)
    return 4.0 * ttft_limit_s / (b + math.sqrt(max(b * b + 8.0 * kappa * (sigma - 2.0 * a) * ttft_limit_s, 0.0)))


@dataclass(frozen=True)
class Split:
    """One side of disaggregated serving (columns): capacity in requests per second and, per side, TTFT parts or TPOT."""

    requests_per_s: Column
    seconds: Column


def split_serving(decode_s: Column, batch: Column, shapes: Shapes, workload: Workload, accept: float) -> Split:
    """A decode instance at its full batch: ``tpot = pp D / a`` and ``X = b dp pp / ((n-1) tpot)``."""
    rounds = workload.output_tokens.mean - 1.0
    tpot = shapes.pp * decode_s / accept
    return Split(batch * shapes.dp * shapes.pp / (rounds * tpot), tpot)


def prefill_queue(prefill_s: Column, chunk: Column, shapes: Shapes, workload: Workload) -> tuple[Column, Column, Column]:
    """A prefill instance: ``(capacity requests/s, service seconds of a request on its rank, seconds through the pipeline)``.

    Stages work on different passes, so an instance completes ``C dp / P`` tokens a second; a request passes through
    ``passes + pp - 1`` pass times.
    """
    passes = prefill_passes(chunk, workload)
    capacity = chunk * shapes.dp / (workload.miss_tokens * prefill_s)
    service = np.minimum(passes, workload.miss_tokens / chunk) * prefill_s
    return capacity, service, (passes + shapes.pp - 1.0) * prefill_s


def queue_wait(utilisation: Column, service_s: Column) -> Column:
    """Mean M/D/1 wait ``rho S / (2 (1 - rho))`` (seconds); infinite at or above full use."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(utilisation < 1.0, utilisation * service_s / (2.0 * (1.0 - utilisation)), np.inf)


def utilisation_for_wait(wait_s: Column, service_s: Column) -> Column:
    """The utilisation at which the M/D/1 wait is ``wait_s``: ``2w / (S + 2w)``; 0 where no wait is allowed."""
    wait = np.maximum(wait_s, 0.0)
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(wait), 1.0, 2.0 * wait / (service_s + 2.0 * wait))
    return np.where(wait_s < 0.0, 0.0, share)


def handoff_seconds(
    pieces: ModelPieces, input_tokens: float, shapes: Shapes, levels: tuple[Level, ...], distance: float
) -> Column:
    """Moving a prompt's caches into a decode instance from ``distance`` devices away (seconds, once a request).

    Each of the receiving rank's ``tp * pp`` devices takes its share; what tensor parallelism replicates is received
    once and shared inside. The transfer follows prefill (no layer-wise overlap) and delays the second token.
    """
    size = 0.0
    for window in pieces.windows:
        for block in window.blocks:
            for cache in block.caches:
                if cache.held:
                    size += window.layers * (float(cache.span.entries(input_tokens)) * cache.entry_bytes + cache.fixed_bytes)
    if not levels:
        return np.zeros_like(shapes.tp)
    return point_to_point(size / (shapes.tp * shapes.pp), np.full_like(shapes.tp, distance), levels)


@dataclass(frozen=True)
class Client:
    """How first tokens and decode share the time under a client that holds its requests (see ``held_serving``)."""

    stall: Column | float = 1.0
    request_s: Column | float = 0.0
    steps: Column | float = 1.0
    queue: Column | float = 0.0
    client_s: Column | float = 0.0


def held_ttft(held: Column, decode_s: Column, own_s: Column, passes: Column, client: Client) -> Column:
    """Mean time to a first token (s) without waiting for room: the request's own passes, ``steps`` decode steps for each, what
    it waits for others' prefills, and what the client and the server's front end take."""
    waiting = client.queue * held * own_s + client.client_s * held
    return np.asarray(client.request_s + own_s + client.steps * decode_s * passes + waiting)


LEAST_STEP = 0.2
"""A step far below the batches that its line was drawn through takes at least this share of the one above them: a guard of the
iteration, far under any step at half the batch."""
ROUNDS = 24
"""Each halves the distance to the fixed point."""


def held_serving(
    held: Column,
    capacity: Column,
    decode_s: Column,
    slope_s: Column,
    at: Column,
    prefill_s: Column,
    own_s: Column,
    passes: Column,
    osl: Column,
    client: Client,
) -> tuple[Column, Column, Column]:
    """``(batch, tpot, ttft)`` of a rank whose client holds ``held`` requests of equal length and sends one when one is done.

    A step takes ``decode_s + slope_s (b - at)`` at batch b. Each request costs its rank ``prefill_s``; of that decode waits for
    the share ``stall``: ``tpot = D + stall b s / (n-1)``, all of it where requests end one by one, less where equal requests
    end, and so start, together (then one waits before its first token instead). A request decodes for ``(n-1) tpot`` of its
    ``(n-1) tpot + ttft``, so ``b = held (n-1) tpot / ((n-1) tpot + ttft)`` sequences decode (Little's law), at most
    ``capacity``: what has no room waits, and its wait counts in TTFT. The fixed point is found by damped iteration.
    """
    rounds = np.maximum(osl - 1.0, 1.0)
    most = np.maximum(np.minimum(held, capacity), np.minimum(held, 1.0))
    batch = most
    for _ in range(ROUNDS):
        step = np.maximum(decode_s + slope_s * (batch - at), LEAST_STEP * decode_s)
        tpot = step + client.stall * batch * prefill_s / rounds
        ttft = held_ttft(held, step, own_s, passes, client)
        decoding = held * rounds * tpot / (rounds * tpot + ttft)
        batch = 0.5 * batch + 0.5 * np.minimum(np.maximum(decoding, np.minimum(held, 1.0)), most)
    wait = np.maximum(held - batch * (1.0 + ttft / (rounds * tpot)), 0.0) * rounds * tpot / batch
    return batch, tpot, ttft + np.where(held > capacity, wait, 0.0)
