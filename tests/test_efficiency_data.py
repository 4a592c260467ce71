"""Achieved efficiency as data: the measured points, the lines through them, what stands where nothing is measured."""

from __future__ import annotations

import importlib.util
import math
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from planner import load_hardware, resolve
from planner.errors import InputError
from planner.hardware import list_hardware, read_profile
from planner.hardware.defaults import ASKED, class_defaults, class_of_domain, with_class_defaults
from planner.hardware.lint import lint
from planner.hardware.schema import CLASS_DEFAULT, Curve, Domain
from planner.performance.collectives import all_reduce, all_to_all, point_to_point
from planner.performance.rates import Level, level_of, perturb
from planner.plans.provenance import provenance_of
from planner.quantities import Figure
from planner.runtimes import load_runtime

EVIDENCE = 'source = "data sheet", as_of = 2025-03-01, grade = "A"'


def script() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / ".ci" / "collective_fit.py"
    spec = importlib.util.spec_from_file_location("collective_fit", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FIT = script()
POINTS = FIT.points()
FIGURES = FIT.figures()
LEVELS = {
    f"{row.id}/{domain.id}": level_of(domain)
    for row in list_hardware()
    for domain in load_hardware(row.id).system.domains
    if domain.bandwidth.known and domain.latency.known
}


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


# --- the measured points and the figures of the profiles ---------------------------------------------------------


@pytest.mark.parametrize("key", FIGURES, ids="/".join)
def test_the_profile_says_what_the_points_give(key: tuple[str, str, str]) -> None:
    part, derived = FIGURES[key]
    figure = getattr(part, key[2])
    assert figure is not None, "the profile has no such figure; run .ci/collective_fit.py figures"
    assert figure.value == pytest.approx(derived.value, rel=1e-9)
    assert figure.lowest <= derived.low * (1 + 1e-9) and figure.highest >= derived.high * (1 - 1e-9)
    assert not figure.source.startswith(CLASS_DEFAULT)


def test_the_table_of_points_is_sourced_and_says_how_bytes_are_counted() -> None:
    assert len(POINTS) > 300
    conventions = {"payload", "buffer", "per-expert", "per-rank", "logical", "busbw", "physical", "unstated"}
    for point in POINTS:
        row = point.row
        assert row["convention"] in conventions and row["unit"] in ("us", "GB/s") and row["grade"] in ("A", "B", "C")
        assert row["source"] and "../" not in row["source"] and date.fromisoformat(row["as_of"]) <= date(2026, 11, 22)
        assert row["fitted"] == "yes" or row["note"], "a point left out says why"
        assert row["fitted"] == "no" or (point.seconds > 0) != (point.rate > 0)
        assert row["convention"] != "unstated" or row["fitted"] == "no"
    kinds = {point.row["kind"] for point in POINTS}
    assert kinds == {"allreduce", "alltoall", "p2p", "read", "write", "both"}


def test_bytes_of_a_point_by_hand() -> None:
    row = {"system": "h100-node", "place": "nvlink", "kind": "alltoall", "operation": "", "devices": "8", "groups": "8"}
    row |= {"tokens": "128", "top_k": "8", "bytes": "100", "value": "10", "unit": "us", "convention": "per-expert"}
    assert FIT.point_of(row).wire == pytest.approx(128 * 8 * 100 * 7 / 8)
    distinct = 8 * (1 - (7 / 8) ** 8)
    assert FIT.point_of(row | {"convention": "per-rank"}).wire == pytest.approx(128 * distinct * 100 * 7 / 8)
    assert FIT.point_of(row | {"convention": "buffer"}).wire == pytest.approx(100 * 7 / 8)
    reduce = FIT.point_of(row | {"kind": "allreduce", "convention": "payload"})
    assert (reduce.wire, reduce.one_step) == pytest.approx((2 * 7 / 8 * 100, 7 * 100))
    logical = FIT.point_of(row | {"convention": "logical", "unit": "GB/s", "value": "80"})
    assert (logical.rate, logical.seconds) == (pytest.approx(70e9), 0.0)
    mesh = FIT.point_of(row | {"system": "mi300x-node", "place": "xgmi", "devices": "2", "convention": "busbw", "unit": "GB/s"})
    assert mesh.rate == pytest.approx(7 * 10e9)  # one link of seven


@pytest.mark.parametrize("one_step", [False, True])
def test_the_fit_finds_the_line_that_points_lie_on(one_step: bool) -> None:
    bandwidth, share, startup, first = 450e9, 0.6, 9e-6, 3e-6
    chosen = []
    for size in (256, 16384, 131072, 2**21, 2**23, 2**25, 2**27):
        steps, single = startup + 1.75 * size / (share * bandwidth), first + 7 * size / (share * bandwidth)
        row = {"system": "h100-node", "place": "nvlink", "kind": "allreduce"}
        chosen.append(FIT.Point(row, min(steps, single) if one_step else steps, 0.0, 1.75 * size, 7.0 * size))
    found = FIT.derive(chosen)
    assert found["allreduce_efficiency"].value == pytest.approx(share, rel=0.01)
    assert found["allreduce_startup"].value == pytest.approx(startup, rel=0.01)
    if one_step:
        assert found["oneshot_startup"].value == pytest.approx(first, rel=0.01)


def test_planner_is_near_the_points_it_rests_on() -> None:
    grouped: dict[tuple[str, str, str], list[float]] = {}
    for point in POINTS:
        if point.row["fitted"] == "yes":
            ratio = FIT.predicted(point) / float(point.row["value"])
            grouped.setdefault((point.row["system"], point.row["place"], point.row["kind"]), []).append(ratio)
            assert 0.28 < ratio < 2.0, point.row
    for key, ratios in grouped.items():
        assert 0.75 < float(np.median(ratios)) < 1.25, key


# --- time over startup and bytes ---------------------------------------------------------------------------------


def test_startups_by_hand() -> None:
    level = Level("node", 8, 100e9, 50e9, 20e9, 1e-6, False, 10e-6, 3e-6, 7e-6, 5e-6)
    small, large = 1e3, 1e8
    assert float(all_reduce(column(8), column(small), (level,))[0]) == pytest.approx(3e-6 + 7 * small / 100e9)
    assert float(all_reduce(column(8), column(large), (level,))[0]) == pytest.approx(10e-6 + 1.75 * large / 100e9)
    assert float(point_to_point(1e6, column(1), (level,))[0]) == pytest.approx(5e-6 + 1e6 / 20e9)
    found = float(all_to_all(column(8), column(100), 1e3, [column(5)], (level,))[0])
    assert found == pytest.approx(2 * 7e-6 + 100 * 5 * 7 / 8 * 1e3 / 50e9)


def test_a_measured_startup_holds_for_the_whole_group_and_latencies_add() -> None:
    inner = Level("node", 8, 1e12, 1e12, 1e12, 1e-6)
    outer = Level("net", math.inf, 1e12, 1e12, 1e12, 4e-6)
    copies = [column(1.0), column(1.0)]
    assert float(all_to_all(column(16), column(0), 1.0, copies, (inner, outer))[0]) == pytest.approx(2 * 5e-6)
    measured = Level("net", math.inf, 1e12, 1e12, 1e12, 4e-6, alltoall_startup=3e-5)
    assert float(all_to_all(column(16), column(0), 1.0, copies, (inner, measured))[0]) == pytest.approx(2 * 3e-5)
    slow_inside = Level("node", 8, 1e12, 1e12, 1e12, 1e-6, alltoall_startup=5e-5)
    assert float(all_to_all(column(16), column(0), 1.0, copies, (slow_inside, measured))[0]) == pytest.approx(2 * 5e-5)


def test_without_startups_an_operation_waits_its_latencies() -> None:
    level = Level("node", 8, 100e9, 50e9, 20e9, 1e-6)
    assert float(all_reduce(column(8), column(0), (level,))[0]) == pytest.approx(2e-6)
    assert float(all_to_all(column(8), column(0), 1.0, [column(5)], (level,))[0]) == pytest.approx(2e-6)
    assert float(point_to_point(0.0, column(1), (level,))[0]) == pytest.approx(1e-6)


@pytest.mark.parametrize("name", LEVELS)
def test_more_bytes_or_devices_never_take_less_time(name: str) -> None:
    level = LEVELS[name]
    most = 64 if math.isinf(level.devices) else int(level.devices)
    sizes = np.geomspace(16, 1e9, 60)
    groups = column(*sorted({n for n in (2, 3, 4, 6, 8, 16, 32, 64, most) if n <= most}))
    for group in groups:
        assert (np.diff(all_reduce(np.full_like(sizes, group), sizes, (level,))) >= 0).all()
        assert (np.diff(all_to_all(np.full_like(sizes, group), sizes, 64.0, [np.full_like(sizes, 2.0)], (level,))) >= 0).all()
    if most > 1:
        assert (np.diff(point_to_point(sizes, np.ones_like(sizes), (level,))) >= 0).all()
    if level.mesh:  # a larger group of a mesh has more links and may be faster
        return
    for size in sizes[::6] if most > 1 else ():
        assert (np.diff(all_reduce(groups, np.full_like(groups, size), (level,))) >= -1e-15).all()
        assert (
            np.diff(all_to_all(groups, np.full_like(groups, size), 64.0, [np.full_like(groups, 2.0)], (level,))) >= -1e-15
        ).all()


@pytest.mark.parametrize("name", ["h100-node", "mi300x-node", "gb200-nvl72", "rtx-pro-6000-node"])
def test_slower_networks_never_take_less_time(name: str) -> None:
    domain = load_hardware(name).system.domains[0]
    slow = domain.model_copy(update={"bandwidth": domain.bandwidth.model_copy(update={"value": 0.5 * domain.bandwidth.value})})
    for size in np.geomspace(16, 1e9, 20):
        for group in (2.0, 4.0, 8.0):
            arguments = (column(group), column(size))
            assert all_reduce(*arguments, (level_of(slow),)) >= all_reduce(*arguments, (level_of(domain),))


def test_the_slow_end_of_the_network_moves_startups_too() -> None:
    system, runtime = load_hardware("h100-node").system, load_runtime("generic")
    ends = {end: level_of(perturb(system, runtime, "network", end)[0].domains[0]) for end in ("low", "high")}  # type: ignore[arg-type]
    for key in ("allreduce_startup", "oneshot_startup", "alltoall_startup"):
        assert getattr(ends["low"], key) > getattr(level_of(system.domains[0]), key) >= getattr(ends["high"], key)


def test_in_graph_and_ring_all_reduce_of_an_h100_node() -> None:
    level = LEVELS["h100-node/nvlink"]
    few = float(all_reduce(column(8), column(256), (level,))[0])
    assert 2.5e-6 < few < 5e-6
    rate = 1.75 * 2**30 / float(all_reduce(column(8), column(2**30), (level,))[0])
    assert 300e9 < rate < 450e9


# --- links ------------------------------------------------------------------------------------------------------


def test_links_carry_their_other_direction_and_both_at_once() -> None:
    c2c = load_hardware("gb300-nvl72").system.link("c2c")
    assert c2c.both_ways is not None and c2c.both_ways.value == 173e9 and c2c.reverse_efficiency is not None
    pcie = load_hardware("h100-node").system.link("pcie")
    assert pcie.reverse_efficiency is not None and pcie.reverse_efficiency.value <= pcie.efficiency.value


LINK = """schema = 1
kind = "node"
extends = "h100-node"
id = "mine"
name = "Mine"
as_of = 2026-11-20
[[link]]
id = "pcie"
"""


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f'both_ways = {{ value = "70 GB/s", {EVIDENCE} }}', "above the link's bandwidth"),
        (f'duplex = "half"\nboth_ways = {{ value = "40 GB/s", {EVIDENCE} }}', "half the bandwidth of a half duplex link"),
        (f"reverse_efficiency = {{ value = 1.2, {EVIDENCE} }}", "a fraction is at most 1"),
        ('both_ways = "class-default"', "a figure is a table"),
    ],
)
def test_lint_knows_the_new_keys(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{LINK}{line}\n")
    found = [str(each) for each in lint(path, today=date(2026, 11, 22))]
    assert len(found) == 1 and fault in found[0] and "link.pcie" in found[0]
    with pytest.raises(InputError, match=fault):
        read_profile(path)


# --- where nothing is measured -----------------------------------------------------------------------------------


def grade_of_default(source: str) -> str:
    """D where nothing was read, else C."""
    return "D" if source.endswith("unverified") and "README" not in source else "C"


def test_every_class_default_is_of_grade_c_or_d_with_an_interval_and_its_derivation() -> None:
    for sort in ("tier", "link", "domain"):
        for name, rules in class_defaults()[sort].items():
            for key, figure in rules.items():
                if isinstance(figure, dict):
                    assert figure["grade"] == grade_of_default(figure["source"]), (name, key)
                    assert {"low", "high"} <= set(figure) and len(figure["source"]) > 20, (name, key)
    for rules in class_defaults()["gemm"].values():
        assert rules["grade"] == "C" and rules["low_factor"] < 1.0 < rules["high_factor"] and rules["source"]


MINE = """schema = 1
kind = "node"
extends = "h100-node"
id = "mine"
name = "Mine"
as_of = 2026-11-20
[[tier]]
id = "host"
efficiency = "class-default"
[[domain]]
id = "nvlink"
alltoall_efficiency = "class-default"
alltoall_startup = "class-default"
"""


def mine(tmp_path: Path, text: str = MINE) -> Any:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    assert lint(path, today=date(2026, 11, 22)) == []
    return load_hardware(path)


def test_a_class_default_is_marked_and_widens_the_interval(tmp_path: Path) -> None:
    system = mine(tmp_path).system
    for figure in (system.tier("host").efficiency, system.domains[0].alltoall_efficiency, system.domains[0].alltoall_startup):
        assert figure.source.startswith(CLASS_DEFAULT) and figure.low < figure.value < figure.high
        assert figure.grade == grade_of_default(figure.source)
    measured = load_hardware("h100-node").system.domains[0].alltoall_efficiency
    stood = system.domains[0].alltoall_efficiency
    assert stood.high / stood.low > measured.highest / measured.lowest
    assert not system.domains[0].allreduce_efficiency.source.startswith(CLASS_DEFAULT)


def test_provenance_lists_a_class_default(tmp_path: Path) -> None:
    problem = resolve("llama-3.1-70b", mine(tmp_path))
    provenance = provenance_of(problem)
    path = "hardware.mixed.system.domains.nvlink.alltoall_efficiency"
    rows = [
        row for row in provenance["sources"] if any(figure.endswith("nvlink.alltoall_efficiency") for figure in row["figures"])
    ]
    assert [row["grade"] for row in rows] == ["C"] and rows[0]["source"].startswith(CLASS_DEFAULT), path
    assert any(row["figure"].endswith("nvlink.alltoall_efficiency") and row["low"] for row in provenance["estimates"])
    again = type(problem).model_validate(problem.model_dump(mode="json"), context={"si": True})
    assert again == problem


WHOLE = f"""schema = 1
kind = "node"
id = "mine"
name = "Mine"
vendor = "Me"
origin = "western"
status = "shipping"
as_of = 2025-03-01
device = "h100-sxm"
devices = 4
devices_per_node = 4
purchasable_devices = 4
power = {{ value = "4 kW", {EVIDENCE} }}
capex = {{ value = "40 kUSD", {EVIDENCE} }}
capex_basis = "capex_street"
[[tier]]
id = "host"
kind = "ddr"
role = "host"
owner = "cpu"
devices_sharing = 4
usable = {{ value = "1 TB", {EVIDENCE} }}
read = {{ value = "300 GB/s", {EVIDENCE} }}
latency = {{ value = "0.1 us", {EVIDENCE} }}
granule_bytes = 64
via = ["pcie"]
[[link]]
id = "pcie"
kind = "pcie"
generation = "pcie5-x16"
between = ["device", "cpu"]
direction = "one-way"
bandwidth = {{ value = "63 GB/s", {EVIDENCE} }}
devices_sharing = 1
latency = {{ value = "1 us", {EVIDENCE} }}
duplex = "full"
[[domain]]
id = "mesh"
devices = 4
direction = "one-way"
bandwidth = {{ value = "300 GB/s", {EVIDENCE} }}
latency = {{ value = "1 us", {EVIDENCE} }}
topology = "mesh"
network = "own"
"""


def test_a_users_file_may_leave_every_efficiency_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="as_of"):  # the device's figures are later than the file, not those of the classes
        mine_path = tmp_path / "early.toml"
        mine_path.write_text(WHOLE)
        load_hardware(mine_path)
    system = mine(tmp_path, WHOLE.replace("as_of = 2025-03-01\ndevice", "as_of = 2026-11-20\ndevice")).system
    assert system.tier("host").efficiency.value == class_defaults()["tier"]["ddr"]["efficiency"]["value"]
    assert system.link("pcie").efficiency.source.startswith(CLASS_DEFAULT)
    mesh = system.domains[0]
    assert mesh.p2p_efficiency.value == pytest.approx(0.85 / 3, rel=1e-4)
    assert mesh.alltoall_startup is None  # only what must be there is filled in unasked
    assert resolve("llama-3.1-70b", "h100-node") is not None


