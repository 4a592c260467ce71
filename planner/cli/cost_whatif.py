"""``planner cost whatif``: a finished plan at other prices of its hardware and power."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import Day, echo_json, format_option, hint, number, profiles_option, read_plan_argument
from planner.errors import InputError, nearest

if TYPE_CHECKING:
    from planner.economics.whatif import Pool, Streams
    from planner.hardware import MemoryPart, System
    from planner.hardware.parts import UnitPrice
    from planner.plans import Inputs, Plan
    from planner.plans.hours import Terms

REFERENCES = {
    "hbm": "hbm3e-36gb",
    "gddr": "gddr7-2gb",
    "lpddr": "lpddr5x-socamm2-192gb",
    "ddr": "ddr5-rdimm-64gb",
    "cxl": "cxl2-ddr5-128gb",
    "hbf": "hbf1-512gb",
    "ssd": "nvme-tlc-gen5-30tb",
}
"""The part whose price stands for memories of a kind, unless ``--memory`` names another."""
_MOST = 1e4
_EXAMPLE = "write a change, as hbm=+435% or gpu=-20%"


@dataclass(frozen=True)
class _Row:
    """The units of one pool: what their hour consists of, and their capital cost (USD) by price."""

    phase: str
    units: int
    system: System
    pool: Pool
    capex: dict[str, float]


@dataclass(frozen=True)
class _Loaded:
    """A plan, its pools, prefill's before decode's, and the prices of memory they were split with."""

    where: str
    plan: Plan
    inputs: Inputs
    rows: tuple[_Row, ...]
    priced: dict[str, tuple[MemoryPart, UnitPrice]]
    notes: tuple[str, ...]

    @property
    def pools(self) -> tuple[Pool, ...]:
        return tuple(row.pool for row in self.rows)

    @property
    def prices(self) -> set[str]:
        return {name for pool in self.pools for name in pool.lines}

    @property
    def bases(self) -> set[str]:
        return {row.system.capex_basis for row in self.rows if row.capex}


def _changes(texts: tuple[str, ...], scenario: str | None) -> dict[str, float]:
    """``hbm=+435%`` as a fraction, by price; those of a scenario among them."""
    from planner.economics.whatif import PRICES, SCENARIOS

    found = {} if scenario is None else dict(SCENARIOS[scenario].changes)
    for text in texts:
        match = re.fullmatch(r"([a-z]{1,16})=([+-]?[0-9]{1,9}(?:\.[0-9]{1,9})?)%", text.strip(), re.ASCII)
        if match is None:
            raise InputError(f"cannot read {text[:64]!r}", where="--price", mend=_EXAMPLE)
        name, change = match[1], float(match[2]) / 100.0
        if name not in PRICES:
            raise InputError(f"unknown price {name!r}", where="--price", mend=nearest(name, list(PRICES)))
        if name in found:
            raise InputError(f"{name} is given twice", where="--price", mend="give each price once, also against a scenario")
        if not -1.0 < change <= _MOST:
            raise InputError(f"{text[:64]!r} is not above -100% and at most +{_MOST:.0%}", where="--price", mend=_EXAMPLE)
        found[name] = change
    return found


def _parts(names: tuple[str, ...], folders: tuple[Path, ...]) -> dict[str, MemoryPart]:
    """The part that stands for each kind of memory."""
    from planner.hardware import MemoryPart, load_part

    found: dict[str, MemoryPart] = {}
    for name in (*REFERENCES.values(), *names):
        part = load_part(name, folders=folders)
        if not isinstance(part, MemoryPart):
            raise InputError(f"{part.id} is not a memory", where="--memory", mend="see planner list hardware --kind memory")
        found[part.tier] = part
    return found


def _load(name: str, parts: dict[str, MemoryPart], day: date, convert: Terms | None = None) -> _Loaded:
    """``convert``: the terms to price the plan's hardware on, in place of its own."""
    from planner.economics.whatif import capex_by_price, memory_bytes, pool_by_price
    from planner.hardware.parts import fitting_price
    from planner.plans.hours import terms_of
    from planner.plans.read import inputs_of

    plan, where = read_plan_argument(name)
    inputs = inputs_of(plan, where)
    systems, own = {phase: selection.system for phase, selection in inputs.hardware.items()}, terms_of(inputs)
    terms = own if convert is None else convert
    if [each.hardware for each in plan.units] != [system.id for system in systems.values()]:
        raise InputError("its units are not of its hardware", where=where, mend="see planner verify")
    rows, notes, before = [], [], 0.0
    priced: dict[str, tuple[MemoryPart, UnitPrice]] = {}
    for each, (phase, system) in zip(plan.units, systems.items(), strict=True):
        usd_per_gb, unknown, later = {}, [], []
        for kind in () if terms.rented else memory_bytes(system):
            price = fitting_price(parts[kind], system.capex_basis, day) if kind in parts else None
            if price is None:
                unknown.append(kind)
                continue
            priced[kind], usd_per_gb[kind] = (parts[kind], price), price.usd_per_gb.value
            later += [kind] if (price.usd_per_gb.as_of or date.min) > (system.capex.as_of or date.max) else []
        if unknown:
            notes.append(f"{system.id}: {', '.join(unknown)} has no price and stays in what it is part of, gpu or rest")
        if later and not system.capex_lines:
            when = f"its capital cost is of {system.capex.as_of}, the prices of its {', '.join(later)} are later"
            notes.append(f"{system.id}: {when}; --date takes earlier ones")
        try:
            split = {} if terms.rented else capex_by_price(system, usd_per_gb)
            hour = terms.hour(system)
        except InputError as error:
            raise InputError(error.what, where=where, mend=error.mend) from None
        count = each.units * system.purchasable_devices / system.devices
        pool, before = pool_by_price(system.id, split, hour, count), before + own.hour(system).total * count
        if terms.rented and system.capex.known:
            notes.append(_owning(system, terms, hour.total))
        rows.append(_Row(phase, each.units, system, pool, {price_name: usd * count for price_name, usd in split.items()}))
    _check(plan, before, where)
    if terms != own:
        plan = _converted(plan, terms, math.fsum(row.pool.hour for row in rows), where)
        notes.append(f"{where} is priced anew on the basis {terms.name}")
    rows.sort(key=lambda row: row.phase == "decode")
    return _Loaded(where, plan, inputs, tuple(rows), priced, tuple(dict.fromkeys(notes)))


