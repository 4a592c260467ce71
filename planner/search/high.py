"""Limits on the slow end of a prediction: limits on the expected value, tightened until the plan's 90th percentile keeps them."""

from __future__ import annotations

from collections.abc import Callable

from planner.errors import InfeasibleError, StoppedError
from planner.plans.inputs import Inputs
from planner.plans.intervals import within_high
from planner.plans.schema import Plan

ROUNDS, EMPTY, LOOSER = 16, 4, 3
"""Rounds in all, those in which nothing meets the limits, and those that take back what was tightened too much."""
FIELDS = {"ttft_s": "ttft_ms", "tpot_s": "tpot_ms"}
Limits = dict[str, float | None]


def within_limits(inputs: Inputs, once: Callable[[Inputs], Plan]) -> Plan:
    """A plan whose slow end keeps ``Options.high_ttft_s`` and ``high_tpot_s``; ``once`` plans for limits on expected values.

    The first round takes the limits as they are. A plan whose high end h of a time is above its limit L, at an expected value e,
    would keep it with e L / h expected, so that is the next limit: below e, and so below the limit before. Where nothing meets
    the next limits, geometric means with the last that were met are tried. A plan that keeps its limits with room is tried
    again at e L / h, as long as that finds better ones. The certificate is that of the last round.
    """
    asked = {field: getattr(inputs.options, f"high_{field}") for field in FIELDS}

    def planned(limits: Limits) -> Plan:
        return once(inputs.model_copy(update={"workload": inputs.workload.model_copy(update=limits)}))

    limits, looser = dict(asked), None
    conflicts: list[InfeasibleError] = []
    for _ in range(ROUNDS):
        try:
            plan = planned(limits)
        except InfeasibleError as error:
            if looser is None:
                raise
            conflicts.append(error)
            if len(conflicts) == EMPTY:
                break
            limits = {f: None if v is None else (v * (looser[f] or v)) ** 0.5 for f, v in limits.items()}
            continue
        if _keeps(plan, asked):
            return _loosened(plan, limits, asked, planned)
        if plan.certificate.stopped:
            raise StoppedError("stopped before a plan was found whose slow end keeps the limits; raise --time-limit")
        sure = _sure(plan, asked)
        looser, limits = limits, {f: None if v is None else min(v, sure[f] or v) for f, v in limits.items()}
    if not conflicts:
        raise StoppedError(f"no plan in {ROUNDS} rounds whose slow end keeps the limits; loosen them, or give --ttft and --tpot")
    first = conflicts[0]
    raise InfeasibleError(f"{first}; limits on the 90th percentile were asked, these are on the expected value", first.conflict)


def _loosened(plan: Plan, limits: Limits, asked: Limits, planned: Callable[[Limits], Plan]) -> Plan:
    """The plan, or better ones whose slow end also keeps the limits."""
    sign = -1.0 if plan.objective == "throughput" else 1.0
    for _ in range(LOOSER):
        sure = _sure(plan, asked)
        looser = {f: None if v is None else max(v, sure[f] or v) for f, v in limits.items()}
        if plan.certificate.stopped or looser == limits:
            break
        other = planned(looser)
        if not _keeps(other, asked) or sign * other.certificate.objective >= sign * plan.certificate.objective:
            break
        plan, limits = other, looser
    return plan


def _keeps(plan: Plan, asked: Limits) -> bool:
    """Whether the slow end of a plan keeps the limits."""
    return all(v is None or within_high(getattr(plan.prediction, FIELDS[f]).high, v) for f, v in asked.items())


def _sure(plan: Plan, asked: Limits) -> Limits:
    """The expected values at which the slow end would be at its limit, if it stays in proportion."""
    found: Limits = {}
    for field, limit in asked.items():
        time = getattr(plan.prediction, FIELDS[field])
        found[field] = None if limit is None else time.expected / 1e3 * (0.5 if time.high is None else limit * 1e3 / time.high)
    return found
