"""The architecture graph: blocks of equal layers with their weights, caches, reads and FLOPs.

Quantities of a block are per ONE of its layers unless a name says otherwise. Blocks stand in execution order; blocks
over the same layers (attention and MLP of layers 3-60) alternate layer by layer, and the draft module's blocks come
last. FLOPs are 2 x multiply-accumulate. Linear layers cost 2 x active parameters per token and need no ``FlopTerm``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.parts import CALCULATOR, Cache, Count, FlopTerm, Part, Phase, Positive, Read, WeightGroup
from planner.errors import InputError, nearest
from planner.quantities import Figure, figure_of

if TYPE_CHECKING:
    import networkx

    Probability = Figure
else:
    Probability = figure_of("fraction")

MAX_PARAMETERS = 2**50  # some 1e15: beyond it a configuration is a mistake


class Block(Part):
    """One operator group of ``layers`` equal layers: those from ``first_layer`` on, or where they do not adjoin those of ``at``.

    The embedding stands before layer 0 at -1, the head after the last layer at ``Model.layers``, as the draft module does.
    ``phases``: the passes that run it (a decoder over a shared cache does not run in prefill).
    """

    id: str
    kind: Literal["embedding", "attention", "mlp", "moe", "head", "draft", "memory"]
    first_layer: Annotated[int, Field(ge=-1)]
    layers: Positive
    at: Annotated[tuple[Count, ...], Field(max_length=2**14)] = ()
    draft: bool = False
    phases: tuple[Phase, ...] = ("prefill", "decode")
    weights: tuple[WeightGroup, ...] = ()
    caches: tuple[Cache, ...] = ()
    reads: tuple[Read, ...] = ()
    flops: tuple[FlopTerm, ...] = ()

    @model_validator(mode="after")
    def _at_layers(self) -> Block:
        if self.at:
            if len(self.at) != self.layers or self.at[0] != self.first_layer:
                raise ValueError(f"block {self.id!r}: at names {len(self.at)} layers, not {self.layers} from {self.first_layer}")
            if any(a >= b for a, b in zip(self.at, self.at[1:], strict=False)):
                raise ValueError(f"block {self.id!r}: at must rise")
        return self

    @property
    def layer_ids(self) -> tuple[int, ...]:
        """The layers it stands in."""
        return self.at or tuple(range(self.first_layer, self.first_layer + self.layers))

    @property
    def parameters(self) -> int:
        """Stored parameters of all layers of the block."""
        return self.layers * sum(group.parameters for group in self.weights)

    def bytes(self, override: Mapping[str, str] = {}) -> int:
        """Stored bytes of all layers of the block."""
        return self.layers * sum(group.bytes(override) for group in self.weights)

    def modes(self, phase: Phase) -> tuple[str, ...]:
        """The alternative modes that ``phase`` may use, in the order of ``flops``; empty if there is no choice."""
        return tuple(dict.fromkeys(term.mode for term in self.flops if term.mode and phase in term.phases))


class Edge(Part):
    """What flows from one block to the next, per token; dispatch and combine per token and chosen expert."""

    source: str
    target: str
    kind: Literal["residual", "dispatch", "combine", "kv_handoff", "draft"]
    elements_per_token: Positive
    dtype: str


class Router(Part):
    """Each token goes to ``active`` of ``experts`` within the ``active_groups`` best of ``groups``, and to all ``shared``."""

    experts: Positive
    active: Positive
    shared: Count = 0
    groups: Positive = 1
    active_groups: Positive = 1


class Speculation(Part):
    """Draft tokens per step, and for each the probability that it is accepted given that those before it were.

    ``per_pass``: draft tokens that one pass of the draft module gives (1 for MTP, the block of a block drafter).
    """

    depth: Positive
    acceptance: tuple[Probability, ...]
    per_pass: Positive = 1

    @model_validator(mode="after")
    def _consistent(self) -> Speculation:
        if len(self.acceptance) != self.depth:
            raise ValueError(f"acceptance has {len(self.acceptance)} figures for depth {self.depth}")
        if any(figure.highest > 1 for figure in self.acceptance):
            raise ValueError("an acceptance is a probability")
        return self


class Identity(Part):
    """Who a model is and where its description comes from."""

    id: str
    name: str
    aliases: tuple[str, ...] = ()
    source: str
    as_of: date | None = None
    license: str = ""


class Model(Identity):
    """A model as a graph of blocks; counts and bytes are exact integers."""

    family: str
    hidden_size: Positive
    vocabulary: Positive
    layers: Positive
    max_context: Positive
    router: Router | None = None
    speculation: Speculation | None = None
    blocks: tuple[Block, ...]
    edges: tuple[Edge, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        ids = Counter(block.id for block in self.blocks)
        for name, times in ids.items():
            if times > 1:
                raise ValueError(f"two blocks are called {name!r}")
        groups = {f"{block.id}/{group.name}" for block in self.blocks for group in block.weights if not group.shares}
        caches = {(block.id, cache.name) for block in self.blocks for cache in block.caches}
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in ids:
                    raise ValueError(f"an edge names no block {end!r}")
        for block in self.blocks:
            for group in block.weights:
                if group.shares and group.shares not in groups:
                    raise ValueError(f"group {block.id}/{group.name} shares {group.shares!r}, which does not exist")
            for read in block.reads:
                if (read.block, read.cache) not in caches:
                    raise ValueError(f"block {block.id} reads {read.block}/{read.cache}, which does not exist")
        if sum(block.parameters for block in self.blocks) > MAX_PARAMETERS:
            raise ValueError(f"the sizes make more than {MAX_PARAMETERS} parameters, which no model has")
        return self

    def block(self, name: str) -> Block:
        """The block of that id."""
        for block in self.blocks:
            if block.id == name:
                return block
        raise InputError(f"model {self.id} has no block {name[:64]!r}", mend=nearest(name[:64], [b.id for b in self.blocks]))

    def graph(self) -> networkx.MultiDiGraph[str]:
        """Blocks as nodes (attribute ``block``) and edges keyed by kind, so that the residual runs beside a dispatch."""
        import networkx

        graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph(id=self.id)
        for block in self.blocks:
            graph.add_node(block.id, block=block)
        for edge in self.edges:
            graph.add_edge(edge.source, edge.target, edge.kind, **edge.model_dump(exclude={"source", "target"}))
        return graph

    def parameters(self) -> dict[str, int]:
        """Exact counts: ``total`` (without draft module), ``draft`` (what only it has), ``active`` per token (output
        head included, input embedding not) and ``active_with_embedding``, as publishers count one or the other way."""
        main = [block for block in self.blocks if not block.draft]
        active = {
            counted: sum(b.layers * g.active_parameters for b in main for g in b.weights if g.counted_active is counted)
            for counted in (True, False)
        }
        shared = sum(b.layers * g.active_parameters for b in main for g in b.weights if not g.counted_active and g.shares)
        return {
            "total": sum(block.parameters for block in main),
            "draft": sum(block.parameters for block in self.blocks if block.draft),
            "active": active[True],
            "active_with_embedding": active[True] + active[False] - shared,
        }

    def active_parameters(self, phase: Phase) -> int:
        """Parameters that a token passes through in that phase (output head included, input embedding not)."""
        return sum(
            b.layers * g.active_parameters
            for b in self.blocks
            if not b.draft and phase in b.phases
            for g in b.weights
            if g.counted_active
        )

    def parameters_by_group(self, *, draft: bool = False) -> dict[str, int]:
        """Stored parameters by the name of their group over all blocks; ``draft`` adds the draft module."""
        found: Counter[str] = Counter()
        for block in self._part(draft):
            for group in block.weights:
                found[group.name] += block.layers * group.parameters
        return dict(sorted(found.items()))

    def bytes_by_format(self, override: Mapping[str, str] = {}, *, draft: bool = False) -> dict[str, int]:
        """Stored weight bytes, scales included, by the format they are stored in; ``draft`` adds the draft module."""
        total: Counter[str] = Counter()
        for block in self._part(draft):
            for group in block.weights:
                if not group.shares:
                    for tensor in group.tensors:
                        total[override.get(tensor.format, tensor.format)] += block.layers * group.count * tensor.bytes(override)
        return {name: total[name] for name in sorted(total)}

    def weight_bytes(self, override: Mapping[str, str] = {}, *, draft: bool = False) -> int:
        """Stored weight bytes, scales included; ``draft`` adds the draft module."""
        return sum(block.bytes(override) for block in self._part(draft))

    def layouts(self) -> tuple[str, ...]:
        """The layouts that every cache of the model has, the calculator's apart."""
        tables = [cache.layouts for block in self.blocks for cache in block.caches if cache.grows]
        return tuple(name for name in tables[0] if all(name in table for table in tables)) if tables else ()

    def kv_bytes_per_token(self, layout: str, *, draft: bool = False) -> int:
        """Bytes by which one more token of context grows all caches of a sequence whose windows are full, padding not
        counted, rounded up to a byte where a cache keeps one entry for several tokens."""
        growth = sum(
            (
                Fraction(layers * cache.entry_bytes(layout), cache.span.ratio)
                for layers, cache in self._caches(draft)
                if cache.span.window is None and cache.span.cap is None
            ),
            Fraction(),
        )
        return -(-growth.numerator // growth.denominator)

    def cache_bytes(
        self,
        tokens: int,
        layout: str,
        *,
        draft: bool = False,
        page_tokens: int | None = None,
        roles: Collection[str] = ("kv", "index", "state"),
        paged: bool = True,
    ) -> int:
        """Bytes one sequence of ``tokens`` holds in all layers, fixed state included, in whole pages or (not ``paged``)
        entries alone; ``roles`` selects caches."""
        return sum(
            layers * cache.bytes(tokens, layout, page_tokens, paged=paged)
            for layers, cache in self._caches(draft)
            if cache.role in roles
        )

    def fixed_bytes(self, *, draft: bool = False) -> int:
        """Bytes one sequence holds whatever its length."""
        return sum(layers * cache.fixed_bytes for layers, cache in self._caches(draft))

    def read_bytes(
        self, tokens: int, layout: str, *, draft: bool = False, roles: Collection[str] = ("kv", "index", "state")
    ) -> int:
        """Bytes one decode step reads from the caches of one sequence at ``tokens`` of context, each reader counted;
        ``roles`` selects caches."""
        role = {(b.id, c.name): c.role for b in self.blocks for c in b.caches}
        entry = {(b.id, c.name): c.entry_bytes(layout) for b in self.blocks for c in b.caches}
        fixed = {(b.id, c.name): 0 if layout == CALCULATOR else c.fixed_bytes for b in self.blocks for c in b.caches}
        return sum(
            block.layers
            * (read.span.entries(tokens) * entry[read.block, read.cache] + round(read.fixed * fixed[read.block, read.cache]))
            for block in self._part(draft)
            for read in block.reads
            if role[read.block, read.cache] in roles
        )

    def attention_flops(self, tokens: float, phase: Phase = "decode", mode: str = "", dtype: str = "") -> float:
        """FLOPs of one new token at a context of ``tokens`` that are not linear layers, draft module not counted.

        Of alternative modes ``mode`` counts, or the first that the phase may use; ``dtype`` counts only its terms.
        """
        total = 0.0
        for block in self._part(False):
            if phase not in block.phases:
                continue
            modes = block.modes(phase)
            used = mode if mode in modes else next(iter(modes), "")
            for term in block.flops:
                if phase in term.phases and term.mode in ("", used) and dtype in ("", term.dtype):
                    total += block.layers * term.per_pair * term.span.entries(tokens)
        return total

    def flops_per_token(self, tokens: float, phase: Phase = "decode", mode: str = "") -> float:
        """FLOPs of one new token at a context of ``tokens``: linear layers and attention, draft module not counted."""
        linear = sum(b.layers * g.flops_per_token for b in self.blocks if not b.draft and phase in b.phases for g in b.weights)
        return linear + self.attention_flops(tokens, phase, mode)

    def residual_elements(self) -> int:
        """Elements per token that pass from layer to layer (several residual streams count each)."""
        return max((edge.elements_per_token for edge in self.edges if edge.kind == "residual"), default=self.hidden_size)

    def _part(self, draft: bool) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if draft or not block.draft)

    def _caches(self, draft: bool) -> Iterator[tuple[int, Cache]]:
        for block in self._part(draft):
            for cache in block.caches:
                yield block.layers, cache
