"""Tests of paired differences that assume no distribution, and the correction for testing many times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

__all__ = ["PairedTest", "holm", "permutation_test", "wilcoxon_test"]

_EXACT_UP_TO = 16  # pairs: 65,536 sign patterns


class PairedTest(NamedTuple):
    """What a test of paired differences found.

    Attributes:
        p_value: two-sided; NaN where a difference is not finite, or there is none.
        smallest_p: the smallest that so many pairs can give, whatever they are: 2 / 2ⁿ. Above 0.05 the test cannot
            reject at that level, and its p says nothing about the size of the difference.
        n: number of pairs.
        exact: whether every pattern of signs was counted.
    """

    p_value: float
    smallest_p: float
    n: int
    exact: bool


def permutation_test(differences: Sequence[float] | np.ndarray, flips: int = 9999, seed: int = 0) -> PairedTest:
    """Whether the mean of paired differences is zero, by flipping their signs.

    If the two of a pair are exchangeable, every pattern of signs is equally likely; p is the share of patterns whose
    mean is at least as far from zero. Up to 16 pairs all patterns are counted; beyond, random ones, with the observed
    one among them, so that the test holds its level.

    Sources: R. A. Fisher, The Design of Experiments (1935), section 21; B. Phipson and G. K. Smyth, "Permutation
    p-values should never be zero", Statistical Applications in Genetics and Molecular Biology 9 (2010).

    Args:
        differences: one a pair.
        flips: number of random patterns beyond 16 pairs.
        seed: of these.

    Raises:
        ValueError: more than one dimension, or no flips.

    Example:
        >>> permutation_test([1.0, 2.0, 3.0, 4.0, 5.0]).p_value
        0.0625
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"differences: expected one dimension, got {values.ndim}")
    if flips < 1:
        raise ValueError(f"flips: expected at least 1, got {flips}")
    n = len(values)
    exact = n <= _EXACT_UP_TO
    smallest = min(1.0, 2.0 ** (1 - n)) if exact else max(2.0 ** (1 - n), 1 / (flips + 1))
    if n == 0 or not np.isfinite(values).all():
        return PairedTest(math.nan, smallest, n, exact)
    signs = _all_signs(n) if exact else np.random.default_rng(seed).choice((-1, 1), (flips, n)).astype(np.int8)
    # Sums of the same numbers in another order differ by rounding: ties must not be lost to it.
    tolerance = 1e-12 * float(np.abs(values).sum())
    extreme = np.abs(signs @ values) >= abs(float(values.sum())) - tolerance
    p_value = float(extreme.mean()) if exact else (int(extreme.sum()) + 1) / (flips + 1)
    return PairedTest(p_value, smallest, n, exact)


def wilcoxon_test(differences: Sequence[float] | np.ndarray, seed: int = 0) -> PairedTest:
    """Wilcoxon's signed-rank test of paired differences: less moved by one large difference than the mean is.

    Exact: SciPy's distribution without ties, sign flips of the ranks with ties (random flips beyond 16 pairs). Pairs
    that do not differ are left out, as Wilcoxon did, and then ``smallest_p`` and ``n`` are of the others.

    Source: F. Wilcoxon, "Individual comparisons by ranking methods", Biometrics Bulletin 1 (1945).

    Args:
        differences: one a pair.
        seed: of random flips.

    Raises:
        ValueError: more than one dimension.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"differences: expected one dimension, got {values.ndim}")
    if not len(values) or not np.isfinite(values).all():
        return permutation_test(values)
    values = values[values != 0]
    if not len(values):
        return PairedTest(1.0, 1.0, 0, exact=True)
    ranks = stats.rankdata(np.abs(values))
    if len(np.unique(ranks)) < len(ranks):
        return permutation_test(np.sign(values) * ranks, seed=seed)
    p_value = float(stats.wilcoxon(values, method="exact").pvalue)
    return PairedTest(p_value, min(1.0, 2.0 ** (1 - len(values))), len(values), exact=True)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values corrected for their number, by Holm's step-down method.

    The chance that any true null hypothesis among them is rejected at a level is then at most that level, however they
    depend on each other. NaN is no test: it stays NaN and does not count.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).

    Args:
        p_values: of any number of tests.

    Returns:
        As many, in the same order, never smaller than given and never larger than 1.

    Raises:
        ValueError: more than one dimension, or a value outside [0, 1].

    Example:
        >>> holm([0.01, 0.04]).tolist()
        [0.02, 0.04]
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"p_values: expected one dimension, got {values.ndim}")
    tested = np.flatnonzero(~np.isnan(values))
    if len(tested) and not ((values[tested] >= 0) & (values[tested] <= 1)).all():
        raise ValueError(f"p_values: expected values between 0 and 1, got {values[tested].tolist()}")
    order = tested[np.argsort(values[tested], kind="stable")]
    adjusted = np.full_like(values, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted


def _all_signs(n: int) -> np.ndarray:
    """Every pattern of n signs, (2ⁿ, n)."""
    bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    return (2 * bits - 1).astype(np.int8)
