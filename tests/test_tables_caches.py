"""Caches apart, tables by use and fetched ahead, shared copies: bytes that add up, cases on paper, bounds, brute force."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import small
from test_search import compare

from planner.api import resolve, verify
from planner.architecture import Model, Popularity, Span, list_models, load_model, measured, zipf
from planner.architecture.importer import model_from_config
from planner.errors import InputError
from planner.footprint import ModelPieces, Shapes, cut
from planner.footprint.memory import cache_bytes_per_sequence
from planner.footprint.pieces import BlockPieces, CacheItem, LookupItem, StaticItem, Window, cache_parts
from planner.performance import BlockTimes, PassTimes, TierRate, resolve_rates
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.context import build_context
from planner.plans.decision import PoolDecision
from planner.plans.evaluate import decode_pass, memory_need, overflow_seconds, prefill_pass
from planner.plans.states import pool_problem
from planner.plans.table_use import EDGES, classes_of
from planner.plans.tiers import TierProblem, build_tier_problem, evaluate_shares
from planner.plans.window_items import Item, table_sizes
from planner.runtimes import load_runtime
from planner.search import solve
from planner.search.tier_lp import solve_tiers
from planner.workload import Lengths, load_workload

GB = 10**9
LATENT = {
    "vocab_size": 1024, "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "num_attention_heads": 4, "q_lora_rank": 128,
    "kv_lora_rank": 64, "qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "v_head_dim": 32, "first_k_dense_replace": 1,
    "moe_intermediate_size": 256, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
}  # fmt: skip


@cache
def sparse() -> Model:
    """Latent attention that reads 16 entries an indexer chooses."""
    config = LATENT | {
        "model_type": "deepseek_v32", "hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 512, "n_group": 1,
        "topk_group": 1, "topk_method": "noaux_tc", "moe_layer_freq": 1, "index_n_heads": 2, "index_head_dim": 32,
        "index_topk": 16,
    }  # fmt: skip
    return model_from_config(config, "small", "small-sparse")


@cache
def tables() -> Model:
    """Tables of 4 x 20000 rows in layers 1 and 3, as large as the rest."""
    config = LATENT | {
        "model_type": "engram", "hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 512, "engram_layers": [2, 4],
        "engram_vocab_size": 20_000, "engram_dim": 256, "engram_heads": 2, "engram_ngrams": [2, 3],
    }  # fmt: skip
    return model_from_config(config, "small", "small-tables")


MODELS = {"sparse": sparse, "tables": tables}


def inputs_of(name: str, memory: float, use: Popularity | None = None, **options: Any) -> Inputs:
    load = small.workload(isl=512, osl=64).model_copy(update={"lookups": use or Popularity(kind="uniform")})
    software = small.runtime(4, (64, 256))
    return small.instance(MODELS[name](), small.node(2, 1, memory, host_bytes_per_s=5e9), 1, load, software, **options)


@cache
def long_context() -> Plan:
    """DeepSeek-V3.2 at 64k tokens on two nodes: its caches lie in two memories."""
    load = load_workload("interactive").model_copy(
        update={
            "input_tokens": Lengths(mean=65536),
            "output_tokens": Lengths(mean=1024),
            "ttft_s": None,
            "tpot_s": None,
        }
    )
    return solve(resolve("deepseek-v3.2", "h800-node:2", workload=load))


def below(plan: Plan) -> set[str]:
    return {row.item.split(": ", 1)[1] for pool in plan.pools for row in pool.placement if row.tier != pool.memory["tier"]}


# --- caches apart -------------------------------------------------------------------------------------------------


def test_every_cache_of_the_catalogue_lies_somewhere() -> None:
    """Also caches that their own block does not read, as those of an encoder's source layers."""
    layouts = load_runtime("generic").kv_layouts["bf16"]
    for entry in list_models():
        model = load_model(entry.id)
        found = []
        for window in cut(model, {}, layouts).windows:
            for at, place in (member for members in cache_parts(window).values() for member in members):
                found.append((window.blocks[at].id, window.blocks[at].caches[place].name))
        own = [(b.id, c.name) for b in model.blocks if not b.draft for c in b.caches if c.grows or c.fixed_bytes]
        assert sorted(found) == sorted(own), entry.id
    flash = load_model("deepseek-v4.1-flash")
    pieces = cut(flash, {}, layouts)
    every = [(window, cache) for window in pieces.windows for block in window.blocks for cache in block.caches]
    held = sum(window.layers * cache_bytes_per_sequence(cache, 8192, 64) for window, cache in every)
    assert held == flash.cache_bytes(8192, pieces.kv_layout, page_tokens=64)


