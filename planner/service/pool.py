"""Workers and the queue before them: at most so many requests wait, each for so long; what nobody wants any more is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import sys
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol

from planner.service.metrics import Metrics
from planner.service.settings import Settings
from planner.service.work import Answer, Job
from planner.service.worker import HEAD, MOST, pack, resident_of, unpack

START_S = 60.0
"""For a worker to say that it is ready, on a busy machine."""
STOP_S = 3.0
"""For a worker to end a job that is stopped; then it is ended itself."""


class Refused(Exception):
    """A job that is not done. ``retry_s``: when to come again, if that may help."""

    def __init__(self, status: int, error: str, message: str, retry_s: int | None = None) -> None:
        self.status, self.error, self.message, self.retry_s = status, error, message, retry_s
        super().__init__(message)


class Labour(Protocol):
    """Who does jobs: ``Pool``, or a stand-in."""

    async def start(self) -> None:
        """Begin."""

    async def run(self, job: Job, limit_s: float) -> Answer:
        """Do a job within so many seconds; ``Refused`` where that cannot be. Cancelling it stops the work."""

    def drain(self) -> None:
        """Refuse what waits and what is to come."""

    async def close(self) -> None:
        """End."""

    def state(self) -> dict[str, int]:
        """Workers wanted, ready and busy, requests that wait, and the bytes that all workers have in memory, now."""


class _Worker:
    """One process. Its answers are read by a task of its own, so that nobody who stops waiting leaves half a frame behind."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.number = 0
        self._answer: asyncio.Future[tuple[dict[str, Any], bytes]] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, memory_bytes: int) -> _Worker:
        """A new process, ready for jobs."""
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        command = (sys.executable, "-c", "from planner.service.worker import main; main()", str(memory_bytes))
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, start_new_session=True, env={**os.environ, **threads, "PYTHONPATH": path}
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(START_S):
                await worker.settled()
        except BaseException:
            await worker.kill()
            raise
        return worker

    @property
    def gone(self) -> bool:
        """Whether the process has ended."""
        return self._reading.done()

    async def ask(self, job: Job, limit_s: float) -> tuple[Answer, int]:
        """The answer, and the bytes that the worker then has in memory."""
        self.number += 1
        self._answer = asyncio.get_running_loop().create_future()
        head = {"number": self.number, "kind": job.kind, "media": job.media, "full": job.full, "limit_s": limit_s}
        assert self.process.stdin is not None
        self.process.stdin.write(pack(head, job.body))
        await self.process.stdin.drain()
        found, body = await self.settled()
        return Answer(found["status"], body, found["media"]), found["rss"]

    async def settled(self) -> tuple[dict[str, Any], bytes]:
        """The answer to what was asked last, or the error that ended the process; may be awaited again."""
        return await asyncio.shield(self._answer)

    def stop(self) -> None:
        """The job is no longer wanted."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, RuntimeError):
            self.process.stdin.write(pack({"stop": self.number}))

    async def kill(self) -> None:
        """End the process now."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await asyncio.gather(self._reading, return_exceptions=True)
        if self._answer.done() and not self._answer.cancelled():
            self._answer.exception()  # nobody waits for it any more

    async def _read(self) -> None:
        assert self.process.stdout is not None
        try:
            while True:
                (size,) = HEAD.unpack(await self.process.stdout.readexactly(HEAD.size))
                if size > MOST:
                    raise ConnectionError("a worker's answer is too large")
                found = unpack(await self.process.stdout.readexactly(size))
                if found[0]["number"] == self.number and not self._answer.done():
                    self._answer.set_result(found)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            if not self._answer.done():
                self._answer.set_exception(ConnectionError("the worker is gone"))


