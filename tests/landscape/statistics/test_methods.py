"""Methods against a baseline: pairs, what has none, what is NaN, and refusals."""

import numpy as np
import pandas as pd
import pytest

from landscape.statistics import compare_methods, holm, paired_difference

COLUMNS = [
    *("checkpoint", "split", "metric", "setting", "method", "baseline", "difference", "low", "high", "n", "ratio"),
    *("p_value", "smallest_p", "p_holm", "effect_size", "rank_biserial", "converged", "unpaired"),
]


@pytest.fixture
def table(flatness):
    # Training seeds in different orders: pairs go by seed, not by place.
    return flatness(
        *(("standard", seed, value) for seed, value in [(0, 1.0), (1, 2.0), (2, 4.0)]),
        *(("other", seed, value) for seed, value in [(2, 1.0), (0, 0.5), (1, 0.5)]),
    )


def test_by_hand(table):
    # Differences -0.5, -1.5, -3: mean -5/3. Ratios 1/2, 1/4, 1/4: geometric mean 2^(-5/3). All signs agree: p = 2/8.
    found = compare_methods(table, "standard")
    assert list(found.columns) == COLUMNS
    (row,) = found.to_dict("records")
    assert row["difference"] == pytest.approx(-5 / 3)
    assert (row["low"], row["high"]) == pytest.approx(paired_difference([0.5, 0.5, 1.0], [1.0, 2.0, 4.0])[1:3])
    assert row["ratio"] == pytest.approx(2 ** (-5 / 3))
    assert (row["p_value"], row["smallest_p"], row["p_holm"]) == (0.25, 0.25, 0.25)
    # standard deviation of the differences sqrt((49 + 1 + 64) / 36 / 2) = 1.258306; factor 1 / sqrt(pi)
    assert row["effect_size"] == pytest.approx(-5 / 3 / 1.2583057 / np.pi**0.5)
    assert row["rank_biserial"] == -1
    assert (row["n"], row["unpaired"], row["converged"]) == (3, 0, True)
    assert (row["method"], row["baseline"]) == ("other", "standard")
    assert tuple(row[key] for key in COLUMNS[:4]) == ("selected", "train", "sharpness", "rho=0.05")


def test_the_baseline_is_what_is_subtracted(table):
    one, other = (compare_methods(table, baseline).iloc[0] for baseline in ("standard", "other"))
    assert other["difference"] == -one["difference"]
    assert (other["low"], other["high"]) == (-one["high"], -one["low"])
    assert other["ratio"] == pytest.approx(1 / one["ratio"])


def test_the_confidence(table):
    found = compare_methods(table, "standard", confidence=0.5).iloc[0]
    assert (found["low"], found["high"]) == pytest.approx(
        paired_difference([0.5, 0.5, 1.0], [1.0, 2.0, 4.0], confidence=0.5)[1:3]
    )


def test_each_quantity_has_a_row_for_each_method(table, flatness):
    third = flatness(*(("third", seed, 3.0 + seed) for seed in range(3)))
    everything = pd.concat([table, third])
    everything = pd.concat(
        [
            everything.assign(checkpoint=checkpoint, split=split, metric=metric, setting=setting)
            for checkpoint in ("selected", "matched")
            for split in ("train", "test")
            for metric, setting in [("trace", ""), ("sharpness", "rho=0.05"), ("sharpness", "rho=0.1")]
        ]
    )
    found = compare_methods(everything, "standard")
    assert len(found) == 2 * 2 * 3 * 2
    assert not found.duplicated(COLUMNS[:5]).any()
    assert set(found["method"]) == {"other", "third"}
    chosen = compare_methods(everything, "standard", methods=["third"])
    assert set(chosen["method"]) == {"third"}
    assert chosen["difference"].to_numpy() == pytest.approx((2 + 2 + 1) / 3)
    assert found["p_holm"].to_numpy() == pytest.approx(holm(found["p_value"].to_numpy()))
    assert found["p_holm"].min() == 1  # 24 times 0.25


def test_holm_counts_every_row_that_is_tested(flatness):
    rows = [("standard", seed, 0.0) for seed in range(8)] + [("other", seed, 1.0 + seed) for seed in range(8)]
    table = flatness(*rows)
    four = pd.concat([table.assign(metric=name) for name in "abcd"])
    found = compare_methods(four, "standard")
    assert found["p_value"].to_numpy() == pytest.approx(2 / 256)
    assert found["p_holm"].to_numpy() == pytest.approx(4 * 2 / 256)
    four.loc[(four["metric"] == "a") & (four["training_seed"] == 3), "value"] = np.nan
    found = compare_methods(four, "standard").set_index("metric")
    assert np.isnan(found.loc["a", "p_holm"])
    assert found.loc["b", "p_holm"] == pytest.approx(3 * 2 / 256)


def test_runs_without_a_partner_are_counted(table, flatness):
    more = flatness(("standard", 7, 100.0), ("standard", 8, 100.0), ("other", 9, 100.0))
    found = compare_methods(pd.concat([table, more]), "standard").iloc[0]
    assert (found["n"], found["unpaired"]) == (3, 3)
    assert found["difference"] == pytest.approx(-5 / 3)


