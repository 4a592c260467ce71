"""``planner cost whatif``: elasticities and break-even prices against plans made anew at the changed prices."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import plan
from planner.cli.cost_whatif import REFERENCES, whatif
from planner.cli.schema_command import schema_of
from planner.economics.owned import owned_hour
from planner.economics.whatif import (
    PRICE_OF_KIND,
    PRICES,
    SCENARIOS,
    Pool,
    break_even_scale,
    capex_by_price,
    elasticities,
    factors,
    memory_bytes,
    pool_by_price,
)
from planner.errors import InputError
from planner.hardware import HardwareSelection, MemoryPart, load_hardware, load_part
from planner.plans.schema import Plan
from planner.prices import OwnedPrices, load_prices
from planner.quantities import Figure

Run = Callable[..., tuple[int, str, str]]
changes_of = st.dictionaries(st.sampled_from(PRICES), st.floats(-0.9, 10.0), max_size=len(PRICES))
lines_of = st.dictionaries(st.sampled_from(PRICES), st.floats(0.01, 1e3), min_size=1)
pools_of = st.lists(st.builds(Pool, st.just("x"), lines_of), min_size=1, max_size=2).map(tuple)


def times(figure: Figure, factor: float) -> Figure:
    """The figure and its interval, multiplied."""
    ends = {name: getattr(figure, name) for name in ("value", "low", "high")}
    return figure.model_copy(update={name: None if end is None else end * factor for name, end in ends.items()})


def at_capex(selection: HardwareSelection, factor: float) -> HardwareSelection:
    """The hardware at another price; its lines would be those of another sum."""
    if factor == 1.0:
        return selection
    system = selection.system
    changed = system.model_copy(update={"capex": times(system.capex, factor), "capex_lines": ()})
    return selection.model_copy(update={"system": changed})


@cache
def made(kind: str, capex: float = 1.0, electricity: float = 1.0) -> Plan:
    """A plan, with the capital cost of its (first) hardware and the price of electricity multiplied."""
    prices: OwnedPrices = load_prices("owned")
    dearer = prices.model_copy(update={"electricity": times(prices.electricity, electricity)})
    options: dict[str, Any] = {"prices": dearer, "allow_announced": True}
    hardware: Any = {
        "h200": "h200-node:2",
        "mi300x": "mi300x-node:2",
        "rack": "vr200-nvl72",
        "two": ("h800-node:8", "h20-node:8"),
        "mixed bases": ("h800-node:8", "vr200-nvl72"),
    }[kind]
    if isinstance(hardware, str):
        chosen: Any = at_capex(load_hardware(hardware), capex)
    else:
        chosen = {"prefill": at_capex(load_hardware(hardware[0]), capex), "decode": load_hardware(hardware[1])}
    return plan("deepseek-v3", chosen, **options)


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[[Plan], str]:
    def write(found: Plan) -> str:
        path = tmp_path / f"plan{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(found.model_dump(mode="json", by_alias=True)), encoding="utf-8")
        return str(path)

    return write


def answer(run: Run, *arguments: str) -> Any:
    code, out, err = run("cost", "whatif", *arguments, "--format", "json")
    assert code == 0 and not err, err
    data = json.loads(out)
    jsonschema.validate(data, schema_of("cost-whatif"), jsonschema.Draft202012Validator)
    return data


def refusal(run: Run, *arguments: str) -> str:
    code, out, err = run("cost", "whatif", *arguments)
    assert code == 2 and not out and err.startswith("planner: ") and err.count("\n") == 1, (out, err)
    return err


# -- numbers ---------------------------------------------------------------------------------------------------------------
@given(pools_of, changes_of, st.floats(0.01, 0.99))
def test_elasticities_sum_to_one_and_are_the_slopes_of_the_cost(
    pools: tuple[Pool, ...], changes: dict[str, float], share: float
) -> None:
    each = [(index, name, elasticities(pools, index, name, share)) for index in range(len(pools)) for name in PRICES]
    for stream in ("input", "output", "blended"):
        assert math.fsum(getattr(found, stream) for _, _, found in each) == pytest.approx(1.0, rel=1e-9)
        step = 1e-6
        for name in PRICES:
            slope = math.fsum(getattr(found, stream) for _, line, found in each if line == name)
            numeric = math.log(getattr(factors(pools, {name: step}, share), stream)) / math.log1p(step)
            assert numeric == pytest.approx(slope, abs=1e-5)
    moved = factors(pools, changes, share)
    assert share * moved.input + (1.0 - share) * moved.output == pytest.approx(moved.blended, rel=1e-9)
    alike = factors(pools, dict.fromkeys(PRICES, 0.5), share)
    assert (alike.input, alike.output, alike.blended) == pytest.approx((1.5, 1.5, 1.5))


@given(st.floats(1e-3, 1e3), st.floats(0.0, 0.99), st.floats(1e-3, 1e3))
def test_at_the_break_even_price_both_cost_the_same(blended: float, power: float, other: float) -> None:
    scale = break_even_scale(blended, power, other)
    if scale is None:
        assert other <= blended * power * (1.0 + 1e-12)
    else:
        assert blended * power + scale * blended * (1.0 - power) == pytest.approx(other, rel=1e-9)


def test_a_profile_with_lines_is_split_by_them() -> None:
    """VR200 NVL72 (Morgan Stanley, May 2026): GPUs with their HBM 3.96 MUSD, LPDDR5X and NVMe 2,001,600 of 7,803,148."""
    system = load_hardware("vr200-nvl72").system
    found = capex_by_price(system, {"hbm": 12.0, "lpddr": 30.0, "ssd": 0.3})
    assert math.fsum(found.values()) == pytest.approx(7_803_148) and set(found) == {"gpu", "hbm", "lpddr", "nand", "rest"}
    assert found["gpu"] + found["hbm"] == pytest.approx(3_960_000)
    assert found["lpddr"] + found["nand"] == pytest.approx(2_001_600)
    size = memory_bytes(system)
    assert size["lpddr"] == pytest.approx(54e12) and size["hbm"] == pytest.approx(72 * system.tiers[0].usable.value)
    assert found["hbm"] == pytest.approx(size["hbm"] / 1e9 * 12.0)
    assert found["lpddr"] / found["nand"] == pytest.approx(size["lpddr"] * 30.0 / (size["ssd"] * 0.3))
    undone = {name: usd / 5.35 for name, usd in found.items() if name in SCENARIOS["memory-435"].changes}
    assert math.fsum(undone.values()) == pytest.approx(374e3, rel=1e-3)  # the line of a GB300 rack
    whole = capex_by_price(system, {})
    assert whole == pytest.approx({"gpu": 3_960_000, "rest": 7_803_148 - 3_960_000})


def test_memory_worth_more_than_its_system_is_refused() -> None:
    system = load_hardware("h100-node").system
    assert math.fsum(capex_by_price(system, {"hbm": 12.0, "ddr": 12.0}).values()) == pytest.approx(system.capex.value)
    with pytest.raises(InputError, match="310,000 USD") as refused:
        capex_by_price(system, {"ddr": 500.0})
    assert "--memory" in str(refused.value)


def test_the_hour_is_that_of_its_owner() -> None:
    rates = {"cost_of_capital": 0.1, "life_years": 5.0, "residual_value": 0.1, "installation": 0.1, "maintenance": 0.03}
    site = {"staff": 0.01, "usd_per_kwh": 0.08, "power_utilisation": 0.8, "pue": 1.3}

    def hour(capex: float, scale: float = 1.0) -> Any:
        return owned_hour(capex_usd=capex, power_w=1e4, **rates, **{**site, "usd_per_kwh": 0.08 * scale})

    pool = pool_by_price("x", {"hbm": 1e5, "rest": 2e5}, hour(3e5), 1.5)
    assert pool.hour == pytest.approx(1.5 * hour(3e5).total)
    assert pool.factor({"hbm": 1.0}) * pool.hour == pytest.approx(1.5 * hour(4e5).total)
    assert pool.factor({"power": 1.0}) * pool.hour == pytest.approx(1.5 * hour(3e5, 2.0).total)


@pytest.mark.parametrize(("kind", "name"), REFERENCES.items())
def test_the_usual_part_of_a_kind_is_of_that_kind(kind: str, name: str) -> None:
    part = load_part(name)
    assert isinstance(part, MemoryPart) and part.tier == kind and kind in PRICE_OF_KIND


def test_the_command_knows_the_scenarios() -> None:
    (option,) = (found for found in whatif.params if found.name == "scenario")
    assert tuple(option.type.choices) == tuple(SCENARIOS)  # type: ignore[attr-defined]
    for scenario in SCENARIOS.values():
        assert "https://" in scenario.source and set(scenario.changes) <= set(PRICES)


# -- plans -----------------------------------------------------------------------------------------------------------------
def test_a_plan_made_at_the_changed_prices_costs_what_is_said(run: Run, file_of: Callable[[Plan], str]) -> None:
    found = answer(
        run,
        file_of(made("h200")),
        "--price",
        "power=+40%",
        *(f"--price={name}=+50%" for name in ("hbm", "lpddr", "nand", "rest")),
    )
    anew = made("h200", capex=1.5, electricity=1.4).cost.usd_per_million.model_dump(exclude_none=True)
    assert found["usd_per_million_changed"].pop("input_hit") is None
    assert found["usd_per_million_changed"] == pytest.approx(anew, rel=1e-9)
    assert found["usd_per_million"] == made("h200").cost.usd_per_million.model_dump()
    assert found["changes"] == {"power": 0.4, "hbm": 0.5, "lpddr": 0.5, "nand": 0.5, "rest": 0.5}
    assert math.fsum(row["usd_per_hour"] for row in found["lines"]) == pytest.approx(made("h200").cost.usd_per_hour, rel=1e-9)


def test_pools_of_their_own_move_the_stream_they_serve(run: Run, file_of: Callable[[Plan], str]) -> None:
    found = answer(run, file_of(made("two")))
    assert found["factor"] == 1.0 and found["usd_per_million_changed"] == found["usd_per_million"]
    by = {stream: {"h800-node": 0.0, "h20-node": 0.0} for stream in ("input", "output")}
    assert [row["phase"] for row in found["lines"]] == ["prefill"] * 5 + ["decode"] * 5
    for row in found["lines"]:
        for stream, total in by.items():
            total[row["hardware"]] += row["elasticity"][stream]
    anew, usual = made("two", capex=1.0 + 1e-6).cost.usd_per_million, made("two").cost.usd_per_million
    assert found["usd_per_million"] == usual.model_dump() and anew.output == pytest.approx(usual.output, rel=1e-9)
    capital = math.fsum(row["elasticity"]["input"] for row in found["lines"] if row["phase"] == "prefill" and row["capex_usd"])
    assert anew.input_miss is not None and usual.input_miss is not None
    assert math.log(anew.input_miss / usual.input_miss) / 1e-6 == pytest.approx(capital, rel=1e-3)
    assert by["input"] == pytest.approx({"h800-node": 1.0, "h20-node": 0.0}, abs=1e-9)
    assert by["output"] == pytest.approx({"h800-node": 0.0, "h20-node": 1.0}, abs=1e-9)


def test_bought_at_the_break_even_price_a_plan_costs_what_the_other_does(run: Run, file_of: Callable[[Plan], str]) -> None:
    one, other = made("h200"), made("mi300x")
    found = answer(run, file_of(one), "--against", file_of(other))["against"]
    assert found["usd_per_million"] == pytest.approx(other.cost.usd_per_million.blended, rel=1e-12)
    assert found["ratio"] == pytest.approx(one.cost.usd_per_million.blended / found["usd_per_million"], rel=1e-12)
    anew = made("h200", capex=found["break_even_scale"])
    assert anew.cost.usd_per_million.blended == pytest.approx(other.cost.usd_per_million.blended, rel=1e-9)
    (row,) = found["units"]
    assert row["break_even_unit_usd"] == pytest.approx(360e3 * found["break_even_scale"])
    assert row["break_even_device_usd"] == pytest.approx(row["break_even_unit_usd"] / 8)
    same = answer(run, file_of(one), "--against", file_of(one), "--price", "hbm=+300%")["against"]
    assert same["break_even_scale"] == pytest.approx(1.0, rel=1e-12) and same["units"][0]["unit_usd"] > 360e3


def test_electricity_alone_may_cost_more_than_the_other_plan(run: Run, file_of: Callable[[Plan], str]) -> None:
    dear = made("h200", electricity=100.0)
    names = (file_of(dear), "--against", file_of(made("mi300x")))
    found = answer(run, *names)["against"]
    assert found["break_even_scale"] is None and found["units"][0]["break_even_unit_usd"] is None
    assert "no price breaks even" in " ".join(run("cost", "whatif", *names)[1].split())


def test_the_memory_price_rise_of_the_sources(run: Run, file_of: Callable[[Plan], str]) -> None:
    found = answer(run, file_of(made("h200")), "--scenario", "memory-435")
    lines = {row["price"]: row for row in found["lines"]}
    assert {name for name, row in lines.items() if row["change"]} == {"lpddr", "nand"}
    shares = lines["lpddr"]["elasticity"]["blended"] + lines["nand"]["elasticity"]["blended"]
    assert found["factor"] == pytest.approx(1.0 + 4.35 * shares) and "HBM is not in it" in found["scenario"]["note"]
    out = run("cost", "whatif", file_of(made("h200")), "--scenario", "memory-435")[1]
    assert "+435%" in out and "Morgan Stanley, May 2026" in out


def test_the_price_of_memory_has_a_date_and_a_part(run: Run, file_of: Callable[[Plan], str]) -> None:
    name = file_of(made("h200"))
    now = {row["kind"]: row for row in answer(run, name)["memory_prices"]}
    then = {row["kind"]: row for row in answer(run, name, "--date", "2025-07-31")["memory_prices"]}
    assert set(now) == {"hbm", "ddr", "ssd"} and now["ssd"]["usd_per_gb"] == 0.357 and then["ssd"]["usd_per_gb"] == 0.1
    other = {row["kind"]: row for row in answer(run, name, "--memory", "hbm4-36gb")["memory_prices"]}
    assert (now["hbm"]["part"], other["hbm"]["part"]) == ("hbm3e-36gb", "hbm4-36gb")
    none = answer(run, name, "--date", "2020-01-01")
    assert {row["price"] for row in none["lines"]} == {"rest", "power"} and "no price" in none["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--price", "foo=3%"), "unknown price 'foo'"),
        (("--price", "hbm=3"), "cannot read 'hbm=3'"),
        (("--price", "hbm=-100%"), "is not above -100%"),
        (("--price", "hbm=+99999999%"), "is not above -100%"),
        (("--price", "hbm=1%", "--price", "hbm=2%"), "given twice"),
        (("--price", "nand=1%", "--scenario", "memory-435"), "given twice"),
        (("--price", "gddr=1%"), "no hardware of the plan has a price of gddr"),
        (("--price", "gpu=1%"), "use rest="),
        (("--scenario", "memory-435", "--date", "2020-01-01"), "has a price of lpddr"),
        (("--memory", "pcie5-x4"), "is not a memory"),
        (("--scenario", "none"), "memory-435"),
    ],
)
def test_bad_changes_are_refused_in_one_line(
    run: Run, file_of: Callable[[Plan], str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refusal(run, file_of(made("h200")), *arguments)


def test_price_bases_are_not_mixed(run: Run, file_of: Callable[[Plan], str]) -> None:
    one, rack = file_of(made("h200")), file_of(made("rack"))
    said = "prices of capex_oem and capex_street are not to be mixed"
    assert said in refusal(run, one, "--against", rack)
    assert said in refusal(run, file_of(made("mixed bases")))
    cost = made("h200").cost.model_copy(update={"basis": "mine"})
    other = file_of(made("h200").model_copy(update={"cost": cost}))
    assert "mine in USD and owned in USD are not to be mixed" in refusal(run, one, "--against", other)


def test_plans_of_other_tokens_are_not_compared(run: Run, file_of: Callable[[Plan], str]) -> None:
    llama = plan("llama-3.1-8b", "h100-node")
    assert "different models or tokens" in refusal(run, file_of(made("h200")), "--against", file_of(llama))


def test_a_damaged_plan_is_refused(run: Run, file_of: Callable[[Plan], str]) -> None:
    found = made("h200")
    for changed in (
        {"usd_per_hour": found.cost.usd_per_hour * 2},
        {"utilisation": 0.5},
        {"input_share": 1.0},
        {"tokens_per_request": {}},
        {"tokens_per_request": {"input_miss": 1e308, "output": 1e308}},
    ):
        damaged = found.model_copy(update={"cost": found.cost.model_copy(update=changed)})
        assert "planner verify" in refusal(run, file_of(damaged))
