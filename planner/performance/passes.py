"""One pass of a rank through the model (a decode step or a prefill chunk): seconds by block and part.

A block takes ``floor + max(compute, memory) + communication`` (a maximum over all three where the runtime overlaps
collectives). Nothing here knows tiers: memory time is that of everything lying in device memory; what streaming adds
is the tier problem's (``planner.plans.tiers``).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from planner.architecture import Span
from planner.footprint.memory import cache_ways, experts_per_rank, split_ways, static_read_bytes
from planner.footprint.pieces import BlockPieces, CacheItem, ModelPieces, RoutedItem, Window
from planner.footprint.shapes import Column, Shapes
from planner.performance.collectives import point_to_point
from planner.performance.experts import fullest_distinct, fullest_load, touched_by_class
from planner.performance.load import Load, tokens_of
from planner.performance.network_time import communication_seconds, context_seconds
from planner.performance.rates import Rates

_PLAIN_MATRICES = {"attention": 4, "mlp": 3, "moe": 1}
"""Of a plain block: queries, keys, values and output; gate, up and down; the router. Low ranks, an indexer, a recurrence's
projections and shared experts are more."""


@dataclass(frozen=True)
class CacheMoves:
    """Bytes of one cache that a pass reads and writes on a device (``needed``), or if it read all it chooses from (``whole``);
    ``written``: of either."""

    needed: Column
    whole: Column
    written: Column


@dataclass
class BlockTimes:
    """Parts of one block in one layer (seconds per pass), and the bytes behind its memory time (per device)."""

    id: str
    kind: str
    floor: Column
    compute: Column
    memory: Column
    communication: Column
    static_read: Column
    routed_read: Column
    routed_fetches: Column
    lookup_read: Column
    cache_read: Column
    cache_write: Column
    overlapped: bool = False
    routed_parts: tuple[Column, ...] = ()
    """Share of the experts woken that is of each class of use."""
    caches: tuple[CacheMoves, ...] = ()
    """Every cache of the block; empty where it has one at most."""
    issue: float = 0.0
    """Seconds that the host needs to issue its kernels one by one, its floor at least."""

    def cache_moves(self, number: int) -> CacheMoves:
        """What moves of cache ``number`` of the block."""
        whole = self.cache_read + self.cache_write
        return self.caches[number] if self.caches else CacheMoves(whole, whole, self.cache_write)

    @cached_property
    def total(self) -> Column:
        """``floor + max(compute, memory) + communication``; with overlap the maximum covers communication too."""
        if self.overlapped:
            return self.floor + np.maximum(np.maximum(self.compute, self.memory), self.communication)
        return self.floor + np.maximum(self.compute, self.memory) + self.communication


@dataclass
class PassTimes:
    """A pass: per window its blocks and how often a stage runs it; ``step`` once a pass and stage, ``hop`` between stages."""

    windows: list[list[BlockTimes]]
    repeats: list[list[float]]
    step: Column
    hop: Column
    names: list[str] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)
    """What each window carries."""

    def window_total(self, index: int) -> Column:
        """Seconds of one layer of a window, all in device memory."""
        total = self.step * 0.0
        for block in self.windows[index]:
            total = total + block.total
        return total

    def stage_times(self) -> list[Column]:
        """Seconds of each stage type, all in device memory."""
        totals = [self.window_total(i) for i in range(len(self.windows))]
        times = []
        for repeats in self.repeats:
            time = self.step + self.hop
            for repeat, total in zip(repeats, totals, strict=True):
                if repeat:
                    time = time + repeat * total
            times.append(time)
        return times

    def slowest_stage(self) -> Column:
        """Seconds of the slowest stage: what the pipeline moves at."""
        return self._slowest

    @cached_property
    def _slowest(self) -> Column:
        return np.asarray(np.max(np.stack(self.stage_times()), axis=0))


class _Pass:
    """One pass on every row of ``shapes``: what blocks that differ in name alone share is worked out once."""

    def __init__(self, pieces: ModelPieces, shapes: Shapes, rates: Rates, load: Load) -> None:
        self._given = pieces, shapes, rates, load
        self._blocks: dict[BlockPieces, BlockTimes] = {}
        self._communication: dict[tuple[str, RoutedItem | None], Column] = {}

    def block(self, block: BlockPieces) -> BlockTimes:
        """The parts of a block."""
        if block.nameless not in self._blocks:
            self._blocks[block.nameless] = _block_times(block, *self._given[1:], self._travel(block))
        return replace(self._blocks[block.nameless], id=block.id)

    def _travel(self, block: BlockPieces) -> Column:
        pieces, shapes, rates, load = self._given
        key = block.kind, block.routed
        if key not in self._communication:
            self._communication[key] = communication_seconds(block, pieces, shapes, rates, tokens_of(block, shapes, load))
        return self._communication[key]


def _block_times(block: BlockPieces, shapes: Shapes, rates: Rates, load: Load, communication: Column) -> BlockTimes:
    ones = np.ones_like(shapes.tp)
    zeros = np.zeros_like(shapes.tp)
    tokens = tokens_of(block, shapes, load)
    compute = zeros.copy()
    for gemm in block.gemms:
        flops = 2.0 * gemm.parameters / split_ways(shapes.tp, gemm.tensor_axis) * tokens
        compute += flops / rates.gemm_flop_per_s(gemm.dtype, tokens, "dense")
    spread = 1.0 + np.sqrt(2.0 * np.log(shapes.dp)) * load.variation / np.sqrt(np.maximum(load.sequences, 1e-300))
    padded = 1.0 + np.sqrt(2.0 * np.log(shapes.dp)) * load.variation / np.sqrt(np.maximum(tokens, 1.0))
    compute += _attention_seconds(block, shapes, rates, load, tokens) * padded

    routed_read, fetches = zeros, zeros
    routed_parts: tuple[Column, ...] = (ones,)
    if block.routed:
        item = block.routed
        slots = experts_per_rank(item, shapes)
        pass_tokens = tokens * shapes.dp
        pairs = fullest_load(pass_tokens, item, slots, shapes.ep)
        pairs = np.minimum(pairs * np.where(shapes.ep > 1, rates.imbalance, 1.0), pass_tokens * np.minimum(item.active, slots))
        fetches = fullest_distinct(pass_tokens, item, slots, shapes.ep)
        rows = pairs / np.maximum(fetches, 1e-300)
        flops = 2.0 * item.member_parameters / shapes.moe_tp * pairs
        width = item.inner / shapes.moe_tp
        narrow = 1.0 + rates.routed_width / np.maximum(width, 1.0)
        compute += flops / rates.gemm_flop_per_s(item.dtype, rows, "routed") * narrow
        woken = touched_by_class(item, pass_tokens)
        all_woken = np.maximum(np.sum(np.stack(woken), axis=0), 1e-300)
        routed_parts = tuple(part / all_woken for part in woken)
        routed_read = fetches * np.ceil(item.member_bytes / shapes.moe_tp)
    static_read = static_read_bytes(block.static, shapes)
    lookup_read = zeros
    for lookup in block.lookups:
        rows_read = lookup.rows_per_token * lookup.row_bytes * tokens
        lookup_read = lookup_read + rows_read / split_ways(shapes.tp, lookup.tensor_axis)
    cache_read, cache_write = zeros, zeros
    moves: list[CacheMoves] = []
    for cache in block.caches:
        ways = cache_ways(shapes, cache.tensor_axis)
        entries, whole = entries_read(cache, load)
        read = load.sequences * (spread * entries * cache.entry_bytes + cache.fixed_read) / ways
        cache_read, write = cache_read + read, zeros
        if cache.held:
            written = tokens * cache.entry_bytes / cache.span.ratio + load.sequences * cache.fixed_written
            cache_write, write = cache_write + written / ways, written / ways
        if cache.chosen:
            read_whole = load.sequences * (spread * whole * cache.entry_bytes + cache.fixed_read) / ways
            moves.append(CacheMoves(read + write, read_whole + write, write))
        else:
            moves.append(CacheMoves(read + write, read + write, write))
    moved = static_read + routed_read / rates.routed_read + lookup_read + (cache_read + cache_write) / rates.cache_read
    memory = moved / rates.memory_bytes_per_s
    if np.any(shapes.cp > 1.0):
        communication = communication + context_seconds(block, shapes, rates, load, tokens)
    start = rates.floors.get(block.kind if block.kind in rates.floors else "", 0.0) + rates.matrix_s * more_matrices(block)
    floor = max(start, rates.memory_startup_s)
    issue = rates.issue.get(block.kind, 0.0) + rates.issue.get("matrix", 0.0) * more_matrices(block)
    return BlockTimes(
        block.id,
        block.kind,
        floor * ones,
        compute,
        memory,
        communication,
        static_read,
        routed_read,
        fetches,
        lookup_read,
        cache_read,
        cache_write,
        rates.overlap_communication,
        routed_parts,
        tuple(moves),
        max(issue, floor),
    )


def more_matrices(block: BlockPieces) -> int:
    """Weight matrices of a block beyond those of a plain one of its kind."""
    return max(block.matrices - _PLAIN_MATRICES.get(block.kind, block.matrices), 0)


def entries_read(cache: CacheItem, load: Load) -> tuple[Column, Column]:
    """``(entries of a sequence that a pass reads, all that it would read without a choice)``.

    Each new token chooses its own entries. The tokens of a prefill pass read the union of what they choose, at most so many
    times the entries of one, and at most all; the drafts of a decode step are taken to choose what their first token does.
    """
    entries = cache.read_span.entries(load.read_context)
    if not cache.chosen:
        return entries, entries
    whole = cache.whole_span.entries(load.read_context)
    if load.phase == "prefill":
        entries = np.minimum(whole, entries * np.maximum(load.tokens / np.maximum(load.sequences, 1e-300), 1.0))
    return entries, whole


def mean_entries(span: Span, middle: Column | float, half_width: Column | float) -> Column | float:
    """Mean of ``span.entries(T)`` for T spread evenly over ``middle`` plus or minus ``half_width``.

    Entries grow as ``T / ratio`` up to a limit L = min(window, cap ratio) and stay there, so the mean of ``min(T, L)`` over
    ``[a, b]`` is ``((L^2 - a^2) / 2 + L (b - L)) / (b - a)`` where L lies inside.
    """
    low, high = middle - half_width, middle + half_width
    limit = min(span.window or math.inf, math.inf if span.cap is None else span.cap * span.ratio)
    if math.isinf(limit) or not np.any(half_width):
        return span.entries(middle)
    inside = (low < limit) & (limit < high)
    outside = span.entries(np.where(limit >= high, middle, limit))
    spread = np.where(inside, high - low, 1.0)
    bent = ((limit**2 - low**2) / 2.0 + limit * (high - limit)) / spread / span.ratio
    return np.asarray(np.where(inside, bent, outside))


def attention_dtype(dtype: str, peaks: Collection[str]) -> str:
    """The dtype that a device with these peaks runs an attention term of that dtype in."""
    return next(name for name in (dtype, "fp8", "int8", "bf16") if name in peaks or name == "bf16")


def _attention_seconds(block: BlockPieces, shapes: Shapes, rates: Rates, load: Load, tokens: Column) -> Column:
    """Attention cores: terms without a mode always run; of the modes a phase allows the cheaper one runs."""
    fixed = np.zeros_like(shapes.tp)
    modes: dict[str, Column] = {}
    for term in block.flops:
        if load.phase not in term.phases:
            continue
        flops = (
            term.per_pair * mean_entries(term.span, load.context, load.context_half_width) * tokens
            + term.per_cached_token * load.cached
        )
        rate = rates.peak[attention_dtype(term.dtype, rates.peak)] * rates.efficiency["attention"]
        seconds = flops / split_ways(shapes.tp, term.tensor_axis) / rate
        if term.mode:
            modes[term.mode] = modes.get(term.mode, np.zeros_like(shapes.tp)) + seconds
        else:
            fixed = fixed + seconds
    if modes:
        fixed = fixed + np.min(np.stack(list(modes.values())), axis=0)
    return fixed


def pass_times(pieces: ModelPieces, shapes: Shapes, rates: Rates, load: Load) -> PassTimes:
    """All parts of a pass on every row of ``shapes``."""
    ones = np.ones_like(shapes.tp)
    windows: list[list[BlockTimes]] = []
    names: list[str] = []

    def add(window: Window, carried: _Pass) -> None:
        windows.append([carried.block(block) for block in window.blocks])
        names.append(window.name)

    whole = _Pass(pieces, shapes, rates, load)
    for window in pieces.windows:
        add(window, whole)
    drafting = load
    if load.phase == "decode" and load.draft_passes:  # a draft pass runs one token a sequence, verification all of them
        share = 1.0 / (1 + load.draft_passes)
        drafting = replace(load, tokens=load.tokens * share, head_tokens=load.head_tokens * share)
    small = _Pass(pieces, shapes, rates, drafting)
    for window in pieces.draft:
        add(window, small)
    stages = pieces.stage_table(shapes.pp)
    repeats: list[list[float]] = []
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        row = [float(n) for n in stage]
        row = [
            repeat if all(load.phase in block.phases for block in window.blocks) else 0.0
            for repeat, window in zip(row, pieces.windows, strict=True)
        ]
        row += [float(load.draft_passes) if last else 0.0 for _ in pieces.draft]
        repeats.append(row)
    step = rates.floors["step"] * ones
    if load.phase == "decode":
        step = step + rates.floors["sequence"] * load.sequences
    hop = np.zeros_like(shapes.tp)
    if shapes.pp > 1 and rates.levels:
        carried = float(pieces.residual_elements or pieces.hidden_size)
        hop = point_to_point(load.tokens * ones * carried * 2.0 / shapes.tp, shapes.width, rates.levels)
    loads = [*(load for _ in pieces.windows), *(drafting for _ in pieces.draft)]
    return PassTimes(windows, repeats, step, hop, names, loads)
