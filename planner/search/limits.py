"""The limits of a planning problem: what the user or the workload asks for, each with a name, and each to be moved or dropped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from planner.errors import InputError
from planner.plans.constraints import Constraint
from planner.plans.context import build_context
from planner.plans.inputs import Inputs
from planner.plans.needs import refuse_unknown
from planner.plans.space import declare_space

SERVICE = {"ttft_s": "service level TTFT", "tpot_s": "service level TPOT"}
"""Fields of the workload."""
OPTIONS = {
    "concurrency": ("concurrency", "at most {} requests in flight"),
    "rate": ("demand", "{:g} requests/s to serve"),
    "tokens_per_day": ("demand", "{:g} tokens a day to serve"),
    "max_usd_per_hour": ("money", "at most {:g} USD/h"),
    "max_power_kw": ("power", "at most {:g} kW"),
    "devices": ("devices", "at most {} devices"),
    "spare": ("spare", "{} kept idle"),
    "weight_dtype": ("weight dtype", "weights in {}"),
    "tiers": ("memories", "only {}"),
}
"""Fields of the options: name and words, in the order in which their need is questioned."""


@dataclass(frozen=True)
class Limit:
    """One limit: its name, the field it lives in (a constraint is its own) and what it says."""

    name: str
    field: str
    said: str
    constraint: Constraint | None = None

    def at(self, inputs: Inputs, value: Any) -> Inputs:
        """The inputs with another value of this limit, in the unit of its field (a rule for a constraint); ``None`` drops it."""
        if self.field in SERVICE:
            return inputs.model_copy(update={"workload": inputs.workload.model_copy(update={self.field: value})})
        if self.constraint is not None:
            own = () if value is None else (self.constraint.model_copy(update={"rule": value}),)
            rest = (own if c.name == self.constraint.name else (c,) for c in inputs.options.constraints)
            changes: dict[str, Any] = {"constraints": tuple(c for part in rest for c in part)}
        else:
            changes = {self.field: 0 if self.field == "spare" and value is None else value}
        return inputs.model_copy(update={"options": inputs.options.model_copy(update=changes)})

    def of(self, inputs: Inputs) -> Any:
        """The value asked for."""
        return getattr(inputs.workload if self.field in SERVICE else inputs.options, self.field)


def limits_of(inputs: Inputs) -> tuple[Limit, ...]:
    """Every limit of a problem, service levels first, constraints last: the later, the rather it is blamed."""
    found = []
    for field, name in SERVICE.items():
        seconds = getattr(inputs.workload, field)
        if seconds is not None:
            found.append(Limit(name, field, f"{seconds * 1e3:g} ms asked"))
    auto = any(selection.auto for selection in inputs.hardware.values())
    for field, (name, words) in OPTIONS.items():
        value = getattr(inputs.options, field)
        if field == "concurrency" and value is not None and auto:
            found.append(Limit("demand", field, f"{value} requests in flight at the service levels"))
        elif value is not None and value != 0:
            said = words.format(", ".join(value) if field == "tiers" else value)
            found.append(Limit(name, field, said + (f" ({inputs.options.spare_of})" if field == "spare" else "")))
    return (*found, *(Limit(c.name, "constraints", f"{c.sort} {c.rule}", c) for c in inputs.options.constraints))


def without(inputs: Inputs, dropped: Iterable[Limit]) -> Inputs:
    """The inputs with limits dropped."""
    for limit in dropped:
        inputs = limit.at(inputs, None)
    return inputs


def usable(inputs: Inputs) -> bool:
    """Whether the planner can plan this at all: no figure that nobody published, nothing the runtime lacks, not too large."""
    try:
        refuse_unknown(inputs)
        for variant in inputs.variants:
            declare_space(build_context(inputs, variant))
    except InputError:
        return False
    return True


def droppable(inputs: Inputs) -> tuple[Limit, ...]:
    """The limits that may be dropped, all together, without asking for what cannot be planned; the others always hold."""
    every = limits_of(inputs)
    kept: list[Limit] = []
    for limit in reversed(every):
        if usable(without(inputs, (one for one in every if one not in kept))):
            break
        kept.append(limit)
    for limit in tuple(kept):
        rest = [one for one in kept if one != limit]
        if usable(without(inputs, (one for one in every if one not in rest))):
            kept = rest
    return tuple(limit for limit in every if limit not in kept)
