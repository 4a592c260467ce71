"""What is done of a sweep: rows appended in the order in which they come, safe against a kill at any moment.

The results themselves are written whole, in the order of the specification, when every point has a row: so they are the same
bytes whoever computed them, and nobody reads half a table. Until then the rows are here, one JSON line each, on disk before the
sweep goes on. A kill can tear the last line only; it is dropped and its point planned again. The file is locked while it is
open, which ends with the process however that ends.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from io import BufferedRandom
from pathlib import Path
from types import TracebackType

from planner.errors import InputError
from planner.sweep.rows import Row
from planner.sweep.tables import MOST_LINE, line_of, row_from

_HEAD = b'{"planner sweep journal": 1, "sweep": '


def journal_of(output: Path) -> Path:
    """The journal that lies beside the results until they are complete."""
    return output.with_name(f"{output.name}.journal")


class Journal:
    """An open journal. ``sweep``: the id of the sweep that it was last begun for, empty where it is new; ``damaged``: lines that
    hold no row and are passed over. ``status``: of each point that has a row; a later row stands in place of an earlier one."""

    def __init__(self, path: Path) -> None:
        """Open or make it; ``InputError`` where something else has its name or another sweep holds it."""
        self.path, self.sweep, self.damaged = path, "", 0
        self._places: dict[str, tuple[int, int]] = {}
        self.status: dict[str, str] = {}
        self._file = _opened(path)
        try:
            self._scan()
        except BaseException:
            self.close()
            raise

    def _scan(self) -> None:
        end = 0
        self._file.seek(0)
        while line := self._file.readline(MOST_LINE):
            if not line.endswith(b"\n"):
                if len(line) == MOST_LINE:
                    raise self._foreign()
                break
            begun = _begun(line)
            if begun is not None:
                self.sweep = begun
            elif not self.sweep:
                raise self._foreign()
            elif (row := row_from(line)) is not None:
                self._note(row, end, len(line))
            else:
                self.damaged += 1
            end += len(line)
        if end == 0 and not _HEAD.startswith(line[: len(_HEAD)]):
            raise self._foreign()
        self._file.truncate(end)
        self._file.seek(end)

    def _foreign(self) -> InputError:
        return InputError("is no journal of a sweep", where=str(self.path), mend="move it away, or name other results")

    def begin(self, sweep: str, *, anew: bool = False) -> None:
        """Go on for the sweep of that id; ``anew``: without what is there."""
        if anew:
            self._file.seek(0)
            self._file.truncate()
            self._places.clear()
            self.status.clear()
            self.sweep, self.damaged = "", 0
        if self.sweep != sweep:
            self._file.write(_HEAD + json.dumps(sweep).encode() + b"}\n")
            self._sync()
            self.sweep = sweep

    def append(self, rows: Iterable[Row]) -> None:
        """Keep rows, on disk when this returns."""
        for row in rows:
            line = line_of(row)
            self._note(row, self._file.tell(), len(line))
            self._file.write(line)
        self._sync()

    def _note(self, row: Row, place: int, length: int) -> None:
        self._places[str(row["point"])] = place, length
        self.status[str(row["point"])] = str(row["status"])

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def rows(self, points: Iterable[str]) -> Iterator[Row]:
        """The rows of points, in their order; every one of them must be there."""
        for point in points:
            place, length = self._places[point]
            self._file.seek(place)
            row = row_from(self._file.read(length))
            assert row is not None, "it was read or written before"
            yield row
        self._file.seek(0, os.SEEK_END)

    def remove(self) -> None:
        """The sweep is complete."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give it back to others."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _begun(line: bytes) -> str | None:
    """The id of the sweep that begins at a line, if one does."""
    match = re.fullmatch(re.escape(_HEAD) + rb'"([0-9a-f]{1,64})"\}\n', line)
    return match[1].decode() if match else None


def _opened(path: Path) -> BufferedRandom:
    """The file, locked, under its name still: whoever held it before may have finished and removed it meanwhile."""
    where = str(path)
    while True:
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise InputError(f"cannot be opened ({error.strerror})", where=where, mend="check the folder") from None
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError("is not a regular file", where=where, mend="name other results")
            _lock(file.fileno(), where)
            try:
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    return file
            except FileNotFoundError:
                pass
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(descriptor: int, where: str) -> None:
    """Take the lock, which goes with the process; ``InputError`` where another has it or the file system knows none."""
    try:
        import fcntl
    except ImportError:  # no lock on this platform
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise InputError("another sweep is writing it", where=where, mend="wait for it or name other results") from None
    except OSError as error:
        what = f"cannot be locked ({error.strerror})"
        raise InputError(what, where=where, mend="name results on a file system that has locks") from None
