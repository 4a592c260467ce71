"""A profile to fill in: one commented TOML file with a system and its device.

What is known stands in it, what its reader must say is ``unknown``, and efficiencies are left to the class. Figures are
tables as they stand in TOML: ``{"value": "3.35 TB/s", "source": …}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from string import Template
from typing import Any, TypeAlias

from planner.documents import read_text
from planner.hardware.defaults import ASKED
from planner.hardware.writer import literal
from planner.quantities import Dimension, parse_quantity

FOLDER = Path(__file__).parent / "blank"
Table: TypeAlias = Mapping[str, Any]

_COMMENT = re.compile(r'^(\w+ = (?:"[^"\n]*"|\[[^#\n]*\]|[\w-]+)) +# ', re.MULTILINE)
_UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "bytes": ((1e12, "TB"), (1e9, "GB"), (2.0**20, "MiB"), (1.0, "B")),
    "bytes_per_s": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1.0, "B/s")),
    "flop_per_s": ((1e12, "TFLOP/s"), (1.0, "FLOP/s")),
    "s": ((1e-3, "ms"), (1e-6, "us"), (1.0, "s")),
    "w": ((1e3, "kW"), (1.0, "W")),
}


@dataclass(frozen=True)
class Network:
    """A domain of a draft; ``devices`` ``None`` is the outermost."""

    id: str
    devices: int | None
    network: str
    bandwidth: Table
    latency: Table | None = None
    group: str = ""


@dataclass(frozen=True)
class Draft:
    """What is known of a machine; everything else is left to fill in."""

    id: str
    as_of: date
    title: str
    name: str = ""
    vendor: str = ""
    origin: str = "western"
    devices: int = 8
    devices_per_node: int = 8
    peaks: Mapping[str, Table] = field(default_factory=dict)
    """By dtype, in the order of the file."""
    memory_kind: str = "hbm"
    usable: Table | None = None
    read: Table | None = None
    efficiency: Table | None = None
    startup: Table | None = None
    power: Table | None = None
    capex: Table | None = None
    pcie: Table | None = None
    pcie_generation: str = "pcie5-x16"
    networks: Sequence[Network] = ()
    notes: Sequence[str] = ()


def blank(profile_id: str, today: date) -> Draft:
    """A node of eight devices of which nothing is known."""
    gap = unknown("fill in", today)
    return Draft(
        id=profile_id,
        as_of=today,
        title=f"{profile_id}: a node and its device",
        name="8 x my device",
        peaks={"bf16": gap},
        networks=(
            Network("node", 8, "fabric", gap),
            Network("scale-out", None, "rdma", gap, group="pcie-switch"),
        ),
        notes=("Every unknown figure is to be filled in; what you have no part of (host memory, an inner network) is removed.",),
    )


def identifier(text: str, *, but: str = "a-z0-9._-") -> str:
    """A text as a profile id: lower case, other characters as ``-``, at most 48 of them."""
    return re.sub(rf"[^{but}]+", "-", text.lower(), flags=re.ASCII).strip("._-")[:48].rstrip("._-") or "my-machine"


def unknown(reason: str, as_of: date, **stated: str) -> Table:
    """A figure that is left to the reader; ``default``, ``low`` and ``high`` as texts where a guess can be stated."""
    return {"unknown": reason, "as_of": as_of, **stated}


def quantity(value: float, dimension: Dimension) -> str:
    """The shortest text with a readable unit that is exactly the SI value."""
    texts = [f"{number!r} {unit}".replace(".0 ", " ") for size, unit in _UNITS[dimension] for number in (value / size,)]
    exact = [text for text in texts if parse_quantity(text, dimension) == value]
    return min(exact, key=len)


def to_text(draft: Draft) -> str:
    """The draft as commented TOML."""
    gap = unknown("fill in", draft.as_of)
    name = draft.name or draft.id
    vendor = literal(draft.vendor or "unknown")
    fields = {
        "title": draft.title,
        "notes": "".join(f"#\n# {note}\n" for note in draft.notes),
        "id": draft.id,
        "device_id": f"{draft.id}-device",
        "name": literal(name),
        "device_name": literal(f"device of {name}"),
        "vendor": vendor,
        "origin": draft.origin,
        "kind": "rack" if draft.devices > draft.devices_per_node else "node",
        "as_of": draft.as_of.isoformat(),
        "devices": str(draft.devices),
        "devices_per_node": str(draft.devices_per_node),
        "memory_kind": draft.memory_kind,
        "power": inline(draft.power or gap),
        "capex": inline(draft.capex or gap),
        "usable": inline(draft.usable or gap),
        "read": inline(draft.read or gap),
        "efficiency": _optional("efficiency", draft.efficiency, "the class's where left out"),
        "startup": _optional("startup", draft.startup, "of one read; optional"),
        "host_usable": inline(gap),
        "host_read": inline(gap),
        "pcie_generation": draft.pcie_generation,
        "pcie_bandwidth": inline(draft.pcie or gap),
        "compute": "".join(_filled("compute", {"dtype": dtype, "peak": inline(peak)}) for dtype, peak in draft.peaks.items()),
        "domains": "".join(map(_domain, draft.networks)),
    }
    return _COMMENT.sub(lambda line: f"{line[1]:<33} # ", _filled("profile", fields)).rstrip("\n") + "\n"


def _optional(key: str, figure: Table | None, otherwise: str) -> str:
    return f"# {key}: {otherwise}" if figure is None else f"{key} = {inline(figure)}"


def _domain(network: Network) -> str:
    size = "# devices: the outermost network has no size" if network.devices is None else f"devices = {network.devices}"
    group = f'group = "{network.group}"             # shares its way with the links of that group' if network.group else ""
    fields = {
        "id": network.id,
        "devices": size,
        "network": network.network,
        "bandwidth": inline(network.bandwidth),
        "latency": inline(network.latency) if network.latency else f'"{ASKED}"',
        "group": group,
    }
    return _filled("domain", fields).rstrip("\n") + "\n"


def inline(table: Table) -> str:
    """A table on one line of TOML."""
    return "{ " + ", ".join(f"{key} = {literal(value)}" for key, value in table.items()) + " }"


def _filled(name: str, fields: Mapping[str, str]) -> str:
    path = FOLDER / f"{name}.txt"
    return Template(read_text(path)).substitute(fields)
