"""Which figures a plan rests on: every sourced number of the embedded inputs, with grade and date."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from planner.plans.hours import terms_of
from planner.plans.inputs import Inputs
from planner.quantities import UNKNOWN

_ORDER = "ABCD"


def _figures(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "grade" in value and "source" in value and not str(value["source"]).startswith(UNKNOWN):
            yield path, value
        for key, item in value.items():
            yield from _figures(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            label = item.get("id", index) if isinstance(item, dict) else index
            yield from _figures(item, f"{path}.{label}")


def _leave_out(data: dict[str, Any], inputs: Inputs) -> None:
    """What the hour does not rest on: offers that were not picked, or what an owner pays."""
    terms = terms_of(inputs)
    for phase, selection in inputs.hardware.items():
        system = data["hardware"][phase]["system"]
        system["rents"] = []
        if terms.rented:
            system["rents"] = [terms.quote(selection.system).offer.model_dump(mode="json")]
            system["capex"], system["capex_lines"] = None, []
    if terms.rented:
        data["prices"] = {"utilisation": data["prices"]["utilisation"]}


def provenance_of(inputs: Inputs) -> dict[str, Any]:
    """``lowest_grade`` and ``sources[]``: one row a source, with the figures that cite it; estimates are listed apart.

    Figures that nobody has published are no evidence; a plan that needs one is never made.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    estimates = []
    data = inputs.model_dump(mode="json", by_alias=True)
    _leave_out(data, inputs)
    for part in ("hardware", "runtime", "prices", "workloads" if inputs.workloads else "workload", "model"):
        for path, figure in _figures(data[part], part):
            key = (figure["grade"], figure["source"], str(figure.get("as_of") or ""))
            found.setdefault(key, []).append(path)
            if figure["grade"] in "CD":
                low, high = figure.get("low"), figure.get("high")
                estimates.append(
                    {"figure": path, "grade": figure["grade"], "low": low, "high": high, "note": figure.get("note", "")}
                )
    rows = [
        {"grade": grade, "source": source, "as_of": as_of or None, "figures": figures}
        for (grade, source, as_of), figures in sorted(found.items(), key=lambda e: (_ORDER.index(e[0][0]), e[0][1], e[0][2]))
    ]
    model = data["model"]
    rows.append({"grade": "A", "source": model["source"], "as_of": model.get("as_of"), "figures": ["model"]})
    grades = [str(row["grade"]) for row in rows]
    return {"lowest_grade": max(grades, key=_ORDER.index), "sources": rows, "estimates": estimates}
