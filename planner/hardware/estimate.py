"""Capital cost and power of a machine whose author gives none.

Both rest on a catalogue system that holds the same device: the profile that this one extends, else the one of the nearest
size. The estimate is that system's figure per device times the devices (the share), plus what the parts of the composed
memories add to it. The share has the memory that they replace in it, which must not count twice:

    value = max(share + parts - replaced, parts)
    low = min(low of the share, value)      high = high of the share + high of the parts

``replaced`` is what that system had in the same place (the row of that id, else of that role), priced the same way: as the
part that its own row names, else by its bytes as the new part where both are of one kind. Where it cannot be priced so, the
part is taken to replace it at no extra cost; where that system had nothing there, all of the part comes on top. Without a
profile to extend, low and high also span the share of every catalogue system that holds the device. Grade C; the note prints
the sum. A part without a price or power on record is left out, and the note says so. Where no system holds the device the
capital cost is marked as not known (planning then estimates it from power), and the power has to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from planner.hardware.compose import Use, names_parts, scaled
from planner.hardware.parts import MemoryPart, fitting_price
from planner.hardware.schema import System
from planner.quantities import Figure

if TYPE_CHECKING:
    from planner.hardware.source import ProfileSource


_UNPRICED = {"unknown": "neither the profile nor a catalogue system with this device says"}


class _Sum(NamedTuple):
    """``value`` is net of what is replaced, ``high`` and ``least`` are not: the parts on top of all, and the parts alone."""

    value: float
    high: float
    least: float
    words: list[str]
    dates: list[date]


class _Had(NamedTuple):
    """What the system that is scaled from had in the place of a part: so many units of a part, or nothing (``part`` is the new
    one and ``units`` 0), or something that cannot be priced (``part`` is ``None``)."""

    part: MemoryPart | None
    units: float
    what: str


def complete(data: dict[str, Any], path: Path, uses: Sequence[Use], source: ProfileSource) -> dict[str, Any]:
    """The system's table with ``capex``, its basis and ``power`` estimated where the author gives none."""
    result = dict(data)
    for key in ("capex", "power"):
        if key in data:
            continue
        shares, newer = _shares(data, path, key, source)
        if not shares:
            if key == "capex":
                result |= {
                    "capex": _UNPRICED | {"as_of": data.get("as_of")},
                    "capex_basis": data.get("capex_basis", "capex_street"),
                }
            continue  # of power the schema says that it is missing
        if key == "capex":
            result.setdefault("capex_basis", shares[0].capex_basis)
        counted = [use for use in uses if newer is None or use.row in newer]
        basis, on = str(result.get("capex_basis")), data.get("as_of")
        on = on if type(on) is date else date.max
        had = _had_by(shares[0], data, path, source)
        parts = _prices(counted, had, basis, on) if key == "capex" else _powers(counted, had)
        result[key] = _estimate(shares, key, int(data["devices"]), parts)
    return result


def _shares(data: dict[str, Any], path: Path, key: str, source: ProfileSource) -> tuple[list[System], set[str] | None]:
    """Systems to scale from, the best first; and the rows composed since, or ``None`` where the profile extends none of them."""
    if not isinstance(data.get("devices"), int) or isinstance(data["devices"], bool) or data["devices"] < 1:
        return [], None
    newer: set[str] = names_parts(source.raw(path))
    for base in source.chain(path):
        if key in source.document(base):
            return [source.read(base, System)], newer
        newer |= names_parts(source.raw(base))
    device = data.get("device")
    name = device.get("id") if isinstance(device, dict) else getattr(device, "id", None)
    found = [system for system in source.holders(str(name), path) if getattr(system, key).known]
    devices = data["devices"]
    return sorted(found, key=lambda system: (abs(system.devices - devices), system.id)), None


def _estimate(shares: list[System], key: str, devices: int, parts: _Sum) -> Figure:
    first = shares[0]
    figure: Figure = getattr(first, key)
    share = scaled(figure, devices / first.devices)
    if not figure.known:
        value = max(share.value + parts.value, parts.least)
        return share.model_copy(update={"value": value, "low": min(share.lowest, value), "high": share.highest + parts.high})
    each = [scaled(getattr(system, key), devices / system.devices) for system in shares]
    low, high = min(e.lowest for e in each), max(e.highest for e in each) + parts.high
    unit = "USD" if key == "capex" else "W"
    others = f", and {len(shares) - 1} others for the interval" if len(shares) > 1 else ""
    words = " ".join([f"{devices} / {first.devices} of {first.id} ({share.value:,.0f} {unit}{others})", *parts.words])
    value = max(share.value + parts.value, parts.least)
    oldest = min([day for day in (figure.as_of, *parts.dates) if day is not None], default=None)
    return Figure(
        value=value,
        low=min(low, value),
        high=max(high, value),
        source=f"estimate from {first.id} and its parts: {figure.source}",
        as_of=oldest,
        grade="D" if figure.grade == "D" else "C",
        note=f"estimate: {words}" + ("; high: nothing is replaced" if parts.words else ""),
    )


