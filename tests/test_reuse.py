"""Hit rates of prefix caches: against caches that are simulated one by one, and models against what they are a model of.

Stack distances: Mattson, Gecsei, Slutz and Traiger, IBM Systems Journal 1970. Che's approximation: Che, Tung and Wang, JSAC 2002.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.architecture.popularity import Popularity
from planner.errors import InputError
from planner.workload.fit import curve_of, fit_requests
from planner.workload.hit_models import Sessions, che_hit_rate, document_curve, zipf_groups
from planner.workload.lengths import Arrivals, Counts
from planner.workload.reuse import CAPACITIES, KEPT_S, Follower, Reuse
from planner.workload.stack import NEVER, Stack, count_below
from planner.workload.traces import Requests

BLOCK = 4
Trace = list[tuple[float, int, list[int]]]
"""Arrival, input tokens, blocks."""


def requests(rows: Trace) -> Requests:
    starts = np.cumsum([0, *(len(blocks) for _, _, blocks in rows)])
    return Requests(
        np.array([at for at, _, _ in rows], dtype=float),
        np.array([tokens for _, tokens, _ in rows], dtype=np.int64),
        np.ones(len(rows), dtype=np.int64),
        np.array([block for _, _, blocks in rows for block in blocks], dtype=np.int64),
        starts.astype(np.int64),
    )


def follow(rows: Trace, *, cuts: Iterable[int] = (), piece: int = 2**18, most_live: int = 2**19) -> Reuse:
    follower = Follower(BLOCK, piece=piece, most_live=most_live)
    edges = [0, *sorted(set(cuts)), len(rows)]
    for low, high in zip(edges, edges[1:], strict=False):
        if rows[low:high]:
            follower.add(requests(rows[low:high]))
    return follower.result()


def simulated_prefix(rows: Trace, capacity: int) -> int:
    """Input tokens found by an LRU cache of so many blocks that hits whole prefixes; the end of a request leaves first."""
    cache: OrderedDict[int, None] = OrderedDict()
    found = 0
    for _, tokens, blocks in rows:
        for place, block in enumerate(blocks):
            if block not in cache:
                break
            found += min(BLOCK, tokens - place * BLOCK)
        for block in reversed(blocks):
            cache[block] = None
            cache.move_to_end(block)
            if len(cache) > capacity:
                cache.popitem(last=False)
    return found


def simulated_blocks(rows: Trace, capacity: int) -> int:
    """Blocks found by an LRU cache that takes each for itself."""
    cache: OrderedDict[int, None] = OrderedDict()
    found = 0
    for block in (block for _, _, blocks in rows for block in blocks):
        found += block in cache
        cache[block] = None
        cache.move_to_end(block)
        if len(cache) > capacity:
            cache.popitem(last=False)
    return found


def simulated_kept(rows: Trace, seconds: float) -> tuple[int, float]:
    """Tokens found when a block is kept so long after its last use, and blocks times seconds in the cache."""
    used: dict[int, float] = {}
    found, held = 0, 0.0
    for at, tokens, blocks in rows:
        for place, block in enumerate(blocks):
            if block not in used or at - used[block] > seconds:
                break
            found += min(BLOCK, tokens - place * BLOCK)
        for block in blocks:
            held += min(at - used[block], seconds) if block in used else 0.0
            used[block] = at
    return found, held + sum(min(rows[-1][0] - last, seconds) for last in used.values())


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Sessions that grow and come back, and requests whose hashes are no prefixes and repeat."""
    rows: Trace = []
    at = 0.0
    grown: list[list[int]] = []
    fresh = 100
    for _ in range(draw(st.integers(1, 30))):
        at += draw(st.sampled_from([0.0, 0.4, 1.0, 1.6, 7.0, 40.0]))
        if draw(st.booleans()):
            old = draw(st.sampled_from(grown)) if grown and draw(st.booleans()) else []
            more = draw(st.integers(0 if old else 1, 6))
            blocks = [*old, *range(fresh, fresh + more)]
            fresh += more
            grown.append(blocks)
        else:
            blocks = draw(st.lists(st.integers(-3, 9), min_size=1, max_size=8))
        rows.append((at, len(blocks) * BLOCK - draw(st.integers(0, BLOCK - 1)), blocks))
    return rows


