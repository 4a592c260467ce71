"""Workloads: how long requests are, how much of a prompt is cached, and what latency is owed."""

from planner.workload.prefix import PrefixCache
from planner.workload.schema import WORKLOADS, Lengths, Workload, load_workload

__all__ = ["WORKLOADS", "Lengths", "PrefixCache", "Workload", "load_workload"]
