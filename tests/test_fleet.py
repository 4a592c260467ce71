"""``planner fleet`` and the trillion-dollar equation: whole copies, money that adds up, each step beside its source."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner import plan
from planner.cli.schema_command import schema_of
from planner.economics.projection import as_text, project
from planner.errors import InputError
from planner.fleet import Fleet, Mix, size_fleet
from planner.plans.read import inputs_of
from planner.plans.schema import Plan

Run = Callable[..., tuple[int, str, str]]
DAY = 86400.0
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mixed": ("llama-3.1-8b", "h100-node", {}),
    "hits": ("llama-3.1-8b", "h100-node", {"allocation": "flops", "workload": "prefix"}),
    "all_input": ("llama-3.1-8b", "h100-node", {"allocation": "all_input", "workload": "prefix"}),
    "split": ("deepseek-v3", "h800-node:16", {}),
    "two kinds": ("deepseek-v3", "prefill,decode", {}),
}


@cache
def planned(kind: str) -> Plan:
    from planner.hardware import load_hardware
    from planner.workload import load_workload

    model, hardware, options = KINDS[kind]
    options = dict(options)
    usual = load_workload("interactive")
    workload = usual.model_copy(update={"prefix_hit": 0.5})
    options["workload"] = workload if options.pop("workload", "") == "prefix" else usual
    pools: Any = hardware
    if hardware == "prefill,decode":
        pools = {"prefill": load_hardware("h800-node:8"), "decode": load_hardware("h20-node:8")}
    found = plan(model, pools, **options)
    assert (found.mode == "aggregated") == (kind in ("mixed", "hits", "all_input"))
    assert len(found.units) == (2 if kind == "two kinds" else 1)
    return found


def fleet(kind: str, tokens: float | None, **options: Any) -> Fleet:
    return size_fleet(planned(kind), inputs_of(planned(kind), "plan"), tokens_per_day=tokens, **options)


def of_one_copy(kind: str, utilisation: float | None = None) -> float:
    """Tokens a day of the plan's deployment."""
    found = planned(kind)
    each = sum(found.cost.tokens_per_request.values())
    return found.prediction.requests_per_s * each * DAY * (utilisation or found.cost.utilisation)


# --- the plan's own mix --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_of_a_plan_are_one_copy_of_it_at_its_prices(kind: str) -> None:
    found, one = planned(kind), fleet(kind, of_one_copy(kind))
    assert one.copies.expected == 1
    assert [(row.hardware, row.units) for row in one.units] == [(row.hardware, row.units) for row in found.units]
    assert one.devices.expected == found.cost.devices_paid
    assert one.usd_per_day.expected == pytest.approx(found.cost.usd_per_hour * 24.0, rel=1e-9)
    stated, prices = found.cost.usd_per_million.model_dump(), one.usd_per_million.model_dump()
    assert (prices["input_hit"] is None) == (stated["input_hit"] is None) == (kind in ("mixed", "split", "two kinds"))
    given = {name: value for name, value in stated.items() if value is not None}
    assert {name: prices[name] for name in given} == pytest.approx(given, rel=1e-9)
    assert one.blended_interval.model_dump() == pytest.approx(found.cost.blended_interval.model_dump(), rel=1e-9)
    assert one.used == pytest.approx(dict.fromkeys(one.used, 1.0), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("times", "copies"), [(1.0, 1), (1.001, 2), (7.0, 7), (7.5, 8), (1000.0, 1000), (1e-6, 1)])
def test_copies_are_whole(kind: str, times: float, copies: int) -> None:
    found = fleet(kind, times * of_one_copy(kind))
    assert found.copies.expected == copies
    assert [row.units for row in found.units] == [copies * row.units for row in planned(kind).units]
    for row, unit in zip(found.units, planned(kind).units, strict=True):
        assert row.devices == row.units * unit.devices_per_unit


