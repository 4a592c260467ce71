"""Sweeps: the grid, ids, journals that survive a kill at any byte, executors that agree, workers that die, files, the command."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from planner import plan
from planner.cli.plan_command import command as plan_command
from planner.cli.schema_command import schema_of
from planner.errors import InputError, StoppedError
from planner.plans.constraints import parse_constraints
from planner.plans.schema import Bottleneck
from planner.sweep import Asked, Progress, Spec, Sweep, blank_sweep, read_spec, rows_of
from planner.sweep import executors as executors_module
from planner.sweep import points as points_module
from planner.sweep import work as work_module
from planner.sweep.axes import AXES
from planner.sweep.drive import Drive
from planner.sweep.executors import Processes, Workers, workers
from planner.sweep.journal import Journal, journal_of
from planner.sweep.points import Point, point_id, sweep_id
from planner.sweep.rows import COLUMNS, NAMES, Row, _worst, is_row, row_of
from planner.sweep.tables import write_rows
from planner.sweep.work import Result, Task

Run = Callable[..., tuple[int, str, str]]
HEAD = 'schema = 1\n[fixed]\nmodel = "llama-3.1-70b"\nhardware = "h100-node"\npin = "tp=8"\n'
MIXED = HEAD + '[grid]\nisl = [500, 1000]\ntpot = ["none", "1ms"]\nkv_dtype = ["bf16", "fp3"]\n'
"""Eight points: two fine, two infeasible, four with a dtype that does not exist."""
MADE_UP = HEAD + "[grid]\nisl = [1, 2, 3, 4, 5, 6]\n"


def written(folder: Path, text: str, name: str = "s.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def made_up(point: Point, task: Task, halt: object) -> Result:
    """A row without a plan, at once."""
    return Result(row_of(point, "infeasible", f"made up {point.values['isl']}"), None)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The lengths of the points that were planned, made up in place of plans."""
    seen: list[float] = []

    def result(point: Point, task: Task, halt: object) -> Result:
        seen.append(point.values["isl"])
        return made_up(point, task, halt)

    monkeypatch.setattr(work_module, "_result", result)
    monkeypatch.setattr("planner.sweep.drive.MOST_TOGETHER", 1)
    return seen


class StopsAt(Progress):
    """Ctrl-C once so many points are done."""

    def __init__(self, count: int) -> None:
        self.count = count

    def advanced(self, status: Counter[str]) -> None:
        if status.total() >= self.count:
            raise KeyboardInterrupt


SERIAL = Asked("serial")

# --- the grid ------------------------------------------------------------------------------------------------------

GRID = st.fixed_dictionaries(
    {
        "isl": st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True),
        "ttft": st.lists(st.sampled_from(["none", "1s", "2s"]), min_size=1, max_size=3, unique=True),
        "mtp": st.lists(st.sampled_from([0, 1, (0, 1), "auto"]), min_size=1, max_size=3, unique=True),
    }
)
READ = {"isl": float, "ttft": {"none": None, "1s": 1.0, "2s": 2.0}.get, "mtp": lambda v: (v,) if isinstance(v, int) else v}


def spec_of(grid: dict[str, Any], exclude: list[dict[str, Any]] = []) -> Spec:  # noqa: B006
    return Spec.model_validate({"schema": 1, "fixed": {"model": "m", "hardware": "h"}, "grid": grid, "exclude": exclude})


@given(GRID, st.data())
def test_points_are_the_product_without_what_is_excluded(grid: dict[str, Any], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(grid)), min_size=1, max_size=2, unique=True))
    rule = {name: data.draw(st.lists(st.sampled_from(grid[name]), min_size=1, max_size=2, unique=True)) for name in names}
    found = [tuple(point.get(name) for name in grid) for point in spec_of(grid, [rule]).points()]
    expected = [
        tuple(READ[name](value) for name, value in zip(grid, values, strict=True))  # type: ignore[operator]
        for values in itertools.product(*grid.values())
        if not all(dict(zip(grid, values, strict=True))[name] in rule[name] for name in rule)
    ]
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


@given(GRID, st.randoms(use_true_random=False))
def test_ids_know_no_order_and_differ(grid: dict[str, Any], random: Any) -> None:
    other = {name: random.sample(values, len(values)) for name, values in random.sample(list(grid.items()), len(grid))}
    one, two = ([point_id(point, {}) for point in spec_of(each).points()] for each in (grid, other))
    assert sorted(one) == sorted(two) and len(set(one)) == len(one)
    assert sweep_id(one) == sweep_id(two) != sweep_id(one[1:])


