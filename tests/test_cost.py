"""Price sheets and bills, keeping caches and memory tiers: the published cases, the laws, and what is refused.

Published cases: DeepSeek's day (https://github.com/deepseek-ai/open-infra-index day 6); the bills and SSD cases of the article
*Can DeepSeek save China one trillion dollars* (June 2026) at the prices of the sheets; energy as counted by arXiv 2508.06978
and its code (scale-snu/SSD-offloading on GitHub).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.architecture import load_model
from planner.cli.schema_command import schema_of
from planner.economics import energy, stream_costs, wear
from planner.economics import retention as keep
from planner.economics.bill import TokenPrices, Usage, at_peak_share, bill, margin, split_by_work, usage_of
from planner.errors import InputError
from planner.hardware import MemoryPart, load_part
from planner.hardware.loader import list_hardware
from planner.hardware.parts import usd_per_gb
from planner.performance import distinct_experts
from planner.prices.currency import RATES, load_rates, rate_at, usd
from planner.prices.sheets import SHEETS, PriceSheet, load_sheet, moment_text, period_at

Run = Callable[..., tuple[int, str, str]]
SSD = "nvme-tlc-gen5-30tb"
SOURCE_SSD = ("--memory", SSD, "--usd-per-gb", "0.33", "--cost-of-capital", "0", "--usd-per-kwh", "0")
"""The source's inputs: 0.33 USD/GB over five years in a straight line, one drive write a day, no electricity."""
MIX = ("--tokens", "1e9", "--mix", "input=0.8,output=0.2")
amounts = st.floats(0.0, 1e13)
prices = st.floats(0.0, 1e3)
positive = st.floats(1e-6, 1e6)
shares = st.floats(0.0, 1.0)
token_prices = st.builds(TokenPrices, prices, prices, prices, st.none() | prices)
usages = st.builds(usage_of, amounts, input_share=shares, hit_share=shares, stored_share=shares)


def answer(run: Run, subject: str, *arguments: str) -> Any:
    code, out, err = run("cost", subject, *arguments, "--format", "json")
    assert code == 0 and not err, err
    data = json.loads(out)
    jsonschema.validate(data, schema_of(f"cost-{subject}"), jsonschema.Draft202012Validator)
    return data


def bills(run: Run, *arguments: str) -> dict[str, dict[str, Any]]:
    return {row["sheet"]: row for row in answer(run, "bill", *arguments)["bills"]}


def refusal(run: Run, *arguments: str) -> str:
    code, out, err = run("cost", *arguments)
    assert code == 2 and not out and err.startswith("planner: ") and err.count("\n") == 1, (out, err)
    return err


# -- the published cases -------------------------------------------------------------------------------------------------
def test_deepseeks_day_adds_up() -> None:
    """open-infra-index day 6: 226.75 nodes of 8 on average at 2 USD an hour; 608e9 input tokens, 342e9 of them hits, 168e9
    output; 73.7k and 14.8k tokens/s a node. The node-hours worked are scaled to those leased, so the parts add up."""
    leased, usd_per_node_hour = 226.75 * 24, 8 * 2.0
    worked = {"prefill": 608e9 / 73.7e3 / 3600, "decode": 168e9 / 14.8e3 / 3600}
    assert sum(worked.values()) == pytest.approx(5444.7, abs=0.05) and leased == 5442.0
    hours = split_by_work(leased, worked)
    assert sum(hours.values()) == pytest.approx(leased, rel=1e-12)
    assert hours["prefill"] / leased == pytest.approx(0.421, abs=0.0005)
    cost = {name: part * usd_per_node_hour for name, part in hours.items()}
    assert sum(cost.values()) == pytest.approx(87_072, rel=1e-12)

    usage = Usage(342e9, 266e9, 168e9)
    for allocation, hit, miss in (("miss_only", 0.0, 0.1378), ("all_input", 0.0603, 0.0603)):
        each = stream_costs(
            input_usd=cost["prefill"], output_usd=cost["decode"], hit_tokens=usage.hit_tokens,
            miss_tokens=usage.miss_tokens, output_tokens=usage.output_tokens, allocation=allocation,
        )  # fmt: skip
        assert each.input_hit == pytest.approx(hit, abs=5e-5)
        assert each.input_miss == pytest.approx(miss, abs=5e-5)
        assert each.output == pytest.approx(0.3001, abs=1e-4)
        charged = bill(usage, TokenPrices(each.input_hit or 0.0, each.input_miss or 0.0, each.output or 0.0))
        assert charged.total == pytest.approx(87_072, rel=1e-9)

    period = period_at(load_sheet("deepseek-r1"), datetime(2025, 2, 28, tzinfo=UTC))
    revenue = bill(usage, TokenPrices(period.input_hit.value, period.input_miss.value, period.output.value)).total
    assert revenue == pytest.approx(562_100, rel=1e-9)  # 562,027 is printed, from token counts that are not rounded
    assert margin(revenue, 87_072) == pytest.approx(5.456, abs=5e-4)


