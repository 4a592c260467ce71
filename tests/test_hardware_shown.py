"""``show hardware`` as a tree and as DOT, ``list hardware`` in narrow and wide terminals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from planner.cli.common import fit_columns
from planner.cli.hardware_dot import dot_of, quoted
from planner.cli.hardware_tree import Branch, Evidence, render, tree_of
from planner.hardware import DeviceProfile, System, list_hardware, load_device, load_hardware
from planner.quantities import Figure

ROWS = list_hardware(kinds=("device", "node", "rack"))
IDS = [row.id for row in ROWS]


def profile_of(row_id: str) -> System | DeviceProfile:
    row = next(row for row in ROWS if row.id == row_id)
    return load_device(row.id) if row.kind == "device" else load_hardware(row.id).system


def planner(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    from planner.cli import main

    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


def figures(part: object) -> list[Figure]:
    if isinstance(part, Figure):
        return [part]
    items = [value for _, value in part] if isinstance(part, BaseModel) else part
    nested = items.values() if isinstance(items, dict) else items if isinstance(items, list | tuple) else ()
    return [figure for item in nested for figure in figures(item)]


# --- the tree ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_the_tree_shows_every_figure_with_its_grade_in_80_columns(name: str) -> None:
    profile, evidence = profile_of(name), Evidence()
    lines = render(tree_of(profile, evidence), 80, boxes=False)
    assert max(map(len, lines)) <= 80 and all(line.isascii() or not profile.name.isascii() for line in lines)
    found = figures(profile)
    curves = len((profile.device if isinstance(profile, System) else profile).compute)
    assert sum(evidence.grades.values()) + evidence.unknown == len(found) + curves
    assert evidence.unknown == sum(not figure.known for figure in found)
    text = " ".join(lines)
    assert text.count("unknown") >= evidence.unknown
    worst = max([figure.grade for figure in found if figure.known])
    assert max(evidence.grades) >= worst and f"lowest grade of a figure: {max(evidence.grades)}" in evidence.summary()
    marks = re.findall(r" ([ABCD?]) \[(\d+)\]", text)
    assert {int(number) for _, number in marks} == set(range(1, len(evidence.sources) + 1))


@pytest.mark.parametrize("width", [40, 60, 80, 140])
@pytest.mark.parametrize("boxes", [False, True])
def test_the_tree_keeps_to_any_width(width: int, boxes: bool) -> None:
    lines = render(tree_of(load_hardware("cloudmatrix384").system, Evidence()), width, boxes)
    assert max(map(len, lines)) <= width
    words = " ".join(re.sub(r"[|`│├└─-]", " ", " ".join(lines)).split())
    assert "bottleneck cpu ub" in words


def test_the_tree_of_a_rack_says_who_owns_what_and_what_binds(capsys: pytest.CaptureFixture[str]) -> None:
    text = planner("show", "hardware", "gb200-nvl72", capsys=capsys)
    for part in (
        "host memory host (lpddr), owned by cpu; 2 devices share it",
        "usable 480 GB (440 to 480) of one owner, 240 GB a device",
        "bottleneck host: 178.9 GB/s a device",
        "host (twice) 89.47 GB/s > c2c 405 GB/s",
        "the label says 186 GB",
        "lowest grade of a figure: D (A ",
    ):
        assert part in text
    lines = text.splitlines()
    inner = next(i for i, line in enumerate(lines) if "nvlink: 72 devices" in line)
    outer = next(i for i, line in enumerate(lines) if "scale-out: unbounded" in line)
    assert inner < outer and lines[inner].index("nvlink") < lines[outer].index("scale-out")
    node = planner("show", "hardware", "h800-node", capsys=capsys)
    assert "pcie-switch: link pcie, domain scale-out" in node


def test_what_is_not_known_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    text = planner("show", "hardware", "ascend-950dt-node", capsys=capsys)
    assert re.search(r"read unknown; default 4,000 GB/s \(2,700 to 4,200\) +\? \[\d+\]", text)
    assert "; 2 unknown)" in text and "no figure for the 96 GB part is published" in text
    text = planner("show", "hardware", "metax-c600-node", capsys=capsys)
    assert re.search(r"bandwidth unknown +\? \[\d+\]", text)


def test_a_path_through_an_unknown_rate_has_no_bottleneck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'schema = 1\nkind = "node"\nid = "mine"\nextends = "h100-node"\n[[link]]\nid = "pcie"\n'
        'bandwidth = { unknown = "nobody told", as_of = 2026-11-01 }\n',
        encoding="utf-8",
    )
    text = planner("show", "hardware", str(path), capsys=capsys)
    assert text.count("bottleneck unknown") == 2 and "pcie unknown" in text


def test_json_keeps_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(planner("show", "hardware", "h800-node", "--format", "json", capsys=capsys))
    assert set(data) == {"schema", *(set(System.model_fields) - {"schema_version"})}


def test_a_mark_never_wraps() -> None:
    root = Branch("root")
    root.add("word " * 30, "D [12]").add("leaf " * 20, "A [3]")
    lines = render(root, 40, boxes=False)
    assert max(map(len, lines)) <= 40
    assert [line[-7:] for line in lines if "[" in line] == [" D [12]", "  A [3]"]


# --- DOT --------------------------------------------------------------------------------------------------------

TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|->|[A-Za-z_][A-Za-z_0-9]*|[{}\[\];=,])')


class Dot:
    """A reader of the part of the DOT language that is written: statements of a digraph with clusters."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        place = 0
        while text[place:].strip():
            match = TOKEN.match(text, place)
            assert match, text[place : place + 60]
            self.tokens.append(match[1])
            place = match.end()
        self.nodes: dict[str, dict[str, str]] = {}
        self.edges: list[tuple[str, str, dict[str, str]]] = []
        self.clusters: dict[str, list[str]] = {}
        assert self.take() == "digraph"
        self.name = self.string(self.take())
        self.block("")
        assert not self.tokens

    def take(self, expected: str = "") -> str:
        token = self.tokens.pop(0)
        assert not expected or token == expected, (token, expected)
        return token

    @staticmethod
    def string(token: str) -> str:
        assert token[0] == token[-1] == '"', token
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], token[1:-1])

    def attributes(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self.tokens[0] == "[":
            self.take()
            while self.tokens[0] != "]":
                key = self.take()
                self.take("=")
                found[key] = self.take()
                if self.tokens[0] == ",":
                    self.take()
            self.take("]")
        return found

    def block(self, cluster: str) -> None:
        self.take("{")
        while self.tokens[0] != "}":
            first = self.take()
            if first == "subgraph":
                inner = self.string(self.take())
                assert inner.startswith("cluster") and inner not in self.clusters
                self.clusters[inner] = []
                self.block(inner)
                continue
            if first[0] != '"':
                if self.tokens[0] == "=":
                    self.take()
                    self.take()
                self.attributes()
            elif self.tokens[0] == "->":
                self.take()
                target = self.string(self.take())
                self.edges.append((self.string(first), target, self.attributes()))
            else:
                name = self.string(first)
                assert name not in self.nodes, name
                self.nodes[name] = self.attributes()
                if cluster:
                    self.clusters[cluster].append(name)
            self.take(";")
        self.take("}")


@pytest.mark.parametrize("name", [row.id for row in ROWS if row.kind != "device"])
def test_the_drawing_is_the_topology(name: str) -> None:
    system = load_hardware(name).system
    graph = system.graph()
    dot = Dot(dot_of(graph, system))
    assert dot.name == name and set(dot.nodes) == set(graph)
    drawn = {(a, b) for a, b, how in dot.edges} | {(b, a) for a, b, how in dot.edges if how.get("dir") == "both"}
    assert drawn == set(graph.edges) and len(dot.edges) == len({frozenset(edge[:2]) for edge in dot.edges})
    groups = graph.graph["groups"]
    assert {cluster.removeprefix("cluster ") for cluster in dot.clusters} == set(groups)
    for cluster, nodes in dot.clusters.items():
        assert set(nodes) <= set(groups[cluster.removeprefix("cluster ")])


def drawn(name: str) -> str:
    system = load_hardware(name).system
    return dot_of(system.graph(), system)


def test_contention_groups_are_clusters() -> None:
    text = drawn("h800-node")
    dot = Dot(text)
    assert dot.clusters["cluster pcie-switch@5"] == ["pcie@5"]
    assert text.count("shares its way with domain:scale-out") == 8


@pytest.mark.parametrize("text", ['a"b', "a\\", 'x\\"]; evil [', "ok", "{}<b>"])
def test_any_text_is_one_token_of_a_drawing(text: str) -> None:
    dot = Dot(f"digraph {quoted('g')} {{ {quoted(text)} [label={quoted(text, 'second')}]; }}")
    assert list(dot.nodes) == [text]


# --- the list ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, ["id", "kind", "vendor", "origin"]),
        (80, ["id", "kind", "vendor", "origin", "status", "devices"]),
        (100, ["id", "kind", "vendor", "origin", "status", "devices", "device"]),
        (200, ["id", "kind", "vendor", "origin", "status", "devices", "device", "name"]),
        (None, ["id", "kind", "vendor", "origin", "status", "devices", "device", "name"]),
    ],
)
def test_the_list_has_one_line_a_profile(
    width: int | None, columns: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", str(width))
    lines = planner("list", "hardware", capsys=capsys).rstrip("\n").split("\n")
    assert max(map(len, lines)) <= (width or 10_000)
    assert lines[2].split() == columns
    rows = [line for line in lines[4:] if line.strip()]
    assert [row.split()[0] for row in rows] == IDS
    if width in (200, None):
        assert not any("…" in row for row in rows) and all(row.name in line for row, line in zip(ROWS, rows, strict=True))


def test_columns_give_way_from_the_last() -> None:
    rows = [["a-long-identifier", "vendor of some length", "x"], ["b", "v", "a name that is long"]]
    columns = {"id": 0, "vendor": 6, "name": 8}
    assert fit_columns(rows, columns, 200) == (["id", "vendor", "name"], rows)
    names, cut = fit_columns(rows, columns, 55)
    assert names == ["id", "vendor", "name"] and cut[0][:2] == rows[0][:2] and cut[1][2].endswith("…")
    assert fit_columns(rows, columns, 38) == (["id", "vendor"], [["a-long-identifier", "vendor of some …"], ["b", "v"]])
    assert fit_columns(rows, columns, 5) == (["id"], [["a-long-identifier"], ["b"]])
    for width in range(21, 90):
        names, cut = fit_columns(rows, columns, width)
        sizes = [max(len(name), *(len(row[i]) for row in cut)) for i, name in enumerate(names)]
        assert sum(sizes) + 3 * (len(names) - 1) + 2 <= width
