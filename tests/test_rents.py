"""Rented hours, colocation, and the lines of a plan's cost: picked, charged, verified, and never mixed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from planner import plan as make_plan
from planner.api import resolve
from planner.cli.schema_command import schema_of
from planner.economics import CAUSES, HourlyCost, owned_hour, stream_costs
from planner.economics.bill import split_by_work
from planner.economics.rented import quote_of
from planner.errors import InputError
from planner.hardware import System, load_hardware
from planner.hardware.lint import lint
from planner.hardware.loader import builtin_profiles, read_profile
from planner.hardware.schema import CapexLine, Rent, RentBasis
from planner.hardware.writer import to_toml
from planner.plans import Plan, verify_plan
from planner.plans.hours import Terms, refuse_mixed_bases, system_cost
from planner.plans.inputs import Inputs, PriceBasis
from planner.plans.read import read_plan
from planner.prices import OwnedPrices, at_site, load_prices
from planner.search import solve
from planner.workload import PrefixCache

Run = Callable[..., tuple[int, str, str]]
NODE, OWNED = small.node(2), load_prices("owned")
ALLOCATIONS = ("miss_only", "all_input", "flops")


def rent(
    usd: float,
    day: str,
    basis: str = "rent_od",
    provider: str = "x",
    per: str = "device",
    span: tuple[float, float] | None = None,
) -> Rent:
    """An offer."""
    low, high = span or (None, None)
    figure = {"value": usd, "low": low, "high": high, "source": "price list", "as_of": day, "grade": "A"}
    row = {"basis": basis, "per": per, "provider": provider, "usd_per_hour": figure}
    return Rent.model_validate(row, context={"si": True})


def offered(*rents: Rent, system: System | None = None) -> System:
    return (system or NODE).model_copy(update={"rents": rents})


# --- which offer counts -------------------------------------------------------------------------------------------


def test_offers_of_the_half_year_up_to_the_date_count() -> None:
    system = offered(rent(2.0, "2025-06-01"), rent(3.0, "2026-06-01"), rent(9.0, "2026-06-01", "rent_1y"))
    assert quote_of(system, "rent_od").usd_per_hour == 6.0  # two devices
    assert quote_of(system, "rent_od", date(2026, 5, 31)).usd_per_hour == 4.0
    assert quote_of(system, "rent_od", date(2026, 6, 1)).usd_per_hour == 6.0
    assert quote_of(system, "rent_1y").usd_per_hour == 18.0


def test_the_newest_offer_is_not_taken_for_being_the_newest() -> None:
    system = offered(rent(6.0, "2026-05-01", provider="a"), rent(5.0, "2026-05-20", provider="b"), rent(2.0, "2026-06-01"))
    found = quote_of(system, "rent_od")
    assert (found.offer.provider, found.usd_per_hour, found.as_of) == ("b", 10.0, date(2026, 5, 20))


def test_the_lower_median_counts_in_any_order() -> None:
    rows = [rent(usd, "2026-06-01", provider=f"p{usd:g}") for usd in (5.0, 2.0, 4.0, 3.0)]
    for order in (rows, rows[::-1], [rows[2], rows[0], rows[3], rows[1]]):
        found = quote_of(offered(*order), "rent_od")
        assert (found.offer.provider, found.usd_per_hour, found.low, found.high, found.offers) == ("p3", 6.0, 4.0, 10.0, 4)


def test_the_interval_spans_the_half_year_before_the_day() -> None:
    system = offered(
        rent(1.0, "2025-12-01", provider="too old"),
        rent(7.0, "2026-03-05", provider="dear"),
        rent(2.0, "2026-09-01", provider="now", span=(1.5, 2.5)),
        rent(8.0, "2026-09-02", provider="later"),
    )
    found = quote_of(system, "rent_od", date(2026, 9, 1))
    assert (found.usd_per_hour, found.low, found.high, found.offers) == (4.0, 3.0, 14.0, 2)


def test_an_hour_of_a_system_and_of_its_devices() -> None:
    whole = offered(rent(30.0, "2026-01-01", per="system"), system=load_hardware("h800-node").system)
    assert quote_of(whole, "rent_od").usd_per_hour == 30.0
    assert quote_of(load_hardware("h800-node").system, "rent_od").usd_per_hour == 16.0  # eight at 2 USD


def test_what_is_not_known_is_refused_in_a_line_that_says_what_is() -> None:
    system = offered(rent(2.0, "2026-01-01"), rent(3.0, "2026-06-01"), rent(1.0, "2026-04-03", "tco"))
    with pytest.raises(InputError, match=r"no price of basis rent_3y; it has owned, rent_od \(2026-01-01 to 2026-06-01\), tco"):
        quote_of(system, "rent_3y")
    with pytest.raises(InputError, match="no rent_od price at or before 2025-12-31; known from 2026-01-01 to 2026-06-01"):
        quote_of(system, "rent_od", date(2025, 12, 31))
    with pytest.raises(InputError, match=r"owned alone; add \[\[rent\]\]"):
        quote_of(offered(), "tco")
    with pytest.raises(InputError, match="2027-01-01 lies after 2026-11-22; prices are known until then"):
        Terms(load_prices("owned"), "rent_od", date(2027, 1, 1)).quote(system)


def test_every_basis_has_a_name_and_only_rents_are_offered() -> None:
    assert set(get_args(PriceBasis)) == {"owned", *get_args(RentBasis)}


def test_the_offers_of_the_catalogue() -> None:
    """Each has its source and day; those that their source calls placeholders are grade D and say so."""
    found = {p.id: p for p in builtin_profiles() if isinstance(p, System) and p.rents}
    assert {"h100-node", "h200-node", "b200-node", "gb200-nvl72", "mi300x-node", "h800-node"} <= set(found)
    for system in ("b300-node", "gb300-nvl72"):
        rows = [row for row in found[system].rents if "InferenceX" in row.usd_per_hour.source]
        assert len(rows) == 3 and all(row.usd_per_hour.grade == "D" and "placeholder" in row.usd_per_hour.note for row in rows)
    sheet = {"h100-node": (1.30, 1.69, 1.30), "mi355x-node": (1.48, 1.90, 2.10), "gb200-nvl72": (2.21, 2.75, 3.3)}
    for system, each in sheet.items():
        rows = [row for row in found[system].rents if "InferenceX" in row.usd_per_hour.source]
        assert tuple(row.usd_per_hour.value for row in rows) == each
    assert found["h100-node"].rents != load_hardware("h800-node").system.rents  # another device, other rents


# --- hours by hand ------------------------------------------------------------------------------------------------


def test_a_rented_hour_has_one_cause() -> None:
    system = offered(rent(2.5, "2026-01-01", span=(2.0, 4.0)))
    terms = Terms(load_prices("owned"), "rent_od")
    assert terms.hour(system) == HourlyCost(rent=5.0) and terms.hour(system).total == 5.0
    assert terms.name == "rent_od" and Terms(load_prices("owned")).name == "owned"


def colocated(usd: float = 150.0, **changes: Any) -> OwnedPrices:
    figure = {"low": 100.0, "high": 250.0, "source": "s", "as_of": "2026-11-01", "grade": "C"}
    data = load_prices("owned").model_dump(mode="json", exclude={"electricity"}) | changes
    return OwnedPrices.model_validate(data | {"id": "colo", "colocation": figure | {"value": usd}}, context={"si": True})


def test_colocation_by_hand() -> None:
    case: dict[str, Any] = {
        "capex_usd": 0.0, "power_w": 10_000.0, "cost_of_capital": 0.0, "life_years": 5.0, "residual_value": 0.0,
        "installation": 0.0, "maintenance": 0.0, "staff": 0.0, "usd_per_kwh": 0.5, "power_utilisation": 0.5, "pue": 1.4,
    }  # fmt: skip
    # 10 kW at 146 USD a month of 730 hours: 2 USD; the meter is not read
    assert owned_hour(**case, usd_per_kw_month=146.0) == HourlyCost(colocation=2.0)
    system = load_hardware("h800-node").system
    hour, usual = Terms(colocated()).hour(system), Terms(load_prices("owned")).hour(system)
    assert hour.colocation == pytest.approx(10.2 * 150 / 730) and hour.electricity == 0.0
    assert (hour.capital, hour.maintenance, hour.staff) == (usual.capital, usual.maintenance, usual.staff)


@given(usd=st.floats(1e-2, 1e3), factor=st.floats(0.1, 1e2), devices=st.integers(1, 64))
def test_law_3_scaling_a_rent_scales_the_hour(usd: float, factor: float, devices: int) -> None:
    system, terms = NODE.model_copy(update={"devices": devices}), Terms(OWNED, "rent_od")
    one = terms.hour(offered(rent(usd, "2026-01-01"), system=system)).total
    other = terms.hour(offered(rent(usd * factor, "2026-01-01"), system=system)).total
    assert other == pytest.approx(one * factor, rel=1e-12) and one == pytest.approx(usd * devices, rel=1e-12)


def test_deepseeks_day() -> None:
    """deepseek-ai/open-infra-index day 6: 226.75 nodes of eight H800 at 2 USD, 608 G tokens in (342 G hits), 168 G out."""
    hour = Terms(load_prices("owned"), "rent_od").hour(load_hardware("h800-node").system).total
    hours = split_by_work(226.75 * 24, {"prefill": 608e9 / 73.7e3 / 3600, "decode": 168e9 / 14.8e3 / 3600})
    usd = {pool: part * hour for pool, part in hours.items()}
    assert sum(usd.values()) == pytest.approx(87_072, rel=1e-9)
    each = stream_costs(
        input_usd=usd["prefill"], output_usd=usd["decode"], hit_tokens=342e9, miss_tokens=266e9, output_tokens=168e9,
        allocation="miss_only",
    )  # fmt: skip
    assert each.input_miss == pytest.approx(0.1378, abs=5e-5) and each.output == pytest.approx(0.3000, abs=5e-4)
    assert 562_100 / (sum(usd.values())) - 1 == pytest.approx(5.456, abs=1e-3)


# --- plans --------------------------------------------------------------------------------------------------------

OFFERS = (rent(2.5, "2026-01-01", provider="a", span=(2.0, 4.0)), rent(1.5, "2026-02-01", "rent_1y"))


@cache
def rented_inputs(allocation: str = "miss_only", **options: Any) -> Inputs:
    load = small.workload(ttft_s=0.003, tpot_s=0.001, hit=0.25)
    choice: dict[str, Any] = {"price_basis": "rent_od"} | options
    return small.instance(
        small.llama(), offered(*OFFERS, system=small.node(2, 1, 20e6)), 2, load, small.runtime(4, (64, 256)),
        allocation=allocation, **choice,
    )  # fmt: skip


@cache
def rented(**options: Any) -> Plan:
    return solve(rented_inputs(**options))


@cache
def kept(basis: str = "rent_od") -> Plan:
    """A plan with a prefix cache in two memories, the host's with a price of its own where it is owned."""
    points = {"curve": ((1.0, 0.4),), "source": "made up", "as_of": date(2026, 11, 22), "grade": "D"}
    load = small.workload(isl=2000, osl=4).model_copy(update={"prefix_cache": PrefixCache.model_validate(points)})
    system = small.node(1, 1, 60e6, 100e6)
    tenth = system.capex.model_copy(update={"value": system.capex.value / 10, "low": None, "high": None, "grade": "A"})
    lines = (CapexLine(id="host", name="host memory", capex=tenth),)
    system = system.model_copy(update={"rents": OFFERS, "capex_lines": lines})
    software = small.runtime(4, (64, 1024), disaggregated=False)
    return solve(small.instance(small.llama(), system, 1, load, software, tiers=("hbm", "host"), price_basis=basis))


