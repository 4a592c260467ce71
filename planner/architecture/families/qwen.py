"""``model_type`` qwen2, qwen3 and qwen3_moe: grouped-query attention with a gated MLP or a mixture of experts.

Shapes: huggingface/transformers ``models/{qwen2,qwen3,qwen3_moe}/modeling_*.py``. Qwen2 has biases of query, key and value;
Qwen3 has norms of query and key heads instead. With ``use_sliding_window`` the layers from ``max_window_layers`` on see a window.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from planner.architecture.blocks import Block, Identity, Model, Router
from planner.architecture.families import Family
from planner.architecture.families.common import Experts, Width, swiglu
from planner.architecture.families.grouped import Place, attention, experts, gated_mlp, inner_axis
from planner.architecture.families.layers import model_of, stacked
from planner.architecture.families.llama import GroupedConfig, reach


class QwenConfig(GroupedConfig):
    intermediate_size: Width
    use_sliding_window: bool = False
    max_window_layers: Annotated[int, Field(ge=0, le=10_000)] | None = None

    @model_validator(mode="after")
    def _window(self) -> QwenConfig:
        if self.use_sliding_window and self.sliding_window is None:
            raise ValueError("sliding_window: is missing, use_sliding_window is true")
        return self

    def windows(self) -> list[int | None]:
        if self.layer_types is not None or not self.use_sliding_window:
            return super().windows()
        first = 28 if self.max_window_layers is None else self.max_window_layers  # the default of transformers
        return [self.sliding_window if number >= first else None for number in range(self.num_hidden_layers)]


class Qwen3MoeConfig(QwenConfig):
    moe_intermediate_size: Width
    num_experts: Experts
    num_experts_per_tok: Experts
    decoder_sparse_step: Annotated[int, Field(gt=0, le=10_000)] = 1
    mlp_only_layers: Annotated[list[int], Field(max_length=10_000)] = []

    @model_validator(mode="after")
    def _experts(self) -> Qwen3MoeConfig:
        if self.num_experts_per_tok > self.num_experts:
            raise ValueError(f"num_experts_per_tok: {self.num_experts_per_tok} is more than num_experts {self.num_experts}")
        wrong = next((layer for layer in self.mlp_only_layers if not 0 <= layer < self.num_hidden_layers), None)
        if wrong is not None:
            raise ValueError(f"mlp_only_layers: there is no layer {wrong}")
        return self

    def sparse(self, layer: int) -> bool:
        """Whether that layer has experts."""
        return layer not in self.mlp_only_layers and (layer + 1) % self.decoder_sparse_step == 0


def _attention(config: QwenConfig, id: str, place: Place, kind: str, *, head_norms: bool, bias: bool) -> Block:
    head_dim = config.width_of_head
    return attention(
        id,
        place,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.kv_heads,
        head_dim=head_dim,
        wide=config.wide,
        linear=config.linear,
        window=config.sliding_window if "sliding" in kind else None,
        query_bias=bias,
        output_bias=bias and head_norms,
        norms=(("q_norm", head_dim), ("k_norm", head_dim)) if head_norms else (),
    )


def _dense(config: QwenConfig, id: str, place: Place) -> Block:
    return gated_mlp(id, place, hidden=config.hidden_size, inner=config.intermediate_size, wide=config.wide, linear=config.linear)


def _build_dense(config: QwenConfig, identity: Identity, family: str, *, head_norms: bool, bias: bool) -> Model:
    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        return [
            _attention(config, f"{prefix}attention", place, kind, head_norms=head_norms, bias=bias),
            _dense(config, f"{prefix}mlp", place),
        ]

    return model_of(config, identity, family, stacked([reach(window) for window in config.windows()], layer))


def build_qwen2(config: QwenConfig, identity: Identity) -> Model:
    return _build_dense(config, identity, "qwen2", head_norms=False, bias=True)


def build_qwen3(config: QwenConfig, identity: Identity) -> Model:
    return _build_dense(config, identity, "qwen3", head_norms=True, bias=config.attention_bias)


def build_qwen3_moe(config: Qwen3MoeConfig, identity: Identity) -> Model:
    def layer(kind: str, prefix: str, place: Place) -> list[Block]:
        mix = _attention(config, f"{prefix}attention", place, kind, head_norms=True, bias=config.attention_bias)
        if "dense" in kind:
            return [mix, _dense(config, f"{prefix}mlp", place)]
        inner = config.moe_intermediate_size
        return [
            mix,
            experts(
                f"{prefix}experts",
                place,
                hidden=config.hidden_size,
                member=swiglu(config.hidden_size, inner, config.expert),
                axis=inner_axis(inner, config.expert),
                count=config.num_experts,
                active=config.num_experts_per_tok,
                wide=config.wide,
            ),
        ]

    kinds = [("" if config.sparse(number) else "dense-") + reach(window) for number, window in enumerate(config.windows())]
    sparse = any(not kind.startswith("dense") for kind in kinds)
    router = Router(experts=config.num_experts, active=config.num_experts_per_tok) if sparse else None
    return model_of(config, identity, "qwen3_moe", stacked(kinds, layer), router=router)


QWEN2 = Family("qwen2", QwenConfig, build_qwen2)
QWEN3 = Family("qwen3", QwenConfig, build_qwen3)
QWEN3_MOE = Family("qwen3_moe", Qwen3MoeConfig, build_qwen3_moe)
