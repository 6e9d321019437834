"""Narrower and wider copies of a network."""

from __future__ import annotations

import math

__all__ = ["scaled"]


def scaled(size: int, width: float) -> int:
    """``size`` times ``width``, as a whole number of at least 1.

    Raises:
        ValueError: the width is not a finite number above 0.
    """
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width: expected a finite number above 0, got {width}")
    return max(1, round(size * width))
