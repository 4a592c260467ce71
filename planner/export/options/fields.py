"""Reading a configuration by a snapshot of an engine's configuration classes; closed: what they do not name is a fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planner.errors import InputError, nearest
from planner.export.options.words import Fault

_PLAIN: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


@dataclass(frozen=True, eq=False)
class ConfigFields:
    """Classes of one version of an engine, by class and field a row with ``type`` (``.ci/config_fields.py`` says how types are
    written) and ``status``; ``root``: the class of a whole file; ``connectors``: names that the engine registers."""

    engine: str
    version: str
    root: str
    classes: Mapping[str, Mapping[str, Mapping[str, Any]]]
    connectors: tuple[str, ...] = ()


@cache
def load_fields(engine: str) -> ConfigFields:
    """The snapshot of an engine's classes; ``InputError`` if there is none."""
    path = Path(__file__).parent / f"{engine}.json"
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "classes" not in data:
        raise InputError(f"no configuration classes of engine {engine[:32]!r} are known")
    return ConfigFields(data["engine"], data["version"], data["root"], data["classes"], tuple(data.get("connectors", ())))


def config_faults(fields: ConfigFields, data: Any, root: str | None = None) -> list[Fault]:
    """What the engine would refuse of a file's content, or find deprecated; ``root``: another class than a whole file's."""
    return list(_class_faults(fields, data, root or fields.root, ""))


def _class_faults(fields: ConfigFields, data: Any, name: str, where: str) -> Iterator[Fault]:
    if not isinstance(data, Mapping):
        yield Fault(where or name, "wants a mapping")
        return
    known = fields.classes[name]
    for key, value in data.items():
        place = f"{where}.{key}" if where else str(key)
        if key not in known:
            near = nearest(str(key)[:64], sorted(known))
            yield Fault(place, f"{fields.engine} {fields.version}: {name} has no such field; {near}")
            continue
        if known[key].get("status") == "deprecated":
            yield Fault(place, "is deprecated")
        yield from _faults(fields, value, known[key]["type"], place)


def _faults(fields: ConfigFields, value: Any, kind: Any, where: str) -> Iterator[Fault]:
    kinds = kind if isinstance(kind, list) else [kind]
    if any(_is(value, one) for one in kinds):
        for one in (one for one in kinds if isinstance(one, dict) and _is(value, one)):
            yield from _inner_faults(fields, value, one, where)
        return
    yield Fault(where, f"wants {' or '.join(_said(one) for one in kinds)}, not {str(value)[:64]!r}")


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, whatever lies within it. A truth value is no number, as in YAML and JSON."""
    if isinstance(kind, dict):
        if "one of" in kind:
            return any(value == one and type(value) is type(one) for one in kind["one of"])
        return isinstance(value, list if "list" in kind else Mapping)
    if kind in ("any", "null"):
        return kind == "any" or value is None
    return isinstance(value, _PLAIN[kind]) and (kind == "bool" or not isinstance(value, bool))


def _inner_faults(fields: ConfigFields, value: Any, kind: Mapping[str, Any], where: str) -> Iterator[Fault]:
    if "class" in kind:
        yield from _class_faults(fields, value, kind["class"], where)
    elif "list" in kind:
        for number, part in enumerate(value):
            yield from _faults(fields, part, kind["list"], f"{where}[{number}]")
    elif "dict" in kind:
        for key, part in value.items():
            yield from _faults(fields, key, kind["dict"][0], f"{where}.{key}")
            yield from _faults(fields, part, kind["dict"][1], f"{where}.{key}")


def _said(kind: Any) -> str:
    if isinstance(kind, str):
        return kind
    if "one of" in kind:
        return f"one of {', '.join(str(word) for word in kind['one of'])}"
    return "a list" if "list" in kind else "a mapping"
