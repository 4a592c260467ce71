"""``planner plan``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import Quantity, Range, format_option, hint, say_file
from planner.cli.html_report import check_html, command_line, html_option, write_plan_html
from planner.cli.plan_options import problem_of, problem_options
from planner.cli.plan_verbose import tell_counts, tell_inputs
from planner.cli.plan_view import print_certificate, print_conflict, print_plan
from planner.cli.progress import working
from planner.cli.stopping import interrupts
from planner.errors import InfeasibleError, InputError, StoppedError

if TYPE_CHECKING:
    from planner.workload import Workload


@click.command("plan")
@click.argument("model", required=False)
@click.argument("hardware", required=False)
@problem_options
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
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Plan for the requests of this file: its mean rate, and as much more as --ttft 2s@p95 needs when they are replayed.",
)
@click.option("--block-tokens", type=click.IntRange(1, 16_777_216), help="Input tokens of a hash of the trace.")
@click.option("--certificate", is_flag=True, help="Print the certificate of the placement beside the plan.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the plan as JSON to this file.")
@html_option
@click.option("--force", is_flag=True, help="Overwrite the output files.")
@format_option
def command(
    model: str | None,
    hardware: str | None,
    certificate: bool,
    output: Path | None,
    html: Path | None,
    force: bool,
    form: str,
    from_plan: str | None,
    max_move_bytes: float | None,
    inventory: Path | None,
    budget_usd: float | None,
    trace: Path | None,
    block_tokens: int | None,
    **given: Any,
) -> int:
    """Find the best deployment of MODEL on HARDWARE.

    MODEL is a catalogue name, a config.json or its folder. HARDWARE is a catalogue name or TOML profile; NAME:N takes
    N of it; prefill=NAME:N,decode=NAME:M makes pools of different hardware.

    \b
    Examples:
      planner plan deepseek-v3 h800-node:2
      planner plan deepseek-v3 h800-node --tpot 1000
      planner plan llama-3.1-70b h100-node --objective latency -o plan.json --html report.html
      planner plan deepseek-v3 h800-node:4 --trace t.jsonl --ttft 5s@p95
    """
    import time

    from planner.api import parse_hardware, plan, plan_mix
    from planner.cli.from_plan import kept, old_workload, stated, verified
    from planner.cli.front_view import print_front
    from planner.cli.mix_view import check_folder, show_mix
    from planner.cli.plan_traffic import plan_for, print_headroom, traffic_of
    from planner.cli.transition_view import print_transition
    from planner.documents import check_target, write_whole
    from planner.plans.read import inputs_of
    from planner.search import Stop

    said = stated(click.get_current_context())
    folders, quiet, time_limit = given["folders"], given["quiet"], given["time_limit"]
    if inventory is not None and (hardware is not None or from_plan is not None):
        raise click.UsageError("--inventory stands in place of HARDWARE and --from.")
    if budget_usd is not None and inventory is None:
        raise click.UsageError("--budget-usd goes with --inventory.")
    if from_plan is None and (model is None or (hardware is None and inventory is None)):
        raise click.UsageError(f"Missing argument '{'MODEL' if model is None else 'HARDWARE'}'.")
    if html is not None and inventory is not None:
        raise click.UsageError("--html is a report on one plan; --inventory makes several (planner explain PLAN --html FILE).")
    check_html(html, force=force, beside=output)
    before = None if from_plan is None else verified(from_plan)
    old = None if before is None or from_plan is None else inputs_of(before, from_plan)
    asked: tuple[str | Workload, ...] = given["workloads"] if old is None or "workloads" in said else (old_workload(old),)
    if trace is None and block_tokens is not None:
        raise InputError("is of a trace", where="--block-tokens", mend="give --trace, or leave it out")
    traffic = traffic_of(trace, block_tokens, given, said, {"--from": from_plan, "--inventory": inventory})
    if traffic is not None:
        asked = (traffic.workload,)
    headroom = None
    if output is not None and inventory is not None:
        check_folder(output, force=force)
    elif output is not None:
        check_target(output, force=force)
    for part in hardware.split(",") if folders and hardware else ():
        say_file(part.rpartition("=")[2], "node", folders)
    stop = Stop(None if time_limit is None else time.monotonic() + time_limit)
    with interrupts(stop):  # until what was found is written
        try:
            call: dict[str, Any] = {
                "model": model,
                "hardware": None if hardware is None else parse_hardware(hardware, folders),
                **problem_of(given, asked),
                "max_move_bytes": max_move_bytes,
            }
            call |= kept(old, said) if old is not None else {}
            tell_inputs(call, hardware, folders)
            with working("planning", call["gap"]) as work:
                if inventory is not None:
                    del call["hardware"], call["objective"]
                    fleet = plan_mix(
                        **call, inventory=inventory, budget_usd=budget_usd, folders=folders, reporter=work, stop=stop
                    )
                elif traffic is not None:
                    headroom = plan_for(traffic, {**call, "stop": stop}, plan, work)
                    found = headroom.plan
                else:
                    found = plan(**call, previous=before, reporter=work, stop=stop)
        except InfeasibleError as error:
            print_conflict(error, form)
            return error.exit_code
        except StoppedError:
            if stop.interrupted:
                raise KeyboardInterrupt from None
            raise
        if inventory is not None:
            show_mix(fleet, output, form, force=force, quiet=quiet)
            return 0
        if output is not None:
            write_whole(output, found.to_json(), force=force)
        if html is not None:
            write_plan_html(html, found, force=force)
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
        if headroom is not None:
            print_headroom(headroom, quiet=quiet, table=form == "table")
    tell_counts(found)
    hint(f"planner explain {output}" if output else f"{command_line()} -o plan.json && planner explain plan.json")
    stopped = (found.certificate.stopped, found.pareto.stopped if found.pareto else None)
    if "interrupted" in stopped:
        return 130
    return 4 if headroom is not None and not headroom.enough else 0
