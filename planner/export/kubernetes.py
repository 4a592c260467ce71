"""What the manifests of every Kubernetes target share: metadata, the pod that runs an engine, and the files beside it.

Extended resources where the site names none: ``nvidia.com/gpu`` (NVIDIA/k8s-device-plugin), ``amd.com/gpu``
(ROCm/k8s-device-plugin), ``huawei.com/Ascend910`` (Ascend's device plugin, MindCluster 7.3.0; vllm-ascend docs,
user_guide/deployment_guide/using_volcano_kthena.md). Other vendors' are asked of the site.

Kubernetes replaces ``$(NAME)`` in commands, arguments and variables, and reads ``$$`` as one ``$``: what could be either is
escaped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.errors import InputError
from planner.export.common import GIB, Notes, value_or_missing
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.header import commented
from planner.export.pod_engine import FOLDER, PodEngine, pod_engine
from planner.export.schema import ExportFile, NotCarried, Values
from planner.export.serve import Serve, node_script
from planner.export.yaml_text import Value, documents

RESOURCES = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu", "Huawei": "huawei.com/Ascend910"}
SHARED_GIB = 64
MAIN = "main"
STARTUP_PERIODS = 360
"""Probes of ten seconds until a container that does not answer is restarted: an hour, for weights that come over a network."""
MOST_FILE_BYTES = 1_000_000
"""Of all files in a ConfigMap (Kubernetes takes 1 MiB)."""
Map = dict[str, Value]


@dataclass
class Site:
    """A deployment at the place that its values describe."""

    deployment: EngineDeployment
    values: Values
    command: str
    notes: Notes = field(default_factory=Notes)

    @property
    def name(self) -> str:
        """Of the deployment: the site's, else the model's as a DNS label."""
        if self.values.name is not None:
            return self.values.name
        plain = re.sub(r"[^a-z0-9]+", "-", self.deployment.plan.model.lower()).strip("-")
        return (plain if plain[:1].isalpha() else f"m-{plain}")[:40].rstrip("-")

    def named(self, phase: str) -> str:
        """The set of a pool."""
        return f"{self.name}-{phase}"

    def engine(self, pool: EnginePool) -> PodEngine:
        """Of a pool."""
        return pod_engine(pool, self.values)

    def head(self, api: str, kind: str, name: str, phase: str | None = None) -> Map:
        """apiVersion, kind and metadata with the plan's hash and the command."""
        note = {"inference-planner/plan-sha256": self.deployment.fingerprint, "inference-planner/command": self.command}
        space: Map = {} if self.values.namespace is None else {"namespace": self.values.namespace}
        return {
            "apiVersion": api,
            "kind": kind,
            "metadata": {"name": name, **space, "labels": self.labels(phase), "annotations": note},
        }

    def labels(self, phase: str | None = None) -> dict[str, str]:
        """Of objects and pods."""
        part = {} if phase is None else {"app.kubernetes.io/component": phase}
        return {"app.kubernetes.io/name": self.name, **part, "app.kubernetes.io/managed-by": "inference-planner"}

    def image(self, phase: str, why: str = "the container image that has the engine") -> str:
        """The image of a pool, or a placeholder on record."""
        return value_or_missing(self.values.image_of(phase), "image", "IMAGE", why, self.notes.missing)

    def resource(self, pool: EnginePool) -> str:
        """The extended resource of a pool's devices."""
        given = self.values.resource_of(pool.phase) or RESOURCES.get(pool.system.vendor)
        why = f"the extended resource that the device plugin of {pool.system.vendor} offers"
        return value_or_missing(given, "resource", "example.com/device", why, self.notes.missing)

    def resources(self, pool: EnginePool) -> Map:
        """Limits of a pod; requests are the same where left out."""
        name = self.resource(pool)
        if name in self.values.resources:
            raise InputError(f"{name} is counted by the plan", where="values: resources", mend="leave it out; resource names it")
        return {"limits": {name: str(pool.devices_on_node), **self.values.resources}}

    def serve(self, pool: EnginePool) -> Serve:
        """The process of a pool's node; what is lost on the way goes on record."""
        self._lost(pool)
        return self.engine(pool).serve(self.deployment, pool, self.values, self.notes)

    def env(self, pool: EnginePool, serve: Serve) -> list[Value]:
        """Variables of a pod."""
        made: list[Value] = [{"name": name, "value": escaped(value)} for name, value in serve.env.items()]
        if self.deployment.disaggregated and self.engine(pool).name == "vllm":
            address: Value = {"fieldRef": {"fieldPath": "status.podIP"}}
            made.append({"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", "valueFrom": address})
        return made

    def place(self, pool: EnginePool) -> Map:
        """Fields of a PodSpec that say where it runs and as whom."""
        made: Map = {}
        if self.values.service_account is not None:
            made["serviceAccountName"] = self.values.service_account
        if self.values.image_pull_secret is not None:
            made["imagePullSecrets"] = [{"name": self.values.image_pull_secret}]
        chosen = self.values.selector_of(pool.phase)
        return {**made, "nodeSelector": chosen} if chosen else made

    def volumes(self, pool: EnginePool, shared_memory: bool = True, weights: bool = True) -> tuple[list[Value], list[Value]]:
        """``(volumes, mounts)``: shared memory, weights, and files for the engine."""
        volumes: list[Value] = []
        mounts: list[Value] = []
        if shared_memory:
            volumes.append({"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": self.shared_memory(pool)}})
            mounts.append({"name": "dshm", "mountPath": "/dev/shm"})
        if weights and self.values.pvc is not None:
            volumes.append({"name": "weights", "persistentVolumeClaim": {"claimName": self.values.pvc, "readOnly": True}})
            mounts.append({"name": "weights", "mountPath": self.values.mount_path, "readOnly": True})
        if self.files(pool):
            volumes.append({"name": "files", "configMap": {"name": f"{self.named(pool.phase)}-files"}})
            mounts.append({"name": "files", "mountPath": FOLDER, "readOnly": True})
        return volumes, mounts

    def shared_memory(self, pool: EnginePool) -> str:
        """Size of /dev/shm: engines keep there the one copy of a table that a node's ranks share (vllm/config/engram.py)."""
        if self.values.shared_memory is not None:
            return self.values.shared_memory
        tables = sum(part.bytes_per_device for part in pool.below("lookup")) * pool.devices_on_node
        return f"{SHARED_GIB + math.ceil(tables / GIB)}Gi"

    def files(self, pool: EnginePool) -> dict[str, str]:
        """Files for the engine of a pool."""
        return self.engine(pool).files(self.deployment, pool)

    def file_maps(self) -> list[Map]:
        """A ConfigMap for every pool whose engine reads files."""
        made = []
        for pool in self.deployment.pools:
            files = self.files(pool)
            name = f"{self.named(pool.phase)}-files"
            if sum(len(text) for text in files.values()) > MOST_FILE_BYTES:
                why = f"larger than a ConfigMap may be ({MOST_FILE_BYTES} bytes)"
                instead = f"replace ConfigMap {name} by a volume with the file of planner export --to {self.engine(pool).name}"
                self.notes.lost.append(NotCarried(f"{pool.phase} pool: the map of experts", why, instead))
                files = dict.fromkeys(files, "{}\n")
            if files:
                made.append({**self.head("v1", "ConfigMap", name, pool.phase), "data": files})
        return made

    def write(self, name: str, objects: list[Map]) -> ExportFile:
        """A file of documents, opened by the header."""
        return ExportFile(name, (commented(self.deployment, self.command) + documents(objects)).encode())

    def _lost(self, pool: EnginePool) -> None:
        if pool.nodes > 1 and pool.system.devices > pool.devices_per_node:
            what = f"{pool.phase} pool: the {pool.nodes} nodes of an instance lie in one network domain of {pool.system.id}"
            why = "the cluster's scheduler chooses nodes"
            self.notes.lost.append(NotCarried(what, why, "label the nodes of a domain and give node_selector"))


