"""A point's row of results: flat, the same columns whatever the sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from planner.sweep.axes import AXES, Scalar
from planner.sweep.points import VERSIONS, Point

if TYPE_CHECKING:
    from planner.plans.schema import Bottleneck, Plan

Row = dict[str, Scalar]
Status = Literal["ok", "infeasible", "stopped", "error"]
STATUSES: tuple[str, ...] = get_args(Status)
MOST_MESSAGE = 1000


@dataclass(frozen=True)
class Column:
    """One column; ``null`` where it does not apply."""

    name: str
    type: Literal["text", "whole", "number", "truth"]
    about: str


def _interval(name: str, about: str) -> tuple[Column, ...]:
    ends = (("low", "its 10th percentile"), ("high", "its 90th percentile"))
    return (Column(name, "number", about), *(Column(f"{name}_{end}", "number", text) for end, text in ends))


COLUMNS = (
    Column("point", "text", "id of the point"),
    Column("status", "text", "ok, infeasible, stopped (by time_limit before any plan was found) or error"),
    Column("message", "text", "what is infeasible or wrong"),
    Column("case", "text", "name of the case"),
    *(Column(axis.key, axis.type, axis.about) for axis in AXES.values()),
    Column("objective_value", "number", "what was minimised or maximised"),
    Column("objective_unit", "text", "its unit"),
    Column("bound", "number", "no configuration does better than this"),
    Column("gap", "number", "between value and bound, over the value"),
    Column("proved", "truth", "whether the whole space was closed within the gap asked for"),
    Column("stopped", "text", "what ended the search early"),
    Column("usd_per_mtok_input_hit", "number", "USD per million cached input tokens"),
    Column("usd_per_mtok_input_miss", "number", "USD per million input tokens that are computed"),
    Column("usd_per_mtok_output", "number", "USD per million output tokens"),
    *_interval("usd_per_mtok", "USD per million tokens of all kinds"),
    Column("usd_per_hour", "number", "USD an hour of all units"),
    *_interval("output_tokens_per_s", "output tokens/s of the deployment"),
    *_interval("output_tokens_per_s_per_device", "output tokens/s of a device paid for"),
    *_interval("tokens_per_s_per_user", "output tokens/s of one request"),
    *_interval("ttft_ms", "mean time to first token"),
    *_interval("tpot_ms", "mean time per output token"),
    Column("requests_per_s", "number", "requests served"),
    Column("requests_in_flight", "number", "requests in the deployment"),
    Column("mode", "text", "aggregated or disaggregated"),
    Column("units", "text", "purchasable units by hardware"),
    Column("devices_paid", "whole", "devices of all units"),
    Column("idle_devices", "whole", "devices paid for that do nothing"),
    Column("configuration", "text", "parallelism and batch of each pool"),
    Column("bottleneck", "text", "the resource with the largest share of the time of output tokens"),
    Column("bottleneck_share", "number", "that share"),
    Column("lowest_grade", "text", "of the figures that the plan depends on"),
    Column("plan_sha256", "text", "of the plan file"),
    Column("command", "text", "the command that makes the plan file, where the specification lies"),
    Column("planner", "text", "version"),
    Column("catalogue", "text", "version of the built-in data"),
)
NAMES = tuple(column.name for column in COLUMNS)
_TYPES: dict[str, tuple[type, ...]] = {"text": (str,), "whole": (int,), "number": (float,), "truth": (bool,)}


def row_of(point: Point, status: Status, message: str = "", plan: Plan | None = None, digest: str = "") -> Row:
    """The row of a point; ``digest`` is that of its plan file."""
    given = {AXES[name].key: AXES[name].cell(value) for name, value in point.values.items() if name != "case"}
    row: Row = dict.fromkeys(NAMES)
    row |= given
    row |= {"point": point.id, "status": status, "case": point.values.get("case"), "command": point.command, **VERSIONS}
    row["message"] = " ".join(message.split())[:MOST_MESSAGE] or None
    if plan is not None:
        row |= {**_of_plan(plan), "plan_sha256": digest}
    return row


def _of_plan(plan: Plan) -> Row:
    prediction, cost, certificate = plan.prediction, plan.cost, plan.certificate
    prices = cost.usd_per_million
    row: Row = {
        "objective_value": certificate.objective,
        "objective_unit": certificate.unit,
        "bound": certificate.bound,
        "gap": certificate.gap,
        "proved": certificate.proved,
        "stopped": certificate.stopped,
        "usd_per_mtok_input_hit": prices.input_hit,
        "usd_per_mtok_input_miss": prices.input_miss,
        "usd_per_mtok_output": prices.output,
        "usd_per_hour": cost.usd_per_hour,
        "requests_per_s": prediction.requests_per_s,
        "requests_in_flight": prediction.concurrency,
        "mode": plan.mode,
        "units": " + ".join(f"{unit.units} x {unit.hardware}" for unit in plan.units),
        "devices_paid": cost.devices_paid,
        "idle_devices": plan.idle_devices,
        "configuration": "; ".join(_configuration(pool) for pool in plan.pools),
        "lowest_grade": plan.provenance["lowest_grade"],
    }
    for name in ("output_tokens_per_s", "output_tokens_per_s_per_device", "tokens_per_s_per_user", "ttft_ms", "tpot_ms"):
        interval = getattr(prediction, name)
        row |= {name: interval.expected, f"{name}_low": interval.low, f"{name}_high": interval.high}
    blended = cost.blended_interval
    row |= {"usd_per_mtok": prices.blended, "usd_per_mtok_low": blended.low, "usd_per_mtok_high": blended.high}
    worst = _worst(plan.bottlenecks)
    if worst is not None:
        row |= {"bottleneck": worst.resource, "bottleneck_share": worst.share}
    return row


def _configuration(pool: Any) -> str:
    """``decode: 4 x tp8 dp1 ep8 pp1 cp1 batch 64 pass 0 mtp1 redundant0 kv bf16``."""
    c = pool.configuration
    shape = f"tp{c.tp} dp{c.attention_dp} ep{c.ep} pp{c.pp} cp{c.context_parallel}"
    return (
        f"{pool.phase}: {pool.replicas} x {shape} batch {c.batch_per_rank} pass {c.prefill_tokens_per_rank} "
        f"mtp{c.mtp} redundant{c.redundant_experts} kv {c.kv_dtype}"
    )


def _worst(rows: list[Bottleneck]) -> Bottleneck | None:
    """The largest share of decoding, the first of equals; of everything where nothing decodes."""
    decoding = [row for row in rows if row.phase == "decode"] or rows
    return max(decoding, key=lambda row: row.share, default=None)


def is_row(value: object) -> bool:
    """Whether a value read from a file is a row of this version."""
    if not isinstance(value, dict) or tuple(value) != NAMES or value["status"] not in STATUSES or not value["point"]:
        return False
    return all(value[column.name] is None or _fits(value[column.name], column.type) for column in COLUMNS)


def _fits(value: object, kind: str) -> bool:
    if isinstance(value, bool) != (kind == "truth") or not isinstance(value, _TYPES[kind]):
        return False
    return not isinstance(value, float) or math.isfinite(value)
