"""TensorRT-LLM: ``trtllm-serve MODEL --config PHASE.yaml``, and ``trtllm-serve disaggregated`` in front of pools of their own.

Options are those of ``TorchLlmArgs`` (tensorrt_llm/llmapi/llm_args.py, NVIDIA/TensorRT-LLM, Apache-2.0; the commit is in
options/trtllm.json):

* ``tensor_parallel_size`` counts all ranks of a pipeline stage; with ``enable_attention_dp`` each of them is an attention-DP rank
  (``Mapping.dp_size``), and ``moe_tensor_parallel_size`` times ``moe_expert_parallel_size`` is that count (mapping.py).
* ``max_batch_size`` and ``max_num_tokens`` are those of a rank and pass, prompts' and drafts' tokens included; an engine holds
  ``max_batch_size`` times stages times attention-DP ranks (_torch/pyexecutor/py_executor.py, ``max_num_active_requests``).
* ``free_gpu_memory_fraction``: KV cache over what is free once weights are loaded and activations were tried.
* ``host_cache_size``, ``disk_cache_size``: bytes of a rank for blocks that no running sequence holds.
* ``load_balancer``: a file whose ``initial_global_assignments`` gives, by the model's own layer number, the expert in every slot;
  it has to name every MoE layer, drafts' included. ``layer_updates_per_iter: 0`` keeps it as it is.
* ``context_parallel_size`` with ``cp_type`` HELIX: for generation servers only; its ranks are tensor-parallel ones outside
  attention (docs/source/features/helix.md).
"""

from __future__ import annotations

import json
import math

from planner.errors import InputError
from planner.export.common import (
    Notes,
    cache_dtype,
    lost_placements,
    model_path,
    notes_of,
    pool_line,
    prefix_below,
    tell_shared_nodes,
    tell_uneven_copies,
    value_or_missing,
)
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.expert_map import ExpertSlots, expert_slots
from planner.export.header import commented
from planner.export.schema import Export, ExportFile, Missing, NotCarried, Values
from planner.export.serve import BESIDE, OptionValue, Serve, node_script
from planner.export.yaml_text import Value, to_yaml

KV_DTYPES = {"bf16": "auto", "fp8": "fp8", "fp8_e4m3": "fp8", "nvfp4": "nvfp4"}
PORT = 8000
SERVERS = {"prefill": "context_servers", "decode": "generation_servers"}


def serve_command(deployment: EngineDeployment, pool: EnginePool, values: Values, notes: Notes) -> Serve:
    """What starts an instance: one process on one node, else one a device through Slurm (docs/source/commands/trtllm-serve)."""
    program: tuple[str, ...] = ("trtllm-serve", model_path(deployment, values, notes.missing))
    if pool.nodes > 1:
        tasks = ("--ntasks", str(pool.devices), "--ntasks-per-node", str(pool.devices_on_node))
        program = ("srun", "--nodes", str(pool.nodes), *tasks, "--mpi=pmix", "trtllm-llmapi-launch", *program)
    options: dict[str, OptionValue] = {"host": "0.0.0.0", "port": PORT}
    if values.served_model_name is not None:
        options["served_model_name"] = values.served_model_name
    return Serve(pool.phase, program, {**options, "config": f"{pool.phase}.yaml"})


def configuration(deployment: EngineDeployment, pool: EnginePool, values: Values, notes: Notes) -> dict[str, Value]:
    """The YAML of a pool's instances."""
    config = _parallelism(deployment, pool, notes) | _batch(pool)
    config["kv_cache_config"] = _cache(pool, values, notes)
    if _balanced(deployment, pool) is not None:
        config["moe_config"] = {"load_balancer": f"{pool.phase}-experts.yaml"}
    if pool.mtp:
        config["speculative_config"] = {"decoding_type": "MTP", "max_draft_len": pool.mtp}
    if deployment.disaggregated:
        config["cache_transceiver_config"] = {"backend": "DEFAULT", "max_tokens_in_buffer": pool.longest_tokens}
        if pool.phase == "prefill":
            config["disable_overlap_scheduler"] = True
    _weights(pool, notes)
    tell_uneven_copies(pool, "TensorRT-LLM", notes)
    return config


