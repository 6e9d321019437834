"""Intervals: against SciPy's, and how often they hold the true mean."""

import numpy as np
import pytest
from scipy import stats

from landscape.statistics import mean_band, mean_interval, paired_difference


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_an_interval_is_students(confidence):
    values = np.random.default_rng(0).normal(3, 2, 7)
    found = mean_interval(values, confidence)
    low, high = stats.t.interval(confidence, 6, values.mean(), stats.sem(values))
    assert found == pytest.approx((values.mean(), low, high, 7))


def test_by_hand():
    # mean 2, s = 1, t(2 degrees of freedom, 97.5 %) = 4.302653
    found = mean_interval([1.0, 2.0, 3.0])
    assert found.value == 2.0
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    assert found.n == 3


@pytest.mark.parametrize("n", [2, 5, 20])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_is_nominal_for_normal_values(n, confidence):
    # Exact for normal values: of R intervals, confidence * R hold the mean, with standard deviation sqrt(R c (1 - c)).
    repetitions = 20_000
    samples = np.random.default_rng(1).normal(-1.5, 3.0, (repetitions, n))
    _, low, high = mean_band(samples, axis=1, confidence=confidence)
    held = ((low <= -1.5) & (high >= -1.5)).mean()
    assert held == pytest.approx(confidence, abs=4 * (confidence * (1 - confidence) / repetitions) ** 0.5)


def test_coverage_of_paired_differences():
    # What a pair shares is large, skewed, and cancels; the true difference is 0.3.
    draws = np.random.default_rng(2)
    held, n, repetitions = 0, 5, 4000
    for _ in range(repetitions):
        shared = 100 * draws.exponential(size=n)
        found = paired_difference(shared + draws.normal(0.3, 1, n), shared + draws.normal(0, 1, n))
        held += found.low <= 0.3 <= found.high
        assert found.high - found.low < 30
    assert held / repetitions == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / repetitions) ** 0.5)


# Shapes that differences of trained networks may have, each with mean 0: (draws, size) -> values.
SHAPES = {
    "normal": lambda draws, size: draws.normal(size=size),
    "mildly skewed": lambda draws, size: draws.gamma(4, size=size) - 4,  # skewness 1
    "heavy tails": lambda draws, size: draws.standard_t(5, size=size),
}


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_with_a_large_shared_part_and_other_shapes(n, shape):
    # The parts that a pair shares are a hundred times as large, and cancel; the true difference is 0.7.
    draws, repetitions = np.random.default_rng(3), 20_000
    shared = 100 * draws.exponential(size=(repetitions, n))
    _, low, high = mean_band((shared + 0.7 + SHAPES[shape](draws, (repetitions, n))) - shared, axis=1)
    assert 0.92 <= ((low <= 0.7) & (high >= 0.7)).mean() <= 0.98


def test_one_value_has_no_interval():
    found = mean_interval([2.0])
    assert (found.value, found.n) == (2.0, 1)
    assert np.isnan([found.low, found.high]).all()


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize(("values", "mean"), [([1.0, np.nan], np.nan), ([1.0, np.inf], np.inf), ([1e308] * 3, np.inf)])
def test_nothing_that_is_not_finite_is_left_out(values, mean):
    found = mean_interval(values)
    assert found.value == pytest.approx(mean, nan_ok=True)
    assert np.isnan([found.low, found.high]).all()
    assert found.n == len(values)


def test_infinite_minus_infinite_is_no_number():
    assert np.isnan(paired_difference([np.inf, 1.0], [np.inf, 1.0]).value)


def test_a_band_is_the_interval_of_each_column():
    values = np.random.default_rng(0).normal(size=(3, 4, 2))
    values[1, 2, 1] = np.nan
    mean, low, high = mean_band(values, axis=1)
    assert mean.shape == low.shape == high.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        expected = mean_interval(values[i, :, j])[:3]
        assert (mean[i, j], low[i, j], high[i, j]) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "expected at least one"),
        (lambda: mean_interval(np.zeros((2, 2))), "one dimension, got 2"),
        (lambda: mean_interval([1.0], confidence=95), "a share between 0 and 1, such as 0.95, got 95"),
        (lambda: mean_interval([1.0], confidence=1.0), "got 1.0"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), r"as many values in b as in a, \(2,\), got \(1,\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
