"""The hardware schema: what a profile may say, and the rules that keep its figures true.

Four truth rules hold for every profile: peaks are dense, bandwidths are one-way, bytes are usable
bytes (not the label on the box), and a figure of grade C or D carries an interval. Where a rule can
be checked from the numbers it is; where it cannot, the author has to assert it in a key that admits
one answer (``counting = "dense"``, ``direction = "one-way"``).

Here are memories, links, networks, devices and systems; ``vocabulary`` has what all of them are written in, ``compute`` peaks
and curves, ``costs`` capital lines and rents.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from itertools import permutations
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from planner.hardware.compute import HALVINGS, LARGEST_STEP, Compute, Curve, says_dense
from planner.hardware.costs import CapexLine, Rent, RentBasis
from planner.hardware.vocabulary import (
    CLASS_DEFAULT,
    DIMENSIONS,
    Alias,
    Bytes,
    BytesPerSecond,
    Count,
    Fraction,
    Identifier,
    LinkKind,
    Name,
    Origin,
    PerSecond,
    Seconds,
    Status,
    Table,
    TierKind,
    Usd,
    Watts,
)
from planner.quantities import Figure

if TYPE_CHECKING:
    from networkx import DiGraph

__all__ = [
    "CLASS_DEFAULT",
    "DIMENSIONS",
    "HALVINGS",
    "LARGEST_STEP",
    "ONE_WAY_LIMIT_BYTES_PER_S",
    "CapexLine",
    "Compute",
    "Curve",
    "Device",
    "DeviceProfile",
    "Domain",
    "HardwareSelection",
    "Link",
    "OneWay",
    "Rent",
    "RentBasis",
    "System",
    "Tier",
    "TierKind",
    "dated",
    "refuse_bidirectional",
    "refuse_later_figures",
    "says_dense",
]

ONE_WAY_LIMIT_BYTES_PER_S = {
    "pcie4-x4": 8e9,
    "pcie4-x16": 32e9,
    "pcie5-x4": 16e9,
    "pcie5-x16": 64e9,
    "pcie6-x16": 128e9,
    "nvlink3": 300e9,
    "nvlink4": 450e9,
    "nvlink5": 900e9,
    "nvlink6": 1800e9,
    "nvlink-c2c": 450e9,
    "nvlink-c2c2": 900e9,
    "ub1": 196e9,
}
"""Nominal one-way bytes/s of one device's port by generation; twice as much is the bidirectional figure."""


def _refuse_both_ways(value: object) -> object:
    if isinstance(value, str) and value != "one-way":
        raise ValueError(f"{value!r} is not one-way; write the one-way bandwidth (half of a bidirectional figure)")
    return value


OneWay = Annotated[Literal["one-way"], BeforeValidator(_refuse_both_ways)]
"""What a bandwidth is counted in."""


class Tier(Table):
    """A memory with one owner. ``usable``, ``read`` and ``write`` belong to the ONE owner, for all its sharers together.

    ``efficiency`` is the fraction of ``read``, and of ``write``, that streaming reaches; time = startup + bytes / (read *
    efficiency). No block of a layer takes less than the startup of the device's memory. It serves reads and writes one after the
    other; ``write`` defaults to ``read``.
    ``via`` lists the links and other tiers that a device's read passes; what the bytes pass twice is listed twice.
    """

    id: Identifier
    kind: TierKind
    role: Literal["device", "host", "disk"]
    owner: Identifier
    devices_sharing: Count
    usable: Bytes
    read: BytesPerSecond
    write: BytesPerSecond | None = None
    efficiency: Fraction
    startup: Seconds | None = None
    latency: Seconds
    granule_bytes: int = Field(strict=True, ge=1, le=2**40)
    iops: PerSecond | None = None
    via: tuple[Identifier, ...] = ()

    @model_validator(mode="after")
    def _ownership(self) -> Tier:
        if self.role == "device" and (self.owner != "device" or self.devices_sharing != 1 or self.via):
            raise ValueError("device memory has owner 'device', devices_sharing 1 and no via; a shared memory has another owner")
        if self.role != "device" and self.owner == "device":
            raise ValueError("a device owns no host or disk memory; name its owner (cpu, node, rack)")
        if self.role == "device" and not self.usable.note:
            raise ValueError("usable: add a note that says how the usable bytes are known; the label on the box is not them")
        return self

    @property
    def rate_per_device(self) -> float:
        """Achieved read bytes/s per device of the memory alone when all its sharers stream."""
        return self.read.value * self.efficiency.value / self.devices_sharing


