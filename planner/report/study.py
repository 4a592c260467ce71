"""A plan with the deployment behind it, worked out again from the plan's own inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from planner.comparison.figures import figures_of
from planner.comparison.judged import Judged, judge
from planner.comparison.schema import Figures
from planner.plans.context import Context
from planner.plans.decision import Decision
from planner.plans.operate import Operation
from planner.plans.schema import Plan

COLOURS = 8
"""Kinds of hardware that have a colour of their own; then they repeat."""

SYMBOLS = ("diamond", "circle", "square", "triangle-up", "cross", "star", "hexagon", "pentagon")
"""One for each model, and for each time that the colours of hardware repeat."""


@dataclass(frozen=True)
class Study:
    """``label`` names the plan among those of a report, ``number`` counts them from 0.

    ``shade``: which colour it has, one for each hardware; ``shape``: which symbol, one for each model.
    """

    label: str
    number: int
    judged: Judged
    shade: int = 0
    shape: int = 0

    @property
    def plan(self) -> Plan:
        """The plan itself."""
        return self.judged.plan

    @property
    def context(self) -> Context:
        """Its problem, every figure at its value."""
        return self.judged.context

    @property
    def decision(self) -> Decision:
        """Its configuration."""
        return self.judged.decision

    @property
    def operation(self) -> Operation:
        """The deployment at these values, placed as the plan says."""
        return self.judged.expected

    @cached_property
    def figures(self) -> Figures:
        """What is shown side by side."""
        return figures_of(self.judged)

    @property
    def key(self) -> str:
        """A name for ids in the page."""
        return f"p{self.number}"

    @property
    def colour(self) -> str:
        """Its variable in the style sheet."""
        return f"var(--series-{self.shade % COLOURS + 1})"

    @property
    def symbol(self) -> str:
        """How it is drawn among many."""
        return SYMBOLS[self.shape % len(SYMBOLS)]


def study_of(plan: Plan, label: str, number: int = 0, shade: int = 0, shape: int = 0) -> Study:
    """Work a plan's deployment out. ``InputError`` where its inputs or its configuration are invalid."""
    return Study(label, number, judge(plan, label), shade, shape)
