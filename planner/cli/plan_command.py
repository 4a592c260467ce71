"""``planner plan``."""

from __future__ import annotations

import re
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
    echo_json,
    format_option,
    hint,
    new_table,
    number,
    print_table,
    profiles_option,
    whole_numbers,
)
from planner.errors import InfeasibleError, InputError, StoppedError

if TYPE_CHECKING:
    from planner.plans.schema import Interval, Plan
    from planner.workload import Workload


def _workload(
    name: str | Workload, isl: float | None, osl: float | None, hit: float | None, ttft: float | None, tpot: float | None
) -> Workload:
    """The workload with what the command line says instead."""
    from pydantic import ValidationError

    from planner.documents import explain_validation
    from planner.workload import Lengths, Workload, load_workload

    base = load_workload(name) if isinstance(name, str) else name
    data = base.model_dump()
    shape = {"input_tokens": isl, "output_tokens": osl, "prefix_hit": hit}
    limits = {"ttft_s": ttft, "tpot_s": tpot}
    if any(value is not None for value in shape.values()):
        data["id"] = f"{base.id.removesuffix('-custom')}-custom"
        data["source"] = f"given on the command line, otherwise: {base.source}"
    try:
        for key, value in shape.items():
            if value is not None:
                data[key] = value if key == "prefix_hit" else Lengths(mean=value)
        data |= {key: value for key, value in limits.items() if value is not None}
        data["schema"] = data.pop("schema_version")
        return Workload.model_validate(data)
    except ValidationError as error:
        raise explain_validation(error, "workload options") from None


def _with_experts(workload: Workload, text: str | None) -> Workload:
    """The workload with another use of experts: ``uniform``, ``zipf:EXPONENT`` or a file of loads."""
    from planner.workload.experts import ExpertPopularity, read_popularity

    if text is None:
        return workload
    kind, _, number = text.partition(":")
    if kind == "zipf" and re.fullmatch(r"\d{1,2}(\.\d{1,6})?", number, re.ASCII) and float(number) <= 16:
        use = ExpertPopularity(kind="zipf", exponent=float(number))
    elif kind in ("zipf", "uniform"):
        if number or kind == "zipf":
            raise InputError(f"cannot read {text[:64]!r}", where="--experts", mend="write uniform, zipf:0.8 or a file of loads")
        use = ExpertPopularity()
    else:
        use = read_popularity(Path(text))
    source = f"experts given on the command line, otherwise: {workload.source}"
    name = workload.id if workload.id.endswith("-custom") else f"{workload.id}-custom"
    return workload.model_copy(update={"experts": use, "id": name, "source": source})


def _with_tables(workload: Workload, text: str | None) -> Workload:
    """The workload with another use of the rows of tables: ``uniform`` or ``zipf:EXPONENT``."""
    from planner.architecture import Popularity

    if text is None:
        return workload
    match = re.fullmatch(r"uniform|zipf:(\d{1,2}(?:\.\d{1,6})?)", text, re.ASCII)
    if match is None or float(match[1] or 0.0) > 16.0:
        raise InputError(f"cannot read {text[:64]!r}", where="--table-use", mend="write uniform or zipf:1.0")
    use = Popularity(kind="zipf", exponent=float(match[1])) if match[1] else Popularity(kind="uniform")
    source = f"use of tables given on the command line, otherwise: {workload.source}"
    name = workload.id if workload.id.endswith("-custom") else f"{workload.id}-custom"
    return workload.model_copy(update={"lookups": use, "id": name, "source": source})


def _spare(text: str | None) -> dict[str, Any]:
    """``2`` or ``1:system`` as options."""
    if text is None:
        return {}
    count, _, what = text.partition(":")
    if not count.isascii() or not count.isdigit() or len(count) > 4 or what not in ("", "node", "unit", "system"):
        raise InputError(f"cannot read {text[:64]!r}", where="--spare", mend="write N, N:node, N:unit or N:system")
    return {"spare": int(count), "spare_of": what or "node"}


