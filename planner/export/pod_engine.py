"""The engine inside a pod: what starts it there, where it answers, and which of its metrics count requests in flight.

Metrics and ports are those of the versions that the exporters name: ``vllm:num_requests_running`` and ``_waiting`` on port 8000
(vllm/v1/metrics/loggers.py), ``sglang:num_running_reqs`` and ``num_queue_reqs`` on port 30000 with ``--enable-metrics``
(sglang/srt/observability/metrics_collector.py). Both answer /health once they can serve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from planner.export import sglang, vllm, vllm_ascend
from planner.export.common import Notes
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.expert_map import expert_slots
from planner.export.schema import Values
from planner.export.serve import OptionValue, Serve

FOLDER = "/etc/planner"
"""Where files that an engine reads are mounted."""


@dataclass(frozen=True)
class PodEngine:
    """``framework``: vLLM or SGLang by Dynamo's name; ``headless``: the option of every node but the first."""

    name: str
    framework: str
    port: int
    headless: str
    in_flight: tuple[str, ...]
    command: Callable[[EngineDeployment, EnginePool, Values, Notes], Serve]
    experts: Callable[[EngineDeployment, EnginePool], str | None]
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    def files(self, deployment: EngineDeployment, pool: EnginePool) -> dict[str, str]:
        """Files that the engine reads, by name."""
        text = self.experts(deployment, pool)
        return {} if text is None else {f"{pool.phase}-experts.json": text}

    def serve(self, deployment: EngineDeployment, pool: EnginePool, values: Values, notes: Notes) -> Serve:
        """The process of a node, its files in ``FOLDER``."""
        made = self.command(deployment, pool, values, notes)
        moved = {name: f"{FOLDER}/{name}" for name in self.files(deployment, pool)}
        return replace(made, options={key: _moved(value, moved) for key, value in {**made.options, **self.options}.items()})


def _moved(value: OptionValue, names: Mapping[str, str]) -> OptionValue:
    if isinstance(value, str):
        return names.get(value, value)
    return {key: _moved(part, names) for key, part in value.items()} if isinstance(value, Mapping) else value


def _ascend_map(deployment: EngineDeployment, pool: EnginePool) -> str | None:
    slots = expert_slots(deployment, pool)
    return vllm_ascend.map_file(slots) if slots is not None and slots.chosen else None


_VLLM = ("vllm:num_requests_running", "vllm:num_requests_waiting")
VLLM = PodEngine("vllm", "vllm", 8000, vllm.HEADLESS, _VLLM, vllm.serve_command, lambda deployment, pool: None)
ASCEND = PodEngine("vllm-ascend", "vllm", 8000, vllm.HEADLESS, _VLLM, vllm_ascend.serve_command, _ascend_map)
SGLANG = PodEngine(
    "sglang",
    "sglang",
    30000,
    "",
    ("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    sglang.serve_command,
    sglang.map_file,
    {"host": "0.0.0.0", "enable-metrics": True},
)


def pod_engine(pool: EnginePool, values: Values) -> PodEngine:
    """The engine of a pool's pods."""
    if values.engine == "sglang":
        return SGLANG
    return ASCEND if pool.system.vendor == vllm_ascend.VENDOR else VLLM


def one_engine(deployment: EngineDeployment) -> str | None:
    """Why no one engine serves all pools, or ``None``."""
    vendors = sorted({pool.system.vendor for pool in deployment.pools})
    if len(vendors) > 1 and vllm_ascend.VENDOR in vendors:
        return f"no engine hands caches over between devices of {' and '.join(vendors)}"
    return None