class Link(Table):
    """A channel with one-way ``bandwidth`` in bytes/s, shared by ``devices_sharing`` devices.

    Links of one contention ``group`` (a PCIe switch, a socket) that serve the same device together carry at most what the
    widest of them does.
    On a ``half`` duplex link both directions share the bandwidth. ``efficiency`` is the share of it that reads by the device
    reach; ``reverse_efficiency`` that of writes, where it is another. ``both_ways``: bytes/s each way while both are busy.
    What this makes of a pass that reads and writes: ``planner.hardware.channels``.
    """

    id: Identifier
    kind: LinkKind
    generation: str = ""
    between: tuple[Identifier, Identifier]
    direction: OneWay
    bandwidth: BytesPerSecond
    devices_sharing: Count
    efficiency: Fraction
    reverse_efficiency: Fraction | None = None
    both_ways: BytesPerSecond | None = None
    latency: Seconds
    duplex: Literal["full", "half"]
    group: Identifier | None = None

    @model_validator(mode="after")
    def _generation(self) -> Link:
        refuse_bidirectional(self.generation, self.bandwidth.value / self.devices_sharing)
        each = self.bandwidth.highest / (2.0 if self.duplex == "half" else 1.0)
        known = self.both_ways is not None and self.both_ways.known and self.bandwidth.known
        if self.both_ways is not None and known and self.both_ways.value > each:
            what = "half the bandwidth of a half duplex link" if self.duplex == "half" else "the link's bandwidth"
            raise ValueError(
                f"both_ways: {self.both_ways.value / 1e9:g} GB/s each way is above {what}; write one direction's rate"
            )
        return self

    @property
    def rate_per_device(self) -> float:
        """Achieved one-way bytes/s per device when all sharers stream."""
        return self.bandwidth.value * self.efficiency.value / self.devices_sharing


class Domain(Table):
    """A nested set of ``devices`` with a network of its own (``None`` = unbounded: the scale-out network).

    ``bandwidth`` is one-way bytes/s per device; the efficiencies are fractions of it per kind of traffic; ``latency`` is that
    of one small message. ``group`` names the links that the network's port shares its way with (see ``Link``).

    A startup is the time of that operation with next to no bytes, so that an operation takes
    ``startup + bytes / (bandwidth * efficiency)`` (the alpha-beta line of a curve measured over sizes): of a whole all-reduce
    (default two latencies), of a dispatch or a combine of tokens (default one), of one message (default one). With
    ``oneshot_startup`` small all-reduces may also run in one step, each device reading every other's whole payload.
    """

    id: Identifier
    devices: Count | None = None
    direction: OneWay
    bandwidth: BytesPerSecond
    latency: Seconds
    allreduce_efficiency: Fraction
    alltoall_efficiency: Fraction
    p2p_efficiency: Fraction
    allreduce_startup: Seconds | None = None
    oneshot_startup: Seconds | None = None
    alltoall_startup: Seconds | None = None
    p2p_startup: Seconds | None = None
    topology: Literal["switch", "mesh", "torus"]
    network: Identifier
    group: Identifier | None = None

    @model_validator(mode="after")
    def _generation(self) -> Domain:
        refuse_bidirectional(self.network, self.bandwidth.value)
        return self


