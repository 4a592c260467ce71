"""Popular experts in a plan: how use enters the pieces, the maps a decision carries, and what the plan says of them.

Searching takes the least load that the fullest rank can have (``expert_bounds.lower_bound``); a decision with maps takes the
load of those maps. So the bound of a plan holds over every map, and the gap shows what its own maps lose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from planner.errors import InputError
from planner.footprint import ModelPieces, RoutedItem, Shapes, Window
from planner.footprint.memory import experts_per_rank
from planner.plans.expert_bounds import check_map, loads_of_map, lower_bound
from planner.plans.numbers import canonical
from planner.workload.experts import ExpertPopularity

if TYPE_CHECKING:
    from planner.plans.context import Context
    from planner.plans.decision import Decision
    from planner.plans.states import PoolState

CLASSES = 4
"""Classes of equal size, by use, into which the experts of a layer are put."""


@dataclass(frozen=True, eq=False)
class ExpertMap:
    """The experts of one pool's instance: slot i of a layer is place ``i % slots`` of expert-parallel rank ``i // slots``.

    ``physical_to_logical`` and ``split`` are [L, ep*slots], rows in the order of the layers with routed experts; ``split`` is the
    share of an expert's tokens that the slot serves.
    """

    phase: str
    ranks: int
    slots: int
    physical_to_logical: NDArray[np.int64]
    split: NDArray[np.float64]


def routed_layers(pieces: ModelPieces) -> list[tuple[int, int]]:
    """``(layer, window)`` of every layer with routed experts, by layer; the draft module's apart."""
    found = []
    for number, window in enumerate(pieces.windows):
        if any(block.routed for block in window.blocks):
            layers: Iterable[int] = window.at or range(window.first_layer, window.first_layer + window.layers)
            found += [(layer, number) for layer in layers]
    return sorted(found)


def _routed(window: Window) -> RoutedItem:
    return next(block.routed for block in window.blocks if block.routed)


def expert_count(pieces: ModelPieces) -> int:
    """Routed experts of a layer (0: none)."""
    return next((_routed(w).experts for w in pieces.windows if any(b.routed for b in w.blocks)), 0)


def expert_shares(pieces: ModelPieces, popularity: ExpertPopularity) -> NDArray[np.float64]:
    """Share of each layer's token-expert pairs that every expert gets [L, E].

    A token has k different experts, so none gets more than 1/k of the pairs; what is above goes to the others in proportion.
    """
    layers = routed_layers(pieces)
    shares = np.array(popularity.shares(len(layers), expert_count(pieces)), dtype=float)
    active = _routed(pieces.windows[layers[0][1]]).active
    for row in shares:
        full = np.zeros(len(row), dtype=bool)
        while (over := ~full & (row > (1.0 + 1e-12) / active)).any():
            full |= over
            row[full] = 1.0 / active
            rest, room = float(row[~full].sum()), 1.0 - full.sum() / active
            row[~full] = row[~full] * (room / rest) if rest > 0.0 else room / max((~full).sum(), 1)
    return shares


def slots_of(item: RoutedItem, ranks: int) -> int:
    """Expert slots of a rank, copies included: no expert twice."""
    return int(experts_per_rank(item, Shapes.single(1, ranks, ranks, 1))[0])


def with_use(pieces: ModelPieces, popularity: ExpertPopularity, extra: int, widths: Iterable[int]) -> ModelPieces:
    """Pieces whose routed experts know their use and the least load of the fullest of so many ranks (over the mean)."""
    if not expert_count(pieces) or (popularity.kind == "uniform" and not extra):
        return pieces
    shares = expert_shares(pieces, popularity)
    layers = routed_layers(pieces)
    windows = list(pieces.windows)
    for number in sorted({window for _, window in layers}):
        item = replace(_routed(windows[number]), extra=extra)
        rows = shares[[row for row, (_, window) in enumerate(layers) if window == number]]
        falling = np.sort(rows, axis=1)[:, ::-1].mean(axis=0)
        classes: tuple[tuple[int, float], ...] = ()
        if popularity.kind != "uniform":
            parts = np.array_split(falling, min(CLASSES, item.experts))
            classes = tuple((len(part), float(part.mean())) for part in parts)
        worst = tuple(
            (ranks, _least_over_mean(rows, ranks, slots_of(item, ranks)))
            for ranks in sorted(set(widths))
            if 1 < ranks <= item.experts
        )
        windows[number] = _with_routed(windows[number], replace(item, classes=classes, worst=worst))
    return replace(pieces, windows=tuple(windows))


