"""Law 2 from the side of the reader: a plan is accepted as it is, and refused with any one of its numbers changed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import small

from planner.api import plan as make_plan
from planner.api import verify
from planner.errors import InputError, PlannerError, VerificationError
from planner.plans import Plan, verify_plan
from planner.plans.read import read_plan
from planner.workload import load_workload

Path = tuple[str | int, ...]
reader = importlib.import_module("planner.plans.verify")


@cache
def text_of(name: str) -> str:
    """The JSON of a real plan: on 768 dies, with experts in host memory, with prefill and decode apart, for the worst case."""
    model, hardware = {"cloudmatrix": ("deepseek-v3", "cloudmatrix384"), "host-memory": ("deepseek-v3", "h800-node")}.get(
        name, ("llama-3.1-70b", "h100-node")
    )
    load = load_workload("interactive")
    if name == "host-memory":
        load = load.model_copy(update={"tpot_s": 1.0})
    return make_plan(model, hardware, workload=load, robust="intervals" if name == "worst-case" else None).to_json()


PLANS = ("cloudmatrix", "host-memory", "disaggregated", "worst-case")
each_plan = pytest.mark.parametrize("name", PLANS)


@cache
def data_of(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text_of(name))
    return data


def changes(value: int | float) -> Iterator[int | float]:
    """What law 2 changes a number to: integers by one, floats by a millionth, zero to a millionth; both ways."""
    if isinstance(value, int):
        yield from (value + 1, value - 1)
    elif value == 0.0:
        yield from (1e-6, -1e-6)
    else:
        yield from (value * (1 + 1e-6), value * (1 - 1e-6))


def numbers(data: dict[str, Any]) -> list[tuple[Path, int | float]]:
    return list(small.leaves({key: value for key, value in data.items() if key != "inputs"}))


def remember(function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
    """A pure function that computes once for equal arguments, its failures included."""
    known: dict[Any, tuple[bool, Any]] = {}

    def call(*arguments: Any) -> Any:
        name = key(*arguments)
        if name not in known:
            try:
                known[name] = (True, function(*arguments))
            except PlannerError as error:
                known[name] = (False, error)
        good, value = known[name]
        if not good:
            raise value
        return value

    return call


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """``verify`` with its pure steps remembered by all they depend on; the embedded inputs must be the same throughout.

    A changed number that feeds the decision or the certificate is a new key, so it is computed afresh; any other leaves what is
    expected as it was.
    """
    inputs = remember(reader.inputs_of, lambda plan, where: where)
    monkeypatch.setattr(reader, "inputs_of", inputs)
    monkeypatch.setattr(reader, "build_context", remember(reader.build_context, lambda inputs, variant: (id(inputs), variant)))
    monkeypatch.setattr(reader, "operate", remember(reader.operate, lambda context, decision: decision))
    monkeypatch.setattr(
        reader,
        "assemble",
        remember(
            reader.assemble,
            lambda context, decision, proof, least, front, *rest: (
                (decision, proof.bound, tuple(proof.nodes.items()), proof.stopped, least, repr(front), repr(rest))
            ),
        ),
    )
    monkeypatch.setattr(reader, "_notices", lambda inputs: [])


def refusal(data: dict[str, Any]) -> list[tuple[str, str]]:
    """``(path, equation)`` of what is violated; empty if the plan is accepted."""
    try:
        return [(v.path, v.equation) for v in verify(json.dumps(data))[0]]
    except VerificationError as error:
        return [(str(v["path"]), str(v["equation"])) for v in error.violations]


@each_plan
def test_every_plan_is_accepted(name: str) -> None:
    violations, notices = verify(text_of(name))
    assert violations == []
    assert notices == []
    assert verify(Plan.model_validate(data_of(name))) == (violations, notices)


def test_the_plans_are_what_the_sweep_is_meant_for() -> None:
    assert data_of("cloudmatrix")["pools"][0]["devices"] > 100
    assert any(row["tier"] == "host" for pool in data_of("host-memory")["pools"] for row in pool["placement"])
    assert data_of("disaggregated")["mode"] == "disaggregated"
    assert all(len(numbers(data_of(name))) > 300 for name in PLANS)


@each_plan
@pytest.mark.usefixtures("quick")
def test_every_number_changed_is_refused_by_name(name: str) -> None:
    """Each numeric leaf outside the embedded inputs, in turn, up and down: at least one named equation is violated."""
    data = data_of(name)
    assert verify_plan(Plan.model_validate(data), "plan")[0] == []
    accepted = []
    for path, value in numbers(data):
        for leaf in changes(value):
            changed = small.changed(data, path, leaf)
            try:
                found = [(v.path, v.equation) for v in verify_plan(Plan.model_validate(changed), "plan")[0]]
            except ValueError:
                found = refusal(changed)
            if not found or any(equation == "unknown entry" for _, equation in found):
                accepted.append((".".join(map(str, path)), value, leaf, found[:2]))
    assert accepted == []


@each_plan
def test_the_quick_way_decides_like_the_plain_one(
    name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Every twenty-third number by the public function on text, nothing remembered; the violations are the same ones."""
    data = data_of(name)
    some = numbers(data)[::23]
    plain = [refusal(small.changed(data, path, next(changes(value)))) for path, value in some]
    assert all(plain)
    request.getfixturevalue("quick")
    assert [refusal(small.changed(data, path, next(changes(value)))) for path, value in some] == plain


