"""The service for tests: its application with work done in the same process, and a whole one as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from planner.search import Stop
from planner.service.settings import Settings
from planner.service.work import Answer, Job, answer

JSON = {"Content-Type": "application/json"}
TOP = Path(__file__).resolve().parents[1]


class Here:
    """Does jobs at once, in this process."""

    async def start(self) -> None: ...

    async def run(self, job: Job, limit_s: float) -> Answer:
        return answer(job, Stop(), limit_s)

    def drain(self) -> None: ...

    async def close(self) -> None: ...

    def state(self) -> dict[str, int]:
        return {"workers": 1, "workers_ready": 1, "workers_busy": 0, "queue_length": 0, "workers_resident_bytes": 0}


class Service:
    """A service that runs."""

    def __init__(self, process: subprocess.Popen[str], host: str, port: int) -> None:
        self.process, self.host, self.port = process, host, port

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def workers(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(one) for one in found]

    def get(self, path: str) -> Any:
        import httpx

        return httpx.get(self.address + path, timeout=20)

    def health(self) -> Any:
        return self.get("/health").json()

    def until(self, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait for a state."""
        for _ in range(600):
            state: dict[str, Any] = self.health()
            if ready(state):
                return state
            time.sleep(0.05)
        raise AssertionError(f"never: {state}")


@contextmanager
def served(settings: Settings) -> Iterator[Service]:
    """A service with these settings at a port that is free, its workers ready."""
    code = "import json, sys; from planner.service import Settings, serve"
    code += "; serve(Settings(**json.loads(sys.argv[1])), lambda address: print(address, flush=True))"
    given = json.dumps({**settings.__dict__, "port": 0})
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    command = [sys.executable, "-c", code, given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://([\d.]+):(\d+)", process.stdout.readline())
            assert found is not None
            service = Service(process, found[1], int(found[2]))
            service.until(lambda state: state["workers_ready"] == settings.workers)
            yield service
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise
