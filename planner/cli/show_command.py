"""``planner show``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from planner.cli.common import (
    compact,
    echo_json,
    format_option,
    new_table,
    print_table,
    profiles_option,
    say_file,
    terminal_width,
)


def _dot(graph: Any) -> str:
    """A networkx graph as DOT text."""

    def quote(text: object) -> str:
        return '"' + str(text).replace('"', "'") + '"'

    lines = [f"digraph {quote(graph.graph.get('id', 'graph'))} {{", "  rankdir=LR; node [shape=box, fontname=monospace];"]
    for node, data in graph.nodes(data=True):
        block = data.get("block")
        label = [str(node), str(data.get("label") or data.get("kind") or getattr(block, "kind", ""))]
        if block is not None:
            label.append(f"{block.layers} layers, {block.bytes() / 1e9:.2f} GB")
            label += [f"cache {cache.name}" for cache in block.caches]
        text = quote("\\n".join(part for part in label if part))
        lines.append(f"  {quote(node)} [label={text}];")
        for read in getattr(block, "reads", ()):
            if read.block != node:
                lines.append(f"  {quote(read.block)} -> {quote(node)} [label={quote(f'reads {read.cache}')}, style=dashed];")
    for source, target, data in graph.edges(data=True):
        lines.append(f"  {quote(source)} -> {quote(target)} [label={quote(data.get('kind', ''))}];")
    return "\n".join([*lines, "}"]) + "\n"


def _model(name: str) -> tuple[dict[str, Any], Any]:
    from planner.architecture import load_model, lookups

    model = load_model(name)
    data = {
        "id": model.id,
        "name": model.name,
        "family": model.family,
        "source": model.source,
        "as_of": str(model.as_of),
        "parameters": model.parameters(),
        "parameters_by_group": model.parameters_by_group(draft=True),
        "bytes": {
            "by_format": model.bytes_by_format(),
            "total": model.weight_bytes(),
            "total_with_draft": model.weight_bytes(draft=True),
            "kv_per_token": {layout: model.kv_bytes_per_token(layout) for layout in model.layouts()},
        },
        "hidden_size": model.hidden_size,
        "layers": model.layers,
        "vocabulary": model.vocabulary,
        "max_context": model.max_context,
        "router": None if model.router is None else model.router.model_dump(),
        "tables": [
            {
                "id": f"{table.block}/{table.group}",
                "layer": table.layer,
                "rows": table.rows,
                "row_bytes": table.row_bytes,
                "rows_per_token": table.rows_per_token,
                "bytes": table.bytes,
                "orders": list(table.hashed.orders) if table.hashed else [],
                "hash_heads": table.hashed.heads if table.hashed else 0,
                "blocks_before": dict(table.window),
            }
            for table in lookups(model)
        ],
        "blocks": [
            {
                "id": block.id,
                "kind": block.kind,
                "first_layer": block.first_layer,
                "layers": block.layers,
                "at": list(block.at),
                "parameters": block.parameters,
                "bytes": block.bytes(),
                "caches": [cache.name for cache in block.caches],
            }
            for block in model.blocks
        ],
    }
    return data, model


SORTS_OF = {"hardware": ("system", "device", "part", "site"), "device": ("device",), "part": ("part",), "site": ("site",)}
"""What is looked for by kind, in order."""


def _hardware(kind: str, name: str, folders: tuple[Path, ...]) -> tuple[dict[str, Any], Any]:
    from planner.errors import InputError, nearest
    from planner.hardware import load_hardware
    from planner.hardware.source import ProfileSource

    source, faults = ProfileSource(folders), []
    subject: Any = None
    for sort in SORTS_OF[kind]:
        try:
            subject = load_hardware(name, folders=folders).system if sort == "system" else None
            subject = subject or source.read_any(source.resolve(name, sort))
            break
        except InputError as error:
            faults.append(error)
    if subject is None:
        if not all(fault.what.startswith("unknown ") or fault.what.endswith(" is a device") for fault in faults):
            raise next(fault for fault in faults if not fault.what.startswith("unknown "))
        known = sorted({other for sort in SORTS_OF[kind] for _, names in source.names(sort) for other in names})
        raise InputError(f"unknown {kind} {name[:64]!r}", mend=nearest(name[:64], known))
    return _without_stand_ins(subject.model_dump(mode="json", by_alias=True)), subject


def _without_stand_ins(value: Any) -> Any:
    """Dumped figures, ``null`` where a figure is not known; a default that is stated stays in ``low`` and ``high``."""
    from planner.quantities import Figure

    if isinstance(value, list):
        return [_without_stand_ins(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == set(Figure.model_fields):
        figure = Figure.model_validate(value)
        nulls = () if figure.known else ("value",) if figure.has_default else ("value", "low", "high")
        return value | dict.fromkeys(nulls)
    return {key: _without_stand_ins(item) for key, item in value.items()}


_STATEMENT = {"source", "as_of", "grade", "note"}
"""Keys of what says where a statement was read."""
UNIT_OF = {"floors": "s", "issue": "s", "reserve": "bytes", "cpu": "FLOP/s"}
"""SI unit of a runtime's figures by section; the others are fractions."""


