"""``planner compare``: who is better and how sure that is, against closed forms; rows against their own plans; the command."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path
from statistics import NormalDist
from typing import Any

import jsonschema
import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner.api import compare, plan
from planner.cli.common import number
from planner.cli.compare_command import _joined
from planner.cli.compare_view import _rank, print_comparison
from planner.cli.schema_command import schema_of
from planner.comparison import Candidate, Comparison, compare_plans
from planner.comparison.chance import DRAWS, Z90, Spread, best, better, in_order, sample, spread_of
from planner.comparison.judged import judge, of_hardware
from planner.comparison.ranking import verdict
from planner.comparison.run import Cell, Planner, plan_all
from planner.comparison.words import percent
from planner.errors import InputError
from planner.hardware import HardwareSelection, System
from planner.plans.schema import Interval, Plan
from planner.prices import OwnedPrices, load_prices
from planner.quantities import Figure
from planner.search import Stop

Run = Callable[..., tuple[int, str, str]]
MODEL = small.llama()
normal = NormalDist().cdf


# --- draws ----------------------------------------------------------------------------------------------------------


def plain(value: float, sigma: float, **weights: float) -> Spread:
    """An objective without skew."""
    return Spread(value, Z90 * sigma, Z90 * sigma, weights)


def chance(one: Spread, other: Spread, *, lower: bool = True) -> tuple[float, float]:
    logs = sample([one, other])
    return better(logs[0], logs[1], lower=lower)


@pytest.mark.parametrize(("down", "up"), [(0.3, 0.3), (0.2, 1.1), (0.9, 0.1), (0.0, 0.4)])
def test_a_row_has_the_percentiles_that_its_plan_prints(down: float, up: float) -> None:
    moves = {"a": (down * 0.8, up * 0.6, 1.0), "b": (down * 0.6, up * 0.8, -1.0)}
    spread = spread_of(0.7, moves)
    assert math.isclose(spread.down, down) and math.isclose(spread.up, up)
    assert math.isclose(math.fsum(weight**2 for weight in spread.weights.values()), 1.0)
    low, middle, high = np.quantile(np.exp(sample([spread])[0]), [0.1, 0.5, 0.9])
    # a quantile of n draws lies within some sqrt(p (1 - p) / n) / density of its place
    assert math.isclose(low, 0.7 * math.exp(-down), rel_tol=max(4 * down * 0.0134, 1e-9))
    assert math.isclose(middle, 0.7, rel_tol=4 * max(down, up) * 0.0098)
    assert math.isclose(high, 0.7 * math.exp(up), rel_tol=max(4 * up * 0.0134, 1e-9))


def test_the_same_figures_are_the_same_in_every_draw() -> None:
    assert chance(plain(2.0, 0.5, a=0.6, b=0.8), plain(2.0, 0.5, a=0.6, b=0.8)) == (0.5, 0.0)
    assert verdict(0.5, same=True) == "the same"


def test_errors_that_all_share_leave_no_doubt() -> None:
    cheap, dear = plain(1.00, 0.9, a=0.6, b=-0.8), plain(1.01, 0.9, a=0.6, b=-0.8)
    assert chance(cheap, dear) == (1.0, 0.0) and chance(dear, cheap) == (0.0, 0.0)
    assert chance(cheap, dear, lower=False) == (0.0, 0.0)


@pytest.mark.parametrize(("ratio", "one", "other"), [(1.0, 0.3, 0.3), (1.2, 0.3, 0.3), (0.6, 0.5, 0.2), (2.5, 0.4, 0.4)])
def test_independent_errors_give_the_closed_form(ratio: float, one: float, other: float) -> None:
    found, error = chance(plain(1.0, one, a=1.0), plain(ratio, other, b=1.0))
    assert abs(found - normal(math.log(ratio) / math.hypot(one, other))) <= 4 * error
    assert math.isclose(error, math.sqrt(found * (1 - found) / DRAWS))


@given(st.floats(0.5, 2.0), st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.floats(-1.0, 1.0), st.floats(-1.0, 1.0))
def test_errors_shared_in_part_give_the_closed_form(ratio: float, s: float, t: float, v: float, w: float) -> None:
    left, right = plain(1.0, s, both=v, a=math.sqrt(1 - v * v)), plain(ratio, t, both=w, b=math.sqrt(1 - w * w))
    found, _ = chance(left, right)
    apart = math.sqrt(max(s * s + t * t - 2 * v * w * s * t, 0.0))
    exact = normal(math.log(ratio) / apart) if apart > 1e-6 else 0.5
    assert apart <= 1e-6 or abs(found - exact) <= 5 * math.sqrt(max(exact * (1 - exact), 1e-4) / DRAWS)


@given(st.permutations(range(4)))
def test_no_answer_depends_on_the_order_of_rows(order: list[int]) -> None:
    rows = [spread_of(1.0 + 0.1 * i, {"shared": (0.3, 0.5, 1.0), f"own {i % 3}": (0.2, 0.1 * i, -1.0)}) for i in range(4)]
    straight, turned = sample(rows, 500), sample([rows[i] for i in order], 500)
    assert np.array_equal(straight[list(order)], turned)
    assert np.array_equal(best(straight, lower=True)[list(order)], best(turned, lower=True))


def test_probabilities_of_a_pair_and_of_being_best_are_whole() -> None:
    logs = sample([plain(1.0, 0.5, a=1.0), plain(1.1, 0.5, b=1.0), plain(1.1, 0.5, b=1.0), plain(0.9, 0.2, a=0.6, c=0.8)])
    for i in range(4):
        for j in range(4):
            assert better(logs[i], logs[j], lower=True)[0] + better(logs[j], logs[i], lower=True)[0] == pytest.approx(1.0)
            assert better(logs[i], logs[j], lower=True)[0] == better(logs[j], logs[i], lower=False)[0]
    for lower in (True, False):
        assert best(logs, lower=lower).sum() == pytest.approx(1.0)
    orders = [in_order(logs[[0, 1, 3]][list(order)], lower=True) for order in permutations(range(3))]
    assert sum(orders) == pytest.approx(1.0)


def test_a_verdict_has_steps() -> None:
    assert [verdict(p) for p in (0.5, 0.66, 0.67, 0.94, 0.95, 1.0)] == ["a toss-up"] * 2 + ["leaning"] * 2 + ["certain"] * 2
    assert [verdict(p) for p in (0.34, 0.33, 0.06, 0.05)] == ["a toss-up", "leaning", "leaning", "certain"]
    assert verdict(1.0, within_gap=True) == "a toss-up"


# --- rows ------------------------------------------------------------------------------------------------------------


def wide(figure: Figure) -> Figure:
    """With an interval."""
    return figure.model_copy(update={"low": figure.value * 0.8, "high": figure.value * 1.3})


def system(name: str = "small-node", capex: float = 1.0, price: str | None = None) -> System:
    """A node with uncertain peaks, bandwidths and price, of a device of its own."""
    base = small.node(2, 1, 20e6)
    compute = {key: part.model_copy(update={"peak": wide(part.peak)}) for key, part in base.device.compute.items()}
    tiers = tuple(tier.model_copy(update={"read": wide(tier.read)}) for tier in base.tiers)
    domains = tuple(d.model_copy(update={"bandwidth": wide(d.bandwidth)}) for d in base.domains)
    device = base.device.model_copy(update={"id": f"{name}-device", "aliases": (), "compute": compute})
    cost = wide(small.moved(base.capex, capex))
    changes = {"id": name, "device": device, "tiers": tiers, "domains": domains, "capex": cost, "capex_lines": ()}
    return base.model_copy(update=changes | ({} if price is None else {"capex_basis": price}))


def some(name: str = "small-node", capex: float = 1.0, count: int = 1, **more: Any) -> HardwareSelection:
    return HardwareSelection(system=system(name, capex, **more), count=count)


def options(**more: Any) -> dict[str, Any]:
    return {"workload": small.workload(ttft_s=0.02, tpot_s=0.005), "runtime": small.runtime(3, (64, 256)), **more}


@cache
def planned(name: str = "small-node", capex: float = 1.0, count: int = 1, **more: Any) -> Plan:
    return plan(MODEL, some(name, capex, count), **options(**more))


def side_by_side(*plans: Plan) -> Comparison:
    rows = [Candidate(one.model, f"{one.hardware} ({n})", one) for n, one in enumerate(plans)]
    return compare_plans(rows, models=[plans[0].model], hardware=[row.hardware for row in rows])


def near(one: Interval | None, other: Interval) -> None:
    assert one is not None
    for end in ("low", "expected", "high"):
        assert getattr(one, end) == pytest.approx(getattr(other, end), rel=1e-9)


@pytest.mark.parametrize("objective", ["cost", "throughput", "latency"])
def test_figures_and_their_intervals_are_those_of_the_plan(objective: str) -> None:
    found = planned(objective=objective)
    row = side_by_side(found).rows[0]
    assert row.figures is not None and row.objective is not None
    near(row.figures.usd_per_million.blended, found.cost.blended_interval)
    near(row.figures.tokens_per_s, found.prediction.output_tokens_per_s)
    near(row.figures.tokens_per_s_per_device, found.prediction.output_tokens_per_s_per_device)
    near(row.figures.tokens_per_s_per_user, found.prediction.tokens_per_s_per_user)
    near(row.figures.ttft_ms, found.prediction.ttft_ms)
    near(row.figures.tpot_ms, found.prediction.tpot_ms)
    assert row.objective.expected == pytest.approx(found.certificate.objective)
    spread = judge(found, "plan").spread
    assert spread is not None and row.objective.low is not None and row.objective.high is not None
    assert row.objective.low == pytest.approx(spread.value * math.exp(-spread.down), rel=1e-9)
    assert row.objective.high == pytest.approx(spread.value * math.exp(spread.up), rel=1e-9)
    assert row.ratio == 1.0 and row.rank == 1 and row.verdict is None


def test_power_and_energy_follow_from_the_units_paid_for() -> None:
    found = planned()
    figures = side_by_side(found).rows[0].figures
    assert figures is not None
    base = system()
    paid = found.units[0].units * found.units[0].devices_per_unit
    assert figures.devices == paid and figures.watts == pytest.approx(base.power.value * paid / base.devices)
    prices = found.cost.defaults
    drawn = figures.watts * prices["power_utilisation"] * prices["pue"]
    assert figures.watts_drawn == pytest.approx(drawn)
    made = found.prediction.output_tokens_per_s.expected
    assert figures.joules_per_output_token.expected == pytest.approx(drawn / made)
    hbm = figures.memories[0]
    placed = sum(row.bytes for pool in found.pools for row in pool.placement if row.tier == found.pools[0].memory["tier"])
    assert hbm.kind == "hbm" and hbm.role == "device" and hbm.bytes == placed <= hbm.capacity_bytes


def test_errors_of_the_runtime_are_shared_and_those_of_hardware_are_not() -> None:
    one, other = (judge(planned(name), name).spread for name in ("small-node", "other-node"))
    assert one is not None and other is not None
    shared, own = set(one.weights) & set(other.weights), set(one.weights) - set(other.weights)
    assert one.weights["floors of small"] > 0.0 > one.weights["price: electricity"]  # by the first end: slow, and cheap
    assert {"floors of small", "residual of small-llama under small", "price: life"} <= shared and not any(
        of_hardware(key) for key in shared
    )
    assert {"compute of small-node-device", "capex of small-node"} <= own and all(of_hardware(key) for key in own)
    found = side_by_side(planned(), planned("other-node")).sampling
    assert set(found.shared) == shared and {"compute of other-node-device"} | own <= set(found.independent)


def test_the_same_hardware_twice_is_the_same() -> None:
    found = side_by_side(planned(), planned())
    row = found.rows[1]
    assert (row.ratio, row.probability_better, row.probability_error, row.verdict) == (1.0, 0.5, 0.0, "the same")
    assert found.pairwise[0][1] == found.pairwise[1][0] == 0.5 and found.rows[0].probability_best == 0.5
    assert row.break_even is not None and row.break_even.scale == pytest.approx(1.0)


def test_hardware_of_its_own_leaves_doubt_where_the_same_hardware_leaves_none() -> None:
    """5 % dearer: beyond doubt on the same device (whose price is one system's), and hardly on another."""
    twin = planned(capex=1.05)
    same, other = side_by_side(planned(), twin).rows[1], side_by_side(planned(), planned("other-node", 1.05)).rows[1]
    assert same.ratio == pytest.approx(other.ratio) and same.probability_better == 0.0 and same.verdict == "certain"
    assert other.probability_better is not None and 0.3 < other.probability_better < 0.5 and other.verdict == "a toss-up"
    assert other.probability_unshared is not None and abs(other.probability_unshared - 0.5) <= abs(other.probability_better - 0.5)


def test_rows_and_pairs_agree_and_do_not_depend_on_the_order() -> None:
    plans = [planned(), planned("other-node", 0.9), planned("third-node", 1.3)]
    found = side_by_side(*plans)
    for order in permutations(range(3)):
        turned = side_by_side(*(plans[i] for i in order))
        for i, one in enumerate(order):
            for j, other in enumerate(order):
                assert turned.pairwise[i][j] == found.pairwise[one][other]
            assert turned.rows[i].rank == found.rows[one].rank
            assert turned.rows[i].probability_best == found.rows[one].probability_best
    for i, row in enumerate(found.rows):
        assert row.reference == 0 and row.objective is not None and found.rows[0].objective is not None
        assert row.ratio == pytest.approx(row.objective.expected / found.rows[0].objective.expected)
        assert i == 0 or row.probability_better == found.pairwise[i][0]
    assert [row.rank for row in found.rows] == [2, 1, 3]


def test_pools_of_two_kinds_of_hardware_keep_the_interval_of_the_plan() -> None:
    pools = {"prefill": some(), "decode": some("other-node", 3.0)}
    found = plan(MODEL, pools, **options())
    spread = judge(found, "plan").spread
    assert spread is not None and found.cost.blended_interval.high is not None
    assert spread.value * math.exp(spread.up) == pytest.approx(found.cost.blended_interval.high, rel=1e-9)
    assert math.fsum(weight**2 for weight in spread.weights.values()) == pytest.approx(1.0)
    assert {"capex of small-node", "capex of other-node", "memory of other-node-device"} <= set(spread.weights)
    units = [row.units for row in found.units]
    dearer = spread.weights["capex of other-node"] / spread.weights["capex of small-node"]
    assert dearer == pytest.approx(3.0 * units[1] / units[0])
    assert side_by_side(planned(), found).rows[1].probability_better is not None


def test_at_its_break_even_price_the_loser_costs_what_the_winner_does() -> None:
    found = side_by_side(planned(), planned("other-node", 2.0))
    lost, won = found.rows[1].break_even, found.rows[0].break_even
    assert lost is not None and lost.scale is not None and lost.against == 0 and lost.what == "capital" and lost.scale < 1.0
    again = planned("other-node", 2.0 * lost.scale)
    assert again.cost.usd_per_million.blended == pytest.approx(planned().cost.usd_per_million.blended)
    assert lost.units[0].usd == pytest.approx(2.0 * system().capex.value / 2)
    assert won is not None and won.scale is not None and won.against == 1 and won.scale > 1.0
    dearer = planned(capex=won.scale)
    assert dearer.cost.usd_per_million.blended == pytest.approx(planned("other-node", 2.0).cost.usd_per_million.blended)


def test_where_power_alone_costs_more_no_price_is_low_enough() -> None:
    cheap = planned("other-node", 1e-6)
    row = side_by_side(planned(capex=1e-3), cheap).rows[0]
    assert row.break_even is not None and row.break_even.scale is not None
    hungry = system("hungry-node")
    hungry = hungry.model_copy(update={"power": small.moved(hungry.power, 1000.0)})
    found = side_by_side(planned(), plan(MODEL, HardwareSelection(system=hungry), **options()))
    assert found.rows[1].break_even is not None
    assert found.rows[1].break_even.scale is None and found.rows[1].break_even.units == []
    assert any("at no price" in line and "its electricity alone" in line for line in found.summary)
    rate = {"value": 150.0, "low": 100.0, "high": 250.0, "source": "s", "as_of": "2026-11-01", "grade": "C"}
    owned = load_prices("owned").model_dump(mode="json", exclude={"electricity"}) | {"id": "colo", "colocation": rate}
    hosted = options(prices=OwnedPrices.model_validate(owned, context={"si": True}))
    both = [plan(MODEL, HardwareSelection(system=one), **hosted) for one in (system(), hungry)]
    assert any("at no price" in line and "its colocation alone" in line for line in side_by_side(*both).summary)


def test_prices_of_several_bases_are_never_ranked_together() -> None:
    other = planned("other-node", utilisation=0.5)
    rented = planned("third-node", prices="rent_od")
    found = side_by_side(planned(), other, rented)
    assert "50.0% of the time" in str(found.rows[1].excluded) and "rent_od" in str(found.rows[2].excluded)
    for row in found.rows[1:]:
        assert row.plan is not None and row.figures is not None
        assert row.ratio is row.rank is row.probability_better is row.break_even is None
    assert found.pairwise == [[None] * 3] * 3 and found.rows[0].probability_best == 1.0
    assert sum("is not ranked" in note for note in found.notes) == 2
    faster = side_by_side(planned(objective="throughput"), planned("other-node", utilisation=0.5, objective="throughput"))
    assert faster.rows[1].excluded is None  # nothing is priced there
    shorter = plan(MODEL, some(), **options(workload=small.workload(isl=128, ttft_s=0.02, tpot_s=0.005)))
    assert "other lengths" in str(side_by_side(planned(), shorter).rows[1].excluded)
    assert "planned for" in str(side_by_side(planned(), planned(objective="latency")).rows[1].excluded)


def test_rents_break_even_as_rents_and_capital_of_another_kind_is_noted() -> None:
    found = compare(MODEL, [some(), some("other-node")], **options(prices="rent_od"))
    row = found.rows[1]
    assert found.basis == "rent_od" and row.verdict in ("a toss-up", "leaning", "certain") and row.break_even is not None
    assert row.break_even.what == "rent" and row.break_even.scale == pytest.approx(1.0 / (row.ratio or 0.0))
    assert {price.basis for price in row.figures.prices if row.figures} == {"rent_od"} if row.figures else False
    kinds = compare(MODEL, [some(), some("other-node", price="capex_oem")], **options())
    assert any("capex_oem of other-node" in note for note in kinds.notes)


def test_a_search_cut_short_is_not_called_certain() -> None:
    plans = [planned(), planned(capex=1.05)]
    certificate = plans[1].certificate.model_copy(update={"bound": plans[0].certificate.objective * 0.99})
    cut = plans[1].model_copy(update={"certificate": certificate})
    row = side_by_side(plans[0], cut).rows[1]
    assert row.within_gap and row.verdict == "a toss-up" and row.probability_better == 0.0


def test_the_sentence_on_the_best_names_the_pairs_that_searches_left_open() -> None:
    """The first row is none of them, so no verdict tells."""
    plans = [planned("other-node", 3.0), planned(), planned(capex=1.05)]
    certificate = plans[2].certificate.model_copy(update={"bound": plans[1].certificate.objective * 0.99})
    told = "as far as these plans go: the search left more open than lies between small-node:1 (1) and small-node:1 (2)"
    found = side_by_side(*plans[:2], plans[2].model_copy(update={"certificate": certificate}))
    assert not any(row.within_gap for row in found.rows) and found.summary[0].endswith(told)
    assert not any("left more open" in line for line in side_by_side(*plans).summary)


def test_alike_ones_are_the_best_together() -> None:
    found = side_by_side(planned("other-node", 1.5), planned(), planned())
    one, first, second = found.rows
    assert one.probability_best is not None and first.probability_best == second.probability_best
    together = 1.0 - one.probability_best
    assert 2.0 * (first.probability_best or 0.0) == pytest.approx(together)
    assert f"the best of the 3 with {percent(together)}" in found.summary[0]
    assert "are, all alike, the cheapest" in found.summary[0]
    assert sum("would cost what" in line for line in found.summary) == 1  # not the one what the other does


def test_where_nothing_is_served_throughput_has_no_lower_end() -> None:
    found = judge(planned(objective="throughput"), "plan")
    group, end, operation = found.others[0]
    cut = replace(found, others=[(group, end, replace(operation, requests_per_s=0.0)), *found.others[1:]])
    assert cut.objective_interval.low is None and cut.objective_interval.high is not None and cut.spread is None


def test_how_probably_a_row_is_first_is_told_where_there_are_several() -> None:
    """Certainty too, and where prices do not matter."""
    found = side_by_side(planned(objective="throughput"), planned("other-node", objective="throughput"))
    sure = found.rows[0].model_copy(update={"probability_best": 1.0})
    assert sure.break_even is None and _rank(found, sure) == "1\nfirst over 99.9%"
    alone = side_by_side(planned(objective="throughput"))
    assert _rank(alone, alone.rows[0]) == "1"


def test_draws_are_told_where_there_is_something_to_rank() -> None:
    assert not any("draws" in note for note in side_by_side(planned()).notes)
    assert any("10,000 draws" in note for note in side_by_side(planned(), planned("other-node")).notes)


def test_a_plan_whose_numbers_do_not_follow_is_refused() -> None:
    certificate = planned().certificate.model_copy(update={"objective": 1.0})
    with pytest.raises(InputError, match="does not follow from its inputs"):
        side_by_side(planned().model_copy(update={"certificate": certificate}))
    with pytest.raises(InputError, match="do not make a matrix"):
        compare_plans([], models=[], hardware=[])
    with pytest.raises(InputError, match="has no plan"):
        compare_plans([Candidate("m", "h", None, "refused", "why")], models=["m"], hardware=["h"])


# --- planning the rows -----------------------------------------------------------------------------------------------


def test_what_fails_says_why_and_stops_no_other() -> None:
    tiny = some("tiny-node")
    tiers = tuple(t.model_copy(update={"usable": small.exactly(t.usable, 1e5)}) for t in tiny.system.tiers)
    none = tiny.model_copy(update={"system": tiny.system.model_copy(update={"tiers": tiers})})
    bare = some("bare-node")
    bare = bare.model_copy(update={"system": bare.system.model_copy(update={"rents": ()})})
    found = compare(MODEL, [none, bare, some(), some("other-node", 2.0)], **options(prices="rent_od"))
    assert [row.status for row in found.rows] == ["infeasible", "refused", "planned", "planned"]
    assert found.rows[0].conflict and found.rows[0].plan is None and "rent_od" in str(found.rows[1].reason)
    assert [row.reference for row in found.rows] == [None, None, 2, 2]
    assert found.stopped is None and json.loads(found.to_json())["rows"][0]["plan"] is None
    with pytest.raises(InputError, match="bare-node has no price"):
        compare(MODEL, [bare, bare], **options(prices="rent_od"))
    assert [row.status for row in compare(MODEL, [none], **options()).rows] == ["infeasible"]


@pytest.mark.parametrize("what", ["cost", "power"])
def test_equal_rows_spend_no_more_than_the_first(what: Any) -> None:
    rows = [some(count=3), some("other-node", 0.4), some("dear-node", 50.0)]
    found = compare(MODEL, rows, equal=what, **options())
    assert found.budget is not None and found.budget.what == what
    for row in found.rows[: 2 if what == "cost" else 3]:
        assert row.figures is not None and row.equal is not None
        each = row.figures.usd_per_hour if what == "cost" else row.figures.watts / 1e3
        assert row.equal.used == pytest.approx(each * row.equal.copies) and row.equal.used <= found.budget.amount * (1 + 1e-9)
        assert row.equal.used + row.equal.unused == pytest.approx(found.budget.amount) and row.equal.unused < each
        assert row.equal.tokens_per_s.expected == pytest.approx(row.figures.tokens_per_s.expected * row.equal.copies)
    first, second = found.rows[0].equal, found.rows[1].equal
    assert first is not None and (first.copies, first.unused) == (1, 0.0)
    assert second is not None and second.copies == (2 if what == "cost" else 1)
    assert found.rows[2].status == ("infeasible" if what == "cost" else "planned")


def test_a_demand_needs_no_second_copy() -> None:
    found = compare(MODEL, [some(), some("other-node", 0.1)], equal="cost", **options(rate=10.0))
    assert found.rows[1].equal is not None and found.rows[1].equal.copies == 1 and found.rows[1].equal.unused > 0.0


def test_options_that_a_comparison_cannot_have_are_refused() -> None:
    with pytest.raises(InputError, match="--robust workloads"):
        compare(MODEL, [some()], robust="workloads")
    with pytest.raises(InputError, match="--equal"):
        compare(MODEL, [some()], robust="intervals", equal="cost")
    with pytest.raises(InputError, match="rows"):
        compare(MODEL, [], **options())
    with pytest.raises(InputError, match="begins with no hardware"):
        compare(MODEL, [some()], settings=["nosuch.capex=1 USD"], **options())
    found = compare(MODEL, [some(), some("other-node")], settings=["other-node.capex=10 USD"], **options())
    assert found.rows[0].figures and found.rows[1].figures and found.rows[1].figures.prices[0].usd == 10.0
    assert found.rows[0].figures.prices[0].usd == system().capex.value


def test_a_worst_case_is_told_apart_and_compared_at_values() -> None:
    found = compare(MODEL, [some(), some("other-node", 1.2)], robust="intervals", **options())
    row = found.rows[1]
    assert row.plan is not None and row.objective is not None and row.plan.worst_case is not None
    near(row.objective, row.plan.cost.blended_interval)
    assert any("worst case" in note for note in found.notes)


def test_time_is_shared_out_and_an_interrupt_keeps_what_is_done() -> None:
    stop, told = Stop(), list[str]()

    def beginning(done: int, rows: int, name: str) -> None:
        told.append(f"{done} {rows} {name}")
        stop.interrupted = done == 1

    found = compare(MODEL, [some(), some("other-node")], stop=stop, beginning=beginning, **options())
    assert told == ["0 2 small-llama on small-node:1", "1 2 small-llama on other-node:1"]
    assert found.stopped == "interrupted" and [row.status for row in found.rows] == ["planned", "stopped"]
    limits = []
    planner_of_rows = Planner(
        resolve=lambda model, pools, own: planner.resolve(model, pools, **options(**own)),
        plan=lambda model, pools, limit: limits.append(clock.deadline) or planned(),  # type: ignore[func-returns-value]
    )
    import time

    before = time.monotonic()
    clock = Stop(before + 100.0)
    plan_all([Cell(MODEL, str(n), {"mixed": some()}) for n in range(4)], planner_of_rows, stop=clock)
    shares = [limit - before for limit in limits]
    assert shares[0] == pytest.approx(25.0, abs=1.0) and shares[-1] == pytest.approx(100.0, abs=1.0) and clock.deadline
    assert clock.deadline == before + 100.0


def test_a_row_may_have_a_runtime_of_its_own() -> None:
    found = compare("llama-3.1-8b", ["h100-node", "h100-node@ideal"])
    assert [row.figures and row.figures.runtime for row in found.rows] == ["generic", "ideal"]
    assert found.rows[1].hardware == "h100-node@ideal" and found.rows[1].ratio is not None and found.rows[1].ratio < 1.0
    assert {"floors of generic", "compute of h100-sxm"} <= {*found.sampling.shared, *found.sampling.independent}
    assert any("several runtimes" in note for note in found.notes)
    with pytest.raises(InputError, match="nosuch"):
        compare("llama-3.1-8b", ["h100-node@nosuch"])


def test_a_matrix_ranks_each_model_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    other = small.llama(layers=2)
    other = other.model_copy(update={"id": "half-llama"})
    found = compare([MODEL, other], [some(), some("other-node", 1.5)], **options())
    assert found.models == ["small-llama", "half-llama"] and found.hardware == ["small-node:1", "other-node:1"]
    assert [row.reference for row in found.rows] == [0, 0, 2, 2] and [row.rank for row in found.rows] == [1, 2, 1, 2]
    assert found.cell(1, 0).model == "half-llama" and found.cell(1, 0).hardware == "small-node:1"
    assert all((found.pairwise[i][j] is None) == (i == j) for i in range(4) for j in range(4))
    assert sum(row.probability_best or 0.0 for row in found.rows[2:]) == pytest.approx(1.0)
    print_comparison(found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("small-llama: small-node:1 is the cheapest") and any("the first" in line for line in lines)
    value = found.cell(1, 1).objective
    assert value is not None and any(line.startswith(" half-llama") and number(value.expected) in line for line in lines)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_name_is_a_function_before_and_after_every_room_is_loaded() -> None:
    import planner.comparison.run

    assert callable(planner.compare) and planner.comparison is not planner.compare


COMMAND = ("compare", "llama-3.1-8b", "h100-node", "h800-node")


def test_the_command_prints_what_the_function_says(run: Run) -> None:
    code, out, _ = run(*COMMAND, "--format", "json")
    data = json.loads(out)
    jsonschema.validate(data, schema_of("compare"))
    found = Comparison.model_validate(data)
    assert code == 0 and json.loads(found.to_json()) == data
    assert found.to_json() == compare("llama-3.1-8b", ["h100-node", "h800-node"]).to_json()
    row = data["rows"][1]
    assert {"hardware", "plan", "ratio", "probability_better"} <= set(row) and row["hardware"] == "h800-node"
    assert row["plan"]["hardware"] == "h800-node:1" and Plan.model_validate(row["plan"]).to_data() == row["plan"]


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_table_fits(run: Run, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    kept = _three()
    monkeypatch.setattr("planner.api.compare", lambda *_, **__: kept)
    code, out, err = run(*COMMAND)
    assert code == 0 and all(len(line) <= columns for line in out.splitlines())
    for text in ("USD/Mtok, all", "J/output token", "hbm used", "decode bound by", "lowest grade", "breaks even at", "h20-node"):
        assert text in out
    assert "next: planner plan llama-3.1-8b" in err
    assert "next:" not in run(*COMMAND, "--quiet")[2]


@cache
def _three() -> Comparison:
    return compare("llama-3.1-8b", ["h100-node", "h800-node", "h20-node"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Missing argument 'MODEL'"),
        (("llama-3.1-8b",), "Missing argument 'HARDWARE'"),
        (("llama-3.1-8b", "h100-node", "--models", "llama-3.1-8b"), "two forms"),
        (("--models", "llama-3.1-8b"), "go together"),
        (("--models", "llama-3.1-8b,", "--hardware", "h100-node"), "empty name"),
        (("llama-3.1-8b", "h100-node", "nosuch"), "unknown hardware 'nosuch'"),
        (("nosuch", "h100-node"), "nosuch"),
        (("llama-3.1-8b", "h100-node", "--equal", "weight"), "weight"),
        (("llama-3.1-8b", "h100-node", "--robust", "workloads"), "not built for comparisons"),
        (("llama-3.1-8b", "h100-node", "--price-basis", "nosuch"), "nosuch"),
        (("llama-3.1-8b", "vr200-nvl72"), "announced"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: tuple[str, ...], told: str) -> None:
    code, out, err = run("compare", *arguments)
    assert code == 2 and told in err and out == "" and len(err.strip().splitlines()) == 1


def test_a_matrix_on_the_command_line_and_rows_that_cannot_be(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "compare.json"
    rows = ("--models", "llama-3.1-8b", "--hardware", "h100-node,vr200-nvl72", "-o", target)
    code, out, _ = run("compare", *rows)
    assert code == 0 and "vr200-nvl72 has no plan (refused)" in out
    assert [row["status"] for row in json.loads(target.read_text())["rows"]] == ["planned", "refused"]
    code, _, err = run("compare", *rows)
    assert code == 2 and "--force" in err
    code, out, err = run("compare", "llama-3.1-8b", "h100-node", "h800-node", "--tpot", "0.001ms")
    assert code == 3 and out.count("has no plan (infeasible)") == 2 and "least relief" in out
    assert _joined(["a", "prefill=b:1", "decode=c", "d"]) == ["a", "prefill=b:1,decode=c", "d"]


def test_ctrl_c_shows_the_rows_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any, beginning: Any, **more: Any) -> Comparison:
        def told(done: int, rows: int, name: str) -> None:
            if done == 1:
                signal.raise_signal(signal.SIGINT)
            beginning(done, rows, name)

        return compare(*given, beginning=told, **more)

    monkeypatch.setattr("planner.api.compare", interrupted)
    code, out, _ = run(*COMMAND)
    assert code == 130 and "USD/Mtok" in out and "h800-node has no plan (stopped): interrupted before its turn" in out
