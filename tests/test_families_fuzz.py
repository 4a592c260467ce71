"""Ten thousand damaged configurations of the families beside llama and deepseek_v3: a model or one line, and no hang."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from planner.architecture import Model, list_models, model_from_config
from planner.errors import InputError

CASES = 10_000
FAMILIES = (
    "gpt_oss",
    "minimax_m2",
    "minimax_m3",
    "mistral",
    "mixtral",
    "nemotron_h",
    "opt",
    "qwen2",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_moe",
)
BASES = {entry.family: {"model_type": entry.family, **entry.config} for entry in list_models() if entry.family in FAMILIES}

JUNK: list[Any] = [
    None, True, False, 0, 1, 2, 3, 7, 8, 64, 127, 128, 255, 4096, -1, -(2**40), 2**24, 2**31, 2**63 - 1, 2**64, 10**30,
    0.0, 0.5, 1e308, 128.0, "", "128", "M", "M*E-", "bfloat16", "float32", "☃", "a\nb", "\x1b[31m", "x" * 500,
    [], [0], [1] * 60, ["full_attention"] * 36, ["linear_attention"] * 60, ["mamba"], [[[[]]]], {}, {"text_config": {}},
    {"quant_method": "fp8"}, {"quant_method": "mxfp4"}, {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    {"quant_method": "fp8", "weight_block_size": [128, 128]}, {"sparse_attention_freq": [1]},
]  # fmt: skip


def mutate(rng: random.Random, base: dict[str, Any]) -> dict[str, Any]:
    config = dict(base)
    for _ in range(rng.randint(1, 4)):
        key = rng.choice(sorted(set(config) - {"model_type"}) or ["hidden_size"])
        match rng.randrange(8):
            case 0:
                config.pop(key)
            case 1:
                config[
                    rng.choice(["head_dim", "dtype", "quantization_config", "layer_types", "sliding_window", "text_config"])
                ] = rng.choice(JUNK)
            case 2:
                config[key] = config[rng.choice(sorted(config))]
            case 3 | 4 | 5 if isinstance(config[key], int):
                config[key] = config[key] * rng.choice([2, 3, 10, 1000]) // rng.choice([1, 2, 5, 7])
            case 6 if isinstance(config[key], list | str) and config[key]:
                config[key] = config[key][: rng.randrange(len(config[key]) + 1)]
            case _:
                config[key] = rng.choice(JUNK)
    if rng.random() < 0.1:
        config = {"model_type": config["model_type"], "text_config": config}
    return config


@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_configs(family: str) -> None:
    rng = random.Random(f"families {family}")
    answered, slowest = 0, 0.0
    cases = -(-CASES // len(FAMILIES))
    for _ in range(cases):
        config = mutate(rng, BASES[family])
        start = time.perf_counter()
        try:
            model = model_from_config(config, "config.json", "fuzzed")
        except InputError as error:
            text = str(error)
            assert "\n" not in text and "\x1b" not in text and len(text) < 1000
            continue
        finally:
            slowest = max(slowest, time.perf_counter() - start)
        answered += 1
        assert all(isinstance(count, int) and count >= 0 for count in model.parameters().values())
        assert model.parameters()["total"] > 0
        assert model.weight_bytes(draft=True) >= model.weight_bytes() > 0
        layout = next(iter(model.layouts()), "calculator")
        assert model.cache_bytes(1000, layout) >= model.read_bytes(1000, layout) >= 0
        assert sum(len(block.layer_ids) for block in model.blocks) == sum(block.layers for block in model.blocks)
        if answered % 50 == 0:
            assert Model.model_validate(model.model_dump(mode="json"), context={"si": True}) == model
    assert cases * 0.03 < answered < cases * 0.97
    assert slowest < 5
