"""Flatness against generalization: Kendall's tau by counting pairs, its parts, its interval, its level."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from landscape.statistics import holm, rank_correlations

COLUMNS = [
    *("checkpoint", "split", "metric", "setting", "gap", "tau", "low", "high", "n", "methods", "missing"),
    *("p_value", "p_methods", "smallest_p", "p_holm", "psi_methods", "psi_seeds", "psi"),
]


def made(values, gaps, metric="sharpness"):
    """A table whose models have these values and gaps, (methods, training seeds) each."""
    rows = []
    for method, seed in np.ndindex(*np.shape(values)):
        base = {
            "method": f"method {method}",
            "training_seed": seed,
            "checkpoint": "selected",
            "metric": metric,
            "setting": "",
            "value": values[method][seed],
            "converged": True,
        }
        gap = gaps[method][seed]
        rows.append(base | {"split": "train", "loss": 0.0, "accuracy": 1.0})
        rows.append(
            base
            | {"split": "test", "loss": gap, "accuracy": 1 - gap / 10, "metric": "only for its loss", "value": np.nan}
        )
    return pd.DataFrame(rows).astype({"training_seed": "Int64"})


def only(found, metric="sharpness"):
    (row,) = found[found["metric"] == metric].to_dict("records")
    return row


def counted(values, gaps):
    """Kendall's tau-b from its definition."""
    values, gaps = np.ravel(values), np.ravel(gaps)
    agree = differ = tied_values = tied_gaps = 0
    for i, j in itertools.combinations(range(len(values)), 2):
        v, g = np.sign(values[i] - values[j]), np.sign(gaps[i] - gaps[j])
        agree += v * g > 0
        differ += v * g < 0
        tied_values += v == 0
        tied_gaps += g == 0
    pairs = len(values) * (len(values) - 1) / 2
    return (agree - differ) / np.sqrt((pairs - tied_values) * (pairs - tied_gaps))


def test_tau_by_counting_pairs():
    draws = np.random.default_rng(0)
    values, gaps = draws.integers(0, 6, (4, 3)).astype(float), draws.integers(0, 6, (4, 3)).astype(float)
    found = rank_correlations(made(values, gaps))
    assert list(found.columns) == COLUMNS
    row = only(found)
    assert row["tau"] == pytest.approx(counted(values, gaps))
    assert row["p_value"] == pytest.approx(stats.kendalltau(values.ravel(), gaps.ravel()).pvalue)
    assert (row["n"], row["methods"], row["missing"], row["gap"], row["split"]) == (12, 4, 0, "loss", "train")


@pytest.mark.parametrize(("orientation", "tau"), [(1, 1.0), (-1, -1.0)])
def test_the_sign_is_that_of_the_metric_as_measured(orientation, tau):
    gaps = np.arange(12.0).reshape(4, 3)
    assert only(rank_correlations(made(orientation * gaps, gaps)))["tau"] == pytest.approx(tau)


def test_the_gap_in_accuracy():
    draws = np.random.default_rng(1)
    values, gaps = draws.normal(size=(2, 4, 3))
    table = made(values, gaps)
    by_loss, by_accuracy = (only(rank_correlations(table, gap=gap)) for gap in ("loss", "accuracy"))
    assert by_accuracy["gap"] == "accuracy"
    assert by_accuracy["tau"] == pytest.approx(by_loss["tau"])  # here the two gaps have one order
    table.loc[table["split"] == "test", "accuracy"] = 1 - table["accuracy"]
    assert only(rank_correlations(table, gap="accuracy"))["tau"] == pytest.approx(-by_loss["tau"])


def test_a_correlation_between_methods_alone_is_seen():
    # Methods in one order on both axes; within a method, seeds run against each other.
    methods, seeds = np.arange(4.0)[:, None], np.arange(3.0)
    row = only(rank_correlations(made(10 * methods + seeds, 10 * methods - seeds)))
    # Of 66 pairs, 54 are between methods and agree; 12 are within one and do not.
    assert row["tau"] == pytest.approx((54 - 12) / 66)
    assert (row["psi_methods"], row["psi_seeds"], row["psi"]) == pytest.approx((1, -1, 0))


def test_a_correlation_between_seeds_alone_is_seen():
    methods, seeds = np.arange(4.0)[:, None], np.arange(3.0)
    row = only(rank_correlations(made(methods + 10 * seeds, -methods + 10 * seeds)))
    # Pairs across seeds agree, 66 - 18; those within a seed, 3 * 6, do not.
    assert row["tau"] == pytest.approx((48 - 18) / 66)
    assert (row["psi_methods"], row["psi_seeds"]) == pytest.approx((-1, 1))


