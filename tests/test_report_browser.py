"""A report in a real browser: charts drawn, nothing loaded, controls by keyboard, phone, paper, dark; hostile names inert."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import launched, until
from instances_report import HOSTILE, compared, single

from planner.report import page as report_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

DRAWN = "document.documentElement.dataset.drawn"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as started:
        yield started


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("reports")
    found = {}
    for name, report in (("compared", compared()), ("single", single())):
        (folder / f"{name}.html").write_text(report_page(report), encoding="utf-8")
        found[name] = (folder / f"{name}.html").as_uri()
    return found


class Seen:
    """What a page asked for and complained of."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.asked, self.said = page, [], []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.goto(address)
        self.until(DRAWN)

    asked: list[str]
    said: list[str]

    def value(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, script: str) -> None:
        until(self.page, script)


@pytest.fixture(scope="module")
def pages(browser: Browser, reports: dict[str, str]) -> Callable[[str], Seen]:
    """Each report opened once, without a network; tests leave it as they found it."""
    known: dict[str, Seen] = {}

    def call(name: str) -> Seen:
        if name not in known:
            context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True, color_scheme="light")
            known[name] = Seen(context.new_page(), reports[name])
        return known[name]

    return call


@pytest.fixture
def opened(pages: Callable[[str], Seen]) -> Iterator[Callable[[str], Seen]]:
    """A report; after the test it has neither asked for anything nor complained."""
    used: list[Seen] = []

    def call(name: str = "single") -> Seen:
        used.append(pages(name))
        return used[-1]

    yield call
    for seen in used:
        assert seen.said == []
        assert len(seen.asked) == 1 and seen.asked[0].startswith("file://"), seen.asked


@pytest.mark.parametrize("name", ["compared", "single"])
def test_every_chart_is_drawn(opened: Any, name: str) -> None:
    seen = opened(name)
    sections = {"compared": compared(), "single": single()}[name].sections
    charts = {chart.id for section in sections for chart in section.charts}
    drawn = seen.value(
        "Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(e => [e.dataset.chart,"
        " e.querySelectorAll('svg.main-svg path, svg.main-svg rect, svg.main-svg image').length]))"
    )
    assert set(drawn) == charts and all(marks > 1 for marks in drawn.values()), drawn
    boxes = seen.value("[...document.querySelectorAll('[data-chart] svg.main-svg')].map(e => e.getBoundingClientRect().width)")
    assert boxes and min(boxes) > 200


def test_hostile_names_are_seen_as_text(opened: Any) -> None:
    seen = opened("compared")
    assert seen.page.title().startswith("small-experts on ") and seen.value("document.images.length") == 0
    assert seen.value("[...document.querySelectorAll('a')].filter(a => !/^(#|https?:)/.test(a.getAttribute('href') ?? "
                      "a.getAttributeNS('http://www.w3.org/1999/xlink', 'href') ?? '#')).length") == 0  # fmt: skip
    assert seen.value("document.querySelectorAll('main b, svg b, svg a').length") == 0
    legends = seen.value("[...document.querySelectorAll('#chart-front .legendtext')].map(e => e.textContent)")
    assert HOSTILE in legends
    assert seen.page.locator(".card h3", has_text="onerror").first.inner_text().startswith("</script><img")


def test_sources_are_filtered_by_words_and_grades(opened: Any) -> None:
    seen = opened()
    page, shown = seen.page, "#source-table tbody tr:not([hidden])"
    everything = page.locator(shown).count()
    page.fill("#words", "ONERROR example.org")
    found = page.locator(shown).count()
    assert 0 < found < everything
    assert all("onerror" in text.lower() for text in page.locator(shown).all_text_contents())
    assert page.inner_text("#count").startswith(f"{found} of {everything} sources")
    page.uncheck("input[name=grade][value=D]")
    grades = seen.value(f"[...document.querySelectorAll('{shown}')].map(row => row.dataset.grade)")
    assert "D" not in grades and len(grades) < everything
    page.fill("#words", "no such words")
    assert page.locator(shown).count() == 0
    page.fill("#words", "")
    page.check("input[name=grade][value=D]")
    assert page.locator(shown).count() == everything