def test_a_rented_plan_costs_its_rent() -> None:
    plan, cost = rented(), rented().cost
    assert cost.basis == "rent_od" and cost.as_of == "2026-01-01" and cost.capital == []
    assert cost.usd_per_hour == pytest.approx(2.5 * cost.devices_paid)
    assert cost.rents is not None and [row.provider for row in cost.rents] == ["a"]
    span = cost.rents[0].usd_per_hour
    assert (span.low, span.expected, span.high) == (4.0, 5.0, 8.0)
    assert set(cost.defaults) == {"utilisation"}
    assert all(set(line.by_cause) == {"rent"} for line in cost.lines)
    assert plan.provenance["lowest_grade"] in "ABCD"
    figures = [figure for row in plan.provenance["sources"] for figure in row["figures"]]
    assert any("rents" in figure for figure in figures) and not any("capex" in figure for figure in figures)


def test_the_interval_of_the_price_moves_with_the_rent_alone() -> None:
    """With the same throughput the interval is as wide as rents lie apart, in quadrature with what moves the tokens."""
    exact = offered(rent(2.5, "2026-01-01"), system=rented_inputs().hardware["mixed"].system)
    inputs = rented_inputs()
    pools = {"mixed": inputs.hardware["mixed"].model_copy(update={"system": exact})}
    sure, unsure = solve(inputs.model_copy(update={"hardware": pools})).cost.blended_interval, rented().cost.blended_interval
    assert sure.expected == unsure.expected and sure.high and unsure.high and sure.low and unsure.low
    more = math.log(unsure.high / unsure.expected) ** 2 - math.log(sure.high / sure.expected) ** 2
    less = math.log(unsure.low / unsure.expected) ** 2 - math.log(sure.low / sure.expected) ** 2
    assert more == pytest.approx(math.log(4.0 / 2.5) ** 2) and less == pytest.approx(math.log(2.0 / 2.5) ** 2)