@click.command("plan")
@click.argument("model", required=False)
@click.argument("hardware", required=False)
@click.option("--devices", type=click.IntRange(1), help="Use at most this many devices.")
@click.option("--workload", default="interactive", show_default=True, help="A workload of the catalogue or a TOML file.")
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
    metavar="N[:node|unit|system]",
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
    type=click.Choice(["intervals"]),
    help="Best plan in the worst case: every figure of profile and runtime at the slow end of its interval at once.",
)
@click.option(
    "--from", "from_plan", metavar="PLAN", help="Take over from this plan: say what must move; what is not said anew stays."
)
@click.option(
    "--max-move-bytes",
    type=Quantity("bytes", "B", "SIZE", 0.0, 1e18),
    help="With --from: the best alternative that moves no more (500GB).",
)
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
    workload: str,
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

    from planner.api import parse_hardware, plan
    from planner.cli.from_plan import kept, old_workload, stated, verified
    from planner.cli.front_view import print_front
    from planner.cli.transition_view import print_transition
    from planner.documents import check_target, write_whole
    from planner.hardware import load_site
    from planner.plans.constraints import parse_constraints
    from planner.plans.read import inputs_of
    from planner.search import Stop

    given = stated(click.get_current_context())
    if from_plan is None and (model is None or hardware is None):
        raise click.UsageError(f"Missing argument '{'MODEL' if model is None else 'HARDWARE'}'.")
    before = None if from_plan is None else verified(from_plan)
    old = None if before is None or from_plan is None else inputs_of(before, from_plan)
    load: str | Workload = workload if old is None or "workload" in given else old_workload(old)
    if output is not None:
        check_target(output, force=force)
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
            "workload": _with_tables(_with_experts(_workload(load, isl, osl, prefix_hit, ttft, tpot), expert_use), table_use),
            "runtime": runtime,
            "prices": price_basis,
            "site": None if site is None else load_site(site, folders=folders),
            "allow_announced": allow_announced,
            "tiers": None if tiers is None else tuple(part.strip() for part in tiers.split(",")),
            "constraints": parse_constraints(pins, bans, constraints_file),
            **_spare(spare),
            "redundant_experts": whole_numbers(redundant_experts, "--redundant-experts", 64),
            "kv_dtype": tuple(part.strip() for part in kv_dtype.split(",")),
            "mtp": "auto" if mtp == "auto" else whole_numbers(mtp, "--mtp", 8),
            **options,
        }
        call |= kept(old, given) if old is not None else {}
        found = plan(**call, previous=before, reporter=_progress(quiet), stop=stop)
    except InfeasibleError as error:
        _print_conflict(error, form)
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
            _print_certificate(found)
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


def _print_conflict(error: InfeasibleError, form: str) -> None:
    click.echo(f"planner: {error}", err=True)
    if form == "json":
        echo_json({"infeasible": True, "message": str(error), "conflict": error.conflict})
        return
    table = new_table("conflict", "member", "what it is", "least relief")
    for member in error.conflict:
        table.add_row(str(member["member"]), str(member["detail"]), str(member["least_relief"]))
    print_table(table)


def _span(interval: Interval) -> tuple[str, str, str]:
    return number(interval.low), number(interval.expected), number(interval.high)


