"""The plan file: the contract's shape as pydantic models, from which its JSON Schema is generated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Phase = Literal["prefill", "decode", "mixed"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Part):
    """10th percentile, median and 90th percentile; ``null`` where undefined."""

    low: Amount | None
    expected: Amount
    high: Amount | None


class Configuration(_Part):
    """Parallelism and batch of one pool; 0 where a pool does not decode or prefill."""

    tp: Count
    pp: Count
    ep: Count
    attention_dp: Count
    context_parallel: Count
    batch_per_rank: Count
    prefill_tokens_per_rank: Count
    mtp: Count
    redundant_experts: Count
    kv_dtype: str
    period_limit_ms: Amount | None
    prefix_cache_point: Count | None = None
    prefix_cache_requests_per_s: Amount | None = None


class PlacementRow(_Part):
    """``bytes`` = ``item_bytes`` x ``share`` x ``copies``, rounded to whole bytes."""

    item: str
    tier: str
    share: Share
    copies: Annotated[int | float, Field(ge=0)]
    item_bytes: Bytes
    bytes: Bytes
    max_bytes_per_device: Bytes
    access: str


class Pool(_Part):
    """Devices that serve one phase, or all (``mixed``)."""

    phase: Phase
    hardware: str
    replicas: Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
    devices: Count
    configuration: Configuration
    dtypes: dict[str, Any]
    placement: list[PlacementRow]
    memory: dict[str, Any]
    step: dict[str, Any]
    placement_basis: Annotated[str, Field(max_length=4096)] | None


class Units(_Part):
    """Purchasable units of one kind of hardware."""

    hardware: str
    units: Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
    devices_per_unit: Count


class Times(_Part):
    """Mean time to first token and per output token."""

    ttft_ms: Interval
    tpot_ms: Interval


class LoadRow(_Part):
    """Means at so many random requests/s, ``share`` of the capacity; ``null`` where passes that take so long do not carry them.
    ``decoding``: sequences that decode at once."""

    share: Amount
    requests_per_s: Amount
    prefill_wait_ms: Amount
    ttft_ms: Interval | None
    tpot_ms: Interval | None
    decoding: Amount | None
    prefill_busy: Amount | None


class RandomArrivals(_Part):
    """Poisson arrivals of requests alike. ``most_requests_per_s``: that keep the workload's limits, up to the capacity;
    ``prefill_wait_ms``: how long a request waits for those of other ranks of an aggregated instance before its pass starts, at
    most; of the rate asked or the capacity, and of each load."""

    most_requests_per_s: Amount
    prefill_wait_ms: Amount
    loads: list[LoadRow]


class Prediction(Times):
    """Steady state of the whole deployment: times are those of ``load``, at the rate asked or with full batches."""

    output_tokens_per_s: Interval
    output_tokens_per_s_per_device: Interval
    tokens_per_s_per_user: Interval
    requests_per_s: Amount
    capacity_requests_per_s: Amount
    concurrency: Amount
    prefill_busy: Amount
    load: Literal["full batches", "random arrivals"]
    full_batches: Times
    random_arrivals: RandomArrivals
    evidence: str
    expected_low_high: str


class StreamPrices(_Part):
    """USD per million tokens; ``null`` for a stream without tokens (see ``null_reasons``)."""

    input_hit: Amount | None
    input_miss: Amount | None
    output: Amount | None
    blended: Amount


class CacheShare(_Part):
    """What a cache takes of a memory of its pool's devices, and what of the line's hour that is; ``null``: see ``reason``."""

    item: str
    tier: str
    bytes: Bytes
    share: Amount
    usd_per_hour: Amount | None
    reason: str


class CostLine(_Part):
    """USD per hour of the devices of a pool, of those kept idle for when one fails, or of those no pool uses, by cause."""

    pool: Literal["prefill", "decode", "mixed", "spare", "idle"]
    hardware: str
    devices: Count
    usd_per_hour: Amount
    by_cause: dict[str, Amount]
    of_which: list[CacheShare] | None = None


class RentRow(_Part):
    """The offer that a system's hour is charged at. ``usd_per_hour``: of the whole system, with the spread of all ``offers``."""

    hardware: str
    basis: str
    provider: str
    per: Literal["device", "system"]
    quoted_usd_per_hour: Amount
    usd_per_hour: Interval
    offers: Count
    as_of: str
    grade: str
    source: str


