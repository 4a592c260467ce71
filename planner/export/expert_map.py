"""Experts on the slots of an instance's ranks, in the forms that engines and balancers exchange.

``physical_to_logical`` [layers, slots]: the expert in each slot; slot ``i`` is place ``i % slots_per_rank`` of rank
``i // slots_per_rank``. The two tensors that DeepSeek's EPLB returns beside it follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.export.deployment import EngineDeployment, EnginePool

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ExpertSlots:
    """``layers`` [layers]: model layer numbers; ``chosen``: whether the plan chose the map, or it is the linear one."""

    layers: tuple[int, ...]
    ranks: int
    physical_to_logical: Integers
    experts: int
    chosen: bool

    @property
    def slots_per_rank(self) -> int:
        """Slots of a rank and layer."""
        return int(self.physical_to_logical.shape[1]) // self.ranks

    def of_rank(self, layer: int, rank: int) -> list[int]:
        """Experts on a rank, by the layer's row."""
        width = self.slots_per_rank
        return [int(expert) for expert in self.physical_to_logical[layer, rank * width : (rank + 1) * width]]


def expert_slots(deployment: EngineDeployment, pool: EnginePool) -> ExpertSlots | None:
    """A pool's map: the plan's, or the linear one with redundant slots filled in turn; ``None`` without expert parallelism."""
    layers, experts = deployment.expert_layers, deployment.experts
    if not layers or pool.ep < 2:
        return None
    if pool.experts is not None:
        given = np.array(pool.experts.physical_to_logical, dtype=np.int64)
        return ExpertSlots(tuple(pool.experts.layers), pool.experts.ranks, given, experts, True)
    row = np.arange(experts + spare_slots(deployment, pool), dtype=np.int64) % experts
    return ExpertSlots(layers, pool.ep, np.tile(row, (len(layers), 1)), experts, False)


def spare_slots(deployment: EngineDeployment, pool: EnginePool) -> int:
    """Slots of an instance and layer beyond one for each expert, which engines call redundant experts: those for copies, and
    those that make every rank's part alike where the ranks do not divide the experts."""
    return -deployment.experts % pool.ep + pool.redundant_experts * pool.ep


def logical_to_physical(physical: Integers, experts: int) -> tuple[Integers, Integers]:
    """``(log2phy [layers, experts, most copies] padded with -1, logcnt [layers, experts])`` of ``physical`` [layers, slots]."""
    counts = np.zeros((physical.shape[0], experts), dtype=np.int64)
    for layer, row in enumerate(physical):
        counts[layer] = np.bincount(row, minlength=experts)
    places = np.full((physical.shape[0], experts, int(counts.max())), -1, dtype=np.int64)
    for layer, row in enumerate(physical):
        order = np.argsort(row, kind="stable")
        first = np.concatenate(([0], np.cumsum(counts[layer])[:-1]))
        places[layer, row[order], np.arange(len(row)) - first[row[order]]] = order
    return places, counts


def whole_model(slots: ExpertSlots, layers: int) -> Integers:
    """A row for each of ``layers`` model layers; those without a map have the linear one (an engine passes over dense layers)."""
    width = slots.physical_to_logical.shape[1]
    rows = np.tile(np.arange(width, dtype=np.int64) % slots.experts, (layers, 1))
    kept = [number for number, layer in enumerate(slots.layers) if layer < layers]
    rows[[slots.layers[number] for number in kept]] = slots.physical_to_logical[kept]
    return rows
