"""Machines made of parts: a ``[[tier]]``, ``[[link]]`` or ``[[domain]]`` that names a catalogue part instead of figures.

    [[tier]]
    id = "ssd"
    part = "ymtc-pe321-7.68tb"
    units = 8

``units`` counts those of ONE owner, as every figure of a tier does. Capacity, rates and IOPS are units times those of the
part; ``channels`` caps the rates where several modules share a channel. Without it the rates of host memory are a guess
at what the processor takes: grade C at most, down to two modules a channel. Efficiency, latency and granule are the part's.
What the author writes beside it stands; what the profile extends had there gives way. The figures keep grade, date and
source of the part, and nothing in the resolved system refers to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from planner.errors import InputError
from planner.hardware.defaults import with_class_defaults
from planner.hardware.parts import InterconnectPart, MemoryPart
from planner.quantities import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from planner.hardware.source import ProfileSource

_OF_THE_WHOLE = ("part", "units", "channels")
_RATES = ("read", "write")
_SCALED = (*_RATES, "usable", "iops", "bandwidth", "both_ways")
_MEMORY = ("kind", "usable", "read", "write", "efficiency", "startup", "latency", "granule_bytes", "iops")
_PORT = ("direction", "bandwidth", "latency")
_TRAFFIC = ("allreduce", "alltoall", "p2p")
_FROM_PART: dict[str, tuple[str, ...]] = {
    "tiers": _MEMORY,
    "memory": _MEMORY,
    "links": (*_PORT, "kind", "generation", "duplex", "efficiency", "reverse_efficiency", "both_ways"),
    "domains": (
        *(*_PORT, "topology", "network", "oneshot_startup"),
        *(f"{traffic}_{figure}" for traffic in _TRAFFIC for figure in ("efficiency", "startup")),
    ),
}
_REPLACED = frozenset(key for keys in _FROM_PART.values() for key in keys) | set(_OF_THE_WHOLE)
_LARGEST = 10_000


class Use(NamedTuple):
    """Units of a part in one owner's memory ``row``, and how many owners there are."""

    row: str
    part: MemoryPart
    units: int
    owners: int


def without_replaced(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """An inherited row without what the part that ``over`` names brings along."""
    return {key: value for key, value in base.items() if key not in _REPLACED} if "part" in over else base


def names_parts(data: dict[str, Any], rows: str = "tier") -> set[str]:
    """Ids of the rows of a profile's own table that name a part."""
    found = data.get(rows)
    return {str(row.get("id")) for row in found if isinstance(row, dict) and "part" in row} if isinstance(found, list) else set()


def expand(data: dict[str, Any], path: Path, source: ProfileSource) -> tuple[dict[str, Any], list[Use]]:
    """The table with every ``part`` replaced by its figures, gaps filled by class, and the memory parts used.

    ``InputError`` names the row.

    Rows are those of ``tiers``, ``links`` and ``domains`` of a system, or the ``memory`` of a device.
    """
    uses: list[Use] = []
    result = dict(data)
    for rows in _FROM_PART:
        if not (isinstance(data.get(rows), list) and any(_named(row) for row in data[rows])):
            continue
        result[rows] = [_expanded(row, rows, data, path, source, uses) if _named(row) else row for row in data[rows]]
    return with_class_defaults(result), uses


def _named(row: object) -> bool:
    return isinstance(row, dict) and "part" in row


def _expanded(
    row: dict[str, Any], rows: str, data: dict[str, Any], path: Path, source: ProfileSource, uses: list[Use]
) -> dict[str, Any]:
    key = f"{rows.removesuffix('s')}.{row.get('id', '?')}"
    where = str(path)
    units = _count(row.get("units", 1), f"{key}.units", where)
    channels = _count(row.get("channels", units), f"{key}.channels", where)
    part = source.part(row["part"], path, f"{key}.part")
    wanted = MemoryPart if rows in ("tiers", "memory") else InterconnectPart
    if not isinstance(part, wanted):
        what = "a memory" if wanted is MemoryPart else "an interconnect"
        raise InputError(
            f"{key}.part: {part.id} is not {what}", where=where, mend=f"see planner list hardware --kind {part.kind}"
        )
    if part.status == "cancelled" or (part.status == "announced" and data.get("status") == "shipping"):
        raise InputError(
            f"{key}.part: {part.id} is {part.status}, the system is shipping",
            where=where,
            mend='write status = "announced"' if part.status == "announced" else "choose another part",
        )
    if isinstance(part, MemoryPart) and rows == "tiers":
        uses.append(Use(str(row.get("id")), part, units, _owners(row, data)))
    own = {name: value for name, value in row.items() if name not in _OF_THE_WHOLE}
    return dict(_brought(part, rows, units, min(units, channels), row)) | own


def _owners(row: dict[str, Any], data: dict[str, Any]) -> int:
    """Memories of that row in the whole system; the schema refuses what does not divide."""
    devices, sharing = data.get("devices"), row.get("devices_sharing")
    whole = isinstance(devices, int) and isinstance(sharing, int) and 0 < sharing <= devices
    return devices // sharing if whole and isinstance(devices, int) and isinstance(sharing, int) else 1


def _count(value: object, key: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
        raise InputError(f"{key}: {value!r} is no count", where=where, mend=f"write a whole number from 1 to {_LARGEST}")
    return value


def _brought(
    part: MemoryPart | InterconnectPart, rows: str, units: int, channels: int, row: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Key and value of everything that the part brings to the row."""
    for key in _FROM_PART[rows]:
        if isinstance(part, MemoryPart):
            value: Any = part.tier if key == "kind" else getattr(part, key)
        elif key == "kind":
            value = part.link
        elif key == "generation":  # the limit of a generation is that of one port
            sharing = row.get("devices_sharing")
            value = part.network if isinstance(sharing, int) and units <= sharing else ""
        elif key == "topology" and part.topology == "point-to-point":
            continue
        else:
            value = getattr(part, key)
        if isinstance(value, Figure):
            times = channels if key in _RATES else units if key in _SCALED else 1
            figure = scaled(value, times, f"{times} x {part.id}" if key in _SCALED else part.id)
            guess = rows == "tiers" and key in _RATES and units > 1 and "channels" not in row and row.get("role") == "host"
            yield key, _guessed(figure) if guess else figure
        elif value is not None:
            yield key, value


def _guessed(figure: Figure) -> Figure:
    """Rates of modules whose processor's channels are not given."""
    if not figure.known:
        return figure
    note = "the processor's channels are not given (channels, or the rate itself); low: two modules share one"
    changes = {"low": figure.lowest / 2.0, "high": figure.highest, "grade": max(figure.grade, "C"), "note": note}
    return figure.model_copy(update=changes)


def scaled(figure: Figure, times: float, of: str = "") -> Figure:
    """The figure times a factor with its interval; ``of`` goes before the source, or into the note of an unknown one."""
    numbers = {key: getattr(figure, key) * times for key in ("value", "low", "high") if getattr(figure, key) is not None}
    return figure.model_copy(update=numbers | ({"source": f"{of}: {figure.source}"} if of and figure.known else {}))
