"""Profiles back to TOML."""

from __future__ import annotations

import json
import math
from datetime import date
from typing import Any

from pydantic import BaseModel

from planner.hardware.kinds import Profile
from planner.hardware.schema import DIMENSIONS
from planner.quantities import Figure, format_quantity


def to_toml(profile: Profile) -> str:
    """The whole profile as TOML, nothing left to other files; reading it gives an equal object."""
    singular = {"tiers": "tier", "links": "link", "domains": "domain", "capex_lines": "capex_line", "prices": "price"}
    singular |= {"rents": "rent", "schema_version": "schema"}
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
            lines.append(f"{name} = {literal(value)}")
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
    if not figure.known:
        parts = [f"unknown = {literal(figure.reason)}", f"as_of = {literal(figure.as_of)}"]
        if figure.has_default:
            stated = {"default": figure.value, "low": figure.lowest, "high": figure.highest}
            parts += [f"{name} = {literal(format_quantity(value, dimension))}" for name, value in stated.items()]
        return "{ " + ", ".join(parts) + " }"
    for name, value in figure:
        if value is None or value == "":
            continue
        text = literal(format_quantity(value, dimension)) if name in ("value", "low", "high") else literal(value)
        parts.append(f"{name} = {text}")
    return "{ " + ", ".join(parts) + " }"


def literal(value: Any) -> str:
    """A value as it stands in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("NaN and Infinity are no figures")
    return repr(value)
