"""Connections that do not hold the service up: heads that never end, answers that nobody reads, more of them than may be."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from planner.service.settings import Settings

LOOK_S = 1.0
"""Between two looks at a connection."""


class Watched(H11Protocol):
    """uvicorn's protocol with limits of its own in time and number. ``settings`` is set by ``watched``."""

    settings: Settings

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection; of too many the one that has asked for nothing the longest goes."""
        super().connection_made(transport)
        self._waiting_since = self._read_since = self.loop.time()
        self._unread = 0
        self.loop.call_later(LOOK_S, self._look)
        if len(self.connections) > self.settings.connections:
            others = [one for one in cast("set[Watched]", self.connections) if one._waits() and not one.transport.is_closing()]
            min(others, key=lambda one: one._waiting_since, default=self).transport.abort()

    def on_response_complete(self) -> None:
        """The next request has its own time."""
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def _waits(self) -> bool:
        """Whether no request is being answered: none came, or only part of its head."""
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        if not unread or unread < self._unread:
            self._read_since = now
        self._unread = unread
        slow = unread and now - self._read_since > self.settings.reading_s
        idle = not unread and self._waits() and now - self._waiting_since > self.settings.head_s
        if slow or idle:
            self.transport.abort()
        elif self in self.connections or unread:
            self.loop.call_later(LOOK_S, self._look)


def watched(settings: Settings) -> type[Any]:
    """The protocol under these settings."""
    return type("Watched", (Watched,), {"settings": settings})
