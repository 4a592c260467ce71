"""Figures that nobody has published, figures given by the user, and the domestic catalogue."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import plan, resolve, verify
from planner.cli.schema_command import schema_of
from planner.errors import InfeasibleError, InputError
from planner.hardware import (
    HardwareSelection,
    apply_settings,
    figures_of,
    list_hardware,
    load_device,
    load_hardware,
    read_profile,
    to_toml,
    unknown_figures,
)
from planner.hardware.given import USD_PER_W
from planner.hardware.schema import System
from planner.plans import build_context

READ = "ascend-950dt.memory.hbm.read"


def given_to(name: str, *changes: str) -> System:
    return apply_settings({"mixed": load_hardware(name)}, changes)["mixed"].system


def refused(name: str, change: str) -> str:
    with pytest.raises(InputError) as caught:
        given_to(name, change)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- unknown figures --------------------------------------------------------------------------------------------


def profile(folder: Path, figure: str, key: str = "read") -> Path:
    path = folder / "mine.toml"
    path.write_text(
        f'schema = 1\nkind = "node"\nid = "mine"\nextends = "h100-node"\n[[tier]]\nid = "host"\n{key} = {figure}\n',
        encoding="utf-8",
    )
    return path


def test_an_unknown_figure_is_read_written_and_embedded(tmp_path: Path) -> None:
    path = profile(tmp_path, '{ unknown = "untold", as_of = 2026-11-01, default = "2 TB/s", low = "1e12 B/s", high = "3 TB/s" }')
    system = load_hardware(path).system
    read = system.tier("host").read
    assert (read.known, read.has_default, read.reason) == (False, True, "untold")
    assert (read.value, read.low, read.high, read.grade) == (2e12, 1e12, 3e12, "D")
    copy = tmp_path / "copy.toml"
    copy.write_text(to_toml(system), encoding="utf-8")
    assert read_profile(copy) == system
    assert 'unknown = "untold"' in to_toml(system)
    assert System.model_validate(system.model_dump(mode="json"), context={"si": True}) == system
    assert load_hardware("h100-node").system.tier("host").read.known


def test_a_value_replaces_an_unknown_figure_of_the_base_and_the_other_way_round(tmp_path: Path) -> None:
    base = profile(tmp_path, '{ unknown = "nobody told", as_of = 2026-11-01 }')
    assert not load_hardware(base).system.tier("host").read.has_default
    over = tmp_path / "over.toml"
    over.write_text(
        'schema = 1\nkind = "node"\nid = "over"\nextends = "mine"\n[[tier]]\nid = "host"\n'
        'read = { value = "9 GB/s", source = "s", as_of = 2026-01-01, grade = "A" }\n',
        encoding="utf-8",
    )
    assert load_hardware(over).system.tier("host").read.value == 9e9


@pytest.mark.parametrize(
    ("figure", "part"),
    [
        ('{ unknown = "", as_of = 2026-01-01 }', "say in words why"),
        ("{ unknown = true, as_of = 2026-01-01 }", "say in words why"),
        ('{ unknown = "why" }', "as_of is missing"),
        ('{ unknown = "why", as_of = 2026-01-01, value = "2 GB/s" }', "value: an unknown figure has only"),
        ('{ unknown = "why", as_of = 2026-01-01, grade = "A" }', "grade: an unknown figure has only"),
        ('{ unknown = "why", as_of = 2026-01-01, default = "2 GB/s" }', "needs low and high"),
        ('{ unknown = "why", as_of = 2026-01-01, default = "2 GB", low = "1 GB/s", high = "3 GB/s" }', "unknown unit 'GB'"),
        ('{ unknown = "why", as_of = 2026-01-01, default = "2 GB/s", low = "3 GB/s", high = "3 GB/s" }', "is above value"),
        ('{ unknown = "why", as_of = 2999-01-01 }', "2999-01-01 is later"),
    ],
)
def test_refuses_a_faulty_unknown_figure(tmp_path: Path, figure: str, part: str) -> None:
    with pytest.raises(InputError, match=re.escape(part)):
        load_hardware(profile(tmp_path, figure))


def test_planning_stops_at_an_unknown_figure_and_names_it() -> None:
    with pytest.raises(InputError) as caught:
        resolve("qwen3.8-27b", "ascend-950dt-node", allow_announced=True)
    text = str(caught.value)
    assert f"not known: {READ} (" in text and f"give --set {READ}=default" in text and "write" not in text
    with pytest.raises(InputError, match="announced, not shipping; add --allow-announced"):
        resolve("qwen3.8-27b", "ascend-950dt-node")
    with pytest.raises(InputError, match=r"metax-c600-node\.domain\.scale-up\.bandwidth=VALUE$"):
        resolve("qwen3.8-27b", "metax-c600-node")
    with pytest.raises(InputError, match="atlas-950-superpod.power=default"):
        resolve("qwen3.8-27b", "atlas-950-superpod", allow_announced=True)


def test_a_given_figure_is_embedded_with_its_source_and_verified() -> None:
    found = plan("qwen3.8-27b", "ascend-950dt-node", allow_announced=True, settings=[f"{READ}=3.6..4.0..4.2 TB/s"])
    text = found.to_json()
    tiers = json.loads(text)["inputs"]["hardware"]["mixed"]["system"]["tiers"]
    read = next(tier["read"] for tier in tiers if tier["id"] == "hbm")
    assert (read["low"], read["value"], read["high"]) == (3.6e12, 4.0e12, 4.2e12)
    assert (read["grade"], read["source"]) == ("D", "given on the command line")
    assert found.provenance["lowest_grade"] == "D"
    assert any(row["figure"].endswith("hbm.read") and row["low"] == 3.6e12 for row in found.provenance["estimates"])
    assert verify(text, full=True)[0] == []


def test_a_faster_memory_given_is_no_worse() -> None:
    costs = [
        plan("qwen3.8-27b", "ascend-950dt-node", allow_announced=True, settings=[f"{READ}={rate} TB/s"]).certificate.objective
        for rate in (2, 4)
    ]
    assert costs[1] < costs[0]


# --- what planning needs, and what it does not ------------------------------------------------------------------

NOBODY = '{ unknown = "nobody told", as_of = 2026-11-01 }'


def system_with(folder: Path, *places: str, base: str = "h100-node", figure: str = NOBODY) -> HardwareSelection:
    """A system like ``base`` in which the figures at ``places`` (``tier.host.read``, ``compute.fp8.peak``) are unknown."""
    text, device = f'schema = 1\nkind = "node"\nid = "mine"\nextends = "{base}"\n', ""
    for place in sorted(places, key=lambda place: place.count(".")):
        section, _, rest = place.partition(".")
        name, _, key = rest.partition(".")
        if section == "compute":
            device += f"[compute.{name}]\npeak = {figure}\n"
        elif section == "memory":
            device += f'[[memory]]\nid = "{name}"\n{key} = {figure}\n'
        else:
            text += f'[[{section}]]\nid = "{name}"\n{key} = {figure}\n' if key else f"{section} = {figure}\n"
    if device:
        part = load_hardware(base).system.device.id
        (folder / "part.toml").write_text(f'schema = 1\nkind = "device"\nid = "part"\nextends = "{part}"\n{device}')
        text = text.replace('extends = "', 'device = "part.toml"\nextends = "', 1)
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return load_hardware(path)


def stops_at(hardware: HardwareSelection | dict[str, HardwareSelection], **options: Any) -> set[str]:
    """Addresses of the unknown figures that planning asks for."""
    try:
        resolve(options.pop("model", "qwen3-8b"), hardware, **options)
    except InputError as error:
        assert "\n" not in str(error) and "nobody told" in str(error)
        return set(re.findall(r"--set (\S+)=", str(error)))
    return set()


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("tier.host.read", {"tiers": ("hbm",)}),
        ("tier.host.usable", {"tiers": ("device",)}),
        ("tier.ssd.read", {"tiers": ("hbm", "host")}),
        ("tier.host.write", {"tiers": ("hbm",)}),
        ("link.nvme.bandwidth", {"tiers": ("hbm", "ddr")}),
        ("link.pcie.bandwidth", {"tiers": ("hbm",)}),
        ("compute.fp8.peak", {}),
        ("compute.int8.peak", {}),
        ("domain.scale-out.bandwidth", {}),
        ("domain.scale-out.latency", {}),
        ("domain.nvlink.bandwidth", {"devices": 1}),
        ("memory.hbm.write", {}),
        ("memory.hbm.latency", {}),
        ("capex", {}),
    ],
)
def test_an_unknown_figure_that_planning_does_not_need_does_not_stop_it(
    place: str, options: dict[str, Any], tmp_path: Path
) -> None:
    hardware = system_with(tmp_path, place)
    assert any(not figure.known for _, figure in figures_of(hardware.system))
    assert stops_at(hardware, **options) == set()
    found = plan("qwen3-8b", hardware, workload="batch", objective="throughput", **options)
    known = plan("qwen3-8b", "h100-node", workload="batch", objective="throughput", **options)
    assert found.prediction == known.prediction and found.certificate.objective == known.certificate.objective
    assert "nobody told" not in json.dumps(found.provenance) or place == "capex"
    assert verify(found.to_json(), full=True)[0] == []


@pytest.mark.parametrize(
    ("place", "address", "options"),
    [
        ("tier.host.read", "mine.tier.host.read", {}),
        ("tier.host.read", "mine.tier.host.read", {"tiers": ("hbm", "ssd")}),  # what the drives' bytes pass
        ("tier.ssd.iops", "mine.tier.ssd.iops", {}),
        ("tier.host.write", "mine.tier.host.write", {}),
        ("link.pcie.bandwidth", "mine.link.pcie.bandwidth", {"tiers": ("hbm", "host")}),
        ("compute.bf16.peak", "part.compute.bf16.peak", {}),
        ("compute.fp8.peak", "part.compute.fp8.peak", {"model": "deepseek-v3"}),
        ("compute.int8.peak", "part.compute.int8.peak", {"weight_dtype": "int8"}),
        ("memory.hbm.read", "part.memory.hbm.read", {"tiers": ("hbm",)}),
        ("memory.hbm.usable", "part.memory.hbm.usable", {}),
        ("domain.nvlink.bandwidth", "mine.domain.nvlink.bandwidth", {"devices": 2}),
        ("power", "mine.power", {"objective": "latency"}),
    ],
)
def test_an_unknown_figure_that_planning_needs_stops_it(
    place: str, address: str, options: dict[str, Any], tmp_path: Path
) -> None:
    assert stops_at(system_with(tmp_path, place), **options) == {address}


def test_the_outer_network_is_needed_by_two_nodes_and_by_two_pools(tmp_path: Path) -> None:
    one = system_with(tmp_path, "domain.scale-out.bandwidth")
    two = one.model_copy(update={"count": 2})
    assert stops_at(one) == stops_at(two, devices=8) == set()
    assert stops_at(two) == {"mine.domain.scale-out.bandwidth"}
    levels = build_context(resolve("qwen3-8b", one)).pools["mixed"].rates.levels
    assert [level.id for level in levels] == ["nvlink"]  # caches that move inside one node take its own network
    h100 = load_hardware("h100-node")
    assert stops_at({"prefill": h100, "decode": one}) == {"mine.domain.scale-out.bandwidth"}
    assert stops_at({"prefill": one, "decode": h100}) == set()


def test_a_memory_that_is_not_known_can_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"or leave those memories out with --tiers hbm$"):
        resolve("qwen3-8b", system_with(tmp_path, "tier.host.read"))
    with pytest.raises(InputError) as caught:
        resolve("qwen3-8b", system_with(tmp_path, "tier.host.read", "power"))
    assert "--tiers" not in str(caught.value)


def test_an_estimate_stands_in_for_an_unknown_capital_cost(tmp_path: Path) -> None:
    found = plan("qwen3-8b", system_with(tmp_path, "capex"), workload="batch")
    system = resolve("qwen3-8b", system_with(tmp_path, "capex")).hardware["mixed"].system
    assert system.capex.known and system.capex.grade == "C" and "nobody told" in system.capex.source
    assert system.capex.value == 24 * system.power.value
    assert system.capex.low is not None and system.capex.low < system.capex.value < system.capex.highest
    assert any(row["figure"].endswith("system.capex") for row in found.provenance["estimates"])
    assert verify(found.to_json(), full=True)[0] == []
    stated = '{ unknown = "nobody told", as_of = 2026-11-01, default = "300 kUSD", low = "200 kUSD", high = "400 kUSD" }'
    chosen = resolve("qwen3-8b", system_with(tmp_path, "capex", figure=stated)).hardware["mixed"].system.capex
    assert (chosen.known, chosen.low, chosen.value, chosen.high) == (True, 200e3, 300e3, 400e3)
    given_one = resolve("qwen3-8b", system_with(tmp_path, "capex"), settings=["mine.capex=100 kUSD"])
    assert given_one.hardware["mixed"].system.capex.value == 100e3


def test_the_estimate_of_a_capital_cost_is_that_of_the_catalogue() -> None:
    systems = [load_hardware(row.id).system for row in list_hardware()]
    ratios = [s.capex.value / s.power.value for s in systems if s.power.known and s.capex.known]
    assert np.percentile(ratios, [10, 50, 90]) == pytest.approx(USD_PER_W, rel=0.1)


# --- settings ---------------------------------------------------------------------------------------------------


def test_settings_reach_every_kind_of_figure() -> None:
    system = given_to(
        "h800-node",
        "h800-sxm.compute.bf16.peak=900 TFLOP/s",
        "h800.memory.hbm.usable=70..75..80 GB",
        "h800-node.tier.host.read = 300 GB/s",
        "h800-node.link.pcie.efficiency=0.7..0.8..0.9",
        "h800-node.domain.scale-out.bandwidth=200 Gbit/s",
        "h800-node.domain.nvlink.latency=3 us",
        "h800-node.power=9 kW",
        "h800-node.capex=200 kUSD",
        "h800-node.capex=210 kUSD",
    )
    assert system.device.compute["bf16"].peak.value == 900e12
    usable = system.tier("hbm").usable
    assert (usable.low, usable.value, usable.high, usable.grade) == (70e9, 75e9, 80e9, "D")
    assert system.tier("host").read.value == 300e9
    assert system.link("pcie").efficiency.low == 0.7
    assert system.domains[-1].bandwidth.value == 25e9
    assert system.domains[0].latency.value == pytest.approx(3e-6)
    assert (system.power.value, system.capex.value) == (9e3, 210e3)
    assert system.tier("ssd") == load_hardware("h800-node").system.tier("ssd")


def test_a_setting_reaches_the_pool_that_it_names_and_no_other() -> None:
    pools = {"prefill": load_hardware("h800-node"), "decode": load_hardware("cloudmatrix384")}
    found = apply_settings(pools, ["ascend-910c-die.memory.hbm.read=1.5 TB/s"])
    assert found["prefill"] is pools["prefill"]
    assert found["decode"].system.tier("hbm").read.value == 1.5e12
    both = {"prefill": load_hardware("h800-node:2"), "decode": load_hardware("h800-node:3")}
    changed = apply_settings(both, ["h800-sxm.memory.hbm.read=3 TB/s"])
    assert [(s.count, s.system.tier("hbm").read.value) for s in changed.values()] == [(2, 3e12), (3, 3e12)]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("nothing", "cannot read 'nothing'; write NAME.PATH=VALUE"),
        ("=4", "cannot read"),
        ("h800-node.power=", "cannot read"),
        ("x" * 600 + "=1", "cannot read"),
        ("h900-node.power=9 kW", "begins with no hardware of this plan; did you mean h800-node"),
        ("h800-node.pwoer=9 kW", "names no figure; did you mean power"),
        ("h800-node=9 kW", "begins with no hardware"),
        ("h800-node.devices=9", "names no figure"),
        ("h800-node.tier.tape.read=9 GB/s", "names no figure"),
        ("h800-node.memory.host.read=9 GB/s", "names no figure"),
        ("h800-node.tier.host.granule_bytes=9", "names no figure"),
        ("h800-node.tier.host.__class__=9", "names no figure"),
        ("h800-node.compute.fp4.peak=9 PFLOP/s", "names no figure"),
        ("h800-node.power=9 GB", "unknown unit 'GB'"),
        ("h800-node.power=9", "has no unit"),
        ("h800-node.power=-9 kW", "must be above 0"),
        ("h800-node.power=0 kW", "must be above 0"),
        ("h800-node.power=nan kW", "is not a quantity"),
        ("h800-node.power=8..9 kW", "is no value; write VALUE or LOW..VALUE..HIGH"),
        ("h800-node.power=9..8..10 kW", "does not rise"),
        ("h800-node.power=default", "states no default"),
        ("h800-node.link.pcie.efficiency=1.2", "a fraction is at most 1"),
        ("h800-node.domain.nvlink.bandwidth=900 GB/s", "halve a bidirectional figure"),
        ("h800-node.tier.host.read=3 B/s", "too little"),
    ],
)
def test_refuses_settings(change: str, part: str) -> None:
    assert part in refused("h800-node", change)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=40), st.builds("{}={}".format, st.sampled_from(["h800.power", READ]), st.text(max_size=20))))
def test_any_setting_is_an_answer_or_an_input_error(text: str) -> None:
    pools: dict[str, HardwareSelection] = {"mixed": SELECTION}
    try:
        apply_settings(pools, [text])
    except InputError as error:
        assert "\n" not in str(error)


SELECTION = load_hardware("h800-node")


def test_the_command_takes_settings(capsys: pytest.CaptureFixture[str]) -> None:
    from planner.cli import main

    arguments = ["plan", "qwen3.8-27b", "ascend-950dt-node", "--allow-announced", "--quiet", "--format", "json"]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and READ in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--set", f"{READ}=4.0 TB/s"])
    assert stop.value.code == 0 and '"given on the command line"' in capsys.readouterr().out


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    from planner.cli import main

    with pytest.raises(SystemExit) as stop:
        main(["show", "hardware", *arguments])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_show_says_what_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown; default" in shown(capsys, "ascend-950dt-node")
    schema = schema_of("hardware")
    for name in ("ascend-950dt-node", "thead-m890", "h800-node"):
        data = json.loads(shown(capsys, name, "--format", "json"))
        jsonschema.validate(data, schema, jsonschema.Draft202012Validator)
        if name == "thead-m890":
            assert data["memory"][0]["read"]["value"] is data["memory"][0]["read"]["low"] is None
            assert data["compute"]["bf16"]["peak"]["value"] is None and data["compute"]["bf16"]["peak"]["high"] == 720e12
        if name == "h800-node":
            assert "null" not in json.dumps([tier["read"] for tier in data["tiers"] if tier["id"] == "host"])


def test_show_takes_a_device_without_a_system(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "ascend-960")
    assert "read 9,600 GB/s" in text
    assert "unknown; default 1,000 TFLOP/s" in text


# --- the domestic catalogue -------------------------------------------------------------------------------------


def test_at_least_twenty_domestic_systems_and_devices() -> None:
    systems = list_hardware(origin="domestic")
    devices = list_hardware(origin="domestic", kinds=("device",))
    assert len(systems) >= 20 and len(devices) >= 20
    announced = {row.id for row in (*systems, *devices) if row.status == "announced"}
    assert {"atlas-950-superpod", "ascend-950dt", "ascend-950dt-node", "ascend-960", "mtt-c256"} <= announced
    assert {row.id for row in devices if row.status == "cancelled"} == {"biren-br100"}


@pytest.mark.parametrize(
    ("device", "bf16", "headline", "cores", "clock_ghz"),
    [
        ("ascend-910b2", 353.9, 376, 24, 1.8),
        ("ascend-910b3", 294.9, 313, 20, 1.8),
        ("ascend-910c-die", 353.9, 376, 24, 1.8),
        ("ascend-950pr", 432, 500, 32, 1.65),
    ],
)
def test_ascend_peaks_are_those_of_the_cube_units(
    device: str, bf16: float, headline: float, cores: int, clock_ghz: float
) -> None:
    """Cores x clock x 8192 FLOP; the headline that adds the vector units is no more than the high end."""
    found = load_device(device).compute["bf16"].peak
    assert found.value == pytest.approx(bf16 * 1e12) and found.highest <= headline * 1e12
    assert found.value == pytest.approx(cores * clock_ghz * 1e9 * 8192, rel=2e-3)


def test_domestic_figures_where_the_sources_trap() -> None:
    c384 = load_hardware("cloudmatrix384").system
    a3 = load_hardware("atlas-800-a3").system
    assert (a3.devices, a3.devices_per_package) == (16, 2)
    assert [(d.id, d.devices) for d in a3.domains] == [("package", 2), ("supernode", 16), ("scale-out", None)]
    assert a3.domains[1].bandwidth.value == c384.domains[1].bandwidth.value == 196e9
    mesh = load_hardware("atlas-800-a2").system.domains[0]
    assert mesh.topology == "mesh" and mesh.p2p_efficiency.value * mesh.bandwidth.value < 28e9
    assert load_hardware("mtt-s5000-node").system.domains[0].bandwidth.value == 784e9 / 2
    assert load_hardware("thead-810e-node").system.domains[0].bandwidth.value == 700e9 / 2
    assert load_device("atlas-350").memory[0].usable.highest == 120_259_084_288
    assert load_hardware("ascend-950dt-144-node").system.tier("hbm").usable.low == 137e9
    p800 = load_device("kunlun-p800").memory[0].read
    assert (p800.value, p800.high) == (1.6e12, 2.4e12)
    bw1000 = load_device("hygon-bw1000").compute
    assert bw1000["bf16"].peak.value == 480e12 and bw1000["int8"].gemm.points[-1][1] == pytest.approx(0.19, rel=0.02)


def test_export_variants_differ_from_their_originals_where_they_should() -> None:
    for variant, original in (("h800-node", "h100-node"), ("a800-node", "a100-node")):
        cut, whole = load_hardware(variant).system, load_hardware(original).system
        assert cut.domains[0].bandwidth.value == 200e9 < whole.domains[0].bandwidth.value
        assert cut.device.compute["bf16"].peak.value == whole.device.compute["bf16"].peak.value
    h20 = load_hardware("h20-node").system
    assert h20.device.compute["fp8"].peak.value == 296e12 and h20.domains[0].bandwidth.value == 450e9
    assert load_hardware("h20-141-node").system.tier("hbm").read.value == 4.8e12
    assert load_hardware("h200-cn-node").system.device == load_hardware("h200-node").system.device


def test_what_is_unknown_is_listed() -> None:
    names = {name for row in list_hardware(origin="domestic") for name, _ in unknown_figures(load_hardware(row.id).system)}
    assert {READ, "thead-810e.memory.hbm.read", "hygon-bw1000-node.domain.scale-up.bandwidth"} <= names
    assert not any(name.endswith("capex") for name in names)


# --- what fits where (docs/domestic-min-nodes.md) ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "system", "nodes", "dtype"),
    [
        ("deepseek-r1", "atlas-800-a2", 2, "int8"),
        ("glm-5.2", "atlas-800-a2", 4, "bf16"),
        ("deepseek-r1", "atlas-800-a3", 1, "int8"),
    ],
)
def test_published_node_counts_fit_and_one_fewer_does_not(
    model: str, system: str, nodes: int, dtype: str, batch: Callable[..., object]
) -> None:
    """vllm-project/vllm-ascend docs/source/tutorials, 2026-08-22."""
    assert batch(model, f"{system}:{nodes}", dtype)
    if nodes > 1:
        with pytest.raises(InfeasibleError, match="weights .* exceed the"):
            batch(model, f"{system}:{nodes - 1}", dtype)


@pytest.fixture
def batch() -> Callable[..., object]:
    def run(model: str, hardware: str, dtype: str) -> object:
        return plan(model, hardware, workload="batch", objective="throughput", tiers=("hbm",), weight_dtype=dtype)

    return run


def test_four_bit_weights_stay_at_four_bits_where_the_runtime_dequantises() -> None:
    """Contract: a device that does not compute in the stored dtype keeps it if the runtime has a kernel for it."""
    found = plan("kimi-k2.5", "atlas-800-a3", workload="batch", objective="throughput", tiers=("hbm",))
    assert found.pools[0].memory["weights_bytes"] * 16 < 0.8e12
    with pytest.raises(InputError, match="does not compute in fp4; choose one of bf16, int4, int8"):
        plan("kimi-k2.5", "atlas-800-a3", weight_dtype="fp4")
