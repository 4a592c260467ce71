"""The truth rules over the whole catalogue. Each rule is a function from profiles to violations: none in the catalogue, at least
one where a profile is bent in the way that the rule is about."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pytest

from planner.hardware import DeviceProfile, System, list_hardware, load_device, load_hardware
from planner.hardware.loader import builtin_folder
from planner.hardware.schema import DIMENSIONS, ONE_WAY_LIMIT_BYTES_PER_S
from planner.quantities import Figure
from planner.runtimes import RUNTIMES

Raw = dict[str, dict[str, Any]]
Change = Callable[[Raw], object]
FILES: Raw = {
    f"{path.parent.name}/{path.stem}": tomllib.loads(path.read_text(encoding="utf-8"))
    for folder in ("devices", "systems")
    for path in sorted((builtin_folder() / folder).glob("*.toml"))
}
DEVICES = [load_device(row.id) for row in list_hardware(kinds=("device",))]
SYSTEMS = [load_hardware(row.id).system for row in list_hardware()]
TODAY = date(2026, 11, 22)

BUILT_FOR_NARROW = {("rubin", "fp8"), ("rubin", "fp4"), ("rtx-5090", "fp8"), ("rtx-5090", "int8"), ("rtx-5090", "fp4")}
BUILT_FOR_NARROW |= {("rtx-4090", "int8"), ("trainium3", "fp8"), ("b300-sxm", "fp4"), ("gb300", "fp4"), ("mlu370-x8", "int8")}
"""Dense peaks above two or four times the 16-bit one: parts built for narrow numbers, and GeForce, which halves wide ones."""
ALIKE = {frozenset(pair) for pair in (("a100-sxm", "a800-sxm"), ("h100-sxm", "h800-sxm"), ("ascend-910b2", "ascend-910c-die"))}
"""Parts that differ in their network, which belongs to the system, and in how many are packaged together."""


# --- rules on the text of the files


def _figures(value: Any, key: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
    """``(path, key, table)`` of each figure as it is written."""
    if isinstance(value, dict):
        name = key.rpartition(".")[2]
        if name in DIMENSIONS:
            yield key, name, value
            return
        for item, inner in value.items():
            yield from _figures(inner, f"{key}.{item}")
    elif isinstance(value, list):
        for item in value:
            yield from _figures(item, f"{key}.{item.get('id', '') if isinstance(item, dict) else ''}")


def evidence(files: Raw) -> Iterator[str]:
    """Every figure has a unit, a source, a date that is past and a grade; C and D have an interval; nobody guesses silently."""
    for file, table in files.items():
        for key, name, figure in _figures(table):
            where = f"{file}{key}"
            if not isinstance(figure.get("as_of"), date) or figure["as_of"] > TODAY:
                yield f"{where}: no date"
            if "unknown" in figure:
                if set(figure) not in ({"unknown", "as_of"}, {"unknown", "as_of", "default", "low", "high"}):
                    yield f"{where}: an unknown figure with evidence"
                continue
            for part in ("value", "low", "high"):
                if DIMENSIONS[name] != "fraction" and part in figure and not re.search(r"\d\s+[A-Za-z/%]", str(figure[part])):
                    yield f"{where}: {part} has no unit"
            if not str(figure.get("source", "")).strip() or figure.get("grade") not in ("A", "B", "C", "D"):
                yield f"{where}: no source or grade"
            if figure.get("grade") in ("C", "D") and not {"low", "high"} <= set(figure):
                yield f"{where}: an estimate without an interval"


def decimal_bytes(files: Raw) -> Iterator[str]:
    """GB are 1e9 bytes; GiB only where the source is said to count in them; binary rates never."""
    for file, table in files.items():
        for key, _, figure in _figures(table):
            for part in ("value", "low", "high", "default"):
                text = str(figure.get(part, ""))
                if re.search(r"iB/s", text) and "iB" not in figure.get("note", "") + figure.get("source", ""):
                    yield f"{file}{key}: {part} is a binary rate"
                if (
                    part == "value"
                    and re.search(r"[GT]iB$", text)
                    and "iB" not in figure.get("note", "") + figure.get("source", "")
                ):
                    yield f"{file}{key}: {part} is in binary units, and nothing says that the source is"


def plain_text(files: Raw) -> Iterator[str]:
    """No markup or control character in any field."""

    def walk(value: Any, key: str) -> Iterator[str]:
        if isinstance(value, dict):
            for name, item in value.items():
                yield from walk(item, f"{key}.{name}")
        elif isinstance(value, list):
            for item in value:
                yield from walk(item, key)
        elif isinstance(value, str) and (re.search(r"<\s*[a-zA-Z/!]|&\w+;|javascript:", value) or not value.isprintable()):
            yield key

    for file, table in files.items():
        yield from walk(table, file)


def one_file_a_part(files: Raw) -> Iterator[str]:
    """No name stands for two devices or two systems, and no two devices agree in every peak and memory figure."""
    for sort in ("devices/", "systems/"):
        names: dict[str, str] = {}
        for file, table in files.items():
            for name in (table["id"], *table.get("aliases", ())) if file.startswith(sort) else ():
                if names.setdefault(name, file) != file:
                    yield f"{name}: {names[name]} and {file}"


def no_reserve(files: Raw) -> Iterator[str]:
    """Usable bytes are what the driver reports or the label: reserves are the runtime's own figures."""
    for file, table in files.items():
        for key, name, figure in _figures(table):
            if (
                name == "usable"
                and "devices/" in file
                and re.search(r"(graphs|activation|fragmentation) (is|are) taken off", str(figure))
            ):
                yield f"{file}{key}"
        if re.search(r"'reserve\w*'", str(table)):
            yield f"{file}: a reserve among the hardware's figures"


