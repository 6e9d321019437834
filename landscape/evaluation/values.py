"""What was found at a point, and how it is named; needs no PyTorch."""

from __future__ import annotations

__all__ = ["SEPARATOR", "Node", "Values", "flat"]

Node = tuple[float, ...]  # coordinates of a point along directions
Values = dict[str, dict[str, float]]  # what was found at a point: split to column to number
SEPARATOR = "/"


def flat(values: Values) -> dict[str, float]:
    """Splits and columns in one row, as ``train/loss``."""
    return {
        f"{split}{SEPARATOR}{column}": number for split, columns in values.items() for column, number in columns.items()
    }
