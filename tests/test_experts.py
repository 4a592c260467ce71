"""Whole experts on devices: the bound, the maps, the rival, and the loads they start from."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from instances_experts import (
    DEEPSEEK_V3,
    DEEPSEEK_V4,
    PUBLISHED_LOADS,
    PUBLISHED_MAP,
    best_by_brute_force,
    best_even_by_brute_force,
    greedy_worst,
    tiny_instance,
    zipf_loads,
)

from planner.errors import InputError
from planner.plans.expert_bounds import check_map, loads_of_map, lower_bound, refuted
from planner.search.expert_greedy import even_split, greedy_map
from planner.search.experts import balance_memory, place_experts
from planner.search.experts_even import place_experts_evenly
from planner.workload.experts import ExpertPopularity, measured, ranks, read_popularity

NEAR = 1e-9


def faults(found, experts):
    return check_map(found.physical_to_logical, found.split, experts, found.devices, found.slots)


def recomputed(found, loads):
    return loads_of_map(found.physical_to_logical, loads, found.split, found.devices)


def test_equal_to_brute_force():
    random = np.random.default_rng(11)
    grouped = beyond_the_mean = 0
    for _ in range(600):
        loads, devices, slots = tiny_instance(random)
        found = place_experts(loads[None], devices, slots)
        best = best_by_brute_force(loads, devices, slots)
        assert faults(found, len(loads)) == []
        assert found.worst[0] == pytest.approx(best, rel=NEAR, abs=1e-12), (loads, devices, slots)
        assert lower_bound(loads[None], devices, slots)[0] <= best * (1 + NEAR)
        grouped += devices * slots - len(loads) < devices - 1
        beyond_the_mean += best > loads.sum() / devices * (1 + NEAR)
    assert grouped > 60 and beyond_the_mean > 40


def test_bound_below_the_best_partition():
    random = np.random.default_rng(13)
    met = count = 0
    while count < 400:
        experts, slots = int(random.integers(6, 11)), int(random.integers(2, 5))
        devices = -(-experts // slots) + int(random.integers(0, 4))
        if devices * slots - experts >= devices - 1:
            continue
        count += 1
        loads = np.exp(random.uniform(0, 2.5) * random.standard_normal((1, experts)))
        best = place_experts(loads, devices, slots).worst
        bound = lower_bound(loads, devices, slots)
        assert (bound <= best * (1 + NEAR)).all(), (loads, devices, slots)
        met += bool((bound >= best * (1 - 1e-6)).all())
    assert met > 100


def test_even_splits_against_brute_force():
    random = np.random.default_rng(12)
    hit = 0
    for _ in range(300):
        loads, devices, slots = tiny_instance(random)
        found = place_experts_evenly(loads[None], devices, slots)
        best = best_even_by_brute_force(loads, devices, slots)
        assert faults(found, len(loads)) == []
        assert found.bound[0] <= best * (1 + NEAR) and best <= found.worst[0] * (1 + NEAR)
        hit += found.worst[0] <= best * (1 + NEAR)
    assert hit > 200


@st.composite
def problems(draw):
    """Up to 3 layers, 24 experts, 12 devices; a third with fewer spare slots than devices."""
    experts = draw(st.integers(1, 24))
    slots = draw(st.integers(1, min(experts, 6)))
    devices = draw(st.integers(-(-experts // slots), max(-(-experts // slots), min(12, experts + 4))))
    load = st.floats(1e-3, 100) | st.integers(0, 4).map(float)
    rows = draw(st.lists(st.lists(load, min_size=experts, max_size=experts), min_size=1, max_size=3))
    return np.array(rows), devices, slots


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems())
def test_map_is_valid_and_between_bound_and_rival(problem):
    loads, devices, slots = problem
    for place in (place_experts, place_experts_evenly):
        found = place(loads, devices, slots)
        assert faults(found, loads.shape[1]) == []
        assert recomputed(found, loads).max(axis=1) == pytest.approx(found.worst, rel=NEAR, abs=1e-12)
        assert (lower_bound(loads, devices, slots) <= found.worst * (1 + NEAR) + 1e-12).all()
        assert (found.gaps >= 0).all()
    rival = greedy_worst(loads, devices, slots)
    assert (place_experts(loads, devices, slots).worst <= rival * (1 + NEAR) + 1e-12).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems(), st.sampled_from([2.0**-20, 4.0, 1024.0]), st.randoms(use_true_random=False))
def test_scaling_and_permutation(problem, factor, random):
    loads, devices, slots = problem
    names = list(range(loads.shape[1]))
    random.shuffle(names)
    plain, scaled = place_experts(loads, devices, slots), place_experts(loads * factor, devices, slots)
    assert (scaled.physical_to_logical == plain.physical_to_logical).all()
    assert scaled.worst == pytest.approx(plain.worst * factor, rel=NEAR)
    assert lower_bound(loads * factor, devices, slots) == pytest.approx(lower_bound(loads, devices, slots) * factor, rel=1e-6)
    assert place_experts(loads[:, names], devices, slots).worst == pytest.approx(plain.worst, rel=1e-6, abs=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems())
def test_a_slot_or_device_more_never_raises_the_bound(problem):
    loads, devices, slots = problem
    bound = lower_bound(loads, devices, slots)
    assert (lower_bound(loads, devices + 1, slots) <= bound * (1 + 1e-6)).all()
    if slots < loads.shape[1]:
        assert (lower_bound(loads, devices, slots + 1) <= bound * (1 + 1e-6)).all()


def test_spare_slots_for_all_devices_but_one_give_the_mean():
    random = np.random.default_rng(3)
    for _ in range(200):
        experts = int(random.integers(2, 60))
        slots = int(random.integers(2, min(experts, 9) + 1))
        devices = int(random.integers(max(1, -(-(experts - 1) // (slots - 1))), experts + 9))
        loads = np.exp(random.uniform(0, 4) * random.standard_normal((2, experts)))
        found = place_experts(loads, devices, slots)
        assert recomputed(found, loads) == pytest.approx(
            np.broadcast_to(loads.mean(axis=1)[:, None] * experts / devices, (2, devices))
        )
        assert found.gap <= NEAR and faults(found, experts) == []


@pytest.mark.parametrize(
    ("shape", "devices", "slots", "most"),
    [
        (DEEPSEEK_V3, 72, 4, 3e-3),
        (DEEPSEEK_V3, 72, 5, NEAR),
        (DEEPSEEK_V3, 72, 7, NEAR),
        (DEEPSEEK_V4, 72, 6, 1e-3),
        (DEEPSEEK_V4, 72, 7, NEAR),
        (DEEPSEEK_V4, 384, 2, NEAR),
        (DEEPSEEK_V4, 720, 1, 1e-5),
    ],
)
@pytest.mark.parametrize("exponent", [0.4, 0.8])
def test_gaps_of_the_published_sizes(shape, devices, slots, most, exponent):
    loads = zipf_loads(8, shape[1], exponent)
    found = place_experts(loads, devices, slots)
    assert found.gap <= most
    assert faults(found, shape[1]) == []
    assert (found.worst <= greedy_worst(loads, devices, slots) * (1 + NEAR)).all()


def test_bound_sees_heavy_experts():
    few = np.array([[9.0, 1.0, 1.0, 1.0]])
    assert lower_bound(few, 2, 2)[0] == pytest.approx(10.0)
    assert lower_bound(few, 5, 1)[0] == pytest.approx(4.5)
    assert lower_bound(few, 4, 2)[0] == pytest.approx(3.0)
    assert refuted(np.sort(few[0]), 2, 2, 9.9) and not refuted(np.sort(few[0]), 2, 2, 10.1)


def test_check_refuses_changed_maps():
    loads = zipf_loads(2, 12, 0.8)
    found = place_experts(loads, 4, 4)
    assert faults(found, 12) == []
    experts, split = found.physical_to_logical, found.split
    for change in range(6):
        held, share = experts.copy(), split.copy()
        if change == 0:
            held[1, 0] = held[1, 1]
        elif change == 1:
            held[held == held[0, 0]] = (held[0, 0] + 1) % 12
        elif change == 2:
            held[0, 0] = 12
        elif change == 3:
            share[0, 0] += 0.01
        elif change == 4:
            share[0, 0] = -0.1
        else:
            share[1, 1] = np.nan
        assert check_map(held, share, 12, 4, 4), change
    assert check_map(experts[:, :-1], split[:, :-1], 12, 4, 4)
    assert check_map(experts.astype(float), split, 12, 4, 4)
    assert check_map([[1, 2], [1]], split, 12, 4, 4)


def test_same_map_every_time():
    loads = zipf_loads(4, 256, 0.8, spread=0.3)
    first, second = place_experts(loads, 72, 4), place_experts(loads, 72, 4)
    assert (first.physical_to_logical == second.physical_to_logical).all() and (first.split == second.split).all()


def test_layers_are_independent():
    loads = zipf_loads(5, 64, 0.9, spread=0.4)
    together = place_experts(loads, 12, 6)
    for layer in range(5):
        alone = place_experts(loads[layer : layer + 1], 12, 6)
        assert (alone.physical_to_logical[0] == together.physical_to_logical[layer]).all()


def test_greedy_matches_its_published_example():
    held, copies = greedy_map(PUBLISHED_LOADS, 16, 4, 2, 8)
    assert held.tolist() == PUBLISHED_MAP
    top = loads_of_map(held, PUBLISHED_LOADS, even_split(held, copies), 8).max(axis=1)
    ours = place_experts(PUBLISHED_LOADS, 8, 2)
    assert top * 8 / np.sum(PUBLISHED_LOADS, axis=1) == pytest.approx([1.208, 1.242], abs=1e-3)
    assert (ours.worst < top).all()
    assert (place_experts_evenly(PUBLISHED_LOADS, 8, 2).worst < top).all()


def test_greedy_refuses_sizes_that_do_not_divide():
    with pytest.raises(InputError, match="do not divide"):
        greedy_map(np.ones((1, 12)), 15, 4, 2, 8)


@pytest.mark.parametrize(
    ("loads", "devices", "slots"),
    [
        ([1.0, 2.0], 2, 1),
        ([[1.0, -2.0]], 2, 1),
        ([[1.0, float("nan")]], 2, 1),
        ([[1.0, float("inf")]], 2, 1),
        ([[1.0, 2.0, 3.0]], 2, 1),
        ([[1.0, 2.0]], 2, 3),
        ([[1.0, 2.0]], 0, 2),
        ([[]], 1, 1),
    ],
)
def test_impossible_problems_are_refused(loads, devices, slots):
    with pytest.raises(InputError):
        place_experts(loads, devices, slots)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 9), min_size=5, max_size=5), min_size=1, max_size=12))
def test_memory_differs_by_one_layer_at_most(sizes):
    device = balance_memory(sizes)
    held = np.zeros(5)
    for bins, taken in zip(sizes, device, strict=True):
        assert sorted(taken) == list(range(5))
        held[taken] += bins
    assert held.max() - held.min() <= max(max(row) - min(row) for row in sizes)


def test_shares_of_every_kind():
    for popularity in (ExpertPopularity(), ExpertPopularity(kind="zipf", exponent=0.8), measured([[1, 2, 3], [0, 0, 5]])):
        shares = popularity.shares(2, 3)
        assert shares.shape == (2, 3) and shares.sum(axis=1) == pytest.approx([1, 1])
        again = ExpertPopularity.model_validate(popularity.model_dump(mode="json"))
        assert again == popularity
    zipf = ExpertPopularity(kind="zipf", exponent=1.0).shares(3, 4)
    assert sorted(zipf[0], reverse=True) == pytest.approx(np.array([1, 1 / 2, 1 / 3, 1 / 4]) / (25 / 12))
    assert (zipf[0] != zipf[1]).any()


@pytest.mark.parametrize("experts", [1, 2, 7, 64, 256, 384])
def test_ranks_are_permutations(experts):
    assert (np.sort(ranks(5, experts), axis=1) == np.arange(experts)).all()


def test_popularity_files(tmp_path):
    matrix = [[1.0, 2.0, 0.5], [3.0, 0.0, 1.0]]
    as_json, as_csv = tmp_path / "loads.json", tmp_path / "loads.csv"
    as_json.write_text(json.dumps(matrix))
    lines = [f"{layer},{expert},{load}" for layer, row in enumerate(matrix) for expert, load in enumerate(row)]
    as_csv.write_text("\n".join(["layer,expert,load", *reversed(lines)]) + "\n")
    assert read_popularity(as_json) == read_popularity(as_csv) == measured(matrix)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", "list of layers"),
        ("a.json", "[1, 2]", "list of layers"),
        ("a.json", "[]", "needs them"),
        ("a.json", "[[]]", "or none"),
        ("a.json", "[[1, 2], [1]]", "layer 1 has 1 experts"),
        ("a.json", "[[1, -2]]", "greater than or equal to 0"),
        ("a.json", "[[1, NaN]]", "NaN"),
        ("a.json", '[[1, "2"]]', "not a number"),
        ("a.json", "[[1, true]]", "not a number"),
        ("a.json", "[[0, 0]]", "no load"),
        ("a.json", "[[1e19, 0]]", "less than or equal"),
        ("a.csv", "", "columns"),
        ("a.csv", "layer,expert\n0,0\n", "columns"),
        ("a.csv", "layer,expert,load\n", "needs them"),
        ("a.csv", "layer,expert,load\n0,0,x\n", "line 2"),
        ("a.csv", "layer,expert,load\n0,-1,1\n", "line 2"),
        ("a.csv", "layer,expert,load\n0,0,1,7\n", "line 2"),
        ("a.csv", "layer,expert,load\n0,99999999999,1\n", "line 2"),
        ("a.csv", "layer,expert,load\n0,0,1\n0,0,2\n", "twice"),
        ("a.csv", "layer,expert,load\n0,0,1\n0,1,1\n1,1,2\n", "lacks expert 0 of layer 1"),
        ("a.csv", "layer,expert,load\n0,0,nan\n", "finite"),
        ("a.csv", "layer,expert,load\n0,0,-1\n", "greater than or equal to 0"),
    ],
)
def test_bad_popularity_files_are_explained(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_popularity(path)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_loads_of_another_model_are_refused():
    with pytest.raises(InputError, match="2 layers x 3 experts"):
        measured([[1, 2, 3], [1, 1, 1]]).shares(2, 4)
