#!/usr/bin/env python3
"""The fields of a serving engine's configuration classes, read from its source text: names, types, choices.

    .ci/config_fields.py trtllm SOURCE --version V --commit C > planner/export/options/trtllm.json    # a TensorRT-LLM checkout
    .ci/config_fields.py vllm-ascend SOURCE > planner/export/options/vllm-ascend.json                 # the unpacked sdist

Nothing of the engine is imported or run: only its syntax tree is read. ``--commit FILE=C`` is for a file of another commit. A
type is ``int``, ``float``, ``bool``, ``str``, ``null``, ``any``, ``{"list": type}``, ``{"dict": [key, value]}``,
``{"class": name}``, ``{"one of": [...]}`` or a list of types, any of which does.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LLM_ARGS, MAPPING = "tensorrt_llm/llmapi/llm_args.py", "tensorrt_llm/mapping.py"
DISAGGREGATED = "tensorrt_llm/llmapi/disagg_utils.py"
COMMANDS = "tests/unittest/api_stability/references/trtllm_serve_cli.yaml"

PLAIN: dict[str, Any] = {
    "int": "int", "float": "float", "bool": "bool", "str": "str", "None": "null", "object": "any", "Any": "any", "Path": "str",
    "dict": {"dict": ["str", "any"]}, "StrictInt": "int", "PositiveInt": "int", "NonNegativeInt": "int",
    "NonNegativeFloat": "float",
}  # fmt: skip
TRTLLM_CLASSES = [
    "TorchLlmArgs", "KvCacheConfig", "MoeConfig", "MoeLoadBalancerConfig", "MTPDecodingConfig", "CacheTransceiverConfig",
    "DecodeCudaGraphConfig", "CpConfig",
]  # fmt: skip
"""What planner writes; objects of other classes are ``any``."""
TRTLLM_TAKES = {
    ("TorchLlmArgs", "cuda_graph_config"): "DecodeCudaGraphConfig",
    ("TorchLlmArgs", "speculative_config"): "MTPDecodingConfig",
    ("MoeConfig", "load_balancer"): "MoeLoadBalancerConfig",
}
"""Of a union of classes, or where the annotation names none, the class whose fields planner writes."""


def classes_of(tree: ast.Module) -> dict[str, ast.ClassDef]:
    """Classes at the top of a module."""
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def name_of(node: ast.expr) -> str:
    """The last part of a dotted name, empty for anything else."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def enumerated(node: ast.ClassDef) -> list[str] | None:
    """What an enumeration is written as in a file: a StrEnum's values, another's names."""
    bases = {name_of(base) for base in node.bases}
    if not bases & {"Enum", "IntEnum", "StrEnum"}:
        return None
    rows = [row for row in node.body if isinstance(row, ast.Assign) and isinstance(row.targets[0], ast.Name)]
    return [ast.literal_eval(row.value) if "StrEnum" in bases else row.targets[0].id for row in rows]  # type: ignore[attr-defined]


def type_of(node: ast.expr, classes: dict[str, ast.ClassDef], wanted: list[str]) -> Any:
    """An annotation as data."""
    if isinstance(node, ast.Constant):
        return "null" if node.value is None else "any"
    if isinstance(node, ast.BinOp):
        return union([type_of(node.left, classes, wanted), type_of(node.right, classes, wanted)])
    if isinstance(node, ast.Subscript):
        parts = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        head = name_of(node.value)
        if head == "Literal":
            return {"one of": [ast.literal_eval(part) for part in parts]}
        inner = [type_of(part, classes, wanted) for part in parts]
        if head in ("Optional", "Union"):
            return union([*inner, "null"] if head == "Optional" else inner)
        if head in ("List", "list"):
            return {"list": inner[0]}
        return {"dict": inner} if head in ("Dict", "dict") else "any"
    name = name_of(node)
    if name in PLAIN:
        return PLAIN[name]
    words = enumerated(classes[name]) if name in classes else None
    return {"one of": words} if words is not None else {"class": name} if name in wanted else "any"


def union(parts: list[Any]) -> Any:
    """Types without repetition; ``any`` swallows the others."""
    flat: list[Any] = []
    for part in parts:
        flat += [inner for inner in (part if isinstance(part, list) else [part]) if inner not in flat]
    return "any" if "any" in flat else flat[0] if len(flat) == 1 else flat


def fields_of(name: str, classes: dict[str, ast.ClassDef], wanted: list[str]) -> dict[str, Any]:
    """A pydantic class's own and inherited fields: type, stability, and for free text the words that the source knows of."""
    node, found = classes[name], {}
    for base in reversed(node.bases):
        if name_of(base) in classes:
            found |= fields_of(name_of(base), classes, wanted)
    for row in node.body:
        if not isinstance(row, ast.AnnAssign) or not isinstance(row.target, ast.Name) or row.target.id.startswith("_"):
            continue
        field: dict[str, Any] = {"type": type_of(row.annotation, classes, wanted)}
        for word in row.value.keywords if isinstance(row.value, ast.Call) else ():
            if word.arg == "status":
                field["status"] = ast.literal_eval(word.value)
            elif word.arg == "deprecated":
                field["status"] = "deprecated"
            elif word.arg == "telemetry" and isinstance(word.value, ast.Call) and field["type"] == "str":
                field["type"] = {"one of": [ast.literal_eval(part) for part in word.value.args]}
        found[row.target.id] = field
    return found


def parameters(tree: ast.Module, name: str) -> dict[str, Any]:
    """A function's named parameters."""
    node = next(row for row in tree.body if isinstance(row, ast.FunctionDef) and row.name == name)
    return {row.arg: {"type": type_of(row.annotation, {}, [])} for row in node.args.args if row.annotation is not None}


