"""What checks say of exported files as they lie in a folder: by snapshots of options and classes, closed schemas, round trips."""

import io
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import yaml
from exported import CASES, deployment

from planner.errors import InputError
from planner.export import Export, Values, export_plan, exporter_names
from planner.export.expert_map import logical_to_physical
from planner.export.options import config_faults, load_fields, load_options, parse_words
from planner.export.serve import option_words

KINDS = {
    "LeaderWorkerSet": "lws", "LLMInferenceService": "kserve", "DynamoGraphDeployment": "dynamo", "ScaledObject": "keda",
    "Service": "core", "ConfigMap": "core",
}  # fmt: skip
PROGRAMS = {"vllm": "vllm", "vllm-ascend": "vllm", "sglang": "sglang.launch_server", "trtllm": "trtllm-serve"}
ROOTS = {"disaggregated.yaml": "disaggregated", "-experts.yaml": "MoeLoadBalancerConfig"}
Files = Mapping[str, bytes]


def script_words(script: str) -> list[str]:
    """The words that a script starts, on node 1 of 127.0.0.1."""
    text = script[script.index("\nexec ") + 6 :].replace("\\\n", " ").replace('"$@"', "").replace("$LEADER_ADDRESS", "127.0.0.1")
    return shlex.split(re.sub(r"\$\(\(NODE_RANK \* (\d+)\)\)|\$NODE_RANK", lambda match: match[1] or "1", text))


def script_faults(engine: str, files: Files) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Of every script ``(options, faults)``."""
    options = load_options("vllm" if engine == "vllm-ascend" else engine)
    for name, content in files.items():
        if name.endswith(".sh"):
            words = script_words(content.decode())
            start = words.index(PROGRAMS[engine]) + 1
            known, rest, faults = parse_words(options, words[start:])
            wrong = [f"{name}: {word}" for word in rest if word not in ("serve", "MODEL_PATH")]
            yield known, wrong + [f"{name}: {fault.word} {fault.reason}" for fault in faults]


def vllm(engine: str, files: Files) -> tuple[str, list[str]]:
    """Scripts and YAML files, and of the plugin its own keys, connectors and maps."""
    found, options, plugin = [], load_options("vllm"), engine == "vllm-ascend"
    for known, faults in script_faults(engine, files):
        found += faults
        if plugin:
            fields = load_fields(engine)
            found += [
                f"{fault.word} {fault.reason}"
                for fault in config_faults(fields, json.loads(known.get("additional-config", "{}")))
            ]
            connector = known.get("kv-transfer-config", {}).get("kv_connector", fields.connectors[0])
            found += [] if connector in fields.connectors else [f"no connector {connector}"]
    for name in (name for name in files if name.endswith(".yaml")):
        config = yaml.safe_load(files[name])
        words = [word for key, value in config.items() if key != "model" for word in option_words(key, value)]
        found += [f"{name}: {fault.word} {fault.reason}" for fault in parse_words(options, words)[2]]
    own = f", fields of vllm-ascend {load_fields(engine).version}" if plugin else ""
    return f"options of vLLM {options.version}{own}", found


def sglang(engine: str, files: Files) -> tuple[str, list[str]]:
    """Scripts."""
    return f"options of SGLang {load_options(engine).version}", [
        fault for _, faults in script_faults(engine, files) for fault in faults
    ]


def trtllm(engine: str, files: Files) -> tuple[str, list[str]]:
    """Scripts and YAML files."""
    fields = load_fields(engine)
    found = [fault for _, faults in script_faults(engine, files) for fault in faults]
    for name in (name for name in files if name.endswith(".yaml")):
        root = next((root for end, root in ROOTS.items() if name.endswith(end)), None)
        found += [f"{name}: {row.word} {row.reason}" for row in config_faults(fields, yaml.safe_load(files[name]), root)]
    return f"options and classes of TensorRT-LLM {fields.version}", found


def eplb(engine: str, files: Files) -> tuple[str, list[str]]:
    """Both forms say the same, and log2phy is the inverse of phy2log."""
    found = []
    for name in (name for name in files if name.endswith(".npz")):
        data = json.loads(files[name.replace(".npz", ".json")])
        with np.load(io.BytesIO(files[name])) as tensors:
            found += [f"{name}: {key}" for key in tensors if tensors[key].tolist() != data[key]]
            places, counts = logical_to_physical(tensors["phy2log"], tensors["logcnt"].shape[1])
            found += [] if (places == tensors["log2phy"]).all() and counts.min() >= 1 else [f"{name}: no inverse"]
    return "phy2log and back", found


@cache
def schema(kind: str) -> jsonschema.Draft202012Validator:
    """The closed schema of a kind."""
    path = Path(__file__).parent / "crds" / f"{KINDS[kind]}.json"
    return jsonschema.Draft202012Validator(json.loads(path.read_text(encoding="utf-8")))


def kubernetes(engine: str, files: Files) -> tuple[str, list[str]]:
    """Every object against the closed schema of its kind."""
    things = [thing for name in files if name.endswith(".yaml") for thing in yaml.safe_load_all(files[name])]
    found = [error.message for thing in things for error in schema(thing["kind"]).iter_errors(thing)]
    return f"closed schemas of {', '.join(sorted({thing['kind'] for thing in things}))}", found


CHECKS: dict[str, Callable[[str, Files], tuple[str, list[str]]]] = {
    "vllm": vllm, "vllm-ascend": vllm, "sglang": sglang, "trtllm": trtllm, "eplb": eplb,
    "lws": kubernetes, "kserve": kubernetes, "dynamo": kubernetes,
}  # fmt: skip


def judged() -> Iterator[tuple[str, str, Export | str, str, list[str]]]:
    """Of every case and exporter ``(case, exporter, export or why there is none, what checked it, faults)``."""
    for case in CASES:
        for target in exporter_names():
            try:
                made = export_plan(deployment(case), target, Values(), f"planner export plan.json --to {target}")
            except InputError as error:
                yield case, target, str(error).split("cannot express this plan: ")[-1], "", []
                continue
            yield case, target, made, *CHECKS[target](target, {file.name: file.content for file in made.files})