def test_deepseeks_day_on_the_command_line(run: Run) -> None:
    mix = ("--tokens", "776e9", "--mix", "input=608,output=168", "--hit", "0.5625", "--date", "2025-02-28", "--cost", "87072")
    row = bills(run, "--sheet", "deepseek-r1", *mix)["deepseek-r1"]
    assert row["usd"] == pytest.approx(562_100) and row["margin"] == pytest.approx(5.456, abs=5e-4)
    assert "545.6%" in run("cost", "bill", "--sheet", "deepseek-r1", *mix)[1]


def test_a_billion_tokens_in_may(run: Run) -> None:
    sheets = [word for name in ("deepseek-v4-pro", "claude-opus-4.7", "gpt-5.5") for word in ("--sheet", name)]
    found = bills(run, *sheets, *MIX, "--date", "2026-05-15")
    assert [row["usd"] for row in found.values()] == pytest.approx([522, 9_000, 10_000])
    assert [row["ratio"] for row in found.values()] == pytest.approx([1, 17.2, 19.2], abs=0.05)
    assert all(row["peak_share"] is None for row in found.values())


def test_the_same_billion_after_the_middle_of_august(run: Run) -> None:
    arguments = ("--sheet", "deepseek-v4-pro", *MIX, "--date", "2026-09-01")
    for share, amount in (("0", 924), ("1", 1_848), ("0.5", 1_386)):
        assert bills(run, *arguments, "--peak-share", share)["deepseek-v4-pro"]["usd"] == pytest.approx(amount)
    spread = bills(run, *arguments)["deepseek-v4-pro"]
    assert (spread["usd_off_peak"], spread["usd_peak"]) == pytest.approx((924, 1_848))
    assert spread["peak_share"] == pytest.approx(35 / 168)  # seven hours of five days
    assert spread["peak_windows"]["hours_utc"] == ["01:00-04:00", "06:00-10:00"] and "holidays" in spread["peak_windows"]["note"]
    assert spread["usd"] == pytest.approx(924 * (1 + 35 / 168))


@pytest.mark.parametrize(
    ("moment", "amount", "windows"),
    [
        ("2026-04-24", 2088, None),  # undiscounted: 0.8 x 1.74 + 0.2 x 3.48
        ("2026-08-16", 522, None),
        ("2026-08-16T15:59Z", 522, None),
        ("2026-08-16T16:00Z", 924, 49 / 168),
        ("2026-08-17T00:00+08:00", 924, 49 / 168),
        ("2026-08-23", 924, 35 / 168),
    ],
)
def test_prices_change_at_their_moment(run: Run, moment: str, amount: float, windows: float | None) -> None:
    row = bills(run, "--sheet", "deepseek-v4-pro", *MIX, "--date", moment)["deepseek-v4-pro"]
    assert row["usd_off_peak"] == pytest.approx(amount) and row["peak_share"] == (windows and pytest.approx(windows))


def test_a_hundred_reads_of_a_hundred_thousand_tokens(run: Run) -> None:
    arguments = ("--sheet", "deepseek-v4-pro", "--sheet", "claude-opus-4.7", "--tokens", "1e7", "--mix", "input=1")
    hits = bills(run, *arguments, "--hit", "1", "--date", "2026-05-15")
    assert hits["deepseek-v4-pro"]["usd"] == pytest.approx(0.03625)
    assert hits["claude-opus-4.7"]["usd"] == pytest.approx(5.0)
    first = bills(run, *arguments, "--hit", "0.99", "--stored", "1", "--date", "2026-05-15")  # the first of them misses
    assert first["deepseek-v4-pro"]["usd"] == pytest.approx(0.079, abs=5e-4)
    assert first["claude-opus-4.7"]["usd"] == pytest.approx(5.575)  # written to the cache at 6.25


