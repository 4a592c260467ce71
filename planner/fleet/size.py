"""The size of a fleet: how many copies of a plan's deployment serve a day's tokens, and what they cost.

A copy is the deployment as it was planned and verified: its instances, its units, its load. It serves what the plan predicts for
the hours of service, so that latencies hold; there is no part of one. Of another mix of tokens than the plan's,

    needed(input) = misses a day / misses a day of one copy      needed(output) = likewise

and a mixed pool, whose time the phases share in the proportion ``a : 1 - a`` of the plan, needs ``a needed(input) +
(1 - a) needed(output)`` copies, pools of their own the larger of both. Cached input needs none: its attention is in the misses
and outputs that read it. Lengths of requests stay those of the plan.

Budgets of memory, power, money or units hold so many whole copies (``planner.fleet.budgets``).

Law: tokens of a day times their price, summed over streams, is the cost of a day; so is the sum over causes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from planner.economics import CAUSES, stream_costs
from planner.economics.bill import Usage
from planner.economics.tariff import Tariff
from planner.errors import InputError
from planner.fleet.budgets import SLACK, budget_rows, copies_within, refuse_more, slack
from planner.fleet.demand import MOST_TOKENS, SECONDS, Demand, Mix
from planner.fleet.margin import margin_of
from planner.fleet.schema import CostByStream, Fleet, FleetHardware, FleetMemory, TokensPerDay
from planner.hardware import HardwareSelection
from planner.hardware.installed import MEMORIES, installed_bytes
from planner.plans.context import build_context
from planner.plans.hours import terms_of
from planner.plans.inputs import Allocation, Inputs
from planner.plans.intervals import combine, hour_moves
from planner.plans.schema import Interval, Plan, StreamPrices
from planner.quantities import Figure


def size_fleet(
    plan: Plan,
    inputs: Inputs,
    *,
    tokens_per_day: float | None = None,
    mix: Mix | None = None,
    utilisation: float | None = None,
    budgets: Mapping[str, float] | None = None,
    tariff: Tariff | None = None,
) -> Fleet:
    """The fleet of a plan and its embedded inputs (``planner.plans.inputs_of``).

    ``mix`` and ``utilisation``, the share of the hours in which the fleet serves its load, are the plan's own if left out.
    ``budgets`` in SI units by name (``planner.fleet.budgets``): without ``tokens_per_day`` the fleet is the largest they hold.
    ``tariff``: the prices at which the tokens are sold, which adds the margin.

    ``InputError`` where a number is out of range, or the plan cannot say what was asked; ``InfeasibleError`` where the budgets
    do not hold what the tokens take, or not one copy.
    """
    if tokens_per_day is None and not budgets:
        raise InputError("is missing", where="tokens_per_day", mend="give it, or --budget")
    if tokens_per_day is not None and not (math.isfinite(tokens_per_day) and 1.0 <= tokens_per_day <= MOST_TOKENS):
        raise InputError(f"{tokens_per_day!r} is not from 1 to {MOST_TOKENS:g}", where="tokens_per_day")
    _refuse_damaged(plan)
    used_hours = plan.cost.utilisation if utilisation is None else utilisation
    if not 1e-6 <= used_hours <= 1.0:
        raise InputError(f"{used_hours!r} is not from 0.000001 to 1", where="utilisation")
    demand = Demand.of(plan, mix, used_hours)
    per_copy, taken = 1.0 / demand.needed(1.0), _taken(plan, inputs)
    if tokens_per_day is None:
        copies = min(copies_within(budgets or {}, taken).values())
        if copies == 0:
            refuse_more(budgets or {}, taken, 1, "the deployment of the plan", per_copy)
        tokens = copies * per_copy
        if tokens > MOST_TOKENS:
            raise InputError(f"hold more than serves {MOST_TOKENS:g} tokens a day", where="budget", mend="lower them")
    else:
        tokens, copies = tokens_per_day, _whole(demand.needed(tokens_per_day))
        refuse_more(budgets or {}, taken, copies, f"{tokens:.6g} tokens a day", per_copy)
    asked, needed, needs = demand.shares.of(tokens), demand.needed(tokens), demand.by_phase(tokens)
    speed = plan.prediction.output_tokens_per_s
    served = Interval(low=tokens, expected=tokens, high=tokens)
    fewest, most = (None if not end else _whole(needed * speed.expected / end) for end in (speed.high, speed.low))
    notes = _notes(inputs, needs, demand.shared, mix, plan)
    if tokens_per_day is None:
        fewest = most = copies
        served = _scaled(speed, tokens)
    else:
        short = [name for name, held in copies_within(budgets or {}, taken).items() if most is None or held < most]
        if short:
            notes.append(f"at the slow end (p90) the copies would be more than {' and '.join(short)} holds")

    def around(value: float, figures: list[float]) -> Interval:
        """With the copies, and what else moves it, at either end."""
        if value == 0.0:
            return Interval(low=0.0, expected=0.0, high=0.0)
        ends = combine(value, [value * count / copies for count in (fewest, most) if count is not None] + figures)
        low, high = (None if count is None else ends[end] for end, count in (("low", fewest), ("high", most)))
        return Interval(low=low, expected=value, high=high)

    rows = [_hardware(plan, inputs, index, copies) for index in range(len(plan.units))]
    usd = math.fsum(sum(row.by_cause.values()) for row in rows) * 24.0
    if not math.isclose(usd, plan.cost.usd_per_hour * 24.0 * copies, rel_tol=1e-9):
        raise InputError("its cost an hour does not follow from its inputs", where="plan", mend="see planner verify")
    work = {phase: demand.time[phase] * needs[phase] for phase in needs} if demand.shared else demand.time
    input_usd = usd * work["input"] / math.fsum(work.values())
    prices = _prices(plan, asked, input_usd, usd - input_usd)
    streams = {name: _price(getattr(prices, name)) * getattr(asked, name) / 1e6 for name in CostByStream.model_fields}
    blended = _scaled(plan.cost.blended_interval, _price(prices.blended))
    capex = math.fsum(row.units.capex_usd for row in rows)
    stated = math.fsum(row.units.stated_megawatts for row in rows)
    building = inputs.prices.power_utilisation, inputs.prices.pue
    draw = stated * building[0].value * building[1].value
    draws = [draw * end / figure.value for figure in building for end in (figure.lowest, figure.highest)]
    draws += [draw * math.fsum(row.power_ends[end] for row in rows) / stated for end in (0, 1)]
    devices = sum(row.units.devices for row in rows)
    usage = Usage(asked.input_hit, asked.input_miss, asked.output)
    margin = None if tariff is None else margin_of(tariff, usage, streams, blended)
    full = copies * per_copy
    return Fleet(
        model=plan.model,
        workload=plan.workload,
        sized_by="budgets" if tokens_per_day is None else "tokens",
        tokens_per_day=asked,
        tokens_per_day_interval=served,
        utilisation=used_hours,
        copies=Interval(low=fewest, expected=copies, high=most),
        needed=needs,
        used={"all": needed / copies} if demand.shared else {phase: needs[phase] / copies for phase in needs},
        share_of_capacity=_share(plan),
        devices=Interval(
            low=None if fewest is None else devices // copies * fewest,
            expected=devices,
            high=None if most is None else devices // copies * most,
        ),
        units=[row.units for row in rows],
        pue=building[1].value,
        power_utilisation=building[0].value,
        megawatts=around(draw, draws),
        megawatts_provisioned=stated * building[1].value,
        capex_usd=around(capex, [math.fsum(row.capex_ends[end] for row in rows) for end in (0, 1)]),
        installed_capex_usd=capex * (1.0 + inputs.prices.installation.value),
        usd_per_day=_of_so_many(plan, inputs, usd) if tokens_per_day is None else _scaled(plan.cost.blended_interval, usd),
        usd_per_day_by_cause={cause: math.fsum(row.by_cause[cause] for row in rows) * 24.0 for cause in CAUSES},
        usd_per_day_by_stream=CostByStream(**streams),
        usd_per_million=prices,
        blended_interval=blended,
        allocation=plan.cost.allocation,
        basis=plan.cost.basis,
        currency=plan.cost.currency,
        as_of=plan.cost.as_of,
        tokens_per_s_per_device=tokens / SECONDS / devices,
        memories=[
            FleetMemory(
                memory=kind,
                installed_bytes=taken[kind] * copies,
                tokens_per_day_per_tb=full / (taken[kind] * copies / 1e12),
                bytes_per_token_per_s=taken[kind] * copies / (full / SECONDS),
            )
            for kind in MEMORIES
            if kind in taken
        ],
        budgets=budget_rows(
            budgets or {},
            taken,
            copies,
            tokens_per_copy=per_copy if tokens_per_day is None else None,
            usd_per_copy=None if margin is None else (margin.revenue_usd - margin.cost_usd) / copies,
        ),
        margin=margin,
        notes=notes,
    )


def _taken(plan: Plan, inputs: Inputs) -> dict[str, float]:
    """What one copy takes of everything there may be a budget of, in SI units."""
    found: dict[str, float] = {"power": 0.0, "usd": 0.0, "units": 0.0}
    for index in range(len(plan.units)):
        row, system = _hardware(plan, inputs, index, 1), _selection(plan, inputs, index).system
        for kind, size in installed_bytes(system).items():
            found[kind] = found.get(kind, 0.0) + size * row.units.devices / system.devices
        found["power"] += row.units.stated_megawatts * 1e6 * inputs.prices.pue.value
        found["usd"] += row.units.capex_usd * (1.0 + inputs.prices.installation.value)
        found["units"] += row.units.units
    return found


def _of_so_many(plan: Plan, inputs: Inputs, usd: float) -> Interval:
    """USD a day of a number of copies that is given: prices move it, and not how fast they serve."""
    context = build_context(inputs)
    hour = plan.cost.usd_per_hour
    moved = [usd * other / hour for _, other in hour_moves(context, tuple(row.units for row in plan.units))]
    return Interval.model_validate(combine(usd, moved))


@dataclass(frozen=True)
class _Row:
    """Of one kind of hardware: what there is of it, USD an hour by cause, capital cost and stated megawatts at both ends."""

    units: FleetHardware
    by_cause: dict[str, float]
    capex_ends: tuple[float, float]
    power_ends: tuple[float, float]


def _hardware(plan: Plan, inputs: Inputs, index: int, copies: int) -> _Row:
    system, units = _selection(plan, inputs, index).system, plan.units[index].units * copies
    devices = units * system.purchasable_devices
    systems = devices / system.devices
    terms = terms_of(inputs)
    hour, capex = terms.hour(system), (0.0, 0.0, 0.0) if terms.rented else _ends(system.capex)
    return _Row(
        FleetHardware(
            hardware=system.id,
            units=units,
            devices_per_unit=system.purchasable_devices,
            devices=devices,
            nodes=-(-devices // system.devices_per_node),
            systems=-(-devices // system.devices),
            capex_usd=capex[1] * systems,
            stated_megawatts=system.power.value * systems / 1e6,
        ),
        {cause: getattr(hour, cause) * systems for cause in CAUSES},
        (capex[0] * systems, capex[2] * systems),
        (system.power.lowest * systems / 1e6, system.power.highest * systems / 1e6),
    )


def _ends(figure: Figure) -> tuple[float, float, float]:
    return figure.lowest, figure.value, figure.highest


_MOST_OFF = 1e6
"""Largest factor between the expected value of a plan and an end of its interval."""


def _refuse_damaged(plan: Plan) -> None:
    """One line where a number that is divided by or multiplied with cannot be one of a plan."""
    cost, prediction = plan.cost, plan.prediction
    speed, price = prediction.output_tokens_per_s, cost.blended_interval
    near = [(interval, end) for interval in (speed, price) for end in (interval.low, interval.high) if end is not None]
    sound = {
        "cost.tokens_per_request": all(cost.tokens_per_request.get(name, -1.0) >= least for name, least in _TOKENS.items()),
        "cost.utilisation": cost.utilisation >= 1e-6,
        "cost.input_share": 0.0 < cost.input_share < 1.0,
        "cost.allocation": cost.allocation in get_args(Allocation),
        "prediction.requests_per_s": 1e-9 <= prediction.requests_per_s <= prediction.capacity_requests_per_s * (1.0 + SLACK),
        "prediction.output_tokens_per_s": speed.expected > 0.0,
        "cost.blended_interval": price.expected > 0.0
        and all(interval.expected / _MOST_OFF <= end <= interval.expected * _MOST_OFF for interval, end in near),
    }
    for name, holds in sound.items():
        if not holds:
            raise InputError(f"{name} is damaged", where="plan", mend="see planner verify")


_TOKENS = {"input_hit": 0.0, "input_miss": 1e-9, "output": 1e-9}
"""Tokens of a request by stream, and how many there are at least."""


def _selection(plan: Plan, inputs: Inputs, index: int) -> HardwareSelection:
    """The hardware of a plan's units: they stand in the order of its pools."""
    pools = list(inputs.hardware.values())
    if len(pools) != len(plan.units) or pools[index].system.id != plan.units[index].hardware:
        raise InputError("its units are not of its hardware", where="plan", mend="see planner verify")
    return pools[index]


