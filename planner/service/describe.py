"""OpenAPI: what goes in and out, by the schemas of ``planner schema``."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

_REF = "#/components/schemas/{model}"


def takes(name: str) -> dict[str, Any]:
    """A request body in JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref(name)}}}}


def responses(
    name: str | None, *, media: str = "application/json", conflict: bool = False, body: bool = True
) -> dict[int | str, Any]:
    """What may come back: a component in JSON, or another kind of page."""
    schema = {"type": "string"} if media != "application/json" else {} if name is None else _ref(name)
    words = {
        429: "All workers are busy; Retry-After says when to come again",
        503: "Shutting down",
        500: "A fault of the service",
    }
    words |= {403: "A page of another origin, or another name than the service has", 504: "Not done within the time limit"}
    if body:
        words |= {
            408: "The body came too slowly",
            413: "The body is too large",
            415: "Not JSON",
            422: "Bad input: what, where, how to mend",
        }
        words |= {507: "Needs more memory than a worker may use"}
    if media != "application/json":
        words[501] = "The service was installed without its extra for this"
    found: dict[int | str, Any] = {status: _said(text, _ref("Problem")) for status, text in sorted(words.items())}
    if conflict:
        found[409] = _said("Proved infeasible, with the conflict", _ref("Conflict"))
    return {200: {"description": "Done", "content": {media: {"schema": schema}}}, **found}


def components() -> dict[str, Any]:
    """Every schema that is named; made when asked for."""
    from planner.comparison import Comparison
    from planner.plans import Plan
    from planner.plans.answers import CONFLICT, VERIFICATION
    from planner.service.requests import CompareRequest, PlanRequest

    models: list[Any] = [(one, "validation") for one in (PlanRequest, CompareRequest, Plan, Comparison)]
    _, found = models_json_schema(models, ref_template=_REF)
    parts: dict[str, Any] = found["$defs"]
    text = {"type": "string"}
    refusal = {"type": "object", "required": ["error", "message"], "properties": {"error": text, "message": text}}
    return {**parts, "Problem": refusal, "Verification": VERIFICATION, "Conflict": CONFLICT}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF.format(model=name)}


def _said(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
