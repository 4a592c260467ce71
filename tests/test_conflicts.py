"""Why there is no plan: irreducible sets of limits and their reliefs, checked by planning again with a limit moved or dropped."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import small
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.errors import InfeasibleError, InputError
from planner.plans.constraints import parse_constraints
from planner.plans.inputs import Inputs
from planner.reporter import Reporter
from planner.search import Stop, solve
from planner.search.conflicts import explain_infeasible, irreducible
from planner.search.limits import Limit, droppable, limits_of, without
from planner.search.sizing import tables_of
from planner.search.trials import Trials

IN_FIELD = {"service level TTFT": 1e-3, "service level TPOT": 1e-3}
"""What a member's unit is worth in the unit of its field."""


@cache
def llama() -> Any:
    return small.llama(layers=16, hidden=256, inner=512, vocabulary=512)


def problem(
    ttft_s: float | None = None,
    tpot_s: float | None = None,
    pins: tuple[str, ...] = (),
    bans: tuple[str, ...] = (),
    names: dict[str, str] | None = None,
    *,
    memory: float = 60e6,
    nodes: int = 1,
    model: Any = None,
    **options: Any,
) -> Inputs:
    """Nodes of two small devices; constraints renamed by ``names``."""
    rules = parse_constraints(pins, bans)
    rules = tuple(c.model_copy(update={"name": (names or {}).get(c.rule, c.name)}) for c in rules)
    load, software = small.workload(ttft_s=ttft_s, tpot_s=tpot_s), small.runtime(6, (64, 256))
    subject = llama() if model is None else model
    return small.instance(subject, small.node(2, 1, memory), nodes, load, software, constraints=rules, **options)


def feasible(inputs: Inputs) -> bool:
    """Whether there is a plan, by a whole search from nothing for another objective than the explanation's."""
    changed = inputs.model_copy(update={"options": inputs.options.model_copy(update={"objective": "throughput"})})
    try:
        solve(changed)
    except InfeasibleError:
        return False
    return True


