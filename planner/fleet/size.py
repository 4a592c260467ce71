"""The size of a fleet: how many copies of a plan's deployment serve a day's tokens, and what they cost.

A copy is the deployment as it was planned and verified: its instances, its units, its load. It serves what the plan predicts for
the hours of service, so that latencies hold; there is no part of one. Of another mix of tokens than the plan's,

    needed(input) = misses a day / misses a day of one copy      needed(output) = likewise

and a mixed pool, whose time the phases share in the proportion ``a : 1 - a`` of the plan, needs ``a needed(input) +
(1 - a) needed(output)`` copies, pools of their own the larger of both. Cached input needs none: its attention is in the misses
and outputs that read it. Lengths of requests stay those of the plan.

Law: tokens of a day times their price, summed over streams, is the cost of a day; so is the sum over causes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from planner.economics import stream_costs
from planner.errors import InputError
from planner.fleet.schema import CostByCause, CostByStream, Fleet, FleetHardware, TokensPerDay
from planner.hardware import HardwareSelection
from planner.plans.context import system_cost
from planner.plans.inputs import Allocation, Inputs
from planner.plans.intervals import combine
from planner.plans.schema import Interval, Plan, StreamPrices

MOST_TOKENS = 1e24
"""Tokens a day: as many as a plan may be asked for."""
_SECONDS = 86400.0
_SLACK = 1e-9
"""Share of a copy by which rounding may exceed a whole number of them."""


@dataclass(frozen=True)
class Mix:
    """Shares of a day's tokens by stream; any positive multiple of them says the same."""

    hit: float
    miss: float
    output: float

    def __post_init__(self) -> None:
        parts = (self.hit, self.miss, self.output)
        if not all(math.isfinite(part) and 0.0 <= part <= MOST_TOKENS for part in parts):
            raise InputError("shares are numbers that are not negative", where="mix", mend="write hit=0.4,miss=0.4,output=0.2")
        if self.miss <= 0.0 or self.output <= 0.0:
            raise InputError("miss and output must be above 0, since a plan serves both", where="mix", mend="give each a share")

    def of(self, tokens: float) -> TokensPerDay:
        """So many tokens, split."""
        total = math.fsum((self.hit, self.miss, self.output))
        hit, miss, output = (tokens * part / total for part in (self.hit, self.miss, self.output))
        return TokensPerDay(input_hit=hit, input_miss=miss, output=output, total=tokens)