RAW_RULES: list[tuple[Callable[[Raw], Iterator[str]], Change]] = [
    (evidence, lambda raw: raw["systems/h100-node"]["power"].pop("source")),
    (evidence, lambda raw: raw["systems/h100-node"]["power"].pop("as_of")),
    (evidence, lambda raw: raw["systems/h100-node"]["power"].update(as_of=date(2027, 1, 1))),
    (evidence, lambda raw: raw["systems/h100-node"]["power"].update(grade="E")),
    (evidence, lambda raw: raw["systems/h100-node"]["power"].update(value="10.2")),
    (evidence, lambda raw: raw["systems/gb200-nvl72"]["capex"].pop("low")),
    (evidence, lambda raw: raw["devices/mlu590"]["memory"][0]["read"].update(grade="A")),
    (decimal_bytes, lambda raw: raw["devices/h100-sxm"]["memory"][0]["usable"].update(value="80 GiB", note="label", source="s")),
    (decimal_bytes, lambda raw: raw["devices/h100-sxm"]["memory"][0]["read"].update(value="3.2 TiB/s")),
    (plain_text, lambda raw: raw["systems/h100-node"]["power"].update(note="<b>10</b>")),
    (one_file_a_part, lambda raw: raw["devices/h100-sxm"]["aliases"].append("a100-sxm")),
    (no_reserve, lambda raw: raw["devices/h100-sxm"]["memory"][0].update(reserve={"value": "2 GB"})),
]


def copied(files: Raw) -> Raw:
    import copy

    return copy.deepcopy(files)


@pytest.mark.parametrize("rule", sorted({rule for rule, _ in RAW_RULES}, key=lambda rule: rule.__name__))
def test_the_files_keep_the_rule(rule: Callable[[Raw], Iterator[str]]) -> None:
    assert list(rule(FILES)) == []


@pytest.mark.parametrize(("rule", "change"), RAW_RULES, ids=lambda item: getattr(item, "__name__", ""))
def test_the_rule_on_files_can_fail(rule: Callable[[Raw], Iterator[str]], change: Change) -> None:
    bent = copied(FILES)
    change(bent)
    assert len(list(rule(bent))) >= 1


# --- rules on what is read

Profile = System | DeviceProfile


