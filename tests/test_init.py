"""Files to fill in: ``planner init``, the draft it writes, systems of aiconfigurator, YAML, and the user's own folders."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.documents import parse_yaml
from planner.errors import InputError
from planner.hardware import Curve, Device, Domain, Link, System, Tier, load_hardware, unknown_figures
from planner.hardware.aiconfigurator import convert
from planner.hardware.draft import blank, identifier, quantity, to_text
from planner.hardware.lint import lint
from planner.quantities import Figure, parse_quantity
from planner.workload import Workload, load_workload

TODAY = date(2026, 11, 22)
Run = Callable[..., tuple[int, str, str]]


def filled(text: str) -> str:
    """A draft with a figure in place of every unknown one."""
    values = {
        "power": "10 kW",
        "capex": "200 kUSD",
        "peak": "900 TFLOP/s",
        "usable": "90 GB",
        "read": "3 TB/s",
        "bandwidth": "50 GB/s",
    }
    figure = r'{ value = "VALUE", source = "data sheet", as_of = 2026-11-22, grade = "A", note = "as reported" }'
    return re.sub(
        r"^(\w+) = \{ unknown = .*\}$",
        lambda line: f"{line[1]} = {figure.replace('VALUE', values[line[1]])}",
        text,
        flags=re.MULTILINE,
    )


# --- hardware -------------------------------------------------------------------------------------------------------


def test_the_blank_profile_says_what_is_missing_and_plans_when_filled(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "my-node.toml"
    code, out, err = run("init", "hardware", path)
    assert (code, out) == (0, "") and f"wrote {path}: 10 figures are unknown" in err and "next: " in err
    assert lint(path, today=date.today()) == []
    code, _, err = run("plan", "llama-3.1-8b", path)
    assert code == 2 and err.count("\n") == 1
    for missing in (
        *("my-node-device.compute.bf16.peak", "my-node-device.memory.hbm.usable", "my-node-device.memory.hbm.read"),
        *("my-node.tier.host.usable", "my-node.tier.host.read", "my-node.link.pcie.bandwidth"),
        *("my-node.domain.node.bandwidth", "my-node.power"),
    ):
        assert re.search(rf"[ ]{re.escape(missing)}[,;]", err)
    assert "not known: 8 figures: " in err and err.count("--set") == 1 and "…" not in err
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert lint(path, today=date.today()) == []
    assert run("plan", "llama-3.1-8b", path, "--quiet")[0] == 0


def test_what_is_searched_for_stands_only_where_something_is_to_be_filled_in() -> None:
    lines = to_text(blank("my-node", TODAY)).splitlines()
    found = [line for line in lines if "fill in" in line]
    assert len(found) == 10 and all(' = { unknown = "fill in"' in line for line in found)


def keys_of(*models: type[Any]) -> set[str]:
    singular = {"tiers": "tier", "links": "link", "domains": "domain", "capex_lines": "capex_line", "schema_version": "schema"}
    singular["rents"] = "rent"
    return {singular.get(key, key) for model in models for key in model.model_fields} - {"dtype"}


def test_the_blank_profile_explains_every_key() -> None:
    text = to_text(blank("my-node", TODAY))
    for key in keys_of(System, Device, Tier, Link, Domain, Curve, Figure):
        assert re.search(rf"(^|[ #\[.,(]){key}( =|,|:|\.|\]|  )", text, re.MULTILINE), key


def test_the_comments_can_be_read() -> None:
    text = to_text(blank("my-node", TODAY))
    assert tomllib.loads(text)["device"]["id"] == "my-node-device"
    assert "$" not in text
    assert all(len(line) <= 150 for line in text.splitlines() if line.startswith("#"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("My Node", "my-node"),
        ("--", "my-machine"),
        ("é" * 9, "my-machine"),
        ("a" * 300, "a" * 48),
        ("x.y_z", "x.y_z"),
        ("", "my-machine"),
    ],
)
def test_a_file_name_as_an_id(name: str, found: str) -> None:
    assert identifier(name) == found


def test_a_taken_name_is_not_taken_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "h100-node.toml"
    assert run("init", "hardware", path)[0] == 0
    assert load_hardware(path).system.id == "my-h100-node"
    assert lint(path, today=date.today()) == []


@given(st.floats(1e-9, 1e15), st.sampled_from(["bytes", "bytes_per_s", "flop_per_s", "s", "w"]))
def test_a_written_quantity_is_exact(value: float, dimension: Any) -> None:
    assert parse_quantity(quantity(value, dimension), dimension) == value


def test_readable_quantities() -> None:
    assert quantity(3.35e12, "bytes_per_s") == "3.35 TB/s"
    assert quantity(48305799168.0, "bytes") == "46068 MiB"
    assert quantity(989e12, "flop_per_s") == "989 TFLOP/s"
    assert quantity(3e-6, "s") == "3 us"


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hardware", "workload"])
def test_nothing_is_overwritten_or_half_written(kind: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("precious")
    code, _, err = run("init", kind, path)
    assert code == 2 and "exists already; choose another name or add --force" in err and path.read_text() == "precious"
    assert run("init", kind, path, "--force")[0] == 0 and path.read_text().startswith("# mine: ")
    for target, words in (
        (tmp_path / "none" / "mine.toml", "its folder does not exist; make it first"),
        (tmp_path / "mine", "does not end in .toml"),
        (tmp_path / ("x" * 300 + ".toml"), "cannot be written"),
    ):
        code, _, err = run("init", kind, target)
        assert code == 2 and words in err and err.count("\n") == 1
    (tmp_path / "folder.toml").mkdir()
    for more in ((), ("--force",)):
        code, _, err = run("init", kind, tmp_path / "folder.toml", *more)
        assert code == 2 and "is not a regular file" in err

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.link", interrupted)
    code, _, err = run("init", kind, tmp_path / "new.toml")
    assert code == 130 and "stopped" in err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["folder.toml", "mine.toml"]


def test_an_unwritable_folder_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", denied)  # permissions do not bind a superuser, who may run this
    code, _, err = run("init", "hardware", tmp_path / "mine.toml")
    assert code == 2 and "cannot be written (Permission denied)" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_goes_with_what(run: Run, tmp_path: Path) -> None:
    code, _, err = run("init", "workload", tmp_path / "w.toml", "--from", "x.yaml")
    assert code == 2 and "--from goes with hardware" in err
    assert run("init", "castle", tmp_path / "w.toml")[0] == 2


# --- workload -------------------------------------------------------------------------------------------------------


def test_the_blank_workload_plans_as_it_stands(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "My load.v2.toml"
    assert run("init", "workload", path)[0] == 0
    load = load_workload(str(path))
    assert load.id == "my-load-v2"
    text = path.read_text(encoding="utf-8")
    for key in keys_of(Workload):
        assert re.search(rf"^(# )?({key} = |\[{key}\])", text, re.MULTILINE), key
    code, out, _ = run("plan", "llama-3.1-8b", "h100-node", "--workload", path, "--quiet")
    assert code == 0 and "workload my-load-v2" in out


# --- systems of aiconfigurator ----------------------------------------------------------------------------------------


def system(**changes: Any) -> dict[str, Any]:
    """A system file's table; ``gpu_…`` and ``node_…`` replace a key, ``None`` removes it."""
    data: dict[str, Any] = {
        "data_dir": "data/x",
        "gpu": {
            "mem_bw": 3_000_000_000_000,
            "mem_bw_empirical_scaling_factor": 0.8,
            "mem_empirical_constant_latency": 0.000003,
            "mem_capacity": 85_520_000_000,
            "bfloat16_tc_flops": 900_000_000_000_000,
            "fp8_tc_flops": 1_800_000_000_000_000,
            "power": 650,
            "sm_version": 90,
        },
        "node": {
            "num_gpus_per_node": 8,
            "inter_node_bw": 50_000_000_000,
            "intra_node_bw": 450_000_000_000,
            "pcie_bw": 64_000_000_000,
            "p2p_latency": 0.00001,
        },
        "misc": {"nccl_mem": {1: 0, 8: 400_000_000}, "other_mem": 3_000_000_000},
    }
    for key, value in changes.items():
        section, _, name = key.partition("_")
        data[section] = {k: v for k, v in (data[section] | {name: value}).items() if v is not None}
    return data


