"""A finished plan at work again: what it does at its figures' values and at the ends of their intervals.

Groups of figures have names of their own, so that rows know which errors they share: those of compute and device memory go by
the device, those of the host's memories and networks and the price by the system, the use of experts by the model, overheads and
efficiencies by the runtime, what is left unexplained by both of them; the other prices are everyone's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from planner.comparison.chance import Spread, spread_of
from planner.errors import InputError
from planner.hardware import System
from planner.plans.context import Context, PoolContext, at_value, build_context
from planner.plans.decision import Decision
from planner.plans.hours import Terms, terms_of
from planner.plans.inputs import Inputs
from planner.plans.intervals import combine, hour_moves, perturbed
from planner.plans.operate import Operation, operate, with_rates
from planner.plans.read import decision_of, inputs_of
from planner.plans.schema import Interval, Plan
from planner.plans.worth import objective_value

OF_DEVICE = ("compute", "memory")
OF_SYSTEM = ("network", "host")
OF_SYSTEM_PRICES = ("capex", "rent")
_HARDWARE = tuple(f"{group} of " for group in OF_DEVICE + OF_SYSTEM + OF_SYSTEM_PRICES)
Moves = dict[str, tuple[float, float, float]]


def of_hardware(key: str) -> bool:
    """Whether a group's errors are those of one kind of hardware, or of its price."""
    return key.startswith(_HARDWARE)


@dataclass(frozen=True)
class Judged:
    """A plan, its context and its operation at the figures' values, and those at their ends by group."""

    plan: Plan
    inputs: Inputs
    context: Context
    decision: Decision
    expected: Operation
    others: list[tuple[str, str, Operation]]

    @cached_property
    def hours(self) -> list[tuple[str, float]]:
        """``(price, USD per hour)`` at either end."""
        return hour_moves(self.context, self.expected.units)

    def interval(self, metric: Callable[[Operation], float], *, priced: bool = False, more: tuple[float, ...] = ()) -> Interval:
        """Of a positive metric; ``priced``: it moves as the hour does; ``more``: its values where something else moves."""
        value = metric(self.expected)
        moved = [metric(o) for _, _, o in self.others]
        if priced:
            moved += [value * hour / self.expected.usd_per_hour for _, hour in self.hours]
        found = combine(value, [*moved, *more])
        return Interval(low=found["low"], expected=value, high=found["high"])

    def objective(self, operation: Operation, usd_per_hour: float | None = None) -> float:
        """In the printed unit, as bad as can be where nothing is served: no throughput, else infinite."""
        if operation.requests_per_s <= 0.0:
            return 0.0 if self.inputs.options.objective == "throughput" else math.inf
        return objective_value(
            self.context,
            usd_per_hour=operation.usd_per_hour if usd_per_hour is None else usd_per_hour,
            devices_paid=operation.devices_paid,
            requests_per_s=operation.requests_per_s,
            tpot_s=operation.tpot_s,
        )

    @property
    def units(self) -> list[tuple[int, PoolContext]]:
        """Purchasable units paid for of each kind of hardware."""
        return list(zip(self.expected.units, self.context.pools.values(), strict=True))

    @property
    def watts(self) -> float:
        """Stated power of all units paid for."""
        return math.fsum(count * pool.watts_per_unit for count, pool in self.units)

    @property
    def objective_interval(self) -> Interval:
        """The objective with the plan's interval of it."""
        return self.interval(self.objective, priced=self.inputs.options.objective == "cost")

    @cached_property
    def spread(self) -> Spread | None:
        """The objective and the groups behind its interval; ``None`` where an end of the interval is not known."""
        value = self.objective(self.expected)
        moves: Moves = {}
        for group in dict.fromkeys(group for group, _, _ in self.others):
            ends = [self.objective(o) for name, _, o in self.others if name == group]
            if not _add(moves, value, ends, self._names(group)):
                return None
        if self.inputs.options.objective == "cost":
            for name in dict.fromkeys(name for name, _ in self.hours):
                hours = [hour for price, hour in self.hours if price == name]
                ends = [self.objective(self.expected, hour) for hour in hours]
                if not _add(moves, value, ends, self._price_names(name)):
                    return None
        return spread_of(value, moves)

    def _names(self, group: str) -> dict[str, float]:
        """What a group is called, and for hardware of two kinds how much of it is whose (squares of shares)."""
        runtime = self.inputs.runtime.id
        if group == "imbalance":
            return {f"{group} of {self.plan.model}": 1.0}
        if group == "residual":
            return {f"{group} of {self.plan.model} under {runtime}": 1.0}
        if group not in OF_DEVICE + OF_SYSTEM:
            return {f"{group} of {runtime}": 1.0}
        pools = self.context.pools
        whose = {p: pool.system.device.id if group in OF_DEVICE else pool.system.id for p, pool in pools.items()}
        if len(set(whose.values())) == 1:
            return {f"{group} of {next(iter(whose.values()))}": 1.0}
        value, parts = self.objective(self.expected), dict.fromkeys(whose, 0.0)
        for end in ("low", "high"):
            moved = with_rates(self.context, group, end)
            for phase in pools:
                alone = replace(self.context, pools={**pools, phase: moved.pools[phase]})
                other = self.objective(operate(alone, self.decision, self.expected.placed, self.expected.busy))
                parts[phase] += math.log(other / value) ** 2 if 0.0 < other < math.inf else 0.0
        return _shares({f"{group} of {whose[phase]}": part for phase, part in parts.items()})

    def _price_names(self, name: str) -> dict[str, float]:
        if name not in OF_SYSTEM_PRICES:
            return {f"price: {name}": 1.0}
        terms, parts = terms_of(self.inputs), dict[str, float]()
        for count, pool in self.units:
            low, high = _ends(terms, pool.system)
            key = f"{name} of {pool.system.id}"
            parts[key] = parts.get(key, 0.0) + (high - low) * count * pool.unit_devices / pool.system.devices
        return _shares({key: reach * reach for key, reach in parts.items()})


