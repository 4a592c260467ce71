"""The service's page in a real browser: choose, plan, look, open the report, stop, and hear why something cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browser import launched, until
from served import Service, served

from planner.service.settings import Settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with served(Settings(workers=1)) as started:
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as started:
        yield started


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Page]:
    """The page, ready; after the test it has asked nobody but the service, and complained of nothing."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    asked: list[str] = []
    said: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    opened = context.new_page()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(service.address)
    until(opened, "document.documentElement.dataset.ready")
    yield opened
    assert all(url.startswith((service.address, "blob:", "data:")) for url in asked), asked
    assert [line for line in said if "409" not in line and "422" not in line] == []
    context.close()


def choose(page: Page, **values: Any) -> None:
    for name, value in values.items():
        if page.evaluate("name => document.getElementById(name).tagName", name) == "SELECT":
            page.select_option(f"#{name}", str(value))
        else:
            page.fill(f"#{name}", str(value))


def test_a_plan_is_chosen_made_and_shown(page: Page, service: Service) -> None:
    choose(page, model="llama-3.1-8b", hardware="h100-node", count=1, workload="chat")
    page.click("#go")
    until(page, "!document.getElementById('found').hidden")
    assert page.inner_text("#verdict").startswith("llama-3.1-8b on h100-node:1: ")
    assert "USD per million tokens" in page.inner_text("#verdict") and "Proved" in page.inner_text("#proof")
    assert len(page.query_selector_all("#figures tr")) == 5
    assert page.query_selector_all("#pools tr") and page.query_selector_all("#placement tr")
    with page.expect_download() as saved:
        page.click("#save")
    import httpx

    plan = saved.value.path().read_bytes()
    asked = {"model": "llama-3.1-8b", "hardware": "h100-node:1", "workload": "chat", "objective": "cost"}
    assert plan == httpx.post(service.address + "/plan", json=asked, timeout=60).content
    with page.context.expect_page() as popup:
        page.click("#open")
    report = popup.value
    until(report, "document.documentElement.dataset.drawn")
    assert report.url == f"{service.address}/report" and "llama-3.1-8b" in report.title()


def test_what_cannot_be_is_said_on_the_page(page: Page) -> None:
    choose(page, model="llama-3.1-8b", hardware="h100-node", count=1, tpot=0.01)
    page.click("#go")
    until(page, "document.getElementById('state').classList.contains('bad')")
    assert "proved infeasible" in page.inner_text("#state") and "--tpot" in page.inner_text("#state")
    assert page.is_hidden("#found") and page.is_enabled("#go")


def test_stop_stops_the_worker(page: Page, service: Service) -> None:
    choose(page, model="deepseek-v3", hardware="h800-node", count=1, tpot=0.1)  # takes long to prove that it cannot be
    page.click("#go")
    service.until(lambda state: state["workers_busy"] == 1)
    page.click("#stop")
    until(page, "document.getElementById('state').textContent === 'stopped'")
    service.until(lambda state: state["workers_busy"] == 0 and state["workers_ready"] == 1)
    assert page.is_enabled("#go")


def test_the_form_is_used_by_keyboard_and_fits_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= 390")
    page.focus("#model")
    names = []
    for _ in range(8):
        names.append(page.evaluate("document.activeElement.id"))
        page.keyboard.press("Tab")
    assert names == ["model", "hardware", "count", "workload", "objective", "ttft", "tpot", "go"]
    labelled = "[...document.querySelectorAll('#ask select, #ask input')].every(e => e.labels.length === 1)"
    assert page.evaluate(labelled)
