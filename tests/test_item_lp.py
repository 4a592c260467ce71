"""The tier problem of single items: bracket, vertex, prices, whole items, and the laws they obey."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances import items

import planner.search.item_lp as item_lp
from planner.errors import InputError
from planner.plans.item_bound import (
    ItemPlacement,
    ItemProblem,
    Prices,
    evaluate_items,
    legal,
    lower_bound,
    overflow_bound,
)
from planner.search.item_lp import (
    ItemSolution,
    capacity_slopes,
    changed_capacity,
    price_range,
    solve_items,
)
from planner.search.item_master import DoesNotFit, Explicit, Setting, solve_explicit
from planner.search.item_round import whole_items

NEAR = 2e-8


def random_problem(seed: int, count: int | None = None, windows: int = 3) -> ItemProblem:
    """Any shape: ties, parallel amounts, integers, missing amounts, forbidden choices, unlimited and empty memories."""
    rng = np.random.default_rng(seed)
    number = count or int(rng.integers(1, 120))
    kinds, choices, rows, resources, memories = (int(rng.integers(1, high)) for high in (4, 6, 5, 6, 4))
    spans = int(rng.integers(1, windows + 1))
    amounts = np.exp(rng.normal(0, 1.5, (rows, number)))
    style = rng.integers(0, 4)
    if style == 1:
        amounts = np.ceil(amounts)
    if style == 2:
        amounts[1:] = amounts[0] * np.round(rng.random((rows - 1, 1)) * 4)
    if rng.random() < 0.3:
        amounts *= rng.random((rows, number)) < 0.8
    seconds = rng.random((kinds, choices, rows, resources)) * (rng.random((kinds, choices, rows, resources)) < 0.4)
    if style == 3:
        seconds = np.round(seconds * 3)
    allowed = rng.random((kinds, choices)) < 0.8
    allowed[np.arange(kinds), rng.integers(0, choices, kinds)] = True
    occupies = np.zeros((choices, memories))
    occupies[np.arange(choices), rng.integers(0, memories, choices)] = 1.0
    if rng.random() < 0.3:
        occupies += 0.1 * rng.random((choices, memories))
    capacity = amounts[0].sum() * np.exp(rng.normal(0.4, 0.7, memories))
    capacity[rng.random(memories) < 0.2] = np.inf
    if rng.random() < 0.05:
        capacity[0] = 0.0
    return ItemProblem(
        amounts, rng.integers(0, kinds, number), rng.integers(0, spans, number), seconds, allowed, rng.random(kinds) < 0.5,
        occupies, capacity, rng.random((spans, resources)) * rng.choice([0, 1, 10]),
        rng.random(spans) * (rng.random(spans) < 0.9),
        tuple(f"c{i}" for i in range(choices)), tuple(f"m{i}" for i in range(memories)), tuple(f"r{i}" for i in range(resources)),
        None if rng.random() < 0.5 else np.ceil(rng.random(number) * 3),
    )  # fmt: skip


def monolith(problem: ItemProblem) -> Explicit | None:
    """Every item and choice a column of GLOP."""
    scale = max(1.0, float(problem.fixed.max()))
    try:
        return solve_explicit(Setting(problem, np.zeros(len(problem.capacity)), problem.fixed, scale), problem.points)
    except DoesNotFit:
        return None


def solved(problem: ItemProblem) -> ItemSolution | None:
    try:
        return solve_items(problem)
    except DoesNotFit as found:
        assert overflow_bound(problem, found.memory) > 0.0
        return None


def rescaled(problem: ItemProblem, seconds: float = 1.0, size: float = 1.0) -> ItemProblem:
    """Durations times ``seconds``; sizes, capacities and what is per byte times ``size``."""
    return replace(
        problem,
        amounts=problem.amounts * size,
        capacity=problem.capacity * size,
        seconds=problem.seconds * seconds / size,
        fixed=problem.fixed * seconds,
    )


# --- the bracket ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(10))
def test_bracket_holds_the_monolith(block: int) -> None:
    """Value and bound meet at GLOP's optimum, nothing overflows, few items are split; what does not fit is proved not to."""
    fitting = 0
    for seed in range(block * 50, block * 50 + 50):
        problem = random_problem(seed)
        whole, found = monolith(problem), solved(problem)
        assert (whole is None) == (found is None), seed
        if whole is None or found is None:
            continue
        fitting += 1
        scale = max(whole.value, 1e-9)
        assert found.value == pytest.approx(whole.value, rel=NEAR, abs=1e-9), seed
        assert found.bound <= whole.value + 1e-9 * scale and found.value - found.bound <= NEAR * scale, seed
        room = np.where(np.isfinite(problem.capacity), problem.capacity, 0.0) + 1e-9 * problem.points.amounts[0].sum()
        assert (found.times.used <= room)[np.isfinite(problem.capacity)].all(), seed
        rows = np.isfinite(problem.capacity).sum() + problem.fixed.size + 1
        assert len(found.placement.split) <= rows, seed
        assert found.bound == pytest.approx(lower_bound(problem, found.prices), rel=1e-12, abs=1e-12)
    assert fitting > 20


