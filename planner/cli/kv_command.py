"""``planner kv``."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.common import TOKENS, echo_json, format_option, hint, new_table, print_table, say
from planner.errors import InputError, nearest


def layout_of(model: Any, layout: str | None, kv_dtype: str | None) -> str:
    """The layout asked for, else the first of that dtype that every cache of the model has, else the model's first."""
    from planner.architecture import CALCULATOR

    known = [*model.layouts(), CALCULATOR]
    if layout is not None:
        if layout not in known:
            raise InputError(
                f"model {model.id} has no layout {layout[:64]!r}", where="--layout", mend=nearest(layout[:64], known)
            )
        return layout
    if kv_dtype is not None:
        from planner.runtimes import load_runtime

        table = load_runtime("generic").kv_layouts
        if kv_dtype not in table:
            raise InputError(f"unknown dtype {kv_dtype[:64]!r}", where="--kv-dtype", mend=nearest(kv_dtype[:64], list(table)))
        found = next((name for name in table[kv_dtype] if name in known), None)
        if found is None:
            raise InputError(
                f"model {model.id} has no layout of that dtype", where="--kv-dtype", mend=f"name a --layout: {', '.join(known)}"
            )
        return found
    return str(known[0])


def kv_of(model: Any, tokens: int, layout: str, draft: bool) -> dict[str, Any]:
    """What one sequence of ``tokens`` tokens holds and a decode step of it reads (bytes) and computes (FLOPs), by cache."""
    from planner.architecture import CALCULATOR

    stateless = layout == CALCULATOR
    blocks = [block for block in model.blocks if draft or not block.draft]
    owners = {(block.id, cache.name): cache for block in model.blocks for cache in block.caches}
    read: dict[tuple[str, str], int] = {}
    for block in blocks:
        for part in block.reads:
            cache = owners[part.block, part.cache]
            fixed = 0 if stateless else round(part.fixed * cache.fixed_bytes)
            size = block.layers * (part.span.entries(tokens) * cache.entry_bytes(layout) + fixed)
            read[part.block, part.cache] = read.get((part.block, part.cache), 0) + size
    caches = [
        {
            "name": f"{block.id}/{cache.name}",
            "role": cache.role,
            "layers": block.layers,
            "entries": cache.span.entries(tokens),
            "entry_bytes": cache.entry_bytes(layout),
            "bytes_held": block.layers * cache.bytes(tokens, layout),
            "bytes_read_per_step": read.get((block.id, cache.name), 0),
            "fixed_bytes": 0 if stateless else block.layers * cache.fixed_bytes,
            "span": cache.span.model_dump(),
            "page_tokens": cache.page_tokens,
            "tensor_axis": cache.tensor_axis,
            "persist": cache.persist,
        }
        for block in blocks
        for cache in block.caches
    ]
    total = model.flops_per_token(tokens)
    attention = model.attention_flops(tokens)
    return {
        "model": model.id,
        "context": tokens,
        "layout": layout,
        "bytes_held": model.cache_bytes(tokens, layout, draft=draft),
        "bytes_per_token": model.kv_bytes_per_token(layout, draft=draft),
        "bytes_read_per_step": model.read_bytes(tokens, layout, draft=draft),
        "fixed_bytes": 0 if stateless else model.fixed_bytes(draft=draft),
        "flops_per_token": {"linear": total - attention, "attention": attention, "total": total},
        "layouts": [*model.layouts(), CALCULATOR],
        "caches": caches,
    }


def _size(count: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.4g} {unit}" if count < 1e3 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:,.0f} B"


def _print(data: dict[str, Any]) -> None:
    table = new_table(
        f"{data['model']}, one sequence of {data['context']:,} tokens, layout {data['layout']}",
        "cache", "layers", "entries", "B each", "held", "read a step", "TP splits",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.no_wrap = True
    for row in data["caches"]:
        table.add_row(
            row["name"],
            str(row["layers"]),
            f"{row['entries']:,}",
            f"{row['entry_bytes']:,}",
            _size(row["bytes_held"]),
            _size(row["bytes_read_per_step"]),
            "no" if row["tensor_axis"] == 1 else f"to {row['tensor_axis']}",
        )
    print_table(table)
    flops = data["flops_per_token"]
    say(f"held          {data['bytes_held']:,} B = {data['bytes_held'] / 2**30:.4f} GiB, {data['fixed_bytes']:,} B fixed")
    click.echo(f"growth        {data['bytes_per_token']:,} B a token")
    click.echo(f"read a step   {data['bytes_read_per_step']:,} B")
    linear, attention = flops["linear"] / 1e9, flops["attention"] / 1e9
    say(f"FLOPs a token {flops['total'] / 1e9:,.1f} G: linear layers {linear:,.1f}, attention {attention:,.1f}")


@click.command("kv")
@click.argument("model")
@click.option("--context", type=TOKENS, help="Tokens of context; as many as the model allows by default.")
@click.option("--layout", help="How entries are stored; 'calculator' counts a byte an element and nothing else.")
@click.option("--kv-dtype", help="The first layout of this dtype, such as fp8.")
@click.option("--draft", is_flag=True, help="Count the caches of the draft module too.")
@format_option
def command(model: str, context: float | None, layout: str | None, kv_dtype: str | None, draft: bool, form: str) -> None:
    """What the caches of one sequence hold, grow by and have read at a context, and the FLOPs of a token there.

    \b
    Examples:
      planner kv deepseek-v3 --context 128k
      planner kv deepseek-v4-pro --kv-dtype fp8 --format json
    """
    from planner.architecture import load_model

    if layout is not None and kv_dtype is not None:
        raise click.UsageError("--layout and --kv-dtype exclude each other")
    subject = load_model(model)
    tokens = subject.max_context if context is None else int(context)
    if context is not None and context != tokens:
        raise InputError(f"{context:g} is no number of tokens", where="--context", mend="name a whole number")
    data = kv_of(subject, tokens, layout_of(subject, layout, kv_dtype), draft)
    if form == "json":
        echo_json(data)
        return
    _print(data)
    hint(f"planner show model {subject.id}")