@pytest.mark.parametrize(
    ("model", "layout", "gb", "idle", "written"),
    [("deepseek-v3", "bf16", 70.272, 261, 0.0127), ("deepseek-v4-pro", "calculator", 5.888, 3111, 0.0011)],
)
def test_ssd_retention_and_wear_at_the_sources_inputs(
    run: Run, model: str, layout: str, gb: float, idle: float, written: float
) -> None:
    data = answer(run, "retention", model, "--layout", layout, "--context", "1M", "--recompute", "0.138", *SOURCE_SSD)
    (row,) = data["rows"]
    assert data["gb_per_mtok"] == pytest.approx(gb, rel=1e-4)
    assert row["break_even_idle_hours"] == pytest.approx(idle, rel=2e-3)
    assert row["write_usd_per_mtok"] == pytest.approx(written, rel=0.04)
    assert row["hours_of_equal_charge"] == pytest.approx(24.0)  # one drive write a day, life and warranty of five years

    hourly = gb * keep.usd_per_gb_hour(0.33, 5.0, 0.0)
    assert hourly == pytest.approx({70.272: 5.3e-4, 5.888: 4.4e-5}[gb], rel=0.02)
    write = gb * wear.usd_per_gb_written(0.33, 1.0, 5.0)
    alone = keep.break_even_idle_hours(recompute_usd=0.138, reload_usd=0.0, room_usd_per_hour=hourly, write_usd=write)
    assert alone == pytest.approx(idle, rel=2e-3)


def test_dram_at_the_sources_inputs() -> None:
    """10 USD/GB over four years: 2.0e-2 and 1.7e-3 USD an hour, so 6.9 and 82 h."""
    for gb, hours in ((70.272, 6.9), (5.888, 82)):
        hourly = gb * keep.usd_per_gb_hour(10.0, 4.0, 0.0)
        idle = keep.break_even_idle_hours(recompute_usd=0.138, reload_usd=0.0, room_usd_per_hour=hourly, write_usd=0.0)
        assert idle == pytest.approx(hours, rel=0.01)


def test_a_day_of_writes_wears_drives() -> None:
    """434e9 tokens (misses and output), V3 in bf16, on 226.75 nodes of 8 drives of 15.36 TB: 134.5 TB a node, 1.09 a day."""
    each = load_model("deepseek-v3").kv_bytes_per_token("bf16")
    a_node = 434e9 * each / 226.75
    assert a_node == pytest.approx(134.5e12, rel=1e-3)
    assert wear.drive_writes_per_day(a_node, 8 * 15.36e12) == pytest.approx(1.09, abs=0.01)


def test_hits_of_the_day_ask_little_of_a_storage_port() -> None:
    """342e9 hits over 95.4 prefill nodes (42.1 % of 226.75): 2.91 GB/s a node in bf16, 1.66 in 40,016 B, of 50 GB/s."""
    nodes = split_by_work(226.75, {"prefill": 608 / 73.7, "decode": 168 / 14.8})["prefill"]
    for each, gb_per_s in ((70_272, 2.91), (40_016, 1.66)):
        assert keep.bandwidth_to_outrun(each, 342e9 / 86400 / nodes) / 1e9 == pytest.approx(gb_per_s, rel=0.01)


def test_energy_of_a_byte_by_tier() -> None:
    """arXiv 2508.06978: HBM3 4.2, DDR5 9.2, NVMe 102.4 pJ/bit, 4.2 for the copy into HBM: 4.19 and 26.4 times HBM."""
    pj = {name: (load_part(name).energy.value * 1e12) for name in ("hbm3-16gb", "ddr5-rdimm-64gb", SSD)}
    assert list(pj.values()) == pytest.approx([4.2, 9.2, 102.4])
    hbm = energy.joules_per_byte(pj["hbm3-16gb"])
    ddr, ssd = (energy.joules_per_byte(pj[name], 4.2, 4.2) for name in ("ddr5-rdimm-64gb", SSD))
    assert ddr / hbm == pytest.approx(4.19, abs=0.005) and ssd / hbm == pytest.approx(26.4, abs=0.05)


def test_experts_on_ssd_by_batch() -> None:
    """V3's fp8 experts of 44 MB read from SSD, 110.8 pJ/bit: 18.1 J a token alone, 0.14 at 4,096; 0.65 USD per million tokens."""
    each = energy.joules_per_byte(102.4e-12, 4.2e-12, 4.2e-12)
    for batch, joules in ((1, 18.1), (64, 7.9), (256, 2.26), (1024, 0.57), (4096, 0.14)):
        read = 58 * float(distinct_experts(256, 8 / 256, np.array(float(batch)))) * 44e6
        found = energy.joules_per_token(read, each, batch)
        assert found == pytest.approx(joules, rel=0.02)
        if batch == 1:
            assert energy.usd_per_mtok(found, 0.10, 1.3) == pytest.approx(0.65, abs=0.01)
            assert read == pytest.approx(58 * 8 * 44e6)  # a token wakes its own


