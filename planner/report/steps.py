"""Where the time of a pass goes: operator by operator, in the order of the pass, each split into its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from planner.report.study import Study

PARTS = ("compute", "memory", "network", "start-up", "waiting for lower memories", "runtime step")
"""Kernels bound by arithmetic, kernels bound by device memory, exposed collectives, floors of kernels, fetches that nothing
hides, and what the runtime adds to a pass."""


@dataclass(frozen=True)
class Bar:
    """An operator over all its layers in a pass of the slowest stage (ms): ``parts`` by name, what the roofline would take, and
    when it starts if operators run one after another."""

    pool: str
    phase: str
    operator: str
    layers: float
    start_ms: float
    parts: dict[str, float]
    ideal_ms: float | None

    @property
    def total_ms(self) -> float:
        """All parts."""
        return sum(self.parts.values())


def steps_of(study: Study) -> dict[tuple[str, str], list[Bar]]:
    """By pool and phase the operators of a pass, alike ones of several windows together; the parts sum to the pass."""
    overlapped = bool(study.plan.inputs["runtime"]["overlap_communication"])
    return {
        (pool.phase, phase): _bars(pool.phase, phase, step, overlapped)
        for pool in study.plan.pools
        for phase, step in pool.step.items()
    }


def operator_of(block: str) -> str:
    """``hash_csa.attention`` is ``attention (hash_csa)``."""
    kind, _, name = block.rpartition(".")
    return f"{name} ({kind})" if kind else name


def _bars(pool: str, phase: str, step: dict[str, Any], overlapped: bool) -> list[Bar]:
    found: dict[str, tuple[float, dict[str, float], float]] = {}
    waits = 0.0
    for window in step["windows"]:
        layers, known = window["layers"], 0.0
        for block in window["blocks"]:
            kernels, network = max(block["compute_ms"], block["memory_ms"]), block["communication_ms"]
            exposed = max(network - kernels, 0.0) if overlapped else network
            bound = "compute" if block["compute_ms"] > block["memory_ms"] else "memory"
            parts = {bound: kernels, "network": exposed, "start-up": block["floor_ms"]}
            known += sum(parts.values())
            many, sums, ideal = found.get(block["block"], (0.0, dict.fromkeys(PARTS, 0.0), 0.0))
            for name, value in parts.items():
                sums[name] += value * layers
            found[block["block"]] = (many + layers, sums, ideal + block["ideal_ms"] * layers)
        waits += max(window["layer_ms"] - known, 0.0) * layers
    rows: list[tuple[str, float, dict[str, float], float | None]] = [
        (operator_of(name), layers, sums, ideal) for name, (layers, sums, ideal) in found.items()
    ]
    if waits > 1e-9 * step["time_ms"]:
        rows.append(("fetches", 0.0, {"waiting for lower memories": waits}, None))
    rest = step["time_ms"] - sum(sum(parts.values()) for _, _, parts, _ in rows)
    if rest > 1e-9 * step["time_ms"]:
        rows.append(("runtime and stages", 0.0, {"runtime step": rest}, None))
    bars, start = [], 0.0
    for name, layers, parts, ideal_ms in rows:
        bars.append(Bar(pool, phase, name, layers, start, {k: v for k, v in parts.items() if v > 0.0}, ideal_ms))
        start += bars[-1].total_ms
    return bars
