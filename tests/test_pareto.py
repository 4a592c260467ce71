"""The Pareto front against brute force, its verification, and what it does when it is stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import small
import test_verify
from click.testing import CliRunner
from test_search import LIMITS, MODELS, BruteForce, Feasible
from test_verify import changes, refusal

from planner.api import plan as make_plan
from planner.cli.plan_command import command
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.context import build_context
from planner.plans.decode_times import DecodeTimes
from planner.plans.evaluate import decode_seconds
from planner.plans.numbers import relative_gap
from planner.plans.pairing import best_rate, sooner, undominated
from planner.plans.pareto import at_objective, short_limit_ms
from planner.plans.space import declare_space
from planner.plans.worth import operation_objective
from planner.search import Stop, solve
from planner.search.find import Found
from planner.search.pareto import Reached, insert

quick = test_verify.quick


def compare(inputs: Inputs, feasible: list[Feasible], plan: Plan) -> None:
    """Every bound of the front holds for every deployment within the point's limit, so none dominates beyond the gap."""
    front = plan.pareto
    assert front is not None and front.points
    context = at_objective(build_context(inputs), front.objective)
    sign = -1.0 if front.objective == "throughput" else 1.0
    values = np.array([sign * operation_objective(context, entry.operation) for entry in feasible])
    tpots = np.array([entry.operation.tpot_s * 1e3 for entry in feasible])
    for point in front.points:
        inside = values[tpots <= (np.inf if point.tpot_limit_ms is None else point.tpot_limit_ms)]
        assert sign * point.bound <= inside.min() + 1e-9 * abs(inside.min())
        faster = values[tpots <= point.tpot_ms * (1 + 1e-12)]
        if len(faster):
            assert sign * point.objective <= faster.min() + (point.gap + 1e-9) * abs(point.objective)
    if front.proved:
        assert all(point.gap <= inputs.options.gap for point in front.points)
        assert sign * front.points[-1].objective <= values.min() + (inputs.options.gap + 1e-9) * abs(values.min())
        assert front.points[0].tpot_ms <= tpots.min() * (1 + inputs.options.gap + 1e-4)
    speeds = [point.tokens_per_s_per_user for point in front.points]
    merits = [sign * point.objective for point in front.points]
    assert speeds == sorted(set(speeds), reverse=True) and merits == sorted(set(merits), reverse=True)
    assert len(front.points) <= (inputs.options.pareto or 0)


def both(model: Any, system: Any, count: int, load: Any, software: Any, **options: Any) -> list[Plan]:
    """Fronts for every objective beside one walk by brute force."""
    plans = []
    feasible = BruteForce(small.instance(model, system, count, load, software, **options)).run()
    for objective in ("cost", "throughput", "latency"):
        inputs = small.instance(model, system, count, load, software, objective=objective, pareto=5, **options)
        plan = solve(inputs)
        compare(inputs, feasible, plan)
        whole = all(name.split(" ", 2)[2].startswith("mixed") for point in plan.pareto.points for name in point.nodes)
        assert verify_plan(plan, full=whole and plan.pareto.proved)[0] == []
        plans.append(plan)
    return plans


@pytest.mark.parametrize(("limits", "cap"), [("free", None), ("limited", 5)])
@pytest.mark.parametrize(
    ("model", "memory"), [("llama", 60e6), ("llama", 20e6), ("llama", 12e6), ("experts", 60e6), ("experts", 25e6)]
)
def test_against_brute_force(model: str, memory: float, limits: str, cap: int | None) -> None:
    """From plenty of memory to none that would do, aggregated or one device to prefill and one to decode."""
    load = small.workload(ttft_s=LIMITS[limits][0], tpot_s=LIMITS[limits][1])
    plans = both(MODELS[model](), small.node(2, 1, memory), 1, load, small.runtime(3, (64, 256)), concurrency=cap)
    for plan in plans:
        assert plan.pareto and plan.pareto.proved
        outer = LIMITS[limits][1]
        assert plan.pareto.points[-1].tpot_limit_ms == (None if outer is None else pytest.approx(outer * 1e3))