def test_owned_and_rented_differ_in_money_alone() -> None:
    one, other = rented(), rented(price_basis="rent_1y")
    assert other.prediction == one.prediction
    assert other.cost.usd_per_million.blended == pytest.approx(one.cost.usd_per_million.blended * 1.5 / 2.5, rel=1e-9)
    owned = rented(price_basis="owned")
    assert owned.cost.rents is None and owned.cost.capital and owned.cost.basis == "owned"
    assert set(owned.cost.lines[0].by_cause) == {"capital", "electricity", "maintenance", "staff"}
    assert not any("rents" in figure for row in owned.provenance["sources"] for figure in row["figures"])


def test_the_worst_case_pays_the_highest_rent() -> None:
    plan = rented(robust="intervals")
    assert plan.worst_case is not None and verify_plan(plan)[0] == []
    assert plan.worst_case.usd_per_hour == pytest.approx(plan.cost.usd_per_hour * 4.0 / 2.5)


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("basis", ["rent_od", "owned"])
def test_law_8_lines_and_streams_sum_to_the_cost(basis: str, allocation: str) -> None:
    for plan in (rented(allocation=allocation, price_basis=basis), rented(allocation=allocation, price_basis=basis, devices=1)):
        cost, hour = plan.cost, plan.cost.usd_per_hour
        assert sum(line.usd_per_hour for line in cost.lines) == pytest.approx(hour, rel=1e-9)
        assert sum(line.devices for line in cost.lines) == cost.devices_paid
        for line in cost.lines:
            assert sum(line.by_cause.values()) == pytest.approx(line.usd_per_hour, rel=1e-9)
        rate = plan.prediction.requests_per_s * 3600 * cost.utilisation
        tokens = {name: each * rate for name, each in cost.tokens_per_request.items()}
        prices = cost.usd_per_million.model_dump()
        streams = sum(tokens[name] * (prices[name] or 0.0) / 1e6 for name in tokens)
        assert streams == pytest.approx(hour, rel=1e-9)