def test_of_two_kinds_of_hardware_by_hand() -> None:
    found = fleet("two kinds", 10.0 * of_one_copy("two kinds"))
    inputs = inputs_of(planned("two kinds"), "plan")
    systems = [inputs.hardware[phase].system for phase in ("prefill", "decode")]
    count = [10 * row.units for row in planned("two kinds").units]  # these nodes are sold whole
    assert [row.nodes for row in found.units] == [row.systems for row in found.units] == count
    watts = sum(n * system.power.value for n, system in zip(count, systems, strict=True))
    prices = inputs.prices
    assert found.megawatts_provisioned == pytest.approx(watts * prices.pue.value / 1e6)
    assert found.megawatts.expected == pytest.approx(watts * prices.pue.value * prices.power_utilisation.value / 1e6)
    kwh = found.megawatts.expected * 1000.0 * 24.0
    assert found.usd_per_day_by_cause["electricity"] == pytest.approx(kwh * prices.electricity.value)
    usd = sum(n * system.capex.value for n, system in zip(count, systems, strict=True))
    assert found.capex_usd.expected == pytest.approx(usd)
    assert found.installed_capex_usd == pytest.approx(usd * (1.0 + prices.installation.value))
    assert found.usd_per_day_by_cause["maintenance"] == pytest.approx(usd * prices.maintenance.value / 365.0)


# --- laws ----------------------------------------------------------------------------------------------------------

share = st.floats(1e-3, 1.0)
mixes = st.builds(Mix, st.just(0.0) | share, share, share)


@given(st.sampled_from(sorted(KINDS)), st.floats(1e6, 1e17), mixes | st.none(), st.floats(0.05, 1.0) | st.none())
def test_law_8_tokens_times_price_is_the_cost_of_the_fleet(
    kind: str, tokens: float, mix: Mix | None, utilisation: float | None
) -> None:
    found = fleet(kind, tokens, mix=mix, utilisation=utilisation)
    usd = found.usd_per_day.expected
    assert math.fsum(found.usd_per_day_by_cause.values()) == pytest.approx(usd, rel=1e-9)
    assert math.fsum(value for _, value in found.usd_per_day_by_stream) == pytest.approx(usd, rel=1e-9)
    streams = ("input_hit", "input_miss", "output")
    charged = [(getattr(found.usd_per_million, name) or 0.0) * getattr(found.tokens_per_day, name) / 1e6 for name in streams]
    assert math.fsum(charged) == pytest.approx(usd, rel=1e-9)
    assert found.usd_per_million.blended == pytest.approx(usd / tokens * 1e6, rel=1e-9)
    assert math.fsum(getattr(found.tokens_per_day, name) for name in streams) == pytest.approx(tokens, rel=1e-9)
    assert usd == pytest.approx(planned(kind).cost.usd_per_hour * 24.0 * found.copies.expected, rel=1e-9)


@given(st.sampled_from(sorted(KINDS)), st.floats(1e6, 1e16), mixes | st.none(), st.floats(0.05, 1.0))
def test_copies_serve_the_tokens_and_one_fewer_would_not(kind: str, tokens: float, mix: Mix | None, utilisation: float) -> None:
    found, one = fleet(kind, tokens, mix=mix, utilisation=utilisation), planned(kind)
    copies = found.copies.expected
    served = one.prediction.requests_per_s * DAY * utilisation
    each = one.cost.tokens_per_request
    load = {
        "input": found.tokens_per_day.input_miss / (served * each["input_miss"]),
        "output": found.tokens_per_day.output / (served * each["output"]),
    }
    if one.mode == "aggregated":  # both phases on the same devices: their hours add up
        hours = load["input"] * one.cost.input_share + load["output"] * (1.0 - one.cost.input_share)
    else:
        hours = max(load.values())
    assert copies >= hours * (1.0 - 1e-8)
    assert copies == 1 or copies - 1 < hours
    assert max(found.used.values()) == pytest.approx(hours / copies, rel=1e-9)


@given(st.sampled_from(["mixed", "hits"]), st.floats(1e13, 1e16), mixes)
def test_in_a_mixed_pool_a_token_costs_what_its_share_of_the_hours_does(kind: str, tokens: float, mix: Mix) -> None:
    own, found = planned(kind).cost, fleet(kind, tokens, mix=mix)
    prices, each = found.usd_per_million, own.tokens_per_request
    spent = found.usd_per_day_by_stream.input_miss + found.usd_per_day_by_stream.input_hit
    hours = {  # of the devices, for a miss and for an output token of the plan
        "miss": own.input_share / each["input_miss"],
        "output": (1.0 - own.input_share) / each["output"],
    }
    ratio = hours["miss"] * found.tokens_per_day.input_miss / (hours["output"] * found.tokens_per_day.output)
    assert spent / found.usd_per_day_by_stream.output == pytest.approx(ratio, rel=1e-9)
    charged = (prices.output or 0.0) * found.used["all"]  # what rounding up adds apart
    assert charged == pytest.approx(own.usd_per_million.output, rel=1e-9)


