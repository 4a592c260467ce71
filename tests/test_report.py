"""Reports: what charts are drawn from follows from the plan; the page needs nothing else and holds no markup of anyone's."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from instances_report import COMMAND, HOSTILE, compared, comparison, plan, single, study
from markupsafe import escape

from planner.api import plan as make_plan
from planner.comparison.compare import Candidate, compare_plans
from planner.plans import Plan
from planner.report import Section, Table, comparison_report, page, plan_report
from planner.report.content import Link, Report
from planner.report.experts import heat_of
from planner.report.figures import heat_figure, plain
from planner.report.front import points_of
from planner.report.numbers import change, number, power, share, size
from planner.report.occupancy import FREE, kind_of, occupancy_of
from planner.report.page import embedded
from planner.report.sections import experts_section, sensitivity_section
from planner.report.sources import linked, sources_of
from planner.report.steps import steps_of
from planner.report.study import Study
from planner.report.timeline import schedules_of
from planner.report.traffic import COMPUTE, PEERS, WRITTEN, traffic_of
from planner.report.uncertainty import elasticities_of, swings_of, unserved_of, words

Run = Callable[..., tuple[int, str, str]]

# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(7691.28, "7,691"), (0.0945606, "0.09456"), (49.975, "49.98"), (0.0, "0"), (None, "–"), (12.0, "12"), (math.inf, "∞"),
     (-0.5, "-0.5"), (1234567.0, "1,234,567")],
)  # fmt: skip
def test_numbers_have_four_digits(value: float | None, text: str) -> None:
    assert number(value) == text


def test_units_by_size() -> None:
    assert (size(59961471328), size(12), size(None), size(1.5e15)) == ("59.96 GB", "12 B", "–", "1.5 PB")
    assert (change(1.411), change(-0.0561), change(0.0)) == ("+141%", "-5.6%", "+0.0%")
    assert (power(21300.0), power(2e6), power(80.0), share(0.66452)) == ("21.3 kW", "2 MW", "80 W", "66.5%")


# --- data -------------------------------------------------------------------------------------------------------------


def test_memories_are_full_to_what_is_free() -> None:
    """Of the device's own memory all bytes are told; elsewhere those of the placement."""
    for one in (study(), study(40e6, False)):
        rows = occupancy_of(one)
        (pool,) = one.plan.pools
        own = [row for row in rows if row.tier == pool.memory["tier"]]
        assert sum(row.bytes for row in own) == pytest.approx(pool.memory["usable_bytes"] * pool.devices, rel=1e-6)
        for tier in {row.tier for row in rows}:
            placed = sum(row.bytes for row in pool.placement if row.tier == tier)
            reserve = sum(pool.memory["reserve_bytes"].values()) * pool.devices if tier == own[0].tier else 0
            told = sum(row.bytes for row in rows if row.tier == tier and row.kind != FREE)
            assert told == pytest.approx(placed + reserve, rel=1e-9)
        assert len({(row.pool, row.tier, row.kind) for row in rows}) == len(rows)
    assert "host" in {row.tier for row in occupancy_of(study())}


def test_content_is_named_by_kind() -> None:
    names = ("layers 0-2: KV cache: index", "layer 3: routed experts, use class 1 of 4", "head: replicated weights", "KV cache")
    assert [kind_of(name) for name in names] == ["KV cache", "routed experts", "weights", "KV cache"]


def test_traffic_is_what_takes_the_memory_its_time() -> None:
    one = study()
    flows = traffic_of(one)
    (state,) = one.operation.pools
    rates = state.pool.rates
    for phase in ("decode", "prefill"):
        mine = [flow for flow in flows if flow.phase == phase]
        moved = sum(flow.bytes for flow in mine if COMPUTE in (flow.source, flow.target) and flow.target != PEERS)
        stage = state.times.slowest[phase]
        passes = state.passes[phase]
        taken = sum(
            repeat * float(block.memory[0])
            for repeat, blocks in zip(passes.repeats[stage], passes.windows, strict=True)
            for block in blocks
        )
        assert rates.routed_read == rates.cache_read == 1.0
        assert moved / rates.memory_bytes_per_s == pytest.approx(taken, rel=1e-9)
        (tier,) = one.plan.explanation["tiers"]
        (brought,) = [row["bytes_per_device"] for row in tier["passes"] if row["phase"] == phase]
        assert [flow.bytes for flow in mine if flow.source == tier["tier"]] == [pytest.approx(brought)]
        assert any(flow.target == PEERS for flow in mine) and any(flow.target == WRITTEN for flow in mine)


