"""Runtimes: what the serving software costs, reserves and can do."""

from planner.runtimes.calibrated import Calibrated
from planner.runtimes.calibration import Calibration, calibrated_runtime, load_calibration, load_runtime
from planner.runtimes.schema import RUNTIMES, Runtime

__all__ = ["RUNTIMES", "Calibrated", "Calibration", "Runtime", "calibrated_runtime", "load_calibration", "load_runtime"]