@settings(max_examples=60)
@given(traces(), st.lists(st.integers(1, 29), max_size=4), st.sampled_from([1, 7, 10_000]))
def test_every_capacity_finds_what_a_simulated_cache_finds(rows: Trace, cuts: list[int], piece: int) -> None:
    """One pass in pieces of any size: each capacity, each time of keeping, in tokens and in blocks."""
    found = follow(rows, cuts=[cut for cut in cuts if cut < len(rows)], piece=piece)
    tokens = sum(count for _, count, _ in rows)
    uses = sum(len(blocks) for _, _, blocks in rows)
    assert (found.blocks, found.distinct) == (uses, len({block for _, _, blocks in rows for block in blocks}))
    for capacity, prefix, single in zip(found.capacities, found.prefix_hits, found.block_hits, strict=True):
        assert prefix * tokens == pytest.approx(simulated_prefix(rows, capacity), abs=1e-6)
        assert single * uses == pytest.approx(simulated_blocks(rows, capacity), abs=1e-6)
    for seconds, hit, held in zip(found.kept_s, found.kept_hits, found.kept_tokens, strict=True):
        hits, block_s = simulated_kept(rows, seconds)
        assert hit * tokens == pytest.approx(hits, abs=1e-6)
        assert held == pytest.approx(block_s / rows[-1][0] * BLOCK if rows[-1][0] else 0.0, rel=1e-9, abs=1e-6)
    assert found.capacities[-1] >= found.distinct
    assert found.infinite_hit == found.prefix_hits[-1] and found.infinite_block_hit == found.block_hits[-1]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=60), st.data())
def test_count_below_counts(values: list[int], data: st.DataObject) -> None:
    queries = data.draw(st.lists(st.tuples(st.integers(0, len(values)), st.integers(0, 45)), max_size=20))
    upto, bounds = (np.array([query[k] for query in queries], dtype=int) for k in (0, 1))
    got = count_below(np.array(values, dtype=int), upto, bounds)
    assert got.tolist() == [sum(value < bound for value in values[:end]) for end, bound in queries]


def test_distances_by_hand() -> None:
    """a b c a b b: a came back over b and c, then b over c and a, then b at once."""
    ids = np.array([1, 2, 3, 1, 2, 2])
    each = np.arange(6)
    distances, idle, gaps = Stack().use(ids, each.astype(float), each, each)
    assert distances.tolist() == [NEVER, NEVER, NEVER, 3, 3, 1]
    assert idle.tolist() == gaps.tolist() == [np.inf, np.inf, np.inf, 3.0, 3.0, 1.0]


def test_a_request_longer_than_the_cache_keeps_its_beginning() -> None:
    """Six blocks, twice, through five: alone none is found, as each leaves before it comes back; engines keep the first five."""
    rows: Trace = [(0.0, 24, [1, 2, 3, 4, 5, 6]), (1.0, 24, [1, 2, 3, 4, 5, 6])]
    found = follow(rows)
    at = dict(zip(found.capacities, zip(found.prefix_hits, found.block_hits, strict=True), strict=True))
    assert at[5] == (5 / 12, 0.0) and at[2] == (2 / 12, 0.0) and at[10] == (0.5, 0.5)


def test_a_block_after_a_miss_is_no_hit() -> None:
    rows: Trace = [(0.0, 12, [1, 2, 3]), (1.0, 12, [9, 2, 3])]
    found = follow(rows)
    assert found.infinite_hit == 0.0 and found.infinite_block_hit == 2 / 6


def test_tokens_of_a_block_that_is_not_full() -> None:
    """Five tokens in blocks of four: the second block has one."""
    found = follow([(0.0, 5, [1, 2]), (1.0, 5, [1, 2]), (2.0, 6, [1, 3])])
    assert found.infinite_hit == pytest.approx((5 + 4) / 16)


def test_requests_without_hashes_for_their_last_tokens() -> None:
    """Seven tokens, of which only one full block is named: four can be found."""
    assert follow([(0.0, 7, [1]), (1.0, 7, [1])]).infinite_hit == pytest.approx(4 / 14)


def sessions(count: int, rounds: int, grow: int, pause: float, seed: int, rate: float = 1.0) -> Trace:
    """Sessions that begin at random and come back after exponential pauses."""
    random = np.random.default_rng(seed)
    begins = np.cumsum(random.exponential(1.0 / rate, count))
    rows: Trace = []
    for session, begin in enumerate(begins.tolist()):
        at = begin + np.append(0.0, np.cumsum(random.exponential(pause, rounds - 1)))
        first = session * rounds * grow
        rows += [(float(when), (k + 1) * grow * BLOCK, list(range(first, first + (k + 1) * grow))) for k, when in enumerate(at)]
    rows.sort(key=lambda row: row[0])
    return [(at - rows[0][0], tokens, blocks) for at, tokens, blocks in rows]


