"""``planner explain`` as a story: what it tells is in the plan, and what was passed over is no better than told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner import Plan, plan
from planner.plans.constraints import parse_constraints
from planner.plans.passed_over import Passed, passed_over
from planner.plans.read import inputs_of
from planner.plans.story import story

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def roomy() -> Plan:
    """Everything in device memory."""
    return plan("llama-3.1-8b", "h100-node", tiers=("hbm", "ssd"))


@pytest.fixture(scope="module")
def tight() -> Plan:
    """Host memory in use, so that capacity is worth something."""
    return plan("qwen3-30b-a3b", "rtx-4090-pc", workload="batch")


def told(one: Plan) -> dict[str, str]:
    return dict(story(one, passed_over(inputs_of(one, "plan"), one)))


def numbers(value: Any) -> Iterator[float]:
    """Every number of plain data, and of the words in it."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, str):
        yield from (float(found) for found in re.findall(r"\d+(?:\.\d+)?", value))
    elif isinstance(value, int | float):
        yield abs(float(value))


@pytest.mark.parametrize("name", ["roomy", "tight"])
def test_every_number_told_is_in_the_plan(name: str, request: pytest.FixtureRequest) -> None:
    """Up to rounding and powers of ten, or it is of what was passed over."""
    one: Plan = request.getfixturevalue(name)
    passed = passed_over(inputs_of(one, "plan"), one)
    data = one.to_data()
    data["inputs"] = data["inputs"]["workload"]
    known = [*numbers(data), *(v for row in passed for v in (row.at_least, row.worse, float(row.value)) if v)]
    known += [pool.devices / pool.replicas for pool in one.pools] + [
        data["inputs"][f"{name}_s"] or 0.0 for name in ("tpot", "ttft")
    ]
    values = np.unique(np.concatenate([np.array(known) * scale for scale in (1.0, 1e2, 1e3, 1e-9)]))
    checked = 0
    for heading, text in story(one, passed):
        for found in re.findall(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?=%| |\.$|[,;).]|$)", text.replace("what 1% more", "")):
            shown = float(found.replace(",", ""))
            slack = max(0.51 * 10.0 ** -len(found.partition(".")[2]), shown * 6e-4)
            near = values[min(int(np.searchsorted(values, shown - slack)), len(values) - 1)]
            assert near <= shown + slack, (heading, found)
            checked += 1
    assert checked > 40


def test_the_parts_of_the_story(roomy: Plan, tight: Plan) -> None:
    for one in (roomy, tight):
        parts = told(one)
        assert list(parts) == [
            "The answer",
            "What binds",
            "What would help",
            "What was ruled out",
            "How sure it is",
            "What to do next",
        ]
        assert one.certificate.proved and "none of " in parts["The answer"]
    assert "lie in host" in told(tight)["What binds"] and "Nothing else lies in ssd" in told(tight)["What was ruled out"]
    assert "everything fits above it" in told(roomy)["What was ruled out"]
    stopped = roomy.certificate.model_copy(update={"proved": False, "stopped": "time limit"})
    parts = told(roomy.model_copy(update={"certificate": stopped}))
    assert "A better one may exist: the search was stopped (time limit)" in parts["The answer"]
    assert parts["What to do next"].startswith("Let the search run on")
    assert "as the certificate proves" not in parts["What was ruled out"]


def test_a_resource_of_two_words_is_named_whole(roomy: Plan) -> None:
    first, *others = roomy.bottlenecks
    named = roomy.model_copy(update={"bottlenecks": [first.model_copy(update={"resource": "layer floor"}), *others]})
    assert f"Of the time of a {first.phase} pass layer floor sets {first.share:.0%}, " in dict(story(named))["What binds"]


