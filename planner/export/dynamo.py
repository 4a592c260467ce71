"""NVIDIA Dynamo's DynamoGraphDeployment (``nvidia.com/v1beta1``, ai-dynamo 1.6.1): a frontend, and a component a pool.

The container ``main`` of a component starts ``dynamo.vllm`` or ``dynamo.sglang``, which take the engine's own options and
``--disaggregation-mode``. The operator adds what differs by node (rank, leader's address, data-parallel ranks of a node), probes
and /dev/shm (deploy/operator/internal/dynamo/backend_vllm.go, backend_sglang.go); the frontend finds instances and hands requests
from prefill to decode. ``scalingAdapter`` makes an object ``GRAPH-COMPONENT`` with a scale subresource for the autoscaler.
"""

from __future__ import annotations

import re

from planner.export.autoscaling import autoscaling_files
from planner.export.common import notes_of, pool_line
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.kubernetes import MAIN, Map, Site, escaped
from planner.export.schema import Export, Values
from planner.export.serve import OptionValue, option_words
from planner.export.vllm_ascend import VENDOR

API = "nvidia.com/v1beta1"
KIND = "DynamoGraphDeployment"
ADAPTER = {"apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoGraphDeploymentScalingAdapter"}
FROM_OPERATOR = ("data-parallel-size-local", "data-parallel-rpc-port", "nnodes", "master-port", "enable-metrics")
"""Options that the operator adds, or Dynamo in the engine's place."""
_VERSION = re.compile(r":v?\d+\.\d+\.\d+([-.+][\w.+-]*)?$")


def component(site: Site, pool: EnginePool) -> Map:
    """A pool's component."""
    engine, serve = site.engine(pool), site.serve(pool)
    options: dict[str, OptionValue] = {key: value for key, value in serve.options.items() if key not in FROM_OPERATOR}
    if engine.framework == "vllm":
        options = {"model": serve.program[-1], **options}
    if pool.phase != "mixed":
        options["disaggregation-mode"] = pool.phase
    words = [word for name, value in options.items() for word in option_words(name, value)]
    volumes, mounts = site.volumes(pool, shared_memory=False)
    container: Map = {
        "name": MAIN,
        "image": site.image(pool.phase),
        "command": ["python3", "-m", f"dynamo.{engine.framework}"],
        "args": [escaped(word) for word in words],
        "env": [{"name": name, "value": escaped(value)} for name, value in serve.env.items()],
        "resources": site.resources(pool),
        "volumeMounts": mounts,
    }
    several: Map = {"multinode": {"nodeCount": pool.nodes}} if pool.nodes > 1 else {}
    return {
        "name": _name(pool),
        "type": "worker" if pool.phase == "mixed" else pool.phase,
        "replicas": pool.replicas,
        **several,
        "sharedMemorySize": site.shared_memory(pool),
        "scalingAdapter": {},
        "podTemplate": {"spec": {**site.place(pool), "containers": [container], "volumes": volumes}},
    }


def _name(pool: EnginePool) -> str:
    return "worker" if pool.phase == "mixed" else pool.phase


def frontend(site: Site) -> Map:
    """What takes requests; it reads the model's tokenizer from where the weights lie."""
    pool = site.deployment.pools[-1]
    given = site.values.image or site.values.image_of(pool.phase)
    mounts: Map = {}
    volumes: Map = {}
    if site.values.pvc is not None:
        volumes["volumes"] = [{"name": "weights", "persistentVolumeClaim": {"claimName": site.values.pvc, "readOnly": True}}]
        mounts["volumeMounts"] = [{"name": "weights", "mountPath": site.values.mount_path, "readOnly": True}]
    container: Map = {
        "name": MAIN,
        "image": site.image(pool.phase) if given is None else given,
        "command": ["python3", "-m", "dynamo.frontend"],
        **mounts,
    }
    place = {key: value for key, value in site.place(pool).items() if key != "nodeSelector"}
    spec: Map = {**place, "containers": [container], **volumes}
    return {"name": "frontend", "type": "frontend", "replicas": 1, "podTemplate": {"spec": spec}}


class DynamoExporter:
    """``dynamo.yaml``, ``autoscaling.yaml`` and ``autoscaling.csv``."""

    engine = "Dynamo 1.6.1 (DynamoGraphDeployment v1beta1)"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """The graph's engines are vLLM, SGLang and TensorRT-LLM."""
        if any(pool.system.vendor == VENDOR for pool in deployment.pools):
            return "Dynamo's graphs have no engine for Ascend devices"
        return None

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """The files."""
        site = Site(deployment, values, command, notes_of(deployment))
        parts = [frontend(site), *(component(site, pool) for pool in deployment.pools)]
        framework = site.engine(deployment.pools[0]).framework
        graph: Map = {**site.head(API, KIND, site.name), "spec": {"backendFramework": framework, "components": parts}}
        files = [site.write("dynamo.yaml", [*site.file_maps(), graph])]
        files += autoscaling_files(
            site,
            lambda pool: {**ADAPTER, "name": f"{site.name}-{_name(pool)}"},
            lambda pool: f"{site.name}-(.+-)?{_name(pool)}-.+",
        )
        notes = site.notes
        notes.said += [f"{pool_line(pool)}: dynamo.{framework}" for pool in deployment.pools]
        images = {image for pool in deployment.pools if (image := values.image_of(pool.phase)) is not None}
        if any(not _VERSION.search(image) for image in images):
            notes.said.append("an image's tag is no version: Dynamo asks for runtimeVersionOverride in its component")
        return Export("dynamo", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = DynamoExporter()