def test_what_one_pass_of_a_thousand_streams() -> None:
    read = 58 * float(distinct_experts(256, 8 / 256, np.array(float(1024)))) * 44e6
    assert read == pytest.approx(655e9, rel=0.01)


# -- laws: bills ---------------------------------------------------------------------------------------------------------
@given(usages, token_prices, st.floats(0.0, 1e3))
def test_a_bill_is_linear_in_prices_and_in_tokens(usage: Usage, each: TokenPrices, factor: float) -> None:
    whole = bill(usage, each).total
    write = None if each.cache_write is None else factor * each.cache_write
    dearer = TokenPrices(factor * each.input_hit, factor * each.input_miss, factor * each.output, write)
    more = Usage(*(factor * getattr(usage, name) for name in ("hit_tokens", "miss_tokens", "output_tokens", "stored_tokens")))
    assert bill(usage, dearer).total == pytest.approx(factor * whole, rel=1e-9, abs=1e-9)
    assert bill(more, each).total == pytest.approx(factor * whole, rel=1e-9, abs=1e-9)


@given(amounts, shares, shares, shares)
def test_usage_keeps_every_token(tokens: float, read: float, hit: float, stored: float) -> None:
    usage = usage_of(tokens, input_share=read, hit_share=hit, stored_share=stored)
    assert usage.tokens == pytest.approx(tokens, rel=1e-9)
    assert usage.stored_tokens <= usage.miss_tokens


@given(usages, token_prices, token_prices, shares)
def test_a_bill_lies_between_off_peak_and_peak(usage: Usage, low: TokenPrices, high: TokenPrices, share: float) -> None:
    ends = sorted((bill(usage, low).total, bill(usage, high).total))
    found = bill(usage, at_peak_share(low, high, share)).total
    slack = 1e-9 * ends[1] + 1e-9
    assert ends[0] - slack <= found <= ends[1] + slack
    assert bill(usage, at_peak_share(low, high, 0.0)).total == pytest.approx(bill(usage, low).total, rel=1e-9)
    assert bill(usage, at_peak_share(low, high, 1.0)).total == pytest.approx(bill(usage, high).total, rel=1e-9)
    assert at_peak_share(low, None, share) is low


@given(positive, st.dictionaries(st.text(max_size=3), st.floats(1e-3, 1e6), min_size=1, max_size=5))
def test_parts_of_a_split_add_up(amount: float, work: dict[str, float]) -> None:
    parts = split_by_work(amount, work)
    assert sum(parts.values()) == pytest.approx(amount, rel=1e-9)
    first = next(iter(work))
    assert parts[first] * sum(work.values()) == pytest.approx(amount * work[first], rel=1e-9)


def test_margin_by_hand() -> None:
    assert margin(200.0, 100.0) == 1.0 and margin(100.0, 100.0) == 0.0 and margin(50.0, 100.0) == -0.5


# -- laws: keeping, wear, energy -----------------------------------------------------------------------------------------
lives = st.floats(0.5, 20.0)
rates = st.floats(0.0, 0.5)


@given(positive, lives, rates, positive)
def test_an_hour_of_room_is_linear_in_price_and_no_less_than_its_share(
    price: float, life: float, rate: float, factor: float
) -> None:
    hour = keep.usd_per_gb_hour(price, life, rate)
    assert keep.usd_per_gb_hour(factor * price, life, rate) == pytest.approx(factor * hour, rel=1e-9)
    assert hour >= price / (life * 8760.0) * (1 - 1e-9)
    assert keep.usd_per_gb_hour(price, life, rate + 0.01) > hour
    assert keep.usd_per_gb_hour(price, 1.1 * life, rate) < hour
    assert keep.usd_per_gb_hour(price, life, 0.0) == pytest.approx(price / (life * 8760.0), rel=1e-12)


@given(positive, st.floats(0.05, 100.0), lives, positive)
def test_wear_of_a_write_is_linear_in_price_and_falls_with_endurance(
    price: float, dwpd: float, years: float, factor: float
) -> None:
    written = wear.usd_per_gb_written(price, dwpd, years)
    assert wear.usd_per_gb_written(factor * price, dwpd, years) == pytest.approx(factor * written, rel=1e-9)
    assert wear.usd_per_gb_written(price, 2 * dwpd, years) == pytest.approx(written / 2, rel=1e-9)
    assert written * wear.writes_per_life(dwpd, years) == pytest.approx(price, rel=1e-9)  # worn out, it is paid for


