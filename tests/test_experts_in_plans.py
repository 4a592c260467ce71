"""Popular experts in whole plans: classes of use, maps, what the plan says of them, and what a reader may not change."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import BruteForce

from planner.api import resolve, verify
from planner.cli.main import main as run_main
from planner.errors import InfeasibleError, InputError, PlannerError, VerificationError
from planner.footprint import RoutedItem, Shapes
from planner.performance.experts import distinct_experts, fullest_distinct, fullest_load, touched_by_class
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.constraints import parse_constraints
from planner.plans.context import build_context
from planner.plans.evaluate import decode_pass, prefill_pass
from planner.plans.expert_bounds import check_map, loads_of_map
from planner.plans.experts import ExpertMap, even_split, expert_shares, routed_layers, slots_below, slots_of, with_use
from planner.plans.operate import operate
from planner.plans.read import decision_of, inputs_of
from planner.plans.tiers import window_items
from planner.plans.worth import operation_objective
from planner.search import solve
from planner.search.tables import Stop
from planner.workload import Workload
from planner.workload.experts import ExpertPopularity, measured

LAYERS, EXPERTS = 6, 8
MODEL = small.experts(layers=LAYERS, count=EXPERTS)
ROUTED = LAYERS - 1
"""The first layer is dense."""
LOADS = np.random.default_rng(1).gamma(0.7, 1.0, (ROUTED, EXPERTS)).round(6)
USES = {
    "zipf": ExpertPopularity(kind="zipf", exponent=0.8),
    "steep": ExpertPopularity(kind="zipf", exponent=2.0),
    "measured": measured(LOADS.tolist()),
}
UNIFORM = ExpertPopularity()


def used(use: ExpertPopularity, **limits: Any) -> Workload:
    return small.workload(**limits).model_copy(update={"experts": use})


def problem(use: str, memory: float = 25e6, pins: tuple[str, ...] = ("ep=4",), uneven: bool = False, **options: Any) -> Inputs:
    """Four devices whose instances spread the experts over all of them."""
    limits = {key: options.pop(key) for key in ("ttft_s", "tpot_s") if key in options}
    load = used(USES[use], **limits)
    software = small.runtime(options.pop("batches", 3), options.pop("chunks", (64, 256)), uneven_replicas=uneven)
    rules = parse_constraints(pins, ())
    return small.instance(MODEL, small.node(4, 1, memory), 1, load, software, constraints=rules, **options)


# --- classes of use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("extra", [0, 1])
def test_classes_add_up_to_the_whole(use: str, extra: int) -> None:
    """Experts, shares, bytes held and bytes read of the classes are those of all experts."""
    plain = build_context(problem(use).model_copy(update={"workload": used(UNIFORM)})).pools["mixed"]
    pieces = with_use(plain.pieces, USES[use], extra, (1, 2, 4))
    pool = replace(plain, pieces=pieces)
    shapes = Shapes.single(1, 4, 4, 1)
    one = np.array([2.0])
    passes = {"decode": decode_pass(pool, shapes, one), "prefill": prefill_pass(pool, shapes, np.array([64.0]))}
    items = window_items(pieces, shapes, passes, 1.0, 64, 16)
    whole = window_items(plain.pieces, shapes, passes, 1.0, 64, 16)
    for number, window in enumerate(pieces.windows):
        for index, block in enumerate(window.blocks):
            if block.routed is None:
                continue
            assert sum(block.routed.class_sizes) == EXPERTS and len(block.routed.classes) == 4
            assert sum(n * share for n, share in block.routed.classes) == pytest.approx(1.0, rel=1e-12)
            shares = [share for _, share in block.routed.classes]
            assert shares == sorted(shares, reverse=True)
            mine = [item for item in items if item.window == number and item.kind == "routed"]
            slots = slots_of(block.routed, 4)
            assert sum(item.held for item in mine) == pytest.approx(slots * block.routed.member_bytes, rel=1e-12)
            (all_of_them,) = [item for item in whole if item.window == number and item.kind == "routed"]
            assert sum(item.held for item in mine) * 2 == pytest.approx(all_of_them.held * slots, rel=1e-12)
            for phase, times in passes.items():
                part = times.windows[number][index]
                assert sum(item.reads[phase] for item in mine) == pytest.approx(float(part.routed_read[0]), rel=1e-12)
                assert sum(item.fetches[phase] for item in mine) == pytest.approx(float(part.routed_fetches[0]), rel=1e-12)


def test_uniform_use_without_copies_changes_nothing() -> None:
    pieces = build_context(small.instance(MODEL, small.node(4, 1, 25e6))).pools["mixed"].pieces
    assert with_use(pieces, UNIFORM, 0, (1, 2, 4)) is pieces
    plan = solve(small.instance(MODEL, small.node(4, 1, 25e6), 1, used(UNIFORM), small.runtime(3, (64, 256))))
    assert plan.experts is None and "experts" not in plan.to_data()
    assert not any("use class" in row.item for pool in plan.pools for row in pool.placement)


@pytest.mark.parametrize("memory", [60e6, 25e6])
@pytest.mark.parametrize("objective", ["cost", "throughput", "latency"])
def test_no_skew_is_uniform(memory: float, objective: str) -> None:
    """Zipf with exponent 0 goes through classes and maps, and serves what uniform use serves."""
    plans = []
    for use in (UNIFORM, ExpertPopularity(kind="zipf", exponent=0.0)):
        inputs = problem("zipf", memory, objective=objective)
        plans.append(solve(inputs.model_copy(update={"workload": used(use)})))
    assert plans[1].experts and not plans[0].experts
    assert plans[1].certificate.objective == pytest.approx(plans[0].certificate.objective, rel=1e-6)
    assert plans[1].experts[0].fullest_over_mean.worst == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("tokens", [1, 4, 32, 300])
def test_distinct_experts_by_class_are_those_of_a_simulation(tokens: int) -> None:
    """Every token picks expert e of a class with probability k times its share, each on its own."""
    random = np.random.default_rng(tokens)
    item = RoutedItem("bf16", 32, 3.0, 1, 1, 1, ((8, 0.06), (8, 0.04), (8, 0.02), (8, 0.005)))
    expected = [float(part[0]) for part in touched_by_class(item, np.array([float(tokens)]))]
    tries = 2000
    for (count, share), part in zip(item.classes, expected, strict=True):
        hit = random.random((tries, tokens, count)) < item.active * share
        seen = hit.any(axis=1).sum(axis=1) / item.experts
        assert part == pytest.approx(seen.mean(), abs=4 * seen.std() / np.sqrt(tries) + 1e-4)
    assert sum(expected) <= float(distinct_experts(1.0, item.active / 32, np.array([float(tokens)]))[0]) + 1e-12, (
        "skew wakes fewer"
    )


@given(
    st.lists(st.floats(1e-4, 1.0), min_size=4, max_size=4), st.integers(1, 8), st.integers(1, 4000), st.sampled_from([1, 2, 4, 8])
)
@settings(max_examples=200)
def test_experts_woken_and_loads_grow_with_the_tokens(weights: list[float], active: int, tokens: int, ranks: int) -> None:
    total = sum(weights) * 4
    item = RoutedItem("bf16", 16, float(active), 1, 1, 1, tuple((4, w / total) for w in weights), 1, ((ranks, 1.5),))
    slots, at = np.full(2, float(min(16 // ranks + 1, 16))), np.full(2, float(ranks))
    both = np.array([float(tokens), tokens + 1.0])
    for low, high in [
        *touched_by_class(item, both),
        fullest_load(both, item, slots, at),
        fullest_distinct(both, item, slots, at),
    ]:
        assert low <= high * (1 + 1e-12)
    assert fullest_distinct(both, item, slots, at).max() <= slots[0]


# --- maps -------------------------------------------------------------------------------------------------------------


def maps_of(plan: Plan) -> Iterator[ExpertMap]:
    yield from decision_of(plan, "p").experts


def by_hand(one: ExpertMap, shares: np.ndarray) -> np.ndarray:
    """Fullest rank over the mean of every layer, slot by slot."""
    found = []
    for layer, row in enumerate(one.physical_to_logical):
        load = [0.0] * one.ranks
        for slot, expert in enumerate(row):
            load[slot // one.slots] += float(shares[layer][expert]) * float(one.split[layer][slot])
        found.append(max(load) * one.ranks / sum(load))
    return np.array(found)


EVERY = [
    (use, redundant, uneven, memory)
    for use in USES
    for redundant in ((0,), (1,), (0, 2))
    for uneven in (False, True)
    for memory in (60e6, 25e6)
]


@cache
def planned(use: str, redundant: tuple[int, ...], uneven: bool, memory: float, objective: str = "cost") -> Plan:
    return solve(problem(use, memory, uneven=uneven, redundant_experts=redundant, objective=objective))


@pytest.mark.parametrize(("use", "redundant", "uneven", "memory"), EVERY)
def test_a_plan_with_maps_is_what_it_says(use: str, redundant: tuple[int, ...], uneven: bool, memory: float) -> None:
    """Verified, also in full; the map is one, its printed loads are its own, and its time is in the prediction."""
    plan = planned(use, redundant, uneven, memory)
    assert verify_plan(plan, full=True)[0] == []
    context = build_context(inputs_of(plan, "p"), decision_of(plan, "p").variant)
    shares = expert_shares(context.pools["mixed"].pieces, USES[use])
    (stated,), (one,) = plan.experts or (), maps_of(plan)
    assert stated.ranks == 4 == plan.pools[0].configuration.ep
    assert stated.slots_per_rank == EXPERTS // 4 + plan.pools[0].configuration.redundant_experts
    assert stated.layers == list(range(1, LAYERS))
    assert check_map(one.physical_to_logical, one.split, EXPERTS, 4, stated.slots_per_rank) == []
    ratio = by_hand(one, shares)
    assert stated.fullest_over_mean.mean == pytest.approx(ratio.mean(), rel=1e-9)
    assert stated.fullest_over_mean.worst == pytest.approx(ratio.max(), rel=1e-9)
    assert stated.fullest_over_mean.bound <= stated.fullest_over_mean.mean * (1 + 1e-9)
    loads = loads_of_map(one.physical_to_logical, shares, one.split, 4)
    assert loads.max(axis=1) / loads.mean(axis=1) == pytest.approx(ratio, rel=1e-9)
    even = even_split(one.physical_to_logical, EXPERTS)
    assert (stated.split is None) == bool(np.allclose(one.split, even, rtol=0, atol=1e-12))
    if not uneven:
        assert stated.split is None
    worst = dict(_routed_item(decision_of(plan, "p").pool_with_map(context, "mixed").pieces).worst)
    assert worst[4] == pytest.approx(ratio.mean(), rel=1e-9)


def _routed_item(pieces: Any) -> RoutedItem:
    return next(block.routed for window in pieces.windows for block in window.blocks if block.routed)


def test_an_even_split_costs_what_an_uneven_one_need_not() -> None:
    """With copies, tokens split at will reach the mean; alike copies do not, and the plan says so."""
    uneven, even = (planned("steep", (1,), split, 60e6).experts for split in (True, False))
    assert uneven and even
    assert uneven[0].split is not None and uneven[0].fullest_over_mean.worst == pytest.approx(1.0, abs=1e-9)
    assert even[0].fullest_over_mean.mean > 1.01


@pytest.mark.parametrize("objective", ["cost", "throughput", "latency"])
@pytest.mark.parametrize("tpot_s", [None, 0.0006])
def test_the_gap_covers_what_the_map_loses(objective: str, tpot_s: float | None) -> None:
    """The bound is that of the least load that any map gives; the plan's objective that of its own map."""
    inputs = problem("steep", 60e6, redundant_experts=(1,), objective=objective, tpot_s=tpot_s, chunks=(4096,), gap=0.5)
    plan = solve(inputs)
    context = build_context(inputs, decision_of(plan, "p").variant)
    assert plan.experts and plan.experts[0].fullest_over_mean.mean > plan.experts[0].fullest_over_mean.bound * 1.01
    loaded = operation_objective(context, operate(context, decision_of(plan, "p")))
    least = operation_objective(context, operate(context, replace(decision_of(plan, "p"), experts=())))
    sign = -1.0 if objective == "throughput" else 1.0
    assert plan.certificate.objective == pytest.approx(loaded, rel=1e-9)
    assert sign * least < sign * loaded
    assert sign * plan.certificate.bound <= sign * least + 1e-9 * abs(least)
    assert plan.certificate.gap > 1e-6
    assert verify_plan(plan, full=True)[0] == []


