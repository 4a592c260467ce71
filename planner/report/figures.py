"""Figures for plotly.js, as plain values. Names from profiles are escaped, since its labels know a little markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from planner.replay.schedule import Schedule
from planner.report.content import Figure
from planner.report.experts import Heat
from planner.report.front import Point
from planner.report.numbers import change, number, share, size
from planner.report.occupancy import FREE, RESERVE, Held
from planner.report.steps import PARTS, Bar
from planner.report.traffic import COMPUTE, WRITTEN, Flow
from planner.report.uncertainty import Swing

PART_COLOURS = {
    "compute": "var(--part-compute)",
    "memory": "var(--part-memory)",
    "network": "var(--part-network)",
    "start-up": "var(--part-start)",
    "waiting for lower memories": "var(--part-wait)",
    "runtime step": "var(--part-runtime)",
}
CONTENT_COLOURS = {
    "routed experts": "var(--content-experts)",
    "weights": "var(--content-weights)",
    "KV cache": "var(--content-cache)",
    RESERVE: "var(--content-reserve)",
    FREE: "var(--content-free)",
}
MOST_COLUMNS = 256
"""Ranks drawn one by one; of more, neighbours share a column, which shows the fullest of them."""
_OTHER_CONTENT = "var(--content-other)"
_INK, _FAINT, _GRID, _GROUND = "var(--ink)", "var(--ink-faint)", "var(--grid)", "var(--card)"


def content_colour(kind: str) -> str:
    """The colour of what lies in a memory or flows from it."""
    return CONTENT_COLOURS.get(kind, _OTHER_CONTENT)


def plain(text: str) -> str:
    """Text that plotly.js shows as it is: its labels read tags and entities, and nothing else."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _axis(title: str = "", **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": plain(title), "standoff": 10, "font": {"size": 13}},
        "gridcolor": _GRID,
        "linecolor": _GRID,
        "zerolinecolor": _GRID,
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def _layout(**more: Any) -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _INK, "size": 13},
        "hoverlabel": {"bgcolor": _GROUND, "bordercolor": _GRID, "font": {"color": _INK, "size": 13}, "align": "left"},
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "dragmode": False,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False, "itemdoubleclick": False},
        **more,
    }


def front_figure(points: Sequence[tuple[str, str, Sequence[Point]]]) -> Figure:
    """Each plan's own point with its intervals, and its front as a line; ``(colour, symbol, points)`` by plan."""
    data: list[dict[str, Any]] = []
    for colour, symbol, rows in points:
        own, front = [row for row in rows if row.chosen], [row for row in rows if not row.chosen]
        if front:
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": plain(own[0].label.removesuffix(": the plan")) + ", front",
                    "showlegend": False,
                    "x": [row.speed for row in front],
                    "y": [row.usd for row in front],
                    "line": {"color": colour, "width": 2, "shape": "linear"},
                    "marker": {"size": 7, "color": colour},
                    "hovertext": [_point(row) for row in front],
                    "hoverinfo": "text",
                }
            )
        for row in own:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain(row.label.removesuffix(": the plan")),
                    "x": [row.speed],
                    "y": [row.usd],
                    "error_x": _whiskers(row.speed, row.speed_low, row.speed_high, colour),
                    "error_y": _whiskers(row.usd, row.usd_low, row.usd_high, colour),
                    "marker": {"size": 14, "color": colour, "symbol": symbol, "line": {"width": 1.5, "color": _GROUND}},
                    "hovertext": [_point(row)],
                    "hoverinfo": "text",
                }
            )
    costs = [row.usd for _, _, rows in points for row in rows]
    wide = max(costs) > 12.0 * min(costs)
    scale = {"type": "log", "dtick": "D2"} if wide else {"rangemode": "tozero"}
    layout = _layout(
        xaxis=_axis("speed of one request, tokens/s", rangemode="tozero"),
        yaxis=_axis("USD per million tokens" + (", logarithmic" if wide else ""), exponentformat="none", **scale),
        showlegend=True,
    )
    return {"data": data, "layout": layout}


def _point(row: Point) -> str:
    return (
        f"{plain(row.label)}<br>{number(row.usd)} USD per million tokens<br>{number(row.speed)} tokens/s for one request"
        f"<br>{number(row.tpot_ms)} ms a token, first after {number(row.ttft_ms)} ms"
    )


def _whiskers(value: float, low: float | None, high: float | None, colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max((high if high is not None else value) - value, 0.0)],
        "arrayminus": [max(value - (low if low is not None else value), 0.0)],
        "color": colour,
        "thickness": 1.2,
        "width": 5,
    }


