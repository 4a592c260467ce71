"""``planner probe`` as its user meets it: the profile it writes, what it rests on, and every way it can be called in vain."""

import os
import tomllib
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from planner.errors import InputError
from planner.hardware import System, load_hardware
from planner.hardware.writer import to_toml
from planner.probe import disk, study
from planner.probe import measure as measuring
from planner.probe.accelerator import Accelerator
from planner.probe.clock import Spread
from planner.probe.decoder import OPERATORS, Measured, check_fits
from planner.probe.limits import Bound
from planner.probe.memory import Memory
from planner.probe.products import Products
from planner.probe.profile import SOURCE, profile_of
from planner.probe.spec import Spec
from planner.probe.study import configurations, fit_here

DAY = date(2026, 11, 22)
TINY = measuring.Effort(2**22, 2**22, (1, 2), 3, 2, 0.02, True)
SMALL = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "inner": 32, "experts": 4, "active": 2}
SMALL |= {"vocabulary": 64, "batch": 3, "context": 8}
MODEL = "schema = 1\n[model]\n" + "\n".join(f"{key} = {value}" for key, value in SMALL.items()) + "\n"
Run = Callable[..., tuple[int, str, str]]


def flat(value: float) -> Spread:
    return Spread(value, value * 0.9, value * 1.1, 3)


