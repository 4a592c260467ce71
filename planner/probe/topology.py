"""What ``nvidia-smi topo -m`` and ``npu-smi info`` print, read into numbers: accelerators, and how they are joined.

Where a tool is missing there is nothing to say; where it fails, hangs or prints something else, a note says so and nothing is
taken from it: a matrix counts whole and symmetric or not at all.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

from planner.probe.asking import Unsaid, ask, one_line

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[()][0-9A-Z]|[=>78])")
_BANKS = re.compile(r"NV(\d{1,3})")
WAYS = ("SYS", "NODE", "PHB", "PXB", "PIX", "HCCS", "HCCS_SW", "SIO")
"""From the slowest; sets of NVLinks are faster than any but where HCCS stands alone."""


@dataclass(frozen=True)
class Topology:
    """``ways[i][j]``: how accelerator i reaches j, as the tool names it (``NV18``: a bonded set of 18 NVLinks)."""

    tool: str
    names: tuple[str, ...]
    ways: tuple[tuple[str, ...], ...] = ()
    memory_bytes: tuple[int, ...] = ()
    """Of each accelerator, where the tool says."""

    @property
    def joined(self) -> str:
        """The ways between two accelerators from the slowest, ``NODE or NV4``; nothing where there is one alone."""
        others = {way for i, row in enumerate(self.ways) for j, way in enumerate(row) if i != j}
        links = sorted(int(found[1]) for way in others if (found := _BANKS.fullmatch(way)))
        return " or ".join([*(way for way in WAYS if way in others), *(f"NV{count}" for count in links)])


def _lines(text: str) -> list[str]:
    return [line for line in _ESCAPE.sub("", text).splitlines() if line.strip()]


def parse_matrix(text: str, tool: str, name: str) -> Topology:
    """The square of accelerators in a matrix whose columns begin with them; ``name``: pattern of one. ``Unsaid`` otherwise.

    What follows in a row (network cards, affinities) and below the last accelerator is left alone.
    """
    lines = _lines(text)
    head = next((n for n, line in enumerate(lines) if re.match(rf"\s*{name}(\s|$)", line)), None)
    if head is None:
        raise Unsaid(f"shows no matrix of accelerators: {one_line(text)}")
    words = lines[head].split()
    names = tuple(word for word in words if re.fullmatch(name, word))
    if tuple(words[: len(names)]) != names or len(set(names)) != len(names):
        raise Unsaid(f"has columns in an order that is not known: {one_line(lines[head])}")
    ways: list[tuple[str, ...]] = []
    for line in lines[head + 1 :]:
        first, *rest = line.split()
        if len(ways) == len(names) or not re.fullmatch(name, first):
            break
        row = tuple(rest[: len(names)])
        at = len(ways)
        known = all(way == "X" if n == at else way in WAYS or _BANKS.fullmatch(way) for n, way in enumerate(row))
        if first != names[at] or len(row) != len(names) or not known:
            raise Unsaid(f"has a row that is not understood: {one_line(line)}")
        ways.append(row)
    if len(ways) != len(names):
        raise Unsaid(f"has {len(names)} columns of accelerators and {len(ways)} rows")
    if any(ways[i][j] != ways[j][i] for i in range(len(names)) for j in range(i)):
        raise Unsaid("names ways there that are not the ways back")
    return Topology(tool, names, tuple(ways))


def parse_nvidia(text: str) -> Topology:
    """The matrix of ``nvidia-smi topo -m``; ``Unsaid`` where there is none in the text."""
    return parse_matrix(text, "nvidia-smi", r"GPU\d+")


_ROW = re.compile(r"\|\s*(\d+)\s+(\S+)\s*\|\s*(\S[^|]*?)\s*\|.*\|$")
_BUS = r"(?:[0-9A-Fa-f]{4,8}:[0-9A-Fa-fx]{2}:[0-9A-Fa-f]{2}\.\d|NA|-)"
_CHIP = re.compile(rf"\|\s*(\d+)(?:\s+(?:\d+|-|NA))?\s*\|\s*{_BUS}\s*\|(.*)\|$")
_MEMORY = re.compile(r"(\d+)\s*/\s*(\d+)")


def parse_npu(text: str) -> Topology:
    """The table of ``npu-smi info``: of each chip a row of card, name and health, then one of its number, bus and memory.

    Memory is used / total in MB, on-chip memory last. A card of two chips has both rows twice. ``Unsaid`` where a row is
    not one of these.
    """
    lines = _lines(text)
    start = next((n for n, line in enumerate(lines) if re.match(r"\|\s*NPU\s+Name\b", line.strip())), None)
    if start is None:
        raise Unsaid(f"shows no table of accelerators: {one_line(text)}")
    names: list[str] = []
    sizes: list[int] = []
    card: re.Match[str] | None = None
    for line in (line.strip() for line in lines[start + 2 :]):
        if not line.startswith("|"):
            continue
        if re.match(r"\|\s*NPU\s+Chip\b", line):
            break
        if card is None:
            card = _ROW.match(line)
            if card is None:
                raise Unsaid(f"has a row that is not understood: {one_line(line)}")
            continue
        chip = _CHIP.match(line)
        if chip is None:
            raise Unsaid(f"has a row that is not understood: {one_line(line)}")
        names.append(f"NPU{card[1]} {card[2]} chip {chip[1]}")
        known = [int(total) for used, total in _MEMORY.findall(chip[2]) if 0 < int(total) < 2**24 and int(used) <= int(total)]
        sizes += [known[-1] * 2**20] if known else []
        card = None
    if card is not None or not names or len(set(names)) != len(names):
        raise Unsaid("ends within a row, or names no accelerator, or one twice")
    return Topology("npu-smi", tuple(names), memory_bytes=tuple(sizes) if len(sizes) == len(names) else ())


def parse_npu_matrix(text: str) -> Topology:
    """The matrix of ``npu-smi info -t topo``, by accelerator or by physical id."""
    return parse_matrix(text, "npu-smi", r"Phy-ID\d+" if "Phy-ID" in text else r"NPU\d+")


Reader = Callable[[str], Topology]
TOOLS: tuple[tuple[tuple[str, ...], Reader], ...] = (
    (("nvidia-smi", "topo", "-m"), parse_nvidia),
    (("npu-smi", "info"), parse_npu),
)
NPU_MATRIX = ("npu-smi", "info", "-t", "topo")


def find_topology() -> tuple[Topology | None, tuple[str, ...]]:
    """What the tools of this machine say, and notes on what they did not; ``None`` where none says anything."""
    notes: list[str] = []
    for command, read in TOOLS:
        found = _read(command, read, notes)
        if found is None:
            continue
        if found.tool == "npu-smi" and len(found.names) > 1:
            matrix = _read(NPU_MATRIX, parse_npu_matrix, notes)
            if matrix is not None and len(matrix.names) == len(found.names):
                found = replace(found, ways=matrix.ways)
            elif matrix is not None:
                what = f"shows {len(matrix.names)} accelerators, npu-smi info {len(found.names)}"
                notes.append(f"{' '.join(NPU_MATRIX)} {what}: how they are joined is not said")
        return found, tuple(notes)
    return None, tuple(notes)


def _read(command: tuple[str, ...], read: Reader, notes: list[str]) -> Topology | None:
    path = shutil.which(command[0])
    if path is None:
        return None
    name, code, text = " ".join(command), 0, ""
    try:
        text, code = ask([path, *command[1:]])
        found = read(text)
    except Unsaid as unsaid:
        said = f"failed ({code}): {one_line(text)}" if code else unsaid
        notes.append(f"{name} {said}; nothing was taken from it")
        return None
    if code:
        notes.append(f"{name} ended with {code}, though what it printed was whole")
    return found
