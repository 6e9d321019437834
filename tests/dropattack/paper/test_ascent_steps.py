import pytest

from dropattack.paper import ascent_steps


def test_more_steps_change_less_than_another_sample_of_test_data_would():
    table = ascent_steps().set_index(["dataset", "measure"])
    assert table["range"].to_dict() == {
        ("imdb", "accuracy"): 0.07,
        ("pheme", "accuracy"): 0.21,
        ("ag-news", "accuracy"): 0.07,
        ("mnist", "accuracy"): 0.03,
        ("cifar10", "accuracy"): 0.03,
        ("pheme", "f1"): 0.47,
    }
    assert (table["range_in_standard_errors"].dropna() < 0.4).all()
    # 100 sqrt(0.9036 x 0.0964 / 5000)
    assert table.loc[("imdb", "accuracy"), "standard_error_of_one_run"] == pytest.approx(0.41739, abs=1e-5)
    assert table.index[table["standard_error_of_one_run"].isna()].tolist() == [("pheme", "f1")]


def test_best_steps():
    table = ascent_steps().query("measure == 'accuracy'").set_index("dataset")
    steps = {"imdb": 4, "pheme": 3, "ag-news": 4, "mnist": 1, "cifar10": 4}  # MNIST: 99.27 with 1 and 3, the fewest
    assert table["best_ascent_steps"].to_dict() == steps
    assert table.loc["pheme", ["one_step", "best"]].tolist() == [87.15, 87.36]
