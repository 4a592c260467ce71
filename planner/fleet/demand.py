"""What a day's tokens take of the copies of a deployment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.errors import InputError
from planner.fleet.schema import TokensPerDay
from planner.plans.schema import Plan

MOST_TOKENS = 1e24
"""Tokens a day: as many as a plan may be asked for."""
SECONDS = 86400.0


@dataclass(frozen=True)
class Mix:
    """Shares of a day's tokens by stream; any positive multiple of them says the same."""

    hit: float
    miss: float
    output: float

    def __post_init__(self) -> None:
        parts = (self.hit, self.miss, self.output)
        if not all(math.isfinite(part) and 0.0 <= part <= MOST_TOKENS for part in parts):
            raise InputError("shares are numbers that are not negative", where="mix", mend="write hit=0.4,miss=0.4,output=0.2")
        if self.miss <= 0.0 or self.output <= 0.0:
            raise InputError("miss and output must be above 0, since a plan serves both", where="mix", mend="give each a share")

    def of(self, tokens: float) -> TokensPerDay:
        """So many tokens, split."""
        total = math.fsum((self.hit, self.miss, self.output))
        hit, miss, output = (tokens * part / total for part in (self.hit, self.miss, self.output))
        return TokensPerDay(input_hit=hit, input_miss=miss, output=output, total=tokens)


@dataclass(frozen=True)
class Demand:
    """What tokens of a mix take of copies: ``per_copy`` requests a day of one, ``own`` tokens of each, the time of phases."""

    shares: Mix
    own: Mix
    per_copy: float
    time: dict[str, float]
    shared: bool

    @classmethod
    def of(cls, plan: Plan, mix: Mix | None, utilisation: float) -> Demand:
        """Of a plan's deployment in ``utilisation`` of the hours; its own mix for ``None``."""
        each = plan.cost.tokens_per_request
        own = Mix(each["input_hit"], each["input_miss"], each["output"])
        time = {"input": plan.cost.input_share, "output": 1.0 - plan.cost.input_share}
        per_copy = plan.prediction.requests_per_s * SECONDS * utilisation
        return cls(mix or own, own, per_copy, time, plan.mode == "aggregated")

    def by_phase(self, tokens: float) -> dict[str, float]:
        """Copies that each phase needs for so many tokens, before rounding: linear in them."""
        asked = self.shares.of(tokens)
        return {
            "input": asked.input_miss / (self.per_copy * self.own.miss),
            "output": asked.output / (self.per_copy * self.own.output),
        }

    def needed(self, tokens: float) -> float:
        """Copies for so many tokens, before rounding."""
        needs = self.by_phase(tokens)
        return math.fsum(self.time[phase] * needs[phase] for phase in needs) if self.shared else max(needs.values())