def dense(profiles: list[Profile]) -> Iterator[str]:
    """Each narrower dtype is at most twice the wider one, unless the part is known to be built so."""
    for profile in profiles:
        device = profile.device if isinstance(profile, System) else profile
        peak = {dtype: part.peak.value for dtype, part in device.compute.items() if part.peak.known}
        wide = peak.get("bf16", peak.get("fp16"))
        for dtype, factor in (("fp8", 2), ("int8", 2), ("fp4", 4), ("int4", 4)):
            if wide and dtype in peak and (device.id, dtype) not in BUILT_FOR_NARROW and peak[dtype] > 1.03 * factor * wide:
                yield f"{device.id}: {dtype} is {peak[dtype] / wide:.3g} times the 16-bit peak"
        yield from (
            f"{device.id}: {dtype} is not counted dense" for dtype, part in device.compute.items() if part.counting != "dense"
        )


def one_way(profiles: list[Profile]) -> Iterator[str]:
    """No port carries more than its generation does one way."""
    for system in profiles:
        if isinstance(system, System):
            for link in system.links:
                limit = ONE_WAY_LIMIT_BYTES_PER_S.get(link.generation, 2e12)
                if (
                    link.bandwidth.known
                    and link.bandwidth.value / link.devices_sharing > 1.02 * limit
                    or link.direction != "one-way"
                ):
                    yield f"{system.id}: {link.id}"
            for domain in system.domains:
                limit = ONE_WAY_LIMIT_BYTES_PER_S.get(domain.network, 2e12)
                if domain.bandwidth.known and domain.bandwidth.value > 1.02 * limit or domain.direction != "one-way":
                    yield f"{system.id}: {domain.id}"


def usable_not_label(profiles: list[Profile]) -> Iterator[str]:
    """A device says how its usable bytes are known, and a round number, which is a label, has an interval."""
    for profile in profiles:
        if isinstance(profile, DeviceProfile):
            for tier in profile.memory:
                usable = tier.usable
                if usable.known and not usable.note:
                    yield f"{profile.id}: {tier.id} does not say how"
                if usable.known and usable.value % 1e9 == 0 and not usable.lowest < usable.highest:
                    yield f"{profile.id}: {tier.id} is a label without an interval"


def owned_once(profiles: list[Profile]) -> Iterator[str]:
    """A memory has one owner: a device none but its own, and no two tiers of a system are the same bytes."""
    for profile in profiles:
        tiers = profile.tiers if isinstance(profile, System) else profile.memory
        for tier in tiers:
            if (tier.owner == "device") != (tier.role == "device") or (
                isinstance(profile, DeviceProfile) and tier.role != "device"
            ):
                yield f"{profile.id}: {tier.id} belongs to {tier.owner}"
            if isinstance(profile, System) and tier.role != "device" and tier.devices_sharing == 1 < profile.devices_per_node:
                yield f"{profile.id}: {tier.id} is counted for every device"
        seen = [(tier.kind, tier.usable.value, tier.read.value) for tier in tiers]
        if len(seen) != len(set(seen)):
            yield f"{profile.id}: one memory twice"


def mesh_apart(profiles: list[Profile]) -> Iterator[str]:
    """One peer of a mesh gets one link of the port, not the port."""
    for system in profiles:
        for domain in system.domains if isinstance(system, System) else ():
            most = 1.1 / ((domain.devices or 2) - 1) if domain.topology == "mesh" else 1.0
            if domain.p2p_efficiency.value > most:
                yield f"{system.id}: {domain.id}"


HEADLINES = {"ascend-910b2": 376, "ascend-910b3": 313, "ascend-910c-die": 376, "ascend-950pr": 500, "ascend-950dt": 500}
HEADLINES |= {"ascend-910b4": 280, "ascend-950dt-144": 500, "atlas-350": 500}
CUBES = {"ascend-910b2": (24, 1.8), "ascend-910b3": (20, 1.8), "ascend-910b4": (20, 1.5), "ascend-910c-die": (24, 1.8)}
CUBES |= {"ascend-950pr": (32, 1.65), "ascend-950dt": (32, 1.65), "ascend-950dt-144": (32, 1.65), "atlas-350": (28, 1.65)}


def cube_peak(profiles: list[Profile]) -> Iterator[str]:
    """An Ascend's peak is that of its cube units, cores x GHz x 8192; the headline with the vector units bounds the interval."""
    for device in profiles:
        if isinstance(device, DeviceProfile) and device.id in CUBES:
            cores, clock = CUBES[device.id]
            found = device.compute["bf16"].peak
            if abs(found.value / (cores * clock * 1e9 * 8192) - 1) > 2e-3 or found.highest > HEADLINES[device.id] * 1e12:
                yield device.id