def _owning(system: System, terms: Terms, rent: float) -> str:
    """What an owner pays for the hour that is rented, and the rent at which both cost the same."""
    from planner.plans.hours import system_cost

    owned = system_cost(system, terms.prices, system.capex.value).total
    each = f"{number(owned / system.devices)} USD an hour of a device"
    basis = f"{terms.prices.id} of {terms.prices.as_of}"
    return f"{system.id}: renting costs {rent / owned:.3g} times what owning does (basis {basis}), and ties with it at {each}"


def _converted(plan: Plan, terms: Terms, hour: float, where: str) -> Plan:
    """The plan with all its tokens at another hour; how they share it is not asked of it any more."""
    cost = plan.cost
    blended = cost.usd_per_million.blended * hour / cost.usd_per_hour
    streams = cost.usd_per_million.model_copy(update={"input_hit": None, "input_miss": None, "output": None, "blended": blended})
    changed = {"usd_per_million": streams, "usd_per_hour": hour, "basis": terms.name, "currency": terms.prices.currency}
    return plan.model_copy(update={"cost": cost.model_copy(update=changed)})


def _check(plan: Plan, hour: float, where: str) -> None:
    """One line where the plan's cost does not follow from its inputs and its own rate."""
    cost = plan.cost
    tokens = sum(cost.tokens_per_request.values()) * plan.prediction.requests_per_s * 3600.0 * cost.utilisation
    sound = math.isclose(hour, cost.usd_per_hour, rel_tol=1e-9) and 0.0 < cost.input_share < 1.0 and tokens > 0.0
    if not sound or not math.isclose(cost.usd_per_hour / tokens * 1e6, cost.usd_per_million.blended or 0.0, rel_tol=1e-9):
        raise InputError("its cost does not follow from its inputs", where=where, mend="see planner verify")


