"""vLLM: ``vllm serve`` lines and configuration files.

Options are those of vLLM 0.33.0 (vllm/engine/arg_utils.py and vllm/config/, published sdist, Apache-2.0):

* ``--max-num-seqs``, ``--max-num-batched-tokens`` count for each data-parallel rank (docs/serving/data_parallel_deployment.md);
  the latter counts a token and its drafts for each running sequence first, prompts get the rest (v1/core/sched/scheduler.py).
* ``--gpu-memory-utilization``: see ``common.memory_fraction``; what is left after weights and activations holds the KV cache.
* Expert parallelism is over all of TP x DP of a pipeline stage or not at all; there is no option for a map of experts.
* ``--offload-group-size`` G, ``--offload-num-in-group`` n: the last n of every G layers lie in host memory (config/offload.py).
* ``--engram-config``: tables are whole on the device or whole in host memory (config/engram.py).
* ``--kv-offloading-size`` puts its own connector in the place of ``--kv-transfer-config``'s (config/vllm.py).
* Nodes of one instance: whole data-parallel ranks by ``--data-parallel-start-rank``, which on the first node would mean that each
  node has a server of its own (engine/arg_utils.py), else ``--nnodes`` and ``--node-rank``.
"""

from __future__ import annotations

from planner.export.common import (
    GIB,
    Notes,
    cache_dtype,
    memory_fraction,
    model_path,
    notes_of,
    pool_line,
    prefix_below,
    read_in_place_bytes,
    shell_script,
    streamed_experts,
    table_share_below,
    tables_in_host,
    tell_embedding,
    tell_shared_nodes,
)
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.expert_map import spare_slots
from planner.export.header import commented
from planner.export.schema import Export, ExportFile, NotCarried, Values
from planner.export.serve import OfNode, OptionValue, Serve
from planner.export.yaml_text import to_yaml

KV_DTYPES = {"bf16": "auto", "fp8": "fp8", "fp8_e4m3": "fp8_e4m3", "nvfp4": "nvfp4"}
"""The cache's dtype as vLLM names it; ``auto`` is the model's own."""
RPC_PORT = 13345
MASTER_PORT = 29501
HEADLESS = "--headless"
"""On every node but the first."""
ROUTER = "a proxy or router has to send each request to a prefill instance and then to a decode instance"


def serve_command(deployment: EngineDeployment, pool: EnginePool, values: Values, notes: Notes) -> Serve:
    """The process of a node of an instance."""
    options: dict[str, OptionValue] = {}
    if values.served_model_name is not None:
        options["served-model-name"] = values.served_model_name
    options |= _parallelism(deployment, pool, notes)
    options |= _batch(pool, notes)
    options |= _weights_below(deployment, pool, notes)
    options |= _caches_below(deployment, pool, notes)
    options |= _tables(pool, notes)
    if pool.redundant_experts:
        options |= {"enable-eplb": True, "eplb-config": {"num_redundant_experts": spare_slots(deployment, pool)}}
    if pool.experts is not None:
        why = "vLLM has no option for a map of experts; its expert load balancer starts from a linear one"
        notes.lost.append(NotCarried(f"{pool.phase} pool: which experts lie on which rank", why, "export --to eplb has the map"))
    if pool.mtp:
        options["speculative-config"] = {"method": "mtp", "num_speculative_tokens": pool.mtp}
    if deployment.disaggregated:
        role = "kv_producer" if pool.phase == "prefill" else "kv_consumer"
        options["kv-transfer-config"] = {"kv_connector": "NixlConnector", "kv_role": role}
    path = model_path(deployment, values, notes.missing)
    return Serve(pool.phase, ("vllm", "serve", path), options, per_node=_per_node(pool))


