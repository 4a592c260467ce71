"""What a plan decides: the configuration of each pool, the units it occupies, the maps of its experts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from planner.footprint import Shapes
from planner.plans.context import Context, PoolContext
from planner.plans.evaluate import Candidates
from planner.plans.experts import ExpertMap, with_map
from planner.plans.inputs import Variant


@dataclass(frozen=True)
class PoolDecision:
    """The configuration of one pool; ``batch`` is 0 where it does not decode, ``chunk`` where it does not prefill.

    ``basis`` proves the placement; ``None`` where everything fits in device memory, which needs no proof. ``period_s`` is the
    longest prefill pass plus decode step that the placement of an aggregated pool may have, so that TTFT meets its limit.
    """

    phase: str
    replicas: int
    tp: int
    dp: int
    ep: int
    pp: int
    batch: int
    chunk: int
    basis: str | None = None
    period_s: float | None = None
    cp: int = 1
    prefix_rate: float | None = None
    """Requests/s of a rank for which its prefix cache is sized, and beyond which it serves none."""

    @property
    def instance_devices(self) -> int:
        """Devices of one instance."""
        return self.tp * self.dp * self.pp

    @property
    def devices(self) -> int:
        """Devices of the pool."""
        return self.replicas * self.instance_devices

    @property
    def phases(self) -> tuple[str, ...]:
        """What the pool runs."""
        return ("decode", "prefill") if self.phase == "mixed" else (self.phase,)

    def row(self) -> Candidates:
        """The decision as one row."""
        shapes = Shapes.single(self.tp, self.dp, self.ep, self.pp, self.cp)
        return Candidates(shapes, np.array([float(self.batch)]), np.array([float(self.chunk)]))


@dataclass(frozen=True)
class Decision:
    """Pools and the purchasable units they occupy: one count for shared hardware, else one per pool."""

    pools: tuple[PoolDecision, ...]
    units: tuple[int, ...]
    variant: Variant
    experts: tuple[ExpertMap, ...] = field(default=(), compare=False)
    """Maps of popular experts, by phase; without one a pool's fullest rank has the least load that any map gives it."""

    def pool_with_map(self, context: Context, phase: str) -> PoolContext:
        """The pool of a phase, its fullest rank as the decision's map has it."""
        pool = context.pool(phase)
        found = next((one for one in self.experts if one.phase == phase), None)
        if found is None:
            return pool
        return replace(pool, pieces=with_map(pool.pieces, found, pool.inputs.workload.experts))
