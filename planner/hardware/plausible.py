"""Figures far outside what the catalogue has of their kind: a slip of a unit or a prefix.

``plausible.toml`` holds, for each class of part and key, the lowest and highest value of the catalogue; a figure more than
``margin`` times below or above them is a fault, unless its note begins with ``confirmed:``. Figures of a system are counted
per device (of a host, a disk, a shared link, power and price), by what sets their size: the kind of a memory or link, for a
device, its power and its price the kind of its own memory. ``.ci/ranges.py`` writes the file anew from the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from planner.documents import parse_toml, read_text
from planner.hardware.kinds import Profile
from planner.hardware.parts import InterconnectPart, MemoryPart, Site
from planner.hardware.schema import DIMENSIONS, Device, DeviceProfile, System, Tier
from planner.quantities import Dimension, Figure, parse_quantity, readable

CONFIRMED = "confirmed:"
"""Begins the note of a figure that is right although it is far from every other."""
STAND_IN = "stands in for a faulty figure"
"""Source of a figure that ``planner lint`` puts in place of a faulty one."""
FILE = Path(__file__).with_name("plausible.toml")


class Observation(NamedTuple):
    """A figure at ``path`` of a profile, its class and key in the table, and its value as the table counts it."""

    path: str
    sort: str
    key: str
    figure: Figure
    per: int


class Strange(NamedTuple):
    """A figure outside its range: where it stands, what it is per device, and the catalogue's range."""

    path: str
    value: str
    range: str


def observations(profile: Profile) -> Iterator[Observation]:
    """Every known figure of a profile that has a class."""
    if isinstance(profile, System):
        kind = next(tier.kind for tier in profile.tiers if tier.role == "device")
        yield from _device(profile.device, kind, profile.tiers)
        for tier in profile.tiers:
            if tier.role != "device":
                yield from _figures(f"tier.{tier.id}", f"memory.{tier.kind}", tier, tier.devices_sharing)
        for link in profile.links:
            yield from _figures(f"link.{link.id}", f"link.{link.kind}", link, link.devices_sharing)
        for domain in profile.domains:
            size = "scale-out" if domain.devices is None else "scale-up"
            yield from _figures(f"domain.{domain.id}", f"domain.{size}", domain, 1)
        for key, figure in (("power", profile.power), ("capex", profile.capex)):
            yield Observation(key, f"device.{kind}", key, figure, profile.devices)
        for rent in profile.rents:
            each = profile.devices if rent.per == "system" else 1
            yield Observation(f"rent.{rent.id}.usd_per_hour", f"device.{kind}", "usd_per_hour", rent.usd_per_hour, each)
    elif isinstance(profile, DeviceProfile):
        yield from _device(profile, profile.memory[0].kind, profile.memory)
    elif isinstance(profile, MemoryPart):
        yield from _figures("", f"part.{profile.tier}", profile, 1)
        for price in profile.prices:
            yield Observation(f"price.{price.basis}", f"part.{profile.tier}", "usd_per_gb", price.usd_per_gb, 1)
    elif isinstance(profile, InterconnectPart):
        yield from _figures("", f"link.{profile.link or 'network'}", profile, 1)
    elif isinstance(profile, Site):
        yield from _figures("", "site", profile, 1)


def _device(device: Device, kind: str, tiers: Iterable[Tier]) -> Iterator[Observation]:
    for dtype, part in device.compute.items():
        yield Observation(f"compute.{dtype}.peak", f"device.{kind}", _SAME.get(dtype, dtype), part.peak, 1)
    for tier in tiers:
        if tier.role == "device":
            yield from _figures(f"memory.{tier.id}", f"memory.{tier.kind}", tier, 1)


_SAME = {"fp16": "bf16"}
_UNRANGED = ("p2p_efficiency",)
"""On a mesh it falls with every peer."""
_SHARED = ("usable", "read", "write", "iops", "bandwidth", "both_ways")


def _figures(path: str, sort: str, part: BaseModel, sharing: int) -> Iterator[Observation]:
    for key, value in part:
        if isinstance(value, Figure) and key not in _UNRANGED:
            place = f"{path}.{key}" if path else key
            yield Observation(place, sort, key, value, sharing if key in _SHARED else 1)


def _counted(profile: Profile) -> Iterator[Observation]:
    """Those of use: no gap, no estimate from other figures, no zero, nothing that stands in for a faulty one."""
    for seen in observations(profile):
        figure = seen.figure
        if figure.known and figure.value > 0.0 and figure.source != STAND_IN and not figure.source.startswith("estimate from "):
            yield seen


def derived(profiles: Iterable[Profile]) -> dict[str, dict[str, tuple[float, float]]]:
    """The lowest and highest that a value of each class and key may be, in SI: ends of intervals count."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for profile in profiles:
        for seen in _counted(profile):
            ends = seen.figure.lowest or seen.figure.value, seen.figure.highest
            low, high = found.setdefault(seen.sort, {}).get(seen.key, (math.inf, 0.0))
            found[seen.sort][seen.key] = (min(low, ends[0] / seen.per), max(high, ends[1] / seen.per))
    return {sort: dict(sorted(keys.items())) for sort, keys in sorted(found.items())}


def dimension_of(key: str) -> Dimension:
    """That of a key of the table: figures by name, peaks by dtype."""
    return DIMENSIONS.get(key, "flop_per_s")


@cache
def table() -> dict[str, Any]:
    """``plausible.toml`` as it is written."""
    return parse_toml(read_text(FILE), str(FILE))


def margin() -> float:
    """How many times outside the catalogue's range a figure may lie."""
    return float(table()["margin"])


def strange(profile: Profile) -> Iterator[Strange]:
    """Figures more than the margin outside the catalogue's range, but for confirmed ones."""
    allowed = margin()
    for seen in _counted(profile):
        ends = table()["range"].get(seen.sort, {}).get(seen.key)
        if ends is None or seen.figure.note.lower().startswith(CONFIRMED):
            continue
        dimension = dimension_of(seen.key)
        low, high = (parse_quantity(end, dimension) for end in ends)
        value = seen.figure.value / seen.per
        if not low / allowed <= value <= high * allowed:
            each = " a device" if seen.per > 1 else ""
            span = f"{readable(low, dimension)} to {readable(high, dimension)}"
            yield Strange(seen.path, f"{readable(value, dimension)}{each}", span)
