"""One color and one marker for each model, told apart in grey as well."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Look", "looks"]

# Okabe and Ito's colors for every kind of color vision, in an order that alternates dark and light; the two lightest,
# which vanish on white, are left out.
_COLORS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


class Look(NamedTuple):
    """How one model is drawn.

    Attributes:
        color: hexadecimal.
        marker: as Matplotlib names it.
    """

    color: str
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, in their order; no two of up to 56 are alike."""
    return {
        name: Look(color, marker)
        for name, color, marker in zip(names, itertools.cycle(_COLORS), itertools.cycle(_MARKERS), strict=False)
    }
