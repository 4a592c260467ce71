"""The catalogue page: every figure leads to its source, tables sort without a network, no field is taken for markup."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

from planner.quantities import Figure

TOP = Path(__file__).resolve().parents[1]
VOID = {"meta", "link", "br", "img"}


@pytest.fixture(scope="module")
def page() -> ModuleType:
    found = importlib.util.spec_from_file_location("hardware_page", TOP / ".ci" / "hardware_page.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Html(HTMLParser):
    """Tables of cells ``(text, addresses)``; every id and every element with its attributes; tags have to balance."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[tuple[str, list[str]]]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append(("", []))
        elif tag == "a" and "td" in self.open:
            self.tables[-1][-1][-1][1].append(str(dict(attrs)["href"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and ("td" in self.open or "th" in self.open):
            text, links = self.tables[-1][-1][-1]
            self.tables[-1][-1][-1] = (text + data, links)


@pytest.fixture(scope="module")
def built(page: ModuleType) -> str:
    import contextlib
    import io
    import sys

    out, arguments = io.StringIO(), sys.argv
    sys.argv = ["hardware_page.py", "html"]
    try:
        with contextlib.redirect_stdout(out):
            page.main()
    finally:
        sys.argv = arguments
    return out.getvalue()


def test_every_figure_leads_to_its_source(built: str) -> None:
    html = Html(built)
    ids = [attrs["id"] for _, attrs in html.elements if attrs.get("id")]
    assert len(ids) == len(set(ids))
    figures = 0
    for table in html.tables:
        heads = [text for text, _ in table[0]]
        for row in table[1:]:
            assert len(row) == len(heads)
            for head, (text, links) in zip(heads, row, strict=True):
                if re.match(r"^([\d.,]+(?!\S)|unknown)", text) and head not in (
                    "id",
                    "name",
                    "devices",
                    "what",
                    "what it is made of",
                ):
                    figures += 1
                    grades = re.findall(r" [ABCD?](?=$|[,;])", text)
                    assert grades and len(links) == len(grades), (head, text)
                    assert all(link.startswith("#s") for link in links)
                for link in links:
                    assert link[1:] in ids or link.startswith("https://"), link
    assert figures > 1000


def test_every_source_is_an_address_or_says_what_it_is(built: str) -> None:
    entries = re.findall(r'<li id="s\d+">(.*?)</li>', built)
    assert len(entries) > 200 and all(re.search(r"\(\d{4}-\d\d-\d\d\)$", entry) for entry in entries)
    assert sum("<a href=" in entry for entry in entries) > len(entries) / 3


def test_nothing_is_fetched(built: str) -> None:
    html = Html(built)
    assert not [tag for tag, attrs in html.elements if tag in ("link", "img", "iframe", "object") or "src" in attrs]
    script = built[built.index("<script>") : built.index("</script>")]
    assert not re.search(r"fetch|import|XMLHttp|https?:", script) and "@import" not in built and "url(" not in built


def test_a_phone_can_read_it(built: str) -> None:
    html = Html(built)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in html.elements
    assert built.count('<div class="wide"><table>') == built.count("<table>") == len(html.tables)
    assert ".wide{overflow-x:auto}" in built and "overflow-wrap:anywhere" in built


def test_the_bill_of_materials_is_exact(built: str) -> None:
    rows = [row for table in Html(built).tables for row in table if row[0][0] == "vr200-nvl72" and "LPDDR" in row[-1][0]]
    assert len(rows) == 1 and rows[0][1][0] == "7,803,148 C" and "2,001,600" in rows[0][-1][0] and rows[0][1][1]


@pytest.mark.parametrize("html", [True, False])
def test_no_field_is_taken_for_markup(page: ModuleType, html: bool) -> None:
    evil = '</td><script>alert("x")</script>|](javascript:alert(1))&lt;'
    maker = page.Page(html=html)
    source = Figure(value=1.0, source=f"{evil} https://example.org/<b>\"onclick='x'", grade="A")
    text = maker.table("title", ["head"], [[maker.text(evil), maker.figure(source, 1.0)][:1]]) + maker.source_list()
    assert "<script" not in text and "</td><" not in text.replace("</td></tr>", "")
    if html:
        found = Html(text)
        assert {tag for tag, _ in found.elements} <= {"h2", "div", "table", "thead", "tbody", "tr", "th", "td", "a", "ol", "li"}
        assert all(set(attrs) <= {"class", "tabindex", "href", "id"} for _, attrs in found.elements)
        assert all(str(attrs["href"]).startswith(("#s", "https://")) for tag, attrs in found.elements if tag == "a")
    else:
        assert "\\|\\](javascript" in text


DOCUMENT = """
const cells = texts => texts.map(text => ({textContent: text}));
const rows = ROWS.map(texts => ({children: cells(texts)}));
const body = {rows, append(row) { rows.splice(rows.indexOf(row), 1); rows.push(row); }};
const heads = ROWS[0].map(() => {
  const head = {listeners: {}, attributes: {}, addEventListener(name, call) { this.listeners[name] = call; },
    getAttribute(name) { return this.attributes[name] ?? null; }, setAttribute(name, value) { this.attributes[name] = value; },
    removeAttribute(name) { delete this.attributes[name]; }};
  return head;
});
heads.forEach(head => { head.parentNode = {children: heads}; head.closest = () => ({tBodies: [body]}); });
const document = {querySelectorAll: () => heads};
SCRIPT
const answers = CLICKS.map(column => { heads[column].listeners.click(); return rows.map(row => row.children[0].textContent); });
console.log(JSON.stringify(answers));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page's script")
def test_the_tables_sort(built: str) -> None:
    """Numbers by size whatever their width, unknown and absent last both ways, words by letter, equals in their order."""
    script = built[built.index("<script>") + 8 : built.index("</script>")]
    rows = [
        ["b", "900 (700 to 1,000) A", "NVIDIA"],
        ["a", "13,500 C", "AMD"],
        ["d", "-", "Huawei"],
        ["c", "unknown ?", "AMD"],
        ["e", "0.84 B", "NVIDIA"],
    ]
    text = DOCUMENT.replace("ROWS", json.dumps(rows)).replace("CLICKS", "[1, 1, 0, 2]").replace("SCRIPT", script)
    done = subprocess.run(["node", "-e", text], capture_output=True, text=True, timeout=60, check=True)
    assert ["".join(ids) for ids in json.loads(done.stdout)] == ["ebadc", "abecd"[:3] + "dc", "abcde", "acdbe"]