def test_operators_sum_to_the_pass_and_follow_one_another() -> None:
    for one in (study(), study(40e6, False)):
        (pool,) = one.plan.pools
        found = steps_of(one)
        assert set(found) == {("mixed", "decode"), ("mixed", "prefill")}
        for (_, phase), bars in found.items():
            assert sum(bar.total_ms for bar in bars) == pytest.approx(pool.step[phase]["time_ms"], rel=1e-9)
            for bar, following in zip(bars, bars[1:], strict=False):
                assert following.start_ms == pytest.approx(bar.start_ms + bar.total_ms)
            assert all(value > 0 for bar in bars for value in bar.parts.values())
    (tier,) = study().plan.explanation["tiers"]
    added = {row["phase"]: row["added_ms"] for row in tier["passes"]}
    for (_, phase), bars in steps_of(study()).items():
        (waiting,) = [bar for bar in bars if bar.operator == "fetches"]
        assert waiting.total_ms == pytest.approx(added[phase], rel=1e-6)
    assert not [bar for bars in steps_of(study(100e6, False)).values() for bar in bars if bar.operator == "fetches"]


def test_heat_is_the_load_of_the_plans_own_map() -> None:
    (heat,) = heat_of(study())
    (told,) = study().plan.experts or ()
    assert heat.mapped and heat.layers == tuple(told.layers) and heat.ranks == told.ranks
    worst = [max(row) for row in heat.over_mean]
    assert heat.fullest == pytest.approx(told.fullest_over_mean.mean)
    assert max(worst) == pytest.approx(told.fullest_over_mean.worst)
    assert all(sum(row) / len(row) == pytest.approx(1.0) for row in heat.over_mean)


def test_uniform_use_is_said_to_be_all_that_is_known() -> None:
    (heat,) = heat_of(study(40e6, False))
    assert not heat.mapped and {value for row in heat.over_mean for value in row} == {1.0}
    assert heat.fullest > 1.0 and heat.pairs > 0.0
    section = next(section for section in compared().sections if section.id == "experts")
    assert any("only uniform use of experts is known" in note for note in section.notes)


def test_of_many_ranks_neighbours_share_a_column_and_the_table_tells_each(monkeypatch: pytest.MonkeyPatch) -> None:
    (heat,) = heat_of(study())
    assert len(heat.over_mean[0]) == heat.ranks == 4
    monkeypatch.setattr("planner.report.figures.MOST_COLUMNS", 3)
    (trace,) = heat_figure(heat)["data"]
    assert trace["x"] == ["0 to 1", "2 to 3"]
    assert trace["z"] == [[round(max(row[:2]), 4), round(max(row[2:]), 4)] for row in heat.over_mean]
    section = experts_section([study()])
    assert section is not None
    for row, line in zip(heat.over_mean, section.charts[0].table.rows, strict=True):
        assert line[1:] == (number(min(row)), number(max(row)), str(row.index(max(row))))


def test_a_group_at_an_end_of_which_nothing_is_served_is_named() -> None:
    one = study()
    group, end, operation = one.judged.others[0]
    others = [(group, end, replace(operation, requests_per_s=0.0)), *one.judged.others[1:]]
    lost = Study("cut", 0, replace(one.judged, others=others))
    assert not unserved_of(one) and unserved_of(lost) == [words(group)]
    assert not any(row.group == words(group) for row in swings_of(lost))
    section = sensitivity_section([one, lost])
    assert section is not None and len(section.notes) == 1 and section.notes[0].startswith(f"cut: at an end of {words(group)} ")


def test_swings_in_quadrature_are_the_plans_interval() -> None:
    """The tornado holds every group that the interval was made of."""
    one = study()
    expected, told = one.plan.cost.blended_interval.expected, one.plan.cost.blended_interval
    up = down = 0.0
    for row in swings_of(one):
        for end in row.ends:
            log = math.log(end / expected)
            up, down = (up + log * log, down) if log > 0 else (up, down + log * log)
    assert told.low is not None and told.high is not None
    assert expected * math.exp(math.sqrt(up)) == pytest.approx(told.high, rel=1e-6)
    assert expected * math.exp(-math.sqrt(down)) == pytest.approx(told.low, rel=1e-6)
    widths = [row.width for row in swings_of(one)]
    assert widths == sorted(widths, reverse=True)


def test_elasticities_sum_to_one_and_prices_do_not_move_time() -> None:
    assert sum(row.value for row in elasticities_of(study())) == pytest.approx(1.0)
    assert not any(row.price for row in swings_of(study(25e6, False, "latency")))
    assert any(row.price for row in swings_of(study()))


