"""``model_type`` gpt_oss: alternating sliding and full attention with sinks and biases, MXFP4 experts with biases.

Shapes: huggingface/transformers ``models/gpt_oss/modeling_gpt_oss.py``; storage: openai/gpt-oss ``README.md`` (MXFP4 blocks and
scales of the expert matrices, everything else BF16). Without ``layer_types`` even layers slide, as in transformers.
"""

from __future__ import annotations

from math import gcd
from typing import ClassVar

from pydantic import model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, Width, vector
from planner.architecture.families.grouped import Place, attention, experts, matrix
from planner.architecture.families.layers import model_of, stacked
from planner.architecture.families.llama import GroupedConfig, reach

PADDED = 256  # vLLM pads the inner side of MXFP4 experts to whole 256s before it cuts it (quantization/mxfp4.py)
TILE = 32


class GptOssConfig(GroupedConfig):
    experts_apart: ClassVar[bool] = True

    intermediate_size: Width
    num_local_experts: Experts
    num_experts_per_tok: Experts
    sliding_window: Width

    @model_validator(mode="after")
    def _experts(self) -> GptOssConfig:
        if self.num_experts_per_tok > self.num_local_experts:
            raise ValueError(
                f"num_experts_per_tok: {self.num_experts_per_tok} is more than num_local_experts {self.num_local_experts}"
            )
        return self

    def windows(self) -> list[int | None]:
        if self.layer_types is not None:
            return super().windows()
        return [None if number % 2 else self.sliding_window for number in range(self.num_hidden_layers)]


def build(config: GptOssConfig, identity: Identity) -> Model:
    hidden, inner, wide, expert = config.hidden_size, config.intermediate_size, config.wide, config.expert
    padded = -(-inner // PADDED) * PADDED
    member = (
        matrix("gate_up_proj", 2 * inner, hidden, expert),
        vector("gate_up_proj.bias", 2 * inner, wide),
        matrix("down_proj", hidden, inner, expert),
        vector("down_proj.bias", hidden, wide),
    )

    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        return [
            attention(
                f"{prefix}attention",
                place,
                hidden=hidden,
                heads=config.num_attention_heads,
                kv_heads=config.kv_heads,
                head_dim=config.width_of_head,
                wide=wide,
                linear=config.linear,
                window=config.sliding_window if kind == "sliding" else None,
                query_bias=config.attention_bias,
                output_bias=config.attention_bias,
                sinks=True,
            ),
            experts(
                f"{prefix}experts",
                place,
                hidden=hidden,
                member=member,
                axis=padded // gcd(padded, TILE),
                count=config.num_local_experts,
                active=config.num_experts_per_tok,
                wide=wide,
                router=(vector("router.bias", config.num_local_experts, wide),),
            ),
        ]

    router = Router(experts=config.num_local_experts, active=config.num_experts_per_tok)
    body = stacked([reach(window) for window in config.windows()], layer)
    return model_of(config, identity, FAMILY.name, body, router=router)


FAMILY = Family("gpt_oss", GptOssConfig, build)
