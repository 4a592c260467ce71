"""A drafted profile from a system file of aiconfigurator (``systems/*.yaml`` of ai-dynamo/aiconfigurator, Apache-2.0).

Such a file has one ``gpu`` and one ``node``: bytes, bytes a second and FLOP/s as bare numbers, one-way and dense by its
convention. What breaks the convention shows where a port or a step between dtypes is known: such a figure becomes an
unknown one with the likely value as its default. ``mem_capacity`` is a label where it is whole gigabytes, and what the
driver reports where it is not; power is the GPU's alone, and host memory and price are not there at all.
"""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Any

from planner.documents import parse_toml, read_text
from planner.errors import InputError
from planner.hardware.defaults import class_defaults
from planner.hardware.draft import FOLDER, Draft, Network, Table, quantity, to_text, unknown
from planner.hardware.schema import HALVINGS, LARGEST_STEP, ONE_WAY_LIMIT_BYTES_PER_S
from planner.quantities import Dimension, parse_quantity

_PEAKS = {
    "bfloat16_tc_flops": "bf16",
    "float16_tc_flops": "fp16",
    "fp8_tc_flops": "fp8",
    "int8_tc_flops": "int8",
    "fp4_tc_flops": "fp4",
}
_WIDER = {"fp8": ("bf16", "fp16"), "int8": ("bf16", "fp16"), "fp4": ("fp8", "bf16", "fp16")}
_BF16_RATE_IS_FP16_RATE = 80
"""From this compute capability on, tensor cores run bf16 as fast as fp16."""
_GPU_KEYS = {*_PEAKS, "mem_bw", "mem_bw_empirical_scaling_factor", "mem_empirical_constant_latency", "mem_capacity", "power"}
_NODE_KEYS = {
    *("num_gpus_per_node", "num_gpus_per_rack", "intra_node_bw", "inter_node_bw", "inter_rack_bw"),
    *("pcie_bw", "p2p_latency", "inter_rack_latency"),
}


def _ports() -> dict[str, Any]:
    path = FOLDER / "capability.toml"
    return parse_toml(read_text(path), str(path))


def convert(data: object, *, file: str, profile_id: str, today: date) -> str:
    """The table of a system file as the commented TOML of a profile; ``file`` is the name it is cited by.

    Raises ``InputError`` where it is no such table or a number cannot be what its key says.
    """
    return to_text(_Reader(data, file, profile_id, today).draft())


