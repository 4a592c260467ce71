"""TensorRT-LLM's files: every field is one of its configuration classes, ranks and bytes add up, experts go by model layers."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from exported import CASES, deployment, skewed

from planner.errors import InputError
from planner.export import EngineDeployment, EnginePool, Held, Values, export_plan, trtllm
from planner.export.common import Notes
from planner.export.expert_map import expert_slots
from planner.export.options import config_faults, load_fields, load_options, parse_words
from planner.export.schema import PoolValues

TOP = Path(__file__).resolve().parents[1]
COMMAND = "planner export plan.json --to trtllm"
VALUES = Values(model_path="org/model", served_model_name="served")
NVIDIA = [name for name in CASES if name != "v3-cm384"] + ["skewed"]


@cache
def plan_of(name: str) -> EngineDeployment:
    return skewed() if name == "skewed" else deployment(name)


@cache
def files_of(name: str) -> dict[str, str]:
    return {file.name: file.content.decode() for file in export_plan(plan_of(name), "trtllm", VALUES, COMMAND).files}


def decode_pool(**changes: object) -> EnginePool:
    return replace(deployment("v3-h800").pools[-1], **changes)  # type: ignore[arg-type]


def config_of(pool: EnginePool, notes: Notes | None = None) -> dict[str, object]:
    return dict(trtllm.configuration(deployment("v3-h800"), pool, VALUES, notes or Notes()))


@pytest.mark.parametrize("name", NVIDIA)
def test_every_field_is_the_engines_own(name: str) -> None:
    fields, options, here = load_fields("trtllm"), load_options("trtllm"), plan_of(name)
    roots = {
        "disaggregated.yaml": "disaggregated",
        **{f"{pool.phase}-experts.yaml": "MoeLoadBalancerConfig" for pool in here.pools},
    }
    for file, text in files_of(name).items():
        assert here.fingerprint in text and COMMAND in text
        if file.endswith(".yaml"):
            assert not config_faults(fields, yaml.safe_load(text), roots.get(file))
    for pool in here.pools:
        words = trtllm.serve_command(here, pool, VALUES, Notes()).argv()
        known, rest, faults = parse_words(options, words[words.index("org/model") + 1 :])
        assert not faults and not rest and known["config"] == f"{pool.phase}.yaml"
        assert f"{pool.phase}.yaml" in files_of(name) and f"serve-{pool.phase}.sh" in files_of(name)
    assert ("disaggregated.yaml" in files_of(name)) == here.disaggregated


@pytest.mark.parametrize("name", NVIDIA)
def test_ranks_and_bytes_add_up(name: str) -> None:
    for pool in plan_of(name).pools:
        config = yaml.safe_load(files_of(name)[f"{pool.phase}.yaml"])
        ranks = config["tensor_parallel_size"] * config.get("context_parallel_size", 1)
        assert ranks * config.get("pipeline_parallel_size", 1) == pool.devices
        if "moe_expert_parallel_size" in config:
            assert config["moe_expert_parallel_size"] * config["moe_tensor_parallel_size"] == ranks
            assert config["moe_expert_parallel_size"] == pool.ep
        if pool.sequences:
            held = config["max_batch_size"] * pool.pp * (ranks if config.get("enable_attention_dp") else 1)
            assert held >= pool.sequences
            assert config["max_num_tokens"] == pool.chunk_tokens + config["max_batch_size"] * (1 + pool.mtp)
        fraction = config["kv_cache_config"]["free_gpu_memory_fraction"]
        moved = sum(part.bytes_per_device for part in pool.held if part.role != "device" and part.kind not in ("cache", "prefix"))
        room = pool.device_memory_bytes - pool.weight_bytes - moved - pool.reserve_bytes
        free = room + pool.outside_bytes
        assert fraction == 0 if room <= 0 else room - 1e-3 * free <= fraction * free <= room
        assert moved or pool.cache_bytes <= room


def test_what_lies_below_device_memory_is_listed_and_what_no_longer_fits_is_said() -> None:
    for name in NVIDIA:
        here = plan_of(name)
        below = {part.item for pool in here.pools for part in pool.held if part.role != "device"}
        made = export_plan(here, "trtllm", VALUES, COMMAND)
        assert all(any(item in row.what for row in made.not_carried) for item in below)
    notes = [
        row
        for name in NVIDIA[:-1]
        for row in export_plan(plan_of(name), "trtllm", VALUES, COMMAND).notes
        if " GB a device " in row
    ]
    prefill, decode = deployment("v4.1-flash-gb300").pools[0], deployment("v3-h800").pools[1]
    over = []
    for pool in (decode, prefill):
        moved = sum(part.bytes_per_device for part in pool.held if part.role != "device" and part.kind != "cache")
        over.append((pool.weight_bytes + moved + pool.cache_bytes + pool.reserve_bytes - pool.device_memory_bytes) / 1e9)
    assert notes == [
        f"decode pool: {over[0]:.3g} GB a device less KV cache than planned, as all weights are there",
        f"prefill pool: does not start: all weights are {over[1]:.3g} GB a device too much",
    ]


def test_the_version_is_the_snapshots() -> None:
    assert trtllm.EXPORTER.engine == f"TensorRT-LLM {load_fields('trtllm').version}"


def test_huaweis_devices_are_refused() -> None:
    with pytest.raises(InputError, match="NVIDIA"):
        export_plan(deployment("v3-cm384"), "trtllm", VALUES, COMMAND)


def test_experts_go_by_the_models_own_layers() -> None:
    """DeepSeek-V3's first MoE layer is 3 and its draft layer, 61, comes after the last, 60."""
    here = deployment("v3-h800")
    slots = expert_slots(here, here.pools[-1])
    assert slots is not None
    data = yaml.safe_load(trtllm.balancer_file(slots, here.model.layers, 1))
    assert list(data["initial_global_assignments"]) == list(range(3, 62)) and data["num_slots"] == 256
    assert data["layer_updates_per_iter"] == 0 and data["initial_global_assignments"][61] == list(range(256))
    (pool,) = skewed().pools
    assert pool.experts is not None
    data = yaml.safe_load(files_of("skewed")["mixed-experts.yaml"])
    assert list(data["initial_global_assignments"]) == [1, 2, 3, 4, 5] and data["num_slots"] == 12
    assert list(data["initial_global_assignments"].values()) == np.array(pool.experts.physical_to_logical).tolist()
    assert all(set(row) == set(range(8)) for row in data["initial_global_assignments"].values())
    assert yaml.safe_load(files_of("skewed")["mixed.yaml"])["moe_config"] == {"load_balancer": "mixed-experts.yaml"}
    assert 'cd -- "$(dirname -- "$0")"' in files_of("skewed")["serve-mixed.sh"]


