"""What the ``planner workload`` commands print, and its JSON Schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import new_table, number, print_table

if TYPE_CHECKING:
    from planner.workload.fit import Fit, LengthFit
    from planner.workload.reuse import Reuse

_AMOUNT: dict[str, Any] = {"type": "number", "minimum": 0}
_MAYBE: dict[str, Any] = {"type": ["number", "null"], "minimum": 0}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_SHARE: dict[str, Any] = {"type": "number", "minimum": 0, "maximum": 1}
_TEXT: dict[str, Any] = {"type": "string"}

LEAST_STEP = 0.005
"""Share of what an infinite cache finds by which a size must find more than the one above it in the table."""


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_LENGTHS = _object(
    {
        **dict.fromkeys(("mean", "deviation"), _AMOUNT),
        "median_planned": _MAYBE | {"description": "null: planned as constant, as no lognormal has such a median."},
        "quantiles": _list(_object({"probability": _SHARE, "tokens": _AMOUNT, "lognormal": _MAYBE})),
    }
)
SCHEMAS = {
    "workload-fit": _object(
        {
            **dict.fromkeys(("file", "format"), _TEXT),
            "day": {"type": ["string", "null"], "description": "On which the trace begins, where it has dates."},
            "requests": _COUNT,
            "duration_s": _AMOUNT,
            **dict.fromkeys(("rate_per_s", "peak_per_s", "variation"), _MAYBE),
            "dispersion": _list(_object(dict.fromkeys(("window_s", "index"), _AMOUNT))),
            **dict.fromkeys(("input_tokens", "output_tokens"), _LENGTHS),
            "reuse": {
                "anyOf": [
                    {"type": "null"},
                    _object(
                        {
                            **dict.fromkeys(("block_tokens", "blocks", "distinct", "sampled"), _COUNT),
                            "infinite": _object(dict.fromkeys(("prefix_hit", "block_hit"), _SHARE)),
                            "caches": _list(
                                _object(
                                    {
                                        "blocks": _COUNT,
                                        "tokens": _COUNT,
                                        "tokens_per_request_per_s": _MAYBE,
                                        **dict.fromkeys(("prefix_hit", "block_hit"), _SHARE),
                                    }
                                )
                            ),
                            "kept": _list(_object({"seconds": _AMOUNT, "prefix_hit": _SHARE, "mean_tokens": _AMOUNT})),
                        }
                    ),
                ]
            },
        }
    ),
    "workload-curve": _object(
        {
            "model": _TEXT,
            **dict.fromkeys(("input_tokens", "output_tokens"), _AMOUNT),
            "curve": _list(_object({"tokens_per_request_per_s": _AMOUNT, "prefix_hit": _SHARE})),
        }
    ),
}


def fit_json(file: str, fit: Fit) -> dict[str, Any]:
    """As ``planner schema workload-fit``."""
    return {
        "file": file,
        "format": fit.format,
        "day": None if fit.day is None else str(fit.day),
        "requests": fit.requests,
        "duration_s": fit.duration_s,
        "rate_per_s": fit.rate_per_s,
        "peak_per_s": fit.peak_per_s,
        "variation": fit.variation,
        "dispersion": [{"window_s": window, "index": index} for window, index in fit.dispersion],
        "input_tokens": _lengths(fit.input_tokens),
        "output_tokens": _lengths(fit.output_tokens),
        "reuse": None if fit.reuse is None else _reuse(fit.reuse, fit.rate_per_s),
    }


def _lengths(found: LengthFit) -> dict[str, Any]:
    rows = [(p, tokens, found.lognormal(p) if p < 1.0 else None) for p, tokens in found.quantiles]
    quantiles = [dict(zip(("probability", "tokens", "lognormal"), row, strict=True)) for row in rows]
    return {"mean": found.mean, "deviation": found.deviation, "median_planned": found.median, "quantiles": quantiles}


def _reuse(found: Reuse, rate: float | None) -> dict[str, Any]:
    sizes = [blocks * found.block_tokens for blocks in found.capacities]
    return {
        "block_tokens": found.block_tokens,
        "blocks": found.blocks,
        "distinct": found.distinct,
        "sampled": found.sampled,
        "infinite": {"prefix_hit": found.infinite_hit, "block_hit": found.infinite_block_hit},
        "caches": [
            {
                "blocks": blocks,
                "tokens": tokens,
                "tokens_per_request_per_s": None if rate is None else tokens / rate,
                "prefix_hit": hit,
                "block_hit": single,
            }
            for blocks, tokens, hit, single in zip(found.capacities, sizes, found.prefix_hits, found.block_hits, strict=True)
        ],
        "kept": [
            {"seconds": seconds, "prefix_hit": hit, "mean_tokens": tokens}
            for seconds, hit, tokens in zip(found.kept_s, found.kept_hits, found.kept_tokens, strict=True)
        ],
    }


def print_fit(file: str, fit: Fit) -> None:
    """For people."""
    when = f" of {fit.day}" if fit.day else ""
    at = "all at once" if fit.rate_per_s is None else f"{number(fit.rate_per_s)} requests/s"
    busiest = f", {number(fit.peak_per_s)}/s in the busiest minute" if fit.peak_per_s is not None else ""
    click.echo(f"{file}: {fit.requests:,} requests{when} ({fit.format})\nin {number(fit.duration_s)} s, {at}{busiest}\n")
    table = new_table("tokens of a request", "", "mean", "p50", "p90", "p99", "most", "lognormal p90", "p99")
    for name, found in (("input", fit.input_tokens), ("output", fit.output_tokens)):
        cells = [number(found.mean), *(number(found.at(p)) for p in (0.5, 0.9, 0.99, 1.0))]
        table.add_row(name, *cells, *(number(found.lognormal(p)) for p in (0.9, 0.99)))
    print_table(table)
    click.echo("lognormal: the one of this mean and median, by which plans are made; -: planned as constant\n")
    if fit.variation is not None:
        windows = ", ".join(f"{number(index)} in {window:g} s" for window, index in fit.dispersion)
        click.echo(f"arrivals (1: random, more: bursts): variation of gaps {number(fit.variation)}")
        click.echo(f"variance over mean of requests: {windows}\n" if windows else "")
    if fit.reuse is None:
        click.echo("no hash_ids: nothing is known of prefixes")
        return
    _print_reuse(fit.reuse, fit.rate_per_s)


def _print_reuse(found: Reuse, rate: float | None) -> None:
    title = f"LRU caches of blocks of {found.block_tokens} tokens: share of input tokens and of blocks found"
    table = new_table(title, "blocks", "tokens", "tokens per request/s", "prefix, tokens", "block alone")
    shown = -1.0
    for blocks, hit, single in zip(found.capacities, found.prefix_hits, found.block_hits, strict=True):
        if hit - shown < LEAST_STEP * found.infinite_hit or not hit:
            continue
        shown, size = hit, blocks * found.block_tokens
        per = "-" if rate is None else number(size / rate)
        table.add_row(f"{blocks:,}", number(size), per, f"{hit:.2%}", f"{single:.2%}")
    table.add_row("infinite", "-", "-", f"{found.infinite_hit:.2%}", f"{found.infinite_block_hit:.2%}")
    print_table(table)
    sampled = f"; one block in {found.sampled} was followed" if found.sampled > 1 else ""
    click.echo(f"{found.blocks:,} uses of {found.distinct:,} blocks, caches empty at the start{sampled}")
    click.echo("prefix: found only if all blocks before it are; the end of a request leaves first")
    click.echo("block alone: as hit rates are published; sizes that gain little are left out\n")
    table = new_table("a block kept for a time after its last use", "kept for", "prefix, tokens", "tokens in the cache")
    for seconds, hit, tokens in zip(found.kept_s, found.kept_hits, found.kept_tokens, strict=True):
        table.add_row(_time(seconds), f"{hit:.2%}", number(tokens))
    print_table(table)


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def curve_json(about: str, lengths: tuple[float, float], curve: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    """As ``planner schema workload-curve``."""
    rows = [{"tokens_per_request_per_s": tokens, "prefix_hit": hit} for tokens, hit in curve]
    return {"model": about, "input_tokens": lengths[0], "output_tokens": lengths[1], "curve": rows}


def print_curve(about: str, lengths: tuple[float, float], curve: tuple[tuple[float, float], ...]) -> None:
    """For people."""
    click.echo(f"requests of {number(lengths[0])} input and {number(lengths[1])} output tokens")
    table = new_table("", "tokens kept per request/s", "input tokens found")
    for tokens, hit in curve:
        table.add_row(number(tokens), f"{hit:.2%}")
    print_table(table)
    click.echo(about)
