"""The topology of one node as DOT text: memories, links, devices and networks; contention groups as clusters."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from planner.cli.hardware_tree import stated

if TYPE_CHECKING:
    from networkx import DiGraph

    from planner.hardware import System

_SHAPES = {"device": "box", "tier": "cylinder", "link": "cds", "domain": "ellipse"}


def quoted(*lines: str) -> str:
    """A DOT string of these lines: quotes and backslashes are escaped, so that any text is one token."""
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line) + '"'


def dot_of(graph: DiGraph[str], system: System) -> str:
    """DOT of ``system.graph()``: edges as a read's bytes flow, both ways at a network.

    A cluster is the contention group of one device; a network that belongs to the groups of several devices stands outside
    and is named in their labels.
    """
    groups: dict[str, list[str]] = {name: list(dict.fromkeys(nodes)) for name, nodes in graph.graph["groups"].items()}
    member = Counter(node for nodes in groups.values() for node in nodes)
    nodes = system.devices // system.devices_per_node
    title = quoted(f"{system.name}: {f'one node of {nodes}' if nodes > 1 else 'the node'}, {system.devices_per_node} devices")
    lines = [f"digraph {quoted(system.id)} {{", f"  label={title}; labelloc=t;"]
    lines.append("  rankdir=LR; compound=true; node [fontname=monospace];")
    placed: set[str] = set()
    for name, inside in groups.items():
        shared = [node for node in inside if member[node] > 1]
        beside = f"shares its way with {', '.join(shared)}" if shared else ""
        lines.append(f"  subgraph {quoted(f'cluster {name}')} {{ label={quoted(name, beside)}; style=dashed;")
        for node in inside:
            if member[node] == 1:
                lines.append(f"    {_node(node, graph.nodes[node], system)}")
                placed.add(node)
        lines.append("  }")
    lines += [f"  {_node(node, data, system)}" for node, data in graph.nodes(data=True) if node not in placed]
    for source, target in graph.edges:
        both = graph.has_edge(target, source)
        if both and graph.nodes[source]["kind"] == "domain":
            continue
        lines.append(f"  {quoted(source)} -> {quoted(target)}{' [dir=both]' if both else ''};")
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: str, data: dict[str, Any], system: System) -> str:
    part: Any = data.get("part")
    label = [node]
    if data["kind"] == "device":
        label.append(system.device.name)
    if data["kind"] == "tier":
        label += [f"{part.kind}, {stated(part.usable, 'bytes')}", f"read {stated(part.read, 'bytes_per_s')}"]
    elif data["kind"] == "link":
        label += [part.generation or part.kind, stated(part.bandwidth, "bytes_per_s")]
    elif data["kind"] == "domain":
        label += [f"{part.network}, {part.topology}", f"{stated(part.bandwidth, 'bytes_per_s')} a device"]
    return f"{quoted(node)} [label={quoted(*label)}, shape={_SHAPES[data['kind']]}];"