def conflict_of(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """Members by name."""
    with pytest.raises(InfeasibleError) as caught:
        solve(inputs)
    assert str(caught.value).startswith("proved infeasible") and caught.value.exit_code == 3
    for row in caught.value.conflict:
        assert set(row) == {"member", "detail", "least_relief", "amount", "unit"}
    members: dict[str, dict[str, Any]] = {str(row["member"]): row for row in caught.value.conflict}
    assert len(members) == len(caught.value.conflict)
    return members


def limit_of(inputs: Inputs, name: str) -> Limit:
    return next(limit for limit in limits_of(inputs) if limit.name == name)


def relieved(inputs: Inputs, row: dict[str, Any], factor: float = 1.0) -> Inputs:
    """The inputs with one limit moved as its row says, or ``factor`` times as far."""
    limit = limit_of(inputs, row["member"])
    if limit.constraint is not None:
        other = re.search(r"or (?:pin|ban) (\S.*?)(?: \(not enough.*)?$", row["least_relief"])
        return limit.at(inputs, other[1] if other else None)
    if limit.field == "tiers":
        return limit.at(inputs, (*limit.of(inputs), str(row["least_relief"]).split()[1]))
    value = row["amount"] * IN_FIELD.get(row["member"], 1.0) * factor
    return limit.at(inputs, int(value) if limit.field in ("devices", "concurrency", "spare") else value)


def five(**changes: Any) -> Inputs:
    """Big batches within the TPOT limit need a prefill pool, hence a second device, which money does not allow. Neither the TTFT
    limit nor the ban on pipelines has to do with it."""
    given = {"ttft_s": 0.01, "tpot_s": 4.7e-5, "max_usd_per_hour": 7.0, "gap": 1e-5} | changes
    return problem(
        pins=("batch_per_rank>=4",),
        bans=("pp=2,4,8",),
        names={"batch_per_rank>=4": "big batches", "pp=2,4,8": "no pipelines"},
        **given,
    )


def test_of_five_limits_exactly_the_three_that_conflict_are_named() -> None:
    inputs = five()
    assert [limit.name for limit in limits_of(inputs)] == [
        "service level TTFT", "service level TPOT", "money", "big batches", "no pipelines",
    ]  # fmt: skip
    members = conflict_of(inputs)
    assert list(members) == ["service level TPOT", "money", "big batches"]
    assert members["money"]["unit"] == "USD/h" and members["service level TPOT"]["unit"] == "ms"
    every = limits_of(inputs)
    three = [limit for limit in every if limit.name in members]
    rest = [limit for limit in every if limit not in three]
    assert not feasible(without(inputs, rest))
    for limit in three:
        assert feasible(limit.at(inputs, None)), limit
    for limit in rest:
        assert not feasible(limit.at(inputs, None)), limit


@pytest.mark.parametrize(("name", "less"), [("service level TPOT", 0.999), ("money", 1 - 1e-6)])
def test_each_relief_of_the_three_is_the_least(name: str, less: float) -> None:
    inputs = five()
    row = conflict_of(inputs)[name]
    assert feasible(relieved(inputs, row, 1 + 1e-9))
    assert not feasible(relieved(inputs, row, less))


def test_a_range_is_widened_to_the_first_value_that_works() -> None:
    inputs = five(tpot_s=4.5e-5)
    row = conflict_of(inputs)["big batches"]
    match = re.fullmatch(r"drop it, or pin batch_per_rank>=(\d+)", row["least_relief"])
    assert match is not None and row["amount"] == int(match[1])
    limit = limit_of(inputs, "big batches")
    assert feasible(limit.at(inputs, f"batch_per_rank>={match[1]}"))
    assert not feasible(limit.at(inputs, f"batch_per_rank>={int(match[1]) + 1}"))


# -- any problem ---------------------------------------------------------------------------------------------------------
LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "ttft_s": st.sampled_from([5e-5, 1.35e-4, 2e-4, 0.01]),
    "tpot_s": st.sampled_from([1e-5, 4.4e-5, 4.7e-5, 1e-4]),
    "max_usd_per_hour": st.sampled_from([1.0, 7.0, 13.0]),
    "max_power_kw": st.sampled_from([0.5, 1.4, 6.0]),
    "devices": st.sampled_from([1, 2, 3]),
    "concurrency": st.sampled_from([1, 2, 3]),
    "rate": st.sampled_from([10.0, 400.0, 2000.0]),
    "tiers": st.sampled_from([("hbm",), ("hbm", "ssd")]),
    "spare": st.sampled_from([1]),
    "memory": st.sampled_from([60e6, 20e6, 8e6]),
    "nodes": st.sampled_from([1, 2]),
}
PINS = ("tp=1", "tp=2", "batch_per_rank>=4", "batch_per_rank<=1", "units=1", "units>=2", "serving=aggregated", "decode.tp=2",
        "prefill_tokens_per_rank=64", "KV cache@hbm", "weights@host,ssd", "instance_devices<=1", "pp=2")  # fmt: skip
BANS = ("tp=1", "serving=aggregated", "weights@hbm", "pp=1", "prefill_tokens_per_rank=64,256", "KV cache@hbm,host",
        "attention_dp=1")  # fmt: skip


@st.composite
def problems(draw: st.DrawFn) -> Inputs:
    chosen = draw(st.lists(st.sampled_from(sorted(LIMITS)), max_size=5, unique=True))
    pins = tuple(draw(st.lists(st.sampled_from(PINS), max_size=2, unique=True)))
    bans = tuple(draw(st.lists(st.sampled_from(BANS), max_size=2, unique=True)))
    return problem(pins=pins, bans=bans, **{name: draw(LIMITS[name]) for name in chosen})


