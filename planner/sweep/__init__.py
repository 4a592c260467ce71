"""Sweeps: one specification, many plans, on this machine or a cluster; interrupted ones go on where they were."""

from planner.sweep.blank import blank_sweep
from planner.sweep.run import Asked, Progress, Summary, Sweep, rows_of
from planner.sweep.schema import result_schema
from planner.sweep.spec import Spec, read_spec

__all__ = ["Asked", "Progress", "Spec", "Summary", "Sweep", "blank_sweep", "read_spec", "result_schema", "rows_of"]
