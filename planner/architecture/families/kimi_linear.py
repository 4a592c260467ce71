"""``model_type`` kimi_linear, and kimi_k3 (Kimi-K3) with its ``text_config``: Kimi delta attention (KDA) in most layers,
latent attention in the others, experts that work in a narrower space.

A KDA layer keeps a state of heads x head_dim x head_dim (FP32) and the last tokens of its short convolutions (BF16) and no
entries; a token costs three multiply-accumulates per state element (read, update, answer). Attention residuals keep the
state at every ``attn_res_block_size``-th layer, which travels with the residual. Shapes: MoonshotAI/Kimi-Linear
``modeling_kimi.py`` and the tensor names of moonshotai/Kimi-K3's files; images are not modelled.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import (
    Experts,
    Heads,
    Width,
    chain,
    columns_axis,
    embedding_block,
    head_block,
    swiglu,
    vector,
)
from planner.architecture.families.deepseek_v3 import DeepseekV3Config, dense_mlp, latent_attention
from planner.architecture.families.grouped import inner_axis
from planner.architecture.families.layers import Place, exchange, places, text_config
from planner.architecture.parts import Cache, FlopTerm, Read, Span, Tensor, WeightGroup

OTHER_NAMES = {
    "num_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "num_expert_group": "n_group",
    "model_max_length": "max_position_embeddings",
}
LayerNumbers = Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(max_length=10_000)]


class LinearAttention(BaseModel):
    """``linear_attn_config``; its layer numbers start at 1."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    kda_layers: LayerNumbers
    full_attn_layers: LayerNumbers
    num_heads: Heads
    head_dim: Width
    short_conv_kernel_size: Annotated[int, Field(gt=0, le=1024)]
    use_full_rank_gate: bool = False


class KimiLinearConfig(DeepseekV3Config):
    n_group: Experts = 1
    topk_group: Experts = 1
    linear_attn_config: LinearAttention
    mla_use_output_gate: bool = False
    routed_expert_hidden_size: Width | None = None
    latent_moe_use_norm: bool = False
    attn_res_block_size: Width | None = None

    @model_validator(mode="before")
    @classmethod
    def _names(cls, data: Any) -> Any:
        data = text_config(data)
        if isinstance(data, dict):
            for other, name in OTHER_NAMES.items():
                if other in data and name not in data:
                    data = {**data, name: data[other]}
        return data

    @model_validator(mode="after")
    def _layers(self) -> KimiLinearConfig:
        named = sorted(self.linear_attn_config.kda_layers + self.linear_attn_config.full_attn_layers)
        if named != list(range(1, self.num_hidden_layers + 1)):
            raise ValueError("linear_attn_config: kda_layers and full_attn_layers must name every layer once")
        return self

    @property
    def gated(self) -> bool:
        return self.mla_use_output_gate


