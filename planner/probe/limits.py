"""What this process may take of the machine: cores and memory, and which bound says so.

Control groups are read through ``/proc/self/cgroup`` and ``mountinfo``, versions 1 and 2, from the process's own group up to
the root of its mount: every level binds. A group's page cache that it could drop (``inactive_file``) counts as free, as
``MemAvailable`` counts the machine's.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from planner.errors import InputError

PROC = Path("/proc")


@dataclass(frozen=True)
class Bound:
    """The least of the limits, in cores or bytes, and what sets it; ``of``: what there would be without the other limits."""

    value: float
    said: str
    of: float

    @property
    def binds(self) -> bool:
        """Whether something other than the machine's own size decides."""
        return self.value < self.of


def core_bound() -> Bound:
    """Cores that this process may use at once, at least a part of one: processors, affinity and the quota of control groups."""
    there = os.cpu_count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else there
    limits = [(float(there), "the processors of the machine"), (float(allowed), "the processors that this process may run on")]
    for group in _groups("cpu"):
        for name, share in _quotas(group):
            limits.append((share, f"{name} of the control group"))
    value, said = min(limits, key=lambda limit: limit[0])
    return Bound(value, said, float(there))


def cores() -> int:
    """Whole cores of ``core_bound``, one at least."""
    return max(math.floor(core_bound().value + 1e-6), 1)


def threads_of(asked: int | None) -> int:
    """As many threads as were asked for, all cores for ``None``; ``InputError`` where there are fewer cores."""
    most = cores()
    if asked is not None and asked > most:
        what = f"{asked} is more than the {most} cores here ({core_bound().said})"
        raise InputError(what, where="--threads", mend=f"give {most} or less")
    return asked or most


def memory_bound() -> Bound:
    """Bytes of memory that could be taken now: what is free, or what control groups leave.

    ``InputError`` where the system does not say.
    """
    free = _free_bytes()
    limits = [(float(free), "what the machine has free")]
    for group in _groups("memory"):
        for name, left in _left_bytes(group):
            limits.append((float(max(left, 0)), f"{name} of the control group"))
    value, said = min(limits, key=lambda limit: limit[0])
    return Bound(value, said, float(free))


def _free_bytes() -> int:
    """Linux says so; elsewhere all that the machine has stands for it."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", _text(PROC / "meminfo"), re.MULTILINE)
    if found:
        return int(found[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        raise InputError("this system does not say how much memory it has", where="probe", mend="probe on Linux") from None


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as handle:
            return handle.read(1 << 22).decode(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    """The number that a file holds; ``None`` for ``max``, for anything else, and where there is no file."""
    text = _text(path).strip()
    return int(text) if re.fullmatch(r"\d{1,19}", text) else None


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's control groups with such a controller, from its own to the root of the mount."""
    places = {}
    for line in _text(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        for name in controllers.split(",") if controllers else ["2"]:
            places[name] = path
    for line in _text(PROC / "self" / "mountinfo").splitlines():
        words, _, kind = line.partition(" - ")
        parts, rest = words.split(), kind.split()
        if len(parts) < 5 or not rest or rest[0] not in ("cgroup", "cgroup2"):
            continue
        held = ["2"] if rest[0] == "cgroup2" else rest[-1].split(",")
        key = controller if controller in held else "2" if "2" in held else None
        if key in places:
            top = Path(_unescaped(parts[4]))
            yield from _upwards(top, PurePosixPath(_unescaped(parts[3])), PurePosixPath(places[key]))


def _upwards(top: Path, root: PurePosixPath, path: PurePosixPath) -> Iterator[Path]:
    """From the group at ``path`` to ``top``, where ``root`` is mounted; ``top`` alone where the group is not seen from here."""
    own = path.relative_to(root) if path.is_relative_to(root) and ".." not in path.parts else PurePosixPath()
    here = top / own
    if not here.is_dir():
        here = top
    while True:
        yield here
        if here == top:
            return
        here = here.parent


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _quotas(group: Path) -> Iterator[tuple[str, float]]:
    """Cores that a group's quota allows."""
    quota, _, period = _text(group / "cpu.max").strip().partition(" ")
    if quota.isdecimal() and period.isdecimal() and int(period):
        yield "cpu.max", int(quota) / int(period)
    old, every = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    if old and every:
        yield "cpu.cfs_quota_us", old / every


def _left_bytes(group: Path) -> Iterator[tuple[str, int]]:
    """What a group's limits leave."""
    for limits, use, cache in (
        (("memory.max", "memory.high"), "memory.current", "inactive_file"),
        (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for name in limits:
            most = _number(group / name)
            if most is None:
                continue
            used = _number(group / use) or 0
            found = re.search(rf"^{cache} (\d+)$", _text(group / "memory.stat"), re.MULTILINE)
            yield name, most - max(used - (int(found[1]) if found else 0), 0)
