"""Every fault of a profile at once, each with how to mend it.

The schema stops at the first fault it cannot see past. Here each faulty value is put aside (replaced by a harmless
one, or its row is dropped) and the rest is checked again until nothing new is found. On top come ``planner.hardware.rules``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from planner.documents import mend_of
from planner.errors import InputError
from planner.hardware.compose import expand
from planner.hardware.joining import label_rows
from planner.hardware.kinds import EXPECTED, SCHEMAS, SORTS
from planner.hardware.plausible import STAND_IN
from planner.hardware.rules import Fault, alike, in_text, in_whole, taken
from planner.hardware.schema import DIMENSIONS
from planner.hardware.source import ProfileSource
from planner.hardware.truth import dated_later, truths

MAX_ROUNDS = 200
MAX_FAULTS = 200
"""Told of one file; nobody mends more in one go."""
_STAND_IN_DEVICE = "h100-sxm"
_STAND_IN_PART = {"tier": "ddr5-rdimm-64gb", "memory": "ddr5-rdimm-64gb", "link": "pcie5-x16", "domain": "nvlink4"}
_HARMLESS = {
    "bytes": "1 GB",
    "bytes_per_s": "1 GB/s",
    "flop_per_s": "1 TFLOP/s",
    "s": "1 us",
    "w": "1 W",
    "usd": "1 USD",
    "per_s": "1 /s",
    "fraction": 0.01,
    "count": 1,
    "years": "1 year",
    "j_per_bit": "1 pJ/bit",
    "usd_per_gb": "1 USD/GB",
    "usd_per_kwh": "1 USD/kWh",
    "usd_per_h": "1 USD/h",
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
    "technology": "x",
    "tier": "ddr",
    "unit": "x",
    "label": "x",
    "link": "pcie",
    "topology": "switch",
    "region": "x",
    "basis": "contract",
}
_GONE = object()
"""In place of a row that is put aside, until the round is over: the numbers of the others must not move."""
_PLURAL = {"tier": "tiers", "link": "links", "domain": "domains", "capex_line": "capex_lines", "rent": "rents"}


def lint(path: Path, *, source: ProfileSource | None = None, today: date, checked: Collection[Path] = ()) -> list[Fault]:
    """Every fault of the profile at ``path``; nothing dated after ``today`` passes.

    What it shares with a file of ``checked`` is a fault of that one already.
    """
    source = source or ProfileSource(())
    where = str(path)
    faults: list[Fault] = []
    try:
        raw = source.raw(path)
        faults += in_text(raw, where, today)
        data = copy.deepcopy(source.document(path))
    except InputError as error:
        return [*faults, _fault(error, where)]
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in SCHEMAS:
        return [*faults, Fault(where=where, key="kind", what=f"{EXPECTED}, got {kind!r}", mend="correct it")]
    if "schema" in data and type(data["schema"]) is not int:
        faults.append(Fault(where=where, key="schema", what=f"expected 1, got {data['schema']!r}", mend="write schema = 1"))
        data["schema"] = 1
    data = _with_sound_parts(data, path, source, faults)
    if SORTS[kind] == "system":
        data = _with_device(data, path, source, faults)
    elif kind == "device":
        data, _ = expand(data, path, source)
    profile = _validated(SCHEMAS[kind], data, where, faults)
    faults += taken(raw, path, SORTS[kind], source, checked)
    if profile is not None:
        faults += in_whole(profile, where)
        faults += truths(profile, raw, path, source)
        faults += alike(profile, path, source)
        if not faults:
            faults += dated_later(profile, where, today)
    found = list(dict.fromkeys(faults))
    if len(found) > MAX_FAULTS:
        more = Fault(where=where, key="", what=f"and {len(found) - MAX_FAULTS} more faults", mend="mend these first")
        found = [*found[:MAX_FAULTS], more]
    return found


def _fault(error: InputError, where: str) -> Fault:
    match = re.match(r"([a-z][\w.-]*): (.*)", error.what, re.DOTALL)
    key, what = (match[1], match[2]) if match else ("", error.what)
    return Fault(where=error.where or where, key=key, what=what, mend=error.mend or "correct it")


# --- the schema, seen past each fault


def _with_sound_parts(data: dict[str, Any], path: Path, source: ProfileSource, faults: list[Fault]) -> dict[str, Any]:
    """The table in which every row that cannot be made of its part has another part stand in."""
    result = dict(data)
    for rows, stand_in in _STAND_IN_PART.items():
        if not isinstance(data.get(rows), list):
            continue
        result[rows] = []
        for row in data[rows]:
            try:
                expand({"status": data.get("status"), _PLURAL.get(rows, rows): [row]}, path, source)
            except InputError as error:
                faults.append(_fault(error, str(path)))
                row = {key: value for key, value in row.items() if key not in ("units", "channels")} | {"part": stand_in}
                row |= {"usable": _harmless("usable")} if rows in ("tier", "memory") else {}
            result[rows].append(row)
    return result


def _with_device(data: dict[str, Any], path: Path, source: ProfileSource, faults: list[Fault]) -> dict[str, Any]:
    """The system's table with its device in place; a device that cannot be read is a fault and another stands in."""
    try:
        return source.with_device(data, path)
    except InputError as error:
        faults.append(_fault(error, str(path)))
    rest = {key: value for key, value in data.items() if key not in _PLURAL.values()}
    if isinstance(rest.get("tier"), list):
        rest["tier"] = [row for row in rest["tier"] if not (isinstance(row, dict) and row.get("role") == "device")]
    for key in ("capex", "power"):
        rest.setdefault(key, _harmless(key))
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
            errors = error.errors(include_url=False)
            spots = []
            above = {e["loc"][:end] for e in errors for end in range(len(e["loc"]))}
            undated = {other.key for other in faults}
            for found in errors:
                if found["type"] == "too_short" and found["loc"] in above:
                    continue  # only because its rows have faults of their own
                fault, spot = _explained(found, data, where)
                spots.append((spot, found["type"]))
                dated = f"{fault.key}.as_of" in undated and fault.what.startswith("as_of ")
                if (fault.key, fault.what) not in seen and not dated:
                    faults.append(fault)
                seen.add((fault.key, fault.what))
            progress = sum(_put_aside(data, spot, sort) for spot, sort in spots) > 0
            _drop_gone(data)
            if not progress or len(faults) > MAX_FAULTS:
                return None
    return None


_MENDS = {
    "extra_forbidden": ("unknown key", "remove it or correct its spelling"),
    "missing": ("is missing", "add it"),
}


def _explained(found: Any, data: dict[str, Any], where: str) -> tuple[Fault, list[Any]]:
    """The fault in words, and the path in ``data`` of the value that has it."""
    spot = list(found["loc"])
    what, mend = _MENDS.get(found["type"], (found["msg"].removeprefix("Value error, "), mend_of(found)))
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
            new = _harmless(step)
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


def _harmless(key: str) -> dict[str, Any]:
    return {"value": _HARMLESS[DIMENSIONS[key]], "source": STAND_IN, "as_of": _LONG_AGO, "grade": "A", "note": "dense"}


def _drop_gone(value: Any) -> None:
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(item, list):
            item[:] = [row for row in item if row is not _GONE]
        _drop_gone(item)


def _item(value: Any, step: Any) -> Any:
    return value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None
