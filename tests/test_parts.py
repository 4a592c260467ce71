"""Parts and sites of the catalogue, machines composed of parts, and what is estimated for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.hardware import (
    MemoryPart,
    Site,
    System,
    Tier,
    list_hardware,
    load_device,
    load_hardware,
    load_part,
    load_site,
    read_profile,
    to_toml,
    usd_per_gb,
)
from planner.hardware.lint import Fault, lint
from planner.hardware.loader import builtin_folder
from planner.quantities import UNITS, Figure

TODAY = date(2026, 11, 22)
TOP = Path(__file__).resolve().parents[1]
PART_FILES = sorted((builtin_folder() / "parts").glob("*.toml"))
SITE_FILES = sorted((builtin_folder() / "sites").glob("*.toml"))
EVIDENCE = 'source = "s", as_of = 2026-01-01, grade = "A"'
HEAD = 'schema = 1\nkind = "node"\nid = "mine"\nextends = "h800-node"\nas_of = 2026-11-20\n'
HOST = '[[tier]]\nid = "host"\npart = "ddr5-rdimm-64gb"\n'
SSD = '[[tier]]\nid = "ssd"\npart = "ymtc-pe321-7.68tb"\nunits = 8\n'


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str, name: str = "mine.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def system(file: Callable[..., Path]) -> Callable[[str], System]:
    return lambda text: load_hardware(file(text)).system


# --- the catalogue ------------------------------------------------------------------------------------------------


def test_the_catalogue_of_parts_is_as_large_as_promised() -> None:
    rows = list_hardware(kinds=("memory", "interconnect", "site"))
    assert {(row.kind, row.origin) for row in rows} == {
        (kind, origin) for kind in ("memory", "interconnect", "site") for origin in ("domestic", "western")
    }
    technologies = {load_part(row.id).technology for row in rows if row.kind == "memory"}  # type: ignore[union-attr]
    wanted = "hbm2e hbm3 hbm3e hbm4 gddr7 lpddr5x lpddr6 ddr5 cxl2-ddr5 hbf1 nvme-tlc-gen4 nvme-tlc-gen5 nvme-qlc hdd-cmr"
    assert set(wanted.split()) <= technologies
    networks = {row.id for row in rows if row.kind == "interconnect"}
    assert {"nvlink5", "nvlink-c2c", "pcie5-x16", "ub1", "xgmi3", "roce-400g", "ib-400g", "ici-v7", "hccs", "ualink"} <= networks
    assert {"CXMT", "YMTC", "Huawei"} <= {row.vendor for row in rows if row.origin == "domestic"}
    assert not any(row.fault for row in rows)


def test_an_interconnect_says_of_a_generation_what_the_systems_say() -> None:
    for network, system in (("nvlink5", "gb200-nvl72"), ("ub1", "cloudmatrix384"), ("hccs", "atlas-800-a2")):
        part = load_part(network)
        domain = next(d for d in load_hardware(system).system.domains if d.network == part.network)  # type: ignore[union-attr]
        assert part.bandwidth.value == domain.bandwidth.value  # type: ignore[union-attr]


@pytest.mark.parametrize("path", PART_FILES + SITE_FILES, ids=lambda path: path.stem)
def test_every_part_and_site_is_sound(path: Path) -> None:
    assert lint(path, today=TODAY) == []
    part = read_profile(path, today=TODAY)
    if isinstance(part, MemoryPart):
        assert part.write is None or part.write.value <= part.read.value * 1.001 or not part.read.known
        assert all(price.usd_per_gb.as_of <= part.as_of for price in part.prices)  # type: ignore[operator]
    if isinstance(part, Site):
        assert part.pue.lowest >= 1.0
        assert 0.01 <= part.electricity.lowest <= part.electricity.highest <= 0.3


def test_dated_prices_are_looked_up_by_basis_and_day() -> None:
    part = load_part("ddr5-rdimm-64gb")
    assert isinstance(part, MemoryPart)
    gib = 1.073741824
    assert usd_per_gb(part, "contract", date(2025, 10, 1)).value == pytest.approx(255 / 64 / gib, rel=2e-3)
    assert usd_per_gb(part, "contract", date(2026, 3, 30)).value == pytest.approx(450 / 64 / gib, rel=2e-3)
    assert usd_per_gb(part, "contract", date(2026, 3, 31)).lowest == pytest.approx(820 / 64 / gib, rel=2e-3)
    assert usd_per_gb(part, "spot", TODAY).value > 2 * usd_per_gb(part, "contract", TODAY).value
    with pytest.raises(InputError, match="no contract price at or before 2025-01-01; known: contract of 2025-09-30"):
        usd_per_gb(part, "contract", date(2025, 1, 1))
    with pytest.raises(InputError, match="no oem price"):
        usd_per_gb(part, "oem", TODAY)


def test_a_dram_module_counts_binary_and_a_price_for_each_gib_pays_for_all_of_it() -> None:
    part = load_part("ddr5-rdimm-64gb")
    assert isinstance(part, MemoryPart)
    assert part.usable.value == pytest.approx(64 * 2**30, rel=1e-4)
    module = part.usable.value / 1e9 * usd_per_gb(part, "contract", TODAY).value
    assert 820 < module < 950  # as quoted for a module


@pytest.mark.parametrize("unit", sorted(UNITS["usd_per_gb"]))
def test_price_units_agree_with_byte_units(unit: str) -> None:
    assert UNITS["usd_per_gb"][unit] * UNITS["bytes"][unit.split("/")[1]] == pytest.approx(1e9, rel=1e-12)


# --- composition ----------------------------------------------------------------------------------------------------

SCALED = ("usable", "read", "write", "iops")
COPIED = ("efficiency", "startup", "latency")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(part=st.sampled_from([path.stem for path in PART_FILES]), units=st.integers(1, 4096), channels=st.integers(1, 64))
def test_law_units_times_one(part: str, units: int, channels: int, system: Callable[[str], System]) -> None:
    one = load_part(part)
    if not isinstance(one, MemoryPart) or one.status != "shipping":
        return
    tier: Tier = system(f'{HEAD}[[tier]]\nid = "host"\npart = "{part}"\nunits = {units}\nchannels = {channels}\n').tier("host")
    assert tier.kind == one.tier and tier.granule_bytes == one.granule_bytes
    for key in SCALED + COPIED:
        unit, whole = getattr(one, key), getattr(tier, key)
        if unit is None:
            assert whole is None
            continue
        times = 1 if key in COPIED else min(units, channels) if key in ("read", "write") else units
        for end in ("value", "low", "high"):
            left, right = getattr(whole, end), getattr(unit, end)
            assert left is None if right is None else left == pytest.approx(right * times, rel=1e-12)
        assert (whole.grade, whole.as_of) == (unit.grade, unit.as_of)
        assert unit.source in whole.source


def test_what_the_author_writes_beside_a_part_stands(system: Callable[[str], System]) -> None:
    text = f'{HEAD}{HOST}units = 16\nread = {{ value = "300 GB/s", {EVIDENCE} }}\ngranule_bytes = 128\n'
    tier = system(text).tier("host")
    assert tier.read.value == 300e9 and tier.granule_bytes == 128
    assert tier.usable.value == pytest.approx(16 * 64 * 2**30, rel=1e-4)
    assert tier.via == ("pcie",) and tier.owner == "cpu"  # inherited, the part says nothing of it


def test_what_the_extended_profile_had_gives_way(system: Callable[[str], System]) -> None:
    tier = system(f'{HEAD}[[tier]]\nid = "ssd"\npart = "hdd-nearline-24tb"\nunits = 12\n').tier("ssd")
    assert tier.kind == "hdd" and tier.read.value == 12 * 270e6
    assert tier.iops is not None and tier.iops.value == 12 * 170


def test_links_and_domains_are_made_of_interconnects(system: Callable[[str], System]) -> None:
    text = HEAD + '[[link]]\nid = "nvme"\npart = "pcie5-x4"\nunits = 8\n[[domain]]\nid = "nvlink"\npart = "nvlink5"\n'
    made = system(text)
    link, domain, part = made.link("nvme"), made.domains[0], load_part("nvlink5")
    assert link.bandwidth.value == 8 * 15.75e9 and link.generation == "pcie5-x4"
    assert (domain.network, domain.bandwidth.value, domain.devices) == ("nvlink5", 900e9, 8)
    assert domain.alltoall_efficiency == part.alltoall_efficiency.model_copy(  # type: ignore[union-attr]
        update={"source": domain.alltoall_efficiency.source}
    ) or (domain.alltoall_efficiency == part.alltoall_efficiency)  # type: ignore[union-attr]


def test_a_device_may_own_memory_made_of_parts(file: Callable[..., Path]) -> None:
    head = 'schema = 1\nkind = "device"\nid = "chip"\nextends = "h100-sxm"\nas_of = 2026-11-20\n'
    chip = load_device(str(file(head + '[[memory]]\nid = "hbm"\npart = "hbm3e-36gb"\nunits = 6\n', "chip.toml")))
    assert chip.memory[0].usable.value == 6 * 36e9 and chip.memory[0].read.value == 6 * 1.2e12


def test_a_part_of_ones_own_lies_beside_the_machine(file: Callable[..., Path]) -> None:
    text = (builtin_folder() / "parts" / "ymtc-pe321-7.68tb.toml").read_text(encoding="utf-8")
    file(text.replace("ymtc-pe321-7.68tb", "my-drive").replace('"7.4 GB/s"', '"5 GB/s"'), "my-drive.toml")
    mine = load_hardware(file(f'{HEAD}[[tier]]\nid = "ssd"\npart = "my-drive"\nunits = 4\n')).system
    assert mine.tier("ssd").read.value == 20e9


def test_a_resolved_system_refers_to_no_part(system: Callable[[str], System], tmp_path: Path) -> None:
    made = system(f"{HEAD}{HOST}units = 16\n{SSD}")
    dumped = json.dumps(made.model_dump(mode="json", by_alias=True))
    assert '"part"' not in dumped and '"units"' not in dumped
    assert System.model_validate(made.model_dump(mode="json"), context={"si": True}) == made
    again = tmp_path / "again.toml"
    again.write_text(to_toml(made), encoding="utf-8")
    assert load_hardware(again).system == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HOST}units = 0\n", "tier.host.units: 0 is no count"),
        (f'{HOST}units = "8"\n', "tier.host.units: '8' is no count"),
        (f"{HOST}channels = -1\n", "tier.host.channels: -1 is no count"),
        ('[[tier]]\nid = "host"\npart = "ddr5-rdimm-64gp"\n', "tier.host.part: unknown part.*did you mean.*ddr5-rdimm-64gb"),
        ('[[tier]]\nid = "host"\npart = 3\n', "tier.host.part: expected the id"),
        ('[[tier]]\nid = "host"\npart = "pcie5-x16"\n', "tier.host.part: pcie5-x16 is not a memory"),
        ('[[link]]\nid = "pcie"\npart = "hbm3-16gb"\n', "link.pcie.part: hbm3-16gb is not an interconnect"),
        ('[[tier]]\nid = "host"\npart = "h800-sxm"\n', "tier.host.part: unknown part"),
        ('[[tier]]\nid = "host"\npart = "hbf1-512gb"\n', 'is announced, the system is shipping; write status = "announced"'),
        ('[[tier]]\nid = "host"\nunits = 4\n', "tier.host.units: unknown key"),
        ('[[domain]]\nid = "nvlink"\npart = "pcie4-x4"\n', "domain.nvlink.topology: is missing"),
        (f"{HOST}colour = 3\n", "tier.host.colour: unknown key"),
    ],
)
def test_composition_refuses(text: str, message: str, file: Callable[..., Path]) -> None:
    path = file(HEAD + text)
    with pytest.raises(InputError, match=message) as caught:
        load_hardware(path)
    assert "\n" not in str(caught.value) and "mine.toml" in str(caught.value)
    beginning = re.split(r"; |\.\*", message)[0]
    assert any(re.search(beginning, f"{fault.key}: {fault.what}") for fault in lint(path, today=TODAY))


def test_an_unknown_figure_of_a_part_stops_the_plan_by_its_name(file: Callable[..., Path]) -> None:
    from planner.api import resolve

    path = file(HEAD + 'status = "announced"\n[[tier]]\nid = "host"\npart = "lpddr6"\nunits = 8\n')
    with pytest.raises(InputError, match="mine.tier.host.usable"):
        resolve("llama-3.1-70b", str(path), allow_announced=True)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.lists(st.integers(), max_size=2))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["part", "units", "channels", "id", "devices_sharing", "devices", "as_of", "status", "capex_basis"]),
    value=VALUES,
)
def test_any_value_is_an_answer_or_an_input_error(key: str, value: Any, tmp_path: Path) -> None:
    from planner.hardware.writer import literal

    if value is None or (isinstance(value, float) and abs(value) > 1e300) or value != value:
        return
    text = literal(tuple(value) if isinstance(value, list) else value)
    row = {"part": '"ddr5-rdimm-64gb"', "units": "8", "id": '"host"'}
    head = {"schema": "1", "kind": '"node"', "id": '"mine"', "extends": '"h800-node"', "as_of": "2026-11-20"}
    (row if key in ("part", "units", "channels", "id", "devices_sharing") else head)[key] = text
    body = "".join(f"{k} = {v}\n" for k, v in head.items()) + "[[tier]]\n" + "".join(f"{k} = {v}\n" for k, v in row.items())
    path = tmp_path / "fuzz.toml"
    path.write_text(body, encoding="utf-8")
    try:
        assert isinstance(load_hardware(path).system, System)
    except InputError as error:
        assert "\n" not in str(error)
        assert lint(path, today=TODAY)


# --- estimates --------------------------------------------------------------------------------------------------


def test_capex_and_power_of_a_composed_system_are_the_base_and_the_parts(system: Callable[[str], System]) -> None:
    base = load_hardware("h800-node").system
    made = system(f"{HEAD}{HOST}units = 16\n{SSD}")
    dimm, drive = load_part("ddr5-rdimm-64gb"), load_part("ymtc-pe321-7.68tb")
    assert isinstance(dimm, MemoryPart) and isinstance(drive, MemoryPart)
    dimms = 16 * (8 // made.tier("host").devices_sharing)
    assert dimms == 32  # two sockets
    on = made.as_of
    price = dimms * dimm.usable.value / 1e9 * usd_per_gb(dimm, "street", on).value
    price += 8 * drive.usable.value / 1e9 * usd_per_gb(drive, "contract", on).value
    had = base.tier("host")  # 32 modules replace it, eight drives the disk: each counts once
    gone = 2 * had.usable.value / 1e9 * usd_per_gb(dimm, "street", on).value
    gone += base.tier("ssd").usable.value / 1e9 * usd_per_gb(drive, "contract", on).value
    assert made.capex.value == pytest.approx(base.capex.value + price - gone, rel=1e-9)
    assert made.capex.low == min(base.capex.lowest, made.capex.value)
    most = dimms * dimm.usable.value / 1e9 * usd_per_gb(dimm, "street", on).highest
    most += 8 * drive.usable.value / 1e9 * usd_per_gb(drive, "contract", on).highest
    assert made.capex.high == pytest.approx(base.capex.highest + most, rel=1e-9)
    assert made.capex.grade in "CD" and made.capex.high is not None and made.capex.high > made.capex.value
    assert made.capex_basis == base.capex_basis
    for word in ("estimate", "h800-node", "32 x ddr5-rdimm-64gb at street", "8 x ymtc-pe321-7.68tb at contract"):
        assert word in made.capex.note
    assert dimm.power and drive.power
    watts = (dimms - 2 * had.usable.value / dimm.usable.value) * dimm.power.value
    watts += (8 - base.tier("ssd").usable.value / drive.usable.value) * drive.power.value
    assert made.power.value == pytest.approx(base.power.value + watts, rel=1e-9)


def test_the_same_memory_made_of_parts_costs_and_draws_as_much(
    system: Callable[[str], System], file: Callable[..., Path]
) -> None:
    first = system(f"{HEAD}{HOST}units = 16\n").capex
    head = HEAD.replace('"mine"', '"again"').replace("h800-node", "mine.toml")
    again = load_hardware(file(f"{head}{HOST}units = 16\n", "again.toml")).system
    assert again.capex.value == pytest.approx(first.value, rel=1e-9)
    stated = f'capex = {{ value = "400 kUSD", {EVIDENCE} }}\n'
    file(f"{HEAD}{stated}{HOST}units = 16\n", "mine.toml")
    doubled = load_hardware(file(f"{head}{HOST}units = 32\n", "again.toml")).system
    dimm = load_part("ddr5-rdimm-64gb")
    assert isinstance(dimm, MemoryPart)
    more = 32 * dimm.usable.value / 1e9 * usd_per_gb(dimm, "street", doubled.as_of).value
    assert doubled.capex.value == pytest.approx(400e3 + more, rel=1e-9)
    assert "- 32 x ddr5-rdimm-64gb for what mine had as host" in doubled.capex.note


def test_what_cannot_be_priced_is_replaced_at_no_extra_cost(system: Callable[[str], System]) -> None:
    base = load_hardware("h800-node").system
    made = system(f'{HEAD}[[tier]]\nid = "ssd"\npart = "hdd-nearline-24tb"\nunits = 12\n')
    assert made.capex.value == base.capex.value and made.capex.highest > base.capex.highest
    assert "as much for what h800-node had as ssd, whose price is not known apart" in made.capex.note


def test_rates_of_modules_without_channels_are_a_guess(system: Callable[[str], System]) -> None:
    guess = system(f"{HEAD}{HOST}units = 16\n").tier("host").read
    assert (guess.grade, guess.low, guess.high) == ("C", 16 * 38.4e9 / 2, 16 * 51.2e9) and "channels" in guess.note
    known = system(f"{HEAD}{HOST}units = 16\nchannels = 8\n").tier("host").read
    assert (known.grade, known.value, known.low) == ("A", 8 * 51.2e9, 8 * 38.4e9)
    drives = system(f"{HEAD}{SSD}").tier("ssd").read
    assert "channels" not in drives.note


def test_a_price_of_ones_own_stands_and_is_the_base_of_what_extends_it(file: Callable[..., Path]) -> None:
    capex = f'capex = {{ value = "400 kUSD", {EVIDENCE} }}\n'
    first = file(f"{HEAD}{capex}{HOST}units = 16\n", "first.toml")
    assert load_hardware(first).system.capex.value == 400e3
    head = HEAD.replace('"mine"', '"second"').replace("h800-node", "first.toml")
    second = load_hardware(file(f"{head}{SSD}", "second.toml")).system
    assert "ddr5" not in second.capex.note  # its price has the modules in it already
    gone = load_hardware(first).system.tier("ssd").usable.value / 1e9
    assert second.capex.value == pytest.approx(400e3 + (8 * 7680 - gone) * 0.325, rel=1e-9)
    third = load_hardware(file(HEAD.replace('"mine"', '"third"').replace("h800-node", "second.toml"), "third.toml")).system
    assert third.capex.value == second.capex.value


def test_without_a_base_the_nearest_system_with_the_device_is_scaled(file: Callable[..., Path]) -> None:
    full = to_toml(load_hardware("h20-node").system)
    lines = [line for line in full.splitlines() if not line.startswith(("capex", "power", "aliases"))]
    text = "\n".join(lines).replace('id = "h20-node"', 'id = "mine"', 1)
    made = load_hardware(file(text)).system
    node = load_hardware("h20-node").system
    assert made.capex.value == node.capex.value and made.power.value == node.power.value
    assert made.capex.grade in "CD" and "8 / 8 of h20-node" in made.capex.note
    half = re.sub(r"^generation = .*", "", text, flags=re.M)
    half = re.sub(r"^(devices\w*|purchasable_devices) = 8$", r"\1 = 4", half, flags=re.M)
    assert load_hardware(file(half)).system.capex.value == pytest.approx(node.capex.value / 2, rel=1e-12)


def test_without_any_system_to_scale_power_is_asked_for_and_the_cost_is_not_known(file: Callable[..., Path]) -> None:
    full = to_toml(load_hardware("h20-node").system).replace('id = "h20-node"', 'id = "mine"', 1)
    alone = full.replace('id = "h20-96"', 'id = "no-such-chip"')
    assert alone != full
    lines = [line for line in alone.splitlines() if not line.startswith(("capex", "aliases"))]
    assert not load_hardware(file("\n".join(lines))).system.capex.known
    with pytest.raises(InputError, match="power: is missing"):
        load_hardware(file("\n".join(line for line in lines if not line.startswith("power"))))


# --- lint ---------------------------------------------------------------------------------------------------------


def _renamed(path: str) -> str:
    text = (builtin_folder() / path).read_text(encoding="utf-8")
    return re.sub(r"(?m)^id = .*", 'id = "mine"', re.sub(r"aliases = .*\n", "", text))


DRIVE = _renamed("parts/ymtc-pe321-7.68tb.toml").replace('"7.4 GB/s"', '"7.3 GB/s"')
PORT = re.sub(r"(?m)^bandwidth = .*", f'bandwidth = {{ value = "440 GB/s", {EVIDENCE} }}', _renamed("parts/nvlink4.toml"))
PLACE = _renamed("sites/cn-east.toml")


def _without(text: str, key: str, inside: str) -> str:
    return re.sub(rf'(?m)^({inside} = .*), {key} = ("[^"]*"|\d{{4}}-\d\d-\d\d)', r"\1", text)


FAULTS = {
    "missing source": (_without(DRIVE, "source", "read"), "read.source", "is missing"),
    "missing date": (_without(DRIVE, "as_of", "read"), "read.as_of|read", "as_of is missing"),
    "missing grade": (_without(DRIVE, "grade", "read"), "read.grade", "is missing"),
    "no interval": (_without(DRIVE, "low", "iops"), "iops", "needs an interval"),
    "wrong unit": (DRIVE.replace('"7.3 GB/s"', '"7.3 GB"'), "read", "unknown unit"),
    "wrong price unit": (DRIVE.replace('"0.325 USD/GB"', '"0.325 USD"'), "price.0.usd_per_gb", "unknown unit"),
    "negative price": (DRIVE.replace('"0.325 USD/GB"', '"-1 USD/GB"'), "price.0.usd_per_gb", "must be above 0"),
    "unknown basis": (DRIVE.replace('basis = "contract"', 'basis = "guess"'), "price.0.basis", "Input should be"),
    "basis missing": (DRIVE.replace('basis = "contract"\n', ""), "price.0.basis", "is missing"),
    "future date": (re.sub(r"(?m)^(read = .*)as_of = 2026-11-01", r"\1as_of = 2027-01-01", DRIVE), "read", "lies in the future"),
    "unknown key": (DRIVE.replace("granule_bytes", "colour = 3\ngranule_bytes"), "colour", "unknown key"),
    "markup": (DRIVE.replace("YMTC PE321 TLC", "<b>YMTC</b>"), "name", "markup"),
    "binary unit": (DRIVE.replace('"7.68 TB", low', '"7.68 TiB", low').replace('"6.912 TB"', '"6 TB"'), "usable", "binary units"),
    "a fraction above one": (re.sub(r"(?m)^(efficiency = .*)high = 0.9", r"\1high = 1.9", DRIVE), "efficiency", "at most 1"),
    "two prices of a day": (DRIVE + DRIVE[DRIVE.index("\n[[price]]") :], "price", "two of basis contract"),
    "wear that contradicts itself": (
        DRIVE.replace("dwpd", f'endurance = {{ value = "1 PB", {EVIDENCE} }}\ndwpd', 1),
        "endurance",
        "dwpd over the warranty",
    ),
    "grade A, only announced": (DRIVE.replace('"shipping"', '"announced"'), "read", "only announced"),
    "a part twice": (DRIVE.replace('"7.3 GB/s"', '"7.4 GB/s"'), "id", "one part twice"),
    "both ways": (PORT.replace('"440 GB/s"', '"900 GB/s"'), "bandwidth", "above the 450 GB/s one-way"),
    "direction": (PORT.replace('"one-way"', '"both"'), "direction", "is not one-way"),
    "a network twice": (PORT.replace('"440 GB/s"', '"450 GB/s"'), "id", "one part twice"),
    "PUE below one": (re.sub(r"(?m)^(pue = .*)low = 1.15", r"\1low = 0.9", PLACE), "pue", "must be at least 1"),
    "electricity without its unit": (PLACE.replace('"0.096 USD/kWh"', '"0.096 USD"'), "electricity", "unknown unit"),
    "no region": (re.sub(r"region = .*\n", "", PLACE), "region", "is missing"),
}


@pytest.mark.parametrize("text", [DRIVE, PORT, PLACE], ids=["memory", "interconnect", "site"])
def test_the_sound_files_of_these_tests_are_sound(text: str, file: Callable[..., Path]) -> None:
    assert lint(file(text), today=TODAY) == []


@pytest.mark.parametrize("name", FAULTS)
def test_lint_finds_what_is_sown_into_a_part_or_site(name: str, file: Callable[..., Path]) -> None:
    text, key, what = FAULTS[name]
    assert text not in (DRIVE, PORT, PLACE)
    found = lint(file(text), today=TODAY)
    assert any(re.match(key, fault.key) and what in fault.what and fault.mend for fault in found), found


def test_lint_reports_all_faults_of_a_part_at_once(file: Callable[..., Path]) -> None:
    text = DRIVE
    for name in ("wrong unit", "unknown key", "negative price", "unknown basis"):
        old, new = _changed(DRIVE, FAULTS[name][0])
        text = text.replace(old, new, 1)
    keys = {fault.key for fault in lint(file(text), today=TODAY)}
    assert keys >= {"read", "colour", "price.0.usd_per_gb", "price.0.basis"}


def _changed(one: str, other: str) -> tuple[str, str]:
    """The lines that differ."""
    import difflib

    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, one.splitlines(), other.splitlines(), autojunk=False).get_opcodes():
        if tag == "insert":
            before = one.splitlines()[i1]
            return before, "\n".join([*other.splitlines()[j1:j2], before])
        if tag != "equal":
            return "\n".join(one.splitlines()[i1:i2]), "\n".join(other.splitlines()[j1:j2])
    raise AssertionError


def test_lint_goes_on_past_a_part_that_does_not_exist(file: Callable[..., Path]) -> None:
    text = f'{HEAD}colour = 3\n[[tier]]\nid = "host"\npart = "nothing"\nunits = 4\n{SSD.replace("units = 8", "units = -8")}'
    found: list[Fault] = lint(file(text), today=TODAY)
    assert {fault.key for fault in found} == {"colour", "tier.host.part", "tier.ssd.units"}


# --- sites ------------------------------------------------------------------------------------------------------


def test_a_site_gives_the_prices_electricity_pue_and_life() -> None:
    from planner.prices import OwnedPrices, at_site, load_prices

    owned, site = load_prices("owned"), load_site("cn-west-green")
    there = at_site(owned, site)
    changed = {name for name in OwnedPrices.model_fields if getattr(there, name) != getattr(owned, name)}
    assert changed <= {"electricity", "pue", "life", "site"}
    assert (there.electricity, there.pue, there.life, there.site) == (site.electricity, site.pue, site.life, site.id)
    assert OwnedPrices.model_validate(there.model_dump(mode="json"), context={"si": True}) == there
    with pytest.raises(InputError, match="unknown site 'cn-west'"):
        load_site("cn-west")


# --- the commands -------------------------------------------------------------------------------------------------


def command(*arguments: str) -> Any:
    from click.testing import CliRunner

    from planner.cli.main import group

    done = CliRunner().invoke(group, list(arguments), standalone_mode=False, catch_exceptions=False)
    return done


def test_list_by_kind() -> None:
    every = json.loads(command("list", "hardware", "--format", "json").stdout)
    assert {row["kind"] for row in every} == {"device", "node", "rack"}
    rows = json.loads(
        command("list", "hardware", "--kind", "memory", "--kind", "site", "--origin", "domestic", "--format", "json").stdout
    )
    assert {row["kind"] for row in rows} == {"memory", "site"} and {row["origin"] for row in rows} == {"domestic"}
    assert not any("devices" in row for row in rows)
    assert "ymtc-pe321-7.68tb" in command("list", "hardware", "--kind", "memory").stdout


@pytest.mark.parametrize("name", ["ddr5-rdimm-64gb", "lpddr6", "nvlink5", "cn-west-hub"])
def test_show_a_part_or_site(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")

    data = json.loads(command("show", "hardware", name, "--format", "json").stdout)
    assert data["id"] == name
    jsonschema.validate(data, json.loads(command("schema", "hardware").stdout))
    table = command("show", "hardware", name).stdout
    assert name in table and "source" in table


def test_the_composed_machine_of_the_docs_plans(file: Callable[..., Path], tmp_path: Path) -> None:
    """docs/own-machine.md: 8 x 910C, 2 TB of DDR5 and eight YMTC drives, as it stands there."""
    from planner.api import verify

    page = (TOP / "docs" / "own-machine.md").read_text(encoding="utf-8")
    found = re.search(r"```toml\n# file: my-910c.toml\n(.*?)```", page, re.S)
    assert found and len(found[1].splitlines()) <= 30
    path = file(found[1], "my-910c.toml")
    assert lint(path, today=TODAY) == []
    machine = load_hardware(path).system
    assert machine.devices == 16 and machine.device.id == "ascend-910c-die"
    assert machine.tier("host").usable.value == pytest.approx(2 * 2**40, rel=1e-4)
    assert machine.tier("ssd").usable.value == 8 * 7.68e12 and machine.tier("ssd").read.value == 8 * 7.4e9
    output = tmp_path / "plan.json"
    done = command("plan", "qwen3-8b", str(path), "--site", "cn-west-hub", "--quiet", "-o", str(output))
    assert not done.return_value, done.stdout
    plan = json.loads(output.read_text(encoding="utf-8"))
    assert plan["certificate"]["proved"]
    estimates = {row["figure"].removeprefix("hardware.mixed.system."): row for row in plan["provenance"]["estimates"]}
    for key in ("capex", "power"):
        assert estimates[key]["low"] < estimates[key]["high"] and "ymtc-pe321-7.68tb" in estimates[key]["note"]
    prices = plan["inputs"]["prices"]
    assert prices["site"] == "cn-west-hub"
    assert Figure.model_validate(prices["electricity"]).value == load_site("cn-west-hub").electricity.value
    assert "site cn-west-hub" in done.stdout
    violations, notices = verify(output.read_text(encoding="utf-8"))
    assert not violations
    assert not any("prices" in notice for notice in notices)


def test_a_site_that_does_not_exist_is_one_line() -> None:
    with pytest.raises(InputError, match="unknown site 'nowhere'; "):
        command("plan", "qwen3-8b", "h800-node", "--site", "nowhere")
