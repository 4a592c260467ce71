"""Both directions of a link, memories that serve one access at a time, and what a contention group carries: on paper, against an
exact mixture of rates, monotone in every rate, and in whole plans against brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st
from test_plan_laws import placement_optimum, with_system
from test_search import compare

from planner.architecture import Span
from planner.footprint import ModelPieces, Shapes
from planner.footprint.pieces import BlockPieces, CacheItem, StaticItem, Window
from planner.hardware import Domain, Link, System, Tier, load_hardware
from planner.hardware.channels import Channel, directions, group_channels, link_channels, network_shares, tier_channels
from planner.performance import BlockTimes, Level, Load, PassTimes, TierRate, resolve_rates
from planner.plans.context import build_context
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import memory_need, overflow_seconds
from planner.plans.inputs import Inputs
from planner.plans.states import pool_problem
from planner.plans.tiers import TierProblem, build_tier_problem, evaluate_shares
from planner.plans.verify import verify_plan
from planner.quantities import Figure
from planner.search import solve
from planner.search.tier_lp import solve_tiers

GB = 10**9


def taken(channels: tuple[Channel, ...], read: float, written: float) -> float:
    """Seconds of the busiest channel."""
    return max(read * c.read + written * c.write for c in channels)


# --- one link -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corner", "read", "written", "expected"),
    [
        ((50.0, 40.0), 100.0, 40.0, 2.0),  # full duplex: 2 s one way, 1 s the other
        ((50.0, 40.0), 10.0, 80.0, 2.0),
        (None, 100.0, 40.0, 3.0),  # half: one after the other
        ((30.0, 30.0), 30.0, 30.0, 1.0),  # 30 each way while both are busy
        ((30.0, 30.0), 60.0, 30.0, 1.6),  # 1 s both ways, then 30 more in 0.6 s
        ((30.0, 30.0), 30.0, 60.0, 1.75),  # 30 more take 0.75 s the other way
        ((30.0, 30.0), 100.0, 0.0, 2.0),
        ((30.0, 30.0), 0.0, 100.0, 2.5),
        ((15.0, 15.0), 50.0, 40.0, 2.0),  # both at once are slower than taking turns
    ],
)
def test_two_directions_by_hand(corner: tuple[float, float] | None, read: float, written: float, expected: float) -> None:
    """50 GB/s for reads alone, 40 for writes alone."""
    assert taken(directions("link", 50.0, 40.0, corner), read, written) == pytest.approx(expected, rel=1e-12)


RATE = st.floats(1.0, 1000.0)


@given(RATE, RATE, st.none() | st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)), st.floats(0, 1e3), st.floats(0, 1e3))
@settings(max_examples=600)
def test_channels_are_the_best_mixture_of_rates(
    a: float, b: float, part: tuple[float, float] | None, read: float, written: float
) -> None:
    """The least time of any sequence of reading alone, writing alone and both at once (its breakpoints tried one by one)."""
    corner = None if part is None else (a * part[0], b * part[1])
    least = read / a + written / b
    if corner is not None:
        p, q = corner
        for both in (0.0, read / p, written / q):
            least = min(least, both + max(read - both * p, 0.0) / a + max(written - both * q, 0.0) / b)
    assert taken(directions("link", a, b, corner), read, written) == pytest.approx(least, rel=1e-9, abs=1e-15)


def system_of(**changes: Any) -> System:
    """The small node with its PCIe link changed."""
    base = small.node(2)
    links = tuple(link_with(link, **changes) if link.id == "pcie" else link for link in base.links)
    return base.model_copy(update={"links": links})


def link_with(link: Link, **changes: Any) -> Link:
    figures = {k: small.exactly(link.bandwidth, v) for k, v in changes.items() if k in ("bandwidth", "both_ways")}
    figures |= {k: small.exactly(link.efficiency, v) for k, v in changes.items() if k in ("efficiency", "reverse_efficiency")}
    return link.model_copy(update={**changes, **figures})


def test_a_link_of_a_profile() -> None:
    """Its figures are those of all its sharers; ``both_ways`` is at most what each way reaches alone."""
    link = load_hardware("h100-node").system.link("pcie")
    shared = link_with(link, bandwidth=100e9, efficiency=0.8, reverse_efficiency=0.5, devices_sharing=2, duplex="full")
    assert link_channels(shared) == (Channel("pcie", 1 / 40e9, 0.0), Channel("pcie (writes)", 0.0, 1 / 25e9))
    half = link_with(shared, duplex="half")
    assert link_channels(half) == (Channel("pcie", 1 / 40e9, 1 / 25e9),)
    same = link_with(shared, reverse_efficiency=0.8).model_copy(update={"reverse_efficiency": None})
    assert link_channels(same)[1].write == pytest.approx(1 / 40e9)
    both = link_channels(link_with(shared, both_ways=60e9))
    assert taken(both, 25e9, 25e9) == pytest.approx(1.0)  # 60 GB/s for two is 30 each: writes alone reach 25
    assert taken(both, 30e9, 25e9) == pytest.approx(1.0) and taken(both, 40e9, 0.0) == pytest.approx(1.0)


def test_a_collapse_below_taking_turns_is_charged_as_turns() -> None:
    """GB200's C2C: 173 GB/s each way at once, 405 and 378 alone."""
    (channel,) = link_channels(load_hardware("gb200-nvl72").system.link("c2c"))
    assert (1 / channel.read, 1 / channel.write) == (pytest.approx(405e9), pytest.approx(378e9))


