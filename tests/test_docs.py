"""The documentation runs: Python blocks and the commands of guides are executed, relative links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]
BLOCKS = [
    (page, number, code)
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]
GUIDES = [TOP / "docs" / "start.md", *sorted((TOP / "docs").glob("tutorial-*.md")), *sorted((TOP / "docs").glob("add-*.md"))]
GUIDES += [TOP / "docs" / "own-machine.md"]
"""Pages whose ``sh`` blocks run as printed, one after another in one folder."""
FILES = re.compile(r"```\w+\n# file: (\S+)\n(.*?)```", re.S)


@pytest.mark.parametrize(("page", "number", "code"), BLOCKS, ids=[f"{p.name}-{n}" for p, n, _ in BLOCKS])
def test_python_blocks_run(page, number, code):
    exec(compile(code, f"{page.name} block {number}", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def write_files(page: Path, folder: Path) -> list[str]:
    """The files that a page prints, each block of which begins with ``# file: NAME``."""
    found = FILES.findall(page.read_text())
    for name, body in found:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(body)
    return [name for name, _ in found]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the commands are for bash")
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_commands_of_a_guide_run_as_printed(page, tmp_path):
    folder, programs, site = tmp_path / "reader", tmp_path / "bin", tmp_path / "site"
    folder.mkdir()
    programs.mkdir()
    offline = f'install --quiet --no-index --no-deps --no-build-isolation --target "{site}" "$2"'
    for name, arguments in (("planner", '-m planner "$@"'), ("pip", f"-m pip {offline}"), ("python", '"$@"')):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n')
        (programs / name).chmod(0o755)
    write_files(page, folder)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(TOP), str(site)]),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "OMP_NUM_THREADS": "1",
    }
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.S)
    assert blocks
    for code in blocks:
        command = ["bash", "-euo", "pipefail", "-c", code]
        done = subprocess.run(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout}\n{done.stderr}"


def test_functions_named_in_the_model_page_exist():
    """``file.py: name`` in docs/model.md names a function or class of that file."""
    text = (TOP / "docs" / "model.md").read_text()
    named = re.findall(r"`([\w/]+\.py): (\w+)`", text)
    assert len(named) > 10
    for file, name in named:
        found = [path for path in (TOP / "planner").rglob(Path(file).name) if str(path).endswith(file)]
        assert any(re.search(rf"(def|class) {name}\b|\b{name} =", path.read_text()) for path in found), (file, name)


def test_the_machine_of_the_docs_plans(tmp_path):
    """docs/own-machine.md: its two files, written as they stand, make a plan."""
    from planner import load_hardware, plan

    names = write_files(TOP / "docs" / "own-machine.md", tmp_path)
    assert names == ["acme-x1.toml", "acme-node.toml", "my-910c.toml"]
    found = plan("llama-3.1-70b", load_hardware(str(tmp_path / "acme-node.toml")))
    assert found.certificate.proved
    assert found.pools[0].memory["usable_bytes"] == 96_000_000_000