def test_parts_are_named_by_what_they_hold() -> None:
    def names(model: str) -> list[set[str]]:
        pieces = cut(load_model(model), {}, ("bf16",))
        return [set(cache_parts(window)) for window in pieces.windows if cache_parts(window)]

    assert names("deepseek-v3") == [{"KV cache"}] * 2
    assert names("gpt-oss-120b") == [{"KV cache"}] * 2
    assert names("deepseek-v3.2") == [{"KV cache: latent", "KV cache: index"}] * 2
    assert names("qwen3.5-397b-a17b") == [{"KV cache"}] * 2  # recurrent and convolution state are read alike
    sliding = names("deepseek-v4-pro")[-1]
    assert sliding == {"KV cache: window", "KV cache: compressed", "KV cache: index", "KV cache: compressor_state"}


def test_parts_add_up_to_the_whole() -> None:
    """Bytes held to the residency, bytes moved to the cache traffic of the pass; only a choice moves less than the whole."""
    for name in ("deepseek-v3.2", "deepseek-v4-pro", "deepseek-v4.1-flash"):
        pool = build_context(resolve(name, "gb200-nvl72")).pools["mixed"]
        decision = PoolDecision("mixed", 1, 1, 8, 8, 1, 16, 4096, basis="needed")
        problem, passes = pool_problem(pool, decision)
        row = decision.row()
        caches = [item for item in problem.items if item.kind == "cache"]
        layers = [*problem.stages[0]]
        assert sum(item.held * layers[item.window] for item in caches) == pytest.approx(memory_need(pool, row).caches[0])
        for phase, times in passes.items():
            for window, blocks in enumerate(times.windows):
                moved = sum(item.moved("fetch", 1, phase, window) for item in caches if window in item.windows)
                assert moved == pytest.approx(sum(float(b.cache_read[0] + b.cache_write[0]) for b in blocks))
            for item in caches:
                for window in item.windows:
                    chosen, whole = (item.moved(mode, 1, phase, window) for mode in ("fetch", "stream"))
                    assert chosen <= whole
                    if "fetch" in item.modes:
                        assert item.exposed("fetch", phase, window) == (chosen < whole)


def test_who_reads_a_cache_of_another_window_moves_it() -> None:
    """The layers that reuse a source layer's entries draw on the memory where that lies."""
    pool = build_context(resolve("deepseek-v4.1-flash", "h100-node")).pools["mixed"]
    problem, _ = pool_problem(pool, PoolDecision("mixed", 1, 1, 8, 8, 1, 16, 4096, basis="needed"))
    windows = [window.name for window in pool.pieces.windows]
    source = next(i for i in problem.items if i.name == "KV cache: compressed" and windows[i.window] == "encoder2_source")
    assert {windows[number] for number in source.windows} == {"encoder2_source", "encoder2_reuse"}
    reuse = windows.index("encoder2_reuse")
    column = next(
        n for n, c in enumerate(problem.choices) if problem.items[c.item] is source and (c.tier, c.mode) == ("host", "fetch")
    )
    for kind in ("base", "pcie"):
        name = next(row for row in problem.program.rows if row.startswith(f"time 0/{reuse}/decode/{kind}"))
        assert problem.program.matrix[problem.program.rows.index(name), column] > 0.0


