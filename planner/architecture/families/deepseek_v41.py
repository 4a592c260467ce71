"""``model_type`` deepseek_v41: an encoder and a decoder over one shared compressed cache, and Engram tables.

Every layer attends to its window. Layers with a ratio in ``compress_ratios`` also attend to ``index_topk`` entries of a
compressed cache that only the layers of ``kv_source_layer_ids`` own; those between read the one of the source before them.
Layers of ``index_source_layer_ids`` choose the entries, later ones among the candidates that the candidate source kept.
Ratios above 1 are the encoder, which alone runs in prefill; the decoder's cache (ratio 1) is projected once, by its source.
Layers of ``engram_layer_ids`` first add rows of hashed n-gram tables to the residual.

Shapes: huggingface/transformers ``models/deepseek_v41/modular_deepseek_v41.py``. The caches are stored quantised as the model
was trained: window FP8 with a scale byte per 32, entries FP4 with one per 16, index keys FP4 with one per 32.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model
from planner.architecture.families import Family
from planner.architecture.families.common import Heads, Width, embedding_block, vector
from planner.architecture.families.layers import Place, place, places, text_config
from planner.architecture.families.shared_head import (
    BLOCK_TOKENS,
    SharedHeadConfig,
    core,
    experts,
    finish,
    hyper_connection,
    projections,
    window_cache,
)
from planner.architecture.parts import Cache, FlopTerm, Hashed, Read, Span, Tensor, WeightGroup

LayerIds = Annotated[list[Annotated[int, Field(ge=0, le=10_000)]], Field(max_length=10_000)]


class DeepseekV41Config(SharedHeadConfig):
    kv_source_layer_ids: LayerIds
    index_source_layer_ids: LayerIds
    candidate_source_layer_id: int | None = None
    candidate_topk_blocks: Width = 2048
    candidate_block_size: Width = 8
    engram_layer_ids: LayerIds = []
    engram_num_embeddings: Annotated[list[Annotated[int, Field(gt=0, le=2**40)]], Field(max_length=10_000)] = []
    engram_max_ngram_size: Annotated[int, Field(ge=2, le=64)] = 4
    engram_n_heads: Heads = 8
    engram_head_dim: Width = 256

    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return text_config(data)

    @model_validator(mode="after")
    def _sources(self) -> DeepseekV41Config:
        last = self.num_hidden_layers
        for name in ("kv_source_layer_ids", "index_source_layer_ids", "engram_layer_ids"):
            ids = getattr(self, name)
            if any(a >= b for a, b in zip(ids, ids[1:], strict=False)):
                raise ValueError(f"{name}: must rise")
            if ids and ids[-1] >= last:
                raise ValueError(f"{name}: {ids[-1]} is no layer of num_hidden_layers {last}")
        if len(self.engram_num_embeddings) != len(self.engram_layer_ids):
            raise ValueError(
                f"engram_num_embeddings: has {len(self.engram_num_embeddings)} entries for "
                f"{len(self.engram_layer_ids)} engram_layer_ids"
            )
        compressed = [layer for layer in range(last) if self.compress_ratios[layer]]
        if compressed and (not self.kv_source_layer_ids or self.kv_source_layer_ids[0] > compressed[0]):
            raise ValueError(f"kv_source_layer_ids: layer {compressed[0]} has a ratio but no source before it")
        for layer in compressed:
            source = max(s for s in self.kv_source_layer_ids if s <= layer)
            if self.compress_ratios[source] != self.compress_ratios[layer]:
                raise ValueError(f"compress_ratios: layer {layer} differs from its source, layer {source}")
        if not set(self.kv_source_layer_ids) <= set(self.index_source_layer_ids):
            raise ValueError("index_source_layer_ids: lacks a layer of kv_source_layer_ids")
        if any(not self.compress_ratios[s] for s in self.kv_source_layer_ids):
            raise ValueError("kv_source_layer_ids: names a layer without a ratio")
        return self

    @property
    def linear(self) -> str:
        """Projections in FP8 with a one-byte scale per 32x32 block, as released."""
        return "fp8_block32" if self.quantization_config else self.wide

    @property
    def expert_format(self) -> str:
        return self.linear if self.quantization_config is None else "mxfp4"

    @property
    def window_layouts(self) -> dict[str, int]:
        """Bytes per entry; ``fp4`` is the layout it was trained for, where the window is FP8 with scales."""
        width = self.head_dim
        return {"bf16": 2 * width, "fp8": width, "fp4": width + -(-width // 32)}

    def candidate(self, layer: int) -> bool:
        """Whether that index source scores only what the candidate source before it kept."""
        source = self.kv_source_layer_ids[-1] if self.candidate_source_layer_id is None else self.candidate_source_layer_id
        return 0 <= source < layer

    def kind(self, layer: int) -> str:
        """The kind of a layer: its half and what it does for the shared cache."""
        if not self.compress_ratios[layer]:
            return "window"
        ratio = self.compress_ratios[layer]
        half = "decoder" if ratio == 1 else f"encoder{ratio}"
        if layer in self.kv_source_layer_ids:
            return f"{half}_source"
        return f"{half}_reindex" if layer in self.index_source_layer_ids else f"{half}_reuse"


def build(config: DeepseekV41Config, identity: Identity) -> Model:
    kinds = [config.kind(layer) for layer in range(config.num_hidden_layers)]
    found = places(kinds)
    blocks = [embedding_block(config)]
    engrams = dict(zip(config.engram_layer_ids, config.engram_num_embeddings, strict=True))
    for kind, spot in found.items():
        if "_source" in kind:
            blocks.append(_source(config, f"{kind}.cache", spot))
        layer = _attention(config, f"{kind}.attention", spot)
        feed = experts(config, f"{kind}.experts", spot, biases=2)
        if kind.startswith("decoder"):
            layer, feed = (part.model_copy(update={"phases": ("decode",)}) for part in (layer, feed))
        blocks += [layer, feed]
        for number in sorted(set(engrams) & set(_numbers(spot))):
            blocks.append(_engram(config, number, engrams[number]))
    return finish(config, identity, FAMILY.name, blocks)


def _numbers(spot: Place) -> tuple[int, ...]:
    return spot["at"] or tuple(range(spot["first_layer"], spot["first_layer"] + spot["layers"]))


def _source(config: DeepseekV41Config, id: str, spot: Place) -> Block:
    """What makes the shared entries and their index keys of every token, in prefill and decode alike."""
    ratio, width, key, wide = (
        config.compress_ratios[spot["first_layer"]],
        config.head_dim,
        config.index_head_dim,
        config.wide,
    )
    tensors = [Tensor(name="compressor.wkv", shape=(width, config.hidden_size), format="fp32" if ratio > 1 else wide)]
    if ratio > 1:
        tensors.append(Tensor(name="compressor.wgate", shape=(width, config.hidden_size), format=wide))
    tensors += [
        vector("compressor.norm", width, wide),
        Tensor(name="indexer.wk", shape=(key, width), format=config.linear),
        vector("indexer.k_norm", key, wide),
    ]
    return Block(
        id=id,
        kind="memory",
        **spot,
        weights=(WeightGroup(name="compressor", tensors=tuple(tensors)),),
        caches=(
            Cache(
                name="compressed",
                span=Span(ratio=ratio),
                elements=width,
                layouts={"bf16": 2 * width, "fp8": width, "fp4": width // 2 + -(-width // 16)},
                page_tokens=BLOCK_TOKENS,
            ),
            Cache(
                name="index",
                role="index",
                span=Span(ratio=ratio),
                elements=key,
                layouts={"bf16": 2 * key, "fp8": key, "fp4": key // 2 + -(-key // 32)},
                page_tokens=BLOCK_TOKENS,
            ),
            Cache(
                name="compressor_state",
                role="state",
                span=Span(cap=0),
                fixed_bytes=2 * 4 * width * (ratio - 1),
                persist="checkpoint",
            ),
        ),
    )


def _attention(config: DeepseekV41Config, id: str, spot: Place) -> Block:
    window = Span(window=config.sliding_window)
    weights = [*projections(config), hyper_connection(config, "attention_streams")]
    reads, terms = [Read(cache="window", block=id, span=window)], [core(config, "window", window)]
    first = spot["first_layer"]
    ratio = config.compress_ratios[first]
    if ratio:
        source = max(s for s in config.kv_source_layer_ids if s <= first)
        owner = f"{config.kind(source)}.cache"
        chosen = Span(ratio=ratio, cap=config.index_topk)
        reads.append(Read(cache="compressed", block=owner, span=chosen, fixed=0))
        terms.append(core(config, "compressed", chosen))
        if first in config.index_source_layer_ids:
            heads, key = config.index_n_heads, config.index_head_dim
            scored = Span(ratio=ratio)
            if config.candidate(first):
                scored = Span(ratio=ratio, cap=config.candidate_topk_blocks * config.candidate_block_size)
            tensors = (
                Tensor(name="indexer.wq_b", shape=(heads * key, config.q_lora_rank), format=config.linear),
                Tensor(name="indexer.weights_proj", shape=(heads, config.hidden_size), format=config.wide),
            )
            weights.append(WeightGroup(name="indexer", tensors=tensors))
            reads.append(Read(cache="index", block=owner, span=scored, fixed=0))
            terms.append(FlopTerm(name="index", per_pair=2 * heads * key, span=scored, dtype="fp4"))
    return Block(
        id=id,
        kind="attention",
        **spot,
        weights=tuple(weights),
        caches=(window_cache(config),),
        reads=tuple(reads),
        flops=tuple(terms),
    )


def _engram(config: DeepseekV41Config, layer: int, rows: int) -> Block:
    return engram_block(
        layer,
        rows,
        Hashed(orders=tuple(range(2, config.engram_max_ngram_size + 1)), heads=config.engram_n_heads),
        width=config.engram_head_dim,
        hidden=config.hidden_size,
        streams=config.hc_mult,
        linear=config.linear,
        table="mxfp8" if config.quantization_config else config.wide,
    )


def engram_block(
    layer: int,
    rows: int,
    hashed: Hashed,
    *,
    width: int,
    hidden: int,
    streams: int,
    linear: str,
    table: str,
    further: tuple[Tensor, ...] = (),
) -> Block:
    """Hashed rows of the n-grams that end in a token, projected to a key per residual stream and one value, and gated in."""
    columns = hashed.rows_per_token * width
    return Block(
        id=f"engram.{layer}",
        kind="memory",
        **place([layer]),
        weights=(
            WeightGroup(
                name="engram_table",
                tensors=(Tensor(name="embed", shape=(rows, width), format=table),),
                access="lookup",
                address="token",
                tensor_axis=rows,
                rows=rows,
                rows_per_token=hashed.rows_per_token,
                counted_active=False,
                hashed=hashed,
            ),
            WeightGroup(
                name="engram",
                tensors=(
                    Tensor(name="wkv", shape=(hidden * (streams + 1), columns), format=linear),
                    vector("q_weight", streams * hidden, "fp32"),
                    vector("k_weight", streams * hidden, "fp32"),
                    *further,
                ),
            ),
        ),
    )


FAMILY = Family("deepseek_v41", DeepseekV41Config, build)