def test_a_number_out_of_its_range_is_refused_by_name() -> None:
    data = data_of("disaggregated")
    share: Path = ("pools", 0, "placement", 0, "share")
    assert refusal(small.changed(data, share, 1.000001)) == [
        ("pools.0.placement.0.share", "placement: bytes = item bytes x share x copies, shares sum to one")
    ]
    assert refusal(small.changed(data, ("schema_version",), 2)) == [("schema_version", "identity: the plan names its own inputs")]
    with pytest.raises(VerificationError) as refused:
        read_plan(json.dumps(small.changed(data, share, 1.000001)), "p.json")
    assert refused.value.exit_code == 4 and "p.json" in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"schema_version": 1}',
        '{"schema_version": 2}',
        '{"schema_version": true}',
        '{"schema_version": "1"}',
    ],
)
def test_what_is_no_plan_is_bad_input(text: str) -> None:
    with pytest.raises(InputError) as refused:
        verify(text, where="p.json")
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)


def test_a_key_missing_added_or_of_another_type_is_bad_input() -> None:
    data = data_of("disaggregated")
    for changed in (
        {key: value for key, value in data.items() if key != "cost"},
        {**data, "more": 1},
        {**data, "idle_devices": "none"},
        small.changed(data, ("prediction", "requests_per_s"), 0) | {"inputs": []},
    ):
        with pytest.raises(InputError):
            verify(json.dumps(changed))


