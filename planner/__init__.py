"""planner: plan LLM inference over memory tiers and devices."""

__version__ = "0.1.0"
