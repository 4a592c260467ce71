"""``model_type`` llama: dense, grouped-query attention (multi-head and multi-query as its ends), gated MLP.

Field meanings and defaults: huggingface/transformers ``models/llama/configuration_llama.py``.
"""

from __future__ import annotations

from pydantic import model_validator

from planner.architecture.blocks import Block, Identity, Model, WeightGroup
from planner.architecture.families import Family
from planner.architecture.families.common import (
    FamilyConfig,
    Heads,
    Width,
    chain,
    columns_axis,
    embedding_block,
    grouped_query_attention,
    head_block,
    must_divide,
    swiglu,
    vector,
)


class LlamaConfig(FamilyConfig):
    intermediate_size: Width
    num_attention_heads: Heads
    num_key_value_heads: Heads | None = None
    head_dim: Width | None = None
    attention_bias: bool = False
    mlp_bias: bool = False

    @model_validator(mode="after")
    def _heads(self) -> LlamaConfig:
        must_divide("num_attention_heads", self.num_attention_heads, "num_key_value_heads", self.kv_heads)
        if self.head_dim is None:
            must_divide("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        return self

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads or self.num_attention_heads


def build(config: LlamaConfig, identity: Identity) -> Model:
    hidden, inner, wide = config.hidden_size, config.intermediate_size, config.wide
    mlp_biases = (vector("gate_proj.bias", inner, wide), vector("up_proj.bias", inner, wide)) if config.mlp_bias else ()
    output_bias = (vector("down_proj.bias", hidden, wide),) if config.mlp_bias else ()
    blocks = [
        embedding_block(config),
        grouped_query_attention(
            "attention",
            first_layer=0,
            layers=config.num_hidden_layers,
            hidden=hidden,
            heads=config.num_attention_heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim or hidden // config.num_attention_heads,
            wide=wide,
            linear=config.linear,
            bias=config.attention_bias,
        ),
        Block(
            id="mlp",
            kind="mlp",
            first_layer=0,
            layers=config.num_hidden_layers,
            weights=(
                WeightGroup(name="norm", tensors=(vector("post_attention_layernorm", hidden, wide), *output_bias)),
                WeightGroup(
                    name="mlp", tensors=(*swiglu(hidden, inner, config.linear), *mlp_biases), tensor_axis=columns_axis(inner)
                ),
            ),
        ),
        head_block(config),
    ]
    return Model(
        **identity.model_dump(),
        family=FAMILY.name,
        hidden_size=hidden,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        max_context=config.max_position_embeddings,
        blocks=tuple(blocks),
        edges=tuple(chain(blocks, hidden, wide)),
    )


FAMILY = Family("llama", LlamaConfig, build)
