"""Requests through pools, event by event: queues, chunked prefill, hand-off, decode batches with room for their caches.

An instance does one thing at a time: a prefill pass, or a decode step; where both wait, one after the other. Its ranks go
through a pass together, in the time of the fullest. Decode steps that nothing interrupts, until the next sequence is done, are
one event: their time is that of a step half way, times their number. What arrives meanwhile cuts them at the end of a step.

With pp stages a slot is a decode step of the slowest stage; a sequence gets its tokens every pp slots, and what a rank decodes
is split over pp slots. Passes follow each other every pass time and leave the last stage pp - 1 pass times later.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from planner.replay.caches import BlockCache
from planner.replay.timing import Timing

if TYPE_CHECKING:
    from simpy import Environment

Events = Generator[Any, Any, None]
AHEAD = 2.0
"""Chunks of prefill that a rank admits ahead, so that what comes from below device memory is there when its pass starts."""

WAITING = 4
"""Sequences that one request waiting for its pass counts as where requests are sent to the least loaded rank, as in vLLM's router
(vllm/v1/engine/core_client.py)."""


@dataclass(frozen=True)
class Memory:
    """A memory that a prefix cache lies in: ``seconds_per_token`` for a rank to bring a token back (0: read where it lies)."""

    id: str
    blocks: float
    seconds_per_token: float = 0.0
    bytes_per_token: float = 0.0
    latency_s: float = 0.0


@dataclass(frozen=True)
class Site:
    """A pool as its instances see it. ``kv_tokens``: what a rank may reserve (input and output of all it has admitted);
    ``sequences``: that a rank decodes at once; ``per_pass``: requests in a prefill pass of a rank."""

    name: str
    replicas: int
    dp: int
    pp: int
    sequences: int
    chunk: int
    kv_tokens: float
    timing: Timing
    accept: float = 1.0
    per_pass: int = 1_000_000
    patience_s: float = 0.0
    """A pass beside decode starts when all ranks can fill theirs, or a request has been ready for so long."""

    @property
    def fills(self) -> bool:
        """Whether it prefills."""
        return self.timing.fill is not None

    @property
    def steps(self) -> bool:
        """Whether it decodes."""
        return self.timing.step is not None


@dataclass(slots=True, eq=False)
class Request:
    """Times in s, tokens; ``found``: hit tokens by memory."""

    number: int
    arrival_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    hit_tokens: int = 0
    todo: int = 0
    before: int = 0
    admitted_s: float = math.nan
    first_s: float = math.nan
    end_s: float = math.nan
    joined: float = 0.0
    found: tuple[int, ...] = ()

    @property
    def reserved(self) -> int:
        """Tokens to keep room for."""
        return self.input_tokens + self.output_tokens


class Rank:
    """A data-parallel rank: requests that wait, those ready to be prefilled, sequences that decode."""

    __slots__ = ("base", "decoding", "held", "hold", "loading", "members", "number", "pending", "ready", "reload_free", "waiting")

    def __init__(self, number: int, memories: int) -> None:
        self.number = number
        self.waiting: deque[Request] = deque()
        self.ready: deque[Request] = deque()
        self.hold: deque[Request] = deque()
        self.pending = 0.0
        self.loading = 0
        self.held = 0
        self.members = 0
        self.decoding = 0
        self.base = 0.0
        self.reload_free = [0.0] * memories


class Instance:
    """One instance of a pool, a process of the simulation."""

    def __init__(self, replay: Replay, site: Site, number: int) -> None:
        self.replay, self.env, self.site, self.number = replay, replay.env, site, number
        self.ranks = [Rank(i, len(replay.memories)) for i in range(site.dp)]
        self.slot = 0
        self.heap: list[tuple[int, int, Rank, Request]] = []
        self.ready = 0
        self.until = 0.0
        self.fill_s = self.step_s = 0.0
        self.filled = self.fill_room = 0.0
        self.sequence_s = 0.0
        self.per_slot = site.accept / site.pp
        self._idle: Any = None
        self._cuts = self._stepping = False
        self._joining: list[tuple[Rank, Request]] = []
        self.process = self.env.process(self.run())

    # --- arrivals -------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something is there to be done."""
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.succeed()
        elif self._cuts:
            self._cuts = False
            self.process.interrupt()

    def work(self, rank: Rank) -> float:
        """Seconds of prefill ahead of a request that comes to a rank now, about."""
        assert self.site.timing.fill is not None
        busy = max(self.until - self.env.now, 0.0)
        return busy + self.replay.pace(self.site) * rank.pending

    def arrive(self, rank: Rank, request: Request) -> None:
        """A request to be prefilled."""
        rank.waiting.append(request)
        rank.pending += request.input_tokens - request.hit_tokens
        self.admit(rank)

    def admit(self, rank: Rank) -> None:
        """Take in what there is room for."""
        site, woke = self.site, False
        while rank.waiting:
            request = rank.waiting[0]
            full = rank.held + request.reserved > site.kv_tokens and rank.members
            if full or self._ahead(rank) >= AHEAD * site.chunk:
                break
            if site.steps and rank.members >= site.sequences + site.per_pass:
                break
            rank.waiting.popleft()
            rank.held += request.reserved
            rank.members += 1
            self.replay.held(request.reserved)
            planned = request.input_tokens - request.hit_tokens
            seconds = self.replay.look_up(rank, request)
            rank.pending += request.todo - planned
            request.admitted_s = self.env.now
            if seconds > 0.0:
                rank.loading += request.todo
                self.replay.after(seconds, self._loaded, rank, request)
            else:
                rank.ready.append(request)
                self.ready += 1
                woke = True
        if woke:
            self.wake()

    def _ahead(self, rank: Rank) -> float:
        return rank.loading + sum(request.todo for request in rank.ready)

    def _loaded(self, rank: Rank, request: Request) -> None:
        rank.loading -= request.todo
        rank.ready.append(request)
        self.ready += 1
        self.wake()

    def join(self, rank: Rank, request: Request) -> None:
        """A prefilled request begins to decode with the next step, or waits for a place."""
        if self._stepping:
            self._joining.append((rank, request))
        elif rank.decoding >= self.site.sequences:
            rank.hold.append(request)
        else:
            self._begin(rank, request)
        self.wake()

    def receive(self, rank: Rank, request: Request) -> None:
        """A request handed over, whose room is reserved here."""
        if rank.hold or (rank.held + request.reserved > self.site.kv_tokens and rank.members):
            rank.hold.append(request)
            return
        self._take(rank, request)

    def _take(self, rank: Rank, request: Request) -> None:
        rank.held += request.reserved
        rank.members += 1
        self.join(rank, request)

    def _begin(self, rank: Rank, request: Request) -> None:
        rank.decoding += 1
        request.joined = request.input_tokens + 1.0 - self.per_slot * self.slot
        rank.base += request.joined
        slots = max(math.ceil((request.output_tokens - 1) / self.per_slot - 1e-9), 1)
        heapq.heappush(self.heap, (self.slot + slots, request.number, rank, request))

    def release(self, rank: Rank, request: Request) -> None:
        """The request needs no room here any more."""
        rank.held -= request.reserved
        rank.members -= 1
        if self.site.fills:
            self.replay.held(-request.reserved)
            self.admit(rank)

    # --- work -----------------------------------------------------------------------------------------------------

    def run(self) -> Events:
        """Passes while there are any, a step after each; steps while there is no pass; else nothing."""
        while True:
            due = self._due() if self.ready else math.inf
            if due <= self.env.now or (self.ready and not self.heap):
                yield from self._fill()
                if self.heap:
                    yield from self._step(1)
            elif self.heap:
                yield from self._step(self.heap[0][0] - self.slot, due)
            else:
                self._idle = self.env.event()
                yield self._idle

    def _due(self) -> float:
        """When the next pass starts."""
        if not self.site.patience_s:
            return 0.0
        chunk = self.site.chunk
        if all(sum(request.todo for request in rank.ready) >= chunk for rank in self.ranks):
            return 0.0
        return min(rank.ready[0].admitted_s for rank in self.ranks if rank.ready) + self.site.patience_s

    def _fill(self) -> Events:
        site = self.site
        fill = site.timing.fill
        assert fill is not None
        done: list[tuple[Rank, Request]] = []
        fullest = (0.0, 0.0, 0)
        for rank in self.ranks:
            left, requests, attended = site.chunk, 0, 0.0
            while rank.ready and left > 0 and requests < site.per_pass:
                request = rank.ready[0]
                tokens = min(request.todo, left)
                attended += tokens * (request.before + tokens / 2.0)
                request.todo -= tokens
                request.before += tokens
                left -= tokens
                requests += 1
                if request.todo:
                    break
                rank.ready.popleft()
                self.ready -= 1
                done.append((rank, request))
            taken = site.chunk - left
            if taken:
                rank.pending -= taken
                self.filled += taken
                fullest = max(fullest, (taken, attended / taken, requests))
        self.fill_room += site.chunk * site.dp
        tokens_, context, requests = fullest
        seconds = fill(tokens_, requests, context)
        self.fill_s += seconds
        self.until = self.env.now + seconds
        yield self.env.timeout(seconds)
        for rank, request in done:
            if site.pp > 1:
                self.replay.after((site.pp - 1) * seconds, self.replay.first_token, self, rank, request)
            else:
                self.replay.first_token(self, rank, request)
        for rank in self.ranks:
            if rank.waiting:
                self.admit(rank)

    def slot_seconds(self, ahead: float) -> float:
        """A decode step of the fullest rank, so many slots from now."""
        step, pp = self.site.timing.step, self.site.pp
        assert step is not None
        slot, most, tokens = self.slot + ahead, 0, 0.0
        for rank in self.ranks:
            if rank.decoding:
                most = max(most, rank.decoding)
                tokens = max(tokens, rank.base + rank.decoding * self.per_slot * slot)
        batch = -(-most // pp)
        return step(batch, tokens / (batch * pp))

    def _step(self, slots: int, until: float = math.inf) -> Events:
        from simpy import Interrupt

        start, env = self.env.now, self.env
        each = self.slot_seconds(slots / 2.0)
        if until < start + slots * each:
            slots = max(math.ceil((until - start) / each - 1e-9), 1)
        running = len(self.heap)
        self._cuts, self._stepping = slots > 1, True
        try:
            yield env.timeout(slots * each)
        except Interrupt:
            slots = min(max(math.ceil((env.now - start) / each - 1e-9), 1), slots)
            left = start + slots * each - env.now
            if left > 0.0:
                yield env.timeout(left)
        self._cuts = self._stepping = False
        self.step_s += slots * each
        self.sequence_s += running * slots * each
        self.slot += slots
        while self.heap and self.heap[0][0] <= self.slot:
            _, _, rank, request = heapq.heappop(self.heap)
            rank.decoding -= 1
            rank.base -= request.joined
            request.end_s = env.now
            self.release(rank, request)
            self.replay.done(request)
            self._fill_places(rank)
        joining, self._joining = self._joining, []
        for rank, request in joining:
            self.join(rank, request)

    def _fill_places(self, rank: Rank) -> None:
        while rank.hold and rank.decoding < self.site.sequences:
            request = rank.hold[0]
            if not self.site.fills:
                if rank.held + request.reserved > self.site.kv_tokens and rank.members:
                    break
                rank.held += request.reserved
                rank.members += 1
            rank.hold.popleft()
            self._begin(rank, request)


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
        self.peaks.decode_queue = max(self.peaks.decode_queue, len(place.hold))

    def done(self, request: Request) -> None:
        """The last token is there; its hashes are of no use any more."""
        self.in_flight -= 1
        request.blocks = ()
        self.finished.append(request)
        if self.on_done is not None:
            self.on_done(request)