def test_idle_and_spare_devices_have_lines_of_their_own() -> None:
    system = offered(*OFFERS, system=small.node(4, 4, 20e6))
    load = small.workload(ttft_s=0.003, tpot_s=0.001)
    inputs = small.instance(
        small.llama(), system, 2, load, small.runtime(4, (64, 256)), price_basis="rent_od", spare=1, spare_of="unit", devices=6
    )
    found = solve(inputs)
    lines = {line.pool: line for line in found.cost.lines}
    assert found.idle_devices and lines["spare"].devices + (lines["idle"].devices if "idle" in lines else 0) == found.idle_devices
    assert sum(line.usd_per_hour for line in lines.values()) == pytest.approx(found.cost.usd_per_hour, rel=1e-9)
    assert verify_plan(found)[0] == []


def test_a_cache_is_a_share_of_its_pools_line_and_is_not_charged_again() -> None:
    for basis in ("rent_od", "owned"):
        plan = kept(basis)
        assert plan.prefix_cache and verify_plan(plan)[0] == []
        line = plan.cost.lines[0]
        parts = {part.tier: part for part in line.of_which or ()}
        assert {part.tier: part.bytes for part in line.of_which or ()} == {t.tier: t.bytes for t in plan.prefix_cache[0].tiers}
        assert sum(each.usd_per_hour for each in plan.cost.lines) == pytest.approx(plan.cost.usd_per_hour, rel=1e-9)
        for part in parts.values():
            assert 0.0 < part.share <= 1.0 + 1e-9
            if basis == "owned" and part.tier == "host":
                recurring = line.by_cause["capital"] + line.by_cause["maintenance"] + line.by_cause["staff"]
                assert part.usd_per_hour == pytest.approx(recurring / 10 * part.share) and part.reason == ""
            else:
                assert part.usd_per_hour is None and part.reason