def test_the_theme_follows_the_system_until_the_button_is_pressed(opened: Any) -> None:
    seen = opened()
    ground, ink = (
        "getComputedStyle(document.body).backgroundColor",
        "getComputedStyle(document.querySelector('#chart-front .xtick text')).fill",
    )
    light = seen.value(ground), seen.value(ink)
    seen.page.emulate_media(color_scheme="dark")
    seen.until(f"{ink} !== '{light[1]}'")
    assert seen.value(ground) != light[0] and seen.page.get_attribute("#theme", "aria-pressed") == "true"
    seen.page.click("#theme")
    assert seen.page.get_attribute("#theme", "aria-pressed") == "false"
    seen.until(f"{ink} === '{light[1]}'")
    assert seen.value(ground) == light[0]
    seen.page.emulate_media(color_scheme="light")
    assert seen.value(ground) == light[0]


def test_every_control_is_reached_by_tab_and_its_focus_seen(opened: Any) -> None:
    seen = opened()
    wanted = seen.value(
        "[...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')]"
        ".filter(e => e.checkVisibility() && !e.closest('svg')).map((e, i) => (e.dataset.tab = i))"
    )
    seen.page.focus(".skip")  # the first
    reached = []
    for _ in range(len(wanted) + 5):
        at = seen.value("[document.activeElement.dataset.tab, getComputedStyle(document.activeElement).outlineStyle]")
        if at[0] is None:
            break
        assert at[1] != "none" or not reached  # focus that a script gives need not be seen
        reached.append(int(at[0]))
        seen.page.keyboard.press("Tab")
    assert reached == sorted(wanted)


def test_by_keyboard_alone(opened: Any) -> None:
    """The skip link, the theme, a table behind a chart, the command."""
    seen = opened()
    keys = seen.page.keyboard
    seen.page.focus(".skip")
    keys.press("Enter")
    assert seen.value("document.activeElement.id") == "content"
    seen.page.focus("#theme")
    before = seen.page.get_attribute("#theme", "aria-pressed")
    keys.press("Space")
    assert seen.page.get_attribute("#theme", "aria-pressed") != before
    keys.press("Space")
    assert seen.page.get_attribute("#theme", "aria-pressed") == before
    seen.page.focus("figure summary >> nth=0")
    keys.press("Enter")
    assert seen.page.locator("figure details[open] table").count() == 1
    keys.press("Enter")
    assert seen.page.locator("figure details[open] table").count() == 0
    seen.page.focus("#copy")
    keys.press("Enter")
    seen.until("document.getElementById('copied').textContent")


def test_nothing_is_wider_than_the_screen(opened: Any) -> None:
    seen = opened()
    width = "document.querySelector('#chart-front svg.main-svg').getBoundingClientRect().width"
    for screen in (360, 768):
        seen.page.set_viewport_size({"width": screen, "height": 900})
        seen.until(f"{width} > {screen * 0.6} && {width} < {screen}")
        assert seen.value("document.documentElement.scrollWidth") <= screen
        wide = seen.value(
            "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .skip, svg, .js-plotly-plot, .hidden') &&"
            f" e.getBoundingClientRect().right > {screen} + 0.5).map(e => e.outerHTML.slice(0, 80))"
        )
        assert wide == []
        wrapped = seen.value("document.querySelectorAll('#chart-tornado-p0 .ytick .line').length")
        assert (wrapped > 0) == (screen == 360)
    seen.page.set_viewport_size({"width": 1280, "height": 900})
    seen.until(f"{width} > 900")


def test_paper_is_light_and_has_all_charts(opened: Any, tmp_path: Path) -> None:
    seen = opened()
    charts = seen.page.locator("[data-chart]").count()
    seen.page.emulate_media(media="print", color_scheme="dark")
    seen.value("dispatchEvent(new Event('beforeprint'))")
    seen.until(f"document.querySelectorAll('[data-chart] svg.main-svg').length >= {charts}")
    assert seen.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not seen.page.is_visible("#theme") and not seen.page.is_visible("#filter")
    assert seen.value("getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()") == "#1b2230"
    assert seen.value("Math.max(...[...document.querySelectorAll('[data-chart]')].map(e => e.clientWidth))") <= 690
    seen.value("dispatchEvent(new Event('afterprint'))")
    assert seen.value("document.documentElement.classList.contains('printing')") is False
    seen.page.emulate_media(media="screen", color_scheme="light")
    written = tmp_path / "report.pdf"
    seen.page.pdf(path=str(written), format="A4")
    assert written.stat().st_size > 20_000
