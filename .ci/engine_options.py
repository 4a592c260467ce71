#!/usr/bin/env python3
"""The options of a serving engine as its own parser knows them: names, kinds, choices, and the fields of options that take JSON.

    .ci/engine_options.py vllm SOURCE > planner/export/options/vllm.json        # SOURCE: the unpacked sdist
    .ci/engine_options.py sglang SOURCE > planner/export/options/sglang.json    # SOURCE: the unpacked wheel
    .ci/engine_options.py vllm SOURCE --parse FILE        # a JSON list of commands, each a list of words, through the real parser

Needs no GPU and no torch (see stand_ins.py), but numpy, pydantic, regex, msgspec, cloudpickle, psutil, packaging.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import sys
import typing
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from stand_ins import import_with_stand_ins, pretend, stand_in  # noqa: E402


def version_of(source: Path, package: str) -> str:
    """From the metadata that the package ships."""
    files = [*source.glob(f"{package}*.dist-info/METADATA"), *source.glob("*.egg-info/PKG-INFO"), *source.glob("PKG-INFO")]
    lines = files[0].read_text(encoding="utf-8").splitlines()
    return next(line.split(": ", 1)[1] for line in lines if line.startswith("Version: "))


def vllm(source: Path) -> tuple[argparse.ArgumentParser, dict[str, Any], dict[str, list[str]]]:
    """Parser, classes of options that take JSON, and choices that the parser leaves to later checks."""
    pretend({"vllm": f"{version_of(source, 'vllm')}+cpu"})
    stand_in("torch", "torch.nn", "torch.library", "vllm._C", "vllm._C_stable_libtorch")
    stand_in("vllm.model_executor.custom_op", "vllm.utils.torch_utils", "vllm.v1.executor")
    server = import_with_stand_ins("vllm.entrypoints.common.cli_args")
    parsers = import_with_stand_ins("vllm.utils.argparse_utils")
    config = import_with_stand_ins("vllm.config")
    parser = server.make_arg_parser(parsers.FlexibleArgumentParser(prog="vllm serve"))
    classes = {
        "eplb-config": import_with_stand_ins("vllm.config.parallel").EPLBConfig,
        "kv-transfer-config": config.KVTransferConfig,
        "engram-config": import_with_stand_ins("vllm.config.engram").EngramConfig,
        "speculative-config": config.SpeculativeConfig,
    }
    later = {"kv-cache-dtype": literals(import_with_stand_ins("vllm.config.cache").CacheDType)}
    return parser, classes, later


def sglang(source: Path) -> tuple[argparse.ArgumentParser, dict[str, Any], dict[str, list[str]]]:
    """As ``vllm``."""
    pretend({"sglang": version_of(source, "sglang")})
    stand_in("torch", "sglang.srt.distributed")
    sys.modules["torch"].lacks = {"npu"}  # type: ignore[attr-defined]
    parser = argparse.ArgumentParser(prog="sglang.launch_server")
    import_with_stand_ins("sglang.srt.server_args").ServerArgs.add_cli_args(parser)
    return parser, {}, {}


ENGINES: dict[str, Callable[[Path], tuple[argparse.ArgumentParser, dict[str, Any], dict[str, list[str]]]]] = {
    "vllm": vllm,
    "sglang": sglang,
}


def literals(annotation: Any) -> list[str]:
    """Every word that an annotation admits, through unions."""
    if typing.get_origin(annotation) is typing.Literal:
        return sorted(str(word) for word in typing.get_args(annotation))
    return sorted({word for part in typing.get_args(annotation) for word in literals(part)})


def kind_of(action: argparse.Action) -> str:
    """``switch``, ``int``, ``float``, ``json`` or ``str``; found by trying, since types are often functions."""
    if action.nargs == 0:
        return "switch"

    def takes(text: str) -> bool:
        try:
            (action.type or str)(text)  # type: ignore[operator]
        except Exception:
            return False
        return True

    if takes("plain words"):
        return "str"
    if takes("{}"):
        return "json"
    if takes("1.5"):
        return "float"
    return "int" if takes("1") else "json"


def fields_of(kind: Any) -> dict[str, Any]:
    """Field to its annotation in words and its choices."""
    try:
        hints = typing.get_type_hints(kind)
    except Exception:
        hints = {}
    found = {}
    for field in dataclasses.fields(kind):
        if field.name.startswith("_") or not field.init:
            continue
        hint = hints.get(field.name, field.type)
        choices = literals(hint)
        text = hint if isinstance(hint, str) else getattr(hint, "__name__", None) or str(hint)
        plain = next((name for name in ("bool", "int", "float", "str", "dict", "list") if name in text.lower()), "any")
        found[field.name] = {"kind": plain, **({"choices": choices} if choices else {})}
    return found


def snapshot(engine: str, source: Path) -> dict[str, Any]:
    """The options as plain data."""
    parser, classes, later = ENGINES[engine](source)
    options = []
    for action in parser._actions:
        names = [name.lstrip("-") for name in action.option_strings]
        if not names or names == ["h", "help"]:
            continue
        choices = sorted({str(choice) for choice in action.choices or () if choice is not None})
        choices = choices or next((later[name] for name in names if name in later), [])
        row: dict[str, Any] = {"names": names, "kind": kind_of(action)}
        if action.nargs in ("+", "*"):
            row["many"] = True
        if choices:
            row["choices"] = choices
        if "deprecated" in (action.help or "").lower()[:80]:
            row["deprecated"] = True
        options.append(row)
    return {
        "engine": engine,
        "version": version_of(source, engine),
        "licence": "Apache-2.0",
        "source": f"option names, kinds and choices of {engine} {version_of(source, engine)}, extracted by .ci/engine_options.py",
        "options": sorted(options, key=lambda row: row["names"]),
        "json": {name: fields_of(kind) for name, kind in sorted(classes.items())},
    }


def parsed(parser: argparse.ArgumentParser, words: list[str]) -> dict[str, str]:
    """Each option's value as text, or ``{"refused": what the parser said}``."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            found = parser.parse_args(words)
    except SystemExit:
        return {"refused": said.getvalue()[-2000:]}
    return {key: str(value) for key, value in sorted(vars(found).items())}


def main() -> None:
    """As the module says."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("engine", choices=sorted(ENGINES))
    asked.add_argument("source", type=Path)
    asked.add_argument("--parse", type=Path)
    given = asked.parse_args()
    source = given.source.resolve()
    sys.path.insert(0, str(source))
    if given.parse is not None:
        parser, _, _ = ENGINES[given.engine](source)
        commands = json.loads(given.parse.read_text(encoding="utf-8"))
        print(json.dumps([parsed(parser, words) for words in commands], indent=1))
        return
    made = snapshot(given.engine, source)
    options = ",\n  ".join(json.dumps(row) for row in made.pop("options"))
    rest = json.dumps(made, indent=1)[:-2]
    print(f'{rest},\n "options": [\n  {options}\n ]\n}}')


if __name__ == "__main__":
    main()
