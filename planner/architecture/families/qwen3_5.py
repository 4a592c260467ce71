"""``model_type`` qwen3_5, qwen3_5_moe (with ``text_config``) and their ``_text`` forms: gated DeltaNet layers and, every fourth,
gated grouped-query attention; a gated MLP or experts with a shared expert; a draft module.

Shapes: huggingface/transformers ``models/{qwen3_5,qwen3_5_moe,qwen3_next}/modeling_*.py``. The vision tower is not part of the
graph. A gated DeltaNet layer with Hv value heads of size dv, Hk key heads of size dk and convolution kernel k keeps

- the recurrent state, Hv x dk x dv numbers of ``mamba_ssm_dtype``
- the convolution's last k - 1 inputs, (2 Hk dk + Hv dv)(k - 1) numbers (vLLM ``mamba_utils.py``)

and does three multiply-accumulates a token and number of its state (read by key, update, read by query): 6 Hv dk dv FLOPs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, Heads, Width, columns_axis, must_divide, swiglu, vector
from planner.architecture.families.grouped import (
    Place,
    attention,
    experts,
    gated_mlp,
    inner_axis,
    matrix,
    per_token,
    reads_state,
    state,
)
from planner.architecture.families.layers import (
    draft_head,
    draft_input,
    model_of,
    place,
    stacked,
    text_config,
    unpublished_speculation,
)
from planner.architecture.families.llama import GroupedConfig
from planner.architecture.formats import format_of
from planner.architecture.parts import WeightGroup

STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
HybridLayer = Literal["linear_attention", "full_attention"]


class Qwen35Config(GroupedConfig):
    head_dim: Width
    attn_output_gate: bool = True
    layer_types: Annotated[list[HybridLayer], Field(max_length=10_000)] | None = None  # type: ignore[assignment]
    full_attention_interval: Annotated[int, Field(gt=0, le=10_000)] = 4
    linear_num_key_heads: Heads
    linear_num_value_heads: Heads
    linear_key_head_dim: Width
    linear_value_head_dim: Width
    linear_conv_kernel_dim: Annotated[int, Field(ge=2, le=2**10)]
    mamba_ssm_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    mtp_num_hidden_layers: Annotated[int, Field(ge=0, le=64)] = 0
    mtp_use_dedicated_embeddings: Literal[False] = False

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return text_config(data)

    @model_validator(mode="after")
    def _linear_heads(self) -> Qwen35Config:
        must_divide("linear_num_value_heads", self.linear_num_value_heads, "linear_num_key_heads", self.linear_num_key_heads)
        return self

    @property
    def kinds(self) -> list[str]:
        """Which layers are linear and which attend to everything."""
        if self.layer_types is not None:
            return [str(kind).removesuffix("_attention") for kind in self.layer_types]
        interval = self.full_attention_interval
        return ["linear" if (number + 1) % interval else "full" for number in range(self.num_hidden_layers)]


class DenseConfig(Qwen35Config):
    intermediate_size: Width


class MoeConfig(Qwen35Config):
    moe_intermediate_size: Width
    shared_expert_intermediate_size: Width
    num_experts: Experts
    num_experts_per_tok: Experts

    @model_validator(mode="after")
    def _experts(self) -> MoeConfig:
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok: {self.num_experts_per_tok} is more than num_experts {self.num_experts}")
        return self


def _full(config: Qwen35Config, id: str, spot: Place) -> Block:
    return attention(
        id,
        spot,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        wide=config.wide,
        linear=config.linear,
        query_bias=config.attention_bias,
        output_bias=config.attention_bias,
        norms=(("q_norm", config.head_dim), ("k_norm", config.head_dim)),
        gate=config.attn_output_gate,
    )


def _delta_net(config: Qwen35Config, id: str, spot: Place) -> Block:
    hidden, wide, linear = config.hidden_size, config.wide, config.linear
    heads, key, value = config.linear_num_value_heads, config.linear_key_head_dim, config.linear_value_head_dim
    values = heads * value
    channels = 2 * config.linear_num_key_heads * key + values
    kernel = config.linear_conv_kernel_dim
    mixer = (
        matrix("in_proj_qkv", channels, hidden, linear),
        matrix("conv1d", channels, kernel, wide),
        matrix("in_proj_z", values, hidden, linear),
        matrix("in_proj_b", heads, hidden, wide),
        matrix("in_proj_a", heads, hidden, wide),
        matrix("out_proj", hidden, values, linear),
        vector("dt_bias", heads, wide),
        vector("A_log", heads, wide),
    )
    axis = config.linear_num_key_heads
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=(
            WeightGroup(name="norm", tensors=(vector("input_layernorm", hidden, wide), vector("norm", value, wide))),
            WeightGroup(name="mixer", tensors=mixer, tensor_axis=axis),
        ),
        caches=(
            state("recurrent", heads * key * value * STATE_BYTES[config.mamba_ssm_dtype], axis),
            state("convolution", (kernel - 1) * channels * format_of(wide).bits // 8, axis),
        ),
        reads=(reads_state("recurrent", id), reads_state("convolution", id)),
        flops=(per_token("delta_rule", 6 * heads * key * value, axis),),
    )


def _mixture(config: MoeConfig, id: str, spot: Place) -> Block:
    hidden, inner, width, wide = (
        config.hidden_size,
        config.moe_intermediate_size,
        config.shared_expert_intermediate_size,
        config.wide,
    )
    shared = WeightGroup(name="shared_experts", tensors=swiglu(hidden, width, config.linear), tensor_axis=columns_axis(width))
    return experts(
        id,
        spot,
        hidden=hidden,
        member=swiglu(hidden, inner, config.expert),
        axis=inner_axis(inner, config.expert),
        count=config.num_experts,
        active=config.num_experts_per_tok,
        wide=wide,
        router=(matrix("shared_expert_gate", 1, hidden, wide),),
        shared=(shared,),
    )


def _build(config: DenseConfig | MoeConfig, identity: Identity, family: str) -> Model:
    def second(prefix: str, spot: Place) -> Block:
        if isinstance(config, MoeConfig):
            return _mixture(config, f"{prefix}experts", spot)
        inner = config.intermediate_size
        return gated_mlp(f"{prefix}mlp", spot, hidden=config.hidden_size, inner=inner, wide=config.wide, linear=config.linear)

    def layer(kind: str, prefix: str, spot: Place) -> list[Block]:
        first = _full if kind == "full" else _delta_net
        return [first(config, f"{prefix}attention", spot), second(prefix, spot)]

    draft: list[Block] = []
    if config.mtp_num_hidden_layers:
        after = config.num_hidden_layers
        spot = place(range(after, after + config.mtp_num_hidden_layers), draft=True)
        draft = [draft_input(config), _full(config, "draft.attention", spot), second("draft.", spot), draft_head(config)]
    router = None
    if isinstance(config, MoeConfig):
        router = Router(experts=config.num_experts, active=config.num_experts_per_tok, shared=1)
    return model_of(
        config,
        identity,
        family,
        stacked(config.kinds, layer),
        router=router,
        draft=draft,
        speculation=unpublished_speculation() if draft else None,
    )


def build_dense(config: DenseConfig, identity: Identity) -> Model:
    return _build(config, identity, "qwen3_5")


def build_moe(config: MoeConfig, identity: Identity) -> Model:
    return _build(config, identity, "qwen3_5_moe")


DENSE = Family("qwen3_5", DenseConfig, build_dense)
MOE = Family("qwen3_5_moe", MoeConfig, build_moe)
