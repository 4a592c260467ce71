"""Owned prices at a site of the hardware catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import InputError
from planner.prices.schema import OwnedPrices

if TYPE_CHECKING:
    from planner.hardware import Site


def at_site(prices: OwnedPrices, site: Site) -> OwnedPrices:
    """The basis with the site's electricity, PUE and planning life in place of its own; the rest stays.

    ``InputError`` where the basis pays colocation, which has a site's electricity in it.
    """
    if prices.colocation is not None:
        raise InputError(f"{prices.id} pays colocation, which has electricity in it", where="--site", mend="leave out --site")
    return prices.model_copy(update={"site": site.id, "electricity": site.electricity, "pue": site.pue, "life": site.life})
