"""What ``planner plan`` prints: the plan for a person, its certificate, and a conflict."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from planner.cli.common import echo_json, new_table, number, print_table
from planner.cli.common import say as say

if TYPE_CHECKING:
    from rich.table import Table

    from planner.errors import InfeasibleError
    from planner.plans.schema import Interval, Plan, RentRow


def print_conflict(error: InfeasibleError, form: str) -> None:
    click.echo(f"planner: {error}", err=True)
    if form == "json":
        from planner.plans.answers import conflict

        echo_json(conflict(error))
        return
    table = new_table("conflict", "member", "what it is", "least relief")
    for member in error.conflict:
        table.add_row(str(member["member"]), str(member["detail"]), str(member["least_relief"]))
    print_table(table)


def _span(interval: Interval) -> tuple[str, str, str]:
    return number(interval.low), number(interval.expected), number(interval.high)


def _arrivals(plan: Plan) -> Table:
    """Means at loads below capacity."""
    table = new_table(
        "requests that come at random, means", "load", "requests/s", "first token, ms", "per token, ms", "decoding at once"
    )
    for row in plan.prediction.random_arrivals.loads:
        times = (None if time is None else time.expected for time in (row.ttft_ms, row.tpot_ms))
        share = f"{row.share:.0%}" if row.share < 0.995 else f"{row.share:.1%}"
        table.add_row(share, number(row.requests_per_s), *(number(time) for time in times), number(row.decoding))
    return table


def print_plan(plan: Plan) -> None:
    """The plan as tables and sentences for a person: verdict first, evidence last."""
    from planner.cli.hardware_notes import assumed, estimates

    certificate, p = plan.certificate, plan.prediction
    cost = plan.cost.blended_interval
    asked = plan.inputs["options"].get("rate") or plan.inputs["options"].get("tokens_per_day")
    if asked and p.load != "random arrivals":
        say(f"NOT carried if it comes at random: {number(p.requests_per_s)} requests/s; the times below are of full batches")
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
    print_table(_arrivals(plan))
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
    if plan.robust is not None:
        print_table(_set_of(plan))
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
    for rent in plan.cost.rents or ():
        say(f"  {_rent(rent)}")
    for sentence in estimates(plan):
        say(f"  {sentence}")
    if plan.cost.rents is None:
        say(f"  {_owned(plan)}")
    lines = list(plan.explanation["summary"][1:])
    if plan.explanation["below_device_memory"] != ["everything lies in device memory"]:
        lines += plan.explanation["below_device_memory"]
    lines += (
        plan.explanation["conversions"]
        + plan.explanation["limits"]
        + plan.explanation.get("robust", [])
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
        f"({len(plan.provenance['sources'])} sources, {weak} figures of grade C or D; explain lists the weakest, the JSON all)"
    )
    count = certificate.space["configurations"]["total"]
    state = "proved" if certificate.proved else f"not proved{f' (stopped: {certificate.stopped})' if certificate.stopped else ''}"
    low, _, high = _span(p.output_tokens_per_s)
    lines.append(
        f"{state}: {certificate.objective:.6g} {certificate.unit}, bound {certificate.bound:.6g}, gap {certificate.gap:.4%} over "
        f"{count:,} configurations; {certificate.meaning.removeprefix('proved ')}: expect {low} to {high} output tokens/s"
    )
    for line in lines:
        say(line)


def _rent(row: RentRow) -> str:
    """The offer that a system's hour is charged at."""
    each = f"{number(row.quoted_usd_per_hour)} USD an hour of a {row.per}"
    spread = f"{number(row.usd_per_hour.low)} to {number(row.usd_per_hour.high)}"
    offers = f"the {row.offers} offers of the half year before it" if row.offers > 1 else "its interval"
    return (
        f"rent of {row.hardware}: {each} ({row.basis}, {row.provider}, grade {row.grade}, {row.as_of}: {row.source}), "
        f"{number(row.usd_per_hour.expected)} for the system; {offers}: {spread}. Electricity, upkeep and staff are in it"
    )


def _owned(plan: Plan) -> str:
    """What an owned hour consists of."""
    d, site = plan.cost.defaults, plan.inputs["prices"].get("site")
    at_site = f" (electricity, PUE and life of site {site})" if site else ""
    power = (
        f"{d['electricity']:g} USD/kWh at {d['power_utilisation']:.0%} of stated power and PUE {d['pue']:g}{at_site}"
        if "electricity" in d
        else f"colocation at {d['colocation']:g} USD a month and kW of stated power, electricity in it"
    )
    return (
        f"owned hour: capital at {d['cost_of_capital']:.1%} a year over {d['life']:g} years, {d['residual_value']:.0%} left, "
        f"installation {d['installation']:.0%}, maintenance {d['maintenance']:.0%} and staff {d['staff']:.0%} of it a year; "
        f"{power}"
    )


def _set_of(plan: Plan) -> Table:
    """How every workload of a set fares."""
    heads = ("workload", "batch/rank", "tokens/s", "per device", "TTFT ms", "TPOT ms", "USD/Mtok", "")
    table = new_table("one deployment for all, each workload at its own batch", *heads)
    for row in plan.robust or ():
        p = row.prediction
        figures = (p.output_tokens_per_s, p.output_tokens_per_s_per_device, p.ttft_ms, p.tpot_ms)
        cells = [number(interval.expected) for interval in figures]
        batch = str(row.pools[-1].configuration.batch_per_rank)
        decides = "decides" if row.workload == plan.workload else ""
        table.add_row(row.workload, batch, *cells, number(row.usd_per_million.blended), decides)
    return table


def print_certificate(plan: Plan) -> None:
    click.echo(
        f"certificate: {len(plan.certificate.nodes)} cells closed by a placement's basis, the rest by the bound without placement"
    )
    for name, basis in plan.certificate.nodes.items():
        click.echo(f"  {name}: {basis}")
    for pool in plan.pools:
        click.echo(f"  {pool.phase} pool: {pool.placement_basis or 'everything resident, no basis needed'}")
