"""Intervals for two-way tables: every training seed measured along the same random directions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

from landscape.statistics.intervals import Interval

__all__ = ["MeanSquares", "crossed_band", "crossed_interval", "mean_squares"]

_FEWEST = 3  # rows and columns


class MeanSquares(NamedTuple):
    """The two-way analysis of variance of tables with one value a cell.

    Attributes:
        rows: of the rows; expectation: residual variance + (number of columns) × variance between rows.
        columns: of the columns, likewise.
        residual: of what rows and columns leave; expectation: residual variance.
    """

    rows: np.ndarray
    columns: np.ndarray
    residual: np.ndarray

    @property
    def of_the_mean(self) -> np.ndarray:
        r"""Number of cells times the variance of the grand mean, :math:`\max(A, B, A + B - E)`.

        Without the maximum it is unbiased, but it can be negative where rows and columns differ by the residual alone.
        """
        return np.maximum(np.maximum(self.rows, self.columns), self.rows + self.columns - self.residual)


def crossed_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    r"""The mean of a table of rows × columns, with an interval for other rows *and* other columns.

    For :math:`y_{ij} = \mu + a_i + b_j + e_{ij}`, with independent random effects of the rows (training seeds) and of
    the columns (directions), the mean has variance :math:`(A + B - E) / IJ`, in expectations of the mean squares of
    rows, columns and residual. The interval is Student's with that variance, kept from falling below its parts, and
    with Satterthwaite's degrees of freedom

    .. math:: \nu = V^2 \Big/ \left(\frac{A (A - E)_+}{I - 1} + \frac{B (B - E)_+}{J - 1}
              + \frac{E^2}{(I - 1)(J - 1)}\right), \qquad V = \max(A, B, A + B - E),

    and not fewer than :math:`\min(I, J) - 1`. A mean square counts with its part above the residual, as otherwise the
    interval is far too wide (99.9 % coverage) where there are neither row nor column effects.

    Coverage of the nominal 95 % interval in simulation, over 16 mixes of normal row, column and residual variance that
    include each alone: 93 to 98 % for 5 × 5, 5 × 10, 5 × 20 and 10 × 20 values, the most where there is only residual
    variance. With 4 rows it is 92 to 98 %; with 3 rows it falls to 91 % and rises to 99 %, and nothing that was tried
    is better. With effects of a gamma distribution of shape 4 the least is 92 %, of an exponential one 88 %.

    Source: F. E. Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
    Bulletin 2 (1946); the choice between the variants by simulation is ours.

    Args:
        values: (rows, columns), at least 3 of each.
        confidence: share of such intervals that hold the true mean.

    Returns:
        The interval; ``n`` is the number of values. Without an interval (NaN) where a value is not finite.

    Raises:
        ValueError: not two dimensions, fewer than 3 rows or columns, or a confidence outside (0, 1).
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"values: expected rows × columns, got {values.ndim} dimension(s)")
    mean, low, high = crossed_band(values, confidence)
    return Interval(float(mean), float(low), float(high), values.size)


def crossed_band(values: np.ndarray, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of many tables and both ends of their intervals: :func:`crossed_interval` of each.

    Args:
        values: (…, rows, columns).
        confidence: of each interval.

    Returns:
        Three arrays (…): means, lower ends, upper ends.

    Raises:
        ValueError: fewer than 3 rows or columns, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a share between 0 and 1, such as 0.95, got {confidence}")
    values = np.asarray(values, dtype=np.float64)
    rows, columns = values.shape[-2:]
    if min(rows, columns) < _FEWEST:
        raise ValueError(
            f"values: expected at least {_FEWEST} rows and {_FEWEST} columns, got {rows} × {columns}: so few do not "
            "tell how much others would differ; average over the shorter side and use mean_interval"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean((-2, -1))
        squares = mean_squares(values)
        variance = squares.of_the_mean
        half = stdtrit(_degrees_of_freedom(squares, rows, columns), (1 + confidence) / 2)
        half = half * np.sqrt(variance / (rows * columns))
        return mean, mean - half, mean + half


def mean_squares(values: np.ndarray) -> MeanSquares:
    """Mean squares of tables (…, rows, columns)."""
    rows, columns = values.shape[-2:]
    mean = values.mean((-2, -1), keepdims=True)
    of_rows = values.mean(-1, keepdims=True) - mean
    of_columns = values.mean(-2, keepdims=True) - mean
    rest = values - mean - of_rows - of_columns
    return MeanSquares(
        columns * (of_rows**2).sum((-2, -1)) / (rows - 1),
        rows * (of_columns**2).sum((-2, -1)) / (columns - 1),
        (rest**2).sum((-2, -1)) / ((rows - 1) * (columns - 1)),
    )


def _degrees_of_freedom(squares: MeanSquares, rows: int, columns: int) -> np.ndarray:
    a, b, e = squares
    variance = squares.of_the_mean
    spread = (
        a * np.maximum(a - e, 0) / (rows - 1)
        + b * np.maximum(b - e, 0) / (columns - 1)
        + e**2 / ((rows - 1) * (columns - 1))
    )
    few = float(min(rows, columns) - 1)
    return np.maximum(few, np.divide(variance**2, spread, out=np.full_like(variance, few), where=spread > 0))