@given(st.sampled_from(sorted(KINDS)), st.floats(1e6, 1e16), st.floats(1.0, 100.0), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_more_tokens_or_fewer_hours_never_take_less(
    kind: str, tokens: float, times: float, hours: float, more_hours: float
) -> None:
    assume(hours <= more_hours)
    base = fleet(kind, tokens, utilisation=hours)
    assert fleet(kind, tokens * times, utilisation=hours).copies.expected >= base.copies.expected
    assert fleet(kind, tokens, utilisation=more_hours).copies.expected <= base.copies.expected


@given(st.sampled_from(sorted(KINDS)), st.floats(1e6, 1e16), mixes | st.none())
def test_intervals_hold_the_expected_value(kind: str, tokens: float, mix: Mix | None) -> None:
    found = fleet(kind, tokens, mix=mix)
    for name in ("copies", "devices", "megawatts", "capex_usd", "usd_per_day", "blended_interval"):
        interval = getattr(found, name)
        assert interval.low <= interval.expected <= interval.high, name
    assert found.devices.low == found.copies.low * found.devices.expected / found.copies.expected


@given(mixes, st.floats(1e-3, 1e3))
def test_any_multiple_of_a_mix_is_the_same_mix(mix: Mix, times: float) -> None:
    scaled = Mix(mix.hit * times, mix.miss * times, mix.output * times)
    assert scaled.of(1e12).model_dump() == pytest.approx(mix.of(1e12).model_dump(), rel=1e-9)


def test_a_fleet_of_pools_that_idle_says_so() -> None:
    found = fleet("split", 776e9, mix=Mix(342, 266, 168))
    assert any("prefill pools have 40% of the work" in note for note in found.notes)
    assert found.used["output"] > 0.95 > found.used["input"]


def test_a_plan_held_down_by_its_demand_says_so() -> None:
    one = plan("llama-3.1-8b", "h100-node", rate=1.0)
    found = size_fleet(one, inputs_of(one, "plan"), tokens_per_day=1e9)
    assert found.share_of_capacity < 0.99 and any("a plan without one" in note for note in found.notes)
    assert found.usd_per_million.blended > fleet("mixed", 1e9 * found.copies.expected).usd_per_million.blended


def test_a_rack_is_bought_whole() -> None:
    one = plan("llama-3.1-8b", "gb200-nvl72", devices=4)
    found = size_fleet(one, inputs_of(one, "plan"), tokens_per_day=1.0)
    assert (found.units[0].devices, found.units[0].nodes, found.units[0].systems) == (72, 18, 1)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(planned("mixed").to_json(), encoding="utf-8")
    return path


def test_the_command_says_what_the_function_does(run: Run, plan_file: Path) -> None:
    arguments = (
        "fleet",
        plan_file,
        "--tokens-per-day",
        "5e12",
        "--mix",
        "hit=342e9,miss=266e9,output=168e9",
        "--utilisation",
        "0.5",
    )
    code, out, err = run(*arguments, "--format", "json")
    found = fleet("mixed", 5e12, mix=Mix(342, 266, 168), utilisation=0.5)
    assert code == 0 and not err
    jsonschema.validate(json.loads(out), schema_of("fleet"))
    printed = Fleet.model_validate(json.loads(out))
    assert printed.usd_per_day.expected == pytest.approx(found.usd_per_day.expected, rel=1e-9)
    assert printed.copies == found.copies
    code, out, err = run(*arguments)
    assert code == 0 and f"{found.copies.expected:,.0f} copies of the plan's deployment, each on 1 x h100-node" in out
    assert "50.0% of the hours in use" in out and "planner verify" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Missing option '--tokens-per-day'"),
        (("--tokens-per-day", "0"), "0.0 is not in the range"),
        (("--tokens-per-day", "-5e15"), "is not in the range"),
        (("--tokens-per-day", "nan"), "finite"),
        (("--tokens-per-day", "1e30"), "not in the range"),
        (("--tokens-per-day", "many"), "'many' is not a valid float"),
        (("--tokens-per-day", "1e9", "--utilisation", "0"), "0.0 is not in the range"),
        (("--tokens-per-day", "1e9", "--utilisation", "1.5"), "1.5 is not in the range"),
        (("--tokens-per-day", "1e9", "--mix", ""), "--mix: cannot read ''"),
        (("--tokens-per-day", "1e9", "--mix", "miss=1"), "miss and output must be above 0"),
        (("--tokens-per-day", "1e9", "--mix", "hit=1,miss=0,output=1"), "miss and output must be above 0"),
        (("--tokens-per-day", "1e9", "--mix", "miss=-1,output=1"), "not negative"),
        (("--tokens-per-day", "1e9", "--mix", "miss=nan,output=1"), "not negative"),
        (("--tokens-per-day", "1e9", "--mix", "miss=inf,output=1"), "not negative"),
        (("--tokens-per-day", "1e9", "--mix", "miss=1,miss=1,output=1"), "each once"),
        (("--tokens-per-day", "1e9", "--mix", "miss=1,ouput=1"), "cannot read 'ouput=1'"),
        (("--tokens-per-day", "1e9", "--mix", "miss=one,output=1"), "cannot read 'miss=one'"),
    ],
)
def test_bad_input_is_one_line(run: Run, plan_file: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run("fleet", plan_file, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"schema_version": 1}'])
def test_what_is_no_plan_is_one_line(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    code, out, err = run("fleet", path, "--tokens-per-day", "1e9")
    assert (code, out, err.count("\n")) == (2, "", 1) and "plan.json" in err
    assert run("fleet", tmp_path / "none.json", "--tokens-per-day", "1e9")[0] == 2


def _in_cost(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**data, "cost": {**data["cost"], **changes}}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: _in_cost(data, usd_per_hour=data["cost"]["usd_per_hour"] * 2),
        lambda data: _in_cost(data, tokens_per_request={}),
        lambda data: _in_cost(data, tokens_per_request={"input_hit": 0, "input_miss": -1, "output": 1}),
        lambda data: _in_cost(data, utilisation=0.0),
        lambda data: _in_cost(data, input_share=0.0),
        lambda data: _in_cost(data, allocation="fair"),
        lambda data: _in_cost(data, blended_interval={"low": 0.0, "expected": 0.0, "high": 0.0}),
        lambda data: {**data, "prediction": {**data["prediction"], "requests_per_s": 0.0}},
        lambda data: {**data, "prediction": {**data["prediction"], "requests_per_s": 1e-300}},
        lambda data: {**data, "prediction": {**data["prediction"], "capacity_requests_per_s": 0.0}},
        lambda data: {**data, "units": [{"hardware": "b200-node", "units": 1, "devices_per_unit": 8}]},
        lambda data: {**data, "units": data["units"] * 2},
    ],
)
def test_a_damaged_plan_is_one_line(run: Run, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(change(json.loads(planned("mixed").to_json()))), encoding="utf-8")
    code, out, err = run("fleet", path, "--tokens-per-day", "1e9")
    assert code == 2 and not out and err.count("\n") == 1, err


