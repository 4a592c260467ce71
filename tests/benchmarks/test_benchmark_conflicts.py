"""Time of an explanation, inside the process after import: the whole refusal of a problem without a plan, and the reliefs alone.

The small instance has five named limits of which exactly three conflict.
"""

import sys
from pathlib import Path

import pytest

from planner import plan
from planner.errors import InfeasibleError
from planner.reporter import Reporter
from planner.search import Stop, solve
from planner.search.conflicts import explain_infeasible
from planner.search.sizing import tables_of
from planner.workload import load_workload

sys.path.insert(0, str(Path(__file__).parents[1]))

REAL = [
    ("deepseek-v3", "h800-node", 1e-3, {"tiers": ("hbm",)}),
    ("deepseek-v3", "h800-node", 50e-3, {"tiers": ("hbm",)}),
    ("deepseek-v3", "h800-node", 9e-3, {}),
    ("llama-3.1-70b", "h100-node", 10e-3, {"max_usd_per_hour": 1.0}),
]


def test_five_limits(benchmark):
    from test_conflicts import five

    inputs = five()

    def refused():
        with pytest.raises(InfeasibleError) as caught:
            solve(inputs)
        return caught.value

    error = benchmark.pedantic(refused, rounds=5, warmup_rounds=1)
    assert [row["member"] for row in error.conflict] == ["service level TPOT", "money", "big batches"]


def test_explanation_of_five_limits(benchmark):
    from test_conflicts import five

    inputs = five()
    error = benchmark.pedantic(lambda: explain_infeasible(tables_of(inputs), Reporter(), Stop()), rounds=5, warmup_rounds=1)
    assert len(error.conflict) == 3


@pytest.mark.parametrize(("model", "hardware", "tpot_s", "options"), REAL, ids=lambda value: str(value))
def test_real_refusals(benchmark, model, hardware, tpot_s, options):
    workload = load_workload("interactive").model_copy(update={"tpot_s": tpot_s})

    def refused():
        with pytest.raises(InfeasibleError) as caught:
            plan(model, hardware, workload=workload, **options)
        return caught.value

    assert benchmark.pedantic(refused, rounds=5, warmup_rounds=1).conflict
