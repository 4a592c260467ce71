"""vLLM on Huawei's NPUs: ``vllm serve`` with the plugin's ``--additional-config`` and its map of experts.

Of vllm-ascend 0.23.0.post1 (its sdist, Apache-2.0): ``eplb_config`` has ``expert_map_path`` (a ``.json`` that exists when the
engine starts) and ``num_redundant_experts``, which counts all slots beyond the experts (vllm_ascend/ascend_config.py). A map file
has for every MoE layer, counted from 0, the logical experts in the slots of each device (vllm_ascend/eplb/core/eplb_utils.py).
"""

from __future__ import annotations

import json
from dataclasses import replace

from planner.export.common import Notes, experts_file, notes_of, tell_shared_nodes, tell_uneven_copies
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.expert_map import ExpertSlots, expert_slots
from planner.export.header import commented
from planner.export.schema import Export, ExportFile, Values
from planner.export.serve import BESIDE, OptionValue, Serve
from planner.export.vllm import ROUTER, pool_files
from planner.export.vllm import serve_command as vllm_command

VENDOR = "Huawei"
NO_MAP = "which experts lie on which rank"
CONNECTOR = "MooncakeConnectorV1"


def serve_command(deployment: EngineDeployment, pool: EnginePool, values: Values, notes: Notes) -> Serve:
    """The process of a node of an instance."""
    own = Notes()
    serve = vllm_command(deployment, pool, values, own)
    slots = expert_slots(deployment, pool)
    chosen = slots is not None and slots.chosen
    notes.missing += [row for row in own.missing if row not in notes.missing]
    notes.said += own.said
    notes.lost += [row for row in own.lost if not (chosen and row.what.endswith(NO_MAP))]
    options = {name: value for name, value in serve.options.items() if name not in ("enable-eplb", "eplb-config")}
    if deployment.disaggregated:
        role = "kv_producer" if pool.phase == "prefill" else "kv_consumer"
        options["kv-transfer-config"] = {"kv_connector": CONNECTOR, "kv_role": role}
    if chosen and slots is not None:
        eplb: dict[str, OptionValue] = {"expert_map_path": f"{pool.phase}-experts.json"}
        spare = slots.physical_to_logical.shape[1] - slots.experts
        options["additional-config"] = {"eplb_config": {**eplb, "num_redundant_experts": spare} if spare else eplb}
        tell_uneven_copies(pool, "vllm-ascend", notes)
    return replace(serve, options=options)


def map_file(slots: ExpertSlots) -> str:
    """The plugin's map of experts."""
    layers = [
        {
            "layer_id": layer,
            "device_count": slots.ranks,
            "device_list": [{"device_id": rank, "device_expert": slots.of_rank(layer, rank)} for rank in range(slots.ranks)],
        }
        for layer in range(len(slots.layers))
    ]
    return json.dumps({"moe_layer_count": len(layers), "layer_list": layers}, separators=(",", ":")) + "\n"


class VllmAscendExporter:
    """A serve script and a YAML configuration a pool, and a map of experts where the plan has one."""

    engine = "vllm-ascend 0.23.0.post1"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """Huawei's devices only."""
        if all(pool.system.vendor == VENDOR for pool in deployment.pools):
            return None
        return f"vllm-ascend serves on {VENDOR} devices"

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """``serve-PHASE.sh``, ``PHASE.yaml`` and ``PHASE-experts.json``."""
        notes, head = notes_of(deployment), commented(deployment, command)
        files: list[ExportFile] = []
        for pool in deployment.pools:
            slots = expert_slots(deployment, pool)
            mapped = slots is not None and slots.chosen
            files += pool_files(pool, serve_command(deployment, pool, values, notes), head, BESIDE if mapped else "")
            if slots is not None and mapped:
                files.append(experts_file(deployment, pool, map_file(slots), command, notes))
        tell_shared_nodes(deployment, notes, "kv_port of --kv-transfer-config")
        notes.said += [ROUTER] if deployment.disaggregated else []
        return Export("vllm-ascend", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = VllmAscendExporter()