def test_cases_vary_together() -> None:
    cases = [{"name": "small", "hardware": "a", "isl": 5}, {"name": "large", "hardware": "b", "set": ["b.capex=1 USD"]}]
    exclude = [{"case": "large", "tpot": "none"}, {"isl": 5, "tpot": ["30ms"]}]
    data = {"schema": 1, "fixed": {"model": "m"}, "grid": {"tpot": ["none", "30ms"]}, "case": cases, "exclude": exclude}
    found = list(Spec.model_validate(data).points())
    assert found == [
        {"case": "small", "model": "m", "hardware": "a", "isl": 5.0},
        {"case": "large", "model": "m", "hardware": "b", "tpot": 0.03, "set": ("b.capex=1 USD",)},
    ]


GRID_OF = HEAD + "[grid]\n"
MANY = ", ".join(str(n) for n in range(1, 2001))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema = 1\n", "model is missing: name it in grid, in fixed or in every case"),
        (HEAD.replace("hardware", "hardwear"), "fixed.hardwear: unknown key"),
        (GRID_OF + "isl = [1, 1]", "grid.isl: 1.0 is given twice"),
        (GRID_OF + 'ttft = ["2s", "2000ms"]', "grid.ttft: 2.0 is given twice"),
        (GRID_OF + "isl = 5", "grid.isl: an axis is a list of values: put [ ] around it"),
        (GRID_OF + "isl = []", "grid.isl"),
        (GRID_OF + 'model = ["x"]', "model is given in fixed and in grid"),
        (GRID_OF + 'tpot = ["5 kg"]', "grid.tpot.0: unknown unit 'kg'"),
        (GRID_OF + "isl = [true]", "grid.isl.0"),
        (GRID_OF + "isl = [nan]", "finite"),
        (GRID_OF + 'objective = ["costs"]', "did you mean cost?"),
        (GRID_OF + "concurrency = [0]", "greater than or equal to 1"),
        (GRID_OF + f"isl = [{MANY}]\nosl = [{MANY}]", "4,000,000 points (2000 isl x 2000 osl) are more than max_points, 10,000"),
        (GRID_OF + f"isl = [{MANY}]\nosl = [1, 2, 3, 4, 5, 6]", "drop values or raise max_points (at most 1,000,000)"),
        (GRID_OF + "isl = [1]\n[[exclude]]\nisl = 2", "exclude.0.isl: 2 is no value of it; known: 1.0"),
        (GRID_OF + "isl = [1]\n[[exclude]]\nosl = 2", "exclude.0.osl: osl is not an axis of this sweep"),
        (GRID_OF + "isl = [1]\n[[exclude]]", "exclude.0: names nothing"),
        (GRID_OF + "isl = [1]\n[[exclude]]\nisl = 1", "exclude takes out every point"),
        (GRID_OF + 'isl = [1]\n[[exclude]]\nisl = [[{a = 1}], {b = "c"}]', "is no value of it"),
        ('schema = 1\n[[case]]\nname = "a"\nmodel = "m"\n[[case]]\nname = "b"\n[fixed]\nhardware = "h"', "model is missing"),
        (HEAD + '[[case]]\nname = "a"\n[[case]]\nname = "a"', "case: a is given twice"),
        ("schema = 2\n" + HEAD[11:], "schema"),
        ("[" * 500, "nested too deeply"),
        ("schema = \x00", "NUL"),
        (GRID_OF + 'workload = ["\\u001b[31m"]', "unprintable"),
    ],
)
def test_a_wrong_specification_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"s\.toml") as error:
        read_spec(written(tmp_path, text))
    assert told in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    assert time.perf_counter() - started < 2.0


def test_names_that_do_not_exist_are_told_before_anything_is_planned(tmp_path: Path) -> None:
    for line, told in (
        ('model = ["llama-3.1-70c"]', "model 'llama-3.1-70c': no model"),
        ('workload = ["chatt"]', "workload 'chatt': unknown workload"),
        ('hardware = ["nothing.toml:2"]', "hardware 'nothing.toml:2'"),
        ('price_basis = ["free"]', "price_basis 'free'"),
        ('experts = ["zipf:x"]', "experts 'zipf:x'"),
    ):
        text = HEAD.replace('model = "llama-3.1-70b"\n', "") if line.startswith("model") else HEAD
        text = text.replace('hardware = "h100-node"\n', "") if line.startswith("hardware") else text
        with pytest.raises(InputError, match="s.toml") as error:
            Sweep(written(tmp_path, text + f"[grid]\n{line}\n"))
        assert told in str(error.value)


