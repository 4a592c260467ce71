"""Reading the arguments of ``planner plan``: spare hardware."""

from __future__ import annotations

from typing import Any

from planner.errors import InputError


def spare_of(text: str | None) -> dict[str, Any]:
    """``2`` or ``1:system`` as options."""
    if text is None:
        return {}
    count, _, what = text.partition(":")
    if not count.isascii() or not count.isdigit() or len(count) > 4 or what not in ("", "node", "unit", "system", "rack", "pod"):
        raise InputError(
            f"cannot read {text[:64]!r}", where="--spare", mend="write N, N:node, N:unit or N:system (a rack or a pod)"
        )
    return {"spare": int(count), "spare_of": {"rack": "system", "pod": "system", "": "node"}.get(what, what)}
