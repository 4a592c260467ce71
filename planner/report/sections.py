"""The sections of a report, each a function from studies to what the page shows. A new one is one more entry of ``SECTIONS``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.report.content import Chart, Section, Table
from planner.report.experts import Heat, heat_of
from planner.report.figures import (
    content_colour,
    front_figure,
    heat_figure,
    occupancy_figure,
    steps_figure,
    tornado_figure,
    traffic_figure,
)
from planner.report.front import points_of
from planner.report.numbers import NOTHING, change, number, share, size, span
from planner.report.occupancy import occupancy_of
from planner.report.steps import PARTS, steps_of
from planner.report.study import Study
from planner.report.timeline import timeline_section
from planner.report.traffic import traffic_of
from planner.report.uncertainty import elasticities_of, swings_of, unserved_of

MOST_SWINGS = 12
"""Groups drawn in a tornado; the table has all."""

Builder = Callable[[Sequence[Study]], Section | None]


def front_section(studies: Sequence[Study]) -> Section:
    """Cost against speed of one user."""
    found = [(study, points_of(study)) for study in studies]
    rows = tuple(
        (
            point.label,
            number(point.usd),
            span(point.usd_low, point.usd_high) if point.chosen else NOTHING,
            number(point.speed),
            span(point.speed_low, point.speed_high) if point.chosen else NOTHING,
            number(point.per_device),
            number(point.tpot_ms),
            number(point.ttft_ms),
        )
        for _, points in found
        for point in points
    )
    columns = (
        "deployment", "USD per Mtok", "p10 to p90", "tokens/s, one request", "p10 to p90", "per device", "TPOT ms", "TTFT ms",
    )  # fmt: skip
    fronts = any(len(points) > 1 for _, points in found)
    text = "Down and to the right is better: cheaper tokens, and more of them a second for one request. Whiskers reach from the "
    text += "10th to the 90th percentile of the model's uncertainty."
    if not fronts:
        text += " Each plan is one point; --pareto N adds fronts."
    best = min((point for _, points in found for point in points if point.chosen), key=lambda point: point.usd)
    chart = Chart(
        "front",
        "USD per million tokens against tokens/s of one request",
        f"Scatter plot of {len(rows)} deployments; cheapest of the plans is {best.label.removesuffix(': the plan')} "
        f"at {number(best.usd)} USD per million tokens and {number(best.speed)} tokens/s",
        front_figure([(study.colour, study.symbol, points) for study, points in found]),
        Table("Cost and speed of each deployment", columns, rows, frozenset(range(1, 8))),
        380 + 22 * -(-len(found) // 3),
    )
    return Section("front", "Cost against speed", (text,), (chart,))


def occupancy_section(studies: Sequence[Study]) -> Section:
    """Treemaps of the memories."""
    charts = []
    for study in studies:
        rows = occupancy_of(study)
        table = Table(
            f"What lies in which memory, {study.label}",
            ("content", "pool", "memory", "bytes", "of the memory"),
            tuple((row.kind, row.pool, row.tier, size(row.bytes), share(row.share)) for row in rows),
            frozenset({3, 4}),
        )
        largest = max(rows, key=lambda row: row.bytes)
        label = f"Treemap of the memories of {study.label}; largest part: {largest.kind} in {largest.tier}, {size(largest.bytes)}"
        colours: dict[str, list[str]] = {}
        for kind in dict.fromkeys(row.kind for row in rows):
            colours.setdefault(content_colour(kind), []).append(kind)
        legend = tuple((", ".join(kinds), colour) for colour, kinds in colours.items())
        figure = occupancy_figure(rows)
        charts.append(Chart(f"occupancy-{study.key}", study.label, label, figure, table, 360, study.colour, legend))
    text = (
        "Bytes of all devices of a pool together, by memory and content. What is reserved (context, graphs, buffers) counts as "
    )
    text += "on the fullest device; what is left is free. Free room of other memories is not drawn."
    return Section("occupancy", "What lies in which memory", (text,), tuple(charts))


def traffic_section(studies: Sequence[Study]) -> Section:
    """Sankeys of bytes a pass."""
    charts = []
    for study in studies:
        flows = traffic_of(study)
        for pool, phase in dict.fromkeys((flow.pool, flow.phase) for flow in flows):
            mine = [flow for flow in flows if (flow.pool, flow.phase) == (pool, phase)]
            table = Table(
                f"Bytes of a device in a {phase} pass, {study.label}",
                ("from", "to", "what", "bytes"),
                tuple((flow.source, flow.target, flow.what, size(flow.bytes)) for flow in mine),
                frozenset({3}),
            )
            most = max(mine, key=lambda flow: flow.bytes)
            title = f"{study.label}, {phase}"
            label = f"Flow diagram of a {phase} pass of {study.label}; most flows from {most.source} to {most.target}: "
            label += f"{most.what}, {size(most.bytes)}"
            key, wide = f"traffic-{study.key}-{pool}-{phase}", len({flow.source for flow in mine}) > 2
            charts.append(Chart(key, title, label, traffic_figure(mine), table, 340, study.colour, (), wide))
    text = (
        "Bytes that one device of the slowest stage reads, writes and sends in one pass (a decode step, or one prefill chunk). "
    )
    text += "It receives over networks as much as it sends."
    return Section("traffic", "Traffic of a step", (text,), tuple(charts))


def steps_section(studies: Sequence[Study]) -> Section:
    """Waterfalls of passes."""
    charts = []
    for study in studies:
        for (pool, phase), bars in steps_of(study).items():
            total = sum(bar.total_ms for bar in bars)
            parts = [part for part in PARTS if any(part in bar.parts for bar in bars)]
            rows = [
                (
                    bar.operator,
                    number(bar.layers) if bar.layers else NOTHING,
                    number(bar.total_ms),
                    share(bar.total_ms / total),
                    *(number(bar.parts.get(part)) for part in parts),
                    number(bar.ideal_ms),
                )
                for bar in bars
            ]
            rows.append(("the whole pass", NOTHING, number(total), share(1.0), *(NOTHING for _ in parts), NOTHING))
            table = Table(
                f"Operators of a {phase} pass, {study.label} (ms)",
                ("operator", "layers", "ms", "share", *parts, "roofline"),
                tuple(rows),
                frozenset(range(1, 5 + len(parts))),
            )
            longest = max(bars, key=lambda bar: bar.total_ms)
            label = f"Waterfall of a {phase} pass of {study.label}, {number(total)} ms; longest: {longest.operator}, "
            label += f"{number(longest.total_ms)} ms"
            title = f"{study.label}, {phase}: {number(total)} ms"
            height = 130 + 34 * len(bars)
            charts.append(
                Chart(f"steps-{study.key}-{pool}-{phase}", title, label, steps_figure(bars), table, height, study.colour)
            )
    text = "One pass of the slowest stage, operator by operator with all its layers together, each beginning where the one "
    text += "before ends. Kernels count as compute or memory by what binds them; networks as far as nothing hides them."
    return Section("steps", "Where the time of a step goes", (text,), tuple(charts))


def experts_section(studies: Sequence[Study]) -> Section | None:
    """Heat maps of expert load; ``None`` where no plan spreads experts over ranks."""
    charts, notes = [], []
    for study in studies:
        for heat in heat_of(study):
            rows = _heat_rows(heat)
            table = Table(
                f"Load of ranks over the mean, {study.label}",
                ("layer", "least", "fullest", "fullest rank"),
                rows,
                frozenset({1, 2}),
            )
            title = f"{study.label}, {heat.pool} pool: {heat.ranks} ranks of {heat.experts_per_rank} experts a layer"
            label = f"Heat map of {len(heat.layers)} layers by {heat.ranks} ranks; "
            if heat.mapped:
                label += f"by the plan's map the fullest rank has {number(heat.fullest)} times the mean load"
                notes.append(f"{study.label}, {heat.pool} pool: {label.partition('; ')[2]}, averaged over layers.")
            else:
                label += "routing is taken as uniform, every rank is expected to get the mean"
                notes.append(
                    f"{study.label}, {heat.pool} pool: only uniform use of experts is known, so every rank is expected to serve "
                    f"{number(heat.pairs)} token-expert pairs a layer in a {heat.phase} pass; by chance the fullest rank of a "
                    f"pass gets {number(heat.fullest)} times that. planner plan --experts FILE takes measured loads."
                )
            charts.append(
                Chart(
                    f"experts-{study.key}-{heat.pool}",
                    title,
                    label,
                    heat_figure(heat),
                    table,
                    380 if heat.mapped else 150,
                    study.colour,
                )
            )
    if not charts:
        return None
    text = "Share of the tokens that each rank's experts serve, over the mean of all ranks: the fullest rank sets the pace."
    return Section("experts", "Expert load over devices", (text,), tuple(charts), (), tuple(notes))


def _heat_rows(heat: Heat) -> tuple[tuple[str, ...], ...]:
    if not heat.mapped:
        return (("every layer", number(1.0), number(1.0), "all alike"),)
    rows = []
    for layer, loads in zip(heat.layers, heat.over_mean, strict=True):
        at = max(range(len(loads)), key=lambda rank: loads[rank])
        rows.append((f"{layer}", number(min(loads)), number(max(loads)), str(at)))
    return tuple(rows)


def sensitivity_section(studies: Sequence[Study]) -> Section:
    """Tornados, and what a per cent of each price moves."""
    charts, notes = [], []
    for study in studies:
        rows = swings_of(study)
        if lost := unserved_of(study):
            notes.append(
                f"{study.label}: at an end of {', '.join(lost)} nothing is served within the limits, so the objective is not "
                "known there, and no bar is drawn."
            )
        if not rows:
            continue
        unit = study.plan.certificate.unit
        table = Table(
            f"The objective with one group at its ends, {study.label} ({unit})",
            ("group", "least", "most", "change", "kind"),
            tuple(
                (
                    row.group,
                    number(row.low),
                    number(row.high),
                    f"{change(row.low / row.expected - 1.0)} to {change(row.high / row.expected - 1.0)}",
                    "price" if row.price else "time",
                )
                for row in rows
            ),
            frozenset({1, 2, 3}),
        )
        widest = rows[0]
        label = f"Tornado of {study.label}: {unit} moves most with {widest.group}, "
        label += f"from {number(widest.low)} to {number(widest.high)}"
        height = 130 + 32 * min(len(rows), MOST_SWINGS)
        figure = tornado_figure(rows[:MOST_SWINGS])
        title = f"{study.label}: {number(widest.expected)} {unit}"
        charts.append(Chart(f"tornado-{study.key}", title, label, figure, table, height, study.colour))
    prices = [(study, elasticities_of(study)) for study in studies if study.plan.objective == "cost"]
    lines = tuple((row.price, study.label, f"{row.value:+.3f}%") for study, rows in prices for row in rows)
    caption = "What one per cent more of a price adds to the cost of a token"
    table = Table(caption, ("price", "plan", "per 1%"), lines, frozenset({2}))
    text = "One group of figures at a time moves to the ends of its interval, the deployment kept; prices move the cost as they "
    text += "move its hour."
    return Section("sensitivity", "What it depends on", (text,), tuple(charts), (table,) if lines else (), tuple(notes))


SECTIONS: tuple[Builder, ...] = (
    steps_section,
    occupancy_section,
    traffic_section,
    timeline_section,
    experts_section,
    sensitivity_section,
)
"""In the order of the page, behind cost against speed. A builder that has nothing to show returns ``None``."""
