"""What ``planner simulate`` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.common import new_table, number, print_table, say

if TYPE_CHECKING:
    from planner.replay.schema import Figures, Replayed


CARRIED = 0.97
"""Share of the rate asked below which more comes than is served; drawn arrivals are within 2 % of it."""


def print_replay(found: Replayed) -> None:
    """Times, what they are held against, caches, pools, price."""
    traffic = found.traffic
    load = f"{traffic.requests:,} requests of {traffic.source}"
    if traffic.kind == "closed loop":
        load += f", {traffic.clients:,} clients"
    elif traffic.rate_per_s is not None:
        load += (
            f", {traffic.rate_per_s:.4g}/s at random" if traffic.variation == 1.0 else f", {traffic.rate_per_s:.4g}/s in bursts"
        )
    elif traffic.scale_rate != 1.0:
        load += f" at {traffic.scale_rate:g} times its rate"
    click.echo(f"{found.model} on {found.hardware}: {load}")
    table = new_table("times", "ms", "mean", "p50", "p90", "p95", "p99", "most")
    rows = (
        ("time to first token", found.ttft_ms),
        ("of it before admission", found.wait_ms),
        ("time per output token", found.tpot_ms),
    )
    for name, spread in rows:
        cells = (spread.mean, spread.p50, spread.p90, spread.p95, spread.p99, spread.most)
        table.add_row(name, *(number(cell) for cell in cells))
    print_table(table)
    table = new_table("means beside", "", "requests/s", "TTFT ms", "TPOT ms")
    table.add_row("replay", number(found.requests_per_s), number(found.ttft_ms.mean), number(found.tpot_ms.mean))
    if found.theory is not None:
        _beside(table, "plan at this load, equal requests", found.theory)
    _beside(table, "plan at its own load", found.planned)
    print_table(table)
    asked = found.traffic.rate_per_s
    if asked is not None and found.requests_per_s < CARRIED * asked:
        say(f"NOT carried: {number(found.requests_per_s)} of {number(asked)} requests/s are served; times grow while it lasts")
    for limit in found.limits:
        said = "met" if limit.met else "MISSED"
        click.echo(f"{limit.name.upper()} {limit.at}: {number(limit.found_ms)} ms of {number(limit.limit_ms)} ms: {said}")
    if found.limits:
        within = number(found.goodput_requests_per_s)
        say(f"goodput: {within} requests/s within every limit, {found.goodput_share:.1%} of requests")
    table = new_table("pools", "", "instances", "prefill", "decode", "idle", "passes filled", "sequences", "room")
    for pool in found.pools:
        fill = "-" if pool.pass_fill is None else f"{pool.pass_fill:.0%}"
        shares = (f"{share:.0%}" for share in (pool.prefill_share, pool.decode_share, pool.idle_share))
        room = number(pool.sequences_room) if pool.sequences_room else "-"
        table.add_row(pool.pool, str(pool.instances), *shares, fill, number(pool.sequences_mean), room)
    print_table(table)
    caches = found.caches
    parts = [f"{tier.hit_rate:.1%} in {tier.tier}" for tier in caches.tiers if tier.hit_rate]
    where = f" ({', '.join(parts)})" if parts else ""
    say(f"prefix hits: {caches.hit_rate:.1%} of input tokens{where}; the plan counts on {caches.planned_hit_rate:.1%}")
    if caches.block_hit_rate is not None:
        click.echo(f"blocks known, each for itself: {caches.block_hit_rate:.1%}")
    if caches.drive_writes_per_day is not None:
        click.echo(f"writes to the disks' part of the pool: {caches.drive_writes_per_day:.3g} of its capacity a day")
    peaks = found.peaks
    say(
        f"most at once: {peaks.in_flight:,} in flight, {peaks.prefill_queue:,} before one rank's prefill, "
        f"{peaks.decode_queue:,} waiting for one rank's decode"
    )
    if found.usd_per_million_tokens is not None and found.usd_per_million_output is not None:
        say(
            f"as served: {number(found.usd_per_hour)} USD an hour, {number(found.usd_per_million_tokens)} USD per million tokens "
            f"({number(found.usd_per_million_output)} of output), no idle hour counted"
        )
    for note in found.notes:
        say(note)


def _beside(table: object, name: str, figures: Figures) -> None:
    from rich.table import Table

    assert isinstance(table, Table)
    table.add_row(name, *(number(value) for value in (figures.requests_per_s, figures.ttft_ms, figures.tpot_ms)))
