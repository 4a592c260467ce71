"""What one pass of a rank carries: a decode step or a prefill chunk, in tokens, sequences and context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from planner.footprint.pieces import BlockPieces, ModelPieces
from planner.footprint.shapes import Column, Shapes
from planner.performance.rates import Rates
from planner.workload import Workload

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class Load:
    """What one pass of a rank carries (columns or scalars that broadcast).

    ``tokens``: new tokens; ``sequences``: sequences whose cache is read; ``context``: mean tokens a new token attends to, which
    are spread evenly over ``context`` plus or minus ``context_half_width``;
    ``read_context``: cache tokens read per sequence; ``cached``: tokens already in the cache when the pass starts, all
    sequences together; ``head_tokens``: tokens that need logits; ``variation``: of the context between sequences.
    """

    phase: Phase
    tokens: Column
    sequences: Column
    context: Column | float
    read_context: Column
    cached: Column
    head_tokens: Column
    variation: Column | float
    draft_passes: int
    context_half_width: Column | float = 0.0


def pad_batch(batch: Column, buckets: tuple[int, ...]) -> Column:
    """The batch that a captured graph runs: the next bucket, beyond the last the next multiple of the last step."""
    edges = np.asarray(buckets, dtype=float)
    step = float(buckets[-1] - buckets[-2]) if len(buckets) > 1 else float(buckets[-1])
    index = np.searchsorted(edges, batch, side="left")
    inside = edges[np.minimum(index, len(edges) - 1)]
    return np.where(batch > edges[-1], np.ceil(batch / step) * step, inside)


def decode_load(batch: Column, workload: Workload, pieces: ModelPieces, rates: Rates) -> Load:
    """A decode step of ``batch`` sequences a rank, with the drafts to be verified counted as tokens."""
    return decode_load_of(batch, workload.resident_tokens, workload.context_variation, pieces, rates)


def decode_load_of(batch: Column, context: Column | float, variation: Column | float, pieces: ModelPieces, rates: Rates) -> Load:
    """A decode step whose sequences have ``context`` tokens in the mean, which vary between them."""
    draft = len(pieces.acceptance)
    tokens = pad_batch(batch, rates.buckets) * (1 + draft)
    return Load(
        "decode",
        tokens,
        batch,
        context,
        context * np.ones_like(batch),
        np.zeros_like(batch),
        tokens,
        variation,
        -(-draft // pieces.drafts_per_pass),
    )


def prefill_passes(chunk: Column, workload: Workload) -> Column:
    """Passes one request needs: ``ceil(miss / chunk)``."""
    return _passes_of(chunk, workload.miss_tokens)


def _passes_of(chunk: Column, miss: Column | float) -> Column:
    return np.maximum(np.ceil(miss / chunk), 1.0)


def prefill_load(chunk: Column, workload: Workload, pieces: ModelPieces) -> Load:
    """A prefill pass of ``chunk`` new tokens a rank: part of one request, or several requests that fit together."""
    return prefill_load_of(chunk, workload.miss_tokens, workload.hit_tokens, pieces)


def prefill_load_of(chunk: Column, miss: Column | float, hit: Column | float, pieces: ModelPieces) -> Load:
    """A prefill pass of requests with ``miss`` new tokens after ``hit`` that the cache holds.

    Averages over a request: a new token attends to ``hit + miss/2`` tokens; before pass j of P lie ``hit + (j-1) miss/P``
    tokens in the cache, ``hit + miss (P-1)/(2P)`` on average, all read once and, in expanded MLA form, expanded once a pass.
    """
    passes = _passes_of(chunk, miss)
    requests = chunk / (miss / passes)
    before = hit + miss * (passes - 1.0) / (2.0 * passes)
    return Load(
        "prefill",
        chunk,
        requests,
        hit + miss / 2.0,
        before + miss / passes,
        requests * before,
        requests / passes,
        0.0,
        1 if pieces.draft else 0,
        miss / 2.0,
    )


def tokens_of(block: BlockPieces, shapes: Shapes, load: Load) -> Column:
    """Tokens that a block works on: the head only on those that need logits."""
    return np.asarray((load.head_tokens if block.kind == "head" else load.tokens) * np.ones_like(shapes.tp))
