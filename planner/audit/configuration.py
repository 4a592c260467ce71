"""What launch options mean: the configuration of each pool, as pins that one change of flags frees together.

Meanings and defaults are those of the versions whose option snapshots are in ``planner/export/options``:

* vLLM 0.33.0: ``--tensor-parallel-size``, ``--pipeline-parallel-size``, ``--data-parallel-size`` and
  ``--decode-context-parallel-size`` are 1 (vllm/config/parallel.py), experts are spread over all of TP x DP with
  ``--enable-expert-parallel`` and cut by tensor otherwise; data parallelism of a dense model is replicas (parallel.py: "offline
  data parallel … for dense models"); ``--max-num-seqs`` is 1024 from 70 GiB on and 256 below and on A100
  (vllm/engine/arg_utils.py: get_batch_defaults); tokens of a pass and memory share are those of the runtime ``vllm``. Of the
  tokens of a pass each running sequence takes one and its drafts before prompts get the rest (v1/core/sched/scheduler.py): the
  chunk is what ``--max-num-seqs`` leaves.
* SGLang 0.5.23: ``--tp-size`` counts all ranks of a stage and ``--attn-dp-size`` divides it; the deprecated
  ``--enable-dp-attention`` moves ``--dp-size`` there, which otherwise counts replicas (srt/arg_groups/parallel_hook.py);
  backends that span all ranks set ``--ep-size`` to ``--tp-size`` (overrides.py: _a2a_ep_size); ``--max-running-requests`` follows
  from memory, chunk and memory share are those of the runtime ``sglang``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from planner.audit.axes import CACHE_DTYPES, DRAFTS, SPANNING, WEIGHTS, meant
from planner.audit.read import Engine, Finding, Given, GivenPool, Launch, Phase
from planner.errors import InputError
from planner.export.common import GIB
from planner.hardware import System
from planner.runtimes import Runtime

MOST_DEVICES = 10_000_000
MOST_OFFLOAD_GB = 1e6


@dataclass(frozen=True)
class PoolSetup:
    """The configuration of one pool. ``batch``: most sequences of a rank and micro-batch, ``None`` where only memory limits them;
    ``fraction``: the share of device memory, ``None`` where unknown; ``assumed``: axes at the engine's default."""

    phase: Phase
    given: GivenPool
    tp: int
    pp: int
    attention_dp: int
    ep: int
    context_parallel: int
    batch: int | None
    chunk: int | None
    fraction: float | None
    replicas: int
    """Instances that one launch starts."""
    assumed: Mapping[str, str] = field(default_factory=dict)

    @property
    def devices(self) -> int:
        """Of one instance."""
        return self.tp * self.attention_dp * self.pp


@dataclass(frozen=True)
class Setup:
    """The configuration of a deployment. ``host_bytes``: host memory a device may fill with weights, ``None`` for no limit;
    ``tables_below``: Engram tables in host memory; ``prefix_below``: roles of memories that prefixes may lie in."""

    engine: Engine
    pools: tuple[PoolSetup, ...]
    kv_dtype: str
    mtp: int
    redundant: int
    weight_dtype: str | None
    weights_below: bool
    host_bytes: float | None
    tables_below: bool
    prefix_below: tuple[str, ...]
    findings: tuple[Finding, ...]
    ignored: tuple[str, ...]


@dataclass
class _Read:
    """What is found on the way."""

    launch: Launch
    said: list[Finding] = field(default_factory=list)

    def whole(self, name: str, default: int) -> int:
        """A whole number from 1 up."""
        value = self.launch.options.get(name, default)
        if not isinstance(value, int) or not 1 <= value <= 1_000_000:
            self.tell("wrong", name, f"{str(value)[:32]} is no whole number from 1 up: {default} is taken")
            return default
        return value

    def tell(self, kind: Any, name: str, what: str) -> None:
        self.said.append(Finding(kind, self.launch.where, f"--{name}", what))