class Cost(_Part):
    """Cost of the deployment and its split over token streams; ``lines`` sum to ``usd_per_hour``.

    ``capital`` is empty where hardware is rented, ``rents`` absent where it is owned.
    """

    usd_per_million: StreamPrices
    null_reasons: dict[str, str]
    blended_interval: Interval
    basis: str
    currency: str
    as_of: str
    utilisation: Share
    allocation: str
    usd_per_hour: Amount
    devices_paid: Count
    input_share: Share
    tokens_per_request: dict[str, Number]
    lines: list[CostLine] = []
    capital: list[dict[str, Any]]
    rents: list[RentRow] | None = None
    defaults: dict[str, Number]


class CertificateRow(_Part):
    """Proved against the model, not the machine: ``gap`` = ``|objective - bound| / |objective|``."""

    objective: Number
    unit: str
    bound: Number
    gap: Amount
    gap_allowed: Share
    proved: bool
    space: dict[str, Any]
    nodes: dict[str, Annotated[str, Field(max_length=4096)]]
    meaning: str
    stopped: str | None = None


class Bottleneck(_Part):
    """Share of a phase's time that a resource sets."""

    pool: Phase
    phase: Literal["prefill", "decode"]
    resource: str
    share: Share


class ShadowPrice(_Part):
    """What one more unit of a resource, on each device of the pool, changes; valid within the stated range. Of a system
    (``pool``: the key of its hardware) one more purchasable unit, per unit and hour."""

    pool: Phase
    resource: str
    unit: str
    objective_per_unit: Number
    usd_per_hour_per_unit: Number
    valid_from: Number
    valid_to: Number | None


class FrontPool(_Part):
    """What it takes to work a pool out again."""

    phase: Phase
    replicas: Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
    devices: Count
    configuration: Configuration
    placement_basis: Annotated[str, Field(max_length=4096)] | None


class FrontPoint(_Part):
    """The best deployment within a TPOT limit (``null``: none); ``bound`` holds for everything in the space within that limit."""

    tpot_limit_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    tokens_per_s_per_user: Amount
    tpot_ms: Amount
    ttft_ms: Amount
    usd_per_million_blended: Amount
    output_tokens_per_s_per_device: Amount
    objective: Number
    bound: Number
    gap: Amount
    units: Annotated[list[Annotated[int, Field(ge=1, le=10_000_000, strict=True)]], Field(min_length=1, max_length=2)]
    pools: Annotated[list[FrontPool], Field(min_length=1, max_length=2)]
    nodes: dict[str, Annotated[str, Field(max_length=4096)]]


class Pareto(_Part):
    """Cost or throughput against tokens/s of one user, fastest first; ``proved``: every gap is within the one allowed."""

    objective: Literal["cost", "throughput"]
    unit: str
    proved: bool
    points: Annotated[list[FrontPoint], Field(min_length=1, max_length=50)]
    stopped: str | None = None


class ExpertLoads(_Part):
    """Fullest rank over the mean: of the map, mean and worst of the layers, and what no map goes below."""

    mean: Number
    worst: Number
    bound: Number


class SlotsBelow(_Part):
    """Slots of every layer that lie in a tier below device memory."""

    tier: str
    slots: list[list[Count]]


class Experts(_Part):
    """Where the experts of a pool's instances lie. Slot i of a layer is place ``i % slots_per_rank`` of rank
    ``i // slots_per_rank``; ``split`` is ``null`` where copies of an expert serve alike; ``sha256`` is the map's fingerprint."""

    pool: Phase
    ranks: Annotated[int, Field(ge=1, le=65536, strict=True)]
    slots_per_rank: Annotated[int, Field(ge=1, le=4096, strict=True)]
    layers: list[Count]
    physical_to_logical: list[list[Count]]
    split: list[list[Share]] | None
    sha256: str
    fullest_over_mean: ExpertLoads
    below: list[SlotsBelow]


class PrefixTier(_Part):
    """What of a prefix cache lies in one memory: share of its tokens, share of its hits, and how long in a prefill pass of the
    slowest stage the busiest part on the way carries what is brought back (hidden: no pass is shorter than that)."""

    tier: str
    share: Share
    hits: Share
    bytes: Bytes
    reload_bytes_per_pass: Amount
    reload_ms_per_pass: Amount
    share_of_pass: Amount


class PrefixCacheRow(_Part):
    """The prefix cache of a pool. ``tokens`` and ``bytes``: of all its ranks; ``retention_s``: how long an entry is kept, every
    request leaving its computed and generated tokens; ``requests_per_s``: what the cache is sized for."""

    pool: Phase
    point: Count
    hit_rate: Share
    tokens_per_request_per_s: Amount
    requests_per_s: Amount
    tokens_per_rank: Amount
    tokens: Amount
    bytes: Bytes
    retention_s: Amount
    tiers: list[PrefixTier]


