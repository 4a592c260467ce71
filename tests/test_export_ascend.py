"""vllm-ascend's files: its map of experts layer by layer, and keys and names that the plugin itself declares."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from exported import deployment, skewed

from planner.errors import InputError
from planner.export import EngineDeployment, Values, export_plan, vllm_ascend
from planner.export.common import Notes
from planner.export.expert_map import expert_slots
from planner.export.options import config_faults, load_fields, load_options, parse_words
from planner.export.serve import option_words

COMMAND = "planner export plan.json --to vllm-ascend"
VALUES = Values(model_path="org/model")


def on_ascend() -> EngineDeployment:
    """The small plan with a chosen map of experts, as if its devices were Huawei's."""
    here = skewed()
    system = here.pools[0].system.model_copy(update={"vendor": "Huawei"})
    return replace(here, pools=tuple(replace(pool, system=system) for pool in here.pools))


def test_only_huaweis_devices_are_served() -> None:
    with pytest.raises(InputError, match="Huawei"):
        export_plan(deployment("v3-h800"), "vllm-ascend", VALUES, COMMAND)


@pytest.mark.parametrize("name", ["v3-cm384", "skewed"])
def test_words_are_vllms_and_keys_are_the_plugins(name: str) -> None:
    here = on_ascend() if name == "skewed" else deployment(name)
    fields, files = load_fields("vllm-ascend"), export_plan(here, "vllm-ascend", VALUES, COMMAND).files
    texts = {file.name: file.content.decode() for file in files}
    for pool in here.pools:
        serve = vllm_ascend.serve_command(here, pool, VALUES, Notes())
        for node in range(pool.nodes):
            known, rest, faults = parse_words(load_options("vllm"), serve.argv(node))
            assert not faults and rest == ["vllm", "serve", "org/model"]
        assert not config_faults(fields, json.loads(known.get("additional-config", "{}")))
        transfer = known.get("kv-transfer-config")
        assert (transfer is not None) == here.disaggregated
        assert transfer is None or transfer["kv_connector"] in fields.connectors
        config = yaml.safe_load(texts[f"{pool.phase}.yaml"])
        words = [word for key, value in config.items() if key != "model" for word in option_words(key, value)]
        again, _, faults = parse_words(load_options("vllm"), words)
        assert not faults and again == {key: value for key, value in known.items() if key not in serve.per_node}
        script = texts[f"serve-{pool.phase}.sh"]
        assert here.fingerprint in script and COMMAND in script and "--enable-eplb" not in script
    assert ("mixed-experts.json" in texts) == (name == "skewed")


def test_the_map_counts_moe_layers_from_0_and_gives_each_device_its_experts() -> None:
    """The first of the model's six layers is dense: its MoE layers 1 to 5 are the plugin's 0 to 4."""
    here = on_ascend()
    (pool,) = here.pools
    assert pool.experts is not None and pool.experts.layers == [1, 2, 3, 4, 5]
    files = {file.name: file.content for file in export_plan(here, "vllm-ascend", VALUES, COMMAND).files}
    data = json.loads(files["mixed-experts.json"])
    assert data["moe_layer_count"] == 5 and [layer["layer_id"] for layer in data["layer_list"]] == [0, 1, 2, 3, 4]
    stated = np.array(pool.experts.physical_to_logical).reshape(5, 4, 3)
    for layer, slots in zip(data["layer_list"], stated.tolist(), strict=True):
        assert layer["device_count"] == 4 and [device["device_id"] for device in layer["device_list"]] == [0, 1, 2, 3]
        assert [device["device_expert"] for device in layer["device_list"]] == slots
    config = vllm_ascend.serve_command(here, pool, VALUES, Notes()).options["additional-config"]
    assert config == {"eplb_config": {"expert_map_path": "mixed-experts.json", "num_redundant_experts": 4}}


def test_deepseek_v3s_58_moe_layers_on_64_devices() -> None:
    here = deployment("v3-cm384")
    slots = expert_slots(here, here.pools[-1])
    assert slots is not None and slots.layers == tuple(range(3, 61))
    data = json.loads(vllm_ascend.map_file(slots))
    assert data["moe_layer_count"] == 58 and data["layer_list"][57]["layer_id"] == 57
    assert data["layer_list"][0]["device_list"][63] == {"device_id": 63, "device_expert": [252, 253, 254, 255]}


@pytest.mark.parametrize(
    ("change", "where"),
    [({"eplb": {}}, "eplb"), ({"eplb_config": {"expert_map": "x.json"}}, "eplb_config.expert_map"),
     ({"eplb_config": {"num_redundant_experts": "4"}}, "eplb_config.num_redundant_experts"),
     ({"eplb_config": {"eplb_policy_type": 4}}, "eplb_config.eplb_policy_type"),
     ({"eplb_config": {"eplb_heat_collection_stage": "both"}}, "eplb_config.eplb_heat_collection_stage")],
)  # fmt: skip
def test_what_the_plugin_would_refuse_is_caught(change: dict[str, object], where: str) -> None:
    (fault,) = config_faults(load_fields("vllm-ascend"), change)
    assert fault.word == where
