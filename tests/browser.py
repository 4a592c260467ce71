"""A real browser for the tests that need one, and waiting for what a page shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync")  # fmt: skip


@contextmanager
def launched() -> Iterator[Browser]:
    """Chromium without a window: the program that PLANNER_BROWSER names, else the first of ``NAMES`` that is installed."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("PLANNER_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    assert program, f"install one of {', '.join(NAMES)} (Debian: apt-get install chromium), or name one in PLANNER_BROWSER"
    sandbox = () if getattr(os, "geteuid", lambda: 1)() else ("--no-sandbox",)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=[*QUIET, *sandbox])
        yield started
        started.close()


def until(page: Page, script: str) -> None:
    """Playwright's own waiting evaluates text in the page, which the page's policy forbids."""
    for _ in range(600):
        if page.evaluate(script):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {script}")
