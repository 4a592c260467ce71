"""A worker: a process that takes jobs from standard input and puts answers on standard output, one at a time.

A frame is its length in four bytes (big-endian), a line of JSON and a body. To the worker: ``{"kind", "media", "full",
"limit_s"}`` and the request's body, or ``{"stop": N}``: the job of that number is no longer wanted. From the worker:
``{"number", "status", "media", "rss"}`` and the answer. It ends when standard input does, however that comes about.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import struct
import sys
import threading
import traceback
from typing import IO, Any

HEAD = struct.Struct(">I")
MOST = 64 * 2**20
"""Bytes of a frame."""


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A frame."""
    line = json.dumps(head).encode() + b"\n"
    return HEAD.pack(len(line) + len(body)) + line + body


def unpack(frame: bytes) -> tuple[dict[str, Any], bytes]:
    """The parts of a frame without its length."""
    line, _, body = frame.partition(b"\n")
    head = json.loads(line)
    assert isinstance(head, dict)
    return head, body


def resident_bytes() -> int:
    """What this process has in memory; 0 where the platform does not say."""
    return resident_of("self")


def resident_of(process: int | str) -> int:
    """What a process has in memory; 0 where the platform does not say."""
    try:
        with open(f"/proc/{process}/statm", encoding="ascii") as handle:
            return int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def main() -> None:
    """Serve until standard input ends. Arguments: the most bytes of private memory (0: no limit)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it says when to end
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # whatever prints, prints elsewhere
    _limit_memory(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    with contextlib.suppress(OSError):
        os.nice(NICE)

    import planner.api
    import planner.comparison
    import planner.plans.verify
    import planner.search.plan  # noqa: F401
    from planner.search import Stop
    from planner.service.work import KINDS, Job, answer, problem

    jobs: queue.Queue[tuple[dict[str, Any], bytes, Stop]] = queue.Queue()
    threading.Thread(target=_listen, args=(source, jobs, Stop), daemon=True).start()
    sink.write(pack({"number": 0, "status": 0, "media": "", "rss": resident_bytes()}))
    sink.flush()
    while True:
        head, body, stop = jobs.get()
        try:
            assert head["kind"] in KINDS
            found = answer(Job(head["kind"], body, head["media"], head["full"]), stop, head["limit_s"])
        except Exception as error:
            traceback.print_exc()
            what = f"internal fault: {type(error).__name__}: {' '.join(str(error).split())[:300]}; please report it"
            found = problem(500, "internal", what)
        sink.write(
            pack({"number": head["number"], "status": found.status, "media": found.media, "rss": resident_bytes()}, found.body)
        )
        sink.flush()


NICE = 4
"""Whoever answers clients goes before whoever plans."""


def _listen(source: IO[bytes], jobs: queue.Queue[Any], new_stop: Any) -> None:
    """Take jobs, and wishes to stop at once; end the process with the input."""
    stops: dict[int, Any] = {}
    while True:
        size = source.read(HEAD.size)
        if len(size) < HEAD.size:
            os._exit(0)
        head, body = unpack(source.read(HEAD.unpack(size)[0]))
        if "stop" in head:
            if head["stop"] in stops:
                stops[head["stop"]].interrupted = True
            continue
        stops = {head["number"]: new_stop()}
        jobs.put((head, body, stops[head["number"]]))


def _limit_memory(most: int) -> None:
    """Private memory that this process may take; more is a ``MemoryError`` in Python and the end of native code."""
    if not most:
        return
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