@pytest.mark.parametrize(("model", "memory"), [("llama", 60e6), ("llama", 12e6), ("experts", 60e6)])
@pytest.mark.parametrize("ttft_s", [None, 0.0015])
def test_two_nodes_apart(model: str, memory: float, ttft_s: float | None) -> None:
    """Prefill and decode may not share a device."""
    software = small.runtime(3, (64, 256), aggregated=False)
    both(MODELS[model](), small.node(2, 1, memory), 2, small.workload(ttft_s=ttft_s), software)


def test_over_variants() -> None:
    """Points may differ in cache dtype and draft length."""
    options = {"mtp": (0, 1), "kv_dtype": ("bf16", "fp8")}
    plans = both(MODELS["experts"](), small.node(2, 1, 40e6), 1, small.workload(), small.runtime(3, (64,)), **options)
    kinds = {point.pools[0].configuration.kv_dtype for plan in plans for point in plan.pareto.points}
    assert kinds <= {"bf16", "fp8"}


def test_a_bound_that_is_too_good_fails_the_comparison() -> None:
    """The comparison above can fail."""
    inputs = small.instance(MODELS["llama"](), small.node(2, 1, 60e6), 1, small.workload(), small.runtime(3, (64,)), pareto=4)
    feasible, plan = BruteForce(inputs).run(), solve(inputs)
    compare(inputs, feasible, plan)
    for number, point in enumerate(plan.pareto.points):
        data = small.changed(plan.to_data(), ("pareto", "points", number, "bound"), point.bound * 1.01)
        with pytest.raises(AssertionError):
            compare(inputs, feasible, Plan.model_validate(data))


# --- verification --------------------------------------------------------------------------------------------------


@cache
def with_front(name: str) -> Plan:
    """Points in device memory, with prefill and decode apart, and with a basis."""
    if name == "resident":
        return make_plan("llama-3.1-70b", "h100-node", pareto=4)
    load = small.workload(ttft_s=0.002)
    software = small.runtime(6, (64, 256))
    return solve(small.instance(MODELS["llama"](), small.node(2, 1, 12e6), 1, load, software, objective="throughput", pareto=5))


@pytest.mark.parametrize("name", ["resident", "placed"])
@pytest.mark.usefixtures("quick")
def test_every_number_of_a_front_changed_is_refused_by_name(name: str) -> None:
    """Law 2 for the front: each numeric leaf, up and down."""
    data = with_front(name).to_data()
    if name == "placed":
        assert any(pool["placement_basis"] for point in data["pareto"]["points"] for pool in point["pools"])
    assert len(data["pareto"]["points"]) > 2 and verify_plan(Plan.model_validate(data), "plan")[0] == []
    accepted = []
    for path, value in small.leaves(data["pareto"], ("pareto",)):
        for leaf in changes(value):
            changed = small.changed(data, path, leaf)
            try:
                found = [(v.path, v.equation) for v in verify_plan(Plan.model_validate(changed), "plan")[0]]
            except ValueError:
                found = refusal(changed)
            if not found or any(equation == "unknown entry" for _, equation in found):
                accepted.append((path, value, leaf, found[:2]))
    assert accepted == []


def test_points_left_out_doubled_or_in_disorder_are_refused() -> None:
    data = with_front("resident").to_data()
    points: Any = data["pareto"]["points"]
    place = ("pareto", "points")
    for rows in (points[:-1], [points[0], *points], points[::-1], [points[0], points[0], *points[1:]]):
        assert refusal(small.changed(data, place, rows))
    assert refusal({key: value for key, value in data.items() if key != "pareto"})
    assert refusal(small.changed(data, ("inputs", "options", "pareto"), 2))
    looser = small.changed(data, (*place, 0, "tpot_limit_ms"), short_limit_ms(points[0]["tpot_ms"] * 0.99e-3))
    assert any("limit" in equation for _, equation in refusal(looser))


