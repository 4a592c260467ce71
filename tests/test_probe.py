"""The probe: what it measures becomes a sound profile, nothing is left behind, and a run's prediction is the planner's own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest

from planner.errors import InputError
from planner.hardware import System, load_hardware
from planner.hardware.writer import to_toml
from planner.performance import resolve_rates
from planner.probe import blas, disk
from planner.probe import measure as measuring
from planner.probe.accelerator import Accelerator, measure_accelerator
from planner.probe.clock import Spread, spread_of, timed
from planner.probe.decoder import Clock, Measured, decoder, run
from planner.probe.disk import measure_disk, scratch
from planner.probe.fit import fit
from planner.probe.limits import Bound
from planner.probe.memory import Memory, measure_memory
from planner.probe.place import placed
from planner.probe.predict import pool_of, predict, reference_runtime
from planner.probe.products import FEW, Products, curve_points, product
from planner.probe.profile import SOURCE, profile_of
from planner.probe.spec import Spec, graph_of, read_specs
from planner.probe.study import configurations, interleaved
from planner.probe.topology import Topology
from planner.runtimes import load_runtime

TOP = Path(__file__).resolve().parents[1]
DAY = date(2026, 11, 22)
TINY = measuring.Effort(2**22, 2**22, (1, 2), 3, 2, 0.02, True)
SMALL = {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "inner": 32, "experts": 4, "active": 2}
SMALL |= {"vocabulary": 64, "batch": 3, "context": 8}
TABLE = {"rows": 64, "dim": 128, "heads": 2, "layers": (1,)}
Run = Callable[..., tuple[int, str, str]]


def flat(value: float, runs: int = 3) -> Spread:
    return Spread(value, value * 0.9, value * 1.1, runs)


MEMORY = Memory(((1, flat(20e9)), (2, flat(40e9))), ((1, flat(10e9)),), flat(30e9), flat(1e-7), flat(1e-6), 16 * 10**9)
PRODUCTS = (Products("fp32", flat(100e9), ((1, flat(12e9)), (16, flat(60e9)), (128, flat(90e9)))),)
DISK = disk.Disk(((1, flat(2e9)), (8, flat(2.5e9))), ((1, flat(40e3)), (8, flat(80e3))), flat(20e-6), flat(1e9), 10**11, True)


@pytest.fixture(scope="module")
def host() -> System:
    return profile_of("my-host", DAY, 2, MEMORY, PRODUCTS, DISK)


# -- measuring -----------------------------------------------------------------------------------------------------------
def test_a_spread_is_the_median_and_its_percentiles() -> None:
    found = spread_of([1.0, 2.0, 4.0])
    assert found.value == 2.0 and found.low < 2.0 < found.high and found.runs == 3
    rate = found.inverse(8.0)
    assert rate.value == 4.0 and rate.low == pytest.approx(8.0 / found.high) and rate.low < rate.high
    assert timed(lambda: None, 5, 0.0).runs == 3, "past its limit three runs are enough"


@pytest.mark.parametrize("rows", [1, 2, FEW - 1, FEW, 20])
@pytest.mark.parametrize("columns", [48, 4096])
def test_products_of_few_rows_are_those_of_blas(rows: int, columns: int) -> None:
    chance = np.random.default_rng(rows)
    given = chance.standard_normal((rows, columns), dtype=np.float32)
    weights = chance.standard_normal((100, columns), dtype=np.float32)
    np.testing.assert_allclose(product(given, weights), given @ weights.T, rtol=2e-4, atol=2e-3)


def test_a_curve_is_one_that_a_profile_takes() -> None:
    jagged = Products("fp32", flat(10.0), ((1, flat(1.0)), (2, flat(9.0)), (4, flat(3.0)), (8, flat(10.0))))
    assert curve_points(jagged) == ((1.0, 0.1), (2.0, 0.2), (4.0, 0.3), (8.0, 0.6))


def test_the_threads_of_products_are_put_back() -> None:
    with blas.threads(1) as told:
        if told:
            _, get = blas._library() or (None, None)
            assert get() == 1
    if told:
        before = get()
        with pytest.raises(KeyError), blas.threads(1):
            raise KeyError
        assert get() == before


def test_a_probe_of_this_machine_is_a_sound_profile(tmp_path: Path, run: Run) -> None:
    found = measuring.probe(TINY, tmp_path, 1)
    assert not list(tmp_path.iterdir())
    profile = found.profile("my-host", DAY)
    assert profile.tiers[0].kind == "ddr" and profile.tiers[0].role == "device" and profile.devices == 1
    assert {tier.read.source for tier in profile.tiers} == {SOURCE} and {tier.read.grade for tier in profile.tiers} == {"A"}
    assert profile.tiers[0].read.lowest <= profile.tiers[0].read.value <= profile.tiers[0].read.highest
    file = tmp_path / "my-host.toml"
    file.write_text(to_toml(profile))
    assert load_hardware(str(file)).system == profile
    code, out, err = run("lint", file)
    assert code == 0, out + err


def test_plans_are_made_with_a_probed_profile(tmp_path: Path, run: Run, host: System) -> None:
    file = tmp_path / "my-host.toml"
    file.write_text(to_toml(host))
    code, out, err = run("lint", file)
    assert code == 0 and not out.count("fault"), out + err
    code, out, err = run(
        "plan", "llama-3.1-8b", file, "--tpot", "100s", "--ttft", "10h", "--isl", 64, "--osl", 16, "--format", "json"
    )
    assert code == 0, err
    assert json.loads(out)["inputs"]["hardware"]["mixed"]["system"]["id"] == "my-host"


def test_a_curve_that_holds_reading_is_read_at_every_number_of_rows(host: System) -> None:
    rates = resolve_rates(host, load_runtime("ideal"))
    assert rates.knee_rows["fp32"] == 1.0
    assert rates.peak["bf16"] == rates.peak["fp32"], "what needs 16 bits runs in the narrowest float there is"
    assert rates.gemm_flop_per_s("fp32", np.array([1.0]), "dense")[0] == pytest.approx(12e9)


def test_memory_is_counted_before_arrays_take_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.probe.memory.memory_bound", lambda: Bound(tracemalloc.get_traced_memory()[0], "", 0.0))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert measure_memory(1, array_bytes=2**22, runs=1).usable - before < 2**20
    finally:
        tracemalloc.stop()


GPU_ROWS = ((1, flat(1e12)), (4096, flat(600e12)))
NVLINK = Topology("nvidia-smi", ("GPU0", "GPU1"), (("X", "NV18"), ("NV18", "X")))
GPU = Accelerator("H100", 2, 80 * 10**9, flat(3e12), flat(50e9), flat(45e9), {"bf16": GPU_ROWS}, flat(5e-6), flat(200e9))


def test_a_gpu_is_the_device_where_one_was_measured(tmp_path: Path, run: Run) -> None:
    found = profile_of("gpus", DAY, 2, MEMORY, PRODUCTS, DISK, GPU, NVLINK)
    file = tmp_path / "gpus.toml"
    file.write_text(to_toml(found))
    assert run("lint", file)[0] == 0
    assert found.power.value == 40 + 2 * 15 + 2 * 700 and "700 W for each GPU" in found.power.source
    assert "8192 x 8192" in found.device.compute["bf16"].gemm.note
    assert [tier.id for tier in found.tiers] == ["hbm", "ram", "disk"] and found.devices == 2
    assert found.domains[0].bandwidth.value == pytest.approx(200e9) and "NV18" in found.domains[0].bandwidth.note
    link = found.links[0]
    assert link.reverse_efficiency is not None and link.reverse_efficiency.value == pytest.approx(0.9)
    assert resolve_rates(found, load_runtime("generic")).memory_kind == "hbm"


class Tensor:
    """What the probe asks of one of torch's."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def pin_memory(self) -> "Tensor":
        return self

    def copy_(self, other: "Tensor", non_blocking: bool = False) -> None:
        assert other.shape == self.shape

    def add_(self, value: float) -> None:
        assert value

    def __matmul__(self, other: "Tensor") -> "Tensor":
        assert self.shape[1] == other.shape[0]
        return Tensor(self.shape[0], other.shape[1])


