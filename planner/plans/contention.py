"""Which channels may bind in a tier problem, and what networks take of them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from operator import ge

from planner.footprint.pieces import ModelPieces
from planner.footprint.shapes import Shapes
from planner.performance.network_time import network_bytes
from planner.performance.passes import PassTimes
from planner.performance.rates import Rates, TierRate


class NetworkTime:
    """What the networks of contention groups take of a group's channels for one layer of a window (ms): bytes over the group's
    rate, at most the time of the collectives, which are measured beside one another."""

    def __init__(self, pieces: ModelPieces, shapes: Shapes, rates: Rates, passes: Mapping[str, PassTimes]) -> None:
        self._given = pieces, shapes, rates
        self._passes = passes
        inner, reached = 1.0, set()
        for level in rates.levels:
            if float(shapes.width[0]) > inner:
                reached.add(level.id)
            inner = level.devices
        self.taken = {channel: levels for channel, levels in rates.contended.items() if reached & set(levels)}
        """Channel -> network level -> seconds a byte, where this configuration reaches the network."""
        self._known: dict[tuple[int, str], dict[str, float]] = {}

    def of(self, window: int, phase: str) -> dict[str, float]:
        """Milliseconds by channel."""
        if not self.taken or not self._passes[phase].loads:
            return {}
        key = window, phase
        if key not in self._known:
            pieces, shapes, rates = self._given
            sent: dict[str, float] = {}
            for block in (*pieces.windows, *pieces.draft)[window].blocks:
                for level, moved in network_bytes(block, pieces, shapes, rates, self._passes[phase].loads[window]).items():
                    sent[level] = sent.get(level, 0.0) + float(moved[0])
            most = sum(float(block.communication[0]) for block in self._passes[phase].windows[window])
            self._known[key] = {
                channel: min(sum(sent.get(level, 0.0) * each for level, each in levels.items()), most) * 1e3
                for channel, levels in self.taken.items()
            }
        return self._known[key]


def needed_channels(tiers: list[TierRate], networks: Container[str]) -> dict[str, bool]:
    """The channels that may bind, and whether one binds for what is written alone.

    A channel that another is at least as busy as with every byte, of every tier, says nothing, unless networks load it too.
    """
    ids = list(dict.fromkeys(channel.id for tier in tiers for channel in tier.channels))
    costs = {name: [cost for tier in tiers for c in (tier.channel(name),) for cost in (c.read, c.write)] for name in ids}
    kept: list[str] = []
    for name in ids:
        if name in networks or not any(all(map(ge, costs[other], costs[name])) for other in kept):
            kept.append(name)
    return {name: not any(costs[name][::2]) for name in kept}
