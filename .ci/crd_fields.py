#!/usr/bin/env python3
"""Closed schemas of the Kubernetes objects that exports write: field names, types, choices and bounds of their definitions.

    .ci/crd_fields.py lws leaderworkerset.x-k8s.io_leaderworkersets.yaml > tests/crds/lws.json
    .ci/crd_fields.py kserve serving.kserve.io_llminferenceservices.yaml > tests/crds/kserve.json
    .ci/crd_fields.py dynamo nvidia.com_dynamographdeployments.yaml > tests/crds/dynamo.json
    .ci/crd_fields.py keda keda.sh_scaledobjects.yaml > tests/crds/keda.json

An API server prunes a field that it does not know without a word; these schemas refuse it. Of every object that ``OPENED`` names,
all field names are kept, so that a typing error is none of them. Objects that it does not name take ``{}`` and lists of them
``[]``: what an exporter starts to use is added here first. Rules across fields (CEL) and texts are left away.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

PROBE = ["", ".httpGet", ".tcpSocket"]
CONTAINER = [
    "",
    ".env",
    ".env.valueFrom",
    ".env.valueFrom.fieldRef",
    ".ports",
    ".resources",
    ".volumeMounts",
    *(f".{name}Probe{part}" for name in ("startup", "readiness", "liveness") for part in PROBE),
]
POD = [
    "",
    *(f".containers{part}" for part in CONTAINER),
    ".imagePullSecrets",
    ".volumes",
    ".volumes.configMap",
    ".volumes.emptyDir",
    ".volumes.persistentVolumeClaim",
]


def pod(at: str) -> list[str]:
    """Paths of a PodSpec."""
    return [at + part for part in POD]


WORKLOAD = ["parallelism", "scaling", "scaling.keda", "scaling.keda.triggers", *pod("template"), *pod("worker")]
LWS = "spec.leaderWorkerTemplate"
TARGETS: dict[str, dict[str, Any]] = {
    "lws": {
        "source": "kubernetes-sigs/lws@060ab4da17ee config/crd/bases/leaderworkerset.x-k8s.io_leaderworkersets.yaml",
        "version": "v1",
        "opened": [
            "spec",
            LWS,
            *(f"{LWS}.{name}Template" for name in ("leader", "worker")),
            *(path for name in ("leader", "worker") for path in pod(f"{LWS}.{name}Template.spec")),
        ],
    },
    "kserve": {
        "source": "kserve/kserve@aaac4e294dae config/crd/full/llmisvc/serving.kserve.io_llminferenceservices.yaml",
        "version": "v1alpha2",
        "opened": [
            "spec",
            "spec.model",
            "spec.router",
            "spec.storageInitializer",
            *(f"spec.{path}" for path in WORKLOAD),
            "spec.prefill",
            *(f"spec.prefill.{path}" for path in WORKLOAD),
        ],
    },
    "dynamo": {
        "source": "spec and spec.components written out by hand from ai-dynamo/dynamo@01cc1c3b677b "
        "deploy/operator/config/crd/bases/nvidia.com_dynamographdeployments.yaml and deploy/operator/api/v1beta1/ "
        "(dynamographdeployment_types.go@0fddc01b3724, dynamocomponentdeployment_types.go@006b6e1085b6, "
        "common.go@02911c80e47b), with the pod template of kubernetes-sigs/lws@060ab4da17ee",
        "version": "v1beta1",
        "opened": [
            "spec",
            "spec.components",
            "spec.components.multinode",
            "spec.components.podTemplate",
            *pod("spec.components.podTemplate.spec"),
        ],
    },
    "keda": {
        "source": "kedacore/keda@8b4f083ca8c8 config/crd/bases/keda.sh_scaledobjects.yaml",
        "version": "v1alpha1",
        "opened": ["spec", "spec.scaleTargetRef", "spec.triggers", "spec.triggers.authenticationRef"],
    },
}
KEPT = (
    "type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
)  # fmt: skip
TEXT_MAP = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
        "namespace": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"},
        "labels": {
            "type": "object",
            "additionalProperties": {
                "type": "string",
                "maxLength": 63,
                "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
            },
        },
        "annotations": TEXT_MAP,
    },
}
"""ObjectMeta is open in definitions: names and forms of kubernetes.io/docs/concepts/overview/working-with-objects."""


def closed(schema: dict[str, Any], at: str, opened: set[str]) -> dict[str, Any]:
    """The fields at a path, with all names of an opened object; lists add nothing to a path."""
    if at.rsplit(".", 1)[-1] == "metadata" and "additionalProperties" not in schema:
        return METADATA
    made = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"], **{key: made[key] for key in ("pattern",) if key in made}}
    if "items" in schema:
        item = closed(schema["items"], at, opened)
        return {**made, "maxItems": 0} if item.get("maxProperties") == 0 else {**made, "items": item}
    if "additionalProperties" in schema:
        return {**made, "additionalProperties": closed(schema["additionalProperties"], f"{at}.*", opened | {f"{at}.*"})}
    if made.get("type") != "object":
        return made
    if at not in opened:
        return {"type": "object", "maxProperties": 0}
    parts = {
        name: closed(part, f"{at}.{name}".lstrip("."), opened) for name, part in sorted(schema.get("properties", {}).items())
    }
    return {**made, "additionalProperties": False, "properties": parts}


def shared(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema with every larger part that occurs twice under ``$defs``."""
    seen: Counter[str] = Counter()

    def count(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("type") == "object" and "properties" in part:
                seen[json.dumps(part, sort_keys=True)] += 1
            for inner in part.values():
                count(inner)

    count(schema)
    names = {text: f"part{number}" for number, text in enumerate(sorted(t for t, n in seen.items() if n > 1 and len(t) > 300))}

    def replaced(part: Any, root: bool = False) -> Any:
        if not isinstance(part, dict):
            return part
        name = None if root or part.get("type") != "object" else names.get(json.dumps(part, sort_keys=True))
        return {"$ref": f"#/$defs/{name}"} if name else {key: replaced(inner) for key, inner in part.items()}

    parts = {name: replaced(json.loads(text), True) for text, name in names.items()}
    whole = replaced(schema, True)
    needed: set[str] = set()
    queue = [whole]
    while queue:
        text = json.dumps(queue.pop())
        found = {name for name in parts if f'"#/$defs/{name}"' in text} - needed
        needed |= found
        queue += [parts[name] for name in sorted(found)]
    return {**whole, "$defs": {name: parts[name] for name in sorted(needed)}}


def fields(target: str, crd: dict[str, Any]) -> dict[str, Any]:
    """The closed schema of a target."""
    about = TARGETS[target]
    version = next(row for row in crd["spec"]["versions"] if row["name"] == about["version"])
    if not version["served"]:
        raise SystemExit(f"{about['version']} is not served")
    group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
    made = closed(version["schema"]["openAPIV3Schema"], "", {"", *about["opened"]})
    made["properties"] |= {"apiVersion": {"enum": [f"{group}/{about['version']}"]}, "kind": {"enum": [kind]}}
    made["properties"].pop("status", None)
    made["required"] = ["apiVersion", "kind", "metadata", "spec"]
    scale = version.get("subresources", {}).get("scale", {})
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{kind} {group}/{about['version']}",
        "$comment": f"Names, types, choices and bounds of {about['source']} (Apache-2.0), extracted by .ci/crd_fields.py",
        "scaled_by": scale.get("specReplicasPath"),
    }
    return {**head, **shared(made)}


def main() -> None:
    """As the module says."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("target", choices=sorted(TARGETS))
    asked.add_argument("crd", type=Path)
    given = asked.parse_args()
    with given.crd.open(encoding="utf-8") as file:
        made = fields(given.target, yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    parts = made.pop("$defs")
    head = json.dumps(made, indent=1, sort_keys=False)[:-2]
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(part, sort_keys=True)}" for name, part in parts.items())
    print(f'{head},\n "$defs": {{\n{rows}\n }}\n}}')


if __name__ == "__main__":
    main()