def test_a_point_outside_the_space_is_refused() -> None:
    data = with_front("resident").to_data()
    for key, value in (("tp", 3), ("batch_per_rank", 5000), ("mtp", 1)):
        wrong = small.changed(data, ("pareto", "points", 1, "pools", 0, "configuration", key), value)
        assert any("configuration" in equation for _, equation in refusal(wrong))


def test_a_tighter_bound_of_a_point_is_refused_by_the_full_walk() -> None:
    """A loose gap leaves room between point and bound; a bound that some deployment undercuts is found in the space."""
    load, software = small.workload(), small.runtime(8, (64,))
    inputs = small.instance(small.llama(), small.node(2, 1, 12e6), 1, load, software, gap=0.5, pareto=4)
    plan, refused = solve(inputs), 0
    assert verify_plan(plan, full=True)[0] == []
    for number, point in enumerate(plan.pareto.points):

        def claims(bound: float, number: int = number, objective: float = point.objective) -> Plan:
            data = small.changed(plan.to_data(), ("pareto", "points", number, "bound"), bound)
            gap = relative_gap(objective, bound)
            return Plan.model_validate(small.changed(data, ("pareto", "points", number, "gap"), gap))

        assert verify_plan(claims(point.bound * 0.99), full=True)[0] == []
        if point.gap > 1e-3:
            assert verify_plan(claims(point.objective))[0] == []
            assert [v.path for v in verify_plan(claims(point.objective), full=True)[0]][0].startswith(f"pareto.points.{number}.")
            refused += 1
    assert refused


def test_a_front_without_its_nodes_is_refused_by_the_full_walk() -> None:
    plan = with_front("placed")
    assert verify_plan(plan, full=True)[0] == []
    numbers = [i for i, point in enumerate(plan.pareto.points) if point.nodes]
    assert numbers
    refused = 0
    for number in numbers:
        bare = Plan.model_validate(small.changed(plan.to_data(), ("pareto", "points", number, "nodes"), {}))  # type: ignore[arg-type]
        assert verify_plan(bare)[0] == []
        refused += bool(verify_plan(bare, full=True)[0])
    assert refused


# --- stopping, order, determinism ------------------------------------------------------------------------------------


class After(Stop):
    """Stops when it has been asked so often."""

    def __init__(self, asked: int) -> None:
        super().__init__()
        self.left = asked

    def reason(self) -> str | None:
        self.left -= 1
        return "time limit" if self.left < 0 else None


@pytest.mark.parametrize("memory", [60e6, 12e6])
def test_a_stopped_front_is_honest(memory: float) -> None:
    """Wherever the search is stopped: the points so far, their bounds hold, and the plan says so."""
    load, software = small.workload(), small.runtime(4, (64, 256))
    inputs = small.instance(MODELS["llama"](), small.node(2, 1, memory), 1, load, software, pareto=5)
    feasible = BruteForce(inputs).run()
    sizes = set()
    for asked in (3, 6, 9, 12, 18, 24, 48, 96):
        plan = solve(inputs, stop=After(asked))
        compare(inputs, feasible, plan)
        assert verify_plan(plan, full=True)[0] == []
        assert not (plan.pareto.proved and plan.pareto.stopped)
        sizes.add((len(plan.pareto.points), plan.pareto.stopped))
    assert {stopped for _, stopped in sizes} == {None, "time limit"}


def test_the_same_front_again() -> None:
    plan = with_front("placed")
    again = solve(Inputs.model_validate(plan.inputs, context={"si": True}))
    assert again.to_json() == plan.to_json()
    assert Plan.model_validate(json.loads(plan.to_json())) == plan


def test_the_plan_itself_does_not_depend_on_the_front() -> None:
    plan = with_front("resident").to_data()
    alone = make_plan("llama-3.1-70b", "h100-node").to_data()
    assert "pareto" not in alone
    assert {k: v for k, v in plan.items() if k not in ("pareto", "inputs")} == {k: v for k, v in alone.items() if k != "inputs"}


