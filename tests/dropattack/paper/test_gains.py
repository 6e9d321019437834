import math

import pytest
from scipy.stats import norm

from dropattack.paper import gains, half_the_data


def test_two_gains_are_misprinted():
    table = gains().set_index("examples")
    assert table["gain"].tolist() == [2.20, 2.08, 2.40, 2.74, 2.60, 2.10, 3.44, 2.30]
    wrong = table[table["misprinted"]]
    assert wrong[["printed_gain", "gain"]].to_dict("index") == {
        2500: {"printed_gain": 2.66, "gain": 2.74},
        20_000: {"printed_gain": 3.42, "gain": 3.44},
    }


def test_more_than_two_points_at_each_of_eight_sizes():
    table = gains()
    assert len(table) == 8
    assert table["more_than_2"].all()
    # By itself one of them is beyond chance, if the true gain were 2; corrected for eight, none is.
    assert (table["p_value"] < 0.05).sum() == 1
    assert table["p_value"].min() * 8 > 0.05


def test_standard_error_is_that_of_two_samples():
    # 74.26 % and 76.34 % of 5,000: variances 0.7426 x 0.2574 / 5000 and 0.7634 x 0.2366 / 5000.
    row = gains(confidence=0.9).set_index("examples").loc[500]
    error = 100 * math.sqrt((0.7426 * 0.2574 + 0.7634 * 0.2366) / 5000)
    assert row["standard_error"] == pytest.approx(error)
    assert row["low"] == pytest.approx(2.08 - 1.6449 * error, abs=1e-4)
    assert row["high"] == pytest.approx(2.08 + 1.6449 * error, abs=1e-4)
    assert row["p_value"] == pytest.approx(1 - norm.cdf(0.08 / error))


def test_half_the_data_pair_by_pair():
    table = half_the_data()
    assert table[["half", "examples"]].to_numpy().tolist() == [
        [500, 1000],
        [2500, 5000],
        [5000, 10_000],
        [10_000, 20_000],
        [20_000, 40_000],
    ]
    assert table["difference"].tolist() == [-1.96, 1.26, 0.30, 1.60, 0.74]
    assert table["holds"].tolist() == [False, True, True, True, True]
    # 78.30 % and 76.34 % of 5,000.
    error = 100 * math.sqrt((0.7830 * 0.2170 + 0.7634 * 0.2366) / 5000)
    assert table["standard_error"].iloc[0] == pytest.approx(error)