@pytest.fixture
def drafted(tmp_path: Path) -> Callable[..., System]:
    def make(**changes: Any) -> System:
        path = tmp_path / "mine.toml"
        path.write_text(convert(system(**changes), file="some_gpu.yaml", profile_id="mine", today=TODAY), encoding="utf-8")
        assert [str(fault) for fault in lint(path, today=TODAY)] == []
        return load_hardware(path).system

    return make


def test_figures_are_taken_over_with_their_source(drafted: Callable[..., System]) -> None:
    found = drafted()
    bf16, hbm, host = found.device.compute["bf16"], found.tiers[0], found.tiers[1]
    assert (bf16.peak.value, bf16.peak.grade) == (900e12, "B")
    assert bf16.peak.source == "aiconfigurator some_gpu.yaml: gpu.bfloat16_tc_flops" and bf16.peak.as_of == TODAY
    assert bf16.gemm.points[0] == (1.0, pytest.approx(0.8 * 3e12 / 900e12, rel=0.01))  # 2 FLOP for 2 bytes that stream in
    assert (hbm.read.value, hbm.usable.value, hbm.usable.grade) == (3e12, 85.52e9, "B")
    assert hbm.efficiency.grade == "D" and hbm.efficiency.value == 0.8 and hbm.efficiency.highest == 0.93
    assert hbm.startup is not None and hbm.startup.value == 3e-6
    assert (found.kind, found.devices, found.device.vendor) == ("node", 8, "NVIDIA")
    assert [(d.id, d.devices, d.network, d.bandwidth.value) for d in found.domains] == [
        ("node", 8, "nvlink4", 450e9),
        ("scale-out", None, "rdma", 50e9),
    ]
    assert found.domains[1].latency.value == 1e-5 and found.domains[1].latency.grade == "D"
    assert (found.links[0].generation, found.links[0].bandwidth.value) == ("pcie5-x16", 64e9)
    assert not any(figure.known for figure in (found.power, found.capex, host.usable, host.read))
    assert "650 W of the GPU alone, 5200 W for 8" in found.power.reason  # not the node's


