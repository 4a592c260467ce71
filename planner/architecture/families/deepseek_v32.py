"""``model_type`` deepseek_v32: DeepSeek-V3 with an indexer in every layer (DeepSeek sparse attention, DSA).

Attention runs absorbed over the chosen entries, or over all of them expanded in prefill where that is cheaper (short
prompts): deepseek-ai/DeepSeek-V3.2-Exp ``DeepSeek_V3_2.pdf`` section 2 and ``inference/model.py``.
"""

from __future__ import annotations

from functools import partial

from planner.architecture.families import Family
from planner.architecture.families.common import Heads, Width
from planner.architecture.families.deepseek_v3 import DeepseekV3Config, Indexer, build_latent


class DeepseekV32Config(DeepseekV3Config):
    index_n_heads: Heads
    index_head_dim: Width
    index_topk: Width

    @property
    def indexer(self) -> Indexer:
        return Indexer(self.index_n_heads, self.index_head_dim, self.index_topk)


FAMILY = Family("deepseek_v32", DeepseekV32Config, partial(build_latent, family="deepseek_v32"))
