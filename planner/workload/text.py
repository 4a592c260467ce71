"""A workload as the text of its file."""

from __future__ import annotations

from typing import Any

from planner.documents import parse_toml
from planner.workload.schema import Workload

_TABLES = ("arrivals", "prefix_cache")
_INLINE = ("input_tokens", "output_tokens", "experts", "lookups")


def to_toml(workload: Workload, about: str = "") -> str:
    """The file's text, what is left at its default left out; reading it gives an equal workload. ``about``: a comment on top.

    ``InputError`` for text that cannot be printed.
    """
    from planner.hardware.writer import literal

    data = workload.model_dump(by_alias=True, exclude_defaults=True)
    lines = [f"# {about}"] if about else []
    lines.append(f"schema = {workload.schema_version}")
    data.pop("schema", None)
    for key, value in data.items():
        if key in _INLINE:
            lines.append(f"{key} = {_inline(value)}")
        elif key not in _TABLES:
            lines.append(f"{key} = {literal(value)}")
    for table in _TABLES:
        if data.get(table):
            lines += ["", f"[{table}]"]
            for key, value in data[table].items():
                lines += _rows(key, value) if key == "curve" else [f"{key} = {literal(value)}"]
    text = "\n".join(lines) + "\n"
    parse_toml(text, "workload")
    return text


def _inline(table: dict[str, Any]) -> str:
    from planner.hardware.writer import literal

    return "{ " + ", ".join(f"{key} = {literal(value)}" for key, value in table.items()) + " }"


def _rows(key: str, rows: Any) -> list[str]:
    from planner.hardware.writer import literal

    return [f"{key} = [", *(f"  {literal(row)}," for row in rows), "]"]
