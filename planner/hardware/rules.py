"""The truth rules of ``planner lint`` that no single field can break: on the text of a file, and on a profile as a whole.

Markup in text, binary units, a memory named twice, a taken name, one part under two names, a mesh peer that is credited
with the whole port, dates in the future.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from planner.hardware.folders import of_catalogue
from planner.hardware.kinds import SORTS, Profile
from planner.hardware.parts import InterconnectPart, MemoryPart
from planner.hardware.plausible import CONFIRMED, STAND_IN, margin, strange
from planner.hardware.schema import DIMENSIONS, DeviceProfile, System, Tier
from planner.hardware.source import SIGNATURE, ProfileSource
from planner.quantities import Figure

_MARKUP = re.compile(r"<\s*[a-zA-Z/!?]|&(?:#\d|#[xX][0-9a-fA-F]|(?:lt|gt|amp|quot|apos)\b(?!=))|javascript:", re.ASCII)
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
        if name == "as_of":
            day = plain_date(value)
            if day is None:
                what = f"{str(value)[:48]!r} is no plain date"
                yield Fault(where=where, key=key, what=what, mend="write a plain date, as 2026-11-20")
            elif day > today:
                yield Fault(where=where, key=key, what=f"{value} lies in the future", mend="write the date of the source")
    for key, table in _tables(raw, ""):
        yield from _binary_units(key, table, where)
        for name, rows in table.items():
            if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
                ids = [str(row.get("id")) for row in rows if "id" in row]
                counts = Counter(ids)
                for twice in sorted(name for name in counts if counts[name] > 1):
                    what = f"{twice!r} is listed {counts[twice]} times"
                    yield Fault(
                        where=where, key=name, what=what, mend="a memory, link or domain is listed once; remove the others"
                    )


def plain_date(value: object) -> date | None:
    """A day without a time of day, also as a string; ``None`` for anything else."""
    if isinstance(value, str):
        with suppress(ValueError):
            return date.fromisoformat(value)
    return value if type(value) is date else None


def _binary_units(key: str, table: dict[str, Any], where: str) -> Iterator[Fault]:
    name = key.rpartition(".")[2]
    dimension = DIMENSIONS.get(name)
    if not dimension or "value" not in table or not _BINARY.search(str(table["value"])):
        return
    note = f"{table.get('note', '')} {table.get('source', '')}"
    said = re.search(r"[KMGTP]iB", note) and not re.search(r"\b(not|no)\b[^;.]*[KMGTP]iB", note)
    if not said and not _read_off(str(table["value"])):
        mend = "a label's GB are 1e9 bytes: write GB, or say in the note that the source counts in GiB"
        yield Fault(where=where, key=key, what=f"{table['value']} is in binary units", mend=mend)


def _read_off(text: str) -> bool:
    """Whether a value in KiB or MiB is one that a tool prints: whole multiples of 1024 are a label in the next unit."""
    number = re.fullmatch(r"\s*([\d_,]+)(?:\.0*)?\s*[KM]iB\s*", text)
    return text.rstrip().endswith(("KiB", "MiB")) and not (number and int(re.sub(r"\D", "", number[1])) % 1024 == 0)


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


def own_names(raw: dict[str, Any]) -> list[str]:
    """Id and aliases of a file's table, as far as they can be read."""
    aliases = raw.get("aliases")
    return [name for name in (raw.get("id"), *(aliases if isinstance(aliases, list) else ())) if isinstance(name, str)]


def hidden(raw: dict[str, Any], path: Path, source: ProfileSource) -> list[str]:
    """Names of the catalogue that a file outside it takes: allowed, and read in place of the catalogue's."""
    if of_catalogue(path):
        return []
    known = source.named(SORTS.get(str(raw.get("kind")), ""))
    return [name for name in own_names(raw) if any(other.ours for other in known.get(name, ()))]


def taken(raw: dict[str, Any], path: Path, sort: str, source: ProfileSource, checked: Collection[Path] = ()) -> Iterator[Fault]:
    """Names that belong to another profile of the sort. A file may take the name of the one that it extends, and outside the
    catalogue one of the catalogue (``hidden``); what it shares with a ``checked`` file is that one's fault."""
    known, own = source.named(sort), path.resolve()
    mine = of_catalogue(path)
    base = set(known.get(extends, ())) if isinstance(extends := raw.get("extends"), str) else set()
    for name in own_names(raw):
        for other in reversed(known.get(name, ())):  # those after it, which are not checked yet, come last
            if other.real in checked or other.real == own or (other.ours and not mine) or other in base:
                continue
            what = f"{name!r} is a name of {other.path.stem}"
            mend = "choose another, or extend that profile: no part has two profiles"
            yield Fault(where=str(path), key="id" if name == raw.get("id") else "aliases", what=what, mend=mend)
            break


def alike(profile: Profile, path: Path, source: ProfileSource) -> Iterator[Fault]:
    """Another part of the folders that says the same: one thing under two names."""
    if not isinstance(profile, MemoryPart | InterconnectPart):
        return
    raw, own = source.raw(path), path.resolve()
    mine = set(own_names(raw))
    for other, names in source.parts_like(raw):
        if not mine & set(names) and other.resolve() != own:
            what = f"the same {', '.join(SIGNATURE[profile.kind])} as {names[0]!r}: one part twice"
            yield Fault(where=str(path), key="id", what=what, mend="keep one file and put the other name in its aliases")
            break


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
    yield from _lines(profile, where)
    for domain in profile.domains:
        if domain.topology == "mesh" and domain.devices is not None and domain.devices > 2:
            most = 1.0 / (domain.devices - 1)
            if domain.p2p_efficiency.known and domain.p2p_efficiency.value > 1.1 * most:
                what = f"{domain.p2p_efficiency.value:g} of the port to one peer of a mesh of {domain.devices}"
                mend = f"one peer is one link of {domain.devices - 1}: at most {most:.3g}"
                yield Fault(where=where, key=f"domain.{domain.id}.p2p_efficiency", what=what, mend=mend)


def out_of_range(profile: Profile, where: str) -> Iterator[Fault]:
    """Figures far outside what the catalogue has of their kind."""
    for found in strange(profile):
        what = f"{found.value} is more than {margin():g} times outside what the catalogue has of the kind ({found.range})"
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


def _lines(system: System, where: str) -> Iterator[Fault]:
    """Lines of a capital cost that are not all of it."""
    total = math.fsum(line.capex.value for line in system.capex_lines)
    if system.capex_lines and not (system.capex.known and math.isclose(total, system.capex.value, rel_tol=1e-6)):
        stated = f"{system.capex.value:,.0f}" if system.capex.known else "unknown"
        what = f"they sum to {total:,.0f} USD, capex is {stated}"
        yield Fault(where=where, key="capex_line", what=what, mend="add what is missing as a line of its own, or correct capex")


def _twins(tiers: tuple[Tier, ...], where: str) -> Iterator[Fault]:
    for number, tier in enumerate(tiers):
        for other in tiers[:number]:
            close = all(
                math.isclose(a.value, b.value, rel_tol=0.02) for a, b in ((tier.usable, other.usable), (tier.read, other.read))
            )
            known = tier.usable.known and tier.read.known and tier.usable.source != STAND_IN
            if tier.kind == other.kind and close and known:
                what = f"the same kind, size and rate as {other.id!r}: one memory listed twice"
                yield Fault(
                    where=where, key=f"tier.{tier.id}", what=what, mend="list a memory once, at its owner, with devices_sharing"
                )
