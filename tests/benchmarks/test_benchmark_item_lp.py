"""The tier problem of 23 thousand, 117 thousand and a million items: ``pytest -n 0 tests/benchmarks``.

pytest-benchmark prints medians; ``extra_info`` has the proved gap (fraction) and the process's peak resident bytes.
"""

import resource
import sys
import time

import numpy as np
import pytest
from instances import items

from planner.search.item_lp import solve_items
from planner.search.item_master import Setting, solve_explicit
from planner.search.item_round import whole_items

V4 = {"model": "deepseek-v4-pro", "system": "gb200-nvl72", "devices": 4, "context": 32768, "batch": 64}
SIZES = {"23k": {**V4}, "118k": {**V4, "slices": 5}, "1M": {**V4, "slices": 43}}


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("size", SIZES)
def test_tier_lp_time(benchmark, size, windows):
    """A fresh problem each round, so that ordering the items counts."""

    def fresh():
        return (items(**SIZES[size], windows=windows),), {}

    found = benchmark.pedantic(solve_items, setup=fresh, rounds=5, warmup_rounds=1)
    assert found.gap <= 1e-4
    benchmark.extra_info.update(gap=found.gap, rounds=found.rounds, split=len(found.placement.split), peak=peak_bytes())


@pytest.mark.parametrize("size", ["23k"])
def test_tier_lp_warm_time(benchmark, size):
    problem = items(**SIZES[size])
    start = solve_items(problem).prices
    found = benchmark.pedantic(solve_items, args=(problem,), kwargs={"start": start}, rounds=5, warmup_rounds=1)
    assert found.gap <= 1e-4


@pytest.mark.parametrize("case", ["v3", "v4"])
def test_whole_items_time(benchmark, case):
    problem = items(**V4) if case == "v4" else items(batch=64)
    solution = solve_items(problem)
    found = benchmark.pedantic(whole_items, args=(problem, solution), rounds=5, warmup_rounds=1)
    assert found is not None and found.gap <= 1e-3
    benchmark.extra_info.update(gap=found.gap, chosen=found.chosen)


def test_growth_from_100k_to_1m_items(record_property):
    """At most twelve times as long."""

    def median(problem):
        times = []
        for _ in range(5):
            before = time.perf_counter()
            solve_items(problem)
            times.append(time.perf_counter() - before)
        return sorted(times)[2]

    few, many = items(**V4, slices=4), items(**V4, slices=42)
    ratio = median(many) / median(few)
    record_property("ratio", ratio)
    assert ratio <= 12


@pytest.mark.parametrize("case", ["v3", "v4"])
def test_monolith_agrees(record_property, case):
    """GLOP with a column for every item and choice, 15 and 23 thousand items."""
    problem = items(**V4) if case == "v4" else items(batch=64)
    before = time.perf_counter()
    setting = Setting(problem, np.zeros(len(problem.capacity)), problem.fixed, 1.0)
    whole = solve_explicit(setting, problem.points)
    record_property("monolith_s", time.perf_counter() - before)
    found = solve_items(problem)
    assert found.value == pytest.approx(whole.value, rel=1e-8) and found.bound <= whole.value * (1 + 1e-9)
