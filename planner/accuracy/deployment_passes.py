"""The passes of a published deployment: model, hardware, engine and shape as its labels give them, items where it put them.

What a label leaves open has one default for all rows: ``generic`` where the catalogue has no profile of the engine (one of its
version, ``NAME-MAJOR-MINOR``, goes before one of its name), the engine's own chunk, one acceptance probability for every draft
token, and storage formats that a row states count as formats its engine can run. Nothing here is fitted to any row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

import numpy as np
from pydantic import ValidationError

from planner.accuracy.deployments import Deployment, shares
from planner.architecture import Model, load_model
from planner.documents import explain_validation
from planner.errors import PlannerError
from planner.footprint import ModelPieces, Shapes
from planner.footprint.shapes import Column
from planner.hardware import HardwareSelection, load_hardware, with_estimates
from planner.performance import PassTimes, Rates
from planner.performance.load import decode_load, prefill_load
from planner.performance.passes import pass_times
from planner.plans.context import PoolContext, build_context
from planner.plans.evaluate import decode_pass, prefill_pass
from planner.plans.inputs import WEIGHT_FORMATS, Inputs, Options
from planner.plans.lp import Array
from planner.plans.tiers import TierProblem, build_tier_problem, evaluate_shares
from planner.prices import OwnedPrices, load_prices
from planner.runtimes import RUNTIMES, Runtime, load_runtime
from planner.workload import Lengths, Workload

CHUNK = 8192.0
"""Tokens of a prefill pass and rank where neither the row nor the engine's profile says."""


@lru_cache(maxsize=64)
def catalogue_model(name: str) -> Model:
    return load_model(name)


@lru_cache(maxsize=64)
def catalogue_hardware(name: str) -> HardwareSelection:
    base, _, count = name.partition(":")
    if count:
        return catalogue_hardware(base).model_copy(update={"count": int(count)})
    return with_estimates(load_hardware(name))


@lru_cache(maxsize=1)
def owned_prices() -> OwnedPrices:
    return load_prices("owned")


Engines = Callable[[str], Runtime]
"""A runtime's id to the runtime: the catalogue's as calibrated, or another in its place."""


def engine_name(name: str, version: str) -> str:
    """The catalogue's profile of an engine: that of its version, of its name, or ``generic``."""
    of_version = "-".join((name, *version.split(".")[:2]))
    return next((one for one in (of_version, name) if one in RUNTIMES.ids), "generic")


def acceptance(length: float, drafts: int) -> tuple[float, ...]:
    """One probability for each of ``drafts`` tokens at which a step yields ``length`` tokens: ``a + a^2 + … = length - 1``."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if sum(middle**i for i in range(1, drafts + 1)) < length - 1.0 else (low, middle)
    return (high,) * drafts


def workload_of(row: Deployment) -> Workload:
    """Lengths, hits and acceptance as the labels give them; a decode row that states only its context has that, unspread."""
    isl, osl = row.isl, row.osl
    if row.phase == "prefill" or isl is None or osl is None:
        isl, osl = (row.isl or 1.0, 2.0) if row.phase == "prefill" else (max((row.context or 2.0) - 1.0, 1.0), 2.0)
    drafts = row.mtp or 0
    return Workload(
        id=row.id[:64],
        input_tokens=Lengths(mean=isl),
        output_tokens=Lengths(mean=max(osl, 2.0)),
        prefix_hit=row.prefix_hit or 0.0,
        acceptance=acceptance(row.accept_length or 1.0, drafts) if drafts else None,
        source=row.source,
        as_of=date(2026, 11, 22),
        grade="C",
    )


def _runtime_of(row: Deployment, engines: Engines) -> Runtime:
    """The engine's profile, able to run the formats that the row says it ran, balanced where experts were."""
    runtime = engines(engine_name(row.runtime, row.version))
    formats = {t.format for b in catalogue_model(row.model).blocks for g in b.weights for t in g.tensors}
    if row.weight_dtype != "native":
        formats = {WEIGHT_FORMATS[row.weight_dtype]}
    quantised = tuple(sorted(formats - set(runtime.dequantises) - {"bf16", "fp32"}))
    changes: dict[str, object] = {"dequantises": (*runtime.dequantises, *quantised), "streaming": True}
    if row.overlap:
        changes["overlap_communication"] = True
    if row.balanced:
        changes["imbalance"] = runtime.imbalance.model_copy(update={"value": 1.0, "low": 1.0})
    return runtime.model_copy(update=changes)


