"""Time of placing whole experts, inside the process after import: ``pytest -n 0 tests/benchmarks/test_benchmark_experts.py``.

pytest-benchmark prints medians of five rounds; gaps and loads are in the extra information. Nothing is asserted on time.
"""

import pytest
from instances_experts import DEEPSEEK_V3, DEEPSEEK_V4, greedy_worst, zipf_loads

from planner.plans.expert_bounds import lower_bound
from planner.search.experts import place_experts
from planner.search.experts_even import place_experts_evenly

CASES = [
    *[(DEEPSEEK_V3, 72, slots) for slots in (4, 5, 6, 7)],
    *[(DEEPSEEK_V4, 72, slots) for slots in (6, 7)],
    (DEEPSEEK_V4, 384, 2),
    (DEEPSEEK_V4, 720, 1),
    (DEEPSEEK_V4, 720, 2),
]


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("exponent", [0.4, 0.8])
@pytest.mark.parametrize(("shape", "devices", "slots"), CASES, ids=str)
@pytest.mark.parametrize("place", [place_experts, place_experts_evenly])
def test_placement_time(benchmark, place, shape, devices, slots, exponent, spread):
    loads = zipf_loads(*shape, exponent, spread)
    found = benchmark.pedantic(place, args=(loads, devices, slots), rounds=5, warmup_rounds=1)
    mean = loads.sum(axis=1) / devices
    assert (found.worst >= found.bound * (1 - 1e-9)).all()
    benchmark.extra_info["gap_percent"] = round(100 * found.gap, 4)
    benchmark.extra_info["worst_over_mean"] = round(float((found.worst / mean).max()), 4)
    benchmark.extra_info["greedy_over_mean"] = round(float((greedy_worst(loads, devices, slots) / mean).max()), 4)


@pytest.mark.parametrize(("shape", "devices", "slots"), CASES, ids=str)
def test_bound_time(benchmark, shape, devices, slots):
    loads = zipf_loads(*shape, 0.8)
    bound = benchmark.pedantic(lower_bound, args=(loads, devices, slots), rounds=5, warmup_rounds=1)
    assert (bound > 0).all()
