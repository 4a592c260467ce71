"""From a plan back to the flags of a launch: what changes, and the line with it changed."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from planner.audit.axes import FLAGS, NEUTRAL
from planner.audit.configuration import PoolSetup, Setup
from planner.audit.read import OF_NODE, PROGRAMS, Launch
from planner.audit.schema import FlagChange
from planner.export import EngineDeployment, EnginePool, Values, engine_deployment, sglang, vllm
from planner.export.common import Notes
from planner.export.options import load_options, parse_words
from planner.export.serve import Serve, option_words
from planner.plans.schema import Plan

VARIANT = {
    "vllm": {"kv_dtype": ("kv-cache-dtype",), "mtp": ("speculative-config",), "redundant": ("eplb-config", "enable-eplb")},
    "sglang": {
        "kv_dtype": ("kv-cache-dtype",),
        "mtp": (*("speculative-algorithm", "speculative-num-steps", "speculative-eagle-topk", "speculative-num-draft-tokens"),),
        "redundant": ("ep-num-redundant-experts",),
    },
}
ROLES = {"vllm": ("kv-transfer-config",), "sglang": ("disaggregation-mode", "disaggregation-transfer-backend")}
FOLLOWING = frozenset(("moe-a2a-backend", "deepep-mode", "moe-dense-tp-size", "enable-dp-lm-head", "enable-eplb"))
"""Flags that follow another one, and count only where that one changes."""
HOST_TABLE = "SGLANG_ENABLE_DSV41_ENGRAM_HOST_TABLE"


def changes(setup: Setup, plan: Plan, free: frozenset[str]) -> tuple[list[FlagChange], dict[str, str], list[str]]:
    """``(flags that differ, launch line by pool, what of the plan the engine can't express)`` of a plan found with these axes
    free."""
    deployment = engine_deployment(plan)
    notes = Notes()
    found: list[FlagChange] = []
    lines: dict[str, str] = {}
    for pool in deployment.pools:
        source = _source(setup, pool.phase)
        serve = _serve(setup, deployment, _kept(pool, source, free), source.given.launch, notes)
        new = _names(setup, source, free, pool.phase)
        before, after = normal(source.given.launch), dict(serve.options)
        options = dict(before)
        for key, names in new.items():
            if all(_same(name, before, after) for name in names if name not in FOLLOWING):
                continue
            for name in names:
                if _same(name, before, after):
                    continue
                value = after.get(name)
                if isinstance(value, Mapping) and isinstance(before.get(name), Mapping):
                    value = {**before[name], **value}
                was = _text(before[name]) if name in before else source.assumed.get(key)
                if was is not None and was == f"{_text(value)} (default)":
                    continue
                found.append(FlagChange(pool=pool.phase, flag=f"--{name}", before=was, after=_text(value)))
                if value is None:
                    options.pop(name, None)
                else:
                    options[name] = value
        env = dict(source.given.launch.env)
        if "offload" in free and env.get(HOST_TABLE) != serve.env.get(HOST_TABLE):
            found.append(
                FlagChange(pool=pool.phase, flag=HOST_TABLE, before=env.get(HOST_TABLE), after=serve.env.get(HOST_TABLE))
            )
            env = {**{k: v for k, v in env.items() if k != HOST_TABLE}, **serve.env}
        lines[pool.phase] = _line(source.given.launch, options, env, serve, pool)
    lost = [f"{row.what}: {row.why}" + (f"; {row.instead}" if row.instead else "") for row in notes.lost]
    return found, lines, list(dict.fromkeys(lost))


def normal(launch: Launch) -> dict[str, Any]:
    """The options with deprecated ones in the words that replace them."""
    options = dict(launch.options)
    if launch.engine == "sglang" and options.pop("enable-dp-attention", None) and "dp-size" in options:
        options.setdefault("attn-dp-size", options.pop("dp-size"))
    return options


def _source(setup: Setup, phase: str) -> PoolSetup:
    return next((pool for pool in setup.pools if pool.phase == phase), setup.pools[-1])


def _kept(pool: EnginePool, source: PoolSetup, free: frozenset[str]) -> EnginePool:
    """The pool with the given ceiling of sequences where that stays."""
    if source.batch is None or f"{source.phase}.batch_per_rank" in free or not pool.sequences_per_rank:
        return pool
    return replace(pool, sequences_per_rank=source.batch, sequences=source.batch * pool.attention_dp * pool.pp)


def _serve(setup: Setup, deployment: EngineDeployment, pool: EnginePool, launch: Launch, notes: Notes) -> Serve:
    values = Values(model_path=launch.model or "MODEL")
    write = vllm.serve_command if setup.engine == "vllm" else sglang.serve_command
    return write(deployment, pool, values, notes)


def _names(setup: Setup, source: PoolSetup, free: frozenset[str], phase: str) -> dict[str, tuple[str, ...]]:
    """Flags that may change, by axis: those of free axes, and those given that count in terms of them."""
    given = normal(source.given.launch)
    found = {}
    for axis, names in {**FLAGS[setup.engine], **VARIANT[setup.engine]}.items():
        freed = axis in free or f"{source.phase}.{axis}" in free
        freed |= axis == "tp" and setup.engine == "sglang" and f"{source.phase}.attention_dp" in free  # --tp-size counts both
        if axis in ("memory", "offload", "kv_dtype", "mtp") and not freed:
            continue
        if (axis, phase) in (("batch_per_rank", "prefill"), ("prefill_tokens_per_rank", "decode")):
            continue
        if freed or any(name in given for name in names):
            found[axis] = names
    if "serving" in free:
        found["serving"] = ROLES[setup.engine]
    return found


def _same(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    one, other = before.get(name, NEUTRAL.get(name)), after.get(name, NEUTRAL.get(name))
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(one.get(key) == value for key, value in other.items())
    return (one or None) == (other or None)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return json.dumps(value, sort_keys=True) if isinstance(value, Mapping | list | bool) else str(value)


def _line(launch: Launch, options: Mapping[str, Any], env: Mapping[str, str], serve: Serve, pool: EnginePool) -> str:
    """The launch as one line; what differs by node as the exporter writes it."""
    words = [f"{name}={value}" for name, value in env.items() if name == HOST_TABLE]
    words += PROGRAMS[launch.engine]
    words += (["--model-path"] if launch.engine == "sglang" else []) + [launch.model or "MODEL"]
    for name, value in options.items():
        if name not in OF_NODE or name in ("host", "port"):
            words += _words(launch.engine, name, value)
    if pool.nodes > 1:
        for name in sorted(OF_NODE & serve.options.keys()):
            words += _words(launch.engine, name, serve.options[name])
    line = shlex.join(words)
    return line + "".join(f' --{name} "{value.shell()}"' for name, value in serve.per_node.items() if not value.followers)


def _words(engine: str, name: str, value: Any) -> list[str]:
    options = load_options(engine)
    option = options.find(name)
    if value is False and option is not None:
        negations = (other for other in option.names if parse_words(options, [f"--{other}"])[0].get(option.name) is False)
        return [f"--{other}" for other in negations][:1]
    if isinstance(value, list) and option is not None and option.many:
        return [f"--{name}", *(str(part) for part in value)]
    return option_words(name, value)
