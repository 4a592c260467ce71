"""A workload to fill in."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from string import Template

from planner.documents import read_text


def blank_workload(workload_id: str, today: date) -> str:
    """A commented workload as TOML, which plans as it stands."""
    text = read_text(Path(__file__).parent / "blank.txt")
    return Template(text).substitute(id=workload_id, as_of=today.isoformat())
