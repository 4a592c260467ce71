"""A pass of the layer-level schedule (``planner.replay.schedule``) as a time line: lanes of kernels, copies and fetched rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planner.replay.schedule import Schedule, schedule
from planner.report.content import Chart, Section, Table
from planner.report.figures import timeline_figure
from planner.report.numbers import number, share
from planner.report.study import Study


def schedules_of(study: Study) -> Iterator[Schedule]:
    """Of every pool and phase."""
    for state in study.operation.pools:
        for phase in state.passes:
            yield schedule(state, phase)


def timeline_section(studies: Sequence[Study]) -> Section | None:
    """Time lines of the passes in which something moves; ``None`` where every plan keeps all in device memory."""
    charts, rows = [], []
    for study in studies:
        for run in schedules_of(study):
            lanes = list(dict.fromkeys(event.lane for event in run.events))
            waited = sum(wait for _, _, wait in run.waits)
            those = "1 layer waits" if len(run.waits) == 1 else f"{len(run.waits)} layers wait"
            told = f"{those} {number(waited * 1e3)} ms in all" if run.waits else "no layer waits"
            where = f"{study.label}, {run.phase}"
            cells = (number(run.pass_s * 1e3), number(run.formula_s * 1e3), number(run.resident_s * 1e3))
            rows.append((where, *cells, told))
            if len(lanes) < 2:
                continue
            longest = sorted(run.waits, key=lambda wait: -wait[2])[:10]
            lines = tuple((f"{label} {layer}", number(wait * 1e3), share(wait / run.pass_s)) for label, layer, wait in longest)
            table = Table(f"Layers that wait longest, {where}", ("layer", "ms", "of the pass"), lines, frozenset({1, 2}))
            label = f"Time line of a {run.phase} pass of {study.label}, {number(run.pass_s * 1e3)} ms, "
            label += f"lanes {', '.join(lanes)}; {told}"
            key, height = f"timeline-{study.key}-{run.pool}-{run.phase}", 120 + 44 * len(lanes)
            title = f"{where}: {number(run.pass_s * 1e3)} ms, {told}"
            charts.append(Chart(key, title, label, timeline_figure(run, lanes), table, height, study.colour, (), True))
    if not charts:
        return None
    text = (
        "The last of several passes, run event by event: kernels in the order of the layers, copies ahead of them as far as the "
    )
    text += "buffers reach, channels shared. It does not use the formula that the plan's times come from."
    caption = "Passes by the schedule, by the plan's formula, and with everything in device memory (ms)"
    summary = Table(caption, ("pass", "schedule", "formula", "kernels alone", "waits"), tuple(rows), frozenset({1, 2, 3}))
    return Section("timeline", "When it moves", (text,), tuple(charts), (summary,))
