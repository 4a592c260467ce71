"""The service as an ASGI application. Its event loop only moves bytes: reading, planning and drawing are the workers' work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from planner.service.describe import components, responses, takes
from planner.service.metrics import MEDIA, Metrics
from planner.service.page import page
from planner.service.pool import Labour, Pool, Refused
from planner.service.settings import Settings
from planner.service.work import FORM, JSON, Answer, Job, problem
from planner.service.worker import resident_bytes
from planner.version import __version__

GONE = 499
"""Status in the metrics where the client did not wait for the answer."""
DRAINED = 8
"""Times the limit of a body that is read and thrown away, so that a client that sends too much hears why."""
_MARKS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), (b"referrer-policy", b"same-origin"))
_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def create_app(settings: Settings | None = None, labour: Labour | None = None) -> FastAPI:
    """The application. ``labour``: who does the work in place of worker processes."""
    chosen = settings or Settings()
    metrics = Metrics()
    staff: Labour = labour or Pool(chosen, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await staff.start()
        app.openapi()  # made once, before anybody waits for it
        yield
        await staff.close()

    app = FastAPI(title="planner", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.labour = staff
    app.add_middleware(_Guard, settings=chosen, metrics=metrics)
    kept: dict[str, Answer] = {}

    async def work(request: Request, kind: str, media: tuple[str, ...] = (JSON,), *, full: bool = False) -> Response:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given not in media:
            raise Refused(415, "media_type", f"send Content-Type: {' or '.join(media)}")
        body = await _body(request, chosen)
        return _response(await _unless_gone(request, staff.run(Job(kind, body, given, full), chosen.time_limit_s)))

    @app.get("/", include_in_schema=False)
    async def start_page() -> Response:
        text, policy = page()
        return Response(text, media_type="text/html", headers={"Content-Security-Policy": policy})

    @app.post("/plan", openapi_extra=takes("PlanRequest"), responses=responses("Plan", conflict=True))
    async def plan(request: Request) -> Response:
        """The best deployment of a model on hardware, as `planner plan --format json` prints it."""
        return await work(request, "plan")

    @app.post("/compare", openapi_extra=takes("CompareRequest"), responses=responses("Comparison"))
    async def compare(request: Request) -> Response:
        """Models and hardware side by side, as `planner compare --format json` prints them."""
        return await work(request, "compare")

    @app.post("/verify", openapi_extra=takes("Plan"), responses=responses("Verification"))
    async def verify(request: Request, full: bool = False) -> Response:
        """Whether every number of the plan in the body follows from its inputs; `full`: also every bound of the space."""
        return await work(request, "verify", full=full)

    @app.post("/report", openapi_extra=takes("Plan"), responses=responses(None, media="text/html"), response_class=HTMLResponse)
    async def report(request: Request) -> Response:
        """The plan in the body as a page that opens offline; also as the field `plan` of a form."""
        return await work(request, "report", (JSON, FORM))

    @app.get("/catalogue", responses=responses(None, body=False))
    async def catalogue(request: Request) -> Response:
        """Names of models, hardware, workloads and runtimes."""
        if "catalogue" not in kept:
            found = await _unless_gone(request, staff.run(Job("catalogue"), chosen.time_limit_s))
            if found is None or found.status != 200:
                return _response(found)
            kept["catalogue"] = found
        return _response(kept["catalogue"])

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """That the service answers, and how busy it is."""
        return {"status": "ok", "version": __version__, **staff.state()}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def measured() -> Response:
        """Counters for Prometheus."""
        state = staff.state()
        return Response(
            metrics.text(state | {"resident_bytes": resident_bytes() + state["workers_resident_bytes"]}), media_type=MEDIA
        )

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        headers = {} if error.retry_s is None else {"Retry-After": str(error.retry_s)}
        return _response(problem(error.status, error.error, error.message), headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _response(problem(422, "input", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        word = {404: "not_found", 405: "method"}.get(error.status_code, "http")
        return _response(
            problem(error.status_code, word, f"{request.method} {request.url.path[:100]}: {error.detail}"), error.headers
        )

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=_ABOUT, routes=app.routes)
            found.setdefault("components", {}).setdefault("schemas", {}).update(components())
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
    return app


_ABOUT = (
    "Plans of LLM inference over memory tiers and devices. Requests name what the catalogues have, or hold it; no file is read."
)


def _response(answer: Answer | None, headers: Any = None) -> Response:
    if answer is None:
        return Response(status_code=GONE)
    return Response(answer.body, answer.status, dict(headers or {}), answer.media)


async def _body(request: Request, settings: Settings) -> bytes:
    """All of a request's body, within time and size; of one that is too large, what a client may still be sending is read too."""
    most, parts, size = settings.max_body_bytes, [], 0
    try:
        async with asyncio.timeout(settings.body_s):
            declared = request.headers.get("content-length", "0")
            if declared.isdecimal() and len(declared) < 20 and int(declared) > most * DRAINED:
                raise _too_large(most)
            async for part in request.stream():
                size += len(part)
                if size <= most:
                    parts.append(part)
                elif size > most * DRAINED:
                    break
    except TimeoutError:
        raise Refused(408, "slow", f"the body did not arrive within {settings.body_s:g} s") from None
    if size > most:
        raise _too_large(most)
    return b"".join(parts)


def _too_large(most: int) -> Refused:
    return Refused(413, "too_large", f"the body is larger than {most} bytes")


async def _unless_gone(request: Request, work: Any) -> Answer | None:
    """The answer, or ``None`` once the client is gone; the work then stops."""
    job, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({job, gone}, return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            found = job.result()
            assert isinstance(found, Answer)
            return found
        return None
    finally:
        for task in (job, gone):
            task.cancel()
        await asyncio.gather(job, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Guard:
    """Around everything: strangers refused, responses counted and marked."""

    def __init__(self, app: Callable[[_Scope, _Receive, _Send], Awaitable[None]], settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, path = time.monotonic(), 0, "other"

        async def marked(message: _Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if status in (408, 413) else []
                message["headers"] = [*message.get("headers", []), *_MARKS, *closing]
            await send(message)

        try:
            stranger = self._stranger(dict(scope["headers"]))
            if stranger:
                await _response(problem(403, "stranger", stranger))(scope, receive, marked)
            else:
                await self.app(scope, receive, marked)
        except ClientDisconnect:
            status = GONE
        except Exception:
            status = status or 500  # who is around this answers so, and tells of the fault
            raise
        finally:
            route = scope.get("route")
            path = getattr(route, "path", path)
            self.metrics.observe(path, status or GONE, time.monotonic() - begun)

    def _stranger(self, headers: dict[bytes, bytes]) -> str:
        """Why a request that a web page of another origin made is refused."""
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if self.settings.hosts is not None and _name(f"//{host}") not in self.settings.hosts:
            return f"the service is not called {host[:64]!r}"
        if origin and origin.partition("//")[2] != host:
            return f"pages of {origin[:64]!r} may not use this service"
        return ""


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
