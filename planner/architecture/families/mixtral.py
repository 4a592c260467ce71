"""``model_type`` mixtral: grouped-query attention, in every layer a mixture of experts.

Shapes: huggingface/transformers ``models/mixtral/modeling_mixtral.py``.
"""

from __future__ import annotations

from pydantic import model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, Width, swiglu
from planner.architecture.families.grouped import Place, attention, experts, inner_axis
from planner.architecture.families.layers import model_of, stacked
from planner.architecture.families.llama import GroupedConfig, reach


class MixtralConfig(GroupedConfig):
    intermediate_size: Width
    num_local_experts: Experts
    num_experts_per_tok: Experts

    @model_validator(mode="after")
    def _experts(self) -> MixtralConfig:
        if self.num_experts_per_tok > self.num_local_experts:
            raise ValueError(
                f"num_experts_per_tok: {self.num_experts_per_tok} is more than num_local_experts {self.num_local_experts}"
            )
        return self

    def windows(self) -> list[int | None]:
        return super().windows() if self.layer_types else [self.sliding_window] * self.num_hidden_layers


def build(config: MixtralConfig, identity: Identity) -> Model:
    hidden, inner = config.hidden_size, config.intermediate_size

    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        return [
            attention(
                f"{prefix}attention",
                place,
                hidden=hidden,
                heads=config.num_attention_heads,
                kv_heads=config.kv_heads,
                head_dim=config.width_of_head,
                wide=config.wide,
                linear=config.linear,
                window=config.sliding_window if kind == "sliding" else None,
            ),
            experts(
                f"{prefix}experts",
                place,
                hidden=hidden,
                member=swiglu(hidden, inner, config.expert),
                axis=inner_axis(inner, config.expert),
                count=config.num_local_experts,
                active=config.num_experts_per_tok,
                wide=config.wide,
            ),
        ]

    router = Router(experts=config.num_local_experts, active=config.num_experts_per_tok)
    body = stacked([reach(window) for window in config.windows()], layer)
    return model_of(config, identity, FAMILY.name, body, router=router)


FAMILY = Family("mixtral", MixtralConfig, build)