def test_a_sample_of_the_blocks_tells_nearly_the_same() -> None:
    rows = sessions(1500, 6, 2, 30.0, seed=3)
    whole, sample = follow(rows), follow(rows, cuts=range(100, len(rows), 100), piece=2000, most_live=1500)
    assert whole.sampled == 1 and sample.sampled >= 8
    assert sample.blocks == whole.blocks and sample.distinct == pytest.approx(whole.distinct, rel=0.05)
    for at, size in enumerate(whole.capacities):
        if size >= 50:  # a sampled block stands for 16 or so
            assert sample.prefix_hits[at] == pytest.approx(whole.prefix_hits[at], abs=0.03)
            assert sample.block_hits[at] == pytest.approx(whole.block_hits[at], abs=0.03)
    for at, seconds in enumerate(whole.kept_s):
        assert sample.kept_hits[at] == pytest.approx(whole.kept_hits[at], abs=0.03), seconds
        assert sample.kept_tokens[at] == pytest.approx(whole.kept_tokens[at], rel=0.1), seconds


# -- models -----------------------------------------------------------------------------------------------------------------
def test_the_model_of_sessions_is_what_sessions_do() -> None:
    """Answers of no tokens, as hashes of a trace do not tell of them; 4,000 sessions, edges of the trace left in."""
    rounds, grow, pause = 5, 3, 20.0
    rows = sessions(4000, rounds, grow, pause, seed=5, rate=4.0)
    found = follow(rows)
    model = Sessions(rounds, 0.0, grow * BLOCK, 0.0, pause)
    assert model.input_tokens == pytest.approx(np.mean([tokens for _, tokens, _ in rows]))
    rate = len(rows) / rows[-1][0]
    for seconds, hit, held in zip(found.kept_s, found.kept_hits, found.kept_tokens, strict=True):
        if seconds <= 60.0:
            tokens, share = model.kept_for(seconds)
            assert hit == pytest.approx(share, abs=0.01) and held == pytest.approx(tokens * rate, rel=0.04)
    # an LRU cache of that size keeps for about that long
    tokens, share = model.kept_for(20.0)
    hits = simulated_prefix(rows, round(tokens * 4.0 * rounds / BLOCK))
    assert hits / sum(count for _, count, _ in rows) == pytest.approx(share, abs=0.02)


def test_sessions_by_hand() -> None:
    """Two rounds, 10 first, 4 appended, 6 generated: 14 and 24 read, 20 of them found if kept for ever."""
    model = Sessions(2, 10.0, 4.0, 6.0, 30.0)
    assert model.input_tokens == (14 + 24) / 2
    assert model.kept_for(1e9)[1] == pytest.approx(20 / 38)
    tokens, hit = model.kept_for(30.0)
    back = 1 - np.exp(-1)
    assert hit == pytest.approx(back * 20 / 38) and tokens == pytest.approx((20 * 30 * back + 30 * 30) / 2)
    assert Sessions(1, 10.0, 4.0, 6.0, 30.0).curve(5)[0][1] == 0.0


@pytest.mark.parametrize(("exponent", "count"), [(0.0, 300), (0.8, 2000), (1.0, 2000), (1.3, 500)])
def test_ches_approximation_is_what_a_cache_does(exponent: float, count: int) -> None:
    """60,000 draws through an LRU cache, its first fill left out."""
    random = np.random.default_rng(11)
    draws = random.choice(count, 60_000, p=Popularity(kind="zipf", exponent=exponent).probabilities(count))
    each = np.arange(len(draws))
    distances, _, _ = Stack().use(draws, each.astype(float), each, each)
    counts, shares = zipf_groups(count, exponent)
    for capacity in (count // 50, count // 10, count // 3):
        assert np.mean(distances[10_000:] <= capacity) == pytest.approx(che_hit_rate(counts, shares, capacity), abs=0.01)
    assert che_hit_rate(counts, shares, 0) == 0.0 and che_hit_rate(counts, shares, count) == 1.0


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.0, 1.4])
def test_groups_of_ranks_add_up(exponent: float) -> None:
    """Grouped ranks against all of them."""
    counts, each = zipf_groups(200_000, exponent)
    shares = Popularity(kind="zipf", exponent=exponent).probabilities(200_000)
    assert counts.sum() == 200_000 and (counts * each).sum() == pytest.approx(1.0)
    assert len(counts) < 8000
    assert che_hit_rate(counts, each, 5000) == pytest.approx(che_hit_rate(np.ones(200_000), shares, 5000), rel=1e-5)


