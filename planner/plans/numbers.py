"""How numbers leave a plan: plain Python values, floats at 12 significant digits, no NaN or Infinity."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np

from planner.quantities import round12

GAP_DECIMALS = 9


def canonical(value: Any) -> Any:
    """Plain Python data with every float rounded as the contract prints it; a non-finite float becomes ``null``."""
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round12(value) if math.isfinite(value) else None
    return value


def to_json(value: Any) -> str:
    """Canonical JSON text of canonical data: keys in their own order, two-space indent, a final newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def relative_gap(objective: float, bound: float) -> float:
    """``|objective - bound| / |objective|``, to nine decimals (what agrees on every platform)."""
    return round(abs(objective - bound) / abs(objective), GAP_DECIMALS) if objective else 0.0
