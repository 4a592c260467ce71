"""``planner lint``: passes on the whole catalogue, and finds what is sown into a profile, all of it at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.hardware import System, list_hardware, load_hardware
from planner.hardware.lint import Fault, lint
from planner.hardware.loader import builtin_folder, read_profile
from planner.hardware.source import ProfileSource
from planner.hardware.writer import to_toml

TODAY = date(2026, 11, 22)
EVIDENCE = 'source = "s", as_of = 2026-01-01, grade = "A"'
NODE = 'schema = 1\nkind = "node"\nid = "mine"\nextends = "h800-node"\n'
DEVICE = 'schema = 1\nkind = "device"\nid = "mine"\nextends = "h800-sxm"\n'
TIER, LINK, DOMAIN = '[[tier]]\nid = "host"\n', '[[link]]\nid = "pcie"\n', '[[domain]]\nid = "nvlink"\n'


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., list[Fault]]:
    def run(text: str, name: str = "mine.toml") -> list[Fault]:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return lint(path, today=TODAY)

    return run


# --- the catalogue ----------------------------------------------------------------------------------------------


def test_the_whole_catalogue_passes() -> None:
    source = ProfileSource(())
    faults = [str(fault) for path in source.files for fault in lint(path, source=source, today=TODAY)]
    assert faults == []


def test_the_catalogue_is_as_large_as_promised() -> None:
    kinds = ("device", "node", "rack")
    assert len(list_hardware(origin="western", kinds=kinds)) >= 40
    assert len(list_hardware(origin="domestic", kinds=kinds)) >= 20


def test_the_whole_catalogue_loads_quickly() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        source = ProfileSource(())
        for path in source.files:
            source.document(path)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.3


def test_a_plan_reads_only_the_profiles_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from planner.hardware import source

    read: list[str] = []
    text_of = source.read_text
    monkeypatch.setattr(source, "read_text", lambda path, **limits: read.append(path.stem) or text_of(path, **limits))
    load_hardware("h800-node")
    assert sorted(set(read)) == ["h100-node", "h100-sxm", "h800-node", "h800-sxm"]


def test_no_part_has_two_profiles() -> None:
    for kinds in (("device",), ("node", "rack")):
        names = [(row.vendor, row.name) for row in list_hardware(kinds=kinds)]
        assert len(names) == len(set(names))
    ids = [row.id for row in list_hardware(kinds=("device", "node", "rack"))]
    assert len(ids) == len(set(ids))


def test_prices_have_basis_and_date_and_announced_parts_are_marked() -> None:
    for row in list_hardware():
        system = load_hardware(row.id).system
        assert system.capex_basis and system.capex.as_of is not None
        assert system.device.status != "announced" or system.status == "announced"


def test_mesh_peers_get_one_link_not_the_port() -> None:
    domain = load_hardware("mi300x-node").system.domains[0]
    assert domain.topology == "mesh"
    assert domain.bandwidth.value * domain.p2p_efficiency.value == pytest.approx(47.7e9, rel=0.01)
    assert domain.bandwidth.value * domain.allreduce_efficiency.value == pytest.approx(312.9e9, rel=0.01)


def test_the_bill_of_the_vr200_rack_adds_up() -> None:
    capex = load_hardware("vr200-nvl72").system.capex
    assert capex.value == 7_803_148
    for part in ("72 GPUs at 55,000", "36 CPUs at 5,000", "2,001,600", "1,661,548", "with their HBM"):
        assert part in capex.note
    assert capex.value == 72 * 55_000 + 36 * 5_000 + 2_001_600 + 1_661_548


# --- sown faults ------------------------------------------------------------------------------------------------

SOWN = {
    "sparse peak": (
        f'{DEVICE}[compute.fp8]\npeak = {{ value = "3958 TFLOP/s", {EVIDENCE} }}\n',
        "compute.fp8.peak",
        "looks like a sparse figure",
    ),
    "sparse counting": (f'{DEVICE}[compute.fp8]\ncounting = "sparse"\n', "compute.fp8.counting", "sparse peak is not reached"),
    "bidirectional link": (
        f'{NODE}{LINK}bandwidth = {{ value = "128 GB/s", {EVIDENCE} }}\n',
        "link.pcie.bandwidth",
        "above the 64 GB/s one-way of pcie5-x16; halve",
    ),
    "bidirectional direction": (f'{NODE}{LINK}direction = "both"\n', "link.pcie.direction", "write the one-way bandwidth"),
    "GiB label": (
        f'{DEVICE}[[memory]]\nid = "hbm"\nusable = {{ value = "80 GiB", note = "the label", {EVIDENCE} }}\n',
        "memory.hbm.usable",
        "binary units; a label's GB are 1e9 bytes",
    ),
    "GiB rate": (f'{NODE}{TIER}read = {{ value = "300 GiB/s", {EVIDENCE} }}\n', "tier.host.read", "binary units"),
    "missing source": (
        f'{NODE}{TIER}read = {{ value = "300 GB/s", as_of = 2026-01-01, grade = "A" }}\n',
        "tier.host.read.source",
        "is missing; add it",
    ),
    "missing date": (
        f'{NODE}{TIER}read = {{ value = "300 GB/s", source = "s", grade = "A" }}\n',
        "tier.host.read",
        "as_of is missing; write the date",
    ),
    "duplicate memory": (f"{NODE}{TIER}{TIER}", "tier", "'host' is listed 2 times"),
    "memory under two names": (
        f'{NODE}[[tier]]\nid = "ram"\nkind = "ddr"\nrole = "host"\nowner = "node"\ndevices_sharing = 8\ngranule_bytes = 64\n'
        f'usable = {{ value = "1 TB", {EVIDENCE} }}\nread = {{ value = "307.2 GB/s", {EVIDENCE} }}\n'
        f'efficiency = {{ value = 0.8, {EVIDENCE} }}\nlatency = {{ value = "1 us", {EVIDENCE} }}\n',
        "tier.ram",
        "one memory listed twice",
    ),
    "wrong unit": (f'{NODE}{TIER}read = {{ value = "300 GB", {EVIDENCE} }}\n', "tier.host.read", "unknown unit 'GB'"),
    "no unit": (f"{NODE}power = {{ value = 9000, {EVIDENCE} }}\n", "power", "has no unit"),
    "future date": (
        f'{NODE}power = {{ value = "9 kW", {EVIDENCE.replace("2026-01", "2999-01")} }}\n',
        "power.as_of",
        "2999-01-01 lies in the future",
    ),
    "future profile": (f"{NODE}as_of = 2999-01-01\n", "as_of", "2999-01-01 lies in the future"),
    "negative price": (f'{NODE}capex = {{ value = "-5 USD", {EVIDENCE} }}\n', "capex", "must be above 0"),
    "absent dtype used": (
        f'{DEVICE}[compute.fp4]\ncounting = "dense"\n[compute.fp4.gemm]\npoints = [[1, 0.1]]\nlow_factor = 0.9\n'
        'high_factor = 1.1\nsource = "s"\nas_of = 2026-01-01\ngrade = "A"\n',
        "compute.fp4.peak",
        "the device does not compute in it",
    ),
    "unknown dtype": (f"{DEVICE}[compute.fp9]\n", "compute.fp9.dtype", "'fp8'"),
    "cycle in extends": (NODE.replace("h800-node", "mine.toml"), "extends", "in a circle (mine -> mine); break it"),
    "unknown base": (NODE.replace("h800-node", "h80-node"), "extends", "did you mean h800-node"),
    "unknown key": (f"{NODE}colour = 3\n", "colour", "unknown key; remove it"),
    "unknown key in a row": (f"{NODE}{TIER}bandwith = 3\n", "tier.host.bandwith", "unknown key"),
    "HTML": (f'{NODE}name = "<script>alert(1)</script>"\n', "name", "markup"),
    "HTML in a source": (
        f'{NODE}power = {{ value = "9 kW", source = "<a href=x>s</a>", as_of = 2026-01-01, grade = "A" }}\n',
        "power.source",
        "markup",
    ),
    "estimate without interval": (
        f'{NODE}power = {{ value = "9 kW", {EVIDENCE.replace("A", "C")} }}\n',
        "power",
        "needs an interval; add low and high",
    ),
    "label without note": (
        f'{DEVICE}[[memory]]\nid = "hbm"\nusable = {{ value = "80 GB", {EVIDENCE} }}\n',
        "memory.hbm.usable",
        "the label on the box",
    ),
    "mesh peer": (f'{NODE}{DOMAIN}topology = "mesh"\n', "domain.nvlink.p2p_efficiency", "one peer is one link of 7"),
    "absent device": (f'{NODE}device = "h801-sxm"\n', "device", "did you mean h800-sxm"),
    "stray via": (f'{NODE}{TIER}via = ["warp"]\n', "tier.host.via", "names no link"),
    "sharers that do not divide": (f"{NODE}{TIER}devices_sharing = 3\n", "tier.host.devices_sharing", "3 does not divide 8"),
    "announced device": (
        f'{DEVICE}status = "announced"\n[compute.fp8]\npeak = {{ value = "1979 TFLOP/s", note = "dense", {EVIDENCE} }}\n',
        "compute.fp8.peak",
        "only announced",
    ),
}


PROMISED = {"sparse peak", "bidirectional link", "GiB label", "missing source", "duplicate memory", "wrong unit", "future date"}
PROMISED |= {"negative price", "absent dtype used", "cycle in extends", "unknown key", "HTML"}


def test_the_twelve_promised_faults_are_sown() -> None:
    assert len(PROMISED) == 12 and set(SOWN) >= PROMISED


@pytest.mark.parametrize("name", SOWN)
def test_sown_fault(name: str, check: Callable[..., list[Fault]]) -> None:
    text, key, part = SOWN[name]
    found = check(text)
    matching = [fault for fault in found if fault.key == key and part in f"{fault.what}; {fault.mend}"]
    assert len(matching) == 1, [str(fault) for fault in found]
    assert matching[0].mend
    for fault in found:
        assert "\n" not in str(fault) and str(fault).startswith(matching[0].where)
        assert fault.key.startswith((key, "compute.")), str(fault)  # nothing else is blamed


def test_all_faults_at_once(check: Callable[..., list[Fault]]) -> None:
    found = check(
        f'{NODE}colour = 3\nname = "<b>x</b>"\ncapex = {{ value = "-5 USD", {EVIDENCE} }}\n'
        f'power = {{ value = "9 kW", {EVIDENCE.replace("2026-01", "2999-01")} }}\n'
        f'{TIER}read = {{ value = "300 GB", {EVIDENCE} }}\nwrite = {{ value = "9 GB/s", as_of = 2026-01-01, grade = "A" }}\n'
        f'latency = {{ value = "1 us", {EVIDENCE.replace("A", "D")} }}\nvia = ["warp"]\n'
        f'{LINK}bandwidth = {{ value = "128 GB/s", {EVIDENCE} }}\n{DOMAIN}devices = 16\ntopology = "mesh"\n'
    )
    keys = {fault.key for fault in found}
    assert keys >= {"colour", "name", "capex", "power.as_of", "tier.host.read", "tier.host.write.source", "tier.host.latency"}
    assert keys >= {"link.pcie.bandwidth", "tier.host.via"}
    assert any(key.startswith("domain.nvlink") for key in keys)


def test_faults_of_a_complete_profile_are_found_too(tmp_path: Path) -> None:
    path = tmp_path / "whole.toml"
    text = to_toml(load_hardware("gb200-nvl72").system).replace('id = "gb200-nvl72"', 'id = "whole"', 1)
    path.write_text(text.replace('direction = "one-way"', 'direction = "both"'), encoding="utf-8")
    found = [fault for fault in lint(path, today=TODAY) if fault.key.endswith("direction")]
    assert len(found) == text.count('direction = "one-way"')


@pytest.mark.parametrize(
    "data", [b"x = [", b"\xff\xfe", b"a" * 2**21, b"", b"schema = 1\nkind = 7\n", b'kind = "node"\ntier = 3\n']
)
def test_hostile_files_are_faults(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(data)
    assert lint(path, today=TODAY)


def test_every_built_in_with_one_line_removed_is_read_or_explained(tmp_path: Path) -> None:
    text = (builtin_folder() / "systems" / "h100-node.toml").read_text(encoding="utf-8").replace('"h100-node"', '"other"', 1)
    lines = text.splitlines()
    source = ProfileSource(())
    for number in range(len(lines)):
        path = tmp_path / f"p{number}.toml"
        path.write_text("\n".join(lines[:number] + lines[number + 1 :]), encoding="utf-8")
        found = lint(path, source=source, today=TODAY)
        try:
            assert isinstance(read_profile(path), System)
        except Exception as error:
            assert found, error


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=100, phases=(Phase.explicit, Phase.generate), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=1, max_size=3), data=st.data())
def test_what_cannot_be_read_has_a_fault(
    values: list[object], data: st.DataObject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tomllib

    from planner.hardware import source

    table = tomllib.loads(to_toml(load_hardware("h800-node").system).replace('"h800-node"', '"mine"', 1))
    for value in values:
        part: Any = table
        while True:
            key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else list(range(len(part)))))
            if isinstance(part[key], dict | list) and part[key] and data.draw(st.integers(0, 4)):
                part = part[key]
                continue
            part[key] = value
            break
    path = tmp_path / "fuzz.toml"
    path.write_text("", encoding="utf-8")
    text_of = source.parse_toml
    with monkeypatch.context() as patch:
        patch.setattr(source, "parse_toml", lambda text, where: table if where == str(path) else text_of(text, where))
        found = lint(path, today=TODAY)
        try:
            read_profile(path)
        except InputError:
            assert found
        assert not any("\n" in str(fault) for fault in found)


# --- the command ------------------------------------------------------------------------------------------------


def planner(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    from planner.cli import main

    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = planner("lint", "h800-node", "gb200", capsys=capsys)
    assert (code, out) == (0, "ok: 2 profiles checked\n")
    path = tmp_path / "mine.toml"
    path.write_text(f'{NODE}colour = 3\nname = "<b>"\n', encoding="utf-8")
    code, out, _ = planner("lint", str(path), capsys=capsys)
    assert code == 4
    assert f"{path}: colour: unknown key; remove it or correct its spelling\n" in out
    assert "2 faults in 1 checked" in out
    code, out, _ = planner("lint", str(tmp_path), "--format", "json", capsys=capsys)
    answer = json.loads(out)
    assert code == 4 and not answer["ok"] and {fault["key"] for fault in answer["faults"]} == {"colour", "name"}
    code, _, err = planner("lint", "no-such", capsys=capsys)
    assert code == 2 and "unknown profile" in err
    code, _, err = planner("lint", str(tmp_path / "none.toml"), capsys=capsys)
    assert code == 2 and "no such file" in err


def test_json_of_the_command_keeps_to_its_schema(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from planner.cli.schema_command import schema_of

    for arguments in (["lint", "h800-node"], ["lint", "h800-sxm"]):
        _, out, _ = planner(*arguments, "--format", "json", capsys=capsys)
        jsonschema.validate(json.loads(out), schema_of("lint"))
