"""``planner kv``: the contract's JSON, its agreement with the model, tables and faults."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from planner.architecture import list_models, load_model
from planner.cli.kv_command import command, kv_of
from planner.cli.schema_command import schema_of
from planner.errors import InputError

KEYS = {"context", "layout", "bytes_held", "bytes_per_token", "bytes_read_per_step", "fixed_bytes", "caches"}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def answer(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    jsonschema.validate(data, schema_of("kv"))
    assert data.keys() >= KEYS
    return dict(data)


def test_a_dense_model_by_hand() -> None:
    data = answer("llama-3.1-70b", "--context", "4096")
    entry = 2 * 8 * 128 * 2
    assert (data["context"], data["layout"], data["fixed_bytes"]) == (4096, "bf16", 0)
    assert data["bytes_per_token"] == 80 * entry
    assert data["bytes_held"] == data["bytes_read_per_step"] == 4096 * 80 * entry
    (cache,) = data["caches"]
    assert (cache["name"], cache["layers"], cache["entries"], cache["tensor_axis"]) == ("attention/kv", 80, 4096, 8)
    assert data["flops_per_token"]["attention"] == 4 * 64 * 128 * 80 * 4096
    assert data["flops_per_token"]["linear"] == 2 * load_model("llama-3.1-70b").parameters()["active"]


@pytest.mark.parametrize("name", [entry.id for entry in list_models()])
@pytest.mark.parametrize("draft", [False, True])
def test_the_caches_add_up(name: str, draft: bool) -> None:
    model = load_model(name)
    for layout in (*model.layouts(), "calculator"):
        for tokens in (1, 1000, 200_001):
            data = kv_of(model, tokens, layout, draft)
            for key, caches in (("bytes_held", "bytes_held"), ("fixed_bytes", "fixed_bytes")):
                assert data[key] == sum(cache[caches] for cache in data["caches"])
            assert data["bytes_read_per_step"] == model.read_bytes(tokens, layout, draft=draft)
            assert sum(cache["bytes_read_per_step"] for cache in data["caches"]) == data["bytes_read_per_step"]


def test_the_published_million_tokens() -> None:
    """kvcache-ai/kvcache-blog calculator: 89.645 GiB."""
    data = answer("qwen3-235b-a22b", "--context", "1000000", "--layout", "calculator")
    assert round(data["bytes_held"] / 2**30, 3) == 89.645


def test_context_defaults_to_what_the_model_allows() -> None:
    assert answer("gpt-oss-120b")["context"] == 131_072


def test_the_dtype_names_a_layout() -> None:
    assert answer("deepseek-v3", "--kv-dtype", "fp8", "--context", "1k")["layout"] == "fp8_ds_mla"
    assert answer("qwen3-8b", "--kv-dtype", "fp8", "--context", "1k")["layout"] == "fp8"


def test_the_draft_module_is_counted_if_asked() -> None:
    without, with_draft = (answer("deepseek-v3", "--context", "64", *extra) for extra in ((), ("--draft",)))
    assert with_draft["bytes_held"] - without["bytes_held"] == 64 * 1152


def test_states_are_fixed() -> None:
    data = answer("qwen3.5-397b-a17b", "--context", "1000")
    assert data["fixed_bytes"] == 192_061_440
    assert {cache["role"] for cache in data["caches"]} == {"kv", "state"}
    assert answer("qwen3.5-397b-a17b", "--context", "1000", "--layout", "calculator")["fixed_bytes"] == 0


def test_the_table_names_every_cache() -> None:
    result = run("gpt-oss-120b", "--context", "131072")
    assert result.exit_code == 0
    for words in ("sliding.attention/kv", "full.attention/kv", "held", "growth", "read a step", "FLOPs a token"):
        assert words in result.stdout
    assert "planner show model gpt-oss-120b" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("qwen3-9b",), "no model 'qwen3-9b'"),
        (("qwen3-8b", "--layout", "fp9"), "no layout 'fp9'; did you mean fp8"),
        (("qwen3-8b", "--kv-dtype", "int3"), "unknown dtype 'int3'"),
        (("qwen3-8b", "--context", "1.5"), "1.5 is no number of tokens"),
    ],
)
def test_faults_are_one_line(arguments: tuple[str, ...], words: str) -> None:
    error = run(*arguments).exception
    assert isinstance(error, InputError)
    assert words in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "arguments",
    [("qwen3-8b", "--layout", "fp8", "--kv-dtype", "fp8"), ("qwen3-8b", "--context", "-3"), ("qwen3-8b", "--context", "x")],
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