def _refuse_mixed(plans: list[_Loaded]) -> None:
    """One line where prices of several bases would be compared, or tokens that are not alike."""
    bases = sorted(set().union(*(found.bases for found in plans)))
    kinds = {(found.plan.cost.basis, found.plan.cost.currency) for found in plans}
    where = " and ".join(found.where for found in plans)
    if len(bases) > 1:
        mend = "plan on hardware of one capex_basis; a copy of the profile with a price of that basis will do"
        raise InputError(f"prices of {' and '.join(bases)} are not to be mixed", where=where, mend=mend)
    if len(kinds) > 1:
        mend = "plan both with the same --price-basis, or add --convert-basis"
        mixed = " and ".join(sorted(" in ".join(kind) for kind in kinds))
        raise InputError(f"prices of {mixed} are not to be mixed", where=where, mend=mend)
    first, last = plans[0].plan, plans[-1].plan
    if (first.model, first.cost.tokens_per_request) != (last.model, last.cost.tokens_per_request):
        raise InputError(
            "the plans serve different models or tokens", where="--against", mend="plan one model for one workload on both"
        )


def _refuse_absent(plans: list[_Loaded], changes: dict[str, float], scenario: str | None) -> None:
    """One line where a change would move nothing; of a scenario, one of its prices is enough."""
    from planner.economics.whatif import SCENARIOS

    bundled = {} if scenario is None else SCENARIOS[scenario].changes
    known = set().union(*(found.prices for found in plans))
    silent = [pool.hardware for found in plans for pool in found.pools if "gpu" not in pool.lines]
    if "gpu" in changes and silent:
        what = f"what the devices of {silent[0]} cost apart from the rest is not known"
        raise InputError(what, where="--price", mend="use rest=…, which is all but memory and power there")
    absent = [name for name in changes if name not in known and (name not in bundled or not known & set(bundled))]
    if absent:
        mend = f"it has {', '.join(sorted(known))}"
        raise InputError(f"no hardware of the plan has a price of {absent[0]}", where="--price", mend=mend)


def _prices(found: _Loaded, moved: Streams | None = None) -> dict[str, float | None]:
    """USD per million tokens by stream, times ``moved``."""
    own = found.plan.cost.usd_per_million
    by = (1.0, 1.0, 1.0) if moved is None else (moved.input, moved.output, moved.blended)
    scale = {"input_hit": by[0], "input_miss": by[0], "output": by[1], "blended": by[2]}
    values = {name: getattr(own, name) for name in scale}
    return {name: None if value is None else value * scale[name] for name, value in values.items()}


def _lines(found: _Loaded, changes: dict[str, float]) -> list[dict[str, Any]]:
    from planner.economics.whatif import PRICES, elasticities

    rows = []
    for index, row in enumerate(found.rows):
        for name in (known for known in PRICES if known in row.pool.lines):
            each = elasticities(found.pools, index, name, found.plan.cost.input_share)
            rows.append(
                {
                    "hardware": row.system.id,
                    "phase": row.phase,
                    "price": name,
                    "capex_usd": row.capex.get(name),
                    "usd_per_hour": row.pool.lines[name],
                    "elasticity": {"input": each.input, "output": each.output, "blended": each.blended},
                    "change": changes.get(name, 0.0),
                }
            )
    return rows


def _against(one: _Loaded, other: _Loaded, changes: dict[str, float]) -> dict[str, Any]:
    """Both at the changed prices, and the capital cost of the one's hardware at which they cost the same."""
    from planner.economics.whatif import break_even_scale, factors

    costs = []
    for found in (one, other):
        moved = factors(found.pools, changes, found.plan.cost.input_share)
        costs.append(found.plan.cost.usd_per_million.blended * moved.blended)
    hours = {
        name: math.fsum(pool.lines.get(name, 0.0) * (1.0 + changes.get(name, 0.0)) for pool in one.pools) for name in one.prices
    }
    scale = break_even_scale(costs[0], hours.get("power", 0.0) / math.fsum(hours.values()), costs[1])
    rows = []
    for row in one.rows:
        paid = row.capex or row.pool.lines
        usd = math.fsum(value * (1.0 + changes.get(name, 0.0)) for name, value in paid.items()) / row.units
        devices = row.system.purchasable_devices
        even = None if scale is None else usd * scale
        rows.append(
            {
                "hardware": row.system.id,
                "devices_per_unit": devices,
                "unit_usd": usd,
                "break_even_unit_usd": even,
                "break_even_device_usd": None if even is None else even / devices,
            }
        )
    return {
        "plan": other.where,
        "what": "capital" if one.bases else "rent",
        "hardware": [pool.hardware for pool in other.pools],
        "usd_per_million": costs[1],
        "ratio": costs[0] / costs[1],
        "break_even_scale": scale,
        "units": rows,
    }


