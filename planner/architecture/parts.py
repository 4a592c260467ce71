"""What a block consists of: tensors and the groups they move in, caches and what is read of them, FLOPs beside linear layers.

Quantities are per ONE layer of the block unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from planner.architecture.formats import FORMATS, format_of
from planner.errors import InputError, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

Phase = Literal["prefill", "decode"]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    """Frozen, and nothing beside its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Span(Part):
    """Which cache entries exist or are read at a context of T tokens: min(cap, floor(min(T, window) / ratio))."""

    ratio: Positive = 1
    window: Positive | None = None
    cap: Count | None = None

    @overload
    def entries(self, tokens: int) -> int: ...
    @overload
    def entries(self, tokens: float) -> float: ...
    @overload
    def entries(self, tokens: NDArray[Any]) -> NDArray[Any]: ...
    def entries(self, tokens: Any) -> Any:
        """Entries at ``tokens``: exact for integers, continuous (no floor) for floats; arrays element by element."""
        if isinstance(tokens, int | float):
            low: Any = min
            whole = isinstance(tokens, int)
        else:
            import numpy as np

            low, tokens = np.minimum, np.asarray(tokens)
            whole = tokens.dtype.kind in "iu"
        if self.window is not None:
            tokens = low(tokens, self.window)
        if self.ratio > 1:
            tokens = tokens // self.ratio if whole else tokens / self.ratio
        return tokens if self.cap is None else low(tokens, self.cap)


class Tensor(Part):
    """One stored tensor; a matrix is (output rows, input columns)."""

    name: str
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=4)]
    format: str

    @field_validator("format")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in FORMATS:
            raise ValueError(f"unknown storage format {name[:64]!r}; {nearest(name[:64], list(FORMATS))}")
        return name

    @property
    def parameters(self) -> int:
        """Trained numbers; a table of indices has none."""
        return 0 if self.format == "int64" else prod(self.shape)

    def bytes(self, override: Mapping[str, str] = {}) -> int:
        """Bytes with scales, stored as ``override.get(format, format)``."""
        return format_of(override.get(self.format, self.format)).bytes_of(self.shape)


class Hashed(Part):
    """How a token finds its rows in a hashed table: for each n-gram order one row in each of ``heads`` sub-tables."""

    orders: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=64)]
    heads: Positive

    @property
    def rows_per_token(self) -> int:
        return len(self.orders) * self.heads