@each_plan
def test_text_changed_is_refused_by_name(name: str) -> None:
    """Words count too: names, units, notes and the explanation are computed from the numbers."""
    data = data_of(name)

    def texts(value: Any, path: Path = ()) -> Iterator[Path]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from texts(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from texts(item, (*path, index))
        elif isinstance(value, str):
            yield path

    found = [p for p in texts({k: v for k, v in data.items() if k != "inputs"}) if p[:2] != ("certificate", "nodes")]
    for path in found[:: max(len(found) // 12, 1)]:
        here: Any = data
        for step in path:
            here = here[step]
        try:
            violations = refusal(small.changed(data, path, here + "x"))
        except InputError:
            continue  # a word of the schema
        assert violations and all(equation != "unknown entry" for _, equation in violations), path


def test_rows_left_out_or_doubled_are_refused() -> None:
    data = data_of("host-memory")
    for path in (
        ("pools", 0, "placement"),
        ("bottlenecks",),
        ("shadow_prices",),
        ("provenance", "sources"),
        ("certificate", "space", "serving"),
    ):
        rows: Any = data
        for step in path:
            rows = rows[step]
        assert refusal(small.changed(data, path, rows[1:])), path  # type: ignore[arg-type]
        assert refusal(small.changed(data, path, [*rows, rows[-1]])), path  # type: ignore[arg-type]


# --- placements and configurations ---------------------------------------------------------------------------------


def test_another_basis_is_refused() -> None:
    """Each single exchange of a basic column: singular, infeasible, not optimal, or another set of numbers."""
    data = data_of("host-memory")
    index = next(i for i, pool in enumerate(data["pools"]) if pool["placement_basis"])
    length, _, digits = data["pools"][index]["placement_basis"].partition(":")
    bits = bin(int(digits, 16))[2:].zfill(int(length))
    ones, zeros = [i for i, b in enumerate(bits) if b == "1"], [i for i, b in enumerate(bits) if b == "0"]
    for step in range(30):
        leave, enter = ones[step * 7 % len(ones)], zeros[step * 5 % len(zeros)]
        other = "".join("0" if i == leave else "1" if i == enter else b for i, b in enumerate(bits))
        changed = small.changed(data, ("pools", index, "placement_basis"), f"{length}:{int(other, 2):x}")  # type: ignore[arg-type]
        assert refusal(changed), (leave, enter)


def test_a_feasible_but_worse_placement_is_refused_though_every_number_follows() -> None:
    """A plan assembled from a vertex that is not optimal: all printed numbers agree with it, the reduced costs do not."""
    from dataclasses import replace

    import numpy as np

    from planner.plans.assemble import assemble
    from planner.plans.context import build_context
    from planner.plans.lp import encode_basis, vertex
    from planner.plans.read import certificate_of, decision_of, inputs_of, least_of
    from planner.plans.states import pool_problem
    from planner.search import solve

    inputs = small.instance(small.llama(layers=16, hidden=256, inner=512, vocabulary=512), small.node(1, 1, 12e6), 1)
    plan = solve(inputs)
    context = build_context(inputs_of(plan, "p"))
    decision = decision_of(plan, "p")
    (pool,) = decision.pools
    assert pool.basis is not None
    problem, _ = pool_problem(context.pools["mixed"], pool)
    size = len(problem.program.columns) + len(problem.program.rows)
    from planner.plans.lp import decode_basis

    basis = decode_basis(pool.basis, size)
    best = float(problem.program.cost @ vertex(problem.program, basis).values)
    worse = 0
    for leave in np.flatnonzero(basis):
        for enter in np.flatnonzero(~basis):
            other = basis.copy()
            other[leave], other[enter] = False, True
            try:
                point = vertex(problem.program, other)
            except InputError:
                continue
            if point.infeasibility > 1e-9 or float(problem.program.cost @ point.values) < best * (1 + 1e-3):
                continue
            moved = replace(decision, pools=(replace(pool, basis=encode_basis(other)),))
            proof = certificate_of(plan)
            forged = Plan.model_validate(assemble(context, moved, proof, least_of(plan, "p")))
            violations, _ = verify_plan(forged)
            assert any("optimal basis" in v.equation for v in violations), (leave, enter)
            worse += 1
    assert worse


@pytest.mark.parametrize(
    ("key", "value"),
    [("tp", 3), ("pp", 3), ("ep", 5), ("attention_dp", 3), ("batch_per_rank", 5000), ("prefill_tokens_per_rank", 1000)],
)
def test_a_configuration_outside_the_space_is_refused(key: str, value: int) -> None:
    data = data_of("disaggregated")
    index = 0 if key == "prefill_tokens_per_rank" else 1
    assert any("configuration" in e for _, e in refusal(small.changed(data, ("pools", index, "configuration", key), value)))  # type: ignore[arg-type]


# --- the embedded inputs --------------------------------------------------------------------------------------------


@each_plan
def test_a_changed_input_is_refused_or_reported(name: str) -> None:
    """Numbers of the embedded inputs, one at a time: invalid, refused, or reported as not what is installed.

    Options stand in no profile; those that no printed number depends on may change unnoticed.
    """
    data = data_of(name)
    leaves = [(path, value) for path, value in small.leaves(data["inputs"]) if path[0] != "options"]
    unnoticed = []
    for path, value in leaves[::29]:
        changed = small.changed(data, ("inputs", *path), next(changes(value)))
        try:
            violations, notices = verify(json.dumps(changed))
        except InputError:
            continue
        if not violations and not [n for n in notices if "differs" in n]:
            unnoticed.append((path, value))
    assert unnoticed == []


@pytest.mark.parametrize(
    "path",
    [
        ("hardware", "mixed", "system", "capex", "value"),
        ("hardware", "mixed", "system", "power", "value"),
        ("hardware", "mixed", "system", "tiers", 0, "read", "value"),
        ("hardware", "mixed", "count"),
        ("workload", "input_tokens", "mean"),
        ("runtime", "residual", "high"),
        ("runtime", "floors", "attention", "value"),
        ("prices", "electricity", "value"),
        ("prices", "utilisation", "value"),
        ("model", "hidden_size"),
        ("options", "gap"),
    ],
)
def test_an_input_that_counts_is_refused(path: Path) -> None:
    data = data_of("disaggregated")
    here: Any = data["inputs"]
    for step in path:
        here = here[step]
    assert refusal(small.changed(data, ("inputs", *path), next(changes(here))))


def test_inputs_that_cannot_be_are_bad_input() -> None:
    data = data_of("disaggregated")
    for path, value in [
        (("hardware", "mixed", "system", "tiers", 0, "read", "value"), -1.0),
        (("workload", "prefix_hit"), 1.5),
        (("hardware", "mixed", "count"), 0),
    ]:
        with pytest.raises(InputError):
            verify(json.dumps(small.changed(data, ("inputs", *path), value)))


# --- the certificate ------------------------------------------------------------------------------------------------


def test_a_tighter_bound_is_refused_by_the_full_walk() -> None:
    """Bound and gap changed together agree with one another; only the walk over the space finds who undercuts the bound."""
    from planner.plans.numbers import relative_gap
    from planner.search import solve

    refused = 0
    for options, sign in ({"objective": "cost"}, 1.0), ({"objective": "throughput"}, -1.0), ({"objective": "latency"}, 1.0):
        for memory in (20e6, 12e6):
            inputs = small.instance(
                small.llama(),
                small.node(2, 1, memory),
                1,
                software=small.runtime(8, (64,)),
                gap=0.8,
                **options,
            )
            plan = solve(inputs)
            assert verify(plan, full=True)[0] == []
            data = plan.to_data()
            objective, bound = data["certificate"]["objective"], data["certificate"]["bound"]

            def claims(value: float, data: dict[str, Any] = data, objective: float = objective) -> str:
                changed = small.changed(data, ("certificate", "bound"), value)
                return json.dumps(small.changed(changed, ("certificate", "gap"), relative_gap(objective, value)))

            assert verify(claims(bound * (1 - sign * 0.01)), full=True)[0] == []
            better = objective * (1 - sign * 1e-5)
            if sign * better > sign * bound:
                assert verify(claims(better))[0] == []
                if abs(bound / objective - 1) > 1e-3:
                    assert [v.equation for v in verify(claims(better), full=True)[0]] != []
                    refused += 1
            assert "certificate.bound" in [v.path for v in verify(claims(objective * (1 + sign * 0.01)))[0]]
    assert refused
