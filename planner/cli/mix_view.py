"""``planner plan --inventory``: a fleet for a terminal, as JSON, or written with its plans into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from planner.cli.common import hint, new_table, number, print_table
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.plans.mix import Deployment, Mix, PoolUse


def check_folder(folder: Path, *, force: bool) -> None:
    """``InputError`` if results cannot go into ``folder``: it is made if there is none, and must else be an empty one."""
    if folder.exists() and not folder.is_dir():
        raise InputError("is not a folder", where=str(folder), mend="with --inventory, -o names a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise InputError("is not empty", where=str(folder), mend="choose another name or add --force")
    if not folder.exists() and not folder.parent.is_dir():
        raise InputError("cannot be written: its folder does not exist", where=str(folder), mend="make it first")


def write_mix(mix: Mix, folder: Path, *, force: bool) -> Mix:
    """The fleet as ``mix.json`` and each of its plans in a file beside it; returned with the names of those files."""
    from planner.documents import write_whole
    from planner.plans.numbers import to_json

    folder.mkdir(exist_ok=True)
    pools = []
    for pool in mix.pools:
        deployments = []
        for one in pool.deployments:
            name = f"{pool.id}-{one.units}.json"
            write_whole(folder / name, to_json(one.plan), force=force)
            deployments.append(one.model_copy(update={"plan": None, "file": name}))
        pools.append(pool.model_copy(update={"deployments": deployments}))
    named = mix.model_copy(update={"pools": pools})
    write_whole(folder / "mix.json", named.to_json(), force=force)
    return named


def show_mix(mix: Mix, folder: Path | None, form: str, *, force: bool, quiet: bool) -> None:
    """Write and print a fleet."""
    named = mix if folder is None else write_mix(mix, folder, force=force)
    if form == "json":
        click.echo(named.to_json(), nl=False)
    else:
        print_mix(named)
    if not quiet and folder is not None:
        first = next((one.file for pool in named.pools for one in pool.deployments), None)
        hint(f"planner verify {folder / first}" if first else "loosen the limits")


def print_mix(mix: Mix) -> None:
    """Verdict, pools, deployments, limits."""
    from planner.cli.plan_view import say

    asked = "" if mix.demand_requests_per_s is None else f" ({number(mix.demand_requests_per_s)} asked)"
    say(
        f"{mix.model} on inventory {mix.inventory}, workload {mix.workload}: {number(mix.usd_per_hour)} USD an hour, "
        f"up to {number(mix.requests_per_s)} requests/s{asked}, {number(mix.usd_per_million_tokens)} USD per million tokens, "
        f"{number(mix.capital_usd)} USD to buy"
    )
    click.echo("")
    pools = new_table("pools", "pool", "units", "paid", "load", "requests/s", "USD/h", "capital USD", "deployments")
    for pool in mix.pools:
        numbers = (number(pool.requests_per_s), number(pool.usd_per_hour), number(pool.capital_usd))
        units = f"{pool.units} of {pool.units_available}"
        shapes = "\n".join(_deployment(pool, one) for one in pool.deployments) or "-"
        pools.add_row(pool.id, units, pool.payment, f"{pool.share:.1%}", *numbers, shapes)
    print_table(pools)
    limits = new_table("limits", "limit", "used", "of", "unit")
    for row in mix.limits:
        limits.add_row(row.name, number(row.used), number(row.limit), row.unit)
    print_table(limits)
    gained = "USD an hour less" if mix.objective == "cost" else "requests/s more"
    for row in mix.limits:
        if row.worth is not None and row.worth.gain > 0.0:
            gain = f"{number(row.worth.gain)} {gained}, {number(row.worth.per_unit)} a {row.unit.removesuffix('s')}"
            say(f"{row.name}: {number(row.worth.step)} {row.unit} more would be worth {gain}")
    state = "proved" if mix.proved else "not proved"
    say(
        f"{state}: {mix.value:.6g} {mix.unit}, bound {mix.bound:.6g}, gap {mix.gap:.4%} over all fleets of deployments of up to "
        f"{mix.most_units} units each; against the model, not the machine"
    )


def _deployment(pool: PoolUse, one: Deployment) -> str:
    shapes = " + ".join(
        f"{p.replicas} x tp{p.configuration.tp} dp{p.configuration.attention_dp} ep{p.configuration.ep} pp{p.configuration.pp}"
        for p in one.pools
    )
    away = ", ".join(f"{number(size / 1e9)} GB in {tier}" for tier, size in list(one.stored_bytes.items())[1:])
    return f"{one.count} on {one.units} {'unit' if one.units == 1 else 'units'}: {shapes}" + (f", {away}" if away else "")
