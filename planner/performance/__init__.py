"""Seconds: what a pass through the model takes on a shape, part by part, before any tier is chosen."""

from planner.performance.experts import distinct_experts, distinct_targets, fullest_load
from planner.performance.load import Load, decode_load, prefill_load
from planner.performance.passes import BlockTimes, PassTimes, attention_dtype, pass_times
from planner.performance.rates import (
    Level,
    Rates,
    TierRate,
    more_bandwidth,
    perturb,
    resolve_rates,
    slow_corner,
    uncertain_groups,
)
from planner.performance.serving import (
    Client,
    Mixed,
    Split,
    handoff_seconds,
    held_serving,
    held_ttft,
    mixed_serving,
    prefill_queue,
    split_serving,
)

__all__ = [
    "BlockTimes",
    "Client",
    "Level",
    "Load",
    "Mixed",
    "PassTimes",
    "Rates",
    "Split",
    "TierRate",
    "attention_dtype",
    "decode_load",
    "distinct_experts",
    "distinct_targets",
    "fullest_load",
    "handoff_seconds",
    "held_serving",
    "held_ttft",
    "mixed_serving",
    "pass_times",
    "more_bandwidth",
    "perturb",
    "prefill_load",
    "prefill_queue",
    "resolve_rates",
    "slow_corner",
    "split_serving",
    "uncertain_groups",
]
