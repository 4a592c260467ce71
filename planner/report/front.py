"""Cost against speed of one user: the points of a plan's Pareto front, or the one point that it is."""

from __future__ import annotations

from dataclasses import dataclass

from planner.report.study import Study


@dataclass(frozen=True)
class Point:
    """USD per million tokens and tokens/s of one request, with the intervals of the plan's own point (``None``: not known)."""

    label: str
    speed: float
    speed_low: float | None
    speed_high: float | None
    usd: float
    usd_low: float | None
    usd_high: float | None
    per_device: float
    tpot_ms: float
    ttft_ms: float
    chosen: bool


def points_of(study: Study) -> list[Point]:
    """The plan's own point first, then its front by falling speed; all with full batches."""
    plan = study.plan
    told, full, cost = plan.prediction, plan.prediction.full_batches, plan.cost.blended_interval
    own = Point(
        f"{study.label}: the plan",
        1e3 / full.tpot_ms.expected,
        full.tpot_ms.high and 1e3 / full.tpot_ms.high,
        full.tpot_ms.low and 1e3 / full.tpot_ms.low,
        cost.expected,
        cost.low,
        cost.high,
        told.output_tokens_per_s_per_device.expected,
        full.tpot_ms.expected,
        full.ttft_ms.expected,
        True,
    )
    others = [
        Point(
            f"{study.label}: within {row.tpot_limit_ms:g} ms a token" if row.tpot_limit_ms else f"{study.label}: no limit",
            row.tokens_per_s_per_user,
            None,
            None,
            row.usd_per_million_blended,
            None,
            None,
            row.output_tokens_per_s_per_device,
            row.tpot_ms,
            row.ttft_ms,
            False,
        )
        for row in (plan.pareto.points if plan.pareto else ())
    ]
    return [own, *others]