def test_a_file_beside_the_specification_is_not_taken_for_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``./llama-3.1-70b`` was the model of the catalogue where the specification lay in the current folder."""
    config = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 1024}
    config |= {"num_key_value_heads": 2, "intermediate_size": 1024, "max_position_embeddings": 8192, "torch_dtype": "bfloat16"}
    (tmp_path / "llama-3.1-70b").mkdir()
    written(tmp_path / "llama-3.1-70b", json.dumps(config), "config.json")
    spec = written(tmp_path, HEAD.replace('"llama-3.1-70b"', '"./llama-3.1-70b"'))
    found = Sweep(spec).ids
    monkeypatch.chdir(tmp_path)
    assert Sweep(Path(spec.name)).ids == found


def test_many_cases_and_exclusions_are_read_at_once() -> None:
    cases = [{"name": f"c{n}", "hardware": "h", "isl": n + 1} for n in range(1000)]
    started = time.perf_counter()
    exclude = [{"case": f"c{n}", "isl": n + 1} for n in range(50)]
    found = Spec.model_validate({"schema": 1, "fixed": {"model": "m"}, "case": cases, "exclude": exclude})
    assert len(list(found.points())) == 950
    assert time.perf_counter() - started < 5.0  # 400 cases and 3 exclusions took 7.5 s


def test_the_axes_are_the_options_of_plan() -> None:
    known = {name: option for option in plan_command.params for name in option.opts}
    for axis in AXES.values():
        assert axis.name in ("model", "hardware") or axis.option in known, axis.name
    assert len(set(NAMES)) == len(NAMES)


# --- rows, ids and plans -------------------------------------------------------------------------------------------


def test_a_row_is_what_its_command_plans(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option that has another form on the command line is in it; the plan file has the hash of the row."""
    text = """schema = 1
[fixed]
model = "deepseek-v3"
hardware = "h800-node:2"
isl = "2k"
osl = 100
prefix_hit = 0.25
ttft = "20s"
tpot = "500 ms"
experts = "zipf:0.5"
kv_dtype = "fp8"
mtp = [1]
spare = "0:unit"
set = ["h800-node.capex=250000 USD", "h800-node.power=9 kW"]
pin = ["tp=8", "pp=1"]
ban = "ep=16"
site = "cn-west-hub"
utilisation = 0.5
allow_announced = true
gap = 0.02
time_limit = 600.0
"""
    sweep = Sweep(written(tmp_path, text))
    summary = sweep.run(tmp_path / "r.csv", Asked("serial", plans=tmp_path / "plans"))
    (row,) = rows_of(tmp_path / "r.csv")
    assert row["status"] == "ok", row["message"]
    assert summary.status["ok"] == 1
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(*shlex.split(str(row["command"]))[1:], "--format", "json")
    assert code == 0
    assert hashlib.sha256(out.encode()).hexdigest() == row["plan_sha256"]
    assert (tmp_path / "plans" / f"{row['point']}.json").read_text(encoding="utf-8") == out
    plan = json.loads(out)
    assert row["usd_per_mtok_output"] == plan["cost"]["usd_per_million"]["output"]
    assert row["tpot_ms_high"] == plan["prediction"]["tpot_ms"]["high"]
    decoding = [part for part in plan["bottlenecks"] if part["phase"] == "decode"]
    assert row["bottleneck_share"] == max(part["share"] for part in decoding)
    assert row["devices_paid"] == plan["cost"]["devices_paid"] and row["gap_asked"] == 0.02


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="no signal masks here")
def test_ctrl_c_while_a_worker_starts_is_heard() -> None:
    """It was dropped: the sweep went on to its end."""
    with pytest.raises(KeyboardInterrupt), executors_module._deaf():
        os.kill(os.getpid(), signal.SIGINT)
        child = subprocess.run([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGINT)"], check=False)
        assert child.returncode == 0


def test_a_sweep_that_is_refused_leaves_no_journal(tmp_path: Path) -> None:
    sweep = Sweep(written(tmp_path, MADE_UP))
    (tmp_path / "file").touch()
    for asked in (Asked("serial", count=2), Asked("serial", plans=tmp_path / "file"), Asked("dask")):
        with pytest.raises(InputError):
            sweep.run(tmp_path / "r.csv", asked)
        assert not journal_of(tmp_path / "r.csv").exists()


def test_rents_and_spare_racks_are_points_as_plans_have_them(tmp_path: Path) -> None:
    text = HEAD + 'spare = "0:rack"\n[grid]\nprice_basis = ["owned", "rent_od"]\n'
    text += 'price_date = ["none", 2026-07-15, "2020-01-01"]\n'
    text += '[[exclude]]\nprice_basis = "owned"\nprice_date = [2026-07-15, "2020-01-01"]\n'
    sweep = Sweep(written(tmp_path, text))
    sweep.run(tmp_path / "r.csv", SERIAL)
    rows = rows_of(tmp_path / "r.csv")
    assert [(row["price_basis"], row["price_date"], row["status"]) for row in rows] == [
        ("owned", None, "ok"),
        ("rent_od", None, "ok"),
        ("rent_od", "2026-07-15", "ok"),
        ("rent_od", "2020-01-01", "error"),
    ]
    newest = plan("llama-3.1-70b", "h100-node", prices="rent_od", constraints=parse_constraints(["tp=8"], []))
    assert rows[1]["usd_per_hour"] == newest.cost.usd_per_hour != rows[2]["usd_per_hour"]
    with pytest.raises(InputError, match="no day"):
        Sweep(written(tmp_path, text.replace("2020-01-01", "yesterday")))


def test_executors_and_formats_say_the_same(tmp_path: Path) -> None:
    sweep = Sweep(written(tmp_path, MIXED))
    for executor in ("serial", "thread", "process"):
        sweep.run(tmp_path / f"{executor}.jsonl", Asked(executor, count={"serial": None, "thread": 2, "process": 1}[executor]))
    serial = (tmp_path / "serial.jsonl").read_bytes()
    assert (tmp_path / "thread.jsonl").read_bytes() == serial
    assert (tmp_path / "process.jsonl").read_bytes() == serial
    rows = rows_of(tmp_path / "serial.jsonl")
    assert [row["point"] for row in rows] == list(sweep.ids)
    assert Counter(row["status"] for row in rows) == {"ok": 2, "infeasible": 2, "error": 4}
    assert all(bool(row["message"]) == (row["status"] != "ok") for row in rows)
    for name in ("a.csv", "a.parquet"):
        write_rows(tmp_path / name, rows)
        assert rows_of(tmp_path / name) == rows
    again = sweep.run(tmp_path / "a.csv", SERIAL)
    assert again.kept == 8 and rows_of(tmp_path / "a.csv") == rows


def test_an_id_changes_with_what_a_name_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    from planner.workload.blank import blank_workload

    load = blank_workload("mine", datetime.date(2026, 11, 22))
    written(tmp_path, load, "mine.toml")
    spec = written(tmp_path, HEAD + 'workload = "mine.toml"\n')
    first = Sweep(spec)
    assert Sweep(spec).ids == first.ids
    monkeypatch.setitem(points_module.VERSIONS, "catalogue", "2027-01-01")
    assert set(Sweep(spec).ids).isdisjoint(first.ids)
    monkeypatch.undo()
    written(tmp_path, load.replace("prefix_hit = 0.", "prefix_hit = 0.1"), "mine.toml")
    assert set(Sweep(spec).ids).isdisjoint(first.ids)


def test_rows_are_checked_when_they_are_read() -> None:
    point = Point("p", {"model": "m", "hardware": "h"}, {})
    row = row_of(point, "error", "line\nline")
    assert is_row(row) and row["message"] == "line line"
    for name, value in (("status", "fine"), ("gap", "0"), ("gap", float("nan")), ("gap", True), ("point", None), ("proved", 1)):
        assert not is_row({**row, name: value})
    assert not is_row({name: row[name] for name in NAMES[1:]}) and not is_row([])
    assert {column.type for column in COLUMNS} == {"text", "whole", "number", "truth"}


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_other_files_are_no_results(tmp_path: Path, suffix: str) -> None:
    for number, data in enumerate((b"a,b\n1,2\n", b'{"a": 1}\n', b"\xff\x00", b'"' + b"x" * 200_000)):
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(data)
        with pytest.raises(InputError, match="holds no results"):
            rows_of(path)
        spec = written(tmp_path, MADE_UP)
        with pytest.raises(InputError, match="holds no results"):
            Sweep(spec).run(path, SERIAL)
        assert path.read_bytes() == data and not journal_of(path).exists()


# --- the journal and taking up again -------------------------------------------------------------------------------


def some_rows(count: int) -> list[Row]:
    return [row_of(Point(f"p{n}", {"model": "m", "hardware": "h", "isl": float(n)}, {}), "error", "é") for n in range(count)]


def test_a_kill_at_any_byte_loses_no_whole_row(tmp_path: Path) -> None:
    path, rows = tmp_path / "j", some_rows(3)
    with Journal(path) as journal:
        journal.begin("ab")
        journal.append(rows)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for end in [*range(0, 60, 6), *range(len(data) - len(lines[-1]), len(data), 500), len(data) - 1, len(data)]:
        path.write_bytes(data[:end])
        whole = data[:end].count(b"\n")
        with Journal(path) as journal:
            assert path.stat().st_size == sum(map(len, lines[:whole])), "the torn line is gone"
            assert len(journal.status) == max(whole - 1, 0)
            assert journal.sweep == ("ab" if whole else "")
            journal.begin("ab")
            journal.append(row for row in rows if row["point"] not in journal.status)
            assert list(journal.rows(f"p{n}" for n in range(3))) == rows
        assert path.read_bytes() == data
    path.write_bytes(lines[0] + b'{"point": "p0"}\n' + b"[" * 5000 + b"\n" + lines[2])
    with Journal(path) as journal:
        assert journal.damaged == 2 and list(journal.status) == ["p1"]


def test_what_is_no_journal_is_left_alone(tmp_path: Path) -> None:
    for number, data in enumerate((b"notes\n", b"notes", b'{"point": 1}\n', b"x" * 2**20)):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(InputError, match="is no journal"):
            Journal(path)
        assert path.read_bytes() == data


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(InputError, match="cannot be locked"):
        Journal(tmp_path / "j")


def test_two_sweeps_do_not_write_one_file(tmp_path: Path, planned: list[float]) -> None:
    sweep, output = Sweep(written(tmp_path, MADE_UP)), tmp_path / "r.jsonl"
    told: list[int] = []

    class Second(Progress):
        def started(self, points: int, kept: int) -> None:
            told.append(points)
            with pytest.raises(InputError, match="another sweep is writing it"):
                sweep.run(output, SERIAL)

    assert sweep.run(output, SERIAL, Second()).points == 6
    assert told == [6] and len(planned) == 6 and not journal_of(output).exists()


def test_an_interrupted_sweep_goes_on_where_it_was(tmp_path: Path, planned: list[float]) -> None:
    sweep, output = Sweep(written(tmp_path, MADE_UP)), tmp_path / "r.jsonl"
    with pytest.raises(KeyboardInterrupt):
        sweep.run(output, SERIAL, StopsAt(2))
    assert not output.exists() and planned == [1.0, 2.0]
    with journal_of(output).open("ab") as journal:
        journal.write(b'{"point": "torn')
    with pytest.raises(KeyboardInterrupt):
        sweep.run(output, SERIAL, StopsAt(4))
    summary = sweep.run(output, SERIAL)
    assert planned == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] and summary.kept == 4
    planned.clear()
    sweep.run(tmp_path / "whole.jsonl", SERIAL)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    planned.clear()
    assert sweep.run(output, SERIAL).kept == 6 and planned == []