def test_the_front_is_drawn_point_by_point() -> None:
    points = points_of(study())
    front = plan().pareto
    assert front is not None and len(points) == len(front.points) + 1
    assert [point.usd for point in points[1:]] == [row.usd_per_million_blended for row in front.points]
    assert [point.chosen for point in points] == [True] + [False] * len(front.points)


def test_sources_are_linked_and_told_once() -> None:
    text = "ai-dynamo/aiconfigurator@095f58a x.yaml; arXiv 2506.12708, (https://a.example/b?c=d&e) and javascript:alert(1)."
    assert linked(text) == (
        Link("ai-dynamo/aiconfigurator@095f58a", "https://github.com/ai-dynamo/aiconfigurator/tree/095f58a"),
        Link(" x.yaml; "),
        Link("arXiv 2506.12708", "https://arxiv.org/abs/2506.12708"),
        Link(", ("),
        Link("https://a.example/b?c=d&e", "https://a.example/b?c=d&e"),
        Link(") and javascript:alert(1)."),
    )
    found = sources_of([study(), Study("again", 1, study().judged)])
    keys = [(source.grade, source.parts, source.as_of) for source in found]
    assert len(keys) == len(set(keys)) and [key[0] for key in keys] == sorted(key[0] for key in keys)
    assert {source.used_by for source in found} == {("small-node", "again")}
    cited = {(row["grade"], row["source"]) for row in plan().provenance["sources"]}
    assert {(source.grade, "".join(part.text for part in source.parts)) for source in found} == cited


def test_every_plan_of_a_comparison_has_its_place_and_what_has_none_its_reason() -> None:
    report = compared()
    assert [card.title for card in report.cards] == ["small-node", HOSTILE, "roomy-node"]
    assert [card.badge for card in report.cards] == [f"rank {row.rank}" for row in comparison().rows[:3]]
    assert any("tiny-node: infeasible; its memory holds no layer" in line for line in report.verdict)
    assert report.summary.columns == ("", "small-node", HOSTILE, "roomy-node")
    lines = {row[0]: row[1:] for row in report.summary.rows}
    row = comparison().rows[2]
    assert lines["ratio to the first"][2] == number(row.ratio)
    assert lines["verdict"][2] == row.verdict
    assert len(report.tables) == 1 and len(report.tables[0].rows) == 3
    assert "; runtime small; " in report.subtitle
    for section in report.sections:
        for chart in section.charts:
            assert chart.label and chart.table.rows and chart.figure["data"]


def test_of_many_plans_the_best_have_charts_of_their_own() -> None:
    names = [f"node-{n}" for n in range(10)]
    rows = [Candidate("small-experts", name, plan(25e6 if n < 5 else 40e6, n < 5)) for n, name in enumerate(names)]
    report = comparison_report(compare_plans(rows, models=["small-experts"], hardware=names), "planner")
    assert len(report.summary.columns) == 11 and any("8 of 10 plans" in note for note in report.notes)
    assert [card.title for card in report.cards] == [f"node-{n}" for n in (0, 1, 2, 5, 6, 7, 8, 9)]
    front, *others = report.sections
    assert (
        len({(one["marker"]["color"], one["marker"]["symbol"]) for one in front.charts[0].figure["data"] if one.get("error_x")})
        == 10
    )
    for section in others:
        shown = {chart.id.split("-")[1] for chart in section.charts}
        best = {f"p{n}" for n in (0, 1, 2, 5, 6, 7, 8, 9)}  # five of the better, then by place
        assert shown == ({"p0", "p1", "p2"} if section.id == "timeline" else best), section.id  # the rest move nothing


def test_a_matrix_has_a_colour_for_each_hardware_and_a_symbol_for_each_model() -> None:
    rows = [Candidate(model, name, plan(40e6, False)) for model in ("one", "two") for name in ("here", "there")]
    report = comparison_report(compare_plans(rows, models=["one", "two"], hardware=["here", "there"]), "planner")
    marks = [one["marker"] for one in report.sections[0].charts[0].figure["data"] if one.get("error_x")]
    colours, symbols = ["var(--series-1)", "var(--series-2)"] * 2, ["diamond", "diamond", "circle", "circle"]
    assert [(mark["color"], mark["symbol"]) for mark in marks] == list(zip(colours, symbols, strict=True))
    assert report.overview is not None and [row[0] for row in report.overview.rows] == ["one", "two"]
    assert report.cards[3].title == "two on there" and len(report.verdict) == len(set(report.verdict))


# --- the page ---------------------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._open: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = dict(attrs) if tag == "script" else None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.scripts.append((self._open, data))
            self._open = None