@pytest.mark.parametrize("seed", range(6))
def test_groups_and_ties_of_thousands(seed: int) -> None:
    problem = random_problem(3000 + seed, 2000)
    whole, found = monolith(problem), solved(problem)
    assert (whole is None) == (found is None)
    if whole and found:
        assert found.value == pytest.approx(whole.value, rel=NEAR) and found.gap <= NEAR


@pytest.mark.parametrize("jitter", [0.3, 0.0])
def test_catalogue_instance_against_the_monolith(jitter: float) -> None:
    """Experts of two layers: streaming and device memory tie for all of them, whatever they read."""
    problem = items(batch=64, layers=2, hbm=0.045, jitter=jitter)
    whole, found = monolith(problem), solve_items(problem)
    assert whole is not None and found.value == pytest.approx(whole.value, rel=NEAR)
    assert found.gap <= NEAR and found.times.used[0] == pytest.approx(problem.capacity[0], rel=1e-9)


def test_the_first_vertex_suffices(monkeypatch: pytest.MonkeyPatch) -> None:
    """15 thousand experts, most of them tied: no second attempt with more items free."""
    calls: list[int] = []
    recover = item_lp._recover
    monkeypatch.setattr(item_lp, "_recover", lambda *given: calls.append(given[2]) or recover(*given))
    for jitter in (0.0, 0.3):
        assert solve_items(items(batch=64, jitter=jitter)).gap <= NEAR
    assert calls == [item_lp.FREE] * 2


def test_brute_force() -> None:
    """Integral optima of tiny problems are no better than the bound, and whole items are no better than brute force."""
    seen = 0
    for seed in range(600):
        problem = random_problem(9000 + seed, 4, windows=2)
        problem = replace(problem, divisible=np.zeros(len(problem.allowed), dtype=bool), copies=None)
        table = [np.flatnonzero(problem.allowed[kind]) for kind in problem.kind]
        none = (np.zeros(0, dtype=np.intp), np.zeros((0, len(problem.choices))))
        best = np.inf
        for picks in itertools.product(*table):
            times = evaluate_items(problem, ItemPlacement(np.array(picks, dtype=np.int8), *none))
            if (times.used <= problem.capacity * (1 + 1e-9)).all():
                best = min(best, times.value)
        found = solved(problem)
        if found is None:
            assert best == np.inf
            continue
        assert found.bound <= best * (1 + 1e-9)
        whole = whole_items(problem, found, 0.0)
        if whole is None:
            assert best == np.inf, seed
            continue
        seen += 1
        assert whole.times.value == pytest.approx(best, rel=1e-5, abs=1e-9), seed
        assert len(whole.placement.split) == 0
    assert seen > 250