def test_rows_of_another_sweep_are_taken_only_when_asked(tmp_path: Path, planned: list[float]) -> None:
    output = tmp_path / "r.jsonl"
    old = Sweep(written(tmp_path, MADE_UP))
    with pytest.raises(KeyboardInterrupt):
        old.run(output, SERIAL, StopsAt(2))
    new = Sweep(written(tmp_path, MADE_UP.replace("[1, 2, 3", "[7, 2, 3")))
    with pytest.raises(InputError, match="journal: holds another sweep or version: 1 of its 2 points are among the 6"):
        new.run(output, SERIAL)
    old.run(output, SERIAL)
    before = output.read_bytes()
    with pytest.raises(InputError, match="5 of its 6 points are among the 6 of this one"):
        new.run(output, SERIAL)
    assert output.read_bytes() == before and not journal_of(output).exists()
    planned.clear()
    with pytest.raises(KeyboardInterrupt):
        new.run(output, Asked("serial", resume=True), StopsAt(6))
    assert new.run(output, SERIAL).kept == 6 and planned == [7.0]
    assert [row["isl"] for row in rows_of(output)] == [7.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    planned.clear()
    assert old.run(output, Asked("serial", force=True)).kept == 0 and len(planned) == 6
    assert output.read_bytes() == before


def test_failures_are_planned_again_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, output = Sweep(written(tmp_path, MADE_UP)), tmp_path / "r.parquet"

    def failing(point: Point, task: Task, halt: object) -> Result:
        return Result(row_of(point, "error" if point.values["isl"] == 3 else "infeasible", "x"), None)

    monkeypatch.setattr(work_module, "_result", failing)
    assert sweep.run(output, SERIAL).status == {"ok": 0, "infeasible": 5, "stopped": 0, "error": 1}
    monkeypatch.setattr(work_module, "_result", made_up)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(output, Asked("serial", retry=True), StopsAt(6))
    again = sweep.run(output, Asked("serial", retry=True))
    assert again.kept == 6 and again.status["error"] == 0
    assert rows_of(output)[2]["message"] == "made up 3.0"


def test_a_row_without_its_plan_file_is_planned_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    def result(point: Point, task: Task, halt: object) -> Result:
        return Result({**made_up(point, task, halt).row, "status": "ok"}, zlib.compress(b"{}") if task.plans else None)

    monkeypatch.setattr(work_module, "_result", result)
    sweep, output, plans = Sweep(written(tmp_path, MADE_UP)), tmp_path / "r.jsonl", tmp_path / "p" / "q"
    sweep.run(output, SERIAL)
    assert sweep.run(output, Asked("serial", plans=plans)).kept == 0
    (plans / f"{sweep.ids[3]}.json").unlink()
    assert sweep.run(output, Asked("serial", plans=plans)).kept == 5
    assert len(list(plans.iterdir())) == 6


# --- workers that die ----------------------------------------------------------------------------------------------


class Mortal(Workers):
    """Two workers that die of one point, with everything that was handed out."""

    count = 2

    def __init__(self, poison: str) -> None:
        self.poison, self.renewed, self.broken = poison, 0, False
        self.tried: Counter[str] = Counter()
        self._waiting: list[tuple[Future[list[Result]], Task]] = []

    def submit(self, task: Task) -> Future[list[Result]]:
        if self.broken:
            raise BrokenExecutor("broken")
        self.tried.update(point.id for point in task.points)
        future: Future[list[Result]] = Future()
        self._waiting.append((future, task))
        if len(self._waiting) == 4 or len(task.points) == 1 or task.points[-1].id == "9":
            self.broken = any(point.id == self.poison for _, given in self._waiting for point in given.points)
            for waiting, given in self._waiting:
                if self.broken:
                    waiting.set_exception(BrokenExecutor("died"))
                else:
                    waiting.set_result([Result(row_of(point, "infeasible", "x"), None) for point in given.points])
            self._waiting.clear()
        return future

    def renew(self) -> None:
        self.renewed, self.broken = self.renewed + 1, False

    def close(self, *, now: bool) -> None:
        pass


@pytest.mark.parametrize("poison", ["0", "4", "9", "none"])
def test_only_the_point_that_kills_workers_is_blamed(poison: str) -> None:
    points = [Point(str(n), {"model": "m", "hardware": "h"}, {}) for n in range(10)]
    staff = Mortal(poison)
    found = [result.row for results in Drive(staff, {}).results(iter(points), lambda: None) for result in results]
    assert sorted(str(row["point"]) for row in found) == [point.id for point in points]
    assert [row["point"] for row in found if row["status"] == "error"] == ([] if poison == "none" else [poison])
    assert staff.tried[poison] == (0 if poison == "none" else 3), "once, and two retries"


def test_suspects_wait_until_nobody_else_works() -> None:
    """Where only the task of the dead worker is lost, the others are still at work."""

    class Several(Workers):
        count = 3
        at_work: list[tuple[Future[list[Result]], Task]] = []
        lost = 0

        def submit(self, task: Task) -> Future[list[Result]]:
            future: Future[list[Result]] = Future()
            if task.points[0].id == "1":
                assert not (self.lost and self.at_work)
            if task.points[0].id == "1" and not self.lost:
                self.lost = 1
                future.set_exception(BrokenExecutor("died"))
            else:
                self.at_work.append((future, task))
            return future

        def tick(self) -> None:
            for future, task in self.at_work[:1]:
                future.set_result([Result(row_of(point, "infeasible", "x"), None) for point in task.points])
            del self.at_work[:1]

        def close(self, *, now: bool) -> None:
            pass

    points = [Point(str(n), {"model": "m", "hardware": "h"}, {}) for n in range(4)]
    staff = Several()
    found = [result.row["point"] for results in Drive(staff, {}).results(iter(points), staff.tick) for result in results]
    assert sorted(map(str, found)) == ["0", "1", "2", "3"] and staff.lost


def test_the_bottleneck_is_that_of_output_tokens() -> None:
    shares = (("prefill", "compute", 0.9), ("decode", "hbm", 0.4), ("decode", "network", 0.6))
    rows = [Bottleneck(pool="mixed", phase=phase, resource=name, share=share) for phase, name, share in shares]  # type: ignore[arg-type]
    assert _worst(rows) == rows[2] and _worst(rows[:1]) == rows[0] and _worst([]) is None


def test_a_cluster_without_its_scheduler_stops_the_sweep() -> None:
    class Gone(Mortal):
        def renew(self) -> None:
            raise StoppedError("gone")

    with pytest.raises(StoppedError):
        list(Drive(Gone("0"), {}).results(iter([Point("0", {"model": "m", "hardware": "h"}, {})]), lambda: None))


def test_other_failures_of_a_worker_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another version, for one; the rows so far are kept."""
    sweep, output = Sweep(written(tmp_path, MADE_UP)), tmp_path / "r.jsonl"
    monkeypatch.setattr("planner.sweep.drive.VERSIONS", {"planner": "0.0.1", "catalogue": "old"})
    with pytest.raises(InputError, match="a worker has planner"):
        sweep.run(output, SERIAL)
    assert journal_of(output).exists()


def test_a_fault_of_the_program_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a\nb")

    monkeypatch.setattr("planner.api.plan", broken)
    sweep = Sweep(written(tmp_path, MADE_UP))
    assert sweep.run(tmp_path / "r.jsonl", SERIAL).status["error"] == 6
    assert rows_of(tmp_path / "r.jsonl")[0]["message"] == "internal fault: ZeroDivisionError: a b"


def test_a_process_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    class Kills(Progress):
        done = False

        def advanced(self, status: Counter[str]) -> None:
            mine = [child for child in multiprocessing.active_children() if child not in before]
            if status.total() and not self.done:
                self.done = True
                os.kill(int(mine[0].pid or 0), signal.SIGKILL)

    before = multiprocessing.active_children()
    sweep = Sweep(written(tmp_path, HEAD + f"[grid]\nisl = [{', '.join(str(n * 100) for n in range(1, 7))}]\n"))
    killer = Kills()
    summary = sweep.run(tmp_path / "killed.jsonl", Asked("process", count=1), killer)
    assert killer.done and summary.status["ok"] == 6
    sweep.run(tmp_path / "whole.jsonl", SERIAL)
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# --- the command ---------------------------------------------------------------------------------------------------

PLANNER = [sys.executable, "-m", "planner"]
QUICK = HEAD + f"[grid]\nisl = [{', '.join(str(n * 10) for n in range(10, 26))}]\n"


def until(met: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def children_of(parent: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes as Linux shows them")
def test_ctrl_c_and_kill_lose_nothing(tmp_path: Path) -> None:
    written(tmp_path, QUICK)
    journal = tmp_path / "r.csv.journal"
    words = [*PLANNER, "sweep", "s.toml", "-o", "r.csv", "--workers", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    started: dict[str, Any] = {
        "cwd": tmp_path,
        "env": environment,
        "stderr": subprocess.PIPE,
        "start_new_session": True,
    }
    for number in (signal.SIGINT, signal.SIGKILL):
        had = lines_of(journal)
        with subprocess.Popen(words, text=True, **started) as process:
            until(lambda had=had: lines_of(journal) > max(had, 1))  # type: ignore[misc]
            children = children_of(process.pid)
            if number == signal.SIGINT:
                os.killpg(process.pid, number)  # as a terminal does
            else:
                process.kill()
            _, told = process.communicate(timeout=30)
        until(lambda children=children: not any(alive(child) for child in children))  # type: ignore[misc]
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert told.splitlines()[-1].startswith("planner: stopped; ") and "of 16 points are kept in r.csv.journal" in told
            assert "Traceback" not in told
    kept = lines_of(journal) - 1
    sweep = Sweep(tmp_path / "s.toml")
    assert sweep.run(tmp_path / "r.csv", SERIAL).kept == kept > 0
    assert [row["point"] for row in rows_of(tmp_path / "r.csv")] == list(sweep.ids)


def test_the_command_tells_and_keeps_the_contract(tmp_path: Path, run: Run, planned: list[float]) -> None:
    spec = written(tmp_path, MADE_UP)
    code, out, err = run("sweep", spec, "--executor", "serial", "--format", "json")
    assert code == 0 and "next: planner sweep" in err
    jsonschema.validate(json.loads(out), schema_of("sweep-result"))
    assert [row["isl"] for row in json.loads(out)["rows"]] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    code, out, err = run("sweep", spec, "--executor", "serial", "-o", tmp_path / "r.jsonl")
    assert code == 0 and out.splitlines()[-1] == "6 points: 6 infeasible"
    code, out, err = run("sweep", spec, "--executor", "serial", "-o", tmp_path / "r.jsonl", "--format", "json")
    assert json.loads(out)["kept"] == 6 and json.loads(out)["rows"] is None
    code, out, _ = run("sweep", spec, "--dry-run")
    assert code == 0 and out == "6 points; exclude takes out 0\n"
    for words, told in (
        (("--resume", "--force", "-o", tmp_path / "r.jsonl"), "exclude each other"),
        (("--resume",), "give -o"),
        (("-o", tmp_path / "r.xlsx"), "ends in none of .jsonl, .csv and .parquet"),
        (("-o", tmp_path / "none" / "r.csv"), "its folder does not exist"),
        (("--executor", "dask"), "needs a cluster"),
        (("--scheduler", "tcp://x"), "goes with --executor dask"),
        (("--executor", "serial", "--workers", "2"), "goes with --executor process or thread"),
    ):
        code, out, err = run("sweep", spec, *words)
        assert code == 2 and told in err and len(err.splitlines()) == 1, (words, err)
    (tmp_path / "r.csv").mkdir()
    code, _, err = run("sweep", spec, "-o", tmp_path / "r.csv")
    assert code == 2 and "is not a regular file" in err


def test_what_is_done_is_said_now_and_then(
    tmp_path: Path, run: Run, planned: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("planner.cli.sweep_view.EVERY_S", 0.0)
    spec = written(tmp_path, MADE_UP)
    code, _, err = run("sweep", spec, "--executor", "serial")
    assert code == 0 and "1 of 6 points" in err and "/s" in err
    code, _, err = run("sweep", spec, "--executor", "serial", "--quiet")
    assert err == ""


def test_packages_that_are_not_there_are_named(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = written(tmp_path, MADE_UP)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run("sweep", spec, "-o", tmp_path / "r.parquet")
    assert code == 2 and "pip install 'inference-planner[parquet]'" in err
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = run("sweep", spec, "--executor", "dask", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "pip install 'inference-planner[dask]'" in err


def test_the_blank_sweep_is_a_sweep(tmp_path: Path, run: Run) -> None:
    import tomllib

    code, _, err = run("init", "sweep", tmp_path / "new.toml")
    assert code == 0 and "next: planner sweep" in err
    text = (tmp_path / "new.toml").read_text(encoding="utf-8")
    assert text == blank_sweep("new.toml")
    assert len(Sweep(tmp_path / "new.toml").ids) == 7
    jsonschema.validate(tomllib.loads(text), schema_of("sweep"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**tomllib.loads(text), "grid": {"isl": 5}}, schema_of("sweep"))
    with pytest.raises(ValidationError):
        Spec.model_validate({})


# --- a real cluster ------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A Dask scheduler and two workers, as processes of the command line: its address, and the workers."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    tell = ["--no-dashboard", "--scheduler-file", str(file)]
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    work = ["--no-nanny", "--nthreads", "1", "--local-directory", str(tmp_path / "dask")]
    words = [*dask[:-1], f"{dask[-1]}worker", *tell, *work]
    started = [subprocess.Popen([*dask[:-1], f"{dask[-1]}scheduler", *tell, "--host", "127.0.0.1", "--port", "0"], **quiet)]
    try:
        started += [subprocess.Popen(words, **quiet) for _ in range(2)]
        until(lambda: file.exists() and file.read_text(encoding="utf-8").endswith("}"))
        yield json.loads(file.read_text(encoding="utf-8"))["address"], started[1:]
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def test_a_cluster_that_loses_a_worker_loses_nothing(tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]) -> None:
    address, staff = cluster

    class Kills(Progress):
        done = 0

        def advanced(self, status: Counter[str]) -> None:
            if 1 < status.total() < 13 and not self.done:
                self.done = status.total()
                staff[0].kill()

    sweep, killer = Sweep(written(tmp_path, QUICK)), Kills()
    summary = sweep.run(tmp_path / "dask.jsonl", Asked("dask", scheduler=address), killer)
    assert killer.done and summary.status["ok"] == 16 and summary.kept == 0
    assert staff[0].wait() != 0 and staff[1].poll() is None
    sweep.run(tmp_path / "serial.jsonl", SERIAL)
    assert (tmp_path / "dask.jsonl").read_bytes() == (tmp_path / "serial.jsonl").read_bytes()


def test_executors_are_known_by_name() -> None:
    assert isinstance(workers("serial"), executors_module.Serial)
    staff = workers("process", 3)
    assert isinstance(staff, Processes) and staff.count == 3
    staff.close(now=False)
