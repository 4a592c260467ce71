"""KServe's LLMInferenceService (``serving.kserve.io/v1alpha2``, the version it stores): decode at its top, prefill in it.

KServe merges the object into presets of its own (config/llmisvcconfig/ of kserve/kserve@aaac4e294dae). They start ``vllm serve
/mnt/models`` in the container ``main`` with tensor parallelism and, over several nodes, data and expert parallelism of
``spec.parallelism``; all other options go through VLLM_ADDITIONAL_ARGS, which a shell reads once more. They bring probes,
services and the sidecar that hands requests from decode to prefill over vLLM's NIXL connector. Nodes of an instance are
``data / dataLocal``; there is a preset for data-parallel ranks over nodes and none for one rank over several. ``replicas`` gives
way to ``scaling`` with KEDA where the site names its Prometheus server; nothing else may scale the sets that KServe owns.
"""

from __future__ import annotations

import shlex

from planner.errors import InputError
from planner.export.autoscaling import PoolScale, pool_scales, scale_lines, table, trigger
from planner.export.common import Notes, notes_of, pool_line, value_or_missing
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.kubernetes import MAIN, Map, Site, escaped
from planner.export.schema import Export, Values
from planner.export.serve import option_words
from planner.export.vllm_ascend import VENDOR

API = "serving.kserve.io/v1alpha2"
KIND = "LLMInferenceService"
ALWAYS_OWN = ("served-model-name", "tensor-parallel-size")
OWN_OVER_NODES = ("data-parallel-size", "data-parallel-size-local", "data-parallel-rpc-port", "enable-expert-parallel")
"""Options that the presets give themselves."""


def workload(site: Site, pool: EnginePool, scale: PoolScale) -> Map:
    """What decode at the top and prefill alike consist of."""
    own = Site(site.deployment, site.values, site.command, Notes())
    serve = own.serve(pool)
    site.notes.lost += own.notes.lost
    site.notes.said += own.notes.said
    owned = (*ALWAYS_OWN, *(OWN_OVER_NODES if pool.nodes > 1 else ()))
    words = [word for name, value in serve.options.items() if name not in owned for word in option_words(name, value)]
    parallelism: Map = {"tensor": pool.tp}
    if pool.nodes > 1:
        local = serve.options["data-parallel-size-local"]
        parallelism |= {"data": pool.attention_dp, "dataLocal": local, "expert": "enable-expert-parallel" in serve.options}
    env = [{"name": "VLLM_ADDITIONAL_ARGS", "value": escaped(shlex.join(words))}, *site.env(pool, serve)]
    given = site.values.image_of(pool.phase)
    image: Map = {}
    if given is not None or pool.system.vendor != "NVIDIA":
        image = {"image": site.image(pool.phase, f"KServe's own image is for NVIDIA's devices, not for {pool.system.vendor}'s")}
    volumes, mounts = site.volumes(pool, weights=False)
    container: Map = {"name": MAIN, **image, "env": env, "resources": site.resources(pool), "volumeMounts": mounts}
    spec: Map = {**site.place(pool), "containers": [container], "volumes": volumes}
    pods: Map = {"template": spec, "worker": spec} if pool.nodes > 1 else {"template": spec}
    return {**_count(site, pool, scale), "parallelism": parallelism, **pods}


def _count(site: Site, pool: EnginePool, scale: PoolScale) -> Map:
    if site.values.prometheus is None:
        return {"replicas": pool.replicas}
    prefill = "-prefill" if pool.phase == "prefill" else ""
    pods = f"{site.name}-kserve-mn{prefill}-[0-9]+" if pool.nodes > 1 else f"{site.name}-kserve{prefill}-[a-z0-9]+-[a-z0-9]+"
    keda: Map = {"triggers": [trigger(site, scale, pods)]}
    return {"scaling": {"minReplicas": 1, "maxReplicas": scale.most, "keda": keda}}


def model_uri(site: Site) -> str:
    """Where KServe loads the weights from: ``pvc://``, ``hf://`` or the URI that the site gave."""
    path, pvc, mount = site.values.model_path, site.values.pvc, site.values.mount_path.rstrip("/")
    if path is not None and "://" in path:
        return path
    if path is not None and not path.startswith("/"):
        return f"hf://{path}"
    if pvc is not None and (path is None or path.startswith(f"{mount}/")):
        return f"pvc://{pvc}/{site.deployment.plan.model if path is None else path.removeprefix(f'{mount}/')}"
    why = "hub id, URI, or a folder of the volume pvc: KServe loads the weights itself"
    return f"hf://{value_or_missing(None, 'model_path', 'MODEL_PATH', why, site.notes.missing)}"


class KserveExporter:
    """``kserve.yaml`` and ``autoscaling.csv``."""

    engine = "KServe LLMInferenceService v1alpha2"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """The presets have to start the plan's instances."""
        vendors = {pool.system.vendor for pool in deployment.pools}
        if VENDOR in vendors and deployment.disaggregated:
            return "KServe hands requests from prefill to decode over vLLM's NIXL connector, which Ascend devices do not have"
        for pool in deployment.pools:
            if pool.nodes > 1 and (pool.attention_dp == 1 or pool.tp * pool.pp > pool.devices_on_node):
                return f"KServe has no preset for a rank over several nodes, as in the {pool.phase} pool"
        return None

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """The files."""
        if values.engine == "sglang":
            raise InputError("KServe's presets start vLLM", where="values: engine", mend="leave it out, or export to lws")
        site = Site(deployment, values, command, notes_of(deployment))
        scales = {scale.pool.phase: scale for scale in pool_scales(deployment, values)}
        parts = {pool.phase: workload(site, pool, scales[pool.phase]) for pool in deployment.pools}
        top = parts["decode" if deployment.disaggregated else "mixed"]
        model: Map = {"uri": model_uri(site)}
        if values.served_model_name is not None:
            model["name"] = values.served_model_name
        prefill: Map = {"prefill": parts["prefill"]} if deployment.disaggregated else {}
        router: Map = {"scheduler": {}, "route": {}, "gateway": {}}
        made = {**site.head(API, KIND, site.name), "spec": {"model": model, "router": router, **top, **prefill}}
        site.notes.said += [pool_line(pool) for pool in deployment.pools] + scale_lines(list(scales.values()))
        if any(values.image_of(pool.phase) is None for pool in deployment.pools):
            site.notes.said.append("without an image KServe takes its own: its vLLM has to know the options of the plan's")
        if values.prometheus is None:
            site.notes.said.append("the numbers of instances are fixed; with prometheus in the values file KServe scales them")
        files = [site.write("kserve.yaml", [*site.file_maps(), made]), table(deployment, list(scales.values()), command)]
        notes = site.notes
        return Export("kserve", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = KserveExporter()
