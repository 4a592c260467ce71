"""The engines themselves: their published packages are downloaded, their real parsers run. Opt in with ``pytest -m engines``.

Needs the extra ``engines`` and a package index; no GPU and no torch (``.ci/stand_ins.py``).
"""

import json
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from exported import CASES, deployment

from planner.export import EngineDeployment, Values, sglang, vllm
from planner.export.common import Notes
from planner.export.options import load_options
from planner.export.serve import Serve

pytestmark = pytest.mark.engines
TOP = Path(__file__).resolve().parents[1]
SNAPSHOTS = TOP / "planner" / "export" / "options"
VALUES = Values(model_path="deepseek-ai/DeepSeek-V3", served_model_name="served", interface="mlx5_0")


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An engine and its unpacked package of the snapshot's version. A source package stays where pip unpacked it when its build
    requirements (torch) are found missing."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    wanted = f"{name}=={load_options(name).version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wanted]
    if name == "vllm":
        command[-1:-1] = ["--no-binary", name, "--no-build-isolation", "--no-clean"]
    (folder / "tmp").mkdir()
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(folder / "tmp")}, capture_output=True, text=True, timeout=900)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "source")
        return name, folder / "source"
    unpacked = sorted((folder / "tmp").glob(f"pip-download-*/{name}*"))
    assert unpacked, done.stderr
    return name, unpacked[0]


def call(engine: str, source: Path, *more: str) -> str:
    words = [sys.executable, str(TOP / ".ci" / "engine_options.py"), engine, str(source), *more]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@cache
def commands(engine: str) -> list[Serve]:
    command = {"vllm": vllm.serve_command, "sglang": sglang.serve_command}[engine]

    def all_of(here: EngineDeployment) -> list[Serve]:
        return [command(here, pool, VALUES, Notes()) for pool in here.pools]

    return [serve for name in CASES for serve in all_of(deployment(name))]


def test_the_snapshot_is_what_the_package_says(engine: tuple[str, Path]) -> None:
    name, source = engine
    assert json.loads(call(name, source)) == json.loads((SNAPSHOTS / f"{name}.json").read_text())


def test_the_real_parser_takes_every_exported_command(engine: tuple[str, Path], tmp_path: Path) -> None:
    name, source = engine
    for number, serve in enumerate(commands(name)):
        words = tmp_path / f"{number}.json"
        words.write_text(json.dumps(serve.argv()[len(serve.program) :]))
        parsed = json.loads(call(name, source, "--parse", str(words)))
        tp = serve.options["tensor-parallel-size" if name == "vllm" else "tp-size"]
        assert parsed["tensor_parallel_size" if name == "vllm" else "tp_size"] == str(tp)


def test_the_real_parser_refuses_a_wrong_word(engine: tuple[str, Path], tmp_path: Path) -> None:
    name, source = engine
    words = tmp_path / "wrong.json"
    words.write_text(json.dumps([*commands(name)[0].argv()[len(commands(name)[0].program) :], "--tensor-paralel-size", "8"]))
    done = subprocess.run(
        [sys.executable, str(TOP / ".ci" / "engine_options.py"), name, str(source), "--parse", str(words)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2 and "tensor-paralel-size" in done.stderr
