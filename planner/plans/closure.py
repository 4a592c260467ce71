"""``verify --full``: walk the whole declared space and look for a configuration that undercuts the plan's bound.

Cells that fit in device memory are closed by their bound, or else every batch in them is evaluated. Cells that need other
memories are closed by their bound without placement, or by a proof that the certificate stores, checked by linear algebra alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    proven_seconds,
)
from planner.plans.candidates import decode_groups, handoff_columns, mixed_groups, prefill_rows
from planner.plans.inputs import Context
from planner.plans.operate import PoolDecision
from planner.plans.pairing import best_rate, split_table
from planner.plans.schema import Plan
from planner.plans.space import Space, declare_space

SLACK = 1e-6
"""Relative room on merits: tie-break costs and rounding of the printed bound."""

_NODE = re.compile(r"(mixed|prefill|decode) tp(\d+) dp(\d+) ep(\d+) pp(\d+) chunk(\d+) batch(\d+)-(\d+)", re.ASCII)
Entry = tuple[str, str, Any, Any]
Shape = tuple[str, int, int, int, int, int]


def space_violations(context: Context, plan: Plan) -> list[Entry]:
    """``(path, equation, expected, found)`` for every cell that the bound does not cover."""
    if plan.certificate.stopped is not None:
        return []
    space = declare_space(context)
    charge = charge_of(context, plan.objective, context.inputs.workload.tpot_s)
    allowed = merit_of_objective(context, plan.certificate.bound) * (1.0 + SLACK)
    try:
        nodes = _parse_nodes(plan.certificate.nodes)
        found = list(_mixed(context, space, charge, allowed, nodes)) if space.aggregated else []
        if space.disaggregated:
            found += _disaggregated(context, space, charge, allowed, nodes)
    except InputError as error:
        return [("certificate.nodes", "certificate: an optimal basis closes the node", "a valid proof", str(error))]
    return found


def _parse_nodes(nodes: dict[str, str]) -> dict[Shape, list[tuple[int, int, str]]]:
    table: dict[Shape, list[tuple[int, int, str]]] = {}
    for name, proof in nodes.items():
        match = _NODE.fullmatch(name)
        if not match:
            raise InputError(f"{name[:80]!r} names no node", where="certificate")
        side, *numbers = match.groups()
        tp, dp, ep, pp, chunk, low, high = (int(n) for n in numbers)
        table.setdefault((side, tp, dp, ep, pp, chunk), []).append((low, high, proof))
    return table


def _segments(
    nodes: dict[Shape, list[tuple[int, int, str]]], decision: PoolDecision, low: int, high: int
) -> list[tuple[int, int, list[tuple[int, str]]]]:
    """``low..high`` cut at the borders of the stored nodes of that shape: each piece with the proofs (lowest batch, text) that
    hold on it. A proof at a node's lowest batch holds on the whole node, since no pass gets faster as the batch grows."""
    shape = (decision.phase, decision.tp, decision.dp, decision.ep, decision.pp, decision.chunk)
    inside = [entry for entry in nodes.get(shape, []) if low <= entry[0] and entry[1] <= high]
    borders = sorted({low, high + 1, *(first for first, _, _ in inside), *(last + 1 for _, last, _ in inside)})
    return [
        (start, end - 1, [(first, proof) for first, last, proof in inside if first <= start and end - 1 <= last])
        for start, end in zip(borders, borders[1:], strict=False)
    ]


def _undercut(path: str, found: Any) -> Entry:
    return (path, "certificate: no configuration of the space undercuts the bound", "closed", found)


def _mixed(
    context: Context, space: Space, charge: Charge, allowed: float, nodes: dict[Shape, list[tuple[int, int, str]]]
) -> Iterator[Entry]:
    pool = context.pools["mixed"]
    for group in mixed_groups(pool, space.pools["mixed"]):
        cells = group.cells
        if not len(cells.row):
            continue
        merit, rate, tpot = mixed_cell_merit(context, space, charge, group, cells)
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
                    yield _undercut(
                        "certificate.bound", f"{decision} reaches a merit of {exact.max():.12g}, above {allowed:.12g}"
                    )
                continue
            for start, end, proofs in _segments(nodes, decision, low, high):
                bounded = float(merit[i])
                for first, proof in proofs:
                    seconds = proven_seconds(pool, mixed_decision(group, row, first), proof)
                    reached = 0.0
                    if np.isfinite(seconds):
                        reached = placed_merit(context, space, charge, group, row, start, end, seconds)[0]
                    bounded = min(bounded, reached)
                if bounded > allowed:
                    yield _undercut("certificate.nodes", f"{decision}, batches {start}-{end}: merit bound {bounded:.12g}")


