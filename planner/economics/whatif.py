"""What a finished plan's tokens cost at other prices of its hardware and its power; the deployment stays as it is.

An hour of owned hardware is linear in every price, ``H = sum_k H_k``: with price ``k`` times ``m_k`` it is ``sum_k m_k H_k``, and

    d ln H / d ln p_k = H_k / H

A pool's capital, maintenance and staff follow its capital cost, which is split into lines by price; electricity is the line of
``power``. The tokens served do not depend on prices, so USD per million over all tokens move as ``H`` does. Where prefill and
decode stand on hardware of their own, a stream moves as the hour of its pool does, idle units being charged in the proportion
``s : 1 - s`` of both: ``s' = s f_p / (s f_p + (1 - s) f_d)`` with the pools' factors ``f``, and to first order

    d ln input / d ln p_k = H_k / H + (1 - s) (P_k / P - D_k / D)        d ln output / d ln p_k = H_k / H - s (P_k / P - D_k / D)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.economics.owned import HourlyCost
from planner.errors import InputError
from planner.hardware import System
from planner.hardware.installed import installed_bytes

PRICES = ("gpu", "hbm", "gddr", "lpddr", "nand", "rest", "power", "rent")
"""What has a price of its own. ``gpu`` is a device less its memory; ``rest`` is what no other price covers; ``power`` is kWh, or
kW and month where that is how it is paid; ``rent`` is the one price of a rented hour."""
PRICE_OF_KIND = {"hbm": "hbm", "gddr": "gddr", "lpddr": "lpddr", "ddr": "lpddr", "cxl": "lpddr", "hbf": "nand", "ssd": "nand"}
"""The price that a memory's capacity follows."""


@dataclass(frozen=True)
class Pool:
    """USD per hour by price of all units of one kind of hardware; they sum to its hour."""

    hardware: str
    lines: Mapping[str, float]

    @property
    def hour(self) -> float:
        """USD per hour."""
        return math.fsum(self.lines.values())

    def factor(self, changes: Mapping[str, float]) -> float:
        """The hour at changed prices (fractions: 0.2 is a fifth more) over the hour as it is."""
        return math.fsum(usd * (1.0 + changes.get(name, 0.0)) for name, usd in self.lines.items()) / self.hour


@dataclass(frozen=True)
class Streams:
    """One number for input (hits and misses alike), one for output, one for all tokens."""

    input: float
    output: float
    blended: float


def memory_bytes(system: System) -> dict[str, float]:
    """Usable bytes of a whole system by kind of memory that has a price; what it reaches over a network is not its own."""
    return {kind: size for kind, size in installed_bytes(system).items() if kind in PRICE_OF_KIND}


def capex_by_price(system: System, usd_per_gb: Mapping[str, float]) -> dict[str, float]:
    """A system's capital cost (USD) by price; it sums to ``capex``.

    Each memory is worth its usable bytes at ``usd_per_gb`` of its kind. Where the profile has a line ``memory``, this is the
    capital of host and disk memories, in the proportion of what they are worth; where it has ``gpu``, this is that of the devices
    with their memory. ``InputError`` where the memories are worth more than what they are part of.
    """
    own = system.tiers[0].kind
    worth: dict[str, float] = {}
    for kind, size in memory_bytes(system).items():
        if kind in usd_per_gb:
            name = PRICE_OF_KIND[kind]
            worth[name] = worth.get(name, 0.0) + size / 1e9 * usd_per_gb[kind]
    lines = {line.id: line.capex.value for line in system.capex_lines}
    device = PRICE_OF_KIND.get(own, "")
    shared = {name: usd for name, usd in worth.items() if name != device}
    if "memory" in lines and shared:
        scale = lines["memory"] / math.fsum(shared.values())
        worth |= {name: usd * scale for name, usd in shared.items()}
    if "gpu" in lines:
        worth["gpu"] = lines["gpu"] - worth.get(device, 0.0)
    worth["rest"] = system.capex.value - math.fsum(worth.values())
    for name in ("gpu", "rest"):
        if worth.get(name, 0.0) < -1e-9 * system.capex.value:
            what = f"its memory comes to more than the {system.capex.value:,.0f} USD that {system.id} or its devices cost"
            raise InputError(what, where="memory", mend="name cheaper parts with --memory, or an earlier --date")
        worth[name] = max(worth.get(name, 0.0), 0.0)
    return {name: worth[name] for name in PRICES if worth.get(name)}


def pool_by_price(hardware: str, capex: Mapping[str, float], hour: HourlyCost, systems: float) -> Pool:
    """The hour of so many systems by price: what recurs with the capital cost in proportion to it, and electricity or colocation;
    or a rent."""
    if hour.rent:
        return Pool(hardware, {"rent": hour.rent * systems})
    follows = (hour.capital + hour.maintenance + hour.staff) / math.fsum(capex.values()) * systems
    return Pool(
        hardware, {name: usd * follows for name, usd in capex.items()} | {"power": (hour.electricity + hour.colocation) * systems}
    )


def elasticities(pools: tuple[Pool, ...], index: int, price: str, input_share: float) -> Streams:
    """``d ln USD per million / d ln price`` of one pool's line; summed over lines and pools they are 1.

    ``pools``: one that runs both phases, or prefill's and decode's.
    """
    total = math.fsum(pool.hour for pool in pools)
    usd = pools[index].lines.get(price, 0.0)
    blended, skew = usd / total, 0.0
    if len(pools) == 2:
        skew = usd / pools[index].hour * (1.0 if index == 0 else -1.0)
    return Streams(blended + (1.0 - input_share) * skew, blended - input_share * skew, blended)


def factors(pools: tuple[Pool, ...], changes: Mapping[str, float], input_share: float) -> Streams:
    """USD per million at changed prices over that as it is (exact, not first order)."""
    blended = math.fsum(pool.factor(changes) * pool.hour for pool in pools) / math.fsum(pool.hour for pool in pools)
    first, last = pools[0].factor(changes), pools[-1].factor(changes)
    mean = input_share * first + (1.0 - input_share) * last
    if mean <= 0.0:
        return Streams(0.0, 0.0, 0.0)
    return Streams(blended * first / mean, blended * last / mean, blended)


def break_even_scale(blended: float, power_share: float, other: float) -> float | None:
    """What the capital cost of hardware is to be multiplied with for its tokens to cost what the others do.

    ``blended`` and ``other``: USD per million of the one and the other; ``power_share``: of electricity in the former's hour.
    ``None`` where its electricity or colocation alone costs as much, so that no price is low enough.
    """
    power = blended * power_share
    scale = (other - power) / (blended - power) if blended > power else -1.0
    return scale if scale > 0.0 else None


@dataclass(frozen=True)
class Scenario:
    """A named set of price changes (fractions) and where it comes from."""

    changes: Mapping[str, float]
    source: str
    note: str


SCENARIOS = {
    "memory-435": Scenario(
        {"lpddr": 4.35, "nand": 4.35},
        "Morgan Stanley, May 2026 (https://girlswars.com/?p=14864); its scope: SemiAnalysis, May 2026 "
        "(https://aihot.virxact.com/items/cmph8czm60m74sljwd8ck86ty)",
        "the line of LPDDR5X and NVMe of a VR200 rack over that of a GB300 rack; HBM is not in it, and as there is about 3.1 "
        "times as much LPDDR the price of a byte rose less",
    )
}
"""Changes of prices that sources speak of."""