@given(st.integers(0, 10**6), st.integers(0, 10**6))
@settings(max_examples=100, deadline=None)
def test_any_prices_bound_any_placement(seed: int, other: int) -> None:
    """Weak duality: random prices, made legal, never exceed a random placement that fits."""
    problem = random_problem(seed)
    rng = np.random.default_rng(other)
    weights = np.where(problem.allowed, rng.random(problem.allowed.shape), -1.0)
    choice = weights.argmax(axis=1)[problem.kind].astype(np.int8)
    placement = ItemPlacement(choice, np.zeros(0, dtype=np.intp), np.zeros((0, len(problem.choices))))
    times = evaluate_items(problem, placement)
    problem = replace(problem, capacity=np.maximum(problem.capacity, times.used))
    prices = Prices(rng.normal(0, 1, len(problem.capacity)), rng.normal(0.5, 1, problem.fixed.shape))
    assert lower_bound(problem, prices) <= times.value * (1 + 1e-12) + 1e-12
    fair = legal(problem, prices)
    assert (fair.memory >= 0).all() and (fair.resource.sum(axis=1) <= problem.weight * (1 + 1e-12)).all()


def test_the_bound_is_rounded_outward_and_moves_with_the_prices() -> None:
    """At optimal prices the bound is just below the value; wrong prices bound less; unlawful ones would bound more."""
    problem = items(batch=64, layers=3, hbm=0.05)
    found = solve_items(problem)
    assert found.value * (1 - 1e-7) < found.bound <= found.value
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert lower_bound(problem, replace(found.prices, memory=found.prices.memory * factor)) < found.bound
    double = Prices(found.prices.memory, found.prices.resource * 2.0)
    assert lower_bound(problem, double) <= found.value


# --- laws -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_order_of_items_does_not_matter(seed: int) -> None:
    problem = random_problem(seed)
    turn = np.random.default_rng(seed).permutation(len(problem.kind))
    other = replace(
        problem, amounts=problem.amounts[:, turn], kind=problem.kind[turn], window=problem.window[turn],
        copies=None if problem.copies is None else problem.copies[turn],
    )  # fmt: skip
    one, two = solved(problem), solved(other)
    assert (one is None) == (two is None)
    if one and two:
        assert one.value == pytest.approx(two.value, rel=NEAR, abs=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([0.125, 3.0, 1e3]), st.integers(-20, 20))
@settings(max_examples=40, deadline=None)
def test_scaling(seed: int, seconds: float, power: int) -> None:
    """Law 3: durations scale times; a power of two on every size changes no time, and prices per byte inversely."""
    problem = random_problem(seed)
    one, two, three = solved(problem), solved(rescaled(problem, seconds=seconds)), solved(rescaled(problem, size=2.0**power))
    if one is None or two is None or three is None:
        assert one is two is three is None
        return
    assert two.value == pytest.approx(one.value * seconds, rel=NEAR, abs=1e-9 * seconds)
    assert three.value == one.value
    assert np.array_equal(three.placement.choice, one.placement.choice)
    assert np.allclose(three.prices.memory * 2.0**power, one.prices.memory, rtol=1e-12, atol=0.0)


@given(st.integers(0, 10**6), st.integers(0, 5), st.floats(1.01, 3.0))
@settings(max_examples=60, deadline=None)
def test_monotone_in_every_capacity_and_bandwidth(seed: int, which: int, factor: float) -> None:
    """Law 1: more room and more of a resource's speed never cost time."""
    problem = random_problem(seed)
    before = solved(problem)
    seconds = problem.seconds.copy()
    seconds[..., which % seconds.shape[-1]] /= factor
    for richer in (changed_capacity(problem, which % len(problem.capacity), factor), replace(problem, seconds=seconds)):
        after = solved(richer)
        if before is not None:
            assert after is not None
            assert after.bound <= before.value * (1 + 1e-9) + 1e-12
            assert after.value <= before.value * (1 + NEAR) + 1e-12