def pool_of(row: Deployment, engines: Engines = load_runtime, hardware: str | None = None) -> PoolContext:
    """The pool of the row's instance (on ``hardware`` in place of its own).

    ``InputError`` where a part of it is not in the catalogue, or one refuses another.
    """
    assert row.devices
    name = hardware or row.hardware
    system = catalogue_hardware(name).system
    selection = catalogue_hardware(f"{name}:{max(math.ceil(row.devices / system.devices), 1)}")
    try:
        options = Options(
            weight_dtype=None if row.weight_dtype == "native" else row.weight_dtype,
            kv_dtype=(row.kv_dtype or "bf16",),
            mtp=(row.mtp or 0,),
        )
        inputs = Inputs(
            model=catalogue_model(row.model),
            hardware={"mixed": selection},
            workload=workload_of(row),
            runtime=_runtime_of(row, engines),
            prices=owned_prices(),
            options=options,
        )
    except ValidationError as error:
        raise explain_validation(error, row.id) from None
    return build_context(inputs).pools["mixed"]


def memories_of(row: Deployment, pool: PoolContext) -> tuple[str, ...]:
    """Kinds of memory that hold something of the row's: the device's own, those its placement names, DDR where experts lie."""
    roles = set(row.tiers)
    kinds = [pool.rates.memory_kind, *(tier.kind for tier in pool.rates.tiers if tier.role in roles)]
    return tuple(dict.fromkeys(kinds + (["ddr"] if row.experts_on else [])))


def shapes_of(tp: int | None, dp: int | None, ep: int | None, pp: int | None, rows: int = 1) -> Shapes:
    """Rows of one shape; what is not given is 1."""
    each = [np.full(rows, float(number or 1)) for number in (tp, dp, ep)]
    return Shapes(each[0], each[1], each[2], pp or 1)


def widened(shapes: Shapes, rows: int) -> Shapes:
    """One shape on so many rows."""
    return shapes_of(int(shapes.tp[0]), int(shapes.dp[0]), int(shapes.ep[0]), shapes.pp, rows)


@dataclass(frozen=True)
class Instance:
    """One instance of a row: seconds of its passes on the slowest stage, by batch or chunk per rank (columns)."""

    row: Deployment
    pool: PoolContext
    prefilling: Shapes
    decoding: Shapes
    engines: Engines = load_runtime

    def decode(self, batch: Column) -> Column:
        """Seconds of a decode step."""
        return self._seconds("decode", widened(self.decoding, len(batch)), batch)

    def prefill(self, chunk: Column) -> Column:
        """Seconds of a prefill pass."""
        return self._seconds("prefill", widened(self.prefilling, len(chunk)), chunk)

    @property
    def chunk(self) -> float:
        """Tokens of a prefill pass and rank: as the row says, else as the engine does unasked."""
        if self.row.chunk:
            return self.row.chunk
        runtime = self.pool.inputs.runtime
        stock = runtime.stock_prefill_tokens(self.pool.rates.memory_bytes, int(self.prefilling.dp[0]))
        return float(stock or CHUNK)

    def _seconds(self, phase: str, shapes: Shapes, carried: Column) -> Column:
        if self.row.experts_on:
            return self._beside_processors(phase, shapes, carried)
        if self.row.weights_on or shares(self.row.cache_on)[0] != "hits" and self.row.cache_on:
            return np.array([self._placed(phase, float(one)) for one in carried]) * self.pool.rates.residual
        run = decode_pass if phase == "decode" else prefill_pass
        return run(self.pool, shapes, carried).slowest_stage() * self.pool.rates.residual

    def _beside_processors(self, phase: str, shapes: Shapes, carried: Column) -> Column:
        """Seconds of a pass whose routed experts are computed by the host's processors, all else by the device, in turns.

        The sockets hold every expert and share each one's work; what crosses the bus is a token's hidden state both ways, which
        is small beside either part.
        """
        system, _, sockets = self.row.experts_on.partition(":")
        other = pool_of(self.row, self.engines, system)
        rest = _pass(_without_experts(self.pool.pieces), self.pool.rates, self.pool, phase, shapes, carried)
        host = shapes_of(int(sockets or 1), 1, 1, 1, len(carried))
        experts = _pass(_experts_alone(other.pieces), processor_rates(other), other, phase, host, carried)
        return (rest + experts) * self.pool.rates.residual

    def _placed(self, phase: str, carried: float) -> float:
        """Seconds of a pass with items where the row says they lie, or where the placement problem puts them."""
        shapes = self.decoding if phase == "decode" else self.prefilling
        column = np.array([carried])
        times: dict[str, PassTimes] = {
            phase: decode_pass(self.pool, shapes, column) if phase == "decode" else prefill_pass(self.pool, shapes, column)
        }
        workload, runtime = self.pool.inputs.workload, self.pool.inputs.runtime
        requests = carried if phase == "decode" else max(carried / workload.miss_tokens, 1.0)
        problem = build_tier_problem(
            self.pool.pieces,
            shapes,
            self.pool.rates,
            times,
            {phase: 1.0},
            requests,
            workload.reserved_tokens,
            runtime.page_tokens,
            0.0,
            self.pool.tiers,
        )
        return evaluate_shares(problem, _shares_of(self.row, self.pool, problem)).phase_s[phase]


