"""Workloads: how long requests are, how much of a prompt is cached, and what latency is owed."""

from planner.workload.schema import WORKLOADS, Lengths, Workload, load_workload

__all__ = ["WORKLOADS", "Lengths", "Workload", "load_workload"]
