"""``model_type`` minimax_m2, and minimax_m3 (minimax_m3_vl with its ``text_config``): experts in all or most layers.

Shapes: huggingface/transformers ``models/minimax_m2/modeling_minimax_m2.py``, ``models/minimax_m3_vl/modeling_minimax_m3_vl.py``.
M3's sparse layers score every cached token with a small indexer (one key of ``sparse_index_dim`` a token, not shared out over
tensor parallelism) and attend to the ``sparse_topk_blocks`` best blocks of ``sparse_block_size`` tokens, the newest among them.
Neither checkpoint holds the draft modules that its configuration counts, nor is M3's vision tower part of the graph.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, Heads, Width, columns_axis, swiglu, vector
from planner.architecture.families.grouped import Place, attention, experts, gated_mlp, inner_axis, matrix
from planner.architecture.families.layers import model_of, stacked, text_config
from planner.architecture.families.llama import GroupedConfig
from planner.architecture.parts import Cache, FlopTerm, Read, Span, WeightGroup

PER_LAYER = Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(max_length=10_000)]


class MinimaxM2Config(GroupedConfig):
    intermediate_size: Width
    num_local_experts: Experts
    num_experts_per_tok: Experts
    use_qk_norm: bool = True
    qk_norm_type: Literal["per_layer", "per_head"] = "per_layer"
    use_routing_bias: bool = True
    shared_intermediate_size: Annotated[int, Field(ge=0, le=2**24)] = 0

    @model_validator(mode="after")
    def _experts(self) -> MinimaxM2Config:
        if self.num_experts_per_tok > self.num_local_experts:
            raise ValueError(
                f"num_experts_per_tok: {self.num_experts_per_tok} is more than num_local_experts {self.num_local_experts}"
            )
        return self

    @property
    def shared_width(self) -> int:
        """Inner side of what every token passes beside its experts."""
        return self.shared_intermediate_size


class SparseAttention(BaseModel):
    """The ``sparse_attention_config`` of M3."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    use_sparse_attention: bool = True
    sparse_attention_freq: PER_LAYER
    sparse_block_size: Width
    sparse_topk_blocks: Width
    sparse_index_dim: Width
    sparse_num_index_heads: Heads


class MinimaxM3Config(MinimaxM2Config):
    dense_intermediate_size: Width
    moe_layer_freq: PER_LAYER
    n_shared_experts: Annotated[int, Field(ge=0, le=2**10)] = 1
    qk_norm_type: Literal["per_layer", "per_head"] = "per_head"
    sparse_attention_config: SparseAttention | None = None

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return text_config(data)

    @model_validator(mode="after")
    def _lists(self) -> MinimaxM3Config:
        lists: dict[str, list[Any]] = {"moe_layer_freq": self.moe_layer_freq}
        if self.sparse_attention_config:
            lists["sparse_attention_freq"] = self.sparse_attention_config.sparse_attention_freq
        for name, values in lists.items():
            if len(values) != self.num_hidden_layers:
                raise ValueError(f"{name}: names {len(values)} layers, num_hidden_layers says {self.num_hidden_layers}")
        return self

    @property
    def shared_width(self) -> int:
        return self.shared_intermediate_size * self.n_shared_experts

    def kinds(self) -> list[str]:
        sparse = self.sparse_attention_config
        freq = sparse.sparse_attention_freq if sparse and sparse.use_sparse_attention else [0] * self.num_hidden_layers
        pairs = zip(freq, self.moe_layer_freq, strict=True)
        return [("sparse" if attends else "full") + ("" if mixes else "-dense") for attends, mixes in pairs]


def _attention(config: MinimaxM2Config, id: str, place: Place) -> Block:
    sizes = {"per_layer": (config.num_attention_heads * config.width_of_head, config.kv_heads * config.width_of_head)}
    query, key = sizes.get(config.qk_norm_type, (config.width_of_head, config.width_of_head))
    return attention(
        id,
        place,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.kv_heads,
        head_dim=config.width_of_head,
        wide=config.wide,
        linear=config.linear,
        norms=(("q_norm", query), ("k_norm", key)) if config.use_qk_norm else (),
    )


def _indexed(block: Block, config: MinimaxM3Config, sparse: SparseAttention) -> Block:
    """The attention ``block`` with an indexer: it reads only the chosen blocks of the cache, and all index keys."""
    heads, width = sparse.sparse_num_index_heads, sparse.sparse_index_dim
    chosen = Span(cap=sparse.sparse_topk_blocks * sparse.sparse_block_size)
    indexer = WeightGroup(
        name="indexer",
        tensors=(
            matrix("indexer.q_proj", heads * width, config.hidden_size, config.linear),
            matrix("indexer.k_proj", width, config.hidden_size, config.linear),
            vector("indexer.q_norm", width, config.wide),
            vector("indexer.k_norm", width, config.wide),
        ),
    )
    (kv,), (core,) = block.caches, block.flops
    keys = Cache(
        name="index", role="index", elements=width, layouts={"bf16": 2 * width, "fp8": width}, page_tokens=kv.page_tokens
    )
    return Block.model_validate(
        block.model_dump()
        | {
            "weights": (*block.weights, indexer),
            "caches": (kv, keys),
            "reads": (Read(cache="kv", block=block.id, span=chosen), Read(cache="index", block=block.id)),
            "flops": (
                core.model_copy(update={"span": chosen}),
                FlopTerm(name="index", per_pair=2 * heads * width),
            ),
        }
    )


def _experts(config: MinimaxM2Config, id: str, place: Place) -> Block:
    hidden, inner, width = config.hidden_size, config.intermediate_size, config.shared_width
    shared = WeightGroup(
        name="shared_experts", tensors=swiglu(hidden, max(width, 1), config.linear), tensor_axis=columns_axis(max(width, 1))
    )
    return experts(
        id,
        place,
        hidden=hidden,
        member=swiglu(hidden, inner, config.expert),
        axis=inner_axis(inner, config.expert),
        count=config.num_local_experts,
        active=config.num_experts_per_tok,
        wide=config.wide,
        router=(vector("e_score_correction_bias", config.num_local_experts, "fp32"),) if config.use_routing_bias else (),
        shared=(shared,) if width else (),
    )


def _router(config: MinimaxM2Config, shared: int) -> Router:
    return Router(experts=config.num_local_experts, active=config.num_experts_per_tok, shared=shared)


def build_m2(config: MinimaxM2Config, identity: Identity) -> Model:
    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        return [_attention(config, f"{prefix}attention", place), _experts(config, f"{prefix}experts", place)]

    body = stacked(["full"] * config.num_hidden_layers, layer)
    return model_of(config, identity, "minimax_m2", body, router=_router(config, 1 if config.shared_width else 0))


def build_m3(config: MinimaxM3Config, identity: Identity) -> Model:
    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        mix = _attention(config, f"{prefix}attention", place)
        if kind.startswith("sparse") and config.sparse_attention_config:
            mix = _indexed(mix, config, config.sparse_attention_config)
        if not kind.endswith("dense"):
            return [mix, _experts(config, f"{prefix}experts", place)]
        inner = config.dense_intermediate_size
        dense = gated_mlp(f"{prefix}mlp", place, hidden=config.hidden_size, inner=inner, wide=config.wide, linear=config.linear)
        return [mix, dense]

    router = _router(config, config.n_shared_experts if config.shared_width else 0) if any(config.moe_layer_freq) else None
    return model_of(config, identity, "minimax_m3", stacked(config.kinds(), layer), router=router)


M2 = Family("minimax_m2", MinimaxM2Config, build_m2)
M3 = Family("minimax_m3", MinimaxM3Config, build_m3)
