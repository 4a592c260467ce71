"""``planner fleet --budget`` and margins: what fits a scarce memory, what more of it is worth, what tokens earn."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import fleet, mixes, of_one_copy, planned

from planner import plan
from planner.cli.schema_command import schema_of
from planner.economics import CAUSES, stream_costs
from planner.economics.bill import Usage, split_by_work
from planner.economics.tariff import Tariff, tariff_at
from planner.errors import InfeasibleError, InputError
from planner.fleet import Fleet, margin_of, parse_budgets, size_fleet
from planner.fleet.margin import STREAMS
from planner.hardware import load_hardware
from planner.hardware.installed import MEMORIES, installed_bytes
from planner.hardware.schema import TierKind
from planner.plans.read import inputs_of
from planner.plans.schema import Interval
from planner.prices.sheets import load_sheet

Run = Callable[..., tuple[int, str, str]]
LLAMA = ("mixed", "hits", "all_input")


def held(kind: str, **budgets: float) -> Fleet:
    return fleet(kind, None, budgets=budgets)


# --- budgets -------------------------------------------------------------------------------------------------------


def test_every_kind_of_memory_of_a_system_may_be_scarce() -> None:
    assert set(MEMORIES) == set(get_args(TierKind)) - {"remote"}


def test_installed_memory_by_hand() -> None:
    # the profile: usable bytes of a device, and of what a socket and the node own; 8 devices, 4 to a socket
    system = load_hardware("h100-node").system
    by_hand = {"hbm": 8 * system.tier("hbm").usable.value}
    for tier in system.tiers[1:]:
        by_hand[tier.kind] = by_hand.get(tier.kind, 0.0) + tier.usable.value * (8 // tier.devices_sharing)
    assert installed_bytes(system) == pytest.approx(by_hand) and 0.6e12 < by_hand["hbm"] < 0.69e12


def test_a_budget_of_memory_by_hand() -> None:
    each = installed_bytes(load_hardware("h100-node").system)["hbm"]  # a copy is one node, all its HBM counts
    found = held("mixed", hbm=7.9 * each, power=1e9, units=100.0)
    assert found.sized_by == "budgets" and found.copies.model_dump() == {"low": 7, "expected": 7, "high": 7}
    assert found.tokens_per_day.total == pytest.approx(7 * of_one_copy("mixed"), rel=1e-9)
    rows = {row.budget: row for row in found.budgets}
    hbm, units = rows["hbm"], rows["units"]
    assert (hbm.unit, hbm.copies, hbm.binds, units.copies, units.binds, units.worth) == ("TB", 7, True, 100, False, None)
    assert hbm.used == pytest.approx(7 * each / 1e12) and hbm.left == pytest.approx(0.9 * each / 1e12)
    assert (units.used, units.left) == (7.0, 93.0)
    assert hbm.worth is not None and hbm.worth.usd_per_day is None
    assert hbm.worth.tokens_per_day == pytest.approx(of_one_copy("mixed") / (each / 1e12))
    assert hbm.worth.valid_to == pytest.approx(100 * each / 1e12)  # where the units bind
    more = held("mixed", hbm=7.9 * each + 5 * each, power=1e9, units=100.0)  # five copies further, at that worth
    gained = more.tokens_per_day.total - found.tokens_per_day.total
    assert gained == pytest.approx(hbm.worth.tokens_per_day * 5 * each / 1e12)


def test_power_and_money_by_hand() -> None:
    one = held("mixed", units=1.0)
    inputs = inputs_of(planned("mixed"), "plan")
    system, prices = inputs.hardware["mixed"].system, inputs.prices
    watts = system.power.value * prices.pue.value
    usd = system.capex.value * (1.0 + prices.installation.value)
    assert held("mixed", power=3.5 * watts).copies.expected == 3 and held("mixed", usd=3.0 * usd).copies.expected == 3
    assert held("mixed", power=3.5 * watts).budgets[0].used == pytest.approx(one.megawatts_provisioned * 3)
    assert held("mixed", usd=3.0 * usd).budgets[0].left == pytest.approx(0.0, abs=1e-3)


def test_where_two_budgets_bind_more_of_one_is_worth_nothing() -> None:
    each = installed_bytes(load_hardware("h100-node").system)["hbm"]
    rows = held("mixed", hbm=3.2 * each, units=3.0).budgets
    assert [row.binds for row in rows] == [True, True]
    assert [row.worth.tokens_per_day for row in rows if row.worth] == [0.0, 0.0]


def test_the_memory_that_a_fleet_takes() -> None:
    found = held("mixed", units=5.0)
    sizes = installed_bytes(load_hardware("h100-node").system)
    assert [row.memory for row in found.memories] == ["hbm", "ddr", "ssd"]
    for row in found.memories:
        assert row.installed_bytes == pytest.approx(5 * sizes[row.memory])
        assert row.tokens_per_day_per_tb == pytest.approx(found.tokens_per_day.total / (row.installed_bytes / 1e12))
        assert row.bytes_per_token_per_s == pytest.approx(row.installed_bytes / (found.tokens_per_day.total / 86400.0))
    few = fleet("mixed", 0.1 * of_one_copy("mixed"))  # of full copies, however few tokens are asked
    assert few.memories[0].tokens_per_day_per_tb == pytest.approx(found.memories[0].tokens_per_day_per_tb)


amounts = st.floats(1e12, 1e17)


@settings(max_examples=50)
@given(
    st.sampled_from(LLAMA),
    amounts,
    st.floats(1.0, 1e6),
    st.floats(1.0, 10.0),
    st.sampled_from(["hbm", "units"]),
    mixes | st.none(),
)
def test_more_of_a_budget_never_serves_fewer_tokens(
    kind: str, hbm: float, units: float, times: float, which: str, mix: Any
) -> None:
    less = {"hbm": hbm, "units": units}
    more = {**less, which: less[which] * times}
    options: dict[str, Any] = {} if mix is None or kind == "hits" else {"mix": mix}
    few, many = (fleet(kind, None, budgets=budgets, **options) for budgets in (less, more))
    assert many.tokens_per_day.total >= few.tokens_per_day.total and many.copies.expected >= few.copies.expected
    for row in few.budgets:
        assert row.used <= row.limit * (1.0 + 1e-9) and row.copies >= few.copies.expected
    assert any(row.binds for row in few.budgets)
    # law 8: the streams, and the causes, sum to the cost
    usd = few.usd_per_day.expected
    assert math.fsum(value for _, value in few.usd_per_day_by_stream) == pytest.approx(usd, rel=1e-9)
    assert math.fsum(few.usd_per_day_by_cause.values()) == pytest.approx(usd, rel=1e-9)
    # asked for these tokens, the budgets hold them, and a copy's worth more is refused with what it would take
    again = fleet(kind, few.tokens_per_day.total, budgets=less, **options)
    assert again.copies.expected == few.copies.expected and all(row.worth is None for row in again.budgets)
    with pytest.raises(InfeasibleError) as caught:
        fleet(kind, few.tokens_per_day.total * (1.0 + 0.5 / few.copies.expected), budgets=less, **options)
    raised = {str(member["member"]).removeprefix("budget "): float(str(member["amount"])) for member in caught.value.conflict}
    assert set(raised) == {row.budget for row in few.budgets if row.binds}
    scale = {"hbm": 1e12, "units": 1.0}
    enough = {**less, **{name: amount * scale[name] for name, amount in raised.items()}}
    assert fleet(kind, None, budgets=enough, **options).copies.expected == few.copies.expected + 1
    for name in raised:  # and a little less of any of them does not do
        short = {**enough, name: enough[name] * (1.0 - 1e-6)}
        assert fleet(kind, None, budgets=short, **options).copies.expected == few.copies.expected


def test_the_tokens_of_a_budget_are_as_uncertain_as_their_speed() -> None:
    found, speed = held("mixed", units=4.0), planned("mixed").prediction.output_tokens_per_s
    interval = found.tokens_per_day_interval
    assert speed.low is not None and interval.low is not None and interval.high is not None
    assert interval.low / interval.expected == pytest.approx(speed.low / speed.expected)
    assert found.usd_per_day.low is not None and found.usd_per_day.high is not None
    assert found.usd_per_day.low < found.usd_per_day.expected < found.usd_per_day.high
    demanded = fleet("mixed", found.tokens_per_day.total)  # there the copies are uncertain too
    assert demanded.usd_per_day.high is not None and demanded.usd_per_day.high > found.usd_per_day.high


def test_a_number_of_units_is_not_passed_however_large() -> None:
    for units in (1e3 - 1e-8, 1e6 + 0.5, 1e9 - 0.01, 1e12):
        assert held("mixed", units=units).copies.expected == math.floor(units + 1e-6)


def test_not_one_copy_is_infeasible() -> None:
    with pytest.raises(InfeasibleError, match="takes 1 copy, the budgets hold 0; budget hbm: raise to") as caught:
        held("mixed", hbm=1e11)
    assert caught.value.conflict[0]["amount"] == pytest.approx(installed_bytes(load_hardware("h100-node").system)["hbm"] / 1e12)


def test_rented_hardware_has_nothing_to_buy() -> None:
    one = plan("llama-3.1-8b", "h100-node", prices="rent_od")
    found = size_fleet(one, inputs_of(one, "plan"), tokens_per_day=None, budgets={"hbm": 1e14})
    assert found.basis == "rent_od" and found.installed_capex_usd == 0.0 == found.capex_usd.expected
    assert found.usd_per_day_by_cause["rent"] == pytest.approx(found.usd_per_day.expected)
    assert set(found.usd_per_day_by_cause) == set(CAUSES)
    with pytest.raises(InputError, match="takes no usd"):
        size_fleet(one, inputs_of(one, "plan"), budgets={"usd": 1e9})


# --- margins -------------------------------------------------------------------------------------------------------


def at(name: str, day: str) -> Tariff:
    return tariff_at(load_sheet(name), datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC))


def test_deepseeks_day() -> None:
    # deepseek-ai/open-infra-index day 6: 226.75 nodes of 8 at 2 USD a device and hour, 342B hits, 266B misses, 168B out;
    # node-hours by rate (73.7k and 14.8k tokens/s a node) scaled to those leased
    cost = 226.75 * 8 * 2.0 * 24
    spent = split_by_work(cost, {"input": 608e9 / 73.7e3, "output": 168e9 / 14.8e3})
    streams = stream_costs(
        input_usd=spent["input"], output_usd=spent["output"], hit_tokens=342e9, miss_tokens=266e9, output_tokens=168e9,
        allocation="miss_only",
    )  # fmt: skip
    usage = Usage(342e9, 266e9, 168e9)
    by_stream = {"input_hit": 0.0, "input_miss": (streams.input_miss or 0) * 266e3, "output": (streams.output or 0) * 168e3}
    price = Interval(low=None, expected=streams.blended, high=None)
    found = margin_of(at("deepseek-r1", "2025-02-28"), usage, by_stream, price)
    assert found.cost_usd == pytest.approx(87_072) and found.revenue_usd == pytest.approx(562_100)
    assert found.margin.expected == pytest.approx(5.456, abs=5e-4) and found.margin.low is None
    # by hand: 342B x 0.14, 266B x 0.55, 168B x 2.19
    assert [found.by_stream[name].revenue_usd for name in STREAMS] == pytest.approx([47_880, 146_300, 367_920])
    assert found.by_stream["input_hit"].margin is None
    assert found.by_stream["output"].margin == pytest.approx(367_920 / (0.3001 * 168e3) - 1.0, rel=1e-3)
    assert math.fsum(row.cost_usd for row in found.by_stream.values()) == pytest.approx(87_072)


@pytest.mark.parametrize("kind", LLAMA)
def test_a_fleets_margin_adds_up_by_stream(kind: str) -> None:
    tariff = at("deepseek-v4-pro", "2026-05-15")
    found = fleet(kind, 3e12, tariff=tariff)
    margin = found.margin
    assert margin is not None and margin.cost_usd == pytest.approx(found.usd_per_day.expected)
    prices = {"input_hit": 0.003625, "input_miss": 0.435, "output": 0.87}  # USD per million, the sheet of that day
    for name, each in prices.items():
        row = margin.by_stream[name]
        assert row.revenue_usd == pytest.approx(getattr(found.tokens_per_day, name) * each / 1e6)
        assert row.cost_usd == pytest.approx(getattr(found.usd_per_day_by_stream, name))
    assert math.fsum(row.revenue_usd for row in margin.by_stream.values()) == pytest.approx(margin.revenue_usd)
    ends = margin.margin
    assert ends.low is not None and ends.high is not None and ends.low < ends.expected < ends.high
    assert ends.expected == pytest.approx(margin.revenue_usd / found.usd_per_day.expected - 1.0)
    high = found.blended_interval.high or 0.0  # this sheet's prices have no interval: the cost alone moves the margin
    assert ends.low == pytest.approx(margin.revenue_usd / found.tokens_per_day.total * 1e6 / high - 1.0)


def test_what_a_budget_earns_and_loses() -> None:
    tariff = at("deepseek-v4-pro", "2026-05-15")
    found = fleet("mixed", None, budgets={"units": 6.0}, tariff=tariff)
    margin, worth = found.margin, found.budgets[0].worth
    assert margin is not None and worth is not None and worth.usd_per_day is not None
    assert worth.usd_per_day == pytest.approx((margin.revenue_usd - margin.cost_usd) / 6.0) and worth.usd_per_day > 0.0
    cheap = fleet("mixed", None, budgets={"units": 6.0}, tariff=at("deepseek-v4-flash", "2026-05-15"), utilisation=0.01)
    assert cheap.margin is not None and cheap.margin.margin.expected < 0.0
    assert cheap.budgets[0].worth is not None and (cheap.budgets[0].worth.usd_per_day or 0.0) < 0.0


def test_another_currency_and_the_peak_share() -> None:
    usd, cny = (tariff_at(load_sheet(name), None, 0.25, {"CNY": 7.0}) for name in ("deepseek-v4-pro", "deepseek-v4-pro-cny"))
    dollars, yuan = (fleet("mixed", 1e12, tariff=tariff).margin for tariff in (usd, cny))
    assert dollars is not None and yuan is not None and yuan.sheet.per_usd == 7.0 and dollars.sheet.per_usd is None
    assert yuan.revenue_usd == pytest.approx(yuan.revenue / 7.0) and yuan.sheet.lowest_grade == "D"
    low, high = (
        fleet("mixed", 1e12, tariff=tariff_at(load_sheet("deepseek-v4-pro"), None, share)).margin for share in (0.0, 1.0)
    )
    assert low is not None and high is not None
    assert dollars.revenue_usd == pytest.approx(0.75 * low.revenue_usd + 0.25 * high.revenue_usd)


# --- the commands --------------------------------------------------------------------------------------------------


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    path.write_text(planned("hits").to_json(), encoding="utf-8")
    return path


def test_the_command(run: Run, plan_file: Path) -> None:
    arguments = ("fleet", plan_file, "--budget", "hbm=10PB", "--budget", "power=5MW", "--sheet", "deepseek-v4-pro")
    code, out, err = run(*arguments, "--date", "2026-05-15", "--format", "json")
    assert code == 0 and not err
    jsonschema.validate(json.loads(out), schema_of("fleet"))
    printed = Fleet.model_validate(json.loads(out))
    expected = fleet("hits", None, budgets={"hbm": 1e16, "power": 5e6}, tariff=at("deepseek-v4-pro", "2026-05-15"))
    assert printed.copies == expected.copies and printed.margin is not None and expected.margin is not None
    assert printed.margin.margin.expected == pytest.approx(expected.margin.margin.expected)
    code, out, err = run(*arguments)
    assert code == 0 and "power: 1 MW more is worth" in out and "margin: revenue / cost - 1 =" in out
    assert "api-docs.deepseek.com" in out and max(map(len, out.splitlines())) <= 130


def test_too_many_tokens_are_infeasible(run: Run, plan_file: Path) -> None:
    code, out, err = run("fleet", plan_file, "--budget", "hbm=10TB", "--tokens-per-day", "1e15")
    assert code == 3 and "raise to" in out and "proved infeasible" in err
    code, out, _ = run("fleet", plan_file, "--budget", "hbm=10TB", "--tokens-per-day", "1e15", "--format", "json")
    data = json.loads(out)
    jsonschema.validate(data, schema_of("conflict"))
    enough = f"hbm={data['conflict'][0]['amount'] * 1.000001}TB"
    assert code == 3 and run("fleet", plan_file, "--budget", enough, "--tokens-per-day", "1e15")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budget", "hbm"), "cannot read 'hbm'"),
        (("--budget", "hbm=10"), "'10' has no unit"),
        (("--budget", "power=10"), "'10' has no unit"),
        (("--budget", "hbm=0TB"), "hbm: must be above 0"),
        (("--budget", "hbm=-5TB"), "hbm: must be above 0"),
        (("--budget", "hbm=1e40TB"), "at most"),
        (("--budget", "hbm=nan"), "is not a quantity"),
        (("--budget", "hbm=5MW"), "unknown unit 'MW'"),
        (("--budget", "hbn=5TB"), "did you mean hbm"),
        (("--budget", "remote=5TB"), "nothing is called 'remote'"),
        (("--budget", "gddr=5TB"), "takes no gddr; it takes hbm, ddr, ssd"),
        (("--budget", "hbm=5TB", "--budget", "hbm=6TB"), "given twice"),
        (("--budget", "units=many"), "units: 'many'"),
        (("--budget", "usd=1e30"), "at most"),
        (("--budget", ""), "cannot read ''"),
        (("--tokens-per-day", "1e9", "--date", "2026-05-15"), "goes with --sheet"),
        (("--tokens-per-day", "1e9", "--peak-share", "0.5"), "goes with --sheet"),
        (("--tokens-per-day", "1e9", "--rate", "CNY=7"), "goes with --sheet"),
        (("--tokens-per-day", "1e9", "--sheet", "gpt-5.5", "--date", "2020-01-01"), "has no prices for 2020-01-01; known: 2026"),
        (("--tokens-per-day", "1e9", "--sheet", "gpt-5.5", "--peak-share", "0.5"), "no peak windows"),
        (("--tokens-per-day", "1e9", "--sheet", "gpt-6"), "unknown price sheet 'gpt-6'"),
        (("--tokens-per-day", "1e9", "--sheet", "deepseek-v4-pro-cny", "--rate", "CNY=-7"), "--rate: cannot read"),
    ],
)
def test_bad_input_is_one_line(run: Run, plan_file: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = run("fleet", plan_file, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err


def test_a_plan_is_billed_at_its_own_mix_and_cost(run: Run, plan_file: Path) -> None:
    arguments = ("cost", "bill", "--plan", plan_file, "--sheet", "deepseek-v4-pro", "--date", "2026-05-15")
    code, out, err = run(*arguments, "--format", "json")
    assert code == 0 and not err
    data = json.loads(out)
    jsonschema.validate(data, schema_of("cost-bill"))
    cost, row = planned("hits").cost, data["bills"][0]
    each = cost.tokens_per_request
    whole = sum(each.values())
    revenue = (each["input_hit"] * 0.003625 + each["input_miss"] * 0.435 + each["output"] * 0.87) / whole  # per million, by hand
    assert data["cost_usd"] == pytest.approx(cost.usd_per_million.blended)
    assert row["usd"] == pytest.approx(revenue)
    assert row["margin"] == row["margin_interval"]["expected"] == pytest.approx(revenue / cost.usd_per_million.blended - 1.0)
    assert row["margin_interval"]["low"] < row["margin"] < row["margin_interval"]["high"]
    assert sum(stream["cost_usd"] for stream in row["by_stream"].values()) == pytest.approx(data["cost_usd"])
    assert sum(stream["revenue_usd"] for stream in row["by_stream"].values()) == pytest.approx(row["usd"])
    assert data["plan"]["basis"] == "owned" and sum(data["usage"][name] for name in STREAMS) == pytest.approx(1e6)
    twice = json.loads(run(*arguments, "--tokens", "2e6", "--format", "json")[1])
    assert twice["cost_usd"] == pytest.approx(2 * data["cost_usd"]) and twice["bills"][0]["margin"] == pytest.approx(
        row["margin"]
    )
    code, out, _ = run(*arguments)
    assert code == 0 and f"margin {row['margin']:.1%}" in out


@pytest.mark.parametrize("option", [("--mix", "input=1"), ("--hit", "0.5"), ("--cost", "5")])
def test_what_the_plan_says_is_not_said_again(run: Run, plan_file: Path, option: tuple[str, str]) -> None:
    code, out, err = run("cost", "bill", "--plan", plan_file, "--sheet", "gpt-5.5", *option)
    assert (code, out, err.count("\n")) == (2, "", 1) and "is said by the plan" in err


def test_a_damaged_plan_is_not_billed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    data = json.loads(planned("hits").to_json())
    for changes in ({"tokens_per_request": {}}, {"usd_per_million": {**data["cost"]["usd_per_million"], "blended": 0.0}}):
        path.write_text(json.dumps({**data, "cost": {**data["cost"], **changes}}), encoding="utf-8")
        code, out, err = run("cost", "bill", "--plan", path, "--sheet", "gpt-5.5")
        assert (code, out, err.count("\n")) == (2, "", 1) and "see planner verify" in err


@pytest.mark.parametrize("texts", [["hbm=10PB", "power=50MW", "usd=2e9", "units=100"]])
def test_budgets_are_read_in_si_units(texts: list[str]) -> None:
    assert parse_budgets(texts) == {"hbm": 1e16, "power": 5e7, "usd": 2e9, "units": 100.0}
    with pytest.raises(InputError):
        parse_budgets([*texts, "hbm=1TB"])
