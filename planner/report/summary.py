"""The headline of every plan, and all of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.comparison.schema import Comparison, Figures, Row
from planner.comparison.words import percent
from planner.plans.schema import Interval
from planner.report.content import Card, Table
from planner.report.numbers import NOTHING, number, power, share, size, span
from planner.report.study import Study

_UNITS = {
    "cost": "USD per million tokens",
    "throughput": "output tokens/s per device",
    "latency": "ms per output token",
}


def told(interval: Interval | None) -> str:
    """``0.1922 (0.09456 to 0.3899)``."""
    if interval is None:
        return NOTHING
    if interval.low is None and interval.high is None:
        return number(interval.expected)
    return f"{number(interval.expected)} ({span(interval.low, interval.high)})"


def configuration(study: Study) -> str:
    """The pools in one line."""
    return "; ".join(
        f"{pool.phase}: {pool.replicas} x (tp {pool.configuration.tp}, dp {pool.configuration.attention_dp}, "
        f"ep {pool.configuration.ep}, pp {pool.configuration.pp})"
        for pool in study.plan.pools
    )


def card_of(study: Study, row: Row | None = None) -> Card:
    """``row``: the plan's place in a comparison."""
    figures, plan = study.figures, study.plan
    headline = {
        "cost": figures.usd_per_million.blended,
        "throughput": figures.tokens_per_s_per_device,
        "latency": figures.tpot_ms,
    }[plan.objective]
    facts = [
        ("speed of one request", f"{number(figures.tokens_per_s_per_user.expected)} tokens/s"),
        ("output, whole deployment", f"{number(figures.tokens_per_s.expected)} tokens/s"),
        ("output per device", f"{number(figures.tokens_per_s_per_device.expected)} tokens/s"),
        ("first token after", f"{number(figures.ttft_ms.expected)} ms"),
        ("time per token", f"{number(figures.tpot_ms.expected)} ms"),
        ("evidence, lowest grade", figures.lowest_grade),
    ]
    if row is not None and row.rank is not None and row.probability_best is not None:
        facts.append(("probability to be the best", percent(row.probability_best)))
    return Card(
        title=study.label,
        subtitle=f"{figures.devices} devices; {configuration(study)}",
        swatch=study.colour,
        headline=number(headline.expected),
        unit=_UNITS[plan.objective],
        interval=f"{span(headline.low, headline.high)}, 10th to 90th percentile",
        facts=tuple(facts),
        badge="" if row is None or row.rank is None else f"rank {row.rank}",
    )


def _memory(kind: str) -> Callable[[Figures], str]:
    def cell(figures: Figures) -> str:
        for use in figures.memories:
            if use.kind == kind:
                return f"{size(use.bytes)} of {size(use.capacity_bytes)}"
        return NOTHING

    return cell


def _devices(figures: Figures) -> str:
    idle = figures.devices - figures.devices_used
    return f"{figures.devices:,}" + (f", {idle:,} of them idle" if idle else "")


def _bottlenecks(figures: Figures) -> str:
    return "; ".join(f"{row.phase}: {row.resource} {share(row.share)}" for row in figures.bottlenecks)


def _measures(all_figures: Sequence[Figures]) -> list[tuple[str, Callable[[Figures], str]]]:
    kinds = dict.fromkeys(use.kind for figures in all_figures for use in figures.memories)
    return [
        ("devices", _devices),
        ("all tokens, USD per million", lambda f: told(f.usd_per_million.blended)),
        ("cached input, USD per million", lambda f: told(f.usd_per_million.input_hit)),
        ("input, USD per million", lambda f: told(f.usd_per_million.input_miss)),
        ("output, USD per million", lambda f: told(f.usd_per_million.output)),
        ("USD an hour", lambda f: number(f.usd_per_hour)),
        ("output, tokens/s", lambda f: told(f.tokens_per_s)),
        ("output per device, tokens/s", lambda f: told(f.tokens_per_s_per_device)),
        ("speed of one request, tokens/s", lambda f: told(f.tokens_per_s_per_user)),
        ("time to first token, ms", lambda f: told(f.ttft_ms)),
        ("time per output token, ms", lambda f: told(f.tpot_ms)),
        ("times are of", lambda f: f.load),
        ("requests in flight", lambda f: number(f.concurrency)),
        ("requests/s at random within the limits", lambda f: number(f.random_requests_per_s)),
        ("power, stated", lambda f: power(f.watts)),
        ("power, drawn with PUE", lambda f: power(f.watts_drawn)),
        ("energy per output token, J", lambda f: told(f.joules_per_output_token)),
        *((f"{kind.upper()} filled", _memory(kind)) for kind in kinds),
        ("bound by", _bottlenecks),
        ("lowest grade of evidence", lambda f: f.lowest_grade),
        ("gap to the bound", lambda f: f"{f.gap:.2%}, {'proved' if f.proved else 'not proved'}"),
    ]


def _ranked(row: Row) -> dict[str, str]:
    error = f" ± {row.probability_error:.1%}" if row.probability_error else ""
    even = NOTHING
    if row.break_even is not None and row.break_even.scale is not None:
        even = f"{number(row.break_even.scale)} x {row.break_even.what}"
    return {
        "ratio to the first": number(row.ratio),
        "probability to be better than the first": _chance(row.probability_better) + error,
        "verdict": row.verdict or NOTHING,
        "price at which it breaks even": even,
    }


def summary_table(studies: Sequence[Study], rows: Sequence[Row | None]) -> Table:
    """A line for each figure, a column for each plan."""
    lines = [
        (name, *(cell(study.figures) for study in studies)) for name, cell in _measures([study.figures for study in studies])
    ]
    ranked = [None if row is None else _ranked(row) for row in rows]
    if any(ranked):
        names = next(cells for cells in ranked if cells)
        lines += [(name, *(NOTHING if cells is None else cells[name] for cells in ranked)) for name in names]
    return Table(
        "In brackets the 10th and 90th percentile of the model's uncertainty",
        ("", *(study.label for study in studies)),
        tuple(lines),
    )


def missing(comparison: Comparison) -> list[str]:
    """Rows without a plan, and why."""
    return [f"{row.model} on {row.hardware}: {row.status}; {row.reason or ''}" for row in comparison.rows if row.plan is None]


def pairwise_table(comparison: Comparison) -> Table | None:
    """How probable it is that one plan is better than another; ``None`` where no three are ranked."""
    places = [i for i, row in enumerate(comparison.rows) if row.rank is not None]
    if len(places) < 3:
        return None
    names = [name_of(comparison, comparison.rows[i]) for i in places]
    lines = [
        (f"{name} is better than", *(_chance(comparison.pairwise[i][j]) for j in places))
        for i, name in zip(places, names, strict=True)
    ]
    return Table("Probability that one is better than another", ("", *names), tuple(lines), frozenset(range(1, len(names) + 1)))


def _chance(probability: float | None) -> str:
    return NOTHING if probability is None else percent(probability)


def matrix_table(comparison: Comparison) -> Table | None:
    """The objective of every model on every hardware; ``None`` for one model."""
    if len(comparison.models) < 2:
        return None
    lines = [
        (model, *(told(comparison.cell(i, j).objective) for j in range(len(comparison.hardware))))
        for i, model in enumerate(comparison.models)
    ]
    return Table(f"{comparison.unit}, by model and hardware", ("", *comparison.hardware), tuple(lines))


def name_of(comparison: Comparison, row: Row) -> str:
    """What a row is called: its hardware, with the model where there are several."""
    return f"{row.model} on {row.hardware}" if len(comparison.models) > 1 else row.hardware
