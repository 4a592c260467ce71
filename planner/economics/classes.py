"""What is known of a class of memory where a system's profile names no part: energy of a read bit, and endurance.

Parts of the catalogue have their own figures; a plan embeds systems alone, so it uses these and marks what is missing.
"""

from __future__ import annotations

from typing import NamedTuple


class ClassFigure(NamedTuple):
    """A figure of a class of memory with its source and grade."""

    value: float
    source: str
    grade: str


_STUDY = "arXiv 2508.06978"
_USUAL = "usual figure of the class, unverified"

PICOJOULES_PER_BIT = {
    "hbm": ClassFigure(4.2, _STUDY, "B"),
    "ddr": ClassFigure(9.2, _STUDY, "B"),
    "cxl": ClassFigure(9.2, f"its DDR5 alone, without link and controller: {_STUDY}", "C"),
    "lpddr": ClassFigure(4.0, _USUAL, "D"),
    "ssd": ClassFigure(102.4, _STUDY, "B"),
}
"""pJ per bit read, by kind of tier; none for a kind of which nothing is known."""

DRIVE_WRITES_PER_DAY = {"ssd": ClassFigure(1.0, "usual of read-intensive TLC drives, unverified", "D")}
"""Of the whole capacity, over five years of warranty."""

DOES_NOT_WEAR = frozenset({"hbm", "gddr", "ddr", "lpddr", "cxl"})
"""Kinds of tier whose writes use nothing up."""
