"""What ``nvidia-smi topo -m`` and ``npu-smi info`` print, read into numbers: accelerators, and how they are joined.

The tools are asked for at most ``LIMIT_S``; where one is missing, fails or prints something else, there is nothing to say.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

LIMIT_S = 20.0
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_BANKS = re.compile(r"NV(\d+)")
WAYS = ("X", "SYS", "NODE", "PHB", "PXB", "PIX", "HCCS", "HCCS_SW", "SIO")


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
        """The slowest way between two accelerators, or nothing where there is one alone."""
        others = {way for i, row in enumerate(self.ways) for j, way in enumerate(row) if i != j}
        links = {int(found[1]) for way in others if (found := _BANKS.fullmatch(way))}
        plain = [way for way in WAYS if way in others]
        return plain[0] if plain else f"NV{min(links)}" if links else ""


def parse_nvidia(text: str) -> Topology | None:
    """The matrix of ``nvidia-smi topo -m``; ``None`` where there is none in the text."""
    lines = [line for line in _ESCAPE.sub("", text).splitlines() if line.strip()]
    head = next((n for n, line in enumerate(lines) if re.match(r"\s*GPU0(\s|$)", line)), None)
    if head is None:
        return None
    names = tuple(word for word in lines[head].split() if re.fullmatch(r"GPU\d+", word))
    ways = []
    for line in lines[head + 1 :]:
        words = line.split()
        if words[0] not in names:
            continue
        row = tuple(words[1 : 1 + len(names)])
        if len(row) != len(names) or any(way not in WAYS and not _BANKS.fullmatch(way) for way in row):
            return None
        ways.append(row)
    if len(ways) != len(names) or any(row[at] != "X" for at, row in enumerate(ways)):
        return None
    return Topology("nvidia-smi", names, tuple(ways))


_CHIP = re.compile(r"\|\s*(\d+)\s+(\w[\w-]*)\s*\|\s*(?:OK|Warning|Alarm|Critical|UNKNOWN)\s*\|")
_MEMORY = re.compile(r"(\d+)\s*/\s*(\d+)")


def parse_npu(text: str) -> Topology | None:
    """The table of ``npu-smi info``: a row of name and health per accelerator, then one that ends in HBM used / total (MB)."""
    names: list[str] = []
    sizes: list[int] = []
    for line in _ESCAPE.sub("", text).splitlines():
        found = _CHIP.match(line.strip())
        if found:
            names.append(f"NPU{found[1]} {found[2]}")
        elif names and len(sizes) < len(names) and line.strip().startswith("|"):
            pairs = [(int(used), int(total)) for used, total in _MEMORY.findall(line)]
            known = [total for used, total in pairs if total > 0 and used <= total]
            if known:
                sizes.append(known[-1] * 2**20)
    if not names:
        return None
    return Topology("npu-smi", tuple(names), memory_bytes=tuple(sizes) if len(sizes) == len(names) else ())


def find_topology() -> Topology | None:
    """What the tools of this machine say; ``None`` where it has none."""
    for command, parse in ((["nvidia-smi", "topo", "-m"], parse_nvidia), (["npu-smi", "info"], parse_npu)):
        path = shutil.which(command[0])
        if path is None:
            continue
        try:
            done = subprocess.run([path, *command[1:]], capture_output=True, timeout=LIMIT_S, check=False)
        except (OSError, subprocess.SubprocessError):
            continue
        found = parse(done.stdout[:1_000_000].decode(errors="replace"))
        if found is not None:
            return found
    return None