def announced_marked(profiles: list[Profile]) -> Iterator[str]:
    """What is only announced has no peak of grade A or B, and a system of it is announced too."""
    for profile in profiles:
        device = profile.device if isinstance(profile, System) else profile
        if device.status == "announced" and profile.status == "shipping":
            yield f"{profile.id}: ships a part that does not"
        if device.status == "announced":
            yield from (f"{device.id}: {k}" for k, part in device.compute.items() if part.peak.known and part.peak.grade in "AB")


def priced(profiles: list[Profile]) -> Iterator[str]:
    """A price has a basis, a date and is above nothing; every system of the catalogue has one or an estimate with an interval."""
    for system in profiles:
        if isinstance(system, System) and not (
            system.capex_basis and system.capex.as_of and system.capex.value > 0 and system.capex.known
        ):
            yield system.id


def no_twins(profiles: list[Profile]) -> Iterator[str]:
    """No two devices of a vendor agree in every peak and memory figure."""
    seen: dict[object, str] = {}
    for device in profiles:
        if isinstance(device, DeviceProfile) and any(part.peak.known for part in device.compute.values()):
            peaks = tuple(sorted((k, part.peak.value) for k, part in device.compute.items()))
            key = (device.vendor, peaks, tuple((tier.kind, tier.read.value) for tier in device.memory))
            key = (*key, tuple(round(tier.usable.value / 2e9) for tier in device.memory))
            other = seen.setdefault(key, device.id)
            if other != device.id and frozenset((other, device.id)) not in ALIKE:
                yield f"{other} and {device.id}"


def _bent(profile: Profile, **changes: Any) -> Profile:
    return profile.model_copy(update=changes)


def _figure(figure: Figure, **changes: Any) -> Figure:
    return figure.model_copy(update=changes)


def _device(name: str) -> DeviceProfile:
    return next(device for device in DEVICES if device.id == name)


def _system(name: str) -> System:
    return next(system for system in SYSTEMS if system.id == name)


def _peak(device: DeviceProfile, dtype: str, **changes: Any) -> DeviceProfile:
    part = device.compute[dtype]
    compute = {**device.compute, dtype: part.model_copy(update={"peak": _figure(part.peak, **changes)})}
    return device.model_copy(update={"compute": compute})


def _first(profile: Any, rows: str, row_id: str, **changes: Any) -> Any:
    items = tuple(row.model_copy(update=changes) if row.id == row_id else row for row in getattr(profile, rows))
    return profile.model_copy(update={rows: items})


H100, NODE, MESH = _device("h100-sxm"), _system("h100-node"), _system("mi300x-node")
READ_RULES: list[tuple[Callable[[list[Profile]], Iterator[str]], Profile]] = [
    (dense, _peak(H100, "fp8", value=3958e12)),
    (dense, _bent(H100, compute={"bf16": H100.compute["bf16"].model_copy(update={"counting": "sparse"})})),
    (one_way, _first(NODE, "domains", "nvlink", bandwidth=_figure(NODE.domains[0].bandwidth, value=900e9))),
    (one_way, _first(NODE, "links", "pcie", bandwidth=_figure(NODE.link("pcie").bandwidth, value=128e9))),
    (one_way, _first(NODE, "links", "pcie", direction="both")),
    (usable_not_label, _first(H100, "memory", "hbm", usable=_figure(H100.memory[0].usable, note=""))),
    (usable_not_label, _first(H100, "memory", "hbm", usable=_figure(H100.memory[0].usable, value=80e9, low=None, high=None))),
    (owned_once, _first(NODE, "tiers", "host", owner="device")),
    (owned_once, _first(_system("gb200-nvl72"), "tiers", "host", devices_sharing=1)),
    (owned_once, _bent(NODE, tiers=(*NODE.tiers, NODE.tier("host").model_copy(update={"id": "ram"})))),
    (mesh_apart, _first(MESH, "domains", "xgmi", p2p_efficiency=_figure(MESH.domains[0].p2p_efficiency, value=0.8))),
    (cube_peak, _peak(_device("ascend-910b2"), "bf16", value=376e12)),
    (cube_peak, _peak(_device("atlas-350"), "bf16", high=900e12)),
    (announced_marked, _bent(_system("vr200-nvl72"), status="shipping")),
    (announced_marked, _peak(_device("rubin"), "bf16", grade="A")),
    (priced, _bent(NODE, capex=_figure(NODE.capex, as_of=None))),
    (priced, _bent(NODE, capex=_figure(NODE.capex, value=-5.0))),
    (no_twins, _bent(H100, id="h100-again")),
]