def say(text: str) -> None:
    """A sentence on stdout, wrapped at 100 columns with a hanging indent."""
    import textwrap

    click.echo(textwrap.fill(text, 100, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def print_plan(plan: Plan) -> None:
    """The plan as tables and sentences for a person: verdict first, evidence last."""
    from planner.cli.hardware_notes import assumed, estimates

    certificate, p = plan.certificate, plan.prediction
    cost = plan.cost.blended_interval
    say(
        f"{plan.model} on {plan.hardware}, workload {plan.workload}: {number(cost.expected)} USD per million tokens "
        f"({number(cost.low)} to {number(cost.high)}), {number(p.output_tokens_per_s.expected)} output tokens/s, "
        f"{number(p.tpot_ms.expected)} ms per token, first token after {number(p.ttft_ms.expected)} ms"
    )
    click.echo("")
    pools = new_table(f"{plan.mode} serving", "pool", "instances", "tp", "attn dp", "ep", "pp", "batch/rank", "tokens/pass")
    for pool in plan.pools:
        c = pool.configuration
        numbers = (pool.replicas, c.tp, c.attention_dp, c.ep, c.pp, c.batch_per_rank or "-", c.prefill_tokens_per_rank or "-")
        pools.add_row(f"{pool.phase} ({pool.devices} devices)", *(str(n) for n in numbers))
    print_table(pools)
    prediction = new_table(
        "prediction; low and high are the model's uncertainty (p10, p90)", "figure", "low", "expected", "high", "unit"
    )
    for name, interval, unit in (
        ("output, whole deployment", p.output_tokens_per_s, "tokens/s"),
        ("output per device paid for", p.output_tokens_per_s_per_device, "tokens/s"),
        ("speed of one request", p.tokens_per_s_per_user, "tokens/s"),
        ("time to first token, mean", p.ttft_ms, "ms"),
        ("time per output token, mean", p.tpot_ms, "ms"),
        ("cost, all tokens", cost, "USD per million"),
    ):
        prediction.add_row(name, *_span(interval), unit)
    print_table(prediction)
    memory = new_table(
        "fullest device, GB", "pool", "memory", "usable", "weights", "KV", "buffers", "reserve", "free", "below it"
    )
    for pool in plan.pools:
        m = pool.memory
        below = ", ".join(f"{row['tier']} {row['bytes'] / 1e9:.2f}" for row in m["below"]) or "nothing"
        reserve = sum(m["reserve_bytes"].values())
        cells = [m["usable_bytes"], m["weights_bytes"], m["kv_cache_bytes"], m["staging_bytes"], reserve, m["free_bytes"]]
        memory.add_row(pool.phase, m["tier"], *(f"{value / 1e9:.2f}" for value in cells), below)
    print_table(memory)
    u = plan.cost.usd_per_million
    streams = (("cached input", u.input_hit), ("input", u.input_miss), ("output", u.output), ("all tokens", u.blended))
    price = ", ".join(f"{name} {number(value)}" for name, value in streams)
    say(
        f"cost, USD per million tokens: {price}; {number(plan.cost.usd_per_hour)} USD an hour for {plan.cost.devices_paid} "
        "devices "
        f"(basis {plan.cost.basis} of {plan.cost.as_of}, in use {plan.cost.utilisation:.1%} of the time)"
    )
    for item in plan.cost.capital:
        say(f"  capital cost of {item['hardware']}: {item['capex_usd']:,.0f} USD (grade {item['grade']}, {item['as_of']})")
    for sentence in estimates(plan):
        say(f"  {sentence}")
    d, site = plan.cost.defaults, plan.inputs["prices"].get("site")
    at_site = f" (electricity, PUE and life of site {site})" if site else ""
    say(
        f"  owned hour: capital at {d['cost_of_capital']:.1%} a year over {d['life']:g} years, {d['residual_value']:.0%} left, "
        f"installation {d['installation']:.0%}, maintenance {d['maintenance']:.0%} and staff {d['staff']:.0%} of it a year; "
        f"{d['electricity']:g} USD/kWh at {d['power_utilisation']:.0%} of stated power and PUE {d['pue']:g}{at_site}"
    )
    lines = list(plan.explanation["summary"][1:])
    if plan.explanation["below_device_memory"] != ["everything lies in device memory"]:
        lines += plan.explanation["below_device_memory"]
    lines += (
        plan.explanation["conversions"]
        + plan.explanation["limits"]
        + plan.explanation["resilience"]
        + plan.explanation["worth"]
        + plan.explanation["defaults"]
    )
    if plan.idle_devices:
        lines.append(f"idle devices, paid for: {plan.idle_devices}")
    lines += assumed(plan)
    weak = len(plan.provenance["estimates"])
    lines.append(
        f"lowest grade of evidence: {plan.provenance['lowest_grade']} "
        f"({len(plan.provenance['sources'])} sources, {weak} figures of grade C or D; planner explain lists them)"
    )
    count = certificate.space["configurations"]["total"]
    state = "proved" if certificate.proved else f"not proved{f' (stopped: {certificate.stopped})' if certificate.stopped else ''}"
    low, _, high = _span(p.output_tokens_per_s)
    lines.append(
        f"{state}: {certificate.objective:.6g} {certificate.unit}, bound {certificate.bound:.6g}, gap {certificate.gap:.4%} over "
        f"{count:,} configurations; against the model, not the machine: expect {low} to {high} output tokens/s"
    )
    for line in lines:
        say(line)


def _print_certificate(plan: Plan) -> None:
    click.echo(
        f"certificate: {len(plan.certificate.nodes)} cells closed by a placement's basis, the rest by the bound without placement"
    )
    for name, basis in plan.certificate.nodes.items():
        click.echo(f"  {name}: {basis}")
    for pool in plan.pools:
        click.echo(f"  {pool.phase} pool: {pool.placement_basis or 'everything resident, no basis needed'}")
