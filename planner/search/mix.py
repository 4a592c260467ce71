"""Hardware mix: which pools of an inventory to use, and how many units of each, for a demand or within a budget.

Deployments are independent, so a fleet is a sum of them. For every pool and number of units the proved search gives the most
requests/s of one deployment, and a bound; sizes between those searched (all up to 8 units, then 12, 16, 24, 32) take the bound
of the next one, and no more than their units at the best bound a unit. An integer program over the deployments found gives the
fleet, the same over the bounds gives the bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from planner.errors import InfeasibleError, InputError, PlannerError, StoppedError
from planner.plans.bounds import objective_of_merit
from planner.plans.context import PoolContext, build_context
from planner.plans.hours import system_cost
from planner.plans.inputs import Inputs
from planner.plans.mix import Deployment, Mix, PoolUse, Reached, Worth
from planner.plans.numbers import canonical, relative_gap
from planner.plans.schema import FrontPool
from planner.plans.space import affordable_units
from planner.plans.transition import restricted
from planner.prices import OwnedPrices
from planner.prices.inventory import Inventory, InventoryPool
from planner.quantities import round12
from planner.reporter import Reporter
from planner.search.fleet_master import Chosen, Option, choose_fleet
from planner.search.mix_limits import Row, limits_of, reliefs, worth_of
from planner.search.plan import best_of, solve
from planner.search.sizing import tables_of
from planner.search.tables import Stop
from planner.version import CATALOGUE_VERSION, __version__

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32)
"""Units of a deployment that are searched; one of more than the last is not in the space."""


@dataclass(frozen=True)
class Size:
    """The best deployment on so many units: requests/s and their bound."""

    units: int
    rate: float
    bound: float


@dataclass(frozen=True)
class Offer:
    """A pool of the inventory, ready to plan on: for the most requests/s, its units in place of systems."""

    pool: InventoryPool
    inputs: Inputs
    stated: PoolContext

    @cached_property
    def per_system(self) -> int:
        """Purchasable units of a system."""
        return self.stated.system.devices // self.stated.unit_devices

    @property
    def units(self) -> int:
        """Units that may be used."""
        return self.pool.systems * self.per_system

    @cached_property
    def usd_per_unit_hour(self) -> float:
        """What an hour of a unit costs: the rent; without the capital where that is sunk; else all of it."""
        system = self.stated.system
        if self.pool.price is not None:
            return self.pool.price.usd_per_hour / self.per_system
        cost = system_cost(system, self.inputs.prices, self.capex)
        return (cost.total - (cost.capital if self.pool.sunk else 0.0)) / self.per_system

    @cached_property
    def utilisation(self) -> float:
        """Share of the hours in which the load is served."""
        return build_context(self.inputs).utilisation

    @property
    def capex(self) -> float:
        """USD of a system."""
        return self.stated.system.capex.value if self.pool.capex is None else self.pool.capex

    @property
    def capital_per_unit(self) -> float:
        """USD to buy and install a unit; nothing where it is rented or there already."""
        bought = self.pool.payment == "bought"
        return self.capex * (1.0 + self.inputs.prices.installation.value) / self.per_system if bought else 0.0

    @property
    def watts_per_unit(self) -> float:
        """Stated power of a unit (W)."""
        return self.stated.watts_per_unit

    def price(self) -> dict[str, Any]:
        """How the hour was priced."""
        rent = self.pool.price
        if rent is not None:
            terms = {"basis": rent.basis, "as_of": rent.as_of.isoformat(), "source": rent.source}
        else:
            prices: OwnedPrices = self.inputs.prices
            left_out = ", capital left out" if self.pool.sunk else ""
            terms = {"basis": f"{prices.id}{left_out}", "as_of": prices.as_of.isoformat(), "source": ""}
        return {"usd_per_unit_hour": self.usd_per_unit_hour, "capital_usd_per_unit": self.capital_per_unit, **terms}


@dataclass(frozen=True)
class Budget:
    """Limits over the whole fleet; ``None`` = none."""

    capital_usd: float | None = None
    usd_per_hour: float | None = None
    power_kw: float | None = None

    def __post_init__(self) -> None:
        for name in ("capital_usd", "usd_per_hour", "power_kw"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise InputError("must be a finite number above 0", where=name, mend="give a limit, or leave it out")


def offer_of(pool: InventoryPool, inputs: Inputs) -> Offer:
    """A pool with the inputs of a plan on all its systems. ``InputError`` names the pool."""
    options = inputs.options.model_copy(update={"objective": "throughput", "rate": None, "tokens_per_day": None})
    ready = inputs.model_copy(update={"options": options})
    try:
        return Offer(pool, ready, build_context(ready).pools["mixed"])
    except InputError as error:
        raise InputError(error.what, where=f"pool {pool.id}", mend="correct the inventory or the options") from None


def plan_mix(
    inventory: Inventory,
    offers: list[Offer],
    demand: float | None,
    budget: Budget,
    reporter: Reporter | None = None,
    stop: Stop | None = None,
) -> Mix:
    """The fleet of least USD an hour that serves ``demand`` (requests/s), or without one of most requests/s.

    Raises ``InfeasibleError`` where no fleet can serve the demand within the limits, ``StoppedError`` where time ran out.
    """
    hooks, until = reporter or Reporter(), stop or Stop()
    searched = [search_sizes(offer, hooks, until) for offer in offers]
    if until.reason():
        raise StoppedError("stopped before every pool was searched; raise --time-limit")
    limits = limits_of(inventory, offers, budget)
    found = _options(offers, [list(one.sizes) for one in searched], limits)
    proof = _options(offers, [one.every(together(offer)) for one, offer in zip(searched, offers, strict=True)], limits)
    chosen, bound = (choose_fleet(options, [row.limit for row in limits], demand) for options in (found, proof))
    if chosen is None:
        raise _cannot(found, proof, limits, demand, proved=bound is None)
    assert bound is not None
    return _mix(inventory, offers, searched, found, chosen, bound.bound, limits, demand, hooks, until)


@dataclass(frozen=True)
class Searched:
    """The best deployment on every number of units searched, and requests/s a unit that none on any number exceeds."""

    sizes: tuple[Size, ...]
    per_unit: float

    def every(self, most: int) -> list[Size]:
        """Bounds for every number of units up to ``most``: more serve no less, so the next size searched bounds those below."""
        bounds = {size.units: size.bound for size in self.sizes}
        found, above = [], max(bounds.values(), default=0.0)
        for units in range(most, 0, -1):
            above = min(above, bounds.get(units, above))
            bound = min(above, self.per_unit * units)
            found.append(Size(units, bound, bound))
        return found[::-1]


def search_sizes(offer: Offer, reporter: Reporter, stop: Stop) -> Searched:
    """Deployments on every size up to ``SIZES[-1]`` units, and on the number of units that serves most each."""

    def best(rules: tuple[str, ...]) -> Size | None:
        inside = restricted(offer.inputs, rules)
        if inside is None:
            return None
        every = tables_of(inside)
        found = best_of(inside, every, None, reporter, stop)
        if found.decision is None:
            return None
        per_device = offer.stated.unit_devices / inside.workload.output_tokens.mean
        units = found.decision.units[0]
        rate, bound = (objective_of_merit(every[0].context, merit) * per_device for merit in (found.merit, found.bound))
        return Size(units, units * rate, units * bound)

    most = together(offer)
    free = best((f"units<={most}",))
    if free is None:
        return Searched((), 0.0)
    sizes = {free.units: free}
    for units in (size for size in (*SIZES, most) if size <= most and size not in sizes):
        found = best((f"units={units}",))
        if found is not None:
            sizes[units] = found
    return Searched(tuple(sizes[units] for units in sorted(sizes)), free.bound / free.units)


def together(offer: Offer) -> int:
    """Most units of one deployment."""
    return max(min(offer.units, affordable_units(offer.stated), SIZES[-1]), 1)


def _options(offers: list[Offer], sizes: list[list[Size]], limits: list[Row]) -> list[Option]:
    return [
        Option(
            index,
            size.units,
            size.rate,
            size.units * offer.usd_per_unit_hour,
            tuple(size.units * row.uses[index] for row in limits),
        )
        for index, (offer, known) in enumerate(zip(offers, sizes, strict=True))
        for size in known
    ]


def _cannot(found: list[Option], proof: list[Option], limits: list[Row], demand: float | None, *, proved: bool) -> PlannerError:
    """Why there is no fleet: what the inventory can serve at most."""
    if not proved:
        asked = "" if demand is None else f" that serves {demand:.6g} requests/s"
        return StoppedError(f"no fleet found{asked}, nor a proof that there is none")
    if demand is None:
        members = reliefs(limits, found, proof, None)
        loosest = f"; {members[0]['member']}: {members[0]['least_relief']}" if members else ""
        return InfeasibleError(f"proved infeasible: no pool holds the model within these limits{loosest}", members)
    most = choose_fleet(found, [row.limit for row in limits], None)
    least = 0.0 if most is None else sum(n * o.rate for n, o in zip(most.counts, found, strict=True))
    relief = f"serve at most {least:.6g} requests/s" if least else "loosen the limits"
    member: dict[str, object] = {
        "member": "demand",
        "detail": f"{demand:.6g} requests/s to serve",
        "least_relief": relief,
        "amount": least,
        "unit": "requests/s",
    }
    what = f"proved infeasible: the inventory cannot serve {demand:.6g} requests/s within its limits"
    return InfeasibleError(f"{what}: {relief}", [member, *reliefs(limits, found, proof, demand)])


def _mix(
    inventory: Inventory,
    offers: list[Offer],
    searched: list[Searched],
    options: list[Option],
    chosen: Chosen,
    bound: float,
    limits: list[Row],
    demand: float | None,
    reporter: Reporter,
    stop: Stop,
) -> Mix:
    uses = []
    taken = [(option, count) for option, count in zip(options, chosen.counts, strict=True) if count]
    rate = sum(option.rate * count for option, count in taken)
    hour = sum(option.usd_per_hour * count for option, count in taken)
    for index, (offer, known) in enumerate(zip(offers, searched, strict=True)):
        mine = [(option, count) for option, count in taken if option.pool == index]
        bounds = {size.units: size.bound for size in known.sizes}
        deployments = [_deployment(offer, o, count, bounds[o.units], reporter, stop) for o, count in mine]
        units = sum(o.units * count for o, count in mine)
        served = sum(o.rate * count for o, count in mine)
        uses.append(
            PoolUse(
                id=offer.pool.id,
                hardware=offer.stated.system.id,
                region=offer.pool.region,
                payment=offer.pool.payment,
                price=canonical(offer.price()),
                units=units,
                units_available=offer.units,
                devices_per_unit=offer.stated.unit_devices,
                requests_per_s=round12(served),
                share=round12(served / rate),
                usd_per_hour=round12(units * offer.usd_per_unit_hour),
                capital_usd=round12(units * offer.capital_per_unit),
                power_kw=round12(units * offer.watts_per_unit / 1e3),
                deployments=deployments,
            )
        )
    first = offers[0].inputs
    worths = worth_of(limits, options, demand, rate if demand is None else hour)
    value = round12(rate if demand is None else hour)
    edge = round12(max(bound, value) if demand is None else min(bound, value))
    gap = relative_gap(value, edge)
    tokens = first.workload.input_tokens.mean + first.workload.output_tokens.mean
    asked = rate if demand is None else demand
    return Mix(
        schema_version=1,
        model=first.model.id,
        workload=first.workload.id,
        inventory=inventory.id,
        objective="rate" if demand is None else "cost",
        unit="requests/s" if demand is None else "USD per hour",
        value=value,
        bound=edge,
        gap=gap,
        gap_allowed=first.options.gap,
        proved=gap <= first.options.gap,
        most_units=SIZES[-1],
        demand_requests_per_s=None if demand is None else round12(demand),
        requests_per_s=round12(rate),
        usd_per_hour=round12(hour),
        usd_per_million_tokens=round12(hour / (asked * 3600.0 * offers[0].utilisation * tokens) * 1e6),
        capital_usd=round12(sum(use.capital_usd for use in uses)),
        pools=uses,
        limits=[_reached(row, uses, worth) for row, worth in zip(limits, worths, strict=True)],
        versions={"planner": __version__, "catalogue": CATALOGUE_VERSION},
    )


def _reached(row: Row, uses: list[PoolUse], worth: Worth | None) -> Reached:
    used = math.fsum(each * use.units for each, use in zip(row.uses, uses, strict=True))
    per_unit = {use.id: round12(each) for each, use in zip(row.uses, uses, strict=True)}
    limit = round12(float(row.limit))
    return Reached(name=row.name, used=round12(used), limit=limit, unit=row.unit, per_unit=per_unit, worth=worth)


def _deployment(offer: Offer, option: Option, count: int, bound: float, reporter: Reporter, stop: Stop) -> Deployment:
    inside = restricted(offer.inputs, (f"units={option.units}",))
    assert inside is not None
    plan = solve(inside, reporter, stop)
    stored = {offer.stated.rates.memory_id: 0}
    for row in (row for pool in plan.pools for row in pool.placement if row.bytes):
        stored[row.tier] = stored.get(row.tier, 0) + row.bytes
    keys = ("phase", "replicas", "devices", "configuration", "placement_basis")
    return Deployment(
        units=option.units,
        count=count,
        requests_per_s=round12(option.rate),
        bound_requests_per_s=round12(bound),
        mode=plan.mode,
        pools=[FrontPool(**{key: getattr(pool, key) for key in keys}) for pool in plan.pools],
        stored_bytes=stored,
        tpot_ms=plan.prediction.tpot_ms.expected,
        ttft_ms=plan.prediction.ttft_ms.expected,
        plan=plan.to_data(),
    )