def fake_torch(**nccl: object) -> Any:
    def made(shape: Any, **_: object) -> Tensor:
        return Tensor(*(shape if isinstance(shape, tuple) else (shape,)))

    cuda = SimpleNamespace(
        synchronize=lambda: None,
        mem_get_info=lambda device: (79 * 10**9, 80 * 10**9),
        device_count=lambda: 2,
        get_device_name=lambda device: "A GPU",
        nccl=SimpleNamespace(**nccl),
    )
    kinds = dict.fromkeys(("uint8", "bfloat16", "float16"), "kind")
    return SimpleNamespace(
        cuda=cuda, ones=made, zeros=made, device=lambda *name: name, empty_like=lambda other: Tensor(*other.shape), **kinds
    )


def test_gpus_are_measured_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_accelerator(fake_torch(all_reduce=lambda parts: None), 2)
    assert found.count == 2 and found.usable > 79 * 10**9 and set(found.products) == {"bf16", "fp16"}
    assert found.all_reduce is not None and found.all_reduce.runs == found.read.runs == 2
    alone = measure_accelerator(fake_torch(), 2)
    assert alone.all_reduce is None
    monkeypatch.setattr(measuring, "find_accelerator", lambda runs: alone)
    assert any("no all-reduce ran over the 2 GPUs" in note for note in measuring.probe(TINY, None, 1).notes)


