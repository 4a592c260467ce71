"""``model_type`` kimi_k2: DeepSeek-V3's layers with other numbers."""

from __future__ import annotations

from functools import partial

from planner.architecture.families import Family
from planner.architecture.families.deepseek_v3 import DeepseekV3Config, build_latent

FAMILY = Family("kimi_k2", DeepseekV3Config, partial(build_latent, family="kimi_k2"))