def test_a_prefill_pass_reads_the_union_of_what_its_tokens_choose() -> None:
    """Many tokens choose all there is; then nothing must be chosen first."""
    pool = build_context(resolve("deepseek-v3.2", "h800-node:2")).pools["mixed"]
    problem, _ = pool_problem(pool, PoolDecision("mixed", 1, 1, 8, 8, 1, 16, 4096, basis="needed"))
    latent = next(item for item in problem.items if item.name == "KV cache: latent")
    assert latent.moved("fetch", 1, "prefill") == latent.moved("stream", 1, "prefill")
    assert not latent.exposed("fetch", "prefill", latent.window)


def test_the_index_stays_and_the_latents_lie_below() -> None:
    plan = long_context()
    moved = {(r.item, r.tier): r.share for r in plan.pools[0].placement}
    assert moved[("layers 3-60: KV cache: latent", "host")] > 0.9
    assert moved[("layers 3-60: KV cache: index", "hbm")] > 0.9
    assert verify(plan, full=True)[0] == []


@pytest.mark.parametrize(
    ("rule", "gone"),
    [("KV cache@host,ssd", {"KV cache: latent", "KV cache: index"}), ("KV cache: latent@host,ssd", {"KV cache: latent"})],
)
def test_pins_hold_for_all_parts_or_for_one(rule: str, gone: set[str]) -> None:
    from planner.plans.constraints import parse_constraints

    inputs = inputs_of("sparse", 7e6)
    assert "KV cache: latent" in below(solve(inputs))
    banned = inputs.model_copy(
        update={"options": inputs.options.model_copy(update={"constraints": parse_constraints((), (rule,))})}
    )
    assert not gone & below(solve(banned))


def test_an_unknown_part_is_named() -> None:
    from planner.plans.constraints import parse_constraints

    with pytest.raises(InputError, match="no item 'KV cache: sliding'.*KV cache: index"):
        solve(inputs_of("sparse", 7e6, constraints=parse_constraints(("KV cache: sliding@hbm",), ())))


# --- tables by use ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use", [zipf(0.5), zipf(1.0), zipf(2.0), measured([9, 4, 1]), Popularity(kind="uniform")])
@pytest.mark.parametrize("rows", [3, 10, 999, 10_000, 2_262_400])
def test_classes_are_shares_of_rows_and_reads(use: Popularity, rows: int) -> None:
    classes = classes_of(use, rows)
    assert len(classes) == len(EDGES)
    assert [sum(part) for part in zip(*classes, strict=True)] == pytest.approx([1.0, 1.0], abs=1e-12)
    density = [reads / held for held, reads in classes if held]
    assert all(a >= b * (1 - 1e-9) for a, b in zip(density, density[1:], strict=False))
    table = LookupItem(rows * 7 + 1, 7.0, 1.0, 8, classes=classes)
    assert sum(table_sizes(table)) == table.bytes and min(table_sizes(table)) >= 0


def test_more_counts_than_rows_are_refused() -> None:
    load = small.workload().model_copy(update={"lookups": measured(range(1, 1030))})
    with pytest.raises(InputError, match="1029 counts"):
        build_context(small.instance(tables(), small.node(2), 1, load))


def test_use_changes_where_rows_lie_and_never_their_bytes() -> None:
    plans = {use: solve(inputs_of("tables", 9e6, use)) for use in (Popularity(kind="uniform"), zipf(1.0))}
    for use, plan in plans.items():
        assert verify_plan(plan, full=True)[0] == []
        held: dict[str, float] = {}
        for row in plan.pools[0].placement:
            if "Engram" in row.item:
                held[row.item] = held.get(row.item, 0.0) + row.share
        assert held and all(share == pytest.approx(1.0) for share in held.values())
        sizes = {row.item: row.item_bytes for row in plan.pools[0].placement if "Engram" in row.item}
        assert sum(sizes.values()) == 2 * 80_000 * 64 * 2, use
    assert plans[zipf(1.0)].certificate.objective <= plans[Popularity(kind="uniform")].certificate.objective * (1 + 1e-9)


