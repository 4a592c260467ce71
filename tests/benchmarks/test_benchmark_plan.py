"""Time of a plan inside the process, after import: ``pytest -n 0 tests/benchmarks``.

pytest-benchmark prints medians; nothing is asserted on time.
"""

import pytest

from planner import plan, verify

CASES = [
    ("deepseek-v3", "h800-node:2", {}),
    ("deepseek-v3", "h800-node", {"objective": "throughput"}),
    ("deepseek-v3", "gb200-nvl72", {}),
    ("deepseek-v3", "cloudmatrix384", {}),
    ("llama-3.1-70b", "h100-node", {}),
]


@pytest.mark.parametrize(("model", "hardware", "options"), CASES, ids=lambda value: str(value))
def test_plan_time(benchmark, model, hardware, options):
    found = benchmark.pedantic(plan, args=(model, hardware), kwargs=options, rounds=5, warmup_rounds=1)
    assert found.certificate.proved


@pytest.mark.parametrize("full", [False, True])
def test_verify_time(benchmark, full):
    found = plan("deepseek-v3", "cloudmatrix384")
    violations, _ = benchmark.pedantic(verify, args=(found,), kwargs={"full": full}, rounds=5, warmup_rounds=1)
    assert violations == []
