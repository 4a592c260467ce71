"""``planner serve``."""

from __future__ import annotations

import click

from planner.cli.common import Quantity, Range, hint
from planner.service.settings import LOOPBACK, MIB, Settings


@click.command("serve")
@click.option("--host", default=Settings.host, show_default=True, help="Address to listen at; any but loopback lets others in.")
@click.option("--port", type=click.IntRange(0, 65535), default=Settings.port, show_default=True, help="0: any that is free.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes that plan; one for each core if left out.")
@click.option(
    "--queue", type=click.IntRange(0, 10_000), default=Settings.queue, show_default=True, help="Requests that may wait for one."
)
@click.option(
    "--time-limit",
    type=Range(0, 86400, min_open=True),
    default=Settings.time_limit_s,
    show_default=True,
    help="Seconds for a request, waiting and planning; then the best plan so far.",
)
@click.option(
    "--max-body",
    type=Quantity("bytes", "B", "SIZE", 1024, 64e6),
    default=f"{Settings.max_body_bytes // MIB}MiB",
    show_default=True,
    help="Largest request.",
)
@click.option(
    "--worker-memory",
    type=Quantity("bytes", "B", "SIZE", 256 * MIB, 1e13),
    default=f"{Settings.worker_memory_bytes // MIB}MiB",
    show_default=True,
    help="Private memory that a worker may take.",
)
def command(
    host: str, port: int, workers: int | None, queue: int, time_limit: float, max_body: float, worker_memory: float
) -> None:
    """Plan over HTTP: POST /plan, /compare, /verify and /report, GET /health, /metrics and /openapi.json, and a page at /.

    Answers are those of --format json, byte for byte. Requests name what the catalogues have, or hold it; no file is read.
    There are no passwords: put a proxy before it where others may reach it.

    \b
    Examples:
      planner serve
      planner serve --port 9000 --workers 2
    """
    from planner.service import serve
    from planner.service.settings import cores

    settings = Settings(
        host=host,
        port=port,
        workers=workers or cores(),
        queue=queue,
        time_limit_s=time_limit,
        max_body_bytes=int(max_body),
        worker_memory_bytes=int(worker_memory),
    )
    if host not in LOOPBACK:
        click.echo("planner: anyone who can reach this address may use the service", err=True)

    def listening(address: str) -> None:
        click.echo(f"serving at {address}", err=True)
        hint(f"open {address}, or curl {address}/health")

    serve(settings, listening)
