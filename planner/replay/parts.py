"""What a replay is made of: requests, ranks, pools as instances see them, memories of a prefix cache."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from planner.replay.timing import Timing


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
    """A pass beside decode starts once every rank has a request for it, or one has been ready for so long."""

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
