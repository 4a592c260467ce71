"""Commands on a terminal of their own, for the tests of progress bars, colours and signals."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import planner

TOP = Path(planner.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(TOP), "PYTHONDONTWRITEBYTECODE": "1"}
RUN = "from planner.__main__ import run; run()"


def in_terminal(
    arguments: list[str], act: Callable[[bytes], bytes] = lambda seen: b"", code: str = RUN, **env: str
) -> tuple[int, str]:
    """A command on a terminal of its own: ``(exit code, what it wrote)``; ``act`` types what it returns, given what was seen, or
    sends a signal if that is ``b"TERM"``."""
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover
        os.environ.update({**ENVIRONMENT, "TERM": "xterm-256color", "COLUMNS": "80", **env})
        os.environ.pop("NO_COLOR", None) if "NO_COLOR" not in env else None
        os.execv(sys.executable, [sys.executable, "-c", code, *arguments])
    seen, end = b"", time.monotonic() + 60.0
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            seen += part
        typed = act(seen)
        if typed == b"TERM":
            os.kill(child, signal.SIGTERM)
        elif typed:
            os.write(terminal, typed)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), seen.decode()


def left_clean(out: str, bar: str) -> bool:
    """The cursor is shown again and the line of the bar, last seen with that word, is wiped."""
    last = out.rfind(bar)
    return out.rfind("\x1b[?25h") > out.rfind("\x1b[?25l") > -1 and out.find("\x1b[2K", last) > last
