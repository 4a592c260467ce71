"""A model cut into windows of equal layers, each a few items with exact bytes: the form the equations work on.

A window is a run of blocks that repeat together (one layer class, or the embedding, or the head). Within a window
the items are: static weights, routed experts, lookup tables and caches. All figures are per layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from planner.architecture import FORMATS, Block, FlopTerm, Model, Read, Span


@dataclass(frozen=True)
class Gemm:
    """Dense matrix products of a block that share dtype and split: ``parameters`` per layer."""

    dtype: str
    parameters: float
    tensor_axis: int


@dataclass(frozen=True)
class StaticItem:
    """Weights read whole at every step; ``parts`` = (tensor axis, bytes held per layer, bytes read per layer).

    They differ for weights shared with another block (a draft module's output head).
    """

    parts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class RoutedItem:
    """Routed experts of one block.

    ``classes``: (experts, share of the token-expert pairs that each of them gets) by falling use; empty where all are alike.
    ``extra``: slots of a rank beyond its part of the experts, for copies. ``worst``: ranks -> load of the fullest over the mean.
    """

    dtype: str
    experts: int
    active: float
    member_parameters: int
    member_bytes: int
    tensor_axis: int
    classes: tuple[tuple[int, float], ...] = ()
    extra: int = 0
    worst: tuple[tuple[int, float], ...] = ()
    inner: int = 0
    """Inner width of an expert, which tensor parallelism cuts."""

    @property
    def class_sizes(self) -> tuple[int, ...]:
        """Experts of each class of use, falling."""
        return tuple(count for count, _ in self.classes) or (self.experts,)


@dataclass(frozen=True)
class LookupItem:
    """A table read by row; ``bytes`` for the whole table, 0 where another block holds it.

    ``by_token``: the tokens of a pass alone say which rows it needs. ``rows``: of each of its sub-tables, which are read alike.
    ``classes``: (share of the rows, share of the reads) by falling use; empty where all rows are read alike.
    """

    bytes: int
    row_bytes: float
    rows_per_token: float
    tensor_axis: int
    label: str = "embedding table"
    by_token: bool = False
    rows: int = 1
    classes: tuple[tuple[float, float], ...] = ()

    @property
    def use(self) -> tuple[tuple[float, float], ...]:
        """The classes of use, or the one that there is."""
        return self.classes or ((1.0, 1.0),)


@dataclass(frozen=True)
class CacheItem:
    """A per-sequence cache: what is held (nothing where the block ``owner`` holds it) and what a step reads of it.

    A step reads and writes ``fixed_read`` and ``fixed_written`` bytes of the fixed state. Pages are padded to ``page_align``
    bytes; those of a compressed cache have at least ``page_tokens`` tokens, whatever the runtime's pages are.
    """

    name: str
    held: bool
    span: Span
    read_span: Span
    entry_bytes: int
    fixed_bytes: int
    tensor_axis: int
    fixed_read: float = 0.0
    fixed_written: float = 0.0
    page_align: int = 1
    page_tokens: int = 1
    owner: str = ""

    @cached_property
    def whole_span(self) -> Span:
        """What a pass would read if it chose no entries (sparse attention reads those that its indexer chose)."""
        return self.read_span.model_copy(update={"cap": None}) if self.chosen else self.read_span

    @property
    def chosen(self) -> bool:
        """Whether a new token reads some of the entries only, chosen by what came before in the layer."""
        return bool(self.read_span.cap) and self.read_span.cap != self.span.cap


@dataclass(frozen=True)
class BlockPieces:
    """One block of a window."""

    id: str
    kind: str
    gemms: tuple[Gemm, ...]
    flops: tuple[FlopTerm, ...]
    static: StaticItem
    routed: RoutedItem | None
    lookups: tuple[LookupItem, ...]
    caches: tuple[CacheItem, ...]
    phases: tuple[str, ...] = ("prefill", "decode")
    matrices: int = 0
    """Weight matrices that a pass multiplies by one after another, experts apart: each is a kernel or more."""

    @cached_property
    def nameless(self) -> BlockPieces:
        """Equal for blocks that differ in name alone: what one does in a pass, the other does too."""
        return replace(self, id="", caches=tuple(replace(cache, name="", owner="") for cache in self.caches))


@dataclass(frozen=True)
class Window:
    """Blocks that repeat together over ``layers`` layers from ``first_layer``, or those of ``at`` where they do not adjoin."""

    name: str
    first_layer: int
    layers: int
    blocks: tuple[BlockPieces, ...]
    at: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelPieces:
    """All that footprint and performance need of a model, formats and cache layout resolved."""

    id: str
    hidden_size: int
    layers: int
    windows: tuple[Window, ...]
    draft: tuple[Window, ...]
    routing_groups: int
    routing_active_groups: int
    acceptance: tuple[float, ...]
    conversions: tuple[tuple[str, str], ...]
    kv_layout: str
    residual_elements: int = 0
    drafts_per_pass: int = 1

    def stage_table(self, pp: int) -> list[tuple[int, ...]]:
        """Layers of each window per distinct pipeline stage (see ``stage_layers``)."""
        return list(dict.fromkeys(self.stages(pp)))

    def stage_counts(self, pp: int) -> list[int]:
        """How many of the ``pp`` stages are like each row of ``stage_table``."""
        stages = self.stages(pp)
        return [stages.count(row) for row in dict.fromkeys(stages)]

    def stages(self, pp: int) -> list[tuple[int, ...]]:
        """Layers of each window in every pipeline stage."""
        from planner.footprint.shapes import every_stage

        return every_stage(
            [w.first_layer for w in self.windows],
            [w.layers for w in self.windows],
            self.layers,
            pp,
            [w.at for w in self.windows],
        )


def item_names(pieces: ModelPieces) -> list[str]:
    """What a placement places: the kinds of item this model has, and the parts of its caches."""
    windows = (*pieces.windows, *pieces.draft)
    blocks = [block for window in windows for block in window.blocks]
    names = ["weights"] + ["routed experts" for block in blocks if block.routed]
    names += [block.lookups[0].label for block in blocks if block.lookups]
    names += ["KV cache" for block in blocks if block.caches]
    names += [name for window in windows for name in cache_parts(window)]
    return list(dict.fromkeys(names))


def cache_parts(window: Window) -> dict[str, list[tuple[int, int]]]:
    """``(block, cache)`` of the caches that a window holds, by item: what is read alike lies together.

    One item is the ``KV cache``; several are ``KV cache: latent``, ``KV cache: index`` by the names of their caches.
    """
    alike: dict[object, list[tuple[int, int]]] = {}
    for at, block in enumerate(window.blocks):
        for number, cache in enumerate(block.caches):
            if cache.held and (cache.entry_bytes or cache.fixed_bytes):
                fixed = cache.fixed_bytes or 1
                density = (cache.fixed_read / fixed, cache.fixed_written / fixed, bool(cache.entry_bytes), cache.tensor_axis)
                key = (cache.span, cache.read_span, *density, _readers(window, block, cache))
                alike.setdefault(key, []).append((at, number))
    parts: dict[str, list[tuple[int, int]]] = {}
    for members in alike.values():
        names = dict.fromkeys(window.blocks[at].caches[number].name for at, number in members)
        parts.setdefault("KV cache" if len(alike) == 1 else f"KV cache: {'+'.join(names)}", []).extend(members)
    return parts


def _readers(window: Window, owner: BlockPieces, cache: CacheItem) -> tuple[object, ...]:
    """How other blocks of the window read a cache."""
    return tuple(
        (read.read_span, read.fixed_read)
        for block in window.blocks
        if block is not owner
        for read in block.caches
        if (read.owner, read.name) == (owner.id, cache.name)
    )


def cut(
    model: Model,
    conversions: Mapping[str, str],
    kv_layouts: tuple[str, ...],
    draft_depth: int = 0,
    acceptance_given: tuple[float, ...] | None = None,
    whole_windows: bool = False,
) -> ModelPieces:
    """Cut a model into windows.

    ``conversions`` maps storage formats to those the device computes in; ``kv_layouts`` are the cache layouts allowed, in
    order of preference, and a cache takes the first that it has. With ``draft_depth`` the draft module is included;
    ``acceptance_given`` (the workload's) stands before the model's own acceptance. With ``whole_windows`` caches of
    sliding-window attention hold all that came before; what is read of them stays their window.
    """
    owners = {(block.id, cache.name): (block, cache) for block in model.blocks for cache in block.caches}
    chosen: list[str] = []

    def block_pieces(block: Block) -> BlockPieces:
        gemms: dict[tuple[str, int], float] = {}
        parts: dict[int, tuple[int, int]] = {}
        lookups: list[LookupItem] = []
        routed: RoutedItem | None = None
        matrices = 0
        for group in block.weights:
            size = group.member_bytes(conversions)
            if group.access == "routed":
                dtype = FORMATS[conversions.get(group.tensors[0].format, group.tensors[0].format)].compute_dtype
                inner = next((t.shape[1] for t in reversed(group.tensors) if len(t.shape) == 2), 0)
                routed = RoutedItem(
                    dtype, group.count, group.active, group.member_parameters, size, group.tensor_axis, inner=inner
                )
                continue
            if group.access == "lookup":
                held = 0 if group.shares else size * group.count
                label = "embedding table" if block.kind == "embedding" else f"{'Engram' if group.hashed else 'token'} table"
                rows = max((group.rows or 1) // (group.hashed.rows_per_token if group.hashed else 1), 1)
                lookups.append(
                    LookupItem(
                        held,
                        group.row_bytes(conversions),
                        group.rows_per_token,
                        group.tensor_axis,
                        label,
                        group.address == "token" and not block.draft,
                        rows,
                    )
                )
                continue
            kept, passed = parts.get(group.tensor_axis, (0, 0))
            kept += 0 if group.shares else size * group.count
            parts[group.tensor_axis] = (kept, passed + size * group.count)
            for tensor in group.tensors:
                if len(tensor.shape) < 2:
                    continue
                matrices += len(tensor.shape) == 2 and min(tensor.shape) > 1
                key = (FORMATS[conversions.get(tensor.format, tensor.format)].compute_dtype, group.tensor_axis)
                gemms[key] = gemms.get(key, 0.0) + float(tensor.parameters * group.count)
        caches = []
        seen = {(read.block, read.cache) for read in block.reads}
        unread = [(block.id, cache.name) for cache in block.caches if (block.id, cache.name) not in seen]
        nothing = [Read(cache=name, block=id, span=Span(cap=0), fixed=0) for id, name in unread]
        for read in (*block.reads, *nothing):
            owner, cache = owners[(read.block, read.cache)]
            layout = next((name for name in (*kv_layouts, *cache.layouts) if name in cache.layouts), "")
            if layout and layout not in chosen:
                chosen.append(layout)
            caches.append(
                CacheItem(
                    cache.name,
                    owner.id == block.id,
                    cache.span.model_copy(update={"window": None}) if whole_windows and cache.span.ratio == 1 else cache.span,
                    read.span,
                    cache.entry_bytes(layout),
                    cache.fixed_bytes,
                    cache.tensor_axis,
                    read.fixed * cache.fixed_bytes,
                    cache.fixed_writes * cache.fixed_bytes if owner.id == block.id else 0.0,
                    cache.page_align.get(layout, 1),
                    cache.page_tokens if cache.span.ratio > 1 else 1,
                    owner.id,
                )
            )
        return BlockPieces(
            block.id,
            block.kind,
            tuple(Gemm(dtype, count, axis) for (dtype, axis), count in sorted(gemms.items())),
            block.flops,
            StaticItem(tuple((axis, *sizes) for axis, sizes in sorted(parts.items()))),
            routed,
            tuple(lookups),
            tuple(caches),
            block.phases,
            matrices,
        )

    windows: list[Window] = []
    draft: list[Window] = []
    for block in model.blocks:
        target = draft if block.draft else windows
        if block.draft and not draft_depth:
            continue
        pieces = block_pieces(block)
        last = target[-1] if target else None
        first = {"embedding": -1, "head": model.layers}.get(block.kind, block.first_layer)
        if last and (last.first_layer, last.layers, last.at) == (first, block.layers, block.at):
            target[-1] = Window(last.name, first, last.layers, (*last.blocks, pieces), last.at)
        else:
            target.append(Window(block.id.rsplit(".", 1)[0], first, block.layers, (pieces,), block.at))
    acceptance: tuple[float, ...] = ()
    if model.speculation and draft_depth:
        known = list(acceptance_given or [figure.value for figure in model.speculation.acceptance])
        acceptance = tuple((known + [known[-1]] * draft_depth)[:draft_depth])
    router = model.router
    return ModelPieces(
        model.id,
        model.hidden_size,
        model.layers,
        tuple(windows),
        tuple(draft),
        router.groups if router else 1,
        router.active_groups if router else 1,
        acceptance,
        tuple(sorted(conversions.items())),
        "+".join(chosen) or "none",
        model.residual_elements(),
        model.speculation.per_pass if model.speculation else 1,
    )
