"""The sources' trillion-dollar equation: what more tokens from the same cards save, in computing centres.

A projection of its source, not a forecast of this planner: the source divides money by the price of a centre and asks how many
tokens a day the centres that are left would have to make. Every input can be replaced; every step says how it follows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.economics.owned import HOURS_PER_YEAR, capital_recovery_factor
from planner.errors import InputError

SOURCE = '"Can DeepSeek save China one trillion dollars", June 2026'
CHECKED = "deepseek-ai/open-infra-index day 6: 608B input and 168B output tokens on 226.75 nodes of 8 cards"
SECONDS_PER_DAY = 86400.0


@dataclass(frozen=True)
class Step:
    """One line of the equation.

    ``whose``: ``source`` or ``measured`` where it follows from what they say alone, ``here`` where it is worked out on top,
    ``yours`` where an input of it was replaced.
    """

    name: str
    value: float
    unit: str
    how: str
    whose: str

    def __str__(self) -> str:
        return f"{self.name:<28} {_plain(self.value):>17} {self.unit:<15} {self.how} [{self.whose}]"


def project(
    *,
    saved_usd: float = 1e12,
    rmb_per_usd: float = 7.0,
    centre_rmb: float = 200e6,
    cards_per_centre: float = 1000.0,
    throughput_gain: float = 4.0,
    tokens_per_day: float = 5e15,
    day_tokens: float = 776e9,
    day_cards: float = 226.75 * 8,
    cost_of_capital: float = 0.10,
    life_years: float = 5.0,
) -> tuple[Step, ...]:
    """The steps, in order; tokens count input, output and cache hits alike.

    ``saved_usd`` at ``rmb_per_usd`` buys centres of ``cards_per_centre`` cards for ``centre_rmb`` each; with ``throughput_gain``
    times the tokens a card they need not be built; ``tokens_per_day`` are left for those that remain. ``day_tokens`` on
    ``day_cards`` is a measured day to compare with. ``InputError`` where an input is no positive number, or nothing is gained.
    """
    given = dict(locals())
    for name, value in given.items():
        least = 0.0 if name == "cost_of_capital" else 1e-30
        if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and least <= value <= 1e30):
            raise InputError(f"{value!r} is not a positive number", where=name, mend="correct it")
    if throughput_gain <= 1.0:
        raise InputError(f"{throughput_gain!r} times the tokens saves nothing", where="throughput_gain", mend="give more than 1")
    if cost_of_capital > 1.0:
        raise InputError(f"{cost_of_capital!r} is more than 1 a year", where="cost_of_capital", mend="10 % is 0.1")
    saving = 1.0 - 1.0 / throughput_gain
    saved_rmb = saved_usd * rmb_per_usd
    avoided = saved_rmb / centre_rmb
    left = avoided / (throughput_gain - 1.0)
    rate = tokens_per_day / SECONDS_PER_DAY / (left * cards_per_centre)
    day = day_tokens / SECONDS_PER_DAY / day_cards
    card_usd = centre_rmb / cards_per_centre / rmb_per_usd
    hour = card_usd * capital_recovery_factor(cost_of_capital, life_years) / HOURS_PER_YEAR
    usual = project.__kwdefaults__ or {}
    edited = {name for name, value in given.items() if value != usual[name]}

    def step(name: str, value: float, unit: str, how: str, whose: str, *inputs: str) -> Step:
        return Step(name, value, unit, how, "yours" if edited & set(inputs) else whose)

    bought = ("saved_usd", "rmb_per_usd", "centre_rmb")
    cards = (*bought, "throughput_gain", "cards_per_centre")
    price = ("centre_rmb", "cards_per_centre", "rmb_per_usd")
    capital = (*price, "cost_of_capital", "life_years")
    served = (*cards, "tokens_per_day")
    return (
        step("saving of hardware", 100.0 * saving, "%", f"1 - 1 / {throughput_gain:g}", "source", "throughput_gain"),
        step("money", saved_rmb, "RMB", f"{saved_usd:g} USD x {rmb_per_usd:g}", "source", *bought[:2]),
        step("centres not built", avoided, "centres", f"/ {centre_rmb:g} RMB each", "source", *bought),
        step("centres left", left, "centres", f"/ ({throughput_gain:g} - 1): {1.0 - saving:.4g} of all", "here", *cards[:-1]),
        step("cards left", left * cards_per_centre, "cards", f"x {cards_per_centre:g}", "here", *cards),
        step("tokens a card, with the gain", rate, "tokens/s", f"{tokens_per_day:g} a day / 86400 s / cards", "here", *served),
        step("tokens a card, without", rate / throughput_gain, "tokens/s", f"/ {throughput_gain:g}", "here", *served),
        step("tokens a card, measured day", day, "tokens/s", f"{day_tokens:g} on {day_cards:g} cards", "measured", *_MEASURED),
        step("a card", card_usd, "USD", "centre / cards / rate of exchange", "source", *price),
        step("its capital", hour, "USD/h", f"{cost_of_capital:.3g} a year over {life_years:g} years", "here", *capital),
        step(
            "capital of tokens", hour / (rate * 3600.0) * 1e6, "USD per million", "/ tokens of an hour", "here", *served, *capital
        ),
    )


_MEASURED = ("day_tokens", "day_cards")


def as_text(steps: tuple[Step, ...]) -> str:
    """The steps, a line each, under what they are."""
    head = [f"Projection of its source, {SOURCE}; not a forecast.", f"Measured: {CHECKED}."]
    return "\n".join([*head, *(str(step).rstrip() for step in steps)])


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000.0 else f"{value:.4g}"
