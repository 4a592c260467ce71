"""Who does the work, through the interface of ``concurrent.futures``: this thread, threads, processes, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from planner.errors import InputError, StoppedError
from planner.plugins import guarded, registry
from planner.sweep.work import Result, Task, run

GROUP = "planner.executors"
WAIT_S = 30.0
"""For a cluster's first worker."""
MOST_DEATHS = 1000
"""Where a scheduler has given up on a task: it tried it on several workers."""
COUNT_S = 5.0
"""Between two looks at how many workers a cluster has."""


class Workers(ABC):
    """Workers that take tasks. ``count`` may change as they come and go; ``ahead``: tasks for each of them to be handed out at a
    time."""

    count: int
    ahead = 2

    @abstractmethod
    def submit(self, task: Task) -> Future[list[Result]]:
        """Hand a task over; raises what ``deaths`` knows if no worker can take it."""

    def deaths(self, error: BaseException) -> int:
        """How many workers died of a task that failed with this error; 0 if none did."""
        return int(isinstance(error, BrokenExecutor))

    def renew(self) -> None:
        """Replace the dead. ``StoppedError`` where that cannot be done."""
        return None

    @abstractmethod
    def close(self, *, now: bool) -> None:
        """End; ``now``: without waiting for what is being done."""


class Serial(Workers):
    """This thread, one task at a time: ``submit`` returns when it is done."""

    count = 1
    ahead = 1

    def submit(self, task: Task) -> Future[list[Result]]:
        """Do it."""
        future: Future[list[Result]] = Future()
        try:
            future.set_result(run(task))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self, *, now: bool) -> None:
        """Nothing is left to end."""


class Threads(Workers):
    """Threads of this process; Python runs one at a time but in numerical code."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._halt = threading.Event()
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="sweep")

    def submit(self, task: Task) -> Future[list[Result]]:
        """Queue it."""
        return self._executor.submit(run, task, self._halt)

    def close(self, *, now: bool) -> None:
        """Searches that are stopped end within moments; what they had is not used."""
        if now:
            self._halt.set()
        self._executor.shutdown(wait=True, cancel_futures=True)


class Processes(Workers):
    """New processes on this machine. They end with this one, however it ends: each waits at a pipe that only it holds open."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._start()

    def _start(self) -> None:
        self._held, self._line = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")
        self._executor: Executor = ProcessPoolExecutor(self.count, mp_context=context, initializer=_warm, initargs=(self._held,))

    def submit(self, task: Task) -> Future[list[Result]]:
        """Queue it; a first task starts a worker."""
        with _deaf():
            return self._executor.submit(run, task)

    def renew(self) -> None:
        """A pool that lost a worker takes nothing more: make another."""
        self.close(now=True)
        self._start()

    def close(self, *, now: bool) -> None:
        """Closing the pipe ends workers that are busy."""
        if now:
            self._line.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._line.close()
        self._held.close()


def _warm(line: Connection) -> None:
    """In a new worker: load what every point needs; leave Ctrl-C to who started it, and end when that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        line.poll(None)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    import planner.api
    import planner.search.plan  # noqa: F401


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes started inside are deaf to Ctrl-C from their first moment; this one hears it when they are started."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would unblock the signal where it had to start inside
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Dask(Workers):
    """The workers of a Dask scheduler, which need planner installed in the same version."""

    def __init__(self, address: str | None) -> None:
        if address is None:
            raise InputError(
                "--executor dask needs a cluster", where="--scheduler", mend="give its address: --scheduler tcp://HOST:8786"
            )
        try:
            distributed: Any = import_module("distributed")
        except ImportError:
            what = "cannot be used: the package distributed is not installed"
            raise InputError(what, where="--executor dask", mend="pip install 'inference-planner[dask]'") from None
        self._address = address
        try:
            if not address.rpartition(":")[2].isdigit():  # a client that refuses it leaves a traceback behind
                raise ValueError("missing port number")
            self._client = distributed.Client(address, timeout=WAIT_S, set_as_default=False)
            self._client.wait_for_workers(1, timeout=WAIT_S)
        except (OSError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split())[:200]
            what = f"cannot be used ({reason or type(error).__name__})"
            raise InputError(what, where=f"--scheduler {address[:100]}", mend="check the address, and that workers run") from None
        self._executor = self._client.get_executor(pure=False)
        self._count, self._asked = 1, -COUNT_S

    @property
    def count(self) -> int:  # type: ignore[override]
        """Threads of all workers, asked for now and then."""
        if time.monotonic() - self._asked >= COUNT_S:
            self._count, self._asked = max(sum(self._client.nthreads().values()), 1), time.monotonic()
        return self._count

    def submit(self, task: Task) -> Future[list[Result]]:
        """Hand it to the scheduler, which gives it to another worker if one dies."""
        future: Future[list[Result]] = self._executor.submit(run, task)
        return future

    def deaths(self, error: BaseException) -> int:
        """The scheduler gives up on a task after some deaths, all counted here; a lost scheduler loses everything it had."""
        scheduler: Any = import_module("distributed.scheduler")
        comm: Any = import_module("distributed.comm.core")
        if isinstance(error, scheduler.KilledWorker):
            return MOST_DEATHS
        return int(isinstance(error, CancelledError | comm.CommClosedError))

    def renew(self) -> None:
        """Workers are the cluster's affair, but without a scheduler there is none."""
        if self._client.status != "running":
            raise StoppedError(f"the scheduler {self._address} is gone; what is done is kept: run the same command to go on")

    def close(self, *, now: bool) -> None:
        """The cluster stays; what it still has of this sweep is dropped."""
        self._executor.shutdown(wait=False)
        self._client.close(timeout=5)


def workers(name: str, count: int | None = None, scheduler: str | None = None) -> Workers:
    """Those of that name; ``count`` of threads or processes, by default one for each core that this process may use.

    Another package's name in the group ``planner.executors`` is called with ``count`` and ``scheduler`` and makes ``Workers``.
    """
    if not registry(GROUP).builtin(name):
        return _theirs(name, count, scheduler)
    if name != "dask" and scheduler is not None:
        raise InputError("goes with --executor dask", where="--scheduler", mend="leave it out or add --executor dask")
    if name in ("dask", "serial") and count is not None:
        raise InputError("goes with --executor process or thread", where="--workers", mend="leave it out")
    if name == "dask":
        return Dask(scheduler)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Serial() if name == "serial" else (Threads if name == "thread" else Processes)(count or cores)


def _theirs(name: str, count: int | None, scheduler: str | None) -> Workers:
    """What another package offers under that name; ``InputError`` where it fails or is something else."""
    make = registry(GROUP).get(name)
    made, reason = guarded(lambda: make(count, scheduler)) if callable(make) else (None, "cannot be called")
    if isinstance(made, Workers):
        return made
    reason = reason or "made no planner.sweep.executors.Workers"
    registry(GROUP).report(name, reason)
    raise InputError(f"cannot be used ({reason})", where=f"--executor {name[:64]}", mend="mend or uninstall that package")
