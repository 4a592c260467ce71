"""Every fault of a profile at once, each with how to mend it.

The schema stops at the first fault it cannot see past. Here each faulty value is put aside (replaced by a harmless
one, or its row is dropped) and the rest is checked again until nothing new is found. On top come the rules that a
single field cannot break: markup in text, binary units, a memory named twice, a taken name, a mesh peer that is
credited with the whole port, dates in the future.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from planner.errors import InputError
from planner.hardware.loader import ProfileSource, label_rows
from planner.hardware.schema import DIMENSIONS, DeviceProfile, System, Tier

MAX_ROUNDS = 200
_STAND_IN_DEVICE = "h100-sxm"
_MARKUP = re.compile(r"<\s*[a-zA-Z/!?]|&(#\d+|#x[0-9a-fA-F]+|lt|gt|amp|quot);|javascript:", re.ASCII)
_BINARY = re.compile(r"\d\s*[KMGTP]iB")
_HARMLESS = {
    "bytes": "1 GB",
    "bytes_per_s": "1 GB/s",
    "flop_per_s": "1 TFLOP/s",
    "s": "1 us",
    "w": "1 W",
    "usd": "1 USD",
    "per_s": "1 /s",
    "fraction": 0.01,
}
_LONG_AGO = date(1990, 1, 1)
_HARMLESS_VALUES: dict[str, Any] = {
    "as_of": date(9999, 1, 1),
    "schema": 1,
    "capex_basis": "capex_street",
    "origin": "western",
    "status": "shipping",
    "counting": "dense",
    "direction": "one-way",
    "duplex": "full",
    "devices_sharing": 1,
    "devices_per_node": 1,
    "devices_per_package": 1,
    "purchasable_devices": 1,
    "granule_bytes": 1,
    "generation": "",
    "network": "x",
    "owner": "node",
    "name": "x",
    "vendor": "x",
    "id": "x",
    "aliases": [],
    "via": [],
}
_GONE = object()
"""In place of a row that is put aside, until the round is over: the numbers of the others must not move."""
_PLURAL = {"tier": "tiers", "link": "links", "domain": "domains"}


class Fault(BaseModel):
    """One thing wrong with a profile: the file, the key in it, what is wrong and how to mend it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    key: str
    what: str
    mend: str

    def __str__(self) -> str:
        return "; ".join(part for part in (f"{self.where}: {f'{self.key}: ' if self.key else ''}{self.what}", self.mend) if part)


def lint(path: Path, *, source: ProfileSource | None = None, today: date) -> list[Fault]:
    """Every fault of the profile at ``path``; nothing dated after ``today`` passes."""
    source = source or ProfileSource(())
    where = str(path)
    faults: list[Fault] = []
    try:
        raw = source.raw(path)
        faults += _in_text(raw, where, today)
        data = copy.deepcopy(source.document(path))
    except InputError as error:
        return [*faults, _fault(error, where)]
    if data.get("kind") not in ("device", "node", "rack"):
        what = f"expected device, node or rack, got {data.get('kind')!r}"
        return [*faults, Fault(where=where, key="kind", what=what, mend="correct it")]
    sort = "device" if data["kind"] == "device" else "system"
    if sort == "system":
        data = _with_device(data, path, source, faults)
    profile = _validated(DeviceProfile if sort == "device" else System, data, where, faults)
    faults += _taken(raw, path, sort, source)
    if profile is not None:
        faults += _in_whole(profile, where)
    return list(dict.fromkeys(faults))


def _fault(error: InputError, where: str) -> Fault:
    match = re.match(r"([a-z][\w.-]*): (.*)", error.what, re.DOTALL)
    key, what = (match[1], match[2]) if match else ("", error.what)
    return Fault(where=error.where or where, key=key, what=what, mend=error.mend or "correct it")


# --- rules on the text of the file itself


def _in_text(raw: dict[str, Any], where: str, today: date) -> Iterator[Fault]:
    for key, value in _leaves(raw, ""):
        name = key.rpartition(".")[2]
        if isinstance(value, str):
            if _MARKUP.search(value) or not value.isprintable():
                yield Fault(where=where, key=key, what="holds markup or control characters", mend="write plain text")
        elif isinstance(value, date) and name == "as_of" and value > today:
            yield Fault(where=where, key=key, what=f"{value} lies in the future", mend="write the date of the source")
    for key, table in _tables(raw, ""):
        yield from _binary_units(key, table, where)
        for name, rows in table.items():
            if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                ids = [str(row.get("id")) for row in rows if "id" in row]
                for twice in sorted({name for name in ids if ids.count(name) > 1}):
                    what = f"{twice!r} is listed {ids.count(twice)} times"
                    yield Fault(
                        where=where, key=name, what=what, mend="a memory, link or domain is listed once; remove the others"
                    )


