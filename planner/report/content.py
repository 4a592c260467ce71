"""What a report consists of, before it becomes a page: sections of text, charts and tables, as plain values.

Everything here is text that the templates escape; nothing is markup. Colours in figures are names of the style sheet's variables
(``var(--series-1)``), which the page resolves for the theme it is shown in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Figure = dict[str, Any]
"""``{"data": [...], "layout": {...}}`` as plotly.js reads it."""


@dataclass(frozen=True)
class Table:
    """``numeric``: columns (from 0) that hold numbers and are set flush right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Chart:
    """A drawing and the same as a table. ``label``: one sentence that says what is seen, for those who do not see it.

    ``swatch``: the colour variable of the subject that the chart is about, if it is about one; ``legend``: ``(text, colour)`` of
    what plotly.js draws no legend for; ``wide``: it needs the whole width of a desktop page.
    """

    id: str
    title: str
    label: str
    figure: Figure
    table: Table
    height: int = 360
    swatch: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and a line in the contents."""

    id: str
    title: str
    text: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """One subject's headline: a large figure, its interval, and a few facts as ``(name, value)``."""

    title: str
    subtitle: str
    swatch: str
    headline: str
    unit: str
    interval: str
    facts: tuple[tuple[str, str], ...]
    badge: str = ""


@dataclass(frozen=True)
class Link:
    """Text, and where it leads (empty: nowhere)."""

    text: str
    address: str = ""


@dataclass(frozen=True)
class Source:
    """A source of figures: its grade, its text cut at links, its date, and which figures cite it."""

    grade: str
    parts: tuple[Link, ...]
    as_of: str
    figures: tuple[str, ...]
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """A figure of grade C or D with the interval that the plan reckons with."""

    figure: str
    grade: str
    low: str
    high: str
    note: str


@dataclass(frozen=True)
class Report:
    """A whole page. ``verdict``: sentences, the most important first; ``overview`` stands above the cards, ``tables`` below the
    summary.
    """

    title: str
    subtitle: str
    command: str
    versions: tuple[tuple[str, str], ...]
    verdict: tuple[str, ...]
    cards: tuple[Card, ...]
    summary: Table
    summary_swatches: tuple[str, ...]
    overview: Table | None
    tables: tuple[Table, ...]
    sections: tuple[Section, ...]
    sources: tuple[Source, ...]
    estimates: tuple[Estimate, ...]
    notes: tuple[str, ...] = ()
