"""Hardware by name: a system, device, part or site of the catalogue or of a file, and the list of all there are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from planner.documents import explain_validation
from planner.errors import InputError
from planner.hardware.folders import builtin_folder as builtin_folder  # where the entry point of planner's own pack looks
from planner.hardware.folders import of_catalogue, packs, report_pack
from planner.hardware.joining import kind_of, refuse_schema
from planner.hardware.kinds import SORTS, Profile
from planner.hardware.parts import InterconnectPart, MemoryPart, Site
from planner.hardware.schema import DeviceProfile, HardwareSelection, Rent, System
from planner.hardware.source import ProfileSource


class HardwareSummary(BaseModel):
    """One line of ``list_hardware``; ``fault`` says why a profile cannot be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    kind: str = ""
    name: str = ""
    vendor: str = ""
    origin: str = ""
    status: str = ""
    device: str = ""
    devices: int = 1
    aliases: tuple[str, ...] = ()
    usable_bytes: float | None = None
    """Of one unit of a memory part."""
    usd_per_gb: float | None = None
    price_basis: str = ""
    price_as_of: str = ""
    """The newest price of a memory part."""
    fault: str = ""


def builtin_profiles() -> Iterator[Profile]:
    """Every profile of the built-in catalogue."""
    source = ProfileSource(())
    return (source.read_any(path) for path in source.files)


def load_hardware(name: str | Path, *, folders: Iterable[Path] = ()) -> HardwareSelection:
    """``"h800-node"``, ``"h800-node:2"``, ``"h800-node:auto"`` or the path of a TOML profile (also with ``:N``).

    ``folders`` of profiles are searched before the catalogue. Figures are SI: bytes, bytes/s, FLOP/s, seconds, watts, USD.
    Raises ``InputError`` where there is no such profile, with the nearest names, or where it cannot be read.
    """
    base, count, auto = _split_count(os.fspath(name))
    source = ProfileSource(folders)
    system = source.read(source.resolve(base, "system"), System)
    return HardwareSelection(system=system, count=count, auto=auto)


def find_profile(name: str, kind: str, *, folders: Iterable[Path] = ()) -> Path:
    """The file that a name of the kind (``device``, ``node``, …) is read from, with or without ``:N``."""
    return ProfileSource(folders).resolve(_split_count(name)[0], SORTS.get(kind, "system"))


def hides(path: Path, name: str, kind: str) -> bool:
    """Whether a name found at ``path``, outside the catalogue, is one of the catalogue too."""
    base = _split_count(name)[0]
    if base.endswith(".toml") or "/" in base or of_catalogue(path):
        return False
    source = ProfileSource(())
    return any(base in names or base.lower() in names for _, names in source.names(SORTS.get(kind, "system")))


def load_device(name: str, *, folders: Iterable[Path] = ()) -> DeviceProfile:
    """A device by catalogue id, alias or path, with the memory it owns."""
    source = ProfileSource(folders)
    return source.read(source.resolve(name, "device"), DeviceProfile)


def load_part(name: str, *, folders: Iterable[Path] = ()) -> MemoryPart | InterconnectPart:
    """A memory or interconnect by catalogue id, alias or path."""
    source = ProfileSource(folders)
    return source.read_part(source.resolve(name, "part"))


def load_site(name: str, *, folders: Iterable[Path] = ()) -> Site:
    """A site by catalogue id, alias or path."""
    source = ProfileSource(folders)
    return source.read(source.resolve(name, "site"), Site)


def read_profile(path: Path, *, folders: Iterable[Path] = (), today: date | None = None) -> Profile:
    """Read and check one profile file of any kind; given ``today``, a profile dated later is refused too."""
    source = ProfileSource(folders)
    profile = source.read_any(path)
    if today is not None and profile.as_of > today:
        raise InputError(f"as_of: {profile.as_of} lies in the future", where=str(path), mend="correct the date")
    return profile