def occupancy_figure(rows: Sequence[Held]) -> Figure:
    """A treemap: pool, memory, kind of content, by bytes."""
    ids: list[str] = []
    labels: list[str] = []
    parents: list[str] = []
    values: list[float] = []
    colours: list[str] = []
    hover: list[str] = []
    texts: list[str] = []

    def add(key: str, parent: str, label: str, value: float, colour: str, told: str, text: str) -> None:
        ids.append(key)
        parents.append(parent)
        labels.append(plain(label))
        values.append(value)
        colours.append(colour)
        hover.append("<br>".join(plain(line) for line in (label, told) if line))
        texts.append(plain(text))

    pools: dict[str, dict[str, list[Held]]] = {}
    for row in rows:
        pools.setdefault(row.pool, {}).setdefault(row.tier, []).append(row)
    everything = sum(row.bytes for row in rows)
    add("all", "", f"whole deployment: {size(everything)}", everything, "var(--tree-all)", "", "")
    for pool, tiers in pools.items():
        whole = sum(row.bytes for held in tiers.values() for row in held)
        add(pool, "all", f"{pool} pool: {size(whole)}", whole, "var(--tree-pool)", "", "")
        for tier, held in tiers.items():
            filled = sum(row.bytes for row in held)
            used = sum(row.bytes for row in held if row.kind != FREE)
            told = f"{tier}: {size(used)} of {size(held[0].capacity)} used"
            add(f"{pool}/{tier}", pool, told, filled, "var(--tree-tier)", "", "")
            for row in held:
                colour = content_colour(row.kind)
                told = f"{size(row.bytes)}, {share(row.share)} of {tier}"
                add(f"{pool}/{tier}/{row.kind}", f"{pool}/{tier}", row.kind, row.bytes, colour, told, size(row.bytes))
    trace = {
        "type": "treemap",
        "ids": ids,
        "labels": labels,
        "parents": parents,
        "values": values,
        "branchvalues": "total",
        "text": texts,
        "textinfo": "label+text",
        "hovertext": hover,
        "hoverinfo": "text",
        "marker": {"colors": colours, "line": {"width": 1.5, "color": _GROUND}, "pad": {"t": 24, "l": 4, "r": 4, "b": 4}},
        "pathbar": {"visible": False},
        "tiling": {"pad": 2, "packing": "squarify"},
        "root": {"color": "rgba(0,0,0,0)"},
    }
    layout = _layout(margin={"l": 0, "r": 0, "t": 0, "b": 0}, uniformtext={"mode": "hide", "minsize": 10})
    return {"data": [trace], "layout": layout}


def traffic_figure(flows: Sequence[Flow]) -> Figure:
    """A sankey of bytes a pass, of one pool and phase; what is read passes a node of its content."""
    places: dict[str, tuple[int, str]] = {}
    links: dict[str, list[Any]] = {"source": [], "target": [], "value": [], "label": [], "color": []}

    def place(key: str, label: str) -> int:
        return places.setdefault(key, (len(places), label))[0]

    def link(source: int, target: int, flow: Flow) -> None:
        links["source"].append(source)
        links["target"].append(target)
        links["value"].append(flow.bytes)
        links["label"].append(f"{plain(flow.what)}: {size(flow.bytes)}")
        links["color"].append(content_colour(flow.what).replace(")", "-flow)"))

    for flow in flows:
        told = f"{flow.what}: {size(flow.bytes)}"
        if flow.target == COMPUTE:
            middle = place(f"content {flow.what}", told)
            link(place(f"at {flow.source}", flow.source), middle, flow)
            link(middle, place(COMPUTE, COMPUTE), flow)
        elif flow.source == COMPUTE:
            told = f"written: {size(flow.bytes)}" if flow.target == WRITTEN else f"over {told}"
            link(place(COMPUTE, COMPUTE), place(f"{flow.target} {flow.what}", told), flow)
        else:
            source = place(f"at {flow.source}", f"{flow.source}: {size(flow.bytes)}")
            link(source, place(f"at {flow.target}", flow.target), flow)
    trace = {
        "type": "sankey",
        "valueformat": ".3s",
        "valuesuffix": "B",
        "node": {
            "label": [plain(label) for _, label in places.values()],
            "color": ["var(--tree-node)"] * len(places),
            "pad": 30,
            "thickness": 10,
            "line": {"width": 0},
            "hovertemplate": "%{label}<extra></extra>",
        },
        "link": {**links, "hovertemplate": "%{label}<extra></extra>"},
        "textfont": {"color": _INK, "size": 12, "shadow": "none"},
    }
    return {"data": [trace], "layout": _layout(margin={"l": 4, "r": 4, "t": 16, "b": 16})}


def timeline_figure(run: Schedule, lanes: Sequence[str]) -> Figure:
    """One row a lane, one bar an event, over the time since the pass began."""
    data: list[dict[str, Any]] = []
    for lane in lanes:
        mine = [event for event in run.events if event.lane == lane]
        told = [
            f"{plain(event.label)}<br>{plain(lane)}: {number(event.start_s * 1e3)} to {number(event.end_s * 1e3)} ms"
            for event in mine
        ]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plain(lane),
                "y": [plain(lane)] * len(mine),
                "x": [(event.end_s - event.start_s) * 1e3 for event in mine],
                "base": [event.start_s * 1e3 for event in mine],
                "marker": {"color": PART_COLOURS["compute" if lane == "kernels" else "memory"], "line": {"width": 0.5}},
                "hovertext": told,
                "hoverinfo": "text",
            }
        )
    layout = _layout(
        barmode="overlay",
        bargap=0.35,
        xaxis=_axis("ms since the pass began"),
        yaxis=_axis(autorange="reversed", type="category", showgrid=False),
        showlegend=False,
    )
    return {"data": data, "layout": layout}


