"""Time of a plan with a Pareto front of ten points inside the process, after import: ``pytest -n 0 tests/benchmarks``.

pytest-benchmark prints medians; nothing is asserted on time.
"""

import pytest

from planner import plan, verify

CASES = [("deepseek-v4-pro", "gb200-nvl72", {}), ("deepseek-v3", "cloudmatrix384", {"objective": "throughput"})]


@pytest.mark.parametrize(("model", "hardware", "options"), CASES, ids=lambda value: str(value))
def test_front_time(benchmark, model, hardware, options):
    found = benchmark.pedantic(plan, args=(model, hardware), kwargs={"pareto": 10, **options}, rounds=5, warmup_rounds=1)
    assert found.pareto.proved and len(found.pareto.points) == 10
    assert max(point.gap for point in found.pareto.points) <= 0.01


@pytest.mark.parametrize("full", [False, True])
def test_verify_front_time(benchmark, full):
    found = plan("deepseek-v4-pro", "gb200-nvl72", pareto=10)
    violations, _ = benchmark.pedantic(verify, args=(found,), kwargs={"full": full}, rounds=5, warmup_rounds=1)
    assert violations == []