@settings(max_examples=70)
@given(problems())
def test_the_set_is_irreducible_and_reliefs_work(inputs: Inputs) -> None:
    every = tables_of(inputs)
    try:
        solve(inputs)
    except InfeasibleError as error:
        rows = {str(row["member"]): row for row in error.conflict}
    else:
        assume(False)
    limits = droppable(inputs)
    assert limits == limits_of(inputs)
    found = irreducible(Trials(every, Reporter(), Stop()), inputs, limits)
    assert {limit.name for limit in found} <= set(rows)

    def only(kept: list[Limit]) -> Inputs:
        return without(inputs, (limit for limit in limits if limit not in kept))

    assert not feasible(only(found))
    for limit in found:
        others = [one for one in found if one != limit]
        assert feasible(only(others)), limit
        row = rows[limit.name]
        base = only(found) if "not enough alone" in str(row["least_relief"]) else inputs
        changed = limit.at(base, None)
        if row["amount"] is not None or "or pin" in str(row["least_relief"]) or "or ban" in str(row["least_relief"]):
            changed = relieved(base, row, 1 + (1e-9 if limit.field != "rate" else -1e-9))
        assert feasible(changed), (limit, row)


# -- members of every kind -----------------------------------------------------------------------------------------------
def test_a_pin_and_a_ban_that_contradict_each_other() -> None:
    inputs = problem(pins=("tp=2",), bans=("instance_devices>=2",), names={"tp=2": "wide", "instance_devices>=2": "narrow"})
    members = conflict_of(inputs)
    assert list(members) == ["wide", "narrow"]
    assert members["wide"]["least_relief"] == "drop it, or pin tp=1" and members["wide"]["amount"] == 1
    assert members["narrow"]["least_relief"] == "drop it, or ban instance_devices>=3"


def test_of_several_values_ruled_out_one_is_let_in() -> None:
    members = conflict_of(problem(bans=("prefill_tokens_per_rank=64,256",)))
    assert members["--ban prefill_tokens_per_rank=64,256"]["least_relief"] == "drop it, or ban prefill_tokens_per_rank=256"


def test_an_item_pinned_to_a_memory_that_may_not_be_used() -> None:
    inputs = problem(pins=("weights@host",), tiers=("hbm",))
    members = conflict_of(inputs)
    assert list(members) == ["memories", "--pin weights@host"]
    assert members["--pin weights@host"]["least_relief"] == "drop it, or pin weights@host,hbm"
    assert members["memories"]["least_relief"] == "allow host" and feasible(relieved(inputs, members["memories"]))


def test_the_least_of_a_memory_that_has_to_be_allowed() -> None:
    """As much of the host's memory as stated lets a plan exist, less does not."""
    inputs = problem(memory=8e6, tiers=("hbm",))
    members = conflict_of(inputs)
    assert "hbm capacity" in members and members["memories"]["unit"] == "GB per device"
    for factor, works in ((1 + 1e-6, True), (0.99, False)):
        size = members["memories"]["amount"] * 1e9 * factor
        system = small.node(2, 1, 8e6, host_bytes=size)
        changed = relieved(inputs, members["memories"])
        selection = changed.hardware["mixed"].model_copy(update={"system": system})
        assert feasible(changed.model_copy(update={"hardware": {"mixed": selection}})) is works


def test_conflicts_that_share_no_limit_are_each_named() -> None:
    inputs = problem(max_usd_per_hour=1.0, max_power_kw=0.5, tpot_s=1e-6)
    members = conflict_of(inputs)
    assert {"money", "power", "service level TPOT"} <= set(members)
    changed = inputs
    for name in ("money", "power", "service level TPOT"):
        assert "not enough alone" in members[name]["least_relief"]
        assert not feasible(relieved(inputs, members[name], 1 + 1e-9))
        changed = relieved(changed, members[name], 1 + 1e-9)
    assert feasible(changed)


