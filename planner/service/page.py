"""The page of the service: one document with its style and script in it, whose policy lets it reach nothing but the service."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from importlib.resources import files


@cache
def page() -> tuple[str, str]:
    """The document, and its Content-Security-Policy."""
    folder = files("planner.service") / "ui"
    document, style, script = ((folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return document.replace("/*style*/", style).replace("/*script*/", script), policy


def _hash(text: str) -> str:
    """The source expression that lets this very text run."""
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
