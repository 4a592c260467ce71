"""``model_type`` deepseek_v3: multi-head latent attention (MLA), a mixture of experts after some dense layers, and
multi-token-prediction (MTP) draft modules.

Shapes: deepseek-ai/DeepSeek-V3 ``inference/model.py`` and ``README_WEIGHTS.md``; field meanings:
huggingface/transformers ``models/deepseek_v3/configuration_deepseek_v3.py``. With h heads, latent rank r, and head
sizes nope, rope and v, attention of one layer costs per pair of new token and entry

- absorbed (attends in the latent space): 2h(r + rope) + 2hr = 2h(2r + rope) FLOPs
- expanded (rebuilds keys and values): 2h(nope + rope + v) FLOPs, and per chunk 2rh(nope + v) for each cached token

The builders here also serve the families that add an indexer (DeepSeek sparse attention, DSA): a cheap score of every
cached token, after which attention reads ``index_topk`` entries.
"""

from __future__ import annotations

from datetime import date
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Edge, Identity, Model, Router, Speculation
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
from planner.architecture.families.layers import Place, exchange, place, places
from planner.architecture.parts import Cache, FlopTerm, Read, Span, Tensor, WeightGroup
from planner.quantities import Figure

MLA_PAGE_TOKENS = 64  # vLLM's FlashMLA backend: block_size 64
REPORT = "DeepSeek-V3 Technical Report (arXiv:2412.19437) section 5.4.3"
REPORT_DATE = date(2024, 12, 27)


class Indexer(NamedTuple):
    """Heads, key width and selected entries of a DSA indexer."""

    heads: int
    head_dim: int
    topk: int


class DeepseekV3Config(FamilyConfig):
    experts_apart: ClassVar[bool] = True
    attention_left: ClassVar[bool] = True
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
        left = self.quantization_config.layers_apart if self.quantization_config else frozenset()
        if left - {self.num_hidden_layers}:
            raise ValueError(f"quantization_config.ignore: layer {min(left)} cannot be kept apart, only the draft layer can")
        reach = self.n_routed_experts // self.n_group * self.topk_group
        if self.num_experts_per_tok > reach:
            raise ValueError(
                f"num_experts_per_tok: {self.num_experts_per_tok} is more than the {reach} experts of topk_group groups"
            )
        return self

    @property
    def indexer(self) -> Indexer | None:
        """The indexer of layers that have one."""
        return None

    @property
    def gated(self) -> bool:
        """Whether a projection of the input gates the output of attention, value by value."""
        return False

    def indexed(self, layer: int) -> bool:
        """Whether that layer scores by itself; one that does not uses the choice of the layer before it."""
        return True


def build_latent(config: DeepseekV3Config, identity: Identity, family: str) -> Model:
    """The model of any family with latent attention and experts after ``first_k_dense_replace`` dense layers."""
    layers, dense = config.num_hidden_layers, config.first_k_dense_replace
    kinds = [
        ("dense" if layer < dense else "moe") + ("" if config.indexer is None or config.indexed(layer) else "_shared")
        for layer in range(layers)
    ]
    blocks = [embedding_block(config)]
    for kind, spot in places(kinds).items():
        own = config.indexer is None or not kind.endswith("_shared")
        blocks.append(latent_attention(config, f"{kind}.attention", spot, own_index=own))
        feed = dense_mlp(config, f"{kind}.mlp", spot) if kind.startswith("dense") else _experts(config, f"{kind}.experts", spot)
        blocks.append(feed)
    body = len(blocks)
    blocks.append(head_block(config))
    edges = chain(blocks, config.hidden_size, config.wide)
    if config.num_nextn_predict_layers:
        kept = config.quantization_config is not None and config.num_hidden_layers in config.quantization_config.layers_apart
        draft = _draft(config.model_copy(update={"quantization_config": None}) if kept else config)
        edges += [
            Edge(source=source, target=draft[0].id, kind="draft", elements_per_token=config.hidden_size, dtype=config.wide)
            for source in ("embedding", blocks[body - 1].id)
        ]
        edges += chain(draft, config.hidden_size, config.wide)
        blocks += draft
    edges += exchange(blocks, config.hidden_size, config.wide)
    return Model(
        **identity.model_dump(),
        family=family,
        hidden_size=config.hidden_size,
        vocabulary=config.vocab_size,
        layers=layers,
        max_context=config.max_position_embeddings,
        router=_router(config) if any(block.kind == "moe" for block in blocks) else None,
        speculation=mtp_speculation(config.num_nextn_predict_layers, of_v3=family == "deepseek_v3"),
        blocks=tuple(blocks),
        edges=tuple(edges),
    )