@given(positive, st.floats(0.05, 100.0), lives, rates, st.floats(0.0, 1e5))
def test_a_drive_is_charged_once(price: float, dwpd: float, life: float, rate: float, hours: float) -> None:
    """Filled for its whole life and written as often as it bears it costs its price with interest, not twice that."""
    whole = keep.life_usd_per_gb(price, life, rate)
    hour, written = keep.usd_per_gb_hour(price, life, rate), wear.usd_per_gb_written(whole, dwpd, life)
    turns = wear.writes_per_life(dwpd, life)
    stay = life * 8760.0 / turns
    assert turns * wear.drive_usd_per_gb(stay, hour, written) == pytest.approx(whole, rel=1e-9)
    assert stay == pytest.approx(wear.hours_of_equal_charge(hour, written), rel=1e-9)
    assert stay == pytest.approx(24.0 / dwpd, rel=1e-9)
    charged = wear.drive_usd_per_gb(hours, hour, written)
    assert charged == max(hours * hour, written) <= hours * hour + written
    assert charged <= wear.drive_usd_per_gb(hours + 1.0, hour, written)


costs = st.floats(1e-6, 1e3)


@given(costs, st.floats(0.0, 1e2), costs, st.floats(0.0, 1e2), st.just(0.0) | costs)
def test_keeping_costs_what_it_saves_at_the_break_even(
    recompute: float, reload: float, room: float, write: float, standing: float
) -> None:
    hours = keep.break_even_idle_hours(
        recompute_usd=recompute, reload_usd=reload, room_usd_per_hour=room, write_usd=write, standing_usd_per_hour=standing
    )

    def kept(time: float) -> float:
        return keep.keep_usd_per_mtok(time, room_usd_per_hour=room, write_usd=write, standing_usd_per_hour=standing) + reload

    if hours == 0.0:
        assert kept(1e-9) >= recompute * (1 - 1e-6)
    else:
        assert kept(hours) == pytest.approx(recompute, rel=1e-6)
        assert kept(0.9 * hours) <= recompute * (1 + 1e-9) and kept(1.1 * hours) > recompute


@given(costs, costs, st.floats(0.0, 1e2), st.just(0.0) | costs, st.floats(1.0, 100.0))
def test_dearer_memory_is_worth_keeping_in_for_less(
    recompute: float, room: float, write: float, standing: float, factor: float
) -> None:
    def idle(recompute: float, scale: float) -> float:
        return keep.break_even_idle_hours(
            recompute_usd=recompute, reload_usd=0.0, room_usd_per_hour=scale * room, write_usd=scale * write,
            standing_usd_per_hour=scale * standing,
        )  # fmt: skip

    assume(recompute > 1.001 * factor * write)
    assert idle(recompute, factor) <= idle(recompute, 1.0) * (1 + 1e-9)
    assert idle(factor * recompute, 1.0) >= idle(recompute, 1.0) * (1 - 1e-9)
    assert idle(factor * recompute, factor) == pytest.approx(idle(recompute, 1.0), rel=1e-6)  # one currency is as good as another


@given(positive, positive, positive, positive)
def test_energy_is_linear_in_bytes_and_shared_by_the_pass(size: float, each: float, tokens: float, factor: float) -> None:
    whole = energy.joules_per_token(size, each, tokens)
    assert energy.joules_per_token(factor * size, each, tokens) == pytest.approx(factor * whole, rel=1e-9)
    assert energy.joules_per_token(size, each, factor * tokens) == pytest.approx(whole / factor, rel=1e-9)
    assert energy.usd_per_mtok(3.6, 1.0, 1.0) == pytest.approx(1.0)  # 3.6 J a token are a kWh a million


# -- sheets and currency -------------------------------------------------------------------------------------------------
def test_every_sheet_is_sound_and_sourced() -> None:
    assert len(SHEETS.ids) >= 9
    for sheet in SHEETS:
        assert rate_at(sheet.currency, None) is None or sheet.currency == "CNY"
        for period in sheet.periods:
            assert all(figure.source.startswith("https://") and figure.as_of for figure in period.figures)
            assert not any(figure.grade in "CD" and figure.low is None for figure in period.figures)
            assert period.input_hit.value < period.input_miss.value < period.output.value
            for figure, peak in (
                () if period.peak is None else ((period.input_hit, period.peak.input_hit), (period.output, period.peak.output))
            ):
                assert peak.value == pytest.approx(2 * figure.value)  # off-peak prices are half of the peak ones


