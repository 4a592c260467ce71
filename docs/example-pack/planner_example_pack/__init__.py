"""Profiles for planner: the folders that the entry points of pyproject.toml name."""

from pathlib import Path

HARDWARE = Path(__file__).parent / "hardware"
WORKLOADS = Path(__file__).parent / "workloads"
