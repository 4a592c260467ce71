"""Loads of experts for tests and benchmarks, and the best map of tiny instances by going through all of them."""

import itertools

import numpy as np

from planner.search.expert_greedy import even_split, greedy_map

DEEPSEEK_V3 = (58, 256)
DEEPSEEK_V4 = (61, 384)

PUBLISHED_LOADS = [
    [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
    [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
]
PUBLISHED_MAP = [
    [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
    [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
]
"""The example in the README of github.com/deepseek-ai/EPLB (MIT): 16 slots, 4 groups, 2 nodes, 8 devices."""


def zipf_loads(layers, experts, exponent, spread=0.0, seed=0):
    """Shares of tokens [L, E] falling as rank ** -exponent, permuted per layer, times exp(spread * normal)."""
    random = np.random.default_rng(seed)
    rank = np.arange(1, experts + 1, dtype=float) ** -exponent
    loads = np.stack([rank[random.permutation(experts)] for _ in range(layers)])
    loads *= np.exp(spread * random.standard_normal(loads.shape))
    return loads / loads.sum(axis=1, keepdims=True)


def greedy_worst(loads, devices, slots):
    """Load of the fullest device [L] under EPLB's global policy with even splits."""
    held, copies = greedy_map(loads, devices * slots, 1, 1, devices)
    served = np.take_along_axis(np.asarray(loads, dtype=float), held, axis=1) * even_split(held, copies)
    return served.reshape(len(served), devices, slots).sum(axis=2).max(axis=1)


def best_by_brute_force(loads, devices, slots):
    """The least load of the fullest device of one layer over all maps and all splits.

    For one map the best split is known (Hall's theorem): the largest, over sets of experts, of their load over the number of
    devices that hold any of them.
    """
    experts = range(len(loads))
    sets = [chosen for size in range(1, len(loads) + 1) for chosen in itertools.combinations(experts, size)]
    masks = [sum(1 << expert for expert in chosen) for chosen in sets]
    weights = [sum(loads[expert] for expert in chosen) for chosen in sets]
    devices_of = [sum(1 << expert for expert in chosen) for chosen in itertools.combinations(experts, slots)]
    best = float("inf")
    for lying in itertools.combinations_with_replacement(devices_of, devices):
        worst = 0.0
        for mask, weight in zip(masks, weights, strict=True):
            holders = sum(1 for device in lying if device & mask)
            worst = max(worst, weight / holders) if holders else float("inf")
            if worst >= best:
                break
        best = min(best, worst)
    return best


def best_even_by_brute_force(loads, devices, slots):
    """The same when every copy of an expert serves alike."""
    best = float("inf")
    for lying in itertools.combinations_with_replacement(itertools.combinations(range(len(loads)), slots), devices):
        copies = np.bincount(np.concatenate(lying), minlength=len(loads))
        if copies.all():
            best = min(best, max(sum(loads[expert] / copies[expert] for expert in device) for device in lying))
    return best


def tiny_instance(random):
    """Loads of one layer, devices and slots, small enough for brute force; loads are often alike, zero or very uneven."""
    while True:
        experts, devices = int(random.integers(1, 7)), int(random.integers(1, 5))
        slots = int(random.integers(1, min(experts, 4) + 1))
        if experts <= devices * slots and (experts, devices, slots) not in {(6, 4, 3), (6, 4, 2)}:
            break
    kind = random.integers(4)
    if kind == 0:
        loads = random.integers(0, 6, experts).astype(float)
    elif kind == 1:
        loads = np.exp(2.0 * random.standard_normal(experts))
    elif kind == 2:
        loads = np.arange(1, experts + 1, dtype=float) ** -random.uniform(0.0, 2.5)
    else:
        loads = random.uniform(0.5, 1.0, experts)
    return random.permutation(loads), devices, slots
