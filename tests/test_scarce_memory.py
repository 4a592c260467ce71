"""A memory rationed over an inventory: the integer program, its least relaxations and worths against brute force; the command."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import small
from click.testing import CliRunner
from test_inventory import DAY, FAST, KNOWN, OFFERS, SLOW, inventory, offers_on, rent

from planner.cli.plan_command import command
from planner.cli.schema_command import schema_of
from planner.errors import InfeasibleError, InputError
from planner.plans import Plan
from planner.plans.mix import Mix
from planner.prices.inventory import Inventory, InventoryPool, load_inventory
from planner.search.fleet_master import Option, choose_fleet
from planner.search.mix import Budget, Offer, Size, _options, plan_mix
from planner.search.mix_limits import Row, limits_of, reliefs, worth_of

Array = Any


# --- small random inventories against brute force ------------------------------------------------------------------


@cache
def hardware() -> list[Offer]:
    """Nodes of one or two devices with memories of several sizes; a node of two is sold by the device."""
    systems = [
        small.node(devices, 1, memory, host_bytes=host)
        for devices, memory, host in ((1, 80e6, 1e9), (2, 40e6, 3e9), (1, 20e6, 4e9), (2, 160e6, 0.5e9))
    ]
    known = inventory(*({"id": f"p-{i}", "count": 1} for i in range(len(systems))))
    return offers_on(known, systems, small.llama())


def by_hand(offer: Offer, kind: str) -> float:
    """GB of a memory in one unit, from the profile's tiers: what a device has, or its part of what several share."""
    system = offer.stated.system
    tiers = [tier for tier in system.tiers if tier.kind == kind]
    return sum(tier.usable.value / tier.devices_sharing for tier in tiers) * system.purchasable_devices / 1e9


def instance(rng: np.random.Generator) -> tuple[Inventory, list[Offer], list[list[Size]]]:
    """Two or three pools in two regions, memory limited over a region, over pools and over all of them, deployments at random."""
    picked = [hardware()[int(i)] for i in rng.integers(0, 4, int(rng.integers(2, 4)))]
    rows: list[dict[str, Any]] = [
        {"id": f"p-{i}", "count": int(rng.integers(1, 3)), "price": rent(float(rng.random() * 9 + 1))}
        | {"region": str(rng.choice(["a", "b"]))}
        for i in range(len(picked))
    ]  # fmt: skip
    regions = sorted({row["region"] for row in rows})
    scopes = [{"all": True}, {"region": regions[0]}, {"pools": [row["id"] for row in rows][:2]}]
    limits = []
    for number in rng.permutation(3)[: int(rng.integers(1, 3))]:
        sizes = {"hbm": f"{rng.random() * 0.4 + 0.01} GB"}
        if rng.random() < 0.4:
            sizes["ddr"] = f"{rng.random() * 8 + 0.3} GB"
        limits.append({**scopes[number], "memory": sizes})
    known = inventory(*rows, limit=limits)
    offers = [Offer(pool, offer.inputs, offer.stated) for pool, offer in zip(known.pool, picked, strict=True)]
    rates = [[float(rng.random() * units + 0.01) for units in (1, 2)] for _ in offers]
    sizes_of = [
        [Size(n, rate[n - 1], rate[n - 1]) for n in (1, 2) if n <= offer.units] for rate, offer in zip(rates, offers, strict=True)
    ]
    return known, offers, sizes_of


