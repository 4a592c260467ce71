"""Reading a command's words by a snapshot of an engine's options."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planner.errors import InputError, nearest

_NEGATIVE = re.compile(r"^-[0-9.]")
_SUFFIXED = frozenset(("max-model-len", "max-num-batched-tokens", "kv-cache-memory-bytes"))
"""Whole numbers that vLLM also takes as 32k (thousands) or 32K (1024s) (human_readable_int, vllm/utils/argparse_utils.py)."""
_SUFFIX = re.compile(r"([0-9]+)(?:(\.[0-9]+)?([kmgt])|([KMGT]))")


@dataclass(frozen=True)
class Option:
    """One option: ``names`` without dashes, the last the longest; ``kind``: switch, int, float, str or json."""

    names: tuple[str, ...]
    kind: str
    choices: tuple[str, ...] = ()
    many: bool = False
    deprecated: bool = False

    @property
    def name(self) -> str:
        """The first long name, which the engine's own documentation uses; negations come after it."""
        return next((name for name in self.names if len(name) > 2), self.names[0])


@dataclass(frozen=True, eq=False)
class EngineOptions:
    """All options of one version of an engine; ``fields``: of options that take JSON, by option and field."""

    engine: str
    version: str
    options: tuple[Option, ...]
    fields: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def find(self, name: str) -> Option | None:
        """The option of a name, written with dashes or underscores, or cut short where one is left (argparse's rule)."""
        known, name = _by_name(self), name.replace("_", "-")
        if name in known or len(name) < 2:
            return known.get(name)
        meant = {option.names: option for full, option in known.items() if full.startswith(name)}
        return next(iter(meant.values())) if len(meant) == 1 else None


@dataclass(frozen=True)
class Fault:
    """What the engine would refuse."""

    word: str
    reason: str


@cache
def _by_name(options: EngineOptions) -> dict[str, Option]:
    return {name.replace("_", "-"): option for option in options.options for name in option.names}


@cache
def load_options(engine: str) -> EngineOptions:
    """The snapshot of an engine; ``InputError`` if there is none."""
    path = Path(__file__).parent / f"{engine}.json"
    data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if "options" not in data:
        known = sorted(found.stem for found in path.parent.glob("*.json") if found != path)
        raise InputError(f"no options of engine {engine[:32]!r} are known", mend=nearest(engine[:32], known))
    rows = (
        Option(
            tuple(row["names"]), row["kind"], tuple(row.get("choices", ())), row.get("many", False), row.get("deprecated", False)
        )
        for row in data["options"]
    )
    return EngineOptions(data["engine"], data["version"], tuple(rows), data.get("json", {}))


def parse_words(options: EngineOptions, words: Sequence[str]) -> tuple[dict[str, Any], list[str], list[Fault]]:
    """``(option to value, words that are no options, faults)``. A switch that is negated gives ``False``; JSON is read, dotted
    names (``--engram-config.cpu_offload true``) and repeated JSON options add to one object."""
    found: dict[str, Any] = {}
    rest: list[str] = []
    faults: list[Fault] = []
    queue = _pairs(words)
    for flag, inline, following in queue:
        if flag is None:
            rest.append(inline or "")
            continue
        name, _, field = flag.partition(".")
        option = options.find(name)
        if option is None:
            near = nearest(name[:64], sorted(_by_name(options)))
            faults.append(Fault(f"--{flag}", f"{options.engine} {options.version} has no such option; {near}"))
            continue
        if option.deprecated:
            faults.append(Fault(f"--{flag}", "is deprecated"))
        if option.kind == "switch" and not field:
            found[option.name] = _affirms(option, name.replace("_", "-"))
            rest += [] if inline is None else [inline]
            continue
        values = [inline] if inline is not None else following.take(option.many)
        if not values:
            faults.append(Fault(f"--{flag}", "wants a value"))
            continue
        value, reason = _value(options, option, field, values)
        if reason:
            faults.append(Fault(f"--{flag}", reason))
        elif isinstance(value, dict) and isinstance(found.get(option.name), dict):
            found[option.name] = {**found[option.name], **value}
        else:
            found[option.name] = value
    return found, rest, faults


def _affirms(option: Option, name: str) -> bool:
    """Whether a switch's name sets it: the later of two names that differ by ``no-`` or ``disable-`` negates the first."""
    first = option.name
    negations = {new + first.removeprefix(old) for new, old in (("no-", ""), ("disable-", "enable-"), ("enable-", "disable-"))}
    return name not in negations - {first}


class _Following:
    """The words after an option, up to the next one."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def take(self, many: bool) -> list[str]:
        count = 0
        for word in self.words:
            if word.startswith("-") and not _NEGATIVE.match(word) or (count and not many):
                break
            count += 1
        taken, self.words[:] = self.words[:count], self.words[count:]
        return taken


def _pairs(words: Sequence[str]) -> Iterator[tuple[str | None, str | None, _Following]]:
    left = list(words)
    following = _Following(left)
    while left:
        word = left.pop(0)
        if word.startswith("-") and len(word) > 1 and not _NEGATIVE.match(word):
            flag, equals, value = word.lstrip("-").partition("=")
            yield flag, value if equals else None, following
        else:
            yield None, word, following


def _value(options: EngineOptions, option: Option, field: str, values: list[str]) -> tuple[Any, str]:
    text = values[0]
    known = options.fields.get(option.name)
    if field:
        if known is not None and field.split(".")[0] not in known:
            return None, f"has no field {field[:64]!r}"
        return {field: _plain(text)}, ""
    if known is not None or option.kind == "json":
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            return None, "is not JSON"
        return data, _faulty_fields(known, data)
    if option.many:
        return values, _choice(option, values)
    try:
        number: Any = _whole(option, text) if option.kind == "int" else float(text) if option.kind == "float" else text
    except ValueError:
        return None, f"wants {'a whole number' if option.kind == 'int' else 'a number'}, not {text[:64]!r}"
    return number, _choice(option, [text])


def _whole(option: Option, text: str) -> int:
    """``ValueError`` where it is none."""
    if option.name == "max-model-len" and text == "auto":
        return -1
    found = _SUFFIX.fullmatch(text) if option.name in _SUFFIXED and len(text) < 32 else None
    if found is None:
        return int(text)
    whole, part, small, large = found.groups()
    return (
        int(whole) << 10 * ("KMGT".index(large) + 1)
        if large
        else int(float(whole + (part or "")) * 1000 ** ("kmgt".index(small) + 1))
    )


def _plain(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _choice(option: Option, values: list[str]) -> str:
    wrong = [value for value in values if option.choices and value not in option.choices]
    return f"{wrong[0][:64]!r} is none of {', '.join(option.choices)}" if wrong else ""


_KINDS: dict[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,), "dict": (dict,)}


def _faulty_fields(known: Mapping[str, Mapping[str, Any]] | None, data: Any) -> str:
    if known is None:
        return ""
    if not isinstance(data, dict):
        return "wants a JSON object"
    for name, value in data.items():
        if name not in known:
            return f"has no field {name[:64]!r}"
        field = known[name]
        if value is None:
            continue
        if field.get("choices") and str(value) not in field["choices"]:
            return f"{name}: {str(value)[:64]!r} is none of {', '.join(field['choices'])}"
        kinds = _KINDS.get(field["kind"])
        if kinds is not None and not isinstance(value, kinds):
            return f"{name}: wants {field['kind']}"
    return ""
