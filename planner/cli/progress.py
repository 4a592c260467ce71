"""What a command shows while it works: a bar with the gap on a terminal, lines with times for ``--verbose``, else nothing."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from planner.cli.stopping import ends
from planner.cli.terminal import console, redraws, tell, terminal
from planner.reporter import Reporter

if TYPE_CHECKING:
    from rich.progress import Progress

AFTER_S = 1.0
"""What takes less shows nothing."""


class Work(Reporter):
    """Progress of whatever takes time: the hooks of a search, and ``part`` for work that is counted."""

    def __init__(self, what: str, gap: float = 0.005) -> None:
        """``what`` is done; ``gap``: at which a search ends."""
        self.display = Display(what) if redraws(sys.stderr) and not terminal().quiet else None
        self.gap, self.first = gap, 0.0
        self.name, self.since = what, time.monotonic()
        self.solved = 0

    def part(self, done: int, of: int, text: str = "") -> None:
        """So much of the work is done; ``of``: 0 where nobody knows how much there is."""
        if self.display is not None:
            counted = f"{done:,} of {of:,}" if of else f"{done:,}"
            self.display.show(done / of if of else None, f"{counted} {text}".rstrip())

    def stage(self, name: str) -> None:
        """The work turns to something else."""
        if name != self.name:
            self._over()
            self.name, self.since, self.first = name, time.monotonic(), 0.0
            if self.display is not None:
                self.display.name(name)

    def started(self, configurations: int) -> None:
        """The space is declared."""
        self._tell(f"{configurations:,} parallelisms in the space, each at every batch")

    def progress(self, solved: int, open_nodes: int, gap: float | None) -> None:
        """On a bar: how far the gap has closed, from the first one to that at which the search ends, on a scale of logarithms."""
        self.solved = max(self.solved, solved)
        if self.display is None:
            return
        share = None
        if gap is not None:
            self.first = max(self.first, gap)
            whole = math.log(self.first / self.gap) if self.first > self.gap > 0.0 else 0.0
            share = 1.0 - math.log(max(gap, self.gap) / self.gap) / whole if whole else None
        found = "no plan yet" if gap is None else f"gap {gap:.2%}"
        self.display.show(share, f"{found}, {solved:,} solved, {open_nodes:,} open")

    def finished(self, objective: float, bound: float) -> None:
        """The search is over."""
        counted = f", more than {self.solved:,} placements solved" if self.solved else ""
        self._tell(f"objective {objective:.6g}, bound {bound:.6g}{counted}")

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._over()
        if self.display is not None:
            self.display.close()

    def _over(self) -> None:
        self._tell(f"{self.name}: {time.monotonic() - self.since:.2f} s")

    def _tell(self, text: str) -> None:
        if terminal().verbose and not (self.display is not None and self.display.say(f"verbose: {text}")):
            tell(text)


class Display:
    """One line on stderr that appears after a second and leaves nothing behind."""

    def __init__(self, what: str) -> None:
        self._lock = threading.RLock()
        self._bar: Progress | None = None
        self._over = False
        self._now: tuple[str, float | None, str] = (what, None, "")
        self._timer = threading.Timer(AFTER_S, self._appear)
        self._timer.daemon = True
        self._timer.start()

    def name(self, what: str) -> None:
        """What is done now."""
        self._now = (what, None, "")
        self._draw()

    def show(self, share: float | None, text: str) -> None:
        """How much is done, if that is known, and more in words."""
        self._now = (self._now[0], share, text)
        self._draw()

    def say(self, text: str) -> bool:
        """A line above the bar; whether there was one."""
        with self._lock:
            if self._bar is None:
                return False
            self._bar.console.print(text, soft_wrap=True)
            return True

    def _appear(self) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._over:
                return
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                TimeElapsedColumn(),
                TextColumn("{task.fields[state]}"),
            )
            self._bar = Progress(
                *columns,
                console=console(sys.stderr),
                transient=True,
                refresh_per_second=5,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.add_task("", total=None, state="")
            self._bar.tasks[0].start_time = self._bar.get_time() - AFTER_S
            self._draw()
            self._bar.start()

    def _draw(self) -> None:
        if self._bar is not None:
            what, share, text = self._now
            total = None if share is None else 1.0
            self._bar.update(self._bar.task_ids[0], description=what, total=total, completed=share or 0.0, state=text)

    def close(self) -> None:
        """Wipe the line and show the cursor, whatever was going on."""
        self._timer.cancel()
        with self._lock:
            self._over = True
            bar, self._bar = self._bar, None
        if bar is not None:
            try:
                bar.stop()
            finally:
                with suppress(OSError):
                    bar.console.show_cursor(True)


@contextmanager
def working(what: str, gap: float = 0.005) -> Iterator[Work]:
    """Show that ``what`` is being done while inside; SIGTERM ends it as Ctrl-C does."""
    work = Work(what, gap)
    try:
        with ends():
            yield work
    finally:
        work.close()
