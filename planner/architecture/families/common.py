"""What families share: field types of configurations, and builders of embedding, attention, MLP and head blocks."""

from __future__ import annotations

from math import gcd
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture.blocks import Block, Cache, Edge, FlopTerm, Read, Tensor, WeightGroup

Width = Annotated[int, Field(gt=0, le=2**24)]
Heads = Annotated[int, Field(gt=0, le=2**16)]
Layers = Annotated[int, Field(gt=0, le=10_000)]
Experts = Annotated[int, Field(gt=0, le=2**20)]
Vocabulary = Annotated[int, Field(gt=0, le=2**28)]
Context = Annotated[int, Field(gt=0, le=2**40)]

KEPT_WIDE = {"lm_head", "embed_tokens", "gate", "eh_proj"}
MHA_PAGE_TOKENS = 16  # vLLM CacheConfig.block_size, its default on CUDA


class Quantization(BaseModel):
    """The ``quantization_config`` of a configuration; only methods whose bytes are known exactly are read."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    quant_method: Literal["fp8"]
    weight_block_size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    modules_to_not_convert: list[str] | None = None

    @model_validator(mode="after")
    def _expressible(self) -> Quantization:
        if self.weight_block_size not in (None, [128, 128]):
            raise ValueError(f"weight_block_size {self.weight_block_size} is not supported, only [128, 128] is")
        for module in self.modules_to_not_convert or []:
            last = module.rpartition(".")[2]
            if last not in KEPT_WIDE and not last.endswith("norm"):
                raise ValueError(f"modules_to_not_convert: {module[:64]!r} cannot be kept apart")
        return self

    @property
    def format(self) -> str:
        return "fp8_block128" if self.weight_block_size else "fp8_tensor"


class FamilyConfig(BaseModel):
    """Fields of a Hugging Face ``config.json`` that every family reads; others are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    hidden_size: Width
    vocab_size: Vocabulary
    num_hidden_layers: Layers
    max_position_embeddings: Context
    tie_word_embeddings: bool = False
    torch_dtype: Literal["bfloat16", "float16", "float32"] | None = None
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    quantization_config: Quantization | None = None

    @model_validator(mode="after")
    def _one_dtype(self) -> FamilyConfig:
        if self.dtype and self.torch_dtype and self.dtype != self.torch_dtype:
            raise ValueError(f"dtype: {self.dtype} contradicts torch_dtype {self.torch_dtype}")
        return self

    @property
    def wide(self) -> str:
        """The format of what is never quantised: embedding, head, norms, router. BF16 where none is named."""
        return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[self.dtype or self.torch_dtype or "bfloat16"]

    @property
    def linear(self) -> str:
        """The format of the linear layers."""
        return self.quantization_config.format if self.quantization_config else self.wide


def must_divide(name: str, value: int, by_name: str, by: int) -> None:
    """Raise the ``ValueError`` of a configuration whose ``value`` does not divide by ``by``."""
    if value % by:
        raise ValueError(f"{name}: {value} does not divide by {by_name} {by}")


def columns_axis(width: int) -> int:
    """Into how many parts a side of an MLP can be cut: whole tiles of 128, as block-scaled weights need."""
    return width // gcd(width, 128)


