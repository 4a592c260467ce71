"""Reading untrusted files with limits, and writing results whole or not at all."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tempfile
import tomllib
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from pydantic import ValidationError

from planner.errors import InputError, nearest

MAX_BYTES = 8 * 2**20
MAX_DEPTH = 48
MAX_NODES = 400_000
MAX_YAML_CHARACTERS = 65_536
"""The parser is slow: some seconds for so many."""
MAX_KEY_PARTS = 20_000
"""Parts of all dotted keys of a TOML text together: each may become a table."""

_BARE_OR_QUOTED = r"""(?:[A-Za-z0-9_-]++|(?<!\\)"(?:\\.|[^"\\\n])*+"|'[^'\n]*+')"""
_KEY_PART = re.compile(_BARE_OR_QUOTED)
_DOTTED_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_BARE_OR_QUOTED}(?:[ \t]*+\.[ \t]*+{_BARE_OR_QUOTED})++")
_KEY_END = re.compile(r"[ \t]*+[=\]]")


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The UTF-8 text of a regular file of at most ``max_bytes``; anything else is an ``InputError``."""
    where = str(path)
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0))) as handle:
            if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise InputError("is not a regular file", where=where, mend="name a file")
            data = handle.read(max_bytes + 1)
    except FileNotFoundError:
        raise InputError("no such file", where=where, mend="check the path") from None
    except IsADirectoryError:
        raise InputError("is a folder", where=where, mend="name a file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({getattr(error, 'strerror', None) or error})", where=where) from None
    if len(data) > max_bytes:
        raise InputError(f"is larger than {max_bytes} bytes", where=where, mend="this does not look like the right file")
    return decode(data, where)


def decode(data: bytes, where: str) -> str:
    """UTF-8 bytes (a byte-order mark is dropped) to text, without NUL."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 (byte {error.start})", where=where, mend="save it as UTF-8") from None
    if "\0" in text:
        raise InputError("holds a NUL character", where=where, mend="save it as UTF-8 text")
    return text


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """TOML text to a table, with limits on nesting and size."""
    _refuse_deep_brackets(text, where)
    _refuse_long_keys(text, where)
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, OverflowError) as error:
        raise InputError(f"is not TOML: {error}", where=where, mend="correct that line") from None
    check_limits(data, where)
    return data


def parse_json(text: str, where: str) -> Any:
    """JSON text to a value, with limits on nesting and size; NaN, Infinity and repeated keys are refused."""
    _refuse_deep_brackets(text, where)

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            for key, _ in pairs:
                if key in seen:
                    raise ValueError(f"key {key[:64]!r} is repeated")
                seen.add(key)
        return table

    try:
        data = json.loads(text, parse_constant=constant, object_pairs_hook=unique)
    except (RecursionError, ValueError) as error:
        raise InputError(f"is not JSON: {error}", where=where, mend="correct the file") from None
    check_limits(data, where)
    return data


def parse_yaml(text: str, where: str) -> Any:
    """YAML text of one document to plain values: no tags, no aliases, no repeated keys, with limits on nesting and size."""
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
    except ImportError:
        what = "cannot be read: the package ruamel.yaml is not installed"
        raise InputError(what, where=where, mend="pip install 'inference-planner[yaml]'") from None
    if len(text) > MAX_YAML_CHARACTERS:
        what = f"is larger than {MAX_YAML_CHARACTERS} characters"
        raise InputError(what, where=where, mend="this does not look like the right file")
    _refuse_deep_brackets(text, where)
    try:
        depth = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            if isinstance(event, AliasEvent):
                raise InputError("repeats a value by an alias", where=where, mend="write the value out")
            if isinstance(event, CollectionStartEvent | ScalarEvent) and event.tag not in (None, "!"):
                raise InputError(f"has the tag {str(event.tag)[:48]!r}", where=where, mend="write plain values")
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise InputError("is nested too deeply", where=where, mend="this does not look like the right file")
        with warnings.catch_warnings(action="ignore"):
            data = YAML(typ="safe", pure=True).load(text)
    except InputError:
        raise
    except Exception as error:  # the parser raises more kinds than its own on damaged text
        mark = getattr(error, "problem_mark", None)
        reason = str(error) if mark is None else f"{getattr(error, 'problem', error)} (line {mark.line + 1})"
        raise InputError(f"is not YAML: {reason[:200]}", where=where, mend="correct that line") from None
    check_limits(data, where)
    return data


def _refuse_deep_brackets(text: str, where: str) -> None:
    """Nested brackets cost the parsers quadratic time or their stack; count them before parsing."""
    depth = 0
    for char in text:
        if char in "[{":
            depth += 1
            if depth > 4 * MAX_DEPTH:
                raise InputError("is nested too deeply", where=where, mend="this does not look like the right file")
        elif char in "]}" and depth:
            depth -= 1


