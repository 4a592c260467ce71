"""Requests through pools: where each is sent, what its prefix finds, hand-off, and what was seen at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.replay.caches import BlockCache
from planner.replay.instance import Instance
from planner.replay.parts import Memory, Rank, Request, Site

if TYPE_CHECKING:
    from simpy import Environment

WAITING = 4
"""Sequences that one request waiting for its pass counts as where requests are sent to the least loaded rank, as in vLLM's router
(vllm/v1/engine/core_client.py)."""


@dataclass
class Peaks:
    """Most that was seen."""

    prefill_queue: int = 0
    decode_queue: int = 0
    in_flight: int = 0
    reload_wait_s: float = 0.0


@dataclass
class Replay:
    """Pools at work on requests that come. ``sites``: one that does both, or one to prefill and one to decode.

    ``memories``: of the prefix cache, nearest first; ``spare_tokens``: what all ranks together have for running requests and the
    cache in the nearest memory, where these share it (``None``: its room is fixed). ``found_by_share``: without hashes, of
    hit tokens those in each memory.
    """

    env: Environment
    sites: tuple[Site, ...]
    memories: tuple[Memory, ...] = ()
    block_tokens: int = 1
    spare_tokens: float | None = None
    found_by_share: tuple[float, ...] = ()
    on_done: Callable[[Request], None] | None = None
    peaks: Peaks = field(default_factory=Peaks)
    finished: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cache = BlockCache([memory.blocks for memory in self.memories])
        self.pools = [[Instance(self, site, i) for i in range(site.replicas)] for site in self.sites]
        self.turns = [[(instance, rank) for rank in range(site.dp) for instance in pool] for site, pool in self._pairs()]
        self.in_flight = 0
        self.running_tokens = 0
        self.blocks_asked = self.blocks_known = 0
        self.reload_s = 0.0
        self._turn = [0] * len(self.sites)
        self._paces: dict[str, float] = {}

    def _pairs(self) -> list[tuple[Site, list[Instance]]]:
        return list(zip(self.sites, self.pools, strict=True))

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call later."""
        self.env.timeout(seconds).callbacks.append(lambda _: call(*arguments))

    def pace(self, site: Site) -> float:
        """Seconds of prefill for a token of a full pass."""
        if site.name not in self._paces:
            assert site.timing.fill is not None
            self._paces[site.name] = site.timing.fill(site.chunk, 1, site.chunk / 2.0) / site.chunk
        return self._paces[site.name]

    def submit(self, request: Request) -> None:
        """A request arrives: to the rank with the least work before it."""
        self.in_flight += 1
        self.peaks.in_flight = max(self.peaks.in_flight, self.in_flight)
        site = self.sites[0]
        if site.steps:
            instance, rank = self._least(0, lambda i, r: (r.members + WAITING * (len(r.waiting) + len(r.ready)), i.work(r)))
        else:
            instance, rank = self._least(0, lambda i, r: (i.work(r), r.members + len(r.waiting)))
        instance.arrive(rank, request)
        self.peaks.prefill_queue = max(self.peaks.prefill_queue, len(rank.waiting) + len(rank.ready))

    def _least(self, pool: int, key: Callable[[Instance, Rank], tuple[float, float]]) -> tuple[Instance, Rank]:
        """The first of the least, counted on from the one that had the last turn."""
        turns = self.turns[pool]
        count, begin = len(turns), self._turn[pool]
        best, least = 0, (math.inf, math.inf)
        for offset in range(count):
            at = (begin + offset) % count
            instance, number = turns[at]
            value = key(instance, instance.ranks[number])
            if value < least:
                best, least = at, value
        self._turn[pool] = (best + 1) % count
        instance, number = turns[best]
        return instance, instance.ranks[number]

    def held(self, tokens: int) -> None:
        """Running requests take so much more, of what the cache may use while it is free."""
        if self.spare_tokens is not None and self.memories:
            self.running_tokens += tokens
            self.cache.rooms[0] = max(self.spare_tokens - self.running_tokens, 0.0) // self.block_tokens

    def look_up(self, rank: Rank, request: Request) -> float:
        """Sets what is left to compute; seconds until what lies below device memory is there."""
        size, most = self.block_tokens, request.input_tokens - 1
        if request.blocks and self.memories:
            found = self.cache.find(request.blocks)
            self.blocks_asked += len(request.blocks)
            self.blocks_known += self.cache.known(request.blocks)
            self.cache.use(request.blocks[: sum(found)])
            tokens, left = [], most
            for count in found:
                tokens.append(min(count * size, left))
                left -= tokens[-1]
            request.hit_tokens = most - left
        else:
            request.hit_tokens = min(request.hit_tokens, most)
            tokens = [round(share * request.hit_tokens) for share in self.found_by_share]
        request.found = tuple(tokens)
        request.before = request.hit_tokens
        request.todo = request.input_tokens - request.hit_tokens
        ready = now = self.env.now
        for place, (memory, count) in enumerate(zip(self.memories, tokens, strict=False)):
            if count and memory.seconds_per_token:
                start = max(now, rank.reload_free[place])
                self.peaks.reload_wait_s = max(self.peaks.reload_wait_s, start - now)
                rank.reload_free[place] = start + count * memory.seconds_per_token + memory.latency_s
                self.reload_s += rank.reload_free[place] - start
                ready = max(ready, rank.reload_free[place])
        return ready - now

    def first_token(self, instance: Instance, rank: Rank, request: Request) -> None:
        """A prompt is prefilled."""
        request.first_s = self.env.now
        if request.blocks and self.memories:
            self.cache.use(request.blocks)
        if request.output_tokens <= 1:
            request.end_s = self.env.now
            instance.release(rank, request)
            self.done(request)
        elif instance.site.steps:
            instance.join(rank, request)
        else:
            handoff = self.sites[1].timing.handoff
            seconds = handoff(request.input_tokens) if handoff is not None else 0.0
            self.after(seconds, self._handed, instance, rank, request)

    def _handed(self, instance: Instance, rank: Rank, request: Request) -> None:
        instance.release(rank, request)
        other, place = self._least(1, lambda i, r: (r.members + len(r.hold), r.held))
        other.receive(place, request)

    def done(self, request: Request) -> None:
        """The last token is there; its hashes are of no use any more."""
        self.in_flight -= 1
        request.blocks = ()
        self.finished.append(request)
        if self.on_done is not None:
            self.on_done(request)