def size_fleet(
    plan: Plan, inputs: Inputs, *, tokens_per_day: float, mix: Mix | None = None, utilisation: float | None = None
) -> Fleet:
    """The fleet of a plan and its embedded inputs (``planner.plans.inputs_of``).

    ``mix`` and ``utilisation``, the share of the hours in which the fleet serves its load, are the plan's own if left out.
    ``InputError`` where a number is out of range, or the plan cannot say what was asked.
    """
    if not (math.isfinite(tokens_per_day) and 1.0 <= tokens_per_day <= MOST_TOKENS):
        raise InputError(f"{tokens_per_day!r} is not from 1 to {MOST_TOKENS:g}", where="tokens_per_day")
    _refuse_damaged(plan)
    used_hours = plan.cost.utilisation if utilisation is None else utilisation
    if not 1e-6 <= used_hours <= 1.0:
        raise InputError(f"{used_hours!r} is not from 0.000001 to 1", where="utilisation")
    each = plan.cost.tokens_per_request
    own = Mix(each["input_hit"], each["input_miss"], each["output"])
    asked = (mix or own).of(tokens_per_day)
    rate = plan.prediction.requests_per_s
    per_copy = rate * _SECONDS * used_hours
    needs = {"input": asked.input_miss / (per_copy * own.miss), "output": asked.output / (per_copy * own.output)}
    shared = plan.mode == "aggregated"
    time = {"input": plan.cost.input_share, "output": 1.0 - plan.cost.input_share}
    needed = math.fsum(time[phase] * needs[phase] for phase in needs) if shared else max(needs.values())
    copies = _whole(needed)
    speed = plan.prediction.output_tokens_per_s
    fewest, most = (None if not end else _whole(needed * speed.expected / end) for end in (speed.high, speed.low))

    def around(value: float, figures: list[float]) -> Interval:
        """With the copies, and what else moves it, at either end."""
        ends = combine(value, [value * count / copies for count in (fewest, most) if count is not None] + figures)
        low, high = (None if count is None else ends[end] for end, count in (("low", fewest), ("high", most)))
        return Interval(low=low, expected=value, high=high)

    rows = [_hardware(plan, inputs, index, copies) for index in range(len(plan.units))]
    usd = math.fsum(sum(row.by_cause.values()) for row in rows) * 24.0
    if not math.isclose(usd, plan.cost.usd_per_hour * 24.0 * copies, rel_tol=1e-9):
        raise InputError("its cost an hour does not follow from its inputs", where="plan", mend="see planner verify")
    work = {phase: time[phase] * needs[phase] for phase in needs} if shared else time
    input_usd = usd * work["input"] / math.fsum(work.values())
    prices = _prices(plan, asked, input_usd, usd - input_usd)
    streams = {name: _price(getattr(prices, name)) * getattr(asked, name) / 1e6 for name in CostByStream.model_fields}
    capex = math.fsum(row.units.capex_usd for row in rows)
    stated = math.fsum(row.units.stated_megawatts for row in rows)
    building = inputs.prices.power_utilisation, inputs.prices.pue
    draw = stated * building[0].value * building[1].value
    draws = [draw * end / figure.value for figure in building for end in (figure.lowest, figure.highest)]
    draws += [draw * math.fsum(row.power_ends[end] for row in rows) / stated for end in (0, 1)]
    devices = sum(row.units.devices for row in rows)
    share = rate / plan.prediction.capacity_requests_per_s
    return Fleet(
        model=plan.model,
        workload=plan.workload,
        tokens_per_day=asked,
        utilisation=used_hours,
        copies=Interval(low=fewest, expected=copies, high=most),
        needed=needs,
        used={"all": needed / copies} if shared else {phase: needs[phase] / copies for phase in needs},
        share_of_capacity=share,
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
        usd_per_day=_scaled(plan.cost.blended_interval, usd),
        usd_per_day_by_cause=CostByCause(**{cause: math.fsum(row.by_cause[cause] for row in rows) * 24.0 for cause in _CAUSES}),
        usd_per_day_by_stream=CostByStream(**streams),
        usd_per_million=prices,
        blended_interval=_scaled(plan.cost.blended_interval, _price(prices.blended)),
        allocation=plan.cost.allocation,
        basis=plan.cost.basis,
        currency=plan.cost.currency,
        as_of=plan.cost.as_of,
        tokens_per_s_per_device=tokens_per_day / _SECONDS / devices,
        notes=_notes(inputs, needs, shared, mix, share),
    )


_CAUSES = ("capital", "electricity", "maintenance", "staff")


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
    hour = system_cost(system, inputs.prices, system.capex.value)
    return _Row(
        FleetHardware(
            hardware=system.id,
            units=units,
            devices_per_unit=system.purchasable_devices,
            devices=devices,
            nodes=-(-devices // system.devices_per_node),
            systems=-(-devices // system.devices),
            capex_usd=system.capex.value * systems,
            stated_megawatts=system.power.value * systems / 1e6,
        ),
        {cause: getattr(hour, cause) * systems for cause in _CAUSES},
        (system.capex.lowest * systems, system.capex.highest * systems),
        (system.power.lowest * systems / 1e6, system.power.highest * systems / 1e6),
    )


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
        "prediction.requests_per_s": 1e-9 <= prediction.requests_per_s <= prediction.capacity_requests_per_s * (1.0 + _SLACK),
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


def _notes(inputs: Inputs, needs: dict[str, float], shared: bool, mix: Mix | None, share: float) -> list[str]:
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
            f"the plan is the cheapest for a demand of its own, of which each copy serves no more ({share:.0%} of what it could)"
        )
        notes.append(f"{how}; a plan without one may make cheaper copies")
    return notes


def _whole(needed: float) -> int:
    return max(math.ceil(needed * (1.0 - _SLACK)), 1)


def _price(value: float | None) -> float:
    return 0.0 if value is None else value


def _scaled(interval: Interval, expected: float) -> Interval:
    """The same relative interval around another value."""
    factor = expected / interval.expected
    ends = {end: None if value is None else value * factor for end, value in (("low", interval.low), ("high", interval.high))}
    return Interval(low=ends["low"], expected=expected, high=ends["high"])