@pytest.mark.parametrize("name", ["rented", "kept"])
def test_law_2_every_number_of_the_cost_is_checked(name: str) -> None:
    plan = rented() if name == "rented" else kept("owned")
    assert verify_plan(plan)[0] == []
    data = plan.to_data()
    count = 0
    shown = {key: data["cost"][key] for key in ("lines", "rents") if key in data["cost"]}
    for path, value in small.leaves({"cost": shown}):
        if name == "kept" and "of_which" not in path:
            continue
        changed = value + 1 if isinstance(value, int) else value * (1 + 1e-6) if value else 1e-6
        violations = verify_plan(Plan.model_validate(small.changed(data, path, changed)))[0]
        assert violations and violations[0].path.startswith("cost."), path
        count += 1
    assert count >= 5
    for path, text in ((("cost", "basis"), "owned!"), (("cost", "lines", 0, "pool"), "spare"), (("cost", "as_of"), "2026-01-02")):
        assert verify_plan(Plan.model_validate(small.changed(data, path, text)))[0], path


def test_a_changed_offer_is_refused() -> None:
    data = rented().to_data()
    for key, value in (("value", 2.6), ("high", 4.1), ("as_of", "2025-12-31")):
        path = ("inputs", "hardware", "mixed", "system", "rents", 0, "usd_per_hour", key)
        assert verify_plan(Plan.model_validate(small.changed(data, path, value)))[0], key


def test_a_plan_comes_back_from_its_file() -> None:
    dated = rented(price_date=date(2026, 1, 15))
    assert dated.cost == rented().cost and verify_plan(dated)[0] == []
    for plan in (dated, kept("owned")):
        again = read_plan(plan.to_json(), "plan.json")
        assert again == plan and again.to_json() == plan.to_json()
        jsonschema.validate(plan.to_data(), schema_of("plan"), jsonschema.Draft202012Validator)


def test_separate_pools_need_the_basis_both() -> None:
    with pytest.raises(InputError, match="h20-node has no price of basis rent_od"):
        resolve("llama-3.1-8b", "prefill=h800-node,decode=h20-node", prices="rent_od")
    inputs = resolve("llama-3.1-8b", "prefill=h100-node,decode=h200-node", prices="tco", price_date=date(2026, 4, 3))
    assert (inputs.options.price_basis, inputs.prices.id) == ("tco", "owned")


# --- the command line ---------------------------------------------------------------------------------------------


