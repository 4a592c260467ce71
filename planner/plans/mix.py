"""A fleet of independent deployments on an inventory: what it says of itself, as pydantic models."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from planner.plans.schema import Amount, Bytes, Count, FrontPool, Number, Share


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Deployment(_Part):
    """``count`` deployments alike, each on ``units`` purchasable units; ``bound``: requests/s that none on so many exceeds.

    ``stored_bytes``: weights and caches of one by memory (tier ids, the devices' own first). ``plan`` is the whole plan of one,
    or ``file`` names where it was written.
    """

    units: Count
    count: Count
    requests_per_s: Amount
    bound_requests_per_s: Amount
    mode: Literal["aggregated", "disaggregated"]
    pools: list[FrontPool]
    stored_bytes: dict[str, Bytes]
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


class Worth(_Part):
    """What ``step`` more of a limit, in its unit, gains: USD an hour saved, or requests/s more without a demand; by solving again
    over the deployments found. Fleets are whole units, so less than a step may gain nothing."""

    step: Amount
    gain: Amount
    per_unit: Amount


class Reached(_Part):
    """A limit with what is used of it: the units of each pool at what one takes (``per_unit``, by pool)."""

    name: str
    used: Amount
    limit: Amount
    unit: str
    per_unit: dict[str, Amount]
    worth: Worth | None


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

    @model_validator(mode="after")
    def _adds_up(self) -> Mix:
        """The parts sum to the whole, and no limit is passed."""
        units = {pool.id: pool.units for pool in self.pools}
        for row in self.limits:
            if row.per_unit.keys() != units.keys():
                raise ValueError(f"limit {row.name}: per_unit names other pools than there are")
        sums: list[tuple[str, float, float]] = [
            (f"pool {p.id}: units", p.units, sum(d.units * d.count for d in p.deployments)) for p in self.pools
        ]
        sums += [
            (f"limit {row.name}: used", row.used, math.fsum(units[name] * each for name, each in row.per_unit.items()))
            for row in self.limits
        ]
        sums += [
            (name, getattr(self, name), math.fsum(getattr(pool, name) for pool in self.pools))
            for name in ("requests_per_s", "usd_per_hour", "capital_usd")
        ]
        for what, said, found in sums:
            if not math.isclose(said, found, rel_tol=1e-9, abs_tol=1e-12):
                raise ValueError(f"{what}: {said!r} is not {found!r}, what its parts sum to")
        for row in self.limits:
            if row.used > row.limit * (1.0 + 1e-9):
                raise ValueError(f"limit {row.name}: {row.used!r} is more than {row.limit!r}")
        return self

    def to_json(self) -> str:
        """Canonical text."""
        from planner.plans.numbers import to_json

        return to_json(self.model_dump(mode="json"))
