"""The cost of a day, split over the tokens that caused it: input with a cache hit, input without, output.

Law: tokens times price, summed over streams, is the cost. ``miss_only`` charges input work to tokens that had to be
computed, ``all_input`` to every input token alike, ``flops`` to prefill FLOPs, which hits have none of but the
attention of later tokens to them (charged to the misses that run it): so it equals ``miss_only`` where attention to
hits is small, and differs by giving hits their share of attention.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamCost:
    """USD per million tokens; ``None`` for a stream without tokens."""

    input_hit: float | None
    input_miss: float | None
    output: float | None
    blended: float


def stream_costs(
    *,
    input_usd: float,
    output_usd: float,
    hit_tokens: float,
    miss_tokens: float,
    output_tokens: float,
    allocation: str,
    hit_flops_share: float = 0.0,
) -> StreamCost:
    """Prices per million tokens for the given cost and tokens of the same period.

    ``hit_flops_share``: share of prefill FLOPs spent on attention to cached tokens (used by ``flops`` only).
    """
    total = input_usd + output_usd
    tokens = hit_tokens + miss_tokens + output_tokens
    if allocation == "all_input":
        each = input_usd / (hit_tokens + miss_tokens)
        hit, miss = each, each
    elif allocation == "flops" and hit_tokens > 0.0:
        hit = input_usd * hit_flops_share / hit_tokens
        miss = input_usd * (1.0 - hit_flops_share) / miss_tokens
    elif allocation in ("miss_only", "flops"):
        hit, miss = 0.0, input_usd / miss_tokens
    else:
        raise ValueError(f"unknown allocation {allocation!r}")
    return StreamCost(
        input_hit=hit * 1e6 if hit_tokens > 0.0 else None,
        input_miss=miss * 1e6 if miss_tokens > 0.0 else None,
        output=output_usd / output_tokens * 1e6 if output_tokens > 0.0 else None,
        blended=total / tokens * 1e6,
    )
