"""What ``planner cost retention`` and ``planner cost tiers`` compute: a row for each memory part and kind of price."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.hardware import MemoryPart
    from planner.quantities import Figure

BASES = ("contract", "spot", "street", "oem")


@dataclass(frozen=True)
class Assumptions:
    """How a price becomes an hour: life, cost of capital, electricity; those of the basis ``owned`` unless given."""

    life_years: float
    cost_of_capital: float
    usd_per_kwh: float
    pue: float


@dataclass(frozen=True)
class Priced:
    """A memory part at one of its prices; ``basis`` is ``given`` for one of the command line."""

    part: MemoryPart
    basis: str
    price: Figure


def assume(life: float | None, capital: float | None, usd_per_kwh: float | None) -> Assumptions:
    from planner.prices import load_prices

    owned = load_prices("owned")
    kwh = 0.0 if owned.electricity is None else owned.electricity.value
    return Assumptions(
        life_years=owned.life.value if life is None else life,
        cost_of_capital=owned.cost_of_capital.value if capital is None else capital,
        usd_per_kwh=kwh if usd_per_kwh is None else usd_per_kwh,
        pue=owned.pue.value,
    )


def parts_of(names: tuple[str, ...], folders: tuple[Path, ...]) -> Iterable[MemoryPart]:
    """The memory parts named, or all."""
    from planner.hardware import MemoryPart, load_part
    from planner.hardware.loader import list_hardware

    rows = [] if names else list_hardware(kinds=("memory",), folders=folders)
    for row in rows:
        if row.fault:
            click.echo(f"planner: {row.id} is left out: {row.fault}", err=True)
    for name in names or [row.id for row in rows if not row.fault]:
        part = load_part(name, folders=folders)
        if not isinstance(part, MemoryPart):
            raise InputError(f"{part.id} is not a memory", where="--memory", mend="see planner list hardware --kind memory")
        yield part


def priced(parts: Iterable[MemoryPart], day: date | None, basis: str | None, given: float | None) -> list[Priced]:
    """Each part with the newest price of each basis at or before the day; a price given stands in for all."""
    from planner.hardware.parts import usd_per_gb
    from planner.quantities import Figure

    found = []
    for part in parts:
        if given is not None:
            found.append(Priced(part, "given", Figure(value=given, source="given on the command line", grade="D")))
            continue
        for name in BASES if basis is None else (basis,):
            on = date.max if day is None else day
            if any(price.basis == name and (price.usd_per_gb.as_of or date.min) <= on for price in part.prices):
                price = usd_per_gb(part, name, on)  # type: ignore[arg-type]
                found += [Priced(part, name, price)] if price.known else []
    if not found:
        what = "no memory has a price" + (f" of basis {basis}" if basis else "") + (f" at or before {day}" if day else "")
        raise InputError(what, where="--date" if day else "price", mend="see planner show hardware NAME for the prices there are")
    return found


def _known(figure: Figure | None) -> float | None:
    return None if figure is None or not figure.known else figure.value


def _writes(part: MemoryPart) -> tuple[float, float] | None:
    """DWPD and warranty in years, if the part wears; what may be written in all is turned into DWPD."""
    from planner.economics.wear import DAYS_PER_YEAR

    years, dwpd, endurance = _known(part.warranty), _known(part.dwpd), _known(part.endurance)
    if years is None or (dwpd is None and endurance is None):
        return None
    return (dwpd if dwpd is not None else (endurance or 0.0) / part.usable.value / DAYS_PER_YEAR / years), years


def _hourly(row: Priced, assumed: Assumptions, price: float) -> tuple[float, float | None, float | None]:
    """USD per GB: an hour of capital, an hour of electricity and a GB written, the latter two ``None`` where not known."""
    from planner.economics import retention as keep
    from planner.economics.wear import usd_per_gb_written

    capital = keep.usd_per_gb_hour(price, assumed.life_years, assumed.cost_of_capital)
    watts = _known(row.part.power)
    standing = None
    if watts is not None:
        standing = keep.electricity_usd_per_gb_hour(watts / (row.part.usable.value / 1e9), assumed.usd_per_kwh, assumed.pue)
    wears = _writes(row.part)
    life = keep.life_usd_per_gb(price, assumed.life_years, assumed.cost_of_capital)
    return capital, standing, None if wears is None else usd_per_gb_written(life, *wears)


def _head(row: Priced) -> dict[str, Any]:
    price = row.price
    return {
        "part": row.part.id,
        "tier": row.part.tier,
        "origin": row.part.origin,
        "status": row.part.status,
        "basis": row.basis,
        "usd_per_gb": price.value,
        "usd_per_gb_low": price.lowest,
        "usd_per_gb_high": price.highest,
        "price_as_of": None if price.as_of is None else str(price.as_of),
        "grade": price.grade,
        "source": price.source,
    }


def tier_row(row: Priced, assumed: Assumptions) -> dict[str, Any]:
    """Capacity, time, energy and wear of a part at a price."""
    part = row.part
    capital, standing, written = _hourly(row, assumed, row.price.value)
    unit_usd = row.price.value * part.usable.value / 1e9
    energy, wears = _known(part.energy), _writes(part)
    return {
        **_head(row),
        "unit_usd": unit_usd,
        "capital_usd_per_gb_hour": capital,
        "electricity_usd_per_gb_hour": standing,
        "read_gb_per_s_per_usd": part.read.value / 1e9 / unit_usd if part.read.known else None,
        "read_pj_per_bit": None if energy is None else energy * 1e12,
        "dwpd": None if wears is None else wears[0],
        "warranty_years": None if wears is None else wears[1],
        "usd_per_gb_written": written,
    }


def retention_row(
    row: Priced, assumed: Assumptions, bytes_per_token: float, recompute: float | None, prefill: float | None, copy: float
) -> dict[str, Any]:
    """Keeping and reloading a million tokens in a part; ``copy`` is J/bit of the write into device memory."""
    from planner.economics import energy, wear
    from planner.economics import retention as keep

    gb = keep.kv_gb_per_mtok(bytes_per_token)
    capital, standing, written = _hourly(row, assumed, row.price.value)
    per_bit = _known(row.part.energy)
    moved = (0.0,) if row.part.tier in ("hbm", "gddr") else None if per_bit is None else (per_bit, copy)
    joules = None if moved is None else energy.joules_per_token(bytes_per_token, energy.joules_per_byte(*moved))
    reload_usd = None if joules is None else energy.usd_per_mtok(joules, assumed.usd_per_kwh, assumed.pue)

    def break_even(price: float) -> float | None:
        if recompute is None:
            return None
        room, stand, write = _hourly(row, assumed, price)
        return keep.break_even_idle_hours(
            recompute_usd=recompute,
            reload_usd=reload_usd or 0.0,
            room_usd_per_hour=gb * room,
            write_usd=gb * (write or 0.0),
            standing_usd_per_hour=gb * (stand or 0.0),
        )

    speed = row.part.read.value * (row.part.efficiency.value if row.part.efficiency.known else 1.0)
    return {
        **_head(row),
        "room_usd_per_mtok_hour": gb * capital,
        "electricity_usd_per_mtok_hour": None if standing is None else gb * standing,
        "write_usd_per_mtok": None if written is None else gb * written,
        "hours_of_equal_charge": None if written is None else wear.hours_of_equal_charge(capital, written),
        "reload_joules_per_mtok": None if joules is None else joules * 1e6,
        "reload_usd_per_mtok": reload_usd,
        "reload_mtok_per_s_per_unit": speed / bytes_per_token / 1e6 if row.part.read.known else None,
        "units_to_outrun_prefill": None
        if prefill is None or not row.part.read.known
        else keep.bandwidth_to_outrun(bytes_per_token, prefill) / speed,
        "break_even_idle_hours": break_even(row.price.value),
        "break_even_idle_hours_low": break_even(row.price.highest),
        "break_even_idle_hours_high": break_even(row.price.lowest),
    }
