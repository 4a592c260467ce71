"""``planner plan --trace``: plan for what a trace asks for on average, replay it, and add head-room until limits are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import say
from planner.cli.limits import AtPercentile
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.cli.progress import Work
    from planner.plans import Plan
    from planner.replay.headroom import Headroom, Margin
    from planner.replay.session import Load
    from planner.workload import Workload

UNDATED = date(1970, 1, 1)
"""Of a trace without dates."""
_TAKEN = {"workloads": "--workload", "isl": "--isl", "osl": "--osl", "prefix_hit": "--prefix-hit"}
_LOADS = {"rate": "--rate", "tokens_per_day": "--tokens-per-day", "concurrency": "--concurrency"}


@dataclass(frozen=True)
class Traffic:
    """Requests to plan for: the workload that was fitted to them, their mean rate, and how to replay them."""

    workload: Workload
    rate_per_s: float
    load: Load


def asks_for_percentiles(given: dict[str, Any]) -> bool:
    """Whether a limit is on a percentile."""
    return any(isinstance(given[name], AtPercentile) for name in ("ttft", "tpot"))


def traffic_of(
    trace: Path | None, block_tokens: int | None, given: dict[str, Any], said: set[str], others: dict[str, Any]
) -> Traffic | None:
    """The traffic that a plan is asked for; ``None`` where it is a steady load. ``others``: options that do not go with it."""
    from planner.replay.run import new_environment
    from planner.replay.session import Load
    from planner.workload import load_workload
    from planner.workload.fit import fit_trace, workload_of
    from planner.workload.traces import open_trace

    ttft, tpot = (_bounds(given[name]) for name in ("ttft", "tpot"))
    if trace is None and not asks_for_percentiles(given):
        return None
    new_environment()  # says what is missing before a search has run
    for name, value in others.items():
        if value is not None:
            raise InputError("is not built for percentiles of traffic", where=name, mend="leave it out")
    for key in ("pareto", "robust"):
        if given[key] is not None:
            raise InputError("is not built for percentiles of traffic", where=f"--{key}", mend="leave it out")
    if given["slo_on"] == "high":
        raise InputError("is not built for percentiles of traffic", where="--slo-on high", mend="leave it out")
    if trace is None:
        workload = load_workload(given["workloads"][0])
        arrivals = workload.arrivals
        if arrivals is None or len(given["workloads"]) > 1:
            name = given["workloads"][0]
            what = f"percentiles are not known: {name} does not say how requests arrive; limits are on means, as 2s"
            raise InputError(what, where="--ttft, --tpot", mend="give --trace, or a workload of planner workload fit")
        for key in ("tokens_per_day", "concurrency"):
            if key in said:
                raise InputError("percentiles are of an open load", where=_LOADS[key], mend="give --rate, or leave it out")
        rate = given["rate"] or arrivals.rate_per_s
        return Traffic(workload, rate, Load(workload=workload, rate_per_s=rate, ttft=ttft, tpot=tpot))
    for key, option in (_TAKEN | _LOADS).items():
        if key in said:
            raise InputError("a trace says itself what it asks for", where=option, mend="leave it out")
    opening = open_trace(trace, None, block_tokens)
    fit = fit_trace(opening)
    if fit.rate_per_s is None:
        raise InputError("all requests come at once, so that it has no rate", where=str(trace), mend="name a longer trace")
    workload = workload_of(fit, workload_id="trace", as_of=opening.day or UNDATED, name=trace.name)
    return Traffic(workload, fit.rate_per_s, Load(trace=opening.trace, ttft=ttft, tpot=tpot))


def _bounds(limit: float | None) -> tuple[Any, ...]:
    from planner.replay.measure import Bound

    if limit is None:
        return ()
    return (Bound(float(limit), limit.percentile if isinstance(limit, AtPercentile) else None),)


def plan_for(traffic: Traffic, call: dict[str, Any], plan: Callable[..., Plan], work: Work) -> Headroom:
    """The plan with the head-room that the limits need. ``call``: arguments of ``plan`` without the rate."""
    from planner.replay.headroom import plan_with_headroom
    from planner.replay.schema import Replayed
    from planner.replay.session import deployed, simulate

    asked = call["workload"][0]
    load = traffic.load if traffic.load.workload is None else replace(traffic.load, workload=asked)

    def planned(margin: Margin) -> Plan:
        work.stage(f"planning for {_said(margin)}")
        limits = {
            "ttft_s": None if asked.ttft_s is None else asked.ttft_s * margin.ttft,
            "tpot_s": None if asked.tpot_s is None else asked.tpot_s * margin.tpot,
        }
        rate = traffic.rate_per_s * margin.factor
        return plan(**{**call, "rate": rate, "workload": [asked.model_copy(update=limits)]}, reporter=work)

    def replayed(found: Plan) -> Replayed:
        work.stage("replaying")
        return simulate(deployed(found, "plan"), load, lambda done, of: work.part(done, of, "requests"))

    return plan_with_headroom(planned, replayed)


def _said(margin: Margin) -> str:
    parts = [f"{margin.factor:.3g} times the mean rate"]
    parts += [f"{name} {share:.0%} of its limit" for name, share in (("TTFT", margin.ttft), ("TPOT", margin.tpot)) if share < 1.0]
    return ", ".join(parts)


def print_headroom(found: Headroom, *, quiet: bool, table: bool) -> None:
    """The replay, on standard output beside a table, and how much room the limits need."""
    from planner.cli.simulate_view import print_replay

    if table:
        click.echo()
        print_replay(found.replayed)
    limits = ", ".join(f"{limit.name.upper()} {limit.at}" for limit in found.replayed.limits) or "no limit"
    held = "held" if found.enough else "NOT held by any plan found; the best, by goodput, is"
    results = {True: "held", False: "missed", None: "no plan"}
    tried = "; ".join(f"{_said(margin)}: {results[met]}" for margin, met in found.tried)
    text = f"head-room: {limits} {held} with means planned for {_said(found.margin)} (tried: {tried})"
    if table:
        say(text)
    elif not quiet or not found.enough:
        click.echo(text, err=True)
