"""Balances of profiles: what feeds the compute, DualPath's range, capital by part; each figure beside its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.economics.owned import HOURS_PER_YEAR, capital_recovery_factor, owned_hour
from planner.hardware import list_hardware, load_hardware
from planner.hardware.balance import (
    dualpath_range,
    exchanges,
    flop_per_byte_hidden,
    intermediate_hidden,
    knee_flop_per_byte,
    knee_tokens,
    knees,
    prefill_per_decode,
)
from planner.hardware.lint import lint

Run = Callable[..., tuple[int, str, str]]


# --- compute against the network of experts ------------------------------------------------------------------------


def test_the_guidance_of_the_v4_report() -> None:
    # DeepSeek-V4 report, section 3.1: C/B <= 2 d = 6,144 FLOP/B for d = 3,072, or 6.1 TFLOP/s per GB/s
    assert flop_per_byte_hidden(3072) == 6144.0
    assert flop_per_byte_hidden(3072) * 1e9 / 1e12 == pytest.approx(6.1, abs=0.05)


def test_the_guidance_by_hand() -> None:
    # one token at one expert: gate, up and down are three h x d matrices of 2 FLOPs a weight; h bytes go, 2 h come back
    width, inner = 7168, 3072
    compute, moved = 3 * 2 * width * inner, width * 1 + width * 2
    assert flop_per_byte_hidden(inner) == compute / moved


@given(st.floats(1e6, 1e20), st.floats(1e3, 1e15))
def test_the_least_expert_that_hides_its_exchange_just_does(peak: float, rate: float) -> None:
    inner = intermediate_hidden(peak, rate)
    assert 2.0 * inner == pytest.approx(peak / rate, rel=1e-12)
    assert flop_per_byte_hidden(1) * inner * rate == pytest.approx(peak, rel=1e-12)


def test_gb300_counts_one_way() -> None:
    # 2.78 TFLOP/s per GB/s is told of a GB300 in FP8 (a margin of 2.2): that divides by both directions of NVLink, 1.8 TB/s.
    # One-way it is 5.56, and what is left of the margin 1.1.
    row = next(row for row in exchanges(load_hardware("gb300-nvl72").system) if (row.domain, row.dtype) == ("nvlink", "fp8"))
    assert row.flop_per_byte == pytest.approx(2 * 2778, rel=1e-3)
    assert flop_per_byte_hidden(3072) / row.flop_per_byte == pytest.approx(1.1, abs=0.01)
    assert row.intermediate < 3072


def test_an_h800_hides_the_exchange_of_no_expert_over_its_network() -> None:
    # 1,979 TFLOP/s in FP8 against 50 GB/s of a 400 Gbit/s port
    rows = {(row.domain, row.dtype): row for row in exchanges(load_hardware("h800-node").system)}
    assert rows["scale-out", "fp8"].flop_per_byte == pytest.approx(1979e12 / 50e9)
    assert rows["scale-out", "fp8"].intermediate > 3072


# --- compute against memory ----------------------------------------------------------------------------------------


def test_the_knee_of_an_h800() -> None:
    # 1,979 TFLOP/s of FP8 over 3.35 TB/s: 591 FLOP a byte, 295 tokens an expert
    assert knee_flop_per_byte(1979e12, 3.35e12) == pytest.approx(590.7, abs=0.1)
    assert knee_tokens(1979e12, 3.35e12, 1.0) == pytest.approx(295, abs=0.5)
    found = {knee.dtype: knee for knee in knees(load_hardware("h800-node").system)}
    assert found["fp8"].tokens == pytest.approx(295, abs=1.0)
    assert found["bf16"].tokens == pytest.approx(found["fp8"].tokens, rel=0.01)  # half the rate, twice the bytes


def test_at_the_knee_compute_takes_as_long_as_memory() -> None:
    for knee in knees(load_hardware("b200-node").system):
        system = load_hardware("b200-node").system
        peak, rate = system.device.compute[knee.dtype].peak.value, system.tiers[0].read.value
        weights = 1e9
        size = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "fp6": 0.75, "fp4": 0.5, "int4": 0.5}[knee.dtype]
        assert 2.0 * weights * knee.tokens / peak == pytest.approx(weights * size / rate, rel=1e-12)


# --- DualPath ------------------------------------------------------------------------------------------------------


def test_the_range_of_dualpath() -> None:
    # arXiv 2602.21548: eight compute ports and one storage port, about 500 GB/s of memory and 50 of storage: 1/7 to 7/2
    found = dualpath_range(ports=8, storage_ports=1, memory_bytes_per_s=500e9, storage_bytes_per_s=50e9)
    assert found is not None and found.possible
    assert (found.low, found.high) == pytest.approx((1 / 7, 7 / 2))
    assert found.low <= 2 / 4 <= found.high  # the 2 prefill and 4 decode nodes that the paper runs


@pytest.mark.parametrize(
    ("ports", "storage", "memory", "high"),
    [(8, 1, 200e9, 0.5), (8, 2, 1e15, 1.5), (4, 1, 1e15, 1.5), (3, 1, 1e15, 1.0), (2, 1, 1e15, 0.0)],
)
def test_each_of_the_three_limits_of_dualpath(ports: int, storage: int, memory: float, high: float) -> None:
    # memory: (200/50 - 3)/2; decode nodes' ports: (g - s)/(2 s); prefill nodes' ports: (g - 2 s)/s
    found = dualpath_range(ports=ports, storage_ports=storage, memory_bytes_per_s=memory, storage_bytes_per_s=50e9)
    assert found is not None and found.high == pytest.approx(high)
    assert found.low == pytest.approx(storage / (ports - storage))


def test_no_range_where_storage_is_as_wide_as_the_network() -> None:
    assert dualpath_range(ports=1, storage_ports=1, memory_bytes_per_s=1e12, storage_bytes_per_s=5e10) is None
    slow = dualpath_range(ports=8, storage_ports=1, memory_bytes_per_s=100e9, storage_bytes_per_s=50e9)
    assert slow is not None and not slow.possible


def test_the_range_of_an_h800_node_is_that_of_the_paper() -> None:
    found = prefill_per_decode(load_hardware("h800-node").system)  # its memory gives 492 GB/s
    assert found is not None
    assert (found.low, found.high) == pytest.approx((1 / 7, 3.5), rel=0.03)


@pytest.mark.parametrize("name", [row.id for row in list_hardware()])
def test_balances_of_every_system_are_finite(name: str) -> None:
    system = load_hardware(name).system
    for value in (x for row in (*knees(system), *exchanges(system)) for x in vars(row).values() if isinstance(x, float)):
        assert math.isfinite(value) and value > 0.0
    ratio = prefill_per_decode(system)
    assert ratio is None or (ratio.low > 0.0 and math.isfinite(ratio.high))


# --- capital by part -----------------------------------------------------------------------------------------------


def test_the_bill_of_a_vr200_rack() -> None:
    # Morgan Stanley, May 2026 (girlswars.com/?p=14864): 7,803,148 USD, memory 2,001,600 of them
    system = load_hardware("vr200-nvl72").system
    lines = {line.id: line.capex for line in system.capex_lines}
    assert system.capex.value == 7_803_148.0
    assert math.fsum(figure.value for figure in lines.values()) == pytest.approx(7_803_148.0, abs=0.5)
    assert lines["memory"].value == 2_001_600.0
    assert lines["memory"].value / system.capex.value == pytest.approx(0.2565, abs=5e-5)
    assert lines["memory"].value / 72 == pytest.approx(27_800)
    assert "HBM is not in this line" in lines["memory"].note  # SemiAnalysis, 2026-05-22, against the article
    assert lines["memory"].value / 5.35 == pytest.approx(374e3, rel=1e-3)  # 435 % above what it was


@pytest.mark.parametrize(
    ("rate", "years", "usd"), [(0.10, 4.0, 3.903), (0.10, 5.0, 3.264), (0.08, 4.0, 3.735), (0.05, 5.0, 2.858)]
)
def test_capital_of_a_vr200_gpu_by_the_hour(rate: float, years: float, usd: float) -> None:
    system = load_hardware("vr200-nvl72").system
    each = system.capex.value / system.devices
    assert each == pytest.approx(108_377, abs=0.5)
    hour = owned_hour(
        capex_usd=each, power_w=0.0, cost_of_capital=rate, life_years=years, residual_value=0.0, installation=0.0,
        maintenance=0.0, staff=0.0, usd_per_kwh=0.0, power_utilisation=1.0, pue=1.0,
    )  # fmt: skip
    assert hour.total == pytest.approx(usd, abs=5e-4)
    assert each * capital_recovery_factor(rate, years) / HOURS_PER_YEAR == hour.total


def test_the_bill_and_the_balance_are_shown(run: Run) -> None:
    code, out, _ = run("show", "hardware", "vr200-nvl72")
    text = " ".join(out.replace("|", " ").split())
    assert code == 0
    for words in (
        "memory: LPDDR5X modules and NVMe drives, 2,001,600 USD (1,795,000 to 2,335,000),",
        "25.65%",
        "108,377 USD a device; its capital alone, at 10% a year: USD an hour 3.903 over 4, 3.264 over 5 years",
        "fp8 795.5 (397.7 tokens)",
        "nvlink, FLOP a byte: bf16 2,222 (1,112), fp8 9,722 (4,862)",
        "0.333 to 1.5 prefill nodes a decode node",
    ):
        assert words in text, words


@pytest.mark.parametrize("name", [row.id for row in list_hardware()])
def test_lines_of_every_system_sum_to_its_price(name: str) -> None:
    system = load_hardware(name).system
    total = math.fsum(line.capex.value for line in system.capex_lines)
    assert not system.capex_lines or total == pytest.approx(system.capex.value, rel=1e-6)


OWN = """schema = 1
kind = "rack"
extends = "vr200-nvl72"
id = "mine"
name = "mine"
"""
PRICE = 'capex = { value = "6 MUSD", source = "offer", as_of = 2026-05-01, grade = "B" }\n'
LINE = """
[[capex_line]]
id = "gpu"
name = "72 GPUs"
capex = { value = "5 MUSD", source = "offer", as_of = 2026-05-01, grade = "B" }
"""


def test_lines_go_with_their_sum(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    assert len(load_hardware(path).system.capex_lines) == 4
    path.write_text(OWN + PRICE)
    assert load_hardware(path).system.capex_lines == ()  # those of the profile it extends are lines of another price
    assert run("lint", path)[0] == 0


def test_lines_that_are_not_all_of_the_price_are_a_fault(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN + PRICE + LINE)
    code, out, err = run("lint", path)
    assert code == 4 and "capex_line: they sum to 5,000,000 USD, capex is 6,000,000" in out + err
    path.write_text(OWN + PRICE + LINE + LINE)
    assert any("used twice" in fault.what for fault in lint(path, today=load_hardware("vr200-nvl72").system.as_of))
    path.write_text(OWN + PRICE + LINE.replace("capex_line", "capex_lines"))
    code, out, err = run("lint", path)
    assert code == 4 and "write [[capex_line]]" in out + err


def test_a_price_given_on_the_command_line_has_no_lines() -> None:
    from planner.hardware.given import apply_settings

    selection = load_hardware("vr200-nvl72")
    kept = apply_settings({"mixed": selection}, ["vr200-nvl72.power=200 kW"])["mixed"].system
    changed = apply_settings({"mixed": selection}, ["vr200-nvl72.capex=5 MUSD"])["mixed"].system
    assert len(kept.capex_lines) == 4 and changed.capex_lines == ()
