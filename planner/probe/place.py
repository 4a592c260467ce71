"""Where the planner would put a model's tensors if so much memory were theirs: experts and tables go to disk, all else stays."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from planner.errors import InputError
from planner.footprint import Shapes
from planner.hardware import System
from planner.plans.evaluate import decode_pass
from planner.plans.tiers import build_tier_problem
from planner.probe.predict import pool_of, reference_runtime
from planner.probe.spec import Spec
from planner.search.tier_lp import solve_tiers

STAYS = ("weights", "embedding table", "KV cache")


def placed(spec: Spec, system: System, memory_bytes: float) -> Spec:
    """The specification with the shares on disk that make its decode step shortest within ``memory_bytes``.

    Whole experts move, and tables whole or not at all, so what lies in memory is at most what the placement problem found.
    ``InputError`` where nothing fits, or the machine's profile has no disk.
    """
    where, plain = "--memory", spec.model_copy(update={"experts_on_disk": 0.0, "table_on_disk": False, "dense_on_disk": False})
    disk = next((tier.id for tier in system.tiers if tier.role == "disk"), None)
    if disk is None:
        raise InputError("the profile has no disk to put anything on", where=where, mend="probe it without --no-disk")
    pool = pool_of(plain, system, reference_runtime())
    shapes = Shapes.single(1, 1, 1, 1)
    problem = build_tier_problem(
        pool.pieces,
        shapes,
        replace(pool.rates, memory_bytes=memory_bytes),
        {"decode": decode_pass(pool, shapes, np.array([float(plain.batch)]))},
        {"decode": 1.0},
        float(plain.batch),
        plain.context,
        1,
        0.0,
        (disk,),
        forbidden=frozenset((name, disk) for name in STAYS),
    )
    found = solve_tiers(problem)
    if found is None:
        least = plain.memory_bytes - plain.experts * plain.layers * plain.expert_elements * 4
        what = f"{memory_bytes / 1e9:.3g} GB hold not even what stays there, about {max(least, 0) / 1e9:.3g} GB and buffers"
        raise InputError(what, where=where, mend="give more")
    below = dict.fromkeys(("routed", "lookup"), 0.0)
    for share, choice in zip(found.point.values, problem.choices, strict=False):
        item = problem.items[choice.item]
        if choice.tier == disk and item.kind in below:
            below[item.kind] = max(below[item.kind], float(share))
    experts = min(math.ceil(below["routed"] * plain.experts - 1e-6), plain.experts)
    return plain.model_copy(
        update={"experts_on_disk": experts / plain.experts, "table_on_disk": plain.table is not None and below["lookup"] > 1e-6}
    )