MEMORY = Memory(((1, flat(20e9)),), ((1, flat(10e9)),), flat(15e9), flat(1e-7), flat(1e-6), 16 * 10**9)
PRODUCTS = (Products("fp32", flat(100e9), ((1, flat(12e9)), (128, flat(90e9)))),)
DISK = disk.Disk(((1, flat(2e9)), (8, flat(2.5e9))), ((1, flat(40e3)), (8, flat(80e3))), flat(20e-6), flat(1e9), 10**11, True)
GPU = Accelerator(
    "H100", 1, 80 * 10**9, flat(3e12), flat(50e9), flat(45e9), {"bf16": ((1, flat(1e12)), (4096, flat(6e14)))}, flat(5e-6)
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(Spec.model_validate({**SMALL, "batch": batch}) for batch in (1, 2, 4))
    monkeypatch.setattr(measuring, "QUICK", TINY)
    monkeypatch.setattr("planner.probe.products.FAR", 2**24)
    monkeypatch.setattr("planner.probe.study.configurations", lambda name: few)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "my model.toml"
    file.write_text(MODEL)
    return file


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("something was measured before the call was checked")

    monkeypatch.setattr(measuring, "probe", fail)
    monkeypatch.setattr(study, "run", fail)


# -- what is written -----------------------------------------------------------------------------------------------------
def figures(part: Any, path: str = "") -> dict[str, dict[str, Any]]:
    """Every table with a source, by its path."""
    found = {path: part} if isinstance(part, dict) and ("source" in part or "unknown" in part) else {}
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in inner:
        found |= figures(value, f"{path}.{key}".lstrip("."))
    return found


@pytest.mark.usefixtures("tiny")
def test_the_profile_states_where_every_figure_is_from_and_every_command_takes_it(tmp_path: Path, model: Path, run: Run) -> None:
    host = tmp_path / "my-host.toml"
    code, _, err = run("probe", "--quick", "--threads", 1, "--disk", tmp_path, "--as-of", "2026-11-22", "-o", host)
    assert code == 0, err
    found = figures(tomllib.loads(host.read_text()))
    assumed = {path for path, figure in found.items() if figure.get("source") != SOURCE}
    assert assumed == {"power", "capex"} and found["power"]["grade"] == "D" and "unknown" in found["capex"]
    assert len(found) - len(assumed) >= 18
    for path in set(found) - assumed:
        figure = found[path]
        assert figure["grade"] == "A" and figure["as_of"] == DAY, path
        assert {"low", "high"} <= set(figure) or {"low_factor", "high_factor"} <= set(figure), path
        assert "10th and 90th percentile" in figure["note"] or "read once" in figure["note"], path
    assert host.read_text().startswith("# a quick look") and "a quick look" in tomllib.loads(host.read_text())["name"]
    assert run("lint", host)[0] == 0
    code, out, err = run("show", "hardware", host)
    assert code == 0 and "disk memory disk (ssd)" in out, err
    limits = ("--tpot", "1000h", "--ttft", "10000h", "--isl", 16, "--osl", 4, "--tiers", "ram", "--gap", 1)
    code, out, err = run("plan", "llama-3.2-3b", host, *limits)
    assert code == 0, err
    code, out, err = run("probe", "--quick", "--host", host, "--threads", 1, "--disk", tmp_path, "--run", model)
    assert code == 0 and "median error" in out and "my-model" in out, err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my model.toml", "my-host.toml"]


@pytest.mark.usefixtures("tiny")
def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    host, real = tmp_path / "my-host.toml", measuring.probe

    def slow(*arguments: Any) -> measuring.Probed:
        host.write_text("another probe's")
        return real(*arguments)

    monkeypatch.setattr(measuring, "probe", slow)
    code, out, err = run("probe", "--quick", "--threads", 1, "--no-disk", "-o", host)
    assert code == 2 and not out and "File exists" in err or "exists already" in err
    assert host.read_text() == "another probe's" and list(tmp_path.iterdir()) == [host]
    code, _, err = run("probe", "--quick", "--threads", 1, "--no-disk", "-o", host, "--force")
    assert code == 0 and load_hardware(str(host)).system.id == "my-host", err


@pytest.mark.usefixtures("tiny")
def test_the_run_is_predicted_for_the_processor_also_where_gpus_are(
    tmp_path: Path, model: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "find_accelerator", lambda runs: GPU)
    seen: list[System] = []
    real = fit_here
    monkeypatch.setattr(study, "fit_here", lambda system, *rest, **_: seen.append(system) or real(system, *rest, quick=True))
    code, _, err = run("probe", "--quick", "--threads", 1, "--no-disk", "--run", model, "-o", tmp_path / "gpu.toml")
    assert code == 0, err
    assert seen[0].tiers[0].kind == "ddr" and load_hardware(str(tmp_path / "gpu.toml")).system.tiers[0].kind == "hbm"


# -- what the fit rests on -----------------------------------------------------------------------------------------------
def test_tables_on_disk_are_fitted_to_several_runs_that_are_not_scored() -> None:
    fits = [spec for spec in configurations("fit") if spec.table_on_disk]
    assert len(fits) >= 3 and not set(fits) & set(configurations("score"))
    assert sum(spec.table_on_disk for spec in configurations("fit")[::3]) >= 2, "--quick has some of them as well"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Spec]:
    """The configurations that are run, each as if it took as long as predicted, at once."""
    seen: list[Spec] = []

    def quickly(spec: Spec, folder: Path | None, *, steps: int, limit_s: float) -> Measured:
        seen.append(spec)
        return Measured(flat(1e-3 * spec.batch), dict.fromkeys(OPERATORS, 2e-4 * spec.batch), 5)

    monkeypatch.setattr(study, "run", quickly)
    monkeypatch.setattr(study, "fit", lambda runs, system, day: len(runs))
    return seen


@pytest.mark.parametrize(
    ("quick", "on_disk", "note"),
    [
        (False, True, "fitted to 20 runs on this machine, 6 with experts and 4 with tables on disk"),
        (True, True, "fitted to 7 runs on this machine, 2 with experts and 2 with tables on disk; --quick takes every third; "),
        (False, False, "fitted to 9 runs on this machine, 0 with experts and 0 with tables on disk; 11 had no room, or no disk"),
    ],
)
def test_what_the_fit_rests_on_is_told(quick: bool, on_disk: bool, note: str, ran: list[Spec], tmp_path: Path) -> None:
    host = profile_of("h", DAY, 1, MEMORY, PRODUCTS, DISK)
    _, told = fit_here(host, tmp_path if on_disk else None, 1, DAY, lambda *_: None, quick=quick)
    assert note in told and f"fitted to {len(ran)} runs" in told


