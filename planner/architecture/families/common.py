"""What families share: field types of configurations, and builders of embedding, attention, MLP and head blocks."""

from __future__ import annotations

from math import gcd
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture.blocks import Block, Edge
from planner.architecture.parts import Tensor, WeightGroup

Width = Annotated[int, Field(gt=0, le=2**24)]
Heads = Annotated[int, Field(gt=0, le=2**16)]
Layers = Annotated[int, Field(gt=0, le=10_000)]
Experts = Annotated[int, Field(gt=0, le=2**20)]
Vocabulary = Annotated[int, Field(gt=0, le=2**28)]
Context = Annotated[int, Field(gt=0, le=2**40)]

KEPT_WIDE = {"lm_head", "embed_tokens", "gate", "router", "shared_expert_gate", "e_score_correction_bias", "eh_proj"}
MHA_PAGE_TOKENS = 16  # vLLM CacheConfig.block_size, its default on CUDA
MODELOPT = {"FP8": "fp8_tensor", "NVFP4": "nvfp4"}


class CompressedWeights(BaseModel):
    """Weights of a ``compressed-tensors`` group: 4-bit integers or floats with a scale per 32."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    num_bits: Literal[4]
    type: Literal["int", "float"]
    group_size: Literal[32]
    strategy: Literal["group"]


class CompressedGroup(BaseModel):
    """One of ``config_groups``."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    weights: CompressedWeights


class Quantization(BaseModel):
    """The ``quantization_config`` of a configuration; only methods whose bytes are known exactly are read.

    ``fp8``: the linear layers, by tile or by matrix. ``modelopt``: NVIDIA Model Optimizer with one algorithm for all linear
    layers (what its ``hf_quant_config.json`` says). ``mxfp4``: the routed experts and nothing else (openai/gpt-oss).
    ``compressed-tensors``: 4-bit groups of 32 where attention, shared experts, dense MLPs and head are left out (Kimi).
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    quant_method: Literal["fp8", "modelopt", "mxfp4", "compressed-tensors"]
    weight_block_size: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    quant_algo: Literal["FP8", "NVFP4"] | None = None
    modules_to_not_convert: list[str] | None = None
    ignore: list[str] | None = None
    config_groups: Annotated[dict[str, CompressedGroup], Field(max_length=1)] | None = None

    @model_validator(mode="after")
    def _expressible(self) -> Quantization:
        if self.quant_method == "compressed-tensors":
            if not self.config_groups:
                raise ValueError("config_groups: is missing")
            for kept in ("self_attn", "shared_experts", "lm_head", "mlp"):
                if not any(kept in module for module in self.ignore or []):
                    raise ValueError(f"ignore: lacks {kept}; only routed experts can be quantised by compressed-tensors")
            return self
        if self.weight_block_size not in (None, [128, 128], [32, 32]):
            raise ValueError(f"weight_block_size {self.weight_block_size} is not supported, only [128, 128] and [32, 32] are")
        if self.quant_method == "modelopt" and self.quant_algo is None:
            raise ValueError("quant_algo: is missing")
        for module in [*(self.modules_to_not_convert or []), *(self.ignore or [])]:
            last = module.rpartition(".")[2].rstrip("*")
            whole_layer = self.quant_method == "modelopt" and last.isdecimal()
            apart = whole_layer or (last == "self_attn" and (self.experts_only or self.quant_method == "modelopt"))
            if last not in KEPT_WIDE and not last.endswith("norm") and not apart:
                raise ValueError(f"modules_to_not_convert: {module[:64]!r} cannot be kept apart")
        return self

    @property
    def attention_apart(self) -> bool:
        """Whether Model Optimizer left attention as it was."""
        return self.quant_method == "modelopt" and any(module.rstrip("*").endswith("self_attn") for module in self.ignore or [])

    @property
    def layers_apart(self) -> frozenset[int]:
        """Layers that Model Optimizer left out whole."""
        ends = [module.rstrip("*").rpartition(".")[2] for module in self.ignore or []]
        return frozenset(int(end[:6]) for end in ends if end.isdecimal())

    @property
    def experts_only(self) -> bool:
        """Whether only routed experts are quantised."""
        return self.quant_method in ("mxfp4", "compressed-tensors")

    @property
    def format(self) -> str:
        if self.config_groups and self.quant_method == "compressed-tensors":
            (group,) = self.config_groups.values()
            return "int4_g32" if group.weights.type == "int" else "mxfp4"
        if self.quant_method == "mxfp4":
            return "mxfp4"
        if self.quant_method == "modelopt":
            return MODELOPT[self.quant_algo or "FP8"]
        return {None: "fp8_tensor", 128: "fp8_block128", 32: "fp8_block32"}[
            self.weight_block_size[0] if self.weight_block_size else None
        ]


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
    experts_apart: ClassVar[bool] = False
    """Whether the family's routed experts may have a format of their own."""
    attention_left: ClassVar[bool] = False
    """Whether the family's attention, and draft layers, may be left unquantised."""

    @model_validator(mode="after")
    def _one_dtype(self) -> FamilyConfig:
        if self.quantization_config and self.quantization_config.experts_only and not self.experts_apart:
            raise ValueError(f"quantization_config.quant_method: {self.quantization_config.quant_method} is not known here")
        if self.quantization_config and not self.attention_left:
            if self.quantization_config.attention_apart or self.quantization_config.layers_apart:
                raise ValueError("quantization_config.ignore: attention and whole layers cannot be kept apart here")
        if self.dtype and self.torch_dtype and self.dtype != self.torch_dtype:
            raise ValueError(f"dtype: {self.dtype} contradicts torch_dtype {self.torch_dtype}")
        return self

    @property
    def wide(self) -> str:
        """The format of what is never quantised: embedding, head, norms, router. BF16 where none is named."""
        return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[self.dtype or self.torch_dtype or "bfloat16"]

    @property
    def linear(self) -> str:
        """The format of the linear layers that are not routed experts."""
        return self.wide if self.quantization_config is None or self.quantization_config.experts_only else self.expert

    @property
    def expert(self) -> str:
        """The format of routed experts."""
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


def chain(blocks: list[Block], hidden: int, dtype: str) -> list[Edge]:
    """Residual edges through the blocks in order."""
    return [
        Edge(source=a.id, target=b.id, kind="residual", elements_per_token=hidden, dtype=dtype)
        for a, b in zip(blocks, blocks[1:], strict=False)
    ]