def _binary_units(key: str, table: dict[str, Any], where: str) -> Iterator[Fault]:
    name = key.rpartition(".")[2]
    dimension = DIMENSIONS.get(name)
    if not dimension or "value" not in table or not _BINARY.search(str(table["value"])):
        return
    note = f"{table.get('note', '')} {table.get('source', '')}"
    if not re.search(r"[KMGTP]iB", note) and not str(table["value"]).rstrip().endswith(("KiB", "MiB")):
        mend = "a label's GB are 1e9 bytes: write GB, or say in the note that the source counts in GiB"
        yield Fault(where=where, key=key, what=f"{table['value']} is in binary units", mend=mend)


def _tables(value: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield key, value
        for name, item in value.items():
            yield from _tables(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _tables(item, f"{key}.{_row_name(item, number)}")


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{key}.{_row_name(item, number)}")
    else:
        yield key, value


def _row_name(row: Any, number: int) -> str:
    return str(row["id"]) if isinstance(row, dict) and isinstance(row.get("id"), str) else str(number)


# --- the schema, seen past each fault


def _with_device(data: dict[str, Any], path: Path, source: ProfileSource, faults: list[Fault]) -> dict[str, Any]:
    """The system's table with its device in place; a device that cannot be read is a fault and another stands in."""
    try:
        return source.with_device(data, path)
    except InputError as error:
        faults.append(_fault(error, str(path)))
    rest = {key: value for key, value in data.items() if key not in _PLURAL.values()}
    if isinstance(rest.get("tier"), list):
        rest["tier"] = [row for row in rest["tier"] if not (isinstance(row, dict) and row.get("role") == "device")]
    for key in _PLURAL:
        if key in rest and not isinstance(rest[key], list):
            del rest[key]
    return source.with_device({**rest, "device": source.resolve(_STAND_IN_DEVICE, "device")}, path)


def _validated(kind: type[BaseModel], data: dict[str, Any], where: str, faults: list[Fault]) -> Any:
    """The profile with every faulty value put aside, or ``None`` where one could not be."""
    seen: set[tuple[str, str]] = set()
    for _ in range(MAX_ROUNDS):
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            spots = []
            for found in errors:
                if found["type"] == "too_short" and any(e["loc"][:-1][: len(found["loc"])] == found["loc"] for e in errors):
                    continue  # only because its rows have faults of their own
                fault, spot = _explained(found, data, where)
                spots.append((spot, found["type"]))
                dated = any(other.key == f"{fault.key}.as_of" for other in faults) and fault.what.startswith("as_of ")
                if (fault.key, fault.what) not in seen and not dated:
                    faults.append(fault)
                seen.add((fault.key, fault.what))
            progress = sum(_put_aside(data, spot, sort) for spot, sort in spots) > 0
            _drop_gone(data)
            if not progress:
                return None
    return None


_MENDS = {
    "extra_forbidden": ("unknown key", "remove it or correct its spelling"),
    "missing": ("is missing", "add it"),
}


def _explained(found: Any, data: dict[str, Any], where: str) -> tuple[Fault, list[Any]]:
    """The fault in words, and the path in ``data`` of the value that has it."""
    spot = list(found["loc"])
    what, mend = _MENDS.get(found["type"], (found["msg"].removeprefix("Value error, "), ""))
    inner = re.match(r"([a-z_]\w*(?:\.[\w-]+)*): (.*)", what, re.DOTALL) if found["type"] == "value_error" else None
    if inner and not (spot and spot[-1] in DIMENSIONS and inner[1] in ("value", "low", "high")):
        spot += _steps(inner[1], data if not spot else None)
        what = inner[2]
    elif inner:
        what = f"{inner[1]} {inner[2]}"
    what, separator, rest = what.partition("; ")
    key = label_rows(".".join(str(step) for step in spot), data)
    if found["type"] == "missing" and spot[-1] == "peak" and spot[0] == "compute":
        mend = "give the dense peak of that dtype, or remove what uses it: the device does not compute in it"
    return Fault(where=where, key=key, what=what, mend=mend or (rest if separator else "correct it")), spot


def _steps(text: str, data: dict[str, Any] | None) -> list[Any]:
    """``tier.host.read`` as the path in the table: rows by number."""
    steps: list[Any] = text.split(".")
    if data is not None and len(steps) > 1:
        rows = _PLURAL.get(steps[0], steps[0])
        for number, row in enumerate(data.get(rows) or () if isinstance(data.get(rows), list) else ()):
            if (row.get("id") if isinstance(row, dict) else getattr(row, "id", None)) == steps[1]:
                return [rows, number, *steps[2:]]
    return steps


def _put_aside(data: dict[str, Any], spot: list[Any], sort: str) -> bool:
    """Replace or remove what is wrong at ``spot``, so that the rest can be checked; whether anything changed."""
    if spot and spot[0] == "compute" and len(spot) > 1 and isinstance(data.get("compute"), dict) and len(data["compute"]) > 1:
        return data["compute"].pop(spot[1], None) is not None
    parent: Any = data
    trail: list[tuple[Any, Any]] = []
    for step in spot:
        trail.append((parent, step))
        parent = parent.get(step) if isinstance(parent, dict) else _item(parent, step)
    if sort == "extra_forbidden" and trail:
        holder, step = trail[-1]
        return isinstance(holder, dict) and holder.pop(step, None) is not None
    for holder, step in trail:
        if isinstance(holder, dict) and step in DIMENSIONS:
            dimension = DIMENSIONS[step]
            new = {"value": _HARMLESS[dimension], "source": "x", "as_of": _LONG_AGO, "grade": "A", "note": "dense"}
            changed = holder.get(step) != new
            holder[step] = new
            return changed
    for holder, step in reversed(trail):
        if isinstance(holder, dict) and step in _HARMLESS_VALUES:
            changed = holder.get(step) != _HARMLESS_VALUES[step]
            holder[step] = _HARMLESS_VALUES[step]
            if changed:
                return True
        if isinstance(holder, list) and isinstance(step, int) and step < len(holder):
            changed = holder[step] is not _GONE
            holder[step] = _GONE
            return changed
    if spot and spot[0] in ("domains", "links") and data.get(spot[0]):
        data[spot[0]] = []
        return True
    return False


def _drop_gone(value: Any) -> None:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, list):
            item[:] = [row for row in item if row is not _GONE]
        _drop_gone(item)


def _item(value: Any, step: Any) -> Any:
    return value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None


# --- rules on the profile as a whole


def _taken(raw: dict[str, Any], path: Path, sort: str, source: ProfileSource) -> Iterator[Fault]:
    """Names that belong to another profile of the sort. A file may take the name of the one that it extends."""
    aliases = raw.get("aliases")
    own = [name for name in (raw.get("id"), *(aliases if isinstance(aliases, list) else ())) if isinstance(name, str)]
    for other, names in source.names(sort):
        if other.resolve() == path.resolve() or raw.get("extends") == names[0]:
            continue
        for name in own:
            if name in names:
                what = f"{name!r} is a name of {other.stem}"
                mend = "choose another, or extend that profile: no part has two profiles"
                yield Fault(where=str(path), key="id" if name == raw.get("id") else "aliases", what=what, mend=mend)


def _in_whole(profile: System | DeviceProfile, where: str) -> Iterator[Fault]:
    tiers = profile.tiers if isinstance(profile, System) else profile.memory
    yield from _twins(tiers, where)
    device = profile.device if isinstance(profile, System) else profile
    if isinstance(profile, DeviceProfile) and device.status == "announced":
        for dtype, part in device.compute.items():
            if part.peak.grade in ("A", "B"):
                what = f"grade {part.peak.grade} for a part that is only announced"
                yield Fault(
                    where=where, key=f"compute.{dtype}.peak", what=what, mend="nobody has measured it: grade C with an interval"
                )
    if not isinstance(profile, System):
        return
    if device.status == "announced" and profile.status == "shipping":
        yield Fault(where=where, key="status", what=f"shipping, but {device.id} is only announced", mend="mark it announced")
    for domain in profile.domains:
        if domain.topology == "mesh" and domain.devices is not None and domain.devices > 2:
            most = 1.0 / (domain.devices - 1)
            if domain.p2p_efficiency.value > 1.1 * most:
                what = f"{domain.p2p_efficiency.value:g} of the port to one peer of a mesh of {domain.devices}"
                mend = f"one peer is one link of {domain.devices - 1}: at most {most:.3g}"
                yield Fault(where=where, key=f"domain.{domain.id}.p2p_efficiency", what=what, mend=mend)


def _twins(tiers: tuple[Tier, ...], where: str) -> Iterator[Fault]:
    for number, tier in enumerate(tiers):
        for other in tiers[:number]:
            same = (tier.kind, tier.usable.value, tier.read.value) == (other.kind, other.usable.value, other.read.value)
            if same and tier.usable.source != "x":
                what = f"the same kind, size and rate as {other.id!r}: one memory listed twice"
                yield Fault(
                    where=where, key=f"tier.{tier.id}", what=what, mend="list a memory once, at its owner, with devices_sharing"
                )