@click.command("whatif")
@click.argument("plan")
@click.option(
    "--price",
    "prices",
    multiple=True,
    help="A price and its change: gpu, hbm, gddr, lpddr, nand, rest, power, or rent; as hbm=+435%.",
)
@click.option("--scenario", type=click.Choice(["memory-435"]), help="Changes that a source speaks of.")
@click.option("--against", help="Another plan: adds the price of PLAN's hardware at which both cost the same.")
@click.option("--convert-basis", is_flag=True, help="With --against: price that plan's hardware on the terms of PLAN.")
@click.option("--memory", "names", multiple=True, help="A memory part whose price stands for its kind, in place of the usual.")
@click.option("--date", "day", type=Day(), help="Memory at the newest prices at or before this date; the newest by default.")
@profiles_option
@format_option
def whatif(
    plan: str,
    prices: tuple[str, ...],
    scenario: str | None,
    against: str | None,
    convert_basis: bool,
    names: tuple[str, ...],
    day: date | None,
    folders: tuple[Path, ...],
    form: str,
) -> None:
    """What PLAN's tokens cost (a file, or -) at other prices of its hardware and its power; the deployment stays.

    \b
    Examples:
      planner cost whatif plan.json --price hbm=+50% --price power=-20%
      planner cost whatif plan.json --scenario memory-435 --against other.json
    """
    from planner.cli.whatif_view import print_whatif
    from planner.economics.whatif import SCENARIOS, factors
    from planner.plans.hours import terms_of

    if plan == "-" and against == "-":
        raise click.UsageError("only one plan can come from standard input")
    changes = _changes(prices, scenario)
    parts, on = _parts(names, folders), date.max if day is None else day
    found = _load(plan, parts, on)
    if convert_basis and against is None:
        raise click.UsageError("--convert-basis goes with --against.")
    terms = terms_of(found.inputs) if convert_basis else None
    other = None if against is None else _load(against, parts, on, terms)
    plans = [found] if other is None else [found, other]
    _refuse_mixed(plans)
    _refuse_absent(plans, changes, scenario)
    moved = factors(found.pools, changes, found.plan.cost.input_share)
    cost = found.plan.cost
    told = None if scenario is None else SCENARIOS[scenario]
    data = {
        "plan": found.where,
        "model": found.plan.model,
        "workload": found.plan.workload,
        "basis": cost.basis,
        "capex_basis": min(found.bases, default=None),
        "currency": cost.currency,
        "as_of": cost.as_of,
        "changes": changes,
        "scenario": None if told is None else {"id": scenario, "source": told.source, "note": told.note},
        "usd_per_million": _prices(found),
        "usd_per_million_changed": _prices(found, moved),
        "factor": moved.blended,
        "lines": _lines(found, changes),
        "memory_prices": [
            {
                "kind": kind,
                "part": part.id,
                "basis": price.basis,
                "usd_per_gb": price.usd_per_gb.value,
                "as_of": str(price.usd_per_gb.as_of or ""),
                "grade": price.usd_per_gb.grade,
                "source": price.usd_per_gb.source,
            }
            for kind, (part, price) in sorted({**(other.priced if other else {}), **found.priced}.items())
        ],
        "against": None if other is None else _against(found, other, changes),
        "notes": list(dict.fromkeys(note for each in plans for note in each.notes)),
    }
    if form == "json":
        echo_json(data)
        return
    print_whatif(data)
    hint(f"planner verify {plan}")
