"""What ``planner fleet`` says, from which its JSON Schema is generated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from planner.plans.schema import Amount, Count, Interval, Share, StreamPrices


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokensPerDay(_Part):
    """Tokens to be served in a day, by stream."""

    input_hit: Amount
    input_miss: Amount
    output: Amount
    total: Amount


class FleetHardware(_Part):
    """Of one kind of hardware: whole purchasable units, and what they are in devices, nodes and systems (racks)."""

    hardware: str
    units: Count
    devices_per_unit: Count
    devices: Count
    nodes: Count
    systems: Count
    capex_usd: Amount
    stated_megawatts: Amount


class CostByCause(_Part):
    """USD a day; they sum to ``usd_per_day``."""

    capital: Amount
    electricity: Amount
    maintenance: Amount
    staff: Amount


class CostByStream(_Part):
    """USD a day; they sum to ``usd_per_day``."""

    input_hit: Amount
    input_miss: Amount
    output: Amount


class Fleet(_Part):
    """``copies`` of the deployment of a plan that serve the tokens, and what they take.

    ``needed``: copies each phase needs before rounding; ``used``: what the tokens take of the copies' hours of service.
    ``megawatts``: what the site draws on average, with its PUE; ``megawatts_provisioned``: stated power with PUE.
    ``usd_per_day`` is the whole owned cost; ``installed_capex_usd`` is paid at once and is in it by the year.
    """

    model: str
    workload: str
    tokens_per_day: TokensPerDay
    utilisation: Share
    copies: Interval
    needed: dict[str, Amount]
    used: dict[str, Amount]
    share_of_capacity: Amount
    devices: Interval
    units: list[FleetHardware]
    pue: Amount
    power_utilisation: Amount
    megawatts: Interval
    megawatts_provisioned: Amount
    capex_usd: Interval
    installed_capex_usd: Amount
    usd_per_day: Interval
    usd_per_day_by_cause: CostByCause
    usd_per_day_by_stream: CostByStream
    usd_per_million: StreamPrices
    blended_interval: Interval
    allocation: str
    basis: str
    currency: str
    as_of: str
    tokens_per_s_per_device: Amount
    notes: list[str]
