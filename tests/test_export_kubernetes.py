"""Plans as Kubernetes objects: closed schemas take them, both YAML versions read them alike, what they start is the plan's."""

import csv
import io
import json
import os
import re
import runpy
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from exported import CASES, deployment, made, skewed
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from planner.errors import InputError
from planner.export import EngineDeployment, Export, Values, export_plan, exporter
from planner.export.autoscaling import MOST_ROWS, cold_starts, pool_scales
from planner.export.common import Notes
from planner.export.kubernetes import Site, escaped
from planner.export.options import load_options, parse_words
from planner.export.pod_engine import FOLDER, pod_engine
from planner.export.yaml_text import documents
from planner.plans.context import build_context
from planner.plans.operate import Operation, operate
from planner.plans.read import decision_of

SCHEMAS = {
    "LeaderWorkerSet": "lws",
    "LLMInferenceService": "kserve",
    "DynamoGraphDeployment": "dynamo",
    "ScaledObject": "keda",
    "Service": "core",
    "ConfigMap": "core",
}
TARGETS = ("lws", "kserve", "dynamo")
FULL = Values(
    namespace="serving",
    image="registry.example.com/engine:1.6.1",
    pvc="weights",
    prometheus="http://prometheus.monitoring:9090",
    node_selector={"example.com/rack": "1"},
    image_pull_secret="pull",
    service_account="engine",
    storage_bytes_per_s=10e9,
    resources={"rdma/ib": "1"},
)
PAIRS = [(target, name) for target in TARGETS for name in CASES if target == "lws" or name != "v3-cm384"]
MADE: dict[tuple[str, str, str], Export] = {}


@cache
def schema(kind: str) -> jsonschema.Draft202012Validator:
    """The closed schema of a kind."""
    path = Path(__file__).parent / "crds" / f"{SCHEMAS[kind]}.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def faults(thing: dict[str, Any]) -> list[str]:
    """Where an object breaks its schema."""
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in schema(thing["kind"]).iter_errors(thing)]


def export(target: str, name: str, values: Values = FULL) -> Export:
    """The export of a case, made once."""
    key = (target, name, values.model_dump_json())
    if key not in MADE:
        MADE[key] = export_plan(deployment(name), target, values, f"planner export plan.json --to {target}")
    return MADE[key]


def objects(made: Export) -> list[dict[str, Any]]:
    """All objects of an export, as readers of YAML 1.1 and of 1.2 read them alike."""
    found = []
    for file in made.files:
        if file.name.endswith(".yaml"):
            text = file.content.decode()
            old = list(yaml.safe_load_all(text))
            assert old == list(YAML(typ="safe", pure=True).load_all(text))
            found += old
    return found


def named(made: Export, name: str) -> dict[str, Any]:
    """The set or component of a pool."""
    return next(thing for thing in objects(made) if thing["kind"] == "LeaderWorkerSet" and thing["metadata"]["name"] == name)


def pods(thing: Any) -> Iterator[dict[str, Any]]:
    """All PodSpecs in an object."""
    if isinstance(thing, dict):
        if "containers" in thing:
            yield thing
        else:
            for part in thing.values():
                yield from pods(part)
    elif isinstance(thing, list):
        for part in thing:
            yield from pods(part)


def expanded(text: str, env: dict[str, str]) -> str:
    """What Kubernetes makes of an argument (k8s.io/kubernetes third_party/forked/golang/expansion)."""

    def one(match: re.Match[str]) -> str:
        word = match.group()
        return "$" if word == "$$" else env.get(word[2:-1], word)

    return re.sub(r"\$\$|\$\([^)]*\)", one, text)


@pytest.mark.parametrize(("target", "name"), PAIRS)
@pytest.mark.parametrize("values", [FULL, Values()], ids=["filled", "bare"])
def test_closed_schemas_take_every_object_and_every_file_says_where_it_is_from(target: str, name: str, values: Values) -> None:
    result = export(target, name, values)
    for thing in objects(result):
        assert not faults(thing)
        note = thing["metadata"]["annotations"]
        assert note["inference-planner/plan-sha256"] == deployment(name).fingerprint
        assert note["inference-planner/command"] == f"planner export plan.json --to {target}"
        assert thing["metadata"].get("namespace") == values.namespace
    for file in result.files:
        assert file.content.startswith(b"# ") and deployment(name).fingerprint.encode() in file.content[:400]
    text = b"".join(file.content for file in result.files).decode()
    for row in result.missing:
        assert row.placeholder in text
    keys = {row.key for row in result.missing}
    needs = {"lws": {"image", "model_path", "prometheus"}, "kserve": {"model_path"}}.get(
        target, {"image", "model_path", "prometheus"}
    )
    assert keys == (set() if values is FULL else needs)
    if values is FULL:
        assert not any(word in text for word in ("IMAGE", "MODEL_PATH", "PROMETHEUS"))


