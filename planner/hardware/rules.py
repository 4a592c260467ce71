"""The truth rules of ``planner lint`` that no single field can break: on the text of a file, and on a profile as a whole.

Markup in text, binary units, a memory named twice, a taken name, one part under two names, a mesh peer that is credited
with the whole port, dates in the future.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from planner.hardware.kinds import Profile
from planner.hardware.loader import ProfileSource
from planner.hardware.parts import InterconnectPart, MemoryPart
from planner.hardware.plausible import CONFIRMED, strange
from planner.hardware.schema import DIMENSIONS, DeviceProfile, System, Tier
from planner.quantities import Figure

_MARKUP = re.compile(r"<\s*[a-zA-Z/!?]|&(#\d+|#x[0-9a-fA-F]+|lt|gt|amp|quot);|javascript:", re.ASCII)
_BINARY = re.compile(r"\d\s*[KMGTP]iB")


class Fault(BaseModel):
    """One thing wrong with a profile: the file, the key in it, what is wrong and how to mend it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str
    key: str
    what: str
    mend: str

    def __str__(self) -> str:
        return "; ".join(part for part in (f"{self.where}: {f'{self.key}: ' if self.key else ''}{self.what}", self.mend) if part)


# --- rules on the text of the file itself


def in_text(raw: dict[str, Any], where: str, today: date) -> Iterator[Fault]:
    """What the file's own table says that no text or date may say."""
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


# --- rules on the profile as a whole


def taken(raw: dict[str, Any], path: Path, sort: str, source: ProfileSource) -> Iterator[Fault]:
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


def alike(profile: Profile, path: Path, source: ProfileSource) -> Iterator[Fault]:
    """Another part of the folders that says the same: one thing under two names."""
    if not isinstance(profile, MemoryPart | InterconnectPart):
        return
    own = source.raw(path)
    signature = _SIGNATURE[profile.kind]
    for other, names in source.names("part"):
        if other.resolve() == path.resolve():
            continue
        theirs = source.raw(other)
        if theirs.get("kind") == profile.kind and all(_bare(theirs.get(key)) == _bare(own.get(key)) for key in signature):
            what = f"the same {', '.join(signature)} as {names[0]!r}: one part twice"
            yield Fault(where=str(path), key="id", what=what, mend="keep one file and put the other name in its aliases")


_SIGNATURE = {"memory": ("vendor", "technology", "unit", "usable", "read"), "interconnect": ("vendor", "network", "bandwidth")}


def _bare(value: Any) -> Any:
    return value.get("value") if isinstance(value, dict) else value


def in_whole(profile: Profile, where: str) -> Iterator[Fault]:
    """Figures of a sound profile that contradict one another or all others, and grades that nobody can give."""
    yield from out_of_range(profile, where)
    if isinstance(profile, MemoryPart | InterconnectPart) and profile.status == "announced":
        for key, figure in profile:
            if isinstance(figure, Figure) and figure.known and figure.grade in ("A", "B"):
                what = f"grade {figure.grade} for a part that is only announced"
                yield Fault(where=where, key=key, what=what, mend="nobody has measured it: grade C with an interval")
    if not isinstance(profile, System | DeviceProfile):
        return
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
    yield from unreached(profile, where)
    for domain in profile.domains:
        if domain.topology == "mesh" and domain.devices is not None and domain.devices > 2:
            most = 1.0 / (domain.devices - 1)
            if domain.p2p_efficiency.value > 1.1 * most:
                what = f"{domain.p2p_efficiency.value:g} of the port to one peer of a mesh of {domain.devices}"
                mend = f"one peer is one link of {domain.devices - 1}: at most {most:.3g}"
                yield Fault(where=where, key=f"domain.{domain.id}.p2p_efficiency", what=what, mend=mend)


def out_of_range(profile: Profile, where: str) -> Iterator[Fault]:
    """Figures far outside what the catalogue has of their kind."""
    for found in strange(profile):
        what = f"{found.value} is more than ten times outside what the catalogue has of the kind ({found.range})"
        mend = f'correct the number or its unit; if it is right, begin its note with "{CONFIRMED} " and say by whom'
        yield Fault(where=where, key=found.path, what=what, mend=mend)


def unreached(system: System, where: str) -> Iterator[Fault]:
    """Memories below the device that no link leads to: a plan would read them at their own rate."""
    for tier in system.tiers:
        if tier.role != "device" and not tier.via:
            ways = ", ".join(f'"{link.id}"' for link in system.links if "device" in link.between) or '"pcie"'
            what = "is missing: the device would read this memory as if it were its own"
            mend = f"name the links and memories on the way to the device, as via = [{ways}]"
            yield Fault(where=where, key=f"tier.{tier.id}.via", what=what, mend=mend)


def _twins(tiers: tuple[Tier, ...], where: str) -> Iterator[Fault]:
    for number, tier in enumerate(tiers):
        for other in tiers[:number]:
            same = (tier.kind, tier.usable.value, tier.read.value) == (other.kind, other.usable.value, other.read.value)
            if same and tier.usable.source != "x":
                what = f"the same kind, size and rate as {other.id!r}: one memory listed twice"
                yield Fault(
                    where=where, key=f"tier.{tier.id}", what=what, mend="list a memory once, at its owner, with devices_sharing"
                )
