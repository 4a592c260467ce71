"""Taking over from another plan: bytes moved by hand, laws of moving, alternatives against brute force, verification."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import test_verify
from click.testing import CliRunner
from test_search import BruteForce
from test_verify import changes, reader, refusal, remember

from planner.cli.plan_command import command
from planner.errors import InfeasibleError
from planner.plans import Inputs, Plan, verify_plan
from planner.plans.assignment import pair_classes
from planner.plans.closure import space_violations
from planner.plans.context import build_context
from planner.plans.decision import Decision, PoolDecision
from planner.plans.experts import ExpertMap
from planner.plans.holdings import EXPERTS, KINDS, Held, Holdings, common_bytes, held_bytes, holdings_of
from planner.plans.matching import Role, Side, takeovers
from planner.plans.moves import Moves, moves_between
from planner.plans.operate import operate
from planner.plans.read import previous_of
from planner.plans.transition import OPTIMUM, Weighed, choose, restricted, rules_of, undominated
from planner.plans.worth import operation_objective
from planner.search import Stop, replan, solve, take_over

quick = test_verify.quick


def inputs_for(model: Any, devices: int = 4, count: int = 1, memory: float = 60e6, **options: Any) -> Inputs:
    load, software = options.pop("load", small.workload()), options.pop("software", small.runtime(3, (64,)))
    return small.instance(model, small.node(devices, 1, memory), count, load, software, **options)


def mixed(replicas: int = 1, tp: int = 1, dp: int = 1, ep: int = 1, pp: int = 1) -> tuple[PoolDecision, ...]:
    return (PoolDecision("mixed", replicas, tp, dp, ep, pp, 1, 64),)


def apart(prefill: tuple[int, int, int, int, int], decode: tuple[int, int, int, int, int]) -> tuple[PoolDecision, ...]:
    return PoolDecision("prefill", *prefill, 0, 64), PoolDecision("decode", *decode, 1, 0)


def moves(inputs: Inputs, old: tuple[PoolDecision, ...], new: tuple[PoolDecision, ...], **maps: Any) -> Moves:
    context = build_context(inputs)
    before, after = (operate(context, Decision(pools, (4,), context.variant)) for pools in (old, new))
    return moves_between(before, after, **maps)


def sizes(inputs: Inputs) -> dict[str, int]:
    """Bytes of one copy of the model: what tensor parallelism splits, what it does not, routed experts."""
    context = build_context(inputs)
    found = {"split": 0, "whole": 0, "experts": 0}
    for window in context.pools["mixed"].pieces.windows:
        for block in window.blocks:
            for axis, held, _ in block.static.parts:
                found["split" if axis > 1 else "whole"] += held * window.layers
            for table in block.lookups:
                found["split" if table.tensor_axis > 1 else "whole"] += table.bytes * window.layers
            if block.routed:
                found["experts"] += block.routed.member_bytes * block.routed.experts * window.layers
    return found


# --- by hand -------------------------------------------------------------------------------------------------------


def test_one_device_becomes_two() -> None:
    """Half of what is split, and all that is not, goes to the new device; the old one keeps its half."""
    inputs = inputs_for(small.llama())
    size = sizes(inputs)
    found = moves(inputs, mixed(), mixed(tp=2))
    assert size["split"] > 0 < size["whole"] and size["experts"] == 0
    assert found.bytes == size["split"] // 2 + size["whole"]
    assert found.kept == size["split"] // 2 + size["whole"]
    assert found.by(1) == {"device memory": 0, "host": 0, "disk": 0, "network": found.bytes}
    level = build_context(inputs).pools["mixed"].rates.levels[-1]
    assert found.seconds == pytest.approx(found.bytes / level.p2p + level.latency)


def test_two_devices_become_two_instances() -> None:
    """Each has half of what is split, and all of the rest."""
    inputs = inputs_for(small.llama())
    assert moves(inputs, mixed(tp=2), mixed(2)).bytes == sizes(inputs)["split"]
    assert moves(inputs, mixed(2), mixed(tp=2)).bytes == 0


def test_another_copy_and_one_less() -> None:
    inputs = inputs_for(small.llama())
    size = sizes(inputs)
    assert moves(inputs, mixed(2), mixed(3)).bytes == size["split"] + size["whole"]
    assert moves(inputs, mixed(3), mixed(2)).bytes == 0
    assert moves(inputs, mixed(2), mixed(2)).kept == 2 * (size["split"] + size["whole"])


def test_stages_split_layers() -> None:
    """Each of two stages has two of four layers; the device with all of them becomes one of them, and keeps the larger."""
    inputs = inputs_for(small.llama())
    found = moves(inputs, mixed(), mixed(pp=2))
    total = sum(sizes(inputs).values())
    assert found.bytes + found.kept == total and found.bytes <= total / 2
    assert moves(inputs, mixed(pp=2), mixed()).bytes == found.bytes


def test_experts_spread_over_twice_the_ranks_move_nothing_more_than_they_must() -> None:
    """Two instances of two ranks become one of four: ranks are numbered so that every expert lies where it was."""
    inputs = inputs_for(small.experts())
    assert moves(inputs, mixed(2, dp=2, ep=2), mixed(dp=4, ep=4)).bytes == 0
    back = moves(inputs, mixed(dp=4, ep=4), mixed(2, dp=2, ep=2))
    assert back.by(0) == {"weights": 0, "routed experts": sizes(inputs)["experts"], "tables": 0}


def test_pools_change_places() -> None:
    """Prefill becomes decode and decode prefill where the instances are alike; a mixed pool may take over from both."""
    inputs = inputs_for(small.llama())
    assert moves(inputs, apart((1, 2, 1, 1, 1), (2, 1, 1, 1, 1)), apart((2, 1, 1, 1, 1), (1, 2, 1, 1, 1))).bytes == 0
    assert moves(inputs, apart((1, 1, 1, 1, 1), (1, 1, 1, 1, 1)), mixed(2)).bytes == 0


def test_another_model_or_format_moves_everything() -> None:
    inputs = inputs_for(small.llama())
    context = build_context(inputs)
    before = operate(context, Decision(mixed(), (1,), context.variant))
    renamed = small.llama().model_copy(update={"id": "another"})
    for other in (inputs_for(renamed), inputs_for(small.llama(), weight_dtype="fp8")):
        here = build_context(other)
        found = moves_between(before, operate(here, Decision(mixed(), (1,), here.variant)))
        assert found.by(0)["weights"] > found.kept and found.by(1)["network"] == found.bytes


def test_maps_move_the_experts_that_differ() -> None:
    """Two ranks of four experts: one pair swapped moves two experts a layer; ranks swapped whole move none."""
    inputs = inputs_for(small.experts())
    layers = 2

    def mapped(*rows: int) -> tuple[ExpertMap, ...]:
        physical = np.array([rows] * layers, dtype=np.int64)
        return (ExpertMap("mixed", 2, 4, physical, np.ones(physical.shape)),)

    pools = mixed(dp=2, ep=2)
    member = sizes(inputs)["experts"] // (8 * layers)
    same = mapped(0, 1, 2, 3, 4, 5, 6, 7)
    assert moves(inputs, pools, pools, old_maps=same, new_maps=mapped(4, 5, 6, 7, 0, 1, 2, 3)).bytes == 0
    swapped = moves(inputs, pools, pools, old_maps=same, new_maps=mapped(0, 1, 2, 4, 3, 5, 6, 7))
    assert swapped.by(0) == {"weights": 0, "routed experts": 2 * member * layers, "tables": 0}


def test_what_lies_below_comes_over_its_own_link() -> None:
    """Item shares are intervals from device memory downwards: more room above takes the difference from the host."""
    old, new = (Holdings(1, 1, (held((0, share), (share, 1.0)),), ("hbm", "host")) for share in (0.25, 0.75))
    assert common_bytes(old, new, "weights", "host", "hbm") == 50.0
    assert common_bytes(old, new, "weights", "hbm", "hbm") == 25.0
    assert common_bytes(old, new, "weights", "host", "host") == 25.0
    assert held_bytes(new, "weights", "hbm") == 75.0


def held(device: tuple[float, float], host: tuple[float, float]) -> Held:
    one, zero = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
    return Held(("x",), "weights", 100, zero, one, np.zeros(1), np.ones(1), None, ({"hbm": device, "host": host},))


# --- laws ----------------------------------------------------------------------------------------------------------

SHAPES = [
    (1, 1, 1, 1),
    (2, 1, 1, 1),
    (2, 1, 2, 1),
    (1, 2, 2, 1),
    (4, 1, 1, 1),
    (2, 2, 4, 1),
    (2, 2, 2, 1),
    (1, 4, 4, 1),
    (1, 2, 2, 2),
]


@pytest.mark.parametrize("seed", range(6))
def test_moved_and_kept_make_what_is_needed(seed: int) -> None:
    """For pairs of deployments: nothing is negative, the parts add up, and from the same deployment nothing moves."""
    rng = np.random.default_rng(seed)
    inputs = inputs_for(small.experts(), 8)
    for _ in range(8):
        pick = [SHAPES[i] for i in rng.integers(0, len(SHAPES), 4)]
        counts = rng.integers(1, 3, 4)
        plans = [
            mixed(int(counts[0]), *pick[0]),
            apart((int(counts[1]), *pick[1]), (int(counts[2]), *pick[2])),
        ]
        if rng.random() < 0.5:
            plans.reverse()
        found = moves(inputs, *plans)
        needed = moves(inputs, plans[1], plans[1])
        assert needed.bytes == 0 and needed.seconds == 0.0
        assert found.bytes + found.kept == pytest.approx(needed.kept, abs=100)
        assert all(load.bytes >= 0 and load.kept >= 0 and min(load.moved.values(), default=0) >= 0 for load in found.loads)
        assert sum(found.by(0).values()) == sum(found.by(1).values()) == found.bytes
        assert sum(load.count for load in found.loads) == sum(pool.devices for pool in plans[1])


@pytest.mark.parametrize(("model", "stages"), [(small.experts(4), 2), (small.llama(), 4)])
def test_nothing_in_common_is_less_than_nothing(model: Any, stages: int) -> None:
    """Stages of a pipeline have no layer in common."""
    inputs = inputs_for(model, 4)
    context = build_context(inputs)
    state = operate(context, Decision(mixed(pp=stages), (4,), context.variant)).pools[0]
    holdings = holdings_of(state)
    for kind in KINDS:
        common = common_bytes(holdings, holdings, kind, "hbm", "hbm")
        assert np.array_equal(common, np.diag(held_bytes(holdings, kind, "hbm")))


def test_classes_are_paired_as_by_brute_force() -> None:
    rng = np.random.default_rng(5)
    for _ in range(600):
        old, new = rng.integers(1, 5, 2)
        saved = rng.integers(0, 6, (old, new)) * float(rng.random())
        supply, demand = rng.integers(0, 3, old), rng.integers(0, 3, new)
        flow = pair_classes(saved, supply, demand)
        assert (flow >= 0).all() and (flow.sum(axis=1) <= supply).all() and (flow.sum(axis=0) <= demand).all()
        assert np.sum(flow * saved) == pytest.approx(most_saved(saved, supply, demand), abs=1e-9)


def most_saved(saved: np.ndarray, supply: np.ndarray, demand: np.ndarray) -> float:
    columns = [column for column, count in enumerate(demand) for _ in range(count)]

    @functools.cache
    def best(position: int, left: tuple[int, ...]) -> float:
        if position == len(columns):
            return 0.0
        found = best(position + 1, left)
        for row, count in enumerate(left):
            if count:
                rest = (*left[:row], count - 1, *left[row + 1 :])
                found = max(found, float(saved[row, columns[position]]) + best(position + 1, rest))
        return found

    return best(0, tuple(int(count) for count in supply))


@pytest.mark.parametrize("seed", range(4))
def test_devices_are_paired_as_by_brute_force(seed: int) -> None:
    """One instance of up to five devices after another, in every order of devices."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        devices = int(rng.integers(1, 6))
        old, new = (some_holdings(rng, devices) for _ in range(2))
        saved = common_bytes(old, new, "weights", "hbm", "hbm")
        best = max(sum(saved[a, b] for b, a in enumerate(order)) for order in itertools.permutations(range(devices)))
        sides = [[Side("x", 1, holdings, 1, 8)] for holdings in (old, new)]
        found = takeovers(*sides)
        reached = sum(saved[t.old.device, t.new.device] * t.count for t in found if t.old is not None)
        assert reached == pytest.approx(best)
        assert sorted(t.new for t in found for _ in range(t.count)) == [Role(0, i) for i in range(devices)]


