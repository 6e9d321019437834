"""Means and differences with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

__all__ = ["Interval", "mean_band", "mean_interval", "paired_difference"]


class Interval(NamedTuple):
    """A mean and its confidence interval.

    Attributes:
        value: the mean.
        low: lower end; NaN where there is no interval.
        high: upper end; NaN where there is no interval.
        n: number of values.
    """

    value: float
    low: float
    high: float
    n: int


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> Interval:
    r"""The mean of a sample with Student's t interval :math:`\bar x \pm t_{n-1} \, s / \sqrt n`.

    It is exact for independent normal values and good for a mean of many others. In simulation the nominal 95 %
    interval of 3, 5 and 10 values held the true mean 94, 94 and 94 % of the time for a gamma distribution of shape 4
    (skewness 1), 95 to 96 % for Student's t with 5 degrees of freedom, but only 88 to 90 % for an exponential one
    (skewness 2). One value has no interval. Nothing is left out: a value that is not finite makes the mean so too, and
    then there is no interval.

    Args:
        values: the sample.
        confidence: share of such intervals that hold the true mean.

    Raises:
        ValueError: no values, more than one dimension, or a confidence outside (0, 1).

    Example:
        >>> mean_interval([1.0, 2.0, 3.0]).value
        2.0
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"values: expected one dimension, got {values.ndim}")
    mean, low, high = mean_band(values, confidence=confidence)
    return Interval(float(mean), float(low), float(high), len(values))


def paired_difference(
    a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """The mean of ``a - b`` over pairs, with its interval; see :func:`mean_interval`.

    What the two of a pair have in common, such as the directions that both were measured along, cancels.

    Args:
        a: one value a pair.
        b: the other, in the same order.
        confidence: share of such intervals that hold the true mean difference.

    Raises:
        ValueError: not the same number of values, or what :func:`mean_interval` refuses.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (a, b))
    if a.shape != b.shape:
        raise ValueError(f"pairs: expected as many values in b as in a, {a.shape}, got {b.shape}")
    with np.errstate(invalid="ignore"):  # inf - inf is not a number, as it should be
        return mean_interval(a - b, confidence)


def mean_band(values: np.ndarray, axis: int = 0, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means along an axis, and both ends of their intervals: :func:`mean_interval` of each column by itself.

    Raises:
        ValueError: no values, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, such as 0.95, got {confidence}")
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[axis]
    if n == 0:
        raise ValueError("values: expected at least one, got none")
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis)
        if n == 1:
            return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
        half = stdtrit(n - 1, (1 + confidence) / 2) * values.std(axis, ddof=1) / np.sqrt(n)
        half = np.where(np.isfinite(mean), half, np.nan)
        return mean, mean - half, mean + half
