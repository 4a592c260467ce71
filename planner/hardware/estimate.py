"""Capital cost and power of a machine whose author gives none.

Both rest on a catalogue system that holds the same device: the profile that this one extends, else the one of the nearest
size. The estimate is that system's figure per device times the devices, plus what the parts of the composed memories add:

    value = share + parts      low = low of the share      high = high of the share + high of the parts

The share has some memory of its own in it, which is not known apart: the low end takes the parts to replace it at no
extra cost, value and high take them to come on top. Without a profile to extend, low and high also span the share of
every catalogue system that holds the device. Grade C; the note prints the sum. A part without a price or power on record
is left out, and the note says so. Where no system holds the device the capital cost is marked as not known (planning
then estimates it from power), and the power has to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from planner.hardware.compose import Use, names_parts, scaled
from planner.hardware.parts import fitting_price
from planner.hardware.schema import System
from planner.quantities import Figure

if TYPE_CHECKING:
    from planner.hardware.loader import ProfileSource


_UNPRICED = {"unknown": "neither the profile nor a catalogue system with this device says"}


class _Sum(NamedTuple):
    value: float
    high: float
    words: list[str]
    dates: list[date]


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
        parts = _prices(counted, basis, on) if key == "capex" else _powers(counted)
        result[key] = _estimate(shares, key, int(data["devices"]), parts, newer is not None)
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


def _estimate(shares: list[System], key: str, devices: int, parts: _Sum, extends: bool) -> Figure:
    first = shares[0]
    figure: Figure = getattr(first, key)
    share = scaled(figure, devices / first.devices)
    if not figure.known:
        added = {"value": share.value + parts.value, "low": share.lowest, "high": share.highest + parts.high}
        return share.model_copy(update=added)
    each = [scaled(getattr(system, key), devices / system.devices) for system in shares]
    low, high = min(e.lowest for e in each), max(e.highest for e in each) + parts.high
    unit = "USD" if key == "capex" else "W"
    others = f", and {len(shares) - 1} others for the interval" if len(shares) > 1 else ""
    words = " + ".join([f"{devices} / {first.devices} of {first.id} ({share.value:,.0f} {unit}{others})", *parts.words])
    newest = max([day for day in (figure.as_of, *parts.dates) if day is not None], default=None)
    return Figure(
        value=share.value + parts.value,
        low=min(low, share.value + parts.value),
        high=high,
        source=f"estimate from {first.id} and its parts: {figure.source}",
        as_of=newest,
        grade="D" if figure.grade == "D" else "C",
        note=f"estimate: {words}" + ("" if not extends or not parts.words else "; low: the parts replace what that system had"),
    )


def _prices(uses: Sequence[Use], capex_basis: str, on: date) -> _Sum:
    """USD of the parts: units x usable GB x the price of the basis nearest to the system's."""

    def of(use: Use) -> tuple[Figure, str] | None:
        price = fitting_price(use.part, capex_basis, on)
        if price is None:
            return None
        figure = price.usd_per_gb
        return scaled(figure, use.part.usable.value / 1e9), f"{price.basis} {figure.value:.3g} USD/GB of {figure.as_of}"

    return _sum(uses, of, "USD", "price")


def _powers(uses: Sequence[Use]) -> _Sum:
    """Watts of the parts: units x the power of one."""

    def of(use: Use) -> tuple[Figure, str] | None:
        power = use.part.power
        return (power, f"{power.value:g} W each") if power is not None and power.known else None

    return _sum(uses, of, "W", "power")


def _sum(uses: Sequence[Use], of: Callable[[Use], tuple[Figure, str] | None], unit: str, what: str) -> _Sum:
    value = high = 0.0
    words, dates = [], []
    for use in uses:
        found, count = of(use), use.units * use.owners
        if found is None:
            words.append(f"{count} x {use.part.id} (no {what} on record, left out)")
            continue
        figure, how = found
        value, high = value + count * figure.value, high + count * figure.highest
        words.append(f"{count} x {use.part.id} at {how} ({count * figure.value:,.0f} {unit})")
        dates += [figure.as_of] if figure.as_of is not None else []
    return _Sum(value, high, words, dates)