def test_a_rack_has_the_networks_of_its_file(drafted: Callable[..., System]) -> None:
    rack = {"node_num_gpus_per_node": 4, "node_num_gpus_per_rack": 72, "gpu_sm_version": 100, "node_inter_rack_bw": 1e11}
    one = drafted(node_intra_node_bw=9e11, node_inter_node_bw=9e11, node_inter_rack_latency=5e-6, **rack)
    assert (one.kind, one.devices, one.devices_per_node) == ("rack", 72, 4)
    assert [(d.id, d.devices, d.bandwidth.value) for d in one.domains] == [("rack", 72, 9e11), ("scale-out", None, 1e11)]
    assert one.domains[-1].latency.value == 5e-6
    two = drafted(node_intra_node_bw=9e11, node_inter_node_bw=2e11, **rack)
    assert [(d.id, d.devices) for d in two.domains] == [("node", 4), ("rack", 72), ("scale-out", None)]
    none = drafted(node_intra_node_bw=9e11, node_inter_node_bw=9e11, **(rack | {"node_inter_rack_bw": None}))
    assert not none.domains[-1].bandwidth.known
    alone = drafted(node_num_gpus_per_node=1, node_num_gpus_per_rack=1, gpu_sm_version=121)
    assert [d.id for d in alone.domains] == ["scale-out"] and alone.tiers[0].kind == "lpddr"


