"""The tier problem of one configuration: which share of every item lies in which memory, as a linear program.

Ranks of an instance are alike, so one device stands for all (the average of an optimum over permutations of equal
devices is an optimum, since the program is convex). Items are aggregated per window of equal layers.

Per stage, window and phase the time ``t`` of one layer is at least
- ``base + fetched``: the pass with everything in device memory, plus what is fetched on demand (the router's choice is
  known only when it is needed, so nothing hides it);
- the device memory's time for all reads, plus writing and reading again what was staged;
- the time of each channel (host memory, either way of a link, disk, contention group) for all that passes it, reads and writes,
  and in a group beside what its networks carry for the layer: streams and what is written hide behind the layer, no more.
A stage takes ``sum repeat * t + step + hop``; the slowest stage sets the phase. Tables addressed by tokens are fetched ahead
(``planner.plans.prefetch``). Entries of a cache that a layer chooses are fetched on demand, or all streamed. A cache of one
window that others read moves for each of them. A decode step that fetches from a disk on its way is issued kernel by kernel
(``planner.plans.launches``). A streamed item needs a double buffer of one layer's share in device memory, a
fetched one a double buffer of what one layer (fetched ahead: one pass) fetches.
Units inside: milliseconds and GB (1e9 bytes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from planner.footprint.pieces import ModelPieces
from planner.footprint.shapes import Shapes
from planner.performance.passes import PassTimes
from planner.performance.rates import Rates
from planner.plans.contention import NetworkTime, needed_channels
from planner.plans.launches import launch_rows, resource_of
from planner.plans.lp import Array, LinearProgram, Vertex
from planner.plans.prefetch import WAIT, Ahead, Charged
from planner.plans.window_items import Item, window_items

TIE_BREAK = 1e-8
"""Cost of holding everything one tier lower than needed, relative to the objective with everything in device memory; orders equal
optima (device first), and is taken off bounds."""


@dataclass(frozen=True)
class Choice:
    """A column of the program: ``item`` of ``stage`` held in ``tier`` and moved by ``mode``."""

    stage: int
    item: int
    tier: str
    mode: str


@dataclass(frozen=True)
class TierProblem:
    """The program with what its columns and rows mean."""

    program: LinearProgram
    items: tuple[Item, ...]
    choices: tuple[Choice, ...]
    stages: tuple[tuple[int, ...], ...]
    phases: tuple[str, ...]
    weights: dict[str, float]
    time_rows: tuple[tuple[int, int, str, str], ...]
    capacity_rows: dict[tuple[int, str], int]
    pass_rows: tuple[tuple[int, str, str], ...]
    """``(stage, phase, resource)`` of the rows by which a pass carries all that is fetched ahead in it."""
    time_columns: tuple[tuple[int, int, str], ...]
    """What the columns after those of the choices time: a layer of ``(stage, window, phase)``."""


def build_tier_problem(
    pieces: ModelPieces,
    shapes: Shapes,
    rates: Rates,
    passes: Mapping[str, PassTimes],
    weights: Mapping[str, float],
    sequences: float,
    reserved_tokens: int,
    page_tokens: int,
    reserve_bytes: float,
    tiers: tuple[str, ...],
    period_s: float | None = None,
    forbidden: frozenset[tuple[str, str]] = frozenset(),
    prefix: tuple[tuple[float, float], ...] = (),
) -> TierProblem:
    """The program for one configuration (``shapes`` has one row).

    ``weights`` are the objective's milliseconds per phase second: minimise ``sum_phase weight * T_phase``.
    ``tiers`` names the memories that may be used beside the device's own; ``period_s`` limits the sum of the phases' times
    (aggregated serving under a TTFT limit). ``forbidden``: pairs of item and memory that are ruled out. ``prefix`` as in
    ``window_items``.
    """
    items = window_items(pieces, shapes, passes, sequences, reserved_tokens, page_tokens, prefix)
    phases = tuple(passes)
    layers = [(*stage, *(0 for _ in pieces.draft)) for stage in pieces.stage_table(shapes.pp)]
    layers[-1] = (*layers[-1][: len(pieces.windows)], *(w.layers for w in pieces.draft))
    lower = [tier for tier in rates.tiers if tier.id in tiers]
    below = {tier.id: tier for tier in lower}
    choices: list[Choice] = []
    for stage, counts in enumerate(layers):
        for number, item in enumerate(items):
            if not counts[item.window]:
                continue
            ruled_out = {memory for name, memory in forbidden if name in item.names}
            if rates.memory_id not in ruled_out:
                choices.append(Choice(stage, number, rates.memory_id, "resident"))
            for tier in lower:
                if tier.id not in ruled_out:
                    choices += [Choice(stage, number, tier.id, mode) for mode in item.modes]
    windows = [
        (stage, window, phase)
        for stage, counts in enumerate(layers)
        for window, count in enumerate(counts)
        if count
        for phase in phases
    ]
    columns = [f"share {c.stage}/{items[c.item].window}/{items[c.item].name}@{c.tier}:{c.mode}" for c in choices]
    first_time = len(columns)
    columns += [f"t {stage}/{window}/{phase}" for stage, window, phase in windows]
    first_phase = len(columns)
    columns += [f"T {phase}" for phase in phases]
    rows: list[str] = []
    data: list[dict[int, float]] = []
    limit: list[float] = []
    equal: list[bool] = []

    def row(name: str, entries: dict[int, float], bound: float, is_equal: bool = False) -> int:
        rows.append(name)
        data.append(entries)
        limit.append(bound)
        equal.append(is_equal)
        return len(rows) - 1

    placed: dict[tuple[int, int], dict[int, float]] = {
        (stage, number): {} for stage, counts in enumerate(layers) for number, item in enumerate(items) if counts[item.window]
    }
    capacity: dict[tuple[int, str], dict[int, float]] = {}
    for index, choice in enumerate(choices):
        item = items[choice.item]
        placed[(choice.stage, choice.item)][index] = 1.0
        count = layers[choice.stage][item.window]
        capacity.setdefault((choice.stage, choice.tier), {})[index] = item.held_in(below.get(choice.tier)) * count / 1e9
        if choice.mode != "resident":
            buffers = capacity.setdefault((choice.stage, rates.memory_id), {})
            buffers[index] = buffers.get(index, 0.0) + item.staged(choice.mode, count) / 1e9
    for (stage, number), entries in placed.items():
        row(f"placed {stage}/{items[number].window}/{items[number].name}", entries, 1.0, True)
    capacity_rows: dict[tuple[int, str], int] = {}
    sizes = {rates.memory_id: rates.memory_bytes - reserve_bytes} | {tier.id: tier.capacity for tier in lower}
    for (stage, tier_id), entries in sorted(capacity.items()):
        capacity_rows[(stage, tier_id)] = row(f"capacity {stage}/{tier_id}", entries, sizes[tier_id] / 1e9)
    time_rows: list[tuple[int, int, str, str]] = []
    networks = NetworkTime(pieces, shapes, rates, passes)
    channels = needed_channels(lower, networks.taken)
    movable: dict[tuple[int, int], list[int]] = {}
    charged: dict[tuple[int, int, str], Charged] = {}
    fetched: dict[tuple[int, int], dict[int, None]] = {}
    for index, choice in enumerate(choices):
        if choice.mode == "fetch" and below[choice.tier].role == "disk":
            fetched.setdefault((choice.stage, choice.item), {})[index] = None
        if choice.mode in ("stream", "fetch"):
            owner = items[choice.item]
            for reader in owner.windows:
                for reading in reading_stages(layers, choice.stage, owner.window, reader):
                    movable.setdefault((reading, reader), []).append(index)
    for position, (stage, window, phase) in enumerate(windows):
        column = first_time + position
        blocks = passes[phase].windows[window]
        base = sum(float(b.total[0]) for b in blocks)
        own = sum(float(b.memory[0]) for b in blocks)
        exposed: dict[int, float] = {column: -1.0}
        memory: dict[int, float] = {column: -1.0}
        loads: dict[str, dict[int, float]] = {}
        beside = networks.of(window, phase)
        for index in movable.get((stage, window), ()):
            choice = choices[index]
            item, tier = items[choice.item], below[choice.tier]
            moved = item.moved(choice.mode, tier.granule, phase, window)
            written = item.written(choice.mode, tier.granule, phase, window)
            if item.exposed(choice.mode, phase, window):
                exposed[index] = ((moved - written) / tier.bytes_per_s + item.fetches[phase] * tier.latency) * 1e3
            extra = moved if item.kind in ("routed", "static") else 0.0
            memory[index] = extra / rates.memory_bytes_per_s * 1e3
            for channel in tier.channels:
                taken = (moved - written) * channel.read + written * channel.write
                loads.setdefault(channel.id, {})[index] = taken * 1e3
        row(f"time {stage}/{window}/{phase}/base", exposed, -base * 1e3)
        time_rows.append((stage, window, phase, "base"))
        if any(index != column and value for index, value in memory.items()):
            row(f"time {stage}/{window}/{phase}/{rates.memory_id}", memory, -own * 1e3)
            time_rows.append((stage, window, phase, rates.memory_id))
        for rid, outward in channels.items():
            if rid not in loads or (outward and not any(loads[rid].values())):
                continue
            row(f"time {stage}/{window}/{phase}/{rid}", {**loads[rid], column: -1.0}, -beside.get(rid, 0.0))
            time_rows.append((stage, window, phase, rid))
        charged[(stage, window, phase)] = Charged(column, base * 1e3, exposed, loads, beside)
    ahead = Ahead(pieces, layers, passes, charged)
    for index, choice in enumerate(choices):
        if choice.mode == "prefetch":
            ahead.add(index, choice.stage, items[choice.item], below[choice.tier])
    for needy, kind, entries, bound in ahead.deadline_rows():
        row("time " + "/".join((*(str(part) for part in needy), kind)), entries, bound)
        time_rows.append((*needy, kind))
    for stage, _ in enumerate(layers):
        for number, phase in enumerate(phases):
            summed = {first_phase + number: -1.0}
            for position, (at, window, which) in enumerate(windows):
                if at == stage and which == phase:
                    summed[first_time + position] = passes[phase].repeats[stage][window]
            fixed = float(passes[phase].step[0] + passes[phase].hop[0])
            row(f"stage {stage}/{phase}", summed, -fixed * 1e3)
    pass_rows: list[tuple[int, str, str]] = []
    for stage, phase, rid, entries, fixed in ahead.pass_rows():
        row(f"pass {stage}/{phase}/{rid}", {**entries, first_phase + phases.index(phase): -1.0}, -fixed)
        pass_rows.append((stage, phase, rid))
    for stage, phase, rid, entries in launch_rows(rates, passes, items, fetched):
        row(f"pass {stage}/{phase}/{rid}", {**entries, first_phase + phases.index(phase): -1.0}, 0.0)
        pass_rows.append((stage, phase, rid))
    if period_s is not None:
        row("period", {first_phase + number: 1.0 for number in range(len(phases))}, period_s * 1e3)
    matrix = np.zeros((len(rows), len(columns)))
    filled = np.repeat(np.arange(len(rows)), [len(entries) for entries in data])
    matrix[filled, [index for entries in data for index in entries]] = [v for entries in data for v in entries.values()]
    cost = np.zeros(len(columns))
    for number, phase in enumerate(phases):
        cost[first_phase + number] = weights[phase]
    total = sum(item.held * counts[item.window] for counts in layers for item in items) or 1.0
    depth = {tier.id: position + 1 for position, tier in enumerate(rates.tiers)}
    resident_ms = sum(weights[phase] * float(passes[phase].slowest_stage()[0]) * 1e3 for phase in phases)
    nearness = _nearness(items)
    for index, choice in enumerate(choices):
        if choice.mode != "resident":
            item = items[choice.item]
            share = item.held * nearness[choice.item] * layers[choice.stage][item.window] / total
            cost[index] = TIE_BREAK * resident_ms * depth[choice.tier] * share
    program = LinearProgram(tuple(columns), tuple(rows), cost, matrix, np.array(limit, dtype=float), np.array(equal, dtype=bool))
    return TierProblem(
        program,
        items,
        tuple(choices),
        tuple(layers),
        phases,
        dict(weights),
        tuple(time_rows),
        capacity_rows,
        tuple(pass_rows),
        tuple(windows),
    )


def _nearness(items: tuple[Item, ...]) -> list[float]:
    """What a byte of an item weighs among equal placements: a prefix cache makes room for all else, its old entries first."""
    densest = max((item.density for item in items), default=0.0) or 1.0
    return [(1.0 + item.density / densest) / 3.0 if item.kind == "prefix" else 1.0 for item in items]


def reading_stages(layers: list[tuple[int, ...]], stage: int, owner: int, reader: int) -> list[int]:
    """The stages whose layers of window ``reader`` read what ``owner`` holds in ``stage``: that stage, and those after it up to
    the next that holds some."""
    found = []
    for later in range(stage, len(layers)):
        if later > stage and layers[later][owner]:
            break
        if layers[later][reader]:
            found.append(later)
    return found


@dataclass(frozen=True)
class Evaluated:
    """Times that a placement gives, recomputed from its shares alone (seconds).

    ``phase_s``: slowest stage of each phase; ``window_s``: one layer by (stage, window, phase); ``binding``: the row kind
    that sets it; ``carried``: the resource that sets a phase, where it carries more in a pass than its layers hide.
    """

    phase_s: dict[str, float]
    window_s: dict[tuple[int, int, str], float]
    binding: dict[tuple[int, int, str], str]
    slowest: dict[str, int]
    carried: dict[str, str]


def evaluate_shares(problem: TierProblem, shares: Array) -> Evaluated:
    """Each window's time is the largest of its rows at these shares, each stage the sum, each phase the slowest stage."""
    program = problem.program
    count = len(problem.choices)
    window_s: dict[tuple[int, int, str], float] = {}
    binding: dict[tuple[int, int, str], str] = {}
    phase_s: dict[str, float] = {}
    slowest: dict[str, int] = {}
    names = {name: index for index, name in enumerate(program.rows)}
    for stage, window, phase, kind in problem.time_rows:
        index = names[f"time {stage}/{window}/{phase}/{kind}"]
        value = (float(program.matrix[index, :count] @ shares[:count]) - float(program.limit[index])) / 1e3
        if kind.startswith(WAIT):  # less the layers before it, whose times are known here: rows stand in the order of need
            for other in np.flatnonzero(program.matrix[index, count:]):
                if (before := problem.time_columns[other]) != (stage, window, phase):
                    value += float(program.matrix[index, count + other]) * window_s[before]
        key = (stage, window, phase)
        if key not in window_s or value > window_s[key] * (1 + 1e-12):
            window_s[key], binding[key] = value, kind
    columns = {name: index for index, name in enumerate(program.columns)}
    for phase in problem.phases:
        for stage in range(len(problem.stages)):
            index = names[f"stage {stage}/{phase}"]
            total = -float(program.limit[index]) / 1e3
            for (at, window, which), value in window_s.items():
                if at == stage and which == phase:
                    total += float(program.matrix[index, columns[f"t {stage}/{window}/{phase}"]]) * value
            if phase not in phase_s or total > phase_s[phase]:
                phase_s[phase], slowest[phase] = total, stage
    carried: dict[str, str] = {}
    for stage, phase, rid in problem.pass_rows:
        index = names[f"pass {stage}/{phase}/{rid}"]
        total = (float(program.matrix[index, :count] @ shares[:count]) - float(program.limit[index])) / 1e3
        if total > phase_s[phase] * (1 + 1e-12):
            phase_s[phase], slowest[phase], carried[phase] = total, stage, resource_of(rid)
    return Evaluated(phase_s, window_s, binding, slowest, carried)


