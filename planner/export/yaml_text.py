"""YAML that readers of versions 1.1 and 1.2 read alike: every string is quoted, numbers are plain decimals.

A reader of 1.1 takes ``on``, ``NO`` and ``1:30`` for a boolean and a number, one of 1.2 takes ``8e12`` for a number; a string in
double quotes is a string to both (YAML 1.1 section 9.1, 1.2.2 section 7.3.1; JSON's escapes are a subset of theirs).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

Value = Mapping[str, "Value"] | Sequence["Value"] | str | int | float | bool | None
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_NOT_KEYS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null"])


def to_yaml(value: Value) -> str:
    """A document; ``ValueError`` for a number that is not finite."""
    return "\n".join(_lines(value)) + "\n"


def documents(values: Iterable[Value]) -> str:
    """Several documents in one file."""
    return "---\n".join(to_yaml(value) for value in values)


def _lines(value: Value) -> list[str]:
    if isinstance(value, Mapping) and value:
        return [line for key, part in value.items() for line in _entry(f"{_key(key)}:", part)]
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return [line for part in value for line in _item(part)]
    return [_scalar(value)]


def _entry(head: str, value: Value) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence) or not value:
        return [f"{head} {_scalar(value)}"]
    return [head, *(f"  {line}" for line in _lines(value))]


def _item(value: Value) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Mapping | Sequence) or not value:
        return [f"- {_scalar(value)}"]
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _key(key: str) -> str:
    plain = _PLAIN_KEY.fullmatch(key) and key.lower() not in _NOT_KEYS
    return key if plain else _quoted(key)


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    return "{}" if isinstance(value, Mapping) else "[]"


def _number(value: float) -> str:
    """With a point, and a signed exponent: both versions read that as a number."""
    if not math.isfinite(value):
        raise ValueError(f"{value} has no place in a file")
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    point = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{point}e{exponent if exponent[0] in '+-' else '+' + exponent}" if mark else point


def _quoted(text: str) -> str:
    """Double quotes, ASCII only: everything else is escaped (\\uD83D\\uDE00 pairs are no YAML, so \\U0001F600)."""
    out = []
    for char in text:
        number = ord(char)
        if number > 0xFFFF:
            out.append(f"\\U{number:08X}")
        elif number == 0x7F:
            out.append("\\x7F")
        elif 0xD800 <= number <= 0xDFFF:
            raise ValueError("half a character has no place in a file")
        else:
            out.append(json.dumps(char)[1:-1])
    return f'"{"".join(out)}"'
