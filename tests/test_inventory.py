"""Fleets on an inventory: the integer program and whole fleets against brute force, limits, prices, files, the command."""

from __future__ import annotations

import itertools
import json
import math
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from click.testing import CliRunner

from planner.api import plan_mix as plan_fleet
from planner.cli.init_command import command as init
from planner.cli.plan_command import command
from planner.cli.schema_command import schema_of
from planner.errors import InfeasibleError, InputError, StoppedError
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.mix import Mix
from planner.plans.transition import restricted
from planner.prices.inventory import Inventory, blank_inventory, load_inventory
from planner.reporter import Reporter
from planner.search import Stop, solve
from planner.search.fleet_master import Option, choose_fleet
from planner.search.mix import Budget, Offer, offer_of, plan_mix, search_sizes

DAY = date(2026, 11, 1)


# --- the integer program -------------------------------------------------------------------------------------------


def brute(options: list[Option], limits: list[float], demand: float | None) -> tuple[float, float] | None:
    """``(USD an hour, requests/s)`` of the best fleet, every one tried."""
    best: tuple[float, float] | None = None
    for counts in itertools.product(range(6), repeat=len(options)):
        used = [sum(n * o.uses[i] for n, o in zip(counts, options, strict=True)) for i in range(len(limits))]
        if any(u > limit * (1 + 1e-9) for u, limit in zip(used, limits, strict=True)):
            continue
        cost = sum(n * o.usd_per_hour for n, o in zip(counts, options, strict=True))
        rate = sum(n * o.rate for n, o in zip(counts, options, strict=True))
        if demand is not None and rate < demand * (1 - 1e-9):
            continue
        rank = (cost, 0.0) if demand is not None else (-rate, cost)
        if rate > 0.0 and (best is None or rank < ((best[0], 0.0) if demand is not None else (-best[1], best[0]))):
            best = (cost, rate)
    return best


def some_options(rng: np.random.Generator) -> tuple[list[Option], list[float]]:
    pools = int(rng.integers(1, 3))
    price, weight = rng.random(pools) * 10 + 0.1, rng.random(pools)
    limits = [*(float(n) for n in rng.integers(1, 5, pools)), float(rng.random() * 3 + 0.1)]
    options = []
    for pool in range(pools):
        for units in range(1, int(rng.integers(2, 4))):
            uses = (*(units * float(other == pool) for other in range(pools)), units * float(weight[pool]))
            rate = float(rng.choice([0.0, rng.random() * units, units / 3.0]))
            options.append(Option(pool, units, rate, units * float(price[pool]), uses))
    return options, limits


@pytest.mark.parametrize("seed", range(5))
def test_the_integer_program_against_brute_force(seed: int) -> None:
    """500 small mixes, for a demand and for the most requests/s."""
    rng = np.random.default_rng(seed)
    feasible = 0
    for _ in range(50):
        options, limits = some_options(rng)
        for demand in (None, float(rng.random() * 3 + 0.01)):
            wanted, found = brute(options, limits, demand), choose_fleet(options, limits, demand)
            assert (found is None) == (wanted is None)
            if found is None or wanted is None:
                continue
            feasible += 1
            cost = sum(n * o.usd_per_hour for n, o in zip(found.counts, options, strict=True))
            rate = sum(n * o.rate for n, o in zip(found.counts, options, strict=True))
            if demand is None:
                assert (rate, cost) == (pytest.approx(wanted[1]), pytest.approx(wanted[0]))
                assert found.bound >= wanted[1] * (1 - 1e-9) and found.bound == pytest.approx(wanted[1])
            else:
                assert cost == pytest.approx(wanted[0])
                assert found.bound <= wanted[0] * (1 + 1e-9) and found.bound == pytest.approx(wanted[0], rel=1e-6)
    assert feasible > 40


DEARER = (0.5, 1e-3, 1e-7, 1e-9, 1e-10, 1e-12)
"""By how much the second of two identical pools costs more."""