def some_holdings(rng: np.random.Generator, ranks: int) -> Holdings:
    one, zero, low = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64), rng.random(ranks) * 0.7
    high = low + rng.random(ranks) * 0.3
    part = Held(("x",), "weights", 1000, zero, one, low, high, None, ({"hbm": (0.0, 1.0)},))
    return Holdings(1, ranks, (part,), ("hbm",))


def test_instances_over_nodes_keep_nodes_together() -> None:
    """Two nodes of two devices: with tensor parallelism inside nodes, a node goes to a node, else devices mix."""
    shard = np.array([0.0, 0.0, 0.5, 0.5])
    wanted = np.array([0.0, 0.5, 0.0, 0.5])

    def holdings(low: np.ndarray) -> Holdings:
        one, zero = np.ones(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        return Holdings(1, 4, (Held(("x",), EXPERTS, 1000, zero, one, low, low + 0.5, None, ({"hbm": (0, 1)},)),), ("hbm",))

    def kept(tp: int) -> float:
        old, new = Side("x", 1, holdings(shard), tp, 2), Side("x", 1, holdings(wanted), tp, 2)
        saved = common_bytes(old.holdings, new.holdings, EXPERTS, "hbm", "hbm")
        return float(sum(saved[t.old.device, t.new.device] * t.count for t in takeovers([old], [new]) if t.old))

    assert kept(1) == 2000.0
    assert kept(2) == 1000.0


# --- re-planning ---------------------------------------------------------------------------------------------------

CASES: dict[str, tuple[Inputs, Inputs]] = {
    "more devices": (inputs_for(small.llama(), 2), inputs_for(small.llama(), 2, 2, objective="latency")),
    "longer prompts": (
        inputs_for(small.experts(), 4, memory=25e6),
        inputs_for(small.experts(), 4, memory=25e6, load=small.workload(768, 16)),
    ),
    "limits": (inputs_for(small.experts(), 2), inputs_for(small.experts(), 2, 2, load=small.workload(tpot_s=1.1e-4))),
    "apart": (
        inputs_for(small.llama(), 2, software=small.runtime(3, (64,), aggregated=False)),
        inputs_for(small.llama(), 2, 2, software=small.runtime(3, (64,), aggregated=False), objective="latency"),
    ),
    "less memory": (
        inputs_for(small.llama(), 2, objective="latency", load=small.workload(64, 512)),
        inputs_for(small.llama(), 2, memory=25e6, objective="throughput", load=small.workload(64, 512)),
    ),
}


@cache
def taken(name: str) -> Plan:
    old, new = CASES[name]
    return replan(take_over(new, solve(old)))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("which", [0, 1])
def test_the_same_load_keeps_the_plan_and_moves_nothing(name: str, which: int) -> None:
    inputs = CASES[name][which]
    old = solve(inputs)
    new = replan(take_over(inputs, old))
    assert new.transition is not None and new.transition.bytes == 0 and new.transition.chosen == OPTIMUM
    skip = {"transition", "inputs"}
    assert {k: v for k, v in new.to_data().items() if k not in skip} == {k: v for k, v in old.to_data().items() if k not in skip}


@pytest.mark.parametrize("name", CASES)
def test_plans_that_take_over_are_accepted(name: str) -> None:
    plan = taken(name)
    assert plan.transition is not None
    assert verify_plan(plan, full=True)[0] == []
    assert Plan.model_validate(json.loads(plan.to_json())) == plan
    assert plan.inputs["previous"]["options"] == solve(CASES[name][0]).inputs["options"]


@pytest.mark.parametrize("name", CASES)
def test_alternatives_against_brute_force(name: str) -> None:
    """Every alternative's bound holds for all deployments inside its pins, and is within its gap of the best of them."""
    plan, inputs = taken(name), CASES[name][1]
    assert plan.transition is not None
    old = previous_of(Inputs.model_validate(plan.inputs, context={"si": True}).previous, "plan")  # type: ignore[arg-type]
    sign = -1.0 if plan.objective == "throughput" else 1.0
    context = build_context(inputs)
    for row in plan.transition.alternatives:
        inside = restricted(inputs, rules_of(old)[row.name])
        assert inside is not None and list(rules_of(old)[row.name]) == row.pins
        values = [sign * operation_objective(context, entry.operation) for entry in BruteForce(inside).run()]
        assert sign * row.bound <= min(values) + 1e-9 * abs(min(values))
        assert sign * row.objective <= min(values) + (row.gap + 1e-9) * abs(row.objective)
        assert row.gap <= max(inputs.options.gap, 1e-6)
    chosen = next(row for row in plan.transition.alternatives if row.name == plan.transition.chosen)
    assert (chosen.bytes, chosen.objective) == (plan.transition.bytes, plan.certificate.objective)


def test_there_is_something_to_choose_from() -> None:
    """The cases above are no trivial ones."""
    counts = {name: len(taken(name).transition.alternatives) for name in CASES}  # type: ignore[union-attr]
    assert max(counts.values()) >= 2, counts
    assert any(taken(name).transition.bytes > 0 for name in CASES)  # type: ignore[union-attr]


def test_fewest_bytes_within_the_gap_and_within_the_limit() -> None:
    rows = [Weighed("a", 0, 12.0), Weighed("b", 5, 10.04), Weighed("c", 5, 10.5), Weighed(OPTIMUM, 9, 10.0)]
    assert choose(rows, 10.0, 0.005, None) == "b"
    assert choose(rows, 10.0, 0.001, None) == OPTIMUM
    assert choose(rows, 10.0, 0.001, 8.0) == "b"
    assert choose(rows, 10.0, 0.5, 8.0) == "a"
    assert choose(rows, 10.0, 0.001, 4.0) == "a"
    assert choose([replace(row, bytes=row.bytes + 1) for row in rows], 10.0, 0.001, 0.0) is None
    assert undominated(rows, "b") == ["a", "b", OPTIMUM]
    assert choose([Weighed("a", 0, 10.0), Weighed(OPTIMUM, 0, 10.0)], 10.0, 0.005, None) == OPTIMUM


def test_no_more_than_may_move() -> None:
    old, new = CASES["less memory"]
    plan = taken("less memory")
    assert plan.transition is not None and plan.transition.bytes > 0
    least = plan.transition.alternatives[0].bytes
    assert least < plan.transition.bytes
    limited = new.model_copy(update={"options": new.options.model_copy(update={"max_move_bytes": plan.transition.bytes - 1.0})})
    tight = replan(take_over(limited, solve(old)))
    assert tight.transition is not None and tight.transition.bytes < plan.transition.bytes
    assert tight.certificate.bound == plan.certificate.bound and not tight.certificate.proved
    assert verify_plan(tight)[0] == []


def test_what_cannot_stay_is_said() -> None:
    old = inputs_for(small.llama(), 2)
    new = inputs_for(small.llama(layers=5), 2, max_move_bytes=10.0)
    with pytest.raises(InfeasibleError, match="no alternative that meets the load moves so little") as caught:
        replan(take_over(new, solve(old)))
    assert caught.value.conflict[0]["member"] == "--max-move-bytes" and float(str(caught.value.conflict[0]["amount"])) > 10.0


def test_stopped_in_between_says_so() -> None:
    class Soon(Stop):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.left = count

        def reason(self) -> str | None:
            self.left -= 1
            return "time limit" if self.left < 0 else None

    old, new = CASES["more devices"]
    before = solve(old)
    seen = set()
    for count in (5, 20, 60, 100_000):
        try:
            plan = replan(take_over(new, before), stop=Soon(count))
        except Exception as error:
            assert type(error).__name__ == "StoppedError"
            continue
        assert plan.transition is not None and verify_plan(plan)[0] == []
        seen.add(plan.transition.stopped)
    assert None in seen


def test_the_same_bytes_every_time() -> None:
    old, new = CASES["limits"]
    assert replan(take_over(new, solve(old))).to_json() == taken("limits").to_json()


def test_what_is_alike_is_not_kept_twice() -> None:
    plan = taken("limits").inputs["previous"]
    assert plan["model"] is None and plan["runtime"] is None and plan["workload"] is not None and plan["hardware"] is not None


# --- verification --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["less memory", "apart"])
def test_every_number_of_a_transition_changed_is_refused_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 2 for the transition: each numeric leaf, up and down."""
    monkeypatch.setattr(reader, "restricted", remember(reader.restricted, lambda inputs, rules: (id(inputs), rules)))
    monkeypatch.setattr(reader, "old_operation", remember(reader.old_operation, lambda inputs, old: old))
    data = taken(name).to_data()
    assert verify_plan(Plan.model_validate(data), "plan")[0] == []
    accepted = []
    for path, value in small.leaves(data["transition"], ("transition",)):
        for leaf in changes(value):
            changed = small.changed(data, path, leaf)
            try:
                found = [(v.path, v.equation) for v in verify_plan(Plan.model_validate(changed), "plan")[0]]
            except ValueError:
                found = refusal(changed)
            if not found or any(equation == "unknown entry" for _, equation in found):
                accepted.append((path, value, leaf, found[:2]))
    assert accepted == []


def test_alternatives_renamed_left_out_or_chosen_wrongly_are_refused() -> None:
    data = taken("less memory").to_data()
    rows = data["transition"]["alternatives"]
    assert len(rows) > 1
    other = next(row["name"] for row in rows if row["name"] != data["transition"]["chosen"])
    for path, value, equation in (
        (("chosen",), other, "fewest bytes"),
        (("chosen",), "nothing", "configuration"),
        (("alternatives",), rows[::-1], "dominates"),
        (("alternatives",), [row for row in rows if row["name"] != OPTIMUM], ""),
        (("alternatives", 0, "name"), "as it was", "pins"),
        (("alternatives", 0, "pins"), [], "alternatives"),
    ):
        changed = small.changed(data, ("transition", *path), value)  # type: ignore[arg-type]
        found = refusal(changed)
        assert found and any(equation in text for _, text in found), (path, found)
    without = {key: value for key, value in data.items() if key != "transition"}
    assert refusal(without)


def test_a_bound_of_an_alternative_that_is_too_good_is_refused_in_full() -> None:
    plan = taken("less memory")
    data = plan.to_data()
    number = next(i for i, row in enumerate(data["transition"]["alternatives"]) if row["name"] != OPTIMUM)
    bound = data["transition"]["alternatives"][number]["objective"] * 0.9
    changed = small.changed(data, ("transition", "alternatives", number, "bound"), bound)
    assert any("bound" in v.path for v in verify_plan(Plan.model_validate(changed))[0])
    inputs = Inputs.model_validate(data["inputs"], context={"si": True})
    assert space_violations(inputs, plan) == []
    paths = [path for path, *_ in space_violations(inputs, Plan.model_validate(changed))]
    assert paths and all(path.startswith(f"transition.alternatives.{number}.") for path in paths)


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner()
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    first = run.invoke(command, ["llama-3.1-70b", "h100-node:2", "--rate", "1/s", "--quiet", "-o", str(old)])
    assert first.exit_code == 0, first.output
    again = run.invoke(command, ["--from", str(old), "--quiet"])
    assert again.exit_code == 0 and "taking over: 0.00 of" in again.output
    changed = run.invoke(command, ["--from", str(old), "--isl", "32k", "--tokens-per-day", "3e8", "--quiet", "-o", str(new)])
    assert changed.exit_code == 0, changed.output
    plan = Plan.model_validate(json.loads(new.read_text()))
    options = plan.inputs["options"]
    assert (options["rate"], options["tokens_per_day"]) == (None, 3e8)
    assert plan.inputs["workload"]["input_tokens"]["mean"] == 32_000 and plan.model == "llama-3.1-70b"
    assert verify_plan(plan)[0] == []


def test_a_plan_that_does_not_verify_is_not_taken_over(tmp_path: Path) -> None:
    old = tmp_path / "old.json"
    data = solve(CASES["limits"][0]).to_data()
    old.write_text(json.dumps(small.changed(data, ("cost", "usd_per_hour"), 1.0)))
    result = CliRunner().invoke(command, ["--from", str(old)])
    assert type(result.exception).__name__ == "VerificationError" and "violated" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["llama-3.1-70b"], "HARDWARE"),
        ([], "MODEL"),
        (["llama-3.1-70b", "h100-node", "--max-move-bytes", "5GB"], "--from"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code != 0 and text in (result.output + str(result.exception))