def _print_pairs(title: str, data: dict[str, Any], prefix: str = "") -> None:
    table = new_table(title, "what", "value")

    def add(value: Any, path: str) -> None:
        if isinstance(value, dict) and not ("source" in value and "grade" in value):
            for key, item in value.items():
                add(item, f"{path}.{key}" if path else key)
        elif isinstance(value, dict) and set(value) == _STATEMENT:
            evidence = f"grade {value['grade']}, {value['as_of']}: {value['source']}"
            table.add_row(path, f"{value['note']} ({evidence})" if value["note"] else evidence)
        elif isinstance(value, dict):
            if "value" not in value:
                for key, item in value.items():
                    add(item, f"{path}.{key}" if path else key)
                return
            unit = UNIT_OF.get(path.split(".")[0], "") if not path.endswith(("multiple", "fragmentation")) else ""
            low, high = value.get("low"), value.get("high")
            span = f" [{low:g} to {high:g}]" if low is not None and high is not None else ""
            evidence = f"grade {value['grade']}, {value.get('as_of')}: {value['source']}"
            table.add_row(path, f"{value['value']:g}{span} {unit}".rstrip() + f" ({evidence})")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for index, item in enumerate(value):
                add({k: v for k, v in item.items() if k != "id"}, f"{path}.{item.get('id', index)}")
        else:
            table.add_row(path, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else compact(value))

    add(data, prefix)
    print_table(table)


@click.command("show")
@click.argument("kind", type=click.Choice(["hardware", "device", "part", "site", "model", "workload", "runtime"]))
@click.argument("name")
@click.option("--dot", type=click.Path(path_type=Path), help="Write the graph as DOT to this file, or - for stdout.")
@click.option("--force", is_flag=True, help="Overwrite the DOT file.")
@profiles_option
@format_option
def command(kind: str, name: str, dot: Path | None, force: bool, folders: tuple[Path, ...], form: str) -> None:
    """Show one entry with its figures, grades and sources.

    device, part and site are looked for among hardware of that kind alone. A drawing in FILE.dot becomes a picture with
    Graphviz: dot -Tsvg FILE.dot -o FILE.svg

    \b
    Examples:
      planner show model deepseek-v3
      planner show hardware h800-node --dot h800.dot
    """
    data: dict[str, Any]
    subject: Any = None
    if kind == "model":
        data, subject = _model(name)
    elif kind in SORTS_OF:
        data, subject = _hardware(kind, name, folders)
        kind = "hardware"
        say_file(name, data["kind"], folders, always=form == "table" and dot is None)
    elif kind == "workload":
        from planner.workload import load_workload

        data = load_workload(name).model_dump(mode="json", by_alias=True)
    else:
        from planner.runtimes import load_runtime

        data = load_runtime(name).model_dump(mode="json", by_alias=True)
    if dot is not None:
        if subject is None:
            raise click.UsageError("--dot goes with hardware or model")
        if kind == "hardware" and data["kind"] not in ("node", "rack"):
            raise click.UsageError(f"--dot draws a system; {data['id']} is a {data['kind']}")
        from planner.cli.hardware_dot import dot_of
        from planner.documents import write_whole

        text = dot_of(subject.graph(), subject) if kind == "hardware" else _dot(subject.graph())
        if str(dot) == "-":
            click.echo(text, nl=False)
            return
        write_whole(dot, text, force=force)
        click.echo(f"wrote {dot}", err=True)
        return
    if form == "json":
        echo_json(data)
    elif kind == "hardware" and data["kind"] in ("memory", "interconnect", "site"):
        from planner.cli.part_view import print_part

        print_part(subject)
    elif kind == "hardware":
        from planner.cli.hardware_tree import print_tree

        print_tree(subject, terminal_width())
    else:
        _print_pairs(f"{kind} {data['id']}", data)
