"""A pass run event by event: small ones by hand, laws, and beside the formula that the plan goes by."""

import math

import pytest
import small
from exported import CASES, made
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import InfeasibleError
from planner.plans.context import build_context
from planner.plans.read import decision_of, inputs_of
from planner.plans.schema import Plan
from planner.plans.states import pool_state
from planner.replay.schedule import Layer, Schedule, run_passes, schedule
from planner.search import solve

LINK = "link"


def layer(number: int, kernel: float = 1.0, **work: object) -> Layer:
    return Layer("layers", number, kernel, **work)  # type: ignore[arg-type]


def seconds(layers: list[Layer], ahead: bool = False, fixed: float = 0.0) -> float:
    return run_passes(layers, fixed, ahead)[0]


@pytest.mark.parametrize(("copy", "each"), [(0.5, 1.0), (1.0, 1.0), (1.5, 1.5), (2.0, 2.0)])
def test_streams_hide_behind_kernels_or_set_the_pace(copy: float, each: float) -> None:
    assert seconds([layer(n, copies={"host": {LINK: copy}}) for n in range(8)]) == pytest.approx(8 * each)


@pytest.mark.parametrize(("copy", "group"), [(3.9, 4.0), (4.5, 4.5)])
def test_one_layer_of_every_four_has_four_layers_time(copy: float, group: float) -> None:
    """The window condition of weight streaming: n W / B <= G t."""
    layers = [layer(n, copies={"host": {LINK: copy}} if n % 4 == 3 else {}) for n in range(16)]
    assert seconds(layers) == pytest.approx(4 * group)


def test_what_is_fetched_on_demand_is_exposed() -> None:
    assert seconds([layer(n, fetch={LINK: 0.2}, latency_s=0.1) for n in range(4)]) == pytest.approx(4 * 1.3)


def test_memories_on_one_link_share_it() -> None:
    both = {"host": {LINK: 0.6}, "ssd": {LINK: 0.6, "drive": 0.3}}
    assert seconds([layer(n, copies=both) for n in range(8)]) == pytest.approx(8 * 1.2)
    apart = {"host": {LINK: 0.6}, "ssd": {"drive": 0.9}}
    assert seconds([layer(n, copies=apart) for n in range(8)]) == pytest.approx(8.0)


def test_networks_take_of_a_shared_channel_while_kernels_run() -> None:
    layers = [layer(n, beside={LINK: 0.5}, copies={"host": {LINK: 0.6}}) for n in range(8)]
    assert seconds(layers) == pytest.approx(8 * 1.1)


def test_rows_named_by_tokens_come_while_the_layers_before_run() -> None:
    def rows(work: float, at: int, ahead: bool = False) -> float:
        return seconds([layer(n, rows={"host": {LINK: work}} if n == at else {}, rows_latency_s=0.25) for n in range(6)], ahead)

    assert rows(2.0, 3) == pytest.approx(6.0)  # three layers hide it
    assert rows(4.0, 3) == pytest.approx(7.0)  # a second is left
    assert rows(0.1, 0) == pytest.approx(6.25)  # the latency of the first layer's rows shows
    assert rows(4.0, 0, True) == pytest.approx(6.0)  # a pass ahead
    assert rows(7.0, 0, True) == pytest.approx(7.0)  # the link is the pace


def test_the_end_of_a_pass_hides_copies_too() -> None:
    assert seconds([layer(0, copies={"host": {LINK: 1.5}})], fixed=0.5) == pytest.approx(1.5)


WORK = st.floats(0.0, 3.0)


@given(
    st.lists(st.tuples(st.floats(0.05, 2.0), WORK, WORK, st.booleans()), min_size=1, max_size=6),
    st.floats(0.0, 1.0),
    st.booleans(),
)
def test_law_9_no_channel_does_more_than_the_time_and_no_pass_is_shorter_than_its_kernels(
    rows: list[tuple[float, float, float, bool]], fixed: float, ahead: bool
) -> None:
    layers = [
        layer(n, kernel, copies={"host": {LINK: copy}} if copy else {}, rows={"host": {LINK: row}} if row and due else {})
        for n, (kernel, copy, row, due) in enumerate(rows)
    ]
    total, waits, events = run_passes(layers, fixed, ahead)
    assert total >= fixed + sum(one.kernel_s for one in layers) - 1e-9
    assert total == pytest.approx(fixed + sum(one.kernel_s for one in layers) + sum(waits))
    carried = sum(sum(one.copies.get("host", {}).values()) + sum(one.rows.get("host", {}).values()) for one in layers)
    if math.isclose(carried, 0.0):
        assert total == pytest.approx(fixed + sum(one.kernel_s for one in layers))
    kernels = sorted((event.start_s, event.end_s) for event in events if event.lane == "kernels")
    assert all(one[1] <= two[0] + 1e-9 for one, two in zip(kernels, kernels[1:], strict=False))


@given(st.lists(st.tuples(st.floats(0.05, 2.0), WORK), min_size=1, max_size=6), st.floats(1.0, 2.0))
def test_more_to_copy_never_takes_less(rows: list[tuple[float, float]], more: float) -> None:
    def total(factor: float) -> float:
        return seconds([layer(n, kernel, copies={"host": {LINK: copy * factor}}) for n, (kernel, copy) in enumerate(rows)])

    assert total(more) >= total(1.0) - 1e-9


def schedules(plan: Plan) -> list[Schedule]:
    inputs, decision = inputs_of(plan, "plan"), decision_of(plan, "plan")
    context = build_context(inputs, decision.variant)
    states = [pool_state(context.pool(pool.phase), pool) for pool in decision.pools]
    return [schedule(state, phase) for state in states for phase in state.passes]


@pytest.mark.parametrize("name", CASES)
def test_plans_of_real_systems_are_as_free_of_stalls_as_they_say(name: str) -> None:
    for found in schedules(made(name)):
        assert found.pass_s == pytest.approx(found.formula_s, rel=0.01)
        if found.formula_s <= found.resident_s * (1.0 + 1e-9):
            assert found.stall_free


def test_small_plans_that_stream_agree_with_the_formula() -> None:
    """Device memory that holds a part of the weights. The formula hides a layer's copy behind that layer's time alone; the
    clock hides two layers, for which there are buffers, behind what streams nothing: embedding, head, the runtime's step."""
    found = 0
    for memory in (14e6, 17e6, 20e6, 25e6, 30e6):
        for model in (small.experts(6), small.llama(8)):
            try:
                plan = solve(small.instance(model, small.node(2, 1, memory), 1, small.workload(), small.runtime(2, (64,))))
            except InfeasibleError:
                continue
            for run in schedules(plan):
                if run.formula_s > run.resident_s * 1.001:
                    found += 1
                    assert 1.0 - 2.0 / model.layers <= run.pass_s / run.formula_s <= 1.02
    assert found >= 4
