"""What a replay says, as models from which its JSON Schema is generated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Part):
    """Of the requests that count: mean and percentiles (ms); all ``null`` where none has such a time."""

    mean: Amount | None
    p50: Amount | None
    p90: Amount | None
    p95: Amount | None
    p99: Amount | None
    most: Amount | None


class Traffic(_Part):
    """What was replayed. ``counted``: requests after the warm-up; ``seed`` is ``null`` for a trace."""

    source: str
    kind: Literal["trace", "open loop", "closed loop"]
    requests: Count
    counted: Count
    rate_per_s: Amount | None
    variation: Amount | None
    clients: Count | None
    seed: int | None
    scale_rate: Amount
    duration_s: Amount
    input_tokens_mean: Amount
    output_tokens_mean: Amount


class Tier(_Part):
    """Of a prefix cache in one memory: room and hits, as share of all input tokens; ``written_bytes``: what came down to it."""

    tier: str
    blocks: Amount | None
    hit_rate: Share
    written_bytes: Amount


class Caches(_Part):
    """What prefix caches found. ``block_hit_rate``: of hashes, each for itself; ``drive_writes_per_day``: of the disks' part."""

    block_tokens: Count | None
    hit_rate: Share
    block_hit_rate: Share | None
    planned_hit_rate: Share
    reload_s: Amount
    longest_reload_wait_ms: Amount
    drive_writes_per_day: Amount | None
    tiers: list[Tier]


class PoolUse(_Part):
    """Shares of an instance's time, and how full passes and places for sequences were, in the mean."""

    pool: str
    instances: Count
    prefill_share: Share
    decode_share: Share
    idle_share: Share
    pass_fill: Share | None
    sequences_mean: Amount
    sequences_room: Count


class Peaks(_Part):
    """Most requests at once: waiting at one rank for prefill, at one rank for a place to decode, and anywhere."""

    prefill_queue: Count
    decode_queue: Count
    in_flight: Count


class Limit(_Part):
    """A limit on a mean or a percentile, and what was found (ms)."""

    name: Literal["ttft", "tpot"]
    at: str
    limit_ms: Amount
    found_ms: Amount | None
    met: bool


class Figures(_Part):
    """Means beside the replay's: of the plan at its own load, and of queueing theory at the load replayed (``null``: none)."""

    requests_per_s: Amount | None
    ttft_ms: Amount | None
    tpot_ms: Amount | None


class Replayed(_Part):
    """A replay. Requests/s, tokens/s and prices count what ended between the first and the last counted arrival."""

    model: str
    hardware: str
    traffic: Traffic
    requests_per_s: Amount
    output_tokens_per_s: Amount
    ttft_ms: Spread
    tpot_ms: Spread
    wait_ms: Spread
    limits: list[Limit]
    limits_met: bool
    goodput_requests_per_s: Amount
    goodput_share: Share
    caches: Caches
    pools: list[PoolUse]
    peaks: Peaks
    usd_per_hour: Amount
    usd_per_million_tokens: Amount | None
    usd_per_million_output: Amount | None
    planned: Figures
    theory: Figures | None
    notes: list[str]