SHEET = """
schema = 1
id = "mine"
provider = "me"
model = "m"
currency = "USD"
as_of = 2026-01-01
[[period]]
label = "only"
from = 2026-01-01
to = 2026-02-01
input_hit = { value = 0.1, source = "me", as_of = 2026-01-01, grade = "D" }
input_miss = { value = 1.0, source = "me", as_of = 2026-01-01, grade = "D" }
output = { value = 2.0, source = "me", as_of = 2026-01-01, grade = "D" }
"""
PEAK = """[period.peak]
days = ["mon"]
hours_utc = ["01:00-04:00", "06:00-24:00"]
input_hit = { value = 0.2, source = "me", as_of = 2026-01-01, grade = "D" }
input_miss = { value = 2.0, source = "me", as_of = 2026-01-01, grade = "D" }
output = { value = 4.0, source = "me", as_of = 2026-01-01, grade = "D" }
"""


def test_a_sheet_of_ones_own(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SHEET + PEAK, encoding="utf-8")
    row = bills(run, "--sheet", str(path), "--tokens", "1e6", "--mix", "input=1,output=1")["mine"]
    assert (row["usd_off_peak"], row["usd_peak"]) == pytest.approx((1.5, 3.0))
    assert row["peak_share"] == pytest.approx(21 / 168) and row["lowest_grade"] == "D"
    assert PriceSheet.model_validate(load_sheet(str(path)).model_dump(mode="json"), context={"si": True}) == load_sheet(str(path))
    assert "no prices for 2026-02-01; known: 2026-01-01 to 2026-02-01" in refusal(
        run, "bill", "--sheet", str(path), *MIX, "--date", "2026-02-01"
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("value = 1.0", "value = -1.0", "period.0.input_miss: value: must be at least 0"),
        ("value = 1.0", "value = 1e9", "too much"),
        ("value = 1.0", 'value = "1 USD"', "unknown unit"),
        ('source = "me", ', "", "source: is missing"),
        (', grade = "D"', "", "grade: is missing"),
        ("as_of = 2026-01-01, ", "", "has no as_of"),
        ("as_of = 2026-01-01, ", "as_of = 2026-01-02, ", "is before that of a price"),
        ("to = 2026-02-01", "to = 2025-02-01", "ends before it begins"),
        ("from = 2026-01-01", "from = 2026-01-01T10:00:00", "no time zone"),
        ("from = 2026-01-01", "from = 0001-01-01T00:00:00+23:00", "is no moment of UTC"),
        ('"USD"', '"dollars"', "currency"),
        ("06:00-24:00", "03:00-24:00", "overlaps another"),
        ("06:00-24:00", "25:00-26:00", "hours_utc"),
        ('["mon"]', '["mon", "mon"]', "named twice"),
        ('["mon"]', '["monday"]', "days"),
        ("schema = 1", "schema = 2", "schema"),
        ('label = "only"', 'label = "only"\nlabl = "only"', "labl: unknown key"),
        ("[period.peak]", SHEET[SHEET.index("[[period]]") :] + "[period.peak]", "begins before the one above it ends"),
    ],
)
def test_bad_sheets_are_one_line(run: Run, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "mine.toml"
    assert old in SHEET + PEAK
    path.write_text((SHEET + PEAK).replace(old, new, 1), encoding="utf-8")
    assert words in refusal(run, "bill", "--sheet", str(path), *MIX)


def test_another_currency_becomes_usd_at_the_rate_of_the_day(run: Run) -> None:
    arguments = ("--sheet", "deepseek-v4-pro-cny", *MIX, "--date", "2026-09-01", "--peak-share", "0")
    row = bills(run, *arguments)["deepseek-v4-pro-cny"]
    assert row["amount"]["total"] == pytest.approx(0.8e3 * 4.5 + 0.2e3 * 13.5)
    assert row["usd"] == pytest.approx(row["amount"]["total"] / 6.818) and row["rate"]["as_of"] == "2026-08-16"
    assert row["usd"] == pytest.approx(924, rel=1e-3)  # the provider's two lists agree at that rate
    assert bills(run, *arguments, "--rate", "CNY=7")["deepseek-v4-pro-cny"]["usd"] == pytest.approx(6300 / 7)


def test_rates_are_dated() -> None:
    assert rate_at("USD", date(1990, 1, 1)) is None and usd(5.0, None) == 5.0
    assert [rate_at("CNY", day).per_usd.value for day in (date(2026, 1, 26), date(2026, 1, 27), None)] == [7.0779, 6.9858, 6.818]
    last = max(rate.day for rate in load_rates().rate)
    assert rate_at("CNY", last.replace(year=last.year + 1)) is not None
    for day in (date(2024, 1, 1), last.replace(year=last.year + 2)):
        with pytest.raises(InputError, match=r"no rate of CNY for .*; rates are of 2024-11-25 to "):
            rate_at("CNY", day)
    with pytest.raises(InputError, match="unknown currency 'CNH'; known: CNY, USD"):
        rate_at("CNH", None)
    assert all(rate.per_usd.as_of for rate in load_rates(RATES).rate)


def test_moments_are_printed_as_short_as_they_are_exact() -> None:
    assert moment_text(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01"
    assert moment_text(datetime(2026, 8, 16, 16, tzinfo=UTC)) == "2026-08-16T16:00Z"


def test_sheets_are_listed(run: Run) -> None:
    rows = json.loads(run("list", "prices", "--format", "json")[1])
    assert {row["id"] for row in rows if row["kind"] == "sheet"} == set(SHEETS.ids)
    assert {"id": "owned", "kind": "basis"}.items() <= next(row for row in rows if row["id"] == "owned").items()


# -- memories ------------------------------------------------------------------------------------------------------------
def test_tiers_hold_the_catalogues_figures(run: Run) -> None:
    data = answer(run, "tiers")
    assert data["assumptions"] == {"life_years": 5.0, "cost_of_capital": 0.1, "usd_per_kwh": 0.085, "pue": 1.25}
    rows = {(row["part"], row["basis"]): row for row in data["rows"]}
    assert len(rows) == len(data["rows"])  # one basis, one row: never mixed
    part = load_part(SSD)
    assert isinstance(part, MemoryPart)
    row = rows[SSD, "street"]
    assert (row["usd_per_gb"], row["price_as_of"], row["grade"]) == (0.357, "2026-03-31", "A")
    assert row["unit_usd"] == pytest.approx(0.357 * 30_720)
    assert row["read_gb_per_s_per_usd"] == pytest.approx(14 / (0.357 * 30_720))
    assert row["read_pj_per_bit"] == pytest.approx(102.4)
    annuity = 0.1 / (1 - 1.1**-5)
    assert row["capital_usd_per_gb_hour"] == pytest.approx(0.357 * annuity / 8760)
    assert row["electricity_usd_per_gb_hour"] == pytest.approx(25 / 30_720 / 1000 * 1.25 * 0.085)
    assert row["usd_per_gb_written"] == pytest.approx(0.357 * annuity * 5 / (365 * 5))
    assert {"hbm", "ddr", "lpddr", "cxl", "ssd"} <= {row["tier"] for row in data["rows"]}
    assert rows["ddr5-rdimm-64gb", "contract"]["usd_per_gb"] == pytest.approx(13.8e9 / 2**30)
    assert rows["ddr5-rdimm-64gb", "contract"]["usd_per_gb_written"] is None


def test_an_older_date_takes_the_older_price(run: Run) -> None:
    (row,) = answer(run, "tiers", "--memory", SSD, "--basis", "street", "--date", "2025-12-31")["rows"]
    assert (row["usd_per_gb"], row["price_as_of"]) == (0.1, "2025-06-30")
    assert "no memory has a price" in refusal(run, "tiers", "--memory", SSD, "--date", "2025-01-01")


def test_retention_by_hand_at_the_dated_price(run: Run) -> None:
    arguments = ("deepseek-v3", "--recompute", "0.138", "--prefill-rate", "73700", "--memory", SSD, "--basis", "street")
    data = answer(run, "retention", *arguments)
    (row,) = data["rows"]
    gb, hour = 70.272, 0.357 * 0.1 / (1 - 1.1**-5) / 8760
    assert (data["bytes_per_token"], data["layout"]) == (70_272, "bf16")
    joules = 70_272e6 * 8 * (102.4 + 4.2) * 1e-12
    reload = joules / 3.6e6 * 1.25 * 0.085
    assert row["reload_joules_per_mtok"] == pytest.approx(joules) and row["reload_usd_per_mtok"] == pytest.approx(reload)
    power = gb * 25 / 30_720 / 1000 * 1.25 * 0.085
    assert row["break_even_idle_hours"] == pytest.approx((0.138 - reload) / (gb * hour + power))
    assert row["break_even_idle_hours_low"] <= row["break_even_idle_hours"] < row["break_even_idle_hours_high"]
    assert row["units_to_outrun_prefill"] == pytest.approx(73_700 * 70_272 / (0.8 * 14e9))
    assert row["reload_mtok_per_s_per_unit"] == pytest.approx(0.8 * 14e9 / 70_272e6)
    table = run("cost", "retention", *arguments)[1]
    assert "181 h" in table and "10.0% cost of capital over 5 years" in table and "vdura" in table


def test_smaller_caches_are_worth_keeping_longer_and_cheap_recompute_is_not_kept(run: Run) -> None:
    def idle(model: str, recompute: str, *more: str) -> float:
        (row,) = answer(run, "retention", model, "--recompute", recompute, *SOURCE_SSD, *more)["rows"]
        return float(row["break_even_idle_hours"])

    assert idle("deepseek-v4-pro", "0.138") > idle("deepseek-v3", "0.138", "--kv-dtype", "fp8") > idle("deepseek-v3", "0.138")
    assert idle("deepseek-v3", "0.0126") == 0.0  # less than the wear of writing it: never worth it
    table = run("cost", "retention", "deepseek-v3", "--recompute", "0.0126", *SOURCE_SSD)[1]
    assert "never" in table


def test_every_price_in_use_is_of_the_catalogue(run: Run) -> None:
    for row in answer(run, "retention", "deepseek-v3", "--context", "4096")["rows"]:
        part = load_part(row["part"])
        assert isinstance(part, MemoryPart)
        assert row["usd_per_gb"] == pytest.approx(usd_per_gb(part, row["basis"], date.max).value, rel=1e-9)
        assert row["break_even_idle_hours"] is None and row["units_to_outrun_prefill"] is None
    priced = {row.id for row in list_hardware(kinds=("memory",)) if row.usd_per_gb is not None}
    assert {row["part"] for row in answer(run, "tiers")["rows"]} == priced


def test_a_part_of_ones_own_and_endurance_in_bytes(run: Run, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[1] / "hardware_profiles" / "parts" / f"{SSD}.toml"
    lines = shipped.read_text(encoding="utf-8").replace(SSD, "my-drive").splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("dwpd"))
    lines[at] = 'endurance = { value = "56.064 PB", source = "me", as_of = 2026-11-01, grade = "A" }'  # 30.72 TB x 365 x 5
    (tmp_path / "my-drive.toml").write_text("\n".join(lines), encoding="utf-8")
    (row,) = answer(run, "tiers", "--profiles", str(tmp_path), "--memory", "my-drive", "--basis", "street")["rows"]
    assert row["dwpd"] == pytest.approx(1.0) and row["warranty_years"] == 5.0


# -- bad input -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "Missing command"),
        ("bil", "bil"),
        ("bill --tokens 1e9 --mix input=1", "--sheet"),
        (
            "bill --sheet deepseek-v4 --tokens 1e9 --mix input=1",
            "unknown price sheet 'deepseek-v4'; did you mean deepseek-v4-pro",
        ),
        ("bill --sheet gpt-5.5 --tokens -1 --mix input=1", "'-1' is not from 1"),
        ("bill --sheet gpt-5.5 --tokens inf --mix input=1", "--tokens"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=-1", "--mix: cannot read 'input=-1'"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=nan", "--mix"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1,input=1", "--mix"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix read=1", "input=0.8,output=0.2"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=0", "has no tokens"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --hit 1.1", "--hit"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --cost 0", "--cost"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --cost -5", "--cost"),
        (
            "bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --date 2026-04-22",
            "price sheet gpt-5.5: has no prices for 2026-04-22",
        ),
        ("bill --sheet deepseek-r1 --tokens 1e9 --mix input=1 --date 2026-04-22", "known: 2025-02-01 to 2025-03-01"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --date tomorrow", "'tomorrow' is no date"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --date 2026-08-16T16:00", "time zone"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --peak-share 0.5", "none of the sheets has peak windows"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --rate CNY=0", "--rate"),
        ("bill --sheet gpt-5.5 --tokens 1e9 --mix input=1 --rate yuan=7", "--rate"),
        ("bill --sheet deepseek-v4-pro-cny --tokens 1e9 --mix input=1 --date 2029-01-01", "no rate of CNY for 2029-01-01"),
        ("retention deepseek-v3 --usd-per-gb 0.3", "--usd-per-gb goes with --memory"),
        ("retention deepseek-v3 --memory hccs", "hccs is not a memory"),
        ("retention deepseek-v3 --memory ddr5", "did you mean ddr5-rdimm-64gb"),
        ("retention deepseek-v3 --recompute -1", "--recompute"),
        ("retention deepseek-v3 --recompute 1e9", "--recompute"),
        ("retention deepseek-v3 --context 1.5", "1.5 is no number of tokens"),
        ("retention deepseek-v3 --layout bf16 --kv-dtype fp8", "exclude each other"),
        ("retention deepseek-v9 --recompute 1", "deepseek-v9"),
        (f"retention deepseek-v3 --memory {SSD} --usd-per-gb -3", "--usd-per-gb"),
        ("tiers --date 2020-01-01", "no memory has a price at or before 2020-01-01"),
        ("tiers --date 2020", "'2020' is no date"),
        ("tiers --basis rent", "rent"),
        ("tiers --life 0", "--life"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: str, words: str) -> None:
    assert words in refusal(run, *arguments.split())
