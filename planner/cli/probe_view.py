"""``planner probe`` for people."""

from __future__ import annotations

import click

from planner.cli.common import new_table, number, print_table
from planner.probe.results import MachineResult, ProbeResult, Value


def _cells(found: Value, scale: float) -> tuple[str, str]:
    return number(found.value / scale), f"{number(found.low / scale)} to {number(found.high / scale)}"


def print_machine(found: MachineResult) -> None:
    """Every figure with its spread."""
    table = new_table("this machine: medians, 10th to 90th percentile of the runs", "what", "", "unit", "median", "spread")

    def row(what: str, at: str, unit: str, value: Value, scale: float) -> None:
        table.add_row(what, at, unit, *_cells(value, scale))

    for part in found.memory_read_bytes_per_s:
        row("memory read", _threads(part.count), "GB/s", part.rate, 1e9)
    for part in found.memory_write_bytes_per_s:
        row("memory written by a copy", _threads(part.count), "GB/s", part.rate, 1e9)
    row("weights times one row", "", "GB/s", found.memory_stream_bytes_per_s, 1e9)
    row("memory latency", "dependent reads", "ns", found.memory_latency_s, 1e-9)
    for products in found.products:
        row(f"products {products.dtype}", "most", "GFLOP/s", products.peak_flop_per_s, 1e9)
        for part in products.flop_per_s_by_rows:
            row(f"products {products.dtype}", f"{part.count} rows", "GFLOP/s", part.rate, 1e9)
    if found.disk is not None:
        for part in found.disk.sequential_bytes_per_s:
            row("disk, 4 MiB reads", _threads(part.count), "GB/s", part.rate, 1e9)
        for part in found.disk.random_reads_per_s:
            row("disk, 4 KiB at random", _threads(part.count), "k/s", part.rate, 1e3)
        row("disk latency", "4 KiB", "us", found.disk.latency_s, 1e-6)
        row("disk write", "4 MiB", "GB/s", found.disk.write_bytes_per_s, 1e9)
    print_table(table)
    click.echo(f"{found.threads} cores, {found.blas}, {found.memory_usable_bytes / 1e9:.1f} GB of memory free")
    if found.disk is None:
        click.echo("the disk was left out")
    if found.accelerator:
        click.echo(f"accelerator: {found.accelerator}; the profile is of it")


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def print_runs(found: ProbeResult) -> None:
    """Measured beside predicted, and what is furthest off."""
    table = new_table("tokens/s", "model", "batch", "on disk", "measured", "predicted", "error", "furthest off")
    for run in found.runs:
        parts = [f"{run.experts_on_disk:.0%} experts"] if run.experts_on_disk else []
        parts += [name for name, there in (("table", run.table_on_disk), ("dense", run.dense_on_disk)) if there]
        rates = number(run.measured_tokens_per_s), number(run.predicted_tokens_per_s)
        table.add_row(run.model, str(run.batch), ", ".join(parts) or "-", *rates, f"{run.error:+.0%}", run.misses)
    print_table(table)
    assert found.median_error is not None
    click.echo(f"median error {found.median_error:.1%}; the runtime was fitted to other runs on this machine")