@pytest.fixture(scope="module")
def html() -> str:
    return page(compared())


def test_the_same_report_is_the_same_bytes(html: str) -> None:
    compared.cache_clear()
    again = page(compared())
    assert hashlib.sha256(again.encode()).digest() == hashlib.sha256(html.encode()).digest()
    assert len(html.encode()) < 6e6


def test_the_page_loads_nothing_and_runs_only_its_own_scripts(html: str) -> None:
    elements = Elements(html)
    for tag, attributes in elements.found:
        assert tag not in {"iframe", "object", "embed", "img", "base", "audio", "video"}, tag
        assert not {name for name in attributes if name.startswith("on") or name in ("src", "srcset")}
        if tag != "a" and "href" in attributes:
            assert attributes["href"] == "data:,"
        if tag == "a":
            assert re.match(r"#[a-z]|https?://", attributes["href"] or ""), attributes
            if not (attributes["href"] or "").startswith("#"):
                assert attributes["rel"] == "noopener noreferrer"
    (policy,) = [a["content"] for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; ") and "connect-src" not in policy
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    run = {
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for attributes, text in elements.scripts
        if attributes.get("type") != "application/json"
    }
    assert run == allowed and len(run) == 2


def test_hostile_words_are_text(html: str) -> None:
    assert HOSTILE not in html and "<img" not in html.partition("<script")[0] and "{{ 7" in html
    elements = Elements(html)
    (data,) = [text for attributes, text in elements.scripts if attributes.get("id") == "figures"]
    assert not set("<>&") & set(data)
    assert HOSTILE.replace("<", "&lt;").replace(">", "&gt;") in json.dumps(json.loads(data)).replace('\\"', '"')
    assert not any("javascript:" in (value or "") for tag, a in elements.found for name, value in a.items() if name == "href")
    assert plain("<b>&amp;") == "&lt;b&gt;&amp;amp;"
    assert json.loads(embedded({"a": "</script>\u2028&"})) == {"a": "</script>\u2028&"}


def test_the_page_can_be_read_without_seeing_it(html: str) -> None:
    """One main heading, headings without a jump, unique ids, a table to every chart, names for every control."""
    elements = Elements(html)
    levels = [int(tag[1]) for tag, _ in elements.found if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    charts = [a for _, a in elements.found if "data-chart" in a]
    assert charts and all(a["role"] == "img" and a["aria-label"] for a in charts)
    tables = sum(tag == "figure" for tag, _ in elements.found)
    assert tables == len(charts) == sum(len(section.charts) for section in compared().sections)
    labelled = {a["for"] for tag, a in elements.found if tag == "label" and "for" in a}
    assert {a["id"] for tag, a in elements.found if tag == "input" and a["type"] == "search"} <= labelled
    targets = {(a["href"] or "")[1:] for tag, a in elements.found if tag == "a" and (a["href"] or "").startswith("#")}
    assert targets <= set(ids)
    assert str(escape(COMMAND)) in html and "&#39;a &lt;b&gt; &amp; c.html&#39;" in html


def test_figures_are_what_plotly_takes() -> None:
    """Every trace and layout passes plotly's own validation, colours filled in."""
    from plotly import graph_objects

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        return "#123456" if isinstance(value, str) and value.startswith("var(--") else value

    folder = Path(sys.modules["planner.report"].__path__[0]) / "templates"
    light, dark = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "dark.css"))
    assert set(re.findall(r"(--[a-z0-9-]+):", dark)) <= set(re.findall(r"(--[a-z0-9-]+):", light))
    for report in (compared(), single()):
        for section in report.sections:
            for chart in section.charts:
                graph_objects.Figure(filled(chart.figure))
                for name in re.findall(r'"var\((--[a-z0-9-]+)\)"', json.dumps(chart.figure)):
                    assert light.count(f"{name}:") == 1 and f"{name}:" in dark, name


def test_a_section_is_added_by_giving_it(html: str) -> None:
    added = Section("queue", "Queues", ("of a replay",), (), (Table("rows", ("a",), (("1",),)),))
    text = page(plan_report(plan(), "planner", [added]))
    assert '<section id="queue"' in text and '<a href="#queue">Queues</a>' in text and '"queue"' not in html


