"""``planner plan``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import (
    TIME,
    TOKENS,
    Quantity,
    Range,
    format_option,
    hint,
    profiles_option,
    say_file,
    whole_numbers,
)
from planner.cli.plan_arguments import spare_of, with_experts, with_tables, workload_of
from planner.cli.plan_view import print_certificate, print_conflict, print_plan
from planner.errors import InfeasibleError, StoppedError

if TYPE_CHECKING:
    from planner.workload import Workload


@click.command("plan")
@click.argument("model", required=False)
@click.argument("hardware", required=False)
@click.option("--devices", type=click.IntRange(1), help="Use at most this many devices of each kind.")
@click.option(
    "--workload",
    "workloads",
    multiple=True,
    default=("interactive",),
    show_default="interactive",
    help="A workload of the catalogue or a TOML file; several with --robust workloads.",
)
@click.option("--isl", type=TOKENS, help="Input tokens, in place of the workload's (128k works).")
@click.option("--osl", type=TOKENS, help="Output tokens, in place of the workload's.")
@click.option("--prefix-hit", type=Range(0, 1, max_open=True), help="Share of input tokens found in cache.")
@click.option("--ttft", type=TIME, help="Limit on the expected mean time to first token (2s; bare numbers are ms).")
@click.option("--tpot", type=TIME, help="Limit on the expected mean time per output token (50ms; bare numbers are ms).")
@click.option("--concurrency", type=click.IntRange(1), help="At most this many requests in flight.")
@click.option("--rate", type=Quantity("per_s", "/s", "RATE", 0.0, 1e12), help="Requests to serve in the hours of service (50/s).")
@click.option("--tokens-per-day", type=Range(0, 1e24, min_open=True), help="Input and output tokens to serve in a day.")
@click.option(
    "--spare",
    metavar="N[:node|unit|rack|pod]",
    help="Keep N nodes (purchasable units, systems) of each pool idle for when one fails.",
)
@click.option(
    "--objective",
    type=click.Choice(["cost", "throughput", "latency"]),
    default="cost",
    show_default=True,
    help="Least USD per token, most tokens/s per device, or least TPOT.",
)
@click.option("--tiers", help="Memories that may be used, by kind, role or id (hbm,host).")
@click.option("--runtime", default="generic", show_default=True, help="A runtime of the catalogue or a TOML file.")
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="A file of planner calibrate for the runtime, in place of the built-in calibration.",
)
@click.option("--weight-dtype", help="Store the layers' matrices in this dtype (bf16, fp8, int8, fp4, int4).")
@click.option(
    "--kv-dtype",
    default="bf16",
    show_default=True,
    help="Dtype of the KV cache (bf16, fp8), or several to choose from: bf16,fp8.",
)
@click.option(
    "--mtp", default="0", show_default=True, help="Draft tokens per step, several to choose from (0,1,2), or auto: all there are."
)
@click.option(
    "--experts", "expert_use", help="How tokens spread over experts: uniform, zipf:0.8, or a JSON or CSV file of loads."
)
@click.option("--table-use", help="How reads spread over the rows of lookup tables: uniform, or zipf:1.0.")
@click.option(
    "--redundant-experts",
    default="0",
    show_default=True,
    help="Expert slots of a rank for copies, or several to choose from: 0,1.",
)
@click.option("--price-basis", default="owned", show_default=True, help="A price basis of the catalogue, or a TOML file like it.")
@click.option("--site", help="Electricity, PUE and life of this site, in place of the basis's: cn-west-hub, or a TOML file.")
@click.option("--utilisation", type=Range(0, 1, min_open=True), help="Share of hours in which the load is served.")
@click.option("--max-power-kw", type=Range(0, 1e12, min_open=True), help="Stated power of all units used.")
@click.option("--max-usd-per-hour", type=Range(0, 1e12, min_open=True), help="Cost of all units used.")
@click.option(
    "--allocation",
    type=click.Choice(["miss_only", "all_input", "flops"]),
    default="miss_only",
    show_default=True,
    help="Who pays for prefill: computed tokens, all input tokens, or by FLOPs.",
)
@profiles_option
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help='Replace a figure of the hardware: ascend-950dt.memory.hbm.read="4.0 TB/s", or 3.6..4.0..4.2 TB/s.',
)
@click.option("--allow-announced", is_flag=True, help="Accept parts that do not ship yet.")
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="RULE",
    help="Keep what matches: tp=8, decode.ep=32,64, batch_per_rank<=64, 'KV cache@hbm'.",
)
@click.option("--ban", "bans", multiple=True, metavar="RULE", help="Rule out what matches: pp=8, 'routed experts@ssd'.")
@click.option("--constraints", "constraints_file", help="A TOML file of [[constraint]] tables with name and pin or ban.")
@click.option(
    "--pareto",
    type=click.IntRange(2, 50),
    metavar="N",
    help="Also the front of cost (or throughput) against speed of one user, in up to N points with a proved gap each.",
)
@click.option(
    "--slo-on",
    type=click.Choice(["expected", "high"]),
    default="expected",
    show_default=True,
    help="Let --ttft and --tpot bind the expected value, or the 90th percentile of the model's uncertainty.",
)
@click.option(
    "--robust",
    type=click.Choice(["intervals", "workloads"]),
    help="Best plan in the worst case: every figure of profile and runtime at the slow end of its interval at once; or one "
    "deployment for several --workload, best for the one that fares worst.",
)
@click.option(
    "--from", "from_plan", metavar="PLAN", help="Take over from this plan: say what must move; what is not said anew stays."
)
@click.option(
    "--max-move-bytes",
    type=Quantity("bytes", "B", "SIZE", 0.0, 1e18),
    help="With --from: the best alternative that moves no more (500GB).",
)
@click.option(
    "--inventory",
    type=click.Path(path_type=Path),
    help="Choose among the pools of this file, in place of HARDWARE (planner init inventory).",
)
@click.option("--budget-usd", type=Range(0, 1e15, min_open=True), help="With --inventory: capital to buy with.")
@click.option("--gap", type=Range(0, 1), default=0.005, show_default=True, help="Gap at which a plan counts as proved.")
@click.option("--time-limit", type=Range(0, 1e9, min_open=True), help="Stop after this many seconds with the best plan so far.")
@click.option("--certificate", is_flag=True, help="Print the certificate of the placement beside the plan.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan as JSON to this file.")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("--quiet", is_flag=True, help="No progress and no hints.")
@format_option
def command(
    model: str | None,
    hardware: str | None,
    workloads: tuple[str, ...],
    isl: float | None,
    osl: float | None,
    prefix_hit: float | None,
    ttft: float | None,
    tpot: float | None,
    tiers: str | None,
    folders: tuple[Path, ...],
    allow_announced: bool,
    time_limit: float | None,
    certificate: bool,
    output: Path | None,
    force: bool,
    quiet: bool,
    form: str,
    runtime: str,
    price_basis: str,
    site: str | None,
    kv_dtype: str,
    mtp: str,
    pins: tuple[str, ...],
    bans: tuple[str, ...],
    constraints_file: str | None,
    spare: str | None,
    expert_use: str | None,
    table_use: str | None,
    redundant_experts: str,
    from_plan: str | None,
    inventory: Path | None,
    budget_usd: float | None,
    **options: Any,
) -> int:
    """Find the best deployment of MODEL on HARDWARE.

    MODEL is a catalogue name, a config.json or its folder. HARDWARE is a catalogue name or TOML profile; NAME:N takes
    N of it; prefill=NAME:N,decode=NAME:M makes pools of different hardware.

    \b
    Examples:
      planner plan deepseek-v3 h800-node:2
      planner plan deepseek-v3 h800-node --tpot 1000
      planner plan llama-3.1-70b h100-node --objective latency -o plan.json
    """
    import time

    from planner.api import parse_hardware, plan, plan_mix
    from planner.cli.from_plan import kept, old_workload, stated, verified
    from planner.cli.front_view import print_front
    from planner.cli.mix_view import check_folder, show_mix
    from planner.cli.transition_view import print_transition
    from planner.documents import check_target, write_whole
    from planner.hardware import load_site
    from planner.plans.constraints import parse_constraints
    from planner.plans.read import inputs_of
    from planner.search import Stop

    given = stated(click.get_current_context())
    if inventory is not None and (hardware is not None or from_plan is not None):
        raise click.UsageError("--inventory stands in place of HARDWARE and --from.")
    if budget_usd is not None and inventory is None:
        raise click.UsageError("--budget-usd goes with --inventory.")
    if from_plan is None and (model is None or (hardware is None and inventory is None)):
        raise click.UsageError(f"Missing argument '{'MODEL' if model is None else 'HARDWARE'}'.")
    before = None if from_plan is None else verified(from_plan)
    old = None if before is None or from_plan is None else inputs_of(before, from_plan)
    asked: tuple[str | Workload, ...] = workloads if old is None or "workloads" in given else (old_workload(old),)
    if output is not None and inventory is not None:
        check_folder(output, force=force)
    elif output is not None:
        check_target(output, force=force)
    for part in hardware.split(",") if folders and hardware else ():
        say_file(part.rpartition("=")[2], "node", folders)
    stop = Stop(None if time_limit is None else time.monotonic() + time_limit)
    previous = signal.getsignal(signal.SIGINT)

    def interrupt(*_: object) -> None:
        if stop.interrupted:
            raise KeyboardInterrupt
        stop.interrupted = True

    signal.signal(signal.SIGINT, interrupt)
    try:
        call: dict[str, Any] = {
            "model": model,
            "hardware": None if hardware is None else parse_hardware(hardware, folders),
            "workload": [
                with_tables(with_experts(workload_of(one, isl, osl, prefix_hit, ttft, tpot), expert_use), table_use)
                for one in asked
            ],
            "runtime": runtime,
            "prices": price_basis,
            "site": None if site is None else load_site(site, folders=folders),
            "allow_announced": allow_announced,
            "tiers": None if tiers is None else tuple(part.strip() for part in tiers.split(",")),
            "constraints": parse_constraints(pins, bans, constraints_file),
            **spare_of(spare),
            "redundant_experts": whole_numbers(redundant_experts, "--redundant-experts", 64),
            "kv_dtype": tuple(part.strip() for part in kv_dtype.split(",")),
            "mtp": "auto" if mtp == "auto" else whole_numbers(mtp, "--mtp", 8),
            **options,
        }
        call |= kept(old, given) if old is not None else {}
        if inventory is not None:
            del call["hardware"], call["objective"]
            fleet = plan_mix(
                **call, inventory=inventory, budget_usd=budget_usd, folders=folders, reporter=_progress(quiet), stop=stop
            )
            show_mix(fleet, output, form, force=force, quiet=quiet)
            return 0
        found = plan(**call, previous=before, reporter=_progress(quiet), stop=stop)
    except InfeasibleError as error:
        print_conflict(error, form)
        return error.exit_code
    except StoppedError:
        if stop.interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    if output is not None:
        write_whole(output, found.to_json(), force=force)
    if form == "json":
        click.echo(found.to_json(), nl=False)
    else:
        print_plan(found)
        if found.pareto is not None:
            print_front(found.pareto)
        if found.transition is not None:
            print_transition(found.transition, found.certificate.unit)
        if certificate:
            print_certificate(found)
    if not quiet:
        import shlex

        again = shlex.join(["planner", *(sys.argv[1:] or ["plan", str(model), str(hardware)])])
        hint(f"planner explain {output}" if output else f"{again} -o plan.json && planner explain plan.json")
    stopped = (found.certificate.stopped, found.pareto.stopped if found.pareto else None)
    return 130 if "interrupted" in stopped else 0


def _progress(quiet: bool) -> Any:
    """A line on a terminal's stderr; nothing elsewhere."""
    from planner.reporter import Reporter

    if quiet or not sys.stderr.isatty():
        return Reporter()

    class Line(Reporter):
        def progress(self, solved: int, open_nodes: int, gap: float | None) -> None:
            text = "no plan yet" if gap is None else f"gap {gap:.2%}"
            click.echo(f"\r{solved} placements solved, {open_nodes} open, {text}   ", err=True, nl=False)

        def finished(self, objective: float, bound: float) -> None:
            click.echo("\r" + " " * 70 + "\r", err=True, nl=False)

    return Line()