def test_memories_serve_one_access_at_a_time() -> None:
    """A drive's bytes are written into the socket's memory and read again, whichever way they go."""
    system = small.node(2)

    def tier(t: Tier) -> Tier:
        return t.model_copy(update={"write": small.exactly(t.read, t.read.value / 2)}) if t.role == "host" else t

    system = system.model_copy(update={"tiers": tuple(tier(t) for t in system.tiers)})
    host = next(t for t in system.tiers if t.role == "host")
    each = 1 / host.rate_per_device
    assert tier_channels(system, host.id)[0] == Channel(host.id, pytest.approx(each), pytest.approx(2 * each))
    ssd = {c.id: c for c in tier_channels(system, "ssd")}
    assert ssd["host"].read == pytest.approx(3 * each) and ssd["host"].write == pytest.approx(3 * each)
    drive = system.tier("ssd")
    assert drive.write is not None
    assert ssd["ssd"].write / ssd["ssd"].read == pytest.approx(drive.read.value / drive.write.value)
    assert dict(system.tier_rate("ssd"))["host"] == pytest.approx(1 / (3 * each))


# --- contention groups ----------------------------------------------------------------------------------------------


def test_a_group_is_as_wide_as_its_widest_member() -> None:
    """A card of 400 Gbit/s and PCIe 5 x16 behind one switch: what both move for a device passes 55.4 GB/s each way."""
    system = load_hardware("h100-node").system
    into, out = group_channels(system, "pcie-switch")
    assert (into.shared, 1 / into.read, into.write) == (True, pytest.approx(63e9 * 0.88), 0.0)
    assert (out.read, 1 / out.write) == (0.0, pytest.approx(63e9 * 0.87))
    assert network_shares(system) == {into.id: {"scale-out": into.read}, out.id: {"scale-out": out.write}}
    assert [c.id for c in tier_channels(system, "host")] == ["host", "pcie", "pcie (writes)", into.id, out.id]
    half = system.model_copy(update={"links": tuple(x.model_copy(update={"duplex": "half"}) for x in system.links)})
    (both,) = group_channels(half, "pcie-switch")
    assert network_shares(half) == {both.id: {"scale-out": pytest.approx(into.read + out.write)}}
    alone = system.model_copy(update={"domains": tuple(d.model_copy(update={"group": None}) for d in system.domains)})
    assert group_channels(alone, "pcie-switch") == () and network_shares(alone) == {}


def test_a_path_over_two_links_of_a_group_counts_twice() -> None:
    system = load_hardware("h100-node").system
    links = tuple(x.model_copy(update={"group": "pcie-switch"}) for x in system.links)
    system = system.model_copy(update={"links": links})
    (into, *_) = group_channels(system, "pcie-switch")
    found = {c.id: c for c in tier_channels(system, "ssd")}
    assert found[into.id].read == pytest.approx(2 * into.read)
    assert {c.id: c for c in tier_channels(system, "host")}[into.id].read == pytest.approx(into.read)


