"""Bounded effort: explanations end after so many steps, time limits hold while tables are built, and counting hardware ends where
no count would do."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import small
from test_conflicts import five, problem
from test_demand import auto, most
from test_search import MODELS

from planner.errors import InfeasibleError, StoppedError
from planner.footprint import Shapes
from planner.plans import Inputs, bounds, verify_plan
from planner.plans.bounds import charge_of, packing
from planner.plans.constraints import parse_constraints
from planner.plans.context import build_context
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import Candidates, decode_pass, overflow_seconds
from planner.plans.operate import operate
from planner.plans.read import decision_of
from planner.plans.space import declare_space
from planner.plans.states import pool_problem
from planner.plans.tiers import evaluate_shares
from planner.search import Stop, conflicts, reliefs, sizing, solve, trials
from planner.search.tables import Tables
from planner.search.tier_lp import solve_tiers


class Expiring(Stop):
    """Time is up when it has been asked for so often."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    def late(self) -> str | None:
        self.left -= 1
        return "time limit" if self.left < 0 else None


def conflict(inputs: Inputs) -> InfeasibleError:
    with pytest.raises(InfeasibleError) as caught:
        solve(inputs)
    assert caught.value.exit_code == 3 and str(caught.value).startswith("proved infeasible")
    return caught.value


def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every placement that is asked for from now on."""
    asked: list[int] = []
    real = Tables.place

    def place(self: Tables, *given: Any) -> Any:
        asked.append(1)
        return real(self, *given)

    monkeypatch.setattr(Tables, "place", place)
    return asked


# -- explanations --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", range(0, 60, 12))
def test_a_look_for_what_conflicts_that_is_ended_says_so(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Named are those that conflict, or all limits, and that no more was looked for; the same each time."""
    whole = [row["member"] for row in conflict(five()).conflict]
    monkeypatch.setattr(trials, "STEPS", steps)
    monkeypatch.setattr(conflicts, "STEPS", steps)
    errors = [conflict(five()) for _ in range(2)]
    assert str(errors[0]) == str(errors[1]) and errors[0].conflict == errors[1].conflict
    names = [row["member"] for row in errors[0].conflict]
    if "ended" in str(errors[0]):
        assert f"{steps} steps" in str(errors[0]) or "what else conflicts" in str(errors[0])
    if "which limits conflict was ended" in str(errors[0]):
        assert len(names) == 5
    else:
        assert names == whole
    assert steps or len(names) == 5


