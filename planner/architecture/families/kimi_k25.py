"""``model_type`` kimi_k25: the language model of Kimi-K2.5, DeepSeek-V3's layers in ``text_config``; images are not modelled."""

from __future__ import annotations

from functools import partial
from typing import Any

from pydantic import model_validator

from planner.architecture.families import Family
from planner.architecture.families.deepseek_v3 import DeepseekV3Config, build_latent
from planner.architecture.families.layers import text_config


class KimiK25Config(DeepseekV3Config):
    @model_validator(mode="before")
    @classmethod
    def _text(cls, data: Any) -> Any:
        return text_config(data)


FAMILY = Family("kimi_k25", KimiK25Config, partial(build_latent, family="kimi_k25"))