# --- the tier problem -----------------------------------------------------------------------------------------------


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def paper(
    memory_gb: float, channels: tuple[Channel, ...], written_gb: float = 0.2, shared: float = 0.0, sent_gb: float = 0.0
) -> TierProblem:
    """Ten equal layers, decode: a layer's cache is 0.5 GB, of which a pass reads 0.2 GB and writes ``written_gb``; its weights of
    1 GB may not leave the device. Device memory moves 1000 GB/s. With ``sent_gb`` two devices reduce so much a layer over a
    network of 20 GB/s, whose bytes take ``shared`` seconds a GB of the channel ``switch``."""
    cache = CacheItem("kv", True, Span(), Span(), GB // 2, 0, 1)
    block = BlockPieces("b", "mlp", (), (), StaticItem(((1, GB, GB),)), None, (), (cache,))
    # 1 GB of payload over two devices: each sends half of it in either half of an all-reduce
    pieces = ModelPieces("paper", 1000, 10, (Window("layers", 0, 10, (block,)),), (), 1, 1, (), (), "bf16")
    tokens, network = sent_gb * GB / 2000.0, sent_gb / 20.0
    read, written = 0.2 * GB, written_gb * GB
    part = BlockTimes(
        "b", "mlp", one(0), one(0), one((GB + read + written) / 1e12), one(network), one(GB), one(0), one(0), one(0),
        one(read), one(written), routed_parts=(one(1),),
    )  # fmt: skip
    load = Load("decode", one(tokens), one(1), 1.0, one(1), one(0), one(1), 0.0, 0)
    passes = {"decode": PassTimes([[part]], [[10.0]], one(0), one(0), ["layers"], [load])}
    host = TierRate("host", "ddr", "host", 100.0 * GB, channels, 0.0, 1)
    rates = replace(
        resolve_rates(small.node(1), small.runtime()),
        memory_bytes=memory_gb * GB,
        memory_bytes_per_s=1000.0 * GB,
        tiers=(host,),
        levels=(Level("net", float("inf"), 20.0 * GB, 20.0 * GB, 20.0 * GB, 0.0),),
        contended={"switch": {"net": shared / GB}} if shared else {},
    )
    shapes = Shapes.single(2 if sent_gb else 1, 1, 1, 1)
    banned = frozenset({("weights", "host")})
    return build_tier_problem(pieces, shapes, rates, passes, {"decode": 1.0}, 1.0, 1, 1, 0.0, ("host",), None, banned)


def link(read_gb_s: float, write_gb_s: float, corner: tuple[float, float] | None) -> tuple[Channel, ...]:
    scaled = None if corner is None else (corner[0] * GB, corner[1] * GB)
    return directions("link", read_gb_s * GB, write_gb_s * GB, scaled)


def layer_ms(problem: TierProblem) -> tuple[float, str]:
    """Milliseconds of a layer at the optimum, which the tableau agrees with, and what sets it."""
    solution = solve_tiers(problem)
    assert solution is not None
    other = small.simplex(problem.program)
    assert other is not None and float(problem.program.cost @ solution.point.values) == pytest.approx(other[0], rel=1e-9)
    times = evaluate_shares(problem, solution.point.values[: len(problem.choices)])
    return times.phase_s["decode"] * 100.0, times.binding[(0, 0, "decode")]


# 13 GB hold all but 2 of the 15 GB; a share c of the cache in host memory frees 5 c GB and takes c GB of buffers: c = 1/2. A
# layer then reads 0.1 GB over the link and writes 0.1 GB (with 0.2 written in all).


@pytest.mark.parametrize(
    ("corner", "write_gb_s", "expected", "binds"),
    [
        ((50.0, 40.0), 40.0, 2.5, "link (writes)"),  # 2 ms to read, 2.5 to write
        (None, 40.0, 4.5, "link"),  # one after the other
        ((30.0, 30.0), 40.0, 1 / 0.3, "link"),  # 0.1 GB each way at 30 GB/s
        ((50.0, 50.0), 50.0, 2.0, "link"),
    ],
)
def test_a_layer_that_reads_and_writes_its_cache_in_host_memory(
    corner: tuple[float, float] | None, write_gb_s: float, expected: float, binds: str
) -> None:
    time, binding = layer_ms(paper(13.0, link(50.0, write_gb_s, corner)))
    assert time == pytest.approx(expected, rel=1e-9)
    assert binding.startswith(binds)


def test_a_memory_behind_a_full_duplex_link_serves_both() -> None:
    """80 GB/s of the memory's 100: reads 1 ms and writes 2 ms of it, 3 together; the link takes 2 either way."""
    memory = Channel("host", 1 / (100.0 * GB), 1 / (50.0 * GB))
    assert layer_ms(paper(13.0, (memory, *link(50.0, 50.0, (50.0, 50.0)))))[0] == pytest.approx(3.0, rel=1e-9)


def test_nothing_written_costs_nothing() -> None:
    full, half = (layer_ms(paper(13.0, link(50.0, 40.0, corner), 0.0)) for corner in ((50.0, 40.0), None))
    assert full == half and full[0] == pytest.approx(2.0, rel=1e-9)


@pytest.mark.parametrize(("sent_gb", "expected"), [(0.0, 2.0), (0.025, 2.5), (0.05, 3.7), (1.0, 51.2)])
def test_a_network_of_the_group_takes_of_its_time(sent_gb: float, expected: float) -> None:
    """Reads of 0.1 GB take 2 ms of a switch of 50 GB/s, and what the layer's all-reduce sends as much again a GB: 0.025 GB 0.5 ms
    of it. The network itself has 20 GB/s: 1.25 ms, then 2.5 and 50 beside 1.2 of memory, which the streams hide behind."""
    channels = (*link(50.0, 50.0, (50.0, 50.0)), Channel("switch", 1 / (50.0 * GB), 0.0, True))
    problem = paper(13.0, channels, 0.0, shared=1 / 50.0, sent_gb=sent_gb)
    time, binding = layer_ms(problem)
    assert time == pytest.approx(expected, rel=1e-9)
    assert binding == {0.0: "link", 0.025: "switch"}.get(sent_gb, "base")


# --- whole problems -------------------------------------------------------------------------------------------------

SLOW = {"bandwidth": 1e9, "efficiency": 0.8}
LINKS: dict[str, dict[str, Any]] = {
    "full": {**SLOW, "duplex": "full"},
    "reverse": {**SLOW, "duplex": "full", "reverse_efficiency": 0.02},
    "half": {**SLOW, "duplex": "half", "reverse_efficiency": 0.05},
    "both": {**SLOW, "duplex": "full", "both_ways": 0.45e9},
}
MODELS = {"llama": small.llama(layers=8, hidden=256, inner=512, vocabulary=512), "experts": small.experts(layers=4)}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(10))
def test_bounds_hold_and_solvers_agree(kind: str, model: str, seed: int) -> None:
    """Random configurations, 800 in all: GLOP's optimum is the tableau's, and no phase takes less than what overflows must."""
    rng, checked, load = np.random.default_rng(seed), 0, small.workload(512, 64)
    while checked < 10:
        memory = float(rng.choice([25e6, 15e6, 10e6, 7e6]))
        system = system_of(**LINKS[kind])
        own, *below = system.tiers
        assert own.role == "device"
        tiers = (own.model_copy(update={"usable": small.exactly(own.usable, memory)}), *below)
        pool = build_context(small.instance(MODELS[model], system.model_copy(update={"tiers": tiers}), load=load)).pools["mixed"]
        phase = str(rng.choice(["mixed", "decode", "prefill"]))
        batch = 0 if phase == "prefill" else int(rng.integers(1, 6))
        chunk = 0 if phase == "decode" else int(rng.choice([64, 512]))
        tp, dp = [(1, 1), (2, 1), (1, 2)][int(rng.integers(3))]
        decision = PoolDecision(phase, 1, tp, dp, dp, 1, batch, chunk, basis="needed")
        if memory_need(pool, decision.row()).short[0] <= 0:
            continue
        problem, passes = pool_problem(pool, decision)
        solution, other = solve_tiers(problem), small.simplex(problem.program)
        assert (solution is None) == (other is None)
        if solution is None or other is None:
            continue
        assert float(problem.program.cost @ solution.point.values) == pytest.approx(other[0], rel=1e-8)
        times = evaluate_shares(problem, solution.point.values[: len(problem.choices)])
        for bounded, least in overflow_seconds(pool, decision.row(), passes).items():
            assert times.phase_s[bounded] * pool.rates.residual >= float(least[0]) * (1 - 1e-9)
        checked += 1


