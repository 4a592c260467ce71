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
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from planner.replay.parts import Rank, Request, Site

if TYPE_CHECKING:
    from planner.replay.engine import Replay

Events = Generator[Any, Any, None]
AHEAD = 2.0
"""Chunks of prefill that a rank admits ahead, so that what comes from below device memory is there when its pass starts."""


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
            if not self.site.fills:  # who waits in a pool that only decodes has no room until it has a place
                rank.held -= request.reserved
                rank.members -= 1
            self._hold(rank, request)
        else:
            self._begin(rank, request)
        self.wake()

    def receive(self, rank: Rank, request: Request) -> None:
        """A request handed over; its room is reserved here once it has a place."""
        if rank.hold or not self._take(rank, request):
            self._hold(rank, request)
        else:
            self.join(rank, request)

    def _hold(self, rank: Rank, request: Request) -> None:
        rank.hold.append(request)
        self.replay.peaks.decode_queue = max(self.replay.peaks.decode_queue, len(rank.hold))

    def _take(self, rank: Rank, request: Request) -> bool:
        """Reserve room in a rank that only decodes, if it has any."""
        if rank.held + request.reserved > self.site.kv_tokens and rank.members:
            return False
        rank.held += request.reserved
        rank.members += 1
        return True

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
        if all(rank.ready for rank in self.ranks):
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
            if not self.site.fills and not self._take(rank, request):
                break
            rank.hold.popleft()
            self._begin(rank, request)
