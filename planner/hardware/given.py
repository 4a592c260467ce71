"""Figures given by the user in place of a profile's: ``ascend-950dt.memory.hbm.read=4.0 TB/s``.

An address is the id or an alias of a system or of its device, then ``compute.DTYPE.peak``, ``memory.ID.KEY`` (the device's
own), ``tier.ID.KEY``, ``link.ID.KEY``, ``domain.ID.KEY``, ``power`` or ``capex``. A value has a unit; ``LOW..VALUE..HIGH``
states an interval; ``default`` accepts the default that the profile states for a figure nobody has published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from planner.documents import explain_validation
from planner.errors import InputError, nearest
from planner.hardware.schema import DIMENSIONS, HardwareSelection, System
from planner.quantities import Dimension, Figure, parse_quantity, readable

MAX_CHARACTERS = 512
USD_PER_W = (14.5, 24.0, 33.0)
"""Capital cost over stated power of the systems of the catalogue, those scaled from another system included: 10th percentile,
median, 90th."""

GIVEN = "given on the command line"
ACCEPTED = "stated default, accepted: "
"""Source of a figure that ``--set`` gives, and the beginning of that of a default that it accepts."""

_ROWS = {"memory": "tiers", "tier": "tiers", "link": "links", "domain": "domains"}
_UNIT = re.compile(r"[A-Za-zµ$%/][^\s\d]*$")


def figures_of(system: System) -> Iterator[tuple[str, Figure]]:
    """``(address, figure)`` of everything that can be given, in the order of the profile."""
    device = system.device.id
    for dtype, part in system.device.compute.items():
        yield f"{device}.compute.{dtype}.peak", part.peak
    for tier in system.tiers:
        place = f"{device}.memory.{tier.id}" if tier.role == "device" else f"{system.id}.tier.{tier.id}"
        yield from _of_part(place, tier)
    for link in system.links:
        yield from _of_part(f"{system.id}.link.{link.id}", link)
    for domain in system.domains:
        yield from _of_part(f"{system.id}.domain.{domain.id}", domain)
    yield f"{system.id}.power", system.power
    yield f"{system.id}.capex", system.capex


def _of_part(place: str, part: Any) -> Iterator[tuple[str, Figure]]:
    for key, value in part:
        if isinstance(value, Figure):
            yield f"{place}.{key}", value


def unknown_figures(system: System) -> list[tuple[str, Figure]]:
    """``(address, figure)`` of each figure that a plan may need and nobody has published; writes are not planned."""
    return [(address, figure) for address, figure in figures_of(system) if not figure.known and not address.endswith(".write")]


def with_estimates(selection: HardwareSelection) -> HardwareSelection:
    """The selection with an estimate in place of a capital cost that nobody has published, from its stated power."""
    system = selection.system
    if system.capex.known:
        return selection
    return selection.model_copy(update={"system": system.model_copy(update={"capex": estimated_capex(system)})})


def estimated_capex(system: System) -> Figure:
    """What a plan takes for a capital cost that nobody has published: the stated default, else power times ``USD_PER_W``."""
    capex = system.capex
    low, value, high = capex.lowest, capex.value, capex.highest
    how, source = "the profile's stated default, taken without asking", "the profile's stated default"
    if not capex.has_default:
        low, value, high = (system.power.value * ratio for ratio in USD_PER_W)
        source = "{1:g} USD a watt of stated power, {0:g} to {2:g}".format(*USD_PER_W)
        how = f"{readable(system.power.value, 'w')} of stated power at {USD_PER_W[1]:g} USD a watt ({USD_PER_W[0]:g} to "
        how += f"{USD_PER_W[2]:g}: median, 10th and 90th percentile of the systems of the catalogue)"
    source = f"estimate: {source}; {capex.reason}"
    return Figure(low=low, value=value, high=high, source=source, as_of=capex.as_of, grade="C", note=f"estimate: {how}")


def apply_settings(pools: Mapping[str, HardwareSelection], settings: Sequence[str]) -> dict[str, HardwareSelection]:
    """The selections with each setting laid over the systems that it names; the last of two for one figure wins."""
    changes: dict[str, list[tuple[str, str]]] = {phase: [] for phase in pools}
    for setting in settings:
        address, equals, value = setting.partition("=")
        address, value = address.strip(), value.strip()
        if len(setting) > MAX_CHARACTERS or not equals or not address or not value:
            raise InputError(f"cannot read {setting[:64]!r}", where="--set", mend="write NAME.PATH=VALUE with a unit")
        rests = {phase: _rest(address, selection.system) for phase, selection in pools.items()}
        if not any(rests.values()):
            known = sorted({name for selection in pools.values() for name in _names(selection.system)})
            mend = nearest(address.partition(".")[0], known)
            raise InputError(f"{address[:64]!r} begins with no hardware of this plan", where="--set", mend=mend)
        for phase, rest in rests.items():
            if rest:
                changes[phase].append((rest, value))
    return {phase: _with(selection, changes[phase]) for phase, selection in pools.items()}


def _with(selection: HardwareSelection, changes: list[tuple[str, str]]) -> HardwareSelection:
    return selection.model_copy(update={"system": _changed(selection.system, changes)}) if changes else selection


def _names(system: System) -> tuple[str, ...]:
    return (system.id, *system.aliases, system.device.id, *system.device.aliases)


def _rest(address: str, system: System) -> str:
    """What follows the longest name of the system or its device, or nothing."""
    fitting = [name for name in _names(system) if address.startswith(f"{name}.")]
    return address[len(max(fitting, key=len)) + 1 :] if fitting else ""


def _changed(system: System, changes: list[tuple[str, str]]) -> System:
    data = system.model_dump(mode="json")
    for path, text in changes:
        where = f"--set {system.id}.{path[:96]}"
        part, key = _place(data, path, system, where)
        if part is data and key == "capex":
            data["capex_lines"] = []  # they are lines of another sum
        part[key] = _figure(text, DIMENSIONS[key], part.get(key), where) | {"as_of": str(system.as_of)}
    try:
        return System.model_validate(data, context={"si": True})
    except ValidationError as error:
        raise explain_validation(error, "--set") from None


def _place(data: dict[str, Any], path: str, system: System, where: str) -> tuple[dict[str, Any], str]:
    """The table of the dumped system that holds the figure, and its key."""
    steps = path.split(".")
    section, name, key = steps[0], ".".join(steps[1:-1]), steps[-1]
    part: dict[str, Any] | None = None
    if path in ("power", "capex"):
        part = data
    elif section == "compute" and key == "peak":
        part = data["device"]["compute"].get(name)
    elif section in _ROWS:
        rows = [row for row in data[_ROWS[section]] if row["id"] == name]
        part = rows[0] if rows and (section != "memory" or rows[0]["role"] == "device") else None
    if part is None or key not in part or key not in DIMENSIONS:
        known = [address.removeprefix(f"{system.id}.").removeprefix(f"{system.device.id}.") for address, _ in figures_of(system)]
        raise InputError("names no figure", where=where, mend=nearest(path[:96], known))
    return part, key


def _figure(text: str, dimension: Dimension, old: dict[str, Any] | None, where: str) -> dict[str, Any]:
    """The given figure in SI: grade D, with its interval if one is stated, else taken as exact."""
    if text == "default":
        stated = Figure.model_validate(old) if old else None
        if stated is None or not stated.has_default:
            raise InputError("the profile states no default", where=where, mend="give a value with its unit")
        numbers, source = (stated.lowest, stated.value, stated.highest), f"{ACCEPTED}{stated.reason}"
    else:
        parts = text.split("..")
        unit = _UNIT.search(parts[-1])
        try:
            found = [parse_quantity(part, dimension, bare_unit=unit[0] if unit else None) for part in parts]
        except ValueError as error:
            raise InputError(str(error), where=where, mend='write it as "4.0 TB/s" or "3.6..4.0..4.2 TB/s"') from None
        if len(found) not in (1, 3):
            raise InputError(f"{text[:64]!r} is no value", where=where, mend="write VALUE or LOW..VALUE..HIGH")
        numbers, source = (found[0], found[len(found) // 2], found[-1]), GIVEN
        if not numbers[0] <= numbers[1] <= numbers[2]:
            raise InputError(f"{text[:64]!r} does not rise", where=where, mend="write LOW..VALUE..HIGH")
    low, value, high = numbers
    note = "interval as given" if low < high else "no interval given"
    return {"value": value, "low": low, "high": high, "source": source, "grade": "D", "note": note}