def test_a_quantity_that_a_method_lacks_is_a_row_without_pairs(table, flatness):
    more = flatness(("standard", 0, 1.0), ("standard", 1, 1.0), metric="trace")
    found = compare_methods(pd.concat([table, more]), "standard").set_index("metric").loc["trace"]
    assert (found["n"], found["unpaired"]) == (0, 2)
    numbers = ["difference", "low", "high", "ratio", "p_value", "p_holm", "effect_size", "rank_biserial"]
    assert found[numbers].isna().all()


def test_one_pair_has_a_difference_and_nothing_to_judge_it_by(flatness):
    found = compare_methods(flatness(("standard", 0, 2.0), ("other", 0, 3.0)), "standard").iloc[0]
    assert (found["difference"], found["ratio"], found["n"]) == (1.0, pytest.approx(1.5), 1)
    assert found[["low", "high", "p_value", "p_holm", "effect_size"]].isna().all()


def test_a_value_that_is_missing_makes_the_row_nan(table):
    table.loc[1, "value"] = np.nan
    found = compare_methods(table, "standard").iloc[0]
    numbers = ["difference", "low", "high", "ratio", "p_value", "p_holm", "effect_size", "rank_biserial"]
    assert found[numbers].isna().all()
    assert (found["n"], found["unpaired"]) == (3, 0)


def test_an_infinite_value_is_not_hidden(table):
    table.loc[3, "value"] = np.inf  # of "other"
    found = compare_methods(table, "standard").iloc[0]
    assert found["difference"] == np.inf
    assert found[["low", "high", "ratio", "p_value"]].isna().all()


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_no_ratio_unless_all_values_are_positive(table, value):
    table.loc[0, "value"] = value
    found = compare_methods(table, "standard").iloc[0]
    assert np.isnan(found["ratio"])
    assert np.isfinite(found["difference"])


@pytest.mark.parametrize("row", [0, 4])
def test_one_value_that_has_not_converged_marks_the_row(table, row):
    table.loc[row, "converged"] = False
    assert not compare_methods(table, "standard")["converged"].item()


def test_truth_may_be_text(table):
    # A column with a gap somewhere is read from a file as text.
    texts = table["converged"].astype(str).astype(object)
    assert compare_methods(table.assign(converged=texts), "standard")["converged"].item()
    texts[4] = "False"
    assert not compare_methods(table.assign(converged=texts), "standard")["converged"].item()


def test_a_run_without_a_partner_marks_nothing(table, flatness):
    more = flatness(("other", 9, 100.0), converged=False)
    assert compare_methods(pd.concat([table, more]), "standard")["converged"].item()


def test_a_table_from_a_file(table, through_csv):
    table.loc[4, "converged"] = False
    table = pd.concat([table, table.assign(setting="", split="", metric="trace")])
    pd.testing.assert_frame_equal(
        compare_methods(through_csv(table), "standard"), compare_methods(table, "standard"), check_dtype=True
    )


def test_the_given_table_stays_as_it_was(table):
    before = table.copy()
    compare_methods(table, "standard")
    pd.testing.assert_frame_equal(table, before)


def test_other_methods_may_be_without_a_training_seed(table, flatness):
    named = flatness(("named", None, 1.0))
    assert len(compare_methods(pd.concat([table, named]), "standard", methods=["other"])) == 1


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda t: t, {"baseline": "nobody"}, "baseline: expected one of .*standard, other, got 'nobody'"),
        (lambda t: t, {"methods": ["nobody"]}, "methods: expected one of .*standard, other, got 'nobody'"),
        (lambda t: t, {"methods": "other"}, r"a sequence, got the string 'other'; write \['other'\]"),
        (lambda t: t, {"methods": ["standard"]}, "at least one besides the baseline 'standard', got none"),
        (lambda t: t.assign(training_seed=pd.NA), {}, "got none for standard, other; .*use compare_draws"),
        (lambda t: t.assign(training_seed=0.5), {}, "training_seed: expected whole numbers or <NA>"),
        (
            lambda t: pd.concat([t, t[:1]]),
            {},
            "got 2 that repeat, such as method standard, training_seed 0, checkpoint selected",
        ),
        (lambda t: t.drop(columns="value"), {}, "but value is missing; it has"),
        (lambda t: t[:0], {}, "expected at least one row, got none"),
        (lambda t: t.assign(converged="maybe"), {}, "converged: expected True or False, got 'maybe'"),
        (lambda t: t, {"confidence": 95}, "a share between 0 and 1, such as 0.95, got 95"),
    ],
)
def test_refusals(table, change, settings, message):
    with pytest.raises(ValueError, match=message):
        compare_methods(change(table), **{"baseline": "standard"} | settings)


def test_coverage_of_a_known_difference(flatness):
    # Whole studies: 5 training seeds, what a pair shares is large and skewed, the true difference is -0.4.
    draws, studies = np.random.default_rng(0), 150
    shared = 50 * draws.exponential(size=(studies, 5))
    values = {
        "standard": shared + draws.normal(size=(studies, 5)),
        "other": shared - 0.4 + draws.normal(size=(studies, 5)),
    }
    table = pd.concat(
        [
            flatness(*((method, seed, of_study[seed]) for seed in range(5)), metric=f"study {study}")
            for method, of_method in values.items()
            for study, of_study in enumerate(of_method)
        ]
    )
    found = compare_methods(table, "standard")
    held = ((found["low"] <= -0.4) & (found["high"] >= -0.4)).mean()
    assert held == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / studies) ** 0.5)
