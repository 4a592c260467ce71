"""What a plan's hardware rests on that is no evidence, in words: estimates of cost and power, and what was assumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from planner.hardware import System, figures_of
from planner.hardware.given import ACCEPTED, GIVEN
from planner.hardware.schema import DIMENSIONS
from planner.quantities import Dimension, Figure, readable

if TYPE_CHECKING:
    from planner.plans.schema import Plan

ESTIMATE = "estimate"
UNIT_OF: dict[str, Dimension] = {"floors": "s", "issue": "s", "reserve": "bytes"}
"""Dimension of a runtime's figures by section; the others are bare numbers."""


def derivation(figure: Figure) -> str:
    """How an estimated figure came about; empty for one that is no estimate."""
    if figure.note.startswith(f"{ESTIMATE}: "):
        note = figure.note.removeprefix(f"{ESTIMATE}: ")
        return note if figure.source.startswith(ESTIMATE) else f"{note}; {figure.source}"
    return figure.source.partition(": ")[2] if figure.source.startswith(ESTIMATE) else ""


def estimates(plan: Plan) -> Iterator[str]:
    """A sentence for each capital cost and power that is an estimate, with its interval and derivation."""
    for system in _systems(plan):
        for key in ("capex", "power") if plan.cost.capital else ("power",):
            figure: Figure = getattr(system, key)
            if how := derivation(figure):
                yield f"{key} of {system.id} is an estimate: {in_words(figure, key)}; {how}"


def assumed(plan: Plan) -> Iterator[str]:
    """A line for each figure that was given or accepted on the command line, and each default of writes taken unasked."""
    for system in _systems(plan):
        for address, figure in figures_of(system):
            key = address.rpartition(".")[2]
            how = ""
            if figure.source == GIVEN:
                how = "given with --set" + ("" if figure.lowest < figure.highest else ", no interval given")
            elif figure.source.startswith(ACCEPTED):
                how = f"the profile's stated default, accepted with --set: {figure.source.removeprefix(ACCEPTED)}"
            elif figure.has_default and key == "write":
                how = f"the profile's stated default, taken without asking (writes are not planned for): {figure.reason}"
            if how:
                yield f"assumed: {address} {in_words(figure, key)}, {how}"


def in_words(figure: Figure, key: str) -> str:
    """The value with its unit, and its interval."""
    return readable(figure.value, DIMENSIONS[key], figure.lowest, figure.highest)


def end_in_words(path: str, value: float | None) -> str:
    """One end of the interval of the figure at ``path`` of a plan's inputs, with its unit."""
    steps = path.split(".")
    if value is None:
        return "-"
    bare: Dimension = "count"
    section = steps[1] if steps[0] == "runtime" and len(steps) > 1 and steps[-1] not in ("multiple", "fragmentation") else ""
    return readable(value, DIMENSIONS.get(steps[-1], UNIT_OF.get(section, bare)))


def _systems(plan: Plan) -> Iterator[System]:
    """The systems that a plan embeds, each once."""
    seen: set[str] = set()
    pools: dict[str, Any] = plan.inputs["hardware"]
    for selection in pools.values():
        system = System.model_validate(selection["system"], context={"si": True})
        if system.id not in seen:
            yield system
        seen.add(system.id)
