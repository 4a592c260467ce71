"""Truth rules of ``planner lint`` that compare a sound profile with what is known: ports, dense peaks, grades, dates.

A network or generation is one of the catalogue's interconnect parts, and one device's port carries no more than that part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from planner.hardware.kinds import Profile
from planner.hardware.parts import InterconnectPart
from planner.hardware.plausible import STAND_IN
from planner.hardware.rules import Fault
from planner.hardware.schema import DeviceProfile, System, dated, says_dense
from planner.hardware.source import ProfileSource
from planner.quantities import Figure

_SPARSE = re.compile(r"spars|\bnot[ -]dense\b|\bnon-?dense\b", re.IGNORECASE)
_SLACK = 1.02


def truths(profile: Profile, raw: dict[str, Any], path: Path, source: ProfileSource) -> Iterator[Fault]:
    """Every rule on one profile; ``raw`` is its file's own table."""
    where = str(path)
    if isinstance(profile, System):
        for domain in profile.domains:
            yield from _port(f"domain.{domain.id}", "network", domain.network, domain.bandwidth, 1, where, source)
        for link in profile.links:
            key = f"link.{link.id}"
            yield from _port(key, "generation", link.generation, link.bandwidth, link.devices_sharing, where, source)
            stated = link.bandwidth.grade in ("A", "B") and not re.match(r"\d+ x ", link.bandwidth.source)
            if link.kind == "pcie" and not link.generation and stated:
                mend = "name it, as pcie5-x16: the limit of one direction hangs on it"
                yield Fault(where=where, key=f"{key}.generation", what="is missing", mend=mend)
    elif isinstance(profile, InterconnectPart):
        yield from _port("", "network", profile.network, profile.bandwidth, 1, where, source)
    elif isinstance(profile, DeviceProfile):
        yield from _peaks(profile, raw, path, source)
    yield from _flat(profile, "", where)


def _port(row: str, key: str, name: str, bandwidth: Figure, sharing: int, where: str, source: ProfileSource) -> Iterator[Fault]:
    """A port faster than the interconnect part of its name, or a name that is one of those but for its spelling."""
    prefix = f"{row}." if row else ""
    most = source.ports.get(name)
    if most is None:
        near = [known for known in source.ports if name and _spelled(known) == _spelled(name)]
        if near:
            what = f"{name!r} is no generation of the catalogue"
            yield Fault(where=where, key=f"{prefix}{key}", what=what, mend=f"write {near[0]!r}")
    elif bandwidth.known and bandwidth.value / sharing > _SLACK * most:
        what = f"{bandwidth.value / sharing / 1e9:g} GB/s a device is above the {most / 1e9:g} GB/s one-way of {name}"
        mend = "correct it: Gbit/s written as GB/s, or both directions added up; or name the network that it is"
        yield Fault(where=where, key=f"{prefix}bandwidth", what=what, mend=mend)


def _spelled(name: str) -> str:
    """``PCIe 5.0 x16`` and ``pcie5-x16`` alike."""
    return re.sub(r"[^a-z0-9]", "", re.sub(r"(\d)\.0\b", r"\1", name.lower()))


def _peaks(device: DeviceProfile, raw: dict[str, Any], path: Path, source: ProfileSource) -> Iterator[Fault]:
    where = str(path)
    for dtype, part in device.compute.items():
        if _SPARSE.search(part.peak.note) and not says_dense(part.peak.note):
            what = f"its note says {part.peak.note[:64]!r}, which is no dense peak"
            yield Fault(where=where, key=f"compute.{dtype}.peak", what=what, mend="write the dense one (usually half)")
    chain = source.chain(path)
    own = raw.get("compute")
    if not chain or not isinstance(own, dict):
        return
    base = source.read_any(chain[0])
    if not isinstance(base, DeviceProfile):
        return
    pairs = [(device.compute[key].peak, base.compute[key].peak) for key in own if key in device.compute and key in base.compute]
    twice = [math.isclose(new.value, 2.0 * old.value, rel_tol=0.015) and not says_dense(new.note) for new, old in pairs]
    if twice and all(twice):
        what = f"every peak is twice that of {base.id}, which looks like sparse figures"
        yield Fault(where=where, key="compute", what=what, mend="write the dense ones, or say in the notes why they are dense")


def _flat(part: BaseModel, key: str, where: str) -> Iterator[Fault]:
    """Figures of grade C or D whose interval has no width."""
    for name, value in part:
        path = f"{key}.{name}" if key else name
        if isinstance(value, Figure):
            stated = value.known and value.grade in ("C", "D") and value.source != STAND_IN
            if stated and value.value > 0.0 and value.low == value.value == value.high:
                what = f"low, value and high of grade {value.grade} are the same"
                yield Fault(where=where, key=path, what=what, mend="write what the true value may be, or the grade it deserves")
            continue
        if isinstance(value, dict | tuple):
            rows = value.items() if isinstance(value, dict) else ((getattr(item, "id", ""), item) for item in value)
            for label, item in rows:
                if isinstance(item, BaseModel):
                    yield from _flat(item, f"{path.removesuffix('s') if isinstance(value, tuple) else path}.{label}", where)
        elif isinstance(value, BaseModel):
            yield from _flat(value, path, where)


def dated_later(profile: Profile, where: str, today: date) -> Iterator[Fault]:
    """Dates after ``today``, also of what a profile extends or is made of."""
    for key, day in (("as_of", profile.as_of), *dated(profile, "")):
        if day > today:
            key = key if key.endswith("as_of") else f"{key}.as_of"
            yield Fault(where=where, key=key, what=f"{day} lies in the future", mend="write the date of the source")
