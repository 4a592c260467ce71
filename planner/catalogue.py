"""Catalogues of small TOML files: look up by id or by path, list, with nearest names when unknown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError, nearest
from planner.plugins import registry

Entry = TypeVar("Entry", bound=BaseModel)

MAX_EXTENDS = 8
"""Entries that extend one another in a row."""


class Extending(BaseModel):
    """An entry whose file may name another one that it ``extends`` and then holds only what differs."""

    @classmethod
    def laid_over(cls, base: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """The tables of an entry on those of its base: tables of tables join, all else (a figure, a list) is replaced."""
        return _join(base, data)


def _join(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    joined = dict(base)
    for key, value in over.items():
        section = isinstance(value, dict) and all(isinstance(item, dict) for item in value.values())
        joined[key] = _join(base[key], value) if section and isinstance(base.get(key), dict) else value
    return joined


class Catalogue(Generic[Entry]):
    """TOML files ``ID.toml``, each an ``Entry`` whose ``id`` is the file's stem.

    They lie in one folder or, given the ``group`` of a plugin registry in its place, in those of its packs: planner's own
    first, others looked for only when a name is not there. A file of another package that cannot be used is on record
    with the registry and left out when the catalogue is listed. Where ``Entry`` is ``Extending`` a file may extend another entry.
    """

    def __init__(self, place: Path | str, entry: type[Entry], what: str) -> None:
        self.group, self.entry, self.what = "" if isinstance(place, Path) else place, entry, what
        self._place = place

    @cached_property
    def folder(self) -> Path:
        """The folder of planner's own entries."""
        return self._place if isinstance(self._place, Path) else registry(self._place).folder("builtin")

    @cached_property
    def _own(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted(self.folder.glob("*.toml"))}

    @cached_property
    def _others(self) -> dict[str, tuple[str, Path]]:
        """The pack and the file of each entry of other packages."""
        found: dict[str, tuple[str, Path]] = {}
        for pack, folder in registry(self.group).other_folders().items() if self.group else ():
            for path in sorted(folder.glob("*.toml")):
                taken = "a built-in" if path.stem in self._own else found[path.stem][0] if path.stem in found else ""
                if taken:
                    registry(self.group).report(pack, f"{path}: the name belongs to {taken}")
                else:
                    found[path.stem] = (pack, path)
        return found

    @property
    def ids(self) -> list[str]:
        """The ids, sorted."""
        return sorted({*self._own, *self._others})

    def load(self, name: str) -> Entry:
        """The entry of that id, or read from that path if it ends in ``.toml``."""
        if name in self._own:
            return self._named(self._own[name], name)
        if name.endswith(".toml"):
            return self._read(Path(name), name)
        if name in self._others:
            path = self._others[name][1]
            return self._named(path, str(path))
        raise InputError(f"unknown {self.what} {name[:64]!r}", mend=nearest(name[:64], self.ids))

    def __iter__(self) -> Iterator[Entry]:
        for name in self.ids:
            try:
                entry = self.load(name)
            except InputError as error:
                if name in self._own:
                    raise
                registry(self.group).report(self._others[name][0], str(error))
            else:
                yield entry

    def _named(self, path: Path, where: str) -> Entry:
        entry = self._read(path, where)
        if getattr(entry, "id", path.stem) != path.stem:
            raise InputError("id: is not the name of the file", where=where, mend=f"write {path.stem!r}, or rename the file")
        return entry

    def _joined(self, path: Path, where: str, chain: tuple[Path, ...]) -> dict[str, Any]:
        """The table of a file, laid over that of the entry it extends."""
        data = parse_toml(read_text(path), where)
        if "extends" not in data or not issubclass(self.entry, Extending):
            return data
        name = data.pop("extends")
        if not isinstance(name, str):
            raise InputError(f"extends: expected the id of a {self.what}", where=where, mend="write it as a string")
        base = self._own.get(name) or self._others.get(name, ("", None))[1]
        if base is None:
            raise InputError(f"extends: unknown {self.what} {name[:64]!r}", where=where, mend=nearest(name[:64], self.ids))
        chain = (*chain, path)
        if base in chain:
            circle = " -> ".join(step.stem for step in (*chain, base))
            raise InputError(f"extends: they extend one another in a circle ({circle})", where=where, mend="break it")
        if len(chain) > MAX_EXTENDS:
            raise InputError(f"extends: more than {MAX_EXTENDS} in a row", where=where, mend="shorten the chain")
        return self.entry.laid_over(self._joined(base, str(base), chain), data)

    def _read(self, path: Path, where: str) -> Entry:
        data = self._joined(path, where, ())
        try:
            return self.entry.model_validate(data)
        except ValidationError as error:
            raise explain_validation(error, where) from None