@pytest.mark.parametrize("dearer", DEARER)
def test_law_7_a_dearer_identical_pool_that_is_not_needed_holds_nothing(dearer: float) -> None:
    """Random mixes of two identical pools and a third: where the fleet without the dearer one is as good to 1e-9."""
    idle = used = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        cheap = float(rng.random() * 10 + 0.1)
        last = int(rng.integers(2))  # the dearer pool is named first or second
        prices = [cheap, cheap * (1.0 + dearer)][:: 1 if last else -1] + [float(rng.random() * 10 + 0.1)]
        rates = [[float(rng.random() * units) for units in (1, 2)] for _ in range(2)]
        limits = [float(rng.integers(1, 5)) for _ in prices]
        options = [
            Option(pool, units, rates[pool == 2][units - 1], units * price, tuple(units * float(o == pool) for o in range(3)))
            for pool, price in enumerate(prices)
            for units in (1, 2)
        ]
        rest = [option for option in options if option.pool != last]
        for demand in (None, float(rng.random() * 4 + 0.01)):
            whole, less = choose_fleet(options, limits, demand), choose_fleet(rest, limits, demand)
            if whole is None:
                continue
            held = sum(count for count, option in zip(whole.counts, options, strict=True) if option.pool == last)
            values = [
                0.0 if fleet is None else sum(n * (o.rate if demand is None else o.usd_per_hour)
                                              for n, o in zip(fleet.counts, of, strict=True))
                for fleet, of in ((whole, options), (less, rest))
            ]  # fmt: skip
            if less is not None and abs(values[0] - values[1]) <= 1e-9 * values[1]:
                idle += 1
                assert held == 0, (seed, demand, whole.counts)
            used += held > 0
    assert idle >= 10 and used >= 5


# --- whole fleets --------------------------------------------------------------------------------------------------


def inventory(*pools: dict[str, Any], limit: list[dict[str, Any]] | None = None) -> Inventory:
    rows = [{"hardware": "x", "region": "r", **pool} for pool in pools]
    return Inventory.model_validate({"schema": 1, "id": "test", "as_of": DAY, "pool": rows, "limit": limit or []})


def rent(usd: float) -> dict[str, Any]:
    return {"usd_per_hour": usd, "basis": "rent_od", "as_of": DAY}


FAST = small.node(2, 1, 60e6)
SLOW = small.node(1, 1, 30e6, host_bytes_per_s=20e9)


def offers_on(known: Inventory, systems: list[Any], model: Any, **changes: Any) -> list[Offer]:
    software = small.runtime(3, (64,))
    found = []
    for pool, system in zip(known.pool, systems, strict=True):
        load = changes.get("load", small.workload())
        found.append(offer_of(pool, small.instance(model, system, pool.systems, load, software)))
    return found


@cache
def rate_of(offer_key: tuple[int, int], units: int) -> float:
    """Most requests/s on so many units, by planning for them alone."""
    inside = restricted(OFFERS[offer_key].inputs, (f"units={units}",))
    assert inside is not None
    try:
        return solve(inside).prediction.capacity_requests_per_s
    except InfeasibleError:
        return 0.0


KNOWN = inventory(
    {"id": "rented", "count": 2, "price": rent(40.0)},
    {"id": "bought", "count": 3, "capex": 20_000.0},
    limit=[{"region": "r", "systems": 4}],
)
OFFERS = {(0, i): offer for i, offer in enumerate(offers_on(KNOWN, [FAST, SLOW], small.llama()))}


def fleets() -> list[tuple[tuple[int, int], float]]:
    """``(units of each pool, requests/s)`` of the best split of every number of units into deployments."""
    best = []
    for index in (0, 1):
        units = OFFERS[0, index].units
        rates = [0.0] + [rate_of((0, index), n) for n in range(1, units + 1)]
        for n in range(1, units + 1):
            rates[n] = max([rates[n], *(rates[k] + rates[n - k] for k in range(1, n))])
        best.append(rates)
    return [((a, b), best[0][a] + best[1][b]) for a in range(len(best[0])) for b in range(len(best[1])) if a / 2 + b <= 4]


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9, 0.999])
@pytest.mark.parametrize("capital", [None, 25_000.0])
def test_fleets_against_brute_force(part: float, capital: float | None) -> None:
    offers = list(OFFERS.values())

    def cost(units: tuple[int, int]) -> float:
        return sum(n * offer.usd_per_unit_hour for n, offer in zip(units, offers, strict=True))

    inside = [(u, r) for u, r in fleets() if capital is None or u[1] * offers[1].capital_per_unit <= capital]
    most = max(rate for _, rate in inside)
    demand = part * most
    least = min(cost(units) for units, rate in inside if rate >= demand)
    found = plan_mix(KNOWN, offers, demand, Budget(capital))
    assert found.objective == "cost" and found.proved
    assert found.value <= least * (1 + found.gap + 1e-9) and found.bound <= least * (1 + 1e-9)
    assert found.requests_per_s >= demand * (1 - 1e-9)
    assert found.usd_per_hour == pytest.approx(cost((found.pools[0].units, found.pools[1].units)))
    rated = plan_mix(KNOWN, offers, None, Budget(capital))
    assert (
        rated.objective == "rate" and rated.requests_per_s == pytest.approx(most, rel=0.006) and rated.bound >= most * (1 - 1e-9)
    )