def test_the_time_line_is_that_of_the_schedule() -> None:
    """Every event of a pass has a bar in its lane, and the table has both times of the pass."""
    (section,) = [one for one in plan_report(plan(), "planner").sections if one.id == "timeline"]
    runs = list(schedules_of(study()))
    drawn = [sum(len(trace["x"]) for trace in chart.figure["data"]) for chart in section.charts]
    assert drawn == [len(run.events) for run in runs if len({event.lane for event in run.events}) > 1]
    assert [row[1:3] for row in section.tables[0].rows] == [(number(r.pass_s * 1e3), number(r.formula_s * 1e3)) for r in runs]
    for chart in section.charts:
        lanes = {one["y"][0]: one for one in chart.figure["data"]}
        kernels = lanes["kernels"]
        ends = [start + length for start, length in zip(kernels["base"], kernels["x"], strict=True)]
        assert len(lanes) > 1 and all(a <= b + 1e-9 for a, b in zip(ends, kernels["base"][1:], strict=False))
    assert section.tables[0].columns == ("pass", "schedule", "formula", "kernels alone", "waits")


def test_a_report_without_charts_needs_no_library() -> None:
    empty = Report("t", "s", "planner", (), (), (), Table("c", ("",), ()), ("",), None, (), (), (), ())
    assert len(page(empty)) < 60_000


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(make_plan("llama-3.1-8b", "h100-node", devices=1).to_json(), encoding="utf-8")
    return path


def test_plan_and_explain_write_reports_and_never_over_files(run: Run, tmp_path: Path, plan_file: Path) -> None:
    html = tmp_path / "r.html"
    code, out, err = run("explain", plan_file, "--html", html)
    assert code == 0 and "What it is" in out, err
    text = html.read_text(encoding="utf-8")
    assert "<h1>llama-3.1-8b on h100-node" in text and f"planner explain {plan_file} --html {html}" in text
    code, _, err = run("explain", plan_file, "--html", html)
    assert code == 2 and "exists already" in err and len(err.splitlines()) == 1
    assert run("explain", plan_file, "--html", html, "--force")[0] == 0
    one = tmp_path / "p.html"
    code, _, err = run("plan", "llama-3.1-8b", "h100-node", "--devices", "1", "--html", one, "--format", "json")
    assert code == 0 and "planner plan llama-3.1-8b h100-node --devices 1 --html" in one.read_text(encoding="utf-8"), err


def test_compare_writes_a_report(run: Run, tmp_path: Path) -> None:
    html = tmp_path / "c.html"
    asked = ("compare", "llama-3.1-8b", "h100-node", "l40s-node", "--devices", "1", "--html", html)
    code, _, err = run(*asked)
    assert code == 0, err
    text = html.read_text(encoding="utf-8")
    assert "<h1>llama-3.1-8b on h100-node, l40s-node</h1>" in text and f"planner {' '.join(map(str, asked))}" in text
    code, _, err = run(*asked)
    assert code == 2 and "exists already" in err


def test_every_runtime_of_a_comparison_is_named(run: Run, tmp_path: Path) -> None:
    html = tmp_path / "c.html"
    code, _, err = run("compare", "llama-3.1-8b", "h100-node", "h100-node@ideal", "--devices", "1", "--html", html)
    assert code == 0 and "; runtime generic, ideal; " in html.read_text(encoding="utf-8"), err


def test_bad_reports_are_one_line(run: Run, tmp_path: Path, plan_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> str:
        code, out, err = run(*arguments)
        assert code == 2 and not out and len(err.splitlines()) == 1, (out, err)
        return err

    assert "folder does not exist" in refused("explain", plan_file, "--html", tmp_path / "no" / "r.html")
    same = tmp_path / "same"
    assert "is the file of the JSON" in refused("plan", "llama-3.1-8b", "h100-node", "-o", same, "--html", same)
    assert "not a regular file" in refused("explain", plan_file, "--html", tmp_path, "--force")
    data = json.loads(plan_file.read_text(encoding="utf-8"))
    data["pools"][0]["step"] = {"decode": {}}
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(data), encoding="utf-8")
    assert "see planner verify" in refused("explain", broken, "--html", tmp_path / "r.html")
    assert not list(tmp_path.glob("*r.html*"))
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert "pip install 'inference-planner[report]'" in refused("explain", plan_file, "--html", tmp_path / "r.html")
    assert "pip install" in refused("explain", tmp_path / "missing.json", "--html", tmp_path / "r.html")  # before any work


def test_reports_of_plans_with_a_pool_for_each_phase() -> None:
    """Prefill and decode apart, and plans read back from their files."""
    apart = make_plan("llama-3.1-8b", "prefill=h100-node:1,decode=h100-node:1")
    report = plan_report(Plan.model_validate(apart.to_data()), "planner")
    charts = {chart.id for section in report.sections for chart in section.charts}
    assert {"steps-p0-prefill-prefill", "steps-p0-decode-decode"} <= charts