def test_the_curve_of_documents_rises_to_all_of_them() -> None:
    curve = document_curve(documents=1000, exponent=0.9, document_tokens=900, question_tokens=100, rate_per_s=2.0, points=8)
    assert curve[-1] == (1000 * 900 / 2.0, 0.9)
    assert all(a < b and x < y for (a, x), (b, y) in zip(curve, curve[1:], strict=False))
    with pytest.raises(InputError):
        zipf_groups(0, 1.0)
    with pytest.raises(InputError):
        Sessions(3, 0.0, 0.0, 10.0, 1.0)


@pytest.mark.parametrize(("documents", "exponent"), [(10**6, 1.2), (10**6, 2.0), (10**12, 5.0), (10**12, 0.0), (3, 1.0)])
def test_the_curve_of_documents_lies_where_hits_are_gained(documents: int, exponent: float) -> None:
    """It began at a ten-thousandth of the documents, where few popular ones had brought nearly all hits already."""
    sizes = {"document_tokens": 1.0, "question_tokens": 0.0, "rate_per_s": 1.0, "points": 12}
    curve = document_curve(documents=documents, exponent=exponent, **sizes)  # type: ignore[arg-type]
    assert curve[0][0] == 1.0 or curve[0][1] <= 0.1
    assert curve[-1][1] > 0.9998
    assert len(curve) >= min(documents, 6)


# -- statistics ---------------------------------------------------------------------------------------------------------------
@settings(max_examples=40)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 59))
def test_counts_are_those_of_numpy(values: list[int], cut: int) -> None:
    counts = Counts()
    for part in (values[:cut], values[cut:]):
        counts.add(np.array(part, dtype=np.int64))
    assert counts.total == len(values)
    assert counts.mean == pytest.approx(np.mean(values)) and counts.deviation == pytest.approx(np.std(values), abs=1e-6)
    asked = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
    assert counts.quantiles(asked) == pytest.approx(tuple(np.quantile(values, asked)))


@settings(max_examples=40)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.7, 3.0, 25.0]), min_size=4, max_size=60), st.integers(1, 59))
def test_arrivals_are_those_of_numpy(gaps: list[float], cut: int) -> None:
    times = np.cumsum([0.0, *gaps])
    arrivals = Arrivals()
    for part in (times[:cut], times[cut:]):
        if len(part):
            arrivals.add(part)
    last = float(times[-1])
    if not last:
        assert arrivals.rate_per_s is None and arrivals.variation is None and arrivals.dispersion() == ()
        return
    steps = np.diff(times)
    assert arrivals.rate_per_s == len(times) / last
    assert arrivals.variation == pytest.approx(np.std(steps) / np.mean(steps), abs=1e-6)
    for window, index in arrivals.dispersion():
        whole = int(last // window)
        inside = np.bincount((times[times < whole * window] // window).astype(int), minlength=whole)[:whole]
        assert index == pytest.approx(np.var(inside) / np.mean(inside), abs=1e-6)
    assert {window for window, _ in arrivals.dispersion()} == {window for window in (1.0, 10.0, 60.0) if last >= 10 * window}


def test_random_arrivals_have_index_one() -> None:
    random = np.random.default_rng(2)
    arrivals = Arrivals()
    arrivals.add(np.cumsum(random.exponential(0.1, 50_000)))
    assert arrivals.variation == pytest.approx(1.0, abs=0.03)
    assert dict(arrivals.dispersion()) == pytest.approx({1.0: 1.0, 10.0: 1.0, 60.0: 1.0}, abs=0.25)
    assert arrivals.peak_per_s() == pytest.approx(10.0, rel=0.3)


# -- the curve of a workload ----------------------------------------------------------------------------------------------------
def test_the_curve_keeps_the_points_that_matter() -> None:
    rows = sessions(300, 6, 2, 30.0, seed=4)
    reuse: Any = fit_requests([requests(rows)], BLOCK).reuse
    whole, few = curve_of(reuse, 2.0, 16), curve_of(reuse, 2.0, 4)
    assert len(few) == 4 and set(few) < set(whole) and few[-1] == whole[-1]
    assert whole[-1][1] == pytest.approx(reuse.infinite_hit, abs=1e-6)
    for tokens, hit in whole:
        at = reuse.capacities.index(round(tokens * 2.0 / BLOCK))
        assert hit == pytest.approx(reuse.prefix_hits[at], abs=1e-6)


def test_the_grids_are_round() -> None:
    assert CAPACITIES[:6].tolist() == [1, 2, 5, 10, 20, 50] and (np.diff(CAPACITIES) > 0).all() and (np.diff(KEPT_S) > 0).all()
