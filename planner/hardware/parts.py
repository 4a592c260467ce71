"""Parts and sites of the catalogue: memories and interconnects a machine is made of, and the place where it stands.

A part has one id and one file, like a device. Its figures are those of ONE unit (a stack, a module, a drive, a port), so
that ``units`` of it make a memory; see ``planner.hardware.compose``. What the box says is its ``label``; ``usable`` is
what can be addressed. A memory's prices are records with basis and date that are never mixed.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from planner.errors import InputError
from planner.hardware.schema import OneWay, refuse_bidirectional, refuse_later_figures
from planner.hardware.vocabulary import (
    Alias,
    Bytes,
    BytesPerSecond,
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
    Watts,
)
from planner.quantities import Figure, figure_of, readable

if TYPE_CHECKING:
    JoulesPerBit: TypeAlias = Figure
    UsdPerGb: TypeAlias = Figure
    UsdPerKwh: TypeAlias = Figure
    Years: TypeAlias = Figure
    PerDay: TypeAlias = Figure
    Ratio: TypeAlias = Figure
else:
    JoulesPerBit = figure_of("j_per_bit")
    UsdPerGb = figure_of("usd_per_gb")
    UsdPerKwh = figure_of("usd_per_kwh")
    Years = figure_of("years")
    PerDay = figure_of("count")
    Ratio = figure_of("count", minimum=1.0, exclusive=False)

PriceBasis = Literal["contract", "spot", "street", "oem"]
"""What a maker and a large buyer agreed on; what a broker asks; what a buyer of single parts pays; a system vendor's price."""

NEAREST_BASIS: dict[str, tuple[PriceBasis, ...]] = {
    "capex_street": ("street", "contract", "oem", "spot"),
    "capex_oem": ("oem", "contract", "street", "spot"),
    "capex_bom": ("contract", "oem", "street", "spot"),
}
"""Bases of a part's price that may stand in a system's capital cost of that basis, the fitting one first."""

_Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Entry(Table):
    """What parts and sites have in common with every profile."""

    schema_version: Literal[1] = Field(alias="schema")
    id: Identifier
    aliases: tuple[Alias, ...] = ()
    name: Name
    origin: Origin
    as_of: date

    @model_validator(mode="after")
    def _no_later_figure(self) -> _Entry:
        refuse_later_figures(self, self.as_of)
        return self


class UnitPrice(Table):
    """One dated price of a memory: USD per 1e9 bytes (``USD/GiB`` where the source counts the GB of DRAM modules)."""

    basis: PriceBasis
    usd_per_gb: UsdPerGb


class MemoryPart(_Entry):
    """A memory or drive as it is bought; all figures are of one ``unit``.

    ``efficiency`` is the fraction of ``read`` that streaming reaches. ``energy`` is J per bit read. ``endurance`` is what may
    be written over the ``warranty``, in bytes; ``dwpd`` the same as drive writes a day.
    """

    kind: Literal["memory"]
    vendor: Name
    status: Status
    technology: Identifier
    tier: TierKind
    unit: _Text
    label: _Text
    usable: Bytes
    read: BytesPerSecond
    write: BytesPerSecond | None = None
    efficiency: Fraction
    startup: Seconds | None = None
    latency: Seconds
    granule_bytes: int = Field(strict=True, ge=1, le=2**40)
    iops: PerSecond | None = None
    energy: JoulesPerBit | None = None
    power: Watts | None = None
    endurance: Bytes | None = None
    dwpd: PerDay | None = None
    warranty: Years | None = None
    prices: tuple[UnitPrice, ...] = Field(default=(), alias="price")

    @model_validator(mode="after")
    def _wear(self) -> MemoryPart:
        if self.endurance is None or self.dwpd is None or self.warranty is None:
            return self
        if not (self.endurance.known and self.dwpd.known and self.warranty.known and self.usable.known):
            return self
        written = self.dwpd.value * self.usable.value * 365.0 * self.warranty.value
        if not 0.8 < self.endurance.value / written < 1.25:
            raise ValueError(
                f"endurance: {readable(self.endurance.value, 'bytes')}, but dwpd over the warranty is "
                f"{readable(written, 'bytes')}; correct one of them"
            )
        return self

    @model_validator(mode="after")
    def _one_price_a_day(self) -> MemoryPart:
        seen = set()
        for price in self.prices:
            key = (price.basis, price.usd_per_gb.as_of)
            if key in seen:
                raise ValueError(
                    f"price: two of basis {price.basis} on {key[1]}; keep the better, the other as low, high or note"
                )
            seen.add(key)
        return self


class InterconnectPart(_Entry):
    """One port of a network or bus: one-way bytes/s of one device.

    ``efficiency``, ``reverse_efficiency`` and ``both_ways`` serve as those of a ``Link``, the fractions and startups per kind of
    traffic as those of a ``Domain``. A part has those of the uses it is made for, and no ``link`` where it only makes networks.
    ``energy`` is J per bit moved.
    """

    kind: Literal["interconnect"]
    vendor: Name
    status: Status
    network: Identifier
    link: LinkKind | None = None
    direction: OneWay
    bandwidth: BytesPerSecond
    latency: Seconds
    duplex: Literal["full", "half"]
    topology: Literal["switch", "mesh", "torus", "point-to-point"]
    efficiency: Fraction | None = None
    reverse_efficiency: Fraction | None = None
    both_ways: BytesPerSecond | None = None
    allreduce_efficiency: Fraction | None = None
    alltoall_efficiency: Fraction | None = None
    p2p_efficiency: Fraction | None = None
    allreduce_startup: Seconds | None = None
    oneshot_startup: Seconds | None = None
    alltoall_startup: Seconds | None = None
    p2p_startup: Seconds | None = None
    energy: JoulesPerBit | None = None

    @model_validator(mode="after")
    def _generation(self) -> InterconnectPart:
        refuse_bidirectional(self.network, self.bandwidth.value)
        return self


class Site(_Entry):
    """A place to put machines: price of electricity, what the building adds to the machines' power, planning life."""

    kind: Literal["site"]
    region: _Text
    electricity: UsdPerKwh
    pue: Ratio
    life: Years


def usd_per_gb(part: MemoryPart, basis: PriceBasis, on: date) -> Figure:
    """The newest price of that basis at or before ``on``, in USD per 1e9 bytes; ``InputError`` if there is none."""
    found = [price.usd_per_gb for price in part.prices if price.basis == basis and _day(price) <= on]
    if found:
        return max(found, key=lambda figure: figure.as_of or date.min)
    known = ", ".join(sorted(f"{price.basis} of {price.usd_per_gb.as_of}" for price in part.prices)) or "none"
    raise InputError(f"{part.id} has no {basis} price at or before {on}", where="price", mend=f"known: {known}")


def fitting_price(part: MemoryPart, capex_basis: str, on: date) -> UnitPrice | None:
    """The price of the basis nearest to a system's, the newest at or before ``on``; ``None`` if there is none at all."""
    for basis in NEAREST_BASIS.get(capex_basis, NEAREST_BASIS["capex_street"]):
        known = [price for price in part.prices if price.basis == basis and _day(price) <= on and price.usd_per_gb.known]
        if known:
            return max(known, key=_day)
    return None


def _day(price: UnitPrice) -> date:
    return price.usd_per_gb.as_of or date.min
