"""Time and proved gap of whole experts over memories with a barrier in every layer: ``pytest -n 0 tests/benchmarks``.

pytest-benchmark prints medians and, under ``--benchmark-verbose`` or in its JSON, gap and objective; no assertion on time.
"""

import pytest
from instances_barrier import catalogue_instance

from planner.plans.barrier_bound import barrier_bound, evaluate_map
from planner.search.barrier import place_experts

RACK = ("deepseek-v4-pro", "gb200-nvl72", 72)
NODE = ("deepseek-v3", "h800-node", 8)
CASES = [
    (*RACK, hbm, exponent, tokens, mode, pieces)
    for mode in ("prefetch", "gated")
    for hbm in (0.95, 0.8, 0.5)
    for exponent, tokens in ((0.4, 128), (0.8, 128), (1.0, 4), (1.0, 16))
    for pieces in (504, None)
] + [
    (*NODE, hbm, exponent, tokens, mode, None)
    for mode in ("prefetch", "gated")
    for hbm in (0.95, 0.8, 0.5)
    for exponent, tokens in ((0.4, 64), (0.8, 64), (1.0, 4))
]


def name(case):
    model, _, devices, hbm, exponent, tokens, mode, pieces = case
    return f"{model}-{devices}-{hbm:.0%}-zipf{exponent}-{tokens}tokens-{mode}-{pieces or 'no'}replicas"


@pytest.mark.parametrize("case", CASES, ids=name)
def test_place_experts(benchmark, case):
    problem = catalogue_instance(*case)
    plan = benchmark.pedantic(place_experts, args=(problem,), rounds=5, warmup_rounds=1)
    assert evaluate_map(problem, plan.device, plan.away)[0] == plan.objective
    benchmark.extra_info.update(gap=plan.gap, objective_ms=plan.objective * 1e3, pieces=plan.device.size)
    assert 0.0 <= plan.gap <= 0.01


def test_recompute_bound(benchmark):
    problem = catalogue_instance(*RACK, 0.95, 1.0, 4, "gated", 504)
    assert benchmark.pedantic(barrier_bound, args=(problem,), rounds=5, warmup_rounds=1) > 0.0