@pytest.mark.parametrize("kind", ["half", "reverse"])
def test_plans_agree_with_brute_force(kind: str) -> None:
    """Where writes collide with reads, every plan is as good as the best of all configurations, and its proof holds."""
    base = small.node(2, 1, 6e6)
    links = tuple(link_with(x, **LINKS[kind]) if x.id == "pcie" else x for x in base.links)
    system = base.model_copy(update={"links": links})
    load = small.workload(64, 32)
    assert compare(small.instance(MODELS["llama"], system, 1, load, small.runtime(batches=3, chunks=(64,))))


def test_a_half_duplex_link_slows_a_plan_and_is_verified() -> None:
    def planned(duplex: str) -> Any:
        base = small.node(1, 1, 6e6)
        changes = {**SLOW, "duplex": duplex, "reverse_efficiency": 0.01}
        links = tuple(link_with(x, **changes) if x.id == "pcie" else x for x in base.links)
        return solve(small.instance(MODELS["llama"], base.model_copy(update={"links": links}), objective="latency"))

    full, half = planned("full"), planned("half")
    assert half.certificate.objective > full.certificate.objective
    for plan in (full, half):
        assert verify_plan(plan, full=True)[0] == []


# --- law 1 ----------------------------------------------------------------------------------------------------------


def figures(system: System) -> list[tuple[str, int, str]]:
    """Every rate of memories, links and networks."""
    found = []
    for part, keys in (
        ("tiers", ("read", "write", "efficiency")),
        ("links", ("bandwidth", "efficiency", "reverse_efficiency", "both_ways")),
        ("domains", ("bandwidth", "allreduce_efficiency", "alltoall_efficiency", "p2p_efficiency")),
    ):
        for number, one_part in enumerate(getattr(system, part)):
            found += [(part, number, key) for key in keys if isinstance(getattr(one_part, key), Figure)]
    return found


