"""The least-squares fit of a runtime's figures to measured times: few, physical, bounded, pooled.

Every figure is fitted in its logarithm with a Gaussian prior. What each runtime has of its own is pulled to the mean over
runtimes (``pool`` = standard deviation of the difference) and the mean to its prior (``spread``), so that what is measured on few
points inherits from the rest; what is measured on none is the mean. Residuals are of ``log(predicted / measured)`` with a
pseudo-Huber loss (Hartley and Zisserman, *Multiple View Geometry*, appendix 6.8), near absolute error beyond ``KINK``, because
labels are sometimes wrong. Steps are Gauss-Newton with Levenberg's damping, Jacobians in closed form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.accuracy.parts import KINDS, PARTS, Frame, Parts
from planner.footprint.shapes import Column
from planner.performance import Client, held_serving, held_ttft

Vector = NDArray[np.float64]
KINK = 0.1
"""Where the loss turns from square to absolute, in log time."""


@dataclass(frozen=True)
class Family:
    """One figure of every runtime (or of every generation of devices, where ``own`` says so)."""

    name: str
    prior: float
    spread: float
    pool: float
    lowest: float = 1e-9
    highest: float = 1e9
    of: str = "runtime"


TPOT_FAMILIES = (
    Family("attention_s", 35e-6, 0.5, 0.4),
    Family("mlp_s", 13e-6, 0.7, 0.4),
    Family("moe_s", 56e-6, 0.5, 0.4),
    Family("matrix_s", 5e-6, 0.5, 0.4),
    Family("step_s", 1e-3, 1.0, 0.7),
    Family("sequence_s", 6e-6, 1.0, 0.7),
    Family("dense", 0.8, 0.15, 0.1, 0.2, 1.0),
    Family("routed", 0.25, 0.7, 0.4, 0.02, 1.0),
    Family("attention", 0.5, 0.3, 0.2, 0.1, 1.0),
    Family("routed_read", 0.9, 0.2, 0.15, 0.4, 1.1),
    Family("cache_read", 0.8, 0.2, 0.15, 0.4, 1.1),
    Family("all_reduce", 1.0, 0.5, 0.3, 0.3, 4.0),
    Family("all_to_all", 1.0, 0.5, 0.3, 0.3, 4.0),
    Family("stall", 0.75, 0.3, 0.3, 0.4, 1.0),
    Family("floors", 1.0, 0.2, 0.2, 0.4, 2.5, "generation"),
)
"""Floors of layers, the step and the shares of peaks begin where ``generic`` does, whose floors come of an older fit to results
of the same benchmark: the start of the fit is therefore no unfitted score (that is the runtime ``first-principles``).
``spread`` and ``pool`` say how far a figure may lie from there, and from other runtimes, in its logarithm."""

TTFT_FAMILIES = (
    Family("request_s", 20e-3, 1.0, 0.7),
    Family("first_token_steps", 1.0, 0.7, 0.3, 0.1, 20.0),
    Family("queue", 0.1, 1.5, 1.0, 1e-4, 1.0),
    Family("client_s", 0.1e-3, 1.5, 1.0),
)


@dataclass(frozen=True)
class Space:
    """Where each family's figures stand in the vector, and the prior as a quadratic form."""

    families: tuple[Family, ...]
    runtimes: tuple[str, ...]
    generations: tuple[str, ...]

    def count(self, family: Family) -> int:
        """Figures of a family."""
        return len(self.runtimes if family.of == "runtime" else self.generations)

    @property
    def size(self) -> int:
        """All figures."""
        return sum(self.count(family) for family in self.families)

    def slices(self) -> dict[str, slice]:
        """Family -> its place."""
        found, start = {}, 0
        for family in self.families:
            found[family.name] = slice(start, start + self.count(family))
            start += self.count(family)
        return found

    def prior(self) -> tuple[Vector, Vector, Vector, Vector]:
        """``(mean, precision, lowest, highest)`` in logarithms."""
        mean, low, high = np.zeros(self.size), np.zeros(self.size), np.zeros(self.size)
        precision = np.zeros((self.size, self.size))
        for family in self.families:
            here, n = self.slices()[family.name], self.count(family)
            mean[here] = math.log(family.prior)
            low[here], high[here] = math.log(family.lowest), math.log(family.highest)
            average = np.full((n, n), 1.0 / n)
            precision[here, here] = average / family.spread**2 + (np.eye(n) - average) / family.pool**2
        return mean, precision, low, high


