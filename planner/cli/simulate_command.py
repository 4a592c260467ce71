"""``planner simulate``: requests replayed through a plan."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import TIME, Quantity, Range, echo_json, format_option, hint, read_plan_argument, tell_unverified, verdict
from planner.cli.progress import working
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.replay.measure import Bound

KINDS = ("mooncake", "azure", "csv")


class Limit(click.ParamType[Any]):
    """A limit on the mean (``2s``) or on a percentile (``2s@p95``)."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Bound:
        """Parse or fail with one line."""
        from planner.cli.limits import AtPercentile, at_percentile
        from planner.replay.measure import Bound

        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        found = at_percentile(self, value, param, ctx) if "@" in value else TIME.convert(value, param, ctx)
        return Bound(float(found), found.percentile if isinstance(found, AtPercentile) else None)


class Blocks(click.ParamType[float]):
    """A number of blocks, or ``inf``."""

    name = "blocks"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse or fail with one line."""
        text = str(value)
        if text in ("inf", "infinite"):
            return math.inf
        if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
            self.fail(f"{text[:32]!r} is no number of blocks; write 20000, or inf", param, ctx)
        return float(text)


@click.command("simulate")
@click.argument("plan_file", metavar="PLAN")
@click.option("--trace", type=click.Path(path_type=Path), help="Requests as they came: Mooncake jsonl, Azure 2023 CSV or CSV.")
@click.option("--trace-format", "kind", type=click.Choice(KINDS), help="Told from the first line unless given.")
@click.option("--block-tokens", type=click.IntRange(1, 16_777_216), help="Input tokens of a hash of the trace.")
@click.option("--workload", help="Draw requests of this workload in place of the plan's: a name or a TOML file.")
@click.option("--rate", type=Quantity("per_s", "/s", "RATE", 1e-9, 1e9), help="Random arrivals at this rate (50/s).")
@click.option("--concurrency", type=click.IntRange(1, 1_000_000), help="So many clients, each sends one when theirs is done.")
@click.option("--scale-rate", type=Range(0, 1e6, min_open=True), default=1.0, show_default=True, help="Times the rate.")
@click.option("--requests", type=click.IntRange(1, 1_000_000), help="Replay so many: 10,000 drawn, or all of a trace.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of what is drawn.")
@click.option("--constant", is_flag=True, help="Draw no lengths: all requests have the mean ones.")
@click.option("--warm-up", type=Range(0, 0.9), help="Share of requests that do not count; 0.2 of drawn ones, none of a trace.")
@click.option("--cache-blocks", type=Blocks(), help="A prefix cache of so many blocks (inf: all) in place of the plan's.")
@click.option(
    "--prefill-wait",
    type=Quantity("s", "ms", "time", 0.0, 1e9),
    help="Prefill beside decode waits so long for other ranks (default: as planned).",
)
@click.option("--ttft", type=Limit(), multiple=True, help="Limit on the time to first token: 2s (mean), 2s@p95; may repeat.")
@click.option("--tpot", type=Limit(), multiple=True, help="Limit on the time per output token: 50ms, 50ms@p99; may repeat.")
@format_option
def command(
    plan_file: str,
    trace: Path | None,
    kind: Any,
    block_tokens: int | None,
    workload: str | None,
    rate: float | None,
    concurrency: int | None,
    scale_rate: float,
    requests: int | None,
    seed: int,
    constant: bool,
    warm_up: float | None,
    cache_blocks: float | None,
    prefill_wait: float | None,
    ttft: tuple[Bound, ...],
    tpot: tuple[Bound, ...],
    form: str,
) -> int:
    """Replay requests through PLAN, event by event: queues, chunks, batches, caches, hand-off. PLAN is a file, or - for stdin.

    Without --trace requests are drawn: lengths of the workload, random arrivals at --rate, or --concurrency clients; without
    either at the load that the plan was made for. The same seed gives the same result. Limits are the workload's on the mean
    unless given; if one that is given is missed, the exit code is 4.

    \b
    Examples:
      planner simulate plan.json
      planner simulate plan.json --rate 5/s --ttft 2s@p95 --tpot 50ms@p99
      planner simulate plan.json --trace trace.jsonl.gz --scale-rate 1.5
    """
    from planner.cli.simulate_view import print_replay
    from planner.replay.run import new_environment
    from planner.replay.session import Load, deployed, simulate
    from planner.workload import load_workload
    from planner.workload.traces import open_trace

    if trace is not None and workload is not None:
        raise InputError("a trace has its own requests", where="--workload", mend="leave out one of --trace and --workload")
    if rate is not None and concurrency is not None:
        raise InputError("both say what the load is", where="--rate, --concurrency", mend="leave out one")
    if trace is None and (kind is not None or block_tokens is not None):
        where = "--trace-format" if block_tokens is None else "--block-tokens"
        raise InputError("says how to read a trace", where=where, mend="add --trace")
    if trace is not None and constant:
        raise InputError("a trace has its own lengths", where="--constant", mend="leave it out")
    new_environment()  # says what is missing before anything is worked out
    plan, where = read_plan_argument(plan_file)
    opened = None if trace is None else open_trace(trace, kind, block_tokens).trace
    load = Load(
        trace=opened,
        workload=None if workload is None else load_workload(workload),
        rate_per_s=rate,
        clients=concurrency,
        requests=requests,
        seed=seed,
        scale_rate=scale_rate,
        warm_up=warm_up,
        constant=constant,
        cache_blocks=cache_blocks,
        prefill_wait_s=prefill_wait,
        ttft=ttft,
        tpot=tpot,
    )
    with working("step times") as work:
        deployment = deployed(plan, where)
        work.stage("replaying")
        found = simulate(deployment, load, lambda done, of: work.part(done, of, "requests"))
    tell_unverified(plan, where, plan_file)
    code = 0 if found.limits_met or not (ttft or tpot) else 4
    with verdict(code):
        if form == "json":
            echo_json(found.model_dump(mode="json"))
        else:
            print_replay(found)
    if form == "table":
        again = f"planner plan {shlex.quote(found.model)} {shlex.quote(found.hardware)} --ttft … --tpot … (tighter)"
        hint("planner simulate PLAN --scale-rate 1.2" if found.limits_met else again)
    return code
