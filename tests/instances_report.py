"""Plans and reports that the tests of reports share: small, with experts mapped unevenly, items in host memory and a front."""

from __future__ import annotations

from functools import cache
from typing import Any

import small

from planner.comparison.compare import Candidate, compare_plans
from planner.comparison.schema import Comparison
from planner.hardware import System
from planner.plans import Plan
from planner.plans.constraints import parse_constraints
from planner.report import Report, comparison_report, plan_report
from planner.report.study import Study, study_of
from planner.search import solve
from planner.workload.experts import ExpertPopularity

HOSTILE = (
    '</script><img src=x onerror="document.title=\'owned\'"><b>bold</b> ${1} {{ 7 * 7 }} %{x} <a href="javascript:alert(1)">a</a>'
)
"""What a profile of bad intent may call a thing."""
COMMAND = "planner compare small 'my hardware' --html 'a <b> & c.html'"


def _hostile(system: System) -> System:
    """Sources and notes with markup in them."""
    data = system.model_dump(mode="json", by_alias=True)

    def spoil(value: Any) -> Any:
        if isinstance(value, list):
            return [spoil(one) for one in value]
        if not isinstance(value, dict):
            return value
        spoilt = {key: spoil(one) for key, one in value.items()}
        if value.get("grade") in ("C", "D"):
            spoilt |= {"source": f"https://example.org/a {HOSTILE}", "note": HOSTILE}
        return spoilt

    return System.model_validate(spoil(data), context={"si": True})


@cache
def plan(memory_bytes: float = 25e6, mapped: bool = True, objective: str = "cost") -> Plan:
    """A mixture of experts on four devices, too little memory for all of it, with hostile words in its evidence."""
    use = ExpertPopularity(kind="zipf", exponent=0.8) if mapped else ExpertPopularity()
    load = small.workload().model_copy(update={"experts": use, "source": HOSTILE})
    inputs = small.instance(
        small.experts(layers=4),
        _hostile(small.node(4, 1, memory_bytes)),
        1,
        load,
        small.runtime(3),
        constraints=parse_constraints(("ep=4",), ()),
        objective=objective,
        pareto=3 if mapped else None,
    )
    return solve(inputs)


@cache
def study(memory_bytes: float = 25e6, mapped: bool = True, objective: str = "cost") -> Study:
    """The same, at work."""
    return study_of(plan(memory_bytes, mapped, objective), "small-node")


@cache
def comparison() -> Comparison:
    """Three plans, one of them with a hostile name, and a row without a plan."""
    candidates = [
        Candidate("small-experts", "small-node", plan()),
        Candidate("small-experts", HOSTILE, plan(40e6, False)),
        Candidate("small-experts", "roomy-node", plan(100e6, False)),
        Candidate("small-experts", "tiny-node", None, "infeasible", "its memory holds no layer"),
    ]
    return compare_plans(candidates, models=["small-experts"], hardware=[one.hardware for one in candidates])


@cache
def compared() -> Report:
    """The report on all of them."""
    return comparison_report(comparison(), COMMAND)


@cache
def single() -> Report:
    """The report on one plan."""
    return plan_report(plan(), "planner plan small small-node --html r.html")