@dataclass(frozen=True)
class Table:
    """Points ready to be fitted: n rows. ``high`` and ``low``: parts of a decode step at two batches of a rank."""

    runtime: NDArray[np.intp]
    generation: NDArray[np.intp]
    frame: Frame
    high: Parts
    low: Parts
    packed: Parts
    own: Parts
    batch_high: Column
    batch_low: Column
    stated_batch: Column
    held: Column
    capacity: Column
    isl: Column
    osl: Column
    chunk: Column
    pp: Column
    tpot_s: Column
    ttft_s: Column

    def take(self, index: NDArray[np.intp]) -> Table:
        """The rows of ``index``."""
        changes: dict[str, object] = {}
        for name, value in vars(self).items():
            if isinstance(value, Parts):
                changes[name] = Parts(value.seconds[index])
            elif isinstance(value, Frame):
                changes[name] = Frame(value.kind[index], value.repeats[index], value.more[index])
            else:
                changes[name] = value[index]
        return replace(self, **changes)  # type: ignore[arg-type]

    def decode(self, batch: Column) -> Parts:
        """Parts of a decode step at any batch, on the line through both."""
        span = np.maximum(self.batch_high - self.batch_low, 1e-9)
        return self.low.between(self.high, (batch - self.batch_low) / span)

    @property
    def prefill_share(self) -> Column:
        """Packed passes that one request costs its rank."""
        return np.where(self.chunk > 0.0, self.isl / np.maximum(self.chunk, 1.0), 0.0)

    @property
    def passes(self) -> Column:
        """Passes of a request that runs alone."""
        return np.where(self.chunk > 0.0, np.ceil(self.isl / np.maximum(self.chunk, 1.0)), 0.0)

    @property
    def own_share(self) -> Column:
        """Seconds of a request's passes over those of its first."""
        return np.where(self.chunk > 0.0, self.isl / np.minimum(np.maximum(self.chunk, 1.0), self.isl), 0.0)


class Model:
    """Times of a table's rows and their derivatives under figures of ``space`` (logarithms)."""

    def __init__(self, table: Table, space: Space) -> None:
        self.table, self.space = table, space
        self._at = space.slices()
        self._column = {family.name: (table.runtime if family.of == "runtime" else table.generation) for family in space.families}

    def value(self, x: Vector, name: str) -> Column:
        """A figure of each row."""
        return np.asarray(np.exp(x[self._at[name]][self._column[name]]))

    def _spread(self, rows: dict[str, Column]) -> Vector:
        """Derivatives by family [n] as a Jacobian [n, size]."""
        found = np.zeros((len(self.table.isl), self.space.size))
        for name, column in rows.items():
            found[np.arange(len(column)), self._at[name].start + self._column[name]] = column
        return found

    def pass_seconds(self, x: Vector, parts: Parts, sequences: Column) -> tuple[Column, dict[str, Column]]:
        """A pass of the slowest stage, and its derivative by the logarithm of each figure."""
        frame, scale = self.table.frame, self.value(x, "floors")
        part = np.moveaxis(parts.seconds, 2, 0)
        over = {name: part[i] / self.value(x, name)[:, None] for i, name in enumerate(PARTS[:3])}
        over["static"] = part[3]
        over["routed_read"] = part[4] / self.value(x, "routed_read")[:, None]
        over["cache_read"] = part[5] / self.value(x, "cache_read")[:, None]
        over["all_reduce"] = part[6] * self.value(x, "all_reduce")[:, None]
        over["all_to_all"] = part[7] * self.value(x, "all_to_all")[:, None]
        compute = over["dense"] + over["routed"] + over["attention"]
        memory = over["static"] + over["routed_read"] + over["cache_read"]
        bound = compute > memory
        floors = {f"{kind}_s": (frame.kind == i) * self.value(x, f"{kind}_s")[:, None] for i, kind in enumerate(KINDS)}
        floors["matrix_s"] = frame.more * self.value(x, "matrix_s")[:, None]

        def total(blocks: NDArray[np.float64]) -> Column:
            return np.asarray(np.sum(blocks * frame.repeats, axis=1))

        rows = {name: total(blocks) * scale for name, blocks in floors.items()}
        rows["step_s"] = self.value(x, "step_s") * scale
        rows["sequence_s"] = self.value(x, "sequence_s") * sequences * scale
        rows["floors"] = sum(rows.values(), np.zeros(len(scale)))
        for name in PARTS[:3]:
            rows[name] = -total(np.where(bound, over[name], 0.0))
        for name in ("routed_read", "cache_read"):
            rows[name] = -total(np.where(bound, 0.0, over[name]))
        for name in ("all_reduce", "all_to_all"):
            rows[name] = total(over[name])
        seconds = rows["floors"] + total(np.maximum(compute, memory)) + rows["all_reduce"] + rows["all_to_all"]
        return seconds, rows

    def tpot(self, x: Vector, batch: Column) -> tuple[Column, Vector]:
        """TPOT at running batches, and the Jacobian."""
        table = self.table
        step, of_step = self.pass_seconds(x, table.decode(batch), batch)
        packed, of_packed = self.pass_seconds(x, table.packed, np.zeros_like(batch))
        stall = self.value(x, "stall")
        weight = stall * batch * table.prefill_share / np.maximum(table.osl - 1.0, 1.0)
        rows = {name: table.pp * of_step[name] + weight * of_packed[name] for name in of_step}
        rows["stall"] = weight * packed
        return table.pp * step + weight * packed, self._spread(rows)

    def times(self, x: Vector, client: Client, factor: Column | float = 1.0) -> tuple[Column, Column, Column]:
        """``(batch, tpot, ttft)`` in the closed loop; rows that state their batch have that. ``factor`` corrects every
        pass."""
        table = self.table
        high, _ = self.pass_seconds(x, table.high, table.batch_high)
        low, _ = self.pass_seconds(x, table.low, table.batch_low)
        packed, _ = self.pass_seconds(x, table.packed, np.zeros_like(high))
        own, _ = self.pass_seconds(x, table.own, np.zeros_like(high))
        high, low, packed, own = high * factor, low * factor, packed * factor, own * factor
        slope = table.pp * (high - low) / np.maximum(table.batch_high - table.batch_low, 1e-9)
        batch, tpot, ttft = held_serving(
            table.held,
            table.capacity,
            table.pp * high,
            slope,
            table.batch_high,
            packed * table.prefill_share,
            own * table.own_share,
            table.passes,
            table.osl,
            replace(client, stall=self.value(x, "stall")),
        )
        stated = np.isfinite(table.stated_batch)
        return (
            np.where(stated, table.stated_batch, batch),
            np.where(stated, table.pp * high, tpot),
            np.where(stated, np.nan, ttft),
        )

    def own_seconds(self, x: Vector) -> Column:
        """Seconds of a request's own prefill passes."""
        own, _ = self.pass_seconds(x, self.table.own, np.zeros_like(self.table.isl))
        return own * self.table.own_share


