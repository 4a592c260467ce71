"""What else there was: for each value of each axis of parallelism that a plan did not choose, how good a deployment can be.

Two numbers a value. ``bound``: no configuration of the space with it is better, by the bounds that close the certificate's cells
(``verify --full`` recomputes them), at every batch and whatever the placement. ``found``: the best of those that lie in device
memory, evaluated exactly at the ends of the cells of batches. The truth lies between the two. Both are worked out from a plan's
embedded inputs, at its own KV dtype and draft tokens, for aggregated serving.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.plans.bounds import Charge, charge_of, meets, mixed_cell_merit, mixed_merit, objective_of_merit
from planner.plans.candidates import MixedGroup, mixed_groups
from planner.plans.context import Context, build_context
from planner.plans.inputs import Inputs
from planner.plans.read import decision_of
from planner.plans.schema import Plan
from planner.plans.space import Space, declare_space

AXES = {"tp": "tp", "attention_dp": "dp", "ep": "ep", "context_parallel": "cp"}
"""Fields of a configuration, and the column of shapes that has them; pipeline depth is that of the group."""


@dataclass(frozen=True)
class Passed:
    """A value not chosen. Objectives are in the printed unit, ``None`` where nothing meets the limits; ``at_least`` and
    ``worse``: by which part the bound and what was found are worse than the plan."""

    axis: str
    value: int | str
    bound: float | None
    at_least: float | None
    found: float | None
    worse: float | None


def passed_over(inputs: Inputs, plan: Plan, where: str = "plan") -> list[Passed]:
    """A row for every value that another configuration of aggregated serving has; empty where that is not comparable: for
    pools of different hardware, sets of workloads and maps of experts."""
    decision = decision_of(plan, where)
    if inputs.workloads or plan.experts:
        return []
    context = build_context(inputs, decision.variant)
    space = declare_space(context)
    if context.separate or not space.aggregated:
        return []
    columns = _columns(context, space, charge_of(context, inputs.options.objective, inputs.workload.tpot_s))
    if plan.mode != "aggregated":
        return [_row(context, plan, "serving", "aggregated", columns["bound"], columns["found"])]
    chosen = plan.pools[0].configuration.model_dump()
    rows = []
    for axis in (*AXES, "pp"):
        for value in sorted({int(value) for value in columns[axis]} - {chosen[axis]}):
            here = columns[axis] == value
            rows.append(_row(context, plan, axis, value, columns["bound"][here], columns["found"][here]))
    return rows


def _columns(context: Context, space: Space, charge: Charge) -> dict[str, np.ndarray]:
    """Parallelism, best merit possible and best merit found of every row of candidates."""
    parts: dict[str, list[np.ndarray]] = {}
    for group in mixed_groups(context.pools["mixed"], space.pools["mixed"]):
        count = len(group.chunk)
        row = {axis: getattr(group.shapes, column) for axis, column in AXES.items()}
        row |= {"pp": np.full(count, group.shapes.pp), "bound": np.zeros(count), "found": np.zeros(count)}
        if len(group.cells.row):
            merit, _, _ = mixed_cell_merit(context, space, charge, group)
            np.maximum.at(row["bound"], group.cells.row, merit)
            fits = np.flatnonzero(group.cells.fits)
            for batch in (group.cells.low[fits], group.cells.high[fits]):
                np.maximum.at(row["found"], group.cells.row[fits], _served(context, space, charge, group, fits, batch))
        for name, column in row.items():
            parts.setdefault(name, []).append(column)
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def _served(
    context: Context, space: Space, charge: Charge, group: MixedGroup, cells: np.ndarray, batch: np.ndarray
) -> np.ndarray:
    """Merit of cells at a batch with everything in device memory."""
    row = group.cells.row[cells]
    served = group.serve(row, batch)
    size = group.shapes.take(row).devices
    merit, _, _ = mixed_merit(context, space, charge, served.tpot_s, served.requests_per_s, size, served.concurrency)
    return np.where(meets(charge, served.tpot_s, served.ttft_s), merit, 0.0)


def _row(context: Context, plan: Plan, axis: str, value: int | str, bounds: np.ndarray, found: np.ndarray) -> Passed:
    ends = [float(np.max(column, initial=0.0)) for column in (bounds, found)]
    values = [objective_of_merit(context, end) if end > 0.0 else None for end in ends]
    best, more = plan.certificate.objective, plan.objective == "throughput"
    worse = [None if v is None else max(1.0 - v / best if more else v / best - 1.0, 0.0) for v in values]
    return Passed(axis, value, values[0], worse[0], values[1], worse[1])