def trtllm(source: Path) -> dict[str, Any]:
    """Classes of a worker's YAML, of the YAML of ``trtllm-serve disaggregated``, and the options of ``trtllm-serve``."""
    import yaml

    classes = {name: node for path in (MAPPING, LLM_ARGS) for name, node in classes_of(tree_of(source / path)).items()}
    found = {name: fields_of(name, classes, TRTLLM_CLASSES) for name in TRTLLM_CLASSES}
    for (owner, field), name in TRTLLM_TAKES.items():
        row = found[owner][field]
        row["type"] = ["null", "str", {"class": name}] if name == "MoeLoadBalancerConfig" else ["null", {"class": name}]
    split = tree_of(source / DISAGGREGATED)
    servers = {name: row for name, row in parameters(split, "extract_ctx_gen_cfgs").items() if name != "type"}
    top = parameters(split, "extract_disagg_cfg")
    for name in ("context_servers", "generation_servers"):
        top[name]["type"] = ["null", {"class": "servers"}]
    options = []
    for row in yaml.safe_load((source / COMMANDS).read_text(encoding="utf-8"))["commands"]["serve"]["options"].values():
        kind, _, choices = row["type"].partition("(")
        option: dict[str, Any] = {"names": [flag.lstrip("-") for flag in row["flags"]]}
        option["kind"] = "switch" if row["is_flag"] else kind if kind in ("int", "float") else "str"
        option |= {"choices": ast.literal_eval(choices[:-1])} if kind == "Choice" else {}
        option |= {"deprecated": True} if row["status"] == "deprecated" else {}
        options.append(option)
    return {"root": "TorchLlmArgs", "classes": {**found, "disaggregated": top, "servers": servers}, "options": options}


def vllm_ascend(source: Path) -> dict[str, Any]:
    """Keys of ``--additional-config``, fields of its ``eplb_config``, and the names of the plugin's KV connectors."""
    tree = tree_of(source / "vllm_ascend" / "ascend_config.py")
    top: dict[str, Any] = {}
    for call in calls(tree):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        taken = isinstance(owner, ast.Name) and owner.id == "additional_config" and name_of(call.func) == "get"
        if taken:
            top[ast.literal_eval(call.args[0])] = {"type": like(call.args[1], "any") if len(call.args) > 1 else "any"}
        elif name_of(call.func) == "_get_config_value":
            top[ast.literal_eval(call.args[1])] = {"type": "any"}
    node = classes_of(tree)["EplbConfig"]
    rows = next(row for row in node.body if isinstance(row, ast.Assign) and name_of(row.targets[0]) == "_defaults").value
    assert isinstance(rows, ast.Dict)
    eplb = {
        ast.literal_eval(key): {"type": like(value, ["null", "str"])}
        for key, value in zip(rows.keys, rows.values, strict=True)
        if key
    }
    for test in ast.walk(node):
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.NotIn) and name_of(test.left) in eplb:
            eplb[name_of(test.left)]["type"] = {"one of": ast.literal_eval(test.comparators[0])}
    top["eplb_config"] = {"type": {"class": "EplbConfig"}}
    register = tree_of(source / "vllm_ascend" / "distributed" / "kv_transfer" / "__init__.py")
    connectors = {ast.literal_eval(call.args[0]) for call in calls(register) if name_of(call.func) == "register_connector"}
    classes = {"additional_config": dict(sorted(top.items())), "EplbConfig": eplb}
    return {"root": "additional_config", "classes": classes, "connectors": sorted(connectors)}


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Calls with arguments."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args)


def like(node: ast.expr, missing: Any) -> Any:
    """The type of a default; ``missing``: what ``None`` stands for."""
    if isinstance(node, ast.Dict | ast.List):
        return {"dict": ["str", "any"]} if isinstance(node, ast.Dict) else {"list": "any"}
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return "any"
    return missing if value is None else type(value).__name__


def tree_of(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


def version_of(source: Path) -> str:
    """From a source package's metadata."""
    lines = (source / "PKG-INFO").read_text(encoding="utf-8").splitlines()
    return next(line.split(": ", 1)[1] for line in lines if line.startswith("Version: "))


def main() -> None:
    """As the module says."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("engine", choices=["trtllm", "vllm-ascend"])
    asked.add_argument("source", type=Path)
    asked.add_argument("--version")
    asked.add_argument("--commit", action="append", default=[])
    asked.add_argument("--note", default="", help="how SOURCE came about, where it is no plain copy")
    given = asked.parse_args()
    source = given.source.resolve()
    made = trtllm(source) if given.engine == "trtllm" else vllm_ascend(source)
    of_file = dict(row.partition("=")[::2] for row in given.commit if "=" in row)
    head: dict[str, Any] = {"engine": given.engine, "version": given.version or version_of(source)}
    of_all = [row for row in given.commit if "=" not in row]
    head |= {"commit": of_all[-1]} if of_all else {}
    head |= {"commits": of_file} if of_file else {}
    head |= {"note": given.note} if given.note else {}
    head |= {"licence": "Apache-2.0", "source": f"fields of {given.engine}'s configuration, extracted by .ci/config_fields.py"}
    print(text_of({**head, **made}))


def text_of(value: Any, indent: int = 0) -> str:
    """JSON with a line for each field and option."""
    deep = isinstance(value, dict) and indent < 3 or isinstance(value, list) and bool(value) and isinstance(value[0], dict)
    if not deep:
        return json.dumps(value)
    pad, end = " " * (indent + 1), " " * indent
    if isinstance(value, dict):
        rows = [f"{pad}{json.dumps(key)}: {text_of(part, indent + 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{end}}}"
    return "[\n" + ",\n".join(f"{pad}{json.dumps(part)}" for part in value) + f"\n{end}]"


if __name__ == "__main__":
    main()
