"""Tables addressed by token: sizes, prefetch windows, device reads, and expected hit rates against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.architecture import Popularity, load_model, lookups, measured, token_addressed, zipf
from planner.architecture.popularity import harmonic
from planner.errors import InputError
from planner.hardware import load_hardware
from planner.performance.rates import resolve_rates
from planner.plans.window_items import Item
from planner.runtimes import load_runtime


@given(rows=st.integers(1, 60_000), exponent=st.floats(0, 4))
def test_harmonic_sums_are_exact(rows: int, exponent: float) -> None:
    direct = math.fsum(i**-exponent for i in range(1, rows + 1))
    assert harmonic(rows, exponent) == pytest.approx(direct, rel=1e-12)


def test_harmonic_of_a_shipped_table() -> None:
    """H(n) = ln n + 0.5772156649015329 + 1/2n - 1/12n^2."""
    rows = 384_006_168
    assert harmonic(rows, 1.0) == pytest.approx(math.log(rows) + 0.5772156649015329 + 1 / (2 * rows), rel=1e-13)
    assert harmonic(rows, 0.0) == pytest.approx(rows, rel=1e-13)
    assert harmonic(10**12, 2.0) == pytest.approx(math.pi**2 / 6 - 1e-12, rel=1e-13)


@given(rows=st.integers(1, 10**9), exponent=st.floats(0, 3), share=st.floats(0, 1))
def test_a_hit_rate_is_a_probability_that_grows_with_the_hot_set(rows: int, exponent: float, share: float) -> None:
    hot = int(rows * share)
    rate = zipf(exponent).hit_rate(rows, hot)
    assert 0.0 <= rate <= 1.0 + 1e-12
    assert rate <= zipf(exponent).hit_rate(rows, hot + 1) + 1e-12
    assert rate >= hot / rows - 1e-9  # never worse than reads spread evenly
    assert zipf(exponent).hit_rate(rows, rows) == pytest.approx(1.0)
    assert Popularity(kind="uniform").hit_rate(rows, hot) == hot / rows


@pytest.mark.parametrize("exponent", [0.6, 0.8, 1.0, 1.2])
@pytest.mark.parametrize("hot", [10, 1000, 20_000])
def test_the_hit_rate_of_a_hot_set_agrees_with_simulation(exponent: float, hot: int) -> None:
    rows, reads = 100_000, 400_000
    draws = np.random.default_rng(7).choice(rows, size=reads, p=zipf(exponent).probabilities(rows))
    rate = zipf(exponent).hit_rate(rows, hot)
    error = math.sqrt(rate * (1 - rate) / reads)
    assert abs(float(np.mean(draws < hot)) - rate) < 4.5 * error


@pytest.mark.parametrize("popularity", [zipf(1.0), Popularity(kind="uniform"), measured([9, 5, 3, 1])])
def test_distinct_rows_agree_with_simulation(popularity: Popularity) -> None:
    rows, reads = 2_000, 3_000
    generator = np.random.default_rng(11)
    counts = [len(np.unique(generator.choice(rows, size=reads, p=popularity.probabilities(rows)))) for _ in range(60)]
    spread = float(np.std(counts)) / math.sqrt(len(counts)) + 1e-6
    assert abs(float(np.mean(counts)) - popularity.distinct(rows, reads)) < 4.5 * spread


def test_measured_popularity() -> None:
    seen = measured([1, 6, 3])
    assert seen.counts == (6, 3, 1)
    assert [seen.hit_rate(5, hot) for hot in (0, 1, 2, 3, 5)] == [0.0, 0.6, 0.9, 1.0, 1.0]
    for bad in ([], [0, 0], [1] * 6):
        with pytest.raises(InputError):
            measured(bad).hit_rate(5, 1)
    with pytest.raises(InputError):
        zipf(1).hit_rate(0, 0)


def test_hashed_tables_agree_with_simulated_ngrams() -> None:
    """A hot set in equal parts of every sub-table: reads of 24 sub-tables under one law hit as the closed form says."""
    table = next(one for one in lookups(load_model("deepseek-v4.1-flash")) if one.hashed)
    assert table.tables == 24
    rows = table.rows // 24
    hot = 65_536 * 24  # colibri's default cache holds 65,536 rows of each
    assert table.hit_rate(zipf(1.0), hot) == harmonic(65_536, 1.0) / harmonic(rows, 1.0)
    small = 5_000
    generator = np.random.default_rng(3)
    probabilities = zipf(1.0).probabilities(small)
    hits = [generator.choice(small, size=20_000, p=probabilities) < 200 for _ in range(24)]
    assert float(np.mean(hits)) == pytest.approx(zipf(1.0).hit_rate(small, 200), abs=3e-3)


def test_a_block_device_reads_whole_granules() -> None:
    """48 rows of 264 bytes a token: 192 KiB at granules of 4 KiB, 48 random reads."""
    tables = [one for one in lookups(load_model("deepseek-v4.1-flash")) if one.hashed]
    assert [round(one.amplification(4096), 3) for one in tables] == [15.515, 15.515]
    assert [one.amplification(264) for one in tables] == [1.0, 1.0]
    assert sum(one.device_bytes_per_token(512) for one in tables) == 48 * 512
    assert sum(one.device_bytes_per_token(4096, hit_rate=0.5) for one in tables) == 96 * 1024
    assert sum(one.iops(1000.0) for one in tables) == 48_000
    assert sum(one.iops(1000.0, hit_rate=0.75) for one in tables) == 12_000
    (first, _) = tables
    assert first.resident_bytes(replicas=8, per_node=False) == 8 * first.bytes
    assert first.resident_bytes(replicas=8, nodes=2) == 2 * first.bytes


def test_the_prefetch_window_is_what_runs_before() -> None:
    first, second = [one for one in lookups(load_model("deepseek-v4.1-flash")) if one.hashed]
    assert dict(first.window) == {"embedding": 1, "window.attention": 1, "window.experts": 1}
    assert sum(count for name, count in second.window if name.endswith(".attention")) == 14
    embedding = next(one for one in lookups(load_model("deepseek-v3")) if one.group == "table")
    assert (embedding.window, embedding.rows, embedding.row_bytes) == ((), 129_280, 14_336)


def test_what_the_token_alone_addresses() -> None:
    names = {(block.id, group) for block, group in token_addressed(load_model("deepseek-v4-flash"))}
    assert ("embedding", "table") in names
    assert ("hash_window.experts", "experts") in names
    assert ("hash_csa.experts", "expert_table") in names
    assert ("csa.experts", "experts") not in names


def test_a_tied_table_stands_once() -> None:
    assert [one.block for one in lookups(load_model("llama-3.2-3b"))] == []
    assert [one.block for one in lookups(load_model("llama-3.1-70b"))] == ["embedding"]


def test_the_tier_problem_charges_whole_granules() -> None:
    """Rows of 264 bytes from a disk of 4 KiB granules move 15.5 times their bytes; operations per second may cost more."""
    item = Item(0, "Engram table", "lookup", 1e9, {}, {}, ((24.0, 264.0),))
    assert item.amplification(1) == 1.0
    assert item.amplification(264) == 1.0
    assert item.amplification(4096) == pytest.approx(4096 / 264)
    assert Item(0, "weights", "static", 1e9, {}, {}).amplification(4096) == 1.0
    system = load_hardware("h800-node").system
    tiers = {tier.id: tier for tier in resolve_rates(system, load_runtime("generic")).tiers}
    for tier in system.tiers:
        if tier.iops is not None:
            assert tiers[tier.id].granule == max(tier.granule_bytes, math.ceil(tier.read.value / tier.iops.value))
