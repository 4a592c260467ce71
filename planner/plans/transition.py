"""A plan that takes over from another: the alternatives from "as it is" to the new optimum, what each moves, and which is chosen.

An alternative is the best deployment of a part of the space, pinned near the old configuration; its bound speaks of that part,
that of the last, the optimum, of the whole. Chosen is, of those whose gap to the optimum's bound is within the one allowed, the
one that moves the fewest bytes; with a limit on them and none of those within it, the best within it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from planner.plans.constraints import Constraint, on_axis
from planner.plans.context import Context, at_variant, build_context
from planner.plans.decision import Decision
from planner.plans.experts import ExpertMap, is_even
from planner.plans.inputs import Inputs
from planner.plans.moves import Moves, moves_between
from planner.plans.numbers import relative_gap
from planner.plans.operate import Operation, operate
from planner.plans.worth import operation_objective
from planner.quantities import round12

OPTIMUM = "optimum"
Violated = tuple[str, str, Any, Any]
CHOICE = "transition: the fewest bytes within the gap allowed, or the best within --max-move-bytes"
RULES = "transition: the pins of each alternative, and the bound of the whole space for the optimum"
ROWS = "transition: alternatives meet their pins and every limit, and none dominates another"


@dataclass(frozen=True)
class Row:
    """The best deployment under the pins of an alternative; the bound on the objective there in its printed unit, and the nodes
    that a placement closed."""

    name: str
    decision: Decision
    bound: float
    nodes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Transition:
    """The decision that serves now, alternatives by bytes moved, the name of the one chosen, and why no more were sought."""

    old: Decision
    rows: tuple[Row, ...]
    chosen: str
    stopped: str | None = None


@dataclass(frozen=True)
class Weighed:
    """What is compared of an alternative: ``loss`` is the objective, or its negative where more is better."""

    name: str
    bytes: int
    loss: float


def rules_of(old: Decision) -> dict[str, tuple[str, ...]]:
    """The pins of every alternative by its name, from the nearest to the old configuration to the optimum."""
    apart = len(old.pools) > 1
    shapes: list[str] = []
    sizes: list[str] = []
    batches: list[str] = []
    tensors: list[str] = []
    sides: dict[str, tuple[str, ...]] = {}
    for pool in old.pools:
        side = f"{pool.phase}." if apart else ""
        tensor = [f"{side}tp={pool.tp}", f"{side}pp={pool.pp}"]
        shape = [*tensor, f"{side}ep={pool.ep}", f"{side}attention_dp={pool.dp}"]
        size = [f"{side}devices<={pool.devices}"] if apart else [f"units<={old.units[0]}"]
        shapes, sizes, tensors = shapes + shape, sizes + size, tensors + tensor
        if pool.batch:
            batches.append(f"{side}batch_per_rank<={pool.batch}")
        if apart:
            sides[f"{pool.phase} pool as it is"] = (*shape, *size)
    mode = "serving=disaggregated" if apart else "serving=aggregated"
    return {
        "as it is": (mode, *shapes, *sizes, *batches, f"mtp={old.variant.mtp}"),
        "same shapes, devices and batches free": (mode, *shapes),
        **sides,
        "same tensor and pipeline split": (mode, *tensors),
        OPTIMUM: (),
    }


def restricted(inputs: Inputs, rules: Iterable[str]) -> Inputs | None:
    """The problem under the pins of an alternative; ``None`` where they leave no variant."""
    pins = tuple(Constraint(name=f"keep {rule}", sort="pin", rule=rule) for rule in rules)
    changes = {"constraints": (*inputs.options.constraints, *pins), "pareto": None}
    options = inputs.options.model_copy(update=changes)
    return inputs.model_copy(update={"options": options}) if options.variants else None


def broken_pins(inputs: Inputs, decision: Decision) -> list[str]:
    """Pins on serving, units and devices that a decision breaks; those on shapes and batches bound the space."""
    constraints, broken = inputs.options.constraints, []
    mode = "aggregated" if len(decision.pools) == 1 else "disaggregated"
    values: list[tuple[str, str | None, str | int]] = [("serving", None, mode)]
    values += [("units", None, units) for units in decision.units]
    values += [("devices", pool.phase, pool.devices) for pool in decision.pools]
    for axis, phase, value in values:
        broken += [rule.name for rule in on_axis(constraints, axis, phase) if not bool(rule.keeps(value))]
    return broken


def old_operation(inputs: Inputs, old: Decision) -> Operation:
    """The plan that serves now, at the load it was made for."""
    assert inputs.previous is not None
    return operate(build_context(inputs.previous.restored(inputs), old.variant), old)


def weigh(context: Context, row: Row, serving: Operation, old: Decision) -> tuple[Weighed, Operation, Moves]:
    """An alternative at work, and what it moves."""
    here = at_variant(context, row.decision.variant)
    operation = operate(here, row.decision)
    moves = moves_between(serving, operation, old.experts, row.decision.experts)
    objective = round12(operation_objective(here, operation))
    sign = -1.0 if context.inputs.options.objective == "throughput" else 1.0
    return Weighed(row.name, moves.bytes, sign * objective), operation, moves


def choose(rows: list[Weighed], bound: float, gap: float, most: float | None) -> str | None:
    """The name of the alternative chosen; ``bound``: the optimum's, as a loss. ``None``: none is within ``most`` bytes."""
    optimum = next(row for row in rows if row.name == OPTIMUM)
    allowed = max(gap, relative_gap(optimum.loss, bound))
    within = [row for row in rows if most is None or row.bytes <= most]
    near = [row for row in within if relative_gap(row.loss, bound) <= allowed]
    if near:
        return min(near, key=lambda row: (row.bytes, row.name != OPTIMUM, row.loss)).name
    return min(within, key=lambda row: (row.loss, row.bytes)).name if within else None


