"""``model_type`` llama, mistral: dense, grouped-query attention (multi-head and multi-query as its ends), gated MLP.

Field meanings and defaults: huggingface/transformers ``models/llama/configuration_llama.py`` and
``models/mistral/configuration_mistral.py``. ``sliding_window`` bounds every layer of a mistral, or with
``layer_types`` those it names.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model
from planner.architecture.families import Family
from planner.architecture.families.common import (
    FamilyConfig,
    Heads,
    Width,
    columns_axis,
    must_divide,
    swiglu,
    vector,
)
from planner.architecture.families.grouped import Place, attention
from planner.architecture.families.layers import model_of, stacked
from planner.architecture.parts import WeightGroup

LayerType = Literal["sliding_attention", "full_attention"]


class GroupedConfig(FamilyConfig):
    """A configuration with grouped-query attention, some layers of which may see a window only."""

    num_attention_heads: Heads
    num_key_value_heads: Heads | None = None
    head_dim: Width | None = None
    attention_bias: bool = False
    sliding_window: Width | None = None
    layer_types: Annotated[list[LayerType], Field(max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _heads(self) -> GroupedConfig:
        must_divide("num_attention_heads", self.num_attention_heads, "num_key_value_heads", self.kv_heads)
        if self.head_dim is None:
            must_divide("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        if self.layer_types is not None:
            if len(self.layer_types) != self.num_hidden_layers:
                raise ValueError(
                    f"layer_types: names {len(self.layer_types)} layers, num_hidden_layers says {self.num_hidden_layers}"
                )
            if "sliding_attention" in self.layer_types and self.sliding_window is None:
                raise ValueError("sliding_window: is missing, layer_types has sliding_attention")
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def width_of_head(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def windows(self) -> list[int | None]:
        """The window of each layer, ``None`` where it sees all."""
        if self.layer_types is not None:
            return [self.sliding_window if kind == "sliding_attention" else None for kind in self.layer_types]
        return [None] * self.num_hidden_layers


def reach(window: int | None) -> str:
    """The kind of a layer by its window."""
    return "full" if window is None else "sliding"


class LlamaConfig(GroupedConfig):
    intermediate_size: Width
    mlp_bias: bool = False


class MistralConfig(LlamaConfig):
    def windows(self) -> list[int | None]:
        return super().windows() if self.layer_types else [self.sliding_window] * self.num_hidden_layers


def build(config: LlamaConfig, identity: Identity, family: str = "llama") -> Model:
    hidden, inner, wide = config.hidden_size, config.intermediate_size, config.wide
    mlp_biases = (vector("gate_proj.bias", inner, wide), vector("up_proj.bias", inner, wide)) if config.mlp_bias else ()
    output_bias = (vector("down_proj.bias", hidden, wide),) if config.mlp_bias else ()

    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        return [
            attention(
                f"{prefix}attention",
                place,
                hidden=hidden,
                heads=config.num_attention_heads,
                kv_heads=config.kv_heads,
                head_dim=config.width_of_head,
                wide=wide,
                linear=config.linear,
                window=config.sliding_window if kind == "sliding" else None,
                query_bias=config.attention_bias,
                output_bias=config.attention_bias,
            ),
            Block(
                id=f"{prefix}mlp",
                kind="mlp",
                **place,
                weights=(
                    WeightGroup(name="norm", tensors=(vector("post_attention_layernorm", hidden, wide), *output_bias)),
                    WeightGroup(
                        name="mlp", tensors=(*swiglu(hidden, inner, config.linear), *mlp_biases), tensor_axis=columns_axis(inner)
                    ),
                ),
            ),
        ]

    return model_of(config, identity, family, stacked([reach(window) for window in config.windows()], layer))


def build_mistral(config: LlamaConfig, identity: Identity) -> Model:
    return build(config, identity, "mistral")


FAMILY = Family("llama", LlamaConfig, build)
MISTRAL = Family("mistral", MistralConfig, build_mistral)