@pytest.mark.parametrize("name", CASES)
def test_pods_are_those_of_the_plan(name: str) -> None:
    here, result = deployment(name), export("lws", name)
    resource = "huawei.com/Ascend910" if name == "v3-cm384" else "nvidia.com/gpu"
    for pool in here.pools:
        group = named(result, f"{Site(here, FULL, '').name}-{pool.phase}")["spec"]
        assert group["replicas"] == pool.replicas and group["leaderWorkerTemplate"]["size"] == pool.nodes
        assert ("leaderTemplate" in group["leaderWorkerTemplate"]) == (pool.nodes > 1)
        for pod in pods(group):
            (container,) = pod["containers"]
            assert container["resources"]["limits"] == {resource: str(pool.devices_on_node), "rdma/ib": "1"}
            assert pod["nodeSelector"] == FULL.node_selector and pod["serviceAccountName"] == "engine"
            assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert group["replicas"] * pool.nodes * pool.devices_on_node == pool.replicas * pool.devices


def test_shared_memory_holds_the_tables_that_lie_in_host_memory() -> None:
    here = deployment("v4.1-flash-gb300")
    for pool in here.pools:
        tables = sum(part.bytes_per_device for part in pool.below("lookup")) * pool.devices_on_node
        size = Site(here, Values(), "").shared_memory(pool)
        assert int(size.removesuffix("Gi")) * 2**30 >= tables + 2**36 and tables > 1e11
        assert Site(here, Values(shared_memory="8Gi"), "").shared_memory(pool) == "8Gi"


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("name", ["v3-h800", "v4.1-flash-gb300", "v3-cm384"])
def test_what_a_pod_runs_is_the_engines_own_command(name: str, engine: str, tmp_path: Path) -> None:
    """A shell runs the script of several nodes, with stand-ins for the engine and the name service."""
    here, values = deployment(name), FULL.model_copy(update={"engine": engine, "served_model_name": "it's $(HOME) $$ 1:30"})
    for program, body in (
        ("getent", 'echo "10.0.0.7  $2"'),
        ("vllm", 'printf "%s\\0" vllm "$@"'),
        ("python3", 'printf "%s\\0" python3 "$@"'),
    ):
        (tmp_path / program).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / program).chmod(0o755)
    for pool in here.pools:
        chosen = pod_engine(pool, values)
        wanted = chosen.serve(here, pool, values, Notes())
        group = named(export_plan(here, "lws", values, "c"), f"{Site(here, values, '').name}-{pool.phase}")
        for node, pod in enumerate(pods(group["spec"])):
            (container,) = pod["containers"]
            env = {"LWS_WORKER_INDEX": str(node), "LWS_LEADER_ADDRESS": "set-0.set.serving", "HOME": "/root"}
            words = [expanded(word, env) for word in [*container["command"], *container.get("args", [])]]
            if pool.nodes > 1:
                said = {**env, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
                words = subprocess.run(words, env=said, capture_output=True, text=True, check=True).stdout.split("\0")[:-1]
            common, own = wanted.argv(0, "10.0.0.7"), wanted.argv(node, "10.0.0.7")
            assert words[: len(common)] == [*common] if chosen.headless else words == [*own]
            assert sorted(words) == sorted([*own, *([chosen.headless] if node and chosen.headless else [])])
            _, rest, wrong = parse_words(load_options(engine), words[len(wanted.program) :])
            assert not rest and not wrong


@given(st.text(st.sampled_from("$()ab"), max_size=12))
def test_kubernetes_leaves_an_escaped_text_as_it_was(text: str) -> None:
    assert expanded(escaped(text), {"a": "1", "b": "2", "": "3"}) == text


@pytest.mark.parametrize("word", ["on", "no", "y", "null", "8e12", "0x1", "1e3"])
def test_words_that_yaml_might_take_for_something_else_stay_words(word: str) -> None:
    own = {} if word[0].isdigit() else {"name": word}
    values = FULL.model_copy(
        update={
            **own,
            "namespace": word,
            "image": word,
            "pvc": word,
            "served_model_name": "1:30",
            "node_selector": {"example.com/a": word.upper()},
        }
    )
    result = export_plan(deployment("v3-h800"), "lws", Values.model_validate(values.model_dump()), "NO")
    for thing in objects(result):
        assert not faults(thing) and thing["metadata"]["namespace"] == word
        assert thing["metadata"]["annotations"]["inference-planner/command"] == "NO"
        for pod in pods(thing):
            assert pod["nodeSelector"] == {"example.com/a": word.upper()} and pod["containers"][0]["image"] == word
            assert "--served-model-name 1:30" in pod["containers"][0]["args"][0]


SAMPLES = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: group, labels: {team: a}}
spec:
  replicas: 2
  leaderWorkerTemplate:
    size: 4
    restartPolicy: RecreateGroupOnPodRestart
    leaderTemplate:
      metadata: {labels: {role: leader}}
      spec:
        containers:
        - name: leader
          image: engine:1
          ports: [{containerPort: 8080}]
          readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 10}
          resources: {limits: {nvidia.com/gpu: "8", memory: 1Ti}, requests: {cpu: 100}}
          volumeMounts: [{name: shm, mountPath: /dev/shm}]
        volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 15Gi}}]
    workerTemplate:
      spec:
        containers:
        - name: worker
          image: engine:1
          env: [{name: A, value: "1"}, {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
---
apiVersion: serving.kserve.io/v1alpha2
kind: LLMInferenceService
metadata: {name: service}
spec:
  model: {uri: "hf://org/model", name: org/model}
  replicas: 1
  parallelism: {data: 32, dataLocal: 8, expert: true, tensor: 1}
  router: {scheduler: {}, route: {}, gateway: {}}
  template: {serviceAccountName: hub, containers: [{name: main, env: [{name: VLLM_ADDITIONAL_ARGS, value: "--enforce-eager"}]}]}
  worker: {containers: [{name: main, resources: {limits: {nvidia.com/gpu: "8"}}}]}
  prefill: {replicas: 2, template: {containers: [{name: main}]}}
---
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  backendFramework: vllm
  components:
  - name: Frontend
    type: frontend
    replicas: 1
    podTemplate: {spec: {containers: [{name: main, image: "runtime:1.6.1", args: ["-m", "dynamo.frontend"]}]}}
  - name: decode
    type: decode
    multinode: {nodeCount: 2}
    sharedMemorySize: 80Gi
    scalingAdapter: {}
    podTemplate: {spec: {containers: [{name: main}]}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: scaler}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: engine}
  minReplicaCount: 1
  maxReplicaCount: 8
  triggers: [{type: prometheus, metadata: {serverAddress: "http://p:9090", query: "sum(a)", threshold: "5"}}]
---
apiVersion: v1
kind: Service
metadata: {name: http}
spec: {selector: {app: engine}, ports: [{port: 8000, targetPort: http, protocol: TCP}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: files}
data: {map.json: "{}"}
"""
TYPOS = [
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.sizee", 2),
    ("LeaderWorkerSet", "spec.replicas", "two"),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.restartPolicy", "Always"),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.leaderTemplate.spec.containers.0.resources.limit", {}),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.leaderTemplate.spec.volumes.0.emptyDir.size", "1Gi"),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.workerTemplate.spec.containers.0.env.0.value", 1),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.leaderTemplate.spec.containers.0.resources.limits.memory", "1 TB"),
    ("LeaderWorkerSet", "spec.leaderWorkerTemplate.leaderTemplate.spec.containers.0.livenessProbe.exec.command", []),
    ("LeaderWorkerSet", "apiVersion", "leaderworkerset.x-k8s.io/v2"),
    ("LLMInferenceService", "spec.model.url", "hf://a"),
    ("LLMInferenceService", "spec.parallelism.tensor", True),
    ("LLMInferenceService", "spec.prefill.template.containers.0.nam", "main"),
    ("DynamoGraphDeployment", "spec.services", {}),
    ("DynamoGraphDeployment", "spec.components.1.type", "decoder"),
    ("DynamoGraphDeployment", "spec.components.1.multinode.nodeCount", 1),
    ("ScaledObject", "spec.triggers.0.metadata.threshold", 5),
    ("ScaledObject", "spec.maxReplicas", 5),
    ("Service", "spec.ports.0.port", 70000),
    ("ConfigMap", "data.file", 1),
]


def put(thing: Any, path: str, value: object) -> None:
    """Set a value at a dotted path, with objects on the way."""
    *way, last = path.split(".")
    for word in way:
        thing = thing[int(word)] if isinstance(thing, list) else thing.setdefault(word, {})
    thing[last] = value


def test_objects_as_others_write_them_are_taken() -> None:
    found = list(yaml.safe_load_all(SAMPLES))
    assert {thing["kind"] for thing in found} == set(SCHEMAS)
    for thing in found:
        assert not faults(thing)


@pytest.mark.parametrize(("kind", "path", "value"), TYPOS)
def test_wrong_fields_and_values_are_refused(kind: str, path: str, value: object) -> None:
    thing = next(one for one in yaml.safe_load_all(SAMPLES) if one["kind"] == kind)
    put(thing, path, value)
    assert len(faults(thing)) == 1


def test_every_snapshot_says_what_it_is_of() -> None:
    for path in (Path(__file__).parent / "crds").glob("*.json"):
        text = path.read_text()
        assert "Apache-2.0" in json.loads(text)["$comment"] and len(text) < 30_000
    assert schema("LeaderWorkerSet").schema["scaled_by"] == ".spec.replicas"


def test_the_script_closes_what_it_opens_and_lets_nothing_into_the_rest() -> None:
    text = {"type": "string", "description": "long", "enum": ["a", "b"], "default": "a"}
    inner = {"type": "object", "properties": {"deep": text}}
    parts = {
        "size": {"type": "integer", "format": "int32"},
        "one": text,
        "rest": inner,
        "list": {"type": "array", "items": inner},
        "either": {"x-kubernetes-int-or-string": True},
        "map": {"type": "object", "additionalProperties": text},
    }
    spec = {"type": "object", "required": ["size"], "properties": parts}
    script = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "crd_fields.py"))
    check = jsonschema.Draft202012Validator(script["closed"](spec, "spec", {"spec"}))
    good = {"size": 1, "one": "a", "rest": {}, "list": [], "either": "5%", "map": {"x": "b"}}
    assert check.is_valid(good) and "long" not in json.dumps(check.schema)
    for wrong in (
        {"sizee": 1},
        {"size": "1"},
        {"one": "c"},
        {"rest": {"deep": "a"}},
        {"list": [{}]},
        {"either": 1.5},
        {"map": {"x": "c"}},
    ):
        assert not check.is_valid({**good, **wrong})
    assert not check.is_valid({})


def test_the_site_cannot_change_how_many_devices_a_pod_has() -> None:
    values = Values(resources={"nvidia.com/gpu": "3"})
    for target in ("lws", "kserve", "dynamo"):
        with pytest.raises(InputError, match=r"values: resources.*nvidia.com/gpu"):
            export_plan(deployment("v3-h800"), target, values, "x")


def test_maps_of_experts_go_with_the_pods() -> None:
    plain = skewed()
    (pool,) = plain.pools
    ascend = replace(plain, pools=(replace(pool, system=pool.system.model_copy(update={"vendor": "Huawei"})),))
    for here, engine, targets in ((plain, "sglang", ("lws", "dynamo")), (ascend, "vllm-ascend", ("lws", "kserve"))):
        files = export_plan(here, engine, FULL, "c").files
        text = next(file.content.decode() for file in files if file.name == "mixed-experts.json")
        for target in targets:
            chosen = FULL.model_copy(update={"engine": "sglang"} if engine == "sglang" else {})
            found = objects(export_plan(here, target, chosen, "c"))
            (folder,) = [thing for thing in found if thing["kind"] == "ConfigMap"]
            assert folder["data"] == {"mixed-experts.json": text} and not faults(folder)
            pod = next(
                pod for thing in found for pod in pods(thing) if "files" in {part["name"] for part in pod.get("volumes", ())}
            )
            assert {"name": "files", "configMap": {"name": folder["metadata"]["name"]}} in pod["volumes"]
            (container,) = pod["containers"]
            assert {"name": "files", "mountPath": FOLDER, "readOnly": True} in container["volumeMounts"]
            assert json.dumps(container).count(f"{FOLDER}/mixed-experts.json") == 1


def test_files_too_large_for_a_config_map_are_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("planner.export.kubernetes.MOST_FILE_BYTES", 10)
    result = export_plan(skewed(), "lws", FULL.model_copy(update={"engine": "sglang"}), "c")
    assert any("map of experts" in row.what and "volume" in row.instead for row in result.not_carried)


@pytest.mark.parametrize("name", [name for target, name in PAIRS if target == "kserve"])
def test_kserve_gets_as_arguments_what_its_presets_do_not_say(name: str) -> None:
    here = deployment(name)
    (service,) = [thing for thing in objects(export("kserve", name)) if thing["kind"] == "LLMInferenceService"]
    spec = service["spec"]
    assert spec["model"] == {"uri": f"pvc://weights/{here.plan.model}"} and "replicas" not in spec
    for pool in here.pools:
        part = spec["prefill"] if pool.phase == "prefill" else spec
        assert part["scaling"]["minReplicas"] == 1 and part["scaling"]["keda"]["triggers"][0]["type"] == "prometheus"
        (container,) = part["template"]["containers"]
        words = shlex.split(expanded(next(row["value"] for row in container["env"] if row["name"] == "VLLM_ADDITIONAL_ARGS"), {}))
        own = ["--tensor-parallel-size", str(part["parallelism"]["tensor"])]
        if pool.nodes > 1:
            shape = part["parallelism"]
            assert shape["data"] // shape["dataLocal"] == pool.nodes and "worker" in part
            own += ["--data-parallel-size", str(shape["data"]), "--data-parallel-size-local", str(shape["dataLocal"])]
            own += ["--data-parallel-rpc-port", "13345", *(["--enable-expert-parallel"] if shape["expert"] else [])]
        known, rest, wrong = parse_words(load_options("vllm"), [*own, *words])
        wanted, _, _ = parse_words(load_options("vllm"), pod_engine(pool, FULL).serve(here, pool, FULL, Notes()).argv()[3:])
        assert not rest and not wrong
        assert known == {
            key: value for key, value in wanted.items() if key not in ("data-parallel-address", "data-parallel-start-rank")
        }
    fixed = objects(export("kserve", name, Values(model_path="org/model")))[0]["spec"]
    assert fixed["replicas"] == here.pools[-1].replicas and fixed["model"]["uri"] == "hf://org/model"


@pytest.mark.parametrize(
    ("values", "uri"),
    [
        ({"model_path": "s3://bucket/model"}, "s3://bucket/model"),
        ({"pvc": "disk", "model_path": "/models/a/b"}, "pvc://disk/a/b"),
        ({"model_path": "/models/a"}, "hf://MODEL_PATH"),
    ],
)
def test_kserve_loads_from_where_the_site_says(values: dict[str, str], uri: str) -> None:
    result = export_plan(deployment("v3-h800"), "kserve", Values.model_validate(values), "c")
    assert objects(result)[0]["spec"]["model"]["uri"] == uri
    assert ("model_path" in {row.key for row in result.missing}) == ("MODEL_PATH" in uri)


def test_what_a_target_cannot_start_is_refused_in_a_line() -> None:
    values = Values()
    for target, here, word in (
        ("kserve", deployment("v3-cm384"), "NIXL"),
        ("dynamo", deployment("v3-cm384"), "Ascend"),
        ("kserve", replace(deployment("v3-h800"), pools=(replace(deployment("v3-h800").pools[0], attention_dp=1),)), "preset"),
    ):
        with pytest.raises(InputError, match=word):
            export_plan(here, target, values, "c")
    with pytest.raises(InputError, match="vLLM"):
        export_plan(deployment("v3-h800"), "kserve", Values(engine="sglang"), "c")
    one, other = deployment("v3-h800").pools[0], deployment("v3-cm384").pools[1]
    assert "Huawei" in str(exporter("lws").applies(replace(deployment("v3-h800"), pools=(one, other))))


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("name", [name for target, name in PAIRS if target == "dynamo"])
def test_dynamo_starts_the_engine_with_its_own_options(name: str, engine: str) -> None:
    here = deployment(name)
    (graph,) = [
        thing for thing in objects(export("dynamo", name, FULL.model_copy(update={"engine": engine}))) if "Graph" in thing["kind"]
    ]
    front, *parts = graph["spec"]["components"]
    assert front["type"] == "frontend" and graph["spec"]["backendFramework"] == engine
    for pool, part in zip(here.pools, parts, strict=True):
        assert (part["type"], part["replicas"]) == (pool.phase, pool.replicas) and "scalingAdapter" in part
        assert part.get("multinode", {}).get("nodeCount", 1) == pool.nodes
        (container,) = part["podTemplate"]["spec"]["containers"]
        assert container["command"] == ["python3", "-m", f"dynamo.{engine}"]
        words = list(container["args"])
        if engine == "vllm":
            at = words.index("--disaggregation-mode")
            assert words[at + 1] == pool.phase
            del words[at : at + 2]
        known, rest, wrong = parse_words(load_options(engine), words)
        assert not rest and not wrong
        assert known["tensor-parallel-size" if engine == "vllm" else "tp-size"] == (
            pool.tp if engine == "vllm" else pool.tp * pool.attention_dp
        )
        assert not {"data-parallel-start-rank", "nnodes", "node-rank"} & set(known)
    assert any("runtimeVersionOverride" in note for note in export_plan(here, "dynamo", Values(image="a:latest"), "c").notes)


@pytest.mark.parametrize("name", CASES)
def test_the_table_is_what_the_plan_serves(name: str) -> None:
    here, plan = deployment(name), made(name)
    scales = {scale.pool.phase: scale for scale in pool_scales(here, FULL)}
    able = min(scale.requests_per_s * scale.pool.replicas for scale in scales.values())
    assert able == pytest.approx(plan.prediction.capacity_requests_per_s, rel=1e-9)
    decode = scales["decode"]
    assert decode.in_flight == pytest.approx(decode.pool.sequences, rel=0.01)
    rows = list(csv.DictReader(line for line in csv_text(name).splitlines() if not line.startswith("#")))
    assert {row["pool"] for row in rows} == set(scales)
    for phase, scale in scales.items():
        own = [row for row in rows if row["pool"] == phase]
        assert [int(row["instances"]) for row in own] == list(range(1, scale.most + 1))
        assert [int(row["instances"]) for row in own if row["of_plan"]] == [scale.pool.replicas]
        for row in own:
            assert float(row["requests_per_s"]) == pytest.approx(int(row["instances"]) * scale.requests_per_s, rel=1e-5)
            assert int(row["devices"]) == int(row["instances"]) * scale.pool.devices
    most = sum(max(int(row["devices"]) for row in rows if row["pool"] == phase) for phase in scales)
    assert most <= sum(row.units * row.devices_per_unit for row in plan.units) + sum(
        (scale.most - scale.pool.replicas) * scale.pool.devices for scale in scales.values()
    )


def csv_text(name: str) -> str:
    """The table of a case."""
    return next(file.content.decode() for file in export("lws", name).files if file.name == "autoscaling.csv")


def test_more_instances_keep_as_much_more_as_the_plans_own_equations_say() -> None:
    here = deployment("v4-pro-gb200")
    decision = decision_of(here.plan, "plan")
    context = build_context(here.inputs, decision.variant)
    (prefill, decode) = pool_scales(here, Values())
    for many in (1, 3, 6):
        pools = tuple(
            replace(part, replicas=many) if part.phase == "prefill" else replace(part, replicas=9) for part in decision.pools
        )
        served = operate(context, replace(decision, pools=pools)).capacity_per_s
        assert served == pytest.approx(min(many * prefill.requests_per_s, 9 * decode.requests_per_s), rel=1e-9)


def test_what_an_instance_keeps_does_not_depend_on_what_is_asked() -> None:
    here = skewed()
    (free,) = pool_scales(here, Values())
    assert free.in_flight == pytest.approx(operate_of(here).concurrency / free.pool.replicas, rel=1e-9)
    few = here.inputs.options.model_copy(update={"rate": free.requests_per_s / 50})
    (asked,) = pool_scales(replace(here, inputs=here.inputs.model_copy(update={"options": few})), Values())
    assert (asked.requests_per_s, asked.in_flight) == (free.requests_per_s, free.in_flight)


def operate_of(here: EngineDeployment) -> Operation:
    """A plan's own operation."""
    decision = decision_of(here.plan, "plan")
    return operate(build_context(here.inputs, decision.variant), decision)


def test_long_tables_are_thinned_and_keep_both_ends_and_the_plan() -> None:
    (prefill, _) = pool_scales(deployment("v4.1-flash-gb300"), Values())
    counts = replace(prefill, most=100_000).counts
    assert counts[0] == 1 and counts[-1] == 100_000 and prefill.pool.replicas in counts and len(counts) <= MOST_ROWS + 1


def test_cold_starts_are_bytes_over_bandwidth() -> None:
    for name in CASES:
        for pool in deployment(name).pools:
            size = sum(part.bytes_per_device for part in pool.held if part.kind in ("static", "routed", "lookup"))
            found = cold_starts(pool, Values(storage_bytes_per_s=2e9))
            assert found["storage"] == pytest.approx(size * pool.devices_on_node / 2e9)
            assert ("drive" in found) == any(tier.role == "disk" for tier in pool.system.tiers)
            outer = pool.system.domains[-1]
            assert found["network"] == pytest.approx(size / (outer.bandwidth.value * outer.p2p_efficiency.value))
            assert "storage" not in cold_starts(pool, Values())


@pytest.mark.parametrize("target", ["lws", "dynamo"])
def test_the_autoscaler_follows_requests_in_flight_of_the_pool(target: str) -> None:
    here, name = deployment("v4.1-flash-gb300"), "deepseek-v4-1-flash"
    scalers = {
        thing["metadata"]["name"]: thing["spec"]
        for thing in objects(export(target, "v4.1-flash-gb300"))
        if thing["kind"] == "ScaledObject"
    }
    examples = {"lws": ("-0", "-0-1"), "dynamo": ("-0-x7k2p", "x")}[target]
    for scale in pool_scales(here, FULL):
        phase = scale.pool.phase
        spec = scalers[f"{name}-{phase}"]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, scale.most)
        assert spec["scaleTargetRef"]["name"] == f"{name}-{phase}"
        data = spec["triggers"][0]["metadata"]
        assert float(data["threshold"]) == pytest.approx(0.8 * scale.in_flight, rel=1e-3)
        assert (
            data["serverAddress"] == FULL.prometheus
            and "vllm:num_requests_running" in data["query"]
            and 'namespace="serving"' in data["query"]
        )
        pattern = re.findall(r'pod=~"([^"]*)"', data["query"])[0]
        assert re.fullmatch(pattern, f"{name}-{phase}{examples[0]}") and not re.fullmatch(pattern, f"{name}-{phase}{examples[1]}")
        assert not any(
            re.fullmatch(pattern, f"{name}-{other.phase}{examples[0]}") for other in here.pools if other.phase != phase
        )


def test_several_documents_of_words_are_read_alike() -> None:
    text = documents([{"on": "NO", "1:30": ["8e12", "y"]}, {"~": "null"}])
    assert (
        list(yaml.safe_load_all(text))
        == list(YAML(typ="safe", pure=True).load_all(text))
        == [{"on": "NO", "1:30": ["8e12", "y"]}, {"~": "null"}]
    )


def test_the_command_writes_manifests_and_bad_names_are_refused(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan, values, out = tmp_path / "plan.json", tmp_path / "site.toml", tmp_path / "k8s"
    plan.write_text(made("v3-h800").to_json())
    values.write_text('schema = 1\nimage = "engine:1"\npvc = "weights"\nprometheus = "http://p:9090"\n')
    code, text, err = run("export", plan, "--to", "lws", "--values", values, "-o", out)
    assert (
        code == 0
        and "missing" not in err
        and {Path(line).name for line in text.split()} == {"lws.yaml", "autoscaling.yaml", "autoscaling.csv"}
    )
    values.write_text('schema = 1\nname = "1st"\n')
    code, _, err = run("export", plan, "--to", "lws", "--values", values)
    assert code == 2 and "name" in err and err.count("\n") == 1
    assert io.StringIO(err).readline().strip()
