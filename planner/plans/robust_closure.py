"""``verify --full`` for a set of workloads: no deployment of the space is better than the bound for all of them.

A row of one pool undercuts the bound only if it does for every workload; of two pools each row's worst workload counts, as in
``plans.robust``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from planner.errors import InputError
from planner.plans.bounds import Charge, charge_of
from planner.plans.closure import (
    SLACK,
    Entry,
    Instance,
    Nodes,
    Row,
    Walk,
    decode_table,
    open_rows,
    parse_nodes,
    prefill_table,
    undercut,
)
from planner.plans.inputs import Inputs
from planner.plans.pairing import best_rate, carries, enough_prefill, merit_of_rates, split_table
from planner.plans.robust import contexts_of, joint_merit, scale
from planner.plans.schema import Plan


def robust_space_violations(inputs: Inputs, plan: Plan) -> list[Entry]:
    """As ``closure.space_violations``, for the bound of a set of workloads; a stopped search proves none."""
    if plan.certificate.stopped is not None:
        return []
    stated = [row.nodes for row in plan.robust or ()]
    labels = [variant.label for variant in inputs.options.variants]
    for number, nodes in enumerate(stated):
        for name in nodes:
            if " ".join(name.split(" ", 3)[:3]) not in labels:
                where = f"robust.{number}.nodes"
                return [(where, "certificate: the node's variant is one of the space", sorted(labels), name[:80])]
    found: list[Entry] = []
    for variant in inputs.options.variants:
        walks = [Walk(context) for context in contexts_of(inputs, variant)]
        start = len(variant.label) + 1
        try:
            nodes_of = [
                parse_nodes({name[start:]: proof for name, proof in nodes.items() if name.startswith(f"{variant.label} ")})
                for nodes in stated
            ]
            found += [("certificate." + key, *rest) for key, *rest in _Set(walks, nodes_of, plan.certificate.bound).undercuts()]
        except InputError as error:
            found.append(("robust", "certificate: an optimal basis closes the node", "a valid proof", str(error)))
    return found


class _Set:
    """The walks of all workloads over one variant, and what their merits may be."""

    def __init__(self, walks: list[Walk], nodes: list[Nodes], bound: float) -> None:
        self.walks, self.nodes = walks, nodes
        contexts = [walk.context for walk in walks]
        self.objective = contexts[0].inputs.options.objective
        self.space = walks[0].space
        self.charges = [charge_of(c, self.objective, c.inputs.workload.tpot_s) for c in contexts]
        self.scales = [scale(context, self.objective) for context in contexts]
        self.allowed = joint_merit(contexts, bound) * (1.0 + SLACK)

    def undercuts(self) -> Iterator[Entry]:
        """Every row of one pool, and of two pools the best split, that the bound does not cover."""
        open_: dict[Row, Entry] | None = None
        for walk, nodes, charge, factor in zip(self.walks, self.nodes, self.charges, self.scales, strict=True):
            here = dict(open_rows(walk.context, walk.space, charge, self.allowed / factor, walk.mixed, nodes))
            open_ = here if open_ is None else {row: entry for row, entry in open_.items() if row in here}
        yield from (open_ or {}).values()
        if self.space.disaggregated:
            merit = self._pairs()
            if merit > self.allowed:
                yield undercut("bound", f"some split reaches a merit of up to {merit:.12g}, above {self.allowed:.12g}")

    def _pairs(self) -> float:
        """The most that any pair of sides may be worth."""
        demand = self.charges[0].demand
        charge = replace(self.charges[0], demand=None if demand is None else 1.0)
        factors = [1.0 / one.demand if one.demand is not None else s for one, s in zip(self.charges, self.scales, strict=True)]
        tables = [prefill_table(walk.prefill, nodes) for walk, nodes in zip(self.walks, self.nodes, strict=True)]
        prefill = _least([_scaled(*pair) for pair in zip(tables, factors, strict=True)])
        options = [decode_table(w.decode, c, n) for w, c, n in zip(self.walks, self.charges, self.nodes, strict=True)]
        prefill_devices, decode_devices, weight = split_table(self.walks[0].context, self.space, self.charges[0])
        if not prefill or not all(options):
            return 0.0
        if self.objective == "latency":
            room = float(np.max(decode_devices[enough_prefill(prefill, prefill_devices, charge)], initial=0.0))
            speeds = [_speeds(table, room, one) for table, one in zip(options, self.charges, strict=True)]
            return max((rate for _, rate, _ in _least(speeds)), default=0.0)
        decode = _least([_scaled(*pair) for pair in zip(options, factors, strict=True)])
        rate = np.minimum(best_rate(prefill, prefill_devices, None, charge), best_rate(decode, decode_devices, None, charge))
        return float(np.max(merit_of_rates(rate, weight, charge), initial=0.0))


def _scaled(table: list[tuple[Row, Instance]], factor: float) -> list[tuple[Row, Instance]]:
    return [(row, (size, rate * factor, 0.0)) for row, (size, rate, _) in table]


def _speeds(table: list[tuple[Row, Instance]], room: float, charge: Charge) -> list[tuple[Row, Instance]]:
    """Instances that so many devices hold enough of, their TPOT's inverse in place of the rate."""
    return [(row, (size, 1.0 / tpot, 0.0)) for row, (size, rate, tpot) in table if carries(size, rate, room, charge)]


def _least(tables: list[list[tuple[Row, Instance]]]) -> list[Instance]:
    """Of the best of every workload on a row the least; rows that do not serve all of them are left out."""
    best: list[dict[Row, Instance]] = []
    for table in tables:
        most: dict[Row, Instance] = {}
        for row, one in table:
            if row not in most or one[1] > most[row][1]:
                most[row] = one
        best.append(most)
    shared = [row for row in best[0] if all(row in most for most in best)]
    return [(best[0][row][0], min(most[row][1] for most in best), 0.0) for row in shared]
