"""Tables of profiles before they are objects: their kind and size, joined with the base they extend, named rows in messages."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

from planner.documents import explain_validation
from planner.errors import InputError
from planner.hardware.compose import without_replaced
from planner.hardware.kinds import EXPECTED, SCHEMAS

MAX_ROWS = 256
"""Entries of any one list or table of a profile."""


def explain(error: ValidationError, where: str, data: dict[str, Any]) -> InputError:
    """The first fault, with the id of a row in place of its number."""
    fault = explain_validation(error, where)
    return InputError(label_rows(fault.what, data), where=where, mend=fault.mend)


def label_rows(text: str, data: dict[str, Any]) -> str:
    """``tiers.1.read`` at the start of a text as ``tier.host.read``."""

    def named(match: re.Match[str]) -> str:
        rows, number = data.get(match[1]), int(match[2])
        row = rows[number] if isinstance(rows, list | tuple) and number < len(rows) else None
        name = row.get("id") if isinstance(row, dict) else getattr(row, "id", None)
        return f"{match[1].removesuffix('s')}.{name}" if isinstance(name, str) else match[0]

    text = re.sub(r"^(tiers|links|domains|capex_lines|rents|memory)\.(\d+)", named, text)
    return re.sub(r"^(tier|link|domain|capex_line|rent)s\b(?=[.:])", r"\1", text)


def from_toml(data: dict[str, Any], where: str) -> dict[str, Any]:
    """TOML writes one table per ``[[tier]]``; the object holds ``tiers``."""
    plural = {"tier": "tiers", "link": "links", "domain": "domains", "capex_line": "capex_lines", "rent": "rents"}
    for one, many in plural.items():
        if many in data:
            raise InputError(f"{many}: unknown key", where=where, mend=f"write [[{one}]]")
    return {plural.get(key, key): value for key, value in data.items()}


def merge(base: Any, over: Any) -> Any:
    """``over`` laid on ``base``: tables join, rows with an id join by id, a figure or curve is replaced as a whole."""
    if isinstance(base, dict) and isinstance(over, dict) and not {"value", "points", "unknown"} & set(over):
        return base | {key: merge(base[key], value) if key in base else value for key, value in over.items()}
    if _rows(base) and _rows(over):
        joined = {row["id"]: row for row in base}
        for row in over:
            joined[row["id"]] = merge(without_replaced(joined[row["id"]], row), row) if row["id"] in joined else row
        return list(joined.values())
    return over


def _rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in value)


def kind_of(data: dict[str, Any], where: str) -> str:
    """The kind that a table says it is."""
    if not isinstance(found := data.get("kind"), str) or found not in SCHEMAS:
        raise InputError(f"kind: {EXPECTED}, got {found!r}", where=where, mend="correct it")
    return found


def refuse_schema(data: dict[str, Any], where: str) -> None:
    """Only the one schema there is."""
    if type(found := data.get("schema")) is not int or found != 1:
        raise InputError(f"schema: expected 1, got {found!r}", where=where, mend="write schema = 1")


def refuse_many(data: dict[str, Any], where: str) -> None:
    """No table of a profile has so many keys or rows; each could be a fault of its own."""
    stack: list[tuple[str, Any]] = [("", data)]
    while stack:
        key, value = stack.pop()
        if len(value) > MAX_ROWS:
            what = f"{key}: {len(value)} entries" if key else f"{len(value)} entries"
            raise InputError(what, where=where, mend=f"a table or list of a profile has at most {MAX_ROWS}")
        pairs = value.items() if isinstance(value, dict) else ((key, item) for item in value)
        stack += [(str(name), item) for name, item in pairs if isinstance(item, dict | list)]
