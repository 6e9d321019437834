import math

import pytest

from dropattack.paper import input_and_weights


def test_one_of_six_numbers_contradicts_the_text():
    table = input_and_weights().set_index(["dataset", "measure"])
    assert table["difference"].to_dict() == {
        ("imdb", "accuracy"): 0.60,
        ("pheme", "accuracy"): 1.40,
        ("pheme", "f1"): -0.02,
        ("ag-news", "accuracy"): 0.02,
        ("mnist", "accuracy"): 0.11,
        ("cifar10", "accuracy"): 0.04,
    }
    assert table.index[~table["holds"]].tolist() == [("pheme", "f1")]
    assert table.loc[("pheme", "f1"), ["input", "input_and_weights"]].tolist() == [81.33, 81.31]


def test_standard_errors():
    table = input_and_weights().set_index(["dataset", "measure"])["standard_error"]
    # 85.75 % and 87.15 % of the 637 test examples of PHEME.
    assert table["pheme", "accuracy"] == pytest.approx(
        100 * math.sqrt((0.8575 * 0.1425 + 0.8715 * 0.1285) / 637), rel=1e-9
    )
    assert table.index[table.isna()].tolist() == [("pheme", "f1")]
