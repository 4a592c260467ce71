"""What DeepSeek-V4 and V4.1 have in common: a shared key-value head beside a window cache, experts, streams, draft module.

Shapes: huggingface/transformers ``models/deepseek_v4/modular_deepseek_v4.py``. Cache layouts: sgl-project/sglang
``deepseek_v4_memory_pool.py`` and vllm-project/vllm-project.github.io ``_posts/2026-04-24-deepseek-v4.md``. With h heads of
size d, attention costs 4hd FLOPs per pair.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Edge, Identity, Model, Router, Speculation
from planner.architecture.families.common import (
    Experts,
    FamilyConfig,
    Heads,
    Width,
    chain,
    columns_axis,
    embedding_group,
    head_block,
    must_divide,
    swiglu,
    vector,
)
from planner.architecture.families.deepseek_v3 import mtp_speculation
from planner.architecture.families.layers import Place, exchange, place
from planner.architecture.parts import Cache, FlopTerm, Read, Span, Tensor, WeightGroup

BLOCK_TOKENS = 256  # vLLM's V4 block: 64 entries of a ratio-4 page, 2 of a ratio-128 page
PAGE_ALIGN = 576  # bytes; vLLM pads V4 pages to a multiple of it
WINDOW_PAGE_TOKENS = 64
ENGINE_LAYOUTS = ("fp8_ds_mla", "fp8_ds_mla_fp4")


class SharedHeadConfig(FamilyConfig):
    """Fields that DeepSeek-V4 and V4.1 share."""

    num_attention_heads: Heads
    num_key_value_heads: Literal[1] = 1
    head_dim: Width
    qk_rope_head_dim: Width
    q_lora_rank: Width
    o_lora_rank: Width
    o_groups: Heads
    sliding_window: Width
    index_n_heads: Heads
    index_head_dim: Width
    index_topk: Width
    compress_ratios: Annotated[list[Annotated[int, Field(ge=0, le=2**16)]], Field(max_length=11_000)]
    moe_intermediate_size: Width
    n_routed_experts: Experts
    n_shared_experts: Annotated[int, Field(ge=0, le=2**10)] = 1
    num_experts_per_tok: Experts
    hc_mult: Annotated[int, Field(gt=0, le=64)] = 1
    num_nextn_predict_layers: Annotated[int, Field(ge=0, le=64)] = 0
    dspark_block_size: Annotated[int, Field(gt=0, le=64)] | None = None
    dspark_target_layer_ids: Annotated[list[int], Field(min_length=1, max_length=64)] | None = None
    dspark_markov_rank: Width = 256
    dspark_n_routed_experts: Experts | None = None
    dspark_num_experts_per_tok: Experts | None = None

    @model_validator(mode="after")
    def _shapes(self) -> SharedHeadConfig:
        must_divide("num_attention_heads", self.num_attention_heads, "o_groups", self.o_groups)
        if self.qk_rope_head_dim > self.head_dim:
            raise ValueError(f"qk_rope_head_dim: {self.qk_rope_head_dim} is more than head_dim {self.head_dim}")
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(f"num_experts_per_tok: {self.num_experts_per_tok} is more than n_routed_experts")
        lengths = (self.num_hidden_layers, self.num_hidden_layers + self.num_nextn_predict_layers)
        if len(self.compress_ratios) not in lengths:
            raise ValueError(
                f"compress_ratios: has {len(self.compress_ratios)} entries for num_hidden_layers {lengths[0]}"
                f" and num_nextn_predict_layers {self.num_nextn_predict_layers}"
            )
        return self

    @property
    def expert_format(self) -> str:
        """The format of routed experts."""
        return self.linear

    @property
    def streams(self) -> int:
        """Elements of the residual: hyper-connections carry several streams."""
        return self.hc_mult * self.hidden_size

    @property
    def window_layouts(self) -> dict[str, int]:
        """Bytes per entry. ``fp8_ds_mla``: FP8, rope in BF16, a scale byte per 64 of the FP8 part padded to 8 bytes (584 for
        448 + 64); ``fp8_ds_mla_fp4`` is the same beside FP4 index keys."""
        width, rope = self.head_dim, self.qk_rope_head_dim
        engine = (width - rope) + 2 * rope + ceil(ceil((width - rope) / 64) / 8) * 8
        return {"bf16": 2 * width, "fp8": width} | dict.fromkeys(ENGINE_LAYOUTS, engine)


def finish(config: SharedHeadConfig, identity: Identity, family: str, body: list[Block]) -> Model:
    """The model of embedding and layers: head, draft module and edges added."""
    blocks = [*body, head(config)]
    draft, speculation = _draft(config)
    sent = "fp8" if config.quantization_config else config.wide
    edges = chain(blocks, config.streams, config.wide) + exchange(blocks, config.hidden_size, config.wide, sent)
    if draft:
        sources = (body[0].id,) if config.dspark_target_layer_ids else (body[0].id, body[-1].id)
        width = config.hidden_size
        edges += [Edge(source=s, target=draft[0].id, kind="draft", elements_per_token=width, dtype=config.wide) for s in sources]
        if config.dspark_target_layer_ids:
            width *= len(config.dspark_target_layer_ids)
            edges.append(Edge(source=body[-1].id, target=draft[0].id, kind="draft", elements_per_token=width, dtype=config.wide))
        edges += chain(draft, config.streams, config.wide) + exchange(draft, config.hidden_size, config.wide, sent)
    return Model(
        **identity.model_dump(),
        family=family,
        hidden_size=config.hidden_size,
        vocabulary=config.vocab_size,
        layers=config.num_hidden_layers,
        max_context=config.max_position_embeddings,
        router=Router(experts=config.n_routed_experts, active=config.num_experts_per_tok, shared=config.n_shared_experts),
        speculation=speculation,
        blocks=(*blocks, *draft),
        edges=tuple(edges),
    )


def core(config: SharedHeadConfig, name: str, span: Span) -> FlopTerm:
    """Scores and values of all heads over the entries of ``span``."""
    return FlopTerm(
        name=name,
        per_pair=4 * config.num_attention_heads * config.head_dim,
        span=span,
        tensor_axis=config.num_attention_heads,
    )


def projections(config: SharedHeadConfig) -> list[WeightGroup]:
    """Low-rank queries, one key-value head, and the grouped low-rank output."""
    hidden, heads, width, rank, linear, wide = (
        config.hidden_size,
        config.num_attention_heads,
        config.head_dim,
        config.q_lora_rank,
        config.linear,
        config.wide,
    )
    out = config.o_groups * config.o_lora_rank
    return [
        WeightGroup(
            name="low_rank",
            tensors=(
                vector("input_layernorm", hidden, wide),
                Tensor(name="q_a_proj", shape=(rank, hidden), format=linear),
                vector("q_norm", rank, wide),
                Tensor(name="kv_proj", shape=(width, hidden), format=linear),
                vector("kv_norm", width, wide),
            ),
        ),
        WeightGroup(
            name="heads",
            tensors=(
                Tensor(name="q_b_proj", shape=(heads * width, rank), format=linear),
                vector("sinks", heads, "fp32"),
            ),
            tensor_axis=heads,
        ),
        WeightGroup(
            name="output",
            tensors=(
                Tensor(name="o_a_proj", shape=(out, heads * width // config.o_groups), format=linear),
                Tensor(name="o_b_proj", shape=(hidden, out), format=linear),
            ),
            tensor_axis=config.o_groups,
        ),
    ]


def hyper_connection(config: SharedHeadConfig, name: str) -> WeightGroup:
    """What mixes the residual streams into and out of one sublayer."""
    mix = (2 + config.hc_mult) * config.hc_mult
    return WeightGroup(
        name=name,
        tensors=(
            Tensor(name="fn", shape=(mix, config.streams), format="fp32"),
            vector("base", mix, "fp32"),
            vector("scale", 3, "fp32"),
        ),
    )


def window_cache(config: SharedHeadConfig) -> Cache:
    """The last ``sliding_window`` tokens; kept on disk only as checkpoints (DeepSeek-V4 report section 3.6.2)."""
    layouts = config.window_layouts
    return Cache(
        name="window",
        span=Span(window=config.sliding_window),
        elements=config.head_dim,
        layouts=layouts,
        page_tokens=WINDOW_PAGE_TOKENS,
        page_align={name: PAGE_ALIGN for name in layouts if name in ENGINE_LAYOUTS},
        persist="checkpoint",
    )


def experts(
    config: SharedHeadConfig, id: str, spot: Place, *, hashed: bool = False, routed: int = 0, active: int = 0, biases: int = 1
) -> Block:
    """Experts of a layer; with ``hashed`` a table gives those of each token id, else a learned gate and ``biases``."""
    hidden, inner, wide = config.hidden_size, config.moe_intermediate_size, config.wide
    count, chosen = routed or config.n_routed_experts, active or config.num_experts_per_tok
    router = [
        vector("post_attention_layernorm", hidden, wide),
        Tensor(name="gate", shape=(count, hidden), format=wide),
    ]
    groups = [hyper_connection(config, "mlp_streams")]
    if hashed:
        table = Tensor(name="tid2eid", shape=(config.vocab_size, chosen), format="int64")
        groups.append(
            WeightGroup(
                name="expert_table", tensors=(table,), access="lookup", address="token", rows=config.vocab_size, rows_per_token=1
            )
        )
    else:
        router += [vector(f"bias{number or ''}", count, "fp32") for number in range(biases)]
    groups.append(WeightGroup(name="router", tensors=tuple(router)))
    if config.n_shared_experts:
        width = inner * config.n_shared_experts
        groups.append(
            WeightGroup(name="shared_experts", tensors=swiglu(hidden, width, config.linear), tensor_axis=columns_axis(width))
        )
    groups.append(
        WeightGroup(
            name="experts",
            tensors=swiglu(hidden, inner, config.expert_format),
            count=count,
            active=chosen,
            access="routed",
            address="token" if hashed else "activation",
            tensor_axis=columns_axis(inner),
        )
    )
    return Block(id=id, kind="moe", **spot, weights=tuple(groups))


def head(config: SharedHeadConfig) -> Block:
    """Collapse of the residual streams, norm and output projection."""
    block = head_block(config)
    return block.model_copy(update={"weights": (_collapse(config), *block.weights)})


def _collapse(config: SharedHeadConfig) -> WeightGroup:
    return WeightGroup(
        name="streams",
        tensors=(
            Tensor(name="hc_fn", shape=(config.hc_mult, config.streams), format="fp32"),
            vector("hc_base", config.hc_mult, "fp32"),
            vector("hc_scale", 1, "fp32"),
        ),
    )


def _draft(config: SharedHeadConfig) -> tuple[list[Block], Speculation | None]:
    """MTP modules as in DeepSeek-V3 (window attention), or the layers of a DSpark block drafter.

    DSpark: states of the target layers projected to one, ``num_nextn_predict_layers`` layers, and on the last a low-rank
    Markov head and a confidence head; one pass drafts ``dspark_block_size`` tokens (transformers ``deepseek_v41``).
    """
    hidden, wide, layers, depth = config.hidden_size, config.wide, config.num_hidden_layers, config.num_nextn_predict_layers
    targets = config.dspark_target_layer_ids
    stages = len(targets) if targets and not depth else depth
    if not stages:
        return [], None
    spot = place(range(layers, layers + stages), draft=True)
    table = "head/lm_head" if config.tie_word_embeddings else "embedding/table"
    lookup = embedding_group(config, shares=table)
    fuse: tuple[Tensor, ...]
    if targets:
        fuse = (
            Tensor(name="main_proj", shape=(hidden, len(targets) * hidden), format=config.linear),
            vector("main_norm", hidden, wide),
        )
        inputs = Block(
            id="draft.input",
            kind="draft",
            first_layer=layers,
            layers=1,
            draft=True,
            weights=(WeightGroup(name="projection", tensors=fuse), lookup),
        )
    else:
        fuse = (
            vector("enorm", hidden, wide),
            vector("hnorm", hidden, wide),
            Tensor(name="e_proj", shape=(hidden, hidden), format=config.linear),
            Tensor(name="h_proj", shape=(hidden, hidden), format=config.linear),
        )
        inputs = Block(
            id="draft.input",
            kind="draft",
            first_layer=layers,
            layers=stages,
            draft=True,
            weights=(WeightGroup(name="projection", tensors=fuse), lookup),
        )
    last = head_block(config, "draft.head", layers=1 if targets else stages, draft=True, shares="head/lm_head")
    extra = [_collapse(config)]
    if targets:
        rank = config.dspark_markov_rank
        markov = Tensor(name="markov_w2", shape=(config.vocab_size, rank), format=wide)
        extra += [
            WeightGroup(
                name="markov_table",
                tensors=(Tensor(name="markov_w1", shape=(config.vocab_size, rank), format=wide),),
                access="lookup",
                address="token",
                rows=config.vocab_size,
                rows_per_token=1,
                counted_active=False,
            ),
            WeightGroup(
                name="markov",
                tensors=(markov, Tensor(name="confidence", shape=(1, hidden + rank), format=wide)),
            ),
        ]
    blocks = [
        inputs,
        _window_attention(config, "draft.attention", spot),
        experts(
            config,
            "draft.experts",
            spot,
            routed=config.dspark_n_routed_experts or 0,
            active=config.dspark_num_experts_per_tok or 0,
        ),
        last.model_copy(update={"weights": (*extra, *last.weights)}),
    ]
    if targets:
        block = config.dspark_block_size or 1
        return blocks, mtp_speculation(block, of_v3=False, per_pass=block)
    return blocks, mtp_speculation(depth, of_v3=False)


def _window_attention(config: SharedHeadConfig, id: str, spot: Place) -> Block:
    span = Span(window=config.sliding_window)
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=(*projections(config), hyper_connection(config, "attention_streams")),
        caches=(window_cache(config),),
        reads=(Read(cache="window", block=id, span=span),),
        flops=(core(config, "window", span),),
    )
