"""An executor: who plans the points of a sweep."""

from concurrent.futures import Future, ThreadPoolExecutor

from planner.sweep.executors import Workers
from planner.sweep.work import Result, Task, run


class OneThread(Workers):
    """One thread beside the main one. A real one would hand tasks to a queue of the site."""

    def __init__(self, count: int | None, scheduler: str | None) -> None:
        self.count = 1
        self._pool = ThreadPoolExecutor(1)

    def submit(self, task: Task) -> Future[list[Result]]:
        """Queue it."""
        return self._pool.submit(run, task)

    def close(self, *, now: bool) -> None:
        """End."""
        self._pool.shutdown(wait=True, cancel_futures=now)