def refuse_bidirectional(generation: str, bytes_per_s: float) -> None:
    limit = ONE_WAY_LIMIT_BYTES_PER_S.get(generation)
    if limit is not None and bytes_per_s > 1.02 * limit:
        raise ValueError(
            f"bandwidth: {bytes_per_s / 1e9:g} GB/s is above the {limit / 1e9:g} GB/s one-way of {generation}; "
            "halve a bidirectional figure"
        )


class Device(Table):
    """What the runtime addresses as one accelerator. Its memory is a tier of the system it sits in."""

    id: Identifier
    aliases: tuple[Alias, ...] = ()
    name: Name
    vendor: Name
    origin: Origin
    status: Status
    compute: dict[str, Compute] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _name_dtypes(cls, data: object) -> object:
        if not isinstance(data, dict) or not isinstance(data.get("compute"), dict):
            return data
        named = {key: {"dtype": key, **value} if isinstance(value, dict) else value for key, value in data["compute"].items()}
        return {**data, "compute": named}

    @model_validator(mode="after")
    def _dense_steps(self) -> Device:
        for dtype, part in self.compute.items():
            if part.dtype != dtype:
                raise ValueError(f"compute.{dtype}: its dtype says {part.dtype!r}")
        peaks = {dtype: part.peak for dtype, part in self.compute.items() if part.peak.known and dtype in HALVINGS}
        for wide, narrow in permutations(peaks, 2):
            halvings = HALVINGS[narrow] - HALVINGS[wide]
            step = peaks[narrow].value / peaks[wide].value
            if halvings > 0 and step > LARGEST_STEP**halvings and not says_dense(peaks[narrow].note):
                raise ValueError(
                    f"compute.{narrow}.peak: {step:.3g} times that of {wide}, which looks like a sparse figure; "
                    "write the dense one, or say in its note why it is dense"
                )
        return self