@pytest.mark.parametrize("rule", list(dict.fromkeys(rule for rule, _ in READ_RULES)), ids=lambda rule: rule.__name__)
def test_the_catalogue_keeps_the_rule(rule: Callable[[list[Profile]], Iterator[str]]) -> None:
    assert list(rule([*DEVICES, *SYSTEMS])) == []


@pytest.mark.parametrize(("rule", "fault"), READ_RULES, ids=lambda item: getattr(item, "__name__", getattr(item, "id", "")))
def test_the_rule_can_fail(rule: Callable[[list[Profile]], Iterator[str]], fault: Profile) -> None:
    assert len(list(rule([*DEVICES, *SYSTEMS, fault]))) >= 1


def test_reserves_are_figures_of_their_own() -> None:
    for runtime in RUNTIMES:
        names = [name for name, figure in runtime.reserve if isinstance(figure, Figure)]
        assert {"context", "graphs", "communication", "fragmentation"} <= set(names) and len(names) >= 6
        assert all(figure.source and figure.grade for _, figure in runtime.reserve)


# --- what was asked for, by name

ASKED_DEVICES = """
a100-sxm h100-sxm h200-sxm b200-sxm b300-sxm gb200 gb300 rubin rtx-pro-6000 rtx-4090 rtx-5090 l40s t4 gb10 mi300x
mi325x mi355x mi455x tpu-v5e tpu-v6e tpu-v7 trainium2 trainium3 gaudi3 m3-ultra ryzen-ai-max-395 epyc-9965 xeon-6980p grace vera
ascend-910b2 ascend-910b3 ascend-910b4 ascend-910c-die ascend-950pr ascend-950dt ascend-950dt-144 ascend-310p atlas-350 ascend-960
kunlun-p800 thead-810e thead-m890 mtt-s4000 mtt-s5000 metax-c500 metax-c550 metax-c600 hygon-k100-ai hygon-bw1000 iluvatar-bi-v150
mlu370-x8 mlu590 mlu690 biren-br100 biren-br106 biren-br166 enflame-s60 enflame-l600 kunpeng-920
h20-96 h20-141 h800-sxm a800-sxm rtx-pro-6000d"""
ASKED_SYSTEMS = """
gb200-nvl72 gb300-nvl72 vr200-nvl72 dgx-spark cloudmatrix384 atlas-800-a2 atlas-800-a3 atlas-950-superpod
h20-node h800-node a800-node trn2-ultraserver trn3-ultraserver helios-mi455x strix-halo-pc mac-studio-m3-ultra"""


def test_every_part_that_was_asked_for_is_there() -> None:
    assert set(ASKED_DEVICES.split()) <= {device.id for device in DEVICES}
    assert set(ASKED_SYSTEMS.split()) <= {system.id for system in SYSTEMS}
    assert sum(device.origin == "western" for device in DEVICES) >= 30
    assert {s.tier("hbm").usable.value // 1e9 for s in SYSTEMS if s.id.startswith("ascend-950dt")} == {98, 147}


def test_a_device_without_a_system_is_one_whose_figures_nobody_gives() -> None:
    held = {system.device.id for system in SYSTEMS}
    alone = {device.id for device in DEVICES} - held
    assert alone == {
        *("ascend-960", "biren-br100", "biren-br106", "biren-br166", "enflame-l600", "enflame-s60", "kunpeng-920"),
        *("mlu370-x8", "mlu590", "mlu690", "thead-m890", "vera"),
    }
