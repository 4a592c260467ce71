"""Parts and sites of the catalogue for a person: every figure with unit, interval, grade, date and source."""

from __future__ import annotations

from typing import Any

from planner.cli.common import new_table, print_table
from planner.hardware import InterconnectPart, MemoryPart, Site
from planner.hardware.schema import DIMENSIONS
from planner.quantities import Figure

READABLE: dict[str, tuple[float, str]] = {
    "bytes": (1e9, "GB"),
    "bytes_per_s": (1e9, "GB/s"),
    "s": (1e-6, "us"),
    "w": (1.0, "W"),
    "j_per_bit": (1e-12, "pJ/bit"),
    "usd_per_gb": (1.0, "USD/GB"),
    "usd_per_kwh": (1.0, "USD/kWh"),
    "per_s": (1.0, "/s"),
    "years": (1.0, "years"),
}
"""SI per unit shown, and the unit, by dimension; the rest are bare numbers."""


def readable(figure: Figure, key: str) -> str:
    """The value in a unit that people use, with its interval in brackets."""
    scale, unit = READABLE.get(DIMENSIONS[key], (1.0, ""))
    span = f" ({figure.lowest / scale:.4g} to {figure.highest / scale:.4g})" if figure.lowest < figure.highest else ""
    text = f"{figure.value / scale:.4g}{span} {unit}".rstrip()
    return text if figure.known else f"unknown; default {text}" if figure.has_default else "unknown"


def print_part(part: MemoryPart | InterconnectPart | Site) -> None:
    """One table: what it is, its figures, its prices by date."""
    words = [part.id, part.kind, part.origin, *(str(getattr(part, key)) for key in ("status",) if hasattr(part, key))]
    table = new_table(f"{part.name} ({', '.join(words)})", "what", "value", "grade", "as of", "source")

    def add(what: str, key: str, figure: Figure) -> None:
        note = f" ({figure.note})" if figure.note and figure.known else ""
        table.add_row(what, readable(figure, key), figure.grade, str(figure.as_of), f"{figure.reason or figure.source}{note}")

    for key in ("vendor", "technology", "tier", "unit", "label", "network", "duplex", "topology", "region"):
        value: Any = getattr(part, key, None)
        if value:
            table.add_row(key, str(value), "", "", "")
    for key, value in part:
        if isinstance(value, Figure):
            add(key.replace("_", " "), key, value)
    for price in sorted(part.prices, key=lambda price: str(price.usd_per_gb.as_of)) if isinstance(part, MemoryPart) else ():
        add(f"price, {price.basis}", "usd_per_gb", price.usd_per_gb)
    print_table(table)