def refusal(run: Run, *arguments: object) -> str:
    code, _, err = run(*arguments)
    assert code == 2 and err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("h800-node", "--price-basis", "rent_3y"), "no price of basis rent_3y; it has owned, rent_od (2025-02-28)"),
        (("h20-node", "--price-basis", "tco"), "h20-node has no price of basis tco"),
        (("h800-node", "--price-basis", "rent_od", "--price-date", "2024-01-01"), "no rent_od price at or before 2024-01-01"),
        (("h800-node", "--price-basis", "rent_od", "--price-date", "2027-01-01"), "2027-01-01 lies after 2026-11-22"),
        (("h800-node", "--price-date", "2026-01-01"), "leave out --price-date"),
        (("h800-node", "--price-basis", "rent_od", "--price-date", "soon"), "is no date"),
        (("h800-node", "--price-basis", "rent_5y"), "unknown price basis 'rent_5y'; did you mean rent_"),
        (("h800-node", "--price-basis", "tcp"), "unknown price basis 'tcp'; did you mean tco"),
        (("h800-node", "--price-basis", "rent_od", "--site", "cn-west-hub"), "a rented hour has a site's electricity in it"),
    ],
)
def test_bad_terms_are_refused_in_one_line(run: Run, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = run("plan", "llama-3.1-8b", *arguments)
    assert code == 2 and said in err and not out and "Traceback" not in err


def test_an_inventory_says_itself_what_it_pays(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "inventory.toml"
    assert run("init", "inventory", path)[0] == 0
    said = refusal(run, "plan", "llama-3.1-8b", "--inventory", path, "--price-basis", "rent_od")
    assert "the pools of an inventory say how they are paid for" in said


@pytest.fixture
def files(tmp_path: Path) -> Callable[[Plan], Path]:
    def write(plan: Plan) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(plan.to_json(), encoding="utf-8")
        return path

    return write


@cache
def real(basis: str) -> Plan:
    return make_plan("llama-3.1-8b", "h100-node", prices=basis, gap=0.05)


def test_bases_are_mixed_only_where_that_is_asked(run: Run, files: Callable[[Plan], Path]) -> None:
    one, other = files(real("rent_od")), files(real("owned"))
    said = refusal(run, "cost", "whatif", one, "--against", other)
    assert "prices of owned in USD and rent_od in USD are not to be mixed" in said and "--convert-basis" in said
    with pytest.raises(InputError, match="not to be mixed"):
        refuse_mixed_bases([("a", real("rent_od")), ("b", real("owned"))])
    refuse_mixed_bases([("a", real("owned")), ("b", real("owned"))])
    for first, second in ((one, other), (other, one)):
        code, out, _ = run("cost", "whatif", first, "--against", second, "--convert-basis", "--format", "json")
        data = json.loads(out)
        jsonschema.validate(data, schema_of("cost-whatif"), jsonschema.Draft202012Validator)
        assert code == 0 and data["against"]["ratio"] == pytest.approx(1.0)  # the same deployment, priced alike
        assert any("priced anew" in note for note in data["notes"])
    assert run("cost", "whatif", one, "--convert-basis")[0] == 2


def test_whatif_moves_the_rent_of_a_rented_plan(run: Run, files: Callable[[Plan], Path]) -> None:
    path = files(real("rent_od"))
    code, out, _ = run("cost", "whatif", path, "--price", "rent=-20%", "--format", "json")
    data = json.loads(out)
    jsonschema.validate(data, schema_of("cost-whatif"), jsonschema.Draft202012Validator)
    assert code == 0 and data["factor"] == pytest.approx(0.8) and data["capex_basis"] is None
    assert [(row["price"], row["elasticity"]["blended"]) for row in data["lines"]] == [("rent", pytest.approx(1.0))]
    assert "has a price of hbm; it has rent" in refusal(run, "cost", "whatif", path, "--price", "hbm=+10%")
    owned = files(real("owned"))
    assert "has a price of rent" in refusal(run, "cost", "whatif", owned, "--price", "rent=+10%")


def test_a_rented_fleet_buys_nothing(run: Run, files: Callable[[Plan], Path]) -> None:
    code, out, _ = run("fleet", files(real("rent_od")), "--tokens-per-day", "1e12", "--format", "json")
    data = json.loads(out)
    assert code == 0 and data["installed_capex_usd"] == 0.0
    by_cause = data["usd_per_day_by_cause"]
    assert by_cause["rent"] == pytest.approx(data["usd_per_day"]["expected"]) and set(by_cause) <= set(CAUSES)
    assert sum(by_cause.values()) == pytest.approx(by_cause["rent"])


def test_a_rented_plan_is_told(run: Run, files: Callable[[Plan], Path]) -> None:
    path = files(real("rent_od"))
    assert run("verify", path)[0] == 0
    code, out, _ = run("explain", path)
    assert code == 0 and "What an hour costs, USD" in out and "rent" in out
    code, out, _ = run("plan", "--from", path, "--gap", "0.05", "--format", "json", "--quiet")
    assert code == 0 and json.loads(out)["cost"]["basis"] == "rent_od"


def test_rents_are_listed_and_shown(run: Run) -> None:
    rows = [row for row in json.loads(run("list", "prices", "--format", "json")[1]) if row["id"] == "h800-node"]
    found = [(row["kind"], row["usd_per_hour"], row["per"], row["as_of"]) for row in rows]
    assert found == [("rent_od", 2.0, "device", "2025-02-28")]
    assert "rent_od" in run("list", "prices")[1]
    out = run("show", "hardware", "h800-node")[1]
    assert "rents, USD an hour" in out and "assumed by DeepSeek" in out
    assert len(json.loads(run("show", "hardware", "h100-node", "--format", "json")[1])["rents"]) == 12


def test_rents_are_listed_as_plans_have_them(run: Run, tmp_path: Path) -> None:
    """Of a profile that inherits them, of none that hides another, and not of one that cannot be read."""

    def listed() -> set[str]:
        return {row["id"] for row in json.loads(run("list", "prices", "--profiles", tmp_path, "--format", "json")[1])}

    heir = profile(tmp_path)
    assert {"mine", "h800-node", "h100-node"} <= listed()
    hiding = heir.read_text(encoding="utf-8").replace('"mine"', '"h100-node"') + 'device = "h200-sxm"\n'
    (tmp_path / "h100-node.toml").write_text(hiding, encoding="utf-8")
    heir.write_text(heir.read_text(encoding="utf-8") + "devices = 0\n", encoding="utf-8")
    assert load_hardware("h100-node", folders=[tmp_path]).system.rents == ()
    assert "h800-node" in listed() and not {"mine", "h100-node"} & listed()


# --- profiles and price files -------------------------------------------------------------------------------------

ROW = """
[[rent]]
basis = "rent_od"
per = "device"
provider = "mine"
usd_per_hour = {{ value = "{}", source = "contract", as_of = {}, grade = "A" }}
"""


def profile(tmp_path: Path, *rows: tuple[str, str], extra: str = "") -> Path:
    path = tmp_path / "mine.toml"
    text = 'schema = 1\nkind = "node"\nid = "mine"\nextends = "h800-node"\n' + extra
    path.write_text(text + "".join(ROW.format(*row) for row in rows), encoding="utf-8")
    return path


def test_a_profiles_own_rents_replace_those_it_extends(tmp_path: Path) -> None:
    path = profile(tmp_path, ("1.8 USD/h", "2026-10-01"))
    system = load_hardware(path).system
    assert quote_of(system, "rent_od").usd_per_hour == pytest.approx(14.4) and len(system.rents) == 1
    assert lint(path, today=date(2026, 11, 22)) == []
    assert load_hardware(profile(tmp_path)).system.rents == load_hardware("h800-node").system.rents
    assert load_hardware(profile(tmp_path, extra='device = "h200-sxm"\n')).system.rents == ()


def test_a_profile_with_rents_comes_back_from_its_text(tmp_path: Path) -> None:
    for name in ("h100-node", "gb300-nvl72"):
        system = load_hardware(name).system
        path = tmp_path / f"{name}.toml"
        path.write_text(to_toml(system), encoding="utf-8")
        assert read_profile(path) == system
        assert System.model_validate(system.model_dump(mode="json"), context={"si": True}) == system


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("-2 USD/h", "2026-10-01")], "must be above 0"),
        ([("0 USD/h", "2026-10-01")], "must be above 0"),
        ([("1e9 USD/h", "2026-10-01")], "too much"),
        ([("14 RMB/h", "2026-10-01")], "unknown unit 'RMB/h'"),
        ([("2 USD", "2026-10-01")], "unknown unit 'USD'"),
        ([("2 USD/h", "2026-12-01")], "later than the profile's own as_of"),
        ([("2 USD/h", "2026-10-01"), ("3 USD/h", "2026-10-01")], "is used twice"),
    ],
)
def test_bad_rents_are_refused_in_one_line(run: Run, tmp_path: Path, rows: list[tuple[str, str]], said: str) -> None:
    path = profile(tmp_path, *rows)
    assert said in refusal(run, "plan", "llama-3.1-8b", path, "--price-basis", "rent_od")
    code, out, err = run("lint", path)
    assert code == 4 and said.split("'")[0] in out + err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('basis = "rent_od"', 'basis = "rent_2y"', "rent.0.basis"),
        ('per = "device"', 'per = "rack"', "rent.0.per"),
        ("[[rent]]", "[[rents]]", "write [[rent]]"),
        ('value = "2 USD/h", source = "contract"', 'unknown = "secret"', "an unknown figure has only unknown, as_of"),
        (
            'value = "2 USD/h", source = "contract", as_of = 2026-10-01, grade = "A"',
            'unknown = "secret", as_of = 2026-10-01',
            "nobody has published",
        ),
        ('grade = "A"', 'grade = "C"', "needs an interval"),
    ],
)
def test_rows_that_are_none_are_refused(run: Run, tmp_path: Path, old: str, new: str, said: str) -> None:
    path = profile(tmp_path, ("2 USD/h", "2026-10-01"))
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    assert said in refusal(run, "plan", "llama-3.1-8b", path, "--price-basis", "rent_od")


