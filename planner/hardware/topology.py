"""Who reaches which memory over which links, and what is left when all sharers stream at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import InputError
from planner.hardware.channels import tier_channels

if TYPE_CHECKING:
    from networkx import DiGraph

    from planner.hardware.schema import Link, System, Tier


MAX_DEVICES = 1024
"""Devices of a node beyond which nobody reads its graph; it grows with devices times memories."""


def _parts(system: System) -> dict[str, Tier | Link]:
    parts: dict[str, Tier | Link] = {tier.id: tier for tier in system.tiers}
    return parts | {link.id: link for link in system.links}


def tier_rate(system: System, tier_id: str) -> list[tuple[str, float]]:
    """``(resource id, bytes/s per device)`` for the tier and everything its bytes pass; see ``System.tier_rate``."""
    names = (tier_id, *system.tier(tier_id).via)
    return [(channel.id, 1.0 / channel.read) for channel in tier_channels(system, tier_id) if channel.id in names]


def graph(system: System) -> DiGraph[str]:
    """One node of the system as a directed graph, edges in the direction in which a read's bytes flow.

    Nodes carry ``kind`` (``device``, ``tier``, ``link`` or ``domain``) and, except devices, the profile's ``part``.
    ``device:3`` is the fourth device, ``host@1`` the second owner's copy of tier ``host``, ``pcie@3`` the fourth link,
    ``domain:nvlink`` a network. ``graph.graph["groups"]`` maps the contention group of each device (``pcie-switch@3``) to its
    links and domains; every link and tier node carries ``sharers``, the devices of this node that use it.
    ``InputError`` above ``MAX_DEVICES`` a node.
    """
    import networkx

    if system.devices_per_node > MAX_DEVICES:
        what = f"a node of {system.devices_per_node} devices is too large for a graph of each (at most {MAX_DEVICES})"
        raise InputError(what, where=system.id, mend="draw a profile with fewer devices_per_node")

    result: DiGraph[str] = networkx.DiGraph(system=system.id, groups={})
    parts = _parts(system)

    def instance(name: str, index: int) -> str:
        """The copy of a link or tier that serves device ``index``."""
        return f"{name}@{index // parts[name].devices_sharing}"

    for index in range(system.devices_per_node):
        device = f"device:{index}"
        result.add_node(device, kind="device")
        for tier in system.tiers:
            path = [instance(name, index) for name in dict.fromkeys((tier.id, *tier.via))]
            networkx.add_path(result, [*path, device])
        for domain in system.domains:
            result.add_edge(device, f"domain:{domain.id}")
            result.add_edge(f"domain:{domain.id}", device)
        for name in parts:
            result.add_node(instance(name, index))
            result.nodes[instance(name, index)].setdefault("sharers", []).append(index)
    for domain in system.domains:
        result.nodes[f"domain:{domain.id}"].update(kind="domain", part=domain)
    links = {link.id: link for link in system.links}
    for node, data in result.nodes(data=True):
        name, _, copy = node.partition("@")
        if copy:
            data.update(kind="link" if name in links else "tier", part=parts[name])
    grouped = [(link.group, link.id) for link in system.links if link.group]
    networks = [(domain.group, f"domain:{domain.id}") for domain in system.domains if domain.group]
    for index in range(system.devices_per_node):
        for group, name in grouped:
            result.graph["groups"].setdefault(f"{group}@{index}", []).append(instance(name, index))
        for group, name in networks:
            result.graph["groups"].setdefault(f"{group}@{index}", []).append(name)
    return result
