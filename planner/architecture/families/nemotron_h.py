"""``model_type`` nemotron_h: each layer is one of Mamba-2 mixer, grouped-query attention, mixture of experts or plain MLP.

Shapes: huggingface/transformers ``models/nemotron_h/modeling_nemotron_h.py`` (experts and MLPs have no gate matrix; with
``moe_latent_size`` the experts work in a smaller space between two projections). Pattern letters: M mixer, * attention,
E experts, - MLP. With inner = heads x head_dim and g groups of state size N a mixer keeps

- the state, inner x N numbers of ``mamba_ssm_cache_dtype``
- the convolution's last k - 1 inputs, (inner + 2gN)(k - 1) numbers (vLLM ``mamba_utils.py``)

and does two multiply-accumulates a token and number of its state (update, read): 4 x inner x N FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, FamilyConfig, Heads, Width, columns_axis, must_divide, vector
from planner.architecture.families.grouped import (
    Place,
    attention,
    experts,
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
    unpublished_speculation,
)
from planner.architecture.formats import format_of
from planner.architecture.parts import Tensor, WeightGroup

Kind = Literal["mamba", "attention", "moe", "mlp"]
LETTERS: dict[str, Kind] = {"M": "mamba", "*": "attention", "E": "moe", "-": "mlp"}
STATE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Pattern = Annotated[str, Field(max_length=10_000)]
Kinds = Annotated[list[Kind], Field(max_length=10_000)]


class NemotronHConfig(FamilyConfig):
    hybrid_override_pattern: Pattern | None = None
    layers_block_type: Kinds | None = None
    num_attention_heads: Heads
    num_key_value_heads: Heads
    head_dim: Width
    attention_bias: Literal[False] = False
    intermediate_size: Width
    mlp_bias: Literal[False] = False
    use_bias: Literal[False] = False
    use_conv_bias: bool = True
    mamba_num_heads: Heads
    mamba_head_dim: Width
    n_groups: Heads
    ssm_state_size: Width
    conv_kernel: Annotated[int, Field(ge=2, le=2**10)]
    mamba_ssm_cache_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    moe_intermediate_size: Width | None = None
    moe_latent_size: Width | None = None
    moe_shared_expert_intermediate_size: Width | None = None
    n_routed_experts: Experts | None = None
    n_shared_experts: Annotated[int, Field(ge=0, le=2**10)] = 1
    num_experts_per_tok: Experts | None = None
    n_group: Experts = 1
    topk_group: Experts = 1
    num_nextn_predict_layers: Annotated[int, Field(ge=0, le=64)] = 0
    mtp_hybrid_override_pattern: Pattern | None = None
    mtp_layers_block_type: Kinds | None = None

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, data: Any) -> Any:
        """The layer count may be only the length of the list of kinds; the oldest files say ``attention_head_dim``."""
        if isinstance(data, dict):
            listed = data.get("layers_block_type") or data.get("hybrid_override_pattern")
            if "num_hidden_layers" not in data and isinstance(listed, list | str):
                data = {**data, "num_hidden_layers": len(listed)}
            if "head_dim" not in data and "attention_head_dim" in data:
                data = {**data, "head_dim": data["attention_head_dim"]}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> NemotronHConfig:
        must_divide("num_attention_heads", self.num_attention_heads, "num_key_value_heads", self.num_key_value_heads)
        must_divide("mamba_num_heads", self.mamba_num_heads, "n_groups", self.n_groups)
        kinds = self.kinds
        if len(kinds) != self.num_hidden_layers:
            raise ValueError(f"layers: the pattern has {len(kinds)}, num_hidden_layers says {self.num_hidden_layers}")
        if "moe" in [*kinds, *self.draft_kinds]:
            for name in ("moe_intermediate_size", "n_routed_experts", "num_experts_per_tok"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: is missing, there are layers of experts")
            if self.n_shared_experts and self.moe_shared_expert_intermediate_size is None:
                raise ValueError("moe_shared_expert_intermediate_size: is missing, there are shared experts")
            must_divide("n_routed_experts", self.n_routed_experts or 1, "n_group", self.n_group)
            if self.topk_group > self.n_group:
                raise ValueError(f"topk_group: {self.topk_group} is more than n_group {self.n_group}")
            reach = (self.n_routed_experts or 1) // self.n_group * self.topk_group
            if (self.num_experts_per_tok or 1) > reach:
                raise ValueError(f"num_experts_per_tok: {self.num_experts_per_tok} is more than the {reach} experts in reach")
        if self.num_nextn_predict_layers and not self.draft_kinds:
            raise ValueError("mtp_hybrid_override_pattern: is missing, there are draft layers")
        return self

    @property
    def kinds(self) -> list[Kind]:
        """The kind of each layer."""
        return _kinds("hybrid_override_pattern", self.layers_block_type, self.hybrid_override_pattern)

    @property
    def draft_kinds(self) -> list[Kind]:
        """The kinds of the layers of one draft module."""
        if not self.num_nextn_predict_layers:
            return []
        return _kinds("mtp_hybrid_override_pattern", self.mtp_layers_block_type, self.mtp_hybrid_override_pattern)


def _kinds(name: str, listed: Sequence[Kind] | None, pattern: str | None) -> list[Kind]:
    if listed is not None:
        return list(listed)
    wrong = next((letter for letter in pattern or "" if letter not in LETTERS), None)
    if wrong is not None:
        raise ValueError(f"{name}: {wrong!r} is no kind of layer, those are {' '.join(LETTERS)}")
    return [LETTERS[letter] for letter in pattern or ""]


def _mixer(config: NemotronHConfig, id: str, spot: Place) -> Block:
    hidden, wide, linear, heads = config.hidden_size, config.wide, config.linear, config.mamba_num_heads
    inner = heads * config.mamba_head_dim
    channels = inner + 2 * config.n_groups * config.ssm_state_size
    tensors = [
        matrix("in_proj", inner + channels + heads, hidden, linear),
        matrix("conv1d", channels, config.conv_kernel, wide),
        matrix("out_proj", hidden, inner, linear),
        vector("norm", inner, wide),
        *(vector(name, heads, wide) for name in ("dt_bias", "A_log", "D")),
    ]
    if config.use_conv_bias:
        tensors.append(vector("conv1d.bias", channels, wide))
    numbers = inner * config.ssm_state_size
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=(
            WeightGroup(name="norm", tensors=(vector("norm", hidden, wide),)),
            WeightGroup(name="mixer", tensors=tuple(tensors), tensor_axis=heads),
        ),
        caches=(
            state("recurrent", numbers * STATE_BYTES[config.mamba_ssm_cache_dtype], heads),
            state("convolution", (config.conv_kernel - 1) * channels * format_of(wide).bits // 8, heads),
        ),
        reads=(reads_state("recurrent", id), reads_state("convolution", id)),
        flops=(per_token("state_space", 4 * numbers, heads),),
    )


def _attention(config: NemotronHConfig, id: str, spot: Place) -> Block:
    return attention(
        id,
        spot,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        wide=config.wide,
        linear=config.linear,
        norm="norm",
    )


def _plain(outer: int, inner: int, format: str) -> tuple[Tensor, ...]:
    return matrix("up_proj", inner, outer, format), matrix("down_proj", outer, inner, format)


def _mixture(config: NemotronHConfig, id: str, spot: Place) -> Block:
    hidden, linear, count = config.hidden_size, config.linear, config.n_routed_experts or 1
    inner, latent = config.moe_intermediate_size or 1, config.moe_latent_size
    shared = []
    if config.n_shared_experts:
        width = config.moe_shared_expert_intermediate_size or 1
        shared.append(WeightGroup(name="shared_experts", tensors=_plain(hidden, width, linear), tensor_axis=columns_axis(width)))
    if latent:
        projections = (matrix("fc1_latent_proj", latent, hidden, linear), matrix("fc2_latent_proj", hidden, latent, linear))
        shared.append(WeightGroup(name="latent", tensors=projections))
    return experts(
        id,
        spot,
        hidden=hidden,
        member=_plain(latent or hidden, inner, config.expert),
        axis=inner_axis(inner, config.expert),
        count=count,
        active=config.num_experts_per_tok or 1,
        wide=config.wide,
        router=(vector("e_score_correction_bias", count, "fp32"),),
        shared=shared,
        norm="norm",
    )


def _mlp(config: NemotronHConfig, id: str, spot: Place) -> Block:
    inner = config.intermediate_size
    return Block(
        id=id,
        kind="mlp",
        **spot,
        weights=(
            WeightGroup(name="norm", tensors=(vector("norm", config.hidden_size, config.wide),)),
            WeightGroup(name="mlp", tensors=_plain(config.hidden_size, inner, config.linear), tensor_axis=columns_axis(inner)),
        ),
    )


MAKERS = {"mamba": _mixer, "attention": _attention, "moe": _mixture, "mlp": _mlp}


def build(config: NemotronHConfig, identity: Identity) -> Model:
    def layer(kind: str, prefix: str, spot: Place) -> list[Block]:
        return [MAKERS[kind](config, kind, spot)]

    draft: list[Block] = []
    if config.draft_kinds:
        after = config.num_hidden_layers
        made = []
        for kind in dict.fromkeys(config.draft_kinds):
            spot = place(range(after, after + config.draft_kinds.count(kind)), draft=True)
            made.append(MAKERS[kind](config, f"draft.{kind}", spot))
        draft = [draft_input(config), *made, draft_head(config)]
    router = None
    if "moe" in config.kinds:
        router = Router(
            experts=config.n_routed_experts or 1,
            active=config.num_experts_per_tok or 1,
            shared=config.n_shared_experts,
            groups=config.n_group,
            active_groups=config.topk_group,
        )
    return model_of(
        config,
        identity,
        FAMILY.name,
        stacked(config.kinds, layer),
        router=router,
        draft=draft,
        speculation=unpublished_speculation() if draft else None,
    )


FAMILY = Family("nemotron_h", NemotronHConfig, build)
