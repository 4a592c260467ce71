"""The search against brute force: every configuration of small spaces evaluated one by one, placements by another algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import small

from planner.errors import InfeasibleError, InputError
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.context import Context, PoolContext, build_context
from planner.plans.decision import Decision, PoolDecision
from planner.plans.evaluate import memory_need
from planner.plans.inputs import Objective, Variant
from planner.plans.operate import Operation, operate
from planner.plans.space import PoolSpace, Space, declare_space
from planner.plans.states import pool_problem
from planner.plans.tiers import resident_shares
from planner.plans.worth import checks, operation_objective
from planner.search import solve

Shares = np.ndarray


@dataclass(frozen=True)
class Feasible:
    """A configuration that meets every limit, at work."""

    operation: Operation
    decision: Decision


def shapes_of(space: PoolSpace) -> list[tuple[int, int, int, int, int]]:
    return [(int(s.tp[i]), int(s.dp[i]), int(s.ep[i]), s.pp, int(s.cp[i])) for s in space.shapes for i in range(len(s.tp))]


class BruteForce:
    """Walks the declared space configuration by configuration. No bounds, no cells, no ortools."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.evaluated = 0
        self.enter(inputs.options.variants[0])

    def enter(self, variant: Variant) -> None:
        """Go on in another variant."""
        self.context = build_context(self.inputs, variant)
        self.space: Space = declare_space(self.context)
        self.placed: dict[PoolDecision, list[Shares]] = {}

    def placements(self, pool: PoolContext, decision: PoolDecision) -> list[Shares]:
        """Where everything fits, that; else the best placement, under a TTFT limit for a ladder of limits on the period."""
        key = replace(decision, replicas=1)
        if key not in self.placed:
            self.placed[key] = list(self._placements(pool, decision))
        return self.placed[key]

    def _placements(self, pool: PoolContext, decision: PoolDecision) -> Iterator[Shares]:
        if memory_need(pool, decision.row()).short[0] <= 0.0:
            yield resident_shares(pool_problem(pool, decision)[0])
            return
        limit = self.inputs.workload.ttft_s
        ladder = [None] if limit is None or decision.phase != "mixed" else [None, *(limit * f for f in (0.15, 0.3, 0.45, 0.6))]
        for period in ladder if pool.tiers else []:
            problem, _ = pool_problem(pool, replace(decision, basis="needed", period_s=period))
            solution = small.simplex(problem.program)
            if solution is not None:
                yield np.maximum(solution[1][: len(problem.choices)], 0.0)

    def run(self) -> list[Feasible]:
        found: list[Feasible] = []
        for variant in self.inputs.options.variants:
            self.enter(variant)
            found += list(self._aggregated()) if self.space.aggregated else []
            found += list(self._disaggregated()) if self.space.disaggregated else []
        return found

    def _try(self, decision: Decision, placed: tuple[Shares, ...]) -> Iterator[Feasible]:
        self.evaluated += 1
        try:
            operation = operate(self.context, decision, placed)
        except InputError:  # serves nothing within the limit on TTFT
            return
        if math.isfinite(operation.ttft_s) and all(check.holds for check in checks(self.context, operation)):
            yield Feasible(operation, decision)

    def _aggregated(self) -> Iterator[Feasible]:
        space, pool = self.space.pools["mixed"], self.context.pools["mixed"]
        for tp, dp, ep, pp, cp in shapes_of(space):
            for chunk in space.chunks:
                for batch in range(1, space.batches + 1):
                    for units in range(1, space.units + 1):
                        most = min(units * pool.unit_devices, space.devices) // (tp * dp * pp)
                        for replicas in range(1, most + 1):
                            decision = PoolDecision("mixed", replicas, tp, dp, ep, pp, batch, chunk, cp=cp)
                            for shares in self.placements(pool, decision):
                                yield from self._try(Decision((decision,), (units,), self.context.variant), (shares,))

    def _disaggregated(self) -> Iterator[Feasible]:
        context, spaces = self.context, self.space.pools
        prefill_space, decode_space = (spaces.get(p) or spaces["mixed"] for p in ("prefill", "decode"))
        for first, second, units, more in self.space.splits:
            for tp, dp, ep, pp, cp in shapes_of(prefill_space):
                for chunk in prefill_space.chunks if first >= tp * dp * pp else ():
                    prefill = PoolDecision("prefill", first // (tp * dp * pp), tp, dp, ep, pp, 0, chunk, cp=cp)
                    for shares in self.placements(context.pool("prefill"), prefill):
                        for tp2, dp2, ep2, pp2, cp2 in shapes_of(decode_space):
                            for batch in range(1, decode_space.batches + 1) if second >= tp2 * dp2 * pp2 else ():
                                instances = second // (tp2 * dp2 * pp2)
                                decode = PoolDecision("decode", instances, tp2, dp2, ep2, pp2, batch, 0, cp=cp2)
                                for other in self.placements(context.pool("decode"), decode):
                                    counts = (units, more) if context.separate else (units,)
                                    decision = Decision((prefill, decode), counts, context.variant)
                                    yield from self._try(decision, (shares, other))


OBJECTIVES: tuple[Objective, ...] = ("cost", "throughput", "latency")


def compare(inputs: Inputs, *, proved: Callable[[str], bool] = lambda objective: True) -> dict[str, Plan]:
    """Search and brute force side by side for every objective: what is feasible does not depend on it."""
    feasible = BruteForce(inputs).run()
    return {
        objective: plan
        for objective in OBJECTIVES
        if (plan := _compare(inputs, objective, feasible, proved(objective))) is not None
    }


def _compare(inputs: Inputs, objective: Objective, feasible: list[Feasible], proved: bool) -> Plan | None:
    inputs = inputs.model_copy(update={"options": inputs.options.model_copy(update={"objective": objective})})
    context = build_context(inputs)
    sign = -1.0 if objective == "throughput" else 1.0
    try:
        plan = solve(inputs)
    except InfeasibleError as error:
        assert not feasible, f"the search found nothing ({error}), yet {feasible[0]} is feasible"
        return None
    certificate, headroom = plan.certificate, plan.inputs["options"]["headroom"]
    assert certificate.stopped is None
    if headroom > 1.0:  # the certificate is of full batches that serve so many times what is asked
        inputs = inputs.model_copy(update={"options": inputs.options.model_copy(update={"headroom": headroom})})
        context, feasible = build_context(inputs), BruteForce(inputs).run()
    values = [sign * operation_objective(context, entry.operation) for entry in feasible]
    for value, entry in zip(values, feasible, strict=True):
        assert sign * certificate.bound <= value + 1e-9 * abs(value), entry.decision
    assert certificate.proved or not proved
    if certificate.proved and values:
        assert sign * certificate.objective <= min(values) + (inputs.options.gap + 1e-9) * abs(min(values))
    # Passes here take microseconds: beside them the tie-break of a one-phase placement is not within the walk's room.
    whole = all(name.startswith("mixed") for name in certificate.nodes)
    assert verify_plan(plan, full=whole)[0] == []
    return plan


MODELS: dict[str, Callable[[], Any]] = {
    "llama": cache(lambda: small.llama(layers=16, hidden=256, inner=512, vocabulary=512)),
    "experts": cache(lambda: small.experts(layers=6)),
}
LIMITS = {"free": (None, None), "limited": (0.002, 0.0006), "tight": (0.0006, 0.0002)}


@pytest.mark.parametrize(("limits", "cap"), [("free", None), ("limited", 5), ("tight", None)])
@pytest.mark.parametrize(
    ("model", "memory"),
    [("llama", 60e6), ("llama", 20e6), ("llama", 12e6), ("llama", 7e6), ("experts", 60e6), ("experts", 25e6), ("experts", 15e6)],
)
def test_one_node(model: str, memory: float, limits: str, cap: int | None) -> None:
    """Two devices, aggregated or one to prefill and one to decode; from plenty of memory to none that would do."""
    load = small.workload(ttft_s=LIMITS[limits][0], tpot_s=LIMITS[limits][1])
    compare(small.instance(MODELS[model](), small.node(2, 1, memory), 1, load, small.runtime(3, (64, 256)), concurrency=cap))


@pytest.mark.parametrize(
    ("model", "memory", "hit"),
    [("llama", 60e6, 0.0), ("llama", 20e6, 0.5), ("llama", 12e6, 0.0), ("experts", 60e6, 0.0), ("experts", 40e6, 0.25)],
)
@pytest.mark.parametrize(("ttft_s", "tpot_s"), [(None, None), (0.0015, 0.0003)])
def test_disaggregated(model: str, memory: float, hit: float, ttft_s: float | None, tpot_s: float | None) -> None:
    """Two nodes of two devices that may not mix phases: splits, replicas and units."""
    load = small.workload(ttft_s=ttft_s, tpot_s=tpot_s, hit=hit)
    software = small.runtime(3, (64, 256), aggregated=False)
    plans = compare(small.instance(MODELS[model](), small.node(2, 1, memory), 2, load, software))
    assert {plan.mode for plan in plans.values()} <= {"disaggregated"}


@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 20e6), ("experts", 60e6)])
@pytest.mark.parametrize("cap", [3, 5])
@pytest.mark.parametrize("ttft_s", [None, 0.0015])
def test_disaggregated_under_a_cap(model: str, memory: float, cap: int, ttft_s: float | None) -> None:
    """With a cap on requests in flight each decode batch is limited by its own latency."""
    software = small.runtime(3, (64, 256), aggregated=False)
    inputs = small.instance(
        MODELS[model](), small.node(2, 1, memory), 2, small.workload(ttft_s=ttft_s), software, concurrency=cap
    )
    compare(inputs, proved=lambda objective: ttft_s is not None or objective == "latency")


