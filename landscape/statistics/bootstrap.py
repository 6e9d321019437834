"""Studentized bootstrap intervals, for one sample and for two-way tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from landscape.statistics.crossed import MeanSquares, mean_squares
from landscape.statistics.intervals import Interval

__all__ = ["bootstrap_interval"]

_FEWEST = 5  # values, or rows and columns


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, confidence: float = 0.95, resamples: int = 1999, seed: int = 0
) -> Interval:
    r"""The mean with a studentized (bootstrap-t) interval: of one sample, or of a crossed table.

    Resampled :math:`t^* = (\bar x^* - \bar x) / \hat\sigma^*` take the place of Student's distribution in
    :math:`\bar x - t^* \hat\sigma`, so that the interval follows the skewness of the values. In a table, rows and
    columns are resampled independently of each other ("pigeonhole"), and :math:`\hat\sigma` is that of
    :func:`~landscape.statistics.crossed_interval`.

    Coverage of the nominal 95 % interval in simulation. One sample, n = 5 to 20: 94 to 95 % for normal values, 92 to
    95 % for skewed ones (gamma of shape 4, log-normal, exponential) and for heavy tails (t with 5 degrees of freedom,
    Laplace). Tables of 5 × 5, 5 × 10 and 10 × 20 values, 16 mixes of normal row, column and residual variance: 93 to
    97 %. The interval of 5 values is typically 1.3 times as wide as Student's, which is the better choice unless the
    values are clearly skewed. The percentile bootstrap, for comparison, covers 84 % of normal values at n = 5, and of
    tables of 5 × 5 whose rows alone differ.

    Sources: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), section 12.5; A. B. Owen, "The
    pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).

    Args:
        values: (n,) with n of at least 5, or (rows, columns) with at least 5 of each.
        confidence: share of such intervals that hold the true mean.
        resamples: number of resamples.
        seed: of the resamples.

    Returns:
        The interval; ``n`` is the number of values. Without an interval (NaN) where a value is not finite, or where so
        many values are equal that too many resamples have no spread.

    Raises:
        ValueError: fewer than 5 values, rows or columns, for which no bootstrap covers; other than one or two
            dimensions; a confidence outside (0, 1); too few resamples for it.

    Example:
        >>> bootstrap_interval([1.0, 2.0, 4.0, 5.0, 8.0]).value
        4.0
    """
    values = np.asarray(values, dtype=np.float64)
    _check(values)
    rank = _rank(confidence, resamples)
    with np.errstate(invalid="ignore"):
        mean = float(values.mean())
    if not np.isfinite(values).all() or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, values.size)
    draws = np.random.default_rng(seed)
    counts = [draws.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64) for n in values.shape]
    offsets = values - mean  # the resampled means are then deviations, and sums of squares lose no digits
    moved, errors = _sample(offsets, *counts) if values.ndim == 1 else _table(offsets, *counts)
    studentized = np.sort(_ratio(moved, errors, negligible=1e-9 * float(np.abs(offsets).max())))
    lowest, highest = float(studentized[rank - 1]), float(studentized[-rank])
    error = _standard_error(offsets)
    if error == 0:
        return Interval(mean, mean, mean, values.size)
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return Interval(mean, math.nan, math.nan, values.size)
    return Interval(mean, mean - highest * error, mean - lowest * error, values.size)


def _check(values: np.ndarray) -> None:
    if values.ndim not in (1, 2):
        raise ValueError(f"values: expected one dimension, or rows × columns, got {values.ndim} dimensions")
    if min(values.shape) < _FEWEST:
        instead = "mean_interval" if values.ndim == 1 else "crossed_interval"
        raise ValueError(
            f"values: expected at least {_FEWEST}{'' if values.ndim == 1 else ' rows and columns'}, got "
            f"{' × '.join(map(str, values.shape))}: no bootstrap of so few covers; use {instead}"
        )


def _rank(confidence: float, resamples: int) -> int:
    """Which of the sorted resamples, counted from either end, bounds the interval."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, such as 0.95, got {confidence}")
    rank = math.floor((resamples + 1) * (1 - confidence) / 2 + 1e-9)
    if rank < 1:
        least = math.ceil(2 / (1 - confidence) - 1e-9) - 1
        raise ValueError(f"resamples: expected at least {least} for a confidence of {confidence}, got {resamples}")
    return rank


def _ratio(moved: np.ndarray, errors: np.ndarray, negligible: float) -> np.ndarray:
    """Deviations in standard errors; infinite where a resample is many copies of one value."""
    alike = errors <= negligible
    infinite = np.where(np.abs(moved) <= negligible, 0.0, np.copysign(math.inf, moved))
    return np.where(alike, infinite, moved / np.where(alike, 1.0, errors))


def _standard_error(offsets: np.ndarray) -> float:
    if offsets.ndim == 1:
        return float(offsets.std(ddof=1) / math.sqrt(len(offsets)))
    return math.sqrt(float(mean_squares(offsets).of_the_mean) / offsets.size)


def _sample(offsets: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard errors of resamples ``(resamples,)`` with so many copies of each value."""
    n = len(offsets)
    means = counts @ offsets / n
    variances = np.maximum(counts @ offsets**2 / n - means**2, 0) / (n - 1)
    return means, np.sqrt(variances)


def _table(offsets: np.ndarray, of_rows: np.ndarray, of_columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for tables made of so many copies of each row and each column."""
    rows, columns = offsets.shape
    row_means = of_columns @ offsets.T / columns  # (resamples, rows)
    column_means = of_rows @ offsets / rows
    means = (of_rows * row_means).sum(1) / rows
    between_rows = columns * (of_rows * (row_means - means[:, None]) ** 2).sum(1)
    between_columns = rows * (of_columns * (column_means - means[:, None]) ** 2).sum(1)
    total = ((of_rows @ offsets**2) * of_columns).sum(1) - rows * columns * means**2
    rest = np.maximum(total - between_rows - between_columns, 0)
    squares = MeanSquares(
        between_rows / (rows - 1), between_columns / (columns - 1), rest / ((rows - 1) * (columns - 1))
    )
    return means, np.sqrt(squares.of_the_mean / offsets.size)
