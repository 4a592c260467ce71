"""Blocks that most families share: grouped-query attention in its variants, mixtures of experts, gated MLPs, recurrent states.

With h query heads of head_dim, one pair of new token and cache entry costs head_dim multiply-accumulates for the score and
head_dim for the value: 4 x h x head_dim FLOPs. Windows: an attention layer of window W attends to and keeps min(T, W) tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import TypedDict

from planner.architecture.blocks import Block
from planner.architecture.families.common import MHA_PAGE_TOKENS, columns_axis, swiglu, vector
from planner.architecture.formats import format_of
from planner.architecture.parts import Cache, FlopTerm, Read, Span, Tensor, WeightGroup

CORE_TILE = 16  # columns a matrix core takes at once: the finest cut of a side without scales


class Place(TypedDict):
    """Where the blocks of a kind of layer stand: the fields of ``Block`` that say so."""

    first_layer: int
    layers: int
    at: tuple[int, ...]
    draft: bool


def matrix(name: str, rows: int, columns: int, format: str) -> Tensor:
    return Tensor(name=name, shape=(rows, columns), format=format)


def inner_axis(width: int, format: str) -> int:
    """Into how many parts the inner side of an expert can be cut: whole tiles of its format's scales."""
    tile = format_of(format).tile[1] or CORE_TILE
    return width // gcd(width, max(tile, CORE_TILE))


def attention(
    id: str,
    place: Place,
    *,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    wide: str,
    linear: str,
    window: int | None = None,
    query_bias: bool = False,
    output_bias: bool = False,
    norms: Sequence[tuple[str, int]] = (),
    gate: bool = False,
    sinks: bool = False,
    norm: str = "input_layernorm",
    norm_bias: bool = False,
) -> Block:
    """Multi-head (kv_heads = heads), grouped-query or multi-query (kv_heads = 1) attention with its input norm.

    ``query_bias``: biases of query, key and value; ``norms``: further norm vectors (query and key norms); ``gate``: the query
    projection gives an output gate too; ``sinks``: one learned logit per head; ``norm_bias``: the norm has a bias (LayerNorm).
    """
    query = heads * head_dim * (2 if gate else 1)
    entry = 2 * kv_heads * head_dim
    apart = [vector(norm, hidden, wide), *(vector(name, size, wide) for name, size in norms)]
    if norm_bias:
        apart.append(vector(f"{norm}.bias", hidden, wide))
    if output_bias:
        apart.append(vector("o_proj.bias", hidden, wide))
    queries = [matrix("q_proj", query, hidden, linear), matrix("o_proj", hidden, heads * head_dim, linear)]
    keys_values = [matrix(name, kv_heads * head_dim, hidden, linear) for name in ("k_proj", "v_proj")]
    if query_bias:
        queries.append(vector("q_proj.bias", query, wide))
        keys_values += [vector(name, kv_heads * head_dim, wide) for name in ("k_proj.bias", "v_proj.bias")]
    if sinks:
        queries.append(vector("sinks", heads, wide))
    span = Span(window=window)
    return Block(
        id=id,
        kind="attention",
        **place,
        weights=(
            WeightGroup(name="norm", tensors=tuple(apart)),
            WeightGroup(name="queries", tensors=tuple(queries), tensor_axis=heads),
            WeightGroup(name="keys_values", tensors=tuple(keys_values), tensor_axis=kv_heads),
        ),
        caches=(
            Cache(
                name="kv",
                span=span,
                elements=entry,
                layouts={"bf16": 2 * entry, "fp8": entry},
                tensor_axis=kv_heads,
                page_tokens=MHA_PAGE_TOKENS,
            ),
        ),
        reads=(Read(cache="kv", block=id, span=span),),
        flops=(FlopTerm(name="attention", per_pair=4 * heads * head_dim, span=span, tensor_axis=heads),),
    )


def gated_mlp(id: str, place: Place, *, hidden: int, inner: int, wide: str, linear: str) -> Block:
    """A dense gated MLP with the norm before it."""
    return Block(
        id=id,
        kind="mlp",
        **place,
        weights=(
            WeightGroup(name="norm", tensors=(vector("post_attention_layernorm", hidden, wide),)),
            WeightGroup(name="mlp", tensors=swiglu(hidden, inner, linear), tensor_axis=columns_axis(inner)),
        ),
    )


def experts(
    id: str,
    place: Place,
    *,
    hidden: int,
    member: Sequence[Tensor],
    axis: int,
    count: int,
    active: int,
    wide: str,
    router: Sequence[Tensor] = (),
    shared: Sequence[WeightGroup] = (),
    norm: str = "post_attention_layernorm",
) -> Block:
    """A mixture of ``count`` experts, each of the tensors ``member``: norm and router, what every token passes, the experts."""
    gate = (vector(norm, hidden, wide), matrix("gate", count, hidden, wide), *router)
    return Block(
        id=id,
        kind="moe",
        **place,
        weights=(
            WeightGroup(name="router", tensors=gate),
            *shared,
            WeightGroup(
                name="experts",
                tensors=tuple(member),
                count=count,
                active=active,
                access="routed",
                address="activation",
                tensor_axis=axis,
            ),
        ),
    )


def state(name: str, size: int, tensor_axis: int) -> Cache:
    """A state of ``size`` bytes that each step reads and rewrites whole; it can only be kept as a checkpoint of a moment."""
    return Cache(
        name=name, role="state", span=Span(cap=0), fixed_bytes=size, tensor_axis=tensor_axis, page_tokens=1, persist="checkpoint"
    )


def reads_state(name: str, block: str) -> Read:
    return Read(cache=name, block=block, span=Span(cap=0))


def per_token(name: str, flops: int, tensor_axis: int) -> FlopTerm:
    """Work that does not depend on the context: one "pair" per token."""
    return FlopTerm(name=name, per_pair=flops, span=Span(cap=1), tensor_axis=tensor_axis)
