"""Checks of arguments: the value, or an error that says what was expected."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["check_choice", "check_count", "check_nonnegative", "check_probability"]


def check_probability(name: str, value: float) -> float:
    """Return ``value`` if it is a probability.

    Raises:
        ValueError: outside [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a probability in [0, 1], got {value}")
    return float(value)


def check_nonnegative(name: str, value: float) -> float:
    """Return ``value`` if it is a finite number of at least 0.

    Raises:
        ValueError: negative, infinite or NaN.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    return float(value)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is not among the choices.

    Raises:
        ValueError: with the list of choices.
    """
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def check_count(name: str, value: float) -> int:
    """Return ``value`` if it is a whole number of at least 1.

    Raises:
        ValueError: anything else.
    """
    if value < 1 or int(value) != value:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value}")
    return int(value)
