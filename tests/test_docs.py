"""The documentation runs: every Python block is executed, every relative link leads somewhere."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").rglob("*.md"))]
BLOCKS = [
    (page, number, code)
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]


@pytest.mark.parametrize(("page", "number", "code"), BLOCKS, ids=[f"{p.name}-{n}" for p, n, _ in BLOCKS])
def test_python_blocks_run(page, number, code):
    exec(compile(code, f"{page.name} block {number}", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


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

    text = (TOP / "docs" / "own-machine.md").read_text()
    files = re.findall(r"```toml\n# file: (\S+)\n(.*?)```", text, re.S)
    assert [name for name, _ in files] == ["acme-x1.toml", "acme-node.toml", "my-910c.toml"]
    for name, body in files:
        (tmp_path / name).write_text(body)
    found = plan("llama-3.1-70b", load_hardware(str(tmp_path / "acme-node.toml")))
    assert found.certificate.proved
    assert found.pools[0].memory["usable_bytes"] == 96_000_000_000
