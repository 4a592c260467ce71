"""Catalogues of small TOML files: look up by id or alias, by path, list, with nearest names when unknown."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from planner.documents import explain_validation, parse_toml, read_text
from planner.errors import InputError, nearest

Entry = TypeVar("Entry", bound=BaseModel)


class Catalogue(Generic[Entry]):
    """One folder of TOML files ``ID.toml``, each an ``Entry`` whose ``id`` is the file's stem."""

    def __init__(self, folder: Path, entry: type[Entry], what: str) -> None:
        self.folder, self.entry, self.what = folder, entry, what

    @cached_property
    def ids(self) -> list[str]:
        """The ids, sorted."""
        return sorted(path.stem for path in self.folder.glob("*.toml"))

    def load(self, name: str) -> Entry:
        """The entry of that id, or read from that path if it ends in ``.toml``."""
        if name in self.ids:
            return self._read(self.folder / f"{name}.toml", name)
        if name.endswith(".toml"):
            return self._read(Path(name), name)
        raise InputError(f"unknown {self.what} {name[:64]!r}", mend=nearest(name[:64], self.ids))

    def __iter__(self) -> Iterator[Entry]:
        return (self.load(name) for name in self.ids)

    def _read(self, path: Path, where: str) -> Entry:
        data: dict[str, Any] = parse_toml(read_text(path), where)
        try:
            return self.entry.model_validate(data)
        except ValidationError as error:
            raise explain_validation(error, where) from None
