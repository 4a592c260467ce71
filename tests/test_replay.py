"""`planner simulate`: limits of queueing theory, decode step by step, caches against stack distances, agreement, the command."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import small

from planner.api import resolve
from planner.cli.schema_command import schema_of
from planner.errors import InfeasibleError
from planner.hardware import HardwareSelection
from planner.performance.queues import erlang_wait
from planner.plans import Plan
from planner.plans.arrivals import arrivals_of
from planner.plans.evaluate import decode_pass
from planner.replay.caches import BlockCache
from planner.replay.engine import Replay
from planner.replay.headroom import Margin, plan_with_headroom
from planner.replay.parts import Memory, Request, Site
from planner.replay.run import Served, new_environment, run
from planner.replay.schema import Limit, Replayed, Spread
from planner.replay.session import Load, deployed, simulate
from planner.replay.timing import Timing, timing_of
from planner.replay.traffic import Arrival, drawn_requests, lengths
from planner.search import solve
from planner.workload.reuse import Follower
from planner.workload.schema import Lengths
from planner.workload.traces import Requests

Run = Callable[..., tuple[int, str, str]]
MICRO = 1e-6


def queue(servers: int, times: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Waits of requests of so many microseconds at instances that only prefill, one request a pass."""
    site = Site("prefill", servers, 1, 1, 0, 10**9, math.inf, Timing(fill=lambda tokens, _r, _c: tokens * MICRO), per_pass=1)
    arrivals = np.cumsum(gaps)
    requests = [Request(i, float(at), int(time), 1) for i, (at, time) in enumerate(zip(arrivals, times, strict=True))]
    served = run(Replay(new_environment(), (site,)), iter(requests))
    found = sorted(served.requests, key=lambda r: r.number)
    return np.array([r.first_s - r.arrival_s - r.input_tokens * MICRO for r in found])


# -- limits of theory ------------------------------------------------------------------------------------------------------


def test_constant_service_waits_as_the_recursion() -> None:
    """Request by request; the recursion's mean is that of M/D/1 (test_arrivals.py)."""
    gaps = np.random.default_rng(8).exponential(1.0 / 0.7, 2000)
    waits = kiefer_wolfowitz(np.ones((1, 2000)), gaps[None, :], 1)[0]
    np.testing.assert_allclose(queue(1, np.full(2000, 1e6), gaps), waits, atol=1e-6)


def kiefer_wolfowitz(times: np.ndarray, gaps: np.ndarray, servers: int) -> np.ndarray:
    """Waits of requests [n] at servers with one queue, of many samples at once ([samples, n])."""
    left, waits = np.zeros((len(times), servers)), np.zeros_like(times)
    for i in range(times.shape[1]):
        left = np.sort(np.maximum(left - gaps[:, i : i + 1], 0.0), axis=1)
        waits[:, i] = left[:, 0]
        left[:, 0] += times[:, i]
    return waits


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (2, 0.7), (3, 0.6), (8, 0.7)])
def test_exponential_service_waits_as_m_m_c(servers: int, load: float) -> None:
    """The replay is the recursion of Kiefer and Wolfowitz, request by request; that is M/M/c in the mean of a million."""
    random = np.random.default_rng(9)
    times, gaps = np.floor(random.exponential(1e6, 2000)) + 1, random.exponential(1 / load / servers, 2000)
    waits = kiefer_wolfowitz(times[None, :] * MICRO, gaps[None, :], servers)[0]
    np.testing.assert_allclose(queue(servers, times, gaps), waits, atol=1e-6)
    many = random.exponential(1.0, (1000, 1500)), random.exponential(1 / load / servers, (1000, 1500))
    theory = erlang_wait(load, servers) / (servers * (1.0 - load))
    assert kiefer_wolfowitz(*many, servers)[:, 500:].mean() == pytest.approx(theory, rel=0.02)


# -- decode and interleaving -----------------------------------------------------------------------------------------------


def step(batch: float, context: float) -> float:
    return 0.010 + 0.001 * batch + 1e-6 * batch * context