def every_fleet(offers: list[Offer], sizes: list[list[Size]]) -> tuple[Array, list[tuple[int, Size]]]:
    """Every number of every deployment that the units of the pools allow, a row each."""
    options = [(pool, size) for pool, known in enumerate(sizes) for size in known]
    counts = np.array(
        list(itertools.product(*(range(offers[pool].units // size.units + 1) for pool, size in options))), dtype=float
    )
    inside = np.ones(len(counts), dtype=bool)
    for index, offer in enumerate(offers):
        units = counts @ np.array([size.units * (pool == index) for pool, size in options], dtype=float)
        inside &= units <= offer.units
    return counts[inside], options


def rows_by_hand(known: Inventory, offers: list[Offer], options: list[tuple[int, Size]]) -> list[tuple[float, Array]]:
    """``(GB that there are, GB that each deployment takes)`` of every limited memory."""
    found = []
    for limit in known.limit:
        for kind, size in limit.memory.items():
            scope = [limit.all or o.pool.region == limit.region or o.pool.id in limit.pools for o in offers]
            takes = [size_.units * by_hand(offers[pool], kind) * scope[pool] for pool, size_ in options]
            found.append((size / 1e9, np.array(takes)))
    return found


def least(counts: Array, value: Array, holds: Array) -> float | None:
    return float(value[holds].min()) if holds.any() else None


def total(options: list[Option], counts: tuple[int, ...], rate: bool) -> float:
    return sum(n * (o.rate if rate else o.usd_per_hour) for n, o in zip(counts, options, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_rationed_memory_against_brute_force(seed: int) -> None:
    """300 random inventories: the fleet of least cost and of most requests/s, what relaxing a memory takes, its worth."""
    rng = np.random.default_rng(seed)
    found = {"feasible": 0, "refused": 0, "binding": 0, "worth": 0}
    for _ in range(60):
        known, offers, sizes = instance(rng)
        rows = limits_of(known, offers, Budget())
        options = _options(offers, sizes, rows)
        counts, named = every_fleet(offers, sizes)
        memory = rows_by_hand(known, offers, named)
        holds = np.array([counts @ takes <= limit * (1 + 1e-9) for limit, takes in memory])
        rates = counts @ np.array([size.rate for _, size in named])
        costs = counts @ np.array([size.units * offers[pool].usd_per_unit_hour for pool, size in named])
        limits = [float(row.limit) for row in rows]
        demand = float(rng.random() * rates.max() * 0.8)
        # the most that can be served
        most = float(rates[holds.all(axis=0)].max())
        rated = choose_fleet(options, limits, None)
        assert (rated is None) == (most == 0.0)
        if rated is not None:
            assert total(options, rated.counts, True) == pytest.approx(most) and rated.bound >= most * (1 - 1e-9)
            found["worth"] += check_worths(rows, options, rated.counts, None, memory, holds, counts, rates)
        # the cheapest fleet that serves the demand
        serves = rates >= demand * (1 - 1e-9)
        wanted = least(counts, costs, serves & holds.all(axis=0))
        chosen = choose_fleet(options, limits, demand)
        assert (chosen is None) == (wanted is None)
        if chosen is not None:
            assert wanted is not None and total(options, chosen.counts, False) == pytest.approx(wanted)
            assert chosen.bound <= wanted * (1 + 1e-9)
            found["feasible"] += 1
            found["binding"] += wanted > (least(counts, costs, serves) or 0.0) * (1 + 1e-9)
            found["worth"] += check_worths(
                rows, options, chosen.counts, demand, memory, holds, counts, np.where(serves, costs, np.inf)
            )
            continue
        found["refused"] += 1
        told = {str(one["member"]): float(str(one["amount"])) for one in reliefs(rows, options, options, demand)}
        for number, row in enumerate(rows[len(offers) :]):
            others = np.delete(holds, number, axis=0).all(axis=0) if len(memory) > 1 else np.ones(len(counts), dtype=bool)
            enough = least(counts, counts @ memory[number][1], serves & others)
            assert (row.name in told) == (enough is not None)
            assert enough is None or told[row.name] == pytest.approx(enough)
    assert min(found.values()) >= 2 and found["worth"] >= 20, found


def check_worths(
    rows: list[Row],
    options: list[Option],
    chosen: tuple[int, ...],
    demand: float | None,
    memory: list[tuple[float, Array]],
    holds: Array,
    counts: Array,
    value: Array,
) -> int:
    """A step more of each memory against brute force; how many are worth something."""
    reached = total(options, chosen, demand is None)
    worths, paid = worth_of(rows, options, demand, reached), 0
    assert [worth for worth, row in zip(worths, rows, strict=True) if row.pool] == [None] * (len(rows) - len(memory))
    for number, (worth, row) in enumerate(zip(worths[-len(memory) :], rows[-len(memory) :], strict=True)):
        assert worth is not None and worth.step == pytest.approx(max(row.uses))
        limit, takes = memory[number]
        wider = np.delete(holds, number, axis=0).all(axis=0) & (counts @ takes <= (limit + worth.step) * (1 + 1e-9))
        best = value[wider].max() if demand is None else value[wider].min()
        gain = best - reached if demand is None else reached - best
        assert worth.gain == pytest.approx(max(gain, 0.0), abs=1e-8 * reached)
        assert worth.per_unit == pytest.approx(worth.gain / worth.step)
        paid += worth.gain > 0.0
    return paid


def test_the_brute_force_would_see_a_memory_that_is_not_counted() -> None:
    """Without the rows of memory, or with one at twice its size, the fleets come out otherwise."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(40):
        known, offers, sizes = instance(rng)
        rows = limits_of(known, offers, Budget())
        counts, named = every_fleet(offers, sizes)
        inside = np.array([counts @ takes <= limit * (1 + 1e-9) for limit, takes in rows_by_hand(known, offers, named)]).all(
            axis=0
        )
        most = float((counts @ np.array([size.rate for _, size in named]))[inside].max())
        double = [row if row.pool else replace(row, limit=2 * row.limit) for row in rows]
        options = _options(offers, sizes, double)
        rated = choose_fleet(options, [row.limit for row in double], None)
        wrong += rated is not None and total(options, rated.counts, True) > most * (1 + 1e-9)
    assert wrong >= 10


# --- whole fleets --------------------------------------------------------------------------------------------------


def test_scarce_memory_turns_the_fleet_to_hardware_that_offloads() -> None:
    """Two pools that cost alike: what has three times the HBM serves more, and is left when HBM is short for what keeps a part of
    its weights or caches in host memory."""
    pools = [{"id": "rich", "count": 4, "price": rent(2.0)}, {"id": "poor", "count": 4, "price": rent(2.0)}]
    systems = [small.node(1, 1, 72e6), small.node(1, 1, 20e6)]
    free = inventory(*pools)
    offers = offers_on(free, systems, small.llama())
    at_most = plan_mix(free, offers, None, Budget(usd_per_hour=2.1))
    assert [pool.units for pool in at_most.pools] == [1, 0]
    short = inventory(*pools, limit=[{"all": True, "memory": {"hbm": "60 MB"}}])
    found = plan_mix(short, offers, None, Budget(usd_per_hour=2.1))
    assert [pool.units for pool in found.pools] == [0, 1] and found.proved
    row = next(row for row in found.limits if row.name == "hbm of all pools")
    assert (row.limit, row.unit) == (pytest.approx(0.06), "GB") and row.used == pytest.approx(0.02)
    assert row.per_unit == pytest.approx({"rich": 0.072, "poor": 0.02})
    assert row.worth is not None and row.worth.step == pytest.approx(0.072) and row.worth.gain > 0.0
    for pool in found.pools:  # what a plan embeds of its hardware says the same
        for one in pool.deployments:
            plan = Plan.model_validate(one.plan)
            assert {placed.tier for placed in plan.pools[0].placement if placed.bytes} > {"hbm"}
            system = plan.inputs["hardware"]["mixed"]["system"]
            assert row.per_unit[pool.id] == pytest.approx(system["tiers"][0]["usable"]["value"] / 1e9)
    with pytest.raises(InfeasibleError, match="cannot serve") as caught:
        plan_mix(short, offers, 1.5 * found.requests_per_s, Budget(usd_per_hour=2.1))
    assert "hbm of all pools" in [member["member"] for member in caught.value.conflict]
    jsonschema.validate(caught.value.conflict, schema_of("conflict")["properties"]["conflict"])


def test_no_deployment_fits_and_what_it_would_take() -> None:
    known = KNOWN.model_copy(update={"limit": inventory(*POOL, limit=[{"all": True, "memory": {"hbm": "1 MB"}}]).limit})
    with pytest.raises(InfeasibleError, match="no pool holds the model") as caught:
        plan_mix(known, list(OFFERS.values()), None, Budget())
    member = caught.value.conflict[0]
    assert member["member"] == "hbm of all pools" and member["unit"] == "GB"
    assert member["amount"] == pytest.approx(min(size.tiers[0].usable.value for size in (FAST, SLOW)) / 1e9)


POOL: list[dict[str, Any]] = [{"id": "a", "count": 2, "price": rent(1.0)}]


def test_a_fleet_that_does_not_add_up_is_no_mix() -> None:
    data = plan_mix(KNOWN, list(OFFERS.values()), 50.0, Budget()).model_dump(mode="json")
    assert Mix.model_validate(data)
    for path, value in (
        (("pools", 0, "units"), data["pools"][0]["units"] + 1),
        (("pools", 1, "usd_per_hour"), 1e6),
        (("limits", 0, "used"), 1e6),
        (("limits", -1, "limit"), 1e-6),
        (("limits", -1, "per_unit"), {"elsewhere": 1.0}),
        (("requests_per_s",), 1e6),
    ):
        broken = json.loads(json.dumps(data))
        place = broken
        for key in path[:-1]:
            place = place[key]  # type: ignore[index]
        place[path[-1]] = value
        with pytest.raises(ValueError, match="what its parts sum to|is more than|names other pools"):
            Mix.model_validate(broken)


# --- files and the command -----------------------------------------------------------------------------------------

TEXT = """
schema = 1
id = "mine"
as_of = 2026-11-01
[[pool]]
id = "a"
hardware = "h100-node"
count = 2
region = "home"
[[limit]]
all = true
memory = { hbm = "1 TB" }
"""


def test_sizes_are_read_and_written_with_their_unit() -> None:
    known = inventory(*POOL, limit=[{"all": True, "memory": {"hbm": "500 TB", "ssd": "2 PB"}}])
    assert known.limit[0].memory == {"hbm": 5e14, "ssd": 2e15}
    assert Inventory.model_validate(known.model_dump(mode="json")) == known
    jsonschema.validate(known.model_dump(mode="json", by_alias=True), schema_of("inventory"))
    assert known.limit[0].covers(InventoryPool(id="x", hardware="y", count=1)) and known.as_of == DAY


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('hbm = "1 TB"', "hbm = 1000", "has no unit"),
        ('hbm = "1 TB"', 'hbm = "0 TB"', "is not above 0"),
        ('hbm = "1 TB"', 'hbm = "-1 TB"', "is not above 0"),
        ('hbm = "1 TB"', 'hbm = "1e30 TB"', "at most"),
        ('hbm = "1 TB"', 'hbm = "1 MW"', "unknown unit 'MW'"),
        ('hbm = "1 TB"', 'remote = "1 TB"', "remote"),
        ('{ hbm = "1 TB" }', "{}", "limits nothing"),
        ("all = true", 'all = true\nregion = "home"', "say of what"),
        ("all = true", "all = false", "say of what"),
    ],
)
def test_bad_limits_are_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_inventory(path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_memory_that_no_pool_has_is_refused() -> None:
    known = inventory(*POOL, limit=[{"all": True, "memory": {"gddr": "1 TB"}}])
    with pytest.raises(InputError, match="none of all pools has gddr; there is ddr, hbm, ssd"):
        limits_of(known, offers_on(known, [SLOW], small.llama()), Budget())


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(TEXT)
    result = CliRunner().invoke(command, ["llama-3.1-8b", "--inventory", str(path), "--quiet"])
    assert result.exit_code == 0 and re.search(r"hbm of all pools +684\.\d +1,000 +GB", result.output), result.output
    assert "more would be worth" in result.output