def _prices(plan: Plan, tokens: TokensPerDay, input_usd: float, output_usd: float) -> StreamPrices:
    """The cost of a day by stream, hits and misses charged in the proportion that the plan prices them."""
    found = plan.cost.usd_per_million
    hit_share = 0.0
    if plan.cost.allocation == "flops" and tokens.input_hit > 0.0:
        if found.input_hit is None or not found.input_miss:
            what = "the plan's workload has no cached input, so nothing says what share of the FLOPs it takes"
            raise InputError(what, where="mix", mend="plan with --prefix-hit, or with --allocation miss_only")
        hit, miss = found.input_hit * tokens.input_hit, found.input_miss * tokens.input_miss
        hit_share = hit / (hit + miss)
    split = stream_costs(
        input_usd=input_usd,
        output_usd=output_usd,
        hit_tokens=tokens.input_hit,
        miss_tokens=tokens.input_miss,
        output_tokens=tokens.output,
        allocation=plan.cost.allocation,
        hit_flops_share=hit_share,
    )
    return StreamPrices(input_hit=split.input_hit, input_miss=split.input_miss, output=split.output, blended=split.blended)


def _share(plan: Plan) -> float:
    """What each copy serves of what it could."""
    return plan.prediction.requests_per_s / plan.prediction.capacity_requests_per_s