def list_hardware(
    *,
    origin: str | None = None,
    folders: Iterable[Path] = (),
    kinds: Sequence[str] = ("node", "rack"),
    packs: bool = True,
) -> list[HardwareSummary]:
    """The profiles of the given kinds, by id. A profile that cannot be read is listed with its ``fault``.

    ``packs``: with those of other packages.
    """
    if origin not in (None, "domestic", "western"):
        raise InputError(f"unknown origin {origin!r}", mend="use domestic or western")
    source = ProfileSource(folders)
    rows = [_summary(source, path) for path in source.files + (source.plugin_files if packs else [])]
    chosen = {row.id: row for row in reversed(rows) if row.fault or (row.kind in kinds and origin in (None, row.origin))}
    return [chosen[key] for key in sorted(chosen)]


def list_rents(folders: Iterable[Path] = ()) -> list[tuple[str, Rent]]:
    """Every rent of every system with the system's id, by id, basis and date: those that a plan on it has, inherited ones too.

    A profile that cannot be read has none; ``list_hardware`` and lint say what is wrong with it.
    """
    source = ProfileSource(folders)
    found: dict[str, tuple[Rent, ...]] = {}
    for path in source.files + source.plugin_files:
        with suppress(InputError):
            if SORTS[kind_of(source.document(path), str(path))] == "system":
                system = source.read(path, System)
                found.setdefault(system.id, system.rents)
    rows = [(name, rent) for name, rents in found.items() for rent in rents]
    return sorted(rows, key=lambda row: (row[0], row[1].basis, str(row[1].usd_per_hour.as_of), row[1].provider))


def _split_count(name: str) -> tuple[str, int, bool]:
    base, colon, count = name.rpartition(":")
    if not colon or name.endswith(".toml"):
        return name, 1, False
    if not base:
        raise InputError(f"hardware {name[:64]!r} names no profile", mend="write NAME:N, as h800-node:2")
    if count == "auto":
        return base, 1, True
    if not re.fullmatch(r"[0-9]{1,6}", count, re.ASCII) or int(count) < 1:
        raise InputError(
            f"{count[:16]!r} in {name[:64]!r} is not a count", mend="write NAME:N with N from 1 to 999999, or NAME:auto"
        )
    return base, int(count), False


def _summary(source: ProfileSource, path: Path) -> HardwareSummary:
    try:
        data = source.document(path)
        kind_of(data, str(path))
        refuse_schema(data, str(path))
        keys = set(HardwareSummary.model_fields) - {"device", "usable_bytes", *_PRICED, "fault"}
        device = data.get("device", "")
        device = device.get("id") if isinstance(device, dict) else Path(device).stem if isinstance(device, str | Path) else ""
        found = {key: data[key] for key in keys & set(data)} | {"device": device}
        if data.get("kind") == "memory":
            found |= _of_memory(source.read(path, MemoryPart))
        return HardwareSummary.model_validate(found)
    except InputError as error:
        return HardwareSummary(id=path.stem, fault=str(error))
    except ValidationError as error:
        return HardwareSummary(id=path.stem, fault=str(explain_validation(error, str(path))))


_PRICED = ("usd_per_gb", "price_basis", "price_as_of")


def _of_memory(part: MemoryPart) -> dict[str, Any]:
    """Capacity and newest price, as far as they are known."""
    prices = [(str(price.usd_per_gb.as_of), price) for price in part.prices if price.usd_per_gb.known]
    newest = max(prices, key=lambda item: item[0], default=None)
    found: dict[str, Any] = {"usable_bytes": part.usable.value} if part.usable.known else {}
    if newest is None:
        return found
    return found | dict(zip(_PRICED, (newest[1].usd_per_gb.value, newest[1].basis, newest[0]), strict=True))


def check_packs() -> None:
    """Read every profile of other packages; the first fault of each pack is on record with the registry then."""
    source = ProfileSource(())
    for name, paths in packs().items():
        for path in paths:
            try:
                source.read_any(path)
            except InputError as error:
                report_pack(name, str(error))
                break