def _shares_of(row: Deployment, pool: PoolContext, problem: TierProblem) -> Array:
    """Shares of every choice as the row states them: the same split of all weights, of all caches, or of all tables.

    Of several ways to bring an item from one memory the first counts: streams, or for tables what tokens ask for ahead.
    """
    scope, weights = shares(row.weights_on)
    if scope == "optimum":
        from planner.search.tier_lp import solve_tiers

        found = solve_tiers(problem)
        if found is None:
            raise PlannerError("no placement fits the memories that the row names")
        return found.point.values[: len(problem.choices)]
    tables, rest = (weights, {}) if scope == "tables" else ({}, weights)
    by_kind = {"lookup": tables or rest, "cache": shares(row.cache_on)[1]}
    roles = {tier.id: tier.role for tier in pool.rates.tiers} | {pool.rates.memory_id: "device"}
    found_shares, taken = np.zeros(len(problem.choices)), set()
    for index, choice in enumerate(problem.choices):
        item = problem.items[choice.item]
        split = by_kind.get(item.kind, rest) or {"device": 1.0}
        key = (choice.stage, choice.item, roles[choice.tier])
        if key not in taken and roles[choice.tier] in split:
            taken.add(key)
            found_shares[index] = split[roles[choice.tier]]
    return found_shares


def processor_rates(pool: PoolContext) -> Rates:
    """The rates of a host's sockets for experts: of the engine's own kernels where its profile says, else the part's."""
    rates, runtime = pool.rates, pool.inputs.runtime
    rates = replace(rates, floors={**rates.floors, "step": 0.0, "sequence": 0.0})
    found = {} if runtime.cpu is None else {name: rate.value for name, rate in runtime.cpu if rate is not None}
    if not found:
        return rates
    used = {stored: next((found[one] for one in names if one in found), None) for stored, names in runtime.computes.items()}
    measured = {stored: rate for stored, rate in used.items() if rate is not None} | found
    (curve, factor), efficiency = next(iter(rates.curve.values())), rates.efficiency["routed"]
    flat = (curve.model_copy(update={"points": ((1.0, 1.0), (2.0, 1.0))}), factor)
    return replace(
        rates,
        peak={name: peak * efficiency for name, peak in rates.peak.items()} | measured,
        curve=rates.curve | dict.fromkeys(measured, flat),
        knee_rows=rates.knee_rows | dict.fromkeys(measured, 1.0),
        efficiency={**rates.efficiency, "routed": 1.0},
    )


def _pass(pieces: ModelPieces, rates: Rates, pool: PoolContext, phase: str, shapes: Shapes, carried: Column) -> Column:
    workload = pool.inputs.workload
    load = decode_load(carried, workload, pieces, rates) if phase == "decode" else prefill_load(carried, workload, pieces)
    return pass_times(pieces, shapes, rates, load).slowest_stage()


def _without_experts(pieces: ModelPieces) -> ModelPieces:
    windows = tuple(replace(w, blocks=tuple(replace(b, routed=None) for b in w.blocks)) for w in pieces.windows)
    return replace(pieces, windows=windows)


def _experts_alone(pieces: ModelPieces) -> ModelPieces:
    windows = []
    for window in pieces.windows:
        blocks = tuple(
            replace(b, gemms=(), flops=(), caches=(), lookups=(), static=replace(b.static, parts=()))
            for b in window.blocks
            if b.routed
        )
        windows.append(replace(window, blocks=blocks))
    return replace(pieces, windows=tuple(windows))


def instance_of(row: Deployment, engines: Engines = load_runtime) -> tuple[Instance, float]:
    """The row's instance and how many of them there are."""
    assert row.devices and row.tp and row.dp and row.pp
    decoding = shapes_of(row.tp, row.dp, row.ep, row.pp)
    prefilling, width = decoding, row.tp * row.dp * row.pp
    if row.phase == "serve" and row.mode == "disagg":
        assert row.prefill_tp and row.prefill_dp
        prefilling = shapes_of(row.prefill_tp, row.prefill_dp, row.prefill_ep, 1)
        width += row.prefill_tp * row.prefill_dp
    return Instance(row, pool_of(row, engines), prefilling, decoding, engines), row.devices / width
