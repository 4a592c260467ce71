"""Measurements as a hardware profile: a node with one device, its memory, and the disk below it."""

from __future__ import annotations

import platform
import re
from datetime import date
from pathlib import Path
from typing import Any

from planner.hardware import System
from planner.probe.accelerator import SIDE as GPU_SIDE
from planner.probe.accelerator import Accelerator
from planner.probe.clock import Spread
from planner.probe.disk import GRANULE, Disk
from planner.probe.memory import CACHE_LINE, Memory
from planner.probe.products import SIDE, Products, curve_points
from planner.probe.topology import Topology

SOURCE = "measured by planner probe"
WATTS, WATTS_A_CORE, WATTS_A_GPU = 40.0, 15.0, 700.0
"""Assumed power of a machine, of each of its cores in use and of each GPU; nothing here measures it."""


def _figure(found: Spread, day: date, note: str, *, most: float | None = None) -> dict[str, Any]:
    """Grade A with the spread of the runs. ``confirmed``: what lint compares with the catalogue was measured here."""
    low, value, high = (
        float(f"{part if most is None else min(part, most):.4g}") for part in (found.low, found.value, found.high)
    )
    said = f"confirmed: {note}; {_repeated(found.runs)}"
    return {"value": value, "low": low, "high": high, "source": SOURCE, "as_of": day, "grade": "A", "note": said}


def _repeated(runs: int) -> str:
    return f"median of {runs}, 10th and 90th percentile" if runs > 1 else "read once"


def _share(part: Spread, whole: Spread, day: date, note: str) -> dict[str, Any]:
    return _figure(part.scaled(1.0 / whole.value), day, note, most=1.0)


def best(rates: tuple[tuple[int, Spread], ...]) -> tuple[int, Spread]:
    """The fastest of the counts (threads, rows), the least of equals."""
    return max(rates, key=lambda row: (row[1].value, -row[0]))


