"""Reads that go past the page cache, from a scratch file that has no name and so cannot be left behind."""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from planner.errors import InputError
from planner.probe.clock import Spread, spread_of
from planner.probe.limits import memory_bound

GRANULE = 4096
"""Bytes of a random read; addresses, lengths and buffers are multiples of it."""
BLOCK = 4 * 2**20
"""Bytes of a sequential read."""
KEPT_FREE, MOST_KEPT = 0.05, 10e9
"""Of a file system, and bytes: what is left after the scratch file at least is the less of the two."""
THROUGH_CACHE = "the file system refuses direct access: reads went through the page cache, which was told to forget"
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
"""File systems whose files lie in memory."""
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Scratch:
    """An open file of ``size`` bytes without a name; ``direct``: it goes past the page cache."""

    descriptor: int
    size: int
    direct: bool
    write: Spread | None = None

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill an aligned buffer from a multiple of ``GRANULE``."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self.descriptor, [buffer[done:]], offset + done)
            if got <= 0:
                raise InputError("ended early", where="the scratch file", mend="try again on another disk with --disk")
            done += got

    def forget(self) -> None:
        """Where the page cache is on the way, drop what it has of the file."""
        if not self.direct and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def aligned(size: int) -> memoryview:
    """A buffer of its own pages."""
    return memoryview(mmap.mmap(-1, max(size, GRANULE)))[:size]


