"""``model_type`` opt: multi-head attention and plain two-matrix MLPs with biases, learned positions, tied embedding.

Shapes: huggingface/transformers ``models/opt/modeling_opt.py`` (two more position rows than ``max_position_embeddings``; norm
before each part). The 350M model's projected embedding and post-norm are refused.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from planner.architecture.blocks import Block, Identity, Model
from planner.architecture.families import Family
from planner.architecture.families.common import (
    FamilyConfig,
    Heads,
    Width,
    columns_axis,
    embedding_group,
    head_block,
    must_divide,
    vector,
)
from planner.architecture.families.grouped import attention, matrix
from planner.architecture.families.layers import model_of, place
from planner.architecture.parts import Tensor, WeightGroup

SPARE_POSITIONS = 2


class OptConfig(FamilyConfig):
    num_attention_heads: Heads
    ffn_dim: Width
    tie_word_embeddings: bool = True
    word_embed_proj_dim: Width | None = None
    do_layer_norm_before: Literal[True] = True
    enable_bias: Literal[True] = True
    layer_norm_elementwise_affine: Literal[True] = True

    @model_validator(mode="after")
    def _consistent(self) -> OptConfig:
        must_divide("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        if self.word_embed_proj_dim not in (None, self.hidden_size):
            raise ValueError(f"word_embed_proj_dim: {self.word_embed_proj_dim} other than hidden_size is not supported")
        return self


def build(config: OptConfig, identity: Identity) -> Model:
    hidden, inner, wide, linear = config.hidden_size, config.ffn_dim, config.wide, config.linear
    heads = config.num_attention_heads
    everywhere = place(range(config.num_hidden_layers))
    rows = config.max_position_embeddings + SPARE_POSITIONS
    positions = WeightGroup(
        name="positions",
        tensors=(Tensor(name="embed_positions", shape=(rows, hidden), format=wide),),
        access="lookup",
        address="token",
        rows=rows,
        rows_per_token=1,
        counted_active=False,
    )
    table = embedding_group(config, shares="head/lm_head" if config.tie_word_embeddings else "")
    head = head_block(config)
    final = WeightGroup(
        name="norm", tensors=(vector("final_layer_norm", hidden, wide), vector("final_layer_norm.bias", hidden, wide))
    )
    body = [
        attention(
            "attention",
            everywhere,
            hidden=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            wide=wide,
            linear=linear,
            query_bias=True,
            output_bias=True,
            norm="self_attn_layer_norm",
            norm_bias=True,
        ),
        Block(
            id="mlp",
            kind="mlp",
            **everywhere,
            weights=(
                WeightGroup(
                    name="norm",
                    tensors=(
                        vector("final_layer_norm", hidden, wide),
                        vector("final_layer_norm.bias", hidden, wide),
                        vector("fc2.bias", hidden, wide),
                    ),
                ),
                WeightGroup(
                    name="mlp",
                    tensors=(
                        matrix("fc1", inner, hidden, linear),
                        vector("fc1.bias", inner, wide),
                        matrix("fc2", hidden, inner, linear),
                    ),
                    tensor_axis=columns_axis(inner),
                ),
            ),
        ),
    ]
    return model_of(
        config,
        identity,
        FAMILY.name,
        body,
        embedding=Block(id="embedding", kind="embedding", first_layer=-1, layers=1, weights=(table, positions)),
        head=head.model_copy(update={"weights": (final, *head.weights[1:])}),
    )


FAMILY = Family("opt", OptConfig, build)
