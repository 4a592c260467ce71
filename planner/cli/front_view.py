"""The Pareto front of a plan for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.cli.common import new_table, number, print_table

if TYPE_CHECKING:
    from planner.plans.schema import FrontPoint, Pareto


def print_front(front: Pareto) -> None:
    """One line a point, fastest first."""
    against = "cost" if front.objective == "cost" else "throughput"
    state = "proved" if front.proved else f"not proved{f' (stopped: {front.stopped})' if front.stopped else ''}"
    table = new_table(
        f"Pareto front: {against} against speed of one user, {state}",
        *("tok/s/user", "ms/token", "TTFT ms", "USD/Mtok", "tok/s/device", "gap", "devices"),
    )
    for point in front.points:
        table.add_row(
            number(point.tokens_per_s_per_user),
            number(point.tpot_ms),
            number(point.ttft_ms),
            number(point.usd_per_million_blended),
            number(point.output_tokens_per_s_per_device),
            f"{point.gap:.3%}",
            _devices(point),
        )
    print_table(table)


def _devices(point: FrontPoint) -> str:
    """Devices of the one pool, or of prefill and of decode."""
    return "+".join(str(pool.devices) for pool in point.pools)