# --- slots below device memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pins", "pp"), [(("ep=4",), 1), (("ep=2", "pp=2"), 2)])
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("redundant", [0, 1])
@pytest.mark.parametrize("memory", [40e6, 30e6, 25e6])
def test_slots_below_leave_no_more_in_device_memory_than_the_placement(
    use: str, redundant: int, memory: float, pins: tuple[str, ...], pp: int
) -> None:
    """In every stage, device memory holds what the placement gives it less than one slot, of the most used experts."""
    plan = solve(problem(use, memory, pins, redundant_experts=(redundant,)))
    inputs, decision = inputs_of(plan, "p"), decision_of(plan, "p")
    state = operate(build_context(inputs, decision.variant), decision).pools[0]
    (one,) = decision.experts
    shares = expert_shares(state.pool.pieces, USES[use])
    below = slots_below(state, one, shares)
    assert plan.experts and [b.model_dump() for b in plan.experts[0].below] == below
    low = [[slot for b in below for slot in b["slots"][row]] for row in range(ROUTED)]
    assert all(len(set(row)) == len(row) for row in low)
    edges = [stage * LAYERS // pp for stage in range(pp + 1)]
    kinds = state.pool.pieces.stages(pp)
    for stage, kind in enumerate(kinds):
        rows = [i for i, (layer, _) in enumerate(routed_layers(state.pool.pieces)) if edges[stage] <= layer < edges[stage + 1]]
        place = state.pool.pieces.stage_table(pp).index(kind)
        resident = slots = 0.0
        for index, choice in enumerate(state.problem.choices):
            item = state.problem.items[choice.item]
            if item.kind == "routed" and choice.stage == place and item.window < len(state.pool.pieces.windows):
                held = item.held * state.problem.stages[place][item.window] / _member(state)
                slots += held * float(state.shares[index])
                resident += held * float(state.shares[index]) * (choice.mode == "resident")
        assert slots == pytest.approx(len(rows) * one.slots, rel=1e-9)
        for rank in range(one.ranks):
            down = sum(slot // one.slots == rank for row in rows for slot in low[row])
            assert resident - 1 - 1e-6 < slots - down <= resident + 1e-6
    for row, layer in enumerate(one.physical_to_logical):
        use_of = shares[row][layer] * one.split[row]
        for rank in range(one.ranks):
            mine = range(rank * one.slots, (rank + 1) * one.slots)
            down_use = [use_of[slot] for slot in mine if slot in low[row]]
            up_use = [use_of[slot] for slot in mine if slot not in low[row]]
            assert not down_use or not up_use or max(down_use) <= min(up_use)


def test_stages_that_are_alike_round_each_for_itself() -> None:
    """Eight layers in four stages, three of them equal: device memory of each holds no more than the placement gives it."""
    software, rules = small.runtime(3, (64,)), parse_constraints(("ep=2", "pp=4"), ())
    model = small.experts(layers=8, count=16)
    inputs = small.instance(model, small.node(8, 1, 29e6), 1, used(USES["steep"]), software, constraints=rules)
    plan = solve(inputs)
    decision = decision_of(plan, "p")
    state = operate(build_context(inputs, decision.variant), decision).pools[0]
    assert len(state.pool.pieces.stages(4)) > len(state.pool.pieces.stage_table(4))
    (stated,), (one,) = plan.experts or (), decision.experts
    assert stated.below
    for stage, kind in enumerate(state.pool.pieces.stages(4)):
        place = state.pool.pieces.stage_table(4).index(kind)
        resident = sum(
            state.problem.items[c.item].held * state.problem.stages[place][state.problem.items[c.item].window] * float(share)
            for c, share in zip(state.problem.choices, state.shares, strict=True)
            if state.problem.items[c.item].kind == "routed" and c.stage == place and c.mode == "resident"
        ) / _member(state)
        rows = [row for row, layer in enumerate(stated.layers) if 2 * stage <= layer < 2 * stage + 2]
        down = sum(len(below.slots[row]) for below in stated.below for row in rows) / one.ranks
        assert len(rows) * one.slots - down <= resident + 1e-6


@pytest.mark.parametrize("use", USES)
def test_the_least_tpot_is_that_of_the_plan_where_it_is_the_plan(use: str) -> None:
    """Then it has the plan's maps, whatever the search for it took."""
    plan = solve(problem(use, 60e6, objective="latency", ttft_s=0.002, tpot_s=0.0006))
    assert plan.explanation["least_tpot"]["tpot_ms"] == pytest.approx(plan.prediction.tpot_ms.expected, rel=1e-9)
    assert verify_plan(plan, full=True)[0] == []


def _member(state: Any) -> float:
    item = _routed_item(state.pool.pieces)
    return float(np.ceil(item.member_bytes / (state.decision.tp * state.decision.dp / state.decision.ep)))


# --- law 2: nothing of it may be changed ------------------------------------------------------------------------------


def refusal(data: dict[str, Any]) -> list[tuple[str, str]]:
    try:
        return [(v.path, v.equation) for v in verify(json.dumps(data))[0]]
    except VerificationError as error:
        return [(str(v["path"]), str(v["equation"])) for v in error.violations]


def leaf_changes(value: float) -> tuple[float, float]:
    if isinstance(value, int):
        return value + 1, value - 1
    return (1e-6, -1e-6) if value == 0.0 else (value * (1 + 1e-6), value * (1 - 1e-6))


@pytest.mark.parametrize(
    ("use", "redundant", "uneven", "memory"),
    [("zipf", (1,), True, 25e6), ("measured", (1,), False, 60e6)],
)
def test_law_2_every_number_of_the_experts_changed_is_refused(
    use: str, redundant: tuple[int, ...], uneven: bool, memory: float
) -> None:
    data = json.loads(planned(use, redundant, uneven, memory).to_json())
    assert refusal(data) == []
    accepted, unnamed, count = [], [], 0
    for path, value in small.leaves(data["experts"]):
        for leaf in leaf_changes(value):
            found = refusal(small.changed(data, ("experts", *path), leaf))
            count += 1
            if not found:
                accepted.append((path, value, leaf))
            elif any(equation == "unknown entry" for _, equation in found) or not any(p.startswith("experts") for p, _ in found):
                unnamed.append((path, found[0]))
    assert not accepted and not unnamed
    assert count > 80


def test_copies_without_tokens_and_alike_experts_may_not_change_either() -> None:
    """Changes that leave every load as it is: two slots of a rank exchanged, two ranks, an idle copy of another expert."""
    data = json.loads(planned("zipf", (1,), True, 25e6).to_json())
    (stated,) = data["experts"]
    slots = stated["slots_per_rank"]
    held, split = stated["physical_to_logical"][0], stated["split"][0]

    def with_layer(physical: list[int], shares: list[float]) -> dict[str, Any]:
        changed = small.changed(data, ("experts", 0, "physical_to_logical", 0), physical)  # type: ignore[arg-type]
        return dict(small.changed(changed, ("experts", 0, "split", 0), shares))  # type: ignore[arg-type]

    swapped = [held[1], held[0], *held[2:]], [split[1], split[0], *split[2:]]
    ranks = (
        [*held[slots : 2 * slots], *held[:slots], *held[2 * slots :]],
        [*split[slots : 2 * slots], *split[:slots], *split[2 * slots :]],
    )
    for physical, shares in (swapped, ranks):
        assert any("fingerprint" in equation or "experts" in path for path, equation in refusal(with_layer(physical, shares)))
    idle = [slot for slot, share in enumerate(split) if share <= 1e-9]
    for slot in idle:
        rank = slot // slots
        for other in range(EXPERTS):
            if other not in held[rank * slots : (rank + 1) * slots]:
                assert refusal(with_layer([*held[:slot], other, *held[slot + 1 :]], split))


def test_a_plan_without_its_maps_is_refused() -> None:
    """Also with every number as it would be for the least load that any map gives."""
    from planner.plans.assemble import assemble
    from planner.plans.read import certificate_of, least_of

    plan = planned("measured", (1,), False, 60e6)
    decision, context = decision_of(plan, "p"), build_context(inputs_of(plan, "p"), decision_of(plan, "p").variant)
    forged = assemble(context, replace(decision, experts=()), certificate_of(plan), least_of(plan, "p"))
    assert [path for path, _ in refusal(json.loads(json.dumps(forged)))] == ["experts"]
    (one,) = decision.experts
    for maps in ((one, one), (replace(one, phase="decode"),)):
        with pytest.raises((PlannerError, KeyError)):
            violations = refusal_of(context, decision, maps, plan)
            assert [path for path, _ in violations] == ["experts"]
            raise InputError("refused")
    uniform = json.loads(solve(small.instance(MODEL, small.node(4, 1, 60e6), 1)).to_json())
    assert [p for p, _ in refusal({**uniform, "experts": json.loads(plan.to_json())["experts"]})] == ["experts"]


def refusal_of(context: Any, decision: Any, maps: tuple[ExpertMap, ...], plan: Plan) -> list[tuple[str, str]]:
    data = json.loads(plan.to_json())
    rows = []
    for one in maps:
        rows.append({**data["experts"][0], "pool": one.phase})
    return refusal({**data, "experts": rows})


@pytest.mark.parametrize("bad", [[], [[0, 1]], [[0] * 12] * ROUTED, [list(range(12))] * ROUTED, [[7] * 4096] * ROUTED])
def test_a_map_that_is_none_is_refused_in_one_line(bad: list[list[int]]) -> None:
    data = json.loads(planned("measured", (1,), False, 60e6).to_json())
    found = refusal(small.changed(data, ("experts", 0, "physical_to_logical"), bad))  # type: ignore[arg-type]
    assert found and all(path.startswith("experts") for path, _ in found)


# --- the search with use ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("memory", [60e6, 25e6])
@pytest.mark.parametrize(("ttft_s", "tpot_s", "redundant"), [(None, None, (0, 1)), (0.002, 0.0006, (1,))])
def test_against_brute_force(
    use: str, memory: float, ttft_s: float | None, tpot_s: float | None, redundant: tuple[int, ...]
) -> None:
    """Every configuration one by one, at the least load of any map: none is below the bound; with uneven splits the plan gets
    there."""
    load = used(USES[use], ttft_s=ttft_s, tpot_s=tpot_s)
    software = small.runtime(2, (64,), uneven_replicas=True)
    inputs = small.instance(MODEL, small.node(2, 1, memory), 1, load, software, redundant_experts=redundant)
    feasible = BruteForce(inputs).run()
    for objective in ("cost", "throughput", "latency"):
        asked = inputs.model_copy(update={"options": inputs.options.model_copy(update={"objective": objective})})
        context, sign = build_context(asked), -1.0 if objective == "throughput" else 1.0
        if not feasible:
            with pytest.raises(InfeasibleError):
                solve(asked)
            continue
        plan = solve(asked)
        values = [sign * operation_objective(context, entry.operation) for entry in feasible]
        assert sign * plan.certificate.bound <= min(values) + 1e-9 * abs(min(values))
        if plan.certificate.proved:
            assert sign * plan.certificate.objective <= min(values) + (asked.options.gap + 1e-9) * abs(min(values))
        assert verify_plan(plan)[0] == []


def test_more_slots_never_give_a_worse_bound() -> None:
    bounds = [
        solve(problem("steep", 60e6, redundant_experts=n, chunks=(4096,))).certificate.bound for n in ((0,), (0, 1), (0, 1, 2))
    ]
    assert bounds[0] >= bounds[1] * (1 - 1e-9) and bounds[1] >= bounds[2] * (1 - 1e-9)


def test_two_pools_have_a_map_each() -> None:
    """Prefill and decode apart on as many ranks: the same slots, each pool its own row."""
    software = small.runtime(3, (64,), aggregated=False)
    rules = parse_constraints(("ep=2",), ())
    plan = solve(small.instance(MODEL, small.node(4, 1, 60e6), 1, used(USES["zipf"]), software, constraints=rules))
    assert plan.mode == "disaggregated" and plan.experts
    assert [row.pool for row in plan.experts] == ["prefill", "decode"]
    assert plan.experts[0].physical_to_logical == plan.experts[1].physical_to_logical
    assert verify_plan(plan, full=True)[0] == []
    data = json.loads(plan.to_json())
    assert refusal({**data, "experts": data["experts"][::-1]})
    assert refusal({**data, "experts": data["experts"][:1]})


def test_a_demand_is_met_by_the_map_too() -> None:
    inputs = problem("steep", 60e6, redundant_experts=(1,), rate=200.0, chunks=(4096,))
    plan = solve(inputs)
    assert plan.prediction.requests_per_s == pytest.approx(200.0, rel=1e-9) and plan.experts
    assert verify_plan(plan, full=True)[0] == []


def test_conflicts_are_explained_with_use() -> None:
    with pytest.raises(InfeasibleError) as error:
        solve(problem("steep", 60e6, tpot_s=1e-7))
    assert error.value.conflict


def test_a_limit_that_only_the_least_load_would_meet() -> None:
    """Between the TPOT of the bound and that of the map found: refused, or met by another configuration, never broken."""
    free = solve(
        problem("steep", 60e6, redundant_experts=(1,), objective="latency", pins=("ep=4", "serving=aggregated"), chunks=(4096,))
    )
    decision = decision_of(free, "p")
    context = build_context(inputs_of(free, "p"), decision.variant)
    slow = operate(context, decision).tpot_s
    quick = operate(context, replace(decision, experts=())).tpot_s
    assert quick < slow
    inputs = problem(
        "steep", 60e6, redundant_experts=(1,), pins=("ep=4", "serving=aggregated"), chunks=(4096,), tpot_s=(quick + slow) / 2
    )
    try:
        plan = solve(inputs)
    except InfeasibleError as error:
        assert error.conflict
    else:
        assert verify_plan(plan)[0] == []


def test_a_stopped_search_still_has_a_map() -> None:
    stop = Stop()
    stop.interrupted = True
    try:
        plan = solve(problem("zipf", 25e6), stop=stop)
    except PlannerError as error:
        assert error.exit_code == 5
    else:
        assert plan.certificate.stopped and plan.experts
        assert verify_plan(plan)[0] == []


def test_the_same_bytes_twice() -> None:
    inputs = problem("measured", 25e6, redundant_experts=(0, 1))
    assert solve(inputs).to_json() == solve(inputs).to_json()
    again = Inputs.model_validate(solve(inputs).inputs, context={"si": True})
    assert solve(again).to_json() == solve(inputs).to_json()


def test_a_real_plan_with_popular_experts() -> None:
    """DeepSeek-V3 on two nodes with Zipf use, 32 redundant slots: verified, and no further from its bound than the gap says."""
    load = resolve("deepseek-v3", "h800-node:2").workload.model_copy(update={"experts": USES["zipf"], "tpot_s": 0.05})
    plan = solve(resolve("deepseek-v3", "h800-node:2", workload=load, redundant_experts=(0, 2)))
    assert plan.experts and plan.certificate.proved
    assert verify_plan(plan, full=True)[0] == []


# --- bad input --------------------------------------------------------------------------------------------------------


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        """Lines on stderr beside notes and hints."""
        return [line for line in self.err.splitlines() if not line.startswith(("next: ", "note: "))]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Call ``main`` in this process with an argument vector."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["planner", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err and "internal fault" not in err, err
        assert isinstance(stop.value.code, int)
        return Done(stop.value.code, out, err)

    return call


BAD = [
    ("zipf:x", None, "cannot read"),
    ("zipf:99", None, "cannot read"),
    ("zipf:", None, "cannot read"),
    ("zipf", None, "cannot read"),
    ("zipf:-1", None, "cannot read"),
    ("uniform:2", None, "cannot read"),
    ("missing.json", None, "missing.json"),
    ("ragged.json", "[[1, 2], [3]]", "layer 1 has 1"),
    ("negative.json", "[[1, -2], [3, 4]]", "negative.json"),
    ("size.json", "[[1, 2], [3, 4]]", "2 layers x 2 experts"),
    ("text.json", '[["a"]]', "not a number"),
    ("flat.json", "[1, 2]", "list of layers"),
    ("broken.json", "[[1, 2", "broken.json"),
    ("nan.json", "[[NaN, 1]]", "nan.json"),
    ("empty.json", "[]", "empty.json"),
    ("idle.json", "[[0, 0]]", "no load"),
    ("gap.csv", "layer,expert,load\n0,0,1\n0,2,1\n", "lacks expert 1"),
    ("twice.csv", "layer,expert,load\n0,0,1\n0,0,1\n", "twice"),
    ("head.csv", "a,b,c\n0,0,1\n", "columns"),
    ("minus.csv", "layer,expert,load\n0,0,-1\n", "minus.csv"),
]


@pytest.mark.parametrize(("name", "text", "says"), BAD, ids=[name for name, _, _ in BAD])
def test_bad_experts_are_one_line(name: str, text: str | None, says: str, tmp_path: Path, run: Any) -> None:
    given_name = name
    if "." in name:
        given_name = str(tmp_path / name)
        if text is not None:
            Path(given_name).write_text(text)
    done = run("plan", "deepseek-v3", "h800-node", "--experts", given_name)
    assert done.code == 2 and not done.out and len(done.faults) == 1
    assert says in done.faults[0] and "Traceback" not in done.err


@pytest.mark.parametrize("text", ["", "x", "-1", "65", "0,,1", "1.5", "0,0", "9" * 400, "1;2"])
def test_bad_redundant_experts_are_one_line(text: str, run: Any) -> None:
    done = run("plan", "deepseek-v3", "h800-node", "--redundant-experts", text)
    assert done.code == 2 and not done.out and len(done.faults) == 1 and len(done.faults[0]) < 400


def test_loads_from_a_file(tmp_path: Path, run: Any) -> None:
    """JSON and CSV of the same loads give the same plan; the plan embeds them and no path."""
    loads = np.random.default_rng(3).gamma(0.7, 1.0, (58, 256)).round(4)
    (tmp_path / "loads.json").write_text(json.dumps(loads.tolist()))
    rows = [f"{layer},{expert},{load}" for layer, row in enumerate(loads) for expert, load in enumerate(row)]
    (tmp_path / "loads.csv").write_text("layer,expert,load\n" + "\n".join(rows))
    plans = []
    for name in ("loads.json", "loads.csv"):
        done = run("plan", "deepseek-v3", "h800-node:2", "--experts", str(tmp_path / name), "--format", "json")
        assert done.code == 0, done.err
        plans.append(done.out)
    assert plans[0] == plans[1] and str(tmp_path) not in plans[0]
    assert verify(plans[0])[0] == []
