"""Intervals of crossed tables: against the analysis of variance by hand, and how often they hold the true mean."""

import numpy as np
import pytest
from scipy import stats

from landscape.statistics import crossed_band, crossed_interval

# Standard deviations of the effects of rows, of columns, and of the residual.
MIXES = {
    "rows": (1, 0, 0),
    "columns": (0, 1, 0),
    "rows and columns": (1, 1, 0),
    "residual": (0, 0, 1),
    "rows and residual": (1, 0, 1),
    "columns and residual": (0, 1, 1),
    "all": (1, 1, 1),
    "mostly rows": (1, 0.3, 0.3),
    "mostly columns": (0.3, 1, 0.3),
    "mostly residual": (0.3, 0.3, 2),
    "rows half": (0.5, 0, 1),
    "columns half": (0.1, 0.5, 1),
}


def simulated(repetitions, shape, mix, seed=0, mean=0.4):
    draws = np.random.default_rng(seed)
    rows, columns = shape
    of_rows, of_columns, residual = mix
    return (
        mean
        + of_rows * draws.normal(size=(repetitions, rows, 1))
        + of_columns * draws.normal(size=(repetitions, 1, columns))
        + residual * draws.normal(size=(repetitions, rows, columns))
    )


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("shape", [(5, 5), (5, 10), (10, 20), (10, 5)], ids=str)
def test_coverage(shape, mix):
    _, low, high = crossed_band(simulated(6000, shape, MIXES[mix]))
    assert 0.92 <= ((low <= 0.4) & (high >= 0.4)).mean() <= 0.98


def test_a_t_interval_over_all_cells_would_not_cover():
    # The reason for this file: directions are not independent of each other within a training seed.
    values = simulated(2000, (5, 10), MIXES["mostly rows"])
    cells = values.reshape(2000, -1)
    half = stats.t.ppf(0.975, 49) * stats.sem(cells, axis=1)
    assert (np.abs(cells.mean(1) - 0.4) <= half).mean() < 0.6


def test_by_hand():
    # Rows [0 2 4], [4 6 8], [5 7 12]: mean 16/3; row means 2, 6, 8; column means 3, 5, 8.
    # A = 3 * sum((row mean - mean)^2) / 2 = 3 * (100 + 4 + 64) / 9 / 2 = 28
    # B = 3 * sum((column mean - mean)^2) / 2 = 3 * (49 + 1 + 64) / 9 / 2 = 19
    # E = (sum of squares 354 - 9 * 256 / 9 - 56 - 38) / 4 = (98 - 94) / 4 = 1
    # V = 28 + 19 - 1 = 46; nu = 46^2 / (28 * 27 / 2 + 19 * 18 / 2 + 1 / 4) = 2116 / 549.25
    values = np.array([[0, 2, 4], [4, 6, 8], [5, 7, 12]])
    found = crossed_interval(values, confidence=0.9)
    half = stats.t.ppf(0.95, 2116 / 549.25) * np.sqrt(46 / 9)
    assert found == pytest.approx((16 / 3, 16 / 3 - half, 16 / 3 + half, 9))


@pytest.mark.parametrize("transpose", [False, True])
def test_rows_alone_are_students_interval_of_row_means(transpose):
    # Columns that are copies say nothing new: A is all there is, and nu = A^2 / (A^2 / (I - 1)) = I - 1.
    means = np.array([1.0, 2.5, 3.0, 7.0])
    values = np.repeat(means[:, None], 6, axis=1)
    found = crossed_interval(values.T if transpose else values)
    expected = stats.t.interval(0.95, 3, means.mean(), stats.sem(means))
    # nu has a floor of min(I, J) - 1 = 3 here as well.
    assert found[:3] == pytest.approx((means.mean(), *expected))


def test_the_degrees_of_freedom_have_a_floor():
    # A = B = 0 and a residual alone, [1 -1 0], [-1 0 1], [0 1 -1]: E = 6 / 4, V = max(0, 0, -E) = 0: no width.
    values = np.array([[1.0, -1, 0], [-1, 0, 1], [0, 1, -1]])
    assert crossed_interval(values)[:3] == pytest.approx((0, 0, 0))
    # Two opposite halves: A = 0, B = 0 but for a shift of one row by d: A = 3 * (2/3) d^2 / 2 = d^2, with d = 1.
    # E = 1.5, B = 0, V = max(1, 0, -0.5) = 1, A below E counts nothing: nu = 1 / (1.5^2 / 4) = 1.78, raised to 2.
    half = stats.t.ppf(0.975, 2) * np.sqrt(1 / 9)
    found = crossed_interval(values + np.array([[1.0], [0], [0]]))
    assert found[:3] == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half))


def test_equal_values_have_an_interval_of_no_width():
    assert crossed_interval(np.full((4, 5), 2.5)) == (2.5, 2.5, 2.5, 20)


@pytest.mark.parametrize(("value", "mean"), [(np.nan, np.nan), (np.inf, np.inf)])
def test_a_value_that_is_not_finite_leaves_no_interval(value, mean):
    values = np.arange(12.0).reshape(3, 4)
    values[1, 2] = value
    found = crossed_interval(values)
    assert found.value == pytest.approx(mean, nan_ok=True)
    assert np.isnan([found.low, found.high]).all()


def test_a_band_is_the_interval_of_each_table():
    values = simulated(6, (4, 5), MIXES["all"]).reshape(2, 3, 4, 5)
    band = crossed_band(values, confidence=0.8)
    for place in np.ndindex(2, 3):
        assert [one[place] for one in band] == pytest.approx(crossed_interval(values[place], 0.8)[:3])


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (np.zeros(5), {}, r"expected rows × columns, got 1 dimension"),
        (np.zeros((2, 9)), {}, "at least 3 rows and 3 columns, got 2 × 9: .*use mean_interval"),
        (np.zeros((9, 2)), {}, "got 9 × 2"),
        (np.zeros((5, 5)), {"confidence": 95}, "a share between 0 and 1, such as 0.95, got 95"),
    ],
)
def test_refusals(values, settings, message):
    with pytest.raises(ValueError, match=message):
        crossed_interval(values, **settings)
