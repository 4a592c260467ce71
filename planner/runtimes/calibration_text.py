"""A calibration as the text of its file."""

from __future__ import annotations

import json
from typing import Any

from planner.runtimes.calibration import Calibration


def to_toml(calibration: Calibration) -> str:
    """The file's text; reading it gives an equal calibration. Equal calibrations have equal texts."""
    data = calibration.model_dump(mode="json", by_alias=True)
    lines = ["# Written by `planner calibrate`; do not edit. Times in seconds."]
    lines += [f"{key} = {_value(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for table in ("generations", "spread", "runtimes"):
        for name, row in sorted(data[table].items()):
            lines += ["", f"[{table}.{name}]"]
            corrections = row.pop("corrections", [])
            lines += [f"{key} = {_value(value)}" for key, value in row.items()]
            if corrections:
                lines.append("corrections = [")
                lines += [f"  {_value(one)}," for one in corrections]
                lines.append("]")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in value) + "]"
    if isinstance(value, float):
        return repr(value)
    text = json.dumps(value, ensure_ascii=False)
    return text[1:-1] if isinstance(value, str) and len(value) == 10 and value[4:8:3] == "--" else text