def test_popular_rows_lie_nearest() -> None:
    """Where only a slow disk is below, of every table the more popular class has the larger share in device memory."""
    inputs = resolve(
        "engram-dense-4b-100b",
        "h100-node",
        workload=load_workload("interactive").model_copy(update={"lookups": zipf(1.0)}),
        tiers=("hbm", "ssd"),
    )
    plan = solve(inputs)
    here: dict[int, float] = dict.fromkeys(range(1, 6), 0.0)
    for row in plan.pools[0].placement:
        if "Engram table" in row.item and row.tier == "hbm":
            here[int(row.item.split("class ")[1][0])] += row.share
    assert list(here.values()) == sorted(here.values(), reverse=True) and here[1] == 1.0 and here[5] < 1.0
    even = solve(inputs.model_copy(update={"workload": load_workload("interactive")}))
    assert plan.certificate.objective < even.certificate.objective * 0.95


# --- one copy where devices share a memory ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tp", "dp", "sharing", "copies"),
    [(1, 8, 4, 2), (2, 4, 4, 2), (4, 2, 4, 2), (8, 1, 4, 1), (1, 1, 4, 1), (1, 2, 4, 1), (2, 6, 8, 3), (1, 16, 8, 2)],
)
def test_a_copy_for_each_memory_that_is_shared(tp: int, dp: int, sharing: int, copies: int) -> None:
    """Bytes over all devices of the stage are so many whole tables (one spread over two memories counts once)."""
    item = Item(0, "Engram table", "lookup", 1000.0 / tp, {}, {}, copy_ways=tp, width=tp * dp)
    host = TierRate("host", "ddr", "host", 1.0, small.channels(host=1.0), 0.0, 1, sharing)
    assert item.held_in(host) * tp * dp == pytest.approx(1000.0 * copies)
    assert item.held_in(None) == item.held


def test_placement_counts_the_copies() -> None:
    plan = solve(inputs_of("tables", 7e6))
    pool = plan.pools[0]
    rows = [row for row in pool.placement if "Engram" in row.item and row.tier == "host"]
    assert rows
    for row in rows:  # two devices share the host memory, whatever the shape of the instances
        width = pool.configuration.tp * pool.configuration.attention_dp
        assert row.copies == pool.replicas * (1 if width <= 2 else width / 2)
        assert row.bytes == round(row.item_bytes * row.share * row.copies)


# --- fetched ahead, on paper --------------------------------------------------------------------------------------


def one(value: float) -> np.ndarray:
    return np.array([float(value)])


