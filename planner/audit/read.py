"""Launch lines and configuration files of vLLM and SGLang, read back into options by pool."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from planner.audit.shell import UNKNOWN, Command, commands
from planner.documents import check_limits, parse_yaml
from planner.errors import InputError
from planner.export.options import EngineOptions, load_options, parse_words

Engine = Literal["vllm", "sglang"]
Phase = Literal["prefill", "decode", "mixed"]
ENGINES: tuple[Engine, ...] = ("vllm", "sglang")
PHASES: tuple[Phase, ...] = ("prefill", "decode", "mixed")
MOST_LAUNCHES = 256
PROGRAMS: dict[Engine, tuple[str, ...]] = {"vllm": ("vllm", "serve"), "sglang": ("python3", "-m", "sglang.launch_server")}
MODULES: dict[str, Engine] = {
    "vllm.entrypoints.openai.api_server": "vllm",
    "vllm.entrypoints.cli.main": "vllm",
    "sglang.launch_server": "sglang",
}
IMAGE = re.compile(r"(?:.*/)?vllm-openai(?:[:@].*)?")
OF_NODE = frozenset(
    ("node-rank", "master-addr", "master-port", "nnodes", "headless", "data-parallel-address", "data-parallel-start-rank")
    + ("data-parallel-rpc-port", "data-parallel-size-local", "data-parallel-rank", "dist-init-addr", "host", "port")
)
"""Options that differ between the nodes or the copies of one instance."""


@dataclass(frozen=True)
class Finding:
    """Something to know about what was given. ``kind``: ``wrong`` (the engine refuses it), ``deprecated``, ``unresolved`` (a
    shell variable), ``assumed`` (what was taken in its place) or ``differs`` (read, and predicted only roughly)."""

    kind: Literal["wrong", "deprecated", "unresolved", "assumed", "differs"]
    where: str
    flag: str
    what: str


@dataclass(frozen=True)
class Launch:
    """One launch line. ``options``: by the engine's own names; ``model``: as written, ``None`` where only a shell knows it."""

    engine: Engine
    where: str
    model: str | None
    options: Mapping[str, Any]
    env: Mapping[str, str]
    findings: tuple[Finding, ...] = ()

    @property
    def role(self) -> str:
        """``prefill``, ``decode``, ``both`` (a transfer connector without a role) or nothing."""
        if self.engine == "sglang":
            mode = self.options.get("disaggregation-mode")
            return mode if mode in ("prefill", "decode") else ""
        transfer = self.options.get("kv-transfer-config")
        roles = {"kv_producer": "prefill", "kv_consumer": "decode", "kv_both": "both"}
        return roles.get(str(transfer.get("kv_role")), "") if isinstance(transfer, dict) else ""

    @property
    def follows(self) -> bool:
        """Whether it is a further node of an instance that another line starts."""
        ranks = (self.options.get(name) for name in ("node-rank", "data-parallel-start-rank"))
        return bool(self.options.get("headless")) or any(isinstance(rank, int) and rank > 0 for rank in ranks)


@dataclass(frozen=True)
class GivenPool:
    """The launch of one pool; ``instances``: how many lines there are of it."""

    phase: Phase
    launch: Launch
    instances: int


@dataclass(frozen=True)
class Given:
    """A deployment as its launch lines say it."""

    engine: Engine
    version: str
    model: str | None
    pools: tuple[GivenPool, ...]
    findings: tuple[Finding, ...] = field(default=())


def read_deployment(texts: Sequence[tuple[str, str]], engine: Engine | None = None) -> Given:
    """A deployment from ``(name, text)`` of shell text or YAML files. ``engine`` decides where a YAML file could be of either.

    Words that the engine would refuse are findings. ``InputError`` where nothing is launched, or lines make no one deployment.
    """
    launches = [launch for name, text in texts for launch in _launches(text, name, engine)]
    if not launches:
        raise InputError("no launch line", where=", ".join(name for name, _ in texts)[:200], mend="give a file or -")
    if len(launches) > MOST_LAUNCHES:
        raise InputError(f"more than {MOST_LAUNCHES} launch lines", where=launches[0].where, mend="give one of a kind")
    if len({launch.engine for launch in launches}) > 1:
        raise InputError("vLLM and SGLang in one deployment", where=launches[0].where, mend="audit one at a time")
    models = {launch.model for launch in launches if launch.model is not None}
    if len(models) > 1:
        raise InputError(
            f"several models: {', '.join(sorted(models))[:200]}", where=launches[0].where, mend="audit one at a time"
        )
    pools, said = _pools(launches)
    found = dict.fromkeys([finding for launch in launches for finding in launch.findings] + said)
    first = launches[0].engine
    return Given(first, load_options(first).version, next(iter(models), None), pools, tuple(found))