def processor() -> str:
    """What the machine calls its processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    said = re.sub(r"[^\w .@()+-]", "", found[1])[:60].strip() if found else ""
    return said or f"unknown processor ({platform.machine() or '?'})"


def _compute(found: Products, day: date, by: str, side: int) -> dict[str, Any]:
    spreads = [rate for _, rate in found.by_rows]
    return {
        "dtype": found.dtype,
        "counting": "dense",
        "peak": _figure(found.peak, day, f"dense; the most that a product of {by} reached"),
        "gemm": {
            "points": curve_points(found),
            "knee": 1.0,
            "low_factor": min(1.0, min(rate.low / rate.value for rate in spreads)),
            "high_factor": min(10.0, max(1.0, max(rate.high / rate.value for rate in spreads))),
            "source": SOURCE,
            "as_of": day,
            "grade": "A",
            "note": f"{side} x {side} weights that come from memory: their reading is in it, so it holds for any number of rows; "
            f"factors: the widest of the points, each {_repeated(min(rate.runs for rate in spreads))}",
        },
    }


def _tier(memory: Memory, day: date, role: str) -> dict[str, Any]:
    threads, read = best((*memory.reads, (1, memory.streams)))
    writers, write = best(memory.writes)
    return {
        "id": "ram",
        "kind": "ddr",
        "role": role,
        "owner": "device" if role == "device" else "node",
        "devices_sharing": 1,
        "usable": _figure(Spread(memory.usable, memory.usable, memory.usable, 1), day, f"free before the probe: {memory.bound}"),
        "read": _figure(read, day, f"an array far larger than the caches, read by {threads} threads"),
        "write": _figure(write, day, f"written bytes of a copy by {writers} threads"),
        "efficiency": _share(memory.streams, read, day, "weights multiplied with one row, of read"),
        "startup": _figure(memory.startup, day, "one call of numpy on 16 elements"),
        "latency": _figure(memory.latency, day, "a chase in the interpreter, less that of one in cache"),
        "granule_bytes": CACHE_LINE,
    }


def _below(disk: Disk, day: date) -> tuple[dict[str, Any], dict[str, Any]]:
    """The disk, and the way to it: what both do together is one rate, so the way does as much as the disk."""
    depth, read = best(disk.sequential)
    deep, iops = best(disk.random)
    how = f" on {disk.file_system}{f'; {disk.caveat}' if disk.caveat else ''}"
    alone = next(rate for count, rate in disk.sequential if count == 1)
    tier = {
        "id": "disk",
        "kind": "ssd",
        "role": "disk",
        "owner": "node",
        "devices_sharing": 1,
        "usable": _figure(Spread(disk.free, disk.free, disk.free, 1), day, f"free on the {disk.file_system} that was read"),
        "read": _figure(read, day, f"4 MiB reads by {depth} threads{how}"),
        "write": _figure(disk.write, day, "4 MiB writes of the scratch file, before its fsync"),
        "efficiency": _share(alone, read, day, "of read, what one thread reaches"),
        "latency": _figure(disk.latency, day, f"4 KiB reads one at a time{how}"),
        "granule_bytes": GRANULE,
        "iops": _figure(iops, day, f"4 KiB reads at random by {deep} threads{how}"),
        "via": ["bus"],
    }
    way = {
        "id": "bus",
        "kind": "nvme",
        "between": ["disk", "device"],
        "direction": "one-way",
        "bandwidth": _figure(read, day, "that of the disk: the way to it is not measured apart"),
        "devices_sharing": 1,
        "efficiency": _figure(Spread(1.0, 1.0, 1.0, read.runs), day, "counted with the disk"),
        "latency": _figure(Spread(0.0, 0.0, 0.0, disk.latency.runs), day, "counted with the disk"),
        "duplex": "full",
    }
    return tier, way


def profile_of(
    name: str,
    day: date,
    threads: int,
    memory: Memory,
    products: tuple[Products, ...],
    disk: Disk | None,
    accelerator: Accelerator | None = None,
    topology: Topology | None = None,
    *,
    cores: str = "all",
    quick: bool = False,
) -> System:
    """The profile of the machine: its processor as the device, or the GPU where one was measured.

    ``cores``: of how many the threads are, and why no more.
    """
    watts, said = WATTS + WATTS_A_CORE * threads, f"{WATTS:g} W and {WATTS_A_CORE:g} W for each core"
    compute = {part.dtype: _compute(part, day, f"numpy on {threads} cores of {cores}", SIDE) for part in products}
    tiers: list[dict[str, Any]] = [_tier(memory, day, "device")]
    links: list[dict[str, Any]] = []
    title, count = f"{processor()}, {threads} cores, numpy", 1
    if accelerator is not None:
        title, count = f"{accelerator.count} x {accelerator.name}", accelerator.count
        watts, said = watts + WATTS_A_GPU * count, f"{said}, {WATTS_A_GPU:g} W for each GPU"
        compute = _gpu_compute(accelerator, day)
        tiers, links = _gpu_memory(accelerator, memory, day)
    if disk is not None:
        below, way = _below(disk, day)
        below["devices_sharing"] = way["devices_sharing"] = count
        tiers.append(below)
        links.append(way)
    return System.model_validate(
        {
            "schema": 1,
            "kind": "node",
            "id": name,
            "name": f"{title}, a quick look"[:120] if quick else title[:120],
            "vendor": "this machine",
            "origin": "western",
            "status": "shipping",
            "as_of": day,
            "device": {
                "id": f"{name}-device"[:64],
                "name": title[:120],
                "vendor": "this machine",
                "origin": "western",
                "status": "shipping",
                "compute": compute,
            },
            "devices": count,
            "devices_per_node": count,
            "purchasable_devices": count,
            "tiers": tiers,
            "links": links,
            "domains": _networks(accelerator, topology, day),
            "power": {
                "value": watts,
                "low": watts / 2,
                "high": watts * 2,
                "source": f"assumed by planner probe, which cannot measure it: {said}",
                "as_of": day,
                "grade": "D",
                "note": "confirmed: no more than an assumption",
            },
            "capex": {"unknown": "planner probe knows no price of this machine", "as_of": day},
            "capex_basis": "capex_street",
        },
        context={"si": True},
    )


def _gpu_compute(found: Accelerator, day: date) -> dict[str, Any]:
    return {
        dtype: _compute(Products(dtype, best(rows)[1], rows), day, "torch", GPU_SIDE) for dtype, rows in found.products.items()
    }


def _gpu_memory(found: Accelerator, memory: Memory, day: date) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    one = Spread(1.0, 1.0, 1.0, found.read.runs)
    own = {
        "id": "hbm",
        "kind": "hbm",
        "role": "device",
        "owner": "device",
        "devices_sharing": 1,
        "usable": _figure(Spread(found.usable, found.usable, found.usable, 1), day, "free before the probe"),
        "read": _figure(found.read, day, "bytes read and written by a copy on the device"),
        "efficiency": _figure(one, day, "read is what was reached"),
        "startup": _figure(found.launch, day, "one small kernel, issued and waited for"),
        "latency": _figure(found.launch, day, "as startup"),
        "granule_bytes": CACHE_LINE,
    }
    host = _tier(memory, day, "host") | {"devices_sharing": found.count, "via": ["host-link"]}
    link = {
        "id": "host-link",
        "kind": "pcie",
        "generation": "measured",
        "between": ["ram", "device"],
        "direction": "one-way",
        "bandwidth": _figure(found.to_device, day, "pinned memory to the device"),
        "devices_sharing": 1,
        "efficiency": _figure(one, day, "bandwidth is what was reached"),
        "reverse_efficiency": _share(found.from_device, found.to_device, day, "device to pinned memory, of the other way"),
        "latency": _figure(found.launch, day, "one small kernel, issued and waited for"),
        "duplex": "full",
    }
    return [own, host], [link]


def _networks(found: Accelerator | None, topology: Topology | None, day: date) -> list[dict[str, Any]]:
    """Several GPUs and what an all-reduce reached: ``bytes/s = bandwidth n / (2 (n - 1))`` of the payload."""
    if found is None or found.all_reduce is None:
        return []
    count = found.count
    rate = found.all_reduce.scaled(2.0 * (count - 1) / count)
    joined = topology.joined if topology is not None and len(topology.names) == count else ""
    assumed = {"value": 0.7, "low": 0.5, "high": 0.9, "source": "assumed of the all-reduce's rate", "as_of": day, "grade": "D"}
    return [
        {
            "id": "node",
            "devices": count,
            "direction": "one-way",
            "bandwidth": _figure(rate, day, f"what an all-reduce of 256 MiB takes; joined by {joined or 'what no tool said'}"),
            "latency": _figure(found.launch, day, "one small kernel, issued and waited for"),
            "allreduce_efficiency": _figure(Spread(1.0, 1.0, 1.0, rate.runs), day, "bandwidth is what was reached"),
            "alltoall_efficiency": assumed,
            "p2p_efficiency": assumed,
            "topology": "switch",
            "network": "measured",
        }
    ]
