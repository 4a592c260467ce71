"""Profiles by name and by file: found in the folders, joined onto what they extend, read once.

A profile is one TOML file, ``<id>.toml``. Built-in profiles lie in ``hardware_profiles/`` (installed as
``planner/_hardware_profiles``); further folders can be given, and are searched first; those of other packages (plugin
group ``planner.hardware``) come last. A system names its device, and any profile names the base it ``extends``, by
catalogue id or by the relative path of a file below its own folder. ``schema``, ``kind``, ``id`` and ``aliases`` are
never inherited.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from planner.documents import parse_toml, read_text
from planner.errors import InputError, nearest
from planner.hardware.compose import expand, names_parts
from planner.hardware.estimate import complete
from planner.hardware.folders import below, catalogue_folder, of_catalogue, packs, profiles_below, real
from planner.hardware.joining import explain, from_toml, kind_of, merge, refuse_many, refuse_schema
from planner.hardware.kinds import CALLED, SCHEMAS, SORTS, Profile
from planner.hardware.parts import InterconnectPart, MemoryPart, Site
from planner.hardware.schema import Device, DeviceProfile, System

MAX_PROFILE_BYTES = 2**20
KEPT_CHARACTERS = 2**24
"""Of the texts whose tables are kept for the next look."""
MAX_EXTENDS = 16

_Profile = TypeVar("_Profile", System, DeviceProfile, MemoryPart, InterconnectPart, Site)
_Found = TypeVar("_Found")
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_OWN_KEYS = ("schema", "kind", "id", "aliases")
"""What a profile says itself and never inherits."""

SIGNATURE = {"memory": ("vendor", "technology", "unit", "usable", "read"), "interconnect": ("vendor", "network", "bandwidth")}
"""What a part is known by, by kind: two files that say the same of it are one part twice."""


class Head(NamedTuple):
    """What a file says of itself before its tables."""

    path: Path
    sort: str
    names: tuple[str, ...]
    device: str


class Holder(NamedTuple):
    """A file that has a name: its path without links, and whether it is planner's own."""

    path: Path
    real: Path
    ours: bool


