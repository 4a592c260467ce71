"""Predicted and published rates of DeepSeek-V3 deployments, as a table (see docs/deployments.md)."""

import numpy as np

from planner import load_hardware, resolve
from planner.footprint import Shapes
from planner.plans import build_context
from planner.plans.evaluate import decode_seconds, prefill_seconds
from planner.workload import Lengths, load_workload

# hardware, phase, ISL, ranks (tp 1, attention dp = ep), load per rank, devices in a published unit, its tok/s, unit, source
ROWS = [
    ("h800-node:4", "prefill", 4096, 32, 16384, 8, 62700, "node", "deepseek-ai/profile-data, EP32, balanced"),
    ("h800-node:16", "decode", 4096, 128, 128, 8, 18600, "node", "deepseek-ai/profile-data, EP128, two micro-batches"),
    ("h100-node:4", "prefill", 4096, 32, 16384, 8, 50302, "node", "lmsys.org 2025-05-05, EP32"),
    ("h100-node:9", "decode", 2000, 72, 256, 8, 22282, "node", "lmsys.org 2025-05-05, EP72, two micro-batches"),
    ("gb200-nvl72", "prefill", 2000, 4, 16384, 1, 18471, "GPU", "lmsys.org 2025-09-25, EP4, FP8"),
    ("gb200-nvl72", "decode", 2000, 48, 768, 1, 9087, "GPU", "lmsys.org 2025-09-25, EP48, FP8"),
    ("cloudmatrix384", "prefill", 4096, 32, 8192, 2, 5655, "NPU", "arXiv 2506.12708, EP32, INT8"),
    ("cloudmatrix384", "decode", 4096, 256, 48, 2, 1943, "NPU", "arXiv 2506.12708, 96 a NPU, below 50 ms; published at EP320"),
]


def main() -> None:
    """Print the table."""
    print(f"{'hardware':15} {'phase':8} {'unit':5} {'published':>9} {'predicted':>9} {'ratio':>6}  source")
    for name, phase, isl, ranks, load, devices, published, unit, source in ROWS:
        lengths = {"input_tokens": Lengths(mean=isl), "output_tokens": Lengths(mean=100)}
        workload = load_workload("interactive").model_copy(update=lengths)
        context = build_context(resolve("deepseek-v3", load_hardware(name), workload=workload))
        pool, shapes = context.pools["mixed"], Shapes.single(1, ranks, ranks, 1)
        seconds = (prefill_seconds if phase == "prefill" else decode_seconds)(pool, shapes, np.array([float(load)]))
        predicted = devices * load / float(seconds[0])
        print(f"{name:15} {phase:8} {unit:5} {published:9,} {predicted:9,.0f} {predicted / published:6.2f}  {source}")


if __name__ == "__main__":
    main()
