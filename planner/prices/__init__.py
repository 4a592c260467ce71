"""Prices: what an hour of hardware costs, by basis, with its date."""

from planner.prices.schema import PRICES, OwnedPrices, load_prices
from planner.prices.site import at_site

__all__ = ["PRICES", "OwnedPrices", "at_site", "load_prices"]
