"""A sweep to fill in."""

from __future__ import annotations

from pathlib import Path
from string import Template

from planner.documents import read_text
from planner.sweep.axes import AXES


def blank_sweep(file: str) -> str:
    """A commented specification as TOML, which runs as it stands."""
    text = read_text(Path(__file__).parent / "blank.txt")
    return Template(text).substitute(file=file, axes="\n".join(f"#   {axis.name:<18}{axis.about}" for axis in AXES.values()))
