"""What usage costs at a provider's prices, and what remains of it above the cost of serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """Tokens of one period. ``stored`` are those of ``miss`` that the provider keeps for later hits."""

    hit_tokens: float
    miss_tokens: float
    output_tokens: float
    stored_tokens: float = 0.0

    @property
    def tokens(self) -> float:
        """All of them."""
        return self.hit_tokens + self.miss_tokens + self.output_tokens


@dataclass(frozen=True)
class TokenPrices:
    """Prices per million tokens, in one currency. Without ``cache_write`` a stored token costs what a miss does."""

    input_hit: float
    input_miss: float
    output: float
    cache_write: float | None = None

    @property
    def stored(self) -> float:
        """Of a miss that is kept for later hits."""
        return self.input_miss if self.cache_write is None else self.cache_write


@dataclass(frozen=True)
class Bill:
    """An amount by stream, in the currency of the prices."""

    input_hit: float
    input_miss: float
    output: float

    @property
    def total(self) -> float:
        """The sum."""
        return self.input_hit + self.input_miss + self.output


def usage_of(tokens: float, *, input_share: float, hit_share: float, stored_share: float = 0.0) -> Usage:
    """``tokens`` split: a share of all is input, a share of that has a hit, and a share of the misses is kept for later ones."""
    read = tokens * input_share
    miss = read * (1.0 - hit_share)
    return Usage(read * hit_share, miss, tokens * (1.0 - input_share), miss * stored_share)


def at_peak_share(off_peak: TokenPrices, peak: TokenPrices | None, share: float) -> TokenPrices:
    """Mean prices where ``share`` of every stream falls into the peak windows: linear between the two."""
    if peak is None:
        return off_peak

    def mean(low: float, high: float) -> float:
        return (1.0 - share) * low + share * high

    return TokenPrices(
        mean(off_peak.input_hit, peak.input_hit),
        mean(off_peak.input_miss, peak.input_miss),
        mean(off_peak.output, peak.output),
        mean(off_peak.stored, peak.stored),
    )


def bill(usage: Usage, prices: TokenPrices) -> Bill:
    """Tokens times price, stream by stream: linear in every count and every price."""
    plain = usage.miss_tokens - usage.stored_tokens
    return Bill(
        usage.hit_tokens * prices.input_hit / 1e6,
        (plain * prices.input_miss + usage.stored_tokens * prices.stored) / 1e6,
        usage.output_tokens * prices.output / 1e6,
    )


def margin(revenue_usd: float, cost_usd: float) -> float:
    """Revenue over cost, less one: 0 breaks even, 5.456 earns 545.6 % on top of the cost."""
    return revenue_usd / cost_usd - 1.0


def split_by_work(amount: float, work: Mapping[str, float]) -> dict[str, float]:
    """An amount (USD, leased node-hours) over pools in proportion to the work each did, so that the parts add up to it.

    Node-hours worked, tokens over rate, rarely sum to those leased: the published rates are rounded.
    """
    whole = sum(work.values())
    return {name: amount * part / whole for name, part in work.items()}
