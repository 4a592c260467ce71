"""Whole experts over memories and devices with barriers: the bound against brute force, the map, the laws."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances_barrier import catalogue_instance

from planner.errors import InputError
from planner.plans.barrier_bound import BarrierProblem, barrier_bound, evaluate_map, expert_barrier, layer_bounds
from planner.plans.count_bound import best_counts, lagrangian
from planner.search.barrier import place_experts

KINDS = ("free", "whole", "gated", "ties", "either", "large", "alike")


def random_problem(seed: int, layers: int, pieces: int, devices: int) -> BarrierProblem:
    """A small problem of one of several characters, with random slots."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    rows = int(random.integers(1, 4))
    shape = (rows, layers, pieces)
    resident = random.random(shape)
    away = resident + random.random(shape)
    if kind == "whole":
        away = resident + random.choice([1.0, 3.0])
    elif kind == "gated":
        wanted = random.random((layers, pieces))
        resident = np.stack([wanted] * rows)
        away = resident * random.choice([1.5, 5.0, 30.0])
    elif kind == "ties":
        resident = random.integers(0, 3, shape).astype(float)
        away = resident + random.integers(0, 4, shape)
    elif kind == "either":
        away = random.random(shape) * 2.0
    elif kind == "large":
        resident = random.random(shape) ** 6 * 10.0
        away = resident + 1.0 + 0.1 * random.random(shape)
    elif kind == "alike":
        resident = 1.0 + 0.05 * random.random(shape)
        away = 3.0 + random.random(shape)
    offset = random.random((rows, layers)) * random.choice([0.0, 1.0])
    slots = int(random.integers(0, layers * pieces // devices + 2))
    return BarrierProblem(resident, away, offset, devices, slots)


@cache
def every_share(pieces: int, devices: int) -> tuple[np.ndarray, np.ndarray]:
    """All ``(N, E)`` devices and ``(N, E)`` memories of one layer."""
    device = np.array(list(itertools.product(range(devices), repeat=pieces)))
    away = np.array(list(itertools.product([False, True], repeat=pieces)))
    return np.repeat(device, len(away), axis=0), np.tile(away, (len(device), 1))


def layer_times(problem: BarrierProblem, layer: int) -> np.ndarray:
    """``(N,)`` time of one layer for every share."""
    device, away = every_share(problem.resident.shape[2], problem.devices)
    worst = np.zeros(len(device))
    for row in range(len(problem.resident)):
        seconds = np.where(away, problem.away[row, layer], problem.resident[row, layer])
        for number in range(problem.devices):
            worst = np.maximum(worst, problem.offset[row, layer] + np.where(device == number, seconds, 0.0).sum(axis=1))
    return worst


def exact_layers(problem: BarrierProblem) -> np.ndarray:
    """``(L, E+1)`` least time of each layer with exactly m pieces away, by trying everything."""
    _, layers, pieces = problem.resident.shape
    _, away = every_share(pieces, problem.devices)
    counts = away.sum(axis=1)
    table = np.full((layers, pieces + 1), np.inf)
    for layer in range(layers):
        np.minimum.at(table[layer], counts, layer_times(problem, layer))
    return table


def optimum(problem: BarrierProblem) -> float:
    """The best map, by trying everything: for every way to fill the devices' memories the least time so far."""
    _, layers, pieces = problem.resident.shape
    device, away = every_share(pieces, problem.devices)
    held = np.stack([((device == number) & ~away).sum(axis=1) for number in range(problem.devices)], axis=1)
    best: dict[tuple[int, ...], float] = {(0,) * problem.devices: 0.0}
    for layer in range(layers):
        times = layer_times(problem, layer)
        fresh: dict[tuple[int, ...], float] = {}
        for at in np.unique(held, axis=0):
            least = times[(held == at).all(axis=1)].min()
            for used, before in best.items():
                key = tuple(int(a + b) for a, b in zip(used, at, strict=True))
                if max(key) <= problem.slots:
                    fresh[key] = min(fresh.get(key, np.inf), before + least)
        best = fresh
    return min(best.values())


LAYER_SIZES = [(4, 2, 300), (5, 2, 300), (4, 3, 150), (7, 2, 60), (6, 3, 60)]


@pytest.mark.parametrize(("pieces", "devices", "instances"), LAYER_SIZES)
def test_no_layer_beats_its_bound(pieces, devices, instances):
    """Admissible for every count of pieces away, and not idle: often equal to the optimum."""
    equal = 0
    for seed in range(instances):
        problem = random_problem(seed, 2, pieces, devices)
        bound, exact = layer_bounds(problem), exact_layers(problem)
        assert (bound <= exact * (1 + 1e-9) + 1e-12).all(), f"seed {seed}: {(bound - exact).max()}"
        equal += int((bound >= exact * (1 - 1e-9)).sum())
    assert equal > 0.1 * instances * 2 * (pieces + 1)


@pytest.mark.parametrize(("layers", "pieces", "devices", "instances"), [(2, 4, 2, 560), (3, 3, 2, 140), (2, 4, 3, 70)])
def test_bound_optimum_and_found(layers, pieces, devices, instances):
    """Bound <= optimum <= found; where bound and found meet, all three are equal, and they meet often."""
    met = right = 0
    for seed in range(instances):
        problem = random_problem(seed, layers, pieces, devices)
        plan, best = place_experts(problem), optimum(problem)
        assert plan.bound <= best * (1 + 1e-9), f"seed {seed}"
        assert best <= plan.objective * (1 + 1e-9), f"seed {seed}"
        assert plan.objective == evaluate_map(problem, plan.device, plan.away)[0]
        met += plan.gap <= 1e-8
        right += plan.objective <= best * (1 + 1e-9)
    assert met >= 0.2 * instances
    assert right >= 0.45 * instances


def test_a_bound_raised_by_one_percent_is_caught():
    """The comparison with brute force can fail."""
    caught = 0
    for seed in range(50):
        problem = random_problem(seed, 2, 4, 2)
        caught += bool((layer_bounds(problem) * 1.01 > exact_layers(problem) * (1 + 1e-9) + 1e-12).any())
    assert caught > 40


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_counts_are_the_exact_minimum(seed, layers, choices, whole):
    """The dynamic program over counts equals trying all, and no multiplier bounds more."""
    random = np.random.default_rng(seed)
    table = random.integers(0, 6, (layers, choices)).astype(float) if whole else random.random((layers, choices))
    least = int(random.integers(0, layers * (choices - 1) + 1))
    found = best_counts(table, least)
    every = [c for c in itertools.product(range(choices), repeat=layers) if sum(c) >= least]
    best = min(sum(table[layer, m] for layer, m in enumerate(c)) for c in every)
    assert found.value == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert found.counts.sum() >= least
    assert found.relaxed <= best * (1 + 1e-9) + 1e-12
    for multiplier in (0.0, found.multiplier, 2 * found.multiplier, 1.0):
        assert lagrangian(table, least, multiplier) <= best * (1 + 1e-9) + 1e-12


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_every_map_fits_and_is_reproducible(seed):
    """No device is over its slots, whatever the shape, and the same problem gives the same map."""
    random = np.random.default_rng(seed)
    layers, pieces, devices = (int(random.integers(1, top)) for top in (6, 20, 9))
    problem = random_problem(seed, layers, pieces, devices)
    plan = place_experts(problem)
    objective, held = evaluate_map(problem, plan.device, plan.away)
    assert held.max() <= problem.slots
    assert plan.bound <= objective * (1 + 1e-9)
    again = place_experts(problem)
    assert (again.device == plan.device).all() and (again.away == plan.away).all() and again.bound == plan.bound


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_richer_instance_is_bounded_below_the_poorer_plan(seed, more):
    """More slots never raise the bound; with more slots, or any row faster, it stays below the plan of the poorer instance."""
    problem = random_problem(seed, 3, 8, 3)
    plan = place_experts(problem)
    roomy = replace(problem, slots=problem.slots + more)
    assert barrier_bound(roomy) <= plan.bound * (1 + 1e-12)
    factor = np.ones((len(problem.resident), 1, 1))
    factor[seed % len(factor)] = 1.0 / (1.0 + more)
    quick = replace(problem, resident=problem.resident * factor, away=problem.away * factor)
    assert barrier_bound(quick) <= plan.objective * (1 + 1e-9)
    assert evaluate_map(quick, plan.device, plan.away)[0] <= plan.objective * (1 + 1e-12)


@given(st.integers(0, 10_000), st.integers(-20, 20))
@settings(max_examples=30, deadline=None)
def test_scaling_times_scales_bound_and_plan(seed, power):
    """Times in another unit (a power of two) change nothing but the unit."""
    problem = random_problem(seed, 3, 7, 3)
    factor = 2.0**power
    scaled = replace(problem, resident=problem.resident * factor, away=problem.away * factor, offset=problem.offset * factor)
    first, second = place_experts(problem), place_experts(scaled)
    assert second.bound == pytest.approx(first.bound * factor, rel=1e-9)
    assert second.objective == pytest.approx(first.objective * factor, rel=1e-9)


def test_maps_that_break_a_rule_are_refused():
    problem = random_problem(1, 2, 4, 2)
    problem = replace(problem, slots=2)
    none = np.zeros((2, 4), dtype=bool)
    split = np.tile(np.arange(4) % 2, (2, 1))
    with pytest.raises(InputError, match="into 2 slots"):
        evaluate_map(problem, split, none)
    with pytest.raises(InputError, match="not there"):
        evaluate_map(problem, split + 1, ~none)
    with pytest.raises(InputError, match="shape"):
        evaluate_map(problem, split[:1], ~none)
    with pytest.raises(InputError, match="finite"):
        replace(problem, away=problem.away * np.nan)


def test_modes_charge_the_link():
    """Streamed pieces cost their whole bytes beside the rest, fetched ones the wanted share before it."""
    chance = np.array([[0.5, 0.25]])
    compute = np.array([[0.125, 0.0625]])
    streamed = expert_barrier(chance, 2.0, 8.0, compute, 4.0, 2.0, "prefetch", 1, 0)
    assert streamed.resident == pytest.approx(np.array([[[1.5, 0.875]], [[0.0, 0.0]], [[0.125, 0.0625]]]))
    assert streamed.away == pytest.approx(np.array([[[3.5, 2.875]], [[4.0, 4.0]], [[0.125, 0.0625]]]))
    fetched = expert_barrier(chance, 2.0, 8.0, compute, 4.0, 2.0, "gated", 1, 0)
    assert fetched.resident == pytest.approx(np.array([[[1.5, 0.875]], [[0.125, 0.0625]]]))
    assert fetched.away == pytest.approx(np.array([[[4.5, 2.625]], [[3.125, 1.8125]]]))


@pytest.mark.parametrize("mode", ["prefetch", "gated"])
def test_a_catalogue_model_is_placed_within_a_proved_gap(mode):
    """Whole experts of a real model on a node, 80 % of them in device memory."""
    plan = place_experts(catalogue_instance("deepseek-v3", "h800-node", 8, 0.8, 0.8, 64, mode))
    assert 0.0 <= plan.gap <= 0.005


def test_stalls_gather_in_few_layers():
    """5 % of the experts away: not one stalled device in every layer, but few layers in which every device streams one."""
    problem = catalogue_instance("deepseek-v4-pro", "gb200-nvl72", 72, 0.95, 0.4, 16, "prefetch")
    plan = place_experts(problem)
    touched = np.flatnonzero(plan.away.any(axis=1))
    assert len(touched) <= -(-problem.least_away // 72) + 1
    spread = plan.away[touched[0]].sum()
    assert spread == 72