def _notes(inputs: Inputs, needs: dict[str, float], shared: bool, mix: Mix | None, plan: Plan) -> list[str]:
    notes = []
    if mix is not None:
        notes.append("the mix is served at the plan's cost of a miss and of an output token; requests are as long as the plan's")
    more, less = max(needs, key=lambda phase: needs[phase]), min(needs, key=lambda phase: needs[phase])
    if not shared and needs[less] < 0.9 * needs[more]:
        pools = {"input": "prefill", "output": "decode"}
        idle = f"{pools[less]} pools have {needs[less] / needs[more]:.0%} of the work they are there for"
        notes.append(f"{idle}; a plan for that mix would have fewer of them")
    if inputs.options.rate is not None or inputs.options.tokens_per_day is not None:
        how = (
            f"the plan is the cheapest for a demand of its own, of which each copy serves no more ({_share(plan):.0%} of what it"
        )
        how += " could)"
        notes.append(f"{how}; a plan without one may make cheaper copies")
    return notes


def _whole(needed: float) -> int:
    return max(math.ceil(needed - slack(needed)), 1)


def _price(value: float | None) -> float:
    return 0.0 if value is None else value


def _scaled(interval: Interval, expected: float) -> Interval:
    """The same relative interval around another value."""
    factor = expected / interval.expected
    ends = {end: None if value is None else value * factor for end, value in (("low", interval.low), ("high", interval.high))}
    return Interval(low=ends["low"], expected=expected, high=ends["high"])
