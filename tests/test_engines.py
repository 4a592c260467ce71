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
from planner.export.options import load_fields, load_options
from planner.export.serve import Serve

pytestmark = pytest.mark.engines
TOP = Path(__file__).resolve().parents[1]
SNAPSHOTS = TOP / "planner" / "export" / "options"
VALUES = Values(model_path="deepseek-ai/DeepSeek-V3", served_model_name="served", interface="mlx5_0")


WRONG = {"vllm": ["--eplb-config", '{"bogus": 1}'], "sglang": ["--kv-cache-dtype", "fp7"]}


def unpacked(name: str, version: str, folder: Path) -> Path:
    """An engine's package of a version. A source package stays where pip unpacked it when its build requirements (torch) are
    found missing."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), f"{name}=={version}"]
    if name != "sglang":
        command[-1:-1] = ["--no-binary", name, "--no-build-isolation", "--no-clean"]
    (folder / "tmp").mkdir()
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(folder / "tmp")}, capture_output=True, text=True, timeout=900)
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "source")
        return folder / "source"
    found = sorted((folder / "tmp").glob(f"pip-download-*/{name}*"))
    assert found, done.stderr
    return found[0]


@pytest.fixture(scope="module", params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """An engine and its unpacked package of the snapshot's version."""
    name = request.param
    return name, unpacked(name, load_options(name).version, tmp_path_factory.mktemp(name))


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


def test_the_real_parser_takes_every_exported_command_and_refuses_a_wrong_word(engine: tuple[str, Path], tmp_path: Path) -> None:
    name, source = engine
    serves, words = commands(name), tmp_path / "words.json"
    lines = [list(serve.argv()[len(serve.program) :]) for serve in serves]
    wrong = [[*lines[0], "--tensor-paralel-size", "8"], [*lines[0], "--kv-cache-dtype"], [*lines[0], *WRONG[name]]]
    words.write_text(json.dumps([*lines, *wrong]))
    parsed = json.loads(call(name, source, "--parse", str(words)))
    for serve, found in zip(serves, parsed, strict=False):
        assert "refused" not in found, found["refused"]
        tp = serve.options["tensor-parallel-size" if name == "vllm" else "tp-size"]
        assert found["tensor_parallel_size" if name == "vllm" else "tp_size"] == str(tp)
    refused = [found.get("refused", "") for found in parsed[len(serves) :]]
    assert "tensor-paralel-size" in refused[0] and all(refused), refused


def test_the_plugins_fields_are_what_its_package_says(tmp_path: Path) -> None:
    source = unpacked("vllm-ascend", load_fields("vllm-ascend").version, tmp_path)
    words = [sys.executable, str(TOP / ".ci" / "config_fields.py"), "vllm-ascend", str(source)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout) == json.loads((SNAPSHOTS / "vllm-ascend.json").read_text())