def setup_of(given: Given, systems: Mapping[str, System], runtime: Runtime, *, routed: bool, longest: float) -> Setup:
    """What the options say. ``systems``: by phase, or ``mixed``; ``runtime``: the engine's own, for its defaults; ``routed``: the
    model has routed experts; ``longest``: tokens of a request, input and output."""
    reads = [_Read(pool.launch) for pool in given.pools]
    drafts = [_drafts(read) for read in reads]
    pools = tuple(
        _pool(pool, read, systems.get(pool.phase) or next(iter(systems.values())), runtime, routed, mtp)
        for pool, read, mtp in zip(given.pools, reads, drafts, strict=True)
    )
    whole: dict[str, list[Any]] = {"kv_dtype": [], "mtp": drafts, "redundant": [], "weights": [], "limit": [], "tables": []}
    prefix: set[str] = set()
    for pool, read in zip(pools, reads, strict=True):
        whole["kv_dtype"].append(_cache_dtype(read, runtime))
        whole["redundant"].append(_redundant(read, pool.ep))
        whole["weights"].append(_weight_dtype(read))
        whole["limit"].append(_weights_below(read))
        whole["tables"].append(_tables_below(read))
        prefix.update(_prefix_below(read))
        _remarks(read, longest)
    for name, flag in (("kv_dtype", "kv-cache-dtype"), ("mtp", "speculative"), ("redundant", "redundant experts")):
        if len(set(whole[name])) > 1:
            taken = whole[name][-1]
            reads[-1].tell("differs", flag, f"differs between pools; {taken} of the {pools[-1].phase} pool is taken for both")
    below = [limit for limit in whole["limit"] if limit is not False]
    ignored = sorted({f"--{name}" for pool in given.pools for name in pool.launch.options if name not in meant(given.engine)})
    return Setup(
        engine=given.engine,
        pools=pools,
        kv_dtype=whole["kv_dtype"][-1],
        mtp=whole["mtp"][-1],
        redundant=whole["redundant"][-1],
        weight_dtype=whole["weights"][-1],
        weights_below=bool(below),
        host_bytes=max((limit for limit in below if limit is not None), default=None) if None not in below else None,
        tables_below=any(whole["tables"]),
        prefix_below=tuple(sorted(prefix)),
        findings=(*given.findings, *(finding for read in reads for finding in read.said)),
        ignored=tuple(ignored),
    )


def _pool(pool: GivenPool, read: _Read, system: System, runtime: Runtime, routed: bool, mtp: int) -> PoolSetup:
    vllm = pool.launch.engine == "vllm"
    assumed: dict[str, str] = {}
    if vllm:
        tp, pp = read.whole("tensor-parallel-size", 1), read.whole("pipeline-parallel-size", 1)
        dp, cp = read.whole("data-parallel-size", 1), read.whole("decode-context-parallel-size", 1)
        replicas, dp = (1, dp) if routed else (dp, 1)
        ep = tp * dp if routed and pool.launch.options.get("enable-expert-parallel") else 1
        if routed and dp > 1 and ep == 1:
            ep = tp * dp
            what = f"experts cut by tensor over {ep} ranks of attention data parallelism are predicted as with it"
            read.tell("differs", "enable-expert-parallel", what)
    else:
        tp, pp, dp, ep, replicas = _sglang_ranks(read, routed)
        cp = read.whole("dcp-size", 1)
    device = next(tier for tier in system.tiers if tier.role == "device").usable.value
    batch = _ceiling(pool, read, dp, pp, device, system, assumed)
    chunk = _chunk(pool, read, dp, device, runtime, assumed)
    fraction = _fraction(read, runtime, assumed, vllm)
    if pool.phase == "prefill":
        batch = None
    elif vllm and batch is not None and chunk is not None:
        chunk = _beside(read, chunk, batch * (1 + mtp))
    made = PoolSetup(pool.phase, pool, tp, pp, dp, ep, cp, batch, chunk, fraction, replicas, assumed)
    if made.devices * replicas > MOST_DEVICES:
        raise InputError(
            f"asks for {made.devices * replicas} devices", where=read.launch.where, mend=f"give at most {MOST_DEVICES}"
        )
    return made