class WeightGroup(Part):
    """Tensors that live and move together: one member (an expert, or all there is) and how many members a layer has.

    ``access``: ``dense`` reads everything each pass, ``routed`` only the ``active`` members a token is sent to,
    ``lookup`` only ``rows_per_token`` rows. ``address`` says when the need is known: always, from the token, or only
    from the router. ``tensor_axis``: tensor parallelism can cut a member into any divisor of it; 1 = a copy per rank.
    ``hashed``: a lookup whose rows hashes of n-grams choose; only the rows read count as active, not the table.
    ``shares``: ``block/group`` whose memory this group uses; it costs FLOPs and reads here but no memory of its own.
    """

    name: str
    tensors: tuple[Tensor, ...]
    count: Positive = 1
    active: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    access: Literal["dense", "routed", "lookup"] = "dense"
    address: Literal["static", "token", "activation"] = "static"
    tensor_axis: Positive = 1
    rows: Positive | None = None
    rows_per_token: Amount = 0
    counted_active: bool = True
    hashed: Hashed | None = None
    shares: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> WeightGroup:
        if self.active > self.count:
            raise ValueError(f"active {self.active:g} is more than count {self.count}")
        if self.hashed and (self.access != "lookup" or self.address != "token"):
            raise ValueError("only a lookup addressed by tokens is hashed")
        if self.access == "lookup" and self.rows is None:
            raise ValueError("a lookup group needs rows")
        return self

    @property
    def member_parameters(self) -> int:
        return sum(tensor.parameters for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        """Parameters stored by this group: all members, none if the memory is shared."""
        return 0 if self.shares else self.count * self.member_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters one token passes through (a whole table for a lookup that is not hashed), shared memory included."""
        if self.hashed:
            return int(Fraction(self.rows_per_token) * self.member_parameters / (self.rows or 1))
        return int(Fraction(self.active) * self.member_parameters)

    @property
    def flops_per_token(self) -> int:
        """2 x multiply-accumulate of the linear layers; a lookup multiplies nothing."""
        return 0 if self.access == "lookup" else 2 * self.active_parameters

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(sorted({tensor.format for tensor in self.tensors}))

    def member_bytes(self, override: Mapping[str, str] = {}) -> int:
        """Bytes of one member, scales included, whether or not the memory is shared."""
        return sum(tensor.bytes(override) for tensor in self.tensors)

    def bytes(self, override: Mapping[str, str] = {}) -> int:
        """Bytes stored by this group: all members, none if the memory is shared."""
        return 0 if self.shares else self.count * self.member_bytes(override)

    def row_bytes(self, override: Mapping[str, str] = {}) -> int:
        """Bytes of one row of a lookup group, rounded up."""
        return -(-self.member_bytes(override) // (self.rows or 1))


CALCULATOR = "calculator"
"""A layout every cache has: 1 byte per element, 2 for index keys, no pages, no state (kvcache-ai/kvcache-blog calculator.py)."""


class Cache(Part):
    """What a sequence keeps in one layer: ``span.entries(T)`` entries of ``layouts[name]`` bytes, and fixed bytes.

    ``elements`` per entry. ``page_tokens``: tokens per page of the usual runtime (a runtime profile may say otherwise), whose
    bytes are padded to a multiple of ``page_align[layout]``. ``tensor_axis``: as for weights; 1 = every tensor-parallel rank
    holds all of it. ``fixed_bytes`` do not grow with context; each pass of a sequence writes ``fixed_writes`` of them.
    A pure state (recurrent, convolution, compressor) has ``span.cap`` 0 and needs neither elements nor layouts.
    ``persist``: stored as it grows, only as checkpoints of a moment, or rebuilt.
    """

    name: str
    role: Literal["kv", "index", "state"] = "kv"
    span: Span = Span()
    elements: Count = 0
    layouts: dict[str, Positive] = {}
    fixed_bytes: Count = 0
    fixed_writes: Amount = 1
    tensor_axis: Positive = 1
    page_tokens: Positive = 1
    page_align: dict[str, Positive] = {}
    persist: Literal["append", "checkpoint", "none"] = "append"

    @model_validator(mode="after")
    def _consistent(self) -> Cache:
        if self.grows and not (self.elements and self.layouts):
            raise ValueError(f"cache {self.name!r} has entries but no elements or layouts")
        unknown = sorted(set(self.page_align) - set(self.layouts))
        if unknown:
            raise ValueError(f"cache {self.name!r} aligns pages of layout {unknown[0]!r}, which it does not have")
        return self

    @property
    def grows(self) -> bool:
        """Whether it has entries at all, beside a fixed state."""
        return self.span.cap != 0

    def entry_bytes(self, layout: str) -> int:
        """Bytes of one entry in that layout."""
        if not self.grows:
            return 0
        if layout == CALCULATOR:
            return self.elements * (2 if self.role == "index" else 1)
        if layout not in self.layouts:
            raise InputError(
                f"cache {self.name!r} has no layout {layout[:64]!r}", mend=nearest(layout[:64], [*self.layouts, CALCULATOR])
            )
        return self.layouts[layout]

    def page_bytes(self, layout: str, page_tokens: int | None = None) -> int:
        """Bytes of one page, padding included."""
        entries = max(1, (page_tokens or self.page_tokens) // self.span.ratio)
        align = self.page_align.get(layout, 1)
        return -(-entries * self.entry_bytes(layout) // align) * align

    def bytes(self, tokens: int, layout: str, page_tokens: int | None = None, *, paged: bool = True) -> int:
        """Bytes held at ``tokens`` of context, whole pages or (not ``paged``) entries alone; the calculator's layout knows
        neither pages nor state."""
        entries = self.span.entries(tokens)
        if layout == CALCULATOR:
            return entries * self.entry_bytes(layout)
        if not paged:
            return entries * self.entry_bytes(layout) + self.fixed_bytes
        page = max(1, (page_tokens or self.page_tokens) // self.span.ratio)
        return -(-entries // page) * self.page_bytes(layout, page_tokens) + self.fixed_bytes


class Read(Part):
    """What attention of one layer reads per sequence and step: ``span`` of a cache that ``block`` owns, and ``fixed`` of its
    fixed bytes. Where several layers of ``block`` own such a cache, a reader uses the nearest one before it."""

    cache: str
    block: str
    span: Span = Span()
    fixed: Amount = 1


class FlopTerm(Part):
    """Attention work of one layer that is not a linear layer.

    ``per_pair``: FLOPs per new token and entry of ``span``. ``per_cached_token``: FLOPs per token already cached, paid
    once per chunk. Terms without mode always count; terms of different modes are alternatives, of which a phase may
    use those that list it: the cheaper one in prefill.
    """

    name: str
    mode: str = ""
    phases: tuple[Phase, ...] = ("prefill", "decode")
    per_pair: Amount
    per_cached_token: Amount = 0
    span: Span = Span()
    tensor_axis: Positive = 1
    dtype: str = "bf16"
