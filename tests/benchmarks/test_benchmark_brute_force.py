"""A study: the plans of many random small problems against every decision of their space."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import brute

PROBLEMS, FEASIBLE = 1300, 500


def test_brute_force_study(benchmark: Any) -> None:
    """Equal optimum in at least 500 problems that have a plan, and the right verdict in the others."""
    found: dict[str, int] = {}

    def study() -> None:
        found.update(problems=0, with_a_plan=0, decisions=0, different=0)
        for seed in range(PROBLEMS):
            wrong, best = brute.difference(brute.problem(seed))
            found["problems"] += 1
            found["with_a_plan"] += best.value is not None
            found["decisions"] += best.evaluated
            found["different"] += wrong is not None

    benchmark.pedantic(study, rounds=1)
    benchmark.extra_info.update(found)
    assert found["different"] == 0 and found["with_a_plan"] >= FEASIBLE