def test_granulated_coefficients_are_means_of_tau():
    values, gaps = np.random.default_rng(2).normal(size=(2, 4, 5))
    row = only(rank_correlations(made(values, gaps)))
    psi_methods = np.mean([counted(values[:, seed], gaps[:, seed]) for seed in range(5)])
    psi_seeds = np.mean([counted(values[method], gaps[method]) for method in range(4)])
    assert (row["psi_methods"], row["psi_seeds"]) == pytest.approx((psi_methods, psi_seeds))
    assert row["psi"] == pytest.approx((psi_methods + psi_seeds) / 2)


def test_a_method_whose_value_never_changes_has_no_tau_of_its_own():
    values, gaps = np.random.default_rng(2).normal(size=(2, 3, 4))
    values[1] = 0.5
    row = only(rank_correlations(made(values, gaps)))
    assert row["psi_seeds"] == pytest.approx(np.mean([counted(values[m], gaps[m]) for m in (0, 2)]))


def test_exchanging_methods_by_hand():
    # Gaps of whole methods in all 3! orders; p is the share with |tau| at least as large.
    values, gaps = np.random.default_rng(5).normal(size=(2, 3, 2))
    taus = [counted(values, gaps[list(order)]) for order in itertools.permutations(range(3))]
    expected = np.mean([abs(tau) >= abs(counted(values, gaps)) - 1e-12 for tau in taus])
    row = only(rank_correlations(made(values, gaps)))
    assert (row["p_methods"], row["smallest_p"]) == (pytest.approx(expected), pytest.approx(1 / 6))
    assert expected > 1 / 6  # the example is not the extreme one


def test_many_methods_take_random_orders():
    values, gaps = np.random.default_rng(6).normal(size=(2, 8, 2))
    table = made(values, gaps)
    # All 8! orders would be 40,320; here every fifth of them, counted from the definition's numerator.
    signs = [np.sign(np.subtract.outer(one, one)) for one in (values, gaps)]
    orders = [np.array(order) for order in itertools.islice(itertools.permutations(range(8)), 0, None, 5)]
    observed = abs((signs[0] * signs[1]).sum())
    expected = np.mean([abs((signs[0] * signs[1][order][:, :, order]).sum()) >= observed for order in orders])
    few, many = (only(rank_correlations(table, orders=orders)) for orders in (99, 9999))
    assert few["smallest_p"] == pytest.approx(1 / 100)
    assert many["p_methods"] == pytest.approx(expected, abs=0.02)
    assert few["p_methods"] == only(rank_correlations(table, orders=99))["p_methods"]
    assert len({only(rank_correlations(table, orders=99, seed=seed))["p_methods"] for seed in range(4)}) > 1


def related(draws, correlation, methods=6, seeds=3):
    """Values and gaps whose differences between methods are correlated, with noise between training seeds."""
    latent, noise = draws.normal(size=(2, methods, 1)), 0.5 * draws.normal(size=(2, methods, seeds))
    gaps = correlation * latent[0] + np.sqrt(1 - correlation**2) * latent[1]
    return latent[0] + noise[0], gaps + noise[1]


def studied(studies, **settings):
    """Many studies at once: each is a checkpoint with models and gaps of its own."""
    table = pd.concat([made(*one).assign(checkpoint=str(place)) for place, one in enumerate(studies)])
    found = rank_correlations(table, **settings)
    return found[found["metric"] == "sharpness"]


def test_exchanging_methods_holds_its_level_and_taking_runs_as_independent_does_not():
    draws = np.random.default_rng(7)
    found = studied([related(draws, 0.0, methods=5, seeds=4) for _ in range(200)])
    assert (found["p_methods"] <= 0.05).mean() <= 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5
    assert (found["p_value"] <= 0.05).mean() > 0.15


def test_coverage_of_the_interval():
    # The true tau is its mean over studies of this kind, here from 2000 others.
    draws = np.random.default_rng(8)
    true = np.mean([stats.kendalltau(*map(np.ravel, related(draws, 0.6))).statistic for _ in range(2000)])
    found = studied([related(draws, 0.6) for _ in range(300)])
    held = ((found["low"] <= true) & (found["high"] >= true)).mean()
    assert 0.92 <= held <= 0.98
    assert (found["high"] - found["low"]).mean() < 1.4


def test_no_interval_from_few_methods_or_where_all_pairs_agree():
    draws = np.random.default_rng(0)
    values, gaps = draws.normal(size=(2, 4, 5))
    row = only(rank_correlations(made(values, gaps)))
    assert np.isnan([row["low"], row["high"]]).all()
    agree = np.arange(18.0).reshape(6, 3)
    row = only(rank_correlations(made(agree, agree)))
    assert row["tau"] == pytest.approx(1)
    assert np.isnan([row["low"], row["high"]]).all()
    values, gaps = draws.normal(size=(2, 5, 3))
    row = only(rank_correlations(made(values, gaps)))
    assert -1 < row["low"] < row["tau"] < row["high"] < 1