def _with_routed(window: Window, item: RoutedItem) -> Window:
    return replace(window, blocks=tuple(replace(b, routed=item) if b.routed else b for b in window.blocks))


def _least_over_mean(rows: NDArray[np.float64], ranks: int, slots: int) -> float:
    """Mean over layers of the fullest rank's least load, over the mean load."""
    return _bound_of(np.sort(rows, axis=1).tobytes(), rows.shape, ranks, slots)


@lru_cache(maxsize=4096)
def _bound_of(data: bytes, shape: tuple[int, int], ranks: int, slots: int) -> float:
    rows = np.frombuffer(data).reshape(shape)
    unlike, count = np.unique(rows.round(15), axis=0, return_counts=True)
    bounds = lower_bound(unlike, ranks, slots) / (unlike.sum(axis=1) / ranks)
    return float(max(np.average(bounds, weights=count), 1.0))


def worst_over_mean(expert_map: ExpertMap, shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fullest rank over mean of every layer [L]."""
    loads = loads_of_map(expert_map.physical_to_logical, shares, expert_map.split, expert_map.ranks)
    return np.asarray(loads.max(axis=1) / loads.mean(axis=1))


def with_map(pieces: ModelPieces, expert_map: ExpertMap, popularity: ExpertPopularity) -> ModelPieces:
    """Pieces in which that many ranks have the load that the map gives them. ``InputError`` where it is no map."""
    layers = routed_layers(pieces)
    item = _routed(pieces.windows[layers[0][1]]) if layers else None
    if item is None or expert_map.slots != slots_of(item, expert_map.ranks) or len(expert_map.physical_to_logical) != len(layers):
        raise InputError("is no map of this model's experts on these ranks", where="plan: experts")
    faults = check_map(expert_map.physical_to_logical, expert_map.split, item.experts, expert_map.ranks, expert_map.slots)
    if faults:
        raise InputError(faults[0], where="plan: experts")
    ratio = worst_over_mean(expert_map, expert_shares(pieces, popularity))
    windows = list(pieces.windows)
    for number in sorted({window for _, window in layers}):
        mine = [row for row, (_, window) in enumerate(layers) if window == number]
        worst = dict(_routed(windows[number]).worst) | {expert_map.ranks: max(float(ratio[mine].mean()), 1.0)}
        windows[number] = _with_routed(windows[number], replace(_routed(windows[number]), worst=tuple(sorted(worst.items()))))
    return replace(pieces, windows=tuple(windows))


def has_use(context: Context) -> bool:
    """Whether the plan of this problem maps experts: they are not all used alike, or have copies."""
    uneven = context.inputs.workload.experts.kind != "uniform" or context.variant.redundant > 0
    return uneven and any(expert_count(pool.pieces) for pool in context.pools.values())


def maps_wanted(context: Context, decision: Decision) -> list[tuple[str, int]]:
    """``(phase, ranks)`` of every map that a decision needs: one for each pool of several expert-parallel ranks."""
    return [(pool.phase, pool.ep) for pool in decision.pools if pool.ep > 1] if has_use(context) else []


def fingerprint(physical: list[list[int]], split: list[list[float]] | None) -> str:
    """SHA-256 of a map as JSON: tells it from every other map, also from one whose ranks have the same loads."""
    return hashlib.sha256(json.dumps(canonical([physical, split]), separators=(",", ":")).encode()).hexdigest()


def expert_rows(state: PoolState, expert_map: ExpertMap, popularity: ExpertPopularity) -> dict[str, Any]:
    """What the plan says of a pool's experts: map, split where it is not even, loads, and the slots below device memory."""
    pieces = state.pool.pieces
    shares = expert_shares(pieces, popularity)
    layers = routed_layers(pieces)
    bound = lower_bound(shares, expert_map.ranks, expert_map.slots) / (shares.sum(axis=1) / expert_map.ranks)
    ratio = worst_over_mean(expert_map, shares)
    physical = expert_map.physical_to_logical.tolist()
    split = None if is_even(expert_map.physical_to_logical, expert_map.split) else expert_map.split.tolist()
    return {
        "pool": state.decision.phase,
        "ranks": expert_map.ranks,
        "slots_per_rank": expert_map.slots,
        "layers": [layer for layer, _ in layers],
        "physical_to_logical": physical,
        "split": split,
        "sha256": fingerprint(physical, split),
        "fullest_over_mean": {
            "mean": float(ratio.mean()),
            "worst": float(ratio.max()),
            "bound": float(np.maximum(bound, 1).mean()),
        },
        "below": slots_below(state, expert_map, shares),
    }


def even_split(physical: NDArray[np.int64], experts: int) -> NDArray[np.float64]:
    """Every copy of an expert serves as much as the others."""
    rows = np.arange(len(physical))[:, None]
    copies = np.zeros((len(physical), experts))
    np.add.at(copies, (rows, physical), 1.0)
    return np.asarray(1.0 / copies[rows, physical])


def is_even(physical: NDArray[np.int64], split: NDArray[np.float64]) -> bool:
    """Whether copies of an expert serve alike."""
    return bool(np.allclose(even_split(physical, int(physical.max()) + 1), split, rtol=0.0, atol=1e-12))


def slots_below(state: PoolState, expert_map: ExpertMap, shares: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Slots that lie below device memory, by tier: on every rank the least used, as many as the placement's share, summed over
    the layers of a stage and rounded up, so that device memory never holds more than the placement gives it."""
    pieces, problem = state.pool.pieces, state.problem
    used = np.take_along_axis(shares, expert_map.physical_to_logical, axis=1) * expert_map.split
    by_use = np.argsort(used.reshape(len(used), expert_map.ranks, -1), axis=2, kind="stable")
    stage_of = _stage_of_layers(pieces, state.decision.pp)
    alike = _alike(pieces, state.decision.pp)
    found: dict[str, list[list[int]]] = {}
    owed: dict[tuple[int, int, str], float] = {}
    for row, (layer, window) in enumerate(routed_layers(pieces)):
        stage = alike[stage_of[layer]]
        taken = 0
        for tier in state.pool.rates.tiers[::-1]:
            share = sum(
                float(state.shares[i]) * problem.items[c.item].held
                for i, c in enumerate(problem.choices)
                if c.stage == stage
                and c.tier == tier.id
                and problem.items[c.item].window == window
                and problem.items[c.item].kind == "routed"
            )
            held = sum(item.held for item in problem.items if item.window == window and item.kind == "routed")
            key = (stage_of[layer], window, tier.id)
            owed[key] = owed.get(key, 0.0) + expert_map.slots * share / held
            count = min(int(np.ceil(owed[key] - 1e-9)), expert_map.slots - taken)
            if share <= 1e-12 * held or count <= 0:
                continue
            owed[key] -= count
            rows = found.setdefault(tier.id, [[] for _ in used])
            chosen = by_use[row, :, taken : taken + count] + np.arange(expert_map.ranks)[:, None] * expert_map.slots
            rows[row] = sorted(int(slot) for slot in chosen.ravel())
            taken += count
    return [{"tier": tier, "slots": rows} for tier, rows in sorted(found.items())]


def _stage_of_layers(pieces: ModelPieces, pp: int) -> list[int]:
    edges = [stage * pieces.layers // pp for stage in range(pp + 1)]
    return [next(s for s in range(pp) if edges[s] <= layer < edges[s + 1]) for layer in range(pieces.layers)]


def _alike(pieces: ModelPieces, pp: int) -> list[int]:
    """Index of each stage's kind in ``stage_table``."""
    table = pieces.stage_table(pp)
    return [table.index(row) for row in pieces.stages(pp)]