def _had_by(system: System, data: dict[str, Any], path: Path, source: ProfileSource) -> Callable[[Use], _Had]:
    """What ``system`` had in the place of a part, for as many devices as the new one has."""
    named = _named_parts(system.id, path, source)
    scale = int(data["devices"]) / system.devices
    roles = {str(row.get("id")): row.get("role") for row in data.get("tiers", ()) if isinstance(row, dict)}

    def had(use: Use) -> _Had:
        below = [tier for tier in system.tiers if tier.role != "device"]
        tier = next((tier for tier in below if tier.id == use.row), None)
        tier = tier or next((tier for tier in below if tier.role == roles.get(use.row)), None)
        if tier is None:
            return _Had(use.part, 0.0, "")
        what = f"what {system.id} had as {tier.id}"
        owners = scale * system.devices / tier.devices_sharing
        if tier.id in named:
            return _Had(named[tier.id][0], named[tier.id][1] * owners, what)
        if tier.kind != use.part.tier or not (tier.usable.known and use.part.usable.known):
            return _Had(None, 0.0, what)
        return _Had(use.part, tier.usable.value * owners / use.part.usable.value, what)

    return had


def _named_parts(system: str, path: Path, source: ProfileSource) -> dict[str, tuple[MemoryPart, int]]:
    """Part and units of each memory that the extended profile of that id is made of, by row."""
    found: dict[str, tuple[MemoryPart, int]] = {}
    for base in source.chain(path):
        document = source.document(base)
        if document.get("id") != system:
            continue
        for row in document.get("tier", ()):
            if isinstance(row, dict) and "part" in row:
                part = source.part(row["part"], base, "tier.part")
                if isinstance(part, MemoryPart):
                    found[str(row.get("id"))] = part, int(row.get("units", 1))
    return found


_Of = Callable[[MemoryPart], tuple[Figure, str] | None]


def _prices(uses: Sequence[Use], had: Callable[[Use], _Had], capex_basis: str, on: date) -> _Sum:
    """USD of the parts: units x usable GB x the price of the basis nearest to the system's."""

    def of(part: MemoryPart) -> tuple[Figure, str] | None:
        price = fitting_price(part, capex_basis, on)
        if price is None or not part.usable.known:
            return None
        figure = price.usd_per_gb
        return scaled(figure, part.usable.value / 1e9), f"{price.basis} {figure.value:.3g} USD/GB of {figure.as_of}"

    return _sum(uses, had, of, "USD", "price")


def _powers(uses: Sequence[Use], had: Callable[[Use], _Had]) -> _Sum:
    """Watts of the parts: units x the power of one."""

    def of(part: MemoryPart) -> tuple[Figure, str] | None:
        power = part.power
        return (power, f"{power.value:g} W each") if power is not None and power.known else None

    return _sum(uses, had, of, "W", "power")


def _sum(uses: Sequence[Use], had: Callable[[Use], _Had], of: _Of, unit: str, what: str) -> _Sum:
    value = high = least = 0.0
    words, dates = [], []
    for use in uses:
        found, count = of(use.part), use.units * use.owners
        if found is None:
            words.append(f"+ {count} x {use.part.id} (no {what} on record, left out)")
            continue
        figure, how = found
        new, old = count * figure.value, had(use)
        high, least = high + count * figure.highest, least + new
        words.append(f"+ {count} x {use.part.id} at {how} ({new:,.0f} {unit})")
        dates += [figure.as_of] if figure.as_of is not None else []
        before = of(old.part) if old.part is not None else None
        if before is None:  # at no extra cost
            words.append(f"- as much for {old.what}, whose {what} is not known apart")
            continue
        gone = old.units * before[0].value
        value += new - gone
        if old.units and old.part is not None:
            words.append(f"- {old.units:.4g} x {old.part.id} for {old.what} ({gone:,.0f} {unit})")
    return _Sum(value, high, least, words, dates)