def _parallelism(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, Value]:
    wide = pool.tp * pool.attention_dp
    config: dict[str, Value] = {"tensor_parallel_size": wide}
    if pool.pp > 1:
        config["pipeline_parallel_size"] = pool.pp
    if pool.nodes > 1:
        config["gpus_per_node"] = pool.devices_on_node
    if pool.attention_dp > 1:
        config["enable_attention_dp"] = True
        if pool.tp > 1:
            why = f"with attention DP each of the {wide} ranks of TensorRT-LLM is an attention-DP rank"
            what = f"{pool.phase} pool: {pool.attention_dp} attention-DP ranks of {pool.tp} devices each"
            notes.lost.append(NotCarried(what, why, f"{wide} attention-DP ranks of one device each, attention weights whole"))
    if pool.context_parallel > 1:
        if pool.phase == "decode" and pool.attention_dp == 1 and pool.tp % pool.context_parallel == 0:
            config |= {"tensor_parallel_size": wide // pool.context_parallel, "context_parallel_size": pool.context_parallel}
            config["cp_config"] = {"cp_type": "HELIX", "tokens_per_block": pool.page_tokens}
        else:
            why = "TensorRT-LLM splits caches by context on generation servers without attention DP only"
            what = f"{pool.phase} pool: context parallelism over {pool.context_parallel} ranks"
            notes.lost.append(NotCarried(what, why, "each rank has a sequence's whole cache"))
    if deployment.experts and wide > 1:
        config |= {"moe_expert_parallel_size": pool.ep, "moe_tensor_parallel_size": wide // pool.ep}
    return config


def _batch(pool: EnginePool) -> dict[str, Value]:
    apart = pool.tp if pool.attention_dp > 1 else 1  # ranks of the engine that share what the plan gives one
    batch, chunk = -(-pool.sequences_per_rank // apart), -(-pool.chunk_tokens // apart)
    config: dict[str, Value] = {"max_seq_len": pool.longest_tokens, "max_num_tokens": chunk + batch * (1 + pool.mtp)}
    if batch:
        config["max_batch_size"] = batch
        config["cuda_graph_config"] = {"enable_padding": True, "max_batch_size": batch}
    if chunk:
        config["enable_chunked_prefill"] = True
    if pool.wait_steps:  # until every rank has a request to prefill
        config["attention_dp_config"] = {"enable_balance": True, "batching_wait_iters": 0, "timeout_iters": pool.wait_steps}
    return config


def moved_bytes(pool: EnginePool) -> float:
    """Weights of a device that the plan keeps elsewhere and the engine on the device."""
    return sum(part.bytes_per_device for part in pool.below("static", "routed", "lookup"))


def cache_fraction(pool: EnginePool) -> float:
    """Share for the KV cache of what is free beside weights and activations, rounded down to a thousandth: all but what the plan
    leaves to others (driver context, communication, fragmentation). 0 where nothing is free."""
    free = pool.device_memory_bytes - pool.weight_bytes - moved_bytes(pool) - (pool.reserve_bytes - pool.outside_bytes)
    return math.floor(max(1.0 - pool.outside_bytes / max(free, 1.0), 0.0) * 1000.0) / 1000.0


def _cache(pool: EnginePool, values: Values, notes: Notes) -> dict[str, Value]:
    config: dict[str, Value] = {"tokens_per_block": pool.page_tokens, "free_gpu_memory_fraction": cache_fraction(pool)}
    dtype = cache_dtype(pool, KV_DTYPES, "TensorRT-LLM", notes)
    if dtype is not None:
        config["dtype"] = dtype
    host, lower = prefix_below(pool, "TensorRT-LLM", notes)
    if pool.prefix is not None:
        config["enable_block_reuse"] = True
    if host:
        config["host_cache_size"] = math.ceil(host)
    if lower:
        why = "folder on each node's drive for blocks of the prefix cache; it has to exist"
        path = value_or_missing(values.cache_path, "cache_path", "CACHE_PATH", why, notes.missing)
        config |= {"disk_cache_size": math.ceil(lower), "disk_cache_path": path, "use_kv_cache_manager_v2": True}
    return config


def _weights(pool: EnginePool, notes: Notes) -> None:
    """Weights below device memory: the engine has them on the device, which may then lack room."""
    kinds = dict.fromkeys(("static", "routed", "lookup"), "device memory")
    notes.lost += lost_placements(pool, kinds, "TensorRT-LLM keeps all weights in device memory")
    moved = moved_bytes(pool)
    over = pool.weight_bytes + moved + pool.cache_bytes + pool.reserve_bytes - pool.device_memory_bytes
    if moved and over >= pool.cache_bytes:
        notes.said.append(f"{pool.phase} pool: does not start: all weights are {over / 1e9:.3g} GB a device too much")
    elif moved and over > 0:
        notes.said.append(f"{pool.phase} pool: {over / 1e9:.3g} GB a device less KV cache than planned, as all weights are there")


def _balanced(deployment: EngineDeployment, pool: EnginePool) -> ExpertSlots | None:
    slots = expert_slots(deployment, pool)
    return slots if slots is not None and (slots.chosen or pool.redundant_experts) else None


def balancer_file(slots: ExpertSlots, layers: int, drafts: int) -> str:
    """The load balancer's file. Draft layers, which come after the model's ``layers``, get the linear map."""
    width = slots.physical_to_logical.shape[1]
    rows = dict(zip(slots.layers, slots.physical_to_logical.tolist(), strict=True))
    rows |= {layers + draft: [slot % slots.experts for slot in range(width)] for draft in range(drafts)}
    lines = [f"  {layer}: {json.dumps(row, separators=(', ', ': '))}" for layer, row in sorted(rows.items())]
    return "\n".join([f"num_slots: {width}", "layer_updates_per_iter: 0", "initial_global_assignments:", *lines]) + "\n"


def disaggregated_configuration(deployment: EngineDeployment, values: Values, notes: Notes) -> dict[str, Value]:
    """The YAML of the server that sends requests to prefill and on to decode instances."""
    config: dict[str, Value] = {"hostname": "0.0.0.0", "port": PORT}
    for pool in deployment.pools:
        urls = list(values.urls_of(pool.phase))
        if len(urls) > pool.replicas:
            mend = f"give {pool.replicas}"
            raise InputError(f"{len(urls)} addresses for {pool.replicas} instances", where=f"pools.{pool.phase}.urls", mend=mend)
        if len(urls) < pool.replicas:
            why = "host:port of every instance, as trtllm-serve disaggregated wants them"
            first = f"{pool.phase.upper()}-{len(urls)}:{PORT}"
            notes.missing.append(Missing(f"pools.{pool.phase}.urls", first, why))
            urls += [f"{pool.phase.upper()}-{number}:{PORT}" for number in range(len(urls), pool.replicas)]
        config[SERVERS[pool.phase]] = {"num_instances": pool.replicas, "urls": urls}
    return config


class TrtllmExporter:
    """A serve script and a YAML configuration a pool, maps of experts, and the configuration of the server in front."""

    engine = "TensorRT-LLM main@0004396"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """NVIDIA's devices only."""
        others = {pool.system.vendor for pool in deployment.pools} - {"NVIDIA"}
        return f"TensorRT-LLM serves on NVIDIA devices, not on {sorted(others)[0]}'s" if others else None

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """``serve-PHASE.sh``, ``PHASE.yaml``, ``PHASE-experts.yaml`` and ``disaggregated.yaml``."""
        notes, files, head = notes_of(deployment), [], commented(deployment, command)
        for pool in deployment.pools:
            top, serve = f"{head}# {pool_line(pool)}\n", serve_command(deployment, pool, values, notes)
            config = to_yaml(configuration(deployment, pool, values, notes))
            script = f"#!/bin/sh\n{top}set -eu\n{BESIDE}{node_script(serve, 1)}"
            files.append(ExportFile(f"serve-{pool.phase}.sh", script.encode()))
            files.append(ExportFile(f"{pool.phase}.yaml", f"{top}{config}".encode()))
            slots = _balanced(deployment, pool)
            if slots is not None:
                text = balancer_file(slots, deployment.model.layers, pool.mtp)
                files.append(ExportFile(f"{pool.phase}-experts.yaml", f"{top}{text}".encode()))
        tell_shared_nodes(deployment, notes)
        if deployment.disaggregated:
            config = to_yaml(disaggregated_configuration(deployment, values, notes))
            files.append(ExportFile("disaggregated.yaml", f"{head}{config}".encode()))
            notes.said.append("trtllm-serve disaggregated -c disaggregated.yaml sends requests to prefill and decode instances")
        return Export("trtllm", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = TrtllmExporter()
