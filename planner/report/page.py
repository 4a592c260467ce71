"""A report as one HTML page that needs nothing else: styles, scripts and plotly.js are in it, its policy forbids to load more."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from importlib.resources import files
from typing import Any

from planner.errors import InputError
from planner.report.content import Report

EXTRA = "pip install 'inference-planner[report]'"


def check_extra() -> None:
    """``InputError`` where the packages that reports need are not installed."""
    try:
        import jinja2
        import plotly.offline  # noqa: F401
    except ImportError as error:
        what = f"the package {error.name or 'it needs'} is not installed"
        raise InputError(what, where="--html", mend=EXTRA) from None
    _ = jinja2


def page(report: Report) -> str:
    """The page as text. The same report gives the same bytes. ``InputError`` without the extra ``report``."""
    check_extra()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    folder = files("planner.report") / "templates"
    names = ("report.css", "dark.css", "report.js")
    style, dark, script = ((folder / name).read_text(encoding="utf-8") for name in names)
    style = style.replace("/* dark.css */", dark)  # the system's dark theme and the chosen one
    environment = Environment(
        loader=PackageLoader("planner.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = {chart.id: chart.figure for section in report.sections for chart in section.charts}
    drawn = get_plotlyjs() if figures else ""
    policy = (
        f"default-src 'none'; script-src {_hash(drawn)} {_hash(script)}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html").render(
        report=report, style=style, script=script, library=drawn, figures=embedded(figures), policy=policy
    )


def embedded(value: Any) -> str:
    """JSON for a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _hash(script: str) -> str:
    """The source expression that lets this very script run."""
    return f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
