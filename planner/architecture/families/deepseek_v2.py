"""``model_type`` deepseek_v2: the first latent attention; experts chosen by a plain softmax, no router bias, no draft module.

deepseek-ai/DeepSeek-V3 ``inference/configs/config_236B.json``; huggingface/transformers ``models/deepseek_v2``.
"""

from __future__ import annotations

from functools import partial

from planner.architecture.families import Family
from planner.architecture.families.common import Experts
from planner.architecture.families.deepseek_v3 import DeepseekV3Config, build_latent


class DeepseekV2Config(DeepseekV3Config):
    n_group: Experts = 1
    topk_group: Experts = 1
    topk_method: str = "greedy"


FAMILY = Family("deepseek_v2", DeepseekV2Config, partial(build_latent, family="deepseek_v2"))