class _Reader:
    def __init__(self, data: object, file: str, profile_id: str, today: date) -> None:
        if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in ("gpu", "node")):
            raise InputError("has no gpu and node tables", where=file, mend="name a systems/*.yaml of aiconfigurator")
        self.data, self.profile_id, self.today = data, profile_id, today
        self.file = re.sub(r"[^A-Za-z0-9._-]+", "-", file)[:64]

    def draft(self) -> Draft:
        per_node = self._count("num_gpus_per_node")
        if per_node is None:
            raise InputError("node.num_gpus_per_node: is missing", where=self.file, mend="add it")
        per_rack = self._count("num_gpus_per_rack") or per_node
        if per_rack % per_node:
            what = f"node.num_gpus_per_rack: {per_rack} is no multiple of the {per_node} of a node"
            raise InputError(what, where=self.file, mend="correct it")
        capability = self._number("gpu", "sm_version", 10, 999)
        port = _ports().get(str(int(capability or 0)), {})
        pcie, generation = self._pcie(port)
        memory = port.get("memory", "hbm")
        return Draft(
            id=self.profile_id,
            as_of=self.today,
            title=f"{self.profile_id}: drafted from {self.file} of aiconfigurator; its figures are named as their source",
            name=f"{per_rack} GPUs as in {self.file}",
            vendor="NVIDIA" if capability else "",
            devices=per_rack,
            devices_per_node=per_node,
            peaks=self._peaks(capability),
            memory_kind=memory,
            usable=self._usable(),
            read=self._given("gpu", "mem_bw", self._number("gpu", "mem_bw", 1e9, 1e15), "bytes_per_s"),
            efficiency=self._efficiency(memory),
            startup=self._startup(),
            power=self._power(per_rack),
            pcie=pcie,
            pcie_generation=generation,
            networks=self._networks(per_node, per_rack, port, bool(capability), generation),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        taken = {"gpu": _GPU_KEYS | {"sm_version"}, "node": _NODE_KEYS}
        left = [
            f"{section}.{key}"
            for section, table in self.data.items()
            if isinstance(table, dict)
            for key in table
            if key not in taken.get(str(section), ())
        ]
        notes = [
            "Its peaks are read as dense and its bandwidths as one-way, as its convention is: check both against the data sheet."
        ]
        if self._count("num_gpus_per_rack"):
            notes.append(
                "Where the host is attached by NVLink-C2C, its memory is reached over that and not over the PCIe given here."
            )
        if left:
            shown = ", ".join("".join(c if c.isprintable() else "?" for c in name)[:64] for name in left[:12])
            more = ", …" if len(left) > 12 else ""
            notes.append(
                f"Not taken over: {shown}{more} (what an engine keeps for itself is the runtime's: planner show runtime generic)."
            )
        return tuple(notes)

    # --- reading

    def _number(self, section: str, key: str, low: float, high: float) -> float | None:
        """The number of a key, ``None`` where it is absent."""
        value = self.data[section].get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            found = repr(value) if isinstance(value, float) else type(value).__name__
            raise InputError(f"{section}.{key}: expected a number, got {found}", where=self.file, mend="write it without a unit")
        if not low <= value <= high:
            what = f"{section}.{key}: {value:g} is not from {low:g} to {high:g}"
            raise InputError(what, where=self.file, mend="these files count bytes, bytes/s, FLOP/s, seconds and watts")
        return float(value)

    def _count(self, key: str) -> int | None:
        value = self._number("node", key, 1, 100_000)
        if value is not None and value != int(value):
            raise InputError(f"node.{key}: {value:g} is no whole number", where=self.file, mend="correct it")
        return None if value is None else int(value)

    def _bandwidth(self, key: str) -> float | None:
        return self._number("node", key, 1e8, 1e14)

    def _known(self, key: str, **rest: str) -> dict[str, Any]:
        figure: dict[str, Any] = {name: rest[name] for name in ("value", "low", "high") if name in rest}
        figure |= {"source": f"aiconfigurator {self.file}: {key}", "as_of": self.today, "grade": "B"}
        return figure | {name: rest[name] for name in ("grade", "note") if name in rest}

    def _given(self, section: str, key: str, value: float | None, dimension: Dimension, **rest: str) -> Table:
        if value is None:
            return unknown(f"{section}.{key} is not in {self.file}", self.today)
        return self._known(f"{section}.{key}", value=quantity(value, dimension), **rest)

    def _gap(self, reason: str, dimension: Dimension, low: float, value: float, high: float) -> Table:
        stated = {"default": value, "low": low, "high": high}
        return unknown(reason, self.today, **{key: quantity(number, dimension) for key, number in stated.items()})

    # --- the device

    def _peaks(self, capability: float | None) -> dict[str, Table]:
        values = {dtype: self._number("gpu", key, 1e11, 1e18) for key, dtype in _PEAKS.items()}
        found: dict[str, Table] = {}
        dense: dict[str, float] = {}
        if values["bf16"] is None and values["fp16"] is not None and (capability or 0) >= _BF16_RATE_IS_FP16_RATE:
            text = quantity(values["fp16"], "flop_per_s")
            note = "stated for float16; tensor cores of this generation run bf16 at the same rate"
            found["bf16"] = self._known("gpu.float16_tc_flops", value=text, grade="B", note=note)
            dense["bf16"] = values["fp16"]
        for key, dtype in _PEAKS.items():
            value = values[dtype]
            if value is None:
                continue
            wide = next((wider for wider in _WIDER.get(dtype, ()) if wider in dense), None)
            if wide is None or value <= LARGEST_STEP ** (HALVINGS[dtype] - HALVINGS[wide]) * dense[wide]:
                found[dtype], dense[dtype] = self._given("gpu", key, value, "flop_per_s"), value
                continue
            step = f"{value / 1e12:g} TFLOP/s in {self.file} is {value / dense[wide]:.3g} times {wide}"
            reason = f"{step}: a sparse figure, or a part built so"
            found[dtype], dense[dtype] = self._gap(reason, "flop_per_s", value / 2, value / 2, value), value / 2
        if "bf16" not in found and "fp16" not in found:
            found = {"bf16": unknown(f"{self.file} has no peak for it", self.today), **found}
        return found

    def _usable(self) -> Table:
        """Whole gigabytes are the label on the box, anything else is what a driver reported."""
        value = self._number("gpu", "mem_capacity", 1e8, 1e14)
        for unit in (2.0**30, 1e9):
            if value is None or value % unit:
                continue
            low, high = quantity(value / unit * 1e9, "bytes"), quantity(value / unit * 2.0**30, "bytes")
            note = f"the label ({value / unit:g} GB), not what the driver reports; to be replaced by that"
            return self._known("gpu.mem_capacity", value=low, low=low, high=high, grade="C", note=note)
        note = "no whole gigabytes, so read as what the driver reports"
        return self._given("gpu", "mem_capacity", value, "bytes", note=note)

    def _efficiency(self, memory: str) -> Table | None:
        value = self._number("gpu", "mem_bw_empirical_scaling_factor", 1e-3, 1.0)
        if value is None:
            return None
        usual = class_defaults()["tier"][memory]["efficiency"]
        ends = {"low": min(value, usual["low"]), "high": max(value, usual["high"])}
        note = "an unofficial correction there, the same for all parts; the interval holds that of the class"
        return {"value": value, **ends, **self._known("gpu.mem_bw_empirical_scaling_factor", grade="D", note=note)}

    def _startup(self) -> Table | None:
        value = self._number("gpu", "mem_empirical_constant_latency", 0.0, 1.0)
        return None if value is None else self._corrected("gpu.mem_empirical_constant_latency", value, value / 4, 4 * value)

    def _corrected(self, key: str, value: float, low: float, high: float) -> Table:
        """A time that is a correction by experience there."""
        texts = {end: quantity(number, "s") for end, number in (("value", value), ("low", low), ("high", high))}
        return self._known(
            key, **texts, grade="D", note="an unofficial correction there, the same for all parts; interval assumed"
        )

    def _power(self, devices: int) -> Table:
        value = self._number("gpu", "power", 1.0, 1e5)
        if value is None:
            return unknown(f"gpu.power is not in {self.file}", self.today)
        return unknown(
            f"{self.file} has {value:g} W of the GPU alone, {devices * value:g} W for {devices}: give the whole system's",
            self.today,
        )

    # --- links and networks

    def _one_way(self, key: str, value: float, generation: str) -> Table:
        """As given, or unknown where it is more than the port carries in one direction."""
        limit = ONE_WAY_LIMIT_BYTES_PER_S.get(generation, math.inf)
        if value <= 1.02 * limit:
            return self._given("node", key, value, "bytes_per_s", note="one-way by the convention of that file")
        likely = min(value / 2, limit)
        reason = (
            f"{value / 1e9:g} GB/s in {self.file} is above the {limit / 1e9:g} one-way of {generation}: probably both directions"
        )
        return self._gap(reason, "bytes_per_s", likely, likely, limit)

    def _pcie(self, port: Table) -> tuple[Table, str]:
        """The host link and its generation: the one whose rate it has, unless the part is older."""
        value = self._bandwidth("pcie_bw")
        ports = {
            name: rate for name, rate in ONE_WAY_LIMIT_BYTES_PER_S.items() if name.startswith("pcie") and name.endswith("x16")
        }
        newest = port.get("pcie", max(ports, key=lambda name: ports[name]))
        if value is None:
            return self._given("node", "pcie_bw", None, "bytes_per_s"), newest
        matching = [name for name, rate in ports.items() if abs(value / rate - 1) <= 0.02 and rate <= ports[newest]]
        generation = matching[0] if matching else newest
        return self._one_way("pcie_bw", value, generation), generation

    def _networks(self, per_node: int, per_rack: int, port: Table, nvidia: bool, pcie: str) -> tuple[Network, ...]:
        inner: list[Network] = []
        node, rack = self._bandwidth("intra_node_bw"), self._bandwidth("inter_node_bw")
        if per_node > 1 and not (per_rack > per_node and node == rack):
            inner.append(self._inner("node", per_node, "intra_node_bw", node, port, nvidia, pcie))
        if per_rack > per_node:
            inner.append(self._inner("rack", per_rack, "inter_node_bw", rack, port, nvidia, pcie))
        key = "inter_rack_bw" if self._bandwidth("inter_rack_bw") is not None else "inter_node_bw"
        outer = self._bandwidth(key) if key == "inter_rack_bw" or per_rack == per_node else None
        bandwidth = (
            self._given("node", "inter_rack_bw" if per_rack > per_node else key, None, "bytes_per_s")
            if outer is None
            else self._given("node", key, outer, "bytes_per_s", note="one-way by the convention of that file")
        )
        return (*inner, Network("scale-out", None, "rdma", bandwidth, self._latency(), "pcie-switch"))

    def _latency(self) -> Table | None:
        for key in ("inter_rack_latency", "p2p_latency"):
            value = self._number("node", key, 0.0, 1.0)
            if value is not None:
                low, high = (parse_quantity(class_defaults()["domain"]["rdma"]["latency"][end], "s") for end in ("low", "high"))
                return self._corrected(f"node.{key}", value, min(value, low), max(value, high))
        return None

    def _inner(self, name: str, devices: int, key: str, value: float | None, port: Table, nvidia: bool, pcie: str) -> Network:
        """A network inside a node or rack: over PCIe where it is no faster, else by the port that the generation has."""
        host = self._bandwidth("pcie_bw")
        if value is None:
            return Network(name, devices, port.get("nvlink") or "fabric", self._given("node", key, None, "bytes_per_s"))
        if host is not None and value <= 1.02 * host:
            return Network(name, devices, pcie, self._one_way(key, value, pcie), group="pcie-switch")
        if nvidia and port and not port["nvlink"]:
            reason = f"{value / 1e9:g} GB/s in {self.file}, but these parts have no NVLink"
            stated = unknown(reason, self.today)
            if host is not None:
                likely = min(host, ONE_WAY_LIMIT_BYTES_PER_S[pcie])
                stated = self._gap(f"{reason}; the default is their PCIe", "bytes_per_s", likely / 2, likely, likely)
            return Network(name, devices, pcie, stated, group="pcie-switch")
        network = port.get("nvlink") or "fabric"
        return Network(name, devices, network, self._one_way(key, value, network))
