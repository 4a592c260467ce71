"""Hardware profiles: what the built-in ones say, and what the reader refuses."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from planner.errors import InputError
from planner.hardware import (
    Curve,
    DeviceProfile,
    HardwareSelection,
    System,
    list_hardware,
    load_device,
    load_hardware,
    read_profile,
    to_toml,
)
from planner.hardware.loader import builtin_folder
from planner.quantities import Figure

PROFILES = sorted(builtin_folder().rglob("*.toml"))
SYSTEMS = sorted((builtin_folder() / "systems").glob("*.toml"))
DEVICES = sorted((builtin_folder() / "devices").glob("*.toml"))
each_profile = pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
each_system = pytest.mark.parametrize("name", [path.stem for path in SYSTEMS])


FASTER_THAN_USUAL = {("rubin", "fp8"), ("rubin", "fp4"), ("rtx-5090", "fp8"), ("rtx-5090", "int8"), ("rtx-5090", "fp4")}
FASTER_THAN_USUAL |= {("rtx-4090", "int8"), ("trainium3", "fp8"), ("b300-sxm", "fp4"), ("gb300", "fp4")}
"""Dense peaks above two or four times the 16-bit one: parts built for narrow floats, and GeForce, which halves wide ones."""


def figures(part: object, key: str = "") -> Iterator[tuple[str, Figure | Curve]]:
    if isinstance(part, Figure | Curve):
        yield key, part
    elif isinstance(part, BaseModel):
        for name, value in part:
            yield from figures(value, f"{key}.{name}")
    elif isinstance(part, dict):
        for name, value in part.items():
            yield from figures(value, f"{key}.{name}")
    elif isinstance(part, tuple):
        for value in part:
            yield from figures(value, f"{key}.{getattr(value, 'id', '')}")


# --- what the built-in profiles say ---------------------------------------------------------------------------


@each_profile
def test_profile_round_trip(path: Path, tmp_path: Path) -> None:
    profile = read_profile(path)
    text = to_toml(profile)
    copy = tmp_path / "copy.toml"
    copy.write_text(text, encoding="utf-8")
    again = read_profile(copy)
    assert again == profile
    assert to_toml(again) == text


@each_profile
def test_profile_is_embeddable_in_a_plan(path: Path) -> None:
    profile = read_profile(path)
    assert type(profile).model_validate(profile.model_dump(mode="json"), context={"si": True}) == profile
    assert type(profile).model_validate_json(profile.model_dump_json(), context={"si": True}) == profile


@each_profile
def test_file_is_named_after_its_id_and_dated(path: Path) -> None:
    profile = read_profile(path, today=date(2026, 12, 31))
    assert profile.id == path.stem
    assert len(set(profile.aliases)) == len(profile.aliases)
    assert profile.id not in profile.aliases


@each_profile
def test_every_figure_has_evidence(path: Path) -> None:
    found = list(figures(read_profile(path)))
    assert len(found) >= (8 if path.parent.name in ("devices", "systems") else 3)
    for key, figure in found:
        assert figure.source.strip(), key
        assert figure.as_of is not None, key
        if isinstance(figure, Figure) and figure.grade in "CD":
            assert figure.low is not None and figure.high is not None, key
        assert not re.search(r"\.\./|^/|file:|\bmy\b|localhost", figure.source + figure.note), key


@each_system
def test_peaks_are_dense_and_links_one_way(name: str) -> None:
    system = load_hardware(name).system
    peak = {dtype: part.peak.value for dtype, part in system.device.compute.items()}
    wide = peak.get("bf16", peak.get("fp16"))
    assert wide is not None
    for dtype, factor in (("fp8", 2), ("int8", 2), ("fp4", 4), ("int4", 4)):
        if dtype in peak and (system.device.id, dtype) not in FASTER_THAN_USUAL:
            assert peak[dtype] <= 1.03 * factor * wide
    assert all(part.counting == "dense" for part in system.device.compute.values())
    assert all(link.direction == "one-way" for link in system.links)
    assert all(domain.direction == "one-way" for domain in system.domains)


@each_system
def test_domains_are_nested_and_end_with_the_scale_out_network(name: str) -> None:
    domains = load_hardware(name).system.domains
    assert domains[-1].devices is None
    sizes = [domain.devices for domain in domains[:-1] if domain.devices is not None]
    assert sizes == sorted(sizes) and len(sizes) == len(domains) - 1


def test_names_and_aliases_are_unique_among_systems_and_among_devices() -> None:
    for kinds in (("node", "rack"), ("device",)):
        rows = list_hardware(kinds=kinds)
        names = [name for row in rows for name in (row.id, *row.aliases)]
        assert len(names) == len(set(names))
        assert not any(row.fault for row in rows)


def test_list_hardware_by_origin() -> None:
    assert {row.id for row in list_hardware()} == {path.stem for path in SYSTEMS}
    assert {"cloudmatrix384", "atlas-800-a2"} <= {row.id for row in list_hardware(origin="domestic")}
    assert "h800-node" in {row.id for row in list_hardware(origin="western")}
    assert {row.id for row in list_hardware(kinds=("device",))} == {path.stem for path in DEVICES}
    with pytest.raises(InputError, match="domestic or western"):
        list_hardware(origin="eastern")


def test_key_figures() -> None:
    h800 = load_hardware("h800-node").system
    assert h800.device.compute["fp8"].peak.value == 1979e12
    assert h800.tier("hbm").usable.value == 81559 * 2**20
    assert h800.domains[0].bandwidth.value == 200e9
    assert h800.domains[0].bandwidth.value * h800.domains[0].p2p_efficiency.value == pytest.approx(160e9)
    ascend = load_hardware("cloudmatrix384").system
    assert "fp8" not in ascend.device.compute
    assert ascend.device.compute["int8"].peak.value == pytest.approx(1415.6e12 / 2)
    assert (ascend.devices, ascend.devices_per_node, ascend.devices_per_package) == (768, 16, 2)
    assert [domain.devices for domain in load_hardware("gb200-nvl72").system.domains] == [72, None]


# --- memory: who owns it, and what is left when all stream ------------------------------------------------------


@each_system
def test_shared_memory_is_owned_once(name: str) -> None:
    system = load_hardware(name).system
    for tier in system.tiers:
        assert (tier.owner == "device") == (tier.role == "device")
        assert tier.role == "device" or tier.devices_sharing > 1 or system.devices_per_node == 1
    assert not any(isinstance(value, Figure) and key == "usable" for key, value in figures(system.device))
    graph = system.graph()
    for tier in system.tiers:
        copies = [node for node, data in graph.nodes(data=True) if data["kind"] == "tier" and data["part"].id == tier.id]
        assert len(copies) == max(1, system.devices_per_node // tier.devices_sharing)


def test_grace_memory_is_counted_once_for_its_two_gpus() -> None:
    system = load_hardware("gb200-nvl72").system
    host = system.tier("host")
    assert host.usable.value * system.devices / host.devices_sharing == pytest.approx(36 * 480e9)


def test_tier_rate_by_hand() -> None:
    h800 = load_hardware("h800-node").system
    host = 307.2e9 * 0.8 / 4
    expected = {
        "hbm": [("hbm", 3.35e12 * 0.89)],
        "host": [("host", host), ("pcie", 63e9 * 0.88)],
        # the drives' bytes go into host memory and out again
        "ssd": [("ssd", 56e9 * 0.8 / 8), ("nvme", 63e9 * 0.9 / 8), ("host", host / 2), ("pcie", 63e9 * 0.88)],
    }
    for tier, rates in expected.items():
        found = h800.tier_rate(tier)
        assert [name for name, _ in found] == [name for name, _ in rates]
        assert [rate for _, rate in found] == pytest.approx([rate for _, rate in rates])
    grace = dict(load_hardware("gb200-nvl72").system.tier_rate("host"))
    assert min(grace, key=lambda name: grace[name]) == "host"
    assert grace["host"] == pytest.approx(389e9 * 0.92 / 2)
    assert 170e9 <= grace["host"] <= 180e9  # what two streaming GPUs are reported to get each
    with pytest.raises(KeyError):
        h800.tier_rate("tape")


def test_topology_graph() -> None:
    system = load_hardware("h800-node").system
    graph = system.graph()
    kinds = [data["kind"] for _, data in graph.nodes(data=True)]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"device": 8, "tier": 8 + 2 + 1, "link": 8 + 1, "domain": 2}
    assert set(graph.predecessors("device:5")) == {"hbm@5", "pcie@5", "domain:nvlink", "domain:scale-out"}
    assert list(graph.predecessors("pcie@5")) == ["host@1"]
    assert list(graph.predecessors("host@1")) == ["nvme@0"]
    assert list(graph.predecessors("nvme@0")) == ["ssd@0"]
    assert graph.nodes["host@1"]["sharers"] == [4, 5, 6, 7]
    assert graph.nodes["host@1"]["part"] == system.tier("host")
    assert graph.graph["groups"]["pcie-switch@5"] == ["pcie@5", "domain:scale-out"]


def test_graph_of_a_rack_shows_one_node() -> None:
    graph = load_hardware("gb200-nvl72").system.graph()
    assert [node for node in graph if node.startswith("device:")] == [f"device:{i}" for i in range(4)]
    assert {node for node in graph if node.startswith("host@")} == {"host@0", "host@1"}


# --- curves ---------------------------------------------------------------------------------------------------


def curve(points: list[tuple[float, float]], **changes: Any) -> Curve:
    base: dict[str, Any] = {"low_factor": 0.9, "high_factor": 1.1, "source": "s", "as_of": "2026-01-01", "grade": "A"}
    return Curve.model_validate({"points": points, **base, **changes})


@pytest.mark.parametrize("name", [path.stem for path in DEVICES])
def test_more_rows_never_take_less_time(name: str) -> None:
    rows = np.geomspace(1, 1e6, 2000)
    for part in load_device(name).compute.values():
        fraction = part.gemm.fraction(rows)
        assert np.all((fraction > 0) & (fraction <= 1))
        assert np.all(np.diff(fraction) >= -1e-12)
        assert np.all(np.diff(rows / fraction) >= -1e-9)


def test_curve_is_log_log_and_flat_outside() -> None:
    found = curve([(1, 0.01), (100, 0.5)])
    assert found.fraction(10) == pytest.approx(math.sqrt(0.01 * 0.5))
    assert found.fraction(0.2) == pytest.approx(0.01)
    assert found.fraction(1e9) == pytest.approx(0.5)
    assert found.fraction(100, factor=3.0) == 1.0
    assert found.fraction(np.array([1.0, 100.0])) == pytest.approx([0.01, 0.5])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(1, 0.5), (2, 0.4)], "falls"),
        ([(1, 0.1), (2, 0.3)], "faster than M"),
        ([(2, 0.1), (1, 0.1)], "must rise"),
        ([(1, 1.2)], "at most 1"),
        ([(0.5, 0.1)], "at least 1"),
        ([], "at least 1 item"),
    ],
)
def test_curve_refuses(points: list[tuple[float, float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        curve(points)


def test_estimated_curve_needs_an_interval() -> None:
    with pytest.raises(ValueError, match="interval"):
        curve([(1, 0.1)], grade="C", high_factor=1.0)


# --- names ----------------------------------------------------------------------------------------------------


def test_name_and_count() -> None:
    assert load_hardware("h800-node").devices == 8
    two = load_hardware("h800-node:2")
    assert (two.system.id, two.count, two.devices, two.auto) == ("h800-node", 2, 16, False)
    assert load_hardware("h800:3").devices == 24
    assert load_hardware("gb200").system.id == "gb200-nvl72"
    assert load_hardware("H100-SXM").system.id == "h100-node"
    assert load_hardware("h100-node:auto").auto
    assert isinstance(two, HardwareSelection)
    assert HardwareSelection.model_validate(two.model_dump(mode="json"), context={"si": True}) == two


@pytest.mark.parametrize("name", ["h800-node:0", "h800-node:-1", "h800-node:1.5", "h800-node:x", "h800-node:99999999", ":2", ""])
def test_bad_count_or_name(name: str) -> None:
    with pytest.raises(InputError) as caught:
        load_hardware(name)
    assert "\n" not in str(caught.value)


def test_nearest_names() -> None:
    with pytest.raises(InputError, match="unknown hardware 'h80-node'; did you mean h800-node"):
        load_hardware("h80-node")
    with pytest.raises(InputError, match="is a device; name a system that holds it: .*cloudmatrix384"):
        load_hardware("ascend-910c-die")
    with pytest.raises(InputError, match="unknown device 'h801-sxm'; did you mean h800-sxm"):
        load_device("h801-sxm")


# --- profiles of one's own -------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., Path]:
    """Write a profile that extends the H800 node, with text changes."""

    def write(
        text: str, name: str = "mine.toml", head: str = 'schema = 1\nkind = "node"\nid = "mine"\nextends = "h800-node"\n'
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head + text, encoding="utf-8")
        return path

    return write


FIGURE = 'source = "s", as_of = 2026-01-01, grade = "A"'


def refused(path: Path, *parts: str, where: str = "") -> None:
    """Loading fails with one line that names the file (or the one of its bases that is at fault) and the parts."""
    with pytest.raises(InputError) as caught:
        load_hardware(path)
    text = str(caught.value)
    assert "\n" not in text
    assert (where or path.name) in text
    for part in parts:
        assert part in text, text


def test_extends_replaces_whole_figures_and_keeps_the_rest(mine: Callable[..., Path]) -> None:
    path = mine(f'power = {{ value = "9 kW", {FIGURE} }}\n[[tier]]\nid = "host"\nread = {{ value = "500 GB/s", {FIGURE} }}\n')
    system = load_hardware(path).system
    base = load_hardware("h800-node").system
    assert system.power.value == 9e3 and system.power.low is None
    assert system.tier("host").read.value == 500e9
    assert system.tier("host").usable == base.tier("host").usable
    assert system.tier("ssd") == base.tier("ssd")
    assert system.aliases == () and system.id == "mine"


def test_paths_counts_and_folders(mine: Callable[..., Path]) -> None:
    path = mine("")
    assert load_hardware(f"{path}:4").devices == 32
    assert load_hardware("mine:2", folders=[path.parent]).devices == 16
    assert "mine" in {row.id for row in list_hardware(folders=[path.parent])}
    with pytest.raises(InputError, match="unknown hardware 'mine'"):
        load_hardware("mine")


def test_a_profile_may_extend_the_built_in_of_its_own_name(mine: Callable[..., Path]) -> None:
    path = mine(
        f'power = {{ value = "9 kW", {FIGURE} }}\n',
        "h800-node.toml",
        'schema=1\nkind="node"\nid="h800-node"\nextends="h800-node"\n',
    )
    assert load_hardware("h800-node", folders=[path.parent]).system.power.value == 9e3


def test_device_beside_or_below_the_system(mine: Callable[..., Path]) -> None:
    head = 'schema = 1\nkind = "device"\nid = "chip"\nextends = "h800-sxm"\n'
    peak = f'[compute.bf16]\npeak = {{ value = "500 TFLOP/s", note = "dense", {FIGURE} }}\n'
    slow = peak + peak.replace("bf16", "fp8").replace("500", "1000") + peak.replace("bf16", "int8").replace("500", "1000")
    mine(slow, "chip.toml", head)
    mine(slow, "parts/chip.toml", head)
    assert load_hardware(mine('device = "chip"\n')).system.device.compute["bf16"].peak.value == 500e12
    assert load_hardware(mine('device = "parts/chip.toml"\n')).system.device.id == "chip"


def test_extends_in_a_circle(mine: Callable[..., Path]) -> None:
    mine("", "a.toml", 'schema = 1\nkind = "node"\nid = "a"\nextends = "b"\n')
    path = mine("", "b.toml", 'schema = 1\nkind = "node"\nid = "b"\nextends = "a"\n')
    refused(path, "extend one another in a circle (b -> a -> b)", where="a.toml")
    refused(mine("", "c.toml", 'schema = 1\nkind = "node"\nid = "c"\nextends = "c.toml"\n'), "circle")
    faults = {row.id: row.fault for row in list_hardware(folders=[path.parent])}
    assert "circle" in faults["a"] and not faults["h800-node"]
    assert load_hardware("h800-node", folders=[path.parent]).devices == 8


def test_chain_of_bases_is_bounded(mine: Callable[..., Path]) -> None:
    for i in range(20):
        path = mine("", f"p{i + 1}.toml", f'schema = 1\nkind = "node"\nid = "p{i + 1}"\nextends = "p{i}.toml"\n')
    refused(path, "more than 16 profiles in a row", where="p5.toml")


TIER = '[[tier]]\nid = "host"\n'
LINK = '[[link]]\nid = "pcie"\n'


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("colour = 3\n", ("colour: unknown key", "remove it or correct its spelling")),
        (TIER + "bandwith = 3\n", ("tier.host.bandwith: unknown key",)),
        ("[[tiers]]\n", ("tiers: unknown key; write [[tier]]",)),
        (TIER + f'read = {{ value = "300 GB", {FIGURE} }}\n', ("tier.host.read", "unknown unit 'GB'", "GB/s")),
        (TIER + f'read = {{ value = "300", {FIGURE} }}\n', ("tier.host.read", "has no unit")),
        (TIER + f"read = {{ value = 300, {FIGURE} }}\n", ("tier.host.read", "has no unit")),
        (TIER + 'read = "300 GB/s"\n', ("tier.host.read", "a figure is a table")),
        (TIER + f'read = {{ value = "-3 GB/s", {FIGURE} }}\n', ("tier.host.read", "must be above 0")),
        (TIER + f'latency = {{ value = "-3 us", {FIGURE} }}\n', ("tier.host.latency", "must be at least 0")),
        (TIER + f"efficiency = {{ value = 1.2, {FIGURE} }}\n", ("tier.host", "efficiency: a fraction is at most 1")),
        (TIER + f'read = {{ value = "3 GB/s", low = "4 GB/s", {FIGURE} }}\n', ("tier.host.read", "low")),
        (
            TIER + 'read = { value = "3 GB/s", as_of = 2026-01-01, grade = "A" }\n',
            ("tier.host.read.source: is missing", "add it"),
        ),
        (
            TIER + 'read = { value = "3 GB/s", source = " ", as_of = 2026-01-01, grade = "A" }\n',
            ("tier.host.read", "needs a source"),
        ),
        (TIER + 'read = { value = "3 GB/s", source = "s", grade = "A" }\n', ("tier.host", "read: as_of is missing")),
        (TIER + 'read = { value = "3 GB/s", source = "s", as_of = 2026-01-01 }\n', ("tier.host.read.grade: is missing",)),
        (TIER + f'read = {{ value = "3 GB/s", {FIGURE.replace("A", "C")} }}\n', ("tier.host", "grade C needs an interval")),
        (
            TIER + f'read = {{ value = "3 GB/s", {FIGURE.replace("2026-01", "2999-01")} }}\n',
            ("tier.host.read", "2999-01-01 is later"),
        ),
        (TIER + 'via = ["warp"]\n', ("tier.host.via: 'warp' names no link",)),
        (TIER + 'role = "device"\n', ("device memory belongs in the device's profile",)),
        (TIER + 'owner = "device"\n', ("tier.host", "a device owns no host or disk memory")),
        (TIER + "devices_sharing = 3\n", ("tier.host.devices_sharing: 3 does not divide 8",)),
        (TIER + "granule_bytes = 0\n", ("tier.host.granule_bytes",)),
        (TIER + "granule_bytes = 1.5\n", ("tier.host.granule_bytes",)),
        (LINK + 'direction = "both"\n', ("link.pcie.direction", "'both' is not one-way")),
        (
            LINK + f'bandwidth = {{ value = "128 GB/s", {FIGURE} }}\n',
            ("link.pcie", "above the 64 GB/s one-way of pcie5-x16", "halve"),
        ),
        (
            f'[[domain]]\nid = "nvlink"\nbandwidth = {{ value = "900 GB/s", {FIGURE} }}\n',
            ("domain.nvlink", "halve a bidirectional figure"),
        ),
        ('[[domain]]\nid = "nvlink"\ndevices = 16\n', ("domain.nvlink", "more devices than the system")),
        ('[[domain]]\nid = "far"\n', ("domain.far.direction: is missing",)),
        ("devices = 0\n", ("devices",)),
        ("devices = true\n", ("devices",)),
        ("devices = 1e300\n", ("devices",)),
        ("devices_per_node = 5\n", ("devices_per_node: 5 does not divide 8",)),
        ("status = 'used'\n", ("status", "shipping")),
        ("device = 'h801-sxm'\n", ("device: unknown device 'h801-sxm'", "did you mean h800-sxm")),
        ("device = 'h800-node'\n", ("device: unknown device",)),
        ("device = '../x.toml'\n", ("device: '../x.toml' leaves the folder",)),
        ("device = '/etc/passwd.toml'\n", ("leaves the folder",)),
        ("device = '..'\n", ("device: '..' is no profile id",)),
        ('device = "a\\u0000b.toml"\n', ("holds the unprintable character U+0000",)),
        ("device = 7\n", ("device: expected the id of a profile",)),
        ("device = { id = 'x' }\n", ("device",)),
        ("tier = 3\n", ("tier: expected [[tier]] tables",)),
        (TIER + "x = 1\n" + TIER, ("tier.host.x: unknown key",)),
    ],
)
def test_refuses(mine: Callable[..., Path], text: str, parts: tuple[str, ...]) -> None:
    refused(mine(text), *parts)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ('schema = 2\nkind = "node"\nid = "x"\nextends = "h800-node"\n', "schema: expected 1, got 2"),
        ('kind = "node"\nid = "x"\nextends = "h800-node"\n', "schema: expected 1, got None"),
        (
            'schema = 1\nid = "x"\nextends = "h800-node"\n',
            "kind: expected device, node, rack, memory, interconnect or site, got None",
        ),
        ('schema = 1\nkind = "node"\nextends = "h800-node"\n', "id: is missing"),
        ('schema = 1\nkind = "node"\nid = "../x"\nextends = "h800-node"\n', "id"),
        ('schema = 1\nkind = "node"\nid = "x"\n', "device: is missing"),
        (
            'schema = 1\nkind = "node"\nid = "x"\nextends = "h80-node"\n',
            "extends: unknown profile 'h80-node'; did you mean h800-node",
        ),
        ('schema = 1\nkind = "node"\nid = "x"\nextends = ["h800-node"]\n', "extends: expected the id of a profile"),
        ('schema = 1\nkind = "node"\nid = "x"\nextends = "../other/x.toml"\n', "leaves the folder of the profile"),
        ('schema = 1\nkind = "device"\nid = "x"\nextends = "h800-sxm"\n', "is a device, not a system"),
        ("this is not TOML", "is not TOML"),
        ("", "kind: expected device, node, rack"),
    ],
)
def test_refuses_head(mine: Callable[..., Path], head: str, part: str) -> None:
    refused(mine("", head=head), part)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[compute.fp8]\ncounting = "sparse"\n', "sparse"),
        (f'[compute.fp8]\npeak = {{ value = "3958 TFLOP/s", {FIGURE} }}\n', "looks like a sparse figure"),
        ("[compute.fp9]\n", "compute.fp9"),
        (f'[[memory]]\nid = "hbm"\nusable = {{ value = "80 GB", {FIGURE} }}\n', "the label on the box"),
        ('[[memory]]\nid = "hbm"\nowner = "cpu"\n', "memory.hbm"),
        ('[[memory]]\nid = "hbm"\ndevices_sharing = 2\n', "memory.hbm"),
        ('[[memory]]\nid = "hbm"\nrole = "host"\nowner = "cpu"\n', "a device names only memory it owns"),
    ],
)
def test_device_truth_rules(mine: Callable[..., Path], text: str, part: str) -> None:
    path = mine(text, head='schema = 1\nkind = "device"\nid = "x"\nextends = "h800-sxm"\n')
    with pytest.raises(InputError, match=re.escape(part)):
        read_profile(path)


def test_future_profile_is_refused_when_the_date_is_known(mine: Callable[..., Path]) -> None:
    path = mine("as_of = 2999-01-01\n")
    assert isinstance(read_profile(path), System)
    with pytest.raises(InputError, match="as_of: 2999-01-01 lies in the future"):
        read_profile(path, today=date(2026, 11, 22))


def test_json_schema_is_available() -> None:
    assert {"tiers", "links", "domains", "device", "power", "capex"} <= set(System.model_json_schema()["properties"])
    assert "memory" in DeviceProfile.model_json_schema()["properties"]


# --- hostile files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"x = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
        (b"x = '" + b"a" * 2**21 + b"'", "larger than"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"x = '\x00'", "NUL"),
        (b"x = " + b"9" * 5000, "is not TOML"),
        (b"a.b.c = 1\na = 2", "is not TOML"),
        (b"devices = " + b"9" * 30, "integer beyond 64 bits"),
    ],
)
def test_hostile_file(tmp_path: Path, data: bytes, part: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    refused(path, part)
    assert "bad" in {row.id for row in list_hardware(folders=[tmp_path]) if row.fault}
    assert load_hardware("h800-node", folders=[tmp_path]).devices == 8


def test_what_is_not_a_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.toml", "no such file")
    (tmp_path / "folder.toml").mkdir()
    refused(tmp_path / "folder.toml", "is a folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.toml")
        refused(tmp_path / "pipe.toml", "not a regular file")
    with pytest.raises(InputError, match="is not a folder"):
        list_hardware(folders=[tmp_path / "none"])


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_links_out_of_the_folder(tmp_path: Path, mine: Callable[..., Path]) -> None:
    outside = mine("", "outside/secret.toml")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "secret.toml").symlink_to(outside)
    (inside / "loop.toml").symlink_to(inside / "loop.toml")
    head = 'schema = 1\nkind = "node"\nid = "x"\nextends = "secret.toml"\n'
    refused(mine("", "inside/x.toml", head), "leaves the folder of the profile")
    refused(mine("", "inside/x.toml", head.replace(".toml", "")), "extends: unknown profile 'secret'")
    refused(mine("", "inside/x.toml", head.replace("secret", "loop")), "cannot be read", where="loop.toml")
    assert "secret" not in {row.id for row in list_hardware(folders=[inside])}


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES, data=st.data())
def test_any_leaf_replaced_is_an_answer_or_an_input_error(
    value: object, data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import copy
    import tomllib

    from planner.hardware import source

    table = tomllib.loads(to_toml(load_hardware("h800-node").system))
    table = copy.deepcopy(table)
    part: Any = table
    while True:
        keys = sorted(part) if isinstance(part, dict) else list(range(len(part)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(part[key], dict | list) and part[key] and data.draw(st.integers(0, 4)):
            part = part[key]
            continue
        part[key] = value
        break
    path = tmp_path / "fuzz.toml"
    path.write_text("", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(source, "parse_toml", lambda text, where: table)
        try:
            profile = read_profile(path)
        except InputError as error:
            assert "\n" not in str(error)
        else:
            assert isinstance(profile, System | DeviceProfile)
