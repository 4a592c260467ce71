"""What whoever starts the service decides."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

MIB = 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Settings:
    """Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8321
    workers: int = field(default_factory=cores)
    queue: int = 16
    """Requests that may wait for a worker."""
    time_limit_s: float = 60.0
    """For a request, waiting and planning; then the best plan so far, or none."""
    grace_s: float = 5.0
    """Beyond that, before a worker that does not hear is ended."""
    max_body_bytes: int = 8 * MIB
    worker_memory_bytes: int = 400 * MIB
    """Private memory of a worker."""
    body_s: float = 10.0
    """For a request's body to arrive."""
    head_s: float = 10.0
    """For a request's head to arrive, and for a connection to be idle."""
    reading_s: float = 30.0
    """For a client to take any of what is sent to it."""
    connections: int = 512
    shutdown_s: float = 15.0
    """For what is being planned to end when the service does."""

    @property
    def retire_bytes(self) -> int:
        """A worker that has so much in memory between two jobs is replaced."""
        return self.worker_memory_bytes * 3 // 4

    @property
    def hosts(self) -> tuple[str, ...] | None:
        """Names that a request may call the service by; ``None``: any. On loopback only its own, so that no web page can reach it
        by a name of its own making."""
        return LOOPBACK if self.host in LOOPBACK else None
