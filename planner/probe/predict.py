"""What the planner predicts for a model run on a probed machine, its tensors where the run puts them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np

from planner.documents import parse_toml, read_text
from planner.footprint import Shapes
from planner.hardware import HardwareSelection, System, with_estimates
from planner.performance.passes import PassTimes
from planner.plans.context import PoolContext, build_context
from planner.plans.evaluate import decode_pass
from planner.plans.inputs import Inputs, Options
from planner.plans.tiers import build_tier_problem, evaluate_shares
from planner.prices import load_prices
from planner.probe.decoder import OPERATORS
from planner.probe.spec import LAYOUT, Spec, graph_of
from planner.runtimes import Runtime
from planner.workload import Lengths, Workload

FILE = Path(__file__).with_name("runtime.toml")
_KINDS = {"attention": "attention", "moe": "experts", "memory": "tables"}


@cache
def reference_runtime() -> Runtime:
    """The runtime of the reference run before anything was measured in it."""
    return Runtime.model_validate(parse_toml(read_text(FILE), str(FILE)))


@dataclass(frozen=True)
class Predicted:
    """Seconds of a decode step, low and high by the runtime's residual, and of each operator."""

    step: float
    low: float
    high: float
    operators: dict[str, float]


def pool_of(spec: Spec, system: System, runtime: Runtime) -> PoolContext:
    """The planner's constants for a run: its model, the machine, the runtime, its context as the workload."""
    workload = Workload(
        id="probe",
        input_tokens=Lengths(mean=float(max(spec.context - 1, 1))),
        output_tokens=Lengths(mean=2.0),
        source="planner probe --run",
        as_of=date(2026, 11, 22),
        grade="A",
    )
    inputs = Inputs(
        model=graph_of(spec),
        hardware={"mixed": HardwareSelection(system=with_estimates(HardwareSelection(system=system)).system)},
        workload=workload,
        runtime=runtime,
        prices=load_prices("owned"),
        options=Options(kv_dtype=(LAYOUT,)),
    )
    return build_context(inputs).pools["mixed"]


def resident_operators(pool: PoolContext, batch: int) -> tuple[PassTimes, dict[str, float]]:
    """A decode step with everything in memory, and its seconds by operator."""
    times = decode_pass(pool, Shapes.single(1, 1, 1, 1), np.array([float(batch)]))
    found = dict.fromkeys(OPERATORS, 0.0)
    found["head and rest"] = float(times.step[0] + times.hop[0])
    for blocks, repeat in zip(times.windows, times.repeats[0], strict=True):
        for block in blocks:
            found[_KINDS.get(block.kind, "head and rest")] += repeat * float(block.total[0])
    return times, found


def predict(spec: Spec, pool: PoolContext) -> Predicted:
    """The step with every tensor where the run puts it."""
    shapes, workload = Shapes.single(1, 1, 1, 1), pool.inputs.workload
    times, operators = resident_operators(pool, spec.batch)
    passes = {"decode": times}
    resident = float(times.slowest_stage()[0])
    step = resident
    if spec.disk_bytes:
        problem = build_tier_problem(
            pool.pieces,
            shapes,
            pool.rates,
            passes,
            {"decode": 1.0},
            float(spec.batch),
            workload.reserved_tokens,
            pool.inputs.runtime.page_tokens,
            0.0,
            pool.tiers,
        )
        below = {
            ("routed", "fetch"): spec.experts_on_disk,
            ("static", "stream"): float(spec.dense_on_disk),
            ("lookup", "prefetch"): float(spec.table_on_disk),
        }
        shares = np.zeros(len(problem.choices))
        for index, choice in enumerate(problem.choices):
            item = problem.items[choice.item]
            part = sum(
                share
                for (kind, _), share in below.items()
                if kind == item.kind and _moves(item.kind, item.name, item.window, pool)
            )
            if choice.mode == "resident":
                shares[index] = 1.0 - part
            elif (item.kind, choice.mode) in below:
                shares[index] = part
        step = evaluate_shares(problem, shares).phase_s["decode"]
    operators["waiting for disk"] = max(step - resident, 0.0)
    residual = pool.inputs.runtime.residual
    return Predicted(
        step * residual.value,
        step * residual.lowest,
        step * residual.highest,
        {name: seconds * residual.value for name, seconds in operators.items()},
    )


def _moves(kind: str, name: str, window: int, pool: PoolContext) -> bool:
    """Whether the run keeps such an item on disk: the layers' weights and hashed tables, not embedding, head and projections."""
    kinds = {block.kind for block in pool.pieces.windows[window].blocks}
    if kind == "lookup":
        return name.startswith("Engram")
    return kind != "static" or "attention" in kinds
