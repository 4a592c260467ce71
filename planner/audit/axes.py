"""Which options of an engine set which axis of a configuration, and what their words mean."""

from __future__ import annotations

from typing import Any

from planner.audit.read import OF_NODE, Engine

SPANNING = frozenset(
    ("megamoe", "deepep", "deepep_v2", "mooncake", "nixl", "ascend_fuseep", "flashinfer", "flashinfer_megamoe", "mori", "pplx")
)
"""All-to-all backends of SGLang whose experts lie on all ranks."""
CACHE_DTYPES = {
    **dict.fromkeys(("auto", "bfloat16", "bf16", "float16"), "bf16"),
    **dict.fromkeys(("fp8", "fp8_e4m3", "fp8_ds_mla", "fp8_inc"), "fp8"),
}
DRAFTS = frozenset(("mtp", "deepseek_mtp", "NEXTN", "EAGLE", "glm4_moe_mtp", "qwen3_next_mtp", "longcat_flash_mtp"))
WEIGHTS = {"fp8": "fp8", "modelopt_fp4": "fp4", "nvfp4_online": "fp4", "w8a8_int8": "int8"}
FLAGS: dict[Engine, dict[str, tuple[str, ...]]] = {
    "vllm": {
        "tp": ("tensor-parallel-size",),
        "pp": ("pipeline-parallel-size",),
        "attention_dp": ("data-parallel-size",),
        "ep": ("enable-expert-parallel",),
        "context_parallel": ("decode-context-parallel-size",),
        "batch_per_rank": ("max-num-seqs",),
        "prefill_tokens_per_rank": ("max-num-batched-tokens",),
        "memory": ("gpu-memory-utilization",),
        "offload": (
            *("offload-backend", "offload-group-size", "offload-num-in-group", "offload-prefetch-step", "offload-params"),
            *("cpu-offload-gb", "cpu-offload-params", "engram-config"),
        ),
    },
    "sglang": {
        "tp": ("tp-size",),
        "pp": ("pp-size",),
        "attention_dp": ("attn-dp-size", "moe-dense-tp-size", "enable-dp-lm-head"),
        "ep": ("ep-size", "moe-a2a-backend", "deepep-mode"),
        "context_parallel": ("dcp-size",),
        "batch_per_rank": ("max-running-requests",),
        "prefill_tokens_per_rank": ("chunked-prefill-size",),
        "memory": ("mem-fraction-static",),
        "offload": (*("offload-group-size", "offload-num-in-group", "offload-prefetch-step", "offload-mode", "cpu-offload-gb"),),
    },
}
"""What sets each axis."""
ALSO_READ: dict[Engine, frozenset[str]] = {
    "vllm": frozenset(
        ("kv-cache-dtype", "speculative-config", "enable-eplb", "eplb-config", "max-model-len", "quantization", "block-size")
        + ("kv-transfer-config", "kv-offloading-size", "kv-offloading-backend", "served-model-name", "enable-prefix-caching")
        + ("enforce-eager",)
    ),
    "sglang": frozenset(
        ("kv-cache-dtype", "speculative-algorithm", "speculative-num-steps", "speculative-eagle-topk", "context-length")
        + ("speculative-num-draft-tokens", "ep-num-redundant-experts", "init-expert-location", "ep-dispatch-algorithm")
        + ("quantization", "disaggregation-mode", "disaggregation-transfer-backend", "served-model-name", "page-size")
        + ("enable-hierarchical-cache", "hicache-size", "hicache-storage-backend", "dp-size", "enable-dp-attention")
        + ("disable-radix-cache", "disable-cuda-graph")
    ),
}
NEUTRAL: dict[str, Any] = {
    **dict.fromkeys(("tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size", "tp-size", "pp-size"), 1),
    **dict.fromkeys(("decode-context-parallel-size", "dcp-size", "attn-dp-size", "ep-size"), 1),
    **dict.fromkeys(("enable-expert-parallel", "enable-dp-lm-head"), False),
    "moe-a2a-backend": "none",
    "cpu-offload-gb": 0,
    "engram-config": {"cpu_offload": False},
}
"""What leaving an option out means, where it is one value."""


def meant(engine: Engine) -> frozenset[str]:
    """Options that an audit reads, or that differ by node alone."""
    axes = (name for names in FLAGS[engine].values() for name in names)
    return frozenset(axes) | ALSO_READ[engine] | (OF_NODE - {"host", "port"})