def test_the_interval_by_hand():
    # Leave out one method at a time; pseudo-values of artanh(tau), t with 4 degrees of freedom.
    values, gaps = np.random.default_rng(11).normal(size=(2, 5, 3))
    whole = np.arctanh(counted(values, gaps))
    parts = np.arctanh([counted(np.delete(values, m, 0), np.delete(gaps, m, 0)) for m in range(5)])
    half = stats.t.ppf(0.9, 4) * stats.sem(5 * whole - 4 * parts)
    row = only(rank_correlations(made(values, gaps), confidence=0.8))
    assert (row["low"], row["high"]) == pytest.approx((np.tanh(whole - half), np.tanh(whole + half)))


def test_models_without_a_value_are_counted():
    values, gaps = np.random.default_rng(3).normal(size=(2, 6, 3))
    values[2, 1] = np.nan
    row = only(rank_correlations(made(values, gaps)))
    there = ~np.isnan(values)
    assert (row["n"], row["missing"]) == (17, 1)
    assert row["tau"] == pytest.approx(counted(values[there], gaps[there]))
    assert np.isnan(row["p_methods"])  # blocks of different sizes cannot be exchanged
    assert np.isnan(row["p_holm"])


def test_a_constant_metric_has_no_tau():
    gaps = np.random.default_rng(4).normal(size=(6, 3))
    row = only(rank_correlations(made(np.ones((6, 3)), gaps)))
    assert np.isnan([row[column] for column in ("tau", "low", "high", "p_value", "p_methods", "psi")]).all()


def test_infinite_values_are_the_largest():
    values, gaps = np.random.default_rng(3).normal(size=(2, 6, 3))
    infinite, large = values.copy(), values.copy()
    infinite[[0, 3], [1, 2]], large[[0, 3], [1, 2]] = np.inf, 99.0
    one, other = (only(rank_correlations(made(each, gaps))) for each in (infinite, large))
    assert one == other


def test_models_that_have_only_names():
    values, gaps = np.random.default_rng(4).normal(size=(2, 6, 1))
    row = only(rank_correlations(made(values, gaps).assign(training_seed=pd.NA)))
    assert row["tau"] == pytest.approx(counted(values, gaps))
    assert row["smallest_p"] == pytest.approx(1 / 720)
    assert np.isnan([row["psi_methods"], row["psi_seeds"], row["psi"]]).all()


def test_holm_over_all_rows():
    draws = np.random.default_rng(9)
    gaps = draws.normal(size=(6, 2))
    table = pd.concat([made(gaps + noise * draws.normal(size=(6, 2)), gaps, f"noise {noise}") for noise in (0.1, 1, 5)])
    table = table.drop_duplicates(["method", "training_seed", "split", "metric"])
    found = rank_correlations(table)
    assert found["p_holm"].to_numpy() == pytest.approx(holm(found["p_methods"].to_numpy()), nan_ok=True)
    assert (found["p_holm"] > found["p_methods"]).any()


def test_checkpoints_stay_apart():
    values, gaps = np.random.default_rng(4).normal(size=(2, 4, 3))
    both = pd.concat([made(values, gaps), made(-gaps, gaps).assign(checkpoint="matched")])
    found = rank_correlations(both)
    taus = found[found["metric"] == "sharpness"].set_index("checkpoint")["tau"]
    assert taus["selected"] == pytest.approx(counted(values, gaps))
    assert taus["matched"] == pytest.approx(-1)


def test_a_table_from_a_file(through_csv):
    table = made(*np.random.default_rng(4).normal(size=(2, 5, 3)))
    pd.testing.assert_frame_equal(rank_correlations(through_csv(table)), rank_correlations(table))


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda t: t, {"gap": "error"}, "gap: expected 'loss' or 'accuracy', got 'error'"),
        (lambda t: t, {"confidence": 95}, "a share between 0 and 1, such as 0.95, got 95"),
        (lambda t: t.drop(columns="accuracy"), {"gap": "accuracy"}, "but accuracy is missing"),
        (lambda t: t[t["split"] == "train"], {}, "got none on 'test'"),
        (lambda t: pd.concat([t, t]), {}, "that repeat"),
    ],
)
def test_refusals(change, settings, message):
    table = made(*np.random.default_rng(4).normal(size=(2, 3, 2)))
    with pytest.raises(ValueError, match=message):
        rank_correlations(change(table), **settings)