def _ends(terms: Terms, system: System) -> tuple[float, float]:
    """Of the price of a system."""
    if terms.rented:
        quote = terms.quote(system)
        return quote.low, quote.high
    return system.capex.lowest, system.capex.highest


def _shares(parts: dict[str, float]) -> dict[str, float]:
    whole = math.fsum(parts.values())
    return {key: part / whole if whole else 1.0 / len(parts) for key, part in parts.items()}


def _add(moves: Moves, value: float, ends: list[float], names: dict[str, float]) -> bool:
    """What a group does to the objective's logarithm, as intervals add it up, under its names; ``False`` where that is not
    known."""
    if not all(0.0 < end < math.inf for end in ends):
        return False
    logs = [math.log(end / value) for end in ends]
    down = math.sqrt(math.fsum(log * log for log in logs if log < 0.0))
    up = math.sqrt(math.fsum(log * log for log in logs if log > 0.0))
    sign = 1.0 if logs[0] >= logs[-1] else -1.0
    for name, share in names.items():
        moves[name] = (down * math.sqrt(share), up * math.sqrt(share), sign)
    return True


def judge(plan: Plan, where: str) -> Judged:
    """``InputError`` where the plan's objective does not follow from its inputs."""
    inputs, decision = inputs_of(plan, where), decision_of(plan, where)
    context = build_context(inputs, decision.variant)
    usual, operation = at_value(context), operate(context, decision)
    expected = operation if usual is context else operate(usual, decision, operation.placed)
    judged = Judged(plan, inputs, usual, decision, expected, perturbed(usual, decision, expected))
    if usual is context and not math.isclose(judged.objective(expected), plan.certificate.objective, rel_tol=1e-6):
        raise InputError("its objective does not follow from its inputs", where=where, mend="see planner verify")
    return judged
