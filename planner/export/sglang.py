"""SGLang: ``sglang.launch_server`` lines and maps of experts.

Options are those of SGLang 0.5.23 (sglang/srt/arg_groups/, published wheel, Apache-2.0):

* ``--tp-size`` counts all ranks of a pipeline stage; ``--attn-dp-size`` D of them form D groups for attention
  (parallel_hook.py: ``tp_size % attn_dp_size == 0``). ``--enable-dp-attention`` is deprecated.
* ``--max-running-requests`` and ``--chunked-prefill-size`` are divided by the attention-DP size.
* ``--enable-prefill-delayer``: a prefill pass waits until every attention-DP rank has a request for it, less than
  ``--prefill-delayer-max-delay-passes`` (srt/managers/prefill_delayer.py).
* ``--mem-fraction-static``: weights and KV cache over device memory.
* ``--init-expert-location FILE.json`` takes ``physical_to_logical_map`` [model layers][slots], dense layers included
  (srt/eplb/expert_location.py); ``--ep-num-redundant-experts`` counts slots of an instance.
* ``--hicache-size``: GB of host memory of a rank. DeepSeek-V4.1's Engram tables go to host memory by the environment variable
  ``SGLANG_ENABLE_DSV41_ENGRAM_HOST_TABLE`` (srt/environ.py).
"""

from __future__ import annotations

import json
import math

from planner.export.common import (
    GIB,
    Notes,
    cache_dtype,
    experts_file,
    listed,
    model_path,
    notes_of,
    prefix_below,
    read_in_place_bytes,
    shell_script,
    static_fraction,
    streamed_experts,
    table_share_below,
    tables_in_host,
    tell_embedding,
    tell_shared_nodes,
    tell_uneven_copies,
)
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.expert_map import expert_slots, spare_slots, whole_model
from planner.export.header import commented
from planner.export.schema import Export, ExportFile, NotCarried, Values
from planner.export.serve import BESIDE, OfNode, OptionValue, Serve

KV_DTYPES = {"bf16": "auto", "fp8": "fp8_e4m3", "fp8_e4m3": "fp8_e4m3", "nvfp4": "nvfp4"}
INIT_PORT = 20000
BOOTSTRAP_PORT = 8998


def serve_command(deployment: EngineDeployment, pool: EnginePool, values: Values, notes: Notes) -> Serve:
    """The process of a node of an instance."""
    options: dict[str, OptionValue] = {"model-path": model_path(deployment, values, notes.missing)}
    if values.served_model_name is not None:
        options["served-model-name"] = values.served_model_name
    options |= _parallelism(deployment, pool)
    options |= _batch(pool, notes)
    options |= _experts(deployment, pool, notes)
    options |= _weights_below(deployment, pool, notes)
    options |= _caches_below(pool, notes)
    if pool.mtp:
        drafts = {"speculative-num-steps": pool.mtp, "speculative-eagle-topk": 1, "speculative-num-draft-tokens": pool.mtp + 1}
        options |= {"speculative-algorithm": "NEXTN", **drafts}
    if deployment.disaggregated:
        ascend = pool.system.vendor == "Huawei"
        options |= {"disaggregation-mode": pool.phase, "disaggregation-transfer-backend": "ascend" if ascend else "mooncake"}
        options |= {"disaggregation-bootstrap-port": BOOTSTRAP_PORT}
        if values.interface is not None:
            options["disaggregation-ib-device"] = values.interface
    nodes = {} if pool.nodes == 1 else {"node-rank": OfNode(1), "dist-init-addr": OfNode(None, f":{INIT_PORT}")}
    return Serve(pool.phase, ("python3", "-m", "sglang.launch_server"), options, _tables(deployment, pool, notes), nodes)


def _parallelism(deployment: EngineDeployment, pool: EnginePool) -> dict[str, OptionValue]:
    options: dict[str, OptionValue] = {"tp-size": pool.tp * pool.attention_dp}
    if pool.attention_dp > 1:
        options["attn-dp-size"] = pool.attention_dp
        if pool.tp == 1:
            options |= {"moe-dense-tp-size": 1, "enable-dp-lm-head": True}
    if pool.pp > 1:
        options["pp-size"] = pool.pp
    if pool.context_parallel > 1:
        options["dcp-size"] = pool.context_parallel
    if pool.nodes > 1:
        options["nnodes"] = pool.nodes
    return options