def _refuse_long_keys(text: str, where: str) -> None:
    """Dotted keys cost the parser time quadratic in their parts, and memory for a table each; count them before parsing."""
    many = text.count(".") > MAX_KEY_PARTS
    total = 0
    for line in text.split("\n"):
        if not many and line.count(".") <= MAX_DEPTH:
            continue
        for key in _DOTTED_KEY.finditer(line):
            parts = sum(1 for _ in _KEY_PART.finditer(key[0]))
            total += parts if _KEY_END.match(line, key.end()) else 0
            if parts > MAX_DEPTH or total > MAX_KEY_PARTS:
                most = f"a key of more than {MAX_DEPTH}" if parts > MAX_DEPTH else f"keys of more than {MAX_KEY_PARTS}"
                raise InputError(f"has {most} dotted parts", where=where, mend="this does not look like the right file")


def _refuse_unprintable(text: str, where: str) -> None:
    """Escape sequences and marks of direction could make a terminal show what is not there."""
    if text.isprintable():
        return
    for char in text:
        if not (char.isprintable() or char in "\n\t" or unicodedata.category(char) == "Zs"):
            what = f"holds the unprintable character U+{ord(char):04X} in {ascii(text[:48])}"
            raise InputError(what, where=where, mend="write plain text")


def check_limits(data: object, where: str) -> None:
    """Refuse values nested deeper than ``MAX_DEPTH``, with more than ``MAX_NODES`` parts, huge integers, infinite floats, and
    characters in text or keys that cannot be printed (but for newlines and tabs).
    """
    stack: list[tuple[object, int]] = [(data, 0)]
    nodes = 0
    while stack:
        value, depth = stack.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise InputError("is nested too deeply", where=where, mend="this does not look like the right file")
        if nodes > MAX_NODES:
            raise InputError("holds too many values", where=where, mend="this does not look like the right file")
        if isinstance(value, dict):
            for key in value:
                if isinstance(key, str):
                    _refuse_unprintable(key, where)
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, str):
            _refuse_unprintable(value, where)
        elif isinstance(value, list):
            stack.extend((item, depth + 1) for item in value)
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**63:
            raise InputError(f"holds an integer beyond 64 bits ({hex(value)[:14]}…)", where=where, mend="correct the number")
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"holds {value!r}, which is not a finite number", where=where, mend="correct the number")


def explain_validation(error: ValidationError, where: str) -> InputError:
    """The first fault of a pydantic validation as one line: file, key, what, how to mend."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    mend = {
        "extra_forbidden": "remove it or correct its spelling",
        "missing": "add it",
    }.get(first["type"], "") or mend_of(first)
    message = {"extra_forbidden": "unknown key", "missing": "is missing"}.get(first["type"], message)
    return InputError(f"{key}: {message}" if key else message, where=where, mend=mend)


def mend_of(found: Any) -> str:
    """How to mend a fault of pydantic's, by what was given: a list in place of a text, the nearest of the words allowed."""
    given, words = found.get("input"), re.findall(r"'([^']*)'", str((found.get("ctx") or {}).get("expected", "")))
    key = str(found["loc"][-1]) if found["loc"] else ""
    if found["type"] in ("tuple_type", "list_type") and isinstance(given, str) and len(given) <= 64:
        return f"write it as a list: {key} = {json.dumps([given], ensure_ascii=False)}"
    if found["type"] == "literal_error" and isinstance(given, str) and words:
        near = nearest(given[:64], words, 1)
        return near if near.startswith("did") else ""
    return ""


def check_target(path: Path, *, force: bool = False) -> None:
    """``InputError`` if a result cannot go to ``path``. Folders, devices and pipes are never replaced, even with ``force``."""
    where = str(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise InputError("cannot be written: its folder does not exist", where=where, mend="make it first") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be written ({reason})", where=where[:200], mend="choose another name") from None
    else:
        if not stat.S_ISREG(mode):
            raise InputError("is not a regular file", where=where, mend="name a file")
        if not force:
            raise InputError("exists already", where=where, mend="choose another name or add --force")


def write_whole(path: Path, text: str | bytes, *, force: bool = False) -> None:
    """Write a file completely or not at all; an existing one only with ``force``."""
    with whole_file(path, force=force) as handle:
        handle.write(text.encode() if isinstance(text, str) else text)


@contextmanager
def whole_file(path: Path, *, force: bool = False) -> Iterator[IO[bytes]]:
    """A new file to write bytes to, which gets its name when all is written; an existing one is replaced only with ``force``."""
    check_target(path, force=force)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise InputError(f"cannot be written ({error.strerror})", where=str(path), mend="check the folder") from None
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
        os.chmod(temporary, 0o666 & ~_umask())
        if force:
            os.replace(temporary, path)
        else:
            _place_new(temporary, path)
    except OSError as error:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise InputError(f"cannot be written ({error.strerror})", where=str(path), mend="check the folder") from None
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def _place_new(temporary: str, path: Path) -> None:
    """Give the finished file its name unless something has it by now; where no hard links are known, by taking the name first."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
