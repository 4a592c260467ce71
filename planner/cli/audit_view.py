"""An audit for a terminal: verdict first, then findings, figures side by side, and the flags that lead to the best."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from planner.cli.common import new_table, number, print_table, say

if TYPE_CHECKING:
    from planner.audit.schema import Audit, Change, FlagChange, Reached
    from planner.plans.schema import Interval, Plan

_BETTER = {"cost": "cheaper", "throughput": "more throughput", "latency": "less time per token"}
_KINDS = {
    "wrong": "refused by the engine",
    "deprecated": "deprecated",
    "unresolved": "not known",
    "assumed": "assumed",
    "differs": "predicted roughly",
}


def print_audit(audit: Audit) -> None:
    """All of an audit."""
    say(_verdict(audit))
    for row in audit.conflict:
        say(f"  {row['member']}: {row['detail']}; least relief: {row['least_relief']}")
    click.echo("")
    for finding in audit.findings:
        say(f"{_KINDS[finding.kind]}: {finding.flag} ({finding.where}): {finding.what}")
    if audit.ignored:
        say(f"not modelled, and so left as they are: {', '.join(audit.ignored)}")
    _print_figures(audit)
    if audit.changes:
        _print_changes(audit)
    if audit.steps:
        _print_steps(audit)
    for text in audit.notes:
        say(text)
    if audit.stopped:
        say(f"stopped ({audit.stopped}): not every change was tried")


def _verdict(audit: Audit) -> str:
    what = f"{audit.engine}: {audit.model} on {audit.hardware}, workload {audit.workload}"
    best = f"{number(audit.best.objective)} {audit.unit}"
    if audit.predicted is None:
        return f"{what}: the given flags do not serve it: {audit.message}. Other flags reach {best}"
    now = f"{number(audit.predicted.objective)} {audit.unit}"
    if not audit.gap or audit.gap < 5e-4:
        return f"{what}: {now}: no flags are better"
    return f"{what}: {now}; other flags reach {best}, {audit.gap:.1%} {_BETTER[audit.objective]}"


def _print_figures(audit: Audit) -> None:
    sides: list[tuple[str, Reached]] = []
    if audit.predicted is not None:
        sides.append(("given", audit.predicted))
    elif audit.without_limits is not None:
        sides.append(("given, past its limits", audit.without_limits))
    sides.append(("best", audit.best))
    table = new_table("expected (10th to 90th percentile)", "figure", *(name for name, _ in sides))
    table.add_row("serving", *(_pools(side.plan) for _, side in sides))
    rows: tuple[tuple[str, Callable[[Plan], str]], ...] = (
        ("USD per million tokens", lambda plan: _span(plan.cost.blended_interval)),
        ("output tokens/s", lambda plan: _span(plan.prediction.output_tokens_per_s)),
        ("  per device paid for", lambda plan: _span(plan.prediction.output_tokens_per_s_per_device)),
        ("first token, ms", lambda plan: _span(plan.prediction.ttft_ms)),
        ("per output token, ms", lambda plan: _span(plan.prediction.tpot_ms)),
        ("requests in flight", lambda plan: number(plan.prediction.concurrency)),
        ("devices paid for", lambda plan: str(plan.cost.devices_paid)),
    )
    for name, get in rows:
        table.add_row(name, *(get(side.plan) for _, side in sides))
    print_table(table)


def _span(interval: Interval) -> str:
    return f"{number(interval.expected)} ({number(interval.low)} to {number(interval.high)})"


def _pools(plan: Plan) -> str:
    parts = []
    for pool in plan.pools:
        c = pool.configuration
        axes = (("tp", c.tp), ("dp", c.attention_dp), ("ep", c.ep), ("pp", c.pp), ("cp", c.context_parallel))
        shape = " ".join(f"{name}{size}" for name, size in axes if size > 1) or "tp1"
        loads = [f"batch {c.batch_per_rank}"] if c.batch_per_rank else []
        loads += [f"chunk {c.prefill_tokens_per_rank}"] if c.prefill_tokens_per_rank else []
        parts.append(f"{pool.phase} {pool.replicas} x {shape}, {', '.join(loads)}")
    return "; ".join(parts)


def _print_changes(audit: Audit) -> None:
    table = new_table("one change alone", "gain", "what", "flags")
    for change in audit.changes:
        table.add_row(_gain(change), change.frees, "; ".join(_flag(flag, change) for flag in change.flags))
    print_table(table)


def _print_steps(audit: Audit) -> None:
    say("step by step, each on top of those before; a flag's old value is the given one:")
    shown: list[FlagChange] = []
    for place, change in enumerate(audit.steps, start=1):
        gain = "serves" if change.improvement is None else f"{change.improvement:.1%} {_BETTER[audit.objective]}"
        say(f"{place}. {change.frees}: {gain}, {number(change.objective)} {audit.unit}")
        for flag in change.flags:
            if flag not in shown:
                say(f"     {_flag(flag, change)}")
        shown = change.flags
    last = audit.steps[-1]
    for phase, line in last.commands.items():
        click.echo(f"{phase}: {line}")
    for row in last.not_carried:
        say(f"not carried over: {row}")


def _gain(change: Change) -> str:
    return "serves" if change.improvement is None else f"{change.improvement:.1%}"


def _flag(flag: FlagChange, change: Change) -> str:
    pool = f"{flag.pool} " if len(change.commands) > 1 else ""
    if flag.after is None:
        return f"{pool}drop {flag.flag} {flag.before or ''}".rstrip()
    if flag.after == "true":
        return f"{pool}add {flag.flag}"
    return f"{pool}{flag.flag} from {flag.before or 'nothing'} to {flag.after}"