def test_same_input_same_bytes() -> None:
    problem = items(batch=64, layers=6, hbm=0.1)
    one, two = solve_items(problem), solve_items(replace(problem))
    assert one.value == two.value and one.bound == two.bound
    assert np.array_equal(one.placement.choice, two.placement.choice)
    assert np.array_equal(one.placement.shares, two.placement.shares)
    first, second = whole_items(problem, one), whole_items(problem, two)
    assert first is not None and second is not None
    assert np.array_equal(first.placement.choice, second.placement.choice)


def test_an_idle_tier_holds_nothing() -> None:
    """Law 7: a tier whose removal leaves the optimum unchanged is empty, though disk and host tie where both are idle enough."""
    checked = 0
    for batch in (16, 64, 256):
        problem = items(batch=batch, layers=8, hbm=0.12)
        found = solve_items(problem)
        for memory in range(1, len(problem.memories)):
            gone = replace(problem, allowed=problem.allowed & (problem.occupies[:, memory] == 0.0))
            without = solve_items(gone)
            if without.value <= found.value * (1 + 1e-9):
                assert found.times.used[memory] <= 1e-9 * problem.points.amounts[0].sum(), (batch, memory)
                checked += 1
    assert checked
    roomy = solve_items(items(batch=64, layers=8, hbm=1.0))
    assert roomy.times.used[1:].max() == 0.0 and not len(roomy.placement.split)


# --- what the windows, gates and copies mean ------------------------------------------------------------------------


def test_by_hand() -> None:
    """10 items of 1 GB over 6 GB of device memory; a byte streamed takes 10 ms a GB and hides behind 25 ms of compute.

    Hidden: 2.5 GB take the 25 ms, the fourth takes 40 ms in all; gated: the 4 GB add 40 ms to the 25.
    """

    def one(gated: bool) -> ItemProblem:
        seconds = np.zeros((1, 2, 1, 2))
        seconds[0, 1, 0] = [10e-12 if gated else 0.0, 10e-12]
        return ItemProblem(
            np.full((1, 10), 1e9), np.zeros(10, dtype=int), np.zeros(10, dtype=int), seconds, np.ones((1, 2), dtype=bool),
            np.ones(1, dtype=bool), np.eye(2), np.array([6e9, np.inf]), np.array([[25e-3, 0.0]]), np.ones(1),
            ("device", "host"), ("hbm", "host"), ("exposed", "link"),
        )  # fmt: skip

    hidden, exposed = solve_items(one(False)), solve_items(one(True))
    assert hidden.value == pytest.approx(40e-3) and exposed.value == pytest.approx(65e-3)
    assert hidden.prices.memory[0] == pytest.approx(10e-12) and hidden.prices.resource[0].tolist() == pytest.approx([0.0, 1.0])
    assert hidden.placement.choice.tolist().count(1) == 4 and not len(hidden.placement.split)
    twice = solve_items(replace(one(False), copies=np.full(10, 1.25)))
    assert twice.value == pytest.approx(65e-3)
    with pytest.raises(DoesNotFit) as refused:
        solve_items(replace(one(False), allowed=np.array([[True, False]])))
    assert overflow_bound(replace(one(False), allowed=np.array([[True, False]])), refused.value.memory) == pytest.approx(
        10 / 6 - 1
    )


def test_windows_are_barriers() -> None:
    """Time left in one window does not hide reads of another: one window for all is never slower, and at times quicker."""
    quicker = 0
    for seed in range(60):
        problem = random_problem(seed)
        problem = replace(problem, weight=np.ones(len(problem.weight)))
        single = np.zeros_like(problem.window)
        together = replace(problem, window=single, fixed=problem.fixed.sum(axis=0, keepdims=True), weight=np.ones(1))
        parted, whole = solved(problem), solved(together)
        if parted is not None and whole is not None:
            assert whole.value <= parted.value * (1 + NEAR) + 1e-12
            quicker += whole.value < parted.value * 0.99
    assert quicker > 10