def squared(slope: Vector, weight: Column) -> Vector:
    """``slope' diag(weight) slope`` [size, size], summed in one order: a linear-algebra library's threads add in another, and
    on a busy machine wait for one another longer than they compute."""
    return np.asarray(np.einsum("ni,nj->ij", slope * weight[:, None], slope))


def solve(
    space: Space,
    function: Callable[[Vector], tuple[Column, Vector]],
    measured: Column,
    start: Vector | None = None,
    steps: int = 40,
) -> Vector:
    """Figures (logarithms) that minimise the loss of ``log(function / measured)`` plus the prior's."""
    mean, precision, low, high = space.prior()
    target = np.log(measured)

    def loss(residual: Column, x: Vector) -> float:
        robust = KINK**2 * (np.sqrt(1.0 + (residual / KINK) ** 2) - 1.0)
        return float(np.sum(robust) + 0.5 * KINK**2 * (x - mean) @ precision @ (x - mean))

    x = np.clip(mean if start is None else start, low, high)
    value, jacobian = function(x)
    residual, damping = np.log(value) - target, 1e-3
    best = loss(residual, x)
    for _ in range(steps):
        slope = jacobian / value[:, None]
        weight = 1.0 / np.sqrt(1.0 + (residual / KINK) ** 2)
        hessian = squared(slope, weight) + KINK**2 * precision
        gradient = np.einsum("ni,n->i", slope, weight * residual) + KINK**2 * precision @ (x - mean)
        free = np.flatnonzero(~(((x <= low) & (gradient > 0.0)) | ((x >= high) & (gradient < 0.0))))
        for _ in range(8):
            damped = hessian + damping * np.diag(np.diag(hessian))
            move = np.zeros_like(x)
            move[free] = -np.linalg.solve(damped[np.ix_(free, free)], gradient[free])
            trial = np.clip(x + np.clip(move, -0.5, 0.5), low, high)
            value_at, jacobian_at = function(trial)
            residual_at = np.log(value_at) - target
            found = loss(residual_at, trial)
            if found < best:
                break
            damping = max(damping, 1e-4) * 5.0
        else:
            break
        gain, best = best - found, found
        x, value, jacobian, residual = trial, value_at, jacobian_at, residual_at
        damping = max(damping / 4.0, 1e-7)
        if gain < 1e-6 * best:
            break
    return x


def ttft_function(
    table: Table, space: Space, own_s: Column, decode_s: Column, extra_s: Column
) -> Callable[[Vector], tuple[Column, Vector]]:
    """TTFT of a table's rows under the figures of ``TTFT_FAMILIES``; ``extra_s``: the wait for room."""
    at = space.slices()

    def function(x: Vector) -> tuple[Column, Vector]:
        figures = {name: np.exp(x[at[name]][table.runtime]) for name in at}
        client = Client(1.0, figures["request_s"], figures["first_token_steps"], figures["queue"], figures["client_s"])
        seconds = held_ttft(table.held, decode_s, own_s, table.passes, client) + extra_s
        rows = {
            "request_s": figures["request_s"],
            "first_token_steps": figures["first_token_steps"] * decode_s * table.passes,
            "queue": figures["queue"] * table.held * own_s,
            "client_s": figures["client_s"] * table.held,
        }
        jacobian = np.zeros((len(seconds), space.size))
        for name, column in rows.items():
            jacobian[np.arange(len(column)), at[name].start + table.runtime] = column
        return seconds, jacobian

    return function