TRAPS = {
    "sparse peak": ({"gpu_fp8_tc_flops": 3.6e15}, "compute.fp8.peak", "4 times bf16: a sparse figure", 1.8e15),
    "sparse below sparse": (
        {"gpu_fp8_tc_flops": 3.6e15, "gpu_fp4_tc_flops": 7.2e15},
        "compute.fp4.peak",
        "4 times fp8: a sparse figure",
        3.6e15,
    ),
    "both directions of a port": ({"node_intra_node_bw": 9e11}, "domain.node.bandwidth", "probably both directions", 4.5e11),
    "both directions of PCIe": ({"node_pcie_bw": 128e9}, "link.pcie.bandwidth", "above the 64 one-way of pcie5-x16", 64e9),
    "PCIe 4 both ways": (
        {"node_pcie_bw": 64e9, "gpu_sm_version": 80, "node_intra_node_bw": 3e11},
        "link.pcie.bandwidth",
        "32",
        32e9,
    ),
    "a port that is not there": (
        {"gpu_sm_version": 89, "node_pcie_bw": 32e9},
        "domain.node.bandwidth",
        "these parts have no NVLink; the default is their PCIe",
        32e9,
    ),
    "power of the GPU alone": ({}, "power", "give the whole system's", None),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_figure_that_breaks_the_convention_is_not_believed(name: str, drafted: Callable[..., System]) -> None:
    changes, address, words, default = TRAPS[name]
    found = dict(unknown_figures(drafted(**changes)))
    figure = next(figure for key, figure in found.items() if key.endswith(address))
    assert words in figure.reason
    assert figure.has_default == (default is not None)
    if default is not None:
        assert figure.value == default


@pytest.mark.parametrize(("capacity", "low", "high"), [(80 * 2**30, 80e9, 80 * 2**30), (80 * 10**9, 80e9, 80 * 2**30)])
def test_a_label_is_not_usable_bytes(capacity: int, low: float, high: float, drafted: Callable[..., System]) -> None:
    usable = drafted(gpu_mem_capacity=capacity).tiers[0].usable
    assert (usable.value, usable.low, usable.high, usable.grade) == (low, low, high, "C")
    assert "the label" in usable.note


def test_fp16_stands_for_bf16_only_where_the_units_are_the_same(drafted: Callable[..., System]) -> None:
    only = {"gpu_bfloat16_tc_flops": None, "gpu_float16_tc_flops": 3e14, "gpu_fp8_tc_flops": None}
    assert set(drafted(**only).device.compute) == {"bf16", "fp16"}
    assert drafted(**only).device.compute["bf16"].peak.grade == "B"
    assert set(drafted(**only, gpu_sm_version=None).device.compute) == {"fp16"}


def test_a_network_over_pcie_shares_its_way(drafted: Callable[..., System]) -> None:
    domain = drafted(node_intra_node_bw=64e9).domains[0]
    assert (domain.network, domain.group, domain.topology) == ("pcie5-x16", "pcie-switch", "switch")
    assert domain.allreduce_efficiency.value < 0.5


def test_what_is_absent_is_unknown_and_what_is_left_out_is_said(drafted: Callable[..., System], tmp_path: Path) -> None:
    bare = {f"gpu_{key}": None for key in system()["gpu"]} | {
        f"node_{key}": None for key in system()["node"] if key != "num_gpus_per_node"
    }
    found = drafted(**bare)
    assert all(not figure.known for _, figure in unknown_figures(found)) and set(found.device.compute) == {"bf16"}
    text = (tmp_path / "mine.toml").read_text()
    assert "# Not taken over: misc.nccl_mem, misc.other_mem (what an engine keeps for itself is the runtime's" in text


BAD = {
    "no table": (None, "has no gpu and node tables"),
    "a list": ([], "has no gpu and node tables"),
    "another file": ({"gpu": {}, "nodes": {}}, "has no gpu and node tables"),
    "no count": (system(node_num_gpus_per_node=None), "node.num_gpus_per_node: is missing"),
    "a share of a GPU": (system(node_num_gpus_per_node=7.5), "is no whole number"),
    "a negative count": (system(node_num_gpus_per_node=-8), "is not from 1"),
    "a rack of odd nodes": (system(node_num_gpus_per_rack=12), "12 is no multiple of the 8"),
    "gigabytes a second": (system(gpu_mem_bw=3350), "gpu.mem_bw: 3350 is not from 1e+09 to 1e+15; these files count bytes"),
    "teraflops": (system(gpu_fp8_tc_flops=1979), "gpu.fp8_tc_flops: 1979 is not from"),
    "gigabits a second": (system(node_inter_node_bw=400), "node.inter_node_bw: 400 is not from"),
    "a negative rate": (system(node_pcie_bw=-1e9), "node.pcie_bw: -1e+09 is not from"),
    "a text": (system(gpu_mem_bw="3.35 TB/s"), "gpu.mem_bw: expected a number, got str"),
    "a truth": (system(gpu_power=True), "gpu.power: expected a number, got bool"),
    "not a number": (system(gpu_mem_bw=float("nan")), "gpu.mem_bw: expected a number, got nan"),
    "a list of rates": (system(gpu_mem_bw=[1, 2]), "gpu.mem_bw: expected a number, got list"),
    "more than all": (system(gpu_mem_bw_empirical_scaling_factor=1.2), "is not from 0.001 to 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_systems_are_one_line(name: str) -> None:
    data, words = BAD[name]
    with pytest.raises(InputError) as caught:
        convert(data, file="x.yaml", profile_id="mine", today=TODAY)
    assert words in str(caught.value) and "x.yaml" in str(caught.value) and "\n" not in str(caught.value)


NUMBERS = st.one_of(st.none(), st.booleans(), st.text(max_size=4), st.integers(-10, 10**15), st.floats(), st.floats(1e8, 1e16))


@given(
    gpu=st.dictionaries(
        st.sampled_from([*system()["gpu"], "float16_tc_flops", "int8_tc_flops", "fp4_tc_flops", "x\n]"]), NUMBERS
    ),
    node=st.dictionaries(st.sampled_from([*system()["node"], "num_gpus_per_rack", "inter_rack_bw", "$id"]), NUMBERS),
    keep=st.integers(0, 3),
)
def test_any_table_is_a_sound_profile_or_one_line(
    gpu: dict[str, Any], node: dict[str, Any], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = system()
    data |= {"gpu": (data["gpu"] if keep & 1 else {}) | gpu, "node": (data["node"] if keep & 2 else {}) | node}
    path = tmp_path_factory.getbasetemp() / "any.toml"
    try:
        text = convert(data, file='a"\n$x.yaml', profile_id="mine", today=TODAY)
    except InputError as error:
        assert "\n" not in str(error)
        return
    path.write_text(text, encoding="utf-8")
    assert [str(fault) for fault in lint(path, today=TODAY)] == []


# --- YAML -----------------------------------------------------------------------------------------------------------

SYSTEM_YAML = """
# comments are dropped
gpu:
  mem_bw: 3000000000000 # 3 TB/s
  mem_capacity: 85899345920
  bfloat16_tc_flops: 9.0e+14
  sm_version: 90
node:
  num_gpus_per_node: 8
  intra_node_bw: 450000000000
  inter_node_bw: 50000000000
  pcie_bw: 64000000000
misc:
  nccl_mem:
    1: 0
  nccl_version: '2.27.3'
"""


def test_a_profile_from_a_system_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "some_gpu.yaml").write_text(SYSTEM_YAML)
    path = tmp_path / "mine.toml"
    code, _, err = run("init", "hardware", path, "--from", tmp_path / "some_gpu.yaml")
    assert code == 0 and "4 figures are unknown" in err
    assert lint(path, today=date.today()) == []
    code, _, err = run("plan", "llama-3.1-8b", path)
    assert code == 2 and all(f"mine.{name} (" in err for name in ("tier.host.usable", "tier.host.read", "power"))
    given = ("--set", "mine.power=10 kW", "--tiers", "device", "--quiet")
    assert run("plan", "llama-3.1-8b", path, *given)[0] == 0


HOSTILE = {
    "aliases that multiply": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "repeats a value by an alias"),
    "itself": ("&a [*a]", "repeats a value by an alias"),
    "code": ("!!python/object/apply:os.system ['true']", "has the tag"),
    "a set": ("gpu: !!set {a, b}", "has the tag"),
    "repeated key": ("gpu: 1\ngpu: 2\n", "found duplicate key"),
    "deep": ("\n".join(" " * i + "a:" for i in range(99)), "nested too deeply"),
    "deeper than the stack": ("- " * 9999, "nested too deeply"),
    "deep in brackets": ("[" * 9999, "nested too deeply"),
    "not finite": ("gpu: {mem_bw: .nan}", "not a finite number"),
    "endless": ("gpu: {mem_bw: .inf}", "not a finite number"),
    "long number": ("gpu: " + "9" * 5000, "is not YAML"),
    "two documents": ("--- 1\n--- 2\n", "is not YAML"),
    "a tab": ("\tgpu: 1", "is not YAML"),
    "a control character": ("gpu: \x01", "is not YAML"),
    "torn": ("gpu: {a: [1,", "is not YAML"),
    "large": ("a: 1\n" * 20_000, "is larger than"),
    "empty": ("", "has no gpu and node tables"),
    "a text": ("hello", "has no gpu and node tables"),
    "odd keys": ("gpu: {? [1, 2] : 3}\nnode: {}", "num_gpus_per_node: is missing"),
    "dates": ("gpu: {mem_bw: 2020-01-01}\nnode: {num_gpus_per_node: 8}", "expected a number, got date"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_line(name: str, run: Run, tmp_path: Path) -> None:
    text, words = HOSTILE[name]
    (tmp_path / "x.yaml").write_text(text)
    code, out, err = run("init", "hardware", tmp_path / "mine.toml", "--from", tmp_path / "x.yaml")
    assert (code, out) == (2, "") and words in err and "x.yaml" in err and err.count("\n") == 1, err
    assert not (tmp_path / "mine.toml").exists()


def test_files_that_are_no_text(run: Run, tmp_path: Path) -> None:
    for data, words in ((b"a" * 10**7, "is larger than"), (b"\xff\xfe", "is not UTF-8"), (b"a\0", "NUL")):
        (tmp_path / "x.yaml").write_bytes(data)
        code, _, err = run("init", "hardware", tmp_path / "mine.toml", "--from", tmp_path / "x.yaml")
        assert code == 2 and words in err
    code, _, err = run("init", "hardware", tmp_path / "mine.toml", "--from", tmp_path / "none.yaml")
    assert code == 2 and "no such file" in err
    code, _, err = run("init", "hardware", tmp_path / "mine.toml", "--from", tmp_path)
    assert code == 2 and "is a folder" in err


@given(st.text(st.sampled_from("ab:-?&*!|>'\"%@`{}[],# \n\t0.9~<="), max_size=60))
def test_any_text_is_a_value_or_one_line(text: str) -> None:
    try:
        parse_yaml(text, "x.yaml")
    except InputError as error:
        assert "\n" not in str(error)


def test_without_the_library_the_extra_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ruamel.yaml", None)
    (tmp_path / "x.yaml").write_text(SYSTEM_YAML)
    code, _, err = run("init", "hardware", tmp_path / "mine.toml", "--from", tmp_path / "x.yaml")
    assert code == 2 and "the package ruamel.yaml is not installed; pip install 'inference-planner[yaml]'" in err


# --- folders of the user --------------------------------------------------------------------------------------------


def named(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.toml").write_text(f'schema = 1\nkind = "node"\nid = "mine"\nextends = "h100-node"\nname = "{name}"\n')
    return folder


def test_folders_are_searched_in_order(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name_of(*options: object) -> str:
        _, out, _ = run("list", "hardware", "--format", "json", *options)
        return str({row["id"]: row for row in json.loads(out)}.get("mine", {}).get("name", ""))

    assert name_of() == "" and run("show", "hardware", "mine")[0] == 2  # no such configuration folder: nothing is missed
    named(tmp_path / "config" / "planner" / "profiles", "configured")
    assert name_of() == "configured"
    first, second = named(tmp_path / "first", "first"), named(tmp_path / "second", "second")
    monkeypatch.setenv("PLANNER_PROFILES", os.pathsep.join([str(first), "", str(second)]))
    assert name_of() == "first"
    third = named(tmp_path / "third", "third")
    assert name_of("--profiles", third) == "third"
    (first / "mine.toml").unlink()
    assert name_of() == "second"


def test_every_command_that_takes_a_name_finds_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANNER_PROFILES", str(named(tmp_path / "own", "my node")))
    code, _, err = run("show", "hardware", "mine")
    assert code == 0 and f"read from {tmp_path / 'own' / 'mine.toml'}" in err
    assert run("lint", "mine")[:2] == (0, "ok: 1 profile checked\n")
    assert run("plan", "llama-3.1-8b", "mine", "--quiet")[0] == 0
    assert "mine" in run("list", "hardware")[1]


def test_a_folder_that_the_variable_names_and_is_not_there_is_a_warning(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLANNER_PROFILES", str(tmp_path / "none"))
    for arguments in (("list", "hardware"), ("show", "model", "llama-3.1-8b"), ("lint", "h100-node")):
        code, _, err = run(*arguments)
        assert code == 0
        assert f"PLANNER_PROFILES: {tmp_path / 'none'}: is not a folder and is passed over; correct the variable" in err
    code, _, err = run("list", "hardware", "--profiles", tmp_path / "none")
    assert code == 2


def test_the_library_looks_in_no_folder_that_it_was_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANNER_PROFILES", str(named(tmp_path / "own", "my node")))
    with pytest.raises(InputError, match="unknown hardware"):
        load_hardware("mine")
    assert load_hardware("mine", folders=[tmp_path / "own"]).system.name == "my node"
