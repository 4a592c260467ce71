"""What the labels of the public continuous-benchmark file say was deployed.

Rules look at label columns only: ``decode`` is given nothing else, so no measurement can bend a reading. A label that
determines no deployment yields a reason of the closed list ``SKIP_REASONS``, never a guess.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Literal, NamedTuple, get_args

from planner.architecture.catalogue import Entry, list_models
from planner.errors import InputError
from planner.hardware.source import ProfileSource
from planner.runtimes.schema import RUNTIMES

Skip = Literal[
    "row-broken",
    "id-repeated",
    "number-unreadable",
    "lengths-missing",
    "concurrency-missing",
    "mode-unknown",
    "model-unknown",
    "hardware-unknown",
    "backend-unknown",
    "precision-unknown",
    "workers-unknown",
    "parallelism-missing",
    "parallelism-impossible",
    "aggregate-of-disaggregated",
    "time-missing",
    "refused",
]
SKIP_REASONS: tuple[Skip, ...] = get_args(Skip)
"""A row has the first that is found; they are looked for about in this order."""

SKIP_MEANINGS: dict[Skip, str] = {
    "row-broken": "too few or too many cells, no id, or characters that cannot be printed",
    "id-repeated": "an earlier row has the id",
    "number-unreadable": "a cell that should hold a number holds text, a negative count or one beyond reason",
    "lengths-missing": "input or output length missing or not positive, or fewer than two output tokens",
    "concurrency-missing": "requests in flight missing or not positive",
    "mode-unknown": "neither agg nor disagg",
    "model-unknown": "a model that is not in the catalogue",
    "hardware-unknown": "a system that is not in the catalogue",
    "backend-unknown": "an engine without a runtime profile",
    "precision-unknown": "a storage format of weights or cache that is not described",
    "workers-unknown": "disaggregated, and workers of a side or the decode batch are not given",
    "parallelism-missing": "the tensor parallelism, or that of the experts of a mixture, is not given",
    "parallelism-impossible": "sizes contradict one another, or a worker has more devices than the system",
    "aggregate-of-disaggregated": "called aggregated, but the sizes are totals over a disaggregated deployment",
    "time-missing": "no time to first token and none per token, or one that is not positive",
    "refused": "it cannot run: a format, cache or shape that is not taken, weights beyond memory, too long requests",
}

Rule = Literal["stated", "attention-dp-empty", "squared-tensor", "squared-attention-dp", "vllm-attention-dp"]
RULE_MEANINGS: dict[Rule, str] = {
    "stated": "the columns say it: tp x attention-dp devices, over which the experts are spread",
    "attention-dp-empty": "attention-dp is empty: expert tp x ep devices, attention-dp what tp leaves of them",
    "squared-tensor": "expert tp = ep = k and tp = k x k: k devices counted twice, tp = ep = k",
    "squared-attention-dp": "expert tp = ep = k, tp 1, attention-dp k x k: k devices counted twice, attention-dp = ep = k",
    "vllm-attention-dp": "vLLM with tp = attention-dp = k and ep = k x k: k devices, attention-dp = ep = k",
}

LABEL_COLUMNS = (
    *("model", "system", "backend", "backend_version", "precision", "mode"),
    *("tp_size", "pp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size"),
    *("decode_num_workers", "decode_batch_size"),
    *("decode_tp_size", "decode_pp_size", "decode_attention_dp_size", "decode_moe_tp_size", "decode_moe_ep_size"),
    "prefill_num_workers",
    *("prefill_tp_size", "prefill_pp_size", "prefill_attention_dp_size", "prefill_moe_tp_size", "prefill_moe_ep_size"),
)
"""The columns that ``decode`` is given, in this order."""

MAX_COUNT = 1_000_000
MAX_LABEL = 200
MAX_LABELS = 4096
"""Kept with what they mean."""
AGGREGATE_TP = {"gb200-nvl72": 12, "gb300-nvl72": 12}
"""Racks on whose rows called aggregated a tensor parallelism from there on is the sum over many workers."""

WEIGHT_DTYPES = ("", "bf16", "fp8", "int8", "fp4", "int4")
CACHE_DTYPES = ("bf16", "fp8", "int8", "fp4", "int4")
_PRECISIONS = {
    **dict.fromkeys(("bf16", "fp16", "bfloat16", "float16"), "bf16"),
    **dict.fromkeys(("fp8", "fp8_block", "fp8-block", "w8a8-fp8"), "fp8"),
    **dict.fromkeys(("fp4", "nvfp4", "mxfp4", "w4afp8"), "fp4"),
    **dict.fromkeys(("int8", "w8a8"), "int8"),
    **dict.fromkeys(("int4", "awq", "gptq", "w4a16"), "int4"),
}
"""``fp4`` stands for every 4-bit float."""

_BACKENDS = {
    "trt": "trtllm",
    "trt-llm": "trtllm",
    "tensorrt-llm": "trtllm",
    "tensorrtllm": "trtllm",
    "llama.cpp": "llama-cpp",
    "llamacpp": "llama-cpp",
}
_FRONTS = re.compile(r"^(?:dynamo|mori)[-_]|[-_](?:disagg|dynamo)$")
"""What routes requests to an engine, beside its name."""

_VERSIONS: dict[str, tuple[tuple[tuple[int, ...], str], ...]] = {
    "vllm": (((0, 26), "vllm-0-19"),),
    "sglang": (((0, 5, 16), "sglang-0-5-9"),),
    "trtllm": (((1, 3), "trtllm-1-2"),),
}
"""Profiles of earlier versions and the version from which on the profile of the current one is nearer. A nightly build or an
empty cell takes the earlier one: the public file is of early 2026."""


class Deployed(NamedTuple):
    """What labels determine; counts are of one worker. ``prefill_*`` are 0 without workers that only prefill."""

    model: str
    hardware: str
    runtime: str
    weight_dtype: str
    kv_dtype: str
    tp: int
    pp: int
    dp: int
    ep: int
    workers: int
    prefill_tp: int
    prefill_pp: int
    prefill_dp: int
    prefill_ep: int
    prefill_workers: int
    rule: Rule


class Group(NamedTuple):
    """One worker: its devices are ``tp * pp * dp``, its experts are spread over ``ep`` ranks."""

    tp: int
    pp: int
    dp: int
    ep: int
    rule: Rule

    @property
    def devices(self) -> int:
        return self.tp * self.pp * self.dp


_NO_GROUP = Group(0, 0, 0, 0, "stated")


class NamedModel(NamedTuple):
    """A model of the catalogue, whether it routes to experts, how it is stored there, and the format that the label names."""

    id: str
    experts: bool
    stored: str
    named: str


_STORAGE = re.compile(
    r"[-_](?:(?P<fp8>fp8(?:[-_](?:dynamic|block|kv))*)|(?P<fp4>nvfp4|mxfp4|fp4|w4afp8)|(?P<int8>int8|w8a8)"
    r"|(?P<int4>int4|awq|gptq(?:[-_]int4)?|w4a16)|(?P<bf16>bf16|fp16))$"
)
_VARIANT = re.compile(r"[-_](?:instruct|chat|it|base|hf|thinking|preview|v?\d{4}|v[\d.]+)$")
_FAMILIES = (
    (re.compile(r"^meta-llama-"), "llama-"),
    (re.compile(r"^llama(?=\d)"), "llama-"),
    (re.compile(r"^dsr1(?=-|$)"), "deepseek-r1"),
    (re.compile(r"^deepseek-v3\.1(?:-terminus)?(?=-|$)"), "deepseek-v3"),
)


@cache
def _entries() -> dict[str, Entry]:
    """The catalogue's models by id and alias, those with an organisation without it too."""
    found: dict[str, Entry] = {}
    for entry in list_models():
        for name in (entry.id, *entry.aliases):
            for form in (name.casefold(), name.casefold().rpartition("/")[2]):
                found.setdefault(form, entry)
    return found