def mixed(**changes: Any) -> Site:
    timing = Timing(step=step, fill=lambda tokens, requests, context: 0.02 + 1e-5 * tokens * (1.0 + context / 1e4))
    return replace(Site("mixed", 1, 1, 1, 8, 512, 20_000.0, timing, per_pass=4), **changes)


def naive(site: Site, requests: list[Request]) -> dict[int, tuple[float, float]]:
    """One instance of one rank, every step for itself: ``(first token, end)`` by request."""
    assert site.timing.step is not None and site.timing.fill is not None
    now, coming, waiting = 0.0, list(requests), list[Request]()
    running: list[list[float]] = []
    hold: list[list[float]] = []
    todo: dict[int, float] = {}
    times: dict[int, list[float]] = {}
    while coming or waiting or running or hold:
        if not waiting and not running:
            now = max(now, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= now:
            request = coming.pop(0)
            todo[request.number] = request.input_tokens
            waiting.append(request)
        if waiting:
            left, parts, total, done = site.chunk, 0, 0.0, []
            for request in waiting[: site.per_pass]:
                take = min(todo[request.number], left)
                if not take:
                    break
                before = request.input_tokens - todo[request.number]
                total += take * (before + take / 2.0)
                todo[request.number] -= take
                left, parts = left - take, parts + 1
                if todo[request.number]:
                    break
                done.append(request)
            now += site.timing.fill(site.chunk - left, parts, total / (site.chunk - left))
            for request in done:
                waiting.remove(request)
                times[request.number] = [now, now]
                if request.output_tokens > 1:
                    hold.append([request.number, request.input_tokens + 1.0, request.output_tokens - 1])
            while hold and len(running) < site.sequences:
                running.append(hold.pop(0))
        if running:
            now += site.timing.step(len(running), sum(s[1] + 0.5 for s in running) / len(running))
            for sequence in running:
                sequence[1] += 1
                sequence[2] -= 1
                if not sequence[2]:
                    times[int(sequence[0])][1] = now
            running = [s for s in running if s[2]]
            while hold and len(running) < site.sequences:
                running.append(hold.pop(0))
    return {number: (first, end) for number, (first, end) in times.items()}


@pytest.mark.parametrize("rate", [1.5, 6.0, 30.0])
def test_runs_of_steps_are_steps_one_by_one(rate: float) -> None:
    random = np.random.default_rng(5)
    site = mixed(kv_tokens=math.inf, sequences=8 if rate < 2.0 else 1000)
    arrivals = np.cumsum(random.exponential(1 / rate, 200))
    sizes = random.integers(20, 1500, 200), random.integers(1, 60, 200)
    requests = [Request(i, float(a), int(x), int(y)) for i, (a, x, y) in enumerate(zip(arrivals, *sizes, strict=True))]
    expected = naive(site, [replace(request) for request in requests])
    served = run(Replay(new_environment(), (site,)), iter(requests))
    found = np.array([[r.first_s, r.end_s] for r in sorted(served.requests, key=lambda r: r.number)])
    exact = np.array([expected[i] for i in range(200)])
    np.testing.assert_allclose(found, exact, rtol=0.01)
    assert np.mean(found - exact) == pytest.approx(0.0, abs=4e-3)


def test_who_joins_between_takes_all_its_steps() -> None:
    """Steps of a second whatever the batch: who comes at 10.25 has its tokens from 11 on, and disturbs nobody."""
    timing = Timing(fill=lambda _t, _r, _c: 0.25), Timing(step=lambda _b, _c: 1.0, handoff=lambda _t: 0.0)
    sites = Site("prefill", 1, 1, 1, 0, 512, math.inf, timing[0]), Site("decode", 1, 1, 1, 9, 0, math.inf, timing[1])
    requests = [Request(0, 0.75, 100, 31), Request(1, 10.0, 100, 6), Request(2, 10.5, 100, 1)]
    served = run(Replay(new_environment(), sites), iter(requests))
    ends = {request.number: request.end_s for request in served.requests}
    assert ends == {0: pytest.approx(31.0), 1: pytest.approx(16.0), 2: pytest.approx(10.75)}


def check_empty(served: Served, count: int) -> None:
    assert len(served.requests) == count and served.replay.in_flight == 0
    for pool in served.replay.pools:
        for instance in pool:
            assert not instance.heap and instance.ready == 0
            for rank in instance.ranks:
                assert (rank.held, rank.members, rank.decoding, len(rank.hold), len(rank.waiting)) == (0, 0, 0, 0, 0)
                assert rank.pending == pytest.approx(0.0) and rank.base == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("sites", ["mixed", "pipeline", "ranks", "split", "few places"])
def test_everything_ends_and_nothing_is_left(sites: str) -> None:
    """Also with room for few: requests wait for it, and one that is larger than all the room is served alone."""
    whole = mixed(kv_tokens=3000.0, replicas=2)
    kinds = {"mixed": (whole,), "pipeline": (replace(whole, pp=3),), "ranks": (replace(whole, dp=3),)}
    fill, down = replace(whole, sequences=0), Timing(step=step, handoff=lambda tokens: 1e-6 * tokens)
    fill = replace(fill, timing=Timing(fill=whole.timing.fill))
    kinds["split"] = (fill, replace(whole, timing=down, dp=2, chunk=0))
    kinds["few places"] = (fill, replace(whole, timing=down, dp=2, chunk=0, sequences=2))
    random = np.random.default_rng(6)
    sizes = zip(random.integers(1, 4000, 300).tolist(), random.integers(0, 90, 300).tolist(), strict=True)
    requests = [Request(i, i * 0.02, x, y) for i, (x, y) in enumerate(sizes)]
    most = [0]

    def watched() -> Iterator[Request]:
        for request in requests:
            for pool in replay.pools:
                for instance in pool:
                    for rank in instance.ranks:
                        assert rank.held <= instance.site.kv_tokens or rank.members == 1
                        assert rank.decoding <= instance.site.sequences
                        most[0] = max(most[0], rank.members)
            yield request

    replay = Replay(new_environment(), kinds[sites])
    served = run(replay, watched())
    check_empty(served, 300)
    assert most[0] > 1
    for request in served.requests:
        assert request.arrival_s <= request.admitted_s < request.first_s <= request.end_s


def test_a_run_counts_the_context_that_grows_in_it() -> None:
    request = Request(0, 0.0, 100, 1001)
    run(Replay(new_environment(), (mixed(),)), iter([request]))
    assert request.end_s - request.first_s == pytest.approx(sum(step(1, 101 + i + 0.5) for i in range(1000)), rel=1e-9)


def test_patience_fills_passes_and_no_longer() -> None:
    """Two ranks: a pass starts after the step in which both have a request, or one has waited so long; at once if none decode."""
    timing = Timing(step=lambda _b, _c: 0.01, fill=lambda _t, _r, _c: 0.02)
    site = mixed(dp=2, patience_s=0.5, timing=timing, sequences=1000, kv_tokens=math.inf, per_pass=1000)
    sizes = [(0.0, 1000), (1.0, 9), (3.0, 9), (3.2, 9), (3.21, 9), (5.0, 9), (5.1, 1), (5.2, 1)]
    served = run(Replay(new_environment(), (site,)), iter([Request(i, at, 100, osl) for i, (at, osl) in enumerate(sizes)]))
    waits = {r.number: r.first_s - r.arrival_s for r in served.requests}
    # the third of three finds its rank's request in a pass, and waits for the other rank in vain
    for number, (least, most) in {0: (0.02, 0.02), 1: (0.52, 0.53), 2: (0.22, 0.23), 3: (0.02, 0.03), 4: (0.52, 0.54)}.items():
        assert least - 1e-9 <= waits[number] <= most + 1e-9
    assert waits[5] - 0.1 == pytest.approx(waits[6]) and waits[7] > 0.5
    random = np.random.default_rng(2)
    arrivals, passes = np.cumsum(random.exponential(0.05, 400)), []
    for patience in (0.0, 0.2):
        requests = [Request(i, float(at), 100, 20) for i, at in enumerate(arrivals)]
        served = run(Replay(new_environment(), (replace(mixed(dp=2), patience_s=patience, kv_tokens=math.inf),)), iter(requests))
        passes.append(len({r.first_s for r in served.requests}))
    assert passes[0] > 1.3 * passes[1]


@pytest.mark.parametrize("split", [False, True])
def test_who_waits_for_a_place_to_decode_is_counted(split: bool) -> None:
    """One place: whoever is prefilled while it is taken waits, also those who come during a step."""
    whole = mixed(sequences=1)
    fill = replace(whole, timing=Timing(fill=whole.timing.fill))
    down = replace(whole, timing=Timing(step=step, handoff=lambda _tokens: 0.0))
    requests = [Request(0, 0.0, 100, 500), *(Request(i, 0.1, 100, 5) for i in (1, 2, 3))]
    served = run(Replay(new_environment(), (fill, down) if split else (whole,)), iter(requests))
    check_empty(served, 4)
    assert served.replay.peaks.decode_queue == 3


def test_a_closed_loop_keeps_its_clients_busy() -> None:
    requests = [Request(i, 0.0, 100, 20) for i in range(200)]
    served = run(Replay(new_environment(), (mixed(),)), iter(requests), clients=7)
    check_empty(served, 200)
    assert served.replay.peaks.in_flight == 7


# -- caches ----------------------------------------------------------------------------------------------------------------


def blocks_of(count: int) -> list[tuple[int, ...]]:
    """Requests that share prefixes: each continues one of twenty stories."""
    random, found = np.random.default_rng(7), []
    for _ in range(count):
        story = int(random.integers(20)) * 1000
        found.append(tuple(story + i for i in range(int(random.integers(1, 12)))))
    return found


@pytest.mark.parametrize("room", [20, 50, 100])
def test_one_memory_finds_what_stack_distances_say(room: int) -> None:
    used = blocks_of(400)
    follower = Follower(10)
    starts = np.cumsum([0, *(len(blocks) for blocks in used)])
    tokens = np.array([len(blocks) * 10 for blocks in used])
    flat = np.array([block for blocks in used for block in blocks])
    follower.add(Requests(np.arange(400.0), tokens, np.ones(400, dtype=np.int64), flat, starts))
    result, cache, hits = follower.result(), BlockCache([float(room)]), 0
    for blocks in used:
        hits += sum(cache.find(blocks))
        cache.use(blocks)
    assert hits / len(flat) == pytest.approx(result.prefix_hits[result.capacities.index(room)])


def test_memories_below_hold_what_one_of_all_their_room_would() -> None:
    used, parts, whole = blocks_of(400), BlockCache([10.0, 15.0, 25.0]), BlockCache([50.0])
    for blocks in used:
        assert sum(parts.find(blocks)) == sum(whole.find(blocks))
        for cache in (parts, whole):
            cache.use(blocks)
    assert [len(layer) for layer in parts.layers] == [10, 15, 25]
    assert parts.written[1] > parts.written[2] > 0 and parts.dropped == whole.dropped


def test_what_lies_below_is_waited_for_and_its_queue_is_fifo() -> None:
    """Two prompts known on disk: the second waits for the first one's blocks."""
    memories = (Memory("hbm", 0.0), Memory("ssd", 100.0, 1e-3, 1.0))
    site = Site("prefill", 1, 1, 1, 0, 4096, math.inf, Timing(fill=lambda tokens, _r, _c: 1e-6 * tokens))
    replay = Replay(new_environment(), (site,), memories, 100)
    requests = [Request(0, 0.0, 1000, 1, tuple(range(10))), Request(1, 0.0, 1000, 1, tuple(range(20, 30)))]
    requests += [Request(2, 1.0, 1000, 1, tuple(range(10))), Request(3, 1.0, 1000, 1, tuple(range(20, 30)))]
    served = run(replay, iter(requests))
    first, second = served.requests[2:]
    assert [request.hit_tokens for request in (first, second)] == [999, 999]
    assert first.first_s - 1.0 == pytest.approx(0.999, rel=1e-3)
    assert second.first_s - 1.0 == pytest.approx(1.998, rel=1e-3)
    assert replay.peaks.reload_wait_s == pytest.approx(0.999)


# -- requests --------------------------------------------------------------------------------------------------------------


def test_drawn_requests_have_the_rate_the_lengths_and_the_seed() -> None:
    load = small.workload(isl=300, osl=40, hit=0.25)
    first, again, other = (
        [(r.arrival_s, r.input_tokens, r.hit_tokens) for r in drawn_requests(load, Arrival(5.0), 9000, seed, 8192)]
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert first[-1][0] == pytest.approx(1800, rel=0.03) and first[0][1:] == (300, 75)
    gaps = np.diff([r.arrival_s for r in drawn_requests(load, Arrival(5.0, 3.0), 9000, 1, 8192)])
    assert gaps.std() / gaps.mean() == pytest.approx(3.0, rel=0.1)


def test_lengths_follow_quantiles_or_the_lognormal() -> None:
    random = np.random.default_rng(0)
    drawn = lengths(Lengths(mean=1155, median=1020), random, 40_000)
    assert (drawn.mean(), np.median(drawn)) == (pytest.approx(1155, rel=0.02), pytest.approx(1020, rel=0.02))
    counted = Lengths(mean=100, quantiles=((0.0, 10), (0.5, 50), (1.0, 400)))
    assert np.quantile(lengths(counted, random, 40_000), [0.25, 0.5, 0.75]) == pytest.approx([30, 50, 225], rel=0.05)
    assert lengths(counted, random, 3, constant=True).tolist() == [100, 100, 100]


# -- plans -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aggregated() -> Plan:
    software = small.runtime(256, (256, 1024), disaggregated=False)
    return solve(small.instance(small.llama(), small.node(memory_bytes=4e9), 1, small.workload(isl=700, osl=300), software))


@pytest.fixture(scope="module")
def split() -> Plan:
    software = small.runtime(24, (256, 1024), disaggregated=True)
    half = HardwareSelection(system=small.node(memory_bytes=1e9), count=1)
    load = small.workload(isl=700, osl=64)
    return solve(resolve(small.llama(), {"prefill": half, "decode": half}, workload=load, runtime=software))


@pytest.mark.parametrize("kind", ["aggregated", "split"])
@pytest.mark.parametrize("load", [0.5, 0.7, 0.85])
def test_theory_and_replay_agree(kind: str, load: float, request: pytest.FixtureRequest) -> None:
    deployment = deployed(request.getfixturevalue(kind), "plan")
    rate = load * deployment.operation.capacity_per_s
    found = simulate(deployment, Load(rate_per_s=rate, requests=5000, constant=True, seed=2))
    assert found.theory is not None and found.theory.ttft_ms is not None
    assert found.requests_per_s == pytest.approx(rate, rel=0.05)
    assert found.ttft_ms.mean == pytest.approx(found.theory.ttft_ms, rel=0.05)
    assert found.tpot_ms.mean == pytest.approx(found.theory.tpot_ms, rel=0.05)


@pytest.mark.parametrize("kind", ["aggregated", "split"])
def test_tables_are_the_plans_own_passes(kind: str, request: pytest.FixtureRequest) -> None:
    deployment = deployed(request.getfixturevalue(kind), "plan")
    for state in deployment.operation.pools:
        timing, workload = timing_of(state, 2048.0, 8), state.pool.inputs.workload
        row = state.decision.row()
        if timing.step is not None:
            even = decode_pass(state.pool, row.shapes, row.batch)
            assert timing.step(state.decision.batch, workload.resident_tokens) <= state.seconds["decode"] * (1 + 1e-9)
            assert timing.step(state.decision.batch, workload.resident_tokens) == pytest.approx(even.slowest_stage()[0], rel=0.2)
        if timing.fill is not None and workload.miss_tokens <= state.decision.chunk:
            requests = state.decision.chunk / workload.miss_tokens
            own = timing.fill(state.decision.chunk, requests, workload.hit_tokens + workload.miss_tokens / 2.0)
            assert own == pytest.approx(state.seconds["prefill"], rel=1e-6)


def test_theory_knows_what_pools_cannot_carry(split: Plan) -> None:
    deployment = deployed(split, "plan")
    assert arrivals_of(deployment.operation).at(3.0 * deployment.operation.capacity_per_s) is None


# -- head-room -------------------------------------------------------------------------------------------------------------


def replayed(found_ms: float, limit_ms: float = 100.0) -> Replayed:
    spread = Spread(mean=1.0, p50=1.0, p90=1.0, p95=1.0, p99=1.0, most=1.0)
    limit = Limit(name="ttft", at="p95", limit_ms=limit_ms, found_ms=found_ms, met=found_ms <= limit_ms)
    return Replayed.model_construct(ttft_ms=spread, limits=[limit], limits_met=limit.met, goodput_share=limit_ms / found_ms)


def test_headroom_tightens_then_raises_the_rate(aggregated: Plan) -> None:
    margins: list[Margin] = []

    def plan_at(margin: Margin) -> Plan:
        margins.append(margin)
        if margin.factor < 2.0 and margin.ttft < 0.3:
            raise InfeasibleError("too tight", [])
        pools = [aggregated.pools[0].model_copy(update={"replicas": len(margins)})]
        return aggregated.model_copy(update={"pools": pools})

    found = plan_with_headroom(plan_at, lambda plan: replayed(200.0 if len(margins) < 5 else 80.0))
    assert found.enough and found.margin == Margin(1.5, ttft=0.5)
    assert [(m.factor, m.ttft) for m in margins] == [(1, 1), (1, 0.5), (1, 0.25), (1.5, 1), (1.5, 0.5)]
    assert [met for _, met in found.tried] == [False, False, None, False, True]


def test_no_headroom_is_enough_where_hardware_ends(aggregated: Plan) -> None:
    def plan_at(margin: Margin) -> Plan:
        if margin.factor > 1.0 or margin.ttft < 1.0:
            raise InfeasibleError("no more", [])
        return aggregated

    found = plan_with_headroom(plan_at, lambda plan: replayed(200.0))
    assert not found.enough and found.margin == Margin() and found.replayed.goodput_share == 0.5
    assert [met for _, met in found.tried] == [False, None, None]
    with pytest.raises(InfeasibleError):
        plan_with_headroom(lambda margin: plan_at(Margin(2.0)), lambda plan: replayed(1.0))


def test_plan_for_a_trace_says_its_headroom(run: Run, tmp_path: Path) -> None:
    rows = "".join(f"{i * 0.2 + i % 5 * 0.01},{300 + i % 7 * 100},{20 + i % 11}\n" for i in range(120))
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    asked = ("plan", "llama-3.1-8b", "h100-node:1", "--trace", str(path), "--pin", "tp=1", "--pin", "pp=1")
    output = tmp_path / "plan.json"
    code, out, _ = run(*asked, "--ttft", "2s@p95", "--tpot", "50ms@p99", "-o", str(output))
    assert code == 0 and "TTFT p95" in out and "head-room" in out and ": held" in out
    assert run("verify", str(output))[0] == 0
    code, out, error = run(*asked, "--ttft", "1ms@p50", "--format", "json")
    assert code == 3 or (code == 4 and "NOT held" in error)


def test_what_is_replayed_has_the_lengths_that_were_planned(run: Run, tmp_path: Path) -> None:
    """Lengths of the command line hold for the replay too, in place of the workload's own."""
    path = tmp_path / "mine.toml"
    rows = "".join(f"{i * 0.2 + i % 5 * 0.01},{300 + i % 7 * 100},{20 + i % 11}\n" for i in range(120))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows)
    assert run("workload", "fit", str(tmp_path / "trace.csv"), "-o", str(path), "--as-of", "2026-11-01")[0] == 0
    asked = ("plan", "llama-3.1-8b", "h100-node:1", "--workload", str(path), "--pin", "tp=1", "--pin", "pp=1")
    found = {}
    for isl in (("--isl", "600"), ("--isl", "6k")):
        code, out, _ = run(*asked, *isl, "--ttft", "2s@p95")
        assert code == 0 and "mine-custom" in out
        found[isl[1]] = float(out.partition("TTFT p95: ")[2].partition(" ms")[0].replace(",", ""))
    assert found["6k"] > 3.0 * found["600"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ttft", "2s@p95"), "percentiles"),
        (("--ttft", "2s@p95", "--workload", "chat"), "does not say how requests arrive"),
        (("--trace", "TRACE", "--rate", "3/s"), "--rate"),
        (("--trace", "TRACE", "--workload", "chat"), "--workload"),
        (("--trace", "TRACE", "--pareto", "3"), "--pareto"),
        (("--trace", "nowhere.csv"), "no such file"),
    ],
)
def test_plans_for_percentiles_refuse_what_has_none(run: Run, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    path = str(trace(tmp_path))
    code, out, error = run("plan", "llama-3.1-8b", "h100-node:1", *(path if o == "TRACE" else o for o in options))
    assert code == 2 and not out and said in error


# -- the command -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file(aggregated: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "plan.json"
    path.write_text(aggregated.to_json())
    return path


def trace(folder: Path, count: int = 60) -> Path:
    rows = [
        {"timestamp": 3 * i, "input_length": 512 * len(blocks), "output_length": 5, "hash_ids": list(blocks)}
        for i, blocks in enumerate(blocks_of(count))
    ]
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_json_is_of_its_schema_and_the_same_each_time(run: Run, file: Path, tmp_path: Path) -> None:
    for options in (
        ("--requests", "200", "--seed", "3"),
        ("--trace", str(trace(tmp_path))),
        ("--concurrency", "4", "--requests", "50"),
    ):
        code, out, _ = run("simulate", str(file), *options, "--format", "json")
        assert code == 0
        jsonschema.validate(json.loads(out), schema_of("simulate"))
        assert run("simulate", str(file), *options, "--format", "json")[1] == out


def test_a_trace_finds_its_prefixes_again(run: Run, file: Path, tmp_path: Path) -> None:
    path = str(trace(tmp_path))
    all_kept, none_kept = (
        json.loads(run("simulate", str(file), "--trace", path, "--cache-blocks", blocks, "--format", "json")[1])["caches"]
        for blocks in ("inf", "0")
    )
    assert all_kept["hit_rate"] > 0.2 and all_kept["block_hit_rate"] > 0.2
    assert none_kept["hit_rate"] == none_kept["block_hit_rate"] == 0.0


def test_limits_on_percentiles_decide_the_exit_code(run: Run, file: Path) -> None:
    wide = ("simulate", str(file), "--requests", "100", "--ttft", "100s@p99", "--tpot", "10s")
    code, out, _ = run(*wide)
    assert code == 0 and "TTFT p99" in out and "TPOT mean" in out and "MISSED" not in out
    code, out, _ = run("simulate", str(file), "--requests", "100", "--ttft", "1us@p50")
    assert code == 4 and "MISSED" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ttft", "2s@q95"), "2s@p95"),
        (("--rate", "3/s", "--concurrency", "3"), "leave out one"),
        (("--rate", "-1"), "is not from"),
        (("--cache-blocks", "few"), "write 20000, or inf"),
        (("--block-tokens", "16"), "add --trace"),
        (("--workload", "nothing"), "unknown workload"),
        (("--trace", "nowhere.jsonl"), "no such file"),
        (("--requests", "0"), "--requests"),
        (("--prefill-wait", "5 apples"), "--prefill-wait"),
    ],
)
def test_bad_input_is_one_line(run: Run, file: Path, options: tuple[str, ...], said: str) -> None:
    code, out, error = run("simulate", str(file), *options)
    assert code == 2 and not out
    assert said in error and error.strip().count("\n") == 0


def test_without_simpy_the_extra_is_named(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simpy", None)
    for command in (("simulate", str(file)), ("plan", "llama-3.1-8b", "h100-node:1", "--trace", "t.csv")):
        code, _, error = run(*command)
        assert code == 2 and "inference-planner[replay]" in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"timestamp": 5, "input_length": 10, "output_length": 1, "hash_ids": []}\n{"timestamp": 1}\n', "line 2"),
        ("arrival_s,input_tokens,output_tokens\n5,10,1\n4,10,1\n", "arrives before"),
        ("arrival_s,input_tokens,output_tokens\n5,-10,1\n", "input tokens"),
    ],
)
def test_broken_traces_are_told_by_line(run: Run, file: Path, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    code, _, error = run("simulate", str(file), "--trace", str(path))
    assert code == 2 and said in error
