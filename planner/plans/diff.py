"""What differs between two plans: inputs, configuration, placement, prediction, cost and certificate, as plain data.

Costs are held against one another only where both plans reckon them on one price basis in one currency; else each is shown with
its basis and no ratio is formed. Intervals are those of the plans: how far their errors are shared is not known here, so a ratio
is that of the expected values and has no interval (``planner compare`` draws shared errors together).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from planner.plans.schema import Interval, Plan, Pool

FIGURES = {
    "output_tokens_per_s": "tokens/s",
    "output_tokens_per_s_per_device": "tokens/s",
    "tokens_per_s_per_user": "tokens/s",
    "ttft_ms": "ms",
    "tpot_ms": "ms",
}
"""Intervals of a prediction, with their units."""
STREAMS = ("input_hit", "input_miss", "output", "blended")
CERTIFICATE = ("objective", "unit", "bound", "gap", "gap_allowed", "proved", "stopped", "meaning")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(_Part):
    """What a plan is a plan of."""

    file: str
    model: str
    hardware: str
    workload: str
    objective: str
    planner: str


class Change(_Part):
    """A value that differs; ``null`` where a plan has none."""

    path: str
    first: Any
    second: Any


class Ends(_Part):
    """10th percentile, expected value and 90th percentile; ``null`` where a plan states none."""

    low: float | None
    expected: float | None
    high: float | None


class Figure(_Part):
    """A figure of both plans; ``ratio`` = second / first of the expected values, ``null`` where that says nothing."""

    figure: str
    unit: str
    first: Ends
    second: Ends
    ratio: float | None


class Amount(_Part):
    """Bytes of an item in a tier, all copies together."""

    pool: str
    item: str
    tier: str
    first_bytes: int
    second_bytes: int


class Costs(_Part):
    """``comparable``: on one basis in one currency; ``why`` not, or what to mind where they are."""

    first_basis: str
    second_basis: str
    comparable: bool
    why: list[str]
    figures: list[Figure]


class Difference(_Part):
    """What differs between two plans. Lists hold what differs; ``prediction`` and ``cost`` all their figures if one differs."""

    same: bool
    first: Named
    second: Named
    notes: list[str]
    inputs: list[Change]
    versions: list[Change]
    configuration: list[Change]
    placement_by: Literal["item", "kind"]
    placement: list[Amount]
    prediction: list[Figure]
    cost: Costs | None
    certificate: list[Change]
    bottlenecks: list[Change]


def difference(first: Plan, second: Plan, names: tuple[str, str] = ("first", "second")) -> Difference:
    """Everything in which ``second`` differs from ``first``."""
    a, b = first.to_data(), second.to_data()
    by, moved = _placement(first, second)
    return Difference(
        same=a == b,
        first=_named(first, names[0]),
        second=_named(second, names[1]),
        notes=_notes(first, second),
        inputs=list(_inputs(first, second)),
        versions=list(_leaves(first.versions, second.versions, "")),
        configuration=list(_leaves(_shape(first), _shape(second), "")),
        placement_by=by,
        placement=moved,
        prediction=_prediction(first, second) if a["prediction"] != b["prediction"] else [],
        cost=_cost(first, second) if a["cost"] != b["cost"] else None,
        certificate=list(_leaves(_certificate(first), _certificate(second), "")),
        bottlenecks=list(_leaves(_bottlenecks(first), _bottlenecks(second), "")),
    )


def _named(plan: Plan, file: str) -> Named:
    return Named(
        file=file,
        model=plan.model,
        hardware=plan.hardware,
        workload=plan.workload,
        objective=plan.objective,
        planner=plan.versions.get("planner", ""),
    )


def _notes(first: Plan, second: Plan) -> list[str]:
    """What makes two plans answers to different questions."""
    found = []
    if first.model != second.model:
        found.append(f"different models ({first.model}, {second.model}): a token of one is not a token of the other")
    if first.workload != second.workload:
        found.append(f"different workloads ({first.workload}, {second.workload}): lengths, cache hits or limits differ")
    elif first.inputs["workload"] != second.inputs["workload"]:
        found.append(f"the workload {first.workload} differs in what the inputs below say")
    if first.objective != second.objective:
        found.append(f"different objectives ({first.objective}, {second.objective}): each is best by its own")
    for plan in (first, second):
        if not plan.certificate.proved:
            found.append(f"the plan on {plan.hardware} is not proved: a better one may exist")
    return list(dict.fromkeys(found))


def _leaves(first: Any, second: Any, path: str) -> Iterator[Change]:
    """Where two trees of plain data differ, by path."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in dict.fromkeys((*first, *second)):
            yield from _leaves(first.get(key), second.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            name = one.get("id", index) if isinstance(one, dict) else index
            yield from _leaves(one, other, f"{path}.{name}")
    elif first != second:
        yield Change(path=path, first=first, second=second)


def _inputs(first: Plan, second: Plan) -> Iterator[Change]:
    """Leaves of the embedded inputs; of a model, system, workload, runtime or basis of another name only the name."""
    a, b = _by_id(first.inputs), _by_id(second.inputs)
    for path in dict.fromkeys((*a, *b)):
        one, other = a.get(path), b.get(path)
        ids = [part.get("id") if isinstance(part, dict) else None for part in (one, other)]
        if ids[0] != ids[1]:
            yield Change(path=path, first=ids[0], second=ids[1])
        else:
            yield from _leaves(one, other, path)


def _by_id(inputs: dict[str, Any]) -> dict[str, Any]:
    """Parts of the inputs, those with a name of their own apart: ``hardware.mixed.system`` and so on."""
    parts = {key: value for key, value in inputs.items() if key not in ("hardware", "previous")}
    for phase, selection in inputs["hardware"].items():
        parts[f"hardware.{phase}.system"] = selection["system"]
        parts[f"hardware.{phase}"] = {key: value for key, value in selection.items() if key != "system"}
    previous = inputs.get("previous")
    parts["previous"] = None if previous is None else {"id": "a plan to take over from", **previous}
    return parts


def _shape(plan: Plan) -> dict[str, Any]:
    """How the plan serves."""
    return {
        "serving": plan.mode,
        "units": {row.hardware: row.units for row in plan.units},
        "idle devices": plan.idle_devices,
        **{
            f"{pool.phase} pool": {
                "hardware": pool.hardware,
                "replicas": pool.replicas,
                "devices": pool.devices,
                **pool.configuration.model_dump(mode="json"),
                "weights": ", ".join(pool.dtypes["weights"]),
                "kv layout": pool.dtypes["kv_layout"],
            }
            for pool in plan.pools
        },
    }


def _placement(first: Plan, second: Plan) -> tuple[Literal["item", "kind"], list[Amount]]:
    """Bytes by pool, item and tier where they differ: of items if both plans cut the layers alike, else of kinds of items."""
    cuts = [{(pool.phase, row.item) for pool in plan.pools for row in pool.placement} for plan in (first, second)]
    alike = cuts[0] == cuts[1]
    a, b = (_bytes(plan.pools, whole=alike) for plan in (first, second))
    rows = [
        Amount(pool=key[0], item=key[1], tier=key[2], first_bytes=a.get(key, 0), second_bytes=b.get(key, 0))
        for key in dict.fromkeys((*a, *b))
    ]
    return ("item" if alike else "kind"), [row for row in rows if row.first_bytes != row.second_bytes]


def _bytes(pools: list[Pool], *, whole: bool) -> dict[tuple[str, str, str], int]:
    found: dict[tuple[str, str, str], int] = {}
    for pool in pools:
        for row in pool.placement:
            key = (pool.phase, row.item if whole else row.item.rpartition(": ")[2], row.tier)
            found[key] = found.get(key, 0) + row.bytes
    return found


def _prediction(first: Plan, second: Plan) -> list[Figure]:
    return [
        _figure(name, unit, *(_ends(getattr(plan.prediction, name)) for plan in (first, second)), comparable=True)
        for name, unit in FIGURES.items()
    ]


def _figure(name: str, unit: str, first: Ends, second: Ends, *, comparable: bool) -> Figure:
    a, b = first.expected, second.expected
    ratio = b / a if comparable and a and b is not None else None
    return Figure(figure=name, unit=unit, first=first, second=second, ratio=ratio)


def _cost(first: Plan, second: Plan) -> Costs:
    a, b = first.cost, second.cost
    bases = tuple(f"{cost.basis} of {cost.as_of}, {cost.currency}" for cost in (a, b))
    comparable = (a.basis, a.currency) == (b.basis, b.currency)
    why = []
    if not comparable:
        why.append(f"price bases are never mixed ({bases[0]}; {bases[1]}): plan both with one --price-basis")
    elif a.as_of != b.as_of:
        why.append(f"prices of different dates: {a.as_of}, {b.as_of}")
    if a.utilisation != b.utilisation:
        why.append(f"different shares of hours in use: {a.utilisation:.1%}, {b.utilisation:.1%}")
    if a.allocation != b.allocation:
        why.append(f"prefill is charged differently: {a.allocation}, {b.allocation}")
    figures = [
        _figure(name, f"{a.currency} per million", one, other, comparable=comparable)
        for name in STREAMS
        for one, other in [(_stream(first, name), _stream(second, name))]
        if (one.expected, other.expected) != (None, None)
    ]
    hour = (_exact(cost.usd_per_hour) for cost in (a, b))
    figures.append(_figure("usd_per_hour", f"{a.currency} an hour", *hour, comparable=comparable))
    figures.append(_figure("devices_paid", "devices", *(_exact(float(cost.devices_paid)) for cost in (a, b)), comparable=True))
    return Costs(first_basis=bases[0], second_basis=bases[1], comparable=comparable, why=why, figures=figures)


def _stream(plan: Plan, name: str) -> Ends:
    """Of a stream alone no interval is stated."""
    return _ends(plan.cost.blended_interval) if name == "blended" else _exact(getattr(plan.cost.usd_per_million, name))


def _ends(interval: Interval) -> Ends:
    return Ends(low=interval.low, expected=interval.expected, high=interval.high)


def _exact(value: float | None) -> Ends:
    return Ends(low=None, expected=value, high=None)


def _certificate(plan: Plan) -> dict[str, Any]:
    row = plan.certificate
    return {
        **{name: getattr(row, name) for name in CERTIFICATE},
        "configurations": row.space["configurations"]["total"],
        "cells closed by a placement": len(row.nodes),
    }


def _bottlenecks(plan: Plan) -> dict[str, str]:
    """The resource that sets most of each phase's time."""
    found: dict[str, str] = {}
    for row in plan.bottlenecks:
        found.setdefault(f"{row.phase} ({row.pool} pool)", f"{row.resource}, {row.share:.0%} of its time")
    return found