def _pools(launches: list[Launch]) -> tuple[tuple[GivenPool, ...], list[Finding]]:
    """Lines by what they run."""
    heads = [launch for launch in launches if not launch.follows] or launches[:1]
    roles = {launch.role for launch in heads}
    said = []
    if roles == {"both"}:
        kinds = _distinct(heads)
        if len(kinds) == 2:
            what = "no line says which it is: the first kind is taken for prefill, the second for decode"
            said.append(Finding("assumed", heads[0].where, "--kv-transfer-config", what))
            phases = {kind.where: phase for kind, phase in zip(kinds, ("prefill", "decode"), strict=True)}
            pairs = [(phases[next(kind.where for kind in kinds if _same(kind, launch))], launch) for launch in heads]
        else:
            pairs = [("mixed", launch) for launch in heads]
    elif roles == {""}:
        pairs = [("mixed", launch) for launch in heads]
    elif roles == {"prefill", "decode"}:
        pairs = [(launch.role, launch) for launch in heads]
    else:
        lacks = "decode" if roles == {"prefill"} else "prefill" if roles == {"decode"} else "a role on every line"
        what = f"prefill and decode are served apart, but there is no {lacks} pool" if " " not in lacks else f"lacks {lacks}"
        raise InputError(what, where=heads[0].where, mend="give the launch lines of both pools")
    pools = []
    for phase in PHASES:
        own = [launch for name, launch in pairs if name == phase]
        if len(_distinct(own)) > 1:
            one, other = _distinct(own)[:2]
            keys = one.options.keys() | other.options.keys()
            names = sorted(f"--{key}" for key in keys - OF_NODE if one.options.get(key) != other.options.get(key))
            what = f"instances of one pool differ in {', '.join(names)[:200]}"
            raise InputError(what, where=other.where, mend="audit one kind at a time, or give each line its role")
        if own:
            pools.append(GivenPool(phase, own[0], len(own)))
    return tuple(pools), said


def _distinct(launches: list[Launch]) -> list[Launch]:
    kinds: list[Launch] = []
    for launch in launches:
        if not any(_same(kind, launch) for kind in kinds):
            kinds.append(launch)
    return kinds


def _same(one: Launch, other: Launch) -> bool:
    keys = (one.options.keys() | other.options.keys()) - OF_NODE
    return all(one.options.get(key) == other.options.get(key) for key in keys)


def _launches(text: str, where: str, engine: Engine | None) -> Iterator[Launch]:
    check_limits(text.replace("\r\n", "\n"), where)
    found, fault = [], None
    try:
        found = list(_of_shell(text, where))
    except InputError as error:
        fault = error
    if found:
        yield from found
        return
    try:
        data = parse_yaml(text, where)
    except InputError as error:
        if "not installed" in str(error):
            raise
        data = None
    if not isinstance(data, dict) or not data:
        if fault is not None and any(name in text for name in ("vllm", "sglang")):
            raise fault
        what = "has no launch line of vLLM or SGLang, and is no configuration file of either"
        raise InputError(what, where=where, mend="give `vllm serve …`, `python -m sglang.launch_server …`, or their YAML file")
    yield _of_config(data, where, engine)


def _of_shell(text: str, where: str, depth: int = 0) -> Iterator[Launch]:
    for command in commands(text, where):
        place = f"{where} line {command.line}"
        split = _program(command)
        if split is not None:
            yield _launch(split[0], split[1], place, command.env)
            continue
        for word, script in zip(command.words, command.words[1:], strict=False):
            if word in ("-c", "-lc") and depth < 2:
                yield from _of_shell(script, place, depth + 1)


def _program(command: Command) -> tuple[Engine, list[str]] | None:
    """The engine of a launch line and the words after its program."""
    words = list(command.words)
    for i, word in enumerate(words):
        name, after = word.rpartition("/")[2], words[i + 1 : i + 2]
        engine = next((one for one in ENGINES if one == name), None)
        if engine is not None and after == ["serve"]:
            return engine, words[i + 2 :]
        if word == "-m" and after and after[0] in MODULES:
            rest = words[i + 2 :]
            return MODULES[after[0]], rest[1:] if rest[:1] == ["serve"] else rest
    for i, word in enumerate(words):
        if IMAGE.fullmatch(word) and words[0].rpartition("/")[2] in ("docker", "podman", "nerdctl"):
            return "vllm", words[i + 1 :]
    return None