def test_bottleneck_shares_sum_to_one() -> None:
    for count in (1, 3):
        found = solve_items(items(batch=64, layers=9, hbm=0.12, windows=count))
        assert found.prices.resource.sum(axis=1) == pytest.approx(np.ones(count), rel=1e-12)
        idle = found.times.load < found.times.time[:, None] * (1 - 1e-6)
        assert found.prices.resource[idle].max(initial=0.0) <= 1e-6


def test_a_capacity_s_price_lies_between_its_slopes() -> None:
    problem = items(batch=64, layers=8, hbm=0.11)
    found = solve_items(problem)
    price = -float(found.prices.memory[0])
    assert price < 0.0
    for step in (1e-3, 0.02, 0.05):
        below, above = capacity_slopes(problem, found, 0, step)
        assert below <= price * (1 - 1e-6) or below == pytest.approx(price, rel=1e-3)
        assert above >= price * (1 + 1e-6) or above == pytest.approx(price, rel=1e-3)
    low, high = price_range(problem, found, 0, 0.05)
    assert low <= problem.capacity[0] <= high and low < high
    far = capacity_slopes(problem, found, 0, 0.5)[1]
    assert high < 1.5 * problem.capacity[0] or far == pytest.approx(price, rel=0.05)


def test_whole_experts() -> None:
    problem = items(batch=64, layers=10, hbm=0.13)
    found = solve_items(problem)
    whole = whole_items(problem, found, 1e-3)
    assert whole is not None and 0.0 <= whole.gap < 5e-3
    assert problem.divisible[problem.kind[whole.placement.split]].all()
    assert (whole.times.used <= problem.capacity * (1 + 1e-9)).all()
    assert whole.times.value == evaluate_items(problem, whole.placement).value


def test_the_mixture_is_a_placement_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no vertex is found the columns' mixture is within tolerance."""
    problem = items(batch=64, layers=4, hbm=0.06)
    sure = solve_items(problem)
    monkeypatch.setattr(item_lp, "_recover", lambda *_: None)
    found = solve_items(problem)
    assert found.value == pytest.approx(sure.value, rel=NEAR) and found.gap <= NEAR
    assert (found.times.used <= problem.capacity * (1 + 1e-9)).all()


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amounts": np.full((2, 3), -1.0)}, "negative"),
        ({"amounts": np.full((2, 3), np.nan)}, "negative"),
        ({"amounts": np.ones((2, 4))}, "shape"),
        ({"kind": np.array([0, 1, 2])}, "integers"),
        ({"window": np.zeros(3)}, "integers"),
        ({"allowed": np.array([[True, True], [False, False]])}, "without a choice"),
        ({"choices": ("one",)}, "named"),
        ({"fixed": np.full((1, 2), np.inf)}, "infinite"),
    ],
)
def test_malformed_problems_are_refused(change: dict[str, object], message: str) -> None:
    problem = ItemProblem(
        np.ones((2, 3)), np.array([0, 1, 1]), np.zeros(3, dtype=int), np.ones((2, 2, 2, 2)), np.ones((2, 2), dtype=bool),
        np.ones(2, dtype=bool), np.eye(2), np.ones(2), np.zeros((1, 2)), np.ones(1), ("a", "b"), ("m", "n"), ("r", "s"),
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        replace(problem, **change)  # type: ignore[arg-type]


def test_placements_that_are_none_are_refused() -> None:
    problem = items(batch=4, layers=1, hbm=0.05)
    found = solve_items(problem).placement
    count = len(problem.choices)
    item = np.array([0], dtype=np.intp)
    for wrong in (
        replace(found, choice=found.choice[1:]),
        replace(found, choice=np.full_like(found.choice, count)),
        ItemPlacement(found.choice, item, np.full((1, count), 0.5)),
        ItemPlacement(found.choice, np.repeat(item, 2), np.eye(count)[[0, 0]]),
        ItemPlacement(np.full_like(found.choice, 2), item[:0], np.zeros((0, count))),
    ):
        with pytest.raises(InputError):
            evaluate_items(problem, wrong)