# -- the disk ------------------------------------------------------------------------------------------------------------
def test_a_scratch_file_has_no_name_and_holds_what_was_written(tmp_path: Path) -> None:
    with scratch(tmp_path, 3 * disk.BLOCK - 5, lambda offset: (offset // disk.BLOCK).to_bytes(4, "little")) as file:
        assert not list(tmp_path.iterdir()) and file.size == 3 * disk.BLOCK
        page = disk.aligned(disk.GRANULE)
        file.read(page, 2 * disk.BLOCK)
        assert bytes(page[:4]) == (2).to_bytes(4, "little")
    with pytest.raises(OSError):
        os.fstat(file.descriptor)


def test_where_direct_access_is_refused_reads_go_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int, *rest: int) -> int:
        if flags & getattr(os, "O_DIRECT", 0):
            raise OSError(22, "Invalid argument")
        return real(path, flags, *rest)

    monkeypatch.setattr("planner.probe.disk.os.open", refuse)
    found = measure_disk(tmp_path, size=2**20, depths=(1,), runs=1, seconds=0.01)
    assert not found.direct and not list(tmp_path.iterdir())
    assert "page cache" in profile_of("h", DAY, 1, MEMORY, PRODUCTS, found).tiers[1].read.note


def test_a_full_disk_and_a_folder_that_is_none_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no folder"), scratch(tmp_path / "none", 1):
        pass
    with pytest.raises(InputError, match="too little room for a scratch file"), scratch(tmp_path, 10**18):
        pass
    monkeypatch.setattr("planner.probe.disk.os.pwritev", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space left"), scratch(tmp_path, 1):
        pass
    assert not list(tmp_path.iterdir())


def opened(process: int) -> list[str]:
    """What files a process has open."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(link))
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what a process has open")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_probe_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    command = [
        sys.executable,
        "-m",
        "planner",
        "probe",
        "--threads",
        "1",
        "--disk",
        str(tmp_path),
        "-o",
        str(tmp_path / "a.toml"),
    ]
    ends = time.monotonic() + 60.0
    started = subprocess.Popen(command, cwd=TOP, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not any(".planner-probe" in link for link in opened(started.pid)):
            assert started.poll() is None and time.monotonic() < ends
            time.sleep(0.02)
        started.send_signal(number)
        started.communicate(timeout=20)
    finally:
        started.kill()
    assert started.returncode == code and not list(tmp_path.iterdir())


# -- the reference run ---------------------------------------------------------------------------------------------------
PLACES = [
    {},
    {"experts_on_disk": 0.5},
    {"experts_on_disk": 1.0, "dense_on_disk": True, "layers": 3},
    {"table": TABLE},
    {"table": TABLE, "table_on_disk": True, "experts_on_disk": 0.25},
]


def tokens(spec: Spec, folder: Path) -> np.ndarray:
    with decoder(spec, folder) as model:
        return np.stack([model.step(Clock()) for _ in range(4)])


def test_where_tensors_lie_changes_nothing_but_the_time(tmp_path: Path) -> None:
    """Every tensor is the same stretch of noise in memory and on disk, where it starts at a block of it."""
    whole = Spec.model_validate({**SMALL, "table": TABLE})
    with decoder(whole, tmp_path) as here:
        table = here.tables[0].copy()
    apart = Spec.model_validate({**SMALL, "table": TABLE, "table_on_disk": True})
    with decoder(apart, tmp_path) as model:
        rows = np.array([0, 5, 200], dtype=np.int64)
        np.testing.assert_array_equal(model._read_rows(0, rows), table[rows])
    with decoder(Spec.model_validate({**SMALL, "experts_on_disk": 0.5}), tmp_path) as model:
        first = model._expert(0, 0, Clock()).copy()
        np.testing.assert_array_equal(first, here.experts[0][0])
        assert model._expert(0, 3, Clock()).base is not None


@pytest.mark.parametrize("place", PLACES)
def test_a_step_runs_and_is_predicted_wherever_tensors_lie(place: dict[str, object], tmp_path: Path, host: System) -> None:
    spec = Spec.model_validate({**SMALL, **place})
    found = tokens(spec, tmp_path)
    assert found.shape == (4, 3) and (found >= 0).all() and (found < 64).all()
    assert (tokens(spec, tmp_path) == found).all() and not list(tmp_path.iterdir())
    measured = run(spec, tmp_path, steps=5, limit_s=0.1)
    assert measured.steps == len(measured.parts) == 5
    whole = sum(measured.operators.values())
    assert 0.0 < whole <= sum(measured.parts) / 3.0, "in three of five parts an operator takes its median or more"
    pool = pool_of(spec, host, reference_runtime())
    guess = predict(spec, pool)
    assert 0.0 < guess.low < guess.step < guess.high
    assert (guess.operators["tables"] > 0.0) == (spec.table is not None)
    assert (measured.operators["waiting for disk"] > 0.0) == bool(spec.disk_bytes)


def test_the_graph_has_the_bytes_that_the_run_has() -> None:
    for spec in (*configurations("fit"), *configurations("score")):
        model = graph_of(spec)
        norms = sum(
            tensor.parameters * group.count * block.layers
            for block in model.blocks
            for group in block.weights
            for tensor in group.tensors
            if len(tensor.shape) == 1
        )
        cache = model.cache_bytes(spec.context, "fp32", paged=False) * spec.batch
        assert model.weight_bytes() - 4 * norms + cache == spec.memory_bytes + spec.disk_bytes, spec.label


def test_what_lies_on_disk_takes_longer_by_reading_it(host: System) -> None:
    base = {**SMALL, "hidden": 512, "inner": 512, "experts": 8}
    runtime = reference_runtime()

    def step(**place: object) -> float:
        spec = Spec.model_validate({**base, **place})
        return predict(spec, pool_of(spec, host, runtime)).step

    half, whole = step(experts_on_disk=0.5) - step(), step(experts_on_disk=1.0) - step()
    woken = 8 * (1 - (1 - 2 / 8) ** 3) * 2  # experts of 8 that three tokens wake two at a time, in two layers
    assert whole == pytest.approx(woken * (3 * 512 * 512 * 4 / 2e9 + 20e-6), rel=0.02)
    assert half == pytest.approx(whole / 2, rel=1e-6)


def test_the_planner_says_what_goes_to_disk(host: System) -> None:
    spec = Spec.model_validate({**SMALL, "hidden": 512, "inner": 128, "experts": 32, "table": {**TABLE, "rows": 4096}})
    whole = spec.memory_bytes
    assert placed(spec, host, 2.0 * whole) == spec
    table = 4 * spec.table_elements
    first = placed(spec, host, whole - 0.5 * table)
    assert first.table_on_disk and not first.disk_experts, "its rows come while the layer before runs, experts are waited for"
    before = -1
    for memory in (0.8, 0.65, 0.5):
        found = placed(spec, host, memory * whole)
        assert found.memory_bytes <= memory * whole and found.disk_experts > before
        before = found.disk_experts
    with pytest.raises(InputError, match="not even what stays"):
        placed(spec, host, 1e6)
    with pytest.raises(InputError, match="has no disk"):
        placed(spec, profile_of("h", DAY, 1, MEMORY, PRODUCTS, None), whole)


def test_the_fit_finds_what_runs_were_made_of(host: System) -> None:
    specs = [Spec.model_validate({**SMALL, "hidden": 512, "inner": 512, "batch": batch}) for batch in (1, 4, 16)]
    specs.append(specs[1].model_copy(update={"experts_on_disk": 0.5}))
    start = reference_runtime()
    floors = start.floors.model_copy(update={"moe": start.floors.moe.model_copy(update={"value": 6e-4})})
    truth = start.model_copy(update={"floors": floors})
    runs = []
    for spec in specs:
        guess = predict(spec, pool_of(spec, host, truth))
        operators = {**guess.operators, "waiting for disk": guess.operators["waiting for disk"] * 2.0}
        runs.append((spec, Measured(flat(sum(operators.values())), operators, 5)))
    found = fit(runs, host, DAY)
    assert found.runtime.floors.moe.value == pytest.approx(6e-4, rel=0.1)
    assert found.system.tiers[1].read.value == pytest.approx(host.tiers[1].read.value / 2.0, rel=0.1)
    assert max(abs(error) for error in found.errors) < 0.06
    assert fit(runs, host, DAY) == found


def test_the_study_scores_what_the_fit_never_saw() -> None:
    fits, scores = configurations("fit"), configurations("score")
    assert len(scores) >= 30 and len(set(scores)) == len(scores) and not set(fits) & set(scores)
    assert sum(spec.disk_bytes > 0 for spec in scores) * 3 >= len(scores)
    order = interleaved(fits, scores)
    assert sorted(map(str, order)) == sorted(map(str, (*fits, *scores)))
    with pytest.raises(ValueError, match="is scored and fitted to"):
        interleaved(fits, (*scores, fits[0].model_copy(update={"id": "other"})))
    assert set(order[: len(order) // 2]) & set(fits) and set(order[len(order) // 2 :]) & set(fits)


# -- specifications ------------------------------------------------------------------------------------------------------
MODEL = "schema = 1\n[model]\n" + "\n".join(f"{key} = {value}" for key, value in SMALL.items()) + "\n"


def test_a_sweep_is_every_combination(tmp_path: Path) -> None:
    file = tmp_path / "Small.toml"
    file.write_text(MODEL.replace("batch = 3\n", "") + "[sweep]\nbatch = [1, 2]\nexperts_on_disk = [0.0, 0.5]\n")
    assert [(spec.id, spec.batch, spec.experts_on_disk) for spec in read_specs(file)] == [
        ("small", 1, 0.0),
        ("small", 1, 0.5),
        ("small", 2, 0.0),
        ("small", 2, 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema = 2\n[model]\n", "schema"),
        (MODEL + "colour = 1\n", "colour: unknown key"),
        (MODEL.replace("heads = 4", "heads = 5", 1), "heads: 5 does not divide by kv_heads 2"),
        (MODEL.replace("active = 2", "active = 9"), "active: 9 is more than experts 4"),
        (MODEL.replace("hidden = 64", "hidden = 1e99"), "hidden"),
        (MODEL + "experts_on_disk = 0.3\n", "no whole number"),
        (MODEL + "experts_on_disk = nan\n", "finite"),
        (MODEL + "table_on_disk = true\n", "there is no table"),
        (MODEL + "table = { rows = 64, dim = 120 }\n", "power of two"),
        (MODEL + "table = { rows = 64, layers = [7] }\n", "not below layers"),
        (MODEL + "[sweep]\nbatch = []\n", "has no values"),
        (MODEL + "[sweep]\nspeed = [1]\n", "names no figure"),
        (MODEL + f"[sweep]\nbatch = {list(range(1, 66))}\n", "makes 65 runs"),
        ("not toml", "is not TOML"),
    ],
)
def test_a_bad_specification_is_one_line(text: str, told: str, tmp_path: Path, run: Run) -> None:
    file = tmp_path / "spec.toml"
    file.write_text(text)
    code, out, err = run("probe", "--run", file)
    assert code == 2 and not out and told in err and len(err.splitlines()) == 1, err


def test_a_model_that_does_not_fit_is_refused_before_it_is_made(tmp_path: Path) -> None:
    spec = Spec.model_validate({**SMALL, "layers": 64, "hidden": 16384, "inner": 65536, "experts": 1024})
    with pytest.raises(InputError, match="GB is free"), decoder(spec, tmp_path):
        pass


# -- the command ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    few = tuple(Spec.model_validate({**SMALL, "batch": batch}) for batch in (1, 2, 4))
    monkeypatch.setattr(measuring, "QUICK", TINY)
    monkeypatch.setattr("planner.probe.study.configurations", lambda name: few)


@pytest.mark.usefixtures("tiny")
def test_the_command_measures_runs_and_writes(tmp_path: Path, run: Run) -> None:
    spec, host = tmp_path / "spec.toml", tmp_path / "my-host.toml"
    spec.write_text(MODEL + "[sweep]\nexperts_on_disk = [0.0, 0.5]\n")
    code, out, err = run("probe", "--quick", "--threads", 1, "--disk", tmp_path, "--as-of", "2026-11-22", "-o", host)
    assert code == 0 and f"wrote {host}" in err and "memory read" in out and "disk latency" in out, err
    assert max(map(len, out.splitlines())) <= 100
    code, out, err = run(
        "probe", "--run", spec, "--host", host, "--threads", 1, "--disk", tmp_path, "--quick", "--format", "json"
    )
    assert code == 0, err
    found = json.loads(out)
    code, schema, _ = run("schema", "probe")
    jsonschema.validate(found, json.loads(schema))
    assert found["machine"] is None and len(found["runs"]) == 2 and found["median_error"] >= 0.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-host.toml", "spec.toml"]
    assert run("probe", "--quick", "-o", host)[0] == 2, "nothing is overwritten"


@pytest.mark.usefixtures("tiny")
def test_the_table_names_what_is_furthest_off(tmp_path: Path, run: Run) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(MODEL)
    code, out, err = run("probe", "--quick", "--no-disk", "--threads", 1, "--run", spec)
    assert code == 0 and "furthest off" in out and "median error" in out and "the disk was left out" in out, err
    assert run("probe", "--quick", "--no-disk", "--run", spec, "--memory", "10MB")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", "x.toml"),
        ("--memory", "1GB"),
        ("-o", "my-host"),
        ("--disk", "no/such/folder"),
        ("--disk", "."),
        ("--threads", "1000", "--no-disk"),
        ("--run", "none.toml"),
        ("--as-of", "soon"),
    ],
)
def test_bad_calls_are_one_line(arguments: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if arguments == ("--disk", "."):
        arguments = ("--disk", ".", "--no-disk")
    code, out, err = run("probe", *arguments)
    assert code == 2 and not out and len(err.splitlines()) == 1, err