@pytest.mark.parametrize("dearer", [1e-3, 1e-10])
@pytest.mark.parametrize("first", [True, False])
def test_law_7_a_whole_fleet_leaves_a_dearer_identical_pool_alone(dearer: float, first: bool) -> None:
    """As long as the cheaper pool serves the demand; beyond that it takes both."""
    prices = [40.0, 40.0 * (1.0 + dearer)][:: 1 if first else -1]
    rented = [{"id": f"pool-{number}", "count": 2, "price": rent(price)} for number, price in enumerate(prices)]
    known = inventory(*rented)
    offers = offers_on(known, [FAST, FAST], small.llama())
    cheap = 0 if first else 1
    alone = plan_mix(known, offers, None, Budget(usd_per_hour=81.0)).requests_per_s
    for part, both in ((0.2, False), (0.6, False), (0.99, False), (1.2, True)):
        units = [pool.units for pool in plan_mix(known, offers, part * alone, Budget()).pools]
        assert units[cheap] > 0 and (units[1 - cheap] > 0) is both


def test_every_number_of_units_is_within_its_bound() -> None:
    """Sizes between those searched, and the whole of what a plan on each of them reaches."""
    known = inventory({"id": "many", "count": 11, "price": rent(1.0)})
    offer = offers_on(known, [SLOW], small.llama())[0]
    searched = search_sizes(offer, Reporter(), Stop())
    assert {1, 2, 3, 4, 5, 6, 7, 8, 11} <= {size.units for size in searched.sizes}
    for size in searched.every(11):
        inside = restricted(offer.inputs, (f"units={size.units}",))
        assert inside is not None
        assert solve(inside).prediction.capacity_requests_per_s <= size.bound * (1 + 1e-9)


def test_the_parts_of_a_fleet_add_up() -> None:
    found = plan_mix(KNOWN, list(OFFERS.values()), None, Budget())
    assert sum(pool.share for pool in found.pools) == pytest.approx(1.0)
    for total, name in ((found.requests_per_s, "requests_per_s"), (found.usd_per_hour, "usd_per_hour")):
        assert sum(getattr(pool, name) for pool in found.pools) == pytest.approx(total)
    for pool in found.pools:
        assert sum(one.units * one.count for one in pool.deployments) == pool.units <= pool.units_available
        assert sum(one.requests_per_s * one.count for one in pool.deployments) == pytest.approx(pool.requests_per_s)
        for one in pool.deployments:
            assert one.requests_per_s <= one.bound_requests_per_s * (1 + 1e-9)
            plan = Plan.model_validate(one.plan)
            assert verify_plan(plan)[0] == [] and plan.units[0].units == one.units
    assert all(row.used <= row.limit * (1 + 1e-9) for row in found.limits)
    assert Mix.model_validate(json.loads(found.to_json())) == found
    assert found.to_json() == plan_mix(KNOWN, list(OFFERS.values()), None, Budget()).to_json()


def test_what_is_paid_for_is_used_before_what_is_rented() -> None:
    """Sunk hours cost electricity and upkeep alone; to buy costs capital besides; rent costs the rent."""
    pools = [{"id": "ours", "sunk": True}, {"id": "new"}, {"id": "cloud", "price": rent(7.0)}]
    known = inventory(*({"count": 2, **pool} for pool in pools))
    offers = offers_on(known, [FAST] * 3, small.llama())
    ours, new, cloud = (offer.usd_per_unit_hour for offer in offers)
    assert 0.0 < ours < new and cloud == pytest.approx(7.0 / 2)
    assert [offer.capital_per_unit > 0 for offer in offers] == [False, True, False]
    prices = offers[0].inputs.prices
    assert offers[1].capital_per_unit == pytest.approx(FAST.capex.value * (1 + prices.installation.value) / 2)
    found = plan_mix(known, offers, 100.0, Budget())
    assert [pool.units > 0 for pool in found.pools] == [True, False, False] and found.capital_usd == 0.0


def test_the_budget_binds() -> None:
    """Every unit more that may be bought serves more, and none is bought beyond the budget."""
    known = inventory({"id": "new", "count": 4, "capex": 10_000.0})
    offers = offers_on(known, [SLOW], small.llama())
    each = offers[0].capital_per_unit
    served = []
    for units in (1, 2, 3):
        found = plan_mix(known, offers, None, Budget(each * (units + 0.5)))
        assert found.pools[0].units <= units and found.capital_usd <= each * units * (1 + 1e-9)
        served.append(found.requests_per_s)
    assert served == sorted(set(served))
    with pytest.raises(InfeasibleError):
        plan_mix(known, offers, None, Budget(each * 0.5))


