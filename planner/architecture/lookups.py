"""Everything a model addresses by token as items of its own: tables of rows, and experts chosen by token id.

Their addresses are known before the pass, so they can be fetched while the blocks before them run.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.architecture.blocks import Block, Model
from planner.architecture.parts import Hashed
from planner.architecture.popularity import Popularity


@dataclass(frozen=True)
class Lookup:
    """One table (an embedding, an Engram table, a table of experts per token) of one layer."""

    block: str
    group: str
    layer: int
    rows: int
    row_bytes: int
    rows_per_token: float
    bytes: int
    hashed: Hashed | None
    window: tuple[tuple[str, int], ...]
    """The prefetch window: blocks that run before the rows are needed, each with how many of its layers do."""

    @property
    def tables(self) -> int:
        """Sub-tables of equal popularity (one per n-gram order and hash head), each read once a token."""
        return self.hashed.rows_per_token if self.hashed else 1

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the rows one token needs."""
        return self.rows_per_token * self.row_bytes

    def hit_rate(self, popularity: Popularity, hot_rows: int) -> float:
        """The expected share of reads served by the ``hot_rows`` most popular rows, held in equal parts of every sub-table."""
        return popularity.hit_rate(max(1, self.rows // self.tables), hot_rows // self.tables)

    def amplification(self, granule_bytes: int) -> float:
        """Bytes a block device moves for each byte needed, every row lying inside a granule of its own."""
        return -(-self.row_bytes // granule_bytes) * granule_bytes / self.row_bytes

    def device_bytes_per_token(self, granule_bytes: int, hit_rate: float = 0.0) -> float:
        """Bytes a token moves from a device that reads whole granules, after a cache in front of it."""
        return self.bytes_per_token * self.amplification(granule_bytes) * (1.0 - hit_rate)

    def iops(self, tokens_per_s: float, hit_rate: float = 0.0) -> float:
        """Random reads per second at that many tokens per second, after a cache in front of it."""
        return tokens_per_s * self.rows_per_token * (1.0 - hit_rate)

    def resident_bytes(self, *, replicas: int = 1, nodes: int = 1, per_node: bool = True) -> int:
        """Bytes of all copies: one per node that replicas share, or one per data-parallel replica."""
        return self.bytes * (nodes if per_node else replicas)


def lookups(model: Model) -> tuple[Lookup, ...]:
    """The tables of a model's main part in execution order; a table that two blocks share stands once."""
    found = []
    for block in model.blocks:
        if block.draft:
            continue
        for group in block.weights:
            if group.access != "lookup" or group.shares:
                continue
            for layer in block.layer_ids:
                found.append(
                    Lookup(
                        block.id,
                        group.name,
                        layer,
                        group.rows or 1,
                        group.row_bytes(),
                        group.rows_per_token,
                        group.bytes(),
                        group.hashed,
                        prefetch_window(model, layer),
                    )
                )
    return tuple(sorted(found, key=lambda item: item.layer))


def prefetch_window(model: Model, layer: int) -> tuple[tuple[str, int], ...]:
    """Blocks, with how many of their layers, that run before layer ``layer`` starts."""
    before = ((block, sum(1 for number in block.layer_ids if number < layer)) for block in model.blocks if not block.draft)
    return tuple((block.id, count) for block, count in before if count)


def token_addressed(model: Model) -> tuple[tuple[Block, str], ...]:
    """Blocks and groups whose address the token alone gives: tables, and the experts of hash-routed layers."""
    return tuple((block, group.name) for block in model.blocks for group in block.weights if group.address == "token")