def test_drafts_add_a_token_each_and_a_layer_to_the_map() -> None:
    config = config_of(decode_pool(mtp=2, redundant_experts=1))
    assert config["speculative_config"] == {"decoding_type": "MTP", "max_draft_len": 2}
    assert config["max_num_tokens"] == 3 * config["max_batch_size"] and "moe_config" in config  # type: ignore[operator]
    assert not config_faults(load_fields("trtllm"), config)


def test_ranks_of_several_devices_and_context_parallelism() -> None:
    notes = Notes()
    config = config_of(decode_pool(tp=2, attention_dp=8), notes)
    assert config["tensor_parallel_size"] == 16 and config["max_batch_size"] == 38  # of 75 a pair of devices
    assert any("8 attention-DP ranks of 2 devices" in row.what for row in notes.lost)
    config = config_of(decode_pool(ep=4))
    assert (config["moe_expert_parallel_size"], config["moe_tensor_parallel_size"]) == (4, 4)
    notes = Notes()
    config = config_of(decode_pool(tp=16, attention_dp=1, context_parallel=8), notes)
    assert (config["tensor_parallel_size"], config["context_parallel_size"]) == (2, 8) and "enable_attention_dp" not in config
    assert config["cp_config"] == {"cp_type": "HELIX", "tokens_per_block": 64}
    assert config["moe_expert_parallel_size"] == 16 and not any("context" in row.what for row in notes.lost)
    assert not config_faults(load_fields("trtllm"), config)
    for lost in (decode_pool(context_parallel=4), decode_pool(phase="mixed", tp=16, attention_dp=1, context_parallel=4)):
        notes = Notes()
        assert "cp_config" not in config_of(lost, notes) and any("context parallelism" in row.what for row in notes.lost)


def test_prefix_caches_below_device_memory() -> None:
    pool = decode_pool()
    host = Held("KV cache", "prefix", (0,), "host", "ddr5", "host", "fetch", 0.5, 2.5e9)
    notes, given = Notes(), Notes()
    held = (host, replace(host, tier="ssd", role="storage", bytes_per_device=1e12))
    config = trtllm.configuration(deployment("v3-h800"), replace(pool, held=held), VALUES, notes)["kv_cache_config"]
    assert isinstance(config, dict) and config["host_cache_size"] == 2_500_000_000 and config["disk_cache_size"] == 10**12
    assert [row.key for row in notes.missing] == ["cache_path"] and config["disk_cache_path"] == "CACHE_PATH"
    values = VALUES.model_copy(update={"cache_path": "/nvme"})
    config = trtllm.configuration(deployment("v3-h800"), replace(pool, held=held), values, given)["kv_cache_config"]
    assert isinstance(config, dict) and config["disk_cache_path"] == "/nvme" and not given.missing
    assert not config_faults(load_fields("trtllm"), config, "KvCacheConfig")