def _parallelism(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    options: dict[str, OptionValue] = {"tensor-parallel-size": pool.tp}
    if pool.pp > 1:
        options["pipeline-parallel-size"] = pool.pp
    if pool.context_parallel > 1:
        options["decode-context-parallel-size"] = pool.context_parallel
    if pool.attention_dp > 1:
        options["data-parallel-size"] = pool.attention_dp
        if pool.nodes > 1:
            options["data-parallel-rpc-port"] = RPC_PORT
    if pool.nodes > 1:
        if _whole_ranks(pool):
            options["data-parallel-size-local"] = _ranks_on_node(pool)
        else:
            options |= {"nnodes": pool.nodes, "master-port": MASTER_PORT}
    wide = pool.tp * pool.attention_dp
    if deployment.experts and wide > 1:
        if pool.ep > 1:
            options["enable-expert-parallel"] = True
        if pool.ep not in (1, wide):
            why = f"vLLM spreads experts over all {wide} ranks of TP x DP or over none"
            notes.lost.append(NotCarried(f"{pool.phase} pool: expert parallelism over {pool.ep} ranks", why, f"EP {wide}"))
    if pool.nodes > 1 and not _whole_ranks(pool) and pool.nodes % pool.attention_dp:
        why = "a data-parallel rank of vLLM that does not fit on a node has whole nodes, or is started by Ray"
        what = f"{pool.phase} pool: {pool.attention_dp} data-parallel ranks on {pool.nodes} nodes"
        notes.lost.append(NotCarried(what, why, "does not start without Ray"))
    return options


def _batch(pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    options: dict[str, OptionValue] = {"max-model-len": pool.longest_tokens, "block-size": pool.page_tokens}
    dtype = cache_dtype(pool, KV_DTYPES, "vLLM", notes)
    if dtype is not None:
        options["kv-cache-dtype"] = dtype
    sequences = pool.sequences_per_rank * pool.pp
    if sequences:
        options["max-num-seqs"] = sequences
    if pool.chunk_tokens:
        decoding = pool.sequences_per_rank * (1 + pool.mtp)
        tokens = options["max-num-batched-tokens"] = max(pool.chunk_tokens + decoding, sequences)
        if tokens > pool.chunk_tokens + decoding:
            why = "vLLM wants a token a pass for each of --max-num-seqs (SchedulerConfig)"
            what = f"{pool.phase} pool: {pool.chunk_tokens} prompt tokens a pass"
            notes.lost.append(NotCarried(what, why, str(tokens - decoding)))
    if pool.wait_steps:
        options["prefill-schedule-interval"] = pool.cadence_steps
        what = f"{pool.phase} pool: prefill passes wait until every rank has a request"
        why = "vLLM has a cadence: all ranks prefill at once, whoever has a request then"
        notes.lost.append(NotCarried(what, why, f"a prefill every {pool.cadence_steps} steps"))
    options["gpu-memory-utilization"] = memory_fraction(pool)
    return options


def _weights_below(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    below = [part for part in pool.below("static", "routed") if part.role == "host"]
    for part in pool.below("static", "routed"):
        if part.role != "host":
            why = "vLLM streams weights from host memory only"
            notes.lost.append(
                NotCarried(f"{pool.phase} pool: {part.share:.4g} of {part.item} in {part.tier}", why, "host memory")
            )
    groups = streamed_experts(pool, deployment.model.layers, "vLLM", notes)
    if groups is not None:
        sizes = {"offload-group-size": groups.size, "offload-num-in-group": groups.streamed}
        ahead: dict[str, OptionValue] = {"offload-prefetch-step": groups.streamed, "offload-params": "experts"}
        return {"offload-backend": "prefetch", **sizes, **ahead}
    in_place = read_in_place_bytes(pool, groups)
    segment = "experts" if all(part.kind == "routed" for part in below) else None
    size = round(in_place / GIB, 3)
    return {"offload-backend": "uva", "cpu-offload-gb": size, "cpu-offload-params": segment} if in_place else {}


def _caches_below(deployment: EngineDeployment, pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    host, _ = prefix_below(pool, "vLLM", notes)
    why, instead = "--kv-offloading-backend native fills host memory only", "a connector with a drive, such as LMCache's"
    for part in pool.below("prefix"):
        if deployment.disaggregated:
            why, instead = "--kv-offloading-size takes the place of the connector between pools", "a MultiConnector of both"
        elif part.role == "host":
            continue
        what = f"{pool.phase} pool: {part.bytes_per_device / 1e9:.4g} GB a device of the prefix cache in {part.tier}"
        notes.lost.append(NotCarried(what, why, instead))
    if not host or deployment.disaggregated:
        return {}
    return {"kv-offloading-size": round(host * pool.tp * pool.pp / GIB, 3), "kv-offloading-backend": "native"}


def _tables(pool: EnginePool, notes: Notes) -> dict[str, OptionValue]:
    tell_embedding(pool, "vLLM", notes)
    below = table_share_below(pool)
    return {} if below is None else {"engram-config": {"cpu_offload": tables_in_host(pool, below, "vLLM", notes)}}


def _whole_ranks(pool: EnginePool) -> bool:
    """Whether nodes have data-parallel ranks that fit on one."""
    return pool.attention_dp > 1 and pool.tp * pool.pp <= pool.devices_on_node


def _ranks_on_node(pool: EnginePool) -> int:
    return pool.devices_on_node // (pool.tp * pool.pp)


def _per_node(pool: EnginePool) -> dict[str, OfNode]:
    if pool.nodes == 1:
        return {}
    if _whole_ranks(pool):
        start = OfNode(_ranks_on_node(pool), followers=True)
        return {"data-parallel-address": OfNode(None), "data-parallel-start-rank": start}
    return {"node-rank": OfNode(1), "master-addr": OfNode(None)}


def pool_files(pool: EnginePool, serve: Serve, head: str, beside: str = "") -> list[ExportFile]:
    """A pool's script, and the same as the file that ``vllm serve --config`` takes."""
    config = {"model": serve.program[-1], **{key: value for key, value in serve.options.items() if value is not None}}
    return [
        ExportFile(f"serve-{pool.phase}.sh", shell_script(pool, serve, head, beside, HEADLESS)),
        ExportFile(f"{pool.phase}.yaml", f"{head}# {pool_line(pool)}\n{to_yaml(config)}".encode()),
    ]


class VllmExporter:
    """Serve scripts and YAML configuration, one of each a pool."""

    engine = "vLLM 0.33.0"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """Huawei's devices need its plugin."""
        if any(pool.system.vendor == "Huawei" for pool in deployment.pools):
            return "Ascend devices are served by vllm-ascend"
        return None

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """``serve-PHASE.sh`` and ``PHASE.yaml``."""
        notes, head = notes_of(deployment), commented(deployment, command)
        files: list[ExportFile] = []
        for pool in deployment.pools:
            files += pool_files(pool, serve_command(deployment, pool, values, notes), head)
        tell_shared_nodes(deployment, notes, "VLLM_NIXL_SIDE_CHANNEL_PORT")
        notes.said += [ROUTER] if deployment.disaggregated else []
        return Export("vllm", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = VllmExporter()
