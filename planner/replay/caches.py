"""A prefix cache of blocks over several memories: the most recent in the first, what it drops in the next, LRU in each.

A block is known by its hash, which stands for it and all before it. A request finds the blocks of its longest known prefix; it
then uses its blocks from the last to the first, so that the end of a prompt leaves before its beginning.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class BlockCache:
    """``rooms``: blocks that each memory holds, nearest first (``inf`` for no limit)."""

    rooms: list[float]
    layers: list[OrderedDict[int, None]] = field(init=False)
    written: list[int] = field(init=False)
    """Blocks that came into each memory from the one before it."""
    dropped: int = 0

    def __post_init__(self) -> None:
        self.layers = [OrderedDict() for _ in self.rooms]
        self.written = [0] * len(self.rooms)

    def find(self, blocks: Sequence[int]) -> list[int]:
        """How many of the longest prefix that is known lie in each memory."""
        found = [0] * len(self.layers)
        for block in blocks:
            for place, layer in enumerate(self.layers):
                if block in layer:
                    found[place] += 1
                    break
            else:
                break
        return found

    def known(self, blocks: Sequence[int]) -> int:
        """Blocks that are known, each for itself."""
        return sum(1 for block in blocks if any(block in layer for layer in self.layers))

    def use(self, blocks: Sequence[int]) -> None:
        """Blocks are read or made; what has no room moves on."""
        if not self.layers:
            return
        first, others = self.layers[0], self.layers[1:]
        for block in reversed(blocks):
            if block in first:
                first.move_to_end(block)
                continue
            for layer in others:
                if layer.pop(block, 0) is None:
                    break
            first[block] = None
        self._settle()

    def _settle(self) -> None:
        for place, (layer, room) in enumerate(zip(self.layers, self.rooms, strict=True)):
            while len(layer) > room:
                block, _ = layer.popitem(last=False)
                if place + 1 < len(self.layers):
                    self.layers[place + 1][block] = None
                    self.written[place + 1] += 1
                else:
                    self.dropped += 1
