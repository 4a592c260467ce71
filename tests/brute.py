"""Whole small problems, drawn at random, and every decision of their declared space evaluated one by one: no bounds, no cells,
no ortools."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import small

from planner.architecture import Model
from planner.errors import InfeasibleError, InputError
from planner.plans import Inputs, Plan
from planner.plans.constraints import parse_constraints
from planner.plans.context import Context, PoolContext, build_context
from planner.plans.decision import Decision, PoolDecision
from planner.plans.evaluate import memory_need
from planner.plans.inputs import Variant
from planner.plans.operate import operate
from planner.plans.space import PoolSpace, Space, declare_space
from planner.plans.states import pool_problem
from planner.plans.worth import checks, operation_objective
from planner.search import solve

SAME = 1e-9
"""Relative room between the optimum found and that of every decision."""

Shares = np.ndarray
PINS = ("tp=1", "tp=2", "batch_per_rank>=2", "batch_per_rank<=1", "units=1", "serving=aggregated", "serving=disaggregated",
        "decode.tp=1", "KV cache@hbm", "weights@host,ssd", "instance_devices<=1", "pp=1", "decode.batch_per_rank=2")  # fmt: skip
BANS = ("tp=1", "serving=aggregated", "weights@hbm", "pp=1", "KV cache@hbm", "serving=disaggregated", "KV cache@host")


@cache
def models(name: str) -> Model:
    """Three models of a few million parameters."""
    if name == "experts":
        return small.experts(layers=3)
    if name == "wide":
        return small.llama(layers=2, hidden=512, inner=1024, vocabulary=512)
    return small.llama(layers=4, hidden=256, inner=512, vocabulary=512)


@dataclass(frozen=True)
class Best:
    """The best value of the objective over the space (``None``: nothing meets the limits) and the decisions evaluated."""

    value: float | None
    evaluated: int


def problem(seed: int) -> Inputs:
    """One to four devices, a small model, one memory or several below, and some limits, pins and variants."""
    rng = np.random.default_rng(seed)

    def one(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    name = one("llama", "llama", "wide", "experts")
    devices, count = one((1, 1), (2, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 3))
    weights = {"llama": 10e6, "wide": 13e6, "experts": 26e6}[name]
    node = small.node(
        devices,
        one(1, 1, devices),
        weights * one(3.0, 1.5, 1.0, 0.8),
        host_bytes=one(1e9, 1e9, 1e9, weights),
        host_bytes_per_s=one(50e9, 5e9),
    )
    ttft, tpot = one(None, None, None, 8e-3, 2e-3, 8e-4, 3e-4), one(None, None, None, 2e-3, 6e-4, 2e-4, 8e-5)
    load = small.workload(isl=one(64, 256), osl=one(16, 64), ttft_s=ttft, tpot_s=tpot, hit=one(0.0, 0.0, 0.5))
    disaggregated, aggregated = one(True, True, False), one(True, True, False)
    options: dict[str, Any] = {"objective": one("cost", "throughput", "latency"), "gap": 0.0}
    if rng.random() < 0.2:
        options["tiers"] = one(("hbm",), ("hbm", "host"), ("hbm", "ssd"))
    limits = {"max_usd_per_hour": (4.0, 13.0, 26.0), "max_power_kw": (2.0, 6.0, 12.0), "devices": (1, 2, 3), "spare": (1,),
              "rate": (10.0, 100.0, 400.0, 2000.0), "concurrency": (1, 3, 6)}  # fmt: skip
    for key in rng.permutation(sorted(limits))[: one(0, 0, 1, 1, 2)]:
        options[str(key)] = one(*limits[str(key)])
    if "concurrency" in options and ttft is None:  # bounds then take requests to wait for no time
        disaggregated = False
    pins = tuple(rng.choice(PINS, one(1, 1, 2), replace=False)) if rng.random() < 0.3 else ()
    bans = tuple(rng.choice(BANS, 1)) if rng.random() < 0.25 else ()
    options["constraints"] = parse_constraints([str(p) for p in pins], [str(b) for b in bans])
    if rng.random() < 0.2:
        options["kv_dtype"] = one(("bf16", "fp8"), ("fp8",))
    if name == "experts" and rng.random() < 0.3:
        options["mtp"] = one((0, 1), (1,))
    software = small.runtime(
        one(1, 2, 2), one((64,), (256,), (64, 256)), aggregated=aggregated, disaggregated=disaggregated or not aggregated
    )
    return small.instance(models(name), node, count, load, software, **options)


def shapes_of(space: PoolSpace) -> list[tuple[int, int, int, int, int]]:
    """``(tp, dp, ep, pp, cp)`` of every shape."""
    return [(int(s.tp[i]), int(s.dp[i]), int(s.ep[i]), s.pp, int(s.cp[i])) for s in space.shapes for i in range(len(s.tp))]


class Walk:
    """Every decision of one variant of a problem."""

    def __init__(self, inputs: Inputs, variant: Variant) -> None:
        self.context: Context = build_context(inputs, variant)
        self.space: Space = declare_space(self.context)
        self.evaluated = 0
        self._placed: dict[PoolDecision, list[Shares]] = {}

    def values(self) -> Iterator[float]:
        """The objective of every decision that meets every limit."""
        decisions = list(self._aggregated() if self.space.aggregated else ())
        decisions += list(self._disaggregated() if self.space.disaggregated else ())
        for decision, shares in decisions:
            value = self._value(decision, shares)
            if value is not None:
                yield value

    def _value(self, decision: Decision, shares: tuple[Shares, ...]) -> float | None:
        self.evaluated += 1
        try:
            operation = operate(self.context, decision, shares)
        except InputError:  # serves nothing within the limit on TTFT
            return None
        if math.isfinite(operation.ttft_s) and all(check.holds for check in checks(self.context, operation)):
            return operation_objective(self.context, operation)
        return None

    def _aggregated(self) -> Iterator[tuple[Decision, tuple[Shares, ...]]]:
        space, pool = self.space.pools["mixed"], self.context.pools["mixed"]
        for tp, dp, ep, pp, cp in shapes_of(space):
            for chunk in space.chunks:
                for batch in range(space.least_batch, space.batches + 1):
                    placed = self._placements(pool, PoolDecision("mixed", 1, tp, dp, ep, pp, batch, chunk, cp=cp))
                    for units in range(space.least_units, space.units + 1):
                        most = min(units * pool.unit_devices, space.devices) // (tp * dp * pp)
                        for replicas in range(1, most + 1):
                            decision = PoolDecision("mixed", replicas, tp, dp, ep, pp, batch, chunk, cp=cp)
                            for shares in placed:
                                yield Decision((decision,), (units,), self.context.variant), (shares,)

    def _disaggregated(self) -> Iterator[tuple[Decision, tuple[Shares, ...]]]:
        spaces = self.space.pools
        before, after = (spaces.get(phase) or spaces["mixed"] for phase in ("prefill", "decode"))
        first = [PoolDecision("prefill", 1, tp, dp, ep, pp, 0, chunk, cp=cp)
                 for tp, dp, ep, pp, cp in shapes_of(before) for chunk in before.chunks]  # fmt: skip
        second = [PoolDecision("decode", 1, tp, dp, ep, pp, batch, 0, cp=cp)
                  for tp, dp, ep, pp, cp in shapes_of(after)
                  for batch in range(after.least_batch, after.batches + 1)]  # fmt: skip
        for p_devices, d_devices, units, _ in self.space.splits:
            for prefill in first:
                for decode in second:
                    counts = p_devices // prefill.instance_devices, d_devices // decode.instance_devices
                    if min(counts) < 1:
                        continue
                    pools = replace(prefill, replicas=counts[0]), replace(decode, replicas=counts[1])
                    for one in self._placements(self.context.pool("prefill"), prefill):
                        for other in self._placements(self.context.pool("decode"), decode):
                            yield Decision(pools, (units,), self.context.variant), (one, other)

    def _placements(self, pool: PoolContext, decision: PoolDecision) -> list[Shares]:
        """All in device memory where that fits and is allowed; else the best placement and, where TTFT is limited, the best of
        those within the longest period that keeps it."""
        if decision not in self._placed:
            self._placed[decision] = list(self._best(pool, decision))
        return self._placed[decision]

    def _best(self, pool: PoolContext, decision: PoolDecision) -> Iterator[Shares]:
        if not pool.displaced and memory_need(pool, decision.row()).short[0] <= 0.0:
            problem, _ = pool_problem(pool, decision)
            yield np.array([1.0 if choice.mode == "resident" else 0.0 for choice in problem.choices])
            return
        if not pool.tiers and not pool.displaced:
            return
        free = self._solved(pool, decision, None)
        if free is None:
            return
        yield free
        limit = pool.inputs.workload.ttft_s
        if limit is None or decision.phase != "mixed" or self._ttft(decision, free) <= limit:
            return
        low, high, best = 0.0, limit, None  # TTFT grows with the period that a placement may have
        for _ in range(45):
            period = (low + high) / 2
            shares = self._solved(pool, decision, period)
            if shares is not None and self._ttft(decision, shares) > limit:
                high = period
                continue
            low, best = period, best if shares is None else shares
        if best is not None:
            yield best

    def _solved(self, pool: PoolContext, decision: PoolDecision, period: float | None) -> Shares | None:
        problem, _ = pool_problem(pool, replace(decision, basis="needed", period_s=period))
        solution = small.simplex(problem.program)
        return None if solution is None else np.maximum(solution[1][: len(problem.choices)], 0.0)

    def _ttft(self, decision: PoolDecision, shares: Shares) -> float:
        return operate(self.context, Decision((decision,), (1,), self.context.variant), (shares,)).ttft_s


def best_of_all(inputs: Inputs) -> Best:
    """The optimum by evaluating everything."""
    sign = -1.0 if inputs.options.objective == "throughput" else 1.0
    least, evaluated = math.inf, 0
    for variant in inputs.options.variants:
        walk = Walk(inputs, variant)
        least = min([least, *(sign * value for value in walk.values())])
        evaluated += walk.evaluated
    return Best(None if math.isinf(least) else sign * least, evaluated)


def found_by_search(inputs: Inputs) -> Plan | None:
    """The plan, or ``None`` where the search proves that there is none."""
    try:
        return solve(inputs)
    except InfeasibleError:
        return None


def difference(inputs: Inputs) -> tuple[str | None, Best]:
    """What is wrong with the search's answer (``None``: nothing), and the answer of brute force."""
    plan, best = found_by_search(inputs), best_of_all(inputs)
    if plan is None or best.value is None:
        same = (plan is None) == (best.value is None)
        return (None if same else f"search {plan and plan.certificate.objective}, every decision {best.value}"), best
    found, sign = plan.certificate, -1.0 if inputs.options.objective == "throughput" else 1.0
    room = SAME * abs(best.value)
    if abs(found.objective - best.value) > room or sign * found.bound > sign * best.value + room:
        return f"search {found.objective!r} (bound {found.bound!r}), every decision {best.value!r}", best
    return None, best
