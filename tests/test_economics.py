"""An hour of owned hardware and its split over token streams."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.api import resolve
from planner.economics import owned_hour, stream_costs
from planner.economics.owned import HOURS_PER_YEAR, capital_recovery_factor
from planner.plans.context import build_context

ALLOCATIONS = ("miss_only", "all_input", "flops")
NOTHING: dict[str, float] = {
    "capex_usd": 0.0, "power_w": 0.0, "cost_of_capital": 0.0, "life_years": 5.0, "residual_value": 0.0, "installation": 0.0,
    "maintenance": 0.0, "staff": 0.0, "usd_per_kwh": 0.0, "power_utilisation": 1.0, "pue": 1.0,
}  # fmt: skip


def test_capital_recovery_by_hand() -> None:
    # Park, Engineering Economics, A/P factor: what is paid each year, discounted, repays one: 1 = A * sum 1.1^-k
    annuity = 1.1**-1 + 1.1**-2 + 1.1**-3 + 1.1**-4 + 1.1**-5
    assert capital_recovery_factor(0.10, 5.0) == pytest.approx(1 / annuity, rel=1e-14)
    assert capital_recovery_factor(0.10, 5.0) == pytest.approx(0.2637975, rel=1e-6)  # the tabulated factor
    assert capital_recovery_factor(0.0, 4.0) == 0.25
    assert capital_recovery_factor(0.2, 1.0) == pytest.approx(1.2)  # one year: the loan and its interest


@given(st.floats(0.0, 2.0), st.floats(1.0, 50.0))
def test_capital_recovery_limits(rate: float, years: float) -> None:
    factor = capital_recovery_factor(rate, years)
    assert factor >= max(rate, 1.0 / years) * (1 - 1e-12)  # at least the interest, at least the repayment
    assert factor <= (1.0 / years + rate) * (1 + 1e-12)
    assert capital_recovery_factor(rate + 0.01, years) >= factor * (1 - 1e-12)


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-17, 1e-12, 1e-9])
def test_capital_recovery_is_smooth_at_no_interest(rate: float) -> None:
    # to first order A/P = 1/n + r (n+1) / (2n)
    assert capital_recovery_factor(rate, 5.0) == pytest.approx(0.2 + 0.6 * rate, rel=1e-12)


def test_an_hour_by_hand() -> None:
    hour = owned_hour(
        capex_usd=300_000.0, power_w=10_000.0, cost_of_capital=0.0, life_years=5.0, residual_value=0.1, installation=0.2,
        maintenance=0.03, staff=0.01, usd_per_kwh=0.08, power_utilisation=0.75, pue=1.2,
    )  # fmt: skip
    # (300,000 * 1.2 - 30,000) / 5 years = 66,000 USD a year of 8,760 hours
    assert hour.capital == pytest.approx(66_000 / 8760)
    assert hour.electricity == pytest.approx(0.72)  # 10 kW * 0.75 * 1.2 = 9 kW, at 0.08 USD/kWh
    assert hour.maintenance == pytest.approx(9_000 / 8760)
    assert hour.staff == pytest.approx(3_000 / 8760)
    assert hour.total == pytest.approx(0.72 + 78_000 / 8760)


def test_a_residual_value_is_discounted() -> None:
    case = NOTHING | {"capex_usd": 1000.0, "cost_of_capital": 0.1, "life_years": 2.0, "residual_value": 0.5}
    # borrow 1000 at 10 % and sell for 500 after two years: pay A, A with 1000 * 1.21 = A * 1.1 + A + 500
    payment = (1210.0 - 500.0) / 2.1
    assert owned_hour(**case).capital * HOURS_PER_YEAR == pytest.approx(payment)


def test_units_of_an_hour() -> None:
    # one kilowatt for one hour at one dollar a kilowatt-hour
    assert owned_hour(**NOTHING | {"power_w": 1000.0, "usd_per_kwh": 1.0}).total == pytest.approx(1.0)
    # a dollar an hour for one year, without interest
    assert owned_hour(**NOTHING | {"capex_usd": 8760.0, "life_years": 1.0}).total == pytest.approx(1.0)
    assert owned_hour(**NOTHING).total == 0.0


money = st.floats(0.0, 1e8)
share = st.floats(0.0, 1.0)


@given(
    money,
    money,
    share,
    st.floats(0.5, 20),
    share,
    share,
    share,
    share,
    st.floats(0, 1),
    share,
    st.floats(1, 2),
    st.floats(1e-3, 1e3),
)
def test_law_3_scaling_prices_scales_the_hour(
    capex: float, power: float, rate: float, life: float, rest: float, install: float, upkeep: float, staff: float,
    energy: float, load: float, pue: float, factor: float,
) -> None:  # fmt: skip
    case: dict[str, Any] = {
        "capex_usd": capex, "power_w": power, "cost_of_capital": rate, "life_years": life, "residual_value": rest,
        "installation": install, "maintenance": upkeep, "staff": staff, "usd_per_kwh": energy, "power_utilisation": load,
        "pue": pue,
    }  # fmt: skip
    base = owned_hour(**case)
    scaled = owned_hour(**case | {"capex_usd": capex * factor, "usd_per_kwh": energy * factor})
    for name in ("capital", "electricity", "maintenance", "staff", "total"):
        assert getattr(scaled, name) == pytest.approx(getattr(base, name) * factor, rel=1e-12, abs=1e-12)
        assert getattr(base, name) >= 0.0


def test_the_hour_of_a_catalogue_system_by_hand() -> None:
    inputs = resolve("llama-3.1-70b", "h800-node")
    pool = build_context(inputs).pools["mixed"]
    system, prices = pool.system, inputs.prices
    value = {name: getattr(prices, name).value for name in ("cost_of_capital", "life", "installation", "maintenance", "staff")}
    annuity = sum((1 + value["cost_of_capital"]) ** -year for year in range(1, round(value["life"]) + 1))
    yearly = system.capex.value * ((1 + value["installation"]) / annuity + value["maintenance"] + value["staff"])
    power = system.power.value * prices.power_utilisation.value * prices.pue.value * prices.electricity.value / 1000
    assert prices.residual_value.value == 0.0
    assert pool.usd_per_hour == pytest.approx(yearly / 8760 + power, rel=1e-12)
    assert pool.usd_per_unit_hour == pytest.approx(pool.usd_per_hour)  # an H800 node is sold whole


# --- streams ----------------------------------------------------------------------------------------------------


def test_streams_by_hand() -> None:
    # 6 USD of prefill and 4 of decode for 3M cached, 1M computed and 2M output tokens
    case: dict[str, Any] = {
        "input_usd": 6.0, "output_usd": 4.0, "hit_tokens": 3e6, "miss_tokens": 1e6, "output_tokens": 2e6, "hit_flops_share": 0.25
    }  # fmt: skip
    split = stream_costs(**case, allocation="miss_only")
    assert (split.input_hit, split.input_miss, split.output) == (0.0, 6.0, 2.0)
    split = stream_costs(**case, allocation="all_input")
    assert (split.input_hit, split.input_miss, split.output) == (1.5, 1.5, 2.0)
    split = stream_costs(**case, allocation="flops")
    assert (split.input_hit, split.input_miss, split.output) == (0.5, 4.5, 2.0)  # 1.5 USD over 3M, 4.5 USD over 1M
    assert split.blended == pytest.approx(10 / 6)


def test_streams_without_tokens_have_no_price() -> None:
    split = stream_costs(input_usd=1.0, output_usd=1.0, hit_tokens=0.0, miss_tokens=1e6, output_tokens=0.0, allocation="flops")
    assert split.input_hit is None and split.output is None and split.input_miss == 1.0
    with pytest.raises(ValueError, match="unknown allocation"):
        stream_costs(input_usd=1.0, output_usd=1.0, hit_tokens=0.0, miss_tokens=1.0, output_tokens=1.0, allocation="fair")


amount = st.floats(1e-6, 1e9)


@given(amount, amount, st.just(0.0) | amount, amount, amount, st.sampled_from(ALLOCATIONS), share)
def test_law_8_tokens_times_price_is_the_cost(
    spent: float, decode: float, hit: float, miss: float, out: float, allocation: str, attention: float
) -> None:
    split = stream_costs(
        input_usd=spent, output_usd=decode, hit_tokens=hit, miss_tokens=miss, output_tokens=out, allocation=allocation,
        hit_flops_share=attention,
    )  # fmt: skip
    streams = [(hit, split.input_hit), (miss, split.input_miss), (out, split.output)]
    charged = math.fsum(tokens * (price or 0.0) / 1e6 for tokens, price in streams)
    assert charged == pytest.approx(spent + decode, rel=1e-9)
    assert split.blended * (hit + miss + out) / 1e6 == pytest.approx(spent + decode, rel=1e-9)


@given(amount, amount, amount, amount, amount, st.sampled_from(ALLOCATIONS), share, st.floats(1e-3, 1e3))
def test_law_3_scaling_prices_scales_every_stream(
    spent: float, decode: float, hit: float, miss: float, out: float, allocation: str, attention: float, factor: float
) -> None:
    assume(attention < 1.0)

    def split(by: float) -> list[float | None]:
        found = stream_costs(
            input_usd=spent * by, output_usd=decode * by, hit_tokens=hit, miss_tokens=miss, output_tokens=out,
            allocation=allocation, hit_flops_share=attention,
        )  # fmt: skip
        return [found.input_hit, found.input_miss, found.output, found.blended]

    assert split(factor) == pytest.approx([None if x is None else x * factor for x in split(1.0)], rel=1e-12)