def test_hits_without_a_price_are_refused_where_flops_share_the_cost(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan("llama-3.1-8b", "h100-node", allocation="flops").to_json(), encoding="utf-8")
    code, _, err = run("fleet", path, "--tokens-per-day", "1e9", "--mix", "hit=1,miss=1,output=1")
    assert code == 2 and "--mix" in err and "plan with --prefix-hit" in err


# --- the trillion-dollar equation ----------------------------------------------------------------------------------


def steps(**changes: float) -> dict[str, float]:
    return {step.name: step.value for step in project(**changes)}


def test_the_trillion_dollar_equation() -> None:
    # "Can DeepSeek save China one trillion dollars", June 2026: 4x the throughput saves 75 %; a trillion USD at RMB 7.0 is
    # 7e12 RMB or 35,000 centres of RMB 200M (China Unicom's in Wuhan: 1,000 cards); China at 5,000T tokens a day
    found = steps()
    assert found["saving of hardware"] == 75.0
    assert found["money"] == 7e12
    assert found["centres not built"] == 35_000.0
    assert found["centres left"] == pytest.approx(35_000 / 3)
    assert found["cards left"] == pytest.approx(35_000 / 3 * 1000)
    assert found["tokens a card, with the gain"] == pytest.approx(4_960, abs=1.0)
    assert found["tokens a card, without"] == pytest.approx(1_240, abs=0.2)


