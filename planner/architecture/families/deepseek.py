"""``model_type`` deepseek (DeepSeekMoE): grouped-query or multi-head attention, then experts with shared ones beside them.

deepseek-ai/deepseek-moe-16b-base ``modeling_deepseek.py``. ``head_dim`` may be given, which lets one ask what a model with
latent attention would hold with plain heads.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import (
    Experts,
    FamilyConfig,
    Heads,
    Width,
    columns_axis,
    must_divide,
    swiglu,
    vector,
)
from planner.architecture.families.grouped import attention, experts, gated_mlp, inner_axis
from planner.architecture.families.layers import Place, model_of, stacked
from planner.architecture.parts import WeightGroup


class DeepseekConfig(FamilyConfig):
    experts_apart: ClassVar[bool] = True
    intermediate_size: Width
    num_attention_heads: Heads
    num_key_value_heads: Heads
    head_dim: Width | None = None
    attention_bias: bool = False
    first_k_dense_replace: Annotated[int, Field(ge=0)]
    moe_layer_freq: Literal[1] = 1
    moe_intermediate_size: Width
    n_routed_experts: Experts
    n_shared_experts: Annotated[int, Field(ge=0, le=2**10)] | None = None
    num_experts_per_tok: Experts
    topk_method: str = "greedy"

    @model_validator(mode="after")
    def _consistent(self) -> DeepseekConfig:
        must_divide("num_attention_heads", self.num_attention_heads, "num_key_value_heads", self.num_key_value_heads)
        if self.head_dim is None:
            must_divide("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(f"num_experts_per_tok: {self.num_experts_per_tok} is more than n_routed_experts")
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ValueError(f"first_k_dense_replace: {self.first_k_dense_replace} is more than num_hidden_layers")
        return self


def build(config: DeepseekConfig, identity: Identity) -> Model:
    hidden, wide = config.hidden_size, config.wide
    shared = config.moe_intermediate_size * (config.n_shared_experts or 0)

    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        heads = attention(
            f"{prefix}attention",
            place,
            hidden=hidden,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim or hidden // config.num_attention_heads,
            wide=wide,
            linear=config.linear,
            query_bias=config.attention_bias,
            output_bias=config.attention_bias,
        )
        if kind == "dense":
            inner = config.intermediate_size
            return [heads, gated_mlp(f"{prefix}mlp", place, hidden=hidden, inner=inner, wide=wide, linear=config.linear)]
        beside = WeightGroup(
            name="shared_experts", tensors=swiglu(hidden, shared or 1, config.linear), tensor_axis=columns_axis(shared or 1)
        )
        mixture = experts(
            f"{prefix}experts",
            place,
            hidden=hidden,
            member=swiglu(hidden, config.moe_intermediate_size, config.expert),
            axis=inner_axis(config.moe_intermediate_size, config.expert),
            count=config.n_routed_experts,
            active=config.num_experts_per_tok,
            wide=wide,
            router=(vector("e_score_correction_bias", config.n_routed_experts, "fp32"),)
            if config.topk_method == "noaux_tc"
            else (),
            shared=(beside,) if shared else (),
        )
        return [heads, mixture]

    dense = config.first_k_dense_replace
    kinds = ["dense"] * dense + ["moe"] * (config.num_hidden_layers - dense)
    router = Router(experts=config.n_routed_experts, active=config.num_experts_per_tok, shared=config.n_shared_experts or 0)
    return model_of(config, identity, FAMILY.name, stacked(kinds, layer), router=router if "moe" in kinds else None)


FAMILY = Family("deepseek", DeepseekConfig, build)
