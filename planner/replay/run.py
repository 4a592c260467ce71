"""A replay from plan and requests to the requests as they were served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from planner.errors import InputError
from planner.replay.deploy import Deployment, in_blocks
from planner.replay.engine import Replay
from planner.replay.parts import Memory, Request

EXTRA = "pip install 'inference-planner[replay]'"


@dataclass(frozen=True)
class Served:
    """The requests in order of their end, the machine that served them, and how long it took (s)."""

    requests: list[Request]
    replay: Replay
    seconds: float


def new_environment() -> Any:
    """A clock at 0; ``InputError`` where simpy is missing."""
    try:
        import simpy
    except ImportError:
        raise InputError("needs the package simpy, which is not installed", where="simulate", mend=EXTRA) from None
    return simpy.Environment()


def serve(
    deployment: Deployment,
    requests: Iterator[Request],
    *,
    clients: int | None = None,
    block_tokens: int = 1,
    cache_blocks: float | None = None,
    progress: Callable[[int], None] | None = None,
) -> Served:
    """Run requests through a deployment to the end. ``clients``: each sends one when theirs is done. ``cache_blocks``: a prefix
    cache of so many blocks in device memory in place of what the plan has."""
    env = new_environment()
    memories, spare = in_blocks(deployment.memories, block_tokens), deployment.spare_tokens
    if cache_blocks is not None:
        memories, spare = (Memory(memories[0].id, cache_blocks),), None
    replay = Replay(
        env=env,
        sites=deployment.sites,
        memories=memories,
        block_tokens=block_tokens,
        spare_tokens=spare,
        found_by_share=deployment.found_by_share if cache_blocks is None else (1.0,),
    )
    return run(replay, requests, clients, progress)


def run(
    replay: Replay, requests: Iterator[Request], clients: int | None = None, progress: Callable[[int], None] | None = None
) -> Served:
    """Feed requests to a replay and let it end."""
    env = replay.env

    def next_of_client() -> None:
        request = next(requests, None)
        if request is not None:
            replay.submit(replace_arrival(request, env.now))

    def done(_: Request) -> None:
        if clients is not None:
            next_of_client()
        if progress is not None and len(replay.finished) % 256 == 0:
            progress(len(replay.finished))

    def source() -> Any:
        if clients is not None:
            for _ in range(clients):
                next_of_client()
            return
        for request in requests:
            if request.arrival_s > env.now:
                yield env.timeout(request.arrival_s - env.now)
            replay.submit(request)

    replay.on_done = done
    if clients is None:
        env.process(source())
    else:
        list(source())
    env.run()
    if replay.in_flight:
        raise AssertionError(f"{replay.in_flight} requests wait for what nothing brings")
    return Served(replay.finished, replay, float(env.now))


def replace_arrival(request: Request, now: float) -> Request:
    """The request as it is sent now."""
    return replace(request, arrival_s=now)
