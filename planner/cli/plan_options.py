"""The options that say what is to be planned: of ``planner plan`` and of what plans many times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import TOKENS, Day, Quantity, Range, profiles_option, whole_numbers
from planner.cli.limits import TRAFFIC_TIME
from planner.cli.plan_arguments import spare_of

if TYPE_CHECKING:
    from planner.workload import Workload

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--devices", type=click.IntRange(1), help="Use at most this many devices of each kind."),
    click.option(
        "--workload",
        "workloads",
        multiple=True,
        default=("interactive",),
        show_default="interactive",
        help="A workload of the catalogue or a TOML file; several with --robust workloads.",
    ),
    click.option("--isl", type=TOKENS, help="Input tokens, in place of the workload's (128k works)."),
    click.option("--osl", type=TOKENS, help="Output tokens, in place of the workload's."),
    click.option("--prefix-hit", type=Range(0, 1, max_open=True), help="Share of input tokens found in cache."),
    click.option("--ttft", type=TRAFFIC_TIME, help="Limit on the expected mean time to first token (2s; bare numbers are ms)."),
    click.option(
        "--tpot", type=TRAFFIC_TIME, help="Limit on the expected mean time per output token (50ms; bare numbers are ms)."
    ),
    click.option("--concurrency", type=click.IntRange(1), help="At most this many requests in flight."),
    click.option(
        "--rate", type=Quantity("per_s", "/s", "RATE", 0.0, 1e12), help="Requests to serve in the hours of service (50/s)."
    ),
    click.option("--tokens-per-day", type=Range(0, 1e24, min_open=True), help="Input and output tokens to serve in a day."),
    click.option(
        "--spare",
        metavar="N[:node|unit|rack|pod]",
        help="Keep N nodes (purchasable units, systems) of each pool idle for when one fails.",
    ),
    click.option(
        "--objective",
        type=click.Choice(["cost", "throughput", "latency"]),
        default="cost",
        show_default=True,
        help="Least USD per token, most tokens/s per device, or least TPOT.",
    ),
    click.option("--tiers", help="Memories that may be used, by kind, role or id (hbm,host)."),
    click.option("--runtime", default="generic", show_default=True, help="A runtime of the catalogue or a TOML file."),
    click.option(
        "--calibration",
        type=click.Path(path_type=Path),
        help="A file of planner calibrate for the runtime, in place of the built-in calibration.",
    ),
    click.option("--weight-dtype", help="Store the layers' matrices in this dtype (bf16, fp8, int8, fp4, int4)."),
    click.option(
        "--kv-dtype",
        default="bf16",
        show_default=True,
        help="Dtype of the KV cache (bf16, fp8), or several to choose from: bf16,fp8.",
    ),
    click.option(
        "--mtp",
        default="0",
        show_default=True,
        help="Draft tokens per step, several to choose from (0,1,2), or auto: all there are.",
    ),
    click.option(
        "--experts", "expert_use", help="How tokens spread over experts: uniform, zipf:0.8, or a JSON or CSV file of loads."
    ),
    click.option("--table-use", help="How reads spread over the rows of lookup tables: uniform, or zipf:1.0."),
    click.option(
        "--redundant-experts",
        default="0",
        show_default=True,
        help="Expert slots of a rank for copies, or several to choose from: 0,1.",
    ),
    click.option(
        "--price-basis",
        default="owned",
        show_default=True,
        help="owned, or a TOML file like it; or rented: tco, rent_od, rent_1y, rent_3y, rent_spot, as HARDWARE's profile has it.",
    ),
    click.option("--price-date", type=Day(), help="Rents of this day, or the newest before it; the newest known by default."),
    click.option("--site", help="Electricity, PUE and life of this site, in place of the basis's: cn-west-hub, or a TOML file."),
    click.option("--utilisation", type=Range(0, 1, min_open=True), help="Share of hours in which the load is served."),
    click.option("--max-power-kw", type=Range(0, 1e12, min_open=True), help="Stated power of all units used."),
    click.option("--max-usd-per-hour", type=Range(0, 1e12, min_open=True), help="Cost of all units used."),
    click.option(
        "--allocation",
        type=click.Choice(["miss_only", "all_input", "flops"]),
        default="miss_only",
        show_default=True,
        help="Who pays for prefill: computed tokens, all input tokens, or by FLOPs.",
    ),
    profiles_option,
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="PATH=VALUE",
        help='Replace a figure of the hardware: ascend-950dt.memory.hbm.read="4.0 TB/s", or 3.6..4.0..4.2 TB/s.',
    ),
    click.option("--allow-announced", is_flag=True, help="Accept parts that do not ship yet."),
    click.option(
        "--pin",
        "pins",
        multiple=True,
        metavar="RULE",
        help="Keep what matches: tp=8, decode.ep=32,64, batch_per_rank<=64, 'KV cache@hbm'.",
    ),
    click.option("--ban", "bans", multiple=True, metavar="RULE", help="Rule out what matches: pp=8, 'routed experts@ssd'."),
    click.option("--constraints", "constraints_file", help="A TOML file of [[constraint]] tables with name and pin or ban."),
    click.option(
        "--pareto",
        type=click.IntRange(2, 50),
        metavar="N",
        help="Also the front of cost (or throughput) against speed of one user, in up to N points with a proved gap each.",
    ),
    click.option(
        "--slo-on",
        type=click.Choice(["expected", "high"]),
        default="expected",
        show_default=True,
        help="Let --ttft and --tpot bind the expected value, or the 90th percentile of the model's uncertainty.",
    ),
    click.option(
        "--robust",
        type=click.Choice(["intervals", "workloads"]),
        help="Best plan in the worst case: every figure of profile and runtime at the slow end of its interval at once; or one "
        "deployment for several --workload, best for the one that fares worst.",
    ),
    click.option("--gap", type=Range(0, 1), default=0.005, show_default=True, help="Gap at which a plan counts as proved."),
    click.option(
        "--time-limit", type=Range(0, 1e9, min_open=True), help="Stop after this many seconds with the best plan so far."
    ),
    click.option("--quiet", is_flag=True, help="No progress and no hints."),
)


def problem_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, in the order in which help shows them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def problem_of(given: dict[str, Any], workloads: Sequence[str | Workload]) -> dict[str, Any]:
    """What the options say as arguments of ``planner.plan``, without model and hardware. ``given``: parameters by name, as click
    passes them; those of the workload are laid over each of ``workloads``."""
    from planner.hardware import load_site
    from planner.plans.constraints import parse_constraints
    from planner.workload.arguments import with_experts, with_tables, workload_of

    asked = dict(given)
    for name in ("workloads", "quiet", "time_limit"):
        del asked[name]
    shape = [asked.pop(name) for name in ("isl", "osl", "prefix_hit", "ttft", "tpot")]
    use, tables = asked.pop("expert_use"), asked.pop("table_use")
    folders, site, tiers, mtp = asked.pop("folders"), asked.pop("site"), asked.pop("tiers"), asked.pop("mtp")
    return {
        "workload": [with_tables(with_experts(workload_of(one, *shape), use), tables) for one in workloads],
        "prices": asked.pop("price_basis"),
        "site": None if site is None else load_site(site, folders=folders),
        "tiers": None if tiers is None else tuple(part.strip() for part in tiers.split(",")),
        "constraints": parse_constraints(asked.pop("pins"), asked.pop("bans"), asked.pop("constraints_file")),
        **spare_of(asked.pop("spare")),
        "redundant_experts": whole_numbers(asked.pop("redundant_experts"), "--redundant-experts", 64),
        "kv_dtype": tuple(part.strip() for part in asked.pop("kv_dtype").split(",")),
        "mtp": "auto" if mtp == "auto" else whole_numbers(mtp, "--mtp", 8),
        **asked,
    }
