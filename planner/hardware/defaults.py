"""What stands for an efficiency that a profile leaves out: the figures of its class, marked as such.

``class_defaults.toml`` holds them: a memory's by kind, a link's by kind, a domain's by network or topology, a GEMM curve by
dtype. A missing efficiency is filled in; anything else of the class where the profile asks for it by ``"class-default"``.
A filled figure begins its source with ``class default:``, has grade C or D and the interval of the class, so it widens a plan's
and is listed in its provenance; a plan embeds it like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from planner.documents import parse_toml, read_text
from planner.hardware.schema import CLASS_DEFAULT
from planner.quantities import Dimension, Figure, parse_quantity

ASKED = "class-default"
"""Written in place of a figure, it asks for that of the class."""

_FILLED = {
    "tiers": ("tier", ("efficiency",)),
    "memory": ("tier", ("efficiency",)),
    "links": ("link", ("efficiency",)),
    "domains": ("domain", ("allreduce_efficiency", "alltoall_efficiency", "p2p_efficiency")),
}
_ROWS_OF_CURVE = (1, 16, 64, 128, 256, 512, 1024, 4096)
_SHARPNESS = 3.0
_BYTES = {"fp64": 8.0, "fp32": 4.0, "tf32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp6": 0.75, "fp4": 0.5, "int4": 0.5}


@cache
def class_defaults() -> dict[str, dict[str, dict[str, Any]]]:
    """The table of classes as it is written."""
    path = Path(__file__).with_name("class_defaults.toml")
    return parse_toml(read_text(path), str(path))


def with_class_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """A system's (``tiers``, ``links``, ``domains``) or device's (``memory``, ``compute``) table with its gaps filled."""
    result = dict(data)
    for rows, (sort, needed) in _FILLED.items():
        if isinstance(data.get(rows), list):
            result[rows] = [_filled(row, sort, needed) if isinstance(row, dict) else row for row in data[rows]]
    device = data.get("device")
    if isinstance(data.get("compute"), dict):
        result["compute"] = _with_curves(data["compute"], result.get("memory"))
    elif isinstance(device, dict) and isinstance(device.get("compute"), dict):
        result["device"] = device | {"compute": _with_curves(device["compute"], result.get("tiers"))}
    return result


def _with_curves(compute: dict[str, Any], memory: Any) -> dict[str, Any]:
    first = next((row for row in memory if isinstance(row, dict)), {}) if isinstance(memory, list) else {}
    return {dtype: _with_curve(dtype, part, first) for dtype, part in compute.items()}


def _filled(row: dict[str, Any], sort: str, needed: tuple[str, ...]) -> dict[str, Any]:
    wanted = [key for key in needed if key not in row] + [key for key, value in row.items() if value == ASKED]
    if not wanted:
        return row
    name = class_of_domain(row) if sort == "domain" else str(row.get("kind"))
    known = class_defaults()[sort].get(name, {})
    return row | {key: _figure(known[key], name, key, row) for key in wanted if isinstance(known.get(key), dict)}


def class_of_domain(row: dict[str, Any]) -> str:
    """The first class that fits: without an end, else a network that is named, else the topology."""
    network, topology = str(row.get("network")), row.get("topology")
    for name, rules in class_defaults()["domain"].items():
        if rules.get("of") == "scale-out" and "devices" not in row:
            return name
        if any(fnmatchcase(network, pattern) for pattern in rules.get("networks", ())) or rules.get("of") == topology:
            return name
    return ""


def _figure(figure: dict[str, Any], name: str, key: str, row: dict[str, Any]) -> dict[str, Any]:
    """The class's figure; to one peer of a mesh a port grants the part of one link."""
    result = figure | {"source": f"{CLASS_DEFAULT}{figure['source']}", "note": f"class default: {name}"}
    devices = row.get("devices")
    if name == "mesh" and key == "p2p_efficiency" and isinstance(devices, int) and devices > 2:
        result |= {end: round(figure[end] / (devices - 1), 6) for end in ("value", "low", "high")}
    return result


def _with_curve(dtype: str, part: Any, memory: dict[str, Any]) -> Any:
    if not isinstance(part, dict) or part.get("gemm", ASKED) != ASKED:
        return part
    name = next((name for name, rules in class_defaults()["gemm"].items() if dtype in rules["dtypes"]), "")
    if not name:
        return part
    rules = class_defaults()["gemm"][name]
    curve = {key: rules[key] for key in ("low_factor", "high_factor", "as_of", "grade")}
    points = list(_rise(rules["plateau"], _BYTES.get(dtype, 1.0), part.get("peak"), memory))
    return part | {
        "gemm": curve | {"points": points, "source": CLASS_DEFAULT + rules["source"], "note": f"class default: {name}"}
    }


def _rise(plateau: float, width: float, peak: Any, memory: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Points ``(M, fraction)``: ``(r^-3 + plateau^-3)^(-1/3)`` with ``r = 2 M bandwidth / (width peak)``, the fraction at which
    streaming the weights takes the whole time."""
    flops, read = _value(peak, "flop_per_s"), _value(memory.get("read"), "bytes_per_s")
    reached = _value(memory.get("efficiency"), "fraction")
    once = min(2.0 * read * reached / (width * flops), plateau) if flops and read and reached else plateau / 256.0
    for rows in _ROWS_OF_CURVE:
        fraction = ((once * rows) ** -_SHARPNESS + plateau**-_SHARPNESS) ** (-1.0 / _SHARPNESS)
        yield float(rows), fraction


def _value(figure: Any, dimension: Dimension) -> float:
    """The number of a figure as it is written, 0 where it cannot be read; the schema says what is wrong with it."""
    if isinstance(figure, Figure):
        return figure.value if figure.known or figure.has_default else 0.0
    if not isinstance(figure, dict):
        return 0.0
    try:
        return max(parse_quantity(figure.get("value", figure.get("default")), dimension), 0.0)
    except ValueError:
        return 0.0