def resident_shares(problem: TierProblem) -> Array:
    """Shares with everything in device memory."""
    return np.array([1.0 if choice.mode == "resident" else 0.0 for choice in problem.choices])


def tie_break_total(problem: TierProblem) -> float:
    """The most that tie-break costs can add to the objective (ms)."""
    return float(np.sum(problem.program.cost[: len(problem.choices)]))


def dual_bound(problem: TierProblem, point: Vertex) -> float:
    """A bound from below on the optimum (ms), valid for any duals: ``y.b`` less what negative reduced costs could gain.

    Shares are at most 1; times are at most what they are at this vertex for an optimum that improves on it, so a
    negative reduced cost r of a column with value at most u lowers the bound by ``|r| u``. Tie-break costs are taken off.
    """
    program = problem.program
    value = float(point.duals @ program.limit)
    limits = np.ones(len(program.columns))
    times = len(program.columns) - len(problem.choices)
    if times:
        limits[-times:] = np.maximum(2.0 * point.values[-times:], 1.0)
    value += float(np.minimum(point.reduced[: len(program.columns)], 0.0) @ limits)
    return value - tie_break_total(problem)


def elastic(problem: TierProblem) -> TierProblem:
    """The problem whose capacity and period limits may all give way by one amount (GB, ms) that is minimised.

    Its optimum is zero if and only if the problem has a placement.
    """
    program = problem.program
    column = np.zeros((len(program.rows), 1))
    for number, name in enumerate(program.rows):
        if name.startswith("capacity ") or name == "period":
            column[number, 0] = -1.0
    cost = np.zeros(len(program.columns) + 1)
    cost[-1] = 1.0
    relaxed = LinearProgram(
        (*program.columns, "elastic"), program.rows, cost, np.hstack([program.matrix, column]), program.limit, program.equal
    )
    return replace(problem, program=relaxed)