class Pool:
    """Workers, first come first served."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._waiting: deque[asyncio.Future[_Worker]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._mean_s = 1.0

    async def start(self) -> None:
        """Start the workers; requests may come before they are ready."""
        for _ in range(self.settings.workers):
            self._later(self._hire())

    def state(self) -> dict[str, int]:
        """As ``Labour`` says."""
        return {
            "workers": self.settings.workers,
            "workers_ready": len(self._all),
            "workers_busy": len(self._all) - len(self._idle),
            "queue_length": sum(not turn.done() for turn in self._waiting),
            "workers_resident_bytes": sum(resident_of(worker.process.pid) for worker in self._all),
        }

    async def run(self, job: Job, limit_s: float) -> Answer:
        """As ``Labour`` says. The time limit counts from now: waiting is part of it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + limit_s
        worker = await self._acquire(end)
        while worker.gone:
            self._later(self._replace(worker, "died"))
            worker = await self._acquire(end)
        started = loop.time()
        left = end - started
        try:
            async with asyncio.timeout(left + self.settings.grace_s):
                found, resident = await worker.ask(job, left)
        except asyncio.CancelledError:
            self._later(self._settle(worker))
            raise
        except TimeoutError:
            self._later(self._replace(worker, "time"))
            message = f"took longer than {self.settings.time_limit_s:g} s, and could not be stopped with a plan; ask for less"
            raise Refused(504, "time_limit", message) from None
        except (OSError, RuntimeError):
            self._later(self._replace(worker, "died"))
            raise Refused(
                500, "died", "the worker ended while it planned, perhaps for want of memory; the service goes on"
            ) from None
        self._mean_s += 0.1 * (loop.time() - started - self._mean_s)
        if resident > self.settings.retire_bytes or found.status == 507:
            self._later(self._replace(worker, "memory"))
        else:
            self._release(worker)
        return found

    def drain(self) -> None:
        """Refuse what waits and what is to come."""
        self._closing = True
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(_closing())

    async def close(self) -> None:
        """End all workers."""
        self.drain()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in list(self._all)), return_exceptions=True)
        self._all.clear()
        self._idle.clear()

    async def _acquire(self, end: float) -> _Worker:
        """A worker, by that time of the loop."""
        if self._closing:
            raise _closing()
        if self._idle:
            return self._idle.pop()
        queued = sum(not turn.done() for turn in self._waiting)
        if queued >= self.settings.queue:
            raise self._busy(f"{queued} requests wait already, which is as many as may", queued)
        turn: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(end):
                return await turn
        except TimeoutError:
            self._give_back(turn)
            raise self._busy(f"no worker was free within {self.settings.time_limit_s:g} s", queued) from None
        except asyncio.CancelledError:
            self._give_back(turn)
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)

    def _give_back(self, turn: asyncio.Future[_Worker]) -> None:
        """A worker may have come in the moment in which its turn was given up."""
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            self._release(turn.result())

    def _busy(self, why: str, queued: int) -> Refused:
        seconds = min(max(math.ceil((queued + 1) * self._mean_s / self.settings.workers), 1), 60)
        return Refused(429, "busy", f"all workers are busy: {why}; come again in {seconds} s", seconds)

    def _release(self, worker: _Worker) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._idle.append(worker)

    async def _settle(self, worker: _Worker) -> None:
        """Stop a job that nobody wants; a worker that does not hear is replaced."""
        self.metrics.cancelled += 1
        worker.stop()
        try:
            async with asyncio.timeout(STOP_S):
                await worker.settled()
        except (OSError, TimeoutError):
            await self._replace(worker, "cancelled")
        else:
            self._release(worker)

    async def _replace(self, worker: _Worker, why: str) -> None:
        self.metrics.replaced[why] = self.metrics.replaced.get(why, 0) + 1
        self._all.discard(worker)
        await worker.kill()
        await self._hire()

    async def _hire(self) -> None:
        """A new worker, however often that takes."""
        pause = 0.5
        while not self._closing:
            try:
                worker = await _Worker.start(self.settings.worker_memory_bytes)
            except (OSError, TimeoutError):
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, 30.0)
            else:
                self._all.add(worker)
                self._release(worker)
                return

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _closing() -> Refused:
    return Refused(503, "closing", "the service is shutting down")