def test_the_date_of_a_class_default_is_its_own(tmp_path: Path) -> None:
    early = MINE.replace("2026-11-20", "2026-11-19")
    with pytest.raises(InputError, match="later than the profile"):
        path = tmp_path / "early.toml"
        path.write_text(early.replace("2026-11-19", "2026-01-01"))
        load_hardware(path)
    domain = {"id": "x", "network": "ib-400g", "topology": "switch"}
    filled = with_class_defaults({"domains": [domain]})["domains"][0]
    assert filled["p2p_efficiency"]["as_of"] > date(2026, 1, 1)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"network": "nvlink7", "topology": "switch", "devices": 8}, "nvlink"),
        ({"network": "nvlink5", "topology": "switch"}, "rdma"),
        ({"network": "pcie5-x16", "topology": "switch", "devices": 8}, "pcie"),
        ({"network": "xgmi", "topology": "mesh", "devices": 8}, "mesh"),
        ({"network": "ici", "topology": "torus", "devices": 64}, "torus"),
        ({"network": "own", "topology": "switch", "devices": 8}, "switch"),
    ],
)
def test_the_class_of_a_domain(row: dict[str, Any], name: str) -> None:
    assert class_of_domain(row) == name


def test_a_curve_by_class_rises_with_memory_to_its_plateau() -> None:
    memory = [{"kind": "hbm", "read": {"value": "3.35 TB/s"}}]
    for dtype, plateau in (("bf16", 0.82), ("fp8", 0.65), ("int8", 0.7), ("fp4", 0.45)):
        part = {"dtype": dtype, "peak": {"value": "1000 TFLOP/s"}}
        for asked in (part, part | {"gemm": ASKED}):
            curve = Curve.model_validate(
                with_class_defaults({"memory": memory, "compute": {dtype: asked}})["compute"][dtype]["gemm"]
            )
            assert curve.source.startswith(CLASS_DEFAULT) and curve.grade == "C"
            assert curve.fraction(4096.0) == pytest.approx(plateau, rel=0.01)
            width = {"bf16": 2.0, "fp4": 0.5}.get(dtype, 1.0)
            assert curve.fraction(1.0) == pytest.approx(2 * 3.35e12 * 0.84 / (width * 1e15), rel=0.01)


