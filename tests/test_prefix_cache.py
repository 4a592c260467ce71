"""A prefix cache chosen from a hit-rate curve: what it holds, what bringing it back takes, and bounds against brute force."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pytest
import small

from planner.api import resolve
from planner.errors import InfeasibleError, InputError
from planner.footprint.memory import window_cache_bytes
from planner.performance import mixed_serving
from planner.plans import Plan, build_context, verify_plan
from planner.plans.bounds import (
    Shown,
    at_rate,
    charge_of,
    meets,
    mixed_cell_merit,
    mixed_decision,
    mixed_merit,
    objective_of_merit,
    placed_merit,
    prefill_decision,
    proven,
    rate_of_merit,
    weigh_batch,
)
from planner.plans.candidates import MixedGroup, stable_batch
from planner.plans.closure import prefill_table
from planner.plans.constraints import parse_constraints
from planner.plans.context import PoolContext
from planner.plans.decision import Decision, PoolDecision
from planner.plans.evaluate import Candidates, prefix_most
from planner.plans.inputs import Inputs
from planner.plans.operate import operate
from planner.plans.pairing import best_rate, merit_of_rates, split_table
from planner.plans.prefix import ITEM
from planner.plans.prefix_rows import cache_binds
from planner.plans.read import decision_of
from planner.plans.space import declare_space
from planner.plans.states import pool_problem
from planner.plans.tiers import evaluate_shares
from planner.plans.worth import checks
from planner.search import solve
from planner.search.prefix_sides import sized_prefill
from planner.search.tables import Tables, build_tables
from planner.search.tier_lp import solve_tiers
from planner.workload import PrefixCache, Workload, load_workload
from planner.workload.arguments import workload_of

CURVE = ((200.0, 0.2), (1000.0, 0.5), (8000.0, 0.7))
BRIEF = ((0.5, 0.2), (2.0, 0.5), (10.0, 0.7))
"""Entries kept for milliseconds, as the small models serve thousands of requests a second."""


def curve(points: Any = CURVE) -> PrefixCache:
    return PrefixCache.model_validate({"curve": points, "source": "made up", "as_of": date(2026, 11, 22), "grade": "D"})


def load(points: Any = CURVE, **shape: Any) -> Workload:
    return small.workload(**shape).model_copy(update={"prefix_cache": curve(points)})


def problem(points: Any = CURVE, memory: float = 60e6, host: float = 100e6, rate: float = 50e9, **options: Any) -> Inputs:
    software = small.runtime(4, options.pop("chunks", (64, 1024)), disaggregated=options.pop("disaggregated", False))
    shape = {key: options.pop(key) for key in ("isl", "osl", "ttft_s", "tpot_s") if key in options}
    return small.instance(small.llama(), small.node(1, 1, memory, host, rate), 1, load(points, **shape), software, **options)


# --- the curve ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "at least 1"),
        ([[1, 0.1]] * 17, "at most 16"),
        ([[100, 0.2], [100, 0.3]], "keeps no more tokens"),
        ([[100, 0.2], [200, 0.1]], "finds less"),
        ([[100, 1.0]], "less than 1"),
        ([[0, 0.1]], "greater than 0"),
        ([["nan", 0.1]], "finite|number"),
    ],
)
def test_a_bad_curve_is_refused_in_a_line(points: Any, said: str, run: Any, tmp_path: Any) -> None:
    path = tmp_path / "load.toml"
    text = f"""schema = 1
