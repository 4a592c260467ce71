"""The least change of one limit, all others kept, that lets a plan exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR
from decimal import Context as Digits
from typing import Any

from planner.errors import InputError
from planner.plans.constraints import RANGE_AXES, WORDS, Constraint
from planner.plans.context import PoolContext, build_context
from planner.plans.inputs import WEIGHT_FORMATS, Inputs
from planner.plans.space import Space, declare_space
from planner.search.limits import Limit
from planner.search.overflow import held_in, least_held
from planner.search.trials import EFFORT, Hit, OutOfTimeError, Trials

FINE = 1e-3
"""Relative width at which bisection of a time or a rate ends."""

LEAST_TTFT_S = 1e-4
"""Seconds from which the least TTFT is looked for."""

RELIEF_STEPS = 400
"""Steps of trials for one relief, and for what the machine lacks."""

MOST_VALUES = 12
"""How many other values of a pin or ban are tried, nearest first."""


@dataclass(frozen=True)
class Relief:
    """What to do, the amount in ``unit`` (``None`` where there is none), what to add to the words about the limit, and the
    deployment that reaches just this, if the search for it ended at one."""

    text: str
    amount: float | None
    unit: str
    detail: str = ""
    hit: Hit | None = None


def up(value: float) -> str:
    """Six significant digits, not below the value."""
    return f"{Digits(prec=6, rounding=ROUND_CEILING).create_decimal_from_float(value):f}"


def down(value: float) -> str:
    """Six significant digits, not above the value."""
    return f"{Digits(prec=6, rounding=ROUND_FLOOR).create_decimal_from_float(value):f}"


def relief(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    """The least relief of ``limit`` in ``inputs``, where ``hit`` is a deployment that all other limits allow; the least found
    where the look for it was ended."""
    trials.allow(RELIEF_STEPS)
    try:
        found = RELIEFS[limit.field](trials, inputs, limit, hit)
    except OutOfTimeError:
        return unfound(trials)
    if trials.ended is None:
        return found
    return replace(found, detail=f"{found.detail or 'this works'}; the look for less was ended {why(trials)}")


def why(trials: Trials) -> str:
    """What ended a look for something."""
    return f"after {RELIEF_STEPS} steps" if trials.ended == EFFORT else f"by the {trials.ended}"


def unfound(trials: Trials) -> Relief:
    """No relief, and what ended the look for one."""
    within = f"in {RELIEF_STEPS} steps" if trials.ended == EFFORT else "within the time limit"
    return Relief(f"not found {within}", None, "")


# -- numbers -----------------------------------------------------------------------------------------------------------
def _first(works: Callable[[Any], bool], values: Sequence[Any]) -> Any:
    """The first value that works, if all after it do and the last is known to; a later one where the look for it is ended."""
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            low, high = (low, middle) if works(values[middle]) else (middle + 1, high)
        except OutOfTimeError:
            break
    return values[high]


def _between(reach: Callable[[float], float | None], fails: float, works: float) -> float:
    """A value within ``FINE`` of the border between one that fails and one that works; ``reach`` gives what a trial reached."""
    while abs(math.log(works / fails)) > FINE:
        middle = math.sqrt(fails * works)
        try:
            reached = reach(middle)
        except OutOfTimeError:
            break
        if reached is None:
            fails = middle
        else:
            works = min(middle, reached) if works > fails else max(middle, reached)
    return works


# -- service levels and demand -----------------------------------------------------------------------------------------
def _tpot(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    least = trials.fastest(inputs) if not _demand_of_levels(inputs) else None
    if least is not None:
        value, exact = least.operation.tpot_s, least.exact
    else:
        works = hit.operation.tpot_s
        value = _bisected(trials, inputs, limit, min(float(limit.of(inputs)), works), works, lambda one: one.operation.tpot_s)
        exact = True
    words = "is the least in the space" if exact else "was found within the time limit"
    return Relief(f"--tpot {up(value * 1e3 * (1 + 1e-9))}ms", value * 1e3, "ms", f"{value * 1e3:.4f} ms {words}", least)


def _demand_of_levels(inputs: Inputs) -> bool:
    """The demand is so many requests in flight, which a slower service level makes less."""
    context = build_context(inputs)
    return context.demand is not None and inputs.options.rate is None and inputs.options.tokens_per_day is None


def _ttft(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    works = hit.operation.ttft_s
    fails = min(max(float(limit.of(inputs)), LEAST_TTFT_S), works)
    value = _bisected(trials, inputs, limit, fails, works, lambda one: one.operation.ttft_s)
    need, tpot = math.ceil(value * 1e3), inputs.workload.tpot_s
    given = "" if tpot is None else f" with TPOT at most {tpot * 1e3:g} ms"
    return Relief(f"--ttft {need}ms", value * 1e3, "ms", f"about {need} ms can be reached{given}")


def _bisected(trials: Trials, inputs: Inputs, limit: Limit, fails: float, works: float, reached: Callable[[Hit], float]) -> float:
    def reach(value: float) -> float | None:
        found = trials.hit(limit.at(inputs, value))
        return None if found is None else reached(found)

    return _between(reach, fails, works)


def _demand(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    asked, rate = float(limit.of(inputs)), build_context(inputs).demand
    assert rate is not None

    def served(found: Hit) -> float:
        return found.operation.capacity_per_s / rate * asked

    if limit.field == "concurrency":
        if trials.hit(limit.at(inputs, 1)) is None:
            return Relief("drop it", None, "")
        most = _first(lambda n: trials.hit(limit.at(inputs, n)) is not None, range(int(asked) - 1, 0, -1))
        return Relief(f"--concurrency {most}", float(most), "requests", f"{most} can be served")
    value = _bisected(trials, inputs, limit, asked, min(served(hit), asked), served)
    flag, unit = ("--rate", "requests/s") if limit.field == "rate" else ("--tokens-per-day", "tokens a day")
    return Relief(f"{flag} {down(value)}", value, unit, f"about {value:.4g} can be served")


def _concurrency(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    if build_context(inputs).cap is None:
        return _demand(trials, inputs, limit, hit)
    cap = int(limit.of(inputs))
    values = range(cap + 1, max(math.ceil(hit.operation.concurrency), cap + 1) + 1)
    least = _first(lambda n: trials.hit(limit.at(inputs, n)) is not None, values)
    return Relief(f"--concurrency {least}", float(least), "requests", f"{least} is the least that works")


# -- purchases ---------------------------------------------------------------------------------------------------------
def _purchase(price: Callable[[PoolContext], float], flag: str, unit: str) -> Callable[[Trials, Inputs, Limit, Hit], Relief]:
    """Money or power: the least price of a number of purchasable units that works."""

    def find(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
        prices = [price(pool) for pool in hit.context.pools.values()]
        most = sum(n * each for n, each in zip(hit.decision.units, prices, strict=True))
        space = declare_space(build_context(limit.at(inputs, None)))
        bought: set[tuple[int, ...]]
        if hit.context.separate:
            bought = {(p, d) for _, _, p, d in space.splits}
        else:
            bought = {(n,) for n in range(1, space.pools["mixed"].units + 1)}
        sums = {sum(n * each for n, each in zip(units, prices, strict=True)) for units in bought}
        asked = float(limit.of(inputs))
        values = [value for value in sorted(sums) if asked * (1 + 1e-12) < value < most * (1 - 1e-12)]
        least = _first(lambda value: trials.hit(limit.at(inputs, value)) is not None, [*values, most])
        return Relief(f"{flag} {up(least)}", least, unit, f"{least:.6g} {unit} is the least that works")

    return find


def _devices(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    paid = [n * pool.unit_devices for n, pool in zip(hit.decision.units, hit.context.pools.values(), strict=True)]
    asked = int(limit.of(inputs))
    values = range(asked + 1, max(asked + 1, *paid) + 1)
    least = _first(lambda n: trials.hit(limit.at(inputs, n)) is not None, values)
    return Relief(f"--devices {least}", float(least), "devices", f"{least} are the fewest that work")


def _spare(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    values = range(int(limit.of(inputs)) - 1, -1, -1)
    most = _first(lambda n: trials.hit(limit.at(inputs, n)) is not None, values)
    return Relief(f"--spare {most}", float(most), inputs.options.spare_of, f"{most} leave enough")


# -- memories and dtypes -----------------------------------------------------------------------------------------------
def _tiers(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    """The first memory below those allowed that does, and how much of it on each device."""
    asked = tuple(limit.of(inputs))
    pools = build_context(inputs).pools.values()
    others = list(dict.fromkeys(t.id for pool in pools for t in pool.rates.tiers if t.id not in pool.tiers))
    for tier in others:
        found = trials.hit(limit.at(inputs, (*asked, tier)))
        if found is not None:
            least = least_held(found.context, tier)
            size = held_in(found.operation, tier) if least is None else least
            words = "is enough" if least is None else "is the least"
            return Relief(f"allow {tier}", size / 1e9, "GB per device", f"{size / 1e9:.3f} GB of {tier} a device {words}")
    return Relief(f"allow {', '.join(others)} together" if others else "drop it", None, "")


def _weights(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    names = list(WEIGHT_FORMATS)
    start = names.index(str(limit.of(inputs)))
    for name in sorted(names, key=lambda n: abs(names.index(n) - start)):
        if name != limit.of(inputs) and _works(trials, limit.at(inputs, name)):
            return Relief(f"--weight-dtype {name}, or the model's own", None, "")
    return Relief("drop it: the model's own", None, "")


# -- pins and bans -----------------------------------------------------------------------------------------------------
def _constraint(trials: Trials, inputs: Inputs, limit: Limit, hit: Hit) -> Relief:
    """Drop it, or the nearest value that works."""
    rule = limit.constraint
    assert rule is not None
    free = limit.at(inputs, None)
    rules = list(looser(rule, free, declare_space(hit.context), hit))

    def works(entry: tuple[str, str]) -> bool:
        return _works(trials, limit.at(inputs, entry[0]))

    if rules and rule.axis and (rule.axis[2] != "=" or rule.axis[1] in RANGE_AXES):
        found = _first(works, rules) if works(rules[-1]) else None
    else:
        found = next((entry for entry in rules[:MOST_VALUES] if works(entry)), None)
    if found is None:
        return Relief("drop it", None, "")
    return Relief(f"drop it, or {rule.sort} {found[0]}", float(found[1]) if found[1].isdigit() else None, "")


def _works(trials: Trials, inputs: Inputs) -> bool:
    try:
        return bool(inputs.options.variants) and trials.hit(inputs) is not None
    except InputError:
        return False


def looser(constraint: Constraint, inputs: Inputs, space: Space, hit: Hit) -> Iterator[tuple[str, str]]:
    """``(rule, value it lets in)``, nearest first: a range is widened step by step, of several values another is let in, and a
    pinned value gives way to another. ``space`` is without the constraint, ``hit`` a deployment in it."""
    if constraint.place is not None:
        yield from _other_places(constraint, inputs)
        return
    assert constraint.axis is not None
    pool, name, sign, wanted = constraint.axis
    head = f"{pool}.{name}" if pool else name
    if constraint.sort == "ban" and sign == "=":
        for value in wanted if len(wanted) > 1 else ():
            yield f"{head}={','.join(w for w in wanted if w != value)}", value
        return
    values = _towards(int(wanted[0]), name, pool, hit) if name in RANGE_AXES else axis_values(name, pool, inputs, space)
    others = [value for value in values if not bool(constraint.keeps(value))]
    if name not in WORDS and name != "kv_dtype":
        others.sort(key=lambda v: (min(abs(math.log((v + 0.5) / (int(w) + 0.5))) for w in wanted), v))
    step = 0 if constraint.sort == "pin" else -1 if sign == "<=" else 1
    for other in others:
        yield f"{head}{sign}{other + step if step else other}", str(other)


def _towards(pinned: int, name: str, pool: str | None, hit: Hit) -> list[int]:
    """Whole numbers from a pinned one to that of a deployment."""
    if name == "units":
        reached = max(hit.decision.units)
    else:
        reached = max((p.batch for p in hit.decision.pools if pool in (None, p.phase)), default=0)
    return list(range(min(pinned, reached), max(pinned, reached) + 1))


def axis_values(name: str, pool: str | None, inputs: Inputs, space: Space) -> list[Any]:
    """The values of an axis in a space, small to large (words as they stand)."""
    spaces = [p for phase, p in space.pools.items() if pool in (None, phase)] or list(space.pools.values())
    shapes = [s for p in spaces for s in p.shapes]
    options = inputs.options
    if name == "serving":
        return ["aggregated", "disaggregated"]
    if name in ("kv_dtype", "mtp"):
        return sorted(getattr(options, name))
    if name == "prefill_tokens_per_rank":
        return sorted({chunk for p in spaces for chunk in p.chunks})
    if name == "devices":
        return sorted({split[0 if pool == "prefill" else 1] for split in space.splits})
    columns = {"tp": "tp", "ep": "ep", "attention_dp": "dp", "context_parallel": "cp", "instance_devices": "devices"}
    if name == "pp":
        return sorted({s.pp for s in shapes})
    return sorted({int(value) for s in shapes for value in getattr(s, columns[name])})


def _other_places(constraint: Constraint, inputs: Inputs) -> Iterator[tuple[str, str]]:
    assert constraint.place is not None
    item, places = constraint.place
    if constraint.sort == "ban":
        for place in places if len(places) > 1 else ():
            yield f"{item}@{','.join(p for p in places if p != place)}", place
        return
    for pool in build_context(inputs).pools.values():
        for memory in (pool.rates.memory_id, *(t.id for t in pool.rates.tiers if t.id in pool.tiers)):
            if memory not in places:
                yield f"{item}@{','.join((*places, memory))}", memory


RELIEFS: dict[str, Callable[[Trials, Inputs, Limit, Hit], Relief]] = {
    "ttft_s": _ttft,
    "tpot_s": _tpot,
    "concurrency": _concurrency,
    "rate": _demand,
    "tokens_per_day": _demand,
    "max_usd_per_hour": _purchase(lambda pool: pool.usd_per_unit_hour, "--max-usd-per-hour", "USD/h"),
    "max_power_kw": _purchase(lambda pool: pool.watts_per_unit / 1e3, "--max-power-kw", "kW"),
    "devices": _devices,
    "spare": _spare,
    "weight_dtype": _weights,
    "tiers": _tiers,
    "constraints": _constraint,
}