def test_more_devices_are_not_said_to_be_enough_where_other_limits_conflict_too() -> None:
    """A machine too small for the weights, and a service level that none reaches: devices alone would not do."""
    members = {}
    for tpot_s in (None, 1e-9):
        members[tpot_s] = conflict_of(problem(tpot_s=tpot_s, memory=6e6, tiers=("hbm",)))["devices"]
    assert members[None]["amount"] == members[1e-9]["amount"] is not None
    assert "not enough alone" not in members[None]["least_relief"]
    assert "not enough alone" in members[1e-9]["least_relief"]


def test_a_demand_names_what_can_be_served() -> None:
    inputs = problem(rate=1e5)
    row = conflict_of(inputs)["demand"]
    assert row["unit"] == "requests/s"
    assert feasible(relieved(inputs, row, 1 - 1e-9)) and not feasible(relieved(inputs, row, 1.01))


@pytest.mark.parametrize("name", ["concurrency", "devices", "spare"])
def test_whole_numbers_are_the_least(name: str) -> None:
    options: dict[str, Any] = {
        "concurrency": {"concurrency": 1, "pins": ("batch_per_rank>=3",)},
        "devices": {"devices": 1, "pins": ("tp=2",), "nodes": 2},
        "spare": {"spare": 3, "spare_of": "unit", "pins": ("tp=2",), "nodes": 2},
    }[name]
    inputs = problem(**options)
    row = conflict_of(inputs)[name]
    step = 1 if name == "spare" else -1
    assert feasible(relieved(inputs, row))
    assert not feasible(limit_of(inputs, name).at(inputs, int(row["amount"]) + step))


def test_a_weight_dtype_that_makes_the_model_too_large() -> None:
    options = {"memory": 12e6, "tiers": ("hbm",), "nodes": 1}
    assert not feasible(problem(weight_dtype="bf16", pins=("tp=1",), **options))
    members = conflict_of(problem(weight_dtype="bf16", pins=("tp=1",), **options))
    assert "memories" in members or "weight dtype" in members


def test_with_no_limit_at_all_the_machine_is_to_blame() -> None:
    """The host's memory is too small as well: what device memory lacks, by part, and the devices that would do."""
    system = small.node(2, 1, 2e6, host_bytes=6e5)
    tiers = tuple(t for t in system.tiers if t.role != "storage")
    bare = system.model_copy(update={"tiers": tiers})
    inputs = small.instance(llama(), bare, 1, small.workload(), small.runtime(2, (64,)), tiers=("hbm", "host"))
    members = conflict_of(inputs)
    assert {"hbm capacity", "weights", "reserve", "least KV cache"} <= set(members)
    assert members["hbm capacity"]["amount"] == members["weights"]["amount"] > 0


def test_out_of_time_says_what_was_not_found() -> None:
    inputs = five()
    error = explain_infeasible(tables_of(inputs), Reporter(), Stop(deadline=0.0))
    assert "--time-limit" in str(error)
    assert [row["member"] for row in error.conflict] == [limit.name for limit in limits_of(inputs)]
    assert {row["least_relief"] for row in error.conflict} == {"not found within the time limit"}


def test_what_cannot_be_planned_is_no_way_out() -> None:
    """A model without drafts cannot be planned with them, so the pin that excludes them is never blamed."""
    inputs = problem(tpot_s=1e-6, pins=("mtp=0",), mtp=(0, 1))
    assert [limit.name for limit in droppable(inputs)] == ["service level TPOT"]
    assert next(iter(conflict_of(inputs))) == "service level TPOT"
    with pytest.raises(InputError, match="no draft module"):
        feasible(problem(mtp=1))


def test_the_machine_is_judged_in_the_weight_dtype_asked() -> None:
    """A dtype that does not decide is no member, but what the machine lacks is counted in it."""
    lacks = {}
    for dtype in (None, "fp8"):
        inputs = small.instance(
            llama(), small.node(2, 1, 2e6), 1, small.workload(), small.runtime(2, (64,)), tiers=("hbm",), weight_dtype=dtype
        )
        lacks[dtype] = conflict_of(inputs)["hbm capacity"]["amount"]
    assert lacks["fp8"] < 0.7 * lacks[None]
