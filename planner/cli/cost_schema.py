"""JSON Schemas of what the ``planner cost`` commands print."""

from __future__ import annotations

from typing import Any

_AMOUNT: dict[str, Any] = {"type": "number", "minimum": 0}
_MAYBE: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
_TEXT: dict[str, Any] = {"type": "string"}
_STREAMS = ("input_hit", "input_miss", "output")


def _object(properties: dict[str, Any], description: str = "") -> dict[str, Any]:
    """An object that has all of these and nothing else."""
    found = {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}
    return found | ({"description": description} if description else {})


_BILL = _object(
    {
        **dict.fromkeys(("sheet", "provider", "model", "currency"), _TEXT),
        "period": _object({"label": _TEXT, "from": _TEXT, "to": {"type": ["string", "null"]}}),
        "peak_share": _MAYBE | {"description": "Share of the tokens in peak windows; null where there are none."},
        "peak_windows": {
            "anyOf": [
                {"type": "null"},
                _object({**dict.fromkeys(("days", "hours_utc"), {"type": "array", "items": _TEXT}), "note": _TEXT}),
            ]
        },
        "per_million_tokens": _object({**dict.fromkeys(_STREAMS, _AMOUNT), "cache_write": _MAYBE}, "In the sheet's currency."),
        "amount": _object(dict.fromkeys((*_STREAMS, "total"), _AMOUNT), "In the sheet's currency."),
        **dict.fromkeys(("usd", "usd_off_peak", "usd_peak"), _AMOUNT),
        "rate": {"anyOf": [{"type": "null"}, _object({"per_usd": _AMOUNT, "as_of": _TEXT, "source": _TEXT})]},
        "lowest_grade": {"enum": ["A", "B", "C", "D"]},
        "sources": {"type": "array", "items": _TEXT},
        "ratio": _MAYBE | {"description": "To the bill of the first sheet."},
        "margin": {"type": ["number", "null"], "description": "Bill over cost, less one."},
        "margin_interval": {
            "anyOf": [{"type": "null"}, _object(dict.fromkeys(("low", "expected", "high"), {"type": ["number", "null"]}))],
            "description": "10th percentile, median and 90th percentile; of a plan.",
        },
        "by_stream": {
            "anyOf": [
                {"type": "null"},
                _object(
                    dict.fromkeys(
                        _STREAMS,
                        _object({"revenue_usd": _AMOUNT, "cost_usd": _AMOUNT, "margin": {"type": ["number", "null"]}}),
                    )
                ),
            ],
            "description": "Of a plan; no margin where a stream costs nothing.",
        },
    }
)
_ASSUMPTIONS = _object(dict.fromkeys(("life_years", "cost_of_capital", "usd_per_kwh", "pue"), _AMOUNT))
_PRICED = {
    **dict.fromkeys(("part", "tier", "origin", "status", "basis", "source"), _TEXT),
    **dict.fromkeys(("usd_per_gb", "usd_per_gb_low", "usd_per_gb_high"), _AMOUNT),
    "price_as_of": {"type": ["string", "null"]},
    "grade": {"enum": ["A", "B", "C", "D"]},
}
_RETENTION = (
    "electricity_usd_per_mtok_hour",
    "write_usd_per_mtok",
    "hours_of_equal_charge",
    "reload_joules_per_mtok",
    "reload_usd_per_mtok",
    "reload_mtok_per_s_per_unit",
    "units_to_outrun_prefill",
    "break_even_idle_hours",
    "break_even_idle_hours_low",
    "break_even_idle_hours_high",
)
_TIERS = (
    *("electricity_usd_per_gb_hour", "read_gb_per_s_per_usd", "read_pj_per_bit"),
    *("dwpd", "warranty_years", "usd_per_gb_written"),
)
_STEP = ("net", "gain", "gb_saves", "gb_costs")