def build(config: KimiLinearConfig, identity: Identity, family: str) -> Model:
    full = set(config.linear_attn_config.full_attn_layers)
    kinds = [
        ("dense_" if layer < config.first_k_dense_replace else "") + ("latent" if layer + 1 in full else "delta")
        for layer in range(config.num_hidden_layers)
    ]
    blocks = [embedding_block(config)]
    for kind, spot in places(kinds).items():
        make = latent_attention if kind.endswith("latent") else _delta_attention
        mixer = make(config, f"{kind}.attention", spot)
        feed = dense_mlp(config, f"{kind}.mlp", spot) if kind.startswith("dense") else _experts(config, f"{kind}.experts", spot)
        blocks += [_with_residual(config, mixer), _with_residual(config, feed)]
    last = head_block(config)
    blocks.append(_with_residual(config, last))
    kept = -(-config.num_hidden_layers // config.attn_res_block_size) if config.attn_res_block_size else 0
    return Model(
        **identity.model_dump(),
        family=family,
        hidden_size=config.hidden_size,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        max_context=config.max_position_embeddings,
        router=Router(
            experts=config.n_routed_experts,
            active=config.num_experts_per_tok,
            shared=config.n_shared_experts or 0,
            groups=config.n_group,
            active_groups=config.topk_group,
        ),
        blocks=tuple(blocks),
        edges=(
            *chain(blocks, config.hidden_size * (1 + kept), config.wide),
            *exchange(blocks, config.hidden_size, config.wide),
        ),
    )


def _with_residual(config: KimiLinearConfig, block: Block) -> Block:
    """The norm and projection by which a sublayer weighs the kept states."""
    if config.attn_res_block_size is None:
        return block
    tensors = (
        vector("res_norm", config.hidden_size, config.wide),
        Tensor(name="res_proj", shape=(1, config.hidden_size), format=config.wide),
    )
    return block.model_copy(update={"weights": (WeightGroup(name="attention_residual", tensors=tensors), *block.weights)})


def _delta_attention(config: KimiLinearConfig, id: str, spot: Place) -> Block:
    linear = config.linear_attn_config
    hidden, heads, width, wide, stored = config.hidden_size, linear.num_heads, linear.head_dim, config.wide, config.linear
    size = heads * width

    def matrix(name: str, rows: int, columns: int) -> Tensor:
        return Tensor(name=name, shape=(rows, columns), format=stored)

    low_rank = [
        vector("input_layernorm", hidden, wide),
        matrix("f_a_proj", width, hidden),
        vector("o_norm", width, wide),
    ]
    by_head = [matrix(name, size, hidden) for name in ("q_proj", "k_proj", "v_proj")]
    by_head += [
        Tensor(name=name, shape=(size, linear.short_conv_kernel_size), format=wide) for name in ("q_conv", "k_conv", "v_conv")
    ]
    by_head += [
        matrix("f_b_proj", size, width),
        matrix("b_proj", heads, hidden),
        matrix("o_proj", hidden, size),
        vector("A_log", heads, "fp32"),
        vector("dt_bias", size, "fp32"),
    ]
    if linear.use_full_rank_gate:
        by_head.append(matrix("g_proj", size, hidden))
    else:
        low_rank.append(matrix("g_a_proj", width, hidden))
        by_head.append(matrix("g_b_proj", size, width))
    states = (("recurrent", heads * width * width * 4), ("convolution", 3 * (linear.short_conv_kernel_size - 1) * size * 2))
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=(
            WeightGroup(name="low_rank", tensors=tuple(low_rank)),
            WeightGroup(name="heads", tensors=tuple(by_head), tensor_axis=heads),
        ),
        caches=tuple(
            Cache(name=name, role="state", span=Span(cap=0), fixed_bytes=held, tensor_axis=heads, persist="checkpoint")
            for name, held in states
        ),
        reads=tuple(Read(cache=name, block=id, span=Span(cap=0)) for name, _ in states),
        flops=(FlopTerm(name="state", per_pair=6 * heads * width * width, span=Span(cap=1), tensor_axis=heads),),
    )


def _experts(config: KimiLinearConfig, id: str, spot: Place) -> Block:
    hidden, inner, wide = config.hidden_size, config.moe_intermediate_size, config.wide
    narrow = config.routed_expert_hidden_size
    groups = [
        WeightGroup(
            name="router",
            tensors=(
                vector("post_attention_layernorm", hidden, wide),
                Tensor(name="gate", shape=(config.n_routed_experts, hidden), format=wide),
                vector("e_score_correction_bias", config.n_routed_experts, "fp32"),
            ),
        )
    ]
    if narrow:
        tensors = [
            Tensor(name="routed_expert_down_proj", shape=(narrow, hidden), format=config.linear),
            Tensor(name="routed_expert_up_proj", shape=(hidden, narrow), format=config.linear),
        ]
        if config.latent_moe_use_norm:
            tensors.append(vector("routed_expert_norm", narrow, wide))
        groups.append(WeightGroup(name="expert_space", tensors=tuple(tensors)))
    if config.n_shared_experts:
        width = inner * config.n_shared_experts
        groups.append(
            WeightGroup(name="shared_experts", tensors=swiglu(hidden, width, config.linear), tensor_axis=columns_axis(width))
        )
    groups.append(
        WeightGroup(
            name="experts",
            tensors=swiglu(narrow or hidden, inner, config.expert),
            count=config.n_routed_experts,
            active=config.num_experts_per_tok,
            access="routed",
            address="activation",
            tensor_axis=inner_axis(inner, config.expert),
        )
    )
    return Block(id=id, kind="moe", **spot, weights=tuple(groups))


def _build_linear(config: KimiLinearConfig, identity: Identity) -> Model:
    return build(config, identity, FAMILY.name)


def _build_k3(config: KimiLinearConfig, identity: Identity) -> Model:
    return build(config, identity, K3.name)


FAMILY = Family("kimi_linear", KimiLinearConfig, _build_linear)
K3 = Family("kimi_k3", KimiLinearConfig, _build_k3)
