"""Numbers as a person reads them: four significant digits, thousands apart, units by size."""

from __future__ import annotations

import math

NOTHING = "–"
"""Where there is no number."""

_SIZES = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: float | None, digits: int = 4) -> str:
    """``7,691``, ``49.98``, ``0.09456``; a dash for ``None``."""
    if value is None:
        return NOTHING
    if value == 0.0:
        return "0"
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    whole = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:,.{min(whole, 12)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(value: float | None) -> str:
    """Bytes with the unit that leaves one to four digits before the point: ``59.96 GB``."""
    if value is None:
        return NOTHING
    for scale, unit in _SIZES:
        if abs(value) >= scale:
            return f"{number(value / scale)} {unit}"
    return f"{number(value)} B"


def power(watts: float | None) -> str:
    """``21.3 kW``."""
    if watts is None:
        return NOTHING
    for scale, unit in ((1e6, "MW"), (1e3, "kW")):
        if abs(watts) >= scale:
            return f"{number(watts / scale)} {unit}"
    return f"{number(watts)} W"


def share(value: float | None) -> str:
    """``66.5%``."""
    return NOTHING if value is None else f"{value:.1%}"


def span(low: float | None, high: float | None) -> str:
    """``0.09456 to 0.3899``; a dash at an unknown end."""
    return f"{number(low)} to {number(high)}"


def change(fraction: float) -> str:
    """``+141%``, ``-5.6%``."""
    return f"{fraction:+.0%}" if abs(fraction) >= 0.1 else f"{fraction:+.1%}"
