"""Another program's output, with limits: a tool that hangs, prints without end or fails is told from one that answers."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from contextlib import suppress

LIMIT_S = 20.0
MOST_BYTES = 1 << 20
GRACE_S = 1.0
"""For a program to end once it was told to; one that waits in the kernel is left behind."""


class Unsaid(Exception):
    """A program did not say what was asked of it; the message goes on after its name."""


def one_line(text: str, most: int = 100) -> str:
    """The first words of a text, printable, for a message."""
    clean = " ".join("".join(char if char.isprintable() else " " for char in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)).split())
    return clean if len(clean) <= most else f"{clean[:most]}…"


def ask(command: list[str], limit_s: float | None = None) -> tuple[str, int]:
    """What the program prints and its exit code; ``Unsaid`` where it cannot be started, or is not done within the limits.

    It runs in a session of its own, whose programs are all ended with it.
    """
    limit = LIMIT_S if limit_s is None else limit_s
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise Unsaid(f"cannot be started ({error.strerror})") from None
    try:
        text = _until_closed(process, time.monotonic() + limit, limit)
    except OSError as error:
        raise Unsaid(f"cannot be read ({error.strerror})") from None
    finally:
        code = _end(process)
    if code is None:
        raise Unsaid("closed its output and did not end")
    return text, code


def _until_closed(process: subprocess.Popen[bytes], ends: float, limit: float) -> str:
    assert process.stdout is not None
    source, data = process.stdout.fileno(), b""
    while True:
        left = ends - time.monotonic()
        if left <= 0.0 or not select.select([source], [], [], left)[0]:
            raise Unsaid(f"was not done after {limit:g} s")
        part = os.read(source, 1 << 16)
        data += part
        if len(data) > MOST_BYTES:
            raise Unsaid(f"printed more than {MOST_BYTES} bytes")
        if not part:
            break
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(ends - time.monotonic(), GRACE_S))
    return data.decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> int | None:
    """The program's exit code, ended with all of its session if it still runs; ``None`` where it cannot be ended."""
    assert process.stdout is not None
    process.stdout.close()
    if process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    return process.returncode
