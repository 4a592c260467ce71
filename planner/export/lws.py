"""LeaderWorkerSet (kubernetes-sigs/lws 0.9, ``leaderworkerset.x-k8s.io/v1``): a set a pool, a group of pods an instance.

The controller gives every pod LWS_WORKER_INDEX and LWS_LEADER_ADDRESS, labels it with its index, and makes a headless service of
the set's name (api/leaderworkerset/v1/leaderworkerset_types.go); requests go to pod 0 of each group through a service of our own.
"""

from __future__ import annotations

from planner.export.autoscaling import autoscaling_files
from planner.export.common import notes_of, pool_line
from planner.export.deployment import EngineDeployment, EnginePool
from planner.export.kubernetes import Map, Site, plain_container, start_script, with_probes
from planner.export.pod_engine import one_engine
from planner.export.schema import Export, Values

API = "leaderworkerset.x-k8s.io/v1"
KIND = "LeaderWorkerSet"
LABEL = "leaderworkerset.sigs.k8s.io"


def group_set(site: Site, pool: EnginePool) -> Map:
    """The set of a pool."""
    engine, serve = site.engine(pool), site.serve(pool)
    script = None
    if pool.nodes > 1:
        script = start_script(serve, pool.nodes, engine.headless, "LWS_WORKER_INDEX", "LWS_LEADER_ADDRESS")
    container = plain_container(site, pool, serve, script)
    volumes, _ = site.volumes(pool)

    def template(made: Map) -> Map:
        return {
            "metadata": {"labels": site.labels(pool.phase)},
            "spec": {**site.place(pool), "containers": [made], "volumes": volumes},
        }

    first = template(with_probes(container, engine.port))
    pods: Map = {"workerTemplate": first} if pool.nodes == 1 else {"leaderTemplate": first, "workerTemplate": template(container)}
    return {
        **site.head(API, KIND, site.named(pool.phase), pool.phase),
        "spec": {
            "replicas": pool.replicas,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {"size": pool.nodes, "restartPolicy": "RecreateGroupOnPodRestart", **pods},
        },
    }


def service(site: Site, pool: EnginePool) -> Map:
    """The service of the first pods of a pool's groups."""
    port = site.engine(pool).port
    return {
        **site.head("v1", "Service", f"{site.named(pool.phase)}-http", pool.phase),
        "spec": {
            "type": "ClusterIP",
            "selector": {f"{LABEL}/name": site.named(pool.phase), f"{LABEL}/worker-index": "0"},
            "ports": [{"name": "http", "port": port, "targetPort": port}],
        },
    }


class LwsExporter:
    """``lws.yaml`` with a set and a service a pool, ``autoscaling.yaml`` and ``autoscaling.csv``."""

    engine = "LeaderWorkerSet v1 (LWS 0.9.0)"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """Needs an engine for all pools."""
        return one_engine(deployment)

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """The files."""
        site = Site(deployment, values, command, notes_of(deployment))
        sets = [part for pool in deployment.pools for part in (group_set(site, pool), service(site, pool))]
        files = [site.write("lws.yaml", [*site.file_maps(), *sets])]
        files += autoscaling_files(
            site,
            lambda pool: {"apiVersion": API, "kind": KIND, "name": site.named(pool.phase)},
            lambda pool: f"{site.named(pool.phase)}-[0-9]+",
        )
        site.notes.said += [f"{pool_line(pool)}: {site.engine(pool).name}" for pool in deployment.pools]
        if deployment.disaggregated:
            names = " and ".join(f"{site.named(pool.phase)}-http" for pool in deployment.pools)
            site.notes.said.append(f"a router has to send each request to a prefill and then to a decode instance ({names})")
        notes = site.notes
        return Export("lws", tuple(files), tuple(notes.lost), tuple(notes.missing), tuple(notes.said))


EXPORTER = LwsExporter()