def _stored(config: dict[str, object]) -> str:
    """How the routed weights of a checkpoint lie: ``bf16``, ``fp8``, ``fp4`` or ``int4``."""
    text = str(config.get("quantization_config", "")).casefold()
    if "fp4" in text or config.get("expert_dtype") == "fp4":
        return "fp4"
    if "'num_bits': 4" in text:
        return "fp4" if "float" in text else "int4"
    return "fp8" if text else "bf16"


@lru_cache(MAX_LABELS)
def model_of(label: str) -> NamedModel | None:
    """The catalogue's model behind a label, in any case, with or without organisation, variant and storage format.

    Variants of one architecture and size share a model (R1 and V3, Llama 3.3 and 3.1 70B), and so do storage formats: the
    format is in ``named``.
    """
    name = whole = label.strip().casefold().rpartition("/")[2]
    named = ""
    while True:
        storage = _STORAGE.search(name)
        found = None if storage else known_model(name, named) or known_model(_family(name), named)
        cut = storage or _VARIANT.search(name)
        if found or cut is None:
            return found or known_model(whole, named)
        named = named or (str(storage.lastgroup) if storage else "")
        name = name[: cut.start()]


def _family(name: str) -> str:
    """The name as the catalogue spells its family."""
    for pattern, plain in _FAMILIES:
        name = pattern.sub(plain, name)
    return name


