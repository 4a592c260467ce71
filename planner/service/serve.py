"""Listening: a socket, the application, and a quiet end."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from planner.errors import InputError
from planner.service.settings import Settings

EXTRA = "pip install 'inference-planner[serve]'"


def check_extra() -> None:
    """``InputError`` where the packages that the service needs are not installed."""
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        what = f"the package {error.name or 'it needs'} is not installed"
        raise InputError(what, where="planner serve", mend=EXTRA) from None
    _ = fastapi, uvicorn


def serve(settings: Settings, listening: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; then no new requests, and those being planned have ``shutdown_s`` to end.

    ``listening`` is told the address. ``InputError`` where it cannot be had.
    """
    check_extra()
    import uvicorn

    from planner.service.app import create_app
    from planner.service.connections import watched

    app = create_app(settings)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            app.state.labour.drain()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http=watched(settings),
        ws="none",
        loop="asyncio",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.head_s),
        timeout_graceful_shutdown=max(int(settings.shutdown_s), 1),
    )
    with _listener(settings) as door, _asked_to_end():
        name, port = door.getsockname()[:2]
        listening(f"http://{f'[{name}]' if ':' in name else name}:{port}")
        Server(config).run(sockets=[door])


def _listener(settings: Settings) -> socket.socket:
    where = f"--host {settings.host} --port {settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen ({reason})", where=where[:200], mend="choose another --port or --host") from None


@contextmanager
def _asked_to_end() -> Iterator[None]:
    """uvicorn raises the signals that ended it once more when it is done; being asked to end is no failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