def test_addresses_of_instances() -> None:
    here, urls = deployment("v4-pro-gb200"), ("a.example:8001", "b:8002")
    values = Values(model_path="m", pools={"prefill": PoolValues(urls=urls), "decode": PoolValues(urls=("c:1",))})
    made = export_plan(here, "trtllm", values, COMMAND)
    data = yaml.safe_load(next(file.content for file in made.files if file.name == "disaggregated.yaml"))
    servers = data["context_servers"]
    assert servers["num_instances"] == len(servers["urls"]) == here.pools[0].replicas
    assert servers["urls"][:2] == list(urls) and servers["urls"][2] == "PREFILL-2:8000"
    assert [row.key for row in made.missing] == ["pools.prefill.urls"] and data["generation_servers"]["urls"] == ["c:1"]
    with pytest.raises(InputError, match="3 addresses for 1 instance"):
        export_plan(here, "trtllm", Values(pools={"decode": PoolValues(urls=("c:1",) * 3)}), COMMAND)
    for wrong in ("a", "a:b", "a:80:80", "http://a:80", "a:99999x"):
        with pytest.raises(ValueError):
            PoolValues(urls=(wrong,))


@pytest.mark.parametrize(
    ("change", "where"),
    [({"tensor_paralel_size": 8}, "tensor_paralel_size"), ({"tensor_parallel_size": "8"}, "tensor_parallel_size"),
     ({"tensor_parallel_size": True}, "tensor_parallel_size"), ({"enable_attention_dp": 1}, "enable_attention_dp"),
     ({"kv_cache_config": {"dtype": "fp7"}}, "kv_cache_config.dtype"), ({"kv_cache_config": 3}, "kv_cache_config"),
     ({"kv_cache_config": {"free_gpu_fraction": 0.9}}, "kv_cache_config.free_gpu_fraction"),
     ({"moe_config": {"backend": "WIDEEP"}}, "moe_config.backend"), ({"pp_partition": [1, "2"]}, "pp_partition[1]"),
     ({"moe_config": {"load_balancer": {"initial_global_assignments": {"3": [0]}}}},
      "moe_config.load_balancer.initial_global_assignments.3"),
     ({"moe_config": {"load_balancer": {"slots": 3}}}, "moe_config.load_balancer.slots"),
     ({"speculative_config": {"decoding_type": "Medusa"}}, "speculative_config.decoding_type"),
     ({"cp_config": {"cp_type": "helix"}}, "cp_config.cp_type"), ({"moe_cluster_parallel_size": 2}, "moe_cluster_parallel_size"),
     ({"cache_transceiver_config": {"backend": "RDMA"}}, "cache_transceiver_config.backend")],
)  # fmt: skip
def test_what_the_engine_would_refuse_is_caught(change: dict[str, object], where: str) -> None:
    data = {**yaml.safe_load(files_of("v3-h800")["decode.yaml"]), **change}
    (fault,) = config_faults(load_fields("trtllm"), data)
    assert fault.word == where and fault.reason


def test_snapshots_that_are_not_there() -> None:
    for load, name in ((load_fields, "vllm"), (load_fields, "../vllm"), (load_options, "vllm-ascend"), (load_options, "nothing")):
        with pytest.raises(InputError):
            load(name)
    assert config_faults(load_fields("trtllm"), [])[0].reason == "wants a mapping"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("config_fields", TOP / ".ci" / "config_fields.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fields_are_read_from_syntax() -> None:
    read = script()
    source = """
class Way(IntEnum):
    HELIX = 3
class Word(StrEnum):
    A = "a"
class Base(Strict):
    model_config = ConfigDict(extra="forbid")
    kept: int = 1
    replaced: str = "x"
    _own: int = 2
class Inner(Strict):
    pass
class Other(Strict):
    pass
class Whole(Base):
    '''Words.'''
    replaced: Literal["x", "y"] = Field(default="x", status="beta")
    deep: Optional[Dict[int, List[int]]] = None
    either: "bool | None" = None
    both: bool | Literal["auto"] = "auto"
    inner: Optional[Inner] = Field(default=None, deprecated=True)
    other: Optional[Other] = None
    way: Way = Way.HELIX
    word: Word = Word.A
    free: str = Field(default="a", telemetry=Telemetry.categorical("a", "b"))
    count: Optional[PositiveInt] = None
    def method(self) -> int: ...
"""
    fields = read.fields_of("Whole", read.classes_of(read.ast.parse(source)), ["Whole", "Inner"])
    assert fields == {
        "kept": {"type": "int"},
        "replaced": {"type": {"one of": ["x", "y"]}, "status": "beta"},
        "deep": {"type": [{"dict": ["int", {"list": "int"}]}, "null"]},
        "either": {"type": "any"},
        "both": {"type": ["bool", {"one of": ["auto"]}]},
        "inner": {"type": [{"class": "Inner"}, "null"], "status": "deprecated"},
        "other": {"type": "any"},
        "way": {"type": {"one of": ["HELIX"]}},
        "word": {"type": {"one of": ["a"]}},
        "free": {"type": {"one of": ["a", "b"]}},
        "count": {"type": ["int", "null"]},
    }
    text = json.dumps(json.loads(read.text_of({"a": {"b": {"c": {"type": "int"}}}, "d": [{"e": 1}], "f": []})))
    assert text == '{"a": {"b": {"c": {"type": "int"}}}, "d": [{"e": 1}], "f": []}'