def test_the_gain_is_already_there_in_february_2025() -> None:
    # deepseek-ai/open-infra-index day 6: 608B input (342B of them hits) and 168B output tokens on 226.75 nodes of 8 H800
    found = steps()
    assert found["tokens a card, measured day"] == pytest.approx(4_951, abs=1.0)
    ratio = found["tokens a card, with the gain"] / found["tokens a card, measured day"]
    assert ratio == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize(("rate", "years", "hour", "million"), [(0.05, 5.0, 0.75, 0.042), (0.10, 4.0, 1.03, 0.058)])
def test_capital_of_the_tokens_of_a_card_for_200_000_rmb(rate: float, years: float, hour: float, million: float) -> None:
    found = steps(cost_of_capital=rate, life_years=years)
    assert found["a card"] == pytest.approx(28_600, rel=2e-3)
    assert found["its capital"] == pytest.approx(hour, abs=5e-3)
    assert found["capital of tokens"] == pytest.approx(million, abs=5e-4)


@given(st.floats(1.01, 1e3), st.floats(1e6, 1e15), st.floats(1.0, 100.0))
def test_what_is_left_and_what_is_not_built_are_what_there_would_be(gain: float, usd: float, exchange: float) -> None:
    found = steps(throughput_gain=gain, saved_usd=usd, rmb_per_usd=exchange)
    whole = found["centres left"] + found["centres not built"]
    assert found["centres not built"] / whole * 100.0 == pytest.approx(found["saving of hardware"], rel=1e-9)
    assert found["tokens a card, without"] * whole == pytest.approx(found["tokens a card, with the gain"] * found["centres left"])


@pytest.mark.parametrize(
    ("name", "step", "factor"),
    [
        ("saved_usd", "centres not built", 2.0),
        ("rmb_per_usd", "centres not built", 2.0),
        ("centre_rmb", "centres not built", 0.5),
        ("cards_per_centre", "tokens a card, with the gain", 0.5),
        ("tokens_per_day", "tokens a card, with the gain", 2.0),
        ("day_tokens", "tokens a card, measured day", 2.0),
        ("day_cards", "tokens a card, measured day", 0.5),
    ],
)
def test_each_input_is_edited(name: str, step: str, factor: float) -> None:
    usual = {"saved_usd": 1e12, "rmb_per_usd": 7.0, "centre_rmb": 200e6, "cards_per_centre": 1000.0}
    usual |= {"tokens_per_day": 5e15, "day_tokens": 776e9, "day_cards": 226.75 * 8}
    assert steps(**{name: 2.0 * usual[name]})[step] == pytest.approx(factor * steps()[step])
    marks = {found.name: found.whose for found in project(**{name: 2.0 * usual[name]})}
    assert marks[step] == "yours" and "yours" not in {found.whose for found in project(**{name: usual[name]})}
    assert all(
        marks[found.name] == "yours" for found in project() if found.value != steps(**{name: 2.0 * usual[name]})[found.name]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"saved_usd": -1.0}, {"rmb_per_usd": 0.0}, {"centre_rmb": math.nan}, {"tokens_per_day": math.inf}, {"saved_usd": 1e300},
        {"throughput_gain": 1.0}, {"throughput_gain": 0.5}, {"cost_of_capital": -0.1}, {"cost_of_capital": 10.0},
        {"life_years": 0.0}, {"cards_per_centre": "many"}, {"day_cards": True},
    ],
)  # fmt: skip
def test_bad_inputs_of_the_equation_name_themselves(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(changes))) as caught:
        project(**changes)
    assert "\n" not in str(caught.value)


def test_every_step_is_printed_and_marked() -> None:
    text = as_text(project())
    assert text.startswith("Projection of its source") and max(map(len, text.splitlines())) <= 110 and "not a forecast" in text
    for step in project():
        assert f"[{step.whose}]" in str(step) and step.name in text
    assert "4,960" in text and "7,000,000,000,000" in text


def test_the_page_shows_the_steps() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "fleet.md").read_text(encoding="utf-8")
    for line in as_text(project()).splitlines():
        assert line in page