@pytest.mark.parametrize("steps", [0, 2, 5, 20])
def test_a_relief_that_is_ended_works_or_is_none(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(reliefs, "RELIEF_STEPS", steps)
    monkeypatch.setattr(conflicts, "RELIEF_STEPS", steps)
    inputs = problem(ttft_s=5e-5, memory=20e6)
    row = next(row for row in conflict(inputs).conflict if row["member"] == "service level TTFT")
    if row["amount"] is None:
        assert row["least_relief"] == f"not found in {steps} steps"
        return
    load = inputs.workload.model_copy(update={"ttft_s": float(row["amount"]) * 1e-3 * (1 + 1e-9)})  # type: ignore[arg-type]
    assert solve(inputs.model_copy(update={"workload": load})).certificate.objective > 0


def test_whole_explanations_take_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allowed is far more than explanations of sensible problems take."""
    taken: list[int] = []
    real = trials.Allowance.reason

    def reason(self: trials.Allowance) -> str | None:
        taken.append(1)
        return real(self)

    monkeypatch.setattr(trials.Allowance, "reason", reason)
    error = conflict(five())
    assert "ended" not in json.dumps(error.conflict) and 0 < len(taken) < trials.STEPS / 2


@pytest.mark.parametrize("memory", [1.1e6, 2.2e6])
def test_where_not_even_buffers_fit_no_placement_is_solved(monkeypatch: pytest.MonkeyPatch, memory: float) -> None:
    asked = solved(monkeypatch)
    inputs = small.instance(MODELS["llama"](), small.node(2, 1, memory), 2, small.workload(ttft_s=1e-3), small.runtime(4, (64,)))
    assert conflict(inputs).conflict
    assert len(asked) == 0


def test_buffers_that_do_not_fit_rule_out_every_placement() -> None:
    """Against the placement's own program, at batches and memories about the border."""
    ruled_out = placed = 0
    for model in ("llama", "experts"):
        for memory in np.geomspace(1.2e6, 12e6, 14).tolist():
            inputs = small.instance(MODELS[model](), small.node(2, 1, memory), software=small.runtime(64, (64,)))
            pool = build_context(inputs).pools["mixed"]
            for tp, pp, batch in ((1, 1, 1), (2, 1, 8), (1, 2, 2), (1, 1, 48)):
                row = Candidates(Shapes.single(tp, 1, 1, pp), np.array([float(batch)]), np.array([0.0]))
                times = decode_pass(pool, row.shapes, row.batch)
                least = overflow_seconds(pool, row, {"decode": times})["decode"][0]
                problem, _ = pool_problem(pool, PoolDecision("decode", 1, tp, 1, 1, pp, batch, 0, basis="needed"))
                found = solve_tiers(problem)
                ruled_out += bool(np.isinf(least))
                placed += found is not None
                assert found is None or np.isfinite(least)
    assert ruled_out >= 10 and placed >= 10


# -- counting hardware ---------------------------------------------------------------------------------------------------
HOPELESS: dict[str, tuple[dict[str, Any], dict[str, float], str]] = {
    "a width that is none": ({"constraints": parse_constraints(["tp=3"], [])}, {}, "--pin tp=3"),
    "a batch beyond all": (
        {"constraints": parse_constraints(["decode.batch_per_rank=100000"], [])}, {}, "--pin decode.batch_per_rank=100000"
    ),
    "a TPOT beyond all": ({}, {"tpot_s": 1e-7}, "service level TPOT"),
    "a TTFT beyond all": ({}, {"ttft_s": 1e-7}, "service level TTFT"),
    "no unit": ({"max_usd_per_hour": 0.01}, {}, "money"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOPELESS)
def test_counting_ends_where_no_count_would_do(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A few counts and the most, in place of every power of two up to it; the conflict is the limit's alone."""
    counts: list[int] = []
    real = sizing.with_count

    def with_count(inputs: Inputs, count: int) -> Inputs:
        counts.append(count)
        return real(inputs, count)

    monkeypatch.setattr(sizing, "with_count", with_count)
    options, limits, member = HOPELESS[name]
    error = conflict(auto("llama", 60e6, rate=3.0 * most("llama", 60e6), load=small.workload(**limits), **options))
    assert [row["member"] for row in error.conflict][0] == member
    assert len(counts) <= 4 and max(counts) == 256


@pytest.mark.parametrize("limits", [{}, {"tpot_s": 4e-5}, {"tpot_s": 2e-5}, {"ttft_s": 1.2e-4}, {"ttft_s": 1e-6}])
@pytest.mark.parametrize("pins", [(), ("pp=2",), ("tp=2",), ("instance_devices>=4",), ("serving=disaggregated",), ("units=1",)])
@pytest.mark.parametrize("memory", [60e6, 7e6])
def test_no_count_would_do_only_if_none_does(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], pins: tuple[str, ...], memory: float
) -> None:
    """Against planning for every count that there may be, one by one, for next to no demand."""
    monkeypatch.setattr(sizing, "MOST_UNITS", 8)
    rules, load = parse_constraints(pins, []), small.workload(**limits)

    def serves(count: int | None) -> bool:
        try:
            solve(auto("llama", memory, count, rate=1e-3, load=load, constraints=rules))
        except InfeasibleError:
            return False
        return True

    assert serves(None) == any(serves(count) for count in (1, 2, 3, 4))


def test_a_demand_beyond_all_bounds_is_refused() -> None:
    """Instances by the quadrillion are no count of devices."""
    for objective in ("latency", "cost"):
        for rate in (1e9, 1e12):
            inputs = small.instance(
                MODELS["llama"](), small.node(2, 1, 8e6), 2, small.workload(ttft_s=1e-2), small.runtime(3, (64,)),
                rate=rate, objective=objective,
            )  # fmt: skip
            assert "demand" in [row["member"] for row in conflict(inputs).conflict]


@pytest.mark.parametrize("cap", [None, 7])
@pytest.mark.parametrize("objective", ["cost", "throughput", "latency"])
def test_rows_alike_are_packed_alike(monkeypatch: pytest.MonkeyPatch, cap: int | None, objective: str) -> None:
    inputs = small.instance(MODELS["llama"](), small.node(2, 2, 60e6), 30, concurrency=cap)
    context, rng = build_context(inputs), np.random.default_rng(1)
    space, charge = declare_space(context), charge_of(context, objective, None)
    instance, running = rng.choice([1.0, 2.0, 4.0, 8.0], 200), rng.choice([0.5, 1.0, 2.0, 8.0], 200)
    rate, found = rng.random(200), []
    for many in (0, 10**9):
        monkeypatch.setattr(bounds, "MANY_UNITS", many)
        found.append(packing(context, space, charge, rate, instance, running))
    assert all(np.array_equal(one, other) for one, other in zip(*found, strict=True))


# -- time limits ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("objective", ["cost", "throughput", "latency"])
@pytest.mark.parametrize("options", [{}, {"kv_dtype": ("bf16", "fp8")}, {"rate": 50.0}])
def test_out_of_time_at_any_point_it_is_honest(objective: str, options: dict[str, Any]) -> None:
    """Either no plan yet, or one that verifies with a bound that the optimum does not beat."""
    inputs = small.instance(
        MODELS["llama"](), small.node(2, 1, 9e6), 2, small.workload(ttft_s=5e-3), small.runtime(3, (64, 256)),
        objective=objective, **options,
    )  # fmt: skip
    optimum, sign = solve(inputs).certificate.objective, -1.0 if objective == "throughput" else 1.0
    stopped = without_plan = 0
    for asked in (0, 1, 2, 3, 4, 6, 9, 14, 20, 30, 60):
        try:
            plan = solve(inputs, stop=Expiring(asked))
        except StoppedError as error:
            assert error.exit_code == 5 and "--time-limit" in str(error)
            without_plan += 1
            continue
        certificate = plan.certificate
        stopped += certificate.stopped == "time limit"
        assert certificate.stopped in (None, "time limit") and not (certificate.stopped and certificate.proved)
        assert sign * certificate.bound <= sign * optimum + 1e-9 * abs(optimum)
        assert sign * certificate.objective >= sign * optimum - 1e-9 * abs(optimum)
        assert verify_plan(plan)[0] == []
    assert stopped + without_plan > 0


def test_out_of_time_while_counting_keeps_what_was_found() -> None:
    inputs = auto("llama", 60e6, rate=2.6 * most("llama", 60e6))
    found = 0
    for asked in range(0, 40, 3):
        try:
            plan = solve(inputs, stop=Expiring(asked))
        except StoppedError:
            continue
        found += plan.certificate.stopped is not None
        assert verify_plan(plan)[0] == []
    assert found


# -- what is worked out late ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("memory", [120e6, 30e6])
@pytest.mark.parametrize("aggregated", [True, False])
def test_seconds_in_device_memory_are_those_of_the_placement(memory: float, aggregated: bool) -> None:
    """A pool without a placement takes the time of its passes; so does its tier problem with every share there."""
    software = small.runtime(3, (64,), aggregated=aggregated)
    plan = solve(small.instance(MODELS["experts"](), small.node(2, 1, memory), 2, software=software))
    context = build_context(Inputs.model_validate(plan.inputs, context={"si": True}))
    for state in operate(context, decision_of(plan, "plan")).pools:
        again = evaluate_shares(state.problem, state.shares)
        for phase, seconds in state.seconds.items():
            assert again.phase_s[phase] * state.pool.rates.residual == pytest.approx(seconds, rel=1e-12)
