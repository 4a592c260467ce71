"""How often the rows of lookup tables are read: classes of rows, so that the popular ones may lie nearer."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from planner.architecture import Popularity
from planner.footprint import LookupItem, ModelPieces, Window

EDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Shares of the rows, most popular first, at which classes end: a Zipf law spreads its reads over the decades."""


def with_table_use(pieces: ModelPieces, popularity: Popularity) -> ModelPieces:
    """Pieces whose tables know their classes of use. ``InputError`` where measured counts name more rows than a table has."""
    if popularity.kind == "uniform":
        return pieces

    def used(window: Window) -> Window:
        if not any(block.lookups for block in window.blocks):
            return window
        blocks = (replace(b, lookups=tuple(_used(table, popularity) for table in b.lookups)) for b in window.blocks)
        return replace(window, blocks=tuple(blocks))

    return replace(pieces, windows=tuple(map(used, pieces.windows)), draft=tuple(map(used, pieces.draft)))


def _used(table: LookupItem, popularity: Popularity) -> LookupItem:
    return replace(table, classes=classes_of(popularity, table.rows))


@lru_cache(maxsize=256)
def classes_of(popularity: Popularity, rows: int) -> tuple[tuple[float, float], ...]:
    """``(share of the rows, share of the reads)`` of each class, both adding up to one; small tables leave classes empty."""
    ends = [int(rows * edge) for edge in EDGES[:-1]]
    hits = [0.0, *(popularity.hit_rate(rows, end) for end in ends), 1.0]
    held = [0.0, *(end / rows for end in ends), 1.0]
    return tuple((held[i + 1] - held[i], hits[i + 1] - hits[i]) for i in range(len(EDGES)))
