"""A fleet of independent deployments on an inventory: what it says of itself, as pydantic models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from planner.plans.schema import Amount, Count, FrontPool, Number, Share


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Deployment(_Part):
    """``count`` deployments alike, each on ``units`` purchasable units; ``bound``: requests/s that none on so many exceeds.

    ``plan`` is the whole plan of one, or ``file`` names where it was written.
    """

    units: Count
    count: Count
    requests_per_s: Amount
    bound_requests_per_s: Amount
    mode: Literal["aggregated", "disaggregated"]
    pools: list[FrontPool]
    tpot_ms: Amount
    ttft_ms: Amount
    plan: dict[str, Any] | None = None
    file: str | None = None


class PoolUse(_Part):
    """What is used of one pool of the inventory; ``share`` of the load it carries."""

    id: str
    hardware: str
    region: str | None
    payment: Literal["rented", "sunk", "bought"]
    price: dict[str, Any]
    units: Count
    units_available: Count
    devices_per_unit: Count
    requests_per_s: Amount
    share: Share
    usd_per_hour: Amount
    capital_usd: Amount
    power_kw: Amount
    deployments: list[Deployment]


class Reached(_Part):
    """A limit with what is used of it."""

    name: str
    used: Amount
    limit: Amount
    unit: str


class Mix(_Part):
    """Which pools of an inventory to use, for a demand at least cost an hour, or for the most requests/s within limits.

    ``bound`` holds for every fleet of deployments of up to ``most_units`` units each; ``gap`` = ``|value - bound| / |value|``.
    """

    schema_version: Literal[1]
    model: str
    workload: str
    inventory: str
    objective: Literal["cost", "rate"]
    unit: str
    value: Number
    bound: Number
    gap: Amount
    gap_allowed: Share
    proved: bool
    most_units: Count
    demand_requests_per_s: Amount | None
    requests_per_s: Amount
    usd_per_hour: Amount
    usd_per_million_tokens: Amount
    capital_usd: Amount
    pools: list[PoolUse]
    limits: list[Reached]
    versions: dict[str, str]
    stopped: str | None = None

    def to_json(self) -> str:
        """Canonical text."""
        from planner.plans.numbers import to_json

        return to_json(self.model_dump(mode="json"))