@lru_cache(MAX_LABELS)
def known_model(name: str, named: str = "") -> NamedModel | None:
    """The model of the catalogue that has the name, in any case, as its id or alias."""
    entry = _entries().get(name.strip().casefold())
    if entry is None:
        return None
    experts = any(key in entry.config for key in ("n_routed_experts", "num_local_experts", "num_experts"))
    return NamedModel(entry.id, experts, _stored(entry.config), named)


@cache
def _systems() -> dict[str, tuple[str, int]]:
    """Id and devices of every system of the catalogue by id and alias, and by those of its device where no system has them."""
    source = ProfileSource(())
    found: dict[str, tuple[str, int]] = {}
    by_device: dict[str, list[tuple[str, int]]] = {}
    for path, names in source.names("system"):
        table = source.document(path)
        held = (names[0], int(table.get("devices", 1)))
        for name in names:
            found.setdefault(name.casefold(), held)
        by_device.setdefault(str(source.head(path).device or table.get("device", "")), []).append(held)
    for _, names in source.names("device"):
        for held in by_device.get(names[0], [])[:1]:
            for name in names:
                found.setdefault(name.casefold(), held)
    return found


@lru_cache(MAX_LABELS)
def system_of(label: str) -> tuple[str, int] | None:
    """Id and devices of the system behind a label: a system's own name or alias, or those of its device."""
    name = label.strip().casefold()
    plain = re.sub(r"^nvidia-|-sxm\d?$", "", name.replace("_", "-"))
    return next((_systems()[form] for form in (name, name.replace("_", "-"), plain) if form in _systems()), None)


@lru_cache(MAX_LABELS)
def runtime_of(backend: str, version: str) -> str | None:
    """The runtime profile nearest to an engine's version; ``None`` for an engine without one."""
    name = _FRONTS.sub("", backend.strip().casefold()).replace("_", "-")
    name = _BACKENDS.get(name, name)
    if name not in RUNTIMES.ids:
        return None
    parts = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    number = tuple(int(part[:9]) for part in parts[1].split(".")[:4]) if parts else (0,)
    return next((profile for before, profile in _VERSIONS.get(name, ()) if number < before), name)