def _of_config(data: dict[Any, Any], where: str, engine: Engine | None) -> Launch:
    """A configuration file: option names to values."""
    flat = {str(key).replace("_", "-"): value for key, value in data.items()}
    known = {name: {n for option in load_options(name).options for n in option.names} for name in ENGINES}
    scores = {name: sum(key in known[name] for key in flat) for name in ENGINES}
    if not any(scores.values()):
        what = "has no launch line and none of its keys is an option of vLLM or SGLang"
        raise InputError(what, where=where, mend="give `vllm serve …`, `python -m sglang.launch_server …`, or their YAML file")
    if engine is None and scores["vllm"] == scores["sglang"]:
        raise InputError("could be of vLLM or of SGLang", where=where, mend="add --engine vllm or --engine sglang")
    chosen: Engine = engine or ("vllm" if scores["vllm"] > scores["sglang"] else "sglang")
    words: list[str] = []
    for key, value in flat.items():
        words += _config_words(chosen, key, value)
    return _launch(chosen, words, where, {})


def _config_words(engine: Engine, key: str, value: Any) -> list[str]:
    import json

    option = load_options(engine).find(key)
    if value is None or (value is False and (option is None or option.kind == "switch")):
        return []
    if value is True and (option is None or option.kind == "switch"):
        return [f"--{key}"]
    if isinstance(value, list) and option is not None and option.many:
        return [f"--{key}", *(str(part) for part in value)]
    text = json.dumps(value) if isinstance(value, dict | list | bool) else str(value)
    return [f"--{key}={text}"]


def _launch(engine: Engine, words: list[str], where: str, env: Mapping[str, str]) -> Launch:
    options = load_options(engine)
    known, said = _resolved(options, words, where)
    model = known.pop(0) if engine == "vllm" and known and not known[0].startswith("-") else None
    found, rest, faults = parse_words(options, known)
    said += [
        Finding("assumed", where, f"--{name}", "is given more than once: the last holds") for name in _repeated(options, known)
    ]
    for fault in faults:
        kind: Literal["deprecated", "wrong"] = "deprecated" if fault.reason == "is deprecated" else "wrong"
        said.append(Finding(kind, where, fault.word[:80], fault.reason))
    positional = [word for word in rest if word and UNKNOWN not in word]
    named = found.pop("model-path" if engine == "sglang" else "model", None)
    model = model if named is None else named
    strays = any("no such option" in fault.reason for fault in faults)  # its value stands there
    if model is None and engine == "vllm" and positional and not strays:
        model = positional.pop(0)
    for word in [] if strays else positional[:8]:
        said.append(Finding("wrong", where, word[:80], "belongs to no option"))
    if "config" in found:
        path = found.pop("config")
        said.append(Finding("unresolved", where, "--config", f"{str(path)[:80]} is not followed; audit that file itself"))
    return Launch(engine, where, None if model is None else str(model), found, env, tuple(said))


def _repeated(options: EngineOptions, words: list[str]) -> list[str]:
    """Options given more than once, whose values do not add up."""
    flags = [word.lstrip("-").partition("=")[0] for word in words if word.startswith("-") and not word[1:2].isdigit()]
    found = [option for flag in flags if "." not in flag and (option := options.find(flag)) is not None]
    counts = Counter(option.name for option in found if option.kind != "json" and option.name not in options.fields)
    return [name for name, count in counts.items() if count > 1]


def _resolved(options: EngineOptions, words: list[str], where: str) -> tuple[list[str], list[Finding]]:
    """The words without options whose value only a shell knows."""
    kept: list[str] = []
    said: list[Finding] = []
    for word in words:
        if UNKNOWN not in word:
            kept.append(word)
            continue
        if word.strip(UNKNOWN) == "@":
            continue
        flag = word.partition("=")[0] if word.startswith("-") else kept[-1] if kept and kept[-1].startswith("-") else ""
        if not flag or UNKNOWN in flag:
            continue
        option = options.find(flag.lstrip("-").partition(".")[0])
        if not word.startswith("-"):
            if option is None or option.kind == "switch":
                continue
            kept.pop()
        if option is None or option.name in OF_NODE or option.name in ("model", "model-path"):
            continue
        inner = word.partition(UNKNOWN)[2].partition(UNKNOWN)[0]
        what = f"{'$' + inner} is not set in the text: the engine's default is taken"
        said.append(Finding("unresolved", where, flag[:80], what))
    return kept, said


def known_model(given: Given) -> str:
    """The catalogue's id of the model that the lines name: by hub id, by the last part of a path, or by the name it is served as;
    ``InputError`` if it is none of the catalogue."""
    from planner.architecture.catalogue import find_model

    names = [] if given.model is None else [given.model, given.model.rstrip("/").rpartition("/")[2]]
    for pool in given.pools:
        served = pool.launch.options.get("served-model-name")
        names += [str(name) for name in (served if isinstance(served, list) else [served]) if name]
    for name in names:
        entry = find_model(name)
        if entry is not None:
            return entry.id
    what = f"{names[0][:80]!r} is no model of the catalogue" if names else "the launch lines name no model"
    raise InputError(what, where=given.pools[0].launch.where, mend="add --model NAME (planner list models), or a config.json")
