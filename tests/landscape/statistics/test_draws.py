"""Two methods on the same draws: over directions, over training seeds and directions, and draws that are no pairs."""

import json

import numpy as np
import pandas as pd
import pytest

from landscape.statistics import compare_draws, crossed_interval, mean_interval

COLUMNS = [
    *("checkpoint", "split", "metric", "setting", "training_seed", "method", "baseline", "over"),
    *("difference", "low", "high", "seeds", "draws", "converged", "unpaired"),
]


@pytest.fixture
def numbers():
    """Draws of two methods, (3 training seeds, 4 draws) each."""
    draws = np.random.default_rng(0)
    return {name: draws.normal(size=(3, 4)).round(3) for name in ("standard", "other")}


@pytest.fixture
def table(flatness, numbers):
    rows = [(name, seed, of.tolist()) for name, each in numbers.items() for seed, of in enumerate(each)]
    return flatness(*rows[:3], *rows[:2:-1])  # pairs go by seed, not by place


def test_each_seed_and_all_of_them(table, numbers):
    found = compare_draws(table, "other", "standard")
    assert list(found.columns) == COLUMNS
    differences = numbers["other"] - numbers["standard"]
    assert found["over"].tolist() == ["draws"] * 3 + ["training seeds and draws"]
    for seed in range(3):
        (row,) = found[found["training_seed"] == seed].to_dict("records")
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(mean_interval(differences[seed])[:3])
        assert (row["seeds"], row["draws"], row["unpaired"]) == (1, 4, 0)
    last = found.iloc[-1]
    assert last["training_seed"] is pd.NA
    assert (last["difference"], last["low"], last["high"]) == pytest.approx(crossed_interval(differences)[:3])
    assert (last["seeds"], last["draws"], last["method"], last["baseline"]) == (3, 4, "other", "standard")


def test_the_confidence(table, numbers):
    found = compare_draws(table, "other", "standard", confidence=0.6)
    differences = numbers["other"] - numbers["standard"]
    assert found["low"].iloc[0] == pytest.approx(mean_interval(differences[0], 0.6).low)
    assert found["low"].iloc[-1] == pytest.approx(crossed_interval(differences, 0.6).low)


def test_the_order_of_draws_matters(table):
    # The same numbers in another order have the same mean and another interval: draws are paired.
    turned = table.copy()
    turned.loc[0, "draws"] = json.dumps(json.loads(table["draws"][0])[::-1])
    one, other = (compare_draws(each, "other", "standard").iloc[0] for each in (table, turned))
    assert one["difference"] == pytest.approx(other["difference"])
    assert one["high"] - one["low"] != pytest.approx(other["high"] - other["low"], rel=0.01)


def test_models_that_have_only_names(flatness):
    table = flatness(("standard", None, [1.0, 2.0, 4.0]), ("other", None, [2.0, 4.0, 7.0]))
    (row,) = compare_draws(table, "other", "standard").to_dict("records")
    # differences 1, 2, 3
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(mean_interval([1.0, 2.0, 3.0])[:3])
    assert row["over"] == "draws"
    assert pd.isna(row["training_seed"])


def test_two_training_seeds_have_no_interval_over_both(table, numbers):
    found = compare_draws(table[table["training_seed"] < 2], "other", "standard").iloc[-1]
    assert found["over"] == "training seeds and draws"
    assert found["difference"] == pytest.approx((numbers["other"] - numbers["standard"])[:2].mean())
    assert found[["low", "high"]].isna().all()


def test_seeds_without_a_partner_are_counted(table, flatness):
    more = flatness(("other", 9, [100.0] * 4), ("standard", 8, [100.0] * 4))
    found = compare_draws(pd.concat([table, more]), "other", "standard")
    assert set(found["unpaired"]) == {2}
    assert found["difference"].to_numpy() == pytest.approx(compare_draws(table, "other", "standard")["difference"])


def test_quantities_without_draws_are_no_rows(table, flatness):
    more = flatness(("standard", 0, 1.0), ("other", 0, 1.0), metric="trace")
    both = pd.concat([table, more, table.assign(metric="rise", split="test")])
    found = compare_draws(both, "other", "standard")
    assert set(found["metric"]) == {"sharpness", "rise"}
    assert len(found) == 8
    assert set(found.loc[found["metric"] == "rise", "split"]) == {"test"}


@pytest.mark.parametrize("missing", ["NaN", "null"])
def test_a_draw_that_is_missing_makes_its_rows_nan(table, missing):
    table.loc[0, "draws"] = f"[1.0, {missing}, 2.0, 3.0]"
    found = compare_draws(table, "other", "standard")
    assert found["difference"].isna().tolist() == [True, False, False, True]
    assert found["low"].isna().tolist() == [True, False, False, True]


def test_infinite_draws_do_not_warn(table):
    table.loc[0, "draws"] = "[Infinity, -Infinity, 2.0, 3.0]"
    found = compare_draws(table, "other", "standard")
    assert found["difference"].isna().tolist() == [True, False, False, True]


def test_a_value_that_has_not_converged_marks_its_rows(table):
    table.loc[table["training_seed"].eq(1) & table["method"].eq("other"), "converged"] = False
    assert compare_draws(table, "other", "standard")["converged"].tolist() == [True, False, True, False]


def test_a_table_from_a_file(table, through_csv):
    table = pd.concat([table, table.assign(split="", setting="", metric="rise")])
    pd.testing.assert_frame_equal(
        compare_draws(through_csv(table), "other", "standard"), compare_draws(table, "other", "standard")
    )


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (lambda t: t, ("other", "nobody"), "baseline: expected one of .*standard, other, got 'nobody'"),
        (lambda t: t, ("nobody", "other"), "methods: expected one of .*standard, other, got 'nobody'"),
        (lambda t: t, ("other", "other"), "another than the baseline, got 'other' twice"),
        (lambda t: t.assign(draws=""), ("other", "standard"), "a metric with random draws for other and standard"),
        (lambda t: t.assign(draws=np.nan), ("other", "standard"), "a metric with random draws for other and standard"),
        (lambda t: t.assign(draws="1;2"), ("other", "standard"), "a JSON list of numbers, got '1;2'"),
        (lambda t: t.assign(draws='["a"]'), ("other", "standard"), "a JSON list of numbers, got "),
        (
            lambda t: t.assign(seed=range(6)),
            ("other", "standard"),
            "one seed of the draws of selected, train, sharpness",
        ),
        (lambda t: pd.concat([t, t]), ("other", "standard"), "that repeat"),
        (lambda t: t.drop(columns="seed"), ("other", "standard"), "but seed is missing"),
        (
            lambda t: t[(t["method"] == "other") ^ (t["training_seed"] > 1)],
            ("other", "standard"),
            "that other and standard both have, got 1, 0 and 2",
        ),
    ],
)
def test_refusals(table, change, names, message):
    with pytest.raises(ValueError, match=message):
        compare_draws(change(table), *names)


def test_other_numbers_of_draws_are_no_pairs(table):
    table.loc[0, "draws"] = "[1.0, 2.0]"
    with pytest.raises(ValueError, match=r"as many for each model, got 2, 4 of selected, train, sharpness, rho=0\.05"):
        compare_draws(table, "other", "standard")
