"""What ``planner fleet`` says, from which its JSON Schema is generated."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from planner.plans.schema import Amount, Count, Interval, Number, Share, StreamPrices


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


class CostByStream(_Part):
    """USD a day; they sum to ``usd_per_day``."""

    input_hit: Amount
    input_miss: Amount
    output: Amount


class FleetMemory(_Part):
    """Memory of one kind in the systems, whether it is used or not: ``tokens_per_day_per_tb`` of full copies, and the bytes that
    one token a second, on average over their day, takes."""

    memory: str
    installed_bytes: Amount
    tokens_per_day_per_tb: Amount
    bytes_per_token_per_s: Amount


class BudgetWorth(_Part):
    """What more of a budget serves a day, per unit of it, and with a sheet what that earns after cost (which may be a loss).

    Copies are whole, so it comes in steps of ``copy_takes``, and holds until the budget is ``valid_to`` (``null``: without end),
    where another binds.
    """

    tokens_per_day: Amount
    usd_per_day: Number | None
    valid_to: Amount | None
    copy_takes: Amount


class FleetBudget(_Part):
    """A budget with what is used of it; it would hold ``copies``, and ``binds`` where those are all there are."""

    budget: str
    unit: str
    limit: Amount
    used: Amount
    left: Amount
    copies: Count
    binds: bool
    worth: BudgetWorth | None


class SignedInterval(_Part):
    """10th percentile, median and 90th percentile; ``null`` where undefined."""

    low: Number | None
    expected: Number
    high: Number | None


class MarginStream(_Part):
    """Of one stream; no margin where it costs nothing."""

    revenue_usd: Amount
    cost_usd: Amount
    margin: Number | None


class Sheet(_Part):
    """Prices per million tokens in ``currency``, ``per_usd`` of it for one USD (``null``: it is USD)."""

    id: str
    provider: str
    model: str
    period: str
    since: str
    until: str | None
    currency: str
    peak_share: Share | None
    per_million: dict[str, Amount]
    per_usd: Amount | None
    rate_as_of: str | None
    lowest_grade: Literal["A", "B", "C", "D"]
    sources: list[str]


class Margin(_Part):
    """``margin`` = ``revenue_usd / cost_usd - 1``; ``revenue`` in the sheet's currency. The streams sum to both."""

    sheet: Sheet
    revenue: Amount
    revenue_usd: Amount
    cost_usd: Amount
    margin: SignedInterval
    by_stream: dict[str, MarginStream]


class Fleet(_Part):
    """``copies`` of the deployment of a plan that serve the tokens, and what they take.

    ``needed``: copies each phase needs before rounding; ``used``: what the tokens take of the copies' hours of service.
    ``megawatts``: what the site draws on average, with its PUE; ``megawatts_provisioned``: stated power with PUE.
    ``usd_per_day`` is the whole cost, and ``usd_per_day_by_cause`` sums to it; ``installed_capex_usd`` is paid at once and is in
    it by the year, and 0 where hardware is rented, as ``capex_usd`` is. Without a number of tokens asked, ``sized_by`` budgets:
    the copies are given, and the tokens that they serve are uncertain (``tokens_per_day_interval``). ``margin`` is of a day.
    """

    model: str
    workload: str
    sized_by: Literal["tokens", "budgets"]
    tokens_per_day: TokensPerDay
    tokens_per_day_interval: Interval
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
    usd_per_day_by_cause: dict[str, Amount]
    usd_per_day_by_stream: CostByStream
    usd_per_million: StreamPrices
    blended_interval: Interval
    allocation: str
    basis: str
    currency: str
    as_of: str
    tokens_per_s_per_device: Amount
    memories: list[FleetMemory]
    budgets: list[FleetBudget]
    margin: Margin | None
    notes: list[str]