def vocabulary_axis(rows: int) -> int:
    """Runtimes pad a vocabulary to whole 64s before they cut it (vLLM vocab_parallel_embedding.py)."""
    return -(-rows // 64) * 64


def embedding_block(config: FamilyConfig) -> Block:
    """The lookup before layer 0; a tied table is the head's, which reads all of it."""
    return Block(
        id="embedding",
        kind="embedding",
        first_layer=-1,
        layers=1,
        weights=(embedding_group(config, shares="head/lm_head" if config.tie_word_embeddings else ""),),
    )


def embedding_group(config: FamilyConfig, shares: str) -> WeightGroup:
    return WeightGroup(
        name="table",
        tensors=(Tensor(name="embed_tokens", shape=(config.vocab_size, config.hidden_size), format=config.wide),),
        access="lookup",
        address="token",
        tensor_axis=vocabulary_axis(config.vocab_size),
        rows=config.vocab_size,
        rows_per_token=1,
        counted_active=False,
        shares=shares,
    )


def head_block(config: FamilyConfig, id: str = "head", *, layers: int = 1, draft: bool = False, shares: str = "") -> Block:
    """Final norm and output projection."""
    return Block(
        id=id,
        kind="head",
        first_layer=config.num_hidden_layers,
        layers=layers,
        draft=draft,
        weights=(
            WeightGroup(name="norm", tensors=(vector("norm", config.hidden_size, config.wide),)),
            WeightGroup(
                name="lm_head",
                tensors=(Tensor(name="lm_head", shape=(config.vocab_size, config.hidden_size), format=config.wide),),
                tensor_axis=vocabulary_axis(config.vocab_size),
                shares=shares,
            ),
        ),
    )


def vector(name: str, size: int, format: str) -> Tensor:
    return Tensor(name=name, shape=(size,), format=format)


def swiglu(hidden: int, intermediate: int, format: str) -> tuple[Tensor, ...]:
    """Gate, up and down projection of a gated MLP."""
    return (
        Tensor(name="gate_proj", shape=(intermediate, hidden), format=format),
        Tensor(name="up_proj", shape=(intermediate, hidden), format=format),
        Tensor(name="down_proj", shape=(hidden, intermediate), format=format),
    )


def grouped_query_attention(
    id: str,
    *,
    first_layer: int,
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    wide: str,
    linear: str,
    bias: bool,
) -> Block:
    """Multi-head (kv_heads = heads), grouped-query or multi-query (kv_heads = 1) attention with its input norm.

    Per query head and pair: head_dim MACs for the score and head_dim for the value, so 4 x heads x head_dim FLOPs.
    """

    def biases(*sizes: tuple[str, int]) -> tuple[Tensor, ...]:
        return tuple(vector(name, size, wide) for name, size in sizes) if bias else ()

    entry = 2 * kv_heads * head_dim
    return Block(
        id=id,
        kind="attention",
        first_layer=first_layer,
        layers=layers,
        weights=(
            WeightGroup(name="norm", tensors=(vector("input_layernorm", hidden, wide), *biases(("o_proj.bias", hidden)))),
            WeightGroup(
                name="queries",
                tensors=(
                    Tensor(name="q_proj", shape=(heads * head_dim, hidden), format=linear),
                    Tensor(name="o_proj", shape=(hidden, heads * head_dim), format=linear),
                    *biases(("q_proj.bias", heads * head_dim)),
                ),
                tensor_axis=heads,
            ),
            WeightGroup(
                name="keys_values",
                tensors=(
                    Tensor(name="k_proj", shape=(kv_heads * head_dim, hidden), format=linear),
                    Tensor(name="v_proj", shape=(kv_heads * head_dim, hidden), format=linear),
                    *biases(("k_proj.bias", kv_heads * head_dim), ("v_proj.bias", kv_heads * head_dim)),
                ),
                tensor_axis=kv_heads,
            ),
        ),
        caches=(
            Cache(
                name="kv",
                elements=entry,
                layouts={"bf16": 2 * entry, "fp8": entry},
                tensor_axis=kv_heads,
                page_tokens=MHA_PAGE_TOKENS,
            ),
        ),
        reads=(Read(cache="kv", block=id),),
        flops=(FlopTerm(name="attention", per_pair=4 * heads * head_dim, tensor_axis=heads),),
    )


def chain(blocks: list[Block], hidden: int, dtype: str) -> list[Edge]:
    """Residual edges through the blocks in order."""
    return [
        Edge(source=a.id, target=b.id, kind="residual", elements_per_token=hidden, dtype=dtype)
        for a, b in zip(blocks, blocks[1:], strict=False)
    ]
