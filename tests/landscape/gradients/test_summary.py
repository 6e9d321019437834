"""Summaries of penalty checks, against means, intervals and ratios by hand."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from landscape.gradients import largest_epsilon_within, penalty_check, summarize_penalty

FIRST = np.array([1.0, 2.0, 4.0])  # first-order terms of three masks at epsilon 1


def made(epsilons=(0.1, 1.0), bend=0.5, noise=1e-9, site="site", **columns):
    """A check of three masks with the rise f e + bend f e^2 for first-order terms f, and a random direction."""
    rows = []
    for epsilon, (draw, f) in itertools.product(epsilons, enumerate(FIRST)):
        first, second = f * epsilon, bend * f * epsilon**2
        terms = {"norm": epsilon, "rise": first + second, "first_order": first, "second_order": second}
        rows.append({"epsilon": epsilon, "perturbation": "masked", "draw": draw, "eq_12": 2 * first, **terms})
    for epsilon, kind in itertools.product(epsilons, ["gradient", "scaled gradient", "random"]):
        terms = dict.fromkeys(["norm", "rise", "first_order", "second_order"], epsilon / 10)
        rows.append({"epsilon": epsilon, "perturbation": kind, "draw": 0, "eq_12": np.nan, **terms})
    extra = {"site": site, "kind": "parameter", "expected_first_order": 2.0, "rise_noise": noise, **columns}
    return pd.DataFrame(rows).assign(**extra)


def of(summary, epsilon=1.0):
    return summary[summary["epsilon"] == epsilon].set_index("quantity")


def test_means_and_intervals_over_masks():
    rows = of(summarize_penalty(made()))
    half = t.ppf(0.975, 2) * FIRST.std(ddof=1) / np.sqrt(3)
    for quantity, factor in {"first_order": 1, "second_order": 0.5, "rise": 1.5, "first_and_second_order": 1.5}.items():
        assert rows.loc[quantity, "value"] == pytest.approx(factor * FIRST.mean(), rel=1e-12)
        assert rows.loc[quantity, "low"] == pytest.approx(factor * (FIRST.mean() - half), rel=1e-9)
        assert rows.loc[quantity, "high"] == pytest.approx(factor * (FIRST.mean() + half), rel=1e-9)
        assert rows.loc[quantity, "n"] == 3
    assert rows.loc["eq_12", "value"] == pytest.approx(2 * FIRST.mean(), rel=1e-12)
    assert rows.loc["expected_first_order", "value"] == 2.0
    for quantity in ("random_rise", "gradient_rise", "scaled_gradient_rise"):
        assert rows.loc[quantity, "value"] == pytest.approx(0.1, rel=1e-12)
        assert np.isnan(rows.loc[quantity, "low"])  # of one direction
    assert rows.loc["rise_noise", "value"] == 1e-9


def test_narrower_intervals_for_less_confidence():
    wide, narrow = (of(summarize_penalty(made(), confidence)).loc["rise"] for confidence in (0.95, 0.5))
    assert narrow["high"] - narrow["low"] < 0.3 * (wide["high"] - wide["low"])


def test_ratios_are_those_of_means():
    check = made()
    is_masked = (check["perturbation"] == "masked") & (check["epsilon"] == 1.0)
    rises = np.array([1.0, 3.0, 5.0])
    check.loc[is_masked, "rise"] = rises
    rows = of(summarize_penalty(check))
    # R = 3 / (7/3) = 9/7; the residuals a - R b have the mean 0.
    ratio = 9 / 7
    residuals = (rises - ratio * FIRST) / FIRST.mean()
    half = t.ppf(0.975, 2) * residuals.std(ddof=1) / np.sqrt(3)
    row = rows.loc["rise / first_order"]
    assert row[["value", "low", "high"]].to_list() == pytest.approx([ratio, ratio - half, ratio + half], rel=1e-9)
    assert rows.loc["rise / eq_12", "value"] == pytest.approx(ratio / 2, rel=1e-12)
    assert rows.loc["rise / first_and_second_order", "value"] == pytest.approx(ratio / 1.5, rel=1e-12)


def test_a_mask_that_hits_nothing_does_not_upset_the_ratio():
    check = made()
    check.loc[check["draw"] == 0, ["rise", "first_order", "second_order", "eq_12"]] = 0.0
    row = of(summarize_penalty(check)).loc["rise / first_order"]
    assert row[["value", "low", "high"]].to_list() == pytest.approx([1.5, 1.5, 1.5], rel=1e-12)
    check.loc[:, ["rise", "first_order", "second_order", "eq_12"]] = 0.0
    rows = of(summarize_penalty(check))
    assert rows.loc["rise", "value"] == 0
    assert np.isnan(rows.loc["rise / first_order", "value"])


def test_a_rise_that_is_not_finite():
    check = made()
    check.loc[(check["draw"] == 1) & (check["epsilon"] == 1.0), "rise"] = np.inf
    summary = summarize_penalty(check)
    assert np.isposinf(of(summary).loc["rise", "value"])
    assert np.isnan(of(summary).loc["rise / first_order", "value"])
    assert np.isfinite(of(summary, 0.1).loc["rise / first_order", "value"])
    found = largest_epsilon_within(check).set_index("description")
    assert found.loc["first_and_second_order", ["epsilon", "next_epsilon"]].to_list() == [0.1, 1.0]


def test_models_and_sites_are_kept_apart():
    checks = [made(site="a", model="x"), made(site="b", model="x"), made(site="a", model="y", bend=0.0)]
    summary = summarize_penalty(pd.concat(checks))
    assert list(summary.columns) == [
        "epsilon", "site", "kind", "model", "quantity", "value", "low", "high", "n",
    ]  # fmt: skip
    rises = summary[(summary["quantity"] == "rise") & (summary["epsilon"] == 1.0)]
    assert rises[["model", "site"]].to_numpy().tolist() == [["x", "a"], ["x", "b"], ["y", "a"]]
    assert rises["value"].to_list() == pytest.approx([3.5, 3.5, 7 / 3], rel=1e-12)
    assert len(largest_epsilon_within(pd.concat(checks))) == 9


def test_up_to_which_epsilon():
    # rise / first = 1 + e / 2: within 10 % up to e = 0.2; the sum with the second order is exact; eq. 12 is twice the
    # first order, whose ratio (1 + e / 2) / 2 comes within 10 % only between e = 1.6 and e = 2.4.
    check = made(epsilons=(0.01, 0.1, 0.19, 0.3, 2.0, 5.0))
    found = largest_epsilon_within(check).set_index("description")
    assert found.loc["first_order", ["epsilon", "next_epsilon"]].to_list() == [0.19, 0.3]
    assert found.loc["first_and_second_order", "epsilon"] == 5.0
    assert np.isnan(found.loc["first_and_second_order", "next_epsilon"])
    assert np.isnan(found.loc["eq_12", "epsilon"])
    assert found.loc["eq_12", "next_epsilon"] == 0.01
    assert set(found["epsilons"]) == {6}
    wider = largest_epsilon_within(check, tolerance=0.16).set_index("description")
    assert wider.loc["first_order", ["epsilon", "next_epsilon"]].to_list() == [0.3, 2.0]


def test_epsilons_that_drown_in_rounding_are_passed_over():
    # The mean first-order term is 7/3 e: at e = 0.01 a tenth of it is below the noise, at e = 0.1 above.
    check = made(epsilons=(0.01, 0.1, 0.3), noise=0.01)
    check.loc[check["epsilon"] == 0.01, "rise"] *= 3
    found = largest_epsilon_within(check).set_index("description")
    assert found.loc["first_order", ["epsilon", "next_epsilon", "epsilons"]].to_list() == [0.1, 0.3, 2]
    nothing = largest_epsilon_within(made(noise=1.0).assign(first_order=0.0)).set_index("description")
    assert nothing.loc["first_order", ["epsilon", "next_epsilon"]].isna().all()
    assert nothing.loc["first_order", "epsilons"] == 0


def test_from_a_file(linear_regression):
    check = penalty_check(linear_regression[0], epsilons=(0.1, 1.0), masks=3)
    with io.StringIO(check.to_csv(index=False)) as file:
        read = pd.read_csv(file)
    pd.testing.assert_frame_equal(summarize_penalty(read), summarize_penalty(check), rtol=1e-12)
    pd.testing.assert_frame_equal(largest_epsilon_within(read), largest_epsilon_within(check), rtol=1e-12)


def test_the_loss_of_linear_regression_is_its_second_order(linear_regression):
    # It is quadratic in the input and in each parameter.
    check = penalty_check(linear_regression[0], epsilons=(0.1, 10.0), masks=3)
    found = largest_epsilon_within(check).set_index("description")
    assert (found.loc["first_and_second_order", "epsilon"] == 10.0).all()
    ratios = summarize_penalty(check).query("quantity == 'rise / first_and_second_order'")
    assert ratios["value"].to_numpy() == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("call", [summarize_penalty, largest_epsilon_within])
def test_refusals(call):
    with pytest.raises(ValueError, match=r"expected what penalty_check returns, but rise, eq_12 is missing"):
        call(made().drop(columns=["rise", "eq_12"]))
    with pytest.raises(ValueError, match="expected masked perturbations, got none"):
        call(made().query("perturbation == 'random'"))


def test_a_tolerance_is_positive():
    with pytest.raises(ValueError, match=r"tolerance: expected a positive share, such as 0\.1, got 0"):
        largest_epsilon_within(made(), tolerance=0)
