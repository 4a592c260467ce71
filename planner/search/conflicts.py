"""Why there is no plan: an irreducible set of limits that conflict, each with the least relief that would do.

A deletion filter drops limits, half of them at a time where it can, as long as there is still no plan; each limit that stays
was needed in a trial of its own. What is left conflicts and would not without any one of its members. Conflicts that share no
limit are each found. Where a conflict has one limit, its other party is the machine, and where it has none, machine and model
are both: what the machine lacks is then named too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from planner.errors import InfeasibleError
from planner.plans.context import build_context
from planner.plans.inputs import Inputs
from planner.plans.space import declare_space
from planner.reporter import Reporter
from planner.search.limits import SERVICE, Limit, droppable, limits_of, without
from planner.search.reliefs import RELIEF_STEPS, Relief, relief, unfound
from planner.search.shortage import (
    NOT_ALONE,
    Row,
    capacity_row,
    devices_row,
    member,
    memory_rows,
    moved_text,
    worst_shortage,
)
from planner.search.tables import Stop, Tables
from planner.search.trials import EFFORT, STEPS, OutOfTimeError, Trials

PURCHASES = {"max_usd_per_hour", "max_power_kw"}


@dataclass(frozen=True)
class Member:
    """A limit of a conflict: the problem that its relief was sought in, the relief, and the row to print."""

    limit: Limit
    base: Inputs
    relief: Relief
    row: Row


def explain_infeasible(every: list[Tables], reporter: Reporter, stop: Stop) -> InfeasibleError:
    """The conflict as an error to raise; ``every``: the tables of a problem that has no plan, one for each variant."""
    inputs = every[0].context.inputs
    return Explanation(inputs, Trials(every, reporter, stop)).error()


def irreducible(trials: Trials, inputs: Inputs, limits: Sequence[Limit]) -> list[Limit]:
    """Limits of an infeasible problem that conflict, of which none can be left out; ``inputs`` carries them all."""
    kept = list(limits)

    def conflict(dropped: Sequence[Limit]) -> bool:
        rest = [limit for limit in limits if limit not in kept or limit in dropped]
        return trials.hit(without(inputs, rest)) is None

    def sift(block: Sequence[Limit]) -> None:
        if not block:
            return
        if conflict(block):
            for limit in block:
                kept.remove(limit)
        elif len(block) > 1:
            half = len(block) // 2
            sift(block[:half])
            sift(block[half:])

    sift(tuple(limits))
    return kept


class Explanation:
    """The conflicts of one problem, put into words."""

    def __init__(self, inputs: Inputs, trials: Trials) -> None:
        self.inputs, self.trials = inputs, trials
        self.limits = droppable(inputs)

    def error(self) -> InfeasibleError:
        """All conflicts that share no limit."""
        left = list(self.limits)
        sets: list[list[Limit]] = []
        try:
            while not sets or (left and self.trials.hit(self._only(left)) is None):
                found = irreducible(self.trials, self._only(left), left)
                sets.append(found)
                left = [limit for limit in left if limit not in found]
                if not found:
                    break
        except OutOfTimeError:
            if not sets:
                return self._stopped()
        cut = self.trials.ended is not None
        messages: list[str] = []
        rows: list[Row] = []
        for limits in sets:
            message, members = self._explained(limits)
            messages.append(message)
            rows += [row for row in members if row["member"] not in {known["member"] for known in rows}]
        if cut:
            messages.append("what else conflicts was not found before the look for it was ended")
        return InfeasibleError("proved infeasible: " + "; besides, ".join(messages), rows)

    def _only(self, kept: Sequence[Limit]) -> Inputs:
        """The problem with no other droppable limit."""
        return without(self.inputs, (limit for limit in self.limits if limit not in kept))

    # -- one conflict --------------------------------------------------------------------------------------------------
    def _explained(self, limits: list[Limit]) -> tuple[str, list[Row]]:
        members = [self._member(limits, limit) for limit in limits]
        self.trials.allow(RELIEF_STEPS)
        try:
            message, machine = self._message(members)
        except OutOfTimeError:
            message, machine = _together(limits), []
        return message, [one.row for one in members] + machine

    def _member(self, limits: list[Limit], limit: Limit) -> Member:
        """A limit of a conflict with its relief: within all other limits or, if others conflict too, those of the set."""
        self.trials.allow(RELIEF_STEPS)
        for base, note in ((self.inputs, ""), (self._only(limits), NOT_ALONE)):
            try:
                hit = self.trials.hit(limit.at(base, None))
            except OutOfTimeError:
                break
            if hit is not None:
                found = relief(self.trials, base, limit, hit)
                detail = f"{limit.said}, {found.detail}" if found.detail else limit.said
                row = member(limit.name, detail, found.text + note, found.amount, found.unit)
                return Member(limit, base, found, row)
        late = unfound(self.trials)
        return Member(limit, self.inputs, late, member(limit.name, limit.said, late.text, None, ""))

    def _message(self, members: list[Member]) -> tuple[str, list[Row]]:
        """One sentence, and what the machine lacks if it is a party."""
        limits = [one.limit for one in members]
        fields = [limit.field for limit in limits]
        if not limits or fields == ["tiers"]:
            return self._machine(limits)
        if fields == ["tpot_s"] and members[0].relief.amount is not None:
            return self._slow(members[0], members[0].relief.amount)
        machine: list[Row] = []
        if len(limits) == 1 and fields[0] != "devices":
            machine = _some(devices_row(self.trials, members[0].base, self.inputs))
        if "ttft_s" in fields and set(fields) <= set(SERVICE):
            return _late(members[fields.index("ttft_s")]), machine
        if fields == ["concurrency"] and build_context(self.inputs).cap is not None:
            return "no configuration works with so few requests in flight", machine
        if len(limits) == 1 and fields[0] in PURCHASES:
            context = build_context(self._only(limits))
            for phase, space in declare_space(context).pools.items():
                if space.units == 0:
                    unit = context.pool(phase).system.id
                    return f"not even one purchasable unit of {unit} within the limit on {limits[0].name}", []
        return _together(limits), machine

    def _slow(self, one: Member, least_ms: float) -> tuple[str, list[Row]]:
        asked = one.limit.of(self.inputs)
        message = f"service level TPOT {asked * 1e3:g} ms is below the least reachable {least_ms:.4f} ms"
        rows: list[Row] = []
        if one.relief.hit is not None:
            text = moved_text(one.relief.hit.operation)
            message += f"; {text}" if text else ""
            rows += _some(capacity_row(self.trials, one.base, one.relief.hit.operation))
        return message, rows + _some(devices_row(self.trials, one.base, self.inputs))

    def _machine(self, limits: list[Limit]) -> tuple[str, list[Row]]:
        """Nothing fits, or nothing serves, even without any other limit."""
        inputs = self._only([*limits, *(one for one in self.limits if one.field == "weight_dtype")])
        context = build_context(inputs)
        space = declare_space(context)
        if any(pool.units == 0 or pool.devices == 0 for pool in space.pools.values()):
            return "not even one purchasable unit of the hardware", []
        if not any(pool.shape_count for pool in space.pools.values()):
            detail = "no parallel shape passes divisibility and topology on these devices"
            return detail, [member("devices", detail, "more devices", None, "devices")]
        devices = _some(devices_row(self.trials, inputs, self.inputs))
        lacking = worst_shortage(context, space)
        if lacking is None:
            return "nothing that fits serves this workload on this hardware, under any limits", devices
        message, rows = memory_rows(*lacking)
        return message, rows + devices

    def _stopped(self) -> InfeasibleError:
        """The search had ended, the look for what conflicts had not."""
        effort = self.trials.ended == EFFORT
        within = f"in {STEPS} steps" if effort else "within the time limit"
        members = [member(limit.name, limit.said, f"not found {within}", None, "") for limit in limits_of(self.inputs)]
        ended = (
            f"the look for which limits conflict was ended after {STEPS} steps: leave out limits one by one to see which decide"
            if effort
            else "the time limit ended the look for the least relief: raise --time-limit to see which limit decides"
        )
        return InfeasibleError(f"proved infeasible; {ended}", members)


def _some(row: Row | None) -> list[Row]:
    return [row] if row else []


def _late(one: Member) -> str:
    tpot, amount = one.base.workload.tpot_s, one.relief.amount
    given = "" if tpot is None else f" with TPOT at most {tpot * 1e3:g} ms"
    message = f"service level TTFT {one.limit.of(one.base) * 1e3:g} ms cannot be met{given}"
    return message if amount is None else f"{message}; the least found is {math.ceil(amount)} ms"


def _together(limits: Sequence[Limit]) -> str:
    named = [f"{limit.name} ({limit.said})" if limit.said not in limit.name else limit.name for limit in limits]
    if len(named) == 1:
        return f"{named[0]} cannot be met on this hardware"
    return f"{', '.join(named[:-1])} and {named[-1]} cannot hold together"
