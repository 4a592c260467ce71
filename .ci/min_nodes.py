"""Smallest published deployments on Ascend nodes beside what the planner says fits (see docs/domestic-min-nodes.md).

Published counts: vllm-project/vllm-ascend docs/source/tutorials (Apache-2.0), read 2026-08-22.
"""

from __future__ import annotations

import re
from typing import Any

from planner import load_hardware, plan
from planner.errors import InfeasibleError
from planner.workload import Lengths, load_workload

A3, A2, DT = "atlas-800-a3", "atlas-800-a2", "ascend-950dt-node"
STAND_IN = "config not had, that of Kimi-K2.5 in its place"

# model, published dtype, catalogue model, options, nodes by system, remark
ROWS: list[tuple[str, str, str, dict[str, Any], dict[str, int], str]] = [
    ("DeepSeek-R1", "W8A8", "deepseek-r1", {"weight_dtype": "int8"}, {A3: 1, A2: 2}, ""),
    ("DeepSeek-V3.2", "W8A8", "deepseek-v3.2", {"weight_dtype": "int8"}, {A3: 1, A2: 2}, ""),
    ("DeepSeek-V4-Flash", "W8A8-MTP", "deepseek-v4-flash", {"weight_dtype": "int8", "mtp": 1}, {A3: 1, A2: 1}, ""),
    ("DeepSeek-V4-Pro", "W4A8-MTP", "deepseek-v4-pro", {"weight_dtype": "int4", "mtp": 1}, {A3: 2, A2: 4}, ""),
    ("GLM-5.2", "BF16", "glm-5.2", {"weight_dtype": "bf16"}, {A3: 2, A2: 4}, ""),
    ("GLM-5.2", "W8A8", "glm-5.2", {"weight_dtype": "int8"}, {A3: 1, A2: 2}, ""),
    ("GLM-5.2", "W4A8C8", "glm-5.2", {"weight_dtype": "int4", "kv_dtype": "fp8"}, {A3: 1, A2: 2}, ""),
    ("Kimi-K2.6", "W4A8", "kimi-k2.5", {}, {A3: 1, A2: 2}, STAND_IN),
    ("Kimi-K2-Thinking", "native", "kimi-k2-thinking", {}, {A3: 1}, ""),
    ("Qwen3.5-397B-A17B", "BF16", "qwen3.5-397b-a17b", {"weight_dtype": "bf16"}, {A3: 2, A2: 4, DT: 2}, ""),
    ("Qwen3.5-397B-A17B", "W8A8", "qwen3.5-397b-a17b", {"weight_dtype": "int8"}, {A3: 1, A2: 2}, ""),
    ("Qwen3.5-397B-A17B", "W8A8-MXFP8", "qwen3.5-397b-a17b", {"weight_dtype": "fp8"}, {DT: 1}, ""),
    ("Qwen3.5-397B-A17B", "W4A4-MXFP4", "qwen3.5-397b-a17b", {"weight_dtype": "fp4"}, {DT: 1}, ""),
    ("Qwen3.8-27B", "BF16", "qwen3.8-27b", {"weight_dtype": "bf16"}, {A3: 1, A2: 1, DT: 1}, ""),
]
LONG = 131_072
SHORT = r"weights ([\d.]+) .*? cache ([\d.]+) \+ reserve ([\d.]+) .*? exceed the ([\d.]+) .*? by ([\d.]+)"


def fit(model: str, system: str, nodes: int, options: dict[str, Any], tokens: int = 0) -> str:
    """What a device holds when one sequence a rank runs, or by how much it falls short."""
    workload = load_workload("batch")
    if tokens:
        workload = workload.model_copy(update={"input_tokens": Lengths(mean=tokens - 1024)})
    settings = ("ascend-950dt.memory.hbm.read=default",) if system == DT else ()
    try:
        found = plan(
            model,
            load_hardware(f"{system}:{nodes}"),
            workload=workload,
            allow_announced=True,
            settings=settings,
            objective="throughput",
            tiers=("hbm",),
            **options,
        )
    except InfeasibleError as error:
        numbers = re.search(SHORT, str(error))
        if numbers is None:
            return f"no: {error}"
        weights, cache, reserve, usable, short = map(float, numbers.groups())
        decides = (
            "weights alone" if weights > usable else f"reserve {reserve:.1f}, cache {cache:.1f} beside weights {weights:.1f}"
        )
        return f"no, short {short:.1f} GB a device ({decides})"
    memory = max((pool.memory for pool in found.pools), key=lambda memory: memory["weights_bytes"])
    weights, reserve = memory["weights_bytes"], sum(memory["reserve_bytes"].values())
    return f"yes: {weights / 1e9:.1f} weights + {reserve / 1e9:.1f} reserve of {memory['usable_bytes'] / 1e9:.1f} GB"


def main() -> None:
    """Print one line per published fact and system."""
    for name, dtype, model, options, nodes, remark in ROWS:
        print(f"{name} {dtype}" + (f" ({remark})" if remark else ""))
        for system, count in nodes.items():
            print(f"  {system}:{count}  {fit(model, system, count, options)}")
            if count > 1:
                fewer = fit(model, system, count - 1, options)
                print(f"  {system}:{count - 1}  {fewer}")
                if fewer.startswith("yes"):
                    print(f"  {' ' * len(system)}    at {LONG:,} tokens: {fit(model, system, count - 1, options, LONG)}")


if __name__ == "__main__":
    main()
