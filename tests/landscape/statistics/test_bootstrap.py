"""Studentized bootstrap intervals: how often they hold the true mean, and resampling by hand."""

import numpy as np
import pytest
from scipy import stats

from landscape.statistics import bootstrap_interval, mean_interval

SHAPES = {
    "normal": lambda draws, size: draws.normal(size=size),
    "skewed": lambda draws, size: draws.gamma(4, size=size) - 4,  # skewness 1
    "heavy tails": lambda draws, size: draws.standard_t(5, size=size),
}


def coverage(samples, truth, resamples=399):
    """How often the interval of a sample holds the truth; the resamples are the same for all, the samples are not."""
    found = [bootstrap_interval(sample, resamples=resamples) for sample in samples]
    return np.mean([one.low <= truth <= one.high for one in found])


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_of_a_sample(n, shape):
    samples = 0.3 + SHAPES[shape](np.random.default_rng(n), (3000, n))
    assert 0.92 <= coverage(samples, 0.3) <= 0.98


@pytest.mark.parametrize("n", [5, 10])
def test_skewed_values_are_covered_where_students_interval_is_not(n):
    samples = np.random.default_rng(n).exponential(size=(3000, n))  # skewness 2
    student = np.mean([one.low <= 1 <= one.high for one in map(mean_interval, samples)])
    assert student < 0.91
    assert coverage(samples, 1, resamples=999) > student + 0.025


@pytest.mark.parametrize(
    "mix", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 0.3, 0.3), (0.3, 0.3, 2), (0.5, 0.1, 1)], ids=str
)
@pytest.mark.parametrize("shape", [(5, 5), (5, 10), (10, 20)], ids=str)
def test_coverage_of_a_table(shape, mix):
    draws, repetitions = np.random.default_rng(4), 1000
    rows, columns = shape
    samples = 0.3 + (
        mix[0] * draws.normal(size=(repetitions, rows, 1))
        + mix[1] * draws.normal(size=(repetitions, 1, columns))
        + mix[2] * draws.normal(size=(repetitions, rows, columns))
    )
    assert 0.92 <= coverage(samples, 0.3, resamples=199) <= 0.98


def test_against_resampling_by_hand():
    # The slow way, with other random numbers: choose, average, divide by the standard error of what was chosen.
    values = np.array([1.0, 2.0, 2.5, 4.0, 9.0, 12.0, 12.5])
    draws = np.random.default_rng(9)
    ratios = []
    for chosen in draws.choice(values, (20_000, len(values))):
        error = chosen.std(ddof=1) / len(values) ** 0.5
        ratios.append((chosen.mean() - values.mean()) / error if error else np.inf)
    low, high = values.mean() - np.quantile(ratios, [0.95, 0.05], method="nearest") * stats.sem(values)
    found = bootstrap_interval(values, confidence=0.9, resamples=19_999)
    width = high - low
    assert (found.value, found.n) == (pytest.approx(values.mean()), 7)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03 * width), pytest.approx(high, abs=0.03 * width))


def test_a_table_against_resampling_by_hand():
    # Rows and columns chosen independently; the error of the mean is sqrt(max(A, B, A + B - E) / IJ) of the choice.
    draws = np.random.default_rng(5)
    values = draws.gamma(2, size=(6, 1)) + draws.normal(size=(1, 7)) + draws.normal(size=(6, 7))

    def error(table):
        rows, columns = table.shape
        a = columns * table.mean(1).var(ddof=1)
        b = rows * table.mean(0).var(ddof=1)
        left = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
        e = (left**2).sum() / ((rows - 1) * (columns - 1))
        return np.sqrt(max(a, b, a + b - e) / table.size)

    ratios = []
    for _ in range(6000):
        chosen = values[draws.integers(6, size=6)][:, draws.integers(7, size=7)]
        ratios.append((chosen.mean() - values.mean()) / error(chosen))
    low, high = values.mean() - np.quantile(ratios, [0.95, 0.05]) * error(values)
    found = bootstrap_interval(values, confidence=0.9, resamples=19_999)
    width = high - low
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == (pytest.approx(low, abs=0.05 * width), pytest.approx(high, abs=0.05 * width))


def test_it_follows_the_skewness():
    found = bootstrap_interval([1.0, 1.1, 1.2, 1.3, 1.5, 1.8, 2.4, 6.0])
    assert found.high - found.value > 2 * (found.value - found.low)


def test_shift_and_scale_go_with_the_values():
    values = np.random.default_rng(0).normal(size=9)
    one, other = bootstrap_interval(values), bootstrap_interval(1e6 + 10 * values)
    assert [(end - 1e6) / 10 for end in other[:3]] == pytest.approx(one[:3], abs=1e-6)


def test_seeds():
    values = np.random.default_rng(0).normal(size=9)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1).low != bootstrap_interval(values, seed=2).low


@pytest.mark.parametrize("shape", [(6,), (5, 6)])
def test_equal_values_have_an_interval_of_no_width(shape):
    assert bootstrap_interval(np.full(shape, 2.5)) == (2.5, 2.5, 2.5, np.prod(shape))


def test_too_many_equal_values_leave_no_interval():
    # Of 6 values 5 are equal: a third of the resamples, (5/6)^6, has no spread.
    found = bootstrap_interval([2.0, 2.0, 2.0, 2.0, 2.0, 3.1])
    assert found.value == pytest.approx(13.1 / 6)
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(("value", "mean"), [(np.nan, np.nan), (np.inf, np.inf)])
def test_a_value_that_is_not_finite_leaves_no_interval(value, mean):
    found = bootstrap_interval([1.0, 2.0, value, 4.0, 5.0])
    assert found.value == pytest.approx(mean, nan_ok=True)
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (np.zeros(4), {}, "expected at least 5, got 4: no bootstrap of so few covers; use mean_interval"),
        (np.zeros((4, 9)), {}, "at least 5 rows and columns, got 4 × 9: .*use crossed_interval"),
        (np.zeros((5, 5, 5)), {}, "got 3 dimensions"),
        (np.zeros(5), {"confidence": 95}, "a share between 0 and 1, such as 0.95, got 95"),
        (np.zeros(5), {"confidence": 0.99, "resamples": 198}, "at least 199 for a confidence of 0.99, got 198"),
    ],
)
def test_refusals(values, settings, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, **settings)
