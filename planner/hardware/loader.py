"""Finding, reading, joining and writing hardware profiles.

A profile is one TOML file, ``<id>.toml``. Built-in profiles lie in ``hardware_profiles/`` (installed as
``planner/_hardware_profiles``); further folders can be given, and are searched first. A system names its device, and any
profile names the base it ``extends``, by catalogue id or by the relative path of a file below its own folder.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError, nearest
from planner.hardware.schema import DIMENSIONS, Curve, Device, DeviceProfile, HardwareSelection, System
from planner.quantities import Figure, format_quantity

MAX_PROFILE_BYTES = 2**20
MAX_PROFILES = 2000
MAX_EXTENDS = 16

_Profile = TypeVar("_Profile", System, DeviceProfile)
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


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
    fault: str = ""


def builtin_folder() -> Path:
    """The folder of the built-in profiles: the installed one if it exists, else that of the checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_hardware_profiles"
    return installed if installed.is_dir() else package.parent / "hardware_profiles"


def load_hardware(name: str, *, folders: Iterable[Path] = ()) -> HardwareSelection:
    """``"h800-node"``, ``"h800-node:2"``, ``"h800-node:auto"`` or the path of a TOML profile (also with ``:N``)."""
    base, count, auto = _split_count(name)
    source = _Source(folders)
    path = source.resolve(base, where=f"hardware {base!r}")
    system = source.read(path, System)
    return HardwareSelection(system=system, count=count, auto=auto)


def load_device(name: str, *, folders: Iterable[Path] = ()) -> DeviceProfile:
    """A device by catalogue id, alias or path, with the memory it owns."""
    source = _Source(folders)
    return source.read(source.resolve(name, where=f"device {name!r}", want="device"), DeviceProfile)


def read_profile(path: Path, *, folders: Iterable[Path] = (), today: date | None = None) -> System | DeviceProfile:
    """Read and check one profile file of either kind; given ``today``, a profile dated later is refused too."""
    source = _Source(folders)
    kind = source.document(path).get("kind")
    profile: System | DeviceProfile
    profile = source.read(path, DeviceProfile) if kind == "device" else source.read(path, System)
    if today is not None and profile.as_of > today:
        raise InputError(f"as_of: {profile.as_of} lies in the future", where=str(path), mend="correct the date")
    return profile


def list_hardware(
    *, origin: str | None = None, folders: Iterable[Path] = (), kinds: Sequence[str] = ("node", "rack")
) -> list[HardwareSummary]:
    """The profiles of the given kinds, by id. A profile that cannot be read is listed with its ``fault``."""
    if origin not in (None, "domestic", "western"):
        raise InputError(f"unknown origin {origin!r}", mend="use domestic or western")
    source = _Source(folders)
    rows = [source.summary(path) for path in source.files()]
    chosen = {row.id: row for row in reversed(rows) if row.fault or (row.kind in kinds and origin in (None, row.origin))}
    return [chosen[key] for key in sorted(chosen)]


def _split_count(name: str) -> tuple[str, int, bool]:
    base, colon, count = name.rpartition(":")
    if not colon:
        return name, 1, False
    if not base:
        raise InputError(f"hardware {name!r} names no profile", mend="write NAME:N, as h800-node:2")
    if count == "auto":
        return base, 1, True
    if not re.fullmatch(r"[0-9]{1,6}", count, re.ASCII) or int(count) < 1:
        raise InputError(f"{count!r} in {name!r} is not a count", mend="write NAME:N with N from 1 to 999999, or NAME:auto")
    return base, int(count), False


