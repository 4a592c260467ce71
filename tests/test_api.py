"""The package from outside: typed, documented, without state, in threads, told of progress, stopped; old files; the gate."""

from __future__ import annotations

import ast
import inspect
import json
import runpy
import sys
import threading
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import small

import planner
from planner import Plan, Reporter, Stop, load_hardware, load_model, plan
from planner.errors import InputError
from planner.plans import read_plan
from planner.plans.constraints import parse_constraints
from planner.plans.inputs import Asked, Options
from planner.search import solve

TOP = Path(__file__).resolve().parents[1]
PINS = parse_constraints(("tp=1", "pp=1"), ())


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan("llama-3.1-8b", "h100-node", constraints=PINS)


def test_public_names_are_typed_and_documented() -> None:
    for name in set(planner.__all__) - {"__version__"}:
        found = getattr(planner, name)
        assert inspect.getdoc(found), name
        if inspect.isfunction(found):
            hints = typing.get_type_hints(found, vars(__import__(found.__module__, fromlist=["_"])) | _all_types())
            assert "return" in hints and set(inspect.signature(found).parameters) <= set(hints), name
            assert "InputError" in (found.__doc__ or "") or name == "resolve", name


def _all_types() -> dict[str, Any]:
    """Names that ``planner.api`` imports for annotations alone."""
    tree = ast.parse((TOP / "planner" / "api.py").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            exec(compile(ast.Module(node.body, []), "types", "exec"), found)
    return found


def test_the_options_of_plan_are_those_of_options() -> None:
    follows = {"high_ttft_s", "high_tpot_s", "headroom"}
    assert set(Asked.__annotations__) == set(Options.model_fields) - follows


def test_threads_give_the_bytes_of_one_after_the_other() -> None:
    def one(number: int) -> str:
        if number % 2:
            return plan("llama-3.1-8b", "h100-node", constraints=PINS, objective="throughput" if number > 2 else "cost").to_json()
        model = small.llama(layers=2 + number) if number else small.experts()
        return solve(small.instance(model, small.node(2, 1, 25e6), 1, small.workload(), small.runtime())).to_json()

    alone = [one(number) for number in range(4)]
    barrier = threading.Barrier(4)

    def together(number: int) -> str:
        barrier.wait()
        return one(number)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(together, range(4))) == alone
    assert len(set(alone)) == 4


def test_a_registry_is_never_seen_half_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    import time
    from importlib.metadata import EntryPoint

    from planner.plugins import Registry

    def slow(group: str) -> list[EntryPoint]:
        time.sleep(0.1)
        return [EntryPoint("theirs", "theirs:HERE", group)]

    monkeypatch.setattr("importlib.metadata.entry_points", slow)
    offers = Registry("planner.hardware", {})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(offers.names)
        time.sleep(0.03)
        assert threads.submit(offers.names).result() == first.result() == ("theirs",)


def test_plugins_in_threads_leave_standard_output_as_it_was() -> None:
    import time

    from planner.plugins import guarded

    before = sys.stdout, sys.stderr
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(guarded, lambda: time.sleep(0.1))
        time.sleep(0.03)
        threads.submit(guarded, lambda: time.sleep(0.15)).result()
        assert first.result() == (None, "")
    assert (sys.stdout, sys.stderr) == before


def test_a_call_changes_nothing_that_it_is_given() -> None:
    model, hardware = load_model("llama-3.1-8b"), load_hardware("h100-node")
    options: dict[str, Any] = {
        "workload": ["chat"],
        "settings": [],
        "prices": "rent_od",
        "constraints": list(PINS),
        "mtp": "auto",
    }
    before = (model.model_dump_json(), hardware.model_dump_json(), json.dumps(options, default=str))
    plan(model, hardware, **options)
    assert (model.model_dump_json(), hardware.model_dump_json(), json.dumps(options, default=str)) == before


def test_a_reporter_that_does_nothing_changes_nothing(made: Plan) -> None:
    class Told(Reporter):
        said: list[str] = []

        def stage(self, name: str) -> None:
            self.said.append(name)

    told = Told()
    assert plan("llama-3.1-8b", "h100-node", constraints=PINS, reporter=Reporter()).to_json() == made.to_json()
    assert plan("llama-3.1-8b", "h100-node", constraints=PINS, reporter=told).to_json() == made.to_json()
    assert "search" in told.said
    for name, method in vars(Reporter).items():
        if inspect.isfunction(method):
            assert method(Reporter(), *[0] * (len(inspect.signature(method).parameters) - 1)) is None, name


def test_another_thread_stops_a_search() -> None:
    class Once(Reporter):
        def incumbent(self, objective: float) -> None:
            thread = threading.Thread(target=setattr, args=(stop, "interrupted", True))
            thread.start()
            thread.join()

    stop = Stop()
    found = plan("deepseek-v3", "h800-node:2", reporter=Once(), stop=stop)
    assert found.certificate.stopped == "interrupted" and not found.certificate.proved


@pytest.mark.parametrize("version", [0, 2, 7, "1", True, None])
def test_a_plan_of_another_version_says_so(made: Plan, version: object) -> None:
    data = json.loads(made.to_json())
    del data["pools"]  # another version may look otherwise altogether
    with pytest.raises(InputError, match=f"has schema_version {version}; this planner reads 1; plan again"):
        read_plan(json.dumps(data | {"schema_version": version}), "old.json")


def test_a_plan_read_back_is_the_plan(made: Plan) -> None:
    assert read_plan(made.to_json(), "plan.json") == made
    again = Plan.model_validate(json.loads(made.to_json()))
    assert again.to_json() == made.to_json()


def test_the_gate_fails_when_tokens_get_dearer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gate(kept: str, *limit: str) -> tuple[int, str]:
        (tmp_path / "plan.json").write_text(kept, encoding="utf-8")
        monkeypatch.setattr(sys, "argv", ["cost-gate.py", str(tmp_path / "plan.json"), *limit])
        try:
            runpy.run_path(str(TOP / "docs" / "cost-gate.py"), run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    tight: dict[str, Any] = {"prices": "owned", "site": "cn-west-hub", "runtime": "sglang", "slo_on": "high"}
    kept = plan("llama-3.1-8b", "h100-node", utilisation=0.9, constraints=PINS, **tight)
    code, out = gate(kept.to_json())
    assert code == 0 and "(+0.0%, limit +5%)" in out, "the same question"
    data = json.loads(kept.to_json())
    data["cost"]["usd_per_million"]["blended"] /= 1.2
    code, out = gate(json.dumps(data))
    assert code == 1 and "dearer" in out and "+20.0%" in out
    code, out = gate(json.dumps(data), "0.5")
    assert code == 0 and "limit +50%" in out
