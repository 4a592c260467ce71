"""Lines of a trace, plain or gzip, one at a time and with limits: an untrusted file costs neither memory nor endless time."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from planner.errors import InputError

MAX_LINE = 4 * 2**20
"""Bytes of a line: a request of 16 million tokens in blocks of 64."""
MAX_RATIO = 200
"""Bytes of text for one of gzip; traces are nearer to ten."""
FREE_BYTES = 4 * 2**20
"""Text from which on the ratio is looked at."""
LOOK_EVERY = 4096
_GZIP = b"\x1f\x8b"


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """``(number from 1, text)`` of each line that is not blank, without its end; a byte-order mark is dropped.

    ``InputError``, with the number of the line, for what is no regular file, not UTF-8, holds NUL or a line of more than
    ``MAX_LINE`` bytes, is gzip that is cut short or damaged, or expands beyond ``MAX_RATIO``.
    """
    where, number, size = str(path), 0, 0
    try:
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | getattr(os, "O_NONBLOCK", 0))) as raw:
            status = os.fstat(raw.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError("is not a regular file", where=where, mend="name a file")
            packed = raw.peek(2)[:2] == _GZIP
            text: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=raw) if packed else raw
            while line := text.readline(MAX_LINE + 1):
                number += 1
                size += len(line)
                if len(line) > MAX_LINE:
                    what = f"line {number} is longer than {MAX_LINE} bytes"
                    raise InputError(what, where=where, mend="this does not look like a trace")
                if packed and (number % LOOK_EVERY == 0 or len(line) > LOOK_EVERY) and size > FREE_BYTES:
                    if size > MAX_RATIO * max(raw.tell(), 1):
                        what = f"line {number}: expands to more than {MAX_RATIO} times its size"
                        raise InputError(what, where=where, mend="this does not look like a trace")
                if found := _decoded(line, number, where):
                    yield number, found
    except FileNotFoundError:
        raise InputError("no such file", where=where, mend="check the path") from None
    except IsADirectoryError:
        raise InputError("is a folder", where=where, mend="name a file") from None
    except EOFError:
        raise InputError(f"the gzip file ends early, after line {number}", where=where, mend="fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"is damaged gzip after line {number} ({error})", where=where, mend="fetch it again") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read after line {number} ({reason})", where=where, mend="check the file") from None


def _decoded(line: bytes, number: int, where: str) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise InputError(f"line {number} is not UTF-8", where=where, mend="save it as UTF-8") from None
    if "\0" in text:
        raise InputError(f"line {number} holds a NUL character", where=where, mend="save it as UTF-8 text")
    return text.strip()