class _Source:
    """The folders that are searched, with each file read once."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [Path(folder) for folder in folders]
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError("is not a folder", where=str(folder), mend="name a folder that holds profiles")
        self.folders.append(builtin_folder())
        self._documents: dict[Path, dict[str, Any]] = {}

    def files(self) -> list[Path]:
        """Every profile file, in the order of the folders, then by path; links that lead out of a folder are left out."""
        found: list[Path] = []
        for folder in self.folders:
            inside = folder.resolve()
            for parent, subfolders, names in os.walk(inside):
                subfolders.sort()
                for name in sorted(names):
                    path = Path(parent, name)
                    if name.endswith(".toml") and not name.startswith(".") and path.resolve().is_relative_to(inside):
                        found.append(path)
                if len(found) > MAX_PROFILES:
                    raise InputError(f"holds more than {MAX_PROFILES} profiles", where=str(folder), mend="name a smaller folder")
        return found

    def resolve(self, name: str, *, where: str, want: str = "system") -> Path:
        """The file of a catalogue id, alias or path."""
        if name.endswith(".toml") or "/" in name or os.sep in name:
            return Path(name)
        files = self.files()
        for path in files:
            if path.stem == name:
                return path
        known: set[str] = set()
        for path in files:
            row = self.summary(path)
            if name in row.aliases or name == row.id:
                if not row.fault and (row.kind == "device") == (want == "device"):
                    return path
            if (row.kind == "device") == (want == "device"):
                known.update((row.id, *row.aliases))
        raise InputError(f"unknown {where}", mend=nearest(name, sorted(known)))

    def summary(self, path: Path) -> HardwareSummary:
        try:
            data = self.document(path)
            device = data.get("device")
            return HardwareSummary.model_validate(
                {key: data[key] for key in HardwareSummary.model_fields if key in data and key not in ("device", "fault")}
                | {"id": data.get("id", path.stem), "device": device if isinstance(device, str) else ""}
            )
        except InputError as error:
            return HardwareSummary(id=path.stem, fault=str(error))
        except ValidationError as error:
            return HardwareSummary(id=path.stem, fault=str(explain_validation(error, str(path))))

    def document(self, path: Path) -> dict[str, Any]:
        """The table of a file joined onto the base that it extends."""
        return self._joined(path, ())

    def _raw(self, path: Path) -> dict[str, Any]:
        key = Path(os.path.abspath(path))
        if key not in self._documents:
            self._documents[key] = parse_toml(read_text(path, max_bytes=MAX_PROFILE_BYTES), str(path))
        return self._documents[key]

    def _joined(self, path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
        data = dict(self._raw(path))
        extends = data.pop("extends", None)
        if extends is None:
            return data
        chain = (*seen, path.resolve())
        base = self._reference(extends, path, "extends")
        if base.resolve() in chain:
            names = " -> ".join(step.stem for step in (*chain, base))
            raise InputError(f"extends: the profiles extend one another in a circle ({names})", where=str(path), mend="break it")
        if len(chain) >= MAX_EXTENDS:
            raise InputError(f"extends: more than {MAX_EXTENDS} profiles in a row", where=str(path), mend="shorten the chain")
        inherited = {key: value for key, value in self._joined(base, chain).items() if key not in ("id", "aliases")}
        joined = _merge(inherited, data)
        if not isinstance(joined, dict):
            raise InputError("extends: nothing to join", where=str(path))
        return joined

    def _reference(self, name: object, path: Path, key: str) -> Path:
        """The file that ``extends`` or ``device`` of the profile at ``path`` names; only the catalogue or below its folder."""
        if not isinstance(name, str) or not name or len(name) > 256:
            raise InputError(f"{key}: expected the id of a profile", where=str(path), mend="write it as a string")
        if not name.endswith(".toml"):
            if not _ID.fullmatch(name):
                raise InputError(f"{key}: {name!r} is no profile id", where=str(path), mend="use an id or a relative .toml path")
            beside = path.parent / f"{name}.toml"
            if beside.is_file() and beside.resolve() != path.resolve() and self._below(beside, path):
                return beside
            want = "device" if key == "device" else self._raw(path).get("kind", "system")
            return self.resolve(name, where=f"profile {name!r} in {key}", want=want)
        target = path.parent / name
        if Path(name).is_absolute() or not self._below(target, path):
            raise InputError(f"{key}: {name!r} leaves the folder of the profile", where=str(path), mend="keep the file below it")
        return target

    @staticmethod
    def _below(target: Path, path: Path) -> bool:
        return target.resolve().is_relative_to(path.parent.resolve())

    def read(self, path: Path, kind: type[_Profile]) -> _Profile:
        """The profile of that kind; any fault is one ``InputError`` that names file and key."""
        where = str(path)
        data = self.document(path)
        found = data.get("kind")
        if found not in ("device", "node", "rack"):
            raise InputError(f"kind: expected device, node or rack, got {found!r}", where=where, mend="correct it")
        if (found == "device") != (kind is DeviceProfile):
            what = "a device, not a system" if found == "device" else "a system, not a device"
            raise InputError(f"is {what}", where=where, mend="see planner list hardware")
        if data.get("schema") != 1:
            raise InputError(f"schema: expected 1, got {data.get('schema')!r}", where=where, mend="write schema = 1")
        if kind is System:
            data = self._with_device(data, path)
        try:
            return kind.model_validate(data)
        except ValidationError as error:
            raise explain_validation(error, where) from None

    def _with_device(self, data: dict[str, Any], path: Path) -> dict[str, Any]:
        """Put the device's compute in place of its id, and its memory before the system's own tiers."""
        reference = data.get("device")
        if isinstance(reference, dict):
            return _from_toml(data)
        if reference is None:
            raise InputError("device: is missing", where=str(path), mend="name the device's profile")
        device = self.read(self._reference(reference, path, "device"), DeviceProfile)
        data = _from_toml(data)
        own = data.get("tiers", [])
        if not isinstance(own, list):
            raise InputError("tier: expected [[tier]] tables", where=str(path), mend="write [[tier]]")
        if any(isinstance(tier, dict) and tier.get("role") == "device" for tier in own):
            raise InputError("tier: device memory belongs in the device's profile", where=str(path), mend="move it there")
        values = {name: getattr(device, name) for name in Device.model_fields}
        return data | {"device": Device.model_construct(**values), "tiers": [*device.memory, *own]}


def _from_toml(data: dict[str, Any]) -> dict[str, Any]:
    """TOML writes one table per ``[[tier]]``; the object holds ``tiers``."""
    plural = {"tier": "tiers", "link": "links", "domain": "domains"}
    return {plural.get(key, key): value for key, value in data.items()}


def _merge(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``: tables join, rows with an id join by id, a figure or curve is replaced as a whole."""
    if isinstance(base, dict) and isinstance(over, dict) and not {"value", "points"} & set(over):
        return base | {key: _merge(base[key], value) if key in base else value for key, value in over.items()}
    if _rows(base) and _rows(over):
        joined = {row["id"]: row for row in base}
        for row in over:
            joined[row["id"]] = _merge(joined[row["id"]], row) if row["id"] in joined else row
        return list(joined.values())
    return over


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in value)