def test_a_price_far_from_all_others_is_found(tmp_path: Path) -> None:
    """The price of a node where that of a device belongs."""
    found = lint(profile(tmp_path, ("300 USD/h", "2026-10-01")), today=date(2026, 11, 22))
    assert any("usd_per_hour" in fault.key for fault in found)


def test_prices_pay_electricity_or_colocation(run: Run, tmp_path: Path) -> None:
    colo = colocated()
    assert OwnedPrices.model_validate(colo.model_dump(mode="json"), context={"si": True}) == colo
    with pytest.raises(ValueError, match="give either it or colocation"):
        colocated(electricity=load_prices("owned").electricity)
    with pytest.raises(ValueError, match="give either it or colocation"):
        OwnedPrices.model_validate(colo.model_dump(exclude={"colocation"}), context={"si": True})
    from planner.hardware import load_site

    with pytest.raises(InputError, match="pays colocation, which has electricity in it"):
        at_site(colo, load_site("cn-west-hub"))
    path = tmp_path / "colo.toml"
    usual = (Path(load_prices.__code__.co_filename).parent / "catalogue" / "owned.toml").read_text(encoding="utf-8")
    lines = [line for line in usual.splitlines() if not line.startswith("electricity")]
    row = 'colocation = { value = "150 USD/kW-month", source = "contract", as_of = 2026-11-01, grade = "A" }'
    path.write_text("\n".join([*lines, row]).replace('id = "owned"', 'id = "colo"'), encoding="utf-8")
    ask = ("plan", "llama-3.1-8b", "h100-node", "--price-basis", path)
    code, out, err = run(*ask, "--gap", "0.05", "--format", "json", "--quiet")
    assert code == 0, err
    plan = Plan.model_validate_json(out)
    assert plan.cost.basis == "colo" and "electricity" not in plan.cost.defaults
    line = plan.cost.lines[0]
    assert line.by_cause["colocation"] == pytest.approx(10.2 * line.devices / 8 * 150 / 730)
    assert verify_plan(plan)[0] == []
    for value in ("-5 USD/kW-month", "5 USD", "1e9 USD/kW-month"):
        path.write_text("\n".join([*lines, row.replace("150 USD/kW-month", value)]).replace('id = "owned"', 'id = "colo"'))
        assert "colocation" in refusal(run, "plan", "llama-3.1-8b", "h100-node", "--price-basis", path)


def test_a_rented_plan_says_what_owning_costs(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path, system = tmp_path / "rented.json", load_hardware("h100-node").system
    path.write_text(make_plan("llama-3.1-8b", "h100-node:1", price_basis="rent_od").to_json())
    code, out, _ = run("cost", "whatif", path, "--format", "json")
    note = next(note for note in json.loads(out)["notes"] if "owning" in note)
    owned = system_cost(system, OWNED, system.capex.value).total
    assert code == 0 and f"{quote_of(system, 'rent_od').usd_per_hour / owned:.3g} times" in note
    assert f"{owned / 8:.4g} USD an hour of a device" in note