id = "mine"
input_tokens = {{ mean = 1000 }}
output_tokens = {{ mean = 100 }}
source = "x"
as_of = 2026-11-22
grade = "D"
[prefix_cache]
curve = {points}
source = "x"
as_of = 2026-11-22
grade = "D"
"""
    path.write_text(text.replace("'nan'", "nan"), encoding="utf-8")
    code, _, err = run("plan", "llama-3.1-8b", "h100-node", "--workload", path)
    assert code == 2 and "Traceback" not in err
    assert "prefix_cache" in err or "curve" in err


def test_a_hit_rate_and_a_curve_are_one_too_many() -> None:
    data = load().model_dump() | {"prefix_hit": 0.5}
    data["schema"] = data.pop("schema_version")
    with pytest.raises(ValueError, match="give one"):
        Workload.model_validate(data)
    given = workload_of(load(), None, None, 0.3, None, None)
    assert given.prefix_cache is None and given.prefix_hit == 0.3


def test_points_below_the_hull_are_left_out() -> None:
    """Each further token finds less; equal hits add nothing."""
    assert curve([[100, 0.1], [200, 0.12], [300, 0.3], [400, 0.3]]).points == ((0.0, 0.0), (300.0, 0.3))
    assert curve().points == ((0.0, 0.0), *CURVE)
    random = np.random.default_rng(3)
    for _ in range(200):
        count = int(random.integers(1, 12))
        held, hits = np.cumsum(random.uniform(1, 100, count)), np.sort(random.uniform(0, 0.99, count))
        points = curve(list(zip(held.tolist(), hits.tolist(), strict=True))).points
        slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(points, points[1:], strict=False)]
        assert all(a > b > 0 for a, b in zip(slopes, slopes[1:], strict=False)) and points[-1][1] == hits[-1]
        x, y = np.array([0.0, *held]), np.array([0.0, *hits])
        assert np.all(np.interp(x, *np.array(points).T) >= y - 1e-12)


def test_the_workload_that_ships_one() -> None:
    workload = load_workload("conversation")
    assert workload.prefix_cache is not None
    points = workload.prefix_cache.points
    assert points[-1] == (15_054_000, 0.3637)
    for (tokens, _), blocks in zip(workload.prefix_cache.curve, (1000, 5000, 10_000, 20_000, 50_000, 100_000), strict=True):
        assert tokens == pytest.approx(blocks * 512 / 3.401, rel=1e-3)


# --- what it holds and takes --------------------------------------------------------------------------------------


def decided(inputs: Inputs, point: int, rate: float, batch: int = 2, chunk: int = 64, phase: str = "mixed") -> Any:
    variant = inputs.variants[point]
    pool = build_context(inputs, variant).pools["mixed"]
    decision = PoolDecision(phase, 1, 1, 1, 1, 1, batch, chunk, basis="needed", prefix_rate=rate)
    return pool, decision


def test_tokens_bytes_and_reload_on_paper() -> None:
    """1000 tokens per request/s for 20 requests/s are 20,000 tokens; a token of 4 layers, 2 heads of 128, keys and values in
    BF16 is 4096 bytes. A pass of 64 tokens starts 64/128 requests, of which each brings back 128 of its 256 tokens."""
    inputs = problem(((1000.0, 0.5),), isl=256, osl=64)
    pool, decision = decided(inputs, 1, 20.0)
    tier, _ = pool_problem(pool, decision)
    items = [item for item in tier.items if item.kind == "prefix"]
    layers = dict(enumerate(tier.stages[0]))
    assert sum(item.held * layers[item.window] for item in items) == pytest.approx(20_000 * 4096)
    assert sum(item.reads["prefill"] * layers[item.window] for item in items) == pytest.approx(64 / 128 * 128 * 4096)
    assert all(item.reads["decode"] == 0.0 for item in items)
    assert all(item.names == (ITEM,) and item.modes == ("prefetch",) for item in items)


def test_ages_split_what_is_kept_and_found() -> None:
    inputs = problem(isl=256)
    pool, decision = decided(inputs, 3, 10.0)
    tier, _ = pool_problem(pool, decision)
    assert pool.inputs.workload.prefix_hit == 0.7
    kept = [tokens for tokens, _ in pool.prefix.of_rank(10.0, 0.5)]
    found = [tokens for _, tokens in pool.prefix.of_rank(10.0, 0.5)]
    assert kept == pytest.approx([2000.0, 8000.0, 70_000.0])
    assert found == pytest.approx([0.2 * 128, 0.3 * 128, 0.2 * 128])
    densities = [item.density for item in tier.items if item.kind == "prefix" and item.window == tier.items[-1].window]
    assert densities == sorted(densities, reverse=True)


def test_a_slow_link_makes_the_pass_as_long_as_its_reload() -> None:
    """With the whole cache in host memory no prefill pass is shorter than what it brings back takes over the link."""
    inputs = problem(((1000.0, 0.5),), isl=256, rate=1e9, tiers=("hbm", "host"))
    pool, decision = decided(inputs, 1, 20.0)
    pool = replace(pool, forbidden=frozenset({(ITEM, pool.rates.memory_id)}))
    tier, passes = pool_problem(pool, decision)
    solution = solve_tiers(tier)
    assert solution is not None
    times = evaluate_shares(tier, solution.point.values[: len(tier.choices)])
    host = next(t for t in pool.rates.tiers if t.id == "host")
    reload = 64 * 4096 / host.bytes_per_s
    free = float(passes["prefill"].slowest_stage()[0])
    assert reload > free
    assert times.phase_s["prefill"] == pytest.approx(reload, rel=1e-9)
    assert times.carried["prefill"]
    resident, _ = pool_problem(replace(pool, forbidden=frozenset(), tiers=()), replace(decision, prefix_rate=0.01))
    here = solve_tiers(resident)
    assert here is not None
    left = evaluate_shares(resident, here.point.values[: len(resident.choices)]).phase_s["prefill"]
    assert left == pytest.approx(free, rel=1e-12)  # hits in device memory are read by attention as ever


def test_windows_and_states_count_as_they_do_in_the_running_cache() -> None:
    """Bytes of a token are those of a sequence of the reserved length, per token, whatever the caches are."""
    for model in ("gpt-oss-20b", "deepseek-v3", "deepseek-v4-flash", "nemotron-3-nano-30b-a3b", "qwen3.5-27b"):
        inputs = resolve(model, "h100-node", workload=load_workload("conversation"))
        pool, decision = decided(inputs, 1, 0.5)
        workload = pool.inputs.workload
        tier, _ = pool_problem(pool, decision)
        for number, window in enumerate(pool.pieces.windows):
            whole = float(window_cache_bytes(window, decision.row().shapes, workload.reserved_tokens, 16)[0])
            mine = sum(item.held for item in tier.items if item.kind == "prefix" and item.window == number)
            assert mine == pytest.approx(whole / workload.reserved_tokens * pool.prefix.tokens * 0.5, rel=0.02)


# --- bounds against brute force -----------------------------------------------------------------------------------


def random_inputs(random: np.random.Generator, **software: Any) -> Inputs:
    kind = random.integers(2)
    if kind == 0:
        model = small.llama(int(random.integers(1, 4)), 256, 4, int(random.choice([1, 2, 4])), 512, 512)
    else:
        model = small.experts(int(random.integers(2, 4)))
    host = float(10 ** random.uniform(6.5, 9))
    system = small.node(
        int(random.choice([1, 2])), 1, float(random.uniform(6e6, 40e6)), host, float(10 ** random.uniform(8.5, 11))
    )
    count = int(random.integers(1, 4))
    held = np.cumsum(10 ** random.uniform(1, 4, count)).tolist()
    hits = np.sort(random.uniform(0.05, 0.9, count)).tolist()
    workload = load(
        list(zip(held, hits, strict=True)),
        isl=float(random.integers(32, 600)),
        osl=float(random.integers(2, 200)),
        ttft_s=float(random.uniform(3e-4, 8e-3)) if random.random() < 0.4 else None,
        tpot_s=float(random.uniform(1e-4, 2e-3)) if random.random() < 0.3 else None,
    )
    options: dict[str, Any] = {}
    if random.random() < 0.2:
        options["rate"] = float(random.uniform(10, 1000))
    elif random.random() < 0.2:
        options["concurrency"] = int(random.integers(2, 12))
    if random.random() < 0.3:
        options["tiers"] = ("hbm", "host") if random.random() < 0.6 else ("hbm",)
    runtime = small.runtime(5, tuple(sorted({int(2**n) for n in random.integers(5, 9, 2)})), **software)
    return small.instance(model, system, int(random.integers(1, 3)), workload, runtime, **options)


def tables_at(inputs: Inputs, point: int) -> Tables:
    context = build_context(inputs, inputs.variants[point])
    return build_tables(context, declare_space(context))


LADDER = np.geomspace(1.0, 300.0, 14)


def merit_of(tables: Tables, charge: Any, group: MixedGroup, row: int, batch: int) -> float:
    """Merit of the best placement found of one batch, over caches for many rates."""
    pool, best, at = tables.context.pools["mixed"], 0.0, np.array([row])
    shapes = group.shapes.take(at)
    free = tables.place(pool, mixed_decision(group, row, batch))
    if free.seconds is None:
        return 0.0
    for guess in free.value_s * LADDER:
        placed = tables.place(pool, mixed_decision(group, row, batch), float(guess))
        if placed.seconds is None:
            continue
        served = mixed_serving(
            np.array([placed.seconds["decode"]]), np.array([placed.seconds["prefill"]]), np.array([float(batch)]),
            group.chunk[at], shapes, pool.inputs.workload, pool.accept, np.array([placed.decision.prefix_rate]),
        )  # fmt: skip
        each = mixed_merit(
            tables.context, tables.space, charge, served.tpot_s, served.requests_per_s, shapes.devices, served.concurrency
        )[0]
        if meets(charge, served.tpot_s, served.ttft_s)[0]:
            best = max(best, float(each[0]))
    return best


def test_no_cache_and_batch_beats_the_bound_of_its_cell() -> None:
    """500 cells of aggregated serving: before any placement, and by B, W, I and J proofs, also as read back from their text."""
    random = np.random.default_rng(11)
    cells = tight = rated = empty = 0
    while cells < 500:
        inputs = random_inputs(random, disaggregated=False)
        if inputs.options.tiers == ("hbm",):
            continue
        tables = tables_at(inputs, int(random.integers(1, len(inputs.variants))))
        pool = tables.context.pools["mixed"]
        for number in random.permutation(len(tables.mixed))[:2]:
            group = tables.mixed[int(number)]
            for row in random.permutation(len(group.chunk))[:4]:
                row = int(row)
                top = int(min(stable_batch(pool, group.chunk[[row]])[0], 5))
                if top < 1:
                    continue
                low = int(random.integers(1, top + 1))
                high = int(random.integers(low, min(low + 1, top) + 1))
                charge = charge_of(tables.context, str(random.choice(["cost", "throughput", "latency"])), inputs.workload.tpot_s)
                weigh = weigh_batch(charge, low, high)
                best = max(merit_of(tables, charge, group, row, batch) for batch in range(low, high + 1))
                decision, rates = mixed_decision(group, row, low), [0.0]
                target = max(best, 1e-9) * float(random.choice([0.5, 0.9, 0.999, 1.2]))
                rates.append(rate_of_merit(tables.context, tables.space, charge, group, row, low, target))
                for rate in dict.fromkeys(rates):
                    guess = at_rate(pool, decision, rate) if rate else math.inf
                    placed = tables.place(pool, decision, guess, weigh)
                    if placed.bound_s == 0.0:
                        continue
                    shown = Shown(placed.bound_s, rate)
                    bound, _, _ = placed_merit(tables.context, tables.space, charge, group, row, low, high, weigh, shown)
                    assert best <= bound * (1 + 1e-9), (decision, low, high, charge.objective, rate)
                    sort = ("J" if rate else "I") if placed.seconds is None else ("W" if rate else "B")
                    read = proven(pool, decision, f"{sort}{rate!r}:{placed.basis}" if rate else f"{sort}:{placed.basis}", weigh)
                    assert read.but_below == rate
                    assert math.isclose(read.seconds, math.inf if placed.seconds is None else placed.bound_s, rel_tol=1e-9)
                    tight += bool(best > bound * 0.97)
                    rated += rate > 0
                    empty += placed.seconds is None
                merit, _, _ = mixed_cell_merit(tables.context, tables.space, charge, group)
                for i in np.flatnonzero((group.cells.row == row) & (group.cells.low <= low) & (group.cells.high >= high)):
                    assert best <= float(merit[i]) * (1 + 1e-9)
                cells += 1
    assert tight > 60 and rated > 150 and empty > 15


def test_no_prefill_instance_serves_more_than_its_bound() -> None:
    """500 instances that only prefill: the bisection against a fine scan of sizes, and its proof as ``verify`` reads it."""
    random = np.random.default_rng(12)
    checked = limited = 0
    while checked < 500:
        inputs = random_inputs(random)
        tables = tables_at(inputs, int(random.integers(1, len(inputs.variants))))
        pool = tables.context.pools["mixed"]
        if not pool.tiers:
            continue
        for group in tables.prefill[:2]:
            for row in random.permutation(len(group.chunk))[:5]:
                at, decision = np.array([int(row)]), prefill_decision(group, int(row))

                def serves(seconds: float, group: Any = group, at: Any = at) -> float:
                    return float(group.serve(at, np.array([seconds]))[0][0])

                found = sized_prefill(tables, pool, decision, serves, 1e-4)
                free = tables.place(pool, decision)
                scan = 0.0
                for rate in np.geomspace(serves(free.bound_s), serves(free.bound_s) / 1e3, 18) if free.seconds else ():
                    if rate > 0.0:
                        placed = tables.place(pool, decision, decision.dp / float(rate))
                        if placed.seconds is not None:
                            scan = max(scan, min(float(rate), serves(placed.seconds["prefill"])))
                assert scan <= found.bound * (1 + 1e-9)
                assert found.rate <= found.bound * (1 + 1e-9)
                assert found.rate >= found.bound * (1 - 2e-4) or found.bound == 0.0 or found.rate >= scan
                name = (decision.phase, decision.tp, decision.cp, decision.dp, decision.ep, decision.pp, decision.chunk)
                table = dict(prefill_table([group], {name: [(0, 0, found.proof)]}))
                read = table.get((0, int(row)), (0, 0.0, 0.0))[1]
                assert scan <= read * (1 + 1e-9) and read <= found.bound * (1 + 1e-6) + 1e-12
                limited += found.rate < serves(free.bound_s) * 0.99 if free.seconds else 0
                checked += 1
    assert limited > 100


def everything(inputs: Inputs) -> float:
    """The best merit over every variant, shape, pass and batch, with caches for many rates."""
    best = 0.0
    for point in range(len(inputs.variants)):
        tables = tables_at(inputs, point)
        context, space, pool = tables.context, tables.space, tables.context.pools["mixed"]
        charge = charge_of(context, inputs.options.objective, inputs.workload.tpot_s)
        for group in tables.mixed:
            for row in range(len(group.chunk)):
                for batch in range(1, int(min(stable_batch(pool, group.chunk[[row]])[0], space.pools["mixed"].batches)) + 1):
                    if pool.prefix is not None and pool.tiers:
                        best = max(best, merit_of(tables, charge, group, row, batch))
                        continue
                    at, size = np.array([row]), np.array([float(batch)])
                    fits = np.any(
                        (group.cells.row == row) & (group.cells.low <= batch) & (group.cells.high >= batch) & group.cells.fits
                    )
                    if fits:
                        served = group.serve(at, size)
                        shapes = group.shapes.take(at)
                        merit = mixed_merit(
                            context, space, charge, served.tpot_s, served.requests_per_s, shapes.devices, served.concurrency
                        )[0]
                        if meets(charge, served.tpot_s, served.ttft_s)[0]:
                            best = max(best, float(merit[0]))
    return best


def test_plans_are_as_good_as_brute_force_and_verify() -> None:
    random = np.random.default_rng(13)
    solved = cached = 0
    while solved < 14:
        inputs = random_inputs(random, disaggregated=False)
        objective = str(random.choice(["cost", "throughput", "latency"]))
        options = inputs.options.model_copy(update={"objective": objective, "gap": 0.002, "rate": None})
        inputs = inputs.model_copy(update={"options": options})
        best = everything(inputs)
        try:
            plan = solve(inputs)
        except InfeasibleError:
            assert best == 0.0
            continue
        context = build_context(inputs, decision_of(plan, "plan").variant)
        sign = -1.0 if objective == "throughput" else 1.0
        if best:
            reached = objective_of_merit(context, best)
            assert sign * plan.certificate.bound <= sign * reached + 1e-9 * abs(reached)
            assert sign * plan.certificate.objective <= sign * reached + 0.0021 * abs(reached)
        # of what a cap on requests in flight leaves, placements are bounded by batches alone
        assert plan.certificate.proved or options.concurrency is not None
        assert verify_plan(plan, full=True)[0] == []
        solved += 1
        cached += plan.prefix_cache is not None
    assert cached > 3


def test_disaggregated_plans_are_as_good_as_brute_force() -> None:
    random = np.random.default_rng(14)
    solved = 0
    while solved < 4:
        inputs = random_inputs(random)
        options = inputs.options.model_copy(
            update={"objective": "throughput", "gap": 0.002, "rate": None, "concurrency": None, "tiers": ("hbm", "host")}
        )
        inputs = inputs.model_copy(update={"options": options})
        try:
            plan = solve(inputs)
        except InfeasibleError:
            continue
        for point in range(1, len(inputs.variants)):
            tables = tables_at(inputs, point)
            context, space = tables.context, tables.space
            if not space.disaggregated:
                continue
            charge = charge_of(context, "throughput", inputs.workload.tpot_s)
            pool = context.pools["mixed"]
            prefill, decode = [], []
            for group in tables.prefill:
                for row in range(len(group.chunk)):
                    at = np.array([row])
                    free = tables.place(pool, prefill_decision(group, row))
                    for factor in LADDER if free.seconds else ():
                        rate = float(group.serve(at, np.array([free.bound_s]))[0][0]) / factor
                        placed = (
                            tables.place(pool, prefill_decision(group, row), float(group.shapes.dp[row]) / rate) if rate else free
                        )
                        if placed.seconds is not None and rate:
                            served = min(rate, float(group.serve(at, np.array([placed.seconds["prefill"]]))[0][0]))
                            prefill.append((int(group.shapes.devices[row]), served, 0.0))
            for side in tables.decode:
                for i in np.flatnonzero(side.cells.fits):
                    for batch in range(int(side.cells.low[i]), int(side.cells.high[i]) + 1):
                        r, t = side.serve(side.cells.row[[i]], np.array([float(batch)]))
                        if inputs.workload.tpot_s is None or t[0] <= inputs.workload.tpot_s:
                            decode.append((int(side.shapes.devices[side.cells.row[i]]), float(r[0]), float(t[0])))
            if not prefill or not decode:
                continue
            first, second, weight = split_table(context, space, charge)
            rate = np.minimum(best_rate(prefill, first, None, charge), best_rate(decode, second, None, charge))
            best = float(np.max(merit_of_rates(rate, weight, charge), initial=0.0)) * inputs.workload.output_tokens.mean
            assert best <= plan.certificate.bound * (1 + 1e-9)
            assert best <= plan.certificate.objective * 1.0021
        assert verify_plan(plan, full=True)[0] == []
        solved += 1


# --- laws ---------------------------------------------------------------------------------------------------------


def planned(inputs: Inputs) -> Plan:
    return solve(inputs)


def test_more_memory_and_faster_links_never_hurt() -> None:
    """Law 1, with a cache that fills what there is: cost falls with every memory and with the rate of host memory."""
    base = {"memory": 60e6, "host": 20e6, "rate": 2e9}
    for change, factors in (("host", (0.5, 1.0, 2.0, 8.0)), ("rate", (0.5, 1.0, 8.0)), ("memory", (1.0, 2.0, 8.0))):
        found = []
        for factor in factors:
            scaled = {**base, change: base[change] * factor}
            inputs = problem(BRIEF, isl=2000, osl=4, chunks=(64, 256), tiers=("hbm", "host"), gap=1e-4, **scaled)
            plan = planned(inputs)
            assert plan.prefix_cache
            found.append(plan.certificate)
        for poor, rich in zip(found, found[1:], strict=False):
            assert rich.bound <= poor.objective * (1 + 1e-9), change
        assert found[-1].objective < found[0].objective * 0.95, change


def optimum(pool: PoolContext, decision: PoolDecision) -> float:
    """Weighted milliseconds of the best placement (``inf``: none)."""
    tier, _ = pool_problem(pool, decision)
    solution = solve_tiers(tier)
    if solution is None:
        return math.inf
    times = evaluate_shares(tier, solution.point.values[: len(tier.choices)])
    return sum(tier.weights[phase] * times.phase_s[phase] for phase in tier.phases)


def test_a_fixed_configuration_is_monotone_in_every_memory_and_rate() -> None:
    """Law 1 for the placement at a fixed cache, to 1e-9; and a larger cache never makes a pass shorter."""
    last = -math.inf
    for rate in (0.0, 5.0, 20.0, 60.0, 200.0):
        pool, decision = decided(problem(memory=35e6, host=1e9), 2, rate)
        value = optimum(pool, decision)
        assert last * (1 - 1e-9) <= value < math.inf
        last = value
    for key, values in (("memory", (31e6, 35e6, 80e6)), ("host", (60e6, 100e6, 1e9)), ("rate", (1e8, 1e9, 5e10))):
        last = math.inf
        for value in values:
            pool, decision = decided(problem(**{"memory": 31e6, "host": 1e9, "rate": 1e9, key: value}), 2, 20.0)
            assert optimum(pool, decision) <= last * (1 + 1e-9)
            last = optimum(pool, decision)
        assert last < math.inf


def test_conservation_with_a_prefix_cache() -> None:
    """Law 4: shares of every item sum to one, no memory overflows, and the rows of the cache add up to its bytes."""
    plan = planned(problem(BRIEF, isl=2000, osl=4, tiers=("hbm", "host")))
    assert plan.prefix_cache
    row, pool = plan.prefix_cache[0], plan.pools[0]
    shares: dict[str, float] = {}
    for part in pool.placement:
        shares[part.item] = shares.get(part.item, 0.0) + part.share
        assert part.bytes == pytest.approx(part.item_bytes * part.share * part.copies, rel=1e-11, abs=1)
    assert all(total == pytest.approx(1.0, abs=1e-9) for total in shares.values())
    mine = sum(part.bytes for part in pool.placement if ITEM in part.item)
    assert mine == pytest.approx(row.bytes, rel=1e-3)
    assert sum(tier.share for tier in row.tiers) == pytest.approx(1.0) == sum(tier.hits for tier in row.tiers)
    assert row.tokens == pytest.approx(row.tokens_per_request_per_s * row.requests_per_s)
    assert row.requests_per_s >= plan.prediction.requests_per_s * (1 - 1e-9)
    memory = pool.memory
    used = memory["weights_bytes"] + memory["kv_cache_bytes"] + memory["staging_bytes"] + memory["prefix_cache_bytes"]
    assert used + memory["free_bytes"] + sum(memory["reserve_bytes"].values()) == pytest.approx(memory["usable_bytes"], abs=64)
    context = build_context(problem(BRIEF, isl=2000, osl=4, tiers=("hbm", "host")), decision_of(plan, "plan").variant)
    assert all(check.holds for check in checks(context, operate(context, decision_of(plan, "plan"))))


def test_a_deeper_memory_that_does_not_help_holds_nothing() -> None:
    """Law 7; of two memories that each would do, the upper one is used, and of equal placements the young lie nearer."""
    for rate in (5.0, 20.0, 100.0):
        inputs = problem(memory=31e6, host=1e9)
        values = {}
        for tiers in (("hbm", "host"), None):
            changed = inputs.model_copy(update={"options": inputs.options.model_copy(update={"tiers": tiers})})
            pool, decision = decided(changed, 3, rate)
            tier, _ = pool_problem(pool, decision)
            solution = solve_tiers(tier)
            if solution is None:
                continue
            shares = solution.point.values[: len(tier.choices)]
            times = evaluate_shares(tier, shares)
            used = {c.tier for c, s in zip(tier.choices, shares, strict=True) if s > 1e-9}
            values[tiers] = (sum(tier.weights[p] * times.phase_s[p] for p in tier.phases), used)
            depth = {"hbm": 0, "host": 1, "ssd": 2}
            ages = {
                number: sum(
                    depth[c.tier] * s for c, s in zip(tier.choices, shares, strict=True) if tier.items[c.item].name == name
                )
                for number, name in enumerate(dict.fromkeys(i.name for i in tier.items if i.kind == "prefix"))
            }
            assert all(ages[n] <= ages[n + 1] + 1e-6 for n in range(len(ages) - 1))
        if len(values) == 2 and values["hbm", "host"][0] <= values[None][0] * (1 + 1e-9):
            assert "ssd" not in values[None][1]


# --- plans --------------------------------------------------------------------------------------------------------


def test_no_placement_serves_more_than_all_memories_hold() -> None:
    inputs = problem(BRIEF, isl=2000, osl=4, tiers=("hbm", "host"))
    pool = build_context(inputs, inputs.variants[3]).pools["mixed"]
    row = PoolDecision("mixed", 1, 1, 1, 1, 1, 1, 64).row()
    most = prefix_most(pool, Candidates(row.shapes, row.batch, row.chunk))
    assert most is not None
    for factor, fits in ((0.5, True), (1.0001, False)):
        _, decision = decided(inputs, 3, float(most[0]) * factor, 1)
        assert (solve_tiers(pool_problem(pool, decision)[0]) is not None) is fits


def test_a_prefill_pool_serves_no_more_than_its_cache_is_for() -> None:
    workload, software = load(((1.0, 0.5),), isl=512, osl=16), small.runtime(4, (64, 256))
    pin = parse_constraints(("serving=disaggregated",), ())
    inputs = small.instance(small.llama(), small.node(2, 1, 60e6), 1, workload, software, tiers=("hbm",), constraints=pin)
    variant = inputs.variants[1]
    context = build_context(inputs, variant)
    decode = PoolDecision("decode", 1, 1, 1, 1, 1, 4, 0)
    for rate in (1.0, 50.0, 200.0):
        prefill = PoolDecision("prefill", 1, 1, 1, 1, 1, 0, 256, prefix_rate=rate)
        operation = operate(context, Decision((prefill, decode), (2,), variant))
        assert operation.capacity_per_s == pytest.approx(rate, rel=1e-12)
        assert cache_binds(operation)
    with pytest.raises(InputError, match="prefix_cache_requests_per_s"):
        operate(context, Decision((replace(prefill, prefix_rate=None), decode), (2,), variant))
    plan = planned(inputs)
    assert plan.prefix_cache is None or plan.prefix_cache[0].requests_per_s >= plan.prediction.requests_per_s * (1 - 1e-9)
    assert verify_plan(plan, full=True)[0] == []


@pytest.mark.parametrize("tiers", [("hbm",), ("hbm", "host")])
def test_a_changed_number_of_the_cache_is_refused(tiers: tuple[str, ...]) -> None:
    plan = planned(problem(((1.0, 0.4),), memory=80e6, isl=2000, osl=4, tiers=tiers))
    assert plan.prefix_cache and verify_plan(plan)[0] == []
    data = plan.to_data()
    found = 0
    for path, value in small.leaves({"prefix_cache": data["prefix_cache"]}):
        for changed in (
            (value * (1 - 1e-6), value * (1 + 1e-6) if value > 1.0 else value / 2) if isinstance(value, float) else (value + 1,)
        ):
            other = Plan.model_validate(small.changed(data, path, changed or 1e-6))
            violations = verify_plan(other)[0]
            assert violations, path
            found += 1
    assert found > 10
    for key, value in (("prefix_cache_requests_per_s", 1e-6), ("prefix_cache_point", 0), ("prefix_cache_requests_per_s", None)):
        pools = [{**pool, "configuration": {**pool["configuration"], key: value}} for pool in data["pools"]]
        assert verify_plan(Plan.model_validate({**data, "pools": pools}))[0], key


def test_the_plan_says_what_it_keeps_and_the_space_lists_the_curve() -> None:
    plan = planned(problem(BRIEF, isl=2000, osl=4, tiers=("hbm", "host")))
    said = " ".join(plan.explanation["summary"])
    assert "a prefix cache of" in said and "of input tokens" in said and "of the hits" in said
    assert [row["hit_rate"] for row in plan.certificate.space["prefix_cache"]] == [0.0, 0.2, 0.5, 0.7]
    assert plan.inputs["workload"]["prefix_hit"] == 0.0 and plan.inputs["workload"]["prefix_cache"] is not None
    free = solve(small.instance(small.llama(), small.node(1), 1, small.workload(hit=0.5)))
    assert free.prefix_cache is None and "prefix_cache" not in free.certificate.space
    assert any("is not charged" in line for line in free.explanation["defaults"])
    assert "prefix_cache_point" not in free.to_data()["pools"][0]["configuration"]


def test_hits_that_cost_are_no_better_than_hits_for_nothing() -> None:
    """And no worse than none: point 0 is in the space."""
    for rate in (1e8, 5e10):
        inputs = problem(BRIEF, isl=2000, osl=4, rate=rate, tiers=("hbm", "host"), gap=1e-4)
        plan = planned(inputs)
        chosen = plan.prefix_cache[0].hit_rate if plan.prefix_cache else 0.0
        values = []
        for hit in (0.0, chosen):
            workload = inputs.workload.model_copy(update={"prefix_cache": None, "prefix_hit": hit})
            values.append(planned(inputs.model_copy(update={"workload": workload})).certificate)
        assert plan.certificate.bound <= values[0].objective * (1 + 1e-9)
        assert values[1].bound <= plan.certificate.objective * (1 + 1e-9)


def test_the_cache_may_be_pinned_and_banned() -> None:
    inputs = problem(BRIEF, isl=2000, osl=4)
    options = inputs.options.model_copy(update={"constraints": parse_constraints((f"{ITEM}@host",), ())})
    plan = planned(inputs.model_copy(update={"options": options}))
    rows = [row for row in plan.pools[0].placement if ITEM in row.item]
    assert rows and {row.tier for row in rows} == {"host"}
    assert verify_plan(plan, full=True)[0] == []
    with pytest.raises(InputError, match="no item"):
        free = small.instance(small.llama(), small.node(1), 1, small.workload(hit=0.5))
        solve(free.model_copy(update={"options": options}))


def test_fronts_takeovers_and_caution_know_it() -> None:
    inputs = problem(BRIEF, isl=2000, osl=4, tiers=("hbm", "host"), pareto=3)
    plan = planned(inputs)
    assert plan.pareto is not None and verify_plan(plan, full=True)[0] == []
    careful = problem(BRIEF, isl=2000, osl=4, tiers=("hbm", "host"), robust="intervals")
    assert verify_plan(planned(careful), full=True)[0] == []


def test_prefixes_of_draft_layers_lie_below_too() -> None:
    """Their window comes after those of the model."""
    machine = small.node(1, 1, 60e6, 100e6, 50e9)
    plan = solve(small.instance(small.experts(), machine, 1, load(), small.runtime(4, (64, 1024)), mtp=(1,)))
    assert plan.prefix_cache and verify_plan(plan, full=True)[0] == []
