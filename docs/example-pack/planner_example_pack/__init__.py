"""What planner finds by name through the entry points of pyproject.toml: folders, an exporter, an executor."""

from pathlib import Path

HARDWARE = Path(__file__).parent / "hardware"
PRICES = Path(__file__).parent / "prices"
RUNTIMES = Path(__file__).parent / "runtimes"
WORKLOADS = Path(__file__).parent / "workloads"
