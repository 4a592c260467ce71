"""Every point to a worker and its result back, whatever dies on the way."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice

from planner.sweep.executors import Workers
from planner.sweep.parts import Part
from planner.sweep.points import VERSIONS, Point
from planner.sweep.rows import row_of
from planner.sweep.work import Result, Task

MOST_RETRIES = 2
"""Of a point whose worker died."""
TASK_S, MOST_TOGETHER = 0.5, 32
"""Work in a task, as far as the points so far tell, and most points of one."""
_TICK_S = 1.0


class Drive:
    """Points to results. Where a worker dies, every point that it may have had is suspect; suspects are planned again one at a
    time with nobody else at work, so that only the guilty are counted."""

    def __init__(self, workers: Workers, library: Mapping[str, Part], *, plans: bool = False) -> None:
        self.workers, self.library, self.plans = workers, library, plans
        self._suspects: deque[Point] = deque()
        self._deaths: Counter[str] = Counter()
        self._out: dict[Future[list[Result]], tuple[Point, ...]] = {}
        self._alone: Future[list[Result]] | None = None
        self._since, self._done = time.monotonic(), 0

    def results(self, points: Iterable[Point], tick: Callable[[], None]) -> Iterator[list[Result]]:
        """The results of the points, as tasks end; ``tick`` is called about once a second."""
        fresh = iter(points)
        while self._hand_out(fresh):
            ended, _ = wait(self._out, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            tick()
            found: list[Result] = []
            fault: Exception | None = None
            lost = False
            for future in ended:
                given = self._out.pop(future)
                try:
                    found += future.result()
                except Exception as error:
                    if deaths := self.workers.deaths(error):
                        found += self._blame(given, deaths if future is self._alone else 0)
                        lost = True
                    else:
                        fault = error
            self._done += len(found)
            if found:
                yield found
            if fault is not None:
                raise fault
            if lost:
                self.workers.renew()

    def _blame(self, given: tuple[Point, ...], deaths: int) -> Iterator[Result]:
        """Who is suspect now; a point that has used up its retries gets a row that says so."""
        for point in given:
            self._deaths[point.id] += deaths
            if self._deaths[point.id] >= MOST_RETRIES:
                told = "its worker died again and again while it planned this point and nothing else: out of memory, perhaps"
                yield Result(row_of(point, "error", told), None)
            else:
                self._suspects.append(point)

    def _hand_out(self, fresh: Iterator[Point]) -> bool:
        """Give the workers enough to do; whether anything is left to be done."""
        if self._suspects:
            if not self._out:
                self._alone = self._give((self._suspects.popleft(),))
            return True
        workers = self.workers.count
        each = (time.monotonic() - self._since) * workers / self._done if self._done else TASK_S
        together = max(1, min(MOST_TOGETHER, int(TASK_S / max(each, 1e-6))))
        while len(self._out) < workers * self.workers.ahead and not self._suspects:
            given = tuple(islice(fresh, together))
            if not given:
                break
            self._give(given)
        return bool(self._out or self._suspects)

    def _give(self, given: tuple[Point, ...]) -> Future[list[Result]] | None:
        """Hand out a task; without a worker to take it, its points are suspect."""
        needed = {digest for point in given for digest in point.parts.values()}
        task = Task(given, {digest: self.library[digest].packed for digest in sorted(needed)}, self.plans, VERSIONS)
        try:
            future = self.workers.submit(task)
        except Exception as error:
            if not self.workers.deaths(error):
                raise
            self._suspects.extend(given)
            if not self._out:
                self.workers.renew()
            return None
        self._out[future] = given
        return future
