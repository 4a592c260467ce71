"""Parts and sites of the catalogue for a person: every figure with unit, interval, grade, date and source."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from planner.cli.common import new_table, print_table, terminal_width
from planner.hardware import InterconnectPart, MemoryPart, Site
from planner.hardware.schema import DIMENSIONS
from planner.quantities import Figure, readable


def in_words(figure: Figure, key: str) -> str:
    """The value in a unit that people use, with its interval in brackets."""
    text = readable(figure.value, DIMENSIONS[key], figure.lowest, figure.highest)
    return text if figure.known else f"unknown; default {text}" if figure.has_default else "unknown"


def print_part(part: MemoryPart | InterconnectPart | Site) -> None:
    """What it is, its figures, its prices by date, and below the table the numbered sources."""
    words = [part.id, part.kind, part.origin, *(str(getattr(part, key)) for key in ("status",) if hasattr(part, key))]
    width = terminal_width()
    table = new_table(f"{part.name} ({', '.join(words)})", "what", "value", "grade", "as of", "source")
    sources: dict[str, int] = {}

    def add(what: str, key: str, figure: Figure) -> None:
        note = f" ({figure.note})" if figure.note and figure.known else ""
        number = sources.setdefault(f"{figure.reason or figure.source}{note}", len(sources) + 1)
        table.add_row(what, in_words(figure, key), figure.grade, str(figure.as_of), f"[{number}]")

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
    click.echo("\n".join(["sources", *numbered(sources, width)]))


def numbered(sources: dict[str, int], width: int) -> list[str]:
    """A numbered list in lines of at most ``width`` columns but for addresses, which stay in one piece."""
    lines = []
    for source, number in sources.items():
        options: dict[str, Any] = {"break_on_hyphens": False, "break_long_words": False, "subsequent_indent": " " * 5}
        lines += textwrap.wrap(source, max(width, 40), initial_indent=f"{f'{number}':>3}. ", **options)
    return lines