class DeviceProfile(Device):
    """A device file: the device and the memory it owns (``[[memory]]``)."""

    schema_version: Literal[1] = Field(alias="schema")
    kind: Literal["device"]
    as_of: date
    memory: tuple[Tier, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _owned(self) -> DeviceProfile:
        for tier in self.memory:
            if tier.role != "device":
                raise ValueError(f"memory.{tier.id}: a device names only memory it owns; move it to the system's [[tier]]")
        refuse_later_figures(self, self.as_of)
        return self


class System(Table):
    """A node or rack as it is bought: devices, memories with their owners, links, nested network domains, power and price.

    ``tiers`` starts with the device's own memory (bytes and rates per device); ``domains`` runs from inner to outer.
    ``power`` is all-in watts and ``capex`` USD of the whole system, ``capex_lines`` what it consists of where that is published
    (they sum to it); ``rents`` are dated prices of an hour; ``purchasable_devices`` is the smallest unit sold.
    """

    schema_version: Literal[1] = Field(alias="schema")
    id: Identifier
    aliases: tuple[Alias, ...] = ()
    name: Name
    vendor: Name
    origin: Origin
    status: Status
    as_of: date
    kind: Literal["node", "rack"]
    device: Device
    devices: Count
    devices_per_node: Count
    devices_per_package: Count = 1
    purchasable_devices: Count
    tiers: tuple[Tier, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    domains: tuple[Domain, ...] = ()
    power: Watts
    capex: Usd
    capex_basis: Literal["capex_oem", "capex_bom", "capex_street"]
    capex_lines: tuple[CapexLine, ...] = ()
    rents: tuple[Rent, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> System:
        _divides("devices_per_node", self.devices_per_node, self.devices)
        _divides("devices_per_package", self.devices_per_package, self.devices_per_node)
        _divides("purchasable_devices", self.purchasable_devices, self.devices)
        _unique("tiers and links", [tier.id for tier in self.tiers] + [link.id for link in self.links])
        _unique("domains", [domain.id for domain in self.domains])
        _unique("capex_lines", [line.id for line in self.capex_lines])
        _unique("rents", [f"{rent.id} of {rent.usd_per_hour.as_of}" for rent in self.rents])
        if not any(tier.role == "device" for tier in self.tiers):
            raise ValueError("tiers: the device has no memory")
        known = {tier.id for tier in self.tiers} | {link.id for link in self.links}
        for tier in self.tiers:
            _divides(f"tier.{tier.id}.devices_sharing", tier.devices_sharing, self.devices)
            for step in tier.via:
                if step not in known or step == tier.id:
                    raise ValueError(f"tier.{tier.id}.via: {step!r} names no link or other tier of this system")
        for link in self.links:
            _divides(f"link.{link.id}.devices_sharing", link.devices_sharing, self.devices)
        self._check_domains()
        refuse_later_figures(self, self.as_of)
        return self

    def _check_domains(self) -> None:
        inner = 0
        for position, domain in enumerate(self.domains):
            if domain.devices is None:
                if position != len(self.domains) - 1:
                    raise ValueError(f"domain.{domain.id}: only the last (outermost) domain may be unbounded")
                continue
            if domain.devices <= inner or (inner and domain.devices % inner):
                raise ValueError(f"domain.{domain.id}: domains run from inner to outer, each a multiple of the one before")
            if domain.devices > self.devices:
                raise ValueError(f"domain.{domain.id}: holds more devices than the system has ({self.devices})")
            inner = domain.devices

    def tier(self, tier_id: str) -> Tier:
        """The tier of that id; ``KeyError`` if there is none."""
        return next((tier for tier in self.tiers if tier.id == tier_id), None) or _missing(tier_id)

    def link(self, link_id: str) -> Link:
        """The link of that id; ``KeyError`` if there is none."""
        return next((link for link in self.links if link.id == link_id), None) or _missing(link_id)

    def tier_rate(self, tier_id: str) -> list[tuple[str, float]]:
        """The resources that a device's read of a tier loads, with the bytes/s each grants one device when all sharers stream.

        The tier itself comes first, then its ``via`` in order; what the bytes pass twice grants half.
        The slowest entry is the rate of the stream.
        """
        from planner.hardware.topology import tier_rate

        return tier_rate(self, tier_id)

    def graph(self) -> DiGraph[str]:
        """The topology of one node as a directed graph; see ``planner.hardware.topology``."""
        from planner.hardware.topology import graph

        return graph(self)


def _missing(key: str) -> Any:
    raise KeyError(key)


def _divides(key: str, part: int, whole: int) -> None:
    if part > whole or whole % part:
        raise ValueError(f"{key}: {part} does not divide {whole}")


def _unique(what: str, ids: list[str]) -> None:
    for name in ids:
        if ids.count(name) > 1:
            raise ValueError(f"{what}: id {name!r} is used twice")


def dated(part: BaseModel, key: str) -> Iterator[tuple[str, date]]:
    """Key and date of every figure and curve below ``key`` but for class defaults, which have a date of their own."""
    for name, value in part:
        path = f"{key}.{name}" if key else name
        items = value if isinstance(value, tuple) else tuple(value.values()) if isinstance(value, dict) else (value,)
        for item in items:
            if isinstance(item, Figure | Curve) and item.as_of is not None and not item.source.startswith(CLASS_DEFAULT):
                yield path, item.as_of
            elif isinstance(item, BaseModel):
                label = getattr(item, "id", None) or getattr(item, "dtype", None) or ""
                yield from dated(item, f"{path}.{label}" if isinstance(value, tuple | dict) else path)


def refuse_later_figures(profile: BaseModel, newest: date) -> None:
    for path, as_of in dated(profile, ""):
        if as_of > newest:
            raise ValueError(f"{path}: as_of {as_of} is later than the profile's own as_of {newest}; correct the date")


class HardwareSelection(BaseModel):
    """``count`` systems of one kind (``h800-node:2``); ``auto`` = as many as the load needs, beginning with ``count``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: System
    count: Count = 1
    auto: bool = False

    @property
    def devices(self) -> int:
        """Devices in all the systems together."""
        return self.system.devices * self.count
