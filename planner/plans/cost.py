"""What a deployment costs, line by line: its hour by pool and cause, its tokens by stream, and what that rests on.

Every device paid for stands in one line: those of a pool, those kept idle for when one fails (``spare``), and the rest of the
units (``idle``). Lines sum to the hour, causes to their line. A prefix cache has no line of its own: the memory that holds it is
part of its pool's machines, whose hour is charged once; ``of_which`` says what share of that memory it takes, and
the part of the hour that this is where the profile states what the memory costs (a ``[[capex_line]]`` of its id or kind). A drive
is paid for by room and time over its life like all else; what is written to it is in ``explanation.tiers``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from planner.economics import HourlyCost
from planner.plans.context import Context, PoolContext
from planner.plans.hours import Terms, terms_of
from planner.plans.intervals import combine, hour_moves
from planner.plans.operate import Operation
from planner.plans.prefix_rows import prefix_rows
from planner.plans.worth import blended_usd, costs

_OWNED = ("capital", "electricity", "maintenance", "staff")
_COLOCATED = ("capital", "colocation", "maintenance", "staff")


def causes_of(terms: Terms) -> tuple[str, ...]:
    """What an hour consists of on these terms."""
    if terms.rented:
        return ("rent",)
    return _OWNED if terms.prices.colocation is None else _COLOCATED


def cost_of(context: Context, operation: Operation, others: list[tuple[str, str, Operation]]) -> dict[str, Any]:
    """The plan's ``cost``; ``others``: the deployment with each group of uncertain figures at either end."""
    terms, split = terms_of(context.inputs), costs(context, operation)
    workload = context.inputs.workload
    reasons = {}
    if split.input_hit is None:
        reasons["input_hit"] = "the workload has no cached input tokens"
    expected = split.blended
    moved = [
        blended_usd(context, o.usd_per_hour, o.requests_per_s) if o.requests_per_s > 0 else float("inf") for _, _, o in others
    ]
    moved += [blended_usd(context, hour, operation.requests_per_s) for _, hour in hour_moves(context, operation.units)]
    rents = [_rent(pool, terms) for pool in context.pools.values()] if terms.rented else []
    row = {
        "usd_per_million": {
            "input_hit": split.input_hit,
            "input_miss": split.input_miss,
            "output": split.output,
            "blended": split.blended,
        },
        "null_reasons": reasons,
        "blended_interval": combine(expected, moved),
        "basis": terms.name,
        "currency": terms.prices.currency,
        "as_of": min((rent["as_of"] for rent in rents), default=terms.prices.as_of.isoformat()),
        "utilisation": context.utilisation,
        "allocation": context.inputs.options.allocation,
        "usd_per_hour": operation.usd_per_hour,
        "devices_paid": operation.devices_paid,
        "input_share": operation.input_share,
        "tokens_per_request": {
            "input_hit": workload.hit_tokens,
            "input_miss": workload.miss_tokens,
            "output": workload.output_tokens.mean,
        },
        "lines": _lines(context, operation, terms),
        "capital": [] if terms.rented else [_capital(pool) for pool in context.pools.values()],
        "defaults": _defaults(context, terms),
    }
    return row | ({"rents": rents} if rents else {})


def _capital(pool: PoolContext) -> dict[str, Any]:
    system = pool.system
    return {
        "hardware": system.id,
        "capex_usd": system.capex.value,
        "capex_basis": system.capex_basis,
        "grade": system.capex.grade,
        "as_of": str(system.capex.as_of),
        "usd_per_hour": pool.usd_per_hour,
    }


def _rent(pool: PoolContext, terms: Terms) -> dict[str, Any]:
    quote = terms.quote(pool.system)
    offer = quote.offer
    return {
        "hardware": pool.system.id,
        "basis": offer.basis,
        "provider": offer.provider,
        "per": offer.per,
        "quoted_usd_per_hour": offer.usd_per_hour.value,
        "usd_per_hour": {"low": quote.low, "expected": quote.usd_per_hour, "high": quote.high},
        "offers": quote.offers,
        "as_of": quote.as_of.isoformat(),
        "grade": offer.usd_per_hour.grade,
        "source": offer.usd_per_hour.source,
    }


def _defaults(context: Context, terms: Terms) -> dict[str, float]:
    """Values of the price basis that the hour or the price of a token rests on."""
    prices = terms.prices
    names = () if terms.rented else [name for name in type(prices).model_fields if hasattr(getattr(prices, name), "grade")]
    return {name: getattr(prices, name).value for name in names} | {"utilisation": context.utilisation}


def _lines(context: Context, operation: Operation, terms: Terms) -> list[dict[str, Any]]:
    """One line a pool, then what no pool uses of each kind of hardware."""
    kept = {row["pool"]: row for row in prefix_rows(operation)}
    rows = []
    for state in operation.pools:
        pool, phase = state.pool, state.decision.phase
        row = _line(phase, pool, state.decision.devices, terms)
        if phase in kept:
            row["of_which"] = [_cache(pool, state.decision.devices, tier, terms) for tier in kept[phase]["tiers"]]
        rows.append(row)
    used = dict.fromkeys(context.pools, 0)
    for state in operation.pools:
        used[state.decision.phase if context.separate else "mixed"] += state.decision.devices
    for count, (phase, pool) in zip(operation.units, context.pools.items(), strict=True):
        idle = count * pool.unit_devices - used[phase]
        spare = min(pool.spare_devices, idle)
        rows += [_line(name, pool, n, terms) for name, n in (("spare", spare), ("idle", idle - spare)) if n]
    return rows


def _line(name: str, pool: PoolContext, devices: int, terms: Terms) -> dict[str, Any]:
    hour = terms.hour(pool.system)
    usd = {cause: value * devices / pool.system.devices for cause, value in asdict(hour).items() if cause in causes_of(terms)}
    total = hour.total * devices / pool.system.devices
    return {"pool": name, "hardware": pool.system.id, "devices": devices, "usd_per_hour": total, "by_cause": usd}


def _cache(pool: PoolContext, devices: int, tier: dict[str, Any], terms: Terms) -> dict[str, Any]:
    """What a prefix cache takes of one memory of the devices of its pool."""
    memory = pool.system.tier(tier["tier"])
    room = memory.usable.value / memory.devices_sharing * devices
    share = tier["bytes"] / room
    line = next((line for line in pool.system.capex_lines if line.id in (memory.id, memory.kind)), None)
    usd, why = None, ""
    if terms.rented:
        why = "the rent has it in it"
    elif line is None:
        why = "what this memory costs apart from the rest of the system is not stated"
    else:
        part = line.capex.value / pool.system.capex.value * devices / pool.system.devices
        usd = _recurring(terms.hour(pool.system)) * part * share
    return {"item": "prefix cache", "tier": memory.id, "bytes": tier["bytes"], "share": share, "usd_per_hour": usd, "reason": why}


def _recurring(hour: HourlyCost) -> float:
    """What recurs with the capital cost."""
    return hour.capital + hour.maintenance + hour.staff