def _sglang_ranks(read: _Read, routed: bool) -> tuple[int, int, int, int, int]:
    options = read.launch.options
    width, pp = read.whole("tp-size", 1), read.whole("pp-size", 1)
    dp, replicas = read.whole("attn-dp-size", 1), read.whole("dp-size", 1)
    if options.get("enable-dp-attention") and dp == 1:
        dp, replicas = replicas, 1
        read.tell("deprecated", "enable-dp-attention", f"read as --attn-dp-size {dp}")
    if width % dp:
        raise InputError(
            f"--tp-size {width} is no multiple of --attn-dp-size {dp}", where=read.launch.where, mend="SGLang refuses that"
        )
    ep = width if options.get("moe-a2a-backend") in SPANNING else read.whole("ep-size", 1)
    tp = width // dp
    if not routed:
        return tp, pp, 1, 1, replicas * dp
    if ep not in (width, dp):
        near = dp if ep < width else width
        read.tell("differs", "ep-size", f"experts over {ep} of {width} ranks are predicted as over {near}")
        ep = near
    return tp, pp, dp, ep, replicas


def _ceiling(
    pool: GivenPool, read: _Read, dp: int, pp: int, device: float, system: System, assumed: dict[str, str]
) -> int | None:
    """Sequences of a rank and micro-batch."""
    if pool.launch.engine == "sglang":
        if "max-running-requests" not in pool.launch.options:
            return None
        return max(read.whole("max-running-requests", 1) // (dp * pp), 1)
    large = device >= 70 * GIB and "a100" not in system.device.id
    if "max-num-seqs" not in pool.launch.options:
        assumed["batch_per_rank"] = f"{1024 if large else 256} (default)"
    return max(read.whole("max-num-seqs", 1024 if large else 256) // pp, 1)


def _chunk(pool: GivenPool, read: _Read, dp: int, device: float, runtime: Runtime, assumed: dict[str, str]) -> int | None:
    """Tokens of a rank and prefill pass."""
    if pool.phase == "decode":
        return None
    name = "max-num-batched-tokens" if pool.launch.engine == "vllm" else "chunked-prefill-size"
    given = pool.launch.options.get(name)
    if given is None:
        stock = runtime.stock_prefill_tokens(device, dp)
        if stock is not None:
            assumed["prefill_tokens_per_rank"] = f"{stock} (default)"
        return stock
    if isinstance(given, int) and given <= 0:
        read.tell("differs", name, "prompts run whole: the best number of tokens a pass is taken")
        return None
    tokens = read.whole(name, runtime.stock_prefill_tokens(device, dp) or 8192)
    return tokens if pool.launch.engine == "vllm" else max(tokens // dp, 1)


def _beside(read: _Read, tokens: int, decoding: int) -> int:
    """Prompt tokens of a pass of ``tokens`` in all, ``decoding`` of them of running sequences."""
    if tokens > decoding:
        return tokens - decoding
    what = f"all {tokens} tokens of a pass are those of running sequences: predicted as so many of prompts beside them"
    read.tell("differs", "max-num-batched-tokens", what)
    return tokens


def _fraction(read: _Read, runtime: Runtime, assumed: dict[str, str], vllm: bool) -> float | None:
    name = "gpu-memory-utilization" if vllm else "mem-fraction-static"
    given = read.launch.options.get(name)
    if isinstance(given, int | float) and 0 < given <= 1:
        return float(given)
    if given is not None:
        read.tell("wrong", name, f"{given} is no share of 1: the default is taken")
    if runtime.memory_fraction is None:
        return None
    assumed["memory"] = f"{runtime.memory_fraction.value:g} (default)"
    return float(runtime.memory_fraction.value)


def _cache_dtype(read: _Read, runtime: Runtime) -> str:
    given = str(read.launch.options.get("kv-cache-dtype", "auto"))
    dtype = CACHE_DTYPES.get(given, given)
    if dtype not in runtime.kv_layouts:
        read.tell("differs", "kv-cache-dtype", f"{given[:32]} is not known of this engine's caches: predicted in bf16")
        return "bf16"
    return dtype


def _drafts(read: _Read) -> int:
    options = read.launch.options
    if read.launch.engine == "vllm":
        given = options.get("speculative-config")
        if not isinstance(given, dict):
            return 0
        method, count, flag = given.get("method", "mtp"), given.get("num_speculative_tokens", 1), "speculative-config"
    else:
        method, flag = options.get("speculative-algorithm"), "speculative-algorithm"
        count = options.get("speculative-num-steps", 1)
        if method is None:
            return 0
        if options.get("speculative-eagle-topk", 1) != 1:
            read.tell("differs", "speculative-eagle-topk", "trees of drafts are predicted as one chain")
    if method not in DRAFTS or not isinstance(count, int) or not 0 <= count <= 8:
        read.tell("differs", flag, f"drafts by {str(method)[:32]} are not modelled: predicted without drafts")
        return 0
    return count


def _redundant(read: _Read, ep: int) -> int:
    options = read.launch.options
    if read.launch.engine == "vllm":
        given = options.get("eplb-config")
        count = given.get("num_redundant_experts", 0) if isinstance(given, dict) and options.get("enable-eplb") else 0
    else:
        count = options.get("ep-num-redundant-experts", 0)
    if not isinstance(count, int) or count <= 0:
        return 0
    if count % ep or count // ep > 64:
        read.tell("differs", "redundant experts", f"{count} slots are not alike on {ep} ranks: {min(count // ep, 64)} a rank")
    return min(count // ep, 64)


def _weight_dtype(read: _Read) -> str | None:
    given = read.launch.options.get("quantization")
    if given is None or str(given) in ("None", "compressed-tensors", "modelopt", "auto-round"):
        return None
    if str(given) not in WEIGHTS:
        read.tell("differs", "quantization", f"{str(given)[:32]} is not modelled: weights count as the model stores them")
    return WEIGHTS.get(str(given))


def _weights_below(read: _Read) -> float | None | bool:
    """Bytes of host memory a device, ``None`` for groups of layers, ``False`` for no weights there."""
    options = read.launch.options
    size = options.get("cpu-offload-gb", 0)
    group = options.get("offload-group-size", 0)
    if isinstance(group, int) and group > 0:
        layers = options.get("offload-num-in-group", 1)
        what = f"{layers} of every {group} layers are streamed; predicted as the best part of the weights in host memory"
        read.tell("differs", "offload-group-size", what)
        return None
    if not isinstance(size, int | float) or not 0 <= size <= MOST_OFFLOAD_GB:
        read.tell("wrong", "cpu-offload-gb", f"{str(size)[:32]} is no size of host memory: none is taken")
        return False
    return float(size) * GIB if size else False


def _tables_below(read: _Read) -> bool:
    if read.launch.engine == "sglang":
        return read.launch.env.get("SGLANG_ENABLE_DSV41_ENGRAM_HOST_TABLE", "").lower() in ("1", "true", "yes")
    given = read.launch.options.get("engram-config")
    return isinstance(given, dict) and bool(given.get("cpu_offload"))


def _prefix_below(read: _Read) -> tuple[str, ...]:
    options = read.launch.options
    if options.get("kv-offloading-size"):
        return ("host",)
    if options.get("enable-hierarchical-cache"):
        return ("host", "disk") if options.get("hicache-storage-backend") else ("host",)
    return ()


def _remarks(read: _Read, longest: float) -> None:
    options = read.launch.options
    for name in ("max-model-len", "context-length"):
        most = options.get(name)
        if isinstance(most, int) and 0 < most < longest:
            read.tell(
                "differs", name, f"requests of the workload are up to {longest:,.0f} tokens: the engine refuses the longest"
            )
    tokens, sequences = options.get("max-num-batched-tokens"), options.get("max-num-seqs")
    if isinstance(tokens, int) and isinstance(sequences, int) and 0 < tokens < sequences:
        read.tell(
            "wrong", "max-num-batched-tokens", f"{tokens} are fewer than --max-num-seqs {sequences}: the engine refuses that"
        )
    if options.get("kv-offloading-size") and "kv-transfer-config" in options:
        what = "takes the place of the connector of --kv-transfer-config in the engine: predicted as beside it"
        read.tell("differs", "kv-offloading-size", what)
    for name in ("enforce-eager", "disable-cuda-graph"):
        if options.get(name):
            read.tell("differs", name, "steps without graphs are slower than predicted")
    if options.get("enable-prefix-caching") is False or options.get("disable-radix-cache"):
        name = "enable-prefix-caching" if read.launch.engine == "vllm" else "disable-radix-cache"
        read.tell("differs", name, "without a prefix cache nothing is found again: add --prefix-hit 0")