@pytest.mark.parametrize("unit", [1, 2, 4])
def test_units_and_replicas(unit: int) -> None:
    """Two nodes of four devices sold one, two or four at a time: what is paid for is whole units."""
    inputs = small.instance(small.llama(), small.node(4, unit, 20e6), 2, small.workload(ttft_s=0.002), small.runtime(2, (64,)))
    compare(inputs)


def test_two_kinds_of_hardware() -> None:
    """Prefill and decode on systems of their own."""
    from planner.api import resolve
    from planner.hardware import HardwareSelection

    fast = small.node(1, 1, 30e6).model_copy(update={"id": "small-prefill"})
    roomy = small.node(2, 2, 60e6)
    selections = {"prefill": HardwareSelection(system=fast, count=2), "decode": HardwareSelection(system=roomy, count=1)}
    for ttft_s in (None, 0.001):
        inputs = resolve(
            MODELS["llama"](), selections, workload=small.workload(ttft_s=ttft_s), runtime=small.runtime(3, (64, 256))
        )
        plans = compare(inputs)
        assert all([pool.hardware for pool in plan.pools] == ["small-prefill", "small-node"] for plan in plans.values())
        assert len(plans) == 3


@pytest.mark.parametrize(
    "caps", [{"max_usd_per_hour": 26.0}, {"max_usd_per_hour": 40.0}, {"max_power_kw": 35.0}, {"max_power_kw": 15.0}]
)
def test_caps_hold_for_both_kinds_of_hardware_together(caps: dict[str, float]) -> None:
    """What each kind may cost or draw alone is not what both may together."""
    from planner.api import resolve
    from planner.hardware import HardwareSelection

    fast = small.node(1, 1, 60e6).model_copy(update={"id": "small-prefill"})
    selections = {
        "prefill": HardwareSelection(system=fast, count=3),
        "decode": HardwareSelection(system=small.node(1, 1, 60e6), count=3),
    }
    compare(resolve(MODELS["llama"](), selections, workload=small.workload(), runtime=small.runtime(2, (64,)), **caps))