def test_what_would_help_is_ranked_by_what_it_brings(tight: Plan) -> None:
    rows = tight.explanation["levers"]
    prices = {(row.pool, row.resource): row for row in tight.shadow_prices}
    assert {(row["pool"], row["resource"]) for row in rows} == set(prices)
    for row in rows:
        price = prices[row["pool"], row["resource"]]
        if row["costs_usd_per_hour"] is None:
            devices = next(pool.devices for pool in tight.pools if pool.phase == row["pool"])
            assert row["usd_per_hour"] == pytest.approx(price.usd_per_hour_per_unit * row["more"] * devices)
            assert row["gain"] == pytest.approx(-price.objective_per_unit * row["more"] / tight.certificate.objective)
        else:
            assert row["per_usd"] == pytest.approx(price.usd_per_hour_per_unit / row["costs_usd_per_hour"])
    helps = told(tight)["What would help"]
    best = sorted((row for row in rows if row["gain"]), key=lambda row: -row["gain"])
    assert best[0]["gain"] > 0.0
    places = [helps.index(row["resource"]) for row in best[:2]]
    assert places == sorted(places) and "returns " in helps


def test_what_the_interval_comes_from_makes_the_interval(roomy: Plan) -> None:
    """Ends of the cost's interval are its parts in quadrature, and shares sum to one."""
    rows, interval = roomy.explanation["uncertainty"], roomy.cost.blended_interval
    assert math.fsum(row["share"] for row in rows) == pytest.approx(1.0)
    expected = roomy.certificate.objective
    for end in ("low", "high"):
        deviation = math.sqrt(math.fsum(math.log(row[end] / expected) ** 2 for row in rows))
        assert getattr(interval, end) == pytest.approx(expected * math.exp(deviation if end == "high" else -deviation), rel=1e-9)


def test_nothing_passed_over_is_better_than_told(roomy: Plan) -> None:
    """The best with an axis pinned lies between its bound and the best that was tried, for every value of every axis."""
    rows = passed_over(inputs_of(roomy, "plan"), roomy)
    chosen = roomy.pools[0].configuration
    assert {(row.axis, row.value) for row in rows if row.axis == "tp"} == {("tp", v) for v in {1, 2, 4, 8} - {chosen.tp}}
    checked = 0
    for row in [next(r for r in rows if r.axis == axis and r.bound is not None) for axis in ("tp", "pp")]:
        rules = parse_constraints((f"{row.axis}={row.value}", "serving=aggregated"), (), None)
        best = plan("llama-3.1-8b", "h100-node", tiers=("hbm", "ssd"), constraints=rules).certificate.objective
        assert row.bound is not None and row.bound <= best * (1 + 1e-9)
        assert row.found is not None and best <= row.found * (1 + 1e-9)
        assert row.at_least == pytest.approx(max(row.bound / roomy.certificate.objective - 1.0, 0.0))
        checked += 1
    assert checked == 2


def test_where_nothing_can_be_compared_nothing_is_told(roomy: Plan) -> None:
    assert all("axis by axis" not in text for _, text in story(roomy))
    none = Passed("tp", 64, None, None, None, None)
    assert "nothing can be served with tensor parallelism 64" in dict(story(roomy, [none]))["What was ruled out"]


def test_explain_tells_the_story_first(roomy: Plan, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "plan.json"
    path.write_text(roomy.to_json(), encoding="utf-8")
    code, out, err = run("explain", path)
    assert err == f"next: planner verify {path}\n" and "\n\nMemories that hold nothing, or nothing else\n  " in out
    assert code == 0 and out.startswith("The answer\n  llama-3.1-8b on h100-node:1")
    places = [out.index(text) for text in ("What to do next", "\nWhat it is", "Operators: the roofline", "What lies where")]
    assert places == sorted(places)
    assert json.loads(run("explain", path, "--format", "json")[1]) == json.loads(roomy.to_json())["explanation"]


def test_a_plan_that_does_not_verify_is_explained_with_a_note(roomy: Plan, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "plan.json"
    path.write_text(roomy.model_copy(update={"idle_devices": 1}).to_json(), encoding="utf-8")
    for form in ("table", "json"):
        code, out, err = run("--quiet", "explain", path, "--format", form)
        assert (code, err) == (0, f"note: {path} does not verify: planner verify {path}\n") and out
