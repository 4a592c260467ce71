"""The figures of a plan that are shown side by side."""

from __future__ import annotations

import math

from planner.comparison.judged import Judged
from planner.comparison.schema import Bound, BreakEven, Figures, MemoryUse, PricePaid, StreamIntervals, UnitPrice
from planner.economics.whatif import break_even_scale
from planner.hardware.installed import MEMORIES, installed_bytes
from planner.plans.hours import terms_of
from planner.plans.operate import Operation
from planner.plans.schema import Interval, Plan
from planner.plans.worth import costs


def figures_of(judged: Judged) -> Figures:
    """Every figure from the operation, with the interval that the plan's own have."""
    plan, expected = judged.plan, judged.expected
    osl = judged.inputs.workload.output_tokens.mean
    paid = expected.devices_paid
    watts = judged.watts
    factor, draws = _draw(judged)
    drawn = watts * factor
    told = plan.prediction

    def per_token(operation: Operation) -> float:
        made = operation.requests_per_s * osl
        return drawn / made if made > 0.0 else math.inf

    return Figures(
        devices=paid,
        devices_used=paid - expected.idle_devices,
        systems=math.fsum(count * pool.unit_devices / pool.system.devices for count, pool in judged.units),
        usd_per_million=_streams(judged),
        usd_per_hour=expected.usd_per_hour,
        tokens_per_s=judged.interval(lambda o: o.requests_per_s * osl),
        tokens_per_s_per_device=judged.interval(lambda o: o.requests_per_s * osl / o.devices_paid),
        tokens_per_s_per_user=told.tokens_per_s_per_user,
        ttft_ms=told.ttft_ms,
        tpot_ms=told.tpot_ms,
        load=told.load,
        concurrency=told.concurrency,
        random_requests_per_s=told.random_arrivals.most_requests_per_s,
        watts=watts,
        watts_drawn=drawn,
        joules_per_output_token=judged.interval(per_token, more=tuple(per_token(expected) * change for change in draws)),
        memories=_memories(judged),
        bottlenecks=_bottlenecks(judged),
        prices=_prices(plan),
        runtime=judged.inputs.runtime.id,
        lowest_grade=plan.provenance["lowest_grade"],
        evidence=told.evidence,
        gap=plan.certificate.gap,
        proved=plan.certificate.proved,
    )


def _draw(judged: Judged) -> tuple[float, list[float]]:
    """What the meter reads over stated power, and by what else the draw may be multiplied: figures of building and machines."""
    building = [judged.inputs.prices.power_utilisation, judged.inputs.prices.pue]
    factor = math.prod(figure.value for figure in building)
    ends = [end / figure.value for figure in building for end in (figure.lowest, figure.highest)]
    for pick in ("lowest", "highest"):
        moved = [
            count * pool.watts_per_unit * getattr(pool.system.power, pick) / pool.system.power.value
            for count, pool in judged.units
        ]
        ends.append(math.fsum(moved) / judged.watts)
    return factor, ends


def _streams(judged: Judged) -> StreamIntervals:
    """USD per million tokens of each stream; prices move all streams as they move the hour."""
    operations = [judged.expected, *(operation for _, _, operation in judged.others)]
    split = {id(one): costs(judged.context, one) for one in operations if one.requests_per_s > 0.0}

    def of(name: str) -> Interval | None:
        def metric(operation: Operation) -> float:
            return float(getattr(split[id(operation)], name)) if id(operation) in split else math.inf

        return None if getattr(split[id(judged.expected)], name) is None else judged.interval(metric, priced=True)

    blended = of("blended")
    assert blended is not None
    return StreamIntervals(input_hit=of("input_hit"), input_miss=of("input_miss"), output=of("output"), blended=blended)


def _memories(judged: Judged) -> list[MemoryUse]:
    """By kind, device memory first; what lies in a memory is weights, tables and caches."""
    held: dict[tuple[str, str], int] = {}
    full: dict[tuple[str, str], tuple[int, int]] = {}
    capacity: dict[str, float] = {}
    roles: dict[tuple[str, str], None] = {}
    for count, pool in judged.units:
        systems = count * pool.unit_devices / pool.system.devices
        for kind, size in installed_bytes(pool.system).items():
            capacity[kind] = capacity.get(kind, 0.0) + size * systems
        roles |= {(tier.kind, tier.role): None for tier in pool.system.tiers if tier.kind in MEMORIES}
    for row in judged.plan.pools:
        system = judged.context.pool(row.phase).system
        tiers = {tier.id: (tier.kind, tier.role) for tier in system.tiers}
        for place in row.placement:
            key = tiers[place.tier]
            held[key] = held.get(key, 0) + place.bytes
        key, usable = tiers[row.memory["tier"]], int(row.memory["usable_bytes"])
        used = usable - int(row.memory["free_bytes"])
        if key not in full or used * full[key][1] > full[key][0] * usable:
            full[key] = (used, usable)
    order = {"device": 0, "host": 1, "disk": 2}
    return [
        MemoryUse(
            kind=key[0],
            role=key[1],
            bytes=held.get(key, 0),
            capacity_bytes=round(capacity.get(key[0], 0.0)),
            fullest_bytes=full[key][0] if key in full else None,
            fullest_capacity_bytes=full[key][1] if key in full else None,
        )
        for key in sorted({**roles, **dict.fromkeys(held)}, key=lambda key: (order.get(key[1], 3), key))
    ]


def _bottlenecks(judged: Judged) -> list[Bound]:
    most: dict[str, Bound] = {}
    for row in judged.plan.bottlenecks:
        if row.phase not in most or row.share > most[row.phase].share:
            most[row.phase] = Bound(phase=row.phase, resource=row.resource, share=row.share)
    return list(most.values())


def _prices(plan: Plan) -> list[PricePaid]:
    """What each kind of hardware was bought or rented at."""
    bought = [(row["hardware"], row["capex_basis"], row["capex_usd"], row["grade"], row["as_of"]) for row in plan.cost.capital]
    rented = [(row.hardware, row.basis, row.usd_per_hour.expected, row.grade, row.as_of) for row in plan.cost.rents or ()]
    return [
        PricePaid(hardware=name, basis=basis, usd=usd, grade=grade, as_of=as_of)
        for name, basis, usd, grade, as_of in bought + rented
    ]


def break_even(judged: Judged, other: float, against: int) -> BreakEven:
    """The capital cost (or rent) of the plan's hardware at which its tokens cost ``other``, its deployment kept.

    What an hour has of electricity or colocation stays; all else is in proportion to the capital cost, or is the rent.
    """
    terms, stays, usd = terms_of(judged.inputs), 0.0, []
    for count, pool in judged.units:
        hour, share = terms.hour(pool.system), pool.unit_devices / pool.system.devices
        stays += (hour.electricity + hour.colocation) * count * share
        usd.append((hour.rent if terms.rented else pool.system.capex.value) * share)
    scale = break_even_scale(judged.objective(judged.expected), stays / judged.expected.usd_per_hour, other)
    units = [
        UnitPrice(hardware=pool.system.id, devices=pool.unit_devices, usd=each, break_even_usd=each * scale)
        for (_, pool), each in zip(judged.units, usd, strict=True)
        if scale is not None
    ]
    return BreakEven(against=against, what="rent" if terms.rented else "capital", scale=scale, units=units)
