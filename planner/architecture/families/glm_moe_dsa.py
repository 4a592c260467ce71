"""``model_type`` glm_moe_dsa (GLM-5, GLM-5.2): DeepSeek-V3.2's layers; of GLM-5.2's layers only some score by themselves.

``indexer_types`` names each layer ``full`` (has an indexer and keeps index keys) or ``shared`` (attends to what the last
full layer chose): huggingface/transformers ``models/glm_moe_dsa``.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.architecture.families import Family
from planner.architecture.families.deepseek_v3 import build_latent
from planner.architecture.families.deepseek_v32 import DeepseekV32Config


class GlmMoeDsaConfig(DeepseekV32Config):
    indexer_types: Annotated[list[Literal["full", "shared"]], Field(max_length=10_000)] | None = None
    mlp_layer_types: Annotated[list[Literal["dense", "sparse"]], Field(max_length=10_000)] | None = None

    @model_validator(mode="after")
    def _lists(self) -> GlmMoeDsaConfig:
        for name, found in (("indexer_types", self.indexer_types), ("mlp_layer_types", self.mlp_layer_types)):
            if found is not None and len(found) != self.num_hidden_layers:
                raise ValueError(f"{name}: has {len(found)} entries for num_hidden_layers {self.num_hidden_layers}")
        if self.indexer_types and self.indexer_types[0] == "shared":
            raise ValueError("indexer_types: the first layer has no choice before it to share")
        dense = self.first_k_dense_replace
        expected = ["dense"] * dense + ["sparse"] * (self.num_hidden_layers - dense)
        if self.mlp_layer_types is not None and list(self.mlp_layer_types) != expected:
            raise ValueError(f"mlp_layer_types: contradicts first_k_dense_replace {dense}")
        return self

    def indexed(self, layer: int) -> bool:
        return self.indexer_types is None or self.indexer_types[layer] == "full"


FAMILY = Family("glm_moe_dsa", GlmMoeDsaConfig, partial(build_latent, family="glm_moe_dsa"))