def weights_of(model: NamedModel, precision: str) -> str | None:
    """The weight dtype that a precision label means for a model: ``""`` = as the checkpoint; ``None`` for an unknown label."""
    label = precision.strip().casefold() or model.named
    if not label:
        return ""
    dtype = _PRECISIONS.get(label)
    as_stored = dtype == model.stored and dtype != "fp8"
    return "" if as_stored else dtype


def count(text: str) -> int:
    """A whole number of a cell, 0 where it is empty; ``InputError`` for anything else."""
    plain = text.strip()
    if not plain:
        return 0
    found = re.fullmatch(r"(\d{1,9})(?:\.0*)?", plain, re.ASCII)
    if found is None or int(found[1]) > MAX_COUNT:
        raise InputError(f"{plain[:32]!r} is not a count")
    return int(found[1])


def group_of(sizes: tuple[int, ...], *, experts: bool, backend: str) -> Group | Skip:
    """One worker from ``(tp, pp, attention_dp, moe_tp, moe_ep)``, 0 = not given, by the first rule that fits."""
    tp, pp, dp, moe_tp, moe_ep = sizes
    pp = pp or 1
    if not tp:
        return "parallelism-missing"
    if not experts:
        return Group(tp, pp, dp or 1, 1, "stated")
    if not (moe_tp and moe_ep):
        return "parallelism-missing"
    ranks = moe_tp * moe_ep
    if not dp:
        return "parallelism-impossible" if ranks % tp else Group(tp, pp, ranks // tp, moe_ep, "attention-dp-empty")
    if moe_tp == moe_ep > 1 and tp * dp == ranks and 1 in (tp, dp):
        k = moe_ep
        return Group(k, pp, 1, k, "squared-tensor") if dp == 1 else Group(1, pp, k, k, "squared-attention-dp")
    if backend == "vllm" and tp == dp > 1 and moe_tp == 1 and moe_ep == tp * dp:
        return Group(1, pp, dp, dp, "vllm-attention-dp")
    return Group(tp, pp, dp, moe_ep, "stated") if tp * dp == ranks else "parallelism-impossible"


def decode(cells: tuple[str, ...]) -> Deployed | Skip:
    """What the cells of ``LABEL_COLUMNS`` say was deployed, or why they do not say it."""
    name, label, backend, version, precision, mode = (cell.strip() for cell in cells[:6])
    split = mode.casefold() == "disagg"
    try:
        sizes, of_decode, of_prefill = (tuple(map(count, part)) for part in (cells[6:11], cells[11:18], cells[18:]))
    except InputError:
        return "number-unreadable"
    if not split and mode.casefold() != "agg":
        return "mode-unknown"
    model = model_of(name)
    if model is None:
        return "model-unknown"
    system = system_of(label)
    if system is None:
        return "hardware-unknown"
    runtime = runtime_of(backend, version)
    if runtime is None:
        return "backend-unknown"
    weights = weights_of(model, precision)
    if weights is None:
        return "precision-unknown"
    (workers, batch), prefill_workers = of_decode[:2], of_prefill[0]
    if split and not (workers and batch and prefill_workers):
        return "workers-unknown"
    engine = runtime.partition("-")[0]
    group = group_of(of_decode[2:] if split else sizes, experts=model.experts, backend=engine)
    prefill = group_of(of_prefill[1:], experts=model.experts, backend=engine) if split else _NO_GROUP
    if isinstance(group, str):
        return group
    if isinstance(prefill, str):
        return prefill
    if not split and group.tp >= AGGREGATE_TP.get(system[0], MAX_COUNT):
        return "aggregate-of-disaggregated"
    if max(group.devices, prefill.devices) > system[1]:
        return "parallelism-impossible"
    reduced = _PRECISIONS.get((precision or model.named).casefold()) in ("fp8", "fp4")
    return Deployed(
        *(model.id, system[0], runtime, weights, "fp8" if reduced else "bf16"),
        *group[:4],
        workers if split else 1,
        *prefill[:4],
        prefill_workers if split else 0,
        group.rule if group.rule != "stated" else prefill.rule,
    )