def _disaggregated(
    context: Context, space: Space, charge: Charge, allowed: float, nodes: dict[Shape, list[tuple[int, int, str]]]
) -> list[Entry]:
    prefill, decode = _prefill_table(context, space, nodes), _decode_table(context, space, charge, allowed, nodes)
    prefill_devices, decode_devices, weight = split_table(context, space, charge)
    if not prefill or not decode:
        return []
    if charge.objective == "latency":
        smallest = min(size for size, _, _ in prefill)
        room = float(np.max(decode_devices[prefill_devices >= smallest], initial=0.0))
        least = min((tpot for size, _, tpot in decode if size <= room), default=np.inf)
        merit = 1.0 / least if least > 0.0 else np.inf
    else:
        rate = np.minimum(
            best_rate(prefill, prefill_devices, None, charge), best_rate(decode, decode_devices, charge.cap, charge)
        )
        merit = float(np.max(rate / weight, initial=0.0))
    if merit > allowed:
        return [_undercut("certificate.bound", f"some split reaches a merit of up to {merit:.12g}, above {allowed:.12g}")]
    return []


def _prefill_table(
    context: Context, space: Space, nodes: dict[Shape, list[tuple[int, int, str]]]
) -> list[tuple[int, float, float]]:
    pool = context.pool("prefill")
    table = []
    for group in prefill_rows(pool, space.pools.get("prefill") or space.pools["mixed"]):
        seconds = np.where(group.fits, group.seconds, group.least_seconds)
        usable = group.fits.copy()
        for i in np.flatnonzero(~group.fits):
            if not pool.tiers:
                continue
            s = group.shapes
            decision = PoolDecision("prefill", 1, int(s.tp[i]), int(s.dp[i]), int(s.ep[i]), s.pp, 0, int(group.chunk[i]))
            usable[i] = True
            for _, _, proofs in _segments(nodes, decision, 0, 0):
                for _, proof in proofs:
                    proven = proven_seconds(pool, decision, proof)
                    usable[i] &= bool(np.isfinite(proven))
                    seconds[i] = max(seconds[i], proven) if np.isfinite(proven) else seconds[i]
        rate, through = group.serve(np.arange(len(seconds)), seconds)
        for i in np.flatnonzero(usable & (rate > 0.0)):
            table.append((int(group.shapes.devices[i]), float(rate[i]), float(through[i])))
    return table


def _decode_table(
    context: Context, space: Space, charge: Charge, allowed: float, nodes: dict[Shape, list[tuple[int, int, str]]]
) -> list[tuple[int, float, float]]:
    """Every fitting batch exactly; the rest by the better of its bound and a stored proof."""
    pool = context.pool("decode")
    declared = space.pools.get("decode") or space.pools["mixed"]
    limit = (charge.tpot_s or np.inf) * (1 + 1e-12)
    table: list[tuple[int, float, float]] = []
    for group in decode_groups(pool, declared, handoff_columns(context, declared)):
        cells = group.cells
        if not len(cells.row):
            continue
        bound, least = group.bounds(cells)
        inside = np.flatnonzero(cells.fits & (least <= limit))
        if len(inside):
            row = np.concatenate([np.full(int(cells.high[i] - cells.low[i]) + 1, cells.row[i]) for i in inside])
            batch = np.concatenate([np.arange(cells.low[i], cells.high[i] + 1.0) for i in inside])
            rate, tpot = group.serve(row, batch)
            good = tpot <= limit
            size = group.shapes.devices[row].astype(int)
            if charge.cap is None and charge.objective != "latency":
                for one in np.unique(size[good]):
                    table.append((int(one), float(rate[good & (size == one)].max()), 0.0))
            else:
                table += [(int(a), float(b), float(c)) for a, b, c in zip(size[good], rate[good], tpot[good], strict=True)]
        for i in np.flatnonzero(~cells.fits & (least <= limit)) if pool.tiers else []:
            at, low, high = int(cells.row[i]), int(cells.low[i]), int(cells.high[i])
            size_here = int(group.shapes.devices[at])
            for start, end, proofs in _segments(nodes, decode_decision(group, at, low), low, high):
                r, t = float(bound[i]), float(least[i])
                for first, proof in proofs:
                    seconds = proven_seconds(pool, decode_decision(group, at, first), proof)
                    if np.isinf(seconds):
                        t = np.inf
                        continue
                    where, proven = np.array([at]), np.array([seconds])
                    r = min(r, float(group.serve(where, np.array([float(end)]), proven)[0][0]))
                    t = max(t, float(group.serve(where, np.array([float(start)]), proven)[1][0]))
                if t <= limit and np.isfinite(t):
                    table.append((size_here, r, t))
    return table
