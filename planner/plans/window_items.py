"""The items of a model's windows: what the tier problem places, with the bytes that lie and move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from planner.footprint.memory import (
    cache_bytes_per_sequence,
    cache_ways,
    lookup_bytes,
    routed_bytes,
    split_ways,
    static_bytes,
    window_cache_bytes,
)
from planner.footprint.pieces import BlockPieces, LookupItem, ModelPieces, Window, cache_parts
from planner.footprint.shapes import Shapes
from planner.performance.passes import PassTimes
from planner.performance.rates import TierRate
from planner.plans.prefix import age_name

ByPhase = dict[str, float]


@dataclass(frozen=True)
class Item:
    """One aggregated item of a window, per layer and device (bytes); ``reads`` and ``fetches`` by phase.

    ``rows``: how many a token reads and bytes of each, for tables and for entries that are chosen. ``ahead``: the tokens of a
    pass say what it needs. ``copy_ways``: devices over which one copy is spread (0: nothing to share). ``readers``, for caches
    whose entries are chosen or that other windows read too: window -> (bytes a pass needs, bytes if it read all), own window
    included.
    """

    window: int
    name: str
    kind: str
    held: float
    reads: ByPhase
    fetches: ByPhase
    rows: tuple[tuple[float, float], ...] = ()
    ahead: bool = False
    copy_ways: int = 0
    width: int = 0
    """Devices of a pipeline stage."""
    readers: dict[int, tuple[ByPhase, ByPhase]] = field(default_factory=dict)
    writes: ByPhase = field(default_factory=dict)
    """Of what the layers of its own window move, what they write."""

    @property
    def names(self) -> tuple[str, ...]:
        """What pins and bans call it: ``KV cache``, and ``KV cache: index``."""
        whole = self.name.split(",")[0]
        return tuple(dict.fromkeys((whole.split(":")[0], whole)))

    @property
    def modes(self) -> tuple[str, ...]:
        """How it may come from a memory below."""
        if self.kind == "prefix":
            return ("prefetch",)
        if self.kind == "lookup":
            return ("prefetch", "fetch") if self.ahead else ("fetch",)
        chosen = any(needed[p] < whole[p] for needed, whole in self.readers.values() for p in needed)
        return ("stream", "fetch") if self.kind == "routed" or chosen else ("stream",)

    @property
    def windows(self) -> tuple[int, ...]:
        """The windows whose layers read it."""
        return tuple(self.readers) or (self.window,)

    def read_in(self, phase: str) -> bool:
        """Whether a pass of a phase reads any of it."""
        return bool(self.reads[phase] or self.fetches[phase])

    @property
    def density(self) -> float:
        """Of a prefix cache what a pass brings back for each byte kept (0 of all else)."""
        return self.reads.get("prefill", 0.0) / self.held if self.kind == "prefix" else 0.0

    def amplification(self, granule: int) -> float:
        """Bytes moved for each byte needed where rows (per token, bytes each) come from a tier of that granule."""
        needed = sum(count * size for count, size in self.rows)
        moved = sum(count * -(-size // granule) * granule for count, size in self.rows)
        return moved / needed if needed else 1.0

    def moved(self, mode: str, granule: int, phase: str, window: int | None = None) -> float:
        """Bytes that one layer of a window (its own) moves in a pass of a phase."""
        needed, whole = self.readers.get(self.window if window is None else window, (self.reads, self.reads))
        if mode == "stream":
            return self.held if self.kind == "routed" else whole[phase]
        return needed[phase] * self.amplification(granule)

    def written(self, mode: str, granule: int, phase: str, window: int) -> float:
        """Bytes among ``moved`` that the layer writes: new entries of a cache that it holds."""
        if window != self.window:
            return 0.0
        return self.writes.get(phase, 0.0) * (1.0 if mode == "stream" else self.amplification(granule))

    def exposed(self, mode: str, phase: str, window: int) -> bool:
        """Whether a layer waits for it: what it needs is known only when it is needed. A pass that needs all of a cache does
        not choose."""
        if mode != "fetch" or self.kind != "cache":
            return mode == "fetch"
        needed, whole = self.readers[window]
        return needed[phase] < whole[phase]

    def held_in(self, tier: TierRate | None) -> float:
        """Bytes of one layer that count against a device's part of a memory (``None``: its own).

        Devices that share a memory need one copy of a table between them. A stage's devices adjoin, so that of any
        ``g = gcd(sharers, width of the stage)`` in line share one memory; where ``g`` holds whole copies, of ``copy_ways``
        devices each, one of them is enough.
        """
        if tier is None or not self.copy_ways:
            return self.held
        together = math.gcd(tier.sharing, self.width)
        return self.held * self.copy_ways / together if together % self.copy_ways == 0 else self.held

    def staged(self, mode: str, layers: int) -> float:
        """Bytes of device memory for the buffers: two layers' share of what is streamed or fetched, or what is fetched ahead for
        one pass of each phase (its rows are used at once, and then make room for those of the next). Rows of tables that are
        fetched on demand are themselves the block's result.
        """
        if mode == "resident" or (mode == "fetch" and self.kind == "lookup"):
            return 0.0
        if mode == "stream":
            return 2.0 * self.held
        if mode == "prefetch":
            return min(sum(self.reads.values()), self.held) * layers
        most = max((self.moved("fetch", 1, p, w) for w in self.windows for p in self.reads), default=0.0)
        return 2.0 * min(most, self.held)


def class_name(base: str, place: int, classes: int) -> str:
    """``routed experts``, or of which class by falling use."""
    return base if classes == 1 else f"{base}, use class {place + 1} of {classes}"


def window_items(
    pieces: ModelPieces,
    shapes: Shapes,
    passes: Mapping[str, PassTimes],
    sequences: float,
    reserved_tokens: int,
    page_tokens: int,
    prefix: tuple[tuple[float, float], ...] = (),
) -> tuple[Item, ...]:
    """The items of every window (draft last) with bytes held and moved per layer; ``shapes`` has one row.

    ``prefix``: tokens that a rank keeps of each age class, and tokens that a prefill pass brings back.
    """
    items: list[Item] = []
    windows = (*pieces.windows, *pieces.draft)
    foreign = _foreign_reads(windows)
    for number, window in enumerate(windows):
        static = sum(float(static_bytes(block.static, shapes)[0]) for block in window.blocks)
        if static:
            reads = {p: sum(float(b.static_read[0]) for b in t.windows[number]) for p, t in passes.items()}
            items.append(Item(number, "weights", "static", static, reads, dict.fromkeys(passes, 0.0)))
        for index, block in enumerate(window.blocks):
            if block.routed:
                held = float(routed_bytes(block.routed, shapes)[0])
                for place, size in enumerate(sizes := block.routed.class_sizes):
                    part = {p: float(t.windows[number][index].routed_parts[place][0]) for p, t in passes.items()}
                    reads = {p: float(t.windows[number][index].routed_read[0]) * part[p] for p, t in passes.items()}
                    fetches = {p: float(t.windows[number][index].routed_fetches[0]) * part[p] for p, t in passes.items()}
                    name = class_name("routed experts", place, len(sizes))
                    items.append(Item(number, name, "routed", held * size / block.routed.experts, reads, fetches))
            items += _tables(number, index, block, shapes, passes)
        items += _caches(number, windows, foreign, shapes, passes, sequences, reserved_tokens, page_tokens)
        each = float(window_cache_bytes(window, shapes, reserved_tokens, page_tokens)[0]) / reserved_tokens if prefix else 0.0
        for place, (kept, found) in enumerate(prefix):
            if each and kept:
                reads = {phase: found * each if phase == "prefill" else 0.0 for phase in passes}
                name = age_name(place, len(prefix))
                items.append(Item(number, name, "prefix", kept * each, reads, dict.fromkeys(passes, 0.0), ahead=True))
    return tuple(items)


def _tables(number: int, index: int, block: BlockPieces, shapes: Shapes, passes: Mapping[str, PassTimes]) -> list[Item]:
    """The tables of a block, together, by class of use."""
    held = [float(lookup_bytes(table, shapes)[0]) for table in block.lookups]
    if not any(held):
        return []
    ways = [float(split_ways(shapes.tp, table.tensor_axis)[0]) for table in block.lookups]
    read = [table.rows_per_token * table.row_bytes / way for table, way in zip(block.lookups, ways, strict=True)]
    rows = tuple((table.rows_per_token, table.row_bytes) for table in block.lookups)
    ahead = all(table.by_token for table in block.lookups)
    shared = int(ways[0]) if len(set(ways)) == 1 else 0
    found = []
    uses = [table.use for table in block.lookups]
    classes = len(uses[0])
    for place in range(classes):
        size = sum(bytes_ * use[place][0] for bytes_, use in zip(held, uses, strict=True))
        if not size:
            continue
        part = sum(bytes_ * use[place][1] for bytes_, use in zip(read, uses, strict=True)) / (sum(read) or 1.0)
        reads = {p: float(t.windows[number][index].lookup_read[0]) * part for p, t in passes.items()}
        once = {p: min(1.0, value / min(row for _, row in rows)) if classes > 1 else 1.0 for p, value in reads.items()}
        name = class_name(block.lookups[0].label, place, classes)
        found.append(Item(number, name, "lookup", size, reads, once, rows, ahead, shared, int(shapes.width[0])))
    return found


def _foreign_reads(windows: tuple[Window, ...]) -> dict[tuple[str, str], list[tuple[int, int, int]]]:
    """``(window, block, cache)`` of every reader that does not hold the cache itself, by ``(owner, cache)``."""
    found: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for number, window in enumerate(windows):
        for at, block in enumerate(window.blocks):
            for place, cache in enumerate(block.caches):
                if not cache.held:
                    found.setdefault((cache.owner, cache.name), []).append((number, at, place))
    return found


def _caches(
    number: int,
    windows: tuple[Window, ...],
    foreign: dict[tuple[str, str], list[tuple[int, int, int]]],
    shapes: Shapes,
    passes: Mapping[str, PassTimes],
    sequences: float,
    reserved_tokens: int,
    page_tokens: int,
) -> list[Item]:
    """The caches that a window holds, those that are read alike together."""
    found = []
    window = windows[number]
    for name, members in cache_parts(window).items():
        held = 0.0
        readers: dict[int, tuple[ByPhase, ByPhase]] = {}
        rows: list[tuple[float, float]] = []
        moved: list[tuple[int, int, int]] = []
        writes = dict.fromkeys(passes, 0.0)
        for at, place in members:
            block = window.blocks[at]
            entry = block.caches[place]
            size = cache_bytes_per_sequence(entry, reserved_tokens, page_tokens)
            held += float(np.ceil(size / cache_ways(shapes, entry.tensor_axis))[0]) * sequences
            moved += [(number, at, place), *foreign.get((block.id, entry.name), ())]
        for reader, at, place in moved:
            needed, whole = readers.setdefault(reader, (dict.fromkeys(passes, 0.0), dict.fromkeys(passes, 0.0)))
            entry = windows[reader].blocks[at].caches[place]
            if entry.chosen:
                rows.append((1.0, float(entry.entry_bytes)))
            for phase, times in passes.items():
                part = times.windows[reader][at].cache_moves(place)
                needed[phase] += float(part.needed[0])
                whole[phase] += float(part.whole[0])
                writes[phase] += float(part.written[0]) if reader == number else 0.0
        if held:
            reads = readers[number][0]
            fetches = dict.fromkeys(passes, 1.0 if rows else 0.0)
            plain = not rows and len(readers) == 1
            others = {} if plain else readers
            found.append(Item(number, name, "cache", held, reads, fetches, tuple(rows), readers=others, writes=writes))
    return found


def table_sizes(table: LookupItem) -> tuple[int, ...]:
    """Whole bytes of each class of use; they add up to the table."""
    edges = [0]
    before = 0.0
    for share, _ in table.use[:-1]:
        before += share
        edges.append(round(table.bytes * before))
    edges.append(table.bytes)
    return tuple(high - low for low, high in zip(edges, edges[1:], strict=False))
