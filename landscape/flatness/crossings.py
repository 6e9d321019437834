"""The first place on a ray where a function has risen by an amount."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from scipy.optimize import brentq

__all__ = ["first_crossing"]


def first_crossing(
    rise_at: Callable[[float], float],
    rise: float,
    limit: float,
    first: float,
    growth: float = 2.0,
    tolerance: float = 1e-3,
) -> float | None:
    """The first distance at which the rise exceeds an amount, sought by growing steps and then by Brent's method.

    A crossing and its return within one step are missed; the first step is small for that reason. A rise that is not
    finite is more than the amount.

    Args:
        rise_at: distance to rise; 0 at distance 0, and not called there.
        rise: the amount.
        limit: give up beyond this distance.
        first: the first step.
        growth: factor from one tried distance to the next.
        tolerance: relative, of the distance.

    Returns:
        The distance; None if the rise stays within the amount at every distance tried, the last of them the limit.
    """

    def excess(distance: float) -> float:
        """Of the sign of what is sought, and within (-1, 1), so that an infinite rise does no harm."""
        found = rise_at(distance) if distance > 0 else 0.0
        share = (found - rise) / rise
        return share / (1 + abs(share)) if math.isfinite(share) else 1.0

    low = 0.0
    for high in _distances(first, growth, limit):
        if excess(high) > 0:
            return float(brentq(excess, low, high, xtol=1e-12 * limit, rtol=tolerance))
        low = high
    return None


def _distances(first: float, growth: float, limit: float) -> Iterator[float]:
    distance = first
    while distance < limit:
        yield distance
        distance *= growth
    yield limit
