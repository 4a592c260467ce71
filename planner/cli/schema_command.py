"""``planner schema``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from planner.cli.common import echo_json
from planner.cli.cost_schema import SCHEMAS as _COST
from planner.cli.workload_view import SCHEMAS as _WORKLOADS

SUBJECTS = (
    *("plan", "hardware", "model", "workload", "runtime", "verify", "list", "kv", "lint"),
    *("conflict", "inventory", "mix", "fleet", "validate", "calibrate", "sweep", "sweep-result", "diff", "compare", "simulate"),
    *("audit", "probe"),
    *_COST,
    *_WORKLOADS,
)

_LIST: dict[str, Any] = {
    "type": "array",
    "items": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
}
_LINT: dict[str, Any] = {
    "type": "object",
    "required": ["ok", "profiles", "faults", "unknown", "notes"],
    "additionalProperties": False,
    "properties": {
        "ok": {"type": "boolean"},
        "profiles": {"type": "array", "items": {"type": "string"}},
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["where", "key", "what", "mend"],
                "additionalProperties": False,
                "properties": dict.fromkeys(("where", "key", "what", "mend"), {"type": "string"}),
            },
        },
        "unknown": {
            "type": "object",
            "description": "Figures that nobody has published, by file.",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
        },
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}
_COUNT = {"type": "integer", "minimum": 0}
_KV: dict[str, Any] = {
    "type": "object",
    "required": ["model", "context", "layout", "bytes_held", "bytes_per_token", "bytes_read_per_step", "fixed_bytes", "caches"],
    "properties": {
        "context": _COUNT,
        "layout": {"type": "string"},
        "bytes_held": _COUNT,
        "bytes_per_token": _COUNT,
        "bytes_read_per_step": _COUNT,
        "fixed_bytes": _COUNT,
        "flops_per_token": {"type": "object", "required": ["linear", "attention", "total"]},
        "caches": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    "name",
                    "role",
                    "layers",
                    "entries",
                    "entry_bytes",
                    "bytes_held",
                    "bytes_read_per_step",
                    "fixed_bytes",
                ],
                "properties": {"name": {"type": "string"}, "bytes_held": _COUNT},
            },
        },
    },
}
_ERROR = {"type": ["number", "null"], "minimum": 0}
_SCORE: dict[str, Any] = {
    "type": "object",
    "required": ["n", "median_ape", "mean_ape", "p90_ape", "within_2x", "ratio", "coverage_80"],
    "additionalProperties": False,
    "description": "Errors |predicted / measured - 1| and shares as fractions; null where nothing was scored.",
    "properties": {
        "n": _COUNT,
        **dict.fromkeys(("median_ape", "mean_ape", "p90_ape", "within_2x", "ratio", "coverage_80"), _ERROR),
    },
}
_BOTH: dict[str, Any] = {
    "type": "object",
    "required": ["tpot", "ttft", "ttft_below_5s"],
    "properties": dict.fromkeys(("tpot", "ttft", "ttft_below_5s"), _SCORE),
}
_VALIDATE: dict[str, Any] = {
    "type": "object",
    "required": [
        "file",
        "points",
        "answered",
        "skipped",
        "skipped_by_reason",
        "median_with_skipped",
        "by",
        "rules",
        "noise_floor",
    ]
    + _BOTH["required"],
    "properties": {
        "points": _COUNT,
        "answered": _COUNT,
        **_BOTH["properties"],
        "skipped": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "reason"],
                "additionalProperties": False,
                "properties": dict.fromkeys(("id", "reason"), {"type": "string"}),
            },
        },
        "by": {
            "type": "object",
            "required": ["system", "model", "backend", "precision", "mode", "evidence"],
            "additionalProperties": {"type": "object", "additionalProperties": _BOTH},
        },
        "deployments": {"type": "object", "description": "Published deployments; without POINTS.csv only."},
    },
}
_CALIBRATE: dict[str, Any] = {
    "type": "object",
    "required": ["calibration", "report"],
    "additionalProperties": False,
    "properties": {
        "calibration": {
            "type": "object",
            "required": ["id", "as_of", "source", "points", "rows", "generations", "spread", "runtimes"],
        },
        "report": {
            "type": "object",
            "required": [
                "rows",
                "parameters",
                "skipped",
                "fitted",
                "left_out",
                "coverage_80",
                "identified",
                "residuals",
                "curve",
            ],
        },
    },
}
_OUTPUT = {
    **{"list": _LIST, "kv": _KV, "lint": _LINT},
    **{"validate": _VALIDATE, "calibrate": _CALIBRATE},
    **_COST,
    **_WORKLOADS,
}
_MODELS = {
    "plan": "planner.plans.schema:Plan",
    "model": "planner.architecture:Model",
    "workload": "planner.workload:Workload",
    "runtime": "planner.runtimes:Runtime",
    "inventory": "planner.prices.inventory:Inventory",
    "mix": "planner.plans.mix:Mix",
    "sweep": "planner.sweep:Spec",
    "fleet": "planner.fleet:Fleet",
    "compare": "planner.comparison:Comparison",
    "audit": "planner.audit:Audit",
    "probe": "planner.probe.results:ProbeResult",
    "diff": "planner.plans.diff:Difference",
    "simulate": "planner.replay.schema:Replayed",
}
"""Subjects that are a pydantic model, and where it stands; imported when asked for."""


def schema_of(subject: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a subject."""
    if subject in _MODELS:
        module, _, name = _MODELS[subject].partition(":")
        schema = getattr(import_module(module), name).model_json_schema()
    elif subject == "hardware":
        schema = _hardware()
    elif subject == "sweep-result":
        from planner.sweep import result_schema

        schema = result_schema()
    elif subject in ("verify", "conflict"):
        from planner.plans.answers import CONFLICT, VERIFICATION

        schema = VERIFICATION if subject == "verify" else CONFLICT
    else:
        schema = _OUTPUT[subject]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _hardware() -> dict[str, Any]:
    """Of every kind of profile; a figure's value may be unknown."""
    from pydantic import TypeAdapter

    from planner.hardware import Profile

    schema = TypeAdapter[Profile](Profile).json_schema()
    figure = schema["$defs"]["Figure"]["properties"]
    figure["value"] = {"anyOf": [figure["value"], {"type": "null"}], "title": "Value, null if unknown"}
    return schema


@click.command("schema")
@click.argument("subject", type=click.Choice(SUBJECTS))
def command(subject: str) -> None:
    """Print the JSON Schema of SUBJECT: a plan, an input as plans embed it, or a command's output.

    \b
    Examples:
      planner schema plan
      planner schema verify > verify.schema.json
    """
    echo_json(schema_of(subject))