def test_a_machine_too_small_for_the_fit_is_told(ran: list[Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = profile_of("h", DAY, 1, MEMORY, PRODUCTS, DISK)
    room = [0.7e9]
    monkeypatch.setattr("planner.probe.decoder.memory_bound", lambda: Bound(room[0], "memory.max of the control group", 5e11))
    _, told = fit_here(host, tmp_path, 1, DAY, lambda *_: None)
    assert 3 <= len(ran) < 20 and f"{20 - len(ran)} had no room" in told
    assert all(spec.memory_bytes < 0.8 * 0.7e9 for spec in ran)
    room[0] = 1e8
    with pytest.raises(InputError, match="of the 20 runs that the runtime is fitted to have room here, too few"):
        fit_here(host, tmp_path, 1, DAY, lambda *_: None)
    with pytest.raises(InputError, match=r"of memory, 0.10 GB is free \(memory.max of the control group\)"):
        check_fits(configurations("fit")[0], tmp_path)


# -- calls in vain -------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("hidden = -64", "hidden: "),
        ('hidden = "64 KB"', "hidden: Input should be a valid integer; write a whole number, without quotes or a unit"),
        ("experts = 0", "experts: "),
        ("experts = true", "write a whole number"),
        ("inner = 32.0", "write a whole number"),
        ("active = 5", "active: 5 is more than experts 4"),
        ('experts_on_disk = "25%"', "write a number, as 0.25"),
        ("experts_on_disk = -0.5", "experts_on_disk: "),
        ("dense_on_disk = 1", "write true or false"),
        ("table = 64", "table: "),
        ("table = { row = 64 }", "table.rows: is missing"),
        ("table = { rows = 64, heds = 2 }", "table.heds: unknown key"),
        ("table = { rows = 64, ngrams = 2 }", "write a list"),
        ("table = { rows = 16777216, dim = 8192, heads = 8 }", "GB of memory, "),
        (
            "table = { rows = 16777216, dim = 8192, heads = 8 }\ntable_on_disk = true",
            "too little room for a scratch file of 549.8 GB",
        ),
        ("layers = 64\nexperts = 1024\nhidden = 16384\ninner = 65536", "GB of memory, "),
        ("layers = 999999999999999999999", "beyond 64 bits"),
        ('id = "My Model"', "id: "),
    ],
)
def test_bad_models_are_one_line_before_anything_is_measured(extra: str, told: str, tmp_path: Path, run: Run) -> None:
    keys = {line.partition(" =")[0] for line in extra.splitlines()}
    lines = [line for line in MODEL.splitlines() if line.partition(" =")[0] not in keys]
    file = tmp_path / "spec.toml"
    file.write_text("\n".join([*lines, extra]) + "\n")
    code, out, err = run("probe", "--run", file, "--disk", tmp_path)
    assert code == 2 and not out and told in err and len(err.splitlines()) == 1, err


@pytest.mark.usefixtures("unmeasured")
def test_profiles_that_no_run_is_predicted_with_are_refused(tmp_path: Path, model: Path, run: Run) -> None:
    gpu, bare = tmp_path / "gpu.toml", tmp_path / "bare.toml"
    gpu.write_text(to_toml(profile_of("gpu", DAY, 1, MEMORY, PRODUCTS, DISK, GPU)))
    bare.write_text(to_toml(profile_of("bare", DAY, 1, MEMORY, PRODUCTS, None)))
    code, out, err = run("probe", "--run", model, "--host", gpu)
    assert code == 2 and "is not of one processor with its memory" in err and len(err.splitlines()) == 1
    model.write_text(MODEL + "experts_on_disk = 0.5\n")
    code, out, err = run("probe", "--run", model, "--host", bare)
    assert code == 2 and "bare.toml: has no disk" in err and not out
    code, out, err = run("probe", "--run", model, "--host", bare, "--threads", 1024)
    assert code == 2 and not out and len(err.splitlines()) == 1


@pytest.mark.usefixtures("unmeasured")
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("probe", "-o", tmp_path / "none" / "h.toml")
    assert code == 2 and "its folder does not exist" in err and not (tmp_path / "none").exists()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, out, err = run("probe", "-o", tmp_path / "h.toml")
    assert code == 2 and "its folder is read-only" in err and not out and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "told"), [(MemoryError(), "memory ran out"), (RuntimeError("can't start new thread"), "no more threads")]
)
def test_what_runs_out_is_told(error: Exception, told: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(measuring, "measure_memory", fail)
    code, out, err = run("probe", "--quick", "--no-disk", "--threads", 1)
    assert code == 2 and told in err and not out and len(err.splitlines()) == 1