def test_inserting_keeps_a_front_and_the_loosest_proof() -> None:
    random = np.random.default_rng(5)
    for _ in range(300):
        points: list[Reached] = []
        every = []
        for _ in range(8):
            tpot, merit, room = (float(random.integers(1, 6)) for _ in range(3))
            every.append((tpot, merit, tpot + room))
            points = insert(points, Reached(tpot + room, tpot, Found(None, merit, merit, {}, None, 0)))
        pairs = [(p.tpot_s, p.merit) for p in points]
        best = {(t, m) for t, m, _ in every if not any((a <= t and b >= m) and (a, b) != (t, m) for a, b, _ in every)}
        assert pairs == sorted(best)
        assert max(p.limit_ms for p in points) == max(limit for _, _, limit in every)


# --- what the front shares ---------------------------------------------------------------------------------------------


def test_steps_are_those_of_the_model_and_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    context = build_context(small.instance(MODELS["experts"](), small.node(4, 1, 60e6), 1))
    pool = context.pools["mixed"]
    shapes = declare_space(context).pools["mixed"].shapes[0]
    times, random = DecodeTimes(pool, shapes), np.random.default_rng(1)
    for _ in range(5):
        row, batch = random.integers(0, len(shapes.tp), 40), random.integers(1, 300, 40).astype(float)
        assert np.array_equal(times.at(row, batch), decode_seconds(pool, shapes.take(row), batch))
    monkeypatch.setattr("planner.plans.decode_times.decode_seconds", None)
    assert len(times.at(row, batch)) == 40 and len(times.at(row[:0], batch[:0])) == 0


@pytest.mark.parametrize("cap", [None, 7])
def test_dominated_rows_decide_nothing(cap: int | None) -> None:
    """Best rates at every split, least latency and its ties are those of all rows."""
    inputs = small.instance(MODELS["llama"](), small.node(2, 1, 60e6), 1, concurrency=cap)
    from planner.plans.bounds import charge_of

    charge = replace(charge_of(build_context(inputs), "cost", None), ttft_s=0.3)
    random, dropped = np.random.default_rng(2), 0
    for _ in range(200):
        size, rate, latency = random.integers(1, 4, 30), random.integers(1, 9, 30) * 1.0, random.integers(0, 9, 30) * 0.01
        keep = undominated(size, rate, latency)
        devices = np.arange(0.0, 20.0)
        rows = list(zip(size.tolist(), rate.tolist(), latency.tolist(), strict=True))
        some = [row for row, good in zip(rows, keep, strict=True) if good]
        assert np.array_equal(best_rate(rows, devices, cap, charge), best_rate(some, devices, cap, charge))
        for least in (0.0, 3.0, 6.0):
            able = [row[2] for row in rows if row[1] >= least]
            assert not able or sorted(able)[0] == min(row[2] for row in some if row[1] >= least)
        first = min(rows, key=lambda row: row[2])
        assert all(good for row, good in zip(rows, keep, strict=True) if row[2] == first[2])
        dropped += int((~keep).sum())
    assert dropped > 1000


def test_what_is_sooner_is_looked_up_by_size() -> None:
    random = np.random.default_rng(3)
    for _ in range(100):
        size, rate, latency = random.integers(1, 4, 20), random.integers(1, 9, 20) * 1.0, random.integers(0, 9, 20) * 0.1
        at, within = random.integers(1, 6, 15), random.integers(0, 9, 15) * 0.1
        expected = [max([0.0, *rate[(size == a) & (latency <= w)]]) for a, w in zip(at, within, strict=True)]
        assert sooner(size, rate, latency, at, within).tolist() == expected


# --- terminal ------------------------------------------------------------------------------------------------------------


def test_the_front_on_a_terminal() -> None:
    arguments = ["llama-3.1-70b", "h100-node", "--quiet", "--pareto"]
    done = CliRunner().invoke(command, [*arguments, "4"], standalone_mode=False)
    assert done.return_value == 0
    lines = done.output[done.output.index("Pareto front") :].splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    assert "tok/s/device" in done.output
    assert len([line for line in lines if "%" in line]) == len(with_front("resident").pareto.points)
    for number in ("1", "51", "x"):
        refused = CliRunner().invoke(command, [*arguments, number])
        assert refused.exit_code == 2 and "--pareto" in refused.output
