"""``verify --full``: walk the whole declared space and look for a configuration that undercuts the plan's bound.

Cells that fit in device memory are closed by their bound, or else every batch in them is evaluated. Cells that need other
memories are closed by their bound without placement, or by a proof that the certificate stores, checked by linear algebra alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from planner.errors import InputError
from planner.plans.bounds import (
    Charge,
    charge_of,
    decode_decision,
    meets,
    merit_of_objective,
    mixed_cell_merit,
    mixed_decision,
    mixed_merit,
    placed_merit,
    prefill_decision,
    proven,
    weigh_batch,
)
from planner.plans.candidates import (
    DecodeGroup,
    MixedGroup,
    PrefillRows,
    decode_groups,
    handoff_columns,
    mixed_groups,
    prefill_rows,
)
from planner.plans.context import Context, build_context
from planner.plans.decision import PoolDecision
from planner.plans.decode_times import decode_times
from planner.plans.inputs import Inputs, Objective
from planner.plans.pairing import best_rate, carries, enough_prefill, merit_of_rates, split_table
from planner.plans.pareto import at_objective, limit_seconds
from planner.plans.schema import Plan
from planner.plans.space import Space, declare_space
from planner.plans.transition import restricted

SLACK = 1e-6
"""Relative room on merits: tie-break costs and rounding of the printed bound."""

_NODE = re.compile(
    r"(mixed|prefill|decode) tp(\d{1,9}) cp(\d{1,9}) dp(\d{1,9}) ep(\d{1,9}) pp(\d{1,9}) chunk(\d{1,9}) batch(\d{1,9})-(\d{1,9})",
    re.ASCII,
)
Entry = tuple[str, str, Any, Any]
Shape = tuple[str, int, int, int, int, int, int]
Nodes = dict[Shape, list[tuple[int, int, str]]]
Row = tuple[int, int]
"""A group of candidates and a row of it."""
Instance = tuple[int, float, float]
"""Devices, requests/s, and the seconds through it or the TPOT."""


@dataclass(frozen=True)
class Claim:
    """A bound and what proves it: nothing within the TPOT limit is better than ``bound`` (in the objective's printed unit)."""

    path: str
    objective: Objective
    tpot_s: float | None
    bound: float
    nodes: dict[str, str]
    pins: tuple[str, ...] = ()


def claims_of(inputs: Inputs, plan: Plan) -> list[Claim]:
    """The bounds that a plan proves: its own, one for every point of its front and one for every alternative of its transition
    (that of the optimum is the plan's own). A stopped search proves none."""
    claims = []
    if plan.certificate.stopped is None:
        limit = inputs.workload.tpot_s
        claims.append(Claim("certificate", inputs.options.objective, limit, plan.certificate.bound, plan.certificate.nodes))
    if plan.pareto is not None and plan.pareto.stopped is None:
        for number, point in enumerate(plan.pareto.points):
            limit = limit_seconds(inputs, point.tpot_limit_ms)
            claims.append(Claim(f"pareto.points.{number}", plan.pareto.objective, limit, point.bound, point.nodes))
    for number, row in enumerate(plan.transition.alternatives if plan.transition else ()):
        if row.pins:
            path, limit = f"transition.alternatives.{number}", inputs.workload.tpot_s
            claims.append(Claim(path, inputs.options.objective, limit, row.bound, row.nodes, tuple(row.pins)))
    if len(claims) > 1 and replace(claims[-1], path=claims[0].path) == claims[0]:  # the last point is often the plan itself
        claims.pop()
    return claims


def space_violations(inputs: Inputs, plan: Plan) -> list[Entry]:
    """``(path, equation, expected, found)`` for every cell of every variant that a bound does not cover."""
    if inputs.workloads:
        from planner.plans.robust_closure import robust_space_violations

        return robust_space_violations(inputs, plan)
    claims, found = claims_of(inputs, plan), []
    labels = [variant.label for variant in inputs.variants]
    for claim in claims:
        for name in claim.nodes:
            if not any(name.startswith(f"{label} ") for label in labels):
                where = f"{claim.path}.nodes"
                return [(where, "certificate: the node's variant is one of the space", sorted(labels), name[:80])]
    for pins in dict.fromkeys(claim.pins for claim in claims):
        inside = restricted(inputs, pins) if pins else inputs
        for variant in inside.variants if inside else ():
            walk = Walk(build_context(inside or inputs, variant))
            for claim in claims:
                if claim.pins == pins:
                    found += walk.violations(claim)
    return found


class Walk:
    """The space of one variant; what does not depend on a claim is computed once."""

    def __init__(self, context: Context) -> None:
        self.context, self.space = context, declare_space(context)
        self.label = f"{context.variant.label} "
        space = self.space
        shared = None if context.separate else decode_times(context.pools["mixed"], space.pools["mixed"].shapes)
        self.mixed = mixed_groups(context.pools["mixed"], space.pools["mixed"], shared) if space.aggregated else []
        self.prefill, self.decode = [], []
        if space.disaggregated:
            decode = space.pools.get("decode") or space.pools["mixed"]
            times = shared if decode is space.pools.get("mixed") else None
            self.decode = decode_groups(context.pool("decode"), decode, handoff_columns(context, decode), times)
            self.prefill = prefill_rows(context.pool("prefill"), space.pools.get("prefill") or space.pools["mixed"])

    def violations(self, claim: Claim) -> list[Entry]:
        """Every cell that a claim's bound does not cover."""
        context = at_objective(self.context, claim.objective)
        charge = charge_of(context, claim.objective, claim.tpot_s)
        allowed = merit_of_objective(context, claim.bound) * (1.0 + SLACK)
        start = len(self.label)
        try:
            nodes = parse_nodes({name[start:]: proof for name, proof in claim.nodes.items() if name.startswith(self.label)})
            found = [entry for _, entry in open_rows(context, self.space, charge, allowed, self.mixed, nodes)]
            if self.space.disaggregated:
                found += _disaggregated(context, self.space, charge, allowed, self.prefill, self.decode, nodes)
        except InputError as error:
            return [(f"{claim.path}.nodes", "certificate: an optimal basis closes the node", "a valid proof", str(error))]
        return [(f"{claim.path}.{key}", equation, expected, value) for key, equation, expected, value in found]


def parse_nodes(nodes: dict[str, str]) -> Nodes:
    """Stored nodes by shape: lowest and highest batch, proof."""
    table: Nodes = {}
    for name, proof in nodes.items():
        match = _NODE.fullmatch(name)
        if not match:
            raise InputError(f"{name[:80]!r} names no node", where="certificate")
        side, *numbers = match.groups()
        tp, cp, dp, ep, pp, chunk, low, high = (int(n) for n in numbers)
        table.setdefault((side, tp, cp, dp, ep, pp, chunk), []).append((low, high, proof))
    return table


def _segments(nodes: Nodes, decision: PoolDecision, low: int, high: int) -> list[tuple[int, int, list[tuple[int, int, str]]]]:
    """``low..high`` cut at the borders of the stored nodes of that shape: each piece with the proofs (first and last
    batch, text) that hold on it. A proof at a node's lowest batch holds on the whole node, since no pass gets faster as the
    batch grows."""
    shape = (decision.phase, decision.tp, decision.cp, decision.dp, decision.ep, decision.pp, decision.chunk)
    inside = [entry for entry in nodes.get(shape, []) if low <= entry[0] and entry[1] <= high]
    borders = sorted({low, high + 1, *(first for first, _, _ in inside), *(last + 1 for _, last, _ in inside)})
    return [
        (start, end - 1, [(first, last, proof) for first, last, proof in inside if first <= start and end - 1 <= last])
        for start, end in zip(borders, borders[1:], strict=False)
    ]


def undercut(path: str, found: Any) -> Entry:
    """What is above the bound."""
    return (path, "certificate: no configuration of the space undercuts the bound", "closed", found)


def open_rows(
    context: Context,
    space: Space,
    charge: Charge,
    allowed: float,
    groups: list[MixedGroup],
    nodes: Nodes,
) -> Iterator[tuple[Row, Entry]]:
    """The rows of aggregated serving with a cell that is above what is allowed."""
    for number, group in enumerate(groups):
        pool, cells = group.pool, group.cells
        if not len(cells.row):
            continue
        merit, rate, tpot = mixed_cell_merit(context, space, charge, group)
        for i in np.flatnonzero(merit > allowed):
            row, low, high = int(cells.row[i]), int(cells.low[i]), int(cells.high[i])
            decision = mixed_decision(group, row, low)
            if cells.fits[i]:
                batch = np.arange(low, high + 1.0)
                rows = np.full(len(batch), row)
                served = group.serve(rows, batch)
                exact, _, _ = mixed_merit(
                    context,
                    space,
                    charge,
                    served.tpot_s,
                    served.requests_per_s,
                    group.shapes.take(rows).devices,
                    served.concurrency,
                )
                exact = np.where(meets(charge, served.tpot_s, served.ttft_s), exact, 0.0)
                if exact.max() > allowed:
                    said = f"{decision} reaches a merit of {exact.max():.12g}, above {allowed:.12g}"
                    yield (number, row), undercut("bound", said)
                continue
            for start, end, proofs in _segments(nodes, decision, low, high):
                bounded = float(merit[i])
                for first, last, proof in proofs:
                    weigh = weigh_batch(charge, first, last)
                    shown = proven(pool, mixed_decision(group, row, first), proof, weigh)
                    reached = 0.0
                    if np.isfinite(shown.seconds) or shown.but_below:
                        reached = placed_merit(context, space, charge, group, row, start, end, weigh, shown)[0]
                    bounded = min(bounded, reached)
                if bounded > allowed:
                    yield (number, row), undercut("nodes", f"{decision}, batches {start}-{end}: merit bound {bounded:.12g}")


def _disaggregated(
    context: Context,
    space: Space,
    charge: Charge,
    allowed: float,
    prefill_groups: list[PrefillRows],
    decode_groups: list[DecodeGroup],
    nodes: Nodes,
) -> list[Entry]:
    prefill = [known for _, known in prefill_table(prefill_groups, nodes)]
    decode = [known for _, known in decode_table(decode_groups, charge, nodes)]
    prefill_devices, decode_devices, weight = split_table(context, space, charge)
    if not prefill or not decode:
        return []
    if charge.objective == "latency":
        room = float(np.max(decode_devices[enough_prefill(prefill, prefill_devices, charge)], initial=0.0))
        size, each, tpot = (np.array(column) for column in zip(*decode, strict=True))
        least = float(np.min(tpot[carries(size, each, room, charge)], initial=np.inf))
        merit = 1.0 / least if least > 0.0 else np.inf
    else:
        rate = np.minimum(
            best_rate(prefill, prefill_devices, None, charge), best_rate(decode, decode_devices, charge.cap, charge)
        )
        merit = float(np.max(merit_of_rates(rate, weight, charge), initial=0.0))
    if merit > allowed:
        return [undercut("bound", f"some split reaches a merit of up to {merit:.12g}, above {allowed:.12g}")]
    return []


def prefill_table(groups: list[PrefillRows], nodes: Nodes) -> list[tuple[Row, Instance]]:
    """What every row serves at most."""
    table = []
    for number, group in enumerate(groups):
        pool, seconds = group.pool, np.where(group.fits, group.seconds, group.least_seconds)
        usable, most = group.fits.copy(), np.full(len(seconds), np.inf)
        for i in np.flatnonzero(~group.fits):
            if not pool.tiers:
                continue
            decision = prefill_decision(group, int(i))
            usable[i] = True
            for _, _, proofs in _segments(nodes, decision, 0, 0):
                for _, _, proof in proofs:
                    shown = proven(pool, decision, proof)
                    if shown.but_below:
                        above = group.serve(np.array([i]), np.array([shown.seconds]))[0][0] if np.isfinite(shown.seconds) else 0.0
                        most[i] = min(most[i], max(shown.but_below, float(above)))
                        continue
                    least = shown.seconds
                    usable[i] &= bool(np.isfinite(least))
                    seconds[i] = max(seconds[i], least) if np.isfinite(least) else seconds[i]
        rate, through = group.serve(np.arange(len(seconds)), seconds)
        rate = np.minimum(rate, most)
        for i in np.flatnonzero(usable & (rate > 0.0)):
            table.append(((number, int(i)), (int(group.shapes.devices[i]), float(rate[i]), float(through[i]))))
    return table


def decode_table(groups: list[DecodeGroup], charge: Charge, nodes: Nodes) -> list[tuple[Row, Instance]]:
    """Every fitting batch exactly, or where nothing but the rate counts the best of a row; the rest by the better of bound and
    stored proof."""
    limit = charge.longest_tpot_s * (1 + 1e-12)
    table: list[tuple[Row, Instance]] = []
    for number, group in enumerate(groups):
        pool, cells = group.pool, group.cells
        if not len(cells.row):
            continue
        bound, least = group.bounds
        inside = np.flatnonzero(cells.fits & (least <= limit))
        if len(inside):
            row = np.concatenate([np.full(int(cells.high[i] - cells.low[i]) + 1, cells.row[i]) for i in inside])
            batch = np.concatenate([np.arange(cells.low[i], cells.high[i] + 1.0) for i in inside])
            rate, tpot = group.serve(row, batch)
            good = tpot <= limit
            size = group.shapes.devices[row].astype(int)
            if charge.cap is None and charge.objective != "latency":
                most = np.zeros(len(group.shapes.tp))
                np.maximum.at(most, row[good], rate[good])
                best = np.flatnonzero(most > 0.0)
                table += [((number, int(i)), (int(group.shapes.devices[i]), float(most[i]), 0.0)) for i in best]
            else:
                columns = zip(row[good], size[good], rate[good], tpot[good], strict=True)
                table += [((number, int(i)), (int(a), float(b), float(c))) for i, a, b, c in columns]
        for i in np.flatnonzero(~cells.fits & (least <= limit)) if pool.tiers else []:
            at, low, high = int(cells.row[i]), int(cells.low[i]), int(cells.high[i])
            size_here = int(group.shapes.devices[at])
            for start, end, proofs in _segments(nodes, decode_decision(group, at, low), low, high):
                r, t = float(bound[i]), float(least[i])
                for first, _, proof in proofs:
                    seconds = proven(pool, decode_decision(group, at, first), proof).seconds
                    if np.isinf(seconds):
                        t = np.inf
                        continue
                    where, least_s = np.array([at]), np.array([seconds])
                    r = min(r, float(group.serve(where, np.array([float(end)]), least_s)[0][0]))
                    t = max(t, float(group.serve(where, np.array([float(start)]), least_s)[1][0]))
                if t <= limit and np.isfinite(t):
                    table.append(((number, at), (size_here, r, t)))
    return table