def _batch(pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    options: dict[str, OptionValue] = {"context-length": pool.longest_tokens, "page-size": pool.page_tokens}
    dtype = cache_dtype(pool, KV_DTYPES, "SGLang", notes)
    if dtype is not None:
        options["kv-cache-dtype"] = dtype
    if pool.sequences:
        options["max-running-requests"] = pool.sequences
    if pool.chunk_tokens:
        options["chunked-prefill-size"] = pool.chunk_tokens * pool.attention_dp
    if pool.wait_steps:
        options |= {"enable-prefill-delayer": True, "prefill-delayer-max-delay-passes": pool.wait_steps + 1}
    options["mem-fraction-static"] = static_fraction(pool)
    return options


def map_file(deployment: EngineDeployment, pool: EnginePool) -> str | None:
    """The map of experts of a pool; ``None`` where the plan chose none."""
    slots = expert_slots(deployment, pool)
    if slots is None or not slots.chosen:
        return None
    rows = whole_model(slots, deployment.model.layers).tolist()
    return json.dumps({"physical_to_logical_map": rows}, separators=(",", ":")) + "\n"


def _experts(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    if not deployment.experts or pool.ep < 2:
        return {}
    options: dict[str, OptionValue] = {"ep-size": pool.ep}
    if pool.ep == pool.tp * pool.attention_dp:
        options["moe-a2a-backend"] = "ascend_fuseep" if pool.system.vendor == "Huawei" else "deepep"
        if pool.phase != "mixed":
            options["deepep-mode"] = "normal" if pool.phase == "prefill" else "low_latency"
    spare = spare_slots(deployment, pool)
    if spare:
        options["ep-num-redundant-experts"] = spare
    if pool.experts is not None:
        options |= {"init-expert-location": f"{pool.phase}-experts.json", "ep-dispatch-algorithm": "static"}
        tell_uneven_copies(pool, "SGLang", notes)
    return options


def _weights_below(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    below = pool.below("static", "routed")
    for part in (part for part in below if part.role != "host"):
        what = f"{pool.phase} pool: {part.share:.4g} of {part.item}, {listed(part.layers)}, in {part.tier}"
        notes.lost.append(NotCarried(what, "SGLang streams weights from host memory", "host memory"))
    groups = streamed_experts(pool, deployment.model.layers, "SGLang", notes)
    if groups is not None:
        sizes = {"offload-group-size": groups.size, "offload-num-in-group": groups.streamed}
        return {**sizes, "offload-prefetch-step": groups.streamed, "offload-mode": "cpu"}
    in_place = read_in_place_bytes(pool, groups)
    if any(part.mode == "fetch" for part in below):
        why = "SGLang reads them where they lie, each pass, not only those that a pass wakes"
        notes.lost.append(NotCarried(f"{pool.phase} pool: experts fetched on demand", why, "--cpu-offload-gb"))
    return {"cpu-offload-gb": math.ceil(in_place / GIB)} if in_place else {}


def _caches_below(pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    host, lower = prefix_below(pool, "SGLang", notes)
    if not host and not lower:
        return {}
    options: dict[str, OptionValue] = {"enable-hierarchical-cache": True, "hicache-size": max(math.ceil(host / 1e9), 1)}
    if lower:
        options |= {"hicache-storage-backend": "file", "hicache-write-policy": "write_through"}
        notes.said.append(f"{pool.phase} pool: SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR names the folder on the drive")
    return options


def _tables(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, str]:
    """Environment variables for the Engram tables."""
    tell_embedding(pool, "SGLang", notes)
    below = table_share_below(pool)
    if below is None:
        return {}
    if not deployment.plan.model.startswith("deepseek-v4.1"):
        why = "SGLang 0.5.23 has Engram tables in host memory for DeepSeek-V4.1 only"
        notes.lost += [NotCarried(f"{pool.phase} pool: Engram tables off the device", why, "device memory")] if below else []
        return {}
    return {"SGLANG_ENABLE_DSV41_ENGRAM_HOST_TABLE": "1"} if tables_in_host(pool, below, "SGLang", notes) else {}


class SglangExporter:
    """A launch script a pool, and a map of experts where the plan has one."""

    engine = "SGLang 0.5.23"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """Every plan has a launch line."""
        return None

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """``launch-PHASE.sh`` and ``PHASE-experts.json``."""
        notes, files, head = notes_of(deployment), [], commented(deployment, command)
        for pool in deployment.pools:
            serve = serve_command(deployment, pool, values, notes)
            data = map_file(deployment, pool)
            script = shell_script(pool, serve, head, "" if data is None else BESIDE)
            files.append(ExportFile(f"launch-{pool.phase}.sh", script))
            if data is not None:
                files.append(experts_file(deployment, pool, data, command, notes))
        tell_shared_nodes(deployment, notes, "--disaggregation-bootstrap-port")
        if deployment.disaggregated:
            notes.said.append("a router (sglang-router --pd-disaggregation) sends requests to prefill and decode instances")
        return Export("sglang", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = SglangExporter()
