"""Hostile and damaged configurations: a model or an ``InputError`` of one line, never anything else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.architecture import Model, find_model, list_models, load_model, model_from_config
from planner.errors import InputError

CASES = 10_000

BASES = {entry.id: {"model_type": entry.family, **entry.config} for entry in list_models()}
LLAMA, V3 = BASES["llama-3.1-70b"], BASES["deepseek-v3"]
SMALL_LLAMA: dict[str, Any] = LLAMA | {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "vocab_size": 1000}

JUNK: list[Any] = [
    None, True, False, 0, 1, 2, 3, 7, 8, 64, 127, 128, 255, 4096, -1, -(2**40), 2**24, 2**31, 2**63 - 1, 2**64, 10**30,
    0.0, -0.0, 0.5, 1e308, 128.0, "", "128", "llama", "deepseek_v3", "bfloat16", "☃", "a\nb", "\x1b[31m", "x" * 500,
    [], [1], [128, 128], [128, 0], [[[[]]]], {}, {"quant_method": "fp8"}, {"quant_method": "awq"}, {"a": {"b": {}}},
    {"quant_method": "fp8", "weight_block_size": [128, 128]}, {"quant_method": "fp8", "modules_to_not_convert": ["a.b", "gate"]},
]  # fmt: skip


def answer_or_input_error(load: Callable[[], Model]) -> Model | None:
    try:
        model = load()
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 1000
        assert "\x1b" not in str(error)
        return None
    assert all(isinstance(count, int) and count >= 0 for count in model.parameters().values())
    assert model.parameters()["total"] > 0
    assert model.weight_bytes(draft=True) >= model.weight_bytes() > 0
    assert model.cache_bytes(1000, "bf16") >= model.read_bytes(1000, "bf16") > 0
    return model


def mutate(rng: random.Random) -> dict[str, Any]:
    config = dict(rng.choice([LLAMA, SMALL_LLAMA, V3]))
    for _ in range(rng.randint(1, 4)):
        key = rng.choice(sorted(config) or ["hidden_size"])
        match rng.randrange(8):
            case 0:
                config.pop(key, None)
            case 1:
                config[rng.choice(["head_dim", "dtype", "quantization_config", "q_lora_rank", "mlp_bias", "x"])] = rng.choice(
                    JUNK
                )
            case 2 | 3:
                other = rng.choice(sorted(config))
                config[key] = config[other]
            case 4 | 5 if isinstance(config[key], int):
                config[key] = config[key] * rng.choice([2, 3, 10, 1000]) // rng.choice([1, 2, 5, 7])
            case _:
                config[key] = rng.choice(JUNK)
    return config


def test_ten_thousand_damaged_configs(tmp_path: Path) -> None:
    rng = random.Random(20_260_901)
    file = tmp_path / "config.json"
    answered = 0
    for number in range(CASES):
        config = mutate(rng)
        if number % 4 == 0:
            data = json.dumps(config).encode()
            cut = rng.randrange(len(data))
            junk = rng.choice([b"", b"\0", b"\xff", b"]", b"}", b"9", b'"', b"{", rng.randbytes(3)])
            file.write_bytes(data[:cut] + junk + data[cut + rng.randrange(3) :])
            model = answer_or_input_error(lambda: load_model(file))
        else:
            model = answer_or_input_error(partial(model_from_config, config, "config.json", "fuzzed"))
        if model is not None:
            answered += 1
            if answered % 50 == 0:
                assert Model.model_validate(model.model_dump(mode="json"), context={"si": True}) == model
    assert CASES * 0.05 < answered < CASES * 0.95


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(V3)), inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=JSON, kind=st.sampled_from(["llama", "deepseek_v3", "", "gpt"]))
def test_any_json(tmp_path: Path, value: Any, kind: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(value | {"model_type": kind} if isinstance(value, dict) else value))
    answer_or_input_error(lambda: load_model(file))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(max_size=40))
def test_any_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        load_model(f"{tmp_path}/nothing/{name}")
    if find_model(name) is None and not name.startswith(("/", "~", ".")):
        no_hub = mock.patch.dict(sys.modules, {"huggingface_hub": None})
        with pytest.raises(InputError), contextlib.chdir(tmp_path), no_hub:
            load_model(name)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    heads=st.sampled_from([1, 2, 4, 8, 16]),
    group=st.sampled_from([1, 2, 4]),
    head_dim=st.integers(1, 64),
    layers=st.integers(1, 200),
    inner=st.integers(1, 5000),
    vocab=st.integers(1, 5000),
    tied=st.booleans(),
)
def test_law5_any_llama_by_formula(
    tmp_path: Path, heads: int, group: int, head_dim: int, layers: int, inner: int, vocab: int, tied: bool
) -> None:
    hidden, kv_heads = heads * head_dim, max(1, heads // group)
    config = SMALL_LLAMA | {
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    model = load_model(file)
    layer = 2 * hidden * hidden + 2 * hidden * kv_heads * head_dim + 3 * hidden * inner + 2 * hidden
    assert model.parameters()["total"] == layers * layer + hidden + vocab * hidden * (1 if tied else 2)
    assert model.weight_bytes() == 2 * model.parameters()["total"]
    assert model.kv_bytes_per_token("bf16") == layers * 4 * kv_heads * head_dim
    for block in model.blocks:
        for weights in block.weights if block.kind in ("attention", "mlp") else ():
            for tensor in weights.tensors:
                assert any(side % weights.tensor_axis == 0 for side in tensor.shape)


def write(text: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "make",
    [
        write(""),
        write("null"),
        write("[1, 2]"),
        write('"llama"'),
        write("{"),
        write("[" * 100_000),
        write('{"a":' * 5_000 + "1" + "}" * 5_000),
        write("9" * 5_000),
        write('{"model_type": "llama", "hidden_size": ' + "9" * 4_000 + "}"),
        write('{"model_type": "llama", "hidden_size": 1e999}'),
        write('{"model_type": "llama", "hidden_size": NaN}'),
        write('{"model_type": "llama", "model_type": "llama"}'),
        write('{"model_type": "' + "l" * 100_000 + '"}'),
        write(json.dumps(LLAMA | {"pad": "x" * 2**20})),
        write(json.dumps(LLAMA).encode("utf-16")),
        write(b"\x80\x81"),
        write("\0" * 100),
        write(b"PK\x03\x04 not a model"),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: os.mkfifo(path),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "config.json")
    for name in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(InputError):
            load_model(name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_model(tmp_path)
