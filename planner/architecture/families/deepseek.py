"""``model_type`` deepseek (DeepSeekMoE): grouped-query or multi-head attention, then experts with shared ones beside them.

deepseek-ai/deepseek-moe-16b-base ``modeling_deepseek.py``. ``head_dim`` may be given, which lets one ask what a model with
latent attention would hold with plain heads.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, FamilyConfig, Heads, Width, must_divide
from planner.architecture.families.deepseek_v3 import dense_mlp, routed_experts
from planner.architecture.families.grouped import attention
from planner.architecture.families.layers import Place, model_of, stacked


class DeepseekConfig(FamilyConfig):
    intermediate_size: Width
    num_attention_heads: Heads
    num_key_value_heads: Heads
    head_dim: Width | None = None
    first_k_dense_replace: Annotated[int, Field(ge=0)]
    moe_layer_freq: Literal[1] = 1
    moe_intermediate_size: Width
    n_routed_experts: Experts
    n_shared_experts: Annotated[int, Field(ge=0, le=2**10)] | None = None
    num_experts_per_tok: Experts
    topk_method: str = "greedy"

    @model_validator(mode="after")
    def _heads(self) -> DeepseekConfig:
        must_divide("num_attention_heads", self.num_attention_heads, "num_key_value_heads", self.num_key_value_heads)
        if self.head_dim is None:
            must_divide("hidden_size", self.hidden_size, "num_attention_heads", self.num_attention_heads)
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(f"num_experts_per_tok: {self.num_experts_per_tok} is more than n_routed_experts")
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ValueError(f"first_k_dense_replace: {self.first_k_dense_replace} is more than num_hidden_layers")
        return self
