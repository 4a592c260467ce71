"""Signals as a wish to stop: the first lets the search end with what it has, the second ends the program."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.search import Stop


@contextmanager
def interrupts(stop: Stop) -> Iterator[None]:
    """While inside, the first Ctrl-C or SIGTERM sets ``stop.interrupted`` and the second raises ``KeyboardInterrupt``."""

    def interrupt() -> None:
        if stop.interrupted:
            raise KeyboardInterrupt
        stop.interrupted = True

    with _handled((signal.SIGINT, signal.SIGTERM), interrupt):
        yield


@contextmanager
def ends() -> Iterator[None]:
    """While inside, SIGTERM raises ``KeyboardInterrupt`` as Ctrl-C does, unless somebody has other plans for it."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with _handled((signal.SIGTERM,) if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else (), interrupt):
        yield


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], act: Callable[[], None]) -> Iterator[None]:
    """Signals of this process call ``act``; its children, forked while inside, have them as before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    mine, before = os.getpid(), {number: signal.getsignal(number) for number in numbers}

    def handler(number: int, frame: FrameType | None) -> None:
        if os.getpid() == mine:
            act()
            return
        signal.signal(number, before[signal.Signals(number)] or signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in numbers:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