def to_toml(profile: System | DeviceProfile) -> str:
    """The whole profile as TOML, nothing left to other files; reading it gives an equal object."""
    singular = {"tiers": "tier", "links": "link", "domains": "domain", "schema_version": "schema"}
    lines: list[str] = []
    _write_table(profile, "", lines, singular)
    return "\n".join(lines).strip() + "\n"


def _write_table(part: BaseModel, prefix: str, lines: list[str], singular: dict[str, str]) -> None:
    nested: list[tuple[str, Any]] = []
    for key, value in part:
        name = singular.get(key, key)
        if value is None or (isinstance(value, tuple | dict) and not value):
            continue
        if isinstance(value, Figure):
            lines.append(f"{name} = {_figure(key, value)}")
        elif isinstance(value, BaseModel | dict) or (isinstance(value, tuple) and isinstance(value[0], BaseModel)):
            nested.append((prefix + name, value))
        else:
            lines.append(f"{name} = {_literal(value)}")
    for name, value in nested:
        if isinstance(value, tuple):
            for row in value:
                lines.append(f"\n[[{name}]]")
                _write_table(row, f"{name}.", lines, singular)
        elif isinstance(value, dict):
            for key, row in value.items():
                lines.append(f"\n[{name}.{key}]")
                _write_table(row, f"{name}.{key}.", lines, singular)
        else:
            lines.append(f"\n[{name}]")
            _write_table(value, f"{name}.", lines, singular)


def _figure(key: str, figure: Figure) -> str:
    dimension = DIMENSIONS[key]
    parts = []
    for name, value in figure:
        if value is None or value == "":
            continue
        text = _literal(format_quantity(value, dimension)) if name in ("value", "low", "high") else _literal(value)
        parts.append(f"{name} = {text}")
    return "{ " + ", ".join(parts) + " }"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("NaN and Infinity are no figures")
    return repr(value)


__all__ = [
    "Curve", "HardwareSummary", "builtin_folder", "list_hardware", "load_device", "load_hardware", "read_profile", "to_toml",
]  # fmt: skip