@pytest.mark.parametrize(
    ("pool", "limit", "budget", "most"),
    [
        ({"quota": 1}, [], Budget(), 1),
        ({}, [{"region": "r", "systems": 2}], Budget(), 2),
        ({}, [{"pools": ["a"], "systems": 2}], Budget(), 2),
        ({}, [{"region": "r", "power_kw": 1.5 * SLOW.power.value / 1e3}], Budget(), 1),
        ({}, [], Budget(power_kw=2.5 * SLOW.power.value / 1e3), 2),
        ({}, [], Budget(usd_per_hour=3.5), 3),
    ],
)
def test_limits_hold(pool: dict[str, Any], limit: list[dict[str, Any]], budget: Budget, most: int) -> None:
    known = inventory({"id": "a", "count": 4, "price": rent(1.0), **pool}, limit=limit)
    offers = offers_on(known, [SLOW], small.llama())
    assert plan_mix(known, offers, None, budget).pools[0].units == most


def test_more_than_the_inventory_serves_is_refused_with_what_it_serves() -> None:
    offers = list(OFFERS.values())
    most = plan_mix(KNOWN, offers, None, Budget()).requests_per_s
    with pytest.raises(InfeasibleError, match="cannot serve") as caught:
        plan_mix(KNOWN, offers, 2 * most, Budget())
    assert float(str(caught.value.conflict[0]["amount"])) == pytest.approx(most, rel=1e-6)


# --- files ---------------------------------------------------------------------------------------------------------