class Loss(_Part):
    """What remains when a node, unit or system of a pool fails: requests/s and their share of what is served, before and after
    as many of the lost instances as idle devices hold have started again."""

    pool: Phase
    fails: Literal["node", "unit", "system"]
    devices_lost: Count
    instances: Count
    instances_lost: Count
    instances_restarted: Count
    requests_per_s: Amount
    requests_per_s_restarted: Amount
    share: Share
    share_restarted: Share


class WorstCase(_Part):
    """With every figure of profile and runtime at its slow end; what the plan was chosen for with ``--robust intervals``."""

    requests_per_s: Amount
    output_tokens_per_s: Amount
    ttft_ms: Amount
    tpot_ms: Amount
    concurrency: Amount
    usd_per_hour: Amount
    usd_per_million_blended: Amount


class RobustRow(_Part):
    """How one of several workloads fares on the deployment, at a batch and a placement of its own; ``nodes``: those that a
    placement closed for it."""

    workload: str
    objective: Number
    prediction: Prediction
    usd_per_million: StreamPrices
    blended_interval: Interval
    pools: Annotated[list[FrontPool], Field(min_length=1, max_length=2)]
    nodes: dict[str, Annotated[str, Field(max_length=4096)]]


class Moved(_Part):
    """What each of so many devices takes in; ``seconds`` is ``null`` where no network is described."""

    pool: Phase
    devices: Count
    bytes: Bytes
    kept_bytes: Bytes
    by_source: dict[str, Bytes]
    seconds: Amount | None


class MapOf(_Part):
    """Which of the transition's maps a pool of an alternative has."""

    pool: Phase
    map: Count


class Alternative(_Part):
    """The best deployment under ``pins``; ``bound`` holds for everything in the space that they leave."""

    name: str
    pins: list[str]
    bytes: Bytes
    by_source: dict[str, Bytes]
    seconds: Amount | None
    objective: Number
    bound: Number
    gap: Amount
    units: Annotated[list[Annotated[int, Field(ge=1, le=10_000_000, strict=True)]], Field(min_length=1, max_length=2)]
    pools: Annotated[list[FrontPool], Field(min_length=1, max_length=2)]
    maps: Annotated[list[MapOf], Field(max_length=2)]
    nodes: dict[str, Annotated[str, Field(max_length=4096)]]


class SlotMap(_Part):
    """Experts on the ranks of an instance, as in ``Experts``."""

    ranks: Annotated[int, Field(ge=1, le=65536, strict=True)]
    slots_per_rank: Annotated[int, Field(ge=1, le=4096, strict=True)]
    physical_to_logical: list[list[Count]]
    split: list[list[Share]] | None


class Transition(_Part):
    """What moves when this plan takes over from the one before, and what else there was to choose from, by bytes moved."""

    replaces: dict[str, Any]
    bytes: Bytes
    kept_bytes: Bytes
    by_item: dict[str, Bytes]
    by_source: dict[str, Bytes]
    seconds: Amount | None
    devices: list[Moved]
    chosen: str
    alternatives: Annotated[list[Alternative], Field(min_length=1, max_length=8)]
    maps: Annotated[list[SlotMap], Field(max_length=16)]
    stopped: str | None = None


class Plan(_Part):
    """A deployment plan. ``inputs`` embeds everything it was computed from; no paths."""

    schema_version: Literal[1]
    model: str
    hardware: str
    workload: str
    objective: Literal["cost", "throughput", "latency"]
    mode: Literal["aggregated", "disaggregated"]
    units: Annotated[list[Units], Field(min_length=1, max_length=2)]
    pools: Annotated[list[Pool], Field(min_length=1, max_length=2)]
    idle_devices: Annotated[int, Field(strict=True)]
    prediction: Prediction
    cost: Cost
    certificate: CertificateRow
    bottlenecks: list[Bottleneck]
    shadow_prices: list[ShadowPrice]
    resilience: Annotated[list[Loss], Field(min_length=1, max_length=2)]
    worst_case: WorstCase | None = None
    robust: Annotated[list[RobustRow], Field(min_length=2, max_length=16)] | None = None
    experts: list[Experts] | None = None
    prefix_cache: Annotated[list[PrefixCacheRow], Field(max_length=1)] | None = None
    explanation: dict[str, Any]
    pareto: Pareto | None = None
    transition: Transition | None = None
    provenance: dict[str, Any]
    versions: dict[str, str]
    inputs: dict[str, Any]

    def to_data(self) -> dict[str, Any]:
        """Plain data in the plan's own key order."""
        return self.model_dump(mode="json", exclude_unset=True)

    def to_json(self) -> str:
        """The canonical text of the plan file."""
        from planner.plans.numbers import to_json

        return to_json(self.to_data())
