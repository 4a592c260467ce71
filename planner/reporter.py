"""Hooks that a search calls as it goes; every method does nothing until somebody overrides it."""

from __future__ import annotations


class Reporter:
    """Progress of one search. Objectives are in the printed unit, counts are configurations or placements solved."""

    def stage(self, name: str) -> None:
        """The search turns to something else: ``candidates``, ``search``, ``least TPOT``, ``front``, ``conflict``, ``plan``."""

    def started(self, configurations: int) -> None:
        """The space is declared."""

    def incumbent(self, objective: float) -> None:
        """A better plan was found."""

    def progress(self, solved: int, open_nodes: int, gap: float | None) -> None:
        """Some placements were solved; ``gap`` is the gap now, ``None`` before the first plan."""

    def finished(self, objective: float, bound: float) -> None:
        """The search is over."""