def richer(system: System, part: str, number: int, key: str, factor: float) -> System:
    parts: list[Tier | Link | Domain] = list(getattr(system, part))
    figure = getattr(parts[number], key)
    parts[number] = parts[number].model_copy(update={key: small.moved(figure, factor)})
    return system.model_copy(update={part: tuple(parts)})


def grouped_node(duplex: str, both_ways: float | None, reverse: float) -> System:
    """Nodes of one device over a network that shares the PCIe link's group."""
    base = small.node(1, 1, 8e6)
    changes: dict[str, Any] = {"bandwidth": 20e9, "duplex": duplex, "reverse_efficiency": reverse}
    if both_ways is not None:
        changes["both_ways"] = both_ways
    links = tuple(link_with(x, **changes) if x.id == "pcie" else x for x in base.links)
    return base.model_copy(update={"links": links})


@given(data=st.data())
@settings(max_examples=80)
def test_law_1_no_rate_of_a_link_or_group_hurts(data: st.DataObject) -> None:
    duplex = data.draw(st.sampled_from(["full", "half"]))
    both = data.draw(st.sampled_from([None, 2e9, 7e9, 9.5e9]))
    system = grouped_node(duplex, both, data.draw(st.sampled_from([0.01, 0.2, 0.9])))
    model = data.draw(st.sampled_from(sorted(MODELS)))
    inputs: Inputs = small.instance(MODELS[model], system, 2)
    shape = data.draw(st.sampled_from([(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (1, 1, 1, 2)]))
    phase, batch, chunk = data.draw(st.sampled_from([("mixed", 2, 64), ("decode", 4, 0), ("prefill", 0, 256)]))
    decision = PoolDecision(phase, 1, *shape, batch, chunk)
    more = richer(system, *data.draw(st.sampled_from(figures(system))), data.draw(st.sampled_from([1.0001, 1.3, 4.0])))
    poor = placement_optimum(inputs, decision)
    rich = placement_optimum(with_system(inputs, more), decision)
    assert rich <= poor * (1 + 1e-9)


# --- startup of the device memory -----------------------------------------------------------------------------------


def test_no_block_takes_less_than_a_stream_of_the_device_memory_starts_in() -> None:
    """A layer floor was fitted to whole steps and holds startups, so the larger of the two counts."""
    inputs = small.instance(MODELS["llama"], small.node(1))
    pool = build_context(inputs).pools["mixed"]
    own = next(t for t in pool.system.tiers if t.role == "device")
    assert own.startup is not None and pool.rates.memory_startup_s == own.startup.value
    for startup in (0.0, 3e-6, 1e-3):
        changed = replace(pool, rates=replace(pool.rates, memory_startup_s=startup))
        _, passes = pool_problem(changed, PoolDecision("decode", 1, 1, 1, 1, 1, 1, 0))
        for blocks in passes["decode"].windows:
            for block in blocks:
                assert block.floor[0] == max(pool.rates.floors.get(block.kind, 0.0), startup)
