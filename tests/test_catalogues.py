"""Workloads, runtimes and prices: the built-in files, round trips, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from planner.catalogue import Catalogue
from planner.errors import InputError
from planner.prices import PRICES, OwnedPrices, load_prices
from planner.quantities import Figure
from planner.runtimes import RUNTIMES, Runtime, load_runtime
from planner.workload import WORKLOADS, Lengths, Workload, load_workload

CATALOGUES: list[Catalogue[Any]] = [WORKLOADS, RUNTIMES, PRICES]
ENTRIES = [(catalogue, name) for catalogue in CATALOGUES for name in catalogue.ids]
each_entry = pytest.mark.parametrize(("catalogue", "name"), ENTRIES, ids=[name for _, name in ENTRIES])


@each_entry
def test_law_6_every_entry_round_trips_as_a_plan_embeds_it(catalogue: Catalogue[Any], name: str) -> None:
    entry = catalogue.load(name)
    kind = type(entry)
    for by_alias in (False, True):
        data = json.loads(json.dumps(entry.model_dump(mode="json", by_alias=by_alias)))
        assert kind.model_validate(data, context={"si": True}) == entry
    assert entry.id == name


@each_entry
def test_every_entry_reads_the_same_from_a_path(catalogue: Catalogue[Any], name: str, tmp_path: Path) -> None:
    copy = tmp_path / "other.toml"
    shutil.copy(catalogue.folder / f"{name}.toml", copy)
    assert catalogue.load(str(copy)) == catalogue.load(name)


@each_entry
def test_every_entry_refuses_an_unknown_key_and_a_wrong_schema(catalogue: Catalogue[Any], name: str, tmp_path: Path) -> None:
    text = (catalogue.folder / f"{name}.toml").read_text(encoding="utf-8")
    path = tmp_path / "x.toml"
    for broken, message in (
        ("colour = 1\n" + text, "colour: unknown key"),
        (text.replace("schema = 1", "schema = 2"), "schema: Input should be 1"),
        (text.replace(f'id = "{name}"\n', ""), "id: is missing; add it"),
        (re.sub(r"\nas_of = \S+", "\nas_of = 'soon'", text, count=1), "as_of: "),
        (text + "\n[", "is not TOML"),
    ):
        path.write_text(broken, encoding="utf-8")
        with pytest.raises(InputError) as caught:
            catalogue.load(str(path))
        assert message in str(caught.value) and "x.toml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("load", [load_workload, load_runtime, load_prices])
@pytest.mark.parametrize("name", ["", "nothing", "../../etc/passwd", "a\nb", "nothing.toml", "\0.toml", "x" * 5000])
def test_unknown_names_are_one_line(load: Callable[[str], Any], name: str) -> None:
    with pytest.raises(InputError) as caught:
        load(name)
    assert "\n" not in str(caught.value)


def test_near_names_are_offered() -> None:
    with pytest.raises(InputError, match="did you mean interactive"):
        load_workload("interactiv")
    with pytest.raises(InputError, match="unknown runtime 'vlm'; did you mean vllm"):
        load_runtime("vlm")
    with pytest.raises(InputError, match="unknown price basis 'rent'; did you mean rent_1y"):
        load_prices("rent")


def test_catalogues_are_sorted_and_iterable() -> None:
    assert [w.id for w in WORKLOADS] == WORKLOADS.ids == sorted(WORKLOADS.ids)
    assert {"agent", "batch", "chat", "interactive", "rag"} <= set(WORKLOADS.ids)
    assert {"generic", "ideal"} <= set(RUNTIMES.ids)


def figures(part: BaseModel) -> list[Figure]:
    found = []
    for _, value in part:
        found += [value] if isinstance(value, Figure) else figures(value) if isinstance(value, BaseModel) else []
    return found


@pytest.mark.parametrize("entry", [*RUNTIMES, *PRICES], ids=lambda entry: entry.id)
def test_every_uncertain_figure_has_an_interval_and_a_date(entry: BaseModel) -> None:
    assert figures(entry)
    for figure in figures(entry):
        assert figure.as_of is not None
        if figure.grade in "CD":
            assert figure.low is not None and figure.high is not None


def test_ideal_is_the_roofline() -> None:
    ideal = load_runtime("ideal")
    assert all(figure.value == 0.0 for figure in [*figures(ideal.floors), *figures(ideal.reserve)])
    assert all(figure.value == 1.0 for figure in [*figures(ideal.efficiency), ideal.imbalance, ideal.residual])
    assert ideal.overlap_communication


# --- workloads --------------------------------------------------------------------------------------------------


def workload(**changes: Any) -> Workload:
    data: dict[str, Any] = {
        "id": "w", "input_tokens": {"mean": 1000}, "output_tokens": {"mean": 200}, "prefix_hit": 0.25,
        "source": "test", "as_of": "2026-01-01", "grade": "A",
    }  # fmt: skip
    return Workload.model_validate(data | changes)


def test_workload_by_hand() -> None:
    load = workload()
    assert load.miss_tokens == 750.0  # 1000 * (1 - 0.25)
    assert load.hit_tokens == 250.0
    assert load.resident_tokens == 1100.0  # ISL + OSL / 2
    assert load.reserved_tokens == 1200  # ISL + OSL
    assert load.context_variation == pytest.approx((200**2 / 12) ** 0.5 / 1100)  # uniform position of 200 outputs


def test_lognormal_lengths_by_hand() -> None:
    # sigma = 1 has mean/median = e^0.5 and coefficient of variation sqrt(e - 1) = 1.3108
    lengths = Lengths(mean=1000 * math.exp(0.5), median=1000)
    assert lengths.coefficient_of_variation == pytest.approx(1.310832, rel=1e-6)
    assert Lengths(mean=5).coefficient_of_variation == Lengths(mean=5, median=5).coefficient_of_variation == 0.0
    load = workload(
        input_tokens={"mean": 300, "median": 300 / math.sqrt(2)}, output_tokens={"mean": 200, "median": 200 / math.sqrt(5)}
    )
    # cv 1 and 2: variance 300^2 + (2 * 100)^2 + 200^2 / 12, mean 300 + 100
    assert load.context_variation == pytest.approx(math.sqrt(90_000 + 40_000 + 10_000 / 3) / 400)


def test_context_variation_against_simulation() -> None:
    import numpy as np

    load = workload(input_tokens={"mean": 1155, "median": 1020}, output_tokens={"mean": 400})
    random = np.random.default_rng(1)
    sigma = math.sqrt(2 * math.log(1155 / 1020))
    context = random.lognormal(math.log(1020), sigma, 200_000) + random.uniform(0, 400, 200_000)
    assert context.mean() == pytest.approx(load.resident_tokens, rel=0.01)
    assert context.std() / context.mean() == pytest.approx(load.context_variation, rel=0.02)


def test_the_fitted_catalogue_entries_say_what_their_sources_say() -> None:
    agent = load_workload("agent")
    # arXiv 2602.21548: append 429 tokens a round, of a context of 32.7K, at a hit rate of 98.7 %
    assert agent.miss_tokens == pytest.approx(429, rel=0.01)
    assert agent.resident_tokens == pytest.approx(32_700 + 429 + 176 / 2, rel=0.01)
    assert all((w.ttft_s is None) == (w.tpot_s is None) for w in WORKLOADS)


@given(st.floats(1, 1e6), st.floats(2, 1e6), st.floats(0, 0.999), st.none() | st.floats(1e-3, 1), st.none() | st.floats(1e-3, 10))
def test_law_6_workloads_round_trip_and_tokens_add_up(
    isl: float, osl: float, hit: float, median: float | None, ttft: float | None
) -> None:
    shape = {"mean": isl} if median is None else {"mean": isl, "median": max(isl * median, 1.0)}
    load = workload(input_tokens=shape, output_tokens={"mean": osl}, prefix_hit=hit, ttft_s=ttft)
    assert Workload.model_validate(json.loads(load.model_dump_json()), context={"si": True}) == load
    assert load.miss_tokens >= 1.0 and load.hit_tokens >= 0.0
    assert load.hit_tokens + load.miss_tokens == pytest.approx(isl, rel=1e-12)
    assert load.resident_tokens <= load.reserved_tokens <= (isl + osl + 1) * (1 + 1e-12)
    assert math.isfinite(load.context_variation)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_tokens": {"mean": 0}}, "greater than or equal to 1"),
        ({"input_tokens": {"mean": 1e9}}, "less than or equal"),
        ({"input_tokens": {"mean": float("nan")}}, "finite"),
        ({"input_tokens": {"mean": 10, "median": 11}}, "median is above the mean"),
        ({"output_tokens": {"mean": 1.5}}, "at least 2"),
        ({"prefix_hit": 1.0}, "less than 1"),
        ({"prefix_hit": -0.1}, "greater than or equal to 0"),
        ({"ttft_s": 0}, "greater than 0"),
        ({"tpot_s": float("inf")}, "finite"),
        ({"id": "Bad Id"}, "match pattern"),
        ({"grade": "E"}, "'A', 'B', 'C' or 'D'"),
    ],
)
def test_bad_workloads_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        workload(**changes)


# --- runtimes and prices ----------------------------------------------------------------------------------------


def runtime_data() -> dict[str, Any]:
    return tomllib.loads((RUNTIMES.folder / "generic.toml").read_text(encoding="utf-8"))


def price_data() -> dict[str, Any]:
    return tomllib.loads((PRICES.folder / "owned.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("efficiency", "dense", "value"), 1.5, "high .* below value"),
        (("efficiency", "dense", "high"), 1.5, "at most 1"),  # work would exceed the peak: law 9
        (("efficiency", "routed", "value"), 0, "must be above 0"),
        (("floors", "step", "value"), "1", "no unit"),
        (("floors", "step", "value"), "-1 ms", "at least 0"),
        (("reserve", "fragmentation", "high"), 1.0, "less than all"),
        (("imbalance", "low"), 0.9, "at least the mean"),
        (("batch_buckets",), [], "at least 1 item"),
        (("batch_buckets",), [4, 2], "batch_buckets: whole numbers"),
        (("batch_buckets",), [0, 2], "batch_buckets: whole numbers"),
        (("prefill_tokens",), [1024, 1024], "prefill_tokens: whole numbers"),
        (("page_tokens",), 0, "greater than or equal to 1"),
        (("max_sequences_per_rank",), 10**6, "less than or equal"),
        (("residual", "source"), "", "needs a source"),
    ],
)
def test_bad_runtimes_are_refused(path: tuple[str, ...], value: object, message: str) -> None:
    data = runtime_data()
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValidationError, match=message):
        Runtime.model_validate(data)


@pytest.mark.parametrize(
    ("key", "changes", "message"),
    [
        ("utilisation", {"value": 1.2, "high": 1.2}, "utilisation: a share is at most 1"),
        ("power_utilisation", {"high": 1.2}, "power_utilisation: a share is at most 1"),
        ("residual_value", {"high": 1.1}, "residual_value: a share is at most 1"),
        ("pue", {"low": 0.9}, "1 or more"),
        ("life", {"value": "0 years", "low": None}, "above 0"),
        ("cost_of_capital", {"low": "-1 %"}, "at least 0"),
        ("electricity", {"value": 0.085}, "no unit"),
    ],
)
def test_bad_prices_are_refused(key: str, changes: dict[str, Any], message: str) -> None:
    data = price_data()
    data[key] = {k: v for k, v in (data[key] | changes).items() if v is not None}
    with pytest.raises(ValidationError, match=message):
        OwnedPrices.model_validate(data)
