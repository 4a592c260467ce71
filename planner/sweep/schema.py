"""The JSON Schema of what ``planner sweep --format json`` prints, rows included."""

from __future__ import annotations

from typing import Any

from planner.sweep.rows import COLUMNS, STATUSES

_TYPES = {"text": "string", "whole": "integer", "number": "number", "truth": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}


def result_schema() -> dict[str, Any]:
    """Of a result; ``$defs.row`` is that of a line of results."""
    cells: dict[str, Any] = {
        column.name: {"type": [_TYPES[column.type], "null"], "description": column.about} for column in COLUMNS
    }
    cells |= {"point": {"type": "string"}, "status": {"enum": list(STATUSES)}}
    return {
        "type": "object",
        "required": ["sweep", "points", "kept", "damaged", "status", "rows"],
        "additionalProperties": False,
        "properties": {
            "sweep": {"type": "string", "description": "id of the set of points"},
            "points": _COUNT,
            "kept": {**_COUNT, "description": "points whose rows were there before"},
            "damaged": {**_COUNT, "description": "lines of the journal that held no row"},
            "status": {"type": "object", "required": list(STATUSES), "additionalProperties": _COUNT},
            "rows": {
                "description": "null with -o, which has them",
                "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/row"}}, {"type": "null"}],
            },
        },
        "$defs": {
            "row": {"type": "object", "required": list(cells), "additionalProperties": False, "properties": cells},
        },
    }