GOOD = """
schema = 1
id = "mine"
as_of = 2026-11-01
[[pool]]
id = "a"
hardware = "h100-node"
count = 2
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1", "id: is missing"),
        (GOOD.replace("count = 2", "count = 0"), "count"),
        (GOOD.replace("count = 2", "count = 2.5"), "count"),
        (GOOD.replace("count = 2", "count = 2\nquota = 3"), "quota 3 is more than the 2"),
        (GOOD + "sunk = true\ncapex = 5.0\n", "give one"),
        (GOOD + "capex = -5.0\n", "capex"),
        (GOOD + "capex = nan\n", "not a finite number"),
        (GOOD + "price = { usd_per_hour = 5.0 }\n", "basis: is missing"),
        (GOOD + "colour = 3\n", "unknown key"),
        (GOOD + GOOD[GOOD.index("[[pool]]") :], "used twice"),
        (GOOD + '[[limit]]\nregion = "mars"\nsystems = 3\n', "no pool is of 'mars'"),
        (GOOD + '[[limit]]\npools = ["b"]\nsystems = 3\n', "no pool is of 'b'"),
        (GOOD + '[[limit]]\npools = ["a"]\n', "limits nothing"),
        (GOOD + "[[limit]]\nsystems = 3\n", "say of what"),
        ("[[pool", "is not TOML"),
        (GOOD.replace('"a"', '"A b"'), "id"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_inventory(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_planner_init_writes_is_an_inventory_that_plans(tmp_path: Path) -> None:
    path = tmp_path / "my-stock.toml"
    assert CliRunner().invoke(init, ["inventory", str(path)]).exit_code == 0
    known = load_inventory(path)
    assert known.id == "my-stock" and {pool.payment for pool in known.pool} == {"sunk", "rented", "bought"}
    assert "my-stock" in blank_inventory("my-stock", DAY) and "2026-11-01" in blank_inventory("my-stock", DAY)
    found = plan_fleet("llama-3.1-70b", path, rate=1.0)
    assert found.proved and found.requests_per_s >= 1.0


def test_round_trip_and_schema() -> None:
    assert Inventory.model_validate(KNOWN.model_dump(mode="json")) == KNOWN
    assert set(schema_of("inventory")["properties"]) == {"schema", "id", "as_of", "pool", "limit"}
    assert "pools" in schema_of("mix")["properties"]


# --- the command ---------------------------------------------------------------------------------------------------


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments))


def test_the_command(tmp_path: Path) -> None:
    path, folder = tmp_path / "inventory.toml", tmp_path / "out"
    path.write_text(GOOD + GOOD[GOOD.index("[[pool]]") :].replace('"a"', '"b"') + "sunk = true\n")
    printed = run("llama-3.1-70b", "--inventory", str(path), "--rate", "2/s", "--quiet", "-o", str(folder))
    assert printed.exit_code == 0 and "proved" in printed.output, printed.output
    known = json.loads((folder / "mix.json").read_text())
    used = [one for pool in known["pools"] for one in pool["deployments"]]
    assert used and known["pools"][0]["units"] == 0
    for one in used:
        assert one["plan"] is None
        assert verify_plan(Plan.model_validate(json.loads((folder / one["file"]).read_text())))[0] == []
    again = run("llama-3.1-70b", "--inventory", str(path), "--rate", "2/s", "--quiet", "-o", str(folder))
    assert isinstance(again.exception, InputError) and "is not empty" in str(again.exception)
    embedded = run("llama-3.1-70b", "--inventory", str(path), "--tokens-per-day", "1e8", "--quiet", "--format", "json")
    fleet = Mix.model_validate(json.loads(embedded.output))
    assert fleet.demand_requests_per_s is not None and all(one.plan for pool in fleet.pools for one in pool.deployments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["llama-3.1-70b", "h100-node", "--inventory", "FILE"], "in place of HARDWARE"),
        (["--inventory", "FILE"], "MODEL"),
        (["llama-3.1-70b", "h100-node", "--budget-usd", "5"], "goes with --inventory"),
        (["llama-3.1-70b", "--inventory", "FILE", "--concurrency", "5"], "--concurrency: holds for one deployment"),
        (["llama-3.1-70b", "--inventory", "FILE", "--slo-on", "high", "--tpot", "50"], "not built for fleets"),
        (["llama-3.1-70b", "--inventory", "nowhere.toml"], "nowhere.toml"),
        (["llama-3.1-70b", "--inventory", "BAD"], "pool a: "),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "FILE").write_text(GOOD)
    (tmp_path / "BAD").write_text(GOOD.replace("h100-node", "no-such-node"))
    named = [str(tmp_path / word) if word in ("FILE", "BAD") else word for word in arguments]
    result = run(*named)
    assert result.exit_code != 0 and message in (result.output + str(result.exception))


def test_how_much_memory_to_buy(tmp_path: Path) -> None:
    """Variants of a node are profiles beside the inventory; the dearer memory is bought only where it pays."""
    for units in (16, 64):
        text = f"""
            schema = 1
            id = "node-{units}"
            kind = "node"
            extends = "h100-node"
            name = "8 H100, {units} modules a socket"
            as_of = 2026-11-01
            [[tier]]
            id = "host"
            part = "ddr5-rdimm-64gb"
            units = {units}
        """
        (tmp_path / f"node-{units}.toml").write_text(text)
    pools = "".join(f'[[pool]]\nid = "a{n}"\nhardware = "node-{n}.toml"\ncount = 2\n' for n in (16, 64))
    limit = '[[limit]]\npools = ["a16", "a64"]\nsystems = 2\n'
    (tmp_path / "inventory.toml").write_text(GOOD[: GOOD.index("[[pool]]")] + pools + limit)
    found = plan_fleet("llama-3.1-70b", tmp_path / "inventory.toml", rate=1.0)
    little, much = found.pools
    assert [pool.hardware for pool in found.pools] == ["node-16", "node-64"]
    assert little.price["capital_usd_per_unit"] < much.price["capital_usd_per_unit"]
    assert little.units > 0 and much.units == 0


def test_inputs_are_untouched() -> None:
    """An offer plans for the most requests/s; what was asked for stays as it was."""
    asked: Inputs = small.instance(small.llama(), SLOW, 2, rate=5.0)
    offer = offer_of(KNOWN.pool[0], asked)
    assert (asked.options.objective, asked.options.rate) == ("cost", 5.0)
    assert (offer.inputs.options.objective, offer.inputs.options.rate) == ("throughput", None)


def test_a_program_that_ends_without_an_answer_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    options, limits = some_options(np.random.default_rng(3))
    monkeypatch.setattr("planner.search.fleet_master.EFFORT", 0.0)
    many = options * 30
    with pytest.raises(StoppedError):
        choose_fleet(many, limits, 0.7 * sum(option.rate for option in many))


def test_no_slack_adds_up_to_a_second_deployment() -> None:
    uses = (1.0 + 5e-10, 1.0)
    options = [Option(index, 1, 1.0, 1.0, (use,)) for index, use in enumerate(uses)]
    assert choose_fleet(options, [1.0], 2.0) is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_is_a_finite_number_above_nothing(value: float) -> None:
    with pytest.raises(InputError):
        Budget(capital_usd=value)