def escaped(text: str) -> str:
    """A text that Kubernetes leaves as it is."""
    return re.sub(r"\$(?=[$(])", "$$", text)


def plain_container(site: Site, pool: EnginePool, serve: Serve, script: str | None = None) -> Map:
    """The container of an engine that the pod itself starts; a ``script`` takes the place of the bare command."""
    bare: Map = {"command": [escaped(word) for word in serve.argv()]}
    shell: Map = {"command": ["/bin/sh", "-c"], "args": [escaped(script or "")]}
    _, mounts = site.volumes(pool)
    return {
        "name": MAIN,
        "image": site.image(pool.phase),
        **(bare if script is None else shell),
        "env": site.env(pool, serve),
        "resources": site.resources(pool),
        "volumeMounts": mounts,
    }


def with_probes(container: Mapping[str, Value], port: int) -> Map:
    """The container with its port and with probes of /health."""
    health: Map = {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 10, "timeoutSeconds": 10}
    return {
        **container,
        "ports": [{"name": "http", "containerPort": port}],
        "startupProbe": {**health, "failureThreshold": STARTUP_PERIODS},
        "readinessProbe": {**health, "failureThreshold": 3},
        "livenessProbe": {**health, "failureThreshold": 6},
    }


def start_script(serve: Serve, nodes: int, headless: str, rank: str, leader: str) -> str:
    """The process of each of several nodes as a script; ``rank`` and ``leader``: variables with the node's number and node 0's
    name, which is looked up first: not every engine binds to a name."""
    lookup = (
        "tries=0\n"
        f'until LEADER_ADDRESS=$(getent hosts "${leader}" | cut -d " " -f 1) && [ -n "$LEADER_ADDRESS" ]; do\n'
        "  tries=$((tries + 1))\n"
        f'  [ "$tries" -lt 150 ] || {{ echo "${leader} has no address" >&2; exit 1; }}\n'
        "  sleep 2\n"
        "done\n"
    )
    return f"set -eu\nNODE_RANK=${rank}\n{lookup}{node_script(replace(serve, env={}), nodes, headless)}"
