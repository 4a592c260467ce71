"""What is installed, how it starts, and what its files may say."""

from __future__ import annotations

import configparser
import importlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import planner
from planner.plugins import BUILTIN

TOP = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = TOP / "requirements.lock"


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter that imports the same ``planner`` as this one."""
    root = str(Path(planner.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=TOP, check=True, capture_output=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_its_data_and_the_profiles(wheel: zipfile.ZipFile) -> None:
    def wanted(folder: str, prefix: str) -> set[str]:
        files = (path for path in (TOP / folder).rglob("*") if path.is_file())
        return {prefix + path.relative_to(TOP / folder).as_posix() for path in files if path.suffix != ".pyc"}

    profiles = wanted("hardware_profiles", "planner/_hardware_profiles/")
    assert any(name.endswith(".toml") for name in profiles)
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == wanted("planner", "planner/") | profiles
    assert "planner/py.typed" in held
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_every_entry_point_of_the_wheel_loads_and_is_what_a_checkout_has_built_in(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    points = configparser.ConfigParser()
    points.optionxform = str  # type: ignore[assignment, method-assign]
    points.read_string(wheel.read(name).decode())
    assert points["console_scripts"]["planner"] == "planner.__main__:run"
    assert {group: dict(points[group]) for group in points.sections() if group != "console_scripts"} == BUILTIN
    for group in points.sections():
        for target in points[group].values():
            module, _, attribute = target.partition(":")
            assert getattr(importlib.import_module(module), attribute) is not None


def test_the_version_agrees(wheel: zipfile.ZipFile) -> None:
    assert wheel.filename is not None
    assert Path(wheel.filename).name == f"inference_planner-{planner.__version__}-py3-none-any.whl"
    newest = re.search(r"^## (\S+)", (TOP / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest[1] == planner.__version__
    done = fresh("import sys; sys.argv = ['planner', '--version']; from planner.cli import main; main()")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == planner.__version__


def test_help_loads_no_solver_and_no_table_library() -> None:
    done = fresh(
        "import sys; sys.argv = ['planner', '--help']\n"
        "from planner.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    heavy = {"distributed", "fastapi", "huggingface_hub", "networkx", "ortools", "pandas", "plotly", "simpy"}
    assert heavy & set(done.stderr.split()) == set()


def test_public_names_survive_the_import_of_every_room() -> None:
    done = fresh(
        "import importlib, pkgutil, planner\n"
        "assert 'plan' in planner.__all__\n"
        "def check():\n"
        "    for name in planner.__all__:\n"
        "        assert type(getattr(planner, name)).__name__ != 'module', name\n"
        "    try: planner.plan('no-such-model', 'no-such-hardware')\n"
        "    except planner.errors.InputError: pass\n"
        "    else: raise AssertionError('an unknown model was planned')\n"
        "import planner.errors\n"
        "check()\n"
        "for module in pkgutil.walk_packages(planner.__path__, 'planner.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "        check()\n"
    )
    assert done.returncode == 0, done.stderr


def test_the_lock_pins_every_requirement_with_hashes_and_names_no_source() -> None:
    text = LOCK.read_text(encoding="utf-8")
    pins: dict[str, list[str]] = {}
    for block in re.split(r"\n(?=\S)", text.replace("\\\n", "")):
        requirement, *hashes = block.split("--hash=sha256:")
        assert hashes and all(re.fullmatch(r"[0-9a-f]{64}", digest.strip()) for digest in hashes), requirement
        pin = Requirement(requirement)
        pins.setdefault(canonicalize_name(pin.name), []).append(str(pin.specifier).removeprefix("=="))
    extras = PROJECT["project"]["optional-dependencies"].values()
    for line in [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]:
        wish = Requirement(line)
        if wish.name != PROJECT["project"]["name"]:
            versions = pins.get(canonicalize_name(wish.name), [])
            assert versions and all(wish.specifier.contains(version) for version in versions), line


def test_no_file_names_a_package_index_or_a_folder_of_one_machine() -> None:
    # written so that this line does not match itself
    forbidden = re.compile(r"pypi[.]org|pythonhoste[d]|--(extra-)?index[-]url|(?<![\w.-])/(ro{2}t|hom[e])/")
    tops = [".ci", "docs", "hardware_profiles", "planner", "tests"]
    files = [path for top in tops for path in (TOP / top).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files += [path for path in TOP.iterdir() if path.is_file()]
    for path in files:
        found = forbidden.search(path.read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{path.relative_to(TOP)}: {found}"