def test_a_device_whose_peak_is_unknown_still_gets_a_curve() -> None:
    compute = {"bf16": {"peak": {"unknown": "not published", "as_of": date(2026, 11, 1)}}}
    curve = Curve.model_validate(
        with_class_defaults({"memory": [{"kind": "hbm"}], "compute": compute})["compute"]["bf16"]["gemm"]
    )
    assert curve.fraction(4096.0) == pytest.approx(0.82, rel=0.01)


def test_what_has_no_class_is_asked_for() -> None:
    assert with_class_defaults({"tiers": [{"kind": "tape"}]}) == {"tiers": [{"kind": "tape"}]}
    assert with_class_defaults({"compute": {"int2": {}}}) == {"compute": {"int2": {}}}
    for odd in ({"tiers": 3}, {"links": [4, None]}, {"compute": [1]}, {"compute": {"bf16": 3}}, {"domains": [{"devices": "x"}]}):
        assert with_class_defaults(odd).keys() == odd.keys()


def test_profiles_refer_to_a_default_and_no_longer_repeat_it() -> None:
    marked = 0
    for row in list_hardware():
        system = load_hardware(row.id).system
        for part in (*system.tiers, *system.links, *system.domains):
            for key, figure in part:
                if isinstance(figure, Figure) and figure.note.startswith("class default: "):
                    marked += 1
                    assert figure.source.startswith(CLASS_DEFAULT), (row.id, part.id, key)
                    assert figure.grade == grade_of_default(figure.source), (row.id, part.id, key)
    assert marked > 300
    assert isinstance(load_hardware("mi300x-node").system.domains[1], Domain)
