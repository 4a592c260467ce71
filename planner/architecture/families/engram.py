"""``model_type`` engram: the models of the Engram paper (arXiv:2601.07372): latent attention, experts or dense MLPs, mHC, and
hashed n-gram tables in a few layers.

The name is planner's own, as no configuration was published. ``engram_vocab_size`` is the paper's "Engram vocab size": rows
of each of the orders x heads sub-tables of a layer, whose widths add up to ``engram_dim``; ``engram_layers`` counts from 1.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, Heads, Width, chain, must_divide, vector
from planner.architecture.families.deepseek_v3 import DeepseekV3Config, build_latent
from planner.architecture.families.deepseek_v41 import engram_block
from planner.architecture.families.layers import exchange
from planner.architecture.parts import Hashed, Tensor, WeightGroup


class EngramConfig(DeepseekV3Config):
    moe_intermediate_size: Width = 1
    n_routed_experts: Experts = 1
    num_experts_per_tok: Experts = 1
    n_group: Experts = 1
    topk_group: Experts = 1
    hc_mult: Annotated[int, Field(gt=0, le=64)] = 1
    engram_layers: Annotated[list[Annotated[int, Field(ge=1, le=10_000)]], Field(max_length=10_000)] = []
    engram_vocab_size: Annotated[int, Field(gt=0, le=2**36)] = 1
    engram_dim: Width = 1280
    engram_heads: Heads = 8
    engram_ngrams: Annotated[list[Annotated[int, Field(ge=2, le=64)]], Field(min_length=1, max_length=63)] = [2, 3]
    engram_kernel: Annotated[int, Field(gt=0, le=1024)] = 4

    @model_validator(mode="after")
    def _tables(self) -> EngramConfig:
        must_divide("engram_dim", self.engram_dim, "engram_ngrams x engram_heads", len(self.engram_ngrams) * self.engram_heads)
        if sorted(set(self.engram_layers)) != list(self.engram_layers):
            raise ValueError("engram_layers: must rise")
        if self.engram_layers and self.engram_layers[-1] > self.num_hidden_layers:
            raise ValueError(f"engram_layers: {self.engram_layers[-1]} is more than num_hidden_layers {self.num_hidden_layers}")
        return self


def build(config: EngramConfig, identity: Identity) -> Model:
    plain = build_latent(config, identity, FAMILY.name)
    hidden, wide, streams = config.hidden_size, config.wide, config.hc_mult
    hashed = Hashed(orders=tuple(config.engram_ngrams), heads=config.engram_heads)
    waiting = [layer - 1 for layer in config.engram_layers]
    mixed = [_mixed(block, streams, hidden) for block in plain.blocks]
    body = [block for block in mixed if block.kind not in ("head", "draft") and not block.draft]
    for layer in waiting:
        body.append(
            engram_block(
                layer,
                config.engram_vocab_size * hashed.rows_per_token,
                hashed,
                width=config.engram_dim // hashed.rows_per_token,
                hidden=hidden,
                streams=streams,
                linear=config.linear,
                table=wide,
                further=(
                    Tensor(name="conv", shape=(streams * hidden, config.engram_kernel), format=wide),
                    vector("conv_norm", streams * hidden, wide),
                ),
            )
        )
    rest = [block for block in mixed if block.kind in ("head", "draft") or block.draft]
    main = [*body, *(block for block in rest if not block.draft)]
    kept = [edge for edge in plain.edges if edge.kind not in ("residual", "dispatch", "combine")]
    return plain.model_copy(
        update={
            "blocks": (*main, *(block for block in rest if block.draft)),
            "edges": (*chain(main, streams * hidden, wide), *exchange(main, hidden, wide), *kept),
        }
    )


def _mixed(block: Block, streams: int, hidden: int) -> Block:
    """The block with what mixes its residual streams."""
    if streams == 1 or block.kind not in ("attention", "mlp", "moe"):
        return block
    mix = (2 + streams) * streams
    group = WeightGroup(
        name="residual_streams",
        tensors=(
            Tensor(name="fn", shape=(mix, streams * hidden), format="fp32"),
            vector("base", mix, "fp32"),
            vector("scale", 3, "fp32"),
        ),
    )
    return block.model_copy(update={"weights": (*block.weights, group)})


FAMILY = Family("engram", EngramConfig, build)
