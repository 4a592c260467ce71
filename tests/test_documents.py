"""Reading files of strangers, and writing whole files or none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.documents import MAX_BYTES, check_limits, explain_validation, parse_json, parse_toml, read_text, write_whole
from planner.errors import InputError, nearest


def refused(error: InputError, *words: str) -> None:
    text = str(error)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_a_text_file_is_read_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_text(path) == "x = 1\n"


def test_files_that_are_none_are_refused_with_their_name(tmp_path: Path) -> None:
    cases = {
        "missing": "no such file",
        "folder": "a folder",
        "pipe": "not a regular file",
        "latin": "not UTF-8 (byte 1)",
        "nul": "NUL",
    }
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"a\xe9")
    (tmp_path / "nul").write_bytes(b"a\0b")
    for name, message in cases.items():
        with pytest.raises(InputError) as caught:
            read_text(tmp_path / name)
        refused(caught.value, name, message)
    with pytest.raises(InputError):
        read_text(Path("/dev/zero"))
    with pytest.raises(InputError):
        read_text(Path("a\0b"))


def test_large_files_are_refused_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"a" * 101)
    assert len(read_text(path, max_bytes=101)) == 101
    with pytest.raises(InputError, match="larger than 100 bytes"):
        read_text(path, max_bytes=100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "not TOML"),
        ("x = 1\nx = 2", "not TOML"),
        ("x = " + "[" * 300 + "]" * 300, "nested too deeply"),
        ("x = " + "[" * 60 + "]" * 60, "nested too deeply"),
        (".".join("a" * 100) + " = 1", "a key of more than 48 dotted parts"),
        ("a." * 3000, "a key of more than 48 dotted parts"),
        ("x = { " + " . ".join(["'a'", '"b"', "c"] * 17) + " = 1 }", "a key of more than 48 dotted parts"),
        ('a."\\u001b[31m" = 1', "unprintable character U+001B"),
        ('a = ["\\u202e"]', "unprintable character U+202E"),
        ("x = 9223372036854775809", "beyond 64 bits"),
        ("x = 0x" + "f" * 5000, "beyond 64 bits"),
        ("x = inf", "not a finite number"),
        ("x = [1.0, nan]", "not a finite number"),
        ("x = 1e999", "not a finite number"),
    ],
)
def test_bad_toml(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_toml(text, "f.toml")
    refused(caught.value, "f.toml", message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ('{"a": -Infinity}', "-Infinity"),
        ('{"a": 1e999}', "not a finite number"),
        ('{"a": 1, "a": 2}', "'a' is repeated"),
        ("[" * 300, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("[" + "0," * 400_001 + "0]", "too many values"),
        ("[18446744073709551616]", "beyond 64 bits"),
        ("[" + "9" * 5000 + "]", "not JSON"),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(text, "f.json")
    refused(caught.value, "f.json", message)


def test_hostile_files_of_the_allowed_size_are_refused_quickly() -> None:
    """Each of these once took time quadratic in its size: minutes for 8 MiB."""
    keys = 150_000
    repeated = "{" + ",".join(f'"{i}":0' for i in range(keys)) + f',"{keys - 1}":0}}'
    dotted = ".".join(["a"] * (MAX_BYTES // 4)) + " = 1"
    start = time.process_time()
    with pytest.raises(InputError, match="is repeated"):
        parse_json(repeated, "f")
    with pytest.raises(InputError, match="dotted parts"):
        parse_toml(dotted, "f")
    assert time.process_time() - start < 5.0


@given(st.text(max_size=200))
def test_any_text_parses_or_is_an_input_error(text: str) -> None:
    for parse in (parse_toml, parse_json):
        try:
            parse(text, "f")
        except InputError as error:
            refused(error, "f")


printable = st.text(max_size=8).filter(str.isprintable)
tree = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | printable,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(printable, inner, max_size=4),
    max_leaves=20,
)


@given(tree)
def test_law_6_json_round_trip(value: object) -> None:
    assert parse_json(json.dumps(value), "f") == value
    check_limits(value, "f")


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: Annotated[int, Field(ge=1)]


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: tuple[Inner, ...]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "f: parts: is missing; add it"),
        ({"parts": [{"size": 1}], "prats": 1}, "f: prats: unknown key; remove it or correct its spelling"),
        ({"parts": [{"size": 1}, {"size": 0}]}, "f: parts.1.size: Input should be greater than or equal to 1"),
    ],
)
def test_a_validation_error_becomes_one_line(data: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(data)
    assert str(explain_validation(caught.value, "f")) == message


def test_writing_is_whole_and_never_overwrites_unasked(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_whole(path, "one é\n")
    assert path.read_bytes() == "one é\n".encode()
    with pytest.raises(InputError, match=r"exists already; choose another name or add --force"):
        write_whole(path, "two")
    assert path.read_text(encoding="utf-8") == "one é\n"
    write_whole(path, "two", force=True)
    assert path.read_text(encoding="utf-8") == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / "no" / "plan.json", "x")
    with pytest.raises(UnicodeEncodeError):
        write_whole(tmp_path / "plan.json", "\ud800")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError):
        write_whole(tmp_path / "folder", "x", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_result_is_written_where_hard_links_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    write_whole(tmp_path / "plan.json", "one")
    with pytest.raises(InputError, match="exists already"):
        write_whole(tmp_path / "plan.json", "two")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("plan.json", "one")]


def test_the_parts_of_all_dotted_keys_together_are_limited() -> None:
    text = "\n".join(f"k{i}." + ".".join("a" * 40) + " = 1" for i in range(600))
    with pytest.raises(InputError, match="keys of more than 20000 dotted parts"):
        parse_toml(text, "f")
    prose = "a = '" + "https://a.b.c.d/e.f, see 1.5 and 2.5. " * 4000 + "'"
    assert len(parse_toml(prose, "f")["a"]) > 100_000


def test_newlines_tabs_and_spaces_are_printable_enough() -> None:
    assert parse_toml('a = "b\\n\\t\u00a0c"', "f") == {"a": "b\n\t\u00a0c"}


def test_nearest_names_are_offered() -> None:
    assert nearest("h80-node", ["h800-node", "gb200-nvl72"]) == "did you mean h800-node?"
    assert nearest("zzz", ["b", "a"]) == "known: a, b"
    assert nearest("zzz", [str(i) for i in range(20)]).endswith(", …")
    assert str(InputError("a\nb", where="f", mend="c\n d")) == "f: a b; c d"