def rounded(size: int) -> int:
    """The next multiple of ``GRANULE``."""
    return -(-size // GRANULE) * GRANULE


def file_system(folder: Path) -> str:
    """The kind of file system that a folder lies on, as ``ext4``; ``unknown`` where the system does not say."""
    try:
        device = os.stat(folder).st_dev
        text = MOUNTS.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return "unknown"
    number = f"{os.major(device)}:{os.minor(device)}"
    found = [line.partition(" - ")[2].split() for line in text.splitlines() if line.split()[2:3] == [number]]
    return found[-1][0][:32] if found and found[-1] else "unknown"


def default_folder() -> Path:
    """Where scratch files go unless told: the folder of temporary files, another where that one lies in memory."""
    first = Path(tempfile.gettempdir())
    for folder in (first, Path("/var/tmp"), Path.cwd()):
        if file_system(folder) not in IN_MEMORY and os.access(folder, os.W_OK):
            return folder
    return first


def room(folder: Path) -> tuple[int, int]:
    """Bytes that a folder's file system has free, and those of them that a scratch file may take; ``InputError`` without one."""
    where = str(folder)[:200]
    if not folder.is_dir():
        raise InputError("is no folder", where=where, mend="name one with --disk")
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        raise InputError(f"cannot be used ({error.strerror})", where=where, mend="name another with --disk") from None
    most = usage.free - min(KEPT_FREE * usage.total, MOST_KEPT)
    if file_system(folder) in IN_MEMORY:
        most = min(most, memory_bound().value / 2.0)
    return usage.free, int(most)


def check_room(folder: Path, size: int) -> None:
    """``InputError`` unless the folder exists and its file system keeps some room beside ``size`` bytes."""
    if not hasattr(os, "preadv"):
        raise InputError("this system has no positioned vector reads", where="--disk", mend="probe on Linux")
    free, most = room(folder)
    if most < size:
        kept = f"{(free - most) / 1e9:.1f} GB of its {free / 1e9:.1f} GB free stay so"
        what = f"has too little room for a scratch file of {size / 1e9:.1f} GB: {kept}"
        raise InputError(what, where=str(folder)[:200], mend="name another folder with --disk, or make room")


@contextmanager
def scratch(folder: Path, size: int, content: Callable[[int], bytes | memoryview] | None = None) -> Iterator[Scratch]:
    """A scratch file of at least ``size`` bytes in ``folder``, written whole: with ``content(offset)`` of a block each, or noise.

    It loses its name before anything is written, so nothing is left behind, however this process ends.
    """
    whole = -(-size // BLOCK) * BLOCK
    check_room(folder, whole)
    descriptor, direct = _nameless(folder)
    try:
        buffer = aligned(BLOCK)
        buffer[:] = os.urandom(BLOCK)
        direct = direct and _takes_direct(descriptor, buffer)
        times = []
        for offset in range(0, whole, BLOCK):
            if content is not None:
                part = content(offset)
                buffer[: len(part)] = part
            start = time.perf_counter()
            _write(descriptor, buffer, offset)
            times.append(max(time.perf_counter() - start, 1e-9))
        os.fsync(descriptor)
        found = Scratch(descriptor, whole, direct, spread_of(times).inverse(BLOCK))
        found.forget()
        yield found
    except OSError as error:
        raise InputError(f"cannot be used ({error.strerror})", where=str(folder)[:200], mend="name another with --disk") from None
    finally:
        os.close(descriptor)


def _write(descriptor: int, buffer: memoryview, offset: int) -> None:
    done = 0
    while done < len(buffer):
        done += os.pwritev(descriptor, [buffer[done:]], offset + done)


def _takes_direct(descriptor: int, buffer: memoryview) -> bool:
    """Whether blocks are written and granules read past the page cache; where they are refused, from here on through it.

    Some file systems open a file so and refuse every access after that, or have larger sectors than a granule.
    """
    try:
        _write(descriptor, buffer, 0)
        os.preadv(descriptor, [aligned(GRANULE)], GRANULE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~getattr(os, "O_DIRECT", 0))
        return False
    return True


def _nameless(folder: Path) -> tuple[int, bool]:
    """An open file without a name, past the page cache if the file system lets us."""
    path = folder / f".planner-probe-{os.getpid()}-{os.urandom(4).hex()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    for extra in (getattr(os, "O_DIRECT", 0), 0):
        try:
            return os.open(path, flags | extra, 0o600), bool(extra)
        except OSError as error:
            if not extra:
                where = str(folder)[:200]
                raise InputError(f"cannot be written ({error.strerror})", where=where, mend="name another with --disk") from None
        finally:
            path.unlink(missing_ok=True)
    raise AssertionError


@dataclass(frozen=True)
class Disk:
    """Bytes/s of sequential reads and 4 KiB reads/s by threads at once, and seconds of one random read alone."""

    sequential: tuple[tuple[int, Spread], ...]
    random: tuple[tuple[int, Spread], ...]
    latency: Spread
    write: Spread
    free: int
    direct: bool
    file_system: str = "unknown"

    @property
    def caveat(self) -> str:
        """What makes these figures other than a disk's; nothing where they are one's."""
        if self.file_system in IN_MEMORY:
            return f"the folder lies in memory ({self.file_system}): this is no disk"
        return "" if self.direct else THROUGH_CACHE

    @property
    def notes(self) -> tuple[str, ...]:
        """The caveat, and how to do better."""
        return (f"{self.caveat}; name another folder with --disk",) if self.caveat else ()


def measure_disk(folder: Path, *, size: int, depths: tuple[int, ...], runs: int, seconds: float) -> Disk:
    """Reads of a scratch file of ``size`` bytes in ``folder``; each pass ends after ``seconds`` at the latest."""
    free, kind = room(folder)[0], file_system(folder)
    with scratch(folder, size) as file:
        alone = _random(file, 1, seconds, 1)
        sequential = [(depth, spread_of([_sequential(file, depth, seconds) for _ in range(runs)])) for depth in depths]
        rates = [(depth, spread_of([_rate(file, depth, seconds) for _ in range(runs)])) for depth in depths]
        assert file.write is not None
        return Disk(tuple(sequential), tuple(rates), spread_of(alone), file.write, free, file.direct, kind)


def _sequential(file: Scratch, depth: int, seconds: float) -> float:
    """Bytes/s of so many threads that read blocks of the file in turn."""
    file.forget()
    blocks = iter(range(0, file.size, BLOCK))
    lock = threading.Lock()
    ends = time.perf_counter() + seconds

    def reader(_: int) -> int:
        buffer, done = aligned(BLOCK), 0
        while time.perf_counter() < ends:
            with lock:
                offset = next(blocks, None)
            if offset is None:
                break
            file.read(buffer, offset)
            done += BLOCK
        return done

    with ThreadPoolExecutor(depth) as pool:
        start = time.perf_counter()
        done = sum(pool.map(reader, range(depth)))
        return max(done, BLOCK) / (time.perf_counter() - start)


def _random(file: Scratch, depth: int, seconds: float, seed: int) -> list[float]:
    """Seconds of each of the 4 KiB reads of so many threads."""
    file.forget()
    ends = time.perf_counter() + seconds

    def reader(number: int) -> list[float]:
        chosen, buffer = random.Random(seed * 1000 + number), aligned(GRANULE)
        found: list[float] = []
        while not found or (time.perf_counter() < ends and len(found) < 4000):
            offset = chosen.randrange(file.size // GRANULE) * GRANULE
            start = time.perf_counter()
            file.read(buffer, offset)
            found.append(max(time.perf_counter() - start, 1e-9))
        return found

    with ThreadPoolExecutor(depth) as pool:
        return [each for found in pool.map(reader, range(depth)) for each in found]


def _rate(file: Scratch, depth: int, seconds: float) -> float:
    start = time.perf_counter()
    count = len(_random(file, depth, seconds, depth))
    return count / (time.perf_counter() - start)
