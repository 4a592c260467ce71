"""Cell bounds on random small instances: no batch of a cell beats what a proof at its lowest batch leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import small

from planner.errors import InputError
from planner.performance import mixed_serving
from planner.plans.bounds import (
    Shown,
    at_rate,
    charge_of,
    meets,
    mixed_cell_merit,
    mixed_decision,
    mixed_merit,
    placed_merit,
    proven,
    rate_of_merit,
    weigh_batch,
)
from planner.plans.candidates import MixedGroup, stable_batch
from planner.plans.closure import parse_nodes
from planner.plans.context import build_context
from planner.plans.decision import PoolDecision
from planner.plans.space import declare_space
from planner.search.tables import Tables, build_tables
from planner.workload.experts import ExpertPopularity

CELLS = 300


def random_tables(random: np.random.Generator) -> Tables:
    """A model of one to four layers on one to four devices with little memory, any limits, objective and demand."""
    kind = random.integers(3)
    if kind == 0:
        model = small.llama(int(random.integers(1, 5)), 256, 4, int(random.choice([1, 2, 4])), 512, 512)
    else:
        model = small.experts(int(random.integers(2, 5)))
    system = small.node(
        int(random.choice([1, 2, 4])), 1, float(random.uniform(4e6, 30e6)), 1e9, float(random.uniform(5e9, 200e9))
    )
    load = small.workload(
        isl=float(random.integers(16, 600)),
        osl=float(random.integers(2, 200)),
        ttft_s=float(random.uniform(3e-4, 5e-3)) if random.random() < 0.6 else None,
        tpot_s=float(random.uniform(1e-4, 2e-3)) if random.random() < 0.4 else None,
        hit=float(random.choice([0.0, 0.5])),
    )
    if kind == 2:
        load = load.model_copy(update={"experts": ExpertPopularity(kind="zipf", exponent=float(random.uniform(0.2, 2.0)))})
    options: dict[str, Any] = {}
    if random.random() < 0.3:
        options["rate"] = float(random.uniform(10, 2000))
    elif random.random() < 0.3:
        options["concurrency"] = int(random.integers(2, 12))
    if kind and random.random() < 0.3:
        options["mtp"] = (1,)
    software = small.runtime(6, tuple(sorted({int(2**n) for n in random.integers(5, 9, 2)})), disaggregated=False)
    context = build_context(small.instance(model, system, int(random.integers(1, 3)), load, software, **options))
    return build_tables(context, declare_space(context))


def exact(tables: Tables, charge: Any, group: MixedGroup, row: int, batch: int) -> float:
    """Merit of the best placement found of one batch: least TPOT, and within a ladder of periods."""
    pool, best = tables.context.pools["mixed"], 0.0
    at = np.array([row])
    shapes = group.shapes.take(at)
    free = tables.place(pool, mixed_decision(group, row, batch))
    guesses = [math.inf] + ([free.value_s * f for f in (1.0, 1.05, 1.3, 2.0, 5.0)] if charge.ttft_s and free.seconds else [])
    for guess in guesses:
        placed = tables.place(pool, mixed_decision(group, row, batch), guess)
        if placed.seconds is None:
            continue
        served = mixed_serving(
            np.array([placed.seconds["decode"]]),
            np.array([placed.seconds["prefill"]]),
            np.array([float(batch)]),
            group.chunk[at],
            shapes,
            pool.inputs.workload,
            pool.accept,
        )
        merit = mixed_merit(
            tables.context, tables.space, charge, served.tpot_s, served.requests_per_s, shapes.devices, served.concurrency
        )[0]
        if meets(charge, served.tpot_s, served.ttft_s)[0]:
            best = max(best, float(merit[0]))
    return best


def test_no_batch_beats_the_bound_of_its_cell() -> None:
    """B and W proofs from a placement at the lowest batch, I and J where there is none; also as read back from their text."""
    random = np.random.default_rng(5)
    cells = tight = rated = empty = 0
    while cells < CELLS:
        tables = random_tables(random)
        pool = tables.context.pools["mixed"]
        for number in random.permutation(len(tables.mixed))[:2]:
            group = tables.mixed[int(number)]
            for row in random.permutation(len(group.chunk))[:3]:
                row = int(row)
                top = int(min(stable_batch(pool, group.chunk[[row]])[0], 6))
                if top < 1:
                    continue
                low = int(random.integers(1, top + 1))
                high = int(random.integers(low, top + 1))
                objective = str(random.choice(["cost", "throughput", "latency"]))
                charge = charge_of(tables.context, objective, tables.context.inputs.workload.tpot_s)
                weigh = weigh_batch(charge, low, high)
                merits = [exact(tables, charge, group, row, batch) for batch in range(low, high + 1)]
                decision = mixed_decision(group, row, low)
                rates = [0.0]
                if charge.ttft_s is not None:
                    target = max(max(merits), 1e-9) * float(random.choice([0.5, 0.9, 1.0, 1.2]))
                    rates.append(rate_of_merit(tables.context, tables.space, charge, group, row, low, target))
                for rate in rates:
                    guess = at_rate(pool, decision, rate) if rate else math.inf
                    placed = tables.place(pool, decision, guess, weigh)
                    if placed.bound_s == 0.0:
                        continue
                    shown = Shown(placed.bound_s, rate)
                    bound, _, _ = placed_merit(tables.context, tables.space, charge, group, row, low, high, weigh, shown)
                    assert max(merits) <= bound * (1 + 1e-9), (decision, low, high, objective, rate)
                    sort = {(True, True): "J", (True, False): "I", (False, True): "W", (False, False): "B"}[
                        placed.seconds is None, rate > 0
                    ] + (repr(rate) if rate else "")
                    read = proven(pool, decision, f"{sort}:{placed.basis}", weigh)
                    assert (
                        read.but_below == rate
                        and read.seconds == (math.inf if placed.seconds is None else placed.bound_s)
                        or math.isclose(read.seconds, placed.bound_s, rel_tol=1e-9)
                    )
                    tight += bool(max(merits) > bound * 0.98)
                    rated += rate > 0
                    empty += placed.seconds is None
                cells += 1
    assert tight > 30 and rated > 60 and empty > 12


def test_no_fitting_batch_beats_the_bound_of_its_cell() -> None:
    """Cells in device memory and cells beyond it before any placement is known."""
    random = np.random.default_rng(7)
    checked = 0
    for _ in range(40):
        tables = random_tables(random)
        objective = str(random.choice(["cost", "throughput", "latency"]))
        charge = charge_of(tables.context, objective, tables.context.inputs.workload.tpot_s)
        for group in tables.mixed:
            merit, _, _ = mixed_cell_merit(tables.context, tables.space, charge, group)
            cells = group.cells
            for i in random.permutation(len(cells.row))[:4]:
                found = [
                    exact(tables, charge, group, int(cells.row[i]), batch)
                    for batch in range(int(cells.low[i]), int(cells.high[i]) + 1)
                ]
                assert max(found) <= float(merit[i]) * (1 + 1e-9)
                checked += 1
    assert checked > 120


def test_the_stable_batch_is_the_largest_with_a_finite_wait() -> None:
    """Whatever the passes take: at that batch the queue ends, one more and it does not, but for rounding where rho is 1."""
    random = np.random.default_rng(9)
    for _ in range(200):
        tables = random_tables(random)
        pool = tables.context.pools["mixed"]
        group = tables.mixed[int(random.integers(len(tables.mixed)))]
        row = np.array([int(random.integers(len(group.chunk)))])
        edge = float(stable_batch(pool, group.chunk[row])[0])
        for batch, finite in ((edge, True), (edge + 1, False)):
            if batch < 1:
                continue
            served = mixed_serving(
                np.array([float(random.uniform(1e-5, 1.0))]),
                np.array([float(random.uniform(1e-5, 10.0))]),
                np.array([batch]),
                group.chunk[row],
                group.shapes.take(row),
                pool.inputs.workload,
                pool.accept,
            )
            assert bool(served.ttft_s[0] < 1e9) is finite, (batch, edge)


@pytest.mark.parametrize("proof", ["Vnan", "Winf", "W1e308", "Inan", "Jinf", "V0.0", "W-1.0", "B1.0", "W", "V"])
def test_a_forged_number_proves_nothing(proof: str) -> None:
    """A number that no search writes is refused before any of it is believed."""
    inputs = small.instance(small.llama(), small.node(2, 1, 12e6), 1, small.workload(ttft_s=0.01))
    pool = build_context(inputs).pools["mixed"]
    decision = PoolDecision("mixed", 1, 1, 1, 1, 1, 2, 64)
    placed = Tables(build_context(inputs), declare_space(build_context(inputs))).place(pool, decision)
    with pytest.raises(InputError, match="not a proof"):
        proven(pool, decision, f"{proof}:{placed.basis}")


def test_a_node_of_endless_digits_names_no_node() -> None:
    name = f"mixed tp{'9' * 5000} cp1 dp1 ep1 pp1 chunk64 batch1-2"
    with pytest.raises(InputError, match="names no node"):
        parse_nodes({name: "B:0"})