def steps_figure(bars: Sequence[Bar]) -> Figure:
    """A waterfall: each operator starts where the one before ends, its parts side by side; the whole pass below."""
    names = [plain(bar.operator) for bar in bars]
    total = sum(bar.total_ms for bar in bars)
    starts = [bar.start_ms for bar in bars]
    data: list[dict[str, Any]] = []
    for part in PARTS:
        values = [bar.parts.get(part, 0.0) for bar in bars]
        whole = sum(values)
        if whole < 5e-4 * total:
            continue
        told = [f"{name}<br>{part}: {number(value)} ms" for name, value in zip(names, values, strict=True)]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{part} {share(whole / total)}",
                "y": names,
                "x": values,
                "base": list(starts),
                "marker": {"color": PART_COLOURS[part]},
                "hovertext": told,
                "hoverinfo": "text",
            }
        )
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    data.append(
        {
            "type": "scatter",
            "mode": "text",
            "y": names,
            "x": [bar.start_ms + bar.total_ms for bar in bars],
            "text": [f" {number(bar.total_ms, 3)}" if bar.total_ms >= 0.01 else " &lt;0.01" for bar in bars],
            "textposition": "middle right",
            "textfont": {"color": _FAINT, "size": 12},
            "hoverinfo": "skip",
            "showlegend": False,
            "cliponaxis": False,
        }
    )
    layout = _layout(
        barmode="overlay",
        bargap=0.3,
        xaxis=_axis("ms since the pass began", range=[0, total * 1.12]),
        yaxis=_axis(autorange="reversed", type="category", showgrid=False),
        showlegend=True,
    )
    return {"data": data, "layout": layout}


def heat_figure(heat: Heat) -> Figure:
    """Layers down (one row for all where they are alike), ranks across; the colour is the load over the mean."""
    step = -(-heat.ranks // MOST_COLUMNS)
    firsts = range(0, heat.ranks, step)
    names = [str(i) if step == 1 else f"{i} to {min(i + step, heat.ranks) - 1}" for i in firsts]
    top = max(max(row) for row in heat.over_mean)
    rows = heat.over_mean if heat.mapped else heat.over_mean[:1]
    layers = [f"layer {layer}" for layer in heat.layers] if heat.mapped else ["every layer"]
    trace = {
        "type": "heatmap",
        "z": [[round(max(row[i : i + step]), 4) for i in firsts] for row in rows],
        "x": names,
        "y": layers,
        "zmin": 0.0,
        "zmax": max(top, 2.0),
        "colorscale": [[0, "var(--heat-0)"], [0.5, "var(--heat-1)"], [1, "var(--heat-2)"]],
        "colorbar": {
            "title": {"text": "load / mean", "side": "right", "font": {"size": 12}},
            "thickness": 12,
            "outlinewidth": 0,
            "nticks": 5,
        },
        "hovertemplate": "%{y}, rank %{x}: %{z:.3f} of the mean<extra></extra>",
        "xgap": 1 if len(firsts) <= 64 else 0,
    }
    layout = _layout(
        xaxis=_axis("rank", nticks=16, tickangle=0, type="category", showgrid=False),
        yaxis=_axis(autorange="reversed", nticks=12, type="category", showgrid=False),
    )
    return {"data": [trace], "layout": layout}


def tornado_figure(rows: Sequence[Swing]) -> Figure:
    """Per cent by which the objective changes with each group at its ends; widest on top."""
    names = [plain(row.group) for row in rows]
    data: list[dict[str, Any]] = []
    for end, colour, side in (("low", "var(--swing-low)", "least"), ("high", "var(--swing-high)", "most")):
        moved = [(getattr(row, end) / row.expected - 1.0) * 100.0 for row in rows]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"{side} it becomes",
                "y": names,
                "x": moved,
                "marker": {"color": colour},
                "text": [change(value / 100.0) if abs(value) >= 0.05 else "" for value in moved],
                "textposition": "outside",
                "textfont": {"color": _FAINT, "size": 12},
                "cliponaxis": False,
                "hovertext": [f"{group}<br>at {side}: {value:+.2f}%" for group, value in zip(names, moved, strict=True)],
                "hoverinfo": "text",
            }
        )
    left, right = (pick((v for trace in data for v in trace["x"]), default=0.0) for pick in (min, max))
    room = 0.28 * (right - left)
    layout = _layout(
        barmode="overlay",
        bargap=0.35,
        xaxis=_axis("change, %", range=[left - room, right + room], zerolinewidth=2),
        yaxis=_axis(autorange="reversed", type="category", showgrid=False),
        showlegend=True,
    )
    return {"data": data, "layout": layout}
