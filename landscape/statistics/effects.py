"""How large a paired difference is, without units."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaln
from scipy.stats import rankdata

__all__ = ["cohen_d_z", "rank_biserial"]


def cohen_d_z(differences: Sequence[float] | np.ndarray, corrected: bool = True) -> float:
    r"""The mean of paired differences in standard deviations *of the differences*.

    With Hedges' correction, :math:`d_z \, J(n - 1)` where
    :math:`J(\nu) = \Gamma(\nu / 2) / (\sqrt{\nu / 2} \; \Gamma((\nu - 1) / 2))`, it is unbiased for normal differences;
    the factor is 0.80 for 5 pairs. It is not Cohen's d of two independent groups: what a pair shares has cancelled.

    Sources: J. Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), section 2.3; L. V. Hedges,
    "Distribution theory for Glass's estimator of effect size and related estimators", Journal of Educational Statistics
    6 (1981).

    Args:
        differences: one a pair.
        corrected: with Hedges' factor.

    Returns:
        The effect size; NaN where it is not defined: fewer than 2 pairs (3 with the correction), a value that is not
        finite, or no spread.
    """
    values = _one_dimension(differences)
    n = len(values)
    if n < (3 if corrected else 2) or not np.isfinite(values).all():
        return math.nan
    spread = float(values.std(ddof=1))
    if spread <= 1e-12 * float(np.abs(values).max()):  # rounding errors are no spread
        return math.nan
    return float(values.mean()) / spread * (_hedges(n - 1) if corrected else 1.0)


def rank_biserial(differences: Sequence[float] | np.ndarray) -> float:
    r"""The matched-pairs rank-biserial correlation :math:`(W_+ - W_-) / (W_+ + W_-)`.

    :math:`W_\pm` are the sums of the ranks of the absolute differences with either sign; pairs that do not differ are
    left out. It is 1 where every difference is positive, -1 where every one is negative.

    Source: D. S. Kerby, "The simple difference formula: an approach to teaching nonparametric correlation",
    Comprehensive Psychology 3 (2014).

    Args:
        differences: one a pair.

    Returns:
        The correlation; NaN where a value is NaN, or no pair differs.
    """
    values = _one_dimension(differences)
    if np.isnan(values).any():
        return math.nan
    values = values[values != 0]
    if not len(values):
        return math.nan
    ranks = rankdata(np.abs(values))
    return float((np.sign(values) * ranks).sum() / ranks.sum())


def _hedges(degrees: int) -> float:
    return math.exp(gammaln(degrees / 2) - gammaln((degrees - 1) / 2)) / math.sqrt(degrees / 2)


def _one_dimension(differences: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"differences: expected one dimension, got {values.ndim}")
    return values