_MTOK = _object({**dict.fromkeys(_STREAMS, _MAYBE), "blended": _AMOUNT})
_CHANGE: dict[str, Any] = {"type": "number", "exclusiveMinimum": -1, "description": "0.2 is a fifth more."}
_WHATIF = _object(
    {
        **dict.fromkeys(("plan", "model", "workload", "basis", "currency", "as_of"), _TEXT),
        "capex_basis": {"type": ["string", "null"], "description": "null: rented."},
        "changes": {"type": "object", "additionalProperties": _CHANGE},
        "scenario": {"anyOf": [{"type": "null"}, _object(dict.fromkeys(("id", "source", "note"), _TEXT))]},
        "usd_per_million": _MTOK,
        "usd_per_million_changed": _MTOK,
        "factor": _AMOUNT,
        "lines": {
            "type": "array",
            "minItems": 1,
            "items": _object(
                {
                    **dict.fromkeys(("hardware", "phase", "price"), _TEXT),
                    "capex_usd": _MAYBE | {"description": "Of all units; null for power and rent."},
                    "usd_per_hour": _AMOUNT,
                    "elasticity": _object(dict.fromkeys(("input", "output", "blended"), {"type": "number"})),
                    "change": _CHANGE,
                }
            ),
        },
        "memory_prices": {
            "type": "array",
            "items": _object(
                {
                    **dict.fromkeys(("kind", "part", "basis", "as_of", "source"), _TEXT),
                    "usd_per_gb": _AMOUNT,
                    "grade": {"enum": ["A", "B", "C", "D"]},
                }
            ),
        },
        "against": {
            "anyOf": [
                {"type": "null"},
                _object(
                    {
                        "plan": _TEXT,
                        "what": {"enum": ["capital", "rent"], "description": "Of a unit; a rent is by the hour."},
                        "hardware": {"type": "array", "items": _TEXT},
                        **dict.fromkeys(("usd_per_million", "ratio"), _AMOUNT),
                        "break_even_scale": _MAYBE | {"description": "null: electricity or colocation alone costs as much."},
                        "units": {
                            "type": "array",
                            "items": _object(
                                {
                                    "hardware": _TEXT,
                                    "devices_per_unit": {"type": "integer", "minimum": 1},
                                    "unit_usd": _AMOUNT,
                                    **dict.fromkeys(("break_even_unit_usd", "break_even_device_usd"), _MAYBE),
                                }
                            ),
                        },
                    }
                ),
            ]
        },
        "notes": {"type": "array", "items": _TEXT},
    }
)

SCHEMAS = {
    "cost-bill": _object(
        {
            "at": {"type": ["string", "null"]},
            "usage": _object(dict.fromkeys((*_STREAMS, "stored"), _AMOUNT), "Tokens; stored are a part of the misses."),
            "cost_usd": _MAYBE,
            "plan": {
                "anyOf": [
                    {"type": "null"},
                    _object(dict.fromkeys(("model", "workload", "basis", "currency", "as_of", "allocation"), _TEXT)),
                ]
            },
            "bills": {"type": "array", "minItems": 1, "items": _BILL},
        }
    ),
    "cost-retention": _object(
        {
            "model": _TEXT,
            "context": {"type": "integer", "minimum": 1},
            "layout": _TEXT,
            **dict.fromkeys(("bytes_per_token", "gb_per_mtok"), _AMOUNT),
            **dict.fromkeys(("recompute_usd_per_mtok", "prefill_tokens_per_s"), _MAYBE),
            "assumptions": _ASSUMPTIONS,
            "rows": {
                "type": "array",
                "items": _object({**_PRICED, "room_usd_per_mtok_hour": _AMOUNT, **dict.fromkeys(_RETENTION, _MAYBE)}),
            },
        }
    ),
    "cost-tiers": _object(
        {
            "assumptions": _ASSUMPTIONS,
            "rows": {
                "type": "array",
                "items": _object(
                    {**_PRICED, "unit_usd": _AMOUNT, "capital_usd_per_gb_hour": _AMOUNT, **dict.fromkeys(_TIERS, _MAYBE)}
                ),
            },
        }
    ),
    "cost-curve": _object(
        {
            **dict.fromkeys(("model", "workload", "layout", "curve_source"), _TEXT),
            "context": {"type": "integer", "minimum": 1},
            **dict.fromkeys(("bytes_per_token", "requests_per_s", "recompute_usd_per_mtok"), _AMOUNT),
            **dict.fromkeys(("input_tokens_per_request", "output_tokens_per_request"), _AMOUNT),
            "assumptions": _ASSUMPTIONS,
            "rows": {
                "type": "array",
                "items": _object(
                    {
                        **_PRICED,
                        "best_point": {
                            "type": "integer",
                            "minimum": 0,
                            "description": "The step after which most is left; 0: no cache.",
                        },
                        "steps": {
                            "type": "array",
                            "items": _object(
                                {
                                    **dict.fromkeys(("tokens", "hit_rate", "gb"), _AMOUNT),
                                    **dict.fromkeys((f"{name}_usd_per_hour" for name in ("keep", "reload", "saved")), _AMOUNT),
                                    **dict.fromkeys((f"{name}_usd_per_hour" for name in _STEP), {"type": "number"}),
                                }
                            ),
                        },
                    }
                ),
            },
        }
    ),
    "cost-whatif": _WHATIF,
}
