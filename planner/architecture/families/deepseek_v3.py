"""``model_type`` deepseek_v3: multi-head latent attention (MLA), a mixture of experts after some dense layers, and
multi-token-prediction (MTP) draft modules.

Shapes: deepseek-ai/DeepSeek-V3 ``inference/model.py`` and ``README_WEIGHTS.md``; field meanings:
huggingface/transformers ``models/deepseek_v3/configuration_deepseek_v3.py``. With h heads, latent rank r, and head
sizes nope, rope and v, attention of one layer costs per pair of new token and entry

- absorbed (attends in the latent space): 2h(r + rope) + 2hr = 2h(2r + rope) FLOPs
- expanded (rebuilds keys and values): 2h(nope + rope + v) FLOPs, and per chunk 2rh(nope + v) for each cached token
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import (
    Block,
    Cache,
    Edge,
    FlopTerm,
    Identity,
    Model,
    Read,
    Router,
    Speculation,
    Tensor,
    WeightGroup,
)
from planner.architecture.families import Family
from planner.architecture.families.common import (
    Experts,
    FamilyConfig,
    Heads,
    Width,
    chain,
    columns_axis,
    embedding_block,
    embedding_group,
    head_block,
    must_divide,
    swiglu,
    vector,
)
from planner.quantities import Figure

MLA_PAGE_TOKENS = 64  # vLLM's FlashMLA backend: block_size 64
REPORT = "DeepSeek-V3 Technical Report (arXiv:2412.19437) section 5.4.3"
REPORT_DATE = date(2024, 12, 27)


class DeepseekV3Config(FamilyConfig):
    intermediate_size: Width
    num_attention_heads: Heads
    q_lora_rank: Width | None = None
    kv_lora_rank: Width
    qk_nope_head_dim: Width
    qk_rope_head_dim: Width
    v_head_dim: Width
    attention_bias: bool = False
    first_k_dense_replace: Annotated[int, Field(ge=0)]
    moe_layer_freq: Literal[1] = 1
    moe_intermediate_size: Width
    n_routed_experts: Experts
    n_shared_experts: Annotated[int, Field(ge=0, le=2**10)] | None = None
    num_experts_per_tok: Experts
    n_group: Experts
    topk_group: Experts
    topk_method: str = "noaux_tc"
    num_nextn_predict_layers: Annotated[int, Field(ge=0, le=64)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> DeepseekV3Config:
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ValueError(
                f"first_k_dense_replace: {self.first_k_dense_replace} is more than num_hidden_layers {self.num_hidden_layers}"
            )
        must_divide("n_routed_experts", self.n_routed_experts, "n_group", self.n_group)
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group: {self.topk_group} is more than n_group {self.n_group}")
        reach = self.n_routed_experts // self.n_group * self.topk_group
        if self.num_experts_per_tok > reach:
            raise ValueError(
                f"num_experts_per_tok: {self.num_experts_per_tok} is more than the {reach} experts of topk_group groups"
            )
        return self


def build(config: DeepseekV3Config, identity: Identity) -> Model:
    layers, dense = config.num_hidden_layers, config.first_k_dense_replace
    blocks = [embedding_block(config)]
    if dense:
        blocks += [_attention(config, "dense.attention", 0, dense), _dense_mlp(config, dense)]
    if layers > dense:
        blocks += [
            _attention(config, "moe.attention", dense, layers - dense),
            _experts(config, "moe.experts", dense, layers - dense),
        ]
    body = len(blocks)
    blocks.append(head_block(config))
    edges = chain(blocks, config.hidden_size, config.wide)
    if config.num_nextn_predict_layers:
        draft = _draft(config)
        edges += [
            Edge(source=source, target=draft[0].id, kind="draft", elements_per_token=config.hidden_size, dtype=config.wide)
            for source in ("embedding", blocks[body - 1].id)
        ]
        edges += chain(draft, config.hidden_size, config.wide)
        blocks += draft
    edges += _exchange(config, blocks)
    return Model(
        **identity.model_dump(),
        family=FAMILY.name,
        hidden_size=config.hidden_size,
        vocabulary=config.vocab_size,
        layers=layers,
        max_context=config.max_position_embeddings,
        router=_router(config) if any(block.kind == "moe" for block in blocks) else None,
        speculation=_speculation(config.num_nextn_predict_layers),
        blocks=tuple(blocks),
        edges=tuple(edges),
    )


def _attention(config: DeepseekV3Config, id: str, first_layer: int, layers: int, *, draft: bool = False) -> Block:
    hidden, heads, rank, wide, linear = (
        config.hidden_size,
        config.num_attention_heads,
        config.kv_lora_rank,
        config.wide,
        config.linear,
    )
    nope, rope, value = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim
    low_rank = [
        vector("input_layernorm", hidden, wide),
        Tensor(name="kv_a_proj_with_mqa", shape=(rank + rope, hidden), format=linear),
        vector("kv_a_layernorm", rank, wide),
    ]
    if config.q_lora_rank:
        low_rank += [
            Tensor(name="q_a_proj", shape=(config.q_lora_rank, hidden), format=linear),
            vector("q_a_layernorm", config.q_lora_rank, wide),
        ]
        query = Tensor(name="q_b_proj", shape=(heads * (nope + rope), config.q_lora_rank), format=linear)
    else:
        query = Tensor(name="q_proj", shape=(heads * (nope + rope), hidden), format=linear)
    if config.attention_bias:
        low_rank += [vector("kv_a_proj_with_mqa.bias", rank + rope, wide), vector("o_proj.bias", hidden, wide)]
        low_rank += [vector("q_a_proj.bias", config.q_lora_rank, wide)] if config.q_lora_rank else []
    by_head = (
        query,
        Tensor(name="kv_b_proj", shape=(heads * (nope + value), rank), format=linear),
        Tensor(name="o_proj", shape=(hidden, heads * value), format=linear),
    )
    return Block(
        id=id,
        kind="attention",
        first_layer=first_layer,
        layers=layers,
        draft=draft,
        weights=(
            WeightGroup(name="low_rank", tensors=tuple(low_rank)),
            WeightGroup(name="heads", tensors=by_head, tensor_axis=heads),
        ),
        caches=(Cache(name="latent", elements=rank + rope, layouts=_layouts(rank, rope), page_tokens=MLA_PAGE_TOKENS),),
        reads=(Read(cache="latent", block=id),),
        flops=(
            FlopTerm(name="attention", mode="absorbed", per_pair=2 * heads * (2 * rank + rope), tensor_axis=heads),
            FlopTerm(
                name="attention",
                mode="expanded",
                phases=("prefill",),
                per_pair=2 * heads * (nope + rope + value),
                per_cached_token=2 * rank * heads * (nope + value),
                tensor_axis=heads,
            ),
        ),
    )


def _layouts(rank: int, rope: int) -> dict[str, int]:
    """Bytes per entry. ``fp8_ds_mla`` (vLLM kv_cache_interface.py): FP8 latent, an FP32 scale per 128 of it, BF16 rope."""
    layouts = {"bf16": 2 * (rank + rope), "fp8": rank + rope}
    if rank % 128 == 0:
        layouts["fp8_ds_mla"] = rank + rank // 128 * 4 + 2 * rope
    return layouts


def _dense_mlp(config: DeepseekV3Config, layers: int) -> Block:
    hidden, inner = config.hidden_size, config.intermediate_size
    return Block(
        id="dense.mlp",
        kind="mlp",
        first_layer=0,
        layers=layers,
        weights=(
            WeightGroup(name="norm", tensors=(vector("post_attention_layernorm", hidden, config.wide),)),
            WeightGroup(name="mlp", tensors=swiglu(hidden, inner, config.linear), tensor_axis=columns_axis(inner)),
        ),
    )


def _experts(config: DeepseekV3Config, id: str, first_layer: int, layers: int, *, draft: bool = False) -> Block:
    hidden, inner, wide = config.hidden_size, config.moe_intermediate_size, config.wide
    router = [
        vector("post_attention_layernorm", hidden, wide),
        Tensor(name="gate", shape=(config.n_routed_experts, hidden), format=wide),
    ]
    if config.topk_method == "noaux_tc":
        router.append(vector("e_score_correction_bias", config.n_routed_experts, "fp32"))
    groups = [WeightGroup(name="router", tensors=tuple(router))]
    if config.n_shared_experts:
        width = inner * config.n_shared_experts
        groups.append(
            WeightGroup(name="shared_experts", tensors=swiglu(hidden, width, config.linear), tensor_axis=columns_axis(width))
        )
    groups.append(
        WeightGroup(
            name="experts",
            tensors=swiglu(hidden, inner, config.linear),
            count=config.n_routed_experts,
            active=config.num_experts_per_tok,
            access="routed",
            address="activation",
            tensor_axis=columns_axis(inner),
        )
    )
    return Block(id=id, kind="moe", first_layer=first_layer, layers=layers, draft=draft, weights=tuple(groups))


def _draft(config: DeepseekV3Config) -> list[Block]:
    """The MTP modules: norms and projection of [embedding, hidden state], one MoE layer, a norm before the shared head."""
    hidden, wide, layers, modules = config.hidden_size, config.wide, config.num_hidden_layers, config.num_nextn_predict_layers
    projection = (
        vector("enorm", hidden, wide),
        vector("hnorm", hidden, wide),
        Tensor(name="eh_proj", shape=(hidden, 2 * hidden), format=wide),
    )
    table = "head/lm_head" if config.tie_word_embeddings else "embedding/table"
    return [
        Block(
            id="draft.input",
            kind="draft",
            first_layer=layers,
            layers=modules,
            draft=True,
            weights=(WeightGroup(name="projection", tensors=projection), embedding_group(config, shares=table)),
        ),
        _attention(config, "draft.attention", layers, modules, draft=True),
        _experts(config, "draft.experts", layers, modules, draft=True),
        head_block(config, "draft.head", layers=modules, draft=True, shares="head/lm_head"),
    ]


def _exchange(config: DeepseekV3Config, blocks: list[Block]) -> list[Edge]:
    """Per token and chosen expert: the normed state out (in FP8 where experts are FP8) and the expert's output back.

    FP8 dispatch and BF16 combine: DeepSeek-V3 Technical Report section 3.3.3.
    """
    out = "fp8" if config.linear.startswith("fp8") else config.wide
    edges = []
    for before, block, after in zip(blocks, blocks[1:], blocks[2:], strict=False):
        if block.kind == "moe":
            edges += [
                Edge(source=before.id, target=block.id, kind="dispatch", elements_per_token=config.hidden_size, dtype=out),
                Edge(source=block.id, target=after.id, kind="combine", elements_per_token=config.hidden_size, dtype=config.wide),
            ]
    return edges


def _router(config: DeepseekV3Config) -> Router:
    return Router(
        experts=config.n_routed_experts,
        active=config.num_experts_per_tok,
        shared=config.n_shared_experts or 0,
        groups=config.n_group,
        active_groups=config.topk_group,
    )


def _speculation(depth: int) -> Speculation | None:
    if depth == 0:
        return None
    first = Figure(
        value=0.875,
        low=0.85,
        high=0.90,
        source=REPORT,
        as_of=REPORT_DATE,
        grade="B",
        note="85 to 90 % of second tokens over topics; the middle is taken",
    )
    later = Figure(
        value=0.75,
        low=0.5,
        high=0.875,
        source=REPORT,
        as_of=REPORT_DATE,
        grade="D",
        note="assumed: only the first draft token was published",
    )
    return Speculation(depth=depth, acceptance=(first, *[later] * (depth - 1)))


FAMILY = Family("deepseek_v3", DeepseekV3Config, build)
