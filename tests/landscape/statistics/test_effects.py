"""Effect sizes: by hand, and without bias."""

import numpy as np
import pytest

from landscape.statistics import cohen_d_z, rank_biserial


def test_d_z_by_hand():
    # 1, 2, 3: mean 2, standard deviation 1. Hedges' factor for 2 degrees of freedom: Gamma(1) / (1 * Gamma(1/2))
    # = 1 / sqrt(pi).
    assert cohen_d_z([1.0, 2.0, 3.0], corrected=False) == pytest.approx(2.0)
    assert cohen_d_z([1.0, 2.0, 3.0]) == pytest.approx(2 / np.pi**0.5)


def test_hedges_factor_for_five_pairs():
    # 4 degrees of freedom: Gamma(2) / (sqrt(2) * Gamma(3/2)) = 1 / (sqrt(2) * sqrt(pi) / 2) = sqrt(2 / pi) = 0.798
    values = [1.0, -2.0, 4.0, 3.0, 0.5]
    assert cohen_d_z(values) / cohen_d_z(values, corrected=False) == pytest.approx((2 / np.pi) ** 0.5)


@pytest.mark.parametrize("n", [4, 8])
def test_with_the_correction_there_is_no_bias(n):
    # True value 0.8; the mean of R estimates has standard error s / sqrt(R).
    samples = np.random.default_rng(0).normal(0.8, 1, (8000, n))
    corrected = np.array([cohen_d_z(sample) for sample in samples])
    assert corrected.mean() == pytest.approx(0.8, abs=4 * corrected.std() / 8000**0.5)
    assert np.mean([cohen_d_z(sample, corrected=False) for sample in samples]) > 0.86


@pytest.mark.parametrize(
    "values",
    [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0], [0.1, 0.1, 0.1], [0.0] * 3, [1.0, np.nan, 2.0], [1.0, np.inf, 2.0]],
)
def test_d_z_is_not_defined(values):
    assert np.isnan(cohen_d_z(values))


def test_two_pairs_have_an_effect_without_the_correction():
    # mean 2, standard deviation sqrt(2)
    assert cohen_d_z([1.0, 3.0], corrected=False) == pytest.approx(2**0.5)
    assert np.isnan(cohen_d_z([1.0], corrected=False))


def test_rank_biserial_by_hand():
    # 1, -2, 3, 4: ranks 1 to 4, (1 + 3 + 4 - 2) / 10; a zero is left out.
    assert rank_biserial([1.0, -2.0, 0.0, 3.0, 4.0]) == pytest.approx(0.6)
    # 1, -1, 2: ranks 1.5, 1.5, 3
    assert rank_biserial([1.0, -1.0, 2.0]) == pytest.approx(0.5)


def test_rank_biserial_is_one_where_all_signs_agree():
    assert rank_biserial([0.1, 5.0, 2.0, np.inf]) == 1.0
    assert rank_biserial([-0.1, -5.0, -2.0]) == -1.0


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.0, np.nan]])
def test_rank_biserial_is_not_defined(values):
    assert np.isnan(rank_biserial(values))


@pytest.mark.parametrize("effect", [cohen_d_z, rank_biserial])
def test_refusals(effect):
    with pytest.raises(ValueError, match="differences: expected one dimension, got 2"):
        effect(np.zeros((3, 3)))