def paper(phase: str, read_ms: float, latency_ms: float = 0.0, weights_ms: float = 0.0) -> TierProblem:
    """Three layers of 1 ms, then a block of 0.5 ms with a table that lies in host memory and takes ``read_ms`` to fetch, then
    two layers of 1 ms; ``weights_ms``: of the host link for streaming the first layers' weights, which lie there too."""

    def times(ms: float, table: float = 0.0, static: float = 0.0) -> BlockTimes:
        values = (0.0, ms / 1e3, 0.0, 0.0, static, 0.0, 0.0, table, 0.0, 0.0)
        return BlockTimes("b", "mlp", *(one(v) for v in values))

    weights = int(weights_ms * GB / 1e3)
    static = StaticItem(((1, weights, weights),) if weights else ())
    table = LookupItem(100 * GB, 1.0, 1.0, 1, "Engram table", True)

    def block(held: StaticItem, *lookups: LookupItem) -> BlockPieces:
        return BlockPieces("b", "mlp", (), (), held, None, lookups, ())

    plain = StaticItem(())
    windows = (
        Window("first", 0, 3, (block(static),)),
        Window("engram", 3, 1, (block(plain, table),)),
        Window("last", 3, 2, (block(plain),)),
    )
    pieces = ModelPieces("paper", 1, 5, windows, (), 1, 1, (), (), "bf16")
    parts = [[times(1.0, static=weights)], [times(0.5, table=read_ms * GB / 1e3)], [times(1.0)]]
    passes = {phase: PassTimes(parts, [[3.0, 1.0, 2.0]], one(0.001), one(0))}
    host = TierRate("host", "ddr", "host", 1000.0 * GB, small.channels(host=2.0 * GB, link=1.0 * GB), latency_ms / 1e3, 1)
    rates = replace(
        resolve_rates(small.node(1), small.runtime()),
        memory_bytes=0.4 * GB,
        memory_bytes_per_s=1e6 * GB,
        tiers=(host,),
    )
    banned = frozenset({("Engram table", rates.memory_id), ("weights", rates.memory_id)})
    return build_tier_problem(
        pieces, Shapes.single(1, 1, 1, 1), rates, passes, {phase: 1.0}, 1.0, 1, 1, 0.0, ("host",), None, banned
    )


def milliseconds(problem: TierProblem) -> float:
    solution = solve_tiers(problem)
    assert solution is not None
    found = evaluate_shares(problem, solution.point.values[: len(problem.choices)])
    seconds = float(sum(found.phase_s.values()))
    assert seconds * 1e3 == pytest.approx(float(solution.point.values[-1]), rel=1e-9)
    return seconds * 1e3


@pytest.mark.parametrize(
    ("read_ms", "latency_ms", "expected"),
    [(2.0, 0.5, 6.5), (3.0, 0.0, 6.5), (3.0, 0.5, 7.0), (9.0, 0.0, 12.5), (0.0, 4.0, 7.5)],
)
def test_a_step_hides_what_the_layers_before_the_table_hide(read_ms: float, latency_ms: float, expected: float) -> None:
    """1 ms for the step, 5 layers of 1 ms and 0.5 ms; the layers before give 3 ms, what takes longer is waited for."""
    assert milliseconds(paper("decode", read_ms, latency_ms)) == pytest.approx(expected, rel=1e-9)


def test_streams_of_the_layers_before_take_from_that_time() -> None:
    """Their weights take 0.1 ms of the link in each of them, so that 2.7 ms are left for rows."""
    assert milliseconds(paper("decode", 1.0, weights_ms=0.1)) == pytest.approx(6.5, rel=1e-9)
    assert milliseconds(paper("decode", 3.0, weights_ms=0.1)) == pytest.approx(6.5 + 0.3, rel=1e-9)


@pytest.mark.parametrize(("read_ms", "expected"), [(2.0, 6.5), (6.5, 6.5), (9.0, 9.0)])
def test_a_prefill_pass_hides_all_that_its_whole_time_carries(read_ms: float, expected: float) -> None:
    assert milliseconds(paper("prefill", read_ms, 0.5)) == pytest.approx(expected, rel=1e-9)


# --- bounds and brute force ---------------------------------------------------------------------------------------


