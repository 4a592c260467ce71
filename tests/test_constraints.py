"""Pins and bans: how they are read, and that a search under them finds the best of what a hand leaves of the space."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st
from test_search import BruteForce, Feasible

from planner.cli.main import main
from planner.errors import InfeasibleError, InputError
from planner.footprint import Shapes
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.constraints import AXES, RANGE_AXES, SHAPE_AXES, Constraint, parse_constraints, shape_filter
from planner.plans.context import PoolContext, build_context
from planner.plans.decision import Decision, PoolDecision
from planner.plans.space import configuration_count, declare_space
from planner.plans.states import pool_problem
from planner.plans.worth import operation_objective
from planner.search import solve


# -- reading -------------------------------------------------------------------------------------------------------------
def read(rule: str, sort: str = "pin") -> Constraint:
    (found,) = parse_constraints([rule], []) if sort == "pin" else parse_constraints([], [rule])
    return found


@pytest.mark.parametrize(
    ("rule", "axis"),
    [
        ("tp=8", (None, "tp", "=", ("8",))),
        ("decode.ep=32,64", ("decode", "ep", "=", ("32", "64"))),
        ("batch_per_rank<=64", (None, "batch_per_rank", "<=", ("64",))),
        ("prefill.devices>=16", ("prefill", "devices", ">=", ("16",))),
        ("serving=aggregated", (None, "serving", "=", ("aggregated",))),
        ("kv_dtype=fp8,bf16", (None, "kv_dtype", "=", ("fp8", "bf16"))),
        ("mtp=0", (None, "mtp", "=", ("0",))),
    ],
)
def test_axes_are_read(rule: str, axis: tuple[Any, ...]) -> None:
    found = read(rule)
    assert found.axis == axis and found.place is None and found.name == f"--pin {rule}"


@pytest.mark.parametrize("rule", ["KV cache@hbm", "routed experts@host,ssd", "weights@device"])
def test_places_are_read(rule: str) -> None:
    item, _, memories = rule.partition("@")
    found = read(rule, "ban")
    assert found.place == (item, tuple(memories.split(","))) and found.axis is None and found.name == f"--ban {rule}"


@pytest.mark.parametrize(
    ("sort", "rule", "words"),
    [
        ("pin", "", "cannot read|at least 1"),
        ("pin", "tp", "cannot read"),
        ("pin", "tp==8", "cannot read"),
        ("pin", "tp<8", "cannot read"),
        ("pin", "tp=８", "cannot read"),
        ("pin", "tp=8 ", "cannot read"),
        ("pin", "x" * 600, "at most 512"),
        ("pin", "tpp=8", "did you mean tp"),
        ("pin", "both.tp=8", "cannot read"),
        ("pin", "tp=eight", "whole numbers"),
        ("pin", "tp=-8", "whole numbers"),
        ("pin", "tp=8.5", "whole numbers"),
        ("pin", "tp=8,,16", "whole numbers"),
        ("pin", "tp=1234567890", "whole numbers"),
        ("pin", "tp<=8,16", "whole numbers"),
        ("pin", "serving=both", "aggregated\\|disaggregated"),
        ("pin", "serving<=aggregated", "serving="),
        ("pin", "decode.serving=aggregated", "serving="),
        ("pin", "prefill.units=2", "whole deployment"),
        ("pin", "decode.mtp=1", "whole deployment"),
        ("pin", "devices=8", "of which pool"),
        ("ban", "batch_per_rank=8", "pin a range"),
        ("ban", "units<=8", "pin a range"),
        ("pin", "units=1,2", "one number or a range"),
        ("pin", "prefill.batch_per_rank=8", "prefill pool does not decode"),
        ("pin", "decode.prefill_tokens_per_rank=64", "decode pool does not prefill"),
        ("pin", "weights@", "cannot read"),
        ("pin", "@hbm", "cannot read"),
        ("pin", "weights@hbm@ssd", "cannot read"),
        ("pin", "weights\n@hbm", "cannot read"),
    ],
)
def test_what_cannot_be_read_is_one_line(sort: str, rule: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(rule, sort)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


def test_one_name_for_two_constraints() -> None:
    with pytest.raises(InputError, match="one name"):
        parse_constraints(["tp=8", "tp=8"], [])


NUMBERS = st.integers(0, 999_999_999)
WORD = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,12}", fullmatch=True)


@st.composite
def rules(draw: st.DrawFn) -> tuple[str, str]:
    """``(sort, rule)`` of any kind."""
    sort = draw(st.sampled_from(["pin", "ban"]))
    if draw(st.booleans()):
        item = draw(st.from_regex(r"[A-Za-z][A-Za-z0-9 -]{0,20}", fullmatch=True))
        return sort, f"{item}@{','.join(draw(st.lists(WORD, min_size=1, max_size=3)))}"
    name = draw(st.sampled_from(SHAPE_AXES if sort == "ban" else (*SHAPE_AXES, *RANGE_AXES)))
    if name == "units":
        pool = ""
    else:
        pool = draw(st.sampled_from(["", "decode."] if name == "batch_per_rank" else ["", "prefill.", "decode."]))
    sign = draw(st.sampled_from(["=", "<=", ">="]))
    several = sign == "=" and name not in RANGE_AXES
    values = draw(st.lists(NUMBERS, min_size=1, max_size=4 if several else 1))
    return sort, f"{pool}{name}{sign}{','.join(str(v) for v in values)}"


@given(rules())
def test_what_is_read_is_what_was_written(rule: tuple[str, str]) -> None:
    found = read(rule[1], rule[0])
    assert (found.sort, found.rule) == rule
    assert (found.axis is None) != (found.place is None)
    assert Constraint.model_validate(json.loads(found.model_dump_json())) == found
    if found.axis:
        pool, name, sign, values = found.axis
        assert f"{pool}.{name}{sign}{','.join(values)}".removeprefix("None.") == rule[1]
    else:
        assert found.place is not None and f"{found.place[0]}@{','.join(found.place[1])}" == rule[1]


@given(st.text(max_size=40), st.sampled_from(["pin", "ban"]))
def test_any_text_is_read_or_refused(text: str, sort: str) -> None:
    try:
        found = read(text, sort)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert found.rule == text


@given(rules(), st.lists(st.integers(0, 64), min_size=1, max_size=8))
def test_a_ban_keeps_what_the_same_pin_does_not(rule: tuple[str, str], values: list[int]) -> None:
    pin = read(rule[1])
    if pin.axis is None or pin.axis[1] in RANGE_AXES:
        return
    ban = read(rule[1], "ban")
    assert (np.asarray(pin.keeps(values)) == ~np.asarray(ban.keeps(values))).all()
    _, _, sign, wanted = pin.axis
    by_hand = [v in [int(w) for w in wanted] if sign == "=" else v <= int(wanted[0]) if sign == "<=" else v >= int(wanted[0])
               for v in values]  # fmt: skip
    assert np.asarray(pin.keeps(values)).tolist() == by_hand


# -- the file ------------------------------------------------------------------------------------------------------------
def test_a_file_gives_names(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[constraint]]\nname = "licence"\npin = "tp=8"\n[[constraint]]\nban = "weights@ssd"\n', encoding="utf-8")
    found = parse_constraints(["pp=1"], ["ep=1"], str(path))
    assert [(c.name, c.sort, c.rule) for c in found] == [
        ("--pin pp=1", "pin", "pp=1"),
        ("--ban ep=1", "ban", "ep=1"),
        ("licence", "pin", "tp=8"),
        ("ban weights@ssd", "ban", "weights@ssd"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "constraint: is missing"),
        ("constraint = 3", "constraint"),
        ("[[constraint]]\nname = 'a'", "either pin or ban"),
        ("[[constraint]]\npin = 'tp=1'\nban = 'tp=2'", "either pin or ban"),
        ("[[constraint]]\npin = 'tp=1'\nwhy = 'so'", "unknown key"),
        ("[[constraint]]\npin = 8", "string"),
        ("[[constraint]]\npin = 'tpp=1'", "did you mean tp"),
        ("[[constraint]]\nname = ''\npin = 'tp=1'", "at least 1"),
        ("[[constraint]]\nname = '" + "n" * 200 + "'\npin = 'tp=1'", "at most 120"),
        ("[[constraint]]\npin = '" + "x" * 10_000 + "'", "at most 512"),
        ("[[constraint]]\npin = 'tp=1'\n" * 300, "at most 256"),
        ("[[constraint]]\nname = 'a'\npin = 'tp=1'\n" * 2, "one name"),
        ("[[constraint", "rules.toml"),
        ("[[constraint]]\npin = 'tp=1'\n[other]\n", "unknown key"),
        ("\x00", "rules.toml"),
    ],
)
def test_a_hostile_file_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as caught:
        parse_constraints([], [], str(path))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 900


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError):
            parse_constraints([], [], str(path))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.toml"):
        parse_constraints([], [], str(tmp_path / "bytes.toml"))


# -- against a hand ------------------------------------------------------------------------------------------------------
AXIS = re.compile(r"(?:(prefill|decode)\.)?(\w+)(<=|>=|=)(.*)")
FIELDS = {
    "tp": "tp", "pp": "pp", "ep": "ep", "attention_dp": "dp", "context_parallel": "cp", "instance_devices": "instance_devices",
    "batch_per_rank": "batch", "prefill_tokens_per_rank": "chunk", "devices": "devices",
}  # fmt: skip
NEVER = {"prefill": "batch_per_rank", "decode": "prefill_tokens_per_rank"}


def allows(sort: str, rule: str, decision: Decision) -> bool:
    """Whether a decision satisfies a constraint, told apart from the code under test."""
    pool, name, sign, text = AXIS.fullmatch(rule).groups()  # type: ignore[union-attr]
    mode = "aggregated" if len(decision.pools) == 1 else "disaggregated"
    if pool and mode == "aggregated":
        return sort == "ban"
    if name == "serving":
        seen: list[Any] = [mode]
    elif name == "kv_dtype":
        seen = [decision.variant.kv_dtype]
    elif name == "mtp":
        seen = [decision.variant.mtp]
    elif name == "units":
        seen = list(decision.units)
    else:
        pools = [p for p in decision.pools if pool in (None, p.phase) and NEVER.get(p.phase) != name]
        seen = [getattr(p, FIELDS[name]) for p in pools]
    values = text.split(",")
    if sign == "=":
        good = [str(v) in values for v in seen]
    else:
        good = [v <= int(text) if sign == "<=" else v >= int(text) for v in seen]
    return all(good) if sort == "pin" else not any(good)


@cache
def both_ways() -> Inputs:
    """Two devices, aggregated or apart, every axis with two values at least."""
    software = small.runtime(2, (64, 256))
    options: dict[str, Any] = {"mtp": (0, 1), "kv_dtype": ("bf16", "fp8")}
    return small.instance(small.experts(layers=3), small.node(2, 1, 60e6), 1, small.workload(), software, **options)


@cache
def apart() -> Inputs:
    """Two nodes of two devices, prefill and decode apart."""
    software = small.runtime(3, (64, 256), aggregated=False)
    return small.instance(small.llama(layers=8, hidden=256, inner=512, vocabulary=512), small.node(2, 1, 60e6), 2, None, software)


@cache
def walked(name: str) -> list[Feasible]:
    return BruteForce(both_ways() if name == "both" else apart()).run()


def constrained(inputs: Inputs, constraints: tuple[Constraint, ...], **changes: Any) -> Inputs:
    return inputs.model_copy(update={"options": inputs.options.model_copy(update={"constraints": constraints, **changes})})


SIGNS = {"cost": 1.0, "throughput": -1.0, "latency": 1.0}


def compared(inputs: Inputs, feasible: list[Feasible], objectives: Iterable[str] = SIGNS) -> None:
    """The search against what a hand left, and the plan verified."""
    for objective in objectives:
        sign = SIGNS[objective]
        chosen = constrained(inputs, inputs.options.constraints, objective=objective)
        if not feasible:
            with pytest.raises(InfeasibleError):
                solve(chosen)
            continue
        plan = solve(chosen)
        context = build_context(chosen)
        best = min(sign * operation_objective(context, entry.operation) for entry in feasible)
        certificate = plan.certificate
        assert certificate.proved and sign * certificate.bound <= best + 1e-9 * abs(best)
        assert best - 1e-9 * abs(best) <= sign * certificate.objective <= best + (chosen.options.gap + 1e-9) * abs(best)
        assert verify_plan(plan, full=all(" mixed " in name for name in certificate.nodes))[0] == []


CASES = [
    ("both", sort, rule)
    for name, values in {
        "tp": ("=1", "=2", "<=1", ">=2", "=1,2", "=3"), "pp": ("=2", "=1"), "ep": ("=2", "=1"), "attention_dp": ("=2", "=1"),
        "context_parallel": ("=2", "=1"), "instance_devices": ("=2", "<=1"), "prefill_tokens_per_rank": ("=64", ">=256"),
        "serving": ("=aggregated", "=disaggregated"), "kv_dtype": ("=fp8", "=bf16"), "mtp": ("=1", "=0"),
    }.items()
    for rule in (f"{name}{value}" for value in values)
    for sort in ("pin", "ban")
] + [
    ("both", "pin", rule)
    for rule in ("batch_per_rank=2", "batch_per_rank>=2", "batch_per_rank<=1", "batch_per_rank>=9", "units=2", "units<=1",
                 "units>=2", "units=0", "decode.batch_per_rank=1", "prefill.tp=1", "decode.pp=1")
] + [
    ("both", "ban", "prefill.tp=1"), ("both", "ban", "decode.ep=1"),
] + [
    ("apart", sort, rule)
    for rule in ("prefill.tp=2", "decode.tp=2", "decode.tp=1", "prefill.prefill_tokens_per_rank=64", "prefill.devices=2",
                 "decode.devices>=3", "decode.devices<=1", "prefill.instance_devices<=1", "decode.pp=2", "tp=2")
    for sort in ("pin", "ban")
] + [("apart", "pin", "decode.batch_per_rank=2"), ("apart", "pin", "units=3")]  # fmt: skip


@pytest.mark.parametrize(("where", "sort", "rule"), CASES)
def test_every_axis_against_a_hand(where: str, sort: str, rule: str) -> None:
    base = both_ways() if where == "both" else apart()
    feasible = [entry for entry in walked(where) if allows(sort, rule, entry.decision)]
    if rule.startswith(("kv_dtype", "mtp")) and not feasible:
        return
    objective = list(SIGNS)[CASES.index((where, sort, rule)) % 3]
    compared(constrained(base, (read(rule, sort),)), feasible, [objective])


def test_every_axis_has_a_case() -> None:
    assert {AXIS.fullmatch(rule)[2] for _, _, rule in CASES} == set(AXES)  # type: ignore[index]


@pytest.mark.parametrize(
    "several",
    [
        (("pin", "serving=disaggregated"), ("ban", "prefill.tp=2"), ("pin", "decode.batch_per_rank=2")),
        (("pin", "kv_dtype=fp8"), ("ban", "tp=1"), ("pin", "batch_per_rank<=1")),
        (("pin", "serving=aggregated"), ("pin", "decode.tp=1")),
    ],
)
def test_several_together(several: tuple[tuple[str, str], ...]) -> None:
    feasible = [entry for entry in walked("both") if all(allows(sort, rule, entry.decision) for sort, rule in several)]
    compared(constrained(both_ways(), tuple(read(rule, sort) for sort, rule in several)), feasible)


# -- where items lie -----------------------------------------------------------------------------------------------------
class Placing(BruteForce):
    """Every placement problem in full, without the columns that a hand crosses out."""

    def __init__(self, inputs: Inputs, crossed: set[tuple[str, str]]) -> None:
        self.crossed = crossed
        super().__init__(inputs)

    def _try(self, decision: Decision, placed: tuple[np.ndarray, ...]) -> Iterator[Feasible]:
        pools = tuple(replace(pool, basis="needed") for pool in decision.pools)
        yield from super()._try(replace(decision, pools=pools), placed)

    def _placements(self, pool: PoolContext, decision: PoolDecision) -> Iterator[np.ndarray]:
        problem, _ = pool_problem(pool, replace(decision, basis="needed"))
        out = [i for i, c in enumerate(problem.choices) if (problem.items[c.item].name, c.tier) in self.crossed]
        matrix = problem.program.matrix.copy()
        matrix[:, out] = 0.0
        solution = small.simplex(replace(problem.program, matrix=matrix))
        if solution is not None:
            shares = np.maximum(solution[1][: len(problem.choices)], 0.0)
            shares[out] = 0.0
            yield shares


PLACES = [
    ("pin", "weights@host", {("weights", "hbm"), ("weights", "ssd")}),
    ("pin", "weights@disk,device", {("weights", "host")}),
    ("pin", "KV cache@hbm", {("KV cache", "host"), ("KV cache", "ssd")}),
    ("ban", "KV cache@device", {("KV cache", "hbm")}),
    ("ban", "weights@hbm,host", {("weights", "hbm"), ("weights", "host")}),
    ("ban", "routed experts@ddr", {("routed experts", "host")}),
    ("pin", "routed experts@ssd", {("routed experts", "hbm"), ("routed experts", "host")}),
    ("ban", "weights@hbm,host,ssd", {("weights", "hbm"), ("weights", "host"), ("weights", "ssd")}),
]


@pytest.mark.parametrize(("sort", "rule", "crossed"), PLACES)
@pytest.mark.parametrize("memory", [60e6, 15e6])
def test_where_an_item_lies_against_a_hand(sort: str, rule: str, crossed: set[tuple[str, str]], memory: float) -> None:
    subject = small.experts(layers=3) if "experts" in rule else small.llama(layers=8, hidden=256, inner=512, vocabulary=512)
    software = small.runtime(2, (64,), disaggregated=False)
    free = small.instance(subject, small.node(1, 1, memory), 1, None, software)
    inputs = constrained(free, (read(rule, sort),))
    compared(inputs, Placing(free, crossed).run())
    try:
        plan = solve(inputs)
    except InfeasibleError:
        return
    rows = [(row.item, row.tier) for pool in plan.pools for row in pool.placement if row.share > 1e-12]
    assert rows and not crossed & {(item.split("/")[-1], tier) for item, tier in rows}


def test_an_item_kept_out_of_device_memory_moves() -> None:
    """Nothing would need another memory; the ban makes it so."""
    inputs = constrained(apart(), (read("weights@hbm", "ban"),))
    plan = solve(inputs)
    held = {(row.item, row.tier) for pool in plan.pools for row in pool.placement if row.share > 1e-12}
    assert not any(tier == "hbm" and item == "weights" for item, tier in held) and any(tier == "host" for _, tier in held)
    assert verify_plan(plan)[0] == []


def test_an_item_that_may_lie_nowhere() -> None:
    inputs = constrained(both_ways(), (read("KV cache@hbm,host,ssd", "ban"),))
    with pytest.raises(InfeasibleError) as caught:
        solve(inputs)
    assert [row["member"] for row in caught.value.conflict][0] == "--ban KV cache@hbm,host,ssd"


@pytest.mark.parametrize(
    ("rule", "words"), [("tables@hbm", "no item 'tables'.*known: .*weights"), ("weights@tape", "no memory 'tape'.*known: .*ssd")]
)
def test_unknown_items_and_memories(rule: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        solve(constrained(apart(), (read(rule),)))


def test_pools_of_different_machines_need_not_all_have_a_memory() -> None:
    """A memory that one of two kinds of hardware has is known."""
    from planner.api import resolve
    from planner.hardware import HardwareSelection

    bare = small.node(1, 1, 60e6)
    bare = bare.model_copy(update={"id": "bare", "tiers": tuple(t for t in bare.tiers if t.role != "disk")})
    pools = {"prefill": HardwareSelection(system=bare), "decode": HardwareSelection(system=small.node(1, 1, 60e6))}
    subject = small.llama(layers=8, hidden=256, inner=512, vocabulary=512)
    given = {"workload": small.workload(), "runtime": small.runtime(2, (64,))}
    plan = solve(resolve(subject, pools, constraints=(read("KV cache@ssd", "ban"),), **given))
    assert plan.mode == "disaggregated" and verify_plan(plan)[0] == []
    with pytest.raises(InputError, match="no memory 'tape'"):
        solve(resolve(subject, pools, constraints=(read("KV cache@tape", "ban"),), **given))


# -- the declared space and verify ---------------------------------------------------------------------------------------
def test_the_space_counts_what_constraints_leave_and_names_what_they_turn_away() -> None:
    free = declare_space(build_context(both_ways()))
    rules = (read("tp=1"), read("pp=2", "ban"), read("batch_per_rank>=2"), read("prefill_tokens_per_rank=64"), read("units=2"))
    inputs = constrained(both_ways(), rules)
    space = declare_space(build_context(inputs))
    mixed, before = space.pools["mixed"], free.pools["mixed"]
    by_hand = 0
    turned = {"--pin tp=1": 0, "--ban pp=2": 0}
    for shapes in before.shapes:
        for row in range(len(shapes.tp)):
            if shapes.tp[row] != 1:
                turned["--pin tp=1"] += 1
            elif shapes.pp == 2:
                turned["--ban pp=2"] += 1
            else:
                by_hand += 1
    assert mixed.shape_count == by_hand and by_hand + sum(turned.values()) == before.shape_count
    assert {name: mixed.rejected[name] for name in turned} == turned
    assert (mixed.chunks, mixed.least_batch, mixed.batches, mixed.least_units, mixed.units) == ((64,), 2, 2, 2, 2)
    count = configuration_count(space)
    assert count == {"aggregated": by_hand, "disaggregated": by_hand * by_hand * len(space.splits)}
    assert [split[2] for split in space.splits] == [2] * len(space.splits)
    plan = solve(inputs)
    assert plan.certificate.space["configurations"]["total"] == 4 * sum(count.values())
    assert plan.certificate.space["pools"]["mixed"]["rejected"]["--pin tp=1"] == turned["--pin tp=1"]


def test_a_side_has_a_space_of_its_own() -> None:
    inputs = constrained(apart(), (read("decode.tp=2"), read("prefill.prefill_tokens_per_rank=64")))
    space = declare_space(build_context(inputs))
    assert {int(tp) for s in space.pools["decode"].shapes for tp in s.tp} == {2} and space.pools["prefill"].chunks == (64,)
    assert {int(tp) for s in space.pools["prefill"].shapes for tp in s.tp} == {1, 2} and not space.aggregated
    by_hand = sum(
        space.pools["prefill"].shape_count * space.pools["decode"].shape_count * space.pools["decode"].batches
        for _ in space.splits
    )
    assert configuration_count(space) == {"aggregated": 0, "disaggregated": by_hand}


def test_a_pin_of_a_side_asks_for_sides_and_a_ban_does_not() -> None:
    for sort, aggregated in (("pin", False), ("ban", True)):
        space = declare_space(build_context(constrained(both_ways(), (read("decode.tp=2", sort),))))
        assert space.aggregated is aggregated


def test_shape_filter_names_each_constraint() -> None:
    shapes = Shapes(np.array([1.0, 2.0]), np.array([2.0, 1.0]), np.array([1.0, 2.0]), 4, np.array([1.0, 2.0]))
    found = shape_filter((read("tp=2"), read("pp=4", "ban"), read("decode.ep=1")), shapes, "prefill")
    assert [(name, keeps.tolist()) for name, keeps in found] == [("--pin tp=2", [False, True]), ("--ban pp=4", [False, False])]


@pytest.mark.parametrize(
    ("sort", "rule"),
    [
        ("ban", "tp=1"), ("pin", "batch_per_rank=1"), ("pin", "prefill_tokens_per_rank=64"), ("pin", "units=2"),
        ("pin", "serving=disaggregated"), ("pin", "kv_dtype=bf16"), ("pin", "decode.tp=1"), ("ban", "weights@hbm"),
        ("pin", "decode.devices=1"),
    ],
)  # fmt: skip
def test_verify_refuses_a_plan_that_breaks_a_constraint(sort: str, rule: str) -> None:
    """A plan made without the constraint, which is then written into its inputs together with the space it leaves."""
    inputs = constrained(both_ways(), (), mtp=(0,))
    plan = solve(inputs)
    pool = plan.pools[0]
    assert plan.mode == "aggregated" and pool.configuration.batch_per_rank == 2 and plan.units[0].units == 1
    assert (pool.configuration.tp, pool.configuration.kv_dtype, pool.configuration.prefill_tokens_per_rank) == (1, "fp8", 256)
    broken = constrained(inputs, (read(rule, sort),))
    data = plan.to_data()
    data["inputs"] = broken.model_dump(mode="json", by_alias=True)
    data["certificate"]["space"] = solve(broken).certificate.space
    violations, _ = verify_plan(Plan.model_validate(data), full=False)
    wrong = [v for v in violations if not v.path.startswith("certificate.space")]
    assert wrong and wrong[0].path.startswith(("pools", "units", "mode")), violations


# -- the command ---------------------------------------------------------------------------------------------------------
def test_the_command_takes_pins_bans_and_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('[[constraint]]\nname = "one rack rule"\npin = "batch_per_rank<=4"\n', encoding="utf-8")
    where = ["llama-3.1-8b", "h100-node", "--quiet", "--format", "json"]

    def run(*arguments: str) -> tuple[int, Any]:
        monkeypatch.setattr(sys, "argv", ["planner", "plan", *where, *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(str(stop.value.code)), json.loads(out) if out else err

    code, plan = run("--pin", "tp=2", "--ban", "pp=2", "--constraints", str(path))
    assert code == 0
    for pool in plan["pools"]:
        assert pool["configuration"]["tp"] == 2 and pool["configuration"]["batch_per_rank"] <= 4
    assert [c["name"] for c in plan["inputs"]["options"]["constraints"]] == ["--pin tp=2", "--ban pp=2", "one rack rule"]
    code, conflict = run("--pin", "tp=1", "--tpot", "5ms", "--constraints", str(path))
    assert code == 3 and "--pin tp=1" in {row["member"] for row in conflict["conflict"]}
    code, text = run("--pin", "tpp=2")
    assert code == 2 and "did you mean tp" in text
    assert math.isfinite(plan["certificate"]["gap"])
