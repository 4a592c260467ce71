"""Prices: what an hour of hardware costs, by basis, with its date."""

from planner.prices.schema import PRICES, OwnedPrices, load_prices

__all__ = ["PRICES", "OwnedPrices", "load_prices"]