class ProfileSource:
    """The folders that are searched, with each file read once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [Path(folder) for folder in folders]
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError("is not a folder", where=str(folder), mend="name a folder that holds profiles")
        self.folders.append(catalogue_folder())
        self._documents: dict[str, tuple[int, dict[str, Any]]] = {}
        self._kept = 0
        self._heads: dict[Path, Head] = {}
        self._indices: dict[int, tuple[dict[str, list[Path]], dict[str, list[Path]]]] = {}
        self._named: dict[str, dict[str, list[Holder]]] = {}
        self._held: dict[str, dict[str, tuple[Path, System]]] = {}

    @cached_property
    def _by_folder(self) -> list[list[Path]]:
        """The profile files of each folder, by path; links that lead out of a folder are left out."""
        return [profiles_below(folder) for folder in self.folders]

    @cached_property
    def _plugins_by_folder(self) -> list[list[Path]]:
        """The profiles of other packages, looked for only when planner's own do not have the name."""
        return list(packs().values())

    @property
    def files(self) -> list[Path]:
        """Every profile file of the folders, in their order."""
        return [path for paths in self._by_folder for path in paths]

    @property
    def plugin_files(self) -> list[Path]:
        """Every profile file of other packages."""
        return [path for paths in self._plugins_by_folder for path in paths]

    def resolve(self, name: str, want: str, *, but: Path | None = None) -> Path:
        """The file of a catalogue id or alias of the wanted sort (one of ``SORTS`` or ``profile``), or a path as it is."""
        if name.endswith(".toml") or "/" in name or os.sep in name:
            return Path(name)
        searched: list[Path] = []
        for plugins in (False, True):
            for paths in self._plugins_by_folder if plugins else self._by_folder:
                stems, names = self._index(paths)
                for match in (name, name.lower()):
                    # the file of that name first: a plan reads only what it needs
                    for path in stems.get(match, ()):
                        if path != but and self._fits(path, want):
                            return path
                    if not names and paths:
                        names.update(_grouped((n, path) for path in paths for n in self.head(path).names))
                    for path in names.get(match, ()):
                        if path != but and self._fits(path, want):
                            return path
                searched += paths
        known = {n for path in searched if path != but and self._fits(path, want) for n in self.head(path).names}
        holders = [head.names[0] for head in map(self.head, self.files) if name and head.device == name]
        if want == "system" and holders:
            raise InputError(f"{name!r} is a device", mend="name a system that holds it: " + ", ".join(sorted(holders)))
        if want == "system" and any(head.sort == "device" and name in head.names for head in map(self.head, self.files)):
            mend = "write a profile of a system that holds it: planner init hardware FILE"
            raise InputError(f"{name!r} is a device, and no system of the catalogue holds it", mend=mend)
        what = f"unknown {'hardware' if want == 'system' else want} {name[:64]!r}"
        raise InputError(what, mend=nearest(name[:64], sorted(known)))

    def _index(self, paths: list[Path]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        """The files of a folder by stem, and by the names that they say, which are filled in when first needed."""
        if id(paths) not in self._indices:
            self._indices[id(paths)] = _grouped((path.stem, path) for path in paths), {}
        return self._indices[id(paths)]

    def _fits(self, path: Path, want: str) -> bool:
        """Whether a file is of the wanted sort, or may be."""
        sort = self.head(path).sort
        return want in ("profile", sort) or sort == "unreadable"

    def head(self, path: Path) -> Head:
        """What a file says of itself, without the profiles that it refers to."""
        if path not in self._heads:
            self._heads[path] = self._read_head(path)
        return self._heads[path]

    def _read_head(self, path: Path) -> Head:
        try:
            data = self._top(path)
        except InputError:
            return Head(path, "unreadable", (path.stem,), "")
        aliases = data.get("aliases")
        names = [data.get("id", path.stem), *(aliases if isinstance(aliases, list) else ())]
        sort = SORTS.get(str(data.get("kind")), "system")
        return Head(path, sort, tuple(str(name) for name in names), str(data.get("device", "")))

    def _top(self, path: Path) -> dict[str, Any]:
        """The keys before the first table, which need no parsing of the rest; the whole file where they cannot be cut off."""
        if os.path.abspath(path) in self._documents:
            return self.raw(path)
        text = read_text(path, max_bytes=MAX_PROFILE_BYTES)
        try:
            return parse_toml(text[: text.find("\n[") + 1] or text, str(path))
        except InputError:
            return self.raw(path)

    def document(self, path: Path) -> dict[str, Any]:
        """The table of a file joined onto the base that it extends."""
        return self._joined(path, ())

    def names(self, sort: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
        """Every profile of the sort in the folders, with its id and aliases."""
        for path in self.files:
            head = self.head(path)
            if head.sort == sort:
                yield path, head.names

    def named(self, sort: str) -> dict[str, list[Holder]]:
        """The profiles of the sort in the folders by id and alias, put together once."""
        if sort not in self._named:
            holders = ((Holder(path, real(path), of_catalogue(path)), names) for path, names in self.names(sort))
            self._named[sort] = _grouped((name, holder) for holder, names in holders for name in dict.fromkeys(names))
        return self._named[sort]

    def parts_like(self, raw: dict[str, Any]) -> list[tuple[Path, tuple[str, ...]]]:
        """The parts whose files say the same in every key of ``SIGNATURE``, with their names."""
        return self._signed.get(_signature(raw), [])

    @cached_property
    def _signed(self) -> dict[str, list[tuple[Path, tuple[str, ...]]]]:
        found: dict[str, list[tuple[Path, tuple[str, ...]]]] = {}
        for path, names in self.names("part"):
            with suppress(InputError):
                found.setdefault(_signature(self.raw(path)), []).append((path, names))
        return found

    @cached_property
    def ports(self) -> dict[str, float]:
        """One-way bytes/s of one device's port by network, of the interconnect parts; planner's own come first."""
        found: dict[str, float] = {}
        ours: set[str] = set()
        for path, _ in sorted(self.names("part"), key=lambda item: not of_catalogue(item[0])):
            with suppress(InputError):
                if self.raw(path).get("kind") == "interconnect":
                    part = self.read(path, InterconnectPart)
                    own = of_catalogue(path)
                    if part.bandwidth.known and (own or part.network not in ours):
                        found[part.network] = max(found.get(part.network, 0.0), part.bandwidth.highest)
                    ours |= {part.network} if own and part.bandwidth.known else set()
        return found

    def raw(self, path: Path) -> dict[str, Any]:
        """The table of the file alone, as it is written; the oldest are forgotten where many were read."""
        key = os.path.abspath(path)
        if key not in self._documents:
            text = read_text(path, max_bytes=MAX_PROFILE_BYTES)
            data = parse_toml(text, str(path))
            refuse_many(data, str(path))
            self._documents[key] = len(text), data
            self._kept += len(text)
            while self._kept > KEPT_CHARACTERS and len(self._documents) > 1:
                self._kept -= self._documents.pop(next(iter(self._documents)))[0]
        return self._documents[key][1]

    def _joined(self, path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
        data = dict(self.raw(path))
        extends = data.pop("extends", None)
        if extends is None:
            return data
        chain = (*seen, real(path))
        base = self._reference(extends, path, "extends", "profile")
        if real(base) in chain:
            names = " -> ".join(step.stem for step in (*chain, base))
            raise InputError(f"extends: the profiles extend one another in a circle ({names})", where=str(path), mend="break it")
        if len(chain) >= MAX_EXTENDS:
            raise InputError(f"extends: more than {MAX_EXTENDS} profiles in a row", where=str(path), mend="shorten the chain")
        left = {*_OWN_KEYS, *(("capex", "power") if names_parts(data) else ())}  # what parts change is estimated anew
        left |= {"capex_line"} if "capex" in {*left, *data} else set()  # lines of another sum
        left |= {"rent"} if {"device", "devices"} & set(data) or names_parts(data) else set()  # prices of other hardware
        inherited = {key: value for key, value in self._joined(base, chain).items() if key not in left}
        if isinstance(device := inherited.get("device"), str):
            inherited["device"] = self._reference(device, base, "device", "device")
        return {
            key: merge(inherited[key], data[key]) if key in inherited and key in data else value
            for key, value in (inherited | data).items()
        }

    def _reference(self, name: object, path: Path, key: str, want: str) -> Path:
        """The file that ``key`` of the profile at ``path`` names; only the catalogue or below its folder."""
        if isinstance(name, Path):
            return name
        if not isinstance(name, str) or not name or len(name) > 256 or not name.isprintable():
            raise InputError(f"{key}: expected the id of a profile", where=str(path), mend="write it as a string")
        if not name.endswith(".toml"):
            if not _ID.fullmatch(name):
                raise InputError(f"{key}: {name!r} is no profile id", where=str(path), mend="use an id or a relative .toml path")
            beside = path.parent / f"{name}.toml"
            if beside.is_file() and below(beside, path) and real(beside) != real(path):
                return beside
            try:
                return self.resolve(name, want, but=path)
            except InputError as error:
                raise InputError(f"{key}: {error.what}", where=str(path), mend=error.mend) from None
        target = path.parent / name
        if Path(name).is_absolute() or not below(target, path):
            raise InputError(f"{key}: {name!r} leaves the folder of the profile", where=str(path), mend="keep the file below it")
        return target

    def read(self, path: Path, kind: type[_Profile]) -> _Profile:
        """The profile of that kind; any fault is one ``InputError`` that names file and key."""
        where = str(path)
        data = self.document(path)
        found = kind_of(data, where)
        schema: object = SCHEMAS[found]
        if schema is not kind:
            what = f"is {CALLED[schema]}, not {CALLED[kind]}"
            raise InputError(what, where=where, mend=f"see planner list hardware --kind {found}")
        refuse_schema(data, where)
        if kind is System:
            data = self.with_device(data, path)
        elif kind is DeviceProfile:
            data, _ = expand(data, path, self)
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            raise explain(error, where, data) from None

    def read_any(self, path: Path) -> Profile:
        """The profile of whatever kind it is."""
        profile: Profile = self.read(path, SCHEMAS.get(str(self.document(path).get("kind")), System))
        return profile

    def read_part(self, path: Path) -> MemoryPart | InterconnectPart:
        """The memory or interconnect at ``path``."""
        kind = self.document(path).get("kind")
        return self.read(path, InterconnectPart) if kind == "interconnect" else self.read(path, MemoryPart)

    def part(self, name: object, path: Path, key: str) -> MemoryPart | InterconnectPart:
        """The part that ``key`` of the profile at ``path`` names."""
        return self.read_part(self._reference(name, path, key, "part"))

    def chain(self, path: Path) -> list[Path]:
        """The profiles that a file extends, the nearest first; joining has shown that they form no circle."""
        bases: list[Path] = []
        while (extends := self.raw(path).get("extends")) is not None:
            path = self._reference(extends, path, "extends", "profile")
            bases.append(path)
        return bases

    def holders(self, device: str, but: Path) -> list[System]:
        """The sound systems of the folders that hold a device and say what they cost and draw, by id."""
        own = real(but)
        systems: dict[str, System] = {}
        for path, system in self._holding(device).values():
            if real(path) != own:
                systems.setdefault(system.id, system)
        return [systems[key] for key in sorted(systems)]

    def _holding(self, device: str) -> dict[str, tuple[Path, System]]:
        """Those systems by file, read once."""
        if device in self._held:
            return self._held[device]
        found = self._held[device] = {}
        for path in self.files:
            if self.head(path).sort != "system":
                continue
            with suppress(InputError):
                data = self.document(path)
                held = data.get("device")
                if not {"capex", "power"} <= set(data) or not isinstance(held, str | Path):
                    continue
                if Path(held).stem == device or device in self.head(self._reference(held, path, "device", "device")).names:
                    found[str(path)] = path, self.read(path, System)
        return found

    def with_device(self, data: dict[str, Any], path: Path) -> dict[str, Any]:
        """The system's table with its device, its parts and what is estimated in place."""
        data, uses = expand(self._device_in_place(data, path), path, self)
        return complete(data, path, uses, self)

    def _device_in_place(self, data: dict[str, Any], path: Path) -> dict[str, Any]:
        """Put the device's compute in place of its id, and its memory before the system's own tiers."""
        reference = data.get("device")
        if isinstance(reference, dict):
            return from_toml(data, str(path))
        if reference is None:
            raise InputError("device: is missing", where=str(path), mend="name the device's profile")
        device = self.read(self._reference(reference, path, "device", "device"), DeviceProfile)
        data = from_toml(data, str(path))
        own = data.get("tiers", [])
        if not isinstance(own, list):
            raise InputError("tier: expected [[tier]] tables", where=str(path), mend="write [[tier]]")
        if any(isinstance(tier, dict) and tier.get("role") == "device" for tier in own):
            raise InputError("tier: device memory belongs in the device's profile", where=str(path), mend="move it there")
        values = {name: getattr(device, name) for name in Device.model_fields}
        return data | {"device": Device.model_validate(values), "tiers": [*device.memory, *own]}


def _signature(raw: dict[str, Any]) -> str:
    values = [raw.get(key) for key in SIGNATURE.get(str(raw.get("kind")), ())]
    return repr([raw.get("kind"), *(value.get("value") if isinstance(value, dict) else value for value in values)])


def _grouped(pairs: Iterable[tuple[str, _Found]]) -> dict[str, list[_Found]]:
    groups: dict[str, list[_Found]] = {}
    for name, found in pairs:
        groups.setdefault(name, []).append(found)
    return groups
