"""``model_type`` deepseek_v4: compressed attention over a shared key-value head, hash-routed layers, and mHC.

Every layer attends to its last ``sliding_window`` tokens. By ``compress_ratios`` a layer also keeps one entry for every 4
tokens, of which an indexer chooses ``index_topk`` (compressed sparse attention, CSA), or one for every 128, all read
(heavily compressed attention, HCA), or none (0). The entries come from a compressor with a state of unfinished tokens.
The residual has ``hc_mult`` streams (manifold-constrained hyper-connections, mHC). The experts of the first
``num_hash_layers`` layers are chosen by the token id, so they are known before the pass.

Shapes: huggingface/transformers ``models/deepseek_v4/modular_deepseek_v4.py``. State: vllm-project/vllm
``vllm/models/deepseek_v4/compressor.py``. Cache layouts: sgl-project/sglang ``deepseek_v4_memory_pool.py`` and
vllm-project/vllm-project.github.io ``_posts/2026-04-24-deepseek-v4.md``. With h heads of size d, attention costs 4hd FLOPs
per pair.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model
from planner.architecture.families import Family
from planner.architecture.families.common import (
    embedding_block,
    vector,
)
from planner.architecture.families.deepseek_v3 import index_cache
from planner.architecture.families.layers import Place, places
from planner.architecture.families.shared_head import (
    BLOCK_TOKENS,
    ENGINE_LAYOUTS,
    PAGE_ALIGN,
    SharedHeadConfig,
    core,
    experts,
    finish,
    hyper_connection,
    projections,
    window_cache,
)
from planner.architecture.parts import Cache, FlopTerm, Read, Span, Tensor, WeightGroup

OVERLAP = 2  # a CSA window covers the tokens of two strides
CSA, HCA = 4, 128


class DeepseekV4Config(SharedHeadConfig):
    num_hash_layers: Annotated[int, Field(ge=0, le=10_000)] = 0
    expert_dtype: Literal["fp4", "fp8"] | None = None

    @model_validator(mode="after")
    def _layers(self) -> DeepseekV4Config:
        unknown = sorted(set(self.compress_ratios) - {0, CSA, HCA})
        if unknown:
            raise ValueError(f"compress_ratios: {unknown[0]} is none of 0, {CSA} and {HCA}")
        if self.num_hash_layers > self.num_hidden_layers:
            raise ValueError(f"num_hash_layers: {self.num_hash_layers} is more than num_hidden_layers {self.num_hidden_layers}")
        return self

    @property
    def linear(self) -> str:
        """V4 stores the scales of its 128x128 blocks in one byte (scale_fmt ue8m0)."""
        stored = self.quantization_config.format if self.quantization_config else self.wide
        return "fp8_block128_e8m0" if stored == "fp8_block128" else stored

    @property
    def expert_format(self) -> str:
        return "mxfp4" if self.expert_dtype == "fp4" else self.linear


def build(config: DeepseekV4Config, identity: Identity) -> Model:
    names = {0: "window", CSA: "csa", HCA: "hca"}
    kinds = [
        ("hash_" if layer < config.num_hash_layers else "") + names[config.compress_ratios[layer]]
        for layer in range(config.num_hidden_layers)
    ]
    blocks = [embedding_block(config)]
    for kind, spot in places(kinds).items():
        ratio = config.compress_ratios[spot["first_layer"]]
        blocks += [
            attention(config, f"{kind}.attention", spot, ratio),
            experts(config, f"{kind}.experts", spot, hashed=kind.startswith("hash_")),
        ]
    return finish(config, identity, FAMILY.name, blocks)


def attention(config: DeepseekV4Config, id: str, spot: Place, ratio: int) -> Block:
    """Attention of a layer that keeps an entry for every ``ratio`` tokens (0: only the window)."""
    wide, hidden, width = config.wide, config.hidden_size, config.head_dim
    weights = [*projections(config), hyper_connection(config, "attention_streams")]
    caches, reads, terms = [window_cache(config)], [Read(cache="window", block=id, span=Span(window=config.sliding_window))], []
    pair = 4 * config.num_attention_heads * width
    terms.append(core(config, "window", Span(window=config.sliding_window)))
    if ratio:
        overlap = OVERLAP if ratio == CSA else 1
        weights.append(
            WeightGroup(name="compressor", tensors=_compressor("compressor", hidden, width * overlap, width, ratio, wide))
        )
        chosen = Span(ratio=ratio, cap=config.index_topk) if ratio == CSA else Span(ratio=ratio)
        caches.append(
            Cache(
                name="compressed",
                span=Span(ratio=ratio),
                elements=width,
                layouts=config.window_layouts,
                page_tokens=BLOCK_TOKENS,
                page_align=dict.fromkeys(ENGINE_LAYOUTS, PAGE_ALIGN),
            )
        )
        reads.append(Read(cache="compressed", block=id, span=chosen))
        terms.append(FlopTerm(name="compressed", per_pair=pair, span=chosen, tensor_axis=config.num_attention_heads))
        kept = ratio * overlap * 2 * width * overlap * 4
        if ratio == CSA:
            key, heads = config.index_head_dim, config.index_n_heads
            weights.append(
                WeightGroup(
                    name="indexer",
                    tensors=(
                        Tensor(name="indexer.q_b_proj", shape=(heads * key, config.q_lora_rank), format=config.linear),
                        Tensor(name="indexer.weights_proj", shape=(heads, hidden), format=wide),
                        *_compressor("indexer.compressor", hidden, key * overlap, key, ratio, wide),
                    ),
                )
            )
            caches.append(index_cache(key, BLOCK_TOKENS, ratio, PAGE_ALIGN))
            reads.append(Read(cache="index", block=id, span=Span(ratio=ratio)))
            terms.append(FlopTerm(name="index", per_pair=2 * heads * key, span=Span(ratio=ratio), dtype="fp4"))
            kept += ratio * overlap * 2 * key * overlap * 4
        caches.append(
            Cache(
                name="compressor_state",
                role="state",
                span=Span(cap=0),
                fixed_bytes=kept,
                fixed_writes=1 / (ratio * overlap),
                persist="checkpoint",
            )
        )
        reads.append(Read(cache="compressor_state", block=id, span=Span(cap=0), fixed=1 / ratio))
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=tuple(weights),
        caches=tuple(caches),
        reads=tuple(reads),
        flops=tuple(terms),
    )


def _compressor(name: str, hidden: int, width: int, entry: int, ratio: int, wide: str) -> tuple[Tensor, ...]:
    return (
        Tensor(name=f"{name}.kv_proj", shape=(width, hidden), format=wide),
        Tensor(name=f"{name}.gate_proj", shape=(width, hidden), format=wide),
        Tensor(name=f"{name}.position_bias", shape=(ratio, width), format="fp32"),
        vector(f"{name}.kv_norm", entry, wide),
    )


FAMILY = Family("deepseek_v4", DeepseekV4Config, build)