@pytest.mark.parametrize(
    "options",
    [
        {"max_usd_per_hour": 12.0},
        {"max_power_kw": 6.0},
        {"devices": 3},
        {"tiers": ("hbm",)},
        {"tiers": ("hbm", "ssd")},
        {"mtp": 1},
        {"mtp": (0, 1), "kv_dtype": ("bf16", "fp8")},
    ],
)
def test_options(options: dict[str, Any]) -> None:
    """Caps on money, power and devices, a choice of memories, and drafts narrow the space; the rest is the same search."""
    name = "experts" if "mtp" in options else "llama"
    inputs = small.instance(
        MODELS[name](),
        small.node(2, 1, 40e6 if "mtp" in options else 12e6),
        2,
        small.workload(),
        small.runtime(2, (64,)),
        **options,
    )
    compare(inputs)


def test_ties_break_by_the_documented_key() -> None:
    """One device or two serve alike per device: the plan takes fewer units."""
    inputs = small.instance(
        small.llama(), small.node(2, 1, 100e6), 4, small.workload(), small.runtime(2, (64,)), objective="throughput"
    )
    plan = solve(inputs)
    assert plan.units[0].units == 1 and plan.pools[0].replicas == 1


def test_a_context_is_not_needed_twice() -> None:
    """Planning again from the embedded inputs gives the same plan."""
    inputs = small.instance(MODELS["llama"](), small.node(2, 1, 20e6), 2)
    plan = solve(inputs)
    again = solve(Inputs.model_validate(plan.inputs, context={"si": True}))
    assert again.to_json() == plan.to_json()
    assert isinstance(build_context(inputs), Context)