def test_no_placement_undercuts_the_bound() -> None:
    """Over random configurations, memories and uses the best placement of either phase takes no less; some bounds are close."""
    random = np.random.default_rng(5)
    closest, count = 0.0, 0
    while count < 520:
        name = str(random.choice(["sparse", "tables"]))
        use = [Popularity(kind="uniform"), zipf(1.0)][int(random.integers(2))]
        load = small.workload(isl=float(random.integers(64, 2000)), osl=64.0).model_copy(update={"lookups": use})
        system = small.node(
            4, 1, float(random.uniform(3e6, 12e6)), float(random.uniform(4e6, 4e7)), float(10 ** random.uniform(8, 10.5))
        )
        pool = build_context(small.instance(MODELS[name](), system, 1, load, small.runtime(8, (64, 256)))).pools["mixed"]
        for _ in range(20):
            tp, dp, pp = [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 4, 1), (2, 1, 2), (1, 1, 4)][int(random.integers(6))]
            phase = str(random.choice(["decode", "prefill"]))
            batch, chunk = (int(random.integers(1, 9)), 0) if phase == "decode" else (0, 256)
            decision = PoolDecision(phase, 1, tp, dp, dp, pp, batch, chunk, basis="needed")
            row = decision.row()
            times = decode_pass(pool, row.shapes, row.batch) if phase == "decode" else prefill_pass(pool, row.shapes, row.chunk)
            least = float(overflow_seconds(pool, row, {phase: times})[phase][0])
            problem, _ = pool_problem(pool, decision)
            solution = solve_tiers(problem)
            if solution is None or memory_need(pool, row).short[0] <= 0.0:
                continue
            count += 1
            found = evaluate_shares(problem, solution.point.values[: len(problem.choices)])
            seconds = found.phase_s[phase] * pool.rates.residual
            assert least <= seconds, (name, decision, least, seconds)
            closest = max(closest, least / seconds)
    assert closest > 0.8  # so the test fails if bounds are a quarter too high


@pytest.mark.parametrize(
    ("model", "memory", "ttft_s"),
    [("sparse", 8e6, None), ("sparse", 8e6, 0.004), ("sparse", 6.5e6, None), ("tables", 9e6, None), ("tables", 7e6, 0.004)],
)
def test_the_search_equals_brute_force(model: str, memory: float, ttft_s: float | None) -> None:
    """Every configuration and placement of one node, by another algorithm."""
    inputs = inputs_of(model, memory, zipf(1.0))
    load = inputs.workload.model_copy(update={"ttft_s": ttft_s})
    compare(inputs.model_copy(update={"workload": load, "runtime": small.runtime(2, (64, 256))}))


@pytest.mark.parametrize("model", ["sparse", "tables"])
def test_more_room_or_a_faster_way_is_never_worse(model: str) -> None:
    values = []
    for memory, host in [(6.5e6, 5e9), (6.5e6, 2e10), (7e6, 2e10), (9e6, 5e10)]:
        system, software = small.node(2, 1, memory, host_bytes_per_s=host), small.runtime(4, (64, 256))
        values.append(solve(small.instance(MODELS[model](), system, 1, small.workload(isl=512), software, gap=0.0)))
    objectives = [plan.certificate.objective for plan in values]
    assert all(b <= a * (1 + 1e-9) for a, b in zip(objectives, objectives[1:], strict=False))


def test_verification_refuses_a_changed_placement() -> None:
    """Every number of every placement row, changed by a thousandth (or by one)."""
    plan = long_context()
    data = plan.model_dump(mode="json", by_alias=True)
    rows = data["pools"][0]["placement"]
    changed = 0
    for index, row in enumerate(rows):
        if "KV cache" not in row["item"] and "table" not in row["item"]:
            continue
        for key, value in row.items():
            if not isinstance(value, int | float):
                continue
            other = value + 1 if isinstance(value, int) else value * 0.999
            bad = small.changed(data, ("pools", 0, "placement", index, key), other)
            assert verify_plan(Plan.model_validate(bad))[0], (row["item"], key)
            changed += 1
    assert changed >= 20


def test_a_cache_alone_is_what_it_was() -> None:
    """One item that is read as it was: no choice, no reader elsewhere."""
    item = CacheItem("kv", True, Span(), Span(), 10, 0, 1)
    assert not item.chosen and item.whole_span is item.read_span
    assert CacheItem("latent", True, Span(), Span(cap=16), 10, 0, 1).chosen
    assert not CacheItem("state", True, Span(cap=0), Span(cap=0), 0, 10, 1).chosen