def undominated(rows: list[Weighed], chosen: str | None) -> list[str]:
    """Names of the alternatives that none equals or beats in both, by bytes; what is chosen and the optimum stay."""
    kept: list[Weighed] = []
    for row in sorted(rows, key=lambda row: (row.bytes, row.loss, row.name not in (chosen, OPTIMUM))):
        if row.name in (chosen, OPTIMUM) or all(other.loss > row.loss for other in kept):
            kept.append(row)
    return [row.name for row in kept]


def transition_violations(
    context: Context, decision: Decision, transition: Transition, stated: list[dict[str, Any]], bound: float
) -> list[Violated]:
    """``(path, equation, expected, found)`` for what alternatives, each right by itself, must satisfy together. ``stated``: their
    recomputed rows; ``bound``: that of the whole space."""
    options = context.inputs.options
    sign = -1.0 if options.objective == "throughput" else 1.0
    found: list[Violated] = []
    rows = [Weighed(row["name"], row["bytes"], sign * row["objective"]) for row in stated]
    for number, (row, weighed) in enumerate(zip(transition.rows, rows, strict=True)):
        path = f"transition.alternatives.{number}"
        if sign * row.bound > weighed.loss + 1e-9 * abs(weighed.loss):
            found.append((f"{path}.bound", RULES, abs(weighed.loss), row.bound))
        if row.name == OPTIMUM and row.bound != bound:
            found.append((f"{path}.bound", RULES, bound, row.bound))
        if row.name == transition.chosen and not _same(row.decision, decision):
            found.append((path, "transition: the plan is the alternative chosen", str(row.decision), str(decision)))
    names = [row.name for row in rows]
    if names.count(OPTIMUM) != 1 or len(set(names)) != len(names):
        return [*found, ("transition.alternatives", ROWS, "each alternative once, the optimum among them", names)]
    wanted = choose(rows, sign * bound, options.gap, options.max_move_bytes)
    if wanted != transition.chosen:
        found.append(("transition.chosen", CHOICE, wanted, transition.chosen))
    if undominated(rows, wanted) != names:
        found.append(("transition.alternatives", ROWS, undominated(rows, wanted), names))
    return found


