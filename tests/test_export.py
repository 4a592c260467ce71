"""A plan as files for engines: what they say, what they can't, and that the engines' own parsers know every word."""

import io
import json
import math
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small
import yaml
from exported import CASES, deployment, made, skewed
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from planner.errors import InputError
from planner.export import Held, Values, engine_deployment, export_plan, load_values, sglang
from planner.export.common import Notes, listed, memory_fraction, stream_groups, streamed_experts
from planner.export.expert_map import expert_slots, logical_to_physical
from planner.export.options import load_options, parse_words
from planner.export.serve import OfNode, Serve, node_script, option_words
from planner.export.vllm import EXPORTER, KV_DTYPES, serve_command
from planner.export.yaml_text import documents, to_yaml
from planner.search import solve

COMMAND = "planner export plan.json --to vllm"
VLLM = [name for name in CASES if name != "v3-cm384"]
STRINGS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20) | st.sampled_from(
    [
        "on",
        "NO",
        "1:30",
        "8e12",
        "y",
        "~",
        "null",
        "0x1",
        "",
        "-",
        "---",
        "a: b",
        "#",
        "\x85",
        "\u2028",
        "\ufeff",
        "\x7f",
        "=",
        "<<",
    ]
)
VALUES = st.recursive(
    STRINGS
    | st.integers(-(2**60), 2**60)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([8e12, 1e-9, 1e300]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=400)
def test_readers_of_both_yaml_versions_read_what_was_written(value: object) -> None:
    text = to_yaml(value)  # type: ignore[arg-type]
    assert yaml.safe_load(text) == value  # PyYAML reads 1.1
    assert YAML(typ="safe", pure=True).load(text) == value  # ruamel.yaml reads 1.2


def test_a_key_that_ends_a_line_is_quoted() -> None:
    assert yaml.safe_load(to_yaml({"a\n": 1})) == {"a\n": 1}


def test_documents_are_apart_and_what_has_no_place_is_refused() -> None:
    assert list(yaml.safe_load_all(documents([{"a": 1}, {"b": "on"}]))) == [{"a": 1}, {"b": "on"}]
    for wrong in (math.inf, math.nan, "\ud800"):
        with pytest.raises(ValueError, match="no place"):
            to_yaml(wrong)


@given(layers=st.integers(1, 96), wanted=st.floats(0.0, 1.0))
def test_stream_groups_stream_enough_and_no_group_would_do_with_fewer_layers(layers: int, wanted: float) -> None:
    need = wanted * layers
    groups = stream_groups(layers, need)
    if need <= 1e-6:
        assert groups is None
        return
    assert groups is not None and 1 <= groups.streamed <= groups.size
    assert groups.layers == groups.streamed * (layers // groups.size) >= need - 1e-6
    others = (n * (layers // size) for size in range(1, layers + 1) for n in range(1, size + 1))
    assert groups.layers == min(count for count in others if count >= need - 1e-6)


def test_layers_are_listed_in_runs() -> None:
    assert (listed((3, 4, 5)), listed((3, 5, 6)), listed((7,)), listed(())) == (
        "layers 3-5", "layers 3, 5-6", "layer 7", "outside the layers",
    )  # fmt: skip


def test_option_words() -> None:
    assert option_words("a", True) == ["--a"] and option_words("a", False) == option_words("a", None) == []
    assert option_words("a", {"b": 1}) == ["--a", '{"b": 1}'] and option_words("a", 2) == ["--a", "2"]
    serve = Serve(
        "mixed",
        ("vllm", "serve", "a b"),
        {"x": "it's"},
        per_node={"node-rank": OfNode(1), "start": OfNode(4), "master-addr": OfNode(None)},
    )
    shell = serve.shell().replace("\\\n", "")
    for name, value in (("$((NODE_RANK * 4))", "8"), ("$NODE_RANK", "2"), ("$LEADER_ADDRESS", "host")):
        shell = shell.replace(name, value)
    assert shlex.split(shell) == list(serve.argv(2, "host"))


def test_ascend_devices_are_left_to_their_plugin() -> None:
    assert [name for name in CASES if EXPORTER.applies(deployment(name)) is None] == VLLM


@pytest.mark.parametrize("name", VLLM)
def test_vllm_knows_every_word_and_its_config_file_says_the_same(name: str) -> None:
    here, options = deployment(name), load_options("vllm")
    exported = export_plan(here, "vllm", Values(model_path="org/model"), COMMAND)
    files = {file.name: file.content.decode() for file in exported.files}
    for pool in here.pools:
        serve = serve_command(here, pool, Values(model_path="org/model"), Notes())
        known, rest, faults = parse_words(options, serve.argv())
        assert not faults and rest == ["vllm", "serve", "org/model"]
        config = yaml.safe_load(files[f"{pool.phase}.yaml"])
        assert config.pop("model") == "org/model"
        words = [word for key, value in config.items() for word in option_words(key, value)]
        again, _, faults = parse_words(options, words)
        assert not faults and again == {key: value for key, value in known.items() if key not in serve.per_node}
        script = files[f"serve-{pool.phase}.sh"]
        assert script.startswith("#!/bin/sh\n") and here.fingerprint in script and COMMAND in script
        assert known["tensor-parallel-size"] == pool.tp and known.get("data-parallel-size", 1) == pool.attention_dp
        assert known["kv-cache-dtype"] == KV_DTYPES[pool.kv_dtype] and known["max-model-len"] == pool.longest_tokens


def test_what_vllm_cannot_say_is_listed() -> None:
    """The plan of V3 on four H800 nodes keeps a part of the decode cache and of the embedding in host memory."""
    below = {(part.kind, part.item) for pool in deployment("v3-h800").pools for part in pool.held if part.role != "device"}
    lost = " ".join(row.what for row in export_plan(deployment("v3-h800"), "vllm", Values(), COMMAND).not_carried)
    assert below and all(item in lost for _, item in below)


def test_engram_tables_in_host_memory_become_the_engines_own_option() -> None:
    here = deployment("v4.1-flash-gb300")
    for pool in here.pools:
        tables = [part for part in pool.held if part.item == "Engram table"]
        assert tables and all(part.role == "host" for part in tables)
        serve = serve_command(here, pool, Values(), Notes())
        assert serve.options["engram-config"] == {"cpu_offload": True}


@pytest.mark.parametrize("name", CASES)
def test_sglang_knows_every_word(name: str) -> None:
    here, options = deployment(name), load_options("sglang")
    values = Values(model_path="org/model", served_model_name="m", interface="mlx5_0")
    for pool in here.pools:
        serve = sglang.serve_command(here, pool, values, Notes())
        for node in range(pool.nodes):
            known, rest, faults = parse_words(options, serve.argv(node)[len(serve.program) :])
            assert not faults and not rest and known.get("node-rank", 0) == node
        assert known["tp-size"] == pool.tp * pool.attention_dp and known["tp-size"] % known.get("attn-dp-size", 1) == 0
        assert known.get("max-running-requests", 0) == pool.sequences
        assert ("SGLANG_ENABLE_DSV41_ENGRAM_HOST_TABLE" in serve.env) == (name == "v4.1-flash-gb300")
    script = export_plan(here, "sglang", values, COMMAND).files[0].content.decode()
    assert here.fingerprint in script and "--enable-dp-attention" not in script


def test_maps_of_experts_are_the_plans_own_in_every_form() -> None:
    here = skewed()
    (pool,) = here.pools
    assert pool.experts is not None and here.expert_layers == tuple(range(1, 6)) == tuple(pool.experts.layers)
    stated = np.array(pool.experts.physical_to_logical)
    files = {file.name: file.content for file in export_plan(here, "eplb", Values(), "planner export p --to eplb").files}
    data = json.loads(files["mixed-experts.json"])
    with np.load(io.BytesIO(files["mixed-experts.npz"])) as tensors:
        for name in ("layers", "phy2log", "log2phy", "logcnt"):
            assert tensors[name].tolist() == data[name]
    assert (np.array(data["phy2log"]) == stated).all() and data["slots_per_rank"] == 3 and data["ranks"] == 4
    for layer, expert in np.ndindex(5, 8):
        slots = [slot for slot in data["log2phy"][layer][expert] if slot >= 0]
        assert len(slots) == data["logcnt"][layer][expert] >= 1 and all(stated[layer][slot] == expert for slot in slots)
    files = {file.name: file.content for file in export_plan(here, "sglang", Values(), "planner export p --to sglang").files}
    rows = np.array(json.loads(files["mixed-experts.json"])["physical_to_logical_map"])
    assert rows.shape == (6, 12) and (rows[1:] == stated).all() and (rows[0] == np.arange(12) % 8).all()
    known, _, faults = parse_words(load_options("sglang"), sglang.serve_command(here, pool, Values(), Notes()).argv()[3:])
    assert not faults and known["ep-num-redundant-experts"] == 4 and known["init-expert-location"] == "mixed-experts.json"


@pytest.mark.parametrize(("ep", "copies", "spare"), [(24, 1, 32), (24, 0, 8), (16, 1, 16), (16, 0, 0)])
def test_spare_slots_make_every_rank_alike(ep: int, copies: int, spare: int) -> None:
    """256 experts on 24 ranks: 11 slots a rank leave 8 over before the first copy; engines refuse ranks with uneven slots."""
    here = deployment("v3-h800")
    pool = replace(here.pools[1], ep=ep, attention_dp=ep, devices=ep, redundant_experts=copies, experts=None)
    slots = expert_slots(here, pool)
    assert slots is not None and slots.physical_to_logical.shape[1] == 256 + spare and (256 + spare) % ep == 0
    assert sglang.serve_command(here, pool, Values(), Notes()).options.get("ep-num-redundant-experts", 0) == spare
    said = serve_command(here, pool, Values(), Notes()).options.get("eplb-config")
    assert said == ({"num_redundant_experts": spare} if copies else None)  # without copies vLLM has uneven ranks


def test_the_balancers_own_example_goes_there_and_back() -> None:
    """The output printed in the README of github.com/deepseek-ai/EPLB (MIT): 2 layers, 12 experts, 16 slots on 8 devices."""
    physical = np.array([[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1], [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]])
    places, counts = logical_to_physical(physical, 12)
    assert counts.sum(axis=1).tolist() == [16, 16] and places.shape == (2, 12, 2)
    back = np.full_like(physical, -1)
    for layer in range(2):
        for expert in range(12):
            here = [slot for slot in places[layer, expert] if slot >= 0]
            assert len(here) == counts[layer, expert] and here == sorted(here)
            back[layer, here] = expert
    assert (back == physical).all()


def test_a_wrong_word_is_caught() -> None:
    options = load_options("vllm")
    here = deployment("v3-h800")
    words = list(serve_command(here, here.pools[0], Values(), Notes()).argv())
    for wrong in (["--tensor-paralel-size", "8"], ["--kv-cache-dtype", "fp7"], ["--max-num-seqs", "many"],
                  ["--eplb-config", '{"bogus": 1}'], ["--engram-config.bogus", "1"], ["--kv-transfer-config", "{"]):  # fmt: skip
        assert len(parse_words(options, [*words, *wrong])[2]) == 1, wrong


def test_abbreviations_aliases_and_negations_are_read_as_argparse_reads_them() -> None:
    known, rest, faults = parse_words(
        load_options("vllm"), ["-tp", "8", "--disable-expert-parallel", "--max_model_len=4096", "x"]
    )
    assert known == {"tensor-parallel-size": 8, "enable-expert-parallel": False, "max-model-len": 4096}
    assert rest == ["x"] and not faults
    known, _, faults = parse_words(load_options("sglang"), ["--tp", "8", "--enable-dp-attention"])
    assert known["tp-size"] == 8 and [fault.reason for fault in faults] == ["is deprecated"]


def test_memory_fraction_leaves_what_is_others() -> None:
    for pool in deployment("v4-pro-gb200").pools:
        taken = memory_fraction(pool) * pool.device_memory_bytes
        assert pool.weight_bytes + pool.cache_bytes <= taken <= pool.device_memory_bytes - pool.outside_bytes


def test_deployment_agrees_with_the_plan_it_is_of() -> None:
    for name in CASES:
        plan, here = made(name), deployment(name)
        assert len(here.fingerprint) == 64
        for row, pool in zip(plan.pools, here.pools, strict=True):
            assert (row.phase, row.replicas, row.devices) == (pool.phase, pool.replicas, pool.replicas * pool.devices)
            assert pool.nodes * pool.devices_on_node >= pool.devices
            placed = {(part.tier, part.kind) for part in pool.held}
            assert {tier for tier, _ in placed} == {line.tier for line in row.placement}
            for part in pool.held:
                assert 0 < part.share <= 1 + 1e-12 and part.bytes_per_device > 0
            below = sum(part.bytes_per_device for part in pool.held if part.role != "device")
            stated = sum(line["bytes"] for line in row.memory["below"])
            assert below == pytest.approx(stated, rel=1e-6, abs=len(pool.held))


def test_the_command_writes_files_and_says_what_is_lost(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan, out, values = tmp_path / "plan.json", tmp_path / "serve", tmp_path / "site.toml"
    plan.write_text(made("v3-h800").to_json())
    values.write_text('schema = 1\nmodel_path = "deepseek-ai/DeepSeek-V3"\n')
    code, text, err = run("export", plan, "--to", "vllm", "-o", out, "--values", values)
    assert code == 0 and "not carried over" in err and "missing" not in err
    assert sorted(path.name for path in out.iterdir()) == sorted(Path(line).name for line in text.split())
    assert "--values site.toml" in (out / "serve-prefill.sh").read_text()
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    code, _, err = run("export", plan, "--to", "vllm", "-o", out, "--values", values)
    assert code == 2 and "--force" in err and err.count("\n") == 1
    code, text, _ = run("export", plan, "--to", "vllm", "-o", out, "--values", values, "--force", "--format", "json")
    rows = json.loads(text)
    assert code == 0 and {row["name"] for row in rows["files"]} == set(before)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_files_are_written_all_or_none(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The last file's name is a folder: no file of the export may stand there before that is found out."""
    plan, out = tmp_path / "plan.json", tmp_path / "serve"
    plan.write_text(made("v3-h800").to_json())
    (out / "decode.yaml").mkdir(parents=True)
    code, _, err = run("export", plan, "--to", "vllm", "-o", out, "--force")
    assert code == 2 and "decode.yaml" in err and [path.name for path in out.iterdir()] == ["decode.yaml"]
    (out / "decode.yaml").rmdir()
    (out / "decode.yaml").symlink_to(tmp_path / "nowhere")
    code, _, err = run("export", plan, "--to", "vllm", "-o", out)
    assert code == 2 and "--force" in err and [path.name for path in out.iterdir()] == ["decode.yaml"]


@pytest.mark.parametrize("target", ["vllm", "sglang", "trtllm", "lws", "kserve", "dynamo"])
def test_what_no_option_says_is_listed_for_every_engine(target: str) -> None:
    """Weights stored otherwise than the model comes, and requests longer than the mean."""
    load = small.workload()
    lengths = load.input_tokens.model_copy(update={"median": load.input_tokens.mean / 2})
    load = load.model_copy(update={"input_tokens": lengths})
    inputs = small.instance(small.llama(), small.node(4), 1, load, small.runtime(), weight_dtype="fp8")
    here = engine_deployment(solve(inputs))
    lost = [row.what for row in export_plan(here, target, Values(), COMMAND).not_carried]
    for pool in here.pools:
        assert f"{pool.phase} pool: weights of bf16 in fp8_block128" in lost
        assert f"{pool.phase} pool: requests of more than {pool.longest_tokens} tokens" in lost
    plain = engine_deployment(solve(small.instance(small.llama(), small.node(4), 1, small.workload(), small.runtime())))
    assert not any(
        " in fp8" in row.what or "requests of" in row.what for row in export_plan(plain, target, Values(), COMMAND).not_carried
    )


def test_device_formats_that_weights_are_converted_to_are_listed() -> None:
    lost = [row.what for row in export_plan(deployment("v3-cm384"), "vllm-ascend", Values(), COMMAND).not_carried]
    assert lost == [f"{phase} pool: weights of fp8_block128 in int8_channel" for phase in ("prefill", "decode")]


def test_vllm_gets_a_token_and_its_drafts_a_pass_for_each_sequence_beside_the_prompts() -> None:
    """It refuses --max-num-batched-tokens below --max-num-seqs, and running sequences take theirs before prompts."""
    here = deployment("v3-h800")
    pool = replace(here.pools[0], phase="mixed", sequences_per_rank=100, pp=3, chunk_tokens=128, mtp=0)
    notes = Notes()
    options = serve_command(here, pool, Values(), notes).options
    assert (options["max-num-seqs"], options["max-num-batched-tokens"]) == (300, 300)
    assert [row.instead for row in notes.lost if "128 prompt tokens" in row.what] == ["200"]
    for mtp in (0, 2):
        notes = Notes()
        options = serve_command(here, replace(pool, chunk_tokens=512, mtp=mtp), Values(), notes).options
        assert options["max-num-batched-tokens"] == 512 + 100 * (1 + mtp)
        assert not any("prompt tokens" in row.what for row in notes.lost)


def test_only_followers_are_told_where_their_ranks_start() -> None:
    """On the first node vLLM takes --data-parallel-start-rank for a server on every node, and then refuses headless ones
    (vllm/engine/arg_utils.py, v1/engine/utils.py)."""
    here = deployment("v3-h800")
    pool = replace(here.pools[-1], tp=2, pp=1, attention_dp=8, devices=16, devices_per_node=8)
    serve = serve_command(here, pool, Values(), Notes())
    first, second = (serve.argv(node, "h") for node in (0, 1))
    assert "--data-parallel-start-rank" not in first and second[: len(first)] == first
    assert second[len(first) :] == ("--data-parallel-start-rank", "4") and serve.options["data-parallel-size-local"] == 4
    script = node_script(serve, 2, "--headless").replace("exec vllm", "printf '%s\\0'")
    for node, extra in ((0, []), (1, ["--headless", "--data-parallel-start-rank", "4"])):
        env = {**os.environ, "NODE_RANK": str(node), "LEADER_ADDRESS": "h"}
        said = subprocess.run(
            ["sh", "-c", f"set -eu\n{script.replace('exec env', 'env')}"], env=env, capture_output=True, text=True
        )
        assert said.stdout.split("\0")[:-1] == [*first[1:], *extra], said.stderr


@pytest.mark.parametrize(("dp", "nodes", "starts"), [(2, 4, True), (4, 6, False)])
def test_a_rank_that_no_node_holds_has_whole_nodes(dp: int, nodes: int, starts: bool) -> None:
    """vLLM works out by --nnodes and --node-rank whose node it is, if they divide (vllm/config/parallel.py: nnodes_within_dp)."""
    here = deployment("v3-h800")
    pool = replace(here.pools[-1], tp=8 * nodes // dp, pp=1, attention_dp=dp, devices=8 * nodes, devices_per_node=8)
    notes = Notes()
    serve = serve_command(here, pool, Values(), notes)
    assert serve.options["nnodes"] == nodes and set(serve.per_node) == {"node-rank", "master-addr"}
    assert "data-parallel-size-local" not in serve.options
    assert any("data-parallel ranks on" in row.what for row in notes.lost) != starts


@pytest.mark.parametrize("target", ["vllm", "sglang", "trtllm"])
def test_instances_that_share_a_node_are_said(target: str) -> None:
    here = engine_deployment(solve(small.instance(small.llama(), small.node(4), 1, small.workload(), small.runtime())))
    for devices, replicas, shares in ((1, 4, True), (2, 2, True), (1, 1, False), (3, 2, False), (4, 3, False)):
        pool = replace(here.pools[0], tp=devices, attention_dp=1, pp=1, devices=devices, devices_per_node=4, replicas=replicas)
        pool = replace(pool, system=pool.system.model_copy(update={"vendor": "NVIDIA"}))
        made = export_plan(replace(here, pools=(pool,)), target, Values(), COMMAND)
        said = [note for note in made.notes if "CUDA_VISIBLE_DEVICES" in note and "--port" in note]
        assert len(said) == shares
        script = next(file.content.decode() for file in made.files if file.name.endswith(".sh"))
        assert script.endswith('"$@"\n')


def test_a_prefix_cache_in_host_memory_does_not_displace_the_connector_between_pools() -> None:
    """--kv-offloading-size replaces the connector (vllm/config/vllm.py: _post_init_kv_transfer_config)."""
    here = deployment("v3-h800")
    part = Held("prefix cache", "prefix", (), "host", "ddr", "host", "resident", 1.0, 2e9)
    pool = replace(here.pools[0], held=(*here.pools[0].held, part))
    notes = Notes()
    options = serve_command(here, pool, Values(), notes).options
    assert "kv-offloading-size" not in options and "kv-transfer-config" in options
    assert any("2 GB a device of the prefix cache in host" in row.what for row in notes.lost)
    alone, notes = replace(here, pools=(pool,)), Notes()
    options = serve_command(alone, pool, Values(), notes).options
    assert "kv-offloading-size" in options and not any("prefix cache" in row.what for row in notes.lost)


@pytest.mark.parametrize(("target", "script"), [("sglang", "launch-mixed.sh"), ("trtllm", "serve-mixed.sh")])
def test_scripts_find_the_files_beside_them_from_any_folder(target: str, script: str, tmp_path: Path) -> None:
    out, tools = tmp_path / "it's here", tmp_path / "tools"
    out.mkdir()
    tools.mkdir()
    for file in export_plan(skewed(), target, Values(), COMMAND).files:
        (out / file.name).write_bytes(file.content)
    for name in ("python3", "trtllm-serve"):
        (tools / name).write_text('#!/bin/sh\nfor word; do case $word in mixed*) cat "$word"; esac; done\n')
        (tools / name).chmod(0o755)
    env = {"PATH": f"{tools}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", str(out / script)], cwd="/", env=env, capture_output=True, text=True, timeout=60)
    named = "mixed-experts.json" if target == "sglang" else "mixed.yaml"
    assert (done.returncode, done.stderr, done.stdout) == (0, "", (out / named).read_text())


def test_names_do_not_leave_the_comment_that_they_stand_in() -> None:
    """A line break in a plan's model, or in its file's name, made the rest of it a command of the script."""
    named = replace(deployment("v3-h800"), plan=made("v3-h800").model_copy(update={"model": "x\ntouch z"}))
    for target in ("vllm", "sglang", "eplb"):
        for file in export_plan(named, target, Values(), "planner export 'plan\ntouch y.json'").files:
            lines = file.content.decode("latin-1").splitlines()
            assert not [line for line in lines if line.startswith("touch")], file.name


@pytest.mark.parametrize(
    ("text", "word"),
    [("schema = 2", "schema"), ('schema = 1\nimage = ""', "image"), ('schema = 1\nnamespace = "A B"', "namespace"),
     ('schema = 1\nmount_path = "models"', "mount_path"), ('schema = 1\nbogus = 1', "bogus"),
     ('schema = 1\n[pools.train]\nimage = "x"', "pools"), ('schema = 1\nimage = "a\\nb"', "image"), ("schema = ", "")],
)  # fmt: skip
def test_bad_values_are_one_line(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "values.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_values(path)
    assert word in str(error.value) and "\n" not in str(error.value)


def test_a_plan_that_was_changed_is_not_shipped(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = made("v3-h800").to_data()
    data["pools"][0]["configuration"]["tp"] *= 3
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(data))
    code, out, err = run("export", plan, "--to", "sglang", "-o", tmp_path / "serve")
    assert code == 4 and not out and err.count("\n") == 1 and not (tmp_path / "serve").exists()


def test_unknown_targets_are_refused(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    plan = tmp_path / "plan.json"
    plan.write_text(made("v3-h800").to_json())
    code, _, err = run("export", plan, "--to", "vlm")
    assert code == 2 and "vllm" in err and err.count("\n") == 1


def test_weights_streamed_from_one_stage_do_not_make_all_layers_stream() -> None:
    """A part of a stage's weights in host memory beside some of all layers' experts: as many bytes are streamed, no more."""
    here = deployment("v3-h800")
    pool = next(pool for pool in here.pools if pool.pp > 1)
    routed = next(part for part in pool.held if part.kind == "routed")
    total = sum(part.bytes_per_device for part in pool.held if part.kind == "routed")
    below = replace(routed, tier="host", tier_kind="ddr", role="host", mode="stream", share=0.15, bytes_per_device=0.15 * total)
    dense = replace(below, item="weights", kind="static", share=0.125, bytes_per_device=0.02 * total)
    notes, stage = Notes(), -(-here.model.layers // pool.pp)
    groups = streamed_experts(replace(pool, held=(*pool.held, below, dense)), here.model.layers, "vLLM", notes)
    assert (
        groups is not None and groups.size <= stage and 0.17 * stage <= groups.layers + 1e-9 and groups.layers <= 0.17 * stage + 2
    )
    assert [row.what for row in notes.lost] and "weights" in notes.lost[0].what
    assert streamed_experts(pool, here.model.layers, "vLLM", Notes()) is None