def latent_attention(config: DeepseekV3Config, id: str, spot: Place, *, own_index: bool = True) -> Block:
    """One latent attention block; without ``own_index`` it attends to what an earlier layer's indexer chose."""
    hidden, heads, rank, wide, linear = (
        config.hidden_size,
        config.num_attention_heads,
        config.kv_lora_rank,
        config.wide,
        config.wide if config.quantization_config and config.quantization_config.attention_apart else config.linear,
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
        *((Tensor(name="g_proj", shape=(heads * value, hidden), format=linear),) if config.gated else ()),
    )
    weights = [
        WeightGroup(name="low_rank", tensors=tuple(low_rank)),
        WeightGroup(name="heads", tensors=by_head, tensor_axis=heads),
    ]
    caches = [Cache(name="latent", elements=rank + rope, layouts=_layouts(config), page_tokens=MLA_PAGE_TOKENS)]
    chosen = Span(cap=config.indexer.topk) if config.indexer else Span()
    reads = [Read(cache="latent", block=id, span=chosen)]
    flops = []
    if config.indexer and own_index:
        weights.append(_index_weights(config, config.indexer))
        caches.append(index_cache(config.indexer.head_dim, MLA_PAGE_TOKENS))
        reads.append(Read(cache="index", block=id))
        flops.append(FlopTerm(name="index", per_pair=2 * config.indexer.heads * config.indexer.head_dim, dtype="fp8"))
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=tuple(weights),
        caches=tuple(caches),
        reads=tuple(reads),
        flops=(
            *flops,
            FlopTerm(name="attention", mode="absorbed", per_pair=2 * heads * (2 * rank + rope), span=chosen, tensor_axis=heads),
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


def _index_weights(config: DeepseekV3Config, indexer: Indexer) -> WeightGroup:
    """deepseek-ai/DeepSeek-V3.2-Exp inference/model.py class Indexer; every tensor-parallel rank scores with all heads."""
    hidden, width = config.hidden_size, indexer.heads * indexer.head_dim
    return WeightGroup(
        name="indexer",
        tensors=(
            Tensor(name="indexer.wq_b", shape=(width, config.q_lora_rank or hidden), format=config.linear),
            Tensor(name="indexer.wk", shape=(indexer.head_dim, hidden), format=config.linear),
            vector("indexer.k_norm", indexer.head_dim, config.wide),
            vector("indexer.k_norm.bias", indexer.head_dim, config.wide),
            Tensor(name="indexer.weights_proj", shape=(indexer.heads, hidden), format=config.wide),
        ),
    )


def _layouts(config: DeepseekV3Config) -> dict[str, int]:
    """Bytes per entry. ``fp8_ds_mla`` (vLLM kv_cache_interface.py): FP8 latent, an FP32 scale per 128 of it, BF16 rope;
    ``fp8_ds_mla_fp4`` is the same beside FP4 index keys."""
    rank, rope = config.kv_lora_rank, config.qk_rope_head_dim
    layouts = {"bf16": 2 * (rank + rope), "fp8": rank + rope}
    if rank % 128 == 0:
        layouts["fp8_ds_mla"] = rank + rank // 128 * 4 + 2 * rope
        if config.indexer:
            layouts["fp8_ds_mla_fp4"] = layouts["fp8_ds_mla"]
    return layouts


def index_cache(head_dim: int, page_tokens: int, ratio: int = 1, page_align: int = 1) -> Cache:
    """Keys of an indexer. With scales: FP8 and 4 bytes (132 for 128), FP4 and 4 bytes (68): sglang
    deepseek_v4_memory_pool.py."""
    layouts = {
        "bf16": 2 * head_dim,
        "fp8": head_dim,
        "fp8_ds_mla": head_dim + -(-head_dim // 128) * 4,
        "fp8_ds_mla_fp4": -(-head_dim // 2) + -(-head_dim // 32),
    }
    return Cache(
        name="index",
        role="index",
        span=Span(ratio=ratio),
        elements=head_dim,
        layouts=layouts,
        page_tokens=page_tokens,
        page_align={} if page_align == 1 else {"fp8_ds_mla": page_align, "fp8_ds_mla_fp4": page_align},
    )


def dense_mlp(config: DeepseekV3Config, id: str, spot: Place) -> Block:
    hidden, inner = config.hidden_size, config.intermediate_size
    return Block(
        id=id,
        kind="mlp",
        **spot,
        weights=(
            WeightGroup(name="norm", tensors=(vector("post_attention_layernorm", hidden, config.wide),)),
            WeightGroup(name="mlp", tensors=swiglu(hidden, inner, config.linear), tensor_axis=columns_axis(inner)),
        ),
    )


def _experts(config: DeepseekV3Config, id: str, spot: Place) -> Block:
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
            tensors=swiglu(hidden, inner, config.expert),
            count=config.n_routed_experts,
            active=config.num_experts_per_tok,
            access="routed",
            address="activation",
            tensor_axis=columns_axis(inner),
        )
    )
    return Block(id=id, kind="moe", **spot, weights=tuple(groups))


def _draft(config: DeepseekV3Config) -> list[Block]:
    """The MTP modules: norms and projection of [embedding, hidden state], one MoE layer, a norm before the shared head."""
    hidden, wide, layers, modules = config.hidden_size, config.wide, config.num_hidden_layers, config.num_nextn_predict_layers
    projection = (
        vector("enorm", hidden, wide),
        vector("hnorm", hidden, wide),
        Tensor(name="eh_proj", shape=(hidden, 2 * hidden), format=wide),
    )
    spot = place(range(layers, layers + modules), draft=True)
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
        latent_attention(config, "draft.attention", spot),
        _experts(config, "draft.experts", spot),
        head_block(config, "draft.head", layers=modules, draft=True, shares="head/lm_head"),
    ]


def _router(config: DeepseekV3Config) -> Router:
    return Router(
        experts=config.n_routed_experts,
        active=config.num_experts_per_tok,
        shared=config.n_shared_experts or 0,
        groups=config.n_group,
        active_groups=config.topk_group,
    )


def mtp_speculation(depth: int, *, of_v3: bool, per_pass: int = 1) -> Speculation | None:
    """DeepSeek-V3's published acceptance of the first draft token, borrowed (grade C, wider) by models that published none;
    later tokens are assumed."""
    if depth == 0:
        return None
    first = Figure(
        value=0.875,
        low=0.85 if of_v3 else 0.7,
        high=0.90,
        source=REPORT,
        as_of=REPORT_DATE,
        grade="B" if of_v3 else "C",
        note="85 to 90 % of second tokens over topics; the middle is taken"
        + ("" if of_v3 else "; DeepSeek-V3's, none is published"),
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
    return Speculation(depth=depth, acceptance=(first, *[later] * (depth - 1)), per_pass=per_pass)


FAMILY = Family("deepseek_v3", DeepseekV3Config, partial(build_latent, family="deepseek_v3"))