def _same(one: Decision, other: Decision) -> bool:
    if one != other or len(one.experts) != len(other.experts):
        return False
    pairs = list(zip(one.experts, other.experts, strict=True))
    return all(a.phase == b.phase and all(np.array_equal(*pair) for pair in _arrays(a, b)) for a, b in pairs)


def transition_data(
    context: Context, transition: Transition, pools_of: Callable[[Decision], list[dict[str, Any]]]
) -> dict[str, Any]:
    """The transition as the plan states it. ``pools_of``: the short form of a decision's pools."""
    inputs = context.inputs
    assert inputs.previous is not None
    serving = old_operation(inputs, transition.old)
    maps: list[ExpertMap] = []
    rows, chosen = [], None
    for row in transition.rows:
        weighed, operation, moves = weigh(context, row, serving, transition.old)
        if row.name == transition.chosen:
            chosen = (operation, moves)
        objective, bound = abs(weighed.loss), round12(row.bound)
        rows.append(
            {
                "name": row.name,
                "pins": list(rules_of(transition.old).get(row.name, ())),
                "bytes": moves.bytes,
                "by_source": moves.by(1),
                "seconds": moves.seconds,
                "objective": objective,
                "bound": bound,
                "gap": relative_gap(objective, bound),
                "units": list(operation.units),
                "pools": pools_of(row.decision),
                "maps": [_index(maps, one) for one in row.decision.experts],
                "nodes": dict(sorted(row.nodes.items())),
            }
        )
    assert chosen is not None
    result = {
        "replaces": _replaces(inputs.previous.restored(inputs), serving),
        **_moved(*chosen),
        "chosen": transition.chosen,
        "alternatives": rows,
        "maps": [_map_data(one) for one in maps],
    }
    if transition.stopped:
        result["stopped"] = transition.stopped
    return result


def _replaces(inputs: Inputs, serving: Operation) -> dict[str, Any]:
    return {
        "model": inputs.model.id,
        "workload": inputs.workload.id,
        "mode": serving.mode,
        "pools": [
            {
                "phase": state.decision.phase,
                "hardware": state.pool.system.id,
                "replicas": state.decision.replicas,
                "devices": state.decision.devices,
            }
            for state in serving.pools
        ],
    }


def _moved(operation: Operation, moves: Moves) -> dict[str, Any]:
    devices = []
    for load in moves.loads:
        by_source: dict[str, int] = {}
        for (_, source), size in load.moved.items():
            by_source[source] = by_source.get(source, 0) + size
        devices.append(
            {
                "pool": operation.pools[load.pool].decision.phase,
                "devices": load.count,
                "bytes": load.bytes,
                "kept_bytes": load.kept,
                "by_source": by_source,
                "seconds": load.seconds,
            }
        )
    return {
        "bytes": moves.bytes,
        "kept_bytes": moves.kept,
        "by_item": moves.by(0),
        "by_source": moves.by(1),
        "seconds": moves.seconds,
        "devices": devices,
    }


def _index(maps: list[ExpertMap], wanted: ExpertMap) -> dict[str, Any]:
    """Which map a pool has; a new one is added."""
    for number, known in enumerate(maps):
        same = (known.ranks, known.slots) == (wanted.ranks, wanted.slots)
        if same and all(np.array_equal(*pair) for pair in _arrays(known, wanted)):
            return {"pool": wanted.phase, "map": number}
    maps.append(wanted)
    return {"pool": wanted.phase, "map": len(maps) - 1}


def _arrays(known: ExpertMap, wanted: ExpertMap) -> list[tuple[Any, Any]]:
    return [(known.physical_to_logical, wanted.physical_to_logical), (known.split, wanted.split)]


def _map_data(one: ExpertMap) -> dict[str, Any]:
    return {
        "ranks": one.ranks,
        "slots_per_rank": one.slots,
        "physical_to_logical": one.physical_to_logical.tolist(),
        "split": None if is_even(one.physical_to_logical, one.split) else one.split.tolist(),
    }
