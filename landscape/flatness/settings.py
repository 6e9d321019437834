"""Checks on the settings that flatness metrics share."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["at_least", "checked_steps", "positive_number", "positive_numbers"]


def positive_numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """The values, which must be positive and finite.

    Raises:
        TypeError: one number instead of a sequence.
        ValueError: no value, or one that is not positive.
    """
    if isinstance(values, int | float):
        raise TypeError(f"{name}: expected a sequence of numbers, got {values}; write ({values},)")
    if not values or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"{name}: expected one or more positive numbers, got {tuple(values)}")
    return tuple(float(value) for value in values)


def positive_number(name: str, value: float) -> None:
    """See that a value is positive and finite.

    Raises:
        ValueError: it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a positive number, got {value}")


def at_least(name: str, value: int, smallest: int, reason: str = "") -> None:
    """See that a whole number is large enough.

    Raises:
        ValueError: it is not.
    """
    if value < smallest:
        raise ValueError(f"{name}: expected at least {smallest}, got {value}" + (f"; {reason}" if reason else ""))


def checked_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """Numbers of ascent steps.

    Raises:
        TypeError: one number instead of a sequence.
        ValueError: no number, or one that is not a whole number of at least 1.
    """
    if isinstance(steps, int):
        raise TypeError(f"steps: expected a sequence of whole numbers, got {steps}; write ({steps},)")
    if not steps or not all(isinstance(number, int) and number >= 1 for number in steps):
        raise ValueError(f"steps: expected whole numbers of at least 1, got {tuple(steps)}")
    return tuple(steps)
